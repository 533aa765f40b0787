package submit_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/exchange/sandbox"
	"sluice/internal/fault"
	"sluice/internal/pgstore"
	"sluice/internal/submit"
	"sluice/internal/withdraw"
)

// bent is an exchange whose answers a test changes on their way.
type bent struct {
	exchange.Exchange
	rows   func([]exchange.Withdrawal) []exchange.Withdrawal
	debits func([]exchange.Movement) []exchange.Movement
}

func (b bent) Withdrawals(ctx context.Context, q exchange.Query) (exchange.Page, error) {
	p, err := b.Exchange.Withdrawals(ctx, q)
	if b.rows != nil {
		p.Rows = b.rows(p.Rows)
	}
	return p, err
}

func (b bent) Debits(ctx context.Context, asset string, since time.Time) ([]exchange.Movement, error) {
	d, err := b.Exchange.Debits(ctx, asset, since)
	if b.debits != nil {
		d = b.debits(d)
	}
	return d, err
}

// workerOn makes a submitter that sees the exchange through ex.
func (h *house) workerOn(ex exchange.Exchange) (*submit.Submitter, *pgstore.Store) {
	h.t.Helper()
	s := h.store("sluice_worker")
	return submit.New(account, ex, s, h.relying, h.settings, h.clock.now, slog.New(slog.DiscardHandler)), s
}

// byHand makes a withdrawal past Sluice, as somebody at the exchange's page would.
func (h *house) byHand(amount, remark string) {
	h.t.Helper()
	c := h.client()
	order := exchange.Order{Method: h.dest.Method, Asset: h.dest.Asset, Chain: h.dest.Chain, Address: h.dest.Address, Amount: decimal.RequireFromString(amount), Remark: remark}
	signed, err := c.Sign(h.t.Context(), order)
	must(h.t, err)
	if o := c.Withdraw(h.t.Context(), order, signed); o.Class != exchange.Accepted {
		h.t.Fatalf("by hand: %+v", o)
	}
}

func (h *house) freezes() (codes []string) {
	h.t.Helper()
	list, err := h.owner.Freezes(h.t.Context())
	must(h.t, err)
	for _, f := range list {
		codes = append(codes, fmt.Sprintf("%s %s: %s", f.Scope, f.Subject, f.ReasonCode))
	}
	return codes
}

func (h *house) wantFrozen(codes ...string) {
	h.t.Helper()
	if got := h.freezes(); strings.Join(got, "; ") != strings.Join(codes, "; ") {
		h.t.Fatalf("frozen: %q, want %q", got, codes)
	}
}

func (h *house) reason(id uuid.UUID) string {
	h.t.Helper()
	w, err := h.owner.Withdrawal(h.t.Context(), id)
	must(h.t, err)
	return w.ReasonCode
}

func (h *house) wantHeld(id uuid.UUID, code string) {
	h.t.Helper()
	h.want(id, withdraw.Held)
	if got := h.reason(id); got != code {
		h.t.Fatalf("held because of %s, want %s", got, code)
	}
}

func TestAForeignWithdrawalFreezesTheAccountWithinASweep(t *testing.T) {
	t.Parallel()
	for _, remark := range []string{"", "paid by hand"} {
		t.Run("remark "+remark, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			w, store := h.worker()
			h.byHand("7", "before Sluice")
			h.clock.advance(time.Second)
			must(t, w.Sweep(t.Context()))
			h.wantFrozen() // what was there before Sluice looked is nobody's business

			id := h.approved("25.5", "r1")
			h.byHand("8", remark)
			must(t, w.Sweep(t.Context()))
			h.wantFrozen("account main: foreign_withdrawal")
			lease := h.lease(store)
			must(t, w.Submit(t.Context(), lease, id))
			h.want(id, withdraw.Approved)
			if got := h.reason(id); got != pgstore.ErrFrozen.Code {
				t.Fatalf("it waits because of %q", got)
			}
			h.paid(2)

			// Only the owner starts it again, and the same row does not stop it twice.
			if _, err := store.Thaw(t.Context(), pgstore.AccountScope, account, "worker:main", "never mind", h.clock.now()); err == nil {
				t.Fatal("the worker's role thawed the account")
			}
			if _, err := h.api.Thaw(t.Context(), pgstore.AccountScope, account, "api", "never mind", h.clock.now()); err == nil {
				t.Fatal("the api's role thawed the account")
			}
			n, err := h.owner.Thaw(t.Context(), pgstore.AccountScope, account, "operator:test", "it was the treasurer", h.clock.now())
			must(t, err)
			if n != 1 {
				t.Fatalf("%d freezes thawed", n)
			}
			must(t, w.Sweep(t.Context()))
			h.wantFrozen()
			must(t, w.Submit(t.Context(), lease, id))
			h.settle(w, id)
			h.want(id, withdraw.Completed)
			h.wantFrozen()
			h.paid(3)
		})
	}
}

// TestWorkersWhoWereAwayStillSeeForeignWithdrawals: more rows than a page holds came in
// while nobody looked.
func TestWorkersWhoWereAwayStillSeeForeignWithdrawals(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	w, store := h.worker()
	must(t, w.Sweep(t.Context()))
	h.clock.advance(3 * time.Minute)
	h.byHand("8", "old and foreign")
	h.clock.advance(3 * time.Minute)
	// Ours, and so many that the foreign one is on the second page.
	lease := h.lease(store)
	for i := range 105 {
		id := h.approved(fmt.Sprint(i+10), fmt.Sprint("r", i))
		must(t, w.Submit(t.Context(), lease, id))
		h.want(id, withdraw.Submitted)
	}
	h.wantFrozen()
	must(t, w.Sweep(t.Context()))
	h.wantFrozen("account main: foreign_withdrawal")
}

func TestEveryScopeOfAFreezeStopsASubmission(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	w, store := h.worker()
	lease := h.lease(store)
	list, err := h.owner.Destinations(t.Context(), account)
	must(t, err)
	id := h.approved("25.5", "r1")
	for _, f := range []pgstore.Freeze{{Scope: pgstore.ServiceScope}, {Scope: pgstore.AccountScope, Subject: account}, {Scope: pgstore.AssetScope, Subject: "USDT"},
		{Scope: pgstore.DestinationScope, Subject: list[0].ID.String()}} {
		f.ReasonCode, f.Reason, f.FrozenBy, f.FrozenAt = "asked", "a drill", "person:alice", h.clock.now()
		must(t, h.api.Freeze(t.Context(), f))
		must(t, w.Submit(t.Context(), lease, id))
		h.want(id, withdraw.Approved)
		h.paid(0)
		_, err := h.owner.Thaw(t.Context(), f.Scope, f.Subject, "operator:test", "over", h.clock.now())
		must(t, err)
	}
	must(t, h.api.Freeze(t.Context(), pgstore.Freeze{Scope: pgstore.AssetScope, Subject: "BTC", ReasonCode: "asked", Reason: "another asset", FrozenBy: "person:alice", FrozenAt: h.clock.now()}))
	must(t, w.Submit(t.Context(), lease, id))
	h.want(id, withdraw.Submitted)
}

// The history is later than the quiet period, but the wallet was debited: not absent.
func TestADebitThatNoRowExplainsSpeaksAgainstAbsence(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.AcceptThenDrop}))
	must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.ListLate, Delay: sandbox.Duration(5 * time.Minute)}))
	id := h.approved("25.5", "r1")
	w, store := h.worker()
	must(t, w.Submit(t.Context(), h.lease(store), id))
	h.settle(w, id)
	h.wantHeld(id, "debit_unexplained")
	h.clock.advance(5 * time.Minute)
	for range 10 {
		must(t, h.sandbox.Step())
	}
	h.want(id, withdraw.Held)
	must(t, w.Sweep(t.Context()))
	must(t, w.Sweep(t.Context()))
	h.want(id, withdraw.Completed)
	h.wantFrozen()
	h.paid(1)
}

// Every assumption about the exchange's history is false at once: the row is later than
// the quiet period, and so is the debit. People have voted again; nothing goes out, and
// the payout is followed to its true end.
func TestARowThatComesAfterAbsenceStopsTheSecondAttempt(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("voted again %t", again), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.AcceptThenDrop}))
			must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.ListLate, Delay: sandbox.Duration(5 * time.Minute)}))
			id := h.approved("25.5", "r1")
			w, store := h.workerOn(bent{Exchange: h.client(), debits: func([]exchange.Movement) []exchange.Movement { return nil }})
			lease := h.lease(store)
			must(t, w.Submit(t.Context(), lease, id))
			h.settle(w, id)
			h.want(id, withdraw.Absent)
			if again {
				h.vote(id, h.voters[1], h.voters[2])
				h.want(id, withdraw.Approved)
			}
			h.clock.advance(5 * time.Minute)
			must(t, w.Sweep(t.Context()))
			h.wantFrozen("account main: paid_after_all")
			h.wantHeld(id, "paid_after_all")
			must(t, w.Submit(t.Context(), lease, id))
			if _, err := h.api.Cancel(t.Context(), id, "person:x", "it is absent", h.clock.now()); !fault.Is(err, "not_cancellable") {
				t.Fatalf("cancelling what the exchange has finished: %v", err)
			}
			h.want(id, withdraw.Held)
			for range 10 {
				must(t, h.sandbox.Step())
			}
			must(t, w.Sweep(t.Context()))
			h.want(id, withdraw.Completed)
			h.paid(1)
		})
	}
}

func TestTheExchangesHabitsAreLearned(t *testing.T) {
	t.Parallel()
	watch := func(h *house) pgstore.Watch {
		got, err := h.store("sluice_worker").OpenWatch(t.Context(), account, h.clock.now())
		must(t, err)
		return got
	}
	t.Run("remarks come back", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		w, store := h.worker()
		lease := h.lease(store)
		id := h.approved("25.5", "r1")
		must(t, w.Submit(t.Context(), lease, id))
		h.settle(w, id)
		if got := watch(h).Remarks; got != pgstore.RemarksEchoed {
			t.Fatalf("remarks are %s", got)
		}
		// From now on a payment without one is somebody else's, or cannot be told.
		must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.DropBeforeAccept}))
		id = h.approved("30", "r2")
		must(t, w.Submit(t.Context(), lease, id))
		h.want(id, withdraw.Unknown)
		h.byHand("30", "")
		must(t, w.Sweep(t.Context()))
		h.wantHeld(id, "look_alike")
		h.settleHeld(w, 30)
		h.wantHeld(id, "look_alike")
	})
	t.Run("remarks are lost", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.RemarkNotEchoed}))
		w, store := h.worker()
		id := h.approved("25.5", "r1")
		must(t, w.Submit(t.Context(), h.lease(store), id))
		h.settle(w, id)
		if got := watch(h).Remarks; got != pgstore.RemarksLost {
			t.Fatalf("remarks are %s", got)
		}
		h.wantFrozen()
	})
	t.Run("the history is late", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.ListLate, Delay: sandbox.Duration(8 * time.Second)}))
		w, store := h.worker()
		lease := h.lease(store)
		id := h.approved("25.5", "r1")
		must(t, w.Submit(t.Context(), lease, id))
		h.settle(w, id)
		h.want(id, withdraw.Completed) // not held for having vanished before it was there
		late := watch(h).Lateness
		if late < 5*time.Second || late > 8*time.Second {
			t.Fatalf("the history was seen to be late by %s", late)
		}
		must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.DropBeforeAccept}))
		id = h.approved("30", "r2")
		signed := h.clock.now()
		must(t, w.Submit(t.Context(), lease, id))
		h.settle(w, id)
		h.want(id, withdraw.Absent)
		if waited := h.clock.now().Sub(signed); waited < 3*late {
			t.Fatalf("absence was believed after %s, though this history has been late by %s", waited, late)
		}
	})
}

// settleHeld sweeps for some seconds.
func (h *house) settleHeld(w *submit.Submitter, seconds int) {
	h.t.Helper()
	for range seconds {
		must(h.t, w.Sweep(h.t.Context()))
		h.clock.advance(time.Second)
	}
}

func TestAPaymentThatDiffersFreezesTheAccount(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("answer lost %t", lost), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			if lost {
				must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.AcceptThenDrop}))
			}
			w, store := h.workerOn(bent{Exchange: h.client(), rows: func(rows []exchange.Withdrawal) []exchange.Withdrawal {
				for i := range rows {
					rows[i].Address = "TSomebodyElse"
				}
				return rows
			}})
			id := h.approved("25.5", "r1")
			must(t, w.Submit(t.Context(), h.lease(store), id))
			must(t, w.Sweep(t.Context()))
			h.wantHeld(id, "paid_differs")
			h.wantFrozen("account main: paid_differs")
			_, err := h.owner.Thaw(t.Context(), pgstore.AccountScope, account, "operator:test", "support has explained it", h.clock.now())
			must(t, err)
			must(t, w.Sweep(t.Context()))
			h.wantFrozen() // what is known does not freeze again
		})
	}
}

func TestARowThatVanishesIsHeldUntilItIsBack(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	gone := false
	w, store := h.workerOn(bent{Exchange: h.client(), rows: func(rows []exchange.Withdrawal) []exchange.Withdrawal {
		if gone {
			return nil
		}
		return rows
	}})
	id := h.approved("25.5", "r1")
	must(t, w.Submit(t.Context(), h.lease(store), id))
	must(t, w.Sweep(t.Context()))
	gone = true
	must(t, w.Sweep(t.Context()))
	h.wantHeld(id, "vanished")
	gone = false
	must(t, w.Sweep(t.Context()))
	h.want(id, withdraw.Submitted)
	h.settle(w, id)
	h.want(id, withdraw.Completed)
}

func TestCancelAtTheExchange(t *testing.T) {
	t.Parallel()
	ask := func(h *house, id uuid.UUID) error {
		_, err := h.api.Cancel(h.t.Context(), id, "person:alice", "a mistake", h.clock.now())
		return err
	}
	t.Run("in time", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		w, store := h.worker()
		id := h.approved("25.5", "r1")
		must(t, w.Submit(t.Context(), h.lease(store), id))
		must(t, w.Sweep(t.Context()))
		must(t, ask(h, id))
		must(t, ask(h, id)) // twice is once
		h.want(id, withdraw.Submitted)
		h.settle(w, id)
		h.want(id, withdraw.Failed)
		if got := h.reason(id); got != "exchange_cancelled" {
			t.Fatalf("it failed because of %s", got)
		}
		if b := h.sandbox.Withdrawals()[0].Status; b != sandbox.Cancelled {
			t.Fatalf("the exchange says %s", b)
		}
	})
	t.Run("while the answer is lost", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.AcceptThenDrop}))
		w, store := h.worker()
		id := h.approved("25.5", "r1")
		must(t, w.Submit(t.Context(), h.lease(store), id))
		must(t, ask(h, id))
		h.want(id, withdraw.Unknown)
		h.settle(w, id)
		if got := h.reason(id); got != "exchange_cancelled" {
			t.Fatalf("it is %s because of %s", h.state(id), got)
		}
	})
	t.Run("too late", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		w, store := h.worker()
		id := h.approved("25.5", "r1")
		must(t, w.Submit(t.Context(), h.lease(store), id))
		must(t, h.sandbox.SetStatus(h.sandbox.Withdrawals()[0].ID, sandbox.Processing))
		must(t, ask(h, id)) // we have not seen yet how far it is
		must(t, w.Sweep(t.Context()))
		c, err := h.owner.CancelRequest(t.Context(), id)
		must(t, err)
		if !c.Refused || c.Answer == "" {
			t.Fatalf("the wish was answered with %+v", c)
		}
		if err := ask(h, id); !fault.Is(err, "not_cancellable") {
			t.Fatalf("now that it is known: %v", err)
		}
		h.settle(w, id)
		h.want(id, withdraw.Completed)
		if err := ask(h, id); !fault.Is(err, "not_cancellable") {
			t.Fatalf("after its end: %v", err)
		}
	})
	t.Run("while the exchange keeps refusing", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 4213}))
		w, store := h.worker()
		lease := h.lease(store)
		id := h.approved("25.5", "r1")
		must(t, w.Submit(t.Context(), lease, id))
		h.want(id, withdraw.Submitting)
		must(t, ask(h, id))
		must(t, w.Submit(t.Context(), lease, id))
		h.want(id, withdraw.Failed)
		h.paid(0)
		if got := h.reason(id); got != pgstore.ErrUnwanted.Code {
			t.Fatalf("it failed because of %s", got)
		}
	})
}

// TestTwoPayoutsNeverShareABalance: each fits the balance alone, both do not. Whoever was
// approved first has the first claim, whoever is tried first.
func TestTwoPayoutsNeverShareABalance(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	must(t, h.sandbox.SetBalance("", "USDT", "150"))
	first := h.approved("100", "r1")
	h.clock.advance(time.Millisecond)
	second := h.approved("101", "r2")
	w, store := h.worker()
	lease := h.lease(store)
	must(t, w.Submit(t.Context(), lease, second))
	h.want(second, withdraw.Approved)
	if got := h.reason(second); got != pgstore.ErrFunds.Code {
		t.Fatalf("the second waits because of %q", got)
	}
	must(t, w.Submit(t.Context(), lease, first))
	h.want(first, withdraw.Submitted)
	must(t, w.Submit(t.Context(), lease, second))
	h.want(second, withdraw.Approved)
	h.paid(1)

	// The first is given up by its approvers: what it held is free again.
	must(t, h.sandbox.SetBalance("", "USDT", "150"))
	h.clock.advance(time.Minute)
	must(t, w.Submit(t.Context(), lease, second))
	h.want(second, withdraw.Submitted)
}

// At once, with balances that were read before either was sent.
func TestPayoutsAtOnceDoNotShareABalance(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	must(t, h.sandbox.SetBalance("", "USDT", "150"))
	var ids []uuid.UUID
	for i := range 4 {
		ids = append(ids, h.approved(fmt.Sprint(100+i), fmt.Sprint("r", i)))
	}
	_, store := h.worker()
	lease := h.lease(store)
	var begun sync.Map
	var all sync.WaitGroup
	for _, id := range ids {
		all.Go(func() {
			sealed, err := h.owner.Proposal(context.Background(), id)
			must(t, err)
			p, err := withdraw.Unseal(sealed)
			must(t, err)
			_, err = store.BeginAttempt(context.Background(), lease, p, withdraw.DigestOf(sealed), exchange.Signed{Body: []byte("{}"), Timestamp: h.clock.now(), Window: time.Second}, 1,
				pgstore.Funds{Fee: decimal.NewFromInt(2), Available: decimal.NewFromInt(150), ReadAt: h.clock.now()}, h.clock.now())
			if err == nil {
				begun.Store(id, true)
			} else if !fault.Is(err, pgstore.ErrFunds.Code) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	n := 0
	begun.Range(func(any, any) bool { n++; return true })
	if n > 1 {
		t.Fatalf("%d payouts were begun of a balance that holds one", n)
	}
}

// A freeze stops money, not people: what they decide meanwhile is kept.
func TestAVoteAfterTheFreezeStillCounts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	id := h.request("25.5", "r1")
	must(t, h.api.Freeze(t.Context(), pgstore.Freeze{Scope: pgstore.ServiceScope, ReasonCode: "asked", Reason: "a drill", FrozenBy: "person:alice", FrozenAt: h.clock.now()}))
	if w := h.vote(id, h.voters[0], h.voters[1]); w.State != withdraw.Approved {
		t.Fatalf("votes under a freeze led to %s", w.State)
	}
}
