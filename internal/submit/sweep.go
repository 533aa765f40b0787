package submit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/money"
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
)

// Sweep looks after everything of the account that is not at an end: it ends what
// has run out of time, gives a job to whatever was left lying, looks for
// submissions whose answer was lost, and follows what the exchange has. Its cost
// does not grow with the number of withdrawals in flight until a page is full.
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
	if err != nil || len(unsettled)+len(tracked) == 0 {
		return err
	}
	at, err := s.exchange.Now(ctx)
	if err != nil {
		return err
	}
	unknown, err := s.lost(ctx, unsettled, at)
	if err != nil || len(unknown)+len(tracked) == 0 {
		return err
	}
	h, err := s.read(ctx, unknown, tracked)
	if err != nil {
		return err
	}
	if err := s.store.NoteRead(ctx, s.account, "withdrawals", fmt.Sprintf("%d rows", len(h.rows)), s.now()); err != nil {
		return err
	}
	// One withdrawal that cannot be handled must not keep the others waiting.
	var errs []error
	for _, a := range unknown {
		errs = append(errs, s.reconcile(ctx, a, h, at))
	}
	for _, w := range tracked {
		errs = append(errs, s.track(ctx, w, h))
	}
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

// history is one reading of the exchange's withdrawal history.
type history struct {
	rows  []exchange.Withdrawal
	byID  map[int64]exchange.Withdrawal
	pages [][]byte
	// complete: the reading went back past everything that was looked for.
	complete bool
}

// read pages back through the history until it has seen all that is looked for. The
// exchange documents no order (facts 3.3), so only a whole page of older rows ends
// the search for attempts.
func (s *Submitter) read(ctx context.Context, unknown []withdraw.Attempt, tracked []withdraw.Withdrawal) (history, error) {
	h := history{byID: map[int64]exchange.Withdrawal{}}
	var oldest time.Time
	for _, a := range unknown {
		if t := a.SignedAt.Add(-skew); oldest.IsZero() || t.Before(oldest) {
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
		h.complete = !p.HasNext || ((past || len(unknown) == 0) && h.holds(tracked))
	}
	return h, nil
}

// holds tells whether every tracked withdrawal has been seen.
func (h history) holds(tracked []withdraw.Withdrawal) bool {
	for _, w := range tracked {
		if _, ok := h.byID[*w.ExchangeID]; !ok {
			return false
		}
	}
	return true
}

// reconcile finds out what became of one attempt whose answer was lost.
func (s *Submitter) reconcile(ctx context.Context, a withdraw.Attempt, h history, at time.Time) error {
	ids := make([]int64, len(h.rows))
	for i, row := range h.rows {
		ids[i] = row.ID
	}
	claimed, err := s.store.Claimed(ctx, s.account, ids)
	if err != nil {
		return err
	}
	found, why := Match(a, h.rows, claimed)
	if why != nil {
		return s.differs(ctx, a, why, found)
	}
	if found == nil && !h.complete {
		return nil // a reading that ended early proves nothing
	}
	afterQuiet := at.After(a.Dies().Add(s.settings.Quiet))
	clean, err := s.store.NoteLook(ctx, a, h.pages, found != nil, afterQuiet, at)
	if err != nil {
		return err
	}
	if found != nil {
		s.log.InfoContext(ctx, "lost submission found", "withdrawal", a.WithdrawalID, "exchange_id", found.ID)
		return s.store.Accepted(ctx, a, exchange.Outcome{Class: exchange.Accepted, Withdrawal: found, HTTPStatus: a.HTTPStatus, Code: a.Code,
			Message: a.Message, Response: a.Response, Reason: "found in the exchange's history"}, "reconciled", s.now(), s.now())
	}
	if clean < cleanReads {
		return nil
	}
	return s.absent(ctx, a)
}

// Match finds the row that an attempt made. The remark is ours alone, so it decides
// where the exchange echoes it. A row with an empty remark is matched as a twin:
// same asset, chain, address, memo and net amount, not older than the attempt,
// claimed by no other; at most one attempt per twin is unsettled at any time, so
// that such a row can be of this attempt only. A row with another remark is never
// ours. why is set when something is there that a person must judge.
func Match(a withdraw.Attempt, rows []exchange.Withdrawal, claimed map[int64]bool) (found *exchange.Withdrawal, why *fault.Error) {
	var twins []exchange.Withdrawal
	for _, row := range rows {
		if claimed[row.ID] {
			continue
		}
		same := samePayment(a, row)
		switch {
		case row.Remark == a.Remark && same:
			return &row, nil
		case row.Remark == a.Remark:
			return &row, fault.New(fault.Unclear, "paid_differs",
				fmt.Sprintf("the exchange has withdrawal %d under our remark, but pays %s %s to %s, which is not what was approved", row.ID, money.Text(row.Net), row.Asset, row.Address),
				"stop paying from this account; compare with the exchange's page and call its support")
		case row.Remark == "" && same && !row.CreatedAt.Before(a.SignedAt.Add(-skew)):
			twins = append(twins, row)
		}
	}
	switch len(twins) {
	case 0:
		return nil, nil
	case 1:
		return &twins[0], nil
	}
	return &twins[0], fault.New(fault.Unclear, "several_twins",
		fmt.Sprintf("the exchange has %d withdrawals that could be this one, without our remark", len(twins)),
		"compare with the exchange's page: one of them was not made by Sluice")
}

// samePayment compares what was sent with what the exchange says it pays: the net
// amount, because the gross one depends on the fee (facts 0.1).
func samePayment(a withdraw.Attempt, row exchange.Withdrawal) bool {
	return a.Asset == row.Asset && a.Chain == row.Chain && a.Address == row.Address && a.Memo == row.Memo && a.Amount.Equal(row.Net)
}

// differs puts an attempt whose trace does not agree with it in front of a person, once.
func (s *Submitter) differs(ctx context.Context, a withdraw.Attempt, why *fault.Error, row *exchange.Withdrawal) error {
	w, err := s.store.Withdrawal(ctx, a.WithdrawalID)
	if err != nil || w.State != withdraw.Unknown {
		return err // already held
	}
	return s.hold(ctx, w, why, canonical.Object{"attempt": a.ID.String(), "exchange_id": row.ID})
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
func (s *Submitter) track(ctx context.Context, w withdraw.Withdrawal, h history) error {
	row, ok := h.byID[*w.ExchangeID]
	if !ok {
		if !h.complete || w.State == withdraw.Held {
			return nil
		}
		return s.hold(ctx, w, fault.New(fault.Unclear, "vanished", fmt.Sprintf("the exchange's history no longer shows withdrawal %d", *w.ExchangeID),
			"do not pay it again; ask the exchange's support"), nil)
	}
	to, why := follows(w, row)
	if to == withdraw.Held && w.State != withdraw.Held {
		s.log.ErrorContext(ctx, "ALARM: withdrawal held", "withdrawal", w.ID, "code", why.Code, "reason", why.Detail)
	}
	err := s.store.Progress(ctx, w, row, to, why, s.now(), s.now().Add(s.settings.Sweep))
	if fault.Is(err, pgstore.ErrMoved.Code) {
		return nil
	}
	return err
}

// follows says where a status of the exchange leads.
func follows(w withdraw.Withdrawal, row exchange.Withdrawal) (withdraw.State, *fault.Error) {
	if w.Asset != row.Asset || w.Chain != row.Chain || w.Address != row.Address || w.Memo != row.Memo || !w.Amount.Equal(row.Net) {
		return withdraw.Held, fault.New(fault.Unclear, "paid_differs",
			fmt.Sprintf("the exchange pays %s %s to %s, which is not what was approved", money.Text(row.Net), row.Asset, row.Address),
			"stop paying from this account; compare with the exchange's page and call its support")
	}
	switch row.Status {
	case exchange.Finished:
		return withdraw.Completed, nil
	case exchange.Failed, exchange.Cancelled:
		return withdraw.Failed, fault.New(fault.Refused, "exchange_"+string(row.Status),
			"the exchange ended it without paying; it refunds to the spot wallet", "check that the refund is there, then ask for the payout again")
	case exchange.CancellationFailed, exchange.Unrecognised:
		return withdraw.Held, fault.New(fault.Unclear, "exchange_status_unclear",
			fmt.Sprintf("the exchange says %q, which may mean paid or not", row.RawStatus), "look at the exchange's page, and ask its support; do not pay again")
	}
	return w.State, nil
}
