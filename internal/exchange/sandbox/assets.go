package sandbox

import (
	"fmt"
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/money"
)

// transferPrecision is how many decimals an inter_user amount may have.
const transferPrecision = 8

// explorer is where the links point. The domain exists nowhere.
const explorer = "https://explorer.example/"

// withdraw serves POST /assets/withdraw (facts 3.1), in the order of facts
// 10.3. It never asks whether it has seen the request before: nor does CoinEx.
func (s *Sandbox) withdraw(c *call) answer {
	f := c.fields()
	ccy := f.required("ccy")
	method := f.text("withdraw_method")
	chainName := f.text("chain")
	address := f.required("to_address")
	memo := f.text("memo")
	amount := f.required("amount")
	feeCcy := f.text("fee_ccy")
	f.object("extra")
	remark := f.text("remark")
	if method == "" {
		method = OnChain
	}
	switch {
	case method != OnChain && method != InterUser:
		f.complain("withdraw_method must be on_chain or inter_user")
	case method == OnChain && chainName == "":
		f.complain("chain is required")
	}
	net, err := money.Parse(amount)
	if err != nil {
		f.complain("amount must be a positive plain decimal")
	}
	if feeCcy != "" && feeCcy != ccy {
		f.complain("fee_ccy other than ccy is not offered by the sandbox")
	}
	if f.wrong != "" {
		return *refuse(3639, f.wrong)
	}

	coin := s.state.asset(ccy)
	switch {
	case coin == nil:
		return *refuse(3639, "ccy is unknown")
	case !coin.Asset.WithdrawEnabled:
		return *refuse(3639, "ccy cannot be withdrawn now")
	}
	terms := terms{precision: transferPrecision}
	if method == InterUser {
		// A chain has no meaning here and the row shows none (facts 3.1).
		chainName = ""
		if !coin.Asset.InterTransferEnabled {
			return *refuse(3639, "ccy cannot be transferred to users now")
		}
	} else {
		ch := coin.chain(chainName)
		switch {
		case ch == nil:
			return *refuse(3639, "chain is unknown")
		case !ch.WithdrawEnabled:
			return *refuse(3639, "chain is closed for withdrawals now")
		case ch.MemoRequired && memo == "":
			return *refuse(3639, "memo is required")
		}
		terms = termsOf(ch)
	}

	if !slices.Contains(c.account.Whitelist, Entry{method, ccy, chainName, address, memo}) {
		return *refuse(3310, "")
	}

	switch {
	case money.Decimals(net) > terms.precision:
		return *refuse(3639, fmt.Sprintf("amount has more than %d decimals", terms.precision))
	case net.LessThan(terms.minimum):
		return *refuse(3127, "")
	}

	gross := net.Add(terms.fee)
	if c.account.Balances[ccy].LessThan(gross) {
		return *refuse(3109, "")
	}

	w := &Withdrawal{
		Account:           c.account.Name,
		ID:                s.state.NextID,
		CreatedAt:         c.now,
		Method:            method,
		Asset:             ccy,
		Chain:             chainName,
		Address:           address,
		Memo:              memo,
		Net:               net,
		Fee:               terms.fee,
		Gross:             gross,
		Remark:            remark,
		SafeConfirmations: terms.confirmations,
		Quirks:            s.takeQuirks(c),
	}
	w.move(AuditRequired, c.now)
	if method == InterUser {
		w.move(Finished, c.now)
	}
	s.book(c.account, ccy, "withdraw", gross.Neg(), c.now)
	s.state.NextID++
	s.state.Withdrawals = append(s.state.Withdrawals, w)
	s.dirty = true
	return succeed(w.row(w.Quirks))
}

// terms are the conditions under which an amount can be withdrawn.
type terms struct {
	fee, minimum  decimal.Decimal
	precision     int32
	confirmations int
}

func termsOf(c *chain) terms {
	return terms{c.WithdrawalFee, c.MinWithdrawAmount, c.WithdrawalPrecision, c.SafeConfirmations}
}

// cancelWithdraw serves POST /assets/cancel-withdraw (facts 3.2). The codes of
// its refusals are not published.
func (s *Sandbox) cancelWithdraw(c *call) answer {
	f := c.fields()
	id := f.integer("withdraw_id", 0)
	if id == 0 {
		f.complain("withdraw_id is required")
	}
	if f.wrong != "" {
		return *refuse(3639, f.wrong)
	}
	w := s.state.withdrawal(id)
	if w == nil || w.Account != c.account.Name {
		return *refuse(3639, "withdraw_id is unknown")
	}
	switch w.Status {
	case Created, AuditRequired, Audited:
		to := Cancelled
		if w.Quirks.shows(CancelFails) || s.takeQuirks(c).shows(CancelFails) {
			to = CancellationFailed
		}
		// Leaving a debiting status always succeeds: it pays back. A failed
		// cancellation of one that is not debited yet needs the money.
		if err := s.setStatus(w, to, c.now); err != nil {
			return *refuse(4003, "")
		}
		return succeed(struct{}{})
	default:
		return *refuse(3639, "the withdrawal can no longer be cancelled")
	}
}

// listWithdrawals serves GET /assets/withdraw (facts 3.3), newest first.
func (s *Sandbox) listWithdrawals(c *call) answer {
	f := c.fields()
	ccy := f.text("ccy")
	id := f.integer("withdraw_id", 0)
	status := Status(f.text("status"))
	page := f.page()
	if _, known := debits[status]; status != "" && !known {
		f.complain("status is not a withdrawal status")
	}
	if f.wrong != "" {
		return *refuse(3639, f.wrong)
	}
	quirks := s.takeQuirks(c)
	rows := []any{}
	for _, w := range slices.Backward(s.state.Withdrawals) {
		if w.Account != c.account.Name {
			continue
		}
		if s.hidden(w, c.now) {
			continue
		}
		if ccy != "" && ccy != w.Asset || id != 0 && id != w.ID || status != "" && status != w.Status {
			continue
		}
		shown := quirks.with(w.Quirks)
		if shown.shows(RegressStatus) && s.lags(w, quirks) {
			w = w.earlier()
		}
		times := 1
		if shown.shows(ListTwice) {
			times = 2
		}
		for range times {
			if page.holds() {
				rows = append(rows, w.row(shown))
			}
		}
	}
	return page.answer(rows)
}

// lags tells whether this list shows an earlier status of the withdrawal. One
// made to regress does so in every second list that has it.
func (s *Sandbox) lags(w *Withdrawal, answer Quirks) bool {
	if answer.shows(RegressStatus) {
		return true
	}
	lags := w.Quirks.NextLags
	w.Quirks.NextLags = !lags
	s.dirty = true
	return lags
}

// earlier is the withdrawal as it was one status ago.
func (w *Withdrawal) earlier() *Withdrawal {
	was, known := before[w.Status]
	if !known {
		return w
	}
	old := *w
	old.Status, old.Confirmations = was, 0
	if was != Confirming {
		old.TxID = ""
	}
	return &old
}

// hidden tells whether lists leave the row out, and counts the read if so.
func (s *Sandbox) hidden(w *Withdrawal, now time.Time) bool {
	if w.Quirks.HiddenReads > 0 {
		w.Quirks.HiddenReads--
		s.dirty = true
		return true
	}
	return now.Before(w.Quirks.HiddenUntil)
}

// row is a withdrawal on the wire: amounts are strings, ids, times and counts
// are numbers (facts 3.1).
type row struct {
	WithdrawID         int64            `json:"withdraw_id"`
	CreatedAt          int64            `json:"created_at"`
	Ccy                string           `json:"ccy"`
	Chain              string           `json:"chain"`
	WithdrawMethod     string           `json:"withdraw_method"`
	Memo               string           `json:"memo"`
	Amount             decimal.Decimal  `json:"amount"`
	FeeCcy             string           `json:"fee_ccy,omitempty"`
	FeeAsset           string           `json:"fee_asset,omitempty"`
	FeeAmount          *decimal.Decimal `json:"fee_amount,omitempty"`
	ActualAmount       decimal.Decimal  `json:"actual_amount"`
	TxFee              decimal.Decimal  `json:"tx_fee"`
	TxID               string           `json:"tx_id"`
	ToAddress          string           `json:"to_address"`
	Confirmations      int              `json:"confirmations"`
	ExplorerAddressURL string           `json:"explorer_address_url"`
	ExplorerTxURL      string           `json:"explorer_tx_url"`
	Status             Status           `json:"status"`
	Remark             string           `json:"remark"`
}

// row is the withdrawal as the quirks let it show.
func (w *Withdrawal) row(q Quirks) any {
	r := row{
		WithdrawID:     w.ID,
		CreatedAt:      w.CreatedAt.UnixMilli(),
		Ccy:            w.Asset,
		Chain:          w.Chain,
		WithdrawMethod: w.Method,
		Memo:           w.Memo,
		Amount:         w.Gross,
		FeeCcy:         w.Asset,
		ActualAmount:   w.Net,
		TxFee:          w.Fee,
		TxID:           w.TxID,
		ToAddress:      w.Address,
		Confirmations:  w.Confirmations,
		Status:         w.Status,
		Remark:         w.Remark,
	}
	if w.Method == OnChain {
		r.ExplorerAddressURL = explorer + "address/" + w.Address
		r.ExplorerTxURL = explorer + "tx/" + w.TxID // an empty tail until there is a transaction
	}
	return q.spoil(r)
}

// history serves GET /assets/spot/transcation-history (facts 4.3), newest
// first. Both ends of the time filter are within it.
func (s *Sandbox) history(c *call) answer {
	f := c.fields()
	kind := f.required("type")
	ccy := f.text("ccy")
	start := f.integer("start_time", 0)
	end := f.integer("end_time", 0)
	page := f.page()
	switch kind {
	case "", "deposit", "withdraw", "trade", "maker_cash_back", "investment_interest", "exchange_order_transfer":
	default:
		f.complain("type is not a history type")
	}
	if f.wrong != "" {
		return *refuse(3639, f.wrong)
	}
	type wireChange struct {
		CreatedAt int64           `json:"created_at"`
		Ccy       string          `json:"ccy"`
		Type      string          `json:"type"`
		Balance   decimal.Decimal `json:"balance"`
		Change    decimal.Decimal `json:"change"`
	}
	rows := []wireChange{}
	for _, h := range slices.Backward(c.account.History) {
		at := h.CreatedAt.UnixMilli()
		if h.Type != kind || ccy != "" && ccy != h.Asset || at < start || end != 0 && at > end {
			continue
		}
		if page.holds() {
			rows = append(rows, wireChange{at, h.Asset, h.Type, h.Balance, h.Change})
		}
	}
	return page.answer(rows)
}

// config serves GET /assets/deposit-withdraw-config (facts 4.1).
func (s *Sandbox) config(c *call) answer {
	f := c.fields()
	coin := s.state.asset(f.required("ccy"))
	if coin == nil {
		f.complain("ccy is unknown")
	}
	if f.wrong != "" {
		return *refuse(3639, f.wrong)
	}
	return succeed(coin)
}

// allConfig serves GET /assets/all-deposit-withdraw-config (facts 4.1).
func (s *Sandbox) allConfig(*call) answer { return succeed(s.state.Assets) }

// ping serves GET /ping (facts 4.5).
func (s *Sandbox) ping(*call) answer { return succeed(map[string]string{"result": "pong"}) }

// time serves GET /time (facts 4.5).
func (s *Sandbox) time(c *call) answer {
	return succeed(map[string]int64{"timestamp": c.now.UnixMilli()})
}

// callerIP serves GET /test/ip. Its shape is invented.
func (s *Sandbox) callerIP(c *call) answer { return succeed(map[string]string{"ip": c.ip}) }
