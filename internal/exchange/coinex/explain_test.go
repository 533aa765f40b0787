package coinex

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/exchange"
)

func TestSelfTest(t *testing.T) {
	if err := SelfTest(); err != nil {
		t.Error(err)
	}
}

// FAQ Q2: one code, told apart as far as what is known allows.
func TestExplain(t *testing.T) {
	const day = 24 * time.Hour
	ip := []netip.Addr{netip.MustParseAddr("203.0.113.7")}
	both := append(slices.Clone(ip), netip.MustParseAddr("2001:db8::7"))
	bound := []netip.Prefix{netip.MustParsePrefix("203.0.113.7/32")}
	other := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	for name, c := range map[string]struct {
		code    int
		known   Known
		want    string // the causes, in order; "!" marks the evident
		without string
	}{
		"4005, nothing known":            {4005, Known{}, "access_id_wrong key_not_active_yet key_expired key_deleted secret_wrong request_changed", ""},
		"4005, three minutes old":        {4005, Known{KeyAge: 3 * time.Minute}, "!key_not_active_yet access_id_wrong", "key_expired"},
		"4005, twenty minutes old":       {4005, Known{KeyAge: 20 * time.Minute}, "key_not_active_yet access_id_wrong", "key_expired"},
		"4005, an hour old":              {4005, Known{KeyAge: time.Hour}, "access_id_wrong key_deleted", "key_not_active_yet"},
		"4005, an hour old, has worked":  {4005, Known{KeyAge: time.Hour, Worked: true}, "key_deleted request_changed", "key_expired"},
		"4005, 89 days old":              {4005, Known{KeyAge: 89 * day, Worked: true}, "key_deleted key_expired", ""},
		"4005, 91 days old":              {4005, Known{KeyAge: 91 * day, Worked: true}, "key_expired key_deleted", "access_id_wrong"},
		"4005, 91 days old and unbound":  {4005, Known{KeyAge: 91 * day, Binding: Unbound}, "!key_expired access_id_wrong", "key_not_active_yet"},
		"4005, 91 days old and bound":    {4005, Known{KeyAge: 91 * day, Binding: Bound}, "access_id_wrong key_deleted", "key_expired"},
		"4005, bound to a known address": {4005, Known{KeyAge: 91 * day, BoundTo: bound}, "access_id_wrong", "key_expired"},
		"4005, has worked":               {4005, Known{Worked: true}, "key_expired key_deleted", "key_not_active_yet"},
		"4005, we sign wrongly":          {4005, Known{KeyAge: time.Minute, SelfTest: errors.New("x")}, "!signing_broken !key_not_active_yet", ""},
		"v1's 34":                        {34, Known{KeyAge: 91 * day, Binding: Unbound}, "!key_expired", ""},
		"4006":                           {4006, Known{}, "secret_wrong request_changed", "signing_broken"},
		"4006, has worked":               {4006, Known{Worked: true}, "request_changed secret_wrong", ""},
		"11005, we sign wrongly":         {11005, Known{SelfTest: errors.New("x")}, "!signing_broken secret_wrong", ""},
		"4008":                           {4008, Known{}, "secret_wrong request_changed", ""},
		"4007":                           {4007, Known{}, "ip_not_bound ip_changes", ""},
		"4007, address seen":             {4007, Known{Egress: ip}, "ip_not_bound ip_changes", ""},
		"4007, another bound":            {4007, Known{Egress: ip, BoundTo: other}, "!ip_not_bound ip_changes", ""},
		"4007, bound":                    {4007, Known{Egress: ip, BoundTo: bound}, "ip_changes", "ip_not_bound"},
		"4007, one of two bound":         {4007, Known{Egress: both, BoundTo: bound}, "ip_not_bound ip_changes", ""},
		"tonce":                          {227, Known{}, "clock_wrong connection_slow", ""},
		"4017, clock far off":            {4017, Known{Clock: &exchange.ClockOffset{Offset: -time.Minute}}, "!clock_wrong connection_slow", ""},
		"4010, clock right, slow":        {4010, Known{Clock: &exchange.ClockOffset{Error: 2 * time.Second}}, "connection_slow clock_wrong", ""},
		"4010, clock a little off":       {4010, Known{Clock: &exchange.ClockOffset{Offset: 2 * time.Second}}, "clock_wrong connection_slow", ""},
		"213":                            {213, Known{}, "rate_limit_short_term rate_limit_long_term", ""},
		"4213 under a long-period limit": {4213, Known{Limits: LimitState{Long: []LongLimit{{Period: "4H"}}}}, "!rate_limit_long_term", "rate_limit_short_term"},
		"3310":                           {3310, Known{}, "whitelist_other_list whitelist_text_differs whitelist_other_chain", ""},
		"3109":                           {3109, Known{}, "balance_short deposit_unconfirmed", ""},
		"4158":                           {4158, Known{}, "permission_missing account_restricted", ""},
		"4512":                           {4512, Known{}, "permission_missing", ""},
		"4011":                           {4011, Known{}, "permission_missing", ""},
		"3008":                           {3008, Known{}, "exchange_busy chain_wrong", ""},
		"4001":                           {4001, Known{}, "exchange_busy", ""},
		"0 without effect":               {0, Known{}, "confirmed_without_effect", ""},
		"3639":                           {3639, Known{}, "!exchange_code_3639", ""},
		"undocumented":                   {3999, Known{}, "exchange_code_3999", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := Explain(c.code, c.known)
			var codes []string
			for _, cause := range got {
				code := cause.Code
				if cause.Evident {
					code = "!" + code
				}
				codes = append(codes, code)
			}
			if line := strings.Join(codes, " "); !strings.HasPrefix(line+" ", c.want+" ") {
				t.Errorf("got %s", line)
			}
			if c.without != "" && slices.ContainsFunc(got, func(cause Cause) bool { return cause.Code == c.without }) {
				t.Errorf("%s is ruled out: %s", c.without, codes)
			}
		})
	}
	if says := Explain(4007, Known{Egress: both, BoundTo: other})[0].Says; !strings.Contains(says, "203.0.113.7, 2001:db8::7") {
		t.Errorf("the address is missing: %s", says)
	}
	if says := Explain(4010, Known{Clock: &exchange.ClockOffset{Offset: -2 * time.Second, Error: 40 * time.Millisecond}})[0].Says; !strings.Contains(says, "2s off, give or take 40ms") {
		t.Errorf("the offset is missing: %s", says)
	}
}

func TestEveryCodeIsExplained(t *testing.T) {
	for code := range codes {
		for _, k := range []Known{{}, {Worked: true, KeyAge: time.Hour, Binding: Bound, SelfTest: errors.New("x")}} {
			got := Explain(code, k)
			if len(got) == 0 {
				t.Errorf("%d has no cause", code)
			}
			for _, cause := range got {
				if cause.Code == "" || !strings.HasSuffix(cause.Says, ".") || cause.Fix == "" {
					t.Errorf("%d: %+v", code, cause)
				}
			}
		}
	}
}
