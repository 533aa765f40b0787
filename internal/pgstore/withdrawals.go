package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sluice/internal/audit"
	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/withdraw"
)

const withdrawalColumns = `id, requester, reference, account, method, asset, chain, address, memo, amount, max_fee, purpose,
	destination_id, state, round, digest, expires_at, reason_code, reason, fix, next_step_at, exchange_id, exchange_status,
	fee, fee_asset, tx_id, confirmations, approved_at, listed_at, cancel_asked_at, created_at, updated_at`

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Withdrawal reads one withdrawal.
func (s *Store) Withdrawal(ctx context.Context, id uuid.UUID) (withdraw.Withdrawal, error) {
	return readWithdrawal(ctx, s.Pool, id, "")
}

// readWithdrawal reads one row, with FOR UPDATE as lock when it is about to move.
func readWithdrawal(ctx context.Context, q querier, id uuid.UUID, lock string) (withdraw.Withdrawal, error) {
	rows, err := q.Query(ctx, "SELECT "+withdrawalColumns+" FROM withdrawals WHERE id = $1 "+lock, id)
	if err != nil {
		return withdraw.Withdrawal{}, fmt.Errorf("read withdrawal: %w", err)
	}
	w, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[withdraw.Withdrawal])
	if errors.Is(err, pgx.ErrNoRows) {
		return w, fault.New(fault.NotFound, "withdrawal_not_found", "there is no withdrawal "+id.String(), "check the id")
	}
	if err != nil {
		return w, fmt.Errorf("read withdrawal %s: %w", id, err)
	}
	return w, nil
}

// Limits of a list's page.
const (
	defaultPage = 50
	largestPage = 200
)

func pageSize(limit int) int {
	if limit <= 0 {
		return defaultPage
	}
	return min(limit, largestPage)
}

// Withdrawals reads one page, newest first, and the cursor of the next; the zero id at the end.
func (s *Store) Withdrawals(ctx context.Context, f withdraw.Filter) ([]withdraw.Withdrawal, uuid.UUID, error) {
	var where conditions
	if len(f.States) > 0 {
		where.add("state = ANY (?)", stateNames(f.States))
	}
	where.addText("account = ?", f.Account)
	where.addText("asset = ?", f.Asset)
	where.addText("address = ?", f.Address)
	where.addText("reference = ?", f.Reference)
	where.addText("requester = ?", f.Requester)
	if !f.From.IsZero() {
		where.add("created_at >= ?", f.From)
	}
	if !f.To.IsZero() {
		where.add("created_at < ?", f.To)
	}
	if f.Cursor != uuid.Nil {
		where.add("id < ?", f.Cursor)
	}
	limit := pageSize(f.Limit)
	rows, err := s.Pool.Query(ctx, "SELECT "+withdrawalColumns+" FROM withdrawals "+where.sql()+
		fmt.Sprintf(" ORDER BY id DESC LIMIT %d", limit+1), where.args...)
	if err != nil {
		return nil, uuid.Nil, fmt.Errorf("list withdrawals: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[withdraw.Withdrawal])
	if err != nil {
		return nil, uuid.Nil, fmt.Errorf("list withdrawals: %w", err)
	}
	if len(list) <= limit {
		return list, uuid.Nil, nil
	}
	return list[:limit], list[limit-1].ID, nil
}

// conditions builds a WHERE clause of parameters; the texts are always ours.
type conditions struct {
	texts []string
	args  []any
}

func (c *conditions) add(text string, arg any) {
	c.args = append(c.args, arg)
	c.texts = append(c.texts, strings.Replace(text, "?", fmt.Sprintf("$%d", len(c.args)), 1))
}

func (c *conditions) addText(text, arg string) {
	if arg != "" {
		c.add(text, arg)
	}
}

func (c *conditions) sql() string {
	if len(c.texts) == 0 {
		return ""
	}
	return "WHERE " + strings.Join(c.texts, " AND ")
}

func stateNames(states []withdraw.State) []string {
	names := make([]string, len(states))
	for i, s := range states {
		names[i] = string(s)
	}
	return names
}

// Counts tells how many withdrawals stand in each state that is not final. The
// final ones grow for ever and are not counted.
func (s *Store) Counts(ctx context.Context) (map[withdraw.State]int, error) {
	var open []withdraw.State
	for _, state := range withdraw.States() {
		if !state.Final() {
			open = append(open, state)
		}
	}
	rows, err := s.Pool.Query(ctx, "SELECT state, count(*) FROM withdrawals WHERE state = ANY ($1) GROUP BY state", stateNames(open))
	if err != nil {
		return nil, fmt.Errorf("count withdrawals: %w", err)
	}
	counts := map[withdraw.State]int{}
	var state string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&state, &n}, func() error { counts[withdraw.State(state)] = n; return nil }); err != nil {
		return nil, fmt.Errorf("count withdrawals: %w", err)
	}
	return counts, nil
}

// Votes reads the votes of every round, oldest first.
func (s *Store) Votes(ctx context.Context, withdrawalID uuid.UUID) ([]withdraw.VoteRow, error) {
	rows, err := s.Pool.Query(ctx, `SELECT v.person_id, p.display_name, v.decision, v.reason, r.round, v.cast_at
		FROM votes v JOIN proposals r USING (digest) JOIN people p ON p.id = v.person_id
		WHERE r.withdrawal_id = $1 ORDER BY v.cast_at, v.id`, withdrawalID)
	if err != nil {
		return nil, fmt.Errorf("read votes: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[withdraw.VoteRow])
}

const attemptColumns = `id, withdrawal_id, digest, number, fence, account, asset, chain, address, memo, amount, remark, body,
	signed_at, window_ms, outcome, exchange_id, http_status, code, message, response, created_at, decided_at`

// Attempts reads every submission of a withdrawal, first to last.
func (s *Store) Attempts(ctx context.Context, withdrawalID uuid.UUID) ([]withdraw.Attempt, error) {
	rows, err := s.Pool.Query(ctx, "SELECT "+attemptColumns+" FROM attempts WHERE withdrawal_id = $1 ORDER BY number", withdrawalID)
	if err != nil {
		return nil, fmt.Errorf("read attempts: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[withdraw.Attempt])
}

// move is one change of state with everything that belongs to it. The row moves
// only from a state that may lead to the new one; if it has moved on meanwhile,
// nothing changes and the caller learns so.
type move struct {
	id     uuid.UUID
	to     withdraw.State
	from   []withdraw.State // nil means every state that may lead to it
	set    map[string]any   // further columns of withdrawals
	reason *fault.Error     // why, for people; nil clears it
	actor  string
	action string
	detail canonical.Object
}

// errMoved says that a withdrawal was no longer where a move wanted to leave from.
var errMoved = fault.New(fault.Conflict, "withdrawal_moved_on", "the withdrawal has moved on meanwhile", "read it again")

// lock makes a transaction wait for its turn at a withdrawal before it gets its
// number. The record is ordered by those numbers: without this, a transaction that
// waited in the middle of an UPDATE could stand before the one that it waited for.
func lock(ctx context.Context, tx pgx.Tx, withdrawal uuid.UUID) error {
	if _, err := tx.Exec(ctx, "SELECT FROM withdrawals WHERE id = $1 FOR UPDATE", withdrawal); err != nil {
		return fmt.Errorf("lock withdrawal: %w", err)
	}
	return nil
}

// apply makes the move and writes the record of it.
func (m move) apply(ctx context.Context, tx pgx.Tx, now time.Time) error {
	if err := lock(ctx, tx, m.id); err != nil {
		return err
	}
	from := m.from
	if from == nil {
		from = withdraw.Before(m.to)
	}
	sets, args := []string{"state = $3", "updated_at = $4", "reason_code = $5", "reason = $6", "fix = $7"},
		[]any{m.id, stateNames(from), string(m.to), now, "", "", ""}
	if m.reason != nil {
		args[4], args[5], args[6] = m.reason.Code, m.reason.Detail, m.reason.Fix
	}
	for column, value := range m.set {
		args = append(args, value)
		sets = append(sets, fmt.Sprintf("%s = $%d", column, len(args)))
	}
	tag, err := tx.Exec(ctx, "UPDATE withdrawals SET "+strings.Join(sets, ", ")+" WHERE id = $1 AND state = ANY ($2)", args...)
	if err != nil {
		return fmt.Errorf("move to %s: %w", m.to, err)
	}
	if tag.RowsAffected() == 0 {
		return errMoved
	}
	detail := canonical.Object{}
	if m.reason != nil {
		detail["code"], detail["reason"] = m.reason.Code, m.reason.Detail
	}
	for k, v := range m.detail {
		detail[k] = v
	}
	return appendEvents(ctx, tx, audit.NewEvent(now, m.actor, m.action, m.id, detail))
}

// Cancel takes a withdrawal back as long as nothing of it can be at the exchange. From then
// on it writes the wish down, and the worker passes it on; the withdrawal stays where
// it is until the exchange's history says what came of it.
func (s *Store) Cancel(ctx context.Context, id uuid.UUID, actor, reason string, now time.Time) (withdraw.Withdrawal, error) {
	var w withdraw.Withdrawal
	err := s.tx(ctx, "cancel", func(tx pgx.Tx) error {
		var err error
		if w, err = readWithdrawal(ctx, tx, id, "FOR UPDATE"); err != nil {
			return err
		}
		live, err := live(ctx, tx, w.ID)
		if err != nil {
			return err
		}
		if live || w.ExchangeID != nil || w.State == withdraw.Submitting {
			err = askToCancel(ctx, tx, w, actor, reason, now)
		} else {
			err = move{id: id, to: withdraw.Cancelled, actor: actor, action: audit.WithdrawalCancelled,
				reason: fault.New(fault.Conflict, "cancelled", reason, ""), set: map[string]any{"next_step_at": nil}}.apply(ctx, tx, now)
		}
		switch {
		case fault.Is(err, errMoved.Code):
			return fault.New(fault.Conflict, "not_cancellable", fmt.Sprintf("a withdrawal that is %s can no longer be taken back", w.State), "read it again")
		case err != nil:
			return err
		}
		w, err = readWithdrawal(ctx, tx, id, "")
		return err
	})
	return w, err
}

// askToCancel writes down that somebody wants cancelled what is at the exchange, or may be.
func askToCancel(ctx context.Context, tx pgx.Tx, w withdraw.Withdrawal, actor, reason string, now time.Time) error {
	if w.State.Final() {
		return errMoved
	}
	// Facts 3.2: possible in created, audit_required and audited.
	if word := strings.ToLower(w.ExchangeStatus); word == string(exchange.Processing) || word == string(exchange.Confirming) || word == string(exchange.Finished) {
		return fault.New(fault.Conflict, "not_cancellable",
			fmt.Sprintf("the exchange says %q: from processing on it can no longer be stopped", w.ExchangeStatus),
			"nothing stops it now; arrange with the receiver if it must come back")
	}
	tag, err := tx.Exec(ctx, "INSERT INTO cancel_requests (withdrawal_id, asked_by, asked_at, reason) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		w.ID, actor, now, reason)
	if err != nil || tag.RowsAffected() == 0 {
		return err // it has been asked for already
	}
	if _, err := tx.Exec(ctx, "UPDATE withdrawals SET cancel_asked_at = $2, updated_at = $2 WHERE id = $1", w.ID, now); err != nil {
		return err
	}
	return appendEvents(ctx, tx, audit.NewEvent(now, actor, "cancel.asked", w.ID, canonical.Object{"reason": reason, "state": string(w.State)}))
}

// EventRow is one event of the record.
type EventRow struct {
	ID           uuid.UUID  `db:"id"`
	At           time.Time  `db:"at"`
	Actor        string     `db:"actor"`
	Action       string     `db:"action"`
	WithdrawalID *uuid.UUID `db:"withdrawal_id"`
	Body         []byte     `db:"body"` // canonical JSON
	Seq          *int64     `db:"seq"`  // leaf number; nil until the sequencer has come by
}

const selectEvents = `SELECT e.id, e.at, e.actor, e.action, e.withdrawal_id, e.body, l.seq
	FROM audit_events e LEFT JOIN audit_leaves l ON l.event_id = e.id `

// EventsOf reads the record of one withdrawal, oldest first.
func (s *Store) EventsOf(ctx context.Context, withdrawalID uuid.UUID) ([]EventRow, error) {
	rows, err := s.Pool.Query(ctx, selectEvents+"WHERE e.withdrawal_id = $1 ORDER BY e.id", withdrawalID)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[EventRow])
}

// Events reads one page of the record, newest first, and the cursor of the next.
func (s *Store) Events(ctx context.Context, cursor uuid.UUID, limit int, action, actor string) ([]EventRow, uuid.UUID, error) {
	var where conditions
	where.addText("e.action = ?", action)
	where.addText("e.actor = ?", actor)
	if cursor != uuid.Nil {
		where.add("e.id < ?", cursor)
	}
	limit = pageSize(limit)
	rows, err := s.Pool.Query(ctx, selectEvents+where.sql()+fmt.Sprintf(" ORDER BY e.id DESC LIMIT %d", limit+1), where.args...)
	if err != nil {
		return nil, uuid.Nil, fmt.Errorf("list events: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[EventRow])
	if err != nil {
		return nil, uuid.Nil, fmt.Errorf("list events: %w", err)
	}
	if len(list) <= limit {
		return list, uuid.Nil, nil
	}
	return list[:limit], list[limit-1].ID, nil
}

// Changes tells which withdrawals the record mentions since a position, and the
// next position. It may tell of one twice and misses none: the position is the
// oldest transaction still running, so an event that commits late is still seen.
func (s *Store) Changes(ctx context.Context, since string) ([]uuid.UUID, string, error) {
	var next string
	if since == "" {
		err := s.Pool.QueryRow(ctx, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text").Scan(&next)
		return nil, next, err
	}
	rows, err := s.Pool.Query(ctx, `SELECT DISTINCT withdrawal_id, pg_snapshot_xmin(pg_current_snapshot())::text
		FROM (SELECT withdrawal_id FROM audit_events WHERE txid >= $1::text::xid8 UNION ALL SELECT NULL) e`, since)
	if err != nil {
		return nil, since, fmt.Errorf("read changes: %w", err)
	}
	var ids []uuid.UUID
	var id *uuid.UUID
	if _, err := pgx.ForEachRow(rows, []any{&id, &next}, func() error {
		if id != nil {
			ids = append(ids, *id)
		}
		return nil
	}); err != nil {
		return nil, since, fmt.Errorf("read changes: %w", err)
	}
	return ids, next, nil
}
