// Package receipt proves one payout offline: who asked, who agreed, what was
// sent and what became of it, with nothing at hand but the document, the log's
// public key and the name of the site that the passkeys belong to.
//
// A receipt has three layers, each holding up the next. The checkpoint is
// signed. Every event is proven to be a leaf under it. Everything else, the
// sealed proposals, the assertions, the bytes that were sent, is named by its
// hash in one of those events. No field is taken at its word.
package receipt

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/tlog"

	"sluice/internal/approval"
	"sluice/internal/fault"
)

// Type names the form of the document. It changes when the form does.
const Type = "sluice/receipt/1"

// Receipt is the document.
type Receipt struct {
	Type       string           `json:"type"`
	Withdrawal uuid.UUID        `json:"withdrawal"`
	Site       approval.Relying `json:"site"`       // where the passkeys belong; must be what the verifier expects
	Checkpoint string           `json:"checkpoint"` // signed note
	Events     []Entry          `json:"events"`     // of the withdrawal, in the order of the log
	Roster     []Entry          `json:"roster"`     // who the voters are and which passkeys are theirs
	Proposals  []string         `json:"proposals"`  // sealed bytes, one per round, named by digest
	Votes      []Assertion      `json:"votes"`      // named by the hash of the signature
	Attempts   []string         `json:"attempts"`   // the exact bytes sent, named by hash
}

// Entry is one event of the log with the proof that it is there.
type Entry struct {
	Leaf  int64       `json:"leaf"`
	Body  string      `json:"body"`  // canonical JSON
	Proof []tlog.Hash `json:"proof"` // RFC 6962 audit path, from the leaf upwards
}

// Assertion is what the authenticator made for one vote. All else of the vote
// stands in its event.
type Assertion struct {
	AuthenticatorData []byte `json:"authenticator_data"`
	ClientData        []byte `json:"client_data"`
	Signature         []byte `json:"signature"`
}

// Bounds. A receipt is read from strangers; these are far above what an honest
// one needs and keep the work of checking one to seconds.
const (
	maxBytes    = 4 << 20
	maxEvents   = 4096
	maxRoster   = 1024
	maxRounds   = 64
	maxVotes    = 256
	maxAttempts = 256
	maxProof    = 64
)

// Encode writes the document.
func (r Receipt) Encode() ([]byte, error) {
	b, err := json.Marshal(r, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("encode receipt: %w", err)
	}
	return b, nil
}

// Parse reads the document. It refuses what is too large, unknown members,
// members that come twice and text that is not UTF-8: none of them may carry a
// second meaning past a reader.
func Parse(b []byte) (Receipt, error) {
	if len(b) > maxBytes {
		return Receipt{}, fault.New(fault.TooLarge, "receipt_too_large",
			fmt.Sprintf("the receipt is larger than %d MiB", maxBytes>>20), "make sure that this is a receipt")
	}
	var r Receipt
	if err := json.Unmarshal(b, &r, json.RejectUnknownMembers(true)); err != nil {
		return Receipt{}, fault.New(fault.Invalid, "receipt_unreadable", "this is not a receipt of the known form",
			"use the file as it was exported; if it comes from a newer Sluice, verify it with that version").Because(err)
	}
	return r, r.bounded()
}

func (r Receipt) bounded() error {
	tooMany := func(what string, most int) error {
		return fault.New(fault.TooLarge, "receipt_too_large", fmt.Sprintf("the receipt holds more than %d %s", most, what),
			"make sure that this is a receipt")
	}
	switch {
	case r.Type != Type:
		return fault.New(fault.Invalid, "receipt_unreadable", fmt.Sprintf("the document is not of type %s", Type),
			"use the file as it was exported; if it comes from a newer Sluice, verify it with that version")
	case len(r.Events) > maxEvents:
		return tooMany("events", maxEvents)
	case len(r.Roster) > maxRoster:
		return tooMany("roster events", maxRoster)
	case len(r.Proposals) > maxRounds:
		return tooMany("proposals", maxRounds)
	case len(r.Votes) > maxVotes:
		return tooMany("votes", maxVotes)
	case len(r.Attempts) > maxAttempts:
		return tooMany("attempts", maxAttempts)
	}
	return nil
}
