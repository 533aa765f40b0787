package receipt

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/tlog"

	"sluice/internal/approval"
	"sluice/internal/audit"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/money"
	"sluice/internal/withdraw"
)

// Report is what a receipt was found to prove.
type Report struct {
	Withdrawal string         `json:"withdrawal"`
	State      withdraw.State `json:"state"`    // as the log's events leave it
	Proven     []string       `json:"proven"`   // plain sentences
	Failures   []string       `json:"failures"` // what does not fit; empty when the receipt holds
}

// Verify checks a receipt against the log's public key and the site of its
// passkeys. It is pure: no clock, no network, no database. When anything does
// not fit it returns the fault "receipt_invalid", and the report names all that
// was found.
func Verify(r Receipt, verifierKey string, rp approval.Relying) (Report, error) {
	verifier, err := audit.NewVerifier(verifierKey)
	if err != nil {
		return Report{}, err
	}
	if err := r.bounded(); err != nil {
		return Report{}, err
	}
	c := &check{Receipt: r, site: rp, bodies: slices.Clone(r.Attempts),
		report: Report{Withdrawal: r.Withdrawal.String()}}
	c.run(verifier)
	if n := len(c.report.Failures); n > 0 {
		detail := "the receipt does not hold: " + c.report.Failures[0]
		if n > 1 {
			detail = fmt.Sprintf("%s (and %d more)", detail, n-1)
		}
		return c.report, fault.New(fault.Refused, "receipt_invalid", detail,
			"do not rely on it; ask for a fresh export, and keep this file as evidence")
	}
	return c.report, nil
}

// event is one whose place in the log has been proven.
type event struct {
	audit.Event
	leaf int64
}

// round is one proposal with the votes that were cast over it.
type round struct {
	withdraw.Proposal
	sealed []byte
	digest approval.Digest
	votes  []castVote
}

type castVote struct {
	approval.Vote
	leaf int64
}

// attempt is one submission as the log tells it.
type attempt struct {
	number     int
	id         string
	outcome    string // the action that decided it; "" while its answer is open
	exchangeID int64
}

// check is the state of one verification. Each step uses only what the steps
// before it have proven.
type check struct {
	Receipt
	site   approval.Relying
	report Report

	events   []event
	people   []event
	rounds   []round
	attempts []attempt
	bodies   []string // of the receipt's attempts, those that no event has named yet
}

func (c *check) run(verifier *audit.Verifier) {
	if !c.underCheckpoint(verifier) {
		return // without the log nothing below means anything
	}
	c.requested()
	c.castVotes()
	c.tellStory()
	c.leftovers()
}

func (c *check) fail(format string, args ...any) {
	c.report.Failures = append(c.report.Failures, fmt.Sprintf(format, args...))
}

func (c *check) proven(format string, args ...any) {
	c.report.Proven = append(c.report.Proven, fmt.Sprintf(format, args...))
}

// underCheckpoint opens the checkpoint and proves that each event lies under it.
func (c *check) underCheckpoint(verifier *audit.Verifier) bool {
	tree, err := verifier.Open(c.Checkpoint)
	if err != nil {
		c.fail("%v", err)
		return false
	}
	c.proven("The log %s, at %d events, is signed by the key %s.", tree.Origin, tree.Size, verifier.Name())

	c.events = c.leaves("event", c.Events, tree)
	c.people = c.leaves("roster event", c.Roster, tree)
	if len(c.report.Failures) > 0 {
		return false
	}
	for _, e := range c.events {
		if e.Withdrawal != c.Withdrawal {
			c.fail("event %s (%s) is about another withdrawal", e.ID, e.Action)
		}
	}
	if len(c.events) == 0 {
		c.fail("the receipt holds no event of its withdrawal")
	}
	if !sameSite(c.Site, c.site) {
		c.fail("the receipt was made for passkeys of %s, and you verify for passkeys of %s", siteText(c.Site), siteText(c.site))
	}
	c.proven("%d events of withdrawal %s and %d events about its voters are in that log, byte for byte.",
		len(c.events), c.Withdrawal, len(c.people))
	return len(c.report.Failures) == 0
}

func (c *check) leaves(what string, entries []Entry, tree audit.Checkpoint) []event {
	var out []event
	last := int64(-1)
	for i, entry := range entries {
		e, err := audit.ParseEvent([]byte(entry.Body))
		if err != nil {
			c.fail("%s %d: %v", what, i+1, err)
			continue
		}
		name := fmt.Sprintf("%s %d (%s, %s)", what, i+1, e.Action, e.ID)
		if entry.Leaf <= last {
			c.fail("%s is not in the order of the log, or comes twice", name)
		}
		last = entry.Leaf
		if len(entry.Proof) > maxProof ||
			tlog.CheckRecord(entry.Proof, tree.Size, tree.Root, entry.Leaf, tlog.RecordHash([]byte(entry.Body))) != nil {
			c.fail("%s: its proof does not lead to the checkpoint's root", name)
			continue
		}
		out = append(out, event{Event: e, leaf: entry.Leaf})
	}
	return out
}

func sameSite(a, b approval.Relying) bool {
	return a.ID == b.ID && a.Software == b.Software && slices.Equal(a.Origins, b.Origins)
}

func siteText(s approval.Relying) string {
	kind := "hardware or platform passkeys only"
	if s.Software {
		kind = "software passkeys of the demo people admitted"
	}
	return fmt.Sprintf("%q at %q (%s)", s.ID, s.Origins, kind)
}

// requested reads the proposals and binds each to the log.
func (c *check) requested() {
	first := c.events[0]
	if first.Action == audit.WithdrawalRefused {
		c.proven("It was asked for by %s and refused at the door; nothing was sealed or sent.", first.Actor)
		return
	}
	var asked struct {
		Digest string `json:"digest"`
	}
	if first.Action != audit.WithdrawalRequested {
		c.fail("the log's first event of this withdrawal is %s, not %s", first.Action, audit.WithdrawalRequested)
	} else if err := first.DecodeDetail(&asked); err != nil {
		c.fail("%v", err)
	}

	named := c.digestsNamed()
	for i, sealed := range c.Proposals {
		p, err := withdraw.Unseal([]byte(sealed))
		if err != nil {
			c.fail("proposal %d: %v", i+1, err)
			continue
		}
		r := round{Proposal: p, sealed: []byte(sealed), digest: approval.DigestOf([]byte(sealed))}
		switch {
		case p.ID != c.Withdrawal:
			c.fail("proposal %d is for another withdrawal", i+1)
		case p.Round != i+1:
			c.fail("proposal %d says that it is of round %d", i+1, p.Round)
		case p.Requester != first.Actor:
			c.fail("proposal %d names %s as its requester, the log %s", i+1, p.Requester, first.Actor)
		case i == 0 && r.digest.String() != asked.Digest, !named[r.digest.String()]:
			c.fail("proposal %d is not the one that the log names by its digest", i+1)
		}
		c.rounds = append(c.rounds, r)
	}
	if len(c.rounds) == 0 {
		c.fail("the receipt holds no proposal that can be read")
		return
	}
	p := c.rounds[len(c.rounds)-1].Proposal
	c.proven("%s asked on %s for %s %s, under reference %q.", p.Requester, audit.Stamp(first.At), orderText(p.Order("")),
		feeText(p), p.Reference)
}

// digestsNamed are the digests that any event names.
func (c *check) digestsNamed() map[string]bool {
	named := map[string]bool{}
	for _, e := range c.events {
		if d, ok := e.Detail["digest"].(string); ok {
			named[d] = true
		}
	}
	return named
}

func orderText(o exchange.Order) string {
	where := "to the exchange's user " + o.Address
	if o.Method == exchange.OnChain {
		where = fmt.Sprintf("on %s to %s", o.Chain, o.Address)
	}
	if o.Memo != "" {
		where += fmt.Sprintf(" with memo %q", o.Memo)
	}
	return fmt.Sprintf("%s %s %s", money.Text(o.Amount), o.Asset, where)
}

func feeText(p withdraw.Proposal) string {
	return fmt.Sprintf("for a fee of at most %s %s", money.Text(p.MaxFee), p.Asset)
}

// castVotes puts each vote together from its event and the assertion that the
// event names.
func (c *check) castVotes() {
	assertions := map[string]Assertion{}
	for _, a := range c.Votes {
		assertions[audit.HexSHA256(a.Signature)] = a
	}
	if len(assertions) != len(c.Votes) {
		c.fail("an assertion comes twice")
	}
	for _, e := range c.events {
		if e.Action != audit.VoteCast {
			continue
		}
		var d struct {
			Digest    string `json:"digest"`
			Person    string `json:"person"`
			Decision  string `json:"decision"`
			Reason    string `json:"reason"`
			Nonce     string `json:"nonce"`
			Passkey   string `json:"passkey"`
			Signature string `json:"signature_sha256"`
		}
		if err := e.DecodeDetail(&d); err != nil {
			c.fail("event %s: %v", e.ID, err)
			continue
		}
		a, ok := assertions[d.Signature]
		if !ok {
			c.fail("the vote of person %s (event %s) has no assertion in the receipt whose signature the log names", d.Person, e.ID)
			continue
		}
		delete(assertions, d.Signature)
		nonce, err1 := binary(d.Nonce)
		passkey, err2 := binary(d.Passkey)
		if errors.Join(err1, err2) != nil || e.Actor != "person:"+d.Person {
			c.fail("event %s: the vote is malformed, or was recorded by somebody else (%s)", e.ID, e.Actor)
			continue
		}
		at, ok := c.roundOf(d.Digest)
		if !ok {
			c.fail("the vote of person %s (event %s) is over a proposal that the receipt does not hold", d.Person, e.ID)
			continue
		}
		c.rounds[at].votes = append(c.rounds[at].votes, castVote{leaf: e.leaf, Vote: approval.Vote{
			Person: d.Person, Passkey: passkey, Decision: approval.Decision(d.Decision), Reason: d.Reason, Nonce: nonce,
			AuthenticatorData: a.AuthenticatorData, ClientData: a.ClientData, Signature: a.Signature, CastAt: e.At,
		}})
	}
	for range assertions {
		c.fail("the receipt holds an assertion that no vote of the log names")
	}
	for _, r := range c.rounds {
		// Whatever the votes lead to, none may be forged.
		for _, f := range c.verdict(r, c.end(), c.end(), c.events[len(c.events)-1].At).Faults {
			c.fail("round %d: %s", r.Round, f)
		}
	}
}

func binary(text string) ([]byte, error) {
	return base64.RawURLEncoding.Strict().DecodeString(text)
}

// verdict counts those of a round's votes that stand before one leaf of the log,
// by the roster as it stands before another.
func (c *check) verdict(r round, votes, roster int64, now time.Time) approval.Verdict {
	e := approval.Evidence{Sealed: r.sealed, Relying: c.site, Roster: c.rosterBefore(roster)}
	for _, v := range r.votes {
		if v.leaf < votes {
			e.Votes = append(e.Votes, v.Vote)
		}
	}
	return approval.Verify(e, now)
}

// end is the leaf after the withdrawal's last event.
func (c *check) end() int64 { return c.events[len(c.events)-1].leaf + 1 }

// roundOf finds the round that a digest in the log names.
func (c *check) roundOf(digest string) (int, bool) {
	i := slices.IndexFunc(c.rounds, func(r round) bool { return r.digest.String() == digest })
	return i, i >= 0
}

// tellStory walks the events in the order of the log and checks that they tell a
// possible life: each move permitted, each submission approved at that moment
// and exactly what was approved, never a second one while a first might live.
func (c *check) tellStory() {
	var state withdraw.State
	for _, e := range c.events {
		if next, ok := stateAfter[e.Action]; ok {
			if !mayMove(state, next) {
				c.fail("event %s (%s): a withdrawal that is %q cannot become %q", e.ID, e.Action, state, next)
			}
			state = next
		}
		switch e.Action {
		case audit.WithdrawalApproved:
			c.decided(e, approval.Approved)
		case audit.WithdrawalRejected:
			c.decided(e, approval.Rejected)
		case audit.SubmissionAttempted:
			c.attempted(e)
		case audit.SubmissionAccepted, audit.SubmissionUnknown, audit.SubmissionNotAccepted, audit.SubmissionAbsent:
			c.answered(e)
		case audit.WithdrawalCompleted:
			c.completed(e)
		}
	}
	c.report.State = state
	last := c.events[len(c.events)-1]
	c.proven("The last event in this receipt is %s at %s: the withdrawal is %s.", last.Action, audit.Stamp(last.At), state)
}

// stateAfter says where an event leaves the withdrawal. Events that are not here
// move nothing.
var stateAfter = map[string]withdraw.State{
	audit.WithdrawalRequested: withdraw.Pending,
	audit.WithdrawalRefused:   withdraw.Refused,
	audit.WithdrawalApproved:  withdraw.Approved,
	audit.WithdrawalRejected:  withdraw.Rejected,
	audit.WithdrawalCancelled: withdraw.Cancelled,
	audit.WithdrawalExpired:   withdraw.Expired,
	audit.WithdrawalHeld:      withdraw.Held,
	audit.WithdrawalSubmitted: withdraw.Submitted,
	audit.WithdrawalCompleted: withdraw.Completed,
	audit.WithdrawalFailed:    withdraw.Failed,
	audit.SubmissionAttempted: withdraw.Submitting,
	audit.SubmissionAccepted:  withdraw.Submitted,
	audit.SubmissionUnknown:   withdraw.Unknown,
	audit.SubmissionAbsent:    withdraw.Absent,
}

func mayMove(from, to withdraw.State) bool {
	if from == "" {
		return to == withdraw.Pending || to == withdraw.Refused
	}
	// A second attempt after a clear no stays in its state, and so does a
	// withdrawal held for one more reason.
	if from == to {
		return to == withdraw.Submitting || to == withdraw.Held
	}
	return slices.ContainsFunc(withdraw.Moves, func(m withdraw.Move) bool { return m.From == from && m.To == to })
}

// decided checks the votes behind an approval or a rejection. Two people who
// vote at the same moment may stand in the log in either order, so all votes of
// the round count here; what was sent is held to the strict order (attempted).
func (c *check) decided(e event, want approval.Standing) {
	var d struct {
		Digest string `json:"digest"`
	}
	if err := e.DecodeDetail(&d); err != nil {
		c.fail("event %s: %v", e.ID, err)
		return
	}
	at, ok := c.roundOf(d.Digest)
	if !ok {
		c.fail("event %s (%s) is about a proposal that the receipt does not hold", e.ID, e.Action)
		return
	}
	if v := c.verdict(c.rounds[at], c.end(), e.leaf, e.At); v.Standing != want {
		c.fail("event %s says %s, and the votes say %s%s", e.ID, e.Action, v.Standing, because(v))
	}
}

func (c *check) attempted(e event) {
	var d struct {
		Attempt  string `json:"attempt"`
		Number   int    `json:"number"`
		Digest   string `json:"digest"`
		Remark   string `json:"remark"`
		Body     string `json:"body_sha256"`
		SignedAt string `json:"signed_at"`
		Window   int    `json:"window_ms"`
	}
	if err := e.DecodeDetail(&d); err != nil {
		c.fail("event %s: %v", e.ID, err)
		return
	}
	name := fmt.Sprintf("attempt %d", d.Number)
	for _, a := range c.attempts {
		if a.outcome != audit.SubmissionNotAccepted && a.outcome != audit.SubmissionAbsent {
			c.fail("%s was made while attempt %d might still live: that is how money leaves twice", name, a.number)
		}
	}
	if d.Number != len(c.attempts)+1 || c.byID(d.Attempt) != nil {
		c.fail("%s is out of order, or comes twice", name)
	}
	if _, err := time.Parse(time.RFC3339, d.SignedAt); err != nil || d.Window <= 0 {
		c.fail("%s does not say when it was signed and for how long", name)
	}
	c.attempts = append(c.attempts, attempt{number: d.Number, id: d.Attempt})

	at, ok := c.roundOf(d.Digest)
	if !ok {
		c.fail("%s rests on a proposal that the receipt does not hold", name)
		return
	}
	r := c.rounds[at]
	v := c.verdict(r, e.leaf, e.leaf, e.At)
	if v.Standing != approval.Approved {
		c.fail("%s: when it was made, the votes left the proposal %s%s", name, v.Standing, because(v))
	} else {
		c.proven("When %s was made, %s had approved round %d with their passkeys, over digest %s.",
			name, c.names(v.Approvals, e.leaf), r.Round, v.Digest)
	}

	body := slices.IndexFunc(c.bodies, func(b string) bool { return audit.HexSHA256([]byte(b)) == d.Body })
	if body < 0 {
		c.fail("%s: the receipt does not hold the bytes that the log names", name)
		return
	}
	sent := c.bodies[body]
	c.bodies = slices.Delete(c.bodies, body, body+1)
	if err := sameOrder([]byte(sent), r.Order(d.Remark)); err != nil {
		c.fail("%s: the bytes that were signed differ from what was approved: %v", name, err)
		return
	}
	c.proven("The bytes signed for %s order exactly that: %s, with remark %q.", name, orderText(r.Order("")), d.Remark)
}

func because(v approval.Verdict) string {
	if why := append(slices.Clone(v.Faults), v.Ignored...); len(why) > 0 {
		return ": " + strings.Join(why, "; ")
	}
	return ""
}

// sameOrder compares the body of a submission with the order that it should
// carry (facts 3.1). A member that is not known here is refused: it was not
// approved, whatever it means.
func sameOrder(body []byte, o exchange.Order) error {
	var b struct {
		Asset   string `json:"ccy"`
		Chain   string `json:"chain"`
		Address string `json:"to_address"`
		Method  string `json:"withdraw_method"`
		Memo    string `json:"memo"`
		Amount  string `json:"amount"`
		Remark  string `json:"remark"`
	}
	if err := json.Unmarshal(body, &b, json.RejectUnknownMembers(true)); err != nil {
		return errors.New("they are not a withdrawal of the known form")
	}
	for _, f := range []struct{ name, sent, approved string }{
		{"asset", b.Asset, o.Asset},
		{"chain", b.Chain, o.Chain},
		{"address", b.Address, o.Address},
		{"method", b.Method, string(o.Method)},
		{"memo", b.Memo, o.Memo},
		{"net amount", b.Amount, money.Text(o.Amount)},
		{"remark", b.Remark, o.Remark},
	} {
		if f.sent != f.approved {
			return fmt.Errorf("%s %q instead of %q", f.name, f.sent, f.approved)
		}
	}
	return nil
}

func (c *check) byID(id string) *attempt {
	i := slices.IndexFunc(c.attempts, func(a attempt) bool { return a.id == id })
	if i < 0 {
		return nil
	}
	return &c.attempts[i]
}

func (c *check) answered(e event) {
	var d struct {
		Attempt    string `json:"attempt"`
		ExchangeID int64  `json:"exchange_id"`
	}
	if err := e.DecodeDetail(&d); err != nil {
		c.fail("event %s: %v", e.ID, err)
		return
	}
	a := c.byID(d.Attempt)
	if a == nil {
		c.fail("event %s (%s) is about an attempt that was never made", e.ID, e.Action)
		return
	}
	if a.outcome != "" && a.outcome != audit.SubmissionUnknown {
		c.fail("attempt %d was settled as %s and then again as %s", a.number, a.outcome, e.Action)
	}
	a.outcome = e.Action
	switch e.Action {
	case audit.SubmissionAccepted:
		if d.ExchangeID <= 0 {
			c.fail("attempt %d was accepted under no id", a.number)
		}
		a.exchangeID = d.ExchangeID
		c.proven("The worker recorded that the exchange accepted attempt %d as its withdrawal %d.", a.number, d.ExchangeID)
	case audit.SubmissionNotAccepted:
		c.proven("The worker recorded that the exchange did not accept attempt %d.", a.number)
	case audit.SubmissionAbsent:
		c.proven("The worker recorded proof that attempt %d never reached the exchange.", a.number)
	}
}

func (c *check) completed(e event) {
	var d struct {
		ExchangeID int64  `json:"exchange_id"`
		TxID       string `json:"tx_id"`
	}
	if err := e.DecodeDetail(&d); err != nil {
		c.fail("event %s: %v", e.ID, err)
		return
	}
	if !slices.ContainsFunc(c.attempts, func(a attempt) bool {
		return a.outcome == audit.SubmissionAccepted && a.exchangeID == d.ExchangeID
	}) {
		c.fail("the log says completed as withdrawal %d of the exchange, and no accepted attempt has that id", d.ExchangeID)
		return
	}
	text := "without a transaction id"
	if d.TxID != "" {
		text = "in transaction " + d.TxID
	}
	c.proven("The worker recorded that the exchange finished its withdrawal %d %s.", d.ExchangeID, text)
}

// leftovers finds documents that nothing in the log names. A reader would take
// them for part of what was proven.
func (c *check) leftovers() {
	if len(c.bodies) > 0 {
		c.fail("the receipt holds the bytes of %d attempts that no event of the log names", len(c.bodies))
	}
	if c.report.State == withdraw.Refused && len(c.Proposals) > 0 {
		c.fail("the withdrawal was refused at the door, and the receipt holds a proposal")
	}
	voters := map[string]bool{}
	for _, r := range c.rounds {
		for _, v := range r.votes {
			voters[v.Person] = true
		}
	}
	for _, e := range c.people {
		person, _ := e.Detail["person"].(string)
		if !voters[person] || !slices.Contains(audit.RosterActions(), e.Action) {
			c.fail("roster event %s (%s) is not about a voter of this withdrawal", e.ID, e.Action)
		}
	}
}

// rosterBefore is who could vote with what, by the events before a leaf.
func (c *check) rosterBefore(leaf int64) []approval.Person {
	var people []approval.Person
	for _, e := range c.people {
		if e.leaf >= leaf {
			break
		}
		people = enact(people, e)
	}
	return people
}

// enact applies one roster event. One that cannot be read changes nobody into an
// approver: the votes that need it then fail.
func enact(people []approval.Person, e event) []approval.Person {
	var d struct {
		Person    string   `json:"person"`
		Name      string   `json:"name"`
		Roles     []string `json:"roles"`
		Passkey   string   `json:"passkey"`
		PublicKey string   `json:"public_key"`
		Software  bool     `json:"software"`
	}
	if err := e.DecodeDetail(&d); err != nil || d.Person == "" {
		return people
	}
	at := slices.IndexFunc(people, func(p approval.Person) bool { return p.ID == d.Person })
	if at < 0 {
		at = len(people)
		people = append(people, approval.Person{ID: d.Person})
	}
	p := &people[at]
	switch e.Action {
	case audit.PersonCreated, audit.PasskeyEnrolled:
		p.Name, p.Approver = d.Name, slices.Contains(d.Roles, "approver")
	case audit.PersonDisabled:
		p.Disabled = true
	}
	id, err1 := binary(d.Passkey)
	key, err2 := binary(d.PublicKey)
	if errors.Join(err1, err2) != nil || len(id) == 0 {
		return people
	}
	switch e.Action {
	case audit.PasskeyEnrolled:
		p.Passkeys = append(p.Passkeys, approval.Passkey{ID: id, PublicKey: key, Software: d.Software})
	case audit.PasskeyRevoked:
		for i := range p.Passkeys {
			if bytes.Equal(p.Passkeys[i].ID, id) {
				p.Passkeys[i].Revoked = true
			}
		}
	}
	return people
}

func (c *check) names(ids []string, leaf int64) string {
	var names []string
	for _, p := range c.rosterBefore(leaf) {
		if slices.Contains(ids, p.ID) {
			names = append(names, p.Name)
		}
	}
	return strings.Join(names, " and ")
}
