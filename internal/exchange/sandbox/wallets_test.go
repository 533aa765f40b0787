package sandbox_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/internal/exchange/sandbox"
)

func transfer(ccy, amount, from, to, more string) string {
	return fmt.Sprintf(`{"ccy":%q,"amount":%q,"from_account_type":%q,"to_account_type":%q%s}`, ccy, amount, from, to, more)
}

func TestTransfersMoveMoneyAndLoseNone(t *testing.T) {
	b := open(t, sandbox.Options{NoRateLimit: true})
	move := func(body string, code int, words string) {
		t.Helper()
		wantCode(t, b.post("/v2/assets/transfer", body), code, words)
	}
	wantText(t, "answer", strings.TrimSpace(string(b.post("/v2/assets/transfer", transfer("USDT", "60", "SPOT", "FUTURES", "")).body)), `{"code":0,"data":{},"message":"OK"}`)
	b.must(b.Advance(time.Second))
	move(transfer("USDT", "10", "FUTURES", "SPOT", ""), 0, "")
	move(transfer("USDT", "50.00000001", "FUTURES", "SPOT", ""), 3109, "")
	wantText(t, "futures", string(b.get("/v2/assets/futures/balance").Data),
		`[{"ccy":"USDT","available":"50","frozen":"0","margin":"0","transferrable":"50","unrealized_pnl":"0"}]`)
	wantText(t, "spot", b.balance("USDT"), "999950")
	b.must(b.SetFutures(sandbox.FuturesChange{Asset: "USDT", Available: "50", Transferrable: "5"}))
	move(transfer("USDT", "6", "FUTURES", "SPOT", ""), 3109, "")

	move(transfer("BTC", "2", "SPOT", "MARGIN", `,"market":"BTCUSDT"`), 0, "")
	move(transfer("BTC", "0.5", "MARGIN", "SPOT", `,"market":"BTCUSDT"`), 0, "")
	move(transfer("BTC", "2", "MARGIN", "SPOT", `,"market":"BTCUSDT"`), 3109, "")
	wantText(t, "margin", string(b.get("/v2/assets/margin/balance").Data), `[{"margin_account":"BTCUSDT","base_ccy":"BTC","quote_ccy":"USDT",`+
		`"available":{"base_ccy":"1.5","quote_ccy":"0"},"frozen":{"base_ccy":"0","quote_ccy":"0"},"repaid":{"base_ccy":"0","quote_ccy":"0"},`+
		`"interest":{"base_ccy":"0","quote_ccy":"0"},"rik_rate":"","liq_price":""}]`)
	wantText(t, "spot", b.balance("BTC"), "23.5")
	move(transfer("BTC", "23.6", "SPOT", "FUTURES", ""), 3109, "")

	for body, words := range map[string]string{
		transfer("USDT", "1", "SPOT", "SPOT", ""):                               "must be SPOT",
		transfer("USDT", "1", "MARGIN", "FUTURES", `,"market":"BTCUSDT"`):       "must be SPOT",
		transfer("USDT", "1", "SPOT", "AMM", ""):                                "account types",
		transfer("USDT", "1", "SPOT", "MARGIN", ""):                             "market belongs to MARGIN",
		transfer("USDT", "1", "SPOT", "FUTURES", `,"market":"BTCUSDT"`):         "market belongs to MARGIN",
		transfer("USDT", "1", "SPOT", "MARGIN", `,"market":"DOGS"`):             "market is unknown",
		transfer("ETH", "1", "SPOT", "MARGIN", `,"market":"BTCUSDT"`):           "ccy is unknown there",
		transfer("DOGS", "1", "SPOT", "FUTURES", ""):                            "ccy is unknown there",
		transfer("USDT", "0", "SPOT", "FUTURES", ""):                            "amount must be",
		transfer("USDT", "1.000000001", "SPOT", "FUTURES", ""):                  "more than 8 decimals",
		`{"ccy":"USDT","from_account_type":"SPOT","to_account_type":"FUTURES"}`: "amount is required",
	} {
		move(body, 3639, words)
	}

	wantText(t, "history", string(b.get("/v2/assets/transfer-history?ccy=USDT&transfer_type=FUTURES").Data),
		`[{"created_at":1760000001000,"from_account_type":"FUTURES","to_account_type":"SPOT","ccy":"USDT","amount":"10","status":"finished"},`+
			`{"created_at":1760000000000,"from_account_type":"SPOT","to_account_type":"FUTURES","ccy":"USDT","amount":"60","status":"finished"}]`)
	if got := string(b.get("/v2/assets/transfer-history?ccy=BTC&transfer_type=MARGIN&limit=1").body); !strings.Contains(got, `"margin_market":"BTCUSDT"`) ||
		!strings.Contains(got, `"pagination":{"total":2,"has_next":true}`) {
		t.Errorf("margin history %s", got)
	}
	for query, want := range map[string]int{
		"&start_time=1760000000001": 1, "&end_time=1760000000000": 1, "&status=finished": 2, "&status=failed": 0,
	} {
		if got := len(b.get("/v2/assets/transfer-history?ccy=USDT&transfer_type=FUTURES" + query).rows(t)); got != want {
			t.Errorf("history%s: %d rows, want %d", query, got, want)
		}
	}
	for query, words := range map[string]string{
		"transfer_type=FUTURES": "ccy is required", "ccy=USDT": "transfer_type is required", "ccy=USDT&transfer_type=SPOT": "transfer_type must", "ccy=USDT&transfer_type=MARGIN&status=gone": "status",
	} {
		wantCode(t, b.get("/v2/assets/transfer-history?"+query), 3639, words)
	}
	if got := len(b.get("/v2/assets/spot/transcation-history?type=withdraw").rows(t)); got != 0 {
		t.Errorf("%d rows of withdrawals, and none was made", got)
	}
}

func TestFinancialBalance(t *testing.T) {
	b := open(t, sandbox.Options{})
	wantText(t, "nothing", string(b.get("/v2/assets/financial/balance").Data), `[]`)
	b.must(b.SetFinancialBalance("", "BTC", "1.5"))
	b.control("balances", `{"financial":{"USDT":"2"}}`)
	wantText(t, "financial", string(b.get("/v2/assets/financial/balance").Data),
		`[{"ccy":"BTC","available":"1.5","frozen":"0"},{"ccy":"USDT","available":"2","frozen":"0"}]`)
	wantText(t, "spot", b.balance("USDT"), "1000000")
}

func TestPositions(t *testing.T) {
	b := open(t, sandbox.Options{})
	const target = "/v2/futures/pending-position?market_type=FUTURES"
	wantText(t, "none", strings.TrimSpace(string(b.get(target).body)), `{"code":0,"data":[],"message":"OK","pagination":{"has_next":false}}`)
	b.must(b.SetPosition(sandbox.PositionChange{Market: "BTCUSDT", OpenInterest: "0.5", EntryPrice: "60000", SettlePrice: "62000", Leverage: "10", Margin: "2500", MarginMode: "isolated"}))
	b.must(b.SetPosition(sandbox.PositionChange{Market: "ETHUSDT", OpenInterest: "1", EntryPrice: "3000"}))
	b.must(b.Advance(time.Second))
	b.must(b.SetPrice("BTCUSDT", "61000"))
	row := b.get(target + "&market=BTCUSDT").rows(t)[0]
	for field, want := range map[string]any{
		"position_id": 305891033.0, "market_type": "FUTURES", "side": "long", "margin_mode": "isolated", "open_interest": "0.5", "unrealized_pnl": "-500",
		"avg_entry_price": "60000", "settle_price": "62000", "settle_value": "31000", "margin_avbl": "2500", "updated_at": 1760000001000.0, "created_at": 1760000000000.0,
	} {
		if row[field] != want {
			t.Errorf("%s is %v, want %v", field, row[field], want)
		}
	}
	for _, absent := range []string{"settle_val", "stop_loss_list"} {
		if _, there := row[absent]; there {
			t.Errorf("%s belongs to the websocket", absent)
		}
	}
	a := b.get(target + "&limit=1")
	if len(a.rows(t)) != 1 || !strings.Contains(string(a.body), `"pagination":{"has_next":true}`) {
		t.Errorf("first page %s", a.body)
	}
	b.must(b.SetPosition(sandbox.PositionChange{Market: "BTCUSDT", OpenInterest: "1", EntryPrice: "60000"}))
	if got := b.State().Accounts[0].Positions; len(got) != 2 || got[0].ID != 305891033 || got[0].OpenInterest.String() != "1" {
		t.Errorf("a change made another position: %+v", got)
	}
	b.must(b.SetPosition(sandbox.PositionChange{Market: "BTCUSDT", OpenInterest: "0"}))
	if got := len(b.get(target).rows(t)); got != 1 {
		t.Errorf("%d positions, want 1", got)
	}
	wantCode(t, b.get("/v2/futures/pending-position"), 3639, "market_type")
	wantCode(t, b.get(target+"&market=DOGS"), 3639, "market is unknown")
}

func TestMarketsAndTickers(t *testing.T) {
	b := open(t, sandbox.Options{})
	public := func(target string) string {
		t.Helper()
		return string(b.do(b.plain("GET", target, "")).Data)
	}
	b.must(b.SetPrice("BTCUSDT", "61000.5"))
	wantText(t, "spot ticker", public("/v2/spot/ticker?market=BTCUSDT"), `[{"market":"BTCUSDT","last":"61000.5","open":"61000.5","close":"61000.5","high":"61000.5","low":"61000.5",`+
		`"volume":"0","volume_sell":"0","volume_buy":"0","value":"0","period":86400}]`)
	if got := public("/v2/futures/ticker?market=BTCUSDT"); !strings.Contains(got, `"index_price":"61000.5","mark_price":"61000.5","open_interest_volume":"0"`) {
		t.Errorf("futures ticker %s", got)
	}
	count := func(target string, want int) {
		t.Helper()
		var rows []json.RawMessage
		if err := json.Unmarshal([]byte(public(target)), &rows); err != nil || len(rows) != want {
			t.Errorf("%s: %d rows, want %d", target, len(rows), want)
		}
	}
	count("/v2/spot/market", 5)
	count("/v2/spot/market?market=BTCUSDT,XRPUSDT,DOGS", 2)
	count("/v2/spot/ticker", 5)
	count("/v2/futures/market", 2)
	count("/v2/futures/market?market=ETHUSDT", 1)
	count("/v2/futures/ticker", 2)
	count("/v2/assets/info", 6)
	wantText(t, "asset info", public("/v2/assets/info?ccy=ETH"), `[{"short_name":"ETH","full_name":"Ethereum","website_url":"","white_paper_url":"",`+
		`"chain_info":[{"chain_name":"Ethereum (ERC20)","identity":"","explorer_url":"https://explorer.example/token/ETH"}]}]`)
	for _, target := range []string{"/v2/spot/market", "/v2/spot/ticker", "/v2/futures/market", "/v2/futures/ticker"} {
		wantCode(t, b.do(b.plain("GET", target+"?market=a,b,c,d,e,f,g,h,i,j,k", "")), 3639, "at most 10")
	}
}

func TestDeposits(t *testing.T) {
	b := open(t, sandbox.Options{NoRateLimit: true})
	address := func(a answered) string {
		t.Helper()
		wantCode(t, a, 0, "")
		return a.row(t)["address"].(string)
	}
	const target = "/v2/assets/deposit-address?ccy=USDT&chain=TRC20"
	old := address(b.get(target))
	wantText(t, "the same again", address(b.get(target)), old)
	fresh := address(b.post("/v2/assets/renewal-deposit-address", `{"ccy":"USDT","chain":"TRC20"}`))
	if fresh == old || address(b.get(target)) != fresh || address(b.get("/v2/assets/deposit-address?ccy=USDT&chain=BSC")) == fresh {
		t.Errorf("addresses %s then %s", old, fresh)
	}
	wantText(t, "memo", string(b.get("/v2/assets/deposit-address?ccy=XRP&chain=XRP").Data), `{"address":"sandbox-main-xrp-xrp-1","memo":"100001"}`)
	for query, words := range map[string]string{
		"chain=TRC20": "ccy is required", "ccy=USDT": "chain is required", "ccy=DOGS&chain=TRC20": "ccy is unknown", "ccy=USDT&chain=TRX20": "chain is unknown",
	} {
		wantCode(t, b.get("/v2/assets/deposit-address?"+query), 3639, words)
	}
	no := false
	b.must(b.Configure(sandbox.ConfigChange{Asset: "TRX", Chain: "TRC20", DepositEnabled: &no}))
	b.must(b.Configure(sandbox.ConfigChange{Asset: "SOL", DepositEnabled: &no}))
	wantCode(t, b.get("/v2/assets/deposit-address?ccy=TRX&chain=TRC20"), 3639, "closed")
	wantCode(t, b.get("/v2/assets/deposit-address?ccy=SOL&chain=SOL"), 3639, "closed")

	b.must(b.Deposit(sandbox.DepositChange{Asset: "USDT", Chain: "TRC20", Amount: "30"}))
	wantText(t, "balance", b.balance("USDT"), "1000030")
	a := b.get("/v2/assets/deposit-history?ccy=USDT")
	want := `[{"deposit_id":5173806,"created_at":1760000000000,"tx_id":"TX","tx_id_display":"TX","ccy":"USDT","chain":"TRC20","deposit_method":"on_chain","amount":"30",` +
		`"actual_amount":"","to_address":"` + fresh + `","confirmations":19,"status":"finished","tx_explorer_url":"https://explorer.example/tx/TX",` +
		`"to_addr_explorer_url":"https://explorer.example/address/` + fresh + `","remark":""}]`
	tx := b.State().Deposits[0].TxID
	wantText(t, "deposit", string(a.Data), strings.ReplaceAll(want, "TX", tx))
	if a.Pagination != nil || !strings.Contains(string(a.body), `"paginatation":{"total":1,"has_next":false}`) {
		t.Errorf("the page is not spelt as on the wire: %s", a.body)
	}

	b.control("deposits", `{"asset":"BTC","chain":"BTC","amount":"2","status":"confirming"}`)
	wantText(t, "not yet", b.balance("BTC"), "25")
	b.control("deposits", `{"deposit_id":5173807,"status":"finished"}`)
	wantText(t, "finished", b.balance("BTC"), "27")
	b.control("deposits", `{"deposit_id":5173807,"status":"exception"}`)
	wantText(t, "taken back", b.balance("BTC"), "25")
	b.control("deposits", `{"deposit_id":5173807}`)
	b.must(b.SetBalance("", "BTC", "1"))
	if b.Deposit(sandbox.DepositChange{ID: 5173807, Status: "cancelled"}) == nil {
		t.Error("a deposit that was spent was taken back")
	}
	for query, want := range map[string]int{
		"": 2, "ccy=BTC": 1, "status=finished": 2, "status=FINISHED": 2, "status=confirming": 0, "tx_id=" + tx: 1, "tx_id=none": 0, "limit=1": 1, "limit=1&page=3": 0,
	} {
		if got := len(b.get("/v2/assets/deposit-history?" + query).rows(t)); got != want {
			t.Errorf("%s: %d rows, want %d", query, got, want)
		}
	}
	wantCode(t, b.get("/v2/assets/deposit-history?status=gone"), 3639, "status")
	if got := len(b.get("/v2/assets/spot/transcation-history?type=deposit").rows(t)); got != 4 {
		t.Errorf("%d rows of deposits in the history, want 4", got)
	}
}

func TestLongPeriodLimit(t *testing.T) {
	for _, off := range []bool{false, true} {
		b := open(t, sandbox.Options{NoRateLimit: off}) // begins at 08:53:20 UTC
		b.must(b.AddKey("sub", sandbox.Key{AccessID: "sub-id", SecretKey: "sub-secret"}))
		b.must(b.SetLongPeriod("1H", 2))
		b.must(b.SetLongPeriod("4H", 10))
		check := func(a answered, code int, remaining, oneHour, fourHours string) {
			t.Helper()
			wantCode(t, a, code, "")
			wantText(t, "remaining", a.header.Get("X-RateLimit-Remaining"), remaining)
			wantText(t, "1H", a.header.Get("X-RateLimit-LongPeriod-1H-Remaining"), oneHour)
			wantText(t, "4H", a.header.Get("X-RateLimit-LongPeriod-4H-Remaining"), fourHours)
		}
		const list, balance = "/v2/assets/withdraw", "/v2/assets/spot/balance"
		check(b.get(list), 0, "0", "1", "9")
		check(b.get(balance), 4213, "0", "1", "9") // one a second, over all groups
		b.must(b.Advance(time.Second))
		check(b.get(balance), 0, "0", "0", "8")
		b.must(b.Advance(time.Second))
		check(b.get(list), 4213, "0", "0", "8") // nothing remains
		check(b.do(b.signedBy("sub-id", "sub-secret", "GET", list, "")), 4213, "0", "0", "8")
		if h := b.do(b.plain("GET", "/v2/time", "")).header; h.Get("X-RateLimit-LongPeriod-1H-Remaining") != "" {
			t.Error("a public answer carries the limit of a user")
		}
		b.must(b.Advance(time.UnixMilli(1760000400000).Sub(b.Now()))) // 09:00:00
		check(b.get(list), 0, "0", "", "7")
		b.do(b.plain("DELETE", "/_sandbox/limits", ""))
		if a := b.get(list); a.code() != 0 || a.header.Get("X-RateLimit-LongPeriod-4H-Remaining") != "" || (a.header.Get("X-RateLimit-Limit") == "10") == off {
			t.Errorf("after lifting: %v", a.header)
		}
	}
}
