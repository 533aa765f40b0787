package intake_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/pgstore"
	"sluice/internal/pgstore/pgtest"
	"sluice/internal/policy"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

func TestProbe(t *testing.T) {
	ctx := t.Context()
	owner, err := pgstore.Open(ctx, pgtest.URL(t, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	now := time.Now()
	owner.AddAccount(ctx, "main", "operator:x", now)
	key := whitelist.Key{Account: "main", Method: exchange.OnChain, Asset: "USDT", Chain: "TRC20", Address: "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8"}
	if _, err := owner.AddDestination(ctx, key, "x", "operator:x", now); err != nil {
		t.Fatal(err)
	}
	owner.WriteChains(ctx, "main", []exchange.ChainConfig{{Asset: "USDT", Chain: "TRC20", AssetEnabled: true, ChainEnabled: true, MinAmount: decimal.NewFromInt(1), Fee: decimal.NewFromInt(1), Precision: 6}}, now)
	cfg, _ := pgxpool.ParseConfig(pgtest.URL(t, "postgres"))
	verbose := false
	cfg.ConnConfig.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if verbose {
			fmt.Println(n.Message)
		}
	}
	cfg.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	s := &pgstore.Store{Pool: pool}
	mk := func(n int) []withdraw.Request {
		var rs []withdraw.Request
		for range n {
			u := uuid.NewString()
			rs = append(rs, withdraw.Request{Requester: "person:x", IdempotencyKey: u, Reference: u, BodyHash: sha256.Sum256([]byte(u)), Key: key, Amount: decimal.NewFromInt(5), Purpose: "x"})
		}
		return rs
	}
	do := func(n int) (a, b, c time.Duration) {
		rs := mk(n)
		t0 := time.Now()
		f, err := s.Facts(ctx, rs)
		if err != nil {
			t.Fatal(err)
		}
		t1 := time.Now()
		var es []withdraw.Entry
		for i := range rs {
			e, err := withdraw.Decide(rs[i], f[i], policy.Default, uuid.Must(uuid.NewV7()), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			es = append(es, e)
		}
		t2 := time.Now()
		got, err := s.Record(ctx, es)
		if err != nil || len(got) != n {
			t.Fatal(err, len(got))
		}
		return t1.Sub(t0), t2.Sub(t1), time.Since(t2)
	}
	for range 300 {
		do(20)
	}
	owner.Pool.Exec(ctx, "VACUUM ANALYZE")
	for _, n := range []int{1, 8, 32, 128} {
		var fa, fb, fc time.Duration = 1 << 60, 1 << 60, 1 << 60
		for range 100 {
			a, b, c := do(n)
			fa, fb, fc = min(fa, a), min(fb, b), min(fc, c)
		}
		fmt.Printf("n=%d facts %v decide %v record %v\n", n, fa, fb, fc)
	}
	for _, mode := range []string{"auto", "force_generic_plan", "force_custom_plan"} {
		pool.Reset()
		pool.Exec(ctx, "SET plan_cache_mode="+mode)
		var fa, fb, fc []time.Duration
		for range 400 {
			a, b, c := do(1)
			fa, fb, fc = append(fa, a), append(fb, b), append(fc, c)
		}
		slices.Sort(fa)
		slices.Sort(fb)
		slices.Sort(fc)
		fmt.Printf("%s n=1 facts %v decide %v record %v\n", mode, fa[40], fb[40], fc[40])
	}
	return
	pool.Exec(ctx, "LOAD 'auto_explain'; SET auto_explain.log_min_duration=0; SET auto_explain.log_analyze=on; SET auto_explain.log_triggers=on; SET client_min_messages=log")
	for _, n := range []int{1, 32} {
		verbose = true
		do(n)
		verbose = false
	}
	_ = context.Background
}
