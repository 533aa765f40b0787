package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/approval"
	"sluice/internal/config"
)

func env(pairs map[string]string) *config.Reader {
	return config.Read(func(name string) string { return pairs[name] })
}

// wrong checks that reading went wrong with all of these words, and with no secret.
func wrong(t *testing.T, r *config.Reader, words ...string) {
	t.Helper()
	err := r.Err()
	if err == nil {
		t.Errorf("nothing is wrong; want %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a secret in %q", err)
	}
}

func TestSecretFromEnvironmentOrFile(t *testing.T) {
	write := func(content string) string {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		env   map[string]string
		want  string
		words []string // of the error
	}{
		"environment":              {map[string]string{"KEY": "hunter2"}, "hunter2", nil},
		"as it is":                 {map[string]string{"KEY": " hunter2 "}, " hunter2 ", nil},
		"file":                     {map[string]string{"KEY_FILE": write("hunter2")}, "hunter2", nil},
		"file with a line break":   {map[string]string{"KEY_FILE": write("hunter2\n")}, "hunter2", nil},
		"file of Windows":          {map[string]string{"KEY_FILE": write("hunter2\r\n")}, "hunter2", nil},
		"spaces belong to a key":   {map[string]string{"KEY_FILE": write(" hunter2 \n")}, " hunter2 ", nil},
		"a key of two lines":       {map[string]string{"KEY_FILE": write("hunter2\nmore\n")}, "hunter2\nmore", nil},
		"both":                     {map[string]string{"KEY": "hunter2", "KEY_FILE": write("hunter2")}, "", []string{"KEY and KEY_FILE are both set"}},
		"empty file":               {map[string]string{"KEY_FILE": write("")}, "", []string{"KEY_FILE", "is empty"}},
		"file of a line break":     {map[string]string{"KEY_FILE": write("\n")}, "", []string{"KEY_FILE", "is empty"}},
		"no file":                  {map[string]string{"KEY_FILE": "/nowhere/key"}, "", []string{"KEY_FILE", "/nowhere/key"}},
		"a folder":                 {map[string]string{"KEY_FILE": t.TempDir()}, "", []string{"KEY_FILE"}},
		"neither":                  {map[string]string{}, "", []string{"KEY is not set", "KEY_FILE"}},
		"another setting is right": {map[string]string{"OTHER": "hunter2"}, "", []string{"KEY is not set"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := env(c.env)
			got := r.Secret("KEY")
			if c.words == nil {
				if string(got) != c.want || r.Err() != nil {
					t.Errorf("got %q, %v", string(got), r.Err())
				}
				return
			}
			wrong(t, r, c.words...)
			if n := strings.Count(r.Err().Error(), "\n"); n != 0 {
				t.Errorf("one mistake, and %d lines: %q", n+1, r.Err())
			}
		})
	}

	r := env(nil)
	if s := r.OptionalSecret("KEY"); s != "" || r.Err() != nil {
		t.Errorf("an optional secret that is not there: %q, %v", string(s), r.Err())
	}
	r = env(map[string]string{"SLUICE_DATABASE_URL": "postgres://sluice:hunter2@db/sluice"})
	if s := r.DatabaseURL(); string(s) != "postgres://sluice:hunter2@db/sluice" || r.Err() != nil {
		t.Errorf("%v", r.Err())
	}
}

// Whoever sets up a server wants to hear everything at once, not one mistake per start.
func TestEveryMistakeIsNamedInOneGo(t *testing.T) {
	r := env(map[string]string{"PAUSE": "soon", "A_FILE": "/nowhere/a"})
	r.Duration("PAUSE", time.Second)
	r.Secret("A")
	r.Secret("B")
	r.Secret("C")
	r.Relying()
	wrong(t, r, "PAUSE", "A_FILE", "B is not set", "C is not set", "SLUICE_PUBLIC_URL is not set")
	if n := strings.Count(r.Err().Error(), "\n") + 1; n != 5 {
		t.Errorf("%d lines for 5 mistakes: %v", n, r.Err())
	}
}

func TestText(t *testing.T) {
	r := env(map[string]string{"A": "x"})
	if a, b := r.Text("A", "y"), r.Text("B", "y"); a != "x" || b != "y" {
		t.Errorf("%q, %q", a, b)
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"": time.Minute, "90s": 90 * time.Second, "2m": 2 * time.Minute, "1h30m": 90 * time.Minute} {
		r := env(map[string]string{"PAUSE": text})
		if got := r.Duration("PAUSE", time.Minute); got != want || r.Err() != nil {
			t.Errorf("%q: %s, %v", text, got, r.Err())
		}
	}
	for _, text := range []string{"0", "0s", "-1s", "90", "1e3s", "1 m", "soon", "s", "999999999h", "NaNs", "1d"} {
		r := env(map[string]string{"PAUSE": text})
		r.Duration("PAUSE", time.Minute)
		wrong(t, r, "PAUSE", fmt.Sprintf("%q", text), "length of time")
	}
}

func TestRelying(t *testing.T) {
	for raw, want := range map[string]approval.Relying{
		"https://sluice.example.com":       {ID: "sluice.example.com", Origins: []string{"https://sluice.example.com"}},
		"https://sluice.example.com/":      {ID: "sluice.example.com", Origins: []string{"https://sluice.example.com"}},
		"https://sluice.example.com:8443":  {ID: "sluice.example.com", Origins: []string{"https://sluice.example.com:8443"}},
		"https://sluice.example.com:8443/": {ID: "sluice.example.com", Origins: []string{"https://sluice.example.com:8443"}},
		"https://localhost":                {ID: "localhost", Origins: []string{"https://localhost"}},
		"http://localhost:8080":            {ID: "localhost", Origins: []string{"http://localhost:8080"}},
		"https://xn--bcher-kva.example":    {ID: "xn--bcher-kva.example", Origins: []string{"https://xn--bcher-kva.example"}},
		// As browsers write an origin.
		"HTTPS://Sluice.Example.COM":     {ID: "sluice.example.com", Origins: []string{"https://sluice.example.com"}},
		"https://sluice.example.com:443": {ID: "sluice.example.com", Origins: []string{"https://sluice.example.com"}},
		"http://localhost:80":            {ID: "localhost", Origins: []string{"http://localhost"}},
	} {
		r := env(map[string]string{"SLUICE_PUBLIC_URL": raw})
		if d := cmp.Diff(want, r.Relying()); d != "" || r.Err() != nil {
			t.Errorf("%s: %s%v", raw, d, r.Err())
		}
	}
	for _, raw := range []string{
		"", "sluice.example.com", "localhost:8080", "//sluice.example.com", "https://", "https:sluice.example.com", "https:///x", "/", "x",
		"https://sluice.example.com/app", "https://sluice.example.com//", "https://sluice.example.com?x=1", "https://sluice.example.com?",
		"https://sluice.example.com#x", "https://user:hunter2@sluice.example.com", "https://hunter2@localhost", "https://u:hunter2@[", "https://exa mple.com",
		"http://sluice.example.com", "ftp://sluice.example.com", "ftp://localhost", "ws://localhost", "javascript://localhost", "file://localhost",
		"http://localhost.evil.net", "http://127.0.0.1:8080", "https://127.0.0.1", "https://10.0.0.1:8443", "https://[::1]", "https://[fe80::1]:8080",
		"https://sluice.example.com:", "https://sluice.example.com:x", "https://bücher.example", "https://sluice_example", "https://.example.com",
		"https://*.example.com", "https://a.example.com,https://b.example.com", "https://%73luice.example.com/%2e", "https://sluice.example.com.",
	} {
		r := env(map[string]string{"SLUICE_PUBLIC_URL": raw})
		if got := r.Relying(); got.ID != "" || got.Origins != nil || got.Software {
			t.Errorf("%q gives the site %+v", raw, got)
		}
		wrong(t, r, "SLUICE_PUBLIC_URL", "https://sluice.example.com")
	}
}

// A secret gets out through a log line that somebody adds in a hurry. (What fmt asks no
// type about, %p and %w outside Errorf, vet refuses.)
func TestSecretIsNeverPrinted(t *testing.T) {
	const secret = config.Secret("hunter2")
	type settings struct {
		Name string
		Key  config.Secret
		List []config.Secret
		Map  map[string]config.Secret
		Any  any
		Ptr  *config.Secret
	}
	key := secret
	s := settings{"n", secret, []config.Secret{secret}, map[string]config.Secret{"k": secret}, secret, &key}

	printed := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t", "%f", "%c", "%U", "%10.3s", "%z"} {
		printed["Secret "+verb] = fmt.Sprintf(verb, secret)
		printed["pointer "+verb] = fmt.Sprintf(verb, &key)
		printed["settings "+verb] = fmt.Sprintf(verb, s)
	}
	printed["Print"] = fmt.Sprint(secret, s)
	printed["Println"] = fmt.Sprintln(secret, &s)
	printed["String"] = secret.String()
	printed["error"] = errors.Join(fmt.Errorf("dial %s: %v", secret, s)).Error()

	for name, logger := range map[string]func(b *bytes.Buffer) slog.Handler{
		"slog text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"slog JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var b bytes.Buffer
		slog.New(logger(&b)).With("with", secret).Info("started", "key", secret, "settings", s, "pointer", &s, slog.Group("g", "key", secret))
		printed[name] = b.String()
	}
	for name, v := range map[string]any{"JSON": s, "JSON of a pointer": &s, "JSON alone": secret} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		printed[name] = string(b)
	}
	for name, text := range printed {
		lower := strings.ToLower(text)
		for _, leak := range []string{"hunter2", "68756e7465723", "68 75 6e", "hun", "[104 117", "0x68"} {
			if strings.Contains(lower, leak) {
				t.Errorf("%s prints %q", name, text)
			}
		}
		if !strings.Contains(text, "(secret)") && !strings.HasPrefix(name, "pointer") {
			t.Errorf("%s prints %q, which does not say that something is left out", name, text)
		}
	}
}
