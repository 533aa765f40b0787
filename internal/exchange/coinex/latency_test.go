package coinex

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took time.Duration
		c := measuredNow(newOffline(t, func(r *http.Request) (*http.Response, error) {
			time.Sleep(took)
			return respond(200, ok(`[]`)), nil
		}))
		if got := c.Latency(); got != (Latency{}) || got.Advice() != "" {
			t.Errorf("before any call: %+v, %q", got, got.Advice())
		}
		for _, took = range []time.Duration{9 * time.Millisecond, 5 * time.Second, 11 * time.Millisecond} {
			_ = c.Ping(t.Context())
		}
		took = time.Hour // a new connection for each: not comparable
		_ = c.Cancel(t.Context(), 1)
		if got := c.Latency(); got.Last != 11*time.Millisecond || got.Median != 11*time.Millisecond || got.Samples != 3 {
			t.Errorf("got %+v", got)
		}
		took = 200 * time.Millisecond
		for range 200 {
			_ = c.Ping(t.Context())
		}
		if got := c.Latency(); got.Median != took || got.Samples != 101 || !got.At.Equal(time.Now()) {
			t.Errorf("got %+v", got)
		}
	})
}

func TestLatencyAdvice(t *testing.T) {
	for median, says := range map[time.Duration]string{
		8 * time.Millisecond:   "as near",
		260 * time.Millisecond: "ap-northeast-1a",
		2 * time.Second:        "eat into the window",
	} {
		if got := (Latency{Median: median, Samples: 1}).Advice(); !strings.Contains(got, says) || !strings.Contains(got, median.String()) {
			t.Errorf("%v: %s", median, got)
		}
	}
}
