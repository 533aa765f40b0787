package identity

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sluice/internal/fault"
)

// What a token may be used for.
const (
	ScopeWrite = "withdrawals:write"
	ScopeRead  = "withdrawals:read"
)

var scopes = []string{ScopeRead, ScopeWrite}

const (
	audience      = "sluice"
	maxTokenBytes = 8 << 10
	// MaxTokenLife is the longest that a token may live. A client signs its own
	// tokens, so a short life costs it nothing and bounds what a leaked one is worth.
	MaxTokenLife = time.Hour
	// leeway admits clocks that are a little apart.
	leeway = 30 * time.Second
	// clientAge is how long what is known of a client is believed before it is
	// read again: a client that is disabled can read for so much longer. It
	// cannot write: intake looks at the client's row in the statement that inserts.
	clientAge = 5 * time.Second
	// maxRemembered bounds the memory of verified tokens, about 500 bytes each.
	maxRemembered = 10_000
)

// Client is a program that may ask for withdrawals.
type Client struct {
	Name      string            `db:"name"`
	PublicKey ed25519.PublicKey `db:"public_key"`
	Accounts  []string          `db:"accounts"` // the accounts that it may pay from
	Scopes    []string          `db:"scopes"`   // the most that a token of it can carry
	Disabled  bool              `db:"disabled"`
}

// Actor is the client's name in the record and in withdrawals.
func (c Client) Actor() string { return "client:" + c.Name }

// Check refuses a client that the record could not hold, with a fault of kind Invalid.
func (c Client) Check() error {
	if !validName(c.Name) {
		return badName("client", c.Name)
	}
	if len(c.PublicKey) != ed25519.PublicKeySize {
		return fault.New(fault.Invalid, "key_malformed", "the client's public key is not an Ed25519 key of 32 bytes",
			"give the public half of an Ed25519 key pair").On("public_key")
	}
	for _, s := range c.Scopes {
		if !slices.Contains(scopes, s) {
			return fault.New(fault.Invalid, "scope_unknown", fmt.Sprintf("%q is not a scope", s),
				"use "+strings.Join(scopes, " or ")).On("scopes")
		}
	}
	return nil
}

// Token is what a verified token says, cut down to what its client may do.
type Token struct {
	Client    string
	Scopes    []string // asked for by the token, and granted to the client
	ExpiresAt time.Time
	Key       ed25519.PublicKey // that verified it; intake compares it with the one on record
	Accounts  []string          // the accounts that the client may pay from
}

// Allows tells whether the token may be used for scope.
func (t Token) Allows(scope string) bool { return slices.Contains(t.Scopes, scope) }

// Tokens verifies the tokens of service clients. It is safe for concurrent use.
type Tokens struct {
	lookup func(ctx context.Context, name string) (Client, error)
	now    func() time.Time
	parser *jwt.Parser

	mu       sync.Mutex
	verified map[[sha256.Size]byte]remembered
	known    map[string]knownClient // only clients that exist, so bounded by their table
}

// remembered is a token whose signature was good under key.
type remembered struct {
	client  string
	scopes  []string
	expires time.Time
	key     ed25519.PublicKey
}

type knownClient struct {
	Client
	readAt time.Time
}

// NewTokens makes a verifier. lookup returns a client by name, or a fault of kind
// NotFound.
func NewTokens(lookup func(ctx context.Context, name string) (Client, error), now func() time.Time) *Tokens {
	return &Tokens{
		lookup: lookup,
		now:    now,
		parser: jwt.NewParser(
			// A token signed by HMAC with the public key as its secret, or by nobody
			// ("none"), must not pass, whatever type the key function returns.
			jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
			jwt.WithAudience(audience),
			jwt.WithExpirationRequired(),
			jwt.WithIssuedAt(),
			jwt.WithLeeway(leeway),
			jwt.WithTimeFunc(now),
			jwt.WithStrictDecoding(),
		),
		verified: map[[sha256.Size]byte]remembered{},
		known:    map[string]knownClient{},
	}
}

// Verify returns what a token allows. bearer is what follows "Bearer " in the
// Authorization header. Errors are faults of kind Unauthorized: token_missing,
// token_malformed, token_expired, token_not_yet_valid, token_audience, token_lifetime,
// token_signature, client_disabled; anything else is a failed lookup of the client.
//
// An Ed25519 check costs more than the rest of a read, so a token that verified
// is remembered, by its hash, until it expires. What the client may do is never
// remembered with it.
func (t *Tokens) Verify(ctx context.Context, bearer string) (Token, error) {
	switch {
	case bearer == "":
		return Token{}, unauthorized("token_missing", "the request carries no token",
			"send `Authorization: Bearer …` with a token signed by your client's key")
	case len(bearer) > maxTokenBytes:
		return Token{}, malformed("it is longer than 8 KiB")
	}
	hash := sha256.Sum256([]byte(bearer))
	if r, ok := t.recall(hash); ok {
		c, err := t.client(ctx, r.client)
		if err != nil {
			return Token{}, err
		}
		// A key that was replaced leaves its tokens to the full check, which refuses them.
		if bytes.Equal(c.PublicKey, r.key) {
			return r.token(c)
		}
	}
	r, c, err := t.check(ctx, bearer)
	if err != nil {
		return Token{}, err
	}
	token, err := r.token(c)
	if err == nil {
		t.remember(hash, r)
	}
	return token, err
}

func (r remembered) token(c Client) (Token, error) {
	if c.Disabled {
		return Token{}, unauthorized("client_disabled", "the client "+c.Name+" has been disabled",
			"ask the operators of Sluice whether it should be")
	}
	var granted []string
	for _, s := range scopes {
		if slices.Contains(r.scopes, s) && slices.Contains(c.Scopes, s) {
			granted = append(granted, s)
		}
	}
	return Token{Client: c.Name, Scopes: granted, ExpiresAt: r.expires, Key: r.key, Accounts: slices.Clone(c.Accounts)}, nil
}

// claims is what a token says of itself.
type claims struct {
	Scope string `json:"scope"`
	jwt.RegisteredClaims
}

var errLifetime = errors.New("lives too long")

// Validate is called by the parser, after the signature and the registered claims.
func (c *claims) Validate() error {
	if c.IssuedAt == nil || c.ExpiresAt == nil {
		return jwt.ErrTokenRequiredClaimMissing
	}
	if life := c.ExpiresAt.Sub(c.IssuedAt.Time); life <= 0 || life > MaxTokenLife {
		return errLifetime
	}
	// A token that is good elsewhere too could be replayed here by whoever it
	// was sent to.
	if len(c.Audience) != 1 {
		return jwt.ErrTokenInvalidAudience
	}
	return nil
}

// check does the whole work for a token that is not remembered.
func (t *Tokens) check(ctx context.Context, bearer string) (remembered, Client, error) {
	var (
		said    claims
		client  Client
		refused error // by us, in words of our own, before the signature was looked at
	)
	_, err := t.parser.ParseWithClaims(bearer, &said, func(token *jwt.Token) (any, error) {
		// RFC 7515, 4.1.11: what "crit" names must be understood, and nothing is.
		if _, ok := token.Header["crit"]; ok {
			refused = malformed("its header asks for an extension")
			return nil, refused
		}
		// The name goes to the database, which cannot take every string.
		if !validName(said.Subject) {
			refused = malformed(`its "sub" is not the name of a client`)
			return nil, refused
		}
		client, refused = t.client(ctx, said.Subject)
		return client.PublicKey, refused
	})
	if refused != nil {
		return remembered{}, Client{}, refused
	}
	if err != nil {
		return remembered{}, Client{}, refusal(err)
	}
	return remembered{
		client: client.Name, scopes: strings.Fields(said.Scope),
		expires: said.ExpiresAt.Time, key: client.PublicKey,
	}, client, nil
}

// refusal turns the parser's error into a fault. The signature comes first: only
// whoever holds the client's key learns what else is wrong with a token.
func refusal(err error) error {
	switch {
	case errors.Is(err, jwt.ErrTokenSignatureInvalid), errors.Is(err, jwt.ErrTokenUnverifiable): // the latter: an unknown algorithm
		return badSignature().Because(err)
	case errors.Is(err, jwt.ErrTokenExpired):
		return unauthorized("token_expired", "the token has expired", "sign a new one; a token lives an hour at most")
	case errors.Is(err, jwt.ErrTokenUsedBeforeIssued), errors.Is(err, jwt.ErrTokenNotValidYet):
		return unauthorized("token_not_yet_valid", "the token begins in the future", "set the clock of the machine that signs tokens")
	case errors.Is(err, errLifetime):
		return unauthorized("token_lifetime", "the token lives longer than an hour, or ends before it begins",
			`sign tokens whose "exp" is at most an hour after their "iat"`)
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return unauthorized("token_audience", "the token is not meant for Sluice alone", `sign tokens with "aud": "sluice"`)
	}
	return malformed(`it is no JWT, or lacks one of "sub", "aud", "iat" and "exp"`).Because(err)
}

func unauthorized(code, detail, fix string) *fault.Error {
	return fault.New(fault.Unauthorized, code, detail, fix)
}

func malformed(why string) *fault.Error {
	return unauthorized("token_malformed", "the token cannot be read: "+why,
		`send a JWT signed with EdDSA (Ed25519), with "sub", "aud", "iat", "exp" and "scope"`)
}

// badSignature is also the answer for a client that does not exist: a different
// one would tell anybody on the network which clients there are to steal keys of.
func badSignature() *fault.Error {
	return unauthorized("token_signature", "no client on record signed this token",
		"sign with EdDSA (Ed25519) and the key on record for the client that \"sub\" names; ask the operators of Sluice if you are not sure that it is registered")
}

// client returns a client as it was at most clientAge ago.
func (t *Tokens) client(ctx context.Context, name string) (Client, error) {
	now := t.now()
	t.mu.Lock()
	k, ok := t.known[name]
	t.mu.Unlock()
	if age := now.Sub(k.readAt); ok && age >= 0 && age < clientAge {
		return k.Client, nil
	}
	c, err := t.lookup(ctx, name)
	if e, ok := fault.As(err); ok && e.Kind == fault.NotFound {
		return Client{}, badSignature().Because(err)
	}
	if err != nil {
		return Client{}, fmt.Errorf("look up client: %w", err)
	}
	t.mu.Lock()
	t.known[name] = knownClient{c, now}
	t.mu.Unlock()
	return c, nil
}

func (t *Tokens) recall(hash [sha256.Size]byte) (remembered, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.verified[hash]
	if ok && !r.lives(t.now()) {
		delete(t.verified, hash)
		return remembered{}, false // the full check says so in words
	}
	return r, ok
}

func (r remembered) lives(now time.Time) bool { return now.Before(r.expires.Add(leeway)) }

func (t *Tokens) remember(hash [sha256.Size]byte, r remembered) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.verified) >= maxRemembered {
		t.forget()
	}
	t.verified[hash] = r
}

// forget makes room: expired tokens go, then any until half are left, so that the
// sweep is paid for by thousands of insertions. A forgotten token costs its
// client one more signature check.
func (t *Tokens) forget() {
	now := t.now()
	for h, r := range t.verified {
		if !r.lives(now) {
			delete(t.verified, h)
		}
	}
	for h := range t.verified {
		if len(t.verified) <= maxRemembered/2 {
			return
		}
		delete(t.verified, h)
	}
}

// SignToken makes a token as a client would. lifetime is at most MaxTokenLife.
func SignToken(client string, key ed25519.PrivateKey, scopes []string, now time.Time, lifetime time.Duration) (string, error) {
	if lifetime <= 0 || lifetime > MaxTokenLife {
		return "", fmt.Errorf("sign token: a lifetime of %v is not between 0 and %v", lifetime, MaxTokenLife)
	}
	s, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, &claims{
		Scope: strings.Join(scopes, " "),
		RegisteredClaims: jwt.RegisteredClaims{
			Subject: client, Audience: jwt.ClaimStrings{audience},
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(lifetime)),
		},
	}).SignedString(key)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return s, nil
}
