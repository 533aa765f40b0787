package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what is printed.
type report struct {
	Conditions []condition `json:"conditions"`
	Levels     []levelOf   `json:"levels"`
	Accepted   int64       `json:"accepted"`
}

type condition struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// pair is two measurements that were made one right after the other.
type pair struct {
	Reference figures `json:"reference"`
	Intake    figures `json:"intake"`
}

// levelOf is everything at one number of clients.
type levelOf struct {
	Clients    int      `json:"clients"`
	Rounds     []pair   `json:"rounds"`
	Throughput ratio    `json:"throughput_ratio"` // intake : reference; more is better
	P50        ratio    `json:"p50_ratio"`        // intake : reference; less is better
	Targets    []target `json:"targets"`
}

// ratio is taken within each round, so that it does not feel the machine's drift.
type ratio struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func (r ratio) String() string { return fmt.Sprintf("%.2f (%.2f–%.2f)", r.Median, r.Min, r.Max) }

// target is what the project wants to reach, with what was reached.
type target struct {
	Text     string `json:"target"`
	Measured string `json:"measured"`
	Met      bool   `json:"met"`
}

func ratioOf(pairs []pair, of func(pair) float64) ratio {
	all := values(pairs, of)
	return ratio{Median: median(all), Min: slices.Min(all), Max: slices.Max(all)}
}

func values(pairs []pair, of func(pair) float64) []float64 {
	all := make([]float64, len(pairs))
	for i, p := range pairs {
		all[i] = of(p)
	}
	return all
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func level(clients int, pairs []pair) levelOf {
	l := levelOf{Clients: clients, Rounds: pairs,
		Throughput: ratioOf(pairs, func(p pair) float64 { return p.Intake.PerSecond / p.Reference.PerSecond }),
		P50:        ratioOf(pairs, func(p pair) float64 { return float64(p.Intake.P50) / float64(p.Reference.P50) }),
	}
	switch clients {
	case 1:
		l.Targets = []target{{"p50 at most 1.5 × the one statement's", "× " + l.P50.String(), l.P50.Median <= 1.5}}
	case 32:
		p99 := time.Duration(median(values(pairs, func(p pair) float64 { return float64(p.Intake.P99) })))
		l.Targets = []target{
			{"at least 1.5 × the one statement's throughput", "× " + l.Throughput.String(), l.Throughput.Median >= 1.5},
			{"p99 at most 25 ms", ms(p99), p99 <= 25*time.Millisecond},
		}
	case 128:
		l.Targets = []target{{"at least 2.5 × the one statement's throughput", "× " + l.Throughput.String(), l.Throughput.Median >= 2.5}}
	}
	return l
}

// conditions says under what the figures hold.
func conditions(ctx context.Context, s *system, ref reference, f flags) (report, error) {
	r := report{Conditions: []condition{
		{"cores", fmt.Sprint(runtime.NumCPU())},
		{"Go", runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH},
		{"Postgres", s.postgres.Version()},
	}}
	for _, name := range []string{"fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "jit", "shared_buffers"} {
		var value string
		if err := s.owner.Pool.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value); err != nil {
			return r, fmt.Errorf("read setting %s: %w", name, err)
		}
		r.Conditions = append(r.Conditions, condition{name, value})
	}
	r.Conditions = append(r.Conditions,
		condition{"other load", loadAverage()},
		condition{"reference", ref.name() + ", the same work as one prepared statement over the server's Unix socket"},
		condition{"intake", "the api over HTTP/1.1 on loopback, EdDSA token, every check on; its load comes from the same process"},
		condition{"measurements", fmt.Sprintf("%d rounds of %d s for each side in turns, each after %s of warm-up", f.rounds, f.seconds, warmUp)},
	)
	return r, nil
}

// loadAverage tells what else the machine was doing when the measurement began. On
// a machine that others use, wall-clock figures are theirs as much as ours: one statement
// from 32 connections gets a larger share of the cores than one process with two.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	words := strings.Fields(string(b))
	if err != nil || len(words) == 0 {
		return "not known on this system"
	}
	return "load average " + words[0] + " over the minute before"
}

func (r report) print(out io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range r.Conditions {
		fmt.Fprintf(w, "%s\t%s\n", c.Name, c.Value)
	}
	fmt.Fprintf(w, "\nclients\t\tper second\tp50\tp95\tp99\tthroughput ratio\tp50 ratio\n")
	for _, l := range r.Levels {
		side(w, fmt.Sprint(l.Clients), "one statement", l.Rounds, func(p pair) figures { return p.Reference }, "", "")
		side(w, "", "intake", l.Rounds, func(p pair) figures { return p.Intake }, l.Throughput.String(), l.P50.String())
	}
	fmt.Fprintf(w, "\nFigures are medians of the rounds; ratios are intake : one statement, median (least–most) of the rounds.\n")
	fmt.Fprintf(w, "%d requests were answered 201, and there are as many withdrawals, proposals and audit events.\n\n", r.Accepted)
	fmt.Fprintf(w, "clients\ttarget\tmeasured\t\n")
	for _, l := range r.Levels {
		for _, t := range l.Targets {
			met := "not met"
			if t.Met {
				met = "met"
			}
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", l.Clients, t.Text, t.Measured, met)
		}
	}
	return w.Flush()
}

func side(w io.Writer, clients, name string, pairs []pair, of func(pair) figures, more ...string) {
	mid := func(f func(figures) float64) float64 {
		return median(values(pairs, func(p pair) float64 { return f(of(p)) }))
	}
	fmt.Fprintf(w, "%s\t%s\t%.0f\t%s\t%s\t%s\t%s\n", clients, name, mid(func(f figures) float64 { return f.PerSecond }),
		ms(time.Duration(mid(func(f figures) float64 { return float64(f.P50) }))),
		ms(time.Duration(mid(func(f figures) float64 { return float64(f.P95) }))),
		ms(time.Duration(mid(func(f figures) float64 { return float64(f.P99) }))), strings.Join(more, "\t"))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond)) }
