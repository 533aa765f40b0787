package withdraw

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/money"
)

// view is a withdrawal as programs see it. Amounts are strings, because a JSON
// number becomes a float in most readers; what is not known is left out.
type view struct {
	ID          string          `json:"id"`
	State       State           `json:"state"`
	Next        string          `json:"next"`
	Digest      string          `json:"digest,omitempty"`
	VotesNeeded int             `json:"votes_needed"`
	Round       int             `json:"round"`
	Account     string          `json:"account"`
	Method      exchange.Method `json:"method"`
	Asset       string          `json:"asset"`
	Chain       string          `json:"chain"`
	Address     string          `json:"address"`
	Memo        string          `json:"memo"`
	Amount      string          `json:"amount"`
	MaxFee      string          `json:"max_fee,omitempty"`
	Reference   string          `json:"reference"`
	Purpose     string          `json:"purpose"`
	Requester   string          `json:"requester"`
	Reason      *reasonView     `json:"reason,omitempty"`
	Exchange    *exchangeView   `json:"exchange,omitempty"`
	ExpiresAt   string          `json:"expires_at,omitempty"`
	CreatedAt   string          `json:"created_at"`
	UpdatedAt   string          `json:"updated_at"`
}

type reasonView struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

type exchangeView struct {
	ID            int64  `json:"id"`
	Status        string `json:"status"`
	Fee           string `json:"fee,omitempty"`
	FeeAsset      string `json:"fee_asset,omitempty"`
	TxID          string `json:"tx_id,omitempty"`
	Confirmations int64  `json:"confirmations"`
}

// JSON is a withdrawal as it goes over the wire to programs, in answers to a
// request and to a look-up alike. votesNeeded is how many approvals its proposal
// asks for in all, whatever has been voted since; 0 for a refused request.
func JSON(w Withdrawal, votesNeeded int) []byte {
	v := view{
		ID: w.ID.String(), State: w.State, Next: Next(w, votesNeeded), Digest: hex.EncodeToString(w.Digest),
		VotesNeeded: votesNeeded, Round: w.Round, Account: w.Account, Method: w.Method, Asset: w.Asset, Chain: w.Chain,
		Address: w.Address, Memo: w.Memo, Amount: money.Text(w.Amount), MaxFee: amountOrNone(w.MaxFee),
		Reference: w.Reference, Purpose: w.Purpose, Requester: w.Requester,
		CreatedAt: stamp(w.CreatedAt), UpdatedAt: stamp(w.UpdatedAt), ExpiresAt: stampOrNone(w.ExpiresAt),
	}
	if w.ReasonCode != "" {
		v.Reason = &reasonView{w.ReasonCode, w.Reason, w.Fix}
	}
	if w.ExchangeID != nil {
		v.Exchange = &exchangeView{
			ID: *w.ExchangeID, Status: w.ExchangeStatus, Fee: amountOrNone(w.Fee), FeeAsset: w.FeeAsset,
			TxID: w.TxID, Confirmations: w.Confirmations,
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and integers always encode
	}
	return b
}

func amountOrNone(d decimal.NullDecimal) string {
	if !d.Valid {
		return ""
	}
	return money.Text(d.Decimal)
}

func stampOrNone(t *time.Time) string {
	if t == nil {
		return ""
	}
	return stamp(*t)
}

// Next says in a plain sentence what happens next to a withdrawal, and who does it.
func Next(w Withdrawal, votesNeeded int) string {
	switch w.State {
	case Refused:
		return "Nothing is paid for this request. Once the reason is mended, ask again with another Idempotency-Key; the reference is still free."
	case Pending:
		return fmt.Sprintf("Waits until %s approved it. Without that it expires at %s.", people(votesNeeded), stampOrNone(w.ExpiresAt))
	case Approved:
		return "The worker checks everything once more and sends it to the exchange."
	case Submitting:
		return "It is on its way to the exchange; the answer decides what follows."
	case Unknown:
		return "The exchange's answer was lost. Sluice looks there for the payout and sends nothing until it knows. Do not ask for it a second time."
	case Absent:
		return "The exchange is proven not to have it. People decide: fresh votes for another attempt, or cancel. Do not ask for it a second time."
	case Submitted:
		return "The exchange has it. Sluice follows it to its end."
	case Held:
		return "It waits for a decision by a person at Sluice. Do not ask for it a second time."
	case Completed:
		return "Nothing: it has been paid."
	case Failed, Rejected, Cancelled, Expired:
		return "Nothing: it ended without being paid. To pay after all, ask again with another reference and Idempotency-Key."
	}
	return "" // not reached: a test goes through every state
}

func people(n int) string {
	if n == 1 {
		return "1 person has"
	}
	return fmt.Sprintf("%d people have", n)
}
