package coinex

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"

	"sluice/internal/exchange"
	"sluice/internal/fault"
)

const (
	pathWithdraw = "/v2/assets/withdraw"
	pathCancel   = "/v2/assets/cancel-withdraw"

	maxPage = 100 // rows; more than v1 allowed was never seen to work (facts 3.3)
)

// Withdraw sends a signed order once (POST /assets/withdraw, facts 3.1). It
// waits for nothing: Sign has already taken the turn under the rate limit.
//
// It takes the headers out of s, so that neither s nor a copy of it can be sent
// a second time; the exchange would make a second withdrawal of it. A Signed
// without headers is Unknown and not "not accepted", because it may be one
// that was sent before.
func (c *Client) Withdraw(ctx context.Context, o exchange.Order, s exchange.Signed) exchange.Outcome {
	header := c.take(s)
	if len(header) == 0 {
		return exchange.Outcome{
			Class:  exchange.Unknown,
			Reason: "This signed request was used before or comes out of storage; it was not sent now, and whether it was sent earlier is not known here.",
			Fix:    "Reconcile the attempt, and sign afresh only when it is proven absent.",
		}
	}
	if body, err := encodeOrder(o); err != nil || !bytes.Equal(body, s.Body) {
		return exchange.Outcome{
			Class:  exchange.NotAccepted,
			Next:   exchange.Hold,
			Reason: "Alarm: the signed bytes do not say what the order says. Nothing was sent.",
			Fix:    "Find out where the order or the bytes were changed between signing and sending.",
		}
	}
	if last := c.clock.last.Load(); last != nil && c.now().Add(last.Offset).After(s.Timestamp.Add(s.Window)) {
		return Classify(fmt.Errorf("%w: its window was over", ErrNotSent), 0, nil, o)
	}
	a, err := c.send(ctx, http.MethodPost, pathWithdraw, s.Body, header)
	c.heed(modifyAccount, a)
	return Classify(err, a.status, a.body, o)
}

// take empties the headers of a signed order and returns what they were. The
// map is shared by all copies of the value, which is what makes this work.
func (c *Client) take(s exchange.Signed) map[string]string {
	c.taking.Lock()
	defer c.taking.Unlock()
	header := maps.Clone(s.Header)
	clear(s.Header)
	return header
}

// Cancel asks the exchange to cancel a withdrawal (POST /assets/cancel-withdraw,
// facts 3.2). nil says only that the wish was taken; the history says what
// became of it. Possible until the exchange starts processing.
//
// Errors: fault.Invalid for an id that cannot be; fault.Refused where the
// exchange said no; fault.Unavailable where nothing happened; fault.Unclear
// where the exchange may have acted.
func (c *Client) Cancel(ctx context.Context, id int64) error {
	if id <= 0 {
		return fault.New(fault.Invalid, "withdrawal_id_invalid", "the exchange's withdrawal id is not above zero", "use the id that the exchange gave").On("id")
	}
	_, _, err := c.signed(ctx, modifyAccount, http.MethodPost, pathCancel, fmt.Appendf(nil, `{"withdraw_id":%d}`, id))
	return err
}

// Withdrawals reads one page of the withdrawal history (GET /assets/withdraw,
// facts 3.3). A page or limit of 0 means the first page and 100 rows. A page
// with a row that cannot be read is an error: absence from a page is evidence.
//
// Errors: fault.Invalid for a query out of range; fault.Unavailable or
// fault.Refused with the exchange's code (Rejection) otherwise.
func (c *Client) Withdrawals(ctx context.Context, q exchange.Query) (exchange.Page, error) {
	if q.Page == 0 {
		q.Page = 1
	}
	if q.Limit == 0 {
		q.Limit = maxPage
	}
	if q.Page < 0 || q.Limit < 0 || q.Limit > maxPage || q.ID < 0 {
		return exchange.Page{}, fault.New(fault.Invalid, "query_invalid",
			"the history is read by pages from 1, of 1 to 100 rows, and by ids above zero", "correct the query")
	}
	v := url.Values{"page": {strconv.Itoa(q.Page)}, "limit": {strconv.Itoa(q.Limit)}}
	if q.Asset != "" {
		v.Set("ccy", q.Asset)
	}
	if q.ID != 0 {
		v.Set("withdraw_id", strconv.FormatInt(q.ID, 10))
	}
	env, raw, err := c.signed(ctx, queryHistory, http.MethodGet, pathWithdraw+"?"+v.Encode(), nil)
	if err != nil {
		return exchange.Page{}, err
	}
	rows, err := decodeRows(env.data)
	if err != nil {
		return exchange.Page{}, unreadable(err)
	}
	next, err := hasNext(env.paging, q.Page, q.Limit, len(rows))
	if err != nil {
		return exchange.Page{}, unreadable(err)
	}
	return exchange.Page{Rows: rows, HasNext: next, Raw: raw}, nil
}

// Config reads the switches, minimum, fee and precision of an asset on each of
// its chains, or of all assets for "" (facts 4.1). Fees change often: read them
// again before each submission. The endpoints are public; no key is sent.
//
// Errors: as Withdrawals.
func (c *Client) Config(ctx context.Context, asset string) ([]exchange.ChainConfig, error) {
	target := "/v2/assets/all-deposit-withdraw-config"
	if asset != "" {
		target = "/v2/assets/deposit-withdraw-config?" + url.Values{"ccy": {asset}}.Encode()
	}
	if err := c.limits.wait(ctx, queryAccount); err != nil {
		return nil, err
	}
	env, _, err := c.get(ctx, target)
	if err != nil {
		return nil, err
	}
	var assets []object
	if asset != "" {
		one, err := decodeObject(env.data)
		if err != nil {
			return nil, unreadable(err)
		}
		assets = []object{one}
	} else if assets, err = decodeArray(env.data); err != nil {
		return nil, unreadable(err)
	}
	var out []exchange.ChainConfig
	for _, o := range assets {
		chains, err := decodeConfig(o)
		if err != nil {
			return nil, unreadable(err)
		}
		out = append(out, chains...)
	}
	return out, nil
}

// Balances reads the spot wallet (GET /assets/spot/balance, facts 4.2), the
// one that withdrawals are paid from. Errors: as Withdrawals.
func (c *Client) Balances(ctx context.Context) ([]exchange.Balance, error) {
	env, _, err := c.signed(ctx, queryAccount, http.MethodGet, "/v2/assets/spot/balance", nil)
	if err != nil {
		return nil, err
	}
	return decodeAll(env.data, decodeBalance)
}

// Ping asks whether the exchange answers at all (GET /ping, facts 4.5). It
// says nothing of the key; Balances does. Errors: fault.Unavailable.
func (c *Client) Ping(ctx context.Context) error {
	_, _, err := c.get(ctx, "/v2/ping")
	return err
}
