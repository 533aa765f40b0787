package web

import (
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"sluice/internal/withdraw"
)

var hiddenKey = regexp.MustCompile(`name="key" value="([^"]+)"`)

// goodForm is a form that the desk accepts, with the key that the page came with.
func goodForm(h *house, b *browser) url.Values {
	h.t.Helper()
	key := hiddenKey.FindStringSubmatch(b.page("/withdrawals/new"))
	if key == nil {
		h.t.Fatal("the form has no key")
	}
	return url.Values{"key": {key[1]}, "destination": {h.dests["payroll"].ID.String()}, "amount": {"1250.5"}, "reference": {"INV-1"},
		"purpose": {"Invoice 1"}, "max_fee": {""}, "expires": {"4h"}}
}

func with(form url.Values, name, value string) url.Values {
	c := url.Values{}
	for k, v := range form {
		c[k] = v
	}
	c.Set(name, value)
	return c
}

func TestRequest(t *testing.T) {
	h := newHouse(t)
	b := h.as("ana")
	w := b.post("/withdrawals/new", goodForm(h, b))
	if w.Code != http.StatusSeeOther || len(h.list) != 1 {
		t.Fatalf("%d %s", w.Code, seen(w.Body.String()))
	}
	got := h.list[0]
	if got.Requester != h.people["ana"].Actor() || got.Address != h.dests["payroll"].Address || got.Amount.String() != "1250.5" ||
		got.State != withdraw.Pending || got.ExpiresAt.Sub(now).Hours() != 4 {
		t.Errorf("%+v", got)
	}
	if text := seen(b.page(w.Header().Get("Location"))); !strings.Contains(text, "You asked for this withdrawal, so your vote does not count") {
		t.Error("it does not lead to the withdrawal's page")
	}
}

func TestADoubleClickIsOneRequest(t *testing.T) {
	h := newHouse(t)
	b := h.as("ana")
	form := goodForm(h, b)
	first, second := b.post("/withdrawals/new", form), b.post("/withdrawals/new", form)
	if len(h.list) != 1 || second.Code != http.StatusSeeOther || first.Header().Get("Location") != second.Header().Get("Location") {
		t.Errorf("%d withdrawals; the second click leads to %q", len(h.list), second.Header().Get("Location"))
	}
}

func TestBadInputLosesNothingAndReachesNobody(t *testing.T) {
	h := newHouse(t)
	b := h.as("ana")
	form := goodForm(h, b)
	for _, c := range []struct{ field, value, says string }{
		{"amount", "", "Enter an amount"},
		{"amount", "1,250.5", "without commas"},
		{"amount", "1e3", "plain digits"},
		{"amount", "-5", "plain digits"},
		{"amount", "0", "above zero"},
		{"amount", "1.9", "minimum is 2 USDT"},
		{"amount", "5.1234567", "At most 6 decimals"},
		{"destination", "", "Choose where"},
		{"destination", "11111111-1111-1111-1111-111111111111", "Choose where"},
		{"destination", h.dests["old"].ID.String(), "code 3310"},
		{"reference", "", "Give the reference"},
		{"reference", strings.Repeat("r", 129), "At most 128"},
		{"purpose", "", "Say what it is for"},
		{"purpose", "pay \u202e me", "plain characters"},
		{"max_fee", "1.1", "fee is 1.2 USDT"},
		{"max_fee", "lots", "plain digits"},
		{"expires", "9y", "Choose one of the times"},
		{"key", "", "had lost its key"},
	} {
		sent := with(form, c.field, c.value)
		w := b.post("/withdrawals/new", sent)
		page := w.Body.String()
		if w.Code != http.StatusUnprocessableEntity || !strings.Contains(seen(page), c.says) {
			t.Errorf("%s %q: %d, and does not say %q", c.field, c.value, w.Code, c.says)
		}
		for name, value := range sent {
			if v := value[0]; name != "destination" && name != "expires" && name != "key" && v != "" && !strings.Contains(page, v) {
				t.Errorf("%s %q: what was typed as %s is lost", c.field, c.value, name)
			}
		}
		if c.field != "destination" && !regexp.MustCompile(`value="`+form.Get("destination")+`"[^>]* checked`).MatchString(page) {
			t.Errorf("%s %q: the choice of destination is lost", c.field, c.value)
		}
		if key := hiddenKey.FindStringSubmatch(page); key == nil || (c.field != "key" && key[1] != form.Get("key")) {
			t.Errorf("%s %q: a form that was not sent changes its key", c.field, c.value)
		}
	}
	if len(h.list) != 0 {
		t.Errorf("%d requests were recorded", len(h.list))
	}
}

func TestARecordedRefusalIsShownAndFreesTheForm(t *testing.T) {
	h := newHouse(t)
	b := h.as("ana")
	form := goodForm(h, b)
	b.post("/withdrawals/new", form)
	again := goodForm(h, b)
	w := b.post("/withdrawals/new", again) // another key, the same reference
	page := w.Body.String()
	if w.Code != http.StatusConflict || !strings.Contains(page, "already belongs to withdrawal") || !strings.Contains(page, "/withdrawals/"+h.list[1].ID.String()) {
		t.Fatalf("%d %s", w.Code, seen(page))
	}
	if key := hiddenKey.FindStringSubmatch(page); key == nil || key[1] == again.Get("key") {
		t.Error("the mended form would be sent under a key whose answer is a refusal for ever")
	}
	if h.list[1].State != withdraw.Refused {
		t.Errorf("%s", h.list[1].State)
	}
}

func TestAFormThatMayHaveBeenRecordedKeepsItsKey(t *testing.T) {
	h := newHouse(t)
	b := h.as("ana")
	form := goodForm(h, b)
	h.broken = errors.New("the database went away in the middle")
	w := b.post("/withdrawals/new", form)
	key := hiddenKey.FindStringSubmatch(w.Body.String())
	if w.Code != http.StatusInternalServerError || key == nil || key[1] != form.Get("key") || !strings.Contains(w.Body.String(), "counts once") {
		t.Errorf("%d, key %v", w.Code, key)
	}
	if strings.Contains(w.Body.String(), "went away") || !strings.Contains(h.log.String(), "went away") {
		t.Error("the cause is told outside, or not logged")
	}
}

func TestOnlyRequestersAsk(t *testing.T) {
	h := newHouse(t)
	form := goodForm(h, h.as("ana"))
	for _, name := range []string{"ben", "dora"} {
		b := h.as(name)
		if w := b.post("/withdrawals/new", form); w.Code != http.StatusForbidden {
			t.Errorf("%s: %d", name, w.Code)
		}
		if strings.Contains(b.page("/withdrawals"), "/withdrawals/new") {
			t.Errorf("%s is offered the form", name)
		}
	}
	if len(h.list) != 0 {
		t.Error("one of them was taken")
	}
}

func TestOnlyWhatCanBePaidCanBePicked(t *testing.T) {
	h := newHouse(t)
	h.chains[1].ChainEnabled = false
	page := h.as("ana").page("/withdrawals/new?destination=" + h.dests["payroll"].ID.String())
	for name, want := range map[string]bool{"payroll": false, "desk": false, "sub": false, "old": true, "cold": true} {
		tag := regexp.MustCompile(`<input type="radio"[^>]*value="` + h.dests[name].ID.String() + `"[^>]*>`).FindString(page)
		if tag == "" || strings.Contains(tag, " disabled") != want {
			t.Errorf("%s: disabled should be %v in %s", name, want, tag)
		}
	}
	text := seen(page)
	for _, want := range []string{"Minimum 2 USDT, up to 6 decimals, fee 1.2 USDT", "Up to 6 decimals, no fee", "Quarantined: the exchange refused it with code 3310", "suspended"} {
		if !strings.Contains(text, want) {
			t.Errorf("the form does not say %q", want)
		}
	}
	if !strings.Contains(page, `<output id="unit" for="amount">USDT</output>`) {
		t.Error("the amount has no unit")
	}
}
