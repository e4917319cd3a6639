package main

import (
	"fmt"
	"net"
	"strings"
	"time"
)

const (
	wanLinkTimeout = 10 * time.Second // for `rig up` to move the interface in
	dnsNamespace   = "dns"            // the network namespace of CoreDNS on the first node
)

// setUpNetwork waits for the WAN interface that `rig up` moves in, gives it its
// addresses and lets pods out through it.
func setUpNetwork(c *Cluster, n *Node) error {
	for deadline := time.Now().Add(wanLinkTimeout); ; time.Sleep(10 * time.Millisecond) {
		if _, err := net.InterfaceByName("wan"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no interface 'wan' after %s", wanLinkTimeout)
		}
	}
	commands := []string{
		"ip link set lo up",
		"ip link set wan up",
		"sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.wan.rp_filter=0",
		"ip addr add " + n.IP.V4 + "/16 dev wan",
		"ip route add default via " + wanHost4,
	}
	if n.IP.V6 != "" {
		commands = append(commands,
			"sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.wan.accept_ra=0",
			"ip -6 addr add "+n.IP.V6+"/64 dev wan nodad",
			"ip -6 route add default via "+wanHost6,
		)
	}
	first := n.Name == c.Nodes[0].Name
	if first {
		for _, pool := range c.LBCIDR.list() {
			commands = append(commands, "ip route add local "+pool+" dev lo")
		}
		commands = append(commands, dnsNetwork(n)...)
	}
	commands = append(commands, routes(c, n)...)
	if err := runAll(commands...); err != nil {
		return err
	}
	return nft(nodeRules(c, first))
}

// routes lead to the pods of the cluster's other nodes, in a flat network to
// those of the other clusters, and to what IPv6 cannot find on the WAN itself:
// pools of load balancers.
func routes(c *Cluster, n *Node) []string {
	var commands []string
	to := func(target, via Addresses) {
		gateways := via.list()
		for i, cidr := range target.list() {
			commands = append(commands, "ip route add "+cidr+" via "+gateways[i])
		}
	}
	for _, other := range c.Nodes {
		if other.Name != n.Name {
			to(other.PodCIDR, other.IP)
		}
	}
	if n.IP.V6 != "" && n.Name != c.Nodes[0].Name {
		commands = append(commands, "ip route add "+c.LBCIDR.V6+" via "+c.Nodes[0].IP.V6)
	}
	for _, peer := range c.Peers {
		if n.IP.V6 != "" {
			commands = append(commands, "ip route add "+peer.LBCIDR.V6+" via "+peer.Nodes[0].IP.V6)
		}
		for _, other := range peer.Nodes {
			if c.Flat {
				to(other.PodCIDR, other.IP)
			}
		}
	}
	return commands
}

// dnsAddresses are CoreDNS's: the second ones of its node's pod range, which the
// CNI plugin leaves alone as it starts at the tenth.
func dnsAddresses(n *Node) Addresses {
	a := Addresses{V4: nth(n.PodCIDR.V4, 2)}
	if n.PodCIDR.V6 != "" {
		a.V6 = nth(n.PodCIDR.V6, 2)
	}
	return a
}

// dnsNetwork gives CoreDNS a network namespace, as its pod elsewhere has one: a
// Corefile may then listen on any address and port and take none of the node's.
func dnsNetwork(n *Node) []string {
	inside := "ip netns exec " + dnsNamespace + " "
	commands := []string{
		"ip netns add " + dnsNamespace,
		"ip link add dns type veth peer name eth0 netns " + dnsNamespace,
		"ip link set dns up",
		inside + "ip link set lo up",
		inside + "ip link set eth0 up",
	}
	addresses := dnsAddresses(n).list()
	for i, pods := range n.PodCIDR.list() {
		length, nodad := "/32", ""
		if i > 0 {
			length, nodad = "/128", " nodad"
		}
		gateway := nth(pods, 1)
		commands = append(commands,
			"ip addr add "+gateway+length+" dev dns"+nodad,
			"ip route add "+addresses[i]+length+" dev dns",
			inside+"ip addr add "+addresses[i]+length+" dev eth0"+nodad,
			inside+"ip route add "+gateway+length+" dev eth0",
			inside+"ip route add default via "+gateway+" dev eth0",
		)
	}
	return commands
}

// nodeRules hide pods behind their node when they leave the cluster, and refuse
// what comes to a load balancer's address where no Service has that port: such an
// address must not lead to the node's own API server or kubelet.
func nodeRules(c *Cluster, first bool) string {
	rules := "add table inet rig\n" +
		"add chain inet rig postrouting { type nat hook postrouting priority srcnat + 10; }\n" +
		"add chain inet rig input { type filter hook input priority filter; }\n"
	for i, family := range []string{"ip", "ip6"}[:len(c.PodCIDR.list())] {
		pods := c.PodCIDR.list()[i]
		inside := []string{pods}
		for _, p := range c.Peers {
			if c.Flat {
				inside = append(inside, p.PodCIDR.list()[i])
			}
		}
		rules += fmt.Sprintf("add rule inet rig postrouting %[1]s saddr %[2]s oifname wan %[1]s daddr != { %[3]s } masquerade\n",
			family, pods, strings.Join(inside, ", "))
		if pool := c.LBCIDR.list()[i]; first {
			rules += fmt.Sprintf("add rule inet rig input %s daddr %s meta l4proto tcp reject with tcp reset\n", family, pool) +
				fmt.Sprintf("add rule inet rig input %s daddr %s meta l4proto udp reject\n", family, pool)
		}
	}
	return rules
}
