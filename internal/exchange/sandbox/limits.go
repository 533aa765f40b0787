package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"sluice/internal/fault"
)

// The limits of facts 5: each account has one bucket per group of endpoints.
// The capacity is what a live trace of 2023 suggests.
const (
	ratePerSecond  = 10
	bucketCapacity = 20
	slowRate       = 1 // a second, for everything, under a long-period limit
)

type bucket struct{ account, group string }

// slowGroup is the one bucket that all groups share under a long-period limit.
const slowGroup = "long period"

// LongPeriod is a long-period limit in force (facts 5). It is one for the main
// account and all sub-accounts.
type LongPeriod struct {
	Period    string    `json:"period"`    // 1H, 4H, 8H or 24H
	Remaining int       `json:"remaining"` // signed requests until it ends
	Ends      time.Time `json:"ends"`      // on the exchange's clock, at a whole hour
}

// longPeriods are the cycles that CoinEx has; in UTC they begin at whole hours.
var longPeriods = map[string]time.Duration{"1H": time.Hour, "4H": 4 * time.Hour, "8H": 8 * time.Hour, "24H": 24 * time.Hour}

// SetLongPeriod puts a long-period limit into force until the running period,
// "1H", "4H", "8H" or "24H", ends. Meanwhile signed answers carry its header
// and one request a second is served, at most as many as remain.
func (s *Sandbox) SetLongPeriod(period string, remaining int) error {
	length, known := longPeriods[period]
	if !known || remaining < 0 {
		return fault.New(fault.Invalid, "sandbox_limit_malformed", "a long-period limit has a period and what remains of it",
			`send {"long_period":"1H","remaining":500}; the periods are 1H, 4H, 8H and 24H`)
	}
	return s.do(func(now time.Time) error {
		s.state.LongPeriods = slices.DeleteFunc(s.state.LongPeriods, func(l LongPeriod) bool { return l.Period == period })
		s.state.LongPeriods = append(s.state.LongPeriods, LongPeriod{period, remaining, now.Truncate(length).Add(length)})
		s.dirty = true
		return nil
	})
}

// ClearLongPeriods lifts the long-period limits.
func (s *Sandbox) ClearLongPeriods() error {
	return s.do(func(time.Time) error {
		s.state.LongPeriods = nil
		s.dirty = true
		return nil
	})
}

// quota is what the rate-limit headers of one answer say.
type quota struct {
	limit, left int
	long        []LongPeriod
}

func (q *quota) show(h http.Header) {
	h.Set("X-RateLimit-Limit", strconv.Itoa(q.limit))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(q.left))
	for _, l := range q.long {
		h.Set(fmt.Sprintf("X-RateLimit-LongPeriod-%s-Remaining", l.Period), strconv.Itoa(l.Remaining))
	}
}

// empty is the quota with nothing left.
func (q *quota) empty() *quota {
	if q == nil {
		return &quota{limit: ratePerSecond}
	}
	return &quota{limit: q.limit, long: q.long}
}

// spend takes one request from the account's quota for the group. It returns
// what the headers show, nil for nothing, and whether the request is served.
func (s *Sandbox) spend(a *account, group string, now time.Time) (q *quota, ok bool) {
	ended := func(l LongPeriod) bool { return !now.Before(l.Ends) }
	if slices.ContainsFunc(s.state.LongPeriods, ended) {
		s.state.LongPeriods = slices.DeleteFunc(s.state.LongPeriods, ended)
		s.dirty = true
	}
	switch {
	case len(s.state.LongPeriods) > 0:
		q, ok = s.draw(bucket{a.Name, slowGroup}, slowRate, slowRate, now)
		for _, l := range s.state.LongPeriods {
			ok = ok && l.Remaining > 0
		}
		if ok {
			for i := range s.state.LongPeriods {
				s.state.LongPeriods[i].Remaining--
			}
			s.dirty = true
		}
		q.long = slices.Clone(s.state.LongPeriods)
		return q, ok
	case s.options.NoRateLimit:
		return nil, true
	default:
		return s.draw(bucket{a.Name, group}, ratePerSecond, bucketCapacity, now)
	}
}

// draw takes one token out of a bucket.
func (s *Sandbox) draw(b bucket, perSecond, capacity int, now time.Time) (*quota, bool) {
	l := s.limiters[b]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(perSecond), capacity)
		s.limiters[b] = l
	}
	ok := l.AllowN(now, 1)
	return &quota{limit: perSecond, left: int(l.TokensAt(now))}, ok
}
