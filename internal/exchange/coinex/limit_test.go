package coinex

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/exchange"
	"sluice/internal/fault"
)

// calls runs n calls one after the other and tells how long they took.
func calls(n int, call func()) time.Duration {
	start := time.Now()
	for range n {
		call()
	}
	return time.Since(start)
}

func TestCallsStayBelowTheExchangesLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := measuredNow(newOffline(t, func(*http.Request) (*http.Response, error) { return respond(200, ok(`[]`)), nil }))
		ctx := t.Context()

		if took := calls(11, func() { sign(t, c, order()) }); took != 2*time.Second {
			t.Errorf("11 signatures took %v", took)
		}
		if took := calls(15, func() { _, _ = c.Balances(ctx) }); took != 2*time.Second {
			t.Errorf("15 balances took %v", took)
		}
		if took := calls(15, func() { _, _ = c.Withdrawals(ctx, exchange.Query{}) }); took != 2*time.Second {
			t.Errorf("15 pages took %v", took)
		}
	})
}

func TestTheTurnIsTakenBeforeTheTimestamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := measuredNow(newOffline(t, func(*http.Request) (*http.Response, error) { return respond(200, coded(3109)), nil }))
		sign(t, c, order())
		signed := sign(t, c, order()) // has waited
		if age := time.Since(signed.Timestamp); age >= time.Millisecond {
			t.Errorf("the timestamp is %v old", age)
		}
		start := time.Now()
		c.Withdraw(t.Context(), order(), signed)
		if time.Since(start) != 0 {
			t.Errorf("the submission waited %v", time.Since(start))
		}
	})
}

func TestALongPeriodLimitSlowsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status, header := 200, []string{"X-RateLimit-LongPeriod-1H-Remaining", "3600"}
		c := measuredNow(newOffline(t, func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/v2/ping" {
				return respond(200, ok(`{}`)), nil
			}
			return respond(status, ok(`[]`), header...), nil
		}))
		ctx := t.Context()
		balances := func() { _, _ = c.Balances(ctx) }
		pages := func() { _, _ = c.Withdrawals(ctx, exchange.Query{}) }

		balances()
		time.Sleep(time.Minute)
		if took := calls(4, pages); took != 3*time.Second {
			t.Errorf("slow: 4 pages took %v", took)
		}
		header, status = nil, 502
		balances()
		if err := c.Ping(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if took := calls(3, func() { sign(t, c, order()) }); took != 2*time.Second {
			t.Errorf("neither a gateway nor a public endpoint ends it: 3 signatures took %v", took)
		}
		status = 200
		balances()
		time.Sleep(time.Minute)
		if took := calls(6, func() { sign(t, c, order()) }); took != time.Second {
			t.Errorf("over: 6 signatures took %v", took)
		}
		if took := calls(10, pages); took != time.Second {
			t.Errorf("over: 10 pages took %v", took)
		}
	})
}

func TestWaitingForATurnObeysTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := measuredNow(newOffline(t, nil))
		sign(t, c, order())
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := c.Sign(ctx, order())
		if f, _ := fault.As(err); f == nil || f.Code != "exchange_rate_wait" || f.Kind != fault.Unavailable {
			t.Errorf("got %v", err)
		}
	})
}
