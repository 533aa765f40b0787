// Command sandbox serves a local CoinEx API v2 for development and for
// integration tests. docs/sandbox.md tells how to use it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"sluice/internal/exchange/sandbox"
	"sluice/internal/fault"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "sandbox:", sentence(err))
		os.Exit(1)
	}
}

// sentence is the error for a person: what is wrong and what to do.
func sentence(err error) string {
	if e, ok := fault.As(err); ok {
		return fmt.Sprintf("%v; %s", err, e.Fix)
	}
	return err.Error()
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("sandbox", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main prints the error, once
	listen := flags.String("listen", "127.0.0.1:8090", "`address` to serve on")
	statePath := flags.String("state", "", "`file` that keeps everything across restarts; without it all is in memory")
	legacy := flags.Bool("legacy", false, "also accept the SHA-256 signatures that CoinEx retired in 2024; ccxt still sends them")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(out)
			flags.Usage()
		}
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; --help lists the flags", flags.Arg(0))
	}

	// The port comes before the state: a sandbox started twice by mistake must
	// fail here, before it writes an older state over that of the first.
	listener, err := net.Listen("tcp", *listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("another program already listens on %s; stop it, or choose another address with --listen", *listen)
	}
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", *listen, err)
	}
	exchange, err := sandbox.Open(sandbox.Options{Auto: true, StatePath: *statePath, LegacySignatures: *legacy})
	if err != nil {
		listener.Close()
		return err
	}
	server := &http.Server{Handler: exchange, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	greet(out, listener.Addr().String(), *statePath)

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	exchange.Close()
	// An answer that a fault holds back must not hold back the end as well.
	grace, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); errors.Is(err, context.DeadlineExceeded) {
		return server.Close()
	} else if err != nil {
		return err
	}
	return nil
}

func greet(out io.Writer, host, statePath string) {
	base := "http://" + host
	kept := statePath
	if kept == "" {
		kept = "in memory"
	}
	fmt.Fprintf(out, `CoinEx sandbox
  address     %[1]s
  websocket   ws://%[5]s/v2/spot and ws://%[5]s/v2/futures
  access id   %[2]s
  secret key  %[3]s
  state       %[4]s
  control     %[1]s/_sandbox/state

Try a signed request:

  ts=$(date +%%s)000
  sign=$(printf 'GET/v2/assets/spot/balance%%s' "$ts" | openssl dgst -sha256 -hmac %[3]s -r | cut -d' ' -f1)
  curl -H "X-COINEX-KEY: %[2]s" -H "X-COINEX-SIGN: $sign" -H "X-COINEX-TIMESTAMP: $ts" %[1]s/v2/assets/spot/balance

ready
`, base, sandbox.AccessID, sandbox.SecretKey, kept, host)
}
