package main

import (
	"fmt"
	"os"
	"strings"
)

// writeConfigs writes the node's configuration files.
func writeConfigs(c *Cluster, n *Node) error {
	r := strings.NewReplacer(
		"@pki@", c.path("pki"), "@name@", n.Name, "@node@", n.IP.V4, "@dns@", c.DNSIP.V4,
		"@pods@", strings.Join(c.PodCIDR.list(), ","), "@socket@", containerdSocket)
	for _, folder := range []string{"etc", "cni"} {
		if err := os.MkdirAll(n.path(folder), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"etc/kubelet.yaml":    kubeletConfig,
		"etc/kube-proxy.yaml": kubeProxyConfig,
		"etc/containerd.toml": containerdConfig,
		"cni/10-rig.conflist": cniConfig(n),
	} {
		if err := os.WriteFile(n.path(name), []byte(r.Replace(text)), 0o644); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// cniConfig joins each pod to its node by a pair of interfaces, with an address
// of every family.
func cniConfig(n *Node) string {
	var ranges, routes []string
	for i, pods := range n.PodCIDR.list() {
		ranges = append(ranges, fmt.Sprintf(`[{"subnet": %q, "rangeStart": %q}]`, pods, nth(pods, 10)))
		routes = append(routes, fmt.Sprintf(`{"dst": %q}`, []string{"0.0.0.0/0", "::/0"}[i]))
	}
	return fmt.Sprintf(`{"cniVersion": "0.4.0", "name": "rig", "plugins": [
  {"type": "ptp", "ipMasq": false, "mtu": 1500,
   "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [%s], "routes": [%s]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
`, strings.Join(ranges, ", "), strings.Join(routes, ", "))
}

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: @pki@/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: @pki@/kubelet-server-@name@.crt
tlsPrivateKeyFile: @pki@/kubelet-server-@name@.key
containerRuntimeEndpoint: unix://@socket@
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
clusterDomain: cluster.local
clusterDNS: ["@dns@"]
maxPods: 500
serializeImagePulls: false
kubeAPIQPS: 200
kubeAPIBurst: 400
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: "50Mi", nodefs.available: "1%", imagefs.available: "1%", nodefs.inodesFree: "1%"}
featureGates: {KubeletInUserNamespace: true}
`

const kubeProxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: @pki@/proxy.kubeconfig}
clusterCIDR: @pods@
bindAddress: @node@
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: 100ms}
`

const containerdConfig = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt"]
[grpc]
  address = "@socket@"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "rig/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  enable_unprivileged_ports = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
`
