package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// ginkgoReport is what is read of ginkgo's `--json-report`.
type ginkgoReport struct {
	SpecReports []struct {
		ContainerHierarchyTexts  []string
		ContainerHierarchyLabels [][]string
		LeafNodeType             string
		LeafNodeText             string
		LeafNodeLabels           []string
		State                    string
		Failure                  struct {
			Message  string
			Location struct {
				FileName   string
				LineNumber int
			}
		}
	}
}

// readGinkgo reads the specs' results. A set-up that failed breaks the whole suite, whose
// specs ginkgo then calls skipped.
func readGinkgo(in io.Reader) (found, error) {
	var reports []ginkgoReport
	if err := json.NewDecoder(in).Decode(&reports); err != nil {
		return found{}, fmt.Errorf("this is not a report of ginkgo: %w", err)
	}
	var got found
	for _, report := range reports {
		for _, spec := range report.SpecReports {
			said := strings.Split(strings.TrimSpace(spec.Failure.Message), "\n")
			if spec.LeafNodeType != "It" {
				if spec.State != "passed" {
					got.broken = true
					got.suite = append(got.suite, fmt.Sprintf("%s %s", spec.LeafNodeType, spec.State))
					got.suite = append(got.suite, said...)
				}
				continue
			}
			r := result{name: specName(spec.ContainerHierarchyTexts, spec.LeafNodeText), output: said}
			for _, labels := range append(spec.ContainerHierarchyLabels, spec.LeafNodeLabels) {
				r.required = r.required || slices.Contains(labels, "Required")
			}
			switch spec.State {
			case "passed":
				r.outcome = pass
			case "skipped", "pending":
				r.outcome = skip
			default: // failed, panicked, timedout, interrupted, aborted
				r.outcome = fail
				r.output = append(r.output, fmt.Sprintf("%s at %s:%d", spec.State, spec.Failure.Location.FileName, spec.Failure.Location.LineNumber))
			}
			got.results = append(got.results, r)
		}
	}
	got.broken = got.broken || len(got.results) == 0
	return got, nil
}

// specName is a spec's full text with single spaces.
func specName(containers []string, leaf string) string {
	return strings.Join(strings.Fields(strings.Join(append(slices.Clone(containers), leaf), " ")), " ")
}
