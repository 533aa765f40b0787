// Package worker is the process that pays. It alone holds an exchange key, for one
// account, and the key that signs the record's checkpoints. Any number of workers
// may run for an account; the one that holds its lease works, the others wait.
package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"sluice/internal/approval"
	"sluice/internal/audit"
	"sluice/internal/config"
	"sluice/internal/doctor"
	"sluice/internal/exchange"
	"sluice/internal/exchange/coinex"
	"sluice/internal/httpapi"
	"sluice/internal/pgstore"
	"sluice/internal/process"
	"sluice/internal/submit"
	"sluice/internal/withdraw"
)

// Config is everything a worker is told at start.
type Config struct {
	DatabaseURL   config.Secret
	Listen        string // health and metrics; "" for none
	Account       string
	CoinexURL     string
	AccessID      config.Secret
	SecretKey     config.Secret
	Key           doctor.Key           // what people say of the exchange key
	Keys          func() (Keys, error) // the keys as they are set now; nil: they stay as they are
	CheckpointKey config.Secret        // note signer, as `sluice key` makes it
	Relying       approval.Relying
	Settings      submit.Settings
}

// ReadConfig reads a worker's settings from an environment.
func ReadConfig(getenv func(string) string) (Config, error) {
	r := config.Read(getenv)
	keys, err := readKeys(getenv)
	c := Config{
		DatabaseURL: r.DatabaseURL(), Listen: r.Text("SLUICE_LISTEN", ""),
		Account: r.Text("SLUICE_ACCOUNT", "main"), CoinexURL: r.Text("SLUICE_COINEX_URL", "https://api.coinex.com"),
		AccessID: keys.AccessID, SecretKey: keys.SecretKey, Key: keys.About, Keys: func() (Keys, error) { return readKeys(getenv) },
		CheckpointKey: r.Secret("SLUICE_CHECKPOINT_KEY"), Relying: r.Relying(),
		Settings: submit.Settings{
			Quiet: r.Duration("SLUICE_QUIET_PERIOD", submit.Defaults.Quiet), Sweep: r.Duration("SLUICE_SWEEP", submit.Defaults.Sweep),
			Refresh: r.Duration("SLUICE_REFRESH", submit.Defaults.Refresh), Lease: r.Duration("SLUICE_LEASE", submit.Defaults.Lease),
		},
	}
	return c, errors.Join(r.Err(), err)
}

// Options are what `sluice dev` adds and tests replace.
type Options struct {
	Listener net.Listener // nil means Config.Listen
	Now      func() time.Time
	Log      *slog.Logger
}

// Worker is one process of an account.
type Worker struct {
	config   Config
	options  Options
	store    *pgstore.Store
	exchange *account
	submit   *submit.Submitter
	signer   *audit.Signer
	id       uuid.UUID
	registry *prometheus.Registry
	metrics  *metrics
	wallet   *wallet
	worked   *coinex.Client // the one whose key the exchange has accepted; only refresh uses it
}

// Run works until ctx ends. It finishes or records what is in flight before it returns.
func Run(ctx context.Context, c Config, o Options) error {
	store, err := pgstore.Open(ctx, string(c.DatabaseURL))
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.CurrentSchema(ctx); err != nil {
		return err
	}
	client, err := coinex.New(coinex.Config{BaseURL: c.CoinexURL, AccessID: string(c.AccessID), SecretKey: string(c.SecretKey), Now: o.Now})
	if err != nil {
		return err
	}
	signer, err := audit.NewSigner(string(c.CheckpointKey))
	if err != nil {
		return fmt.Errorf("SLUICE_CHECKPOINT_KEY: %w", err)
	}
	at := newAccount(client, Keys{AccessID: c.AccessID, SecretKey: c.SecretKey, About: c.Key})
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	w := &Worker{config: c, options: o, store: store, exchange: at, signer: signer, id: uuid.New(),
		registry: registry, metrics: newMetrics(registry), wallet: newWallet(),
		submit: submit.New(c.Account, at, store, c.Relying, c.Settings, o.Now, o.Log)}

	var parts sync.WaitGroup
	defer parts.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parts.Go(func() { w.every(ctx, time.Second, "sequence the record", w.sequence) })
	parts.Go(func() { w.guard(ctx) })
	if err := w.serve(ctx, &parts, cancel); err != nil {
		cancel(err)
		return err
	}
	o.Log.InfoContext(ctx, "worker runs", "account", c.Account, "worker", w.id, "exchange", c.CoinexURL)
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// serve answers health checks beside the work, if it is asked to.
func (w *Worker) serve(ctx context.Context, parts *sync.WaitGroup, cancel context.CancelCauseFunc) error {
	listener := w.options.Listener
	if listener == nil && w.config.Listen == "" {
		return nil
	}
	if listener == nil {
		var err error
		if listener, err = process.Listen(w.config.Listen); err != nil {
			return err
		}
	}
	w.options.Log.InfoContext(ctx, "worker answers health checks", "address", listener.Addr().String())
	ops := httpapi.NewOps(httpapi.Ops{Log: w.options.Log, Registry: w.registry, Ready: w.store.CurrentSchema, Now: w.options.Now})
	parts.Go(func() {
		if err := process.Serve(ctx, listener, httpapi.NewServer(ops, w.options.Log)); err != nil {
			cancel(err)
		}
	})
	return nil
}

// guard takes the account's lease whenever it is free, and works as long as it
// holds it.
func (w *Worker) guard(ctx context.Context) {
	pause := w.config.Settings.Lease / 4
	for ctx.Err() == nil {
		lease, ok, err := w.store.TakeLease(ctx, w.config.Account, w.id, w.config.Settings.Lease)
		if err != nil && ctx.Err() == nil {
			w.options.Log.ErrorContext(ctx, "cannot take the account's lease", "error", err)
		}
		if ok {
			w.work(ctx, lease)
		}
		wait(ctx, pause)
	}
}

// work runs everything of the account under a lease until ctx ends or the lease
// is lost. Losing it is harmless at any moment: an attempt can only be written
// under the lease of the moment.
func (w *Worker) work(ctx context.Context, lease pgstore.LeaseOf) {
	log := w.options.Log.With("account", lease.Account, "fence", lease.Fence)
	log.InfoContext(ctx, "lease taken")
	ctx, lose := context.WithCancel(ctx)
	defer lose()

	var parts sync.WaitGroup
	parts.Go(func() { defer lose(); w.renew(ctx, lease) })
	parts.Go(func() { w.every(ctx, w.config.Settings.Refresh, "read the exchange", w.refresh) })
	parts.Go(func() { w.watch(ctx) })
	parts.Go(func() { w.every(ctx, time.Second, "write the futures wallet", w.writeFutures) })
	// Whatever the worker before left open is looked up before anything new is sent.
	swept, first := make(chan struct{}), sync.Once{}
	parts.Go(func() {
		w.every(ctx, w.config.Settings.Sweep, "sweep", func(ctx context.Context) error {
			err := w.submit.Sweep(ctx)
			if err == nil {
				first.Do(func() { close(swept) })
			}
			return err
		})
	})
	select {
	case <-swept:
		if err := w.jobs(ctx, lease); err != nil {
			log.ErrorContext(ctx, "jobs cannot run", "error", err)
		}
	case <-ctx.Done():
	}
	lose()
	parts.Wait()
	if err := w.store.ReleaseLease(context.WithoutCancel(ctx), lease); err != nil {
		log.WarnContext(ctx, "lease not released; it runs out by itself", "error", err)
	}
	log.InfoContext(ctx, "lease given up")
}

// renew extends the lease until it is lost or ctx ends.
func (w *Worker) renew(ctx context.Context, lease pgstore.LeaseOf) {
	lost := w.options.Now().Add(w.config.Settings.Lease)
	for wait(ctx, w.config.Settings.Lease/4) {
		now := w.options.Now()
		l, ok, err := w.store.TakeLease(ctx, lease.Account, lease.Holder, w.config.Settings.Lease)
		switch {
		case err == nil && ok && l.Fence == lease.Fence:
			lost = now.Add(w.config.Settings.Lease)
		case err == nil, !now.Before(lost):
			w.options.Log.WarnContext(ctx, "lease lost", "account", lease.Account, "fence", lease.Fence)
			return
		}
	}
}

// jobs runs River on the account's queue until ctx ends. One job at a time:
// submissions of an account are serial, which the exchange's limits ask for.
func (w *Worker) jobs(ctx context.Context, lease pgstore.LeaseOf) error {
	workers := river.NewWorkers()
	river.AddWorker(workers, &submitWorker{worker: w, lease: lease})
	client, err := river.NewClient(riverpgxv5.New(w.store.Pool), &river.Config{
		Queues:  map[string]river.QueueConfig{withdraw.Queue(lease.Account): {MaxWorkers: 1}},
		Workers: workers, Logger: w.options.Log, MaxAttempts: 1,
		// The default of 100 ms would cost half of it between the last vote and the request.
		FetchCooldown: 2 * time.Millisecond, FetchPollInterval: time.Second,
		// The worker's role does not own River's indexes.
		ReindexerSchedule: river.NeverSchedule(),
	})
	if err != nil {
		return err
	}
	// The client outlives ctx so that the job under way can be finished and recorded.
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	return client.Stop(stop)
}

type submitWorker struct {
	river.WorkerDefaults[withdraw.SubmitJob]
	worker *Worker
	lease  pgstore.LeaseOf
}

// Work submits one withdrawal. What becomes of it is in our tables; an error here
// only says that the step could not be made now, and the sweep makes it later.
func (s *submitWorker) Work(ctx context.Context, job *river.Job[withdraw.SubmitJob]) error {
	id, err := uuid.Parse(job.Args.WithdrawalID)
	if err != nil {
		return river.JobCancel(err)
	}
	s.worker.exchange.sending.RLock()
	defer s.worker.exchange.sending.RUnlock()
	began := s.worker.options.Now()
	err = s.worker.submit.Submit(ctx, s.lease, id)
	s.worker.keepTraces(context.WithoutCancel(ctx), id, began)
	return err
}

// keepTraces keeps what went over the wire for a withdrawal, for the exchange's support
// (FAQ, last lines). It is evidence beside the outcome, which is recorded already.
func (w *Worker) keepTraces(ctx context.Context, id uuid.UUID, began time.Time) {
	for _, e := range w.exchange.now().Exchanges() {
		if e.Method != http.MethodPost || e.At.Before(began.Truncate(time.Millisecond)) {
			continue
		}
		trace, err := json.Marshal(e)
		if err == nil {
			err = w.store.KeepTrace(ctx, id, []byte(e.RequestBody), trace)
		}
		if err != nil {
			w.options.Log.WarnContext(ctx, "the trace of a submission was not kept", "withdrawal", id, "error", err)
		}
	}
}

func clockText(o exchange.ClockOffset) string {
	return fmt.Sprintf("the exchange's clock is %s from ours, give or take %s", o.Offset.Round(time.Millisecond), o.Error.Round(time.Millisecond))
}

// sequence numbers new events of the record and signs a checkpoint over them. Any
// worker may; a lock lets one at a time.
func (w *Worker) sequence(ctx context.Context) error {
	const most = 5000
	for {
		n, err := w.store.Sequence(ctx, most)
		if err != nil {
			return err
		}
		if n < most {
			break
		}
	}
	_, _, err := w.store.Checkpoint(ctx, w.signer)
	return err
}

// every does something at once and then with a pause after each time, until ctx ends.
func (w *Worker) every(ctx context.Context, pause time.Duration, what string, do func(context.Context) error) {
	for {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			w.options.Log.ErrorContext(ctx, "cannot "+what, "account", w.config.Account, "error", err)
		}
		if !wait(ctx, pause) {
			return
		}
	}
}

// wait pauses, and answers false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
