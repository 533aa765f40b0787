package coinex

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"sluice/internal/exchange"
	"sluice/internal/fault"
)

const (
	clockSamples = 5
	clockAge     = 5 * time.Minute

	// maxOffset is where we stop correcting and ask for help. The exchange
	// refuses a minute; a machine that is half a minute off also writes wrong
	// times into the record.
	maxOffset = 30 * time.Second

	// maxStep is how far wall clock and monotonic clock may drift apart before
	// a measurement is void: someone set the clock, or the machine slept.
	maxStep = 500 * time.Millisecond
)

// clock remembers how far the exchange's clock is ahead of ours.
type clock struct {
	last atomic.Pointer[exchange.ClockOffset] // nil: never measured, or no longer believed

	// turn is held by the one that measures. A channel, not a mutex, so that
	// whoever waits for it still obeys its context.
	turn chan struct{}
}

func newClock() *clock { return &clock{turn: make(chan struct{}, 1)} }

// fresh returns the last measurement if it may still be used.
func (k *clock) fresh(now time.Time) (exchange.ClockOffset, bool) {
	last := k.last.Load()
	if last == nil {
		return exchange.ClockOffset{}, false
	}
	monotonic, wall := now.Sub(last.At), now.Round(0).Sub(last.At.Round(0))
	return *last, young(monotonic, wall)
}

// young tells whether a measurement of this age, by both of our clocks, may
// still be used. The monotonic clock neither steps nor runs while the machine
// sleeps, so the two part where the measurement no longer holds.
func young(monotonic, wall time.Duration) bool {
	return monotonic >= 0 && monotonic <= clockAge && (wall-monotonic).Abs() <= maxStep
}

// forget makes the next signature measure again. It follows an answer that says
// that our timestamp was out of bounds.
func (k *clock) forget() { k.last.Store(nil) }

// Now is the time on the exchange's clock. It measures first when there is no
// measurement, when the last one is older than five minutes, or when our own
// clock was set since. Errors: as MeasureClock.
func (c *Client) Now(ctx context.Context) (time.Time, error) {
	if offset, ok := c.clock.fresh(c.now()); ok {
		return c.now().Add(offset.Offset), nil
	}
	if err := c.clock.hold(ctx); err != nil {
		return time.Time{}, err
	}
	defer c.clock.release()
	offset, ok := c.clock.fresh(c.now()) // another caller may have measured while we waited
	if !ok {
		var err error
		if offset, err = c.measure(ctx); err != nil {
			return time.Time{}, err
		}
	}
	return c.now().Add(offset.Offset), nil
}

// MeasureClock asks the exchange for the time (GET /time, facts 4.5) several
// times. Offset is the median, which one slow answer does not move. Error
// bounds it: half the round trip of the fastest sample, within which the truth
// must lie, plus the distance between that sample and the median, plus the
// millisecond to which the exchange rounds.
//
// Errors: fault.Unavailable where the exchange does not answer or, with code
// "exchange_clock_skewed", where our clock is more than 30 s off; the
// measurement is returned with the latter.
func (c *Client) MeasureClock(ctx context.Context) (exchange.ClockOffset, error) {
	if err := c.clock.hold(ctx); err != nil {
		return exchange.ClockOffset{}, err
	}
	defer c.clock.release()
	return c.measure(ctx)
}

func (k *clock) hold(ctx context.Context) error {
	select {
	case k.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fault.New(fault.Unavailable, "exchange_clock_wait",
			"the call gave up waiting for the exchange's clock to be measured", "try again").Because(ctx.Err())
	}
}

func (k *clock) release() { <-k.turn }

// measure needs the clock's turn.
func (c *Client) measure(ctx context.Context) (exchange.ClockOffset, error) {
	type sample struct{ offset, trip time.Duration }
	samples := make([]sample, clockSamples)
	for i := range samples {
		sent := c.now()
		theirs, err := c.exchangeTime(ctx)
		if err != nil {
			return exchange.ClockOffset{}, err
		}
		trip := c.now().Sub(sent)
		samples[i] = sample{theirs.Sub(sent.Add(trip / 2)), trip}
	}
	best := slices.MinFunc(samples, func(a, b sample) int { return cmp.Compare(a.trip, b.trip) })
	slices.SortFunc(samples, func(a, b sample) int { return cmp.Compare(a.offset, b.offset) })
	median := samples[clockSamples/2].offset

	offset := exchange.ClockOffset{
		Offset: median,
		Error:  best.trip/2 + (median - best.offset).Abs() + time.Millisecond,
		At:     c.now(),
	}
	if median.Abs() > maxOffset {
		c.clock.forget()
		way := "behind"
		if median < 0 {
			way = "ahead of"
		}
		return offset, fault.New(fault.Unavailable, "exchange_clock_skewed",
			fmt.Sprintf("our clock is %v %s the exchange's; nothing is signed with a clock that far off", median.Abs().Round(time.Millisecond), way),
			"turn on time synchronisation on this machine")
	}
	c.clock.last.Store(&offset)
	return offset, nil
}

func (c *Client) exchangeTime(ctx context.Context) (time.Time, error) {
	env, _, err := c.get(ctx, "/v2/time")
	if err != nil {
		return time.Time{}, err
	}
	data, err := decodeObject(env.data)
	if err != nil {
		return time.Time{}, unreadable(err)
	}
	at, err := data.millis("timestamp")
	if err != nil {
		return time.Time{}, unreadable(err)
	}
	if at.IsZero() {
		return time.Time{}, unreadable(errors.New("the time answer holds no timestamp"))
	}
	return at, nil
}
