package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"sluice/internal/fault"
)

// childEnv makes the test binary act as a program with a server, to be killed.
const childEnv = "SLUICE_PGSERVER_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		s, err := Start(context.Background(), Options{Dir: dir})
		if err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
		fmt.Println("pid", s.process.Pid)
		select {}
	}
	os.Exit(m.Run())
}

// folder is a data folder that a server account other than ours can reach, which
// t.TempDir is not.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgserver-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Remove(context.Background(), dir); err != nil {
			t.Errorf("removing the data folder: %v", err)
		}
	})
	return dir
}

// run starts a server that ends with the test. fsync stays on: these tests are about
// what survives.
func run(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(context.Background()); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func connect(t *testing.T, s *Server) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), s.URL(Superuser, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func write(t *testing.T, s *Server, text string) {
	t.Helper()
	_, err := connect(t, s).Exec(context.Background(), "CREATE TABLE kept AS SELECT '"+text+"' AS text")
	if err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, s *Server, text string) {
	t.Helper()
	var got string
	if err := connect(t, s).QueryRow(context.Background(), "SELECT text FROM kept").Scan(&got); err != nil || got != text {
		t.Fatalf("kept %q (%v), want %q", got, err, text)
	}
}

// refused starts a server that must not start and checks the error for what a person
// needs: the code, these words, a fix, and all of it on one line.
func refused(t *testing.T, o Options, code string, words ...string) {
	t.Helper()
	s, err := Start(context.Background(), o)
	if err == nil {
		stop(t, s)
		t.Fatalf("started, want %s", code)
	}
	sentence(t, err, code, words...)
}

func sentence(t *testing.T, err error, code string, words ...string) {
	t.Helper()
	f, ok := fault.As(err)
	if !ok || f.Code != code {
		t.Fatalf("got %v, want the code %s", err, code)
	}
	t.Logf("%s. %s.", f.Detail, f.Fix)
	for _, word := range words {
		if !strings.Contains(f.Detail+f.Fix, word) {
			t.Errorf("%q / %q does not say %q", f.Detail, f.Fix, word)
		}
	}
	if f.Fix == "" || strings.Contains(f.Detail+f.Fix, "\n") {
		t.Errorf("%q / %q is not one sentence with a fix", f.Detail, f.Fix)
	}
}

func TestDataSurvivesRestart(t *testing.T) {
	dir := folder(t)
	s := run(t, Options{Dir: dir, Settings: map[string]string{"work_mem": "9MB"}})
	write(t, s, "restart")
	var workMem, jit, fsync, zone, listen string
	err := connect(t, s).QueryRow(context.Background(),
		"SELECT current_setting('work_mem'), current_setting('jit'), current_setting('fsync'), current_setting('timezone'), current_setting('listen_addresses')").
		Scan(&workMem, &jit, &fsync, &zone, &listen)
	if got := []string{workMem, jit, fsync, zone, listen}; err != nil || strings.Join(got, " ") != "9MB off on UTC " {
		t.Errorf("settings %q (%v)", got, err)
	}
	stop(t, s)
	stop(t, s)
	if s.Err() != nil {
		t.Errorf("an ordered stop is no failure: %v", s.Err())
	}
	select {
	case <-s.Exited():
		t.Error("Exited is for ends that nobody asked for")
	default:
	}
	s = run(t, Options{Dir: dir})
	expect(t, s, "restart")
}

func TestSocketFolderIsPrivate(t *testing.T) {
	s := run(t, Options{Dir: folder(t)})
	info, err := os.Stat(s.place.socket)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("socket folder %v (%v), want 0700", info.Mode(), err)
	}
}

func TestLongPathGetsAShortSocketFolder(t *testing.T) {
	dir := filepath.Join(folder(t), strings.Repeat("long", 30))
	s := run(t, Options{Dir: dir})
	write(t, s, "long")
	if strings.HasPrefix(s.place.socket, dir) {
		t.Fatalf("the socket lies in %s", s.place.socket)
	}
	stop(t, s)
	if _, err := os.Stat(s.place.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket folder was left behind: %v", err)
	}
}

func TestSecondCallerIsToldWhoIsThere(t *testing.T) {
	dir := folder(t)
	run(t, Options{Dir: dir})
	ctx, cancel := context.WithCancel(context.Background())
	var lines []string
	_, err := Start(ctx, Options{Dir: dir, Progress: func(line string) {
		lines = append(lines, line)
		cancel() // give up as soon as it says that it waits
	}})
	sentence(t, err, codeInUse, fmt.Sprintf("process %d", os.Getpid()), dir)
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "waiting: ") {
		t.Errorf("said %q", lines)
	}
	sentence(t, Remove(ctx, dir), codeInUse)
	if _, err := os.Stat(filepath.Join(dir, "pg", "PG_VERSION")); err != nil {
		t.Errorf("Remove took the data of a running server: %v", err)
	}
}

func TestInterruptedSetUpIsClearedAway(t *testing.T) {
	dir := folder(t)
	half := filepath.Join(dir, "pg.new-123")
	if err := os.Mkdir(half, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, Options{Dir: dir})
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a cluster was left: %v", err)
	}
}

func TestWrongMajor(t *testing.T) {
	ours := run(t, Options{Dir: folder(t)})
	dir := folder(t)
	put(t, filepath.Join(dir, "pg", "PG_VERSION"), "14\n")
	refused(t, Options{Dir: dir}, codeWrongMajor, "Postgres 14", "Postgres 15")
	refused(t, Options{Dir: dir, BinDir: ours.BinDir()}, codeWrongMajor, "Postgres 14", fmt.Sprintf("Postgres %d", ours.bin.major))
	refused(t, Options{Dir: dir, hideInstalled: true, routes: []route{}}, codeWrongMajor, "Postgres 14", "only Postgres 15")
}

func TestBrokenData(t *testing.T) {
	t.Run("not a cluster", func(t *testing.T) {
		dir := folder(t)
		put(t, filepath.Join(dir, "pg", "notes.txt"), "mine")
		refused(t, Options{Dir: dir}, codeBroken, "no PG_VERSION")
	})
	t.Run("no version", func(t *testing.T) {
		dir := folder(t)
		put(t, filepath.Join(dir, "pg", "PG_VERSION"), "soup")
		refused(t, Options{Dir: dir}, codeBroken, "PG_VERSION")
	})
	dir := folder(t)
	s := run(t, Options{Dir: dir})
	write(t, s, "whole")
	stop(t, s)
	for _, part := range []string{"global/pg_control", "global/pg_filenode.map", "pg_wal", "postgresql.conf", "pg_hba.conf", "base"} {
		t.Run("without "+part, func(t *testing.T) {
			path := filepath.Join(dir, "pg", filepath.FromSlash(part))
			if err := os.Rename(path, path+".away"); err != nil {
				t.Fatal(err)
			}
			refused(t, Options{Dir: dir}, codeBroken, filepath.Join(dir, "pg"), filepath.Base(part))
			if err := os.Rename(path+".away", path); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("open to everybody", func(t *testing.T) {
		cluster := filepath.Join(dir, "pg")
		if err := os.Chmod(cluster, 0o777); err != nil {
			t.Fatal(err)
		}
		refused(t, Options{Dir: dir}, codeBroken, "invalid permissions")
		if err := os.Chmod(cluster, 0o700); err != nil {
			t.Fatal(err)
		}
	})
	expect(t, run(t, Options{Dir: dir}), "whole") // no refusal did harm
}

func TestFolderThatCannotBe(t *testing.T) {
	file := filepath.Join(folder(t), "file")
	put(t, file, "")
	refused(t, Options{Dir: filepath.Join(file, "data")}, codeFolder, file)
	refused(t, Options{}, codeFolder)
}

func TestSettingThatPostgresRefuses(t *testing.T) {
	dir := folder(t)
	refused(t, Options{Dir: dir, Settings: map[string]string{"shared_buffers": "soup"}}, codeFailed, "shared_buffers", "postgres.log")
	run(t, Options{Dir: dir})
}

func TestBinariesThatWillNotDo(t *testing.T) {
	empty := folder(t)
	refused(t, Options{Dir: folder(t), BinDir: empty}, codeNotFound, empty, "no postgres", binEnv)
	t.Setenv(binEnv, empty)
	refused(t, Options{Dir: folder(t)}, codeNotFound, empty, binEnv)
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
