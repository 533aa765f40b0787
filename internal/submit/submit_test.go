package submit_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"sluice/internal/approval"
	"sluice/internal/exchange"
	"sluice/internal/exchange/coinex"
	"sluice/internal/exchange/sandbox"
	"sluice/internal/fault"
	"sluice/internal/identity"
	"sluice/internal/intake"
	"sluice/internal/pgstore"
	"sluice/internal/pgstore/pgtest"
	"sluice/internal/policy"
	"sluice/internal/submit"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

func TestMain(m *testing.M) {
	pgtest.Main(m, func(ctx context.Context, url string) error { return pgstore.Migrate(ctx, url, nil) })
}

// clock is the one clock of a test, for Sluice and the exchange alike: windows and
// quiet periods cost no waiting.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC).UnixMilli())
	return c
}
func (c *clock) now() time.Time          { return time.UnixMilli(c.at.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.at.Add(d.Milliseconds()) }

// voter is a person with a passkey that a test can use.
type voter struct {
	id  uuid.UUID
	key *ecdsa.PrivateKey
	cid []byte
}

// house is one Sluice with a real database and a real sandbox over HTTP.
type house struct {
	t        *testing.T
	clock    *clock
	owner    *pgstore.Store
	api      *pgstore.Store
	sandbox  *sandbox.Sandbox
	server   *httptest.Server
	relying  approval.Relying
	voters   []voter
	settings submit.Settings
	dest     whitelist.Key
}

const account = "main"

func newHouse(t *testing.T) *house {
	t.Helper()
	ctx := t.Context()
	h := &house{t: t, clock: newClock(), relying: approval.Relying{ID: "localhost", Origins: []string{"http://localhost:8080"}},
		settings: submit.Settings{Quiet: 10 * time.Second, Sweep: time.Second, Refresh: time.Minute, Lease: time.Hour},
		dest:     whitelist.Key{Account: account, Method: exchange.OnChain, Asset: "USDT", Chain: "TRC20", Address: "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8"}}
	h.owner, h.api = h.store("postgres"), h.store("sluice_api")
	h.sandbox = sandbox.New(sandbox.Options{Now: h.clock.now, NoRateLimit: true})
	h.server = httptest.NewServer(h.sandbox)
	t.Cleanup(h.server.Close)

	must(t, h.owner.AddAccount(ctx, account, "operator:test", h.clock.now()))
	_, err := h.owner.AddDestination(ctx, h.dest, "test", "operator:test", h.clock.now())
	must(t, err)
	must(t, h.sandbox.AddWhitelist("", sandbox.Entry{Method: "on_chain", Asset: h.dest.Asset, Chain: h.dest.Chain, Address: h.dest.Address}))
	for _, name := range []string{"alice", "bob", "carol"} {
		h.voters = append(h.voters, h.enrol(name))
	}
	chains, err := h.client().Config(ctx, "")
	must(t, err)
	must(t, h.store("sluice_worker").WriteChains(ctx, account, chains, h.clock.now()))
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *house) store(role string) *pgstore.Store {
	h.t.Helper()
	s, err := pgstore.Open(h.t.Context(), pgtest.URL(h.t, role))
	must(h.t, err)
	h.t.Cleanup(s.Close)
	return s
}

func (h *house) client() *coinex.Client {
	h.t.Helper()
	c, err := coinex.New(coinex.Config{BaseURL: h.server.URL, AccessID: sandbox.AccessID, SecretKey: sandbox.SecretKey, Now: h.clock.now})
	must(h.t, err)
	return c
}

// worker makes a submitter with its own client and store, as another process would have.
func (h *house) worker() (*submit.Submitter, *pgstore.Store) {
	h.t.Helper()
	s := h.store("sluice_worker")
	return submit.New(account, h.client(), s, h.relying, h.settings, h.clock.now, slog.New(slog.DiscardHandler)), s
}

func (h *house) lease(s *pgstore.Store) pgstore.LeaseOf {
	h.t.Helper()
	l, ok, err := s.TakeLease(h.t.Context(), account, uuid.New(), h.settings.Lease)
	must(h.t, err)
	if !ok {
		h.t.Fatal("the lease is not free")
	}
	return l
}

// enrol adds a person with an ES256 passkey straight into the roster.
func (h *house) enrol(name string) voter {
	h.t.Helper()
	ctx := h.t.Context()
	p, err := h.owner.AddPerson(ctx, identity.Person{Name: name, DisplayName: name, Roles: []identity.Role{identity.Approver}}, "operator:test", h.clock.now())
	must(h.t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(h.t, err)
	pub, err := key.PublicKey.Bytes() // 0x04, x, y
	must(h.t, err)
	cose, err := cbor.Marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: pub[1:33], -3: pub[33:65]})
	must(h.t, err)
	v := voter{id: p.ID, key: key, cid: []byte("passkey of " + name)}
	_, err = h.owner.Pool.Exec(ctx, `INSERT INTO passkeys (id, person_id, public_key, sign_count, transports, backup_eligible, software, label, created_at)
		VALUES ($1, $2, $3, 0, '{}', false, false, '', $4)`, v.cid, v.id, cose, h.clock.now())
	must(h.t, err)
	return v
}

// sign makes the WebAuthn assertion of a vote.
func (h *house) sign(v voter, nonce []byte, d approval.Decision, digest approval.Digest) approval.Vote {
	h.t.Helper()
	client, err := json.Marshal(map[string]any{"type": "webauthn.get", "origin": h.relying.Origins[0],
		"challenge": base64.RawURLEncoding.EncodeToString(approval.Challenge(nonce, d, digest))})
	must(h.t, err)
	rp := sha256.Sum256([]byte(h.relying.ID))
	auth := binary.BigEndian.AppendUint32(append(rp[:], 0x05), 0)
	hash := sha256.Sum256(client)
	sum := sha256.Sum256(append(append([]byte{}, auth...), hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, v.key, sum[:])
	must(h.t, err)
	return approval.Vote{Person: v.id.String(), Passkey: v.cid, Decision: d, Nonce: nonce, AuthenticatorData: auth, ClientData: client, Signature: signature}
}

// vote casts votes and returns the withdrawal as the last left it.
func (h *house) vote(id uuid.UUID, voters ...voter) withdraw.Withdrawal {
	h.t.Helper()
	var w withdraw.Withdrawal
	for _, v := range voters {
		nonce, digest, err := h.api.OpenVote(h.t.Context(), v.id, id, approval.Approve, h.clock.now())
		must(h.t, err)
		w, _, err = h.api.CastVote(h.t.Context(), id, h.sign(v, nonce, approval.Approve, digest), h.relying, h.clock.now())
		must(h.t, err)
	}
	return w
}

// request hands in a payout and returns its id.
func (h *house) request(amount, reference string) uuid.UUID {
	return h.requestBy(uuid.New(), amount, reference)
}

func (h *house) requestBy(person uuid.UUID, amount, reference string) uuid.UUID {
	h.t.Helper()
	desk := intake.Open(h.api, policy.Default, h.clock.now)
	defer desk.Close()
	key := h.dest
	answer, err := desk.Submit(h.t.Context(), withdraw.Request{Requester: "person:" + person.String(), IdempotencyKey: reference, BodyHash: sha256.Sum256([]byte(reference)),
		Key: key, Amount: decimal.RequireFromString(amount), Reference: reference, Purpose: "test"})
	must(h.t, err)
	var made struct{ ID uuid.UUID }
	must(h.t, json.Unmarshal(answer.Body, &made))
	if answer.Status != 201 {
		h.t.Fatalf("request: %d %s", answer.Status, answer.Body)
	}
	return made.ID
}

func (h *house) approved(amount, reference string) uuid.UUID {
	h.t.Helper()
	id := h.request(amount, reference)
	if w := h.vote(id, h.voters[0], h.voters[1]); w.State != withdraw.Approved {
		h.t.Fatalf("after two votes the withdrawal is %s", w.State)
	}
	return id
}

func (h *house) state(id uuid.UUID) withdraw.State {
	h.t.Helper()
	w, err := h.owner.Withdrawal(h.t.Context(), id)
	must(h.t, err)
	return w.State
}

func (h *house) want(id uuid.UUID, state withdraw.State) {
	h.t.Helper()
	w, err := h.owner.Withdrawal(h.t.Context(), id)
	must(h.t, err)
	if w.State != state {
		h.t.Fatalf("the withdrawal is %s (%s: %s), want %s", w.State, w.ReasonCode, w.Reason, state)
	}
}

func (h *house) paid(want int) {
	h.t.Helper()
	if got := h.sandbox.Withdrawals(); len(got) != want {
		h.t.Fatalf("the exchange made %d withdrawals, want %d: %+v", len(got), want, got)
	}
}

// finish sweeps and steps the exchange until the withdrawal is at an end or with people.
func (h *house) settle(w *submit.Submitter, id uuid.UUID) {
	h.t.Helper()
	for range 40 {
		must(h.t, w.Sweep(h.t.Context()))
		h.clock.advance(time.Second)
		must(h.t, h.sandbox.Step())
		if s := h.state(id); s.Final() || s == withdraw.Held || s == withdraw.Absent {
			return
		}
	}
	h.t.Fatalf("the withdrawal stays %s", h.state(id))
}

func TestAnApprovedWithdrawalIsPaidOnceAndFollowedToItsEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	id := h.approved("25.5", "r1")
	w, store := h.worker()
	must(t, w.Submit(t.Context(), h.lease(store), id))
	h.want(id, withdraw.Submitted)
	h.settle(w, id)
	h.want(id, withdraw.Completed)
	h.paid(1)
	if got := h.sandbox.Withdrawals()[0].Net; !got.Equal(decimal.RequireFromString("25.5")) {
		t.Errorf("the receiver got %s", got)
	}
}

// TestKilledAtEveryStep ends the worker, as kill -9 would, between any two steps of a
// submission. Whoever comes after must bring the payout to exactly one withdrawal;
// where nothing had been sent yet, people are asked again first.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"read", "signed", "attempt written", "answered"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			id := h.approved("25.5", "r1")
			w, store := h.worker()
			lease := h.lease(store)
			killed := make(chan struct{})
			w.OnStep(func(name string) {
				if name == step {
					close(killed)
					runtime.Goexit()
				}
			})
			go func() { _ = w.Submit(context.WithoutCancel(t.Context()), lease, id) }()
			<-killed

			next, nextStore := h.worker()
			must(t, nextStore.ReleaseLease(t.Context(), lease)) // as its end of time would
			newLease := h.lease(nextStore)
			must(t, next.Submit(t.Context(), newLease, id)) // River runs the job again
			h.settleOrAsk(next, newLease, id)
			h.want(id, withdraw.Completed)
			h.paid(1)
		})
	}
}

// settleOrAsk brings a withdrawal to its end, voting again where it is absent.
func (h *house) settleOrAsk(w *submit.Submitter, lease pgstore.LeaseOf, id uuid.UUID) {
	h.t.Helper()
	h.settle(w, id)
	if h.state(id) == withdraw.Absent {
		h.paid(0)
		h.vote(id, h.voters[1], h.voters[2])
		h.want(id, withdraw.Approved)
		must(h.t, w.Submit(h.t.Context(), lease, id))
		h.settle(w, id)
	}
}

func TestALostAnswerIsNeverSentAgain(t *testing.T) {
	t.Parallel()
	for _, lost := range []sandbox.Fault{
		{Fault: sandbox.AcceptThenDrop},
		{Fault: sandbox.AcceptThen502},
		{Fault: sandbox.Code0WithoutData},
		{Fault: sandbox.ErrorAnswer, Code: 4002, Accept: true},
		{Fault: sandbox.ErrorAnswer, Code: 3008, Accept: true},
		{Fault: sandbox.ErrorAnswer, Code: 9999, Accept: true},
	} {
		for _, echoed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s %d, remark echoed %t", lost.Fault, lost.Code, echoed), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t)
				must(t, h.sandbox.Inject(lost))
				if !echoed {
					must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.RemarkNotEchoed}))
				}
				id := h.approved("25.5", "r1")
				w, store := h.worker()
				lease := h.lease(store)
				must(t, w.Submit(t.Context(), lease, id))
				h.want(id, withdraw.Unknown)
				must(t, w.Submit(t.Context(), lease, id)) // a rescued job
				h.paid(1)
				h.settle(w, id)
				h.want(id, withdraw.Completed)
				h.paid(1)
			})
		}
	}
}

func TestARequestThatNeverArrivedIsProvenAbsentAndAskedAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.DropBeforeAccept}))
	id := h.approved("25.5", "r1")
	w, store := h.worker()
	lease := h.lease(store)
	must(t, w.Submit(t.Context(), lease, id))
	h.want(id, withdraw.Unknown)

	// Within the window and the quiet period nothing is concluded.
	for range 3 {
		must(t, w.Sweep(t.Context()))
	}
	h.want(id, withdraw.Unknown)
	h.settle(w, id)
	h.want(id, withdraw.Absent)
	h.paid(0)

	// The old votes are worth nothing now.
	must(t, w.Submit(t.Context(), lease, id))
	h.paid(0)
	if got := h.vote(id, h.voters[2]); got.State != withdraw.Absent {
		t.Fatalf("one fresh vote moved it to %s", got.State)
	}
	h.vote(id, h.voters[0])
	h.want(id, withdraw.Approved)
	must(t, w.Submit(t.Context(), lease, id))
	h.settle(w, id)
	h.want(id, withdraw.Completed)
	h.paid(1)
}

// TestALateListHidesNothing: the exchange accepts, loses the answer, and shows the row
// only after a while. Looks before the end of the quiet period prove nothing.
func TestALateListHidesNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.AcceptThenDrop}))
	must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.ListLate, Delay: sandbox.Duration(12 * time.Second)}))
	id := h.approved("25.5", "r1")
	w, store := h.worker()
	must(t, w.Submit(t.Context(), h.lease(store), id))
	h.settle(w, id)
	h.want(id, withdraw.Completed)
	h.paid(1)
}

func TestTwoWorkersAtOncePayOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	id := h.approved("25.5", "r1")
	one, oneStore := h.worker()
	two, _ := h.worker()
	lease := h.lease(oneStore)
	var all sync.WaitGroup
	for range 4 { // River may run a job late, twice and at once
		for _, w := range []*submit.Submitter{one, two} {
			all.Go(func() {
				if err := w.Submit(context.WithoutCancel(t.Context()), lease, id); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	h.want(id, withdraw.Submitted)
	h.paid(1)
}

func TestAWorkerThatLostItsLeaseCannotSend(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	id := h.approved("25.5", "r1")
	old, oldStore := h.worker()
	oldLease := h.lease(oldStore)
	next, nextStore := h.worker()
	old.OnStep(func(name string) {
		if name == "signed" { // it pauses here, its lease runs out, another takes over
			must(t, oldStore.ReleaseLease(context.Background(), oldLease))
			h.lease(nextStore)
		}
	})
	must(t, old.Submit(t.Context(), oldLease, id))
	h.want(id, withdraw.Approved)
	h.paid(0)
	_ = next
}

// TestTheDatabaseIsTheLastGuard writes attempts as a worker would that had lost every
// other check.
func TestTheDatabaseIsTheLastGuard(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	id, twin := h.approved("25.5", "r1"), h.approved("25.5", "r2")
	_, store := h.worker()
	lease := h.lease(store)
	begin := func(id uuid.UUID, number int) error {
		sealed, err := h.owner.Proposal(t.Context(), id)
		must(t, err)
		p, err := withdraw.Unseal(sealed)
		must(t, err)
		_, err = store.BeginAttempt(t.Context(), lease, p, withdraw.DigestOf(sealed), exchange.Signed{Body: []byte("{}"), Timestamp: h.clock.now(), Window: time.Second}, number,
			pgstore.Funds{Available: decimal.NewFromInt(1000), ReadAt: h.clock.now()}, h.clock.now())
		return err
	}
	must(t, begin(id, 1))
	if err := begin(id, 2); !fault.Is(err, pgstore.ErrLive.Code) {
		t.Errorf("a second attempt beside an open one: %v", err)
	}
	if err := begin(id, 1); !fault.Is(err, pgstore.ErrLive.Code) {
		t.Errorf("the same attempt again: %v", err)
	}
	if err := begin(twin, 1); !fault.Is(err, pgstore.ErrTwin.Code) {
		t.Errorf("a twin beside an open attempt: %v", err)
	}
}

// TestTwinsGoOneAfterTheOther: two payouts of one amount to one destination. While the
// answer to the first is unknown, a row at the exchange could belong to either.
func TestTwinsGoOneAfterTheOther(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.AcceptThenDrop}))
	first, second := h.approved("25.5", "r1"), h.approved("25.5", "r2")
	w, store := h.worker()
	lease := h.lease(store)
	must(t, w.Submit(t.Context(), lease, first))
	h.want(first, withdraw.Unknown)
	must(t, w.Submit(t.Context(), lease, second))
	h.want(second, withdraw.Approved)
	h.paid(1)
	h.settle(w, first)
	must(t, w.Submit(t.Context(), lease, second))
	h.settle(w, second)
	h.want(first, withdraw.Completed)
	h.want(second, withdraw.Completed)
	h.paid(2)
}

func TestRefusalsLeadWhereTheyShould(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code int
		want withdraw.State
	}{{3310, withdraw.Held}, {3109, withdraw.Held}, {4005, withdraw.Held}, {3639, withdraw.Failed}, {4213, withdraw.Submitting}} {
		t.Run(fmt.Sprint(c.code), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			must(t, h.sandbox.Inject(sandbox.Fault{Fault: sandbox.ErrorAnswer, Code: c.code}))
			id := h.approved("25.5", "r1")
			w, store := h.worker()
			lease := h.lease(store)
			must(t, w.Submit(t.Context(), lease, id))
			h.want(id, c.want)
			h.paid(0)
			list, err := h.owner.Destinations(t.Context(), account)
			must(t, err)
			if quarantined := list[0].State == whitelist.Quarantined; quarantined != (c.code == 3310) {
				t.Errorf("after %d the destination is %s", c.code, list[0].State)
			}
			if c.want == withdraw.Submitting { // a rate limit: tried again, with a new attempt
				must(t, w.Submit(t.Context(), lease, id))
				h.settle(w, id)
				h.want(id, withdraw.Completed)
				h.paid(1)
			}
		})
	}
}

func TestItWaitsForFundsFeesAndChains(t *testing.T) {
	t.Parallel()
	no, yes := false, true
	fee, usual := "100", "2.4"
	cases := map[string]struct{ spoil, mend func(h *house) error }{
		"funds_short": {
			func(h *house) error { return h.sandbox.SetBalance("", "USDT", "26") }, // the fee does not fit
			func(h *house) error { return h.sandbox.SetBalance("", "USDT", "1000") }},
		"withdrawals_suspended": {
			func(h *house) error {
				return h.sandbox.Configure(sandbox.ConfigChange{Asset: "USDT", Chain: "TRC20", WithdrawEnabled: &no})
			},
			func(h *house) error {
				return h.sandbox.Configure(sandbox.ConfigChange{Asset: "USDT", Chain: "TRC20", WithdrawEnabled: &yes})
			}},
		"fee_above_ceiling": {
			func(h *house) error {
				return h.sandbox.Configure(sandbox.ConfigChange{Asset: "USDT", Chain: "TRC20", WithdrawalFee: &fee})
			},
			func(h *house) error {
				return h.sandbox.Configure(sandbox.ConfigChange{Asset: "USDT", Chain: "TRC20", WithdrawalFee: &usual})
			}},
	}
	for code, c := range cases {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			id := h.approved("25.5", "r1")
			must(t, c.spoil(h))
			w, store := h.worker()
			lease := h.lease(store)
			must(t, w.Submit(t.Context(), lease, id))
			got, err := h.owner.Withdrawal(t.Context(), id)
			must(t, err)
			if got.State != withdraw.Approved || got.ReasonCode != code {
				t.Fatalf("it is %s because of %q: %s", got.State, got.ReasonCode, got.Reason)
			}
			must(t, c.mend(h))
			h.clock.advance(time.Minute)
			must(t, w.Submit(t.Context(), lease, id))
			h.want(id, withdraw.Submitted)
			h.paid(1)
		})
	}
}

// TestWhatIsNotApprovedIsNotPaid rewrites the database past the code, with the owner's
// rights, after the votes were cast.
func TestWhatIsNotApprovedIsNotPaid(t *testing.T) {
	t.Parallel()
	off := "ALTER TABLE withdrawals DISABLE TRIGGER ALL; ALTER TABLE votes DISABLE TRIGGER ALL; ALTER TABLE proposals DISABLE TRIGGER ALL;"
	for name, attack := range map[string]string{
		"a vote less":           off + "DELETE FROM votes WHERE id = (SELECT id FROM votes LIMIT 1)",
		"an approver left":      "UPDATE people SET disabled_at = now() WHERE name = 'bob'",
		"a passkey revoked":     "UPDATE passkeys SET revoked_at = now() WHERE id = convert_to('passkey of bob', 'UTF8')",
		"a signature changed":   off + "UPDATE votes SET signature = set_byte(signature, 9, 255 - get_byte(signature, 9))",
		"the destination moved": "UPDATE destinations SET version = 2",
		"the destination gone":  "UPDATE destinations SET state = 'removed'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			id := h.approved("25.5", "r1")
			if _, err := h.owner.Pool.Exec(t.Context(), attack); err != nil {
				t.Fatal(err)
			}
			w, store := h.worker()
			must(t, w.Submit(t.Context(), h.lease(store), id))
			h.want(id, withdraw.Held)
			h.paid(0)
		})
	}
	t.Run("the amount column is not what is paid", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		id := h.approved("25.5", "r1")
		if _, err := h.owner.Pool.Exec(t.Context(), off+"UPDATE withdrawals SET amount = 9999"); err != nil {
			t.Fatal(err)
		}
		w, store := h.worker()
		must(t, w.Submit(t.Context(), h.lease(store), id))
		h.paid(1)
		if got := h.sandbox.Withdrawals()[0].Net; !got.Equal(decimal.RequireFromString("25.5")) {
			t.Fatalf("the receiver got %s", got)
		}
	})
}

func TestAnApprovalThatRanOutIsNotPaid(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	id := h.approved("25.5", "r1")
	h.clock.advance(policy.Default.Expiry + time.Second)
	w, store := h.worker()
	must(t, w.Submit(t.Context(), h.lease(store), id))
	h.want(id, withdraw.Expired)
	h.paid(0)
}

func TestBadVotes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx := t.Context()
	id, other := h.request("25.5", "r1"), h.request("30", "r2")
	alice := h.voters[0]
	open := func(id uuid.UUID) ([]byte, approval.Digest) {
		nonce, digest, err := h.api.OpenVote(ctx, alice.id, id, approval.Approve, h.clock.now())
		must(t, err)
		return nonce, digest
	}
	cast := func(id uuid.UUID, v approval.Vote) error {
		_, _, err := h.api.CastVote(ctx, id, v, h.relying, h.clock.now())
		return err
	}
	refused := func(what, code string, err error) {
		t.Helper()
		if !fault.Is(err, code) {
			t.Errorf("%s: %v, want %s", what, err, code)
		}
	}

	nonce, digest := open(id)
	_, otherDigest := open(other)
	refused("a signature over another request", "assertion_invalid", cast(id, h.sign(alice, nonce, approval.Approve, otherDigest)))
	refused("a nonce nobody issued", "challenge_unknown", cast(id, h.sign(alice, make([]byte, 32), approval.Approve, digest)))
	refused("a challenge of another decision", "challenge_unknown", cast(id, h.sign(alice, nonce, approval.Reject, digest)))
	stolen := h.sign(h.voters[1], nonce, approval.Approve, digest)
	refused("a challenge of another person", "challenge_unknown", cast(id, stolen))
	stolen.Person = alice.id.String()
	refused("another person's passkey", "passkey_unknown", cast(id, stolen))

	good := h.sign(alice, nonce, approval.Approve, digest)
	must(t, cast(id, good))
	refused("the same assertion again", "already_voted", cast(id, good))
	moved := good
	moved.Person = h.voters[1].id.String()
	refused("the same assertion under another name", "challenge_unknown", cast(id, moved))
	_, _, err := h.api.OpenVote(ctx, alice.id, id, approval.Approve, h.clock.now())
	refused("a second vote", "already_voted", err)

	own := h.requestBy(alice.id, "7", "r3")
	_, _, err = h.api.OpenVote(ctx, alice.id, own, approval.Approve, h.clock.now())
	refused("a vote by the requester", "requester_may_not_vote", err)
	decided := h.approved("8", "r4")
	_, _, err = h.api.OpenVote(ctx, h.voters[2].id, decided, approval.Reject, h.clock.now())
	refused("a vote on a decided request", "already_decided", err)

	late, lateDigest, err := h.api.OpenVote(ctx, h.voters[1].id, id, approval.Approve, h.clock.now())
	must(t, err)
	h.clock.advance(6 * time.Minute)
	refused("an answer after five minutes", "challenge_unknown", cast(id, h.sign(h.voters[1], late, approval.Approve, lateDigest)))
	h.clock.advance(policy.Default.Expiry)
	_, _, err = h.api.OpenVote(ctx, h.voters[1].id, id, approval.Approve, h.clock.now())
	refused("a vote after the end", "proposal_expired", err)
}
