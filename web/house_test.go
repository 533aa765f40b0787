package web

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2/memstore"
	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"sluice/internal/approval"
	"sluice/internal/audit"
	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/identity"
	"sluice/internal/pgstore"
	"sluice/internal/policy"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

const origin = "http://localhost:8080"

var now = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// house is the whole site over a store in memory. Votes, sign-in and enrolment are
// the real ones: real assertions by software passkeys, checked by the real code.
type house struct {
	*store
	t        *testing.T
	handler  http.Handler
	site     *site
	sessions *sessionStore
	log      *bytes.Buffer
	software *identity.Software
	done     chan struct{}
	people   map[string]identity.Person
	dests    map[string]whitelist.Destination
}

func newHouse(t *testing.T, change ...func(*Deps)) *house {
	t.Helper()
	h := &house{t: t, store: newStore(), sessions: &sessionStore{MemStore: memstore.NewWithCleanupInterval(0)},
		log: &bytes.Buffer{}, done: make(chan struct{}), people: map[string]identity.Person{}, dests: map[string]whitelist.Destination{}}
	var err error
	if h.software, err = identity.OpenSoftware(filepath.Join(t.TempDir(), "passkeys")); err != nil {
		t.Fatal(err)
	}
	rp := approval.Relying{ID: "localhost", Origins: []string{origin}, Software: true}
	clock := func() time.Time { return now }
	passkeys, err := identity.NewPasskeys(rp, h.store, clock)
	if err != nil {
		t.Fatal(err)
	}
	h.join("ana", "Ana Duarte", identity.Requester, identity.Approver)
	h.join("ben", "Ben Okafor", identity.Approver)
	h.join("chen", "Chen Wei", identity.Approver)
	h.join("dora", "Dora Lind", identity.Auditor)
	h.join("eve", "Eve Nobody")
	h.furnish()
	d := Deps{
		Store: h.store, Desk: h.store, Passkeys: passkeys, Sessions: h.sessions, Relying: rp, Now: clock,
		Log: slog.New(slog.NewTextHandler(h.log, nil)), Build: "test", Done: h.done,
		Dev: &Dev{
			People: []identity.Person{h.people["ana"], h.people["ben"], h.people["chen"], h.people["dora"]},
			Assert: func(_ context.Context, name string, options json.RawMessage) (json.RawMessage, error) {
				return h.software.Of(name).Get(options, origin)
			},
		},
	}
	for _, c := range change {
		c(&d)
	}
	if h.site, err = open(d); err != nil {
		t.Fatal(err)
	}
	h.handler = h.site.handler()
	for name := range h.people {
		h.enrol(passkeys, name)
	}
	return h
}

func (h *house) join(name, display string, roles ...identity.Role) {
	p := identity.Person{ID: uuid.NewSHA1(uuid.Nil, []byte(name)), Name: name, DisplayName: display, Roles: roles}
	h.people[name], h.persons[p.ID] = p, p
}

// enrol gives a person a software passkey, by an invitation as in dev.
func (h *house) enrol(passkeys *identity.Passkeys, name string) {
	token := h.invite(name)
	ctx := context.Background()
	_, options, state, err := passkeys.BeginEnrolment(ctx, token)
	if err != nil {
		h.t.Fatal(err)
	}
	credential, err := h.software.Of(name).Create(options, origin)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := passkeys.FinishEnrolment(ctx, token, state, credential, "demo"); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) invite(name string) string {
	token, hash := identity.NewInvitation()
	h.invitations[string(hash)] = identity.Invitation{Person: h.people[name].ID, CreatedBy: "operator:test", ExpiresAt: now.Add(time.Hour)}
	return token
}

func (h *house) furnish() {
	h.chains = []exchange.ChainConfig{
		{Asset: "USDT", Chain: "TRC20", AssetEnabled: true, ChainEnabled: true, InterUserEnabled: true, MinAmount: amount("2"), Fee: amount("1.2"), Precision: 6},
		{Asset: "BTC", Chain: "BTC", AssetEnabled: true, ChainEnabled: true, InterUserEnabled: true, MinAmount: amount("0.0002"), Fee: amount("0.00005"), Precision: 8},
		{Asset: "XRP", Chain: "XRP", AssetEnabled: true, ChainEnabled: true, InterUserEnabled: true, MinAmount: amount("2"), Fee: amount("0.1"), Precision: 6, MemoRequired: true},
	}
	add := func(name, label, asset, chain, address, memo string) {
		accepted := now.Add(-26 * time.Hour)
		d := whitelist.Destination{
			ID: uuid.NewSHA1(uuid.Nil, []byte(name)), Version: 1, Label: label, State: whitelist.Active,
			Key:        whitelist.Key{Account: "main", Method: exchange.OnChain, Asset: asset, Chain: chain, Address: address, Memo: memo},
			AttestedBy: h.people["ana"].Actor(), AttestedAt: now.Add(-30 * 24 * time.Hour), AcceptedAt: &accepted,
		}
		if chain == "" {
			d.Method, d.AcceptedAt = exchange.InterUser, nil
		}
		if name == "old" {
			d.State, d.Reason = whitelist.Quarantined, "the exchange refused it with code 3310 on 20 Nov; it is no longer on the API whitelist"
		}
		h.dests[name], h.destinations = d, append(h.destinations, d)
	}
	add("payroll", "Payroll provider", "USDT", "TRC20", "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", "")
	add("cold", "Cold storage, vault 2", "BTC", "BTC", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", "")
	add("desk", "OTC desk settlement", "XRP", "XRP", "rEb8TK3gBgk5auZkwc6sHnwrGVJH8DuaLh", "2184410091")
	add("sub", "Market making sub-account", "USDT", "", "mm-desk@treasury.example", "")
	add("old", "Former payroll provider", "USDT", "TRC20", "TQn9Y2khEsLJW1ChVWFMSMeRDow5KcbLSE", "")
}

func amount(s string) decimal.Decimal { return decimal.RequireFromString(s) }

// stand puts a withdrawal into a state, with the record, votes and attempts that
// belong there.
func (h *house) stand(state withdraw.State, change ...func(*withdraw.Withdrawal)) withdraw.Withdrawal {
	h.t.Helper()
	d := h.dests["payroll"]
	created := now.Add(-95 * time.Minute).Add(time.Duration(len(h.list)) * time.Minute)
	expires := created.Add(24 * time.Hour)
	w := withdraw.Withdrawal{
		ID: uuid.Must(uuid.NewV7()), Requester: "client:payroll", Reference: fmt.Sprintf("PAY-2026-11-%03d", len(h.list)+1),
		Account: d.Account, Method: d.Method, Asset: d.Asset, Chain: d.Chain, Address: d.Address, Memo: d.Memo,
		Amount: amount("12500.5"), MaxFee: decimal.NewNullDecimal(amount("2.4")), Purpose: "November payroll, part 1 of 2",
		DestinationID: &d.ID, State: state, Round: 1, ExpiresAt: &expires, CreatedAt: created, UpdatedAt: created.Add(3 * time.Minute),
	}
	for _, c := range change {
		c(&w)
	}
	if state == withdraw.Absent {
		w.Round = 2
	}
	soon := now.Add(20 * time.Second)
	id := int64(20418811)
	w.Reason, w.Fix, w.ReasonCode = "", "", ""
	switch state {
	case withdraw.Refused:
		w.ReasonCode, w.Reason, w.Fix = "destination_not_listed", "this destination is not on the API withdrawal whitelist as Sluice mirrors it", "add it to the API withdrawal whitelist at www.coinex.com/apikey, then to Sluice's whitelist; entries match byte for byte"
		w.DestinationID, w.ExpiresAt = nil, nil
	case withdraw.Approved, withdraw.Submitting, withdraw.Unknown:
		w.NextStepAt = &soon
	case withdraw.Submitted, withdraw.Completed:
		w.NextStepAt, w.ExchangeID, w.ExchangeStatus, w.Confirmations = &soon, &id, "confirming", 11
		w.Fee, w.FeeAsset, w.TxID = decimal.NewNullDecimal(amount("1.2")), "USDT", "7c1f03de0d8a19f1f1b4ad9cc3ea0b1ab7f0d7f4c9cf1a2e2f6d0c1f0b1d2e3f"
		if state == withdraw.Completed {
			w.ExchangeStatus, w.NextStepAt = "finished", nil
		}
	case withdraw.Held:
		w.ReasonCode, w.Reason, w.Fix = "exchange_3310", "the exchange says that this address is not on its API withdrawal whitelist (code 3310)", "look at www.coinex.com/apikey, mend the list there, and have the destination confirmed again in Sluice"
	case withdraw.Absent:
		w.ReasonCode, w.Reason, w.Fix = "proven_absent", "two clean reads of the exchange's list after the quiet period do not have it, and the balance is untouched", "vote afresh to send it once more, or cancel it"
	case withdraw.Failed:
		w.ReasonCode, w.Reason, w.Fix = "exchange_failed", "the exchange failed the withdrawal and refunded it", "ask the exchange's support why, with its id"
		w.ExchangeID, w.ExchangeStatus = &id, "failed"
	}
	if state != withdraw.Refused {
		sealed, err := withdraw.Proposal{
			ID: w.ID, Round: w.Round, Account: w.Account, Method: w.Method, Asset: w.Asset, Chain: w.Chain, Address: w.Address, Memo: w.Memo,
			Amount: w.Amount, MaxFee: w.MaxFee.Decimal, DestinationID: *w.DestinationID, DestinationVersion: 1, PolicyVersion: policy.Default.Version,
			Quorum: policy.Default.Quorum, Requester: w.Requester, Reference: w.Reference, Purpose: w.Purpose, ExpiresAt: *w.ExpiresAt,
		}.Seal()
		if err != nil {
			h.t.Fatal(err)
		}
		h.sealed[w.ID] = sealed
		digest := approval.DigestOf(sealed)
		w.Digest = digest[:]
	}
	h.list = append(h.list, &w)
	h.note(w.CreatedAt, w.Requester, "withdrawal.requested", w.ID, canonical.Object{"amount": "12500.5"})
	if slices.Contains([]withdraw.State{withdraw.Approved, withdraw.Submitting, withdraw.Unknown, withdraw.Submitted, withdraw.Held, withdraw.Completed, withdraw.Failed}, state) {
		for i, name := range []string{"ben", "chen"} {
			h.castBy(name, &w, now.Add(-time.Duration(50-7*i)*time.Minute))
		}
		h.note(now.Add(-43*time.Minute), h.people["chen"].Actor(), "withdrawal.approved", w.ID, nil)
	}
	outcome := map[withdraw.State]string{withdraw.Submitting: "open", withdraw.Unknown: "unknown", withdraw.Absent: "absent",
		withdraw.Submitted: "accepted", withdraw.Completed: "accepted", withdraw.Held: "not_accepted", withdraw.Failed: "accepted"}[state]
	if outcome != "" {
		a := withdraw.Attempt{ID: uuid.Must(uuid.NewV7()), WithdrawalID: w.ID, Number: 1, Remark: withdraw.Remark(w.ID, 1),
			Body:     []byte(`{"ccy":"USDT","chain":"TRC20","to_address":"TJRabPrwbZy45sbavfcjinPJC18kjpRTv8","amount":"12500.5"}`),
			SignedAt: now.Add(-42 * time.Minute), WindowMS: 5000, Outcome: outcome}
		switch outcome {
		case "accepted":
			a.ExchangeID, a.HTTPStatus, a.Message, a.Response = &id, 200, "OK", []byte(`{"code":0,"data":{"withdraw_id":20418811},"message":"OK"}`)
		case "not_accepted":
			a.HTTPStatus, a.Code, a.Message, a.Response = 200, 3310, "Invalid Withdrawal Address", []byte(`{"code":3310,"data":{},"message":"Invalid Withdrawal Address"}`)
		}
		h.tries[w.ID] = []withdraw.Attempt{a}
		h.note(now.Add(-42*time.Minute), "worker:main", "withdrawal.submitting", w.ID, nil)
	}
	if outcome != "" && state != withdraw.Submitting {
		h.note(now.Add(-41*time.Minute), "worker:main", "withdrawal."+string(state), w.ID, canonical.Object{"reason": w.Reason})
	}
	return w
}

// castBy has a person approve with their software passkey.
func (h *house) castBy(name string, w *withdraw.Withdrawal, at time.Time) {
	h.t.Helper()
	p := h.people[name]
	nonce := bytes.Repeat([]byte{byte(len(h.ballots) + 1)}, approval.NonceSize)
	copy(nonce, name+w.ID.String())
	digest := approval.Digest(w.Digest)
	var ids [][]byte
	for _, k := range h.keys {
		if k.Person == p.ID {
			ids = append(ids, k.ID)
		}
	}
	if len(ids) == 0 { // before anyone enrolled: a house that is being furnished
		h.t.Fatal("stand a withdrawal after newHouse")
	}
	credential, err := h.software.Of(name).Get(identity.VoteOptions(h.rp(), approval.Challenge(nonce, approval.Approve, digest), ids), origin)
	if err != nil {
		h.t.Fatal(err)
	}
	a, err := identity.ParseAssertion(credential)
	if err != nil {
		h.t.Fatal(err)
	}
	h.ballots[w.ID] = append(h.ballots[w.ID], approval.Vote{Person: p.ID.String(), Passkey: a.Passkey, Decision: approval.Approve, Nonce: nonce,
		AuthenticatorData: a.AuthenticatorData, ClientData: a.ClientData, Signature: a.Signature, CastAt: at})
	h.note(at, p.Actor(), "vote.cast", w.ID, canonical.Object{"decision": "approve"})
}

func (h *house) rp() approval.Relying {
	return approval.Relying{ID: "localhost", Origins: []string{origin}, Software: true}
}

// browser is a visitor with a cookie jar.
type browser struct {
	h       *house
	cookies map[string]*http.Cookie
}

func (h *house) visitor() *browser { return &browser{h, map[string]*http.Cookie{}} }

// as signs a person in by their software passkey, through the pages' own endpoints.
func (h *house) as(name string) *browser {
	h.t.Helper()
	b := h.visitor()
	var begun struct {
		PublicKey json.RawMessage `json:"publicKey"`
	}
	b.json("/signin/options", map[string]any{}, &begun, http.StatusOK)
	credential, err := h.software.Of(name).Get(begun.PublicKey, origin)
	if err != nil {
		h.t.Fatal(err)
	}
	b.json("/signin/finish", map[string]any{"credential": json.RawMessage(credential)}, nil, http.StatusOK)
	return b
}

func (b *browser) do(r *http.Request) *httptest.ResponseRecorder {
	if r.Host == "example.com" {
		r.Host = "localhost:8080"
	}
	for _, c := range b.cookies {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	b.h.handler.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		b.cookies[c.Name] = c
	}
	return w
}

func (b *browser) get(path string) *httptest.ResponseRecorder {
	return b.do(httptest.NewRequest(http.MethodGet, path, nil))
}

// page gets a page and expects it to be there.
func (b *browser) page(path string) string {
	b.h.t.Helper()
	w := b.get(path)
	if w.Code != http.StatusOK {
		b.h.t.Fatalf("GET %s: %d\n%s\n%s", path, w.Code, w.Body, b.h.log)
	}
	return w.Body.String()
}

func (b *browser) post(path string, form url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return b.do(r)
}

func (b *browser) send(path string, body any) *httptest.ResponseRecorder {
	j, err := json.Marshal(body)
	if err != nil {
		b.h.t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(j))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return b.do(r)
}

// json posts and reads the answer, which has to have the status.
func (b *browser) json(path string, body, into any, status int) {
	b.h.t.Helper()
	w := b.send(path, body)
	if w.Code != status {
		b.h.t.Fatalf("POST %s: %d, want %d\n%s\n%s", path, w.Code, status, w.Body, b.h.log)
	}
	if into != nil {
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			b.h.t.Fatalf("POST %s: %v in %s", path, err, w.Body)
		}
	}
}

func problem(t *testing.T, w *httptest.ResponseRecorder) fault.Problem {
	t.Helper()
	var p fault.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Code == "" || p.Fix == "" {
		t.Fatalf("no problem details in %d %s", w.Code, w.Body)
	}
	return p
}

var tags = regexp.MustCompile(`<[^>]*>`)

// seen is the text of a page as a reader sees or copies it.
func seen(page string) string {
	return strings.Join(strings.Fields(html.UnescapeString(tags.ReplaceAllString(page, ""))), " ")
}

// sessionStore counts writes, and holds sessions in memory.
type sessionStore struct {
	*memstore.MemStore
	commits int
	broken  error
}

func (s *sessionStore) Commit(token string, b []byte, expiry time.Time) error {
	s.commits++
	if s.broken != nil {
		return s.broken
	}
	return s.MemStore.Commit(token, b, expiry)
}

// store is the database in memory.
type store struct {
	mu           sync.Mutex
	list         []*withdraw.Withdrawal
	sealed       map[uuid.UUID][]byte
	ballots      map[uuid.UUID][]approval.Vote
	tries        map[uuid.UUID][]withdraw.Attempt
	record       []pgstore.EventRow
	destinations []whitelist.Destination
	chains       []exchange.ChainConfig
	persons      map[uuid.UUID]identity.Person
	keys         []identity.Passkey
	invitations  map[string]identity.Invitation
	nonces       map[string]string
	opened       byte
	answers      map[string]withdraw.Prior
	health       pgstore.Health
	changes      []uuid.UUID
	asked        chan struct{} // each poll for changes, when tests listen
	lastFilter   withdraw.Filter
	broken       error
}

func newStore() *store {
	return &store{sealed: map[uuid.UUID][]byte{}, ballots: map[uuid.UUID][]approval.Vote{}, tries: map[uuid.UUID][]withdraw.Attempt{},
		persons: map[uuid.UUID]identity.Person{}, invitations: map[string]identity.Invitation{}, nonces: map[string]string{}, answers: map[string]withdraw.Prior{}}
}

func (s *store) note(at time.Time, actor, action string, id uuid.UUID, detail canonical.Object) {
	e := audit.NewEvent(at, actor, action, id, detail)
	body, err := e.Body()
	if err != nil {
		panic(err)
	}
	row := pgstore.EventRow{ID: e.ID, At: at, Actor: actor, Action: action, Body: body}
	if id != uuid.Nil {
		row.WithdrawalID = &id
	}
	if seq := int64(len(s.record)); at.Before(now) {
		row.Seq = &seq
	}
	s.record = append(s.record, row)
	s.changes = append(s.changes, id)
}

func (s *store) find(id uuid.UUID) (*withdraw.Withdrawal, error) {
	for _, w := range s.list {
		if w.ID == id {
			return w, nil
		}
	}
	return nil, fault.New(fault.NotFound, "withdrawal_not_found", "there is no withdrawal "+id.String(), "check the id")
}

func (s *store) Withdrawal(_ context.Context, id uuid.UUID) (withdraw.Withdrawal, error) {
	if s.broken != nil {
		return withdraw.Withdrawal{}, s.broken
	}
	w, err := s.find(id)
	if err != nil {
		return withdraw.Withdrawal{}, err
	}
	return *w, nil
}

func (s *store) Withdrawals(_ context.Context, f withdraw.Filter) ([]withdraw.Withdrawal, uuid.UUID, error) {
	s.lastFilter = f
	var list []withdraw.Withdrawal
	for _, w := range slices.Backward(s.list) {
		if (f.States == nil || slices.Contains(f.States, w.State)) && (f.Reference == "" || w.Reference == f.Reference) &&
			(f.Requester == "" || w.Requester == f.Requester) && (f.Cursor == uuid.Nil || bytes.Compare(w.ID[:], f.Cursor[:]) < 0) {
			list = append(list, *w)
		}
	}
	if len(list) > f.Limit {
		return list[:f.Limit], list[f.Limit-1].ID, nil
	}
	return list, uuid.Nil, nil
}

func (s *store) Counts(context.Context) (map[withdraw.State]int, error) {
	counts := map[withdraw.State]int{}
	for _, w := range s.list {
		if !w.State.Final() {
			counts[w.State]++
		}
	}
	return counts, nil
}

func (s *store) Votes(_ context.Context, id uuid.UUID) ([]withdraw.VoteRow, error) {
	w, err := s.find(id)
	if err != nil {
		return nil, err
	}
	var rows []withdraw.VoteRow
	for _, v := range s.ballots[id] {
		person := uuid.MustParse(v.Person)
		rows = append(rows, withdraw.VoteRow{Person: person, Name: s.persons[person].DisplayName, Decision: string(v.Decision),
			Reason: v.Reason, Round: w.Round, CastAt: v.CastAt})
	}
	return rows, nil
}

func (s *store) Attempts(_ context.Context, id uuid.UUID) ([]withdraw.Attempt, error) {
	return s.tries[id], nil
}

func (s *store) Evidence(_ context.Context, id uuid.UUID, rp approval.Relying) (approval.Evidence, error) {
	e := approval.Evidence{Sealed: s.sealed[id], Votes: s.ballots[id], Relying: rp, Floor: policy.Default.Quorum}
	for _, p := range s.persons {
		a := approval.Person{ID: p.ID.String(), Name: p.DisplayName, Approver: p.Can(identity.Approver), Disabled: p.Disabled}
		for _, k := range s.keys {
			if k.Person == p.ID {
				a.Passkeys = append(a.Passkeys, approval.Passkey{ID: k.ID, PublicKey: k.PublicKey, Software: k.Software, Revoked: k.RevokedAt != nil})
			}
		}
		e.Roster = append(e.Roster, a)
	}
	return e, nil
}

func (s *store) EventsOf(_ context.Context, id uuid.UUID) ([]pgstore.EventRow, error) {
	var rows []pgstore.EventRow
	for _, e := range s.record {
		if e.WithdrawalID != nil && *e.WithdrawalID == id {
			rows = append(rows, e)
		}
	}
	return rows, nil
}

func (s *store) Events(_ context.Context, cursor uuid.UUID, limit int, action, actor string) ([]pgstore.EventRow, uuid.UUID, error) {
	var rows []pgstore.EventRow
	for _, e := range slices.Backward(s.record) {
		if (cursor == uuid.Nil || bytes.Compare(e.ID[:], cursor[:]) < 0) && (action == "" || action == e.Action) && (actor == "" || actor == e.Actor) {
			rows = append(rows, e)
		}
	}
	if len(rows) > limit {
		return rows[:limit], rows[limit-1].ID, nil
	}
	return rows, uuid.Nil, nil
}

func (s *store) Changes(_ context.Context, since string) ([]uuid.UUID, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked != nil {
		s.asked <- struct{}{}
	}
	from := len(s.changes)
	if since != "" {
		if _, err := fmt.Sscan(since, &from); err != nil {
			return nil, since, err
		}
	}
	return slices.Clone(s.changes[from:]), fmt.Sprint(len(s.changes)), nil
}

func (s *store) Destinations(_ context.Context, account string) ([]whitelist.Destination, error) {
	return slices.DeleteFunc(slices.Clone(s.destinations), func(d whitelist.Destination) bool { return account != "" && d.Account != account }), nil
}

func (s *store) Destination(_ context.Context, id uuid.UUID) (whitelist.Destination, error) {
	for _, d := range s.destinations {
		if d.ID == id {
			return d, nil
		}
	}
	return whitelist.Destination{}, fmt.Errorf("no destination %s", id)
}

func (s *store) Chains(context.Context) ([]exchange.ChainConfig, time.Time, error) {
	return s.chains, now.Add(-2 * time.Minute), nil
}

func (s *store) Accounts(context.Context) ([]string, error) { return []string{"main", "otc"}, nil }

func (s *store) Health(context.Context) (pgstore.Health, error) { return s.health, nil }

func (s *store) Person(_ context.Context, id uuid.UUID) (identity.Person, error) {
	p, ok := s.persons[id]
	if !ok {
		return p, fault.New(fault.NotFound, "person_not_found", "there is no such person", "check the id")
	}
	return p, nil
}

func (s *store) Passkey(_ context.Context, id []byte) (identity.Passkey, error) {
	for _, k := range s.keys {
		if bytes.Equal(k.ID, id) {
			return k, nil
		}
	}
	return identity.Passkey{}, fault.New(fault.NotFound, "passkey_not_found", "there is no such passkey", "enrol it")
}

func (s *store) Passkeys(_ context.Context, person uuid.UUID) ([]identity.Passkey, error) {
	return slices.DeleteFunc(slices.Clone(s.keys), func(k identity.Passkey) bool { return k.Person != person }), nil
}

func (s *store) SignedIn(context.Context, []byte, uint32, time.Time) error { return nil }

func (s *store) Invitation(_ context.Context, hash []byte) (identity.Invitation, error) {
	i, ok := s.invitations[string(hash)]
	if !ok {
		return i, identity.UnknownInvitation()
	}
	return i, nil
}

func (s *store) Redeem(_ context.Context, hash []byte, k identity.Passkey, at time.Time) error {
	i := s.invitations[string(hash)]
	i.UsedAt = &at
	s.invitations[string(hash)] = i
	s.keys = append(s.keys, k)
	return nil
}

func (s *store) OpenVote(_ context.Context, person, id uuid.UUID, d approval.Decision, _ time.Time) ([]byte, approval.Digest, error) {
	w, err := s.find(id)
	if err != nil {
		return nil, approval.Digest{}, err
	}
	if w.Requester == "person:"+person.String() {
		return nil, approval.Digest{}, fault.New(fault.Forbidden, "requester_may_not_vote", "whoever asked for a withdrawal never counts towards it", "two other approvers must vote")
	}
	s.opened++
	nonce := bytes.Repeat([]byte{s.opened}, approval.NonceSize)
	s.nonces[string(nonce)] = string(d)
	return nonce, approval.Digest(w.Digest), nil
}

func (s *store) CastVote(ctx context.Context, id uuid.UUID, v approval.Vote, rp approval.Relying, at time.Time) (withdraw.Withdrawal, approval.Verdict, error) {
	w, err := s.find(id)
	if err != nil {
		return withdraw.Withdrawal{}, approval.Verdict{}, err
	}
	if s.nonces[string(v.Nonce)] != string(v.Decision) {
		return withdraw.Withdrawal{}, approval.Verdict{}, fault.New(fault.Conflict, "challenge_unknown", "this vote answers no challenge that is open", "vote afresh")
	}
	delete(s.nonces, string(v.Nonce))
	key, err := s.Passkey(ctx, v.Passkey)
	if err != nil {
		return withdraw.Withdrawal{}, approval.Verdict{}, err
	}
	if err := approval.CheckAssertion(v, approval.Passkey{ID: key.ID, PublicKey: key.PublicKey, Software: key.Software}, approval.Digest(w.Digest), rp); err != nil {
		return withdraw.Withdrawal{}, approval.Verdict{}, fault.New(fault.Forbidden, "assertion_invalid", err.Error(), "vote afresh")
	}
	s.ballots[id] = append(s.ballots[id], v)
	s.note(at, "person:"+v.Person, "vote.cast", id, canonical.Object{"decision": string(v.Decision), "reason": v.Reason})
	e, err := s.Evidence(ctx, id, rp)
	if err != nil {
		return withdraw.Withdrawal{}, approval.Verdict{}, err
	}
	verdict := approval.Verify(e, at)
	switch verdict.Standing {
	case approval.Approved:
		w.State = withdraw.Approved
	case approval.Rejected:
		w.State, w.Reason = withdraw.Rejected, v.Reason
	}
	return *w, verdict, nil
}

func (s *store) Cancel(_ context.Context, id uuid.UUID, actor, reason string, at time.Time) (withdraw.Withdrawal, error) {
	w, err := s.find(id)
	if err != nil {
		return withdraw.Withdrawal{}, err
	}
	w.State, w.ReasonCode, w.Reason = withdraw.Cancelled, "cancelled", reason
	s.note(at, actor, "withdrawal.cancelled", id, canonical.Object{"reason": reason})
	return *w, nil
}

// Submit decides as the desk does, and keeps the answer of each key.
func (s *store) Submit(_ context.Context, r withdraw.Request) (withdraw.Answer, error) {
	if s.broken != nil {
		return withdraw.Answer{}, s.broken
	}
	if no := r.Shape(); no != nil {
		return withdraw.Answer{}, no
	}
	if prior, ok := s.answers[r.Requester+r.IdempotencyKey]; ok {
		if !bytes.Equal(prior.BodyHash, r.BodyHash[:]) {
			return withdraw.Answer{}, fault.New(fault.Invalid, "idempotency_key_reused", "this Idempotency-Key was first sent with another body", "use a new key")
		}
		return prior.Answer, nil
	}
	read := now.Add(-time.Minute)
	f := withdraw.Facts{ClientActive: true, AssetKnown: true, ConfigReadAt: &read}
	for _, w := range s.list {
		if w.Reference == r.Reference && w.Requester == r.Requester && w.State != withdraw.Refused {
			f.ReferenceTaken = &w.ID
		}
	}
	for _, d := range s.destinations {
		if d.Key == r.Key {
			f.Destination = &withdraw.Listed{ID: d.ID, Version: d.Version, State: d.State, Reason: d.Reason}
		}
	}
	for _, c := range s.chains {
		if c.Asset == r.Asset && c.Chain == cmp.Or(r.Chain, c.Chain) {
			f.Chain = &withdraw.ChainFact{Version: 1, ChainConfig: c}
		}
	}
	entry, err := withdraw.Decide(r, f, policy.Default, uuid.Must(uuid.NewV7()), now)
	if err != nil {
		return withdraw.Answer{}, err
	}
	s.list = append(s.list, &entry.Withdrawal)
	s.sealed[entry.Withdrawal.ID] = entry.Sealed
	s.answers[r.Requester+r.IdempotencyKey] = withdraw.Prior{BodyHash: r.BodyHash[:], Answer: entry.Answer}
	return entry.Answer, nil
}

// until reads a stream up to and with a text.
func until(t *testing.T, r io.Reader, text string) string {
	t.Helper()
	var got []byte
	chunk := make([]byte, 1)
	for !strings.Contains(string(got), text) {
		if _, err := r.Read(chunk); err != nil {
			t.Fatalf("waiting for %q: %v after %q", text, err, got)
		}
		got = append(got, chunk[0])
	}
	return string(got)
}
