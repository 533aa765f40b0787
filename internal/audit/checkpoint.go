package audit

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sluice/internal/fault"
)

// maxSize is the largest number of leaves that is believed. It is far beyond any
// log, exact in every JSON reader, and keeps proof arithmetic away from its
// overflow at 2^62, where it would never end.
const maxSize = 1<<53 - 1

// maxNote is the longest signed note that is read, in bytes: a checkpoint and
// some dozens of cosignatures.
const maxNote = 16 << 10

// Checkpoint says what the whole log was at one size.
type Checkpoint struct {
	Origin string // which log, such as "sluice/acme"
	Size   int64  // number of leaves
	Root   tlog.Hash
}

// Text is the checkpoint in the form of C2SP tlog-checkpoint: what is signed.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
}

// NewKey makes the key pair of a log called name, such as "acme". The signer is a
// secret; the verifier is for everybody, and belongs where the database's owner
// cannot change it: printed, in an auditor's files, in another company's.
func NewKey(name string) (signer, verifier string, err error) {
	signer, verifier, err = note.GenerateKey(rand.Reader, "sluice/"+name)
	if err != nil {
		return "", "", fmt.Errorf("make a log key: %w", err)
	}
	if _, err := NewVerifier(verifier); err != nil {
		return "", "", fault.New(fault.Invalid, "audit_key_name", fmt.Sprintf("%q cannot name a log", name),
			"use a short name without spaces and without a plus sign, such as the company's")
	}
	return signer, verifier, nil
}

// Signer signs checkpoints. It holds the secret where printing does not reach.
type Signer struct {
	sign   note.Signer
	verify *Verifier
	text   string
}

// NewSigner reads a signer as NewKey made it. The error never quotes it.
func NewSigner(text string) (*Signer, error) {
	bad := fault.New(fault.Invalid, "audit_key_invalid", "the key that signs checkpoints cannot be read",
		"give the whole line that begins with PRIVATE+KEY+, as it was made")
	text = strings.TrimSpace(text)
	sign, err := note.NewSigner(text)
	if err != nil {
		return nil, bad
	}
	// The library keeps the public half to itself, and a signer that cannot check
	// its own earlier work would bless a rewritten log.
	parts := strings.SplitN(text, "+", 5)
	seed, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(seed) != 1+ed25519.SeedSize {
		return nil, bad
	}
	public, _ := ed25519.NewKeyFromSeed(seed[1:]).Public().(ed25519.PublicKey)
	key, err := note.NewEd25519VerifierKey(sign.Name(), public)
	if err != nil {
		return nil, bad
	}
	verify, err := NewVerifier(key)
	if err != nil {
		return nil, bad
	}
	return &Signer{sign: sign, verify: verify, text: key}, nil
}

// Origin names the log that this signer speaks for.
func (s *Signer) Origin() string { return s.sign.Name() }

// VerifierText is the public half, in the form that NewVerifier reads.
func (s *Signer) VerifierText() string { return s.text }

// Verifier checks what this signer signed.
func (s *Signer) Verifier() *Verifier { return s.verify }

// Sign returns the signed note of a checkpoint.
func (s *Signer) Sign(c Checkpoint) (string, error) {
	b, err := note.Sign(&note.Note{Text: c.Text()}, s.sign)
	if err != nil {
		return "", fmt.Errorf("sign checkpoint: %w", err)
	}
	return string(b), nil
}

// Verifier checks the signatures of one log's checkpoints.
type Verifier struct {
	key   note.Verifier
	known note.Verifiers
}

// NewVerifier reads a verifier key such as "sluice/acme+4c1cc9e5+AZ…".
func NewVerifier(text string) (*Verifier, error) {
	key, err := note.NewVerifier(strings.TrimSpace(text))
	if err != nil {
		return nil, fault.New(fault.Invalid, "audit_verifier_invalid", "the key that checks checkpoints cannot be read",
			"give the whole line as it was published, such as sluice/acme+4c1cc9e5+AZ…").Because(err)
	}
	return &Verifier{key: key, known: note.VerifierList(key)}, nil
}

// Name is the key's name and hash, for people to compare.
func (v *Verifier) Name() string { return fmt.Sprintf("%s+%08x", v.key.Name(), v.key.KeyHash()) }

// Open returns the checkpoint in a signed note, if this log's key signed it.
// Signatures by others are left alone: they are for those who know them.
func (v *Verifier) Open(signed string) (Checkpoint, error) {
	if len(signed) > maxNote {
		return Checkpoint{}, errors.New("the checkpoint is too long to be one")
	}
	n, err := note.Open([]byte(signed), v.known)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("the checkpoint is not signed by %s: %w", v.Name(), err)
	}
	// The library's reader forgives stray bits at the end of base64. One
	// checkpoint has one spelling here.
	for _, s := range append(n.Sigs, n.UnverifiedSigs...) {
		if _, err := base64.StdEncoding.Strict().DecodeString(s.Base64); err != nil {
			return Checkpoint{}, errors.New("a signature of the checkpoint is not in its one written form")
		}
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 3 {
		return Checkpoint{}, errors.New("the checkpoint lacks an origin, a size or a root")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || size > maxSize {
		return Checkpoint{}, errors.New("the checkpoint's size is not a number of leaves")
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return Checkpoint{}, errors.New("the checkpoint's root is not a hash")
	}
	c := Checkpoint{Origin: lines[0], Size: size, Root: root}
	if c.Text() != n.Text || c.Origin != v.key.Name() {
		return Checkpoint{}, errors.New("the checkpoint is of another log, or not in its one written form")
	}
	return c, nil
}
