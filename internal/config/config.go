// Package config reads a process's settings from its environment: once, at start,
// with every mistake named in one go. Every secret may also be the path of a file
// (NAME_FILE), which is how containers hand them out.
package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"sluice/internal/approval"
)

// Secret is text that no log, error or printed value shows.
type Secret string

const redacted = "(secret)"

func (Secret) String() string               { return redacted }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format answers every verb. Without it a wrong one, such as %d, prints the text
// in the complaint about the verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// Reader collects settings and what is wrong with them.
type Reader struct {
	getenv func(string) string
	errs   []error
}

// Read starts reading from an environment, such as os.Getenv.
func Read(getenv func(string) string) *Reader { return &Reader{getenv: getenv} }

// Err is everything that was wrong, one line each; nil when nothing was.
func (r *Reader) Err() error { return errors.Join(r.errs...) }

func (r *Reader) wrong(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf(format, args...))
}

// Text reads a setting with a default.
func (r *Reader) Text(name, otherwise string) string {
	if v := r.getenv(name); v != "" {
		return v
	}
	return otherwise
}

// Duration reads a positive length of time such as "90s".
func (r *Reader) Duration(name string, otherwise time.Duration) time.Duration {
	v := r.getenv(name)
	if v == "" {
		return otherwise
	}
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		r.wrong("%s is %q; it must be a length of time such as \"90s\" or \"2m\"", name, v)
	}
	return d
}

// Secret reads NAME or the file named by NAME_FILE. It is required.
func (r *Reader) Secret(name string) Secret {
	before := len(r.errs)
	s := r.OptionalSecret(name)
	if s == "" && len(r.errs) == before {
		r.wrong("%s is not set; set it, or %s_FILE to the path of a file that holds it", name, name)
	}
	return s
}

// OptionalSecret reads NAME or the file named by NAME_FILE, or nothing.
func (r *Reader) OptionalSecret(name string) Secret {
	value, path := r.getenv(name), r.getenv(name+"_FILE")
	switch {
	case value != "" && path != "":
		r.wrong("%s and %s_FILE are both set; keep one", name, name)
	case path != "":
		b, err := os.ReadFile(path)
		if err != nil {
			r.wrong("%s_FILE: %v", name, err)
			return ""
		}
		// Editors and `echo` end a file with a line break; a key never does.
		value = strings.TrimRight(string(b), "\r\n")
		if value == "" {
			r.wrong("%s_FILE: %s is empty", name, path)
		}
	}
	return Secret(value)
}

// DatabaseURL reads SLUICE_DATABASE_URL, which may hold a password.
func (r *Reader) DatabaseURL() Secret { return r.Secret("SLUICE_DATABASE_URL") }

// Relying reads SLUICE_PUBLIC_URL, the address under which people see Sluice, and
// makes of it the site that passkeys are bound to, in the spelling in which
// browsers name it: a capital letter or a :443 too much, and no vote would ever
// verify.
func (r *Reader) Relying() approval.Relying {
	raw := r.Text("SLUICE_PUBLIC_URL", "")
	if raw == "" {
		r.wrong("SLUICE_PUBLIC_URL is not set; set it to the address people open, such as \"https://sluice.example.com\": passkeys are bound to it")
		return approval.Relying{}
	}
	u, err := url.Parse(strings.ToLower(raw))
	if err != nil || u.User != nil {
		// Not quoted: an address with a user may hold a password.
		r.wrong("SLUICE_PUBLIC_URL cannot be read, or names a user; it must be an address such as \"https://sluice.example.com\"")
		return approval.Relying{}
	}
	host, port := u.Hostname(), u.Port()
	switch {
	case !hostName.MatchString(host) || net.ParseIP(host) != nil:
		r.wrong("SLUICE_PUBLIC_URL is %q; browsers bind passkeys to a host name in ASCII letters, never to a number, such as \"https://sluice.example.com\"", raw)
		return approval.Relying{}
	case strings.TrimSuffix(u.String(), "/") != u.Scheme+"://"+u.Host || strings.HasSuffix(u.Host, ":"):
		r.wrong("SLUICE_PUBLIC_URL is %q; it must be an address without a path, such as \"https://sluice.example.com\"", raw)
		return approval.Relying{}
	case u.Scheme != "https" && (u.Scheme != "http" || host != "localhost"):
		r.wrong("SLUICE_PUBLIC_URL is %q; browsers allow passkeys only over https, or on localhost: set it to an address such as \"https://sluice.example.com\"", raw)
		return approval.Relying{}
	}
	origin := u.Scheme + "://" + host
	if port != "" && port != defaultPorts[u.Scheme] {
		origin += ":" + port
	}
	return approval.Relying{ID: host, Origins: []string{origin}}
}

var (
	hostName     = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)
	defaultPorts = map[string]string{"https": "443", "http": "80"} // left out of an origin (RFC 6454, 6.1)
)
