package coinex

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/fault"
)

// The vectors of facts 1.5. There is no official one.
func TestSignatureVectors(t *testing.T) {
	for name, v := range map[string]struct{ method, target, body, at, want string }{
		"A": {"GET", "/v2/assets/withdraw?ccy=USDT&limit=10&page=1", "", "1760000000123", "3f4c968e2e3b303db38f6172b744e2ecda68e3c88efb4bd82787aa11b42f97af"},
		"B": {"POST", "/v2/assets/withdraw", vectorBody, "1760000000123", "ac869765f1200fc4ef149529889bd679401dfc922e535034b09ab9956f6c9df2"},
		"C": {"GET", "/v2/assets/spot/balance", "", "1760000000123", "e68e13520e6f2d7bd9a09fb22da926cc32a4366ce5bf22a0985644cd26b4cec3"},
		"D": {"GET", "/v2/spot/pending-order?market=BTCUSDT&market_type=SPOT&side=buy&page=1&limit=10", "", "1700490703564", "f1ca64a4e54b90be953489a0ad8ee8b6bad8193aa1d8092cfe2e30b32af388a4"},
		"W": {"", "", "", "1760000000123", "c68a080410f658bf6539df44d22f5c454a1dc68f50774585fbe2e89ebc9e08f4"},
	} {
		if got := signature(testSecret, v.method, v.target, []byte(v.body), v.at); got != v.want {
			t.Errorf("vector %s: got %s", name, got)
		}
	}
}

func TestSignGivesTheVector(t *testing.T) {
	s := newStub(t, nil)
	s.now = func() time.Time { return time.UnixMilli(testMillis) }
	c := s.client(func(cfg *Config) { cfg.Now = s.now; cfg.Window = 2500 * time.Millisecond })

	got, err := c.Sign(t.Context(), order())
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Body) != vectorBody {
		t.Errorf("body\n got %s\nwant %s", got.Body, vectorBody)
	}
	for name, want := range map[string]string{
		headerKey:       testID,
		headerSign:      "ac869765f1200fc4ef149529889bd679401dfc922e535034b09ab9956f6c9df2",
		headerTimestamp: "1760000000123",
		headerWindow:    "2500",
	} {
		if got.Header[name] != want {
			t.Errorf("%s: got %q", name, got.Header[name])
		}
	}
	if !got.Timestamp.Equal(time.UnixMilli(testMillis)) || got.Window != 2500*time.Millisecond || got.KeyHint != "5E6F" {
		t.Errorf("got %v, %v, %q", got.Timestamp, got.Window, got.KeyHint)
	}
	if len(s.requests()) != 0 {
		t.Error("signing sent something")
	}
}

func TestBodyOnTheWire(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*exchange.Order)
		want   string
	}{
		"memo has its own field": {
			func(o *exchange.Order) {
				o.Asset, o.Chain, o.Address, o.Memo = "XRP", "XRP", "rEb8TK3gBgk5auZkwc6sHnwrGVJH8DuaLh", "123456"
			},
			`{"ccy":"XRP","chain":"XRP","to_address":"rEb8TK3gBgk5auZkwc6sHnwrGVJH8DuaLh","withdraw_method":"on_chain","memo":"123456","amount":"25.5","remark":"wd_01JAXAMPLE0000000000000001"}`,
		},
		"inter_user has no chain, no remark no field": {
			func(o *exchange.Order) {
				o.Method, o.Chain, o.Address, o.Remark = exchange.InterUser, "", "user@example.com", ""
			},
			`{"ccy":"USDT","to_address":"user@example.com","withdraw_method":"inter_user","amount":"25.5"}`,
		},
		"amounts have one form": {
			func(o *exchange.Order) { o.Amount, o.Remark = decimal.RequireFromString("1000000000000.100000"), "" },
			`{"ccy":"USDT","chain":"TRC20","to_address":"TJRabPrwbZy45sbavfcjinPJC18kjpRTv8","withdraw_method":"on_chain","amount":"1000000000000.1"}`,
		},
		"no HTML escapes": {
			func(o *exchange.Order) { o.Remark = "a<b>&c" },
			`{"ccy":"USDT","chain":"TRC20","to_address":"TJRabPrwbZy45sbavfcjinPJC18kjpRTv8","withdraw_method":"on_chain","amount":"25.5","remark":"a<b>&c"}`,
		},
		"ASCII only": {
			func(o *exchange.Order) { o.Memo, o.Remark = "gr\u00fc\u00df \U0001F4B8 \u2028", "" },
			`{"ccy":"USDT","chain":"TRC20","to_address":"TJRabPrwbZy45sbavfcjinPJC18kjpRTv8","withdraw_method":"on_chain","memo":"gr\u00fc\u00df \ud83d\udcb8 \u2028","amount":"25.5"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := order()
			c.change(&o)
			got, err := encodeOrder(o)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
			var back withdrawBody
			if err := json.Unmarshal(got, &back); err != nil {
				t.Fatal(err)
			}
			if back.Address != o.Address || back.Memo != o.Memo || back.Remark != o.Remark {
				t.Errorf("the body does not read back as the order: %+v", back)
			}
		})
	}
}

func TestOrdersThatCannotBeSaidAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*exchange.Order)
		field  string
	}{
		"no asset":               {func(o *exchange.Order) { o.Asset = "" }, "asset"},
		"no address":             {func(o *exchange.Order) { o.Address = "" }, "address"},
		"no method":              {func(o *exchange.Order) { o.Method = "" }, "method"},
		"on-chain without chain": {func(o *exchange.Order) { o.Chain = "" }, "chain"},
		"inter_user with chain":  {func(o *exchange.Order) { o.Method = exchange.InterUser }, "chain"},
		"remark of 51":           {func(o *exchange.Order) { o.Remark = strings.Repeat("x", 51) }, "remark"},
		"remark beyond ASCII":    {func(o *exchange.Order) { o.Remark = "caf\u00e9" }, "remark"},
		"remark with line break": {func(o *exchange.Order) { o.Remark = "a\nb" }, "remark"},
		"address not UTF-8":      {func(o *exchange.Order) { o.Address = "TJR\xff" }, "address"},
		"memo not UTF-8":         {func(o *exchange.Order) { o.Memo = "\xc3" }, "memo"},
		"amount zero":            {func(o *exchange.Order) { o.Amount = decimal.Zero }, "amount"},
		"amount negative":        {func(o *exchange.Order) { o.Amount = decimal.NewFromInt(-1) }, "amount"},
		"amount too fine":        {func(o *exchange.Order) { o.Amount = decimal.New(1, -19) }, "amount"},
	} {
		t.Run(name, func(t *testing.T) {
			o := order()
			c.change(&o)
			_, err := encodeOrder(o)
			f, isFault := fault.As(err)
			if !isFault || f.Kind != fault.Invalid || f.Field != c.field || f.Fix == "" {
				t.Errorf("got %v", err)
			}
		})
	}
	o := order()
	o.Remark = strings.Repeat("x", 50)
	if _, err := encodeOrder(o); err != nil {
		t.Errorf("a remark of 50 was refused: %v", err)
	}
}
