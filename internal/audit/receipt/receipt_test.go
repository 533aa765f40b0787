package receipt_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"sluice/internal/approval"
	"sluice/internal/audit"
	"sluice/internal/audit/receipt"
	"sluice/internal/audit/receipt/receipttest"
	"sluice/internal/canonical"
	"sluice/internal/fault"
	"sluice/internal/withdraw"
)

func newSigner(t testing.TB) *audit.Signer {
	t.Helper()
	text, _, err := audit.NewKey("test")
	if err != nil {
		t.Fatal(err)
	}
	s, err := audit.NewSigner(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPaidReceiptProvesThePayout(t *testing.T) {
	signer := newSigner(t)
	s := receipttest.Paid()
	b, err := s.Receipt(signer).Encode()
	if err != nil {
		t.Fatal(err)
	}
	r, err := receipt.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	report, err := receipt.Verify(r, signer.VerifierText(), receipttest.Site)
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(report.Failures, "\n"))
	}
	if report.State != withdraw.Completed {
		t.Errorf("state %s", report.State)
	}
	proven := strings.Join(report.Proven, "\n")
	for _, want := range []string{
		"25.5 USDT on TRC20 to TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", "at most 2.4 USDT",
		"ana and bo had approved round 1", "did not accept attempt 1", "accepted attempt 2 as its withdrawal 31200001",
		"in transaction 9f3c", "the withdrawal is completed",
	} {
		if !strings.Contains(proven, want) {
			t.Errorf("the report does not say %q:\n%s", want, proven)
		}
	}
}

// detail changes a member of an event's detail.
func detail(s *receipttest.Story, action string, n int, key string, value any) {
	e := &s.Events[s.Find(action, n)]
	e.Detail = cloneWith(e.Detail, key, value)
}

func cloneWith(o canonical.Object, key string, value any) canonical.Object {
	c := canonical.Object{}
	for k, v := range o {
		c[k] = v
	}
	c[key] = value
	return c
}

// send replaces the bytes of the last attempt, and what the log says of them.
func send(s *receipttest.Story, from, to string) {
	a := &s.Attempts[len(s.Attempts)-1]
	a.Body = bytes.Replace(a.Body, []byte(from), []byte(to), 1)
	detail(s, audit.SubmissionAttempted, 1, "body_sha256", audit.HexSHA256(a.Body))
}

// recast replaces a vote and its event.
func recast(s *receipttest.Story, n int, v approval.Vote) {
	s.Votes[n] = v
	e := &s.Events[s.Find(audit.VoteCast, n)]
	e.Actor, e.Detail = "person:"+v.Person, audit.VoteDetail(approval.DigestOf(s.Sealed), v)
}

// Each of these logs is signed by the right key: somebody inside wrote it. What
// it says must still hold together.
func TestSignedLogThatDoesNotHoldTogetherIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *receipttest.Story)
		want   string
	}{
		"another address was sent":       {func(s *receipttest.Story) { send(s, "TJRab", "TJRaB") }, "address"},
		"another amount was sent":        {func(s *receipttest.Story) { send(s, "25.5", "27.9") }, "net amount"},
		"the amount in another spelling": {func(s *receipttest.Story) { send(s, "25.5", "25.50") }, "net amount"},
		"another asset was sent":         {func(s *receipttest.Story) { send(s, "USDT", "USDC") }, "asset"},
		"another chain was sent":         {func(s *receipttest.Story) { send(s, "TRC20", "ERC20") }, "chain"},
		"another method was sent":        {func(s *receipttest.Story) { send(s, "on_chain", "inter_user") }, "method"},
		"a memo was sent":                {func(s *receipttest.Story) { send(s, `"amount"`, `"memo":"1","amount"`) }, "memo"},
		"another remark was sent":        {func(s *receipttest.Story) { send(s, "slc-", "slx-") }, "remark"},
		"an unknown member was sent": {func(s *receipttest.Story) {
			send(s, `"amount"`, `"fee_ccy":"CET","amount"`)
		}, "known form"},
		"a member was sent twice": {func(s *receipttest.Story) {
			send(s, `{`, `{"to_address":"TJRabPrwbZy45sbavfcjinPJC18kjpRTv8",`)
		}, "known form"},
		"bytes that are not JSON were sent": {func(s *receipttest.Story) { send(s, "{", "[") }, "known form"},

		"one vote only": {func(s *receipttest.Story) {
			s.Drop(s.Find(audit.VoteCast, 1))
			s.Votes = s.Votes[:1]
		}, "when it was made, the votes left the proposal open"},
		"a vote that came after the submission": {func(s *receipttest.Story) {
			s.Move(s.Find(audit.VoteCast, 1), s.Find(audit.SubmissionAttempted, 1)+1)
		}, "when it was made, the votes left the proposal open"},
		"one person votes twice": {func(s *receipttest.Story) {
			recast(s, 1, s.Approvers[0].Vote(approval.Approve, approval.DigestOf(s.Sealed), s.Votes[1].CastAt))
		}, "a second vote"},
		"a vote over something else": {func(s *receipttest.Story) {
			recast(s, 1, s.Approvers[1].Vote(approval.Approve, approval.DigestOf([]byte("something else")), s.Votes[1].CastAt))
		}, "signs another challenge"},
		"a rejection shown as an approval": {func(s *receipttest.Story) {
			v := s.Approvers[1].Vote(approval.Reject, approval.DigestOf(s.Sealed), s.Votes[1].CastAt)
			v.Decision = approval.Approve
			recast(s, 1, v)
		}, "signs another challenge"},
		"a rejection that nobody heeded": {func(s *receipttest.Story) {
			recast(s, 1, s.Approvers[1].Vote(approval.Reject, approval.DigestOf(s.Sealed), s.Votes[1].CastAt))
		}, "the votes left the proposal rejected"},
		"a vote of somebody unknown": {func(s *receipttest.Story) {
			recast(s, 1, receipttest.NewApprover("eve").Vote(approval.Approve, approval.DigestOf(s.Sealed), s.Votes[1].CastAt))
		}, "nobody by that id"},
		"a vote with another person's passkey": {func(s *receipttest.Story) {
			v := receipttest.NewApprover("eve").Vote(approval.Approve, approval.DigestOf(s.Sealed), s.Votes[1].CastAt)
			v.Person, v.Passkey = s.Approvers[1].ID.String(), s.Approvers[1].Passkey
			recast(s, 1, v)
		}, "the signature does not verify"},
		"a vote recorded by somebody else": {func(s *receipttest.Story) {
			s.Events[s.Find(audit.VoteCast, 1)].Actor = "client:payroll"
		}, "recorded by somebody else"},
		"a voter who is no approver": {func(s *receipttest.Story) {
			detail(s, audit.PasskeyEnrolled, 1, "roles", []string{"auditor"})
		}, "is not an approver"},
		"a passkey enrolled after the vote counted": {func(s *receipttest.Story) {
			s.Move(s.Find(audit.PasskeyEnrolled, 1), len(s.Events)-1)
		}, "the passkey is not theirs"},
		"a passkey revoked before the submission": {func(s *receipttest.Story) {
			a := s.Approvers[1]
			e := audit.NewEvent(s.Events[0].At, "operator:root", audit.PasskeyRevoked, uuid.Nil,
				canonical.Object{"person": a.ID.String(), "passkey": audit.Binary(a.Passkey)})
			s.Events = slices.Insert(s.Events, s.Find(audit.SubmissionAttempted, 0), e)
		}, "the passkey has been revoked"},
		"a voter who had left before the submission": {func(s *receipttest.Story) {
			e := audit.NewEvent(s.Events[0].At, "operator:root", audit.PersonDisabled, uuid.Nil,
				canonical.Object{"person": s.Approvers[0].ID.String()})
			s.Events = slices.Insert(s.Events, s.Find(audit.SubmissionAttempted, 0), e)
		}, "the person has left"},
		"submitted after the proposal's end": {func(s *receipttest.Story) {
			s.Events[s.Find(audit.SubmissionAttempted, 1)].At = s.Proposal.ExpiresAt
		}, "the votes left the proposal lapsed"},
		"an approval without its votes": {func(s *receipttest.Story) {
			s.Drop(s.Find(audit.VoteCast, 0))
			s.Votes = s.Votes[1:]
		}, "the votes say open"},
		"approved twice": {func(s *receipttest.Story) {
			e := s.Events[s.Find(audit.WithdrawalApproved, 0)]
			s.Events = slices.Insert(s.Events, s.Find(audit.SubmissionAttempted, 0), audit.NewEvent(e.At, e.Actor, e.Action, e.Withdrawal, e.Detail))
		}, `that is "approved" cannot become "approved"`},
		"an approval of another proposal": {func(s *receipttest.Story) {
			detail(s, audit.WithdrawalApproved, 0, "digest", strings.Repeat("0", 64))
		}, "does not hold"},
		"a rejection that nobody cast": {func(s *receipttest.Story) {
			s.Events[s.Find(audit.WithdrawalApproved, 0)].Action = audit.WithdrawalRejected
			s.Events, s.Attempts = s.Events[:s.Find(audit.SubmissionAttempted, 0)], nil
		}, "the votes say approved"},
		"a forged vote that decided nothing": {func(s *receipttest.Story) {
			recast(s, 1, s.Approvers[1].Vote(approval.Approve, approval.DigestOf([]byte("something else")), s.Votes[1].CastAt))
			s.Events, s.Attempts = s.Events[:s.Find(audit.WithdrawalApproved, 0)], nil
		}, "round 1: vote of bo: it signs another challenge"},

		"a second attempt while the first may live": {func(s *receipttest.Story) {
			s.Drop(s.Find(audit.SubmissionNotAccepted, 0))
		}, "money leaves twice"},
		"an attempt over another proposal": {func(s *receipttest.Story) {
			detail(s, audit.SubmissionAttempted, 1, "digest", strings.Repeat("0", 64))
		}, "does not hold"},
		"an attempt number twice": {func(s *receipttest.Story) { detail(s, audit.SubmissionAttempted, 1, "number", 1) }, "out of order"},
		"an attempt that says not when": {func(s *receipttest.Story) {
			detail(s, audit.SubmissionAttempted, 1, "signed_at", "today")
		}, "when it was signed"},
		"an answer to no attempt": {func(s *receipttest.Story) {
			detail(s, audit.SubmissionAccepted, 0, "attempt", uuid.NewString())
		}, "never made"},
		"accepted under no id": {func(s *receipttest.Story) { detail(s, audit.SubmissionAccepted, 0, "exchange_id", 0) }, "no id"},
		"an answer that changes": {func(s *receipttest.Story) {
			detail(s, audit.SubmissionAccepted, 0, "attempt", s.Attempts[0].ID.String())
		}, "and then again"},
		"another id completed":          {func(s *receipttest.Story) { detail(s, audit.WithdrawalCompleted, 0, "exchange_id", 7) }, "no accepted attempt"},
		"a number in a string":          {func(s *receipttest.Story) { detail(s, audit.WithdrawalCompleted, 0, "exchange_id", "31200001") }, "another form"},
		"completed and never submitted": {func(s *receipttest.Story) { s.Drop(s.Find(audit.SubmissionAccepted, 0)) }, `cannot become "completed"`},
		"submitted and never approved":  {func(s *receipttest.Story) { s.Drop(s.Find(audit.WithdrawalApproved, 0)) }, `cannot become "submitting"`},
		"requested twice": {func(s *receipttest.Story) {
			e := s.Events[s.Find(audit.WithdrawalRequested, 0)]
			s.Events = append(s.Events, audit.NewEvent(e.At, e.Actor, e.Action, e.Withdrawal, e.Detail))
		}, `cannot become "pending"`},
		"never requested": {func(s *receipttest.Story) { s.Drop(s.Find(audit.WithdrawalRequested, 0)) }, "first event"},
		"another requester": {func(s *receipttest.Story) {
			s.Events[s.Find(audit.WithdrawalRequested, 0)].Actor = "client:other"
		}, "requester"},
		"another proposal requested": {func(s *receipttest.Story) {
			detail(s, audit.WithdrawalRequested, 0, "digest", strings.Repeat("0", 64))
		}, "not the one that the log names"},
		"a proposal in another form": {func(s *receipttest.Story) { s.Sealed = append(s.Sealed, ' ') }, "canonical form"},
	} {
		t.Run(name, func(t *testing.T) {
			signer := newSigner(t)
			s := receipttest.Paid()
			c.change(s)
			refused(t, s.Receipt(signer), signer.VerifierText(), receipttest.Site, c.want)
		})
	}
}

func TestRequesterNeverCounts(t *testing.T) {
	signer := newSigner(t)
	s := receipttest.Paid()
	requester := "person:" + s.Approvers[0].ID.String()
	p := s.Proposal
	p.Requester = requester
	sealed, err := p.Seal()
	if err != nil {
		t.Fatal(err)
	}
	s.Proposal, s.Sealed = p, sealed
	digest := approval.DigestOf(sealed).String()
	s.Events[s.Find(audit.WithdrawalRequested, 0)].Actor = requester
	for action, n := range map[string]int{audit.WithdrawalRequested: 1, audit.WithdrawalApproved: 1, audit.SubmissionAttempted: 2} {
		for i := range n {
			detail(s, action, i, "digest", digest)
		}
	}
	for i, a := range s.Approvers {
		recast(s, i, a.Vote(approval.Approve, approval.DigestOf(sealed), s.Votes[i].CastAt))
	}
	refused(t, s.Receipt(signer), signer.VerifierText(), receipttest.Site, "whoever asked for a withdrawal never counts")
}

func refused(t *testing.T, r receipt.Receipt, key string, site approval.Relying, want string) {
	t.Helper()
	report, err := receipt.Verify(r, key, site)
	if !fault.Is(err, "receipt_invalid") {
		t.Fatalf("got %v, want receipt_invalid", err)
	}
	if all := strings.Join(report.Failures, "\n"); !strings.Contains(all, want) {
		t.Errorf("no failure says %q:\n%s", want, all)
	}
}

// These documents were changed after the export, or are not what the reader
// thinks they are.
func TestChangedDocumentIsRefused(t *testing.T) {
	other := receipttest.Paid()
	for name, c := range map[string]struct {
		change func(r *receipt.Receipt)
		want   string
	}{
		"another withdrawal":      {func(r *receipt.Receipt) { r.Withdrawal = other.Proposal.ID }, "another withdrawal"},
		"another site":            {func(r *receipt.Receipt) { r.Site.ID = "example.com" }, "passkeys of"},
		"another origin":          {func(r *receipt.Receipt) { r.Site.Origins = []string{"https://example.com"} }, "passkeys of"},
		"hardware passkeys":       {func(r *receipt.Receipt) { r.Site.Software = false }, "passkeys of"},
		"another log":             {func(r *receipt.Receipt) { r.Checkpoint = other.Log(newSigner(t)).Note }, "not signed by"},
		"no checkpoint":           {func(r *receipt.Receipt) { r.Checkpoint = "" }, "not signed by"},
		"no events":               {func(r *receipt.Receipt) { r.Events = nil }, "no event"},
		"another event":           {func(r *receipt.Receipt) { r.Events[0].Body = r.Roster[0].Body }, "does not lead"},
		"another leaf":            {func(r *receipt.Receipt) { r.Events[0].Leaf++ }, "does not lead"},
		"a leaf below zero":       {func(r *receipt.Receipt) { r.Roster[0].Leaf = -1 }, "order of the log"},
		"a leaf beyond the log":   {func(r *receipt.Receipt) { r.Events[len(r.Events)-1].Leaf = 1 << 62 }, "does not lead"},
		"a proof cut short":       {func(r *receipt.Receipt) { r.Events[1].Proof = r.Events[1].Proof[1:] }, "does not lead"},
		"a proof made longer":     {func(r *receipt.Receipt) { r.Events[1].Proof = append(r.Events[1].Proof, tlog.Hash{}) }, "does not lead"},
		"an endless proof":        {func(r *receipt.Receipt) { r.Events[1].Proof = make([]tlog.Hash, 100_000) }, "does not lead"},
		"events swapped":          {func(r *receipt.Receipt) { r.Events[2], r.Events[3] = r.Events[3], r.Events[2] }, "order of the log"},
		"an event twice":          {func(r *receipt.Receipt) { r.Events = slices.Insert(r.Events, 2, r.Events[2]) }, "order of the log"},
		"an event of another one": {func(r *receipt.Receipt) { r.Events = slices.Insert(r.Events, 0, r.Roster[0]) }, "another withdrawal"},
		"no vote":                 {func(r *receipt.Receipt) { r.Votes = nil }, "no assertion"},
		"a vote too many": {func(r *receipt.Receipt) {
			v := other.Votes[0]
			r.Votes = append(r.Votes, receipt.Assertion{AuthenticatorData: v.AuthenticatorData, ClientData: v.ClientData, Signature: v.Signature})
		}, "no vote of the log names"},
		"a vote twice":         {func(r *receipt.Receipt) { r.Votes = append(r.Votes, r.Votes[0]) }, "comes twice"},
		"no roster":            {func(r *receipt.Receipt) { r.Roster = nil }, "nobody by that id"},
		"no proposal":          {func(r *receipt.Receipt) { r.Proposals = nil }, "no proposal"},
		"another proposal":     {func(r *receipt.Receipt) { r.Proposals[0] = string(other.Sealed) }, "another withdrawal"},
		"a proposal twice":     {func(r *receipt.Receipt) { r.Proposals = append(r.Proposals, r.Proposals[0]) }, "of round 1"},
		"no bytes":             {func(r *receipt.Receipt) { r.Attempts = nil }, "does not hold the bytes"},
		"other bytes too many": {func(r *receipt.Receipt) { r.Attempts = append(r.Attempts, string(other.Attempts[0].Body)) }, "no event of the log names"},
	} {
		t.Run(name, func(t *testing.T) {
			signer := newSigner(t)
			r := receipttest.Paid().Receipt(signer)
			c.change(&r)
			refused(t, r, signer.VerifierText(), receipttest.Site, c.want)
		})
	}
}

// After a proven absence only fresh votes over a new digest lead to another attempt.
func TestSecondRoundNeedsItsOwnVotes(t *testing.T) {
	for name, c := range map[string]struct {
		votes int
		want  string
	}{
		"with fresh votes": {2, ""},
		"with one":         {1, "the votes left the proposal open"},
		"with none":        {0, "the votes left the proposal open"},
	} {
		t.Run(name, func(t *testing.T) {
			signer := newSigner(t)
			s := receipttest.Paid()
			s.Events = s.Events[:s.Find(audit.SubmissionAccepted, 0)]
			first := string(s.Sealed)
			s.Proposal.Round, s.Proposal.Evidence = 2, strings.Repeat("0", 64)
			sealed, err := s.Proposal.Seal()
			if err != nil {
				t.Fatal(err)
			}
			s.Sealed = sealed
			digest := approval.DigestOf(sealed)
			now := s.Events[len(s.Events)-1].At
			tell := func(actor, action string, detail canonical.Object) {
				now = now.Add(time.Second)
				s.Events = append(s.Events, audit.NewEvent(now, actor, action, s.Proposal.ID, detail))
			}
			tell("worker:main", audit.SubmissionAbsent, canonical.Object{"attempt": s.Attempts[1].ID.String(), "digest": digest.String()})
			for _, a := range s.Approvers[:c.votes] {
				v := a.Vote(approval.Approve, digest, now)
				s.Votes = append(s.Votes, v)
				tell("person:"+v.Person, audit.VoteCast, audit.VoteDetail(digest, v))
			}
			tell("worker:main", audit.WithdrawalApproved, canonical.Object{"digest": digest.String()})
			third := s.Attempt(now)
			tell("worker:main", audit.SubmissionAccepted, canonical.Object{"attempt": third.ID.String(), "exchange_id": 7})
			tell("worker:main", audit.WithdrawalCompleted, canonical.Object{"exchange_id": 7})

			r := s.Receipt(signer)
			r.Proposals = []string{first, string(sealed)}
			if c.want != "" {
				refused(t, r, signer.VerifierText(), receipttest.Site, c.want)
				return
			}
			report, err := receipt.Verify(r, signer.VerifierText(), receipttest.Site)
			if err != nil || report.State != withdraw.Completed {
				t.Errorf("%s (%v)\n%s", report.State, err, strings.Join(report.Failures, "\n"))
			}
		})
	}
}

// Who leaves after the money has been sent takes nothing back.
func TestPasskeyRevokedAfterTheSubmissionStillCounts(t *testing.T) {
	signer := newSigner(t)
	s := receipttest.Paid()
	a := s.Approvers[1]
	s.Events = slices.Insert(s.Events, s.Find(audit.SubmissionAccepted, 0),
		audit.NewEvent(s.Events[0].At, "operator:root", audit.PasskeyRevoked, uuid.Nil, canonical.Object{"person": a.ID.String(), "passkey": audit.Binary(a.Passkey)}),
		audit.NewEvent(s.Events[0].At, "operator:root", audit.PersonDisabled, uuid.Nil, canonical.Object{"person": a.ID.String()}))
	if report, err := receipt.Verify(s.Receipt(signer), signer.VerifierText(), receipttest.Site); err != nil {
		t.Errorf("%v\n%s", err, strings.Join(report.Failures, "\n"))
	}
}

func TestRosterEventsOfStrangersAreRefused(t *testing.T) {
	signer := newSigner(t)
	s := receipttest.Paid()
	eve := receipttest.NewApprover("eve")
	s.Events = slices.Insert(s.Events, 0, audit.NewEvent(s.Events[0].At, "operator:root", audit.PasskeyEnrolled, uuid.Nil,
		audit.PasskeyDetail(eve.ID, "eve", []string{"approver"}, eve.Passkey, eve.COSE(), true)))
	refused(t, s.Receipt(signer), signer.VerifierText(), receipttest.Site, "not about a voter")
}

func TestSoftwarePasskeysDoNotCountOutsideDev(t *testing.T) {
	signer := newSigner(t)
	r := receipttest.Paid().Receipt(signer)
	site := receipttest.Site
	site.Software = false
	r.Site = site
	refused(t, r, signer.VerifierText(), site, "a software passkey counts only in")
}

// The shorter lives have receipts too.
func TestReceiptsOfPayoutsThatWereNotPaid(t *testing.T) {
	event := func(s *receipttest.Story, action string, detail canonical.Object) {
		s.Events = append(s.Events, audit.NewEvent(s.Events[len(s.Events)-1].At.Add(time.Second), "worker:main", action, s.Proposal.ID, detail))
	}
	cut := func(s *receipttest.Story, action string, attempts int) {
		s.Events = s.Events[:s.Find(action, 0)]
		s.Attempts = s.Attempts[:attempts]
	}
	for want, tell := range map[withdraw.State]func(s *receipttest.Story){
		withdraw.Pending: func(s *receipttest.Story) {
			cut(s, audit.VoteCast, 0)
			s.Votes = nil
			s.Events = slices.DeleteFunc(s.Events, func(e audit.Event) bool { return slices.Contains(audit.RosterActions(), e.Action) })
		},
		withdraw.Approved: func(s *receipttest.Story) { cut(s, audit.SubmissionAttempted, 0) },
		withdraw.Unknown:  func(s *receipttest.Story) { cut(s, audit.SubmissionAccepted, 2) },
		withdraw.Submitted: func(s *receipttest.Story) {
			cut(s, audit.WithdrawalCompleted, 2)
			event(s, audit.WithdrawalHeld, nil)
			event(s, audit.WithdrawalSubmitted, nil)
		},
		withdraw.Absent: func(s *receipttest.Story) {
			cut(s, audit.SubmissionAccepted, 2)
			event(s, audit.SubmissionAbsent, canonical.Object{"attempt": s.Attempts[1].ID.String()})
		},
		withdraw.Held: func(s *receipttest.Story) {
			cut(s, audit.WithdrawalCompleted, 2)
			event(s, audit.WithdrawalHeld, nil)
			event(s, audit.WithdrawalHeld, nil)
		},
		withdraw.Failed: func(s *receipttest.Story) {
			cut(s, audit.WithdrawalCompleted, 2)
			event(s, audit.WithdrawalFailed, nil)
		},
		withdraw.Rejected: func(s *receipttest.Story) {
			cut(s, audit.WithdrawalApproved, 0)
			recast(s, 1, s.Approvers[1].Vote(approval.Reject, approval.DigestOf(s.Sealed), s.Votes[1].CastAt))
			event(s, audit.WithdrawalRejected, canonical.Object{"digest": approval.DigestOf(s.Sealed).String()})
		},
		withdraw.Refused: func(s *receipttest.Story) {
			s.Events = s.Events[:0]
			s.Events = append(s.Events, audit.NewEvent(time.Unix(1772442000, 0), "client:payroll", audit.WithdrawalRefused, s.Proposal.ID, nil))
			s.Attempts, s.Votes = nil, nil
		},
	} {
		t.Run(string(want), func(t *testing.T) {
			signer := newSigner(t)
			s := receipttest.Paid()
			tell(s)
			r := s.Receipt(signer)
			if want == withdraw.Refused {
				refused(t, r, signer.VerifierText(), receipttest.Site, "refused at the door")
				r.Proposals = nil
			}
			report, err := receipt.Verify(r, signer.VerifierText(), receipttest.Site)
			if err != nil {
				t.Fatalf("%v\n%s", err, strings.Join(report.Failures, "\n"))
			}
			if report.State != want {
				t.Errorf("state %s, want %s", report.State, want)
			}
		})
	}
}

// Whatever single bit of the file changes, the receipt no longer holds, unless
// the change was only another spelling of the very same content.
func TestEveryBitCounts(t *testing.T) {
	signer := newSigner(t)
	good, err := receipttest.Paid().Receipt(signer).Encode()
	if err != nil {
		t.Fatal(err)
	}
	original, err := receipt.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := slices.Clone(good)
		at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
		b[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		r, err := receipt.Parse(b)
		if err != nil || cmp.Equal(r, original) {
			return
		}
		if _, err := receipt.Verify(r, signer.VerifierText(), receipttest.Site); err == nil {
			t.Fatalf("byte %d changed to %q, and the receipt still holds: …%s…", at, b[at], b[max(0, at-60):min(len(b), at+60)])
		}
	})
}

// The same on the level of values: whatever leaf of the document's JSON takes
// another value, the receipt no longer holds.
func TestEveryFieldCounts(t *testing.T) {
	signer := newSigner(t)
	good, err := receipttest.Paid().Receipt(signer).Encode()
	if err != nil {
		t.Fatal(err)
	}
	original, err := receipt.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := json.Unmarshal(good, &doc); err != nil {
		t.Fatal(err)
	}
	changed := 0
	eachChange(doc, func(what string) {
		b, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		changed++
		r, err := receipt.Parse(b)
		if err != nil || cmp.Equal(r, original) { // leaf 0 is also what a missing leaf means
			return
		}
		if _, err := receipt.Verify(r, signer.VerifierText(), receipttest.Site); err == nil {
			t.Errorf("changed %s, and the receipt still holds", what)
		}
	})
	if changed < 100 {
		t.Fatalf("only %d changes were tried", changed)
	}
}

// eachChange makes one change after another, each undone before the next: text
// gets another character, numbers rise, switches flip, members go.
func eachChange(v any, try func(what string)) {
	change := func(name string, v any, set func(any)) {
		switch v := v.(type) {
		case string:
			set(v + "A")
			try(name + " (longer)")
			if v != "" {
				set("A" + v[1:])
				if v[0] != 'A' {
					try(name + " (other)")
				}
				set("")
				try(name + " (empty)")
			}
			set(v)
		case float64:
			set(v + 1)
			try(name)
			set(v)
		case bool:
			set(!v)
			try(name)
			set(v)
		default:
			eachChange(v, func(what string) { try(name + "." + what) })
		}
	}
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(keys(v)) {
			old := v[k]
			change(k, old, func(x any) { v[k] = x })
			delete(v, k)
			try(k + " (gone)")
			v[k] = old
		}
	case []any:
		for i := range v {
			change("item", v[i], func(x any) { v[i] = x })
		}
	}
}

func keys(m map[string]any) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func TestParseIsStrict(t *testing.T) {
	good, err := receipttest.Paid().Receipt(newSigner(t)).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		doc  []byte
		code string
	}{
		"an unknown member":      {bytes.Replace(good, []byte(`"site"`), []byte(`"note": 1, "site"`), 1), "receipt_unreadable"},
		"a member in capitals":   {bytes.Replace(good, []byte(`"site"`), []byte(`"SITE"`), 1), "receipt_unreadable"},
		"a member twice":         {bytes.Replace(good, []byte(`"type":`), []byte(`"type": "x", "type":`), 1), "receipt_unreadable"},
		"another type":           {bytes.Replace(good, []byte(`receipt/1"`), []byte(`receipt/2"`), 1), "receipt_unreadable"},
		"something after it":     {append(slices.Clone(good), "{}"...), "receipt_unreadable"},
		"text that is not UTF-8": {bytes.Replace(good, []byte(`localhost`), []byte("local\xffost"), 1), "receipt_unreadable"},
		"nothing":                {nil, "receipt_unreadable"},
		"a document without end": {bytes.Repeat([]byte(" "), 5<<20), "receipt_too_large"},
		"votes without end":      {[]byte(`{"type":"sluice/receipt/1","votes":[` + strings.Repeat("{},", 1000) + `{}]}`), "receipt_too_large"},
		"proposals without end":  {[]byte(`{"type":"sluice/receipt/1","proposals":[` + strings.Repeat(`"",`, 1000) + `""]}`), "receipt_too_large"},
		"attempts without end":   {[]byte(`{"type":"sluice/receipt/1","attempts":[` + strings.Repeat(`"",`, 1000) + `""]}`), "receipt_too_large"},
		"events without end":     {[]byte(`{"type":"sluice/receipt/1","events":[` + strings.Repeat(`{},`, 5000) + `{}]}`), "receipt_too_large"},
		"roster events no end":   {[]byte(`{"type":"sluice/receipt/1","roster":[` + strings.Repeat(`{},`, 5000) + `{}]}`), "receipt_too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := receipt.Parse(c.doc); !fault.Is(err, c.code) {
				t.Errorf("got %v, want %s", err, c.code)
			}
		})
	}
}

func TestVerifierKeyMustBeOne(t *testing.T) {
	r := receipttest.Paid().Receipt(newSigner(t))
	if _, err := receipt.Verify(r, "sluice/test+00000000+AAAA", receipttest.Site); !fault.Is(err, "audit_verifier_invalid") {
		t.Errorf("got %v", err)
	}
}

// vectorSigner is the same in every process: fuzzing runs in several, and a
// document of one must get past the signature in another.
func vectorSigner(t testing.TB) *audit.Signer {
	t.Helper()
	s, err := audit.NewSigner(vectorKey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Verify must not panic, and what holds must hold again after a round trip.
func FuzzVerify(f *testing.F) {
	signer := vectorSigner(f)
	good, err := receipttest.Paid().Receipt(signer).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"type":"sluice/receipt/1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := receipt.Parse(b)
		if err != nil {
			return
		}
		if _, err := receipt.Verify(r, signer.VerifierText(), receipttest.Site); err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if r, err = receipt.Parse(again); err != nil {
			t.Fatal(err)
		}
		if _, err := receipt.Verify(r, signer.VerifierText(), receipttest.Site); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzStory lets the fuzzer write events of its own into a log that the right key
// signs: whatever an insider records, verification ends without a panic.
func FuzzStory(f *testing.F) {
	signer := vectorSigner(f)
	f.Add(audit.SubmissionAttempted, `{"attempt":"x","number":1,"digest":"","remark":"","body_sha256":"","signed_at":"","window_ms":0}`, 5)
	f.Add(audit.PasskeyEnrolled, `{"person":"x","roles":["approver"],"passkey":"AA","public_key":"AA","software":true}`, 0)
	f.Add(audit.WithdrawalCompleted, `{"exchange_id":-1}`, 9)
	f.Fuzz(func(t *testing.T, action, detailJSON string, at int) {
		s := receipttest.Paid()
		body := `{"action":` + quote(action) + `,"actor":"worker:main","at":"2026-03-02T09:00:00.000Z","detail":` + detailJSON +
			`,"id":"0195566f-0000-7000-8000-000000000000","type":"sluice/event/1","withdrawal":"` + s.Proposal.ID.String() + `"}`
		e, err := audit.ParseEvent([]byte(body))
		if err != nil {
			return
		}
		if at < 0 || at > len(s.Events) {
			return
		}
		s.Events = slices.Insert(s.Events, at, e)
		_, _ = receipt.Verify(s.Receipt(signer), signer.VerifierText(), receipttest.Site)
	})
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func BenchmarkVerify(b *testing.B) {
	signer := newSigner(b)
	r := receipttest.Paid().Receipt(signer)
	for b.Loop() {
		if _, err := receipt.Verify(r, signer.VerifierText(), receipttest.Site); err != nil {
			b.Fatal(err)
		}
	}
}
