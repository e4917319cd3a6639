package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Delay on the WAN. This kernel has no netem, so packets between two nodes wait
// in a netfilter queue (NFQUEUE) and a process of ours lets each go when its
// time has come. Order is kept, and what is queued is bounded by queueLength.

const (
	delayChain  = "ISTHMUS-WAN"
	queueLength = 1 << 17 // packets; 150 ms at 10 Gbit/s of full-size packets
	firstQueue  = 7000    // the number of the first NFQUEUE; each direction of a pair has one

	// linux/netfilter/nfnetlink_queue.h
	nfqPacket, nfqConfig, nfqVerdictBatch                    = 0x300, 0x302, 0x303
	cfgCommand, cfgParams, cfgMaxLength, cfgMask, cfgFlags   = 1, 2, 3, 4, 5
	attrPacketHeader, attrVerdictHeader, accept, bind, gsoOK = 1, 2, 1, 1, 4
)

// families are the two tables that queue: nft has no queue here, and the old
// tables have one per family.
var families = []struct{ iptables, sysctl string }{
	{"iptables-legacy", "net.bridge.bridge-nf-call-iptables"},
	{"ip6tables-legacy", "net.bridge.bridge-nf-call-ip6tables"},
}

// pairDelay is the wait of packets from one cluster to another.
type pairDelay struct {
	from, to *Cluster
	wait     time.Duration
	queue    uint16
}

// parseRTTs reads "c1:c2=80ms": half of it each way.
func parseRTTs(pairs []string, known map[string]*Cluster) ([]pairDelay, error) {
	var delays []pairDelay
	for _, text := range pairs {
		pair, rtt, _ := strings.Cut(text, "=")
		a, b, _ := strings.Cut(pair, ":")
		if known[a] == nil || known[b] == nil {
			return nil, fmt.Errorf("%q names no two clusters", text)
		}
		d, err := time.ParseDuration(rtt)
		if err != nil || d < 0 {
			return nil, fmt.Errorf("%q: the round-trip time is a duration such as 80ms", text)
		}
		for _, way := range [][2]string{{a, b}, {b, a}} {
			delays = append(delays, pairDelay{known[way[0]], known[way[1]], d / 2, uint16(firstQueue + len(delays))})
		}
	}
	return delays, nil
}

// stopDelay ends the delaying process, if one runs, and removes its rules.
func stopDelay(root string) {
	file := filepath.Join(root, "wan-delay.pid")
	if data, err := os.ReadFile(file); err == nil {
		if pid, err := strconv.Atoi(string(data)); err == nil {
			if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(cmdline), "wan-delay") {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		_ = os.Remove(file)
	}
	for _, f := range families {
		if run(f.iptables, "-t", "mangle", "-D", "FORWARD", "-j", delayChain) == nil {
			_ = runAll(f.iptables+" -t mangle -F "+delayChain, f.iptables+" -t mangle -X "+delayChain)
		}
		_ = run("sysctl", "-qw", f.sysctl+"=0")
	}
}

// startDelay queues what flows between the pairs and starts `rig wan-delay`.
func startDelay(root string, delays []pairDelay) error {
	if len(delays) == 0 {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"wan-delay"}
	for _, d := range delays {
		args = append(args, fmt.Sprintf("%d=%s", d.queue, d.wait))
	}
	log, err := os.Create(filepath.Join(root, "wan-delay.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	delayer := exec.Command(self, args...)
	delayer.Stderr = log
	delayer.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := delayer.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "wan-delay.pid"), []byte(strconv.Itoa(delayer.Process.Pid)), 0o644); err != nil {
		return err
	}
	for _, f := range families {
		commands := []string{"sysctl -qw " + f.sysctl + "=1", f.iptables + " -t mangle -N " + delayChain}
		for _, d := range delays {
			for _, from := range d.from.links() {
				for _, to := range d.to.links() {
					commands = append(commands, fmt.Sprintf(
						"%s -t mangle -A %s -m physdev --physdev-is-bridged --physdev-in %s --physdev-out %s -j NFQUEUE --queue-num %d --queue-bypass",
						f.iptables, delayChain, from, to, d.queue))
				}
			}
		}
		if err := runAll(append(commands, f.iptables+" -t mangle -I FORWARD -j "+delayChain)...); err != nil {
			return err
		}
	}
	return nil
}

// runDelay serves the queues given as NUMBER=WAIT until it is killed.
func runDelay(args []string) error {
	failed := make(chan error)
	for _, arg := range args {
		number, wait, _ := strings.Cut(arg, "=")
		queue, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return err
		}
		d, err := time.ParseDuration(wait)
		if err != nil {
			return err
		}
		go func() { failed <- delayQueue(uint16(queue), d) }()
	}
	return <-failed
}

// delayQueue accepts each packet of one queue `wait` after it came. One verdict
// covers every packet up to its id, which keeps the cost per packet small.
func delayQueue(queue uint16, wait time.Duration) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetReadBuffer(64 << 20)
	_ = conn.SetOption(netlink.NoENOBUFS, true)
	be32 := func(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
	for _, attrs := range [][]netlink.Attribute{
		{{Type: cfgCommand, Data: []byte{bind, 0, 0, 0}}},
		{{Type: cfgParams, Data: []byte{0, 0, 0, 0, 1}}}, // metadata only
		{{Type: cfgMaxLength, Data: be32(queueLength)}},
		{{Type: cfgFlags, Data: be32(gsoOK)}, {Type: cfgMask, Data: be32(gsoOK)}},
	} {
		if err := sendQueue(conn, nfqConfig, queue, attrs); err != nil {
			return fmt.Errorf("queue %d: %w", queue, err)
		}
	}
	type arrival struct {
		id  uint32
		due time.Time
	}
	arrivals := make(chan arrival, queueLength)
	go func() {
		for next := range arrivals {
			time.Sleep(time.Until(next.due))
			last := next
			// Everything that has come due meanwhile goes with the same verdict.
			for len(arrivals) > 0 && !time.Now().Before(last.due) {
				peek := <-arrivals
				if time.Until(peek.due) > 0 {
					_ = sendVerdict(conn, queue, last.id)
					time.Sleep(time.Until(peek.due))
				}
				last = peek
			}
			_ = sendVerdict(conn, queue, last.id)
		}
	}()
	for {
		messages, err := conn.Receive()
		if err != nil {
			if errors.Is(err, unix.ENOBUFS) {
				continue
			}
			return err
		}
		due := time.Now().Add(wait)
		for _, m := range messages {
			if m.Header.Type != nfqPacket || len(m.Data) < 4 {
				continue
			}
			attrs, err := netlink.UnmarshalAttributes(m.Data[4:])
			if err != nil {
				continue
			}
			for _, a := range attrs {
				if a.Type == attrPacketHeader && len(a.Data) >= 4 {
					arrivals <- arrival{binary.BigEndian.Uint32(a.Data), due}
				}
			}
		}
	}
}

func sendVerdict(conn *netlink.Conn, queue uint16, id uint32) error {
	header := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, accept), id)
	return sendQueue(conn, nfqVerdictBatch, queue, []netlink.Attribute{{Type: attrVerdictHeader, Data: header}})
}

// sendQueue asks for no acknowledgement, since packets may come before it; the
// kernel's refusal, if any, comes out of Receive.
func sendQueue(conn *netlink.Conn, kind uint16, queue uint16, attrs []netlink.Attribute) error {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return err
	}
	_, err = conn.Send(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request},
		Data:   append([]byte{unix.AF_UNSPEC, 0, byte(queue >> 8), byte(queue)}, data...),
	})
	return err
}
