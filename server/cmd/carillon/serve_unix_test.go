//go:build unix

package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// certify writes a certificate for localhost that signs itself, and its key, into one file.
func certify(t *testing.T) (path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	b = append(b, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	path = filepath.Join(t.TempDir(), "server.pem")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// hangable starts a development server of its own process, and returns it with the lines that it logs.
func hangable(t *testing.T, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	return process(t, nil, append([]string{"--dev", "--data", t.TempDir()}, args...)...)
}

// process starts a server of its own process, with more in its environment, and returns it with the lines that it logs.
func process(t *testing.T, env []string, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"serve", "--public-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--tcp-listen", "127.0.0.1:0"}, args...)
	// Whoever started the tests with nohup does not hear of hangups, and neither would the server: a process does not inherit that a
	// signal is caught, but that it is ignored.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(hangups) })
	cmd := exec.Command(self, args...)
	cmd.Env = append(append(os.Environ(), beCarillon+"=1"), env...)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended already, where all is well
	return cmd, bufio.NewScanner(out)
}

// until reads the log up to a line that holds what is wanted.
func until(t *testing.T, log *bufio.Scanner, want string) {
	t.Helper()
	for log.Scan() {
		if strings.Contains(log.Text(), want) {
			return
		}
	}
	t.Fatalf("the log ended without %q: %v", want, log.Err())
}

func TestServe_HangupReadsTheCertificatesAgain(t *testing.T) {
	file := certify(t)
	cmd, log := hangable(t, "--tls-cert", file, "--tls-key", file)
	until(t, log, "msg=serving")
	for range 2 {
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		until(t, log, "the files are those in use") // which is said only where somebody asked
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for log.Scan() {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

// Nothing listens on port 1.
func TestServe_TermEndsAServerThatWaitsForRedis(t *testing.T) {
	cmd, log := process(t, []string{
		"CARILLON_SECRET=kB3xT0q9vWm2ZrY7uN5sLcP8dHfJgA1e", "CARILLON_NODE_SECRET=Zq7LwT2xK9vRb4NcYp1sHd6GfJ3mUeA8",
		"CARILLON_STORE_KIND=redis", "CARILLON_REDIS_ADDRESSES=127.0.0.1:1", "CARILLON_NODE_LISTEN=127.0.0.1:0",
	})
	until(t, log, "waiting for Redis")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for log.Scan() {
		if line := log.Text(); !strings.Contains(line, "waiting for Redis") && !strings.Contains(line, "msg=stopping") {
			t.Errorf("it logs %q", line)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

func TestServe_HangupEndsAServerWithoutCertificates(t *testing.T) {
	cmd, log := hangable(t)
	until(t, log, "msg=serving")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for log.Scan() {
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "hangup") {
		t.Errorf("the server ended with %v, want the signal", err)
	}
}
