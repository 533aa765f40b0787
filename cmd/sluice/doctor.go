package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"sluice/internal/config"
	"sluice/internal/doctor"
	"sluice/internal/exchange"
	"sluice/internal/exchange/sandbox"
	"sluice/internal/fault"
	"sluice/internal/process/dev"
)

type doctorCommand struct {
	operators
	Account string `help:"The account, as Sluice calls it." default:"main" env:"SLUICE_ACCOUNT"`
	JSON    bool   `name:"json" help:"Print the report as JSON."`
}

var errUnwell = fault.New(fault.Refused, "unwell", "nothing can be paid like this", "mend what is marked \"fail\", from the top")

func (c *doctorCommand) Run(ctx context.Context, out io.Writer) error {
	at, err := c.exchange()
	if err != nil {
		return err
	}
	facts := doctor.Facts{At: time.Now(), Key: at.key}
	if store, err := c.open(ctx); err == nil {
		defer store.Close()
		// Without a database, or before its migration, all the rest can still be checked.
		if record, err := store.AccountRecord(ctx, c.Account); err == nil {
			facts.Record = &record
		}
	}
	report := doctor.Examine(ctx, at.url, at.id, at.secret, facts)
	if c.JSON {
		err = printJSON(out, report)
	} else {
		printReport(out, report)
	}
	if report.Standing == exchange.Broken {
		err = errors.Join(err, errUnwell)
	}
	return err
}

// road is the way to the exchange, as it is set.
type road struct {
	url, id, secret string
	key             doctor.Key
}

// exchange reads the worker's settings of the exchange; without any, those of the dev
// stack.
func (c *doctorCommand) exchange() (road, error) {
	r := config.Read(os.Getenv)
	at := road{url: r.Text("SLUICE_COINEX_URL", "")}
	at.id, at.secret = string(r.OptionalSecret("SLUICE_COINEX_ACCESS_ID")), string(r.OptionalSecret("SLUICE_COINEX_SECRET_KEY"))
	created, bound := r.OptionalSecret(doctor.CreatedSetting), r.OptionalSecret(doctor.BoundSetting)
	var err error
	at.key, err = doctor.ParseKey(string(created), string(bound))
	if err := errors.Join(r.Err(), err); err != nil {
		return at, err
	}
	if at.url == "" && at.id == "" && at.secret == "" {
		note, err := dev.ReadNote(c.Data)
		if err != nil {
			return at, fmt.Errorf("set SLUICE_COINEX_ACCESS_ID and SLUICE_COINEX_SECRET_KEY, or their _FILE forms, as the worker has them; %w", err)
		}
		at.url, at.id, at.secret = note.Exchange, sandbox.AccessID, sandbox.SecretKey
	}
	if at.url == "" {
		at.url = "https://api.coinex.com"
	}
	return at, nil
}

func printReport(out io.Writer, r doctor.Report) {
	for _, c := range r.Checks {
		fmt.Fprintf(out, "%-4s  %-22s %s\n", c.Standing, c.Check, c.Says)
		if c.Fix != "" {
			fmt.Fprintf(out, "%-4s  %-22s %s\n", "", "", "→ "+c.Fix)
		}
		for _, also := range c.Also {
			fmt.Fprintf(out, "%-4s  %-22s %s\n", "", "", "or: "+also.Says+" → "+also.Fix)
		}
	}
	fmt.Fprintf(out, "\n%s\n", map[exchange.Standing]string{exchange.Well: "All is well.",
		exchange.Doubtful: "It works. Look at what is marked \"warn\".", exchange.Broken: "It does not work."}[r.Standing])
}

type confirmCommand struct {
	operators
	Item    string `arg:"" help:"What was looked up: two_factor, withdraw_permission or api_whitelist; sluice doctor says how." enum:"two_factor,withdraw_permission,api_whitelist"`
	Account string `help:"The account, as Sluice calls it." default:"main" env:"SLUICE_ACCOUNT"`
}

func (c *confirmCommand) Run(ctx context.Context, out io.Writer) error {
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	now := time.Now()
	if err := store.Confirm(ctx, c.Account, c.Item, operator(), now); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s of account %s confirmed by %s on %s; it is on the record\n", c.Item, c.Account, operator(), now.UTC().Format(time.DateOnly))
	return nil
}
