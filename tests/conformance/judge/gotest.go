package main

import (
	"bufio"
	"encoding/json"
	"io"
	"slices"
	"strings"
)

// suiteTest is the test of which every test of the Gateway API suite is a subtest.
const suiteTest = "TestConformance"

// lineMax bounds one line of a log: reports and dumps of objects are long.
const lineMax = 16 << 20

// event is a line of `go test -json`.
type event struct {
	Action, Test, Output string
}

// readGoTest reads the results of the subtests of [suiteTest].
//
// A subtest that began and has no verdict, as the program ended before, failed.
func readGoTest(in io.Reader) (found, error) {
	var got found
	at := map[string]int{}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, lineMax)
	ended, suiteFailed := false, false
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			// What the program printed past the testing package, such as a panic.
			got.suite = append(got.suite, lines.Text())
			continue
		}
		name, isSubtest := strings.CutPrefix(e.Test, suiteTest+"/")
		if !isSubtest {
			if e.Action == "output" {
				got.suite = append(got.suite, strings.TrimRight(e.Output, "\n"))
			}
			if e.Test == suiteTest {
				ended = ended || e.Action == "pass" || e.Action == "fail" || e.Action == "skip"
				suiteFailed = suiteFailed || e.Action == "fail"
			}
			continue
		}
		name, part, isPart := strings.Cut(name, "/")
		k, known := at[name]
		if !known {
			k = len(got.results)
			at[name] = k
			got.results = append(got.results, result{name: name, outcome: fail, unfinished: true})
		}
		r := &got.results[k]
		switch {
		case e.Action == "output":
			r.add(e.Output)
		case e.Action == "fail" && isPart:
			r.parts = append(r.parts, part)
		case isPart:
		case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
			r.outcome, r.unfinished = outcome(e.Action), false
		}
	}
	// A suite fails with its tests; without one that failed it was its set-up or its end.
	testFailed := slices.ContainsFunc(got.results, func(r result) bool { return r.outcome == fail })
	got.broken = !ended || suiteFailed && !testFailed
	return got, lines.Err()
}

// add keeps a line of output that says something.
func (r *result) add(output string) {
	line := strings.TrimRight(output, " \n")
	short := strings.TrimSpace(line)
	// The testing package's own lines, and the suite's of what it creates and deletes.
	for _, noise := range []string{"=== ", "--- ", "apply.go:"} {
		if strings.HasPrefix(short, noise) {
			return
		}
	}
	if short != "" {
		r.output = append(r.output, line)
	}
}
