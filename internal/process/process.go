// Package process holds what the api and the worker share in how a process lives:
// serving until told to stop, and stopping in order.
package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"syscall"
	"time"

	"sluice/internal/fault"
)

// stopTimeout bounds how long a stop waits for requests under way.
const stopTimeout = 10 * time.Second

// Listen opens an address, and says in one sentence what is wrong when it cannot.
func Listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("address %s is in use by another program; stop it, or choose another address", address)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	return l, nil
}

// Serve answers on a listener until ctx ends, and then finishes what is under way.
func Serve(ctx context.Context, l net.Listener, server *http.Server) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		return fmt.Errorf("stop serving %s: %w", l.Addr(), err)
	}
	return nil
}

// Sentence is an error for a person at a terminal: what is wrong, and what to do.
func Sentence(err error) string {
	if f, ok := fault.As(err); ok {
		return f.Detail + "; " + f.Fix
	}
	return err.Error()
}

// Build names this build: the version control revision, when the toolchain knew it.
func Build() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return "development"
}
