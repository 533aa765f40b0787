package coinex

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/fault"
)

func TestWithdrawalsReadsOnePage(t *testing.T) {
	row := toJSON(echoOf(map[string]any{"withdraw_id": 9007199254740993, "status": "finished", "tx_id": "9f3c", "confirmations": 19}))
	for name, c := range map[string]struct {
		query      exchange.Query
		answer     string
		wantTarget string
		wantRows   int
		wantNext   bool
	}{
		"by asset": {
			exchange.Query{Asset: "USDT", Page: 2, Limit: 10},
			`{"code":0,"data":[` + row + `],"pagination":{"total":11,"has_next":true},"message":"OK"}`,
			"/v2/assets/withdraw?ccy=USDT&limit=10&page=2", 1, true,
		},
		"by id": {
			exchange.Query{ID: 9007199254740993},
			`{"code":0,"data":[` + row + `],"pagination":{"total":1,"has_next":false},"message":"OK"}`,
			"/v2/assets/withdraw?limit=100&page=1&withdraw_id=9007199254740993", 1, false,
		},
		"an asset that needs escapes": {
			exchange.Query{Asset: "A B&C"},
			`{"code":0,"data":[],"pagination":{"has_next":false}}`,
			"/v2/assets/withdraw?ccy=A+B%26C&limit=100&page=1", 0, false,
		},
		"misspelt, flag as text": {
			exchange.Query{}, `{"code":0,"data":[],"paginatation":{"has_next":"true"}}`,
			"/v2/assets/withdraw?limit=100&page=1", 0, true,
		},
		"total only, more": {
			exchange.Query{Page: 2, Limit: 2}, `{"code":0,"data":[],"pagination":{"total":"5"}}`,
			"/v2/assets/withdraw?limit=2&page=2", 0, true,
		},
		"total only, end": {
			exchange.Query{Page: 2, Limit: 2}, `{"code":0,"data":[],"pagination":{"total":4}}`,
			"/v2/assets/withdraw?limit=2&page=2", 0, false,
		},
		"no pagination, full page": {
			exchange.Query{Limit: 1}, ok(`[` + row + `]`),
			"/v2/assets/withdraw?limit=1&page=1", 1, true,
		},
		"empty pagination, page not full": {
			exchange.Query{Limit: 2}, `{"code":0,"data":[` + row + `],"pagination":{}}`,
			"/v2/assets/withdraw?limit=2&page=1", 1, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t, says(c.answer))
			page, err := s.client().Withdrawals(t.Context(), c.query)
			if err != nil {
				t.Fatal(err)
			}
			got := s.requests()
			if len(got) != 1 || got[0].method != "GET" || got[0].target != c.wantTarget || got[0].header.Get(headerSign) == "" {
				t.Fatalf("sent %+v", got)
			}
			if len(page.Rows) != c.wantRows || page.HasNext != c.wantNext || string(page.Raw) != c.answer {
				t.Errorf("got %+v", page)
			}
			if c.wantRows > 0 && (page.Rows[0].ID != 9007199254740993 || page.Rows[0].Status != exchange.Finished || page.Rows[0].Confirms != 19) {
				t.Errorf("got %+v", page.Rows[0])
			}
		})
	}
}

func TestQueriesOutOfRangeAreRefused(t *testing.T) {
	s := newStub(t, nil)
	c := s.client()
	for _, q := range []exchange.Query{{Page: -1}, {Limit: 101}, {Limit: -1}, {ID: -1}} {
		if _, err := c.Withdrawals(t.Context(), q); !fault.Is(err, "query_invalid") {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if len(s.requests()) != 0 {
		t.Error("something was sent")
	}
}

func TestPagesThatCannotBeReadAreErrors(t *testing.T) {
	without := func(field string) string {
		return ok(`[` + toJSON(echoOf(nil)) + `,` + toJSON(echoOf(map[string]any{"withdraw_id": 2, field: nil})) + `]`)
	}
	for name, answer := range map[string]string{
		"data {}":                ok(`{}`), // an absence that proves nothing
		"data null":              ok(`null`),
		"no data":                `{"code":0,"message":"OK"}`,
		"a null row":             ok(`[null]`),
		"no id":                  ok(`[` + toJSON(echoOf(map[string]any{"withdraw_id": nil})) + `]`),
		"no time":                without("created_at"),
		"no address":             without("to_address"),
		"no asset":               without("ccy"),
		"amount in words":        ok(`[` + toJSON(echoOf(map[string]any{"actual_amount": "many"})) + `]`),
		"amount beyond bounds":   ok(`[` + toJSON(echoOf(map[string]any{"amount": "1e9000"})) + `]`),
		"amount below bounds":    ok(`[` + toJSON(echoOf(map[string]any{"amount": "1e-9000"})) + `]`),
		"neither net nor gross":  ok(`[` + toJSON(echoOf(map[string]any{"actual_amount": "", "amount": nil})) + `]`),
		"net, fee elsewhere":     ok(`[` + toJSON(echoOf(map[string]any{"actual_amount": "", "fee_ccy": "CET"})) + `]`),
		"time of the far future": ok(`[` + toJSON(echoOf(map[string]any{"created_at": 9e17})) + `]`),
		"has_next maybe":         `{"code":0,"data":[],"pagination":{"has_next":"maybe"}}`,
		"pagination a list":      `{"code":0,"data":[],"pagination":[]}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newStub(t, says(answer)).client().Withdrawals(t.Context(), exchange.Query{})
			f, isFault := fault.As(err)
			if !isFault || f.Code != "exchange_answer_unreadable" || f.Kind != fault.Unavailable {
				t.Errorf("got %v", err)
			}
		})
	}
}

const usdtConfig = `{"asset":{"ccy":"USDT","deposit_enabled":true,"withdraw_enabled":true,"inter_transfer_enabled":true,"is_st":false},
"chains":[{"chain":"TRC20","min_deposit_amount":"3","min_withdraw_amount":"5","deposit_enabled":true,"withdraw_enabled":true,
"deposit_delay_minutes":0,"safe_confirmations":19,"irreversible_confirmations":38,"deflation_rate":"0","withdrawal_fee":"2.4",
"withdrawal_precision":6,"memo":"","is_memo_required_for_deposit":false,"explorer_asset_url":"https://explorer.example/token/USDT"}]}`

func TestConfig(t *testing.T) {
	t.Run("of one asset, without a key", func(t *testing.T) {
		s := newStub(t, says(ok(usdtConfig)))
		got, err := s.client().Config(t.Context(), "USDT")
		if err != nil {
			t.Fatal(err)
		}
		sent := s.requests()
		if sent[0].target != "/v2/assets/deposit-withdraw-config?ccy=USDT" || sent[0].header.Get(headerKey) != "" || s.measured() != 0 {
			t.Errorf("sent %+v", sent)
		}
		if len(got) != 1 || got[0].Asset != "USDT" || got[0].Chain != "TRC20" || !got[0].AssetEnabled || !got[0].ChainEnabled ||
			!got[0].InterUserEnabled || got[0].MemoRequired || got[0].Precision != 6 ||
			!got[0].MinAmount.Equal(decimal.NewFromInt(5)) || !got[0].Fee.Equal(decimal.RequireFromString("2.4")) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("of all, in the types of the docs", func(t *testing.T) {
		xrp := `{"asset":{"ccy":"XRP","withdraw_enabled":"true"},"chains":[{"chain":"XRP","min_withdraw_amount":20,"withdraw_enabled":1,
			"safe_confirmations":null,"withdrawal_fee":0,"withdrawal_precision":"6","is_memo_required_for_deposit":"true"}]}`
		s := newStub(t, says(ok(`[`+usdtConfig+`,`+xrp+`,{"asset":{"ccy":"NEW"},"chains":[]}]`)))
		got, err := s.client().Config(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if s.requests()[0].target != "/v2/assets/all-deposit-withdraw-config" {
			t.Errorf("sent %+v", s.requests())
		}
		if len(got) != 2 || got[1].Asset != "XRP" || !got[1].AssetEnabled || !got[1].ChainEnabled || got[1].InterUserEnabled ||
			!got[1].MemoRequired || got[1].Precision != 6 || !got[1].MinAmount.Equal(decimal.NewFromInt(20)) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a chain without readable fee is closed", func(t *testing.T) {
		for _, broken := range []string{`"withdrawal_fee":null`, `"withdrawal_fee":""`, `"withdrawal_fee":"free"`, `"withdrawal_fee":{}`} {
			s := newStub(t, says(ok(strings.Replace(usdtConfig, `"withdrawal_fee":"2.4"`, broken, 1))))
			got, err := s.client().Config(t.Context(), "USDT")
			if err != nil || len(got) != 1 || got[0].ChainEnabled {
				t.Errorf("%s: %+v, %v", broken, got, err)
			}
		}
	})
	t.Run("an asset without a name is an error", func(t *testing.T) {
		_, err := newStub(t, says(ok(`{"asset":{},"chains":[]}`))).client().Config(t.Context(), "USDT")
		if !fault.Is(err, "exchange_answer_unreadable") {
			t.Errorf("got %v", err)
		}
	})
}

func TestBalances(t *testing.T) {
	s := newStub(t, says(ok(`[{"ccy": "USDT", "available": "100.5", "frozen": "0", "new": [1]}, {"ccy": "BTC", "available": 0.00000001, "frozen": 1e-8}]`)))
	got, err := s.client().Balances(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := s.requests()[0]; r.target != "/v2/assets/spot/balance" || r.header.Get(headerSign) == "" {
		t.Errorf("sent %+v", r)
	}
	satoshi := decimal.New(1, -8)
	if len(got) != 2 || got[0].Asset != "USDT" || !got[0].Available.Equal(decimal.RequireFromString("100.5")) ||
		!got[1].Available.Equal(satoshi) || !got[1].Frozen.Equal(satoshi) {
		t.Errorf("got %+v", got)
	}
	for _, bad := range []string{ok(`[{"available":"1"}]`), ok(`[{"ccy":"USDT","available":"x"}]`), ok(`{}`)} {
		if _, err := newStub(t, says(bad)).client().Balances(t.Context()); !fault.Is(err, "exchange_answer_unreadable") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestPing(t *testing.T) {
	s := newStub(t, says(ok(`{"result":"pong"}`)))
	if err := s.client().Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := s.requests()[0]; r.target != "/v2/ping" || r.header.Get(headerKey) != "" {
		t.Errorf("sent %+v", r)
	}
}

// The same bad answer means less for a read, which may be repeated, than for a
// cancellation, which may have happened.
func TestErrorsOfOtherCalls(t *testing.T) {
	html := "<html>bad gateway</html>"
	for name, c := range map[string]struct {
		status       int
		body         string
		read, cancel fault.Kind
		code         string
	}{
		"key":             {200, coded(4005), fault.Refused, fault.Refused, "exchange_code_4005"},
		"key, HTTP 401":   {401, coded(4005), fault.Refused, fault.Refused, "exchange_code_4005"},
		"parameter":       {200, coded(3639), fault.Invalid, fault.Invalid, "exchange_code_3639"},
		"rate":            {200, coded(213), fault.Unavailable, fault.Unavailable, "exchange_code_213"},
		"timed out":       {200, coded(4002), fault.Unavailable, fault.Unclear, "exchange_code_4002"},
		"undocumented":    {200, coded(3999), fault.Refused, fault.Refused, "exchange_code_3999"},
		"gateway":         {502, html, fault.Unavailable, fault.Unclear, "exchange_http_status"},
		"gateway, code 0": {502, ok(`{}`), fault.Unavailable, fault.Unclear, "exchange_http_status"},
		"edge":            {403, html, fault.Unavailable, fault.Unavailable, "exchange_http_status"},
		"edge, code 0":    {403, ok(`{}`), fault.Unavailable, fault.Unclear, "exchange_http_status"},
		"not JSON":        {200, html, fault.Unavailable, fault.Unclear, "exchange_answer_unreadable"},
	} {
		t.Run(name, func(t *testing.T) {
			client := newStub(t, func(w http.ResponseWriter, _ seen) {
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}).client()
			check := func(call string, err error, kind fault.Kind) {
				f, isFault := fault.As(err)
				if !isFault || f.Kind != kind || f.Code != c.code || f.Detail == "" || f.Fix == "" {
					t.Errorf("%s: got %#v", call, err)
					return
				}
				var rejection *Rejection
				if env, bad := decodeEnvelope([]byte(c.body)); bad == nil && env.code != 0 && (!errors.As(err, &rejection) || rejection.Code != env.code || rejection.Message == "") {
					t.Errorf("%s: the exchange's code is not in %v", call, err)
				}
				mustNotLeak(t, err.Error())
			}
			_, err := client.Balances(t.Context())
			check("balances", err, c.read)
			_, err = client.Withdrawals(t.Context(), exchange.Query{})
			check("withdrawals", err, c.read)
			_, err = client.Config(t.Context(), "USDT")
			check("config", err, c.read)
			check("ping", client.Ping(t.Context()), c.read)
			check("cancel", client.Cancel(t.Context(), 31200001), c.cancel)
		})
	}
}

func TestCancel(t *testing.T) {
	s := newStub(t, says(ok(`{}`)))
	c := s.client()
	if err := c.Cancel(t.Context(), 9007199254740993); err != nil {
		t.Fatal(err)
	}
	if r := s.requests()[0]; r.method != "POST" || r.target != "/v2/assets/cancel-withdraw" || r.body != `{"withdraw_id":9007199254740993}` || !r.fresh {
		t.Errorf("sent %+v", r)
	}
	if err := c.Cancel(t.Context(), 0); !fault.Is(err, "withdrawal_id_invalid") {
		t.Errorf("got %v", err)
	}

	lost := measuredNow(newOffline(t, func(r *http.Request) (*http.Response, error) {
		_, _ = r.Body.Read(make([]byte, 100))
		return nil, context.DeadlineExceeded
	}))
	if f, _ := fault.As(lost.Cancel(t.Context(), 1)); f == nil || f.Kind != fault.Unclear {
		t.Errorf("a lost cancellation: %v", f)
	}
	unsent := measuredNow(newOffline(t, func(*http.Request) (*http.Response, error) { return nil, errors.New("no route") }))
	if f, _ := fault.As(unsent.Cancel(t.Context(), 1)); f == nil || f.Kind != fault.Unavailable {
		t.Errorf("a cancellation that never left: %v", f)
	}
}
