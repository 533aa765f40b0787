// Command sluice is the operator's command line, and `sluice dev`, which runs
// everything on one machine.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"

	"sluice/internal/config"
	"sluice/internal/fault"
	"sluice/internal/identity"
	"sluice/internal/pgstore"
	"sluice/internal/pgstore/pgserver"
	"sluice/internal/process"
	"sluice/internal/process/dev"
)

type commands struct {
	Dev   devCommand   `cmd:"" help:"Run everything on this machine: Postgres, sandbox exchange, api and worker, with demo people."`
	Demo  demoCommand  `cmd:"" help:"Tell the whole story on throw-away data in under a minute; exit 0 only if every step held."`
	Token tokenCommand `cmd:"" help:"Print a token for a demo service of the dev stack."`
	Vote  voteCommand  `cmd:"" help:"Vote as a demo person of the dev stack, with their software passkey."`

	Doctor  doctorCommand  `cmd:"" help:"Find out why this account cannot pay, or soon will not; exit 1 if it cannot."`
	Confirm confirmCommand `cmd:"" help:"Confirm an item of the start-up checklist that only a person can look up."`
	Support supportCommand `cmd:"" help:"Write what CoinEx's support asks for about a withdrawal, without any secret."`

	Migrate   migrateCommand   `cmd:"" help:"Bring the database to this program's schema and set its roles' passwords."`
	Audit     auditCommand     `cmd:"" help:"Check the record."`
	Receipt   receiptCommand   `cmd:"" help:"Export and check the proof of one payout."`
	Account   accountCommand   `cmd:"" help:"Exchange accounts."`
	Person    personCommand    `cmd:"" help:"People and their invitations to enrol a passkey."`
	Client    clientCommand    `cmd:"" help:"Services that may request payouts."`
	Whitelist whitelistCommand `cmd:"" help:"The mirror of the exchange's API withdrawal whitelist."`
	Key       keyCommand       `cmd:"" help:"Make the key that signs the record's checkpoints."`
	Health    healthCommand    `cmd:"" help:"Ask a process for its health; exit 0 only if it is well."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c commands
	k := kong.Parse(&c, kong.Name("sluice"), kong.UsageOnError(),
		kong.Description("Withdrawals from an exchange account that no one can make alone."),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.BindTo(os.Stdout, (*io.Writer)(nil)))
	if err := k.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "sluice:", process.Sentence(err))
		os.Exit(1)
	}
}

// data is the flag by which a command finds the dev stack's folder.
type data struct {
	Data string `help:"Folder of the dev stack's state." default:".sluice" type:"path"`
}

type devCommand struct {
	data
	Listen  string `help:"Address of the api." default:"127.0.0.1:8080"`
	Sandbox string `help:"Address of the sandbox exchange." default:"127.0.0.1:8090"`
	Fresh   bool   `help:"Throw the state away first."`
	Coinex  string `help:"Another exchange address in place of the sandbox, with the test key." placeholder:"URL"`
}

func (c *devCommand) Run(ctx context.Context, out io.Writer) error {
	if c.Fresh {
		if err := removeDev(ctx, c.Data); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(c.Data, 0o755); err != nil {
		return fmt.Errorf("the data folder cannot be made: %w", err)
	}
	logPath := filepath.Join(c.Data, "sluice.log")
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	began := time.Now()
	stack, err := dev.Start(ctx, dev.Options{
		Data: c.Data, Listen: c.Listen, Sandbox: c.Sandbox, CoinEx: c.Coinex, Build: process.Build(),
		Progress: func(line string) { fmt.Fprintln(out, "  "+line) },
		Log:      slog.New(slog.NewJSONHandler(logFile, nil)),
	})
	defer stack.Stop()
	if err != nil {
		if ctx.Err() != nil {
			return nil // told to stop while starting
		}
		return err
	}
	greet(out, c, stack, logPath, time.Since(began))
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "\nstopping: api, worker, sandbox, Postgres")
		stack.Stop()
		fmt.Fprintln(out, "stopped")
		return nil
	case err := <-stack.Failed():
		return fmt.Errorf("%w; the log is %s", err, logPath)
	}
}

// removeDev deletes what a dev stack left, and refuses to delete anything else.
func removeDev(ctx context.Context, folder string) error {
	if _, err := os.Stat(folder); os.IsNotExist(err) {
		return nil
	}
	if err := pgserver.Remove(ctx, filepath.Join(folder, "postgres")); err != nil {
		return err
	}
	for _, name := range []string{"sandbox.json", "passkeys.json", "checkpoint.key", "clients", "dev.json", "sluice.log"} {
		if err := os.RemoveAll(filepath.Join(folder, name)); err != nil {
			return err
		}
	}
	return nil
}

func greet(out io.Writer, c *devCommand, s *dev.Stack, logPath string, took time.Duration) {
	flag := ""
	if c.Data != defaultData() {
		flag = " --data " + c.Data
	}
	fmt.Fprintf(out, `
Sluice runs (%[5]s)
  pages       %[1]s       sign in as a demo person: alice, bob, carol (approvers), dora (requester), otto (auditor)
  api         %[1]s/v1    described at %[1]s/docs
  exchange    %[2]s
  database    see %[3]s/dev.json
  log         %[4]s

Request a payout:

  TOKEN=$(go run ./cmd/sluice token --client payroll%[6]s)
  curl -sS %[1]s/v1/withdrawals -H "Authorization: Bearer $TOKEN" -H "Idempotency-Key: $(date +%%s%%N)" \
    -H 'Content-Type: application/json' -d '{"account":"main","asset":"USDT","chain":"TRC20",
    "address":"TJRabPrwbZy45sbavfcjinPJC18kjpRTv8","amount":"25.5","reference":"'$(date +%%s%%N)'","purpose":"first payout"}'

Approve it, with the id of the answer:

  go run ./cmd/sluice vote ID --as alice%[6]s
  go run ./cmd/sluice vote ID --as bob%[6]s

ready
`, s.Origin, s.Exchange, c.Data, logPath, took.Round(10*time.Millisecond), flag)
}

func defaultData() string {
	path, err := filepath.Abs(".sluice")
	if err != nil {
		return ".sluice"
	}
	return path
}

type tokenCommand struct {
	data
	Client   string        `help:"Name of the service client." required:""`
	Scope    []string      `help:"Scopes of the token." default:"withdrawals:write,withdrawals:read"`
	Lifetime time.Duration `help:"How long it is valid; one hour at most." default:"1h"`
}

func (c *tokenCommand) Run(out io.Writer) error {
	if _, err := dev.ReadNote(c.Data); err != nil {
		return err
	}
	key, err := dev.ClientKey(c.Data, c.Client)
	if err != nil {
		return fmt.Errorf("there is no demo client %q here; `payroll` and `settlement` are", c.Client)
	}
	token, err := identity.SignToken(c.Client, key, c.Scope, time.Now(), c.Lifetime)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, token)
	return err
}

type voteCommand struct {
	data
	ID     string `arg:"" help:"Id of the withdrawal."`
	As     string `help:"Name of the demo person." required:"" placeholder:"PERSON"`
	Reject string `help:"Reject, for this reason." placeholder:"REASON"`
}

func (c *voteCommand) Run(ctx context.Context, out io.Writer) error {
	note, err := dev.ReadNote(c.Data)
	if err != nil {
		return err
	}
	if _, err := uuid.Parse(c.ID); err != nil {
		return fault.New(fault.Invalid, "id_malformed", fmt.Sprintf("%q is not the id of a withdrawal", c.ID), "copy it from the answer to the request")
	}
	software, err := identity.OpenSoftware(filepath.Join(c.Data, "passkeys.json"))
	if err != nil {
		return err
	}
	voted, err := dev.Vote(ctx, note.Origin, software, c.As, c.ID, c.Reject)
	if err != nil {
		return err
	}
	switch {
	case voted.Missing > 0 && c.Reject == "":
		fmt.Fprintf(out, "%s approved; %d more needed; the withdrawal is %s\n", c.As, voted.Missing, voted.State)
	case c.Reject != "":
		fmt.Fprintf(out, "%s rejected; the withdrawal is %s\n", c.As, voted.State)
	default:
		fmt.Fprintf(out, "%s approved; the quorum is there; the withdrawal is %s\n", c.As, voted.State)
	}
	return nil
}

// operators is how operator commands find the database and say who they are.
type operators struct {
	data
	Database string `help:"Database address of the owner; SLUICE_DATABASE_URL or SLUICE_DATABASE_URL_FILE by default, then the dev stack." placeholder:"URL"`
}

// url is the owner's database address.
func (o operators) url() (string, error) {
	if o.Database != "" {
		return o.Database, nil
	}
	r := config.Read(os.Getenv)
	if url := r.OptionalSecret("SLUICE_DATABASE_URL"); url != "" || r.Err() != nil {
		return string(url), r.Err()
	}
	note, err := dev.ReadNote(o.Data)
	if err != nil {
		return "", fmt.Errorf("set SLUICE_DATABASE_URL to the owner's database address; %w", err)
	}
	return note.Owner, nil
}

// open connects as the owner. The record says which account of this machine it was.
func (o operators) open(ctx context.Context) (*pgstore.Store, error) {
	url, err := o.url()
	if err != nil {
		return nil, err
	}
	return pgstore.Open(ctx, url)
}

func operator() string {
	for _, name := range []string{os.Getenv("SUDO_USER"), os.Getenv("USER"), os.Getenv("LOGNAME")} {
		if name != "" {
			return "operator:" + name
		}
	}
	return "operator:unknown"
}
