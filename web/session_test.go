package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/internal/approval"
	"sluice/internal/identity"
	"sluice/internal/withdraw"
)

// vote walks the two endpoints as a page does and returns the last answer.
func (b *browser) vote(name, id, ask, send, reason string) *httptest.ResponseRecorder {
	b.h.t.Helper()
	var begun struct {
		Nonce     string          `json:"nonce"`
		PublicKey json.RawMessage `json:"publicKey"`
	}
	b.json("/withdrawals/"+id+"/vote/options", map[string]any{"decision": ask}, &begun, http.StatusOK)
	var credential json.RawMessage
	b.json("/dev/passkey/get", map[string]any{"person": name, "publicKey": begun.PublicKey}, &credential, http.StatusOK)
	return b.send("/withdrawals/"+id+"/vote/finish", map[string]any{"decision": send, "nonce": begun.Nonce, "reason": reason, "credential": credential})
}

func TestTwoPeopleApprove(t *testing.T) {
	h := newHouse(t)
	id := h.stand(withdraw.Pending).ID.String()
	var got struct {
		State              string
		Approvals, Missing int
	}
	for i, name := range []string{"ben", "chen"} {
		w := h.as(name).vote(name, id, "approve", "approve", "")
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK || got.Approvals != i+1 || got.Missing != 1-i {
			t.Fatalf("vote %d: %d %s", i+1, w.Code, w.Body)
		}
	}
	if got.State != "approved" || h.list[0].State != withdraw.Approved {
		t.Errorf("two votes lead to %s", got.State)
	}
	if text := seen(h.as("dora").page("/withdrawals/" + id)); !strings.Contains(text, "Ben Okafor approved") || !strings.Contains(text, "2 of 2 approvals") {
		t.Error("the votes are not shown")
	}
}

func TestVotesFreshlyOnAnAbsentWithdrawal(t *testing.T) {
	h := newHouse(t)
	id := h.stand(withdraw.Absent).ID.String()
	if w := h.as("ben").vote("ben", id, "approve", "approve", ""); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestOneRejectionEndsItAndSaysWhy(t *testing.T) {
	h := newHouse(t)
	id := h.stand(withdraw.Pending).ID.String()
	b := h.as("ben")
	if p := problem(t, b.vote("ben", id, "reject", "reject", "  ")); p.Code != "reason_missing" {
		t.Errorf("without a reason: %s", p.Code)
	}
	if w := b.vote("ben", id, "reject", "reject", "wrong month"); w.Code != http.StatusOK || h.list[0].State != withdraw.Rejected || h.list[0].Reason != "wrong month" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestVotesThatAreNotWhatWasSigned(t *testing.T) {
	h := newHouse(t)
	w := h.stand(withdraw.Pending)
	id := w.ID.String()
	b := h.as("ben")
	if p := problem(t, b.vote("ben", id, "reject", "approve", "")); p.Code != "challenge_unknown" {
		t.Errorf("signed a rejection, sent an approval: %s", p.Code)
	}
	if p := problem(t, b.vote("ben", id, "approve", "maybe", "")); p.Code != "decision_unknown" {
		t.Errorf("no decision: %s", p.Code)
	}
	if p := problem(t, b.send("/withdrawals/"+id+"/vote/options", map[string]any{"decision": "approve", "digest": strings.Repeat("0", 64)})); p.Code != "proposal_changed" {
		t.Errorf("a page that shows another proposal: %s", p.Code)
	}
	if r := b.send("/withdrawals/"+id+"/vote/options", map[string]any{"decision": "approve", "digest": approval.Digest(w.Digest).String()}); r.Code != http.StatusOK {
		t.Errorf("a page that shows this proposal: %d", r.Code)
	}
	if p := problem(t, b.send("/withdrawals/"+id+"/vote/finish", map[string]any{"decision": "approve", "nonce": "AA", "credential": map[string]any{"id": "x"}})); p.Code != "credential_malformed" {
		t.Errorf("no credential: %s", p.Code)
	}
	if len(h.ballots[w.ID]) != 0 {
		t.Error("one of them was counted")
	}
}

func TestVoteAsksOnlyForPasskeysThatCount(t *testing.T) {
	h := newHouse(t)
	id := h.stand(withdraw.Pending).ID.String()
	ben := h.people["ben"].ID
	h.keys = append(h.keys, identity.Passkey{ID: []byte("real"), Person: ben}, identity.Passkey{ID: []byte("gone"), Person: ben, Software: true, RevokedAt: &now})
	b := h.as("ben")
	var begun struct {
		PublicKey struct {
			AllowCredentials []struct{ ID string } `json:"allowCredentials"`
			UserVerification string                `json:"userVerification"`
		} `json:"publicKey"`
	}
	b.json("/withdrawals/"+id+"/vote/options", map[string]any{"decision": "approve"}, &begun, http.StatusOK)
	if len(begun.PublicKey.AllowCredentials) != 1 || begun.PublicKey.UserVerification != "required" {
		t.Errorf("%+v", begun)
	}
	for i := range h.keys {
		h.keys[i].RevokedAt = &now
	}
	// With an empty list any passkey of the site could answer.
	if p := problem(t, b.send("/withdrawals/"+id+"/vote/options", map[string]any{"decision": "approve"})); p.Code != "no_passkey" {
		t.Errorf("%s", p.Code)
	}
}

func TestSignInMakesANewSession(t *testing.T) {
	h := newHouse(t)
	b := h.visitor()
	b.json("/signin/options", map[string]any{}, nil, http.StatusOK)
	planted := b.cookies["sluice"].Value
	var begun struct {
		PublicKey json.RawMessage `json:"publicKey"`
	}
	b.json("/signin/options", map[string]any{}, &begun, http.StatusOK)
	credential, err := h.software.Of("ana").Get(begun.PublicKey, origin)
	if err != nil {
		t.Fatal(err)
	}
	finish := map[string]any{"credential": json.RawMessage(credential), "next": "https://evil.example/"}
	var done struct{ Redirect string }
	b.json("/signin/finish", finish, &done, http.StatusOK)
	c := b.cookies["sluice"]
	if c.Value == planted || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Secure || c.Path != "/" || c.MaxAge != 0 {
		t.Errorf("the cookie of the session is %+v", c)
	}
	if done.Redirect != "/" {
		t.Errorf("sign-in leads to %q", done.Redirect)
	}
	old := h.visitor()
	old.cookies["sluice"] = &http.Cookie{Name: "sluice", Value: planted}
	if w := old.get("/withdrawals"); w.Code != http.StatusSeeOther {
		t.Errorf("the token from before sign-in opens a page: %d", w.Code)
	}
	if p := problem(t, b.send("/signin/finish", finish)); p.Code != "ceremony_expired" {
		t.Errorf("the same answer a second time: %s", p.Code)
	}
	for token := range all(t, h) {
		if token == c.Value {
			t.Error("the store holds the token itself")
		}
	}
}

func TestAFailedSignInSpendsItsQuestion(t *testing.T) {
	h := newHouse(t)
	b := h.visitor()
	var begun struct {
		PublicKey json.RawMessage `json:"publicKey"`
	}
	b.json("/signin/options", map[string]any{}, &begun, http.StatusOK)
	credential, err := h.software.Of("ana").Get(begun.PublicKey, origin)
	if err != nil {
		t.Fatal(err)
	}
	if p := problem(t, b.send("/signin/finish", map[string]any{"credential": map[string]any{}})); p.Code != "credential_malformed" {
		t.Fatalf("%s", p.Code)
	}
	if p := problem(t, b.send("/signin/finish", map[string]any{"credential": json.RawMessage(credential)})); p.Code != "ceremony_expired" {
		t.Errorf("a question is answered twice: %s", p.Code)
	}
}

func all(t *testing.T, h *house) map[string][]byte {
	t.Helper()
	m, err := h.sessions.All()
	if err != nil || len(m) == 0 {
		t.Fatal("no sessions", err)
	}
	return m
}

func TestCookieOverHTTPS(t *testing.T) {
	h := newHouse(t, func(d *Deps) { d.Relying.Origins = []string{"https://pay.example.com"} })
	r := httptest.NewRequest(http.MethodPost, "/signin/options", strings.NewReader("{}"))
	r.Host = "pay.example.com"
	r.Header.Set("Content-Type", "application/json")
	w := h.visitor().do(r)
	c := w.Result().Cookies()
	if len(c) != 1 || c[0].Name != "__Host-sluice" || !c[0].Secure || c[0].Domain != "" || w.Header().Get("Strict-Transport-Security") == "" {
		t.Errorf("%d %+v", w.Code, c)
	}
}

func TestWhoIsSignedOutIsSentToSignInAndBack(t *testing.T) {
	h := newHouse(t)
	b := h.visitor()
	if w := b.get("/withdrawals?tab=all"); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/signin?next="+url.QueryEscape("/withdrawals?tab=all") {
		t.Errorf("%d to %s", w.Code, w.Header().Get("Location"))
	}
	if page := b.page("/signin?next=" + url.QueryEscape("/withdrawals?tab=all")); !strings.Contains(page, `data-next="/withdrawals?tab=all"`) {
		t.Error("the way back is lost")
	}
	if p := problem(t, b.send("/withdrawals/x/vote/options", map[string]any{})); p.Status != http.StatusUnauthorized {
		t.Errorf("a script: %+v", p)
	}
	if w := b.get("/live"); w.Code != http.StatusUnauthorized {
		t.Errorf("live updates: %d", w.Code)
	}
	if w := b.post("/withdrawals/new", url.Values{}); w.Code != http.StatusUnauthorized {
		t.Errorf("a form: %d", w.Code)
	}
}

func TestNextStaysOnThisSite(t *testing.T) {
	for next, want := range map[string]string{
		"/withdrawals/1?x=y": "/withdrawals/1?x=y", "": "/", "https://evil.example": "/", "//evil.example": "/", `/\evil.example`: "/",
		"/\t/evil.example": "/", "javascript:alert(1)": "/", "evil": "/", "/signin": "/", "/signin?next=/": "/", "/%2f/evil": "/",
		"/live": "/", "\\\\evil": "/", "http:/evil": "/", "/ok#x": "/ok",
	} {
		if got := safeNext(next); got != want {
			t.Errorf("safeNext(%q) = %q, want %q", next, got, want)
		}
	}
}

func TestPostsFromOtherSitesDoNothing(t *testing.T) {
	h := newHouse(t)
	w := h.stand(withdraw.Pending, func(w *withdraw.Withdrawal) { w.Requester = h.people["ana"].Actor() })
	b := h.as("ana")
	for header, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"} {
		r := httptest.NewRequest(http.MethodPost, "/withdrawals/"+w.ID.String()+"/cancel", nil)
		r.Header.Set(header, value)
		if got := b.do(r); got.Code != http.StatusForbidden || h.list[0].State != withdraw.Pending {
			t.Errorf("%s: %d, %s", header, got.Code, h.list[0].State)
		}
	}
}

func TestWhoeverIsDisabledIsOutAtOnce(t *testing.T) {
	h := newHouse(t)
	b := h.as("ben")
	b.page("/withdrawals")
	p := h.people["ben"]
	p.Disabled = true
	h.persons[p.ID] = p
	if w := b.get("/withdrawals"); w.Code != http.StatusSeeOther {
		t.Errorf("%d", w.Code)
	}
}

func TestNoRoleNoPages(t *testing.T) {
	h := newHouse(t)
	if w := h.as("eve").get("/withdrawals"); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "ask an admin") && !strings.Contains(w.Body.String(), "Ask an admin") {
		t.Errorf("%d", w.Code)
	}
}

// A page left open must not keep its session awake all night.
func TestLiveRequestsDoNotMoveTheIdleClock(t *testing.T) {
	h := newHouse(t)
	b := h.as("ana")
	before := h.sessions.commits
	r := httptest.NewRequest(http.MethodGet, "/withdrawals", nil)
	r.Header.Set(liveHeader, "1")
	if w := b.do(r); w.Code != http.StatusOK || h.sessions.commits != before {
		t.Errorf("%d, %d writes", w.Code, h.sessions.commits-before)
	}
	if b.page("/withdrawals"); h.sessions.commits != before+1 {
		t.Error("a visit by hand does not move the idle clock")
	}
}

func TestASessionThatCannotBeSavedIsOneError(t *testing.T) {
	h := newHouse(t)
	b := h.as("ana")
	h.sessions.broken = errors.New("no database")
	w := b.get("/withdrawals")
	if page := w.Body.String(); w.Code != http.StatusInternalServerError || strings.Count(page, "</html>") != 1 || strings.Contains(page, `id="queue"`) {
		t.Errorf("%d, with %d pages", w.Code, strings.Count(page, "</html>"))
	}
}

func TestSignOut(t *testing.T) {
	h := newHouse(t)
	b := h.as("ana")
	token := *b.cookies["sluice"]
	if w := b.post("/signout", nil); w.Code != http.StatusSeeOther {
		t.Errorf("%d", w.Code)
	}
	thief := h.visitor()
	thief.cookies["sluice"] = &token
	if w := thief.get("/withdrawals"); w.Code != http.StatusSeeOther {
		t.Errorf("the token still opens a page: %d", w.Code)
	}
}

func TestEnrol(t *testing.T) {
	h := newHouse(t)
	token := h.invite("ben")
	b := h.visitor()
	if page := b.page("/enrol/" + token); !strings.Contains(page, "Welcome, Ben Okafor") {
		t.Error("the page does not say who is invited")
	}
	if got := b.get("/enrol/" + token).Header().Get("Referrer-Policy"); got != "no-referrer" {
		t.Errorf("the invitation leaves with the referrer: %s", got)
	}
	var begun struct {
		PublicKey json.RawMessage `json:"publicKey"`
	}
	b.json("/enrol/"+token+"/options", map[string]any{}, &begun, http.StatusOK)
	h.software = must(identity.OpenSoftware(t.TempDir() + "/other"))
	credential, err := h.software.Of("ben").Create(begun.PublicKey, origin)
	if err != nil {
		t.Fatal(err)
	}
	b.json("/enrol/"+token+"/finish", map[string]any{"credential": json.RawMessage(credential), "label": "Phone"}, nil, http.StatusOK)
	if !slices.ContainsFunc(h.keys, func(k identity.Passkey) bool { return k.Label == "Phone" && k.Person == h.people["ben"].ID }) {
		t.Error("no passkey was added")
	}
	if w := b.get("/enrol/" + token); w.Code != http.StatusConflict {
		t.Errorf("a spent invitation: %d", w.Code)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestDemoPeopleExistOnlyInDev(t *testing.T) {
	h := newHouse(t, func(d *Deps) { d.Dev = nil })
	b := h.visitor()
	if w := b.get("/dev/people"); w.Code != http.StatusNotFound {
		t.Errorf("/dev/people: %d", w.Code)
	}
	if w := b.send("/dev/passkey/get", map[string]any{"person": "ana"}); w.Code != http.StatusNotFound {
		t.Errorf("/dev/passkey/get: %d", w.Code)
	}
	if strings.Contains(b.page("/signin"), "demo") {
		t.Error("the sign-in page offers demo people")
	}
	dev := newHouse(t).visitor()
	if page := dev.page("/signin"); !strings.Contains(page, "software passkeys") || !strings.Contains(page, `data-demo="ana"`) {
		t.Error("in dev, the demo people are missing or not marked")
	}
	if w := dev.get("/dev/people"); w.Code != http.StatusOK || !regexp.MustCompile(`"name":"ana","display_name":"Ana Duarte","roles":\["requester","approver"\]`).Match(w.Body.Bytes()) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if p := problem(t, dev.send("/dev/passkey/get", map[string]any{"person": "eve"})); p.Code != "demo_person_not_found" {
		t.Errorf("%s", p.Code)
	}
}

func TestBadBodies(t *testing.T) {
	h := newHouse(t)
	b := h.as("ben")
	path := "/withdrawals/" + h.stand(withdraw.Pending).ID.String() + "/vote/options"
	for body, code := range map[string]string{
		`{"decision":`: "body_malformed", `{"decision":"approve","extra":1}`: "body_malformed", `{"decision":"approve"} {}`: "body_malformed",
		`{"decision":"` + strings.Repeat("x", maxBody) + `"}`: "body_too_large",
	} {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		if p := problem(t, b.do(r)); p.Code != code {
			t.Errorf("%.40s: %s, want %s", body, p.Code, code)
		}
	}
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader([]byte(`{"decision":"approve"}`)))
	r.Header.Set("Accept", "application/json")
	if p := problem(t, b.do(r)); p.Code != "not_json" {
		t.Errorf("a form dressed as JSON: %s", p.Code)
	}
}
