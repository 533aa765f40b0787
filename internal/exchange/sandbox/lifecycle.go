package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/fault"
)

// Status is where a withdrawal stands, in CoinEx's words (facts 3.4).
type Status string

// The statuses, in the order of the happy path, then the ways off it.
const (
	Created            Status = "created" // waits for an e-mail click, not yet debited
	AuditRequired      Status = "audit_required"
	Audited            Status = "audited"
	Processing         Status = "processing"
	Confirming         Status = "confirming"
	Finished           Status = "finished"
	Cancelled          Status = "cancelled" // refunded
	CancellationFailed Status = "cancellation_failed"
	Failed             Status = "failed" // refunded
)

// next is the happy path. Created has no next: it waits for a click in an
// e-mail, which here is SetStatus.
var next = map[Status]Status{
	AuditRequired: Audited,
	Audited:       Processing,
	Processing:    Confirming,
	Confirming:    Finished,
}

// before is what a list that lags behind shows of each status; Created has
// nothing before it.
var before = map[Status]Status{
	Audited: AuditRequired, Processing: Audited, Confirming: Processing, Finished: Confirming,
	Cancelled: AuditRequired, CancellationFailed: Audited, Failed: Processing,
}

// debits tells whether the account is debited while a withdrawal stands in
// this status. Every status is in here.
var debits = map[Status]bool{
	Created: false, AuditRequired: true, Audited: true, Processing: true, Confirming: true,
	Finished: true, Cancelled: false, CancellationFailed: true, Failed: false,
}

// Withdrawal is one withdrawal as the sandbox has it.
type Withdrawal struct {
	Account       string          `json:"account"`
	ID            int64           `json:"withdraw_id"`
	CreatedAt     time.Time       `json:"created_at"`
	Method        string          `json:"withdraw_method"`
	Asset         string          `json:"ccy"`
	Chain         string          `json:"chain"`
	Address       string          `json:"to_address"`
	Memo          string          `json:"memo"`
	Net           decimal.Decimal `json:"actual_amount"` // what the receiver gets: the amount asked for
	Fee           decimal.Decimal `json:"tx_fee"`        // in Asset
	Gross         decimal.Decimal `json:"amount"`        // what the account is debited: Net + Fee
	TxID          string          `json:"tx_id"`         // "" until confirming
	Confirmations int             `json:"confirmations"`
	Status        Status          `json:"status"`
	Since         time.Time       `json:"status_since"`
	Remark        string          `json:"remark"`

	// SafeConfirmations is what the chain asked for when the withdrawal was
	// made; it finishes with so many.
	SafeConfirmations int `json:"safe_confirmations"`
	// Quirks are the faults that this row shows for as long as it lives.
	Quirks Quirks `json:"quirks"`
}

// move puts the withdrawal into a status at a time. It does not touch money.
func (w *Withdrawal) move(to Status, at time.Time) {
	w.Status, w.Since = to, at
	if w.Method != OnChain {
		return
	}
	switch to {
	case Confirming, Finished:
		w.TxID = transactionID(w.ID)
	}
	if to == Finished {
		w.Confirmations = w.SafeConfirmations
	}
}

// transactionID is what a chain would call the transaction.
func transactionID(n int64) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "sandbox transaction %d", n))
	return hex.EncodeToString(sum[:])
}

func (p Pace) withDefaults() Pace {
	or := func(d, otherwise time.Duration) time.Duration {
		if d > 0 {
			return d
		}
		return otherwise
	}
	return Pace{
		AuditRequired: or(p.AuditRequired, 500*time.Millisecond),
		Audited:       or(p.Audited, 300*time.Millisecond),
		Processing:    or(p.Processing, 500*time.Millisecond),
		Confirming:    or(p.Confirming, 800*time.Millisecond),
	}
}

// in is how long a withdrawal stays in a status that has a next one.
func (p Pace) in(st Status) time.Duration {
	switch st {
	case AuditRequired:
		return p.AuditRequired
	case Audited:
		return p.Audited
	case Processing:
		return p.Processing
	default:
		return p.Confirming
	}
}

// settle moves every withdrawal as far as the clock says.
func (s *Sandbox) settle(now time.Time) {
	if !s.auto {
		return
	}
	for _, w := range s.state.Withdrawals {
		for next[w.Status] != "" {
			due := w.Since.Add(s.options.Pace.in(w.Status))
			if now.Before(due) {
				break
			}
			w.move(next[w.Status], due)
			s.dirty = true
		}
		if w.Status == Confirming {
			seen := int(int64(w.SafeConfirmations) * int64(now.Sub(w.Since)) / int64(s.options.Pace.Confirming))
			if seen > w.Confirmations {
				w.Confirmations = seen
				s.dirty = true
			}
		}
	}
}

// setStatus moves a withdrawal and lets the money follow: the account is
// debited in the statuses that debit and refunded in those that do not.
func (s *Sandbox) setStatus(w *Withdrawal, to Status, now time.Time) error {
	a := s.state.account(w.Account)
	switch {
	case debits[w.Status] && !debits[to]:
		s.book(a, w.Asset, "withdraw", w.Gross, now)
	case !debits[w.Status] && debits[to]:
		if a.Balances[w.Asset].LessThan(w.Gross) {
			return fault.New(fault.Refused, "sandbox_balance_short",
				fmt.Sprintf("withdrawal %d was refunded and %s no longer has %s %s for it", w.ID, w.Account, w.Gross, w.Asset),
				"set the balance first")
		}
		s.book(a, w.Asset, "withdraw", w.Gross.Neg(), now)
	}
	w.move(to, now)
	s.dirty = true
	return nil
}

// Now is the time on the exchange's clock.
func (s *Sandbox) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now()
}

// Advance lets time pass: the exchange's clock jumps ahead by d, and under
// Auto the withdrawals move as if d had gone by.
func (s *Sandbox) Advance(d time.Duration) error {
	if d < 0 {
		return fault.New(fault.Invalid, "sandbox_advance_negative", "time only passes forwards",
			"use offset to set the exchange's clock back")
	}
	return s.do(func(now time.Time) error {
		s.state.Offset += Duration(d)
		s.dirty = true
		s.settle(now.Add(d))
		return nil
	})
}

// SetOffset sets how far the exchange's clock is ahead of the clock under it;
// negative is behind. No time passes: a wrong clock neither hurries nor stops
// the withdrawals.
func (s *Sandbox) SetOffset(offset time.Duration) error {
	return s.do(func(time.Time) error {
		shift := offset - time.Duration(s.state.Offset)
		s.state.Offset = Duration(offset)
		for l := range s.deadlines {
			l.at = l.at.Add(shift)
		}
		for _, w := range s.state.Withdrawals {
			w.Since = w.Since.Add(shift)
			if !w.Quirks.HiddenUntil.IsZero() {
				w.Quirks.HiddenUntil = w.Quirks.HiddenUntil.Add(shift)
			}
		}
		s.dirty = true
		return nil
	})
}

// SetAuto starts or stops the automatic life cycle. Started, each withdrawal
// spends its whole time in its status again, so none jumps.
func (s *Sandbox) SetAuto(on bool) error {
	return s.do(func(now time.Time) error {
		if on && !s.auto {
			for _, w := range s.state.Withdrawals {
				w.Since = now
			}
			s.dirty = true
		}
		s.auto = on
		return nil
	})
}

// Step moves every withdrawal on the happy path one status on.
func (s *Sandbox) Step() error {
	return s.do(func(now time.Time) error {
		for _, w := range s.state.Withdrawals {
			if to := next[w.Status]; to != "" {
				w.move(to, now)
				s.dirty = true
			}
		}
		return nil
	})
}

// SetStatus puts one withdrawal into any status, also out of order; the money
// follows (cancelled and failed refund).
func (s *Sandbox) SetStatus(id int64, to Status) error {
	return s.do(func(now time.Time) error {
		w := s.state.withdrawal(id)
		if w == nil {
			return fault.New(fault.NotFound, "sandbox_withdrawal_unknown",
				fmt.Sprintf("there is no withdrawal %d", id), "look up the id in the state")
		}
		if _, known := debits[to]; !known {
			return fault.New(fault.Invalid, "sandbox_status_unknown",
				fmt.Sprintf("%q is no withdrawal status", to),
				"use created, audit_required, audited, processing, confirming, finished, cancelled, cancellation_failed or failed")
		}
		return s.setStatus(w, to, now)
	})
}
