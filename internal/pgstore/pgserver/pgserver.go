// Package pgserver runs a private Postgres for "sluice dev" and for tests, on a
// machine that needs nothing installed but Go. It takes installed binaries when it
// finds them and fetches a pinned build when it does not, runs them under an
// unprivileged account when the caller is root, and listens on a Unix socket only.
//
// Production does not use it: there Postgres is somebody's well-kept service.
package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice/internal/fault"
)

// Superuser is the role that owns the cluster.
const Superuser = "postgres"

const (
	// port only names the socket file. Nothing listens on TCP, so it cannot
	// collide with another server of the machine.
	port = "5432"
	// patience bounds the wait for another process to leave the data folder. A
	// fast shutdown writes a checkpoint first, which a slow disk can stretch.
	patience = 30 * time.Second
)

// Options says where the cluster lives and which binaries run it. Dir is required.
type Options struct {
	Dir      string            // data folder; created; holds the cluster, the lock, the log
	BinDir   string            // explicit folder of binaries; "" looks them up
	Cache    string            // where fetched binaries are kept; "" is a folder of the account's cache
	Progress func(string)      // one line at a time about long work; may be nil
	Settings map[string]string // further server settings; they win over those of this package

	hideInstalled bool // tests: look up nothing, so that binaries are fetched
}

// Server is a running Postgres. Its methods may be called from any goroutine.
type Server struct {
	place   place
	bin     binaries
	process *os.Process
	log     *logFile
	release func()

	reaped chan struct{} // closed when the process is gone and the folder is free again
	exited chan struct{} // closed when it went without being asked

	mu       sync.Mutex
	stopping bool
	err      error
}

// Start brings up the server whose data lives in o.Dir, making the cluster when
// there is none, and returns when a connection has succeeded. ctx bounds the start
// only, not the life of the server. The data survives restarts and kill -9 of the
// server or of the caller; the folder belongs to one caller at a time.
//
// Errors are *fault.Error with the codes postgres_not_found, postgres_too_old,
// postgres_wrong_major, postgres_in_use, postgres_disk_full, postgres_data_broken,
// postgres_folder_unusable and postgres_start_failed.
func Start(ctx context.Context, o Options) (*Server, error) {
	say := o.Progress
	if say == nil {
		say = func(string) {}
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil || o.Dir == "" {
		return nil, folderUnusable(o.Dir, "is not a usable path", "name a data folder").Because(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	release, err := claim(ctx, dir, say)
	if err != nil {
		return nil, err
	}
	s, err := start(ctx, dir, o, say)
	if err != nil {
		release()
		return nil, err
	}
	s.release = release
	s.watch()
	if err := s.ready(ctx); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		return nil, errors.Join(err, s.Stop(stop))
	}
	return s, nil
}

// start does everything of Start that happens under the folder's lock, up to the
// running process.
func start(ctx context.Context, dir string, o Options, say func(string)) (*Server, error) {
	who, err := chooseAccount(dir)
	if err != nil {
		return nil, err
	}
	where, err := settle(ctx, dir, who, say)
	if err != nil {
		return nil, err
	}
	major, err := where.major()
	if err != nil {
		return nil, err
	}
	bin, err := findBinaries(ctx, o, who, major, say)
	if err != nil {
		return nil, err
	}
	if major == 0 {
		if err := where.initialise(ctx, bin, o.Settings["fsync"] == "off"); err != nil {
			return nil, err
		}
	}
	log, err := openLog(filepath.Join(dir, "postgres.log"))
	if err != nil {
		return nil, err
	}
	s := &Server{place: where, bin: bin, log: log, reaped: make(chan struct{}), exited: make(chan struct{})}
	if err := where.makeSocketFolder(); err != nil {
		log.Close()
		return nil, err
	}
	s.process, err = where.launch(s.command(o.Settings), s.ended)
	if err != nil {
		where.removeSocketFolder()
		log.Close()
		return nil, diagnose(where, err.Error()).Because(err)
	}
	return s, nil
}

// command is the server's command line. Settings are given there and not in
// postgresql.conf: they hold for a cluster of any age, and root writes no file into
// a folder that an unprivileged account could have filled with symbolic links.
func (s *Server) command(extra map[string]string) *exec.Cmd {
	settings := map[string]string{
		"listen_addresses":           "",
		"port":                       port,
		"unix_socket_directories":    s.place.socket,
		"unix_socket_permissions":    "0700",
		"shared_buffers":             "128MB",
		"max_connections":            "200",
		"jit":                        "off", // compiling costs more than our short queries
		"timezone":                   "UTC",
		"log_timezone":               "UTC",
		"log_destination":            "stderr",
		"logging_collector":          "off",
		"log_line_prefix":            "%m [%p] ",
		"lc_messages":                "C", // diagnose reads these messages
		"dynamic_library_path":       "$libdir",
		"external_pid_file":          "",
		"restart_after_crash":        "on",
		"cluster_name":               "sluice",
		"log_min_messages":           "warning",
		"log_checkpoints":            "off",
		"max_wal_size":               "1GB",
		"wal_level":                  "replica",
		"data_sync_retry":            "off",
		"shared_preload_libraries":   "",
		"session_preload_libraries":  "",
		"local_preload_libraries":    "",
		"bonjour":                    "off",
		"ssl":                        "off",
		"archive_mode":               "off",
		"log_startup_progress_interval": "0",
	}
	for name, value := range extra {
		settings[name] = value
	}
	args := []string{"-D", s.place.cluster}
	for _, name := range sortedKeys(settings) {
		args = append(args, "-c", name+"="+settings[name])
	}
	cmd := exec.Command(s.bin.path("postgres"), args...)
	cmd.Stdout, cmd.Stderr = s.log.file, s.log.file
	return cmd
}
