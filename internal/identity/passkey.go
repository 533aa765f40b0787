package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"github.com/go-webauthn/webauthn/webauthn"

	"sluice/internal/approval"
	"sluice/internal/fault"
)

const (
	// ceremonyLife is how long a person may take over the authenticator's prompt.
	ceremonyLife = 5 * time.Minute
	// maxCredentialBytes bounds what a browser sends back. The longest honest answer
	// is an attestation with a chain of certificates.
	maxCredentialBytes = 32 << 10
)

// algorithms are those of authenticators in use, best first.
var algorithms = []protocol.CredentialParameter{
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgEdDSA},
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgES256},
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgRS256},
}

// Passkeys signs people in and enrols their passkeys. It keeps nothing between the
// two halves of a ceremony: Begin returns a state for the caller to keep in the
// server-side session, and the caller takes it out of there before it calls
// Finish, so that each is used once.
//
// Options are the JSON forms of WebAuthn 3 (PublicKeyCredentialRequestOptionsJSON
// and …CreationOptionsJSON), without the "publicKey" wrapper; credentials are the
// browser's PublicKeyCredential.toJSON().
type Passkeys struct {
	rp    approval.Relying
	lib   *webauthn.WebAuthn
	store Store
	now   func() time.Time
}

// NewPasskeys binds passkeys to a site. It fails when rp.ID is not a host name or
// there is no origin.
func NewPasskeys(rp approval.Relying, store Store, now func() time.Time) (*Passkeys, error) {
	// The library's own check lets an empty name pass until the first sign-in.
	if err := protocol.ValidateRPID(rp.ID); err != nil {
		return nil, badSite(rp, err)
	}
	lib, err := webauthn.New(&webauthn.Config{
		RPID:          rp.ID,
		RPDisplayName: "Sluice",
		RPOrigins:     rp.Origins,
		// Nothing here depends on the maker of an authenticator, and asking for
		// proof of it costs people a privacy prompt.
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			// Without a resident key, signing in would need a name first.
			RequireResidentKey: protocol.ResidentKeyRequired(),
			ResidentKey:        protocol.ResidentKeyRequirementRequired,
			UserVerification:   protocol.VerificationRequired,
		},
		Timeouts: webauthn.TimeoutsConfig{
			Login:        webauthn.TimeoutConfig{Timeout: ceremonyLife},
			Registration: webauthn.TimeoutConfig{Timeout: ceremonyLife},
		},
		// Some password managers report extensions that nobody asked for. None is read here.
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
	})
	if err != nil {
		return nil, badSite(rp, err)
	}
	return &Passkeys{rp: rp, lib: lib, store: store, now: now}, nil
}

func badSite(rp approval.Relying, err error) error {
	return fault.New(fault.Invalid, "relying_party",
		fmt.Sprintf("passkeys cannot be bound to the site %q with the origins %q", rp.ID, rp.Origins),
		"set the site to a host name such as pay.example.com, never an IP address, and at least one origin such as https://pay.example.com").Because(err)
}

// What a ceremony is for. A state made for one is refused by the other.
const (
	signIn = "sign-in"
	enrol  = "enrol"
)

// ceremony is the state between the halves.
type ceremony struct {
	Kind    string               `json:"kind"`
	Expires time.Time            `json:"expires"`
	Data    webauthn.SessionData `json:"data"`
}

func (p *Passkeys) begun(kind string, options any, data *webauthn.SessionData) (json.RawMessage, []byte, error) {
	o, err := json.Marshal(options)
	if err != nil {
		return nil, nil, fmt.Errorf("begin %s: %w", kind, err)
	}
	state, err := json.Marshal(ceremony{Kind: kind, Expires: p.now().Add(ceremonyLife), Data: *data})
	if err != nil {
		return nil, nil, fmt.Errorf("begin %s: %w", kind, err)
	}
	return o, state, nil
}

func (p *Passkeys) resume(kind string, state []byte) (webauthn.SessionData, error) {
	var c ceremony
	if err := json.Unmarshal(state, &c); err != nil || c.Kind != kind || !p.now().Before(c.Expires) {
		return webauthn.SessionData{}, fault.New(fault.Unauthorized, "ceremony_expired",
			"the passkey's answer came too late, or to a question that was not asked here", "start again, and answer within five minutes")
	}
	return c.Data, nil
}

// user shows a person to the WebAuthn library.
type user struct {
	Person
	keys []Passkey
}

func (u user) WebAuthnID() []byte          { return u.ID[:] }
func (u user) WebAuthnName() string        { return u.Name }
func (u user) WebAuthnDisplayName() string { return u.DisplayName }
func (u user) WebAuthnCredentials() []webauthn.Credential {
	var list []webauthn.Credential
	for _, k := range u.keys {
		c := webauthn.Credential{ID: k.ID, PublicKey: k.PublicKey, Flags: webauthn.CredentialFlags{BackupEligible: k.BackupEligible}}
		c.Authenticator.SignCount = k.SignCount
		for _, t := range k.Transports {
			c.Transport = append(c.Transport, protocol.AuthenticatorTransport(t))
		}
		list = append(list, c)
	}
	return list
}

// BeginSignIn asks for any passkey of this site: the person need not say who they are.
func (p *Passkeys) BeginSignIn() (options json.RawMessage, state []byte, err error) {
	assertion, data, err := p.lib.BeginDiscoverableLogin()
	if err != nil {
		return nil, nil, fmt.Errorf("begin sign-in: %w", err)
	}
	return p.begun(signIn, assertion.Response, data)
}

// FinishSignIn returns the person whose passkey answered, and puts the sign-in on
// record. Faults: ceremony_expired, credential_malformed, passkey_unknown,
// passkey_refused, passkey_revoked, passkey_software, passkey_cloned,
// person_disabled.
//
// Refusals are not put on record, but for a cloned passkey: anybody on the
// network can cause them, and could fill the record with noise.
func (p *Passkeys) FinishSignIn(ctx context.Context, state, credential []byte) (Person, error) {
	data, err := p.resume(signIn, state)
	if err != nil {
		return Person{}, err
	}
	answer, err := parseAssertion(credential)
	if err != nil {
		return Person{}, err
	}
	key, err := p.store.Passkey(ctx, answer.RawID)
	if fault.Is(err, "passkey_not_found") {
		return Person{}, fault.New(fault.Unauthorized, "passkey_unknown", "this passkey belongs to nobody here",
			"choose another passkey, or ask an admin for an invitation").Because(err)
	}
	if err != nil {
		return Person{}, err
	}
	person, err := p.store.Person(ctx, key.Person)
	if err != nil {
		return Person{}, err
	}
	owner := func(_, _ []byte) (webauthn.User, error) { return user{person, []Passkey{key}}, nil }
	if _, _, err := p.lib.ValidatePasskeyLogin(owner, data, answer); err != nil {
		return Person{}, p.refused(err)
	}
	// Only whoever holds the private key gets to know more.
	switch {
	case key.RevokedAt != nil:
		return Person{}, fault.New(fault.Forbidden, "passkey_revoked", "this passkey has been revoked", "use another passkey, or ask an admin for an invitation")
	case key.Software && !p.rp.Software:
		return Person{}, softwareRefused()
	case person.Disabled:
		return Person{}, personDisabled()
	}
	if err := p.store.SignedIn(ctx, key.ID, answer.Response.AuthenticatorData.Counter, p.now()); err != nil {
		return Person{}, err
	}
	return person, nil
}

// BeginEnrolment asks the invited person's authenticator for a new passkey. Faults
// are those of CheckInvitation, invitation_unknown and person_disabled.
func (p *Passkeys) BeginEnrolment(ctx context.Context, token string) (invited Person, options json.RawMessage, state []byte, err error) {
	u, _, err := p.invited(ctx, token)
	if err != nil {
		return Person{}, nil, nil, err
	}
	var taken []protocol.CredentialDescriptor
	for i, c := range u.WebAuthnCredentials() {
		// A revoked passkey may be replaced on the same authenticator.
		if u.keys[i].RevokedAt == nil {
			taken = append(taken, c.Descriptor())
		}
	}
	creation, data, err := p.lib.BeginRegistration(u, webauthn.WithCredentialParameters(algorithms), webauthn.WithExclusions(taken))
	if err != nil {
		return Person{}, nil, nil, fmt.Errorf("begin enrolment: %w", err)
	}
	options, state, err = p.begun(enrol, creation.Response, data)
	return u.Person, options, state, err
}

// FinishEnrolment spends the invitation and adds the passkey. Faults, beside those
// of BeginEnrolment: ceremony_expired, credential_malformed, text_malformed,
// passkey_refused, passkey_software, passkey_taken. None of them spends the
// invitation.
func (p *Passkeys) FinishEnrolment(ctx context.Context, token string, state, credential []byte, label string) (Person, error) {
	data, err := p.resume(enrol, state)
	if err != nil {
		return Person{}, err
	}
	if err := CheckLabel(label); err != nil {
		return Person{}, err
	}
	u, hash, err := p.invited(ctx, token)
	if err != nil {
		return Person{}, err
	}
	if len(credential) > maxCredentialBytes {
		return Person{}, badCredential()
	}
	answer, err := protocol.ParseCredentialCreationResponseBytes(credential)
	if err != nil {
		return Person{}, badCredential().Because(err)
	}
	made, err := p.lib.CreateCredential(u, data, answer)
	if err != nil {
		return Person{}, p.refused(err)
	}
	key := Passkey{
		ID: made.ID, Person: u.ID, PublicKey: made.PublicKey, SignCount: made.Authenticator.SignCount,
		Transports: transports(made.Transport), BackupEligible: made.Flags.BackupEligible,
		Software: bytes.Equal(made.Authenticator.AAGUID, softwareAAGUID[:]), Label: label, CreatedAt: p.now(),
	}
	if key.Software && !p.rp.Software {
		return Person{}, softwareRefused()
	}
	if err := p.store.Redeem(ctx, hash, key, p.now()); err != nil {
		return Person{}, err
	}
	return u.Person, nil
}

// invited returns the person whom a live invitation is for.
func (p *Passkeys) invited(ctx context.Context, token string) (user, []byte, error) {
	hash, err := HashInvitation(token)
	if err != nil {
		return user{}, nil, err
	}
	inv, err := p.store.Invitation(ctx, hash)
	if err != nil {
		return user{}, nil, err
	}
	if err := CheckInvitation(inv, p.now()); err != nil {
		return user{}, nil, err
	}
	person, err := p.store.Person(ctx, inv.Person)
	if err != nil {
		return user{}, nil, err
	}
	if person.Disabled {
		return user{}, nil, personDisabled()
	}
	keys, err := p.store.Passkeys(ctx, person.ID)
	return user{person, keys}, hash, err
}

// transports keeps what WebAuthn names; the browser may say anything.
func transports(said []protocol.AuthenticatorTransport) []string {
	known := []protocol.AuthenticatorTransport{protocol.USB, protocol.NFC, protocol.BLE, protocol.SmartCard, protocol.Hybrid, protocol.Internal}
	list := []string{}
	for _, t := range known {
		if slices.Contains(said, t) {
			list = append(list, string(t))
		}
	}
	return list
}

func (p *Passkeys) refused(err error) error {
	return fault.New(fault.Unauthorized, "passkey_refused", "the passkey's answer does not verify: it was given to another question or another site, or without checking who is there",
		"open Sluice at "+strings.Join(p.rp.Origins, " or ")+" and try again; the passkey must ask for your fingerprint, face or PIN").Because(err)
}

func softwareRefused() error {
	return fault.New(fault.Forbidden, "passkey_software", "this is a software passkey, and those count only in `sluice dev`",
		"use a passkey of a phone, a computer or a security key")
}

func personDisabled() error {
	return fault.New(fault.Forbidden, "person_disabled", "this person has been disabled", "ask an admin whether they should be")
}

func badCredential() *fault.Error {
	return fault.New(fault.Invalid, "credential_malformed", "the passkey's answer cannot be read",
		"send the credential as the browser's toJSON() gives it").On("credential")
}

// VoteOptions asks for an assertion over challenge (approval.Challenge) by one of
// these credential ids, with user verification.
func VoteOptions(rp approval.Relying, challenge []byte, passkeys [][]byte) json.RawMessage {
	o := protocol.PublicKeyCredentialRequestOptions{
		Challenge: challenge, Timeout: int(ceremonyLife.Milliseconds()), RelyingPartyID: rp.ID,
		UserVerification: protocol.VerificationRequired,
	}
	for _, id := range passkeys {
		o.AllowedCredentials = append(o.AllowedCredentials, protocol.CredentialDescriptor{Type: protocol.PublicKeyCredentialType, CredentialID: id})
	}
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // bytes and strings always encode
	}
	return b
}

// Assertion is what a passkey signed, in the parts that a vote keeps.
type Assertion struct {
	Passkey           []byte // credential id
	AuthenticatorData []byte
	ClientData        []byte // clientDataJSON, byte for byte
	Signature         []byte
	UserHandle        []byte // the person's id, when the authenticator tells; may be empty
}

// ParseAssertion reads the JSON of a browser's assertion. It checks form and size
// and no signature: that is approval.CheckAssertion's. Its fault is
// credential_malformed.
func ParseAssertion(credential []byte) (Assertion, error) {
	a, err := parseAssertion(credential)
	if err != nil {
		return Assertion{}, err
	}
	r := a.Raw.AssertionResponse
	return Assertion{
		Passkey: a.RawID, AuthenticatorData: r.AuthenticatorData, ClientData: r.ClientDataJSON,
		Signature: r.Signature, UserHandle: r.UserHandle,
	}, nil
}

// Bounds of an assertion's parts. Votes are kept for ever and are read by every
// check of a withdrawal, so none may be fat. WebAuthn bounds ids and handles (1023
// and 64 bytes); client data and authenticator data are a few hundred bytes, a
// signature at most that of an RSA key of 8192 bits.
const (
	maxIDBytes         = 1023
	maxClientDataBytes = 4 << 10
	maxAuthDataBytes   = 4 << 10
	maxSignatureBytes  = 1 << 10
	maxHandleBytes     = 64
)

func parseAssertion(credential []byte) (*protocol.ParsedCredentialAssertionData, error) {
	if len(credential) > maxCredentialBytes {
		return nil, badCredential()
	}
	a, err := protocol.ParseCredentialRequestResponseBytes(credential)
	if err != nil {
		return nil, badCredential().Because(err)
	}
	r := a.Raw.AssertionResponse
	if len(a.RawID) > maxIDBytes || len(r.ClientDataJSON) > maxClientDataBytes || len(r.AuthenticatorData) > maxAuthDataBytes ||
		len(r.Signature) == 0 || len(r.Signature) > maxSignatureBytes || len(r.UserHandle) > maxHandleBytes {
		return nil, badCredential()
	}
	return a, nil
}
