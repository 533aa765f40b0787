package web

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"sluice/internal/approval"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/identity"
	"sluice/internal/pgstore"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

func TestEveryStateHasAPageThatSaysWhatIsNext(t *testing.T) {
	h := newHouse(t)
	for _, state := range withdraw.States() {
		h.stand(state)
	}
	for _, name := range []string{"ana", "ben", "dora"} {
		b := h.as(name)
		for _, w := range h.list {
			page := b.page("/withdrawals/" + w.ID.String())
			text := seen(page)
			for _, want := range []string{string(w.State), "12500.5 USDT", "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", w.Reference, w.Purpose, w.ID.String(), "payroll (program)"} {
				if !strings.Contains(text, want) {
					t.Errorf("%s for %s: the page does not show %q", w.State, name, want)
				}
			}
			if !w.State.Final() && !strings.Contains(text, "Owner") {
				t.Errorf("%s: nobody owns it", w.State)
			}
			if w.Reason != "" && !strings.Contains(text, sentence(w.Reason)) {
				t.Errorf("%s: the page does not say why", w.State)
			}
			open := w.State == withdraw.Pending || w.State == withdraw.Absent
			if got := strings.Contains(page, `data-decision="approve"`); got != (open && name != "dora") {
				t.Errorf("%s for %s: approve button: %v", w.State, name, got)
			}
		}
	}
}

func TestEveryStateHasWordsAndAnOwnerUnlessItIsFinal(t *testing.T) {
	v := &approval.Verdict{Standing: approval.Open, Missing: 2}
	for _, state := range withdraw.States() {
		w := withdraw.Withdrawal{State: state, Account: "main", Reason: "a reason", ExpiresAt: &now, NextStepAt: &now}
		n := nextOf(w, v, now)
		if n.What == "" || strings.Contains(n.What, "no description") || brief(w, v) == "" || tones[state] == "" {
			t.Errorf("%s has no words", state)
		}
		if !state.Final() && n.Owner == "" {
			t.Errorf("%s has no owner", state)
		}
		if n := nextOf(w, v, now.Add(time.Minute)); n.By != nil && !n.Late {
			t.Errorf("%s: a clock that has run out is not called late", state)
		}
		if !slices.ContainsFunc(tabs(), func(t tab) bool { return slices.Contains(t.States, state) }) {
			t.Errorf("%s is in no tab but the last", state)
		}
	}
}

func TestLeavingStatesSayWhatNotToDo(t *testing.T) {
	for _, state := range []withdraw.State{withdraw.Unknown, withdraw.Absent, withdraw.Held} {
		if n := words(withdraw.Withdrawal{State: state}, nil); len(n.Not) == 0 || len(n.May) == 0 {
			t.Errorf("%s does not say what is allowed and what is not", state)
		}
	}
}

func TestQueue(t *testing.T) {
	h := newHouse(t)
	w := h.stand(withdraw.Pending)
	h.castBy("ben", h.list[0], now)
	h.stand(withdraw.Held)
	b := h.as("ana")

	text := seen(b.page("/withdrawals"))
	for _, want := range []string{"12500.5 USDT", "Payroll provider", "TJRabP…jpRTv8", "1 of 2", "Needs 1 more approval", "Needs votes 1", "Needs a person 1"} {
		if !strings.Contains(text, want) {
			t.Errorf("the queue does not show %q in %s", want, text)
		}
	}
	if strings.Count(b.page("/withdrawals"), `class="go"`) != 1 {
		t.Error("a held withdrawal is listed among those that need votes")
	}
	if page := b.page("/withdrawals?tab=all"); strings.Count(page, `class="go"`) != 2 || !strings.Contains(page, `title="`+w.Address+`"`) {
		t.Error("the last tab does not list all, with their addresses in full")
	}
	if text := seen(b.page("/withdrawals?tab=done")); !strings.Contains(text, "Nothing has ended yet") {
		t.Error("an empty tab does not say what that means")
	}
	if text := seen(b.page("/withdrawals?tab=all&reference=elsewhere")); !strings.Contains(text, "Nothing matches this filter") {
		t.Error("an empty result does not blame the filter")
	}
}

func TestQueuePagesByKeyset(t *testing.T) {
	h := newHouse(t)
	for range rowsPerPage + 3 {
		h.stand(withdraw.Refused)
	}
	b := h.as("dora")
	first := b.page("/withdrawals?tab=all&account=main")
	older := regexp.MustCompile(`href="([^"]*cursor=[^"]*)" rel="next"`).FindStringSubmatch(first)
	if strings.Count(first, `class="go"`) != rowsPerPage || older == nil {
		t.Fatal("the first page is not full, or does not lead on")
	}
	second := b.page(strings.ReplaceAll(older[1], "&amp;", "&"))
	if strings.Count(second, `class="go"`) != 3 || strings.Contains(second, `rel="next"`) || !strings.Contains(second, "Newest") {
		t.Error("the second page is not the rest")
	}
	if h.lastFilter.Account != "main" {
		t.Error("the filter is lost on the way to the next page")
	}
}

func TestFilters(t *testing.T) {
	h := newHouse(t)
	b := h.as("ana")
	b.page("/withdrawals?tab=all&state=held&account=main&asset=BTC&address=bc1&reference=R&requester=me&from=2026-11-01&to=2026-11-02")
	want := withdraw.Filter{States: []withdraw.State{withdraw.Held}, Account: "main", Asset: "BTC", Address: "bc1", Reference: "R",
		Requester: h.people["ana"].Actor(), From: day1(1), To: day1(3), Limit: rowsPerPage}
	if got := h.lastFilter; !slices.Equal(got.States, want.States) || got.Account != want.Account || got.Asset != want.Asset || got.Address != want.Address ||
		got.Reference != want.Reference || got.Requester != want.Requester || !got.From.Equal(want.From) || !got.To.Equal(want.To) || got.Limit != want.Limit {
		t.Errorf("filter %+v, want %+v", got, want)
	}
	b.page("/withdrawals?requester=payroll")
	if h.lastFilter.Requester != "client:payroll" {
		t.Errorf("a bare name is %q", h.lastFilter.Requester)
	}
	for _, bad := range []string{"state=nonsense", "from=yesterday", "to=2026-13-01", "cursor=x"} {
		if w := b.get("/withdrawals?" + bad); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "filter_malformed") {
			t.Errorf("%s: %d; a filter that cannot be read must not be dropped silently", bad, w.Code)
		}
	}
}

func day1(d int) time.Time { return time.Date(2026, 11, d, 0, 0, 0, 0, time.UTC) }

func TestLists(t *testing.T) {
	h := newHouse(t)
	w := h.stand(withdraw.Completed)
	h.health = pgstore.Health{
		Reads:    []pgstore.Read{{Account: "main", What: "config", At: now.Add(-time.Minute)}, {Account: "main", What: "balances", At: now.Add(-time.Hour)}},
		Balances: []pgstore.Balance{{Account: "main", Asset: "USDT", Available: amount("1842250.55"), Frozen: amount("0")}},
		Leases:   []pgstore.Lease{{Account: "main", Holder: uuid.New(), ExpiresAt: now.Add(-time.Second)}},
		Futures: []pgstore.FuturesRow{{Account: "main", Asset: "USDT", Available: amount("50"), Equity: amount("60.25"), Unrealized: amount("-1234567.5"),
			Reported: decimal.NewNullDecimal(amount("60"))}},
		Findings: []pgstore.Finding{
			{Account: "main", At: now.Add(-time.Minute), Since: now.Add(-2 * time.Hour), Finding: exchange.Finding{Check: "key", Standing: exchange.Broken, Cause: "key_expired",
				Says: "The key may have expired.", Fix: "Renew it.", Also: []exchange.Cause{{Code: "key_deleted", Says: "Or somebody deleted it.", Fix: "Look for it."}}}},
			{Account: "main", At: now.Add(-time.Minute), Since: now, Finding: exchange.Finding{Check: "two_factor", Standing: exchange.Doubtful, Cause: "not_confirmed", Says: "Nobody has confirmed it.", Fix: "Confirm it."}},
			{Account: "main", At: now.Add(-time.Minute), Since: now, Finding: exchange.Finding{Check: "latency", Standing: exchange.Well, Says: "An answer takes 21ms."}},
		},
	}
	b := h.as("dora")
	expect := func(path string, wants ...string) {
		text := seen(b.page(path))
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not show %q", path, want)
			}
		}
	}
	expect("/whitelist", "www.coinex.com/apikey", "another list", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", "2184410091", "quarantined", "code 3310", "Ana Duarte", "never yet")
	expect("/audit", "payroll (program) asked for this withdrawal", "worker of main saw the exchange finish it", "leaf 0", `"type": "sluice/event/1"`)
	if !strings.Contains(b.page("/audit"), `href="/withdrawals/`+w.ID.String()) {
		t.Error("an event does not lead to its withdrawal")
	}
	expect("/audit?action=vote.cast", "Ben Okafor approved")
	if strings.Contains(seen(b.page("/audit?action=vote.cast")), "asked for") {
		t.Error("the filter by action does not filter")
	}
	expect("/health", "1842250.55 USDT", "The balances of account main were last read 1 h 0 min ago", "No worker owns account main",
		"Account main: The key may have expired.", "Do: Renew it.", "Or: Or somebody deleted it. Look for it.", "Like this for 2 h 0 min", "two factor", "1 that need nobody", "An answer takes 21ms.",
		"60.25 USDT", "-1234567.5 USDT", "-0.25 USDT")
	lines := b.get("/whitelist/export")
	if want := "BTC,BTC,bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq,"; !strings.Contains(lines.Body.String(), want) || strings.Contains(lines.Body.String(), "TQn9Y2khEsLJW1ChVWFMSMeRDow5KcbLSE") {
		t.Errorf("the export lacks %s or holds what is quarantined: %s", want, lines.Body)
	}
	if strings.Contains(b.page("/whitelist"), "/withdrawals/new?destination") {
		t.Error("an auditor is offered to pay")
	}
}

// Whatever people and programs type is text, wherever it is shown.
func TestMarkupInDataStaysText(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}`
	h := newHouse(t)
	d := &h.destinations[0]
	d.Label, d.Memo, d.AttestedBy, d.Reason = evil, evil, evil, evil
	d.State = whitelist.Quarantined
	w := h.stand(withdraw.Completed, func(w *withdraw.Withdrawal) {
		w.Purpose, w.Reference, w.Memo, w.Requester = evil, evil, evil, "client:"+evil
	})
	h.list[0].TxID, h.list[0].ExchangeStatus, h.list[0].ReasonCode, h.list[0].Reason, h.list[0].Fix = evil, evil, evil, evil, evil
	h.tries[w.ID][0].Message, h.tries[w.ID][0].Response = evil, []byte(evil)
	h.note(now, evil, evil, w.ID, map[string]any{"reason": evil})
	h.ballots[w.ID][0].Reason = evil
	b := h.as("ana")
	for _, path := range []string{"/withdrawals/" + w.ID.String(), "/withdrawals?tab=all", "/withdrawals?tab=all&reference=" + url.QueryEscape(evil),
		"/withdrawals/new", "/whitelist", "/audit", "/audit?actor=" + url.QueryEscape(evil)} {
		page := b.page(path)
		if strings.Contains(page, "<script>alert") || strings.Contains(page, "<img") {
			t.Errorf("%s lets markup through", path)
		}
	}
	if r := b.post("/withdrawals/new", url.Values{"purpose": {evil}, "reference": {evil}, "amount": {evil}, "max_fee": {evil}, "key": {evil}}); strings.Contains(r.Body.String(), "<script>alert") {
		t.Error("the form lets markup through")
	}
}

var inline = regexp.MustCompile(`(?i)\sstyle\s*=|<style|\son[a-z]+\s*=|javascript:|<script(?:\s+type="module")?\s*>`)

func TestNothingIsInline(t *testing.T) {
	entries, err := fs.ReadDir(files, "templates")
	if err != nil || len(entries) == 0 {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := fs.ReadFile(files, "templates/"+e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if bad := inline.Find(b); bad != nil {
			t.Errorf("%s holds %q, which the Content-Security-Policy blocks", e.Name(), bad)
		}
	}
	for _, bad := range []string{`<p style="x">`, `<script>x`, `<a onclick="x">`, `<a href="javascript:x">`} {
		if !inline.MatchString(bad) {
			t.Errorf("the scan would miss %s", bad)
		}
	}
}

func TestEveryAnswerCarriesTheHeaders(t *testing.T) {
	h := newHouse(t)
	w := h.stand(withdraw.Pending)
	b := h.as("ana")
	for _, path := range []string{"/withdrawals", "/withdrawals/" + w.ID.String(), "/nowhere", "/signin", "/enrol/x"} {
		header := b.get(path).Header()
		policy := header.Get("Content-Security-Policy")
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || strings.Contains(policy, "data:") ||
			!strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; style-src 'self';") || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("%s: policy %q", path, policy)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-store"} {
			if got := header.Values(name); !slices.Contains(got, want) {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		if !strings.Contains(header.Get("Permissions-Policy"), "publickey-credentials-get=(self)") {
			t.Errorf("%s: passkeys are not permitted", path)
		}
	}
}

func TestAssetsKeepForGoodUnderTheirHash(t *testing.T) {
	h := newHouse(t)
	b := h.visitor()
	for name, kind := range map[string]string{"sluice.css": "text/css", "sluice.js": "text/javascript", "passkey.js": "text/javascript", "favicon.svg": "image/svg+xml"} {
		path := regexp.MustCompile(`/assets/[0-9a-f]+/`).FindString(b.page("/signin"))
		w := b.get(path + name)
		if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") || w.Body.Len() == 0 {
			t.Errorf("%s: %d %v", name, w.Code, w.Header())
		}
	}
	if w := b.get("/assets/000000000000/sluice.css"); w.Code != http.StatusNotFound {
		t.Errorf("another build's file: %d", w.Code)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	h := newHouse(t)
	b := h.as("ana")
	for path, code := range map[string]int{"/nowhere": 404, "/withdrawals/nonsense": 404, "/withdrawals/" + uuid.NewString(): 404, "/enrol/bad": 404} {
		w := b.get(path)
		if w.Code != code || !strings.Contains(w.Body.String(), "What to do") {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestWhatBreaksIsLoggedAndNotTold(t *testing.T) {
	h := newHouse(t)
	b := h.as("ana")
	h.broken = errors.New("password=hunter2 at 10.0.0.7")
	w := b.get("/withdrawals/" + uuid.NewString())
	page := w.Body.String()
	if w.Code != http.StatusInternalServerError || strings.Contains(page, "hunter2") {
		t.Fatalf("%d %s", w.Code, page)
	}
	reference := regexp.MustCompile(`reference ([A-Z2-7]{10})`).FindStringSubmatch(page)
	if reference == nil || !strings.Contains(h.log.String(), reference[1]) || !strings.Contains(h.log.String(), "hunter2") {
		t.Errorf("the page's reference does not lead to the log: %s", h.log)
	}
}

func TestPanicBecomesAPage(t *testing.T) {
	h := newHouse(t, func(d *Deps) { d.Desk = nil })
	b := h.as("ana")
	form := goodForm(h, b)
	if w := b.post("/withdrawals/new", form); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "Something broke on our side") {
		t.Errorf("%d", w.Code)
	}
}

func TestPieces(t *testing.T) {
	for in, want := range map[string]string{"1": "1", "999": "999", "1000": "1|000", "1250000.5": "1|250|000.5", "0.00012345": "0.00012345", "123456": "123|456"} {
		groups, rest := digits(in)
		if got := strings.Join(append(groups, rest), "|"); got != want {
			t.Errorf("digits(%s) = %s, want %s", in, got, want)
		}
	}
	for _, address := range []string{"", "abc", "abcd", "abcde", "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", "añb€c"} {
		if got := strings.Join(quad(address), ""); got != address {
			t.Errorf("quad(%q) is %q when copied", address, got)
		}
	}
	for d, want := range map[time.Duration]string{-time.Hour: "under 1 min", 59 * time.Second: "under 1 min", time.Minute: "1 min", 90 * time.Minute: "1 h 30 min", 47 * time.Hour: "47 h 0 min", 49 * time.Hour: "2 days"} {
		if got := span(d); got != want {
			t.Errorf("span(%s) = %s, want %s", d, got, want)
		}
	}
}

func TestUnknownEventsAreToldByTheirName(t *testing.T) {
	e := told(pgstore.EventRow{Action: "destination.thawed_again", Body: []byte(`not json`)}, "Ana")
	if e.Text != "destination thawed again" {
		t.Errorf("%q", e.Text)
	}
}

func TestForeignHosts(t *testing.T) {
	h := newHouse(t)
	ask := func(method, host, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, strings.NewReader("{}"))
		r.Host = host
		r.Header.Set("Content-Type", "application/json")
		return h.visitor().do(r)
	}
	for _, host := range []string{"127.0.0.1:8080", "[::1]:8080"} {
		if w := ask(http.MethodGet, host, "/signin?next=%2Faudit"); w.Code != http.StatusTemporaryRedirect || w.Header().Get("Location") != origin+"/signin?next=%2Faudit" {
			t.Errorf("%s: %d to %q", host, w.Code, w.Header().Get("Location"))
		}
	}
	if w := ask(http.MethodPost, "127.0.0.1:8080", "/signin/options"); w.Code != http.StatusOK {
		t.Errorf("a program of this machine: %d", w.Code)
	}
	for _, path := range []string{"/signin", "/dev/people"} {
		if w := ask(http.MethodGet, "evil.example:8080", path); w.Code != http.StatusForbidden {
			t.Errorf("a name that somebody pointed at us is answered: %d", w.Code)
		}
	}
}

func TestNewRefusesAnOriginThatIsNone(t *testing.T) {
	for _, origins := range [][]string{nil, {"localhost"}, {"http://localhost/path"}} {
		if _, err := New(Deps{Relying: approval.Relying{Origins: origins}, Now: time.Now}); err == nil {
			t.Errorf("%q is taken for an origin", origins)
		}
	}
}

func TestRolesAndReasonsOfTheBallot(t *testing.T) {
	h := newHouse(t)
	mine := h.stand(withdraw.Pending, func(w *withdraw.Withdrawal) { w.Requester = h.people["ana"].Actor() })
	theirs := h.stand(withdraw.Pending)
	h.castBy("ben", h.list[1], now)
	lapsed := h.stand(withdraw.Pending, func(w *withdraw.Withdrawal) { past := now.Add(-time.Minute); w.ExpiresAt = &past })
	for _, c := range []struct {
		who  string
		id   uuid.UUID
		may  bool
		says string
	}{
		{"ana", mine.ID, false, "You asked for this withdrawal, so your vote does not count. It needs 2 approvals from others."},
		{"ana", theirs.ID, true, ""},
		{"ben", theirs.ID, false, "You have approved this."},
		{"dora", theirs.ID, false, "You are not an approver"},
		{"chen", lapsed.ID, false, "The time for votes has passed."},
	} {
		page := h.as(c.who).page("/withdrawals/" + c.id.String())
		if strings.Contains(page, "data-decision") != c.may || !strings.Contains(seen(page), c.says) {
			t.Errorf("%s: may vote %v, and is not told %q", c.who, !c.may, c.says)
		}
	}
	if !strings.Contains(h.as("ana").page("/withdrawals/"+mine.ID.String()), `id="cancel"`) || strings.Contains(h.as("ana").page("/withdrawals/"+theirs.ID.String()), `id="cancel"`) {
		t.Error("cancel is offered to others than the requester, or not to them")
	}
}

func TestForgedVotesAreShownAsSuch(t *testing.T) {
	h := newHouse(t)
	w := h.stand(withdraw.Pending)
	h.castBy("ben", h.list[0], now)
	h.ballots[w.ID][0].Signature[8] ^= 1
	text := seen(h.as("chen").page("/withdrawals/" + w.ID.String()))
	if !strings.Contains(text, "The votes do not verify") || !strings.Contains(text, "nobody can vote here") {
		t.Error("a forged vote is shown as a vote")
	}
}

func TestCancel(t *testing.T) {
	h := newHouse(t)
	mine := h.stand(withdraw.Pending, func(w *withdraw.Withdrawal) { w.Requester = h.people["ana"].Actor() })
	theirs := h.stand(withdraw.Pending)
	b := h.as("ana")
	if w := b.post("/withdrawals/"+theirs.ID.String()+"/cancel", url.Values{}); w.Code != http.StatusForbidden || h.list[1].State != withdraw.Pending {
		t.Errorf("another's withdrawal: %d, %s", w.Code, h.list[1].State)
	}
	if w := b.post("/withdrawals/"+mine.ID.String()+"/cancel", url.Values{"reason": {strings.Repeat("x", 501)}}); w.Code != http.StatusUnprocessableEntity || h.list[0].State != withdraw.Pending {
		t.Errorf("a reason that the record cannot hold: %d", w.Code)
	}
	if w := b.post("/withdrawals/"+mine.ID.String()+"/cancel", url.Values{"reason": {"paid by card"}}); w.Code != http.StatusSeeOther || h.list[0].State != withdraw.Cancelled || h.list[0].Reason != "paid by card" {
		t.Errorf("%d, %s because %q", w.Code, h.list[0].State, h.list[0].Reason)
	}
	// What votes can no longer stop, one approver can.
	held := h.stand(withdraw.Held)
	if w := h.as("dora").post("/withdrawals/"+held.ID.String()+"/cancel", url.Values{}); w.Code != http.StatusForbidden {
		t.Errorf("an auditor cancels a held withdrawal: %d", w.Code)
	}
	if w := h.as("ben").post("/withdrawals/"+held.ID.String()+"/cancel", url.Values{}); w.Code != http.StatusSeeOther {
		t.Errorf("an approver cancels a held withdrawal: %d", w.Code)
	}
	// Whoever lost the role since may no longer take back what they asked for.
	again := h.stand(withdraw.Pending, func(w *withdraw.Withdrawal) { w.Requester = h.people["ana"].Actor() })
	p := h.people["ana"]
	p.Roles = []identity.Role{identity.Auditor}
	h.persons[p.ID] = p
	if w := b.post("/withdrawals/"+again.ID.String()+"/cancel", url.Values{}); w.Code != http.StatusForbidden {
		t.Errorf("without the role: %d", w.Code)
	}
}

func TestProblemsOfTheDeskReachTheirFields(t *testing.T) {
	for api, want := range map[string]string{"amount": "amount", "address": "destination", "max_fee": "max_fee", "expires_in": "expires", "requester": ""} {
		if got := fieldOf(api); got != want {
			t.Errorf("%s belongs to %q, want %q", api, got, want)
		}
	}
	if got := fault.ProblemOf(nil).Status; got != http.StatusInternalServerError {
		t.Errorf("%d", got)
	}
}
