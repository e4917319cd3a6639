module isthmus.io/tests/conformance/judge

go 1.26.0
