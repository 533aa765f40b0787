package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"sluice/internal/audit"
	"sluice/internal/fault"
	"sluice/internal/identity"
	"sluice/internal/withdraw"
)

// visible is the form of an Idempotency-Key: 1 to 255 visible ASCII characters.
var visible = regexp.MustCompile(`^[!-~]{1,255}$`)

// create asks for a withdrawal.
func (a *api) create(c echo.Context) error {
	t, err := requireScope(c, identity.ScopeWrite)
	if err != nil {
		return err
	}
	if _, err := query(c); err != nil {
		return err
	}
	key, err := idempotencyKey(c)
	if err != nil {
		return err
	}
	body, err := readBody(c)
	if err != nil {
		return err
	}
	r, err := decodeRequest(body, a.Policy)
	if err != nil {
		return err
	}
	r.Requester, r.IdempotencyKey, r.ClientKey = requester(t), key, t.Key
	if no := r.Shape(); no != nil {
		return no
	}
	if !slices.Contains(t.Accounts, r.Account) {
		return fault.New(fault.Forbidden, "account_not_allowed", fmt.Sprintf("the client %s may not pay from the account %q", t.Client, r.Account),
			"use an account of this client, or ask the operators of Sluice for this one").On("account")
	}
	answer, err := a.Intake.Submit(c.Request().Context(), r)
	if err != nil {
		return err
	}
	// The bytes are those of the first answer under this key, for ever.
	kind := jsonType
	if answer.Status >= http.StatusBadRequest {
		kind = problemType
	}
	return c.Blob(answer.Status, kind, answer.Body)
}

func idempotencyKey(c echo.Context) (string, error) {
	const name = "Idempotency-Key"
	keys := c.Request().Header.Values(name)
	switch {
	case len(keys) == 0:
		return "", fault.New(fault.Malformed, "idempotency_key_missing", "the header "+name+" is missing; without it a repeated request could pay twice",
			"send a key that is unique to this payout, and the same one whenever you send this payout again").On(name)
	case len(keys) > 1 || !visible.MatchString(keys[0]):
		return "", fault.New(fault.Malformed, "idempotency_key_malformed", "the header "+name+" is not one text of 1 to 255 visible ASCII characters",
			"use a UUID, or your own id of the payout").On(name)
	}
	return keys[0], nil
}

// list shows a page of the client's requests, newest first.
func (a *api) list(c echo.Context) error {
	t, err := requireScope(c, identity.ScopeRead)
	if err != nil {
		return err
	}
	f, err := filterOf(c, t)
	if err != nil {
		return err
	}
	found, next, err := a.Store.Withdrawals(c.Request().Context(), f)
	if err != nil {
		return err
	}
	page := struct {
		Withdrawals []json.RawMessage `json:"withdrawals"`
		NextCursor  string            `json:"next_cursor,omitempty"`
	}{Withdrawals: make([]json.RawMessage, len(found))}
	for i, w := range found {
		page.Withdrawals[i] = a.view(w)
	}
	if next != uuid.Nil {
		page.NextCursor = next.String()
	}
	return c.JSON(http.StatusOK, page)
}

func (a *api) get(c echo.Context) error {
	w, _, err := a.own(c, identity.ScopeRead)
	if err != nil {
		return err
	}
	return c.JSONBlob(http.StatusOK, a.view(w))
}

// event is one entry of the record as programs see it.
type event struct {
	ID     string          `json:"id"`
	At     string          `json:"at"`
	Actor  string          `json:"actor"`
	Action string          `json:"action"`
	Seq    *int64          `json:"seq,omitempty"` // its number in the signed log, once it has one
	Detail json.RawMessage `json:"detail,omitempty"`
}

// events shows the record of one withdrawal, oldest first. It has an end: a
// withdrawal leads a short life.
func (a *api) events(c echo.Context) error {
	w, _, err := a.own(c, identity.ScopeRead)
	if err != nil {
		return err
	}
	rows, err := a.Store.EventsOf(c.Request().Context(), w.ID)
	if err != nil {
		return err
	}
	list := make([]event, len(rows))
	for i, row := range rows {
		var body struct {
			Detail json.RawMessage `json:"detail"`
		}
		if err := json.Unmarshal(row.Body, &body); err != nil {
			return fmt.Errorf("read event %s: %w", row.ID, err)
		}
		list[i] = event{row.ID.String(), audit.Stamp(row.At), row.Actor, row.Action, row.Seq, body.Detail}
	}
	return c.JSON(http.StatusOK, map[string][]event{"events": list})
}

// cancel takes a withdrawal back.
func (a *api) cancel(c echo.Context) error {
	w, t, err := a.own(c, identity.ScopeWrite)
	if err != nil {
		return err
	}
	body, err := readBody(c)
	if err != nil {
		return err
	}
	reason := "taken back by its requester"
	if len(body) > 0 {
		fields, err := readObject(body, []string{"reason"})
		if err != nil {
			return err
		}
		if given := fields["reason"]; given != "" {
			reason = given
		}
	}
	if err := checkText("reason", reason, withdraw.MaxText); err != nil {
		return err
	}
	w, err = a.Store.Cancel(c.Request().Context(), w.ID, requester(t), reason, a.Now())
	if err != nil {
		return err
	}
	return c.JSONBlob(http.StatusOK, a.view(w))
}

// own reads the withdrawal in the path, if whoever asks may know of it. Another
// client's is not found: to say more would tell which ids exist.
func (a *api) own(c echo.Context, scope string) (withdraw.Withdrawal, identity.Token, error) {
	t, err := requireScope(c, scope)
	if err != nil {
		return withdraw.Withdrawal{}, t, err
	}
	if _, err := query(c); err != nil {
		return withdraw.Withdrawal{}, t, err
	}
	notFound := fault.New(fault.NotFound, "withdrawal_not_found", "this client has no withdrawal with this id",
		"take the id from the answer to your request, or from GET /v1/withdrawals?reference=…")
	id, err := parseID(c.Param("id"))
	if err != nil {
		return withdraw.Withdrawal{}, t, notFound
	}
	w, err := a.Store.Withdrawal(c.Request().Context(), id)
	if fault.Is(err, "withdrawal_not_found") || err == nil && w.Requester != requester(t) {
		return withdraw.Withdrawal{}, t, notFound
	}
	return w, t, err
}

// view is a withdrawal with the votes that the policy asks for.
func (a *api) view(w withdraw.Withdrawal) []byte {
	if w.State == withdraw.Refused {
		return withdraw.JSON(w, 0)
	}
	return withdraw.JSON(w, a.Policy.Quorum.Approve)
}
