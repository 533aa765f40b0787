package sandbox_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/exchange/sandbox"
)

// begin is when every test starts, unless it says otherwise.
var begin = time.UnixMilli(1760000000000).UTC()

const listed = "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8"

// bench is one sandbox behind a real HTTP server, on a clock that stands still
// until it is advanced.
type bench struct {
	*sandbox.Sandbox
	t   *testing.T
	url string
}

func open(t *testing.T, o sandbox.Options) *bench {
	t.Helper()
	o.Now = func() time.Time { return begin }
	sb, err := sandbox.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(sb)
	t.Cleanup(server.Close)
	t.Cleanup(sb.Close)
	return &bench{Sandbox: sb, t: t, url: server.URL}
}

// ready is open, with one address listed for USDT on TRC20.
func ready(t *testing.T, o sandbox.Options) *bench {
	t.Helper()
	b := open(t, o)
	b.must(b.AddWhitelist("", sandbox.Entry{Asset: "USDT", Chain: "TRC20", Address: listed}))
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// answered is what came back over the wire.
type answered struct {
	status int
	header http.Header
	body   []byte

	Code       *int
	Message    string
	Data       json.RawMessage
	Pagination *struct {
		Total   int
		HasNext bool `json:"has_next"`
	}
}

func (a answered) code() int {
	if a.Code == nil {
		return -1
	}
	return *a.Code
}

// row decodes the one row of a submission.
func (a answered) row(t *testing.T) map[string]any {
	t.Helper()
	var row map[string]any
	if err := json.Unmarshal(a.Data, &row); err != nil {
		t.Fatalf("data %s: %v", a.Data, err)
	}
	return row
}

// rows decodes a list.
func (a answered) rows(t *testing.T) []map[string]any {
	t.Helper()
	var rows []map[string]any
	if err := json.Unmarshal(a.Data, &rows); err != nil {
		t.Fatalf("answer %s: %v", a.body, err)
	}
	return rows
}

func hmacSign(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

// signed makes a request of the default account, signed for the sandbox's own
// time.
func (b *bench) signed(method, target, body string) *http.Request {
	b.t.Helper()
	return b.signedBy(sandbox.AccessID, sandbox.SecretKey, method, target, body)
}

func (b *bench) signedBy(id, secret, method, target, body string) *http.Request {
	b.t.Helper()
	ts := strconv.FormatInt(b.Now().UnixMilli(), 10)
	r := b.plain(method, target, body)
	r.Header.Set("X-COINEX-KEY", id)
	r.Header.Set("X-COINEX-TIMESTAMP", ts)
	r.Header.Set("X-COINEX-SIGN", hmacSign(secret, method+target+body+ts))
	return r
}

func (b *bench) plain(method, target, body string) *http.Request {
	b.t.Helper()
	r, err := http.NewRequest(method, b.url+target, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	return r
}

// send returns the transport's error, for the faults that break connections.
// Every request has its own connection, so that the transport never repeats
// one by itself.
func send(r *http.Request) (answered, error) {
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return answered{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return answered{}, err
	}
	a := answered{status: resp.StatusCode, header: resp.Header, body: raw}
	_ = json.Unmarshal(raw, &a) // not every answer is JSON
	return a, nil
}

func (b *bench) do(r *http.Request) answered {
	b.t.Helper()
	a, err := send(r)
	if err != nil {
		b.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return a
}

func (b *bench) get(target string) answered {
	b.t.Helper()
	return b.do(b.signed("GET", target, ""))
}

func (b *bench) post(target, body string) answered {
	b.t.Helper()
	return b.do(b.signed("POST", target, body))
}

func (b *bench) withdraw(body string) answered {
	b.t.Helper()
	return b.post("/v2/assets/withdraw", body)
}

// order is a body for the listed address.
func order(amount, remark string) string {
	return fmt.Sprintf(`{"ccy":"USDT","chain":"TRC20","to_address":%q,"withdraw_method":"on_chain","amount":%q,"remark":%q}`, listed, amount, remark)
}

// accepted submits an order that must succeed and returns its id.
func (b *bench) accepted(amount, remark string) int64 {
	b.t.Helper()
	a := b.withdraw(order(amount, remark))
	if a.code() != 0 {
		b.t.Fatalf("withdraw: %s", a.body)
	}
	return int64(a.row(b.t)["withdraw_id"].(float64))
}

func (b *bench) balance(ccy string) string {
	b.t.Helper()
	for _, row := range b.get("/v2/assets/spot/balance").rows(b.t) {
		if row["ccy"] == ccy {
			return row["available"].(string)
		}
	}
	return ""
}

func (b *bench) status(id int64) sandbox.Status {
	b.t.Helper()
	for _, w := range b.Withdrawals() {
		if w.ID == id {
			return w.Status
		}
	}
	b.t.Fatalf("no withdrawal %d", id)
	return ""
}

func wantCode(t *testing.T, a answered, code int, words string) {
	t.Helper()
	if a.status != 200 || a.code() != code || !strings.Contains(a.Message, words) {
		t.Errorf("got HTTP %d %s, want code %d with %q", a.status, a.body, code, words)
	}
	if code != 0 && string(a.Data) != "{}" {
		t.Errorf("the data of an error is %s, want {}", a.Data)
	}
}

func wantText(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %s, want %s", what, got, want)
	}
}

func TestPublishedSignatureVectors(t *testing.T) {
	const (
		key    = "5E6F70819203A4B5C6D7E8F901234567"
		secret = "B0A1C2D3E4F5061728394A5B6C7D8E9F00112233445566778899"
		body   = `{"ccy":"USDT","chain":"TRC20","to_address":"TJRabPrwbZy45sbavfcjinPJC18kjpRTv8","withdraw_method":"on_chain","amount":"25.5","remark":"wd_01JAXAMPLE0000000000000001"}`
	)
	cases := []struct {
		name, key, secret, method, target, body string
		at                                      int64
		hmac, legacy                            string
	}{
		{"A", key, secret, "GET", "/v2/assets/withdraw?ccy=USDT&limit=10&page=1", "", 1760000000123,
			"3f4c968e2e3b303db38f6172b744e2ecda68e3c88efb4bd82787aa11b42f97af", "dd8708e0a54fa9b5f1c6b984dd4dfddfea5c5fa965390966b8a5d7b4def2457a"},
		{"B", key, secret, "POST", "/v2/assets/withdraw", body, 1760000000123,
			"ac869765f1200fc4ef149529889bd679401dfc922e535034b09ab9956f6c9df2", "945d16d110b32596029e5da83ca08562cd51856f9a3f96cda5fe4ce620284c30"},
		{"C", key, secret, "GET", "/v2/assets/spot/balance", "", 1760000000123,
			"e68e13520e6f2d7bd9a09fb22da926cc32a4366ce5bf22a0985644cd26b4cec3", "4743db435cf69ecfdbf640f97e98e88e291d13ea8201347594571338553541ba"},
		{"ccxt withdraw", "AK0123456789", "SK0123456789", "POST", "/v2/assets/withdraw",
			`{"amount":"10","ccy":"USDT","chain":"TRC20","remark":"wf-1","to_address":"TY5vq3MT6b5cQVAHWHtpGyPg1ERcQgi3UN"}`, 1795395683038,
			"", "1b84f40056815b7bec68396241d4003e3904a79fbe4a1a504dab47464c6794bf"},
		{"ccxt list", "AK0123456789", "SK0123456789", "GET", "/v2/assets/withdraw?ccy=USDT&limit=3", "", 1795395683456,
			"", "fdfad8edbe6c9623e6583b9ba7b427af3bb3892f2f3065bc1225e35ca5e6c7cf"},
	}
	for _, legacyAllowed := range []bool{false, true} {
		for _, c := range cases {
			t.Run(fmt.Sprintf("%s legacy=%v", c.name, legacyAllowed), func(t *testing.T) {
				b := open(t, sandbox.Options{LegacySignatures: legacyAllowed})
				b.must(b.AddKey("vectors", sandbox.Key{AccessID: c.key, SecretKey: c.secret}))
				b.must(b.SetOffset(time.UnixMilli(c.at).Sub(begin)))
				try := func(sign string) int {
					r := b.plain(c.method, c.target, c.body)
					r.Header.Set("X-COINEX-KEY", c.key)
					r.Header.Set("X-COINEX-SIGN", sign)
					r.Header.Set("X-COINEX-TIMESTAMP", strconv.FormatInt(c.at, 10))
					return b.do(r).code()
				}
				// An order for an address that is not listed: 3310 is behind the signature.
				good := 0
				if c.method == "POST" {
					good = 3310
				}
				if c.hmac != "" {
					if got := try(c.hmac); got != good {
						t.Errorf("HMAC: code %d, want %d", got, good)
					}
				}
				want := 4006
				if legacyAllowed {
					want = good
				}
				if got := try(c.legacy); got != want {
					t.Errorf("legacy: code %d, want %d", got, want)
				}
			})
		}
	}
}

// The signature covers what is on the wire, not a tidied form of it.
func TestSignatureCoversTheRawTarget(t *testing.T) {
	b := open(t, sandbox.Options{})
	for _, target := range []string{"/v2/assets/spot/balance?", "/v2/assets/withdraw?limit=3&ccy=USDT&page=1", "/v2/assets/withdraw?status=&x=a%2Fb+c"} {
		wantCode(t, b.get(target), 0, "OK")
	}
	r := b.signed("GET", "/v2/assets/withdraw?ccy=USDT&limit=3", "")
	r.URL.RawQuery = "limit=3&ccy=USDT"
	wantCode(t, b.do(r), 4006, "")
	r = b.signed("POST", "/v2/assets/withdraw", order("10", ""))
	spaced := order("10", "") + " "
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(spaced)), int64(len(spaced))
	wantCode(t, b.do(r), 4006, "")
}

// Each step mends the one thing that the answer before complained of.
func TestAuthenticationIsCheckedInOrder(t *testing.T) {
	b := open(t, sandbox.Options{})
	const target = "/v2/assets/spot/balance"
	setKey := func(k sandbox.Key) {
		t.Helper()
		k.AccessID, k.SecretKey = "second-id", "second-secret"
		b.must(b.AddKey("", k))
	}
	now := b.Now()
	stamp := func(at time.Time) string { return strconv.FormatInt(at.UnixMilli(), 10) }
	bad := map[string]string{"X-COINEX-TIMESTAMP": stamp(now.Add(-time.Hour)), "X-COINEX-SIGN": "no hex"}
	try := func() answered {
		t.Helper()
		r := b.plain("GET", target, "")
		for k, v := range bad {
			r.Header.Set(k, v)
		}
		return b.do(r)
	}
	wantCode(t, try(), 4005, "")
	bad["X-COINEX-KEY"] = "nobody"
	wantCode(t, try(), 4005, "")
	bad["X-COINEX-KEY"] = "second-id"
	blocked := sandbox.Key{IPs: []string{"192.0.2.1"}, Forbidden: true}
	young, old := blocked, blocked
	young.ActiveFrom, old.ExpiresAt = now.Add(time.Millisecond), now
	setKey(young)
	wantCode(t, try(), 4005, "")
	setKey(old)
	wantCode(t, try(), 4005, "")
	setKey(blocked)
	wantCode(t, try(), 4007, "")
	setKey(sandbox.Key{IPs: []string{"127.0.0.1"}, Forbidden: true})
	wantCode(t, try(), 4008, "")
	delete(bad, "X-COINEX-SIGN")
	wantCode(t, try(), 4008, "")
	bad["X-COINEX-SIGN"] = strings.Repeat("A", 64)
	wantCode(t, try(), 4008, "")
	bad["X-COINEX-SIGN"] = strings.Repeat("a", 64)
	wantCode(t, try(), 4017, "")
	bad["X-COINEX-TIMESTAMP"] = stamp(now.Add(time.Hour))
	wantCode(t, try(), 4010, "")
	bad["X-COINEX-TIMESTAMP"] = "soon"
	wantCode(t, try(), 4010, "")
	bad["X-COINEX-TIMESTAMP"] = stamp(now)
	wantCode(t, try(), 4006, "")
	bad["X-COINEX-SIGN"] = hmacSign("second-secret", "GET"+target+stamp(now))
	wantCode(t, try(), 4011, "")
	setKey(sandbox.Key{})
	wantCode(t, try(), 0, "OK")
}

func TestWindowOfASignedRequest(t *testing.T) {
	for _, c := range []struct {
		age    time.Duration
		window string
		code   int
	}{
		{5000 * time.Millisecond, "", 0},
		{5001 * time.Millisecond, "", 4017},
		{1000 * time.Millisecond, "1000", 0},
		{1001 * time.Millisecond, "1000", 4017},
		{9 * time.Second, "10000", 0},
		{-60 * time.Second, "", 0},
		{-60*time.Second - time.Millisecond, "", 4010},
		{0, "1s", 4004},
	} {
		b := open(t, sandbox.Options{})
		r := b.signed("GET", "/v2/assets/spot/balance", "")
		if c.window != "" {
			r.Header.Set("X-COINEX-WINDOWTIME", c.window)
		}
		b.must(b.SetOffset(c.age))
		if got := b.do(r).code(); got != c.code {
			t.Errorf("age %s, window %q: code %d, want %d", c.age, c.window, got, c.code)
		}
	}
}

func TestTypesAreStrict(t *testing.T) {
	b := ready(t, sandbox.Options{NoRateLimit: true})
	for body, words := range map[string]string{
		`{"ccy":"USDT","chain":"TRC20","to_address":"a","amount":10}`:                             "amount must be a string",
		`{"ccy":1,"chain":"TRC20","to_address":"a","amount":"10"}`:                                "ccy must be a string",
		`{"ccy":"USDT","chain":null,"to_address":"a","amount":"10"}`:                              "chain must be a string",
		`{"ccy":"USDT","chain":"TRC20","to_address":"a","amount":"10","memo":7}`:                  "memo must be a string",
		`{"ccy":"USDT","chain":"TRC20","to_address":"a","amount":"10","remark":["x"]}`:            "remark must be a string",
		`{"ccy":"USDT","chain":"TRC20","to_address":"a","amount":"10","extra":"x"}`:               "extra must be an object",
		`{"chain":"TRC20","to_address":"a","amount":"10"}`:                                        "ccy is required",
		`{"CCY":"USDT","chain":"TRC20","to_address":"a","amount":"10"}`:                           "ccy is required",
		`{"ccy":"USDT","chain":"TRC20","amount":"10"}`:                                            "to_address is required",
		`{"ccy":"USDT","chain":"TRC20","to_address":"a"}`:                                         "amount is required",
		`{"ccy":"USDT","to_address":"a","amount":"10"}`:                                           "chain is required",
		`{"ccy":"USDT","chain":"TRC20","to_address":"a","amount":"1e1"}`:                          "amount must be a positive plain decimal",
		`{"ccy":"USDT","chain":"TRC20","to_address":"a","amount":"-1"}`:                           "amount must be",
		`{"ccy":"USDT","chain":"TRC20","to_address":"a","amount":"10","fee_ccy":"CET"}`:           "fee_ccy",
		`{"ccy":"USDT","chain":"TRC20","to_address":"a","amount":"10","withdraw_method":"local"}`: "withdraw_method",
		`[]`: "not a JSON object", `null`: "not a JSON object", ``: "not a JSON object", `{`: "not a JSON object",
	} {
		wantCode(t, b.withdraw(body), 3639, words)
	}
	wantCode(t, b.post("/v2/assets/cancel-withdraw", `{"withdraw_id":"31200001"}`), 3639, "withdraw_id must be")
	wantCode(t, b.post("/v2/assets/cancel-withdraw", `{"withdraw_id":1.5}`), 3639, "withdraw_id must be")
	wantCode(t, b.post("/v2/assets/cancel-withdraw", `{}`), 3639, "withdraw_id is required")
	for query, words := range map[string]string{
		"page=0": "page", "limit=101": "limit", "limit=x": "limit", "withdraw_id=abc": "withdraw_id", "status=gone": "status", "ccy=%zz": "malformed query",
	} {
		wantCode(t, b.get("/v2/assets/withdraw?"+query), 3639, words)
	}
	wantCode(t, b.get("/v2/assets/spot/transcation-history"), 3639, "type is required")
	wantCode(t, b.get("/v2/assets/spot/transcation-history?type=gift"), 3639, "type")
	if got := len(b.Withdrawals()); got != 0 {
		t.Errorf("%d withdrawals were made of refused requests", got)
	}
}

// One order with everything wrong; each step mends what the answer before
// complained of.
func TestWithdrawIsCheckedInOrder(t *testing.T) {
	b := open(t, sandbox.Options{})
	b.must(b.SetBalance("", "USDT", "7.39"))
	yes, no := true, false
	b.must(b.Configure(sandbox.ConfigChange{Asset: "USDT", WithdrawEnabled: &no}))
	b.must(b.Configure(sandbox.ConfigChange{Asset: "USDT", Chain: "TRC20", WithdrawEnabled: &no}))
	order := map[string]any{"ccy": "DOGS", "chain": "TRX20", "to_address": listed, "memo": 5, "amount": "4.1234567"}
	try := func() answered {
		t.Helper()
		body, _ := json.Marshal(order)
		return b.withdraw(string(body))
	}
	list := func(e sandbox.Entry) {
		t.Helper()
		b.must(b.AddWhitelist("", e))
	}
	wantCode(t, try(), 3639, "memo must be a string")
	order["memo"] = "42"
	wantCode(t, try(), 3639, "ccy is unknown")
	order["ccy"] = "USDT"
	wantCode(t, try(), 3639, "ccy cannot be withdrawn")
	b.must(b.Configure(sandbox.ConfigChange{Asset: "USDT", WithdrawEnabled: &yes}))
	wantCode(t, try(), 3639, "chain is unknown")
	order["chain"] = "TRC20"
	wantCode(t, try(), 3639, "chain is closed")
	b.must(b.Configure(sandbox.ConfigChange{Asset: "USDT", Chain: "TRC20", WithdrawEnabled: &yes}))
	wantCode(t, try(), 3310, "Invalid Withdrawal Address")
	list(sandbox.Entry{Method: "inter_user", Asset: "USDT", Address: listed, Memo: "42"})
	list(sandbox.Entry{Asset: "USDT", Chain: "ERC20", Address: listed, Memo: "42"})
	list(sandbox.Entry{Asset: "USDT", Chain: "TRC20", Address: strings.ToLower(listed), Memo: "42"})
	list(sandbox.Entry{Asset: "USDT", Chain: "TRC20", Address: listed})
	list(sandbox.Entry{Asset: "TRX", Chain: "TRC20", Address: listed, Memo: "42"})
	wantCode(t, try(), 3310, "Invalid Withdrawal Address")
	list(sandbox.Entry{Asset: "USDT", Chain: "TRC20", Address: listed, Memo: "42"})
	wantCode(t, try(), 3639, "more than 6 decimals")
	order["amount"] = "4.999999"
	wantCode(t, try(), 3127, "")
	order["amount"] = "5"
	wantCode(t, try(), 3109, "balance not enough")
	b.must(b.SetBalance("", "USDT", "7.4"))
	wantCode(t, try(), 0, "OK")
	wantText(t, "balance after net and fee", b.balance("USDT"), "")
	wantCode(t, try(), 3109, "")
}

// The amount asked for is net, the amount answered is gross (facts 0.1), and
// every type is that of the wire.
func TestWithdrawAnswersInTheShapeOfTheExchange(t *testing.T) {
	b := ready(t, sandbox.Options{})
	b.must(b.Advance(456 * time.Millisecond))
	a := b.withdraw(order("25.50", "wd_01J"))
	want := `{"code":0,"data":{"withdraw_id":31200001,"created_at":1760000000456,"ccy":"USDT","chain":"TRC20",` +
		`"withdraw_method":"on_chain","memo":"","amount":"27.9","fee_ccy":"USDT","actual_amount":"25.5","tx_fee":"2.4",` +
		`"tx_id":"","to_address":"TJRabPrwbZy45sbavfcjinPJC18kjpRTv8","confirmations":0,` +
		`"explorer_address_url":"https://explorer.example/address/TJRabPrwbZy45sbavfcjinPJC18kjpRTv8",` +
		`"explorer_tx_url":"https://explorer.example/tx/","status":"audit_required","remark":"wd_01J"},"message":"OK"}`
	wantText(t, "answer", strings.TrimSpace(string(a.body)), want)
	wantText(t, "content type", a.header.Get("Content-Type"), "application/json")
	wantText(t, "balance", b.balance("USDT"), "999972.1")

	list := b.get("/v2/assets/withdraw?withdraw_id=31200001")
	wantText(t, "row of the list", string(list.Data), "["+string(a.Data)+"]")
	history := b.get("/v2/assets/spot/transcation-history?type=withdraw")
	wantText(t, "history", string(history.Data), `[{"created_at":1760000000456,"ccy":"USDT","type":"withdraw","balance":"999972.1","change":"-27.9"}]`)
}

// There is no idempotency at the exchange.
func TestIdenticalRequestsMakeTwoWithdrawals(t *testing.T) {
	b := ready(t, sandbox.Options{})
	first := b.signed("POST", "/v2/assets/withdraw", order("10", "same"))
	again := b.signed("POST", "/v2/assets/withdraw", order("10", "same"))
	if first.Header.Get("X-COINEX-SIGN") != again.Header.Get("X-COINEX-SIGN") {
		t.Fatal("the requests are not the same")
	}
	one, two := b.do(first).row(t), b.do(again).row(t)
	if one["withdraw_id"] == two["withdraw_id"] {
		t.Errorf("both have the id %v", one["withdraw_id"])
	}
	wantText(t, "balance", b.balance("USDT"), "999975.2")
	if got := len(b.get("/v2/assets/withdraw").rows(t)); got != 2 {
		t.Errorf("%d rows, want 2", got)
	}
}

func TestInterUserIsInstantFreeAndWithoutChain(t *testing.T) {
	b := open(t, sandbox.Options{})
	body := `{"amount":"5","ccy":"USDT","to_address":"user@example.com","withdraw_method":"inter_user"}`
	wantCode(t, b.withdraw(body), 3310, "")
	b.must(b.AddWhitelist("", sandbox.Entry{Method: "inter_user", Asset: "USDT", Address: "user@example.com"}))
	no, yes := false, true
	b.must(b.Configure(sandbox.ConfigChange{Asset: "USDT", InterTransferEnabled: &no}))
	wantCode(t, b.withdraw(body), 3639, "transferred to users")
	b.must(b.Configure(sandbox.ConfigChange{Asset: "USDT", InterTransferEnabled: &yes}))
	row := b.withdraw(body).row(t)
	for field, want := range map[string]any{"status": "finished", "tx_fee": "0", "amount": "5", "actual_amount": "5", "chain": "", "tx_id": "", "withdraw_method": "inter_user"} {
		if row[field] != want {
			t.Errorf("%s: got %v, want %v", field, row[field], want)
		}
	}
	wantText(t, "balance", b.balance("USDT"), "999995")

	// A chain sent along has no meaning and does not show.
	row = b.withdraw(`{"amount":"5","ccy":"USDT","chain":"TRC20","to_address":"user@example.com","withdraw_method":"inter_user"}`).row(t)
	if row["chain"] != "" || row["status"] != "finished" {
		t.Errorf("with a chain: %v", row)
	}
}

func TestMemoIsRequiredWhereTheChainSaysSo(t *testing.T) {
	b := open(t, sandbox.Options{})
	b.must(b.AddWhitelist("", sandbox.Entry{Asset: "XRP", Chain: "XRP", Address: "rBench", Memo: "123456"}))
	wantCode(t, b.withdraw(`{"ccy":"XRP","chain":"XRP","to_address":"rBench","amount":"20"}`), 3639, "memo is required")
	wantCode(t, b.withdraw(`{"ccy":"XRP","chain":"XRP","to_address":"rBench","amount":"20","memo":"0123456"}`), 3310, "")
	wantCode(t, b.withdraw(`{"ccy":"XRP","chain":"XRP","to_address":"rBench","amount":"20","memo":"123456"}`), 0, "")
}

func TestLifeOnADrivenClock(t *testing.T) {
	b := ready(t, sandbox.Options{Auto: true, Pace: sandbox.Pace{
		AuditRequired: time.Second, Audited: 2 * time.Second, Processing: 3 * time.Second, Confirming: 19 * time.Second,
	}})
	id := b.accepted("10", "")
	at := func(d time.Duration, want sandbox.Status, confirmations float64, sent bool) {
		t.Helper()
		b.must(b.Advance(d))
		row := b.get("/v2/assets/withdraw").rows(t)[0]
		if row["status"] != string(want) || row["confirmations"] != confirmations || (row["tx_id"] != "") != sent {
			t.Errorf("at %s: status %v, confirmations %v, tx_id %v; want %s, %v, sent %v",
				b.Now().Sub(begin), row["status"], row["confirmations"], row["tx_id"], want, confirmations, sent)
		}
	}
	at(999*time.Millisecond, "audit_required", 0, false)
	at(time.Millisecond, "audited", 0, false)
	at(2*time.Second, "processing", 0, false)
	at(3*time.Second, "confirming", 0, true)
	at(time.Second, "confirming", 1, true)
	at(10*time.Second, "confirming", 11, true)
	at(8*time.Second, "finished", 19, true)
	wantText(t, "balance", b.balance("USDT"), "999987.6")

	// A long silence goes through every status, and is no different from
	// looking often.
	id2 := b.accepted("10", "")
	at(time.Hour, "finished", 19, true)
	if b.status(id) != "finished" || b.status(id2) != "finished" {
		t.Error("not both finished")
	}
}

// No timer runs in the sandbox; looking is enough.
func TestLifeFollowsTheClockUnderTheSandbox(t *testing.T) {
	now := begin
	sb := sandbox.New(sandbox.Options{Auto: true, Now: func() time.Time { return now }})
	server := httptest.NewServer(sb)
	defer server.Close()
	b := &bench{Sandbox: sb, t: t, url: server.URL}
	b.must(b.AddWhitelist("", sandbox.Entry{Asset: "USDT", Chain: "TRC20", Address: listed}))
	id := b.accepted("10", "")
	for _, want := range []sandbox.Status{"audit_required", "audited", "processing", "confirming", "finished"} {
		if got := b.status(id); got != want {
			t.Errorf("after %s: %s, want %s", now.Sub(begin), got, want)
		}
		// The default pace: 500, 300, 500 and 800 ms.
		now = begin.Add(map[sandbox.Status]time.Duration{"audit_required": 500, "audited": 800, "processing": 1300, "confirming": 2100}[want] * time.Millisecond)
	}
}

func TestStepMovesOneStatusOn(t *testing.T) {
	b := ready(t, sandbox.Options{})
	id := b.accepted("10", "")
	b.must(b.Advance(time.Hour))
	for _, want := range []sandbox.Status{"audit_required", "audited", "processing", "confirming", "finished", "finished"} {
		if got := b.status(id); got != want {
			t.Fatalf("status %s, want %s", got, want)
		}
		b.must(b.Step())
	}
}

// A wrong clock is not passing time.
func TestOffsetNeitherHurriesNorStopsWithdrawals(t *testing.T) {
	b := ready(t, sandbox.Options{Auto: true, Pace: sandbox.Pace{AuditRequired: 10 * time.Second}})
	id := b.accepted("10", "")
	b.must(b.SetOffset(time.Hour))
	if got := b.status(id); got != "audit_required" {
		t.Errorf("an hour of skew moved the withdrawal to %s", got)
	}
	var stamp struct{ Timestamp int64 }
	b.must(json.Unmarshal(b.do(b.plain("GET", "/v2/time", "")).Data, &stamp))
	if want := begin.Add(time.Hour).UnixMilli(); stamp.Timestamp != want {
		t.Errorf("time %d, want %d", stamp.Timestamp, want)
	}
	b.must(b.SetOffset(-time.Hour))
	b.must(b.Advance(10 * time.Second))
	if got := b.status(id); got != "audited" {
		t.Errorf("after its ten seconds the withdrawal is %s, want audited", got)
	}
	if b.Advance(-time.Second) == nil {
		t.Error("time ran backwards")
	}
}

func TestAutoStartsWithWholeSteps(t *testing.T) {
	b := ready(t, sandbox.Options{})
	id := b.accepted("10", "")
	b.must(b.Advance(time.Hour))
	b.must(b.SetAuto(true))
	if got := b.status(id); got != "audit_required" {
		t.Errorf("status %s right after auto, want audit_required", got)
	}
	b.must(b.Advance(time.Hour))
	if got := b.status(id); got != "finished" {
		t.Errorf("status %s, want finished", got)
	}
}

func TestCancelRefundsUntilProcessing(t *testing.T) {
	b := ready(t, sandbox.Options{})
	b.must(b.AddKey("other", sandbox.Key{AccessID: "other-id", SecretKey: "other-secret"}))
	cancel := func(id int64) answered {
		t.Helper()
		return b.post("/v2/assets/cancel-withdraw", fmt.Sprintf(`{"withdraw_id":%d}`, id))
	}
	for steps, status := range []sandbox.Status{"audit_required", "audited", "processing", "confirming", "finished"} {
		id := b.accepted("10", "")
		for range steps {
			b.must(b.Step())
		}
		before := b.balance("USDT")
		a := cancel(id)
		if status == "audit_required" || status == "audited" {
			wantText(t, "answer", strings.TrimSpace(string(a.body)), `{"code":0,"data":{},"message":"OK"}`)
			if got := b.status(id); got != "cancelled" {
				t.Errorf("status %s, want cancelled", got)
			}
			wantText(t, "balance after cancel", b.balance("USDT"), "1000000")
			wantCode(t, cancel(id), 3639, "no longer")
		} else {
			wantCode(t, a, 3639, "no longer")
			wantText(t, "balance", b.balance("USDT"), before)
			b.must(b.SetStatus(id, "failed"))
		}
		wantText(t, "balance at the end", b.balance("USDT"), "1000000")
	}
	wantCode(t, cancel(1), 3639, "unknown")
	id := b.accepted("10", "")
	foreign := b.signedBy("other-id", "other-secret", "POST", "/v2/assets/cancel-withdraw", fmt.Sprintf(`{"withdraw_id":%d}`, id))
	wantCode(t, b.do(foreign), 3639, "unknown")
}

// Whatever order the statuses come in, the account is debited exactly while
// the status says so.
func TestMoneyFollowsTheStatus(t *testing.T) {
	b := ready(t, sandbox.Options{NoRateLimit: true})
	id := b.accepted("10", "")
	all := map[sandbox.Status]string{
		"created": "1000000", "audit_required": "999987.6", "audited": "999987.6", "processing": "999987.6", "confirming": "999987.6",
		"finished": "999987.6", "cancelled": "1000000", "cancellation_failed": "999987.6", "failed": "1000000",
	}
	for from, before := range all {
		for to, after := range all {
			b.must(b.SetStatus(id, from))
			wantText(t, string(from), b.balance("USDT"), before)
			b.must(b.SetStatus(id, to))
			wantText(t, string(from)+" to "+string(to), b.balance("USDT"), after)
		}
	}
	b.must(b.SetStatus(id, "failed"))
	b.must(b.SetBalance("", "USDT", "1"))
	if b.SetStatus(id, "finished") == nil {
		t.Error("a refund was taken back from an account that no longer has it")
	}
	if b.SetStatus(id, "lost") == nil || b.SetStatus(1, "failed") == nil {
		t.Error("an unknown status or withdrawal was accepted")
	}
}

func TestListPagesNewestFirst(t *testing.T) {
	b := ready(t, sandbox.Options{NoRateLimit: true})
	b.must(b.AddWhitelist("", sandbox.Entry{Asset: "TRX", Chain: "TRC20", Address: listed}))
	b.must(b.AddKey("other", sandbox.Key{AccessID: "other-id", SecretKey: "other-secret"}))
	b.must(b.SetBalance("other", "USDT", "100"))
	b.must(b.AddWhitelist("other", sandbox.Entry{Asset: "USDT", Chain: "TRC20", Address: listed}))

	empty := b.get("/v2/assets/withdraw")
	wantText(t, "empty list", strings.TrimSpace(string(empty.body)), `{"code":0,"data":[],"message":"OK","pagination":{"total":0,"has_next":false}}`)

	var ids []int64
	for i := range 12 {
		ids = append(ids, b.accepted("10", fmt.Sprint(i)))
	}
	wantCode(t, b.withdraw(`{"ccy":"TRX","chain":"TRC20","to_address":"`+listed+`","amount":"10"}`), 0, "")
	wantCode(t, b.do(b.signedBy("other-id", "other-secret", "POST", "/v2/assets/withdraw", order("10", "foreign"))), 0, "")
	b.must(b.SetStatus(ids[3], "failed"))

	check := func(query string, total int, hasNext bool, want ...int64) {
		t.Helper()
		a := b.get("/v2/assets/withdraw?" + query)
		var got []int64
		for _, row := range a.rows(t) {
			got = append(got, int64(row["withdraw_id"].(float64)))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || a.Pagination == nil || a.Pagination.Total != total || a.Pagination.HasNext != hasNext {
			t.Errorf("%s: got %v %+v, want %v of %d, next %v", query, got, a.Pagination, want, total, hasNext)
		}
	}
	newest := func(from, to int) (out []int64) { // positions among the USDT rows
		for i := from; i < to; i++ {
			out = append(out, ids[len(ids)-1-i])
		}
		return out
	}
	check("ccy=USDT", 12, true, newest(0, 10)...)
	check("ccy=USDT&page=2", 12, false, newest(10, 12)...)
	check("ccy=USDT&page=3", 12, false)
	check("ccy=USDT&limit=5&page=2", 12, true, newest(5, 10)...)
	check("ccy=USDT&limit=4&page=3", 12, false, newest(8, 12)...)
	check("ccy=USDT&limit=100", 12, false, newest(0, 12)...)
	check("ccy=TRX", 1, false, ids[11]+1)
	check("status=failed", 1, false, ids[3])
	check(fmt.Sprintf("withdraw_id=%d", ids[5]), 1, false, ids[5])
	check(fmt.Sprintf("withdraw_id=%d", ids[11]+2), 0, false)
	check("ccy=BTC", 0, false)
}

func TestHistoryFiltersByTimeAndPages(t *testing.T) {
	b := ready(t, sandbox.Options{NoRateLimit: true})
	for range 3 {
		b.accepted("10", "")
		b.must(b.Advance(time.Minute))
	}
	count := func(query string) int {
		t.Helper()
		return len(b.get("/v2/assets/spot/transcation-history?" + query).rows(t))
	}
	ms := func(d time.Duration) int64 { return begin.Add(d).UnixMilli() }
	for query, want := range map[string]int{
		"type=withdraw":          3,
		"type=withdraw&ccy=USDT": 3,
		"type=withdraw&ccy=BTC":  0,
		"type=deposit":           0,
		fmt.Sprintf("type=withdraw&start_time=%d", ms(time.Minute)):                              2,
		fmt.Sprintf("type=withdraw&start_time=%d", ms(time.Minute)+1):                            1,
		fmt.Sprintf("type=withdraw&end_time=%d", ms(time.Minute)):                                2,
		fmt.Sprintf("type=withdraw&start_time=%d&end_time=%d", ms(time.Minute), ms(time.Minute)): 1,
		"type=withdraw&limit=2":        2,
		"type=withdraw&limit=2&page=2": 1,
	} {
		if got := count(query); got != want {
			t.Errorf("%s: %d rows, want %d", query, got, want)
		}
	}
}

func TestConfigIsThatOfTheWire(t *testing.T) {
	b := open(t, sandbox.Options{})
	fee, minimum, precision := "3.10", "0", int32(2)
	b.must(b.Configure(sandbox.ConfigChange{Asset: "TRX", Chain: "TRC20", WithdrawalFee: &fee, MinWithdrawAmount: &minimum, WithdrawalPrecision: &precision}))
	one := b.do(b.plain("GET", "/v2/assets/deposit-withdraw-config?ccy=TRX", ""))
	wantText(t, "config", string(one.Data), `{"asset":{"ccy":"TRX","deposit_enabled":true,"withdraw_enabled":true,"inter_transfer_enabled":true,"is_st":false},`+
		`"chains":[{"chain":"TRC20","min_deposit_amount":"10","min_withdraw_amount":"0","deposit_enabled":true,"withdraw_enabled":true,`+
		`"deposit_delay_minutes":0,"safe_confirmations":19,"irreversible_confirmations":38,"deflation_rate":"0","withdrawal_fee":"3.1",`+
		`"withdrawal_precision":2,"memo":"","is_memo_required_for_deposit":false,"explorer_asset_url":"https://explorer.example/token/TRX"}]}`)
	wantCode(t, b.do(b.plain("GET", "/v2/assets/deposit-withdraw-config", "")), 3639, "ccy is required")
	wantCode(t, b.do(b.plain("GET", "/v2/assets/deposit-withdraw-config?ccy=DOGS", "")), 3639, "ccy is unknown")

	got := map[string][]string{}
	for _, coin := range b.do(b.plain("GET", "/v2/assets/all-deposit-withdraw-config", "")).rows(t) {
		name := coin["asset"].(map[string]any)["ccy"].(string)
		for _, ch := range coin["chains"].([]any) {
			got[name] = append(got[name], ch.(map[string]any)["chain"].(string))
		}
	}
	wantText(t, "chains", fmt.Sprint(got), "map[BTC:[BTC] ETH:[ERC20] SOL:[SOL] TRX:[TRC20] USDT:[TRC20 ERC20 BSC SOL] XRP:[XRP]]")
}

func TestServiceEndpoints(t *testing.T) {
	b := open(t, sandbox.Options{})
	for target, want := range map[string]string{
		"/v2/ping":          `{"result":"pong"}`,
		"/v2/time":          `{"timestamp":1760000000000}`,
		"/v2/maintain/info": `[]`,
		"/v2/test/ip":       `{"ip":"127.0.0.1"}`,
	} {
		wantText(t, target, string(b.do(b.plain("GET", target, "")).Data), want)
	}
	for _, target := range []string{"/", "/v2", "/v2/", "/v2/assets/withdraw-history", "/v2/ping/", "/_sandbox/", "/_sandbox/nothing"} {
		if got := b.do(b.plain("GET", target, "")).status; got != 404 {
			t.Errorf("%s: HTTP %d, want 404", target, got)
		}
	}
	wantCode(t, b.do(b.plain("POST", "/v2/ping", "")), 4009, "method")
	wantCode(t, b.do(b.plain("GET", "/v2/assets/cancel-withdraw", "")), 4009, "method")
	if got := b.do(b.signed("POST", "/v2/assets/withdraw", strings.Repeat(" ", 1<<20+1))).status; got != 413 {
		t.Errorf("a body of more than a megabyte: HTTP %d, want 413", got)
	}
}

func TestBalanceListsCoinsHeld(t *testing.T) {
	b := open(t, sandbox.Options{})
	for _, ccy := range []string{"ETH", "SOL", "TRX", "XRP"} {
		b.must(b.SetBalance("", ccy, "0"))
	}
	wantText(t, "balances", string(b.get("/v2/assets/spot/balance").Data),
		`[{"ccy":"BTC","available":"25","frozen":"0"},{"ccy":"USDT","available":"1000000","frozen":"0"}]`)
}

func TestRateLimitPerAccountAndGroup(t *testing.T) {
	b := ready(t, sandbox.Options{})
	b.must(b.AddKey("other", sandbox.Key{AccessID: "other-id", SecretKey: "other-secret"}))
	const list = "/v2/assets/withdraw"
	for left := 19; left >= 0; left-- {
		a := b.get(list)
		wantCode(t, a, 0, "")
		wantText(t, "limit", a.header.Get("X-RateLimit-Limit"), "10")
		wantText(t, "remaining", a.header.Get("X-RateLimit-Remaining"), strconv.Itoa(left))
	}
	refused := b.get(list)
	wantCode(t, refused, 4213, "Please don't try too frequently.")
	wantText(t, "remaining", refused.header.Get("X-RateLimit-Remaining"), "0")
	wantCode(t, b.get("/v2/assets/spot/balance"), 0, "")
	wantCode(t, b.do(b.signedBy("other-id", "other-secret", "GET", list, "")), 0, "")
	b.must(b.Advance(100 * time.Millisecond))
	wantCode(t, b.get(list), 0, "")
	wantCode(t, b.get(list), 4213, "")
	if b.do(b.plain("GET", "/v2/ping", "")).header.Get("X-RateLimit-Limit") != "" {
		t.Error("a public answer carries the quota of a user")
	}

	off := open(t, sandbox.Options{NoRateLimit: true})
	for range 30 {
		wantCode(t, off.get(list), 0, "")
	}
}

func TestManyClientsAtOnce(t *testing.T) {
	b := ready(t, sandbox.Options{NoRateLimit: true, Auto: true})
	const clients, each = 8, 20
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				a, err := send(b.signed("POST", "/v2/assets/withdraw", order("10", fmt.Sprintf("%d-%d", c, i))))
				if err != nil || a.code() != 0 {
					t.Errorf("withdraw: %v %s", err, a.body)
				}
				if _, err := send(b.signed("GET", "/v2/assets/withdraw", "")); err != nil {
					t.Error(err)
				}
				if err := b.Advance(time.Millisecond); err != nil {
					t.Error(err)
				}
				b.State()
			}
		})
	}
	wg.Wait()
	ids := map[int64]bool{}
	for _, w := range b.Withdrawals() {
		ids[w.ID] = true
	}
	if len(ids) != clients*each {
		t.Errorf("%d withdrawals, want %d", len(ids), clients*each)
	}
	wantText(t, "balance", b.balance("USDT"), "998016") // 160 × 12.4
	if got := b.State().Requests["POST /assets/withdraw"]; got != clients*each {
		t.Errorf("%d requests counted, want %d", got, clients*each)
	}
}
