package pgstore

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sluice/internal/audit"
	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/identity"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

var _ identity.Store = (*Store)(nil)

const (
	personColumns  = `id, name, display_name, roles, disabled_at IS NOT NULL AS disabled`
	passkeyColumns = `id, person_id, public_key, sign_count, transports, backup_eligible, software, label,
		created_at, last_used_at, revoked_at`
)

// readOne reads the one row of a query into T; missing is the fault when there is none.
func readOne[T any](ctx context.Context, q querier, what string, missing error, sql string, args ...any) (T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		var none T
		return none, fmt.Errorf("read %s: %w", what, err)
	}
	v, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[T])
	if errors.Is(err, pgx.ErrNoRows) {
		return v, missing
	}
	if err != nil {
		return v, fmt.Errorf("read %s: %w", what, err)
	}
	return v, nil
}

// Person reads a person; the fault is person_not_found.
func (s *Store) Person(ctx context.Context, id uuid.UUID) (identity.Person, error) {
	return readPerson(ctx, s.Pool, id)
}

func readPerson(ctx context.Context, q querier, id uuid.UUID) (identity.Person, error) {
	return readOne[identity.Person](ctx, q, "person", personNotFound(id.String()),
		"SELECT "+personColumns+" FROM people WHERE id = $1", id)
}

// PersonByName reads a person by the short name; the fault is person_not_found.
func (s *Store) PersonByName(ctx context.Context, name string) (identity.Person, error) {
	return readOne[identity.Person](ctx, s.Pool, "person", personNotFound(name),
		"SELECT "+personColumns+" FROM people WHERE name = $1", name)
}

func personNotFound(who string) error {
	return fault.New(fault.NotFound, "person_not_found", "there is nobody called "+who, "check the name or the id")
}

// People reads everyone, those who have left too, by name.
func (s *Store) People(ctx context.Context) ([]identity.Person, error) {
	return collect[identity.Person](ctx, s, "SELECT "+personColumns+" FROM people ORDER BY name")
}

// Passkey reads a credential by its WebAuthn id; the fault is passkey_not_found.
func (s *Store) Passkey(ctx context.Context, id []byte) (identity.Passkey, error) {
	return readOne[identity.Passkey](ctx, s.Pool, "passkey", passkeyNotFound(),
		"SELECT "+passkeyColumns+" FROM passkeys WHERE id = $1", id)
}

func passkeyNotFound() error {
	return fault.New(fault.NotFound, "passkey_not_found", "there is no such passkey", "use a passkey that was enrolled here")
}

// Passkeys reads all credentials of a person, revoked ones too, oldest first.
func (s *Store) Passkeys(ctx context.Context, person uuid.UUID) ([]identity.Passkey, error) {
	return collect[identity.Passkey](ctx, s,
		"SELECT "+passkeyColumns+" FROM passkeys WHERE person_id = $1 ORDER BY created_at, id", person)
}

// Client reads a service client; the fault is client_not_found.
func (s *Store) Client(ctx context.Context, name string) (identity.Client, error) {
	missing := fault.New(fault.NotFound, "client_not_found", "there is no client called "+name, "check the name")
	return readOne[identity.Client](ctx, s.Pool, "client", missing,
		"SELECT name, public_key, accounts, scopes, disabled_at IS NOT NULL AS disabled FROM service_clients WHERE name = $1", name)
}

// Invitation reads an invitation by the hash of its token; the fault is invitation_unknown.
func (s *Store) Invitation(ctx context.Context, tokenHash []byte) (identity.Invitation, error) {
	return readInvitation(ctx, s.Pool, tokenHash)
}

func readInvitation(ctx context.Context, q querier, tokenHash []byte) (identity.Invitation, error) {
	return readOne[identity.Invitation](ctx, q, "invitation", identity.UnknownInvitation(),
		"SELECT person_id, created_by, expires_at, used_at FROM invitations WHERE token_hash = $1", tokenHash)
}

// SignedIn records a sign-in. See identity.Store.
func (s *Store) SignedIn(ctx context.Context, passkey []byte, signCount uint32, now time.Time) error {
	var refused error
	err := s.tx(ctx, "sign in", func(tx pgx.Tx) error {
		var (
			person uuid.UUID
			err    error
		)
		if person, refused, err = usePasskey(ctx, tx, passkey, signCount, now); err != nil || refused != nil {
			return err
		}
		return appendEvents(ctx, tx, audit.NewEvent(now, personActor(person), "session.signed_in", uuid.Nil,
			canonical.Object{"passkey": base64url(passkey)}))
	})
	if err != nil {
		return err
	}
	return refused
}

// usePasskey notes that a passkey signed something, and holds its counter to the
// rule of WebAuthn: where either the stored or the new counter is not 0, the new
// one must be greater, else two devices hold the key. The row is locked, so that
// of two uses of one counter the second is seen.
//
// refused says why the use must not count, and leaves the transaction sound: a
// cloned passkey is put on record in it, and the caller commits that.
func usePasskey(ctx context.Context, tx pgx.Tx, id []byte, signCount uint32, now time.Time) (person uuid.UUID, refused, err error) {
	k, err := readOne[identity.Passkey](ctx, tx, "passkey", passkeyNotFound(),
		"SELECT "+passkeyColumns+" FROM passkeys WHERE id = $1 FOR UPDATE", id)
	if err != nil {
		return uuid.Nil, nil, err
	}
	if k.RevokedAt != nil {
		return k.Person, fault.New(fault.Forbidden, "passkey_revoked", "this passkey has been revoked",
			"use another passkey, or ask an admin for an invitation"), nil
	}
	if signCount <= k.SignCount && (signCount != 0 || k.SignCount != 0) {
		return k.Person, fault.New(fault.Forbidden, "passkey_cloned",
				"this passkey's counter did not rise: a copy of it may exist", "tell an admin at once, and use another passkey"),
			appendEvents(ctx, tx, audit.NewEvent(now, personActor(k.Person), "passkey.clone_suspected", uuid.Nil, canonical.Object{
				"passkey": base64url(id), "counter_stored": int64(k.SignCount), "counter_shown": int64(signCount),
			}))
	}
	if _, err := tx.Exec(ctx, "UPDATE passkeys SET sign_count = $2, last_used_at = $3 WHERE id = $1", id, int64(signCount), now); err != nil {
		return uuid.Nil, nil, fmt.Errorf("use passkey: %w", err)
	}
	return k.Person, nil, nil
}

// Invite makes a one-time link token for a person to enrol a passkey with. The
// token is in no record; this is the only time that it is seen. Faults:
// person_not_found, person_disabled.
func (s *Store) Invite(ctx context.Context, person uuid.UUID, by string, now time.Time) (token string, expires time.Time, err error) {
	token, hash := identity.NewInvitation()
	expires = now.Add(identity.InvitationLife)
	err = s.tx(ctx, "invite", func(tx pgx.Tx) error {
		p, err := enabledPerson(ctx, tx, person)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO invitations (token_hash, person_id, created_by, created_at, expires_at)
			VALUES ($1, $2, $3, $4, $5)`, hash, person, by, now, expires); err != nil {
			return err
		}
		return appendEvents(ctx, tx, audit.NewEvent(now, by, "invitation.created", uuid.Nil, canonical.Object{
			"person": person.String(), "name": p.Name, "expires_at": audit.Stamp(expires),
		}))
	})
	if err != nil {
		return "", time.Time{}, err
	}
	return token, expires, nil
}

func enabledPerson(ctx context.Context, tx pgx.Tx, id uuid.UUID) (identity.Person, error) {
	p, err := readPerson(ctx, tx, id)
	if err == nil && p.Disabled {
		err = fault.New(fault.Forbidden, "person_disabled", "this person has been disabled", "ask an admin whether they should be")
	}
	return p, err
}

// Redeem spends an invitation and adds the passkey that was made with it. The
// event holds all that a reader of the record needs to check this person's votes
// from then on. Faults: invitation_unknown, invitation_used, invitation_expired,
// person_disabled, passkey_taken.
func (s *Store) Redeem(ctx context.Context, tokenHash []byte, k identity.Passkey, now time.Time) error {
	return s.tx(ctx, "redeem invitation", func(tx pgx.Tx) error {
		// The row's lock makes a second redeemer wait here and then find it used.
		spent, err := tx.Exec(ctx, `UPDATE invitations SET used_at = $3
			WHERE token_hash = $1 AND person_id = $2 AND used_at IS NULL AND expires_at > $3`, tokenHash, k.Person, now)
		if err != nil {
			return err
		}
		inv, err := readInvitation(ctx, tx, tokenHash)
		if err != nil {
			return err
		}
		if spent.RowsAffected() == 0 {
			if err := identity.CheckInvitation(inv, now); err != nil {
				return err
			}
			return identity.UnknownInvitation() // it is someone else's
		}
		p, err := enabledPerson(ctx, tx, k.Person)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO passkeys (id, person_id, public_key, sign_count, transports, backup_eligible, software, label, created_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			k.ID, k.Person, k.PublicKey, int64(k.SignCount), orEmpty(k.Transports), k.BackupEligible, k.Software, k.Label, k.CreatedAt)
		if violates(err, "passkeys_pkey") {
			return fault.New(fault.Conflict, "passkey_taken", "this passkey is enrolled already", "sign in with it, or make a new one").Because(err)
		}
		if err != nil {
			return err
		}
		return appendEvents(ctx, tx, audit.NewEvent(now, p.Actor(), "passkey.enrolled", uuid.Nil, canonical.Object{
			"person": p.ID.String(), "name": p.Name, "roles": roleNames(p.Roles), "passkey": base64url(k.ID),
			"public_key": base64url(k.PublicKey), "software": k.Software, "label": k.Label, "invited_by": inv.CreatedBy,
		}))
	})
}

// What follows changes who may do what. It needs the owner's role: the api's may
// not, so that a stolen api cannot make itself a client, an approver or a
// destination.

// AddPerson adds a person and gives them an id. Faults: name_malformed,
// text_malformed, role_unknown, person_exists.
func (s *Store) AddPerson(ctx context.Context, p identity.Person, by string, now time.Time) (identity.Person, error) {
	if err := p.Check(); err != nil {
		return identity.Person{}, err
	}
	p.ID = uuid.Must(uuid.NewV7())
	err := s.tx(ctx, "add person", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO people (id, name, display_name, roles, created_at) VALUES ($1, $2, $3, $4, $5)",
			p.ID, p.Name, p.DisplayName, roleNames(p.Roles), now)
		if violates(err, "people_name_key") {
			return fault.New(fault.Conflict, "person_exists", "there is a person called "+p.Name+" already", "choose another name").Because(err)
		}
		if err != nil {
			return err
		}
		return appendEvents(ctx, tx, audit.NewEvent(now, by, "person.created", uuid.Nil, canonical.Object{
			"person": p.ID.String(), "name": p.Name, "display_name": p.DisplayName, "roles": roleNames(p.Roles),
		}))
	})
	if err != nil {
		return identity.Person{}, err
	}
	return p, nil
}

// accountName repeats the schema's rule: the name is also that of a River queue.
var accountName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

// AddAccount adds an exchange account. Faults: name_malformed, account_exists.
func (s *Store) AddAccount(ctx context.Context, name, by string, now time.Time) error {
	if !accountName.MatchString(name) {
		return fault.New(fault.Invalid, "name_malformed", fmt.Sprintf("%q cannot name an account", name),
			"use 1 to 32 lower-case letters, digits, dashes and underscores, a letter or digit first").On("name")
	}
	return s.tx(ctx, "add account", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO accounts (name, created_at) VALUES ($1, $2)", name, now)
		if violates(err, "accounts_pkey") {
			return fault.New(fault.Conflict, "account_exists", "there is an account called "+name+" already", "choose another name").Because(err)
		}
		if err != nil {
			return err
		}
		return appendEvents(ctx, tx, audit.NewEvent(now, by, "account.created", uuid.Nil, canonical.Object{"account": name}))
	})
}

// AddClient adds a service client. Faults: name_malformed, key_malformed,
// scope_unknown, account_unknown, client_exists.
func (s *Store) AddClient(ctx context.Context, c identity.Client, by string, now time.Time) error {
	if err := c.Check(); err != nil {
		return err
	}
	return s.tx(ctx, "add client", func(tx pgx.Tx) error {
		// The list has no foreign keys; a misspelt account would show only at the first payout.
		for _, account := range c.Accounts {
			known := accountName.MatchString(account)
			if known {
				if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM accounts WHERE name = $1)", account).Scan(&known); err != nil {
					return err
				}
			}
			if !known {
				return accountUnknown(account)
			}
		}
		_, err := tx.Exec(ctx, "INSERT INTO service_clients (name, public_key, accounts, scopes, created_at) VALUES ($1, $2, $3, $4, $5)",
			c.Name, []byte(c.PublicKey), orEmpty(c.Accounts), orEmpty(c.Scopes), now)
		if violates(err, "service_clients_pkey") {
			return fault.New(fault.Conflict, "client_exists", "there is a client called "+c.Name+" already", "choose another name").Because(err)
		}
		if err != nil {
			return err
		}
		return appendEvents(ctx, tx, audit.NewEvent(now, by, "client.created", uuid.Nil, canonical.Object{
			"client": c.Name, "public_key": base64url(c.PublicKey), "accounts": orEmpty(c.Accounts), "scopes": orEmpty(c.Scopes),
		}))
	})
}

// AddDestination adds an active entry to the mirror, attested by the actor. Faults:
// destination_malformed, text_malformed, account_unknown, destination_listed.
func (s *Store) AddDestination(ctx context.Context, key whitelist.Key, label, by string, now time.Time) (whitelist.Destination, error) {
	if err := checkDestination(key); err != nil {
		return whitelist.Destination{}, err
	}
	if err := identity.CheckLabel(label); err != nil {
		return whitelist.Destination{}, err
	}
	d := whitelist.Destination{
		ID: uuid.Must(uuid.NewV7()), Version: 1, Key: key, Label: label, State: whitelist.Active, AttestedBy: by, AttestedAt: now,
	}
	err := s.tx(ctx, "add destination", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO destinations
			(id, version, account, method, asset, chain, address, memo, label, state, attested_by, attested_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
			d.ID, d.Version, d.Account, string(d.Method), d.Asset, d.Chain, d.Address, d.Memo, d.Label, string(d.State), d.AttestedBy, d.AttestedAt)
		switch {
		case violates(err, "destinations_account_fkey"):
			return accountUnknown(d.Account)
		case violates(err, "destinations_listed_once"):
			return fault.New(fault.Conflict, "destination_listed", "this destination is listed already", "use the entry that is there").Because(err)
		case err != nil:
			return err
		}
		return appendEvents(ctx, tx, audit.NewEvent(now, by, "destination.added", uuid.Nil, canonical.Object{
			"destination": d.ID.String(), "version": d.Version, "account": d.Account, "method": string(d.Method),
			"asset": d.Asset, "chain": d.Chain, "address": d.Address, "memo": d.Memo, "label": d.Label,
		}))
	})
	if err != nil {
		return whitelist.Destination{}, err
	}
	return d, nil
}

// checkDestination refuses an entry that no payout could ever match: the exchange
// compares text byte for byte, so a space or line break that came along with a
// paste makes another address.
func checkDestination(k whitelist.Key) error {
	malformed := func(field, why string) error {
		return fault.New(fault.Invalid, "destination_malformed", why, "copy it again from the exchange's API management page, alone").On(field)
	}
	for _, f := range []struct{ name, text string }{{"asset", k.Asset}, {"chain", k.Chain}, {"address", k.Address}} {
		if !showable(f.text) || strings.Contains(f.text, " ") {
			return malformed(f.name, "the "+f.name+" holds a space or a character that cannot be shown")
		}
	}
	switch {
	case !accountName.MatchString(k.Account):
		return accountUnknown(k.Account)
	case !withdraw.KnownMethod(k.Method):
		return malformed("method", fmt.Sprintf("%q is not a way to pay: on_chain or inter_user", k.Method))
	case k.Asset == "" || k.Address == "":
		return malformed("address", "the asset or the address is empty")
	case (k.Chain == "") != (k.Method == exchange.InterUser):
		return malformed("chain", "an on-chain destination has a chain, and one inside the exchange has none")
	case !showable(k.Memo) || strings.TrimSpace(k.Memo) != k.Memo:
		return malformed("memo", "the memo begins or ends with a space, or holds a character that cannot be shown")
	}
	return nil
}

func showable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func accountUnknown(name string) error {
	return fault.New(fault.Invalid, "account_unknown", "there is no account called "+name, "add the account first, or check its name").On("account")
}

func personActor(id uuid.UUID) string { return identity.Person{ID: id}.Actor() }

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// orEmpty is the list as SQL and JSON want it: empty, never null.
func orEmpty(list []string) []string { return append([]string{}, list...) }

func roleNames(roles []identity.Role) []string {
	names := []string{}
	for _, r := range roles {
		names = append(names, string(r))
	}
	return names
}

// DropDeadSessions deletes the browser sessions that have run out.
func (s *Store) DropDeadSessions(ctx context.Context, now time.Time) error {
	_, err := s.Pool.Exec(ctx, "DELETE FROM sessions WHERE expiry < $1", now)
	return err
}
