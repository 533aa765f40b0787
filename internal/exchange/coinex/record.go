package coinex

import (
	"cmp"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	keptExchanges = 32       // of each kind, see recorder
	keptBody      = 64 << 10 // bytes of a body: a page of 100 withdrawals fits
	withheld      = "[withheld]"
)

// Recorded is one HTTP exchange as CoinEx's support asks for it: complete, and
// without access id, secret key and signature.
type Recorded struct {
	At             time.Time   `json:"at"`
	TookMillis     int64       `json:"took_ms"`
	Method         string      `json:"method"`
	URL            string      `json:"url"`
	RequestHeader  http.Header `json:"request_header"`
	RequestBody    string      `json:"request_body,omitempty"`
	Status         int         `json:"status,omitempty"` // 0: no complete answer arrived
	ResponseHeader http.Header `json:"response_header,omitempty"`
	ResponseBody   string      `json:"response_body,omitempty"`
	Cut            bool        `json:"cut,omitempty"`   // a body was longer than 64 KiB and is cut
	Error          string      `json:"error,omitempty"` // the transport's words
}

// Exchanges returns the recent exchanges with CoinEx, oldest first: the last 32
// that acted or went wrong, and the last 32 of the others. They are kept in
// memory only.
func (c *Client) Exchanges() []Recorded {
	c.recorder.mu.Lock()
	defer c.recorder.mu.Unlock()
	out := slices.Concat(c.recorder.notable, c.recorder.ordinary)
	slices.SortStableFunc(out, func(a, b Recorded) int { return a.At.Compare(b.At) })
	return out
}

// recorder keeps exchanges for the support bundle. Those that acted or went
// wrong have a place of their own, or an hour of polling would push out the
// one that support is asked about.
type recorder struct {
	mu                sync.Mutex
	notable, ordinary []Recorded
}

// keep records an exchange. What is kept never held a secret: it is taken out
// here and not when the records are read.
func (r *recorder) keep(k keys, req *http.Request, body []byte, a answer, err error, at time.Time, took time.Duration) {
	hide := k.hider(req.Header.Get(headerSign))
	rec := Recorded{
		At:             at.UTC(),
		TookMillis:     took.Milliseconds(),
		Method:         req.Method,
		URL:            hide(req.URL.String()),
		RequestHeader:  hideHeader(req.Header, hide),
		Status:         a.status,
		ResponseHeader: hideHeader(a.header, hide),
	}
	var cutRequest, cutResponse bool
	rec.RequestBody, cutRequest = hideBody(body, hide)
	rec.ResponseBody, cutResponse = hideBody(a.body, hide)
	rec.Cut = cutRequest || cutResponse
	if err != nil {
		rec.Error = hide(words(err.Error()))
	}

	kind := &r.ordinary
	if env, bad := decodeEnvelope(a.body); body != nil || err != nil || bad != nil || env.code != 0 || a.status != http.StatusOK {
		kind = &r.notable
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(*kind) == keptExchanges {
		*kind = slices.Delete(*kind, 0, 1)
	}
	*kind = append(*kind, rec)
}

// hider makes the function that takes access id, secret key and signature out
// of a text, in whatever case they are written.
func (k keys) hider(signature string) func(string) string {
	accessID, secret := k()
	var secrets []string
	for _, s := range []string{secret, accessID, signature} {
		// A key of a few letters (only tests have one) is a part of ordinary words.
		if len(s) >= 8 {
			secrets = append(secrets, regexp.QuoteMeta(s))
		}
	}
	if len(secrets) == 0 {
		return func(s string) string { return s }
	}
	// The longest first, should one be the beginning of another.
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	found := regexp.MustCompile("(?i)" + strings.Join(secrets, "|"))
	return func(s string) string { return found.ReplaceAllString(s, withheld) }
}

// hideHeader copies a header without what signs us in, there or elsewhere.
func hideHeader(h http.Header, hide func(string) string) http.Header {
	out := make(http.Header, len(h))
	for name, values := range h {
		switch http.CanonicalHeaderKey(name) {
		case http.CanonicalHeaderKey(headerKey), http.CanonicalHeaderKey(headerSign), "Authorization", "Cookie", "Set-Cookie":
			out[name] = []string{withheld}
			continue
		}
		for _, v := range values {
			out[name] = append(out[name], hide(v))
		}
	}
	return out
}

// hideBody cuts a body before it hides, so that an answer of megabytes costs
// little, and then drops as much from the end as a secret may be long: one that
// the cut went through would not be recognised.
func hideBody(body []byte, hide func(string) string) (string, bool) {
	if len(body) <= keptBody {
		return hide(string(body)), false
	}
	kept := hide(string(body[:keptBody]))
	return kept[:max(len(kept)-longestSecret, 0)], true
}
