package pgserver

import (
	"context"
	"os"
	"os/exec"
	"runtime"
)

// spawn starts a command as the account and returns the channel that brings its
// exit. Linux sends the last wish when the thread that started the process ends, so
// one goroutine keeps that thread to itself until the process is gone.
func spawn(cmd *exec.Cmd, who account, last lastWish) (exit <-chan error, err error) {
	cmd.Env = environment()
	who.become(cmd, last)
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	return ended, <-started
}

// runAs runs a helper to its end, which ctx can bring forward.
func runAs(ctx context.Context, cmd *exec.Cmd, who account) error {
	exit, err := spawn(cmd, who, leaveNow)
	if err != nil {
		return err
	}
	select {
	case err := <-exit:
		return err
	case <-ctx.Done():
		cmd.Process.Kill()
		<-exit
		return ctx.Err()
	}
}

// environment is what Postgres gets of ours: enough to run, nothing that changes its
// behaviour (PGDATA, PGOPTIONS, a locale) and none of the program's secrets, which
// the server's account could read from the process table.
func environment() []string {
	env := []string{"LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "TEMP", "TMP", "SystemRoot", "LD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
