// Package schematest compares what package withdraw says of states and moves with what
// the database enforces. It is apart so that the rules' own tests need no server.
package schematest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sluice/internal/pgstore"
	"sluice/internal/pgstore/pgserver"
	"sluice/internal/pgstore/pgtest"
	"sluice/internal/withdraw"
)

func TestMain(m *testing.M) {
	pgtest.Main(m, func(ctx context.Context, url string) error { return pgstore.Migrate(ctx, url, nil) })
}

func connect(t *testing.T, role string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), pgtest.URL(t, role))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func sorted(list []withdraw.State) []string {
	var texts []string
	for _, s := range list {
		texts = append(texts, string(s))
	}
	slices.Sort(texts)
	return texts
}

func TestTheSchemaListsTheSameStatesAndMoves(t *testing.T) {
	db := connect(t, pgserver.Superuser)
	rows, err := db.Query(t.Context(), `SELECT leaves, enters, api, worker FROM withdrawal_moves`)
	if err != nil {
		t.Fatal(err)
	}
	inSchema := map[string]bool{}
	var from, to string
	var api, worker bool
	if _, err := pgx.ForEachRow(rows, []any{&from, &to, &api, &worker}, func() error {
		inSchema[fmt.Sprintf("%s to %s, api %v, worker %v", from, to, api, worker)] = true
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	inCode := map[string]bool{}
	for _, m := range withdraw.Moves {
		inCode[fmt.Sprintf("%s to %s, api %v, worker %v", m.From, m.To,
			slices.Contains(m.By, withdraw.API), slices.Contains(m.By, withdraw.Worker))] = true
	}
	if !maps.Equal(inSchema, inCode) {
		for move := range inSchema {
			if !inCode[move] {
				t.Errorf("only the schema has %s", move)
			}
		}
		for move := range inCode {
			if !inSchema[move] {
				t.Errorf("only the code has %s", move)
			}
		}
	}

	var check string
	if err := db.QueryRow(t.Context(), `SELECT pg_get_constraintdef(oid) FROM pg_constraint
		WHERE conrelid = 'withdrawals'::regclass AND conname = 'state_known'`).Scan(&check); err != nil {
		t.Fatal(err)
	}
	var known []string
	for _, m := range regexp.MustCompile(`'([a-z]+)'`).FindAllStringSubmatch(check, -1) {
		known = append(known, m[1])
	}
	slices.Sort(known)
	if want := sorted(withdraw.States()); !slices.Equal(known, want) {
		t.Errorf("the schema knows the states %v, the code %v", known, want)
	}
}

// insertAll puts one withdrawal into each state, past the rules, as only the owner can.
func insertAll(t *testing.T, db *pgx.Conn) map[withdraw.State]uuid.UUID {
	t.Helper()
	destination := uuid.New()
	if _, err := db.Exec(t.Context(), `INSERT INTO accounts (name, created_at) VALUES ('main', now())`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), `INSERT INTO destinations (id, account, method, asset, chain, address, memo, label, state, attested_by, attested_at)
		VALUES ($1, 'main', 'on_chain', 'USDT', 'TRC20', 'T1', '', '', 'active', 'x', now())`, destination); err != nil {
		t.Fatal(err)
	}
	ids := map[withdraw.State]uuid.UUID{}
	for i, s := range withdraw.States() {
		ids[s] = uuid.New()
		if _, err := db.Exec(t.Context(), `INSERT INTO withdrawals (id, requester, reference, idempotency_key, body_hash, answer_status, answer,
				account, method, asset, chain, address, memo, amount, max_fee, purpose, destination_id, state, digest, expires_at,
				reason_code, reason, next_step_at, approved_at, exchange_id, created_at, updated_at)
			VALUES ($1, 'client:payroll', $2, $2, sha256('x'), 201, '', 'main', 'on_chain', 'USDT', 'TRC20', 'T1', '', 25.5, 5, 'rent', $3,
				$4, sha256('x'), now(), 'code', 'reason', now(), now(), $5, now(), now())`, ids[s], string(s), destination, string(s), i+1); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

// Each process tries every change of state with its own role. What passes must be
// what Moves lists for it: the last guard, should code forget to name the states
// that a move may leave.
func TestTheDatabaseEnforcesEveryMoveByRole(t *testing.T) {
	ids := insertAll(t, connect(t, pgserver.Superuser))
	for role, process := range map[string]withdraw.Process{"sluice_api": withdraw.API, "sluice_worker": withdraw.Worker} {
		db := connect(t, role)
		for _, from := range withdraw.States() {
			for _, to := range withdraw.States() {
				if from == to {
					continue // not a move; a sweep notes its next step this way
				}
				allowed := slices.ContainsFunc(withdraw.Moves, func(m withdraw.Move) bool {
					return m.From == from && m.To == to && slices.Contains(m.By, process)
				})
				err := try(t, db, `UPDATE withdrawals SET state = $1 WHERE id = $2`, string(to), ids[from])
				var refusal *pgconn.PgError
				switch {
				case allowed && err != nil:
					t.Errorf("%s may move %s to %s, and the database says %v", role, from, to, err)
				case !allowed && err == nil:
					t.Errorf("%s may not move %s to %s, and the database let it", role, from, to)
				case !allowed && (!errors.As(err, &refusal) || refusal.Code != "23514" || !strings.Contains(refusal.Message, "may not move it")):
					t.Errorf("%s, %s to %s: refused for another reason: %v", role, from, to, err)
				}
			}
		}
	}
}

// try runs one statement in a transaction that it rolls back, and insists that it
// found its row.
func try(t *testing.T, db *pgx.Conn, statement string, args ...any) error {
	t.Helper()
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	tag, err := tx.Exec(t.Context(), statement, args...)
	if err == nil && tag.RowsAffected() != 1 {
		t.Errorf("%s, %v: touched %d rows", statement, args, tag.RowsAffected())
	}
	return err
}

// Nobody changes what was asked for, not even with a permitted move, and neither
// process has the rules in its own hands.
func TestTheRulesAreOutOfTheProcessesHands(t *testing.T) {
	ids := insertAll(t, connect(t, pgserver.Superuser))
	for _, role := range []string{"sluice_api", "sluice_worker", pgserver.Superuser} {
		db := connect(t, role)
		for column, value := range map[string]string{
			"amount": "99", "address": "'T2'", "memo": "'7'", "asset": "'BTC'", "chain": "'ERC20'", "account": "'other'", "method": "'inter_user'",
			"max_fee": "NULL", "destination_id": "NULL", "requester": "'client:x'", "reference": "'x'", "purpose": "'x'",
			"idempotency_key": "'x'", "body_hash": "sha256('y')", "answer": "'y'", "answer_status": "200", "id": "gen_random_uuid()", "created_at": "now()",
		} {
			if err := try(t, db, `UPDATE withdrawals SET `+column+` = `+value+` WHERE id = $1`, ids[withdraw.Pending]); err == nil {
				t.Errorf("%s changed %s of a pending request", role, column)
			}
		}
	}
	for _, role := range []string{"sluice_api", "sluice_worker"} {
		db := connect(t, role)
		for _, statement := range []string{
			`INSERT INTO withdrawal_moves VALUES ('submitting', 'approved', true, true)`,
			`UPDATE withdrawal_moves SET api = true, worker = true WHERE leaves = 'pending' AND enters = 'approved'`,
			`DELETE FROM withdrawal_moves WHERE leaves = 'pending' AND enters = 'approved'`,
			`DELETE FROM withdrawals WHERE state = 'pending'`,
			`ALTER TABLE withdrawals DISABLE TRIGGER withdrawals_guard_move`,
			`ALTER TABLE withdrawals DROP CONSTRAINT state_known`,
			`DROP TRIGGER withdrawals_guard_move ON withdrawals`,
			`CREATE OR REPLACE FUNCTION withdrawals_guard_move() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'`,
			`SET LOCAL session_replication_role = replica`,
			`SET LOCAL ROLE postgres`,
		} {
			tx, err := db.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), statement); err == nil {
				t.Errorf("%s may run %s", role, statement)
			}
			tx.Rollback(t.Context())
		}
	}
}

// A role may make temporary tables, and Postgres looks among those first: the guard
// must not take its rules from there.
func TestNobodyBringsTheirOwnRules(t *testing.T) {
	ids := insertAll(t, connect(t, pgserver.Superuser))
	for _, role := range []string{"sluice_api", "sluice_worker"} {
		db := connect(t, role)
		if _, err := db.Exec(t.Context(), `CREATE TEMP TABLE withdrawal_moves (leaves text, enters text, api boolean, worker boolean)`); err != nil {
			continue // not even that
		}
		if _, err := db.Exec(t.Context(), `INSERT INTO pg_temp.withdrawal_moves VALUES ('submitting', 'approved', true, true)`); err != nil {
			t.Fatal(err)
		}
		if err := try(t, db, `UPDATE withdrawals SET state = 'approved' WHERE id = $1`, ids[withdraw.Submitting]); err == nil {
			t.Errorf("%s moved submitting to approved by a rule of its own", role)
		}
	}
}

// What begins in the middle of its life has skipped the votes.
func TestTheApiBeginsRequestsAtTheDoor(t *testing.T) {
	insertAll(t, connect(t, pgserver.Superuser))
	db := connect(t, "sluice_api")
	for _, s := range withdraw.States() {
		err := try(t, db, `INSERT INTO withdrawals SELECT (jsonb_populate_record(w, jsonb_build_object('id', gen_random_uuid(),
			'idempotency_key', 'new', 'reference', 'new', 'exchange_id', 77))).* FROM withdrawals w WHERE state = $1`, string(s))
		if born := s == withdraw.Refused || s == withdraw.Pending; (err == nil) != born {
			t.Errorf("a request that begins as %s: %v", s, err)
		}
	}
}
