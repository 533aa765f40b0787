package submit

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/money"
	"sluice/internal/pgstore"
	"sluice/internal/withdraw"
)

// reconcile finds out what became of one attempt whose answer was lost.
func (s *Submitter) reconcile(ctx context.Context, a withdraw.Attempt, h history, watch pgstore.Watch) error {
	w, err := s.store.Withdrawal(ctx, a.WithdrawalID)
	if err != nil {
		return err
	}
	found, why := Match(a, h.rows, h.claims, watch.Remarks)
	if why != nil {
		return s.differs(ctx, w, a, why, canonical.Object{"exchange_id": found.ID})
	}
	if found == nil && (!h.complete || w.State != withdraw.Unknown) {
		return nil // a reading that ended early proves nothing; what is held is a person's to conclude
	}
	afterQuiet := h.at.After(a.Dies().Add(s.quiet(watch)))
	var wallet []byte
	if found == nil && afterQuiet {
		if wallet, why, err = s.wallet(ctx, w, a, h); err != nil {
			return err
		}
		if why != nil {
			return s.differs(ctx, w, a, why, canonical.Object{"wallet": string(wallet)})
		}
	}
	clean, err := s.store.NoteLook(ctx, a, h.pages, wallet, found != nil, afterQuiet, h.at)
	if err != nil {
		return err
	}
	if found != nil {
		s.log.InfoContext(ctx, "lost submission found", "withdrawal", a.WithdrawalID, "exchange_id", found.ID)
		return s.store.Accepted(ctx, a, exchange.Outcome{Class: exchange.Accepted, Withdrawal: found, HTTPStatus: a.HTTPStatus, Code: a.Code,
			Message: a.Message, Response: a.Response, Reason: "found in the exchange's history"}, pgstore.FoundInHistory, s.now(), s.now())
	}
	if clean < cleanReads {
		return nil
	}
	return s.absent(ctx, a)
}

// Match finds the row that an attempt made. The remark is ours alone, so it decides.
// Where this exchange has not been seen to show remarks, a row without one is matched
// as a twin: same asset, chain, address, memo and net amount, made while the attempt's
// request lived, claimed by no other; at most one attempt per twin is unsettled at any
// time, so that such a row can be of this attempt only. Whatever else pays the same at
// the same time is left to a person: to claim it might hide a payout that was never
// made, and to pass over it might make a second one. why is set then, and where our
// remark stands on a payment that is not ours.
func Match(a withdraw.Attempt, rows []exchange.Withdrawal, claims map[int64]pgstore.Claim, remarks pgstore.Remarks) (found *exchange.Withdrawal, why *fault.Error) {
	var alike []exchange.Withdrawal
	for _, row := range rows {
		c, claimed := claims[row.ID]
		switch {
		case claimed && !c.Foreign:
		case row.Remark == a.Remark && samePayment(a, row):
			return &row, nil
		case row.Remark == a.Remark:
			return &row, paidDiffers(row)
		case !claimed && couldBe(a, row):
			alike = append(alike, row)
		}
	}
	switch {
	case len(alike) == 0:
		return nil, nil
	case len(alike) == 1 && alike[0].Remark == "" && remarks != pgstore.RemarksEchoed:
		return &alike[0], nil
	}
	return &alike[0], fault.New(fault.Unclear, "look_alike",
		fmt.Sprintf("the exchange has %d withdrawals of the same amount to the same destination, made at the time of this one, that do not bear our remark; the first is %d", len(alike), alike[0].ID),
		"do not pay it again; compare with the exchange's page: who made them? It goes on by itself if ours turns up beside them")
}

func paidDiffers(row exchange.Withdrawal) *fault.Error {
	return fault.New(fault.Unclear, codePaidDiffers,
		fmt.Sprintf("under our order the exchange pays %s %s to %s (withdrawal %d), which is not what was approved", money.Text(row.Net), row.Asset, row.Address, row.ID),
		"the account is frozen; compare with the exchange's page and call its support")
}

// samePayment compares what was sent with what the exchange says it pays: the net
// amount, because the gross one depends on the fee (facts 0.1).
func samePayment(a withdraw.Attempt, row exchange.Withdrawal) bool {
	return a.Asset == row.Asset && a.Chain == row.Chain && a.Address == row.Address && a.Memo == row.Memo && a.Amount.Equal(row.Net)
}

// couldBe tells whether a row pays what an attempt asked for and was made while the
// attempt's request lived.
func couldBe(a withdraw.Attempt, row exchange.Withdrawal) bool {
	return samePayment(a, row) && !row.CreatedAt.Before(a.SignedAt.Add(-skew)) && !row.CreatedAt.After(a.Dies().Add(skew))
}

// wallet asks the wallet whether it agrees that an attempt was not accepted. Its history
// names no withdrawal, but each debit must belong to a row of the withdrawal history;
// one that fits the attempt and belongs to none speaks against absence.
func (s *Submitter) wallet(ctx context.Context, w withdraw.Withdrawal, a withdraw.Attempt, h history) ([]byte, *fault.Error, error) {
	debits, err := s.exchange.Debits(ctx, a.Asset, a.SignedAt.Add(-skew))
	if err != nil {
		return nil, nil, err
	}
	balances, err := s.exchange.Balances(ctx)
	if err != nil {
		return nil, nil, err
	}
	type debit struct {
		At      time.Time `json:"at"`
		Change  string    `json:"change"`
		Balance string    `json:"balance"`
	}
	said := struct {
		Asset     string  `json:"asset"`
		Available string  `json:"available"`
		Frozen    string  `json:"frozen"`
		Debits    []debit `json:"debits"`
	}{Asset: a.Asset, Available: "0", Frozen: "0", Debits: []debit{}}
	for _, b := range balances {
		if b.Asset == a.Asset {
			said.Available, said.Frozen = money.Text(b.Available), money.Text(b.Frozen)
		}
	}
	for _, d := range debits {
		said.Debits = append(said.Debits, debit{d.At.UTC(), money.Text(d.Change), money.Text(d.Balance)})
	}
	text, err := json.Marshal(said)
	if err != nil {
		return nil, nil, err
	}
	if d := unexplained(a, w.MaxFee.Decimal, debits, h.rows); d != nil {
		return text, fault.New(fault.Unclear, "debit_unexplained",
			fmt.Sprintf("the wallet was debited %s %s at %s, which no row of the exchange's withdrawal history explains; it may be this payout",
				money.Text(d.Change.Neg()), a.Asset, d.At.UTC().Format(time.RFC3339)),
			"do not pay it again; look at the exchange's page, and ask its support. It goes on by itself if it turns up in the history"), nil
	}
	return text, nil, nil
}

// unexplained is the first debit that fits an attempt and belongs to no row of the
// history. A row explains one debit: of its gross amount, or of its net amount where the
// fee was taken in another coin.
func unexplained(a withdraw.Attempt, ceiling decimal.Decimal, debits []exchange.Movement, rows []exchange.Withdrawal) *exchange.Movement {
	used := map[int64]bool{}
	explained := func(d exchange.Movement) bool {
		for _, row := range rows {
			if !used[row.ID] && row.Asset == a.Asset && (row.Gross.Equal(d.Change.Neg()) || row.Net.Equal(d.Change.Neg())) {
				used[row.ID] = true
				return true
			}
		}
		return false
	}
	for _, d := range debits {
		taken := d.Change.Neg()
		fits := taken.GreaterThanOrEqual(a.Amount) && taken.LessThanOrEqual(a.Amount.Add(ceiling))
		if !explained(d) && fits {
			return &d
		}
	}
	return nil
}

// strangers raises the alarm over rows that no attempt accounts for: somebody else pays
// from this account, or the exchange has made what it seemed to refuse. Either freezes
// the account until people have understood it.
func (s *Submitter) strangers(ctx context.Context, h history, watch pgstore.Watch) error {
	for _, row := range h.rows {
		if _, claimed := h.claims[row.ID]; claimed || row.CreatedAt.Before(watch.Since) || pending(h.unsettled, row) {
			continue
		}
		attempt, err := s.store.AttemptByRemark(ctx, s.account, row.Remark)
		if err != nil {
			return err
		}
		why := fault.New(fault.Unclear, "foreign_withdrawal",
			fmt.Sprintf("the exchange has withdrawal %d of %s %s to %s, which Sluice did not make", row.ID, money.Text(row.Net), row.Asset, row.Address),
			"find out who made it: somebody at the exchange's page, another program, or a stolen key")
		if attempt != nil {
			why = fault.New(fault.Unclear, "paid_after_all",
				fmt.Sprintf("the exchange has withdrawal %d of %s %s to %s under the remark of attempt %d of withdrawal %s, which counted as %s", row.ID,
					money.Text(row.Net), row.Asset, row.Address, attempt.Number, attempt.WithdrawalID, attempt.Outcome),
				"do not pay it again; the exchange's history was later than the quiet period, or its refusal was not true: tell its support")
		}
		// Stopped first and written down last: whatever ends this in between, the next
		// sweep does all of it again.
		if err := s.freeze(ctx, why); err != nil {
			return err
		}
		if attempt != nil {
			if err := s.paidAfterAll(ctx, *attempt, row, why); err != nil {
				return err
			}
		}
		if err := s.store.RecordForeign(ctx, pgstore.Foreign{Account: s.account, Row: row, Attempt: attempt, SeenAt: s.now()}); err != nil {
			return err
		}
	}
	return nil
}

// pending tells whether an unclaimed row may still turn out to belong to an attempt.
func pending(unsettled []withdraw.Attempt, row exchange.Withdrawal) bool {
	for _, a := range unsettled {
		if a.Remark == row.Remark || couldBe(a, row) {
			return true
		}
	}
	return false
}

// paidAfterAll takes a withdrawal whose attempt was given up too early out of the hands
// of those who might pay it again.
func (s *Submitter) paidAfterAll(ctx context.Context, a withdraw.Attempt, row exchange.Withdrawal, why *fault.Error) error {
	w, err := s.store.Withdrawal(ctx, a.WithdrawalID)
	if err != nil || w.ExchangeID != nil {
		return err
	}
	live, err := s.store.Live(ctx, w.ID)
	switch {
	case err != nil:
		return err
	case live && w.State != withdraw.Held: // a later attempt may be there as well; a person looks at both
		return s.store.Hold(ctx, w, why, canonical.Object{"exchange_id": row.ID}, s.now())
	case !live && (w.State == withdraw.Absent || w.State == withdraw.Approved || w.State == withdraw.Submitting):
		return s.store.HoldPaid(ctx, w, row, why, s.now())
	}
	return nil
}
