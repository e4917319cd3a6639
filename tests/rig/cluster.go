package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
)

const (
	bridge   = "isthmus-wan"
	wanHost4 = "172.30.0.1" // this machine's address on the WAN, a /16
	wanHost6 = "fd00:30::1" // and its IPv6 one, a /64

	maxClusters = 24 // pods of the last one: 10.240.0.0/16
	maxNodes    = 9  // of one cluster; each has a /20 of the cluster's pod addresses
)

// options are what `rig up` was asked for.
type options struct {
	clusters  int
	nodes     int
	overlap   bool // every cluster uses the same pod and service addresses
	flat      bool // pods of different clusters reach each other without NAT
	dualStack bool // IPv6 besides IPv4, for nodes, pods, Services and load balancers
}

func (o options) validate() error {
	switch {
	case o.overlap && o.flat:
		return fmt.Errorf("--overlap and --flat exclude each other")
	case o.clusters < 1 || o.clusters > maxClusters:
		return fmt.Errorf("--clusters is 1 to %d, not %d", maxClusters, o.clusters)
	case o.nodes < 1 || o.nodes > maxNodes:
		return fmt.Errorf("--nodes is 1 to %d, not %d", maxNodes, o.nodes)
	}
	return nil
}

// Addresses is one thing's address or range in each family; V6 is empty in a
// cluster without IPv6.
type Addresses struct{ V4, V6 string }

// list returns the addresses that there are, IPv4 first.
func (a Addresses) list() []string {
	if a.V6 == "" {
		return []string{a.V4}
	}
	return []string{a.V4, a.V6}
}

// Cluster is one cluster. Index (from 1) decides every address.
type Cluster struct {
	Name    string
	Index   int
	Region  string
	PodCIDR Addresses // of all its pods; the same everywhere under --overlap
	SvcCIDR Addresses // of cluster IPs; the same everywhere under --overlap
	DNSIP   Addresses // the tenth address of SvcCIDR
	LBCIDR  Addresses // of load balancers: the pool is the 10th to the 250th address
	Nodes   []Node    // the first one runs the control plane
	Dir     string    // logs, certificates, kubeconfigs, state
	Flat    bool      // pods of different clusters reach each other without NAT
	Peers   []Cluster `json:",omitempty"` // the other clusters, for their routes
}

// Node is one machine of a cluster: a process tree in namespaces of its own.
type Node struct {
	Name    string
	Zone    string
	IP      Addresses // on the WAN
	PodCIDR Addresses // of the pods here
	Dir     string    // logs and state; the first node's is the cluster's
}

func newCluster(root string, index int, o options) Cluster {
	block := 10 * index
	if o.overlap {
		block = 10
	}
	regions := []string{"us-east1", "europe-west1", "ap-south1"}
	name := fmt.Sprintf("c%d", index)
	c := Cluster{
		Name:    name,
		Index:   index,
		Region:  regions[(index-1)%len(regions)],
		PodCIDR: Addresses{fmt.Sprintf("10.%d.0.0/16", block), fmt.Sprintf("fd00:10:%d::/48", block)},
		SvcCIDR: Addresses{fmt.Sprintf("10.%d.0.0/16", block+1), fmt.Sprintf("fd00:10:%d::/108", block+1)},
		DNSIP:   Addresses{fmt.Sprintf("10.%d.0.10", block+1), fmt.Sprintf("fd00:10:%d::a", block+1)},
		LBCIDR:  Addresses{fmt.Sprintf("172.30.%d.0/24", index), fmt.Sprintf("fd00:30:0:%d::/64", index)},
		Dir:     filepath.Join(root, name),
		Flat:    o.flat,
	}
	for k := range o.nodes {
		c.Nodes = append(c.Nodes, newNode(&c, k, block))
	}
	if !o.dualStack {
		c.dropIPv6()
	}
	return c
}

// newNode is the cluster's k-th node, counted from 0. Zones go round a, b, c.
func newNode(c *Cluster, k, block int) Node {
	n := Node{
		Name: c.Name,
		Zone: fmt.Sprintf("%s-%c", c.Region, 'a'+k%3),
		IP:   Addresses{fmt.Sprintf("172.30.0.%d", 10+c.Index), fmt.Sprintf("fd00:30::%d", 10+c.Index)},
		Dir:  c.Dir,
	}
	n.PodCIDR = Addresses{fmt.Sprintf("10.%d.%d.0/20", block, 16*k), fmt.Sprintf("fd00:10:%d:%d::/64", block, k)}
	if k > 0 {
		n.Name = fmt.Sprintf("%s-n%d", c.Name, k+1)
		n.IP = Addresses{fmt.Sprintf("172.30.%d.%d", 101+k, c.Index), fmt.Sprintf("fd00:30::%d:%d", 101+k, c.Index)}
		n.Dir = c.path("nodes", n.Name)
	}
	return n
}

func (c *Cluster) dropIPv6() {
	for _, a := range []*Addresses{&c.PodCIDR, &c.SvcCIDR, &c.DNSIP, &c.LBCIDR} {
		a.V6 = ""
	}
	for k := range c.Nodes {
		c.Nodes[k].IP.V6, c.Nodes[k].PodCIDR.V6 = "", ""
	}
}

func (c *Cluster) path(parts ...string) string {
	return filepath.Join(append([]string{c.Dir}, parts...)...)
}

func (n *Node) path(parts ...string) string {
	return filepath.Join(append([]string{n.Dir}, parts...)...)
}

// link is the node's end of the WAN as this machine sees it.
func (n *Node) link() string { return "wan-" + n.Name }

func (c *Cluster) links() []string {
	var links []string
	for k := range c.Nodes {
		links = append(links, c.Nodes[k].link())
	}
	return links
}

func (c *Cluster) save() error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(c.path("cluster.json"), data, 0o644)
}

func loadCluster(dir string) (*Cluster, error) {
	data, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if err != nil {
		return nil, err
	}
	c := &Cluster{}
	return c, json.Unmarshal(data, c)
}

// loadClusters reads the clusters that were started under root, in order.
func loadClusters(root string) ([]*Cluster, error) {
	files, err := filepath.Glob(filepath.Join(root, "*", "cluster.json"))
	if err != nil {
		return nil, err
	}
	var clusters []*Cluster
	for _, file := range files {
		c, err := loadCluster(filepath.Dir(file))
		if err != nil {
			return nil, err
		}
		clusters = append(clusters, c)
	}
	sort.Slice(clusters, func(i, j int) bool { return clusters[i].Index < clusters[j].Index })
	return clusters, nil
}

// nth returns the n-th address of a range, counted from its first.
func nth(cidr string, n int) string {
	address := netip.MustParsePrefix(cidr).Masked().Addr()
	for range n {
		address = address.Next()
	}
	return address.String()
}
