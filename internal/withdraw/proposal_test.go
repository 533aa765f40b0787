package withdraw_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"sluice/internal/approval"
	"sluice/internal/exchange"
	"sluice/internal/money"
	"sluice/internal/withdraw"
)

func aProposal() withdraw.Proposal {
	return withdraw.Proposal{
		ID: uuid.MustParse("019ab0c5-7e00-7000-8000-000000000001"), Round: 1, Account: "main", Method: exchange.OnChain,
		Asset: "USDT", Chain: "TRC20", Address: "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", Memo: "",
		Amount: decimal.RequireFromString("25.50"), MaxFee: decimal.RequireFromString("2.4"),
		DestinationID: uuid.MustParse("019ab0c5-7e00-7000-8000-000000000002"), DestinationVersion: 3, PolicyVersion: "builtin-1",
		Quorum: approval.Quorum{Approve: 2, Reject: 1}, Requester: "client:payroll", Reference: "inv-7", Purpose: "rent \u2014 \"March\"",
		ExpiresAt: time.Date(2026, 11, 24, 10, 0, 0, 7_900_000, time.FixedZone("", 7200)),
	}
}

// What people have signed is in these bytes. If they ever change, old votes die: a new
// form needs a new type.
const sealed = `{"account":"main","address":"TJRabPrwbZy45sbavfcjinPJC18kjpRTv8","amount":"25.5","asset":"USDT","chain":"TRC20",` +
	`"destination":{"id":"019ab0c5-7e00-7000-8000-000000000002","version":3},"evidence":"","expires_at":"2026-11-24T08:00:00.007Z",` +
	`"id":"019ab0c5-7e00-7000-8000-000000000001","max_fee":"2.4","memo":"","method":"on_chain","policy":"builtin-1",` +
	`"purpose":"rent ` + "\u2014" + ` \"March\"","quorum":{"approve":2,"reject":1},"reference":"inv-7","requester":"client:payroll",` +
	`"round":1,"type":"sluice/withdrawal/1"}`

func TestTheSealedFormIsPinned(t *testing.T) {
	got, err := aProposal().Seal()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sealed, string(got)); d != "" {
		t.Error(d)
	}
	want := approval.DigestOf([]byte(sealed)).String()
	if got := hex.EncodeToString(withdraw.DigestOf([]byte(sealed))); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
}

// Whoever may write the proposals table must find no second way to write one.
func TestUnsealRefusesOtherBytes(t *testing.T) {
	if _, err := withdraw.Unseal([]byte(sealed)); err != nil {
		t.Fatal("the honest bytes:", err)
	}
	swap := func(from, to string) string {
		if strings.Count(sealed, from) != 1 {
			t.Fatalf("%q is not once in the sealed bytes", from)
		}
		return strings.Replace(sealed, from, to, 1)
	}
	for name, b := range map[string]string{
		"an extra field":             swap(`"round":1,`, `"round":1,"test":true,`),
		"an extra field within":      swap(`"version":3`, `"test":true,"version":3`),
		"a field less":               swap(`"memo":"",`, ``),
		"evidence left out":          swap(`"evidence":"",`, ``),
		"two fields in other order":  swap(`"asset":"USDT","chain":"TRC20"`, `"chain":"TRC20","asset":"USDT"`),
		"a key twice":                swap(`"amount":"25.5"`, `"amount":"9","amount":"25.5"`),
		"a key twice, the same":      swap(`"amount":"25.5"`, `"amount":"25.5","amount":"25.5"`),
		"a key in another case":      swap(`"amount"`, `"Amount"`),
		"both cases":                 swap(`"amount":"25.5"`, `"AMOUNT":"9","amount":"25.5"`),
		"both cases, the other last": swap(`"amount":"25.5"`, `"amount":"25.5","aMOUNT":"9"`),
		"an escaped key":             swap(`"amount"`, `"\u0061mount"`),
		"an escaped letter":          swap(`"USDT"`, `"\u0055SDT"`),
		"a trailing zero":            swap(`"25.5"`, `"25.50"`),
		"a leading zero":             swap(`"25.5"`, `"025.5"`),
		"a plus":                     swap(`"25.5"`, `"+25.5"`),
		"an exponent":                swap(`"25.5"`, `"255e-1"`),
		"an amount as a number":      swap(`"25.5"`, `25.5`),
		"a zero amount":              swap(`"25.5"`, `"0"`),
		"a negative amount":          swap(`"25.5"`, `"-25.5"`),
		"no amount":                  swap(`"25.5"`, `""`),
		"a null amount":              swap(`"25.5"`, `null`),
		"a fee of 0.0":               swap(`"2.4"`, `"0.0"`),
		"a negative fee":             swap(`"2.4"`, `"-2.4"`),
		"no fee":                     swap(`"2.4"`, `""`),
		"a null memo":                swap(`"memo":""`, `"memo":null`),
		"an id in capitals":          swap(`"019ab0c5-7e00-7000-8000-000000000001"`, `"019AB0C5-7E00-7000-8000-000000000001"`),
		"an id in braces":            swap(`"019ab0c5-7e00-7000-8000-000000000001"`, `"{019ab0c5-7e00-7000-8000-000000000001}"`),
		"an id without dashes":       swap(`"019ab0c5-7e00-7000-8000-000000000001"`, `"019ab0c57e0070008000000000000001"`),
		"an id as a URN":             swap(`"019ab0c5-7e00-7000-8000-000000000001"`, `"urn:uuid:019ab0c5-7e00-7000-8000-000000000001"`),
		"a time without fraction":    swap(`.007Z`, `Z`),
		"a time in microseconds":     swap(`.007Z`, `.007001Z`),
		"a time in another zone":     swap(`2026-11-24T08:00:00.007Z`, `2026-11-24T10:00:00.007+02:00`),
		"a time of +00:00":           swap(`.007Z`, `.007+00:00`),
		"a quorum of 2.0":            swap(`"approve":2`, `"approve":2.0`),
		"a quorum of 2e0":            swap(`"approve":2`, `"approve":2e0`),
		"a huge quorum":              swap(`"approve":2`, `"approve":18446744073709551618`),
		"another type":               swap(`sluice/withdrawal/1`, `sluice/withdrawal/2`),
		"no type":                    swap(`,"type":"sluice/withdrawal/1"`, ``),
		"a space":                    swap(`,"round"`, `, "round"`),
		"a line break at the end":    sealed + "\n",
		"a second value":             sealed + sealed,
		"a NUL at the end":           sealed + "\x00",
		"a byte order mark":          "\ufeff" + sealed,
		"bad UTF-8":                  swap(`"rent `, "\"rent\xff "),
		"cut short":                  sealed[:len(sealed)-1],
		"nothing":                    "", "null": "null", "an array": "[" + sealed + "]", "a string": `"x"`,
	} {
		if p, err := withdraw.Unseal([]byte(b)); err == nil {
			t.Errorf("%s was read as %+v", name, p)
		}
	}
}

func proposals(t *rapid.T) withdraw.Proposal {
	text := func(label string) string { return rapid.String().Draw(t, label) }
	amount := func(label string, zero bool) decimal.Decimal {
		d, err := money.Parse(rapid.StringMatching(`(0|[1-9][0-9]{0,23})(\.[0-9]{1,18})?`).Draw(t, label))
		if err != nil && !zero {
			return decimal.New(1, -18)
		}
		return d // zero when it was a spelling of zero
	}
	id := func(label string) (u uuid.UUID) {
		copy(u[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label))
		return u
	}
	small := rapid.IntRange(-3, 1<<40)
	return withdraw.Proposal{
		ID: id("id"), Round: small.Draw(t, "round"), Account: text("account"), Method: exchange.Method(text("method")),
		Asset: text("asset"), Chain: text("chain"), Address: text("address"), Memo: text("memo"),
		Amount: amount("amount", false), MaxFee: amount("max fee", true), DestinationID: id("destination"),
		DestinationVersion: small.Draw(t, "version"), PolicyVersion: text("policy"),
		Quorum:    approval.Quorum{Approve: small.Draw(t, "approve"), Reject: small.Draw(t, "reject")},
		Requester: text("requester"), Reference: text("reference"), Purpose: text("purpose"), Evidence: text("evidence"),
		ExpiresAt: time.UnixMilli(rapid.Int64Range(0, 253402300799999).Draw(t, "end")).UTC(),
	}
}

func TestWhatIsSealedIsUnsealed(t *testing.T) {
	same := cmp.Options{cmp.Comparer(func(a, b decimal.Decimal) bool { return a.Equal(b) }), cmp.Comparer(time.Time.Equal)}
	rapid.Check(t, func(t *rapid.T) {
		p := proposals(t)
		b, err := p.Seal()
		if err != nil {
			t.Fatal(err)
		}
		got, err := withdraw.Unseal(b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if d := cmp.Diff(p, got, same); d != "" {
			t.Fatal(d)
		}
		agree(t, b)

		// Any other content has another digest; any other byte is another or no content.
		at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
		c := bytes.Clone(b)
		c[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if q, err := withdraw.Unseal(c); err == nil && cmp.Equal(p, q, same) {
			t.Fatalf("%s and %s are one proposal", b, c)
		}
	})
}

// agree checks that the two readers of sealed bytes read the same terms. The api shows
// what one reads, the worker pays by the other.
func agree(t interface {
	Helper()
	Fatalf(string, ...any)
}, sealed []byte) {
	t.Helper()
	p, err := withdraw.Unseal(sealed)
	if err != nil {
		return
	}
	terms := approval.Verify(approval.Evidence{Sealed: sealed}, time.Time{}).Terms
	if terms.Quorum != p.Quorum || terms.Requester != p.Requester || !terms.ExpiresAt.Equal(p.ExpiresAt) {
		t.Fatalf("%s: the votes are counted by %+v, the payment is made by %+v", sealed, terms, p)
	}
}

func TestSealRefusesWhatCannotBeUnsealed(t *testing.T) {
	d := decimal.RequireFromString
	for name, spoil := range map[string]func(p *withdraw.Proposal){
		"no amount":            func(p *withdraw.Proposal) { p.Amount = decimal.Zero },
		"a negative amount":    func(p *withdraw.Proposal) { p.Amount = d("-1") },
		"19 decimals":          func(p *withdraw.Proposal) { p.Amount = d("0.0000000000000000001") },
		"25 digits":            func(p *withdraw.Proposal) { p.Amount = d("1000000000000000000000000") },
		"a negative fee":       func(p *withdraw.Proposal) { p.MaxFee = d("-0.1") },
		"a fee of 19 places":   func(p *withdraw.Proposal) { p.MaxFee = d("0.0000000000000000001") },
		"a fee of 25 digits":   func(p *withdraw.Proposal) { p.MaxFee = d("1000000000000000000000000") },
		"bad UTF-8":            func(p *withdraw.Proposal) { p.Memo = "\xff" },
		"a version above 2^53": func(p *withdraw.Proposal) { p.DestinationVersion = 1 << 53 },
	} {
		p := aProposal()
		spoil(&p)
		if b, err := p.Seal(); err == nil {
			t.Errorf("%s: sealed as %s", name, b)
		}
	}
	p := aProposal()
	p.MaxFee = decimal.New(0, -5)
	b, err := p.Seal()
	if err != nil || !strings.Contains(string(b), `"max_fee":"0"`) {
		t.Errorf("no fee: %s, %v", b, err)
	}
}

func FuzzUnseal(f *testing.F) {
	f.Add([]byte(sealed))
	f.Add([]byte(strings.Replace(sealed, `"2.4"`, `"0"`, 1)))
	f.Add([]byte(strings.Replace(sealed, `"quorum"`, `"Quorum":{"approve":1,"reject":1},"quorum"`, 1)))
	f.Add([]byte(`{"quorum":{"approve":2,"approve":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := withdraw.Unseal(b)
		if err != nil {
			return
		}
		if again, err := p.Seal(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%s is sealed again as %s, %v", b, again, err)
		}
		if !p.Amount.IsPositive() || p.MaxFee.IsNegative() || !utf8.Valid(b) {
			t.Fatalf("%s was read as %+v", b, p)
		}
		// A reader with other habits (last key wins, case folded) reads no other amount.
		var loose map[string]any
		if err := json.Unmarshal(b, &loose); err != nil || loose["amount"] != money.Text(p.Amount) || loose["address"] != p.Address {
			t.Fatalf("%s reads as %v elsewhere", b, loose)
		}
		agree(t, b)
	})
}

func TestOrderAndRemark(t *testing.T) {
	p := aProposal()
	p.Memo = "104"
	remark := withdraw.Remark(p.ID, 2)
	want := exchange.Order{Method: exchange.OnChain, Asset: "USDT", Chain: "TRC20", Address: p.Address, Memo: "104",
		Amount: decimal.RequireFromString("25.5"), Remark: "slc-019ab0c5-7e00-7000-8000-000000000001-2"}
	if d := cmp.Diff(want, p.Order(remark)); d != "" {
		t.Error(d)
	}
	// The exchange is known to bear 50 characters (facts 3.1), and the column too.
	if long := withdraw.Remark(p.ID, 999_999_999); len(long) > 50 {
		t.Errorf("%q has %d characters", long, len(long))
	}
	var all []string
	for n := 1; n < 12; n++ {
		all = append(all, withdraw.Remark(p.ID, n))
	}
	if slices.Sort(all); len(slices.Compact(all)) != 11 {
		t.Error("two attempts share a remark")
	}
}
