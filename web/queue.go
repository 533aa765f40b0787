package web

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"sluice/internal/approval"
	"sluice/internal/fault"
	"sluice/internal/identity"
	"sluice/internal/withdraw"
)

// rowsPerPage bounds a page of the queue. Each row that waits for votes has its
// votes verified, the very check that the worker makes, so a page stays small.
const rowsPerPage = 25

// tab is one slice of the queue.
type tab struct {
	Key, Label string
	States     []withdraw.State // nil for all
	Tone       tone
	Empty      string // what it means when nothing is there

	Count   int // of states that are not final; those are not counted
	Current bool
	URL     string
}

func tabs() []tab {
	return []tab{
		{Key: "votes", Label: "Needs votes", Tone: wait, States: []withdraw.State{withdraw.Pending, withdraw.Absent},
			Empty: "No withdrawal waits for a vote."},
		{Key: "progress", Label: "In progress", Tone: still, States: []withdraw.State{withdraw.Approved, withdraw.Submitting, withdraw.Unknown, withdraw.Submitted},
			Empty: "Nothing is on its way to the exchange or being followed there."},
		{Key: "person", Label: "Needs a person", Tone: care, States: []withdraw.State{withdraw.Held},
			Empty: "Nothing is held. Whatever stops will show here, with what to do."},
		{Key: "done", Label: "Done", States: []withdraw.State{withdraw.Completed, withdraw.Failed, withdraw.Rejected, withdraw.Cancelled, withdraw.Expired, withdraw.Refused},
			Empty: "Nothing has ended yet."},
		{Key: "all", Label: "All", Empty: "Nobody has asked for a withdrawal yet."},
	}
}

// row is one withdrawal of the queue.
type row struct {
	withdraw.Withdrawal
	Label     string // of the destination
	Requester string
	Approvals int // that count now
	Needed    int // 0 when votes no longer matter
	Next      string
}

type queueView struct {
	Tabs     []tab
	Current  tab
	Filter   filterView
	Filtered bool
	Rows     []row
	Older    string // link to the next page
	Newest   string // link to the first page, when this is a later one
	Clear    string
}

// filterView is the filter as typed.
type filterView struct {
	State, Account, Asset, Address, Reference, Requester, From, To string
	Accounts                                                       []string
	States                                                         []withdraw.State
}

func (s *site) home(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "/withdrawals", http.StatusSeeOther)
}

func (s *site) queuePage(w http.ResponseWriter, r *http.Request) {
	ctx, q := r.Context(), r.URL.Query()
	filter, err := filterOf(q, viewerOf(r).Person)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	view := queueView{Tabs: tabs(), Filter: filterView{
		State: q.Get("state"), Account: q.Get("account"), Asset: q.Get("asset"), Address: q.Get("address"),
		Reference: q.Get("reference"), Requester: q.Get("requester"), From: q.Get("from"), To: q.Get("to"),
		States: withdraw.States(),
	}}
	if view.Filter.Accounts, err = s.Store.Accounts(ctx); err != nil {
		s.fail(w, r, err)
		return
	}
	counts, err := s.Store.Counts(ctx)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	current := slices.IndexFunc(view.Tabs, func(t tab) bool { return t.Key == q.Get("tab") })
	if current < 0 {
		current = 0
	}
	for i := range view.Tabs {
		t := &view.Tabs[i]
		for _, state := range t.States {
			t.Count += counts[state]
		}
		t.Current = i == current
		t.URL = link("/withdrawals", q, "tab", t.Key, "cursor", "", "state", "")
	}
	view.Current = view.Tabs[current]
	if len(filter.States) == 0 {
		filter.States = view.Current.States
	}

	list, older, err := s.Store.Withdrawals(ctx, filter)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if view.Rows, err = s.rows(ctx, list); err != nil {
		s.fail(w, r, err)
		return
	}
	view.Filtered = strings.Join([]string{view.Filter.State, view.Filter.Account, view.Filter.Asset, view.Filter.Address,
		view.Filter.Reference, view.Filter.Requester, view.Filter.From, view.Filter.To}, "") != ""
	view.Clear = link("/withdrawals", url.Values{}, "tab", view.Current.Key)
	if older != uuid.Nil {
		view.Older = link("/withdrawals", q, "cursor", older.String())
	}
	if filter.Cursor != uuid.Nil {
		view.Newest = link("/withdrawals", q, "cursor", "")
	}
	s.show(w, r, http.StatusOK, "queue", page{Title: "Withdrawals", Nav: "withdrawals", Live: "*", Body: view})
}

func (s *site) rows(ctx context.Context, list []withdraw.Withdrawal) ([]row, error) {
	names, labels := s.names(), map[uuid.UUID]string{}
	rows := make([]row, 0, len(list))
	for _, w := range list {
		var verdict *approval.Verdict
		r := row{Withdrawal: w, Requester: names.of(ctx, w.Requester)}
		if w.State == withdraw.Pending || w.State == withdraw.Absent {
			v, err := s.verdict(ctx, w)
			if err != nil {
				return nil, err
			}
			verdict = v
			r.Approvals, r.Needed = len(v.Approvals), v.Terms.Quorum.Approve
		}
		label, err := s.label(ctx, w, labels)
		if err != nil {
			return nil, err
		}
		r.Label, r.Next = label, brief(w, verdict)
		rows = append(rows, r)
	}
	return rows, nil
}

// verdict counts the votes of a withdrawal as the worker would, now.
func (s *site) verdict(ctx context.Context, w withdraw.Withdrawal) (*approval.Verdict, error) {
	e, err := s.Store.Evidence(ctx, w.ID, s.Relying)
	if err != nil {
		return nil, err
	}
	v := approval.Verify(e, s.Now())
	return &v, nil
}

// label is the name of a withdrawal's destination, remembered in known.
func (s *site) label(ctx context.Context, w withdraw.Withdrawal, known map[uuid.UUID]string) (string, error) {
	if w.DestinationID == nil {
		return "", nil
	}
	if label, ok := known[*w.DestinationID]; ok {
		return label, nil
	}
	d, err := s.Store.Destination(ctx, *w.DestinationID)
	if err != nil {
		return "", err
	}
	known[*w.DestinationID] = d.Label
	return d.Label, nil
}

// filterOf reads the queue's query. What cannot be read is refused: a filter that was
// silently dropped would show more than was asked for and look complete.
func filterOf(q url.Values, me identity.Person) (withdraw.Filter, error) {
	f := withdraw.Filter{
		Account: q.Get("account"), Asset: q.Get("asset"), Address: strings.TrimSpace(q.Get("address")),
		Reference: q.Get("reference"), Requester: strings.TrimSpace(q.Get("requester")), Limit: rowsPerPage,
	}
	switch {
	case f.Requester == "me":
		f.Requester = me.Actor()
	case f.Requester != "" && !strings.Contains(f.Requester, ":"):
		f.Requester = "client:" + f.Requester
	}
	if state := withdraw.State(q.Get("state")); state != "" {
		if !slices.Contains(withdraw.States(), state) {
			return f, badFilter("state")
		}
		f.States = []withdraw.State{state}
	}
	var err error
	if f.Cursor, err = cursorOf(q); err != nil {
		return f, err
	}
	if f.From, err = day(q, "from"); err != nil {
		return f, err
	}
	if f.To, err = day(q, "to"); err != nil {
		return f, err
	}
	if !f.To.IsZero() {
		f.To = f.To.AddDate(0, 0, 1) // people mean the whole last day
	}
	return f, nil
}

func day(q url.Values, name string) (time.Time, error) {
	if q.Get(name) == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.DateOnly, q.Get(name))
	if err != nil {
		return t, badFilter(name)
	}
	return t, nil
}

func cursorOf(q url.Values) (uuid.UUID, error) {
	if q.Get("cursor") == "" {
		return uuid.Nil, nil
	}
	id, err := uuid.Parse(q.Get("cursor"))
	if err != nil {
		return id, badFilter("cursor")
	}
	return id, nil
}

func badFilter(name string) error {
	return fault.New(fault.Invalid, "filter_malformed", "the filter \""+name+"\" cannot be read", "clear the filter and set it again").On(name)
}

// link is path with q changed by name and value pairs; an empty value removes.
func link(path string, q url.Values, pairs ...string) string {
	q = maps.Clone(q)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			q.Del(pairs[i])
		} else {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	for name, values := range q {
		if strings.Join(values, "") == "" {
			q.Del(name)
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}
