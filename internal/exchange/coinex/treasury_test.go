package coinex

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/internal/exchange"
	"sluice/internal/fault"
)

// collect reads a sequence to its end or its error.
func collect[T any](seq iter.Seq2[T, error]) ([]T, error) {
	var out []T
	for row, err := range seq {
		if err != nil {
			return out, err
		}
		out = append(out, row)
	}
	return out, nil
}

// pageOf is which page a request asks for.
func pageOf(t *testing.T, r seen) int {
	u, err := url.Parse(r.target)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(u.Query().Get("page"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func withdrawalRows(ids ...int) string {
	rows := make([]string, len(ids))
	for i, id := range ids {
		rows[i] = toJSON(echoOf(map[string]any{"withdraw_id": id}))
	}
	return strings.Join(rows, ",")
}

func paged(rows string, next bool) string {
	return fmt.Sprintf(`{"code":0,"data":[%s],"pagination":{"has_next":%t}}`, rows, next)
}

func TestAllWithdrawalsWalksToTheEnd(t *testing.T) {
	// A sixth withdrawal comes in after the first page and pushes 4 onto the second.
	pages := map[int]string{1: paged(withdrawalRows(5, 4), true), 2: paged(withdrawalRows(4, 3), true), 3: paged(withdrawalRows(2, 1), false)}
	s := newStub(t, nil)
	s.answer = func(w http.ResponseWriter, r seen) { _, _ = w.Write([]byte(pages[pageOf(t, r)])) }
	rows, err := collect(s.client().AllWithdrawals(t.Context(), exchange.Query{Asset: "USDT", Limit: 2}))
	if err != nil {
		t.Fatal(err)
	}
	var ids []int64
	for _, w := range rows {
		ids = append(ids, w.ID)
	}
	if fmt.Sprint(ids) != "[5 4 3 2 1]" || len(s.requests()) != 3 || s.requests()[2].target != "/v2/assets/withdraw?ccy=USDT&limit=2&page=3" {
		t.Errorf("%v in %d requests", ids, len(s.requests()))
	}
	for w := range s.client().AllWithdrawals(t.Context(), exchange.Query{Page: 2, Limit: 2}) { //nolint:errcheck // an iterator; the loop is what is tested
		if w.ID != 4 {
			t.Errorf("from page 2: %d", w.ID)
		}
		break
	}
	if got := s.requests(); len(got) != 4 {
		t.Errorf("who stops early reads no further: %d requests", len(got))
	}
}

func TestHistoriesThatDoNotEndAreErrors(t *testing.T) {
	for name, answer := range map[string]func(page int) string{
		"empty, and yet more": func(int) string { return paged("", true) },
		"the same for ever":   func(int) string { return paged(withdrawalRows(2, 1), true) },
		"broken on page 2": func(page int) string {
			return map[int]string{1: paged(withdrawalRows(2), true)}[page]
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t, nil)
			s.answer = func(w http.ResponseWriter, r seen) { _, _ = w.Write([]byte(answer(pageOf(t, r)))) }
			_, err := collect(s.client().AllWithdrawals(t.Context(), exchange.Query{}))
			if f, _ := fault.As(err); f == nil || f.Code != "exchange_answer_unreadable" {
				t.Errorf("got %v", err)
			}
			if n := len(s.requests()); n > 2 {
				t.Errorf("%d requests", n)
			}
		})
	}
	_, err := collect(newStub(t, says(coded(4005))).client().AllWithdrawals(t.Context(), exchange.Query{}))
	if !fault.Is(err, "exchange_code_4005") {
		t.Errorf("got %v", err)
	}
	_, err = collect(newStub(t, nil).client().AllWithdrawals(t.Context(), exchange.Query{Page: -1, Limit: -1}))
	if !fault.Is(err, "query_invalid") {
		t.Errorf("got %v", err)
	}
}

func movement(at int, change string) string {
	return fmt.Sprintf(`{"created_at":%d,"ccy":"USDT","type":"WITHDRAW","balance":"72.1","change":%q}`, at, change)
}

func TestMovements(t *testing.T) {
	s := newStub(t, nil)
	s.now = func() time.Time { return time.UnixMilli(testMillis) }
	s.answer = func(w http.ResponseWriter, r seen) {
		if pageOf(t, r) == 1 {
			_, _ = w.Write([]byte(paged(movement(1759999999999, "-27.9")+","+movement(1759999000000, "-1"), true)))
			return
		}
		_, _ = w.Write([]byte(paged(movement(1759999000000, "-1")+","+movement(1759998999999, "-5"), false))) // the last is outside
	}
	c := s.client(func(cfg *Config) { cfg.Now = s.now })
	rows, err := collect(c.Movements(t.Context(), exchange.MovementQuery{Kind: exchange.MovedOut, Asset: "USDT", From: time.UnixMilli(1759999000000)}))
	if err != nil {
		t.Fatal(err)
	}
	want := "/v2/assets/spot/transcation-history?ccy=USDT&end_time=1760000000123&limit=100&page=1&start_time=1759999000000&type=withdraw"
	if got := s.requests(); len(got) != 2 || got[0].target != want || got[0].header.Get(headerSign) == "" || !strings.Contains(got[1].target, "end_time=1760000000123") {
		t.Errorf("sent %+v", got)
	}
	// Two movements may be equal in everything; both have happened.
	if len(rows) != 3 || rows[0].Kind != exchange.MovedOut || rows[0].Change.String() != "-27.9" || rows[0].Balance.String() != "72.1" || rows[0].At.UnixMilli() != 1759999999999 {
		t.Errorf("got %+v", rows)
	}
	for name, q := range map[string]exchange.MovementQuery{
		"no kind":        {},
		"backwards":      {Kind: exchange.MovedOut, From: time.UnixMilli(2), Until: time.UnixMilli(1)},
		"from tomorrow":  {Kind: exchange.MovedOut, From: s.now().Add(time.Hour)},
		"no kind, until": {Until: time.UnixMilli(1)},
	} {
		if _, err := collect(c.Movements(t.Context(), q)); !fault.Is(err, "query_invalid") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range c.Movements(t.Context(), exchange.MovementQuery{Kind: exchange.MovedOut}) { //nolint:errcheck // an iterator; the loop is what is tested
		break
	}
	for name, row := range map[string]string{"no time": `{"ccy":"USDT","change":"1"}`, "no asset": `{"created_at":1,"change":"1"}`, "no change": `{"created_at":1,"ccy":"USDT"}`, "change in words": movement(1, "some")} {
		if _, err := collect(newStub(t, says(paged(row, false))).client().Movements(t.Context(), exchange.MovementQuery{Kind: exchange.MovedIn})); !fault.Is(err, "exchange_answer_unreadable") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMovementsNeedTheExchangesTime(t *testing.T) {
	c := newOffline(t, func(*http.Request) (*http.Response, error) { return nil, errors.New("no route") })
	if _, err := collect(c.Movements(t.Context(), exchange.MovementQuery{Kind: exchange.MovedOut})); !fault.Is(err, "exchange_unreachable") {
		t.Errorf("got %v", err)
	}
}

func TestDeposits(t *testing.T) {
	row := func(id int, actual string) string {
		return fmt.Sprintf(`{"deposit_id":%d,"created_at":1760000000456,"tx_id":"9f3c","tx_id_display":"9f3c","ccy":"USDT","chain":"TRC20","deposit_method":"ON_CHAIN",
			"amount":"31","actual_amount":%s,"to_address":"TJ","confirmations":19,"status":"FINISHED","tx_explorer_url":"","to_addr_explorer_url":"","remark":""}`, id, actual)
	}
	s := newStub(t, says(`{"code":0,"data":[`+row(2, `"30.5"`)+`,`+row(2, `"30.5"`)+`,`+row(1, `""`)+`],"paginatation":{"total":3,"has_next":false},"message":"OK"}`))
	got, err := collect(s.client().Deposits(t.Context(), "USDT"))
	if err != nil {
		t.Fatal(err)
	}
	if r := s.requests()[0]; r.target != "/v2/assets/deposit-history?ccy=USDT&limit=100&page=1" || r.header.Get(headerSign) == "" {
		t.Errorf("sent %+v", r)
	}
	if len(got) != 2 || got[0].Amount.String() != "30.5" || got[1].Amount.String() != "31" || got[0].Method != exchange.OnChain ||
		got[0].Status != "finished" || got[0].Confirms != 19 || got[0].Chain != "TRC20" || got[0].TxID != "9f3c" || got[0].Address != "TJ" {
		t.Errorf("got %+v", got)
	}
	for _, bad := range []string{row(0, `""`), row(1, `{}`), row(1, `"x"`)} {
		if _, err := collect(newStub(t, says(ok(`[`+bad+`]`))).client().Deposits(t.Context(), "")); !fault.Is(err, "exchange_answer_unreadable") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestFuturesBalancesAndPositions(t *testing.T) {
	s := newStub(t, func(w http.ResponseWriter, r seen) {
		answer := ok(`[{"ccy":"USDT","available":"50","frozen":"0","margin":"10","unrealized_pnl":"-0.2","transferrable":"45"}]`)
		if strings.HasPrefix(r.target, "/v2/futures/") {
			answer = paged(strings.ReplaceAll(btcPosition, `"long"`, `"SHORT"`), false)
		}
		_, _ = w.Write([]byte(answer))
	})
	c := s.client()
	balances, err := c.FuturesBalances(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := balances[0]
	if len(balances) != 1 || b.Asset != "USDT" || b.Available.String() != "50" || b.Margin.String() != "10" || b.Unrealized.String() != "-0.2" || b.Transferable.String() != "45" || b.Equity.Valid {
		t.Errorf("got %+v", balances)
	}
	positions, err := c.Positions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := positions[0]
	if len(positions) != 1 || p.ID != 246830219 || p.Market != "BTCUSDT" || p.Side != exchange.Short || p.Size.String() != "0.0005" || p.Entry.String() != "62894.98" ||
		p.Settle.String() != "62894.98" || p.Realized.String() != "-0.01572374" || !p.Liquidation.IsZero() || p.UpdatedAt.UnixMilli() != 1715847110000 {
		t.Errorf("got %+v", positions)
	}
	sent := s.requests()
	if sent[0].target != "/v2/assets/futures/balance" || sent[1].target != "/v2/futures/pending-position?limit=100&market_type=FUTURES&page=1" || sent[1].header.Get(headerSign) == "" {
		t.Errorf("sent %+v", sent)
	}
	for _, bad := range []string{`{"market":"BTCUSDT","side":"sideways"}`, `{"side":"long"}`, `{"market":"BTCUSDT","side":"long","open_interest":"x"}`} {
		if _, err := newStub(t, says(paged(bad, false))).client().Positions(t.Context()); !fault.Is(err, "exchange_answer_unreadable") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, bad := range []string{`{"available":"1"}`, `{"ccy":"USDT","margin":[]}`} {
		if _, err := newStub(t, says(ok(`[`+bad+`]`))).client().FuturesBalances(t.Context()); !fault.Is(err, "exchange_answer_unreadable") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestPublicReadings(t *testing.T) {
	s := newStub(t, func(w http.ResponseWriter, r seen) {
		_, _ = w.Write([]byte(ok(map[string]string{
			"/v2/spot/ticker":    `[{"close":"62393.47","high":"64106.41","last":"62393.48","market":"BTCUSDT","period":86400,"volume":"461.7"},{"market":"CETUSDT","last":""}]`,
			"/v2/futures/ticker": `[{"market":"BTCUSDT","last":"62393.48","mark_price":"62396.66","index_price":"62436.2","open_interest_volume":"1"}]`,
			"/v2/maintain/info": `[{"started_at":1760000000000,"ended_at":1760003600000,"scope":["SPOT","FUTURES"],"announce_enabled":true,"announce_url":"https://example.com/a","protect_duration_start":0,"protect_duration_end":0},
				{"started_at":0,"ended_at":null,"scope":null}]`,
		}[r.target])))
	})
	c := s.client()
	spot, err := c.SpotTickers(t.Context())
	if err != nil || len(spot) != 2 || spot[0].Market != "BTCUSDT" || spot[0].Last.String() != "62393.48" || !spot[0].Mark.IsZero() || !spot[1].Last.IsZero() {
		t.Errorf("got %+v, %v", spot, err)
	}
	futures, err := c.FuturesTickers(t.Context())
	if err != nil || len(futures) != 1 || futures[0].Mark.String() != "62396.66" || futures[0].Index.String() != "62436.2" {
		t.Errorf("got %+v, %v", futures, err)
	}
	pauses, err := c.Maintenance(t.Context())
	if err != nil || len(pauses) != 2 || pauses[0].Until.Sub(pauses[0].From) != time.Hour || fmt.Sprint(pauses[0].Scope) != "[SPOT FUTURES]" || pauses[0].URL != "https://example.com/a" || !pauses[1].From.IsZero() {
		t.Errorf("got %+v, %v", pauses, err)
	}
	for _, r := range s.requests() {
		if r.header.Get(headerKey) != "" {
			t.Errorf("%s was sent with a key", r.target)
		}
	}
	broken := newStub(t, says(ok(`[{"scope":"ALL_SITE","last":{}}]`))).client()
	for name, err := range map[string]error{
		"ticker":      second(broken.SpotTickers(t.Context())),
		"no market":   second(newStub(t, says(ok(`[{}]`))).client().FuturesTickers(t.Context())),
		"maintenance": second(broken.Maintenance(t.Context())),
		"no time":     second(newStub(t, says(ok(`[{"started_at":"soon"}]`))).client().Maintenance(t.Context())),
	} {
		if !fault.Is(err, "exchange_answer_unreadable") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestEgressTakesAnyForm(t *testing.T) {
	for answer, want := range map[string]string{
		ok(`{"ip":"203.0.113.7"}`):                              "[203.0.113.7]",
		ok(`"203.0.113.7"`):                                     "[203.0.113.7]",
		`{"ip":"2001:db8::7"}`:                                  "[2001:db8::7]",
		"203.0.113.7\n":                                         "[203.0.113.7]",
		"Your IP: 203.0.113.7.":                                 "[203.0.113.7]",
		"ip:2001:db8::7":                                        "[2001:db8::7]",
		ok(`{"ip":"203.0.113.7, 198.51.100.2"}`):                "[203.0.113.7 198.51.100.2]",
		ok(`{"ip":"::ffff:203.0.113.7","v4":"203.0.113.7"}`):    "[203.0.113.7]",
		`{"code":0,"data":{"v":"1.2","t":"12:30:45"},"m":"::"}`: "",
		coded(4007):                                             "",
		"":                                                      "",
	} {
		got, err := newStub(t, says(answer)).client().Egress(t.Context())
		if want == "" {
			if !fault.Is(err, "exchange_answer_unreadable") || got.Text != answer {
				t.Errorf("%s: %+v, %v", answer, got, err)
			}
			continue
		}
		if err != nil || fmt.Sprint(got.Addrs) != want || got.Text != answer {
			t.Errorf("%s: %v, %v", answer, got.Addrs, err)
		}
	}
	blocked := newOffline(t, func(*http.Request) (*http.Response, error) {
		return respond(403, "Cloudflare blocked 203.0.113.7"), nil
	})
	if got, err := blocked.Egress(t.Context()); !fault.Is(err, "exchange_http_status") || len(got.Addrs) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	away := newOffline(t, func(*http.Request) (*http.Response, error) { return nil, errors.New("no route") })
	if _, err := away.Egress(context.Background()); !fault.Is(err, "exchange_unreachable") {
		t.Errorf("got %v", err)
	}
}
