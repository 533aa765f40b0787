// Package withdraw holds the withdrawal: its states and moves, what is sealed
// for approval, and the rules of intake. It does no I/O.
package withdraw

import "slices"

// State is where a withdrawal stands. This file is the only place in Go that
// lists the states and the moves between them; the schema repeats both, and a
// test compares the two and draws docs/lifecycle.md.
type State string

const (
	Refused    State = "refused"    // intake checks said no; recorded with the reason
	Pending    State = "pending"    // waits for votes
	Approved   State = "approved"   // quorum reached; a submit job exists in the same transaction
	Submitting State = "submitting" // an attempt is written; an answer may be on its way
	Unknown    State = "unknown"    // the answer was lost; reconciliation looks, nothing is sent
	Absent     State = "absent"     // proven not accepted, with evidence; only fresh votes lead on
	Submitted  State = "submitted"  // the exchange has it; tracked
	Held       State = "held"       // a person must decide; says why and what is allowed
	Completed  State = "completed"  // paid: the exchange finished it
	Failed     State = "failed"     // not paid: the exchange refused it for good, or ended and refunded it
	Rejected   State = "rejected"   // approvers said no
	Cancelled  State = "cancelled"  // taken back, or given up with nothing at the exchange
	Expired    State = "expired"    // not approved, or not sent, before its end
)

// Process is the part of Sluice that makes a move.
type Process string

const (
	API    Process = "api"
	Worker Process = "worker"
)

// Move is one permitted change of state.
type Move struct {
	From, To State
	By       []Process
	Why      string // for the drawing
}

// Moves lists every permitted change of state. Nothing leads back from
// Submitting to Approved: that is how money leaves twice.
var Moves = []Move{
	{Pending, Approved, []Process{API}, "the last vote that the quorum needs"},
	{Pending, Rejected, []Process{API}, "a vote to reject"},
	{Pending, Cancelled, []Process{API}, "the requester takes it back"},
	{Pending, Expired, []Process{API, Worker}, "no quorum before the proposal's end"},
	{Approved, Submitting, []Process{Worker}, "every check held again; an attempt is written"},
	{Approved, Cancelled, []Process{API}, "taken back before anything was sent"},
	{Approved, Expired, []Process{Worker}, "could not be sent before the proposal's end"},
	{Approved, Held, []Process{Worker}, "the evidence does not verify, or a check failed for good"},
	{Submitting, Submitted, []Process{Worker}, "the exchange accepted it"},
	{Submitting, Unknown, []Process{Worker}, "the answer was lost"},
	{Submitting, Failed, []Process{Worker}, "the exchange refused it for good"},
	{Submitting, Held, []Process{Worker}, "the exchange refused it and a person must mend something"},
	{Unknown, Submitted, []Process{Worker}, "found at the exchange"},
	{Unknown, Absent, []Process{Worker}, "two clean reads after the quiet period"},
	{Unknown, Held, []Process{Worker}, "what was found differs from what was approved"},
	{Absent, Approved, []Process{API}, "a fresh quorum, over a new digest"},
	{Absent, Cancelled, []Process{API}, "given up"},
	{Absent, Held, []Process{Worker}, "the exchange has it after all"},
	{Submitted, Completed, []Process{Worker}, "the exchange finished it"},
	{Submitted, Failed, []Process{Worker}, "the exchange failed or cancelled it, and refunded"},
	{Submitted, Held, []Process{Worker}, "the exchange says something that a person must read"},
	{Held, Submitted, []Process{Worker}, "the exchange has it after all"},
	{Held, Failed, []Process{Worker}, "the exchange ended it without paying"},
	{Held, Completed, []Process{Worker}, "the exchange finished it"},
	{Held, Cancelled, []Process{API}, "given up, with nothing at the exchange"},
}

// States lists every state, in the order of a payout's life.
func States() []State {
	return []State{Refused, Pending, Approved, Submitting, Unknown, Absent, Submitted, Held,
		Completed, Failed, Rejected, Cancelled, Expired}
}

// Before returns the states from which next can be reached, for the WHERE
// clause of the update that makes the move.
func Before(next State) []State {
	var from []State
	for _, m := range Moves {
		if m.To == next {
			from = append(from, m.From)
		}
	}
	return from
}

// Final tells whether nothing leads on from s.
func (s State) Final() bool {
	return !slices.ContainsFunc(Moves, func(m Move) bool { return m.From == s })
}

// SubmitJob asks the worker that owns the account to submit an approved
// withdrawal. It is inserted in the transaction of the last vote, so there is
// no approved withdrawal without a job and no job without an approval. Running
// it twice does no harm.
type SubmitJob struct {
	WithdrawalID string `json:"withdrawal_id"`
}

// Kind names the job in River's table.
func (SubmitJob) Kind() string { return "submit_withdrawal" }

// Queue is the River queue of an account.
func Queue(account string) string { return "account_" + account }
