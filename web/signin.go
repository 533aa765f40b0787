package web

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"sluice/internal/fault"
	"sluice/internal/identity"
)

// Passkeys signs people in and enrols their passkeys. Package identity has it. It
// keeps nothing between the halves of a ceremony; the session does.
type Passkeys interface {
	BeginSignIn() (options json.RawMessage, state []byte, err error)
	FinishSignIn(ctx context.Context, state, credential []byte) (identity.Person, error)
	BeginEnrolment(ctx context.Context, token string) (identity.Person, json.RawMessage, []byte, error)
	FinishEnrolment(ctx context.Context, token string, state, credential []byte, label string) (identity.Person, error)
}

type signinView struct {
	Next string
	Demo []identity.Person
}

func (s *site) signinPage(w http.ResponseWriter, r *http.Request) {
	view := signinView{Next: safeNext(r.URL.Query().Get("next"))}
	if viewerOf(r) != nil {
		http.Redirect(w, r, view.Next, http.StatusSeeOther)
		return
	}
	if s.Dev != nil {
		view.Demo = s.Dev.People
	}
	s.show(w, r, http.StatusOK, "signin", page{Title: "Sign in", Body: view})
}

func (s *site) signinOptions(w http.ResponseWriter, r *http.Request) {
	if err := read(w, r, &struct{}{}); err != nil {
		s.fail(w, r, err)
		return
	}
	options, state, err := s.Passkeys.BeginSignIn()
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.begin(r.Context(), keySignin, state)
	s.reply(w, r, map[string]any{"publicKey": options})
}

// begin keeps a ceremony's state in the session, whose life is then that of the
// ceremony unless somebody is signed in: visitors who never finish leave nothing behind.
func (s *site) begin(ctx context.Context, key string, state []byte) {
	s.active.Put(ctx, key, state)
	if s.active.GetString(ctx, keyPerson) == "" {
		s.active.SetDeadline(ctx, time.Now().Add(ceremony)) // the sessions' own clock is the wall's
	}
}

func (s *site) signinFinish(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Credential json.RawMessage `json:"credential"`
		Next       string          `json:"next"`
	}
	if err := read(w, r, &in); err != nil {
		s.fail(w, r, err)
		return
	}
	ctx := r.Context()
	// Taken out whatever comes of it: one question, one answer.
	state := s.active.PopBytes(ctx, keySignin)
	p, err := s.Passkeys.FinishSignIn(ctx, state, in.Credential)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	software, err := s.software(ctx, p, in.Credential)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if err := s.enter(ctx, p, software); err != nil {
		s.fail(w, r, err)
		return
	}
	s.reply(w, r, map[string]any{"person": person{p.Name, p.DisplayName, p.Roles}, "redirect": safeNext(in.Next)})
}

// software tells whether a demo passkey signed in, so that the pages ask the same one
// for votes.
func (s *site) software(ctx context.Context, p identity.Person, credential []byte) (bool, error) {
	if s.Dev == nil {
		return false, nil
	}
	a, err := identity.ParseAssertion(credential)
	if err != nil {
		return false, err
	}
	keys, err := s.Store.Passkeys(ctx, p.ID)
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(keys, func(k identity.Passkey) bool { return bytes.Equal(k.ID, a.Passkey) })
	return i >= 0 && keys[i].Software, nil
}

// person is somebody as scripts and `sluice vote` see them.
type person struct {
	Name        string          `json:"name"`
	DisplayName string          `json:"display_name"`
	Roles       []identity.Role `json:"roles"`
}

func (s *site) signout(w http.ResponseWriter, r *http.Request) {
	if err := s.active.Destroy(r.Context()); err != nil {
		s.fail(w, r, err)
		return
	}
	// What the browser still remembers of the pages goes too.
	w.Header().Set("Clear-Site-Data", `"cache"`)
	if wantsJSON(r) {
		s.reply(w, r, struct{}{})
		return
	}
	http.Redirect(w, r, "/signin", http.StatusSeeOther)
}

type enrolView struct {
	Person identity.Person
	Token  string
}

func (s *site) enrolPage(w http.ResponseWriter, r *http.Request) {
	p, _, _, err := s.Passkeys.BeginEnrolment(r.Context(), r.PathValue("token"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	// The address holds the invitation; no other site may learn it.
	w.Header().Set("Referrer-Policy", "no-referrer")
	s.show(w, r, http.StatusOK, "enrol", page{Title: "Add your passkey", Body: enrolView{p, r.PathValue("token")}})
}

func (s *site) enrolOptions(w http.ResponseWriter, r *http.Request) {
	if err := read(w, r, &struct{}{}); err != nil {
		s.fail(w, r, err)
		return
	}
	_, options, state, err := s.Passkeys.BeginEnrolment(r.Context(), r.PathValue("token"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.begin(r.Context(), keyEnrol, state)
	s.reply(w, r, map[string]any{"publicKey": options})
}

func (s *site) enrolFinish(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Credential json.RawMessage `json:"credential"`
		Label      string          `json:"label"`
	}
	if err := read(w, r, &in); err != nil {
		s.fail(w, r, err)
		return
	}
	ctx := r.Context()
	state := s.active.PopBytes(ctx, keyEnrol)
	p, err := s.Passkeys.FinishEnrolment(ctx, r.PathValue("token"), state, in.Credential, in.Label)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.reply(w, r, map[string]any{"person": person{p.Name, p.DisplayName, p.Roles}, "redirect": "/signin"})
}

func (s *site) devPeople(w http.ResponseWriter, r *http.Request) {
	list := make([]person, 0, len(s.Dev.People))
	for _, p := range s.Dev.People {
		list = append(list, person{p.Name, p.DisplayName, p.Roles})
	}
	s.reply(w, r, list)
}

// devPasskey plays a demo person's authenticator. Whoever reaches it can be any
// demo person, which is the point of `sluice dev` and why it exists only there.
func (s *site) devPasskey(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Person    string          `json:"person"`
		PublicKey json.RawMessage `json:"publicKey"`
	}
	if err := read(w, r, &in); err != nil {
		s.fail(w, r, err)
		return
	}
	if !slices.ContainsFunc(s.Dev.People, func(p identity.Person) bool { return p.Name == in.Person }) {
		s.fail(w, r, fault.New(fault.NotFound, "demo_person_not_found", "there is no demo person by that name", "see /dev/people"))
		return
	}
	credential, err := s.Dev.Assert(r.Context(), in.Person, in.PublicKey)
	if err != nil {
		s.fail(w, r, fault.New(fault.Refused, "software_passkey", "the software passkey did not answer: "+err.Error(),
			"use options as they came from this server").Because(err))
		return
	}
	s.reply(w, r, credential)
}
