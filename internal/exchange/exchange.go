// Package exchange is the port to an exchange: the words in which the rest of
// Sluice orders a withdrawal, hears what became of it, and reads back what the
// exchange says it has. It does no I/O and knows no HTTP; package coinex
// speaks the wire, package sandbox plays the other side.
package exchange

import (
	"context"
	"time"

	"github.com/shopspring/decimal"
)

// Method says how a withdrawal travels.
type Method string

const (
	// OnChain sends coins over a block chain; the exchange's fee comes on top.
	OnChain Method = "on_chain"
	// InterUser moves coins to another user of the exchange; no chain, no fee.
	InterUser Method = "inter_user"
)

// Order is one withdrawal as the exchange is asked to make it.
type Order struct {
	Method  Method
	Asset   string          // the exchange's coin code, e.g. "USDT"
	Chain   string          // the exchange's chain code, e.g. "TRC20"; "" for InterUser
	Address string          // byte for byte as listed; e-mail or mobile number for InterUser
	Memo    string          // "" when the coin has none
	Amount  decimal.Decimal // NET: what the receiver gets, in units of Asset
	Remark  string          // ASCII, at most 50 characters: the tag by which we find it again
}

// Signed is an order that has been serialised and signed once. Its bytes are
// what the attempt row keeps and what goes over the wire: nothing may encode
// them a second time.
type Signed struct {
	Body      []byte        // the exact request body
	Timestamp time.Time     // T, millisecond precision, on the exchange's clock
	Window    time.Duration // W: the exchange refuses the request after T+W
	KeyHint   string        // the first four characters of the access id, for the record

	// Header holds the authentication headers. They are secret: never stored or logged.
	Header map[string]string `json:"-"`
}

// Class is what an answer to a submission proves.
type Class string

const (
	// Accepted: the exchange has the withdrawal and told us its id.
	Accepted Class = "accepted"
	// NotAccepted: the answer proves that no withdrawal exists.
	NotAccepted Class = "not_accepted"
	// Unknown: anything else. A lost answer is not a no.
	Unknown Class = "unknown"
)

// Next is what may follow a NotAccepted outcome.
type Next string

const (
	// Retry: the same order may be signed afresh after a pause.
	Retry Next = "retry"
	// Fail: the order can never succeed as it stands.
	Fail Next = "fail"
	// Hold: a person must mend something first (key, whitelist, funds, support).
	Hold Next = "hold"
)

// Outcome is everything known of one submission.
type Outcome struct {
	Class      Class
	Next       Next        // only for NotAccepted
	Withdrawal *Withdrawal // only for Accepted
	Code       int         // the exchange's code, 0 when there was none
	HTTPStatus int         // 0 when no complete answer arrived
	Message    string      // the exchange's words, or the transport's, never a secret
	Reason     string      // our plain sentence
	Fix        string      // what a person does next
	Response   []byte      // the raw answer, bounded, kept as evidence
}

// Withdrawal is one row of the exchange's withdrawal history.
type Withdrawal struct {
	ID        int64
	CreatedAt time.Time
	Method    Method
	Asset     string
	Chain     string
	Address   string
	Memo      string
	Net       decimal.Decimal // what the receiver gets
	Gross     decimal.Decimal // what the account is debited, when the fee is in the same asset
	Fee       decimal.Decimal
	FeeAsset  string
	TxID      string // "" until broadcast
	Confirms  int64
	Status    Status
	RawStatus string // the exchange's own word, shown beside ours
	Remark    string
	TxURL     string // explorer link as the exchange gives it; shown as text, never followed by us
}

// Status is a withdrawal's standing at the exchange, in one spelling.
type Status string

const (
	Created            Status = "created"             // waits for an e-mail click; not yet debited
	AuditRequired      Status = "audit_required"      // debited, waits for the exchange's audit
	Audited            Status = "audited"             //
	Processing         Status = "processing"          // being built; can no longer be cancelled
	Confirming         Status = "confirming"          // on chain, waits for confirmations
	Finished           Status = "finished"            // end
	Cancelled          Status = "cancelled"           // end, refunded
	CancellationFailed Status = "cancellation_failed" // unclear: a person looks
	Failed             Status = "failed"              // end, presumably refunded
	Unrecognised       Status = "unrecognised"        // a word we do not know: a person looks
)

// Page is one page of the withdrawal history, newest first.
type Page struct {
	Rows    []Withdrawal
	HasNext bool
	Raw     []byte // the answer as read, kept as evidence by reconciliation
}

// Query selects rows of the withdrawal history. The exchange offers no filter
// by time, address or remark.
type Query struct {
	Asset string // "" for all
	ID    int64  // 0 for all
	Page  int    // from 1
	Limit int    // at most 100
}

// ChainConfig is what the exchange says of one asset on one chain. Both
// AssetEnabled and ChainEnabled must be true for an on-chain withdrawal.
type ChainConfig struct {
	Asset            string
	Chain            string
	AssetEnabled     bool
	ChainEnabled     bool
	InterUserEnabled bool
	MinAmount        decimal.Decimal // smallest net amount
	Fee              decimal.Decimal // flat, in Asset
	Precision        int32           // decimals allowed in the net amount
	MemoRequired     bool            // a hint: the exchange documents it for deposits only
}

// Balance is what one account holds of one asset in its spot wallet.
type Balance struct {
	Asset     string
	Available decimal.Decimal
	Frozen    decimal.Decimal
}

// ClockOffset is how far the exchange's clock is ahead of ours.
type ClockOffset struct {
	Offset time.Duration
	Error  time.Duration // bound: half of the round trip of the best sample
	At     time.Time
}

// Exchange is one account at an exchange, as the submitter needs it.
type Exchange interface {
	// Sign serialises and signs an order. It sends nothing.
	Sign(ctx context.Context, o Order) (Signed, error)
	// Withdraw sends the signed bytes once and never again. It is the one call
	// in this program that moves money. It returns no error: whatever happens
	// is an Outcome.
	Withdraw(ctx context.Context, o Order, s Signed) Outcome
	// Withdrawals reads one page of the history.
	Withdrawals(ctx context.Context, q Query) (Page, error)
	// Cancel asks for a withdrawal to be cancelled. nil says only that the wish was
	// taken; the history says what became of it. Asking again does no harm.
	Cancel(ctx context.Context, id int64) error
	// Debits reads from the spot wallet's history what withdrawals have taken of one
	// asset since a time on the exchange's clock. Each Change is below zero.
	Debits(ctx context.Context, asset string, since time.Time) ([]Movement, error)
	// Config reads the switches, minimum, fee and precision of one asset, or of all for "".
	Config(ctx context.Context, asset string) ([]ChainConfig, error)
	// Balances reads the spot wallet; assets not held are missing.
	Balances(ctx context.Context) ([]Balance, error)
	// Now is the time on the exchange's clock, as last measured.
	Now(ctx context.Context) (time.Time, error)
}
