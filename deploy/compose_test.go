// Package deploy_test holds docker-compose.yml and the Dockerfile to what
// docs/operations.md promises of them, without needing Docker.
package deploy_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"sluice/internal/process/api"
	"sluice/internal/process/worker"
)

type service struct {
	Build struct {
		Target string
	}
	Image       string
	User        string
	ReadOnly    bool     `yaml:"read_only"`
	Privileged  bool     `yaml:"privileged"`
	CapAdd      []string `yaml:"cap_add"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	Restart     string
	Profiles    []string
	Command     []string
	Environment map[string]string
	Secrets     []string
	Networks    []string
	NetworkMode string `yaml:"network_mode"`
	Ports       []string
	DependsOn   map[string]struct {
		Condition string
	} `yaml:"depends_on"`
	Healthcheck *struct {
		Test    []string
		Disable bool
	}
}

type compose struct {
	Services map[string]service
	Networks map[string]struct {
		Internal   bool
		DriverOpts map[string]string `yaml:"driver_opts"`
	}
	Secrets map[string]struct{ File string }
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// load reads the file as compose does with nothing set but SLUICE_PUBLIC_URL.
func load(t *testing.T) compose {
	t.Helper()
	text := regexp.MustCompile(`\$\{(\w+):([-?])([^}]*)\}`).ReplaceAllStringFunc(read(t, "docker-compose.yml"), func(variable string) string {
		name, rest, _ := strings.Cut(strings.Trim(variable, "${}"), ":")
		if name == "SLUICE_PUBLIC_URL" {
			return "https://sluice.example.com"
		}
		if rest[0] == '?' {
			t.Errorf("%s must be set, and docs/operations.md does not say so", name)
		}
		return rest[1:]
	})
	var c compose
	if err := yaml.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"postgres", "migrate", "api", "worker", "sandbox", "operator"} {
		if _, ok := c.Services[name]; !ok {
			t.Fatalf("there is no service %s", name)
		}
	}
	return c
}

func TestEveryContainerIsConfined(t *testing.T) {
	account := regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`)
	for name, s := range load(t).Services {
		if !s.ReadOnly {
			t.Errorf("%s can write to its root file system", name)
		}
		if !account.MatchString(s.User) {
			t.Errorf("%s runs as %q, want numbers other than 0", name, s.User)
		}
		if s.Privileged || len(s.CapAdd) > 0 || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s keeps rights that it does not need", name)
		}
		if s.NetworkMode != "" {
			t.Errorf("%s leaves the networks", name)
		}
		oneShot := s.Restart == "no"
		if s.Healthcheck == nil || s.Healthcheck.Disable != oneShot || !oneShot && (len(s.Healthcheck.Test) < 2 || s.Healthcheck.Test[0] != "CMD") {
			t.Errorf("%s has no health check", name)
		}
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s publishes %s to the world", name, port)
			}
		}
	}
}

// Each container holds the secrets of its own job, as files.
func TestSecretsAreFilesOfTheirOwn(t *testing.T) {
	c := load(t)
	want := map[string][]string{
		"postgres": {"owner_password"},
		"migrate":  {"owner_database_url", "api_password", "worker_password"},
		"api":      {"api_database_url"},
		"worker":   {"worker_database_url", "coinex_access_id", "coinex_secret_key", "checkpoint_key"},
		"sandbox":  nil,
		"operator": {"owner_database_url"},
	}
	named := map[string]bool{}
	secret := regexp.MustCompile(`PASSWORD|SECRET|KEY|ACCESS_ID|DATABASE_URL|TOKEN`)
	for name, s := range c.Services {
		if diff := cmp.Diff(want[name], s.Secrets); diff != "" {
			t.Errorf("secrets of %s: %s", name, diff)
		}
		var used []string
		for variable, value := range s.Environment {
			file, isFile := strings.CutPrefix(value, "/run/secrets/")
			switch {
			case strings.HasSuffix(variable, "_FILE") != isFile:
				t.Errorf("%s: %s is %q", name, variable, value)
			case isFile:
				used = append(used, file)
			case secret.MatchString(variable):
				t.Errorf("%s gets %s in its environment, which whoever inspects the container reads", name, variable)
			}
		}
		if !cmp.Equal(slices.Sorted(slices.Values(used)), slices.Sorted(slices.Values(s.Secrets))) {
			t.Errorf("%s mounts %v and uses %v", name, s.Secrets, used)
		}
		for _, s := range s.Secrets {
			named[s] = true
		}
	}
	if !cmp.Equal(slices.Sorted(maps.Keys(named)), slices.Sorted(maps.Keys(c.Secrets))) {
		t.Errorf("containers mount %v, and there are %v", slices.Sorted(maps.Keys(named)), slices.Sorted(maps.Keys(c.Secrets)))
	}
}

func TestTheAPICannotReachTheExchange(t *testing.T) {
	c := load(t)
	if diff := cmp.Diff([]string{"people", "database"}, c.Services["api"].Networks); diff != "" {
		t.Errorf("networks of the api: %s", diff)
	}
	if !c.Networks["database"].Internal {
		t.Error("the database's network leads outside")
	}
	if c.Networks["people"].DriverOpts["com.docker.network.bridge.enable_ip_masquerade"] != "false" {
		t.Error("the api's network leads outside")
	}
	for name, s := range c.Services {
		if out := name == "worker" || name == "sandbox"; slices.Contains(s.Networks, "exchange") != out {
			t.Errorf("%s is on %v", name, s.Networks)
		}
	}
}

func TestNothingStartsBeforeTheSchema(t *testing.T) {
	for _, name := range []string{"api", "worker", "operator"} {
		on := load(t).Services[name].DependsOn
		if on["postgres"].Condition != "service_healthy" || on["migrate"].Condition != "service_completed_successfully" {
			t.Errorf("%s waits for %v", name, on)
		}
	}
}

// made runs make-secrets in a folder of its own.
func made(t *testing.T, environment ...string) (folder string, err error) {
	t.Helper()
	root := t.TempDir()
	script := filepath.Join(root, "make-secrets")
	if err := os.WriteFile(script, []byte(read(t, "deploy/make-secrets")), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it finds everything there
		cmd := exec.Command("sh", script)
		cmd.Env = append(cmd.Environ(), environment...)
		output, runErr := cmd.CombinedOutput()
		if runErr != nil {
			err = fmt.Errorf("%w: %s", runErr, output)
		}
	}
	return filepath.Join(root, "secrets"), err
}

func TestMakeSecretsMakesThemAll(t *testing.T) {
	folder, err := made(t, "SLUICE_COINEX_ACCESS_ID=an id", "SLUICE_COINEX_SECRET_KEY=a key", "SLUICE_CHECKPOINT_KEY=another")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, entry := range entries {
		files = append(files, entry.Name())
		if info, err := entry.Info(); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v: a container's account cannot read it", entry.Name(), info.Mode(), err)
		}
	}
	c := load(t)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(c.Secrets)), files); diff != "" {
		t.Errorf("what compose mounts, and what make-secrets makes: %s", diff)
	}
	for name, s := range c.Secrets {
		if s.File != "./deploy/secrets/"+name {
			t.Errorf("%s is %s", name, s.File)
		}
	}
	if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v: other accounts can read the secrets", info.Mode(), err)
	}

	if _, err := made(t, "SLUICE_COINEX_ACCESS_ID="); err == nil || !strings.Contains(err.Error(), "coinex_access_id is missing") {
		t.Errorf("without an exchange key and a terminal: %v", err)
	}
}

// The programs accept what compose tells them, and take their secrets from the files.
func TestProgramsUnderstandTheirSettings(t *testing.T) {
	folder, err := made(t, "SLUICE_COINEX_ACCESS_ID=an id", "SLUICE_COINEX_SECRET_KEY=a key", "SLUICE_CHECKPOINT_KEY=another")
	if err != nil {
		t.Fatal(err)
	}
	c := load(t)
	environment := func(name string) func(string) string {
		return func(variable string) string {
			return strings.Replace(c.Services[name].Environment[variable], "/run/secrets", folder, 1)
		}
	}
	a, err := api.ReadConfig(environment("api"))
	if err != nil || !strings.HasPrefix(string(a.DatabaseURL), "postgres://sluice_api:") {
		t.Errorf("api: %v", err)
	}
	w, err := worker.ReadConfig(environment("worker"))
	if err != nil || w.AccessID != "an id" || w.SecretKey != "a key" || w.CheckpointKey != "another" || !strings.HasPrefix(string(w.DatabaseURL), "postgres://sluice_worker:") {
		t.Errorf("worker: %v", err)
	}
	for _, service := range []string{"api", "worker"} {
		known := map[string]bool{}
		record := func(variable string) string { known[variable] = true; return environment(service)(variable) }
		if service == "api" {
			_, err = api.ReadConfig(record)
		} else {
			_, err = worker.ReadConfig(record)
		}
		if err != nil {
			t.Fatal(err)
		}
		for variable := range c.Services[service].Environment {
			if !known[variable] {
				t.Errorf("%s never reads %s", service, variable)
			}
		}
	}
	for service, listens := range map[string]string{"api": a.Listen, "worker": w.Listen} {
		_, port, _ := strings.Cut(listens, ":")
		if test := c.Services[service].Healthcheck.Test; test[len(test)-1] != "http://127.0.0.1:"+port+"/readyz" {
			t.Errorf("the health check of %s asks %v, and it listens on %s", service, test, listens)
		}
	}
}

func TestImagesAreStaticAndUnprivileged(t *testing.T) {
	file := read(t, "Dockerfile")
	stages := regexp.MustCompile(`(?m)^FROM (\S+) AS (\S+)$`).FindAllStringSubmatch(file, -1)
	from := map[string]string{}
	for _, stage := range stages {
		from[stage[2]] = stage[1]
	}
	if from["base"] != "scratch" || !strings.Contains(file, "\nUSER 65532:65532\n") || strings.Count(file, "\nUSER ") != 1 ||
		!strings.Contains(file, "CGO_ENABLED=0 go build -trimpath") {
		t.Errorf("stages %v", from)
	}
	for name, s := range load(t).Services {
		if s.Build.Target != "" && from[s.Build.Target] != "base" {
			t.Errorf("%s is built from stage %q, which is not made from the base", name, s.Build.Target)
		}
		if s.Build.Target == "" && name != "postgres" {
			t.Errorf("%s is not built here", name)
		}
	}
}
