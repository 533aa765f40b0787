package coinex

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/money"
)

const (
	headerKey       = "X-COINEX-KEY"
	headerSign      = "X-COINEX-SIGN"
	headerTimestamp = "X-COINEX-TIMESTAMP"
	headerWindow    = "X-COINEX-WINDOWTIME"
)

// maxRemark is the longest remark that we send. The exchange's own limit is not
// published; its remarks on keys end at 50 characters (facts 3.1).
const maxRemark = 50

// Sign serialises and signs an order. It waits for its turn under the rate
// limit first, so that no part of the window is spent waiting, and measures
// the exchange's clock when the last measurement is too old; it sends nothing
// else. Each Signed can be given to Withdraw once.
//
// Errors: fault.Invalid where the order cannot be put into a request;
// fault.Unavailable where the context ends while waiting, or where the clock
// cannot be measured or is far off.
func (c *Client) Sign(ctx context.Context, o exchange.Order) (exchange.Signed, error) {
	body, err := encodeOrder(o)
	if err != nil {
		return exchange.Signed{}, err
	}
	if err := c.limits.wait(ctx, modifyAccount); err != nil {
		return exchange.Signed{}, err
	}
	now, err := c.Now(ctx)
	if err != nil {
		return exchange.Signed{}, err
	}
	header := c.keys.sign("POST", pathWithdraw, body, now)
	header[headerWindow] = strconv.FormatInt(c.window.Milliseconds(), 10)
	return exchange.Signed{
		Body:      body,
		Timestamp: time.UnixMilli(now.UnixMilli()).UTC(),
		Window:    c.window,
		KeyHint:   c.keys.hint(),
		Header:    header,
	}, nil
}

// sign makes the authentication headers of a request. target is the request
// target as it goes over the wire, with its query (facts 1.3).
func (k keys) sign(method, target string, body []byte, at time.Time) map[string]string {
	accessID, secret := k()
	timestamp := strconv.FormatInt(at.UnixMilli(), 10)
	return map[string]string{
		headerKey:       accessID,
		headerSign:      signature(secret, method, target, body, timestamp),
		headerTimestamp: timestamp,
	}
}

// signSocket makes the parameters of server.sign, by which a websocket
// connection signs in: a signature over the timestamp alone (facts 6).
func (k keys) signSocket(at time.Time) any {
	accessID, secret := k()
	millis := at.UnixMilli()
	return struct {
		AccessID  string `json:"access_id"`
		Signed    string `json:"signed_str"`
		Timestamp int64  `json:"timestamp"`
	}{accessID, signature(secret, "", "", nil, strconv.FormatInt(millis, 10)), millis}
}

// signature is the current scheme: lower-case hex of HMAC-SHA256 over method,
// request target, body and timestamp with nothing between them (facts 1.3).
func signature(secret, method, target string, body []byte, timestamp string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(method))
	mac.Write([]byte(target))
	mac.Write(body)
	mac.Write([]byte(timestamp))
	return hex.EncodeToString(mac.Sum(nil))
}

// withdrawBody is the body of POST /assets/withdraw (facts 3.1). The order of
// the fields is the order of the keys on the wire.
type withdrawBody struct {
	Asset   string          `json:"ccy"`
	Chain   string          `json:"chain,omitempty"`
	Address string          `json:"to_address"`
	Method  exchange.Method `json:"withdraw_method"`
	Memo    string          `json:"memo,omitempty"`
	Amount  string          `json:"amount"`
	Remark  string          `json:"remark,omitempty"`
}

// encodeOrder is the one way in which an order becomes bytes. Equal orders give
// equal bytes. An order that the bytes could not carry exactly is refused
// rather than trimmed: what was approved is what is sent, or nothing is.
func encodeOrder(o exchange.Order) ([]byte, error) {
	if err := fit(o); err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(withdrawBody{
		Asset: o.Asset, Chain: o.Chain, Address: o.Address, Method: o.Method,
		Memo: o.Memo, Amount: money.Text(o.Amount), Remark: o.Remark,
	})
	if err != nil {
		return nil, fmt.Errorf("encode order: %w", err)
	}
	return ascii(bytes.TrimSuffix(buf.Bytes(), []byte("\n"))), nil
}

// fit checks that an order can be said to the exchange without loss.
func fit(o exchange.Order) error {
	refuse := func(field, detail, fix string) error {
		return fault.New(fault.Invalid, "order_invalid", detail, fix).On(field)
	}
	switch {
	case o.Asset == "":
		return refuse("asset", "the order names no asset", "name the exchange's coin code, such as USDT")
	case o.Address == "":
		return refuse("address", "the order names no address", "name the address as it is listed at the exchange")
	case o.Method != exchange.OnChain && o.Method != exchange.InterUser:
		return refuse("method", fmt.Sprintf("the order's method %q is neither on_chain nor inter_user", o.Method), "choose one of the two")
	case o.Method == exchange.OnChain && o.Chain == "":
		// The exchange would choose a chain by itself.
		return refuse("chain", "an on-chain order must name its chain", "name the exchange's chain code, such as TRC20")
	case o.Method == exchange.InterUser && o.Chain != "":
		return refuse("chain", "a transfer to another user of the exchange has no chain", "leave the chain empty")
	case len(o.Remark) > maxRemark || !printable(o.Remark):
		return refuse("remark", "the remark is longer than 50 characters or not plain ASCII, so the exchange might change or cut it and we would not find the withdrawal again",
			"use at most 50 printable ASCII characters")
	}
	for field, s := range map[string]string{"asset": o.Asset, "chain": o.Chain, "address": o.Address, "memo": o.Memo} {
		if !utf8.ValidString(s) {
			// The encoder would put U+FFFD in place of the broken bytes:
			// another address than the one that was approved.
			return refuse(field, "the "+field+" is not valid UTF-8 text", "enter it again as text")
		}
	}
	if _, err := money.Parse(money.Text(o.Amount)); err != nil {
		if f, ok := fault.As(err); ok {
			return f.On("amount")
		}
		return err
	}
	return nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// ascii writes everything beyond ASCII in valid UTF-8 JSON as \uXXXX. CoinEx's
// own examples sign latin-1 in one place and UTF-8 in another (facts 1.3); for
// ASCII the two are the same.
func ascii(in []byte) []byte {
	out := make([]byte, 0, len(in))
	for _, r := range string(in) {
		if r < utf8.RuneSelf {
			out = append(out, byte(r))
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
	}
	return out
}
