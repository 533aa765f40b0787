package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/whitelist"
)

// Destinations reads the whitelist mirror of an account, or of all for "".
func (s *Store) Destinations(ctx context.Context, account string) ([]whitelist.Destination, error) {
	rows, err := s.Pool.Query(ctx, `SELECT id, version, account, method, asset, chain, address, memo, label, state, reason,
		attested_by, attested_at, accepted_at FROM destinations
		WHERE state <> 'removed' AND ($1 = '' OR account = $1) ORDER BY account, asset, chain, label, id`, account)
	if err != nil {
		return nil, fmt.Errorf("list destinations: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[whitelist.Destination])
}

// Destination reads one entry of the mirror, removed ones included.
func (s *Store) Destination(ctx context.Context, id uuid.UUID) (whitelist.Destination, error) {
	rows, err := s.Pool.Query(ctx, `SELECT id, version, account, method, asset, chain, address, memo, label, state, reason,
		attested_by, attested_at, accepted_at FROM destinations WHERE id = $1`, id)
	if err != nil {
		return whitelist.Destination{}, fmt.Errorf("read destination: %w", err)
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[whitelist.Destination])
}

// Accounts lists the accounts by name.
func (s *Store) Accounts(ctx context.Context) ([]string, error) {
	rows, err := s.Pool.Query(ctx, "SELECT name FROM accounts ORDER BY name")
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Chains reads the exchange's configuration as the worker last wrote it, and when that was
// (the zero time when never).
func (s *Store) Chains(ctx context.Context) ([]exchange.ChainConfig, time.Time, error) {
	rows, err := s.Pool.Query(ctx, `SELECT asset, chain, asset_enabled, chain_enabled, inter_user_enabled,
		min_amount, fee, precision, memo_required FROM exchange_chains ORDER BY asset, chain`)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read exchange configuration: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[exchange.ChainConfig])
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read exchange configuration: %w", err)
	}
	var at *time.Time
	if err := s.Pool.QueryRow(ctx, "SELECT max(at) FROM exchange_reads WHERE what = 'config'").Scan(&at); err != nil || at == nil {
		return list, time.Time{}, err
	}
	return list, *at, nil
}

// WriteChains mirrors the exchange's configuration. A row is touched only where
// it says something new, so that its version means something.
func (s *Store) WriteChains(ctx context.Context, account string, chains []exchange.ChainConfig, now time.Time) error {
	return s.tx(ctx, "write exchange configuration", func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		for _, c := range chains {
			batch.Queue(`INSERT INTO exchange_chains AS x (asset, chain, asset_enabled, chain_enabled, inter_user_enabled, min_amount, fee, precision, memo_required)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
				ON CONFLICT (asset, chain) DO UPDATE SET version = x.version + 1, asset_enabled = excluded.asset_enabled,
					chain_enabled = excluded.chain_enabled, inter_user_enabled = excluded.inter_user_enabled,
					min_amount = excluded.min_amount, fee = excluded.fee, precision = excluded.precision, memo_required = excluded.memo_required
				WHERE (x.asset_enabled, x.chain_enabled, x.inter_user_enabled, x.min_amount, x.fee, x.precision, x.memo_required)
					IS DISTINCT FROM (excluded.asset_enabled, excluded.chain_enabled, excluded.inter_user_enabled, excluded.min_amount,
					excluded.fee, excluded.precision, excluded.memo_required)`,
				c.Asset, c.Chain, c.AssetEnabled, c.ChainEnabled, c.InterUserEnabled, c.MinAmount, c.Fee, c.Precision, c.MemoRequired)
		}
		batch.Queue(noteRead, account, "config", now, fmt.Sprintf("%d chains", len(chains)))
		return tx.SendBatch(ctx, batch).Close()
	})
}

const noteRead = `INSERT INTO exchange_reads (account, what, at, detail) VALUES ($1, $2, $3, $4)
	ON CONFLICT (account, what) DO UPDATE SET at = excluded.at, detail = excluded.detail`

// NoteRead writes down that something of the exchange has been read: "config",
// "balances", "clock", "withdrawals" or "futures".
func (s *Store) NoteRead(ctx context.Context, account, what, detail string, now time.Time) error {
	_, err := s.Pool.Exec(ctx, noteRead, account, what, now, detail)
	return err
}

// WriteBalances mirrors what an account holds: all of it, an asset that is missing
// being zero, or only what has changed.
func (s *Store) WriteBalances(ctx context.Context, account string, balances []exchange.Balance, whole bool, now time.Time) error {
	return s.tx(ctx, "write balances", func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		if whole {
			batch.Queue("UPDATE exchange_balances SET available = 0, frozen = 0 WHERE account = $1", account)
		}
		for _, b := range balances {
			batch.Queue(`INSERT INTO exchange_balances (account, asset, available, frozen) VALUES ($1, $2, $3, $4)
				ON CONFLICT (account, asset) DO UPDATE SET available = excluded.available, frozen = excluded.frozen`,
				account, b.Asset, b.Available, b.Frozen)
		}
		if whole {
			batch.Queue(noteRead, account, "balances", now, fmt.Sprintf("%d assets", len(balances)))
		} else {
			batch.Queue(noteRead, account, "balances", now, "as told by the exchange's websocket")
		}
		return tx.SendBatch(ctx, batch).Close()
	})
}

// Health is how old everything is that others wrote.
type Health struct {
	Reads    []Read
	Balances []Balance
	Leases   []Lease
	Futures  []FuturesRow
	Findings []Finding
}

// Read is when the worker last read something of the exchange.
type Read struct {
	Account string    `db:"account"`
	What    string    `db:"what"`
	At      time.Time `db:"at"`
	Detail  string    `db:"detail"`
}

// Balance is what an account held at the last read.
type Balance struct {
	Account   string          `db:"account"`
	Asset     string          `db:"asset"`
	Available decimal.Decimal `db:"available"`
	Frozen    decimal.Decimal `db:"frozen"`
}

// Lease says which worker owns an account, and until when by the database's clock.
type Lease struct {
	Account   string    `db:"account"`
	Holder    uuid.UUID `db:"holder"`
	ExpiresAt time.Time `db:"expires_at"`
}

// Health reads the ages of all mirrors, for pages and monitors.
func (s *Store) Health(ctx context.Context) (Health, error) {
	var h Health
	var err error
	if h.Reads, err = collect[Read](ctx, s, "SELECT account, what, at, detail FROM exchange_reads ORDER BY account, what"); err != nil {
		return h, err
	}
	if h.Balances, err = collect[Balance](ctx, s, "SELECT account, asset, available, frozen FROM exchange_balances ORDER BY account, asset"); err != nil {
		return h, err
	}
	if h.Leases, err = collect[Lease](ctx, s, "SELECT account, holder, expires_at FROM account_leases ORDER BY account"); err != nil {
		return h, err
	}
	if h.Futures, err = collect[FuturesRow](ctx, s, "SELECT account, asset, available, transferable, equity, unrealized, reported FROM exchange_futures ORDER BY account, asset"); err != nil {
		return h, err
	}
	h.Findings, err = s.Findings(ctx)
	return h, err
}

func collect[T any](ctx context.Context, s *Store, sql string, args ...any) ([]T, error) {
	rows, err := s.Pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[T])
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return list, nil
}
