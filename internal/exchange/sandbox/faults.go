package sandbox

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/internal/fault"
)

// Fault is one planned misbehaviour. It waits in a queue for a request that it
// fits, and is used up by it.
//
// A request meets at most one fault that spoils the answer, the first in the
// queue that fits, and beside it one of each kind that spoils the row. So an
// answer can be lost and the row that it spoke of be late in the lists.
type Fault struct {
	// Fault is the kind; see the constants.
	Fault Kind `json:"fault"`
	// On is the endpoint, such as "GET /assets/withdraw", or the method of a
	// websocket, such as "WS /spot server.sign"; "*" is every endpoint of HTTP.
	// Empty means "POST /assets/withdraw".
	On string `json:"on,omitempty"`
	// Times is how many requests it spoils; 0 means 1, or with a Rate no end.
	Times int `json:"times,omitempty"`
	// Rate is the share of the requests that fit, above 0 and below 1, which it
	// spoils; 0 means every one. The same Seed picks the same requests.
	Rate float64 `json:"rate,omitempty"` //nolint:forbidigo // a chance, not money
	Seed uint64  `json:"seed,omitempty"`
	// Drawn is how many lots a Rate has drawn so far; a new fault has none.
	Drawn uint64 `json:"drawn,omitempty"`
	// Match narrows the requests: each named parameter must have this text.
	// "account" is the name of the account.
	Match map[string]string `json:"match,omitempty"`
	// Code is the code of an error; with 0 an error says that all went well.
	Code int `json:"code,omitempty"`
	// Message follows the message of the code.
	Message string `json:"message,omitempty"`
	// Accept makes an error a lie: the request is carried out first.
	Accept bool `json:"accept,omitempty"`
	// Delay is how long accept_answer_late holds the answer back, on the real
	// clock; and on the exchange's, how long accept_late holds the request back
	// and list_late hides the row.
	Delay Duration `json:"delay,omitempty"`
	// Reads is how many reads of the list do not show the row of list_late.
	Reads int `json:"reads,omitempty"`
}

// Kind names what goes wrong.
type Kind string

// Faults that spoil the answer, on any endpoint. Those that accept wait for a
// request that the exchange takes; a refused one gets its refusal.
const (
	DropBeforeAccept Kind = "drop_before_accept" // the connection closes, nothing was done
	RateLimited      Kind = "rate_limit"         // 4213, nothing was done
	ErrorAnswer      Kind = "error"              // Code, and Accept says whether it was done
	AcceptThenDrop   Kind = "accept_then_drop"   // done, then the connection closes
	AcceptThen502    Kind = "accept_then_502"    // done, then a gateway's HTML
	AcceptAnswerLate Kind = "accept_answer_late" // done, the answer comes after Delay
	Code0WithoutData Kind = "code0_without_data" // done, the answer does not say what
)

// AcceptLate holds the request back for Delay, as a packet that is late on its
// way: only then the signature is checked, and the request is dead if its
// window has passed. It comes beside the faults of the answer.
const AcceptLate Kind = "accept_late"

// everyEndpoint as On stands for all of HTTP.
const everyEndpoint = "*"

var (
	answerFaults = []Kind{DropBeforeAccept, RateLimited, ErrorAnswer, AcceptThenDrop, AcceptThen502, AcceptAnswerLate, Code0WithoutData}
	socketFaults = []Kind{DropBeforeAccept, ErrorAnswer, AcceptThenDrop}
	matchable    = []string{"account", "ccy", "chain", "to_address", "withdraw_method", "memo", "amount", "remark", "withdraw_id", "status", "page", "type"}
)

// Inject puts a fault at the end of the queue.
func (s *Sandbox) Inject(f Fault) error {
	if f.On == "" {
		f.On = withdrawRoute
		if f.Fault == CancelFails {
			f.On = cancelRoute
		}
	}
	if f.Times == 0 && f.Rate == 0 {
		f.Times = 1
	}
	if f.Fault == RateLimited {
		f.Code = 4213
	}
	if err := f.check(); err != nil {
		return err
	}
	return s.do(func(time.Time) error {
		s.state.Faults = append(s.state.Faults, &f)
		s.dirty = true
		return nil
	})
}

// check refuses a fault that could never happen, so that a test with a
// mistake in it fails where the mistake is.
func (f *Fault) check() error {
	no := func(detail, fix string) error {
		return fault.New(fault.Invalid, "sandbox_fault_malformed", detail, fix)
	}
	_, served := routes[f.On]
	onSocket := slices.Contains(socketRoutes, f.On)
	onRow, onAnswer := rowFaults[f.Fault] != nil, slices.Contains(answerFaults, f.Fault)
	switch {
	case !onRow && !onAnswer && f.Fault != AcceptLate:
		return no(fmt.Sprintf("there is no fault %q", f.Fault), fmt.Sprintf("use one of %v", Kinds()))
	case onSocket && !slices.Contains(socketFaults, f.Fault):
		return no(fmt.Sprintf("%s does not happen to a websocket", f.Fault), fmt.Sprintf("use one of %v on %s", socketFaults, f.On))
	case onSocket && f.Fault == ErrorAnswer && f.Code == 0:
		return no("an error of a websocket has a code", `send code, such as 23001; on futures 33001`)
	case !served && !onSocket && f.On != everyEndpoint:
		return no(fmt.Sprintf("the sandbox does not serve %q", f.On), `write on as "POST /assets/withdraw" or "WS /spot server.sign"`)
	case onRow && !slices.Contains(rowFaults[f.Fault], f.On):
		return no(fmt.Sprintf("%s does not happen on %s", f.Fault, f.On), fmt.Sprintf("use it on one of %q", rowFaults[f.Fault]))
	case f.Times < 0 || f.Reads < 0 || f.Delay < 0 || f.Code < 0:
		return no("times, reads, delay and code are never negative", "leave out what you do not need")
	case f.Rate < 0 || f.Rate >= 1 || f.Rate == 0 && f.Seed != 0:
		return no("rate is above 0 and below 1, and seed belongs to it", `send {"fault":"accept_then_drop","rate":0.1,"seed":7}`)
	case f.Fault == ListLate && (f.Reads > 0) == (f.Delay > 0):
		return no("list_late takes either reads or delay", `send {"fault":"list_late","reads":3}`)
	case (f.Fault == AcceptAnswerLate || f.Fault == AcceptLate) && f.Delay == 0:
		return no(fmt.Sprintf("%s takes a delay", f.Fault), fmt.Sprintf(`send {"fault":%q,"delay":"20s"}`, f.Fault))
	}
	for name := range f.Match {
		if !slices.Contains(matchable, name) {
			return no(fmt.Sprintf("no request has a parameter %q to match", name), fmt.Sprintf("match on %v", matchable))
		}
	}
	return nil
}

// Kinds are all faults that there are.
func Kinds() []Kind {
	kinds := append([]Kind{AcceptLate}, answerFaults...)
	return slices.Sorted(slices.Values(slices.AppendSeq(kinds, maps.Keys(rowFaults))))
}

// accepts tells whether the request is carried out before the fault strikes.
func (f *Fault) accepts() bool {
	switch f.Fault {
	case DropBeforeAccept, RateLimited:
		return false
	case ErrorAnswer:
		return f.Accept
	default:
		return true
	}
}

// fits tells whether the fault waits for this request.
func (f *Fault) fits(c *call) bool {
	if f.On != c.route && (f.On != everyEndpoint || strings.HasPrefix(c.route, "WS ")) {
		return false
	}
	for name, want := range f.Match {
		if c.parameter(name) != want {
			return false
		}
	}
	return true
}

// parameter is the text of a parameter, wherever it came and of whatever type.
func (c *call) parameter(name string) string {
	if name == "account" {
		if c.account == nil {
			return ""
		}
		return c.account.Name
	}
	if c.query.Has(name) {
		return c.query.Get(name)
	}
	var body map[string]json.RawMessage
	if json.Unmarshal(c.body, &body) != nil {
		return ""
	}
	var text string
	if json.Unmarshal(body[name], &text) == nil {
		return text
	}
	return string(body[name])
}

// strikes tells whether the fault is for this request. One with a rate draws a
// lot each time it is asked of a request that fits.
func (s *Sandbox) strikes(f *Fault, c *call) bool {
	switch {
	case !f.fits(c):
		return false
	case f.Rate == 0:
		return true
	}
	f.Drawn++
	s.dirty = true
	return rand.New(rand.NewPCG(f.Seed, f.Drawn)).Float64() < f.Rate //nolint:gosec // a seed must replay the same faults
}

// waiting is the queue as this request finds it: a magic amount puts one more
// fault at its end.
func (s *Sandbox) waiting(c *call) []*Fault {
	if f := magic(c); f != nil {
		return append(slices.Clip(s.state.Faults), f)
	}
	return s.state.Faults
}

// answerFault is the first fault in the queue that spoils the answer to this
// call. It stays in the queue until spendFault.
func (s *Sandbox) answerFault(c *call) *Fault {
	for _, f := range s.waiting(c) {
		if slices.Contains(answerFaults, f.Fault) && s.strikes(f, c) {
			return f
		}
	}
	return nil
}

// delayed uses up an accept_late that fits a request, and returns when the
// request arrives; nil is now. Nobody has checked the signature yet, so the
// account is the one that the key belongs to.
func (s *Sandbox) delayed(r *http.Request, name string, body []byte) *deadline {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, _ := s.key(r.Header.Get("X-COINEX-KEY"))
	c := &call{route: name, account: a, query: r.URL.Query(), body: body, now: s.now()}
	for _, f := range s.waiting(c) {
		if f.Fault == AcceptLate && s.strikes(f, c) {
			s.held++
			return s.deadline(c.now, time.Duration(s.spendFault(f).Delay)) // the file learns of it with the next change
		}
	}
	return nil
}

// spendFault uses a fault up once. It returns a copy, which nobody changes
// while the answer is on its way.
func (s *Sandbox) spendFault(f *Fault) *Fault {
	if f.Times > 0 { // 0 has no end
		f.Times--
		if f.Times == 0 {
			s.state.Faults = slices.DeleteFunc(s.state.Faults, func(g *Fault) bool { return g == f })
		}
	}
	s.dirty = true
	spent := *f
	return &spent
}

// deliver sends the answer the way the fault wants it.
func (p reply) deliver(w http.ResponseWriter, r *http.Request) {
	if p.fault == nil {
		p.write(w)
		return
	}
	switch p.fault.Fault {
	case DropBeforeAccept, AcceptThenDrop:
		drop(w)
	case AcceptThen502:
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprint(w, "<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head>\n"+
			"<body><center><h1>502 Bad Gateway</h1></center><hr><center>cloudflare</center></body></html>\n")
	case AcceptAnswerLate:
		held := time.NewTimer(time.Duration(p.fault.Delay))
		defer held.Stop()
		select {
		case <-held.C:
			p.write(w)
		case <-r.Context().Done(): // nobody waits any more
		}
	case RateLimited:
		p.quota = p.quota.empty()
		p.write(w)
	default:
		p.write(w)
	}
}

// drop closes the connection without a byte of answer.
func drop(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2: the server resets the stream
	}
	conn.Close()
}
