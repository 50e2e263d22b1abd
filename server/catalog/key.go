package catalog

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"carillon/server/push"
)

// Algorithm is how a device token is signed. It belongs to the key and is never taken from a token.
type Algorithm string

// The algorithms.
const (
	HS256 Algorithm = "HS256" // HMAC with SHA-256 over a shared secret
	RS256 Algorithm = "RS256" // RSA PKCS #1 v1.5 with SHA-256
	ES256 Algorithm = "ES256" // ECDSA on P-256 with SHA-256
	EdDSA Algorithm = "EdDSA" // Ed25519
)

// Limits of keys.
const (
	MinSecret  = 32   // bytes of an HS256 secret
	MaxSecret  = 1024 // the same
	MinRSABits = 2048
	MaxRSABits = 8192 // a larger one would make each connect a burden
	MaxKeyID   = 64
)

// KeyID names a device key within its product; a token carries it as kid. 1 to 64 of letters, digits, '-', '_' and '.'.
type KeyID string

// Check reports what is wrong with the id, nil if nothing is.
func (id KeyID) Check() error {
	if id == "" || len(id) > MaxKeyID {
		return fmt.Errorf("a key id has 1 to %d characters", MaxKeyID)
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && c != '-' && c != '_' && c != '.' {
			return fmt.Errorf("a key id holds letters, digits, '-', '_' and '.'")
		}
	}
	return nil
}

// DeviceKey verifies the tokens of a product's devices.
type DeviceKey struct {
	Product  push.ProductID
	ID       KeyID
	Alg      Algorithm
	Material Material
	Name     string // for people; may be empty
	Created  push.MilliTime
	Revoked  push.MilliTime // 0 if it was not
}

// Material is the secret of an HS256 key, or the public key of another as PKIX DER. Whatever prints it shows no byte.
type Material []byte

const hidden = "[hidden]"

// Format, MarshalText and MarshalJSON keep material out of logs and answers.
func (Material) Format(f fmt.State, _ rune) { fmt.Fprint(f, hidden) }

// MarshalText returns a text that shows nothing.
func (Material) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// MarshalJSON returns a text that shows nothing.
func (Material) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// ParseMaterial returns the material of a key that somebody gave: for HS256 the bytes as they are, otherwise a public
// key as PKIX DER or as a PEM block PUBLIC KEY or RSA PUBLIC KEY. Private keys are refused: they have no business here.
// The error shows nothing of what was given.
func ParseMaterial(alg Algorithm, given []byte) (Material, error) {
	m := Material(given)
	if block, _ := pem.Decode(given); block != nil && alg != HS256 {
		switch block.Type {
		case "PUBLIC KEY":
			m = block.Bytes
		case "RSA PUBLIC KEY":
			pub, err := x509.ParsePKCS1PublicKey(block.Bytes)
			if err != nil {
				return nil, errors.New("the key is not a public RSA key")
			}
			if m, err = x509.MarshalPKIXPublicKey(pub); err != nil {
				return nil, errors.New("the key is not a public RSA key")
			}
		default:
			return nil, errors.New("the key is a public key: a PEM block PUBLIC KEY")
		}
	}
	if _, err := m.Parse(alg); err != nil {
		return nil, err
	}
	return m, nil
}

// Parse returns what verifies signatures: []byte for HS256, *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey. The
// error says what is wrong and shows nothing of the material.
func (m Material) Parse(alg Algorithm) (any, error) {
	if alg == HS256 {
		return m.parseSecret()
	}
	pub, err := x509.ParsePKIXPublicKey(m)
	if err != nil {
		pub = nil // the text of the error might quote the material
	}
	switch alg {
	case RS256:
		k, ok := pub.(*rsa.PublicKey)
		if !ok {
			return nil, errors.New("an RS256 key is a public RSA key in PEM or PKIX DER")
		}
		if n := k.N.BitLen(); n < MinRSABits || n > MaxRSABits {
			return nil, fmt.Errorf("an RS256 key has %d to %d bits", MinRSABits, MaxRSABits)
		}
		return k, nil
	case ES256:
		k, ok := pub.(*ecdsa.PublicKey)
		if !ok || k.Curve != elliptic.P256() {
			return nil, errors.New("an ES256 key is a public key on P-256 in PEM or PKIX DER")
		}
		return k, nil
	case EdDSA:
		k, ok := pub.(ed25519.PublicKey)
		if !ok {
			return nil, errors.New("an EdDSA key is a public Ed25519 key in PEM or PKIX DER")
		}
		return k, nil
	}
	return nil, errors.New("the algorithm of a key is HS256, RS256, ES256 or EdDSA")
}

// parseSecret refuses what is short, and what looks like somebody's public key: a verifier that was given one as a
// shared secret would let everybody sign.
func (m Material) parseSecret() (any, error) {
	if len(m) < MinSecret || len(m) > MaxSecret {
		return nil, fmt.Errorf("an HS256 secret has %d to %d bytes", MinSecret, MaxSecret)
	}
	if block, _ := pem.Decode(m); block != nil {
		return nil, errors.New("an HS256 secret is random bytes, not a PEM file")
	}
	if _, err := x509.ParsePKIXPublicKey(m); err == nil {
		return nil, errors.New("an HS256 secret is random bytes, not a public key")
	}
	return []byte(m), nil
}

// Check returns what is wrong with a key, KindInvalid, "bad_key"; nil if nothing is.
func (k *DeviceKey) Check() error {
	err := k.Product.Check()
	if err == nil {
		err = k.ID.Check()
	}
	if err == nil {
		err = checkName(k.Name)
	}
	if err == nil {
		_, err = k.Material.Parse(k.Alg)
	}
	if err != nil {
		return &push.Error{Kind: push.KindInvalid, Code: "bad_key", Detail: err.Error()}
	}
	return nil
}

// NewDeviceKey returns k as AddDeviceKey stores it. Implementations call it.
func NewDeviceKey(k DeviceKey, now push.MilliTime) (DeviceKey, error) {
	k.Created, k.Revoked = now, 0
	return k.Clone(), k.Check()
}

// Clone returns a copy that shares no bytes.
func (k DeviceKey) Clone() DeviceKey {
	k.Material = append(Material(nil), k.Material...)
	return k
}
