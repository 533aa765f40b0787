package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/httpapi"
	"sluice/internal/identity"
	"sluice/internal/withdraw"
)

func TestIntakeGetsWhatWasMeant(t *testing.T) {
	b := setup(t)
	f := good()
	f["memo"], f["max_fee"], f["expires_in"] = "7", "4.80", "90m"
	if a := b.send(t, b.request("POST", "/v1/withdrawals", text(f))); a.status != 201 || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	r := b.desk.took[0]
	if r.Requester != "client:payroll" || r.IdempotencyKey != "key-1" || string(r.ClientKey) != string(b.key[32:]) {
		t.Errorf("the sender is %+v", r)
	}
	if r.Account != "main" || r.Method != exchange.OnChain || r.Asset != "USDT" || r.Chain != "TRC20" || r.Memo != "7" ||
		r.Address != "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8" || r.Amount.String() != "25.5" || r.MaxFee.String() != "4.8" ||
		r.Reference != "invoice-1" || r.Purpose != "rent" || r.ExpiresIn != 90*time.Minute {
		t.Errorf("the request is %+v", r)
	}
}

// The hash that a key is remembered with is of the meaning: another spelling of the
// same payout is the same request, and any other payout is another.
func TestBodyHash(t *testing.T) {
	hash := func(body string) [32]byte {
		t.Helper()
		b := setup(t)
		if a := b.send(t, b.request("POST", "/v1/withdrawals", body)); a.status != 201 {
			t.Fatalf("%s: %d %s", body, a.status, a.body)
		}
		return b.desk.took[0].BodyHash
	}
	base := hash(text(good()))
	for name, same := range map[string]string{
		"other order and spaces": `{ "purpose":"rent", "reference":"invoice-1","amount":"25.5",` + "\n\t" + `"address":"TJRabPrwbZy45sbavfcjinPJC18kjpRTv8","chain":"TRC20","asset":"USDT","account":"main"}`,
		"escapes":                withRaw("purpose", `"\u0072ent"`),
		"zeros behind":           with("amount", "25.500"),
		"the default method":     with("method", "on_chain"),
		"the default memo":       with("memo", ""),
	} {
		if hash(same) != base {
			t.Errorf("%s changes the hash", name)
		}
	}
	seen := map[[32]byte]string{base: "the request itself"}
	for name, other := range map[string]string{
		"asset": with("asset", "USDC"), "chain": with("chain", "BSC"), "address": with("address", "other"), "memo": with("memo", "1"),
		"amount": with("amount", "25.51"), "reference": with("reference", "invoice-2"), "purpose": with("purpose", "Rent"),
		"a fee of zero": with("max_fee", "0"), "a fee": with("max_fee", "1"), "an end": with("expires_in", "24h"), "another end": with("expires_in", "23h"),
		"method": strings.Replace(strings.Replace(with("method", "inter_user"), `"TRC20"`, `""`, 1), "TJR", "a@b.c", 1),
	} {
		h := hash(other)
		if before, taken := seen[h]; taken {
			t.Errorf("%s has the hash of %s", name, before)
		}
		seen[h] = name
	}
}

func TestStoredAnswersPassVerbatim(t *testing.T) {
	for name, c := range map[string]struct {
		answer withdraw.Answer
		kind   string
	}{
		"accepted": {withdraw.Answer{Status: 201, Body: withdraw.JSON(stock()[mine], 2)}, "application/json"},
		"refused": {withdraw.Answer{Status: 422, Body: fault.Problem{Type: "about:blank", Title: "Unprocessable Entity", Status: 422, Detail: "not listed",
			Code: "destination_not_listed", Fix: "list it", Withdrawal: refused.String()}.JSON()}, "application/problem+json"},
	} {
		b := setup(t)
		b.desk.answer = &c.answer
		a := b.send(t, b.request("POST", "/v1/withdrawals", text(good())))
		if a.status != c.answer.Status || string(a.body) != string(c.answer.Body) || a.header.Get("Content-Type") != c.kind {
			t.Errorf("%s: %d %s %s", name, a.status, a.header.Get("Content-Type"), a.body)
		}
	}
}

func TestLookUp(t *testing.T) {
	b := setup(t)
	for id, votes := range map[uuid.UUID]int{mine: 2, over: 2, refused: 0} {
		a := b.send(t, b.request("GET", "/v1/withdrawals/"+id.String(), ""))
		if a.status != 200 || string(a.body) != string(withdraw.JSON(b.shelf.all[id], votes)) {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	a := b.send(t, b.request("GET", "/v1/withdrawals/"+mine.String()+"/events", ""))
	var got struct {
		Events []struct {
			Actor, Action, At string
			Seq               *int64
			Detail            map[string]string
		}
	}
	if err := json.Unmarshal(a.body, &got); err != nil || len(got.Events) != 2 {
		t.Fatalf("%v %s", err, a.body)
	}
	first, second := got.Events[0], got.Events[1]
	if first.Actor != "client:payroll" || first.Action != "withdrawal.requested" || first.At != "2026-11-23T12:00:00.000Z" ||
		*first.Seq != 7 || first.Detail["amount"] != "25.5" || second.Seq != nil || second.Detail != nil {
		t.Errorf("%s", a.body)
	}
}

// What is another client's looks exactly like what does not exist.
func TestOthersWithdrawalsDoNotExist(t *testing.T) {
	for _, route := range []struct{ method, path string }{
		{"GET", ""}, {"GET", "/events"}, {"POST", "/cancel"},
	} {
		var first string
		for _, id := range []string{theirs.String(), uuid.NewString(), "x", "{" + mine.String() + "}", strings.ReplaceAll(mine.String(), "-", ""), "a%00b"} {
			b := setup(t)
			a := b.send(t, b.request(route.method, "/v1/withdrawals/"+id+route.path, ""))
			if first == "" {
				first = string(a.body)
			}
			if a.status != 404 || a.code() != "withdrawal_not_found" || string(a.body) != first {
				t.Errorf("%s %s: %d %s", route.method, id, a.status, a.body)
			}
			if len(b.shelf.cancelled) != 0 {
				t.Errorf("%s was cancelled", id)
			}
		}
	}
}

func TestEveryRouteAsksForItsScope(t *testing.T) {
	for target, scope := range map[string]string{
		"POST /v1/withdrawals": identity.ScopeWrite, "POST /v1/withdrawals/" + mine.String() + "/cancel": identity.ScopeWrite,
		"GET /v1/withdrawals": identity.ScopeRead, "GET /v1/withdrawals/" + mine.String(): identity.ScopeRead,
		"GET /v1/withdrawals/" + mine.String() + "/events": identity.ScopeRead,
	} {
		method, path, _ := strings.Cut(target, " ")
		for _, has := range []string{identity.ScopeRead, identity.ScopeWrite} {
			b := setup(t)
			body := ""
			if target == "POST /v1/withdrawals" {
				body = text(good())
			}
			r := b.request(method, path, body)
			r.Header.Set("Authorization", "Bearer "+b.sign(t, "payroll", noon, has))
			a := b.send(t, r)
			if a.status >= 300 != (has != scope) || has != scope && a.code() != "scope_missing" {
				t.Errorf("%s with %s: %d %s", target, has, a.status, a.body)
			}
		}
		b := setup(t)
		r := b.request(method, path, "")
		r.Header.Del("Authorization")
		if a := b.send(t, r); a.status != 401 {
			t.Errorf("%s without a token: %d", target, a.status)
		}
	}
}

func TestListFilters(t *testing.T) {
	b := setup(t)
	b.shelf.next = over
	q := url.Values{
		"state": {"pending,approved", "held", "held"}, "account": {"main"}, "asset": {"USDT"}, "address": {"T x"}, "reference": {"invoice-1"},
		"requester": {"client:payroll"}, "from": {"2026-11-23T10:00:00Z"}, "to": {"2026-11-24T10:00:00.5+02:00"}, "limit": {"200"}, "cursor": {mine.String()},
	}
	a := b.send(t, b.request("GET", "/v1/withdrawals?"+q.Encode(), ""))
	want := withdraw.Filter{
		States:  []withdraw.State{withdraw.Pending, withdraw.Approved, withdraw.Held},
		Account: "main", Asset: "USDT", Address: "T x", Reference: "invoice-1", Requester: "client:payroll",
		From: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC), To: time.Date(2026, 11, 24, 8, 0, 0, 5e8, time.UTC), Cursor: mine, Limit: 200,
	}
	if d := cmp.Diff(want, b.shelf.asked); d != "" {
		t.Error(d)
	}
	var page struct {
		Withdrawals []struct{ ID, Requester string }
		NextCursor  string `json:"next_cursor"`
	}
	if err := json.Unmarshal(a.body, &page); err != nil || len(page.Withdrawals) != 3 || page.NextCursor != over.String() {
		t.Errorf("%v %s", err, a.body)
	}

	b = setup(t)
	b.shelf.all = nil
	if a := b.send(t, b.request("GET", "/v1/withdrawals", "")); string(a.body) != `{"withdrawals":[]}`+"\n" {
		t.Errorf("an empty list is %s", a.body)
	}
	if b.shelf.asked.Requester != "client:payroll" {
		t.Errorf("a list without filters asks for %q", b.shelf.asked.Requester)
	}
}

func TestBadQueries(t *testing.T) {
	for query, want := range map[string]struct {
		status int
		code   string
		field  string
	}{
		"requester=client:billing":              {403, "requester_not_allowed", "requester"},
		"requester=":                            {403, "requester_not_allowed", "requester"},
		"states=pending":                        {422, "query_unknown", "states"},
		"State=pending":                         {422, "query_unknown", "State"},
		"state=Pending":                         {422, "query_invalid", "state"},
		"state=":                                {422, "query_invalid", "state"},
		"state=pending,":                        {422, "query_invalid", "state"},
		"account=main&account=treasury":         {422, "query_invalid", "account"},
		"account=":                              {422, "query_invalid", "account"},
		"address=a%00b":                         {422, "text_invalid", "address"},
		"address=%ff":                           {422, "text_invalid", "address"},
		"reference=" + strings.Repeat("x", 257): {422, "field_too_long", "reference"},
		"from=yesterday":                        {422, "query_invalid", "from"},
		"to=2026-11-23":                         {422, "query_invalid", "to"},
		"from=2026-11-23T10:00:00+02:00":        {422, "query_invalid", "from"}, // the plus sign is a space
		"limit=0":                               {422, "query_invalid", "limit"},
		"limit=201":                             {422, "query_invalid", "limit"},
		"limit=1e1":                             {422, "query_invalid", "limit"},
		"limit=99999999999999999999":            {422, "query_invalid", "limit"},
		"cursor=x":                              {422, "query_invalid", "cursor"},
		"a=1;b=2":                               {400, "query_malformed", ""},
		"a=%":                                   {400, "query_malformed", ""},
	} {
		b := setup(t)
		r := b.request("GET", "/v1/withdrawals", "")
		r.URL.RawQuery = query
		a := b.send(t, r)
		var p fault.Problem
		if err := json.Unmarshal(a.body, &p); err != nil || a.status != want.status || p.Code != want.code || p.Field != want.field {
			t.Errorf("%s: %d %s, want %+v", query, a.status, a.body, want)
		}
		if b.shelf.asked.Requester != "" {
			t.Errorf("%s: the store was asked", query)
		}
	}
}

func TestCancel(t *testing.T) {
	path := "/v1/withdrawals/" + mine.String() + "/cancel"
	for body, reason := range map[string]string{
		``: "taken back by its requester", `{}`: "taken back by its requester", `{"reason":""}`: "taken back by its requester",
		`{"reason":"paid by card"}`: "paid by card",
	} {
		b := setup(t)
		r := b.request("POST", path, body)
		r.Header.Del("Idempotency-Key") // it needs none: what is cancelled stays so
		if body == "" {
			r.Header.Del("Content-Type")
		}
		a := b.send(t, r)
		if a.status != 200 || !slices.Equal(b.shelf.cancelled, []string{"client:payroll", reason}) || !strings.Contains(string(a.body), `"state":"cancelled"`) {
			t.Errorf("%q: %d %s, cancelled %q", body, a.status, a.body, b.shelf.cancelled)
		}
	}
	for body, want := range map[string]string{
		`[]`: "body_malformed", `{"reason":1}`: "field_not_string", `{"why":"x"}`: "field_unknown", `{"reason":"a\u0000b"}`: "text_invalid",
		`{"reason":"` + strings.Repeat("x", 501) + `"}`: "field_too_long", `{"reason":"a","reason":"b"}`: "field_repeated",
	} {
		b := setup(t)
		if a := b.send(t, b.request("POST", path, body)); a.code() != want || len(b.shelf.cancelled) != 0 {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	b := setup(t)
	if a := b.send(t, b.request("POST", "/v1/withdrawals/"+over.String()+"/cancel", "")); a.status != 409 || a.code() != "not_cancellable" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// Nothing of an internal error reaches the outside, all of it reaches the log, and
// the same request id stands in both.
func TestInternalErrorsStayInside(t *testing.T) {
	cause := errors.New("dial tcp 10.0.0.7:5432: password authentication failed")
	for name, spoil := range map[string]func(*bundle){
		"the store fails":  func(b *bundle) { b.shelf.err = cause },
		"the store panics": func(b *bundle) { b.shelf.broken = cause },
	} {
		b := setup(t)
		spoil(b)
		r := b.request("GET", "/v1/withdrawals", "")
		r.Header.Set("X-Request-Id", "trace-7")
		a := b.send(t, r)
		if a.status != 500 || a.code() != "internal" || strings.Contains(string(a.body), "10.0.0.7") || a.header.Get("X-Request-Id") != "trace-7" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if log := b.log.String(); !strings.Contains(log, cause.Error()) || !strings.Contains(log, "trace-7") {
			t.Errorf("%s: the log is %s", name, log)
		}
	}
	b := setup(t)
	b.desk.err = cause
	if a := b.send(t, b.request("POST", "/v1/withdrawals", text(good()))); a.status != 500 || strings.Contains(string(a.body), "10.0.0.7") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestUnavailableSaysWhenToComeBack(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code string
	}{
		"a fault":   {fault.New(fault.Unavailable, "busy", "too many requests are waiting", "try again"), "busy"},
		"a timeout": {context.DeadlineExceeded, "timed_out"},
	} {
		b := setup(t)
		b.desk.err = c.err
		a := b.send(t, b.request("POST", "/v1/withdrawals", text(good())))
		if a.status != 503 || a.code() != c.code || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s %v", name, a.status, a.body, a.header)
		}
	}
}

func TestFaultsOfIntakePassThrough(t *testing.T) {
	for kind, status := range map[fault.Kind]int{fault.Conflict: 409, fault.Invalid: 422, fault.Unauthorized: 401} {
		b := setup(t)
		b.desk.err = fault.New(kind, "some_code", "what is wrong", "what to do").Because(errors.New("secret cause"))
		a := b.send(t, b.request("POST", "/v1/withdrawals", text(good())))
		if a.status != status || a.code() != "some_code" || strings.Contains(string(a.body), "secret") {
			t.Errorf("%s: %d %s", kind, a.status, a.body)
		}
	}
}

// A caller that hangs up is no failure of ours, in neither the log nor the metrics.
func TestCallerHangsUp(t *testing.T) {
	b := setup(t)
	b.desk.err = context.Canceled
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b.api.ServeHTTP(httptest.NewRecorder(), b.request("POST", "/v1/withdrawals", text(good())).WithContext(ctx))
	if log := b.log.String(); strings.Contains(log, `"level":"ERROR"`) || !strings.Contains(log, `"status":499`) {
		t.Error(log)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	b := setup(t)
	for _, c := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", "/nothing", 404, "route_not_found"},
		{"GET", "/v1/nothing", 404, "route_not_found"},
		{"GET", "/v2/withdrawals", 404, "route_not_found"},
		{"DELETE", "/v1/withdrawals/" + mine.String(), 405, "method_not_allowed"},
		{"PUT", "/v1/withdrawals", 405, "method_not_allowed"},
		{"POST", "/healthz", 405, "method_not_allowed"},
		{"BREW", "/docs", 405, "method_not_allowed"},
	} {
		a := b.send(t, b.request(c.method, c.path, ""))
		if a.status != c.status || a.code() != c.code {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.status, a.body)
		}
		if c.status == 405 && a.header.Get("Allow") == "" {
			t.Errorf("%s %s does not say what is allowed", c.method, c.path)
		}
	}
}

func TestOps(t *testing.T) {
	b := setup(t)
	get := func(path string) answer {
		r := httptest.NewRequest("GET", path, nil) // without a token
		return b.send(t, r)
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/openapi.yaml", "/docs", "/docs/style.css"} {
		if a := get(path); a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	b.ready = errors.New("dial tcp 10.0.0.7:5432: refused")
	a := get("/readyz")
	if a.status != 503 || a.code() != "not_ready" || strings.Contains(string(a.body), "10.0.0.7") || !strings.Contains(b.log.String(), "10.0.0.7") {
		t.Errorf("%d %s", a.status, a.body)
	}
	b.ready = fault.New(fault.Unavailable, "schema_old", "the database waits for `sluice migrate`", "run it")
	if a := get("/readyz"); a.status != 503 || !strings.Contains(string(a.body), "sluice migrate") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := get("/healthz"); a.status != 200 {
		t.Errorf("a process that is not ready is alive: %d", a.status)
	}
	b.send(t, b.request("BREW", "/v1/withdrawals/"+mine.String(), ""))
	b.send(t, b.request("GET", "/"+strings.Repeat("x", 50), ""))
	metrics := string(get("/metrics").body)
	for _, line := range []string{
		`sluice_http_request_seconds_count{method="GET",route="/readyz",status="503"} 2`,
		`sluice_http_request_seconds_count{method="other",route="/v1/withdrawals/:id",status="405"} 1`,
		`sluice_http_request_seconds_count{method="GET",route="unmatched",status="404"} 1`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("no %s in\n%s", line, metrics)
		}
	}
}

func TestRequestIDsAreOursOrPlain(t *testing.T) {
	for sent, kept := range map[string]bool{"trace-7": true, "": false, "a b": false, "a\nlevel=ERROR": false, strings.Repeat("x", 65): false} {
		b := setup(t)
		r := b.request("GET", "/healthz", "")
		r.Header.Set("X-Request-Id", sent)
		if got := b.send(t, r).header.Get("X-Request-Id"); (got == sent) != kept {
			t.Errorf("%q became %q", sent, got)
		}
	}
}

// Every route is described, every description is a route, and all lie where Paths says.
func TestRoutesAndDescriptionAgree(t *testing.T) {
	b := setup(t)
	var served, described []string
	for _, r := range b.api.Routes() {
		path := strings.ReplaceAll(r.Path, ":id", "{id}")
		served = append(served, r.Method+" "+path)
		if !slices.ContainsFunc(httpapi.Paths, func(p string) bool { return p == path || strings.HasSuffix(p, "/") && strings.HasPrefix(path, p) }) {
			t.Errorf("%s lies outside of Paths", path)
		}
	}
	for path, item := range b.check.doc.Paths.Map() {
		for method := range item.Operations() {
			described = append(described, method+" "+path)
		}
	}
	slices.Sort(served)
	slices.Sort(described)
	if d := cmp.Diff(described, served); d != "" {
		t.Error(d)
	}
}

// The description lists the states and the fields that the code has.
func TestDescriptionSpeaksOfTheSameThings(t *testing.T) {
	b := setup(t)
	schemas := b.check.doc.Components.Schemas
	var states []any
	for _, s := range withdraw.States() {
		states = append(states, string(s))
	}
	if d := cmp.Diff(states, schemas["State"].Value.Enum); d != "" {
		t.Error(d)
	}
	// The harness refuses undescribed fields in answers; here are those of requests.
	for field := range schemas["WithdrawalRequest"].Value.Properties {
		a := b.send(t, b.request("POST", "/v1/withdrawals", with(field, 1)))
		if a.code() != "field_not_string" {
			t.Errorf("%s is described, but the answer is %s", field, a.body)
		}
	}
	a := b.send(t, b.request("POST", "/v1/withdrawals", `{"?":""}`))
	var p fault.Problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Split(strings.TrimPrefix(p.Fix, "use "), ", ") {
		if schemas["WithdrawalRequest"].Value.Properties[field] == nil {
			t.Errorf("%s is taken and not described", field)
		}
	}
}

func TestDocsPage(t *testing.T) {
	b := setup(t)
	a := b.send(t, httptest.NewRequest("GET", "/docs", nil))
	page := string(a.body)
	for _, forbidden := range []string{"<script", "style=", "<style", "onclick", "http://", "https://"} {
		if strings.Contains(page, forbidden) {
			t.Errorf("the page holds %s", forbidden)
		}
	}
	if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Error(csp)
	}
	for _, item := range b.check.doc.Paths.Map() {
		for _, op := range item.Operations() {
			if !strings.Contains(page, `<section id="`+op.OperationID+`">`) {
				t.Errorf("%s is not on the page", op.OperationID)
			}
		}
	}
	for _, word := range []string{"<code>withdrawals:write</code>", "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", "Idempotency-Key", `href="#Withdrawal"`} {
		if !strings.Contains(page, word) {
			t.Errorf("the page says nothing of %s", word)
		}
	}
	for _, link := range strings.Split(page, `href="#`)[1:] {
		id, _, _ := strings.Cut(link, `"`)
		if !strings.Contains(page, `id="`+id+`"`) {
			t.Errorf("a link leads to #%s, and nothing is there", id)
		}
	}
}

func TestServerHasBounds(t *testing.T) {
	b := setup(t)
	s := httpapi.NewServer(b.api, slog.New(slog.DiscardHandler))
	if s.ReadHeaderTimeout == 0 || s.ReadTimeout == 0 || s.WriteTimeout == 0 || s.IdleTimeout == 0 || s.MaxHeaderBytes == 0 || s.Handler != http.Handler(b.api) {
		t.Errorf("%+v", s)
	}
}
