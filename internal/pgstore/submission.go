package pgstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/shopspring/decimal"

	"sluice/internal/audit"
	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/money"
	"sluice/internal/withdraw"
)

// LeaseOf is a worker's right to use an account's key.
type LeaseOf struct {
	Account string
	Holder  uuid.UUID
	Fence   int64 // rises with every new holder
}

// TakeLease takes the lease of an account, or extends it for its holder. It answers
// false while another holder's lease runs. Time is the database's: workers'
// clocks may differ, the database has one.
func (s *Store) TakeLease(ctx context.Context, account string, holder uuid.UUID, ttl time.Duration) (LeaseOf, bool, error) {
	l := LeaseOf{Account: account, Holder: holder}
	err := s.Pool.QueryRow(ctx, `INSERT INTO account_leases AS l (account, fence, holder, expires_at)
		VALUES ($1, 1, $2, clock_timestamp() + $3)
		ON CONFLICT (account) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at,
			fence = CASE WHEN l.holder = excluded.holder THEN l.fence ELSE l.fence + 1 END
		WHERE l.holder = excluded.holder OR l.expires_at <= clock_timestamp()
		RETURNING fence`, account, holder, ttl).Scan(&l.Fence)
	if errors.Is(err, pgx.ErrNoRows) {
		return l, false, nil
	}
	if err != nil {
		return l, false, fmt.Errorf("take lease of %s: %w", account, err)
	}
	return l, true, nil
}

// ReleaseLease lets the next worker in at once.
func (s *Store) ReleaseLease(ctx context.Context, l LeaseOf) error {
	_, err := s.Pool.Exec(ctx, "UPDATE account_leases SET expires_at = clock_timestamp() WHERE account = $1 AND holder = $2", l.Account, l.Holder)
	return err
}

// Faults of BeginAttempt. Each is a guard against paying twice, and each means
// that nothing was written and nothing may be sent.
var (
	ErrFenced = fault.New(fault.Conflict, "lease_lost", "another worker owns this account now", "nothing: that worker carries on")
	ErrLive   = fault.New(fault.Conflict, "attempt_live", "an attempt of this withdrawal is at the exchange, or may be", "wait for reconciliation")
	ErrTwin   = fault.New(fault.Conflict, "twin_in_flight",
		"another withdrawal of the same amount to the same destination waits for its answer; until then a row at the exchange could belong to either",
		"nothing: this one follows when the other is settled")
	ErrMoved  = errMoved
	ErrFrozen = fault.New(fault.Unavailable, "frozen", "", "find out why, then thaw it: sluice thaw --help")
	ErrFunds  = fault.New(fault.Unavailable, "funds_held", "", "fund the account, or cancel what was approved earlier; it is sent by itself when the money is there, or expires")
	// ErrUnwanted: somebody asked for it to be cancelled while the exchange kept refusing it.
	ErrUnwanted = fault.New(fault.Conflict, "cancelled_unsent", "it was cancelled while the exchange refused it; nothing was accepted", "ask for the payout again if it is wanted after all")
)

// Funds is what an account can spend on one payout, as just read from the exchange.
type Funds struct {
	Fee       decimal.Decimal // of this payout, in its asset
	Available decimal.Decimal // of its asset
	ReadAt    time.Time       // by our clock, before the reading: what was accepted since may be missing in it
}

// BeginAttempt writes down what is about to be sent. Only an approved withdrawal
// without a live attempt gets past it, that nobody wants cancelled and nothing
// freezes, for which the money is there, only under the lease of the moment, and
// only one caller.
func (s *Store) BeginAttempt(ctx context.Context, l LeaseOf, p withdraw.Proposal, digest []byte, signed exchange.Signed, number int, f Funds, now time.Time) (withdraw.Attempt, error) {
	a := withdraw.Attempt{
		ID: uuid.Must(uuid.NewV7()), WithdrawalID: p.ID, Digest: digest, Number: number, Fence: l.Fence, Account: p.Account, Asset: p.Asset,
		Chain: p.Chain, Address: p.Address, Memo: p.Memo, Amount: p.Amount, Remark: withdraw.Remark(p.ID, number), Body: signed.Body,
		SignedAt: signed.Timestamp, WindowMS: int(signed.Window.Milliseconds()), Outcome: "open", CreatedAt: now,
	}
	err := s.tx(ctx, "begin attempt", func(tx pgx.Tx) error {
		if err := lock(ctx, tx, p.ID); err != nil {
			return err
		}
		// The digest in the clause: the votes that were verified are those of this round.
		tag, err := tx.Exec(ctx, `UPDATE withdrawals SET state = 'submitting', updated_at = $2, next_step_at = $3, reason_code = '', reason = '', fix = ''
			WHERE id = $1 AND state IN ('approved', 'submitting') AND digest = $4`, p.ID, now, now.Add(strandedAfter), digest)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return errMoved
		}
		if err := sendable(ctx, tx, p, f, now); err != nil {
			return err
		}
		tag, err = tx.Exec(ctx, `INSERT INTO attempts (id, withdrawal_id, digest, number, fence, account, asset, chain, address, memo, amount, remark,
				body, signed_at, window_ms, outcome, created_at)
			SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 'open', $16
			FROM account_leases WHERE account = $6 AND holder = $17 AND fence = $5 AND expires_at > clock_timestamp() FOR SHARE`,
			a.ID, a.WithdrawalID, a.Digest, a.Number, a.Fence, a.Account, a.Asset, a.Chain, a.Address, a.Memo, a.Amount, a.Remark,
			a.Body, a.SignedAt, a.WindowMS, now, l.Holder)
		switch {
		case violates(err, "attempts_one_twin"):
			return ErrTwin
		case violates(err, "attempts_one_live"), violates(err, "attempts_withdrawal_id_number_key"), violates(err, "attempts_remark_key"):
			return ErrLive
		case err != nil:
			return err
		case tag.RowsAffected() == 0:
			return ErrFenced
		}
		detail := audit.AttemptDetail(a.ID, number, digest, a.Remark, a.Body, a.SignedAt, a.WindowMS)
		detail["fence"], detail["key"] = a.Fence, signed.KeyHint
		return appendEvents(ctx, tx, audit.NewEvent(now, "worker:"+p.Account, audit.SubmissionAttempted, p.ID, detail))
	})
	return a, err
}

// sendable tells what keeps a payout from being sent at this moment, if anything does.
// It locks the account's lease first: attempts of an account are begun one after the
// other, or two of them could be paid out of the same balance.
func sendable(ctx context.Context, tx pgx.Tx, p withdraw.Proposal, f Funds, now time.Time) error {
	if _, err := tx.Exec(ctx, "SELECT FROM account_leases WHERE account = $1 FOR UPDATE", p.Account); err != nil {
		return fmt.Errorf("lock lease: %w", err)
	}
	by, err := frozen(ctx, tx, p)
	if err != nil {
		return err
	}
	if by != nil {
		e := *ErrFrozen
		e.Detail = fmt.Sprintf("%s is frozen by %s: %s", strings.TrimSpace(string(by.Scope)+" "+by.Subject), by.FrozenBy, by.Reason)
		return &e
	}
	var unwanted bool
	var spent, promised decimal.Decimal
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM cancel_requests WHERE withdrawal_id = $1),
		(SELECT coalesce(sum(a.amount + o.max_fee), 0) FROM attempts a JOIN withdrawals o ON o.id = a.withdrawal_id
			WHERE a.account = $2 AND a.asset = $3 AND (a.outcome IN ('open', 'unknown') OR (a.outcome = 'accepted' AND a.decided_at >= $4))),
		(SELECT coalesce(sum(o.amount + o.max_fee), 0) FROM withdrawals o, (SELECT approved_at, id FROM withdrawals WHERE id = $1) mine
			WHERE o.account = $2 AND o.asset = $3 AND o.state IN ('approved', 'submitting') AND o.expires_at > $5
			AND (o.approved_at, o.id) < (mine.approved_at, mine.id)
			AND NOT EXISTS (SELECT FROM attempts a WHERE a.withdrawal_id = o.id AND a.outcome IN ('open', 'unknown', 'accepted')))`,
		p.ID, p.Account, p.Asset, f.ReadAt, now).Scan(&unwanted, &spent, &promised); err != nil {
		return fmt.Errorf("look at the funds: %w", err)
	}
	if unwanted {
		return ErrUnwanted
	}
	need := p.Amount.Add(f.Fee)
	if left := f.Available.Sub(spent).Sub(promised); left.LessThan(need) {
		e := *ErrFunds
		e.Detail = fmt.Sprintf("it needs %s %s with the fee; of the %s in the spot wallet %s may be under way already and %s is held for what was approved earlier",
			money.Text(need), p.Asset, money.Text(f.Available), money.Text(spent), money.Text(promised))
		return &e
	}
	return nil
}

// outcomeDetail is what the record keeps of an answer.
func outcomeDetail(a withdraw.Attempt, o exchange.Outcome) canonical.Object {
	return canonical.Object{
		"attempt": a.ID.String(), "number": a.Number, "http_status": o.HTTPStatus, "code": o.Code, "message": o.Message, "reason": o.Reason,
		"response_sha256": audit.HexSHA256(o.Response),
	}
}

// settle writes an attempt's outcome. An open or unknown attempt may be settled;
// a settled one never changes.
func settle(ctx context.Context, tx pgx.Tx, a withdraw.Attempt, outcome string, o exchange.Outcome, now time.Time) error {
	// The withdrawal before its attempts, as BeginAttempt has it: in the other order
	// two workers could each wait for the other.
	if err := lock(ctx, tx, a.WithdrawalID); err != nil {
		return err
	}
	var id *int64
	if o.Withdrawal != nil && outcome == "accepted" {
		id = &o.Withdrawal.ID
	}
	tag, err := tx.Exec(ctx, `UPDATE attempts SET outcome = $2, exchange_id = $3, http_status = $4, code = $5, message = $6, response = $7, decided_at = $8
		WHERE id = $1 AND outcome IN ('open', 'unknown')`, a.ID, outcome, id, o.HTTPStatus, o.Code, storable(o.Message), nonNil(o.Response), now)
	if err != nil {
		return fmt.Errorf("settle attempt: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return errMoved
	}
	return nil
}

// nonNil is what a NOT NULL bytea wants.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// progress is what the exchange says of a withdrawal, as columns.
func progress(row exchange.Withdrawal) map[string]any {
	return map[string]any{
		"exchange_id": row.ID, "exchange_status": storable(row.RawStatus), "fee": row.Fee, "fee_asset": storable(row.FeeAsset),
		"tx_id": storable(row.TxID), "confirmations": row.Confirms,
	}
}

// How an acceptance came to be known.
const (
	ByAnswer       = "answer"
	FoundInHistory = "reconciled"
)

// Accepted records that the exchange has an attempt: by its own answer, or as found
// by reconciliation.
func (s *Store) Accepted(ctx context.Context, a withdraw.Attempt, o exchange.Outcome, how string, now, next time.Time) error {
	row := *o.Withdrawal
	return s.tx(ctx, "record acceptance", func(tx pgx.Tx) error {
		if err := settle(ctx, tx, a, "accepted", o, now); err != nil {
			return err
		}
		set := progress(row)
		set["next_step_at"] = next
		if how == FoundInHistory {
			set["listed_at"] = now
		}
		detail := outcomeDetail(a, o)
		detail["exchange_id"], detail["status"], detail["how"] = row.ID, row.RawStatus, how
		detail["net"], detail["gross"], detail["fee"] = money.Text(row.Net), money.Text(row.Gross), money.Text(row.Fee)
		if err := (move{id: a.WithdrawalID, to: withdraw.Submitted, set: set,
			actor: "worker:" + a.Account, action: audit.SubmissionAccepted, detail: detail}).apply(ctx, tx, now); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE destinations SET accepted_at = $2
			WHERE id = (SELECT destination_id FROM withdrawals WHERE id = $1)`, a.WithdrawalID, now)
		return err
	})
}

// LostAnswer records that nobody knows whether the exchange has an attempt.
func (s *Store) LostAnswer(ctx context.Context, a withdraw.Attempt, o exchange.Outcome, now, next time.Time) error {
	return s.tx(ctx, "record a lost answer", func(tx pgx.Tx) error {
		if err := settle(ctx, tx, a, "unknown", o, now); err != nil {
			return err
		}
		return move{id: a.WithdrawalID, to: withdraw.Unknown, set: map[string]any{"next_step_at": next},
			reason: fault.New(fault.Unclear, "answer_lost", o.Reason, o.Fix),
			actor:  "worker:" + a.Account, action: audit.SubmissionUnknown, detail: outcomeDetail(a, o)}.apply(ctx, tx, now)
	})
}

// NotAccepted records an answer that proves that no withdrawal exists, and where
// that leads: to Failed, to Held, or, for a retry, to stay Submitting.
func (s *Store) NotAccepted(ctx context.Context, a withdraw.Attempt, o exchange.Outcome, to withdraw.State, now, next time.Time) error {
	return s.tx(ctx, "record a refusal", func(tx pgx.Tx) error {
		if err := settle(ctx, tx, a, "not_accepted", o, now); err != nil {
			return err
		}
		why := fault.New(fault.Refused, fmt.Sprintf("exchange_%d", o.Code), o.Reason, o.Fix)
		if to == withdraw.Submitting {
			if _, err := tx.Exec(ctx, `UPDATE withdrawals SET updated_at = $2, next_step_at = $3, reason_code = $4, reason = $5, fix = $6
				WHERE id = $1 AND state = 'submitting'`, a.WithdrawalID, now, next, why.Code, why.Detail, why.Fix); err != nil {
				return err
			}
			return appendEvents(ctx, tx, audit.NewEvent(now, "worker:"+a.Account, audit.SubmissionNotAccepted, a.WithdrawalID, outcomeDetail(a, o)))
		}
		if err := appendEvents(ctx, tx, audit.NewEvent(now, "worker:"+a.Account, audit.SubmissionNotAccepted, a.WithdrawalID, outcomeDetail(a, o))); err != nil {
			return err
		}
		return move{id: a.WithdrawalID, to: to, reason: why, set: map[string]any{"next_step_at": nil},
			actor: "worker:" + a.Account, action: "withdrawal." + string(to), detail: canonical.Object{"attempt": a.ID.String()}}.apply(ctx, tx, now)
	})
}

// Quarantine stops a destination that the exchange refused as not on its list.
func (s *Store) Quarantine(ctx context.Context, destination uuid.UUID, reason, actor string, now time.Time) error {
	return s.tx(ctx, "quarantine destination", func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE destinations SET state = 'quarantined', reason = $2, version = version + 1
			WHERE id = $1 AND state = 'active'`, destination, reason)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return appendEvents(ctx, tx, audit.NewEvent(now, actor, "destination.quarantined", uuid.Nil,
			canonical.Object{"destination": destination.String(), "reason": reason}))
	})
}

// Hold puts a withdrawal in front of a person.
func (s *Store) Hold(ctx context.Context, w withdraw.Withdrawal, why *fault.Error, detail canonical.Object, now time.Time) error {
	return s.tx(ctx, "hold", func(tx pgx.Tx) error {
		return move{id: w.ID, to: withdraw.Held, from: []withdraw.State{w.State}, reason: why, set: map[string]any{"next_step_at": now},
			actor: "worker:" + w.Account, action: audit.WithdrawalHeld, detail: detail}.apply(ctx, tx, now)
	})
}

// HoldPaid puts a withdrawal in front of a person that the exchange has made after all,
// and follows it from there.
func (s *Store) HoldPaid(ctx context.Context, w withdraw.Withdrawal, row exchange.Withdrawal, why *fault.Error, now time.Time) error {
	set := progress(row)
	set["next_step_at"], set["listed_at"] = now, now
	return s.tx(ctx, "hold what was paid after all", func(tx pgx.Tx) error {
		return move{id: w.ID, to: withdraw.Held, from: []withdraw.State{w.State}, reason: why, set: set,
			actor: "worker:" + w.Account, action: audit.WithdrawalHeld, detail: canonical.Object{"exchange_id": row.ID}}.apply(ctx, tx, now)
	})
}

// GiveUp ends a withdrawal that has no live attempt and is to have no other.
func (s *Store) GiveUp(ctx context.Context, w withdraw.Withdrawal, why *fault.Error, now time.Time) error {
	return s.tx(ctx, "give up", func(tx pgx.Tx) error {
		return move{id: w.ID, to: withdraw.Failed, from: []withdraw.State{w.State}, reason: why, set: map[string]any{"next_step_at": nil},
			actor: "worker:" + w.Account, action: "withdrawal." + string(withdraw.Failed)}.apply(ctx, tx, now)
	})
}

// Wait leaves a withdrawal where it is and says why and until when. The record
// hears of it once per reason, not once per look.
func (s *Store) Wait(ctx context.Context, w withdraw.Withdrawal, why *fault.Error, now, next time.Time) error {
	return s.tx(ctx, "wait", func(tx pgx.Tx) error {
		if err := lock(ctx, tx, w.ID); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `UPDATE withdrawals SET next_step_at = $3, reason_code = $4, reason = $5, fix = $6, updated_at = $7
			WHERE id = $1 AND state = $2`, w.ID, string(w.State), next, why.Code, why.Detail, why.Fix, now)
		if err != nil || tag.RowsAffected() == 0 || why.Code == w.ReasonCode {
			return err
		}
		return appendEvents(ctx, tx, audit.NewEvent(now, "worker:"+w.Account, "withdrawal.waiting", w.ID,
			canonical.Object{"code": why.Code, "reason": why.Detail}))
	})
}

// Expire ends what was not approved, or could not be sent, before its end. What
// has been attempted does not expire.
func (s *Store) Expire(ctx context.Context, account string, now time.Time) error {
	rows, err := s.Pool.Query(ctx, `SELECT id FROM withdrawals WHERE account = $1 AND state IN ('pending', 'approved') AND expires_at <= $2 LIMIT 100`, account, now)
	if err != nil {
		return fmt.Errorf("expire: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return fmt.Errorf("expire: %w", err)
	}
	for _, id := range ids {
		err := s.tx(ctx, "expire", func(tx pgx.Tx) error {
			return move{id: id, to: withdraw.Expired, actor: "worker:" + account, action: audit.WithdrawalExpired,
				reason: fault.New(fault.Conflict, "expired", "its time ran out before it was sent", "ask for the payout again"),
				set:    map[string]any{"next_step_at": nil}}.apply(ctx, tx, now)
		})
		if err != nil && !fault.Is(err, errMoved.Code) {
			return err
		}
	}
	return nil
}

// UnsettledAttempts reads the attempts of an account whose outcome is open or unknown.
func (s *Store) UnsettledAttempts(ctx context.Context, account string) ([]withdraw.Attempt, error) {
	return collect[withdraw.Attempt](ctx, s, "SELECT "+attemptColumns+" FROM attempts WHERE account = $1 AND outcome IN ('open', 'unknown') ORDER BY id", account)
}

// Tracked is a withdrawal that the exchange has and has not ended.
type Tracked struct {
	withdraw.Withdrawal
	SignedAt time.Time `db:"signed_at"` // T of the attempt that was accepted, by the exchange's clock
}

// Tracked reads those of an account.
func (s *Store) Tracked(ctx context.Context, account string) ([]Tracked, error) {
	return collect[Tracked](ctx, s, "SELECT "+withdrawalColumns+`, (SELECT max(signed_at) FROM attempts a WHERE a.withdrawal_id = w.id) AS signed_at
		FROM withdrawals w WHERE account = $1 AND state IN ('submitted', 'held') AND exchange_id IS NOT NULL ORDER BY exchange_id`, account)
}

// NoteLook keeps what reconciliation read while it looked for an attempt, and tells how
// many clean looks after the quiet period there have been, this one included.
// wallet is what the wallet's history and balance said, nil where nobody asked.
func (s *Store) NoteLook(ctx context.Context, a withdraw.Attempt, pages [][]byte, wallet []byte, found, afterQuiet bool, at time.Time) (clean int, err error) {
	err = s.tx(ctx, "note a look", func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO attempt_reads (id, attempt_id, at, found, after_quiet, pages, wallet) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			uuid.Must(uuid.NewV7()), a.ID, at, found, afterQuiet, pages, wallet); err != nil {
			return err
		}
		return tx.QueryRow(ctx, "SELECT count(*) FROM attempt_reads WHERE attempt_id = $1 AND after_quiet AND NOT found", a.ID).Scan(&clean)
	})
	return clean, err
}

// AbsenceEvidence is the SHA-256 over the SHA-256 of each page of every look after
// the quiet period, and of what the wallet said at it, in order: what approvers of a
// fresh attempt sign that they rely on.
func (s *Store) AbsenceEvidence(ctx context.Context, a withdraw.Attempt) (string, error) {
	rows, err := s.Pool.Query(ctx, "SELECT pages, wallet FROM attempt_reads WHERE attempt_id = $1 AND after_quiet ORDER BY id", a.ID)
	if err != nil {
		return "", fmt.Errorf("read absence evidence: %w", err)
	}
	h := sha256.New()
	var pages [][]byte
	var wallet []byte
	if _, err := pgx.ForEachRow(rows, []any{&pages, &wallet}, func() error {
		for _, p := range append(pages, wallet) {
			sum := sha256.Sum256(p)
			h.Write(sum[:])
		}
		return nil
	}); err != nil {
		return "", fmt.Errorf("read absence evidence: %w", err)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// Absent records that an attempt is proven not to have been accepted, and puts a
// new proposal before people: only fresh votes over it lead to another attempt.
func (s *Store) Absent(ctx context.Context, a withdraw.Attempt, fresh withdraw.Proposal, now time.Time) error {
	sealed, err := fresh.Seal()
	if err != nil {
		return err
	}
	digest := withdraw.DigestOf(sealed)
	return s.tx(ctx, "record absence", func(tx pgx.Tx) error {
		if err := settle(ctx, tx, a, "absent", exchange.Outcome{Message: a.Message, HTTPStatus: a.HTTPStatus, Code: a.Code, Response: a.Response}, now); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO proposals (digest, sealed, withdrawal_id, round, created_at) VALUES ($1, $2, $3, $4, $5)`,
			digest, sealed, fresh.ID, fresh.Round, now); err != nil {
			return err
		}
		return move{id: a.WithdrawalID, to: withdraw.Absent,
			set: map[string]any{"round": fresh.Round, "digest": digest, "expires_at": fresh.ExpiresAt, "next_step_at": nil},
			reason: fault.New(fault.Conflict, "not_at_exchange",
				"the exchange does not have this withdrawal: its request window and the quiet period have passed and two complete readings of the history do not show it",
				"compare with the exchange's withdrawal page, then vote again to send it once more, or cancel it"),
			actor: "worker:" + a.Account, action: audit.SubmissionAbsent, detail: canonical.Object{
				"attempt": a.ID.String(), "number": a.Number, "evidence": fresh.Evidence, "round": fresh.Round, "digest": fmt.Sprintf("%x", digest)},
		}.apply(ctx, tx, now)
	})
}

// Live tells whether an attempt of a withdrawal is at the exchange, or may be.
func (s *Store) Live(ctx context.Context, withdrawalID uuid.UUID) (bool, error) {
	return live(ctx, s.Pool, withdrawalID)
}

func live(ctx context.Context, q querier, withdrawalID uuid.UUID) (bool, error) {
	rows, err := q.Query(ctx, "SELECT EXISTS (SELECT FROM attempts WHERE withdrawal_id = $1 AND outcome IN ('open', 'unknown', 'accepted'))", withdrawalID)
	if err != nil {
		return false, fmt.Errorf("look for live attempts: %w", err)
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
}

// Proposal reads the sealed proposal of a withdrawal's current round.
func (s *Store) Proposal(ctx context.Context, withdrawalID uuid.UUID) ([]byte, error) {
	var sealed []byte
	err := s.Pool.QueryRow(ctx, `SELECT p.sealed FROM withdrawals w JOIN proposals p ON p.digest = w.digest WHERE w.id = $1`, withdrawalID).Scan(&sealed)
	if err != nil {
		return nil, fmt.Errorf("read proposal of %s: %w", withdrawalID, err)
	}
	return sealed, nil
}

// Progress records what the exchange says of a withdrawal that it has. to is the
// state that follows; the current one when only the details changed.
func (s *Store) Progress(ctx context.Context, w withdraw.Withdrawal, row exchange.Withdrawal, to withdraw.State, why *fault.Error, now, next time.Time) error {
	set := progress(row)
	delete(set, "exchange_id")
	return s.tx(ctx, "record progress", func(tx pgx.Tx) error {
		if err := lock(ctx, tx, w.ID); err != nil {
			return err
		}
		detail := canonical.Object{"exchange_id": row.ID, "status": row.RawStatus, "tx_id": row.TxID, "fee": money.Text(row.Fee), "net": money.Text(row.Net)}
		if to == w.State {
			tag, err := tx.Exec(ctx, `UPDATE withdrawals SET exchange_status = $3, fee = $4, fee_asset = $5, tx_id = $6, confirmations = $7, next_step_at = $8, updated_at = $9, listed_at = coalesce(listed_at, $9)
				WHERE id = $1 AND state = $2`, w.ID, string(w.State), set["exchange_status"], set["fee"], set["fee_asset"], set["tx_id"], set["confirmations"], next, now)
			if err != nil || tag.RowsAffected() == 0 || storable(row.RawStatus) == w.ExchangeStatus {
				return err
			}
			return appendEvents(ctx, tx, audit.NewEvent(now, "worker:"+w.Account, "exchange.status", w.ID, detail))
		}
		set["next_step_at"] = next
		if w.ListedAt == nil {
			set["listed_at"] = now
		}
		return move{id: w.ID, to: to, from: []withdraw.State{w.State}, set: set, reason: why,
			actor: "worker:" + w.Account, action: "withdrawal." + string(to), detail: detail}.apply(ctx, tx, now)
	})
}

// Rescue finds withdrawals that should have moved and have not: a job was lost, a
// worker died between two steps, or a wait is over. It gives each a job again.
func (s *Store) Rescue(ctx context.Context, account string, now time.Time) (int, error) {
	n := 0
	err := s.tx(ctx, "rescue", func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT "+withdrawalColumns+` FROM withdrawals w WHERE account = $1 AND state IN ('approved', 'submitting') AND next_step_at <= $2
			AND NOT EXISTS (SELECT FROM attempts a WHERE a.withdrawal_id = w.id AND a.outcome IN ('open', 'unknown', 'accepted'))
			ORDER BY next_step_at LIMIT 100 FOR UPDATE SKIP LOCKED`, account, now)
		if err != nil {
			return err
		}
		list, err := pgx.CollectRows(rows, pgx.RowToStructByName[withdraw.Withdrawal])
		if err != nil {
			return err
		}
		for _, w := range list {
			if _, err := tx.Exec(ctx, "UPDATE withdrawals SET next_step_at = $2 WHERE id = $1", w.ID, now.Add(strandedAfter)); err != nil {
				return err
			}
			if err := insertSubmitJob(ctx, tx, w); err != nil {
				return err
			}
		}
		n = len(list)
		return nil
	})
	return n, err
}

// AttemptCount is how many attempts a withdrawal has had, and how many the
// exchange refused.
func (s *Store) AttemptCount(ctx context.Context, withdrawalID uuid.UUID) (all, refused int, err error) {
	err = s.Pool.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE outcome = 'not_accepted') FROM attempts WHERE withdrawal_id = $1`,
		withdrawalID).Scan(&all, &refused)
	return all, refused, err
}
