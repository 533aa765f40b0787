package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sluice/internal/audit"
	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/money"
	"sluice/internal/withdraw"
)

// Remarks says whether the exchange's history shows the remarks that we send. No document
// promises it (facts 3.3), so it is learned from the first withdrawals.
type Remarks string

const (
	RemarksUnproven Remarks = "unproven"
	RemarksEchoed   Remarks = "echoed"
	RemarksLost     Remarks = "lost" // a row of ours has come back with another remark, or none
)

// Watch is what the worker has learned of an account at the exchange, and how far it has
// compared the history there with our attempts. Times are by the exchange's clock.
type Watch struct {
	Since     time.Time // what was made earlier is from a time before Sluice
	ReadUntil time.Time // everything made earlier has been compared
	Remarks   Remarks
	Lateness  time.Duration // the longest that the history was seen to lack an accepted withdrawal
}

// OpenWatch reads the watch of an account and begins it, as of now by the exchange's clock,
// where there is none yet.
func (s *Store) OpenWatch(ctx context.Context, account string, at time.Time) (Watch, error) {
	var w Watch
	var ms int64
	err := s.Pool.QueryRow(ctx, `WITH begun AS (
			INSERT INTO account_watch (account, since, read_until)
			SELECT $1, t, t FROM (SELECT least($2, min(signed_at)) t FROM attempts WHERE account = $1) x
			ON CONFLICT DO NOTHING RETURNING since, read_until, remark, lateness_ms)
		SELECT * FROM begun UNION ALL SELECT since, read_until, remark, lateness_ms FROM account_watch WHERE account = $1`,
		account, at).Scan(&w.Since, &w.ReadUntil, &w.Remarks, &ms)
	w.Lateness = time.Duration(ms) * time.Millisecond
	if err != nil {
		return w, fmt.Errorf("open the watch of %s: %w", account, err)
	}
	return w, nil
}

// KeepWatch writes down what a sweep has learned. Nothing of it is ever unlearned: two
// workers that overlap can only make it more careful.
func (s *Store) KeepWatch(ctx context.Context, account string, w Watch) error {
	_, err := s.Pool.Exec(ctx, `UPDATE account_watch SET read_until = greatest(read_until, $2), lateness_ms = greatest(lateness_ms, $4),
		remark = CASE WHEN remark = 'lost' OR $3 = 'unproven' THEN remark ELSE $3 END
		WHERE account = $1 AND (read_until, lateness_ms, remark) IS DISTINCT FROM ($2, $4, $3)`,
		account, w.ReadUntil, string(w.Remarks), w.Lateness.Milliseconds())
	if err != nil {
		return fmt.Errorf("keep the watch of %s: %w", account, err)
	}
	return nil
}

// Claim says to whom a row of the exchange's history belongs.
type Claim struct {
	ExchangeID int64  `db:"exchange_id"`
	Remark     string `db:"remark"`  // of our attempt, as we sent it
	Foreign    bool   `db:"foreign"` // of nobody: recorded as a foreign withdrawal
}

// Claimed tells of which of these exchange ids it is known whose they are.
func (s *Store) Claimed(ctx context.Context, account string, ids []int64) (map[int64]Claim, error) {
	list, err := collect[Claim](ctx, s, `SELECT exchange_id, remark, true AS foreign FROM foreign_withdrawals WHERE account = $1 AND exchange_id = ANY ($2)
		UNION ALL SELECT exchange_id, remark, false FROM attempts WHERE account = $1 AND exchange_id = ANY ($2)`, account, ids)
	if err != nil {
		return nil, err
	}
	claimed := make(map[int64]Claim, len(list))
	for _, c := range list {
		claimed[c.ExchangeID] = c
	}
	return claimed, nil
}

// Foreign is a withdrawal in the exchange's history that no attempt accounts for.
type Foreign struct {
	Account string
	Row     exchange.Withdrawal
	Attempt *withdraw.Attempt // of ours, given up as not accepted, under whose remark it was made
	SeenAt  time.Time
}

// AttemptByRemark finds the attempt that sent a remark, if one did.
func (s *Store) AttemptByRemark(ctx context.Context, account, remark string) (*withdraw.Attempt, error) {
	if remark == "" {
		return nil, nil
	}
	list, err := collect[withdraw.Attempt](ctx, s, "SELECT "+attemptColumns+" FROM attempts WHERE account = $1 AND remark = $2", account, storable(remark))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// RecordForeign writes a foreign withdrawal down, once.
func (s *Store) RecordForeign(ctx context.Context, f Foreign) error {
	return s.tx(ctx, "record a foreign withdrawal", func(tx pgx.Tx) error {
		var attempt *uuid.UUID
		withdrawal := uuid.Nil
		if f.Attempt != nil {
			attempt, withdrawal = &f.Attempt.ID, f.Attempt.WithdrawalID
		}
		row := f.Row
		tag, err := tx.Exec(ctx, `INSERT INTO foreign_withdrawals (account, exchange_id, made_at, method, asset, chain, address, memo, net, status, remark, attempt_id, seen_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING`,
			f.Account, row.ID, row.CreatedAt, string(row.Method), storable(row.Asset), storable(row.Chain), storable(row.Address), storable(row.Memo),
			row.Net, storable(row.RawStatus), storable(row.Remark), attempt, f.SeenAt)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return appendEvents(ctx, tx, audit.NewEvent(f.SeenAt, "worker:"+f.Account, "exchange.foreign_withdrawal", withdrawal, canonical.Object{
			"account": f.Account, "exchange_id": row.ID, "made_at": row.CreatedAt.UTC().Format(time.RFC3339Nano), "asset": storable(row.Asset), "chain": storable(row.Chain),
			"address": storable(row.Address), "memo": storable(row.Memo), "net": money.Text(row.Net), "remark": storable(row.Remark), "status": storable(row.RawStatus)}))
	})
}

// ForeignRow is a foreign withdrawal as a page shows it.
type ForeignRow struct {
	Account    string     `db:"account"`
	ExchangeID int64      `db:"exchange_id"`
	MadeAt     time.Time  `db:"made_at"`
	Asset      string     `db:"asset"`
	Chain      string     `db:"chain"`
	Address    string     `db:"address"`
	Net        string     `db:"net"`
	Status     string     `db:"status"`
	Remark     string     `db:"remark"`
	SeenAt     time.Time  `db:"seen_at"`
	Withdrawal *uuid.UUID `db:"withdrawal_id"` // whose given-up attempt it was, if so
}

// ForeignWithdrawals reads the newest foreign withdrawals of all accounts.
func (s *Store) ForeignWithdrawals(ctx context.Context) ([]ForeignRow, error) {
	return collect[ForeignRow](ctx, s, `SELECT f.account, f.exchange_id, f.made_at, f.asset, f.chain, f.address, f.net::text AS net, f.status, f.remark, f.seen_at, a.withdrawal_id
		FROM foreign_withdrawals f LEFT JOIN attempts a ON a.id = f.attempt_id ORDER BY f.seen_at DESC, f.exchange_id DESC LIMIT 100`)
}

// Scope is what a freeze stops.
type Scope string

const (
	ServiceScope     Scope = "service"
	AccountScope     Scope = "account"
	AssetScope       Scope = "asset"
	DestinationScope Scope = "destination"
)

// Freeze stops submissions from being begun. What has been sent is not affected.
type Freeze struct {
	ID         uuid.UUID `db:"id"`
	Scope      Scope     `db:"scope"`
	Subject    string    `db:"subject"` // "" for the service, a name, or a destination's id
	ReasonCode string    `db:"reason_code"`
	Reason     string    `db:"reason"`
	FrozenBy   string    `db:"frozen_by"`
	FrozenAt   time.Time `db:"frozen_at"`
}

const freezeColumns = "id, scope, subject, reason_code, reason, frozen_by, frozen_at"

// Freeze stops submissions in a scope at once. Freezing what is frozen for the same reason
// changes nothing.
func (s *Store) Freeze(ctx context.Context, f Freeze) error {
	return s.tx(ctx, "freeze", func(tx pgx.Tx) error { return freeze(ctx, tx, f) })
}

func freeze(ctx context.Context, tx pgx.Tx, f Freeze) error {
	tag, err := tx.Exec(ctx, `INSERT INTO freezes (`+freezeColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (scope, subject, reason_code) WHERE thawed_at IS NULL DO NOTHING`,
		uuid.Must(uuid.NewV7()), string(f.Scope), f.Subject, f.ReasonCode, storable(f.Reason), f.FrozenBy, f.FrozenAt)
	if err != nil || tag.RowsAffected() == 0 {
		return err
	}
	return appendEvents(ctx, tx, audit.NewEvent(f.FrozenAt, f.FrozenBy, "freeze.set", uuid.Nil,
		canonical.Object{"scope": string(f.Scope), "subject": f.Subject, "code": f.ReasonCode, "reason": storable(f.Reason)}))
}

// Thaw lifts every freeze of a scope and tells how many there were. Only the owner's role
// may: what one person can stop, the processes cannot start again.
func (s *Store) Thaw(ctx context.Context, scope Scope, subject, by, reason string, now time.Time) (int, error) {
	n := 0
	err := s.tx(ctx, "thaw", func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE freezes SET thawed_by = $3, thawed_at = $4, thaw_reason = $5 WHERE scope = $1 AND subject = $2 AND thawed_at IS NULL`,
			string(scope), subject, by, now, reason)
		if n = int(tag.RowsAffected()); err != nil || n == 0 {
			return err
		}
		return appendEvents(ctx, tx, audit.NewEvent(now, by, "freeze.lifted", uuid.Nil,
			canonical.Object{"scope": string(scope), "subject": subject, "reason": reason, "freezes": n}))
	})
	return n, err
}

// Freezes reads what is frozen now, oldest first.
func (s *Store) Freezes(ctx context.Context) ([]Freeze, error) {
	return collect[Freeze](ctx, s, "SELECT "+freezeColumns+" FROM freezes WHERE thawed_at IS NULL ORDER BY frozen_at, id")
}

// frozen tells what stops a payout at this moment, if anything does.
func frozen(ctx context.Context, tx pgx.Tx, p withdraw.Proposal) (*Freeze, error) {
	var f Freeze
	err := tx.QueryRow(ctx, `SELECT scope, subject, reason_code, reason, frozen_by FROM freezes WHERE thawed_at IS NULL
		AND (scope, subject) IN (('service', ''), ('account', $1), ('asset', $2), ('destination', $3)) ORDER BY frozen_at LIMIT 1`,
		p.Account, p.Asset, p.DestinationID.String()).Scan(&f.Scope, &f.Subject, &f.ReasonCode, &f.Reason, &f.FrozenBy)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for a freeze: %w", err)
	}
	return &f, nil
}

// CancelRequest is a wish to cancel what is at the exchange, or may be.
type CancelRequest struct {
	WithdrawalID uuid.UUID  `db:"withdrawal_id"`
	AskedBy      string     `db:"asked_by"`
	AskedAt      time.Time  `db:"asked_at"`
	Reason       string     `db:"reason"`
	PassedOnAt   *time.Time `db:"passed_on_at"` // when the exchange last heard of it
	Taken        bool       `db:"taken"`
	Refused      bool       `db:"refused"`
	Answer       string     `db:"answer"`
}

const cancelColumns = "withdrawal_id, asked_by, asked_at, reason, passed_on_at, taken, refused, answer"

// CancelRequest reads the wish to cancel a withdrawal; nil where there is none.
func (s *Store) CancelRequest(ctx context.Context, withdrawalID uuid.UUID) (*CancelRequest, error) {
	list, err := collect[CancelRequest](ctx, s, "SELECT "+cancelColumns+" FROM cancel_requests WHERE withdrawal_id = $1", withdrawalID)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// OpenCancels reads the withdrawals that the exchange has and that somebody wants cancelled,
// as long as it has neither taken nor refused the wish.
func (s *Store) OpenCancels(ctx context.Context, account string) ([]withdraw.Withdrawal, error) {
	return collect[withdraw.Withdrawal](ctx, s, "SELECT "+withdrawalColumns+` FROM withdrawals WHERE account = $1 AND state IN ('submitted', 'held') AND exchange_id IS NOT NULL
		AND id IN (SELECT withdrawal_id FROM cancel_requests WHERE NOT taken AND NOT refused) ORDER BY id`, account)
}

// CancelAnswered writes down what the exchange said to a wish to cancel. Neither taken nor
// refused: it is asked again.
func (s *Store) CancelAnswered(ctx context.Context, w withdraw.Withdrawal, taken, refused bool, answer string, now time.Time) error {
	return s.tx(ctx, "record the answer to a cancel", func(tx pgx.Tx) error {
		if err := lock(ctx, tx, w.ID); err != nil {
			return err
		}
		var before string
		if err := tx.QueryRow(ctx, "SELECT answer FROM cancel_requests WHERE withdrawal_id = $1 FOR UPDATE", w.ID).Scan(&before); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE cancel_requests SET passed_on_at = $2, taken = $3, refused = $4, answer = $5 WHERE withdrawal_id = $1`,
			w.ID, now, taken, refused, storable(answer)); err != nil {
			return err
		}
		if before == answer { // once for each answer, not for each time that it is asked
			return nil
		}
		return appendEvents(ctx, tx, audit.NewEvent(now, "worker:"+w.Account, "cancel.answered", w.ID,
			canonical.Object{"taken": taken, "refused": refused, "answer": storable(answer), "exchange_id": *w.ExchangeID}))
	})
}
