// Command intake measures how fast durable payout requests are taken: the real api
// over HTTP on loopback with every check on, beside pgbench running the same work
// as one statement on the same server and the same tables, in turns, so that a
// machine that slows down or speeds up does so for both.
//
//	go run ./bench/intake -seconds 2 -rounds 7 -clients 1,8,32,128
//
// bench/README.md says what the figures mean.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type flags struct {
	seconds int
	rounds  int
	clients []int
	json    bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	f, err := readFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/intake:", err)
		os.Exit(1)
	}
}

func readFlags(args []string) (flags, error) {
	var f flags
	set := flag.NewFlagSet("bench/intake", flag.ContinueOnError)
	set.IntVar(&f.seconds, "seconds", 2, "length of each measurement, after a warm-up of one second")
	set.IntVar(&f.rounds, "rounds", 7, "how often each pair of measurements is made")
	clients := set.String("clients", "1,8,32,128", "numbers of clients at once")
	set.BoolVar(&f.json, "json", false, "print the report as JSON")
	if err := set.Parse(args); err != nil {
		return f, err
	}
	for _, text := range strings.Split(*clients, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 || n > 180 { // the server takes 200 connections
			return f, fmt.Errorf("-clients: %q is not a number from 1 to 180", text)
		}
		f.clients = append(f.clients, n)
	}
	if f.seconds < 1 || f.rounds < 1 || set.NArg() > 0 {
		return f, errors.New("-seconds and -rounds are whole numbers above zero, and nothing else is taken")
	}
	return f, nil
}

// run measures each number of clients in turns: reference, intake, reference, intake …
func run(ctx context.Context, f flags) error {
	s, err := start(ctx)
	defer s.stop()
	if err != nil {
		return err
	}
	ref, err := newReference(s)
	if err != nil {
		return err
	}
	report, err := conditions(ctx, s, ref, f)
	if err != nil {
		return err
	}
	length := time.Duration(f.seconds) * time.Second
	for _, n := range f.clients {
		pairs := make([]pair, f.rounds)
		for i := range pairs {
			if pairs[i].Reference, err = ref.measure(ctx, s, n, length); err != nil {
				return err
			}
			if pairs[i].Intake, err = measureIntake(ctx, s, n, length); err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "%3d clients, round %d: reference %.0f/s p50 %s, intake %.0f/s p50 %s\n", n, i+1,
				pairs[i].Reference.PerSecond, ms(pairs[i].Reference.P50), pairs[i].Intake.PerSecond, ms(pairs[i].Intake.P50))
		}
		report.Levels = append(report.Levels, level(n, pairs))
	}
	if err := s.proveRows(ctx); err != nil {
		return err
	}
	report.Accepted = s.accepted
	return report.print(os.Stdout, f.json)
}
