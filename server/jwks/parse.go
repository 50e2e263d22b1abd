package jwks

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"slices"

	"carillon/server/catalog"
)

// Limits of a document.
const (
	MaxDocument = 128 << 10 // bytes
	MaxKeys     = 64        // keys, of whatever sort
)

// Set is what a document holds that verifies tokens, by id. Nobody changes it. Its keys have no product yet.
type Set map[catalog.KeyID]*catalog.DeviceKey

var (
	errDocument = errors.New("jwks: the document is not a JSON Web Key Set")
	errTooLarge = errors.New("jwks: the document is larger than 128 KiB")
	errTooMany  = errors.New("jwks: the document holds more than 64 keys")
)

// document is a key set. What is not named here is passed over.
type document struct {
	Keys []json.RawMessage `json:"keys"`
}

// webKey is a member of a key set.
type webKey struct {
	Type  string   `json:"kty"`
	ID    string   `json:"kid"`
	Use   string   `json:"use"`
	Ops   []string `json:"key_ops"`
	Alg   string   `json:"alg"`
	Curve string   `json:"crv"`
	N     string   `json:"n"`
	E     string   `json:"e"`
	X     string   `json:"x"`
	Y     string   `json:"y"`
	// The private part of any sort of key; a document that shows one has lost that key.
	Private json.RawMessage `json:"d"`
}

// Parse reads a document. Keys that cannot be taken are passed over, as RFC 7517 wants it, and counted: other sorts and
// algorithms, keys for encryption, keys without an id or with one that came before, malformed ones, and private ones, which are
// known to whoever read the document.
func Parse(b []byte) (set Set, passed int, err error) {
	if len(b) > MaxDocument {
		return nil, 0, errTooLarge
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil || d.Keys == nil {
		return nil, 0, errDocument
	}
	if len(d.Keys) > MaxKeys {
		return nil, 0, errTooMany
	}
	set = make(Set, len(d.Keys))
	for _, raw := range d.Keys {
		var w webKey
		if json.Unmarshal(raw, &w) != nil {
			passed++
			continue
		}
		k, ok := w.key()
		if ok {
			_, there := set[k.ID]
			ok = !there
		}
		if !ok {
			passed++
			continue
		}
		set[k.ID] = k
	}
	return set, passed, nil
}

// maxKeyID bounds the id of a published key. Those of others' servers have characters that ids in the catalog do not.
const maxKeyID = 128

// CheckKeyID reports whether a published key may have that id: 1 to 128 printable ASCII characters without space.
func CheckKeyID(id catalog.KeyID) bool {
	if id == "" || len(id) > maxKeyID {
		return false
	}
	for i := 0; i < len(id); i++ {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

// key returns the key; ok is false if it is none that is taken.
func (w *webKey) key() (k *catalog.DeviceKey, ok bool) {
	id := catalog.KeyID(w.ID)
	if !CheckKeyID(id) || w.Private != nil || w.Use != "" && w.Use != "sig" ||
		w.Ops != nil && !slices.Contains(w.Ops, "verify") {
		return nil, false
	}
	alg, pub := w.public()
	if pub == nil {
		return nil, false
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, false
	}
	k = &catalog.DeviceKey{ID: id, Alg: alg, Material: der}
	if _, err := k.Material.Parse(alg); err != nil { // the bounds of keys stand in one place
		return nil, false
	}
	return k, true
}

// public returns the public key and the one algorithm that it is for; nil if it is none that is taken.
func (w *webKey) public() (catalog.Algorithm, any) {
	switch {
	case w.Type == "RSA" && w.isFor("RS256"):
		if pub := w.rsa(); pub != nil {
			return catalog.RS256, pub
		}
	case w.Type == "EC" && w.Curve == "P-256" && w.isFor("ES256"):
		if pub := w.p256(); pub != nil {
			return catalog.ES256, pub
		}
	case w.Type == "OKP" && w.Curve == "Ed25519" && (w.isFor("EdDSA") || w.isFor("Ed25519")):
		if x, ok := decode(w.X, ed25519.PublicKeySize); ok && len(x) == ed25519.PublicKeySize {
			return catalog.EdDSA, ed25519.PublicKey(x)
		}
	}
	return "", nil
}

// isFor reports whether the key names that algorithm, or none.
func (w *webKey) isFor(alg string) bool { return w.Alg == "" || w.Alg == alg }

func (w *webKey) rsa() *rsa.PublicKey {
	n, ok := decode(w.N, catalog.MaxRSABits/8+1) // some put a zero in front
	if !ok {
		return nil
	}
	e, ok := decode(w.E, 8)
	if !ok {
		return nil
	}
	exponent := new(big.Int).SetBytes(e)
	if !exponent.IsInt64() || exponent.Int64() < 3 || exponent.Int64() > math.MaxInt32 || exponent.Bit(0) == 0 {
		return nil
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}
}

// p256 returns a point that lies on the curve; nil if it does not.
func (w *webKey) p256() *ecdh.PublicKey {
	const size = 32
	x, okX := decode(w.X, size)
	y, okY := decode(w.Y, size)
	if !okX || !okY || len(x) != size || len(y) != size {
		return nil
	}
	pub, err := ecdh.P256().NewPublicKey(slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil
	}
	return pub
}

var urlEncoding = base64.RawURLEncoding.Strict()

// decode reads base64url of at most so many bytes, and at least one.
func decode(s string, most int) ([]byte, bool) {
	if s == "" || len(s) > urlEncoding.EncodedLen(most) {
		return nil, false
	}
	b, err := urlEncoding.DecodeString(s)
	return b, err == nil && len(b) > 0
}
