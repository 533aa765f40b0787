package withdraw_test

import (
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

func aRequest() withdraw.Request {
	return withdraw.Request{
		Requester: "client:payroll", IdempotencyKey: "7f6c", Amount: decimal.RequireFromString("25.5"), Reference: "inv-7", Purpose: "rent",
		Key: whitelist.Key{Account: "main", Method: exchange.OnChain, Asset: "USDT", Chain: "TRC20", Address: "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8"},
	}
}

func TestShapeOfText(t *testing.T) {
	fields := []struct {
		name     string
		of       func(r *withdraw.Request) *string
		most     int
		required bool
	}{
		{"requester", func(r *withdraw.Request) *string { return &r.Requester }, 200, true},
		{"idempotency_key", func(r *withdraw.Request) *string { return &r.IdempotencyKey }, 255, true},
		{"account", func(r *withdraw.Request) *string { return &r.Account }, 32, true},
		{"asset", func(r *withdraw.Request) *string { return &r.Asset }, 32, true},
		{"chain", func(r *withdraw.Request) *string { return &r.Chain }, 32, true},
		{"address", func(r *withdraw.Request) *string { return &r.Address }, 256, true},
		{"memo", func(r *withdraw.Request) *string { return &r.Memo }, 256, false},
		{"reference", func(r *withdraw.Request) *string { return &r.Reference }, 128, true},
		{"purpose", func(r *withdraw.Request) *string { return &r.Purpose }, 500, true},
	}
	bad := map[string]string{
		"NUL": "a\x00b", "line break": "a\nb", "carriage return": "a\rb", "tab": "a\tb", "escape": "\x1b[31mred", "delete": "a\x7f", "C1": "a\u0085b",
		"bad UTF-8": "a\xffb", "cut UTF-8": "a\xe2\x82", "surrogate": "\xed\xa0\x80", "overlong": "\xc0\xaf",
		"right-to-left override": "a\u202eb", "left-to-right embedding": "a\u202ab", "isolate": "a\u2066b", "arabic mark": "a\u061cb",
		"zero-width space": "a\u200bb", "zero-width joiner": "a\u200db", "zero-width non-joiner": "a\u200cb", "word joiner": "a\u2060b",
		"byte order mark": "\ufeffa", "soft hyphen": "a\u00adb", "line separator": "a\u2028b", "paragraph separator": "a\u2029b",
		"interlinear": "a\ufff9b", "tag letter": "a\U000e0061b", "invisible times": "a\u2062b",
		"hangul filler": "a\u3164b", "half-width filler": "a\uffa0b", "combining grapheme joiner": "a\u034fb",
	}
	for _, f := range fields {
		expect := func(name, value, code string) {
			t.Helper()
			r := aRequest()
			*f.of(&r) = value
			err := r.Shape()
			switch {
			case code == "" && err != nil:
				t.Errorf("%s, %s: %v", f.name, name, err)
			case code != "" && (err == nil || err.Code != code || err.Field != f.name || err.Kind != fault.Invalid || err.Fix == ""):
				t.Errorf("%s, %s: %#v, want %s", f.name, name, err, code)
			}
		}
		for name, value := range bad {
			expect(name, value, "text_invalid")
		}
		expect("as long as it may be", strings.Repeat("x", f.most), "")
		expect("as long in another script", strings.Repeat("語", f.most), "")
		expect("a character too long", strings.Repeat("x", f.most+1), "field_too_long")
		expect("far too long", strings.Repeat("x", 1<<20), "field_too_long")
		if f.required {
			expect("missing", "", "field_missing")
		} else {
			expect("missing", "", "")
		}
		expect("plain", "Zoë, 7 €: \"rent\" & <more> ½ 家賃", "")
	}
}

func TestShapeOfTheRest(t *testing.T) {
	fee := func(s string) *decimal.Decimal { d := decimal.RequireFromString(s); return &d }
	for name, c := range map[string]struct {
		change      func(r *withdraw.Request)
		field, code string
	}{
		"as it is":               {func(r *withdraw.Request) {}, "", ""},
		"unknown method":         {func(r *withdraw.Request) { r.Method = "wire" }, "method", "method_unknown"},
		"no method":              {func(r *withdraw.Request) { r.Method = "" }, "method", "method_unknown"},
		"method in capitals":     {func(r *withdraw.Request) { r.Method = "ON_CHAIN" }, "method", "method_unknown"},
		"inter-user with chain":  {func(r *withdraw.Request) { r.Method = exchange.InterUser }, "chain", "chain_not_wanted"},
		"inter-user":             {func(r *withdraw.Request) { r.Method, r.Chain = exchange.InterUser, "" }, "", ""},
		"on chain without chain": {func(r *withdraw.Request) { r.Chain = "" }, "chain", "field_missing"},
		"zero":                   {func(r *withdraw.Request) { r.Amount = decimal.Zero }, "amount", "amount_not_positive"},
		"negative":               {func(r *withdraw.Request) { r.Amount = decimal.NewFromInt(-1) }, "amount", "amount_not_positive"},
		"negative ceiling":       {func(r *withdraw.Request) { r.MaxFee = fee("-0.1") }, "max_fee", "amount_malformed"},
		"ceiling of zero":        {func(r *withdraw.Request) { r.MaxFee = fee("0") }, "", ""},
		"too short a life":       {func(r *withdraw.Request) { r.ExpiresIn = 5*time.Minute - 1 }, "expires_in", "expires_in_invalid"},
		"negative life":          {func(r *withdraw.Request) { r.ExpiresIn = -time.Hour }, "expires_in", "expires_in_invalid"},
		"short life":             {func(r *withdraw.Request) { r.ExpiresIn = 5 * time.Minute }, "", ""},
	} {
		r := aRequest()
		c.change(&r)
		err := r.Shape()
		if c.code == "" && err != nil || c.code != "" && (err == nil || err.Code != c.code || err.Field != c.field) {
			t.Errorf("%s: %v, want %q on %q", name, err, c.code, c.field)
		}
	}
}

func TestClient(t *testing.T) {
	for requester, want := range map[string]string{"client:payroll": "payroll", "person:ana": "", "payroll": "", "": "", "client:": ""} {
		if got := (withdraw.Request{Requester: requester}).Client(); got != want {
			t.Errorf("%q is client %q, want %q", requester, got, want)
		}
	}
}
