package sandbox_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sluice/internal/exchange/sandbox"
)

// line is one websocket connection as a client has it.
type line struct {
	t    *testing.T
	b    *bench
	conn *websocket.Conn
}

func (b *bench) dial(path string) *line {
	b.t.Helper()
	conn, _, err := websocket.Dial(b.t.Context(), b.url+path, &websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover})
	b.must(err)
	b.t.Cleanup(func() { conn.CloseNow() })
	return &line{b.t, b, conn}
}

// unzip reads a frame as CoinEx sends it: binary, a whole gzip file.
func unzip(kind websocket.MessageType, frame []byte, err error) (string, error) {
	if err != nil {
		return "", err
	}
	if kind != websocket.MessageBinary {
		return "", fmt.Errorf("a text frame: %s", frame)
	}
	z, err := gzip.NewReader(bytes.NewReader(frame))
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(z)
	return string(text), err
}

func (l *line) send(text string) {
	l.t.Helper()
	l.b.must(l.conn.Write(l.t.Context(), websocket.MessageText, []byte(text)))
}

func (l *line) read() string {
	l.t.Helper()
	text, err := unzip(l.conn.Read(l.t.Context()))
	l.b.must(err)
	return text
}

// ask sends a message with the id 7 and wants this for an answer.
func (l *line) ask(method, params, want string) {
	l.t.Helper()
	l.send(fmt.Sprintf(`{"method":%q,"params":%s,"id":7}`, method, params))
	wantText(l.t, method+" "+params, l.read(), want)
}

const fine = `{"id":7,"code":0,"message":"OK"}`

func signature(id, secret string, at time.Time) string {
	ms := at.UnixMilli()
	return fmt.Sprintf(`{"access_id":%q,"signed_str":%q,"timestamp":%d}`, id, hmacSign(secret, strconv.FormatInt(ms, 10)), ms)
}

func (l *line) sign() {
	l.t.Helper()
	l.ask("server.sign", signature(sandbox.AccessID, sandbox.SecretKey, l.b.Now()), fine)
}

func (b *bench) cancel(id int64) {
	b.t.Helper()
	wantCode(b.t, b.post("/v2/assets/cancel-withdraw", fmt.Sprintf(`{"withdraw_id":%d}`, id)), 0, "")
}

func TestSocketPushesEveryDebitAndRefund(t *testing.T) {
	for _, path := range []string{"/v2/spot", "/v2/spot/"} {
		b := ready(t, sandbox.Options{})
		l := b.dial(path)
		l.sign()
		l.ask("balance.subscribe", `{"ccy_list":["USDT","BTC"]}`, fine)
		pushed := func(available string) {
			t.Helper()
			wantText(t, "push", l.read(), `{"method":"balance.update","data":{"balance_list":[{"margin_market":"","ccy":"USDT","available":"`+available+
				`","frozen":"0","updated_at":1760000000000}]},"id":null}`)
		}
		first := b.accepted("10", "")
		pushed("999987.6")
		second := b.accepted("20", "")
		pushed("999965.2")
		b.cancel(first)
		pushed("999977.6")
		b.must(b.SetStatus(second, "failed"))
		pushed("1000000")
		b.must(b.SetBalance("", "USDT", "5"))
		pushed("5")
		b.must(b.Deposit(sandbox.DepositChange{Asset: "USDT", Chain: "TRC20", Amount: "2"}))
		pushed("7")
		b.must(b.SetBalance("", "ETH", "1")) // not subscribed to
		wantCode(t, b.post("/v2/assets/transfer", `{"ccy":"USDT","amount":"3","from_account_type":"SPOT","to_account_type":"MARGIN","market":"BTCUSDT"}`), 0, "")
		pushed("4")
		wantText(t, "push of a margin wallet", l.read(), `{"method":"balance.update","data":{"balance_list":[{"margin_market":"BTCUSDT","ccy":"USDT","available":"3",`+
			`"frozen":"0","updated_at":1760000000000}]},"id":null}`)

		l.ask("balance.unsubscribe", `{"ccy_list":["USDT"]}`, fine)
		b.must(b.SetBalance("", "USDT", "5"))
		b.must(b.SetBalance("", "BTC", "1"))
		if got := l.read(); !strings.Contains(got, `"ccy":"BTC"`) {
			t.Errorf("after leaving USDT: %s", got)
		}
		l.ask("balance.unsubscribe", `{"ccy_list":[]}`, fine)
		b.must(b.SetBalance("", "BTC", "2"))
		l.ask("server.ping", `{}`, `{"id":7,"code":0,"data":{"result":"pong"},"message":"OK"}`)
	}
}

func TestSocketOfFutures(t *testing.T) {
	for _, path := range []string{"/v2/futures", "/v2/futures/"} {
		b := ready(t, sandbox.Options{})
		l := b.dial(path)
		l.ask("balance.subscribe", `{"ccy_list":[]}`, `{"id":7,"code":31001,"message":"authentication required"}`)
		l.ask("server.sign", signature(sandbox.AccessID, "wrong", b.Now()), `{"id":7,"code":31002,"message":""}`)
		l.sign()
		l.ask("balance.subscribe", `{"ccy_list":[]}`, fine)
		l.ask("position.subscribe", `{"market_list":["BTCUSDT"]}`, fine)

		b.must(b.SetFutures(sandbox.FuturesChange{Asset: "USDT", Available: "50", Frozen: "1", Margin: "10", UnrealizedPnl: "-0.2", Transferrable: "45"}))
		wantText(t, "balance", l.read(), `{"method":"balance.update","data":{"balance_list":[{"ccy":"USDT","available":"50","frozen":"1","margin":"10",`+
			`"transferrable":"45","unrealized_pnl":"-0.2","equity":"61"}]},"id":null}`)
		b.must(b.SetFutures(sandbox.FuturesChange{Asset: "USDT", Available: "50", Equity: "-3.5"}))
		wantText(t, "balance with an equity of its own", l.read(), `{"method":"balance.update","data":{"balance_list":[{"ccy":"USDT","available":"50","frozen":"0",`+
			`"margin":"0","transferrable":"50","unrealized_pnl":"0","equity":"-3.5"}]},"id":null}`)
		wantCode(t, b.post("/v2/assets/transfer", `{"ccy":"USDT","amount":"3","from_account_type":"FUTURES","to_account_type":"SPOT"}`), 0, "")
		if got := l.read(); !strings.Contains(got, `"available":"47"`) || !strings.Contains(got, `"equity":"-6.5"`) {
			t.Errorf("after a transfer: %s", got)
		}
		b.must(b.SetBalance("", "USDT", "1")) // spot: not here

		b.must(b.SetPosition(sandbox.PositionChange{Market: "BTCUSDT", Side: "short", OpenInterest: "0.5", EntryPrice: "60000", Leverage: "3", RealizedPnl: "-2"}))
		wantText(t, "position", l.read(), `{"method":"position.update","data":{"event":"update","position":{"position_id":305891033,"market":"BTCUSDT","side":"short",`+
			`"margin_mode":"cross","open_interest":"0.5","close_avbl":"0.5","ath_position_amount":"0.5","unrealized_pnl":"-2500","realized_pnl":"-2","avg_entry_price":"60000",`+
			`"cml_position_value":"30000","max_position_value":"30000","take_profit_price":"0","stop_loss_price":"0","take_profit_type":"","stop_loss_type":"","leverage":"3",`+
			`"margin_avbl":"10000","ath_margin_size":"10000","position_margin_rate":"0.33333333","maintenance_margin_rate":"0.005","maintenance_margin_value":"150","liq_price":"0",`+
			`"bkr_price":"0","adl_level":1,"settle_price":"60000","settle_val":"30000","first_filled_price":"60000","latest_filled_price":"60000",`+
			`"created_at":1760000000000,"updated_at":1760000000000,"stop_loss_list":[],"take_profit_list":[]}},"id":null}`)
		b.must(b.SetPosition(sandbox.PositionChange{Market: "ETHUSDT", OpenInterest: "1", EntryPrice: "3000"})) // not subscribed to
		b.must(b.SetPrice("BTCUSDT", "61000"))
		if got := l.read(); !strings.Contains(got, `"event":"update"`) || !strings.Contains(got, `"unrealized_pnl":"-500"`) {
			t.Errorf("after the price: %s", got)
		}
		b.must(b.SetPosition(sandbox.PositionChange{Market: "BTCUSDT", OpenInterest: "0"}))
		if got := l.read(); !strings.Contains(got, `"event":"close"`) || !strings.Contains(got, `"open_interest":"0"`) {
			t.Errorf("after the close: %s", got)
		}
		l.ask("position.unsubscribe", `{"market_list":[]}`, fine)
		b.must(b.SetPrice("ETHUSDT", "3100"))
		l.ask("server.time", `{}`, `{"id":7,"code":0,"data":{"timestamp":1760000000000},"message":"OK"}`)
	}
}

func TestSocketAnnouncesMaintenance(t *testing.T) {
	b := open(t, sandbox.Options{})
	l := b.dial("/v2/spot")
	l.sign()
	l.ask("notice.subscribe", `{"channels":[101]}`, fine)
	b.must(b.Announce(sandbox.Maintenance{StartedAt: begin, EndedAt: begin.Add(time.Hour), Scope: []string{"SPOT"}}))
	wantText(t, "notice", l.read(), `{"method":"notice.update","data":{"channel":101,"info":{"end_time":1760003600000,"protect_duration_end":0,"protect_duration_start":0,`+
		`"scope":["SPOT"],"start_time":1760000000000}},"id":null}`)
	wantText(t, "maintain/info", string(b.do(b.plain("GET", "/v2/maintain/info", "")).Data), `[{"started_at":1760000000000,"ended_at":1760003600000,"scope":["SPOT"],`+
		`"announce_enabled":false,"announce_url":"","protect_duration_start":0,"protect_duration_end":0}]`)
	l.ask("notice.unsubscribe", `{"channels":[101]}`, fine)
	b.must(b.Announce(sandbox.Maintenance{}))
	wantText(t, "maintain/info after", string(b.do(b.plain("GET", "/v2/maintain/info", "")).Data), `[]`)
	l.ask("server.ping", `{}`, `{"id":7,"code":0,"data":{"result":"pong"},"message":"OK"}`)
}

func TestSocketRefusals(t *testing.T) {
	b := open(t, sandbox.Options{LegacySignatures: true})
	now := b.Now()
	b.must(b.AddKey("", sandbox.Key{AccessID: "bound", SecretKey: "s", IPs: []string{"192.0.2.1"}}))
	b.must(b.AddKey("", sandbox.Key{AccessID: "old", SecretKey: "s", ExpiresAt: now}))
	b.must(b.AddKey("", sandbox.Key{AccessID: "new", SecretKey: "s", ActiveFrom: now.Add(time.Minute)}))
	b.must(b.AddKey("", sandbox.Key{AccessID: "blocked", SecretKey: "s", Forbidden: true}))
	l := b.dial("/v2/spot")
	answered := func(code int, words string) string {
		return fmt.Sprintf(`{"id":7,"code":%d,"message":%q}`, code, words)
	}
	for _, method := range []string{"balance.subscribe", "balance.unsubscribe", "notice.subscribe", "notice.unsubscribe"} {
		l.ask(method, `{"ccy_list":[],"channels":[101]}`, answered(21001, "authentication required"))
	}
	bad := answered(21002, "")
	for id, at := range map[string]time.Time{
		"nobody": now, "bound": now, "old": now, "new": now, "blocked": now,
	} {
		l.ask("server.sign", signature(id, "s", at), bad)
	}
	l.ask("server.sign", signature(sandbox.AccessID, "wrong", now), bad)
	l.ask("server.sign", signature(sandbox.AccessID, sandbox.SecretKey, now.Add(-5001*time.Millisecond)), bad)
	l.ask("server.sign", signature(sandbox.AccessID, sandbox.SecretKey, now.Add(60001*time.Millisecond)), bad)
	l.ask("balance.subscribe", `{"ccy_list":[]}`, answered(21001, "authentication required"))

	invalid := answered(20001, "invalid parameters")
	l.ask("server.sign", `{}`, invalid)
	l.ask("server.sign", strings.Replace(signature(sandbox.AccessID, sandbox.SecretKey, now), "1760000000000}", `"1760000000000"}`, 1), invalid)
	l.sign()
	for method, params := range map[string]string{
		"balance.subscribe": `{"ccy_list":["DOGS"]}`, "balance.unsubscribe": `{}`, "notice.subscribe": `{"channels":[102]}`,
	} {
		l.ask(method, params, invalid)
	}
	l.ask("balance.subscribe", `{"ccy_list":null}`, invalid)
	l.ask("balance.subscribe", `{"ccy_list":"USDT"}`, invalid)
	l.ask("position.subscribe", `{"market_list":[]}`, answered(20002, "method not found"))
	l.ask("depth.subscribe", `{}`, answered(20002, "method not found"))
	for _, message := range []string{`{`, `[]`, `{"method":"server.ping","params":{}}`, `{"method":"server.ping","params":{},"id":"7"}`, `{"method":"server.ping","params":[],"id":7}`} {
		l.send(message)
		if got := l.read(); !strings.Contains(got, `"code":20001`) {
			t.Errorf("%s: %s", message, got)
		}
	}
	l = b.dial("/v2/futures")
	l.ask("nothing", `{}`, answered(30002, "method not found"))
	l.sign()
	l.ask("position.subscribe", `{"market_list":["BTC"]}`, answered(30001, "invalid parameters"))
	l.ask("position.unsubscribe", `{}`, answered(30001, "invalid parameters"))

	if got := b.do(b.plain("GET", "/v2/spot", "")).status; got != http.StatusUpgradeRequired {
		t.Errorf("without an upgrade: HTTP %d, want 426", got)
	}
}

// frames reads until the connection ends.
func (l *line) frames() (texts <-chan string, ended <-chan error) {
	out, end := make(chan string, 100), make(chan error, 1)
	go func() {
		for {
			text, err := unzip(l.conn.Read(l.t.Context()))
			if err != nil {
				end <- err
				return
			}
			out <- text
		}
	}()
	return out, end
}

// A client may keep a connection with server.ping or, as ccxt does, with
// nothing but ping frames.
func TestSocketIsDroppedAfterAMinuteOfSilence(t *testing.T) {
	b := open(t, sandbox.Options{})
	l := b.dial("/v2/spot")
	texts, ended := l.frames()
	b.must(b.Advance(59 * time.Second))
	b.must(l.conn.Ping(t.Context()))
	b.must(b.Advance(59 * time.Second))
	l.send(`{"method":"server.ping","params":{},"id":1}`)
	select {
	case <-texts:
	case err := <-ended:
		t.Fatalf("dropped although a ping frame came: %v", err)
	}
	b.must(b.SetOffset(time.Hour)) // a wrong clock is not passing time
	b.must(b.Advance(59*time.Second + 999*time.Millisecond))
	l.send(`{"method":"server.ping","params":{},"id":1}`)
	select {
	case <-texts:
	case err := <-ended:
		t.Fatalf("dropped before the minute was over: %v", err)
	}
	b.must(b.Advance(time.Minute))
	if err := <-ended; websocket.CloseStatus(err) != -1 {
		t.Errorf("closed with a frame: %v", err)
	}
	for len(b.State().Sockets) > 0 {
	}
}

func TestSocketsShowInTheStateAndCanBeDropped(t *testing.T) {
	b := open(t, sandbox.Options{})
	one := b.dial("/v2/spot")
	one.sign()
	one.ask("balance.subscribe", `{"ccy_list":[]}`, fine)
	two := b.dial("/v2/futures") // only now: the first is in the books once it has answered
	two.sign()
	two.ask("position.subscribe", `{"market_list":["BTCUSDT"]}`, fine)
	shown, _ := json.Marshal(b.State().Sockets)
	wantText(t, "sockets", string(shown), `[{"market":"spot","account":"main","balances":[],"positions":null,"notices":false},`+
		`{"market":"futures","account":"main","balances":null,"positions":["BTCUSDT"],"notices":false}]`)
	b.do(b.plain("DELETE", "/_sandbox/sockets", ""))
	for _, l := range []*line{one, two} {
		if _, _, err := l.conn.Read(t.Context()); err == nil || websocket.CloseStatus(err) != -1 {
			t.Errorf("dropped with %v", err)
		}
	}
	three := b.dial("/v2/spot")
	b.Close()
	if _, _, err := three.conn.Read(t.Context()); err == nil {
		t.Error("a connection outlived the sandbox")
	}
}

// One account never sees another's money.
func TestSocketPushesOnlyOnesOwn(t *testing.T) {
	b := open(t, sandbox.Options{})
	b.must(b.AddKey("sub", sandbox.Key{AccessID: "sub-id", SecretKey: "sub-secret"}))
	l := b.dial("/v2/spot")
	l.ask("server.sign", signature("sub-id", "sub-secret", b.Now()), fine)
	l.ask("balance.subscribe", `{"ccy_list":[]}`, fine)
	b.must(b.SetBalance("", "USDT", "1"))
	b.must(b.SetBalance("sub", "USDT", "2"))
	if got := l.read(); !strings.Contains(got, `"available":"2"`) {
		t.Errorf("pushed %s", got)
	}
}

// Whatever happens at once, the last push of a coin is its balance.
func TestLastPushIsTheBalance(t *testing.T) {
	b := ready(t, sandbox.Options{NoRateLimit: true})
	l := b.dial("/v2/spot")
	l.sign()
	l.ask("balance.subscribe", `{"ccy_list":["USDT"]}`, fine)
	const clients, each = 4, 50
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				if a, err := send(b.signed("POST", "/v2/assets/withdraw", order("10", ""))); err != nil || a.code() != 0 {
					t.Errorf("withdraw: %v %s", err, a.body)
				}
			}
		})
	}
	wg.Wait()
	var last string
	for range clients * each {
		last = l.read()
	}
	if !strings.Contains(last, `"available":"997520"`) { // 200 × 12.4
		t.Errorf("last push %s", last)
	}
}

// A reader that never reads is dropped rather than fed for ever.
func TestSocketDropsAReaderThatDoesNotRead(t *testing.T) {
	b := open(t, sandbox.Options{})
	l := b.dial("/v2/spot")
	l.sign()
	l.ask("balance.subscribe", `{"ccy_list":["USDT"]}`, fine)
	for len(b.State().Sockets) > 0 {
		for i := range 1000 {
			b.must(b.SetBalance("", "USDT", strconv.Itoa(i)))
		}
	}
}

func TestFaultsOfASocket(t *testing.T) {
	b := open(t, sandbox.Options{})
	l := b.dial("/v2/spot")
	b.inject(sandbox.Fault{Fault: sandbox.ErrorAnswer, On: "WS /spot server.sign", Code: 23001})
	l.ask("server.sign", signature(sandbox.AccessID, sandbox.SecretKey, b.Now()), `{"id":7,"code":23001,"message":"service timeout"}`)
	l.ask("balance.subscribe", `{"ccy_list":[]}`, `{"id":7,"code":21001,"message":"authentication required"}`)
	l.sign()
	b.inject(sandbox.Fault{Fault: sandbox.ErrorAnswer, On: "WS /spot balance.subscribe", Code: 24001, Accept: true, Match: map[string]string{"account": "main"}})
	l.ask("balance.subscribe", `{"ccy_list":[]}`, `{"id":7,"code":24001,"message":"internal error"}`)
	b.must(b.SetBalance("", "USDT", "1"))
	if got := l.read(); !strings.Contains(got, "balance.update") {
		t.Errorf("the subscription was not made: %s", got)
	}
	for _, kind := range []sandbox.Kind{sandbox.DropBeforeAccept, sandbox.AcceptThenDrop} {
		b.inject(sandbox.Fault{Fault: kind, On: "WS /futures server.ping"})
		l = b.dial("/v2/futures")
		l.send(`{"method":"server.ping","params":{},"id":1}`)
		if _, _, err := l.conn.Read(context.Background()); err == nil {
			t.Errorf("%s: an answer came", kind)
		}
	}
	if got := b.State().Requests["WS /futures server.ping"]; got != 2 {
		t.Errorf("%d pings counted, want 2", got)
	}
}
