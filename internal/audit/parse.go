package audit

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"sluice/internal/canonical"
)

// ParseEvent reads an event's body back. It accepts only bytes that Body would
// write again exactly, so nothing can hide in what it does not read: a second
// key of the same name, an unknown field, another spelling of a number.
func ParseEvent(body []byte) (Event, error) {
	var w struct {
		ID         uuid.UUID      `json:"id"`
		At         string         `json:"at"`
		Actor      string         `json:"actor"`
		Action     string         `json:"action"`
		Withdrawal uuid.UUID      `json:"withdrawal"`
		Detail     map[string]any `json:"detail"`
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return Event{}, errors.New("audit event: the body is not JSON of the known form")
	}
	at, err := time.Parse(stampLayout, w.At)
	if err != nil {
		return Event{}, errors.New("audit event: the time is not in the form of the record")
	}
	detail, err := object(w.Detail)
	if err != nil {
		return Event{}, fmt.Errorf("audit event: %w", err)
	}
	e := Event{ID: w.ID, At: at, Actor: w.Actor, Action: w.Action, Withdrawal: w.Withdrawal, Detail: detail}
	again, err := e.Body()
	if err != nil || !bytes.Equal(again, body) {
		return Event{}, errors.New("audit event: the body is not in canonical form")
	}
	return e, nil
}

// stampLayout is the layout that Stamp writes.
const stampLayout = "2006-01-02T15:04:05.000Z"

// DecodeDetail reads an event's detail into a struct. Members that the struct
// does not know are left alone: whoever writes an event may say more.
func (e Event) DecodeDetail(into any) error {
	b, err := canonical.Marshal(e.Detail)
	if err != nil {
		return fmt.Errorf("detail of %s: %w", e.Action, err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("the detail of %s has another form than expected", e.Action)
	}
	return nil
}

// object turns what the JSON reader makes into the types that package canonical
// writes. A number that is not exactly an integer is refused.
func object(m map[string]any) (canonical.Object, error) {
	if m == nil {
		return nil, nil
	}
	o := make(canonical.Object, len(m))
	for k, v := range m {
		c, err := value(v)
		if err != nil {
			return nil, err
		}
		o[k] = c
	}
	return o, nil
}

func value(v any) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		return object(v)
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			c, err := value(e)
			if err != nil {
				return nil, err
			}
			list[i] = c
		}
		return list, nil
	case float64:
		if v != math.Trunc(v) || math.Abs(v) >= 1<<53 {
			return nil, errors.New("a number is not an exact integer")
		}
		return int64(v), nil
	}
	return v, nil
}

// Row is an event as the database holds it: the body, and the columns that
// repeat it for search.
type Row struct {
	ID         uuid.UUID
	At         time.Time
	Actor      string
	Action     string
	Withdrawal *uuid.UUID
	Body       []byte
}

// Check tells whether the columns say what the body says. People search by the
// columns and only the body is under the tree: where they differ, somebody
// made the record show one thing and prove another.
func (r Row) Check() error {
	e, err := ParseEvent(r.Body)
	if err != nil {
		return err
	}
	withdrawal := uuid.Nil
	if r.Withdrawal != nil {
		withdrawal = *r.Withdrawal
	}
	switch {
	case e.ID != r.ID:
		return fmt.Errorf("its column says id %s, its body %s", r.ID, e.ID)
	case !sameTime(r.At, e.At):
		return fmt.Errorf("its column says time %s, its body %s", Stamp(r.At), Stamp(e.At))
	case e.Actor != r.Actor:
		return fmt.Errorf("its column says actor %q, its body %q", r.Actor, e.Actor)
	case e.Action != r.Action:
		return fmt.Errorf("its column says action %q, its body %q", r.Action, e.Action)
	case e.Withdrawal != withdrawal:
		return fmt.Errorf("its column says withdrawal %s, its body %s", withdrawal, e.Withdrawal)
	}
	return nil
}

// sameTime allows for the two clocks' grain: the body cuts to milliseconds, the
// column rounds to microseconds, so that the column may be up to 1 ms ahead.
func sameTime(column, body time.Time) bool {
	ahead := column.Sub(body)
	return ahead >= 0 && ahead <= time.Millisecond
}
