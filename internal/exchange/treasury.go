package exchange

import (
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// MovementKind is why the spot wallet changed, in the exchange's words.
type MovementKind string

const (
	MovedIn            MovementKind = "deposit"
	MovedOut           MovementKind = "withdraw"
	Traded             MovementKind = "trade"
	MakerCashBack      MovementKind = "maker_cash_back"
	InvestmentInterest MovementKind = "investment_interest"
	OrderTransfer      MovementKind = "exchange_order_transfer"
)

// Movement is one change of the spot wallet. It names no withdrawal, but it is
// the only history that can be asked for by time.
type Movement struct {
	At      time.Time
	Kind    MovementKind
	Asset   string
	Change  decimal.Decimal // below zero when the wallet shrank
	Balance decimal.Decimal // after the change
}

// MovementQuery selects movements of one kind: the exchange answers for no
// more than one at a time.
type MovementQuery struct {
	Kind  MovementKind
	Asset string    // "" for all
	From  time.Time // inclusive; zero: from the beginning
	Until time.Time // inclusive; zero: until now on the exchange's clock
}

// Deposit is one row of the deposit history.
type Deposit struct {
	ID        int64
	CreatedAt time.Time
	Method    Method
	Asset     string
	Chain     string
	Address   string // ours, at the exchange
	Amount    decimal.Decimal
	TxID      string
	Confirms  int64
	Status    string // the exchange's word: processing, confirming, cancelled, finished, too_small, exception
}

// FuturesBalance is what the futures wallet holds of one asset.
type FuturesBalance struct {
	Asset        string
	Available    decimal.Decimal // usable for trading now
	Frozen       decimal.Decimal // reserved by open orders
	Margin       decimal.Decimal // of positions; documented to contain their unrealized part
	Unrealized   decimal.Decimal // the exchange's estimate
	Transferable decimal.Decimal // can be moved to the spot wallet now; only from there it can be withdrawn

	// Equity is the exchange's own figure. Only live updates carry one.
	Equity decimal.NullDecimal
}

// Side is the direction of a position.
type Side string

const (
	Long  Side = "long"
	Short Side = "short"
)

// Position is one open futures position.
type Position struct {
	ID          int64
	Market      string // such as "BTCUSDT"
	Side        Side
	Size        decimal.Decimal // open interest, in the market's base asset
	Entry       decimal.Decimal // average entry price
	Settle      decimal.Decimal // the price from which unrealized profit counts
	Margin      decimal.Decimal
	Unrealized  decimal.Decimal // the exchange's estimate, at mark or latest price
	Realized    decimal.Decimal // since the position was opened: fees, funding and closed parts
	Liquidation decimal.Decimal // price; zero when there is none
	UpdatedAt   time.Time

	// Event is why a live update came: update, close, sys_close, adl or liq.
	// After all but the first the position is smaller or gone. "" in a reading.
	Event string
}

// Ticker is the present price of a market.
type Ticker struct {
	Market string
	Last   decimal.Decimal
	Mark   decimal.Decimal // futures only; zero for spot
	Index  decimal.Decimal // futures only; zero for spot
}

// Maintenance is one announced pause of the exchange.
type Maintenance struct {
	From, Until time.Time
	Scope       []string // such as ALL_SITE, SPOT, FUTURES
	URL         string   // the announcement; shown as text, never followed by us
}

// Equity is what the futures wallet is worth in one asset, worked out by the
// exchange's published formula and set beside the exchange's own figure.
type Equity struct {
	Asset      string
	Calculated decimal.Decimal // Available + Frozen + Margin
	Unrealized decimal.Decimal // the part of it that moves with prices: open positions at their mark price
	Settled    decimal.Decimal // the rest: moved in, less moved out, plus everything realized
	Realized   decimal.Decimal // the part of Settled that the open positions have brought so far

	Reported   decimal.NullDecimal // FuturesBalance.Equity
	Difference decimal.NullDecimal // Reported - Calculated

	// MarginExcludes says that Reported fits better when Margin is taken not to
	// contain the unrealized part. The exchange's documents say that it does;
	// nobody has published a capture that proves it.
	MarginExcludes bool

	// Unpriced names markets without a mark price. The exchange's own estimate
	// stands in for them.
	Unpriced []string
}

// EquityOf works out the equity of one asset from its balance, the open
// positions, and mark prices by market. It counts the linear markets that are
// settled in the asset, such as BTCUSDT for USDT, and no inverse ones.
func EquityOf(b FuturesBalance, positions []Position, marks map[string]decimal.Decimal) Equity {
	e := Equity{Asset: b.Asset, Calculated: b.Available.Add(b.Frozen).Add(b.Margin), Reported: b.Equity}
	for _, p := range positions {
		if !strings.HasSuffix(p.Market, b.Asset) {
			continue
		}
		e.Realized = e.Realized.Add(p.Realized)
		mark, priced := marks[p.Market]
		if !priced || !mark.IsPositive() {
			e.Unpriced = append(e.Unpriced, p.Market)
			e.Unrealized = e.Unrealized.Add(p.Unrealized)
			continue
		}
		e.Unrealized = e.Unrealized.Add(p.gain(mark))
	}
	e.Settled = e.Calculated.Sub(e.Unrealized)
	if b.Equity.Valid {
		e.Difference = decimal.NewNullDecimal(b.Equity.Decimal.Sub(e.Calculated))
		other := e.Difference.Decimal.Sub(b.Unrealized)
		e.MarginExcludes = other.Abs().LessThan(e.Difference.Decimal.Abs())
	}
	return e
}

// gain is the unrealized profit at a mark price. The settlement price starts
// out as the entry price and moves when the exchange settles the position on
// its way.
func (p Position) gain(mark decimal.Decimal) decimal.Decimal {
	from := p.Settle
	if from.IsZero() {
		from = p.Entry
	}
	gain := mark.Sub(from).Mul(p.Size)
	if p.Side == Short {
		return gain.Neg()
	}
	return gain
}
