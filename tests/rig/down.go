package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// endTimeout bounds the wait for killed nodes; a full cluster takes a second.
const endTimeout = 20 * time.Second

// wanLinks are the interfaces that `rig up` makes on this machine.
var wanLinks = regexp.MustCompile(`^wan-c[0-9]+(-n[0-9]+)?$`)

// down ends every cluster, also a half-started one, and fails if anything is left.
// It goes by what is there and not by what was written down.
func down(root string) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	stopDelay(root)
	if err := endProcesses(root); err != nil {
		return err
	}
	for _, link := range links() {
		_ = run("ip", "link", "del", link)
	}
	_ = run("nft", "delete", "table", "bridge", wanTable)
	removeControlGroups()
	files, err := leftFiles(root)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := os.RemoveAll(file); err != nil {
			return err
		}
	}
	return checkClean(root)
}

// endProcesses kills every node's PID 1 and returns when the kernel has ended all
// that ran in their PID namespaces.
func endProcesses(root string) error {
	deadline := time.Now().Add(endTimeout)
	for {
		left, err := ownProcesses(root)
		if err != nil || len(left) == 0 {
			return err
		}
		for _, p := range left {
			if p.role == "node" {
				_ = syscall.Kill(p.pid, syscall.SIGKILL)
			}
		}
		if time.Now().After(deadline) {
			return nil // checkClean names them
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// checkClean names everything that clusters leave on a machine and that is there.
func checkClean(root string) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	var left []string
	processes, err := ownProcesses(root)
	if err != nil {
		return err
	}
	for _, p := range processes {
		left = append(left, fmt.Sprintf("process %d: %s", p.pid, p.command))
	}
	for _, link := range links() {
		left = append(left, "link "+link)
	}
	namespaces, err := filepath.Glob("/run/netns/cni-*")
	if err != nil {
		return err
	}
	for _, file := range namespaces {
		left = append(left, "network namespace "+file)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, line := range mountsUnder(mounts, root) {
		left = append(left, "mount "+line)
	}
	for _, rule := range leftRules() {
		left = append(left, "rules "+rule)
	}
	for _, group := range controlGroups() {
		left = append(left, "control group "+group)
	}
	files, err := leftFiles(root)
	if err != nil {
		return err
	}
	for _, file := range files {
		left = append(left, "file "+file)
	}
	if len(left) > 0 {
		return fmt.Errorf("%d things are left:\n  %s", len(left), strings.Join(left, "\n  "))
	}
	return nil
}

// process is a process of the clusters under a root.
type process struct {
	pid     int
	role    string // "node", "wan-delay" or empty
	command string
}

// ownProcesses finds nodes and the delaying process by their arguments, and
// everything else by the cluster folders that its mount namespace shows.
func ownProcesses(root string) ([]process, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	here, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, file := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			continue
		}
		// A process may end at any moment: what cannot be read is gone.
		line, err := os.ReadFile(file)
		if err != nil || len(line) == 0 {
			continue
		}
		args := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
		p := process{pid: pid, command: strings.Join(args, " ")}
		switch {
		case len(args) >= 3 && args[1] == "node" && under(args[2], root):
			p.role = "node"
		case len(args) >= 2 && args[1] == "wan-delay" && filepath.Base(args[0]) == "rig":
			p.role = "wan-delay"
		default:
			if there, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid)); err != nil || there == here {
				continue
			}
			mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
			if err != nil || len(mountsUnder(mounts, root)) == 0 {
				continue
			}
		}
		found = append(found, p)
	}
	return found, nil
}

// mountsUnder lists the mounts of a mountinfo (proc(5)) that come from a folder
// under root or lie there.
func mountsUnder(mountinfo []byte, root string) []string {
	var found []string
	for line := range bytes.Lines(mountinfo) {
		fields := strings.Fields(string(line))
		if len(fields) > 4 && (under(fields[3], root) || under(fields[4], root)) {
			found = append(found, fields[4])
		}
	}
	return found
}

func under(path, root string) bool { return strings.HasPrefix(path, root+"/") }

func links() []string {
	interfaces, err := net.Interfaces()
	if err != nil {
		return []string{"? (" + err.Error() + ")"}
	}
	var found []string
	for _, i := range interfaces {
		if i.Name == bridge || wanLinks.MatchString(i.Name) {
			found = append(found, i.Name)
		}
	}
	return found
}

// leftRules names the tables and chains of the WAN. Without its programs there can
// be none.
func leftRules() []string {
	var found []string
	if out, err := exec.Command("nft", "list", "tables", "bridge").Output(); err == nil && strings.Contains(string(out), wanTable) {
		found = append(found, "nft table bridge "+wanTable)
	}
	for _, f := range families {
		if out, err := exec.Command(f.iptables, "-t", "mangle", "-S").Output(); err == nil && strings.Contains(string(out), delayChain) {
			found = append(found, f.iptables+" mangle "+delayChain)
		}
	}
	return found
}

// leftFiles are the clusters' folders and the files beside them.
func leftFiles(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		files = append(files, filepath.Join(root, entry.Name()))
	}
	return files, nil
}
