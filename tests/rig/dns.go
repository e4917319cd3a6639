package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// The cluster's DNS, as an installer sets it up: CoreDNS reads its Corefile from
// the ConfigMap kube-system/coredns, acts as the ServiceAccount of that name and
// is reached by the Service kube-system/kube-dns. It is no pod, since there is no
// registry to pull its image from: a process of the first node in a network
// namespace of its own. An edit of the ConfigMap takes effect within a second.

const (
	systemNamespace = metav1.NamespaceSystem
	dnsName         = "coredns"
	corefileKey     = "Corefile"
	dnsSlice        = "kube-dns-rig" // then a dash and a number for each family
	// credentials are where a pod's service account is; the node's /run is its own.
	credentials = "/run/secrets/kubernetes.io/serviceaccount"
	// dnsTokenSeconds is the token's life, as long as the certificates'.
	dnsTokenSeconds = 30 * 24 * 60 * 60
	// dnsReadyTimeout bounds the wait for CoreDNS before it is published anyway:
	// a Corefile without the `ready` plugin never says that it is.
	dnsReadyTimeout = 15 * time.Second
)

// defaultCorefile differs from the usual one in short lifetimes, for tests, and in
// that it forwards nothing: no node reaches a resolver outside.
const defaultCorefile = `.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 5
    }
    prometheus :9153
    cache 2
    reload
    loadbalance
}
`

// clusterDNS keeps CoreDNS in step with what the API holds.
type clusterDNS struct {
	client     kubernetes.Interface
	cluster    *Cluster
	supervisor *supervisor
	prepared   bool // the ConfigMap, the account and its token are there
	published  bool // the Service leads to CoreDNS
	corefile   string
}

// sync sets up what is not set up yet and takes over an edited Corefile.
func (d *clusterDNS) sync(ctx context.Context) error {
	if !d.prepared {
		if err := d.prepare(ctx); err != nil {
			return err
		}
		d.prepared = true
	}
	if err := d.readCorefile(ctx); err != nil {
		return err
	}
	if !d.published {
		d.waitReady(ctx)
		if err := d.publish(ctx); err != nil {
			return err
		}
		d.published = true
	}
	return nil
}

// readCorefile writes the ConfigMap's Corefile for CoreDNS when it changed, and
// makes CoreDNS load it; CoreDNS keeps the old one if the new one is wrong. A
// ConfigMap that is gone changes nothing, as with a pod that has it mounted.
func (d *clusterDNS) readCorefile(ctx context.Context) error {
	object, err := d.client.CoreV1().ConfigMaps(systemNamespace).Get(ctx, dnsName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	text := object.Data[corefileKey]
	if text == "" || text == d.corefile {
		return nil
	}
	n := &d.cluster.Nodes[0]
	// Whole or not at all: CoreDNS may read at any moment.
	file := n.path("etc", corefileKey)
	if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	if d.corefile == "" {
		d.supervisor.start(coreDNSSpec(n))
	} else {
		d.supervisor.signal(dnsName, syscall.SIGUSR1)
	}
	d.corefile = text
	return nil
}

// waitReady returns when CoreDNS says that it is ready, or in time.
func (d *clusterDNS) waitReady(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, dnsReadyTimeout)
	defer cancel()
	url := "http://" + net.JoinHostPort(dnsAddresses(&d.cluster.Nodes[0]).V4, "8181") + "/ready"
	for ctx.Err() == nil {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return
		}
		if answer, err := http.DefaultClient.Do(request); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// prepare creates the ConfigMap, unless there is one, and CoreDNS's account with
// its rights, and puts the account's token where a pod would find it.
func (d *clusterDNS) prepare(ctx context.Context) error {
	system := metav1.ObjectMeta{Name: dnsName, Namespace: systemNamespace}
	role := metav1.ObjectMeta{Name: "system:" + dnsName}
	read := []string{"list", "watch"}
	_, config := d.client.CoreV1().ConfigMaps(systemNamespace).Create(ctx,
		&corev1.ConfigMap{ObjectMeta: system, Data: map[string]string{corefileKey: defaultCorefile}}, metav1.CreateOptions{})
	_, account := d.client.CoreV1().ServiceAccounts(systemNamespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: system}, metav1.CreateOptions{})
	_, rights := d.client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: role, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"endpoints", "services", "pods", "namespaces"}, Verbs: read},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: read},
		// For the setting `multicluster` of CoreDNS's Kubernetes plugin.
		{APIGroups: []string{"multicluster.x-k8s.io"}, Resources: []string{"serviceimports"}, Verbs: read},
	}}, metav1.CreateOptions{})
	_, binding := d.client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: role,
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: dnsName, Namespace: systemNamespace}},
	}, metav1.CreateOptions{})
	for _, err := range []error{config, account, rights, binding} {
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(dnsTokenSeconds))}}
	token, err := d.client.CoreV1().ServiceAccounts(systemNamespace).CreateToken(ctx, dnsName, request, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	authority, err := os.ReadFile(d.cluster.path("pki", "ca.crt"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(credentials, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(credentials, "ca.crt"), authority, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(credentials, "token"), []byte(token.Status.Token), 0o600)
}

// publish makes the Service kube-system/kube-dns and leads it to CoreDNS.
func (d *clusterDNS) publish(ctx context.Context) error {
	addresses, services := dnsAddresses(&d.cluster.Nodes[0]).list(), d.cluster.DNSIP.list()
	ports := []corev1.ServicePort{
		{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP},
		{Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP},
		{Name: "metrics", Port: 9153, Protocol: corev1.ProtocolTCP},
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "kube-dns", Namespace: systemNamespace,
			Labels: map[string]string{"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}},
		Spec: corev1.ServiceSpec{ClusterIP: services[0], ClusterIPs: services, Ports: ports,
			IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicyPreferDualStack)},
	}
	if _, err := d.client.CoreV1().Services(systemNamespace).Create(ctx, service, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	for i, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}[:len(addresses)] {
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", dnsSlice, i), Namespace: systemNamespace,
				Labels: map[string]string{discoveryv1.LabelServiceName: service.Name}},
			AddressType: family,
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{addresses[i]},
				Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
		}
		for _, p := range ports {
			slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: ptr.To(p.Name), Port: ptr.To(p.Port), Protocol: ptr.To(p.Protocol)})
		}
		if _, err := d.client.DiscoveryV1().EndpointSlices(systemNamespace).Create(ctx, slice, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}
