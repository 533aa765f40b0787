package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The linked program is what a thief gets. It must hold no code that can pay; the
// linter says the same of each package's own imports.
func TestTheAPIHoldsNoExchangeClient(t *testing.T) {
	linked := dependencies(t, "sluice/cmd/api")
	for _, never := range []string{
		"sluice/internal/exchange/coinex", "sluice/internal/exchange/sandbox", "sluice/internal/submit",
		"sluice/internal/process/worker", "sluice/internal/process/dev", "sluice/internal/pgstore/pgserver", "testing",
	} {
		if slices.Contains(linked, never) {
			t.Errorf("%s is linked into the api", never)
		}
	}
	// The question is put rightly: the worker does hold them.
	if !slices.Contains(dependencies(t, "sluice/cmd/worker"), "sluice/internal/exchange/coinex") {
		t.Error("the worker's dependencies lack the exchange's client, so this test looks for the wrong name")
	}
}

func dependencies(t *testing.T, program string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", program).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}
