package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"sluice/internal/doctor"
	"sluice/internal/exchange"
	"sluice/internal/exchange/sandbox"
	"sluice/internal/fault"
	"sluice/internal/pgstore"
	"sluice/internal/process/dev"
)

// A key as long as a real one.
const (
	testID     = "5E6F70819203A4B5C6D7E8F901234567"
	testSecret = "B0A1C2D3E4F5061728394A5B6C7D8E9F00112233445566778899"
)

// TestDoctorNamesTheCause runs `sluice doctor --json` against the sandbox in each way in
// which an installation is known to break.
func TestDoctorNamesTheCause(t *testing.T) {
	now := time.Now().UTC()
	key := sandbox.Key{AccessID: testID, SecretKey: testSecret}
	with := func(change func(*sandbox.Key)) sandbox.Key { k := key; change(&k); return k }
	off := false
	for _, c := range []struct {
		name  string
		env   map[string]string // beside the healthy one
		key   sandbox.Key
		spoil func(*sandbox.Sandbox) error
		check string
		cause string // "" for a healthy one
		fix   string
	}{
		{name: "nothing", check: doctor.CheckKey},
		{name: "wrong access id", env: map[string]string{"SLUICE_COINEX_ACCESS_ID": strings.ToLower(testID)},
			check: doctor.CheckKey, cause: "access_id_wrong", fix: "Compare the access id"},
		{name: "wrong secret", env: map[string]string{"SLUICE_COINEX_SECRET_KEY": testSecret[1:]},
			check: doctor.CheckKey, cause: "secret_wrong", fix: "one and the same key"},
		{name: "new key", env: map[string]string{"SLUICE_COINEX_KEY_CREATED": now.Add(-time.Minute).Format(time.RFC3339)},
			key:   with(func(k *sandbox.Key) { k.ActiveFrom = now.Add(9 * time.Minute) }),
			check: doctor.CheckKey, cause: "key_not_active_yet", fix: "10 minutes old"},
		{name: "expired key", env: map[string]string{"SLUICE_COINEX_KEY_CREATED": now.AddDate(0, 0, -95).Format(time.DateOnly), "SLUICE_COINEX_KEY_IP_BOUND": "no"},
			key:   with(func(k *sandbox.Key) { k.ExpiresAt = now.AddDate(0, 0, -5) }),
			check: doctor.CheckKey, cause: "key_expired", fix: "Renew the key"},
		{name: "address not bound", env: map[string]string{"SLUICE_COINEX_KEY_IP_BOUND": "203.0.113.9"},
			key:   with(func(k *sandbox.Key) { k.IPs = []string{"203.0.113.9"} }),
			check: doctor.CheckKey, cause: "ip_not_bound", fix: "bound IP addresses"},
		{name: "clock two minutes off", spoil: func(s *sandbox.Sandbox) error { return s.SetOffset(-2 * time.Minute) },
			check: doctor.CheckClock, cause: "clock_wrong", fix: "time synchronisation"},
		{name: "address of v1", env: map[string]string{"SLUICE_COINEX_URL": "https://api.coinex.com/v1/"},
			check: doctor.CheckAddress, cause: "exchange_address_invalid", fix: "v2 address"},
		{name: "nobody answers", env: map[string]string{"SLUICE_COINEX_URL": "http://127.0.0.1:1"},
			check: doctor.CheckReach, cause: "exchange_unreachable", fix: "name service"},
		{name: "long-term limit", spoil: func(s *sandbox.Sandbox) error { return s.SetLongPeriod("4H", 0) },
			check: doctor.CheckLong, cause: "rate_limit_long_term", fix: "one request a second"},
		{name: "short-term limit", spoil: func(s *sandbox.Sandbox) error {
			return s.Inject(sandbox.Fault{Fault: sandbox.RateLimited, On: "GET /assets/spot/balance"})
		}, check: doctor.CheckShort, cause: "rate_limit_short_term", fix: "sub-account of its own"},
		{name: "maintenance", spoil: func(s *sandbox.Sandbox) error {
			return s.Announce(sandbox.Maintenance{StartedAt: now.Add(-time.Hour), EndedAt: now.Add(time.Hour), Scope: []string{"ALL_SITE"}})
		}, check: doctor.CheckMaintenance, cause: "maintenance", fix: "when the exchange is back"},
		{name: "suspended chain", spoil: func(s *sandbox.Sandbox) error {
			return s.Configure(sandbox.ConfigChange{Asset: "USDT", Chain: "TRC20", WithdrawEnabled: &off})
		}, check: doctor.CheckConfig, cause: "chain_suspended", fix: "another chain"},
		{name: "blocked account", key: with(func(k *sandbox.Key) { k.Forbidden = true }),
			check: doctor.CheckKey, cause: "account_restricted", fix: "CoinEx support"},
		{name: "a gateway's page", spoil: func(s *sandbox.Sandbox) error {
			return s.Inject(sandbox.Fault{Fault: sandbox.AcceptThen502, On: "GET /ping"})
		}, check: doctor.CheckReach, cause: "gateway", fix: "proxy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := sandbox.New(sandbox.Options{})
			defer s.Close()
			server := httptest.NewServer(s)
			defer server.Close()
			if c.key.AccessID == "" {
				c.key = key
			}
			if err := s.AddKey("", c.key); err != nil {
				t.Fatal(err)
			}
			if c.spoil != nil {
				if err := c.spoil(s); err != nil {
					t.Fatal(err)
				}
			}
			for name, value := range map[string]string{"SLUICE_COINEX_URL": server.URL, "SLUICE_COINEX_ACCESS_ID": testID, "SLUICE_COINEX_SECRET_KEY": testSecret,
				"SLUICE_COINEX_KEY_CREATED": now.AddDate(0, 0, -30).Format(time.DateOnly), "SLUICE_COINEX_KEY_IP_BOUND": "127.0.0.1", "SLUICE_DATABASE_URL": ""} {
				if own, ok := c.env[name]; ok {
					value = own
				}
				t.Setenv(name, value)
			}
			var out bytes.Buffer
			err := (&doctorCommand{operators: operators{data: data{t.TempDir()}}, Account: "main", JSON: true}).Run(t.Context(), &out)
			var r doctor.Report
			if jsonErr := json.Unmarshal(out.Bytes(), &r); jsonErr != nil {
				t.Fatalf("%v: %s", jsonErr, &out)
			}
			if strings.Contains(out.String(), testSecret) || strings.Contains(out.String(), testID) {
				t.Error("the report shows the key")
			}
			if (err != nil) != (r.Standing == exchange.Broken) || err != nil && !fault.Is(err, "unwell") {
				t.Errorf("it stands %s and ends with %v", r.Standing, err)
			}
			for _, f := range r.Checks {
				if f.Check == c.check && f.Cause == c.cause && strings.Contains(f.Fix, c.fix) {
					return
				}
			}
			t.Errorf("%s is not called %q with %q in its fix: %s", c.check, c.cause, c.fix, &out)
		})
	}
}

// TestSupportBundleHoldsNoSecret pays under a key of the usual form, has the exchange
// repeat that key in an answer, and searches everything that leaves.
func TestSupportBundleHoldsNoSecret(t *testing.T) {
	folder, err := os.MkdirTemp("", "sluice-support-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil { // Postgres may run as another account
		t.Fatal(err)
	}
	folder = filepath.Join(folder, "data")
	stack, err := dev.Start(t.Context(), dev.Options{Data: folder, Listen: "127.0.0.1:0", Sandbox: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(stack.Stop)
	if err != nil {
		t.Fatal(err)
	}
	token, err := stack.Token("payroll", "withdrawals:write", "withdrawals:read")
	if err != nil {
		t.Fatal(err)
	}
	// The first attempt is refused in words that hold both keys, the second has no effect
	// that its answer tells of.
	for _, f := range []sandbox.Fault{{Fault: sandbox.ErrorAnswer, Code: 4213, Message: sandbox.AccessID + " " + sandbox.SecretKey}, {Fault: sandbox.Code0WithoutData}} {
		if err := stack.Sandbox.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	status, body, err := dev.Service(stack.Origin, token).Send(t.Context(), http.MethodPost, "/v1/withdrawals", "support", payout(listed, "support-1"))
	var made struct {
		ID string `json:"id"`
	}
	if err != nil || status != http.StatusCreated || json.Unmarshal(body, &made) != nil {
		t.Fatalf("%d %s %v", status, body, err)
	}
	for _, person := range []string{"alice", "bob"} {
		if _, err := dev.Vote(t.Context(), stack.Origin, stack.Software, person, made.ID, ""); err != nil {
			t.Fatal(err)
		}
	}
	waitForTraces(t, stack.Owner, uuid.MustParse(made.ID), 2)

	t.Setenv("SLUICE_DATABASE_URL", "")
	file := filepath.Join(t.TempDir(), "bundle.json")
	if err := (&supportCommand{operators: operators{data: data{folder}}, ID: made.ID, Email: "treasury@example.com", Output: file}).Run(t.Context(), io.Discard); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{sandbox.AccessID, sandbox.SecretKey} {
		if bytes.Contains(bytes.ToLower(b), bytes.ToLower([]byte(secret))) {
			t.Errorf("the bundle holds %s", secret)
		}
	}
	if found := regexp.MustCompile(`\b[0-9a-f]{64}\b`).Find(b); found != nil {
		t.Errorf("the bundle holds %s, which looks like a signature", found)
	}
	for _, want := range []string{"treasury@example.com", `"attempt": 2`, "/v2/assets/withdraw", "X-Coinex-Timestamp", `\"amount\":\"25.5\"`, "try too frequently", `\"code\":0`, withheld} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("the bundle lacks %s: %s", want, b)
		}
	}

	// Without what the worker kept, the attempt's row tells the same.
	attempts, err := stack.Owner.Attempts(t.Context(), uuid.MustParse(made.ID))
	if err != nil {
		t.Fatal(err)
	}
	if alone := string(fromAttempt(attempts[1])); !strings.Contains(alone, `\"amount\":\"25.5\"`) || !strings.Contains(alone, `"status":200`) {
		t.Error(alone)
	}

	var out bytes.Buffer
	if err := (&confirmCommand{operators: operators{data: data{folder}}, Item: "two_factor", Account: dev.Account}).Run(t.Context(), &out); err != nil {
		t.Error(err)
	}
	record, err := stack.Owner.AccountRecord(t.Context(), dev.Account)
	if err != nil || record.Confirmed["two_factor"].By != operator() {
		t.Errorf("%+v %v", record, err)
	}
	out.Reset()
	if err := (&whitelistExport{operators: operators{data: data{folder}}, Account: dev.Account}).Run(t.Context(), &out); err != nil {
		t.Error(err)
	}
	if !strings.Contains(out.String(), "XRP,XRP,rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh,104729,\"Market maker, tag 104729\"\n") || strings.Count(out.String(), "\n") != 5 {
		t.Errorf("the export is %s", &out)
	}
}

func waitForTraces(t *testing.T, store *pgstore.Store, id uuid.UUID, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		traces, err := store.Traces(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if len(traces) == n {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
}
