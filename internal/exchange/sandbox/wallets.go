package sandbox

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/fault"
	"sluice/internal/money"
)

// The wallets of an account between which POST /assets/transfer moves coins.
// There is a fourth, the financial one, that transfers do not reach.
const (
	spotWallet    = "SPOT"
	marginWallet  = "MARGIN"
	futuresWallet = "FUTURES"
)

// FuturesBalance is what the futures wallet has of one asset, in units of it,
// exactly as it is shown: the sandbox trades nothing, so nothing follows from
// prices or positions (facts 4.2).
type FuturesBalance struct {
	Available     decimal.Decimal `json:"available"`
	Frozen        decimal.Decimal `json:"frozen"`
	Margin        decimal.Decimal `json:"margin"`
	UnrealizedPnl decimal.Decimal `json:"unrealized_pnl"`
	Transferrable decimal.Decimal `json:"transferrable"`
	// Equity is what the websocket says; nil stands for the sum of Available,
	// Frozen and Margin, by the formula of facts 7.
	Equity *decimal.Decimal `json:"equity,omitempty"`
}

func (b FuturesBalance) equity() decimal.Decimal {
	if b.Equity != nil {
		return *b.Equity
	}
	return decimal.Sum(b.Available, b.Frozen, b.Margin)
}

// balanceRow is one coin of the spot or the financial wallet.
type balanceRow struct {
	Ccy       string          `json:"ccy"`
	Available decimal.Decimal `json:"available"`
	Frozen    decimal.Decimal `json:"frozen"`
}

// held lists the coins of a wallet that are there at all (facts 4.2).
func held(wallet map[string]decimal.Decimal) []balanceRow {
	rows := []balanceRow{}
	for _, ccy := range slices.Sorted(maps.Keys(wallet)) {
		if available := wallet[ccy]; available.IsPositive() {
			rows = append(rows, balanceRow{Ccy: ccy, Available: available})
		}
	}
	return rows
}

// spotBalance serves GET /assets/spot/balance.
func (s *Sandbox) spotBalance(c *call) answer { return succeed(held(c.account.Balances)) }

// financialBalance serves GET /assets/financial/balance.
func (s *Sandbox) financialBalance(c *call) answer { return succeed(held(c.account.Financial)) }

// futuresRow is one coin of GET /assets/futures/balance, and with its equity of
// the websocket.
type futuresRow struct {
	Ccy           string           `json:"ccy"`
	Available     decimal.Decimal  `json:"available"`
	Frozen        decimal.Decimal  `json:"frozen"`
	Margin        decimal.Decimal  `json:"margin"`
	Transferrable decimal.Decimal  `json:"transferrable"`
	UnrealizedPnl decimal.Decimal  `json:"unrealized_pnl"`
	Equity        *decimal.Decimal `json:"equity,omitempty"`
}

func (b FuturesBalance) row(ccy string) futuresRow {
	return futuresRow{ccy, b.Available, b.Frozen, b.Margin, b.Transferrable, b.UnrealizedPnl, nil}
}

// futuresBalance serves GET /assets/futures/balance. It never says the equity.
func (s *Sandbox) futuresBalance(c *call) answer {
	rows := []futuresRow{}
	for _, ccy := range slices.Sorted(maps.Keys(c.account.Futures)) {
		if b := c.account.Futures[ccy]; !b.equity().IsZero() {
			rows = append(rows, b.row(ccy))
		}
	}
	return succeed(rows)
}

func (s *Sandbox) pushFutures(a *account, ccy string) {
	b := a.Futures[ccy]
	row, equity := b.row(ccy), b.equity()
	row.Equity = &equity
	s.pushBalance(futures, a, ccy, row)
}

// pair is an amount of each side of a margin market.
type pair struct {
	Base  decimal.Decimal `json:"base_ccy"`
	Quote decimal.Decimal `json:"quote_ccy"`
}

// marginBalance serves GET /assets/margin/balance. Nothing is ever borrowed.
// The rate is misspelt as on the wire.
func (s *Sandbox) marginBalance(c *call) answer {
	type wireMargin struct {
		MarginAccount string `json:"margin_account"`
		BaseCcy       string `json:"base_ccy"`
		QuoteCcy      string `json:"quote_ccy"`
		Available     pair   `json:"available"`
		Frozen        pair   `json:"frozen"`
		Repaid        pair   `json:"repaid"`
		Interest      pair   `json:"interest"`
		RiskRate      string `json:"rik_rate"`
		LiqPrice      string `json:"liq_price"`
	}
	rows := []wireMargin{}
	for _, m := range spotMarkets {
		if w := c.account.Margin[m.Market]; w != nil {
			rows = append(rows, wireMargin{MarginAccount: m.Market, BaseCcy: m.BaseCcy, QuoteCcy: m.QuoteCcy, Available: pair{w[m.BaseCcy], w[m.QuoteCcy]}})
		}
	}
	return succeed(rows)
}

// transferred is one row of the transfer history.
type transferred struct {
	CreatedAt time.Time       `json:"created_at"`
	From      string          `json:"from"`
	To        string          `json:"to"`
	Market    string          `json:"market,omitempty"` // of a margin wallet
	Asset     string          `json:"ccy"`
	Amount    decimal.Decimal `json:"amount"`
}

// other is the wallet that is not the spot wallet.
func (t transferred) other() string {
	if t.From == spotWallet {
		return t.To
	}
	return t.From
}

// transfer serves POST /assets/transfer (facts 4.7). It is finished at once,
// and the account history has no row of it: no type of row fits.
func (s *Sandbox) transfer(c *call) answer {
	f := c.fields()
	t := transferred{CreatedAt: c.now, Asset: f.required("ccy"), From: f.required("from_account_type"), To: f.required("to_account_type"), Market: f.text("market")}
	amount, err := money.Parse(f.required("amount"))
	if err != nil {
		f.complain("amount must be a positive plain decimal")
	}
	t.Amount = amount
	for _, w := range []string{t.From, t.To} {
		if w != spotWallet && w != marginWallet && w != futuresWallet {
			f.complain("account types are SPOT, MARGIN and FUTURES")
		}
	}
	m := spotMarket(t.Market)
	switch {
	case t.From == t.To, t.From != spotWallet && t.To != spotWallet:
		f.complain("one of the two accounts must be SPOT")
	case (t.other() == marginWallet) != (t.Market != ""):
		f.complain("market belongs to MARGIN, and MARGIN to a market")
	case t.Market != "" && m == nil:
		f.complain("market is unknown")
	case m != nil && t.Asset != m.BaseCcy && t.Asset != m.QuoteCcy, s.state.asset(t.Asset) == nil:
		f.complain("ccy is unknown there")
	case err == nil && money.Decimals(amount) > transferPrecision:
		f.complain(fmt.Sprintf("amount has more than %d decimals", transferPrecision))
	}
	if f.wrong != "" {
		return *refuse(3639, f.wrong)
	}
	a := c.account
	if s.movable(a, t).LessThan(amount) {
		return *refuse(3109, "")
	}
	sign := func(w string) decimal.Decimal {
		if w == t.From {
			return amount.Neg()
		}
		return amount
	}
	a.Balances[t.Asset] = a.Balances[t.Asset].Add(sign(spotWallet))
	s.pushSpot(a, t.Asset, c.now)
	switch other := t.other(); other {
	case futuresWallet:
		if a.Futures == nil {
			a.Futures = map[string]FuturesBalance{}
		}
		b := a.Futures[t.Asset]
		b.Available = b.Available.Add(sign(other))
		b.Transferrable = b.Transferrable.Add(sign(other))
		if b.Equity != nil {
			moved := b.Equity.Add(sign(other))
			b.Equity = &moved
		}
		a.Futures[t.Asset] = b
		s.pushFutures(a, t.Asset)
	case marginWallet:
		if a.Margin == nil {
			a.Margin = map[string]map[string]decimal.Decimal{}
		}
		if a.Margin[t.Market] == nil {
			a.Margin[t.Market] = map[string]decimal.Decimal{}
		}
		w := a.Margin[t.Market]
		w[t.Asset] = w[t.Asset].Add(sign(other))
		s.pushBalance(spot, a, t.Asset, spotRow{MarginMarket: t.Market, Ccy: t.Asset, Available: w[t.Asset], UpdatedAt: c.now.UnixMilli()})
	}
	a.Transfers = append(a.Transfers, t)
	s.dirty = true
	return succeed(struct{}{})
}

// movable is what the wallet that a transfer starts from can give.
func (s *Sandbox) movable(a *account, t transferred) decimal.Decimal {
	switch t.From {
	case futuresWallet:
		b := a.Futures[t.Asset]
		return decimal.Min(b.Available, b.Transferrable)
	case marginWallet:
		return a.Margin[t.Market][t.Asset]
	default:
		return a.Balances[t.Asset]
	}
}

// transferHistory serves GET /assets/transfer-history (facts 4.7), newest first.
func (s *Sandbox) transferHistory(c *call) answer {
	f := c.fields()
	ccy := f.required("ccy")
	kind := f.required("transfer_type")
	start, end := f.integer("start_time", 0), f.integer("end_time", 0)
	status := f.text("status")
	page := f.page()
	if kind != "" && kind != marginWallet && kind != futuresWallet {
		f.complain("transfer_type must be MARGIN or FUTURES")
	}
	if !slices.Contains([]string{"", "created", "deducted", "failed", "finished"}, status) {
		f.complain("status is not a transfer status")
	}
	if f.wrong != "" {
		return *refuse(3639, f.wrong)
	}
	type wireTransfer struct {
		CreatedAt    int64           `json:"created_at"`
		From         string          `json:"from_account_type"`
		To           string          `json:"to_account_type"`
		MarginMarket string          `json:"margin_market,omitempty"`
		Ccy          string          `json:"ccy"`
		Amount       decimal.Decimal `json:"amount"`
		Status       string          `json:"status"`
	}
	rows := []wireTransfer{}
	for _, t := range slices.Backward(c.account.Transfers) {
		at := t.CreatedAt.UnixMilli()
		if t.Asset != ccy || t.other() != kind || at < start || end != 0 && at > end || status != "" && status != "finished" {
			continue
		}
		if page.holds() {
			rows = append(rows, wireTransfer{at, t.From, t.To, t.Market, t.Asset, t.Amount, "finished"})
		}
	}
	return page.answer(rows)
}

// FuturesChange sets what the futures wallet of an account shows of an asset,
// in plain decimals of which UnrealizedPnl and Equity may be negative. What is
// "" is zero; but Transferrable is then as much as Available, and Equity
// follows the formula of facts 7.
type FuturesChange struct {
	Account       string `json:"account"`
	Asset         string `json:"ccy"`
	Available     string `json:"available"`
	Frozen        string `json:"frozen"`
	Margin        string `json:"margin"`
	UnrealizedPnl string `json:"unrealized_pnl"`
	Transferrable string `json:"transferrable"`
	Equity        string `json:"equity"`
}

// SetFutures sets a futures balance and pushes it.
func (s *Sandbox) SetFutures(change FuturesChange) error {
	if change.Transferrable == "" {
		change.Transferrable = change.Available
	}
	var (
		b      FuturesBalance
		equity decimal.Decimal
	)
	for _, field := range []struct {
		to   *decimal.Decimal
		text string
		read func(string) (decimal.Decimal, error)
	}{
		{&b.Available, change.Available, quantity}, {&b.Frozen, change.Frozen, quantity}, {&b.Margin, change.Margin, quantity},
		{&b.Transferrable, change.Transferrable, quantity}, {&b.UnrealizedPnl, change.UnrealizedPnl, signed}, {&equity, change.Equity, signed},
	} {
		if field.text == "" {
			continue
		}
		v, err := field.read(field.text)
		if err != nil {
			return err
		}
		*field.to = v
	}
	if change.Equity != "" {
		b.Equity = &equity
	}
	return s.do(func(time.Time) error {
		a, err := s.find(change.Account)
		if err != nil {
			return err
		}
		if err := s.knowsAsset(change.Asset); err != nil {
			return err
		}
		if a.Futures == nil {
			a.Futures = map[string]FuturesBalance{}
		}
		a.Futures[change.Asset] = b
		s.pushFutures(a, change.Asset)
		s.dirty = true
		return nil
	})
}

// signed reads an amount of either sign.
func signed(text string) (decimal.Decimal, error) {
	positive, negative := strings.CutPrefix(text, "-")
	d, err := quantity(positive)
	if negative {
		d = d.Neg()
	}
	return d, err
}

// SetFinancialBalance sets what the financial wallet of an account has of an
// asset, as a plain decimal.
func (s *Sandbox) SetFinancialBalance(accountName, assetName, amount string) error {
	return s.setBalances(accountName, nil, map[string]string{assetName: amount})
}

func (s *Sandbox) knowsAsset(name string) error {
	if s.state.asset(name) == nil {
		return fault.New(fault.Invalid, "sandbox_asset_unknown",
			fmt.Sprintf("the sandbox has no asset %q", name), "use an asset of GET /v2/assets/all-deposit-withdraw-config")
	}
	return nil
}
