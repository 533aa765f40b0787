// Package pgstore holds all SQL. Driver errors stop here: what comes out is a
// value, a fault, or an internal error that names what was being done.
package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"sluice/internal/audit"
	"sluice/internal/fault"
)

// Store is the database as one process sees it, under that process's role.
type Store struct {
	Pool *pgxpool.Pool
}

// Open connects and checks that the server answers.
func Open(ctx context.Context, url string) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		// The cause would quote the address, password included.
		return nil, fault.New(fault.Invalid, "database_url", "the database address cannot be read",
			"set SLUICE_DATABASE_URL to postgres://user@host:port/database")
	}
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fault.New(fault.Unavailable, "database_unreachable",
			fmt.Sprintf("no database answers at %s as %s", cfg.ConnConfig.Host, cfg.ConnConfig.User),
			"start Postgres, check SLUICE_DATABASE_URL, and run `sluice migrate`").Because(err)
	}
	return &Store{Pool: pool}, nil
}

// Close ends all connections.
func (s *Store) Close() { s.Pool.Close() }

// tx runs do in one transaction and commits it unless do fails.
func (s *Store) tx(ctx context.Context, what string, do func(tx pgx.Tx) error) error {
	err := pgx.BeginFunc(ctx, s.Pool, do)
	if err == nil {
		return nil
	}
	if _, ok := fault.As(err); ok {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}

// appendEvents adds to the record, in the transaction that makes the change.
func appendEvents(ctx context.Context, tx pgx.Tx, events ...audit.Event) error {
	for _, e := range events {
		body, err := e.Body()
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO audit_events (id, at, actor, action, withdrawal_id, body)
			VALUES ($1, $2, $3, $4, $5, $6)`, e.ID, e.At, e.Actor, e.Action, orNull(e.Withdrawal), body); err != nil {
			return fmt.Errorf("append %s: %w", e.Action, err)
		}
	}
	return nil
}

// orNull turns the zero id into SQL's NULL.
func orNull(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}

// violates tells whether err is the breach of a named constraint or unique index.
func violates(err error, constraint string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.ConstraintName == constraint
}

// storable makes text from outside fit for a text column, which takes neither
// NUL nor broken UTF-8. The raw bytes are kept as evidence beside it.
func storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
