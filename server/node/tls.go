package node

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"carillon/server/push"
)

// TLS is how nodes know each other: both sides of a connection show a certificate.
type TLS struct{ server, client *tls.Config }

// MinSecret is the fewest bytes of a cluster's secret.
const MinSecret = 32

// name is what every node's certificate is for: nodes know each other by their authority, whatever their address.
const name = "node.carillon.internal"

// FromSecret derives the authority of a cluster from its secret, and lets it certify this node for the length of its life. Whoever has
// the secret is a node; nobody else gets past the handshake, and nobody who listens learns anything. KindInvalid, code "weak_secret".
func FromSecret(secret []byte) (TLS, error) {
	if len(secret) < MinSecret {
		return TLS{}, push.Errorf(push.KindInvalid, "weak_secret", "the cluster's secret has at least %d bytes", MinSecret)
	}
	seed, err := hkdf.Key(sha256.New, secret, nil, "carillon cluster authority 1", ed25519.SeedSize)
	if err != nil {
		return TLS{}, fmt.Errorf("node: secret: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	// The same on every node: an Ed25519 signature has no randomness. No clock is asked, since those of nodes may be apart.
	from, until := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "carillon cluster"}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, key.Public(), key)
	if err != nil {
		return TLS{}, fmt.Errorf("node: authority: %w", err)
	}
	if authority, err = x509.ParseCertificate(der); err != nil {
		return TLS{}, fmt.Errorf("node: authority: %w", err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return TLS{}, fmt.Errorf("node: key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return TLS{}, fmt.Errorf("node: serial: %w", err)
	}
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "carillon node"}, DNSNames: []string{name}, NotBefore: from, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, authority, public, key)
	if err != nil {
		return TLS{}, fmt.Errorf("node: certificate: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	own := tls.Certificate{Certificate: [][]byte{leaf}, PrivateKey: private}
	return TLS{
		server: &tls.Config{
			MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, NextProtos: []string{"h2"},
			Certificates: []tls.Certificate{own}, SessionTicketsDisabled: true,
		},
		client: &tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: name, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{own},
		},
	}, nil
}
