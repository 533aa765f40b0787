// Package fault holds the kinds of error that cross package borders. Inside, errors
// wrap one another freely; at the border of the process one table (httpapi)
// turns kinds into answers. Whatever has no kind is internal: logged whole,
// shown as "internal".
package fault

import (
	"errors"
	"fmt"
)

// Kind tells a caller what it can do about an error.
type Kind string

const (
	Malformed    Kind = "malformed"    // cannot be read at all
	Invalid      Kind = "invalid"      // can never succeed as it stands
	Unauthorized Kind = "unauthorized" // who are you?
	Forbidden    Kind = "forbidden"    // someone else may, you may not
	NotFound     Kind = "not_found"
	Conflict     Kind = "conflict"    // the thing has moved on; read it again
	Refused      Kind = "refused"     // understood, and a rule says no; recorded
	Unavailable  Kind = "unavailable" // nothing happened; try again later
	Unclear      Kind = "unclear"     // the exchange may have acted; do not repeat
	TooLarge     Kind = "too_large"
)

// Error is an error with a kind, a stable code for programs, a sentence for
// people, and the next step. Neither sentence ever holds a secret.
type Error struct {
	Kind   Kind
	Code   string // stable, snake_case; part of the API
	Detail string // what is wrong
	Fix    string // what to do next
	Field  string // the request field at fault, when there is one
	Err    error  // the cause, for the log only
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Detail, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Detail)
}

func (e *Error) Unwrap() error { return e.Err }

// New makes an error of a kind.
func New(kind Kind, code, detail, fix string) *Error {
	return &Error{Kind: kind, Code: code, Detail: detail, Fix: fix}
}

// On says which request field is at fault.
func (e *Error) On(field string) *Error {
	c := *e
	c.Field = field
	return &c
}

// Because keeps the cause for the log. The cause is not shown to anyone outside.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// As returns err as an *Error, if it is or wraps one.
func As(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// Is tells whether err is, or wraps, an error with this code.
func Is(err error, code string) bool {
	e, ok := As(err)
	return ok && e.Code == code
}
