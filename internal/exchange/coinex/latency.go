package coinex

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Latency is how long the exchange took to answer lately: from a request going
// out to the head of its answer coming in. Only reads count, which travel over
// connections that are kept open.
type Latency struct {
	Last, Median time.Duration
	Samples      int       // behind the median, at most 101; 0: nothing measured yet
	At           time.Time // of the last
}

// Advice says what the median means for where Sluice runs, or "" where there
// is no measurement yet.
func (l Latency) Advice() string {
	const place = "The exchange runs in AWS Tokyo (ap-northeast-1a, 1c and 1d). "
	took := fmt.Sprintf("An answer takes %v. ", l.Median.Round(time.Millisecond))
	switch {
	case l.Samples == 0:
		return ""
	case l.Median <= 50*time.Millisecond:
		return took + "That is as near to the exchange as it gets."
	case l.Median <= 500*time.Millisecond:
		return took + place + "Running Sluice there would be faster; for withdrawals, which take minutes, it makes no difference that anyone would notice."
	}
	return took + "That is slow enough to eat into the window in which the exchange takes a signed request. " + place +
		"Check the connection, or run Sluice in a region near there."
}

// Latency tells how long the exchange took to answer lately.
func (c *Client) Latency() Latency {
	c.trips.mu.Lock()
	defer c.trips.mu.Unlock()
	n := min(c.trips.count, len(c.trips.ring))
	if n == 0 {
		return Latency{}
	}
	last := (c.trips.count - 1) % len(c.trips.ring)
	sorted := slices.Sorted(slices.Values(c.trips.ring[:n]))
	return Latency{Last: c.trips.ring[last], Median: sorted[n/2], Samples: n, At: c.trips.at}
}

// tripLog keeps the last round trips.
type tripLog struct {
	mu    sync.Mutex
	ring  [101]time.Duration
	count int // ever
	at    time.Time
}

func (t *tripLog) add(sent time.Time, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ring[t.count%len(t.ring)] = took
	t.count++
	t.at = sent.Add(took)
}
