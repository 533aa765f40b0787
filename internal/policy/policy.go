// Package policy says which votes a withdrawal needs. For now there is one
// policy, built in and safe; versioned documents come with the policy issue.
package policy

import (
	"time"

	"sluice/internal/approval"
)

// Policy is a version of the rules.
type Policy struct {
	Version string
	Quorum  approval.Quorum
	Expiry  time.Duration // from request to the end of its proposal, unless the request asks for less
	// MaxConfigAge is how old the mirrored exchange configuration may be before
	// intake stops believing it.
	MaxConfigAge time.Duration
}

// Default is the built-in policy: two approvers, the requester never counts, one
// reject ends it, and nothing waits longer than a day.
var Default = Policy{
	Version:      "builtin-1",
	Quorum:       approval.Quorum{Approve: 2, Reject: 1},
	Expiry:       24 * time.Hour,
	MaxConfigAge: 15 * time.Minute,
}
