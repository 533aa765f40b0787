package coinex

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
)

// The account of the worked vectors in facts 1.5.
const (
	testID     = "5E6F70819203A4B5C6D7E8F901234567"
	testSecret = "B0A1C2D3E4F5061728394A5B6C7D8E9F00112233445566778899"
	testMillis = 1760000000123
)

func order() exchange.Order {
	return exchange.Order{
		Method: exchange.OnChain, Asset: "USDT", Chain: "TRC20",
		Address: "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8",
		Amount:  decimal.RequireFromString("25.5"),
		Remark:  "wd_01JAXAMPLE0000000000000001",
	}
}

// vectorBody is BODY of vector B.
const vectorBody = `{"ccy":"USDT","chain":"TRC20","to_address":"TJRabPrwbZy45sbavfcjinPJC18kjpRTv8","withdraw_method":"on_chain","amount":"25.5","remark":"wd_01JAXAMPLE0000000000000001"}`

// echoOf is the data of facts 3.1 for order(), with changes: a nil value takes a field out.
func echoOf(changes map[string]any) map[string]any {
	echo := map[string]any{
		"withdraw_id": 31200001, "created_at": 1760000000456, "ccy": "USDT", "chain": "TRC20",
		"withdraw_method": "on_chain", "memo": "", "amount": "27.9", "fee_ccy": "USDT", "actual_amount": "25.5", "tx_fee": "2.4",
		"tx_id": "", "to_address": "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", "confirmations": 0,
		"explorer_address_url": "https://explorer.example/address/TJRabPrwbZy45sbavfcjinPJC18kjpRTv8",
		"explorer_tx_url":      "https://explorer.example/tx/", "status": "audit_required", "remark": "wd_01JAXAMPLE0000000000000001",
	}
	for name, value := range changes {
		if value == nil {
			delete(echo, name)
		} else {
			echo[name] = value
		}
	}
	return echo
}

func toJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// ok frames data as the exchange's account service does, spaces included.
func ok(data string) string { return `{"code": 0, "data": ` + data + `, "message": "OK"}` }

func coded(code int) string {
	return fmt.Sprintf(`{"code": %d, "data": {}, "message": "words of %d"}`, code, code)
}

// seen is one request as the exchange got it.
type seen struct {
	method, target, body string
	header               http.Header
	fresh                bool // the first request of its connection
}

// stub is a small exchange: it answers GET /v2/time from its own clock and
// everything else by answer, and checks the signature of whatever is signed.
type stub struct {
	*httptest.Server
	t      *testing.T
	ahead  time.Duration
	now    func() time.Time
	answer func(w http.ResponseWriter, r seen)

	mu    sync.Mutex
	got   []seen
	times int
	conns map[string]bool
}

func newStub(t *testing.T, answer func(http.ResponseWriter, seen)) *stub {
	s := &stub{t: t, answer: answer, now: time.Now, conns: map[string]bool{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.RequestURI == "/v2/time" {
		s.mu.Lock()
		s.times++
		s.conns[r.RemoteAddr] = true
		s.mu.Unlock()
		_, _ = fmt.Fprintf(w, `{"code":0,"data":{"timestamp":%d},"message":"OK"}`, s.now().Add(s.ahead).UnixMilli())
		return
	}
	body, _ := io.ReadAll(r.Body)
	if at := r.Header.Get(headerTimestamp); at != "" {
		want := signature(testSecret, r.Method, r.RequestURI, body, at)
		if r.Header.Get(headerSign) != want || r.Header.Get(headerKey) != testID {
			s.t.Errorf("%s %s is not signed as it was sent", r.Method, r.RequestURI)
		}
	}
	s.mu.Lock()
	got := seen{r.Method, r.RequestURI, string(body), r.Header.Clone(), !s.conns[r.RemoteAddr]}
	s.conns[r.RemoteAddr] = true
	s.got = append(s.got, got)
	s.mu.Unlock()
	s.answer(w, got)
}

func (s *stub) requests() []seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]seen(nil), s.got...)
}

func (s *stub) measured() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.times
}

func (s *stub) client(changes ...func(*Config)) *Client {
	cfg := Config{BaseURL: s.URL, AccessID: testID, SecretKey: testSecret}
	for _, change := range changes {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func says(body string) func(http.ResponseWriter, seen) {
	return func(w http.ResponseWriter, _ seen) { _, _ = io.WriteString(w, body) }
}

// tripper is a transport made of a function.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func respond(status int, body string, header ...string) *http.Response {
	rec := httptest.NewRecorder()
	for i := 0; i < len(header); i += 2 {
		rec.Header().Set(header[i], header[i+1])
	}
	rec.WriteHeader(status)
	_, _ = rec.WriteString(body)
	return rec.Result()
}

// timeAnswer answers GET /v2/time; everything else is for the caller.
func timeAnswer(r *http.Request, at time.Time) *http.Response {
	if r.URL.Path != "/v2/time" {
		return nil
	}
	return respond(200, ok(`{"timestamp":`+strconv.FormatInt(at.UnixMilli(), 10)+`}`))
}

func newTLSServer(s *stub) *httptest.Server {
	fresh := httptest.NewUnstartedServer(s)
	fresh.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains of the handshake that we refuse
	fresh.StartTLS()
	return fresh
}
