package pgtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"sluice/internal/pgstore/pgserver"
)

// childEnv makes the test binary a test process of the given kind, to be watched.
const childEnv = "SLUICE_PGTEST_CHILD"

func TestMain(m *testing.M) {
	tests := m.Run
	switch os.Getenv(childEnv) {
	case "panics":
		tests = func() int { panic("as a test does") }
	case "hangs":
		tests = func() int {
			fmt.Fprintln(os.Stdout, server.URL(pgserver.Superuser, "postgres"))
			select {}
		}
	case "fails":
		tests = func() int { return 7 }
	case "cannot migrate":
		os.Exit(run(tests, func(context.Context, string) error { return errors.New("no such table") }))
	}
	if os.Getenv(childEnv) != "" {
		os.Exit(run(tests, migrate))
	}
	Main(m, migrate)
}

func migrate(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	// Left open on purpose: an untidy migration must not make every copy fail.
	_, err = conn.Exec(ctx, `CREATE ROLE reader LOGIN; CREATE ROLE writer LOGIN;
		CREATE TABLE things (name text); GRANT SELECT ON things TO reader; GRANT SELECT, INSERT ON things TO writer`)
	return err
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func count(t *testing.T, conn *pgx.Conn) (n int) {
	t.Helper()
	if err := conn.QueryRow(context.Background(), "SELECT count(*) FROM things").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOneDatabaseForEachTest(t *testing.T) {
	writer := connect(t, URL(t, "writer"))
	if _, err := writer.Exec(context.Background(), "INSERT INTO things VALUES ('a')"); err != nil {
		t.Fatal(err)
	}
	reader := connect(t, URL(t, "reader"))
	if n := count(t, reader); n != 1 {
		t.Errorf("another role of the same test sees %d rows, want 1", n)
	}
	if _, err := reader.Exec(context.Background(), "INSERT INTO things VALUES ('b')"); err == nil {
		t.Error("the reader may write: the roles' rights were not copied")
	}
	for range 4 {
		t.Run("another test", func(t *testing.T) {
			t.Parallel()
			if n := count(t, connect(t, URL(t, "reader"))); n != 0 {
				t.Errorf("sees %d rows of another test", n)
			}
		})
	}
}

func TestDatabaseGoesWithTheTest(t *testing.T) {
	var url string
	t.Run("test", func(t *testing.T) {
		url = URL(t, "writer")
		conn, err := pgx.Connect(context.Background(), url) // forgotten, as in a sloppy test
		if err != nil {
			t.Fatal(err)
		}
		if n := count(t, conn); n != 0 {
			t.Errorf("begins with %d rows", n)
		}
	})
	if conn, err := pgx.Connect(context.Background(), url); err == nil {
		conn.Close(context.Background())
		t.Error("the database is still there")
	}
}

// child runs a test process that has a temporary folder of its own.
func child(t *testing.T, kind, temp string) *osexec.Cmd {
	t.Helper()
	cmd := osexec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+kind, "TMPDIR="+temp)
	return cmd
}

// tempFolder is one through which the server's account may pass.
func tempFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "child-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func folders(t *testing.T, temp string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(temp, folderPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func code(err error) int {
	if exit, ok := errors.AsType[*osexec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return 0
}

func TestExitCodeIsTheTests(t *testing.T) {
	temp := tempFolder(t)
	if got := code(child(t, "fails", temp).Run()); got != 7 {
		t.Errorf("exit code %d, want the tests' own 7", got)
	}
	output, err := child(t, "cannot migrate", temp).CombinedOutput()
	if code(err) != 1 || !strings.Contains(string(output), "no such table") {
		t.Errorf("a failed migration ends with %v and says %q", err, output)
	}
	if left := folders(t, temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPanicBehindMainCleansUp(t *testing.T) {
	temp := tempFolder(t)
	output, err := child(t, "panics", temp).CombinedOutput()
	if code(err) != 2 || !strings.Contains(string(output), "as a test does") {
		t.Errorf("the panic ends with %v and says %q", err, output)
	}
	if left := folders(t, temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// hanging starts a test process that does not end, and waits until it has a server.
func hanging(t *testing.T, temp string) (cmd *osexec.Cmd, url string) {
	t.Helper()
	cmd = child(t, "hangs", temp)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	url, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(url)
}

func TestInterruptCleansUp(t *testing.T) {
	temp := tempFolder(t)
	cmd, url := hanging(t, temp)
	connect(t, url)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if got := code(cmd.Wait()); got != 130 {
		t.Errorf("exit code %d, want 130", got)
	}
	if left := folders(t, temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFoldersOfKilledProcessesAreRemoved(t *testing.T) {
	temp := tempFolder(t)
	alive, url := hanging(t, temp)
	killed, _ := hanging(t, temp)
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed.Wait() // its error is the kill
	if n := len(folders(t, temp)); n != 2 {
		t.Fatalf("%d folders, want those of the live and of the killed process", n)
	}
	// The killed process's server needs a moment to go. Each new test process tries again.
	for len(folders(t, temp)) > 1 {
		if got := code(child(t, "fails", temp).Run()); got != 7 {
			t.Fatalf("exit code %d, want 7", got)
		}
	}
	connect(t, url).Close(context.Background()) // the live one was left alone
	if err := alive.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	alive.Wait() // its error is the interrupt
	if left := folders(t, temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func BenchmarkDatabase(b *testing.B) {
	for b.Loop() {
		t := &oneTest{TB: b}
		URL(t, "writer")
		t.clean()
	}
}

// oneTest is a test of its own for each round of the benchmark.
type oneTest struct {
	testing.TB
	cleanups []func()
}

func (o *oneTest) Cleanup(f func()) { o.cleanups = append(o.cleanups, f) }
func (o *oneTest) clean() {
	for _, f := range o.cleanups {
		f()
	}
}
