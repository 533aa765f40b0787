package sandbox

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/fault"
	"sluice/internal/money"
)

// depositStatuses are those of facts 4.4. Only a finished deposit is in the
// balance.
var depositStatuses = []string{"processing", "confirming", "cancelled", "finished", "too_small", "exception"}

const depositFinished = "finished"

// firstDeposit is the id of the first deposit.
const firstDeposit = 5173806

// Deposit is one deposit as the sandbox has it.
type Deposit struct {
	Account   string          `json:"account"`
	ID        int64           `json:"deposit_id"`
	CreatedAt time.Time       `json:"created_at"`
	Asset     string          `json:"ccy"`
	Chain     string          `json:"chain"`
	Amount    decimal.Decimal `json:"amount"`
	Address   string          `json:"to_address"`
	TxID      string          `json:"tx_id"`
	Status    string          `json:"status"`
}

// depositAddress serves GET /assets/deposit-address (facts 4.4).
func (s *Sandbox) depositAddress(c *call) answer { return s.address(c, false) }

// renewDepositAddress serves POST /assets/renewal-deposit-address.
func (s *Sandbox) renewDepositAddress(c *call) answer { return s.address(c, true) }

func (s *Sandbox) address(c *call, renew bool) answer {
	f := c.fields()
	ccy, chainName := f.required("ccy"), f.required("chain")
	if f.wrong != "" {
		return *refuse(3639, f.wrong)
	}
	coin := s.state.asset(ccy)
	if coin == nil {
		return *refuse(3639, "ccy is unknown")
	}
	ch := coin.chain(chainName)
	switch {
	case ch == nil:
		return *refuse(3639, "chain is unknown")
	case !coin.Asset.DepositEnabled, !ch.DepositEnabled:
		return *refuse(3639, "closed for deposits now")
	}
	if renew {
		if c.account.Renewed == nil {
			c.account.Renewed = map[string]int{}
		}
		c.account.Renewed[ccy+" "+chainName]++
		s.dirty = true
	}
	out := map[string]string{"address": c.account.address(ccy, chainName), "memo": ""}
	if ch.MemoRequired {
		out["memo"] = "100001"
	}
	return succeed(out)
}

// address is where the account takes deposits. It looks like nothing that a
// chain would take: nobody shall ever send coins to it.
func (a *account) address(ccy, chainName string) string {
	return strings.ToLower(fmt.Sprintf("sandbox-%s-%s-%s-%d", a.Name, ccy, chainName, a.Renewed[ccy+" "+chainName]+1))
}

// depositHistory serves GET /assets/deposit-history (facts 4.4), newest first,
// with its own spelling of the page.
func (s *Sandbox) depositHistory(c *call) answer {
	f := c.fields()
	ccy, txID, status := f.text("ccy"), f.text("tx_id"), strings.ToLower(f.text("status"))
	page := f.page()
	if status != "" && !slices.Contains(depositStatuses, status) {
		f.complain("status is not a deposit status")
	}
	if f.wrong != "" {
		return *refuse(3639, f.wrong)
	}
	type wireDeposit struct {
		DepositID         int64           `json:"deposit_id"`
		CreatedAt         int64           `json:"created_at"`
		TxID              string          `json:"tx_id"`
		TxIDDisplay       string          `json:"tx_id_display"`
		Ccy               string          `json:"ccy"`
		Chain             string          `json:"chain"`
		DepositMethod     string          `json:"deposit_method"`
		Amount            decimal.Decimal `json:"amount"`
		ActualAmount      string          `json:"actual_amount"` // "" as seen live
		ToAddress         string          `json:"to_address"`
		Confirmations     int             `json:"confirmations"`
		Status            string          `json:"status"`
		TxExplorerURL     string          `json:"tx_explorer_url"`
		ToAddrExplorerURL string          `json:"to_addr_explorer_url"`
		Remark            string          `json:"remark"`
	}
	rows := []wireDeposit{}
	for _, d := range slices.Backward(s.state.Deposits) {
		if d.Account != c.account.Name || ccy != "" && ccy != d.Asset || txID != "" && txID != d.TxID || status != "" && status != d.Status {
			continue
		}
		if !page.holds() {
			continue
		}
		row := wireDeposit{
			DepositID: d.ID, CreatedAt: d.CreatedAt.UnixMilli(), TxID: d.TxID, TxIDDisplay: d.TxID, Ccy: d.Asset, Chain: d.Chain,
			DepositMethod: OnChain, Amount: d.Amount, ToAddress: d.Address, Status: d.Status,
			TxExplorerURL: explorer + "tx/" + d.TxID, ToAddrExplorerURL: explorer + "address/" + d.Address,
		}
		if d.Status == depositFinished {
			row.Confirmations = s.state.asset(d.Asset).chain(d.Chain).SafeConfirmations
		}
		rows = append(rows, row)
	}
	out := page.answer(rows)
	out.Pagination, out.Paginatation = nil, out.Pagination
	return out
}

// DepositChange makes a deposit, or with an ID moves one into another status.
type DepositChange struct {
	ID      int64  `json:"deposit_id"`
	Status  string `json:"status"` // "" is finished
	Account string `json:"account"`
	Asset   string `json:"asset"`
	Chain   string `json:"chain"`
	Amount  string `json:"amount"` // plain decimal, above zero
}

// Deposit makes or moves a deposit. The money follows the status: it is in the
// balance while the deposit is finished.
func (s *Sandbox) Deposit(change DepositChange) error {
	no := func(detail, fix string) error {
		return fault.New(fault.Invalid, "sandbox_deposit_malformed", detail, fix)
	}
	if change.Status == "" {
		change.Status = depositFinished
	}
	if !slices.Contains(depositStatuses, change.Status) {
		return no(fmt.Sprintf("%q is no deposit status", change.Status), fmt.Sprintf("use one of %v", depositStatuses))
	}
	if change.ID != 0 {
		if change.Account+change.Asset+change.Chain+change.Amount != "" {
			return no("a deposit that exists only changes its status", "send deposit_id and status alone")
		}
		return s.do(func(now time.Time) error {
			i := change.ID - firstDeposit
			if i < 0 || i >= int64(len(s.state.Deposits)) {
				return fault.New(fault.NotFound, "sandbox_deposit_unknown",
					fmt.Sprintf("there is no deposit %d", change.ID), "look up the id in the state")
			}
			return s.moveDeposit(s.state.Deposits[i], change.Status, now)
		})
	}
	amount, err := money.Parse(change.Amount)
	if err != nil {
		return err
	}
	return s.do(func(now time.Time) error {
		a, err := s.find(change.Account)
		if err != nil {
			return err
		}
		if err := s.knowsAsset(change.Asset); err != nil {
			return err
		}
		if s.state.asset(change.Asset).chain(change.Chain) == nil {
			return no(fmt.Sprintf("%s has no chain %q", change.Asset, change.Chain), "use a chain code of GET /v2/assets/deposit-withdraw-config")
		}
		d := &Deposit{
			Account: a.Name, ID: firstDeposit + int64(len(s.state.Deposits)), CreatedAt: now, Asset: change.Asset, Chain: change.Chain,
			Amount: amount, Address: a.address(change.Asset, change.Chain),
		}
		d.TxID = transactionID(d.ID)
		s.state.Deposits = append(s.state.Deposits, d)
		s.dirty = true
		return s.moveDeposit(d, change.Status, now)
	})
}

func (s *Sandbox) moveDeposit(d *Deposit, to string, now time.Time) error {
	a := s.state.account(d.Account)
	switch {
	case d.Status != depositFinished && to == depositFinished:
		s.book(a, d.Asset, "deposit", d.Amount, now)
	case d.Status == depositFinished && to != depositFinished:
		if a.Balances[d.Asset].LessThan(d.Amount) {
			return fault.New(fault.Refused, "sandbox_balance_short",
				fmt.Sprintf("%s no longer has the %s %s of deposit %d", d.Account, d.Amount, d.Asset, d.ID), "set the balance first")
		}
		s.book(a, d.Asset, "deposit", d.Amount.Neg(), now)
	}
	d.Status = to
	s.dirty = true
	return nil
}
