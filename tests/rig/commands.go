package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// controlTimeout bounds one `rig ctl`; its acts are a signal or a start.
const controlTimeout = 10 * time.Second

func rigCommand() *cobra.Command {
	var root string
	cmd := &cobra.Command{Use: "rig", Short: "Kubernetes clusters on one machine, for tests", SilenceUsage: true, SilenceErrors: true}
	cmd.PersistentFlags().StringVar(&root, "dir", "/var/lib/isthmus-rig", "where state and logs are kept")

	var o options
	upCommand := &cobra.Command{Use: "up", Short: "start the clusters and print their kubeconfigs",
		Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return up(root, o) }}
	upCommand.Flags().IntVar(&o.clusters, "clusters", 1, "how many clusters")
	upCommand.Flags().IntVar(&o.nodes, "nodes", 1, "how many nodes each cluster has, in zones a, b and c of its region in turn")
	upCommand.Flags().BoolVar(&o.overlap, "overlap", false, "every cluster uses the same pod and service addresses")
	upCommand.Flags().BoolVar(&o.flat, "flat", false, "pods of different clusters reach each other without NAT")
	upCommand.Flags().BoolVar(&o.dualStack, "dual-stack", false, "IPv6 besides IPv4 for nodes, pods, Services and load balancers")

	downCommand := &cobra.Command{Use: "down", Short: "end everything, leave nothing behind, and check that",
		Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return down(root) }}

	check := &cobra.Command{Use: "check-clean", Short: "name what clusters left behind, and fail if there is any",
		Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return checkClean(root) }}

	loadCommand := &cobra.Command{Use: "load NAME=[PROGRAM][,/PATH=FILE...]...", Short: "make an image of a program and the libraries it needs, import it into every cluster",
		Args: cobra.MinimumNArgs(1), RunE: func(_ *cobra.Command, args []string) error { return load(root, args) }}

	ctl := &cobra.Command{Use: "ctl NODE list | kill|stop|start|freeze|thaw COMPONENT", Short: "act on a node's components (a cluster's name is its first node's)",
		Args: cobra.RangeArgs(2, 3), RunE: func(_ *cobra.Command, args []string) error { return control(root, args[0], args[1:]) }}

	var shape wanShape
	wan := &cobra.Command{Use: "wan", Short: "set delay, loss, rate and cuts between the clusters (none given: a clean WAN)",
		Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return shapeWAN(root, shape) }}
	wan.Flags().StringSliceVar(&shape.rtt, "rtt", nil, "round-trip times to add, as c1:c2=80ms")
	wan.Flags().Float64Var(&shape.loss, "loss", 0, "per cent of packets dropped, each way")
	wan.Flags().StringVar(&shape.rate, "rate", "", "what each node can receive, as tc(8) writes it: 100mbit")
	wan.Flags().StringSliceVar(&shape.cut, "cut", nil, "pairs that cannot talk, as c1:c2 or c1:c2/udp")

	cmd.AddCommand(upCommand, downCommand, check, loadCommand, ctl, wan)
	return cmd
}

// control asks a node's PID 1 and prints its answer.
func control(root, node string, words []string) error {
	clusters, err := loadClusters(root)
	if err != nil {
		return err
	}
	var names []string
	for _, c := range clusters {
		for _, n := range c.Nodes {
			names = append(names, n.Name)
			if n.Name != node {
				continue
			}
			conn, err := net.DialTimeout("unix", n.path("ctl.sock"), controlTimeout)
			if err != nil {
				return err
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(controlTimeout))
			fmt.Fprintln(conn, strings.Join(words, " "))
			_, err = os.Stdout.ReadFrom(conn)
			return err
		}
	}
	return fmt.Errorf("no node %q in %s: there are %v", node, root, names)
}

// load makes each image and imports it into every node.
func load(root string, images []string) error {
	clusters, err := loadClusters(root)
	if err != nil {
		return err
	}
	if len(clusters) == 0 {
		return fmt.Errorf("%s holds no clusters: run `rig up` first", root)
	}
	for _, image := range images {
		parts := strings.Split(image, ",")
		name, program, ok := strings.Cut(parts[0], "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=PROGRAM", image)
		}
		files := map[string]string{}
		var entrypoint []string
		if program != "" {
			entrypoint = []string{"/bin/" + filepath.Base(program)}
			files[entrypoint[0]] = program
		}
		for _, extra := range parts[1:] {
			at, source, ok := strings.Cut(extra, "=")
			if !ok {
				return fmt.Errorf("%q is not /PATH=FILE", extra)
			}
			files[at] = source
		}
		for _, c := range clusters {
			for k := range c.Nodes {
				if err := loadImage(&c.Nodes[k], name, files, entrypoint); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
