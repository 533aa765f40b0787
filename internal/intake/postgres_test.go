package intake_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/identity"
	"sluice/internal/intake"
	"sluice/internal/pgstore"
	"sluice/internal/pgstore/pgtest"
	"sluice/internal/policy"
	"sluice/internal/withdraw"
)

var clientKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)

const operator = "operator:test"

// chains has two entries of one asset, so that a check which takes the wrong one shows.
func chains(fee int64) []exchange.ChainConfig {
	var list []exchange.ChainConfig
	for _, chain := range []string{"ERC20", "TRC20"} {
		list = append(list, exchange.ChainConfig{Asset: "USDT", Chain: chain, AssetEnabled: true, ChainEnabled: true, InterUserEnabled: true,
			MinAmount: decimal.NewFromInt(1), Fee: decimal.NewFromInt(fee), Precision: 6})
	}
	return list
}

// database makes the test's database, with one account, client and destination.
func database(t *testing.T) (owner *pgstore.Store) {
	t.Helper()
	owner = store(t, "postgres")
	ctx := t.Context()
	if err := owner.AddAccount(ctx, "main", operator, noon); err != nil {
		t.Fatal(err)
	}
	if err := owner.AddClient(ctx, identity.Client{Name: "payroll", PublicKey: clientKey, Accounts: []string{"main"},
		Scopes: []string{identity.ScopeWrite}}, operator, noon); err != nil {
		t.Fatal(err)
	}
	for _, key := range []withdraw.Request{request(""), interUser("")} {
		if _, err := owner.AddDestination(ctx, key.Key, "listed", operator, noon); err != nil {
			t.Fatal(err)
		}
	}
	if err := owner.WriteChains(ctx, "main", chains(1), noon); err != nil {
		t.Fatal(err)
	}
	return owner
}

func interUser(name string) withdraw.Request {
	r := request(name)
	r.Method, r.Chain, r.Address = exchange.InterUser, "", "someone@example.com"
	return r
}

func store(t *testing.T, role string) *pgstore.Store {
	t.Helper()
	s, err := pgstore.Open(t.Context(), pgtest.URL(t, role))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func count(t *testing.T, s *pgstore.Store, query string, args ...any) int {
	t.Helper()
	var n int
	if err := s.Pool.QueryRow(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func do(t *testing.T, s *pgstore.Store, statement string, args ...any) {
	t.Helper()
	if _, err := s.Pool.Exec(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// together runs n submissions at once, spread over desks, and returns their answers.
func together(t *testing.T, n int, desks []*intake.Desk, ask func(i int) withdraw.Request) []withdraw.Answer {
	t.Helper()
	answers := make([]withdraw.Answer, n)
	start := make(chan struct{})
	var done sync.WaitGroup
	for i := range n {
		done.Go(func() {
			<-start
			a, err := desks[i%len(desks)].Submit(t.Context(), ask(i))
			if err != nil {
				t.Errorf("submission %d: %v", i, err)
			}
			answers[i] = a
		})
	}
	close(start)
	done.Wait()
	return answers
}

// code tells whether an answer is the problem with this code.
func code(a withdraw.Answer, c string) bool {
	return strings.Contains(string(a.Body), `"code":"`+c+`"`)
}

// Two desks are two api processes.
func TestOneKeyTwoHundredTimesThroughTwoProcesses(t *testing.T) {
	owner := database(t)
	desks := []*intake.Desk{open(t, store(t, "sluice_api")), open(t, store(t, "sluice_api"))}
	answers := together(t, 200, desks, func(int) withdraw.Request { return request("same") })
	for _, a := range answers {
		if a.Status != 201 || !bytes.Equal(a.Body, answers[0].Body) {
			t.Fatalf("answers differ:\n%d %s\n%d %s", answers[0].Status, answers[0].Body, a.Status, a.Body)
		}
	}
	for _, table := range []string{"withdrawals", "proposals", "audit_events WHERE withdrawal_id IS NOT NULL"} {
		if n := count(t, owner, "SELECT count(*) FROM "+table); n != 1 {
			t.Errorf("%d rows in %s", n, table)
		}
	}
	other := request("same")
	other.BodyHash = [32]byte{9}
	for _, d := range desks {
		if _, err := d.Submit(t.Context(), other); !fault.Is(err, "idempotency_key_reused") {
			t.Error(err)
		}
	}
}

func TestOneReferenceUnderManyKeysIsAcceptedOnce(t *testing.T) {
	owner := database(t)
	desks := []*intake.Desk{open(t, store(t, "sluice_api")), open(t, store(t, "sluice_api"))}
	accepted := 0
	for _, a := range together(t, 60, desks, func(i int) withdraw.Request {
		r := request(fmt.Sprint(i))
		r.Reference = "one payout"
		return r
	}) {
		switch {
		case a.Status == 201:
			accepted++
		case a.Status != 409 || !code(a, "reference_taken"):
			t.Errorf("%d %s", a.Status, a.Body)
		}
	}
	if accepted != 1 {
		t.Errorf("%d were accepted", accepted)
	}
	if n := count(t, owner, "SELECT count(*) FROM withdrawals WHERE state = 'refused' AND reason_code = 'reference_taken'"); n != 59 {
		t.Errorf("%d of 59 refusals are recorded", n)
	}
}

// between lets something happen after the facts were read and before the decision
// is recorded, once.
type between struct {
	*pgstore.Store
	once func()
}

func (b between) Record(ctx context.Context, entries []withdraw.Entry) (map[uuid.UUID]bool, error) {
	b.once()
	return b.Store.Record(ctx, entries)
}

// Whatever a decision rests on may change at any moment. Nothing may be accepted by what
// no longer holds, whether it was read just now or is remembered.
func TestWhatChangesBeforeTheRecordIsNeverAcceptedByTheOldFacts(t *testing.T) {
	for _, c := range []struct {
		name   string
		change string
		want   string // code of the refusal or the fault
		sealed string // part of the proposal when it is accepted, by the new facts
		ask    func(string) withdraw.Request
	}{
		{"quarantined", "UPDATE destinations SET state = 'quarantined', reason = 'the exchange refused it'", "destination_quarantined", "", request},
		{"removed", "UPDATE destinations SET state = 'removed'", "destination_not_listed", "", request},
		{"chain suspended", "UPDATE exchange_chains SET chain_enabled = false, version = version + 1 WHERE chain = 'TRC20'", "chain_suspended", "", request},
		{"minimum raised", "UPDATE exchange_chains SET min_amount = 100, version = version + 1", "amount_below_minimum", "", request},
		{"fee raised", "UPDATE exchange_chains SET fee = 7, version = version + 1", "", `"max_fee":"14"`, request},
		{"transfers between users suspended", "UPDATE exchange_chains SET inter_user_enabled = false, version = version + 1 WHERE chain = 'ERC20'", "inter_user_suspended", "", interUser},
		{"attested again", "UPDATE destinations SET version = version + 1", "", `"version":2`, request},
		{"client disabled", "UPDATE service_clients SET disabled_at = now()", "client_disabled", "", request},
		{"client's key replaced", "UPDATE service_clients SET public_key = sha256('another')", "client_disabled", "", request},
		{"client's account taken away", "UPDATE service_clients SET accounts = '{}'", "client_disabled", "", request},
	} {
		for _, remembered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, remembered %v", c.name, remembered), func(t *testing.T) {
				owner := database(t)
				change := sync.OnceFunc(func() { do(t, owner, c.change) })
				d := open(t, between{store(t, "sluice_api"), func() {
					if !remembered {
						change()
					}
				}})
				if remembered {
					if a := submit(t, d, c.ask("before")); a.Status != 201 {
						t.Fatalf("%d %s", a.Status, a.Body)
					}
					change()
				}
				a, err := d.Submit(t.Context(), c.ask("after"))
				var state, sealed string
				scanErr := owner.Pool.QueryRow(t.Context(), `SELECT state, coalesce(convert_from(sealed, 'UTF8'), '') FROM withdrawals w
					LEFT JOIN proposals p ON p.withdrawal_id = w.id WHERE idempotency_key = 'key-after'`).Scan(&state, &sealed)
				switch {
				case c.want == "client_disabled": // nothing is recorded in its name
					if !fault.Is(err, c.want) || !errors.Is(scanErr, pgx.ErrNoRows) {
						t.Errorf("%v; recorded as %q", err, state)
					}
				case c.sealed != "":
					if err != nil || a.Status != 201 || state != "pending" || !strings.Contains(sealed, c.sealed) {
						t.Errorf("%d %s %v; recorded as %q: %s", a.Status, a.Body, err, state, sealed)
					}
				case err != nil || a.Status != 422 || !code(a, c.want) || state != "refused":
					t.Errorf("%d %s %v; recorded as %q", a.Status, a.Body, err, state)
				}
			})
		}
	}
}

func TestRefusalIsRecordedWithItsReasonAndAnsweredAgain(t *testing.T) {
	owner := database(t)
	d := open(t, store(t, "sluice_api"))
	r := request("a")
	r.Address = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"
	first := submit(t, d, r)
	if first.Status != 422 || !code(first, "destination_not_listed") {
		t.Fatalf("%d %s", first.Status, first.Body)
	}
	if again := submit(t, d, r); again.Status != first.Status || !bytes.Equal(again.Body, first.Body) {
		t.Errorf("%d %s", again.Status, again.Body)
	}
	var state, reasonCode, reason, fix, action string
	if err := owner.Pool.QueryRow(t.Context(), `SELECT state, reason_code, reason, fix, e.action FROM withdrawals w
		JOIN audit_events e ON e.withdrawal_id = w.id`).Scan(&state, &reasonCode, &reason, &fix, &action); err != nil {
		t.Fatal(err)
	}
	if state != "refused" || reasonCode != "destination_not_listed" || reason == "" || fix == "" || action != "withdrawal.refused" {
		t.Errorf("recorded: %s %s %q %q %s", state, reasonCode, reason, fix, action)
	}
	if n := count(t, owner, "SELECT count(*) FROM proposals"); n != 0 {
		t.Errorf("a refused request has %d proposals", n)
	}
	// The list is mended, and the same payout is asked for again.
	if _, err := owner.AddDestination(t.Context(), r.Key, "mended", operator, noon); err != nil {
		t.Fatal(err)
	}
	r.IdempotencyKey = "another"
	if a := submit(t, d, r); a.Status != 201 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

// Two processes that record the same keys in opposite orders must not stop each other.
func TestOppositeOrdersDoNotDeadlock(t *testing.T) {
	database(t)
	stores := []*pgstore.Store{store(t, "sluice_api"), store(t, "sluice_api")}
	for range 20 {
		requests := make([]withdraw.Request, 100)
		for i := range requests {
			requests[i] = request(uuid.NewString())
		}
		facts, err := stores[0].Facts(t.Context(), requests)
		if err != nil {
			t.Fatal(err)
		}
		var batches [2][]withdraw.Entry
		for side := range batches {
			for i, r := range requests {
				e, err := withdraw.Decide(r, facts[i], policy.Default, uuid.Must(uuid.NewV7()), noon)
				if err != nil {
					t.Fatal(err)
				}
				batches[side] = append(batches[side], e)
			}
		}
		slices.Reverse(batches[1])
		var done sync.WaitGroup
		for side, s := range stores {
			done.Go(func() {
				if _, err := s.Record(t.Context(), batches[side]); err != nil {
					t.Error(err)
				}
			})
		}
		done.Wait()
	}
}

// turns counts how often a connection turns from sending to receiving: the round
// trips that the network sees, whatever the driver calls them.
type turns struct {
	net.Conn
	sent  atomic.Bool
	count *atomic.Int64
}

func (c *turns) Write(b []byte) (int, error) {
	c.sent.Store(true)
	return c.Conn.Write(b)
}

func (c *turns) Read(b []byte) (int, error) {
	if c.sent.Swap(false) {
		c.count.Add(1)
	}
	return c.Conn.Read(b)
}

// texts collects the statements that a pool runs.
type texts struct {
	mu  sync.Mutex
	sql []string
}

func (x *texts) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.sql = append(x.sql, d.SQL)
	return ctx
}

func (*texts) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestIntakeTakesAtMostTwoRoundTripsAndNoLock(t *testing.T) {
	owner := database(t)
	config, err := pgxpool.ParseConfig(pgtest.URL(t, "sluice_api"))
	if err != nil {
		t.Fatal(err)
	}
	var trips atomic.Int64
	seen := &texts{}
	config.MaxConns = 1
	config.ConnConfig.Tracer = seen
	dial := config.ConnConfig.DialFunc
	config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return &turns{Conn: conn, count: &trips}, err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	d := open(t, &pgstore.Store{Pool: pool})
	// Each statement is prepared once in a connection's life.
	submit(t, d, request("first"))

	unlisted := request("unlisted")
	unlisted.Address = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"
	for _, c := range []struct {
		name string
		most int64
		r    withdraw.Request
	}{
		{"accepted, destination known", 1, request("second")},
		{"accepted, destination not known", 2, interUser("third")},
		{"refused", 2, unlisted},
		{"repeated", 2, request("second")},
	} {
		before := trips.Load()
		submit(t, d, c.r)
		if n := trips.Load() - before; n < 1 || n > c.most {
			t.Errorf("%s: %d round trips, want at most %d", c.name, n, c.most)
		}
	}
	// Neither the statements nor what the database adds to them (triggers and rules on
	// the tables that intake inserts into) make one commit wait for another.
	rows, err := owner.Pool.Query(t.Context(), `WITH filled (t) AS (VALUES ('withdrawals'::regclass), ('proposals'), ('audit_events'))
		SELECT prosrc FROM filled JOIN pg_trigger ON tgrelid = t JOIN pg_proc p ON p.oid = tgfoid WHERE NOT tgisinternal
		UNION ALL SELECT pg_get_ruledef(r.oid) FROM filled JOIN pg_rewrite r ON ev_class = t`)
	if err != nil {
		t.Fatal(err)
	}
	added, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(added) == 0 {
		t.Fatalf("read %d triggers: %v", len(added), err)
	}
	for _, sql := range append(added, seen.sql...) {
		for _, word := range []string{"notify", "advisory", "lock table", "for update", "for share", "nextval"} {
			if strings.Contains(strings.ToLower(sql), word) {
				t.Errorf("intake runs %q: %s", word, sql)
			}
		}
	}
}

const insertOne = `INSERT INTO withdrawals (id, requester, reference, idempotency_key, body_hash, answer_status, answer,
	account, method, asset, chain, address, memo, amount, max_fee, purpose, destination_id, state, digest, expires_at, created_at, updated_at)
	SELECT gen_random_uuid(), 'client:payroll', 'r', 'k', sha256('b'), 201, '', 'main', 'on_chain', 'USDT', 'TRC20', 'a', '', $1::numeric, $2::numeric, 'p',
	(SELECT id FROM destinations LIMIT 1), 'pending', sha256('d'), now() + interval '1 day', now(), now()`

func TestTheDatabaseItselfRefusesAmountsThatAreNone(t *testing.T) {
	database(t)
	api := store(t, "sluice_api")
	for _, c := range []struct{ amount, maxFee, constraint string }{
		{"NaN", "1", "amount_positive"}, {"0", "1", "amount_positive"}, {"-1", "1", "amount_positive"},
		{"Infinity", "1", "amount_positive"}, {"-Infinity", "1", "amount_positive"}, {"1e24", "1", "amount_positive"},
		{"1.0000000000000000001", "1", "amount_positive"},
		{"1", "NaN", "max_fee_sane"}, {"1", "-1", "max_fee_sane"}, {"1", "Infinity", "max_fee_sane"},
	} {
		_, err := api.Pool.Exec(t.Context(), insertOne, c.amount, c.maxFee)
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.ConstraintName != c.constraint {
			t.Errorf("amount %s, max_fee %s: %v", c.amount, c.maxFee, err)
		}
	}
	if _, err := api.Pool.Exec(t.Context(), insertOne, "1", "1"); err != nil {
		t.Errorf("the sound one: %v", err)
	}
}

func TestTheApisRoleCannotChangeWhatWasAskedFor(t *testing.T) {
	owner := database(t)
	api := store(t, "sluice_api")
	submit(t, open(t, api), request("a"))
	const denied = "42501"
	for _, statement := range []string{
		"UPDATE withdrawals SET amount = 1", "UPDATE withdrawals SET max_fee = 1", "UPDATE withdrawals SET address = 'x'",
		"UPDATE withdrawals SET memo = 'x'", "UPDATE withdrawals SET destination_id = NULL", "UPDATE withdrawals SET digest = sha256('x')",
		"UPDATE withdrawals SET exchange_id = 1", "UPDATE withdrawals SET tx_id = 'x'", "UPDATE withdrawals SET answer = 'x'",
		"UPDATE withdrawals SET round = 2", "UPDATE withdrawals SET expires_at = now()",
		"DELETE FROM withdrawals", "TRUNCATE withdrawals CASCADE",
		"UPDATE proposals SET sealed = 'x'", "DELETE FROM proposals", "UPDATE audit_events SET body = 'x'", "DELETE FROM audit_events",
		"UPDATE destinations SET state = 'active'", "INSERT INTO exchange_reads (account, what, at) VALUES ('main', 'config', now())",
		"UPDATE exchange_chains SET fee = 0", "UPDATE service_clients SET accounts = '{main}'",
		"INSERT INTO accounts (name, created_at) VALUES ('x', now())",
	} {
		_, err := api.Pool.Exec(t.Context(), statement)
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != denied {
			t.Errorf("%s: %v", statement, err)
		}
	}
	// Nor does the database's owner by mistake.
	for _, statement := range []string{
		"UPDATE withdrawals SET amount = 1", "UPDATE withdrawals SET address = 'x'", "DELETE FROM withdrawals",
		"UPDATE proposals SET sealed = 'x'", "DELETE FROM audit_events",
	} {
		if _, err := owner.Pool.Exec(t.Context(), statement); err == nil {
			t.Errorf("the owner may: %s", statement)
		}
	}
	if n := count(t, owner, "SELECT count(*) FROM withdrawals WHERE amount = 25.5"); n != 1 {
		t.Error("the withdrawal is not as it was asked for")
	}
}

// Planned for each small batch anew, the statements would cost several times their work.
func TestStatementsArePlannedOnce(t *testing.T) {
	owner := database(t)
	// The planner chooses by cost, so there must be something to cost.
	seed := open(t, owner)
	for i := range 500 {
		if _, err := seed.Submit(gone(), request(fmt.Sprint("seed", i))); err != nil && !fault.Is(err, "in_flight") {
			t.Fatal(err)
		}
	}
	submit(t, seed, request("seed"))
	do(t, owner, `INSERT INTO destinations (id, account, method, asset, chain, address, memo, label, state, attested_by, attested_at)
		SELECT gen_random_uuid(), 'main', 'on_chain', 'USDT', 'TRC20', n::text, '', '', 'active', 'operator:test', now() FROM generate_series(1, 2000) n`)
	do(t, owner, "ANALYZE")

	config, err := pgxpool.ParseConfig(pgtest.URL(t, "sluice_api"))
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	d := open(t, &pgstore.Store{Pool: pool})
	for i := range 20 {
		r := request(fmt.Sprint(i))
		r.Address = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t" // refused: read and recorded each time
		submit(t, d, r)
	}
	const tried = 5 // Postgres plans a prepared statement this often for its very values before it compares
	var statements, most int
	if err := pool.QueryRow(t.Context(), "SELECT count(*), max(custom_plans) FROM pg_prepared_statements WHERE statement LIKE '%unnest(%' AND statement NOT LIKE '%pg_prepared%'").Scan(&statements, &most); err != nil {
		t.Fatal(err)
	}
	if statements != 2 || most > tried {
		t.Errorf("%d statements, planned anew up to %d times in 20 uses", statements, most)
	}
}
