// Package web is what people see: sign-in, the queue of withdrawals, one
// withdrawal with its votes and its record, the whitelist mirror and the audit
// log. Pages are rendered on the server from templates in the binary, read
// without scripts, and keep themselves current with one small module.
//
// The package decides nothing about money. It asks the store and the intake
// desk, shows what they answer, and carries passkey assertions to them.
package web

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/google/uuid"

	"sluice/internal/approval"
	"sluice/internal/exchange"
	"sluice/internal/identity"
	"sluice/internal/pgstore"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

// Store is what the pages read, and the two changes that people make besides
// asking: a vote and a cancellation. Package pgstore has it.
type Store interface {
	Withdrawal(ctx context.Context, id uuid.UUID) (withdraw.Withdrawal, error)
	Withdrawals(ctx context.Context, f withdraw.Filter) ([]withdraw.Withdrawal, uuid.UUID, error)
	Counts(ctx context.Context) (map[withdraw.State]int, error)
	Votes(ctx context.Context, withdrawal uuid.UUID) ([]withdraw.VoteRow, error)
	Attempts(ctx context.Context, withdrawal uuid.UUID) ([]withdraw.Attempt, error)
	Evidence(ctx context.Context, withdrawal uuid.UUID, rp approval.Relying) (approval.Evidence, error)
	EventsOf(ctx context.Context, withdrawal uuid.UUID) ([]pgstore.EventRow, error)
	Events(ctx context.Context, cursor uuid.UUID, limit int, action, actor string) ([]pgstore.EventRow, uuid.UUID, error)
	Changes(ctx context.Context, since string) ([]uuid.UUID, string, error)
	Destinations(ctx context.Context, account string) ([]whitelist.Destination, error)
	Destination(ctx context.Context, id uuid.UUID) (whitelist.Destination, error)
	Chains(ctx context.Context) ([]exchange.ChainConfig, time.Time, error)
	Accounts(ctx context.Context) ([]string, error)
	Health(ctx context.Context) (pgstore.Health, error)
	Person(ctx context.Context, id uuid.UUID) (identity.Person, error)
	Passkeys(ctx context.Context, person uuid.UUID) ([]identity.Passkey, error)

	OpenVote(ctx context.Context, person, withdrawal uuid.UUID, d approval.Decision, now time.Time) (nonce []byte, digest approval.Digest, err error)
	CastVote(ctx context.Context, withdrawal uuid.UUID, v approval.Vote, rp approval.Relying, now time.Time) (withdraw.Withdrawal, approval.Verdict, error)
	Cancel(ctx context.Context, id uuid.UUID, actor, reason string, now time.Time) (withdraw.Withdrawal, error)
}

// Desk takes requests: the same intake that the API puts its requests to.
type Desk interface {
	Submit(ctx context.Context, r withdraw.Request) (withdraw.Answer, error)
}

// Dev is what `sluice dev` adds: demo people whose passkeys are software, held by
// the server, so that the whole story can be clicked through in any browser.
// Outside dev it is nil and none of its routes exist.
type Dev struct {
	People []identity.Person
	// Assert answers WebAuthn request options as the named person's passkey
	// would, and returns the credential in WebAuthn JSON.
	Assert func(ctx context.Context, person string, publicKey json.RawMessage) (json.RawMessage, error)
}

// Deps is all that the pages stand on.
type Deps struct {
	Store    Store
	Desk     Desk
	Passkeys Passkeys
	Sessions scs.Store // table sessions
	Relying  approval.Relying
	Dev      *Dev
	Now      func() time.Time
	Log      *slog.Logger
	Build    string // shown in the footer, such as "v1.2.0"
	// Done is closed when the process begins to stop. Live connections never end
	// by themselves; without this a graceful stop would wait for each of them.
	Done <-chan struct{}
}

//go:embed templates assets
var files embed.FS

type site struct {
	Deps
	pages     map[string]*template.Template
	assets    *assets
	active    *scs.SessionManager // moves the idle clock
	quiet     *scs.SessionManager // reads the same sessions and leaves the idle clock alone
	live      *hub
	hosts     map[string]bool
	canonical string
}

// New makes the handler of all pages. It fails when the relying site names no
// usable origin, or when a template does not parse.
func New(d Deps) (http.Handler, error) {
	s, err := open(d)
	if err != nil {
		return nil, err
	}
	return s.handler(), nil
}

func open(d Deps) (*site, error) {
	if len(d.Relying.Origins) == 0 {
		return nil, errors.New("web: the relying site has no origin, so no passkey could ever be used on it")
	}
	s := &site{Deps: d, hosts: map[string]bool{}, canonical: d.Relying.Origins[0]}
	https := true
	for _, o := range d.Relying.Origins {
		u, err := url.Parse(o)
		if err != nil || u.Host == "" || u.Path != "" {
			return nil, fmt.Errorf("web: %q is not an origin such as \"https://sluice.example.com\"", o)
		}
		s.hosts[u.Host] = true
		https = https && u.Scheme == "https"
	}
	s.active, s.quiet = sessions(d.Sessions, https, s.sessionFailed)
	s.live = newHub(d.Store, d.Log, d.Done)
	var err error
	if s.assets, err = newAssets(); err != nil {
		return nil, err
	}
	if s.pages, err = parse(s.Now); err != nil {
		return nil, err
	}
	return s, nil
}

// maxBody is the largest request body in bytes. The longest that a page sends is a
// passkey assertion with a reason, well below it.
const maxBody = 64 << 10

func (s *site) handler() http.Handler {
	pages := http.NewServeMux()
	pages.HandleFunc("GET /signin", s.signinPage)
	pages.HandleFunc("POST /signin/options", s.signinOptions)
	pages.HandleFunc("POST /signin/finish", s.signinFinish)
	pages.HandleFunc("POST /signout", s.signout)
	pages.HandleFunc("GET /enrol/{token}", s.enrolPage)
	pages.HandleFunc("POST /enrol/{token}/options", s.enrolOptions)
	pages.HandleFunc("POST /enrol/{token}/finish", s.enrolFinish)
	if s.Dev != nil {
		pages.HandleFunc("GET /dev/people", s.devPeople)
		pages.HandleFunc("POST /dev/passkey/get", s.devPasskey)
	}

	pages.Handle("GET /{$}", s.signedIn(s.home))
	pages.Handle("GET /withdrawals", s.signedIn(s.queuePage))
	pages.Handle("GET /withdrawals/new", s.signedIn(s.requestPage))
	pages.Handle("POST /withdrawals/new", s.signedIn(s.request))
	pages.Handle("GET /withdrawals/{id}", s.signedIn(s.withdrawalPage))
	pages.Handle("POST /withdrawals/{id}/cancel", s.signedIn(s.cancel))
	pages.Handle("POST /withdrawals/{id}/vote/options", s.signedIn(s.voteOptions))
	pages.Handle("POST /withdrawals/{id}/vote/finish", s.signedIn(s.voteFinish))
	pages.Handle("GET /whitelist", s.signedIn(s.whitelistPage))
	pages.Handle("GET /whitelist/export", s.signedIn(s.exportWhitelist))
	pages.Handle("GET /audit", s.signedIn(s.auditPage))
	pages.Handle("GET /health", s.signedIn(s.healthPage))
	pages.Handle("GET /live", s.signedIn(s.liveStream))
	pages.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.fail(w, r, notFound) })

	csrf := http.NewCrossOriginProtection()
	csrf.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.fail(w, r, crossOrigin) }))

	all := http.NewServeMux()
	all.Handle("GET /assets/{version}/{file}", s.assets)
	all.Handle("/", csrf.Handler(s.withSession(pages)))
	return s.guard(s.rightHost(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		all.ServeHTTP(w, r)
	})))
}

// csp is the Content-Security-Policy of every answer. Nothing inline runs and
// nothing is loaded from elsewhere, so a label with markup in it stays text.
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// guard sets the headers of every answer and turns a panic into a page.
func (s *site) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "publickey-credentials-get=(self), publickey-credentials-create=(self), clipboard-write=(self), camera=(), microphone=(), geolocation=(), payment=(), usb=()")
		h.Set("Cache-Control", "no-store")
		if strings.HasPrefix(s.canonical, "https://") {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				s.fail(w, r, fmt.Errorf("panic: %v", p))
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// rightHost keeps visitors on the site that passkeys are bound to. Someone who
// typed 127.0.0.1 is sent to the right name; under any other foreign name
// nothing is answered, or a page elsewhere could have its own name resolve to
// us and read the answers as its own.
func (s *site) rightHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.hosts[r.Host]:
			next.ServeHTTP(w, r)
		case !loopback(r.Host):
			s.fail(w, r, wrongHost(s.canonical))
		case r.Method == http.MethodGet || r.Method == http.MethodHead:
			http.Redirect(w, r, s.canonical+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		default: // a program of this machine, such as `sluice vote`
			next.ServeHTTP(w, r)
		}
	})
}
