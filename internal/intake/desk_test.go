package intake_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/intake"
	"sluice/internal/policy"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

// noon is the moment at which these tests happen.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// shelf is a store in memory that keeps the promises of the real one.
type shelf struct {
	mu       sync.Mutex
	minimum  decimal.Decimal
	version  int // of the destination
	state    whitelist.State
	rows     map[string]withdraw.Entry // by idempotency key
	asked    int                       // requests whose facts were read
	onRecord func(entries []withdraw.Entry) error
	onFacts  func() error
}

func newShelf() *shelf {
	return &shelf{minimum: decimal.NewFromInt(1), version: 1, state: whitelist.Active, rows: map[string]withdraw.Entry{}}
}

func (s *shelf) Facts(_ context.Context, requests []withdraw.Request) ([]withdraw.Facts, error) {
	if s.onFacts != nil {
		if err := s.onFacts(); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked += len(requests)
	facts := make([]withdraw.Facts, len(requests))
	for i, r := range requests {
		facts[i] = withdraw.Facts{
			ClientActive: true, AssetKnown: true, ConfigReadAt: &noon,
			Destination: &withdraw.Listed{ID: uuid.NameSpaceDNS, Version: s.version, State: s.state, Reason: "it was refused"},
			Chain: &withdraw.ChainFact{Version: 1, ChainConfig: exchange.ChainConfig{Asset: r.Asset, Chain: r.Chain,
				AssetEnabled: true, ChainEnabled: true, MinAmount: s.minimum, Fee: decimal.NewFromInt(1), Precision: 6}},
		}
		if e, ok := s.rows[r.IdempotencyKey]; ok {
			facts[i].Prior = &withdraw.Prior{BodyHash: e.Request.BodyHash[:], Answer: e.Answer}
		}
	}
	return facts, nil
}

func (s *shelf) Record(_ context.Context, entries []withdraw.Entry) (map[uuid.UUID]bool, error) {
	if s.onRecord != nil {
		if err := s.onRecord(entries); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	recorded := map[uuid.UUID]bool{}
	for _, e := range entries {
		if _, taken := s.rows[e.Request.IdempotencyKey]; taken {
			continue
		}
		if e.Withdrawal.State != withdraw.Refused && (e.DestinationVersion != s.version || s.state != whitelist.Active) {
			continue
		}
		s.rows[e.Request.IdempotencyKey] = e
		recorded[e.Withdrawal.ID] = true
	}
	return recorded, nil
}

func (s *shelf) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for k := range s.rows {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func open(t *testing.T, s intake.Store) *intake.Desk {
	d := intake.Open(s, policy.Default, func() time.Time { return noon })
	t.Cleanup(d.Close)
	return d
}

// request is valid, with its own key and reference.
func request(name string) withdraw.Request {
	return withdraw.Request{
		Requester: "client:payroll", ClientKey: clientKey, IdempotencyKey: "key-" + name, Reference: "ref-" + name,
		BodyHash: [32]byte{1}, Amount: decimal.RequireFromString("25.5"), Purpose: "wages",
		Key: whitelist.Key{Account: "main", Method: exchange.OnChain, Asset: "USDT", Chain: "TRC20",
			Address: "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8"},
	}
}

func submit(t *testing.T, d *intake.Desk, r withdraw.Request) withdraw.Answer {
	t.Helper()
	a, err := d.Submit(t.Context(), r)
	if err != nil {
		t.Fatalf("%s: %v", r.IdempotencyKey, err)
	}
	return a
}

// gone is the context of a caller that has hung up.
func gone() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// patient is a context that says when its caller begins to wait for the answer, which is
// after the request has been handed in.
type patient struct {
	context.Context
	waits func()
}

func (p patient) Done() <-chan struct{} {
	p.waits()
	return p.Context.Done()
}

// busyClerks has every clerk of a desk at work on a request of its own until free is
// called; next then receives what each later batch tries to record.
func busyClerks(t *testing.T, s *shelf, d *intake.Desk) (next chan []withdraw.Entry, free func()) {
	t.Helper()
	const clerks = 2
	next, gate := make(chan []withdraw.Entry, 1000), make(chan struct{})
	s.onRecord = func(entries []withdraw.Entry) error {
		next <- entries
		<-gate
		return nil
	}
	for i := range clerks {
		if _, err := d.Submit(gone(), request(fmt.Sprint("busy", i))); !fault.Is(err, "in_flight") {
			t.Fatal(err)
		}
		<-next
	}
	return next, sync.OnceFunc(func() { close(gate) })
}

func TestWhatWaitsIsRecordedTogether(t *testing.T) {
	s := newShelf()
	d := open(t, s)
	next, free := busyClerks(t, s, d)
	defer free()
	for i := range 50 {
		if _, err := d.Submit(gone(), request(fmt.Sprint(i))); !fault.Is(err, "in_flight") {
			t.Fatal(err)
		}
	}
	free()
	// The two clerks may share the queue between them, each in one batch.
	batches := 0
	for got := 0; got < 50; batches++ {
		got += len(<-next)
	}
	if batches > 2 {
		t.Errorf("50 waiting requests were recorded in %d batches", batches)
	}
	if s.asked != 1 {
		t.Errorf("facts were read for %d requests; after the first the destination was known", s.asked)
	}
}

func TestTwinsInOneBatchGiveOneRecordAndOneAnswer(t *testing.T) {
	s := newShelf()
	d := open(t, s)
	_, free := busyClerks(t, s, d)
	defer free()
	const twins = 20
	var waiting sync.WaitGroup
	waiting.Add(twins)
	answers := make(chan string, twins)
	for range twins {
		once := sync.OnceFunc(waiting.Done)
		go func() {
			a, err := d.Submit(patient{t.Context(), once}, request("twin"))
			answers <- fmt.Sprint(a.Status, string(a.Body), err)
		}()
	}
	waiting.Wait()
	free()
	first := <-answers
	for range twins - 1 {
		if a := <-answers; a != first {
			t.Fatalf("twins got different answers:\n%s\n%s", first, a)
		}
	}
	if !strings.HasPrefix(first, "201") {
		t.Fatal(first)
	}
	if keys := s.keys(); len(keys) != 3 {
		t.Errorf("recorded %v", keys)
	}
}

func TestOtherBodyUnderTheSameKeyIsRefused(t *testing.T) {
	d := open(t, newShelf())
	submit(t, d, request("a"))
	other := request("a")
	other.BodyHash = [32]byte{2}
	if _, err := d.Submit(t.Context(), other); !fault.Is(err, "idempotency_key_reused") {
		t.Fatal(err)
	}
}

func TestOneBadEntryLeavesItsNeighboursAlone(t *testing.T) {
	s := newShelf()
	d := open(t, s)
	submit(t, d, request("known"))
	_, free := busyClerks(t, s, d)
	defer free()
	broken := errors.New("the database will not have it")
	held := s.onRecord
	s.onRecord = func(entries []withdraw.Entry) error {
		held(entries) //nolint:errcheck // always nil
		if slices.ContainsFunc(entries, func(e withdraw.Entry) bool { return e.Request.IdempotencyKey == "key-bad" }) {
			return broken
		}
		return nil
	}
	var waiting, done sync.WaitGroup
	for _, name := range []string{"1", "2", "bad", "3", "4"} {
		waiting.Add(1)
		once := sync.OnceFunc(waiting.Done)
		done.Go(func() {
			a, err := d.Submit(patient{t.Context(), once}, request(name))
			if name == "bad" && !errors.Is(err, broken) || name != "bad" && (err != nil || a.Status != 201) {
				t.Errorf("%s: %d %v", name, a.Status, err)
			}
		})
	}
	waiting.Wait()
	free()
	done.Wait()
}

func TestCallerThatHangsUpFindsItsAnswerLater(t *testing.T) {
	s := newShelf()
	d := open(t, s)
	if _, err := d.Submit(gone(), request("a")); err != nil && !fault.Is(err, "in_flight") {
		t.Fatal(err)
	}
	if a := submit(t, d, request("a")); a.Status != 201 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	if keys := s.keys(); len(keys) != 1 {
		t.Errorf("recorded %v", keys)
	}
}

func TestFullQueueSaysBusy(t *testing.T) {
	s := newShelf()
	d := open(t, s)
	_, free := busyClerks(t, s, d)
	defer free()
	for i := range 100_000 {
		_, err := d.Submit(gone(), request(fmt.Sprint(i)))
		if fault.Is(err, "busy") {
			return
		}
		if !fault.Is(err, "in_flight") {
			t.Fatal(err)
		}
	}
	t.Fatal("the queue took 100,000 requests")
}

func TestCloseRecordsWhatWaits(t *testing.T) {
	s := newShelf()
	d := intake.Open(s, policy.Default, func() time.Time { return noon })
	_, free := busyClerks(t, s, d)
	for i := range 300 {
		if _, err := d.Submit(gone(), request(fmt.Sprint(i))); !fault.Is(err, "in_flight") {
			t.Fatal(err)
		}
	}
	free()
	d.Close()
	if n := len(s.keys()); n != 302 {
		t.Errorf("%d of 302 were recorded", n)
	}
}

func TestNothingIsRecordedWithoutFacts(t *testing.T) {
	s := newShelf()
	down := errors.New("the database is down")
	s.onFacts = func() error { return down }
	d := open(t, s)
	if _, err := d.Submit(t.Context(), request("a")); !errors.Is(err, down) {
		t.Fatal(err)
	}
	if keys := s.keys(); len(keys) != 0 {
		t.Errorf("recorded %v", keys)
	}
}

func TestMalformedRequestNeverReachesTheStore(t *testing.T) {
	s := newShelf()
	s.onFacts = func() error { t.Error("facts were read"); return nil }
	d := open(t, s)
	r := request("a")
	r.Purpose = "a\x00b" // Postgres would refuse the whole batch for it
	if _, err := d.Submit(t.Context(), r); !fault.Is(err, "text_invalid") {
		t.Fatal(err)
	}
}

func TestWhatKeepsChangingIsAskedToComeBack(t *testing.T) {
	s := newShelf()
	d := open(t, s)
	s.onRecord = func([]withdraw.Entry) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.version++
		return nil
	}
	if _, err := d.Submit(t.Context(), request("a")); !fault.Is(err, "in_flight") {
		t.Fatal(err)
	}
	if keys := s.keys(); len(keys) != 0 {
		t.Errorf("recorded %v", keys)
	}
}

// A decision by memory must never outlive what it was made by.
func TestMemoryIsProvenWhenRecording(t *testing.T) {
	s := newShelf()
	d := open(t, s)
	submit(t, d, request("a"))
	if submit(t, d, request("b")); s.asked != 1 {
		t.Fatalf("facts were read for %d requests", s.asked)
	}
	s.mu.Lock()
	s.version, s.state = 2, whitelist.Quarantined
	s.mu.Unlock()
	if a := submit(t, d, request("c")); a.Status != 422 || !strings.Contains(string(a.Body), "destination_quarantined") {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	if s.rows["key-c"].Withdrawal.State != withdraw.Refused {
		t.Error("the refusal is not recorded")
	}
}

// What the memory would refuse may be allowed by now, and a refusal is for ever.
func TestMemoryNeverRefuses(t *testing.T) {
	s := newShelf()
	d := open(t, s)
	submit(t, d, request("a"))
	s.mu.Lock()
	s.minimum = decimal.RequireFromString("0.1")
	s.mu.Unlock()
	small := request("b")
	small.Amount = decimal.RequireFromString("0.5")
	if a := submit(t, d, small); a.Status != 201 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
}

// A mistake in the rules that one request brings to light must not end the process.
func TestPanicWhileDecidingIsOneRequestsError(t *testing.T) {
	broken := true
	d := intake.Open(newShelf(), policy.Default, func() time.Time {
		if broken {
			panic("a mistake")
		}
		return noon
	})
	defer d.Close()
	if _, err := d.Submit(t.Context(), request("a")); err == nil || !strings.Contains(err.Error(), "a mistake") {
		t.Fatal(err)
	}
	broken = false
	submit(t, d, request("a"))
}
