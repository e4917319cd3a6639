package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// line is a line of go test -json.
func line(action, test, output string) string {
	return `{"Action":"` + action + `","Test":"` + test + `","Output":"` + output + `"}` + "\n"
}

// ran is a log in which the suite ended, after `tests`.
func ran(suite string, tests ...string) string {
	return strings.Join(tests, "") + line(suite, "TestConformance", "")
}

func ended(name, action string) string {
	return line("run", "TestConformance/"+name, "") + line(action, "TestConformance/"+name, "")
}

// judge runs the program on a log and an expectation.
func judge(t *testing.T, suite, log, expected string, flags ...string) (string, int) {
	t.Helper()
	dir := t.TempDir()
	logFile, expectedFile := filepath.Join(dir, "log"), filepath.Join(dir, "expected.txt")
	for path, text := range map[string]string{logFile: log, expectedFile: expected} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flag := map[string]string{"gateway-api": "-log", "mcs": "-report"}[suite]
	var out bytes.Buffer
	code := run(append([]string{suite, flag, logFile, "-expected", expectedFile}, flags...), &out, &out)
	if written, err := os.ReadFile(expectedFile); err == nil && len(flags) > 0 && flags[len(flags)-1] == "-accept" {
		return string(written), code
	}
	return out.String(), code
}

// check asserts the exit code, the last line, and that each text is in the output.
func check(t *testing.T, out string, code, wantCode int, last string, texts ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != wantCode || lines[len(lines)-1] != last {
		t.Errorf("exit code %d and last line %q, want %d and %q", code, lines[len(lines)-1], wantCode, last)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("no %q", text)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

func TestARunAsExpectedEndsWithZero(t *testing.T) {
	out, code := judge(t, "gateway-api", ran("pass", ended("A", "pass"), ended("B", "skip")), "A pass\nB skip not claimed\n")
	check(t, out, code, 0, "passed 1 failed 0 skipped 1 of 2")
}

func TestARegressionIsNamedWithItsLastLines(t *testing.T) {
	log := ran("fail", line("run", "TestConformance/A", ""),
		line("output", "TestConformance/A/sub_request", `    http.go:1: got 404, expected 200\n`),
		line("fail", "TestConformance/A/sub_request", ""), line("fail", "TestConformance/A", ""))
	out, code := judge(t, "gateway-api", log, "A pass\n")
	check(t, out, code, exitDiffers, "passed 0 failed 1 skipped 0 of 1",
		"FAILED A", "in: sub_request", "got 404, expected 200", "A: regression: fail, should pass")
}

func TestAnExpectedFailureIsStillNoSuccess(t *testing.T) {
	out, code := judge(t, "gateway-api", ran("fail", ended("A", "fail")), "A fail the header is dropped\n")
	check(t, out, code, exitFailed, "passed 0 failed 1 skipped 0 of 1", "expected: the header is dropped")
}

func TestAnUnexpectedPassIsADifference(t *testing.T) {
	out, code := judge(t, "gateway-api", ran("pass", ended("A", "pass")), "A fail old reason\n")
	check(t, out, code, exitDiffers, "passed 1 failed 0 skipped 0 of 1", "unexpected pass")
}

func TestASkipThatShouldPassIsARegression(t *testing.T) {
	out, code := judge(t, "gateway-api", ran("pass", ended("A", "skip")), "A pass\n")
	check(t, out, code, exitDiffers, "passed 0 failed 0 skipped 1 of 1", "regression: skip, should pass")
}

func TestATestThatDidNotRunFailed(t *testing.T) {
	out, code := judge(t, "gateway-api", ran("pass", ended("A", "pass")), "A pass\nB pass\n")
	check(t, out, code, exitDiffers, "passed 1 failed 1 skipped 0 of 2", "B: it did not run")
}

func TestATestThatDidNotRunIsNoExpectedFailure(t *testing.T) {
	out, code := judge(t, "gateway-api", ran("pass", ended("A", "pass")), "A pass\nB fail known\n")
	check(t, out, code, exitDiffers, "passed 1 failed 1 skipped 0 of 2", "B: it did not run, and no expectation allows that")
}

func TestATestWithoutALineIsADifference(t *testing.T) {
	out, code := judge(t, "gateway-api", ran("pass", ended("A", "pass")), "")
	check(t, out, code, exitDiffers, "passed 1 failed 0 skipped 0 of 1", "no line for it")
}

func TestATestCutShortByThePanicOfAnotherFailed(t *testing.T) {
	log := line("run", "TestConformance/A", "") + "panic: test timed out after 1m0s\n"
	out, code := judge(t, "gateway-api", log, "A pass\n")
	check(t, out, code, exitDiffers, "passed 0 failed 1 skipped 0 of 1",
		"FAILED A (it began and did not end)", "THE SUITE ITSELF FAILED", "panic: test timed out")
}

func TestASetUpThatFailedIsShownAndNoTestPassed(t *testing.T) {
	log := line("output", "TestConformance", `    no GatewayClass\n`) + line("fail", "TestConformance", "")
	out, code := judge(t, "gateway-api", log, "A pass\n")
	check(t, out, code, exitDiffers, "passed 0 failed 1 skipped 0 of 1", "THE SUITE ITSELF FAILED", "no GatewayClass")
}

func TestTheAssertionThatFailedIsShownAndNotWhatFollows(t *testing.T) {
	tests := []string{line("output", "TestConformance", `  Error Trace: x.go:1\n`)}
	for range 2 * linesShown {
		tests = append(tests, line("output", "TestConformance", `the report\n`))
	}
	out, code := judge(t, "gateway-api", ran("fail", tests...), "A pass\n")
	check(t, out, code, exitDiffers, "passed 0 failed 1 skipped 0 of 1", "Error Trace: x.go:1")
}

func TestASuiteThatFailedAfterItsTestsPassedIsBroken(t *testing.T) {
	out, code := judge(t, "gateway-api", ran("fail", ended("A", "pass")), "A pass\n")
	check(t, out, code, exitDiffers, "passed 1 failed 0 skipped 0 of 1", "THE SUITE ITSELF FAILED")
}

func TestOnlyTheTestsThatWereToRunAreCompared(t *testing.T) {
	out, code := judge(t, "gateway-api", ran("pass", ended("A", "pass")), "A pass\nB pass\n", "-only", "A")
	check(t, out, code, 0, "passed 1 failed 0 skipped 0 of 1")
	out, code = judge(t, "gateway-api", ran("pass"), "A pass\nB pass\n", "-only", "A")
	check(t, out, code, exitDiffers, "passed 0 failed 1 skipped 0 of 1", "A: it did not run")
}

func TestTestsNotAskedForAreSkippedUnjudged(t *testing.T) {
	out, code := judge(t, "gateway-api", ran("pass", ended("A", "pass"), ended("MeshB", "skip")), "A pass\nMeshB pass\n", "-not-run", "Mesh")
	check(t, out, code, 0, "passed 1 failed 0 skipped 1 of 2")
}

func TestAnExpectationWithoutAReasonIsRefused(t *testing.T) {
	out, code := judge(t, "gateway-api", ran("pass", ended("A", "skip")), "A skip\n")
	check(t, out, code, exitUsage, strings.TrimSpace(out), "expected.txt:1", "say why")
}

func TestAcceptingKeepsCommentsAndReasons(t *testing.T) {
	written, code := judge(t, "gateway-api", ran("fail", ended("C", "pass"), ended("A", "fail"), ended("B", "skip")),
		"# head\nA fail known\nC skip old\n", "-accept")
	if want := "# head\nA fail known\nB skip (say why)\nC pass\n"; written != want || code != exitFailed {
		t.Errorf("exit code %d, written:\n%s\nwant:\n%s", code, written, want)
	}
}

const ginkgoSpecs = `[{"SpecReports":[
 {"LeafNodeType":"BeforeSuite","State":"passed"},
 {"ContainerHierarchyTexts":["","A  service"],"ContainerHierarchyLabels":[[],["Required"]],"LeafNodeType":"It","LeafNodeText":"should pass through","State":"passed"},
 {"ContainerHierarchyTexts":[""],"LeafNodeType":"It","LeafNodeText":"DNS","LeafNodeLabels":["Optional"],"State":"timedout","Failure":{"Message":"no answer\nat all"}},
 {"ContainerHierarchyTexts":[""],"LeafNodeType":"It","LeafNodeText":"two clusters","LeafNodeLabels":["Required"],"State":"skipped"}]}]`

func TestSpecsAreReadFromTheirReport(t *testing.T) {
	// The first word that is an outcome ends the name, so no name may have one.
	specs := strings.ReplaceAll(ginkgoSpecs, "should pass through", "should go through")
	out, code := judge(t, "mcs", specs, "A service should go through pass\nDNS pass\ntwo clusters skip one cluster\n")
	check(t, out, code, exitDiffers, "passed 1 failed 1 skipped 1 of 3",
		"FAILED DNS", "no answer", "timedout at", "DNS: regression", "required: passed 1 of 2")
}

func TestSpecsOutsideOfTheFocusAreNotResults(t *testing.T) {
	out, code := judge(t, "mcs", strings.ReplaceAll(ginkgoSpecs, "pass through", "go"), "A service should go pass\ntwo clusters skip one cluster\n", "-only", "A service")
	check(t, out, code, exitDiffers, "passed 1 failed 1 skipped 0 of 2", "DNS: fail, and the expectation has no line")
}

func TestASetUpOfSpecsThatFailedBreaksTheSuite(t *testing.T) {
	specs := `[{"SpecReports":[{"LeafNodeType":"BeforeSuite","State":"failed","Failure":{"Message":"no API"}},
	 {"LeafNodeType":"It","LeafNodeText":"DNS","State":"skipped"}]}]`
	out, code := judge(t, "mcs", specs, "DNS skip it is optional\n")
	check(t, out, code, exitDiffers, "passed 0 failed 0 skipped 1 of 1", "THE SUITE ITSELF FAILED", "no API")
}
