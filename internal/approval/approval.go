// Package approval answers one question: do these votes approve this proposal?
//
// Verify is pure and is the same code wherever the question is put: the api
// shows its answer, the worker enforces it before each submission, the receipt
// check runs it again with the server switched off. It trusts the sealed bytes
// of the proposal and the signatures over them, and no status column.
package approval

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json" // exact: encoding/json takes "Quorum" for "quorum", and the last of two
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
)

// Decision is what a vote says.
type Decision string

const (
	Approve Decision = "approve"
	Reject  Decision = "reject"
)

// Quorum is how many people must agree, and how many can stop it. It is sealed into
// the proposal, so that a later change of policy cannot loosen what was asked for.
type Quorum struct {
	Approve int `json:"approve"`
	Reject  int `json:"reject"`
}

// Terms is what every proposal's sealed bytes say about its own approval,
// whatever else they hold.
type Terms struct {
	Requester string    `json:"requester"` // "client:NAME" or "person:ID"; never counts
	Quorum    Quorum    `json:"quorum"`
	ExpiresAt time.Time `json:"expires_at"`
}

// Digest is the SHA-256 of a proposal's sealed bytes.
type Digest [sha256.Size]byte

// DigestOf returns the digest that people sign for these sealed bytes.
func DigestOf(sealed []byte) Digest { return sha256.Sum256(sealed) }

func (d Digest) String() string { return fmt.Sprintf("%x", d[:]) }

// NonceSize is the length of a vote's server nonce in bytes.
const NonceSize = 32

// Challenge is what the authenticator signs. The nonce is random, issued by the
// server and used once: without it a challenge could be computed in advance and
// signed for before the request exists. The parts have fixed or self-delimiting
// lengths, so two different votes never make the same challenge.
func Challenge(nonce []byte, d Decision, digest Digest) []byte {
	h := sha256.New()
	h.Write([]byte("sluice/vote/1"))
	h.Write(nonce)
	h.Write([]byte(d))
	h.Write(digest[:])
	return h.Sum(nil)
}

// Vote is one person's decision: a WebAuthn assertion over a challenge that is
// made from the proposal's digest.
type Vote struct {
	Person            string    `json:"person"` // id of the person
	Passkey           []byte    `json:"passkey"`
	Decision          Decision  `json:"decision"`
	Reason            string    `json:"reason,omitempty"` // for people to read; not signed
	Nonce             []byte    `json:"nonce"`
	AuthenticatorData []byte    `json:"authenticator_data"`
	ClientData        []byte    `json:"client_data"` // clientDataJSON, as the browser made it
	Signature         []byte    `json:"signature"`
	CastAt            time.Time `json:"cast_at"`
}

// Passkey is a person's credential.
type Passkey struct {
	ID        []byte `json:"id"`
	PublicKey []byte `json:"public_key"` // COSE
	Software  bool   `json:"software"`
	Revoked   bool   `json:"revoked,omitempty"`
}

// Person is one entry of the roster.
type Person struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Approver bool      `json:"approver"`
	Disabled bool      `json:"disabled,omitempty"`
	Passkeys []Passkey `json:"passkeys"`
}

// Relying is the site that passkeys are bound to.
type Relying struct {
	ID      string   `json:"rp_id"`   // a host name such as "localhost"; never an IP address
	Origins []string `json:"origins"` // such as "http://localhost:8080"
	// Software admits the demo people's software passkeys. Only `sluice dev` sets it.
	Software bool `json:"software"`
}

// Evidence is all that Verify looks at.
type Evidence struct {
	Sealed  []byte // the proposal, canonical JSON
	Votes   []Vote
	Roster  []Person // as of now: people who left and keys that were revoked drop out
	Relying Relying
	// Floor is the loosest quorum that the caller accepts, whatever is sealed: no
	// fewer approvals, and no more rejections to stop it. 0 accepts any.
	Floor Quorum
}

// Standing is where the votes lead.
type Standing string

const (
	Open     Standing = "open"     // they decide nothing yet
	Approved Standing = "approved" // the quorum is there
	Rejected Standing = "rejected"
	Lapsed   Standing = "lapsed"  // the proposal's end has passed
	Invalid  Standing = "invalid" // the evidence contradicts itself: nobody may act on it
)

// Verdict is Verify's answer.
type Verdict struct {
	Standing   Standing
	Digest     Digest
	Terms      Terms
	Approvals  []string // ids of the people whose approval counts
	Rejections []string
	Missing    int // approvals still needed
	// Ignored says, vote by vote, why one does not count: the voter left, lost the
	// role, asked for the withdrawal.
	Ignored []string
	// Faults says what does not verify. One is enough to make the standing Invalid:
	// a forged vote among good ones means that somebody is in the house.
	Faults []string
}

// Verify counts the votes of a proposal as of now.
func Verify(e Evidence, now time.Time) Verdict {
	v := Verdict{Digest: DigestOf(e.Sealed)}
	if err := json.Unmarshal(e.Sealed, &v.Terms); err != nil {
		v.Standing, v.Faults = Invalid, []string{"the sealed proposal cannot be read"}
		return v
	}
	q := v.Terms.Quorum
	if looser(q, e.Floor) || v.Terms.Requester == "" || v.Terms.ExpiresAt.IsZero() {
		v.Faults = append(v.Faults, "the sealed proposal is easier to approve or harder to reject than the policy allows, or names no requester or end")
	}

	people, nonces := map[string]bool{}, map[string]bool{}
	for _, vote := range e.Votes {
		who := slices.IndexFunc(e.Roster, func(p Person) bool { return p.ID == vote.Person })
		if who < 0 {
			v.Faults = append(v.Faults, fmt.Sprintf("vote of %s: nobody by that id is on the roster", vote.Person))
			continue
		}
		person := e.Roster[who]
		if people[person.ID] || nonces[string(vote.Nonce)] {
			v.Faults = append(v.Faults, fmt.Sprintf("vote of %s: a second vote, or a nonce used twice", person.Name))
			continue
		}
		people[person.ID], nonces[string(vote.Nonce)] = true, true

		key := slices.IndexFunc(person.Passkeys, func(k Passkey) bool { return bytes.Equal(k.ID, vote.Passkey) })
		if key < 0 {
			v.Faults = append(v.Faults, fmt.Sprintf("vote of %s: the passkey is not theirs", person.Name))
			continue
		}
		if err := CheckAssertion(vote, person.Passkeys[key], v.Digest, e.Relying); err != nil {
			v.Faults = append(v.Faults, fmt.Sprintf("vote of %s: %v", person.Name, err))
			continue
		}
		if why := excluded(person, person.Passkeys[key], v.Terms); why != "" {
			v.Ignored = append(v.Ignored, fmt.Sprintf("vote of %s: %s", person.Name, why))
			continue
		}
		if vote.Decision == Approve {
			v.Approvals = append(v.Approvals, person.ID)
		} else {
			v.Rejections = append(v.Rejections, person.ID)
		}
	}

	v.Missing = max(0, q.Approve-len(v.Approvals))
	switch {
	case len(v.Faults) > 0:
		v.Standing = Invalid
	case len(v.Rejections) >= q.Reject:
		v.Standing = Rejected
	case !now.Before(v.Terms.ExpiresAt):
		v.Standing = Lapsed
	case v.Missing == 0:
		v.Standing = Approved
	default:
		v.Standing = Open
	}
	return v
}

// looser tells whether a quorum grants more than the floor does. A proposal that
// needs many rejections is as loose as one that needs few approvals: the one
// person who saw the theft could not stop it.
func looser(q, floor Quorum) bool {
	return q.Approve < max(1, floor.Approve) || q.Reject < 1 || (floor.Reject > 0 && q.Reject > floor.Reject)
}

// MayVote tells whether a person's vote would count, and if not, why.
func MayVote(p Person, t Terms) (why string, ok bool) {
	why = excluded(p, Passkey{}, t)
	return why, why == ""
}

func excluded(p Person, k Passkey, t Terms) string {
	switch {
	case t.Requester == "person:"+p.ID:
		return "whoever asked for a withdrawal never counts towards it"
	case p.Disabled:
		return "the person has left"
	case !p.Approver:
		return "the person is not an approver"
	case k.Revoked:
		return "the passkey has been revoked"
	}
	return ""
}

// CheckAssertion tells whether a vote is a valid WebAuthn assertion, with user
// verification, by this passkey, for this site, over this decision and digest.
func CheckAssertion(v Vote, k Passkey, digest Digest, rp Relying) error {
	if v.Decision != Approve && v.Decision != Reject {
		return errors.New("the decision is neither approve nor reject")
	}
	if k.Software && !rp.Software {
		return errors.New("a software passkey counts only in `sluice dev`")
	}
	if len(v.Nonce) != NonceSize {
		return errors.New("the nonce has the wrong length")
	}
	return checkSigned(v.AuthenticatorData, v.ClientData, v.Signature, Challenge(v.Nonce, v.Decision, digest), k.PublicKey, rp)
}

// WebAuthn flags of the authenticator data (WebAuthn 2, section 6.1).
const (
	userPresent  = 0x01
	userVerified = 0x04
	authDataMin  = 37 // rpIdHash 32, flags 1, counter 4
)

func checkSigned(authData, clientData, signature, challenge, coseKey []byte, rp Relying) error {
	var client struct {
		Type        string `json:"type"`
		Challenge   string `json:"challenge"`
		Origin      string `json:"origin"`
		CrossOrigin bool   `json:"crossOrigin"`
	}
	if err := json.Unmarshal(clientData, &client); err != nil {
		return errors.New("the client data cannot be read")
	}
	got, err := base64.RawURLEncoding.DecodeString(client.Challenge)
	if err != nil || subtle.ConstantTimeCompare(got, challenge) != 1 {
		return errors.New("it signs another challenge: another request, another decision or another nonce")
	}
	if client.Type != "webauthn.get" {
		return errors.New("it is not a WebAuthn assertion")
	}
	// A page of another site inside a frame could show one payout and have
	// another signed.
	if client.CrossOrigin || !slices.Contains(rp.Origins, client.Origin) {
		return errors.New("it was made on another site")
	}
	if len(authData) < authDataMin {
		return errors.New("the authenticator data is too short")
	}
	if want := sha256.Sum256([]byte(rp.ID)); !bytes.Equal(authData[:32], want[:]) {
		return errors.New("it was made for another site")
	}
	if flags := authData[32]; flags&userPresent == 0 || flags&userVerified == 0 {
		return errors.New("the authenticator did not verify its user")
	}
	key, err := webauthncose.ParsePublicKey(coseKey)
	if err != nil {
		return errors.New("the passkey's public key cannot be read")
	}
	hash := sha256.Sum256(clientData)
	ok, err := webauthncose.VerifySignature(key, append(slices.Clone(authData), hash[:]...), signature)
	if err != nil || !ok {
		return errors.New("the signature does not verify")
	}
	return nil
}

// SignCount reads the signature counter of authenticator data; 0 when it is too short.
func SignCount(authData []byte) uint32 {
	if len(authData) < authDataMin {
		return 0
	}
	return binary.BigEndian.Uint32(authData[33:37])
}
