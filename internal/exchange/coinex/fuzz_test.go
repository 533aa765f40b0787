package coinex

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"sluice/internal/exchange"
	"sluice/internal/money"
)

var seeds = []string{
	"", "null", "[]", "{}", "<html>502</html>", `{"code":0}`, coded(3109), coded(3310), coded(4002), coded(3999),
	`{"code":"0","data":null}`, `{"code":1e400}`, `{"code":-0}`, `{"code":0,"data":{"withdraw_id":1e3}}`,
	`{"message": {"type": "x is not a valid choice"}}`,
	`{"code":0,"data":[],"paginatation":{"total":37,"has_next":false}}`,
	ok(toJSON(echoOf(nil))), ok(`[` + toJSON(echoOf(nil)) + `]`),
	ok(toJSON(echoOf(map[string]any{"withdraw_method": "ON_CHAIN", "fee_asset": "USDT", "fee_amount": 2.3}))),
	ok(toJSON(echoOf(map[string]any{"actual_amount": "1e9000"}))),
	ok(`[` + toJSON(echoOf(map[string]any{"actual_amount": "", "withdraw_id": "7", "status": "audit"})) + `]`),
}

func FuzzClassify(f *testing.F) {
	for i, seed := range seeds {
		f.Add(i%3, []int{200, 429, 502}[i%3], []byte(seed))
		f.Add(2, 200, []byte(seed))
	}
	transport := []error{fmt.Errorf("%w: refused", ErrNotSent), errors.New("reset"), nil}
	f.Fuzz(func(t *testing.T, e, status int, body []byte) {
		err := transport[uint(e)%3]
		o := order()
		out := Classify(err, status, body, o)
		if out.Reason == "" || string(out.Response) != string(body) || len(out.Message) > maxMessage {
			t.Errorf("evidence: %+v", out)
		}
		switch out.Class {
		case exchange.Accepted:
			w := out.Withdrawal
			if err != nil || status != http.StatusOK || w == nil || w.ID <= 0 || out.Code != 0 || out.Next != "" {
				t.Errorf("accepted without proof: %+v", out)
			}
			if w.Asset != "" && w.Asset != o.Asset || w.Address != "" && w.Address != o.Address ||
				w.Memo != "" || w.Chain != "" && w.Chain != o.Chain || !w.Net.IsZero() && !w.Net.Equal(o.Amount) {
				t.Errorf("accepted another withdrawal: %+v", w)
			}
		case exchange.NotAccepted:
			never := err != nil && errors.Is(err, ErrNotSent)
			_, listed := codes[out.Code]
			edge := edgeRefusal(status) && out.Code == 0
			if !never && (err != nil || !speaks(status) || !listed && !edge) {
				t.Errorf("not accepted without proof: %+v", out)
			}
			if out.Next == "" || out.Fix == "" || out.Withdrawal != nil {
				t.Errorf("a no without a next step: %+v", out)
			}
		case exchange.Unknown:
			if out.Next != "" || out.Fix == "" || out.Withdrawal != nil {
				t.Errorf("unknown, and yet: %+v", out)
			}
		default:
			t.Errorf("class %q", out.Class)
		}
	})
}

func FuzzDecodeRows(f *testing.F) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
		if env, err := decodeEnvelope([]byte(seed)); err == nil {
			f.Add([]byte(env.data))
		}
	}
	f.Add([]byte(`[` + usdtConfig + `]`))
	f.Add([]byte(`[{"ccy":"USDT","available":"100.5","frozen":"0"}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := decodeRows(data)
		for _, w := range rows {
			if err != nil || w.ID <= 0 || w.CreatedAt.IsZero() || w.Asset == "" || w.Address == "" || w.Status == "" {
				t.Errorf("half a row: %+v, %v", w, err)
			}
			// Whoever works with the amounts must not be drowned in digits.
			if len(money.Text(w.Net.Add(w.Gross).Add(w.Fee))) > 200 {
				t.Errorf("amounts: %v %v %v", w.Net, w.Gross, w.Fee)
			}
			if _, err := w.CreatedAt.MarshalJSON(); err != nil {
				t.Error(err)
			}
		}
		if objects, err := decodeArray(data); err == nil {
			if err := rowsCount(rows, objects); len(rows) > 0 && err != nil {
				t.Error(err)
			}
			for _, o := range objects {
				_, _ = decodeConfig(o)
				_, _ = decodeBalance(o)
			}
		}
		_, _ = hasNext(data, 1, 100, len(rows))
	})
}

func rowsCount(rows []exchange.Withdrawal, objects []object) error {
	if len(rows) != len(objects) {
		return fmt.Errorf("%d rows of %d", len(rows), len(objects))
	}
	return nil
}
