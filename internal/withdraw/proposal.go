package withdraw

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"sluice/internal/approval"
	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/money"
)

// proposalType names the form of the sealed bytes. It changes when the form does,
// so that old bytes are never read by new rules.
const proposalType = "sluice/withdrawal/1"

// Proposal is everything that the approvers of a withdrawal sign. The worker
// builds its order from the sealed proposal alone, never from table columns: a
// database that says something else changes nothing.
type Proposal struct {
	ID                 uuid.UUID
	Round              int // 1 at first; more when fresh votes are asked for after a proven absence
	Account            string
	Method             exchange.Method
	Asset              string
	Chain              string
	Address            string
	Memo               string
	Amount             decimal.Decimal
	MaxFee             decimal.Decimal
	DestinationID      uuid.UUID
	DestinationVersion int
	PolicyVersion      string
	Quorum             approval.Quorum
	Requester          string
	Reference          string
	Purpose            string
	ExpiresAt          time.Time
	// Evidence is the SHA-256, in hex, of what proved the earlier attempt absent;
	// "" in round 1.
	Evidence string
}

// Seal writes the proposal in canonical form. Its digest is what people sign. It
// fails on what Unseal would not read back: people would vote on a payout that
// no worker can ever send.
func (p Proposal) Seal() ([]byte, error) {
	if _, err := money.Parse(money.Text(p.Amount)); err != nil {
		return nil, fmt.Errorf("seal: amount: %w", err)
	}
	if _, err := money.Parse(money.Text(p.MaxFee)); err != nil && !p.MaxFee.IsZero() {
		return nil, fmt.Errorf("seal: max_fee: %w", err)
	}
	return canonical.Marshal(canonical.Object{
		"type": proposalType, "id": p.ID.String(), "round": p.Round,
		"account": p.Account, "method": string(p.Method), "asset": p.Asset, "chain": p.Chain,
		"address": p.Address, "memo": p.Memo,
		"amount": money.Text(p.Amount), "max_fee": money.Text(p.MaxFee),
		"destination": canonical.Object{"id": p.DestinationID.String(), "version": p.DestinationVersion},
		"policy":      p.PolicyVersion,
		"quorum":      canonical.Object{"approve": p.Quorum.Approve, "reject": p.Quorum.Reject},
		"requester":   p.Requester, "reference": p.Reference, "purpose": p.Purpose,
		"expires_at": stamp(p.ExpiresAt), "evidence": p.Evidence,
	})
}

// stamp is the one written form of a time in sealed bytes.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// Unseal reads sealed bytes back. It accepts only bytes that Seal would write
// again exactly, so nothing can hide in what it does not read: a second key of
// the same name, an unknown field, another spelling of an amount.
func Unseal(sealed []byte) (Proposal, error) {
	var w struct {
		Type        string          `json:"type"`
		ID          uuid.UUID       `json:"id"`
		Round       int             `json:"round"`
		Account     string          `json:"account"`
		Method      exchange.Method `json:"method"`
		Asset       string          `json:"asset"`
		Chain       string          `json:"chain"`
		Address     string          `json:"address"`
		Memo        string          `json:"memo"`
		Amount      string          `json:"amount"`
		MaxFee      string          `json:"max_fee"`
		Destination struct {
			ID      uuid.UUID `json:"id"`
			Version int       `json:"version"`
		} `json:"destination"`
		Policy    string          `json:"policy"`
		Quorum    approval.Quorum `json:"quorum"`
		Requester string          `json:"requester"`
		Reference string          `json:"reference"`
		Purpose   string          `json:"purpose"`
		ExpiresAt time.Time       `json:"expires_at"`
		Evidence  string          `json:"evidence"`
	}
	if err := json.Unmarshal(sealed, &w); err != nil {
		return Proposal{}, fmt.Errorf("sealed proposal: %w", err)
	}
	amount, err := money.Parse(w.Amount)
	if err != nil {
		return Proposal{}, fmt.Errorf("sealed proposal: amount: %w", err)
	}
	maxFee := decimal.Zero
	if w.MaxFee != "0" {
		if maxFee, err = money.Parse(w.MaxFee); err != nil {
			return Proposal{}, fmt.Errorf("sealed proposal: max_fee: %w", err)
		}
	}
	p := Proposal{
		ID: w.ID, Round: w.Round, Account: w.Account, Method: w.Method, Asset: w.Asset, Chain: w.Chain,
		Address: w.Address, Memo: w.Memo, Amount: amount, MaxFee: maxFee,
		DestinationID: w.Destination.ID, DestinationVersion: w.Destination.Version,
		PolicyVersion: w.Policy, Quorum: w.Quorum, Requester: w.Requester, Reference: w.Reference,
		Purpose: w.Purpose, ExpiresAt: w.ExpiresAt, Evidence: w.Evidence,
	}
	again, err := p.Seal()
	if err != nil || w.Type != proposalType || !bytes.Equal(again, sealed) {
		return Proposal{}, fmt.Errorf("sealed proposal: not in canonical form")
	}
	return p, nil
}

// Order is the withdrawal that the exchange is asked for, under a remark by
// which it can be found again.
func (p Proposal) Order(remark string) exchange.Order {
	return exchange.Order{
		Method: p.Method, Asset: p.Asset, Chain: p.Chain, Address: p.Address, Memo: p.Memo,
		Amount: p.Amount, Remark: remark,
	}
}

// Remark is the tag of one attempt, unique for ever. It is ASCII and below the
// 50 characters that the exchange is known to bear (facts 3.1).
func Remark(id uuid.UUID, number int) string {
	return fmt.Sprintf("slc-%s-%d", id, number)
}

// DigestOf returns the digest of sealed bytes as a column holds it.
func DigestOf(sealed []byte) []byte {
	d := approval.DigestOf(sealed)
	return d[:]
}
