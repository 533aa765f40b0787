package pgstore

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"sluice/migrations"
)

// migrationLock is the advisory lock under which one process at a time migrates.
const migrationLock = 0x51_1CE

// riverGrants are set after River's own migrations, each time, because a new
// version of River may add tables. The api may only add jobs: a job taken away
// or altered by a stolen api would strand a payout. (River's insert names
// "kind" in its conflict clause, which needs the column's UPDATE right.)
const riverGrants = `
	GRANT SELECT, INSERT, UPDATE (kind) ON river_job TO sluice_api;
	GRANT USAGE ON SEQUENCE river_job_id_seq TO sluice_api;
	GRANT SELECT, INSERT, UPDATE, DELETE ON river_job, river_leader, river_queue, river_notification TO sluice_worker;
	GRANT SELECT ON river_migration TO sluice_worker;
	GRANT USAGE ON SEQUENCE river_job_id_seq, river_notification_id_seq TO sluice_worker`

// Migrate brings the database to this program's schema: ours, then River's,
// under one lock, so that any number of processes may call it at once. The url
// is the owner's. Progress may be nil.
func Migrate(ctx context.Context, ownerURL string, progress func(string)) error {
	say := func(format string, args ...any) {
		if progress != nil {
			progress(fmt.Sprintf(format, args...))
		}
	}
	store, err := Open(ctx, ownerURL)
	if err != nil {
		return err
	}
	defer store.Close()

	lock, err := store.Pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer lock.Release()
	if _, err := lock.Exec(ctx, "SELECT pg_advisory_lock($1)", migrationLock); err != nil {
		return fmt.Errorf("migrate: wait for the lock: %w", err)
	}
	defer lock.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", migrationLock) //nolint:errcheck // the connection's end frees it too

	db := stdlib.OpenDBFromPool(store.Pool)
	defer db.Close()
	if err := migrateOurs(ctx, db, say); err != nil {
		return err
	}
	return migrateRiver(ctx, store.Pool, say)
}

func migrateOurs(ctx context.Context, db *sql.DB, say func(string, ...any)) error {
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.Files)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	done, err := provider.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	for _, m := range done {
		say("migration %s applied in %s", m.Source.Path, m.Duration.Round(1e6))
	}
	return nil
}

func migrateRiver(ctx context.Context, pool *pgxpool.Pool, say func(string, ...any)) error {
	m, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return fmt.Errorf("migrate river: %w", err)
	}
	done, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil)
	if err != nil {
		return fmt.Errorf("migrate river: %w", err)
	}
	if len(done.Versions) > 0 {
		say("river's %d migrations applied", len(done.Versions))
	}
	if _, err := pool.Exec(ctx, riverGrants); err != nil {
		return fmt.Errorf("migrate river: grants: %w", err)
	}
	return nil
}

// SetPassword gives a database role its password. The statement takes no
// parameters, so the server quotes the text itself.
func SetPassword(ctx context.Context, ownerURL, role, password string) error {
	conn, err := pgx.Connect(ctx, ownerURL)
	if err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	defer conn.Close(ctx)
	// Two that alter one role at once fail: "tuple concurrently updated".
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", migrationLock); err != nil {
		return fmt.Errorf("set password of %s: wait for the lock: %w", role, err)
	}
	var statement string
	if err := conn.QueryRow(ctx, "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)", role, password).Scan(&statement); err != nil {
		return fmt.Errorf("set password of %s: %w", role, err)
	}
	if _, err := conn.Exec(ctx, statement); err != nil {
		// The cause could quote the statement, password included.
		return fmt.Errorf("set password of %s: the server refused", role)
	}
	return nil
}

// CurrentSchema tells whether every migration that this program knows has run.
func (s *Store) CurrentSchema(ctx context.Context) error {
	var version int64
	if err := s.Pool.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied").Scan(&version); err != nil {
		return fmt.Errorf("the database has no schema; run `sluice migrate`: %w", err)
	}
	if version < LatestMigration {
		return fmt.Errorf("the schema is at version %d and this program needs %d; run `sluice migrate`", version, LatestMigration)
	}
	return nil
}

// LatestMigration is the number of the newest migration in the migrations folder.
const LatestMigration = 3
