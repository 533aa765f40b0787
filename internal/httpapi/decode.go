package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/labstack/echo/v4"
	"github.com/shopspring/decimal"

	"sluice/internal/canonical"
	"sluice/internal/exchange"
	"sluice/internal/fault"
	"sluice/internal/money"
	"sluice/internal/policy"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

// readBody reads a bounded JSON body. It may be empty.
func readBody(c echo.Context) ([]byte, error) {
	r := c.Request()
	body, err := io.ReadAll(http.MaxBytesReader(c.Response(), r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, fault.New(fault.TooLarge, "body_too_large", fmt.Sprintf("the body is larger than %d bytes", maxBody), "send less")
	case err != nil:
		return nil, malformed("it ended early").Because(err)
	case len(body) > 0 && !plainJSON(r.Header):
		return nil, echo.ErrUnsupportedMediaType
	}
	return body, nil
}

func plainJSON(h http.Header) bool {
	kind, params, err := mime.ParseMediaType(h.Get(echo.HeaderContentType))
	charset, declared := params["charset"]
	return err == nil && kind == jsonType && (!declared || strings.EqualFold(charset, "utf-8")) &&
		h.Get(echo.HeaderContentEncoding) == ""
}

func malformed(why string) *fault.Error {
	return fault.New(fault.Malformed, "body_malformed", "the body is not one JSON object in UTF-8: "+why,
		"send one JSON object and nothing after it")
}

// readObject reads one flat JSON object whose values are all strings. It is stricter
// than JSON decoders are: most take the last of two equal keys, and some the first,
// so that what one program checked is not what another pays; most drop unknown
// fields, so that a misspelt "max_fee" would be no limit at all; and all turn half a
// surrogate pair into a replacement character.
func readObject(body []byte, known []string) (map[string]string, error) {
	if !utf8.Valid(body) {
		return nil, malformed("it holds bytes that are no UTF-8")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		return nil, malformed(err.Error())
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber() // the numbers are refused below; as floats, large ones would be a decoder's error
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, malformed("it is something else than an object")
	}
	fields := map[string]string{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, malformed(err.Error())
		}
		name, _ := key.(string) // the key of an object is always a string
		if !slices.Contains(known, name) {
			return nil, fault.New(fault.Invalid, "field_unknown", fmt.Sprintf("there is no field %q", short(name)),
				"use "+strings.Join(known, ", ")).On(short(name))
		}
		if _, twice := fields[name]; twice {
			return nil, fault.New(fault.Invalid, "field_repeated", name+" is given twice", "send each field once").On(name)
		}
		value, err := dec.Token()
		if err != nil {
			return nil, malformed(err.Error())
		}
		text, ok := value.(string)
		if !ok {
			return nil, fault.New(fault.Invalid, "field_not_string", fmt.Sprintf("%s is %s, not a string", name, jsonKind(value)),
				fmt.Sprintf("put the value of %s in quotes, or leave the field out", name)).On(name)
		}
		if strings.ContainsRune(text, utf8.RuneError) {
			return nil, fault.New(fault.Invalid, "text_invalid", name+" holds half a character, or the mark of one that was lost",
				"send the text as it was before something damaged it").On(name)
		}
		fields[name] = text
	}
	return fields, nil
}

func jsonKind(token json.Token) string {
	switch token.(type) {
	case json.Number:
		return "a number"
	case bool:
		return "true or false"
	case nil:
		return "null"
	}
	if token == json.Delim('[') {
		return "a list"
	}
	return "an object"
}

// short bounds how much of what was sent is sent back.
func short(s string) string {
	const most = 40
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}

var (
	requiredFields = []string{"account", "asset", "address", "amount", "reference", "purpose"}
	requestFields  = append(slices.Clone(requiredFields), "chain", "memo", "method", "max_fee", "expires_in")
)

// decodeRequest reads the body of POST /v1/withdrawals. Who sends it, and under which
// key, is for the caller to fill in.
func decodeRequest(body []byte, p policy.Policy) (withdraw.Request, error) {
	fields, err := readObject(body, requestFields)
	if err != nil {
		return withdraw.Request{}, err
	}
	for _, name := range requiredFields {
		if fields[name] == "" {
			return withdraw.Request{}, fault.New(fault.Invalid, "field_missing", name+" is missing", "send it").On(name)
		}
	}
	method := exchange.OnChain
	if m, given := fields["method"]; given {
		method = exchange.Method(m)
	}
	r := withdraw.Request{
		Key: whitelist.Key{Account: fields["account"], Method: method, Asset: fields["asset"], Chain: fields["chain"],
			Address: fields["address"], Memo: fields["memo"]},
		Reference: fields["reference"], Purpose: fields["purpose"],
	}
	if r.Amount, err = money.Parse(fields["amount"]); err != nil {
		return withdraw.Request{}, onField(err, "amount")
	}
	if text, given := fields["max_fee"]; given {
		fee, err := parseFee(text)
		if err != nil {
			return withdraw.Request{}, onField(err, "max_fee")
		}
		r.MaxFee = &fee
	}
	if text, given := fields["expires_in"]; given {
		if r.ExpiresIn, err = parseExpiry(text, p.Expiry); err != nil {
			return withdraw.Request{}, err
		}
	}
	r.BodyHash, err = hashOf(r)
	return r, err
}

// onField says which field a fault is about, and keeps everything else of it.
func onField(err error, field string) error {
	if e, ok := fault.As(err); ok {
		return e.On(field)
	}
	return err
}

// parseFee reads a ceiling, which unlike an amount may be zero: pay only if it is free.
func parseFee(text string) (decimal.Decimal, error) {
	fee, err := money.Parse(text)
	if fault.Is(err, "amount_not_positive") {
		return decimal.Zero, nil
	}
	return fee, err
}

// duration is narrower than Go's own form, which has signs, fractions and
// nanoseconds.
var duration = regexp.MustCompile(`^([0-9]{1,4}h)?([0-9]{1,5}m)?([0-9]{1,6}s)?$`)

// parseExpiry reads how long people have to vote, such as "90m".
func parseExpiry(text string, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || !duration.MatchString(text) || d < withdraw.MinExpiry || d > most {
		return 0, fault.New(fault.Invalid, "expires_in_invalid",
			fmt.Sprintf("expires_in is not a time from %s to %s, written such as \"90m\" or \"2h30m\"", withdraw.MinExpiry, most),
			"write whole hours, minutes and seconds in that order, or leave expires_in out for the longest time").On("expires_in")
	}
	return d, nil
}

// hashOf is the SHA-256 by which a repeated request is known: over what it means and
// not how it is spelt. Each default stands in it as if it had been sent.
func hashOf(r withdraw.Request) ([sha256.Size]byte, error) {
	o := canonical.Object{
		"type": "sluice/request/1", "account": r.Account, "method": string(r.Method), "asset": r.Asset, "chain": r.Chain,
		"address": r.Address, "memo": r.Memo, "amount": money.Text(r.Amount), "reference": r.Reference, "purpose": r.Purpose,
		"expires_in": int64(r.ExpiresIn / time.Second),
	}
	if r.MaxFee != nil {
		o["max_fee"] = money.Text(*r.MaxFee)
	}
	b, err := canonical.Marshal(o)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("hash request: %w", err)
	}
	return sha256.Sum256(b), nil
}

// checkText refuses what the database cannot hold and what people would not see.
func checkText(field, s string, most int) error {
	hidden := func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
	}
	switch {
	case utf8.RuneCountInString(s) > most:
		return fault.New(fault.Invalid, "field_too_long", fmt.Sprintf("%s is longer than %d characters", field, most), "shorten it").On(field)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, hidden):
		return fault.New(fault.Invalid, "text_invalid", field+" holds a character that cannot be shown", "remove it").On(field)
	}
	return nil
}
