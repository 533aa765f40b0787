package whitelist

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/btcsuite/btcd/btcutil/bech32"
	"github.com/mr-tron/base58"
	"golang.org/x/crypto/sha3"

	"sluice/internal/exchange"
	"sluice/internal/fault"
)

// Bounds of the text of an address and a memo, in characters. The longest
// addresses in use (unified Zcash, old Cardano) stay below the first; the
// longest memo that a chain carries stays below the second.
const (
	maxAddress = 256
	maxMemo    = 128
)

// CheckAddress tells whether address and memo can exist on a chain, given by the
// exchange's chain code (facts 4.1); chain is "" for a transfer between users.
// It catches the slip of a finger or of a copy before people spend their votes
// on it. It does not say that the address is anyone's: the whitelist says that.
//
// A chain that is not known here gets only the general rules, never a refusal
// on a guess. Errors are faults with the codes address_malformed, memo_malformed
// and memo_not_supported.
func CheckAddress(method exchange.Method, asset, chain, address, memo string) error {
	if method == exchange.InterUser {
		return checkUser(address)
	}
	if address == "" || len(address) > maxAddress || !visibleASCII(address) {
		return malformed(asset, chain, fmt.Sprintf("an address is 1 to %d visible ASCII characters without spaces", maxAddress))
	}
	if utf8.RuneCountInString(memo) > maxMemo || !printable(memo) {
		return badMemo(chain, fmt.Sprintf("a memo is at most %d printable characters", maxMemo))
	}
	form, known := forms[chain]
	if !known {
		return nil
	}
	if why := form.address(address); why != "" {
		return malformed(asset, chain, why)
	}
	if memo == "" || form.memo == nil {
		return nil
	}
	return form.memo(chain, memo)
}

func malformed(asset, chain, why string) error {
	return fault.New(fault.Invalid, "address_malformed",
		fmt.Sprintf("this is not an address for %s on %s: %s", asset, chain, why),
		"copy the address again from where the receiver shows it, and check that it is for this chain").On("address")
}

func badMemo(chain, why string) error {
	return fault.New(fault.Invalid, "memo_malformed",
		fmt.Sprintf("this is not a memo for %s: %s", chain, why),
		"copy the memo again from where the receiver shows it").On("memo")
}

// form is how one chain writes its addresses. address returns what is wrong, or
// "". memo is nil where any memo may be right.
type form struct {
	address func(string) string
	memo    func(chain, memo string) error
}

var forms = func() map[string]form {
	m := map[string]form{
		"TRC20": {address: base58Check("a Tron address begins with T", 0x41)},
		"BTC":   {eitherOf(segwit("bc"), base58Check("a Bitcoin address begins with bc1, 1 or 3", 0x00, 0x05)), noMemo},
		// Old Litecoin script addresses begin with 3, like those of Bitcoin, and are
		// still valid.
		"LTC":  {eitherOf(segwit("ltc"), base58Check("a Litecoin address begins with ltc1, L, M or 3", 0x30, 0x32, 0x05)), noMemo},
		"DOGE": {base58Check("a Dogecoin address begins with D, 9 or A", 0x1e, 0x16), noMemo},
		"DASH": {base58Check("a Dash address begins with X or 7", 0x4c, 0x10), noMemo},
		"BSV":  {base58Check("a Bitcoin SV address begins with 1 or 3", 0x00, 0x05), noMemo},
		"BCH":  {eitherOf(cashAddr, base58Check("a Bitcoin Cash address begins with bitcoincash:, q, p, 1 or 3", 0x00, 0x05)), noMemo},
		"XRP":  {ripple, rippleTag},
		"XLM":  {stellar, stellarMemo},
		"SOL":  {address: solana},
		"TON":  {address: ton},
		"ATOM": {address: cosmos("cosmos")},

		"CELESTIA": {address: cosmos("celestia")},
	}
	for _, chain := range []string{"ERC20", "BSC", "CSC", "MATIC", "ARBITRUM", "ARBITRUM_NOVA", "OPTIMISM", "BASE",
		"AVA_C", "ETC", "ETHPOW"} {
		m[chain] = form{evm, noMemo}
	}
	return m
}()

// noMemo refuses a memo on chains that have no place for one: the exchange would
// drop it, and a receiver who credits by memo would not know whose money came.
func noMemo(chain, _ string) error {
	return fault.New(fault.Invalid, "memo_not_supported",
		fmt.Sprintf("a payment on %s cannot carry a memo", chain),
		"leave the memo out; if the receiver asks for one, the chain is the wrong one").On("memo")
}

// --- The forms, by family ---

var hex40 = regexp.MustCompile(`^0x[0-9a-fA-F]{40}$`)

// evm checks 0x and 40 hex digits; mixed case must be the EIP-55 checksum.
// All lower or all upper case carries no checksum and is a valid spelling.
func evm(a string) string {
	if !hex40.MatchString(a) {
		return "it takes 0x and 40 hexadecimal digits"
	}
	digits := a[2:]
	lower := strings.ToLower(digits)
	if digits == lower || digits == strings.ToUpper(digits) {
		return ""
	}
	h := sha3.NewLegacyKeccak256()
	h.Write([]byte(lower))
	sum := hex.EncodeToString(h.Sum(nil))
	for i, c := range lower {
		if upper := sum[i] >= '8' && c >= 'a'; upper != (digits[i] != lower[i]) {
			return "its capital letters do not match its checksum (EIP-55), so a character is wrong"
		}
	}
	return ""
}

// eitherOf decides by the look of the address which form it means to be, so that
// the refusal speaks of that form.
func eitherOf(first func(string) (why string, mine bool), second func(string) string) func(string) string {
	return func(a string) string {
		if why, mine := first(a); mine {
			return why
		}
		return second(a)
	}
}

const badSum = "its checksum does not match, so a character is wrong or missing"

// base58Check accepts 20 byte hashes under one of the given version bytes.
func base58Check(shape string, versions ...byte) func(string) string {
	return func(a string) string {
		body, ok := base58Body(a, base58.BTCAlphabet)
		switch {
		case !ok:
			return badSum
		case len(body) != 21 || !slices.Contains(versions, body[0]):
			return shape
		}
		return ""
	}
}

// base58Body decodes and takes off the four bytes of double SHA-256.
func base58Body(a string, alphabet *base58.Alphabet) ([]byte, bool) {
	b, err := base58.DecodeAlphabet(a, alphabet)
	if err != nil || len(b) < 5 {
		return nil, false
	}
	body, sum := b[:len(b)-4], b[len(b)-4:]
	once := sha256.Sum256(body)
	twice := sha256.Sum256(once[:])
	return body, string(twice[:4]) == string(sum)
}

// segwit checks BIP-173 and BIP-350. Witness versions that no wallet can spend
// from yet are refused: whatever is sent there is free for anyone to take.
func segwit(hrp string) func(string) (string, bool) {
	return func(a string) (string, bool) {
		if !strings.HasPrefix(strings.ToLower(a), hrp+"1") {
			return "", false
		}
		got, data, version, err := bech32.DecodeGeneric(a)
		if err != nil || got != hrp || len(data) == 0 {
			return badSum, true
		}
		program, err := bech32.ConvertBits(data[1:], 5, 8, false)
		switch {
		case err != nil:
			return badSum, true
		case data[0] == 0 && version == bech32.Version0 && (len(program) == 20 || len(program) == 32):
			return "", true
		case data[0] == 1 && version == bech32.VersionM && len(program) == 32:
			return "", true
		}
		return "it is of a witness version or length that nobody can spend from", true
	}
}

// cosmos checks bech32 with a 20 or 32 byte account.
func cosmos(hrp string) func(string) string {
	return func(a string) string {
		if !strings.HasPrefix(a, hrp+"1") {
			return "it begins with " + hrp + "1"
		}
		got, data, version, err := bech32.DecodeGeneric(a)
		if err != nil || got != hrp || version != bech32.Version0 {
			return badSum
		}
		account, err := bech32.ConvertBits(data, 5, 8, false)
		if err != nil || len(account) != 20 && len(account) != 32 {
			return "its length is wrong"
		}
		return ""
	}
}

// cashAddr checks the Bitcoin Cash form, with or without its prefix. Which of
// the two spellings is listed is for the whitelist to say: the exchange compares
// text (facts 3.5).
func cashAddr(a string) (string, bool) {
	const (
		prefix  = "bitcoincash"
		charset = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	)
	text, prefixed := strings.CutPrefix(a, prefix+":")
	if !prefixed && !strings.HasPrefix(a, "q") && !strings.HasPrefix(a, "p") {
		return "", false
	}
	var values []byte
	for _, c := range prefix {
		values = append(values, byte(c)&31)
	}
	values = append(values, 0)
	for _, c := range text {
		i := strings.IndexRune(charset, c)
		if i < 0 {
			return "it holds a character that such an address never has", true
		}
		values = append(values, byte(i))
	}
	if len(text) < 8 || cashAddrPolymod(values) != 0 {
		return badSum, true
	}
	payload, err := bech32.ConvertBits(values[len(prefix)+1:len(values)-8], 5, 8, false)
	// Version byte 0: key hash of 20 bytes; 8: script hash of 20 bytes; 11: script
	// hash of 32 bytes.
	if err != nil || !(len(payload) == 21 && (payload[0] == 0 || payload[0] == 8) || len(payload) == 33 && payload[0] == 11) {
		return "it is of a type or length that is not in use", true
	}
	return "", true
}

// cashAddrPolymod is the BCH code of the CashAddr specification: 0 when the
// checksum holds.
func cashAddrPolymod(values []byte) uint64 {
	generator := [5]uint64{0x98f2bc8e61, 0x79b76d99e2, 0xf33e5fb3c4, 0xae2eabe2a8, 0x1e4f43e470}
	c := uint64(1)
	for _, v := range values {
		top := c >> 35
		c = (c&0x07ffffffff)<<5 ^ uint64(v)
		for i, g := range generator {
			if top>>i&1 == 1 {
				c ^= g
			}
		}
	}
	return c ^ 1
}

var rippleAlphabet = base58.NewAlphabet("rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz")

func ripple(a string) string {
	if strings.HasPrefix(a, "X") {
		// An X-address has the tag inside. Next to a memo of its own there would be two.
		return "it is an X-address; write it as the address that begins with r, with the tag as memo"
	}
	body, ok := base58Body(a, rippleAlphabet)
	switch {
	case !ok:
		return badSum
	case len(body) != 21 || body[0] != 0:
		return "an XRP address begins with r"
	}
	return ""
}

var uint32Text = regexp.MustCompile(`^(0|[1-9][0-9]{0,9})$`)

func rippleTag(chain, memo string) error {
	if !uint32Text.MatchString(memo) || len(memo) == 10 && memo > "4294967295" {
		return badMemo(chain, "a destination tag is a whole number from 0 to 4294967295")
	}
	return nil
}

// stellar checks a strkey: an account (G) or a muxed account (M).
func stellar(a string) string {
	b, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(a)
	if err != nil || len(b) < 3 {
		return badSum
	}
	body, sum := b[:len(b)-2], b[len(b)-2:]
	const account, muxed = 6 << 3, 12 << 3
	switch {
	// Encoding again catches stray bits in the last character, which no checksum covers.
	case base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b) != a || crc16(body) != binary.LittleEndian.Uint16(sum):
		return badSum
	case body[0] == account && len(body) == 33, body[0] == muxed && len(body) == 41:
		return ""
	}
	return "a Stellar address begins with G or M"
}

var hex64 = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)

// stellarMemo accepts a text, an id or a hash.
func stellarMemo(chain, memo string) error {
	if len(memo) > 28 && !hex64.MatchString(memo) {
		return badMemo(chain, "a memo is at most 28 bytes of text, or a hash of 64 hexadecimal digits")
	}
	return nil
}

// solana checks the length only: a Solana address is a bare 32 byte key with no
// checksum, so most slips make another address that looks as good. A small test
// payment is the only proof.
func solana(a string) string {
	if b, err := base58.Decode(a); err != nil || len(b) != 32 {
		return "a Solana address is 32 bytes in base58"
	}
	return ""
}

var tonRaw = regexp.MustCompile(`^(0|-1):[0-9a-fA-F]{64}$`)

// ton checks the user-friendly form (tag, workchain, hash, CRC-16) in both
// base64 alphabets, and the raw form, which has no checksum.
func ton(a string) string {
	if tonRaw.MatchString(a) {
		return ""
	}
	b, err := base64.URLEncoding.DecodeString(strings.NewReplacer("+", "-", "/", "_").Replace(a))
	if err != nil || len(b) != 36 {
		return "a TON address is 48 characters of base64"
	}
	const bounceable, plain, testOnly = 0x11, 0x51, 0x80
	switch {
	case crc16(b[:34]) != binary.BigEndian.Uint16(b[34:]):
		return badSum
	case b[0]&testOnly != 0:
		return "it is for the test network"
	case b[0] != bounceable && b[0] != plain, b[1] != 0x00 && b[1] != 0xff:
		return "its kind is not in use"
	}
	return ""
}

// crc16 is CRC-16/XMODEM, which Stellar and TON use.
func crc16(b []byte) uint16 {
	var crc uint16
	for _, c := range b {
		crc ^= uint16(c) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// Both are generous: the exchange knows its users, and the whitelist has to
// match whatever is written here byte for byte.
var (
	email  = regexp.MustCompile(`^[^@\s]+@[^@\s.]+(\.[^@\s.]+)+$`)
	mobile = regexp.MustCompile(`^\+?[0-9][0-9 ()-]{4,30}$`)
)

// checkUser accepts what a user of the exchange is found by: an e-mail address
// or a mobile number (facts 3.1).
func checkUser(address string) error {
	if len(address) <= maxAddress && printable(address) && (email.MatchString(address) || mobile.MatchString(address)) {
		return nil
	}
	return fault.New(fault.Invalid, "address_malformed",
		"a transfer between users goes to the receiver's registered e-mail address or mobile number, and this is neither",
		"write the e-mail address or the mobile number with which the receiver is registered at the exchange").On("address")
}

func visibleASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
