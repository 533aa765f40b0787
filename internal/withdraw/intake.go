package withdraw

import (
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"sluice/internal/audit"
	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/money"
	"sluice/internal/policy"
	"sluice/internal/whitelist"
)

// Facts is what the database knew about one request at one moment. Decide turns it into
// an Entry; the statement that records the entry proves that the facts still hold.
type Facts struct {
	// Prior is the request already recorded under this idempotency key, if any.
	Prior *Prior
	// ReferenceTaken is the withdrawal that already uses the reference, if any.
	ReferenceTaken *uuid.UUID
	// ClientActive is false when the client is gone, disabled, or has another key
	// than the one that signed the token. Always true for people.
	ClientActive bool

	Destination *Listed // the entry that matches byte for byte, active or not
	Near        *Near   // an entry with the same address that does not match, to explain a refusal

	Chain        *ChainFact // what the exchange says of this asset and chain
	AssetKnown   bool       // it says something of the asset at all
	ConfigReadAt *time.Time // when the worker last read it; nil when never
}

// Prior is a request recorded earlier.
type Prior struct {
	BodyHash []byte
	Answer   Answer
}

// Listed is a destination as intake sees it.
type Listed struct {
	ID      uuid.UUID
	Version int
	State   whitelist.State
	Reason  string
}

// Near says in what a listed entry with the same address differs.
type Near struct {
	Account, Asset, Chain, Memo string
	Method                      exchange.Method
	State                       whitelist.State
}

// ChainFact is the exchange's configuration with the version under which it was read.
type ChainFact struct {
	Version int
	exchange.ChainConfig
}

// Entry is a decided request, ready to be recorded: accepted or refused.
type Entry struct {
	Withdrawal Withdrawal
	Request    Request
	Answer     Answer
	Sealed     []byte // the proposal; nil when refused
	Event      audit.Event
	// What the recording statement must find unchanged; zero when refused.
	DestinationVersion int
	ChainVersion       int
}

// feeSlack is how far above today's fee the ceiling of a request without one
// lies. Fees move by the hour; without slack a payout approved overnight would
// wait for a person over a cent, and without a ceiling it would pay anything.
var feeSlack = decimal.NewFromInt(2)

// Decide applies the intake rules in order and stops at the first that says no.
// It returns an error when nothing may be recorded: the sender's key is gone, or
// the mirror of the exchange is too old to judge by.
func Decide(r Request, f Facts, p policy.Policy, id uuid.UUID, now time.Time) (Entry, error) {
	if !f.ClientActive {
		return Entry{}, fault.New(fault.Unauthorized, "client_disabled",
			"this service client is disabled, or its key has been replaced since the token was signed",
			"sign a new token with the client's current key, or ask an admin of Sluice to enable the client")
	}
	if f.ConfigReadAt == nil || now.Sub(*f.ConfigReadAt) > p.MaxConfigAge {
		return Entry{}, fault.New(fault.Unavailable, "exchange_config_stale",
			"the exchange's minimum, precision and fees have not been read lately, so the request cannot be checked",
			"try again in a minute with the same Idempotency-Key; if it stays, the worker of this account is not running")
	}
	now = now.UTC().Truncate(time.Millisecond)
	w := Withdrawal{
		ID: id, Requester: r.Requester, Reference: r.Reference, Account: r.Account, Method: r.Method,
		Asset: r.Asset, Chain: r.Chain, Address: r.Address, Memo: r.Memo, Amount: r.Amount, Purpose: r.Purpose,
		Round: 1, CreatedAt: now, UpdatedAt: now,
	}
	if r.MaxFee != nil {
		w.MaxFee = decimal.NewNullDecimal(*r.MaxFee)
	}
	if f.Destination != nil {
		w.DestinationID = &f.Destination.ID
	}
	if no := check(r, f); no != nil {
		return refuse(w, r, no), nil
	}
	return accept(w, r, f, p, now)
}

// check runs the rules that refuse for good, in the order in which a person
// would mend them.
func check(r Request, f Facts) *fault.Error {
	if f.ReferenceTaken != nil {
		return fault.New(fault.Conflict, "reference_taken",
			fmt.Sprintf("your reference %q already belongs to withdrawal %s", r.Reference, f.ReferenceTaken),
			"use one reference per payout; if this is the same payout, send the Idempotency-Key that it was first sent with").On("reference")
	}
	if no := checkExchange(r, f); no != nil {
		return no
	}
	if err := whitelist.CheckAddress(r.Method, r.Asset, r.Chain, r.Address, r.Memo); err != nil {
		if no, ok := fault.As(err); ok {
			return no
		}
		return fault.New(fault.Invalid, "address_malformed", "the address cannot be read", "check the address").On("address").Because(err)
	}
	return checkListed(r, f)
}

func checkExchange(r Request, f Facts) *fault.Error {
	c := f.Chain
	switch {
	case !f.AssetKnown:
		return fault.New(fault.Refused, "asset_unknown",
			fmt.Sprintf("the exchange has no asset %q", r.Asset),
			"use the exchange's coin code, in its own case, such as \"USDT\"").On("asset")
	case c == nil:
		return fault.New(fault.Refused, "chain_unknown",
			fmt.Sprintf("the exchange does not send %s over a chain %q", r.Asset, r.Chain),
			"use the exchange's chain code, such as \"TRC20\"; its display names are not valid").On("chain")
	case !c.AssetEnabled:
		return fault.New(fault.Refused, "asset_suspended",
			fmt.Sprintf("the exchange has suspended withdrawals of %s", r.Asset),
			"ask again when the exchange has resumed them")
	case r.Method == exchange.OnChain && !c.ChainEnabled:
		return fault.New(fault.Refused, "chain_suspended",
			fmt.Sprintf("the exchange has suspended withdrawals of %s over %s", r.Asset, r.Chain),
			"ask again when the exchange has resumed them, or pay over another listed chain")
	case r.Method == exchange.InterUser && !c.InterUserEnabled:
		return fault.New(fault.Refused, "inter_user_suspended",
			fmt.Sprintf("the exchange has suspended transfers of %s between its users", r.Asset),
			"ask again when the exchange has resumed them")
	case money.Decimals(r.Amount) > c.Precision:
		return fault.New(fault.Refused, "amount_too_precise",
			fmt.Sprintf("the exchange takes at most %d decimals for %s over %s", c.Precision, r.Asset, r.Chain),
			"round the amount yourself; Sluice never rounds money").On("amount")
	case r.Method == exchange.OnChain && r.Amount.LessThan(c.MinAmount):
		return fault.New(fault.Refused, "amount_below_minimum",
			fmt.Sprintf("the exchange's minimum for %s over %s is %s", r.Asset, r.Chain, money.Text(c.MinAmount)),
			"ask for at least the minimum").On("amount")
	case r.MaxFee != nil && r.Method == exchange.OnChain && r.MaxFee.LessThan(c.Fee):
		return fault.New(fault.Refused, "fee_above_ceiling",
			fmt.Sprintf("the exchange's fee is %s %s now, above your ceiling of %s", money.Text(c.Fee), r.Asset, money.Text(*r.MaxFee)),
			"raise max_fee, or leave it out").On("max_fee")
	}
	return nil
}

// whitelistPage is where people keep the list that counts (facts 3.5).
const whitelistPage = "www.coinex.com/apikey"

func checkListed(r Request, f Facts) *fault.Error {
	if f.Destination != nil && f.Destination.State == whitelist.Quarantined {
		return fault.New(fault.Refused, "destination_quarantined",
			"this destination is quarantined: "+f.Destination.Reason,
			"mend the API withdrawal whitelist at "+whitelistPage+" and have the destination confirmed again in Sluice").On("address")
	}
	if f.Destination != nil && f.Destination.State == whitelist.Active {
		return nil
	}
	detail := "this destination is not on the API withdrawal whitelist as Sluice mirrors it"
	if n := f.Near; n != nil {
		detail += fmt.Sprintf("; the same address is listed for account %q, method %s, asset %s, chain %q, memo %q",
			n.Account, n.Method, n.Asset, n.Chain, n.Memo)
	}
	return fault.New(fault.Refused, "destination_not_listed", detail,
		"add it to the API withdrawal whitelist at "+whitelistPage+
			" (API Management, Withdrawal Whitelist; the address book of the withdrawal page is another list and does not count), then to Sluice's whitelist; entries match byte for byte").On("address")
}

func accept(w Withdrawal, r Request, f Facts, p policy.Policy, now time.Time) (Entry, error) {
	if !w.MaxFee.Valid {
		w.MaxFee = decimal.NewNullDecimal(f.Chain.Fee.Mul(feeSlack))
	}
	if r.Method == exchange.InterUser && r.MaxFee == nil {
		w.MaxFee = decimal.NewNullDecimal(decimal.Zero)
	}
	life := p.Expiry
	if r.ExpiresIn > 0 {
		life = min(life, r.ExpiresIn)
	}
	expires := now.Add(life)
	proposal := Proposal{
		ID: w.ID, Round: 1, Account: w.Account, Method: w.Method, Asset: w.Asset, Chain: w.Chain,
		Address: w.Address, Memo: w.Memo, Amount: w.Amount, MaxFee: w.MaxFee.Decimal,
		DestinationID: f.Destination.ID, DestinationVersion: f.Destination.Version,
		PolicyVersion: p.Version, Quorum: p.Quorum, Requester: w.Requester, Reference: w.Reference,
		Purpose: w.Purpose, ExpiresAt: expires,
	}
	sealed, err := proposal.Seal()
	if err != nil {
		return Entry{}, fmt.Errorf("seal: %w", err)
	}
	digest := DigestOf(sealed)
	w.State, w.Digest, w.ExpiresAt = Pending, digest, &expires
	return Entry{
		Withdrawal: w, Request: r, Sealed: sealed,
		Answer:             Answer{Status: http.StatusCreated, Body: JSON(w, p.Quorum.Approve)},
		DestinationVersion: f.Destination.Version, ChainVersion: f.Chain.Version,
		Event: audit.NewEvent(now, r.Requester, audit.WithdrawalRequested, w.ID, canonical.Object{
			"digest": fmt.Sprintf("%x", digest), "account": w.Account, "asset": w.Asset, "chain": w.Chain,
			"amount": money.Text(w.Amount), "address": w.Address, "memo": w.Memo, "reference": w.Reference,
		}),
	}, nil
}

func refuse(w Withdrawal, r Request, no *fault.Error) Entry {
	w.State, w.ReasonCode, w.Reason, w.Fix = Refused, no.Code, no.Detail, no.Fix
	problem := fault.ProblemOf(no)
	problem.Withdrawal = w.ID.String()
	return Entry{
		Withdrawal: w, Request: r,
		Answer: Answer{Status: problem.Status, Body: problem.JSON()},
		Event: audit.NewEvent(w.CreatedAt, r.Requester, audit.WithdrawalRefused, w.ID, canonical.Object{
			"code": no.Code, "account": w.Account, "asset": w.Asset, "chain": w.Chain,
			"amount": money.Text(w.Amount), "address": w.Address, "memo": w.Memo, "reference": w.Reference,
		}),
	}
}
