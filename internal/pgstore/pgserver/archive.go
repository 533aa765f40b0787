package pgserver

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// unpackedLimit is in bytes and stops an archive that would fill the disk. The
// build takes about 100 MB.
const unpackedLimit = 1 << 30

// unpackTar writes the files and links of the archive that lie under prefix into a
// folder. Everything goes through os.Root, so no name and no link in the archive
// leads out of the folder. Modes are set outright, since the server's account must
// read what a caller with a narrow mask unpacks.
func unpackTar(archive io.Reader, prefix, into string) error {
	root, err := os.OpenRoot(into)
	if err != nil {
		return err
	}
	defer root.Close()
	left := int64(unpackedLimit)
	for entries := tar.NewReader(archive); ; {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the archive is damaged: %w", err)
		}
		full := path.Clean(entry.Name)
		name, inside := strings.CutPrefix(full, prefix)
		if !inside || name == "" || name == "." {
			continue
		}
		switch entry.Typeflag {
		case tar.TypeReg:
			if left -= entry.Size; left < 0 {
				return errors.New("the archive is far larger than Postgres")
			}
			err = writeEntry(root, name, entries, entry.FileInfo().Mode()&0o111 != 0)
		case tar.TypeSymlink:
			if err = makeFolders(root, path.Dir(name)); err == nil {
				err = root.Symlink(entry.Linkname, name)
			}
		}
		if err != nil {
			return fmt.Errorf("unpacking %s: %w", name, err)
		}
	}
}

func writeEntry(root *os.Root, name string, content io.Reader, executable bool) error {
	mode := os.FileMode(0o644)
	if executable {
		mode = 0o755
	}
	if err := makeFolders(root, path.Dir(name)); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Chmod(mode), f.Close())
}

func makeFolders(root *os.Root, name string) error {
	if name == "." {
		return nil
	}
	if info, err := root.Stat(name); err == nil && info.IsDir() {
		return nil
	}
	if err := makeFolders(root, path.Dir(name)); err != nil {
		return err
	}
	if err := root.Mkdir(name, 0o755); err != nil {
		return err
	}
	return root.Chmod(name, 0o755)
}
