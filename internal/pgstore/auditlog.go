package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"sluice/internal/approval"
	"sluice/internal/audit"
	"sluice/internal/audit/receipt"
	"sluice/internal/fault"
)

// sequencerLock is the advisory lock under which one process at a time numbers
// events and signs checkpoints.
const sequencerLock = 0x51_1CE_106

// Sequence gives the next events of the record their leaf numbers and stores
// the tree's hashes for them, at most max at a time. It returns how many it
// numbered; fewer than max means that there are no more for now. It needs the
// worker's role.
//
// No event can be missed, and none has to be searched for. Events are numbered
// in the order of (txid, id), so the last one numbered marks the place up to
// which all is done, and the next are found by one step into the index. An
// event could only appear before that mark if its transaction was older and
// committed later. That is what the xmin rule is for: a transaction is numbered
// only when no older one is still running, and a new one always gets a higher
// txid. Until a long transaction ends, the record waits; it never skips.
//
// Fault: audit_txid_backwards, when the database's transaction numbers have
// started afresh below the mark, as after a restore from a logical dump.
func (s *Store) Sequence(ctx context.Context, max int) (int, error) {
	n := 0
	err := s.tx(ctx, "sequence the record", func(tx pgx.Tx) error {
		if err := lockLog(ctx, tx); err != nil {
			return err
		}
		end, err := readLogEnd(ctx, tx)
		if err != nil {
			return err
		}
		ids, leaves, err := nextLeaves(ctx, tx, end, max)
		if err != nil || len(ids) == 0 {
			return err
		}
		tree, err := audit.LoadTree(end.size, storedHashes(ctx, tx))
		if err != nil {
			return err
		}
		var nodes [][]byte
		for _, leaf := range leaves {
			for _, node := range tree.Append(leaf) {
				nodes = append(nodes, node[:])
			}
		}
		// Leaves and hashes are dense: UNNEST's own numbering is their place.
		if _, err := tx.Exec(ctx, `INSERT INTO audit_leaves (seq, event_id)
			SELECT $1 + n - 1, id FROM unnest($2::uuid[]) WITH ORDINALITY AS t (id, n)`, end.size, ids); err != nil {
			return fmt.Errorf("store leaves: %w", err)
		}
		if _, err := tx.Exec(ctx, `INSERT INTO audit_hashes (idx, hash)
			SELECT $1 + n - 1, hash FROM unnest($2::bytea[]) WITH ORDINALITY AS t (hash, n)`,
			tlog.StoredHashCount(end.size), nodes); err != nil {
			return fmt.Errorf("store hashes: %w", err)
		}
		n = len(ids)
		return nil
	})
	return n, err
}

// lockLog waits for the turn to extend the log. Under read committed each later
// statement sees what the one before us committed.
func lockLog(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", sequencerLock); err != nil {
		return fmt.Errorf("wait for the log: %w", err)
	}
	return nil
}

// logEnd is how long the log is, and the mark up to which every event has its
// number.
type logEnd struct {
	size int64
	txid string
	id   uuid.UUID
}

func readLogEnd(ctx context.Context, tx pgx.Tx) (logEnd, error) {
	end := logEnd{txid: "0"}
	var backwards bool
	err := tx.QueryRow(ctx, `SELECT l.seq + 1, e.txid::text, e.id, e.txid >= pg_snapshot_xmax(pg_current_snapshot())
		FROM audit_leaves l JOIN audit_events e ON e.id = l.event_id ORDER BY l.seq DESC LIMIT 1`).
		Scan(&end.size, &end.txid, &end.id, &backwards)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return end, fmt.Errorf("read the log's end: %w", err)
	}
	if backwards {
		return end, fault.New(fault.Unavailable, "audit_txid_backwards",
			"the database's transaction numbers are below those in the record, as after a restore from a logical dump; new events could not be told from old ones",
			"restore from a physical backup, or stop Postgres and raise its counter above the record's highest txid with pg_resetwal --epoch and --next-transaction-id")
	}
	return end, nil
}

// selectNext hashes each event's leaf (RFC 6962: SHA-256 over a zero byte and the
// body) on the server, so that bodies need not travel. VerifyLog hashes them
// again here.
const selectNext = `SELECT id, sha256('\x00'::bytea || body) FROM audit_events
	WHERE (txid, id) > ($1::text::xid8, $2) AND txid < pg_snapshot_xmin(pg_current_snapshot())
	ORDER BY txid, id LIMIT $3`

// nextLeaves reads the events after the mark.
func nextLeaves(ctx context.Context, tx pgx.Tx, end logEnd, max int) ([]uuid.UUID, []tlog.Hash, error) {
	rows, err := tx.Query(ctx, selectNext, end.txid, end.id, max)
	if err != nil {
		return nil, nil, fmt.Errorf("read new events: %w", err)
	}
	var ids []uuid.UUID
	var leaves []tlog.Hash
	var id uuid.UUID
	var leaf []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &leaf}, func() error {
		h, err := asHash(leaf)
		ids, leaves = append(ids, id), append(leaves, h)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read new events: %w", err)
	}
	return ids, leaves, nil
}

func asHash(b []byte) (tlog.Hash, error) {
	if len(b) != tlog.HashSize {
		return tlog.Hash{}, rewritten("a stored hash of the log's tree has %d bytes", len(b))
	}
	return tlog.Hash(b), nil
}

// logSize is the number of leaves.
func logSize(ctx context.Context, tx pgx.Tx) (size int64, err error) {
	if err := tx.QueryRow(ctx, "SELECT coalesce(max(seq) + 1, 0) FROM audit_leaves").Scan(&size); err != nil {
		return 0, fmt.Errorf("read the log's size: %w", err)
	}
	return size, nil
}

// storedHashes reads the tree's hashes by tlog's index.
func storedHashes(ctx context.Context, q querier) tlog.HashReader {
	return tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		if len(at) == 0 {
			return nil, nil
		}
		rows, err := q.Query(ctx, "SELECT idx, hash FROM audit_hashes WHERE idx = ANY ($1)", at)
		if err != nil {
			return nil, fmt.Errorf("read hashes: %w", err)
		}
		found := make(map[int64]tlog.Hash, len(at))
		var idx int64
		var hash []byte
		if _, err := pgx.ForEachRow(rows, []any{&idx, &hash}, func() error {
			found[idx], err = asHash(hash)
			return err
		}); err != nil {
			return nil, fmt.Errorf("read hashes: %w", err)
		}
		out := make([]tlog.Hash, len(at))
		for i, idx := range at {
			h, ok := found[idx]
			if !ok {
				return nil, rewritten("hash %d of the log's tree is missing", idx)
			}
			out[i] = h
		}
		return out, nil
	})
}

const rewrittenFix = "stop submissions, keep this database as evidence, run `sluice audit verify`, and compare with your backups and the checkpoints that you keep elsewhere"

func rewritten(format string, args ...any) error {
	return fault.New(fault.Refused, "audit_log_rewritten", fmt.Sprintf(format, args...), rewrittenFix)
}

// Checkpoint signs the log's tree if it has grown since the last checkpoint, and
// tells whether it did. It needs the worker's role.
//
// Before it signs it proves that the tree of now extends the one that was signed
// last: a signature over a rewritten log would make the forgery ours. Where the
// proof fails it signs nothing and returns the fault audit_log_rewritten. The
// proof reads a few dozen hashes however long the log is; stored hashes that
// neither root depends on are VerifyLog's to check.
func (s *Store) Checkpoint(ctx context.Context, signer *audit.Signer) (audit.Checkpoint, bool, error) {
	var now audit.Checkpoint
	signed := false
	err := s.tx(ctx, "sign checkpoint", func(tx pgx.Tx) error {
		if err := lockLog(ctx, tx); err != nil {
			return err
		}
		size, err := logSize(ctx, tx)
		if err != nil {
			return err
		}
		root, err := tlog.TreeHash(size, storedHashes(ctx, tx))
		if err != nil {
			return err
		}
		now = audit.Checkpoint{Origin: signer.Origin(), Size: size, Root: root}

		var last storedCheckpoint
		err = tx.QueryRow(ctx, "SELECT size, root, note FROM checkpoints ORDER BY size DESC LIMIT 1").Scan(&last.size, &last.root, &last.note)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			if size == 0 {
				return nil
			}
		case err != nil:
			return fmt.Errorf("read the last checkpoint: %w", err)
		default:
			if err := extends(ctx, tx, now, last, signer.Verifier()); err != nil {
				return err
			}
			if size == last.size {
				return nil
			}
		}
		text, err := signer.Sign(now)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "INSERT INTO checkpoints (size, root, note, at) VALUES ($1, $2, $3, now())", size, root[:], text); err != nil {
			return fmt.Errorf("store checkpoint: %w", err)
		}
		signed = true
		return nil
	})
	return now, signed, err
}

type storedCheckpoint struct {
	size int64
	root []byte
	note string
}

// open checks a stored checkpoint's signature, and its columns against what was signed.
func (c storedCheckpoint) open(verifier *audit.Verifier) (audit.Checkpoint, error) {
	signed, err := verifier.Open(c.note)
	if err != nil {
		return audit.Checkpoint{}, rewritten("the checkpoint at size %d: %v", c.size, err)
	}
	if signed.Size != c.size || !slices.Equal(signed.Root[:], c.root) {
		return audit.Checkpoint{}, rewritten("the columns of the checkpoint at size %d differ from what was signed", c.size)
	}
	return signed, nil
}

// extends proves that the tree of now begins with the one that was signed last.
func extends(ctx context.Context, q querier, now audit.Checkpoint, last storedCheckpoint, verifier *audit.Verifier) error {
	old, err := last.open(verifier)
	if err != nil {
		return err
	}
	if now.Size < old.Size {
		return rewritten("the log has %d events, and %d were signed for: some have been removed", now.Size, old.Size)
	}
	proof, err := tlog.ProveTree(now.Size, old.Size, storedHashes(ctx, q))
	if err != nil {
		return err
	}
	if tlog.CheckTree(proof, now.Size, now.Root, old.Size, old.Root) != nil {
		return rewritten("the first %d events of the log are not those that were signed for: the stored hashes have been changed", old.Size)
	}
	return nil
}

// LogReport is what VerifyLog found to hold.
type LogReport struct {
	Events      int64 `json:"events"`      // leaves whose body, columns and hashes agree
	Checkpoints int64 `json:"checkpoints"` // signatures that hold over the events before them
	Signed      int64 `json:"signed"`      // events under the newest checkpoint
	Waiting     int64 `json:"waiting"`     // events that have no leaf yet
}

// verifyBatch is how many events VerifyLog takes at a time.
const verifyBatch = 1000

// VerifyLog reads the whole record in the order of its leaves and builds the
// tree again from the bodies: every column against its body, every stored hash
// and every signed checkpoint against the tree. It stops at the first thing
// that does not fit, with the fault audit_log_rewritten that names the event, and
// the report says how far all was well. Memory does not grow with the log.
// Progress (which may be nil) hears how many events of how many are done.
func (s *Store) VerifyLog(ctx context.Context, verifierKey string, progress func(done, total int64)) (LogReport, error) {
	var report LogReport
	verifier, err := audit.NewVerifier(verifierKey)
	if err != nil {
		return report, err
	}
	// One snapshot, so that a log that grows meanwhile is the same log to the end.
	err = pgx.BeginTxFunc(ctx, s.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		total, err := logSize(ctx, tx)
		if err != nil {
			return err
		}
		w := logWalk{tx: tx, verifier: verifier, tree: &audit.Tree{}, report: &report}
		for w.tree.Size() < total {
			if err := w.step(ctx, min(w.tree.Size()+verifyBatch, total)); err != nil {
				return err
			}
			if progress != nil {
				progress(w.tree.Size(), total)
			}
		}
		return w.leftovers(ctx)
	})
	if _, ok := fault.As(err); err != nil && !ok {
		err = fmt.Errorf("verify the log: %w", err)
	}
	return report, err
}

// logWalk is VerifyLog under way.
type logWalk struct {
	tx       pgx.Tx
	verifier *audit.Verifier
	tree     *audit.Tree
	report   *LogReport
}

// step verifies the leaves from the tree's size up to end.
func (w *logWalk) step(ctx context.Context, end int64) error {
	begin := w.tree.Size()
	signed, err := w.checkpoints(ctx, begin, end)
	if err != nil {
		return err
	}
	stored, err := w.hashes(ctx, begin, end)
	if err != nil {
		return err
	}
	rows, err := w.tx.Query(ctx, `SELECT l.seq, l.event_id, e.id, e.at, e.actor, e.action, e.withdrawal_id, e.body
		FROM audit_leaves l LEFT JOIN audit_events e ON e.id = l.event_id
		WHERE l.seq >= $1 AND l.seq < $2 ORDER BY l.seq`, begin, end)
	if err != nil {
		return fmt.Errorf("read leaves: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var seq int64
		var named uuid.UUID
		var id *uuid.UUID
		var at *time.Time
		var actor, action *string
		var row audit.Row
		if err := rows.Scan(&seq, &named, &id, &at, &actor, &action, &row.Withdrawal, &row.Body); err != nil {
			return fmt.Errorf("read leaves: %w", err)
		}
		if seq != w.tree.Size() {
			return rewritten("leaf %d is missing", w.tree.Size())
		}
		if id == nil {
			return rewritten("leaf %d: its event %s is gone", seq, named)
		}
		row.ID, row.At, row.Actor, row.Action = *id, *at, *actor, *action
		if err := row.Check(); err != nil {
			return rewritten("leaf %d, event %s (%s): %v", seq, row.ID, row.Action, err)
		}
		for _, node := range w.tree.Append(tlog.RecordHash(row.Body)) {
			if len(stored) == 0 || stored[0] != node {
				return rewritten("leaf %d, event %s (%s): the stored hashes are not those of its body", seq, row.ID, row.Action)
			}
			stored = stored[1:]
		}
		if len(signed) > 0 && signed[0].Size == w.tree.Size() {
			if signed[0].Root != w.tree.Root() {
				return rewritten("leaf %d, event %s (%s): the checkpoint at size %d was signed over other events up to here", seq, row.ID, row.Action, signed[0].Size)
			}
			w.report.Checkpoints, w.report.Signed = w.report.Checkpoints+1, signed[0].Size
			signed = signed[1:]
		}
		w.report.Events++
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read leaves: %w", err)
	}
	if w.tree.Size() != end {
		return rewritten("leaf %d is missing", w.tree.Size())
	}
	return nil
}

// hashes reads the stored hashes that the leaves from begin up to end brought.
func (w *logWalk) hashes(ctx context.Context, begin, end int64) ([]tlog.Hash, error) {
	first, last := tlog.StoredHashCount(begin), tlog.StoredHashCount(end)
	rows, err := w.tx.Query(ctx, "SELECT hash FROM audit_hashes WHERE idx >= $1 AND idx < $2 ORDER BY idx", first, last)
	if err != nil {
		return nil, fmt.Errorf("read hashes: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (tlog.Hash, error) {
		var hash []byte
		if err := row.Scan(&hash); err != nil {
			return tlog.Hash{}, err
		}
		return asHash(hash)
	})
}

// checkpoints opens those signed at a size above begin and up to end.
func (w *logWalk) checkpoints(ctx context.Context, begin, end int64) ([]audit.Checkpoint, error) {
	rows, err := w.tx.Query(ctx, "SELECT size, root, note FROM checkpoints WHERE size > $1 AND size <= $2 ORDER BY size", begin, end)
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (audit.Checkpoint, error) {
		var c storedCheckpoint
		if err := row.Scan(&c.size, &c.root, &c.note); err != nil {
			return audit.Checkpoint{}, err
		}
		return c.open(w.verifier)
	})
}

// leftovers looks for what no leaf accounts for: signatures over events that are
// not there, hashes of no leaf, and events that were slipped in where the
// sequencer will never look.
func (w *logWalk) leftovers(ctx context.Context) error {
	size := w.tree.Size()
	var beyond *int64
	if err := w.tx.QueryRow(ctx, "SELECT max(size) FROM checkpoints WHERE size > $1", size).Scan(&beyond); err != nil {
		return fmt.Errorf("read checkpoints: %w", err)
	}
	if beyond != nil {
		return rewritten("a checkpoint was signed at size %d, and the log has %d events: the last ones have been removed", *beyond, size)
	}
	var extra bool
	if err := w.tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM audit_hashes WHERE idx >= $1)", tlog.StoredHashCount(size)).Scan(&extra); err != nil {
		return fmt.Errorf("read hashes: %w", err)
	}
	if extra {
		return rewritten("there are stored hashes beyond the last leaf %d", size-1)
	}
	var hidden *uuid.UUID
	err := w.tx.QueryRow(ctx, `WITH unnumbered AS (
			SELECT e.txid, e.id FROM audit_events e WHERE NOT EXISTS (SELECT FROM audit_leaves l WHERE l.event_id = e.id))
		SELECT count(*), (SELECT u.id FROM unnumbered u
			WHERE (u.txid, u.id) < (SELECT e.txid, e.id FROM audit_leaves l JOIN audit_events e ON e.id = l.event_id ORDER BY l.seq DESC LIMIT 1)
			   OR u.txid >= pg_snapshot_xmax(pg_current_snapshot()) LIMIT 1)
		FROM unnumbered`).Scan(&w.report.Waiting, &hidden)
	if err != nil {
		return fmt.Errorf("read events without a leaf: %w", err)
	}
	if hidden != nil {
		return rewritten("event %s has no leaf and will never get one: it was added under a false transaction number", *hidden)
	}
	return nil
}

// Receipt exports the proof of one withdrawal under the newest checkpoint, for
// the site that its passkeys belong to. Faults: withdrawal_not_found;
// receipt_not_ready while an event of it is not yet under a checkpoint.
func (s *Store) Receipt(ctx context.Context, id uuid.UUID, rp approval.Relying) (receipt.Receipt, error) {
	r := receipt.Receipt{Type: receipt.Type, Withdrawal: id, Site: rp}
	// One snapshot, so that events, votes and attempts belong together.
	err := pgx.BeginTxFunc(ctx, s.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := readWithdrawal(ctx, tx, id, ""); err != nil {
			return err
		}
		notReady := fault.New(fault.Conflict, "receipt_not_ready", "the last events of this withdrawal are not under a signed checkpoint yet",
			"try again in a few seconds; if it stays, look whether a worker runs and whether some database transaction has been open for long")
		var size int64
		err := tx.QueryRow(ctx, "SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT 1").Scan(&size, &r.Checkpoint)
		if errors.Is(err, pgx.ErrNoRows) {
			return notReady
		}
		if err != nil {
			return fmt.Errorf("read checkpoint: %w", err)
		}
		if r.Events, err = entries(ctx, tx, "e.withdrawal_id = $1", id); err != nil {
			return err
		}
		if len(r.Events) == 0 || slices.ContainsFunc(r.Events, func(e receipt.Entry) bool { return e.Leaf < 0 || e.Leaf >= size }) {
			return notReady
		}
		if err := documents(ctx, tx, &r); err != nil {
			return err
		}
		if r.Roster, err = rosterOf(ctx, tx, id, r.Events[len(r.Events)-1].Leaf); err != nil {
			return err
		}
		for _, list := range [][]receipt.Entry{r.Events, r.Roster} {
			for i := range list {
				if list[i].Proof, err = tlog.ProveRecord(size, list[i].Leaf, storedHashes(ctx, tx)); err != nil {
					return fmt.Errorf("prove leaf %d: %w", list[i].Leaf, err)
				}
			}
		}
		return nil
	})
	if _, ok := fault.As(err); err != nil && !ok {
		err = fmt.Errorf("export receipt: %w", err)
	}
	return r, err
}

// documents reads what the events name by hash.
func documents(ctx context.Context, tx pgx.Tx, r *receipt.Receipt) (err error) {
	if r.Proposals, err = textColumn(ctx, tx, "SELECT sealed FROM proposals WHERE withdrawal_id = $1 ORDER BY round", r.Withdrawal); err != nil {
		return fmt.Errorf("read proposals: %w", err)
	}
	if r.Attempts, err = textColumn(ctx, tx, "SELECT body FROM attempts WHERE withdrawal_id = $1 ORDER BY number", r.Withdrawal); err != nil {
		return fmt.Errorf("read attempts: %w", err)
	}
	rows, err := tx.Query(ctx, `SELECT v.authenticator_data, v.client_data, v.signature
		FROM votes v JOIN proposals p USING (digest) WHERE p.withdrawal_id = $1 ORDER BY v.cast_at, v.id`, r.Withdrawal)
	if err != nil {
		return fmt.Errorf("read votes: %w", err)
	}
	if r.Votes, err = pgx.CollectRows(rows, pgx.RowToStructByPos[receipt.Assertion]); err != nil {
		return fmt.Errorf("read votes: %w", err)
	}
	return nil
}

func textColumn(ctx context.Context, tx pgx.Tx, sql string, args ...any) ([]string, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		var b []byte
		err := row.Scan(&b)
		return string(b), err
	})
}

// entries reads events in the order of the log, without their proofs. An event
// that has no leaf yet gets -1.
func entries(ctx context.Context, tx pgx.Tx, where string, args ...any) ([]receipt.Entry, error) {
	rows, err := tx.Query(ctx, `SELECT coalesce(l.seq, -1), e.body FROM audit_events e
		LEFT JOIN audit_leaves l ON l.event_id = e.id WHERE `+where+` ORDER BY l.seq`, args...)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e receipt.Entry, err error) {
		var body []byte
		err = row.Scan(&e.Leaf, &body)
		e.Body = string(body)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return list, nil
}

// rosterOf reads the roster events, before a leaf, of the people who voted on a
// withdrawal.
func rosterOf(ctx context.Context, tx pgx.Tx, id uuid.UUID, before int64) ([]receipt.Entry, error) {
	rows, err := tx.Query(ctx, "SELECT DISTINCT v.person_id::text FROM votes v JOIN proposals p USING (digest) WHERE p.withdrawal_id = $1", id)
	if err != nil {
		return nil, fmt.Errorf("read voters: %w", err)
	}
	voters, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read voters: %w", err)
	}
	all, err := entries(ctx, tx, "e.withdrawal_id IS NULL AND e.action = ANY ($1) AND l.seq < $2", audit.RosterActions(), before)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(e receipt.Entry) bool {
		event, err := audit.ParseEvent([]byte(e.Body))
		if err != nil {
			return true // not ours; `sluice audit verify` names it
		}
		person, _ := event.Detail["person"].(string)
		return !slices.Contains(voters, person)
	}), nil
}
