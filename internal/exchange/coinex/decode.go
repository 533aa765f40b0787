package coinex

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
)

// maxMessage bounds the exchange's words as we repeat them, in bytes.
const maxMessage = 500

// envelope is the frame of every answer (facts 2.1).
type envelope struct {
	code    int
	message string
	data    json.RawMessage
	paging  json.RawMessage // nil when there is none
}

// decodeEnvelope fails where the body is not a JSON object with an integer
// code. It leaves data unread: that is an object on errors even where success
// has an array.
func decodeEnvelope(body []byte) (envelope, error) {
	o, err := decodeObject(body)
	if err != nil {
		return envelope{}, err
	}
	// Elsewhere a missing number is 0. Here 0 means yes.
	if word, err := o.text("code"); err != nil || word == "" {
		return envelope{}, errors.New("the answer has no code")
	}
	code, err := o.integer("code")
	if err != nil {
		return envelope{}, err
	}
	env := envelope{code: int(code), data: o.field("data")}
	env.paging = o.field("pagination", "paginatation") // one endpoint misspells it (facts 2.1)
	if env.message, err = o.text("message"); err != nil {
		env.message = string(o.field("message")) // frameworks put an object here (facts 2.2)
	}
	env.message = words(env.message)
	return env, nil
}

// words cuts a message to what may be shown.
func words(s string) string {
	if len(s) > maxMessage {
		s = s[:maxMessage]
	}
	return strings.ToValidUTF8(s, "")
}

// object is a JSON object read field by field. Docs and wire disagree on names
// and types (facts 0.5), so every reader takes the names that were seen, the
// first that is there wins, and both a string and a number. Missing, null and
// "" are the zero value; anything else that cannot be read is an error.
type object map[string]json.RawMessage

func decodeObject(raw []byte) (object, error) {
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	return o, nil
}

// field is the first of the names that is there and not null, or nil.
func (o object) field(names ...string) json.RawMessage {
	for _, name := range names {
		if raw, ok := o[name]; ok && !bytes.Equal(raw, []byte("null")) {
			return raw
		}
	}
	return nil
}

func (o object) text(names ...string) (string, error) {
	raw := o.field(names...)
	switch {
	case raw == nil:
		return "", nil
	case raw[0] == '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err
	case raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9':
		return string(raw), nil
	}
	return "", fmt.Errorf("%s is neither text nor number", names[0])
}

// integer never goes through a float: an id must not lose its last digit.
func (o object) integer(names ...string) (int64, error) {
	s, err := o.text(names...)
	if s == "" || err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a whole number", names[0])
	}
	return n, nil
}

func (o object) millis(names ...string) (time.Time, error) {
	ms, err := o.integer(names...)
	if ms == 0 || err != nil {
		return time.Time{}, err
	}
	// A time beyond the year 9999 has no JSON form and would fail much later,
	// where the row is stored.
	const year9999 = 253402300799999
	if ms < 0 || ms > year9999 {
		return time.Time{}, fmt.Errorf("%s is not a time in milliseconds", names[0])
	}
	return time.UnixMilli(ms).UTC(), nil
}

func (o object) amount(names ...string) (decimal.Decimal, error) {
	s, err := o.text(names...)
	if s == "" || err != nil {
		return decimal.Decimal{}, err
	}
	// The bounds keep 1e9000 from being written out in digits by whoever
	// adds or compares it next.
	d, err := decimal.NewFromString(s)
	if err != nil || len(s) > 80 || d.Exponent() > 40 || d.Exponent() < -40 {
		return decimal.Decimal{}, fmt.Errorf("%s is not an amount", names[0])
	}
	return d, nil
}

// flag is true only for what clearly says so; switches that cannot be read
// count as off.
func (o object) flag(name string) bool {
	switch strings.ToLower(strings.Trim(string(o.field(name)), `"`)) {
	case "true", "1":
		return true
	}
	return false
}

// statuses maps the exchange's words, today's and those of v1 and of the docs'
// samples, to ours (facts 3.4).
var statuses = map[string]exchange.Status{
	"created":             exchange.Created,
	"audit_required":      exchange.AuditRequired,
	"audit":               exchange.AuditRequired,
	"audited":             exchange.Audited,
	"pass":                exchange.Audited,
	"processing":          exchange.Processing,
	"confirming":          exchange.Confirming,
	"finished":            exchange.Finished,
	"finish":              exchange.Finished,
	"cancelled":           exchange.Cancelled,
	"cancel":              exchange.Cancelled,
	"cancellation_failed": exchange.CancellationFailed,
	"failed":              exchange.Failed,
	"fail":                exchange.Failed,
	"not_pass":            exchange.Failed,
}

func status(word string) exchange.Status {
	if s, ok := statuses[strings.ToLower(word)]; ok {
		return s
	}
	return exchange.Unrecognised
}

// decodeWithdrawal reads a withdrawal as both the submission and the history
// show it (facts 3.1, 3.3). Fields that are missing stay zero.
func decodeWithdrawal(o object) (exchange.Withdrawal, error) {
	var w exchange.Withdrawal
	var method string
	var errs [15]error
	w.ID, errs[0] = o.integer("withdraw_id")
	w.CreatedAt, errs[1] = o.millis("created_at")
	method, errs[2] = o.text("withdraw_method")
	w.Asset, errs[3] = o.text("ccy")
	w.Chain, errs[4] = o.text("chain")
	w.Address, errs[5] = o.text("to_address")
	w.Memo, errs[6] = o.text("memo")
	w.Net, errs[7] = o.amount("actual_amount")
	w.Gross, errs[8] = o.amount("amount")
	w.Fee, errs[9] = o.amount("tx_fee", "fee_amount")
	w.FeeAsset, errs[10] = o.text("fee_ccy", "fee_asset")
	w.TxID, errs[11] = o.text("tx_id")
	w.Confirms, errs[12] = o.integer("confirmations", "confirmation")
	w.RawStatus, errs[13] = o.text("status")
	w.Remark, errs[14] = o.text("remark")
	if err := errors.Join(errs[:]...); err != nil {
		return exchange.Withdrawal{}, err
	}
	w.Method = exchange.Method(strings.ToLower(method))
	w.Status = status(w.RawStatus)
	w.TxURL, _ = o.text("explorer_tx_url") // decoration: not worth losing a row over
	return w, nil
}

// decodeRows reads the history. A row without what reconciliation matches by is
// an error of the whole page: skipping it would turn a withdrawal that we
// cannot read into one that is not there, and an absent withdrawal may be
// paid again.
func decodeRows(data json.RawMessage) ([]exchange.Withdrawal, error) {
	rows, err := decodeArray(data)
	if err != nil {
		return nil, err
	}
	out := make([]exchange.Withdrawal, 0, len(rows))
	for i, row := range rows {
		w, err := decodeWithdrawal(row)
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", i, err)
		}
		net, err := row.text("actual_amount")
		switch {
		case err != nil:
			return nil, fmt.Errorf("row %d: %w", i, err)
		case net == "" && w.FeeAsset == w.Asset && row.field("amount") != nil && row.field("tx_fee", "fee_amount") != nil:
			w.Net = w.Gross.Sub(w.Fee) // what the receiver gets, by the arithmetic of facts 3.1
		case net == "":
			return nil, fmt.Errorf("row %d does not say what the receiver gets", i)
		}
		if w.ID <= 0 || w.CreatedAt.IsZero() || w.Asset == "" || w.Address == "" {
			return nil, fmt.Errorf("row %d lacks its id, time, asset or address", i)
		}
		out = append(out, w)
	}
	return out, nil
}

// decodeArray insists on an array. On success the exchange writes [] for an
// empty list; {} belongs to errors and must not pass for "nothing there".
func decodeArray(data json.RawMessage) ([]object, error) {
	var raws []json.RawMessage
	if err := json.Unmarshal(data, &raws); err != nil {
		return nil, fmt.Errorf("not a JSON array: %w", err)
	}
	if raws == nil {
		return nil, errors.New("not a JSON array: null")
	}
	rows := make([]object, len(raws))
	for i, raw := range raws {
		var err error
		if rows[i], err = decodeObject(raw); err != nil {
			return nil, fmt.Errorf("row %d: %w", i, err)
		}
	}
	return rows, nil
}

// hasNext tells whether a page is followed by another. Where the answer does
// not say, a full page counts as followed: one read too many is cheaper than
// a row overlooked.
func hasNext(paging json.RawMessage, page, limit, rows int) (bool, error) {
	if paging == nil {
		return rows >= limit, nil
	}
	o, err := decodeObject(paging)
	if err != nil {
		return false, fmt.Errorf("pagination: %w", err)
	}
	switch word := strings.ToLower(strings.Trim(string(o.field("has_next")), `"`)); {
	case word == "true":
		return true, nil
	case word == "false":
		return false, nil
	case word != "":
		return false, errors.New("pagination: has_next is neither true nor false")
	}
	total, err := o.integer("total")
	if err != nil {
		return false, fmt.Errorf("pagination: %w", err)
	}
	if o.field("total") == nil {
		return rows >= limit, nil
	}
	return int64(page)*int64(limit) < total, nil
}

// decodeConfig reads one asset with its chains (facts 4.1). A chain whose
// minimum, fee or precision cannot be read is shown as closed: with a fee of
// zero in its place a fee ceiling would let anything through.
func decodeConfig(o object) ([]exchange.ChainConfig, error) {
	asset, err := decodeObject(o.field("asset"))
	if err != nil {
		return nil, fmt.Errorf("asset: %w", err)
	}
	name, err := asset.text("ccy")
	if err != nil || name == "" {
		return nil, errors.New("an asset without its name")
	}
	chains, err := decodeArray(o.field("chains"))
	if err != nil {
		return nil, fmt.Errorf("chains of %s: %w", name, err)
	}
	out := make([]exchange.ChainConfig, 0, len(chains))
	for _, chain := range chains {
		c := exchange.ChainConfig{
			Asset:            name,
			AssetEnabled:     asset.flag("withdraw_enabled"),
			InterUserEnabled: asset.flag("inter_transfer_enabled"),
			MemoRequired:     chain.flag("is_memo_required_for_deposit"),
		}
		if c.Chain, err = chain.text("chain"); err != nil || c.Chain == "" {
			return nil, fmt.Errorf("a chain of %s without its code", name)
		}
		var errs [3]error
		var precision int64
		c.MinAmount, errs[0] = chain.amount("min_withdraw_amount")
		c.Fee, errs[1] = chain.amount("withdrawal_fee")
		precision, errs[2] = chain.integer("withdrawal_precision")
		whole := errors.Join(errs[:]...) == nil && precision >= 0 && precision <= 40
		for _, field := range []string{"min_withdraw_amount", "withdrawal_fee", "withdrawal_precision"} {
			if s, _ := chain.text(field); s == "" {
				whole = false
			}
		}
		if whole {
			c.Precision = int32(precision)
			c.ChainEnabled = chain.flag("withdraw_enabled")
		}
		out = append(out, c)
	}
	return out, nil
}

// decodeBalance reads one row of the spot wallet (facts 4.2).
func decodeBalance(o object) (exchange.Balance, error) {
	var b exchange.Balance
	var errs [3]error
	b.Asset, errs[0] = o.text("ccy")
	b.Available, errs[1] = o.amount("available")
	b.Frozen, errs[2] = o.amount("frozen")
	if err := errors.Join(errs[:]...); err != nil {
		return exchange.Balance{}, err
	}
	if b.Asset == "" {
		return exchange.Balance{}, errors.New("a balance without its asset")
	}
	return b, nil
}
