package web

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sluice/internal/approval"
	"sluice/internal/withdraw"
)

// Tone is the colour family of a state. It repeats what the words say and never
// says anything alone.
type tone string

const (
	wait  tone = "wait"  // for votes
	going tone = "go"    // the worker or the exchange has it
	care  tone = "care"  // a person must look
	done  tone = "done"  // paid
	still tone = "still" // ended without paying
)

var tones = map[withdraw.State]tone{
	withdraw.Refused: still, withdraw.Pending: wait, withdraw.Approved: going, withdraw.Submitting: going,
	withdraw.Unknown: care, withdraw.Absent: care, withdraw.Submitted: going, withdraw.Held: care,
	withdraw.Completed: done, withdraw.Failed: care, withdraw.Rejected: still, withdraw.Cancelled: still,
	withdraw.Expired: still,
}

// next says, in plain words, what happens to a withdrawal now, who owns that, and
// by when: the promise that no state is left without an owner and a clock.
type next struct {
	What  string
	Owner string
	By    *time.Time
	Late  bool // By has passed
	May   []string
	Not   []string
}

// nextOf puts the words together. missing is how many approvals are still needed.
func nextOf(w withdraw.Withdrawal, v *approval.Verdict, now time.Time) next {
	n := words(w, v)
	if n.By != nil {
		n.Late = now.After(*n.By)
	}
	return n
}

func words(w withdraw.Withdrawal, v *approval.Verdict) next {
	worker := "the worker of account " + w.Account
	switch w.State {
	case withdraw.Refused:
		return next{What: "Refused at intake. Nothing was asked of anyone and nothing will be paid.", Owner: "the requester"}
	case withdraw.Pending:
		return next{What: "Waits for " + approvals(v) + ".", Owner: "the approvers", By: w.ExpiresAt}
	case withdraw.Approved:
		return next{What: "Approved. The worker checks everything again, then sends it to the exchange.", Owner: worker, By: w.NextStepAt}
	case withdraw.Submitting:
		return next{What: "Signed and sent, once. The worker records the exchange's answer.", Owner: worker, By: w.NextStepAt}
	case withdraw.Unknown:
		return next{
			What:  "The exchange's answer was lost, so it may or may not have been accepted. The worker reads the exchange's own list until that is proven; nothing is sent meanwhile.",
			Owner: worker, By: w.NextStepAt,
			May: []string{"Wait: this settles by itself, and this page shows it when it does."},
			Not: []string{"Pay this by hand or ask for it again. It may already be on its way."},
		}
	case withdraw.Absent:
		return next{
			What:  "Proven not accepted by the exchange: nothing was paid. It is sent again only after " + approvals(v) + ", and otherwise stays here.",
			Owner: "the approvers",
			May:   []string{"Vote afresh. Earlier votes no longer count.", "Cancel it, when the payout is no longer wanted."},
			Not:   []string{"Ask for the same payout again while this one is open. Both could be paid."},
		}
	case withdraw.Submitted:
		return next{What: "The exchange has accepted it. The worker follows it until the exchange has finished.", Owner: worker, By: w.NextStepAt}
	case withdraw.Held:
		h := next{
			What:  "Stopped. Nothing is sent until a person has decided.",
			Owner: "the operators of account " + w.Account,
			Not:   []string{"Ask for the same payout again before this one has ended. Both could be paid."},
		}
		if w.ExchangeID == nil {
			h.May = []string{"Cancel it, when nothing of it is at the exchange."}
		} else {
			h.May = []string{fmt.Sprintf("Look up withdrawal %d at the exchange. Sluice follows it and moves on when it changes there.", *w.ExchangeID)}
		}
		return h
	case withdraw.Completed:
		return next{What: "Paid. The exchange has finished it and nothing is left to do."}
	case withdraw.Failed:
		return next{What: "Ended without a payment.", Owner: "the requester", May: []string{"Ask again with a new request, when the payout is still wanted."}}
	case withdraw.Rejected:
		return next{What: "Stopped by a vote. Nothing was sent."}
	case withdraw.Cancelled:
		return next{What: "Taken back. Nothing is sent any more."}
	case withdraw.Expired:
		return next{What: "Its time ran out before it was sent. Nothing was paid.", Owner: "the requester", May: []string{"Ask again with a new request, when the payout is still wanted."}}
	}
	return next{What: "This state has no description."}
}

// approvals is "1 more approval", or what else stands in the way.
func approvals(v *approval.Verdict) string {
	switch {
	case v == nil:
		return "approvals"
	case v.Standing == approval.Invalid:
		return "somebody to look into its votes: they do not verify"
	case v.Standing == approval.Lapsed:
		return "nothing any more: its time has run out"
	case v.Missing == 1:
		return "1 more approval"
	}
	return strconv.Itoa(v.Missing) + " more approvals"
}

// brief is nextOf in the width of a table cell.
func brief(w withdraw.Withdrawal, v *approval.Verdict) string {
	switch w.State {
	case withdraw.Refused, withdraw.Failed, withdraw.Held:
		return sentence(w.Reason)
	case withdraw.Pending:
		return "Needs " + approvals(v)
	case withdraw.Absent:
		return "Not paid, proven. Needs " + approvals(v)
	case withdraw.Approved:
		return "The worker checks it again and sends it"
	case withdraw.Submitting:
		return "Sent; the answer is being recorded"
	case withdraw.Unknown:
		return "Answer lost. Reading the exchange's list; do not pay by hand"
	case withdraw.Submitted:
		if w.ExchangeStatus != "" {
			return "At the exchange: " + plain(w.ExchangeStatus)
		}
		return "At the exchange"
	case withdraw.Completed:
		return "Paid"
	case withdraw.Rejected:
		return "Stopped by a vote"
	case withdraw.Cancelled:
		return "Taken back"
	case withdraw.Expired:
		return "Time ran out before it was sent"
	}
	return ""
}

// stage is one of the four steps at the head of a withdrawal's page.
type stage struct {
	Name, Class string // class: "past", "here", "stop", "ended" or ""
}

func stages(w withdraw.Withdrawal, sent bool) []stage {
	at, class := 0, "here"
	switch w.State {
	case withdraw.Refused:
		at, class = 0, "ended"
	case withdraw.Pending:
		at = 1
	case withdraw.Absent:
		at, class = 1, "stop"
	case withdraw.Rejected:
		at, class = 1, "ended"
	case withdraw.Expired, withdraw.Cancelled:
		if at, class = 1, "ended"; sent {
			at = 2
		}
	case withdraw.Approved, withdraw.Submitting, withdraw.Submitted:
		at = 2
	case withdraw.Unknown, withdraw.Held:
		at, class = 2, "stop"
	case withdraw.Failed:
		at, class = 2, "stop"
	case withdraw.Completed:
		at, class = 3, "past"
	}
	list := []stage{{Name: "Request"}, {Name: "Votes"}, {Name: "Exchange"}, {Name: "Paid"}}
	for i := range list[:at] {
		list[i].Class = "past"
	}
	list[at].Class = class
	return list
}

// outcomes says what an attempt's outcome means.
var outcomes = map[string]struct {
	Tone tone
	Text string
}{
	"open":         {going, "Written and possibly sent; no answer recorded yet."},
	"unknown":      {care, "The answer was lost. Only the exchange's own list can tell."},
	"accepted":     {done, "The exchange accepted it."},
	"not_accepted": {still, "The exchange's answer proves that it was not accepted."},
	"absent":       {still, "Proven not accepted: absent from the exchange's list after the quiet period."},
}

// plain makes a program's word readable: "not_accepted" → "not accepted".
func plain(s string) string {
	return strings.NewReplacer("_", " ", ".", " ").Replace(s)
}

// span is a length of time in at most two units. sluice.js has the same rule.
func span(d time.Duration) string {
	s := int(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return "under 1 min"
	case s < 3600:
		return fmt.Sprintf("%d min", s/60)
	case s < 48*3600:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	}
	return fmt.Sprintf("%d days", s/86400)
}

// quad cuts text into groups of four characters, for eyes that compare it with
// another screen. The text itself is unchanged.
func quad(s string) []string {
	var groups []string
	for r := []rune(s); len(r) > 0; {
		n := min(4, len(r))
		groups = append(groups, string(r[:n]))
		r = r[n:]
	}
	return groups
}

// digits cuts the whole part of an amount into thousands; rest is the last group
// with the decimals.
func digits(amount string) (groups []string, rest string) {
	amount, negative := strings.CutPrefix(amount, "-") // a futures wallet can owe
	whole, decimals, found := strings.Cut(amount, ".")
	for len(whole) > 3 {
		n := (len(whole)-1)%3 + 1
		groups, whole = append(groups, whole[:n]), whole[n:]
	}
	if found {
		whole += "." + decimals
	}
	switch {
	case negative && len(groups) > 0:
		groups[0] = "-" + groups[0]
	case negative:
		whole = "-" + whole
	}
	return groups, whole
}

// short is an address for a table: its head and its tail. It is never shown
// without the label or the way to the full address, because another address may
// share both ends.
func short(address string) string {
	r := []rune(address)
	if len(r) <= 16 {
		return address
	}
	return string(r[:6]) + "…" + string(r[len(r)-6:])
}

// detailOf reads the detail of an audit event's body.
func detailOf(body []byte) map[string]any {
	var e struct {
		Detail map[string]any `json:"detail"`
	}
	// A body that cannot be read is still shown whole, in its own words.
	_ = json.Unmarshal(body, &e)
	return e.Detail
}
