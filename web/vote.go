package web

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"sluice/internal/approval"
	"sluice/internal/fault"
	"sluice/internal/identity"
	"sluice/internal/withdraw"
)

// base64url is how WebAuthn's JSON carries bytes.
var base64url = base64.RawURLEncoding

// voteOptions issues the nonce and asks for the passkey's signature over this
// decision on this proposal.
func (s *site) voteOptions(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Decision approval.Decision `json:"decision"`
		// Digest is what the page showed. When a fresh round has begun since, the
		// person must read again before signing something they have not seen.
		Digest string `json:"digest"`
	}
	id, err := idOf(r)
	if err == nil {
		err = read(w, r, &in)
	}
	if err == nil {
		err = known(in.Decision)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	me := viewerOf(r)
	nonce, digest, err := s.Store.OpenVote(r.Context(), me.ID, id, in.Decision, s.Now())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if in.Digest != "" && in.Digest != digest.String() {
		s.fail(w, r, fault.New(fault.Conflict, "proposal_changed", "a fresh vote has begun since this page was loaded, so nothing was signed",
			"reload the page, read it again, and vote"))
		return
	}
	keys, err := s.Store.Passkeys(r.Context(), me.ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	var ids [][]byte
	for _, k := range keys {
		if k.RevokedAt == nil && k.Software == me.Software {
			ids = append(ids, k.ID)
		}
	}
	if len(ids) == 0 {
		// An empty list would let any passkey of the site answer.
		s.fail(w, r, fault.New(fault.Forbidden, "no_passkey", "none of your passkeys can vote any more", "ask an admin for an invitation to enrol a new one"))
		return
	}
	s.reply(w, r, map[string]any{
		"nonce":     base64url.EncodeToString(nonce),
		"publicKey": identity.VoteOptions(s.Relying, approval.Challenge(nonce, in.Decision, digest), ids),
	})
}

// voteFinish hands the signed vote to the store, which checks all of it.
func (s *site) voteFinish(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Decision   approval.Decision `json:"decision"`
		Nonce      string            `json:"nonce"`
		Reason     string            `json:"reason"`
		Credential json.RawMessage   `json:"credential"`
	}
	id, err := idOf(r)
	if err == nil {
		err = read(w, r, &in)
	}
	if err == nil {
		err = known(in.Decision)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	reason, err := reasonOf(in.Reason, "")
	if err == nil && in.Decision == approval.Reject && reason == "" {
		err = fault.New(fault.Invalid, "reason_missing", "a rejection says why", "write a sentence for the requester").On("reason")
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	nonce, err := base64url.DecodeString(in.Nonce)
	if err != nil {
		s.fail(w, r, badBody(err))
		return
	}
	a, err := identity.ParseAssertion(in.Credential)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	now := s.Now()
	wd, verdict, err := s.Store.CastVote(r.Context(), id, approval.Vote{
		Person: viewerOf(r).ID.String(), Passkey: a.Passkey, Decision: in.Decision, Reason: reason, Nonce: nonce,
		AuthenticatorData: a.AuthenticatorData, ClientData: a.ClientData, Signature: a.Signature, CastAt: now,
	}, s.Relying, now)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.reply(w, r, struct {
		State     withdraw.State `json:"state"`
		Approvals int            `json:"approvals"`
		Missing   int            `json:"missing"`
	}{wd.State, len(verdict.Approvals), verdict.Missing})
}

func known(d approval.Decision) error {
	if d != approval.Approve && d != approval.Reject {
		return fault.New(fault.Invalid, "decision_unknown", "a vote says approve or reject", "send one of the two").On("decision")
	}
	return nil
}

// plainText admits what a person types as a reason: up to 500 characters, lines and
// tabs, and nothing that changes how the rest of the text is shown.
func plainText(s string) bool {
	hidden := func(r rune) bool {
		return (unicode.IsControl(r) && r != '\n' && r != '\t') || unicode.Is(unicode.Cf, r) || strings.ContainsRune("\u2028\u2029", r)
	}
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= withdraw.MaxText && !strings.ContainsFunc(s, hidden)
}
