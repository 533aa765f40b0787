package deploy_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/process/api"
	"sluice/internal/process/worker"
)

// documented reads the table of settings in docs/operations.md: which process reads
// which setting, and its default.
func documented(t *testing.T) (readers, defaults map[string]string) {
	t.Helper()
	readers, defaults = map[string]string{}, map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(SLUICE_\\w+)` \\| ([^|]+) \\| ([^|]+) \\|").FindAllStringSubmatch(read(t, "docs/operations.md"), -1) {
		readers[row[1]], defaults[row[1]] = row[2], row[3]
	}
	return readers, defaults
}

// asked records what a process reads; a secret's _FILE is the same setting.
func asked(answer map[string]string, readConfig func(func(string) string) error) (names []string, err error) {
	seen := map[string]bool{}
	err = readConfig(func(name string) string {
		seen[strings.TrimSuffix(name, "_FILE")] = true
		return answer[name]
	})
	return slices.Sorted(maps.Keys(seen)), err
}

func TestSettingsAreDocumented(t *testing.T) {
	readers, _ := documented(t)
	of := func(process string) (names []string) {
		for name, processes := range readers {
			if slices.Contains(strings.Split(processes, ", "), process) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	for process, readConfig := range map[string]func(func(string) string) error{
		"api":    func(getenv func(string) string) error { _, err := api.ReadConfig(getenv); return err },
		"worker": func(getenv func(string) string) error { _, err := worker.ReadConfig(getenv); return err },
	} {
		names, err := asked(nil, readConfig)
		if err == nil {
			t.Errorf("%s starts without any setting", process)
		}
		if diff := cmp.Diff(names, of(process)); diff != "" {
			t.Errorf("%s reads (-), docs/operations.md says (+): %s", process, diff)
		}
	}

	// What the programs name at all, the operator's included.
	named := map[string]bool{}
	setting := regexp.MustCompile(`"(SLUICE_[A-Z_]+)"`)
	for _, folder := range []string{"../cmd", "../internal", "../web"} {
		err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range setting.FindAllSubmatch(text, -1) {
				named[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(named)), slices.Sorted(maps.Keys(readers))); diff != "" {
		t.Errorf("the programs name (-), docs/operations.md has (+): %s", diff)
	}
}

func TestDefaultsAreDocumented(t *testing.T) {
	_, defaults := documented(t)
	required := map[string]string{
		"SLUICE_DATABASE_URL": "postgres://a@b/c", "SLUICE_PUBLIC_URL": "https://sluice.example.com", "SLUICE_COINEX_ACCESS_ID": "id",
		"SLUICE_COINEX_SECRET_KEY": "key", "SLUICE_CHECKPOINT_KEY": "key",
	}
	for name, text := range defaults {
		if _, ok := required[name]; ok != (text == "required") {
			t.Errorf("%s: required or not? The table says %s", name, text)
		}
	}
	getenv := func(name string) string { return required[name] }
	a, err := api.ReadConfig(getenv)
	if err != nil {
		t.Fatal(err)
	}
	w, err := worker.ReadConfig(getenv)
	if err != nil {
		t.Fatal(err)
	}
	short := func(duration string) string { return strings.TrimSuffix(duration, "0s") } // 1m0s
	for name, value := range map[string]string{
		"SLUICE_LISTEN": a.Listen, "SLUICE_ACCOUNT": w.Account, "SLUICE_COINEX_URL": w.CoinexURL,
		"SLUICE_QUIET_PERIOD": short(w.Settings.Quiet.String()), "SLUICE_SWEEP": w.Settings.Sweep.String(),
		"SLUICE_REFRESH": w.Settings.Refresh.String(), "SLUICE_LEASE": w.Settings.Lease.String(),
	} {
		if !strings.Contains(defaults[name], "`"+value+"`") {
			t.Errorf("%s is %s, and docs/operations.md says %s", name, value, defaults[name])
		}
	}
}
