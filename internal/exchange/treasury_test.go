package exchange_test

import (
	"testing"

	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
)

func d(s string) decimal.Decimal { return decimal.RequireFromString(s) }

func TestEquityOf(t *testing.T) {
	balance := exchange.FuturesBalance{Asset: "USDT", Available: d("50"), Frozen: d("3"), Margin: d("10"), Unrealized: d("-0.3")}
	positions := []exchange.Position{
		{Market: "BTCUSDT", Side: exchange.Long, Size: d("0.01"), Entry: d("99000"), Settle: d("100000"), Realized: d("-0.5")},
		{Market: "ETHUSDT", Side: exchange.Short, Size: d("2"), Entry: d("3000"), Realized: d("0.1")},
		{Market: "NEWUSDT", Side: exchange.Long, Size: d("1"), Entry: d("1"), Unrealized: d("0.25")},
		{Market: "BTCUSDC", Side: exchange.Long, Size: d("9"), Entry: d("9"), Realized: d("9")}, // another asset's
		{Market: "BTCUSD", Side: exchange.Long, Size: d("9"), Entry: d("9"), Realized: d("9")},  // inverse
	}
	marks := map[string]decimal.Decimal{"BTCUSDT": d("100100"), "ETHUSDT": d("3000.5"), "BTCUSDC": d("1"), "BTCUSD": d("1")}

	e := exchange.EquityOf(balance, positions, marks)
	// long: 0.01 x 100 = 1; short from its entry price: -(2 x 0.5) = -1; unpriced: as the exchange says.
	for name, pair := range map[string][2]decimal.Decimal{
		"calculated": {e.Calculated, d("63")}, "unrealized": {e.Unrealized, d("0.25")},
		"settled": {e.Settled, d("62.75")}, "realized": {e.Realized, d("-0.4")},
	} {
		if !pair[0].Equal(pair[1]) {
			t.Errorf("%s: got %v, want %v", name, pair[0], pair[1])
		}
	}
	if len(e.Unpriced) != 1 || e.Unpriced[0] != "NEWUSDT" {
		t.Errorf("unpriced: %v", e.Unpriced)
	}
	if e.Reported.Valid || e.Difference.Valid || e.MarginExcludes {
		t.Errorf("a difference to a figure that nobody gave: %+v", e)
	}

	for reported, want := range map[string]struct {
		difference string
		excludes   bool
	}{
		"63":    {"0", false},
		"62.9":  {"-0.1", false},
		"62.71": {"-0.29", true},
		"62.7":  {"-0.3", true},
	} {
		balance.Equity = decimal.NewNullDecimal(d(reported))
		e := exchange.EquityOf(balance, positions, marks)
		if !e.Difference.Decimal.Equal(d(want.difference)) || e.MarginExcludes != want.excludes || !e.Reported.Decimal.Equal(d(reported)) {
			t.Errorf("reported %s: %+v", reported, e)
		}
	}
}
