package doctor

import (
	"context"
	"time"

	"sluice/internal/exchange"
	"sluice/internal/exchange/coinex"
	"sluice/internal/pgstore"
)

// Client is what a check asks of an account at the exchange. It cannot pay.
type Client interface {
	Ping(ctx context.Context) error
	MeasureClock(ctx context.Context) (exchange.ClockOffset, error)
	Egress(ctx context.Context) (coinex.Egress, error)
	Config(ctx context.Context, asset string) ([]exchange.ChainConfig, error)
	Maintenance(ctx context.Context) ([]exchange.Maintenance, error)
	Balances(ctx context.Context) ([]exchange.Balance, error)
	Withdrawals(ctx context.Context, q exchange.Query) (exchange.Page, error)
	Limits() coinex.LimitState
	Latency() coinex.Latency
}

// Facts is all that a judgement rests on.
type Facts struct {
	At      time.Time
	Address error // why no client could be made with the settings; nothing was asked then
	Key     Key
	Worked  bool                   // the exchange has accepted this same key and secret before
	Record  *pgstore.AccountRecord // nil: no database was at hand

	SelfTest       error
	Reach          error // of a ping; when it fails nothing further was asked
	Clock          exchange.ClockOffset
	ClockErr       error
	Egress         coinex.Egress
	EgressErr      error
	Chains         []exchange.ChainConfig
	ConfigErr      error
	Maintenance    []exchange.Maintenance
	MaintenanceErr error
	Balances       []exchange.Balance
	BalancesErr    error // of the first call that needs the key
	HasLast        bool  // the history under this key has Record.LastID
	HasLastErr     error
	Limits         coinex.LimitState
	Latency        coinex.Latency
}

// Gather asks the exchange everything that can be asked without effect. Each call is
// made once: a check that hammers at a door that is shut teaches nothing.
func Gather(ctx context.Context, c Client, f Facts) Facts {
	f = Try(ctx, c, f)
	if f.Reach == nil {
		f.Chains, f.ConfigErr = c.Config(ctx, "")
		f.Maintenance, f.MaintenanceErr = c.Maintenance(ctx)
	}
	f.Limits, f.Latency = c.Limits(), c.Latency()
	return f
}

// Try asks only what tells whether a key works, and for the right account.
func Try(ctx context.Context, c Client, f Facts) Facts {
	f.SelfTest = coinex.SelfTest()
	if f.Reach = c.Ping(ctx); f.Reach == nil {
		f.Clock, f.ClockErr = c.MeasureClock(ctx)
		f.Egress, f.EgressErr = c.Egress(ctx)
		if f.ClockErr == nil { // nothing is signed with a wrong clock
			f.Balances, f.BalancesErr = c.Balances(ctx)
		}
		if f.ClockErr == nil && f.BalancesErr == nil && f.Record != nil && f.Record.LastID != 0 {
			f.HasLast, f.HasLastErr = Has(ctx, c, f.Record.LastID)
		}
	}
	f.Limits, f.Latency = c.Limits(), c.Latency()
	return f
}

// Has tells whether the history under a client's key holds a withdrawal: whether the
// key belongs to the account that made it.
func Has(ctx context.Context, c Client, id int64) (bool, error) {
	page, err := c.Withdrawals(ctx, exchange.Query{ID: id})
	if err != nil {
		return false, err
	}
	for _, row := range page.Rows {
		if row.ID == id {
			return true, nil
		}
	}
	return false, nil
}

// Examine makes a client with the settings, asks, and judges.
func Examine(ctx context.Context, url, accessID, secretKey string, f Facts) Report {
	client, err := coinex.New(coinex.Config{BaseURL: url, AccessID: accessID, SecretKey: secretKey})
	if err != nil {
		f.Address, f.SelfTest = err, coinex.SelfTest()
		return Judge(f)
	}
	return Judge(Gather(ctx, client, f))
}
