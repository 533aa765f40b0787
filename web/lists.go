package web

import (
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"sluice/internal/pgstore"
	"sluice/internal/policy"
	"sluice/internal/whitelist"
)

type whitelistView struct {
	Rows     []listed
	Accounts []string
	Account  string
	MayAsk   bool
}

type listed struct {
	whitelist.Destination
	AttestedBy string
}

func (s *site) whitelistPage(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	view := whitelistView{Account: r.URL.Query().Get("account"), MayAsk: viewerOf(r).May("requester")}
	list, err := s.Store.Destinations(ctx, view.Account)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	names := s.names()
	for _, d := range list {
		view.Rows = append(view.Rows, listed{d, names.of(ctx, d.AttestedBy)})
	}
	if view.Accounts, err = s.Store.Accounts(ctx); err != nil {
		s.fail(w, r, err)
		return
	}
	s.show(w, r, http.StatusOK, "whitelist", page{Title: "Whitelist", Nav: "whitelist", Live: "*", Body: view})
}

// eventsPerPage bounds a page of the record.
const eventsPerPage = 50

type auditView struct {
	Rows          []event
	Action, Actor string
	Filtered      bool
	Older, Newest string
}

func (s *site) auditPage(w http.ResponseWriter, r *http.Request) {
	ctx, q := r.Context(), r.URL.Query()
	cursor, err := cursorOf(q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	view := auditView{Action: strings.TrimSpace(q.Get("action")), Actor: strings.TrimSpace(q.Get("actor"))}
	view.Filtered = view.Action != "" || view.Actor != ""
	actor := view.Actor
	if actor == "me" {
		actor = viewerOf(r).Actor()
	}
	rows, older, err := s.Store.Events(ctx, cursor, eventsPerPage, view.Action, actor)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	names := s.names()
	for _, e := range rows {
		view.Rows = append(view.Rows, told(e, names.of(ctx, e.Actor)))
	}
	if older != uuid.Nil {
		view.Older = link("/audit", q, "cursor", older.String())
	}
	if cursor != uuid.Nil {
		view.Newest = link("/audit", q, "cursor", "")
	}
	live := "*"
	if cursor != uuid.Nil {
		live = "" // older pages do not change
	}
	s.show(w, r, http.StatusOK, "audit", page{Title: "Audit", Nav: "audit", Live: live, Body: view})
}

type healthView struct {
	Reads    []aged
	Balances []pgstore.Balance
	Leases   []leased
	Alarms   []string
}

type aged struct {
	pgstore.Read
	Old bool
}

type leased struct {
	pgstore.Lease
	Live bool
}

func (s *site) healthPage(w http.ResponseWriter, r *http.Request) {
	h, err := s.Store.Health(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	now := s.Now()
	view := healthView{Balances: h.Balances}
	for _, read := range h.Reads {
		a := aged{Read: read, Old: now.Sub(read.At) > limitOf(read.What)}
		if a.Old {
			view.Alarms = append(view.Alarms, "The "+read.What+" of account "+read.Account+" were last read "+span(now.Sub(read.At))+" ago.")
		}
		view.Reads = append(view.Reads, a)
	}
	for _, l := range h.Leases {
		x := leased{Lease: l, Live: now.Before(l.ExpiresAt)}
		if !x.Live {
			view.Alarms = append(view.Alarms, "No worker owns account "+l.Account+", so nothing of it is sent or followed.")
		}
		view.Leases = append(view.Leases, x)
	}
	s.show(w, r, http.StatusOK, "health", page{Title: "Health", Nav: "health", Live: "*", Body: view})
}

// limitOf is the age at which a read is called old. Configuration has the limit
// after which intake stops believing it.
func limitOf(what string) time.Duration {
	if what == "config" {
		return policy.Default.MaxConfigAge
	}
	return 5 * time.Minute
}
