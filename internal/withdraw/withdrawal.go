package withdraw

import (
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
)

// Withdrawal is one request to pay out, from intake to its end, as recorded.
type Withdrawal struct {
	ID             uuid.UUID           `db:"id"`
	Requester      string              `db:"requester"` // "client:NAME" or "person:ID"
	Reference      string              `db:"reference"`
	Account        string              `db:"account"`
	Method         exchange.Method     `db:"method"`
	Asset          string              `db:"asset"`
	Chain          string              `db:"chain"`
	Address        string              `db:"address"`
	Memo           string              `db:"memo"`
	Amount         decimal.Decimal     `db:"amount"`  // net: what the receiver gets, in Asset
	MaxFee         decimal.NullDecimal `db:"max_fee"` // in Asset; null on some refused requests
	Purpose        string              `db:"purpose"`
	DestinationID  *uuid.UUID          `db:"destination_id"`
	State          State               `db:"state"`
	Round          int                 `db:"round"`
	Digest         []byte              `db:"digest"` // of the current round's proposal; nil when refused
	ExpiresAt      *time.Time          `db:"expires_at"`
	ReasonCode     string              `db:"reason_code"`
	Reason         string              `db:"reason"` // why it is refused, held, failed, absent or waiting
	Fix            string              `db:"fix"`    // what a person does next
	NextStepAt     *time.Time          `db:"next_step_at"`
	ExchangeID     *int64              `db:"exchange_id"`
	ExchangeStatus string              `db:"exchange_status"` // the exchange's own word
	Fee            decimal.NullDecimal `db:"fee"`             // as charged
	FeeAsset       string              `db:"fee_asset"`
	TxID           string              `db:"tx_id"`
	Confirmations  int64               `db:"confirmations"`
	ApprovedAt     *time.Time          `db:"approved_at"`     // in this round; whoever was first has the first claim on the balance
	ListedAt       *time.Time          `db:"listed_at"`       // when the exchange's history first showed it
	CancelAskedAt  *time.Time          `db:"cancel_asked_at"` // when somebody asked to cancel it at the exchange
	CreatedAt      time.Time           `db:"created_at"`
	UpdatedAt      time.Time           `db:"updated_at"`
}

// Attempt is one signed submission and what is known of it.
type Attempt struct {
	ID           uuid.UUID       `db:"id"`
	WithdrawalID uuid.UUID       `db:"withdrawal_id"`
	Digest       []byte          `db:"digest"` // of the proposal whose approval it rests on
	Number       int             `db:"number"`
	Fence        int64           `db:"fence"`
	Account      string          `db:"account"`
	Asset        string          `db:"asset"`
	Chain        string          `db:"chain"`
	Address      string          `db:"address"`
	Memo         string          `db:"memo"`
	Amount       decimal.Decimal `db:"amount"`
	Remark       string          `db:"remark"`
	Body         []byte          `db:"body"`      // the exact bytes sent
	SignedAt     time.Time       `db:"signed_at"` // T, by the exchange's clock
	WindowMS     int             `db:"window_ms"` // W: the exchange refuses the bytes after T + W
	Outcome      string          `db:"outcome"`   // open, unknown, accepted, not_accepted, absent
	ExchangeID   *int64          `db:"exchange_id"`
	HTTPStatus   int             `db:"http_status"`
	Code         int             `db:"code"`
	Message      string          `db:"message"`
	Response     []byte          `db:"response"`
	CreatedAt    time.Time       `db:"created_at"`
	DecidedAt    *time.Time      `db:"decided_at"`
}

// Dies is when the exchange stops taking this attempt's bytes, by its own clock.
func (a Attempt) Dies() time.Time {
	return a.SignedAt.Add(time.Duration(a.WindowMS) * time.Millisecond)
}

// Filter selects withdrawals for a list. Zero fields select all.
type Filter struct {
	States    []State
	Account   string
	Asset     string
	Address   string
	Reference string
	Requester string
	From, To  time.Time // of creation; To is excluded
	Cursor    uuid.UUID // continue below this id
	Limit     int       // 1 to 200; 0 means 50
}

// VoteRow is a vote as a page shows it.
type VoteRow struct {
	Person   uuid.UUID `db:"person_id"`
	Name     string    `db:"display_name"`
	Decision string    `db:"decision"`
	Reason   string    `db:"reason"`
	Round    int       `db:"round"`
	CastAt   time.Time `db:"cast_at"`
}
