package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
)

const (
	// poolFirst and poolLast bound the pool of load balancers within LBCIDR.
	poolFirst, poolLast = 10, 250
	// addonPause is the time between two looks at the API. A watch would be
	// quicker; a list of a test cluster's Services is cheap.
	addonPause = 250 * time.Millisecond
)

// runAddons does what a cloud and a cluster's installer do: it gives every Service
// of type LoadBalancer an address, and it runs the cluster's DNS. It must start no
// child of its own, since the supervisor reaps them all.
func runAddons(ctx context.Context, c *Cluster, s *supervisor) {
	config, err := clientcmd.BuildConfigFromFlags("", c.path("pki", "admin.kubeconfig"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "rig:", err)
		return
	}
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, "rig:", err)
		return
	}
	dns := &clusterDNS{client: client, cluster: c, supervisor: s}
	for ctx.Err() == nil {
		if err := dns.sync(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "rig: cluster DNS:", err)
		}
		if err := assignAddresses(ctx, client, c); err != nil {
			fmt.Fprintln(os.Stderr, "rig: load balancer:", err)
		}
		time.Sleep(addonPause)
	}
}

// assignAddresses gives every Service of type LoadBalancer an address of the
// cluster's pool for each of its families: spec.loadBalancerIP when that is free,
// or the first free one.
func assignAddresses(ctx context.Context, client kubernetes.Interface, c *Cluster) error {
	list, err := client.CoreV1().Services("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	taken := map[string]bool{}
	for i := range list.Items {
		for _, ingress := range list.Items[i].Status.LoadBalancer.Ingress {
			if list.Items[i].Spec.Type == corev1.ServiceTypeLoadBalancer {
				taken[ingress.IP] = true
			}
		}
	}
	for i := range list.Items {
		service := &list.Items[i]
		if service.Spec.Type != corev1.ServiceTypeLoadBalancer || service.Spec.LoadBalancerClass != nil {
			continue
		}
		ingress := wantedIngress(service, c, taken)
		if slices.EqualFunc(ingress, service.Status.LoadBalancer.Ingress, func(a, b corev1.LoadBalancerIngress) bool { return a.IP == b.IP }) {
			continue
		}
		service.Status.LoadBalancer.Ingress = ingress
		if _, err := client.CoreV1().Services(service.Namespace).UpdateStatus(ctx, service, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// wantedIngress keeps the addresses that the Service has in its families, and
// takes those that it lacks.
func wantedIngress(service *corev1.Service, c *Cluster, taken map[string]bool) []corev1.LoadBalancerIngress {
	var ingress []corev1.LoadBalancerIngress
	for _, family := range service.Spec.IPFamilies {
		pool := c.LBCIDR.V4
		if family == corev1.IPv6Protocol {
			pool = c.LBCIDR.V6
		}
		address := ""
		for _, has := range service.Status.LoadBalancer.Ingress {
			if inFamily(has.IP, family) {
				address = has.IP
			}
		}
		if address == "" && pool != "" {
			address = freeAddress(service.Spec.LoadBalancerIP, family, pool, taken)
		}
		if address != "" {
			taken[address] = true
			ingress = append(ingress, corev1.LoadBalancerIngress{IP: address, IPMode: ptr.To(corev1.LoadBalancerIPModeVIP)})
		}
	}
	return ingress
}

// freeAddress is the asked one, or the first of the pool that is not taken; it is
// empty if there is none.
func freeAddress(asked string, family corev1.IPFamily, pool string, taken map[string]bool) string {
	if inFamily(asked, family) {
		if taken[asked] {
			return ""
		}
		return asked
	}
	for n := poolFirst; n <= poolLast; n++ {
		if candidate := nth(pool, n); !taken[candidate] {
			return candidate
		}
	}
	return ""
}

func inFamily(address string, family corev1.IPFamily) bool {
	ip, err := netip.ParseAddr(address)
	return err == nil && ip.Is6() == (family == corev1.IPv6Protocol)
}
