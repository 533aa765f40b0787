// Package api is the process that people and services talk to: the JSON API and the
// pages. It has no exchange key, and its database role cannot write what the
// exchange said.
package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sluice/internal/approval"
	"sluice/internal/config"
	"sluice/internal/httpapi"
	"sluice/internal/identity"
	"sluice/internal/intake"
	"sluice/internal/pgstore"
	"sluice/internal/policy"
	"sluice/internal/process"
	"sluice/web"
)

// Config is everything the api is told at start.
type Config struct {
	DatabaseURL config.Secret
	Listen      string
	Relying     approval.Relying
}

// ReadConfig reads the api's settings from an environment.
func ReadConfig(getenv func(string) string) (Config, error) {
	r := config.Read(getenv)
	c := Config{DatabaseURL: r.DatabaseURL(), Listen: r.Text("SLUICE_LISTEN", "127.0.0.1:8080"), Relying: r.Relying()}
	return c, r.Err()
}

// Options are what `sluice dev` adds and tests replace.
type Options struct {
	Listener net.Listener // nil means Config.Listen
	Dev      *web.Dev     // nil outside `sluice dev`
	Now      func() time.Time
	Log      *slog.Logger
	Build    string
}

// Run serves until ctx ends.
func Run(ctx context.Context, c Config, o Options) error {
	listener := o.Listener
	if listener == nil {
		var err error
		if listener, err = process.Listen(c.Listen); err != nil {
			return err
		}
	}
	defer listener.Close()
	store, err := pgstore.Open(ctx, string(c.DatabaseURL))
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.CurrentSchema(ctx); err != nil {
		return err
	}
	desk := intake.Open(store, policy.Default, o.Now)
	defer desk.Close()

	handler, err := handler(ctx, c, o, store, desk)
	if err != nil {
		return err
	}
	o.Log.InfoContext(ctx, "api serves", "address", listener.Addr().String(), "public", c.Relying.Origins[0])
	return process.Serve(ctx, listener, httpapi.NewServer(handler, o.Log))
}

func handler(ctx context.Context, c Config, o Options, store *pgstore.Store, desk *intake.Desk) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	json := httpapi.New(httpapi.Deps{
		Ops:    httpapi.Ops{Log: o.Log, Registry: registry, Ready: store.CurrentSchema, Now: o.Now},
		Tokens: identity.NewTokens(store.Client, o.Now),
		Intake: desk, Store: store, Policy: policy.Default,
	})
	passkeys, err := identity.NewPasskeys(c.Relying, store, o.Now)
	if err != nil {
		return nil, err
	}
	// Its own clean-up cannot be stopped without a data race; ours ends with ctx.
	sessions := pgxstore.NewWithCleanupInterval(store.Pool, 0)
	go tidySessions(ctx, store, o)
	pages, err := web.New(web.Deps{
		Store: store, Desk: desk, Passkeys: passkeys, Sessions: sessions, Relying: c.Relying,
		Dev: o.Dev, Now: o.Now, Log: o.Log, Build: o.Build, Done: ctx.Done(),
	})
	if err != nil {
		return nil, fmt.Errorf("pages: %w", err)
	}
	mux := http.NewServeMux()
	for _, pattern := range httpapi.Paths {
		mux.Handle(pattern, json)
	}
	mux.Handle("/", pages)
	return mux, nil
}

// tidySessions deletes what nobody can use any more, every hour until ctx ends.
func tidySessions(ctx context.Context, store *pgstore.Store, o Options) {
	hourly := time.NewTicker(time.Hour)
	defer hourly.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hourly.C:
			if err := store.DropDeadSessions(ctx, o.Now()); err != nil && ctx.Err() == nil {
				o.Log.WarnContext(ctx, "cannot delete old sessions", "error", err)
			}
		}
	}
}
