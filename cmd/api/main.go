// Command api serves the JSON API and the pages. It is told everything by its
// environment; docs/operations.md lists the settings.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"sluice/internal/process"
	"sluice/internal/process/api"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "api:", process.Sentence(err))
		os.Exit(1)
	}
}

func run(ctx context.Context, getenv func(string) string) error {
	config, err := api.ReadConfig(getenv)
	if err != nil {
		return err
	}
	return api.Run(ctx, config, api.Options{Now: time.Now, Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)), Build: process.Build()})
}
