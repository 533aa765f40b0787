package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"time"

	"sluice/internal/fault"
)

const (
	// InvitationLife is how long an invitation's link works.
	InvitationLife  = 24 * time.Hour
	invitationBytes = 32
)

// NewInvitation makes the token of a one-time link and the hash under which it is
// recorded. Only the hash is kept, so that whoever reads the database or a backup
// of it cannot enrol a passkey in a colleague's name.
func NewInvitation() (token string, hash []byte) {
	raw := make([]byte, invitationBytes)
	rand.Read(raw) // never fails
	h := sha256.Sum256(raw)
	return base64.RawURLEncoding.EncodeToString(raw), h[:]
}

// HashInvitation returns the hash of a token, or the fault invitation_unknown if it
// cannot be one.
func HashInvitation(token string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) != invitationBytes {
		return nil, UnknownInvitation()
	}
	h := sha256.Sum256(raw)
	return h[:], nil
}

// CheckInvitation tells whether an invitation can still be redeemed. Its faults,
// invitation_used and invitation_expired, are for someone who holds the link, and
// give nothing away.
func CheckInvitation(inv Invitation, now time.Time) error {
	switch {
	case inv.UsedAt != nil:
		return fault.New(fault.Conflict, "invitation_used", "this invitation has been used",
			"sign in with the passkey that it made; if it was not you who used it, tell an admin at once")
	case !now.Before(inv.ExpiresAt):
		return fault.New(fault.Conflict, "invitation_expired", "this invitation is more than 24 hours old", "ask an admin for a new one")
	}
	return nil
}

// UnknownInvitation is the fault for a token that is nobody's.
func UnknownInvitation() error {
	return fault.New(fault.NotFound, "invitation_unknown", "there is no such invitation",
		"open the link whole, as you got it, or ask an admin for a new one")
}
