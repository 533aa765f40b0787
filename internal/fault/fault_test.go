package fault_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"sluice/internal/fault"
)

// kinds reads the kinds from the source, so that a new one cannot be forgotten here.
func kinds(t *testing.T) []fault.Kind {
	file, err := parser.ParseFile(token.NewFileSet(), "fault.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var list []fault.Kind
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && fmt.Sprint(v.Type) == "Kind" {
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, fault.Kind(text))
		}
		return true
	})
	return list
}

func TestEveryKindHasAnAnswer(t *testing.T) {
	all := kinds(t)
	if len(all) < 10 {
		t.Fatalf("found only the kinds %v", all)
	}
	for _, k := range all {
		p := fault.ProblemOf(fault.New(k, "some_code", "some detail", "some fix"))
		if p.Code != "some_code" || p.Status < 400 || p.Status > 599 || p.Title != http.StatusText(p.Status) || p.Type != "about:blank" {
			t.Errorf("%s: %+v", k, p)
		}
	}
	for kind, want := range map[fault.Kind]int{
		fault.Malformed: 400, fault.Unauthorized: 401, fault.Forbidden: 403, fault.NotFound: 404, fault.Conflict: 409,
		fault.TooLarge: 413, fault.Invalid: 422, fault.Refused: 422, fault.Unclear: 502, fault.Unavailable: 503,
	} {
		if got := fault.ProblemOf(fault.New(kind, "c", "d", "f")).Status; got != want {
			t.Errorf("%s is %d, want %d", kind, got, want)
		}
	}
}

func TestWhatHasNoKindStaysInside(t *testing.T) {
	for name, err := range map[string]error{
		"plain":          errors.New("dial postgres://sluice:hunter2@db"),
		"no kind":        &fault.Error{Code: "hunter2", Detail: "hunter2", Fix: "hunter2"},
		"a made-up kind": fault.New("hunter2", "hunter2", "hunter2", "hunter2"),
	} {
		p := fault.ProblemOf(err)
		if p.Status != http.StatusInternalServerError || p.Code != "internal" || strings.Contains(string(p.JSON()), "hunter2") {
			t.Errorf("%s: %s", name, p.JSON())
		}
	}
}

func TestTheCauseIsForTheLogAlone(t *testing.T) {
	cause := errors.New("pq: password hunter2 refused")
	first := fault.New(fault.Unavailable, "database_away", "the record cannot be reached", "try again")
	err := fmt.Errorf("submit: %w", first.Because(cause).On("amount"))

	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "hunter2") {
		t.Error("the log must have the cause:", err)
	}
	p := fault.ProblemOf(err)
	if p.Code != "database_away" || p.Field != "amount" || strings.Contains(string(p.JSON()), "hunter2") {
		t.Errorf("the outside reads %s", p.JSON())
	}
	if !fault.Is(err, "database_away") || fault.Is(err, "other") || fault.Is(nil, "database_away") || fault.Is(cause, "") {
		t.Error("Is")
	}
	// Faults are kept in variables and shared: adding to one must not change it.
	_ = first.On("memo").Because(cause)
	if first.Field != "" || first.Err != nil {
		t.Errorf("On and Because changed the fault that they were called on: %+v", first)
	}
}

func TestProblemJSON(t *testing.T) {
	p := fault.ProblemOf(fault.New(fault.Refused, "destination_not_listed", "not <listed>", "list it"))
	var got map[string]any
	if err := json.Unmarshal(p.JSON(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"type": "about:blank", "title": "Unprocessable Entity", "status": 422.0,
		"detail": "not <listed>", "code": "destination_not_listed", "fix": "list it"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
