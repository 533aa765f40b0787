package coinex

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/fault"
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

// FuzzTreasury feeds the decoders of everything that is only read.
func FuzzTreasury(f *testing.F) {
	for _, seed := range append(seeds,
		`[`+btcPosition+`]`, `[`+movement(1760000000456, "-27.9")+`]`,
		`[{"deposit_id":1,"created_at":1760000000456,"ccy":"USDT","deposit_method":"ON_CHAIN","amount":"31","actual_amount":"","status":"FINISHED"}]`,
		`[{"ccy":"USDT","available":"50","frozen":"0","margin":"10","unrealized_pnl":"-0.2","transferrable":"45","equity":"60"}]`,
		`[{"market":"BTCUSDT","last":"1","mark_price":"1e39","index_price":1}]`,
		`[{"started_at":1760000000000,"ended_at":"1760003600000","scope":["SPOT"],"announce_url":""}]`,
		`Your IP: 203.0.113.7, 2001:db8::7, ::ffff:1.2.3.4`,
	) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		whole := func(name string, n int, err error) {
			if _, isFault := fault.As(err); err != nil && (!isFault || n != 0) {
				t.Errorf("%s: %d rows and %v", name, n, err)
			}
		}
		deposits, err := decodeAll(data, decodeDeposit)
		whole("deposits", len(deposits), err)
		movements, err := decodeAll(data, decodeMovement)
		whole("movements", len(movements), err)
		for _, m := range movements {
			if m.At.IsZero() || m.Asset == "" || len(money.Text(m.Change.Add(m.Balance))) > 200 {
				t.Errorf("half a movement: %+v", m)
			}
		}
		positions, err := decodeAll(data, decodePosition)
		whole("positions", len(positions), err)
		futures, err := decodeAll(data, decodeFutures)
		whole("futures", len(futures), err)
		tickers, err := decodeAll(data, decodeTicker)
		whole("tickers", len(tickers), err)
		marks := map[string]decimal.Decimal{}
		for _, k := range tickers {
			marks[k.Market] = k.Mark
		}
		for _, b := range futures {
			if e := exchange.EquityOf(b, positions, marks); len(money.Text(e.Calculated)) > 200 || len(money.Text(e.Unrealized)) > 400 {
				t.Errorf("drowned in digits: %+v", e)
			}
		}
		pauses, err := decodeAll(data, decodeMaintenance)
		whole("maintenance", len(pauses), err)
		for _, addr := range addresses(string(data)) {
			if !addr.IsValid() || addr.IsUnspecified() {
				t.Errorf("%v is no address", addr)
			}
		}
	})
}

// FuzzFrame feeds what a websocket may bring.
func FuzzFrame(f *testing.F) {
	for _, seed := range append(seeds,
		`{"id":1,"code":0,"message":"OK"}`, `{"id":null,"code":21002,"message":""}`, `{"id":"4","code":"30001"}`,
		spotPush("USDT", 72), `{"method":"balance.update","data":{"balance_list":[{"ccy":"USDT","available":"1","equity":"2"}]}}`,
		`{"method":"position.update","data":{"event":"liq","position":`+btcPosition+`}}`,
	) {
		f.Add([]byte(seed))
		f.Add(packed([]byte(seed)))
	}
	f.Add(append(packed([]byte(`{"id":1,`)), packed([]byte(`"code":0}`))...)) // gzip knows members
	f.Fuzz(func(t *testing.T, frame []byte) {
		var gz gzip.Reader
		text, err := unpack(&gz, frame)
		if err != nil {
			return
		}
		if len(text) > max(maxFrame, len(frame)) {
			t.Fatalf("%d bytes came out", len(text))
		}
		m, err := decodeMessage(text)
		if err != nil {
			return
		}
		if len(m.text) > maxMessage || m.answers == (m.method != "") {
			t.Errorf("got %+v", m)
		}
		if err := m.refusal(); err != nil {
			if f, isFault := fault.As(err); !isFault || f.Fix == "" || m.code == 0 {
				t.Errorf("code %d: %v", m.code, err)
			}
		}
		_, _ = decodeSpotPush(m.data)
		_, _ = decodeFuturesPush(m.data)
		if rows, err := decodePositionPush(m.data); err == nil && (len(rows) != 1 || rows[0].Market == "") {
			t.Errorf("got %+v", rows)
		}
	})
}

// FuzzRecords looks for secrets in what is kept of answers that hold them.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("before "), []byte(" after"), uint16(3))
	f.Fuzz(func(t *testing.T, before, after []byte, shift uint16) {
		hide := keys(func() (string, string) { return testID, testSecret }).hider("")
		body := append(bytes.Repeat([]byte(" "), int(shift)*2), before...)
		for _, secret := range []string{testID, strings.ToLower(testSecret), testSecret} {
			body = append(append(body, secret...), after...)
		}
		kept, _ := hideBody(body, hide)
		kept = strings.ToUpper(kept)
		if strings.Contains(kept, testID) || strings.Contains(kept, testSecret) {
			t.Errorf("kept %q", kept)
		}
		if strings.HasSuffix(kept, testSecret[:8]) && len(after) == 0 {
			t.Errorf("kept the beginning of a key: %q", kept[max(0, len(kept)-40):])
		}
	})
}
