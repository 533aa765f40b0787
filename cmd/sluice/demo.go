package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"sluice/internal/audit/receipt"
	"sluice/internal/exchange/sandbox"
	"sluice/internal/fault"
	"sluice/internal/pgstore"
	"sluice/internal/process/dev"
	"sluice/internal/withdraw"
)

type demoCommand struct{}

func (c *demoCommand) Run(ctx context.Context, out io.Writer) error {
	folder, err := os.MkdirTemp("", "sluice-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if err := os.Chmod(folder, 0o755); err != nil { // Postgres may run as another account
		return err
	}
	fmt.Fprintln(out, "Starting a whole Sluice on throw-away data.")
	log := &bytes.Buffer{}
	stack, err := dev.Start(ctx, dev.Options{Data: folder, Listen: "127.0.0.1:0", Sandbox: "127.0.0.1:0",
		Progress: func(line string) { fmt.Fprintln(out, "  "+line) }, Log: slog.New(slog.NewTextHandler(log, nil))})
	defer stack.Stop()
	if err != nil {
		return err
	}
	s := &story{stack: stack, out: out, began: time.Now()}
	for _, chapter := range []func(context.Context) error{s.refuse, s.request, s.approve, s.lose, s.complete, s.once, s.prove} {
		if err := chapter(ctx); err != nil {
			stack.Stop()
			return fmt.Errorf("the story broke: %w\n\nlog of the processes:\n%s", err, log)
		}
	}
	fmt.Fprintln(out, "\nEvery step held.")
	return nil
}

// story is the life of one payout, told while it happens.
type story struct {
	stack   *dev.Stack
	out     io.Writer
	began   time.Time
	service *dev.Visitor
	id      string
}

func (s *story) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%6.2fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

const (
	demoAmount = "25.5"
	listed     = "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8"
	unlisted   = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"
)

func payout(address, reference string) map[string]string {
	return map[string]string{"account": dev.Account, "asset": "USDT", "chain": "TRC20", "address": address,
		"amount": demoAmount, "reference": reference, "purpose": "demo"}
}

// refuse asks for a payout to an address that is on no list.
func (s *story) refuse(ctx context.Context) error {
	token, err := s.stack.Token("payroll", "withdrawals:write", "withdrawals:read")
	if err != nil {
		return err
	}
	s.service = dev.Service(s.stack.Origin, token)
	status, body, err := s.service.Send(ctx, http.MethodPost, "/v1/withdrawals", uuid.NewString(), payout(unlisted, "demo-0"))
	if err != nil {
		return err
	}
	var problem fault.Problem
	if err := json.Unmarshal(body, &problem); err != nil || status != http.StatusUnprocessableEntity || problem.Code != "destination_not_listed" {
		return fmt.Errorf("an unlisted address was answered with %d %s", status, body)
	}
	s.say("refused    a payout to an address that is not listed (%d %s)", status, problem.Code)
	return nil
}

func (s *story) request(ctx context.Context) error {
	key := uuid.NewString()
	status, body, err := s.service.Send(ctx, http.MethodPost, "/v1/withdrawals", key, payout(listed, "demo-1"))
	if err != nil {
		return err
	}
	var made struct {
		ID          string `json:"id"`
		Digest      string `json:"digest"`
		VotesNeeded int    `json:"votes_needed"`
	}
	if err := json.Unmarshal(body, &made); err != nil || status != http.StatusCreated {
		return fmt.Errorf("the request was answered with %d %s", status, body)
	}
	s.id = made.ID
	s.say("requested  %s USDT to %s: %s", demoAmount, listed, s.id)
	s.say("           digest %s, %d votes needed", made.Digest, made.VotesNeeded)
	_, again, err := s.service.Send(ctx, http.MethodPost, "/v1/withdrawals", key, payout(listed, "demo-1"))
	if err != nil || !bytes.Equal(again, body) {
		return fmt.Errorf("the same request was answered with something else: %s", again)
	}
	s.say("repeated   the same request: the same answer, no second withdrawal")
	return nil
}

// approve lets two people vote, after arranging that the exchange takes the
// submission and its answer gets lost.
func (s *story) approve(ctx context.Context) error {
	if err := s.stack.Sandbox.Inject(sandbox.Fault{Fault: sandbox.AcceptThenDrop}); err != nil {
		return err
	}
	for _, person := range []string{"alice", "bob"} {
		voted, err := dev.Vote(ctx, s.stack.Origin, s.stack.Software, person, s.id, "")
		if err != nil {
			return fmt.Errorf("%s's vote: %w", person, err)
		}
		s.say("voted      %s approves with a passkey; %d more needed", person, voted.Missing)
	}
	return nil
}

// until waits for an event of the withdrawal's record.
func (s *story) until(ctx context.Context, action string) (pgstore.EventRow, error) {
	id := uuid.MustParse(s.id)
	for {
		events, err := s.stack.Owner.EventsOf(ctx, id)
		if err != nil {
			return pgstore.EventRow{}, err
		}
		for _, e := range events {
			if e.Action == action {
				return e, nil
			}
			if e.Action == "withdrawal.held" || e.Action == "withdrawal.failed" {
				return e, fmt.Errorf("waiting for %s, the withdrawal came to %s: %s", action, e.Action, e.Body)
			}
		}
		select {
		case <-ctx.Done():
			return pgstore.EventRow{}, ctx.Err()
		case err := <-s.stack.Failed():
			return pgstore.EventRow{}, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *story) lose(ctx context.Context) error {
	if _, err := s.until(ctx, "submission.attempted"); err != nil {
		return err
	}
	s.say("submitted  the worker checked every vote again and sent the signed request")
	if _, err := s.until(ctx, "submission.unknown"); err != nil {
		return err
	}
	s.say("lost       the exchange hung up without an answer; nothing is sent again")
	found, err := s.until(ctx, "submission.accepted")
	if err != nil {
		return err
	}
	if !bytes.Contains(found.Body, []byte(`"how":"reconciled"`)) {
		return fmt.Errorf("the lost answer was not reconciled: %s", found.Body)
	}
	s.say("found      reconciliation found it in the exchange's history")
	return nil
}

func (s *story) complete(ctx context.Context) error {
	if _, err := s.until(ctx, "withdrawal.completed"); err != nil {
		return err
	}
	var w struct {
		State    withdraw.State `json:"state"`
		Exchange struct {
			ID   json.Number `json:"id"`
			TxID string      `json:"tx_id"`
		} `json:"exchange"`
	}
	if err := s.service.Do(ctx, http.MethodGet, "/v1/withdrawals/"+s.id, nil, &w); err != nil {
		return err
	}
	if w.State != withdraw.Completed {
		return fmt.Errorf("the api says %s", w.State)
	}
	s.say("completed  exchange id %s, transaction %s", w.Exchange.ID, w.Exchange.TxID)
	return nil
}

// once counts what the exchange has really paid.
func (s *story) once(context.Context) error {
	paid := s.stack.Sandbox.Withdrawals()
	if len(paid) != 1 || !decimal.RequireFromString(demoAmount).Equal(paid[0].Net) {
		return fmt.Errorf("the exchange has %d withdrawals: %+v", len(paid), paid)
	}
	s.say("counted    the exchange made exactly one withdrawal, of %s net", paid[0].Net)
	return nil
}

// prove exports the receipt and checks it with nothing but the public key, and
// checks that a changed one does not pass.
func (s *story) prove(ctx context.Context) error {
	var r receipt.Receipt
	for {
		var err error
		r, err = s.stack.Owner.Receipt(ctx, uuid.MustParse(s.id), s.stack.Relying)
		if err == nil {
			break
		}
		if !fault.Is(err, "receipt_not_ready") {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	report, err := receipt.Verify(r, s.stack.Verifier, s.stack.Relying)
	if err != nil {
		return err
	}
	s.say("proven     the receipt verifies offline:")
	for _, line := range report.Proven {
		fmt.Fprintln(s.out, "           - "+line)
	}
	b, err := r.Encode()
	if err != nil {
		return err
	}
	forged, err := receipt.Parse(bytes.ReplaceAll(b, []byte(demoAmount), []byte("99.5")))
	if err == nil {
		_, err = receipt.Verify(forged, s.stack.Verifier, s.stack.Relying)
	}
	if err == nil {
		return fmt.Errorf("a receipt with another amount verified too")
	}
	s.say("refused    the same receipt with another amount")
	return nil
}
