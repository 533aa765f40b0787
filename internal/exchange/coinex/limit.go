package coinex

import (
	"context"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/time/rate"

	"sluice/internal/fault"
)

// group is one of the exchange's rate limit groups; each has its own quota
// (facts 5). Endpoints that are only limited by IP address have none.
type group int

const (
	modifyAccount group = iota
	queryAccount
	queryHistory
	groups
)

const (
	perSecond     rate.Limit = 5 // half of what the exchange allows each group (facts 5)
	slowPerSecond rate.Limit = 1 // all that is allowed under a long-period limit (facts 5)
)

// bursts: submissions are spaced evenly; a handful of reads may go together,
// which with the refill stays at the 10 that the exchange allows in a second.
var bursts = [groups]int{modifyAccount: 1, queryAccount: 5, queryHistory: 5}

// limits keeps this client below the exchange's limits. Being refused for
// frequency is harmless once, but bad request quality is what makes the
// exchange impose its long-period limits on the whole company.
type limits struct {
	group [groups]*rate.Limiter

	mu   sync.Mutex
	slow bool
}

func newLimits() *limits {
	l := &limits{}
	for g := range l.group {
		l.group[g] = rate.NewLimiter(perSecond, bursts[g])
	}
	return l
}

// wait blocks until a call of the group may go out.
func (l *limits) wait(ctx context.Context, g group) error {
	if err := l.group[g].Wait(ctx); err != nil {
		return fault.New(fault.Unavailable, "exchange_rate_wait",
			"the call gave up waiting for its turn under the exchange's rate limit",
			"wait a moment; if it goes on, another program may be using up the turns").Because(err)
	}
	return nil
}

// heed reads the headers of an answer to a signed request: while a long-period
// limit is announced everything slows down to one call a second. Only an
// ordinary answer without the announcement ends that; an error page from a
// gateway proves nothing.
func (l *limits) heed(status int, h http.Header) {
	slow := false
	for name := range h {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "x-ratelimit-longperiod-") && strings.HasSuffix(name, "-remaining") {
			slow = true
		}
	}
	if !slow && status != http.StatusOK {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if slow == l.slow {
		return
	}
	l.slow = slow
	for g, limiter := range l.group {
		if slow {
			limiter.SetBurst(1)
			limiter.SetLimit(slowPerSecond)
		} else {
			limiter.SetBurst(bursts[g])
			limiter.SetLimit(perSecond)
		}
	}
}
