package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/shopspring/decimal"

	"sluice/internal/fault"
)

// state is everything that survives a restart, in the form of the state file.
type state struct {
	Version     int           `json:"version"`
	Offset      Duration      `json:"offset"` // exchange clock minus the clock under it
	NextID      int64         `json:"next_id"`
	Accounts    []*account    `json:"accounts"`
	Assets      []*asset      `json:"assets"`
	Withdrawals []*Withdrawal `json:"withdrawals"` // oldest first
	Deposits    []*Deposit    `json:"deposits,omitempty"`
	Faults      []*Fault      `json:"faults"` // next first

	Prices       map[string]decimal.Decimal `json:"prices,omitempty"` // by market
	LongPeriods  []LongPeriod               `json:"long_periods,omitempty"`
	Maintenance  *Maintenance               `json:"maintenance,omitempty"`
	PositionsYet int64                      `json:"positions_yet,omitempty"` // made since the start
}

const stateVersion = 1

// account is one exchange account with its wallets and its own API whitelist
// (facts 3.5). The maps of the other wallets are nil until something is in them.
type account struct {
	Name      string                     `json:"name"`
	Keys      []Key                      `json:"keys"`
	Balances  map[string]decimal.Decimal `json:"balances"` // spot
	Whitelist []Entry                    `json:"whitelist"`
	History   []change                   `json:"history"` // oldest first

	Futures   map[string]FuturesBalance             `json:"futures,omitempty"`
	Margin    map[string]map[string]decimal.Decimal `json:"margin,omitempty"` // by market, then asset
	Financial map[string]decimal.Decimal            `json:"financial,omitempty"`
	Positions []*Position                           `json:"positions,omitempty"`
	Transfers []transferred                         `json:"transfers,omitempty"` // oldest first
	Renewed   map[string]int                        `json:"renewed,omitempty"`   // deposit addresses given up, by asset and chain
}

// change is one row of the account history (facts 4.3).
type change struct {
	CreatedAt time.Time       `json:"created_at"`
	Asset     string          `json:"ccy"`
	Type      string          `json:"type"`
	Balance   decimal.Decimal `json:"balance"` // after the change
	Change    decimal.Decimal `json:"change"`
}

// book changes a spot balance, writes the history row for it and pushes it to
// the websockets.
func (s *Sandbox) book(a *account, assetName, kind string, amount decimal.Decimal, now time.Time) {
	after := a.Balances[assetName].Add(amount)
	a.Balances[assetName] = after
	a.History = append(a.History, change{CreatedAt: now, Asset: assetName, Type: kind, Balance: after, Change: amount})
	s.pushSpot(a, assetName, now)
}

// Key is one API key (facts 1.6). A zero time means no bound.
type Key struct {
	AccessID   string    `json:"access_id"`
	SecretKey  string    `json:"secret_key"`
	IPs        []string  `json:"ips,omitempty"`        // when given, only these may use the key: else 4007
	ActiveFrom time.Time `json:"active_from,omitzero"` // before this the key is unknown: 4005
	ExpiresAt  time.Time `json:"expires_at,omitzero"`  // from this on the key is unknown: 4005
	Forbidden  bool      `json:"forbidden,omitempty"`  // the user is blocked: 4011
}

// Entry is one line of an account's API withdrawal whitelist. A withdrawal
// matches it only byte for byte.
type Entry struct {
	Method  string `json:"method"` // "on_chain" (also when empty) or "inter_user"
	Asset   string `json:"asset"`
	Chain   string `json:"chain"` // "" for inter_user
	Address string `json:"address"`
	Memo    string `json:"memo"`
}

// The two ways a withdrawal travels (facts 3.1).
const (
	OnChain   = "on_chain"
	InterUser = "inter_user"
)

// asset is one object of the deposit and withdrawal configuration (facts 4.1).
type asset struct {
	Asset  assetSwitches `json:"asset"`
	Chains []*chain      `json:"chains"`
}

type assetSwitches struct {
	Ccy                  string `json:"ccy"`
	DepositEnabled       bool   `json:"deposit_enabled"`
	WithdrawEnabled      bool   `json:"withdraw_enabled"`
	InterTransferEnabled bool   `json:"inter_transfer_enabled"`
	IsST                 bool   `json:"is_st"`
}

// chain has the wire's types: amounts are strings, counts are numbers, flags
// are booleans, whatever the table in the documentation says.
type chain struct {
	Chain                     string          `json:"chain"`
	MinDepositAmount          decimal.Decimal `json:"min_deposit_amount"`
	MinWithdrawAmount         decimal.Decimal `json:"min_withdraw_amount"`
	DepositEnabled            bool            `json:"deposit_enabled"`
	WithdrawEnabled           bool            `json:"withdraw_enabled"`
	DepositDelayMinutes       int             `json:"deposit_delay_minutes"`
	SafeConfirmations         int             `json:"safe_confirmations"`
	IrreversibleConfirmations int             `json:"irreversible_confirmations"`
	DeflationRate             decimal.Decimal `json:"deflation_rate"`
	WithdrawalFee             decimal.Decimal `json:"withdrawal_fee"`
	WithdrawalPrecision       int32           `json:"withdrawal_precision"`
	Memo                      string          `json:"memo"`
	MemoRequired              bool            `json:"is_memo_required_for_deposit"`
	ExplorerAssetURL          string          `json:"explorer_asset_url"`
}

func (a *asset) chain(name string) *chain {
	for _, c := range a.Chains {
		if c.Chain == name {
			return c
		}
	}
	return nil
}

func (st *state) account(name string) *account {
	for _, a := range st.Accounts {
		if a.Name == name {
			return a
		}
	}
	return nil
}

func (st *state) asset(name string) *asset {
	for _, a := range st.Assets {
		if a.Asset.Ccy == name {
			return a
		}
	}
	return nil
}

func (st *state) withdrawal(id int64) *Withdrawal {
	for _, w := range st.Withdrawals {
		if w.ID == id {
			return w
		}
	}
	return nil
}

// newState is a fresh exchange with one funded account. Its whitelist is
// empty, as on the real exchange: the first lesson is code 3310.
func newState() state {
	coin := func(name string, chains ...*chain) *asset {
		return &asset{
			Asset:  assetSwitches{Ccy: name, DepositEnabled: true, WithdrawEnabled: true, InterTransferEnabled: true},
			Chains: chains,
		}
	}
	on := func(assetName, name, fee, minimum string, precision int32, safe int) *chain {
		return &chain{
			Chain:                     name,
			MinDepositAmount:          decimal.RequireFromString(minimum),
			MinWithdrawAmount:         decimal.RequireFromString(minimum),
			DepositEnabled:            true,
			WithdrawEnabled:           true,
			SafeConfirmations:         safe,
			IrreversibleConfirmations: 2 * safe,
			WithdrawalFee:             decimal.RequireFromString(fee),
			WithdrawalPrecision:       precision,
			ExplorerAssetURL:          explorer + "token/" + assetName,
		}
	}
	xrp := on("XRP", "XRP", "0.25", "5", 6, 1)
	xrp.MemoRequired = true
	return state{
		Version: stateVersion,
		NextID:  31200001,
		Prices:  startPrices(),
		Accounts: []*account{{
			Name: DefaultAccount,
			Keys: []Key{{AccessID: AccessID, SecretKey: SecretKey}},
			Balances: map[string]decimal.Decimal{
				"USDT": decimal.NewFromInt(1_000_000),
				"BTC":  decimal.NewFromInt(25),
				"ETH":  decimal.NewFromInt(500),
				"TRX":  decimal.NewFromInt(500_000),
				"SOL":  decimal.NewFromInt(1_000),
				"XRP":  decimal.NewFromInt(200_000),
			},
		}},
		Assets: []*asset{
			coin("BTC", on("BTC", "BTC", "0.0002", "0.0005", 8, 2)),
			coin("ETH", on("ETH", "ERC20", "0.0012", "0.005", 8, 12)),
			coin("SOL", on("SOL", "SOL", "0.008", "0.05", 8, 32)),
			coin("TRX", on("TRX", "TRC20", "1.5", "10", 6, 19)),
			coin("USDT",
				on("USDT", "TRC20", "2.4", "5", 6, 19),
				on("USDT", "ERC20", "4.5", "10", 6, 12),
				on("USDT", "BSC", "0.5", "5", 8, 15),
				on("USDT", "SOL", "1", "5", 6, 32)),
			coin("XRP", xrp),
		},
	}
}

// load replaces the state by the one in the file. A missing file is a fresh
// start, not an error.
func (st *state) load(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unusable := fault.New(fault.Invalid, "sandbox_state_unusable",
		fmt.Sprintf("the sandbox cannot use its state file %s", path),
		"correct the path, or remove the file to start afresh")
	if err != nil {
		return unusable.Because(err)
	}
	var loaded state
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&loaded); err != nil {
		return unusable.Because(err)
	}
	if loaded.Version != stateVersion {
		return unusable.Because(fmt.Errorf("version %d, want %d", loaded.Version, stateVersion))
	}
	if loaded.Prices == nil { // the file of a sandbox that had no markets yet
		loaded.Prices = startPrices()
	}
	*st = loaded
	return nil
}

// save writes the state file if there is one and something changed. The file
// is renamed into place, so a crash leaves the old state or the new one, never
// half of each. It holds test keys, so only its owner may read it.
func (s *Sandbox) save() error {
	if !s.dirty || s.options.StatePath == "" {
		s.dirty = false
		return nil
	}
	if err := writeState(s.options.StatePath, &s.state); err != nil {
		return fault.New(fault.Unavailable, "sandbox_state_not_saved",
			fmt.Sprintf("the sandbox cannot write its state file %s", s.options.StatePath),
			"make the directory and give this user the right to write in it").Because(err)
	}
	s.dirty = false
	return nil
}

func writeState(path string, st *state) (err error) {
	b, err := json.MarshalIndent(st, "", " ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
