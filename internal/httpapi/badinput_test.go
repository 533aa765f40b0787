package httpapi_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/internal/fault"
	"sluice/internal/identity"
)

// good is a request with everything right.
func good() map[string]any {
	return map[string]any{
		"account": "main", "asset": "USDT", "chain": "TRC20", "address": "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8",
		"amount": "25.5", "reference": "invoice-1", "purpose": "rent",
	}
}

// with is a good request with one field changed.
func with(field string, value any) string {
	f := good()
	f[field] = value
	return text(f)
}

func without(field string) string {
	f := good()
	delete(f, field)
	return text(f)
}

func text(f map[string]any) string {
	b, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// with raw replaces the value of one field by raw JSON.
func withRaw(field, raw string) string {
	return strings.Replace(with(field, "@@"), `"@@"`, raw, 1)
}

func TestBadBodies(t *testing.T) {
	whole := text(good())
	for name, c := range map[string]struct {
		body   string
		status int
		code   string
		field  string
	}{
		"empty":                     {"", 400, "body_malformed", ""},
		"only space":                {" \n", 400, "body_malformed", ""},
		"cut off":                   {whole[:len(whole)-1], 400, "body_malformed", ""},
		"not JSON":                  {"amount=25.5", 400, "body_malformed", ""},
		"a list":                    {"[" + whole + "]", 400, "body_malformed", ""},
		"a string":                  {`"x"`, 400, "body_malformed", ""},
		"null":                      {"null", 400, "body_malformed", ""},
		"two objects":               {whole + whole, 400, "body_malformed", ""},
		"something after it":        {whole + "x", 400, "body_malformed", ""},
		"a byte order mark":         {"\ufeff" + whole, 400, "body_malformed", ""},
		"a comment":                 {"/* */" + whole, 400, "body_malformed", ""},
		"a comma at the end":        {whole[:len(whole)-1] + ",}", 400, "body_malformed", ""},
		"invalid UTF-8":             {strings.Replace(whole, "rent", "r\xffnt", 1), 400, "body_malformed", ""},
		"invalid UTF-8 in a key":    {strings.Replace(whole, "purpose", "purp\xc3se", 1), 400, "body_malformed", ""},
		"a bare NUL":                {strings.Replace(whole, "rent", "r\x00nt", 1), 400, "body_malformed", ""},
		"a bare line break":         {strings.Replace(whole, "rent", "r\nnt", 1), 400, "body_malformed", ""},
		"too deep":                  {strings.Repeat("[", 16000), 400, "body_malformed", ""},
		"too large":                 {with("purpose", strings.Repeat("x", 16<<10)), 413, "body_too_large", ""},
		"too large, of spaces":      {whole + strings.Repeat(" ", 16<<10), 413, "body_too_large", ""},
		"an unknown field":          {with("maxfee", "1"), 422, "field_unknown", "maxfee"},
		"a field in capitals":       {with("Amount", "1"), 422, "field_unknown", "Amount"},
		"an empty field name":       {with("", "1"), 422, "field_unknown", ""},
		"a long unknown field":      {with(strings.Repeat("é", 500), "1"), 422, "field_unknown", strings.Repeat("é", 40) + "…"},
		"an amount twice":           {`{"amount":"1",` + whole[1:], 422, "field_repeated", "amount"},
		"an amount twice, escaped":  {`{"am\u006funt":"1",` + whole[1:], 422, "field_repeated", "amount"},
		"a number for the amount":   {withRaw("amount", "25.5"), 422, "field_not_string", "amount"},
		"a huge number":             {withRaw("amount", "1e999999"), 422, "field_not_string", "amount"},
		"null for the memo":         {with("memo", nil), 422, "field_not_string", "memo"},
		"a list for the address":    {with("address", []string{"a"}), 422, "field_not_string", "address"},
		"an object for the account": {with("account", map[string]any{"name": "main"}), 422, "field_not_string", "account"},
		"a bool for the purpose":    {with("purpose", true), 422, "field_not_string", "purpose"},
		"a number for expires_in":   {with("expires_in", 3600), 422, "field_not_string", "expires_in"},

		"no account":    {without("account"), 422, "field_missing", "account"},
		"no asset":      {without("asset"), 422, "field_missing", "asset"},
		"no chain":      {without("chain"), 422, "field_missing", "chain"},
		"no address":    {without("address"), 422, "field_missing", "address"},
		"no amount":     {without("amount"), 422, "field_missing", "amount"},
		"no reference":  {without("reference"), 422, "field_missing", "reference"},
		"no purpose":    {without("purpose"), 422, "field_missing", "purpose"},
		"empty purpose": {with("purpose", ""), 422, "field_missing", "purpose"},

		"an exponent":           {with("amount", "1e3"), 422, "amount_malformed", "amount"},
		"negative":              {with("amount", "-1"), 422, "amount_malformed", "amount"},
		"a Unicode minus":       {with("amount", "\u22121"), 422, "amount_malformed", "amount"},
		"a plus":                {with("amount", "+1"), 422, "amount_malformed", "amount"},
		"a leading zero":        {with("amount", "01"), 422, "amount_malformed", "amount"},
		"no digit before":       {with("amount", ".5"), 422, "amount_malformed", "amount"},
		"no digit after":        {with("amount", "5."), 422, "amount_malformed", "amount"},
		"a comma":               {with("amount", "1,5"), 422, "amount_malformed", "amount"},
		"spaces":                {with("amount", " 1"), 422, "amount_malformed", "amount"},
		"a line break behind":   {with("amount", "1\n"), 422, "amount_malformed", "amount"},
		"other digits":          {with("amount", "١"), 422, "amount_malformed", "amount"},
		"hexadecimal":           {with("amount", "0x10"), 422, "amount_malformed", "amount"},
		"NaN":                   {with("amount", "NaN"), 422, "amount_malformed", "amount"},
		"infinite":              {with("amount", "Infinity"), 422, "amount_malformed", "amount"},
		"too many decimals":     {with("amount", "0."+strings.Repeat("1", 19)), 422, "amount_malformed", "amount"},
		"too many digits":       {with("amount", strings.Repeat("9", 25)), 422, "amount_malformed", "amount"},
		"zero":                  {with("amount", "0.00"), 422, "amount_not_positive", "amount"},
		"a negative fee":        {with("max_fee", "-1"), 422, "amount_malformed", "max_fee"},
		"an empty fee":          {with("max_fee", ""), 422, "amount_malformed", "max_fee"},
		"an unknown method":     {with("method", "ON_CHAIN"), 422, "method_unknown", "method"},
		"an empty method":       {with("method", ""), 422, "method_unknown", "method"},
		"a chain between users": {with("method", "inter_user"), 422, "chain_not_wanted", "chain"},

		"expires too soon":           {with("expires_in", "4m59s"), 422, "expires_in_invalid", "expires_in"},
		"expires too late":           {with("expires_in", "24h1s"), 422, "expires_in_invalid", "expires_in"},
		"expires in a past":          {with("expires_in", "-1h"), 422, "expires_in_invalid", "expires_in"},
		"expires in fractions":       {with("expires_in", "1.5h"), 422, "expires_in_invalid", "expires_in"},
		"expires without unit":       {with("expires_in", "3600"), 422, "expires_in_invalid", "expires_in"},
		"expires in nothing":         {with("expires_in", ""), 422, "expires_in_invalid", "expires_in"},
		"expires in the wrong order": {with("expires_in", "5m1h"), 422, "expires_in_invalid", "expires_in"},

		"an escaped NUL":           {withRaw("purpose", `"a\u0000b"`), 422, "text_invalid", "purpose"},
		"a NUL in the address":     {withRaw("address", `"T\u0000"`), 422, "text_invalid", "address"},
		"a line break in the memo": {with("memo", "a\nb"), 422, "text_invalid", "memo"},
		"text that turns around":   {with("purpose", "a\u202eb"), 422, "text_invalid", "purpose"},
		"a zero width space":       {with("reference", "a\u200bb"), 422, "text_invalid", "reference"},
		"half a surrogate pair":    {withRaw("purpose", `"a\ud800b"`), 422, "text_invalid", "purpose"},
		"a long reference":         {with("reference", strings.Repeat("é", 129)), 422, "field_too_long", "reference"},
		"a long purpose":           {with("purpose", strings.Repeat("é", 501)), 422, "field_too_long", "purpose"},
		"a long address":           {with("address", strings.Repeat("x", 257)), 422, "field_too_long", "address"},
		"another account":          {with("account", "treasury"), 403, "account_not_allowed", "account"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			a := b.send(t, b.request("POST", "/v1/withdrawals", c.body))
			var p fault.Problem
			if err := json.Unmarshal(a.body, &p); err != nil {
				t.Fatal(err)
			}
			if a.status != c.status || p.Code != c.code || p.Field != c.field {
				t.Errorf("%d %s, want %d %s on %q", a.status, a.body, c.status, c.code, c.field)
			}
			if len(b.desk.took) != 0 {
				t.Error("intake was asked")
			}
		})
	}
}

func TestBadHeaders(t *testing.T) {
	type spoil func(t *testing.T, b *bundle, r *http.Request)
	set := func(name string, values ...string) spoil {
		return func(_ *testing.T, _ *bundle, r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
	}
	signed := func(client string, at time.Time, scopes ...string) spoil {
		return func(t *testing.T, b *bundle, r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+b.sign(t, client, at, scopes...))
		}
	}
	for name, c := range map[string]struct {
		spoil  spoil
		status int
		code   string
		auth   string // how WWW-Authenticate goes on after the realm
	}{
		"no token":             {set("Authorization"), 401, "token_missing", ``},
		"an empty token":       {set("Authorization", "Bearer "), 401, "token_missing", ``},
		"another scheme":       {set("Authorization", "Basic cGF5cm9sbDp4"), 401, "token_missing", ``},
		"two tokens":           {set("Authorization", "Bearer a", "Bearer b"), 401, "token_missing", ``},
		"a token that is none": {set("Authorization", "Bearer abc"), 401, "token_malformed", `, error="invalid_token"`},
		"a huge token":         {set("Authorization", "Bearer "+strings.Repeat("x", 9<<10)), 401, "token_malformed", `, error="invalid_token"`},
		"an expired token":     {signed("payroll", noon.Add(-2*time.Hour), identity.ScopeWrite), 401, "token_expired", `, error="invalid_token"`},
		"a token of tomorrow":  {signed("payroll", noon.Add(24*time.Hour), identity.ScopeWrite), 401, "token_not_yet_valid", `, error="invalid_token"`},
		"an unknown client":    {signed("nobody", noon, identity.ScopeWrite), 401, "token_signature", `, error="invalid_token"`},
		"a disabled client":    {signed("retired", noon, identity.ScopeWrite), 401, "client_disabled", `, error="invalid_token"`},
		"a spoilt signature": {func(_ *testing.T, b *bundle, r *http.Request) {
			i := strings.LastIndexByte(b.token, '.') + 5
			flipped := byte('A')
			if b.token[i] == 'A' {
				flipped = 'B'
			}
			r.Header.Set("Authorization", "Bearer "+b.token[:i]+string(flipped)+b.token[i+1:])
		}, 401, "token_signature", `, error="invalid_token"`},
		"a missing scope": {signed("payroll", noon, identity.ScopeRead), 403, "scope_missing",
			`, error="insufficient_scope", scope="withdrawals:write"`},
		"no scope at all": {signed("payroll", noon), 403, "scope_missing", `, error="insufficient_scope", scope="withdrawals:write"`},

		"no key":             {set("Idempotency-Key"), 400, "idempotency_key_missing", ""},
		"an empty key":       {set("Idempotency-Key", ""), 400, "idempotency_key_malformed", ""},
		"a key with spaces":  {set("Idempotency-Key", "a b"), 400, "idempotency_key_malformed", ""},
		"a key not of ASCII": {set("Idempotency-Key", "é"), 400, "idempotency_key_malformed", ""},
		"a key with a NUL":   {set("Idempotency-Key", "a\x00"), 400, "idempotency_key_malformed", ""},
		"a long key":         {set("Idempotency-Key", strings.Repeat("k", 256)), 400, "idempotency_key_malformed", ""},
		"two keys":           {set("Idempotency-Key", "a", "b"), 400, "idempotency_key_malformed", ""},
		"no content type":    {set("Content-Type"), 415, "content_type_unsupported", ""},
		"a form":             {set("Content-Type", "application/x-www-form-urlencoded"), 415, "content_type_unsupported", ""},
		"another charset":    {set("Content-Type", "application/json; charset=utf-16"), 415, "content_type_unsupported", ""},
		"a broken type":      {set("Content-Type", "application/json;;"), 415, "content_type_unsupported", ""},
		"a compressed body":  {set("Content-Encoding", "gzip"), 415, "content_type_unsupported", ""},
		"a query parameter":  {func(_ *testing.T, _ *bundle, r *http.Request) { r.URL.RawQuery = "account=main" }, 422, "query_unknown", ""},
		"a broken query":     {func(_ *testing.T, _ *bundle, r *http.Request) { r.URL.RawQuery = "a=%zz" }, 400, "query_malformed", ""},
		"a token in the query": {func(_ *testing.T, b *bundle, r *http.Request) {
			r.Header.Del("Authorization")
			r.URL.RawQuery = "access_token=" + b.token
		}, 401, "token_missing", ``},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			r := b.request("POST", "/v1/withdrawals", text(good()))
			c.spoil(t, b, r)
			a := b.send(t, r)
			if a.status != c.status || a.code() != c.code {
				t.Errorf("%d %s, want %d %s", a.status, a.body, c.status, c.code)
			}
			want := ""
			if c.status == 401 || c.code == "scope_missing" {
				want = `Bearer realm="sluice"` + c.auth
			}
			if got := a.header.Get("WWW-Authenticate"); got != want {
				t.Errorf("WWW-Authenticate: %s, want %s", got, want)
			}
			if len(b.desk.took) != 0 {
				t.Error("intake was asked")
			}
			// Whatever was sent, no log line repeats a part of the token that would be of use.
			if strings.Contains(b.log.String(), b.token[strings.LastIndexByte(b.token, '.')+1:]) {
				t.Errorf("the token is in the log: %s", b.log)
			}
		})
	}
}

func TestGoodSpellings(t *testing.T) {
	for name, c := range map[string]struct {
		field, value string
	}{
		"a fee of zero":      {"max_fee", "0"},
		"a fee of zeros":     {"max_fee", "0.00"},
		"the shortest time":  {"expires_in", "5m"},
		"the longest time":   {"expires_in", "24h"},
		"all units":          {"expires_in", "1h30m10s"},
		"the longest amount": {"amount", strings.Repeat("9", 24) + "." + strings.Repeat("9", 18)},
		"the least amount":   {"amount", "0." + strings.Repeat("0", 17) + "1"},
		"a spelt out method": {"method", "on_chain"},
		"a long purpose":     {"purpose", strings.Repeat("é", 500)},
		"other scripts":      {"purpose", "家賃 — аренда 🏠"},
	} {
		b := setup(t)
		if a := b.send(t, b.request("POST", "/v1/withdrawals", with(c.field, c.value))); a.status != http.StatusCreated {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	b := setup(t)
	f := maps.Clone(good())
	f["method"], f["address"] = "inter_user", "ann@example.com"
	delete(f, "chain")
	r := b.request("POST", "/v1/withdrawals", text(f))
	r.Header.Set("Content-Type", "application/json; charset=UTF-8")
	r.Header.Set("Authorization", "bearer  "+b.token)
	if a := b.send(t, r); a.status != http.StatusCreated {
		t.Errorf("between users: %d %s", a.status, a.body)
	}
}
