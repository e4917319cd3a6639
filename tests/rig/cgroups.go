package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// controlGroup is where containerd puts every container's control group when
	// kubelet names no parent, in each hierarchy. The hierarchies are the machine's,
	// so the groups outlive their nodes.
	controlGroup = "k8s.io"
	// removeTimeout bounds the wait for the kernel to let go of an ended group.
	removeTimeout = 5 * time.Second
)

// controlGroups lists the groups in which no process is left, a parent before its
// children. One with a process, in it or below, is another containerd's: the nodes'
// processes are named and ended as such.
func controlGroups() []string {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/*/" + controlGroup, "/sys/fs/cgroup/" + controlGroup} {
		tops, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, top := range tops {
			// Symbolic links may name a hierarchy twice (cpu and cpu,cpuacct).
			if real, err := filepath.EvalSymlinks(top); err == nil && real == top {
				found = append(found, emptyGroups(top)...)
			}
		}
	}
	return found
}

func emptyGroups(top string) []string {
	var groups, busy []string
	_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil // an ended group may go at any moment
		}
		groups = append(groups, path)
		if processes, err := os.ReadFile(filepath.Join(path, "cgroup.procs")); err == nil && len(bytes.TrimSpace(processes)) > 0 {
			busy = append(busy, path)
		}
		return nil
	})
	return slices.DeleteFunc(groups, func(group string) bool {
		return slices.ContainsFunc(busy, func(b string) bool { return strings.HasPrefix(b+"/", group+"/") })
	})
}

// removeControlGroups removes the groups, children first, until none is left or the
// time is over.
func removeControlGroups() {
	for deadline := time.Now().Add(removeTimeout); ; time.Sleep(20 * time.Millisecond) {
		groups := controlGroups()
		if len(groups) == 0 || time.Now().After(deadline) {
			return
		}
		slices.Reverse(groups)
		for _, group := range groups {
			_ = os.Remove(group)
		}
	}
}
