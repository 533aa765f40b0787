package pgserver

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

type lastWish = syscall.Signal

const (
	// leaveClean lets an orphaned server finish with a clean shutdown.
	leaveClean = syscall.SIGINT
	// leaveNow ends helpers such as initdb, which clean up behind themselves.
	leaveNow = syscall.SIGTERM
)

// dieWithParent has the kernel end the process when our thread ends, so that
// kill -9 of this program leaves no orphan.
func dieWithParent(attr *syscall.SysProcAttr, last lastWish) { attr.Pdeathsig = last }

// clusterUser is the id of a process that works in the cluster, 0 when there is
// none. Postgres and each of its children have the cluster as their working folder.
// That beats asking whether the recorded id is alive: after a reboot or in a new
// container the same small number belongs to somebody else, and after kill -9 of the
// server its children can outlive it for a moment.
func clusterUser(cluster string, recorded int) int {
	real, err := filepath.EvalSymlinks(cluster)
	if err != nil {
		return 0
	}
	if worksIn(recorded, real) {
		return recorded
	}
	processes, _ := os.ReadDir("/proc")
	for _, p := range processes {
		if pid, err := strconv.Atoi(p.Name()); err == nil && worksIn(pid, real) {
			return pid
		}
	}
	return 0
}

func worksIn(pid int, folder string) bool {
	here, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
	return err == nil && here == folder
}

// clearStalePID removes the file of a server that is known to be gone. Postgres
// would trust it, and refuse to start, when its id now belongs to another process of
// the same account.
func clearStalePID(pidFile string) error {
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return folderUnusable(filepath.Dir(pidFile), "still holds the postmaster.pid of a server that is gone", "remove that file by hand").Because(err)
	}
	return nil
}
