package doctor_test

import (
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/internal/doctor"
	"sluice/internal/exchange"
	"sluice/internal/exchange/coinex"
	"sluice/internal/exchange/sandbox"
	"sluice/internal/pgstore"
	"sluice/internal/whitelist"
)

// Keys as long as real ones, so that whatever hides them hides these.
const (
	id     = "5E6F70819203A4B5C6D7E8F901234567"
	secret = "B0A1C2D3E4F5061728394A5B6C7D8E9F00112233445566778899"
)

// setUp is one installation: an exchange, and what the operator has set.
type setUp struct {
	sandbox *sandbox.Sandbox
	url     string
	id      string
	secret  string
	facts   doctor.Facts
}

func newSetUp(t *testing.T) *setUp {
	t.Helper()
	s := &setUp{sandbox: sandbox.New(sandbox.Options{})}
	t.Cleanup(s.sandbox.Close)
	server := httptest.NewServer(s.sandbox)
	t.Cleanup(server.Close)
	s.url = server.URL
	s.must(t, s.sandbox.AddKey("", sandbox.Key{AccessID: id, SecretKey: secret}))
	s.id, s.secret = id, secret
	now := time.Now()
	s.facts = doctor.Facts{At: now, Key: doctor.Key{Created: now.Add(-30 * 24 * time.Hour), Binding: coinex.Bound, BoundTo: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}}
	confirmed := map[string]pgstore.Confirmation{}
	for _, i := range doctor.Checklist {
		confirmed[i.ID] = pgstore.Confirmation{By: "operator:ana", At: now}
	}
	s.facts.Record = &pgstore.AccountRecord{Confirmed: confirmed, Destinations: []whitelist.Destination{{
		Key:   whitelist.Key{Account: "main", Method: exchange.OnChain, Asset: "USDT", Chain: "TRC20", Address: "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8"},
		Label: "Payroll", State: whitelist.Active}}}
	return s
}

func (s *setUp) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func find(t *testing.T, r doctor.Report, check string) exchange.Finding {
	t.Helper()
	for _, c := range r.Checks {
		if c.Check == check {
			return c
		}
	}
	t.Fatalf("no check %q in %+v", check, r.Checks)
	return exchange.Finding{}
}

func TestAHealthySetUpIsWell(t *testing.T) {
	s := newSetUp(t)
	r := doctor.Examine(t.Context(), s.url, s.id, s.secret, s.facts)
	if r.Standing != exchange.Well {
		t.Errorf("it stands %s", r.Standing)
	}
	for _, c := range r.Checks {
		if c.Standing != exchange.Well && c.Check != doctor.CheckAccount {
			t.Errorf("%+v", c)
		}
	}
}

// Each way in which an installation is known to break, and what the operator must read.
func TestBrokenSetUps(t *testing.T) {
	off := false
	for _, c := range []struct {
		name        string
		breaks      func(t *testing.T, s *setUp)
		check       string
		standing    exchange.Standing
		cause       string
		says, fixes string // words that must be there
	}{
		{"wrong access id", func(t *testing.T, s *setUp) { s.id = strings.ToLower(id) },
			doctor.CheckKey, exchange.Broken, "access_id_wrong", "mistyped", "Compare the access id"},
		{"wrong secret", func(t *testing.T, s *setUp) { s.secret = secret[:50] },
			doctor.CheckKey, exchange.Broken, "secret_wrong", "secret key", "from one and the same key"},
		{"new key", func(t *testing.T, s *setUp) {
			s.facts.Key.Created = s.facts.At.Add(-2 * time.Minute)
			s.must(t, s.sandbox.AddKey("", sandbox.Key{AccessID: id, SecretKey: secret, ActiveFrom: s.facts.At.Add(8 * time.Minute)}))
		}, doctor.CheckKey, exchange.Broken, "key_not_active_yet", "10 minutes", "Wait until"},
		{"expired unbound key", func(t *testing.T, s *setUp) {
			s.facts.Key = doctor.Key{Created: s.facts.At.Add(-91 * 24 * time.Hour), Binding: coinex.Unbound}
			s.must(t, s.sandbox.AddKey("", sandbox.Key{AccessID: id, SecretKey: secret, ExpiresAt: s.facts.At.Add(-24 * time.Hour)}))
		}, doctor.CheckKey, exchange.Broken, "key_expired", "90 days", "bind it"},
		{"address not bound", func(t *testing.T, s *setUp) {
			s.facts.Key.BoundTo = []netip.Prefix{netip.MustParsePrefix("203.0.113.9/32")}
			s.must(t, s.sandbox.AddKey("", sandbox.Key{AccessID: id, SecretKey: secret, IPs: []string{"203.0.113.9"}}))
		}, doctor.CheckKey, exchange.Broken, "ip_not_bound", "127.0.0.1", "www.coinex.com/apikey"},
		{"clock two minutes off", func(t *testing.T, s *setUp) { s.must(t, s.sandbox.SetOffset(2*time.Minute)) },
			doctor.CheckClock, exchange.Broken, "clock_wrong", "a minute off", "time synchronisation"},
		{"address of v1", func(t *testing.T, s *setUp) { s.url = "https://api.coinex.com/v1" },
			doctor.CheckAddress, exchange.Broken, "exchange_address_invalid", "v1, which was switched off", "https://api.coinex.com"},
		{"nobody answers", func(t *testing.T, s *setUp) {
			server := httptest.NewServer(s.sandbox)
			server.Close()
			s.url = server.URL
		}, doctor.CheckReach, exchange.Broken, "exchange_unreachable", "No answer", "name service"},
		{"long-term limit used up", func(t *testing.T, s *setUp) { s.must(t, s.sandbox.SetLongPeriod("1H", 0)) },
			doctor.CheckLong, exchange.Broken, "rate_limit_long_term", "long-term limit", "one request a second"},
		{"long-term limit in force", func(t *testing.T, s *setUp) { s.must(t, s.sandbox.SetLongPeriod("24H", 500)) },
			doctor.CheckLong, exchange.Doubtful, "rate_limit_long_term", "24H with 499 calls left", "trading program"},
		{"short-term limit", func(t *testing.T, s *setUp) {
			s.must(t, s.sandbox.Inject(sandbox.Fault{Fault: sandbox.RateLimited, On: "GET /assets/spot/balance"}))
		}, doctor.CheckShort, exchange.Broken, "rate_limit_short_term", "Another program", "sub-account of its own"},
		{"suspended chain", func(t *testing.T, s *setUp) {
			s.must(t, s.sandbox.Configure(sandbox.ConfigChange{Asset: "USDT", Chain: "TRC20", WithdrawEnabled: &off}))
		}, doctor.CheckConfig, exchange.Doubtful, "chain_suspended", "USDT TRC20", "waits"},
		{"maintenance", func(t *testing.T, s *setUp) {
			s.must(t, s.sandbox.Announce(sandbox.Maintenance{StartedAt: s.facts.At.Add(-time.Hour), EndedAt: s.facts.At.Add(time.Hour), Scope: []string{"ALL_SITE"}}))
		}, doctor.CheckMaintenance, exchange.Broken, "maintenance", "ALL_SITE", "Nothing needs doing"},
		{"blocked account or sub-account", func(t *testing.T, s *setUp) {
			s.must(t, s.sandbox.AddKey("", sandbox.Key{AccessID: id, SecretKey: secret, Forbidden: true}))
		}, doctor.CheckKey, exchange.Broken, "account_restricted", "sub-account", "CoinEx support"},
		{"a gateway's page", func(t *testing.T, s *setUp) {
			s.must(t, s.sandbox.Inject(sandbox.Fault{Fault: sandbox.AcceptThen502, On: "GET /ping"}))
		}, doctor.CheckReach, exchange.Broken, "gateway", "HTTP 502", "proxy"},
		{"exchange busy", func(t *testing.T, s *setUp) {
			s.must(t, s.sandbox.Inject(sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: 3008, On: "GET /assets/spot/balance"}))
		}, doctor.CheckBalances, exchange.Broken, "exchange_busy", "under load", "a second or two"},
		{"key with a line break", func(t *testing.T, s *setUp) { s.secret += "\n" },
			doctor.CheckAddress, exchange.Broken, "exchange_key_malformed", "line break", "copy it again"},
		{"nothing confirmed", func(t *testing.T, s *setUp) { s.facts.Record.Confirmed = nil },
			"two_factor", exchange.Doubtful, "not_confirmed", "two factors", "sluice confirm two_factor"},
		{"quarantined destination", func(t *testing.T, s *setUp) { s.facts.Record.Destinations[0].State = whitelist.Quarantined },
			doctor.CheckMirror, exchange.Doubtful, "destination_quarantined", "Payroll", "two lists"},
		{"key of another account", func(t *testing.T, s *setUp) { s.facts.Record.LastID = 42; s.facts.Record.LastAccepted = s.facts.At },
			doctor.CheckAccount, exchange.Broken, "key_of_other_account", "42", "Stop this worker"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSetUp(t)
			c.breaks(t, s)
			r := doctor.Examine(t.Context(), s.url, s.id, s.secret, s.facts)
			got := find(t, r, c.check)
			if got.Standing != c.standing || got.Cause != c.cause {
				t.Errorf("%s stands %s because of %q; want %s because of %q\n%+v", c.check, got.Standing, got.Cause, c.standing, c.cause, got)
			}
			if !strings.Contains(strings.ToLower(got.Says), strings.ToLower(c.says)) || !strings.Contains(strings.ToLower(got.Fix), strings.ToLower(c.fixes)) {
				t.Errorf("it says %q and %q; want %q and %q in it", got.Says, got.Fix, c.says, c.fixes)
			}
			if r.Standing != c.standing {
				t.Errorf("the whole stands %s", r.Standing)
			}
			// One trouble must not be told as several.
			for _, other := range r.Checks {
				twice := other.Check == doctor.CheckKeyLife || other.Check == doctor.CheckIP // they agree with the key
				if other.Standing == exchange.Broken && other.Check != c.check && !twice {
					t.Errorf("%s is called broken as well: %+v", other.Check, other)
				}
				if (other.Standing == exchange.Broken || other.Standing == exchange.Doubtful) == (other.Fix == "") {
					t.Errorf("a finding without what to do, or the other way round: %+v", other)
				}
			}
		})
	}
}

func TestKeyLife(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	day := func(n int) time.Time { return now.AddDate(0, 0, -n) }
	for _, c := range []struct {
		name     string
		key      doctor.Key
		standing exchange.Standing
		says     string
	}{
		{"bound", doctor.Key{Binding: coinex.Bound}, exchange.Well, "does not expire"},
		{"unknown", doctor.Key{}, exchange.Doubtful, "Nobody has said"},
		{"young", doctor.Key{Created: day(10), Binding: coinex.Unbound}, exchange.Well, "ends in 80 days"},
		{"soon", doctor.Key{Created: day(80), Binding: coinex.Unbound}, exchange.Doubtful, "ends in 10 days, on 2026-12-03"},
		{"over and working", doctor.Key{Created: day(91), Binding: coinex.Unbound}, exchange.Doubtful, "still works"},
		{"soon, if it is not bound", doctor.Key{Created: day(80)}, exchange.Doubtful, "unless it is bound"},
	} {
		r := doctor.Judge(doctor.Facts{At: now, Key: c.key})
		if got := find(t, r, doctor.CheckKeyLife); got.Standing != c.standing || !strings.Contains(got.Says, c.says) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestParseKey(t *testing.T) {
	k, err := doctor.ParseKey("2026-03-01", "203.0.113.7, 2001:db8::/32")
	if err != nil || !k.Day || k.Binding != coinex.Bound || len(k.BoundTo) != 2 || !k.BoundTo[1].Contains(netip.MustParseAddr("2001:db8::9")) {
		t.Errorf("%+v %v", k, err)
	}
	if k, err := doctor.ParseKey("2026-03-01T09:30:00Z", "no"); err != nil || k.Day || k.Binding != coinex.Unbound || !k.Expires().Equal(time.Date(2026, 5, 30, 9, 30, 0, 0, time.UTC)) {
		t.Errorf("%+v %v", k, err)
	}
	for _, bad := range [][2]string{{"yesterday", ""}, {"", "perhaps"}, {"", "1.2.3.4,,"}} {
		if _, err := doctor.ParseKey(bad[0], bad[1]); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// A key made "today" may be minutes old: its youth must stay a possible cause.
func TestAKeyMadeTodayMayBeYoung(t *testing.T) {
	s := newSetUp(t)
	s.facts.Key.Created, s.facts.Key.Day = s.facts.At.UTC().Truncate(24*time.Hour), true
	s.id = strings.ToLower(id)
	got := find(t, doctor.Examine(t.Context(), s.url, s.id, s.secret, s.facts), doctor.CheckKey)
	for _, c := range got.Also {
		if c.Code == "key_not_active_yet" {
			return
		}
	}
	t.Errorf("%+v", got)
}
