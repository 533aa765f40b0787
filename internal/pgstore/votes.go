package pgstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"sluice/internal/approval"
	"sluice/internal/audit"
	"sluice/internal/canonical"
	"sluice/internal/fault"
	"sluice/internal/policy"
	"sluice/internal/withdraw"
)

// challengeLife is how long a person may think between opening a vote and
// touching the passkey.
const challengeLife = 5 * time.Minute

// strandedAfter is when the sweep looks at an approved withdrawal whose job has not
// run: long enough for the job, short enough that nobody has to ask.
const strandedAfter = 5 * time.Second

// Evidence reads all that the approval of a withdrawal's current round rests on.
func (s *Store) Evidence(ctx context.Context, withdrawalID uuid.UUID, rp approval.Relying) (approval.Evidence, error) {
	return readEvidence(ctx, s.Pool, withdrawalID, rp)
}

func readEvidence(ctx context.Context, q querier, withdrawalID uuid.UUID, rp approval.Relying) (approval.Evidence, error) {
	e := approval.Evidence{Relying: rp, Floor: policy.Default.Quorum}
	rows, err := q.Query(ctx, `SELECT p.sealed FROM withdrawals w JOIN proposals p ON p.digest = w.digest AND p.withdrawal_id = w.id
		WHERE w.id = $1`, withdrawalID)
	if err != nil {
		return e, fmt.Errorf("read evidence: %w", err)
	}
	if e.Sealed, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[[]byte]); err != nil {
		if errors.Is(err, pgx.ErrNoRows) {
			return e, fault.New(fault.NotFound, "proposal_not_found", "there is no sealed proposal for withdrawal "+withdrawalID.String(), "check the id")
		}
		return e, fmt.Errorf("read evidence: %w", err)
	}
	digest := approval.DigestOf(e.Sealed)
	rows, err = q.Query(ctx, `SELECT person_id::text, passkey_id, decision, reason, nonce, authenticator_data, client_data, signature, cast_at
		FROM votes WHERE digest = $1 ORDER BY cast_at, id`, digest[:])
	if err != nil {
		return e, fmt.Errorf("read votes: %w", err)
	}
	if e.Votes, err = pgx.CollectRows(rows, pgx.RowToStructByPos[approval.Vote]); err != nil {
		return e, fmt.Errorf("read votes: %w", err)
	}
	voters := make([]string, len(e.Votes))
	for i, v := range e.Votes {
		voters[i] = v.Person
	}
	e.Roster, err = readRoster(ctx, q, voters)
	return e, err
}

// readRoster reads people with their passkeys as of now.
func readRoster(ctx context.Context, q querier, ids []string) ([]approval.Person, error) {
	rows, err := q.Query(ctx, `SELECT p.id::text, p.display_name, 'approver' = ANY (p.roles), p.disabled_at IS NOT NULL,
			k.id, k.public_key, k.software, k.revoked_at IS NOT NULL
		FROM people p LEFT JOIN passkeys k ON k.person_id = p.id
		WHERE p.id = ANY ($1::uuid[]) ORDER BY p.id, k.created_at`, ids)
	if err != nil {
		return nil, fmt.Errorf("read roster: %w", err)
	}
	var roster []approval.Person
	var p approval.Person
	var id, key []byte
	var software, revoked *bool
	_, err = pgx.ForEachRow(rows, []any{&p.ID, &p.Name, &p.Approver, &p.Disabled, &id, &key, &software, &revoked}, func() error {
		if len(roster) == 0 || roster[len(roster)-1].ID != p.ID {
			roster = append(roster, p)
		}
		if id != nil {
			last := &roster[len(roster)-1]
			last.Passkeys = append(last.Passkeys, approval.Passkey{
				ID: slices.Clone(id), PublicKey: slices.Clone(key), Software: *software, Revoked: *revoked})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read roster: %w", err)
	}
	return roster, nil
}

// OpenVote issues the nonce under which a person may sign one decision on the
// withdrawal's current proposal, and refuses whoever's vote would not count.
func (s *Store) OpenVote(ctx context.Context, person, withdrawalID uuid.UUID, d approval.Decision, now time.Time) ([]byte, approval.Digest, error) {
	var digest approval.Digest
	nonce := make([]byte, approval.NonceSize)
	rand.Read(nonce) // never fails (crypto/rand)
	err := s.tx(ctx, "open vote", func(tx pgx.Tx) error {
		w, err := readWithdrawal(ctx, tx, withdrawalID, "")
		if err != nil {
			return err
		}
		e, err := readEvidence(ctx, tx, withdrawalID, approval.Relying{})
		if err != nil {
			return err
		}
		digest = approval.DigestOf(e.Sealed)
		if err := votable(ctx, tx, w, e, person, now); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO vote_challenges (nonce, digest, person_id, decision, expires_at) VALUES ($1, $2, $3, $4, $5)`,
			nonce, digest[:], person, string(d), now.Add(challengeLife))
		return err
	})
	return nonce, digest, err
}

// votable tells why a person's vote on this withdrawal would not count, if it would not.
func votable(ctx context.Context, q querier, w withdraw.Withdrawal, e approval.Evidence, person uuid.UUID, now time.Time) error {
	if w.State != withdraw.Pending && w.State != withdraw.Absent {
		return fault.New(fault.Conflict, "already_decided", fmt.Sprintf("this withdrawal is %s; votes no longer change it", w.State), "read it again")
	}
	if w.ExpiresAt != nil && !now.Before(*w.ExpiresAt) {
		return fault.New(fault.Conflict, "proposal_expired", "the time for votes on this withdrawal has passed", "ask for the payout again")
	}
	if slices.ContainsFunc(e.Votes, func(v approval.Vote) bool { return v.Person == person.String() }) {
		return fault.New(fault.Conflict, "already_voted", "you have voted on this proposal", "one person, one vote; another approver must vote")
	}
	roster, err := readRoster(ctx, q, []string{person.String()})
	if err != nil {
		return err
	}
	p, err := withdraw.Unseal(e.Sealed)
	if err != nil {
		return err
	}
	if len(roster) == 0 {
		return fault.New(fault.Forbidden, "not_on_roster", "you are not on the roster", "ask an admin")
	}
	if why, ok := approval.MayVote(roster[0], approval.Terms{Requester: p.Requester}); !ok {
		code := "not_an_approver"
		if p.Requester == "person:"+person.String() {
			code = "requester_may_not_vote"
		}
		return fault.New(fault.Forbidden, code, why, "two other approvers must vote")
	}
	return nil
}

// CastVote checks a vote, stores it, and moves the withdrawal if the vote decides it. The
// last vote of the quorum inserts the submit job in the same transaction.
func (s *Store) CastVote(ctx context.Context, withdrawalID uuid.UUID, v approval.Vote, rp approval.Relying, now time.Time) (withdraw.Withdrawal, approval.Verdict, error) {
	var w withdraw.Withdrawal
	var verdict approval.Verdict
	var refused error // of a copied passkey: refused, and that it was tried stays on record
	err := s.tx(ctx, "cast vote", func(tx pgx.Tx) error {
		var err error
		// The lock puts the votes of one withdrawal in a row: two last votes at once
		// would each count the other as missing.
		if w, err = readWithdrawal(ctx, tx, withdrawalID, "FOR UPDATE"); err != nil {
			return err
		}
		person, err := uuid.Parse(v.Person)
		if err != nil {
			return fault.New(fault.Invalid, "person_malformed", "the voter's id cannot be read", "sign in again")
		}
		e, err := readEvidence(ctx, tx, withdrawalID, rp)
		if err != nil {
			return err
		}
		if err := votable(ctx, tx, w, e, person, now); err != nil {
			return err
		}
		digest := approval.DigestOf(e.Sealed)
		if err := useChallenge(ctx, tx, v, person, digest, now); err != nil {
			return err
		}
		if err := checkPasskey(ctx, tx, v, person, digest, rp); err != nil {
			return err
		}
		if _, refused, err = usePasskey(ctx, tx, v.Passkey, approval.SignCount(v.AuthenticatorData), now); err != nil || refused != nil {
			return err
		}
		v.CastAt = now.UTC().Truncate(time.Millisecond)
		if err := storeVote(ctx, tx, withdrawalID, v, person, digest); err != nil {
			return err
		}
		if e, err = readEvidence(ctx, tx, withdrawalID, rp); err != nil {
			return err
		}
		verdict = approval.Verify(e, now)
		if err := s.decide(ctx, tx, w, verdict, v, now); err != nil {
			return err
		}
		w, err = readWithdrawal(ctx, tx, withdrawalID, "")
		return err
	})
	if err == nil {
		err = refused
	}
	return w, verdict, err
}

// useChallenge spends the nonce. A nonce issued to another person, for another
// decision or over another digest is as good as none.
func useChallenge(ctx context.Context, tx pgx.Tx, v approval.Vote, person uuid.UUID, digest approval.Digest, now time.Time) error {
	tag, err := tx.Exec(ctx, `UPDATE vote_challenges SET used_at = $1
		WHERE nonce = $2 AND person_id = $3 AND decision = $4 AND digest = $5 AND used_at IS NULL AND expires_at > $1`,
		now, v.Nonce, person, string(v.Decision), digest[:])
	if err != nil {
		return fmt.Errorf("use challenge: %w", err)
	}
	if tag.RowsAffected() != 1 {
		return fault.New(fault.Conflict, "challenge_unknown",
			"this vote answers no challenge that is open: it was used, has lapsed, or was issued for another person, decision or proposal",
			"open the withdrawal again and vote afresh")
	}
	return nil
}

// checkPasskey verifies that the assertion was made with a passkey of the person.
func checkPasskey(ctx context.Context, tx pgx.Tx, v approval.Vote, person uuid.UUID, digest approval.Digest, rp approval.Relying) error {
	roster, err := readRoster(ctx, tx, []string{person.String()})
	if err != nil {
		return err
	}
	key := slices.IndexFunc(roster[0].Passkeys, func(k approval.Passkey) bool { return bytes.Equal(k.ID, v.Passkey) && !k.Revoked })
	if key < 0 {
		return fault.New(fault.Forbidden, "passkey_unknown", "this passkey is not one of yours, or has been revoked", "use a passkey that you enrolled")
	}
	if err := approval.CheckAssertion(v, roster[0].Passkeys[key], digest, rp); err != nil {
		return fault.New(fault.Forbidden, "assertion_invalid", "the passkey's answer does not verify: "+err.Error(), "open the withdrawal again and vote afresh")
	}
	return nil
}

func storeVote(ctx context.Context, tx pgx.Tx, withdrawalID uuid.UUID, v approval.Vote, person uuid.UUID, digest approval.Digest) error {
	_, err := tx.Exec(ctx, `INSERT INTO votes (id, digest, person_id, passkey_id, decision, reason, nonce, authenticator_data, client_data, signature, cast_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`, uuid.Must(uuid.NewV7()), digest[:], person, v.Passkey, string(v.Decision), v.Reason,
		v.Nonce, v.AuthenticatorData, v.ClientData, v.Signature, v.CastAt)
	if err != nil {
		return fmt.Errorf("store vote: %w", err)
	}
	return appendEvents(ctx, tx, audit.NewEvent(v.CastAt, "person:"+v.Person, audit.VoteCast, withdrawalID, audit.VoteDetail(digest, v)))
}

// decide moves the withdrawal where the votes lead.
func (s *Store) decide(ctx context.Context, tx pgx.Tx, w withdraw.Withdrawal, verdict approval.Verdict, v approval.Vote, now time.Time) error {
	switch verdict.Standing {
	case approval.Open:
		return nil
	case approval.Rejected:
		why := v.Reason
		if why == "" {
			why = "an approver said no"
		}
		to := withdraw.Rejected
		if w.State == withdraw.Absent {
			to = withdraw.Cancelled // no fresh attempt; the first one is proven not to have been accepted
		}
		return move{id: w.ID, to: to, actor: "person:" + v.Person, action: "withdrawal." + string(to),
			reason: fault.New(fault.Conflict, "rejected", why, "talk to the approver; ask for the payout again if it was a mistake"),
			detail: canonical.Object{"digest": verdict.Digest.String()}}.apply(ctx, tx, now)
	case approval.Approved:
		if err := (move{id: w.ID, to: withdraw.Approved, actor: "person:" + v.Person, action: audit.WithdrawalApproved,
			set:    map[string]any{"next_step_at": now.Add(strandedAfter), "approved_at": now},
			detail: canonical.Object{"digest": verdict.Digest.String(), "approvals": len(verdict.Approvals)}}).apply(ctx, tx, now); err != nil {
			return err
		}
		return insertSubmitJob(ctx, tx, w)
	}
	// A vote that verified a moment ago contradicts the others: somebody wrote to
	// the votes past this code. Store nothing on top of it.
	return fault.New(fault.Conflict, "evidence_invalid", "the votes recorded for this withdrawal do not verify", "stop, and tell an admin: the record needs a look")
}

func insertSubmitJob(ctx context.Context, tx pgx.Tx, w withdraw.Withdrawal) error {
	jobs, err := river.NewClient(riverpgxv5.New(nil), &river.Config{})
	if err != nil {
		return fmt.Errorf("insert submit job: %w", err)
	}
	if _, err := jobs.InsertTx(ctx, tx, withdraw.SubmitJob{WithdrawalID: w.ID.String()}, &river.InsertOpts{
		Queue: withdraw.Queue(w.Account), MaxAttempts: 1, // our tables know what to do next; River's retries would only repeat the question
	}); err != nil {
		return fmt.Errorf("insert submit job: %w", err)
	}
	return nil
}
