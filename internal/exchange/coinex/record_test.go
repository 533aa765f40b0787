package coinex

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/internal/exchange"
)

// bundle is what would be sent to support.
func bundle(t *testing.T, c *Client) string {
	t.Helper()
	b, err := json.Marshal(c.Exchanges())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Row 17 of the FAQ: complete, and without access id, secret and signature,
// even where the exchange repeats them.
func TestRecordsAreCompleteAndHoldNoSecrets(t *testing.T) {
	var signatures []string
	s := newStub(t, func(w http.ResponseWriter, r seen) {
		sign := r.header.Get(headerSign)
		signatures = append(signatures, sign)
		w.Header().Set("X-Echo", testID+" "+sign)
		w.Header().Set("Set-Cookie", "__cf_bm=cookie-of-ours")
		w.Header().Set("Cf-Ray", "8f00-NRT")
		_, _ = fmt.Fprintf(w, `{"code":4006,"data":{},"message":"%s %s %s %s %s"}`, strings.ToLower(testID), testID, strings.ToLower(testSecret), strings.ToUpper(sign), sign)
	})
	c := s.client()
	out := c.Withdraw(t.Context(), order(), sign(t, c, order()))
	if out.Code != 4006 {
		t.Fatalf("got %+v", out)
	}
	if _, err := c.Withdrawals(t.Context(), exchange.Query{Asset: testID}); err == nil {
		t.Fatal("no error")
	}
	got := bundle(t, c)
	for _, secret := range append([]string{testID, testSecret, "cookie-of-ours"}, signatures...) {
		if strings.Contains(strings.ToLower(got), strings.ToLower(secret)) {
			t.Errorf("%s is in %s", secret, got)
		}
	}
	records := c.Exchanges()
	last := records[len(records)-2]
	if last.Method != "POST" || last.URL != s.URL+pathWithdraw || last.RequestBody != vectorBody || last.Status != 200 ||
		last.RequestHeader.Get(headerTimestamp) == "" || last.RequestHeader.Get(headerSign) != withheld || last.RequestHeader.Get(headerWindow) != "5000" ||
		last.ResponseHeader.Get("Cf-Ray") != "8f00-NRT" || !strings.Contains(last.ResponseBody, "4006") || last.Cut || last.Error != "" || last.At.IsZero() {
		t.Errorf("got %+v", last)
	}
	if !strings.Contains(records[len(records)-1].URL, "ccy=%5Bwithheld%5D") && !strings.Contains(records[len(records)-1].URL, "ccy="+withheld) {
		t.Errorf("got %s", records[len(records)-1].URL)
	}
	mustNotLeak(t, fmt.Sprintf("%+v %#v", records, c))
}

func TestWhatWentWrongIsNotPushedOut(t *testing.T) {
	fail := false
	c := measuredNow(newOffline(t, func(r *http.Request) (*http.Response, error) {
		if fail {
			return nil, errors.New("connection reset; key " + testSecret)
		}
		return respond(200, ok(`[]`)), nil
	}))
	fail = true
	_ = c.Ping(t.Context())
	fail = false
	_ = c.Cancel(t.Context(), 7)
	for range 3 * keptExchanges {
		_ = c.Ping(t.Context())
	}
	got := c.Exchanges()
	if len(got) != keptExchanges+2 || got[0].Status != 0 || !strings.HasPrefix(got[0].Error, "connection reset") || got[1].RequestBody != `{"withdraw_id":7}` {
		t.Errorf("%d records, the first %+v", len(got), got[:2])
	}
	mustNotLeak(t, bundle(t, c))
	fail = true
	for range 3 * keptExchanges {
		_ = c.Ping(t.Context())
	}
	if got := c.Exchanges(); len(got) != 2*keptExchanges {
		t.Errorf("%d records", len(got))
	}
}

// Wherever the cut goes, no part of a key that it went through is left.
func TestLongBodiesAreCut(t *testing.T) {
	hide := keys(func() (string, string) { return testID, testSecret }).hider("")
	for shift := range len(testSecret) {
		body := strings.Repeat("x", keptBody-shift) + testSecret + strings.Repeat("y", 100)
		got, cut := hideBody([]byte(body), hide)
		if !cut || strings.Contains(got, testSecret[:4]) || len(got) < keptBody-2*longestSecret {
			t.Fatalf("%d: cut %v to %d bytes, ends in %q", shift, cut, len(got), got[len(got)-20:])
		}
	}
	if got, cut := hideBody([]byte("short "+testID), hide); cut || got != "short "+withheld {
		t.Errorf("got %q, cut %v", got, cut)
	}
}
