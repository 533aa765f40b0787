package whitelist_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/whitelist"
)

// Addresses that stand in specifications, explorers and well-known donations.
var known = []struct {
	chain, address string
	// sum says that the form has a checksum, so that every slip of one character
	// must be noticed; alphabet is what the slips are made of.
	sum bool
}{
	{"ERC20", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", true}, // EIP-55
	{"BSC", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359", true},   // EIP-55
	{"AVA_C", "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB", true}, // EIP-55
	{"CSC", "0x52908400098527886E0F7030069857D2E4169EE7", false},  // EIP-55, all capitals: no checksum
	{"ARBITRUM", "0xde709f2102306220921060314715629080e2fb77", false},
	{"TRC20", "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", true},
	{"TRC20", "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", true},                                  // the USDT contract
	{"BTC", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", true},                                    // the first block
	{"BTC", "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", true},                                    // BIP-13
	{"BTC", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", true},                            // BIP-173
	{"BTC", "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", true},                            // BIP-173
	{"BTC", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0", true},        // BIP-350
	{"LTC", "ltc1qw508d6qejxtdg4y5r3zarvary0c5xw7kgmn4n9", true},                           // BIP-173's key under ltc
	{"LTC", "LVg2kJoFNg45Nbpy53h7Fe1wKyeXVRhMH9", true},                                    //
	{"DOGE", "DH5yaieqoZN36fDVciNyRueRGvGLR3mr7L", true},                                   // Dogecoin's own donations
	{"DASH", "XpESxaUmonkq8RaLLp46Brx2K39ggQe226", true},                                   // Dash documentation
	{"BCH", "bitcoincash:qpm2qsznhks23z7629mms6s4cwef74vcwvy22gdx6a", true},                // CashAddr
	{"BCH", "qpm2qsznhks23z7629mms6s4cwef74vcwvy22gdx6a", true},                            // CashAddr
	{"BCH", "bitcoincash:ppm2qsznhks23z7629mms6s4cwef74vcwvn0h829pq", true},                // CashAddr
	{"BCH", "1BpEi6DfDAUFd7GtittLSdBeYJvcoaVggu", true},                                    // CashAddr, the old form
	{"XRP", "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", true},                                    // the genesis account
	{"XRP", "rrrrrrrrrrrrrrrrrrrrBZbvji", true},                                            // ACCOUNT_ONE
	{"XLM", "GA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJVSGZ", true},              // SEP-23
	{"XLM", "MA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJVAAAAAAAAAAAAAJLK", true}, // SEP-23
	{"SOL", "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA", false},                          // the token program
	{"SOL", "11111111111111111111111111111111", false},                                     // the system program
	{"TON", "EQCxE6mUtQJKFnGfaROTKOt1lZbDiiX1kCixRv7Nw2Id_sDs", true},                      // the USDT contract
	{"TON", "-1:3333333333333333333333333333333333333333333333333333333333333333", false},  // the elector
	{"ATOM", "cosmos1fl48vsnmsdzcv85q5d2q4z5ajdha8yu34mf0eh", true},
	{"ADA", "addr1vpu5vlrf4xkxv2qpwngf6cjhtw542ayty80v8dyr49rf5eg0yu80w", false}, // CIP-19; not a chain we check
	{"NEWCHAIN", "whatever.name", false},
}

func TestKnownAddressesPass(t *testing.T) {
	for _, k := range known {
		if err := whitelist.CheckAddress(exchange.OnChain, "COIN", k.chain, k.address, ""); err != nil {
			t.Errorf("%s %s: %v", k.chain, k.address, err)
		}
	}
}

// One wrong, missing, doubled or swapped character in an address with a
// checksum never passes.
func TestOneSlipIsNoticed(t *testing.T) {
	const alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, k := range known {
		if !k.sum {
			continue
		}
		slips := map[string]bool{}
		for i := range k.address {
			for _, c := range alphabet {
				slips[k.address[:i]+string(c)+k.address[i+1:]] = true
			}
			slips[k.address[:i]+k.address[i+1:]] = true
			slips[k.address[:i]+k.address[i:i+1]+k.address[i:]] = true
			if i > 0 {
				slips[k.address[:i-1]+k.address[i:i+1]+k.address[i-1:i]+k.address[i+1:]] = true
			}
		}
		delete(slips, k.address)
		if k.chain == "BCH" {
			// Without its prefix it is the same address.
			delete(slips, strings.TrimPrefix(k.address, "bitcoincash:"))
		}
		for s := range slips {
			err := whitelist.CheckAddress(exchange.OnChain, "COIN", k.chain, s, "")
			if !fault.Is(err, "address_malformed") {
				t.Errorf("%s %s passes as a slip of %s: %v", k.chain, s, k.address, err)
			}
		}
	}
}

func TestRefusedAddresses(t *testing.T) {
	for name, c := range map[string]struct{ chain, address string }{
		"empty":                     {"NEWCHAIN", ""},
		"a space":                   {"NEWCHAIN", "abc def"},
		"a line break":              {"NEWCHAIN", "abc\n"},
		"a look-alike letter":       {"NEWCHAIN", "аbc"},
		"too long":                  {"NEWCHAIN", strings.Repeat("a", 257)},
		"another chain's":           {"TRC20", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"},
		"Bitcoin for Litecoin":      {"LTC", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"},
		"Bitcoin test network":      {"BTC", "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn"},
		"segwit test network":       {"BTC", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"},
		"witness v0 under bech32m":  {"BTC", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kemeawh"}, // BIP-350
		"witness v1 under bech32":   {"BTC", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd"},
		"witness v16":               {"BTC", "BC1SW50QGDZ25J"}, // valid by BIP-350, spendable by anyone
		"upper case 0X":             {"ERC20", "0X5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"},
		"XRP X-address":             {"XRP", "X7AcgcsBL6XDcUb289X4mJ8djcdyKaB5hJDWMArnXr61cqZ"},
		"Stellar secret seed":       {"XLM", "SBU2RRGLXH3E5CQHTD3ODLDF2BWDCYUSSBLLZ5GNW7JXHDIYKXZWHOKR"},
		"Solana with a letter more": {"SOL", "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DAA"},
		"TON test network":          {"TON", "kQAs9VlT6S776tq3unJcP5Ogsj-ELLunLXuOb1EKcOQi47nL"},
	} {
		err := whitelist.CheckAddress(exchange.OnChain, "COIN", c.chain, c.address, "")
		e, ok := fault.As(err)
		if !ok || e.Code != "address_malformed" || e.Kind != fault.Invalid || e.Field != "address" || e.Fix == "" {
			t.Errorf("%s: %v", name, err)
		}
		// A right checksum for the wrong network is another mistake than a slip.
		if strings.Contains(name, "TON test") && !strings.Contains(e.Detail, "test network") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMemos(t *testing.T) {
	xrp, xlm := "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "GA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJVSGZ"
	for _, c := range []struct{ chain, address, memo, code string }{
		{"XRP", xrp, "0", ""},
		{"XRP", xrp, "4294967295", ""},
		{"XRP", xrp, "4294967296", "memo_malformed"},
		{"XRP", xrp, "01", "memo_malformed"},
		{"XRP", xrp, "tag", "memo_malformed"},
		{"XLM", xlm, "customer 42", ""},
		{"XLM", xlm, strings.Repeat("a1", 32), ""},
		{"XLM", xlm, strings.Repeat("é", 15), "memo_malformed"}, // 30 bytes
		{"BTC", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "42", "memo_not_supported"},
		{"ERC20", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "42", "memo_not_supported"},
		{"NEWCHAIN", "name", "any thing", ""},
		{"NEWCHAIN", "name", "a\x00b", "memo_malformed"},
		{"NEWCHAIN", "name", "a\u202eb", "memo_malformed"},
		{"NEWCHAIN", "name", strings.Repeat("m", 129), "memo_malformed"},
	} {
		err := whitelist.CheckAddress(exchange.OnChain, "COIN", c.chain, c.address, c.memo)
		if c.code == "" && err != nil || c.code != "" && !fault.Is(err, c.code) {
			t.Errorf("%s with memo %q: %v, want %q", c.chain, c.memo, err, c.code)
		}
	}
}

func TestUsersOfTheExchange(t *testing.T) {
	for _, good := range []string{"ann@example.com", "a.b+c@mail.example.co.uk", "+8613800138000", "+44 20 7946 0958", "13800138000"} {
		if err := whitelist.CheckAddress(exchange.InterUser, "USDT", "", good, ""); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "ann", "ann@", "@example.com", "ann@example", "ann @example.com", "a@b@c.de", "+", "12", "+86\x00138001", "ann@example.com\n"} {
		if err := whitelist.CheckAddress(exchange.InterUser, "USDT", "", bad, ""); !fault.Is(err, "address_malformed") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Whatever is thrown at it, the answer is yes or a fault, and a fault never
// falls on a chain that is not known for an address of plain characters.
func TestAnyTextGetsAnAnswer(t *testing.T) {
	chains := []string{"ERC20", "TRC20", "BTC", "LTC", "BCH", "XRP", "XLM", "SOL", "TON", "ATOM", "NEWCHAIN", ""}
	rapid.Check(t, func(t *rapid.T) {
		chain := rapid.SampledFrom(chains).Draw(t, "chain")
		address := rapid.OneOf(rapid.String(), rapid.StringMatching(`[!-~]{1,256}`),
			rapid.StringMatching(`(bc1|ltc1|cosmos1|bitcoincash:|0x)[0-9a-z]{0,90}`)).Draw(t, "address")
		memo := rapid.OneOf(rapid.Just(""), rapid.String()).Draw(t, "memo")
		for _, method := range []exchange.Method{exchange.OnChain, exchange.InterUser} {
			err := whitelist.CheckAddress(method, "COIN", chain, address, memo)
			if e, ok := fault.As(err); err != nil && (!ok || e.Kind != fault.Invalid) {
				t.Fatalf("%v", err)
			}
		}
	})
}
