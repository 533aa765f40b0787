package coinex

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/exchange"
	"sluice/internal/fault"
)

// A journey takes this long each way in the samples of the test below. The
// second one is slow on its way back and would put a mean off by 180 ms. The
// median is -10 ms, the fastest sample 5 ms: 90/2 + 15 + 1 ms is the bound.
var trips = []struct{ there, back time.Duration }{
	{90 * time.Millisecond, 150 * time.Millisecond},
	{40 * time.Millisecond, 1900 * time.Millisecond},
	{50 * time.Millisecond, 40 * time.Millisecond},
	{40 * time.Millisecond, 60 * time.Millisecond},
	{60 * time.Millisecond, 60 * time.Millisecond},
}

func TestMeasureClockIsTheMedianWithinItsBound(t *testing.T) {
	for _, ahead := range []time.Duration{0, 1234 * time.Millisecond, -7 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			c := newOffline(t, func(r *http.Request) (*http.Response, error) {
				trip := trips[n]
				n++
				time.Sleep(trip.there) // in the bubble's own time
				resp := timeAnswer(r, time.Now().Add(ahead))
				time.Sleep(trip.back)
				return resp, nil
			})
			got, err := c.MeasureClock(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if off := (got.Offset - ahead).Abs(); off > got.Error || off > 10*time.Millisecond {
				t.Errorf("offset %v ± %v, truth %v", got.Offset, got.Error, ahead)
			}
			if got.Error != 61*time.Millisecond || !got.At.Equal(time.Now()) || n != clockSamples {
				t.Errorf("± %v at %v after %d samples", got.Error, got.At, n)
			}
			now, err := c.Now(t.Context())
			if err != nil || time.Until(now) != got.Offset || n != clockSamples {
				t.Errorf("now is %v off (%v) after %d samples", time.Until(now), err, n)
			}
		})
	}
}

func TestTimestampsAreOnTheExchangesClock(t *testing.T) {
	s := newStub(t, says(ok(`[]`)))
	now := time.UnixMilli(testMillis)
	s.now = func() time.Time { return now }
	s.ahead = 12*time.Second + 345*time.Millisecond
	c := s.client(func(cfg *Config) { cfg.Now = s.now })
	if _, err := c.Balances(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.requests()[0].header.Get(headerTimestamp); got != "1760000012468" {
		t.Errorf("timestamp %s", got)
	}
	if got := sign(t, c, order()); got.Timestamp.UnixMilli() != 1760000012468 {
		t.Errorf("timestamp %v", got.Timestamp)
	}
}

func TestAClockThatIsFarOffIsNotCorrected(t *testing.T) {
	for ahead, says := range map[time.Duration]string{
		31 * time.Second:  "31s behind",
		-40 * time.Second: "40s ahead of",
	} {
		s := newStub(t, nil)
		now := time.UnixMilli(testMillis)
		s.now = func() time.Time { return now }
		s.ahead = ahead
		c := s.client(func(cfg *Config) { cfg.Now = s.now })
		measured, err := c.MeasureClock(t.Context())
		f, _ := fault.As(err)
		if f == nil || f.Code != "exchange_clock_skewed" || f.Kind != fault.Unavailable || !strings.Contains(f.Detail, says) || !strings.Contains(f.Fix, "time synchronisation") {
			t.Errorf("got %v", err)
		}
		if measured.Offset != ahead {
			t.Errorf("the measurement is %v", measured.Offset)
		}
		if _, err := c.Sign(t.Context(), order()); !fault.Is(err, "exchange_clock_skewed") {
			t.Errorf("signed all the same: %v", err)
		}
	}
}

func TestTheClockIsMeasuredAgain(t *testing.T) {
	s := newStub(t, nil)
	now := time.UnixMilli(testMillis)
	s.now = func() time.Time { return now }
	c := s.client(func(cfg *Config) { cfg.Now = s.now })
	for _, step := range []struct {
		pass time.Duration
		want int
	}{{0, 1}, {time.Second, 1}, {clockAge - time.Second, 1}, {time.Second, 2}, {-time.Hour, 3}} {
		now = now.Add(step.pass)
		if _, err := c.Now(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.measured(); got != step.want*clockSamples {
			t.Errorf("%v later: %d samples", step.pass, got)
		}
	}
}

func TestAMeasurementLastsWhileBothClocksAgree(t *testing.T) {
	for _, c := range []struct {
		monotonic, wall time.Duration
		want            bool
	}{
		{0, 0, true},
		{clockAge, clockAge, true},
		{clockAge + 1, clockAge + 1, false},
		{-1, -1, false},
		{time.Minute, time.Minute + maxStep, true},
		{time.Minute, time.Minute + maxStep + 1, false}, // the machine slept, or the clock was set forward
		{time.Minute, time.Minute - maxStep - 1, false}, // the clock was set back
	} {
		if got := young(c.monotonic, c.wall); got != c.want {
			t.Errorf("%v by the monotonic, %v by the wall clock: %v", c.monotonic, c.wall, got)
		}
	}
	k := newClock()
	k.last.Store(&exchange.ClockOffset{At: time.Now()})
	if _, ok := k.fresh(time.Now()); !ok {
		t.Error("a measurement of just now is not fresh")
	}
}

func TestManyCallersMeasureOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var samples atomic.Int32
		c := newOffline(t, func(r *http.Request) (*http.Response, error) {
			samples.Add(1)
			time.Sleep(50 * time.Millisecond)
			return timeAnswer(r, time.Now()), nil
		})
		for range 20 {
			go func() {
				if _, err := c.Now(t.Context()); err != nil {
					t.Error(err)
				}
			}()
		}
		time.Sleep(10 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := c.Now(ctx); !fault.Is(err, "exchange_clock_wait") {
			t.Errorf("a caller that gave up got %v", err)
		}
		time.Sleep(time.Minute)
		if samples.Load() != clockSamples {
			t.Errorf("%d samples", samples.Load())
		}
	})
}

func TestTimeAnswersThatCannotBeRead(t *testing.T) {
	for _, body := range []string{ok(`{}`), ok(`{"timestamp":"soon"}`), ok(`[]`), `{"code":0}`} {
		c := newOffline(t, func(*http.Request) (*http.Response, error) { return respond(200, body), nil })
		if _, err := c.Now(t.Context()); !fault.Is(err, "exchange_answer_unreadable") {
			t.Errorf("%s: %v", body, err)
		}
	}
	c := newOffline(t, func(*http.Request) (*http.Response, error) { return respond(502, "<html>"), nil })
	if _, err := c.Sign(t.Context(), order()); !fault.Is(err, "exchange_http_status") {
		t.Errorf("got %v", err)
	}
}
