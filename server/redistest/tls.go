package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// certificates is what the nodes of one deployment show, signed by themselves. A nil one stands for a deployment without TLS.
type certificates struct {
	host          string
	certFile, key string // paths
	pool          *x509.CertPool
}

func newCertificates(dir, host string) (*certificates, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("redistest: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redistest"}, IPAddresses: []net.IP{net.ParseIP(host)},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, // nodes are clients of each other
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("redistest: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("redistest: %w", err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	c := &certificates{
		host: host, certFile: filepath.Join(dir, "redis.crt"), key: filepath.Join(dir, "redis.key"), pool: x509.NewCertPool(),
	}
	c.pool.AppendCertsFromPEM(certPEM)
	if err := errors.Join(os.WriteFile(c.certFile, certPEM, 0o600), os.WriteFile(c.key, keyPEM, 0o600)); err != nil {
		return nil, fmt.Errorf("redistest: %w", err)
	}
	return c, nil
}

// client returns what a client trusts; nil without TLS.
func (c *certificates) client() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{RootCAs: c.pool, ServerName: c.host, MinVersion: tls.VersionTLS12}
}

// lines returns the settings by which a node listens.
func (c *certificates) lines(p port) []string {
	if c == nil {
		return []string{"port " + p.String()}
	}
	return []string{
		"port 0", "tls-port " + p.String(),
		"tls-cert-file " + strconv.Quote(c.certFile), "tls-key-file " + strconv.Quote(c.key),
		"tls-ca-cert-file " + strconv.Quote(c.certFile),
		"tls-auth-clients optional", "tls-replication yes", "tls-cluster yes",
	}
}
