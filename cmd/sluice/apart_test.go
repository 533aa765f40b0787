package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sluice/internal/approval"
	"sluice/internal/identity"
	"sluice/internal/pgstore"
	"sluice/internal/pgstore/pgserver"
)

const (
	publicURL = "http://localhost:8080" // what browsers would say; nothing listens there
	// stopTime is what docker-compose.yml grants a worker before it is killed.
	stopTime = 45 * time.Second
)

// apart is an installation as docker-compose.yml makes it, without the containers: every
// process by itself, its secrets in files, its own database role with a password.
type apart struct {
	t       *testing.T
	bin     string
	secrets string
	socket  url.Values // how to reach Postgres
	running []*program
}

// program is a started process. Its log is JSON lines on standard error.
type program struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd

	mu    sync.Mutex
	lines []string
	ended bool
}

func (a *apart) build() {
	a.t.Helper()
	a.bin = a.t.TempDir()
	out, err := exec.Command("go", "build", "-o", a.bin+string(filepath.Separator), "sluice/cmd/api", "sluice/cmd/worker", "sluice/cmd/sandbox", "sluice/cmd/sluice").CombinedOutput()
	if err != nil {
		a.t.Fatalf("build: %v\n%s", err, out)
	}
}

// postgres starts a server that asks everybody but its superuser for a password, and
// makes the database and its owner, who may make roles and is otherwise nobody special.
func (a *apart) postgres(ownerPassword string) {
	a.t.Helper()
	folder, err := os.MkdirTemp("", "sluice-apart-")
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o711); err != nil { // Postgres may run as another account
		a.t.Fatal(err)
	}
	rules := filepath.Join(folder, "hba.conf")
	if err := os.WriteFile(rules, []byte("local all "+pgserver.Superuser+" trust\nlocal all all scram-sha-256\n"), 0o644); err != nil {
		a.t.Fatal(err)
	}
	ctx := context.Background()
	data := filepath.Join(folder, "postgres")
	server, err := pgserver.Start(ctx, pgserver.Options{Dir: data, Settings: map[string]string{"fsync": "off", "hba_file": rules}})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		if err := server.Stop(ctx); err != nil {
			a.t.Error(err)
		}
		if err := pgserver.Remove(ctx, data); err != nil {
			a.t.Error(err)
		}
	})
	super := server.URL(pgserver.Superuser, "postgres")
	conn, err := pgx.Connect(ctx, super)
	if err != nil {
		a.t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, statement := range []string{"CREATE ROLE sluice_owner LOGIN CREATEROLE PASSWORD '" + ownerPassword + "'", "CREATE DATABASE sluice OWNER sluice_owner"} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			a.t.Fatal(err)
		}
	}
	u, err := url.Parse(super)
	if err != nil {
		a.t.Fatal(err)
	}
	a.socket = u.Query()
}

func (a *apart) databaseURL(role, password string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, password), Path: "/sluice", RawQuery: a.socket.Encode()}
	return u.String()
}

// secret writes a secret's file and returns the setting that names it.
func (a *apart) secret(setting, value string) string {
	a.t.Helper()
	path := filepath.Join(a.secrets, setting+"."+uuid.NewString())
	if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return setting + "_FILE=" + path
}

func (a *apart) command(name string, environment []string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(a.bin, name), args...)
	cmd.Dir, cmd.Env = a.secrets, environment // nothing of the test's own environment
	return cmd
}

// run is for programs that end by themselves.
func (a *apart) run(name string, environment []string, args ...string) (string, error) {
	out, err := a.command(name, environment, args...).CombinedOutput()
	return string(out), err
}

func (a *apart) must(environment []string, args ...string) string {
	a.t.Helper()
	out, err := a.run("sluice", environment, args...)
	if err != nil {
		a.t.Fatalf("sluice %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// start starts a program that serves until it is told to stop.
func (a *apart) start(name string, environment []string, args ...string) *program {
	a.t.Helper()
	p := &program{t: a.t, name: name, cmd: a.command(name, environment, args...)}
	reader, writer, err := os.Pipe()
	if err != nil {
		a.t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = writer, writer
	err = p.cmd.Start()
	writer.Close()
	if err != nil {
		reader.Close()
		a.t.Fatal(err)
	}
	go func() {
		defer reader.Close()
		for lines := bufio.NewScanner(reader); lines.Scan(); {
			p.add(lines.Text(), false)
		}
		p.add("", true)
	}()
	a.running = append(a.running, p)
	a.t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.cmd.Process.Kill()
			p.cmd.Wait()
		}
		if a.t.Failed() {
			a.t.Logf("%s said:\n%s", p.name, p.said())
		}
	})
	return p
}

func (p *program) add(line string, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !last {
		p.lines = append(p.lines, line)
	}
	p.ended = last
}

func (p *program) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// waitFor waits for a line and returns what the expression's last group matched in it.
func (p *program) waitFor(expression string) (match string) {
	p.t.Helper()
	e := regexp.MustCompile("(?m)" + expression)
	until(p.t, p.name+" says "+expression, func() bool {
		p.mu.Lock()
		ended := p.ended
		p.mu.Unlock()
		m := e.FindStringSubmatch(p.said())
		if m == nil && ended {
			p.t.Fatalf("%s ended before it said %s", p.name, expression)
		}
		if m != nil {
			match = m[len(m)-1]
		}
		return m != nil
	})
	return match
}

// stop tells the process to stop as Docker does, and as Docker kills it when it takes
// longer than it may.
func (p *program) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	killer := time.AfterFunc(stopTime, func() { p.cmd.Process.Kill() })
	defer killer.Stop()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%s after SIGTERM: %v", p.name, err)
	}
}

const (
	address    = `"address":"([^"]+)"`
	leaseTaken = `"msg":"lease taken"`
)

func TestTheWiringApart(t *testing.T) {
	a := &apart{t: t, secrets: t.TempDir()}
	a.build()
	passwords := map[string]string{"owner": uuid.NewString(), "api": uuid.NewString(), "worker": uuid.NewString()}
	a.postgres(passwords["owner"])

	// The database, as the one-shot container makes it; two at once do no harm.
	owner := a.secret("SLUICE_DATABASE_URL", a.databaseURL("sluice_owner", passwords["owner"]))
	migrate := []string{owner, a.secret("SLUICE_API_DB_PASSWORD", passwords["api"]), a.secret("SLUICE_WORKER_DB_PASSWORD", passwords["worker"])}
	var migrations sync.WaitGroup
	for range 2 {
		migrations.Go(func() {
			if out, err := a.run("sluice", migrate, "migrate"); err != nil || !strings.HasSuffix(out, "the schema is current\n") {
				t.Errorf("migrate: %v\n%s", err, out)
			}
		})
	}
	migrations.Wait()
	if t.Failed() {
		t.FailNow()
	}

	// What an operator sets up.
	operator := []string{owner, "SLUICE_PUBLIC_URL=" + publicURL, "USER=olga"}
	a.must(operator, "account", "add", "main")
	invitation := regexp.MustCompile(publicURL + `/enrol/(\S+)`).FindStringSubmatch(
		a.must(operator, "person", "add", "alice", "--display", "Alice", "--role", "approver"))
	if invitation == nil {
		t.Fatal("person add printed no link")
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	a.must(operator, "client", "add", "payroll", "--account", "main", "--public-key", base64.StdEncoding.EncodeToString(public))
	list := filepath.Join(a.secrets, "list.csv")
	if err := os.WriteFile(list, []byte(strings.Join(columns, ",")+"\nmain,on_chain,USDT,TRC20,"+listed+",,Payroll provider\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.must(operator, "whitelist", "import", list)
	keys := strings.Fields(a.must(nil, "key", "example.com/sluice"))
	signer, verifier := "", keys[len(keys)-1]
	for _, word := range keys {
		if strings.HasPrefix(word, "PRIVATE+KEY+") {
			signer = word
		}
	}

	// The processes, two of each.
	sandbox := a.start("sandbox", nil, "--listen", "127.0.0.1:0")
	exchange := sandbox.waitFor(`^ *address +(http://\S+)`)
	sandbox.waitFor(`^ready$`)
	var apis, workers []*program
	for range 2 {
		apis = append(apis, a.start("api", []string{"SLUICE_LISTEN=127.0.0.1:0", "SLUICE_PUBLIC_URL=" + publicURL,
			a.secret("SLUICE_DATABASE_URL", a.databaseURL("sluice_api", passwords["api"]))}))
		workers = append(workers, a.start("worker", []string{"SLUICE_LISTEN=127.0.0.1:0", "SLUICE_PUBLIC_URL=" + publicURL,
			a.secret("SLUICE_DATABASE_URL", a.databaseURL("sluice_worker", passwords["worker"])), "SLUICE_COINEX_URL=" + exchange,
			a.secret("SLUICE_COINEX_ACCESS_ID", "sandbox-access-id"), a.secret("SLUICE_COINEX_SECRET_KEY", "sandbox-secret-key"),
			a.secret("SLUICE_CHECKPOINT_KEY", signer), "SLUICE_LEASE=2s"}))
	}
	var origins []string
	for _, p := range append(apis, workers...) {
		origin := "http://" + p.waitFor(address)
		origins = append(origins, origin)
		if out := a.must(nil, "health", origin+"/readyz"); !strings.Contains(out, `"ready"`) {
			t.Errorf("%s is not ready: %s", p.name, out)
		}
		if metrics := get(t, origin+"/metrics"); !strings.Contains(metrics, "process_start_time_seconds") {
			t.Errorf("%s has no metrics: %.200s", p.name, metrics)
		}
	}
	if out, err := a.run("sluice", nil, "health", origins[0]+"/v1/withdrawals"); err == nil || !strings.Contains(out, "401") {
		t.Errorf("a health check of something unwell: %v %s", err, out)
	}
	a.refusals(passwords, origins[0])

	store, err := pgstore.Open(context.Background(), a.databaseURL("sluice_owner", passwords["owner"]))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	until(t, "the worker has read the exchange", func() bool {
		_, at, err := store.Chains(context.Background())
		return err == nil && time.Since(at) < time.Minute
	})

	id := request(t, origins[:2], private)
	noSoftwarePasskey(t, store, origins[1], invitation[1], id)

	// A worker that stops hands its account over.
	holder, other := workers[0], workers[1]
	until(t, "a worker says that it owns the account", func() bool {
		if !strings.Contains(holder.said(), leaseTaken) {
			holder, other = other, holder
		}
		return strings.Contains(holder.said(), leaseTaken)
	})
	if strings.Contains(other.said(), leaseTaken) {
		t.Error("two workers own the account at once")
	}
	holder.stop()
	other.waitFor(leaseTaken)
	until(t, "the record is signed", func() bool {
		out, err := a.run("sluice", operator, "audit", "verify", "--verifier", verifier, "--json")
		return err == nil && strings.Contains(out, `"waiting": 0`)
	})

	for _, p := range []*program{apis[0], apis[1], other, sandbox} {
		p.stop()
	}
	for _, p := range a.running {
		for _, secret := range []string{passwords["owner"], passwords["api"], passwords["worker"], "sandbox-secret-key", signer} {
			if p != sandbox && strings.Contains(p.said(), secret) {
				t.Errorf("the log of %s holds a secret", p.name)
			}
		}
	}
}

// refusals are starts that must end at once, with a sentence and without the secret.
func (a *apart) refusals(passwords map[string]string, taken string) {
	a.t.Helper()
	site, listen := "SLUICE_PUBLIC_URL="+publicURL, "SLUICE_LISTEN=127.0.0.1:0"
	for _, c := range []struct {
		name        string
		environment []string
		says        string
	}{
		{"api", []string{site, listen, a.secret("SLUICE_DATABASE_URL", a.databaseURL("sluice_api", "guessed"))}, "no database answers"},
		{"api", []string{site, listen, a.secret("SLUICE_DATABASE_URL", a.databaseURL("sluice_worker", passwords["api"]))}, "no database answers"},
		{"api", []string{site, listen, "SLUICE_DATABASE_URL_FILE=" + filepath.Join(a.secrets, "nowhere")}, "no such file"},
		{"api", []string{site, "SLUICE_LISTEN=" + strings.TrimPrefix(taken, "http://"),
			a.secret("SLUICE_DATABASE_URL", a.databaseURL("sluice_api", passwords["api"]))}, "in use by another program"},
		{"worker", []string{site, listen, a.secret("SLUICE_DATABASE_URL", a.databaseURL("sluice_worker", passwords["worker"]))}, "SLUICE_COINEX_SECRET_KEY is not set"},
	} {
		out, err := a.run(c.name, c.environment)
		if err == nil || !strings.Contains(out, c.says) || strings.Contains(out, "guessed") || strings.Contains(out, passwords["api"]) {
			a.t.Errorf("%s answered %v, %s; want it to say %q", c.name, err, out, c.says)
		}
	}
}

// request asks both apis for the same payout. The answer is one withdrawal, which
// waits for votes and which both of them know.
func request(t *testing.T, origins []string, key ed25519.PrivateKey) (id string) {
	t.Helper()
	token, err := identity.SignToken("payroll", key, []string{identity.ScopeWrite, identity.ScopeRead}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(payout(listed, "apart-1"))
	if err != nil {
		t.Fatal(err)
	}
	idempotency := uuid.NewString()
	var answers []string
	for _, origin := range origins {
		status, answer := send(t, http.DefaultClient, http.MethodPost, origin+"/v1/withdrawals", string(body),
			"Authorization", "Bearer "+token, "Idempotency-Key", idempotency)
		if status != http.StatusCreated {
			t.Fatalf("%d %s", status, answer)
		}
		answers = append(answers, answer)
	}
	if answers[0] != answers[1] {
		t.Errorf("one request, two answers:\n%s\n%s", answers[0], answers[1])
	}
	var made struct {
		ID          string
		State       string
		VotesNeeded int `json:"votes_needed"`
	}
	if err := json.Unmarshal([]byte(answers[0]), &made); err != nil || made.State != "pending" || made.VotesNeeded != 2 {
		t.Errorf("%v: %s", err, answers[0])
	}
	if _, answer := send(t, http.DefaultClient, http.MethodGet, origins[1]+"/v1/withdrawals/"+made.ID, "", "Authorization", "Bearer "+token); !strings.Contains(answer, `"pending"`) {
		t.Errorf("the other api says %s", answer)
	}
	return made.ID
}

// noSoftwarePasskey tries the demo people's way in, and that of somebody who can
// write to the database.
func noSoftwarePasskey(t *testing.T, store *pgstore.Store, origin, invitation, withdrawal string) {
	t.Helper()
	ctx := context.Background()
	software, err := identity.OpenSoftware(filepath.Join(t.TempDir(), "passkeys.json"))
	if err != nil {
		t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	post := func(path, body string) (int, string) {
		return send(t, browser, http.MethodPost, origin+path, body, "Origin", publicURL, "Sec-Fetch-Site", "same-origin", "Accept", "application/json")
	}
	options := func(path string) json.RawMessage {
		status, answer := post(path, "{}")
		var o struct {
			PublicKey json.RawMessage `json:"publicKey"`
		}
		if err := json.Unmarshal([]byte(answer), &o); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, status, answer)
		}
		return o.PublicKey
	}
	alice := software.Of("alice")
	credential, err := alice.Create(options("/enrol/"+invitation+"/options"), publicURL)
	if err != nil {
		t.Fatal(err)
	}
	status, answer := post("/enrol/"+invitation+"/finish", fmt.Sprintf(`{"credential":%s,"label":"mine"}`, credential))
	if status != http.StatusForbidden || !strings.Contains(answer, "passkey_software") {
		t.Errorf("enrolling a software passkey: %d %s", status, answer)
	}

	// The same passkey, put into the database behind the api's back.
	lenient, err := identity.NewPasskeys(approval.Relying{ID: "localhost", Origins: []string{publicURL}, Software: true}, store, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	_, made, state, err := lenient.BeginEnrolment(ctx, invitation)
	if err != nil {
		t.Fatal(err)
	}
	if credential, err = alice.Create(made, publicURL); err != nil {
		t.Fatal(err)
	}
	if _, err := lenient.FinishEnrolment(ctx, invitation, state, credential, "mine"); err != nil {
		t.Fatal(err)
	}
	assertion, err := alice.Get(options("/signin/options"), publicURL)
	if err != nil {
		t.Fatal(err)
	}
	status, answer = post("/signin/finish", fmt.Sprintf(`{"credential":%s}`, assertion))
	if status != http.StatusForbidden || !strings.Contains(answer, "passkey_software") {
		t.Errorf("signing in with a software passkey: %d %s", status, answer)
	}

	if status, answer = post("/withdrawals/"+withdrawal+"/vote/options", `{"decision":"approve"}`); status != http.StatusUnauthorized {
		t.Errorf("asking for a vote without a session: %d %s", status, answer)
	}
	for _, path := range []string{"/dev/people", "/dev/passkey/get"} {
		if status, answer = post(path, `{"person":"alice","publicKey":{}}`); status != http.StatusNotFound && status != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
}

func get(t *testing.T, address string) string {
	t.Helper()
	_, body := send(t, http.DefaultClient, http.MethodGet, address, "")
	return body
}

func send(t *testing.T, client *http.Client, method, address, body string, headers ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, address, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

// until waits as long as the test may run, less the time to end what was started:
// a test that runs out of time ends nothing.
func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	ctx := t.Context()
	if deadline, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-stopTime))
		defer cancel()
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}
