package coinex

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

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
	queryFutures
	groups
)

var groupNames = [groups]string{
	modifyAccount: "modify spot account",
	queryAccount:  "query spot account",
	queryHistory:  "query spot account history",
	queryFutures:  "query futures account",
}

const (
	perSecond     = 5 // half of what the exchange allows each group (facts 5)
	slowPerSecond = 1 // all that is allowed under a long-period limit (facts 5)

	// nearlyUsed is how little of a quota may be left before we slow down. We
	// go at half the allowed rate, so only another program with the same
	// account can have used the rest.
	nearlyUsed = 2
)

// bursts: submissions are spaced evenly; a handful of reads may go together,
// which with the refill stays at the 10 that the exchange allows in a second.
var bursts = [groups]int{modifyAccount: 1, queryAccount: 5, queryHistory: 5, queryFutures: 5}

// LimitState is what the exchange has said of our rate, and what we make of it.
// Its two kinds of limit are kept apart, because they have different causes and
// cures (facts 5).
type LimitState struct {
	// Short has one entry for each group of endpoints. These quotas refill
	// within a second and belong to this account alone.
	Short []ShortLimit

	// Long is empty unless long-period limits are in force. They are shared by
	// the main account and all of its sub-accounts, and end with their period.
	Long []LongLimit
}

// ShortLimit is the quota of one group of endpoints.
type ShortLimit struct {
	Group string // such as "modify spot account"
	Pace  int    // calls a second that we allow ourselves now

	// Limit, calls a second, and Remaining, calls left, are as the exchange said
	// last, at At. Each is -1 where it has not said.
	Limit, Remaining int64
	At               time.Time

	Refusals  int64     // answers with 213, 4213, 4123 or HTTP 429
	RefusedAt time.Time // the last of them; zero: never
}

// LongLimit is one long-period limit in force.
type LongLimit struct {
	Period    string // such as "1H"
	Remaining int64  // calls left in it; -1 where that cannot be read
	At        time.Time
}

// limits keeps this client below the exchange's limits. Being refused for
// frequency is harmless once, but bad request quality is what makes the
// exchange impose its long-period limits on the whole company.
type limits struct {
	group [groups]*rate.Limiter

	mu    sync.Mutex
	short [groups]ShortLimit
	low   [groups]bool // the quota is nearly used up, or the exchange is out of breath
	long  []LongLimit
}

func newLimits() *limits {
	l := &limits{}
	for g := range l.group {
		l.group[g] = rate.NewLimiter(perSecond, bursts[g])
		l.short[g] = ShortLimit{Group: groupNames[g], Pace: perSecond, Limit: -1, Remaining: -1}
	}
	return l
}

// Limits tells where we stand under the exchange's rate limits.
func (c *Client) Limits() LimitState {
	c.limits.mu.Lock()
	defer c.limits.mu.Unlock()
	return LimitState{Short: slices.Clone(c.limits.short[:]), Long: slices.Clone(c.limits.long)}
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

// heed reads an answer to a signed request of a group; code is 0 where it has
// none. While a long-period limit is announced, everything slows down to one
// call a second; while a quota is nearly used up, or the exchange complains,
// its group does. Only an ordinary answer without the announcement ends a
// long-period limit; an error page from a gateway proves nothing.
func (l *limits) heed(g group, at time.Time, status, code int, h http.Header) {
	ordinary := status == http.StatusOK
	refused := status == http.StatusTooManyRequests || codes[code] == tooOften
	breathless := code == 3008 || codes[code] == down // try again after a second or two, says the exchange

	l.mu.Lock()
	defer l.mu.Unlock()
	if long := longLimits(at, h); len(long) > 0 || ordinary {
		l.long = long
	}
	s := &l.short[g]
	limit, remaining := number(h, "X-RateLimit-Limit"), number(h, "X-RateLimit-Remaining")
	if limit >= 0 || remaining >= 0 {
		s.Limit, s.Remaining, s.At = limit, remaining, at
	}
	if refused {
		s.Refusals++
		s.RefusedAt = at
	}
	if refused || breathless || remaining >= 0 || ordinary {
		l.low[g] = refused || breathless || remaining >= 0 && remaining <= nearlyUsed
	}
	for g := range groups {
		l.apply(g)
	}
}

// apply sets the pace of a group. It needs the lock.
func (l *limits) apply(g group) {
	s := &l.short[g]
	s.Pace = perSecond
	if s.Limit >= 0 {
		s.Pace = int(min(perSecond, max(s.Limit/2, slowPerSecond)))
	}
	if l.low[g] || len(l.long) > 0 {
		s.Pace = slowPerSecond
	}
	burst := min(bursts[g], s.Pace)
	if l.group[g].Limit() != rate.Limit(s.Pace) || l.group[g].Burst() != burst {
		l.group[g].SetBurst(burst)
		l.group[g].SetLimit(rate.Limit(s.Pace))
	}
}

// longLimits reads the headers X-RateLimit-LongPeriod-{period}-Remaining,
// which are there only while such a limit is in force.
func longLimits(at time.Time, h http.Header) []LongLimit {
	var out []LongLimit
	for name := range h {
		period, ok := strings.CutPrefix(strings.ToLower(name), "x-ratelimit-longperiod-")
		period, whole := strings.CutSuffix(period, "-remaining")
		if ok && whole {
			out = append(out, LongLimit{Period: strings.ToUpper(period), Remaining: number(h, name), At: at})
		}
	}
	slices.SortFunc(out, func(a, b LongLimit) int { return cmp.Compare(a.Period, b.Period) })
	return out
}

// number reads a header that holds a whole number, in whatever case its name
// came; -1 where it is missing or something else.
func number(h http.Header, name string) int64 {
	for have, values := range h {
		if strings.EqualFold(have, name) && len(values) > 0 {
			if n, err := strconv.ParseInt(strings.TrimSpace(values[0]), 10, 64); err == nil && n >= 0 {
				return n
			}
		}
	}
	return -1
}
