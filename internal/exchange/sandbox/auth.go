package sandbox

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"
)

const (
	defaultWindow = 5000  // ms a signed request lives (facts 1.2)
	futureBound   = 60000 // ms a timestamp may lie ahead [invented, from v1]
)

var (
	signPattern   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	millisPattern = regexp.MustCompile(`^[0-9]{1,15}$`) // as int64, no sum of two overflows
)

// authenticate finds the account that signed the request, or the answer that
// refuses it. The order of the checks is that of facts 10.2.
func (s *Sandbox) authenticate(r *http.Request, body []byte, now time.Time) (*account, *answer) {
	a, key := s.key(r.Header.Get("X-COINEX-KEY"))
	switch {
	case a == nil, !key.lives(now):
		// A key too young or too old looks like one that was never made (facts 1.6).
		return nil, refuse(4005, "")
	case !key.allows(remoteIP(r)):
		return nil, refuse(4007, "")
	}

	sign := r.Header.Get("X-COINEX-SIGN")
	if !signPattern.MatchString(sign) {
		return nil, refuse(4008, "")
	}

	window := int64(defaultWindow)
	if text := r.Header.Get("X-COINEX-WINDOWTIME"); text != "" {
		if !millisPattern.MatchString(text) {
			return nil, refuse(4004, "X-COINEX-WINDOWTIME must be a number of milliseconds")
		}
		window, _ = strconv.ParseInt(text, 10, 64)
	}
	timestamp := r.Header.Get("X-COINEX-TIMESTAMP")
	if !millisPattern.MatchString(timestamp) {
		return nil, refuse(4010, "X-COINEX-TIMESTAMP must be a number of milliseconds")
	}
	sent, _ := strconv.ParseInt(timestamp, 10, 64)
	switch age := now.UnixMilli() - sent; {
	case age > window:
		return nil, refuse(4017, "")
	case -age > futureBound:
		return nil, refuse(4010, "")
	}

	// The text is made of what came over the wire, not of anything decoded and
	// encoded again: clients send queries unescaped and with a bare "?".
	text := r.Method + r.RequestURI + string(body) + timestamp
	good := hmac.Equal([]byte(sign), []byte(signHMAC(key.SecretKey, text)))
	if s.options.LegacySignatures {
		good = good || hmac.Equal([]byte(sign), []byte(signLegacy(key.SecretKey, text)))
	}
	switch {
	case !good:
		return nil, refuse(4006, "")
	case key.Forbidden:
		return nil, refuse(4011, "")
	}
	return a, nil
}

// key finds a key and its account.
func (s *Sandbox) key(accessID string) (*account, Key) {
	for _, a := range s.state.Accounts {
		for _, k := range a.Keys {
			if k.AccessID == accessID {
				return a, k
			}
		}
	}
	return nil, Key{}
}

func (k Key) lives(now time.Time) bool {
	return !now.Before(k.ActiveFrom) && (k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt))
}

func (k Key) allows(ip string) bool {
	return len(k.IPs) == 0 || slices.Contains(k.IPs, ip)
}

// signHMAC is the current scheme (facts 1.3).
func signHMAC(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

// signLegacy is the scheme that CoinEx left in April 2024 (facts 1.4).
func signLegacy(secret, text string) string {
	sum := sha256.Sum256([]byte(text + secret))
	return hex.EncodeToString(sum[:])
}

func remoteIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
