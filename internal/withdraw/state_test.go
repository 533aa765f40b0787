package withdraw_test

import (
	"slices"
	"testing"

	"sluice/internal/withdraw"
)

// reach returns the states that can follow s, s itself not counted unless it comes
// round again, without ever passing through a state of without.
func reach(s withdraw.State, without ...withdraw.State) map[withdraw.State]bool {
	seen := map[withdraw.State]bool{}
	open := []withdraw.State{s}
	for len(open) > 0 {
		from := open[0]
		open = open[1:]
		for _, m := range withdraw.Moves {
			if m.From == from && !seen[m.To] && !slices.Contains(without, m.To) {
				seen[m.To] = true
				open = append(open, m.To)
			}
		}
	}
	return seen
}

// The accident that the whole product is built against: after bytes may have reached
// the exchange, the only way to a second submission leads through a proven
// absence and a fresh quorum.
func TestNothingIsSentTwiceWithoutProofAndVotes(t *testing.T) {
	if !reach(withdraw.Submitting)[withdraw.Submitting] {
		t.Fatal("the way through absent is gone; this test would prove nothing")
	}
	for _, s := range withdraw.States() {
		if s == withdraw.Refused || s == withdraw.Pending || s == withdraw.Approved {
			continue // nothing has been sent
		}
		if reach(s, withdraw.Absent)[withdraw.Submitting] && s != withdraw.Absent {
			t.Errorf("%s leads to a second submission without a proven absence", s)
		}
	}
	for _, m := range withdraw.Moves {
		if m.To == withdraw.Submitting && m.From != withdraw.Approved {
			t.Errorf("%s is submitted without approval", m.From)
		}
		if m.To == withdraw.Approved && (m.From != withdraw.Pending && m.From != withdraw.Absent || !slices.Equal(m.By, []withdraw.Process{withdraw.API})) {
			t.Errorf("%s is approved by %s: only votes approve, and only before anything was sent or when it is proven absent", m.From, m.By)
		}
		if m.To == withdraw.Absent && m.From != withdraw.Unknown {
			t.Errorf("%s is called absent without having been looked for", m.From)
		}
		if slices.Contains(m.By, withdraw.API) && slices.Contains([]withdraw.State{
			withdraw.Submitting, withdraw.Unknown, withdraw.Submitted, withdraw.Completed, withdraw.Failed}, m.To) {
			t.Errorf("the api says what happened at the exchange: %s to %s", m.From, m.To)
		}
		if (m.From == withdraw.Submitting || m.From == withdraw.Unknown || m.From == withdraw.Submitted) &&
			(m.To == withdraw.Cancelled || m.To == withdraw.Expired || m.To == withdraw.Rejected) {
			t.Errorf("%s ends as %s while the exchange may have it", m.From, m.To)
		}
	}
}

// Every pair of states, written out: the letters say who may make the move. A change
// of Moves that nobody thought about fails here.
func TestEveryPairOfStates(t *testing.T) {
	allowed := map[withdraw.State]map[withdraw.State]string{
		withdraw.Pending:    {withdraw.Approved: "a", withdraw.Rejected: "a", withdraw.Cancelled: "a", withdraw.Expired: "aw"},
		withdraw.Approved:   {withdraw.Submitting: "w", withdraw.Cancelled: "a", withdraw.Expired: "w", withdraw.Held: "w"},
		withdraw.Submitting: {withdraw.Submitted: "w", withdraw.Unknown: "w", withdraw.Failed: "w", withdraw.Held: "w"},
		withdraw.Unknown:    {withdraw.Submitted: "w", withdraw.Absent: "w", withdraw.Held: "w"},
		withdraw.Absent:     {withdraw.Approved: "a", withdraw.Cancelled: "a", withdraw.Held: "w"},
		withdraw.Submitted:  {withdraw.Completed: "w", withdraw.Failed: "w", withdraw.Held: "w"},
		withdraw.Held:       {withdraw.Submitted: "w", withdraw.Failed: "w", withdraw.Completed: "w", withdraw.Cancelled: "a"},
	}
	got := map[withdraw.State]map[withdraw.State]string{}
	for _, m := range withdraw.Moves {
		if got[m.From] == nil {
			got[m.From] = map[withdraw.State]string{}
		}
		if _, twice := got[m.From][m.To]; twice {
			t.Errorf("%s to %s is listed twice", m.From, m.To)
		}
		by := ""
		for _, p := range m.By {
			by += string(p[0])
		}
		got[m.From][m.To] = by
		if m.Why == "" || by == "" {
			t.Errorf("%s to %s: who %q, why %q", m.From, m.To, by, m.Why)
		}
	}
	for _, from := range withdraw.States() {
		for _, to := range withdraw.States() {
			if got[from][to] != allowed[from][to] {
				t.Errorf("%s to %s: moved by %q, want %q", from, to, got[from][to], allowed[from][to])
			}
			if before := slices.Contains(withdraw.Before(to), from); before != (allowed[from][to] != "") {
				t.Errorf("Before(%s) says %v of %s", to, before, from)
			}
		}
		if from.Final() != (allowed[from] == nil) {
			t.Errorf("%s: final is %v", from, from.Final())
		}
	}
}

func TestEveryRequestCanReachAnEnd(t *testing.T) {
	for _, s := range withdraw.States() {
		ends := 0
		for next := range reach(s) {
			if next.Final() {
				ends++
			}
		}
		if s.Final() != (ends == 0) {
			t.Errorf("%s: final %v, and leads to %d ends", s, s.Final(), ends)
		}
	}
	known := withdraw.States()
	for _, m := range withdraw.Moves {
		if !slices.Contains(known, m.From) || !slices.Contains(known, m.To) || m.From == m.To {
			t.Errorf("%s to %s", m.From, m.To)
		}
	}
	born := reach(withdraw.Pending)
	for _, s := range known {
		if s != withdraw.Pending && s != withdraw.Refused && !born[s] {
			t.Errorf("%s is never reached", s)
		}
	}
}
