package web

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/google/uuid"

	"sluice/internal/fault"
	"sluice/internal/identity"
)

const (
	idle     = 30 * time.Minute // without a request by hand
	lifetime = 12 * time.Hour   // however busy
	// ceremony is how long an unfinished sign-in or enrolment is remembered.
	ceremony = 5 * time.Minute
)

// What a session holds.
const (
	keyPerson   = "person"   // id of who signed in
	keySoftware = "software" // they used a demo passkey
	keySignin   = "signin"   // the sign-in under way
	keyEnrol    = "enrol"    // the enrolment under way
)

// liveHeader marks requests that a page makes by itself to stay current.
const liveHeader = "Sluice-Live"

// sessions returns two managers over one store: one for what people do, one for
// what an open page does by itself. A page left open in the evening must not
// keep its session awake all night.
func sessions(store scs.Store, https bool, fail func(http.ResponseWriter, *http.Request, error)) (active, quiet *scs.SessionManager) {
	manager := func() *scs.SessionManager {
		m := scs.New()
		m.Store = store
		m.Lifetime = lifetime
		m.HashTokenInStore = true
		m.ErrorFunc = fail
		m.Cookie.Name = "sluice"
		if https {
			// The prefix makes browsers refuse the cookie unless it is Secure and
			// bound to this very host.
			m.Cookie.Name = "__Host-sluice"
		}
		m.Cookie.Secure = https
		m.Cookie.HttpOnly = true
		m.Cookie.SameSite = http.SameSiteStrictMode
		m.Cookie.Persist = false
		return m
	}
	active, quiet = manager(), manager()
	active.IdleTimeout = idle
	return active, quiet
}

// oneAnswer keeps a page from following its own error: when the session cannot be
// saved, the error is the answer and what the handler still writes is dropped.
type oneAnswer struct {
	http.ResponseWriter
	given bool
}

func (o *oneAnswer) WriteHeader(status int) {
	if !o.given {
		o.ResponseWriter.WriteHeader(status)
	}
}

func (o *oneAnswer) Write(b []byte) (int, error) {
	if o.given {
		return len(b), nil
	}
	return o.ResponseWriter.Write(b)
}

func (o *oneAnswer) Unwrap() http.ResponseWriter { return o.ResponseWriter }

func (s *site) sessionFailed(w http.ResponseWriter, r *http.Request, err error) {
	s.fail(w, r, fmt.Errorf("session: %w", err))
	if o, ok := w.(*oneAnswer); ok {
		o.given = true
	}
}

// viewer is who looks at a page.
type viewer struct {
	identity.Person
	Software bool // signed in with a demo passkey
}

// May lets templates ask for a role by its name.
func (v *viewer) May(role string) bool { return v.Can(identity.Role(role)) }

type contextKey string

const ctxViewer contextKey = "viewer"

// viewerOf is who signed in, or nil.
func viewerOf(r *http.Request) *viewer {
	v, _ := r.Context().Value(ctxViewer).(*viewer)
	return v
}

// withSession finds out who is looking. People are read afresh each time: whoever
// is disabled is out with the next request, not with the end of the session.
func (s *site) withSession(next http.Handler) http.Handler {
	byHand := s.active.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.identify(w, r, s.active, next)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || (r.Header.Get(liveHeader) == "" && r.URL.Path != "/live") {
			byHand.ServeHTTP(&oneAnswer{ResponseWriter: w}, r)
			return
		}
		ctx, err := s.quiet.Load(r.Context(), s.token(r))
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.identify(w, r.WithContext(ctx), s.quiet, next)
	})
}

func (s *site) token(r *http.Request) string {
	c, err := r.Cookie(s.quiet.Cookie.Name)
	if err != nil {
		return ""
	}
	return c.Value
}

func (s *site) identify(w http.ResponseWriter, r *http.Request, m *scs.SessionManager, next http.Handler) {
	v, err := s.who(r.Context(), m)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if v != nil {
		r = r.WithContext(context.WithValue(r.Context(), ctxViewer, v))
	}
	next.ServeHTTP(w, r)
}

// who is the person of a loaded session; nil when nobody signed in, or when they
// have left since.
func (s *site) who(ctx context.Context, m *scs.SessionManager) (*viewer, error) {
	id, err := uuid.Parse(m.GetString(ctx, keyPerson))
	if err != nil {
		return nil, nil
	}
	p, err := s.Store.Person(ctx, id)
	if fault.Is(err, "person_not_found") || (err == nil && p.Disabled) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &viewer{Person: p, Software: m.GetBool(ctx, keySoftware)}, nil
}

// still tells whether the session behind a long connection is alive.
func (s *site) still(ctx context.Context, token string) bool {
	loaded, err := s.quiet.Load(ctx, token)
	if err != nil {
		return false
	}
	v, err := s.who(loaded, s.quiet)
	return err == nil && v != nil
}

// signedIn admits people with a role. Visitors of a page are sent to sign in and
// come back; programs and scripts get a problem.
func (s *site) signedIn(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := viewerOf(r)
		switch {
		case v == nil && (wantsJSON(r) || r.Header.Get(liveHeader) != "" || r.URL.Path == "/live"):
			s.fail(w, r, signedOut)
		case v == nil && r.Method == http.MethodGet:
			http.Redirect(w, r, "/signin?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
		case v == nil:
			s.fail(w, r, signedOut)
		case len(v.Roles) == 0:
			s.fail(w, r, noRole)
		default:
			next(w, r)
		}
	})
}

// enter makes the session that of a person who just proved who they are. The
// token changes: one that was planted before sign-in is worth nothing after it.
func (s *site) enter(ctx context.Context, p identity.Person, software bool) error {
	if err := s.active.Clear(ctx); err != nil {
		return err
	}
	if err := s.active.RenewToken(ctx); err != nil {
		return err
	}
	s.active.SetDeadline(ctx, time.Now().Add(lifetime)) // the sessions' own clock is the wall's
	s.active.Put(ctx, keyPerson, p.ID.String())
	s.active.Put(ctx, keySoftware, software)
	return nil
}

// safeNext is where to go after sign-in: a path of this site, or the start page. What
// looks like a path may still be an address elsewhere ("//host", "/\host").
func safeNext(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" ||
		!strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\t\r\n") ||
		strings.HasPrefix(u.Path, "//") || strings.HasPrefix(u.Path, "/signin") || u.Path == "/live" {
		return "/"
	}
	return u.RequestURI()
}

// loopback tells whether a Host header names this machine by its IP address.
func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.IsLoopback()
}
