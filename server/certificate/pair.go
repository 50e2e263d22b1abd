package certificate

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// Pair names the two files of one certificate, in PEM. Cert holds the server's own certificate first, and then those between it
// and a root that clients know. Both may be the same file.
type Pair struct {
	Cert, Key string
}

// maxFile bounds a file; chains have a few KiB.
const maxFile = 1 << 20

// readFile returns what a file holds, and its permissions.
func readFile(path string) ([]byte, fs.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	return b, info.Mode().Perm(), err
}

// contents are the files of a pair as they were read.
type contents struct {
	cert, key []byte
	open      bool // everybody on the machine may read the key
	sum       [sha256.Size]byte
}

func (p Pair) read(read func(string) ([]byte, fs.FileMode, error)) (c contents, err error) {
	if c.cert, _, err = read(p.Cert); err != nil {
		return c, unreadable("certificate", p.Cert, err)
	}
	var mode fs.FileMode
	if c.key, mode, err = read(p.Key); err != nil {
		return c, unreadable("key", p.Key, err)
	}
	c.open = mode&0o004 != 0
	cert, key := sha256.Sum256(c.cert), sha256.Sum256(c.key)
	c.sum = sha256.Sum256(append(cert[:], key[:]...))
	return c, nil
}

func unreadable(what, path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the %s %s cannot be read: let the user that runs the server read it, and nobody else: %w", what, path, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the %s %s is not there: %w", what, path, err)
	}
	return fmt.Errorf("the %s %s cannot be read: %w", what, path, err)
}

// parse makes a certificate of the files, if it is one that clients could accept at this moment.
func (p Pair) parse(c contents, now time.Time) (*tls.Certificate, error) {
	if err := p.checkBlocks(c); err != nil {
		return nil, err
	}
	made, err := tls.X509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("the certificate %s and the key %s do not belong together, or the server's own certificate is not the "+
			"first in its file: %w", p.Cert, p.Key, err)
	}
	leaf := made.Leaf
	switch {
	case now.Before(leaf.NotBefore):
		return nil, fmt.Errorf("the certificate %s holds only from %s on; look at the machine's clock", p.Cert, moment(leaf.NotBefore))
	case now.After(leaf.NotAfter):
		return nil, fmt.Errorf("the certificate %s ran out on %s; renew it", p.Cert, moment(leaf.NotAfter))
	case len(leaf.DNSNames) == 0 && len(leaf.IPAddresses) == 0:
		return nil, fmt.Errorf("the certificate %s names no host that clients look at (subjectAltName); have it made with "+
			"the names that clients connect to", p.Cert)
	case !isForServers(leaf):
		return nil, fmt.Errorf("the certificate %s is not for servers (extended key usage serverAuth)", p.Cert)
	}
	return &made, nil
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func isForServers(leaf *x509.Certificate) bool {
	uses := leaf.ExtKeyUsage
	return len(uses) == 0 && len(leaf.UnknownExtKeyUsage) == 0 ||
		slices.Contains(uses, x509.ExtKeyUsageServerAuth) || slices.Contains(uses, x509.ExtKeyUsageAny)
}

// checkBlocks says what the usual mix-ups are, where crypto/tls would say that it found nothing.
func (p Pair) checkBlocks(c contents) error {
	certs, keys, _ := blocks(c.cert)
	if certs == 0 {
		if keys > 0 {
			return fmt.Errorf("%s holds a key and no certificate; are the two files swapped?", p.Cert)
		}
		return fmt.Errorf("%s holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", p.Cert)
	}
	certs, keys, locked := blocks(c.key)
	switch {
	case locked:
		return fmt.Errorf("the key %s is encrypted; the server has nobody to ask for its password. Write it in the clear into a file "+
			"that only the server can read: openssl pkey -in %s -out FILE", p.Key, p.Key)
	case keys == 0 && certs > 0:
		return fmt.Errorf("%s holds a certificate and no key; are the two files swapped?", p.Key)
	case keys == 0:
		return fmt.Errorf("%s holds no private key in PEM (-----BEGIN PRIVATE KEY-----)", p.Key)
	}
	return nil
}

// blocks counts what a file holds, and says whether a key in it is encrypted.
func blocks(b []byte) (certs, keys int, locked bool) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "CERTIFICATE":
			certs++
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			keys++
			locked = locked || block.Type == "ENCRYPTED PRIVATE KEY" || bytes.Contains([]byte(block.Headers["Proc-Type"]), []byte("ENCRYPTED"))
		}
	}
	return certs, keys, locked
}
