// Package httpapi is the JSON API for programs: asking for withdrawals, looking them
// up and taking them back, with the description of itself and what operators need to
// watch it. It checks who asks and the shape of what is asked; whether it may be
// paid is for intake and the people behind it. Nothing here can vote.
package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice/internal/identity"
	"sluice/internal/pgstore"
	"sluice/internal/policy"
	"sluice/internal/withdraw"
)

// Tokens says who sends a request. Package identity has it.
type Tokens interface {
	Verify(ctx context.Context, bearer string) (identity.Token, error)
}

// Intake takes requests for withdrawals. Package intake has it.
type Intake interface {
	Submit(ctx context.Context, r withdraw.Request) (withdraw.Answer, error)
}

// Store reads withdrawals and takes them back. Package pgstore has it.
type Store interface {
	Withdrawal(ctx context.Context, id uuid.UUID) (withdraw.Withdrawal, error)
	Withdrawals(ctx context.Context, f withdraw.Filter) ([]withdraw.Withdrawal, uuid.UUID, error)
	EventsOf(ctx context.Context, withdrawalID uuid.UUID) ([]pgstore.EventRow, error)
	Cancel(ctx context.Context, id uuid.UUID, actor, reason string, now time.Time) (withdraw.Withdrawal, error)
}

// Ops is what any process needs to be watched by.
type Ops struct {
	Log      *slog.Logger
	Registry *prometheus.Registry // shown at /metrics; requests are counted in it
	// Ready tells why the process cannot do its work right now; nil when it can.
	Ready func(ctx context.Context) error
	Now   func() time.Time
}

// Deps is what the API works with.
type Deps struct {
	Ops
	Tokens Tokens
	Intake Intake
	Store  Store
	Policy policy.Policy // the one that intake applies
}

// Paths are the patterns, as http.ServeMux has them, under which everything of
// New lies, for the process that serves other pages beside it.
var Paths = []string{"/v1/", "/openapi.yaml", "/docs", "/docs/", "/healthz", "/readyz", "/metrics"}

const (
	// maxBody bounds a request's body. The largest that is valid stays below 10 KiB.
	maxBody = 16 << 10
	// requestTimeout bounds the work on one request. It is longer than intake may
	// take over a batch, so that a slow database is told as such and not as a timeout.
	requestTimeout = 15 * time.Second
	readyTimeout   = 2 * time.Second
)

// New makes the whole API. It panics on a registry that has metrics of another
// New, which is a mistake in wiring.
func New(d Deps) *echo.Echo {
	e := NewOps(d.Ops)
	a := &api{d}
	// Not a group: with middleware, a group answers "not found" where a known path
	// is asked with a wrong method.
	e.POST("/v1/withdrawals", a.create, a.authenticate)
	e.GET("/v1/withdrawals", a.list, a.authenticate)
	e.GET("/v1/withdrawals/:id", a.get, a.authenticate)
	e.GET("/v1/withdrawals/:id/events", a.events, a.authenticate)
	e.POST("/v1/withdrawals/:id/cancel", a.cancel, a.authenticate)
	serveDocs(e)
	return e
}

type api struct{ Deps }

// NewOps makes the part that every process serves: /healthz, /readyz, /metrics.
func NewOps(o Ops) *echo.Echo {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = errorHandler(o.Log)
	// In this order: the outer ones also see what the inner ones make of an error
	// or a panic.
	e.Use(requestID, observe(o), recoverPanics, limitTime, secureHeaders)

	e.GET("/healthz", func(c echo.Context) error {
		return c.JSON(http.StatusOK, map[string]string{"status": "ok"})
	})
	e.GET("/readyz", func(c echo.Context) error {
		ctx, cancel := context.WithTimeout(c.Request().Context(), readyTimeout)
		defer cancel()
		if err := o.Ready(ctx); err != nil {
			return notReady(err)
		}
		return c.JSON(http.StatusOK, map[string]string{"status": "ready"})
	})
	e.GET("/metrics", echo.WrapHandler(promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{})))
	return e
}

// NewServer is a server with bounds against clients that send slowly, send
// much, or never hang up. Handlers of live pages lift the write deadline of their own
// connection.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      2 * requestTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}
