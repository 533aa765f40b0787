// Command worker submits approved withdrawals of one exchange account and follows
// them to their end. It is told everything by its environment;
// docs/operations.md lists the settings.
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
	"sluice/internal/process/worker"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", process.Sentence(err))
		os.Exit(1)
	}
}

func run(ctx context.Context, getenv func(string) string) error {
	config, err := worker.ReadConfig(getenv)
	if err != nil {
		return err
	}
	return worker.Run(ctx, config, worker.Options{Now: time.Now, Log: slog.New(slog.NewJSONHandler(os.Stderr, nil))})
}
