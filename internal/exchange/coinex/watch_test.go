package coinex

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/fault"
)

// pipes is a network of one server inside a synctest bubble, where waiting for
// a connection must not look like waiting for the outside world.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// house is an exchange with live balances.
type house struct {
	t       *testing.T
	network *pipes
	server  *http.Server
	reads   *http.Transport

	// Set before the first connection; all may be nil.
	onRequest func(l *line, method string, id int64) (handled bool)
	onDial    func(w http.ResponseWriter) (refused bool)
	plain     bool // send text frames

	mu       sync.Mutex
	balances map[string]int
	readings int // of balances, by HTTP
	lines    []*line
}

// line is one websocket connection, seen from the exchange.
type line struct {
	house      *house
	path       string
	conn       *websocket.Conn
	out        chan []byte
	methods    []string // asked for so far
	subscribed map[string]bool
}

func newHouse(t *testing.T) *house {
	h := &house{t: t, balances: map[string]int{}}
	h.network = &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	h.server = &http.Server{Handler: h}
	h.reads = &http.Transport{DialContext: h.network.dial}
	go func() { _ = h.server.Serve(h.network) }()
	t.Cleanup(func() {
		h.hangUp(all)
		_ = h.server.Close()
		h.reads.CloseIdleConnections()
	})
	return h
}

func (h *house) client() *Client {
	c, err := New(Config{BaseURL: "http://127.0.0.1:1", AccessID: testID, SecretKey: testSecret, Transport: h.reads})
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *house) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/v2/time":
		_, _ = fmt.Fprintf(w, `{"code":0,"data":{"timestamp":%d}}`, time.Now().UnixMilli())
	case "/v2/assets/spot/balance", "/v2/assets/futures/balance":
		h.mu.Lock()
		h.readings++
		rows := []string{}
		for _, asset := range slices.Sorted(maps.Keys(h.balances)) {
			rows = append(rows, fmt.Sprintf(`{"ccy":%q,"available":"%d","frozen":"0"}`, asset, h.balances[asset]))
		}
		h.mu.Unlock()
		_, _ = io.WriteString(w, ok("["+strings.Join(rows, ",")+"]"))
	case "/v2/futures/pending-position":
		_, _ = io.WriteString(w, `{"code":0,"data":[`+btcPosition+`],"pagination":{"has_next":false}}`)
	case "/v2/spot", "/v2/futures":
		if h.onDial != nil && h.onDial(w) {
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			h.t.Errorf("accept: %v", err)
			return
		}
		l := &line{house: h, path: r.URL.Path, conn: conn, out: make(chan []byte, 20_000), subscribed: map[string]bool{}}
		h.mu.Lock()
		h.lines = append(h.lines, l)
		h.mu.Unlock()
		l.serve(r.Context())
	default:
		h.t.Errorf("asked for %s", r.URL)
	}
}

// serve answers as facts 6 says until the connection ends.
func (l *line) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var writer sync.WaitGroup
	defer writer.Wait()
	defer cancel()
	writer.Go(func() {
		for {
			select {
			case frame := <-l.out:
				kind, packed := websocket.MessageBinary, packed(frame)
				if l.house.plain {
					kind, packed = websocket.MessageText, frame
				}
				if l.conn.Write(ctx, kind, packed) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	defer func() { _ = l.conn.CloseNow() }()
	for {
		_, text, err := l.conn.Read(ctx)
		if err != nil {
			return
		}
		var ask struct {
			Method string
			ID     int64
			Params struct {
				AccessID  string `json:"access_id"`
				Signed    string `json:"signed_str"`
				Timestamp int64
			}
		}
		if err := json.Unmarshal(text, &ask); err != nil {
			l.house.t.Errorf("cannot read %s", text)
			return
		}
		if ask.Method == "server.sign" {
			want := signature(testSecret, "", "", nil, strconv.FormatInt(ask.Params.Timestamp, 10))
			if ask.Params.AccessID != testID || ask.Params.Signed != want {
				l.house.t.Errorf("signed in with %s", text)
			}
		}
		l.house.mu.Lock()
		l.methods = append(l.methods, ask.Method)
		l.house.mu.Unlock()
		if l.house.onRequest != nil && l.house.onRequest(l, ask.Method, ask.ID) {
			continue
		}
		l.answer(ask.Method, ask.ID)
	}
}

func (l *line) answer(method string, id int64) {
	data := ""
	if method == "server.ping" {
		data = `"data":{"result":"pong"},`
	}
	l.house.mu.Lock()
	defer l.house.mu.Unlock()
	l.out <- fmt.Appendf(nil, `{"id":%d,"code":0,%s"message":"OK"}`, id, data)
	if topic, ok := strings.CutSuffix(method, ".subscribe"); ok {
		l.subscribed[topic] = true
	}
}

// say sends a frame on the newest line.
func (h *house) say(frame string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines[len(h.lines)-1].out <- []byte(frame)
}

// set changes a balance and tells every subscriber.
func (h *house) set(asset string, amount int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.balances[asset] = amount
	for _, l := range h.lines {
		if l.subscribed["balance"] {
			l.out <- []byte(spotPush(asset, amount))
		}
	}
}

// hangUp drops the connections that are chosen, with no farewell.
func (h *house) hangUp(chosen func(*line) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = slices.DeleteFunc(h.lines, func(l *line) bool {
		if chosen(l) {
			_ = l.conn.CloseNow()
			return true
		}
		return false
	})
}

// asked is what was asked for on the newest line.
func (h *house) asked() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.lines[len(h.lines)-1].methods)
}

func all(*line) bool { return true }

func spotPush(asset string, amount int) string {
	return fmt.Sprintf(`{"method":"balance.update","data":{"balance_list":[`+
		`{"margin_market":"BTCUSDT","ccy":%q,"available":"-1","frozen":"0","updated_at":1760000000500},`+
		`{"margin_market":"","ccy":%q,"available":"%d","frozen":"0","updated_at":1760000000500}]},"id":null}`, asset, asset, amount)
}

func packed(text []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(text)
	_ = w.Close()
	return out.Bytes()
}

// view is what someone who watches knows.
type view struct {
	balances map[string]decimal.Decimal
	links    []Link
	wholes   int
	updates  int
}

// watch watches the spot wallet until the test ends it.
func watch(t *testing.T, c *Client) (*view, func()) {
	v := &view{balances: map[string]decimal.Decimal{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Watch(ctx, Handlers{
			Spot: func(u Update[exchange.Balance]) {
				v.updates++
				if u.Whole {
					v.wholes++
					clear(v.balances)
				}
				for _, b := range u.Rows {
					v.balances[b.Asset] = b.Available
				}
			},
			Link: func(l Link) { v.links = append(v.links, l) },
		})
	}()
	return v, func() { cancel(); <-done }
}

func (v *view) mustBe(t *testing.T, h *house) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(v.balances) != len(h.balances) {
		t.Errorf("%d assets, want %d", len(v.balances), len(h.balances))
	}
	for asset, want := range h.balances {
		if !v.balances[asset].Equal(decimal.NewFromInt(int64(want))) {
			t.Errorf("%s: seen %v, is %d", asset, v.balances[asset], want)
		}
	}
}

func TestLiveBalances(t *testing.T) {
	for _, plain := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t)
			h.plain = plain
			h.balances["USDT"] = 100
			v, stop := watch(t, h.client())
			defer stop()
			synctest.Wait()
			v.mustBe(t, h)
			h.set("USDT", 72)
			h.set("CET", 5)
			h.say(`{"method":"notice.update","data":{"channel":101},"id":null}`)
			synctest.Wait()
			v.mustBe(t, h)
			if len(v.links) != 1 || !v.links[0].Up || v.links[0].Wallet != SpotWallet || v.wholes != 1 || v.updates != 3 {
				t.Errorf("links %+v, %d updates", v.links, v.updates)
			}
			if got := h.asked(); !slices.Equal(got, []string{"server.sign", "balance.subscribe"}) {
				t.Errorf("asked %v", got)
			}
			time.Sleep(10 * time.Minute) // an idle connection is kept alive
			synctest.Wait()
			if got := h.asked(); len(v.links) != 1 || len(got) != 2+10*60/20 || got[2] != "server.ping" {
				t.Errorf("asked %v, links %+v", got, v.links)
			}
		})
	}
}

func TestFuturesAreFollowedOnOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.balances["USDT"] = 50
		var balances []Update[exchange.FuturesBalance]
		var positions []Update[exchange.Position]
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			h.client().Watch(ctx, Handlers{
				Futures:   func(u Update[exchange.FuturesBalance]) { balances = append(balances, u) },
				Positions: func(u Update[exchange.Position]) { positions = append(positions, u) },
			})
		}()
		defer func() { cancel(); <-done }()
		synctest.Wait()
		h.say(`{"method":"balance.update","data":{"balance_list":[{"ccy":"USDT","available":"49","frozen":"1","margin":"10","transferrable":"45","unrealized_pnl":"-0.2","equity":"60.1"}]},"id":null}`)
		h.say(`{"method":"position.update","data":{"event":"close","position":` + strings.Replace(btcPosition, "settle_value", "settle_val", 1) + `},"id":null}`)
		synctest.Wait()
		if got := h.asked(); len(h.lines) != 1 || h.lines[0].path != "/v2/futures" || !slices.Equal(got, []string{"server.sign", "balance.subscribe", "position.subscribe"}) {
			t.Errorf("%d lines, asked %v", len(h.lines), got)
		}
		if len(balances) != 2 || !balances[0].Whole || balances[0].Rows[0].Equity.Valid || balances[1].Whole ||
			!balances[1].Rows[0].Equity.Valid || balances[1].Rows[0].Equity.Decimal.String() != "60.1" || balances[1].Rows[0].Transferable.String() != "45" {
			t.Errorf("balances: %+v", balances)
		}
		if len(positions) != 2 || !positions[0].Whole || positions[0].Rows[0].Event != "" || positions[1].Whole ||
			positions[1].Rows[0].Event != "close" || positions[1].Rows[0].Market != "BTCUSDT" || positions[1].Rows[0].Side != exchange.Long {
			t.Errorf("positions: %+v", positions)
		}
	})
}

// Nothing that comes before the confirmation counts, and what comes between
// confirmations is handed over after the whole.
func TestConfirmationComesBeforeData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.balances["USDT"] = 50
		early := func(available string) string {
			return `{"method":"balance.update","data":{"balance_list":[{"ccy":"USDT","available":"` + available + `"}]},"id":null}`
		}
		h.onRequest = func(l *line, method string, _ int64) bool {
			switch method {
			case "balance.subscribe":
				l.out <- []byte(early("1"))
				l.out <- []byte(`{"id":7700,"code":0,"message":"someone else's"}`)
			case "position.subscribe":
				l.out <- []byte(early("2"))
			}
			return false
		}
		var got []string
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			h.client().Watch(ctx, Handlers{
				Futures:   func(u Update[exchange.FuturesBalance]) { got = append(got, u.Rows[0].Available.String()) },
				Positions: func(Update[exchange.Position]) { got = append(got, "position") },
			})
		}()
		defer func() { cancel(); <-done }()
		synctest.Wait()
		if !slices.Equal(got, []string{"50", "position", "2"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestLostConnectionsAreMadeAgain(t *testing.T) {
	unsigned := func(l *line, method string, id int64) bool {
		if method == "server.sign" {
			l.out <- fmt.Appendf(nil, `{"id":%d,"code":21002,"message":""}`, id)
			return true
		}
		return false
	}
	deaf := func(silent string) func(*line, string, int64) bool {
		return func(_ *line, method string, _ int64) bool { return method == silent }
	}
	for name, c := range map[string]struct {
		onRequest func(*line, string, int64) bool
		onDial    func(http.ResponseWriter) bool
		say       string
		wantCode  string
		wantWords string
	}{
		"sign-in refused":        {onRequest: unsigned, wantCode: "exchange_code_21002", wantWords: "sign-in is refused"},
		"sign-in never answered": {onRequest: deaf("server.sign"), wantCode: "exchange_socket_lost"},
		"never confirmed":        {onRequest: deaf("balance.subscribe"), wantCode: "exchange_socket_lost"},
		"pings never answered":   {onRequest: deaf("server.ping"), wantCode: "exchange_socket_lost", wantWords: "no answer to a ping within 10s"},
		"a gateway's error page": {onDial: func(w http.ResponseWriter) bool { w.WriteHeader(502); return true }, wantCode: "exchange_socket_lost", wantWords: "502"},
		"sent elsewhere": {onDial: func(w http.ResponseWriter) bool {
			w.Header().Set("Location", "http://elsewhere.example/")
			w.WriteHeader(302)
			return true
		}, wantCode: "exchange_socket_lost", wantWords: "302"},
		"not JSON":           {say: `so sorry`, wantCode: "exchange_answer_unreadable"},
		"neither":            {say: `{"id":4}`, wantCode: "exchange_answer_unreadable", wantWords: "neither an answer nor an update"},
		"a row in words":     {say: `{"method":"balance.update","data":{"balance_list":[{"ccy":"USDT","available":"much"}]}}`, wantCode: "exchange_answer_unreadable"},
		"an update of null":  {say: `{"method":"balance.update","data":null}`, wantCode: "exchange_answer_unreadable"},
		"an error":           {say: `{"id":null,"code":24002,"message":"later"}`, wantCode: "exchange_code_24002", wantWords: "unavailable for now"},
		"an unknown error":   {say: `{"id":0,"code":29999,"message":"?"}`, wantCode: "exchange_code_29999"},
		"a frame too large":  {say: strings.Repeat(" ", maxFrame+1), wantCode: "exchange_answer_unreadable", wantWords: "more than a mebibyte"},
		"our key in a frame": {say: `{"id":0,"code":29999,"message":"` + testID + testSecret + `"}`, wantCode: "exchange_code_29999"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				h.balances["USDT"] = 1
				var broken atomic.Bool
				broken.Store(true)
				h.onRequest = func(l *line, method string, id int64) bool {
					return broken.Load() && c.onRequest != nil && c.onRequest(l, method, id)
				}
				h.onDial = func(w http.ResponseWriter) bool { return broken.Load() && c.onDial != nil && c.onDial(w) }
				v, stop := watch(t, h.client())
				defer stop()
				synctest.Wait()
				if c.say != "" {
					h.say(c.say)
				}
				time.Sleep(40 * time.Second)
				synctest.Wait()
				broken.Store(false)
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				h.set("USDT", 2)
				synctest.Wait()
				v.mustBe(t, h)
				var down []Link
				for _, l := range v.links {
					if !l.Up {
						down = append(down, l)
					}
				}
				if len(down) == 0 || !v.links[len(v.links)-1].Up {
					t.Fatalf("links %+v", v.links)
				}
				f, isFault := fault.As(down[0].Err)
				if !isFault || f.Code != c.wantCode || f.Fix == "" || !strings.Contains(f.Error(), c.wantWords) {
					t.Errorf("down because %v", down[0].Err)
				}
				mustNotLeak(t, fmt.Sprintf("%+v", v.links))
			})
		})
	}
}

// A connection that is refused again and again is tried at growing intervals.
func TestPausesGrowAndStartAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		var tries []time.Time
		h.onDial = func(w http.ResponseWriter) bool {
			tries = append(tries, time.Now())
			if len(tries) == 9 {
				return false
			}
			w.WriteHeader(503)
			return true
		}
		v, stop := watch(t, h.client())
		defer stop()
		time.Sleep(5 * time.Minute)
		h.hangUp(all)
		time.Sleep(time.Second)
		synctest.Wait()
		pause := firstPause
		for i := 1; i < 9; i++ {
			if took := tries[i].Sub(tries[i-1]); took < pause/2 || took > pause {
				t.Errorf("pause %d: %v, want at most %v", i, took, pause)
			}
			pause = min(2*pause, longPause)
		}
		if len(tries) != 10 {
			t.Errorf("%d tries; after a long life the first pause comes again. Links: %+v", len(tries), v.links)
		}
	})
}

// The run of issue 3: whatever is lost on the way, the last balance is known.
func TestNoFinalBalanceIsMissedOver10000Messages(t *testing.T) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			chance := rand.New(rand.NewPCG(seed, 11))
			h := newHouse(t)
			// Connections also die in the middle of signing in and subscribing,
			// just before or just after the answer.
			var mu sync.Mutex
			rounds := 0
			h.onRequest = func(l *line, method string, id int64) bool {
				mu.Lock()
				defer mu.Unlock()
				rounds++
				switch rounds % 23 {
				case 7:
					_ = l.conn.CloseNow()
					return true
				case 14:
					l.answer(method, id)
					_ = l.conn.CloseNow()
					return true
				}
				return false
			}
			v, stop := watch(t, h.client())
			assets := []string{"USDT", "BTC", "CET", "ETH", "XRP"}
			for n := range 10_000 {
				h.set(assets[chance.IntN(len(assets))], chance.IntN(1_000_000))
				switch chance.IntN(60) {
				case 0:
					h.hangUp(all)
				case 1:
					time.Sleep(time.Duration(chance.IntN(3000)) * time.Millisecond)
				case 2:
					synctest.Wait()
				}
				if n%1000 == 999 { // also on the way, whenever there is quiet
					time.Sleep(3 * time.Minute)
					synctest.Wait()
					v.mustBe(t, h)
				}
			}
			drops := 0
			for _, l := range v.links {
				if !l.Up {
					drops++
				}
			}
			if drops < 50 || v.updates-v.wholes < 1000 {
				t.Errorf("too easy: %d connections lost, %d live updates, %d wholes", drops, v.updates-v.wholes, v.wholes)
			}
			stop()
		})
	}
}

func TestWatchingNothingReturns(t *testing.T) {
	newOffline(t, nil).Watch(t.Context(), Handlers{})
}

func TestSocketAddresses(t *testing.T) {
	for base, want := range map[string]string{
		"https://api.coinex.com": "https://socket.coinex.com",
		"http://127.0.0.1:8090":  "http://127.0.0.1:8090",
	} {
		c, err := New(Config{BaseURL: base, AccessID: testID, SecretKey: testSecret})
		if err != nil || c.socket != want {
			t.Errorf("%s: %s, %v", base, c.socket, err)
		}
	}
}

func TestUnpackIsBounded(t *testing.T) {
	var gz gzip.Reader
	if _, err := unpack(&gz, packed(make([]byte, maxFrame+1))); err == nil {
		t.Error("a bomb was unpacked")
	}
	if got, err := unpack(&gz, packed(make([]byte, maxFrame))); err != nil || len(got) != maxFrame {
		t.Errorf("a full frame: %d bytes, %v", len(got), err)
	}
	if _, err := unpack(&gz, []byte{0x1f, 0x8b, 8}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a broken frame: %v", err)
	}
}

const btcPosition = `{"position_id":246830219,"market":"BTCUSDT","market_type":"FUTURES","side":"long","margin_mode":"cross","open_interest":"0.0005","close_avbl":"0.0005",
"ath_position_amount":"0.0005","unrealized_pnl":"0","realized_pnl":"-0.01572374","avg_entry_price":"62894.98","cml_position_value":"31.44749","max_position_value":"31.44749",
"take_profit_price":"0","stop_loss_price":"0","leverage":"50","margin_avbl":"0.6289498","ath_margin_size":"0.6289498","position_margin_rate":"0.02","maintenance_margin_rate":"0.005",
"maintenance_margin_value":"","liq_price":"","bkr_price":"","adl_level":5,"settle_price":"62894.98","settle_value":"31.44749","first_filled_price":"62894.98","latest_filled_price":"62894.98",
"created_at":1715847110000,"updated_at":1715847110000}`
