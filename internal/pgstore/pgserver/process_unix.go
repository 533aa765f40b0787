//go:build unix && !linux

package pgserver

import "syscall"

type lastWish struct{}

var leaveClean, leaveNow lastWish

// dieWithParent does nothing: only Linux can end a process with its parent. Here an
// orphaned server keeps running after kill -9 of the program, and the next start
// names it.
func dieWithParent(*syscall.SysProcAttr, lastWish) {}

// clusterUser is the recorded server when it is alive. A process of another account
// is not ours: Postgres reasons in the same way.
func clusterUser(_ string, recorded int) int {
	if recorded > 0 && syscall.Kill(recorded, 0) == nil {
		return recorded
	}
	return 0
}
