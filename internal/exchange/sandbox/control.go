package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/fault"
	"sluice/internal/money"
)

// State is everything that the sandbox shows of itself. Secret keys are not
// in it.
type State struct {
	Clock       Clock          `json:"clock"`
	Accounts    []AccountState `json:"accounts"`
	Withdrawals []Withdrawal   `json:"withdrawals"` // oldest first
	Deposits    []Deposit      `json:"deposits"`    // oldest first
	Requests    map[string]int `json:"requests"`    // seen since the start, by endpoint, refused ones too
	Faults      []Fault        `json:"faults"`      // still waiting, next first
	Held        int            `json:"held"`        // requests that accept_late holds back just now
	Sockets     []Socket       `json:"sockets"`     // open websockets, oldest first

	Prices      map[string]decimal.Decimal `json:"prices"` // by market
	LongPeriods []LongPeriod               `json:"long_periods"`
	Maintenance *Maintenance               `json:"maintenance"` // nil for none
}

// Socket is one open websocket. A list of what it subscribed to is nil for
// nothing and empty for everything.
type Socket struct {
	Market    string   `json:"market"`  // spot or futures
	Account   string   `json:"account"` // "" until it has signed
	Balances  []string `json:"balances"`
	Positions []string `json:"positions"`
	Notices   bool     `json:"notices"`
}

// Clock is the exchange's clock.
type Clock struct {
	Now    time.Time `json:"now"`
	Offset Duration  `json:"offset"` // ahead of the clock under it
	Auto   bool      `json:"auto"`   // withdrawals move on by themselves
}

// AccountState is one account.
type AccountState struct {
	Account   string                     `json:"account"`
	AccessIDs []string                   `json:"access_ids"`
	Balances  map[string]decimal.Decimal `json:"balances"` // spot
	Whitelist []Entry                    `json:"whitelist"`
	Futures   map[string]FuturesBalance  `json:"futures"`
	Margin    []MarginBalance            `json:"margin"`
	Financial map[string]decimal.Decimal `json:"financial"`
	Positions []Position                 `json:"positions"`
}

// MarginBalance is what the margin wallet of one market has of one asset.
type MarginBalance struct {
	Market    string          `json:"market"`
	Asset     string          `json:"ccy"`
	Available decimal.Decimal `json:"available"`
}

// State returns a copy of everything.
//
// Reading cannot fail. Should the state file be unwritable just then, the log
// says so, and the next change returns the error.
func (s *Sandbox) State() State {
	var out State
	_ = s.do(func(now time.Time) error {
		out = State{
			Clock:       Clock{Now: now, Offset: s.state.Offset, Auto: s.auto},
			Accounts:    []AccountState{},
			Withdrawals: s.copyWithdrawals(),
			Deposits:    []Deposit{},
			Requests:    maps.Clone(s.requests),
			Faults:      []Fault{},
			Held:        s.held,
			Sockets:     []Socket{},
			Prices:      maps.Clone(s.state.Prices),
			LongPeriods: append([]LongPeriod{}, s.state.LongPeriods...),
			Maintenance: s.state.Maintenance,
		}
		for _, d := range s.state.Deposits {
			out.Deposits = append(out.Deposits, *d)
		}
		for _, k := range s.sockets {
			out.Sockets = append(out.Sockets, k.show())
		}
		for _, a := range s.state.Accounts {
			shown := AccountState{
				Account:   a.Name,
				AccessIDs: []string{},
				Balances:  maps.Clone(a.Balances),
				Whitelist: append([]Entry{}, a.Whitelist...),
				Futures:   copyOf(a.Futures),
				Margin:    []MarginBalance{},
				Financial: copyOf(a.Financial),
				Positions: []Position{},
			}
			for _, market := range slices.Sorted(maps.Keys(a.Margin)) {
				for _, ccy := range slices.Sorted(maps.Keys(a.Margin[market])) {
					shown.Margin = append(shown.Margin, MarginBalance{market, ccy, a.Margin[market][ccy]})
				}
			}
			for _, p := range a.Positions {
				shown.Positions = append(shown.Positions, *p)
			}
			for _, k := range a.Keys {
				shown.AccessIDs = append(shown.AccessIDs, k.AccessID)
			}
			out.Accounts = append(out.Accounts, shown)
		}
		for _, f := range s.state.Faults {
			shown := *f
			shown.Match = maps.Clone(f.Match)
			out.Faults = append(out.Faults, shown)
		}
		return nil
	})
	return out
}

// copyOf copies a map, and nothing to an empty one.
func copyOf[V any](m map[string]V) map[string]V {
	out := map[string]V{}
	maps.Copy(out, m)
	return out
}

// show is the connection as the state has it.
func (k *socket) show() Socket {
	out := Socket{Market: string(k.market), Notices: k.notices}
	if k.owner != nil {
		out.Account = k.owner.Name
	}
	if k.balances != nil {
		out.Balances = append([]string{}, k.balances.names...)
	}
	if k.positions != nil {
		out.Positions = append([]string{}, k.positions.names...)
	}
	return out
}

// Withdrawals returns a copy of every withdrawal of every account, oldest first.
func (s *Sandbox) Withdrawals() []Withdrawal {
	var out []Withdrawal
	_ = s.do(func(time.Time) error {
		out = s.copyWithdrawals()
		return nil
	})
	return out
}

func (s *Sandbox) copyWithdrawals() []Withdrawal {
	out := make([]Withdrawal, len(s.state.Withdrawals))
	for i, w := range s.state.Withdrawals {
		out[i] = *w
	}
	return out
}

// ClearFaults empties the queue of faults. Rows keep their quirks.
func (s *Sandbox) ClearFaults() error {
	return s.do(func(time.Time) error {
		s.state.Faults = nil
		s.dirty = true
		return nil
	})
}

// find returns an account by name; "" is the default one.
func (s *Sandbox) find(name string) (*account, error) {
	if name == "" {
		name = DefaultAccount
	}
	if a := s.state.account(name); a != nil {
		return a, nil
	}
	return nil, fault.New(fault.NotFound, "sandbox_account_unknown",
		fmt.Sprintf("there is no account %q", name), "make it by giving it a key")
}

// AddKey gives an account an API key. An account that does not exist is made,
// with nothing in it. A key with the same access id in that account is replaced.
func (s *Sandbox) AddKey(accountName string, k Key) error {
	if k.AccessID == "" || k.SecretKey == "" {
		return fault.New(fault.Invalid, "sandbox_key_malformed", "a key has an access id and a secret key", "send both")
	}
	return s.do(func(time.Time) error {
		if accountName == "" {
			accountName = DefaultAccount
		}
		if owner, _ := s.key(k.AccessID); owner != nil && owner.Name != accountName {
			return fault.New(fault.Conflict, "sandbox_key_taken",
				fmt.Sprintf("account %q has a key with this access id", owner.Name), "choose another access id")
		}
		a := s.state.account(accountName)
		if a == nil {
			a = &account{Name: accountName, Balances: map[string]decimal.Decimal{}}
			s.state.Accounts = append(s.state.Accounts, a)
		}
		a.Keys = slices.DeleteFunc(a.Keys, func(old Key) bool { return old.AccessID == k.AccessID })
		a.Keys = append(a.Keys, k)
		s.dirty = true
		return nil
	})
}

// AddWhitelist adds entries to an account's API whitelist, all or none. An
// entry that is there already stays there once.
func (s *Sandbox) AddWhitelist(accountName string, entries ...Entry) error {
	return s.changeWhitelist(accountName, entries, nil)
}

// RemoveWhitelist takes entries off an account's API whitelist, all or none.
func (s *Sandbox) RemoveWhitelist(accountName string, entries ...Entry) error {
	return s.changeWhitelist(accountName, nil, entries)
}

func (s *Sandbox) changeWhitelist(accountName string, add, remove []Entry) error {
	return s.do(func(time.Time) error {
		a, err := s.find(accountName)
		if err != nil {
			return err
		}
		list := slices.Clone(a.Whitelist)
		for _, e := range add {
			if e.Method == "" {
				e.Method = OnChain
			}
			if err := s.checkEntry(e); err != nil {
				return err
			}
			if !slices.Contains(list, e) {
				list = append(list, e)
			}
		}
		for _, e := range remove {
			if e.Method == "" {
				e.Method = OnChain
			}
			i := slices.Index(list, e)
			if i < 0 {
				return fault.New(fault.NotFound, "sandbox_entry_unknown",
					fmt.Sprintf("%s is not listed for %s %s", e.Address, e.Asset, e.Chain), "send the entry byte for byte as the state shows it")
			}
			list = slices.Delete(list, i, i+1)
		}
		a.Whitelist = list
		s.dirty = true
		return nil
	})
}

// checkEntry refuses an entry that no withdrawal could ever match. Addresses
// are not looked at: any text may stand for one.
func (s *Sandbox) checkEntry(e Entry) error {
	no := func(detail, fix string) error {
		return fault.New(fault.Invalid, "sandbox_entry_malformed", detail, fix)
	}
	coin := s.state.asset(e.Asset)
	switch {
	case e.Method != OnChain && e.Method != InterUser:
		return no(fmt.Sprintf("there is no method %q", e.Method), "use on_chain or inter_user")
	case e.Address == "":
		return no("an entry has an address", "send address")
	case coin == nil:
		return no(fmt.Sprintf("the sandbox has no asset %q", e.Asset), "use an asset of GET /v2/assets/all-deposit-withdraw-config")
	case e.Method == InterUser && e.Chain != "":
		return no("an inter_user entry has no chain", "leave chain out")
	case e.Method == OnChain && coin.chain(e.Chain) == nil:
		return no(fmt.Sprintf("%s has no chain %q", e.Asset, e.Chain), "use a chain code of GET /v2/assets/deposit-withdraw-config")
	}
	return nil
}

// SetBalance sets what an account has available of an asset in its spot
// wallet, as a plain decimal, and pushes it. It writes no history row.
func (s *Sandbox) SetBalance(accountName, assetName, amount string) error {
	return s.setBalances(accountName, map[string]string{assetName: amount}, nil)
}

func (s *Sandbox) setBalances(accountName string, spot, financial map[string]string) error {
	read := func(set map[string]string) (map[string]decimal.Decimal, error) {
		parsed := map[string]decimal.Decimal{}
		for name, text := range set {
			d, err := quantity(text)
			if err != nil {
				return nil, err
			}
			parsed[name] = d
		}
		return parsed, nil
	}
	inSpot, err := read(spot)
	if err != nil {
		return err
	}
	inFinancial, err := read(financial)
	if err != nil {
		return err
	}
	return s.do(func(now time.Time) error {
		a, err := s.find(accountName)
		if err != nil {
			return err
		}
		for _, set := range []map[string]decimal.Decimal{inSpot, inFinancial} {
			for name := range set {
				if err := s.knowsAsset(name); err != nil {
					return err
				}
			}
		}
		maps.Copy(a.Balances, inSpot)
		for _, name := range slices.Sorted(maps.Keys(inSpot)) {
			s.pushSpot(a, name, now)
		}
		if a.Financial == nil {
			a.Financial = map[string]decimal.Decimal{}
		}
		maps.Copy(a.Financial, inFinancial)
		s.dirty = true
		return nil
	})
}

// quantity reads an amount that may be zero.
func quantity(text string) (decimal.Decimal, error) {
	d, err := money.Parse(text)
	if fault.Is(err, "amount_not_positive") {
		return decimal.Zero, nil
	}
	return d, err
}

// ConfigChange changes the terms of an asset or of one of its chains; what is
// nil stays. Without a Chain the switches are those of the asset.
type ConfigChange struct {
	Asset                string  `json:"asset"`
	Chain                string  `json:"chain"`
	DepositEnabled       *bool   `json:"deposit_enabled"`
	WithdrawEnabled      *bool   `json:"withdraw_enabled"`
	InterTransferEnabled *bool   `json:"inter_transfer_enabled"` // asset only
	WithdrawalFee        *string `json:"withdrawal_fee"`         // chain only, in the asset
	MinWithdrawAmount    *string `json:"min_withdraw_amount"`    // chain only, net
	WithdrawalPrecision  *int32  `json:"withdrawal_precision"`   // chain only, 0 to 18
}

// Configure changes the terms of deposits and withdrawals from now on.
func (s *Sandbox) Configure(change ConfigChange) error {
	no := func(detail, fix string) error {
		return fault.New(fault.Invalid, "sandbox_config_malformed", detail, fix)
	}
	return s.do(func(time.Time) error {
		coin := s.state.asset(change.Asset)
		if coin == nil {
			return no(fmt.Sprintf("the sandbox has no asset %q", change.Asset), "use an asset of GET /v2/assets/all-deposit-withdraw-config")
		}
		if change.Chain == "" {
			if change.WithdrawalFee != nil || change.MinWithdrawAmount != nil || change.WithdrawalPrecision != nil {
				return no("fee, minimum and precision belong to a chain", "send chain")
			}
			assign(&coin.Asset.DepositEnabled, change.DepositEnabled)
			assign(&coin.Asset.WithdrawEnabled, change.WithdrawEnabled)
			assign(&coin.Asset.InterTransferEnabled, change.InterTransferEnabled)
			s.dirty = true
			return nil
		}
		ch := coin.chain(change.Chain)
		switch {
		case ch == nil:
			return no(fmt.Sprintf("%s has no chain %q", change.Asset, change.Chain), "use a chain code of GET /v2/assets/deposit-withdraw-config")
		case change.InterTransferEnabled != nil:
			return no("inter_transfer_enabled belongs to the asset", "leave chain out")
		case change.WithdrawalPrecision != nil && (*change.WithdrawalPrecision < 0 || *change.WithdrawalPrecision > money.MaxDecimals):
			return no("withdrawal_precision is a number from 0 to 18", "send one of those")
		}
		changed := *ch // all or nothing: a bad minimum must not leave a new fee behind
		assign(&changed.DepositEnabled, change.DepositEnabled)
		assign(&changed.WithdrawEnabled, change.WithdrawEnabled)
		assign(&changed.WithdrawalPrecision, change.WithdrawalPrecision)
		if err := assignQuantity(&changed.WithdrawalFee, change.WithdrawalFee); err != nil {
			return err
		}
		if err := assignQuantity(&changed.MinWithdrawAmount, change.MinWithdrawAmount); err != nil {
			return err
		}
		*ch = changed
		s.dirty = true
		return nil
	})
}

func assign[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func assignQuantity(to *decimal.Decimal, from *string) (err error) {
	if from != nil {
		*to, err = quantity(*from)
	}
	return err
}

// controlHandler serves /_sandbox/: each call is one method of Sandbox, and
// each that changes something answers with the whole state.
func (s *Sandbox) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_sandbox/state", func(w http.ResponseWriter, r *http.Request) { s.writeState(w, nil) })
	mux.HandleFunc("DELETE /_sandbox/faults", func(w http.ResponseWriter, r *http.Request) { s.writeState(w, s.ClearFaults()) })
	mux.HandleFunc("POST /_sandbox/faults", controlCall(s, s.Inject))
	mux.HandleFunc("POST /_sandbox/config", controlCall(s, s.Configure))
	mux.HandleFunc("POST /_sandbox/clock", controlCall(s, s.driveClock))
	mux.HandleFunc("POST /_sandbox/whitelist", controlCall(s, func(in struct {
		Account string  `json:"account"`
		Add     []Entry `json:"add"`
		Remove  []Entry `json:"remove"`
	}) error {
		return s.changeWhitelist(in.Account, in.Add, in.Remove)
	}))
	mux.HandleFunc("POST /_sandbox/balances", controlCall(s, func(in struct {
		Account   string            `json:"account"`
		Set       map[string]string `json:"set"` // spot
		Financial map[string]string `json:"financial"`
	}) error {
		return s.setBalances(in.Account, in.Set, in.Financial)
	}))
	mux.HandleFunc("POST /_sandbox/futures", controlCall(s, s.SetFutures))
	mux.HandleFunc("POST /_sandbox/positions", controlCall(s, s.SetPosition))
	mux.HandleFunc("POST /_sandbox/deposits", controlCall(s, s.Deposit))
	mux.HandleFunc("POST /_sandbox/maintenance", controlCall(s, s.Announce))
	mux.HandleFunc("POST /_sandbox/prices", controlCall(s, func(in struct {
		Set map[string]string `json:"set"`
	}) error {
		return s.setPrices(in.Set)
	}))
	mux.HandleFunc("POST /_sandbox/limits", controlCall(s, func(in struct {
		LongPeriod string `json:"long_period"`
		Remaining  int    `json:"remaining"`
	}) error {
		return s.SetLongPeriod(in.LongPeriod, in.Remaining)
	}))
	mux.HandleFunc("DELETE /_sandbox/limits", func(w http.ResponseWriter, r *http.Request) { s.writeState(w, s.ClearLongPeriods()) })
	mux.HandleFunc("DELETE /_sandbox/sockets", func(w http.ResponseWriter, r *http.Request) {
		s.DropSockets()
		s.writeState(w, nil)
	})
	mux.HandleFunc("POST /_sandbox/keys", controlCall(s, func(in struct {
		Account string `json:"account"`
		Key
	}) error {
		return s.AddKey(in.Account, in.Key)
	}))
	mux.HandleFunc("POST /_sandbox/withdrawals", controlCall(s, func(in struct {
		ID     int64  `json:"withdraw_id"`
		Status Status `json:"status"`
	}) error {
		return s.SetStatus(in.ID, in.Status)
	}))
	return mux
}

// clockChange drives the clock; what is nil stays.
type clockChange struct {
	Auto    *bool     `json:"auto"`
	Offset  *Duration `json:"offset"`
	Advance *Duration `json:"advance"`
	Step    bool      `json:"step"`
}

func (s *Sandbox) driveClock(c clockChange) error {
	if c.Auto == nil && c.Offset == nil && c.Advance == nil && !c.Step {
		return fault.New(fault.Invalid, "sandbox_clock_malformed", "nothing to do to the clock",
			`send advance, offset, step or auto, such as {"advance":"30s"}`)
	}
	if c.Auto != nil {
		if err := s.SetAuto(*c.Auto); err != nil {
			return err
		}
	}
	if c.Offset != nil {
		if err := s.SetOffset(time.Duration(*c.Offset)); err != nil {
			return err
		}
	}
	if c.Advance != nil {
		if err := s.Advance(time.Duration(*c.Advance)); err != nil {
			return err
		}
	}
	if c.Step {
		return s.Step()
	}
	return nil
}

// controlCall reads one strict JSON object, acts, and answers with the state. An
// unknown field is refused: a misspelt one would leave a test that proves
// nothing.
func controlCall[T any](s *Sandbox, act func(T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in T
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		d.DisallowUnknownFields()
		err := d.Decode(&in)
		if err == nil {
			if _, more := d.Token(); !errors.Is(more, io.EOF) {
				err = errors.New("there is more after the JSON object")
			}
		}
		if err != nil {
			writeError(w, fault.New(fault.Invalid, "sandbox_control_malformed",
				fmt.Sprintf("the body of %s %s does not fit: %v", r.Method, r.URL.Path, err),
				"docs/sandbox.md lists the fields"))
			return
		}
		s.writeState(w, act(in))
	}
}

// writeState answers a control call: the error of the act, or the state after it.
func (s *Sandbox) writeState(w http.ResponseWriter, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, s.State())
}

func writeError(w http.ResponseWriter, err error) {
	status := http.StatusBadRequest
	out := map[string]string{"error": err.Error()}
	if e, ok := fault.As(err); ok {
		out = map[string]string{"code": e.Code, "error": e.Detail, "fix": e.Fix}
		switch e.Kind {
		case fault.NotFound:
			status = http.StatusNotFound
		case fault.Conflict, fault.Refused:
			status = http.StatusConflict
		case fault.Unavailable:
			status = http.StatusInternalServerError
		}
	}
	writeJSON(w, status, out)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the caller has gone; nobody is left to tell
}
