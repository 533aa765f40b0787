package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
)

// softwareAAGUID is the model number by which enrolment knows a software passkey
// and marks it, so that it counts nowhere outside `sluice dev`.
var softwareAAGUID = [16]byte([]byte("sluice-software!"))

// Software holds the passkeys of the demo people of `sluice dev` in a file. It
// speaks to the server as a browser does, so the demo walks the same path as
// production. It is safe for concurrent use.
type Software struct {
	path string

	mu   sync.Mutex
	keys map[string][]softKey // by person's name
}

type softKey struct {
	ID         []byte `json:"id"`
	RelyingID  string `json:"rp_id"`
	UserHandle []byte `json:"user_handle"`
	PrivateKey []byte `json:"private_key"` // P-256 scalar
}

// OpenSoftware reads the file at path; a missing file holds nobody.
func OpenSoftware(path string) (*Software, error) {
	s := &Software{path: path, keys: map[string][]softKey{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("software passkeys: %w", err)
	}
	if err := json.Unmarshal(b, &s.keys); err != nil {
		// Not wrapped: a JSON error can quote what it read, and that is private keys.
		return nil, fmt.Errorf("software passkeys: %s is damaged; remove it and start with --fresh", path)
	}
	return s, nil
}

// save writes the file whole and then puts it in its place, readable by its owner alone.
func (s *Software) save() error {
	b, err := json.MarshalIndent(s.keys, "", "  ")
	if err != nil {
		return fmt.Errorf("software passkeys: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), ".passkeys-*") // mode 0600
	if err != nil {
		return fmt.Errorf("software passkeys: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), s.path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("software passkeys: %w", err)
	}
	return nil
}

// Of returns a person's authenticator; it is empty until Create.
func (s *Software) Of(name string) *Authenticator { return &Authenticator{software: s, name: name} }

// Authenticator is one demo person's software authenticator, behind a browser.
type Authenticator struct {
	software *Software
	name     string
}

// Create makes a passkey for creation options and returns the credential in the
// JSON form of a browser. A passkey for the same site and user is replaced, as
// authenticators do.
func (a *Authenticator) Create(options []byte, origin string) ([]byte, error) {
	var o protocol.PublicKeyCredentialCreationOptions
	if err := json.Unmarshal(options, &o); err != nil {
		return nil, fmt.Errorf("creation options: %w", err)
	}
	if err := devOnly(o.RelyingParty.ID, origin); err != nil {
		return nil, err
	}
	es256 := func(p protocol.CredentialParameter) bool { return p.Algorithm == webauthncose.AlgES256 }
	if !slices.ContainsFunc(o.Parameters, es256) {
		return nil, errors.New("creation options: the software authenticator makes ES256 keys only")
	}
	text, _ := o.User.ID.(string)
	handle, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(handle) == 0 {
		return nil, errors.New("creation options: no user id")
	}

	a.software.mu.Lock()
	defer a.software.mu.Unlock()
	kept := slices.Clone(a.software.keys[a.name])
	for _, k := range kept {
		if listed(o.CredentialExcludeList, k.ID) {
			return nil, errors.New("this authenticator already holds a passkey of this person")
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make passkey: %w", err)
	}
	scalar, err := private.Bytes()
	if err != nil {
		return nil, fmt.Errorf("make passkey: %w", err)
	}
	point, err := private.PublicKey.Bytes() // 0x04, x, y
	if err != nil {
		return nil, fmt.Errorf("make passkey: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("make passkey: %w", err)
	}
	cose, err := webauthncbor.Marshal(webauthncose.EC2PublicKeyData{
		PublicKeyData: webauthncose.PublicKeyData{KeyType: int64(webauthncose.EllipticKey), Algorithm: int64(webauthncose.AlgES256)},
		Curve:         int64(webauthncose.P256), XCoord: point[1:33], YCoord: point[33:65],
	})
	if err != nil {
		return nil, fmt.Errorf("make passkey: %w", err)
	}
	id := make([]byte, 32)
	rand.Read(id) // never fails

	authData := authenticatorData(o.RelyingParty.ID, protocol.FlagAttestedCredentialData)
	authData = append(authData, softwareAAGUID[:]...)
	authData = binary.BigEndian.AppendUint16(authData, uint16(len(id)))
	authData = append(append(authData, id...), cose...)
	object, err := webauthncbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": authData})
	if err != nil {
		return nil, fmt.Errorf("make passkey: %w", err)
	}

	kept = slices.DeleteFunc(kept, func(k softKey) bool {
		return k.RelyingID == o.RelyingParty.ID && bytes.Equal(k.UserHandle, handle)
	})
	before := a.software.keys[a.name]
	a.software.keys[a.name] = append(kept, softKey{ID: id, RelyingID: o.RelyingParty.ID, UserHandle: handle, PrivateKey: scalar})
	if err := a.software.save(); err != nil {
		a.software.keys[a.name] = before // a key that is lost at the next start must not be enrolled now
		return nil, err
	}
	return credentialJSON(id, protocol.AuthenticatorAttestationResponse{
		AuthenticatorResponse: protocol.AuthenticatorResponse{ClientDataJSON: clientData(protocol.CreateCeremony, o.Challenge, origin)},
		Transports:            []string{string(protocol.Internal)},
		AuthenticatorData:     authData,
		PublicKey:             spki,
		PublicKeyAlgorithm:    int64(webauthncose.AlgES256),
		AttestationObject:     object,
	})
}

// Get answers request options with an assertion in the JSON form of a browser.
// With no allowed credentials it uses the newest passkey of the site.
func (a *Authenticator) Get(options []byte, origin string) ([]byte, error) {
	var o protocol.PublicKeyCredentialRequestOptions
	if err := json.Unmarshal(options, &o); err != nil {
		return nil, fmt.Errorf("request options: %w", err)
	}
	if err := devOnly(o.RelyingPartyID, origin); err != nil {
		return nil, err
	}
	key, ok := a.find(o)
	if !ok {
		return nil, fmt.Errorf("the software authenticator of %s holds no such passkey", a.name)
	}
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), key.PrivateKey)
	if err != nil {
		return nil, errors.New("the software passkey is damaged; start with --fresh")
	}
	authData := authenticatorData(o.RelyingPartyID, 0)
	client := clientData(protocol.AssertCeremony, o.Challenge, origin)
	clientHash := sha256.Sum256(client)
	signed := sha256.Sum256(slices.Concat(authData, clientHash[:]))
	signature, err := ecdsa.SignASN1(rand.Reader, private, signed[:])
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return credentialJSON(key.ID, protocol.AuthenticatorAssertionResponse{
		AuthenticatorResponse: protocol.AuthenticatorResponse{ClientDataJSON: client},
		AuthenticatorData:     authData,
		Signature:             signature,
		UserHandle:            key.UserHandle,
	})
}

func (a *Authenticator) find(o protocol.PublicKeyCredentialRequestOptions) (softKey, bool) {
	a.software.mu.Lock()
	defer a.software.mu.Unlock()
	for _, k := range slices.Backward(a.software.keys[a.name]) {
		if k.RelyingID == o.RelyingPartyID && (len(o.AllowedCredentials) == 0 || listed(o.AllowedCredentials, k.ID)) {
			return k, true
		}
	}
	return softKey{}, false
}

func listed(list []protocol.CredentialDescriptor, id []byte) bool {
	return slices.ContainsFunc(list, func(d protocol.CredentialDescriptor) bool { return bytes.Equal(d.CredentialID, id) })
}

// devOnly refuses every site but the machine's own. The keys lie in a plain file
// and sign whatever they are shown: pointed at a real site by a mistaken setting,
// they would be an approver whom anybody with the file can play.
func devOnly(rpID, origin string) error {
	if rpID != "localhost" && !strings.HasSuffix(rpID, ".localhost") {
		return fmt.Errorf("software passkeys are for localhost, and the site is %q", rpID)
	}
	// The rest of what a browser would refuse.
	u, err := url.Parse(origin)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || (u.Hostname() != rpID && !strings.HasSuffix(u.Hostname(), "."+rpID)) {
		return fmt.Errorf("the origin %q is not of the site %q", origin, rpID)
	}
	return nil
}

// authenticatorData says that a user is present and verified, with a counter of 0
// as synced passkeys have (WebAuthn 2, section 6.1).
func authenticatorData(rpID string, more protocol.AuthenticatorFlags) []byte {
	hash := sha256.Sum256([]byte(rpID))
	flags := protocol.FlagUserPresent | protocol.FlagUserVerified | more
	return append(append(hash[:], byte(flags)), 0, 0, 0, 0)
}

// clientData is what a browser tells the authenticator of the ceremony.
func clientData(kind protocol.CeremonyType, challenge protocol.URLEncodedBase64, origin string) []byte {
	b, err := json.Marshal(struct {
		Type        protocol.CeremonyType     `json:"type"`
		Challenge   protocol.URLEncodedBase64 `json:"challenge"`
		Origin      string                    `json:"origin"`
		CrossOrigin bool                      `json:"crossOrigin"`
	}{kind, challenge, origin, false})
	if err != nil {
		panic(err) // strings, bytes and a bool always encode
	}
	return b
}

func credentialJSON(id protocol.URLEncodedBase64, response any) ([]byte, error) {
	b, err := json.Marshal(map[string]any{
		"id": id, "rawId": id, "type": protocol.PublicKeyCredentialType, "authenticatorAttachment": protocol.Platform,
		"clientExtensionResults": struct{}{}, "response": response,
	})
	if err != nil {
		return nil, fmt.Errorf("write credential: %w", err)
	}
	return b, nil
}
