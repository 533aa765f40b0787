package money_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"sluice/internal/fault"
	"sluice/internal/money"
)

func TestParseTakesPlainDecimals(t *testing.T) {
	for text, want := range map[string]string{
		"1": "1", "25.5": "25.5", "25.50": "25.5", "100": "100", "100.00": "100", "0.1": "0.1", "10.010": "10.01",
		"0.000000000000000001":                        "0.000000000000000001",
		"999999999999999999999999.999999999999999999": "999999999999999999999999.999999999999999999",
	} {
		d, err := money.Parse(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := money.Text(d); got != want {
			t.Errorf("%q is written %q, want %q", text, got, want)
		}
	}
}

// Each of these is an amount to some reader, and some are another amount to
// another: "1,5" is one and a half here and fifteen there.
var refused = []string{
	"", " ", "1 ", " 1", "1\n", "\t1", "1\x00", "\x001", "\ufeff1", "1\u00a0", "1\u200b",
	"1e3", "1E3", "1e-3", "1e10000", "1e1000000000", "0x10", "0b1", "0o7", "1p4",
	"-1", "+1", "\u22121", "\u20131", "--1", "1-", "-0", "+0.5",
	".5", "5.", ".", "1..5", "1.5.5", "01", "00", "00.5", "-.5",
	"1_0", "1,5", "1,000", "1'000", "1 000", "1\u066b5", "$1", "1 USDT", "1%", "1/2", "½", "(1)",
	"١", "１", "1２", "१", "𝟏", "1.５", "一",
	"NaN", "nan", "Inf", "-Inf", "Infinity", "infinity", "null", "true", "1n", "\"1\"",
	"1000000000000000000000000",    // 25 digits before the point
	"1.0000000000000000001",        // 19 decimals
	"0.00000000000000000000000001", // would be rounded to nothing by numeric(48,18)
	"1.0000000000000000000",        // 19 decimals, though all are zero
	strings.Repeat("9", 100_000), "0." + strings.Repeat("0", 100_000) + "1",
	"\xff", "1\xff", "\xd9\xa1",
}

func TestParseRefusesEverythingElse(t *testing.T) {
	for _, text := range refused {
		d, err := money.Parse(text)
		if !fault.Is(err, "amount_malformed") {
			t.Errorf("%.60q: %v, %v; want amount_malformed", text, d, err)
		}
	}
	for _, text := range []string{"0", "0.0", "0.000000000000000000"} {
		if d, err := money.Parse(text); !fault.Is(err, "amount_not_positive") {
			t.Errorf("%q: %v, %v; want amount_not_positive", text, d, err)
		}
	}
}

func TestTextHasNoExponent(t *testing.T) {
	for _, c := range []struct {
		d        decimal.Decimal
		want     string
		decimals int32
	}{
		{decimal.Zero, "0", 0}, {decimal.New(0, 5), "0", 0}, {decimal.New(0, -5), "0", 0},
		{decimal.New(1, 3), "1000", 0}, {decimal.New(1000, -3), "1", 0}, {decimal.New(1500, -3), "1.5", 1},
		{decimal.New(1, -18), "0.000000000000000001", 18}, {decimal.New(10, 0), "10", 0}, {decimal.New(100100, -3), "100.1", 1},
	} {
		if got := money.Text(c.d); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
		if got := money.Decimals(c.d); got != c.decimals {
			t.Errorf("%s: %d decimals, want %d", c.want, got, c.decimals)
		}
	}
}

// spelling draws an accepted text by the grammar in words: digits without a
// leading zero, then perhaps a point and 1 to 18 digits.
func spelling(t *rapid.T) string {
	whole := rapid.StringMatching(`0|[1-9][0-9]{0,23}`).Draw(t, "whole")
	part := rapid.StringMatching(`|\.[0-9]{1,18}`).Draw(t, "part")
	if strings.Trim(whole+part, "0.") == "" {
		return "0.1"
	}
	return whole + part
}

func TestEqualAmountsHaveEqualTexts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := spelling(t)
		d, err := money.Parse(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		once := money.Text(d)
		again, err := money.Parse(once)
		if err != nil || !again.Equal(d) || money.Text(again) != once {
			t.Fatalf("%q became %q and then %v, %v", text, once, again, err)
		}
		// The same amount by other ways: another exponent, and back from a sum.
		shift := rapid.Int32Range(0, 12).Draw(t, "shift")
		scaled := decimal.NewFromBigInt(d.Shift(18+shift).BigInt(), -18-shift)
		sum := d.Add(decimal.New(7, -3)).Sub(decimal.New(7, -3))
		if money.Text(scaled) != once || money.Text(sum) != once {
			t.Fatalf("%q, %q and %q are one amount", once, money.Text(scaled), money.Text(sum))
		}
		if n := money.Decimals(d); n < 0 || n > money.MaxDecimals || !d.Truncate(n).Equal(d) || (n > 0 && d.Truncate(n-1).Equal(d)) {
			t.Fatalf("%s does not need exactly %d decimals", once, n)
		}

		other, err := money.Parse(spelling(t))
		if err != nil {
			t.Fatal(err)
		}
		if (money.Text(other) == once) != other.Equal(d) {
			t.Fatalf("%q and %q: texts are equal if and only if amounts are", money.Text(other), once)
		}
	})
}

// plain repeats the rule on purpose, byte by byte.
func plain(s string) bool {
	whole, part, point := strings.Cut(s, ".")
	digits := func(s string, most int) bool { return s != "" && len(s) <= most && strings.Trim(s, "0123456789") == "" }
	return digits(whole, money.MaxIntegerDigits) && (whole == "0" || whole[0] != '0') && (!point || digits(part, money.MaxDecimals))
}

func FuzzParse(f *testing.F) {
	for _, s := range append(refused, "1", "25.50", "0.000000000000000001", "0", "0.0") {
		if len(s) < 1000 {
			f.Add(s)
		}
	}
	form := regexp.MustCompile(`^(0|[1-9][0-9]*)(\.[0-9]*[1-9])?$`)
	f.Fuzz(func(t *testing.T, s string) {
		d, err := money.Parse(s)
		if want := plain(s) && strings.Trim(s, "0.") != ""; (err == nil) != want {
			t.Fatalf("%q: %v, %v", s, d, err)
		}
		if err != nil {
			return
		}
		text := money.Text(d)
		again, err := money.Parse(text)
		if err != nil || !again.Equal(d) || !form.MatchString(text) {
			t.Fatalf("%q is written %q and read back as %v, %v", s, text, again, err)
		}
	})
}
