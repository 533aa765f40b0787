package worker

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/exchange/coinex"
	"sluice/internal/fault"
	"sluice/internal/pgstore"
)

const checkLive = "live_balances"

// wallet is what the exchange's websockets tell: changes of the spot wallet, which are
// the earliest sign of a debit, and the futures wallet with its equity.
type wallet struct {
	mu        sync.Mutex
	futures   map[string]exchange.FuturesBalance // by asset
	positions map[int64]exchange.Position
	marks     map[string]decimal.Decimal // by market
	news      bool                       // of the futures wallet, not yet in the database
	links     map[coinex.Wallet]coinex.Link
}

func newWallet() *wallet {
	return &wallet{futures: map[string]exchange.FuturesBalance{}, positions: map[int64]exchange.Position{}, links: map[coinex.Wallet]coinex.Link{}}
}

// watch follows the wallets under whichever key is in use, until ctx ends.
func (w *Worker) watch(ctx context.Context) {
	for ctx.Err() == nil {
		client, _, changed := w.exchange.present()
		under, stop := context.WithCancel(ctx)
		go func() {
			select {
			case <-changed:
			case <-under.Done():
			}
			stop()
		}()
		client.Watch(under, coinex.Handlers{
			Spot: func(u coinex.Update[exchange.Balance]) {
				if err := w.store.WriteBalances(ctx, w.config.Account, u.Rows, u.Whole, u.At); err != nil && ctx.Err() == nil {
					w.options.Log.ErrorContext(ctx, "cannot write live balances", "account", w.config.Account, "error", err)
				}
			},
			Futures:   w.wallet.balances,
			Positions: w.wallet.moved,
			Link: func(l coinex.Link) {
				w.wallet.linked(l)
				if l.Err != nil {
					w.options.Log.WarnContext(ctx, "websocket lost", "account", w.config.Account, "wallet", string(l.Wallet), "error", l.Err)
				}
			},
		})
		stop()
	}
}

// writeFutures puts news of the futures wallet into the database. It is called every
// second; with open positions news comes ten times as often.
func (w *Worker) writeFutures(ctx context.Context) error {
	rows, news := w.wallet.worth(w.config.Account)
	if !news {
		return nil
	}
	return w.store.WriteFutures(ctx, w.config.Account, rows, w.options.Now())
}

func (m *wallet) balances(u coinex.Update[exchange.FuturesBalance]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.futures
	if u.Whole {
		m.futures = map[string]exchange.FuturesBalance{}
	} else {
		m.futures = maps.Clone(before)
	}
	for _, b := range u.Rows {
		// A whole reading carries no equity. The figure from before holds for as long as
		// all others do.
		if old := before[b.Asset]; !b.Equity.Valid && old.Available.Equal(b.Available) && old.Frozen.Equal(b.Frozen) &&
			old.Margin.Equal(b.Margin) && old.Unrealized.Equal(b.Unrealized) {
			b.Equity = old.Equity
		}
		m.futures[b.Asset] = b
	}
	m.news = true
}

func (m *wallet) moved(u coinex.Update[exchange.Position]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u.Whole {
		clear(m.positions)
	}
	for _, p := range u.Rows {
		if p.Size.IsZero() || p.Event == "close" {
			delete(m.positions, p.ID)
		} else {
			m.positions[p.ID] = p
		}
	}
	m.news = true
}

// price reads the mark prices that open positions are worth. While the websocket is up,
// the wallet is as fresh as it gets, and is written as such even where nothing changed.
func (m *wallet) price(ctx context.Context, c *coinex.Client) error {
	m.mu.Lock()
	open := len(m.positions)
	m.news = m.news || m.links[coinex.FuturesWallet].Up
	m.mu.Unlock()
	if open == 0 {
		return nil
	}
	tickers, err := c.FuturesTickers(ctx)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marks = map[string]decimal.Decimal{}
	for _, t := range tickers {
		m.marks[t.Market] = t.Mark
	}
	m.news = true
	return nil
}

// worth is the futures wallet with its equity, and whether that is news.
func (m *wallet) worth(account string) ([]pgstore.FuturesRow, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	news := m.news
	m.news = false
	positions := slices.Collect(maps.Values(m.positions))
	var out []pgstore.FuturesRow
	for _, b := range m.futures {
		e := exchange.EquityOf(b, positions, m.marks)
		out = append(out, pgstore.FuturesRow{Account: account, Asset: b.Asset, Available: b.Available, Transferable: b.Transferable,
			Equity: e.Calculated, Unrealized: e.Unrealized, Reported: e.Reported})
	}
	return out, news
}

func (m *wallet) linked(l coinex.Link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.links[l.Wallet] = l
}

// link says how the websockets are.
func (m *wallet) link() exchange.Finding {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := exchange.Finding{Check: checkLive, Standing: exchange.Well, Says: "Changes of the spot and the futures wallet arrive as they happen."}
	for _, name := range []coinex.Wallet{coinex.SpotWallet, coinex.FuturesWallet} {
		l, known := m.links[name]
		switch {
		case !known && out.Standing == exchange.Well:
			out = exchange.Finding{Check: checkLive, Standing: exchange.Unchecked, Says: "The connection is being made."}
		case known && !l.Up:
			cause, fix := "exchange_socket_lost", "Nothing: it is made again by itself."
			if f, ok := fault.As(l.Err); ok {
				cause, fix = f.Code, f.Fix
			}
			return exchange.Finding{Check: checkLive, Standing: exchange.Doubtful, Cause: cause, Fix: fix,
				Says: "The websocket of the " + string(name) + " wallet is down since " + l.At.UTC().Format(time.TimeOnly) + " UTC; balances are read every so often instead."}
		}
	}
	return out
}
