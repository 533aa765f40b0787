package withdraw_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"sluice/internal/approval"
	"sluice/internal/audit"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/policy"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

var (
	decidedAt = time.Date(2026, 11, 23, 10, 0, 0, 7_900_000, time.FixedZone("", 3600))
	newID     = uuid.MustParse("019ab0c5-7e00-7000-8000-000000000001")
	listedID  = uuid.MustParse("019ab0c5-7e00-7000-8000-000000000002")
	otherID   = uuid.MustParse("019ab0c5-7e00-7000-8000-000000000003")
)

func amount(s string) decimal.Decimal { return decimal.RequireFromString(s) }

func goodFacts() withdraw.Facts {
	read := decidedAt.Add(-time.Minute)
	return withdraw.Facts{
		ClientActive: true, AssetKnown: true, ConfigReadAt: &read,
		Destination: &withdraw.Listed{ID: listedID, Version: 3, State: whitelist.Active},
		Chain: &withdraw.ChainFact{Version: 5, ChainConfig: exchange.ChainConfig{
			Asset: "USDT", Chain: "TRC20", AssetEnabled: true, ChainEnabled: true, InterUserEnabled: true,
			MinAmount: amount("10"), Fee: amount("2.4"), Precision: 6,
		}},
	}
}

// decide runs Decide as intake does, on a request whose shape holds.
func decide(t *testing.T, r withdraw.Request, f withdraw.Facts) (withdraw.Entry, error) {
	t.Helper()
	if err := r.Shape(); err != nil {
		t.Fatalf("the request of this test is malformed: %v", err)
	}
	return withdraw.Decide(r, f, policy.Default, newID, decidedAt)
}

// Everything is wrong with this request at once; each step mends what the step before
// it was told. So the rules stand in one order, and each speaks alone.
func TestEveryRefusalInItsOrder(t *testing.T) {
	r, f := aRequest(), goodFacts()
	stale, fee := decidedAt.Add(-policy.Default.MaxConfigAge-1), amount("2.39")
	r.Amount, r.MaxFee, r.Address = amount("9.1234567"), &fee, "TJRabPrwbZy45sbavfcjinPJC18kjpRTv9"
	f.ClientActive, f.ConfigReadAt, f.ReferenceTaken, f.AssetKnown = false, nil, &otherID, false
	chain := f.Chain
	chain.AssetEnabled, chain.ChainEnabled, f.Chain = false, false, nil
	f.Destination.State, f.Destination.Reason = whitelist.Quarantined, "the exchange answered 3310"

	steps := []struct {
		code, field string
		status      int // of the recorded answer; 0 when nothing may be recorded
		mend        func()
	}{
		{"client_disabled", "", 0, func() { f.ClientActive = true }},
		{"exchange_config_stale", "", 0, func() { f.ConfigReadAt = &stale }},
		{"exchange_config_stale", "", 0, func() { at := decidedAt.Add(-policy.Default.MaxConfigAge); f.ConfigReadAt = &at }},
		{"reference_taken", "reference", 409, func() { f.ReferenceTaken = nil }},
		{"asset_unknown", "asset", 422, func() { f.AssetKnown = true }},
		{"chain_unknown", "chain", 422, func() { f.Chain = chain }},
		{"asset_suspended", "", 422, func() { chain.AssetEnabled = true }},
		{"chain_suspended", "", 422, func() { chain.ChainEnabled = true }},
		{"amount_too_precise", "amount", 422, func() { r.Amount = amount("9.999999") }},
		{"amount_below_minimum", "amount", 422, func() { r.Amount = amount("10") }},
		{"fee_above_ceiling", "max_fee", 422, func() { fee = amount("2.4") }},
		{"address_malformed", "address", 422, func() { r.Address = aRequest().Address }},
		{"destination_quarantined", "address", 422, func() { f.Destination = nil }},
		{"destination_not_listed", "address", 422, func() { f.Destination = goodFacts().Destination }},
	}
	for _, step := range steps {
		e, err := decide(t, r, f)
		if step.status == 0 {
			if !fault.Is(err, step.code) || !cmp.Equal(e, withdraw.Entry{}) {
				t.Fatalf("want %s and nothing recorded, got %+v, %v", step.code, e.Withdrawal, err)
			}
		} else {
			refused(t, e, err, step.code, step.field, step.status)
		}
		step.mend()
	}
	if e, err := decide(t, r, f); err != nil || e.Withdrawal.State != withdraw.Pending {
		t.Fatalf("all is mended, and still %s, %s, %v", e.Withdrawal.State, e.Withdrawal.ReasonCode, err)
	}
}

// refused checks that an entry is a recorded refusal and nothing that could be paid.
func refused(t *testing.T, e withdraw.Entry, err error, code, field string, status int) {
	t.Helper()
	var p fault.Problem
	if err != nil {
		t.Fatalf("want %s, got %v", code, err)
	}
	if err := json.Unmarshal(e.Answer.Body, &p); err != nil {
		t.Fatal(err)
	}
	w := e.Withdrawal
	if w.State != withdraw.Refused || w.ReasonCode != code || w.Reason == "" || w.Fix == "" || w.Digest != nil || w.ExpiresAt != nil ||
		e.Sealed != nil || e.DestinationVersion != 0 || e.ChainVersion != 0 {
		t.Fatalf("want %s, got %s with %s, sealed %q, versions %d and %d", code, w.State, e.Answer.Body, e.Sealed, e.DestinationVersion, e.ChainVersion)
	}
	if p.Code != code || p.Status != status || e.Answer.Status != status || p.Field != field || p.Withdrawal != newID.String() || p.Fix != w.Fix {
		t.Fatalf("want %s on %q with %d, got %s", code, field, status, e.Answer.Body)
	}
	if e.Event.Action != audit.WithdrawalRefused || e.Event.Withdrawal != newID || e.Event.Detail["code"] != code {
		t.Fatalf("the record says %+v", e.Event)
	}
	if _, err := e.Event.Body(); err != nil {
		t.Fatal(err)
	}
}

func TestOtherRefusals(t *testing.T) {
	fee := func(s string) *decimal.Decimal { d := amount(s); return &d }
	interUser := func(r *withdraw.Request) {
		r.Method, r.Chain, r.Address, r.Amount = exchange.InterUser, "", "ana@example.com", amount("0.01")
	}
	for name, c := range map[string]struct {
		change      func(r *withdraw.Request, f *withdraw.Facts)
		code, field string // "" when it is accepted
	}{
		"the minimum to the digit":   {func(r *withdraw.Request, f *withdraw.Facts) { r.Amount = amount("9.999999") }, "amount_below_minimum", "amount"},
		"the minimum itself":         {func(r *withdraw.Request, f *withdraw.Facts) { r.Amount = amount("10.000000") }, "", ""},
		"all decimals":               {func(r *withdraw.Request, f *withdraw.Facts) { r.Amount = amount("10.000001") }, "", ""},
		"one decimal more":           {func(r *withdraw.Request, f *withdraw.Facts) { r.Amount = amount("10.0000001") }, "amount_too_precise", "amount"},
		"zeros are no decimals":      {func(r *withdraw.Request, f *withdraw.Facts) { r.Amount = amount("10.0000000000") }, "", ""},
		"a ceiling of zero":          {func(r *withdraw.Request, f *withdraw.Facts) { r.MaxFee = fee("0") }, "fee_above_ceiling", "max_fee"},
		"a removed destination":      {func(r *withdraw.Request, f *withdraw.Facts) { f.Destination.State = whitelist.Removed }, "destination_not_listed", "address"},
		"a destination of odd state": {func(r *withdraw.Request, f *withdraw.Facts) { f.Destination.State = "" }, "destination_not_listed", "address"},
		"a tag that cannot be": {func(r *withdraw.Request, f *withdraw.Facts) {
			r.Asset, r.Chain, r.Address, r.Memo = "XRP", "XRP", "rrrrrrrrrrrrrrrrrrrrBZbvji", "ref 7"
		}, "memo_malformed", "memo"},
		"inter-user":                   {func(r *withdraw.Request, f *withdraw.Facts) { interUser(r) }, "", ""},
		"inter-user, suspended":        {func(r *withdraw.Request, f *withdraw.Facts) { interUser(r); f.Chain.InterUserEnabled = false }, "inter_user_suspended", ""},
		"inter-user, chain suspended":  {func(r *withdraw.Request, f *withdraw.Facts) { interUser(r); f.Chain.ChainEnabled = false }, "", ""},
		"on chain, inter-user stopped": {func(r *withdraw.Request, f *withdraw.Facts) { f.Chain.InterUserEnabled = false }, "", ""},
		"inter-user to an address":     {func(r *withdraw.Request, f *withdraw.Facts) { interUser(r); r.Address = aRequest().Address }, "address_malformed", "address"},
		"an unlisted inter-user":       {func(r *withdraw.Request, f *withdraw.Facts) { interUser(r); f.Destination = nil }, "destination_not_listed", "address"},
	} {
		t.Run(name, func(t *testing.T) {
			r, f := aRequest(), goodFacts()
			c.change(&r, &f)
			e, err := decide(t, r, f)
			if c.code != "" {
				refused(t, e, err, c.code, c.field, 422)
			} else if err != nil || e.Withdrawal.State != withdraw.Pending {
				t.Errorf("%v, %s", err, e.Answer.Body)
			}
		})
	}
}

func TestARefusalSaysWhichListAndWhatIsNear(t *testing.T) {
	r, f := aRequest(), goodFacts()
	f.Destination = nil
	f.Near = &withdraw.Near{Account: "reserve", Asset: "USDC", Chain: "TRC20", Memo: "7", Method: exchange.OnChain, State: whitelist.Active}
	e, err := decide(t, r, f)
	refused(t, e, err, "destination_not_listed", "address", 422)
	for _, want := range []string{`account "reserve"`, "asset USDC", `memo "7"`} {
		if !strings.Contains(e.Withdrawal.Reason, want) {
			t.Errorf("%q does not say %s", e.Withdrawal.Reason, want)
		}
	}
	if !strings.Contains(e.Withdrawal.Fix, "API withdrawal whitelist") || !strings.Contains(e.Withdrawal.Fix, "address book") {
		t.Errorf("%q does not say which list", e.Withdrawal.Fix)
	}
}

func TestAccept(t *testing.T) {
	r, f := aRequest(), goodFacts()
	e, err := decide(t, r, f)
	if err != nil {
		t.Fatal(err)
	}
	at := decidedAt.UTC().Truncate(time.Millisecond)
	p, err := withdraw.Unseal(e.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	want := withdraw.Proposal{
		ID: newID, Round: 1, Account: r.Account, Method: r.Method, Asset: r.Asset, Chain: r.Chain, Address: r.Address, Memo: r.Memo,
		Amount: r.Amount, MaxFee: amount("4.8"), // twice the fee of today
		DestinationID: listedID, DestinationVersion: 3, PolicyVersion: "builtin-1", Quorum: approval.Quorum{Approve: 2, Reject: 1},
		Requester: r.Requester, Reference: r.Reference, Purpose: r.Purpose, ExpiresAt: at.Add(24 * time.Hour),
	}
	if d := cmp.Diff(want, p); d != "" {
		t.Error(d)
	}
	w := e.Withdrawal
	if w.State != withdraw.Pending || w.Round != 1 || !bytes.Equal(w.Digest, withdraw.DigestOf(e.Sealed)) || !w.ExpiresAt.Equal(p.ExpiresAt) ||
		*w.DestinationID != listedID || !w.MaxFee.Decimal.Equal(p.MaxFee) || !w.CreatedAt.Equal(at) || !w.UpdatedAt.Equal(at) || w.ReasonCode != "" {
		t.Errorf("%+v", w)
	}
	if e.DestinationVersion != 3 || e.ChainVersion != 5 {
		t.Errorf("the recording statement would not find what was checked: %d, %d", e.DestinationVersion, e.ChainVersion)
	}
	if e.Answer.Status != 201 || !bytes.Equal(e.Answer.Body, withdraw.JSON(w, 2)) {
		t.Errorf("%d %s", e.Answer.Status, e.Answer.Body)
	}
	if e.Event.Action != audit.WithdrawalRequested || e.Event.Actor != r.Requester || e.Event.Withdrawal != newID ||
		e.Event.Detail["digest"] != approval.DigestOf(e.Sealed).String() || e.Event.Detail["amount"] != "25.5" {
		t.Errorf("the record says %+v", e.Event)
	}
	// The votes are counted against what was sealed here.
	v := approval.Verify(approval.Evidence{Sealed: e.Sealed, Floor: policy.Default.Quorum}, decidedAt)
	if v.Standing != approval.Open || v.Missing != 2 || v.Terms.Requester != r.Requester {
		t.Errorf("%+v", v)
	}
}

func TestTheEndAndTheCeilingOfAnAcceptedRequest(t *testing.T) {
	fee := func(s string) *decimal.Decimal { d := amount(s); return &d }
	for name, c := range map[string]struct {
		change func(r *withdraw.Request, f *withdraw.Facts)
		life   time.Duration
		maxFee string
	}{
		"a shorter life": {func(r *withdraw.Request, f *withdraw.Facts) { r.ExpiresIn = time.Hour }, time.Hour, "4.8"},
		"a longer life than the policy's is not given": {func(r *withdraw.Request, f *withdraw.Facts) { r.ExpiresIn = 1000 * time.Hour },
			24 * time.Hour, "4.8"},
		"a ceiling of one's own": {func(r *withdraw.Request, f *withdraw.Facts) { r.MaxFee = fee("2.4") }, 24 * time.Hour, "2.4"},
		"no fee today":           {func(r *withdraw.Request, f *withdraw.Facts) { f.Chain.Fee = decimal.Zero }, 24 * time.Hour, "0"},
		"inter-user pays no fee": {func(r *withdraw.Request, f *withdraw.Facts) {
			r.Method, r.Chain, r.Address = exchange.InterUser, "", "ana@example.com"
		}, 24 * time.Hour, "0"},
	} {
		r, f := aRequest(), goodFacts()
		c.change(&r, &f)
		e, err := decide(t, r, f)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		p, err := withdraw.Unseal(e.Sealed)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if life := p.ExpiresAt.Sub(e.Withdrawal.CreatedAt); life != c.life || !p.MaxFee.Equal(amount(c.maxFee)) {
			t.Errorf("%s: lives %s under a ceiling of %s, want %s and %s", name, life, p.MaxFee, c.life, c.maxFee)
		}
	}
}

// A fee that the mirror holds and money cannot say must not end in a proposal that
// people approve and no worker can read.
func TestAFeeThatCannotBeSealedIsAnError(t *testing.T) {
	r, f := aRequest(), goodFacts()
	f.Chain.Fee = amount("0.0000000000000000001")
	if e, err := decide(t, r, f); err == nil {
		t.Errorf("sealed %s", e.Sealed)
	}
}
