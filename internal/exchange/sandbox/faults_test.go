package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/internal/exchange/sandbox"
)

// made counts the withdrawals that the exchange really has.
func (b *bench) made() int { return len(b.Withdrawals()) }

func (b *bench) inject(f sandbox.Fault) {
	b.t.Helper()
	b.must(b.Inject(f))
}

// afterwards checks that the fault is used up and the exchange well again.
func (b *bench) afterwards() {
	b.t.Helper()
	if left := b.State().Faults; len(left) != 0 {
		b.t.Errorf("faults left: %+v", left)
	}
	wantCode(b.t, b.withdraw(order("10", "after")), 0, "OK")
}

func TestFaultsThatLoseTheAnswer(t *testing.T) {
	for kind, made := range map[sandbox.Kind]int{sandbox.AcceptThenDrop: 1, sandbox.DropBeforeAccept: 0} {
		t.Run(string(kind), func(t *testing.T) {
			b := ready(t, sandbox.Options{})
			b.inject(sandbox.Fault{Fault: kind})
			if a, err := send(b.signed("POST", "/v2/assets/withdraw", order("10", ""))); err == nil {
				t.Errorf("an answer came: %s", a.body)
			}
			if got := b.made(); got != made {
				t.Errorf("%d withdrawals, want %d", got, made)
			}
			b.afterwards()
		})
	}
}

func TestFaultAcceptThen502(t *testing.T) {
	b := ready(t, sandbox.Options{})
	b.inject(sandbox.Fault{Fault: sandbox.AcceptThen502})
	a := b.withdraw(order("10", ""))
	if a.status != 502 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || !strings.Contains(string(a.body), "<html>") {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	if got := b.made(); got != 1 {
		t.Errorf("%d withdrawals, want 1", got)
	}
	b.afterwards()
}

func TestFaultAcceptAnswerLate(t *testing.T) {
	b := ready(t, sandbox.Options{})
	b.inject(sandbox.Fault{Fault: sandbox.AcceptAnswerLate, Delay: sandbox.Duration(time.Millisecond)})
	wantCode(t, b.withdraw(order("10", "")), 0, "OK")

	// A client that gives up has its withdrawal all the same.
	b.inject(sandbox.Fault{Fault: sandbox.AcceptAnswerLate, Delay: sandbox.Duration(time.Hour)})
	ctx, giveUp := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() {
		_, err := send(b.signed("POST", "/v2/assets/withdraw", order("10", "")).WithContext(ctx))
		answer <- err
	}()
	for b.made() < 2 {
		select {
		case err := <-answer:
			t.Fatalf("an answer without a withdrawal: %v", err)
		default:
		}
	}
	for range 20 { // time enough for an answer that is not held back
		wantCode(t, b.do(b.plain("GET", "/v2/ping", "")), 0, "")
	}
	select {
	case err := <-answer:
		t.Fatalf("the answer was not held back: %v", err)
	default:
	}
	giveUp()
	if err := <-answer; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a cancelled request", err)
	}
	b.afterwards()
}

func TestFaultError(t *testing.T) {
	for _, c := range []struct {
		fault sandbox.Fault
		words string
		made  int
	}{
		{sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 4002}, "timed out", 0},
		{sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 4002, Accept: true}, "timed out", 1},
		{sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 3008, Message: "really", Accept: true}, "really", 1},
		{sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 98765}, "", 0},
		{sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 0}, "OK", 0},
	} {
		t.Run(fmt.Sprintf("%d accept=%v", c.fault.Code, c.fault.Accept), func(t *testing.T) {
			b := ready(t, sandbox.Options{})
			b.inject(c.fault)
			wantCode(t, b.withdraw(order("10", "")), c.fault.Code, c.words)
			if got := b.made(); got != c.made {
				t.Errorf("%d withdrawals, want %d", got, c.made)
			}
			b.afterwards()
		})
	}
}

func TestFaultCode0WithoutData(t *testing.T) {
	b := ready(t, sandbox.Options{})
	b.inject(sandbox.Fault{Fault: sandbox.Code0WithoutData})
	wantText(t, "answer", strings.TrimSpace(string(b.withdraw(order("10", "")).body)), `{"code":0,"data":{},"message":"OK"}`)
	if got := b.made(); got != 1 {
		t.Errorf("%d withdrawals, want 1", got)
	}
	b.afterwards()
}

func TestFaultRateLimit(t *testing.T) {
	for _, off := range []bool{false, true} {
		b := ready(t, sandbox.Options{NoRateLimit: off})
		b.inject(sandbox.Fault{Fault: sandbox.RateLimited, Times: 2})
		for range 2 {
			a := b.withdraw(order("10", ""))
			wantCode(t, a, 4213, "Please don't try too frequently.")
			wantText(t, "limit", a.header.Get("X-RateLimit-Limit"), "10")
			wantText(t, "remaining", a.header.Get("X-RateLimit-Remaining"), "0")
		}
		if got := b.made(); got != 0 {
			t.Errorf("%d withdrawals, want 0", got)
		}
		b.afterwards()
	}
}

// A row that was made crooked stays crooked in the lists.
func TestFaultsOfTheRow(t *testing.T) {
	for kind, want := range map[sandbox.Kind]map[string]any{
		sandbox.RemarkNotEchoed: {"remark": "", "withdraw_method": "on_chain", "fee_ccy": "USDT", "fee_asset": nil, "fee_amount": nil},
		sandbox.UpperCaseMethod: {"remark": "tag", "withdraw_method": "ON_CHAIN", "fee_ccy": "USDT", "fee_asset": nil, "fee_amount": nil},
		sandbox.FeeAssetVariant: {"remark": "tag", "withdraw_method": "on_chain", "fee_ccy": nil, "fee_asset": "USDT", "fee_amount": "2.4"},
	} {
		t.Run(string(kind), func(t *testing.T) {
			check := func(where string, row map[string]any, want map[string]any) {
				t.Helper()
				for field, value := range want {
					if row[field] != value {
						t.Errorf("%s: %s is %v, want %v", where, field, row[field], value)
					}
				}
			}
			straight := map[string]any{"remark": "tag", "withdraw_method": "on_chain", "fee_ccy": "USDT", "fee_asset": nil}
			b := ready(t, sandbox.Options{})
			b.inject(sandbox.Fault{Fault: kind})
			check("submission", b.withdraw(order("10", "tag")).row(t), want)
			for range 2 {
				check("list", b.get("/v2/assets/withdraw").rows(t)[0], want)
			}

			b = ready(t, sandbox.Options{})
			b.inject(sandbox.Fault{Fault: kind, On: "GET /assets/withdraw"})
			check("submission before a crooked list", b.withdraw(order("10", "tag")).row(t), straight)
			check("crooked list", b.get("/v2/assets/withdraw").rows(t)[0], want)
			check("list after", b.get("/v2/assets/withdraw").rows(t)[0], straight)
		})
	}
}

func TestFaultListLate(t *testing.T) {
	b := ready(t, sandbox.Options{})
	total := func(want int) {
		t.Helper()
		if a := b.get("/v2/assets/withdraw"); len(a.rows(t)) != want || a.Pagination.Total != want {
			t.Errorf("list %s, want %d rows", a.body, want)
		}
	}
	b.inject(sandbox.Fault{Fault: sandbox.ListLate, Reads: 2})
	b.accepted("10", "late by reads")
	// The debit shows at once: only the list is late.
	wantText(t, "balance", b.balance("USDT"), "999987.6")
	total(0)
	total(0)
	total(1)

	b.inject(sandbox.Fault{Fault: sandbox.ListLate, Delay: sandbox.Duration(30 * time.Second)})
	id := b.accepted("10", "late by time")
	b.must(b.SetOffset(-time.Hour)) // a wrong clock is not passing time
	b.must(b.Advance(30*time.Second - 1))
	total(1)
	if got := len(b.get(fmt.Sprintf("/v2/assets/withdraw?withdraw_id=%d", id)).rows(t)); got != 0 {
		t.Error("the look-up by id shows a row that the list does not")
	}
	b.must(b.Advance(1))
	total(2)
	b.afterwards()
}

// The hardest case for a client: no answer, no remark, and the list is late.
func TestFaultsOfRowAndAnswerMeetInOneRequest(t *testing.T) {
	b := ready(t, sandbox.Options{})
	b.inject(sandbox.Fault{Fault: sandbox.AcceptThenDrop})
	b.inject(sandbox.Fault{Fault: sandbox.ListLate, Reads: 1})
	b.inject(sandbox.Fault{Fault: sandbox.RemarkNotEchoed})
	if _, err := send(b.signed("POST", "/v2/assets/withdraw", order("10", "tag"))); err == nil {
		t.Error("an answer came")
	}
	if got := len(b.get("/v2/assets/withdraw").rows(t)); got != 0 {
		t.Errorf("%d rows in the first list, want 0", got)
	}
	rows := b.get("/v2/assets/withdraw").rows(t)
	if len(rows) != 1 || rows[0]["remark"] != "" {
		t.Errorf("second list: %v", rows)
	}
	b.afterwards()
}

// Faults strike in the order of the queue, one answer at a time.
func TestFaultsWaitInLine(t *testing.T) {
	b := ready(t, sandbox.Options{})
	b.inject(sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 4001, Accept: true, Times: 2})
	b.inject(sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 4003})
	for _, want := range []int{4001, 4001, 4003, 0} {
		wantCode(t, b.withdraw(order("10", "")), want, "")
	}
	if got := b.made(); got != 3 {
		t.Errorf("%d withdrawals, want 3", got)
	}
}

// A fault that says "accepted" cannot make the exchange accept what it refuses.
func TestFaultsThatAcceptWaitForAnAcceptedRequest(t *testing.T) {
	b := ready(t, sandbox.Options{})
	b.inject(sandbox.Fault{Fault: sandbox.AcceptThen502})
	b.inject(sandbox.Fault{Fault: sandbox.RemarkNotEchoed})
	wantCode(t, b.withdraw(order("1", "")), 3127, "")
	unsigned := b.plain("POST", "/v2/assets/withdraw", order("10", ""))
	wantCode(t, b.do(unsigned), 4005, "")
	if got := len(b.State().Faults); got != 2 {
		t.Errorf("%d faults left, want 2", got)
	}
	if got := b.withdraw(order("10", "")).status; got != http.StatusBadGateway {
		t.Errorf("HTTP %d, want 502", got)
	}
	b.afterwards()
}

func TestFaultsMatchParameters(t *testing.T) {
	b := ready(t, sandbox.Options{})
	b.inject(sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 4002, Match: map[string]string{"account": "main", "amount": "11", "remark": "b"}})
	wantCode(t, b.withdraw(order("11", "a")), 0, "")
	wantCode(t, b.withdraw(order("10", "b")), 0, "")
	wantCode(t, b.withdraw(order("11", "b")), 4002, "")

	b.inject(sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 4001, On: "GET /assets/withdraw", Match: map[string]string{"page": "2"}})
	b.inject(sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 4001, On: "POST /assets/cancel-withdraw", Match: map[string]string{"withdraw_id": "31200001"}})
	b.inject(sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 4001, On: "GET /time"})
	b.inject(sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 4001, Match: map[string]string{"account": "other"}})
	wantCode(t, b.get("/v2/assets/withdraw"), 0, "")
	wantCode(t, b.get("/v2/assets/withdraw?page=2"), 4001, "")
	wantCode(t, b.post("/v2/assets/cancel-withdraw", `{"withdraw_id":31200002}`), 0, "")
	wantCode(t, b.post("/v2/assets/cancel-withdraw", `{"withdraw_id":31200001}`), 4001, "")
	wantCode(t, b.do(b.plain("GET", "/v2/time", "")), 4001, "")
	wantCode(t, b.withdraw(order("10", "")), 0, "")
	b.must(b.ClearFaults())
	b.afterwards()
}

func TestFaultsThatCouldNeverHappenAreRefused(t *testing.T) {
	b := open(t, sandbox.Options{})
	for _, f := range []sandbox.Fault{
		{},
		{Fault: "explode"},
		{Fault: sandbox.ErrorAnswer, On: "POST /assets/withdrawal"},
		{Fault: sandbox.RemarkNotEchoed, On: "GET /time"},
		{Fault: sandbox.ErrorAnswer, Times: -1},
		{Fault: sandbox.ErrorAnswer, Code: -1},
		{Fault: sandbox.ListLate},
		{Fault: sandbox.ListLate, Reads: 1, Delay: 1},
		{Fault: sandbox.ListLate, Reads: 1, On: "GET /assets/withdraw"},
		{Fault: sandbox.AcceptAnswerLate},
		{Fault: sandbox.AcceptLate},
		{Fault: sandbox.ErrorAnswer, Rate: 1},
		{Fault: sandbox.ErrorAnswer, Rate: -0.1},
		{Fault: sandbox.ErrorAnswer, Seed: 7},
		{Fault: sandbox.CancelFails, On: "GET /assets/withdraw"},
		{Fault: sandbox.RemarkNotEchoed, On: "*"},
		{Fault: sandbox.AcceptThen502, On: "WS /spot server.sign"},
		{Fault: sandbox.ErrorAnswer, On: "WS /spot server.sign"},
		{Fault: sandbox.ErrorAnswer, On: "WS /spot position.subscribe", Code: 23001},
		{Fault: sandbox.ErrorAnswer, Match: map[string]string{"adress": "x"}},
	} {
		if b.Inject(f) == nil {
			t.Errorf("accepted: %+v", f)
		}
	}
	if got := b.State().Faults; len(got) != 0 {
		t.Errorf("faults waiting: %+v", got)
	}
}

// within sends a request from another goroutine and returns when the sandbox
// holds it back.
func (b *bench) within(ctx context.Context, r *http.Request) <-chan answered {
	b.t.Helper()
	out := make(chan answered, 1)
	go func() {
		a, _ := send(r.WithContext(ctx)) // no answer is an answer with the code -1
		out <- a
	}()
	for b.State().Held == 0 {
	}
	return out
}

// A packet that is late on its way dies at T + W, wherever it was meanwhile.
func TestFaultAcceptLate(t *testing.T) {
	hold := func(d time.Duration) (*bench, *http.Request) {
		b := ready(t, sandbox.Options{})
		b.inject(sandbox.Fault{Fault: sandbox.AcceptLate, Delay: sandbox.Duration(d), Match: map[string]string{"account": "main", "amount": "10"}})
		return b, b.signed("POST", "/v2/assets/withdraw", order("10", ""))
	}
	for _, c := range []struct {
		delay  time.Duration
		window string
		code   int
	}{
		{5 * time.Second, "", 0}, {5*time.Second + time.Millisecond, "", 4017}, {2 * time.Second, "1500", 4017}, {time.Second, "1500", 0},
	} {
		b, r := hold(c.delay)
		if c.window != "" {
			r.Header.Set("X-COINEX-WINDOWTIME", c.window)
		}
		answer := b.within(t.Context(), r)
		b.must(b.Advance(c.delay - 1))
		if b.made() != 0 || b.State().Held != 1 {
			t.Error("it arrived too early")
		}
		b.must(b.Advance(1))
		wantCode(t, <-answer, c.code, "")
		if made := b.made(); (made == 1) != (c.code == 0) {
			t.Errorf("late by %s: %d withdrawals after code %d", c.delay, made, c.code)
		}
		b.afterwards()
	}

	// The client hangs up; the packet arrives all the same.
	b, r := hold(4 * time.Second)
	ctx, hangUp := context.WithCancel(t.Context())
	answer := b.within(ctx, r)
	hangUp()
	if a := <-answer; a.code() != -1 {
		t.Errorf("an answer came: %s", a.body)
	}
	b.must(b.SetOffset(-time.Hour)) // a wrong clock is not passing time
	b.must(b.SetOffset(0))
	b.must(b.Advance(4 * time.Second))
	for b.made() == 0 {
	}

	b, r = hold(time.Hour)
	answer = b.within(t.Context(), r)
	b.Close()
	if a := <-answer; a.code() != -1 {
		t.Errorf("an answer came: %s", a.body)
	}
}

// A fault with a rate strikes the same requests each time it has the same
// seed, and no restart changes that.
func TestFaultsByRate(t *testing.T) {
	const n = 200
	struck := func(f sandbox.Fault, restart bool) string {
		path := ""
		if restart { // only then: the file is written for each of so many requests
			path = t.TempDir() + "/state.json"
		}
		b := ready(t, sandbox.Options{NoRateLimit: true, StatePath: path})
		b.must(b.SetBalance("", "USDT", "100000000"))
		b.inject(f)
		var out strings.Builder
		for i := range n {
			if restart && i == n/2 {
				b = open(t, sandbox.Options{NoRateLimit: true, StatePath: path})
			}
			out.WriteString(map[bool]string{true: "x", false: "."}[b.withdraw(order("10", "")).code() == 4002])
		}
		return out.String()
	}
	f := sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 4002, Rate: 0.25, Seed: 7}
	first := struck(f, false)
	if hits := strings.Count(first, "x"); hits < 30 || hits > 70 {
		t.Errorf("%d of %d struck at a rate of 0.25", hits, n)
	}
	wantText(t, "the same seed, with a restart", struck(f, true), first)
	f.Seed = 8
	if struck(f, false) == first {
		t.Error("another seed struck the same requests")
	}
	f.Times = 3
	if got := strings.Count(struck(f, false), "x"); got != 3 {
		t.Errorf("struck %d times, want 3", got)
	}
}

func TestMagicAmounts(t *testing.T) {
	for _, c := range []struct {
		amount string
		code   int // -1 for no answer, -2 for no JSON
		made   int
	}{
		{"10.663310", 3310, 0}, {"10.66331", 3310, 0}, {"10.664002", 4002, 0}, {"10.674002", 4002, 1}, {"10.660213", 213, 0}, {"10.664213", 4213, 0},
		{"10.680001", -1, 0}, {"10.680002", -1, 1}, {"10.680003", -2, 1}, {"10.680006", 0, 1},
		{"10.66", 0, 1}, {"10.660000", 0, 1}, {"10.67", 0, 1}, {"10.68", 0, 1}, {"10.661234", 0, 1}, {"10.680099", 0, 1}, {"10.654002", 0, 1},
	} {
		b := ready(t, sandbox.Options{})
		got := -1
		if a, err := send(b.signed("POST", "/v2/assets/withdraw", order(c.amount, "tag"))); err == nil {
			if got = a.code(); got == -1 {
				got = -2
			}
		}
		if got != c.code || b.made() != c.made {
			t.Errorf("%s: code %d and %d withdrawals, want %d and %d", c.amount, got, b.made(), c.code, c.made)
		}
		b.afterwards()
	}

	b := ready(t, sandbox.Options{})
	wantText(t, "remark", fmt.Sprint(b.withdraw(order("10.680007", "tag")).row(t)["remark"]), "")
	b = ready(t, sandbox.Options{})
	b.accepted("10.680008", "")
	for reads, want := range []int{0, 0, 0, 1} {
		if got := len(b.get("/v2/assets/withdraw").rows(t)); got != want {
			t.Errorf("read %d: %d rows, want %d", reads, got, want)
		}
	}
	b = ready(t, sandbox.Options{})
	b.accepted("10.680009", "")
	if got := len(b.get("/v2/assets/withdraw").rows(t)); got != 2 {
		t.Errorf("%d rows, want the same one twice", got)
	}
	b = ready(t, sandbox.Options{})
	b.cancel(b.accepted("10.680011", ""))
	wantText(t, "status", fmt.Sprint(b.get("/v2/assets/withdraw").rows(t)[0]["status"]), "cancellation_failed")
	b = ready(t, sandbox.Options{})
	wantText(t, "fee", fmt.Sprint(b.withdraw(order("10.680012", "")).row(t)["fee_asset"]), "USDT")

	// Late by half a minute, both ways: here the packet dies.
	b = ready(t, sandbox.Options{})
	answer := b.within(t.Context(), b.signed("POST", "/v2/assets/withdraw", order("10.680005", "")))
	b.must(b.Advance(30 * time.Second))
	wantCode(t, <-answer, 4017, "")
	ctx, giveUp := context.WithCancel(t.Context())
	late := make(chan error, 1)
	go func() {
		_, err := send(b.signed("POST", "/v2/assets/withdraw", order("10.680004", "")).WithContext(ctx))
		late <- err
	}()
	for b.made() == 0 {
	}
	giveUp()
	if <-late == nil {
		t.Error("the answer was not held back")
	}
}

func TestFaultListTwice(t *testing.T) {
	b := ready(t, sandbox.Options{})
	ids := func(query string) string {
		t.Helper()
		var out []string
		for _, row := range b.get("/v2/assets/withdraw?" + query).rows(t) {
			out = append(out, fmt.Sprintf("%.0f", row["withdraw_id"]))
		}
		return strings.Join(out, " ")
	}
	b.accepted("10", "")
	b.inject(sandbox.Fault{Fault: sandbox.ListTwice})
	b.accepted("10", "")
	b.accepted("10", "")
	wantText(t, "list", ids(""), "31200003 31200002 31200002 31200001")
	wantText(t, "first page", ids("limit=2"), "31200003 31200002") // and once more on the next
	wantText(t, "second page", ids("limit=2&page=2"), "31200002 31200001")
	b.inject(sandbox.Fault{Fault: sandbox.ListTwice, On: "GET /assets/withdraw"})
	wantText(t, "one list", ids(""), "31200003 31200003 31200002 31200002 31200001 31200001")
	wantText(t, "the next", ids(""), "31200003 31200002 31200002 31200001")
}

func TestFaultRegressStatus(t *testing.T) {
	b := ready(t, sandbox.Options{})
	look := func() string {
		t.Helper()
		row := b.get("/v2/assets/withdraw").rows(t)[0]
		return fmt.Sprintf("%v %v %v", row["status"], row["tx_id"] != "", row["confirmations"])
	}
	b.inject(sandbox.Fault{Fault: sandbox.RegressStatus})
	id := b.accepted("10", "")
	b.must(b.SetStatus(id, "confirming"))
	for _, want := range []string{"confirming true 0", "processing false 0", "confirming true 0", "processing false 0"} {
		wantText(t, "row", look(), want)
	}
	b.must(b.SetStatus(id, "finished"))
	wantText(t, "row", look(), "finished true 19")
	wantText(t, "row", look(), "confirming true 0")
	wantText(t, "the truth", string(b.status(id)), "finished")

	b = ready(t, sandbox.Options{})
	id = b.accepted("10", "")
	b.must(b.SetStatus(id, "cancelled"))
	b.inject(sandbox.Fault{Fault: sandbox.RegressStatus, On: "GET /assets/withdraw"})
	wantText(t, "one list", look(), "audit_required false 0")
	wantText(t, "the next", look(), "cancelled false 0")
}

func TestFaultCancellationFailed(t *testing.T) {
	b := ready(t, sandbox.Options{})
	b.inject(sandbox.Fault{Fault: sandbox.CancelFails})
	id := b.accepted("10", "")
	b.cancel(id)
	wantText(t, "status", string(b.status(id)), "cancellation_failed")
	wantText(t, "balance", b.balance("USDT"), "999987.6")
	wantCode(t, b.post("/v2/assets/cancel-withdraw", fmt.Sprintf(`{"withdraw_id":%d}`, id)), 3639, "no longer")
	id = b.accepted("10", "")
	b.cancel(id)
	wantText(t, "status of the next", string(b.status(id)), "cancelled")
}

// Every spelling that a client may meet.
func TestVariantsOfARow(t *testing.T) {
	for kind, want := range map[sandbox.Kind]map[string]any{
		sandbox.LegacyStatus:    {"status": "audit"},
		sandbox.UpperCaseStatus: {"status": "AUDIT_REQUIRED"},
		sandbox.UnknownStatus:   {"status": "under_the_moon"},
		sandbox.Confirmation:    {"confirmation": 0.0, "confirmations": nil},
		sandbox.TextNumbers:     {"withdraw_id": "31200001", "created_at": "1760000000000", "confirmations": "0", "amount": "12.4"},
		sandbox.PaddedAmounts:   {"amount": "12.40000000", "actual_amount": "10.00000000", "tx_fee": "2.40000000", "withdraw_id": 31200001.0},
		sandbox.UnknownField:    {"status": "audit_required", "amount": "12.4"},
	} {
		b := ready(t, sandbox.Options{})
		b.inject(sandbox.Fault{Fault: kind})
		submitted := b.withdraw(order("10", "")).row(t)
		listed := b.get("/v2/assets/withdraw").rows(t)[0]
		for field, value := range want {
			if submitted[field] != value || listed[field] != value {
				t.Errorf("%s: %s is %v and listed as %v, want %v", kind, field, submitted[field], listed[field], value)
			}
		}
		if (submitted["lunar_phase"] != nil) != (kind == sandbox.UnknownField) {
			t.Errorf("%s: unknown field %v", kind, submitted["lunar_phase"])
		}
	}
}

// A burst of refusals may hit whatever a client asks.
func TestFaultsOnEveryEndpoint(t *testing.T) {
	b := ready(t, sandbox.Options{})
	b.inject(sandbox.Fault{Fault: sandbox.RateLimited, On: "*", Times: 3})
	wantCode(t, b.get("/v2/assets/withdraw"), 4213, "")
	wantCode(t, b.withdraw(order("10", "")), 4213, "")
	wantCode(t, b.do(b.plain("GET", "/v2/time", "")), 4213, "")
	b.afterwards()
}
