package exchange

// Standing says how a check ended.
type Standing string

const (
	Well      Standing = "ok"
	Doubtful  Standing = "warn" // works, and somebody should look
	Broken    Standing = "fail" // nothing can be paid like this
	Unchecked Standing = "skip" // could not be checked; Says tells why
)

// Cause is what may be behind a finding.
type Cause struct {
	Code string `json:"cause"` // stable, snake_case
	Says string `json:"says"`
	Fix  string `json:"fix"`
}

// Finding is the end of one check of an account and of its road to the exchange.
type Finding struct {
	Check    string   `json:"check"` // stable, snake_case
	Standing Standing `json:"standing"`
	Cause    string   `json:"cause,omitempty"` // stable, snake_case; "" when all is well
	Says     string   `json:"says"`
	Fix      string   `json:"fix,omitempty"`  // what a person does; never "" with Doubtful and Broken
	Also     []Cause  `json:"also,omitempty"` // less likely causes, likeliest first
}
