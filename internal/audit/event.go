// Package audit is the record: what happened, who did it, in an order that
// cannot be rewritten without being found out. Events are rows that are added in
// the transaction that makes the change; a sequencer numbers them afterwards and
// signs a Merkle checkpoint over them; a receipt proves one payout offline.
package audit

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"sluice/internal/canonical"
)

// eventType names the form of an event's body.
const eventType = "sluice/event/1"

// Event is one thing that happened.
type Event struct {
	ID         uuid.UUID
	At         time.Time
	Actor      string    // "client:NAME", "person:ID", "worker:ACCOUNT" or "operator:NAME"
	Action     string    // such as "withdrawal.requested"
	Withdrawal uuid.UUID // zero when it concerns none
	Detail     canonical.Object
}

// NewEvent makes an event with an id in order of time.
func NewEvent(at time.Time, actor, action string, withdrawal uuid.UUID, detail canonical.Object) Event {
	return Event{ID: uuid.Must(uuid.NewV7()), At: at, Actor: actor, Action: action, Withdrawal: withdrawal, Detail: detail}
}

// Body is the event in canonical JSON: the bytes whose hash is the leaf of the log.
func (e Event) Body() ([]byte, error) {
	o := canonical.Object{
		"type": eventType, "id": e.ID.String(), "at": Stamp(e.At), "actor": e.Actor, "action": e.Action,
	}
	if e.Withdrawal != uuid.Nil {
		o["withdrawal"] = e.Withdrawal.String()
	}
	if len(e.Detail) > 0 {
		o["detail"] = e.Detail
	}
	b, err := canonical.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("audit event %s: %w", e.Action, err)
	}
	return b, nil
}

// Stamp is the written form of a time in the record: UTC, milliseconds.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
