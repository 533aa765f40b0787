package web

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"sluice/internal/fault"
)

const (
	pollEvery = time.Second
	// beat is below the minute after which proxies drop silent connections.
	beat        = 20 * time.Second
	maxWatchers = 500 // open pages of one process
	// maxIDs is how many changed withdrawals are named to a page; more are "anything".
	maxIDs = 100
)

// hub tells open pages what changed. One poller asks the store for all of them,
// and only while somebody looks; a page that reads slowly gets its changes
// merged, never queued.
type hub struct {
	store interface {
		Changes(ctx context.Context, since string) ([]uuid.UUID, string, error)
	}
	log  *slog.Logger
	done <-chan struct{}
	tick func() (<-chan time.Time, func()) // replaced by tests
	beat func() (<-chan time.Time, func())

	mu       sync.Mutex
	watchers map[*watcher]struct{}
	stop     context.CancelFunc // of the running poller
}

// watcher is one open page.
type watcher struct {
	mu   sync.Mutex
	ids  map[uuid.UUID]struct{}
	more bool          // than ids can name
	wake chan struct{} // holds at most one token
}

func newHub(store Store, log *slog.Logger, done <-chan struct{}) *hub {
	every := func(d time.Duration) func() (<-chan time.Time, func()) {
		return func() (<-chan time.Time, func()) { t := time.NewTicker(d); return t.C, t.Stop }
	}
	return &hub{store: store, log: log, done: done, tick: every(pollEvery), beat: every(beat),
		watchers: map[*watcher]struct{}{}}
}

var tooManyWatchers = fault.New(fault.Unavailable, "too_many_live_pages",
	"too many pages are open at once for live updates", "the page works without them; reload it to see what changed")

func (h *hub) watch() (*watcher, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.watchers) >= maxWatchers {
		return nil, tooManyWatchers
	}
	w := &watcher{ids: map[uuid.UUID]struct{}{}, wake: make(chan struct{}, 1)}
	h.watchers[w] = struct{}{}
	if h.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		h.stop = stop
		go h.poll(ctx)
	}
	return w, nil
}

func (h *hub) leave(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
	if len(h.watchers) == 0 {
		h.stop()
		h.stop = nil
	}
}

// poll asks for changes until the last page has gone. A failure is not the end:
// the position stays, so what changed meanwhile is told afterwards.
func (h *hub) poll(ctx context.Context) {
	tick, stop := h.tick()
	defer stop()
	since, failing := "", false
	for {
		ids, next, err := h.store.Changes(ctx, since)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if !failing {
				h.log.WarnContext(ctx, "live updates: cannot read changes; will keep trying", "error", err)
			}
		} else {
			since = next
			h.tell(ids)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-h.done:
			return
		case <-tick:
		}
	}
}

func (h *hub) tell(ids []uuid.UUID) {
	if len(ids) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.add(ids)
	}
}

func (w *watcher) add(ids []uuid.UUID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		w.ids[id] = struct{}{}
	}
	if len(w.ids) > maxIDs {
		w.more = true
		clear(w.ids)
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take empties the watcher.
func (w *watcher) take() (ids []string, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids = []string{}
	for id := range w.ids {
		ids = append(ids, id.String())
	}
	more = w.more
	clear(w.ids)
	w.more = false
	return ids, more
}

// liveStream is one open page's connection: server-sent events that name what
// changed. The page fetches itself again; nothing of a withdrawal travels here.
func (s *site) liveStream(w http.ResponseWriter, r *http.Request) {
	page, err := s.live.watch()
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer s.live.leave(page)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")

	out := http.NewResponseController(w)
	send := func(format string, args ...any) bool {
		// A reader that has gone away without a word must not hold the connection.
		// A server without deadlines has nothing to extend.
		_ = out.SetWriteDeadline(time.Now().Add(beat))
		_, err := fmt.Fprintf(w, format, args...)
		return err == nil && out.Flush() == nil
	}
	tick, stop := s.live.beat()
	defer stop()
	if !send("retry: 3000\nevent: ready\ndata: {}\n\n") {
		return
	}
	token := s.token(r)
	for {
		select {
		case <-r.Context().Done():
			return
		case <-s.live.done:
			return
		case <-tick:
			// Whoever signed out, ran out of time or was disabled stops hearing.
			if !s.still(context.WithoutCancel(r.Context()), token) {
				send("event: signedout\ndata: {}\n\n")
				return
			}
			if !send(": still here\n\n") {
				return
			}
		case <-page.wake:
			ids, more := page.take()
			data, err := json.Marshal(map[string]any{"ids": ids, "more": more})
			if err != nil || !send("event: changed\ndata: %s\n\n", data) {
				return
			}
		}
	}
}
