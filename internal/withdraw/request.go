package withdraw

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/whitelist"
)

// Request is a payout request whose shape has been checked and whose sender is known.
type Request struct {
	Requester      string // "client:NAME" or "person:ID"
	IdempotencyKey string
	BodyHash       [sha256.Size]byte // of the parsed request in canonical form: spelling does not matter, meaning does
	whitelist.Key
	Amount    decimal.Decimal // net
	MaxFee    *decimal.Decimal
	Reference string
	Purpose   string
	ExpiresIn time.Duration // 0 means the policy's

	// ClientKey is the public key that verified the sender's token. Intake
	// compares it with the one on record at that moment, so that a remembered
	// token dies with its client's key. Empty for people.
	ClientKey []byte
}

// Answer is the reply to a request: stored with the first and given again, byte for
// byte, to each later one with the same key.
type Answer struct {
	Status int
	Body   []byte
}

// methods is the closed list of ways to pay.
var methods = map[exchange.Method]bool{exchange.OnChain: true, exchange.InterUser: true}

// KnownMethod tells whether m is a way to pay.
func KnownMethod(m exchange.Method) bool { return methods[m] }

// Client is the name of the service client that asks; "" for people.
func (r Request) Client() string {
	name, ok := strings.CutPrefix(r.Requester, "client:")
	if !ok {
		return ""
	}
	return name
}

// Bounds of what a request may say.
const (
	MaxText      = 500 // characters of a purpose
	MaxReference = 128
	MaxKey       = 255
	MaxAddress   = 256
	MinExpiry    = 5 * time.Minute
)

// Shape checks what can be checked without knowing anything. Every surface that
// takes requests passes through it, so that none can hand in what another would
// refuse: text that a terminal or a page would show as something else, or that
// the database would not take.
func (r Request) Shape() *fault.Error {
	fields := []struct {
		name, value string
		most        int
		required    bool
	}{
		{"requester", r.Requester, 200, true},
		{"idempotency_key", r.IdempotencyKey, MaxKey, true},
		{"account", r.Account, 32, true},
		{"asset", r.Asset, 32, true},
		{"chain", r.Chain, 32, r.Method == exchange.OnChain},
		{"address", r.Address, MaxAddress, true},
		{"memo", r.Memo, MaxAddress, false},
		{"reference", r.Reference, MaxReference, true},
		{"purpose", r.Purpose, MaxText, true},
	}
	for _, f := range fields {
		switch {
		case f.required && f.value == "":
			return invalid(f.name, "field_missing", "is missing", "send it")
		case utf8.RuneCountInString(f.value) > f.most:
			return invalid(f.name, "field_too_long", fmt.Sprintf("is longer than %d characters", f.most), "shorten it")
		case !utf8.ValidString(f.value):
			return invalid(f.name, "text_invalid", "is not valid UTF-8", "send valid UTF-8")
		case strings.ContainsFunc(f.value, hidden):
			return invalid(f.name, "text_invalid", "holds a control character or one that changes how text is shown", "remove it")
		}
	}
	switch {
	case !KnownMethod(r.Method):
		return invalid("method", "method_unknown", "is neither on_chain nor inter_user", "leave it out for on_chain")
	case r.Method == exchange.InterUser && r.Chain != "":
		return invalid("chain", "chain_not_wanted", "is given, but a transfer between users has no chain", "leave chain out")
	case !r.Amount.IsPositive():
		return invalid("amount", "amount_not_positive", "is not above zero", "ask for an amount above zero")
	case r.MaxFee != nil && r.MaxFee.IsNegative():
		return invalid("max_fee", "amount_malformed", "is negative", "send zero or more")
	case r.ExpiresIn != 0 && r.ExpiresIn < MinExpiry:
		return invalid("expires_in", "expires_in_invalid", "is less than five minutes", "give people time to vote")
	}
	return nil
}

// hidden tells whether a rune is a control character or one of those by which
// one text is made to look like another (bidirectional overrides, zero width,
// fillers that print nothing).
func hidden(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point)
}

func invalid(field, code, what, fix string) *fault.Error {
	return fault.New(fault.Invalid, code, field+" "+what, fix).On(field)
}
