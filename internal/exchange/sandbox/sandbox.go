// Package sandbox is a local CoinEx: what a treasury needs of API v2, over HTTP
// and websocket, as an http.Handler for the development stack and for anybody's
// integration tests.
//
// It is the other side of the wire. It shares no code with our own client of
// the exchange, because two ends that share code agree on their mistakes.
// Where CoinEx publishes no answer the sandbox invents one;
// docs/sandbox.md lists every invention.
//
// Withdrawals do not move in the background. They move on when somebody looks,
// as far as the sandbox's clock says they should have moved by then, so a test
// that drives the clock sees the same thing each time. What waits for a moment,
// an idle websocket or a request that arrives late, waits on the same clock.
package sandbox

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// The account and the key that exist in every new sandbox.
const (
	DefaultAccount = "main"
	AccessID       = "sandbox-access-id"
	SecretKey      = "sandbox-secret-key"
)

// Options says how a sandbox behaves. The zero value is a sandbox in memory
// on the real clock whose withdrawals move only by Step or SetStatus.
type Options struct {
	// Now is the clock under the sandbox's own; nil means time.Now.
	Now func() time.Time
	// Auto lets withdrawals move on with the clock, at Pace. Without it they
	// wait for Step.
	Auto bool
	// Pace is how long a withdrawal stays in each status under Auto. A zero
	// duration takes its default; together the defaults make about two seconds.
	Pace Pace
	// StatePath names a JSON file that keeps everything across restarts. It is
	// replaced as a whole after every change. "" keeps everything in memory.
	StatePath string
	// LegacySignatures accepts the plain SHA-256 scheme beside HMAC, which ccxt
	// still sends (facts 1.4).
	LegacySignatures bool
	// NoRateLimit turns off the limits and their headers (facts 5).
	NoRateLimit bool
}

// Pace is how long a withdrawal stays in each status.
type Pace struct {
	AuditRequired, Audited, Processing, Confirming time.Duration
}

// Sandbox is one local CoinEx. It is safe for concurrent use.
type Sandbox struct {
	options Options
	control http.Handler

	mu       sync.Mutex
	state    state
	dirty    bool // state has changes that the file has not
	auto     bool
	limiters map[bucket]*rate.Limiter
	requests map[string]int
	sockets  []*socket // oldest first
	held     int       // requests that accept_late holds back

	deadlines map[*deadline]struct{}
	looked    chan struct{} // closed when the clock may have moved, and made anew
	alive     context.Context
	end       context.CancelFunc
}

// Open makes a sandbox, from its state file if there is one. It fails when
// that file cannot be read or written.
func Open(o Options) (*Sandbox, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Pace = o.Pace.withDefaults()
	s := &Sandbox{
		options:  o,
		state:    newState(),
		dirty:    true,
		auto:     o.Auto,
		limiters: map[bucket]*rate.Limiter{},
		requests: map[string]int{},

		deadlines: map[*deadline]struct{}{},
		looked:    make(chan struct{}),
	}
	s.alive, s.end = context.WithCancel(context.Background())
	s.control = s.controlHandler()
	if o.StatePath != "" {
		if err := s.state.load(o.StatePath); err != nil {
			return nil, err
		}
	}
	// The first save shows at once that the file can be written, not at the
	// first withdrawal.
	if err := s.save(); err != nil {
		return nil, err
	}
	return s, nil
}

// New is Open for a caller that cannot go on without a sandbox: it panics
// when the state file cannot be used. Without a StatePath it always succeeds.
func New(o Options) *Sandbox {
	s, err := Open(o)
	if err != nil {
		panic(err)
	}
	return s
}

// Close drops all websockets and whatever accept_late holds back. Only a
// program that goes on after its sandbox needs it.
func (s *Sandbox) Close() { s.end() }

// ServeHTTP serves CoinEx under /v2/ and the control of the sandbox under
// /_sandbox/. It must sit at the root of its server, because clients sign the
// path beginning with /v2 (facts 1.3).
func (s *Sandbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/v2/spot", r.URL.Path == "/v2/spot/":
		s.serveSocket(w, r, spot)
	case r.URL.Path == "/v2/futures", r.URL.Path == "/v2/futures/":
		s.serveSocket(w, r, futures)
	case strings.HasPrefix(r.URL.Path, "/v2/"):
		s.serveExchange(w, r)
	case strings.HasPrefix(r.URL.Path, "/_sandbox/"):
		s.control.ServeHTTP(w, r)
	default:
		http.NotFound(w, r)
	}
}

// do runs f alone, on a state that is up to date with the clock, and saves
// whatever changed.
func (s *Sandbox) do(f func(now time.Time) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.settle(now)
	err := f(now)
	if len(s.deadlines) > 0 {
		close(s.looked)
		s.looked = make(chan struct{})
	}
	if saveErr := s.save(); saveErr != nil {
		slog.Error("sandbox state not saved", "err", saveErr)
		if err == nil {
			err = saveErr
		}
	}
	return err
}

// now is the time on the exchange's clock.
func (s *Sandbox) now() time.Time {
	return s.options.Now().UTC().Add(time.Duration(s.state.Offset))
}

// deadline is a moment that something waits for.
type deadline struct{ at time.Time }

// deadline makes one, d from now. The caller holds the lock.
func (s *Sandbox) deadline(now time.Time, d time.Duration) *deadline {
	l := &deadline{now.Add(d)}
	s.deadlines[l] = struct{}{}
	return l
}

// wait returns when the exchange's clock has reached the deadline, however the
// clock came there: by itself, or driven. A clock of the caller's own is seen
// to have moved when somebody looks.
func (s *Sandbox) wait(ctx context.Context, l *deadline) error {
	for {
		s.mu.Lock()
		left, looked := l.at.Sub(s.now()), s.looked
		s.mu.Unlock()
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-looked:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
	}
}

// Duration is a time span that JSON spells as Go does: "300ms", "1m30s".
type Duration time.Duration

// MarshalJSON writes the duration as a string.
func (d Duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(d).String())
}

// UnmarshalJSON reads the duration from a string.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	v, err := time.ParseDuration(text)
	*d = Duration(v)
	return err
}
