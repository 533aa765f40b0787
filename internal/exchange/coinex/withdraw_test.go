package coinex

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/exchange"
)

func sign(t *testing.T, c *Client, o exchange.Order) exchange.Signed {
	t.Helper()
	s, err := c.Sign(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// measuredNow spares a test the clock measurement.
func measuredNow(c *Client) *Client {
	c.clock.last.Store(&exchange.ClockOffset{At: c.now()})
	return c
}

func TestWithdrawSendsTheSignedBytesOnce(t *testing.T) {
	s := newStub(t, says(ok(toJSON(echoOf(nil)))))
	c := s.client()
	signed := sign(t, c, order())
	want := map[string]string{"Content-Type": "application/json"}
	for name, value := range signed.Header {
		want[name] = value
	}

	out := c.Withdraw(t.Context(), order(), signed)
	if out.Class != exchange.Accepted || out.Withdrawal.ID != 31200001 {
		t.Fatalf("got %+v", out)
	}
	got := s.requests()
	if len(got) != 1 {
		t.Fatalf("%d requests", len(got))
	}
	r := got[0]
	if r.method != "POST" || r.target != "/v2/assets/withdraw" || r.body != string(signed.Body) || r.body != vectorBody {
		t.Errorf("sent %s %s %s", r.method, r.target, r.body)
	}
	for name, value := range want {
		if r.header.Get(name) != value {
			t.Errorf("%s: sent %q, want %q", name, r.header.Get(name), value)
		}
	}
	if !r.fresh {
		t.Error("the submission used a connection that was open before")
	}
}

func TestASignedOrderCannotBeSentTwice(t *testing.T) {
	s := newStub(t, says(ok(toJSON(echoOf(nil)))))
	c := s.client()
	signed := sign(t, c, order())
	twin := signed

	outcomes := make(chan exchange.Outcome, 8)
	for range cap(outcomes) {
		go func() { outcomes <- c.Withdraw(t.Context(), order(), twin) }()
	}
	accepted := 0
	for range cap(outcomes) {
		switch out := <-outcomes; out.Class {
		case exchange.Accepted:
			accepted++
		case exchange.NotAccepted:
			// It may be the one that was sent: saying no here would have it paid again.
			t.Errorf("a used request is called not accepted: %s", out.Reason)
		}
	}
	if n := len(s.requests()); accepted != 1 || n != 1 {
		t.Errorf("%d accepted, %d sent", accepted, n)
	}
}

func TestNothingIsSentThatIsNotTheOrder(t *testing.T) {
	s := newStub(t, says(ok(toJSON(echoOf(nil)))))
	c := s.client()
	other := order()
	other.Address = "TJRabPrwbZy45sbavfcjinPJC18kjpRTv9"
	out := c.Withdraw(t.Context(), other, sign(t, c, order()))
	if out.Class != exchange.NotAccepted || out.Next != exchange.Hold || !strings.HasPrefix(out.Reason, "Alarm:") {
		t.Errorf("got %+v", out)
	}
	if len(s.requests()) != 0 {
		t.Error("it was sent")
	}
}

func TestADeadContextSendsNothing(t *testing.T) {
	s := newStub(t, says(ok(toJSON(echoOf(nil)))))
	c := s.client()
	signed := sign(t, c, order())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := c.Withdraw(ctx, order(), signed)
	if out.Class != exchange.NotAccepted || out.Next != exchange.Retry || len(s.requests()) != 0 {
		t.Errorf("got %+v after %d requests", out, len(s.requests()))
	}
}

func TestARequestWhoseWindowIsOverIsNotSent(t *testing.T) {
	s := newStub(t, says(ok(toJSON(echoOf(nil)))))
	now := time.UnixMilli(testMillis)
	s.now = func() time.Time { return now }
	c := s.client(func(cfg *Config) { cfg.Now = s.now })
	signed := sign(t, c, order())
	now = now.Add(5*time.Second + time.Millisecond)
	out := c.Withdraw(t.Context(), order(), signed)
	if out.Class != exchange.NotAccepted || out.Next != exchange.Retry || len(s.requests()) != 0 {
		t.Errorf("got %+v after %d requests", out, len(s.requests()))
	}
}

func TestFailuresBeforeTheBodyLeavesAreNotAccepted(t *testing.T) {
	check := func(t *testing.T, c *Client) {
		t.Helper()
		measuredNow(c)
		out := c.Withdraw(t.Context(), order(), sign(t, c, order()))
		if out.Class != exchange.NotAccepted || out.Next != exchange.Retry || out.HTTPStatus != 0 || out.Message == "" {
			t.Errorf("got %+v", out)
		}
	}
	t.Run("connection refused", func(t *testing.T) {
		s := newStub(t, nil)
		s.Close()
		check(t, s.client())
	})
	t.Run("certificate not trusted", func(t *testing.T) {
		s := newStub(t, says(ok(toJSON(echoOf(nil)))))
		s.Close()
		s.StartTLSAgain()
		check(t, s.client())
		if len(s.requests()) != 0 {
			t.Error("it was sent")
		}
	})
	t.Run("the transport gives up and reads later", func(t *testing.T) {
		var body io.Reader
		c := newStub(t, nil).client(func(cfg *Config) {
			cfg.Transport = tripper(func(r *http.Request) (*http.Response, error) {
				body = r.Body
				return nil, errors.New("gave up")
			})
		})
		check(t, c)
		if got, err := io.ReadAll(body); err == nil || len(got) > 0 {
			t.Errorf("after the outcome the body was still given out: %q", got)
		}
	})
}

// StartTLSAgain replaces the server by one with a certificate that nobody signed.
func (s *stub) StartTLSAgain() {
	fresh := newTLSServer(s)
	s.t.Cleanup(fresh.Close)
	s.URL = fresh.URL
}

func TestFailuresAfterTheBodyLeftAreUnknown(t *testing.T) {
	drop := func(w http.ResponseWriter) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_ = conn.Close()
	}
	for name, answer := range map[string]func(http.ResponseWriter, seen){
		"dropped": func(w http.ResponseWriter, _ seen) { drop(w) },
		"cut off": func(w http.ResponseWriter, _ seen) {
			w.Header().Set("Content-Length", "400")
			_, _ = io.WriteString(w, ok(toJSON(echoOf(nil)))[:200])
		},
		"too large": func(w http.ResponseWriter, _ seen) {
			_, _ = io.WriteString(w, coded(3109)+strings.Repeat(" ", maxAnswer))
		},
		"redirected": func(w http.ResponseWriter, _ seen) {
			w.Header().Set("Location", "/v2/assets/withdraw")
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
		"bad gateway": func(w http.ResponseWriter, _ seen) { w.WriteHeader(http.StatusBadGateway) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t, answer)
			c := s.client()
			out := c.Withdraw(t.Context(), order(), sign(t, c, order()))
			if out.Class != exchange.Unknown || out.Next != "" || out.Reason == "" {
				t.Errorf("got %+v", out)
			}
			if n := len(s.requests()); n != 1 {
				t.Errorf("sent %d times", n)
			}
			if len(out.Response) > maxAnswer {
				t.Errorf("%d bytes kept", len(out.Response))
			}
		})
	}

	// Go's own transport repeats requests on a kept connection that dies. With
	// a transport from outside, which keeps them, ours must not be repeated.
	t.Run("a kept connection dies", func(t *testing.T) {
		s := newStub(t, func(w http.ResponseWriter, _ seen) { drop(w) })
		kept := &http.Transport{}
		t.Cleanup(kept.CloseIdleConnections)
		c := s.client(func(cfg *Config) { cfg.Transport = kept })
		out := c.Withdraw(t.Context(), order(), sign(t, c, order())) // on the connection that measured the clock
		if n := len(s.requests()); out.Class != exchange.Unknown || n != 1 {
			t.Errorf("sent %d times, got %+v", n, out)
		}
	})
	t.Run("one byte was read", func(t *testing.T) {
		var sent atomic.Int32
		c := measuredNow(newStub(t, nil).client(func(cfg *Config) {
			cfg.Transport = tripper(func(r *http.Request) (*http.Response, error) {
				sent.Add(1)
				if r.GetBody != nil {
					t.Error("the body can be had a second time")
				}
				_, _ = r.Body.Read(make([]byte, 1))
				return nil, errors.New("dial tcp: connection refused")
			})
		}))
		out := c.Withdraw(t.Context(), order(), sign(t, c, order()))
		if out.Class != exchange.Unknown || sent.Load() != 1 {
			t.Errorf("sent %d times, got %+v", sent.Load(), out)
		}
	})
}

func TestASilentExchangeIsGivenUpAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := measuredNow(newOffline(t, func(r *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return nil, r.Context().Err()
		}))
		signed := sign(t, c, order())
		start := time.Now()
		out := c.Withdraw(t.Context(), order(), signed)
		if out.Class != exchange.Unknown || time.Since(start) != defaultTimeout {
			t.Errorf("after %v: %+v", time.Since(start), out)
		}
	})
}

// newOffline makes a client with a transport of the test's and nothing else.
func newOffline(t *testing.T, f tripper) *Client {
	t.Helper()
	c, err := New(Config{BaseURL: "https://api.coinex.com", AccessID: testID, SecretKey: testSecret, Transport: f})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAnAnswerAboutOurClockMakesTheNextSignatureMeasure(t *testing.T) {
	for _, code := range []int{4010, 4017, 227, 3109} {
		s := newStub(t, says(coded(code)))
		c := s.client()
		c.Withdraw(t.Context(), order(), sign(t, c, order()))
		before := s.measured()
		sign(t, c, order())
		if again := s.measured() > before; again != (code != 3109) {
			t.Errorf("code %d: measured again: %v", code, again)
		}
	}
}

func TestKeysAreTakenOutOfAnswers(t *testing.T) {
	s := newStub(t, says(`{"code":4005,"data":{},"message":"access_id `+testID+` of `+testSecret+` not exist"}`))
	c := s.client()
	out := c.Withdraw(t.Context(), order(), sign(t, c, order()))
	if out.Code != 4005 {
		t.Fatalf("got %+v", out)
	}
	mustNotLeak(t, out.Message+out.Reason+out.Fix+string(out.Response))
	_, err := c.Balances(t.Context())
	mustNotLeak(t, err.Error())
}

func mustNotLeak(t *testing.T, s string) {
	t.Helper()
	if strings.Contains(s, testID) || strings.Contains(s, testSecret) {
		t.Errorf("a key shows up in %s", s)
	}
}
