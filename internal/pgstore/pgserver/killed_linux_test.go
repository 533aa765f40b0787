package pgserver

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestServerKilled(t *testing.T) {
	dir := folder(t)
	s := run(t, Options{Dir: dir})
	write(t, s, "server killed")
	if err := s.process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.Exited()
	sentence(t, s.Err(), codeFailed, "killed")
	// At once, while children of the killed server may still be leaving.
	expect(t, run(t, Options{Dir: dir}), "server killed")
}

func TestParentKilled(t *testing.T) {
	dir := folder(t)
	write := func(s *Server) { write(t, s, "parent killed") }
	s := run(t, Options{Dir: dir})
	write(s)
	stop(t, s)

	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, _ := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "pid ")))
	if err != nil || pid == 0 {
		t.Fatalf("the child said %q (%v)", line, err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	parent.Wait() // its error is the kill

	s = run(t, Options{Dir: dir})
	expect(t, s, "parent killed")
	if worksIn(pid, filepath.Join(dir, "pg")) {
		t.Errorf("server %d outlived its parent", pid)
	}
	if users := usersOf(t, s.place.cluster, s.process.Pid); len(users) > 0 {
		t.Errorf("processes %v of an older server are in the cluster", users)
	}
}

// usersOf lists the processes in the cluster that do not descend from the server.
func usersOf(t *testing.T, cluster string, server int) []int {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var strangers []int
	for _, p := range processes {
		pid, _ := strconv.Atoi(filepath.Base(p))
		if !worksIn(pid, cluster) || pid == server {
			continue
		}
		stat, err := os.ReadFile(p + "/stat")
		if err != nil {
			continue // gone meanwhile
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		if parent := strings.Fields(rest)[1]; parent != strconv.Itoa(server) {
			strangers = append(strangers, pid)
		}
	}
	return strangers
}

// A killed server's id can belong to a stranger by the next start. Here the stranger
// is of the server's own account: Postgres itself would take it for the old server.
func TestRecycledProcessID(t *testing.T) {
	dir := folder(t)
	s := run(t, Options{Dir: dir})
	write(t, s, "recycled")
	who := s.place.who
	if err := s.process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.Exited()
	stranger := exec.Command("sleep", "1000")
	exit, err := spawn(stranger, who, leaveNow)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stranger.Process.Kill(); <-exit })
	path := filepath.Join(dir, "pg", "postmaster.pid")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n")
	if err := os.WriteFile(path, []byte(strconv.Itoa(stranger.Process.Pid)+"\n"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, run(t, Options{Dir: dir}), "recycled")
}

func TestLingeringServerIsNamed(t *testing.T) {
	dir := folder(t)
	s := run(t, Options{Dir: dir})
	stop(t, s)
	// A process that works in the cluster, as a server does that has lost its parent.
	server := exec.Command("sleep", "1000")
	server.Dir = s.place.cluster
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() { server.Process.Kill(); server.Wait() }
	t.Cleanup(end)
	put(t, filepath.Join(s.place.cluster, "postmaster.pid"), strconv.Itoa(server.Process.Pid)+"\n")

	ctx, cancel := context.WithCancel(context.Background())
	_, err := Start(ctx, Options{Dir: dir, Progress: func(string) { cancel() }})
	sentence(t, err, codeInUse, fmt.Sprintf("process %d", server.Process.Pid), fmt.Sprintf("kill -INT %d", server.Process.Pid))

	// When it goes while the next start waits, that start succeeds.
	s, err = Start(context.Background(), Options{Dir: dir, Progress: func(string) { end() }})
	if err != nil {
		t.Fatal(err)
	}
	stop(t, s)
}

func TestServerIsOutOfTheTerminalsReach(t *testing.T) {
	t.Setenv("SLUICE_TEST_SECRET", "swordfish")
	s := run(t, Options{Dir: folder(t)})
	group, err := syscall.Getpgid(s.process.Pid)
	if err != nil || group == syscall.Getpgrp() {
		t.Errorf("the server is in group %d (%v), ours: Ctrl-C would reach it before us", group, err)
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.process.Pid))
	if err != nil || strings.Contains(string(env), "swordfish") {
		t.Errorf("the server's environment holds our secret (%v)", err)
	}
}

// Root's data folder under a closed folder is the common case on a fresh machine:
// /root is 0700. As an ordinary user there is nothing to get around.
func TestFolderBehindAClosedFolder(t *testing.T) {
	closed := folder(t)
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(closed, "data")
	s := run(t, Options{Dir: dir})
	write(t, s, "behind")
	base := s.place.base
	if (base != dir) != s.place.who.drop {
		t.Errorf("the cluster of account %+v lies in %s", s.place.who, base)
	}
	stop(t, s)
	s = run(t, Options{Dir: dir})
	expect(t, s, "behind")
	stop(t, s)

	// Whoever deletes the data folder has deleted the data.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	s = run(t, Options{Dir: dir})
	if _, err := connect(t, s).Exec(context.Background(), "SELECT FROM kept"); err == nil {
		t.Error("data came back from a deleted folder")
	}
	stop(t, s)
	if err := Remove(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{dir, base} {
		if _, err := os.Stat(gone); !os.IsNotExist(err) {
			t.Errorf("Remove left %s", gone)
		}
	}
}

// A full disk for real where we may mount a small one. Where we may not, TestFullDisk
// has shown the same with the words alone.
func TestRealFullDisk(t *testing.T) {
	disk := filepath.Join(folder(t), "disk")
	if err := os.Mkdir(disk, 0o711); err != nil {
		t.Fatal(err)
	}
	mount := func(flags uintptr, size string) bool {
		if err := syscall.Mount("tmpfs", disk, "tmpfs", flags, "mode=711,size="+size); err != nil {
			t.Logf("a mount is not permitted here: %v", err)
			return false
		}
		return true
	}
	if !mount(0, "8m") {
		return
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	dir := filepath.Join(disk, "data")
	refused(t, Options{Dir: dir}, codeDiskFull, dir) // while the cluster is made

	if !mount(syscall.MS_REMOUNT, "200m") {
		t.Fatal("the small disk does not grow")
	}
	s := run(t, Options{Dir: dir})
	write(t, s, "tight")
	if err := s.process.Kill(); err != nil { // so that the next start has to write
		t.Fatal(err)
	}
	<-s.Exited()
	ballast := filepath.Join(disk, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	f.Close()
	refused(t, Options{Dir: dir}, codeDiskFull, dir) // while it is started
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s = run(t, Options{Dir: dir})
	expect(t, s, "tight")
	stop(t, s)
}

func TestFolderClosedAfterwards(t *testing.T) {
	closed := folder(t)
	dir := filepath.Join(closed, "data")
	s := run(t, Options{Dir: dir})
	write(t, s, "closed")
	stop(t, s)
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	if s.place.who.drop {
		refused(t, Options{Dir: dir}, codeFolder, closed, s.place.who.name, "chmod o+x")
		if err := os.Chmod(closed, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, run(t, Options{Dir: dir}), "closed")
}
