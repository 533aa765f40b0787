// Package money reads and writes amounts. Amounts are decimals in exact
// arithmetic; in text they are plain positive decimal strings and nothing else.
package money

import (
	"regexp"
	"strings"

	"github.com/shopspring/decimal"

	"sluice/internal/fault"
)

// Bounds of an amount. They are wider than any asset needs and narrow enough
// that no sum of them overflows numeric(48,18).
const (
	MaxIntegerDigits = 24
	MaxDecimals      = 18
)

// decimal.NewFromString accepts "1e10000", "+5", ".5" and a Unicode minus. A
// payout form that took those would be a way to say one amount and mean
// another, so text is gated by this pattern before any library sees it.
var plain = regexp.MustCompile(`^(0|[1-9][0-9]{0,23})(\.[0-9]{1,18})?$`)

// Parse reads a positive amount from text such as "25.5".
func Parse(s string) (decimal.Decimal, error) {
	if !plain.MatchString(s) {
		return decimal.Decimal{}, fault.New(fault.Invalid, "amount_malformed",
			"an amount is a plain decimal string such as \"25.5\", without sign, exponent, spaces or leading zeros, at most 24 digits before the point and 18 after",
			"send the amount as a string of digits with at most one point")
	}
	d, err := decimal.NewFromString(s)
	if err != nil {
		return decimal.Decimal{}, fault.New(fault.Invalid, "amount_malformed",
			"the amount is not a decimal number", "send the amount as a string of digits with at most one point")
	}
	if !d.IsPositive() {
		return decimal.Decimal{}, fault.New(fault.Invalid, "amount_not_positive",
			"the amount is zero", "ask for an amount above zero")
	}
	return d, nil
}

// Text is the one written form of an amount: no exponent, no trailing zeros.
// Equal amounts have equal texts, so the text may be hashed.
func Text(d decimal.Decimal) string { return d.String() }

// Decimals is how many digits after the point the amount needs.
func Decimals(d decimal.Decimal) int32 {
	t := Text(d)
	i := strings.IndexByte(t, '.')
	if i < 0 {
		return 0
	}
	return int32(len(t) - i - 1)
}
