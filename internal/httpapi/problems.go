package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/labstack/echo/v4"

	"sluice/internal/fault"
)

const (
	jsonType    = "application/json"
	problemType = "application/problem+json"
	// retryAfter, in seconds, is the pause asked for when nothing happened and the
	// same request may succeed later.
	retryAfter = "2"
	// clientGone is what the log and the metrics show for a caller that hung up.
	clientGone = 499
)

// unreached holds the answers to requests that reached no handler of ours or
// outlived its time. Everything else is a fault.
var unreached = map[int]fault.Problem{
	http.StatusNotFound: {Code: "route_not_found", Detail: "there is nothing at this path",
		Fix: "see /docs for what there is"},
	http.StatusMethodNotAllowed: {Code: "method_not_allowed", Detail: "this path does not take this method",
		Fix: "use a method of the Allow header; see /docs"},
	http.StatusUnsupportedMediaType: {Code: "content_type_unsupported", Detail: "the body is not declared as plain JSON",
		Fix: "send Content-Type: application/json, in UTF-8 and without Content-Encoding"},
	http.StatusServiceUnavailable: {Code: "timed_out", Detail: "the request took too long; it may or may not have been recorded",
		Fix: "send it again with the same Idempotency-Key: whatever happened, you get its one answer"},
}

// problemOf is what the caller is told of err.
func problemOf(err error) fault.Problem {
	if _, ok := fault.As(err); ok {
		return fault.ProblemOf(err)
	}
	status := 0
	var he *echo.HTTPError
	switch {
	case errors.As(err, &he):
		status = he.Code
	case errors.Is(err, context.DeadlineExceeded):
		status = http.StatusServiceUnavailable
	}
	p, ok := unreached[status]
	if !ok {
		return fault.ProblemOf(err)
	}
	p.Type, p.Title, p.Status = "about:blank", http.StatusText(status), status
	return p
}

// errorHandler answers every error as a problem detail. What broke on our side is
// logged whole and shown as nothing but that.
func errorHandler(log *slog.Logger) echo.HTTPErrorHandler {
	return func(err error, c echo.Context) {
		ctx := c.Request().Context()
		if errors.Is(ctx.Err(), context.Canceled) {
			c.Response().Status = clientGone
			return
		}
		p := problemOf(err)
		if p.Status >= http.StatusInternalServerError {
			log.LogAttrs(ctx, slog.LevelError, "request failed", slog.String("code", p.Code),
				slog.String("error", err.Error()), slog.String("request_id", requestIDOf(c)))
		}
		if c.Response().Committed {
			return
		}
		switch h := c.Response().Header(); p.Status {
		case http.StatusUnauthorized:
			challenge := `Bearer realm="sluice"`
			if p.Code != "token_missing" {
				challenge += `, error="invalid_token"`
			}
			h.Set(echo.HeaderWWWAuthenticate, challenge)
		case http.StatusServiceUnavailable:
			h.Set(echo.HeaderRetryAfter, retryAfter)
		}
		// It fails only when the caller has gone.
		_ = c.Blob(p.Status, problemType, p.JSON())
	}
}

// notReady passes on a sentence that was meant for people, and nothing else.
func notReady(err error) error {
	detail := "the process cannot do its work right now"
	if e, ok := fault.As(err); ok {
		detail = e.Detail
	}
	return fault.New(fault.Unavailable, "not_ready", detail, "wait; if it stays, look at the log of this process").Because(err)
}
