package audit_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"sluice/internal/audit"
	"sluice/internal/canonical"
	"sluice/internal/fault"
)

// hashes is a stored tree in memory.
type hashes []tlog.Hash

func (h hashes) ReadHashes(at []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(at))
	for i, idx := range at {
		if idx >= int64(len(h)) {
			return nil, fmt.Errorf("hash %d was never stored", idx)
		}
		out[i] = h[idx]
	}
	return out, nil
}

// The tree is ours for its flat memory; the library that the log is meant to
// agree with says whether it is right, at every size and from every start.
func TestTreeAgreesWithTheLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		leaves := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 8), 0, 80).Draw(t, "leaves")
		restart := rapid.IntRange(0, 80).Draw(t, "restart")
		var stored hashes
		tree := &audit.Tree{}
		for n, leaf := range leaves {
			if n == restart {
				loaded, err := audit.LoadTree(tree.Size(), stored)
				if err != nil {
					t.Fatal(err)
				}
				tree = loaded
			}
			want, err := tlog.StoredHashes(int64(n), leaf, stored)
			if err != nil {
				t.Fatal(err)
			}
			got := tree.Append(tlog.RecordHash(leaf))
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("leaf %d brings %v, the library says %v", n, got, want)
			}
			stored = append(stored, got...)
			root, err := tlog.TreeHash(int64(n+1), stored)
			if err != nil {
				t.Fatal(err)
			}
			if tree.Root() != root || tree.Size() != int64(n+1) {
				t.Fatalf("root at size %d is %v, the library says %v", n+1, tree.Root(), root)
			}
		}
	})
}

func TestEmptyTree(t *testing.T) {
	tree, err := audit.LoadTree(0, hashes(nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%x", [tlog.HashSize]byte(tree.Root())); got != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Errorf("root of the empty tree %s", got)
	}
}

func TestLoadTreeRefusesNonsense(t *testing.T) {
	for _, size := range []int64{-1, 1 << 60} {
		if _, err := audit.LoadTree(size, hashes(nil)); err == nil {
			t.Errorf("size %d was taken", size)
		}
	}
	broken := errors.New("broken")
	_, err := audit.LoadTree(3, tlog.HashReaderFunc(func([]int64) ([]tlog.Hash, error) { return nil, broken }))
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

var at = time.Date(2026, 3, 2, 9, 0, 0, 123_456_789, time.UTC)

func TestEventsReadBack(t *testing.T) {
	withdrawal := uuid.Must(uuid.NewV7())
	for name, e := range map[string]audit.Event{
		"with everything": audit.NewEvent(at, "client:payroll", audit.WithdrawalRequested, withdrawal, canonical.Object{
			"text": "ü\n\u2028\"", "number": 1<<53 - 1, "yes": true, "nothing": nil, "list": []string{"a"},
			"in": canonical.Object{"n": -5, "list": []any{canonical.Object{}}},
		}),
		"with nothing": audit.NewEvent(at, "operator:root", audit.PersonCreated, uuid.Nil, nil),
	} {
		t.Run(name, func(t *testing.T) {
			body, err := e.Body()
			if err != nil {
				t.Fatal(err)
			}
			got, err := audit.ParseEvent(body)
			if err != nil {
				t.Fatal(err)
			}
			again, err := got.Body()
			if err != nil || string(again) != string(body) {
				t.Errorf("%s became %s (%v)", body, again, err)
			}
			if got.ID != e.ID || !got.At.Equal(e.At.Truncate(time.Millisecond)) || got.Actor != e.Actor || got.Action != e.Action || got.Withdrawal != e.Withdrawal {
				t.Errorf("%+v became %+v", e, got)
			}
		})
	}
}

const goodBody = `{"action":"a","actor":"b","at":"2026-03-02T09:00:00.123Z","detail":{"n":1},"id":"0195566f-0000-7000-8000-000000000000","type":"sluice/event/1"}`

func TestParseEventTakesOneSpellingOnly(t *testing.T) {
	if _, err := audit.ParseEvent([]byte(goodBody)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"a space":                {`{"action"`, `{ "action"`},
		"another order":          {`"action":"a","actor":"b"`, `"actor":"b","action":"a"`},
		"a member twice":         {`"action":"a"`, `"action":"x","action":"a"`},
		"an unknown member":      {`"action":"a"`, `"Action":"x","action":"a"`},
		"an escaped character":   {`"a"`, `"\u0061"`},
		"a number as a float":    {`1}`, `1.0}`},
		"a number with exponent": {`1}`, `1e0}`},
		"a fraction":             {`1}`, `1.5}`},
		"a number too large":     {`1}`, `9007199254740993}`},
		"minus zero":             {`1}`, `-0}`},
		"an empty detail":        {`{"n":1}`, `{}`},
		"a detail that is none":  {`{"n":1}`, `1`},
		"another zone":           {`123Z`, `123+00:00`},
		"finer time":             {`123Z`, `123000Z`},
		"no such day":            {`03-02`, `02-30`},
		"an id in capitals":      {`0195566f`, `0195566F`},
		"another type":           {`event/1`, `event/2`},
		"invalid UTF-8":          {`"a"`, "\"\xff\""},
		"something after it":     {`event/1"}`, `event/1"} `},
	} {
		t.Run(name, func(t *testing.T) {
			body := strings.Replace(goodBody, change[0], change[1], 1)
			if body == goodBody {
				t.Fatal("nothing changed")
			}
			if e, err := audit.ParseEvent([]byte(body)); err == nil {
				t.Errorf("%s was taken as %+v", body, e)
			}
		})
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add([]byte(goodBody))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := audit.ParseEvent(b)
		if err != nil {
			return
		}
		if again, err := e.Body(); err != nil || string(again) != string(b) {
			t.Fatalf("%q was taken and is written %q (%v)", b, again, err)
		}
	})
}

func TestColumnsMustSayWhatTheBodySays(t *testing.T) {
	withdrawal := uuid.Must(uuid.NewV7())
	e := audit.NewEvent(at, "client:payroll", "a", withdrawal, nil)
	body, err := e.Body()
	if err != nil {
		t.Fatal(err)
	}
	good := audit.Row{ID: e.ID, At: at.Round(time.Microsecond), Actor: e.Actor, Action: e.Action, Withdrawal: &withdrawal, Body: body}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	last := good // 999.9999 ms: the body cuts it, the column rounds it into the next second
	last.Body, err = audit.Event{ID: e.ID, At: at.Truncate(time.Second).Add(999_999_900), Actor: e.Actor, Action: e.Action, Withdrawal: withdrawal}.Body()
	if err != nil {
		t.Fatal(err)
	}
	last.At = at.Truncate(time.Second).Add(time.Second)
	if err := last.Check(); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		change func(r *audit.Row)
		want   string
	}{
		"id":            {func(r *audit.Row) { r.ID = uuid.New() }, "id"},
		"later":         {func(r *audit.Row) { r.At = r.At.Add(2 * time.Millisecond) }, "time"},
		"earlier":       {func(r *audit.Row) { r.At = r.At.Add(-time.Millisecond) }, "time"},
		"actor":         {func(r *audit.Row) { r.Actor = "client:other" }, "actor"},
		"action":        {func(r *audit.Row) { r.Action = "b" }, "action"},
		"no withdrawal": {func(r *audit.Row) { r.Withdrawal = nil }, "withdrawal"},
		"body":          {func(r *audit.Row) { r.Body = r.Body[1:] }, "JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			r := good
			c.change(&r)
			if err := r.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want something about %s", err, c.want)
			}
		})
	}
}

func newSigner(t testing.TB, name string) (*audit.Signer, string) {
	t.Helper()
	secret, public, err := audit.NewKey(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := audit.NewSigner(secret + "\n") // as a file has it
	if err != nil {
		t.Fatal(err)
	}
	if s.VerifierText() != public {
		t.Fatalf("the signer's public half is %s, not %s", s.VerifierText(), public)
	}
	return s, secret
}

func TestCheckpointReadsBack(t *testing.T) {
	s, _ := newSigner(t, "acme")
	c := audit.Checkpoint{Origin: s.Origin(), Size: 42, Root: tlog.RecordHash(nil)}
	signed, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Verifier().Open(signed)
	if err != nil || got != c {
		t.Fatalf("%+v became %+v (%v)", c, got, err)
	}
	other, _ := newSigner(t, "acme")
	if _, err := other.Verifier().Open(signed); err == nil {
		t.Error("a key of the same name took it")
	}
	cosigned := signed + strings.SplitN(mustSign(t, other, c), "\n\n", 2)[1]
	if got, err := s.Verifier().Open(cosigned); err != nil || got != c {
		t.Errorf("with a second signature: %+v (%v)", got, err)
	}
	for i := range len(signed) {
		for bit := range 8 {
			b := []byte(signed)
			b[i] ^= 1 << bit
			if _, err := s.Verifier().Open(string(b)); err == nil {
				t.Errorf("byte %d changed to %q, and it still holds", i, b[i])
			}
		}
	}
}

func mustSign(t *testing.T, s *audit.Signer, c audit.Checkpoint) string {
	t.Helper()
	signed, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// Even with the right signature a checkpoint has one form only.
func TestCheckpointOfAnotherFormIsRefused(t *testing.T) {
	s, secret := newSigner(t, "acme")
	root := tlog.RecordHash(nil)
	for name, c := range map[string]audit.Checkpoint{
		"of another log":  {Origin: "sluice/other", Size: 1, Root: root},
		"below zero":      {Origin: s.Origin(), Size: -1, Root: root},
		"without end":     {Origin: s.Origin(), Size: 1 << 62, Root: root},
		"with more lines": {Origin: s.Origin() + "\nmore", Size: 1, Root: root},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := s.Verifier().Open(mustSign(t, s, c)); err == nil {
				t.Errorf("taken as %+v", got)
			}
		})
	}
	raw, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"a size with a sign":   fmt.Sprintf("%s\n+1\n%s\n", s.Origin(), root),
		"a size with a zero":   fmt.Sprintf("%s\n01\n%s\n", s.Origin(), root),
		"a line more":          fmt.Sprintf("%s\n1\n%s\nmore\n", s.Origin(), root),
		"a line less":          fmt.Sprintf("%s\n1\n", s.Origin()),
		"one line":             "x\n",
		"a root that is short": fmt.Sprintf("%s\n1\nAAAA\n", s.Origin()),
	} {
		signed, err := note.Sign(&note.Note{Text: text}, raw)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Verifier().Open(string(signed)); err == nil {
			t.Errorf("%s: taken as %+v", name, got)
		}
	}
	good := mustSign(t, s, audit.Checkpoint{Origin: s.Origin(), Size: 1, Root: root})
	long := good + "— " + strings.Repeat("x", 20<<10) + " AAAAAAAA\n"
	if _, err := s.Verifier().Open(long); err == nil {
		t.Error("a checkpoint of 20 kB was taken")
	}
	// The last character before the padding has bits that mean nothing.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	end := len(good) - len("=\n") - 1
	stray := good[:end] + string(alphabet[strings.IndexByte(alphabet, good[end])|1]) + good[end+1:]
	if _, err := s.Verifier().Open(stray); err == nil {
		t.Error("another spelling of the signature was taken")
	}
}

func TestKeys(t *testing.T) {
	for _, name := range []string{"two words", "a+b", "a\nb"} {
		if _, _, err := audit.NewKey(name); !fault.Is(err, "audit_key_name") {
			t.Errorf("a log called %q: %v", name, err)
		}
	}
	s, secret := newSigner(t, "acme")
	printed := fmt.Sprintf("%v %+v %#v %s", s, s, *s, s.Verifier().Name())
	if seed := secret[strings.LastIndex(secret, "+")+1:]; strings.Contains(printed, seed) {
		t.Error("the signer prints its secret")
	}
	for _, bad := range []string{"", "secret", secret[:len(secret)-8], s.VerifierText(), strings.Replace(secret, "acme", "acne", 1)} {
		_, err := audit.NewSigner(bad)
		if !fault.Is(err, "audit_key_invalid") {
			t.Errorf("got %v", err)
		}
		if bad != "" && strings.Contains(err.Error(), bad) {
			t.Error("the error quotes the key")
		}
	}
	for _, bad := range []string{"", "x", secret} {
		_, err := audit.NewVerifier(bad)
		if !fault.Is(err, "audit_verifier_invalid") {
			t.Errorf("got %v", err)
		}
		if bad != "" && strings.Contains(err.Error(), bad) {
			t.Error("the error quotes what may be the secret key")
		}
	}
}

func TestDetailOfAnotherForm(t *testing.T) {
	var d struct {
		N int `json:"n"`
	}
	e := audit.Event{Action: "a", Detail: canonical.Object{"n": 1, "more": "is fine"}}
	if err := e.DecodeDetail(&d); err != nil || d.N != 1 {
		t.Errorf("%+v (%v)", d, err)
	}
	e.Detail = canonical.Object{"n": "1"}
	if err := e.DecodeDetail(&d); err == nil {
		t.Error("text was taken for a number")
	}
	e.Detail = canonical.Object{"n": 1.5}
	if err := e.DecodeDetail(&d); err == nil {
		t.Error("a fraction was taken")
	}
}

// What an event costs: the hash of its leaf and its share of the tree.
func BenchmarkTreeAppend(b *testing.B) {
	body := []byte(strings.Repeat("x", 500))
	var tree audit.Tree
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		tree.Append(tlog.RecordHash(body))
	}
}

func BenchmarkRowCheck(b *testing.B) {
	e := audit.NewEvent(at, "client:payroll", audit.WithdrawalRequested, uuid.New(), canonical.Object{
		"digest": strings.Repeat("0", 64), "asset": "USDT", "chain": "TRC20", "amount": "25.5",
		"address": "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", "reference": "invoice 7",
	})
	body, err := e.Body()
	if err != nil {
		b.Fatal(err)
	}
	row := audit.Row{ID: e.ID, At: e.At, Actor: e.Actor, Action: e.Action, Withdrawal: &e.Withdrawal, Body: body}
	for b.Loop() {
		if err := row.Check(); err != nil {
			b.Fatal(err)
		}
	}
}
