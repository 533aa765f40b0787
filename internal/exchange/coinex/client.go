// Package coinex speaks the CoinEx API v2 for one account.
//
// The rules that its code obeys:
//
//   - The bytes that were signed are the bytes that are sent. Nothing encodes
//     a body or a query a second time.
//   - A submission is sent once. The exchange knows no idempotency key, so
//     every layer below that would repeat a POST on its own is switched off.
//   - An answer is a yes or a no only where it proves one (Classify).
//     Everything else is exchange.Unknown and is looked up, never repeated.
//   - What the exchange says is read leniently in form and strictly in
//     meaning: spellings vary, but a row that cannot be read is an error and
//     never a missing row, because absence is evidence (facts 2.5).
//   - Neither key nor access id is ever in an error, a log line or a printed
//     value.
//
// A reference such as "facts 3.1" means that section of the facts file about
// CoinEx which the project keeps beside its design.
package coinex

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"sluice/internal/exchange"
	"sluice/internal/fault"
)

const (
	defaultWindow  = 5 * time.Second
	defaultTimeout = 15 * time.Second

	// The largest window that the exchange honours is not known (facts 1.2).
	// A long one also keeps a lost submission alive for as long, and no
	// reconciliation may call it absent before that.
	maxWindow = 60 * time.Second

	// longestSecret bounds keys, in bytes. CoinEx's have 32 and 56 characters or
	// so; whoever cuts a text must know how long a thing it may have cut through.
	longestSecret = 256
)

// Config says which account of which exchange address a Client speaks for.
// It prints without its keys.
type Config struct {
	// BaseURL is the address of the exchange without a path, such as
	// "https://api.coinex.com"; "/v2" at its end is accepted. Plain http is
	// for loopback only.
	BaseURL string

	// AccessID and SecretKey are the API key, without spaces or line breaks.
	AccessID  string
	SecretKey string

	// Window is how long after its timestamp the exchange may still take a
	// submission, in whole milliseconds up to a minute. 0 means 5 s. Shorter
	// is better: a lost submission is only known to be dead when its window
	// is over.
	Window time.Duration

	// Timeout bounds one call from dialling to the last byte. 0 means 15 s.
	Timeout time.Duration

	// Now is the clock; nil means time.Now.
	Now func() time.Time

	// Transport carries the calls. nil, the right choice outside tests, means
	// transports of our own: HTTP/1.1 only, a new connection for each POST so
	// that none is lost on a connection that died while idle, and no proxy.
	// HTTP_PROXY and its like are ignored on purpose: the key is bound to the
	// address that the exchange sees, and an environment variable must not be
	// able to reroute payments. Who needs a proxy gives a Transport with one.
	Transport http.RoundTripper
}

// String names the address and withholds the keys.
func (c Config) String() string {
	return "coinex.Config{" + withoutUserinfo(c.BaseURL) + ", keys withheld}"
}

// Format withholds the keys whatever the verb: %d or %x would otherwise walk
// past String and print every field.
func (c Config) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, c.String()) }

// LogValue withholds the keys from slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// withoutUserinfo keeps a password that someone put into the address out of logs.
func withoutUserinfo(raw string) string {
	if i := strings.LastIndexByte(raw, '@'); i >= 0 {
		return "[withheld]@" + raw[i+1:]
	}
	return raw
}

// Client is one account at CoinEx. It is safe for concurrent use and prints
// without its keys.
type Client struct {
	base    string // scheme and host, no slash at the end
	socket  string // the same for the websocket
	keys    keys
	window  time.Duration
	timeout time.Duration
	now     func() time.Time

	reads  http.RoundTripper // may keep connections: a GET that is lost is asked again
	writes http.RoundTripper // a new connection for each POST

	clock    *clock
	limits   *limits
	trips    *tripLog
	recorder *recorder

	taking sync.Mutex // guards the headers of Signed values, see take
}

var _ exchange.Exchange = (*Client)(nil)

// New makes a client and does no I/O. It refuses, as fault.Invalid, empty or
// malformed keys, an address that is not the root of a v2 API, plain http to
// anything but loopback, and a window out of range.
func New(cfg Config) (*Client, error) {
	base, err := baseAddress(cfg.BaseURL)
	if err != nil {
		return nil, err
	}
	if err := wholeKey("access id", cfg.AccessID); err != nil {
		return nil, err
	}
	if err := wholeKey("secret key", cfg.SecretKey); err != nil {
		return nil, err
	}
	window, timeout, now := cfg.Window, cfg.Timeout, cfg.Now
	if window == 0 {
		window = defaultWindow
	}
	if window < time.Millisecond || window > maxWindow || window%time.Millisecond != 0 {
		return nil, fault.New(fault.Invalid, "exchange_window_invalid",
			fmt.Sprintf("the window of a submission is %v", window),
			"choose whole milliseconds between 1 ms and 60 s; 5 s is the exchange's own default")
	}
	if timeout == 0 {
		timeout = defaultTimeout
	}
	if timeout < 0 {
		return nil, fault.New(fault.Invalid, "exchange_timeout_invalid",
			fmt.Sprintf("the timeout of a call to the exchange is %v", timeout), "choose a timeout above zero")
	}
	if now == nil {
		now = time.Now
	}
	c := &Client{
		base:    base,
		socket:  socketAddress(base),
		keys:    keys(func() (string, string) { return cfg.AccessID, cfg.SecretKey }),
		window:  window,
		timeout: timeout,
		now:     now,
		reads:   cfg.Transport,
		writes:  cfg.Transport,
		clock:   newClock(),
		limits:  newLimits(),

		trips:    &tripLog{},
		recorder: &recorder{},
	}
	if cfg.Transport == nil {
		c.reads, c.writes = newTransport(true), newTransport(false)
	}
	return c, nil
}

// String names the address and withholds the keys.
func (c *Client) String() string { return "coinex.Client{" + c.base + ", keys withheld}" }

// Format withholds the keys whatever the verb.
func (c *Client) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, c.String()) }

// LogValue withholds the keys from slog.
func (c *Client) LogValue() slog.Value { return slog.StringValue(c.String()) }

// baseAddress checks an address and cuts it down to scheme and host.
func baseAddress(raw string) (string, error) {
	odd := func(detail, fix string) error {
		return fault.New(fault.Invalid, "exchange_address_invalid", detail, fix)
	}
	const example = "use an address such as https://api.coinex.com"
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return "", odd("the exchange address is not a web address", example)
	}
	if u.User != nil {
		return "", odd("the exchange address contains a user name or password", "take it out; the API key goes into its own setting")
	}
	if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", odd("the exchange address contains a query or a fragment", example)
	}
	path := strings.TrimRight(u.EscapedPath(), "/")
	if strings.Contains(path+"/", "/v1/") {
		return "", odd("this is an address of CoinEx API v1, which was switched off on 25 September 2024", "use the v2 address https://api.coinex.com")
	}
	if path != "" && path != "/v2" {
		// The exchange checks the signature over a path that starts with
		// /v2, so an address below another path could only ever fail.
		return "", odd("the exchange address has a path other than /v2", example)
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && loopback(u.Hostname()):
	case u.Scheme == "http":
		return "", odd("plain http to an exchange would let anyone on the way read and change the answers", "use https; plain http is only for a sandbox on 127.0.0.1")
	default:
		return "", odd("the exchange address is neither https nor http", example)
	}
	return u.Scheme + "://" + u.Host, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// newTransport makes a transport with nothing hidden in it: no proxy from the
// environment and no HTTP/2, whose transport repeats requests by rules of its
// own.
func newTransport(keepAlive bool) *http.Transport {
	var http1 http.Protocols
	http1.SetHTTP1(true)
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		Protocols:           &http1,
		DisableKeepAlives:   !keepAlive,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     30 * time.Second,
	}
}

// keys gives the API key of the account: access id and secret. It is a function
// because package fmt, asked with the wrong verb or through an unexported
// field, prints any data that it can reach, and a function is only an address.
type keys func() (accessID, secret string)

// wholeKey refuses what cannot be a key. A line break from the end of a key
// file is the usual case; it would otherwise show as code 4005 or 4006, which
// send people to look for quite different causes.
func wholeKey(name, key string) error {
	if key == "" {
		return fault.New(fault.Invalid, "exchange_key_missing",
			"the "+name+" of the exchange key is empty", "set it, directly or through its file")
	}
	if len(key) > longestSecret {
		return fault.New(fault.Invalid, "exchange_key_malformed",
			"the "+name+" of the exchange key is longer than any key", "check that the setting, or its file, holds the key and nothing else")
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' {
			return fault.New(fault.Invalid, "exchange_key_malformed",
				"the "+name+" of the exchange key contains a space, a line break or a character that no key has",
				"copy it again and leave no line break at the end of the file")
		}
	}
	return nil
}

// hint is enough of the access id to tell one key from another. A key so short
// that four characters give half of it away gets none.
func (k keys) hint() string {
	accessID, _ := k()
	if len(accessID) < 8 {
		return ""
	}
	return accessID[:4]
}

// scrub takes the keys out of an answer, in case the exchange repeats them.
// Answers are kept as evidence and shown to people.
func (k keys) scrub(body []byte) []byte {
	accessID, secret := k()
	s := string(body)
	for _, key := range []string{secret, accessID} {
		// A key of a few letters (only tests have one) is a part of ordinary words.
		if len(key) >= 8 {
			s = strings.ReplaceAll(s, key, "[withheld]")
		}
	}
	return []byte(s)
}
