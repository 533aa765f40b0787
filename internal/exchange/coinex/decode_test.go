package coinex

import (
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
)

func TestStatuses(t *testing.T) {
	for word, want := range map[string]exchange.Status{
		"created": exchange.Created, "audit_required": exchange.AuditRequired, "audited": exchange.Audited,
		"processing": exchange.Processing, "confirming": exchange.Confirming, "finished": exchange.Finished,
		"cancelled": exchange.Cancelled, "cancellation_failed": exchange.CancellationFailed, "failed": exchange.Failed,
		"audit": exchange.AuditRequired, "pass": exchange.Audited, "not_pass": exchange.Failed,
		"cancel": exchange.Cancelled, "finish": exchange.Finished, "fail": exchange.Failed,
		"frozen_by_moon": exchange.Unrecognised, "": exchange.Unrecognised,
	} {
		for _, form := range []string{word, strings.ToUpper(word)} {
			rows, err := decodeRows([]byte(`[` + toJSON(echoOf(map[string]any{"status": form})) + `]`))
			if err != nil || rows[0].Status != want || rows[0].RawStatus != form {
				t.Errorf("%q: %+v, %v", form, rows, err)
			}
		}
	}
}

// The differences between docs and wire that were seen (facts 0.5, 3.1, 9.2).
func TestRowVariants(t *testing.T) {
	for name, c := range map[string]struct {
		changes map[string]any
		check   func(w exchange.Withdrawal) bool
	}{
		"confirmations in the singular": {
			map[string]any{"confirmations": nil, "confirmation": 7},
			func(w exchange.Withdrawal) bool { return w.Confirms == 7 },
		},
		"capitals": {
			map[string]any{"withdraw_method": "ON_CHAIN", "status": "FINISHED"},
			func(w exchange.Withdrawal) bool {
				return w.Method == exchange.OnChain && w.Status == exchange.Finished
			},
		},
		"fee in its old fields": {
			map[string]any{"fee_ccy": nil, "tx_fee": nil, "fee_asset": "USDT", "fee_amount": "2.3"},
			func(w exchange.Withdrawal) bool {
				return w.FeeAsset == "USDT" && w.Fee.Equal(decimal.RequireFromString("2.3"))
			},
		},
		"text and numbers swapped": {
			map[string]any{"withdraw_id": "31200001", "created_at": "1760000000456", "confirmations": "3", "amount": 27.9, "actual_amount": 25.5, "memo": 42, "tx_fee": 2.4},
			func(w exchange.Withdrawal) bool {
				return w.ID == 31200001 && w.CreatedAt.UnixMilli() == 1760000000456 && w.Confirms == 3 && w.Memo == "42" &&
					w.Net.Equal(decimal.RequireFromString("25.5")) && w.Gross.Equal(decimal.RequireFromString("27.9"))
			},
		},
		"empty numbers": {
			map[string]any{"tx_fee": "", "amount": "", "confirmations": ""},
			func(w exchange.Withdrawal) bool { return w.Fee.IsZero() && w.Gross.IsZero() && w.Confirms == 0 },
		},
		"nulls": {
			map[string]any{"tx_id": (*int)(nil), "memo": (*int)(nil), "remark": (*int)(nil), "explorer_tx_url": (*int)(nil), "confirmations": (*int)(nil)},
			func(w exchange.Withdrawal) bool { return w.TxID == "" && w.Memo == "" && w.Remark == "" },
		},
		"net missing, gross and fee there": {
			map[string]any{"actual_amount": ""},
			func(w exchange.Withdrawal) bool { return w.Net.Equal(decimal.RequireFromString("25.5")) },
		},
		"fields that we do not know": {
			map[string]any{"new": map[string]any{"a": []int{1}}, "explorer_tx_url": []string{"odd"}},
			func(w exchange.Withdrawal) bool { return w.ID == 31200001 && w.TxURL == "" },
		},
		"the largest id": {
			map[string]any{"withdraw_id": int64(9223372036854775807)},
			func(w exchange.Withdrawal) bool { return w.ID == 9223372036854775807 },
		},
	} {
		t.Run(name, func(t *testing.T) {
			rows, err := decodeRows([]byte("[\n " + toJSON(echoOf(c.changes)) + "\n]"))
			if err != nil {
				t.Fatal(err)
			}
			if len(rows) != 1 || !c.check(rows[0]) {
				t.Errorf("got %+v", rows)
			}
		})
	}
}

func TestMessagesAreBoundedAndWhole(t *testing.T) {
	env, err := decodeEnvelope([]byte(`{"code":1,"message":"` + strings.Repeat("\u00fc", 400) + `"}`))
	if err != nil || len(env.message) > maxMessage || strings.ContainsRune(env.message, '\uFFFD') {
		t.Errorf("%d bytes, %v", len(env.message), err)
	}
	env, err = decodeEnvelope([]byte(`{"code":1,"message":{"type":"x is not a valid choice"}}`))
	if err != nil || env.message != `{"type":"x is not a valid choice"}` {
		t.Errorf("%q, %v", env.message, err)
	}
}

func TestNullIsNotAnEmptyList(t *testing.T) {
	if rows, err := decodeRows([]byte(`null`)); err == nil {
		t.Errorf("got %v", rows)
	}
	if rows, err := decodeRows([]byte(`[]`)); err != nil || len(rows) != 0 {
		t.Errorf("got %v, %v", rows, err)
	}
}
