package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

// restartPause is how long a component that ended unasked stays down.
const restartPause = time.Second

// spec is one component of a node.
type spec struct {
	name string
	args []string // args[0] is the program
	env  []string // besides the node's own
}

type proc struct {
	spec    spec
	pid     int
	stopped bool // on request: not to be started again
}

// supervisor owns every process of the node.
type supervisor struct {
	node  *Node
	mu    sync.Mutex
	procs map[string]*proc
}

func (s *supervisor) start(sp spec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &proc{spec: sp}
	s.procs[sp.name] = p
	s.launch(p)
}

// launch starts p's program; s.mu is held.
func (s *supervisor) launch(p *proc) {
	log, err := os.OpenFile(s.node.path("logs", p.spec.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		fmt.Fprintln(os.Stderr, "rig:", err)
		return
	}
	defer log.Close()
	program := p.spec.args[0]
	if path, err := exec.LookPath(program); err == nil {
		program = path
	}
	started, err := os.StartProcess(program, p.spec.args, &os.ProcAttr{
		Dir:   s.node.Dir,
		Env:   append(os.Environ(), p.spec.env...),
		Files: []*os.File{nil, log, log},
	})
	if err != nil {
		fmt.Fprintln(log, "rig:", err)
		return
	}
	p.pid = started.Pid
	_ = started.Release()
}

// reap collects every child, also those re-parented to PID 1, and restarts
// components that ended unasked.
func (s *supervisor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.ECHILD {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if err != nil {
			continue
		}
		s.mu.Lock()
		for _, p := range s.procs {
			if p.pid != pid {
				continue
			}
			p.pid = 0
			if !p.stopped {
				time.AfterFunc(restartPause, func() {
					s.mu.Lock()
					defer s.mu.Unlock()
					if p.pid == 0 && !p.stopped {
						s.launch(p)
					}
				})
			}
		}
		s.mu.Unlock()
	}
}

// signal sends a signal to a component that runs; one that does not needs none.
func (s *supervisor) signal(name string, sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.procs[name]; p != nil && p.pid != 0 {
		_ = syscall.Kill(p.pid, sig)
	}
}

// serveControl answers `rig ctl`: one line in, one answer out.
func (s *supervisor) serveControl() {
	path := s.node.path("ctl.sock")
	_ = os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "rig:", err)
		return
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		_ = conn.SetDeadline(time.Now().Add(controlTimeout))
		line, _ := bufio.NewReader(conn).ReadString('\n')
		fmt.Fprintln(conn, s.control(strings.Fields(line)))
		conn.Close()
	}
}

func (s *supervisor) control(words []string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(words) == 1 && words[0] == "list" {
		var lines []string
		for name, p := range s.procs {
			lines = append(lines, fmt.Sprintf("%-24s %d", name, p.pid))
		}
		sort.Strings(lines)
		return strings.Join(lines, "\n")
	}
	if len(words) != 2 || s.procs[words[1]] == nil {
		return "usage: list | kill|stop|start|freeze|thaw COMPONENT"
	}
	p := s.procs[words[1]]
	send := func(sig syscall.Signal) string {
		if p.pid == 0 {
			return "not running"
		}
		if err := syscall.Kill(p.pid, sig); err != nil {
			return err.Error()
		}
		return "ok"
	}
	switch words[0] {
	case "kill": // crash: it comes back
		return send(syscall.SIGKILL)
	case "stop": // stays down until start
		p.stopped = true
		return send(syscall.SIGTERM)
	case "start":
		p.stopped = false
		if p.pid == 0 {
			s.launch(p)
		}
		return "ok"
	case "freeze":
		return send(syscall.SIGSTOP)
	case "thaw":
		return send(syscall.SIGCONT)
	}
	return "usage: list | kill|stop|start|freeze|thaw COMPONENT"
}
