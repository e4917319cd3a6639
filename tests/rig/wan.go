package main

import (
	"fmt"
	"os/exec"
	"strings"
)

const wanTable = "isthmus-wan" // of nft's bridge family

// wanShape is how the network between the clusters behaves.
type wanShape struct {
	rtt, cut []string
	loss     float64
	rate     string
}

// shapeWAN replaces the behaviour of the WAN by the given one.
func shapeWAN(root string, shape wanShape) error {
	clusters, err := loadClusters(root)
	if err != nil {
		return err
	}
	if len(clusters) == 0 {
		return fmt.Errorf("%s holds no clusters: run `rig up` first", root)
	}
	byName := map[string]*Cluster{}
	for _, c := range clusters {
		byName[c.Name] = c
	}
	delays, err := parseRTTs(shape.rtt, byName)
	if err != nil {
		return err
	}
	rules, err := wanRules(shape, clusters, byName)
	if err != nil {
		return err
	}
	if err := nft(rules); err != nil {
		return err
	}
	for _, c := range clusters {
		for _, link := range c.links() {
			_ = run("tc", "qdisc", "del", "dev", link, "root")
			if shape.rate == "" {
				continue
			}
			if err := run("tc", "qdisc", "add", "dev", link, "root", "tbf", "rate", shape.rate, "burst", "256kb", "latency", "50ms"); err != nil {
				return err
			}
		}
	}
	stopDelay(root)
	return startDelay(root, delays)
}

// wanRules are the losses and cuts. What stays within a cluster does not cross
// the WAN, although it crosses the bridge.
func wanRules(shape wanShape, clusters []*Cluster, byName map[string]*Cluster) (string, error) {
	chain := "bridge " + wanTable + " forward"
	rules := "add table bridge " + wanTable + "\nflush table bridge " + wanTable + "\n" +
		"add chain " + chain + " { type filter hook forward priority 0; }\n"
	set := func(c *Cluster) string { return "{ " + strings.Join(c.links(), ", ") + " }" }
	if shape.loss < 0 || shape.loss > 100 {
		return "", fmt.Errorf("--loss is 0 to 100 per cent, not %v", shape.loss)
	}
	if shape.loss > 0 {
		for _, c := range clusters {
			rules += fmt.Sprintf("add rule %s iifname %s oifname != %s numgen random mod 10000 < %d drop\n", chain, set(c), set(c), int(shape.loss*100))
		}
	}
	for _, text := range shape.cut {
		pair, protocol, _ := strings.Cut(text, "/")
		a, b, _ := strings.Cut(pair, ":")
		if byName[a] == nil || byName[b] == nil {
			return "", fmt.Errorf("--cut %q names no two clusters", text)
		}
		match := ""
		if protocol != "" {
			match = "meta l4proto " + protocol + " "
		}
		for _, way := range [][2]string{{a, b}, {b, a}} {
			rules += fmt.Sprintf("add rule %s iifname %s oifname %s %sdrop\n", chain, set(byName[way[0]]), set(byName[way[1]]), match)
		}
	}
	return rules, nil
}

// nft runs a script in the network namespace of the caller.
func nft(script string) error {
	command := exec.Command("nft", "-f", "-")
	command.Stdin = strings.NewReader(script)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}
