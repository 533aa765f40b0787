package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
)

// TestTheStory is the issue's own: dev to ready, a POST with a token, two votes,
// completed, one withdrawal at the exchange, and a receipt that verifies with the
// server gone.
func TestTheStory(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.start()
	v := s.service()
	id := s.request(v, "story-1")
	if out := s.sluice("vote", id, "--as", "alice", "--data", s.data); !strings.Contains(out, "1 more needed") {
		t.Errorf("the first vote said %q", out)
	}
	s.sluice("vote", id, "--as", "bob", "--data", s.data)
	s.await(v, id, "completed")
	if paid := s.paid(); len(paid) != 1 || !paid[0].Net.Equal(decimal.RequireFromString("25.5")) {
		t.Fatalf("the exchange made %+v", paid)
	}
	file := filepath.Join(t.TempDir(), "receipt.json")
	s.export(id, file)
	s.sluice("audit", "verify", "--data", s.data)

	s.stop(syscall.SIGINT)
	if out := s.sluice("receipt", "verify", file, "--data", s.data); !strings.Contains(out, "holds; the withdrawal is completed") {
		t.Errorf("offline: %s", out)
	}

	s.start() // a second start on the same data
	s.await(v, id, "completed")
	again := s.request(v, "story-2")
	s.vote(again, "carol", "alice")
	s.await(v, again, "completed")
}

// export writes the receipt, waiting until the record's checkpoint has come by.
func (s *stack) export(id, file string) {
	s.t.Helper()
	for {
		out, err := exec.CommandContext(s.t.Context(), program, "receipt", "export", id, "-o", file, "--data", s.data).CombinedOutput()
		if err == nil {
			return
		}
		if !bytes.Contains(out, []byte("checkpoint")) {
			s.t.Fatalf("export: %s", out)
		}
	}
}

// TestKillNine kills everything, Postgres and the exchange included, at moments spread
// over the story, and starts it again. Each payout must come to exactly one
// withdrawal; where nothing had been sent, people are asked again.
func TestKillNine(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.start()
	v := s.service()
	moments := []time.Duration{0, 3, 6, 10, 15, 20, 30, 45, 70, 120, 300, 900}
	for i, after := range moments {
		id := s.request(v, fmt.Sprintf("kill-%d", i))
		s.vote(id, "alice", "bob")
		// The moment is the fault being injected, not a wait for something.
		<-time.After(after * time.Millisecond)
		s.stop(syscall.SIGKILL)
		s.start()
		end := s.await(v, id, "completed", "absent")
		t.Logf("killed %d ms after the last vote: %s", after, end)
		if end == "absent" {
			s.vote(id, "bob", "carol")
			s.await(v, id, "completed")
		}
		if paid := len(s.paid()); paid != i+1 {
			t.Fatalf("after %d payouts the exchange made %d withdrawals", i+1, paid)
		}
	}
}

// TestTwoHundredAtOnce sends one request 200 times at once.
func TestTwoHundredAtOnce(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.start()
	v := s.service()
	key, body := uuid.NewString(), payout("once")
	answers := make([][]byte, 200)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			status, b, err := v.Send(t.Context(), http.MethodPost, "/v1/withdrawals", key, body)
			switch {
			case err != nil:
				t.Error(err)
			case status == http.StatusCreated:
				answers[i] = b
			case status != http.StatusConflict: // still in flight
				t.Errorf("answered %d %s", status, b)
			}
		})
	}
	all.Wait()
	var first []byte
	for _, b := range answers {
		if first == nil {
			first = b
		}
		if b != nil && !bytes.Equal(b, first) {
			t.Fatalf("two answers to one request:\n%s\n%s", first, b)
		}
	}
	if first == nil {
		t.Fatal("nobody was answered")
	}
	var list struct {
		Withdrawals []made `json:"withdrawals"`
	}
	if err := v.Do(t.Context(), http.MethodGet, "/v1/withdrawals?reference=once", nil, &list); err != nil || len(list.Withdrawals) != 1 {
		t.Fatalf("%d withdrawals: %v", len(list.Withdrawals), err)
	}
}

// TestASentenceForEachMistake: what a newcomer can do wrong has one clear sentence.
func TestASentenceForEachMistake(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.start()
	for what, c := range map[string]struct {
		args []string
		want string
	}{
		"the port in use":     {[]string{"dev", "--data", filepath.Join(t.TempDir(), "other"), "--listen", s.api}, "is in use"},
		"the data in use":     {[]string{"dev", "--data", s.data, "--listen", "127.0.0.1:0", "--sandbox", "127.0.0.1:0"}, "is using the data folder"},
		"no such client":      {[]string{"token", "--client", "nobody", "--data", s.data}, "`payroll`"},
		"no stack":            {[]string{"token", "--client", "payroll", "--data", t.TempDir()}, "go run ./cmd/sluice dev"},
		"a malformed id":      {[]string{"vote", "7", "--as", "alice", "--data", s.data}, "not the id of a withdrawal"},
		"an unknown id":       {[]string{"vote", uuid.NewString(), "--as", "alice", "--data", s.data}, "there is no withdrawal"},
		"somebody who is not": {[]string{"vote", uuid.NewString(), "--as", "mallory", "--data", s.data}, "mallory"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			out, err := exec.CommandContext(t.Context(), program, c.args...).CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v: %s", err, out)
			}
			if n := len(strings.Split(strings.TrimSpace(string(out)), "\n")); n > 3 {
				t.Errorf("%d lines where one sentence was wanted:\n%s", n, out)
			}
		})
	}
}
