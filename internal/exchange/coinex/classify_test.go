package coinex

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
)

// Every row of facts 2.4, by the letters of facts 2.3: N R is retry, N P fail,
// N O and bare N hold, M unknown. It is written out a second time on purpose:
// a slip in the table of codes must not agree with itself.
var factsCodes = map[int]string{
	3007: "N R",
	3008: "M",
	3109: "N O",
	3127: "N P",
	3310: "N O",
	3600: "N P",
	3606: "N P", 3610: "N P",
	3612: "N P", 3613: "N P", 3614: "N P", 3615: "N P", 3616: "N P", 3617: "N P",
	3618: "N P", 3619: "N P", 3620: "N P", 3621: "N P", 3622: "N P",
	3627: "N P", 3628: "N P", 3629: "N P",
	3632: "N P", 3633: "N P", 3634: "N P", 3635: "N P", 3638: "N P",
	3639: "N P",
	4001: "M", 4002: "M", 4003: "M",
	4004: "N P",
	4005: "N O", 4006: "N O", 4007: "N O",
	4008: "N P", 4009: "N P",
	4010: "N R",
	4011: "N O",
	4017: "N R",
	4018: "N O", 4115: "N O",
	4117: "N O",
	4123: "N R",
	4130: "N O",
	4158: "N O", 4159: "N O",
	4213: "N R",
	4512: "N O",

	213: "N R", 227: "N R", 11005: "N O", 3157: "N O",

	// v1, as their v2 cousins
	23: "N O", 24: "N O", 25: "N O", 34: "N O", 35: "M", 36: "M", 107: "N O", 158: "N O", 310: "N O", 600: "N P",
}

var letters = map[string]struct {
	class exchange.Class
	next  exchange.Next
}{
	"N R": {exchange.NotAccepted, exchange.Retry},
	"N P": {exchange.NotAccepted, exchange.Fail},
	"N O": {exchange.NotAccepted, exchange.Hold},
	"M":   {exchange.Unknown, ""},
}

func TestClassifyEveryCode(t *testing.T) {
	for code, letter := range factsCodes {
		for _, status := range []int{200, 400, 401, 403, 429} {
			for _, form := range []string{coded(code), fmt.Sprintf(`{"message":"words of %d","code":"%d"}`, code, code)} {
				out := Classify(nil, status, []byte(form), order())
				want := letters[letter]
				if out.Class != want.class || out.Next != want.next {
					t.Errorf("code %d with HTTP %d: got %s %q, want %s", code, status, out.Class, out.Next, letter)
				}
				if out.Code != code || out.HTTPStatus != status || out.Message != fmt.Sprintf("words of %d", code) || string(out.Response) != form {
					t.Errorf("code %d: evidence is %d, %d, %q, %s", code, out.Code, out.HTTPStatus, out.Message, out.Response)
				}
				if out.Reason == "" || out.Fix == "" {
					t.Errorf("code %d: nothing said: %q, %q", code, out.Reason, out.Fix)
				}
			}
		}
	}
	for code := range codes {
		if _, ok := factsCodes[code]; !ok {
			t.Errorf("code %d is in our table but not in the facts", code)
		}
	}
}

func TestWhitelistRefusalExplainsTheTwoLists(t *testing.T) {
	out := Classify(nil, 200, []byte(coded(3310)), order())
	for _, part := range []string{"whitelist", "two separate lists", "www.coinex.com/apikey", "address book"} {
		if !strings.Contains(out.Reason+out.Fix, part) {
			t.Errorf("%q is missing in: %s %s", part, out.Reason, out.Fix)
		}
	}
}

// Every rule of facts 2.5.
func TestClassifyRules(t *testing.T) {
	html := "<html><head><title>502 Bad Gateway</title></head></html>"
	accepted := ok(toJSON(echoOf(nil)))
	timeout := fmt.Errorf("read tcp: %w", context.DeadlineExceeded)

	for _, c := range []struct {
		rule   string
		err    error
		status int
		body   string
		want   string
		alarm  bool
	}{
		{"1: never sent", fmt.Errorf("%w: dial tcp: refused", ErrNotSent), 0, "", "N R", false},
		{"2: reset after sending", io.ErrUnexpectedEOF, 0, "", "M", false},
		{"2: timeout", timeout, 0, "", "M", false},
		{"2: a refusal error of unknown origin is not proof", errors.New("dial tcp: connection refused"), 0, "", "M", false},
		{"2: half an answer, even a good one", io.ErrUnexpectedEOF, 200, accepted, "M", false},
		{"2: half a refusal", io.ErrUnexpectedEOF, 429, "", "M", false},

		{"3: 500", nil, 500, html, "M", false},
		{"3: 502", nil, 502, html, "M", false},
		{"3: 503 with a code that means no", nil, 503, coded(3109), "M", false},
		{"3: 504", nil, 504, "", "M", false},
		{"3: 520", nil, 520, html, "M", false},
		{"3: 524 with code 0", nil, 524, accepted, "M", false},
		{"3: 408", nil, 408, "", "M", false},
		{"3: 408 with a code that means no", nil, 408, coded(4213), "M", false},
		{"3: HTML with 200", nil, 200, html, "M", false},
		{"3: nothing with 200", nil, 200, "", "M", false},
		{"3: no code", nil, 200, `{"message":"OK"}`, "M", false},
		{"3: null code", nil, 200, `{"code":null,"message":"OK"}`, "M", false},
		{"3: empty code", nil, 200, `{"code":"","data":{"withdraw_id":1}}`, "M", false},
		{"3: code a fraction", nil, 200, `{"code":0.0,"data":{"withdraw_id":1}}`, "M", false},
		{"3: code an object", nil, 200, `{"code":{},"data":{"withdraw_id":1}}`, "M", false},
		{"3: an array", nil, 200, `[{"code":0}]`, "M", false},
		{"3: null", nil, 200, `null`, "M", false},
		{"3: two documents", nil, 200, coded(3109) + coded(3109), "M", false},
		{"3: redirect", nil, 307, "", "M", false},
		{"3: an unlisted status", nil, 409, html, "M", false},
		{"3: an unlisted status with a code that means no", nil, 409, coded(3109), "M", false},
		{"3: 202 with all the rest right", nil, 202, accepted, "M", false},

		{"4: 400 of the framework", nil, 400, `{"message": {"type": "x is not a valid choice"}}`, "N O", false},
		{"4: 401", nil, 401, html, "N O", false},
		{"4: 403", nil, 403, html, "N O", false},
		{"4: 404", nil, 404, "", "N O", false},
		{"4: 405", nil, 405, html, "N O", false},
		{"4: 429", nil, 429, "slow down", "N R", false},
		{"4: with envelope the code counts", nil, 401, coded(4005), "N O", false},
		{"4: with envelope the code counts", nil, 429, coded(4002), "M", false},
		{"4: a yes in a no", nil, 403, accepted, "M", false},

		{"6: unknown code", nil, 200, coded(3999), "M", false},
		{"6: plausible but undocumented", nil, 200, coded(3107), "M", false},
		{"6: plausible but undocumented", nil, 200, coded(3158), "M", false},
		{"6: negative code", nil, 200, coded(-1), "M", false},

		{"7: all right", nil, 200, accepted, "yes", false},
		{"7: code and id as text", nil, 200, `{"code":"0","data":` + toJSON(echoOf(map[string]any{"withdraw_id": "31200001"})) + `}`, "yes", false},
		{"7: no data", nil, 200, `{"code":0,"message":"OK"}`, "M", true},
		{"7: empty data", nil, 200, ok(`{}`), "M", true},
		{"7: null data", nil, 200, ok(`null`), "M", true},
		{"7: data an array", nil, 200, ok(`[` + toJSON(echoOf(nil)) + `]`), "M", true},
	} {
		t.Run(c.rule, func(t *testing.T) {
			out := Classify(c.err, c.status, []byte(c.body), order())
			if c.want == "yes" {
				if out.Class != exchange.Accepted || out.Withdrawal == nil || out.Withdrawal.ID != 31200001 {
					t.Fatalf("got %+v", out)
				}
				return
			}
			want := letters[c.want]
			if out.Class != want.class || out.Next != want.next || out.Withdrawal != nil {
				t.Errorf("got %s %q (%s), want %s", out.Class, out.Next, out.Reason, c.want)
			}
			if strings.HasPrefix(out.Reason, "Alarm:") != c.alarm {
				t.Errorf("reason: %s", out.Reason)
			}
			if out.Reason == "" || out.Fix == "" || string(out.Response) != c.body {
				t.Errorf("got %+v", out)
			}
			if c.err != nil && out.HTTPStatus != 0 {
				t.Errorf("an incomplete answer has status %d", out.HTTPStatus)
			}
		})
	}
}

// Rule 7: what the echo may leave out, spell otherwise, and must not contradict.
func TestClassifyEcho(t *testing.T) {
	memo := order()
	memo.Memo = "123456"
	inter := order()
	inter.Method, inter.Chain, inter.Address = exchange.InterUser, "", "user@example.com"

	for name, c := range map[string]struct {
		order   exchange.Order
		changes map[string]any
		yes     bool
	}{
		"no id":             {order(), map[string]any{"withdraw_id": nil}, false},
		"id 0":              {order(), map[string]any{"withdraw_id": 0}, false},
		"id negative":       {order(), map[string]any{"withdraw_id": -5}, false},
		"id a fraction":     {order(), map[string]any{"withdraw_id": 1.5}, false},
		"id beyond 64 bits": {order(), map[string]any{"withdraw_id": "92233720368547758070"}, false},
		"id an object":      {order(), map[string]any{"withdraw_id": map[string]any{}}, false},

		"other asset":        {order(), map[string]any{"ccy": "USDC"}, false},
		"other chain":        {order(), map[string]any{"chain": "ERC20"}, false},
		"empty chain":        {order(), map[string]any{"chain": ""}, false},
		"other address":      {order(), map[string]any{"to_address": "TJRabPrwbZy45sbavfcjinPJC18kjpRTv9"}, false},
		"address in capital": {order(), map[string]any{"to_address": "TJRABPRWBZY45SBAVFCJINPJC18KJPRTV8"}, false},
		"gross as net":       {order(), map[string]any{"actual_amount": "27.9"}, false},
		"a hair less":        {order(), map[string]any{"actual_amount": "25.499999999999999999"}, false},
		"no number":          {order(), map[string]any{"actual_amount": "a lot"}, false},
		"monster exponent":   {order(), map[string]any{"actual_amount": "1e9000"}, false},
		"memo lost":          {memo, nil, false},
		"memo out of air":    {order(), map[string]any{"memo": "77"}, false},
		"other method":       {order(), map[string]any{"withdraw_method": "inter_user"}, false},

		"memo kept":              {memo, map[string]any{"memo": "123456"}, true},
		"memo as number":         {memo, map[string]any{"memo": 123456}, true},
		"memo not echoed":        {memo, map[string]any{"memo": nil}, true},
		"capitals in the method": {order(), map[string]any{"withdraw_method": "ON_CHAIN"}, true},
		"amount as number":       {order(), map[string]any{"actual_amount": 25.5}, true},
		"amount with zeros":      {order(), map[string]any{"actual_amount": "25.500000"}, true},
		"remark not echoed":      {order(), map[string]any{"remark": ""}, true},
		"fee in its old fields":  {order(), map[string]any{"fee_ccy": nil, "tx_fee": nil, "fee_asset": "USDT", "fee_amount": "2.4"}, true},
		"nothing but the id": {order(), map[string]any{"created_at": nil, "ccy": nil, "chain": nil, "withdraw_method": nil, "memo": nil, "amount": nil,
			"fee_ccy": nil, "actual_amount": nil, "tx_fee": nil, "tx_id": nil, "to_address": nil, "confirmations": nil,
			"explorer_address_url": nil, "explorer_tx_url": nil, "status": nil, "remark": nil}, true},
		"to another user": {inter, map[string]any{"chain": "", "withdraw_method": "INTER_USER", "to_address": "user@example.com",
			"amount": "25.5", "tx_fee": "0", "status": "audit"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			out := Classify(nil, 200, []byte(ok(toJSON(echoOf(c.changes)))), c.order)
			if c.yes {
				if out.Class != exchange.Accepted || out.Withdrawal.ID != 31200001 {
					t.Errorf("got %s: %s", out.Class, out.Reason)
				}
				return
			}
			if out.Class != exchange.Unknown || !strings.HasPrefix(out.Reason, "Alarm:") || out.Withdrawal != nil {
				t.Errorf("got %s: %s", out.Class, out.Reason)
			}
		})
	}
}

func TestAcceptedWithdrawalIsReadWhole(t *testing.T) {
	out := Classify(nil, 200, []byte(ok(toJSON(echoOf(nil)))), order())
	w := out.Withdrawal
	if w == nil {
		t.Fatal(out.Reason)
	}
	if !w.CreatedAt.Equal(time.UnixMilli(1760000000456)) || w.Method != exchange.OnChain || w.Asset != "USDT" || w.Chain != "TRC20" ||
		!w.Net.Equal(decimal.RequireFromString("25.5")) || !w.Gross.Equal(decimal.RequireFromString("27.9")) ||
		!w.Fee.Equal(decimal.RequireFromString("2.4")) || w.FeeAsset != "USDT" || w.Status != exchange.AuditRequired ||
		w.RawStatus != "audit_required" || w.Remark != "wd_01JAXAMPLE0000000000000001" || w.TxURL != "https://explorer.example/tx/" {
		t.Errorf("got %+v", w)
	}
}
