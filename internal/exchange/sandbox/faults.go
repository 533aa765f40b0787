package sandbox

import (
	"encoding/json"
	"fmt"
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
	// On is the endpoint, such as "GET /assets/withdraw"; empty means
	// "POST /assets/withdraw".
	On string `json:"on,omitempty"`
	// Times is how many requests it spoils; 0 means 1.
	Times int `json:"times,omitempty"`
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
	// clock, and how long list_late hides the row, on the exchange's.
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

// Faults that spoil a row. On POST /assets/withdraw the new row keeps them for
// life; on GET /assets/withdraw they show in that one answer.
const (
	RemarkNotEchoed Kind = "remark_not_echoed" // remark is ""
	UpperCaseMethod Kind = "upper_case_method" // ON_CHAIN for on_chain
	FeeAssetVariant Kind = "fee_asset_variant" // fee_asset and fee_amount for fee_ccy
	ListLate        Kind = "list_late"         // lists leave the new row out for Reads or Delay
)

var (
	answerFaults = []Kind{DropBeforeAccept, RateLimited, ErrorAnswer, AcceptThenDrop, AcceptThen502, AcceptAnswerLate, Code0WithoutData}
	rowFaults    = []Kind{RemarkNotEchoed, UpperCaseMethod, FeeAssetVariant, ListLate}
	matchable    = []string{"account", "ccy", "chain", "to_address", "withdraw_method", "memo", "amount", "remark", "withdraw_id", "status", "page", "type"}
)

// Inject puts a fault at the end of the queue.
func (s *Sandbox) Inject(f Fault) error {
	if f.On == "" {
		f.On = withdrawRoute
	}
	if f.Times == 0 {
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
	onRow := slices.Contains(rowFaults, f.Fault)
	switch {
	case !onRow && !slices.Contains(answerFaults, f.Fault):
		return no(fmt.Sprintf("there is no fault %q", f.Fault), fmt.Sprintf("use one of %v or %v", answerFaults, rowFaults))
	case !served:
		return no(fmt.Sprintf("the sandbox does not serve %q", f.On), `write on as "POST /assets/withdraw"`)
	case onRow && f.On != withdrawRoute && f.On != listRoute:
		return no(fmt.Sprintf("%s answers no withdrawals", f.On), fmt.Sprintf("use %s on %s or %s", f.Fault, withdrawRoute, listRoute))
	case f.Times < 0 || f.Reads < 0 || f.Delay < 0 || f.Code < 0:
		return no("times, reads, delay and code are never negative", "leave out what you do not need")
	case f.Fault == ListLate && (f.On != withdrawRoute || (f.Reads > 0) == (f.Delay > 0)):
		return no("list_late belongs to POST /assets/withdraw and takes either reads or delay", `send {"fault":"list_late","reads":3}`)
	case f.Fault == AcceptAnswerLate && f.Delay == 0:
		return no("accept_answer_late takes a delay", `send {"fault":"accept_answer_late","delay":"20s"}`)
	}
	for name := range f.Match {
		if !slices.Contains(matchable, name) {
			return no(fmt.Sprintf("no request has a parameter %q to match", name), fmt.Sprintf("match on %v", matchable))
		}
	}
	return nil
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
	if f.On != c.route {
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

// answerFault is the first fault in the queue that spoils the answer to this
// call. It stays in the queue until spendFault.
func (s *Sandbox) answerFault(c *call) *Fault {
	for _, f := range s.state.Faults {
		if slices.Contains(answerFaults, f.Fault) && f.fits(c) {
			return f
		}
	}
	return nil
}

// spendFault uses a fault up once. It returns a copy, which nobody changes
// while the answer is on its way.
func (s *Sandbox) spendFault(f *Fault) *Fault {
	f.Times--
	if f.Times == 0 {
		s.state.Faults = slices.DeleteFunc(s.state.Faults, func(g *Fault) bool { return g == f })
	}
	s.dirty = true
	spent := *f
	return &spent
}

// Quirks are the row faults that a withdrawal shows.
type Quirks struct {
	RemarkNotEchoed bool      `json:"remark_not_echoed,omitempty"`
	UpperCaseMethod bool      `json:"upper_case_method,omitempty"`
	FeeAssetVariant bool      `json:"fee_asset_variant,omitempty"`
	HiddenReads     int       `json:"hidden_reads,omitempty"`
	HiddenUntil     time.Time `json:"hidden_until,omitzero"`
}

// takeQuirks uses up the first fault of each row kind that fits the call.
func (s *Sandbox) takeQuirks(c *call) Quirks {
	var q Quirks
	for _, kind := range rowFaults {
		i := slices.IndexFunc(s.state.Faults, func(f *Fault) bool { return f.Fault == kind && f.fits(c) })
		if i < 0 {
			continue
		}
		f := s.spendFault(s.state.Faults[i])
		switch kind {
		case RemarkNotEchoed:
			q.RemarkNotEchoed = true
		case UpperCaseMethod:
			q.UpperCaseMethod = true
		case FeeAssetVariant:
			q.FeeAssetVariant = true
		case ListLate:
			q.HiddenReads = f.Reads
			if f.Delay > 0 {
				q.HiddenUntil = c.now.Add(time.Duration(f.Delay))
			}
		}
	}
	return q
}

// with joins the quirks of an answer with those of a row in it.
func (q Quirks) with(own Quirks) Quirks {
	own.RemarkNotEchoed = own.RemarkNotEchoed || q.RemarkNotEchoed
	own.UpperCaseMethod = own.UpperCaseMethod || q.UpperCaseMethod
	own.FeeAssetVariant = own.FeeAssetVariant || q.FeeAssetVariant
	return own
}

// spoil shows the quirks in a row.
func (q Quirks) spoil(r row) row {
	if q.RemarkNotEchoed {
		r.Remark = ""
	}
	if q.UpperCaseMethod {
		r.WithdrawMethod = strings.ToUpper(r.WithdrawMethod)
	}
	if q.FeeAssetVariant {
		fee := r.TxFee
		r.FeeAsset, r.FeeAmount, r.FeeCcy = r.FeeCcy, &fee, ""
	}
	return r
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
		p.limited, p.left = true, 0
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
