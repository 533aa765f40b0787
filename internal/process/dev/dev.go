// Package dev brings up the whole of Sluice on one machine with nothing installed
// but Go: Postgres, migrations, the sandbox exchange, the api and the worker,
// wired exactly as in production, with demo people, destinations and funds.
package dev

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice/internal/approval"
	"sluice/internal/audit"
	"sluice/internal/config"
	"sluice/internal/exchange/sandbox"
	"sluice/internal/identity"
	"sluice/internal/pgstore"
	"sluice/internal/pgstore/pgserver"
	"sluice/internal/process"
	"sluice/internal/process/api"
	"sluice/internal/process/worker"
	"sluice/internal/submit"
	"sluice/web"
)

// Account is the one exchange account of the dev stack.
const Account = "main"

// Options are those of `sluice dev`.
type Options struct {
	Data     string // folder of all state
	Listen   string // of the api; port 0 picks a free one
	Sandbox  string // of the sandbox
	CoinEx   string // another exchange address in place of the sandbox, with the test key
	Pace     sandbox.Pace
	Progress func(string) // one line at a time; may be nil
	Log      *slog.Logger
	Build    string
}

// Stack is a running Sluice.
type Stack struct {
	Relying  approval.Relying
	Origin   string           // where people and services reach it
	Exchange string           // address of the exchange
	Sandbox  *sandbox.Sandbox // nil with another exchange
	Owner    *pgstore.Store   // as the database's owner, for operators and tests
	Verifier string           // the key that checks the record's checkpoints
	Software *identity.Software

	postgres *pgserver.Server
	data     string
	clients  map[string]ed25519.PrivateKey
	failed   chan error
	stops    []func() // in order of starting; run in reverse
}

// Settings of the dev worker: everything quick, since its exchange answers at once.
var Settings = submit.Settings{Quiet: 3 * time.Second, Sweep: 500 * time.Millisecond, Refresh: 10 * time.Second, Lease: 4 * time.Second}

// Start brings everything up and returns when the first request can be made. Stop it
// even when an error comes back.
func Start(ctx context.Context, o Options) (*Stack, error) {
	s := &Stack{data: o.Data, clients: map[string]ed25519.PrivateKey{}, failed: make(chan error, 4)}
	say := o.Progress
	if say == nil {
		say = func(string) {}
	}
	// The ports first: a second start by mistake must fail before it touches the data.
	apiListener, err := process.Listen(o.Listen)
	if err != nil {
		return s, fmt.Errorf("%w (--listen)", err)
	}
	s.stops = append(s.stops, func() { apiListener.Close() })
	_, port, err := net.SplitHostPort(apiListener.Addr().String())
	if err != nil {
		return s, err
	}
	s.Origin = "http://localhost:" + port // passkeys are bound to a name, never to an IP address
	s.Relying = approval.Relying{ID: "localhost", Origins: []string{s.Origin}, Software: true}

	if err := os.MkdirAll(o.Data, 0o755); err != nil {
		return s, fmt.Errorf("the data folder cannot be made: %w", err)
	}
	// Postgres before the sandbox: its lock on the folder keeps a second stack from
	// writing over the first one's sandbox.
	if err := s.startPostgres(ctx, say); err != nil {
		return s, err
	}
	if err := s.startSandbox(ctx, o); err != nil {
		return s, err
	}
	if err := s.seed(ctx, say); err != nil {
		return s, err
	}
	if err := s.startWorker(ctx, o); err != nil {
		return s, err
	}
	s.startAPI(o, apiListener)
	if err := s.ready(ctx); err != nil {
		return s, err
	}
	return s, s.note()
}

// Failed delivers the error of a part that ended by itself.
func (s *Stack) Failed() <-chan error { return s.failed }

// Stop ends the parts in the reverse of their order: the api first, so that
// nothing new comes in; the worker finishes what is in flight; Postgres last.
func (s *Stack) Stop() {
	for len(s.stops) > 0 {
		last := len(s.stops) - 1
		stop := s.stops[last]
		s.stops = s.stops[:last]
		stop()
	}
}

// background runs a part until Stop comes to it.
func (s *Stack) background(name string, run func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			s.failed <- fmt.Errorf("%s: %w", name, err)
		}
	}()
	s.stops = append(s.stops, func() { cancel(); <-done })
}

func (s *Stack) startSandbox(ctx context.Context, o Options) error {
	if o.CoinEx != "" {
		s.Exchange = o.CoinEx
		return nil
	}
	listener, err := process.Listen(o.Sandbox)
	if err != nil {
		return fmt.Errorf("%w (--sandbox)", err)
	}
	s.stops = append(s.stops, func() { listener.Close() })
	if s.Sandbox, err = sandbox.Open(sandbox.Options{Auto: true, Pace: o.Pace, StatePath: filepath.Join(o.Data, "sandbox.json")}); err != nil {
		return err
	}
	for _, d := range destinations {
		if err := s.Sandbox.AddWhitelist(sandbox.DefaultAccount, sandbox.Entry{
			Method: string(d.Method), Asset: d.Asset, Chain: d.Chain, Address: d.Address, Memo: d.Memo}); err != nil {
			return err
		}
	}
	s.Exchange = "http://" + listener.Addr().String()
	server := &http.Server{Handler: s.Sandbox, ReadHeaderTimeout: 5 * time.Second}
	s.background("sandbox", func(ctx context.Context) error { return process.Serve(ctx, listener, server) })
	return nil
}

// database is the name of Sluice's database in the embedded server.
const database = "sluice"

func (s *Stack) startPostgres(ctx context.Context, say func(string)) error {
	say("starting Postgres")
	var err error
	if s.postgres, err = pgserver.Start(ctx, pgserver.Options{Dir: filepath.Join(s.data, "postgres"), Progress: say}); err != nil {
		return err
	}
	s.stops = append(s.stops, func() {
		stop, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.postgres.Stop(stop); err != nil {
			say(err.Error())
		}
	})
	go func() {
		<-s.postgres.Exited()
		s.failed <- fmt.Errorf("postgres: %w", s.postgres.Err())
	}()
	if err := createDatabase(ctx, s.postgres.URL(pgserver.Superuser, "postgres")); err != nil {
		return err
	}
	owner := s.postgres.URL(pgserver.Superuser, database)
	if err := pgstore.Migrate(ctx, owner, say); err != nil {
		return err
	}
	if s.Owner, err = pgstore.Open(ctx, owner); err != nil {
		return err
	}
	s.stops = append(s.stops, s.Owner.Close)
	return nil
}

func createDatabase(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	defer conn.Close(ctx)
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database).Scan(&exists); err != nil || exists {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+database)
	return err
}

// DatabaseURL is the database's address for one of its roles.
func (s *Stack) DatabaseURL(role string) config.Secret {
	return config.Secret(s.postgres.URL(role, database))
}

// WorkerConfig is what the dev worker is told; tests start more workers with it.
func (s *Stack) WorkerConfig() (worker.Config, error) {
	key, err := s.checkpointKey()
	if err != nil {
		return worker.Config{}, err
	}
	return worker.Config{
		DatabaseURL: s.DatabaseURL("sluice_worker"), Account: Account, CoinexURL: s.Exchange,
		AccessID: sandbox.AccessID, SecretKey: sandbox.SecretKey, CheckpointKey: key, Relying: s.Relying, Settings: Settings,
	}, nil
}

func (s *Stack) startWorker(ctx context.Context, o Options) error {
	c, err := s.WorkerConfig()
	if err != nil {
		return err
	}
	s.background("worker", func(ctx context.Context) error {
		return worker.Run(ctx, c, worker.Options{Now: time.Now, Log: o.Log})
	})
	return nil
}

func (s *Stack) startAPI(o Options, listener net.Listener) {
	people, err := s.Owner.People(context.Background())
	if err != nil {
		s.failed <- err
		return
	}
	demo := &web.Dev{People: people, Assert: func(_ context.Context, person string, options json.RawMessage) (json.RawMessage, error) {
		return s.Software.Of(person).Get(options, s.Origin)
	}}
	s.background("api", func(ctx context.Context) error {
		return api.Run(ctx, api.Config{DatabaseURL: s.DatabaseURL("sluice_api"), Relying: s.Relying},
			api.Options{Listener: listener, Dev: demo, Now: time.Now, Log: o.Log, Build: o.Build})
	})
}

// ready waits until the api answers and the worker has read the exchange, so that
// the first request is not told to come back.
func (s *Stack) ready(ctx context.Context) error {
	for {
		if s.answers(ctx) {
			if _, at, err := s.Owner.Chains(ctx); err == nil && time.Since(at) < time.Minute {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		case err := <-s.failed:
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Stack) answers(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Origin+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// checkpointKey reads the key that signs the record's checkpoints, making it once.
func (s *Stack) checkpointKey() (config.Secret, error) {
	path := filepath.Join(s.data, "checkpoint.key")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		signer, _, err := audit.NewKey("dev")
		if err != nil {
			return "", err
		}
		return config.Secret(signer), os.WriteFile(path, []byte(signer+"\n"), 0o600)
	}
	return config.Secret(strings.TrimSpace(string(b))), err
}

// Note is what a running stack leaves in its data folder for the other commands.
type Note struct {
	Origin   string `json:"origin"`
	Exchange string `json:"exchange"`
	Verifier string `json:"verifier"` // checks the record's checkpoints
	Owner    string `json:"owner"`    // database address of the owner
	API      string `json:"api"`      // of the api's role
	Worker   string `json:"worker"`   // of the worker's role
}

func (s *Stack) note() error {
	key, err := s.checkpointKey()
	if err != nil {
		return err
	}
	signer, err := audit.NewSigner(string(key))
	if err != nil {
		return err
	}
	s.Verifier = signer.VerifierText()
	b, err := json.MarshalIndent(Note{Origin: s.Origin, Exchange: s.Exchange, Verifier: s.Verifier,
		Owner: s.postgres.URL(pgserver.Superuser, database), API: string(s.DatabaseURL("sluice_api")), Worker: string(s.DatabaseURL("sluice_worker"))}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.data, "dev.json"), append(b, '\n'), 0o600)
}

// ReadNote reads what the stack in a data folder left.
func ReadNote(data string) (Note, error) {
	var n Note
	b, err := os.ReadFile(filepath.Join(data, "dev.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return n, fmt.Errorf("no dev stack has run in %s; start it with `go run ./cmd/sluice dev`, or name its folder with --data", data)
	}
	if err != nil {
		return n, err
	}
	return n, json.Unmarshal(b, &n)
}
