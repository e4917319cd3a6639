// Program judge compares what a public suite found with what is committed as expected.
//
//	judge gateway-api -log FILE -expected FILE [-only A,B] [-not-run PREFIX] [-accept]
//	judge mcs -report FILE -expected FILE [-only TEXT] [-accept]
//
// A test that fails is always a failure. The expectation says besides which tests may fail
// or be skipped, and why, so that a difference in either direction is seen: a test that
// fails and should pass is a regression, and one that passes and should not is a line to
// be removed.
//
// # Flow
//
//   - gotest.go, ginkgo.go: a suite's output → results
//   - expected.go: the committed file → expectations
//   - verdict.go: both → differences, and the sums
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// The exit codes. A run without failures that is as expected ends with 0.
const (
	exitDiffers = 1 // not as expected: a regression, an unexpected pass, a test without a line
	exitUsage   = 2
	exitFailed  = 3 // as expected, but the expectation holds failures
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// options are the flags; which of them count depends on the suite.
type options struct {
	log, report, expected, only, notRun string
	accept                              bool
}

func run(args []string, out, errs io.Writer) int {
	if len(args) == 0 {
		fmt.Fprintln(errs, "judge: say which suite: gateway-api or mcs")
		return exitUsage
	}
	var o options
	set := flag.NewFlagSet(args[0], flag.ContinueOnError)
	set.SetOutput(errs)
	set.StringVar(&o.log, "log", "", "gateway-api: the output of go test -json")
	set.StringVar(&o.report, "report", "", "mcs: ginkgo's JSON report")
	set.StringVar(&o.expected, "expected", "", "the committed expectation")
	set.StringVar(&o.only, "only", "", "gateway-api: the tests that were run, by comma; mcs: a part of their names")
	set.StringVar(&o.notRun, "not-run", "", "tests whose names begin so were not asked for, and are counted as skipped")
	set.BoolVar(&o.accept, "accept", false, "write the expectation from the results; reasons are kept")
	if err := set.Parse(args[1:]); err != nil {
		return exitUsage
	}
	found, err := read(args[0], o)
	if err != nil {
		fmt.Fprintln(errs, "judge:", err)
		return exitUsage
	}
	selects := o.selects(args[0])
	// ginkgo lists what was not to run as skipped.
	found.results = slices.DeleteFunc(found.results, func(r result) bool { return r.outcome == skip && !selects(r.name) })
	want, err := readExpected(o.expected)
	if err != nil && !(o.accept && errors.Is(err, os.ErrNotExist)) {
		fmt.Fprintln(errs, "judge:", err)
		return exitUsage
	}
	if o.accept {
		if err := writeExpected(o.expected, found.results, want, o.notRun); err != nil {
			fmt.Fprintln(errs, "judge:", err)
			return exitUsage
		}
		fmt.Fprintln(out, "written:", o.expected)
		if want, err = readExpected(o.expected); err != nil {
			fmt.Fprintln(errs, "judge:", err)
			return exitUsage
		}
	}
	return compare(found, want.selected(selects), o.notRun).print(out)
}

// read takes the results from the suite's output.
func read(suite string, o options) (found, error) {
	switch suite {
	case "gateway-api":
		return openWith(o.log, readGoTest)
	case "mcs":
		return openWith(o.report, readGinkgo)
	default:
		return found{}, fmt.Errorf("no suite %q: there are gateway-api and mcs", suite)
	}
}

func openWith(path string, parse func(io.Reader) (found, error)) (found, error) {
	f, err := os.Open(path)
	if err != nil {
		return found{}, err
	}
	defer f.Close()
	got, err := parse(f)
	if err != nil {
		return found{}, fmt.Errorf("%s: %w", path, err)
	}
	return got, nil
}

// selects says which tests of the expectation had to run.
func (o options) selects(suite string) func(name string) bool {
	if o.only == "" {
		return func(string) bool { return true }
	}
	if suite == "mcs" {
		return func(name string) bool { return strings.Contains(name, o.only) }
	}
	names := map[string]bool{}
	for _, name := range strings.Split(o.only, ",") {
		names[name] = true
	}
	return func(name string) bool { return names[name] }
}
