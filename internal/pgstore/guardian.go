package pgstore

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/shopspring/decimal"

	"sluice/internal/audit"
	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/whitelist"
)

// Finding is a check of an account as it ended last.
type Finding struct {
	Account string
	exchange.Finding
	At    time.Time // of the check
	Since time.Time // from when on it has stood like this, for this cause
}

// WriteFindings replaces what is known of an account. Checks that are not among
// them are forgotten.
func (s *Store) WriteFindings(ctx context.Context, account string, findings []exchange.Finding, now time.Time) error {
	return s.tx(ctx, "write findings", func(tx pgx.Tx) error {
		batch, items := &pgx.Batch{}, make([]string, len(findings))
		for i, f := range findings {
			items[i] = f.Check
			also := f.Also
			if also == nil {
				also = []exchange.Cause{} // null would be another way of saying none
			}
			batch.Queue(`INSERT INTO exchange_findings AS x (account, item, position, standing, cause, says, fix, also, at, since)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
				ON CONFLICT (account, item) DO UPDATE SET position = excluded.position, standing = excluded.standing, cause = excluded.cause,
					says = excluded.says, fix = excluded.fix, also = excluded.also, at = excluded.at,
					since = CASE WHEN (x.standing, x.cause) = (excluded.standing, excluded.cause) THEN x.since ELSE excluded.since END`,
				account, f.Check, i, string(f.Standing), f.Cause, storable(f.Says), f.Fix, also, now)
		}
		batch.Queue("DELETE FROM exchange_findings WHERE account = $1 AND item <> ALL ($2)", account, items)
		return tx.SendBatch(ctx, batch).Close()
	})
}

// Findings reads what is known of all accounts, in the order in which it is read.
func (s *Store) Findings(ctx context.Context) ([]Finding, error) {
	rows, err := s.Pool.Query(ctx, "SELECT account, item, standing, cause, says, fix, also, at, since FROM exchange_findings ORDER BY account, position")
	if err != nil {
		return nil, fmt.Errorf("read findings: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Finding, error) {
		var f Finding
		err := row.Scan(&f.Account, &f.Check, &f.Standing, &f.Cause, &f.Says, &f.Fix, &f.Also, &f.At, &f.Since)
		return f, err
	})
}

// AccountRecord is what the database knows of an account that no call to the exchange
// tells.
type AccountRecord struct {
	Destinations []whitelist.Destination
	Confirmed    map[string]Confirmation // by item of the checklist
	LastAccepted time.Time               // when the exchange last took a submission; zero: never
	LastID       int64                   // the withdrawal that it made
}

// Confirmation is a person's word for something that the exchange tells to no program.
type Confirmation struct {
	By string    `db:"confirmed_by"`
	At time.Time `db:"confirmed_at"`
}

// AccountRecord reads it.
func (s *Store) AccountRecord(ctx context.Context, account string) (AccountRecord, error) {
	r := AccountRecord{Confirmed: map[string]Confirmation{}}
	var err error
	if r.Destinations, err = s.Destinations(ctx, account); err != nil {
		return r, err
	}
	rows, err := s.Pool.Query(ctx, "SELECT item, confirmed_by, confirmed_at FROM account_confirmations WHERE account = $1", account)
	if err != nil {
		return r, fmt.Errorf("read confirmations: %w", err)
	}
	var item string
	var c Confirmation
	if _, err := pgx.ForEachRow(rows, []any{&item, &c.By, &c.At}, func() error { r.Confirmed[item] = c; return nil }); err != nil {
		return r, fmt.Errorf("read confirmations: %w", err)
	}
	var at *time.Time
	var id *int64
	if err := s.Pool.QueryRow(ctx, `SELECT max(decided_at), max(exchange_id) FROM attempts WHERE account = $1 AND outcome = 'accepted'`, account).Scan(&at, &id); err != nil {
		return r, fmt.Errorf("read last accepted: %w", err)
	}
	if at != nil && id != nil {
		r.LastAccepted, r.LastID = *at, *id
	}
	return r, nil
}

// Confirm writes down who confirmed an item of the checklist of an account, and
// when. Fault: account_unknown.
func (s *Store) Confirm(ctx context.Context, account, item, by string, now time.Time) error {
	return s.tx(ctx, "confirm", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO account_confirmations (account, item, confirmed_by, confirmed_at) VALUES ($1, $2, $3, $4)
			ON CONFLICT (account, item) DO UPDATE SET confirmed_by = excluded.confirmed_by, confirmed_at = excluded.confirmed_at`, account, item, by, now)
		if violates(err, "account_confirmations_account_fkey") {
			return fault.New(fault.NotFound, "account_unknown", fmt.Sprintf("there is no account %q", account), "add it first, with `sluice account add`").Because(err)
		}
		if err != nil {
			return err
		}
		return appendEvents(ctx, tx, audit.NewEvent(now, by, "account.confirmed", uuid.Nil, canonical.Object{"account": account, "item": item}))
	})
}

// FuturesRow is one asset of an account's futures wallet.
type FuturesRow struct {
	Account      string              `db:"account"`
	Asset        string              `db:"asset"`
	Available    decimal.Decimal     `db:"available"`    // usable for trading now
	Transferable decimal.Decimal     `db:"transferable"` // can be moved to the spot wallet now
	Equity       decimal.Decimal     `db:"equity"`       // worked out by the exchange's formula (facts 7)
	Unrealized   decimal.Decimal     `db:"unrealized"`   // the part of it that moves with prices
	Reported     decimal.NullDecimal `db:"reported"`     // the exchange's own figure, once its websocket has told it
}

// Difference is how far the exchange's own figure is above ours.
func (f FuturesRow) Difference() decimal.Decimal { return f.Reported.Decimal.Sub(f.Equity) }

// WriteFutures mirrors the futures wallet of an account. An asset that is no longer
// held is gone.
func (s *Store) WriteFutures(ctx context.Context, account string, list []FuturesRow, now time.Time) error {
	return s.tx(ctx, "write futures wallet", func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		batch.Queue("DELETE FROM exchange_futures WHERE account = $1", account)
		for _, f := range list {
			batch.Queue(`INSERT INTO exchange_futures (account, asset, available, transferable, equity, unrealized, reported) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
				account, f.Asset, f.Available, f.Transferable, f.Equity, f.Unrealized, f.Reported)
		}
		batch.Queue(noteRead, account, "futures", now, fmt.Sprintf("%d assets", len(list)))
		return tx.SendBatch(ctx, batch).Close()
	})
}

// KeepTrace keeps the HTTP exchange of the attempt of a withdrawal that sent this
// body. The trace must hold no secret; it is kept for good.
func (s *Store) KeepTrace(ctx context.Context, withdrawal uuid.UUID, body []byte, trace json.RawMessage) error {
	_, err := s.Pool.Exec(ctx, `INSERT INTO attempt_traces (attempt_id, trace) SELECT id, $3 FROM attempts WHERE withdrawal_id = $1 AND body = $2
		ON CONFLICT DO NOTHING`, withdrawal, body, trace)
	if err != nil {
		return fmt.Errorf("keep trace: %w", err)
	}
	return nil
}

// Traces reads the HTTP exchanges of a withdrawal's attempts, by attempt. An attempt
// whose worker died has none.
func (s *Store) Traces(ctx context.Context, withdrawal uuid.UUID) (map[uuid.UUID]json.RawMessage, error) {
	rows, err := s.Pool.Query(ctx, `SELECT t.attempt_id, t.trace FROM attempt_traces t JOIN attempts a ON a.id = t.attempt_id WHERE a.withdrawal_id = $1`, withdrawal)
	if err != nil {
		return nil, fmt.Errorf("read traces: %w", err)
	}
	out := map[uuid.UUID]json.RawMessage{}
	var id uuid.UUID
	var trace []byte
	if _, err := pgx.ForEachRow(rows, []any{&id, &trace}, func() error { out[id] = append(json.RawMessage(nil), trace...); return nil }); err != nil {
		return nil, fmt.Errorf("read traces: %w", err)
	}
	return out, nil
}
