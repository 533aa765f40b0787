package coinex

import (
	"sluice/internal/exchange"
	"sluice/internal/fault"
)

// code is what we make of one of the exchange's error codes.
type code struct {
	meaning string         // what the exchange means, as half a sentence
	class   exchange.Class // what it proves of a submission
	next    exchange.Next  // only for NotAccepted
	reason  string         // our sentence for a submission
	fix     string         // what happens, or what a person does, next
	clock   bool           // our timestamp was out of bounds: measure the clock again
}

// kind is the fault for a call other than a submission. lost is the kind where
// the code leaves open whether the call took effect.
func (c code) kind(lost fault.Kind) fault.Kind {
	switch {
	case c.class == exchange.Unknown:
		return lost
	case c.next == exchange.Retry:
		return fault.Unavailable
	case c.next == exchange.Fail:
		return fault.Invalid
	}
	return fault.Refused
}

const (
	fixReconcile = "The exchange's history is searched for it; nothing is sent again before that proves it absent."

	none    = "No withdrawal was made."
	open    = "That leaves open whether the withdrawal was made."
	notOurs = "No withdrawal was made. A withdrawal should never get this answer; it belongs to trading."

	fixPause   = "It is signed afresh after a pause of a second or two. If it goes on, another program is using up the account's turns."
	fixClock   = "The clock is measured again and the request signed afresh. If it goes on, turn on time synchronisation on this machine."
	fixKey     = "Compare the access id with the one on www.coinex.com/apikey. Keys without a bound IP address expire after 90 days; a new key needs about 10 minutes before it works."
	fixSecret  = "Check the secret key; make a new key on www.coinex.com/apikey if it is lost."
	fixIP      = "Add the address from which this machine reaches the internet to the key's bound IP addresses on www.coinex.com/apikey."
	fixAccount = "Check the account and the key's permissions on www.coinex.com/apikey, and ask CoinEx support."
	fixFunds   = "Move funds to the spot wallet. It must hold amount and fee; fresh deposits count only when their confirmations are complete."
	fixOrder   = "Ask for a new withdrawal with corrected values."
	fixBug     = "Report this to the makers of Sluice with the kept answer."
	fixSupport = "Read the exchange's message, and ask CoinEx support if it does not explain itself."

	// The error that stops most beginners deserves the whole explanation
	// (facts 3.5): the list that they look at is not the list that counts.
	fixWhitelist = "CoinEx keeps two separate lists. The address book of its withdrawal page does not count for the API. " +
		"On www.coinex.com/apikey, under \"Withdrawal Whitelist\", add the address for exactly this method, coin and chain, " +
		"or correct the entry: the text must be the same to the last character. Then release the withdrawal."
)

// Rows that several codes share.
var (
	trading  = code{"a trading rule was not met", exchange.NotAccepted, exchange.Fail, notOurs, fixBug, false}
	market   = code{"trading is not possible here", exchange.NotAccepted, exchange.Hold, notOurs, fixSupport, false}
	balance  = code{"the balance is not enough", exchange.NotAccepted, exchange.Hold, none, fixFunds, false}
	listed   = code{"the address is not on the API withdrawal whitelist, or its chain is wrong, or it is malformed", exchange.NotAccepted, exchange.Hold, none, fixWhitelist, false}
	access   = code{"the access id is unknown, not active yet, or expired", exchange.NotAccepted, exchange.Hold, none, fixKey, false}
	badSign  = code{"the signature is wrong", exchange.NotAccepted, exchange.Hold, none, fixSecret, false}
	badIP    = code{"the key may not be used from this IP address", exchange.NotAccepted, exchange.Hold, none, fixIP, false}
	noRight  = code{"the key lacks a permission", exchange.NotAccepted, exchange.Hold, none, fixAccount, false}
	tooOften = code{"too many requests", exchange.NotAccepted, exchange.Retry, none, fixPause, false}
	expired  = code{"the timestamp is outside the window", exchange.NotAccepted, exchange.Retry, none, fixClock, true}
	down     = code{"the service is unavailable", exchange.Unknown, "", open, fixReconcile, false}
	timedOut = code{"the service timed out", exchange.Unknown, "", open, fixReconcile, false}
	missing  = code{"there is no such order", exchange.NotAccepted, exchange.Fail, notOurs, fixBug, false}
)

// codes is the exchange's table of errors (facts 2.4). A code that is not here
// proves nothing. 3107 and 3158 stay out on purpose: they are plausible for
// withdrawals but were never seen, and 3107 has meant something else.
var codes = map[int]code{
	3007: {"futures are paused while funding settles", exchange.NotAccepted, exchange.Retry, notOurs, fixPause, false},
	// Busy, says a service behind the gateway: it may have taken the request.
	// A wrong chain was once answered like this, for ever.
	3008: {"the service is busy", exchange.Unknown, "", open, fixReconcile + " If each try ends like this, check the chain code.", false},
	3109: balance,
	3127: {"the amount is under the minimum", exchange.NotAccepted, exchange.Fail, none, fixOrder, false},
	3157: market,
	3310: listed,
	3600: missing,
	3606: trading, 3610: trading, 3612: trading, 3613: trading, 3614: trading, 3615: trading,
	3616: trading, 3617: trading, 3618: trading, 3619: trading, 3620: trading, 3621: trading,
	3622: trading, 3627: trading, 3628: trading, 3629: trading, 3632: trading, 3633: trading,
	3634: trading, 3635: trading, 3638: trading,
	3639: {"a parameter does not match the documentation", exchange.NotAccepted, exchange.Fail, none, "The exchange's message names the field. " + fixOrder, false},

	4001: down,
	4002: timedOut,
	4003: {"internal error", exchange.Unknown, "", open, fixReconcile + " Ask CoinEx support if it stays unclear.", false},
	4004: {"a parameter is wrong", exchange.NotAccepted, exchange.Fail, none, fixOrder, false},
	4005: access,
	4006: badSign,
	4007: badIP,
	4008: {"the signature header is missing or malformed", exchange.NotAccepted, exchange.Fail, none, fixBug, false},
	4009: {"the request method is wrong", exchange.NotAccepted, exchange.Fail, none, fixBug, false},
	4010: expired,
	4011: {"the user is not allowed in", exchange.NotAccepted, exchange.Hold, none, fixAccount, false},
	4017: expired,
	4018: {"the endpoint is no longer served", exchange.NotAccepted, exchange.Hold, none, fixBug, false},
	4115: {"the user is not allowed to trade", exchange.NotAccepted, exchange.Hold, none, fixAccount, false},
	4117: market,
	4123: tooOften,
	4130: market,
	4158: noRight,
	4159: market,
	4213: tooOften,
	4512: {"the sub-account lacks a permission", exchange.NotAccepted, exchange.Hold, none, fixAccount, false},

	// Not in the v2 table, but seen on v2.
	213:   tooOften,
	227:   expired,
	11005: badSign,

	// From v1. Its services have let codes of theirs, such as 213, through to v2
	// (facts 2.4); each means what its v2 cousin means.
	23:  badIP,
	24:  access,
	25:  badSign,
	34:  access,
	35:  down,
	36:  timedOut,
	107: balance,
	158: noRight,
	310: listed,
	600: missing,
}
