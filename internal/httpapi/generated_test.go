package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// statuses that POST /v1/withdrawals may answer a request with a good token with,
// when intake takes whatever it is given.
var expected = map[int]bool{201: true, 400: true, 403: true, 413: true, 415: true, 422: true}

// Whatever is sent, the answer is a documented one, it is never our fault, and what
// intake is given is whole.
func TestGeneratedRequests(t *testing.T) {
	b := setup(t)
	counts := map[int]int{}
	rapid.Check(t, func(t *rapid.T) {
		// Many per check: a request is cheap, a check of rapid is not.
		for range 30 {
			r := b.request("POST", "/v1/withdrawals", body(t))
			if rapid.IntRange(0, 9).Draw(t, "other headers") == 0 {
				r.Header.Set(rapid.SampledFrom([]string{"Content-Type", "Idempotency-Key", "Content-Encoding", "X-Request-Id"}).Draw(t, "name"),
					rapid.String().Draw(t, "value"))
			}
			took := len(b.desk.took)
			a := b.send(t, r)
			counts[a.status]++
			if !expected[a.status] {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if (len(b.desk.took) > took) != (a.status == http.StatusCreated) {
				t.Fatalf("%d, and intake was asked %d times", a.status, len(b.desk.took)-took)
			}
			if a.status == http.StatusCreated {
				if no := b.desk.took[took].Shape(); no != nil || b.desk.took[took].Account != "main" {
					t.Fatalf("intake was given %+v: %v", b.desk.took[took], no)
				}
			}
		}
		b.desk.took = nil
		b.log.Reset()
	})
	// A generator that only ever fails proves little.
	for _, status := range []int{201, 400, 403, 422} {
		if counts[status] == 0 {
			t.Errorf("no request was answered with %d: %v", status, counts)
		}
	}
}

// body is mostly a request with a few things wrong, sometimes none, sometimes all.
func body(t *rapid.T) string {
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		return rapid.String().Draw(t, "any text")
	case 1:
		return string(rapid.SliceOf(rapid.Byte()).Draw(t, "any bytes"))
	}
	f := map[string]string{}
	for k, v := range good() {
		f[k] = quote(v.(string))
	}
	for range rapid.IntRange(0, 3).Draw(t, "changes") {
		field := rapid.SampledFrom([]string{"account", "asset", "chain", "address", "memo", "amount", "method", "reference",
			"purpose", "max_fee", "expires_in", "x", "", "Amount"}).Draw(t, "field")
		if rapid.IntRange(0, 9).Draw(t, "leave out") == 0 {
			delete(f, field)
			continue
		}
		f[field] = value(t)
	}
	var parts []string
	for k, v := range f {
		parts = append(parts, quote(k)+":"+v)
	}
	text := "{" + strings.Join(parts, ",") + "}"
	if rapid.IntRange(0, 9).Draw(t, "damage") == 0 {
		at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
		return text[:at] + string([]byte{rapid.Byte().Draw(t, "byte")}) + text[at+1:]
	}
	return text
}

func value(t *rapid.T) string {
	switch rapid.IntRange(0, 5).Draw(t, "value") {
	case 0:
		return quote(rapid.String().Draw(t, "text"))
	case 1:
		return quote(rapid.StringMatching(`-?[0-9]{0,26}\.?[0-9]{0,20}(e[0-9]{1,5})?`).Draw(t, "number in quotes"))
	case 2:
		return quote(rapid.StringMatching(`([0-9]{1,3}[hms]){0,3}`).Draw(t, "time"))
	case 3:
		return fmt.Sprint(rapid.Float64Range(-1e30, 1e30).Draw(t, "number"))
	case 4:
		return rapid.SampledFrom([]string{"null", "true", "[]", "{}", `[{"a":1}]`, `"\u0000"`, `"\ud800"`, `"on_chain"`, `"inter_user"`,
			`"main"`, `""`, `"` + strings.Repeat("x", 20000) + `"`}).Draw(t, "odd")
	}
	return quote(rapid.StringN(1, 600, 1200).Draw(t, "long text"))
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// Lists are read with whatever anybody puts into an address bar.
func TestGeneratedQueries(t *testing.T) {
	b := setup(t)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"state", "account", "asset", "address", "reference", "requester", "from", "to", "limit", "cursor", "x"})
		var parts []string
		for range rapid.IntRange(0, 4).Draw(t, "parameters") {
			parts = append(parts, name.Draw(t, "name")+"="+rapid.OneOf(rapid.StringMatching(`[ -~]{0,20}`),
				rapid.SampledFrom([]string{"pending", "held,failed", "10", "2026-11-23T10:00:00Z", "%00", "%ff", "%zz", mine.String()})).Draw(t, "value"))
		}
		r := b.request("GET", "/v1/withdrawals", "")
		r.URL.RawQuery = strings.Join(parts, "&")
		a := b.send(t, r)
		if a.status != 200 && a.status != 400 && a.status != 403 && a.status != 422 {
			t.Fatalf("%s: %d %s", r.URL.RawQuery, a.status, a.body)
		}
	})
}
