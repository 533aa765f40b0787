package coinex

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/internal/exchange"
	"sluice/internal/fault"
)

// What is known of a key's life (facts 1.6).
const (
	warmUp      = 10 * time.Minute    // "about", so that a key is under suspicion for three times as long
	KeyLifetime = 90 * 24 * time.Hour // of a key without a bound IP address, "three months" in another place
)

// Binding is whether a key is bound to IP addresses.
type Binding int

const (
	BindingUnknown Binding = iota
	Bound
	Unbound
)

// Known is what the caller knows when the exchange refuses a call. The zero
// value of every field means "not known".
type Known struct {
	KeyAge   time.Duration // since the key was made on CoinEx's page
	Binding  Binding
	BoundTo  []netip.Prefix        // the addresses that the key is bound to, if any
	Egress   []netip.Addr          // ours as the exchange sees it (Client.Egress)
	Worked   bool                  // the exchange has accepted this same key and secret before
	Clock    *exchange.ClockOffset // as last measured
	Limits   LimitState            // Client.Limits
	SelfTest error                 // what SelfTest returned
}

// Cause is one possible cause of a refusal.
type Cause struct {
	Code    string // stable, snake_case
	Says    string // what may be wrong, as a sentence
	Fix     string // what to do
	Evident bool   // what is known proves it
}

// weight is how far what is known speaks for a cause.
type weight int

const (
	ruledOut weight = iota
	possible
	likely
	evident
)

// suspect is a cause with its weight.
type suspect struct {
	weight weight
	Cause
}

// Explain gives the causes that the exchange's code may have, the likeliest
// first and without those that what is known rules out. There is always at
// least one. It is pure; code 0 stands for a call that the exchange confirmed
// and that had no effect.
//
// The exchange answers 4005 for four different troubles and does not tell them
// apart (facts 1.6, FAQ Q2), so nothing here can do better than weigh them.
func Explain(code int, k Known) []Cause {
	var suspects []suspect
	switch row := codes[code]; {
	case row == access:
		suspects = accessSuspects(k)
	case row == badSign || code == 4008:
		suspects = signatureSuspects(k)
	case row == badIP:
		suspects = addressSuspects(k)
	case row == expired:
		suspects = clockSuspects(k)
	case row == tooOften:
		suspects = rateSuspects(k)
	case row == listed:
		suspects = whitelistSuspects
	case row == balance:
		suspects = balanceSuspects
	case row == noRight || code == 4512 || code == 4011:
		suspects = permissionSuspects
	case row == down || code == 3008:
		suspects = busySuspects
	case code == 0:
		suspects = noEffectSuspects
	}
	slices.SortStableFunc(suspects, func(a, b suspect) int { return cmp.Compare(b.weight, a.weight) })
	var out []Cause
	for _, s := range suspects {
		if s.weight == ruledOut {
			continue
		}
		s.Evident = s.weight == evident
		out = append(out, s.Cause)
	}
	if len(out) > 0 {
		return out
	}
	name := fmt.Sprintf("exchange_code_%d", code)
	if row, known := codes[code]; known {
		return []Cause{{Code: name, Says: upper(row.meaning) + ".", Fix: row.fix, Evident: true}}
	}
	return []Cause{{Code: name, Says: fmt.Sprintf("Code %d is not in the exchange's documentation.", code), Fix: fixSupport}}
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// when is w where something is so, and otherwise where it is not.
func when(so bool, w, otherwise weight) weight {
	if so {
		return w
	}
	return otherwise
}

// accessSuspects are behind "access_id not exist" (FAQ Q2).
func accessSuspects(k Known) []suspect {
	fix := "Compare the access id with the one on www.coinex.com/apikey."
	return []suspect{
		{signerBroken(k), selfTestCause},
		{tooYoung(k), Cause{Code: "key_not_active_yet",
			Says: "The key may be too young: a new key needs about 10 minutes before the exchange knows it.",
			Fix:  "Wait until the key is 10 minutes old and try again."}},
		{tooOld(k), Cause{Code: "key_expired",
			Says: "The key may have expired: a key that is not bound to an IP address lives 90 days.",
			Fix:  "Renew the key on www.coinex.com/apikey, or make a new one, and bind it to this machine's address: a bound key does not expire."}},
		{when(k.Worked, likely, possible), Cause{Code: "key_deleted",
			Says: "The key may have been deleted or disabled on the exchange's page.",
			Fix:  "Look for it on www.coinex.com/apikey. If nobody of yours took it away, treat the account as attacked."}},
		{when(k.Worked, ruledOut, likely), Cause{Code: "access_id_wrong",
			Says: "The access id may be mistyped or cut, or the key may belong to another account or another exchange address.",
			Fix:  fix}},
		{when(k.Worked, ruledOut, possible), Cause{Code: "secret_wrong",
			Says: "The signature may be wrong, because the secret key belongs to another access id.",
			Fix:  "Set access id and secret key from one and the same key. " + fixSecret}},
		{possible, headerCause},
	}
}

// signatureSuspects are behind "signature incorrect" (FAQ, other questions, Q4).
func signatureSuspects(k Known) []suspect {
	return []suspect{
		{signerBroken(k), selfTestCause},
		{when(k.Worked, possible, likely), Cause{Code: "secret_wrong",
			Says: "The secret key may be mistyped or cut, or belong to another access id.",
			Fix:  "Set access id and secret key from one and the same key. " + fixSecret}},
		{when(k.Worked, likely, possible), headerCause},
	}
}

// addressSuspects are behind "IP not allowed".
func addressSuspects(k Known) []suspect {
	seen := make([]string, len(k.Egress))
	var strange, inside bool
	for i, addr := range k.Egress {
		seen[i] = addr.String()
		bound := slices.ContainsFunc(k.BoundTo, func(p netip.Prefix) bool { return p.Contains(addr) })
		strange, inside = strange || !bound, inside || bound
	}
	known := len(k.BoundTo) > 0 && len(seen) > 0
	says, fix := "The key may be bound to other addresses than the one from which this machine reaches the exchange.", fixIP
	if len(seen) > 0 {
		says += " The exchange sees " + strings.Join(seen, ", ") + "."
	}
	return []suspect{
		{when(known && !inside, evident, when(known && !strange, ruledOut, likely)), Cause{Code: "ip_not_bound", Says: says, Fix: fix}},
		{when(known && inside, likely, possible), Cause{Code: "ip_changes",
			Says: "This machine may reach the exchange from more than one address, over IPv4 and IPv6 or through several gateways, and not all of them are bound.",
			Fix:  "Give the machine one fixed address for what it sends, or bind all of them on www.coinex.com/apikey; a key takes up to 50."}},
	}
}

// clockSuspects are behind "tonce" and expired timestamps (FAQ, other
// questions, Q5). Ours are always in milliseconds and corrected by the measured
// offset, so an offset that is known and small rules the clock out.
func clockSuspects(k Known) []suspect {
	clock, slow := possible, possible
	says := "This machine's clock may be wrong, or may have been set since it was last compared with the exchange's."
	if k.Clock != nil {
		says += fmt.Sprintf(" It was last found %v off, give or take %v.", k.Clock.Offset.Abs().Round(time.Millisecond), k.Clock.Error.Round(time.Millisecond))
		clock = when(k.Clock.Offset.Abs() > maxOffset, evident, when(k.Clock.Offset.Abs() >= time.Second, likely, possible))
		slow = when(k.Clock.Error >= time.Second, likely, possible)
	}
	return []suspect{
		{clock, Cause{Code: "clock_wrong", Says: says, Fix: "Turn on time synchronisation on this machine."}},
		{slow, Cause{Code: "connection_slow",
			Says: "The request may have been under way for longer than its window.",
			Fix:  "Check the connection to the exchange, or allow a longer window."}},
	}
}

// rateSuspects tell the two kinds of limit apart (FAQ Q5).
func rateSuspects(k Known) []suspect {
	long := len(k.Limits.Long) > 0
	return []suspect{
		{when(long, evident, possible), Cause{Code: "rate_limit_long_term",
			Says: "A long-term limit may be in force: the exchange imposes one on the main account and all sub-accounts together when many requests bring little trade.",
			Fix:  "Nothing needs doing: one request a second is sent until it ends, within 24 hours at the latest. Look for a trading program that uses the same account."}},
		{when(long, ruledOut, likely), Cause{Code: "rate_limit_short_term",
			Says: "Another program with the same account may have used up the turns of this second.",
			Fix:  "It is tried again after a pause. If it goes on, give Sluice a sub-account of its own."}},
	}
}

func signerBroken(k Known) weight { return when(k.SelfTest != nil, evident, ruledOut) }

func tooYoung(k Known) weight {
	switch {
	case k.Worked || k.KeyAge >= 3*warmUp:
		return ruledOut
	case k.KeyAge <= 0:
		return possible
	case k.KeyAge < warmUp:
		return evident
	}
	return likely
}

func tooOld(k Known) weight {
	switch {
	case k.Binding == Bound || len(k.BoundTo) > 0:
		return ruledOut
	case k.KeyAge >= KeyLifetime && k.Binding == Unbound:
		return evident
	case k.KeyAge >= KeyLifetime || k.KeyAge <= 0 && k.Worked:
		return likely
	case k.KeyAge >= KeyLifetime-2*24*time.Hour || k.KeyAge <= 0:
		return possible // three months can be 89 days
	}
	return ruledOut
}

// Causes that several codes share.
var (
	selfTestCause = Cause{Code: "signing_broken",
		Says: "This build of Sluice signs wrongly: its self-test fails.",
		Fix:  "Do not run this build. Install a released one, and report it."}
	headerCause = Cause{Code: "request_changed",
		Says: "A proxy on the way to the exchange may change or drop headers, or re-encode the request.",
		Fix:  "Let Sluice reach the exchange directly."}
)

// Suspects that nothing we could know weighs.
var (
	whitelistSuspects = []suspect{
		{likely, Cause{Code: "whitelist_other_list",
			Says: "The address may be on the wrong list: the address book of the withdrawal page does not count for the API.",
			Fix:  fixWhitelist}},
		{likely, Cause{Code: "whitelist_text_differs",
			Says: "The entry may differ in a character, in upper and lower case, or in a prefix such as \"bitcoincash:\".",
			Fix:  "Compare both character by character; correct the entry on www.coinex.com/apikey and the one here."}},
		{possible, Cause{Code: "whitelist_other_chain",
			Says: "The entry may be for another coin, chain or method.",
			Fix:  "Add the address on www.coinex.com/apikey for exactly this method, coin and chain."}},
	}
	balanceSuspects = []suspect{
		{likely, Cause{Code: "balance_short",
			Says: "The spot wallet may hold less than amount and fee together.",
			Fix:  "Move funds to the spot wallet; those in the futures, margin or financial wallet do not count."}},
		{possible, Cause{Code: "deposit_unconfirmed",
			Says: "A fresh deposit may not have all of its confirmations, and until then cannot be withdrawn although it is shown as available.",
			Fix:  "Wait until the deposit is final."}},
	}
	permissionSuspects = []suspect{
		{likely, Cause{Code: "permission_missing",
			Says: "The key may lack the permission to withdraw, or two-factor authorisation for API withdrawals was never given.",
			Fix:  "On www.coinex.com/apikey, sign in with two factors and tick \"Withdraw\" for this key."}},
		{possible, Cause{Code: "account_restricted",
			Says: "The account may be restricted, or be a sub-account that may not withdraw.",
			Fix:  fixAccount}},
	}
	busySuspects = []suspect{
		{likely, Cause{Code: "exchange_busy",
			Says: "The exchange is under load or being maintained.",
			Fix:  "Reads are repeated after a second or two. A submission is never repeated; it is looked up."}},
		{possible, Cause{Code: "chain_wrong",
			Says: "A wrong chain code was once answered like this, for ever.",
			Fix:  "If each try ends like this, compare the chain with the exchange's configuration of the coin."}},
	}
	noEffectSuspects = []suspect{
		{likely, Cause{Code: "confirmed_without_effect",
			Says: "The exchange confirmed the call and nothing came of it, which it admits can happen under load.",
			Fix:  "Send CoinEx support the complete request and response, from the support bundle, with the e-mail address of the account or the name of the sub-account."}},
	}
)

// SelfTest signs known requests with a known key (facts 1.5) and compares. nil
// means that a signature that the exchange refuses is not for want of signing
// correctly. Error: fault.Invalid "exchange_signing_broken".
func SelfTest() error {
	const (
		secret = "B0A1C2D3E4F5061728394A5B6C7D8E9F00112233445566778899"
		at     = "1760000000123"
	)
	for _, v := range []struct{ method, target, body, want string }{
		{"GET", "/v2/assets/withdraw?ccy=USDT&limit=10&page=1", "", "3f4c968e2e3b303db38f6172b744e2ecda68e3c88efb4bd82787aa11b42f97af"},
		{"POST", pathWithdraw, `{"ccy":"USDT","chain":"TRC20","to_address":"TJRabPrwbZy45sbavfcjinPJC18kjpRTv8","withdraw_method":"on_chain","amount":"25.5","remark":"wd_01JAXAMPLE0000000000000001"}`,
			"ac869765f1200fc4ef149529889bd679401dfc922e535034b09ab9956f6c9df2"},
		{"", "", "", "c68a080410f658bf6539df44d22f5c454a1dc68f50774585fbe2e89ebc9e08f4"}, // the websocket's
	} {
		if signature(secret, v.method, v.target, []byte(v.body), at) != v.want {
			return fault.New(fault.Invalid, "exchange_signing_broken", selfTestCause.Says, selfTestCause.Fix)
		}
	}
	return nil
}
