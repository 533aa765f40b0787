package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"sluice/internal/identity"
)

// warmUp comes before each measurement: connections, plans and caches.
const warmUp = time.Second

// figures is what one measurement found.
type figures struct {
	PerSecond float64       `json:"per_second"`
	P50       time.Duration `json:"p50_ns"`
	P95       time.Duration `json:"p95_ns"`
	P99       time.Duration `json:"p99_ns"`
}

func figuresOf(took []time.Duration, length time.Duration) (figures, error) {
	if len(took) == 0 {
		return figures{}, errors.New("nothing was finished within the time")
	}
	slices.Sort(took)
	at := func(percent int) time.Duration { return took[(len(took)-1)*percent/100] }
	return figures{PerSecond: float64(len(took)) / length.Seconds(), P50: at(50), P95: at(95), P99: at(99)}, nil
}

// measureIntake loads POST /v1/withdrawals with n clients at once, each over one
// kept connection, with a key and a reference of its own for every request.
func measureIntake(ctx context.Context, s *system, n int, length time.Duration) (figures, error) {
	if err := s.ground(ctx); err != nil {
		return figures{}, err
	}
	token, err := identity.SignToken(intakeClient, s.key, []string{identity.ScopeWrite}, time.Now(), identity.MaxTokenLife)
	if err != nil {
		return figures{}, err
	}
	took, done, err := inParallel(ctx, n, length, func() (func() error, func(), error) {
		c, err := dial(ctx, s.address, token)
		if err != nil {
			return nil, nil, err
		}
		return c.post, func() { c.conn.Close() }, nil
	})
	s.accepted += done
	if err != nil {
		select {
		case died := <-s.failed:
			err = errors.Join(err, died)
		default:
		}
		return figures{}, fmt.Errorf("intake with %d clients: %w", n, err)
	}
	return figuresOf(took, length)
}

// inParallel has n clients do the same thing again and again for the warm-up and
// the length, and returns how long each that was finished within the length took, and
// how many were done in all.
func inParallel(ctx context.Context, n int, length time.Duration, open func() (do func() error, end func(), err error)) ([]time.Duration, int64, error) {
	type result struct {
		took []time.Duration
		done int64
		err  error
	}
	results := make([]result, n)
	from := time.Now().Add(warmUp)
	until := from.Add(length)
	var clients sync.WaitGroup
	for i := range results {
		clients.Go(func() {
			r := &results[i]
			do, end, err := open()
			if err != nil {
				r.err = err
				return
			}
			defer end()
			for began := time.Now(); began.Before(until) && ctx.Err() == nil; {
				if r.err = do(); r.err != nil {
					return
				}
				r.done++
				ended := time.Now()
				if ended.After(from) && !ended.After(until) {
					r.took = append(r.took, ended.Sub(began))
				}
				began = ended
			}
		})
	}
	clients.Wait()
	var took []time.Duration
	var done int64
	err := ctx.Err()
	for _, r := range results {
		took, done, err = append(took, r.took...), done+r.done, errors.Join(err, r.err)
	}
	return took, done, err
}

// client is a service that keeps its connection. It writes and reads HTTP/1.1 by
// hand: load and api share the machine, and a general client would cost more than
// some of what is measured.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	head string
	buf  []byte
}

func dial(ctx context.Context, address, token string) (*client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, in: bufio.NewReader(conn), head: "POST /v1/withdrawals HTTP/1.1\r\nHost: " + address +
		"\r\nContent-Type: application/json\r\nAuthorization: Bearer " + token}, nil
}

// post asks for one payout and fails on any answer but 201.
func (c *client) post() error {
	unique := uuid.NewString()
	body := `{"account":"` + account + `","asset":"` + listed.Asset + `","chain":"` + listed.Chain + `","address":"` + listed.Address +
		`","amount":"25.5","reference":"` + unique + `","purpose":"supplier invoice of this month"}`
	c.buf = fmt.Appendf(c.buf[:0], "%s\r\nIdempotency-Key: %s\r\nContent-Length: %d\r\n\r\n%s", c.head, unique, len(body), body)
	if err := c.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := c.conn.Write(c.buf); err != nil {
		return err
	}
	status, err := c.in.ReadString('\n')
	if err != nil {
		return err
	}
	length := 0
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return err
		}
		if line == "\r\n" {
			break
		}
		if value, ok := strings.CutPrefix(line, "Content-Length: "); ok {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return fmt.Errorf("answer: %w", err)
			}
		}
	}
	if !strings.HasPrefix(status, "HTTP/1.1 201 ") {
		problem, _ := io.ReadAll(io.LimitReader(c.in, int64(length)))
		return fmt.Errorf("%s %s", strings.TrimSpace(status), problem)
	}
	_, err = c.in.Discard(length)
	return err
}
