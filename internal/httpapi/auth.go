package httpapi

import (
	"fmt"
	"strings"

	"github.com/labstack/echo/v4"

	"sluice/internal/fault"
	"sluice/internal/identity"
)

const tokenKey = "token"

// authenticate finds out who asks. What they may do is asked by each handler.
func (a *api) authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		t, err := a.Tokens.Verify(c.Request().Context(), bearer(c))
		if err != nil {
			return err
		}
		c.Set(tokenKey, t)
		return next(c)
	}
}

// bearer is the token of the request, "" when there is none. Two Authorization
// headers are none: a proxy might have believed the other one.
func bearer(c echo.Context) string {
	headers := c.Request().Header.Values(echo.HeaderAuthorization)
	if len(headers) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

func tokenOf(c echo.Context) (identity.Token, bool) {
	t, ok := c.Get(tokenKey).(identity.Token)
	return t, ok
}

// requireScope returns who asks, if their token may be used for scope.
func requireScope(c echo.Context, scope string) (identity.Token, error) {
	t, _ := tokenOf(c)
	if t.Allows(scope) {
		return t, nil
	}
	c.Response().Header().Set(echo.HeaderWWWAuthenticate,
		fmt.Sprintf(`Bearer realm="sluice", error="insufficient_scope", scope=%q`, scope))
	return t, fault.New(fault.Forbidden, "scope_missing", "the token does not carry the scope "+scope,
		"sign a token with that scope; if the client has not been granted it, ask the operators of Sluice")
}

// requester is the token's client as withdrawals and the record name it.
func requester(t identity.Token) string { return "client:" + t.Client }
