package worker_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/exchange/coinex"
	"sluice/internal/exchange/sandbox"
	"sluice/internal/identity"
	"sluice/internal/pgstore"
	"sluice/internal/process/dev"
	"sluice/internal/process/worker"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

const (
	vault  = "vault" // an account of its own, so that the dev stack's worker stays out of the way
	listed = "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8"
)

// Keys as long as real ones.
var (
	oldKey   = sandbox.Key{AccessID: "OLD70819203A4B5C6D7E8F9012345678", SecretKey: "OLDD2D3E4F5061728394A5B6C7D8E9F00112233445566778899"}
	newKey   = sandbox.Key{AccessID: "NEW70819203A4B5C6D7E8F9012345678", SecretKey: "NEWD2D3E4F5061728394A5B6C7D8E9F00112233445566778899"}
	otherKey = sandbox.Key{AccessID: "OTH70819203A4B5C6D7E8F9012345678", SecretKey: "OTHD2D3E4F5061728394A5B6C7D8E9F00112233445566778899"}
)

// log is what a worker wrote.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// house is a whole Sluice with one more account, whose worker the test starts.
type house struct {
	t       *testing.T
	stack   *dev.Stack
	env     map[string]string
	files   string
	log     *log
	metrics string // address
	service *dev.Visitor
}

func newHouse(t *testing.T) *house {
	t.Helper()
	folder, err := os.MkdirTemp("", "sluice-worker-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	h := &house{t: t, files: t.TempDir(), log: &log{}}
	h.must(os.Chmod(folder, 0o755)) // Postgres may run as another account
	h.stack, err = dev.Start(t.Context(), dev.Options{Data: filepath.Join(folder, "data"), Listen: "127.0.0.1:0", Sandbox: "127.0.0.1:0",
		Pace: sandbox.Pace{AuditRequired: time.Millisecond, Audited: time.Millisecond, Processing: time.Millisecond, Confirming: time.Millisecond},
		Log:  slog.New(slog.DiscardHandler)})
	t.Cleanup(h.stack.Stop)
	h.must(err)

	now := time.Now()
	h.must(h.stack.Owner.AddAccount(t.Context(), vault, "operator:test", now))
	_, err = h.stack.Owner.AddDestination(t.Context(), whitelist.Key{Account: vault, Method: exchange.OnChain, Asset: "USDT", Chain: "TRC20", Address: listed}, "Payroll", "operator:test", now)
	h.must(err)
	public, private, err := ed25519.GenerateKey(nil)
	h.must(err)
	h.must(h.stack.Owner.AddClient(t.Context(), identity.Client{Name: "robot", PublicKey: public, Accounts: []string{vault},
		Scopes: []string{identity.ScopeWrite, identity.ScopeRead}}, "operator:test", now))
	token, err := identity.SignToken("robot", private, []string{identity.ScopeWrite, identity.ScopeRead}, now, time.Hour)
	h.must(err)
	h.service = dev.Service(h.stack.Origin, token)

	for _, k := range []sandbox.Key{oldKey, newKey} {
		h.must(h.stack.Sandbox.AddKey(vault, k))
	}
	h.must(h.stack.Sandbox.AddKey("other", otherKey))
	h.must(h.stack.Sandbox.SetBalance(vault, "USDT", "100000"))
	h.must(h.stack.Sandbox.AddWhitelist(vault, sandbox.Entry{Asset: "USDT", Chain: "TRC20", Address: listed}))

	wired, err := h.stack.WorkerConfig()
	h.must(err)
	h.env = map[string]string{
		"SLUICE_DATABASE_URL": string(wired.DatabaseURL), "SLUICE_PUBLIC_URL": h.stack.Origin, "SLUICE_ACCOUNT": vault,
		"SLUICE_COINEX_URL": h.stack.Exchange, "SLUICE_CHECKPOINT_KEY": string(wired.CheckpointKey),
		"SLUICE_REFRESH": "500ms", "SLUICE_SWEEP": "100ms", "SLUICE_QUIET_PERIOD": "1s",
		"SLUICE_COINEX_KEY_IP_BOUND": "no",
	}
	for _, name := range []string{"ACCESS_ID", "SECRET_KEY", "NEXT_ACCESS_ID", "NEXT_SECRET_KEY", "KEY_CREATED"} {
		h.env["SLUICE_COINEX_"+name+"_FILE"] = filepath.Join(h.files, name)
	}
	h.setKey("", oldKey)
	h.setKey("NEXT_", oldKey) // the same as the present one: there is none to follow
	h.set("KEY_CREATED", now.AddDate(0, 0, -80).Format(time.DateOnly))
	return h
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// set writes a setting's file, whole at once.
func (h *house) set(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.files, name)
	h.must(os.WriteFile(path+".new", []byte(text+"\n"), 0o600))
	h.must(os.Rename(path+".new", path))
}

func (h *house) setKey(which string, k sandbox.Key) {
	h.t.Helper()
	h.set(which+"ACCESS_ID", k.AccessID)
	h.set(which+"SECRET_KEY", k.SecretKey)
}

// run starts the worker, and stops it at the end of the test.
func (h *house) run() {
	h.t.Helper()
	c, err := worker.ReadConfig(func(name string) string { return h.env[name] })
	h.must(err)
	c.Relying = h.stack.Relying
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	h.metrics = "http://" + listener.Addr().String() + "/metrics"
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- worker.Run(ctx, c, worker.Options{Listener: listener, Now: time.Now, Log: slog.New(slog.NewTextHandler(h.log, nil))})
	}()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("the worker ended with %v", err)
		}
	})
}

// until waits for something to become so.
func (h *house) until(what string, so func() bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	for !so() {
		select {
		case <-ctx.Done():
			h.t.Fatalf("waited in vain for %s; the worker's log:\n%s", what, h.log)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// finding reads how a check of the account stands; Unchecked where there is none.
func (h *house) finding(check string) pgstore.Finding {
	h.t.Helper()
	list, err := h.stack.Owner.Findings(h.t.Context())
	h.must(err)
	for _, f := range list {
		if f.Account == vault && f.Check == check {
			return f
		}
	}
	return pgstore.Finding{Finding: exchange.Finding{Standing: exchange.Unchecked}}
}

// pay asks for a payout, has it approved, and returns its id.
func (h *house) pay(ctx context.Context, reference string) (uuid.UUID, error) {
	var made struct {
		ID string `json:"id"`
	}
	status, body, err := h.service.Send(ctx, http.MethodPost, "/v1/withdrawals", reference, map[string]string{"account": vault, "asset": "USDT",
		"chain": "TRC20", "address": listed, "amount": "10", "reference": reference, "purpose": "test"})
	if err != nil || status != http.StatusCreated {
		return uuid.Nil, fmt.Errorf("asked: %d %s %w", status, body, err)
	}
	if err := json.Unmarshal(body, &made); err != nil {
		return uuid.Nil, err
	}
	for _, person := range []string{"alice", "bob"} {
		if _, err := dev.Vote(ctx, h.stack.Origin, h.stack.Software, person, made.ID, ""); err != nil {
			return uuid.Nil, err
		}
	}
	return uuid.Parse(made.ID)
}

func (h *house) completed(id uuid.UUID) bool {
	h.t.Helper()
	w, err := h.stack.Owner.Withdrawal(h.t.Context(), id)
	h.must(err)
	return w.State == withdraw.Completed
}

// Keys are changed while payouts go on, and nobody notices.
func TestChangingTheKeyLeavesNoGap(t *testing.T) {
	h := newHouse(t)
	h.run()
	h.until("the first look", func() bool { return h.finding("key").Standing == exchange.Well })
	if f := h.finding("key_life"); f.Cause != "key_expires_soon" || !strings.Contains(f.Says, "days") {
		t.Errorf("a key of 80 days: %+v", f)
	}
	if page := h.scrape(); !strings.Contains(page, `sluice_key_days_to_expiry{account="vault"} 9.`) ||
		!strings.Contains(page, `sluice_exchange_clock_offset_seconds{account="vault"}`) || !strings.Contains(page, `sluice_exchange_roundtrip_seconds{account="vault"}`) ||
		!strings.Contains(page, `sluice_check{account="vault",check="key",standing="ok"} 1`) {
		t.Errorf("the metrics lack something: %s", page)
	}

	// Payouts one after the other, until told to stop.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var paid []uuid.UUID
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		for n := 0; ctx.Err() == nil; n++ {
			id, err := h.pay(t.Context(), fmt.Sprintf("change-%d", n))
			if err != nil {
				failed <- err
				return
			}
			paid = append(paid, id)
			for done := false; !done; {
				w, err := h.stack.Owner.Withdrawal(t.Context(), id)
				if err != nil || w.State == withdraw.Held || w.State == withdraw.Failed {
					failed <- fmt.Errorf("%s came to %s: %s %w", id, w.State, w.Reason, err)
					return
				}
				done = w.State == withdraw.Completed
				<-time.After(5 * time.Millisecond)
			}
		}
	}()

	h.setKey("NEXT_", newKey)
	h.until("the next key to be ready", func() bool { return h.finding("next_key").Standing == exchange.Well })

	h.setKey("", sandbox.Key{AccessID: newKey.AccessID, SecretKey: oldKey.SecretKey}) // half written, or a slip
	h.until("the wrong key to be refused", func() bool { return h.finding("key_change").Cause == "secret_wrong" })
	h.until("a payout", func() bool { return len(h.stack.Sandbox.Withdrawals()) > 0 })
	h.setKey("", otherKey)
	h.until("the other account's key to be refused", func() bool { return h.finding("key_change").Cause == "key_of_other_account" })
	if f := h.finding("key"); f.Standing != exchange.Well {
		t.Errorf("the key from before is not in use: %+v", f)
	}

	h.setKey("", newKey)
	h.until("the change", func() bool { return strings.Contains(h.log.String(), "exchange key changed") })
	h.until("the findings after it", func() bool {
		return h.finding("key_change").Standing == exchange.Unchecked && h.finding("next_key").Standing == exchange.Unchecked
	})
	if f := h.finding("key_life"); f.Cause != "key_age_unknown" {
		t.Errorf("the old key's day is told of the new one: %+v", f)
	}
	dead := oldKey
	dead.ExpiresAt = time.Now().Add(-time.Hour)
	h.must(h.stack.Sandbox.AddKey(vault, dead))
	before := len(h.stack.Sandbox.Withdrawals())
	h.until("payouts under the new key alone", func() bool { return len(h.stack.Sandbox.Withdrawals()) > before+2 })
	h.set("KEY_CREATED", time.Now().UTC().Format(time.DateOnly))
	h.until("the new key's day", func() bool { return h.finding("key_life").Standing == exchange.Well })

	stop()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	for _, id := range paid {
		h.until("every payout to complete", func() bool { return h.completed(id) })
		attempts, err := h.stack.Owner.Attempts(t.Context(), id)
		h.must(err)
		traces, err := h.stack.Owner.Traces(t.Context(), id)
		h.must(err)
		if len(attempts) != 1 || attempts[0].Outcome != "accepted" || len(traces) != 1 {
			t.Errorf("%s took %d attempts and has %d traces", id, len(attempts), len(traces))
		}
	}
	if len(h.stack.Sandbox.Withdrawals()) != len(paid) {
		t.Errorf("%d were asked for, %d paid", len(paid), len(h.stack.Sandbox.Withdrawals()))
	}
	if text := h.log.String(); strings.Contains(text, "level=ERROR") {
		t.Errorf("something failed meanwhile:\n%s", text)
	}
	for _, k := range []sandbox.Key{oldKey, newKey, otherKey} {
		if text := h.log.String(); strings.Contains(text, k.SecretKey) || strings.Contains(text, k.AccessID) {
			t.Error("a key is in the log")
		}
	}
}

func (h *house) scrape() string {
	h.t.Helper()
	response, err := http.Get(h.metrics)
	h.must(err)
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	h.must(err)
	return string(b)
}

// What the websocket tells is in the database long before the next reading.
func TestWalletsAreMirroredLive(t *testing.T) {
	h := newHouse(t)
	h.env["SLUICE_REFRESH"] = "10m"
	h.run()
	h.until("the first reading", func() bool { return h.spot().Equal(decimal.RequireFromString("100000")) })
	h.must(h.stack.Sandbox.SetFutures(sandbox.FuturesChange{Account: vault, Asset: "USDT", Available: "50", Margin: "10", UnrealizedPnl: "-0.2", Equity: "59.5"}))
	h.until("the futures wallet", func() bool {
		f := h.futures()
		return f.Equity.Equal(decimal.RequireFromString("60")) && f.Reported.Valid && f.Difference().Equal(decimal.RequireFromString("-0.5"))
	})

	client, err := coinex.New(coinex.Config{BaseURL: h.stack.Exchange, AccessID: oldKey.AccessID, SecretKey: oldKey.SecretKey})
	h.must(err)
	order := exchange.Order{Method: exchange.OnChain, Asset: "USDT", Chain: "TRC20", Address: listed, Amount: decimal.RequireFromString("100")}
	signed, err := client.Sign(t.Context(), order)
	h.must(err)
	if o := client.Withdraw(t.Context(), order, signed); o.Class != exchange.Accepted {
		t.Fatalf("%+v", o)
	}
	h.until("the debit", func() bool { return h.spot().LessThan(decimal.RequireFromString("99900.01")) })
}

func (h *house) spot() decimal.Decimal {
	h.t.Helper()
	health, err := h.stack.Owner.Health(h.t.Context())
	h.must(err)
	for _, b := range health.Balances {
		if b.Account == vault && b.Asset == "USDT" {
			return b.Available
		}
	}
	return decimal.Zero
}

func (h *house) futures() pgstore.FuturesRow {
	h.t.Helper()
	health, err := h.stack.Owner.Health(h.t.Context())
	h.must(err)
	for _, f := range health.Futures {
		if f.Account == vault && f.Asset == "USDT" {
			return f
		}
	}
	return pgstore.FuturesRow{}
}
