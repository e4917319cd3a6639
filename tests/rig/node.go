package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
)

// containerdSocket is where containerd listens inside a node.
const containerdSocket = "/run/containerd/containerd.sock"

// runNode is PID 1 of the node `args[1]` of the cluster in the folder `args[0]`.
// It sets the node's mounts and addresses up, then starts the components and
// starts each again when it ends, until SIGTERM; the kernel then ends everything
// else in the PID namespace.
func runNode(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: node FOLDER NAME")
	}
	c, err := loadCluster(args[0])
	if err != nil {
		return err
	}
	var n *Node
	for k := range c.Nodes {
		if c.Nodes[k].Name == args[1] {
			n = &c.Nodes[k]
		}
	}
	if n == nil {
		return fmt.Errorf("cluster %s has no node %q", c.Name, args[1])
	}
	if err := syscall.Sethostname([]byte(n.Name)); err != nil {
		return err
	}
	if err := setUpMounts(n); err != nil {
		return fmt.Errorf("mounts: %w", err)
	}
	if err := setUpNetwork(c, n); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if err := writeConfigs(c, n); err != nil {
		return fmt.Errorf("configs: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s := &supervisor{node: n, procs: map[string]*proc{}}
	for _, spec := range nodeSpecs(c, n) {
		s.start(spec)
	}
	if n.Name == c.Nodes[0].Name {
		for _, spec := range controlPlaneSpecs(c, n) {
			s.start(spec)
		}
		go runAddons(ctx, c, s)
	}
	go s.reap()
	go s.serveControl()
	<-ctx.Done()
	return nil
}

// nodePID finds PID 1 of a running node as the host sees it.
func nodePID(n *Node) (int, error) {
	data, err := os.ReadFile(n.path("pid"))
	if err != nil {
		return 0, err
	}
	var pid int
	_, err = fmt.Sscanf(string(data), "%d", &pid)
	return pid, err
}

// run executes a short command and folds its output into the error.
func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func runAll(commands ...string) error {
	for _, line := range commands {
		words := strings.Fields(line)
		if err := run(words[0], words[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// setUpMounts gives the node its own /proc, /sys, /run and state folders.
func setUpMounts(n *Node) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	// A fresh sysfs shows this network namespace; the cgroup trees move onto it.
	keep := n.path("cgroup")
	if err := os.MkdirAll(keep, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("/sys/fs/cgroup", keep, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return err
	}
	if err := syscall.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return err
	}
	if err := syscall.Mount(keep, "/sys/fs/cgroup", "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return err
	}
	if err := syscall.Unmount(keep, syscall.MNT_DETACH); err != nil {
		return err
	}
	for _, m := range []struct{ target, source string }{
		{"/var/lib/containerd", n.path("containerd")},
		{"/var/lib/kubelet", n.path("kubelet")},
		{"/var/log/pods", n.path("pods")},
		{"/var/log/containers", n.path("container-links")},
		{"/etc/cni/net.d", n.path("cni")},
	} {
		for _, d := range []string{m.target, m.source} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		if err := syscall.Mount(m.source, m.target, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", m.target, err)
		}
	}
	// kubelet wants its mounts to propagate to containers that ask for it.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return err
	}
	return syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
}
