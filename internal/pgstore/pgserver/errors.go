package pgserver

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"sluice/internal/fault"
)

// The codes of the errors that Start and Remove return.
const (
	codeNotFound   = "postgres_not_found"
	codeWrongMajor = "postgres_wrong_major"
	codeInUse      = "postgres_in_use"
	codeDiskFull   = "postgres_disk_full"
	codeBroken     = "postgres_data_broken"
	codeFolder     = "postgres_folder_unusable"
	codeFailed     = "postgres_failed"
)

const installFix = "install Postgres 15 or newer, or set " + binEnv + " to the folder of its binaries"

func folderUnusable(dir, why, fix string) *fault.Error {
	return fault.New(fault.Unavailable, codeFolder, fmt.Sprintf("the folder %q %s", dir, why), fix)
}

func inUse(dir string, pid int) *fault.Error {
	if pid == 0 {
		return fault.New(fault.Conflict, codeInUse, fmt.Sprintf("another process is using the data folder %q", dir),
			"stop that process or choose another data folder")
	}
	return fault.New(fault.Conflict, codeInUse, fmt.Sprintf("process %d is using the data folder %q", pid, dir),
		fmt.Sprintf("end it (%s) or choose another data folder", howToEnd(pid)))
}

func broken(p place, why string) *fault.Error {
	return fault.New(fault.Unavailable, codeBroken, fmt.Sprintf("the Postgres cluster in %q is broken: %s", p.cluster, why),
		"restore the folder from a backup, or delete it to begin with an empty database")
}

func diskFull(p place) *fault.Error {
	return fault.New(fault.Unavailable, codeDiskFull, fmt.Sprintf("the disk that holds %q is full", p.base),
		"make room (a new cluster takes about 50 MB) and start again; what was committed is safe")
}

func failed(p place, what string) *fault.Error {
	return fault.New(fault.Unavailable, codeFailed, "Postgres "+what,
		fmt.Sprintf("read %s", logName(p)))
}

func writeFailed(p place, err error) *fault.Error {
	if isDiskFull(err) {
		return diskFull(p).Because(err)
	}
	return folderUnusable(p.base, "cannot be written", "choose another data folder or give yourself the right to write there").Because(err)
}

func wrongMajor(cluster int, bin binaries) *fault.Error {
	return fault.New(fault.Conflict, codeWrongMajor,
		fmt.Sprintf("the data was written by Postgres %d and the binaries in %q are Postgres %d, which cannot read it", cluster, bin.dir, bin.major),
		fmt.Sprintf("install Postgres %d or set %s to its folder of binaries, or choose another data folder", cluster, binEnv))
}

var (
	noise     = regexp.MustCompile(`^.*?(PANIC|FATAL|ERROR|error): +`)
	oldServer = regexp.MustCompile(`lock file "postmaster\.pid" already exists|pre-existing shared memory block`)
	namedPID  = regexp.MustCompile(`\(PID (\d+)\)`)
	// polling is what the server answers ready while it starts; it is no complaint.
	polling    = regexp.MustCompile(`the database system is (starting up|shutting down|not yet accepting connections)`)
	brokenData = regexp.MustCompile(strings.Join([]string{
		`is not a valid data directory`,
		`data directory ".*" has (invalid permissions|wrong ownership)`,
		`could not (open|read|find|access|stat) (file|directory)`,
		`could not find the database system`,
		`could not access (the server configuration file|directory)`,
		`could not locate (a valid|required) checkpoint`,
		`invalid (primary )?checkpoint`,
		`incorrect checksum`,
		`required WAL directory`,
		`database files are incompatible`,
		`configuration file ".*" contains errors`,
		`could not load .*pg_hba`,
	}, "|"))
)

// diagnose turns the words of Postgres into one sentence with a way out.
func diagnose(p place, words string) *fault.Error {
	last := lastWord(words)
	switch {
	case saysDiskFull(last):
		return diskFull(p)
	case oldServer.MatchString(last):
		pid := 0
		if m := namedPID.FindStringSubmatch(words); m != nil {
			pid, _ = strconv.Atoi(m[1])
		}
		return inUse(p.dir, pid)
	case brokenData.MatchString(last):
		return broken(p, last)
	case last == "":
		return failed(p, "ended by itself without a word")
	}
	return failed(p, "ended by itself; its last words were: "+last)
}

// saysDiskFull leaves out the shared memory of a container, which can be full while
// every disk has room.
func saysDiskFull(words string) bool {
	return strings.Contains(words, "Disk quota exceeded") ||
		strings.Contains(words, "No space left on device") && !strings.Contains(words, "shared memory segment")
}

// lastWord is the last complaint in a log, without time stamps; with no complaint
// the last line.
func lastWord(log string) string {
	var last, complaint string
	for line := range strings.Lines(log) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		last = line
		if m := noise.FindString(line); m != "" && !polling.MatchString(line) {
			complaint = line[len(m):]
		}
	}
	if complaint != "" {
		return complaint
	}
	// Before it has read its settings Postgres complains without a level.
	return strings.TrimPrefix(strings.TrimPrefix(last, "postgres: "), "but ")
}

// logFile is the server's log, with the place where this run began.
type logFile struct {
	file  *os.File
	begin int64
}

const (
	logLimit = 16 << 20 // bytes; then the log is put aside, and the one put aside before is dropped
	tailSize = 64 << 10 // bytes of the log that are searched for the last words
)

func logName(p place) string { return filepath.Join(p.dir, "postgres.log") }

func openLog(p place) (*logFile, error) {
	name := logName(p)
	if info, err := os.Stat(name); err == nil && info.Size() > logLimit {
		if err := os.Rename(name, name+".old"); err != nil {
			return nil, folderUnusable(name, "cannot be put aside", "remove the log by hand").Because(err)
		}
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND|noFollow, 0o600)
	if err != nil {
		return nil, writeFailed(p, err)
	}
	// Root and a person may use one folder in turn, and the person must not meet root's files.
	if err := p.who.own(name); err != nil {
		f.Close()
		return nil, writeFailed(p, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, folderUnusable(name, "cannot be read", "remove the log by hand").Because(err)
	}
	return &logFile{file: f, begin: info.Size()}, nil
}

// close returns the last words of this run.
func (l *logFile) close() string {
	defer l.file.Close()
	end, err := l.file.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	from := max(l.begin, end-tailSize)
	words := make([]byte, end-from)
	n, _ := l.file.ReadAt(words, from)
	return string(words[:n])
}
