package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"sluice/internal/config"
	"sluice/internal/fault"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

type supportCommand struct {
	operators
	ID         string `arg:"" help:"Id of the withdrawal."`
	Email      string `help:"E-mail address of the main account." xor:"who" required:""`
	SubAccount string `help:"User name of the sub-account." xor:"who" required:""`
	Output     string `short:"o" help:"File to write; standard output by default." type:"path"`
}

// bundle is what CoinEx's support asks for (FAQ, last lines): whose account it is, and
// the complete requests and responses. Nothing in it could sign or repeat a request.
type bundle struct {
	Account    string          `json:"coinex_account"` // e-mail address or name of the sub-account
	Withdrawal uuid.UUID       `json:"withdrawal"`
	State      withdraw.State  `json:"state"`
	ExchangeID *int64          `json:"withdraw_id,omitempty"`
	Status     string          `json:"exchange_status,omitempty"`
	Attempts   []bundleAttempt `json:"attempts"`
	Written    time.Time       `json:"written_at"`
	Withheld   string          `json:"withheld"`
}

type bundleAttempt struct {
	Number  int             `json:"attempt"`
	Outcome string          `json:"outcome"`
	HTTP    json.RawMessage `json:"http"`
}

// bundleHTTP is the HTTP exchange of an attempt whose worker ended before it could keep
// one: what the attempt itself holds.
type bundleHTTP struct {
	At             time.Time         `json:"at"`
	Method         string            `json:"method"`
	URL            string            `json:"url"`
	RequestHeader  map[string]string `json:"request_header"`
	RequestBody    string            `json:"request_body"`
	Status         int               `json:"status,omitempty"`
	ResponseHeader string            `json:"response_header"`
	ResponseBody   string            `json:"response_body,omitempty"`
	Note           string            `json:"note"`
}

const withheld = "[withheld]"

func (c *supportCommand) Run(ctx context.Context, out io.Writer) error {
	id, err := uuid.Parse(c.ID)
	if err != nil {
		return fault.New(fault.Invalid, "id_malformed", fmt.Sprintf("%q is not the id of a withdrawal", c.ID), "copy it from its page")
	}
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	w, err := store.Withdrawal(ctx, id)
	if err != nil {
		return err
	}
	attempts, err := store.Attempts(ctx, id)
	if err != nil {
		return err
	}
	traces, err := store.Traces(ctx, id)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(pack(c.Email+c.SubAccount, w, attempts, traces, time.Now()), "", "  ")
	if err != nil {
		return err
	}
	// Nothing in the database should hold a key. Where this machine knows them, look.
	r := config.Read(os.Getenv)
	for _, name := range []string{"SLUICE_COINEX_ACCESS_ID", "SLUICE_COINEX_SECRET_KEY"} {
		if s := string(r.OptionalSecret(name)); len(s) >= 8 {
			b = []byte(strings.ReplaceAll(string(b), s, withheld))
		}
	}
	b = append(b, '\n')
	if c.Output == "" {
		_, err = out.Write(b)
		return err
	}
	if err := os.WriteFile(c.Output, b, 0o600); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s holds %d attempts; send it to CoinEx's support\n", c.Output, len(attempts))
	return nil
}

func pack(who string, w withdraw.Withdrawal, attempts []withdraw.Attempt, traces map[uuid.UUID]json.RawMessage, now time.Time) bundle {
	b := bundle{Account: who, Withdrawal: w.ID, State: w.State, ExchangeID: w.ExchangeID, Status: w.ExchangeStatus, Attempts: []bundleAttempt{}, Written: now.UTC(),
		Withheld: "Access id, secret key and signatures are left out, as you ask of your customers."}
	for _, a := range attempts {
		entry := bundleAttempt{Number: a.Number, Outcome: a.Outcome, HTTP: traces[a.ID]}
		if entry.HTTP == nil {
			entry.HTTP = fromAttempt(a)
		}
		b.Attempts = append(b.Attempts, entry)
	}
	return b
}

func fromAttempt(a withdraw.Attempt) json.RawMessage {
	h := bundleHTTP{At: a.SignedAt.UTC(), Method: "POST", URL: "/v2/assets/withdraw", RequestBody: string(a.Body), Status: a.HTTPStatus,
		RequestHeader: map[string]string{"X-COINEX-KEY": withheld, "X-COINEX-SIGN": withheld, "Content-Type": "application/json",
			"X-COINEX-TIMESTAMP": strconv.FormatInt(a.SignedAt.UnixMilli(), 10), "X-COINEX-WINDOWTIME": strconv.Itoa(a.WindowMS)},
		ResponseHeader: "not kept", ResponseBody: string(a.Response),
		Note: "From the attempt's row: " + a.Message}
	b, err := json.Marshal(h)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return b
}

type whitelistExport struct {
	operators
	Account string `help:"Entries of this account." default:"main" env:"SLUICE_ACCOUNT"`
}

func (c *whitelistExport) Run(ctx context.Context, out io.Writer) error {
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	list, err := store.Destinations(ctx, c.Account)
	if err != nil {
		return err
	}
	return whitelist.WriteBatch(out, list)
}
