package approval_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/internal/approval"
)

// defects are the ways in which a drawn vote may be no good. A forged one poisons
// the evidence; a void one does not count.
var defects = []struct {
	name   string
	forged bool
	spoil  func(s *scene, name string)
}{
	{"nothing", false, func(*scene, string) {}},
	{"signature", true, func(s *scene, _ string) { s.last().Signature[len(s.last().Signature)/2] ^= 1 }},
	{"nonce", true, func(s *scene, _ string) { s.last().Nonce = newNonce() }},
	{"short nonce", true, func(s *scene, _ string) { s.last().Nonce = s.last().Nonce[1:] }},
	{"other digest", true, func(s *scene, name string) {
		*s.last() = cast()[name].vote(name, s.last().Decision, approval.DigestOf([]byte("other")))
	}},
	{"other decision", true, func(s *scene, _ string) {
		if s.last().Decision == approval.Approve {
			s.last().Decision = approval.Reject
		} else {
			s.last().Decision = approval.Approve
		}
	}},
	{"other site", true, func(s *scene, name string) {
		*s.last() = cast()[name].vote(name, s.last().Decision, s.digest(), func(g *gesture) { g.rpID = "evil.net" })
	}},
	{"no user verification", true, func(s *scene, name string) {
		*s.last() = cast()[name].vote(name, s.last().Decision, s.digest(), func(g *gesture) { g.flags = 0x01 })
	}},
	{"eve's hand", true, func(s *scene, name string) {
		stolen := authenticator{id: cast()[name].id, sign: cast()["eve"].sign}
		*s.last() = stolen.vote(name, s.last().Decision, s.digest())
	}},
	{"unknown key", true, func(s *scene, _ string) { s.last().Passkey = []byte("unknown") }},
	{"software", true, func(s *scene, name string) { s.key(name).Software = true }},
	{"revoked", false, func(s *scene, name string) { s.key(name).Revoked = true }},
	{"left", false, func(s *scene, name string) { s.person(name).Disabled = true }},
	{"lost the role", false, func(s *scene, name string) { s.person(name).Approver = false }},
}

// Whatever votes come in whatever order, the standing is the one that plain counting
// gives; above all, fewer than the quorum of distinct valid approvers never pass.
func TestStandingIsWhatCountingSays(t *testing.T) {
	people := []string{"ana", "bo", "cy", "dee", "fay", "eve"}
	rapid.Check(t, func(t *rapid.T) {
		s := newScene()
		floor := approval.Quorum{Approve: rapid.IntRange(0, 3).Draw(t, "floor"), Reject: rapid.IntRange(0, 2).Draw(t, "floor to reject")}
		q := approval.Quorum{Approve: rapid.IntRange(0, 4).Draw(t, "quorum"), Reject: rapid.IntRange(0, 3).Draw(t, "quorum to reject")}
		requester := rapid.SampledFrom([]string{"client:payroll", "person:ana", "person:cy", "client:ana", ""}).Draw(t, "requester")
		late := rapid.IntRange(0, 4).Draw(t, "late") == 0
		s.Floor = floor
		s.reseal(requester, q.Approve, q.Reject, now.Add(time.Hour))
		if late {
			s.at = now.Add(time.Hour)
		}

		invalid := q.Approve < 1 || q.Reject < 1 || q.Approve < floor.Approve || (floor.Reject > 0 && q.Reject > floor.Reject) || requester == ""
		valid := map[approval.Decision]map[string]bool{approval.Approve: {}, approval.Reject: {}}
		seen := map[string]bool{}
		for range rapid.IntRange(0, 5).Draw(t, "votes") {
			name := rapid.SampledFrom(people).Draw(t, "who")
			d := rapid.SampledFrom([]approval.Decision{approval.Approve, approval.Approve, approval.Approve, approval.Reject}).Draw(t, "what")
			which := 0
			if rapid.IntRange(0, 3).Draw(t, "honest") == 0 && !seen[name] && name != "eve" {
				which = rapid.IntRange(1, len(defects)-1).Draw(t, "defect")
			}
			defect := defects[which]
			s.Votes = append(s.Votes, cast()[name].vote(name, d, s.digest()))
			defect.spoil(s, name)

			// A defect of the person outlives the vote, but a second vote is refused anyhow.
			switch {
			case name == "eve" || seen[name] || defect.forged:
				invalid = true
			case which == 0 && name != "dee" && requester != "person:"+name:
				valid[d][name] = true
			}
			seen[name] = true
		}
		want := approval.Open
		switch {
		case invalid:
			want = approval.Invalid
		case len(valid[approval.Reject]) >= q.Reject:
			want = approval.Rejected
		case late:
			want = approval.Lapsed
		case len(valid[approval.Approve]) >= q.Approve:
			want = approval.Approved
		}
		if v := s.verify(); v.Standing != want {
			t.Fatalf("want %s, got %s", want, tale(v))
		}
	})
}

// Taking any vote away from the least quorum takes the approval away.
func TestNoProperSubsetOfTheQuorumPasses(t *testing.T) {
	s := newScene()
	s.reseal("client:payroll", 4, 1, now.Add(time.Hour))
	all := []string{"ana", "bo", "cy", "fay"}
	for _, name := range all {
		s.approves(name)
	}
	votes := s.Votes
	for set := range 1 << len(all) {
		s.Votes = nil
		for i := range all {
			if set&(1<<i) != 0 {
				s.Votes = append(s.Votes, votes[i])
			}
		}
		full := len(s.Votes) == len(all)
		if v := s.verify(); (v.Standing == approval.Approved) != full || v.Missing != len(all)-len(s.Votes) {
			t.Errorf("%d of %d votes: %s", len(s.Votes), len(all), tale(v))
		}
	}
}

// Every byte of what was signed, by each kind of key, counts. None is left to chance.
func TestEveryByteCounts(t *testing.T) {
	parts := []struct {
		name string
		of   func(s *scene) *[]byte
	}{
		{"sealed", func(s *scene) *[]byte { return &s.Sealed }},
		{"nonce", func(s *scene) *[]byte { return &s.last().Nonce }},
		{"authenticator data", func(s *scene) *[]byte { return &s.last().AuthenticatorData }},
		{"client data", func(s *scene) *[]byte { return &s.last().ClientData }},
		{"signature", func(s *scene) *[]byte { return &s.last().Signature }},
		{"passkey id", func(s *scene) *[]byte { return &s.last().Passkey }},
	}
	for _, last := range []string{"ana", "bo", "cy"} { // ES256, EdDSA, RS256
		s := newScene()
		s.approves("fay")
		s.approves(last)
		if v := s.verify(); v.Standing != approval.Approved {
			t.Fatalf("before any change: %s", tale(v))
		}
		for _, part := range parts {
			field := part.of(s)
			whole := *field
			try := func(change string, bytes []byte) {
				*field = bytes
				if v := s.verify(); v.Standing == approval.Approved {
					t.Errorf("%s, %s: %s, and still %s", last, part.name, change, tale(v))
				}
			}
			for i := range whole {
				flipped := bytes.Clone(whole)
				flipped[i] ^= 1 << (i % 8)
				try(fmt.Sprintf("a bit of byte %d flipped", i), flipped)
			}
			try("cut short", whole[:len(whole)-1])
			try("empty", nil)
			try("a byte longer", append(bytes.Clone(whole), 0))
			*field = whole
		}
		if v := s.verify(); v.Standing != approval.Approved {
			t.Fatalf("after all changes were undone: %s", tale(v))
		}
	}
}

// Verify reads what a taken-over database hands it: it may say no in any way, but
// never panic, and yes to nothing but what was signed.
func FuzzVerify(f *testing.F) {
	s := newScene()
	s.reseal("client:payroll", 1, 1, now.Add(time.Hour))
	s.Floor.Approve = 1
	// Fixed keys and nonces: a fuzzing run is many processes, and each must know
	// what was signed.
	seed := bytes.Repeat([]byte{7}, 32)
	signers := []authenticator{
		es256Of("ana", must(ecdsa.ParseRawPrivateKey(elliptic.P256(), seed))), eddsaOf("ana", ed25519.NewKeyFromSeed(seed)),
	}
	type parts struct{ sealed, nonce, data, client, signature, cose []byte }
	var honest []parts
	for _, a := range signers {
		v := a.vote("ana", approval.Approve, s.digest(), func(g *gesture) { g.nonce = seed })
		h := parts{s.Sealed, v.Nonce, v.AuthenticatorData, v.ClientData, v.Signature, a.cose}
		honest = append(honest, h)
		f.Add(h.sealed, h.nonce, h.data, h.client, h.signature, h.cose)
	}
	f.Add(honest[0].sealed, seed, honest[0].data, honest[0].client, make([]byte, 256), cast()["cy"].cose)
	f.Add([]byte(`{"quorum":{"approve":1,"approve":0}}`), []byte{}, []byte{}, []byte(`{"challenge":1}`), []byte{0x30}, []byte{0xa0})
	f.Fuzz(func(t *testing.T, sealed, nonce, data, client, signature, cose []byte) {
		e := s.Evidence
		e.Sealed = sealed
		e.Roster = []approval.Person{{ID: "ana", Name: "Ana", Approver: true, Passkeys: []approval.Passkey{{ID: []byte("k"), PublicKey: cose}}}}
		e.Votes = []approval.Vote{{Person: "ana", Passkey: []byte("k"), Decision: approval.Approve, Nonce: nonce,
			AuthenticatorData: data, ClientData: client, Signature: signature}}
		v := approval.Verify(e, now)
		approval.SignCount(data)
		signed := slices.ContainsFunc(honest, func(h parts) bool {
			// A key may be written in another way and be the same key; what it signed may not.
			return bytes.Equal(h.sealed, sealed) && bytes.Equal(h.nonce, nonce) && bytes.Equal(h.data, data) &&
				bytes.Equal(h.client, client) && bytes.Equal(h.signature, signature)
		})
		if v.Standing == approval.Approved && !signed {
			t.Fatalf("approved what nobody signed: %s", tale(v))
		}
	})
}

// The worker verifies before each submission and the api after each vote: five votes
// may take a millisecond (architecture, section 12 and the goals).
func BenchmarkVerifyFiveVotes(b *testing.B) {
	for name, make := range map[string]func(string) authenticator{"ES256": es256, "EdDSA": eddsa, "RS256": rs256} {
		b.Run(name, func(b *testing.B) {
			s := newScene()
			s.reseal("client:payroll", 5, 1, now.Add(time.Hour))
			s.Roster = nil
			for _, who := range []string{"a", "b", "c", "d", "e"} {
				key := make(who)
				s.Roster = append(s.Roster, approval.Person{ID: who, Name: who, Approver: true,
					Passkeys: []approval.Passkey{{ID: key.id, PublicKey: key.cose}}})
				s.Votes = append(s.Votes, key.vote(who, approval.Approve, s.digest()))
			}
			b.ReportAllocs()
			for b.Loop() {
				if v := s.verify(); v.Standing != approval.Approved {
					b.Fatal(tale(v))
				}
			}
		})
	}
}
