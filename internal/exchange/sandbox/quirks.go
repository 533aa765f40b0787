package sandbox

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"sluice/internal/money"
)

// Faults that spoil a row. On POST /assets/withdraw the new row keeps them for
// life; on GET /assets/withdraw they show in that one answer.
const (
	RemarkNotEchoed Kind = "remark_not_echoed" // remark is ""
	UpperCaseMethod Kind = "upper_case_method" // ON_CHAIN for on_chain
	FeeAssetVariant Kind = "fee_asset_variant" // fee_asset and fee_amount for fee_ccy
	LegacyStatus    Kind = "legacy_status"     // the words of v1: audit, pass, finish, cancel, not_pass
	UpperCaseStatus Kind = "upper_case_status" // FINISHED
	UnknownStatus   Kind = "unknown_status"    // a word that nobody has documented
	Confirmation    Kind = "confirmation"      // confirmation for confirmations
	TextNumbers     Kind = "text_numbers"      // ids, times and counts are strings
	PaddedAmounts   Kind = "padded_amounts"    // 12.40000000 for 12.4
	UnknownField    Kind = "unknown_field"     // a field that nobody has documented
	ListLate        Kind = "list_late"         // lists leave the new row out for Reads or Delay
	ListTwice       Kind = "list_twice"        // lists have the row twice
	RegressStatus   Kind = "regress_status"    // lists show the status before, on a new row in every second list
)

// CancelFails lets a cancellation that CoinEx has taken end in
// cancellation_failed. It is for POST /assets/cancel-withdraw, or on POST
// /assets/withdraw for whenever the new withdrawal is cancelled.
const CancelFails Kind = "cancellation_failed"

// rowFaults says on which endpoints each of them happens.
var rowFaults = func() map[Kind][]string {
	all := map[Kind][]string{ListLate: {withdrawRoute}, CancelFails: {cancelRoute, withdrawRoute}}
	for _, k := range []Kind{
		RemarkNotEchoed, UpperCaseMethod, FeeAssetVariant, LegacyStatus, UpperCaseStatus, UnknownStatus, Confirmation,
		TextNumbers, PaddedAmounts, UnknownField, ListTwice, RegressStatus,
	} {
		all[k] = []string{withdrawRoute, listRoute}
	}
	return all
}()

// Quirks are the row faults that a withdrawal shows.
type Quirks struct {
	Shows       []Kind    `json:"shows,omitempty"`
	HiddenReads int       `json:"hidden_reads,omitempty"`
	HiddenUntil time.Time `json:"hidden_until,omitzero"`
	NextLags    bool      `json:"next_lags,omitempty"` // of a row that regresses: the next list shows the status before
}

func (q Quirks) shows(k Kind) bool { return slices.Contains(q.Shows, k) }

// takeQuirks uses up the first fault of each row kind that fits the call.
func (s *Sandbox) takeQuirks(c *call) Quirks {
	var (
		q     Quirks
		taken = map[Kind]bool{}
	)
	for _, f := range slices.Clone(s.waiting(c)) {
		if rowFaults[f.Fault] == nil || taken[f.Fault] || !s.strikes(f, c) {
			continue
		}
		taken[f.Fault] = true
		spent := s.spendFault(f)
		if f.Fault != ListLate {
			q.Shows = append(q.Shows, f.Fault)
			continue
		}
		q.HiddenReads = spent.Reads
		if spent.Delay > 0 {
			q.HiddenUntil = c.now.Add(time.Duration(spent.Delay))
		}
	}
	return q
}

// with joins the quirks of an answer with those of a row in it.
func (q Quirks) with(own Quirks) Quirks {
	own.Shows = slices.Concat(q.Shows, own.Shows)
	return own
}

// legacyWords are the statuses of v1 (facts 3.4).
var legacyWords = map[Status]Status{AuditRequired: "audit", Audited: "pass", Finished: "finish", Cancelled: "cancel", Failed: "not_pass"}

// spoil shows the quirks in a row: those that change words in the row itself,
// those that change its shape in what JSON makes of it.
func (q Quirks) spoil(r row) any {
	if q.shows(RemarkNotEchoed) {
		r.Remark = ""
	}
	if q.shows(UpperCaseMethod) {
		r.WithdrawMethod = strings.ToUpper(r.WithdrawMethod)
	}
	if q.shows(FeeAssetVariant) {
		fee := r.TxFee
		r.FeeAsset, r.FeeAmount, r.FeeCcy = r.FeeCcy, &fee, ""
	}
	if word, known := legacyWords[r.Status]; known && q.shows(LegacyStatus) {
		r.Status = word
	}
	if q.shows(UpperCaseStatus) {
		r.Status = Status(strings.ToUpper(string(r.Status)))
	}
	if q.shows(UnknownStatus) {
		r.Status = "under_the_moon"
	}
	if !slices.ContainsFunc(q.Shows, func(k Kind) bool {
		return k == Confirmation || k == TextNumbers || k == PaddedAmounts || k == UnknownField
	}) {
		return r
	}

	var shape map[string]any
	d := json.NewDecoder(bytes.NewReader(encode(r)))
	d.UseNumber()
	if err := d.Decode(&shape); err != nil {
		panic(err) // encode made it
	}
	if q.shows(Confirmation) {
		shape["confirmation"] = shape["confirmations"]
		delete(shape, "confirmations")
	}
	if q.shows(TextNumbers) {
		for name, v := range shape {
			if n, number := v.(json.Number); number {
				shape[name] = n.String()
			}
		}
	}
	if q.shows(PaddedAmounts) {
		for _, name := range []string{"amount", "actual_amount", "tx_fee"} {
			d, err := quantity(shape[name].(string))
			if err != nil {
				panic(err) // an amount of ours
			}
			shape[name] = d.StringFixed(max(transferPrecision, money.Decimals(d)))
		}
	}
	if q.shows(UnknownField) {
		shape["lunar_phase"] = map[string]any{"name": "gibbous", "share": 0.75}
	}
	return shape
}

// magicFaults are the faults of amounts whose decimals are .68 and four digits,
// which count from 1.
var magicFaults = []Fault{
	{Fault: DropBeforeAccept},
	{Fault: AcceptThenDrop},
	{Fault: AcceptThen502},
	{Fault: AcceptAnswerLate, Delay: Duration(30 * time.Second)},
	{Fault: AcceptLate, Delay: Duration(30 * time.Second)},
	{Fault: Code0WithoutData},
	{Fault: RemarkNotEchoed},
	{Fault: ListLate, Reads: 3},
	{Fault: ListTwice},
	{Fault: RegressStatus},
	{Fault: CancelFails},
	{Fault: FeeAssetVariant},
}

// magic is the fault that the amount of a withdrawal asks for, or nil. The
// decimals are .66 and the four digits of a code for that error, .67 and a code
// for the same after the withdrawal was made, .68 and a number for the rest.
// Only codes that the sandbox knows are magic, so that an amount hardly ever
// is by accident.
func magic(c *call) *Fault {
	if c.route != withdrawRoute {
		return nil
	}
	amount, err := money.Parse(c.parameter("amount"))
	if err != nil {
		return nil
	}
	digits := amount.Sub(amount.Truncate(0)).Shift(6)
	if !digits.IsInteger() {
		return nil
	}
	n := int(digits.IntPart())
	kind, number := n/10_000, n%10_000
	f := Fault{Fault: ErrorAnswer, Code: number, Accept: kind == 67}
	switch _, known := messages[number]; {
	case (kind == 66 || kind == 67) && known && number != 0:
	case kind == 68 && number >= 1 && number <= len(magicFaults):
		f = magicFaults[number-1]
	default:
		return nil
	}
	f.On, f.Times = withdrawRoute, 1
	return &f
}
