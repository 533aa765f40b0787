// Package e2e holds the tests that run Sluice as its users do: the built program,
// over HTTP, in a browser, and killed without warning.
package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/exchange/sandbox"
	"sluice/internal/identity"
	"sluice/internal/process/dev"
)

// program is the built command line, made once for all tests.
var program string

func TestMain(m *testing.M) {
	os.Exit(build(m))
}

func build(m *testing.M) int {
	folder, err := os.MkdirTemp("", "sluice-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	program = filepath.Join(folder, "sluice")
	out, err := exec.Command("go", "build", "-o", program, "sluice/cmd/sluice").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// stack is one `sluice dev` on a folder of its own, which may be killed and started again.
type stack struct {
	t        *testing.T
	data     string
	api      string // address
	exchange string // address
	command  *exec.Cmd
}

// newStack makes the folder and picks the ports; the ports stay, as passkeys are bound
// to the origin.
func newStack(t *testing.T) *stack {
	t.Helper()
	folder, err := os.MkdirTemp("", "sluice-e2e-data-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o755); err != nil { // Postgres may run as another account
		t.Fatal(err)
	}
	s := &stack{t: t, data: filepath.Join(folder, "data"), api: freePort(t), exchange: freePort(t)}
	t.Cleanup(func() {
		s.stop(syscall.SIGINT)
		os.RemoveAll(folder)
	})
	return s
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs `sluice dev` until it says ready.
func (s *stack) start() {
	s.t.Helper()
	s.command = exec.Command(program, "dev", "--data", s.data, "--listen", s.api, "--sandbox", s.exchange)
	out, err := s.command.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.command.Stderr = s.command.Stdout
	if err := s.command.Start(); err != nil {
		s.t.Fatal(err)
	}
	var said []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		said = append(said, lines.Text())
		if lines.Text() == "ready" {
			go func() {
				for lines.Scan() { // keep the pipe empty
				}
			}()
			return
		}
	}
	s.t.Fatalf("sluice dev ended before it was ready:\n%s", strings.Join(said, "\n"))
}

// stop ends the program by a signal and waits until it is gone.
func (s *stack) stop(how syscall.Signal) {
	if s.command == nil {
		return
	}
	_ = s.command.Process.Signal(how)
	_ = s.command.Wait()
	s.command = nil
}

func (s *stack) origin() string {
	_, port, err := net.SplitHostPort(s.api)
	if err != nil {
		s.t.Fatal(err)
	}
	return "http://localhost:" + port
}

func (s *stack) software() *identity.Software {
	s.t.Helper()
	software, err := identity.OpenSoftware(filepath.Join(s.data, "passkeys.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	return software
}

// service is a visitor with a token from `sluice token`.
func (s *stack) service() *dev.Visitor {
	s.t.Helper()
	return dev.Service(s.origin(), strings.TrimSpace(s.sluice("token", "--client", "payroll", "--data", s.data)))
}

// sluice runs the command line and returns what it prints.
func (s *stack) sluice(args ...string) string {
	s.t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("sluice %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func payout(reference string) map[string]string {
	return map[string]string{"account": "main", "asset": "USDT", "chain": "TRC20", "address": "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8",
		"amount": "25.5", "reference": reference, "purpose": "end to end"}
}

// made is what the tests read of a withdrawal.
type made struct {
	ID     string `json:"id"`
	State  string `json:"state"`
	Reason struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	} `json:"reason"`
}

func (s *stack) request(v *dev.Visitor, reference string) string {
	s.t.Helper()
	status, body, err := v.Send(s.t.Context(), http.MethodPost, "/v1/withdrawals", reference, payout(reference))
	var m made
	if err != nil || status != http.StatusCreated || json.Unmarshal(body, &m) != nil {
		s.t.Fatalf("request: %d %s %v", status, body, err)
	}
	return m.ID
}

func (s *stack) vote(id string, people ...string) {
	s.t.Helper()
	for _, p := range people {
		if _, err := dev.Vote(s.t.Context(), s.origin(), s.software(), p, id, ""); err != nil {
			s.t.Fatalf("vote of %s: %v", p, err)
		}
	}
}

// await waits until the withdrawal is in one of the states.
func (s *stack) await(v *dev.Visitor, id string, states ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	var m made
	for {
		if err := v.Do(ctx, http.MethodGet, "/v1/withdrawals/"+id, nil, &m); err != nil {
			s.t.Fatalf("waiting for %v: %v", states, err)
		}
		for _, state := range states {
			if m.State == state {
				return state
			}
		}
		if m.State == "held" || m.State == "failed" {
			s.t.Fatalf("waiting for %v, it came to %s: %s %s", states, m.State, m.Reason.Code, m.Reason.Detail)
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("it stays %s; want %v", m.State, states)
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// paid reads what the sandbox exchange has made.
func (s *stack) paid() []sandbox.Withdrawal {
	s.t.Helper()
	var state sandbox.State
	if err := dev.Service("http://"+s.exchange, "").Do(s.t.Context(), http.MethodGet, "/_sandbox/state", nil, &state); err != nil {
		s.t.Fatal(err)
	}
	return state.Withdrawals
}
