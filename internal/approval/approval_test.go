package approval_test

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"

	"sluice/internal/approval"
)

// Each play is one way to reach, or to fake, a quorum of two out of Ana, Bo and Cy.
func TestPlays(t *testing.T) {
	for _, play := range []struct {
		name string
		play func(s *scene)
		want approval.Standing
		says string // in a fault or an ignored vote
	}{
		// Honest stories.
		{"nobody votes", func(s *scene) {}, approval.Open, ""},
		{"Ana alone", func(s *scene) { s.approves("ana") }, approval.Open, ""},
		{"Ana and Bo", func(s *scene) { s.approves("ana"); s.approves("bo") }, approval.Approved, ""},
		{"Bo and Cy", func(s *scene) { s.approves("bo"); s.approves("cy") }, approval.Approved, ""},
		{"all three", func(s *scene) { s.approves("cy"); s.approves("ana"); s.approves("bo") }, approval.Approved, ""},
		{"three are asked, two come", func(s *scene) {
			s.reseal("client:payroll", 3, 1, now.Add(time.Hour))
			s.approves("ana")
			s.approves("bo")
		}, approval.Open, ""},
		{"three are asked, three come", func(s *scene) {
			s.reseal("client:payroll", 3, 1, now.Add(time.Hour))
			s.approves("ana")
			s.approves("bo")
			s.approves("cy")
		}, approval.Approved, ""},

		// No means no.
		{"one no", func(s *scene) { s.rejects("ana") }, approval.Rejected, ""},
		{"a no wins over two that agree", func(s *scene) { s.approves("ana"); s.approves("bo"); s.rejects("cy") }, approval.Rejected, ""},
		{"a no wins when it comes first", func(s *scene) { s.rejects("cy"); s.approves("ana"); s.approves("bo") }, approval.Rejected, ""},
		{"a no wins after the end", func(s *scene) { s.rejects("cy"); s.at = now.Add(2 * time.Hour) }, approval.Rejected, ""},
		{"two noes are needed and one comes", func(s *scene) {
			s.Floor.Reject = 2
			s.reseal("client:payroll", 2, 2, now.Add(time.Hour))
			s.rejects("cy")
			s.approves("ana")
			s.approves("bo")
		}, approval.Approved, ""},

		// The end.
		{"a moment before the end", func(s *scene) {
			s.approves("ana")
			s.approves("bo")
			s.at = now.Add(time.Hour - time.Nanosecond)
		}, approval.Approved, ""},
		{"at the end", func(s *scene) { s.approves("ana"); s.approves("bo"); s.at = now.Add(time.Hour) }, approval.Lapsed, ""},
		{"after the end, with too few votes", func(s *scene) { s.approves("ana"); s.at = now.Add(2 * time.Hour) }, approval.Lapsed, ""},

		// People whose word does not count.
		{"Ana asks and agrees with herself", func(s *scene) {
			s.reseal("person:ana", 2, 1, now.Add(time.Hour))
			s.approves("ana")
			s.approves("bo")
		}, approval.Open, "Ana: whoever asked"},
		{"Ana asks, Bo and Cy agree", func(s *scene) {
			s.reseal("person:ana", 2, 1, now.Add(time.Hour))
			s.approves("bo")
			s.approves("cy")
		}, approval.Approved, ""},
		{"Ana has left since", func(s *scene) { s.approves("ana"); s.approves("bo"); s.person("ana").Disabled = true },
			approval.Open, "Ana: the person has left"},
		{"Dee is an admin", func(s *scene) { s.approves("ana"); s.approves("dee") }, approval.Open, "Dee: the person is not an approver"},
		{"Ana's key was revoked", func(s *scene) { s.approves("ana"); s.approves("bo"); s.key("ana").Revoked = true },
			approval.Open, "Ana: the passkey has been revoked"},
		{"one of Ana's other keys was revoked", func(s *scene) { s.approves("ana"); s.approves("bo"); s.person("ana").Passkeys[0].Revoked = true },
			approval.Approved, ""},
		{"the no of somebody who has left", func(s *scene) {
			s.rejects("ana")
			s.person("ana").Disabled = true
			s.approves("bo")
			s.approves("cy")
		}, approval.Approved, "Ana: the person has left"},

		// One person as two.
		{"Ana twice", func(s *scene) { s.approves("ana"); s.approves("ana") }, approval.Invalid, "Ana: a second vote"},
		{"Ana's vote copied", func(s *scene) { s.approves("ana"); s.Votes = append(s.Votes, *s.last()) }, approval.Invalid, "Ana: a second vote"},
		{"Ana agrees and then says no", func(s *scene) { s.approves("ana"); s.rejects("ana") }, approval.Invalid, "Ana: a second vote"},
		{"Ana with two keys", func(s *scene) {
			second := es256("ana's second")
			s.person("ana").Passkeys = append(s.person("ana").Passkeys, approval.Passkey{ID: second.id, PublicKey: second.cose})
			s.approves("ana")
			s.Votes = append(s.Votes, second.vote("ana", approval.Approve, s.digest()))
		}, approval.Invalid, "Ana: a second vote"},
		{"Ana's vote under Bo's name", func(s *scene) { s.approves("ana"); s.approves("ana"); s.last().Person = "bo" },
			approval.Invalid, "Bo: the passkey is not theirs"},
		{"Ana's vote under Bo's name and key id", func(s *scene) {
			s.approves("ana")
			s.approves("ana")
			s.last().Person, s.last().Passkey = "bo", cast()["bo"].id
		}, approval.Invalid, "Bo: the signature does not verify"},
		{"Bo signs Ana's nonce", func(s *scene) {
			s.approves("ana")
			nonce := s.last().Nonce
			s.approves("bo", func(g *gesture) { g.nonce = nonce })
		}, approval.Invalid, "Bo: a second vote, or a nonce used twice"},
		{"Eve is on no roster", func(s *scene) { s.approves("ana"); s.approves("eve") }, approval.Invalid, "vote of eve: nobody by that id"},
		{"nobody's vote", func(s *scene) { s.approves("ana"); s.approves("bo"); s.last().Person = "" }, approval.Invalid, "nobody by that id"},
		{"a forged vote on top of a full quorum", func(s *scene) {
			s.approves("ana")
			s.approves("bo")
			s.approves("cy")
			s.last().Signature[20] ^= 1
		}, approval.Invalid, "Cy: the signature does not verify"},

		// Votes for something else.
		{"over another request", func(s *scene) {
			s.approves("ana")
			s.approves("bo", func(g *gesture) { g.digest = approval.DigestOf([]byte("another")) })
		}, approval.Invalid, "Bo: it signs another challenge"},
		{"the request changed after the votes", func(s *scene) {
			s.approves("ana")
			s.approves("bo")
			s.Sealed = bytes.Replace(s.Sealed, []byte("25.5"), []byte("95.5"), 1)
		}, approval.Invalid, "Ana: it signs another challenge"},
		{"a no shown as a yes", func(s *scene) { s.approves("ana"); s.rejects("bo"); s.last().Decision = approval.Approve },
			approval.Invalid, "Bo: it signs another challenge"},
		{"a yes shown as a no", func(s *scene) { s.approves("ana"); s.approves("bo"); s.last().Decision = approval.Reject },
			approval.Invalid, "Bo: it signs another challenge"},
		{"another nonce", func(s *scene) { s.approves("ana"); s.approves("bo"); s.last().Nonce = newNonce() },
			approval.Invalid, "Bo: it signs another challenge"},
		{"a third decision, honestly signed", func(s *scene) {
			s.approves("ana")
			s.Votes = append(s.Votes, cast()["bo"].vote("bo", "abstain", s.digest()))
		}, approval.Invalid, "Bo: the decision is neither"},
		{"no decision", func(s *scene) { s.approves("ana"); s.approves("bo"); s.last().Decision = "" }, approval.Invalid, "Bo: the decision is neither"},
		{"APPROVE", func(s *scene) {
			s.approves("ana")
			s.Votes = append(s.Votes, cast()["bo"].vote("bo", "APPROVE", s.digest()))
		}, approval.Invalid, "Bo: the decision is neither"},
		{"no nonce", func(s *scene) { s.approves("ana", func(g *gesture) { g.nonce = nil }) }, approval.Invalid, "the nonce has the wrong length"},
		{"a long nonce", func(s *scene) { s.approves("ana", func(g *gesture) { g.nonce = make([]byte, 33) }) },
			approval.Invalid, "the nonce has the wrong length"},

		// The signing ceremony.
		{"another origin", func(s *scene) {
			s.approves("ana", func(g *gesture) {
				g.client = `{"type":"webauthn.get","challenge":"CHALLENGE","origin":"https://sluice.example.com.evil.net"}`
			})
		}, approval.Invalid, "made on another site"},
		{"the origin in capitals", func(s *scene) {
			s.approves("ana", func(g *gesture) {
				g.client = `{"type":"webauthn.get","challenge":"CHALLENGE","origin":"https://SLUICE.example.com"}`
			})
		}, approval.Invalid, "made on another site"},
		{"no origin", func(s *scene) {
			s.approves("ana", func(g *gesture) { g.client = `{"type":"webauthn.get","challenge":"CHALLENGE"}` })
		}, approval.Invalid, "made on another site"},
		{"the second of our origins", func(s *scene) {
			s.approves("ana", func(g *gesture) {
				g.client = `{"type":"webauthn.get","challenge":"CHALLENGE","origin":"https://pay.example.com","other_keys_can_be_added_here":"do not compare"}`
			})
			s.approves("bo")
		}, approval.Approved, ""},
		{"in a frame of another site", func(s *scene) {
			s.approves("ana", func(g *gesture) {
				g.client = `{"type":"webauthn.get","challenge":"CHALLENGE","origin":"` + origin + `","crossOrigin":true,"topOrigin":"https://evil.net"}`
			})
		}, approval.Invalid, "made on another site"},
		{"an enrolment shown as a vote", func(s *scene) {
			s.approves("ana", func(g *gesture) {
				g.client = `{"type":"webauthn.create","challenge":"CHALLENGE","origin":"` + origin + `"}`
			})
		}, approval.Invalid, "not a WebAuthn assertion"},
		{"another site's passkey", func(s *scene) { s.approves("ana", func(g *gesture) { g.rpID = "evil.net" }) },
			approval.Invalid, "made for another site"},
		{"nobody was there", func(s *scene) { s.approves("ana", func(g *gesture) { g.flags = 0x04 }) },
			approval.Invalid, "did not verify its user"},
		{"no PIN, no finger", func(s *scene) { s.approves("ana", func(g *gesture) { g.flags = 0x01 }) },
			approval.Invalid, "did not verify its user"},
		{"neither", func(s *scene) { s.approves("ana", func(g *gesture) { g.flags = 0xfa }) }, approval.Invalid, "did not verify its user"},
		{"a synced passkey", func(s *scene) {
			s.approves("ana", func(g *gesture) { g.flags = 0x1d })
			s.approves("bo")
		}, approval.Approved, ""},
		{"authenticator data cut short", func(s *scene) { s.approves("ana"); s.last().AuthenticatorData = s.last().AuthenticatorData[:36] },
			approval.Invalid, "too short"},
		{"no authenticator data", func(s *scene) { s.approves("ana"); s.last().AuthenticatorData = nil }, approval.Invalid, "too short"},
		{"no client data", func(s *scene) { s.approves("ana"); s.last().ClientData = nil }, approval.Invalid, "cannot be read"},
		{"no signature", func(s *scene) { s.approves("ana"); s.last().Signature = nil }, approval.Invalid, "does not verify"},
		{"a padded challenge", func(s *scene) {
			s.approves("ana", func(g *gesture) {
				h := approval.Challenge(g.nonce, g.decision, g.digest)
				g.challenge = base64.URLEncoding.EncodeToString(h)
			})
		}, approval.Invalid, "another challenge"},
		{"an empty challenge", func(s *scene) {
			s.approves("ana", func(g *gesture) { g.client = `{"type":"webauthn.get","challenge":"","origin":"` + origin + `"}` })
		}, approval.Invalid, "another challenge"},

		// Keys.
		{"Eve's key in place of Ana's", func(s *scene) { s.approves("ana"); s.key("ana").PublicKey = cast()["eve"].cose },
			approval.Invalid, "the signature does not verify"},
		{"Ana's key is not CBOR", func(s *scene) { s.approves("ana"); s.key("ana").PublicKey = []byte("PEM") },
			approval.Invalid, "public key cannot be read"},
		{"Ana's key is gone", func(s *scene) { s.approves("ana"); s.key("ana").PublicKey = nil }, approval.Invalid, "public key cannot be read"},
		{"Ana's key is cut short", func(s *scene) { s.approves("ana"); s.key("ana").PublicKey = cast()["ana"].cose[:60] },
			approval.Invalid, "public key cannot be read"},
		{"Ana's key is no point of its curve", func(s *scene) {
			s.approves("ana")
			s.key("ana").PublicKey = must(webauthncbor.Marshal(webauthncose.EC2PublicKeyData{
				PublicKeyData: webauthncose.PublicKeyData{KeyType: int64(webauthncose.EllipticKey), Algorithm: int64(webauthncose.AlgES256)},
				Curve:         int64(webauthncose.P256), XCoord: make([]byte, 32), YCoord: make([]byte, 32)}))
		}, approval.Invalid, "public key cannot be read"},
		{"Bo's key has a short coordinate", func(s *scene) {
			s.approves("bo")
			s.key("bo").PublicKey = must(webauthncbor.Marshal(webauthncose.OKPPublicKeyData{
				PublicKeyData: webauthncose.PublicKeyData{KeyType: int64(webauthncose.OctetKey), Algorithm: int64(webauthncose.AlgEdDSA)},
				Curve:         int64(webauthncose.Ed25519), XCoord: make([]byte, 31)}))
		}, approval.Invalid, "public key cannot be read"},
		{"Ana's key names another algorithm", func(s *scene) {
			s.approves("ana")
			s.key("ana").PublicKey = bytes.Replace(cast()["ana"].cose, []byte{0x03, 0x26}, []byte{0x03, 0x27}, 1) // ES256 to EdDSA
		}, approval.Invalid, "public key cannot be read"},
		{"software passkeys outside dev", func(s *scene) { s.approves("ana"); s.approves("bo"); s.key("bo").Software = true },
			approval.Invalid, "Bo: a software passkey counts only in"},
		{"software passkeys in dev", func(s *scene) {
			s.approves("ana")
			s.approves("bo")
			s.key("bo").Software, s.Relying.Software = true, true
		}, approval.Approved, ""},

		// Terms that the caller does not accept.
		{"fewer votes sealed than the floor", func(s *scene) {
			s.reseal("client:payroll", 1, 1, now.Add(time.Hour))
			s.approves("ana")
			s.approves("bo")
		}, approval.Invalid, "easier to approve"},
		{"more noes sealed than the floor", func(s *scene) {
			s.reseal("client:payroll", 2, 99, now.Add(time.Hour))
			s.approves("ana")
			s.approves("bo")
			s.rejects("cy")
		}, approval.Invalid, "harder to reject"},
		{"no votes sealed, no floor", func(s *scene) {
			s.Floor = approval.Quorum{}
			s.reseal("client:payroll", 0, 1, now.Add(time.Hour))
		}, approval.Invalid, "easier to approve"},
		{"a negative quorum", func(s *scene) {
			s.Floor = approval.Quorum{}
			s.reseal("client:payroll", -1, 1, now.Add(time.Hour))
		}, approval.Invalid, "easier to approve"},
		{"no way to reject", func(s *scene) {
			s.reseal("client:payroll", 2, 0, now.Add(time.Hour))
			s.approves("ana")
			s.approves("bo")
		}, approval.Invalid, "harder to reject"},
		{"no requester", func(s *scene) {
			s.reseal("", 2, 1, now.Add(time.Hour))
			s.approves("ana")
			s.approves("bo")
		}, approval.Invalid, "names no requester"},
		{"no end", func(s *scene) {
			s.reseal("client:payroll", 2, 1, time.Time{})
			s.approves("ana")
			s.approves("bo")
		}, approval.Invalid, "or end"},
		{"a floor of nothing takes what is sealed", func(s *scene) {
			s.Floor = approval.Quorum{}
			s.reseal("client:payroll", 1, 3, now.Add(time.Hour))
			s.approves("ana")
		}, approval.Approved, ""},
	} {
		t.Run(play.name, func(t *testing.T) {
			s := newScene()
			play.play(s)
			v := s.verify()
			if v.Standing != play.want {
				t.Errorf("want %s, got %s", play.want, tale(v))
			}
			if said := strings.Join(append(slices.Clone(v.Faults), v.Ignored...), "\n"); !strings.Contains(said, play.says) || (play.says == "" && said != "") {
				t.Errorf("want %q said, got %s", play.says, tale(v))
			}
			if v.Digest != s.digest() {
				t.Error("the verdict is about another digest")
			}
		})
	}
}

func TestTheVerdictCounts(t *testing.T) {
	s := newScene()
	s.reseal("person:fay", 3, 2, now.Add(time.Hour))
	s.Floor.Reject = 2
	s.approves("ana")
	s.rejects("bo")
	s.approves("fay")
	v := s.verify()
	if v.Standing != approval.Open || !slices.Equal(v.Approvals, []string{"ana"}) || !slices.Equal(v.Rejections, []string{"bo"}) ||
		v.Missing != 2 || len(v.Ignored) != 1 || len(v.Faults) != 0 {
		t.Error(tale(v))
	}
	want := approval.Terms{Requester: "person:fay", Quorum: approval.Quorum{Approve: 3, Reject: 2}, ExpiresAt: now.Add(time.Hour)}
	if v.Terms != want {
		t.Errorf("terms %+v, want %+v", v.Terms, want)
	}
}

// Sealed bytes come from the database, and whoever took over the api could seal
// what they like and have people sign it. No two readers may read two things.
func TestHostileSealedBytes(t *testing.T) {
	const rest = `"requester":"client:payroll","expires_at":"2026-11-23T11:00:00.000Z"`
	for name, sealed := range map[string]string{
		"quorum twice":                  `{"quorum":{"approve":3,"reject":1},"quorum":{"approve":2,"reject":1},` + rest + `}`,
		"approve twice":                 `{"quorum":{"approve":3,"reject":1,"approve":2},` + rest + `}`,
		"quorum twice, once escaped":    `{"quorum":{"approve":3,"reject":1},"\u0071uorum":{"approve":2,"reject":1},` + rest + `}`,
		"requester twice":               `{"quorum":{"approve":2,"reject":1},"requester":"person:ana",` + rest + `}`,
		"Quorum alone":                  `{"Quorum":{"approve":2,"reject":1},` + rest + `}`,
		"APPROVE":                       `{"quorum":{"APPROVE":2,"reject":1},` + rest + `}`,
		"Requester alone":               `{"quorum":{"approve":2,"reject":1},"Requester":"client:payroll","expires_at":"2026-11-23T11:00:00.000Z"}`,
		"Expires_At alone":              `{"quorum":{"approve":2,"reject":1},"requester":"client:payroll","Expires_At":"2026-11-23T11:00:00.000Z"}`,
		"a letter that folds to k or s": `{"quorum":{"approve":2,"reject":1},"reque` + "\u017f" + `ter":"client:payroll","expires_at":"2026-11-23T11:00:00.000Z"}`,
		"another value after the first": `{"quorum":{"approve":2,"reject":1},` + rest + `}{"quorum":{"approve":9,"reject":1}}`,
		"a byte after the end":          `{"quorum":{"approve":2,"reject":1},` + rest + `}x`,
		"NUL after the end":             `{"quorum":{"approve":2,"reject":1},` + rest + "}\x00",
		"a huge quorum":                 `{"quorum":{"approve":18446744073709551618,"reject":1},` + rest + `}`,
		"a quorum with an exponent":     `{"quorum":{"approve":2e0,"reject":1},` + rest + `}`,
		"a quorum with a fraction":      `{"quorum":{"approve":2.0,"reject":1},` + rest + `}`,
		"a quorum in a string":          `{"quorum":{"approve":"2","reject":1},` + rest + `}`,
		"no quorum":                     `{` + rest + `}`,
		"a null quorum":                 `{"quorum":null,` + rest + `}`,
		"bad UTF-8 in a requester":      `{"quorum":{"approve":2,"reject":1},"requester":"person:` + "\xff" + `","expires_at":"2026-11-23T11:00:00.000Z"}`,
		"half a surrogate":              `{"quorum":{"approve":2,"reject":1},"requester":"person:\ud800","expires_at":"2026-11-23T11:00:00.000Z"}`,
		"a null end":                    `{"quorum":{"approve":2,"reject":1},"requester":"client:payroll","expires_at":null}`,
		"a time of another form":        `{"quorum":{"approve":2,"reject":1},"requester":"client:payroll","expires_at":"2026-11-23 11:00"}`,
		"a time as a number":            `{"quorum":{"approve":2,"reject":1},"requester":"client:payroll","expires_at":1795431600}`,
		"an array":                      `[{"quorum":{"approve":2,"reject":1},` + rest + `}]`,
		"null":                          `null`,
		"nothing":                       ``,
		"a byte order mark":             "\ufeff" + `{"quorum":{"approve":2,"reject":1},` + rest + `}`,
		"very deep":                     `{"quorum":{"approve":2,"reject":1},` + rest + `,"x":` + strings.Repeat("[", 1_000_000),
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene()
			s.Sealed = []byte(sealed)
			s.approves("ana")
			s.approves("bo")
			if v := s.verify(); v.Standing != approval.Invalid || len(v.Faults) == 0 {
				t.Error(tale(v))
			}
		})
	}
	// The sentinel: these very votes pass over honest bytes, and what Verify does not
	// know is not its business. A name in another case is a name that it does not know.
	s := newScene()
	s.Sealed = []byte(`{"Quorum":{"approve":1,"reject":9},"quorum":{"approve":2,"reject":1},"more":[1.5],` + rest + `}`)
	s.approves("ana")
	if v := s.verify(); v.Standing != approval.Open || v.Terms.Quorum != (approval.Quorum{Approve: 2, Reject: 1}) {
		t.Error(tale(v))
	}
	s.approves("bo")
	if v := s.verify(); v.Standing != approval.Approved {
		t.Error(tale(v))
	}
}

func TestHostileClientData(t *testing.T) {
	const good = `"type":"webauthn.get","challenge":"CHALLENGE","origin":"` + origin + `"`
	for name, client := range map[string]string{
		"challenge twice":           `{"challenge":"AAAA",` + good + `}`,
		"challenge twice, the same": `{"challenge":"CHALLENGE",` + good + `}`,
		"origin twice":              `{"origin":"https://evil.net",` + good + `}`,
		"type twice":                `{"type":"webauthn.create",` + good + `}`,
		"crossOrigin twice":         `{"crossOrigin":true,` + good + `,"crossOrigin":false}`,
		"CHALLENGE in capitals":     `{"type":"webauthn.get","challenge":"AAAA","Challenge":"CHALLENGE","origin":"` + origin + `"}`,
		"Challenge alone":           `{"type":"webauthn.get","Challenge":"CHALLENGE","origin":"` + origin + `"}`,
		"ORIGIN alone":              `{"type":"webauthn.get","challenge":"CHALLENGE","ORIGIN":"` + origin + `"}`,
		"Type alone":                `{"Type":"webauthn.get","challenge":"CHALLENGE","origin":"` + origin + `"}`,
		"an escaped second":         `{"\u0063hallenge":"AAAA",` + good + `}`,
		"crossOrigin as text":       `{` + good + `,"crossOrigin":"true"}`,
		"crossOrigin as a number":   `{` + good + `,"crossOrigin":1}`,
		"text after the end":        `{` + good + `}{}`,
		"an array":                  `[{` + good + `}]`,
		"bad UTF-8":                 `{` + good + ",\"x\":\"\xff\"}",
		"null":                      `null`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene()
			s.approves("ana")
			s.approves("bo", func(g *gesture) { g.client = client })
			if v := s.verify(); v.Standing != approval.Invalid {
				t.Errorf("%s\n%s", s.last().ClientData, tale(v))
			}
		})
	}
}

func TestMayVote(t *testing.T) {
	terms := approval.Terms{Requester: "person:ana"}
	for _, c := range []struct {
		person approval.Person
		want   bool
	}{
		{approval.Person{ID: "ana", Approver: true}, false}, {approval.Person{ID: "bo", Approver: true}, true},
		{approval.Person{ID: "bo"}, false}, {approval.Person{ID: "bo", Approver: true, Disabled: true}, false},
	} {
		if why, ok := approval.MayVote(c.person, terms); ok != c.want || (why == "") != c.want {
			t.Errorf("%+v: %q, %v", c.person, why, ok)
		}
	}
}

// The challenge is what old votes were signed over: it may never change.
func TestTheChallengeIsPinned(t *testing.T) {
	nonce := bytes.Repeat([]byte{7}, approval.NonceSize)
	digest := approval.DigestOf([]byte(`{}`))
	if got := digest.String(); got != "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" {
		t.Errorf("digest %s", got)
	}
	yes := base64.RawURLEncoding.EncodeToString(approval.Challenge(nonce, approval.Approve, digest))
	no := base64.RawURLEncoding.EncodeToString(approval.Challenge(nonce, approval.Reject, digest))
	if yes != "EStwXXIPJds6S177ru1wC_3nE8AjVjZ79ISBUax2584" ||
		no != "99jmEAL7Gp3S2_jCLtzhZHIn48oP5yLj_EKqIdfOeXI" {
		t.Errorf("challenges %q and %q", yes, no)
	}
}

func TestSignCount(t *testing.T) {
	s := newScene()
	s.approves("ana")
	data := s.last().AuthenticatorData
	if n := approval.SignCount(data); n != 7 {
		t.Errorf("counter %d, want 7", n)
	}
	if n := approval.SignCount(data[:36]); n != 0 {
		t.Errorf("counter of short data %d, want 0", n)
	}
}
