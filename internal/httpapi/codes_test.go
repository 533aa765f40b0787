package httpapi

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/fault"
)

var kinds = map[string]fault.Kind{
	"Malformed": fault.Malformed, "Invalid": fault.Invalid, "Unauthorized": fault.Unauthorized, "Forbidden": fault.Forbidden,
	"NotFound": fault.NotFound, "Conflict": fault.Conflict, "Refused": fault.Refused, "Unavailable": fault.Unavailable, "TooLarge": fault.TooLarge,
}

// elsewhere are codes in the same files that no service is ever answered with.
var elsewhere = map[string]bool{
	"key_malformed": true, "scope_unknown": true, // for operators who add a client
	"cancelled": true, // the reason that stands at a cancelled withdrawal
}

// answered reads from the source which codes the API can answer with, and their status.
func answered(t *testing.T) map[string]int {
	t.Helper()
	codes := map[string]int{"internal": 500}
	for status, p := range unreached {
		codes[p.Code] = status
	}
	var files []string
	for _, pattern := range []string{"*.go", "../whitelist/address.go", "../money/*.go", "../withdraw/*.go", "../intake/*.go",
		"../identity/token.go", "../pgstore/withdrawals.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		files = append(files, found...)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if kind, code := faultOf(call); code != "" && !elsewhere[code] {
				codes[code] = fault.ProblemOf(fault.New(kind, code, "", "")).Status
			}
			return true
		})
	}
	return codes
}

// faultOf reads fault.New(fault.KIND, CODE, …) and the short forms of it.
func faultOf(call *ast.CallExpr) (fault.Kind, string) {
	switch f := call.Fun.(type) {
	case *ast.SelectorExpr:
		if pkg, ok := f.X.(*ast.Ident); ok && pkg.Name == "fault" && f.Sel.Name == "New" {
			if kind, ok := call.Args[0].(*ast.SelectorExpr); ok {
				return kinds[kind.Sel.Name], literal(call.Args[1])
			}
		}
	case *ast.Ident:
		switch f.Name {
		case "unauthorized":
			return fault.Unauthorized, literal(call.Args[0])
		case "invalid":
			return fault.Invalid, literal(call.Args[1])
		}
	}
	return "", ""
}

func literal(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok {
		return ""
	}
	s, err := strconv.Unquote(lit.Value)
	if err != nil {
		return ""
	}
	return s
}

// The tables of docs/api.md list the codes that there are, and no other.
func TestDocumentListsEveryCode(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]int{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([0-9]{3}) \\| .+ \\|$").FindAllStringSubmatch(string(text), -1) {
		if documented[row[1]] != 0 {
			t.Errorf("%s is listed twice", row[1])
		}
		documented[row[1]], _ = strconv.Atoi(row[2])
	}
	if d := cmp.Diff(answered(t), documented); d != "" {
		t.Errorf("code (-) and docs/api.md (+) differ:\n%s", d)
	}
}
