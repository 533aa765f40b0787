package httpapi

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"sluice/internal/fault"
	"sluice/internal/money"
	"sluice/internal/policy"
)

// FuzzDecodeRequest: any bytes give a request or a fault that is the sender's; and
// a request that is written out again, as plainly as can be, is the same request.
func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte(`{"account":"main","asset":"USDT","chain":"TRC20","address":"T","amount":"25.5","reference":"r","purpose":"p"}`))
	f.Add([]byte(`{"account":"main","asset":"USDT","address":"a@b.c","amount":"1","reference":"r","purpose":"p","method":"inter_user","max_fee":"0.0","expires_in":"1h30m"}`))
	f.Add([]byte(`{"account":"a","account":"b"}`))
	f.Add([]byte(`{"amount":1e3}`))
	f.Add([]byte(`{"purpose":"\ud800\u0000"}`))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := decodeRequest(body, policy.Default)
		if err != nil {
			p := fault.ProblemOf(err)
			if p.Status != http.StatusBadRequest && p.Status != http.StatusUnprocessableEntity {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		if !r.Amount.IsPositive() || r.ExpiresIn != 0 && (r.ExpiresIn < 5*time.Minute || r.ExpiresIn > policy.Default.Expiry) {
			t.Fatalf("%q passes as %+v", body, r)
		}
		plain := map[string]string{
			"account": r.Account, "method": string(r.Method), "asset": r.Asset, "chain": r.Chain, "address": r.Address, "memo": r.Memo,
			"amount": money.Text(r.Amount), "reference": r.Reference, "purpose": r.Purpose,
		}
		if r.MaxFee != nil {
			plain["max_fee"] = money.Text(*r.MaxFee)
		}
		if r.ExpiresIn != 0 {
			plain["expires_in"] = r.ExpiresIn.String()
		}
		again, err := json.Marshal(plain)
		if err != nil {
			t.Fatal(err)
		}
		second, err := decodeRequest(again, policy.Default)
		if err != nil || second.BodyHash != r.BodyHash {
			t.Fatalf("%q became %q: %v", body, again, err)
		}
	})
}
