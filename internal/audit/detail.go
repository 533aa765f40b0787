package audit

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"time"

	"github.com/google/uuid"

	"sluice/internal/approval"
	"sluice/internal/canonical"
)

// The actions that a receipt reads. Others may be added to the log freely; a
// receipt shows them and draws nothing from them.
const (
	WithdrawalRequested = "withdrawal.requested" // digest
	WithdrawalRefused   = "withdrawal.refused"
	WithdrawalApproved  = "withdrawal.approved" // digest
	WithdrawalRejected  = "withdrawal.rejected" // digest
	WithdrawalCancelled = "withdrawal.cancelled"
	WithdrawalExpired   = "withdrawal.expired"
	WithdrawalHeld      = "withdrawal.held"
	WithdrawalSubmitted = "withdrawal.submitted" // out of a hold; the first time it is submission.accepted
	WithdrawalCompleted = "withdrawal.completed" // exchange_id, tx_id
	WithdrawalFailed    = "withdrawal.failed"

	VoteCast = "vote.cast" // VoteDetail

	SubmissionAttempted   = "submission.attempted"    // AttemptDetail
	SubmissionAccepted    = "submission.accepted"     // attempt, exchange_id
	SubmissionUnknown     = "submission.unknown"      // attempt
	SubmissionNotAccepted = "submission.not_accepted" // attempt
	SubmissionAbsent      = "submission.absent"       // attempt

	PersonCreated   = "person.created"   // person, name, roles
	PersonDisabled  = "person.disabled"  // person
	PasskeyEnrolled = "passkey.enrolled" // PasskeyDetail
	PasskeyRevoked  = "passkey.revoked"  // person, passkey
)

// RosterActions are the events that say who may vote with what.
func RosterActions() []string {
	return []string{PersonCreated, PersonDisabled, PasskeyEnrolled, PasskeyRevoked}
}

// VoteDetail is the detail of vote.cast. It names the signature by its hash, so
// that the log binds the whole vote: the signature covers the decision, the
// nonce, the digest and what the browser saw, and the log itself covers the
// reason, which nobody signs.
func VoteDetail(digest approval.Digest, v approval.Vote) canonical.Object {
	return canonical.Object{
		"digest": digest.String(), "person": v.Person, "decision": string(v.Decision), "reason": v.Reason,
		"nonce": Binary(v.Nonce), "passkey": Binary(v.Passkey), "signature_sha256": HexSHA256(v.Signature),
	}
}

// AttemptDetail is the detail of submission.attempted. The id is the attempt's,
// signedAt is T by the exchange's clock, and the body is named by its hash.
func AttemptDetail(id uuid.UUID, number int, digest []byte, remark string, body []byte, signedAt time.Time, windowMS int) canonical.Object {
	return canonical.Object{
		"attempt": id.String(), "number": number, "digest": hex.EncodeToString(digest), "remark": remark,
		"body_sha256": HexSHA256(body), "signed_at": Stamp(signedAt), "window_ms": windowMS,
	}
}

// PasskeyDetail is the detail of passkey.enrolled: all that is needed to count
// a vote by this passkey years later, with the database gone. The public key is
// in COSE form.
func PasskeyDetail(person uuid.UUID, name string, roles []string, passkey, publicKey []byte, software bool) canonical.Object {
	return canonical.Object{
		"person": person.String(), "name": name, "roles": roles,
		"passkey": Binary(passkey), "public_key": Binary(publicKey), "software": software,
	}
}

// Binary is the written form of bytes in the record: base64url without padding.
func Binary(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// HexSHA256 is how the record names bytes that it does not hold.
func HexSHA256(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
