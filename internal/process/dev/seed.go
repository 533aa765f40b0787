package dev

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/identity"
	"sluice/internal/whitelist"
)

// operator is who the record says set the dev stack up.
const operator = "operator:dev"

// people are the demo people. Two approvers suffice; the third shows that any two
// do; dora asks and so can never vote on what she asked for.
var people = []identity.Person{
	{Name: "alice", DisplayName: "Alice Approver", Roles: []identity.Role{identity.Approver, identity.Admin}},
	{Name: "bob", DisplayName: "Bob Approver", Roles: []identity.Role{identity.Approver}},
	{Name: "carol", DisplayName: "Carol Treasurer", Roles: []identity.Role{identity.Approver, identity.Requester}},
	{Name: "dora", DisplayName: "Dora Requester", Roles: []identity.Role{identity.Requester}},
	{Name: "otto", DisplayName: "Otto Auditor", Roles: []identity.Role{identity.Auditor}},
}

// clients are the demo services.
var clients = []string{"payroll", "settlement"}

// destination is a demo entry, listed with the sandbox and in the mirror alike.
type destination struct {
	whitelist.Key
	Label string
}

// The addresses are well-known public ones with valid checksums; only the sandbox
// is ever asked to pay them.
var destinations = []destination{
	demo("USDT", "TRC20", "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", "", "Payroll provider"),
	demo("USDT", "ERC20", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "", "Cold storage, Ethereum"),
	demo("BTC", "BTC", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "", "Cold storage, Bitcoin"),
	demo("ETH", "ERC20", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359", "", "Gas station"),
	demo("XRP", "XRP", "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "104729", "Market maker, tag 104729"),
}

func demo(asset, chain, address, memo, label string) destination {
	return destination{whitelist.Key{Account: Account, Method: exchange.OnChain, Asset: asset, Chain: chain, Address: address, Memo: memo}, label}
}

// seed adds what is missing, so that a second start on the same data changes nothing.
func (s *Stack) seed(ctx context.Context, say func(string)) error {
	now := time.Now()
	if err := exists(s.Owner.AddAccount(ctx, Account, operator, now), "account_exists"); err != nil {
		return err
	}
	for _, d := range destinations {
		_, err := s.Owner.AddDestination(ctx, d.Key, d.Label, operator, now)
		if err := exists(err, "destination_listed"); err != nil {
			return err
		}
	}
	for _, name := range clients {
		if err := s.seedClient(ctx, name, now); err != nil {
			return err
		}
	}
	var err error
	if s.Software, err = identity.OpenSoftware(filepath.Join(s.data, "passkeys.json")); err != nil {
		return err
	}
	passkeys, err := identity.NewPasskeys(s.Relying, s.Owner, time.Now)
	if err != nil {
		return err
	}
	for _, p := range people {
		if err := s.seedPerson(ctx, passkeys, p, now, say); err != nil {
			return err
		}
	}
	return nil
}

// exists passes over the error that says that something is there already.
func exists(err error, code string) error {
	if fault.Is(err, code) {
		return nil
	}
	return err
}

// seedPerson adds a demo person and enrols a software passkey by the very path that
// people walk: an invitation, creation options, a credential.
func (s *Stack) seedPerson(ctx context.Context, passkeys *identity.Passkeys, p identity.Person, now time.Time, say func(string)) error {
	known, err := s.Owner.PersonByName(ctx, p.Name)
	if fault.Is(err, "person_not_found") {
		known, err = s.Owner.AddPerson(ctx, p, operator, now)
	}
	if err != nil {
		return err
	}
	keys, err := s.Owner.Passkeys(ctx, known.ID)
	if err != nil || len(keys) > 0 {
		return err
	}
	say("enrolling a software passkey for " + p.Name)
	token, _, err := s.Owner.Invite(ctx, known.ID, operator, now)
	if err != nil {
		return err
	}
	_, options, state, err := passkeys.BeginEnrolment(ctx, token)
	if err != nil {
		return err
	}
	credential, err := s.Software.Of(p.Name).Create(options, s.Origin)
	if err != nil {
		return err
	}
	_, err = passkeys.FinishEnrolment(ctx, token, state, credential, "demo software passkey")
	return err
}

// seedClient adds a demo service and keeps its private key for `sluice token`.
func (s *Stack) seedClient(ctx context.Context, name string, now time.Time) error {
	key, err := ClientKey(s.data, name)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = newClientKey(s.data, name)
	}
	if err != nil {
		return err
	}
	s.clients[name] = key
	err = s.Owner.AddClient(ctx, identity.Client{Name: name, PublicKey: key.Public().(ed25519.PublicKey),
		Accounts: []string{Account}, Scopes: []string{identity.ScopeWrite, identity.ScopeRead}}, operator, now)
	return exists(err, "client_exists")
}

func clientKeyPath(data, name string) string { return filepath.Join(data, "clients", name+".key") }

// ClientKey reads a demo service's private key.
func ClientKey(data, name string) (ed25519.PrivateKey, error) {
	b, err := os.ReadFile(clientKeyPath(data, filepath.Base(name)))
	if err != nil {
		return nil, err
	}
	seed, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s is damaged; start with --fresh", clientKeyPath(data, name))
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

func newClientKey(data, name string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(data, "clients"), 0o700); err != nil {
		return nil, err
	}
	return key, os.WriteFile(clientKeyPath(data, name), []byte(hex.EncodeToString(key.Seed())+"\n"), 0o600)
}

// Token signs a token for a demo service.
func (s *Stack) Token(client string, scopes ...string) (string, error) {
	key, ok := s.clients[client]
	if !ok {
		return "", fmt.Errorf("there is no demo client %q", client)
	}
	return identity.SignToken(client, key, scopes, time.Now(), time.Hour)
}
