package main

import (
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// A component waits for what it needs by itself or by being started again.

// controlPlaneSpecs lists what only a cluster's first node runs, but for CoreDNS,
// which starts when the API server has its settings.
func controlPlaneSpecs(c *Cluster, n *Node) []spec {
	self := executable()
	pki := func(name string) string { return c.path("pki", name) }
	return []spec{
		{name: "etcd", args: []string{self, "etcd", "--name=" + n.Name, "--data-dir=" + c.path("etcd"),
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level=warn"}},
		{name: "kube-apiserver", args: []string{self, "kube-apiserver",
			"--etcd-servers=http://127.0.0.1:2379",
			"--advertise-address=" + n.IP.V4, "--secure-port=6443",
			"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
			"--client-ca-file=" + pki("ca.crt"),
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + pki("sa.pub"), "--service-account-signing-key-file=" + pki("sa.key"),
			"--service-cluster-ip-range=" + strings.Join(c.SvcCIDR.list(), ","),
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--allow-privileged=true",
			"--kubelet-client-certificate=" + pki("apiserver-kubelet-client.crt"),
			"--kubelet-client-key=" + pki("apiserver-kubelet-client.key"),
			"--kubelet-certificate-authority=" + pki("ca.crt"),
			"--kubelet-preferred-address-types=InternalIP",
			"--requestheader-client-ca-file=" + pki("front-proxy-ca.crt"),
			"--requestheader-allowed-names=front-proxy-client",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
			"--proxy-client-cert-file=" + pki("front-proxy-client.crt"),
			"--proxy-client-key-file=" + pki("front-proxy-client.key"),
			"--profiling=false", "--v=1"}},
		{name: "kube-controller-manager", args: []string{self, "kube-controller-manager",
			"--kubeconfig=" + pki("controller-manager.kubeconfig"),
			"--cluster-name=" + c.Name, "--cluster-cidr=" + strings.Join(c.PodCIDR.list(), ","), "--allocate-node-cidrs=false",
			"--service-account-private-key-file=" + pki("sa.key"), "--root-ca-file=" + pki("ca.crt"),
			"--use-service-account-credentials", "--leader-elect=false", "--bind-address=127.0.0.1",
			"--kube-api-qps=200", "--kube-api-burst=400", "--profiling=false", "--v=1"}},
		{name: "kube-scheduler", args: []string{self, "kube-scheduler",
			"--kubeconfig=" + pki("scheduler.kubeconfig"), "--leader-elect=false", "--bind-address=127.0.0.1",
			"--kube-api-qps=200", "--kube-api-burst=400", "--profiling=false", "--v=1"}},
	}
}

// nodeSpecs lists what every node runs.
func nodeSpecs(c *Cluster, n *Node) []spec {
	self := executable()
	kubeconfig := c.path("pki", "kubelet-"+n.Name+".kubeconfig")
	return []spec{
		{name: "containerd", args: []string{"containerd", "--config=" + n.path("etc", "containerd.toml")}},
		{name: "kubelet", args: []string{self, "kubelet", "--config=" + n.path("etc", "kubelet.yaml"),
			"--kubeconfig=" + kubeconfig, "--hostname-override=" + n.Name, "--node-ip=" + strings.Join(n.IP.list(), ","),
			"--node-labels=" + corev1.LabelTopologyRegion + "=" + c.Region + "," + corev1.LabelTopologyZone + "=" + n.Zone, "--v=1"}},
		{name: "kube-proxy", args: []string{self, "kube-proxy", "--config=" + n.path("etc", "kube-proxy.yaml"), "--hostname-override=" + n.Name}},
	}
}

// coreDNSSpec runs CoreDNS in its network namespace with what a pod of the
// ServiceAccount kube-system/coredns would be given.
func coreDNSSpec(n *Node) spec {
	return spec{
		name: "coredns",
		args: []string{"ip", "netns", "exec", dnsNamespace, executable(), "coredns", "-conf", n.path("etc", "Corefile")},
		env:  []string{"KUBERNETES_SERVICE_HOST=" + n.IP.V4, "KUBERNETES_SERVICE_PORT=6443"},
	}
}

func executable() string {
	self, err := os.Executable()
	fail(err)
	return self
}
