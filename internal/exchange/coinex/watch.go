package coinex

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"sluice/internal/exchange"
	"sluice/internal/fault"
)

const (
	maxFrame = 1 << 20 // bytes, packed and unpacked
	maxHeld  = 4 << 20 // bytes of updates between the first confirmation and the last

	pingEvery = 20 * time.Second // the exchange hangs up after a minute of silence (facts 6)
	pongWait  = 10 * time.Second

	firstPause = time.Second // after a connection is lost; doubles up to longPause
	longPause  = 30 * time.Second

	// steady is how long a connection must have lived for the next pause to be
	// the first again. An exchange that takes us in and throws us out at once
	// must not be asked every second.
	steady = 10 * time.Second
)

// Wallet is one of the exchange's wallets, each with a websocket of its own.
type Wallet string

const (
	SpotWallet    Wallet = "spot"
	FuturesWallet Wallet = "futures"
)

// Update is news of balances or positions.
type Update[T any] struct {
	Rows []T

	// Whole means that Rows is everything there is: what is missing is zero, or
	// closed. Otherwise Rows are the present values of what has changed.
	Whole bool

	At time.Time // when it came, by our clock
}

// Link is a change of one connection.
type Link struct {
	Wallet Wallet
	Up     bool  // subscribed, and the first whole update was handed over
	Err    error // why it is down; a fault, without secrets
	At     time.Time
}

// Handlers take what Watch brings. Those that are nil are not watched. They are
// called one at a time and should return within seconds: nothing is read
// meanwhile, and a connection that seems dead is given up.
type Handlers struct {
	Spot      func(Update[exchange.Balance])
	Futures   func(Update[exchange.FuturesBalance])
	Positions func(Update[exchange.Position])
	Link      func(Link)
}

// Watch follows balances and positions over the exchange's websockets (facts 6)
// until ctx ends, and only then returns. Nothing about withdrawals is ever told
// there (facts 3.4), but a debit shows at once.
//
// Connections that are lost are made again, with growing pauses, for ever.
// After each connection the first update is Whole, read by HTTP after the
// subscription was confirmed, so that whatever happened in between is in it.
// Updates may for a moment repeat an older value than a Whole one had; the last
// one is always the present one.
func (c *Client) Watch(ctx context.Context, h Handlers) {
	var turn sync.Mutex // handlers are called one at a time
	call := func(f func()) {
		turn.Lock()
		defer turn.Unlock()
		f()
	}
	var spot, futures []topic
	if h.Spot != nil {
		spot = append(spot, topicOf(c, "balance", `{"ccy_list":[]}`, c.Balances, decodeSpotPush, func(u Update[exchange.Balance]) { call(func() { h.Spot(u) }) }))
	}
	if h.Futures != nil {
		futures = append(futures, topicOf(c, "balance", `{"ccy_list":[]}`, c.FuturesBalances, decodeFuturesPush, func(u Update[exchange.FuturesBalance]) { call(func() { h.Futures(u) }) }))
	}
	if h.Positions != nil {
		futures = append(futures, topicOf(c, "position", `{"market_list":[]}`, c.Positions, decodePositionPush, func(u Update[exchange.Position]) { call(func() { h.Positions(u) }) }))
	}
	link := func(l Link) {
		l.At = c.now()
		if h.Link != nil {
			call(func() { h.Link(l) })
		}
	}
	var both sync.WaitGroup
	if spot != nil {
		both.Go(func() { c.follow(ctx, SpotWallet, spot, link) })
	}
	if futures != nil {
		both.Go(func() { c.follow(ctx, FuturesWallet, futures, link) })
	}
	both.Wait()
}

// topic is one subscription.
type topic struct {
	name      string // "balance" is subscribed by balance.subscribe and comes as balance.update
	selection string // JSON: everything
	whole     func(context.Context) error
	take      func(data json.RawMessage) error
}

func topicOf[T any](c *Client, name, selection string, read func(context.Context) ([]T, error), decode func(json.RawMessage) ([]T, error), hand func(Update[T])) topic {
	return topic{
		name:      name,
		selection: selection,
		whole: func(ctx context.Context) error {
			rows, err := read(ctx)
			if err == nil {
				hand(Update[T]{Rows: rows, Whole: true, At: c.now()})
			}
			return err
		},
		take: func(data json.RawMessage) error {
			rows, err := decode(data)
			if err == nil && len(rows) > 0 {
				hand(Update[T]{Rows: rows, At: c.now()})
			}
			return err
		},
	}
}

// follow keeps one wallet's connection until ctx ends.
func (c *Client) follow(ctx context.Context, w Wallet, topics []topic, link func(Link)) {
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := c.connect(ctx, w, topics, func() { link(Link{Wallet: w, Up: true}) })
		if ctx.Err() != nil {
			return
		}
		link(Link{Wallet: w, Err: err})
		if time.Since(began) >= steady {
			pause = firstPause
		}
		// Half of the pause is chance: an exchange that comes back must not meet
		// all of its clients in the same moment.
		rest(ctx, pause/2+rand.N(pause/2)) //nolint:gosec // spreads reconnections; nobody gains by guessing it
		pause = min(2*pause, longPause)
	}
}

// connect makes a connection and works through it to its end.
func (c *Client) connect(ctx context.Context, w Wallet, topics []topic, up func()) error {
	conn, err := c.dial(ctx, w)
	if err != nil {
		return lost(err)
	}
	defer func() { _ = conn.CloseNow() }() // it has failed, or nobody waits for a farewell
	s := &session{client: c, conn: conn, topics: map[string]topic{}}
	if err := s.open(ctx, topics); err != nil {
		return err
	}
	for _, t := range topics {
		if err := t.whole(ctx); err != nil {
			return err
		}
	}
	for _, m := range s.held {
		if err := s.take(m); err != nil {
			return err
		}
	}
	s.held = nil // for the life of the connection
	up()
	return s.live(ctx)
}

func (c *Client) dial(ctx context.Context, w Wallet) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, c.socket+"/v2/"+string(w), &websocket.DialOptions{ //nolint:bodyclose // the library closes the body of a handshake
		HTTPClient: &http.Client{
			Transport: c.reads,
			// We are about to sign in: to the address that was set, and no other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		HTTPHeader: http.Header{"User-Agent": {"sluice"}},
	})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(maxFrame)
	return conn, nil
}

// socketAddress is where the websockets of an API address are (facts 1.1): on a
// host of their own at the exchange, beside the API anywhere else.
func socketAddress(base string) string {
	u, err := url.Parse(base)
	if err == nil && u.Host == "api.coinex.com" {
		return u.Scheme + "://socket.coinex.com"
	}
	return base
}

// session is one connection.
type session struct {
	client *Client
	conn   *websocket.Conn
	topics map[string]topic // confirmed, by the method of their updates
	held   []message        // updates that came before the whole
	weight int              // of held, in bytes
	gz     gzip.Reader
	id     int64        // of the last request before live
	ponged atomic.Int64 // id of the last answer in live
}

// open signs in and subscribes. No data counts before its subscription is
// confirmed (FAQ Q9).
func (s *session) open(ctx context.Context, topics []topic) error {
	ctx, cancel := context.WithTimeout(ctx, s.client.timeout)
	defer cancel()
	now, err := s.client.Now(ctx)
	if err != nil {
		return err
	}
	if err := s.request(ctx, "server.sign", s.client.keys.signSocket(now)); err != nil {
		if _, answered := errors.AsType[*Rejection](err); answered {
			s.client.clock.forget() // it does not say whether it was the key or the timestamp
		}
		return err
	}
	for _, t := range topics {
		if err := s.request(ctx, t.name+".subscribe", json.RawMessage(t.selection)); err != nil {
			return err
		}
		s.topics[t.name+".update"] = t
	}
	return nil
}

// request asks and waits for the answer. Updates that come meanwhile are held.
func (s *session) request(ctx context.Context, method string, params any) error {
	s.id++
	if err := s.write(ctx, s.id, method, params); err != nil {
		return err
	}
	for {
		m, err := s.read(ctx)
		switch {
		case err != nil:
			return err
		case m.answers && (m.id == s.id || m.code != 0): // some errors name no request
			return m.refusal()
		case s.weight > maxHeld:
			return lost(errors.New("too many updates came before all subscriptions were confirmed"))
		}
		if _, confirmed := s.topics[m.method]; confirmed {
			s.held = append(s.held, m)
			s.weight += len(m.data)
		}
	}
}

// live reads until the connection ends, and keeps it alive meanwhile.
func (s *session) live(ctx context.Context) error {
	var pinger sync.WaitGroup
	defer pinger.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	pinger.Go(func() {
		if err := s.keepAlive(ctx); err != nil {
			cancel(err)
		}
	})
	for {
		m, err := s.read(ctx)
		switch {
		case err != nil:
		case m.answers:
			s.ponged.Store(m.id)
			err = m.refusal()
		default:
			err = s.take(m)
		}
		if err != nil {
			if _, silent := fault.As(context.Cause(ctx)); silent {
				return context.Cause(ctx)
			}
			return err
		}
	}
}

// take hands over an update of a confirmed topic. There may be others, such as
// notices; they are not for us.
func (s *session) take(m message) error {
	t, ok := s.topics[m.method]
	if !ok {
		return nil
	}
	if err := t.take(m.data); err != nil {
		return unreadable(err)
	}
	return nil
}

// keepAlive pings until ctx ends or an answer is missing.
func (s *session) keepAlive(ctx context.Context) error {
	for id := s.id + 1; ; id++ {
		if !rest(ctx, pingEvery-pongWait) {
			return nil
		}
		if err := s.write(ctx, id, "server.ping", struct{}{}); err != nil {
			return err
		}
		if !rest(ctx, pongWait) {
			return nil
		}
		if s.ponged.Load() != id {
			return lost(fmt.Errorf("no answer to a ping within %v", pongWait))
		}
	}
}

// rest waits, and tells whether ctx let it.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *session) write(ctx context.Context, id int64, method string, params any) error {
	text, err := json.Marshal(struct {
		Method string `json:"method"`
		Params any    `json:"params"`
		ID     int64  `json:"id"`
	}{method, params, id})
	if err != nil {
		return fmt.Errorf("encode %s: %w", method, err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.client.timeout)
	defer cancel()
	if err := s.conn.Write(ctx, websocket.MessageText, text); err != nil {
		return lost(err)
	}
	return nil
}

// read reads one message. The exchange sends gzip in binary frames; plain text
// is taken as well (facts 6).
func (s *session) read(ctx context.Context) (message, error) {
	_, frame, err := s.conn.Read(ctx)
	if err != nil {
		return message{}, lost(err)
	}
	text, err := unpack(&s.gz, frame)
	if err != nil {
		return message{}, unreadable(err)
	}
	m, err := decodeMessage(s.client.keys.scrub(text))
	if err != nil {
		return message{}, unreadable(err)
	}
	return m, nil
}

// unpack ungzips what starts like gzip, up to the bound of a frame.
func unpack(gz *gzip.Reader, frame []byte) ([]byte, error) {
	if !bytes.HasPrefix(frame, []byte{0x1f, 0x8b}) {
		return frame, nil
	}
	if err := gz.Reset(bytes.NewReader(frame)); err != nil {
		return nil, fmt.Errorf("gunzip: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(gz, maxFrame+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("gunzip: %w", err)
	case len(text) > maxFrame:
		return nil, errors.New("gunzip: more than a mebibyte comes out of one frame")
	}
	return text, nil
}

// message is what the exchange says over a websocket: an answer, with the id
// of the request, or an update, with a method.
type message struct {
	answers bool
	id      int64
	code    int
	text    string
	method  string
	data    json.RawMessage
}

func decodeMessage(text []byte) (message, error) {
	o, err := decodeObject(text)
	if err != nil {
		return message{}, err
	}
	var m message
	var code int64
	var errs [4]error
	m.method, errs[0] = o.text("method")
	m.id, errs[1] = o.integer("id")
	code, errs[2] = o.integer("code")
	m.text, errs[3] = o.text("message")
	if err := errors.Join(errs[:]...); err != nil {
		return message{}, err
	}
	m.code, m.text, m.data = int(code), words(m.text), o.field("data")
	m.answers = m.method == ""
	if m.answers && o.field("code") == nil {
		return message{}, errors.New("neither an answer nor an update")
	}
	return m, nil
}

// socketCodes are the exchange's words for what it refuses over a websocket
// (facts 2.6). Spot has them from 20000, futures the same from 30000.
var socketCodes = map[int]struct {
	kind         fault.Kind
	meaning, fix string
}{
	1:    {fault.Invalid, "a parameter is wrong", "report this to the makers of Sluice"},
	2:    {fault.Invalid, "it knows no such method", "report this to the makers of Sluice"},
	1001: {fault.Refused, "sign-in must come first", "it is tried again; if it goes on, report this to the makers of Sluice"},
	1002: {fault.Refused, "the sign-in is refused", "check access id and secret key, the key's age and its IP binding; sluice doctor tells these apart"},
	3001: {fault.Unavailable, "the service timed out", "it is tried again"},
	3002: {fault.Unavailable, "too many requests", "it is tried again more slowly"},
	4001: {fault.Unavailable, "internal error", "it is tried again"},
	4002: {fault.Unavailable, "the service is unavailable for now", "it is tried again"},
}

// refusal is the fault for an answer, or nil for code 0.
func (m message) refusal() error {
	if m.code == 0 {
		return nil
	}
	cause := &Rejection{Code: m.code, Message: m.text}
	name := fmt.Sprintf("exchange_code_%d", m.code)
	if row, known := socketCodes[m.code%10000]; known && (m.code/10000 == 2 || m.code/10000 == 3) {
		return fault.New(row.kind, name, fmt.Sprintf("the exchange's websocket answered code %d: %s", m.code, row.meaning), row.fix).Because(cause)
	}
	return fault.New(fault.Refused, name, fmt.Sprintf("the exchange's websocket answered code %d, which is not in its documentation", m.code),
		"read the exchange's message in the log; ask CoinEx support if it does not explain itself").Because(cause)
}

// lost is the fault for a connection that ended.
func lost(err error) error {
	return fault.New(fault.Unavailable, "exchange_socket_lost", "the websocket connection to the exchange is gone",
		"nothing: it is made again by itself, and balances are read afresh").Because(err)
}

// decodeSpotPush reads a balance.update of the spot wallet. Rows with a
// margin_market belong to margin accounts, which hold the same assets.
func decodeSpotPush(data json.RawMessage) ([]exchange.Balance, error) {
	rows, err := pushed(data, "balance_list")
	if err != nil {
		return nil, err
	}
	var out []exchange.Balance
	for _, row := range rows {
		market, err := row.text("margin_market")
		if err != nil {
			return nil, err
		}
		if market != "" {
			continue
		}
		b, err := decodeBalance(row)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

func decodeFuturesPush(data json.RawMessage) ([]exchange.FuturesBalance, error) {
	rows, err := pushed(data, "balance_list")
	if err != nil {
		return nil, err
	}
	out := make([]exchange.FuturesBalance, len(rows))
	for i, row := range rows {
		if out[i], err = decodeFutures(row); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func decodePositionPush(data json.RawMessage) ([]exchange.Position, error) {
	o, err := decodeObject(data)
	if err != nil {
		return nil, err
	}
	row, err := decodeObject(o.field("position"))
	if err != nil {
		return nil, fmt.Errorf("position: %w", err)
	}
	p, err := decodePosition(row)
	if err != nil {
		return nil, err
	}
	if p.Event, err = o.text("event"); err != nil {
		return nil, err
	}
	return []exchange.Position{p}, nil
}

// pushed is the list inside an update's data.
func pushed(data json.RawMessage, name string) ([]object, error) {
	o, err := decodeObject(data)
	if err != nil {
		return nil, err
	}
	return decodeArray(o.field(name))
}
