// Package intake is the desk where payout requests are handed in. Requests that arrive
// together share one transaction: the desk takes whatever is waiting, decides each by
// the rules of package withdraw, and records all in one statement, which proves while it
// writes that what each was decided by still holds. A lone request waits for nobody.
//
// The facts that a decision needs are read in one statement before it, for all at
// once. A request to a destination that was paid to before needs not even that: it
// is decided by the facts as they were remembered, and if anything has changed, the
// recording statement leaves it out and it is decided afresh. So an ordinary request
// costs one round trip to the database, and any other two.
package intake

import (
	"bytes"
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/google/uuid"

	"sluice/internal/fault"
	"sluice/internal/policy"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

// Store is what the desk needs of the database: one round trip each.
type Store interface {
	// Facts reads what must be known of each request to decide it.
	Facts(ctx context.Context, requests []withdraw.Request) ([]withdraw.Facts, error)
	// Record writes decided requests and returns the ids of those that it wrote. It
	// leaves out every entry whose facts no longer hold: each fact that lets a request be
	// accepted must be proven by the statement that writes, because the desk also
	// hands in entries that were decided by facts of minutes ago.
	Record(ctx context.Context, entries []withdraw.Entry) (map[uuid.UUID]bool, error)
}

const (
	// clerks is how many batches are under way at once: while one commits, the
	// next is read. More would only make smaller batches.
	clerks = 2
	// mostPerBatch bounds a statement's size.
	mostPerBatch = 128
	// mostWaiting bounds the queue; beyond it a request is told to come back,
	// which is better for all than a queue that only grows.
	mostWaiting = 4096
	// rounds bounds how often one request is decided again because what it was
	// checked against changed before it could be recorded.
	rounds = 5
	// batchTimeout bounds one batch's time at the database.
	batchTimeout = 10 * time.Second
	// mostRemembered bounds the memory of facts, below a kilobyte each.
	mostRemembered = 10_000
)

// Desk takes requests. Close it to stop its clerks.
type Desk struct {
	store   Store
	policy  policy.Policy
	now     func() time.Time
	waiting chan *handed
	stop    chan struct{}
	clerks  sync.WaitGroup

	mu         sync.Mutex
	remembered map[whitelist.Key]withdraw.Facts
}

// handed is one request and where its answer goes.
type handed struct {
	request withdraw.Request
	reply   chan reply // holds one and gets one: a clerk never waits for a caller that has gone
}

type reply struct {
	answer withdraw.Answer
	err    error
}

// Open starts a desk.
func Open(store Store, p policy.Policy, now func() time.Time) *Desk {
	d := &Desk{store: store, policy: p, now: now, waiting: make(chan *handed, mostWaiting), stop: make(chan struct{}),
		remembered: map[whitelist.Key]withdraw.Facts{}}
	for range clerks {
		d.clerks.Go(d.serve)
	}
	return d
}

// Close answers what is waiting and returns when the last batch has been recorded.
// Nothing may be submitted after it.
func (d *Desk) Close() {
	close(d.stop)
	d.clerks.Wait()
}

// Submit hands in a request and waits for its answer. The answer is the same for
// ever for the same key. An error means that nothing has been recorded, or, when
// the caller's context ended first, that the request should be handed in again
// under the same key to learn what became of it.
func (d *Desk) Submit(ctx context.Context, r withdraw.Request) (withdraw.Answer, error) {
	if no := r.Shape(); no != nil {
		return withdraw.Answer{}, no
	}
	h := &handed{request: r, reply: make(chan reply, 1)}
	select {
	case d.waiting <- h:
	default:
		return withdraw.Answer{}, fault.New(fault.Unavailable, "busy", "too many requests are waiting",
			"try again in a second with the same Idempotency-Key")
	}
	select {
	case r := <-h.reply:
		return r.answer, r.err
	case <-ctx.Done():
		return withdraw.Answer{}, fault.New(fault.Conflict, "in_flight", "the request is still being recorded",
			"send it again with the same Idempotency-Key to learn its answer").Because(ctx.Err())
	}
}

func (d *Desk) serve() {
	for {
		select {
		case first := <-d.waiting:
			d.batch(d.collect(first))
		case <-d.stop:
			for {
				select {
				case first := <-d.waiting:
					d.batch(d.collect(first))
				default:
					return
				}
			}
		}
	}
}

// collect takes what is waiting behind first, and waits for nothing.
func (d *Desk) collect(first *handed) []*handed {
	batch := []*handed{first}
	for len(batch) < mostPerBatch {
		select {
		case h := <-d.waiting:
			batch = append(batch, h)
		default:
			return batch
		}
	}
	return batch
}

// batch answers every request in it. The callers' contexts do not matter here:
// a caller that hangs up must not take its neighbours' answers with it.
func (d *Desk) batch(open []*handed) {
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	for n := range rounds {
		left, err := d.round(ctx, open, n == 0)
		if err != nil {
			answerAll(open, err)
			return
		}
		if open = left; len(open) == 0 {
			return
		}
	}
	answerAll(open, fault.New(fault.Conflict, "in_flight",
		"what this request was checked against keeps changing, or the same key is being recorded elsewhere",
		"send it again with the same Idempotency-Key"))
}

// round answers what it can and returns what must be decided afresh. Within one
// round a key or a reference is taken up once; its twins wait for the next, where
// they find the first as recorded. Only the first round goes by remembered facts. An
// error comes before any answer.
func (d *Desk) round(ctx context.Context, open []*handed, byMemory bool) (left []*handed, err error) {
	var entries []withdraw.Entry
	var callers, asking []*handed
	for _, h := range open {
		if entry, ok := d.guess(h.request); ok && byMemory {
			entries, callers = append(entries, entry), append(callers, h)
		} else {
			asking = append(asking, h)
		}
	}
	facts, err := d.facts(ctx, asking)
	if err != nil {
		return nil, err
	}
	for i, h := range asking {
		if prior := facts[i].Prior; prior != nil {
			h.reply <- again(h.request, *prior)
			continue
		}
		entry, err := d.decide(h.request, facts[i])
		if err != nil {
			h.reply <- reply{err: err}
			continue
		}
		entries, callers = append(entries, entry), append(callers, h)
	}
	if len(entries) == 0 {
		return nil, nil
	}
	return d.record(ctx, entries, callers), nil
}

// guess decides a request as if nothing had changed since its destination was last
// asked about, its client were in order, and key and reference were new. All of that is
// proven or disproven by the statement that records. A refusal is never
// guessed: it would be recorded for ever, and nothing would disprove it.
func (d *Desk) guess(r withdraw.Request) (withdraw.Entry, bool) {
	d.mu.Lock()
	f, ok := d.remembered[r.Key]
	d.mu.Unlock()
	if !ok {
		return withdraw.Entry{}, false
	}
	entry, err := d.decide(r, f)
	return entry, err == nil && entry.Withdrawal.State == withdraw.Pending
}

// facts reads what must be known of the requests, and remembers what may be guessed by.
func (d *Desk) facts(ctx context.Context, asking []*handed) ([]withdraw.Facts, error) {
	if len(asking) == 0 {
		return nil, nil
	}
	requests := make([]withdraw.Request, len(asking))
	for i, h := range asking {
		requests[i] = h.request
	}
	facts, err := d.store.Facts(ctx, requests)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, f := range facts {
		if len(d.remembered) >= mostRemembered {
			clear(d.remembered)
		}
		if f.Destination != nil && f.Destination.State == whitelist.Active && f.Chain != nil {
			d.remembered[requests[i].Key] = withdraw.Facts{ClientActive: true, Destination: f.Destination,
				Chain: f.Chain, AssetKnown: f.AssetKnown, ConfigReadAt: f.ConfigReadAt}
		} else {
			delete(d.remembered, requests[i].Key)
		}
	}
	return facts, nil
}

// decide applies the rules. A mistake in them that one request brings to light must
// not end the process, which serves everybody.
func (d *Desk) decide(r withdraw.Request, f withdraw.Facts) (entry withdraw.Entry, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("intake: decide: panic: %v\n%s", p, debug.Stack())
		}
	}()
	return withdraw.Decide(r, f, d.policy, uuid.Must(uuid.NewV7()), d.now())
}

// record writes the entries and answers their callers; it returns those that
// something forestalled.
func (d *Desk) record(ctx context.Context, entries []withdraw.Entry, callers []*handed) (left []*handed) {
	recorded, err := d.store.Record(ctx, entries)
	if err != nil && len(entries) > 1 {
		// One entry that the database will not have must not take its neighbours
		// with it. If the batch was committed after all, each finds itself recorded.
		for i := range entries {
			left = append(left, d.record(ctx, entries[i:i+1], callers[i:i+1])...)
		}
		return left
	}
	for i, h := range callers {
		switch {
		case err != nil:
			h.reply <- reply{err: err}
		case recorded[entries[i].Withdrawal.ID]:
			h.reply <- reply{answer: entries[i].Answer}
		default:
			left = append(left, h)
		}
	}
	return left
}

// again answers a key that has been used: the stored answer for the same body, a
// refusal for another.
func again(r withdraw.Request, prior withdraw.Prior) reply {
	if !bytes.Equal(prior.BodyHash, r.BodyHash[:]) {
		return reply{err: fault.New(fault.Invalid, "idempotency_key_reused",
			"this Idempotency-Key was first sent with another body",
			"use a new key for a new payout; send the first body again to see its answer")}
	}
	return reply{answer: prior.Answer}
}

func answerAll(open []*handed, err error) {
	for _, h := range open {
		h.reply <- reply{err: err}
	}
}
