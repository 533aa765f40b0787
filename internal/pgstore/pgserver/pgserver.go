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
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sluice/internal/fault"
)

// Superuser is the role that owns the cluster.
const Superuser = "postgres"

const (
	// port only names the socket file. Nothing listens on TCP, so it cannot
	// collide with another server on the machine.
	port = "5432"
	// patience bounds the wait for another process to leave the data folder. A
	// server that lost its parent writes a checkpoint before it goes.
	patience = 15 * time.Second
)

// Options says where the cluster lives and which binaries run it. Dir is required.
type Options struct {
	Dir      string            // data folder; created; holds the cluster, the lock and the log
	BinDir   string            // explicit folder of binaries; "" looks them up
	Cache    string            // where fetched binaries are kept; "" is the account's cache folder
	Progress func(string)      // one line at a time about long work; may be nil
	Settings map[string]string // more server settings; they win over those made here

	hideInstalled bool    // tests: act as on a machine without Postgres
	routes        []route // tests: in place of the public ones
}

// Server is a running Postgres. Its methods may be called from any goroutine.
type Server struct {
	place   place
	bin     binaries
	process *os.Process
	release func()

	reaped chan struct{} // closed when the process is gone and the folder is free again
	exited chan struct{} // closed before reaped, when nobody asked the process to go

	mu       sync.Mutex
	stopping bool
	err      error
}

// Start brings up the server whose data lives in o.Dir, making the cluster when
// there is none, and returns once a connection has succeeded. ctx bounds the start
// only, not the life of the server. The data survives restarts and kill -9 of the
// server or of the caller. A folder belongs to one caller at a time.
//
// Errors are *fault.Error with the codes postgres_not_found, postgres_wrong_major,
// postgres_in_use, postgres_disk_full, postgres_data_broken, postgres_folder_unusable
// and postgres_failed.
func Start(ctx context.Context, o Options) (*Server, error) {
	dir, err := absolute(o.Dir)
	if err != nil {
		return nil, err
	}
	say := o.Progress
	if say == nil {
		say = func(string) {}
	}
	var s *Server
	err = whenFree(ctx, say, func() (err error) {
		s, err = start(ctx, dir, o, say)
		return err
	})
	return s, err
}

// Remove deletes the data folder with everything in it, the cluster included when
// Start had to place that elsewhere. A folder in use is left alone, with the error
// postgres_in_use, after a bounded wait for its user to go.
func Remove(ctx context.Context, dir string) error {
	dir, err := absolute(dir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return whenFree(ctx, func(string) {}, func() error {
		release, err := claim(dir)
		if err != nil {
			return err
		}
		defer release()
		where, err := settle(dir, account{})
		if err != nil {
			return err
		}
		if where.base != dir {
			err = os.RemoveAll(where.base)
		}
		if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
			return folderUnusable(dir, "could not be removed", "remove it by hand").Because(err)
		}
		return nil
	})
}

// whenFree repeats do while another process is in the data folder. Such a process
// is most often the server of a killed parent, on its way out.
func whenFree(ctx context.Context, say func(string), do func() error) error {
	giveUp := time.NewTimer(patience)
	defer giveUp.Stop()
	for said := false; ; said = true {
		err := do()
		if !fault.Is(err, codeInUse) {
			return err
		}
		if reason, _ := fault.As(err); !said {
			say("waiting: " + reason.Detail)
		}
		select {
		case <-ctx.Done():
			return err
		case <-giveUp.C:
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func start(ctx context.Context, dir string, o Options, say func(string)) (_ *Server, err error) {
	release, err := claim(dir)
	if err != nil {
		return nil, err
	}
	// From the moment the process runs, its reaper gives the folder back.
	running := false
	defer func() {
		if !running {
			release()
		}
	}()

	who, err := chooseAccount(dir)
	if err != nil {
		return nil, err
	}
	where, err := settle(dir, who)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(who.own(filepath.Join(dir, "lock")), where.adopt()); err != nil {
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
	log, err := openLog(where)
	if err != nil {
		return nil, err
	}
	if major == 0 {
		err = where.initialise(ctx, bin, log, o.Settings["fsync"] == "off")
	}
	if err == nil {
		err = where.makeSocketFolder()
	}
	if err != nil {
		log.close()
		return nil, err
	}
	s := &Server{place: where, bin: bin, release: release,
		reaped: make(chan struct{}), exited: make(chan struct{})}
	cmd := s.command(o.Settings)
	cmd.Stdout, cmd.Stderr = log.file, log.file
	exit, err := spawn(cmd, who, leaveClean)
	if err != nil {
		log.close()
		where.removeSocketFolder()
		return nil, failed(where, "cannot be run: "+err.Error()).Because(err)
	}
	running = true
	s.process = cmd.Process
	go s.reap(exit, log)
	if err := s.ready(ctx); err != nil {
		// The caller's context may be over; the process must still not be left behind.
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if stopErr := s.Stop(stop); stopErr != nil {
			return nil, errors.Join(err, stopErr)
		}
		return nil, err
	}
	return s, nil
}

// command is the server's command line. Settings go there and not into
// postgresql.conf: they hold for a cluster of any age, and root writes no file into
// a folder where an unprivileged account could have put a symbolic link.
func (s *Server) command(extra map[string]string) *exec.Cmd {
	settings := map[string]string{
		"listen_addresses":        "",
		"port":                    port,
		"unix_socket_directories": s.place.socket, // builds differ: /tmp, /var/run/postgresql
		"shared_buffers":          "128MB",
		"max_connections":         "200",
		"jit":                     "off", // compiling a plan costs more than our short queries
		"timezone":                "UTC",
		"log_timezone":            "UTC",
		"log_destination":         "stderr",
		"logging_collector":       "off",
		"log_line_prefix":         "%m [%p] ",
		"lc_messages":             "C", // diagnose reads the messages
	}
	maps.Copy(settings, extra)
	args := []string{"-D", s.place.cluster}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return exec.Command(s.bin.path("postgres"), args...)
}

// reap waits for the process and gives the folder back.
func (s *Server) reap(exit <-chan error, log *logFile) {
	exitErr := <-exit
	words := log.close()
	s.place.removeSocketFolder()
	s.mu.Lock()
	if !s.stopping {
		s.err = diagnose(s.place, words).Because(exitErr)
		if exit, ok := errors.AsType[*exec.ExitError](exitErr); ok && exit.ExitCode() == -1 {
			s.err = failed(s.place, "was ended from outside ("+exitErr.Error()+")").Because(exitErr)
		}
		close(s.exited)
	}
	s.mu.Unlock()
	s.release()
	close(s.reaped)
}

// ready returns when a connection has succeeded.
func (s *Server) ready(ctx context.Context) error {
	config, err := pgx.ParseConfig(s.URL(Superuser, "postgres"))
	if err != nil {
		return failed(s.place, "cannot be reached over its socket").Because(err)
	}
	for {
		conn, err := pgx.ConnectConfig(ctx, config)
		if err == nil {
			return conn.Close(ctx)
		}
		// 57P03 is the server saying that it is still starting. Any other answer
		// will not change, however long we ask.
		if answer, ok := errors.AsType[*pgconn.PgError](err); ok && answer.Code != "57P03" {
			// A cluster that this package made has the role and the database (28000, 3D000).
			if answer.Code == "28000" || answer.Code == "3D000" || brokenData.MatchString(answer.Message) {
				return broken(s.place, answer.Message).Because(err)
			}
			return failed(s.place, "refuses the connection: "+answer.Message).Because(err)
		}
		select {
		case <-s.reaped:
			return s.Err()
		case <-ctx.Done():
			return failed(s.place, "did not take connections before its caller gave up").Because(ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// URL is the connection string of a database for a role, over the Unix socket. It
// holds no secret: the folder of the socket is what keeps others out.
func (s *Server) URL(user, database string) string {
	// Everything that the environment could set otherwise (PGPORT, PGSSLMODE) is said.
	query := url.Values{"host": {s.place.socket}, "port": {port}, "sslmode": {"disable"}}
	u := url.URL{Scheme: "postgres", User: url.User(user), Host: "", Path: "/" + database, RawQuery: query.Encode()}
	return u.String()
}

// Stop ends the server by a fast shutdown: connections are cut, open transactions
// roll back, the data is left clean. It returns when the process is gone, and may
// be called again. When ctx ends first the server is ended at once, which loses
// nothing that was committed but makes the next start replay its log.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	first := !s.stopping
	s.stopping = true
	s.mu.Unlock()
	if first {
		s.signal(fastShutdown)
	}
	select {
	case <-s.reaped:
		return nil
	case <-ctx.Done():
	}
	s.signal(immediateShutdown)
	<-s.reaped // the server itself kills a child that does not leave within five seconds
	return failed(s.place, "did not shut down in time and was ended at once; the next start recovers it").Because(ctx.Err())
}

// BinDir is the folder of the binaries that run the server.
func (s *Server) BinDir() string { return s.bin.dir }

// Version is that of the binaries, such as "15.18".
func (s *Server) Version() string { return s.bin.version }

// Exited is closed when the server process ends without Stop. Err then says why.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Err says why the server ended by itself; nil while it runs and after Stop.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func absolute(dir string) (string, error) {
	if dir == "" {
		return "", folderUnusable(dir, "has no name", "name a data folder")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", folderUnusable(dir, "has no absolute path", "name the data folder by its full path").Because(err)
	}
	return abs, nil
}

// claim takes the lock of the data folder, which the kernel gives back when this
// process dies, however it dies.
func claim(dir string) (release func(), err error) {
	// 0711: a server account that is not ours must pass through, and need not look around.
	lock, holder, err := tryLock(dir, 0o711)
	if err != nil {
		return nil, folderUnusable(dir, "cannot be written", "choose another data folder or make room and give yourself the right to write there").Because(err)
	}
	if lock == nil {
		return nil, inUse(dir, holder)
	}
	return func() { lock.Close() }, nil
}

// tryLock makes the folder and locks the file "lock" in it. A nil file means that
// another process holds the lock; holder is its id, or 0.
func tryLock(dir string, mode os.FileMode) (lock *os.File, holder int, err error) {
	for {
		if err := os.MkdirAll(dir, mode); err != nil {
			return nil, 0, err
		}
		name := filepath.Join(dir, "lock")
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
		if errors.Is(err, os.ErrNotExist) {
			continue // removed between the two lines above
		}
		if err != nil {
			return nil, 0, err
		}
		held, err := lockFile(f)
		if err != nil || !held {
			if _, err := fmt.Fscan(f, &holder); err != nil {
				holder = 0 // it has not written its id yet
			}
			f.Close()
			return nil, holder, err
		}
		// Whoever held the lock before may have removed the folder. Then this is the
		// lock of a file that nobody else can find, which guards nothing.
		here, err := os.Stat(name)
		mine, mineErr := f.Stat()
		if err != nil || mineErr != nil || !os.SameFile(here, mine) {
			f.Close()
			continue
		}
		if err = f.Truncate(0); err == nil {
			_, err = fmt.Fprintln(f, os.Getpid())
		}
		if err != nil {
			f.Close()
			return nil, 0, err
		}
		return f, 0, nil
	}
}
