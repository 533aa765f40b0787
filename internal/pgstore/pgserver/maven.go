package pgserver

import (
	"archive/zip"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"reflect"
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
	"github.com/ulikunitz/xz"
)

// publicRepository is where the jars lie by default: the address that the library of
// the same builds carries. It shows the address nowhere, hence the look inside; a
// test tells when a new version of it has none under this name.
func publicRepository() string {
	if field := reflect.ValueOf(embeddedpostgres.DefaultConfig()).FieldByName("binaryRepositoryURL"); field.IsValid() {
		return field.String()
	}
	return ""
}

// mavenRoute fetches the same build as a jar, for machines without npm. The jar is
// held against the checksum that the repository serves beside it. That proves a whole
// download, not an honest repository: unlike the npm package, whose hash is pinned
// here, it is trusted as far as TLS goes.
func mavenRoute(repository string) func(context.Context, build, string, string, func(string)) error {
	return func(ctx context.Context, b build, scratch, into string, say func(string)) error {
		artifact := "embedded-postgres-binaries-" + b.maven
		jar := fmt.Sprintf("%s/io/zonky/test/postgres/%s/%s/%s-%s.jar", repository, artifact, mavenVersion, artifact, mavenVersion)
		expected, err := checksumOf(ctx, jar)
		if err != nil {
			return err
		}
		file, sum := filepath.Join(scratch, "postgres.jar"), sha256.New()
		if err := download(ctx, jar, file, sum, say); err != nil {
			return err
		}
		if !strings.EqualFold(hex.EncodeToString(sum.Sum(nil)), expected) {
			return errors.New("the jar that came does not have the checksum that the repository gives")
		}
		return unpackJar(file, into)
	}
}

func checksumOf(ctx context.Context, jar string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stallLimit)
	defer cancel()
	body, _, err := get(ctx, jar+".sha256")
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, 1<<10))
	// Some repositories write the file's name behind the sum.
	sum, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	return sum, err
}

// unpackJar unpacks the one .txz that the jar holds.
func unpackJar(file, into string) error {
	jar, err := zip.OpenReader(file)
	if err != nil {
		return fmt.Errorf("the jar cannot be read: %w", err)
	}
	defer jar.Close()
	for _, entry := range jar.File {
		if path.Ext(entry.Name) != ".txz" {
			continue
		}
		packed, err := entry.Open()
		if err != nil {
			return err
		}
		defer packed.Close()
		unpacked, err := xz.NewReader(bufio.NewReaderSize(packed, 1<<20))
		if err != nil {
			return fmt.Errorf("the jar's archive cannot be read: %w", err)
		}
		return unpackTar(unpacked, "", into)
	}
	return errors.New("the jar holds no archive of binaries")
}
