// Package receipttest tells the story of one payout as it would stand in the
// record, with real keys and real signatures, for tests of receipts.
package receipttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
	"golang.org/x/mod/sumdb/tlog"

	"sluice/internal/approval"
	"sluice/internal/audit"
	"sluice/internal/audit/receipt"
	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/withdraw"
)

// Site is where the story's passkeys belong.
var Site = approval.Relying{ID: "localhost", Origins: []string{"http://localhost:8080"}, Software: true}

// Approver is a person with one software passkey.
type Approver struct {
	ID      uuid.UUID
	Name    string
	Passkey []byte
	key     *ecdsa.PrivateKey
}

// NewApprover makes a person with a fresh key.
func NewApprover(name string) Approver {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	return Approver{ID: uuid.Must(uuid.NewV7()), Name: name, Passkey: []byte("passkey of " + name), key: key}
}

// COSE is the public key as WebAuthn writes it: an EC2 key for ES256.
func (a Approver) COSE() []byte {
	point, err := a.key.PublicKey.Bytes() // 0x04, X, Y
	must(err)
	cose := []byte{0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20}
	cose = append(cose, point[1:33]...)
	cose = append(cose, 0x22, 0x58, 0x20)
	return append(cose, point[33:]...)
}

// Vote signs a decision over a digest, as an authenticator with user
// verification would.
func (a Approver) Vote(d approval.Decision, digest approval.Digest, at time.Time) approval.Vote {
	nonce := make([]byte, approval.NonceSize)
	_, err := rand.Read(nonce)
	must(err)
	client, err := json.Marshal(map[string]any{
		"type": "webauthn.get", "origin": Site.Origins[0], "crossOrigin": false,
		"challenge": base64.RawURLEncoding.EncodeToString(approval.Challenge(nonce, d, digest)),
	})
	must(err)
	rp := sha256.Sum256([]byte(Site.ID))
	data := append(rp[:], 0x05, 0, 0, 0, 0) // user present and verified; counter 0
	clientHash := sha256.Sum256(client)
	message := sha256.Sum256(append(slices.Clone(data), clientHash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, a.key, message[:])
	must(err)
	return approval.Vote{Person: a.ID.String(), Passkey: a.Passkey, Decision: d, Nonce: nonce,
		AuthenticatorData: data, ClientData: client, Signature: signature, CastAt: at}
}

// Sent is one submission.
type Sent struct {
	ID         uuid.UUID
	Number     int
	Remark     string
	Body       []byte
	SignedAt   time.Time
	ExchangeID int64 // 0 unless accepted
}

// Story is one payout with its whole log. Tests change it before they make the
// receipt, to tell the story of a thief.
type Story struct {
	Approvers []Approver
	Proposal  withdraw.Proposal
	Sealed    []byte
	Votes     []approval.Vote
	Attempts  []Sent
	Events    []audit.Event // the log, with events of other things in between
}

// Paid tells of a payout that two people approved, that the exchange first
// turned away for its rate limit, then accepted with an answer that was lost,
// and finished.
func Paid() *Story {
	start := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	clock := start
	next := func() time.Time { clock = clock.Add(time.Second); return clock }

	s := &Story{Approvers: []Approver{NewApprover("ana"), NewApprover("bo")}}
	id := uuid.Must(uuid.NewV7())
	s.Proposal = withdraw.Proposal{
		ID: id, Round: 1, Account: "main", Method: exchange.OnChain, Asset: "USDT", Chain: "TRC20",
		Address: "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", Amount: decimal.RequireFromString("25.5"), MaxFee: decimal.RequireFromString("2.4"),
		DestinationID: uuid.Must(uuid.NewV7()), DestinationVersion: 1, PolicyVersion: "builtin-1",
		Quorum: approval.Quorum{Approve: 2, Reject: 1}, Requester: "client:payroll", Reference: "invoice 7",
		Purpose: "March", ExpiresAt: start.Add(24 * time.Hour),
	}
	var err error
	s.Sealed, err = s.Proposal.Seal()
	must(err)
	digest := approval.DigestOf(s.Sealed)

	for _, a := range s.Approvers {
		s.tell(next(), "operator:root", audit.PersonCreated, uuid.Nil,
			canonical.Object{"person": a.ID.String(), "name": a.Name, "roles": []string{"approver"}})
		s.tell(next(), "person:"+a.ID.String(), audit.PasskeyEnrolled, uuid.Nil,
			audit.PasskeyDetail(a.ID, a.Name, []string{"approver"}, a.Passkey, a.COSE(), true))
	}
	s.tell(next(), "client:payroll", audit.WithdrawalRequested, id, canonical.Object{"digest": digest.String()})
	s.tell(next(), "client:other", audit.WithdrawalRequested, uuid.Must(uuid.NewV7()), canonical.Object{"digest": "of something else"})
	for _, a := range s.Approvers {
		v := a.Vote(approval.Approve, digest, next())
		v.Reason = "invoice seen by " + a.Name
		s.Votes = append(s.Votes, v)
		s.tell(v.CastAt, "person:"+v.Person, audit.VoteCast, id, audit.VoteDetail(digest, v))
	}
	s.tell(clock, "person:"+s.Approvers[1].ID.String(), audit.WithdrawalApproved, id, canonical.Object{"digest": digest.String()})

	first := s.Attempt(next())
	s.tell(next(), "worker:main", audit.SubmissionNotAccepted, id, canonical.Object{"attempt": first.ID.String()})
	second := s.Attempt(next())
	s.tell(next(), "worker:main", audit.SubmissionUnknown, id, canonical.Object{"attempt": second.ID.String()})
	s.tell(next(), "operator:root", "account.created", uuid.Nil, canonical.Object{"account": "other"})
	second.ExchangeID = 31200001
	s.tell(next(), "worker:main", audit.SubmissionAccepted, id, canonical.Object{"attempt": second.ID.String(), "exchange_id": second.ExchangeID})
	s.tell(next(), "worker:main", audit.WithdrawalCompleted, id, canonical.Object{"exchange_id": second.ExchangeID, "tx_id": "9f3c"})
	return s
}

// Attempt adds a submission of what was approved, and the event of it.
func (s *Story) Attempt(at time.Time) *Sent {
	number := len(s.Attempts) + 1
	remark := withdraw.Remark(s.Proposal.ID, number)
	p := s.Proposal
	body := fmt.Appendf(nil, `{"ccy":%q,"chain":%q,"to_address":%q,"withdraw_method":%q,"amount":%q,"remark":%q}`,
		p.Asset, p.Chain, p.Address, p.Method, p.Amount.String(), remark)
	s.Attempts = append(s.Attempts, Sent{ID: uuid.Must(uuid.NewV7()), Number: number, Remark: remark, Body: body, SignedAt: at})
	a := &s.Attempts[number-1]
	s.tell(at, "worker:main", audit.SubmissionAttempted, p.ID,
		audit.AttemptDetail(a.ID, number, withdraw.DigestOf(s.Sealed), remark, body, at, 5000))
	return a
}

func (s *Story) tell(at time.Time, actor, action string, withdrawal uuid.UUID, detail canonical.Object) {
	s.Events = append(s.Events, audit.NewEvent(at, actor, action, withdrawal, detail))
}

// Find is the index in the log of the n-th event (from 0) with an action.
func (s *Story) Find(action string, n int) int {
	for i, e := range s.Events {
		if e.Action != action {
			continue
		}
		if n == 0 {
			return i
		}
		n--
	}
	panic("no such event: " + action)
}

// Move takes the event at one place of the log to another.
func (s *Story) Move(from, to int) {
	e := s.Events[from]
	s.Events = slices.Insert(slices.Delete(s.Events, from, from+1), to, e)
}

// Drop takes an event out of the log.
func (s *Story) Drop(at int) { s.Events = slices.Delete(s.Events, at, at+1) }

// Log is the story's log in memory.
type Log struct {
	Bodies [][]byte
	Hashes []tlog.Hash
	Note   string
}

// ReadHashes implements tlog.HashReader.
func (l Log) ReadHashes(at []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(at))
	for i, idx := range at {
		out[i] = l.Hashes[idx]
	}
	return out, nil
}

// Log puts the events under a tree and signs it.
func (s *Story) Log(signer *audit.Signer) Log {
	var l Log
	var tree audit.Tree
	for _, e := range s.Events {
		body, err := e.Body()
		must(err)
		l.Bodies = append(l.Bodies, body)
		l.Hashes = append(l.Hashes, tree.Append(tlog.RecordHash(body))...)
	}
	var err error
	l.Note, err = signer.Sign(audit.Checkpoint{Origin: signer.Origin(), Size: tree.Size(), Root: tree.Root()})
	must(err)
	return l
}

// Receipt exports the story's payout.
func (s *Story) Receipt(signer *audit.Signer) receipt.Receipt {
	log := s.Log(signer)
	r := receipt.Receipt{Type: receipt.Type, Withdrawal: s.Proposal.ID, Site: Site, Checkpoint: log.Note, Proposals: []string{string(s.Sealed)}}
	for _, v := range s.Votes {
		r.Votes = append(r.Votes, receipt.Assertion{AuthenticatorData: v.AuthenticatorData, ClientData: v.ClientData, Signature: v.Signature})
	}
	for _, a := range s.Attempts {
		r.Attempts = append(r.Attempts, string(a.Body))
	}
	for i, e := range s.Events {
		proof, err := tlog.ProveRecord(int64(len(s.Events)), int64(i), log)
		must(err)
		entry := receipt.Entry{Leaf: int64(i), Body: string(log.Bodies[i]), Proof: proof}
		switch {
		case e.Withdrawal == s.Proposal.ID:
			r.Events = append(r.Events, entry)
		case slices.Contains(audit.RosterActions(), e.Action):
			r.Roster = append(r.Roster, entry)
		}
	}
	return r
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
