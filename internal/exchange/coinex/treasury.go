package coinex

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sluice/internal/exchange"
	"sluice/internal/fault"
)

// AllWithdrawals walks the withdrawal history from q.Page to its end, each
// withdrawal once: one that comes in meanwhile pushes others onto the next
// page. It ends with an error where the history cannot be read to its end,
// since half a history must not pass for a whole one. Errors: as Withdrawals.
func (c *Client) AllWithdrawals(ctx context.Context, q exchange.Query) iter.Seq2[exchange.Withdrawal, error] {
	rows := walk(max(q.Page, 1), func(page int) ([]exchange.Withdrawal, bool, []byte, error) {
		q := q
		q.Page = page
		p, err := c.Withdrawals(ctx, q)
		return p.Rows, p.HasNext, p.Raw, err
	})
	return once(rows, func(w exchange.Withdrawal) int64 { return w.ID })
}

// Deposits walks the deposit history of an asset, or of all for "", to its end
// (GET /assets/deposit-history, facts 4.4). Errors: as Withdrawals.
func (c *Client) Deposits(ctx context.Context, asset string) iter.Seq2[exchange.Deposit, error] {
	v := url.Values{}
	if asset != "" {
		v.Set("ccy", asset)
	}
	rows := list(ctx, c, queryHistory, "/v2/assets/deposit-history", v, decodeDeposit)
	return once(rows, func(d exchange.Deposit) int64 { return d.ID })
}

// Movements walks the history of the spot wallet to its end
// (GET /assets/spot/transcation-history, facts 4.3; the path is spelt like
// that). An open end is closed at the present time of the exchange, so that
// nothing new shifts the pages under the reader.
//
// Errors: fault.Invalid for a query without a kind or with its end before its
// beginning; otherwise as Withdrawals.
func (c *Client) Movements(ctx context.Context, q exchange.MovementQuery) iter.Seq2[exchange.Movement, error] {
	return func(yield func(exchange.Movement, error) bool) {
		if q.Until.IsZero() {
			now, err := c.Now(ctx)
			if err != nil {
				yield(exchange.Movement{}, err)
				return
			}
			q.Until = now
		}
		if q.Kind == "" || q.Until.Before(q.From) {
			yield(exchange.Movement{}, fault.New(fault.Invalid, "query_invalid",
				"the wallet's history is read for one kind of movement, from a time to a later one", "correct the query"))
			return
		}
		v := url.Values{"type": {string(q.Kind)}, "end_time": {strconv.FormatInt(q.Until.UnixMilli(), 10)}}
		if q.Asset != "" {
			v.Set("ccy", q.Asset)
		}
		if !q.From.IsZero() {
			v.Set("start_time", strconv.FormatInt(q.From.UnixMilli(), 10))
		}
		// The wallet's history counts as history, though the rate table does not list it.
		for m, err := range list(ctx, c, queryHistory, "/v2/assets/spot/transcation-history", v, decodeMovement) {
			// An exchange that ignored the filter would make a debit of last week look like today's.
			outside := m.At.UnixMilli() < q.From.UnixMilli() || m.At.UnixMilli() > q.Until.UnixMilli()
			if err == nil && outside {
				continue
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

// Debits reads what withdrawals have taken of one asset out of the spot wallet since a
// time, to the end of its history. Errors: as Movements.
func (c *Client) Debits(ctx context.Context, asset string, since time.Time) ([]exchange.Movement, error) {
	var out []exchange.Movement
	for m, err := range c.Movements(ctx, exchange.MovementQuery{Kind: exchange.MovedOut, Asset: asset, From: since}) {
		if err != nil {
			return nil, err
		}
		if m.Asset == asset && m.Change.IsNegative() {
			out = append(out, m)
		}
	}
	return out, nil
}

// FuturesBalances reads the futures wallet (GET /assets/futures/balance, facts
// 4.2). It carries no equity; see exchange.EquityOf. Errors: as Withdrawals.
func (c *Client) FuturesBalances(ctx context.Context) ([]exchange.FuturesBalance, error) {
	env, _, err := c.signed(ctx, queryFutures, http.MethodGet, "/v2/assets/futures/balance", nil)
	if err != nil {
		return nil, err
	}
	return decodeAll(env.data, decodeFutures)
}

// Positions reads all open futures positions (GET /futures/pending-position,
// facts 7). Errors: as Withdrawals.
func (c *Client) Positions(ctx context.Context) ([]exchange.Position, error) {
	var out []exchange.Position
	for p, err := range list(ctx, c, queryFutures, "/v2/futures/pending-position", url.Values{"market_type": {"FUTURES"}}, decodePosition) {
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// SpotTickers reads the prices of all spot markets (GET /spot/ticker). The
// endpoint is public. Errors: fault.Unavailable.
func (c *Client) SpotTickers(ctx context.Context) ([]exchange.Ticker, error) {
	return c.tickers(ctx, "/v2/spot/ticker")
}

// FuturesTickers reads the prices of all futures markets, mark prices among
// them (GET /futures/ticker, facts 7). The endpoint is public. Errors:
// fault.Unavailable.
func (c *Client) FuturesTickers(ctx context.Context) ([]exchange.Ticker, error) {
	return c.tickers(ctx, "/v2/futures/ticker")
}

func (c *Client) tickers(ctx context.Context, target string) ([]exchange.Ticker, error) {
	env, _, err := c.get(ctx, target)
	if err != nil {
		return nil, err
	}
	return decodeAll(env.data, decodeTicker)
}

// Maintenance reads the announced pauses of the exchange (GET /maintain/info,
// facts 4.5). The endpoint is public. Errors: fault.Unavailable.
func (c *Client) Maintenance(ctx context.Context) ([]exchange.Maintenance, error) {
	env, _, err := c.get(ctx, "/v2/maintain/info")
	if err != nil {
		return nil, err
	}
	return decodeAll(env.data, decodeMaintenance)
}

// Egress is the address from which the exchange sees us.
type Egress struct {
	Addrs []netip.Addr // as found in the answer, without repetition; usually one
	Text  string       // the answer itself, at most 500 bytes
}

// Egress asks the exchange for our address as it sees it (GET /test/ip, facts
// 1.1), which is what a key's IP binding is held against. The form of the
// answer is not documented, so every address in it is taken, whatever stands
// around it. The endpoint is public.
//
// Errors: fault.Unavailable, also where the answer holds no address.
func (c *Client) Egress(ctx context.Context) (Egress, error) {
	a, err := c.send(ctx, http.MethodGet, "/v2/test/ip", nil, nil)
	if err != nil || a.status != http.StatusOK {
		// A gateway that refuses us also likes to print addresses. They prove nothing.
		_, err = understand(a, err, false)
		return Egress{}, err
	}
	e := Egress{Addrs: addresses(string(a.body)), Text: words(string(a.body))}
	if len(e.Addrs) == 0 {
		return e, unreadable(errors.New("the answer holds no IP address"))
	}
	return e, nil
}

// addresses finds all IP addresses in a text.
func addresses(text string) []netip.Addr {
	var out []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF.:", r) }) {
		for _, candidate := range []string{word, strings.Trim(word, ".:")} { // "ip: ::1", "ip:1.2.3.4."
			addr, err := netip.ParseAddr(candidate)
			if addr = addr.Unmap(); err == nil && !addr.IsUnspecified() && !seen[addr] {
				seen[addr] = true
				out = append(out, addr)
				break
			}
		}
	}
	return out
}

// list walks a signed list of the usual form to its end.
func list[T any](ctx context.Context, c *Client, g group, path string, v url.Values, read func(object) (T, error)) iter.Seq2[T, error] {
	v.Set("limit", strconv.Itoa(maxPage))
	return walk(1, func(page int) ([]T, bool, []byte, error) {
		v.Set("page", strconv.Itoa(page))
		env, _, err := c.signed(ctx, g, http.MethodGet, path+"?"+v.Encode(), nil)
		if err != nil {
			return nil, false, nil, err
		}
		rows, err := decodeAll(env.data, read)
		if err != nil {
			return nil, false, nil, err
		}
		next, err := hasNext(env.paging, page, maxPage, len(rows))
		if err != nil {
			return nil, false, nil, unreadable(err)
		}
		return rows, next, env.data, nil
	})
}

// walk yields the rows of pages until one says that it is the last. Two answers
// would make it run for ever, or stop short of the end, and are errors: an
// empty page that promises another, and a page that repeats the one before.
func walk[T any](first int, read func(page int) (rows []T, next bool, raw []byte, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		var before []byte
		for page := first; ; page++ {
			rows, next, raw, err := read(page)
			switch {
			case err != nil:
			case next && len(rows) == 0:
				err = unreadable(fmt.Errorf("page %d is empty and promises another", page))
			case len(rows) > 0 && bytes.Equal(raw, before):
				err = unreadable(fmt.Errorf("page %d repeats the one before", page))
			}
			if err != nil {
				yield(none, err)
				return
			}
			for _, row := range rows {
				if !yield(row, nil) {
					return
				}
			}
			if !next {
				return
			}
			before = raw
		}
	}
}

// once drops rows whose id was there before.
func once[T any](rows iter.Seq2[T, error], id func(T) int64) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		seen := map[int64]bool{}
		for row, err := range rows {
			if err == nil && seen[id(row)] {
				continue
			}
			seen[id(row)] = true
			if !yield(row, err) {
				return
			}
		}
	}
}

// decodeAll reads every row of an array, or none: a row left out would look
// like one that is not there.
func decodeAll[T any](data json.RawMessage, read func(object) (T, error)) ([]T, error) {
	rows, err := decodeArray(data)
	if err != nil {
		return nil, unreadable(err)
	}
	out := make([]T, len(rows))
	for i, row := range rows {
		if out[i], err = read(row); err != nil {
			return nil, unreadable(fmt.Errorf("row %d: %w", i, err))
		}
	}
	return out, nil
}

// decodeDeposit reads a deposit (facts 4.4). What was credited goes before what
// was sent; before it is known it is "".
func decodeDeposit(o object) (exchange.Deposit, error) {
	var d exchange.Deposit
	var method, credited string
	var errs [11]error
	d.ID, errs[0] = o.integer("deposit_id")
	d.CreatedAt, errs[1] = o.millis("created_at")
	method, errs[2] = o.text("deposit_method")
	d.Asset, errs[3] = o.text("ccy")
	d.Chain, errs[4] = o.text("chain")
	d.Address, errs[5] = o.text("to_address")
	d.TxID, errs[6] = o.text("tx_id")
	d.Confirms, errs[7] = o.integer("confirmations", "confirmation")
	d.Status, errs[8] = o.text("status")
	credited, errs[9] = o.text("actual_amount")
	if credited == "" {
		d.Amount, errs[10] = o.amount("amount")
	} else {
		d.Amount, errs[10] = o.amount("actual_amount")
	}
	if err := errors.Join(errs[:]...); err != nil {
		return exchange.Deposit{}, err
	}
	if d.ID <= 0 || d.CreatedAt.IsZero() || d.Asset == "" {
		return exchange.Deposit{}, errors.New("a deposit without its id, time or asset")
	}
	d.Method = exchange.Method(strings.ToLower(method))
	d.Status = strings.ToLower(d.Status) // seen in both cases (facts 3.4)
	return d, nil
}

// decodeMovement reads a change of the spot wallet (facts 4.3).
func decodeMovement(o object) (exchange.Movement, error) {
	var m exchange.Movement
	var kind, change string
	var errs [6]error
	m.At, errs[0] = o.millis("created_at")
	m.Asset, errs[1] = o.text("ccy")
	kind, errs[2] = o.text("type")
	m.Change, errs[3] = o.amount("change")
	m.Balance, errs[4] = o.amount("balance")
	change, errs[5] = o.text("change")
	if err := errors.Join(errs[:]...); err != nil {
		return exchange.Movement{}, err
	}
	if m.At.IsZero() || m.Asset == "" || change == "" {
		return exchange.Movement{}, errors.New("a movement without its time, asset or change")
	}
	m.Kind = exchange.MovementKind(strings.ToLower(kind))
	return m, nil
}

// decodeFutures reads one asset of the futures wallet, as the reading (facts
// 4.2) and the live update (facts 6) show it.
func decodeFutures(o object) (exchange.FuturesBalance, error) {
	var b exchange.FuturesBalance
	var equity string
	var errs [8]error
	b.Asset, errs[0] = o.text("ccy")
	b.Available, errs[1] = o.amount("available")
	b.Frozen, errs[2] = o.amount("frozen")
	b.Margin, errs[3] = o.amount("margin")
	b.Unrealized, errs[4] = o.amount("unrealized_pnl")
	b.Transferable, errs[5] = o.amount("transferrable", "transferable") // the exchange writes a double r
	equity, errs[6] = o.text("equity")
	b.Equity.Decimal, errs[7] = o.amount("equity")
	b.Equity.Valid = equity != ""
	if err := errors.Join(errs[:]...); err != nil {
		return exchange.FuturesBalance{}, err
	}
	if b.Asset == "" {
		return exchange.FuturesBalance{}, errors.New("a balance without its asset")
	}
	return b, nil
}

// decodePosition reads a position (facts 6, 7). A side that is neither long nor
// short is an error: guessed wrong it would turn a loss into a gain.
func decodePosition(o object) (exchange.Position, error) {
	var p exchange.Position
	var side string
	var errs [11]error
	p.ID, errs[0] = o.integer("position_id")
	p.Market, errs[1] = o.text("market")
	side, errs[2] = o.text("side")
	p.Size, errs[3] = o.amount("open_interest")
	p.Entry, errs[4] = o.amount("avg_entry_price")
	p.Settle, errs[5] = o.amount("settle_price")
	p.Margin, errs[6] = o.amount("margin_avbl")
	p.Unrealized, errs[7] = o.amount("unrealized_pnl")
	p.Realized, errs[8] = o.amount("realized_pnl")
	p.Liquidation, errs[9] = o.amount("liq_price")
	p.UpdatedAt, errs[10] = o.millis("updated_at")
	if err := errors.Join(errs[:]...); err != nil {
		return exchange.Position{}, err
	}
	p.Side = exchange.Side(strings.ToLower(side))
	if p.Market == "" || p.Side != exchange.Long && p.Side != exchange.Short {
		return exchange.Position{}, errors.New("a position without its market or side")
	}
	return p, nil
}

func decodeTicker(o object) (exchange.Ticker, error) {
	var k exchange.Ticker
	var errs [4]error
	k.Market, errs[0] = o.text("market")
	k.Last, errs[1] = o.amount("last", "close")
	k.Mark, errs[2] = o.amount("mark_price")
	k.Index, errs[3] = o.amount("index_price")
	if err := errors.Join(errs[:]...); err != nil {
		return exchange.Ticker{}, err
	}
	if k.Market == "" {
		return exchange.Ticker{}, errors.New("a price without its market")
	}
	return k, nil
}

func decodeMaintenance(o object) (exchange.Maintenance, error) {
	var m exchange.Maintenance
	var errs [3]error
	m.From, errs[0] = o.millis("started_at", "start_time")
	m.Until, errs[1] = o.millis("ended_at", "end_time")
	m.URL, errs[2] = o.text("announce_url")
	if err := errors.Join(errs[:]...); err != nil {
		return exchange.Maintenance{}, err
	}
	if raw := o.field("scope"); raw != nil {
		if err := json.Unmarshal(raw, &m.Scope); err != nil {
			return exchange.Maintenance{}, fmt.Errorf("scope: %w", err)
		}
	}
	return m, nil
}
