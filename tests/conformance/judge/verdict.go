package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// linesShown is how much of the output of a failed test, or of a broken suite, is shown.
const linesShown = 20

// linesBefore is how much of it precedes the assertion: what was tried and answered.
const linesBefore = 6

// didNotRun is the reason of a test that should have run.
const didNotRun = "it did not run"

// assertionMark begins what testify says of an assertion that failed.
const assertionMark = "Error Trace:"

// result is how one test ended.
type result struct {
	name    string
	outcome outcome
	// reason why it was not expected, or why it counts as failed without having run.
	reason string
	// parts are the subtests that failed.
	parts []string
	// output is what the test said, without the testing package's own lines.
	output []string
	// required marks what an implementation of MCS must pass.
	required bool
	// unfinished says that the test has no verdict: it did not run, or not to its end.
	unfinished bool
}

// found is the outcome of a run.
type found struct {
	results []result
	// suite is what the suite said outside of any test.
	suite []string
	// broken says that the suite itself failed or did not end.
	broken bool
}

// verdict is the comparison of a run with its expectation.
type verdict struct {
	found
	passed, failed, skipped int
	required, requiredOf    int
	differences             []string
}

// compare judges. Tests whose names begin with `notRun` count as skipped, unjudged.
func compare(got found, want expectations, notRun string) verdict {
	v := verdict{found: got}
	v.results = slices.Clone(got.results)
	for _, e := range want {
		if !excluded(e.name, notRun) && !slices.ContainsFunc(v.results, func(r result) bool { return r.name == e.name }) {
			v.results = append(v.results, result{name: e.name, outcome: fail, reason: didNotRun, unfinished: true})
		}
	}
	for i := range v.results {
		r := &v.results[i]
		if r.unfinished && r.reason == "" {
			r.reason = "it began and did not end"
		}
		switch r.outcome {
		case pass:
			v.passed++
		case fail:
			v.failed++
		case skip:
			v.skipped++
		}
		if r.required {
			v.requiredOf++
			if r.outcome == pass {
				v.required++
			}
		}
		if excluded(r.name, notRun) {
			continue
		}
		if difference := differs(r, want); difference != "" {
			v.differences = append(v.differences, r.name+": "+difference)
		}
	}
	return v
}

// differs says how a result is not as expected, or nothing.
func differs(r *result, want expectations) string {
	k := slices.IndexFunc(want, func(e expectation) bool { return e.name == r.name })
	if k < 0 {
		return fmt.Sprintf("%s, and the expectation has no line for it", r.outcome)
	}
	e := want[k]
	switch {
	case r.unfinished:
		return r.reason + ", and no expectation allows that"
	case e.outcome == r.outcome:
		if r.outcome == fail {
			r.reason = "expected: " + e.reason
		}
		return ""
	case e.outcome == pass:
		return fmt.Sprintf("regression: %s, should pass", r.outcome)
	case r.outcome == pass:
		return fmt.Sprintf("unexpected pass, the line says: %s %s", e.outcome, e.reason)
	default:
		return fmt.Sprintf("%s, the line says: %s %s", r.outcome, e.outcome, e.reason)
	}
}

// print writes the failures, the differences and the sums, and returns the exit code.
func (v verdict) print(out io.Writer) int {
	for _, r := range v.results {
		// What did not run says nothing, and is among the differences.
		if r.outcome != fail || r.reason == didNotRun {
			continue
		}
		fmt.Fprintf(out, "\nFAILED %s", r.name)
		if r.reason != "" {
			fmt.Fprintf(out, " (%s)", r.reason)
		}
		fmt.Fprintln(out)
		for _, part := range r.parts {
			fmt.Fprintln(out, "    in:", part)
		}
		tail(out, r.output)
	}
	if v.broken {
		fmt.Fprintln(out, "\nTHE SUITE ITSELF FAILED, or ended early:")
		tail(out, v.suite)
	}
	if len(v.differences) > 0 {
		fmt.Fprintln(out, "\nnot as expected:")
		for _, difference := range v.differences {
			fmt.Fprintln(out, "   ", difference)
		}
	}
	fmt.Fprintln(out)
	if v.requiredOf > 0 {
		fmt.Fprintf(out, "required: passed %d of %d\n", v.required, v.requiredOf)
	}
	fmt.Fprintf(out, "passed %d failed %d skipped %d of %d\n", v.passed, v.failed, v.skipped, len(v.results))
	switch {
	case v.broken || len(v.differences) > 0 || len(v.results) == 0:
		return exitDiffers
	case v.failed > 0:
		return exitFailed
	default:
		return 0
	}
}

// tail writes the end of what was said, or what stands around the last assertion that
// failed: a suite says more after it.
func tail(out io.Writer, lines []string) {
	from := max(0, len(lines)-linesShown)
	for i, line := range lines {
		if strings.Contains(line, assertionMark) {
			from = max(0, i-linesBefore)
		}
	}
	for _, line := range lines[from:min(len(lines), from+linesShown)] {
		fmt.Fprintln(out, "   ", line)
	}
}
