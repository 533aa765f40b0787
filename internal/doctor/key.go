package doctor

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sluice/internal/exchange/coinex"
)

// Key is what people know of an exchange key and no call tells (facts 1.6).
type Key struct {
	Created time.Time // when it was made on the exchange's page; zero: not known
	Day     bool      // Created is a whole day, UTC, and not a moment
	Binding coinex.Binding
	BoundTo []netip.Prefix // the bound addresses, where they are known
}

// The settings that ParseKey reads, for the sentences that ask for them.
const (
	CreatedSetting = "SLUICE_COINEX_KEY_CREATED"
	BoundSetting   = "SLUICE_COINEX_KEY_IP_BOUND"
)

// ParseKey reads the two settings: the day or moment at which the key was made, and
// whether it is bound to IP addresses: "no", "yes", or the addresses themselves
// with commas. "" means not known.
func ParseKey(created, bound string) (Key, error) {
	var k Key
	if created != "" {
		var err error
		if k.Created, err = time.Parse(time.DateOnly, created); err == nil {
			k.Day = true
		} else if k.Created, err = time.Parse(time.RFC3339, created); err != nil {
			return Key{}, fmt.Errorf("%s is %q; it must be the day or moment at which the key was made, such as \"2026-03-01\" or \"2026-03-01T09:30:00Z\"", CreatedSetting, created)
		}
	}
	switch bound {
	case "":
	case "no":
		k.Binding = coinex.Unbound
	case "yes":
		k.Binding = coinex.Bound
	default:
		k.Binding = coinex.Bound
		for text := range strings.SplitSeq(bound, ",") {
			prefix, err := parsePrefix(strings.TrimSpace(text))
			if err != nil {
				return Key{}, fmt.Errorf("%s is %q; it must be \"no\", \"yes\", or the bound addresses with commas, such as \"203.0.113.7,2001:db8::7\"", BoundSetting, bound)
			}
			k.BoundTo = append(k.BoundTo, prefix)
		}
	}
	return k, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return prefix, nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	addr = addr.Unmap()
	return netip.PrefixFrom(addr, addr.BitLen()), nil
}

// youngest is the least age that the key can have; 0: not known. A key that was made
// "today" may be minutes old, and must not be taken for one that has warmed up.
func (k Key) youngest(now time.Time) time.Duration {
	made := k.Created
	if made.IsZero() {
		return 0
	}
	if k.Day {
		made = made.AddDate(0, 0, 1)
	}
	return max(now.Sub(made), 0)
}

// Expires is when the key ends if it is not bound to an address; zero where its age is
// not known, or where it never does. A key made on a day may have been made at its beginning.
func (k Key) Expires() time.Time {
	if k.Created.IsZero() || k.Binding == coinex.Bound {
		return time.Time{}
	}
	return k.Created.Add(coinex.KeyLifetime)
}
