package coinex

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	"sluice/internal/fault"
)

// ErrNotSent is in the chain of a transport error exactly when no byte of the
// request's body was handed to the transport, nor ever will be. Without its
// body the exchange cannot have taken a submission: the signature covers it.
var ErrNotSent = errors.New("the request was not sent")

var errTooLarge = errors.New("the answer is larger than we read")

const (
	maxAnswer = 1 << 20 // of a POST

	// maxRead bounds reads: the configuration of all assets is over a megabyte.
	maxRead = 16 << 20
)

// answer is one HTTP answer as it came.
type answer struct {
	status int
	header http.Header
	body   []byte // without our keys, should the exchange have repeated them
}

// send makes one HTTP exchange and no more, and keeps a record of it. An error
// means that no complete answer arrived; what did arrive of its body comes
// with it, without a status.
func (c *Client) send(ctx context.Context, method, target string, body []byte, header map[string]string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return answer{}, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+target, nil)
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	sent := c.now()
	a, err := c.carry(req, body, header)
	c.recorder.keep(c.keys, req, body, a, err, sent, c.now().Sub(sent))
	return a, err
}

// carry calls the transport itself and not an http.Client, which would follow
// redirects.
func (c *Client) carry(req *http.Request, body []byte, header map[string]string) (answer, error) {
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "sluice")
	for name, value := range header {
		req.Header.Set(name, value)
	}

	transport, limit := c.reads, int64(maxRead)
	var once *onceBody
	if body != nil {
		// Go's transport repeats a request on its own when it can get the body
		// a second time. GetBody stays nil: it cannot.
		once = &onceBody{content: bytes.NewReader(body)}
		req.Body, req.ContentLength = once, int64(len(body))
		req.Header.Set("Content-Type", "application/json")
		transport, limit = c.writes, maxAnswer
	}
	sent := c.now()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		if once != nil && once.seal() {
			return answer{}, fmt.Errorf("%w: %w", ErrNotSent, err)
		}
		return answer{}, err
	}
	if body == nil {
		c.trips.add(sent, c.now().Sub(sent))
	}
	defer func() { _ = resp.Body.Close() }() // the answer is read or given up by now; there is nothing to learn from closing it

	got, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(got)) > limit {
		got, err = got[:limit], errTooLarge
	}
	got = c.keys.scrub(got)
	if err != nil {
		return answer{body: got}, fmt.Errorf("read the answer: %w", err)
	}
	return answer{resp.StatusCode, resp.Header, got}, nil
}

// onceBody is the body of a POST, and the proof whether it was sent. Dial, DNS
// and TLS errors all come before the transport asks for the first byte, so
// there is no need to recognise errors by kind or to trust a transport's trace
// hooks. Sealing closes the race with a transport that returns early and goes
// on writing in the background.
type onceBody struct {
	state   atomic.Int32
	content *bytes.Reader
}

const (
	bodyUntouched int32 = iota
	bodyRead
	bodySealed
)

func (b *onceBody) Read(p []byte) (int, error) {
	if !b.state.CompareAndSwap(bodyUntouched, bodyRead) && b.state.Load() == bodySealed {
		return 0, ErrNotSent
	}
	return b.content.Read(p)
}

func (b *onceBody) Close() error { return nil }

// seal tells whether the body was never read, and keeps it so.
func (b *onceBody) seal() bool { return b.state.CompareAndSwap(bodyUntouched, bodySealed) }

// get reads from a public endpoint. It returns the answer as read beside the
// envelope; the envelope's code is 0.
func (c *Client) get(ctx context.Context, target string) (envelope, []byte, error) {
	a, err := c.send(ctx, http.MethodGet, target, nil, nil)
	env, err := understand(a, err, false)
	return env, a.body, err
}

// signed makes a call that needs the key, in its turn under the rate limit. A
// call with a body is one that acts, see understand.
func (c *Client) signed(ctx context.Context, g group, method, target string, body []byte) (envelope, []byte, error) {
	if err := c.limits.wait(ctx, g); err != nil {
		return envelope{}, nil, err
	}
	now, err := c.Now(ctx)
	if err != nil {
		return envelope{}, nil, err
	}
	a, err := c.send(ctx, method, target, body, c.keys.sign(method, target, body, now))
	c.heed(g, a)
	env, err := understand(a, err, body != nil)
	return env, a.body, err
}

// heed takes from an answer to a signed request what it says of our rate and
// of our clock.
func (c *Client) heed(g group, a answer) {
	var code int
	if env, err := decodeEnvelope(a.body); err == nil {
		code = env.code
	}
	c.limits.heed(g, c.now(), a.status, code, a.header)
	if codes[code].clock {
		c.clock.forget()
	}
}

// understand turns what came of a call other than a submission into an envelope
// with code 0 or a fault. acts says that the call may have changed something
// at the exchange; where the answer does not tell, that is fault.Unclear.
func understand(a answer, err error, acts bool) (envelope, error) {
	lost := fault.Unavailable
	if acts {
		lost = fault.Unclear
	}
	if err != nil {
		if errors.Is(err, ErrNotSent) {
			lost = fault.Unavailable
		}
		return envelope{}, fault.New(lost, "exchange_unreachable",
			"no complete answer came from the exchange", "check the connection and whether the exchange is up, then look again").Because(err)
	}
	env, bad := decodeEnvelope(a.body)
	switch {
	case bad == nil && env.code == 0 && a.status == http.StatusOK:
		return env, nil
	case bad == nil && env.code != 0 && speaks(a.status):
		return envelope{}, refusal(env, a.status, lost)
	case a.status == http.StatusOK && bad != nil:
		return envelope{}, unreadableAs(lost, bad)
	}
	if edgeRefusal(a.status) && bad != nil {
		lost = fault.Unavailable
	}
	return envelope{}, fault.New(lost, "exchange_http_status",
		fmt.Sprintf("the exchange, or a gateway before it, answered HTTP %d without a usable answer", a.status),
		"look again in a moment; if it goes on, check the address, the exchange's announcements and the key's IP binding")
}

// Rejection is the cause inside a fault that came from an answer of the
// exchange with a code other than 0.
type Rejection struct {
	Code       int // the exchange's code (facts 2.4)
	HTTPStatus int
	Message    string // the exchange's words
}

func (r *Rejection) Error() string {
	return fmt.Sprintf("the exchange answered code %d (HTTP %d): %q", r.Code, r.HTTPStatus, r.Message)
}

// refusal is the fault for a code. lost is the kind for codes that leave open
// whether the call took effect.
func refusal(env envelope, status int, lost fault.Kind) error {
	cause := &Rejection{env.code, status, env.message}
	name := fmt.Sprintf("exchange_code_%d", env.code)
	row, known := codes[env.code]
	if !known {
		return fault.New(fault.Refused, name,
			fmt.Sprintf("the exchange refused with code %d, which is not in its documentation", env.code),
			"read the exchange's message in the log; ask CoinEx support if it does not explain itself").Because(cause)
	}
	fix := row.fix
	if kind := row.kind(lost); kind == fault.Unavailable || kind == fault.Unclear {
		fix = "look again in a moment" // the table's words speak of a submission that is under way
	}
	return fault.New(row.kind(lost), name, fmt.Sprintf("the exchange answered code %d: %s", env.code, row.meaning), fix).Because(cause)
}

func unreadable(err error) error { return unreadableAs(fault.Unavailable, err) }

func unreadableAs(kind fault.Kind, err error) error {
	return fault.New(kind, "exchange_answer_unreadable",
		"the exchange's answer has a form that we do not know, so nothing was taken from it",
		"try again; if it goes on, CoinEx has changed its answers and Sluice needs an update").Because(err)
}
