package withdraw_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/internal/policy"
	"sluice/internal/withdraw"
)

var update = flag.Bool("update", false, "write docs/lifecycle.md anew")

const lifecyclePath = "../../docs/lifecycle.md"

func TestLifecyclePageIsDrawnFromTheCode(t *testing.T) {
	want := lifecycle(t)
	if *update {
		if err := os.WriteFile(lifecyclePath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(lifecyclePath)
	if err != nil || string(got) != want {
		t.Errorf("docs/lifecycle.md does not say what the code does (%v); run: go test ./internal/withdraw -run Lifecycle -update", err)
	}
}

// meanings reads what state.go says of each state beside its name.
func meanings(t *testing.T) map[withdraw.State]string {
	file, err := parser.ParseFile(token.NewFileSet(), "state.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	said := map[withdraw.State]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && fmt.Sprint(v.Type) == "State" {
			name, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil || v.Comment == nil {
				t.Fatalf("state.go says nothing beside %s", v.Names[0])
			}
			said[withdraw.State(name)] = strings.TrimSpace(v.Comment.Text())
		}
		return true
	})
	return said
}

func lifecycle(t *testing.T) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	said := meanings(t)
	if len(said) != len(withdraw.States()) {
		t.Fatalf("state.go names %d states, States lists %d", len(said), len(withdraw.States()))
	}

	say("# The life of a withdrawal\n")
	say("Drawn from `internal/withdraw` by its tests; do not edit by hand. After a change of the")
	say("states or moves run `go test ./internal/withdraw -run Lifecycle -update`. The database refuses")
	say("every move that is not listed here, and every process every move that is not its own.\n")
	say("```mermaid\nstateDiagram-v2")
	say("    [*] --> refused: a check at the door says no")
	say("    [*] --> pending: every check at the door holds")
	for _, m := range withdraw.Moves {
		say("    %s --> %s: %s", m.From, m.To, m.Why)
	}
	for _, s := range withdraw.States() {
		if s.Final() {
			say("    %s --> [*]", s)
		}
	}
	say("```\n")
	say("Nothing leads from a state in which the exchange may have the withdrawal back to `submitting`,")
	say("but for `absent`: proof that the exchange does not have it, and then a fresh quorum over a new")
	say("digest. That is how a payout is never made twice.\n")

	say("## States\n")
	say("| state | meaning | who moves it on | what the requester is told |")
	say("|---|---|---|---|")
	end := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, s := range withdraw.States() {
		next := withdraw.Next(withdraw.Withdrawal{State: s, ExpiresAt: &end}, policy.Default.Quorum.Approve)
		say("| `%s` | %s | %s | %s |", s, said[s], owners(s), strings.ReplaceAll(next, "2026-01-02T03:04:05.000Z", "its end"))
	}

	say("\n## Moves\n")
	say("| from | to | by | why |")
	say("|---|---|---|---|")
	for _, m := range withdraw.Moves {
		say("| `%s` | `%s` | %s | %s |", m.From, m.To, by(m.By), m.Why)
	}
	return b.String()
}

// owners names the processes that move a state on.
func owners(s withdraw.State) string {
	var list []withdraw.Process
	for _, m := range withdraw.Moves {
		if m.From == s {
			list = append(list, m.By...)
		}
	}
	if list == nil {
		return "nobody: it is an end"
	}
	slices.Sort(list)
	return by(slices.Compact(list))
}

// by says whose hand a process is: the api moves only what a person or client asks it to.
func by(list []withdraw.Process) string {
	words := map[withdraw.Process]string{withdraw.API: "people, through the api", withdraw.Worker: "the worker"}
	var said []string
	for _, p := range list {
		said = append(said, words[p])
	}
	return strings.Join(said, "; ")
}
