package sandbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/internal/exchange/sandbox"
)

// control posts to the control and returns the state that it answers with.
func (b *bench) control(path, body string) sandbox.State {
	b.t.Helper()
	a := b.do(b.plain("POST", "/_sandbox/"+path, body))
	if a.status != http.StatusOK {
		b.t.Fatalf("POST /_sandbox/%s %s: HTTP %d %s", path, body, a.status, a.body)
	}
	var st sandbox.State
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	b.must(d.Decode(&st))
	return st
}

func TestControlDrivesTheWholeStory(t *testing.T) {
	b := open(t, sandbox.Options{})
	st := b.control("whitelist", `{"add":[{"method":"on_chain","asset":"USDT","chain":"TRC20","address":"`+listed+`","memo":""}]}`)
	if got := st.Accounts[0].Whitelist; len(got) != 1 || got[0].Address != listed {
		t.Errorf("whitelist %+v", got)
	}
	b.control("balances", `{"set":{"USDT":"20","BTC":"0"}}`)
	wantText(t, "balance", b.balance("USDT"), "20")
	b.control("config", `{"asset":"USDT","chain":"TRC20","withdrawal_fee":"5"}`)
	b.control("faults", `{"fault":"error","code":4002,"accept":true,"match":{"amount":"15"}}`)
	wantCode(t, b.withdraw(order("15", "tag")), 4002, "")

	st = b.control("clock", `{"step":true}`)
	if len(st.Withdrawals) != 1 || st.Withdrawals[0].Status != "audited" || st.Withdrawals[0].Gross.String() != "20" || st.Withdrawals[0].Remark != "tag" {
		t.Errorf("withdrawals %+v", st.Withdrawals)
	}
	if got := st.Requests["POST /assets/withdraw"]; got != 1 {
		t.Errorf("%d requests counted, want 1", got)
	}
	st = b.control("clock", `{"auto":true,"offset":"-10s","advance":"1m"}`)
	if !st.Clock.Auto || st.Clock.Offset != sandbox.Duration(50*time.Second) || st.Withdrawals[0].Status != "finished" {
		t.Errorf("clock %+v, status %s", st.Clock, st.Withdrawals[0].Status)
	}
	b.control("withdrawals", `{"withdraw_id":31200001,"status":"failed"}`)
	wantText(t, "balance after the failure", b.balance("USDT"), "20")

	st = b.control("keys", `{"account":"sub","access_id":"sub-id","secret_key":"sub-secret"}`)
	if len(st.Accounts) != 2 || st.Accounts[1].AccessIDs[0] != "sub-id" {
		t.Errorf("accounts %+v", st.Accounts)
	}
	b.control("balances", `{"account":"sub","set":{"USDT":"7.5"}}`)
	wantText(t, "the other account's balance", string(b.do(b.signedBy("sub-id", "sub-secret", "GET", "/v2/assets/spot/balance", "")).Data),
		`[{"ccy":"USDT","available":"7.5","frozen":"0"}]`)

	b.control("whitelist", `{"remove":[{"asset":"USDT","chain":"TRC20","address":"`+listed+`"}]}`)
	wantCode(t, b.withdraw(order("15", "")), 3310, "")
	b.control("faults", `{"fault":"rate_limit","times":3}`)
	if a := b.do(b.plain("DELETE", "/_sandbox/faults", "")); !strings.Contains(string(a.body), `"faults": []`) {
		t.Errorf("state after clearing: %s", a.body)
	}
}

func TestStateShowsNoSecrets(t *testing.T) {
	b := open(t, sandbox.Options{})
	a := b.do(b.plain("GET", "/_sandbox/state", ""))
	if a.status != 200 || bytes.Contains(a.body, []byte(sandbox.SecretKey)) {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
}

func TestControlIsStrict(t *testing.T) {
	b := ready(t, sandbox.Options{})
	entry := func(method, asset, chain, address string) string {
		return fmt.Sprintf(`{"add":[{"asset":"USDT","chain":"BSC","address":"fine"},{"method":%q,"asset":%q,"chain":%q,"address":%q}]}`, method, asset, chain, address)
	}
	before := b.State()
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"whitelist", `{"ad":[]}`, 400},
		{"whitelist", `{"add":[]} {}`, 400},
		{"whitelist", ``, 400},
		{"whitelist", entry("carrier_pigeon", "USDT", "TRC20", "a"), 400},
		{"whitelist", entry("on_chain", "DOGS", "TRC20", "a"), 400},
		{"whitelist", entry("on_chain", "USDT", "TRX20", "a"), 400},
		{"whitelist", entry("on_chain", "USDT", "TRC20", ""), 400},
		{"whitelist", entry("inter_user", "USDT", "TRC20", "a"), 400},
		{"whitelist", `{"account":"nobody","add":[]}`, 404},
		{"whitelist", `{"remove":[{"asset":"USDT","chain":"TRC20","address":"never listed"}]}`, 404},
		{"whitelist", `{"remove":[{"asset":"USDT","chain":"TRC20","address":"` + listed + `"},{"asset":"USDT","chain":"TRC20","address":"never listed"}]}`, 404},
		{"balances", `{"set":{"USDT":5}}`, 400},
		{"balances", `{"set":{"BTC":"1","USDT":"-5"}}`, 400},
		{"balances", `{"set":{"BTC":"1","DOGS":"5"}}`, 400},
		{"balances", `{"account":"nobody","set":{"USDT":"5"}}`, 404},
		{"clock", `{}`, 400},
		{"clock", `{"advance":30}`, 400},
		{"clock", `{"advance":"-30s"}`, 400},
		{"clock", `{"advance":"soon"}`, 400},
		{"config", `{"asset":"DOGS"}`, 400},
		{"config", `{"asset":"USDT","chain":"TRX20"}`, 400},
		{"config", `{"asset":"USDT","withdrawal_fee":"1"}`, 400},
		{"config", `{"asset":"USDT","chain":"TRC20","withdrawal_fee":"9","min_withdraw_amount":"-1"}`, 400},
		{"config", `{"asset":"USDT","chain":"TRC20","withdrawal_precision":19}`, 400},
		{"config", `{"asset":"USDT","chain":"TRC20","inter_transfer_enabled":false}`, 400},
		{"faults", `{"fault":"accept_answer_late","delay":5}`, 400},
		{"faults", `{"fault":"no_such_fault"}`, 400},
		{"keys", `{"account":"sub","access_id":"x"}`, 400},
		{"keys", `{"account":"sub","access_id":"` + sandbox.AccessID + `","secret_key":"x"}`, 409},
		{"withdrawals", `{"withdraw_id":1,"status":"failed"}`, 404},
		{"balances", `{"set":{"BTC":"1"},"financial":{"DOGS":"5"}}`, 400},
		{"futures", `{"ccy":"DOGS","available":"5"}`, 400},
		{"futures", `{"ccy":"USDT","available":"-5"}`, 400},
		{"futures", `{"ccy":"USDT","unrealized_pnl":"--5"}`, 400},
		{"futures", `{"account":"nobody","ccy":"USDT"}`, 404},
		{"positions", `{"market":"DOGS","open_interest":"1","avg_entry_price":"1"}`, 400},
		{"positions", `{"market":"BTCUSDT","open_interest":"1"}`, 400},
		{"positions", `{"market":"BTCUSDT","open_interest":"1","avg_entry_price":"1","side":"up"}`, 400},
		{"positions", `{"market":"BTCUSDT","open_interest":"0"}`, 404},
		{"positions", `{"account":"nobody","market":"BTCUSDT","open_interest":"1","avg_entry_price":"1"}`, 404},
		{"prices", `{"set":{"DOGS":"1"}}`, 400},
		{"prices", `{"set":{"BTCUSDT":"0"}}`, 400},
		{"deposits", `{"asset":"USDT","chain":"TRC20","amount":"0"}`, 400},
		{"deposits", `{"asset":"DOGS","chain":"TRC20","amount":"1"}`, 400},
		{"deposits", `{"asset":"USDT","chain":"TRX20","amount":"1"}`, 400},
		{"deposits", `{"asset":"USDT","chain":"TRC20","amount":"1","status":"gone"}`, 400},
		{"deposits", `{"deposit_id":1}`, 404},
		{"deposits", `{"deposit_id":1,"amount":"5"}`, 400},
		{"limits", `{"long_period":"2H"}`, 400},
		{"limits", `{"long_period":"1H","remaining":-1}`, 400},
		{"maintenance", `{"started_at":"2030-01-01T00:00:00Z"}`, 400},
		{"maintenance", `{"started_at":"2030-01-01T00:00:00Z","ended_at":"2030-01-01T01:00:00Z","scope":["MOON"]}`, 400},
		{"whitelist", `{"account":"` + strings.Repeat("x", 1<<20) + `"}`, 400},
	} {
		a := b.do(b.plain("POST", "/_sandbox/"+c.path, c.body))
		var said struct{ Code, Error, Fix string }
		if err := json.Unmarshal(a.body, &said); err != nil || a.status != c.status || said.Code == "" || said.Error == "" || said.Fix == "" {
			t.Errorf("%s %.80s: HTTP %d %s, want %d with code, error and fix", c.path, c.body, a.status, a.body, c.status)
		}
	}
	after := b.State()
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("refused calls changed the state\nfrom %+v\nto   %+v", before, after)
	}
	chains := b.do(b.plain("GET", "/v2/assets/deposit-withdraw-config?ccy=USDT", ""))
	if !strings.Contains(string(chains.Data), `"withdrawal_fee":"2.4"`) {
		t.Error("a refused change of the config left a new fee behind")
	}
	if a := b.do(b.plain("POST", "/_sandbox/state", "{}")); a.status != http.StatusMethodNotAllowed {
		t.Errorf("POST state: HTTP %d, want 405", a.status)
	}
}

func TestStateSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sandbox.json")
	b := ready(t, sandbox.Options{StatePath: path})
	b.must(b.AddKey("sub", sandbox.Key{AccessID: "sub-id", SecretKey: "sub-secret", ExpiresAt: begin.Add(time.Hour)}))
	b.inject(sandbox.Fault{Fault: sandbox.ListLate, Reads: 2})
	id := b.accepted("10", "tag")
	b.get("/v2/assets/withdraw")
	b.must(b.Step())
	b.must(b.Advance(time.Minute))
	fee := "9"
	b.must(b.Configure(sandbox.ConfigChange{Asset: "USDT", Chain: "BSC", WithdrawalFee: &fee}))
	b.inject(sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 4003, Match: map[string]string{"amount": "11"}})
	before := b.State()

	b = open(t, sandbox.Options{StatePath: path})
	after := b.State()
	before.Requests, after.Requests = nil, nil // counted from the start
	one, _ := json.Marshal(before)
	two, _ := json.Marshal(after)
	wantText(t, "state after the restart", string(two), string(one))
	if got := len(b.get("/v2/assets/withdraw").rows(t)); got != 0 {
		t.Error("the restart made a late row visible")
	}
	rows := b.get("/v2/assets/withdraw").rows(t)
	if len(rows) != 1 || rows[0]["withdraw_id"] != float64(id) || rows[0]["status"] != "audited" {
		t.Errorf("rows %v", rows)
	}
	if next := b.accepted("10", ""); next != id+1 {
		t.Errorf("the next id is %d, want %d", next, id+1)
	}
	wantText(t, "history", fmt.Sprint(len(b.get("/v2/assets/spot/transcation-history?type=withdraw").rows(t))), "2")
	config := b.do(b.plain("GET", "/v2/assets/deposit-withdraw-config?ccy=USDT", ""))
	if !strings.Contains(string(config.Data), `"withdrawal_fee":"9"`) {
		t.Error("the changed fee is lost")
	}
	wantCode(t, b.withdraw(order("11", "")), 4003, "")
	wantCode(t, b.do(b.signedBy("sub-id", "sub-secret", "GET", "/v2/assets/spot/balance", "")), 0, "")

	info, err := os.Stat(path)
	b.must(err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the state file holds keys and has mode %v", info.Mode())
	}
	files, err := os.ReadDir(filepath.Dir(path))
	b.must(err)
	if len(files) != 1 {
		t.Errorf("the directory holds %v, want the state file alone", files)
	}
}

func TestUnusableStateFile(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"half.json": `{"version":1,"acc`, "old.json": `{"version":0}`, "other.json": `{"version":1,"books":[]}`} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := sandbox.Open(sandbox.Options{StatePath: path}); err == nil {
			t.Errorf("%s was opened", name)
		}
		if kept, _ := os.ReadFile(path); string(kept) != content {
			t.Errorf("%s was overwritten", name)
		}
	}
	if _, err := sandbox.Open(sandbox.Options{StatePath: filepath.Join(dir, "missing", "state.json")}); err == nil {
		t.Error("a state file without a directory was accepted")
	}
}

// Money that moved and could not be written down is not a refusal: the client
// must see something that it cannot take for a no.
func TestUnwritableStateIsNoRefusal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b := ready(t, sandbox.Options{StatePath: filepath.Join(dir, "sandbox.json")})
	b.must(os.RemoveAll(dir))
	if a := b.withdraw(order("10", "")); a.status != http.StatusInternalServerError || a.Code != nil {
		t.Errorf("HTTP %d %s, want a bare 500", a.status, a.body)
	}
	if b.made() != 1 {
		t.Error("the withdrawal is gone")
	}
	b.must(os.Mkdir(dir, 0o700))
	b.must(b.Advance(0))
	b = open(t, sandbox.Options{StatePath: filepath.Join(dir, "sandbox.json")})
	if b.made() != 1 {
		t.Error("the withdrawal was not written once the file could be")
	}
}

// The examples of the manual are run, in order, against one sandbox.
func TestExamplesOfTheManual(t *testing.T) {
	manual, err := os.ReadFile("../../../docs/sandbox.md")
	if err != nil {
		t.Fatal(err)
	}
	b := ready(t, sandbox.Options{Auto: true})
	b.accepted("10", "the withdrawal that the examples speak of")
	examples := regexp.MustCompile(`(?s)curl -s (?:-X (DELETE) )?http://127\.0\.0\.1:8090(/_sandbox/\w+)(?: -d '(.*?)')?\n`).FindAllStringSubmatch(string(manual), -1)
	if want := strings.Count(string(manual), "curl -s "); len(examples) != want || want < 20 {
		t.Fatalf("%d examples found of %d", len(examples), want)
	}
	for _, e := range examples {
		method := "GET"
		switch {
		case e[1] != "":
			method = e[1]
		case e[3] != "":
			method = "POST"
		}
		if a := b.do(b.plain(method, e[2], e[3])); a.status != http.StatusOK {
			t.Errorf("%s: HTTP %d %s", e[0], a.status, a.body)
		}
	}
	for _, name := range sandbox.Kinds() {
		if !strings.Contains(string(manual), "`"+string(name)+"`") {
			t.Errorf("the manual does not explain the fault %s", name)
		}
	}
}
