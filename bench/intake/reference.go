package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// oneStatement does what intake does for one accepted request, without HTTP, token,
// shape, canonical JSON and answer: is the client active, the destination listed, the
// exchange's configuration fresh and the amount within it; then withdrawal, proposal
// and audit event. Its :n is a random number that makes the request unique. Ids are made in order of
// time as intake's are, so that both fill their indexes in the same way, and the
// stored texts are of the same lengths as intake's. No word may follow a single colon, also
// in quotes: pgbench would take it for a variable.
const oneStatement = `WITH i AS (
    SELECT (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7' || substr(md5(:n::bigint::text), 1, 19))::uuid AS id,
        'bench-' || lpad(:n::bigint::text, 30, '0') AS key, now() AS now
), checked AS (
    SELECT i.*, 'client:' || c.name AS requester, d.id AS destination_id, x.fee * 2 AS max_fee, i.id::text || repeat('s', 560) AS sealed
    FROM i
    JOIN service_clients c ON c.name = 'reference' AND c.disabled_at IS NULL AND 'main' = ANY (c.accounts)
    JOIN destinations d ON d.account = 'main' AND d.method = 'on_chain' AND d.asset = 'USDT' AND d.chain = 'TRC20'
        AND d.address = 'TJRabPrwbZy45sbavfcjinPJC18kjpRTv8' AND d.memo = '' AND d.state = 'active'
    JOIN exchange_chains x ON x.asset = d.asset AND x.chain = d.chain AND x.asset_enabled AND x.chain_enabled
        AND 25.5 >= x.min_amount AND scale(25.5) <= x.precision
    JOIN exchange_reads r ON r.account = 'main' AND r.what = 'config' AND r.at > i.now - interval '15 minutes'
), w AS (
    INSERT INTO withdrawals (id, requester, reference, idempotency_key, body_hash, answer_status, answer,
        account, method, asset, chain, address, memo, amount, max_fee, purpose,
        destination_id, state, digest, expires_at, created_at, updated_at)
    SELECT id, requester, key, key, sha256(convert_to(key, 'UTF8')), 201, convert_to(repeat('a', 820), 'UTF8'),
        'main', 'on_chain', 'USDT', 'TRC20', 'TJRabPrwbZy45sbavfcjinPJC18kjpRTv8', '', 25.5, max_fee, 'supplier invoice of this month',
        destination_id, 'pending', sha256(convert_to(sealed, 'UTF8')), now + interval '1 day', now, now
    FROM checked
    ON CONFLICT DO NOTHING
    RETURNING id
), p AS (
    INSERT INTO proposals (digest, sealed, withdrawal_id, round, created_at)
    SELECT sha256(convert_to(sealed, 'UTF8')), convert_to(sealed, 'UTF8'), id, 1, now FROM checked JOIN w USING (id)
), e AS (
    INSERT INTO audit_events (id, at, actor, action, withdrawal_id, body)
    SELECT id, now, requester, 'withdrawal.requested', id, convert_to(repeat('e', 560), 'UTF8') FROM checked JOIN w USING (id)
)
SELECT id FROM w`

// reference runs the one statement from n connections, prepared, as the api's role.
type reference struct {
	pgbench string // path of the program; "" when there is none
}

// newReference looks for pgbench beside the server's binaries, then in PATH.
func newReference(s *system) (reference, error) {
	beside := filepath.Join(s.postgres.BinDir(), "pgbench")
	for _, name := range []string{beside, "pgbench"} {
		path, err := exec.LookPath(name)
		if err == nil {
			return reference{path}, nil
		}
		if !errors.Is(err, exec.ErrNotFound) && !errors.Is(err, os.ErrNotExist) {
			return reference{}, fmt.Errorf("look for pgbench: %w", err)
		}
	}
	fmt.Fprintln(os.Stderr, "There is no pgbench beside the server's binaries or in PATH; a Go loop over pgx runs the very same statement in its place.")
	return reference{}, nil
}

func (r reference) name() string {
	if r.pgbench != "" {
		return "pgbench"
	}
	return "Go loop over pgx (no pgbench here)"
}

func (r reference) measure(ctx context.Context, s *system, n int, length time.Duration) (f figures, err error) {
	if err := s.ground(ctx); err != nil {
		return f, err
	}
	url := s.postgres.URL("sluice_api", "postgres")
	if r.pgbench == "" {
		f, err = r.loop(ctx, s, url, n, length)
	} else {
		f, err = r.run(ctx, s, url, n, length)
	}
	if err != nil {
		return f, fmt.Errorf("%s with %d clients: %w", r.name(), n, err)
	}
	return f, nil
}

// loop is the reference where pgbench is missing.
func (r reference) loop(ctx context.Context, s *system, url string, n int, length time.Duration) (figures, error) {
	statement := strings.ReplaceAll(oneStatement, ":n", "$1")
	took, done, err := inParallel(ctx, n, length, func() (func() error, func(), error) {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return nil, nil, err
		}
		return func() error {
			tag, err := conn.Exec(ctx, statement, rand.Int64())
			if err == nil && tag.RowsAffected() != 1 {
				err = errors.New("the statement recorded nothing")
			}
			return err
		}, func() { conn.Close(context.Background()) }, nil
	})
	s.referenced += done
	if err != nil {
		return figures{}, err
	}
	return figuresOf(took, length)
}

// run has pgbench warm up and then measure, writing the time of each transaction.
func (r reference) run(ctx context.Context, s *system, url string, n int, length time.Duration) (figures, error) {
	dir, err := os.MkdirTemp("", "sluice-pgbench-")
	if err != nil {
		return figures{}, err
	}
	defer os.RemoveAll(dir)
	script := filepath.Join(dir, "one.sql")
	// In a pgbench script a statement ends with a semicolon, and \set draws the number.
	if err := os.WriteFile(script, []byte("\\set n random(1, 9223372036854775806)\n"+oneStatement+";\n"), 0o600); err != nil {
		return figures{}, err
	}
	if err := r.pgbenchFor(ctx, s, url, n, warmUp, "-f", script); err != nil {
		return figures{}, err
	}
	prefix := filepath.Join(dir, "log")
	if err := r.pgbenchFor(ctx, s, url, n, length, "-f", script, "--log", "--log-prefix", prefix); err != nil {
		return figures{}, err
	}
	took, err := readLogs(prefix)
	if err != nil {
		return figures{}, err
	}
	return figuresOf(took, length)
}

var processed = regexp.MustCompile(`number of transactions actually processed: (\d+)`)

func (r reference) pgbenchFor(ctx context.Context, s *system, url string, n int, length time.Duration, args ...string) error {
	c, err := pgconn.ParseConfig(url)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, r.pgbench, append(args, "-n", "-M", "prepared", "-c", strconv.Itoa(n), "-j", strconv.Itoa(min(n, 2)),
		"-T", strconv.Itoa(int(length.Seconds())), "-h", c.Host, "-p", strconv.Itoa(int(c.Port)), "-U", c.User, c.Database)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	m := processed.FindSubmatch(stdout.Bytes())
	if m == nil {
		return fmt.Errorf("pgbench does not say how much it did: %s", bytes.TrimSpace(stdout.Bytes()))
	}
	done, err := strconv.ParseInt(string(m[1]), 10, 64)
	s.referenced += done
	return err
}

// readLogs reads the files of pgbench's threads. The third word of a line is how many
// microseconds a transaction took.
func readLogs(prefix string) ([]time.Duration, error) {
	paths, err := filepath.Glob(prefix + ".*")
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
			words := strings.Fields(lines.Text())
			if len(words) < 3 {
				return nil, fmt.Errorf("pgbench's log has the line %q", lines.Text())
			}
			us, err := strconv.ParseInt(words[2], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("pgbench's log has the line %q", lines.Text())
			}
			took = append(took, time.Duration(us)*time.Microsecond)
		}
	}
	return took, nil
}
