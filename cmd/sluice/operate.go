package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"sluice/internal/approval"
	"sluice/internal/audit"
	"sluice/internal/audit/receipt"
	"sluice/internal/config"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/identity"
	"sluice/internal/pgstore"
	"sluice/internal/process/dev"
	"sluice/internal/whitelist"
)

type migrateCommand struct {
	operators
}

func (c *migrateCommand) Run(ctx context.Context, out io.Writer) error {
	url, err := c.url()
	if err != nil {
		return err
	}
	r := config.Read(os.Getenv)
	passwords := map[string]config.Secret{
		"sluice_api":    r.OptionalSecret("SLUICE_API_DB_PASSWORD"),
		"sluice_worker": r.OptionalSecret("SLUICE_WORKER_DB_PASSWORD"),
	}
	if err := r.Err(); err != nil {
		return err
	}
	if err := pgstore.Migrate(ctx, url, func(line string) { fmt.Fprintln(out, line) }); err != nil {
		return err
	}
	for role, password := range passwords {
		if password == "" {
			continue
		}
		if err := pgstore.SetPassword(ctx, url, role, string(password)); err != nil {
			return err
		}
		fmt.Fprintln(out, "password of", role, "set")
	}
	fmt.Fprintln(out, "the schema is current")
	return nil
}

// checkpointFlags say which key signed the record's checkpoints.
type checkpointFlags struct {
	Verifier string `help:"Public key of the record's checkpoints; of the dev stack by default." env:"SLUICE_CHECKPOINT_VERIFIER" placeholder:"KEY"`
}

func (c checkpointFlags) key(d data) (string, error) {
	if c.Verifier != "" {
		return c.Verifier, nil
	}
	note, err := dev.ReadNote(d.Data)
	if err != nil {
		return "", fmt.Errorf("name the key with --verifier; %w", err)
	}
	return note.Verifier, nil
}

type auditCommand struct {
	Verify auditVerify `cmd:"" help:"Read the whole record and check every hash and signature."`
}

type auditVerify struct {
	operators
	checkpointFlags
	JSON bool `name:"json" help:"Print the report as JSON."`
}

func (c *auditVerify) Run(ctx context.Context, out io.Writer) error {
	key, err := c.key(c.data)
	if err != nil {
		return err
	}
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	report, err := store.VerifyLog(ctx, key, func(done, total int64) {
		if !c.JSON {
			fmt.Fprintf(os.Stderr, "\r%d of %d events", done, total)
		}
	})
	if !c.JSON {
		fmt.Fprintln(os.Stderr)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(out, report)
	}
	fmt.Fprintf(out, "The record holds: %d events, %d checkpoints; %d events are under the newest checkpoint, %d wait for their number.\n",
		report.Events, report.Checkpoints, report.Signed, report.Waiting)
	return nil
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

type receiptCommand struct {
	Export receiptExport `cmd:"" help:"Write the receipt of a withdrawal."`
	Verify receiptVerify `cmd:"" help:"Check a receipt, offline."`
}

// siteFlags say to which site the voters' passkeys belong.
type siteFlags struct {
	PublicURL string `help:"Address under which people see Sluice; of the dev stack by default." env:"SLUICE_PUBLIC_URL" placeholder:"URL"`
}

// relying makes the site. The dev stack's admits software passkeys.
func (s siteFlags) relying(d data) (approval.Relying, error) {
	if s.PublicURL != "" {
		r := config.Read(func(string) string { return s.PublicURL })
		rp := r.Relying()
		return rp, r.Err()
	}
	note, err := dev.ReadNote(d.Data)
	if err != nil {
		return approval.Relying{}, fmt.Errorf("name the site with --public-url; %w", err)
	}
	return approval.Relying{ID: "localhost", Origins: []string{note.Origin}, Software: true}, nil
}

type receiptExport struct {
	operators
	siteFlags
	ID     string `arg:"" help:"Id of the withdrawal."`
	Output string `short:"o" help:"File to write; standard output by default." type:"path"`
}

func (c *receiptExport) Run(ctx context.Context, out io.Writer) error {
	id, err := uuid.Parse(c.ID)
	if err != nil {
		return fault.New(fault.Invalid, "id_malformed", fmt.Sprintf("%q is not the id of a withdrawal", c.ID), "copy it from its page")
	}
	rp, err := c.relying(c.data)
	if err != nil {
		return err
	}
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	r, err := store.Receipt(ctx, id, rp)
	if err != nil {
		return err
	}
	b, err := r.Encode()
	if err != nil {
		return err
	}
	if c.Output == "" {
		_, err = out.Write(append(b, '\n'))
		return err
	}
	return os.WriteFile(c.Output, append(b, '\n'), 0o644)
}

type receiptVerify struct {
	data
	checkpointFlags
	siteFlags
	File string `arg:"" help:"The receipt." type:"existingfile"`
	JSON bool   `name:"json" help:"Print the report as JSON."`
}

func (c *receiptVerify) Run(out io.Writer) error {
	key, err := c.key(c.data)
	if err != nil {
		return err
	}
	rp, err := c.relying(c.data)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	r, err := receipt.Parse(b)
	if err != nil {
		return err
	}
	report, verdict := receipt.Verify(r, key, rp)
	if c.JSON {
		return errors.Join(printJSON(out, report), verdict)
	}
	for _, line := range report.Proven {
		fmt.Fprintln(out, "  ok   ", line)
	}
	for _, line := range report.Failures {
		fmt.Fprintln(out, "  WRONG", line)
	}
	if verdict == nil {
		fmt.Fprintf(out, "The receipt of %s holds; the withdrawal is %s.\n", report.Withdrawal, report.State)
	}
	return verdict
}

type accountCommand struct {
	Add accountAdd `cmd:"" help:"Add an exchange account."`
}

type accountAdd struct {
	operators
	Name string `arg:"" help:"Its name in Sluice."`
}

func (c *accountAdd) Run(ctx context.Context, out io.Writer) error {
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.AddAccount(ctx, c.Name, operator(), time.Now()); err != nil {
		return err
	}
	fmt.Fprintf(out, "account %s added; start a worker with SLUICE_ACCOUNT=%s\n", c.Name, c.Name)
	return nil
}

type personCommand struct {
	Add    personAdd    `cmd:"" help:"Add a person, and print the one-time link by which they enrol their passkey."`
	Invite personInvite `cmd:"" help:"Print another one-time link for a person."`
}

type personAdd struct {
	operators
	siteFlags
	Name    string   `arg:"" help:"Short name."`
	Display string   `help:"Name as pages show it." required:""`
	Role    []string `help:"requester, approver, admin or auditor; repeatable." required:""`
}

func (c *personAdd) Run(ctx context.Context, out io.Writer) error {
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	p := identity.Person{Name: c.Name, DisplayName: c.Display}
	for _, r := range c.Role {
		p.Roles = append(p.Roles, identity.Role(r))
	}
	if p, err = store.AddPerson(ctx, p, operator(), time.Now()); err != nil {
		return err
	}
	return invite(ctx, out, store, c.siteFlags, c.data, p)
}

type personInvite struct {
	operators
	siteFlags
	Name string `arg:"" help:"Short name of the person."`
}

func (c *personInvite) Run(ctx context.Context, out io.Writer) error {
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	p, err := store.PersonByName(ctx, c.Name)
	if err != nil {
		return err
	}
	return invite(ctx, out, store, c.siteFlags, c.data, p)
}

func invite(ctx context.Context, out io.Writer, store *pgstore.Store, s siteFlags, d data, p identity.Person) error {
	rp, err := s.relying(d)
	if err != nil {
		return err
	}
	token, expires, err := store.Invite(ctx, p.ID, operator(), time.Now())
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Give this link to %s alone; it works once, until %s:\n\n  %s/enrol/%s\n",
		p.DisplayName, expires.UTC().Format("2006-01-02 15:04 UTC"), rp.Origins[0], token)
	return nil
}

type clientCommand struct {
	Add clientAdd `cmd:"" help:"Add a service by its Ed25519 public key."`
}

type clientAdd struct {
	operators
	Name      string   `arg:"" help:"Name of the service: the subject of its tokens."`
	PublicKey string   `help:"Its Ed25519 public key, 32 bytes in base64." required:""`
	Account   []string `help:"Account that it may pay from; repeatable." required:""`
	Scope     []string `help:"The most that its tokens may carry." default:"withdrawals:write,withdrawals:read"`
}

func (c *clientAdd) Run(ctx context.Context, out io.Writer) error {
	key, err := base64.StdEncoding.DecodeString(c.PublicKey)
	if err != nil {
		return fault.New(fault.Invalid, "key_malformed", "the public key is not base64", "give the 32 bytes of the Ed25519 public key in base64")
	}
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.AddClient(ctx, identity.Client{Name: c.Name, PublicKey: ed25519.PublicKey(key), Accounts: c.Account, Scopes: c.Scope}, operator(), time.Now()); err != nil {
		return err
	}
	fmt.Fprintf(out, "client %s added; it signs its own tokens with the private key, which Sluice never sees\n", c.Name)
	return nil
}

type whitelistCommand struct {
	Import whitelistImport `cmd:"" help:"Add entries from a CSV file: account,method,asset,chain,address,memo,label, with a heading."`
	Export whitelistExport `cmd:"" help:"Print the active entries for the batch-add page of the exchange's API whitelist."`
}

type whitelistImport struct {
	operators
	File string `arg:"" help:"The CSV file." type:"existingfile"`
}

// columns of an import, in order.
var columns = []string{"account", "method", "asset", "chain", "address", "memo", "label"}

func (c *whitelistImport) Run(ctx context.Context, out io.Writer) error {
	entries, err := readEntries(c.File)
	if err != nil {
		return err
	}
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	added := 0
	for i, e := range entries {
		_, err := store.AddDestination(ctx, e.Key, e.Label, operator(), time.Now())
		if fault.Is(err, "destination_listed") {
			continue
		}
		if err != nil {
			return fmt.Errorf("line %d: %w; %d entries were added before it, and importing the mended file again skips them", i+2, err, added)
		}
		added++
	}
	fmt.Fprintf(out, "%d entries added, %d were listed already\n", added, len(entries)-added)
	return nil
}

// readEntries reads and checks the whole file before anything is written.
func readEntries(path string) ([]whitelist.Destination, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(rows) == 0 || strings.Join(rows[0], ",") != strings.Join(columns, ",") {
		return nil, fmt.Errorf("%s: the first line must be the heading %s", path, strings.Join(columns, ","))
	}
	var entries []whitelist.Destination
	for i, row := range rows[1:] {
		e := whitelist.Destination{Label: row[6], Key: whitelist.Key{Account: row[0], Method: exchange.Method(row[1]), Asset: row[2],
			Chain: row[3], Address: row[4], Memo: row[5]}}
		if err := whitelist.CheckAddress(e.Method, e.Asset, e.Chain, e.Address, e.Memo); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+2, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

type keyCommand struct {
	Name string `arg:"" help:"Name of this log, such as example.com/sluice."`
}

func (c *keyCommand) Run(out io.Writer) error {
	signer, verifier, err := audit.NewKey(c.Name)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Secret, for the worker (SLUICE_CHECKPOINT_KEY_FILE):\n%s\n\nPublic, for auditors (--verifier):\n%s\n", signer, verifier)
	return nil
}
