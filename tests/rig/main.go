// Rig runs Kubernetes clusters on one Linux machine without a container
// registry. Every node is one process tree in namespaces of its own (network,
// mount, PID, UTS, IPC) that runs the real kube-proxy and kubelet over Debian's
// containerd, runc and CNI plugins; a cluster's first node also runs the real
// etcd, kube-apiserver, kube-controller-manager, kube-scheduler and CoreDNS. All
// but Debian's programs are linked into this binary. The nodes meet on one
// bridge, the "WAN".
//
//	rig up --clusters 2        start the clusters, print their kubeconfigs
//	rig load NAME=PROGRAM ...  make an image of a program and its libraries, import it everywhere
//	rig ctl NODE kill kube-apiserver
//	rig wan --loss 2           drop 2 % of the packets between the clusters
//	rig down                   leave nothing behind, and check it
//	rig check-clean            only check it
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/header"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/template"
	_ "github.com/coredns/coredns/plugin/whoami"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// components are the programs this binary can become, by the name it is called
// with or by its first argument.
var components = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-proxy":              proxy.NewProxyCommand,
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	name := filepath.Base(os.Args[0])
	if _, ok := components[name]; !ok && name != "etcd" && name != "coredns" && len(os.Args) > 1 {
		name = os.Args[1]
		if _, ok := components[name]; ok || name == "etcd" || name == "coredns" || name == "node" || name == "wan-delay" {
			os.Args = os.Args[1:]
		}
	}
	switch {
	case name == "etcd":
		etcdmain.Main(os.Args)
	case name == "coredns":
		coremain.Run()
	case name == "node":
		fail(runNode(os.Args[1:]))
	case name == "wan-delay":
		fail(runDelay(os.Args[1:]))
	case components[name] != nil:
		os.Exit(cli.Run(components[name]()))
	default:
		fail(rigCommand().Execute())
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "rig:", err)
		os.Exit(1)
	}
}
