package httpapi

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"sluice/internal/fault"
	"sluice/internal/identity"
	"sluice/internal/withdraw"
)

// query reads the query string and refuses what is not in known: a misspelt filter
// that is passed over would show more than was asked for.
func query(c echo.Context, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return nil, fault.New(fault.Malformed, "query_malformed", "the query string cannot be read", "encode it as a form is encoded").Because(err)
	}
	for _, name := range slices.Sorted(maps.Keys(q)) {
		if !slices.Contains(known, name) {
			fix := "this path takes no query parameters"
			if len(known) > 0 {
				fix = "use " + strings.Join(known, ", ")
			}
			return nil, fault.New(fault.Invalid, "query_unknown", fmt.Sprintf("there is no query parameter %q", short(name)), fix).On(short(name))
		}
		if len(q[name]) > 1 && name != "state" {
			return nil, badQuery(name, "is given more than once", "give it once")
		}
	}
	return q, nil
}

func badQuery(name, what, fix string) error {
	return fault.New(fault.Invalid, "query_invalid", name+" "+what, fix).On(name)
}

const (
	maxPage       = 200
	maxFilterText = 256 // the longest text that any withdrawal holds in a column that can be filtered by
)

// filterOf reads the filters of a list. A client's list is always of its own
// requests: what other services pay is not its business.
func filterOf(c echo.Context, t identity.Token) (withdraw.Filter, error) {
	f := withdraw.Filter{Requester: requester(t)}
	q, err := query(c, "state", "account", "asset", "address", "reference", "requester", "from", "to", "limit", "cursor")
	if err != nil {
		return f, err
	}
	if asked, given := q["requester"]; given && asked[0] != f.Requester {
		return f, fault.New(fault.Forbidden, "requester_not_allowed", "a client sees its own requests only",
			"leave requester out, or ask for "+f.Requester).On("requester")
	}
	if f.States, err = statesOf(q["state"]); err != nil {
		return f, err
	}
	for _, text := range []struct {
		name string
		to   *string
	}{{"account", &f.Account}, {"asset", &f.Asset}, {"address", &f.Address}, {"reference", &f.Reference}} {
		if !q.Has(text.name) {
			continue
		}
		*text.to = q.Get(text.name)
		if *text.to == "" {
			return f, badQuery(text.name, "is empty", "give it a value, or leave it out")
		}
		if err := checkText(text.name, *text.to, maxFilterText); err != nil {
			return f, err
		}
	}
	for _, at := range []struct {
		name string
		to   *time.Time
	}{{"from", &f.From}, {"to", &f.To}} {
		if !q.Has(at.name) {
			continue
		}
		if *at.to, err = time.Parse(time.RFC3339, q.Get(at.name)); err != nil {
			return f, badQuery(at.name, "is not a time of RFC 3339", `write it such as "2026-11-23T10:00:00Z"; a plus sign is %2B in a query`)
		}
	}
	if q.Has("limit") {
		if f.Limit, err = strconv.Atoi(q.Get("limit")); err != nil || f.Limit < 1 || f.Limit > maxPage {
			return f, badQuery("limit", fmt.Sprintf("is not a whole number from 1 to %d", maxPage), "give a number in that range, or leave it out")
		}
	}
	if q.Has("cursor") {
		if f.Cursor, err = parseID(q.Get("cursor")); err != nil {
			return f, badQuery("cursor", "is not one that a list gave", "take next_cursor of the page before, as it stands")
		}
	}
	return f, nil
}

// statesOf reads states that are given one by one, or several with commas.
func statesOf(values []string) ([]withdraw.State, error) {
	var states []withdraw.State
	for _, name := range strings.Split(strings.Join(values, ","), ",") {
		s := withdraw.State(name)
		switch {
		case values == nil:
			return nil, nil
		case !slices.Contains(withdraw.States(), s):
			return nil, badQuery("state", fmt.Sprintf("%q is not a state", short(name)), "see /docs for the states")
		case !slices.Contains(states, s):
			states = append(states, s)
		}
	}
	return states, nil
}

// parseID reads the one written form of an id; the library takes four.
func parseID(s string) (uuid.UUID, error) {
	if len(s) != 36 {
		return uuid.Nil, fmt.Errorf("an id has 36 characters, this has %d", len(s))
	}
	return uuid.Parse(s)
}
