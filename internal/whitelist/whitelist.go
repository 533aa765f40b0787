// Package whitelist is the mirror of the exchange's API withdrawal whitelist. CoinEx
// offers no endpoint that lists it (facts 3.5), so people keep the mirror true,
// and nothing is paid to what is not in it.
package whitelist

import (
	"time"

	"github.com/google/uuid"

	"sluice/internal/exchange"
)

// State says whether a destination may be paid.
type State string

const (
	Active      State = "active"
	Quarantined State = "quarantined" // the exchange refused it (code 3310): the mirror and the list differ
	Removed     State = "removed"
)

// Key is what makes two entries the same. It is compared byte for byte, as the
// exchange does: a prefix or a letter's case makes another address.
type Key struct {
	Account string          `json:"account"`
	Method  exchange.Method `json:"method"`
	Asset   string          `json:"asset"`
	Chain   string          `json:"chain"`
	Address string          `json:"address"`
	Memo    string          `json:"memo"`
}

// Destination is one entry of the mirror.
type Destination struct {
	ID      uuid.UUID `db:"id"`
	Version int       `db:"version"` // sealed into proposals; any change raises it
	Key
	Label      string     `db:"label"`
	State      State      `db:"state"`
	Reason     string     `db:"reason"` // why it is quarantined
	AttestedBy string     `db:"attested_by"`
	AttestedAt time.Time  `db:"attested_at"`
	AcceptedAt *time.Time `db:"accepted_at"` // when the exchange last took a withdrawal to it
}
