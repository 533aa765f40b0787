package pgserver

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"sluice/internal/fault"
)

const (
	binEnv = "SLUICE_POSTGRES_BIN"
	// oldestMajor is the first with CREATE DATABASE … STRATEGY, and the oldest that we test.
	oldestMajor = 15
	// newestMajor bounds only the search in numbered folders; PATH may offer a newer one.
	newestMajor = 18
)

// binaries is a folder with the programs of one Postgres version.
type binaries struct {
	dir     string
	version string // such as "15.18"
	major   int
}

func (b binaries) path(program string) string { return filepath.Join(b.dir, program+exeSuffix) }

// findBinaries looks in the order: the caller's folder, the environment, pg_config
// and PATH, the folders of packages, and last the network. major is that of the
// cluster, which only binaries of the same major can run; 0 takes any.
func findBinaries(ctx context.Context, o Options, who account, major int, say func(string)) (binaries, error) {
	for _, explicit := range []struct{ dir, from string }{{o.BinDir, "the given folder"}, {os.Getenv(binEnv), binEnv}} {
		if explicit.dir == "" {
			continue
		}
		bin, err := inspect(ctx, explicit.dir, who)
		if err != nil {
			return binaries{}, fault.New(fault.Unavailable, codeNotFound,
				fmt.Sprintf("%s, %q, has no Postgres that can be used: %v", explicit.from, explicit.dir, err), installFix)
		}
		if major != 0 && bin.major != major {
			return binaries{}, wrongMajor(major, bin)
		}
		return bin, nil
	}

	var other binaries
	if !o.hideInstalled {
		for _, dir := range installedFolders(ctx) {
			bin, err := inspect(ctx, dir, who)
			if err != nil {
				continue
			}
			if major == 0 || bin.major == major {
				return bin, nil
			}
			other = bin
		}
	}
	if major == 0 || major == fetchedMajor {
		routes := o.routes
		if routes == nil {
			routes = publicRoutes()
		}
		return fetch(ctx, o.Cache, who, routes, say)
	}
	if other.dir == "" {
		return binaries{}, fault.New(fault.Unavailable, codeWrongMajor,
			fmt.Sprintf("the data was written by Postgres %d, which is not installed; only Postgres %d can be fetched", major, fetchedMajor),
			fmt.Sprintf("install Postgres %d or set %s to its folder of binaries, or choose another data folder", major, binEnv))
	}
	return binaries{}, wrongMajor(major, other)
}

func installedFolders(ctx context.Context) []string {
	var folders []string
	if answer, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		folders = append(folders, strings.TrimSpace(string(answer)))
	}
	if program, err := exec.LookPath("postgres"); err == nil {
		// Package managers put links into PATH; initdb lies beside the real file.
		if real, err := filepath.EvalSymlinks(program); err == nil {
			program = real
		}
		folders = append(folders, filepath.Dir(program))
	}
	return append(folders, systemFolders()...)
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) (\d+)(\S*)`)

// inspect runs the binaries as the account that will run the server, so that a
// folder which it cannot reach, or a build for another system, shows here.
func inspect(ctx context.Context, dir string, who account) (binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return binaries{}, err
	}
	bin := binaries{dir: dir}
	for _, program := range []string{"postgres", "initdb"} {
		if _, err := os.Stat(bin.path(program)); err != nil {
			return binaries{}, fmt.Errorf("there is no %s in it", program)
		}
	}
	if folder := who.blockedAt(dir); folder != "" {
		return binaries{}, fmt.Errorf("the account %q, which must run Postgres in place of root, cannot pass %s", who.name, folder)
	}
	cmd := exec.Command(bin.path("postgres"), "--version")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := runAs(ctx, cmd, who); err != nil {
		return binaries{}, fmt.Errorf("it does not run here: %w", err)
	}
	m := versionLine.FindStringSubmatch(output.String())
	if m == nil {
		return binaries{}, fmt.Errorf("it does not say its version")
	}
	bin.version = m[1] + m[2]
	if bin.major, err = strconv.Atoi(m[1]); err != nil {
		return binaries{}, err
	}
	if bin.major < oldestMajor {
		return binaries{}, fmt.Errorf("it is Postgres %s, and the oldest that will do is %d", bin.version, oldestMajor)
	}
	return bin, nil
}
