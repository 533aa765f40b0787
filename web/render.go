package web

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/money"
	"sluice/internal/withdraw"
)

// assets serves styles, scripts and the icon under a path that holds the hash of
// all of them, so that browsers may keep them for good and never mix two builds.
type assets struct {
	version string
	files   map[string][]byte
}

func newAssets() (*assets, error) {
	a := &assets{files: map[string][]byte{}}
	sum := sha256.New()
	entries, err := fs.ReadDir(files, "assets")
	if err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	for _, e := range entries { // in order of name
		b, err := files.ReadFile("assets/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("web: %w", err)
		}
		a.files[e.Name()] = b
		fmt.Fprintf(sum, "%s %d\n", e.Name(), len(b))
		sum.Write(b)
	}
	a.version = hex.EncodeToString(sum.Sum(nil)[:6])
	return a, nil
}

func (a *assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, ok := a.files[r.PathValue("file")]
	if !ok || r.PathValue("version") != a.version {
		http.Error(w, "there is no such file in this build; reload the page", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", types[path.Ext(r.PathValue("file"))])
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

// types does not ask the machine: its tables differ, and with "nosniff" a script of
// the wrong type does not run.
var types = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

// page is what every template gets.
type page struct {
	Title  string
	Nav    string // which entry of the navigation is the current one
	Viewer *viewer
	Dev    bool
	Build  string
	Assets string // path of the assets
	Now    time.Time
	Live   string // what the page follows: "" nothing, "*" everything, or a withdrawal's id
	Body   any
}

// parse reads the templates: each page with the frame and the shared pieces.
func parse(now func() time.Time) (map[string]*template.Template, error) {
	funcs := template.FuncMap{
		"iso":      func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") },
		"stamp":    func(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04:05") + " UTC" },
		"minute":   func(t time.Time) string { return t.UTC().Format("2 Jan, 15:04") + " UTC" },
		"ago":      func(t time.Time) string { return span(now().Sub(t)) },
		"left":     func(t time.Time) string { return span(t.Sub(now())) },
		"amount":   newAmount,
		"text":     money.Text,
		"quad":     quad,
		"short":    short,
		"plain":    plain,
		"tone":     func(s withdraw.State) tone { return tones[s] },
		"hex":      func(b []byte) string { return hex.EncodeToString(b) },
		"json":     pretty,
		"chain":    chainName,
		"sentence": sentence,
		"outcome":  func(o string) tone { return outcomes[o].Tone },
		"meaning":  func(o string) string { return outcomes[o].Text },
	}
	shared, err := template.New("").Funcs(funcs).ParseFS(files, "templates/frame.html", "templates/pieces.html")
	if err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	entries, err := fs.ReadDir(files, "templates")
	if err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	pages := map[string]*template.Template{}
	for _, e := range entries {
		if e.Name() == "frame.html" || e.Name() == "pieces.html" {
			continue
		}
		t, err := template.Must(shared.Clone()).ParseFS(files, "templates/"+e.Name())
		if err != nil {
			return nil, fmt.Errorf("web: %w", err)
		}
		pages[strings.TrimSuffix(e.Name(), ".html")] = t
	}
	return pages, nil
}

// amountView is an amount in pieces: thousands apart for the eye, and together
// exactly the plain decimal for whoever copies it.
type amountView struct {
	Groups []string
	Rest   string
	Unit   string
}

func newAmount(d decimal.Decimal, unit string) amountView {
	groups, rest := digits(money.Text(d))
	return amountView{Groups: groups, Rest: rest, Unit: unit}
}

// chainName is the chain, or what stands in its place.
func chainName(m exchange.Method, chain string) string {
	if m == exchange.InterUser {
		return "inside the exchange"
	}
	return chain
}

// pretty indents JSON for reading. What is not JSON is shown as it is.
func pretty(b []byte) string {
	var out bytes.Buffer
	if json.Indent(&out, b, "", "  ") != nil {
		return string(b)
	}
	return out.String()
}

// show renders a page whole before it sends any of it: a page that breaks in the
// middle would show half of a payout.
func (s *site) show(w http.ResponseWriter, r *http.Request, status int, name string, p page) {
	var out bytes.Buffer
	if err := s.render(&out, r, name, p); err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes()) // whoever asked has gone
}

func (s *site) render(out *bytes.Buffer, r *http.Request, name string, p page) error {
	p.Viewer, p.Dev, p.Build, p.Now = viewerOf(r), s.Dev != nil, s.Build, s.Now()
	p.Assets = "/assets/" + s.assets.version
	if err := s.pages[name].ExecuteTemplate(out, "frame", p); err != nil {
		return fmt.Errorf("render %s: %w", name, err)
	}
	return nil
}

// reply answers a script or a program.
func (s *site) reply(w http.ResponseWriter, r *http.Request, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // whoever asked has gone
}

// What the pages themselves refuse.
var (
	notFound    = fault.New(fault.NotFound, "page_not_found", "there is no such page", "check the address, or start from the withdrawals")
	signedOut   = fault.New(fault.Unauthorized, "signed_out", "nobody is signed in here any more", "sign in again with your passkey")
	noRole      = fault.New(fault.Forbidden, "no_role", "your name is known, but you have no role here yet", "ask an admin to give you a role")
	crossOrigin = fault.New(fault.Forbidden, "cross_origin", "this was sent from a page of another site, so nothing was done",
		"open Sluice itself and do it from there")
)

func wrongHost(canonical string) error {
	return fault.New(fault.Forbidden, "wrong_host", "this site does not answer under this name", "open "+canonical)
}

// errorView is what an error page says.
type errorView struct {
	fault.Problem
	Headline  string
	Reference string // to find it in the log; "" when there is nothing to find
}

var headlines = map[int]string{
	http.StatusUnauthorized:          "You are signed out",
	http.StatusForbidden:             "That is not open to you",
	http.StatusNotFound:              "Nothing here",
	http.StatusConflict:              "It has moved on",
	http.StatusUnprocessableEntity:   "That does not work as it stands",
	http.StatusRequestEntityTooLarge: "That is too large",
	http.StatusServiceUnavailable:    "Not right now",
}

// fail answers with an error: a page for people, problem details for scripts and
// programs. What has no kind is ours: logged whole, under a reference that the
// page shows, and told to nobody.
func (s *site) fail(w http.ResponseWriter, r *http.Request, err error) {
	view := errorView{Problem: fault.ProblemOf(err)}
	if view.Status == http.StatusInternalServerError {
		view.Reference = rand.Text()[:10]
		view.Fix = "reload the page; if it stays, tell the operators of Sluice the reference " + view.Reference
		// A reader that has gone is no failure of ours.
		if r.Context().Err() == nil {
			s.Log.ErrorContext(r.Context(), "page failed", "error", err, "reference", view.Reference,
				"method", r.Method, "path", redacted(r.URL.Path))
		}
	}
	if wantsJSON(r) || r.Header.Get(liveHeader) != "" {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(view.Status)
		_, _ = w.Write(view.Problem.JSON())
		return
	}
	if view.Headline = headlines[view.Status]; view.Headline == "" {
		view.Headline = "Something broke on our side"
	}
	var out bytes.Buffer
	if err := s.render(&out, r, "error", page{Title: view.Headline, Body: view}); err != nil {
		http.Error(w, view.Headline+": "+view.Detail+". "+view.Fix, view.Status)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(view.Status)
	_, _ = w.Write(out.Bytes())
}

// redacted takes an invitation's token out of a path: whoever reads the log could
// enrol with it.
func redacted(p string) string {
	if strings.HasPrefix(p, "/enrol/") {
		return "/enrol/…"
	}
	return p
}

// wantsJSON tells scripts and programs from people's browsers following links and
// sending forms.
func wantsJSON(r *http.Request) bool {
	for _, h := range []string{r.Header.Get("Content-Type"), r.Header.Get("Accept")} {
		if t, _, _ := mime.ParseMediaType(h); t == "application/json" {
			return true
		}
	}
	return false
}

// read decodes a script's or program's JSON body.
func read(w http.ResponseWriter, r *http.Request, into any) error {
	if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" {
		return fault.New(fault.Invalid, "not_json", "the body is not declared as JSON", "send it with Content-Type: application/json")
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return badBody(err)
	}
	if d.More() {
		return badBody(fmt.Errorf("more than one value"))
	}
	return nil
}

func badBody(err error) error {
	if large := new(http.MaxBytesError); errors.As(err, &large) {
		return fault.New(fault.TooLarge, "body_too_large", fmt.Sprintf("the request is larger than %d bytes", maxBody), "send less")
	}
	return fault.New(fault.Invalid, "body_malformed", "the request cannot be read", "reload the page and try again").Because(err)
}

// names turns actors into names people know, reading each person once.
type names struct {
	store Store
	known map[string]string
}

func (s *site) names() *names { return &names{store: s.Store, known: map[string]string{}} }

// of is the name of an actor such as "person:ID" or "client:payroll".
func (n *names) of(ctx context.Context, actor string) string {
	if name, ok := n.known[actor]; ok {
		return name
	}
	kind, rest, _ := strings.Cut(actor, ":")
	name := actor
	switch kind {
	case "person":
		// Somebody whom nobody can name any more is still somebody: the id stays.
		if id, err := uuid.Parse(rest); err == nil {
			if p, err := n.store.Person(ctx, id); err == nil {
				name = p.DisplayName
			}
		}
	case "client":
		name = rest + " (program)"
	case "worker":
		name = "worker of " + rest
	case "operator":
		name = rest + " (operator)"
	}
	n.known[actor] = name
	return name
}
