// Package doctor finds out why an account cannot pay, or soon will not: the address,
// the road to the exchange, the clock, the key and its life, the limits, the
// whitelist, and what only a person can confirm. The worker runs it all the time
// for the health page; `sluice doctor` runs it for whoever sits in front of a
// machine that does not work yet.
//
// Gather asks the exchange and never judges; Judge is pure. So every sentence that an
// operator may read in the night can be tested without an exchange.
package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/internal/exchange"
	"sluice/internal/exchange/coinex"
	"sluice/internal/fault"
	"sluice/internal/whitelist"
)

// Report is the whole judgement.
type Report struct {
	Standing exchange.Standing  `json:"standing"` // the worst of all: fail, warn or ok
	At       time.Time          `json:"at"`
	Checks   []exchange.Finding `json:"checks"`
}

// The checks, by their stable ids.
const (
	CheckAddress     = "address"
	CheckSigning     = "signing"
	CheckReach       = "reachability"
	CheckLatency     = "latency"
	CheckClock       = "clock"
	CheckMaintenance = "maintenance"
	CheckConfig      = "configuration"
	CheckKey         = "key"
	CheckKeyLife     = "key_life"
	CheckIP          = "ip_binding"
	CheckBalances    = "balances"
	CheckAccount     = "same_account"
	CheckShort       = "rate_limit_short_term"
	CheckLong        = "rate_limit_long_term"
	CheckMirror      = "whitelist_mirror"
)

const page = "www.coinex.com/apikey"

// Item is something that the exchange tells to no program. A person looks it up on the
// exchange's page and confirms it with `sluice confirm`.
type Item struct {
	ID  string
	Ask string // what to look at
	Fix string // what to do where it is not so
	// Proven: a withdrawal that the exchange took proves it as well.
	Proven bool
}

// Checklist is what must be so before the first withdrawal (FAQ, other questions, Q2).
var Checklist = []Item{
	{"two_factor", "API withdrawals were authorised with two factors",
		"Sign in at " + page + " with two factors and authorise API withdrawals.", true},
	{"withdraw_permission", "The key may withdraw",
		"At " + page + ", look whether \"Withdraw\" is ticked for this key.", true},
	{"api_whitelist", "The exchange's API withdrawal whitelist holds the same entries as the mirror here",
		"At " + page + ", under \"Withdrawal Whitelist\", compare entry by entry; `sluice whitelist export` prints the ones that are here.", false},
}

// Judge says what the facts mean. The findings are in the order in which a person
// should mend things: what stands further up is often the cause of what is below.
func Judge(f Facts) Report {
	r := Report{Standing: exchange.Well, At: f.At.UTC(), Checks: []exchange.Finding{
		f.address(), f.signing(), f.reach(), f.latency(), f.clock(), f.maintenance(), f.configuration(),
		f.key(), f.keyLife(), f.binding(), f.balances(), f.account(), f.short(), f.long(),
	}}
	for _, item := range Checklist {
		r.Checks = append(r.Checks, f.item(item))
	}
	r.Checks = append(r.Checks, f.mirror())
	for _, c := range r.Checks {
		if c.Standing == exchange.Broken || c.Standing == exchange.Doubtful && r.Standing == exchange.Well {
			r.Standing = c.Standing
		}
	}
	return r
}

// Trouble is the first finding by which nothing can be paid.
func (r Report) Trouble() (exchange.Finding, bool) {
	i := slices.IndexFunc(r.Checks, func(c exchange.Finding) bool { return c.Standing == exchange.Broken })
	if i < 0 {
		return exchange.Finding{}, false
	}
	return r.Checks[i], true
}

func ok(check, says string, args ...any) exchange.Finding {
	return exchange.Finding{Check: check, Standing: exchange.Well, Says: fmt.Sprintf(says, args...)}
}

func skip(check, says string) exchange.Finding {
	return exchange.Finding{Check: check, Standing: exchange.Unchecked, Says: says}
}

func wrong(check string, s exchange.Standing, cause, says, fix string) exchange.Finding {
	return exchange.Finding{Check: check, Standing: s, Cause: cause, Says: says, Fix: fix}
}

// from makes a finding of the error of a call: an answer with a code is explained by
// what is known, anything else speaks for itself.
func (f Facts) from(check string, err error) exchange.Finding {
	if code := codeOf(err); code != 0 {
		causes := f.explain(code)
		out := wrong(check, exchange.Broken, causes[0].Code, fmt.Sprintf("The exchange answered code %d. %s", code, causes[0].Says), causes[0].Fix)
		for _, c := range causes[1:] {
			out.Also = append(out.Also, exchange.Cause{Code: c.Code, Says: c.Says, Fix: c.Fix})
		}
		return out
	}
	e, known := fault.As(err)
	if !known {
		e = fault.New(fault.Unavailable, "not_asked", "The question could not be put: "+err.Error(), "Try again.")
	}
	return wrong(check, exchange.Broken, e.Code, sentence(e.Detail), sentence(e.Fix))
}

// codeOf is the exchange's code behind an error, or 0.
func codeOf(err error) int {
	if r, ok := errors.AsType[*coinex.Rejection](err); ok {
		return r.Code
	}
	return 0
}

func (f Facts) explain(code int) []coinex.Cause {
	known := coinex.Known{KeyAge: f.Key.youngest(f.At), Binding: f.Key.Binding, BoundTo: f.Key.BoundTo, Egress: f.Egress.Addrs,
		Worked: f.Worked, Limits: f.Limits, SelfTest: f.SelfTest}
	if f.ClockErr == nil && !f.Clock.At.IsZero() {
		known.Clock = &f.Clock
	}
	causes := coinex.Explain(code, known)
	if len(causes) > 1 {
		// Everything here only reads, which every key may (facts 1.6).
		causes = slices.DeleteFunc(causes, func(c coinex.Cause) bool { return c.Code == "permission_missing" })
	}
	return causes
}

func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

func (f Facts) address() exchange.Finding {
	if f.Address != nil {
		return f.from(CheckAddress, f.Address)
	}
	return ok(CheckAddress, "Address and key have the right form.")
}

func (f Facts) signing() exchange.Finding {
	if f.SelfTest != nil {
		return f.from(CheckSigning, f.SelfTest)
	}
	return ok(CheckSigning, "Requests with a known answer are signed rightly.")
}

// asked says why nothing was asked of the exchange, or "".
func (f Facts) asked() string {
	switch {
	case f.Address != nil:
		return "Not asked: the settings do not lead to an exchange."
	case f.Reach != nil:
		return "Not asked: the exchange does not answer."
	}
	return ""
}

// signed says why nothing that needs the key was asked, or "".
func (f Facts) signed() string {
	if why := f.asked(); why != "" || f.ClockErr == nil {
		return why
	}
	return "Not asked: nothing is signed before the clock is right."
}

func (f Facts) reach() exchange.Finding {
	switch {
	case f.Address != nil:
		return skip(CheckReach, f.asked())
	case f.Reach == nil:
		return ok(CheckReach, "The exchange answers.")
	}
	out := f.from(CheckReach, f.Reach)
	switch out.Cause {
	case "exchange_unreachable":
		out.Says = "No answer comes from the exchange's address."
		out.Fix = "Check the address, the name service, and whether this machine may open HTTPS connections to it."
	case "exchange_http_status", "exchange_answer_unreadable":
		out.Cause = "gateway"
		out.Says += " It does not come from the exchange itself: a gateway, a proxy or a wrong address is in between."
		out.Fix = "Check the address, and " + page + " for announcements. Behind a proxy, let Sluice reach the exchange directly. If all of that is right, wait."
	}
	return out
}

func (f Facts) latency() exchange.Finding {
	advice := f.Latency.Advice()
	switch {
	case advice == "":
		return skip(CheckLatency, "No answer has been timed.")
	case f.Latency.Median > 500*time.Millisecond:
		return wrong(CheckLatency, exchange.Doubtful, "connection_slow", advice,
			"Check the connection, or run Sluice near the exchange: AWS Tokyo, zones ap-northeast-1a, 1c and 1d.")
	}
	return ok(CheckLatency, "%s", advice)
}

// much is an offset of the clock that time synchronisation would not leave.
const much = time.Second

func (f Facts) clock() exchange.Finding {
	const fix = "Turn on time synchronisation on this machine (chrony, systemd-timesyncd, or the setting of your system)."
	if why := f.asked(); why != "" {
		return skip(CheckClock, why)
	}
	says := fmt.Sprintf("The exchange's clock is %v from ours, give or take %v.", f.Clock.Offset.Round(time.Millisecond), f.Clock.Error.Round(time.Millisecond))
	switch {
	case fault.Is(f.ClockErr, "exchange_clock_skewed"):
		return wrong(CheckClock, exchange.Broken, "clock_wrong", says+" The exchange refuses what is a minute off, and nothing is signed with a clock that wrong. Times are sent in milliseconds.", fix)
	case f.ClockErr != nil:
		return f.from(CheckClock, f.ClockErr)
	case f.Clock.Offset.Abs() > much:
		return wrong(CheckClock, exchange.Doubtful, "clock_off", says+" That is corrected for in signatures, but times on the record are off.", fix)
	}
	return ok(CheckClock, "%s", says)
}

func (f Facts) maintenance() exchange.Finding {
	if why := f.asked(); why != "" {
		return skip(CheckMaintenance, why)
	}
	if f.MaintenanceErr != nil {
		return f.from(CheckMaintenance, f.MaintenanceErr)
	}
	stamp := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
	var next *exchange.Finding
	for _, m := range f.Maintenance {
		scope := strings.Join(m.Scope, ", ")
		switch {
		case !f.At.Before(m.Until):
		case !f.At.Before(m.From):
			return wrong(CheckMaintenance, exchange.Broken, "maintenance", fmt.Sprintf("The exchange is being maintained (%s) until %s.", scope, stamp(m.Until)),
				"Nothing needs doing: what is approved is sent when the exchange is back.")
		case next == nil:
			w := wrong(CheckMaintenance, exchange.Doubtful, "maintenance_announced", fmt.Sprintf("The exchange will be maintained (%s) from %s until %s.", scope, stamp(m.From), stamp(m.Until)),
				"Have urgent payouts approved before.")
			next = &w
		}
	}
	if next != nil {
		return *next
	}
	return ok(CheckMaintenance, "No maintenance is announced.")
}

// configuration looks at the chains that somebody may want to pay over: those of the
// mirror, or without one those of the assets that the account holds.
func (f Facts) configuration() exchange.Finding {
	if why := f.asked(); why != "" {
		return skip(CheckConfig, why)
	}
	if f.ConfigErr != nil {
		return f.from(CheckConfig, f.ConfigErr)
	}
	var off []string
	for _, c := range f.Chains {
		if (!c.AssetEnabled || !c.ChainEnabled) && f.wants(c) {
			off = append(off, c.Asset+" "+c.Chain)
		}
	}
	if len(off) > 0 {
		return wrong(CheckConfig, exchange.Doubtful, "chain_suspended", "The exchange has suspended withdrawals of "+strings.Join(off, ", ")+".",
			"Nothing needs doing: what is approved waits, and is sent when they resume or expires. For a payout that cannot wait, ask for another chain.")
	}
	return ok(CheckConfig, "%d chains can be read, and none that matters here is suspended.", len(f.Chains))
}

func (f Facts) wants(c exchange.ChainConfig) bool {
	if f.Record != nil && len(f.Record.Destinations) > 0 {
		return slices.ContainsFunc(f.Record.Destinations, func(d whitelist.Destination) bool {
			return d.Asset == c.Asset && d.Chain == c.Chain && d.State == whitelist.Active
		})
	}
	return slices.ContainsFunc(f.Balances, func(b exchange.Balance) bool { return b.Asset == c.Asset && !b.Available.IsZero() })
}

// about tells what a refusal of a signed call speaks of: the key, or the moment.
var about = map[string]string{
	"rate_limit_long_term": CheckLong, "rate_limit_short_term": CheckShort, "exchange_busy": CheckBalances,
	"clock_wrong": CheckClock, "connection_slow": CheckClock,
}

func (f Facts) key() exchange.Finding {
	if why := f.signed(); why != "" {
		return skip(CheckKey, why)
	}
	if f.BalancesErr == nil {
		return ok(CheckKey, "The exchange accepts access id and signature.")
	}
	out := f.from(CheckKey, f.BalancesErr)
	if codeOf(f.BalancesErr) == 0 || about[out.Cause] != "" {
		return skip(CheckKey, "Not known: the exchange did not get as far as the key.")
	}
	return out
}

// soon is how many days before its end a key's expiry is announced.
const soon = 14

func (f Facts) keyLife() exchange.Finding {
	const renew = "Make a new key at " + page + ", bind it to this machine's address so that it does not expire, and change keys without a gap: docs/operations.md, \"Changing the exchange key\"."
	day := 24 * time.Hour
	end := f.Key.Expires()
	left := end.Sub(f.At)
	unless := ""
	if f.Key.Binding == coinex.BindingUnknown {
		unless = " unless it is bound to an IP address"
	}
	switch works := f.signed() == "" && f.BalancesErr == nil; {
	case !f.Key.Created.IsZero() && !f.Key.Day && f.At.Sub(f.Key.Created) < 10*time.Minute && !works:
		return wrong(CheckKeyLife, exchange.Doubtful, "key_not_active_yet", "The key is less than 10 minutes old; a new one needs about that long before the exchange knows it.",
			"Wait until "+f.Key.Created.Add(10*time.Minute).UTC().Format("15:04 UTC")+" and look again.")
	case f.Key.Binding == coinex.Bound:
		return ok(CheckKeyLife, "The key is bound to IP addresses and does not expire.")
	case end.IsZero():
		return wrong(CheckKeyLife, exchange.Doubtful, "key_age_unknown", "Nobody has said when the key was made. A key that is not bound to an IP address ends after 90 days, without a warning from the exchange.",
			"Set "+CreatedSetting+" to the day on which it was made, and "+BoundSetting+".")
	case left <= 0 && works:
		return wrong(CheckKeyLife, exchange.Doubtful, "key_overdue", "The key is older than 90 days"+unless+" and may stop at any moment; it still works.", renew)
	case left <= 0:
		return wrong(CheckKeyLife, exchange.Broken, "key_expired", "The key is older than 90 days and has ended"+unless+".", renew)
	case left < soon*day:
		return wrong(CheckKeyLife, exchange.Doubtful, "key_expires_soon", fmt.Sprintf("The key ends in %d days, on %s%s.", left/day, end.UTC().Format(time.DateOnly), unless), renew)
	}
	return ok(CheckKeyLife, "The key ends in %d days, on %s%s.", left/day, end.UTC().Format(time.DateOnly), unless)
}

func (f Facts) binding() exchange.Finding {
	if why := f.asked(); why != "" {
		return skip(CheckIP, why)
	}
	if f.EgressErr != nil {
		out := f.from(CheckIP, f.EgressErr)
		out.Standing = exchange.Doubtful // the key check decides; this one only helps
		return out
	}
	var seen, outside []string
	for _, a := range f.Egress.Addrs {
		seen = append(seen, a.String())
		if !slices.ContainsFunc(f.Key.BoundTo, func(p netip.Prefix) bool { return p.Contains(a) }) {
			outside = append(outside, a.String())
		}
	}
	says := "The exchange sees this machine at " + strings.Join(seen, ", ") + "."
	switch {
	case f.Key.Binding == coinex.BindingUnknown:
		return wrong(CheckIP, exchange.Doubtful, "ip_binding_unknown", says+" Nobody has said whether the key is bound to that address.",
			"Look at "+page+", and set "+BoundSetting+" to the bound addresses, or to \"no\".")
	case f.Key.Binding == coinex.Unbound:
		return wrong(CheckIP, exchange.Doubtful, "ip_not_bound", says+" The key is bound to no address: it works for whoever has it, from anywhere, and ends after 90 days.",
			"Bind the key to this address at "+page+".")
	case len(f.Key.BoundTo) > 0 && len(outside) > 0:
		return wrong(CheckIP, exchange.Broken, "ip_not_bound", says+" The key is not bound to "+strings.Join(outside, ", ")+".",
			"Bind the key to "+strings.Join(outside, ", ")+" at "+page+", or let Sluice out through an address that is bound, and keep "+BoundSetting+" true.")
	case len(f.Key.BoundTo) == 0:
		return ok(CheckIP, "%s The key is said to be bound.", says)
	}
	return ok(CheckIP, "%s The key is bound to it.", says)
}

func (f Facts) balances() exchange.Finding {
	if why := f.signed(); why != "" {
		return skip(CheckBalances, why)
	}
	if f.BalancesErr != nil {
		out := f.from(CheckBalances, f.BalancesErr)
		if codeOf(f.BalancesErr) != 0 && about[out.Cause] != CheckBalances {
			return skip(CheckBalances, "Not read: see above and below.")
		}
		return out
	}
	return ok(CheckBalances, "The spot wallet can be read; it holds %d assets.", len(f.Balances))
}

// account catches a key of another account. Under one, every withdrawal that is looked
// for would seem absent, and absence is what lets people approve it a second time.
func (f Facts) account() exchange.Finding {
	switch {
	case f.Record == nil:
		return skip(CheckAccount, "Not compared: no database was at hand.")
	case f.Record.LastID == 0:
		return skip(CheckAccount, "Not compared: nothing has been paid from this account yet.")
	case f.signed() != "" || f.BalancesErr != nil:
		return skip(CheckAccount, "Not compared: the key does not work now.")
	case f.HasLastErr != nil:
		return f.from(CheckAccount, f.HasLastErr)
	case !f.HasLast:
		return wrong(CheckAccount, exchange.Broken, "key_of_other_account",
			fmt.Sprintf("Withdrawal %d, which Sluice made from this account, is not in the history that this key shows: the key belongs to another account.", f.Record.LastID),
			"Stop this worker at once and give it a key of the right account. With this one, what was paid looks unpaid.")
	}
	return ok(CheckAccount, "The key's history holds withdrawal %d, made from this account.", f.Record.LastID)
}

// limited says whether the read of the balances ended at a limit of a kind.
func (f Facts) limited(check string) (exchange.Finding, bool) {
	if codeOf(f.BalancesErr) == 0 {
		return exchange.Finding{}, false
	}
	out := f.from(check, f.BalancesErr)
	return out, about[out.Cause] == check
}

func (f Facts) short() exchange.Finding {
	if why := f.signed(); why != "" {
		return skip(CheckShort, why)
	}
	if out, hit := f.limited(CheckShort); hit {
		return out
	}
	var refused []string
	for _, s := range f.Limits.Short {
		if s.Refusals > 0 && f.At.Sub(s.RefusedAt) < time.Hour {
			refused = append(refused, fmt.Sprintf("%s (%d times)", s.Group, s.Refusals))
		}
	}
	if len(refused) > 0 && len(f.Limits.Long) == 0 {
		return wrong(CheckShort, exchange.Doubtful, "rate_limit_short_term", "The exchange refused calls as too frequent within the last hour: "+strings.Join(refused, ", ")+".",
			"Look for another program that uses the same account, or give Sluice a sub-account of its own. Calls are repeated after a pause.")
	}
	return ok(CheckShort, "No short-term limit was hit.")
}

func (f Facts) long() exchange.Finding {
	if why := f.signed(); why != "" {
		return skip(CheckLong, why)
	}
	if out, hit := f.limited(CheckLong); hit {
		return out
	}
	if len(f.Limits.Long) == 0 {
		return ok(CheckLong, "No long-term limit is in force.")
	}
	var periods []string
	for _, l := range f.Limits.Long {
		periods = append(periods, fmt.Sprintf("%s with %d calls left", l.Period, l.Remaining))
	}
	return wrong(CheckLong, exchange.Doubtful, "rate_limit_long_term", "A long-term limit is in force: "+strings.Join(periods, ", ")+". One call a second is sent until it ends.",
		"Look for a trading program on the main account or a sub-account: the exchange sets this limit when many requests bring little trade. It ends with its period.")
}

func (f Facts) item(i Item) exchange.Finding {
	if f.Record == nil {
		return skip(i.ID, i.Ask+": not looked up, no database was at hand.")
	}
	if i.Proven && !f.Record.LastAccepted.IsZero() {
		return ok(i.ID, "%s: proven on %s, when the exchange took a withdrawal.", i.Ask, f.Record.LastAccepted.UTC().Format(time.DateOnly))
	}
	if c, done := f.Record.Confirmed[i.ID]; done {
		return ok(i.ID, "%s: confirmed on %s by %s.", i.Ask, c.At.UTC().Format(time.DateOnly), c.By)
	}
	return wrong(i.ID, exchange.Doubtful, "not_confirmed", i.Ask+": nobody has confirmed it. No program can ask the exchange.",
		i.Fix+" Then run `sluice confirm "+i.ID+"`.")
}

func (f Facts) mirror() exchange.Finding {
	if f.Record == nil {
		return skip(CheckMirror, "Not looked at: no database was at hand.")
	}
	var refused []string
	for _, d := range f.Record.Destinations {
		if d.State == whitelist.Quarantined {
			refused = append(refused, fmt.Sprintf("%s (%s %s)", d.Label, d.Asset, d.Chain))
		}
	}
	switch {
	case len(refused) > 0:
		return wrong(CheckMirror, exchange.Doubtful, "destination_quarantined", "The exchange refused these, which are listed here: "+strings.Join(refused, ", ")+".",
			"CoinEx keeps two lists, and the address book of its withdrawal page does not count. Compare the entry at "+page+", under \"Withdrawal Whitelist\", to the last character.")
	case len(f.Record.Destinations) == 0:
		return wrong(CheckMirror, exchange.Doubtful, "whitelist_empty", "No destination is listed here, so nothing can be asked for.",
			"Put the addresses on the exchange's API withdrawal whitelist at "+page+", then mirror them with `sluice whitelist import FILE`.")
	}
	return ok(CheckMirror, "%d destinations are listed, and the exchange has refused none.", len(f.Record.Destinations))
}
