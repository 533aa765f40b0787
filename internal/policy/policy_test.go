package policy_test

import (
	"testing"
	"time"

	"sluice/internal/policy"
)

// The built-in policy is what stands between one person and the treasury until a
// company writes its own. These are the numbers that the README promises.
func TestTheBuiltInPolicyIsSafe(t *testing.T) {
	p := policy.Default
	if p.Quorum.Approve != 2 || p.Quorum.Reject != 1 {
		t.Errorf("quorum %+v: two people must agree, and one can stop it", p.Quorum)
	}
	if p.Expiry != 24*time.Hour {
		t.Errorf("a request lives %s: old votes must not pay a forgotten request", p.Expiry)
	}
	if p.MaxConfigAge <= 0 || p.MaxConfigAge > time.Hour {
		t.Errorf("intake believes a configuration that is %s old", p.MaxConfigAge)
	}
	if p.Version == "" {
		t.Error("the policy has no version to seal into proposals")
	}
}
