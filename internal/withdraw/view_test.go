package withdraw_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/withdraw"
)

func TestJSONOfAWithdrawal(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 0, 0, 7_900_000, time.FixedZone("", 7200))
	end, id := at.Add(24*time.Hour), int64(31200001)
	w := withdraw.Withdrawal{
		ID: uuid.MustParse("019ab0c5-7e00-7000-8000-000000000001"), Requester: "client:payroll", Reference: "inv-7",
		Account: "main", Method: exchange.OnChain, Asset: "USDT", Chain: "TRC20", Address: "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8",
		Amount: decimal.RequireFromString("25.500"), MaxFee: decimal.NewNullDecimal(decimal.RequireFromString("0.00")),
		Purpose: "<rent> & more", State: withdraw.Pending, Round: 1, Digest: []byte{0xab, 0xcd}, ExpiresAt: &end,
		CreatedAt: at, UpdatedAt: at,
	}
	asked := `{"id":"019ab0c5-7e00-7000-8000-000000000001","state":"pending",` +
		`"next":"Waits until 2 people have approved it. Without that it expires at 2026-11-24T08:00:00.007Z.",` +
		`"digest":"abcd","votes_needed":2,"round":1,"account":"main","method":"on_chain","asset":"USDT","chain":"TRC20",` +
		`"address":"TJRabPrwbZy45sbavfcjinPJC18kjpRTv8","memo":"","amount":"25.5","max_fee":"0","reference":"inv-7",` +
		`"purpose":"\u003crent\u003e \u0026 more","requester":"client:payroll","expires_at":"2026-11-24T08:00:00.007Z",` +
		`"created_at":"2026-11-23T08:00:00.007Z","updated_at":"2026-11-23T08:00:00.007Z"}`
	if d := cmp.Diff(asked, string(withdraw.JSON(w, 2))); d != "" {
		t.Error(d)
	}

	w.State, w.ReasonCode, w.Reason, w.Fix = withdraw.Held, "fee_differs", "the fee differs", "look at the exchange"
	w.ExchangeID, w.ExchangeStatus, w.FeeAsset = &id, "confirming", "USDT"
	w.Fee, w.TxID, w.Confirmations = decimal.NewNullDecimal(decimal.RequireFromString("2.40")), "9f3c", 19
	held := `{"id":"019ab0c5-7e00-7000-8000-000000000001","state":"held",` +
		`"next":"It waits for a decision by a person at Sluice. Do not ask for it a second time.",` +
		`"digest":"abcd","votes_needed":2,"round":1,"account":"main","method":"on_chain","asset":"USDT","chain":"TRC20",` +
		`"address":"TJRabPrwbZy45sbavfcjinPJC18kjpRTv8","memo":"","amount":"25.5","max_fee":"0","reference":"inv-7",` +
		`"purpose":"\u003crent\u003e \u0026 more","requester":"client:payroll",` +
		`"reason":{"code":"fee_differs","detail":"the fee differs","fix":"look at the exchange"},` +
		`"exchange":{"id":31200001,"status":"confirming","fee":"2.4","fee_asset":"USDT","tx_id":"9f3c","confirmations":19},` +
		`"expires_at":"2026-11-24T08:00:00.007Z",` +
		`"created_at":"2026-11-23T08:00:00.007Z","updated_at":"2026-11-23T08:00:00.007Z"}`
	if d := cmp.Diff(held, string(withdraw.JSON(w, 2))); d != "" {
		t.Error(d)
	}
}

func TestEveryStateSaysWhatFollows(t *testing.T) {
	said := map[string]withdraw.State{}
	for _, s := range withdraw.States() {
		next := withdraw.Next(withdraw.Withdrawal{State: s}, 2)
		if next == "" {
			t.Errorf("%s says nothing", s)
		}
		if before, twice := said[next]; twice && !(s.Final() && before.Final()) {
			t.Errorf("%s and %s say the same", before, s)
		}
		said[next] = s
	}
	if got := withdraw.Next(withdraw.Withdrawal{State: withdraw.Pending}, 1); got[:27] != "Waits until 1 person has ap" {
		t.Error(got)
	}
}
