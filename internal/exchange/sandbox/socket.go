package sandbox

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/hmac"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/shopspring/decimal"
)

// market is one of the two websockets (facts 6).
type market string

const (
	spot    market = "spot"
	futures market = "futures"
)

const (
	idleLimit  = time.Minute // a connection that says nothing for so long is dropped
	socketLag  = 16384       // messages that may wait for a slow reader
	socketTake = 64 << 10    // bytes of one message to the sandbox
)

// The codes of a websocket answer (facts 2.6), as the spot socket has them.
// Those of the futures socket are higher by socketShift.
const (
	wsBadParameter = 20001
	wsNoSuchMethod = 20002
	wsSignFirst    = 21001
	wsBadSign      = 21002
	socketShift    = 10000
)

var socketMessages = map[int]string{
	wsBadParameter: "invalid parameters",
	wsNoSuchMethod: "method not found",
	wsSignFirst:    "authentication required",
	wsBadSign:      "", // as the documentation shows it
	23001:          "service timeout",
	23002:          "requested too frequently",
	24001:          "internal error",
	24002:          "service unavailable temporarily",
}

// socket is one websocket connection. The lock of the sandbox guards it.
type socket struct {
	market market
	ip     string
	owner  *account // nil until server.sign
	idle   *deadline
	out    chan []byte
	drop   context.CancelFunc

	balances  *topics // nil while not subscribed
	positions *topics
	notices   bool
}

// topics are the names that somebody subscribed to; no names are all.
type topics struct{ names []string }

// join adds names to a subscription that may not be there yet.
func (t *topics) join(names []string) *topics {
	if t != nil && len(t.names) == 0 || len(names) == 0 {
		return &topics{}
	}
	if t == nil {
		t = &topics{}
	}
	return &topics{append(slices.Clone(t.names), names...)}
}

// leave takes names out; none or the last ones end the subscription.
func (t *topics) leave(names []string) *topics {
	if t == nil || len(names) == 0 {
		return nil
	}
	if len(t.names) == 0 {
		return t // all stay all: CoinEx does not publish what one of them less would mean
	}
	left := slices.DeleteFunc(slices.Clone(t.names), func(n string) bool { return slices.Contains(names, n) })
	if len(left) == 0 {
		return nil
	}
	return &topics{left}
}

func (t *topics) has(name string) bool {
	return t != nil && (len(t.names) == 0 || slices.Contains(t.names, name))
}

// serveSocket serves one connection until it ends.
func (s *Sandbox) serveSocket(w http.ResponseWriter, r *http.Request, m market) {
	ctx, drop := context.WithCancel(s.alive)
	defer drop()
	k := &socket{market: m, ip: remoteIP(r), out: make(chan []byte, socketLag), drop: drop}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		// CoinEx lets pages of any origin connect; the key is what counts.
		InsecureSkipVerify: true,
		OnPingReceived: func(context.Context, []byte) bool {
			s.spoke(k)
			return true
		},
	})
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(socketTake)

	s.mu.Lock()
	k.idle = s.deadline(s.now(), idleLimit)
	s.sockets = append(s.sockets, k)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.deadlines, k.idle)
		s.sockets = slices.DeleteFunc(s.sockets, func(other *socket) bool { return other == k })
	}()
	go func() {
		defer drop()
		_ = s.wait(ctx, k.idle) // either way it is over
	}()
	go func() {
		defer drop()
		for {
			select {
			case b := <-k.out:
				if conn.Write(ctx, websocket.MessageBinary, b) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		kind, message, err := conn.Read(ctx)
		if err != nil || kind != websocket.MessageText {
			return
		}
		_ = s.do(func(now time.Time) error { // do has logged it
			k.idle.at = now.Add(idleLimit)
			s.serveMessage(k, message, now)
			return nil
		})
	}
}

// spoke puts the end of an idle connection off.
func (s *Sandbox) spoke(k *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k.idle.at = s.now().Add(idleLimit)
}

// socketAnswer is the answer to one message.
type socketAnswer struct {
	ID      json.RawMessage `json:"id"`
	Code    int             `json:"code"`
	Data    any             `json:"data,omitempty"`
	Message string          `json:"message"`
}

// push is a message that nobody asked for again.
type push struct {
	Method string `json:"method"`
	Data   any    `json:"data"`
	ID     any    `json:"id"` // always null
}

// say queues a message. Answers and pushes leave in the order of the events,
// so a confirmation always comes before the first push.
func (k *socket) say(message any) {
	select {
	case k.out <- zip(bytes.TrimSpace(encode(message))):
	default:
		k.drop() // a reader so slow would never see the truth again
	}
}

// zippers are kept because each one weighs nearly a megabyte. They work at best
// speed, which alone does not wipe that megabyte before every little message.
var zippers = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant that exists
	}
	return z
}}

// zip compresses a message by itself: every frame is a complete gzip file.
func zip(b []byte) []byte {
	var out bytes.Buffer
	z := zippers.Get().(*gzip.Writer)
	defer zippers.Put(z)
	z.Reset(&out)
	z.Write(b) //nolint:errcheck // a buffer does not fail
	z.Close()  //nolint:errcheck // a buffer does not fail
	return out.Bytes()
}

// socketMethod is one method of a websocket.
type socketMethod struct {
	private bool
	serve   func(*Sandbox, *socket, map[string]json.RawMessage, time.Time) (data any, code int)
}

var socketMethods = map[market]map[string]socketMethod{
	spot:    withShared(map[string]socketMethod{}),
	futures: withShared(map[string]socketMethod{"position.subscribe": {true, (*Sandbox).wsPositions}, "position.unsubscribe": {true, (*Sandbox).wsPositionsOff}}),
}

func withShared(own map[string]socketMethod) map[string]socketMethod {
	own["server.ping"] = socketMethod{false, (*Sandbox).wsPing}
	own["server.time"] = socketMethod{false, (*Sandbox).wsTime}
	own["server.sign"] = socketMethod{false, (*Sandbox).wsSign}
	own["balance.subscribe"] = socketMethod{true, (*Sandbox).wsBalances}
	own["balance.unsubscribe"] = socketMethod{true, (*Sandbox).wsBalancesOff}
	own["notice.subscribe"] = socketMethod{true, (*Sandbox).wsNotices}
	own["notice.unsubscribe"] = socketMethod{true, (*Sandbox).wsNoticesOff}
	return own
}

// socketRoute is the name of a websocket method for faults and counters.
func socketRoute(m market, method string) string { return "WS /" + string(m) + " " + method }

// serveMessage answers one message of a client.
func (s *Sandbox) serveMessage(k *socket, message []byte, now time.Time) {
	var in struct {
		ID     json.RawMessage            `json:"id"`
		Method string                     `json:"method"`
		Params map[string]json.RawMessage `json:"params"`
	}
	refused := func(code int) {
		text := socketMessages[code]
		if k.market == futures {
			code += socketShift
		}
		k.say(socketAnswer{ID: in.ID, Code: code, Message: text})
	}
	if json.Unmarshal(message, &in) != nil || !wholeNumber(in.ID) {
		in.ID = json.RawMessage("null")
		refused(wsBadParameter)
		return
	}
	name := socketRoute(k.market, in.Method)
	method, known := socketMethods[k.market][in.Method]
	if !known {
		refused(wsNoSuchMethod)
		return
	}
	s.requests[name]++
	c := &call{route: name, account: k.owner, ip: k.ip, now: now}
	f := s.answerFault(c)
	switch {
	case f == nil:
	case f.Fault == DropBeforeAccept:
		s.spendFault(f)
		k.drop()
		return
	case !f.accepts():
		s.spendFault(f)
		k.say(socketAnswer{ID: in.ID, Code: f.Code, Message: socketMessages[f.Code] + f.Message})
		return
	}
	if method.private && k.owner == nil {
		refused(wsSignFirst)
		return
	}
	data, code := method.serve(s, k, in.Params, now)
	if code != 0 {
		refused(code)
		return
	}
	switch {
	case f == nil:
		k.say(socketAnswer{ID: in.ID, Data: data, Message: "OK"})
	case f.Fault == AcceptThenDrop:
		s.spendFault(f)
		k.drop()
	default:
		s.spendFault(f)
		k.say(socketAnswer{ID: in.ID, Code: f.Code, Message: socketMessages[f.Code] + f.Message})
	}
}

func wholeNumber(raw json.RawMessage) bool {
	var v int64
	return len(raw) > 0 && raw[0] != 'n' && json.Unmarshal(raw, &v) == nil
}

func (s *Sandbox) wsPing(*socket, map[string]json.RawMessage, time.Time) (any, int) {
	return map[string]string{"result": "pong"}, 0
}

func (s *Sandbox) wsTime(_ *socket, _ map[string]json.RawMessage, now time.Time) (any, int) {
	return map[string]int64{"timestamp": now.UnixMilli()}, 0
}

// wsSign serves server.sign: the text is the decimal timestamp alone, and HMAC
// is the only scheme, whatever HTTP accepts (facts 1.5, 6).
func (s *Sandbox) wsSign(k *socket, params map[string]json.RawMessage, now time.Time) (any, int) {
	var (
		accessID, sign string
		timestamp      int64
	)
	if json.Unmarshal(params["access_id"], &accessID) != nil || json.Unmarshal(params["signed_str"], &sign) != nil ||
		json.Unmarshal(params["timestamp"], &timestamp) != nil {
		return nil, wsBadParameter
	}
	a, key := s.key(accessID)
	age := now.UnixMilli() - timestamp
	switch {
	case a == nil, !key.lives(now), !key.allows(k.ip), key.Forbidden, age > defaultWindow, -age > futureBound,
		!hmac.Equal([]byte(sign), []byte(signHMAC(key.SecretKey, strconv.FormatInt(timestamp, 10)))):
		return nil, wsBadSign
	}
	k.owner = a
	return nil, 0
}

// names reads a list of names; false when it is not there or not a list.
func names(raw json.RawMessage) ([]string, bool) {
	var list []string
	if json.Unmarshal(raw, &list) != nil || list == nil {
		return nil, false
	}
	return list, true
}

func (s *Sandbox) wsBalances(k *socket, params map[string]json.RawMessage, _ time.Time) (any, int) {
	list, ok := names(params["ccy_list"])
	if !ok || slices.ContainsFunc(list, func(ccy string) bool { return s.state.asset(ccy) == nil }) {
		return nil, wsBadParameter
	}
	k.balances = k.balances.join(list)
	return nil, 0
}

func (s *Sandbox) wsBalancesOff(k *socket, params map[string]json.RawMessage, _ time.Time) (any, int) {
	list, ok := names(params["ccy_list"])
	if !ok {
		return nil, wsBadParameter
	}
	k.balances = k.balances.leave(list)
	return nil, 0
}

func (s *Sandbox) wsPositions(k *socket, params map[string]json.RawMessage, _ time.Time) (any, int) {
	list, ok := names(params["market_list"])
	if !ok || slices.ContainsFunc(list, func(name string) bool { return contract(name) == nil }) {
		return nil, wsBadParameter
	}
	k.positions = k.positions.join(list)
	return nil, 0
}

func (s *Sandbox) wsPositionsOff(k *socket, params map[string]json.RawMessage, _ time.Time) (any, int) {
	list, ok := names(params["market_list"])
	if !ok {
		return nil, wsBadParameter
	}
	k.positions = k.positions.leave(list)
	return nil, 0
}

// maintenanceChannel is the one notice that is documented.
const maintenanceChannel = 101

func (s *Sandbox) wsNotices(k *socket, params map[string]json.RawMessage, _ time.Time) (any, int) {
	var channels []int
	if json.Unmarshal(params["channels"], &channels) != nil || !slices.Equal(channels, []int{maintenanceChannel}) {
		return nil, wsBadParameter
	}
	k.notices = true
	return nil, 0
}

func (s *Sandbox) wsNoticesOff(k *socket, _ map[string]json.RawMessage, _ time.Time) (any, int) {
	k.notices = false
	return nil, 0
}

// DropSockets breaks every websocket connection, as a network does: without a
// closing frame.
func (s *Sandbox) DropSockets() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.sockets {
		k.drop()
	}
}

// pushSpot tells whoever subscribed what the account has of a coin now.
func (s *Sandbox) pushSpot(a *account, ccy string, now time.Time) {
	s.pushBalance(spot, a, ccy, spotRow{Ccy: ccy, Available: a.Balances[ccy], UpdatedAt: now.UnixMilli()})
}

// spotRow is one row of balance.update on the spot socket. MarginMarket is
// empty for the plain spot wallet.
type spotRow struct {
	MarginMarket string          `json:"margin_market"`
	Ccy          string          `json:"ccy"`
	Available    decimal.Decimal `json:"available"`
	Frozen       decimal.Decimal `json:"frozen"`
	UpdatedAt    int64           `json:"updated_at"`
}

func (s *Sandbox) pushBalance(m market, a *account, ccy string, row any) {
	for _, k := range s.sockets {
		if k.market == m && k.owner == a && k.balances.has(ccy) {
			k.say(push{Method: "balance.update", Data: map[string]any{"balance_list": []any{row}}})
		}
	}
}

// socketRoutes are the names of all websocket methods.
var socketRoutes = func() (names []string) {
	for m, methods := range socketMethods {
		for method := range methods {
			names = append(names, socketRoute(m, method))
		}
	}
	return names
}()
