package httpapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"strconv"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// plainID is what is taken over from a caller as the id of its request. Anything else
// could write lines of its own into a log.
var plainID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// requestID gives every answer an id by which its log line is found.
func requestID(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		id := c.Request().Header.Get(echo.HeaderXRequestID)
		if !plainID.MatchString(id) {
			id = uuid.Must(uuid.NewV7()).String()
		}
		c.Response().Header().Set(echo.HeaderXRequestID, id)
		return next(c)
	}
}

// observe answers errors, and writes one log line and one measurement per request.
// Of what was sent it logs only what was understood: a path, a query and headers
// may hold a token that somebody put in the wrong place.
func observe(o Ops) echo.MiddlewareFunc {
	seconds := promauto.With(o.Registry).NewHistogramVec(prometheus.HistogramOpts{
		Name:    "sluice_http_request_seconds",
		Help:    "Time to answer HTTP requests.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
	}, []string{"method", "route", "status"})
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			start := o.Now()
			if err := next(c); err != nil {
				c.Error(err)
			}
			took := o.Now().Sub(start)
			method, route, status := methodLabel(c.Request().Method), routeLabel(c), c.Response().Status
			seconds.WithLabelValues(method, route, strconv.Itoa(status)).Observe(took.Seconds())
			attrs := []slog.Attr{
				slog.String("method", method), slog.String("route", route), slog.Int("status", status),
				slog.Duration("took", took), slog.String("request_id", requestIDOf(c)),
			}
			if t, ok := tokenOf(c); ok {
				attrs = append(attrs, slog.String("client", t.Client))
			}
			o.Log.LogAttrs(c.Request().Context(), slog.LevelInfo, "request", attrs...)
			return nil
		}
	}
}

func requestIDOf(c echo.Context) string { return c.Response().Header().Get(echo.HeaderXRequestID) }

// methodLabel and routeLabel keep the number of time series bounded whatever is
// asked for.
func methodLabel(m string) string {
	switch m {
	case http.MethodGet, http.MethodPost, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return m
	}
	return "other"
}

func routeLabel(c echo.Context) string {
	if p := c.Path(); p != "" {
		return p // the pattern, never what was asked for
	}
	return "unmatched"
}

// recoverPanics turns a panic into an internal error, so that it is answered and
// logged like one and takes no other request with it.
func recoverPanics(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			if r := recover(); r != nil {
				if r == http.ErrAbortHandler {
					panic(r)
				}
				err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
			}
		}()
		return next(c)
	}
}

func limitTime(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		c.SetRequest(r.WithContext(ctx))
		// Outside of here a cancelled context means that the caller has gone.
		defer c.SetRequest(r)
		return next(c)
	}
}

// secureHeaders keeps browsers from doing anything with an answer but show it.
func secureHeaders(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		return next(c)
	}
}
