//go:build unix

package pgserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sluice/internal/fault"
)

// stateFolder holds the clusters whose data folder the server account cannot reach.
const stateFolder = "/var/lib/sluice/pgserver"

const (
	exeSuffix = ""
	// noFollow keeps root from writing through a symbolic link that the folder's owner made.
	noFollow = syscall.O_NOFOLLOW
)

// account is who runs the server. Postgres refuses to run as root.
type account struct {
	name     string
	uid, gid uint32
	drop     bool // we are root and must become this account
}

// chooseAccount picks who runs the server: ourselves, or when we are root the owner
// of the data, else the system's account for Postgres, else nobody. The owner comes
// first so that root and a person can use one folder in turn.
func chooseAccount(dir string) (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}, nil
	}
	var candidates []*user.User
	for _, path := range []string{filepath.Join(dir, "pg"), dir} {
		if info, err := os.Stat(path); err == nil {
			// An owner without a name (a container's bind mount) is no use: initdb looks its user up.
			if u, err := user.LookupId(strconv.FormatUint(uint64(info.Sys().(*syscall.Stat_t).Uid), 10)); err == nil {
				candidates = append(candidates, u)
			}
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			candidates = append(candidates, u)
		}
	}
	for _, u := range candidates {
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if err == nil && gidErr == nil && uid != 0 {
			return account{name: u.Username, uid: uint32(uid), gid: uint32(gid), drop: true}, nil
		}
	}
	return account{}, fault.New(fault.Unavailable, codeFailed,
		"Postgres refuses to run as root and this system has neither an account postgres nor nobody",
		"run the program as an ordinary user")
}

// own gives a file to the account. Lchown: the last element may be a symbolic link
// made by the account itself, and root must not follow it.
func (a account) own(path string) error {
	if !a.drop {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

func (a account) owns(info fs.FileInfo) bool {
	return info.Sys().(*syscall.Stat_t).Uid == a.uid
}

// blockedAt names the first folder on the way to path, path included, that the
// account may not pass; "" when the way is free.
func (a account) blockedAt(path string) string {
	if !a.drop {
		return ""
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	for i := range len(path) {
		if path[i] != '/' && i != len(path)-1 {
			continue
		}
		folder := path[:i+1]
		info, err := os.Stat(folder)
		if err != nil || !info.IsDir() {
			return ""
		}
		stat, bit := info.Sys().(*syscall.Stat_t), fs.FileMode(0o001)
		switch {
		case stat.Uid == a.uid:
			bit = 0o100
		case stat.Gid == a.gid:
			bit = 0o010
		}
		if info.Mode()&bit == 0 {
			return filepath.Clean(folder)
		}
	}
	return ""
}

// become makes cmd run as the account, outside our process group: Ctrl-C in a
// terminal must reach the program, which then stops Postgres last, and not Postgres.
func (a account) become(cmd *exec.Cmd, last lastWish) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.drop {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	dieWithParent(cmd.SysProcAttr, last)
}

// shortFolder is where a socket folder fits when the data folder's path is too long.
func shortFolder(a account) string {
	if folder := os.TempDir(); len(folder) < 40 && !strings.ContainsAny(folder, `,"`) && a.blockedAt(folder) == "" {
		return folder
	}
	return "/tmp"
}

func lockFile(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

type shutdown syscall.Signal

const (
	fastShutdown      = shutdown(syscall.SIGINT)
	immediateShutdown = shutdown(syscall.SIGQUIT)
)

func (s *Server) signal(how shutdown) {
	s.process.Signal(syscall.Signal(how)) // an error means that it has gone already
}

func howToEnd(pid int) string { return fmt.Sprintf("kill -INT %d", pid) }

func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// systemFolders are the places where packages put their binaries, best first.
func systemFolders() []string {
	var folders []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/%d/bin",                       // Debian, Ubuntu
		"/usr/pgsql-%d/bin",                                // Red Hat
		"/opt/homebrew/opt/postgresql@%d/bin",              // Homebrew on Apple silicon
		"/usr/local/opt/postgresql@%d/bin",                 // Homebrew on Intel
		"/home/linuxbrew/.linuxbrew/opt/postgresql@%d/bin", // Homebrew on Linux
		"/Applications/Postgres.app/Contents/Versions/%d/bin",
	} {
		for major := newestMajor; major >= oldestMajor; major-- {
			folders = append(folders, fmt.Sprintf(pattern, major))
		}
	}
	return folders
}

// defaultCache must be readable by the server account, and root's own cache folder
// most often is not.
func defaultCache() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/sluice", nil
	}
	folder, err := os.UserCacheDir()
	return filepath.Join(folder, "sluice"), err
}
