// Package conformance runs the official Gateway API conformance suite, unchanged.
//
// The suite's own flags say against what: see `tests/conformance/run`, which gives
// them. Features are not listed here: the suite infers them from what the GatewayClass
// claims in its status, so a claim that does not hold is a failure.
package conformance_test

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
