package certificate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// made is a certificate as files hold it.
type made struct{ cert, key []byte }

var serial int64

// certify makes a certificate for those names that signs itself. change may be nil.
func certify(t testing.TB, change func(*x509.Certificate), names ...string) made {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return certifyKey(t, key, &key.PublicKey, change, names...)
}

func certifyRSA(t testing.TB, names ...string) made {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return certifyKey(t, key, &key.PublicKey, nil, names...)
}

func certifyKey(t testing.TB, key, public any, change func(*x509.Certificate), names ...string) made {
	t.Helper()
	serial++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, public, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return made{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}
}

// disk is files that a test changes.
type disk struct {
	mu    sync.Mutex
	files map[string]file
}

type file struct {
	b    []byte
	mode fs.FileMode
	err  error
}

func (d *disk) read(path string) ([]byte, fs.FileMode, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.files[path]
	if !ok {
		return nil, 0, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return f.b, f.mode, f.err
}

func (d *disk) put(path string, f file) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files == nil {
		d.files = make(map[string]file)
	}
	d.files[path] = f
}

// write puts a certificate into NAME.pem and NAME.key.
func (d *disk) write(name string, m made) Pair {
	d.put(name+".pem", file{b: m.cert, mode: 0o644})
	d.put(name+".key", file{b: m.key, mode: 0o600})
	return Pair{name + ".pem", name + ".key"}
}

// journal is what a store logged.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

// take returns what was logged since the last call.
func (j *journal) take() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer j.b.Reset()
	return j.b.String()
}

func open(t testing.TB, d *disk, pairs ...Pair) (*Store, *journal) {
	t.Helper()
	j := &journal{}
	s, err := Open(Config{Pairs: pairs, Log: slog.New(slog.NewTextHandler(j, nil)), read: d.read})
	if err != nil {
		t.Fatal(err)
	}
	return s, j
}

// line is a connection under TLS, both ends.
type line struct{ client, server *tls.Conn }

// connect makes one with what the client asks for.
func connect(t testing.TB, s *Store, ask *tls.Config, protocols ...string) (line, error) {
	t.Helper()
	near, far := net.Pipe()
	ask = ask.Clone()
	ask.InsecureSkipVerify = true // what is presented is what the tests look at
	l := line{tls.Client(near, ask), tls.Server(far, s.Config(protocols...))}
	t.Cleanup(func() { near.Close(); far.Close() })
	done := make(chan error, 1)
	go func() { done <- l.server.Handshake() }()
	err := l.client.Handshake()
	if other := <-done; err == nil {
		err = other
	}
	return l, err
}

// presented returns the certificate that a client sees.
func presented(t testing.TB, s *Store, ask *tls.Config) *x509.Certificate {
	t.Helper()
	l, err := connect(t, s, ask)
	if err != nil {
		t.Fatal(err)
	}
	return l.client.ConnectionState().PeerCertificates[0]
}

// echo sends a byte each way.
func (l line) echo(t testing.TB) {
	t.Helper()
	for _, way := range [][2]*tls.Conn{{l.client, l.server}, {l.server, l.client}} {
		sent := make(chan error, 1)
		go func() {
			_, err := way[0].Write([]byte{42})
			sent <- err
		}()
		b := make([]byte, 1)
		if _, err := way[1].Read(b); err != nil || b[0] != 42 {
			t.Fatalf("read %d, %v", b, err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
}
