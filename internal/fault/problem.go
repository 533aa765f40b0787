package fault

import (
	"encoding/json"
	"net/http"
)

// status is the one table from kinds to HTTP. A code never changes its kind, so a
// client may rely on either.
var status = map[Kind]int{
	Malformed:    http.StatusBadRequest,
	Invalid:      http.StatusUnprocessableEntity,
	Unauthorized: http.StatusUnauthorized,
	Forbidden:    http.StatusForbidden,
	NotFound:     http.StatusNotFound,
	Conflict:     http.StatusConflict,
	Refused:      http.StatusUnprocessableEntity,
	Unavailable:  http.StatusServiceUnavailable,
	Unclear:      http.StatusBadGateway,
	TooLarge:     http.StatusRequestEntityTooLarge,
}

// Problem is an RFC 9457 problem detail.
type Problem struct {
	Type   string `json:"type"` // "about:blank": the code is the stable name
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Fix    string `json:"fix"`
	Field  string `json:"field,omitempty"`
	// Withdrawal is the id under which a refused request is recorded.
	Withdrawal string `json:"withdrawal,omitempty"`
}

// ProblemOf is what the outside is told of err. An error without a kind is
// internal: its text stays inside.
func ProblemOf(err error) Problem {
	e, ok := As(err)
	if !ok || status[e.Kind] == 0 {
		return Problem{
			Type: "about:blank", Title: http.StatusText(http.StatusInternalServerError),
			Status: http.StatusInternalServerError, Code: "internal",
			Detail: "something broke on our side; nothing was lost",
			Fix:    "try again with the same Idempotency-Key; if it stays, tell the operators of Sluice the time and the request id",
		}
	}
	s := status[e.Kind]
	return Problem{Type: "about:blank", Title: http.StatusText(s), Status: s,
		Detail: e.Detail, Code: e.Code, Fix: e.Fix, Field: e.Field}
}

// JSON is the problem as it goes over the wire.
func (p Problem) JSON() []byte {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and an int always encode
	}
	return b
}
