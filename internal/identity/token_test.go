package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sluice/internal/fault"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clock is a time that moves when told.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// registry is the table of clients.
type registry struct {
	mu      sync.Mutex
	clients map[string]Client
	reads   int
	broken  error
}

func (r *registry) lookup(_ context.Context, name string) (Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads++
	if r.broken != nil {
		return Client{}, r.broken
	}
	c, ok := r.clients[name]
	if !ok {
		return Client{}, fault.New(fault.NotFound, "client_not_found", "no", "no")
	}
	return c, nil
}

func (r *registry) change(name string, f func(*Client)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.clients[name]
	f(&c)
	r.clients[name] = c
}

type tokenBench struct {
	*Tokens
	*clock
	*registry
	key ed25519.PrivateKey // of the client "payroll"
}

func newTokenBench(t testing.TB) *tokenBench {
	t.Helper()
	b := &tokenBench{clock: &clock{t: start}, registry: &registry{clients: map[string]Client{}}}
	b.key = b.enrol(t, "payroll", ScopeWrite, ScopeRead)
	b.Tokens = NewTokens(b.registry.lookup, b.clock.now)
	return b
}

func (b *tokenBench) enrol(t testing.TB, name string, scopes ...string) ed25519.PrivateKey {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b.clients[name] = Client{Name: name, PublicKey: pub, Accounts: []string{"main"}, Scopes: scopes}
	return key
}

func (b *tokenBench) sign(t testing.TB, life time.Duration, scopes ...string) string {
	t.Helper()
	s, err := SignToken("payroll", b.key, scopes, b.clock.now(), life)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// raw signs any claims by any method: what a client with other habits, or an attacker, sends.
func raw(t testing.TB, m jwt.SigningMethod, key any, header, claims map[string]any) string {
	t.Helper()
	token := jwt.NewWithClaims(m, jwt.MapClaims(claims))
	for k, v := range header {
		token.Header[k] = v
	}
	s, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVerify(t *testing.T) {
	b := newTokenBench(t)
	for range 2 { // the second time from memory
		got, err := b.Verify(t.Context(), b.sign(t, time.Hour, ScopeWrite))
		if err != nil {
			t.Fatal(err)
		}
		if got.Client != "payroll" || !got.Allows(ScopeWrite) || got.Allows(ScopeRead) || !got.ExpiresAt.Equal(start.Add(time.Hour)) ||
			!got.Key.Equal(b.key.Public()) || fmt.Sprint(got.Accounts) != "[main]" {
			t.Fatalf("got %+v", got)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	b := newTokenBench(t)
	other := b.enrol(t, "other", ScopeWrite)
	off := b.enrol(t, "off", ScopeWrite)
	b.change("off", func(c *Client) { c.Disabled = true })
	now := start.Unix()
	good := func(change func(c map[string]any)) map[string]any {
		c := map[string]any{"sub": "payroll", "aud": "sluice", "iat": now, "exp": now + 600, "scope": ScopeWrite}
		if change != nil {
			change(c)
		}
		return c
	}
	without := func(k string) map[string]any { return good(func(c map[string]any) { delete(c, k) }) }
	with := func(k string, v any) map[string]any { return good(func(c map[string]any) { c[k] = v }) }
	eddsa := func(claims map[string]any) string { return raw(t, jwt.SigningMethodEdDSA, b.key, nil, claims) }
	whole := eddsa(good(nil))
	parts := strings.Split(whole, ".")
	encode := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

	for _, c := range []struct{ name, token, code string }{
		{"nothing", "", "token_missing"},
		{"not a JWT", "hello", "token_malformed"},
		{"bytes that are no text", "\x00\xff.\x00.\x00", "token_malformed"},
		{"two parts", parts[0] + "." + parts[1], "token_malformed"},
		{"four parts", whole + ".x", "token_malformed"},
		{"claims null", parts[0] + "." + encode("null") + "." + parts[2], "token_malformed"},
		{"oversized", whole + strings.Repeat("A", maxTokenBytes), "token_malformed"},
		{"alg none", raw(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, good(nil)), "token_signature"},
		{"alg None, no signature", encode(`{"alg":"None"}`) + "." + parts[1] + ".", "token_signature"},
		{"HMAC with the public key as secret", raw(t, jwt.SigningMethodHS256, []byte(b.key.Public().(ed25519.PublicKey)), nil, good(nil)), "token_signature"},
		{"another client's key", raw(t, jwt.SigningMethodEdDSA, other, nil, good(nil)), "token_signature"},
		{"a client that nobody knows", eddsa(with("sub", "nobody")), "token_signature"},
		{"tampered claims", parts[0] + "." + encode(`{"sub":"payroll","aud":"sluice","iat":1772366400,"exp":1772366460,"scope":"withdrawals:write"}`) + "." + parts[2], "token_signature"},
		{"tampered signature", parts[0] + "." + parts[1] + "." + encode(strings.Repeat("x", 64)), "token_signature"},
		{"no signature", parts[0] + "." + parts[1] + ".", "token_signature"},
		{"critical header", raw(t, jwt.SigningMethodEdDSA, b.key, map[string]any{"crit": []string{"b64"}, "b64": false}, good(nil)), "token_malformed"},
		{"a name that the database cannot take", eddsa(with("sub", "pay\x00roll")), "token_malformed"},
		{"no sub", eddsa(without("sub")), "token_malformed"},
		{"no exp", eddsa(without("exp")), "token_malformed"},
		{"no iat", eddsa(without("iat")), "token_malformed"},
		{"exp is text", eddsa(with("exp", "tomorrow")), "token_malformed"},
		{"no aud", eddsa(without("aud")), "token_audience"},
		{"wrong aud", eddsa(with("aud", "other")), "token_audience"},
		{"aud for others too", eddsa(with("aud", []string{"sluice", "other"})), "token_audience"},
		{"expired", eddsa(good(func(c map[string]any) { c["iat"], c["exp"] = now-600, now-30 })), "token_expired"},
		{"begins later", eddsa(good(func(c map[string]any) { c["iat"], c["exp"] = now+31, now+600 })), "token_not_yet_valid"},
		{"not before later", eddsa(with("nbf", now+60)), "token_not_yet_valid"},
		{"lives too long", eddsa(with("exp", now+3601)), "token_lifetime"},
		{"lives long, begun long ago", eddsa(good(func(c map[string]any) { c["iat"] = now - 7200 })), "token_lifetime"},
		{"ends before it begins", eddsa(good(func(c map[string]any) { c["iat"], c["exp"] = now+20, now-20 })), "token_lifetime"},
		{"disabled client", raw(t, jwt.SigningMethodEdDSA, off, nil, with("sub", "off")), "client_disabled"},
		{"disabled client, forged", raw(t, jwt.SigningMethodEdDSA, other, nil, with("sub", "off")), "token_signature"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // a refusal is not remembered as something else
				_, err := b.Verify(t.Context(), c.token)
				e, ok := fault.As(err)
				if !ok || e.Kind != fault.Unauthorized || e.Code != c.code {
					t.Fatalf("got %v, want %s", err, c.code)
				}
				if len(c.token) > 20 && strings.Contains(err.Error(), c.token[:20]) {
					t.Fatalf("the error quotes the token: %v", err)
				}
			}
		})
	}
	if len(b.verified) != 0 {
		t.Fatalf("%d refused tokens are remembered", len(b.verified))
	}
}

func TestUnknownClientLooksLikeABadSignature(t *testing.T) {
	b := newTokenBench(t)
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	var said []string
	for _, name := range []string{"payroll", "nobody"} {
		token, err := SignToken(name, stranger, nil, start, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.Verify(t.Context(), token)
		e, _ := fault.As(err)
		said = append(said, string(e.Kind)+e.Code+e.Detail+e.Fix)
	}
	if said[0] != said[1] {
		t.Fatalf("a client that exists is told apart:\n%s\n%s", said[0], said[1])
	}
}

func TestScopesAreCutToTheClients(t *testing.T) {
	b := newTokenBench(t)
	b.change("payroll", func(c *Client) { c.Scopes = []string{ScopeRead} })
	got, err := b.Verify(t.Context(), b.sign(t, time.Hour, ScopeWrite, ScopeRead, "roster:write"))
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got.Scopes) != "[withdrawals:read]" {
		t.Fatalf("scopes %v", got.Scopes)
	}
}

func TestMemoryDiesWithExpiry(t *testing.T) {
	b := newTokenBench(t)
	token := b.sign(t, time.Minute, ScopeRead)
	for _, step := range []time.Duration{0, time.Minute, leeway - time.Second} {
		b.add(step)
		if _, err := b.Verify(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	b.add(time.Second)
	if _, err := b.Verify(t.Context(), token); !fault.Is(err, "token_expired") {
		t.Fatalf("got %v", err)
	}
	if len(b.verified) != 0 {
		t.Fatal("the expired token is still remembered")
	}
}

func TestMemoryKnowsTheClientOfNow(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Client)
		check  func(Token, error) bool
	}{
		{"disabled", func(c *Client) { c.Disabled = true }, func(_ Token, err error) bool { return fault.Is(err, "client_disabled") }},
		{"new key", func(c *Client) { c.PublicKey = make([]byte, 32) }, func(_ Token, err error) bool { return fault.Is(err, "token_signature") }},
		{"scope taken", func(c *Client) { c.Scopes = nil }, func(k Token, err error) bool { return err == nil && !k.Allows(ScopeRead) }},
		{"account taken", func(c *Client) { c.Accounts = nil }, func(k Token, err error) bool { return err == nil && len(k.Accounts) == 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newTokenBench(t)
			token := b.sign(t, time.Hour, ScopeRead)
			if _, err := b.Verify(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			b.change("payroll", c.change)
			b.add(clientAge - 1)
			if got, err := b.Verify(t.Context(), token); err != nil || !got.Allows(ScopeRead) || b.reads != 1 {
				t.Fatalf("read again before it is due: %v, %d reads", err, b.reads)
			}
			b.add(1)
			if got, err := b.Verify(t.Context(), token); !c.check(got, err) {
				t.Fatalf("got %+v, %v", got, err)
			}
		})
	}
}

// A database that does not answer is our trouble. It must not read as a bad token,
// which a client would answer by making new keys.
func TestFailedLookupIsNotTheTokensFault(t *testing.T) {
	b := newTokenBench(t)
	b.broken = errors.New("no connection")
	_, err := b.Verify(t.Context(), b.sign(t, time.Hour, ScopeRead))
	if _, ok := fault.As(err); ok || !errors.Is(err, b.broken) {
		t.Fatalf("got %v", err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	tokens := newTokenBench(t).Tokens
	for i := range maxRemembered*2 + 1 {
		var hash [32]byte
		hash[0], hash[1], hash[2] = byte(i), byte(i>>8), byte(i>>16)
		tokens.remember(hash, remembered{expires: start.Add(time.Hour)})
		if n := len(tokens.verified); n > maxRemembered {
			t.Fatalf("%d tokens after %d", n, i)
		}
		if _, ok := tokens.recall(hash); !ok {
			t.Fatal("the newest token was forgotten")
		}
	}
}

func TestVerifyTogether(t *testing.T) {
	b := newTokenBench(t)
	token := b.sign(t, time.Hour, ScopeRead)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if _, err := b.Verify(t.Context(), token); err != nil {
					t.Error(err)
				}
				b.add(time.Second)
			}
		})
	}
	wg.Wait()
}

func TestSignTokenRefusesLongLives(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	for _, life := range []time.Duration{0, -time.Second, MaxTokenLife + 1} {
		if _, err := SignToken("payroll", key, nil, start, life); err == nil {
			t.Errorf("a life of %v passed", life)
		}
	}
}

func TestClientCheck(t *testing.T) {
	ok := Client{Name: "payroll", PublicKey: make([]byte, 32), Scopes: []string{ScopeRead}}
	if err := ok.Check(); err != nil {
		t.Fatal(err)
	}
	for code, change := range map[string]func(*Client){
		"name_malformed": func(c *Client) { c.Name = "Pay roll" },
		"key_malformed":  func(c *Client) { c.PublicKey = c.PublicKey[:31] },
		"scope_unknown":  func(c *Client) { c.Scopes = []string{"everything"} },
	} {
		c := ok
		change(&c)
		if err := c.Check(); !fault.Is(err, code) {
			t.Errorf("%s: got %v", code, err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	bench := newTokenBench(b)
	token := bench.sign(b, time.Hour, ScopeRead)
	b.Run("remembered", func(b *testing.B) {
		for b.Loop() {
			if _, err := bench.Verify(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("whole", func(b *testing.B) {
		for b.Loop() {
			clear(bench.verified)
			if _, err := bench.Verify(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// Whatever arrives, Verify answers with a fault, and never lets in a token that
// SignToken did not make.
func FuzzVerify(f *testing.F) {
	b := newTokenBench(f)
	good := b.sign(f, time.Hour, ScopeWrite)
	parts := strings.Split(good, ".")
	f.Add(good)
	f.Add("")
	f.Add("..")
	f.Add(parts[0] + "." + parts[1] + ".")
	f.Add("eyJhbGciOiJub25lIn0." + parts[1] + ".")
	f.Add("eyJhbGciOiJIUzI1NiJ9.bnVsbA.AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		_, err := b.Verify(context.Background(), token)
		if err == nil {
			if token != good {
				t.Fatalf("%q passed", token)
			}
			return
		}
		if e, ok := fault.As(err); !ok || e.Kind != fault.Unauthorized || e.Fix == "" {
			t.Fatalf("%q: %v", token, err)
		}
	})
}
