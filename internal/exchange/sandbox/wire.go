package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxBody bounds what a client may send, here and at the control.
const maxBody = 1 << 20

// answer is CoinEx's envelope (facts 2.1). Errors carry an empty object as
// data even where success carries an array.
type answer struct {
	Code       int         `json:"code"`
	Data       any         `json:"data"`
	Message    string      `json:"message"`
	Pagination *pagination `json:"pagination,omitempty"`
	// Paginatation is Pagination on the one list that spells it so (facts 2.1).
	Paginatation *pagination `json:"paginatation,omitempty"`
}

type pagination struct {
	Total   *int `json:"total,omitempty"` // some lists have none
	HasNext bool `json:"has_next"`
}

func succeed(data any) answer { return answer{Data: data, Message: "OK"} }

// refuse is a business error. The detail, when there is one, follows the
// message of the code.
func refuse(code int, detail string) *answer {
	message, known := messages[code]
	if !known {
		message = "error"
	}
	if detail != "" {
		message += ": " + detail
	}
	return &answer{Code: code, Data: struct{}{}, Message: message}
}

// messages are CoinEx's words where they are published (facts 2.4). Every code
// that a client may meet is here, also those that only a fault gives.
var messages = map[int]string{
	0:     "OK",
	213:   "Please don't try too frequently.",
	227:   "Tonce check error, correct tonce should be within one minute of the current time",
	3007:  "Service is not available during funding fee settlement",
	3008:  "service busy, please try again later",
	3109:  "balance not enough",
	3127:  "amount below the minimum",
	3157:  "service has been stopped in this market",
	3310:  "Invalid Withdrawal Address",
	3600:  "order not found",
	3606:  "price difference too large",
	3639:  "Invalid Parameter",
	4001:  "service unavailable, please try again later",
	4002:  "service request timed out",
	4003:  "internal error",
	4004:  "parameter error",
	4005:  "access_id not exist",
	4006:  "signature incorrect",
	4007:  "ip not allowed",
	4008:  "X-COINEX-SIGN missing or malformed",
	4009:  "wrong request method",
	4010:  "request expired",
	4011:  "user forbidden",
	4017:  "signature expired",
	4018:  "endpoint deprecated",
	4115:  "user prohibited from trading",
	4117:  "trading prohibited in this market",
	4123:  "rate limit triggered",
	4130:  "futures trading prohibited",
	4158:  "trading prohibited",
	4159:  "API trading unavailable in this market",
	4213:  "Please don't try too frequently.",
	4512:  "insufficient sub-account permissions",
	11005: "Signature Incorrect",
}

// route is one endpoint. A group makes it a signed one and names its quota.
type route struct {
	group string
	serve func(*Sandbox, *call) answer
}

const (
	groupModify  = "modify spot account"
	groupQuery   = "query spot account"
	groupHistory = "query spot account history"
	groupFutures = "query futures account"
)

// withdrawRoute is the one that moves money, and the one faults are for
// unless they say otherwise.
const (
	withdrawRoute = "POST /assets/withdraw"
	cancelRoute   = "POST /assets/cancel-withdraw"
	listRoute     = "GET /assets/withdraw"
)

// routes are the endpoints by method and path below /v2.
var routes = map[string]route{
	withdrawRoute:                             {groupModify, (*Sandbox).withdraw},
	cancelRoute:                               {groupModify, (*Sandbox).cancelWithdraw},
	listRoute:                                 {groupHistory, (*Sandbox).listWithdrawals},
	"POST /assets/transfer":                   {groupModify, (*Sandbox).transfer},
	"GET /assets/transfer-history":            {groupHistory, (*Sandbox).transferHistory},
	"GET /assets/deposit-address":             {groupQuery, (*Sandbox).depositAddress},
	"POST /assets/renewal-deposit-address":    {groupModify, (*Sandbox).renewDepositAddress},
	"GET /assets/deposit-history":             {groupHistory, (*Sandbox).depositHistory},
	"GET /assets/spot/balance":                {groupQuery, (*Sandbox).spotBalance},
	"GET /assets/futures/balance":             {groupFutures, (*Sandbox).futuresBalance},
	"GET /assets/margin/balance":              {groupQuery, (*Sandbox).marginBalance},
	"GET /assets/financial/balance":           {groupQuery, (*Sandbox).financialBalance},
	"GET /assets/spot/transcation-history":    {groupHistory, (*Sandbox).history}, // CoinEx spells it so
	"GET /futures/pending-position":           {groupFutures, (*Sandbox).pendingPosition},
	"GET /assets/deposit-withdraw-config":     {"", (*Sandbox).config},
	"GET /assets/all-deposit-withdraw-config": {"", (*Sandbox).allConfig},
	"GET /assets/info":                        {"", (*Sandbox).assetInfo},
	"GET /spot/market":                        {"", (*Sandbox).spotMarket},
	"GET /spot/ticker":                        {"", (*Sandbox).spotTicker},
	"GET /futures/market":                     {"", (*Sandbox).futuresMarket},
	"GET /futures/ticker":                     {"", (*Sandbox).futuresTicker},
	"GET /ping":                               {"", (*Sandbox).ping},
	"GET /time":                               {"", (*Sandbox).time},
	"GET /maintain/info":                      {"", (*Sandbox).maintenance},
	"GET /test/ip":                            {"", (*Sandbox).callerIP},
}

// call is one request on its way through the sandbox.
type call struct {
	route   string
	account *account // nil on a public route
	query   url.Values
	body    []byte
	ip      string
	now     time.Time
}

// reply is what goes back: a finished answer and the fault that spoils it.
type reply struct {
	payload []byte
	quota   *quota // shown in the headers of signed answers
	fault   *Fault
}

func (s *Sandbox) serveExchange(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path[len("/v2"):]
	name := r.Method + " " + path
	if _, ok := routes[name]; !ok {
		_, get := routes["GET "+path]
		_, post := routes["POST "+path]
		if !get && !post {
			http.NotFound(w, r)
			return
		}
		reply{payload: encode(refuse(4009, ""))}.write(w)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			http.Error(w, "request entity too large", http.StatusRequestEntityTooLarge)
			return
		}
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	if arrival := s.delayed(r, name, body); arrival != nil {
		s.serveLate(w, r, name, body, arrival)
		return
	}
	s.carryOut(r, name, body)(w, r)
}

// carryOut takes a request that has arrived, and returns how to answer it.
func (s *Sandbox) carryOut(r *http.Request, name string, body []byte) http.HandlerFunc {
	var out reply
	err := s.do(func(now time.Time) error {
		out = s.answer(r, name, body, now)
		return nil
	})
	if err != nil {
		// What was done stands, as it does when a real exchange breaks after
		// the act; the client must not read this as a refusal.
		return func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "the sandbox cannot write its state file", http.StatusInternalServerError)
		}
	}
	return out.deliver
}

// serveLate lets a request arrive later than it was sent. The client may hang
// up meanwhile: a packet on its way arrives all the same.
func (s *Sandbox) serveLate(w http.ResponseWriter, r *http.Request, name string, body []byte, arrival *deadline) {
	answered := make(chan http.HandlerFunc, 1)
	go func() {
		err := s.wait(s.alive, arrival)
		s.mu.Lock()
		delete(s.deadlines, arrival)
		s.held--
		s.mu.Unlock()
		if err == nil {
			answered <- s.carryOut(r, name, body)
		}
	}()
	select {
	case write := <-answered:
		write(w, r)
	case <-r.Context().Done():
	case <-s.alive.Done():
		drop(w)
	}
}

// answer takes a request from the signature to the finished answer.
func (s *Sandbox) answer(r *http.Request, name string, body []byte, now time.Time) reply {
	s.requests[name]++
	rt := routes[name]
	c := &call{route: name, body: body, ip: remoteIP(r), now: now}

	var out reply
	if rt.group != "" {
		a, refused := s.authenticate(r, body, now)
		if refused != nil {
			return reply{payload: encode(refused)}
		}
		c.account = a
		var ok bool
		if out.quota, ok = s.spend(a, rt.group, now); !ok {
			out.payload = encode(refuse(4213, ""))
			return out
		}
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		out.payload = encode(refuse(3639, "malformed query"))
		return out
	}
	c.query = query

	f := s.answerFault(c)
	if f != nil && !f.accepts() {
		out.fault = s.spendFault(f)
		out.payload = encode(refuse(f.Code, f.Message))
		return out
	}
	result := rt.serve(s, c)
	if f != nil && result.Code == 0 {
		out.fault = s.spendFault(f)
		switch f.Fault {
		case ErrorAnswer:
			result = *refuse(f.Code, f.Message)
		case Code0WithoutData:
			result = succeed(struct{}{})
		}
	}
	out.payload = encode(&result)
	return out
}

// encode makes the bytes of an answer while the state cannot change under it.
func encode(a any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(a); err != nil {
		panic(err) // an answer of ours that JSON cannot say is a bug
	}
	return b.Bytes()
}

// write sends the answer. Business errors are HTTP 200 as well (facts 2.2).
func (p reply) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	if p.quota != nil {
		p.quota.show(w.Header())
	}
	w.Write(p.payload)
}

// fields reads the parameters of a call by the types that CoinEx documents:
// where a string belongs a number is refused, and the other way round. It
// keeps the first complaint, so that a handler reads all and asks once.
type fields struct {
	json  map[string]json.RawMessage // POST
	query url.Values                 // GET
	wrong string
}

func (c *call) fields() *fields {
	f := &fields{query: c.query}
	if strings.HasPrefix(c.route, "POST ") {
		f.query = nil
		if json.Unmarshal(c.body, &f.json) != nil || f.json == nil {
			f.complain("the body is not a JSON object")
		}
	}
	return f
}

func (f *fields) complain(text string) {
	if f.wrong == "" {
		f.wrong = text
	}
}

// text reads a string; "" when it is absent.
func (f *fields) text(name string) string {
	if f.query != nil {
		return f.query.Get(name)
	}
	raw, ok := f.json[name]
	if !ok {
		return ""
	}
	var v *string
	if json.Unmarshal(raw, &v) != nil || v == nil {
		f.complain(name + " must be a string")
		return ""
	}
	return *v
}

// required reads a string that must be there.
func (f *fields) required(name string) string {
	v := f.text(name)
	if v == "" {
		f.complain(name + " is required")
	}
	return v
}

// integer reads a whole number of at least 1, or what stands for an absent one.
func (f *fields) integer(name string, absent int64) int64 {
	var (
		v   int64
		err error
	)
	if f.query != nil {
		text := f.query.Get(name)
		if text == "" {
			return absent
		}
		v, err = strconv.ParseInt(text, 10, 64)
	} else {
		raw, ok := f.json[name]
		if !ok {
			return absent
		}
		err = json.Unmarshal(raw, &v)
	}
	if err != nil || v < 1 {
		f.complain(name + " must be a positive whole number")
		return absent
	}
	return v
}

// object checks that a parameter is an object if it is there.
func (f *fields) object(name string) {
	var v map[string]json.RawMessage
	if raw, ok := f.json[name]; ok && (json.Unmarshal(raw, &v) != nil || v == nil) {
		f.complain(name + " must be an object")
	}
}

// page reads the window of a list. The largest limit is that of v1; v2 does
// not publish one.
func (f *fields) page() window {
	w := window{number: f.integer("page", 1), limit: f.integer("limit", 10)}
	if w.limit > 100 {
		f.complain("limit must be at most 100")
	}
	return w
}

// window is one page of a list that is counted while it is read, newest first.
type window struct {
	number, limit int64
	seen          int64
}

// holds counts one more row and tells whether it is on this page.
func (w *window) holds() bool {
	w.seen++
	return (w.seen-1)/w.limit == w.number-1
}

func (w *window) answer(rows any) answer {
	a := succeed(rows)
	total := int(w.seen)
	a.Pagination = &pagination{Total: &total, HasNext: (w.seen-1)/w.limit > w.number-1}
	return a
}
