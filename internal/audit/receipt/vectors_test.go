package receipt_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/shopspring/decimal"
	"golang.org/x/mod/sumdb/tlog"

	"sluice/internal/approval"
	"sluice/internal/audit"
	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/withdraw"
)

// The vectors in docs/trust.md let another language check its own
// implementation. They must be what this one does.
func TestPublishedVectors(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/trust.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(doc), "<!-- vectors -->\n```json\n")
	published, _, closed := strings.Cut(after, "\n```\n")
	if !found || !closed {
		t.Fatal("docs/trust.md holds no vectors")
	}
	want, err := json.Marshal(vectors(t), jsontext.WithIndent("  "))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal([]byte(published), want) {
		t.Errorf("docs/trust.md publishes other vectors than the code makes:\n%s", want)
	}
}

// A published secret: the seed is 32 times 0x2a. It signs nothing but vectors.
const vectorKey = "PRIVATE+KEY+sluice/vectors+a7f2fb03+ASoqKioqKioqKioqKioqKioqKioqKioqKioqKioqKioq"

type vectorSet struct {
	Proposal struct {
		Sealed string `json:"sealed"`
		Digest string `json:"digest"`
	} `json:"proposal"`
	Vote struct {
		Nonce     string `json:"nonce_hex"`
		Decision  string `json:"decision"`
		Challenge string `json:"challenge_hex"`
		InClient  string `json:"challenge_in_client_data"`
	} `json:"vote"`
	Event struct {
		Body string `json:"body"`
		Leaf string `json:"leaf_hash_hex"`
	} `json:"event"`
	Tree struct {
		Bodies []string `json:"leaf_bodies"`
		Roots  []string `json:"roots_hex_at_size_0_to_3"`
		Proof  []string `json:"proof_hex_of_leaf_1_at_size_3"`
	} `json:"tree"`
	Checkpoint struct {
		Verifier string `json:"verifier_key"`
		Text     string `json:"signed_text"`
		Note     string `json:"note"`
	} `json:"checkpoint"`
}

func vectors(t *testing.T) (v vectorSet) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	id := uuid.MustParse("0195566f-8a00-7000-8000-000000000001")
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	sealed, err := withdraw.Proposal{
		ID: id, Round: 1, Account: "main", Method: exchange.OnChain, Asset: "USDT", Chain: "TRC20",
		Address: "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", Amount: decimal.RequireFromString("25.50"), MaxFee: decimal.RequireFromString("2.4"),
		DestinationID: uuid.MustParse("0195566f-8a00-7000-8000-000000000002"), DestinationVersion: 1, PolicyVersion: "builtin-1",
		Quorum: approval.Quorum{Approve: 2, Reject: 1}, Requester: "client:payroll", Reference: "invoice 7 – März",
		Purpose: "a \"quoted\" word,\na new line and €", ExpiresAt: at.Add(24 * time.Hour),
	}.Seal()
	check(err)
	digest := approval.DigestOf(sealed)
	v.Proposal.Sealed, v.Proposal.Digest = string(sealed), digest.String()

	nonce := make([]byte, approval.NonceSize)
	for i := range nonce {
		nonce[i] = byte(i)
	}
	challenge := approval.Challenge(nonce, approval.Approve, digest)
	v.Vote.Nonce, v.Vote.Decision = hex.EncodeToString(nonce), string(approval.Approve)
	v.Vote.Challenge, v.Vote.InClient = hex.EncodeToString(challenge), audit.Binary(challenge)

	body, err := audit.Event{
		ID: uuid.MustParse("0195566f-8a00-7000-8000-000000000003"), At: at, Actor: "client:payroll",
		Action: audit.WithdrawalRequested, Withdrawal: id, Detail: canonical.Object{"digest": digest.String(), "amount": "25.5"},
	}.Body()
	check(err)
	v.Event.Body, v.Event.Leaf = string(body), hash(tlog.RecordHash(body))

	var tree audit.Tree
	var stored []tlog.Hash
	v.Tree.Bodies = []string{"a", "b", "c"}
	v.Tree.Roots = []string{hash(tree.Root())}
	for _, leaf := range v.Tree.Bodies {
		stored = append(stored, tree.Append(tlog.RecordHash([]byte(leaf)))...)
		v.Tree.Roots = append(v.Tree.Roots, hash(tree.Root()))
	}
	proof, err := tlog.ProveRecord(3, 1, tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, idx := range at {
			out[i] = stored[idx]
		}
		return out, nil
	}))
	check(err)
	for _, h := range proof {
		v.Tree.Proof = append(v.Tree.Proof, hash(h))
	}

	signer, err := audit.NewSigner(vectorKey)
	check(err)
	checkpoint := audit.Checkpoint{Origin: signer.Origin(), Size: tree.Size(), Root: tree.Root()}
	v.Checkpoint.Verifier, v.Checkpoint.Text = signer.VerifierText(), checkpoint.Text()
	v.Checkpoint.Note, err = signer.Sign(checkpoint)
	check(err)
	return v
}

func hash(h tlog.Hash) string { return hex.EncodeToString(h[:]) }
