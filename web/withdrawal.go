package web

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"sluice/internal/approval"
	"sluice/internal/audit"
	"sluice/internal/fault"
	"sluice/internal/identity"
	"sluice/internal/pgstore"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

type withdrawalView struct {
	withdraw.Withdrawal
	Requester   string
	Destination *whitelist.Destination
	AttestedBy  string
	Stages      []stage
	Next        next
	Verdict     *approval.Verdict // nil when nothing was ever sealed
	Votes       []withdraw.VoteRow
	Earlier     []withdraw.VoteRow // of earlier rounds
	Attempts    []withdraw.Attempt
	Timeline    []event
	Vote        ballot
	MayCancel   bool
}

// ballot is what the viewer may do about votes.
type ballot struct {
	Open   bool   // the withdrawal takes votes
	May    bool   // this viewer's vote would count
	Why    string // why not
	Demo   string // name of the demo person whose software passkey signs; "" for real passkeys
	Digest string // what the page shows, for the server to compare with what it asks to sign
}

// event is one line of a timeline.
type event struct {
	pgstore.EventRow
	Who    string
	Text   string
	Reason string
	Tone   tone
}

func (s *site) withdrawalPage(w http.ResponseWriter, r *http.Request) {
	id, err := idOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	view, err := s.withdrawal(r.Context(), id, viewerOf(r))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	title := fmt.Sprintf("%s %s, %s", newAmount(view.Amount, "").plain(), view.Asset, view.State)
	s.show(w, r, http.StatusOK, "withdrawal", page{Title: title, Nav: "withdrawals", Live: id.String(), Body: view})
}

// plain is the amount as its digits.
func (a amountView) plain() string { return strings.Join(a.Groups, "") + a.Rest }

// withdrawal gathers all that is known of one.
func (s *site) withdrawal(ctx context.Context, id uuid.UUID, me *viewer) (withdrawalView, error) {
	w, err := s.Store.Withdrawal(ctx, id)
	if err != nil {
		return withdrawalView{}, err
	}
	names := s.names()
	view := withdrawalView{Withdrawal: w, Requester: names.of(ctx, w.Requester)}
	if w.DestinationID != nil {
		d, err := s.Store.Destination(ctx, *w.DestinationID)
		if err != nil {
			return view, err
		}
		view.Destination, view.AttestedBy = &d, names.of(ctx, d.AttestedBy)
	}
	if w.Digest != nil {
		if view.Verdict, err = s.verdict(ctx, w); err != nil {
			return view, err
		}
	}
	votes, err := s.Store.Votes(ctx, id)
	if err != nil {
		return view, err
	}
	for _, v := range votes {
		if v.Round == w.Round {
			view.Votes = append(view.Votes, v)
		} else {
			view.Earlier = append(view.Earlier, v)
		}
	}
	if view.Attempts, err = s.Store.Attempts(ctx, id); err != nil {
		return view, err
	}
	events, err := s.Store.EventsOf(ctx, id)
	if err != nil {
		return view, err
	}
	for _, e := range slices.Backward(events) {
		view.Timeline = append(view.Timeline, told(e, names.of(ctx, e.Actor)))
	}
	view.Stages = stages(w, len(view.Attempts) > 0)
	view.Next = nextOf(w, view.Verdict, s.Now())
	view.Vote = ballotOf(w, view.Verdict, view.Votes, me)
	view.MayCancel = mayCancel(w, view.Attempts, me)
	return view, nil
}

// ballotOf says whether a person's vote would count now, and if not, why not. The store
// asks the same again when the vote arrives.
func ballotOf(w withdraw.Withdrawal, v *approval.Verdict, votes []withdraw.VoteRow, me *viewer) ballot {
	if (w.State != withdraw.Pending && w.State != withdraw.Absent) || v == nil {
		return ballot{}
	}
	b := ballot{Open: true, Digest: v.Digest.String()}
	if me.Software {
		b.Demo = me.Name
	}
	mine := slices.IndexFunc(votes, func(x withdraw.VoteRow) bool { return x.Person == me.ID })
	needed := fmt.Sprintf("It needs %d approvals from others.", v.Terms.Quorum.Approve)
	why, ok := approval.MayVote(approval.Person{ID: me.ID.String(), Approver: me.Can(identity.Approver), Disabled: me.Disabled}, v.Terms)
	switch {
	case v.Standing == approval.Invalid:
		b.Why = "The recorded votes do not verify, so nobody can vote here. Stop, and tell an admin."
	case v.Standing == approval.Lapsed:
		b.Open, b.Why = false, "The time for votes has passed."
	case mine >= 0 && votes[mine].Decision == string(approval.Approve):
		b.Why = "You have approved this. One person, one vote: someone else must vote now."
	case mine >= 0:
		b.Why = "You have voted on this."
	case w.Requester == me.Actor():
		b.Why = "You asked for this withdrawal, so your vote does not count. " + needed
	case !me.Can(identity.Approver):
		b.Why = "You are not an approver, so you can read this and not vote on it. " + needed
	case !ok:
		b.Why = "Your vote would not count: " + why + "."
	default:
		b.May = true
	}
	return b
}

// mayStop tells whether a person may take a withdrawal back: whoever asked for it
// at any time, and, once votes no longer can, any approver or admin alone. To stop a
// payout must never need more people than to start one.
func mayStop(w withdraw.Withdrawal, me *viewer) bool {
	if w.Requester == me.Actor() && me.Can(identity.Requester) {
		return true
	}
	return w.State != withdraw.Pending && (me.Can(identity.Approver) || me.Can(identity.Admin))
}

// mayCancel tells whether the viewer sees the button: they may stop it, and nothing
// of it is at the exchange or may be. The store asks again.
func mayCancel(w withdraw.Withdrawal, attempts []withdraw.Attempt, me *viewer) bool {
	if !slices.Contains(withdraw.Before(withdraw.Cancelled), w.State) || !mayStop(w, me) {
		return false
	}
	return !slices.ContainsFunc(attempts, func(a withdraw.Attempt) bool {
		return a.Outcome == "open" || a.Outcome == "unknown" || a.Outcome == "accepted"
	})
}

func (s *site) cancel(w http.ResponseWriter, r *http.Request) {
	id, err := idOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, badBody(err))
		return
	}
	me := viewerOf(r)
	wd, err := s.Store.Withdrawal(r.Context(), id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if !mayStop(wd, me) {
		s.fail(w, r, fault.New(fault.Forbidden, "not_your_request", "this withdrawal is not yours to take back",
			"an approver can reject it while it waits for votes, and cancel it afterwards"))
		return
	}
	reason, err := reasonOf(r.PostForm.Get("reason"), "taken back")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if _, err := s.Store.Cancel(r.Context(), id, me.Actor(), reason, s.Now()); err != nil {
		s.fail(w, r, err)
		return
	}
	http.Redirect(w, r, "/withdrawals/"+id.String(), http.StatusSeeOther)
}

func idOf(r *http.Request) (uuid.UUID, error) {
	id, err := uuid.Parse(r.PathValue("id"))
	if err != nil {
		return id, fault.New(fault.NotFound, "withdrawal_not_found", "there is no withdrawal by that name", "check the id")
	}
	return id, nil
}

// told is an event in words. What this list does not know is told by its own name,
// so that nothing that happened can be missing from a page.
func told(e pgstore.EventRow, who string) event {
	detail := detailOf(e.Body)
	text := func(key string) string { s, _ := detail[key].(string); return s }
	t := event{EventRow: e, Who: who, Reason: text("reason"), Tone: still}
	switch e.Action {
	case "withdrawal.requested":
		t.Text, t.Tone = "asked for this withdrawal", wait
	case "withdrawal.refused":
		t.Text = "asked for this withdrawal, and intake refused it"
		if code := text("code"); code != "" && t.Reason == "" {
			t.Reason = plain(code)
		}
	case "vote.cast":
		t.Text, t.Tone = "approved", done
		if text("decision") == string(approval.Reject) {
			t.Text, t.Tone = "rejected", care
		}
	case "withdrawal.approved":
		t.Text, t.Tone = "gave the last approval that was needed", done
	case audit.SubmissionAttempted:
		t.Text, t.Tone = "checked everything again and wrote down the attempt", going
	case audit.SubmissionAccepted:
		t.Text, t.Tone = "has the exchange's acceptance", going
	case audit.SubmissionNotAccepted:
		t.Text, t.Tone = "was refused by the exchange", care
	case audit.SubmissionUnknown:
		t.Text, t.Tone = "lost the exchange's answer and began to look for the payout", care
	case audit.SubmissionAbsent:
		t.Text, t.Tone = "proved that the exchange did not accept it", care
	case "exchange.status":
		t.Text, t.Tone = "read that the exchange is at “"+plain(text("status"))+"”", going
	case "withdrawal.waiting":
		t.Text, t.Tone = "waits to send it", wait
	case "withdrawal.submitted":
		t.Text, t.Tone = "follows it at the exchange again", going
	case "withdrawal.held":
		t.Text, t.Tone = "stopped it for a person to decide", care
	case "withdrawal.completed":
		t.Text, t.Tone = "saw the exchange finish it", done
	case "withdrawal.failed":
		t.Text, t.Tone = "saw it end without a payment", care
	case "withdrawal.rejected":
		t.Text = "stopped it with that vote"
	case "withdrawal.cancelled":
		t.Text = "took it back"
	case "withdrawal.expired":
		t.Text = "found that its time had run out"
	default:
		t.Text = plain(e.Action)
	}
	return t
}

// reasonOf is a reason as typed, or another when nothing was. The schema holds 500
// characters.
func reasonOf(typed, otherwise string) (string, error) {
	typed = strings.TrimSpace(strings.ReplaceAll(typed, "\r\n", "\n"))
	if typed == "" {
		return otherwise, nil
	}
	if !plainText(typed) {
		return "", fault.New(fault.Invalid, "reason_malformed", "the reason is longer than 500 characters or holds characters that cannot be shown",
			"write it in plain text, up to 500 characters").On("reason")
	}
	return typed, nil
}
