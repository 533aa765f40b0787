package web

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"sluice/internal/fault"
)

// liveHouse serves the site over a real connection, with clocks that tests drive.
func liveHouse(t *testing.T) (*house, *httptest.Server, chan time.Time, chan time.Time) {
	h := newHouse(t)
	polls, beats := make(chan time.Time), make(chan time.Time)
	h.site.live.tick = func() (<-chan time.Time, func()) { return polls, func() {} }
	h.site.live.beat = func() (<-chan time.Time, func()) { return beats, func() {} }
	h.asked = make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Host = "localhost:8080"
		h.handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return h, server, polls, beats
}

func listen(t *testing.T, server *httptest.Server, b *browser) (*bufio.Reader, func()) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range b.cookies {
		r.AddCookie(c)
	}
	answer, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %s", answer.StatusCode, answer.Header)
	}
	return bufio.NewReader(answer.Body), stop
}

func TestOpenPagesHearWhatChanged(t *testing.T) {
	h, server, polls, beats := liveHouse(t)
	b := h.as("ana")
	one, _ := listen(t, server, b)
	two, _ := listen(t, server, b)
	until(t, one, "event: ready")
	until(t, two, "event: ready")
	<-h.asked // the poller knows where it stands

	id := uuid.New()
	h.mu.Lock()
	h.changes = append(h.changes, id)
	h.mu.Unlock()
	polls <- now // one poll serves both
	for _, page := range []*bufio.Reader{one, two} {
		if got := until(t, page, "\n\n"); strings.Contains(got, "changed") {
			t.Fatal("heard before the blank line of ready")
		}
		if got := until(t, page, "}\n\n"); !strings.Contains(got, "event: changed") || !strings.Contains(got, id.String()) {
			t.Errorf("%q", got)
		}
	}
	beats <- now
	beats <- now
}

func TestWhoeverIsOutStopsHearing(t *testing.T) {
	h, server, _, beats := liveHouse(t)
	b := h.as("ben")
	page, _ := listen(t, server, b)
	until(t, page, "event: ready")
	beats <- now
	until(t, page, ": still here")
	p := h.people["ben"]
	p.Disabled = true
	h.persons[p.ID] = p
	beats <- now
	until(t, page, "event: signedout")
}

func TestStoppingEndsLiveConnections(t *testing.T) {
	h, server, _, _ := liveHouse(t)
	page, _ := listen(t, server, h.as("ana"))
	until(t, page, "event: ready\ndata: {}\n\n")
	close(h.done)
	if _, err := page.ReadByte(); err == nil {
		t.Error("the connection goes on")
	}
}

func TestNobodyLooksNobodyAsks(t *testing.T) {
	h := newHouse(t)
	hub := h.site.live
	if h.site.live.stop != nil {
		t.Fatal("polls before anyone looks")
	}
	w, err := hub.watch()
	if err != nil || hub.stop == nil {
		t.Fatal("does not poll", err)
	}
	hub.leave(w)
	if hub.stop != nil {
		t.Error("goes on polling for nobody")
	}
}

func TestOpenPagesAreBounded(t *testing.T) {
	h := newHouse(t)
	for range maxWatchers {
		if _, err := h.site.live.watch(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.site.live.watch(); !fault.Is(err, "too_many_live_pages") {
		t.Errorf("%v", err)
	}
	close(h.done)
}

func TestSlowPagesMergeAndNeverQueue(t *testing.T) {
	w := &watcher{ids: map[uuid.UUID]struct{}{}, wake: make(chan struct{}, 1)}
	same := uuid.New()
	for range 1000 {
		w.add([]uuid.UUID{same})
	}
	if ids, more := w.take(); len(ids) != 1 || more {
		t.Errorf("%d ids, more %v", len(ids), more)
	}
	for range maxIDs + 1 {
		w.add([]uuid.UUID{uuid.New()})
	}
	if ids, more := w.take(); !more || len(ids) != 0 {
		t.Errorf("%d ids, more %v", len(ids), more)
	}
}
