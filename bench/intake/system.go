package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/approval"
	"sluice/internal/config"
	"sluice/internal/exchange"
	"sluice/internal/identity"
	"sluice/internal/pgstore"
	"sluice/internal/pgstore/pgserver"
	"sluice/internal/process"
	"sluice/internal/process/api"
	"sluice/internal/whitelist"
)

const (
	account  = "main"
	operator = "operator:bench"
	// The two clients differ so that each side's rows can be counted.
	intakeClient    = "intake"
	referenceClient = "reference"
)

// listed is the destination that everything is paid to.
var listed = whitelist.Key{Account: account, Method: exchange.OnChain, Asset: "USDT", Chain: "TRC20",
	Address: "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8"}

// chains is what a worker would have read from the exchange.
var chains = []exchange.ChainConfig{{Asset: "USDT", Chain: "TRC20", AssetEnabled: true, ChainEnabled: true, InterUserEnabled: true,
	MinAmount: decimal.NewFromInt(1), Fee: decimal.NewFromInt(1), Precision: 6}}

// system is what is measured: a Postgres of its own with the settings of a careful
// operator, and the api process as cmd/api wires it, in this process. There is no
// worker: what it does in the background would fall on one side or the other by chance.
type system struct {
	postgres *pgserver.Server
	owner    *pgstore.Store
	address  string // of the api
	key      ed25519.PrivateKey
	failed   chan error
	stops    []func()

	accepted   int64 // answers 201 so far
	referenced int64 // transactions of the reference so far
}

// start brings everything up. Stop it even when an error comes back.
func start(ctx context.Context) (*system, error) {
	s := &system{failed: make(chan error, 1)}
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return s, err
	}
	s.stops = append(s.stops, func() { pgserver.Remove(context.Background(), dir) }) //nolint:errcheck // a folder for throw-away data
	if err := os.Chmod(dir, 0o711); err != nil {                                     // Postgres may run under another account
		return s, err
	}
	s.postgres, err = pgserver.Start(ctx, pgserver.Options{Dir: dir, Progress: func(line string) { fmt.Fprintln(os.Stderr, line) },
		Settings: map[string]string{"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "jit": "off"}})
	if err != nil {
		return s, err
	}
	s.stops = append(s.stops, func() {
		stop, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.postgres.Stop(stop); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	url := s.postgres.URL(pgserver.Superuser, "postgres")
	if err := pgstore.Migrate(ctx, url, nil); err != nil {
		return s, err
	}
	if s.owner, err = pgstore.Open(ctx, url); err != nil {
		return s, err
	}
	s.stops = append(s.stops, s.owner.Close)
	if err := s.seed(ctx); err != nil {
		return s, err
	}
	return s, s.serve()
}

func (s *system) stop() {
	for i := len(s.stops) - 1; i >= 0; i-- {
		s.stops[i]()
	}
}

func (s *system) seed(ctx context.Context) error {
	now := time.Now()
	if err := s.owner.AddAccount(ctx, account, operator, now); err != nil {
		return err
	}
	if _, err := s.owner.AddDestination(ctx, listed, "bench", operator, now); err != nil {
		return err
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	s.key = private
	for _, name := range []string{intakeClient, referenceClient} {
		if err := s.owner.AddClient(ctx, identity.Client{Name: name, PublicKey: public, Accounts: []string{account},
			Scopes: []string{identity.ScopeWrite}}, operator, now); err != nil {
			return err
		}
	}
	return s.owner.WriteChains(ctx, account, chains, now)
}

// serve runs the api, with its log in a file, as a service manager would keep it.
func (s *system) serve() error {
	log, err := os.CreateTemp("", "sluice-bench-*.log")
	if err != nil {
		return err
	}
	s.stops = append(s.stops, func() { log.Close(); os.Remove(log.Name()) })
	listener, err := process.Listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	s.address = listener.Addr().String()
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.failed <- api.Run(ctx, api.Config{
			DatabaseURL: config.Secret(s.postgres.URL("sluice_api", "postgres")),
			Relying:     approval.Relying{ID: "localhost", Origins: []string{"http://localhost:" + port}},
		}, api.Options{Listener: listener, Now: time.Now, Log: slog.New(slog.NewJSONHandler(log, nil)), Build: "bench"})
	}()
	s.stops = append(s.stops, func() { cancel(); <-done })
	return nil
}

// level ground before each measurement: the exchange's configuration fresh, the
// planner's statistics of now, and a checkpoint just made, so that neither side pays
// for pages that the other has dirtied.
func (s *system) ground(ctx context.Context) error {
	if err := s.owner.WriteChains(ctx, account, chains, time.Now()); err != nil {
		return err
	}
	for _, statement := range []string{"VACUUM ANALYZE", "CHECKPOINT"} {
		if _, err := s.owner.Pool.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// proveRows compares what was answered with what is in the tables, for both sides:
// a figure for work that was not done is worth nothing.
func (s *system) proveRows(ctx context.Context) error {
	for _, side := range []struct {
		client string
		want   int64
	}{{intakeClient, s.accepted}, {referenceClient, s.referenced}} {
		var withdrawals, proposals, events int64
		err := s.owner.Pool.QueryRow(ctx, `SELECT
			(SELECT count(*) FROM withdrawals WHERE requester = $1 AND state = 'pending'),
			(SELECT count(*) FROM proposals p JOIN withdrawals w ON w.id = p.withdrawal_id AND w.digest = p.digest WHERE w.requester = $1),
			(SELECT count(*) FROM audit_events e JOIN withdrawals w ON w.id = e.withdrawal_id WHERE e.actor = $1)`,
			"client:"+side.client).Scan(&withdrawals, &proposals, &events)
		if err != nil {
			return fmt.Errorf("count rows: %w", err)
		}
		if withdrawals != side.want || proposals != side.want || events != side.want {
			return fmt.Errorf("%s: %d requests were answered as done, and there are %d withdrawals, %d proposals and %d audit events",
				side.client, side.want, withdrawals, proposals, events)
		}
	}
	return nil
}
