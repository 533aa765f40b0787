package pgserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// place is where one server keeps its things.
type place struct {
	dir     string  // the caller's data folder
	base    string  // holds cluster and socket: dir itself, or a stand-in that the account can reach
	cluster string  // Postgres calls this the data directory
	socket  string  // folder of the socket
	who     account // runs the server
}

const (
	// socketPathLimit is the shortest of the platforms (104 bytes with the final
	// zero); Postgres refuses to start above its own.
	socketPathLimit = 103
	socketPrefix    = "sluice-pg-"
)

// settle finds the folders for a data folder, clears what an interrupted start left
// in them, and makes sure that no server is using the cluster.
//
// Root's data folder often lies where nobody else may pass (/root is 0700 by
// default), and Postgres refuses to run as root. The cluster then goes to a stand-in
// under the system's state folder, with a link "pg" in its place.
func settle(dir string, who account) (place, error) {
	in := func(base string) place {
		return place{dir: dir, base: base, cluster: filepath.Join(base, "pg"), socket: filepath.Join(base, "sock"), who: who}
	}
	where, link := in(dir), filepath.Join(dir, "pg")
	name := sha256.Sum256([]byte(dir))
	standIn := in(filepath.Join(stateFolder, hex.EncodeToString(name[:8])))

	target, _ := os.Readlink(link)
	_, err := os.Lstat(link)
	switch blocked := who.blockedAt(dir); {
	case target == standIn.cluster:
		where = standIn
	case blocked != "" && err != nil:
		if err := standIn.unused(); err != nil {
			return place{}, err
		}
		// The link went with the data folder, so what the stand-in holds was deleted by its owner.
		if err := errors.Join(os.RemoveAll(standIn.base), makePassable(standIn.base), os.Symlink(standIn.cluster, link)); err != nil {
			return place{}, folderUnusable(dir, fmt.Sprintf("is out of reach for the account %q that must run Postgres in place of root (%s lets nobody pass), and no stand-in could be made", who.name, blocked),
				"choose a data folder outside "+blocked).Because(err)
		}
		where = standIn
	case blocked != "":
		return place{}, folderUnusable(dir, fmt.Sprintf("is out of reach for the account %q that must run Postgres in place of root, because %s lets nobody pass", who.name, blocked),
			fmt.Sprintf("choose a data folder outside %s, or run chmod o+x %s", blocked, blocked))
	}
	if err := where.unused(); err != nil {
		return place{}, err
	}
	halves, _ := filepath.Glob(filepath.Join(where.base, "pg.new-*"))
	for _, half := range halves {
		os.RemoveAll(half)
	}
	return where, nil
}

// makePassable makes a folder through which every account may pass, whatever mask
// the caller runs under; folders that exist keep their mode.
func makePassable(folder string) error {
	if info, err := os.Stat(folder); err == nil && info.IsDir() {
		return nil
	}
	if err := makePassable(filepath.Dir(folder)); err != nil {
		return err
	}
	if err := os.Mkdir(folder, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(folder, 0o711)
}

// unused makes sure that no server runs on the cluster, and clears the files by
// which a killed one still claims it.
func (p place) unused() error {
	pidFile := filepath.Join(p.cluster, "postmaster.pid")
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return nil // stopped cleanly, or unreadable: then Postgres says why
	}
	lines := strings.Split(string(text), "\n")
	pid, _ := strconv.Atoi(strings.TrimSpace(lines[0]))
	if user := clusterUser(p.cluster, pid); user != 0 {
		return inUse(p.dir, user)
	}
	if len(lines) > 4 {
		removeShortSocketFolder(strings.TrimSpace(lines[4]))
	}
	os.RemoveAll(p.socket)
	return clearStalePID(pidFile)
}

// adopt gives an existing cluster to the account that will run it: Postgres refuses
// files of another owner, and root may have copied them here.
func (p place) adopt() error {
	if !p.who.drop {
		return nil
	}
	if info, err := os.Lstat(p.cluster); err != nil || p.who.owns(info) {
		return nil
	}
	err := filepath.WalkDir(p.cluster, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return p.who.own(path)
	})
	if err != nil {
		return folderUnusable(p.dir, fmt.Sprintf("could not be given to the account %q", p.who.name),
			"give the cluster to that account by hand").Because(err)
	}
	return nil
}

// major is the major version of the cluster, 0 when there is none yet.
func (p place) major() (int, error) {
	text, err := os.ReadFile(filepath.Join(p.cluster, "PG_VERSION"))
	if err == nil {
		major, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || major <= 0 {
			return 0, broken(p, "its PG_VERSION file is not a version")
		}
		return major, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return 0, broken(p, "its PG_VERSION file cannot be read").Because(err)
	}
	entries, err := os.ReadDir(p.cluster)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(entries) == 0:
		return 0, nil
	case err != nil:
		return 0, broken(p, "it is not a folder that this account can read").Because(err)
	}
	return 0, broken(p, "it has files but no PG_VERSION, so it is not a Postgres cluster")
}

// initialise makes the cluster. It appears under its name only when it is whole: a
// killed initdb must not look like broken data to the next start.
func (p place) initialise(ctx context.Context, bin binaries, log *logFile, noSync bool) error {
	half, err := os.MkdirTemp(p.base, "pg.new-")
	if err != nil {
		return writeFailed(p, err)
	}
	defer os.RemoveAll(half)
	if err := p.who.own(half); err != nil {
		return writeFailed(p, err)
	}
	// The folder of the socket is 0700: only root and the server's own account pass,
	// and both could as well read the data files. A password would have to lie in a
	// file beside them and would keep out nobody, so "trust" is right inside it.
	args := []string{"-D", half, "-U", Superuser, "--encoding=UTF8", "--locale=C",
		"--auth-local=trust", "--auth-host=reject"}
	if noSync {
		args = append(args, "--no-sync")
	}
	cmd := exec.Command(bin.path("initdb"), args...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := runAs(ctx, cmd, p.who); err != nil {
		words := output.String()
		fmt.Fprint(log.file, words)
		switch {
		case ctx.Err() != nil:
			return failed(p, "was not set up before its caller gave up").Because(err)
		case saysDiskFull(words):
			return diskFull(p).Because(err)
		}
		return failed(p, "could not set up a new cluster: "+lastWord(words)).Because(err)
	}
	os.Remove(p.cluster) // an empty folder may stand there; it would stop the rename on some systems
	if err := os.Rename(half, p.cluster); err != nil {
		return writeFailed(p, err)
	}
	return nil
}

// makeSocketFolder makes the folder that keeps everybody else out (see initialise).
func (p *place) makeSocketFolder() error {
	var err error
	// Both Postgres and pgx read a comma as the border between two folders.
	if len(filepath.Join(p.socket, ".s.PGSQL."+port)) > socketPathLimit || strings.ContainsAny(p.socket, `,"`) {
		p.socket, err = os.MkdirTemp(shortFolder(p.who), socketPrefix)
	} else {
		os.RemoveAll(p.socket)
		err = os.Mkdir(p.socket, 0o700)
	}
	if err == nil {
		err = p.who.own(p.socket)
	}
	if err != nil {
		return writeFailed(*p, err)
	}
	return nil
}

func (p place) removeSocketFolder() {
	if filepath.Dir(p.socket) == p.base {
		os.RemoveAll(p.socket)
		return
	}
	removeShortSocketFolder(p.socket)
}

// removeShortSocketFolder clears the socket folder of a server that was killed. Its
// name was read from a file of an unprivileged account, so nothing is removed but
// the two files that Postgres makes and then the empty folder.
func removeShortSocketFolder(folder string) {
	if !strings.HasPrefix(filepath.Base(folder), socketPrefix) {
		return
	}
	os.Remove(filepath.Join(folder, ".s.PGSQL."+port))
	os.Remove(filepath.Join(folder, ".s.PGSQL."+port+".lock"))
	os.Remove(folder)
}
