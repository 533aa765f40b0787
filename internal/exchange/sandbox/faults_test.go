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
