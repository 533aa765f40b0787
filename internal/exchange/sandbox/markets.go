package sandbox

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/fault"
	"sluice/internal/money"
)

// pairRow is one row of GET /spot/market (facts 4.6).
type pairRow struct {
	Market                string `json:"market"`
	TakerFeeRate          string `json:"taker_fee_rate"`
	MakerFeeRate          string `json:"maker_fee_rate"`
	MinAmount             string `json:"min_amount"`
	BaseCcy               string `json:"base_ccy"`
	QuoteCcy              string `json:"quote_ccy"`
	BaseCcyPrecision      int    `json:"base_ccy_precision"`
	QuoteCcyPrecision     int    `json:"quote_ccy_precision"`
	Status                string `json:"status"`
	DelistedAt            int64  `json:"delisted_at"`
	IsAmmAvailable        bool   `json:"is_amm_available"`
	IsMarginAvailable     bool   `json:"is_margin_available"`
	IsPreTradingAvailable bool   `json:"is_pre_trading_available"`
	IsPreMarketTrading    bool   `json:"is_pre_market_trading_available"`
	IsAPITradingAvailable bool   `json:"is_api_trading_available"`
}

func onSpot(base, minimum string, basePrecision, quotePrecision int) pairRow {
	return pairRow{
		Market: base + "USDT", TakerFeeRate: "0.002", MakerFeeRate: "0.002", MinAmount: minimum, BaseCcy: base, QuoteCcy: "USDT",
		BaseCcyPrecision: basePrecision, QuoteCcyPrecision: quotePrecision, Status: "online", IsMarginAvailable: true, IsAPITradingAvailable: true,
	}
}

// spotMarkets are the sandbox's assets against USDT.
var spotMarkets = []pairRow{
	onSpot("BTC", "0.0001", 8, 2), onSpot("ETH", "0.001", 8, 2), onSpot("SOL", "0.05", 8, 4), onSpot("TRX", "50", 8, 6), onSpot("XRP", "10", 8, 6),
}

// contractRow is one row of GET /futures/market (facts 4.6).
type contractRow struct {
	Market                string   `json:"market"`
	ContractType          string   `json:"contract_type"`
	TakerFeeRate          string   `json:"taker_fee_rate"`
	MakerFeeRate          string   `json:"maker_fee_rate"`
	MinAmount             string   `json:"min_amount"`
	BaseCcy               string   `json:"base_ccy"`
	QuoteCcy              string   `json:"quote_ccy"`
	BaseCcyPrecision      int      `json:"base_ccy_precision"`
	QuoteCcyPrecision     int      `json:"quote_ccy_precision"`
	TickSize              string   `json:"tick_size"`
	Leverage              []string `json:"leverage"`
	OpenInterestVolume    string   `json:"open_interest_volume"`
	Status                string   `json:"status"`
	IsMarketAvailable     bool     `json:"is_market_available"`
	IsAPITradingAvailable bool     `json:"is_api_trading_available"`
}

func onFutures(base, minimum string) contractRow {
	return contractRow{
		Market: base + "USDT", ContractType: "linear", TakerFeeRate: "0.0005", MakerFeeRate: "0.0003", MinAmount: minimum, BaseCcy: base, QuoteCcy: "USDT",
		BaseCcyPrecision: 8, QuoteCcyPrecision: 2, TickSize: "0.01", Leverage: []string{"1", "2", "3", "5", "8", "10", "15", "20", "30", "50", "100"},
		OpenInterestVolume: "0", Status: "online", IsMarketAvailable: true, IsAPITradingAvailable: true,
	}
}

var contracts = []contractRow{onFutures("BTC", "0.0001"), onFutures("ETH", "0.005")}

func startPrices() map[string]decimal.Decimal {
	return map[string]decimal.Decimal{
		"BTCUSDT": decimal.New(65000, 0), "ETHUSDT": decimal.New(3200, 0), "SOLUSDT": decimal.New(150, 0),
		"TRXUSDT": decimal.New(12, -2), "XRPUSDT": decimal.New(5, -1),
	}
}

func spotMarket(name string) *pairRow {
	if i := slices.IndexFunc(spotMarkets, func(m pairRow) bool { return m.Market == name }); i >= 0 {
		return &spotMarkets[i]
	}
	return nil
}

func contract(name string) *contractRow {
	if i := slices.IndexFunc(contracts, func(m contractRow) bool { return m.Market == name }); i >= 0 {
		return &contracts[i]
	}
	return nil
}

// maxMarkets is how many markets one query may name.
const maxMarkets = 10

// chosen reads the query "market", a list with commas. It returns which rows
// to show; without the query that is all of them.
func (c *call) chosen() (func(string) bool, *answer) {
	list := c.fields().text("market")
	if list == "" {
		return func(string) bool { return true }, nil
	}
	wanted := strings.Split(list, ",")
	if len(wanted) > maxMarkets {
		return nil, refuse(3639, fmt.Sprintf("at most %d markets", maxMarkets))
	}
	return func(name string) bool { return slices.Contains(wanted, name) }, nil
}

// spotMarket serves GET /spot/market.
func (s *Sandbox) spotMarket(c *call) answer {
	shown, refused := c.chosen()
	if refused != nil {
		return *refused
	}
	rows := []pairRow{}
	for _, m := range spotMarkets {
		if shown(m.Market) {
			rows = append(rows, m)
		}
	}
	return succeed(rows)
}

// futuresMarket serves GET /futures/market.
func (s *Sandbox) futuresMarket(c *call) answer {
	shown, refused := c.chosen()
	if refused != nil {
		return *refused
	}
	rows := []contractRow{}
	for _, m := range contracts {
		if shown(m.Market) {
			rows = append(rows, m)
		}
	}
	return succeed(rows)
}

// ticker is one row of a ticker. Nobody trades here: the price is all there is.
type ticker struct {
	Market             string           `json:"market"`
	Last               decimal.Decimal  `json:"last"`
	Open               decimal.Decimal  `json:"open"`
	Close              decimal.Decimal  `json:"close"`
	High               decimal.Decimal  `json:"high"`
	Low                decimal.Decimal  `json:"low"`
	Volume             string           `json:"volume"`
	VolumeSell         string           `json:"volume_sell"`
	VolumeBuy          string           `json:"volume_buy"`
	Value              string           `json:"value"`
	Period             int              `json:"period"`
	IndexPrice         *decimal.Decimal `json:"index_price,omitempty"` // futures only, as the rest
	MarkPrice          *decimal.Decimal `json:"mark_price,omitempty"`
	OpenInterestVolume string           `json:"open_interest_volume,omitempty"`
}

func (s *Sandbox) ticker(name string) ticker {
	p := s.state.Prices[name]
	return ticker{Market: name, Last: p, Open: p, Close: p, High: p, Low: p, Volume: "0", VolumeSell: "0", VolumeBuy: "0", Value: "0", Period: 86400}
}

// spotTicker serves GET /spot/ticker.
func (s *Sandbox) spotTicker(c *call) answer {
	shown, refused := c.chosen()
	if refused != nil {
		return *refused
	}
	rows := []ticker{}
	for _, m := range spotMarkets {
		if shown(m.Market) {
			rows = append(rows, s.ticker(m.Market))
		}
	}
	return succeed(rows)
}

// futuresTicker serves GET /futures/ticker. The mark price is the spot price.
func (s *Sandbox) futuresTicker(c *call) answer {
	shown, refused := c.chosen()
	if refused != nil {
		return *refused
	}
	rows := []ticker{}
	for _, m := range contracts {
		if shown(m.Market) {
			t := s.ticker(m.Market)
			t.IndexPrice, t.MarkPrice, t.OpenInterestVolume = &t.Last, &t.Last, m.OpenInterestVolume
			rows = append(rows, t)
		}
	}
	return succeed(rows)
}

// chainNames are how people read chain codes; GET /assets/info shows only
// these, which no withdrawal accepts (facts 4.1).
var chainNames = map[string]string{
	"BTC": "Bitcoin", "ERC20": "Ethereum (ERC20)", "TRC20": "TRON (TRC20)", "BSC": "BNB Smart Chain (BEP20)", "SOL": "Solana", "XRP": "Ripple",
}

var assetNames = map[string]string{
	"BTC": "Bitcoin", "ETH": "Ethereum", "SOL": "Solana", "TRX": "TRON", "USDT": "Tether USD", "XRP": "Ripple",
}

// assetInfo serves GET /assets/info (facts 4.5).
func (s *Sandbox) assetInfo(c *call) answer {
	type chainInfo struct {
		ChainName   string `json:"chain_name"`
		Identity    string `json:"identity"`
		ExplorerURL string `json:"explorer_url"`
	}
	type info struct {
		ShortName     string      `json:"short_name"`
		FullName      string      `json:"full_name"`
		WebsiteURL    string      `json:"website_url"`
		WhitePaperURL string      `json:"white_paper_url"`
		ChainInfo     []chainInfo `json:"chain_info"`
	}
	ccy := c.fields().text("ccy")
	rows := []info{}
	for _, coin := range s.state.Assets {
		if ccy != "" && ccy != coin.Asset.Ccy {
			continue
		}
		row := info{ShortName: coin.Asset.Ccy, FullName: assetNames[coin.Asset.Ccy], ChainInfo: []chainInfo{}}
		for _, ch := range coin.Chains {
			row.ChainInfo = append(row.ChainInfo, chainInfo{ChainName: chainNames[ch.Chain], ExplorerURL: ch.ExplorerAssetURL})
		}
		rows = append(rows, row)
	}
	return succeed(rows)
}

// SetPrice sets the last price of a spot market, which is also the mark price
// of its contract, as a plain decimal. Positions there change their unrealized
// gain, and their owners are told.
func (s *Sandbox) SetPrice(marketName, price string) error {
	return s.setPrices(map[string]string{marketName: price})
}

func (s *Sandbox) setPrices(set map[string]string) error {
	parsed := map[string]decimal.Decimal{}
	for name, text := range set {
		p, err := money.Parse(text)
		if err != nil {
			return err
		}
		if spotMarket(name) == nil {
			return fault.New(fault.Invalid, "sandbox_market_unknown",
				fmt.Sprintf("the sandbox has no market %q", name), "use a market of GET /v2/spot/market")
		}
		parsed[name] = p
	}
	return s.do(func(now time.Time) error {
		for name, p := range parsed {
			s.state.Prices[name] = p
		}
		for _, a := range s.state.Accounts {
			for _, p := range a.Positions {
				if _, moved := parsed[p.Market]; moved {
					p.UpdatedAt = now
					s.pushPosition(a, p, "update")
				}
			}
		}
		s.dirty = true
		return nil
	})
}

// Position is one open futures position.
type Position struct {
	ID           int64           `json:"position_id"`
	CreatedAt    time.Time       `json:"created_at"`
	UpdatedAt    time.Time       `json:"updated_at"`
	Market       string          `json:"market"`
	Side         string          `json:"side"`        // long or short
	MarginMode   string          `json:"margin_mode"` // cross or isolated
	OpenInterest decimal.Decimal `json:"open_interest"`
	EntryPrice   decimal.Decimal `json:"avg_entry_price"`
	SettlePrice  decimal.Decimal `json:"settle_price"`
	RealizedPnl  decimal.Decimal `json:"realized_pnl"`
	Leverage     decimal.Decimal `json:"leverage"`
	Margin       decimal.Decimal `json:"margin_avbl"`
}

// firstPosition is the id of the first position.
const firstPosition = 305891033

// PositionChange opens or changes the position of an account in a market, or
// closes it with an OpenInterest of "0". Numbers are plain decimals;
// RealizedPnl may be negative. What is "": long, cross, a leverage of 1, a
// settle price as the entry price, a margin of value through leverage.
type PositionChange struct {
	Account      string `json:"account"`
	Market       string `json:"market"`
	Side         string `json:"side"`
	MarginMode   string `json:"margin_mode"`
	OpenInterest string `json:"open_interest"`
	EntryPrice   string `json:"avg_entry_price"`
	SettlePrice  string `json:"settle_price"`
	RealizedPnl  string `json:"realized_pnl"`
	Leverage     string `json:"leverage"`
	Margin       string `json:"margin_avbl"`
}

// SetPosition opens, changes or closes a position and pushes it. It touches no
// balance: SetFutures does that.
func (s *Sandbox) SetPosition(change PositionChange) error {
	no := func(detail, fix string) error {
		return fault.New(fault.Invalid, "sandbox_position_malformed", detail, fix)
	}
	or := func(text *string, otherwise string) {
		if *text == "" {
			*text = otherwise
		}
	}
	or(&change.Side, "long")
	or(&change.MarginMode, "cross")
	or(&change.Leverage, "1")
	or(&change.SettlePrice, change.EntryPrice)
	or(&change.RealizedPnl, "0")
	switch {
	case contract(change.Market) == nil:
		return no(fmt.Sprintf("the sandbox has no contract %q", change.Market), "use a market of GET /v2/futures/market")
	case change.Side != "long" && change.Side != "short", change.MarginMode != "cross" && change.MarginMode != "isolated":
		return no("a position is long or short, and cross or isolated", "correct side or margin_mode")
	}
	size, err := quantity(change.OpenInterest)
	if err != nil {
		return err
	}
	if size.IsZero() {
		return s.closePosition(change.Account, change.Market)
	}
	p := Position{Market: change.Market, Side: change.Side, MarginMode: change.MarginMode, OpenInterest: size}
	for _, field := range []struct {
		to   *decimal.Decimal
		text string
		read func(string) (decimal.Decimal, error)
	}{
		{&p.EntryPrice, change.EntryPrice, money.Parse}, {&p.SettlePrice, change.SettlePrice, money.Parse}, {&p.Leverage, change.Leverage, money.Parse},
		{&p.RealizedPnl, change.RealizedPnl, signed},
	} {
		if *field.to, err = field.read(field.text); err != nil {
			return err
		}
	}
	p.Margin = size.Mul(p.EntryPrice).DivRound(p.Leverage, 8)
	if change.Margin != "" {
		if p.Margin, err = quantity(change.Margin); err != nil {
			return err
		}
	}
	return s.do(func(now time.Time) error {
		a, err := s.find(change.Account)
		if err != nil {
			return err
		}
		p.UpdatedAt = now
		i := slices.IndexFunc(a.Positions, func(old *Position) bool { return old.Market == p.Market })
		if i >= 0 {
			p.ID, p.CreatedAt = a.Positions[i].ID, a.Positions[i].CreatedAt
			a.Positions[i] = &p
		} else {
			p.ID, p.CreatedAt = firstPosition+s.state.PositionsYet, now
			s.state.PositionsYet++
			a.Positions = append(a.Positions, &p)
		}
		s.dirty = true
		s.pushPosition(a, &p, "update")
		return nil
	})
}

func (s *Sandbox) closePosition(accountName, marketName string) error {
	return s.do(func(now time.Time) error {
		a, err := s.find(accountName)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(a.Positions, func(p *Position) bool { return p.Market == marketName })
		if i < 0 {
			return fault.New(fault.NotFound, "sandbox_position_unknown",
				fmt.Sprintf("%s has no position in %s", a.Name, marketName), "look at the positions in the state")
		}
		closed := *a.Positions[i]
		a.Positions = slices.Delete(a.Positions, i, i+1)
		closed.OpenInterest, closed.Margin, closed.UpdatedAt = decimal.Zero, decimal.Zero, now
		s.dirty = true
		s.pushPosition(a, &closed, "close")
		return nil
	})
}

// positionRow is a position on the wire (facts 6, 7).
type positionRow struct {
	PositionID             int64            `json:"position_id"`
	Market                 string           `json:"market"`
	MarketType             string           `json:"market_type,omitempty"` // HTTP only
	Side                   string           `json:"side"`
	MarginMode             string           `json:"margin_mode"`
	OpenInterest           decimal.Decimal  `json:"open_interest"`
	CloseAvbl              decimal.Decimal  `json:"close_avbl"`
	AthPositionAmount      decimal.Decimal  `json:"ath_position_amount"`
	UnrealizedPnl          decimal.Decimal  `json:"unrealized_pnl"`
	RealizedPnl            decimal.Decimal  `json:"realized_pnl"`
	AvgEntryPrice          decimal.Decimal  `json:"avg_entry_price"`
	CmlPositionValue       decimal.Decimal  `json:"cml_position_value"`
	MaxPositionValue       decimal.Decimal  `json:"max_position_value"`
	TakeProfitPrice        string           `json:"take_profit_price"`
	StopLossPrice          string           `json:"stop_loss_price"`
	TakeProfitType         string           `json:"take_profit_type"`
	StopLossType           string           `json:"stop_loss_type"`
	Leverage               decimal.Decimal  `json:"leverage"`
	MarginAvbl             decimal.Decimal  `json:"margin_avbl"`
	AthMarginSize          decimal.Decimal  `json:"ath_margin_size"`
	PositionMarginRate     decimal.Decimal  `json:"position_margin_rate"`
	MaintenanceMarginRate  decimal.Decimal  `json:"maintenance_margin_rate"`
	MaintenanceMarginValue decimal.Decimal  `json:"maintenance_margin_value"`
	LiqPrice               string           `json:"liq_price"`
	BkrPrice               string           `json:"bkr_price"`
	AdlLevel               int              `json:"adl_level"`
	SettlePrice            decimal.Decimal  `json:"settle_price"`
	SettleValue            *decimal.Decimal `json:"settle_value,omitempty"` // HTTP
	SettleVal              *decimal.Decimal `json:"settle_val,omitempty"`   // websocket
	FirstFilledPrice       decimal.Decimal  `json:"first_filled_price"`
	LatestFilledPrice      decimal.Decimal  `json:"latest_filled_price"`
	CreatedAt              int64            `json:"created_at"`
	UpdatedAt              int64            `json:"updated_at"`
	StopLossList           *[]struct{}      `json:"stop_loss_list,omitempty"` // websocket, as the next
	TakeProfitList         *[]struct{}      `json:"take_profit_list,omitempty"`
}

// maintenanceRate is the maintenance margin rate of the smallest positions.
var maintenanceRate = decimal.New(5, -3)

// positionRow derives what follows from a position; the mark price is that of now.
func (s *Sandbox) positionRow(p *Position) positionRow {
	gain := s.state.Prices[p.Market].Sub(p.SettlePrice).Mul(p.OpenInterest)
	if p.Side == "short" {
		gain = gain.Neg()
	}
	value := p.OpenInterest.Mul(p.EntryPrice)
	marginRate := decimal.Zero
	if value.IsPositive() {
		marginRate = p.Margin.DivRound(value, 8)
	}
	return positionRow{
		PositionID: p.ID, Market: p.Market, Side: p.Side, MarginMode: p.MarginMode, OpenInterest: p.OpenInterest, CloseAvbl: p.OpenInterest,
		AthPositionAmount: p.OpenInterest, UnrealizedPnl: gain, RealizedPnl: p.RealizedPnl, AvgEntryPrice: p.EntryPrice,
		CmlPositionValue: value, MaxPositionValue: value, TakeProfitPrice: "0", StopLossPrice: "0", Leverage: p.Leverage, MarginAvbl: p.Margin, AthMarginSize: p.Margin,
		PositionMarginRate: marginRate, MaintenanceMarginRate: maintenanceRate, MaintenanceMarginValue: value.Mul(maintenanceRate), LiqPrice: "0", BkrPrice: "0", AdlLevel: 1,
		SettlePrice: p.SettlePrice, FirstFilledPrice: p.EntryPrice, LatestFilledPrice: p.EntryPrice,
		CreatedAt: p.CreatedAt.UnixMilli(), UpdatedAt: p.UpdatedAt.UnixMilli(),
	}
}

// pendingPosition serves GET /futures/pending-position (facts 7). Its page has
// no total.
func (s *Sandbox) pendingPosition(c *call) answer {
	f := c.fields()
	if f.required("market_type") != futuresWallet {
		f.complain("market_type must be FUTURES")
	}
	name := f.text("market")
	page := f.page()
	if name != "" && contract(name) == nil {
		f.complain("market is unknown")
	}
	if f.wrong != "" {
		return *refuse(3639, f.wrong)
	}
	rows := []positionRow{}
	for _, p := range slices.Backward(c.account.Positions) {
		if name != "" && name != p.Market {
			continue
		}
		if page.holds() {
			row := s.positionRow(p)
			value := p.OpenInterest.Mul(p.SettlePrice)
			row.MarketType, row.SettleValue = futuresWallet, &value
			rows = append(rows, row)
		}
	}
	out := page.answer(rows)
	out.Pagination.Total = nil
	return out
}

// pushPosition tells whoever subscribed what became of a position.
func (s *Sandbox) pushPosition(a *account, p *Position, event string) {
	row := s.positionRow(p)
	value := p.OpenInterest.Mul(p.SettlePrice)
	row.SettleVal, row.StopLossList, row.TakeProfitList = &value, &[]struct{}{}, &[]struct{}{}
	for _, k := range s.sockets {
		if k.owner == a && k.positions.has(p.Market) {
			k.say(push{Method: "position.update", Data: map[string]any{"event": event, "position": row}})
		}
	}
}

// Maintenance is an announced stop of the exchange. The sandbox goes on: it
// only announces.
type Maintenance struct {
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at"`
	Scope     []string  `json:"scope"` // ALL_SITE, SPOT or FUTURES
}

// Announce announces a maintenance in GET /maintain/info and to the websockets
// that asked for notices; the zero value takes the announcement back.
func (s *Sandbox) Announce(m Maintenance) error {
	known := []string{"ALL_SITE", "SPOT", "FUTURES"}
	off := m.StartedAt.IsZero() && m.EndedAt.IsZero() && len(m.Scope) == 0
	if !off && (m.StartedAt.IsZero() || !m.EndedAt.After(m.StartedAt) || len(m.Scope) == 0 ||
		slices.ContainsFunc(m.Scope, func(sc string) bool { return !slices.Contains(known, sc) })) {
		return fault.New(fault.Invalid, "sandbox_maintenance_malformed", "a maintenance has a start, a later end and a scope",
			`send {"started_at":"2030-01-01T00:00:00Z","ended_at":"2030-01-01T01:00:00Z","scope":["ALL_SITE"]}, or {} to take it back`)
	}
	return s.do(func(time.Time) error {
		s.dirty = true
		if off {
			s.state.Maintenance = nil
			return nil
		}
		s.state.Maintenance = &m
		info := map[string]any{
			"start_time": m.StartedAt.UnixMilli(), "end_time": m.EndedAt.UnixMilli(), "scope": m.Scope,
			"protect_duration_start": 0, "protect_duration_end": 0,
		}
		for _, k := range s.sockets {
			if k.notices {
				k.say(push{Method: "notice.update", Data: map[string]any{"channel": maintenanceChannel, "info": info}})
			}
		}
		return nil
	})
}

// maintenance serves GET /maintain/info (facts 4.5).
func (s *Sandbox) maintenance(*call) answer {
	type wireMaintenance struct {
		StartedAt            int64    `json:"started_at"`
		EndedAt              int64    `json:"ended_at"`
		Scope                []string `json:"scope"`
		AnnounceEnabled      bool     `json:"announce_enabled"`
		AnnounceURL          string   `json:"announce_url"`
		ProtectDurationStart int64    `json:"protect_duration_start"`
		ProtectDurationEnd   int64    `json:"protect_duration_end"`
	}
	rows := []wireMaintenance{}
	if m := s.state.Maintenance; m != nil {
		rows = append(rows, wireMaintenance{StartedAt: m.StartedAt.UnixMilli(), EndedAt: m.EndedAt.UnixMilli(), Scope: m.Scope})
	}
	return succeed(rows)
}
