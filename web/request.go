package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/identity"
	"sluice/internal/money"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

// lives are the times to expiry that the form offers; "" is the policy's own.
var lives = []struct {
	Value, Label string
	Duration     time.Duration
}{
	{"", "24 hours", 0},
	{"1h", "1 hour", time.Hour},
	{"4h", "4 hours", 4 * time.Hour},
	{"12h", "12 hours", 12 * time.Hour},
}

// form is a request as typed: whatever is wrong with it, all of it is shown again.
type form struct {
	Key                                             string
	Destination, Amount, Reference, Purpose, MaxFee string
	Expires                                         string
}

type requestView struct {
	form
	Picks   []pick
	Lives   any
	Errors  map[string]string
	Problem *fault.Problem
	// ConfigAge is when the exchange's rules were read.
	ConfigAt time.Time
	MayAsk   bool
	Unit     string // of the chosen destination
}

// pick is one destination of the form with the exchange's rules for it.
type pick struct {
	whitelist.Destination
	Chosen   bool
	Disabled string // why it cannot be chosen
	Rules    string // what the exchange takes, in words
}

func (s *site) requestPage(w http.ResponseWriter, r *http.Request) {
	s.showRequest(w, r, http.StatusOK, requestView{form: form{Key: newKey(), Destination: r.URL.Query().Get("destination")}})
}

// newKey is the idempotency key of one form. It travels with the form, so a second
// click, or a reload of the answer, is the same request.
func newKey() string { return "web-" + rand.Text() }

func (s *site) showRequest(w http.ResponseWriter, r *http.Request, status int, view requestView) {
	ctx := r.Context()
	list, err := s.Store.Destinations(ctx, "")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	chains, at, err := s.Store.Chains(ctx)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	view.ConfigAt, view.Lives, view.MayAsk = at, lives, viewerOf(r).Can(identity.Requester)
	for _, d := range list {
		rule := ruleOf(d, chains)
		p := pick{Destination: d, Chosen: d.ID.String() == view.Destination, Disabled: closed(d, rule), Rules: rules(d.Method, rule)}
		if p.Chosen {
			view.Unit = d.Asset
		}
		view.Picks = append(view.Picks, p)
	}
	s.show(w, r, status, "request", page{Title: "New withdrawal", Nav: "withdrawals", Body: view})
}

// ruleOf finds what the exchange says of a destination's asset and chain. A transfer
// between users has no chain; any row of the asset carries its switch.
func ruleOf(d whitelist.Destination, chains []exchange.ChainConfig) *exchange.ChainConfig {
	for i, c := range chains {
		if c.Asset == d.Asset && (c.Chain == d.Chain || d.Method == exchange.InterUser) {
			return &chains[i]
		}
	}
	return nil
}

// closed says why a destination cannot be paid now; "" when it can.
func closed(d whitelist.Destination, c *exchange.ChainConfig) string {
	switch {
	case d.State == whitelist.Quarantined:
		return "Quarantined: " + d.Reason
	case d.State != whitelist.Active:
		return "No longer on the whitelist"
	case c == nil:
		return "The exchange says nothing of this asset and chain"
	case !c.AssetEnabled, d.Method == exchange.OnChain && !c.ChainEnabled, d.Method == exchange.InterUser && !c.InterUserEnabled:
		return "The exchange has suspended withdrawals here"
	}
	return ""
}

// rules is what the exchange takes at a destination, in words. Between users it
// takes no fee and has no minimum (facts 3.1).
func rules(m exchange.Method, c *exchange.ChainConfig) string {
	switch {
	case c == nil:
		return ""
	case m == exchange.InterUser:
		return fmt.Sprintf("Up to %d decimals, no fee", c.Precision)
	}
	return fmt.Sprintf("Minimum %s %s, up to %d decimals, fee %s %s",
		money.Text(c.MinAmount), c.Asset, c.Precision, money.Text(c.Fee), c.Asset)
}

func (s *site) request(w http.ResponseWriter, r *http.Request) {
	me := viewerOf(r)
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, badBody(err))
		return
	}
	view := requestView{form: typed(r.PostForm), Errors: map[string]string{}}
	if !me.Can(identity.Requester) {
		s.fail(w, r, fault.New(fault.Forbidden, "not_a_requester", "you are not a requester", "ask an admin for the role, or ask a requester"))
		return
	}
	asked, err := s.asked(r.Context(), &view, me.Actor())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if len(view.Errors) > 0 {
		s.showRequest(w, r, http.StatusUnprocessableEntity, view)
		return
	}
	answer, err := s.Desk.Submit(r.Context(), asked)
	if err == nil && answer.Status == http.StatusCreated {
		var made struct {
			ID uuid.UUID `json:"id"`
		}
		if err = json.Unmarshal(answer.Body, &made); err == nil {
			http.Redirect(w, r, "/withdrawals/"+made.ID.String(), http.StatusSeeOther)
			return
		}
	}
	problem := fault.ProblemOf(err)
	if err == nil {
		if err = json.Unmarshal(answer.Body, &problem); err != nil {
			s.fail(w, r, fmt.Errorf("read the desk's refusal: %w", err))
			return
		}
		// A recorded refusal is this key's answer for ever. What is typed next is
		// another request; a payout that may have been recorded keeps its key.
		view.Key = newKey()
	} else if problem.Status == http.StatusInternalServerError {
		s.Log.ErrorContext(r.Context(), "request failed", "error", err)
		problem.Fix = "send the form again as it is: it counts once, however often it is sent"
	}
	if f := fieldOf(problem.Field); f != "" {
		view.Errors[f] = sentence(problem.Detail)
	}
	view.Problem = &problem
	s.showRequest(w, r, problem.Status, view)
}

func typed(p url.Values) form {
	line := func(name string) string { return strings.TrimSpace(p.Get(name)) }
	return form{
		Key: line("key"), Destination: line("destination"), Amount: line("amount"), Reference: line("reference"),
		Purpose: strings.Join(strings.Fields(p.Get("purpose")), " "), MaxFee: line("max_fee"), Expires: line("expires"),
	}
}

// asked turns what was typed into a request, noting in view.Errors what a person
// can mend at once. The desk decides; this only spares people a recorded refusal
// over a slip of the finger.
func (s *site) asked(ctx context.Context, view *requestView, actor string) (withdraw.Request, error) {
	wrong := func(field, why string) { view.Errors[field] = why }
	list, err := s.Store.Destinations(ctx, "")
	if err != nil {
		return withdraw.Request{}, err
	}
	chains, _, err := s.Store.Chains(ctx)
	if err != nil {
		return withdraw.Request{}, err
	}
	r := withdraw.Request{Requester: actor, IdempotencyKey: view.Key, Reference: view.Reference, Purpose: view.Purpose}
	if view.Key == "" || len(view.Key) > withdraw.MaxKey {
		view.Key = newKey()
		wrong("form", "The form had lost its key, so nothing was sent. Read it through and send it again.")
	}

	var rule *exchange.ChainConfig
	for _, d := range list {
		if d.ID.String() != view.Destination {
			continue
		}
		r.Key, rule = d.Key, ruleOf(d, chains)
		if why := closed(d, rule); why != "" {
			wrong("destination", why+".")
		}
	}
	if r.Address == "" {
		wrong("destination", "Choose where the money goes.")
	}

	if r.Amount, err = money.Parse(view.Amount); err != nil {
		wrong("amount", amountError(view.Amount, err))
	} else if rule != nil {
		if no := outOfBounds(r.Amount, r.Method, rule); no != "" {
			wrong("amount", no)
		}
	}
	if view.MaxFee != "" {
		ceiling := decimal.Zero
		if view.MaxFee != "0" {
			ceiling, err = money.Parse(view.MaxFee)
		}
		switch {
		case err != nil && view.MaxFee != "0":
			wrong("max_fee", amountError(view.MaxFee, err))
		case rule != nil && r.Method == exchange.OnChain && ceiling.LessThan(rule.Fee):
			wrong("max_fee", fmt.Sprintf("The exchange's fee is %s %s now. Raise the ceiling, or leave it empty.", money.Text(rule.Fee), rule.Asset))
		default:
			r.MaxFee = &ceiling
		}
	}
	lengths(view, wrong)
	known := false
	for _, l := range lives {
		if l.Value == view.Expires {
			r.ExpiresIn, known = l.Duration, true
		}
	}
	if !known {
		wrong("expires", "Choose one of the times.")
	}
	if len(view.Errors) > 0 {
		return r, nil
	}
	r.BodyHash, err = hashOf(r)
	return r, err
}

func lengths(view *requestView, wrong func(field, why string)) {
	switch {
	case view.Reference == "":
		wrong("reference", "Give the reference of this payout.")
	case utf8.RuneCountInString(view.Reference) > withdraw.MaxReference || !plainText(view.Reference):
		wrong("reference", fmt.Sprintf("At most %d plain characters.", withdraw.MaxReference))
	}
	switch {
	case view.Purpose == "":
		wrong("purpose", "Say what it is for.")
	case !plainText(view.Purpose):
		wrong("purpose", fmt.Sprintf("At most %d plain characters.", withdraw.MaxText))
	}
}

func amountError(typed string, err error) string {
	if typed == "" {
		return "Enter an amount."
	}
	if strings.Contains(typed, ",") {
		return "Write it with a point and without commas, such as 1250.5."
	}
	if e, ok := fault.As(err); ok && e.Code == "amount_not_positive" {
		return "The amount must be above zero."
	}
	return "Write it in plain digits with at most one point, such as 1250.5."
}

func outOfBounds(amount decimal.Decimal, m exchange.Method, c *exchange.ChainConfig) string {
	switch {
	case money.Decimals(amount) > c.Precision:
		return fmt.Sprintf("At most %d decimals for %s here. Sluice never rounds money.", c.Precision, c.Asset)
	case m == exchange.OnChain && amount.LessThan(c.MinAmount):
		return fmt.Sprintf("The exchange's minimum is %s %s.", money.Text(c.MinAmount), c.Asset)
	}
	return ""
}

// hashOf is the request's meaning, by which a repeated key is compared.
func hashOf(r withdraw.Request) ([sha256.Size]byte, error) {
	ceiling := ""
	if r.MaxFee != nil {
		ceiling = money.Text(*r.MaxFee)
	}
	b, err := canonical.Marshal(canonical.Object{
		"account": r.Account, "method": string(r.Method), "asset": r.Asset, "chain": r.Chain, "address": r.Address,
		"memo": r.Memo, "amount": money.Text(r.Amount), "max_fee": ceiling, "reference": r.Reference,
		"purpose": r.Purpose, "expires_in": r.ExpiresIn.String(),
	})
	if err != nil {
		return [sha256.Size]byte{}, fault.New(fault.Invalid, "text_invalid", "the request holds text that cannot be read", "type it again").Because(err)
	}
	return sha256.Sum256(b), nil
}

// fieldOf is the form's field for a field of the API, when it has one.
func fieldOf(api string) string {
	switch api {
	case "amount", "reference", "purpose", "max_fee":
		return api
	case "expires_in":
		return "expires"
	case "address", "asset", "chain", "memo", "account", "method":
		return "destination"
	}
	return ""
}

// sentence gives a detail its capital and its full stop.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	r, n := utf8.DecodeRuneInString(s)
	return strings.ToUpper(string(r)) + s[n:] + "."
}
