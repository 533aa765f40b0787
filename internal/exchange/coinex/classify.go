package coinex

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"sluice/internal/exchange"
)

// Classify says what came of a submission. It is pure, and it is the only place
// where that is decided. The rules are those of facts 2.5, in this order:
//
//   - A transport error is NotAccepted only with ErrNotSent in its chain, and
//     Unknown otherwise: bytes that left may have arrived.
//   - HTTP 5xx and 408 are Unknown whatever the body says: a gateway may have
//     written it.
//   - Without an envelope (JSON with an integer code), HTTP 400, 401, 403, 404,
//     405 and 429 are refusals at the edge, NotAccepted; all else is Unknown.
//   - With an envelope, a code other than 0 is looked up in the table of
//     codes. A code that is not there is Unknown: "rejected, unverified".
//   - Code 0 is Accepted only with HTTP 200, a withdraw_id above zero, and an
//     echo that nowhere contradicts the order. A missing id or an echo that
//     differs is Unknown with an alarm. Echo fields that are missing do not
//     matter beside an id: the withdrawal exists, reconciliation could find
//     nothing else, and tracking compares the row again. A field that is there
//     and empty has been echoed.
//
// Every Outcome has a Reason, and all but Accepted a Fix; body is kept as the
// Response. An accepted Withdrawal holds what was echoed and no more.
func Classify(transportErr error, status int, body []byte, o exchange.Order) exchange.Outcome {
	out := exchange.Outcome{Class: exchange.Unknown, HTTPStatus: status, Response: body}
	if transportErr != nil {
		out.HTTPStatus = 0
		out.Message = words(transportErr.Error())
		if errors.Is(transportErr, ErrNotSent) {
			out.Class, out.Next = exchange.NotAccepted, exchange.Retry
			out.Reason = "The request never left this machine, so no withdrawal exists."
			out.Fix = "It is signed afresh after a pause. If it goes on, check the connection to the exchange."
			return out
		}
		out.Reason = "The request was sent and no complete answer came back. The exchange may have taken it."
		out.Fix = fixReconcile
		return out
	}

	env, err := decodeEnvelope(body)
	if err == nil {
		out.Code, out.Message = env.code, env.message
	}
	switch {
	case !speaks(status):
		out.Reason = fmt.Sprintf("The answer came with HTTP %d, which leaves open whether the exchange took the request.", status)
		out.Fix = fixReconcile
	case err != nil && edgeRefusal(status):
		out.Class, out.Next = exchange.NotAccepted, exchange.Hold
		out.Message = words(string(body))
		out.Reason = fmt.Sprintf("A gateway before the exchange refused the request with HTTP %d, so no withdrawal exists.", status)
		out.Fix = "Check the exchange address, the key's IP binding and the exchange's announcements, then release it."
		if status == http.StatusTooManyRequests {
			out.Next = exchange.Retry
			out.Fix = "It is signed afresh after a pause."
		}
	case err != nil:
		out.Message = words(string(body))
		out.Reason = "The answer is not in the exchange's form, so it proves nothing."
		out.Fix = fixReconcile
	case env.code != 0:
		reject(&out, env.code)
	case status != http.StatusOK:
		out.Reason = fmt.Sprintf("The answer says both success and HTTP %d, so it proves nothing.", status)
		out.Fix = fixReconcile
	default:
		accept(&out, env, o)
	}
	return out
}

// reject fills in an outcome for a code other than 0.
func reject(out *exchange.Outcome, code int) {
	row, known := codes[code]
	if !known {
		out.Reason = fmt.Sprintf("The exchange rejected the request with code %d, which is not documented: rejected, unverified.", code)
		out.Fix = "Reconcile once. If no withdrawal is found, a person reads the exchange's message and decides; it is never repeated by itself."
		return
	}
	out.Class, out.Next = row.class, row.next
	out.Reason = fmt.Sprintf("The exchange answered code %d: %s. ", code, row.meaning) + row.reason
	out.Fix = row.fix
}

// accept fills in an outcome for code 0, or raises the alarm.
func accept(out *exchange.Outcome, env envelope, o exchange.Order) {
	alarm := func(what string) {
		out.Reason = "Alarm: the exchange said yes, but " + what
		out.Fix = "Reconcile, and have a person compare the exchange's row with the order before anything else is paid to this destination."
	}
	echo, err := decodeObject(env.data)
	if err != nil {
		alarm("its answer names no withdrawal.")
		return
	}
	w, err := decodeWithdrawal(echo)
	if err != nil {
		alarm("its answer cannot be read: " + err.Error() + ".")
		return
	}
	if w.ID <= 0 {
		alarm("its answer has no withdrawal id.")
		return
	}
	if differing := differences(echo, w, o); len(differing) > 0 {
		alarm(fmt.Sprintf("withdrawal %d is not the one that was ordered: it differs in %s.", w.ID, strings.Join(differing, ", ")))
		return
	}
	out.Class = exchange.Accepted
	out.Withdrawal = &w
	out.Reason = fmt.Sprintf("The exchange has taken it as withdrawal %d.", w.ID)
}

// differences names the fields in which an echo contradicts the order. The
// order's amount is net, so it is compared with actual_amount; the echo's
// amount is gross (facts 0.1). The remark is left out: whether it is echoed
// unchanged is not known (facts 3.3), and it moves no money.
func differences(echo object, w exchange.Withdrawal, o exchange.Order) []string {
	var out []string
	differ := func(field string, same bool) {
		if echo.field(field) != nil && !same {
			out = append(out, field)
		}
	}
	differ("ccy", w.Asset == o.Asset)
	differ("chain", w.Chain == o.Chain)
	differ("to_address", w.Address == o.Address)
	differ("memo", w.Memo == o.Memo)
	differ("withdraw_method", w.Method == o.Method)
	differ("actual_amount", w.Net.Equal(o.Amount))
	return out
}

// edgeRefusal tells whether a status without an envelope means that the request
// was stopped before the exchange itself (facts 2.5, rule 4).
func edgeRefusal(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden,
		http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusTooManyRequests:
		return true
	}
	return false
}

// speaks tells whether an answer with this status may be taken at its word.
func speaks(status int) bool { return status == http.StatusOK || edgeRefusal(status) }
