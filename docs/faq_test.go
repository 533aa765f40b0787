// Package docs_test checks that the documents tell the truth.
package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each row of the FAQ is there, and each test that it names exists where it says.
func TestFAQNamesTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("faq.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^\| (\d+) \|.*$`).FindAllStringSubmatch(string(text), -1)
	if len(lines) != 17 {
		t.Fatalf("%d rows; the FAQ has 17", len(lines))
	}
	for i, line := range lines {
		if line[1] != fmt.Sprint(i+1) {
			t.Errorf("row %s stands where %d should", line[1], i+1)
		}
		cells := strings.Split(strings.Trim(line[0], "| "), " | ")
		if len(cells) != 5 {
			t.Fatalf("row %s has %d cells", line[1], len(cells))
		}
		claims := regexp.MustCompile("((?:`Test\\w+`(?:, )?)+) in `([^`]+)`").FindAllStringSubmatch(cells[4], -1)
		named := 0
		for _, c := range claims {
			for _, name := range regexp.MustCompile(`Test\w+`).FindAllString(c[1], -1) {
				named++
				if !exists(t, c[2], name) {
					t.Errorf("row %s names %s, which is not in %s", line[1], name, c[2])
				}
			}
		}
		if all := strings.Count(cells[4], "`Test"); named == 0 || named != all {
			t.Errorf("row %s names %d tests, and says of %d where they are", line[1], all, named)
		}
	}
}

func exists(t *testing.T, folder, test string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+test+"(t *testing.T)") {
			return true
		}
	}
	return false
}
