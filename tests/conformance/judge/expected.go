package main

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// outcome is how a test ended, or should.
type outcome string

const (
	fail outcome = "fail"
	pass outcome = "pass"
	skip outcome = "skip"
)

// expectation is one line: a name, an outcome and, unless it passes, the reason.
type expectation struct {
	name    string
	outcome outcome
	reason  string
}

type expectations []expectation

// expectedLine takes the first word that is an outcome for one: names may have spaces.
var expectedLine = regexp.MustCompile(`^(\S.*?)\s+(pass|fail|skip)(?:\s+(\S.*))?$`)

// readExpected reads a file of expectations. Empty lines and lines with # are comments.
func readExpected(path string) (expectations, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all expectations
	seen := map[string]int{}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		parts := expectedLine.FindStringSubmatch(line)
		if parts == nil {
			return nil, fmt.Errorf("%s:%d: not `TestName pass|fail|skip reason`: %q", path, i+1, line)
		}
		e := expectation{name: parts[1], outcome: outcome(parts[2]), reason: parts[3]}
		if e.outcome != pass && e.reason == "" {
			return nil, fmt.Errorf("%s:%d: %s is expected to %s: say why on its line", path, i+1, e.name, e.outcome)
		}
		if other, ok := seen[e.name]; ok {
			return nil, fmt.Errorf("%s:%d: %s has a line already, %d", path, i+1, e.name, other)
		}
		seen[e.name] = i + 1
		all = append(all, e)
	}
	return all, nil
}

// writeExpected replaces the outcomes of the tests that ran. Its comments and the reasons
// of unchanged outcomes stay; a new one is marked, for a person to fill in.
func writeExpected(path string, results []result, old expectations, notRun string) error {
	next := slices.Clone(old)
	for _, r := range results {
		if excluded(r.name, notRun) {
			continue
		}
		e := expectation{name: r.name, outcome: r.outcome}
		if e.outcome != pass {
			e.reason = "(say why)"
		}
		k := slices.IndexFunc(next, func(o expectation) bool { return o.name == r.name })
		switch {
		case k < 0:
			next = append(next, e)
		case next[k].outcome != e.outcome:
			next[k] = e
		}
	}
	slices.SortFunc(next, func(a, b expectation) int { return cmp.Compare(a.name, b.name) })
	var text strings.Builder
	text.WriteString(comments(path))
	for _, e := range next {
		fmt.Fprintln(&text, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.name, e.outcome, e.reason)))
	}
	return os.WriteFile(path, []byte(text.String()), 0o644)
}

// comments returns the comment lines at the head of a file, if it is there.
func comments(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	var head strings.Builder
	for _, line := range strings.SplitAfter(string(data), "\n") {
		if !strings.HasPrefix(line, "#") {
			break
		}
		head.WriteString(line)
	}
	return head.String()
}

// selected keeps the lines of the tests that were to run.
func (all expectations) selected(keep func(name string) bool) expectations {
	return slices.DeleteFunc(slices.Clone(all), func(e expectation) bool { return !keep(e.name) })
}

// excluded says that a test was not asked for.
func excluded(name, notRun string) bool {
	return notRun != "" && strings.HasPrefix(name, notRun)
}
