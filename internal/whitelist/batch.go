package whitelist

import (
	"encoding/csv"
	"io"
)

// WriteBatch writes the active entries, one line each: asset, chain, address, memo and
// label, as CSV without a heading. CoinEx has a page that adds whitelist entries in a
// batch and publishes nothing about the form that it takes (facts 3.5), so these are
// the fields and nothing more; people bring them into the form that the page shows.
func WriteBatch(w io.Writer, list []Destination) error {
	out := csv.NewWriter(w)
	for _, d := range list {
		if d.State == Active {
			out.Write([]string{d.Asset, d.Chain, d.Address, d.Memo, d.Label}) //nolint:errcheck // Error has it
		}
	}
	out.Flush()
	return out.Error()
}
