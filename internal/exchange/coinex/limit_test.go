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

func TestANearlyUsedQuotaSlowsItsGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		header := []string{"X-Ratelimit-Limit", "20", "X-Ratelimit-Remaining", "39"}
		status, body := 200, ok(`[]`)
		c := measuredNow(newOffline(t, func(*http.Request) (*http.Response, error) { return respond(status, body, header...), nil }))
		ctx := t.Context()
		balances := func() { _, _ = c.Balances(ctx) }
		pages := func() { _, _ = c.Withdrawals(ctx, exchange.Query{}) }
		is := func(step string, group int, want ShortLimit) {
			t.Helper()
			got := c.Limits().Short[group]
			want.Group, got.At, got.RefusedAt = got.Group, want.At, want.RefusedAt
			if got != want || got.Group == "" {
				t.Errorf("%s: got %+v, want %+v", step, got, want)
			}
		}

		is("nothing said", 1, ShortLimit{Pace: 5, Limit: -1, Remaining: -1})
		balances()
		is("plenty", 1, ShortLimit{Pace: 5, Limit: 20, Remaining: 39})
		header[3] = "2"
		balances()
		is("nearly used", 1, ShortLimit{Pace: 1, Limit: 20, Remaining: 2})
		header = nil
		status = 502
		balances()
		is("a gateway proves nothing", 1, ShortLimit{Pace: 1, Limit: 20, Remaining: 2})
		status = 200
		body = coded(213)
		balances()
		is("refused", 1, ShortLimit{Pace: 1, Limit: 20, Remaining: 2, Refusals: 1})
		if at := c.Limits().Short[1].RefusedAt; !at.Equal(time.Now()) {
			t.Errorf("refused at %v", at)
		}
		for _, out := range []struct {
			status int
			body   string
		}{{200, coded(4213)}, {429, "slow down"}, {200, coded(3008)}, {200, coded(4001)}} {
			status, body = out.status, out.body
			balances()
			status, body = 200, ok(`[]`)
			if pace := c.Limits().Short[1].Pace; pace != 1 {
				t.Errorf("after %v the pace is %d", out, pace)
			}
			pages()
			if pace := c.Limits().Short[1].Pace; pace != 1 {
				t.Errorf("another group's answer set the pace to %d", pace)
			}
			balances()
			is("over", 1, ShortLimit{Pace: 5, Limit: 20, Remaining: 2, Refusals: c.Limits().Short[1].Refusals})
		}
		if got := c.Limits().Short[1].Refusals; got != 3 {
			t.Errorf("%d refusals; busy is not a refusal", got)
		}
		header = []string{"x-ratelimit-remaining", "0"}
		balances()
		header = nil
		body = ok(`[]`)
		is("used up", 1, ShortLimit{Pace: 1, Limit: -1, Remaining: 0, Refusals: 3})
		header = []string{"x-ratelimit-remaining", "1"}
		time.Sleep(time.Minute)
		if took := calls(4, balances); took != 3*time.Second {
			t.Errorf("used up: 4 balances took %v", took)
		}
		header = nil
		if took := calls(5, pages); took != 0 {
			t.Errorf("another group's 5 pages took %v", took)
		}
	})
}

func TestAFallenLimitIsHalved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := "4"
		c := measuredNow(newOffline(t, func(*http.Request) (*http.Response, error) {
			return respond(200, ok(`[]`), "X-RateLimit-Limit", limit, "X-RateLimit-Remaining", "soon"), nil
		}))
		for said, pace := range map[string]int{"4": 2, "1": 1, "0": 1, "10": 5, "1000": 5, "many": 5, "-3": 5} {
			limit = said
			_, _ = c.FuturesBalances(t.Context())
			if said == "many" || said == "-3" {
				continue // says nothing: what was said before stays
			}
			if got := c.Limits().Short[queryFutures]; got.Pace != pace || got.Remaining != -1 {
				t.Errorf("%s: got %+v", said, got)
			}
		}
		limit = "4"
		_, _ = c.FuturesBalances(t.Context())
		time.Sleep(time.Minute)
		if took := calls(6, func() { _, _ = c.FuturesBalances(t.Context()) }); took != 2*time.Second {
			t.Errorf("6 readings took %v", took)
		}
	})
}

// Row 6 of the FAQ: short-term and long-term limits are shown apart.
func TestLongLimitsAreShownApart(t *testing.T) {
	header := []string{"X-RateLimit-LongPeriod-4H-Remaining", "14000", "x-ratelimit-longperiod-1h-remaining", "soon", "X-RateLimit-LongPeriod", "1"}
	c := measuredNow(newOffline(t, func(*http.Request) (*http.Response, error) { return respond(200, ok(`[]`), header...), nil }))
	_, _ = c.Balances(t.Context())
	got := c.Limits()
	if len(got.Long) != 2 || got.Long[0].Period != "1H" || got.Long[0].Remaining != -1 || got.Long[1].Period != "4H" || got.Long[1].Remaining != 14000 || got.Long[1].At.IsZero() {
		t.Errorf("got %+v", got.Long)
	}
	if len(got.Short) != int(groups) {
		t.Errorf("got %+v", got.Short)
	}
	for _, s := range got.Short {
		if s.Pace != 1 || s.Refusals != 0 || s.Group == "" {
			t.Errorf("got %+v", s)
		}
	}
	header = nil
	_, _ = c.Balances(t.Context())
	if got := c.Limits(); len(got.Long) != 0 || got.Short[0].Pace != perSecond {
		t.Errorf("got %+v", got)
	}
}
