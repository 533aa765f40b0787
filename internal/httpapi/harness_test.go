package httpapi_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/httpapi"
	"sluice/internal/identity"
	"sluice/internal/pgstore"
	"sluice/internal/policy"
	"sluice/internal/withdraw"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// T is what both tests and generated tests offer.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// desk is an intake that takes everything, and remembers what it took.
type desk struct {
	mu     sync.Mutex
	took   []withdraw.Request
	answer *withdraw.Answer // given in place of 201
	err    error
}

func (d *desk) Submit(_ context.Context, r withdraw.Request) (withdraw.Answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.took = append(d.took, r)
	if d.err != nil {
		return withdraw.Answer{}, d.err
	}
	if d.answer != nil {
		return *d.answer, nil
	}
	end := noon.Add(r.ExpiresIn)
	w := withdraw.Withdrawal{
		ID: uuid.Must(uuid.NewV7()), Requester: r.Requester, Reference: r.Reference, Account: r.Account, Method: r.Method,
		Asset: r.Asset, Chain: r.Chain, Address: r.Address, Memo: r.Memo, Amount: r.Amount, Purpose: r.Purpose,
		State: withdraw.Pending, Round: 1, Digest: r.BodyHash[:], ExpiresAt: &end, CreatedAt: noon, UpdatedAt: noon,
	}
	return withdraw.Answer{Status: http.StatusCreated, Body: withdraw.JSON(w, 2)}, nil
}

// shelf is a store of withdrawals in memory.
type shelf struct {
	all       map[uuid.UUID]withdraw.Withdrawal
	asked     withdraw.Filter
	cancelled []string // actor and reason
	next      uuid.UUID
	err       error
	broken    any // what Withdrawals panics with
}

func (s *shelf) Withdrawal(_ context.Context, id uuid.UUID) (withdraw.Withdrawal, error) {
	if s.err != nil {
		return withdraw.Withdrawal{}, s.err
	}
	w, ok := s.all[id]
	if !ok {
		return w, fault.New(fault.NotFound, "withdrawal_not_found", "there is no withdrawal "+id.String(), "check the id")
	}
	return w, nil
}

func (s *shelf) Withdrawals(ctx context.Context, f withdraw.Filter) ([]withdraw.Withdrawal, uuid.UUID, error) {
	if s.broken != nil {
		panic(s.broken)
	}
	if s.err != nil {
		return nil, uuid.Nil, s.err
	}
	s.asked = f
	var list []withdraw.Withdrawal
	for _, w := range s.all {
		if w.Requester == f.Requester {
			list = append(list, w)
		}
	}
	return list, s.next, nil
}

func (s *shelf) EventsOf(_ context.Context, id uuid.UUID) ([]pgstore.EventRow, error) {
	seq := int64(7)
	return []pgstore.EventRow{
		{ID: uuid.Must(uuid.NewV7()), At: noon, Actor: "client:payroll", Action: "withdrawal.requested", WithdrawalID: &id, Seq: &seq,
			Body: []byte(`{"detail":{"amount":"25.5"},"type":"sluice/event/1"}`)},
		{ID: uuid.Must(uuid.NewV7()), At: noon, Actor: "worker:main", Action: "withdrawal.expired", WithdrawalID: &id,
			Body: []byte(`{"type":"sluice/event/1"}`)},
	}, s.err
}

func (s *shelf) Cancel(_ context.Context, id uuid.UUID, actor, reason string, now time.Time) (withdraw.Withdrawal, error) {
	if s.err != nil {
		return withdraw.Withdrawal{}, s.err
	}
	w := s.all[id]
	if w.State.Final() {
		return w, fault.New(fault.Conflict, "not_cancellable", "it is over", "read it again")
	}
	s.cancelled = append(s.cancelled, actor, reason)
	w.State, w.ReasonCode, w.Reason, w.UpdatedAt = withdraw.Cancelled, "cancelled", reason, now
	s.all[id] = w
	return w, nil
}

// Ids of what is on the shelf.
var (
	mine    = uuid.MustParse("019ab0c5-7e00-7000-8000-000000000001")
	over    = uuid.MustParse("019ab0c5-7e00-7000-8000-000000000002")
	refused = uuid.MustParse("019ab0c5-7e00-7000-8000-000000000003")
	theirs  = uuid.MustParse("019ab0c5-7e00-7000-8000-000000000004")
)

func stock() map[uuid.UUID]withdraw.Withdrawal {
	end, id := noon.Add(24*time.Hour), int64(31200001)
	w := withdraw.Withdrawal{
		ID: mine, Requester: "client:payroll", Reference: "invoice-1", Account: "main", Method: exchange.OnChain,
		Asset: "USDT", Chain: "TRC20", Address: "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", Amount: decimal.RequireFromString("25.5"),
		MaxFee: decimal.NewNullDecimal(decimal.RequireFromString("4.8")), Purpose: "rent", State: withdraw.Pending, Round: 1,
		Digest: bytes.Repeat([]byte{0xab}, 32), ExpiresAt: &end, CreatedAt: noon, UpdatedAt: noon,
	}
	done, no, other := w, w, w
	done.ID, done.State, done.ExchangeID, done.ExchangeStatus = over, withdraw.Completed, &id, "finished"
	done.Fee, done.FeeAsset, done.TxID, done.Confirmations = decimal.NewNullDecimal(decimal.RequireFromString("2.4")), "USDT", "9f3c", 19
	no.ID, no.State, no.Digest, no.ExpiresAt, no.ReasonCode, no.Reason, no.Fix = refused, withdraw.Refused, nil, nil, "destination_not_listed", "not listed", "list it"
	other.ID, other.Requester = theirs, "client:billing"
	return map[uuid.UUID]withdraw.Withdrawal{mine: w, over: done, refused: no, theirs: other}
}

// bundle is an API over fakes, with real tokens.
type bundle struct {
	api   *echo.Echo
	desk  *desk
	shelf *shelf
	log   *bytes.Buffer
	ready error
	key   ed25519.PrivateKey
	// token is good for both scopes.
	token string
	check *checker
}

func setup(t testing.TB) *bundle {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	check, err := describe()
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{desk: &desk{}, shelf: &shelf{all: stock()}, log: &bytes.Buffer{}, key: key, check: check}
	now := func() time.Time { return noon }
	lookup := func(_ context.Context, name string) (identity.Client, error) {
		c := identity.Client{Name: name, PublicKey: public, Accounts: []string{"main"}, Scopes: []string{identity.ScopeRead, identity.ScopeWrite}}
		switch name {
		case "payroll":
			return c, nil
		case "retired":
			c.Disabled = true
			return c, nil
		}
		return identity.Client{}, fault.New(fault.NotFound, "client_not_found", "there is no such client", "check the name")
	}
	b.api = httpapi.New(httpapi.Deps{
		Ops: httpapi.Ops{
			Log: slog.New(slog.NewJSONHandler(b.log, nil)), Registry: prometheus.NewRegistry(),
			Ready: func(context.Context) error { return b.ready }, Now: now,
		},
		Tokens: identity.NewTokens(lookup, now), Intake: b.desk, Store: b.shelf, Policy: policy.Default,
	})
	b.token = b.sign(t, "payroll", noon, identity.ScopeRead, identity.ScopeWrite)
	return b
}

func (b *bundle) sign(t testing.TB, client string, at time.Time, scopes ...string) string {
	t.Helper()
	token, err := identity.SignToken(client, b.key, scopes, at, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// request makes one with everything right, for a test to spoil.
func (b *bundle) request(method, target, body string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+b.token)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", "key-1")
	}
	return r
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) code() string {
	var p fault.Problem
	_ = json.Unmarshal(a.body, &p)
	return p.Code
}

// send serves one request, and holds the answer against the description.
func (b *bundle) send(t T, r *http.Request) answer {
	t.Helper()
	rec := httptest.NewRecorder()
	b.api.ServeHTTP(rec, r)
	res := rec.Result()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%v", err)
	}
	a := answer{res.StatusCode, res.Header, body}
	b.check.answer(t, r, a)
	return a
}

// checker holds answers against openapi.yaml.
type checker struct {
	doc    *openapi3.T
	router routers.Router
}

// describe reads openapi.yaml once for all tests.
var describe = sync.OnceValues(func() (*checker, error) {
	source, err := os.ReadFile("openapi.yaml")
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(source)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		return nil, err
	}
	for _, plain := range []string{"text/html", "text/css", "application/yaml"} {
		openapi3filter.RegisterBodyDecoder(plain, openapi3filter.PlainBodyDecoder)
	}
	return &checker{doc, router}, nil
})

// answer checks status, content type, headers and body of an answer on a described
// path, and the form of every error on any path.
func (k *checker) answer(t T, r *http.Request, a answer) {
	t.Helper()
	if a.header.Get("X-Request-Id") == "" {
		t.Errorf("%s %s: an answer without X-Request-Id", r.Method, r.URL)
	}
	if a.status >= 400 {
		var p fault.Problem
		if err := json.Unmarshal(a.body, &p); err != nil || p.Status != a.status || p.Code == "" || p.Detail == "" || p.Fix == "" ||
			a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: not a whole problem: %d %s", r.Method, r.URL, a.status, a.body)
		}
	}
	route, params, err := k.router.FindRoute(r)
	if err != nil {
		if a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed {
			t.Errorf("%s %s is not described and was answered with %d", r.Method, r.URL, a.status)
		}
		return
	}
	err = openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route},
		Status:                 a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	})
	if err != nil {
		t.Errorf("%s %s: %d %s: %v", r.Method, r.URL, a.status, a.body, err)
	}
}
