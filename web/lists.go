package web

import (
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"sluice/internal/exchange"
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

// exportWhitelist is the mirror in lines, for the batch-add page of the exchange's API
// whitelist.
func (s *site) exportWhitelist(w http.ResponseWriter, r *http.Request) {
	list, err := s.Store.Destinations(r.Context(), r.URL.Query().Get("account"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="whitelist.csv"`)
	_ = whitelist.WriteBatch(w, list) // whoever asked has gone
}

type healthView struct {
	Reads    []aged
	Balances []pgstore.Balance
	Futures  []pgstore.FuturesRow
	Leases   []leased
	Checks   []checked
	Alarms   []string
}

// checked are the findings of one account, those that need somebody first.
type checked struct {
	Account string
	At      time.Time
	Open    []pgstore.Finding
	Well    []pgstore.Finding
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
	view := healthView{Balances: h.Balances, Futures: h.Futures}
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
	for _, f := range h.Findings {
		if n := len(view.Checks); n == 0 || view.Checks[n-1].Account != f.Account {
			view.Checks = append(view.Checks, checked{Account: f.Account, At: f.At})
		}
		c := &view.Checks[len(view.Checks)-1]
		switch f.Standing {
		case exchange.Broken:
			view.Alarms = append(view.Alarms, "Account "+f.Account+": "+f.Says)
			c.Open = append(c.Open, f)
		case exchange.Doubtful:
			c.Open = append(c.Open, f)
		default:
			c.Well = append(c.Well, f)
		}
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
