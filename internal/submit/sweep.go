package submit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/pgstore"
	"sluice/internal/policy"
	"sluice/internal/withdraw"
)

const (
	pageLimit = 100 // facts 3.3: more was never seen to work
	// mostPages bounds one reading of the history. A reading that hits it proves nothing.
	mostPages = 50
	// skew is how far before our signature the exchange may date a withdrawal.
	skew = time.Minute
	// cleanReads after the quiet period make absence.
	cleanReads = 2
	// lateFactor times the longest lateness that the history has shown is the least
	// that the quiet period is worth.
	lateFactor = 3
)

// Sweep looks after everything of the account that is not at an end: it ends what
// has run out of time, gives a job to whatever was left lying, looks for
// submissions whose answer was lost, follows what the exchange has, passes on the
// wish to cancel, and raises the alarm over withdrawals that nobody here made. Its
// cost does not grow with the number of withdrawals in flight until a page is full.
func (s *Submitter) Sweep(ctx context.Context) error {
	if err := s.store.Expire(ctx, s.account, s.now()); err != nil {
		return err
	}
	if _, err := s.store.Rescue(ctx, s.account, s.now()); err != nil {
		return err
	}
	unsettled, err := s.store.UnsettledAttempts(ctx, s.account)
	if err != nil {
		return err
	}
	tracked, err := s.store.Tracked(ctx, s.account)
	if err != nil {
		return err
	}
	at, err := s.exchange.Now(ctx)
	if err != nil {
		return err
	}
	watch, err := s.store.OpenWatch(ctx, s.account, at)
	if err != nil {
		return err
	}
	unknown, err := s.lost(ctx, unsettled, at)
	if err != nil {
		return err
	}
	h, err := s.read(ctx, unknown, tracked, s.quietStart(watch), at)
	if err != nil {
		return err
	}
	if err := s.store.NoteRead(ctx, s.account, "withdrawals", fmt.Sprintf("%d rows", len(h.rows)), s.now()); err != nil {
		return err
	}
	s.learn(&watch, h, tracked)
	// One withdrawal that cannot be handled must not keep the others waiting.
	var errs []error
	for _, a := range unknown {
		errs = append(errs, s.reconcile(ctx, a, h, watch))
	}
	for _, w := range tracked {
		errs = append(errs, s.track(ctx, w, h, watch))
	}
	strangers := s.strangers(ctx, h, watch)
	if h.complete && strangers == nil {
		watch.ReadUntil = at
	}
	errs = append(errs, strangers, s.store.KeepWatch(ctx, s.account, watch), s.passOnCancels(ctx))
	return errors.Join(errs...)
}

// lost turns open attempts whose request has died at the exchange into unknown
// ones: whoever sent them is gone, or will hear nothing more. It returns the
// unknown ones; those still in flight are left alone.
func (s *Submitter) lost(ctx context.Context, attempts []withdraw.Attempt, at time.Time) ([]withdraw.Attempt, error) {
	var unknown []withdraw.Attempt
	for _, a := range attempts {
		if a.Outcome == "open" {
			if at.Before(a.Dies()) {
				continue
			}
			err := s.store.LostAnswer(ctx, a, exchange.Outcome{Class: exchange.Unknown,
				Reason: "the worker that sent it ended before it could write down the answer",
				Fix:    "nothing: the exchange's history is being searched for it"}, s.now(), s.now().Add(s.settings.Sweep))
			if fault.Is(err, pgstore.ErrMoved.Code) {
				continue // the answer came after all
			}
			if err != nil {
				return nil, err
			}
			a.Outcome = "unknown"
		}
		unknown = append(unknown, a)
	}
	return unknown, nil
}

// quiet is how long after a request's death absence may be believed: as it is set, or
// longer where this exchange has been seen to be later than that allows for.
func (s *Submitter) quiet(watch pgstore.Watch) time.Duration {
	return max(s.settings.Quiet, lateFactor*watch.Lateness)
}

// quietStart is from when on a row may have come in since the last whole reading.
func (s *Submitter) quietStart(watch pgstore.Watch) time.Time {
	return watch.ReadUntil.Add(-s.quiet(watch) - skew)
}

// history is one reading of the exchange's withdrawal history.
type history struct {
	at     time.Time // by the exchange's clock, before the reading
	rows   []exchange.Withdrawal
	byID   map[int64]exchange.Withdrawal
	claims map[int64]pgstore.Claim // whose they are, as far as is known
	// unsettled are the attempts to which an unclaimed row may still turn out to belong.
	unsettled []withdraw.Attempt
	pages     [][]byte
	// complete: the reading went back past everything that was looked for.
	complete bool
}

// read pages back through the history until it has seen all that is looked for. The
// exchange documents no order (facts 3.3), so only a whole page of older rows ends
// the search for attempts. Whose the rows are is asked afterwards: an attempt that
// made one of them was written down before it was sent.
func (s *Submitter) read(ctx context.Context, unknown []withdraw.Attempt, tracked []pgstore.Tracked, oldest, at time.Time) (history, error) {
	h := history{at: at, byID: map[int64]exchange.Withdrawal{}}
	for _, a := range unknown {
		if t := a.SignedAt.Add(-skew); t.Before(oldest) {
			oldest = t
		}
	}
	for page := 1; page <= mostPages && !h.complete; page++ {
		p, err := s.exchange.Withdrawals(ctx, exchange.Query{Page: page, Limit: pageLimit})
		if err != nil {
			return h, err
		}
		h.pages = append(h.pages, p.Raw)
		past := len(p.Rows) > 0
		for _, row := range p.Rows {
			if _, twice := h.byID[row.ID]; !twice {
				h.rows = append(h.rows, row)
			}
			h.byID[row.ID] = row
			past = past && row.CreatedAt.Before(oldest)
		}
		h.complete = !p.HasNext || (past && h.holds(tracked))
	}
	ids := make([]int64, len(h.rows))
	for i, row := range h.rows {
		ids[i] = row.ID
	}
	var err error
	// In this order: an attempt that is settled between the two is in both.
	if h.unsettled, err = s.store.UnsettledAttempts(ctx, s.account); err != nil {
		return h, err
	}
	h.claims, err = s.store.Claimed(ctx, s.account, ids)
	return h, err
}

// holds tells whether every tracked withdrawal has been seen.
func (h history) holds(tracked []pgstore.Tracked) bool {
	for _, w := range tracked {
		if _, ok := h.byID[*w.ExchangeID]; !ok {
			return false
		}
	}
	return true
}

// learn takes from a reading what the exchange documents nowhere: whether remarks come
// back, and how late the history may be.
func (s *Submitter) learn(watch *pgstore.Watch, h history, tracked []pgstore.Tracked) {
	for _, row := range h.rows {
		c, ok := h.claims[row.ID]
		switch {
		case !ok || c.Foreign || watch.Remarks == pgstore.RemarksLost:
		case row.Remark == c.Remark:
			watch.Remarks = pgstore.RemarksEchoed
		default:
			watch.Remarks = pgstore.RemarksLost
		}
	}
	for _, w := range tracked {
		if _, there := h.byID[*w.ExchangeID]; !there && h.complete && w.ListedAt == nil && w.State == withdraw.Submitted {
			watch.Lateness = max(watch.Lateness, h.at.Sub(w.SignedAt))
		}
	}
}

// passOnCancels tells the exchange what people want cancelled. What came of it, only its
// history says: it may have been faster.
func (s *Submitter) passOnCancels(ctx context.Context) error {
	list, err := s.store.OpenCancels(ctx, s.account)
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range list {
		err := s.exchange.Cancel(ctx, *w.ExchangeID)
		no, told := fault.As(err)
		switch {
		case err == nil:
			err = s.store.CancelAnswered(ctx, w, true, false, "the exchange took the wish to cancel", s.now())
		case told:
			err = s.store.CancelAnswered(ctx, w, false, no.Kind == fault.Refused || no.Kind == fault.Invalid, no.Detail, s.now())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// absent declares an attempt not accepted and asks people for a fresh decision.
func (s *Submitter) absent(ctx context.Context, a withdraw.Attempt) error {
	evidence, err := s.store.AbsenceEvidence(ctx, a)
	if err != nil {
		return err
	}
	sealed, err := s.store.Proposal(ctx, a.WithdrawalID)
	if err != nil {
		return err
	}
	p, err := withdraw.Unseal(sealed)
	if err != nil {
		return err
	}
	p.Round, p.Evidence, p.ExpiresAt = p.Round+1, evidence, s.now().Add(policy.Default.Expiry).UTC().Truncate(time.Millisecond)
	s.log.WarnContext(ctx, "submission proven absent", "withdrawal", a.WithdrawalID, "attempt", a.Number)
	err = s.store.Absent(ctx, a, p, s.now())
	if fault.Is(err, pgstore.ErrMoved.Code) {
		return nil // held meanwhile: a person has it
	}
	return err
}

// track follows one withdrawal that the exchange has.
func (s *Submitter) track(ctx context.Context, w pgstore.Tracked, h history, watch pgstore.Watch) error {
	row, ok := h.byID[*w.ExchangeID]
	if !ok {
		late := w.ListedAt == nil && h.at.Before(w.SignedAt.Add(s.quiet(watch)))
		if !h.complete || late || w.State == withdraw.Held {
			return nil
		}
		return s.hold(ctx, w.Withdrawal, fault.New(fault.Unclear, codeVanished, fmt.Sprintf("the exchange's history does not show withdrawal %d, which the exchange has accepted", *w.ExchangeID),
			"do not pay it again; look at the exchange's page and ask its support. It is followed again by itself when it reappears"), nil)
	}
	to, why := follows(w.Withdrawal, row)
	if to == withdraw.Held && w.State != withdraw.Held {
		s.log.ErrorContext(ctx, "ALARM: withdrawal held", "withdrawal", w.ID, "code", why.Code, "reason", why.Detail)
		if why.Code == codePaidDiffers {
			if err := s.freeze(ctx, why); err != nil {
				return err
			}
		}
	}
	err := s.store.Progress(ctx, w.Withdrawal, row, to, why, s.now(), s.now().Add(s.settings.Sweep))
	if fault.Is(err, pgstore.ErrMoved.Code) {
		return nil
	}
	return err
}

// follows says where a status of the exchange leads.
func follows(w withdraw.Withdrawal, row exchange.Withdrawal) (withdraw.State, *fault.Error) {
	if w.Asset != row.Asset || w.Chain != row.Chain || w.Address != row.Address || w.Memo != row.Memo || !w.Amount.Equal(row.Net) {
		return withdraw.Held, paidDiffers(row)
	}
	switch row.Status {
	case exchange.Finished:
		return withdraw.Completed, nil
	case exchange.Failed, exchange.Cancelled:
		return withdraw.Failed, fault.New(fault.Refused, "exchange_"+string(row.Status),
			"the exchange ended it without paying; it refunds to the spot wallet", "check that the refund is there, then ask for the payout again")
	case exchange.CancellationFailed, exchange.Unrecognised:
		return withdraw.Held, fault.New(fault.Unclear, codeStatusUnclear,
			fmt.Sprintf("the exchange says %q, which may mean paid or not", row.RawStatus), "look at the exchange's page, and ask its support; do not pay again")
	}
	if w.State == withdraw.Held && (w.ReasonCode == codeVanished || w.ReasonCode == codeStatusUnclear) {
		return withdraw.Submitted, nil // what it was held for is over
	}
	return w.State, nil
}

// Why a withdrawal is held, where something else hangs on it.
const (
	codeVanished      = "vanished"
	codeStatusUnclear = "exchange_status_unclear"
	codePaidDiffers   = "paid_differs"
)

// freeze stops the account: what is there was not approved like that.
func (s *Submitter) freeze(ctx context.Context, why *fault.Error) error {
	s.log.ErrorContext(ctx, "ALARM: account frozen", "code", why.Code, "reason", why.Detail)
	return s.store.Freeze(ctx, pgstore.Freeze{Scope: pgstore.AccountScope, Subject: s.account, ReasonCode: why.Code, Reason: why.Detail,
		FrozenBy: "worker:" + s.account, FrozenAt: s.now()})
}

// differs puts an attempt whose trace does not agree with it in front of a person, once.
func (s *Submitter) differs(ctx context.Context, w withdraw.Withdrawal, a withdraw.Attempt, why *fault.Error, detail canonical.Object) error {
	if w.State != withdraw.Unknown {
		return nil // already held
	}
	if why.Code == codePaidDiffers {
		if err := s.freeze(ctx, why); err != nil {
			return err
		}
	}
	detail["attempt"] = a.ID.String()
	return s.hold(ctx, w, why, detail)
}
