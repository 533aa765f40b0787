package coinex

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sluice/internal/fault"
)

func TestAddresses(t *testing.T) {
	for _, good := range []struct{ in, want string }{
		{"https://api.coinex.com", "https://api.coinex.com"},
		{"https://api.coinex.com/", "https://api.coinex.com"},
		{"https://api.coinex.com/v2", "https://api.coinex.com"},
		{"https://api.coinex.com/v2/", "https://api.coinex.com"},
		{"http://127.0.0.1:8090", "http://127.0.0.1:8090"},
		{"http://127.9.9.9:8090/v2", "http://127.9.9.9:8090"},
		{"http://[::1]:8090", "http://[::1]:8090"},
		{"http://localhost:8090", "http://localhost:8090"},
	} {
		c, err := New(Config{BaseURL: good.in, AccessID: testID, SecretKey: testSecret})
		if err != nil || c.base != good.want {
			t.Errorf("%s: %v, %v", good.in, c, err)
		}
	}
	for bad, says := range map[string]string{
		"":                                    "not a web address",
		"api.coinex.com":                      "not a web address",
		"https://":                            "not a web address",
		"https://:443":                        "not a web address",
		"mailto:a@b":                          "not a web address",
		"ftp://api.coinex.com":                "neither https nor http",
		"http://api.coinex.com":               "plain http",
		"http://127.0.0.1.example.com":        "plain http",
		"http://10.0.0.1":                     "plain http",
		"https://api.coinex.com/v1":           "switched off on 25 September 2024",
		"https://api.coinex.com/v1/":          "switched off",
		"https://api.coinex.com/perpetual/v1": "switched off",
		"https://api.coinex.com/v2/assets":    "path other than /v2",
		"https://proxy.example/coinex":        "path other than /v2",
		"https://user:pass@api.coinex.com":    "user name or password",
		"https://api.coinex.com?x=1":          "query",
		"https://api.coinex.com#x":            "fragment",
	} {
		_, err := New(Config{BaseURL: bad, AccessID: testID, SecretKey: testSecret})
		f, isFault := fault.As(err)
		if !isFault || f.Kind != fault.Invalid || f.Code != "exchange_address_invalid" || f.Fix == "" || !strings.Contains(f.Detail, says) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestOddSettingsAreRefused(t *testing.T) {
	for code, change := range map[string]func(*Config){
		"exchange_key_missing":     func(c *Config) { c.AccessID = "" },
		"exchange_key_missing ":    func(c *Config) { c.SecretKey = "" },
		"exchange_key_malformed":   func(c *Config) { c.SecretKey += "\n" },
		"exchange_key_malformed ":  func(c *Config) { c.AccessID = " " + c.AccessID },
		"exchange_window_invalid":  func(c *Config) { c.Window = -time.Second },
		"exchange_window_invalid ": func(c *Config) { c.Window = time.Minute + time.Millisecond },
		"exchange_window_invalid.": func(c *Config) { c.Window = 1500 * time.Microsecond },
		"exchange_timeout_invalid": func(c *Config) { c.Timeout = -1 },
	} {
		cfg := Config{BaseURL: "https://api.coinex.com", AccessID: testID, SecretKey: testSecret}
		change(&cfg)
		_, err := New(cfg)
		if !fault.Is(err, strings.TrimRight(code, " .")) {
			t.Errorf("%s: got %v", code, err)
			continue
		}
		mustNotLeak(t, err.Error())
	}
}

func TestKeysNeverPrint(t *testing.T) {
	cfg := Config{BaseURL: "https://api.coinex.com", AccessID: testID, SecretKey: testSecret}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Config Config
		Client *Client
	}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, v := range []any{cfg, &cfg, c, holder{cfg, c}, []Config{cfg}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if got := fmt.Sprintf(verb, c); got != c.String() {
			t.Errorf("%s of a Client is %s", verb, got)
		}
		// An unexported field, where fmt may not call the methods.
		fmt.Fprintf(&out, verb+"\n", struct{ client *Client }{c})
		fmt.Fprintf(&out, verb+"\n", struct{ keys keys }{c.keys})
		fmt.Fprintf(&out, verb+"\n", struct{ keys *keys }{&c.keys})
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "config", cfg, "client", c, "both", holder{cfg, c})
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "config", cfg, "client", c, "both", holder{cfg, c})
	mustNotLeak(t, out.String())
	for _, secret := range []string{testID, testSecret} {
		if strings.Contains(strings.ToLower(out.String()), fmt.Sprintf("%x", secret)) {
			t.Error("a key shows up in hex")
		}
	}
	if !strings.Contains(out.String(), "api.coinex.com") {
		t.Error("nothing useful is left to read")
	}
}

func TestAPasswordInTheAddressNeverPrints(t *testing.T) {
	cfg := Config{BaseURL: "https://user:" + testSecret + "@api.coinex.com"}
	_, err := New(cfg)
	mustNotLeak(t, fmt.Sprintf("%+v %v", cfg, err))
}
