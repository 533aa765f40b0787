// Package identity answers who is asking. Programs show a token that they signed
// with their own key; people show a passkey. It also enrols passkeys, from
// one-time invitations, and holds the software passkeys of `sluice dev`.
//
// A token can ask for a withdrawal and never approve one: votes are passkey
// assertions, and package approval counts them.
package identity

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"sluice/internal/fault"
)

// Role is what a person may do.
type Role string

const (
	Requester Role = "requester" // asks for withdrawals
	Approver  Role = "approver"  // votes
	Admin     Role = "admin"     // invites people and keeps the whitelist mirror
	Auditor   Role = "auditor"   // reads everything, changes nothing
)

var roles = []Role{Requester, Approver, Admin, Auditor}

// Person is someone who signs in with a passkey.
type Person struct {
	ID          uuid.UUID `db:"id"`
	Name        string    `db:"name"` // short and unique, such as "ana"
	DisplayName string    `db:"display_name"`
	Roles       []Role    `db:"roles"`
	Disabled    bool      `db:"disabled"`
}

// Can tells whether the person has the role. Someone who has left can do nothing.
func (p Person) Can(r Role) bool { return !p.Disabled && slices.Contains(p.Roles, r) }

// Actor is the person's name in the record and in withdrawals.
func (p Person) Actor() string { return "person:" + p.ID.String() }

// Check refuses a person that the record could not hold, with a fault of kind Invalid.
func (p Person) Check() error {
	if !validName(p.Name) {
		return badName("person", p.Name)
	}
	if err := checkText("display_name", p.DisplayName); err != nil {
		return err
	}
	if p.DisplayName == "" {
		return fault.New(fault.Invalid, "text_malformed", "the display name is empty", "give the person's full name").On("display_name")
	}
	for _, r := range p.Roles {
		if !slices.Contains(roles, r) {
			return fault.New(fault.Invalid, "role_unknown", fmt.Sprintf("%q is not a role", r),
				"use requester, approver, admin or auditor").On("roles")
		}
	}
	return nil
}

// Passkey is a person's WebAuthn credential, as recorded.
type Passkey struct {
	ID             []byte     `db:"id"` // WebAuthn credential id
	Person         uuid.UUID  `db:"person_id"`
	PublicKey      []byte     `db:"public_key"` // COSE
	SignCount      uint32     `db:"sign_count"` // stays 0 for synced passkeys
	Transports     []string   `db:"transports"` // how a browser reaches it, as WebAuthn names them
	BackupEligible bool       `db:"backup_eligible"`
	Software       bool       `db:"software"` // made by Software; counts only in `sluice dev`
	Label          string     `db:"label"`
	CreatedAt      time.Time  `db:"created_at"`
	LastUsedAt     *time.Time `db:"last_used_at"`
	RevokedAt      *time.Time `db:"revoked_at"`
}

// Invitation lets one person enrol one passkey, once.
type Invitation struct {
	Person    uuid.UUID  `db:"person_id"`
	CreatedBy string     `db:"created_by"` // an actor
	ExpiresAt time.Time  `db:"expires_at"`
	UsedAt    *time.Time `db:"used_at"`
}

// Store is what identity keeps of people. Package pgstore has it.
type Store interface {
	// Person returns a person, or a fault of kind NotFound, "person_not_found".
	Person(ctx context.Context, id uuid.UUID) (Person, error)
	// Passkey returns a credential, revoked ones too, or a fault of kind NotFound,
	// "passkey_not_found".
	Passkey(ctx context.Context, id []byte) (Passkey, error)
	// Passkeys returns all credentials of a person, revoked ones too, oldest first.
	Passkeys(ctx context.Context, person uuid.UUID) ([]Passkey, error)
	// SignedIn records a sign-in and the passkey's new counter in one
	// transaction. A counter that did not rise is put on record and refused with
	// "passkey_cloned"; a passkey revoked meanwhile with "passkey_revoked".
	SignedIn(ctx context.Context, passkey []byte, signCount uint32, now time.Time) error
	// Invitation returns an invitation by the hash of its token, spent and expired
	// ones too, or a fault of kind NotFound, "invitation_unknown".
	Invitation(ctx context.Context, tokenHash []byte) (Invitation, error)
	// Redeem spends the invitation and adds the passkey in one transaction. Of
	// several redeemers one wins; the others get the fault of CheckInvitation.
	Redeem(ctx context.Context, tokenHash []byte, k Passkey, now time.Time) error
}

// nameForm is the form of people's and clients' names; the schema repeats it.
var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,63}$`)

func validName(s string) bool { return nameForm.MatchString(s) }

func badName(what, name string) error {
	return fault.New(fault.Invalid, "name_malformed", fmt.Sprintf("%q cannot name a %s", name, what),
		"use 1 to 64 lower-case letters, digits, dots, dashes and underscores, a letter or digit first").On("name")
}

// checkText admits what people type as a label: Postgres cannot hold NUL, and a
// control character or a text that turns its direction around makes one name look
// like another on an approver's screen.
func checkText(field, s string) error {
	hidden := func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }
	if !utf8.ValidString(s) || utf8.RuneCountInString(s) > 100 || strings.ContainsFunc(s, hidden) || strings.TrimSpace(s) != s {
		return fault.New(fault.Invalid, "text_malformed",
			"the "+strings.ReplaceAll(field, "_", " ")+" is longer than 100 characters or holds characters that cannot be shown",
			"use up to 100 plain characters, with no space at either end").On(field)
	}
	return nil
}

// CheckLabel admits a passkey's label.
func CheckLabel(label string) error { return checkText("label", label) }
