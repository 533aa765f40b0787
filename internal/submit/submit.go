// Package submit is how money leaves: it submits approved withdrawals, finds out
// what became of submissions whose answer was lost, and follows what the exchange
// has to its end. It holds the only code that calls Withdraw.
//
// Whatever breaks, one rule holds: an attempt row is committed before its bytes
// are sent, and nothing is sent for a withdrawal that has a live attempt. So a
// crash leaves something to look up, never something to send again.
package submit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"sluice/internal/approval"
	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/money"
	"sluice/internal/pgstore"
	"sluice/internal/policy"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

// Settings are what the exchange leaves undocumented or a treasury may choose.
type Settings struct {
	// Quiet is how long after a request's death the exchange may still take to
	// show a withdrawal in its history. Absence is believed only after it.
	Quiet time.Duration
	// Sweep is the pause between two readings of the exchange's history.
	Sweep time.Duration
	// Refresh is the pause between two readings of its configuration and balances.
	Refresh time.Duration
	// Lease is how long a silent worker keeps its account.
	Lease time.Duration
}

// Defaults are safe for production.
var Defaults = Settings{Quiet: time.Minute, Sweep: 5 * time.Second, Refresh: 30 * time.Second, Lease: 10 * time.Second}

const (
	// mostRefusals of one withdrawal may be tried again; then a person looks.
	mostRefusals = 5
	// retryAfter is the pause after a refusal that may be tried again (FAQ Q3: 1-2 s).
	retryAfter = 2 * time.Second
	// waitAfter is the pause when something outside must change first: funds, a
	// suspended chain, a fee above the ceiling.
	waitAfter = 15 * time.Second
)

// Submitter works for one account.
type Submitter struct {
	account  string
	exchange exchange.Exchange
	store    *pgstore.Store
	relying  approval.Relying
	settings Settings
	now      func() time.Time
	log      *slog.Logger

	// step is called between the steps of a submission, so that tests can end the
	// worker there as kill -9 would.
	step func(name string)
}

// New makes a submitter for an account.
func New(account string, ex exchange.Exchange, store *pgstore.Store, rp approval.Relying, s Settings, now func() time.Time, log *slog.Logger) *Submitter {
	return &Submitter{account: account, exchange: ex, store: store, relying: rp, settings: s, now: now,
		log: log.With("account", account), step: func(string) {}}
}

// Submit pays an approved withdrawal, at most once. It does nothing when the
// withdrawal is not ready or already on its way, so it may be called any number
// of times, by several workers at once.
func (s *Submitter) Submit(ctx context.Context, lease pgstore.LeaseOf, id uuid.UUID) error {
	w, err := s.store.Withdrawal(ctx, id)
	if err != nil {
		return err
	}
	if w.State != withdraw.Approved && w.State != withdraw.Submitting {
		return nil
	}
	s.step("read")

	// Step 1: check everything again. What the api and the database say is not
	// enough; the sealed bytes and the signatures over them are.
	p, digest, err := s.verify(ctx, w)
	if err != nil || p == nil {
		return err
	}
	funds, why := s.ready(ctx, *p)
	if why != nil {
		return s.store.Wait(ctx, w, why, s.now(), s.now().Add(waitAfter))
	}

	// Step 2: write down what is about to be sent, under the lease of the moment.
	number, err := s.nextAttempt(ctx, w)
	if err != nil || number == 0 {
		return err
	}
	order := p.Order(withdraw.Remark(p.ID, number))
	signed, err := s.exchange.Sign(ctx, order)
	if err != nil {
		return s.store.Wait(ctx, w, asFault(err, "signing_failed"), s.now(), s.now().Add(waitAfter))
	}
	s.step("signed")
	attempt, err := s.store.BeginAttempt(ctx, lease, *p, digest, signed, number, funds, s.now())
	no, _ := fault.As(err)
	switch {
	case fault.Is(err, pgstore.ErrTwin.Code):
		return s.store.Wait(ctx, w, no, s.now(), s.now().Add(retryAfter))
	case fault.Is(err, pgstore.ErrFunds.Code), fault.Is(err, pgstore.ErrFrozen.Code):
		return s.store.Wait(ctx, w, no, s.now(), s.now().Add(waitAfter))
	case fault.Is(err, pgstore.ErrUnwanted.Code):
		return s.store.GiveUp(ctx, w, no, s.now())
	case fault.Is(err, pgstore.ErrLive.Code), fault.Is(err, pgstore.ErrMoved.Code), fault.Is(err, pgstore.ErrFenced.Code):
		return nil // somebody else has it, or it has moved on
	case err != nil:
		return err
	}
	s.step("attempt written")

	// Step 3: the one call in this program that moves money. From here on the
	// caller's wish to stop does not count: the answer must be heard and kept.
	ctx = context.WithoutCancel(ctx)
	outcome := s.exchange.Withdraw(ctx, order, signed)
	s.step("answered")

	// Step 4: write down the answer.
	return s.record(ctx, attempt, outcome)
}

// verify checks the evidence and the destination. It returns no proposal when
// the withdrawal must not be paid; it has then been put where it belongs.
func (s *Submitter) verify(ctx context.Context, w withdraw.Withdrawal) (*withdraw.Proposal, []byte, error) {
	evidence, err := s.store.Evidence(ctx, w.ID, s.relying)
	if no, ok := fault.As(err); ok {
		return nil, nil, s.hold(ctx, w, no, nil)
	}
	if err != nil {
		return nil, nil, err
	}
	verdict := approval.Verify(evidence, s.now())
	switch verdict.Standing {
	case approval.Approved:
	case approval.Lapsed:
		if w.State == withdraw.Approved {
			return nil, nil, s.store.Expire(ctx, s.account, s.now())
		}
		return nil, nil, s.hold(ctx, w, fault.New(fault.Refused, "approval_lapsed",
			"the approval ran out while the exchange refused the submission; nothing was accepted", "cancel it and ask again"), nil)
	default:
		return nil, nil, s.hold(ctx, w, evidenceInvalid(fmt.Sprintf("the approval does not verify: %d of %d votes count",
			len(verdict.Approvals), verdict.Terms.Quorum.Approve)),
			canonical.Object{"standing": string(verdict.Standing), "faults": verdict.Faults, "ignored": verdict.Ignored})
	}
	p, err := withdraw.Unseal(evidence.Sealed)
	if err != nil || p.ID != w.ID || p.Account != s.account || p.PolicyVersion != policy.Default.Version || p.Round != w.Round {
		return nil, nil, s.hold(ctx, w, evidenceInvalid("the sealed proposal belongs to another withdrawal, account, round or policy"), nil)
	}
	d, err := s.store.Destination(ctx, p.DestinationID)
	if err != nil {
		return nil, nil, err
	}
	key := whitelist.Key{Account: p.Account, Method: p.Method, Asset: p.Asset, Chain: p.Chain, Address: p.Address, Memo: p.Memo}
	if d.State != whitelist.Active || d.Version != p.DestinationVersion || d.Key != key {
		return nil, nil, s.hold(ctx, w, fault.New(fault.Refused, "destination_changed",
			"the destination is no longer what was approved: it was removed, quarantined or changed since", "cancel it, mend the whitelist, and ask again"), nil)
	}
	return &p, verdict.Digest[:], nil
}

func evidenceInvalid(what string) *fault.Error {
	return fault.New(fault.Refused, "evidence_invalid", what, "do not pay this by hand; find out who changed the record, then cancel it")
}

// ready says what must change before the withdrawal can be sent, if anything must, and
// otherwise what it can be paid from.
func (s *Submitter) ready(ctx context.Context, p withdraw.Proposal) (pgstore.Funds, *fault.Error) {
	chains, err := s.exchange.Config(ctx, p.Asset)
	if err != nil {
		return pgstore.Funds{}, asFault(err, "exchange_unreachable")
	}
	fee, no := fits(p, chains)
	if no != nil {
		return pgstore.Funds{}, no
	}
	funds := pgstore.Funds{Fee: fee, ReadAt: s.now()}
	balances, err := s.exchange.Balances(ctx)
	if err != nil {
		return funds, asFault(err, "exchange_unreachable")
	}
	need := p.Amount.Add(fee)
	for _, b := range balances {
		if b.Asset == p.Asset && b.Available.GreaterThanOrEqual(need) {
			funds.Available = b.Available
			return funds, nil
		}
	}
	return funds, fault.New(fault.Unavailable, "funds_short",
		fmt.Sprintf("the account's spot wallet does not hold %s %s (amount and fee)", money.Text(need), p.Asset),
		"fund the account; the withdrawal is sent by itself when the money is there, or expires")
}

// fits checks a proposal against the exchange's configuration of this moment and
// returns the fee.
func fits(p withdraw.Proposal, chains []exchange.ChainConfig) (fee decimal.Decimal, no *fault.Error) {
	const resumes = "it is sent by itself when they resume, or expires"
	i := slices.IndexFunc(chains, func(c exchange.ChainConfig) bool {
		return c.Asset == p.Asset && (c.Chain == p.Chain || p.Method == exchange.InterUser)
	})
	if i < 0 {
		return fee, fault.New(fault.Unavailable, "chain_unknown", fmt.Sprintf("the exchange no longer sends %s over %q", p.Asset, p.Chain),
			"wait for the exchange, or cancel it")
	}
	c := chains[i]
	onChain := p.Method == exchange.OnChain
	switch {
	case !c.AssetEnabled, onChain && !c.ChainEnabled, !onChain && !c.InterUserEnabled:
		return fee, fault.New(fault.Unavailable, "withdrawals_suspended", fmt.Sprintf("the exchange has suspended %s withdrawals of %s %s", p.Method, p.Asset, p.Chain), resumes)
	case money.Decimals(p.Amount) > c.Precision, onChain && p.Amount.LessThan(c.MinAmount):
		return fee, fault.New(fault.Unavailable, "amount_no_longer_fits", "the exchange has raised its minimum or lowered its precision since the request", "cancel it and ask again")
	case !onChain:
		return fee, nil
	case c.Fee.GreaterThan(p.MaxFee):
		return fee, fault.New(fault.Unavailable, "fee_above_ceiling",
			fmt.Sprintf("the exchange's fee is %s %s now, above the approved ceiling of %s", money.Text(c.Fee), p.Asset, money.Text(p.MaxFee)),
			"it is sent by itself when the fee falls, or expires; a higher ceiling needs a new request")
	}
	return c.Fee, nil
}

// nextAttempt numbers the next attempt, or holds the withdrawal after too many
// refusals (0).
func (s *Submitter) nextAttempt(ctx context.Context, w withdraw.Withdrawal) (int, error) {
	all, refused, err := s.store.AttemptCount(ctx, w.ID)
	if err != nil {
		return 0, err
	}
	if refused >= mostRefusals {
		return 0, s.hold(ctx, w, fault.New(fault.Refused, "refused_too_often",
			fmt.Sprintf("the exchange refused it %d times; nothing was accepted. Its last words: %s", refused, w.Reason), "mend the cause, cancel it and ask again"), nil)
	}
	return all + 1, nil
}

// record writes an outcome down and moves the withdrawal accordingly.
func (s *Submitter) record(ctx context.Context, a withdraw.Attempt, o exchange.Outcome) error {
	now := s.now()
	log := s.log.With("withdrawal", a.WithdrawalID, "attempt", a.Number, "code", o.Code, "http_status", o.HTTPStatus)
	switch o.Class {
	case exchange.Accepted:
		log.InfoContext(ctx, "submission accepted", "exchange_id", o.Withdrawal.ID)
		return s.store.Accepted(ctx, a, o, pgstore.ByAnswer, now, now.Add(s.settings.Sweep))
	case exchange.NotAccepted:
		log.WarnContext(ctx, "submission refused", "next", string(o.Next), "reason", o.Reason)
		if o.Code == codeNotListed {
			if err := s.quarantine(ctx, a.WithdrawalID, o, now); err != nil {
				return err
			}
		}
		return s.store.NotAccepted(ctx, a, o, afterRefusal(o.Next), now, now.Add(retryAfter))
	}
	log.WarnContext(ctx, "submission unanswered", "reason", o.Reason)
	return s.store.LostAnswer(ctx, a, o, now, now.Add(s.settings.Sweep))
}

// codeNotListed is CoinEx's "Invalid Withdrawal Address" (facts 0.3).
const codeNotListed = 3310

func (s *Submitter) quarantine(ctx context.Context, id uuid.UUID, o exchange.Outcome, now time.Time) error {
	w, err := s.store.Withdrawal(ctx, id)
	if err != nil || w.DestinationID == nil {
		return err
	}
	return s.store.Quarantine(ctx, *w.DestinationID, o.Reason, "worker:"+s.account, now)
}

// afterRefusal is where a proven refusal leads.
func afterRefusal(n exchange.Next) withdraw.State {
	switch n {
	case exchange.Retry:
		return withdraw.Submitting
	case exchange.Fail:
		return withdraw.Failed
	}
	return withdraw.Held
}

// hold puts a withdrawal in front of a person, loudly.
func (s *Submitter) hold(ctx context.Context, w withdraw.Withdrawal, why *fault.Error, detail canonical.Object) error {
	s.log.ErrorContext(ctx, "ALARM: withdrawal held", "withdrawal", w.ID, "code", why.Code, "reason", why.Detail, "detail", detail)
	err := s.store.Hold(ctx, w, why, detail, s.now())
	if fault.Is(err, pgstore.ErrMoved.Code) {
		return nil // it has moved on meanwhile; whoever moved it looks after it
	}
	return err
}

// asFault keeps an error that has a sentence and gives one to any other.
func asFault(err error, code string) *fault.Error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	return fault.New(fault.Unavailable, code, "the exchange could not be asked", "nothing: it is tried again").Because(err)
}
