package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sync/errgroup"

	"sluice/internal/audit"
	"sluice/internal/audit/receipt"
	"sluice/internal/audit/receipt/receipttest"
	"sluice/internal/canonical"
	"sluice/internal/fault"
	"sluice/internal/pgstore/pgserver"
	"sluice/internal/pgstore/pgtest"
	"sluice/internal/withdraw"
)

// logBundle is a record with its three parties: the api and the worker, and the
// thief, who owns the database and turns its triggers off.
type logBundle struct {
	api, worker, thief *Store
	signer             *audit.Signer
}

func openLog(t testing.TB) logBundle {
	t.Helper()
	open := func(role string) *Store {
		s, err := Open(t.Context(), pgtest.URL(t, role))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	return logBundle{api: open("sluice_api"), worker: open("sluice_worker"), thief: open(pgserver.Superuser), signer: openSigner(t)}
}

func someEvent(n int) audit.Event {
	return audit.NewEvent(time.Date(2026, 3, 2, 9, 0, n, 0, time.UTC), "client:payroll", "test.happened", uuid.Must(uuid.NewV7()), canonical.Object{"n": n})
}

// happen appends n events in as many transactions and returns them.
func (b logBundle) happen(t testing.TB, n int) []audit.Event {
	t.Helper()
	events := make([]audit.Event, n)
	for i := range events {
		events[i] = someEvent(i)
		b.write(t, events[i])
	}
	return events
}

func (b logBundle) write(t testing.TB, events ...audit.Event) {
	t.Helper()
	if err := b.api.tx(t.Context(), "test", func(tx pgx.Tx) error { return appendEvents(t.Context(), tx, events...) }); err != nil {
		t.Fatal(err)
	}
}

// sequence numbers events until it has numbered want of them. It may have to ask
// more than once: transactions of other tests, in other databases of the same
// server, hold the xmin back as they would in production.
func (b logBundle) sequence(t testing.TB, max, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for total := 0; total < want; {
		// No more than are wanted: a neighbour's transaction may hold the first call
		// back to fewer than max.
		most := min(max, want-total)
		n, err := b.worker.Sequence(ctx, most)
		if err != nil || n > most {
			t.Fatalf("numbered %d of at most %d events (%v)", n, most, err)
		}
		total += n
	}
}

// nothingToSequence checks that there is nothing that may be numbered now.
func (b logBundle) nothingToSequence(t testing.TB) {
	t.Helper()
	if n, err := b.worker.Sequence(t.Context(), 10); err != nil || n != 0 {
		t.Fatalf("numbered %d events, want none (%v)", n, err)
	}
}

func (b logBundle) checkpoint(t testing.TB) audit.Checkpoint {
	t.Helper()
	c, signed, err := b.worker.Checkpoint(t.Context(), b.signer)
	if err != nil || !signed {
		t.Fatalf("signed %t (%v)", signed, err)
	}
	return c
}

// steal runs a statement as the owner of the database with all guards off.
func (b logBundle) steal(t testing.TB, sql string, args ...any) {
	t.Helper()
	err := b.thief.tx(t.Context(), "steal", func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "SET LOCAL session_replication_role = replica"); err != nil {
			return err
		}
		tag, err := tx.Exec(t.Context(), sql, args...)
		if err == nil && tag.RowsAffected() == 0 {
			return errors.New("nothing was changed")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (b logBundle) order(t testing.TB) []uuid.UUID {
	t.Helper()
	rows, err := b.worker.Pool.Query(t.Context(), "SELECT event_id FROM audit_leaves ORDER BY seq")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestSequenceNumbersEventsInOrder(t *testing.T) {
	t.Parallel()
	b := openLog(t)
	b.nothingToSequence(t)
	events := b.happen(t, 7)
	b.sequence(t, 5, 7)
	b.nothingToSequence(t)
	for i, id := range b.order(t) {
		if id != events[i].ID {
			t.Errorf("leaf %d is %s, want %s", i, id, events[i].ID)
		}
	}
	// The stored hashes are those of the library.
	var want []tlog.Hash
	for i, e := range events {
		body, err := e.Body()
		if err != nil {
			t.Fatal(err)
		}
		nodes, err := tlog.StoredHashes(int64(i), body, tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
			out := make([]tlog.Hash, len(at))
			for i, idx := range at {
				out[i] = want[idx]
			}
			return out, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, nodes...)
	}
	rows, err := b.api.Pool.Query(t.Context(), "SELECT idx, hash FROM audit_hashes ORDER BY idx")
	if err != nil {
		t.Fatal(err)
	}
	var idx int64
	var hash []byte
	n := 0
	if _, err := pgx.ForEachRow(rows, []any{&idx, &hash}, func() error {
		if idx != int64(n) || tlog.Hash(hash) != want[n] {
			t.Errorf("hash %d is not the library's", idx)
		}
		n++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n != len(want) {
		t.Errorf("%d hashes, want %d", n, len(want))
	}
}

// The accident that the xmin rule prevents: a transaction gets its number first
// and commits last, after a younger one has been numbered. It must still come.
func TestSequenceWaitsForOlderTransactions(t *testing.T) {
	t.Parallel()
	b := openLog(t)
	ctx := t.Context()
	older, err := b.api.Pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer older.Rollback(context.WithoutCancel(ctx)) // committed below
	slow, quick := someEvent(1), someEvent(2)
	if err := appendEvents(ctx, older, slow); err != nil {
		t.Fatal(err)
	}
	b.write(t, quick)
	b.nothingToSequence(t)
	if err := older.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	b.sequence(t, 10, 2)
	if got := b.order(t); got[0] != slow.ID || got[1] != quick.ID {
		t.Errorf("order %v, want the older transaction first", got)
	}
}

// Whoever moves a withdrawal locks its row before writing anything. Postgres
// gives a transaction its number at its first write, so the one that waited for
// the lock has the higher number, and the log has the moves in their order.
func TestRowLockGivesTheLogItsOrder(t *testing.T) {
	t.Parallel()
	b := openLog(t)
	ctx := t.Context()
	if _, err := b.thief.Pool.Exec(ctx, "INSERT INTO accounts (name, created_at) VALUES ('main', now())"); err != nil {
		t.Fatal(err)
	}
	begin := func() pgx.Tx {
		tx, err := b.thief.Pool.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tx.Rollback(context.Background()) }) // committed in the test
		return tx
	}
	lock := func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SELECT FROM accounts WHERE name = 'main' FOR UPDATE")
		return err
	}
	first, second := begin(), begin()
	var pid uint32
	if err := second.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	if err := lock(first); err != nil {
		t.Fatal(err)
	}
	early, late := someEvent(1), someEvent(2)
	var waiter errgroup.Group
	waiter.Go(func() error {
		if err := lock(second); err != nil {
			return err
		}
		if err := appendEvents(ctx, second, late); err != nil {
			return err
		}
		return second.Commit(ctx)
	})
	for waiting := false; !waiting; {
		if err := b.thief.Pool.QueryRow(ctx, "SELECT cardinality(pg_blocking_pids($1)) > 0", int32(pid)).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	if err := appendEvents(ctx, first, early); err != nil {
		t.Fatal(err)
	}
	if err := first.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := waiter.Wait(); err != nil {
		t.Fatal(err)
	}
	b.sequence(t, 10, 2)
	if got := b.order(t); got[0] != early.ID || got[1] != late.ID {
		t.Errorf("order %v, want the order of the locks", got)
	}
}

func TestManySequencersMakeOneLog(t *testing.T) {
	t.Parallel()
	b := openLog(t)
	const events = 60
	var g errgroup.Group
	g.Go(func() error {
		for i := range events {
			if err := b.api.tx(t.Context(), "test", func(tx pgx.Tx) error { return appendEvents(t.Context(), tx, someEvent(i)) }); err != nil {
				return err
			}
		}
		return nil
	})
	for range 4 {
		g.Go(func() error {
			for done := 0; done < events; {
				if _, err := b.worker.Sequence(t.Context(), 7); err != nil {
					return err
				}
				if err := b.worker.Pool.QueryRow(t.Context(), "SELECT count(*) FROM audit_leaves").Scan(&done); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	b.checkpoint(t)
	report, err := b.api.VerifyLog(t.Context(), b.signer.VerifierText(), nil)
	if err != nil || report != (LogReport{Events: events, Checkpoints: 1, Signed: events}) {
		t.Errorf("%+v (%v)", report, err)
	}
}

// Finding new events must not cost more as the record grows.
func TestSequenceStepsIntoTheIndex(t *testing.T) {
	t.Parallel()
	b := openLog(t)
	fill(t, b, 5000)
	if _, err := b.thief.Pool.Exec(t.Context(), "ANALYZE audit_events"); err != nil {
		t.Fatal(err)
	}
	rows, err := b.worker.Pool.Query(t.Context(), "EXPLAIN "+selectNext, "1000000", uuid.Nil, 1000)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	plan := strings.Join(lines, "\n")
	if !strings.Contains(plan, "Index Scan using audit_events_txid") || strings.Contains(plan, "Sort") {
		t.Errorf("the plan does not walk the index:\n%s", plan)
	}
}

func TestSequenceNoticesThatTransactionNumbersRanBackwards(t *testing.T) {
	t.Parallel()
	b := openLog(t)
	b.happen(t, 1)
	b.sequence(t, 10, 1)
	b.steal(t, "UPDATE audit_events SET txid = '99999999999'") // as a dump from a busier server brings it
	b.happen(t, 1)
	if _, err := b.worker.Sequence(t.Context(), 10); !fault.Is(err, "audit_txid_backwards") {
		t.Errorf("got %v", err)
	}
}

func TestOnlyTheWorkerExtendsTheLog(t *testing.T) {
	t.Parallel()
	b := openLog(t)
	b.happen(t, 1)
	denied := func(err error) bool {
		var pg *pgconn.PgError
		return errors.As(err, &pg) && pg.Code == "42501"
	}
	var err error
	for n := 0; n == 0 && err == nil; { // until the event may be numbered at all
		n, err = b.api.Sequence(t.Context(), 10)
	}
	if !denied(err) {
		t.Errorf("the api numbers events: %v", err)
	}
	b.sequence(t, 10, 1)
	if _, _, err := b.api.Checkpoint(t.Context(), b.signer); !denied(err) {
		t.Errorf("the api signs: %v", err)
	}
}

func TestCheckpointSignsWhenTheLogHasGrown(t *testing.T) {
	t.Parallel()
	b := openLog(t)
	if _, signed, err := b.worker.Checkpoint(t.Context(), b.signer); err != nil || signed {
		t.Fatalf("an empty log was signed: %t (%v)", signed, err)
	}
	for size := int64(1); size <= 9; size++ {
		b.happen(t, 1)
		b.sequence(t, 10, 1)
		if c := b.checkpoint(t); c.Size != size {
			t.Fatalf("size %d, want %d", c.Size, size)
		}
		if _, signed, err := b.worker.Checkpoint(t.Context(), b.signer); err != nil || signed {
			t.Fatalf("the same log was signed twice: %t (%v)", signed, err)
		}
	}
	var note string
	if err := b.api.Pool.QueryRow(t.Context(), "SELECT note FROM checkpoints WHERE size = 9").Scan(&note); err != nil {
		t.Fatal(err)
	}
	c, err := b.signer.Verifier().Open(note)
	if err != nil || c.Origin != "sluice/test" || c.Size != 9 {
		t.Errorf("%+v (%v)", c, err)
	}
}

func TestCheckpointRefusesARewrittenLog(t *testing.T) {
	t.Parallel()
	for name, rewrite := range map[string]func(t *testing.T, b logBundle){
		"a subtree's hash": func(t *testing.T, b logBundle) {
			b.steal(t, "UPDATE audit_hashes SET hash = sha256('x') WHERE idx = 6")
		},
		"the last hash": func(t *testing.T, b logBundle) {
			b.steal(t, "UPDATE audit_hashes SET hash = sha256('x') WHERE idx = (SELECT max(idx) FROM audit_hashes)")
		},
		"a missing hash":  func(t *testing.T, b logBundle) { b.steal(t, "DELETE FROM audit_hashes WHERE idx = 6") },
		"leaves removed":  func(t *testing.T, b logBundle) { b.steal(t, "DELETE FROM audit_leaves WHERE seq >= 3") },
		"the stored root": func(t *testing.T, b logBundle) { b.steal(t, "UPDATE checkpoints SET root = sha256('x')") },
		"the stored size": func(t *testing.T, b logBundle) { b.steal(t, "UPDATE checkpoints SET size = 3") },
		"a checkpoint by another key": func(t *testing.T, b logBundle) {
			other := openSigner(t)
			var root []byte
			if err := b.thief.Pool.QueryRow(t.Context(), "SELECT root FROM checkpoints").Scan(&root); err != nil {
				t.Fatal(err)
			}
			note, err := other.Sign(audit.Checkpoint{Origin: other.Origin(), Size: 5, Root: tlog.Hash(root)})
			if err != nil {
				t.Fatal(err)
			}
			b.steal(t, "UPDATE checkpoints SET note = $1", note)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := openLog(t)
			b.happen(t, 5)
			b.sequence(t, 10, 5)
			b.checkpoint(t)
			rewrite(t, b)
			_, signed, err := b.worker.Checkpoint(t.Context(), b.signer)
			if signed || !fault.Is(err, "audit_log_rewritten") {
				t.Errorf("signed %t (%v)", signed, err)
			}
			var notes int
			if err := b.api.Pool.QueryRow(t.Context(), "SELECT count(*) FROM checkpoints").Scan(&notes); err != nil || notes != 1 {
				t.Errorf("%d checkpoints (%v)", notes, err)
			}
		})
	}
}

func openSigner(t testing.TB) *audit.Signer {
	t.Helper()
	secret, _, err := audit.NewKey("test")
	if err != nil {
		t.Fatal(err)
	}
	s, err := audit.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A thief who rewrites an event and every stored hash after it leaves a log that
// agrees with itself. The signature made before is what it cannot agree with,
// and the signer must not make a new one over it.
func TestConsistentForgeryMeetsTheOldSignature(t *testing.T) {
	t.Parallel()
	b := openLog(t)
	events := b.happen(t, 5)
	b.sequence(t, 10, 5)
	b.checkpoint(t)
	events[1].Detail = canonical.Object{"n": 1000}
	body, err := events[1].Body()
	if err != nil {
		t.Fatal(err)
	}
	b.steal(t, "UPDATE audit_events SET body = $1 WHERE id = $2", body, events[1].ID)
	b.steal(t, "DELETE FROM audit_hashes")
	b.steal(t, "DELETE FROM audit_leaves")
	b.sequence(t, 10, 5) // the whole tree anew
	b.happen(t, 1)
	b.sequence(t, 10, 1)
	if _, signed, err := b.worker.Checkpoint(t.Context(), b.signer); signed || !fault.Is(err, "audit_log_rewritten") {
		t.Errorf("signed %t (%v)", signed, err)
	}
	_, err = b.api.VerifyLog(t.Context(), b.signer.VerifierText(), nil)
	if !fault.Is(err, "audit_log_rewritten") || !strings.Contains(err.Error(), "checkpoint at size 5") {
		t.Errorf("got %v", err)
	}
}

func TestVerifyLogNamesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sql  string
		want string // %s is the third event
	}{
		"a body":                 {"UPDATE audit_events SET body = convert_to(replace(convert_from(body, 'UTF8'), 'payroll', 'paymore'), 'UTF8') WHERE id = $1", "event %s (test.happened): its column says actor"},
		"a body and column":      {"UPDATE audit_events SET actor = 'client:paymore', body = convert_to(replace(convert_from(body, 'UTF8'), 'payroll', 'paymore'), 'UTF8') WHERE id = $1", "event %s (test.happened): the stored hashes"},
		"a detail":               {`UPDATE audit_events SET body = convert_to(replace(convert_from(body, 'UTF8'), '"n":2', '"n":3'), 'UTF8') WHERE id = $1`, "event %s (test.happened): the stored hashes"},
		"the actor column":       {"UPDATE audit_events SET actor = 'client:other' WHERE id = $1", "event %s (test.happened): its column says actor"},
		"the action column":      {"UPDATE audit_events SET action = 'other' WHERE id = $1", "event %s (other): its column says action"},
		"the time column":        {"UPDATE audit_events SET at = at + interval '1 hour' WHERE id = $1", "event %s (test.happened): its column says time"},
		"the withdrawal":         {"UPDATE audit_events SET withdrawal_id = NULL WHERE id = $1", "event %s (test.happened): its column says withdrawal"},
		"a body of another form": {"UPDATE audit_events SET body = '{}' WHERE id = $1", "event %s (test.happened)"},
		"an event":               {"DELETE FROM audit_events WHERE id = $1", "leaf 2: its event %s is gone"},
		"a leaf":                 {"DELETE FROM audit_leaves WHERE event_id = $1", "leaf 2 is missing"},
		"the last leaf":          {"WITH x AS (SELECT $1::uuid) DELETE FROM audit_leaves WHERE seq = 4", "a checkpoint was signed at size 5"},
		"leaves swapped":         {"UPDATE audit_leaves SET event_id = (SELECT event_id FROM audit_leaves WHERE seq = 3), seq = 2 WHERE event_id = $1", "leaf 2"},
		"a hash":                 {"UPDATE audit_hashes SET hash = sha256('x') WHERE idx = 3 AND $1::uuid IS NOT NULL", "event %s (test.happened): the stored hashes"},
		"a missing hash":         {"DELETE FROM audit_hashes WHERE idx = 3 AND $1::uuid IS NOT NULL", "event %s (test.happened): the stored hashes"},
		"a hash too many":        {"INSERT INTO audit_hashes SELECT 100, sha256('x') WHERE $1::uuid IS NOT NULL", "beyond the last leaf"},
		"a checkpoint's root":    {"UPDATE checkpoints SET root = sha256('x') WHERE size = 3 AND $1::uuid IS NOT NULL", "checkpoint at size 3"},
		"a checkpoint's note":    {"UPDATE checkpoints SET note = replace(note, E'\\n3\\n', E'\\n4\\n') WHERE size = 3 AND $1::uuid IS NOT NULL", "checkpoint at size 3"},
		"an event slipped in":    {"UPDATE audit_events SET txid = '1' WHERE action = 'waits' AND $1::uuid IS NOT NULL", "will never get one"},
		"an event put far off":   {"UPDATE audit_events SET txid = '99999999999' WHERE action = 'waits' AND $1::uuid IS NOT NULL", "will never get one"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := openLog(t)
			events := b.happen(t, 5)
			b.sequence(t, 3, 3)
			b.checkpoint(t)
			b.sequence(t, 3, 2)
			b.checkpoint(t)
			waits := someEvent(9)
			waits.Action = "waits"
			b.write(t, waits)

			var heard []int64
			report, err := b.api.VerifyLog(t.Context(), b.signer.VerifierText(), func(done, total int64) { heard = append(heard, done, total) })
			if err != nil || report != (LogReport{Events: 5, Checkpoints: 2, Signed: 5, Waiting: 1}) {
				t.Fatalf("before: %+v (%v)", report, err)
			}
			if fmt.Sprint(heard) != "[5 5]" {
				t.Errorf("progress %v", heard)
			}
			if name == "leaves swapped" {
				b.steal(t, "DELETE FROM audit_leaves WHERE seq = 2")
				b.steal(t, "UPDATE audit_leaves SET seq = 2 WHERE seq = 3")
				b.steal(t, "INSERT INTO audit_leaves VALUES (3, $1)", events[2].ID)
			} else {
				b.steal(t, c.sql, events[2].ID)
			}
			want := c.want
			if strings.Contains(want, "%s") {
				want = fmt.Sprintf(want, events[2].ID)
			}
			_, err = b.api.VerifyLog(t.Context(), b.signer.VerifierText(), nil)
			if !fault.Is(err, "audit_log_rewritten") {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(err.Error(), want) {
				t.Errorf("got %q, want %q", err, want)
			}
		})
	}
}

func TestVerifyLogAcrossBatches(t *testing.T) {
	t.Parallel()
	b := openLog(t)
	const events = 2*verifyBatch + 7
	fill(t, b, events)
	b.checkpoint(t)
	var heard []int64
	report, err := b.api.VerifyLog(t.Context(), b.signer.VerifierText(), func(done, _ int64) { heard = append(heard, done) })
	if err != nil || report != (LogReport{Events: events, Checkpoints: 1, Signed: events}) {
		t.Errorf("%+v (%v)", report, err)
	}
	if fmt.Sprint(heard) != "[1000 2000 2007]" {
		t.Errorf("progress %v", heard)
	}
	b.steal(t, "DELETE FROM audit_leaves WHERE seq BETWEEN 1000 AND 1999") // a batch with nothing in it
	if _, err := b.api.VerifyLog(t.Context(), b.signer.VerifierText(), nil); !fault.Is(err, "audit_log_rewritten") || !strings.Contains(err.Error(), "leaf 1000 is missing") {
		t.Errorf("got %v", err)
	}
	if _, err := b.api.VerifyLog(t.Context(), "no key", nil); !fault.Is(err, "audit_verifier_invalid") {
		t.Errorf("got %v", err)
	}
}

// fill writes n events in one go and numbers them.
func fill(t testing.TB, b logBundle, n int) {
	t.Helper()
	rows := make([][]any, n)
	for i := range rows {
		e := someEvent(i)
		body, err := e.Body()
		if err != nil {
			t.Fatal(err)
		}
		rows[i] = []any{e.ID, e.At, e.Actor, e.Action, e.Withdrawal, body}
	}
	if _, err := b.api.Pool.CopyFrom(t.Context(), pgx.Identifier{"audit_events"},
		[]string{"id", "at", "actor", "action", "withdrawal_id", "body"}, pgx.CopyFromRows(rows)); err != nil {
		t.Fatal(err)
	}
	b.sequence(t, n, n)
}

// store puts a story's rows where the parts of Sluice would have put them.
func store(t *testing.T, b logBundle, s *receipttest.Story) {
	t.Helper()
	p := s.Proposal
	exec := func(sql string, args ...any) {
		if _, err := b.thief.Pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	now := s.Events[0].At
	exec("INSERT INTO accounts (name, created_at) VALUES ($1, $2)", p.Account, now)
	exec(`INSERT INTO destinations (id, account, method, asset, chain, address, memo, label, state, attested_by, attested_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, '', 'active', 'operator:root', $8)`,
		p.DestinationID, p.Account, p.Method, p.Asset, p.Chain, p.Address, p.Memo, now)
	for _, a := range s.Approvers {
		exec("INSERT INTO people (id, name, display_name, roles, created_at) VALUES ($1, $2, $2, '{approver}', $3)", a.ID, a.Name, now)
		exec(`INSERT INTO passkeys (id, person_id, public_key, sign_count, transports, backup_eligible, software, label, created_at)
			VALUES ($1, $2, $3, 0, '{}', false, true, '', $4)`, a.Passkey, a.ID, a.COSE(), now)
	}
	digest := withdraw.DigestOf(s.Sealed)
	exec(`INSERT INTO withdrawals (id, requester, reference, idempotency_key, body_hash, answer_status, answer, account, method, asset, chain,
			address, memo, amount, max_fee, purpose, destination_id, state, digest, expires_at, exchange_id, created_at, updated_at)
		VALUES ($1, $2, $3, 'k', sha256(''), 201, '', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'completed', $14, $15, 31200001, $16, $16)`,
		p.ID, p.Requester, p.Reference, p.Account, p.Method, p.Asset, p.Chain, p.Address, p.Memo, p.Amount, p.MaxFee, p.Purpose,
		p.DestinationID, digest, p.ExpiresAt, now)
	exec("INSERT INTO proposals (digest, sealed, withdrawal_id, round, created_at) VALUES ($1, $2, $3, 1, $4)", digest, s.Sealed, p.ID, now)
	for _, v := range s.Votes {
		exec(`INSERT INTO votes (id, digest, person_id, passkey_id, decision, reason, nonce, authenticator_data, client_data, signature, cast_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`, uuid.Must(uuid.NewV7()), digest, v.Person, v.Passkey, string(v.Decision), v.Reason,
			v.Nonce, v.AuthenticatorData, v.ClientData, v.Signature, v.CastAt)
	}
	for _, a := range s.Attempts {
		outcome, id := "not_accepted", (*int64)(nil)
		if a.ExchangeID != 0 {
			outcome, id = "accepted", &a.ExchangeID
		}
		exec(`INSERT INTO attempts (id, withdrawal_id, digest, number, fence, account, asset, chain, address, memo, amount, remark, body,
				signed_at, window_ms, outcome, exchange_id, created_at, decided_at)
			VALUES ($1, $2, $3, $4, 1, $5, $6, $7, $8, $9, $10, $11, $12, $13, 5000, $14, $15, $13, $13)`,
			a.ID, p.ID, digest, a.Number, p.Account, p.Asset, p.Chain, p.Address, p.Memo, p.Amount, a.Remark, a.Body, a.SignedAt, outcome, id)
	}
}

func TestReceiptIsExportedAndHoldsOffline(t *testing.T) {
	t.Parallel()
	b := openLog(t)
	s := receipttest.Paid()
	store(t, b, s)
	export := func() (receipt.Receipt, error) {
		return b.api.Receipt(t.Context(), s.Proposal.ID, receipttest.Site)
	}
	notReady := func(when string) {
		t.Helper()
		if _, err := export(); !fault.Is(err, "receipt_not_ready") {
			t.Fatalf("%s: %v", when, err)
		}
	}
	notReady("without a checkpoint")
	last := len(s.Events) - 1
	for _, e := range s.Events[:last] {
		b.write(t, e)
	}
	b.sequence(t, 100, last)
	b.checkpoint(t)
	b.write(t, s.Events[last])
	notReady("with an event that has no leaf")
	b.sequence(t, 100, 1)
	notReady("with a leaf beyond the checkpoint")
	b.checkpoint(t)

	r, err := export()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if r, err = receipt.Parse(doc); err != nil {
		t.Fatal(err)
	}
	report, err := receipt.Verify(r, b.signer.VerifierText(), receipttest.Site)
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(report.Failures, "\n"))
	}
	if report.State != "completed" || len(r.Events) != 10 || len(r.Roster) != 4 || len(r.Votes) != 2 || len(r.Attempts) != 2 {
		t.Errorf("state %s, %d events, %d roster events, %d votes, %d attempts", report.State, len(r.Events), len(r.Roster), len(r.Votes), len(r.Attempts))
	}
	if _, err := b.api.Receipt(t.Context(), uuid.New(), receipttest.Site); !fault.Is(err, "withdrawal_not_found") {
		t.Errorf("got %v", err)
	}
}

func TestReceiptOfARewrittenAttemptDoesNotHold(t *testing.T) {
	t.Parallel()
	b := openLog(t)
	s := receipttest.Paid()
	store(t, b, s)
	b.write(t, s.Events...)
	b.sequence(t, 100, len(s.Events))
	b.checkpoint(t)
	b.steal(t, "UPDATE attempts SET body = convert_to(replace(convert_from(body, 'UTF8'), '25.5', '99.5'), 'UTF8') WHERE number = 2")
	r, err := b.api.Receipt(t.Context(), s.Proposal.ID, receipttest.Site)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := receipt.Verify(r, b.signer.VerifierText(), receipttest.Site); !fault.Is(err, "receipt_invalid") {
		t.Errorf("got %v", err)
	}
}

func BenchmarkSequence(b *testing.B) {
	log := openLog(b)
	const batch = 1000
	for b.Loop() {
		b.StopTimer()
		for range batch {
			log.write(b, someEvent(0))
		}
		b.StartTimer()
		log.sequence(b, batch, batch)
	}
	b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkVerifyLog(b *testing.B) {
	log := openLog(b)
	const events = 20_000
	fill(b, log, events)
	log.checkpoint(b)
	for b.Loop() {
		if _, err := log.api.VerifyLog(b.Context(), log.signer.VerifierText(), nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(events*b.N)/b.Elapsed().Seconds(), "events/s")
}
