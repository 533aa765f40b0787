package pgserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/windows"
)

const (
	stateFolder = ""
	exeSuffix   = ".exe"
	noFollow    = 0
)

// account is who runs the server: on Windows always ourselves. Postgres refuses an
// administrator and says so.
type account struct {
	name string
	drop bool
}

func chooseAccount(string) (account, error) { return account{}, nil }
func (account) own(string) error            { return nil }
func (account) owns(fs.FileInfo) bool       { return true }
func (account) blockedAt(string) string     { return "" }
func shortFolder(account) string            { return os.TempDir() }
func howToEnd(pid int) string               { return fmt.Sprintf("taskkill /PID %d", pid) }
func isDiskFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, syscall.ENOSPC)
}

type lastWish struct{}

var leaveClean, leaveNow lastWish

// become keeps Ctrl-C from reaching Postgres before the program has finished with it.
func (account) become(cmd *exec.Cmd, _ lastWish) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
}

// lockFile locks one byte far behind the content: a Windows lock keeps others from
// reading what it covers, and they read the holder's id.
func lockFile(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, &windows.Overlapped{Offset: 1 << 30})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

// clusterUser is the recorded server when it is alive.
func clusterUser(_ string, recorded int) int {
	process, err := windows.OpenProcess(windows.SYNCHRONIZE, false, uint32(recorded))
	if err != nil {
		return 0
	}
	defer windows.CloseHandle(process)
	if event, err := windows.WaitForSingleObject(process, 0); err != nil || event != uint32(windows.WAIT_TIMEOUT) {
		return 0
	}
	return recorded
}

type shutdown string

const (
	fastShutdown      = shutdown("INT")
	immediateShutdown = shutdown("QUIT")
)

// signal goes through pg_ctl, which knows the pipe by which Postgres takes signals here.
func (s *Server) signal(how shutdown) {
	exec.Command(s.bin.path("pg_ctl"), "kill", string(how), strconv.Itoa(s.process.Pid)).Run()
}

func systemFolders() []string {
	var folders []string
	for major := newestMajor; major >= oldestMajor; major-- {
		folders = append(folders, filepath.Join(os.Getenv("ProgramFiles"), "PostgreSQL", strconv.Itoa(major), "bin"))
	}
	return folders
}

func defaultCache() (string, error) {
	folder, err := os.UserCacheDir()
	return filepath.Join(folder, "sluice"), err
}
