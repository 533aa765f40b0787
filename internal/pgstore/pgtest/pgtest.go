// Package pgtest gives each test a migrated Postgres database of its own. One server
// runs per test process, in a folder that goes with it; a database is a copy of one
// that was migrated once.
//
//	func TestMain(m *testing.M) { pgtest.Main(m, migrate) }
//	func TestX(t *testing.T)    { pool := open(pgtest.URL(t, "sluice_worker")) … }
package pgtest

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice/internal/pgstore/pgserver"
)

const (
	folderPrefix = "sluice-pgtest-"
	template     = "sluice_template"
	// startLimit bounds the start, which on a fresh machine fetches Postgres.
	startLimit = 10 * time.Minute
	stopLimit  = 20 * time.Second
)

var (
	server *pgserver.Server

	databases sync.Map // of the running tests: testing.TB to a func() string that makes the database once
	made      atomic.Int64
)

// settings trade safety for speed: a test's data is of no worth after a crash of the
// machine. Autovacuum is off because its workers come and go in databases that tests
// copy and drop, and move the statistics under a test's feet.
var settings = map[string]string{
	"fsync":              "off",
	"synchronous_commit": "off",
	"full_page_writes":   "off",
	"autovacuum":         "off",
}

// Main is for TestMain: it starts a server, has migrate fill a template database as
// the superuser, runs the tests, removes everything, and exits with their code.
// migrate must close its connections before it returns. SIGINT, SIGTERM and SIGHUP
// clean up too. A test's panic ends the process before anything can: then the kernel
// ends the server (on Linux), and the next test process removes the folder.
func Main(m *testing.M, migrate func(ctx context.Context, url string) error) {
	os.Exit(run(m.Run, migrate))
}

func run(tests func() int, migrate func(ctx context.Context, url string) error) (code int) {
	removeAbandoned()
	dir, err := os.MkdirTemp("", folderPrefix)
	if err != nil {
		return fail("making the folder", err)
	}
	// As root the server runs under another account, which must pass through here.
	if err := os.Chmod(dir, 0o711); err != nil {
		return fail("opening the folder", err)
	}
	var once sync.Once
	clean := func() {
		once.Do(func() {
			ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
			defer cancel()
			if server != nil {
				if err := server.Stop(ctx); err != nil {
					code = fail("stopping Postgres", err)
				}
			}
			if err := pgserver.Remove(ctx, dir); err != nil {
				code = fail("removing the folder", err)
			}
		})
	}
	defer clean()

	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	go func() {
		got := <-signals
		cancel()
		clean()
		status, _ := got.(syscall.Signal)
		os.Exit(128 + int(status)) // as a shell reports a death by signal
	}()

	server, err = pgserver.Start(ctx, pgserver.Options{Dir: dir, Settings: settings,
		Progress: func(line string) { fmt.Fprintln(os.Stderr, "pgtest:", line) }})
	if err != nil {
		return fail("starting Postgres", err)
	}
	if err := prepare(ctx, migrate); err != nil {
		return fail("preparing the template database", err)
	}
	return tests()
}

func fail(doing string, err error) int {
	fmt.Fprintf(os.Stderr, "pgtest: %s: %v\n", doing, err)
	return 1
}

func prepare(ctx context.Context, migrate func(context.Context, string) error) error {
	if err := exec(ctx, "CREATE DATABASE "+template); err != nil {
		return err
	}
	if err := migrate(ctx, server.URL(pgserver.Superuser, template)); err != nil {
		return err
	}
	// A database cannot be copied while somebody is connected to it. Refuse newcomers,
	// and send away whom migrate has left behind.
	if err := exec(ctx, "ALTER DATABASE "+template+" ALLOW_CONNECTIONS false"); err != nil {
		return err
	}
	return exec(ctx, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '"+template+"'")
}

// URL is the connection string of the test's own database for a role that migrate
// has made (roles belong to the whole server). The first call in a test copies the
// template; later ones with the same t return the same database. It is dropped when
// the test ends, after the clean-ups that the test registered later, connected or not.
func URL(t testing.TB, user string) string {
	t.Helper()
	if server == nil {
		t.Fatal("pgtest: no server; TestMain must call pgtest.Main")
	}
	name, _ := databases.LoadOrStore(t, sync.OnceValue(func() string { return create(t) }))
	return server.URL(user, name.(func() string)())
}

func create(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", made.Add(1))
	// Without fsync a copy of the files costs less than writing the copy to the log,
	// which is the default.
	if err := exec(t.Context(), "CREATE DATABASE "+name+" TEMPLATE "+template+" STRATEGY FILE_COPY"); err != nil {
		t.Fatalf("pgtest: copying the template database: %v", err)
	}
	t.Cleanup(func() {
		databases.Delete(t)
		if err := exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("pgtest: dropping the test's database: %v", err)
		}
	})
	return name
}

// Server is the running server, nil outside Main.
func Server() *pgserver.Server { return server }

// exec runs one statement as the superuser, outside every test's database.
func exec(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, server.URL(pgserver.Superuser, "postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	if closeErr := conn.Close(ctx); err == nil {
		err = closeErr
	}
	return err
}

// removeAbandoned removes the folders of test processes that died without cleaning
// up. A folder is abandoned when its lock is free; one that has no lock yet belongs
// to a process that is just beginning.
func removeAbandoned() {
	once, cancel := context.WithCancel(context.Background())
	cancel() // so that Remove does not wait for folders in use
	folders, _ := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*"))
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(folder, "lock")); err == nil {
			_ = pgserver.Remove(once, folder) // another account's folders stay: not ours to remove
		}
	}
}
