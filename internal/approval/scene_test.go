package approval_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"

	"sluice/internal/approval"
	"sluice/internal/canonical"
)

// now is the moment of every play.
var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

const origin = "https://sluice.example.com"

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// authenticator is a passkey with its private half, built from WebAuthn 2 sections
// 5.8.1, 6.1 and 6.5.1.1 and not from the code under test.
type authenticator struct {
	id   []byte
	cose []byte
	sign func(message []byte) []byte
}

func es256(name string) authenticator {
	return es256Of(name, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))
}

func es256Of(name string, key *ecdsa.PrivateKey) authenticator {
	point := must(key.PublicKey.Bytes()) // 0x04, X, Y
	return authenticator{
		id: []byte("es256 of " + name),
		cose: must(webauthncbor.Marshal(webauthncose.EC2PublicKeyData{
			PublicKeyData: webauthncose.PublicKeyData{KeyType: int64(webauthncose.EllipticKey), Algorithm: int64(webauthncose.AlgES256)},
			Curve:         int64(webauthncose.P256), XCoord: point[1:33], YCoord: point[33:]})),
		sign: func(message []byte) []byte {
			h := sha256.Sum256(message)
			return must(key.Sign(nil, h[:], crypto.SHA256)) // no randomness: the same message has the same signature
		},
	}
}

func eddsa(name string) authenticator {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	return eddsaOf(name, must(private, err))
}

func eddsaOf(name string, private ed25519.PrivateKey) authenticator {
	return authenticator{
		id: []byte("eddsa of " + name),
		cose: must(webauthncbor.Marshal(webauthncose.OKPPublicKeyData{
			PublicKeyData: webauthncose.PublicKeyData{KeyType: int64(webauthncose.OctetKey), Algorithm: int64(webauthncose.AlgEdDSA)},
			Curve:         int64(webauthncose.Ed25519), XCoord: private.Public().(ed25519.PublicKey)})),
		sign: func(message []byte) []byte { return ed25519.Sign(private, message) },
	}
}

// rsaKey is made once: making one takes longer than all the plays together.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })

func rs256(name string) authenticator {
	key := rsaKey()
	return authenticator{
		id: []byte("rs256 of " + name),
		cose: must(webauthncbor.Marshal(webauthncose.RSAPublicKeyData{
			PublicKeyData: webauthncose.PublicKeyData{KeyType: int64(webauthncose.RSAKey), Algorithm: int64(webauthncose.AlgRS256)},
			Modulus:       key.N.Bytes(), Exponent: big.NewInt(int64(key.E)).FillBytes(make([]byte, 3))})),
		sign: func(message []byte) []byte {
			h := sha256.Sum256(message)
			return must(rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, h[:]))
		},
	}
}

// The cast. Ana, Bo and Cy are approvers with keys of three kinds; Dee is an admin
// who may not approve.
var cast = sync.OnceValue(func() map[string]authenticator {
	return map[string]authenticator{
		"ana": es256("ana"), "bo": eddsa("bo"), "cy": rs256("cy"), "dee": es256("dee"), "eve": es256("eve"), "fay": es256("fay"),
	}
})

// gesture is all that goes into one assertion. Plays change it before it is signed.
type gesture struct {
	nonce     []byte
	decision  approval.Decision // as signed
	digest    approval.Digest
	rpID      string
	flags     byte
	challenge string // as the browser writes it
	client    string // clientDataJSON
}

func newNonce() []byte {
	n := make([]byte, approval.NonceSize)
	rand.Read(n)
	return n
}

// vote has a person's authenticator sign a decision. Each change edits the gesture
// before the part after it is made of it.
func (a authenticator) vote(person string, d approval.Decision, digest approval.Digest, changes ...func(*gesture)) approval.Vote {
	g := gesture{nonce: newNonce(), decision: d, digest: digest, rpID: "sluice.example.com", flags: 0x05}
	for _, change := range changes {
		change(&g)
	}
	if g.challenge == "" {
		// By hand, as the architecture writes it: the code must not judge itself.
		h := sha256.Sum256(slices.Concat([]byte("sluice/vote/1"), g.nonce, []byte(g.decision), g.digest[:]))
		g.challenge = base64.RawURLEncoding.EncodeToString(h[:])
	}
	if g.client == "" {
		g.client = `{"type":"webauthn.get","challenge":"CHALLENGE","origin":"` + origin + `","crossOrigin":false}`
	}
	client := []byte(strings.ReplaceAll(g.client, "CHALLENGE", g.challenge))
	rp := sha256.Sum256([]byte(g.rpID))
	data := append(rp[:], g.flags, 0, 0, 0, 7)
	hash := sha256.Sum256(client)
	return approval.Vote{
		Person: person, Passkey: a.id, Decision: d, Nonce: g.nonce, AuthenticatorData: data, ClientData: client,
		Signature: a.sign(slices.Concat(data, hash[:])), CastAt: now.Add(-time.Minute),
	}
}

func seal(requester string, approve, reject int, expires time.Time) []byte {
	return must(canonical.Marshal(canonical.Object{
		"type": "sluice/withdrawal/1", "amount": "25.5", "address": "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8",
		"requester": requester, "quorum": canonical.Object{"approve": approve, "reject": reject},
		"expires_at": expires.UTC().Format("2006-01-02T15:04:05.000Z"),
	}))
}

// scene is the evidence of one play, before any vote.
type scene struct {
	approval.Evidence
	at time.Time
}

func newScene() *scene {
	s := &scene{at: now, Evidence: approval.Evidence{
		Sealed:  seal("client:payroll", 2, 1, now.Add(time.Hour)),
		Relying: approval.Relying{ID: "sluice.example.com", Origins: []string{"https://pay.example.com", origin}},
		Floor:   approval.Quorum{Approve: 2, Reject: 1},
	}}
	for _, name := range []string{"ana", "bo", "cy", "dee", "fay"} {
		s.Roster = append(s.Roster, approval.Person{ID: name, Name: strings.ToUpper(name[:1]) + name[1:], Approver: name != "dee",
			Passkeys: []approval.Passkey{{ID: []byte("an older key")}, {ID: cast()[name].id, PublicKey: cast()[name].cose}}})
	}
	return s
}

func (s *scene) reseal(requester string, approve, reject int, expires time.Time) {
	s.Sealed = seal(requester, approve, reject, expires)
}

func (s *scene) digest() approval.Digest { return approval.DigestOf(s.Sealed) }

func (s *scene) person(name string) *approval.Person {
	return &s.Roster[slices.IndexFunc(s.Roster, func(p approval.Person) bool { return p.ID == name })]
}

func (s *scene) key(name string) *approval.Passkey { return &s.person(name).Passkeys[1] }

// approves and rejects add a person's honest vote, or one that a change bends.
func (s *scene) approves(name string, changes ...func(*gesture)) {
	s.Votes = append(s.Votes, cast()[name].vote(name, approval.Approve, s.digest(), changes...))
}

func (s *scene) rejects(name string) {
	s.Votes = append(s.Votes, cast()[name].vote(name, approval.Reject, s.digest()))
}

func (s *scene) last() *approval.Vote { return &s.Votes[len(s.Votes)-1] }

func (s *scene) verify() approval.Verdict { return approval.Verify(s.Evidence, s.at) }

// tale tells a verdict, for messages.
func tale(v approval.Verdict) string {
	return fmt.Sprintf("%s; for %v, against %v, missing %d; ignored %q; faults %q", v.Standing, v.Approvals, v.Rejections, v.Missing, v.Ignored, v.Faults)
}
