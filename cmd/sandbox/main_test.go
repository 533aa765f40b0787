package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// start runs the program until the test ends it, and returns its address.
func start(t *testing.T, args ...string) (base string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"--listen", "127.0.0.1:0"}, args...), in)
		in.CloseWithError(io.EOF)
		done <- err
	}()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if address, ok := strings.CutPrefix(lines.Text(), "  address     "); ok {
			base = address
		}
		if lines.Text() == "ready" {
			return base, func() error { cancel(); return <-done }
		}
	}
	cancel()
	t.Fatalf("the program ended before it was ready: %v", <-done)
	return "", nil
}

func read(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestServesUntilItIsStopped(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.json")
	base, stop := start(t, "--state", state)
	if got := read(t, base+"/v2/ping"); !strings.Contains(got, "pong") {
		t.Errorf("ping: %s", got)
	}
	resp, err := http.Post(base+"/_sandbox/balances", "application/json", strings.NewReader(`{"set":{"USDT":"42.5"}}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if _, err := http.Get(base + "/v2/ping"); err == nil {
		t.Error("it still answers after the stop")
	}

	base, stop = start(t, "--state", state)
	got := read(t, base+"/_sandbox/state")
	if !strings.Contains(got, `"USDT": "42.5"`) || !strings.Contains(got, `"auto": true`) {
		t.Errorf("state after a restart: %s", got)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestStopDoesNotWaitForALateAnswer(t *testing.T) {
	base, stop := start(t)
	resp, err := http.Post(base+"/_sandbox/faults", "application/json", strings.NewReader(`{"fault":"accept_answer_late","on":"GET /ping","delay":"1h"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	answered := make(chan error, 1)
	go func() {
		resp, err := http.Get(base + "/v2/ping")
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	for !strings.Contains(read(t, base+"/_sandbox/state"), `"GET /ping": 1`) {
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if <-answered == nil {
		t.Error("the late answer came at once")
	}
}

func TestPortInUseIsOneSentence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = run(t.Context(), []string{"--listen", l.Addr().String()}, io.Discard)
	want := "another program already listens on " + l.Addr().String() + "; stop it, or choose another address with --listen"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestWrongFlagsAreRefused(t *testing.T) {
	for _, args := range [][]string{{"--lisen", "x"}, {"serve"}, {"--listen", "nowhere"}, {"--listen", "127.0.0.1:0", "--state", filepath.Join(t.TempDir(), "no", "file")}} {
		if err := run(t.Context(), args, io.Discard); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
	if err := run(t.Context(), []string{"--help"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("help: %v", err)
	}
}
