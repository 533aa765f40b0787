package pgstore

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sluice/internal/approval"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/identity"
	"sluice/internal/pgstore/pgserver"
	"sluice/internal/pgstore/pgtest"
	"sluice/internal/whitelist"
)

const testOrigin = "http://localhost:8080"

var (
	testTime    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	testRelying = approval.Relying{ID: "localhost", Origins: []string{testOrigin}, Software: true}
)

// openAs opens the test's own database under a role.
func openAs(t *testing.T, role string) *Store {
	t.Helper()
	s, err := Open(t.Context(), pgtest.URL(t, role))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// owner is who sets things up: an operator at the command line.
func owner(t *testing.T) *Store { return openAs(t, pgserver.Superuser) }

func addPerson(t *testing.T, s *Store, name string, roles ...identity.Role) identity.Person {
	t.Helper()
	p, err := s.AddPerson(t.Context(), identity.Person{Name: name, DisplayName: strings.ToUpper(name), Roles: roles}, "operator:test", testTime)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func invite(t *testing.T, s *Store, p identity.Person) (token string, hash []byte) {
	t.Helper()
	token, _, err := s.Invite(t.Context(), p.ID, "operator:test", testTime)
	if err != nil {
		t.Fatal(err)
	}
	if hash, err = identity.HashInvitation(token); err != nil {
		t.Fatal(err)
	}
	return token, hash
}

func passkeyOf(p identity.Person, id string) identity.Passkey {
	return identity.Passkey{ID: []byte(id), Person: p.ID, PublicKey: []byte("cose"), CreatedAt: testTime}
}

// eventBodies returns the details of all events of an action.
func eventBodies(t *testing.T, s *Store, action string) []map[string]any {
	t.Helper()
	rows, err := s.Pool.Query(t.Context(), "SELECT actor, body FROM audit_events WHERE action = $1 ORDER BY id", action)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var list []map[string]any
	for rows.Next() {
		var actor string
		var body []byte
		if err := rows.Scan(&actor, &body); err != nil {
			t.Fatal(err)
		}
		var b struct{ Detail map[string]any }
		if err := json.Unmarshal(body, &b); err != nil {
			t.Fatal(err)
		}
		b.Detail["actor"] = actor
		list = append(list, b.Detail)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

func wantEvents(t *testing.T, s *Store, action string, want ...map[string]any) {
	t.Helper()
	if got := eventBodies(t, s, action); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s:\ngot  %v\nwant %v", action, got, want)
	}
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	if !fault.Is(err, code) {
		t.Errorf("got %v, want %s", err, code)
	}
}

// The whole of a person's way in, with the api under its own role.
func TestInviteEnrolSignIn(t *testing.T) {
	own, api := owner(t), openAs(t, "sluice_api")
	ana := addPerson(t, own, "ana", identity.Approver, identity.Requester)
	token, _ := invite(t, api, ana)

	keys, err := identity.NewPasskeys(testRelying, api, func() time.Time { return testTime })
	if err != nil {
		t.Fatal(err)
	}
	software, err := identity.OpenSoftware(filepath.Join(t.TempDir(), "passkeys.json"))
	if err != nil {
		t.Fatal(err)
	}
	invited, options, state, err := keys.BeginEnrolment(t.Context(), token)
	if err != nil || fmt.Sprint(invited) != fmt.Sprint(ana) {
		t.Fatalf("%v, %v", invited, err)
	}
	credential, err := software.Of("ana").Create(options, testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.FinishEnrolment(t.Context(), token, state, credential, "phone"); err != nil {
		t.Fatal(err)
	}
	_, err = keys.FinishEnrolment(t.Context(), token, state, credential, "phone")
	wantCode(t, err, "invitation_used")

	list, err := api.Passkeys(t.Context(), ana.ID)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	k := list[0]
	if !k.Software || k.Label != "phone" || k.SignCount != 0 || !slices.Equal(k.Transports, []string{"internal"}) || k.LastUsedAt != nil {
		t.Errorf("stored %+v", k)
	}

	if options, state, err = keys.BeginSignIn(); err != nil {
		t.Fatal(err)
	}
	if credential, err = software.Of("ana").Get(options, testOrigin); err != nil {
		t.Fatal(err)
	}
	who, err := keys.FinishSignIn(t.Context(), state, credential)
	if err != nil || who.ID != ana.ID || !who.Can(identity.Approver) || who.Can(identity.Admin) {
		t.Fatalf("%v, %v", who, err)
	}
	if k, err = api.Passkey(t.Context(), k.ID); err != nil || k.LastUsedAt == nil || !k.LastUsedAt.Equal(testTime) {
		t.Errorf("%+v, %v", k, err)
	}

	id, cose := base64url(k.ID), base64url(k.PublicKey)
	wantEvents(t, own, "person.created", map[string]any{"actor": "operator:test", "person": ana.ID.String(), "name": "ana",
		"display_name": "ANA", "roles": []any{"approver", "requester"}})
	wantEvents(t, own, "invitation.created", map[string]any{"actor": "operator:test", "person": ana.ID.String(), "name": "ana",
		"expires_at": "2026-03-02T12:00:00.000Z"})
	wantEvents(t, own, "passkey.enrolled", map[string]any{"actor": "person:" + ana.ID.String(), "person": ana.ID.String(), "name": "ana",
		"roles": []any{"approver", "requester"}, "passkey": id, "public_key": cose, "software": true, "label": "phone", "invited_by": "operator:test"})
	wantEvents(t, own, "session.signed_in", map[string]any{"actor": "person:" + ana.ID.String(), "passkey": id})

	var leaks int
	if err := own.Pool.QueryRow(t.Context(), `SELECT count(*) FROM audit_events WHERE body LIKE '%' || convert_to($1, 'UTF8') || '%'`, token).Scan(&leaks); err != nil || leaks != 0 {
		t.Errorf("the invitation's token is in %d events, %v", leaks, err)
	}
}

func TestOneOfTwoRedeemersWins(t *testing.T) {
	own, api := owner(t), openAs(t, "sluice_api")
	ana := addPerson(t, own, "ana")
	_, hash := invite(t, api, ana)

	const redeemers = 8
	errs := make([]error, redeemers)
	var wg sync.WaitGroup
	for i := range redeemers {
		wg.Go(func() { errs[i] = api.Redeem(t.Context(), hash, passkeyOf(ana, fmt.Sprint("key", i)), testTime) })
	}
	wg.Wait()
	var won int
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			wantCode(t, err, "invitation_used")
		}
	}
	if list, err := api.Passkeys(t.Context(), ana.ID); won != 1 || len(list) != 1 || err != nil {
		t.Errorf("%d won, %d passkeys, %v", won, len(list), err)
	}
	if n := len(eventBodies(t, own, "passkey.enrolled")); n != 1 {
		t.Errorf("%d events", n)
	}
}

// The second redeemer arrives while the first is still at it: it must wait for the
// first to end, and then get the invitation if the first failed.
func TestRedeemerWaitsForTheFirst(t *testing.T) {
	own, api := owner(t), openAs(t, "sluice_api")
	ana := addPerson(t, own, "ana")
	for _, first := range []string{"commits", "fails"} {
		t.Run(first, func(t *testing.T) {
			_, hash := invite(t, api, ana)
			tx := begin(t, own)
			if _, err := tx.Exec(t.Context(), "UPDATE invitations SET used_at = $2 WHERE token_hash = $1", hash, testTime); err != nil {
				t.Fatal(err)
			}
			second := make(chan error, 1)
			go func() { second <- api.Redeem(t.Context(), hash, passkeyOf(ana, first), testTime) }()
			waitUntilBlocks(t, own, tx)
			if first == "commits" {
				if err := tx.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
				wantCode(t, <-second, "invitation_used")
				return
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := <-second; err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestRedeemRefuses(t *testing.T) {
	own, api := owner(t), openAs(t, "sluice_api")
	ana, ben := addPerson(t, own, "ana"), addPerson(t, own, "ben")
	_, hash := invite(t, api, ana)

	wantCode(t, api.Redeem(t.Context(), make([]byte, 32), passkeyOf(ana, "k"), testTime), "invitation_unknown")
	wantCode(t, api.Redeem(t.Context(), hash, passkeyOf(ben, "k"), testTime), "invitation_unknown")
	wantCode(t, api.Redeem(t.Context(), hash, passkeyOf(ana, "k"), testTime.Add(identity.InvitationLife)), "invitation_expired")

	// A refusal after the invitation was marked as spent gives it back.
	_, bens := invite(t, api, ben)
	if err := api.Redeem(t.Context(), bens, passkeyOf(ben, "taken"), testTime); err != nil {
		t.Fatal(err)
	}
	wantCode(t, api.Redeem(t.Context(), hash, passkeyOf(ana, "taken"), testTime), "passkey_taken")
	disable(t, own, ana)
	wantCode(t, api.Redeem(t.Context(), hash, passkeyOf(ana, "k"), testTime), "person_disabled")
	_, _, err := api.Invite(t.Context(), ana.ID, "person:x", testTime)
	wantCode(t, err, "person_disabled")
	inv, err := api.Invitation(t.Context(), hash)
	if err != nil || inv.UsedAt != nil || inv.Person != ana.ID || inv.CreatedBy != "operator:test" {
		t.Errorf("%+v, %v", inv, err)
	}
	if list, err := api.Passkeys(t.Context(), ana.ID); len(list) != 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
}

func disable(t *testing.T, own *Store, p identity.Person) {
	t.Helper()
	if _, err := own.Pool.Exec(t.Context(), "UPDATE people SET disabled_at = $2 WHERE id = $1", p.ID, testTime); err != nil {
		t.Fatal(err)
	}
}

func TestCounterMustRise(t *testing.T) {
	own, api := owner(t), openAs(t, "sluice_api")
	ana := addPerson(t, own, "ana")
	enrolled := func(id string, count uint32) []byte {
		_, hash := invite(t, api, ana)
		k := passkeyOf(ana, id)
		k.SignCount = count
		if err := api.Redeem(t.Context(), hash, k, testTime); err != nil {
			t.Fatal(err)
		}
		return k.ID
	}
	synced, counting := enrolled("synced", 0), enrolled("counting", 5)
	later := testTime.Add(time.Hour)

	for range 2 { // 0 after 0 is how synced passkeys count
		if err := api.SignedIn(t.Context(), synced, 0, later); err != nil {
			t.Fatal(err)
		}
	}
	if err := api.SignedIn(t.Context(), counting, 6, later); err != nil {
		t.Fatal(err)
	}
	for _, shown := range []uint32{6, 5, 0} {
		wantCode(t, api.SignedIn(t.Context(), counting, shown, later.Add(time.Hour)), "passkey_cloned")
	}
	k, err := api.Passkey(t.Context(), counting)
	if err != nil || k.SignCount != 6 || !k.LastUsedAt.Equal(later) {
		t.Errorf("%+v, %v", k, err)
	}
	clone := func(shown int) map[string]any {
		return map[string]any{"actor": "person:" + ana.ID.String(), "passkey": base64url(counting), "counter_stored": 6, "counter_shown": shown}
	}
	wantEvents(t, own, "passkey.clone_suspected", clone(6), clone(5), clone(0))
	if n := len(eventBodies(t, own, "session.signed_in")); n != 3 {
		t.Errorf("%d sign-ins on record", n)
	}

	// The largest counter that WebAuthn has does not fit 32 bits with a sign.
	if err := api.SignedIn(t.Context(), counting, 1<<32-1, later); err != nil {
		t.Fatal(err)
	}
	if k, err = api.Passkey(t.Context(), counting); err != nil || k.SignCount != 1<<32-1 {
		t.Errorf("%+v, %v", k, err)
	}
	if _, err := own.Pool.Exec(t.Context(), "UPDATE passkeys SET revoked_at = $2 WHERE id = $1", synced, testTime); err != nil {
		t.Fatal(err)
	}
	wantCode(t, api.SignedIn(t.Context(), synced, 0, later), "passkey_revoked")
	wantCode(t, api.SignedIn(t.Context(), []byte("nobody's"), 0, later), "passkey_not_found")
}

// Two uses of one counter value at the same moment: the second is a clone.
func TestOneCounterCountsOnce(t *testing.T) {
	own, api := owner(t), openAs(t, "sluice_api")
	ana := addPerson(t, own, "ana")
	_, hash := invite(t, api, ana)
	if err := api.Redeem(t.Context(), hash, passkeyOf(ana, "k"), testTime); err != nil {
		t.Fatal(err)
	}
	first := begin(t, own)
	if _, err := first.Exec(t.Context(), "UPDATE passkeys SET sign_count = 1"); err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() { second <- api.SignedIn(t.Context(), []byte("k"), 1, testTime) }()
	waitUntilBlocks(t, own, first)
	if err := first.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, <-second, "passkey_cloned")
}

func begin(t *testing.T, s *Store) pgx.Tx {
	t.Helper()
	tx, err := s.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback(context.Background()) })
	return tx
}

// waitUntilBlocks returns when another session waits for a lock that tx holds.
func waitUntilBlocks(t *testing.T, s *Store, tx pgx.Tx) {
	t.Helper()
	for waiting := false; !waiting; {
		if err := s.Pool.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid)))",
			tx.Conn().PgConn().PID()).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPeople(t *testing.T) {
	own, api := owner(t), openAs(t, "sluice_api")
	ben, ana := addPerson(t, own, "ben"), addPerson(t, own, "ana", identity.Auditor)
	_, err := own.AddPerson(t.Context(), identity.Person{Name: "ana", DisplayName: "Another"}, "operator:test", testTime)
	wantCode(t, err, "person_exists")
	_, err = own.AddPerson(t.Context(), identity.Person{Name: "Ana", DisplayName: "Ana"}, "operator:test", testTime)
	wantCode(t, err, "name_malformed")
	disable(t, own, ben)
	ben.Disabled = true

	list, err := api.People(t.Context())
	ben.Roles = []identity.Role{}
	if err != nil || fmt.Sprint(list) != fmt.Sprint([]identity.Person{ana, ben}) {
		t.Errorf("%v, %v", list, err)
	}
	if p, err := api.PersonByName(t.Context(), "ben"); err != nil || p.ID != ben.ID || !p.Disabled {
		t.Errorf("%v, %v", p, err)
	}
	_, err = api.Person(t.Context(), uuid.New())
	wantCode(t, err, "person_not_found")
	_, err = api.PersonByName(t.Context(), "carl")
	wantCode(t, err, "person_not_found")
	_, err = api.Passkey(t.Context(), []byte("none"))
	wantCode(t, err, "passkey_not_found")
	_, _, err = api.Invite(t.Context(), uuid.New(), "operator:test", testTime)
	wantCode(t, err, "person_not_found")
	if n := len(eventBodies(t, own, "person.created")) + len(eventBodies(t, own, "invitation.created")); n != 2 {
		t.Errorf("%d events: refused changes are on record", n)
	}
}

func TestClients(t *testing.T) {
	own, api := owner(t), openAs(t, "sluice_api")
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := own.AddAccount(t.Context(), "main", "operator:test", testTime); err != nil {
		t.Fatal(err)
	}
	wantCode(t, own.AddAccount(t.Context(), "main", "operator:test", testTime), "account_exists")
	wantCode(t, own.AddAccount(t.Context(), "Main\x00", "operator:test", testTime), "name_malformed")

	c := identity.Client{Name: "payroll", PublicKey: public, Accounts: []string{"main"}, Scopes: []string{identity.ScopeWrite}}
	if err := own.AddClient(t.Context(), c, "operator:test", testTime); err != nil {
		t.Fatal(err)
	}
	wantCode(t, own.AddClient(t.Context(), c, "operator:test", testTime), "client_exists")
	for _, account := range []string{"mian", "\x00"} {
		c.Name, c.Accounts = "other", []string{"main", account}
		wantCode(t, own.AddClient(t.Context(), c, "operator:test", testTime), "account_unknown")
	}
	_, err = api.Client(t.Context(), "other")
	wantCode(t, err, "client_not_found")
	wantEvents(t, own, "account.created", map[string]any{"actor": "operator:test", "account": "main"})
	wantEvents(t, own, "client.created", map[string]any{"actor": "operator:test", "client": "payroll", "public_key": base64url(public),
		"accounts": []any{"main"}, "scopes": []any{identity.ScopeWrite}})

	tokens := identity.NewTokens(api.Client, func() time.Time { return testTime })
	bearer, err := identity.SignToken("payroll", private, []string{identity.ScopeWrite}, testTime, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	token, err := tokens.Verify(t.Context(), bearer)
	if err != nil || !token.Allows(identity.ScopeWrite) || !bytes.Equal(token.Key, public) || !slices.Equal(token.Accounts, []string{"main"}) {
		t.Fatalf("%+v, %v", token, err)
	}
	if _, err := own.Pool.Exec(t.Context(), "UPDATE service_clients SET disabled_at = $1", testTime); err != nil {
		t.Fatal(err)
	}
	_, err = identity.NewTokens(api.Client, func() time.Time { return testTime }).Verify(t.Context(), bearer)
	wantCode(t, err, "client_disabled")
}

func TestAddDestination(t *testing.T) {
	own := owner(t)
	if err := own.AddAccount(t.Context(), "main", "operator:test", testTime); err != nil {
		t.Fatal(err)
	}
	key := whitelist.Key{Account: "main", Method: exchange.OnChain, Asset: "USDT", Chain: "TRC20", Address: "TXyz", Memo: "order 7"}
	d, err := own.AddDestination(t.Context(), key, "supplier", "operator:test", testTime)
	if err != nil || d.Version != 1 || d.State != whitelist.Active || d.Key != key {
		t.Fatalf("%+v, %v", d, err)
	}
	_, err = own.AddDestination(t.Context(), key, "again", "operator:test", testTime)
	wantCode(t, err, "destination_listed")
	wantEvents(t, own, "destination.added", map[string]any{"actor": "operator:test", "destination": d.ID.String(), "version": 1,
		"account": "main", "method": "on_chain", "asset": "USDT", "chain": "TRC20", "address": "TXyz", "memo": "order 7", "label": "supplier"})

	other := key
	other.Address = "TXYZ" // another letter case is another address
	if _, err := own.AddDestination(t.Context(), other, "", "operator:test", testTime); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		code   string
		change func(k *whitelist.Key)
	}{
		{"account_unknown", func(k *whitelist.Key) { k.Account = "mian" }},
		{"account_unknown", func(k *whitelist.Key) { k.Account = "\x00" }},
		{"destination_malformed", func(k *whitelist.Key) { k.Method = "pigeon" }},
		{"destination_malformed", func(k *whitelist.Key) { k.Asset = "" }},
		{"destination_malformed", func(k *whitelist.Key) { k.Address = "" }},
		{"destination_malformed", func(k *whitelist.Key) { k.Address = "TXyz\n" }},
		{"destination_malformed", func(k *whitelist.Key) { k.Address = "TX yz" }},
		{"destination_malformed", func(k *whitelist.Key) { k.Address = "TX\u200byz" }},
		{"destination_malformed", func(k *whitelist.Key) { k.Address = "TX\xffyz" }},
		{"destination_malformed", func(k *whitelist.Key) { k.Chain = "" }},
		{"destination_malformed", func(k *whitelist.Key) { k.Method = exchange.InterUser }},
		{"destination_malformed", func(k *whitelist.Key) { k.Memo = "7 " }},
		{"destination_malformed", func(k *whitelist.Key) { k.Memo = "7\x00" }},
	} {
		bad := key
		c.change(&bad)
		_, err := own.AddDestination(t.Context(), bad, "", "operator:test", testTime)
		wantCode(t, err, c.code)
	}
	_, err = own.AddDestination(t.Context(), key, "a\x00", "operator:test", testTime)
	wantCode(t, err, "text_malformed")
}

// What the api may not do to people, whatever code runs in it.
func TestApiRoleCannotMakeItselfPowerful(t *testing.T) {
	own, api, worker := owner(t), openAs(t, "sluice_api"), openAs(t, "sluice_worker")
	ana := addPerson(t, own, "ana")
	if err := own.AddAccount(t.Context(), "main", "operator:test", testTime); err != nil {
		t.Fatal(err)
	}
	forbidden := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := api.AddPerson(t.Context(), identity.Person{Name: "eve", DisplayName: "Eve"}, "x", testTime)
	forbidden("add a person", err)
	forbidden("add an account", api.AddAccount(t.Context(), "evil", "x", testTime))
	forbidden("add a client", api.AddClient(t.Context(), identity.Client{Name: "eve", PublicKey: make([]byte, 32)}, "x", testTime))
	_, err = api.AddDestination(t.Context(), whitelist.Key{Account: "main", Method: exchange.InterUser, Asset: "USDT", Address: "eve"}, "", "x", testTime)
	forbidden("add a destination", err)
	for _, statement := range []string{
		"UPDATE people SET roles = '{approver}'",
		"UPDATE people SET disabled_at = NULL",
		"DELETE FROM people",
		"UPDATE passkeys SET public_key = ''",
		"UPDATE passkeys SET person_id = gen_random_uuid()",
		"UPDATE passkeys SET revoked_at = NULL",
		"UPDATE passkeys SET software = false",
		"DELETE FROM passkeys",
		"UPDATE invitations SET person_id = gen_random_uuid()",
		"UPDATE invitations SET expires_at = now()",
		"UPDATE service_clients SET scopes = '{}'",
	} {
		_, err := api.Pool.Exec(t.Context(), statement)
		forbidden(statement, err)
	}
	_, _, err = worker.Invite(t.Context(), ana.ID, "x", testTime)
	forbidden("worker invites", err)
	_, err = worker.Invitation(t.Context(), make([]byte, 32))
	forbidden("worker reads invitations", err)
	forbidden("worker signs in", func() error {
		_, err := worker.Pool.Exec(t.Context(), "UPDATE passkeys SET sign_count = 1")
		return err
	}())
}
