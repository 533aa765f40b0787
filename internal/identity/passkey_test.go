package identity

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"
	"github.com/google/uuid"

	"sluice/internal/approval"
	"sluice/internal/fault"
)

const origin = "http://localhost:8080"

var dev = approval.Relying{ID: "localhost", Origins: []string{origin}, Software: true}

// shelf is a Store in memory. The rules of the real one, such as who wins of two
// redeemers, are tested where it is: package pgstore.
type shelf struct {
	person     Person
	keys       []Passkey
	invitation Invitation
	hash       []byte
	signIns    []uint32 // the counters seen
}

func (s *shelf) Person(_ context.Context, id uuid.UUID) (Person, error) { return s.person, nil }
func (s *shelf) Passkeys(context.Context, uuid.UUID) ([]Passkey, error) { return s.keys, nil }
func (s *shelf) Passkey(_ context.Context, id []byte) (Passkey, error) {
	for _, k := range s.keys {
		if bytes.Equal(k.ID, id) {
			return k, nil
		}
	}
	return Passkey{}, fault.New(fault.NotFound, "passkey_not_found", "no", "no")
}
func (s *shelf) SignedIn(_ context.Context, _ []byte, count uint32, _ time.Time) error {
	s.signIns = append(s.signIns, count)
	return nil
}
func (s *shelf) Invitation(_ context.Context, hash []byte) (Invitation, error) {
	if !bytes.Equal(hash, s.hash) {
		return Invitation{}, UnknownInvitation()
	}
	return s.invitation, nil
}
func (s *shelf) Redeem(_ context.Context, _ []byte, k Passkey, now time.Time) error {
	s.keys, s.invitation.UsedAt = append(s.keys, k), &now
	return nil
}

type passkeyBench struct {
	*Passkeys
	*shelf
	*clock
	token    string
	software *Software
}

func newPasskeyBench(t testing.TB, rp approval.Relying) *passkeyBench {
	t.Helper()
	b := &passkeyBench{clock: &clock{t: start}, shelf: &shelf{
		person: Person{ID: uuid.MustParse("01912d68-783e-7a03-8467-5661c1243ad4"), Name: "ana", DisplayName: "Ana Ruiz", Roles: []Role{Approver}},
	}}
	b.invite()
	var err error
	if b.Passkeys, err = NewPasskeys(rp, b.shelf, b.clock.now); err != nil {
		t.Fatal(err)
	}
	if b.software, err = OpenSoftware(filepath.Join(t.TempDir(), "passkeys.json")); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *passkeyBench) invite() {
	b.token, b.hash = NewInvitation()
	b.invitation = Invitation{Person: b.person.ID, CreatedBy: "operator:test", ExpiresAt: b.clock.now().Add(InvitationLife)}
}

func (b *passkeyBench) enrol(t testing.TB) {
	t.Helper()
	_, options, state, err := b.BeginEnrolment(t.Context(), b.token)
	if err != nil {
		t.Fatal(err)
	}
	credential, err := b.software.Of("ana").Create(options, origin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.FinishEnrolment(t.Context(), b.token, state, credential, "ana's phone"); err != nil {
		t.Fatal(err)
	}
}

// device is an authenticator behind a browser.
type device interface {
	Create(options []byte, origin string) ([]byte, error)
	Get(options []byte, origin string) ([]byte, error)
}

// virtual is an authenticator written by others, so that the server is not only
// tested against our own reading of WebAuthn. Its RSA key covers RS256 too.
type virtual struct {
	auth virtualwebauthn.Authenticator
	cred virtualwebauthn.Credential
}

func newVirtual() *virtual {
	return &virtual{auth: virtualwebauthn.NewAuthenticator(), cred: virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeRSA)}
}

func (v *virtual) Create(options []byte, origin string) ([]byte, error) {
	o, err := virtualwebauthn.ParseAttestationOptions(string(options))
	if err != nil {
		return nil, err
	}
	v.auth.Options.UserHandle = []byte(o.UserID)
	rp := virtualwebauthn.RelyingParty{ID: o.RelyingPartyID, Origin: origin}
	return []byte(virtualwebauthn.CreateAttestationResponse(rp, v.auth, v.cred, *o)), nil
}

func (v *virtual) Get(options []byte, origin string) ([]byte, error) {
	o, err := virtualwebauthn.ParseAssertionOptions(string(options))
	if err != nil {
		return nil, err
	}
	rp := virtualwebauthn.RelyingParty{ID: o.RelyingPartyID, Origin: origin}
	v.cred.Counter++
	return []byte(virtualwebauthn.CreateAssertionResponse(rp, v.auth, v.cred, *o)), nil
}

func TestEnrolSignInAndVote(t *testing.T) {
	for name, newDevice := range map[string]func(b *passkeyBench) device{
		"software": func(b *passkeyBench) device { return b.software.Of("ana") },
		"virtual":  func(b *passkeyBench) device { return newVirtual() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newPasskeyBench(t, dev)
			d := newDevice(b)

			invited, options, state, err := b.BeginEnrolment(t.Context(), b.token)
			if err != nil || invited.ID != b.person.ID {
				t.Fatalf("%v, %v", invited, err)
			}
			credential, err := d.Create(options, origin)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.FinishEnrolment(t.Context(), b.token, state, credential, "ana's phone"); err != nil {
				t.Fatal(err)
			}
			key := b.keys[0]
			if key.Person != b.person.ID || key.Label != "ana's phone" || key.Software != (name == "software") || !key.CreatedAt.Equal(start) {
				t.Fatalf("enrolled %+v", key)
			}

			options, state, err = b.BeginSignIn()
			if err != nil {
				t.Fatal(err)
			}
			if credential, err = d.Get(options, origin); err != nil {
				t.Fatal(err)
			}
			who, err := b.FinishSignIn(t.Context(), state, credential)
			if err != nil || who.ID != b.person.ID || len(b.signIns) != 1 {
				t.Fatalf("%v, %v, %v", who, err, b.signIns)
			}

			digest, nonce := approval.DigestOf([]byte("{}")), bytes.Repeat([]byte{7}, approval.NonceSize)
			options = VoteOptions(dev, approval.Challenge(nonce, approval.Approve, digest), [][]byte{key.ID})
			if credential, err = d.Get(options, origin); err != nil {
				t.Fatal(err)
			}
			a, err := ParseAssertion(credential)
			if err != nil || !bytes.Equal(a.Passkey, key.ID) || !bytes.Equal(a.UserHandle, b.person.ID[:]) {
				t.Fatalf("%+v, %v", a, err)
			}
			vote := approval.Vote{Person: b.person.ID.String(), Passkey: a.Passkey, Decision: approval.Approve, Nonce: nonce,
				AuthenticatorData: a.AuthenticatorData, ClientData: a.ClientData, Signature: a.Signature}
			known := approval.Passkey{ID: key.ID, PublicKey: key.PublicKey, Software: key.Software}
			if err := approval.CheckAssertion(vote, known, digest, dev); err != nil {
				t.Fatal(err)
			}
			vote.Decision = approval.Reject
			if approval.CheckAssertion(vote, known, digest, dev) == nil {
				t.Fatal("a signed approval counts as a rejection")
			}
		})
	}
}

// The options go to browsers word by word; a missing requirement there would let an
// authenticator skip the PIN, or make a passkey that cannot sign in by itself.
func TestOptions(t *testing.T) {
	b := newPasskeyBench(t, dev)
	b.enrol(t)
	gone := start
	revoked := b.keys[0]
	revoked.ID, revoked.RevokedAt = []byte("revoked"), &gone
	b.keys = append(b.keys, revoked)
	b.invite()
	_, creation, _, err := b.BeginEnrolment(t.Context(), b.token)
	if err != nil {
		t.Fatal(err)
	}
	request, _, err := b.BeginSignIn()
	if err != nil {
		t.Fatal(err)
	}
	id := base64.RawURLEncoding.EncodeToString(b.keys[0].ID)
	for _, c := range []struct {
		name, got string
		want      []string
	}{
		{"creation", string(creation), []string{
			`"rp":{"name":"Sluice","id":"localhost"}`, `"user":{"name":"ana","displayName":"Ana Ruiz","id":"AZEtaHg-egOEZ1ZhwSQ61A"}`,
			`"pubKeyCredParams":[{"type":"public-key","alg":-8},{"type":"public-key","alg":-7},{"type":"public-key","alg":-257}]`,
			`"excludeCredentials":[{"type":"public-key","id":"` + id + `","transports":["internal"]}]`,
			`"requireResidentKey":true,"residentKey":"required","userVerification":"required"`, `"attestation":"none"`, `"timeout":300000`,
		}},
		{"sign-in", string(request), []string{`"rpId":"localhost"`, `"userVerification":"required"`, `"timeout":300000`}},
		{"vote", string(VoteOptions(dev, []byte("challenge"), [][]byte{b.keys[0].ID})), []string{
			`{"challenge":"Y2hhbGxlbmdl","timeout":300000,"rpId":"localhost","allowCredentials":[{"type":"public-key","id":"` + id + `"}],"userVerification":"required"}`,
		}},
	} {
		for _, want := range c.want {
			if !strings.Contains(c.got, want) {
				t.Errorf("%s: %s\nlacks %s", c.name, c.got, want)
			}
		}
	}
	if strings.Contains(string(request), "allowCredentials") {
		t.Error("sign-in names credentials: it would tell strangers who is here")
	}
}

func TestSignInRefuses(t *testing.T) {
	type attempt struct {
		b          *passkeyBench
		options    json.RawMessage
		state      []byte
		credential []byte
	}
	get := func(t *testing.T, a *attempt, d device, origin string) {
		t.Helper()
		var err error
		if a.credential, err = d.Get(a.options, origin); err != nil {
			t.Fatal(err)
		}
	}
	again := func(t *testing.T, a *attempt) {
		t.Helper()
		var err error
		if a.options, a.state, err = a.b.BeginSignIn(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, code string
		spoil      func(t *testing.T, a *attempt)
	}{
		{"wrong origin", "passkey_refused", func(t *testing.T, a *attempt) { get(t, a, a.b.software.Of("ana"), "http://localhost:9999") }},
		{"an older challenge (replay)", "passkey_refused", again},
		{"tampered client data", "passkey_refused", func(t *testing.T, a *attempt) {
			a.credential = edit(t, a.credential, "clientDataJSON", func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"crossOrigin":false`), []byte(`"crossOrigin":false,"x":1`), 1)
			})
		}},
		{"made inside a frame of another site", "passkey_refused", func(t *testing.T, a *attempt) {
			a.credential = edit(t, a.credential, "clientDataJSON", func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"crossOrigin":false`), []byte(`"crossOrigin":true`), 1)
			})
		}},
		{"tampered flags", "passkey_refused", func(t *testing.T, a *attempt) {
			a.credential = edit(t, a.credential, "authenticatorData", func(b []byte) []byte { b[32] &^= 0x04; return b })
		}},
		{"another person's handle", "passkey_refused", func(t *testing.T, a *attempt) {
			a.credential = edit(t, a.credential, "userHandle", func(b []byte) []byte { b[0]++; return b })
		}},
		{"no handle", "passkey_refused", func(t *testing.T, a *attempt) {
			a.credential = edit(t, a.credential, "userHandle", func([]byte) []byte { return nil })
		}},
		{"another passkey's key", "passkey_refused", func(t *testing.T, a *attempt) {
			other := newPasskeyBench(t, dev)
			other.enrol(t)
			a.b.keys[0].PublicKey = other.keys[0].PublicKey
		}},
		{"backup eligibility changed", "passkey_refused", func(t *testing.T, a *attempt) { a.b.keys[0].BackupEligible = true }},
		{"unknown passkey", "passkey_unknown", func(t *testing.T, a *attempt) { a.b.keys = nil }},
		{"revoked passkey", "passkey_revoked", func(t *testing.T, a *attempt) { a.b.keys[0].RevokedAt = &a.b.clock.t }},
		{"disabled person", "person_disabled", func(t *testing.T, a *attempt) { a.b.person.Disabled = true }},
		{"no ceremony", "ceremony_expired", func(t *testing.T, a *attempt) { a.state = nil }},
		{"the ceremony of an enrolment", "ceremony_expired", func(t *testing.T, a *attempt) {
			a.b.invite()
			var err error
			if _, _, a.state, err = a.b.BeginEnrolment(t.Context(), a.b.token); err != nil {
				t.Fatal(err)
			}
		}},
		{"too late", "ceremony_expired", func(t *testing.T, a *attempt) { a.b.add(ceremonyLife) }},
		{"no JSON", "credential_malformed", func(t *testing.T, a *attempt) { a.credential = []byte("{") }},
		{"oversized", "credential_malformed", func(t *testing.T, a *attempt) {
			a.credential = append(a.credential, bytes.Repeat([]byte(" "), maxCredentialBytes)...)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &attempt{b: newPasskeyBench(t, dev)}
			a.b.enrol(t)
			again(t, a)
			get(t, a, a.b.software.Of("ana"), origin)
			c.spoil(t, a)
			who, err := a.b.FinishSignIn(t.Context(), a.state, a.credential)
			if !fault.Is(err, c.code) || who.ID != uuid.Nil || len(a.b.signIns) != 0 {
				t.Fatalf("got %v, %v, %v; want %s", who, err, a.b.signIns, c.code)
			}
		})
	}
}

// An authenticator that skipped the PIN signs that it did; unlike a flipped flag,
// the signature is good.
func TestUserVerificationIsRequired(t *testing.T) {
	b := newPasskeyBench(t, dev)
	d := newVirtual()
	d.auth.Options.UserNotVerified = true
	_, options, state, err := b.BeginEnrolment(t.Context(), b.token)
	if err != nil {
		t.Fatal(err)
	}
	credential, err := d.Create(options, origin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.FinishEnrolment(t.Context(), b.token, state, credential, ""); !fault.Is(err, "passkey_refused") || len(b.keys) != 0 {
		t.Fatalf("enrolled without verification: %v", err)
	}

	d.auth.Options.UserNotVerified = false
	if credential, err = d.Create(options, origin); err != nil {
		t.Fatal(err)
	}
	if _, err := b.FinishEnrolment(t.Context(), b.token, state, credential, ""); err != nil {
		t.Fatal(err)
	}
	d.auth.Options.UserNotVerified = true
	if options, state, err = b.BeginSignIn(); err != nil {
		t.Fatal(err)
	}
	if credential, err = d.Get(options, origin); err != nil {
		t.Fatal(err)
	}
	if _, err := b.FinishSignIn(t.Context(), state, credential); !fault.Is(err, "passkey_refused") {
		t.Fatalf("signed in without verification: %v", err)
	}
}

func TestEnrolmentRefuses(t *testing.T) {
	for _, c := range []struct {
		name, code string
		rp         approval.Relying
		origin     string
		label      string
		spoil      func(b *passkeyBench)
	}{
		{name: "wrong origin", code: "passkey_refused", origin: "http://localhost:9999"},
		{name: "software outside dev", code: "passkey_software", rp: approval.Relying{ID: "localhost", Origins: []string{origin}}},
		{name: "used meanwhile", code: "invitation_used", spoil: func(b *passkeyBench) { b.invitation.UsedAt = &b.clock.t }},
		{name: "expired meanwhile", code: "invitation_expired", spoil: func(b *passkeyBench) { b.invitation.ExpiresAt = start }},
		{name: "person left meanwhile", code: "person_disabled", spoil: func(b *passkeyBench) { b.person.Disabled = true }},
		{name: "another person's ceremony", code: "passkey_refused", spoil: func(b *passkeyBench) { b.person.ID[0]++ }},
		{name: "another invitation", code: "invitation_unknown", spoil: func(b *passkeyBench) { b.token, _ = NewInvitation() }},
		{name: "a token cut short", code: "invitation_unknown", spoil: func(b *passkeyBench) { b.token = b.token[:42] }},
		{name: "too late", code: "ceremony_expired", spoil: func(b *passkeyBench) { b.add(ceremonyLife) }},
		{name: "a label that hides", code: "text_malformed", label: "phone\u202e"},
		{name: "a label that Postgres cannot take", code: "text_malformed", label: "a\x00b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.rp.ID == "" {
				c.rp = dev
			}
			if c.origin == "" {
				c.origin = origin
			}
			b := newPasskeyBench(t, c.rp)
			_, options, state, err := b.BeginEnrolment(t.Context(), b.token)
			if err != nil {
				t.Fatal(err)
			}
			credential, err := b.software.Of("ana").Create(options, c.origin)
			if err != nil {
				t.Fatal(err)
			}
			if c.spoil != nil {
				c.spoil(b)
			}
			if _, err := b.FinishEnrolment(t.Context(), b.token, state, credential, c.label); !fault.Is(err, c.code) || len(b.keys) != 0 {
				t.Fatalf("got %v, want %s", err, c.code)
			}
		})
	}
}

func TestSoftwarePasskeyCannotSignInOutsideDev(t *testing.T) {
	b := newPasskeyBench(t, dev)
	b.enrol(t)
	strict, err := NewPasskeys(approval.Relying{ID: "localhost", Origins: []string{origin}}, b.shelf, b.clock.now)
	if err != nil {
		t.Fatal(err)
	}
	options, state, err := strict.BeginSignIn()
	if err != nil {
		t.Fatal(err)
	}
	credential, err := b.software.Of("ana").Get(options, origin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := strict.FinishSignIn(t.Context(), state, credential); !fault.Is(err, "passkey_software") {
		t.Fatalf("got %v", err)
	}
}

func TestNewPasskeysRefusesAnAddress(t *testing.T) {
	for _, rp := range []approval.Relying{{ID: "127.0.0.1", Origins: []string{origin}}, {ID: "localhost"}, {Origins: []string{origin}}} {
		if _, err := NewPasskeys(rp, &shelf{}, time.Now); !fault.Is(err, "relying_party") {
			t.Errorf("%+v: %v", rp, err)
		}
	}
}

func TestSoftwareKeepsItsFile(t *testing.T) {
	b := newPasskeyBench(t, dev)
	b.enrol(t)
	info, err := os.Stat(b.software.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	reopened, err := OpenSoftware(b.software.path)
	if err != nil {
		t.Fatal(err)
	}
	options, state, err := b.BeginSignIn()
	if err != nil {
		t.Fatal(err)
	}
	credential, err := reopened.Of("ana").Get(options, origin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.FinishSignIn(t.Context(), state, credential); err != nil {
		t.Fatal(err)
	}
	if _, err := reopened.Of("ben").Get(options, origin); err == nil {
		t.Fatal("ben signs with ana's passkey")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(b.software.path), "*")); len(left) != 1 {
		t.Fatalf("files left behind: %v", left)
	}

	if err := os.WriteFile(b.software.path, []byte(`{"ana":[{"private_key":"c2VjcmV0`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSoftware(b.software.path); err == nil || strings.Contains(err.Error(), "c2Vj") {
		t.Fatalf("damaged file: %v", err)
	}
}

func TestSoftwareActsAsAnAuthenticator(t *testing.T) {
	b := newPasskeyBench(t, dev)
	b.enrol(t)
	b.invite()
	_, options, _, err := b.BeginEnrolment(t.Context(), b.token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.software.Of("ana").Create(options, origin); err == nil {
		t.Fatal("made a second passkey though the first is excluded")
	}
	// The server has lost its data, the file is still there: the new passkey replaces the old.
	b.keys = nil
	old := b.software.keys["ana"][0].ID
	b.enrol(t)
	if kept := b.software.keys["ana"]; len(kept) != 1 || bytes.Equal(kept[0].ID, old) {
		t.Fatalf("%d passkeys kept", len(kept))
	}
	if _, err := b.software.Of("ana").Get(VoteOptions(dev, make([]byte, 32), [][]byte{old}), origin); err == nil {
		t.Fatal("signed with a passkey that was not asked for")
	}
}

func TestSoftwareRefusesRealSites(t *testing.T) {
	b := newPasskeyBench(t, dev)
	b.enrol(t)
	b.keys = nil // so that nothing is excluded
	b.invite()
	_, creation, _, err := b.BeginEnrolment(t.Context(), b.token)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ rpID, origin string }{
		{"pay.example.com", "https://pay.example.com"},
		{"localhost.example.com", "https://localhost.example.com"},
		{"notlocalhost", "http://notlocalhost"},
		{"", origin},
		{"localhost", "https://pay.example.com"},
		{"localhost", "https://localhost.example.com"},
		{"localhost", "http://127.0.0.1:8080"},
		{"localhost", "localhost"},
	} {
		rp := approval.Relying{ID: c.rpID}
		if _, err := b.software.Of("ana").Get(VoteOptions(rp, make([]byte, 32), nil), c.origin); err == nil {
			t.Errorf("Get signed for %q at %q", c.rpID, c.origin)
		}
		options := bytes.Replace(creation, []byte(`"id":"localhost"`), []byte(`"id":"`+c.rpID+`"`), 1)
		if _, err := b.software.Of("ana").Create(options, c.origin); err == nil {
			t.Errorf("Create made a passkey for %q at %q", c.rpID, c.origin)
		}
	}
}

func TestParseAssertionRefuses(t *testing.T) {
	b := newPasskeyBench(t, dev)
	b.enrol(t)
	credential, err := b.software.Of("ana").Get(VoteOptions(dev, make([]byte, 32), nil), origin)
	if err != nil {
		t.Fatal(err)
	}
	long := func(n int) func([]byte) []byte {
		return func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), n)...) }
	}
	for name, bad := range map[string][]byte{
		"nothing":               nil,
		"a list":                []byte("[]"),
		"null":                  []byte("null"),
		"trailing data":         append(slices.Clone(credential), "{}"...),
		"cut short":             credential[:len(credential)-1],
		"rawId differs":         bytes.Replace(credential, []byte(`"rawId":"`), []byte(`"rawId":"AAAA`), 1),
		"another type":          bytes.Replace(credential, []byte(`"public-key"`), []byte(`"password"`), 1),
		"numbers for bytes":     bytes.Replace(credential, []byte(`"signature":"`), []byte(`"signature":1,"x":"`), 1),
		"no signature":          edit(t, credential, "signature", func([]byte) []byte { return nil }),
		"no client data":        edit(t, credential, "clientDataJSON", func([]byte) []byte { return nil }),
		"short auth data":       edit(t, credential, "authenticatorData", func(b []byte) []byte { return b[:36] }),
		"fat auth data":         edit(t, credential, "authenticatorData", long(maxAuthDataBytes)),
		"fat client data":       edit(t, credential, "clientDataJSON", long(maxClientDataBytes)),
		"fat signature":         edit(t, credential, "signature", long(maxSignatureBytes)),
		"fat handle":            edit(t, credential, "userHandle", long(maxHandleBytes)),
		"oversized":             append(slices.Clone(credential), bytes.Repeat([]byte(" "), maxCredentialBytes)...),
		"client data not UTF-8": edit(t, credential, "clientDataJSON", func([]byte) []byte { return []byte("\xff\xfe") }),
	} {
		if _, err := ParseAssertion(bad); !fault.Is(err, "credential_malformed") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// edit changes one base64url field of a credential's response.
func edit(t testing.TB, credential []byte, field string, change func([]byte) []byte) []byte {
	t.Helper()
	var c map[string]any
	if err := json.Unmarshal(credential, &c); err != nil {
		t.Fatal(err)
	}
	response := c["response"].(map[string]any)
	value, err := base64.RawURLEncoding.DecodeString(response[field].(string))
	if err != nil {
		t.Fatal(err)
	}
	response[field] = base64.RawURLEncoding.EncodeToString(change(value))
	edited, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return edited
}

// Whatever arrives, ParseAssertion answers with a fault or with parts within bounds.
func FuzzParseAssertion(f *testing.F) {
	b := newPasskeyBench(f, dev)
	b.enrol(f)
	credential, err := b.software.Of("ana").Get(VoteOptions(dev, make([]byte, 32), nil), origin)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(credential)
	f.Add([]byte(`{"id":"AA","rawId":"AA","type":"public-key","response":{}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, in []byte) {
		a, err := ParseAssertion(in)
		if err != nil {
			if !fault.Is(err, "credential_malformed") {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		if len(a.Passkey) == 0 || len(a.Passkey) > maxIDBytes || len(a.AuthenticatorData) < 37 || len(a.AuthenticatorData) > maxAuthDataBytes ||
			len(a.ClientData) > maxClientDataBytes || len(a.Signature) == 0 || len(a.Signature) > maxSignatureBytes || len(a.UserHandle) > maxHandleBytes {
			t.Fatalf("%q gave %+v", in, a)
		}
	})
}

func TestPersonCheck(t *testing.T) {
	ok := Person{Name: "ana", DisplayName: "Ana Ruiz", Roles: []Role{Approver}}
	if err := ok.Check(); err != nil {
		t.Fatal(err)
	}
	for code, changes := range map[string][]func(*Person){
		"name_malformed": {func(p *Person) { p.Name = "" }, func(p *Person) { p.Name = "Ana" }},
		"text_malformed": {func(p *Person) { p.DisplayName = "" }, func(p *Person) { p.DisplayName = strings.Repeat("a", 101) }},
		"role_unknown":   {func(p *Person) { p.Roles = []Role{"root"} }},
	} {
		for _, change := range changes {
			p := ok
			change(&p)
			if err := p.Check(); !fault.Is(err, code) {
				t.Errorf("%+v: got %v, want %s", p, err, code)
			}
		}
	}
	if !ok.Can(Approver) || ok.Can(Admin) {
		t.Error("roles are mixed up")
	}
	ok.Disabled = true
	if ok.Can(Approver) {
		t.Error("someone who has left can still approve")
	}
}
