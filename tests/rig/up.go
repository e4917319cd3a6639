package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	readyTimeout = 3 * time.Minute // of one cluster; 4 s is usual
	pauseImage   = "docker.io/rig/pause:1"
)

func up(root string, o options) error {
	if err := o.validate(); err != nil {
		return err
	}
	if existing, err := loadClusters(root); err != nil || len(existing) > 0 {
		return fmt.Errorf("%s holds clusters already: run `rig down` first (%v)", root, err)
	}
	_ = run("sysctl", "-qw", "fs.inotify.max_user_instances=8192", "fs.inotify.max_user_watches=1048576")
	if err := runAll("ip link add "+bridge+" type bridge", "ip addr add "+wanHost4+"/16 dev "+bridge, "ip link set "+bridge+" up"); err != nil {
		return fmt.Errorf("%w (other clusters may run here: `rig down` with their --dir ends them)", err)
	}
	// A bridged packet between two nodes is not this machine's to filter.
	_ = run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")
	var clusters []Cluster
	for i := 1; i <= o.clusters; i++ {
		clusters = append(clusters, newCluster(root, i, o))
	}
	if o.dualStack {
		if err := routeIPv6(clusters); err != nil {
			return err
		}
	}
	for i := range clusters {
		c := clusters[i]
		for j := range clusters {
			if j != i {
				c.Peers = append(c.Peers, clusters[j])
			}
		}
		if err := startCluster(&c); err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	for i := range clusters {
		if err := waitReady(&clusters[i]); err != nil {
			return fmt.Errorf("%s: %w (logs in %s)", clusters[i].Name, err, clusters[i].path("logs"))
		}
		fmt.Println(clusters[i].path("pki", "admin.kubeconfig"))
	}
	return mergeKubeconfigs(root, clusters)
}

// routeIPv6 puts this machine on the WAN in IPv6 too. A node answers ARP for its
// pool of load balancers, as the addresses are local to it, but IPv6 knows no
// such answer: there the pool is a network behind the node.
func routeIPv6(clusters []Cluster) error {
	commands := []string{
		"sysctl -qw net.ipv6.conf." + bridge + ".disable_ipv6=0",
		"ip -6 addr add " + wanHost6 + "/64 dev " + bridge + " nodad",
	}
	for _, c := range clusters {
		commands = append(commands, "ip -6 route add "+c.LBCIDR.V6+" via "+c.Nodes[0].IP.V6+" dev "+bridge)
	}
	return runAll(commands...)
}

// mergeKubeconfigs writes one file with a context for each cluster.
func mergeKubeconfigs(root string, clusters []Cluster) error {
	rules := clientcmd.ClientConfigLoadingRules{}
	for _, c := range clusters {
		rules.Precedence = append(rules.Precedence, c.path("pki", "admin.kubeconfig"))
	}
	merged, err := rules.Load()
	if err != nil {
		return err
	}
	file := filepath.Join(root, "kubeconfig")
	fmt.Println(file)
	return clientcmd.WriteToFile(*merged, file)
}

func startCluster(c *Cluster) error {
	for k := range c.Nodes {
		if err := os.MkdirAll(c.Nodes[k].path("logs"), 0o755); err != nil {
			return err
		}
	}
	if err := c.save(); err != nil {
		return err
	}
	if err := writeCredentials(c); err != nil {
		return err
	}
	for k := range c.Nodes {
		if err := startNode(c, &c.Nodes[k]); err != nil {
			return fmt.Errorf("%s: %w", c.Nodes[k].Name, err)
		}
	}
	return nil
}

// startNode starts a node's PID 1 in new namespaces and plugs it into the WAN.
func startNode(c *Cluster, n *Node) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(n.path("logs", "node.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	node := exec.Command(self, "node", c.Dir, n.Name)
	node.Stdout, node.Stderr = log, log
	node.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Setsid:     true,
	}
	if err := node.Start(); err != nil {
		return err
	}
	pid := node.Process.Pid
	if err := os.WriteFile(n.path("pid"), []byte(fmt.Sprint(pid)), 0o644); err != nil {
		return err
	}
	return runAll(
		fmt.Sprintf("ip link add %s type veth peer name wan netns %d", n.link(), pid),
		fmt.Sprintf("ip link set %s master %s up", n.link(), bridge),
	)
}

// waitReady returns once the API answers, every node is Ready, the default service
// account exists, so that pods can be made, and the cluster's DNS serves.
func waitReady(c *Cluster) error {
	config, err := clientcmd.BuildConfigFromFlags("", c.path("pki", "admin.kubeconfig"))
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	imported := map[string]bool{}
	for {
		missing := importPause(c, imported)
		if missing == nil {
			missing = nodesReady(ctx, client, c)
		}
		if missing == nil {
			_, missing = client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		}
		if missing == nil {
			_, missing = client.DiscoveryV1().EndpointSlices(systemNamespace).Get(ctx, dnsSlice+"-0", metav1.GetOptions{})
		}
		if missing == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready after %s: %w", readyTimeout, missing)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// importPause loads the image of every pod's first container where it is not yet.
func importPause(c *Cluster, imported map[string]bool) error {
	pause, err := exec.LookPath("rig-pause")
	if err != nil {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		pause = filepath.Join(filepath.Dir(self), "rig-pause")
	}
	for k := range c.Nodes {
		n := &c.Nodes[k]
		if imported[n.Name] {
			continue
		}
		if err := loadImage(n, pauseImage, map[string]string{"/pause": pause}, []string{"/pause"}); err != nil {
			return err
		}
		imported[n.Name] = true
	}
	return nil
}

func nodesReady(ctx context.Context, client kubernetes.Interface, c *Cluster) error {
	for _, n := range c.Nodes {
		node, err := client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		ready := false
		for _, condition := range node.Status.Conditions {
			ready = ready || condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue
		}
		if !ready {
			return fmt.Errorf("node %s is not Ready", n.Name)
		}
	}
	return nil
}
