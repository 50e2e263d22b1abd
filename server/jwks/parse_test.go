package jwks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"carillon/server/catalog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// object is a JSON object in the making.
type object map[string]any

// with returns the object with one more, or another, value; a nil value takes it out.
func (o object) with(name string, v any) object {
	c := object{}
	for k, v := range o {
		c[k] = v
	}
	c[name] = v
	if v == nil {
		delete(c, name)
	}
	return c
}

func text(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// private holds a key of each sort, made once.
var private = sync.OnceValue(func() (p struct {
	rs, rsSmall *rsa.PrivateKey
	es, esWide  *ecdsa.PrivateKey
	ed          ed25519.PrivateKey
}) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	var err error
	p.rs, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	p.rsSmall, err = rsa.GenerateKey(rand.Reader, 1024)
	must(err)
	p.es, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	p.esWide, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(err)
	_, p.ed, err = ed25519.GenerateKey(rand.Reader)
	must(err)
	return p
})

func rsaKey(id string, k *rsa.PrivateKey) object {
	return object{"kty": "RSA", "kid": id, "n": text(k.N.Bytes()), "e": text(big.NewInt(int64(k.E)).Bytes())}
}

func ecKey(id, curve string, k *ecdsa.PrivateKey) object {
	point, err := k.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	half := len(point) / 2
	return object{"kty": "EC", "kid": id, "crv": curve, "x": text(point[1 : 1+half]), "y": text(point[1+half:])}
}

func edKey(id string, k ed25519.PrivateKey) object {
	return object{"kty": "OKP", "kid": id, "crv": "Ed25519", "x": text(k.Public().(ed25519.PublicKey))}
}

func documentOf(t testing.TB, keys ...any) []byte {
	t.Helper()
	b, err := json.Marshal(object{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse_TakesPublicKeysOfOurAlgorithms(t *testing.T) {
	p := private()
	zero := rsaKey("zero", p.rs).with("n", text(append([]byte{0}, p.rs.N.Bytes()...)))
	for _, test := range []struct {
		name string
		key  object
		alg  catalog.Algorithm
		want any
	}{
		{"RSA", rsaKey("k", p.rs), catalog.RS256, &p.rs.PublicKey},
		{"RSA that names its algorithm", rsaKey("k", p.rs).with("alg", "RS256").with("use", "sig"), catalog.RS256, &p.rs.PublicKey},
		{"RSA with a zero in front", zero.with("kid", "k"), catalog.RS256, &p.rs.PublicKey},
		{"P-256", ecKey("k", "P-256", p.es), catalog.ES256, &p.es.PublicKey},
		{"P-256 for verifying", ecKey("k", "P-256", p.es).with("alg", "ES256").with("key_ops", []string{"verify"}), catalog.ES256, &p.es.PublicKey},
		{"Ed25519", edKey("k", p.ed), catalog.EdDSA, p.ed.Public()},
		{"Ed25519 under its own name", edKey("k", p.ed).with("alg", "Ed25519"), catalog.EdDSA, p.ed.Public()},
		{"with members of their own", edKey("k", p.ed).with("alg", "EdDSA").with("x5t", "abc").with("note", []int{1}), catalog.EdDSA, p.ed.Public()},
	} {
		set, passed, err := Parse(documentOf(t, test.key))
		if err != nil || passed != 0 || len(set) != 1 || set["k"] == nil {
			t.Errorf("%s: got %v, %d passed over, %v", test.name, set, passed, err)
			continue
		}
		k := set["k"]
		got, err := k.Material.Parse(k.Alg)
		if err != nil || k.Alg != test.alg || k.ID != "k" {
			t.Errorf("%s: got %s, %v", test.name, k.Alg, err)
		}
		if same := got.(interface{ Equal(crypto.PublicKey) bool }); !same.Equal(test.want) {
			t.Errorf("%s: another key came out", test.name)
		}
	}
	if set, _, err := Parse(documentOf(t, edKey("a+b/c=", p.ed), rsaKey(strings.Repeat("k", 128), p.rs))); err != nil || len(set) != 2 {
		t.Errorf("ids as others write them: got %v, %v", set, err)
	}
}

func TestParse_PassesOverWhatItDoesNotTake(t *testing.T) {
	p := private()
	good := edKey("good", p.ed)
	ec := ecKey("k", "P-256", p.es)
	flipped, err := base64.RawURLEncoding.DecodeString(ec["x"].(string))
	if err != nil {
		t.Fatal(err)
	}
	flipped[31] ^= 1
	for name, key := range map[string]any{
		"a shared secret":               object{"kty": "oct", "kid": "k", "alg": "HS256", "k": text(make([]byte, 32))},
		"a shared secret that says RSA": rsaKey("k", p.rs).with("alg", "HS256"),
		"none":                          rsaKey("k", p.rs).with("alg", "none"),
		"another RSA algorithm":         rsaKey("k", p.rs).with("alg", "RS512"),
		"PSS":                           rsaKey("k", p.rs).with("alg", "PS256"),
		"an algorithm of another sort":  rsaKey("k", p.rs).with("alg", "ES256"),
		"for encryption":                rsaKey("k", p.rs).with("use", "enc"),
		"for wrapping keys":             rsaKey("k", p.rs).with("key_ops", []string{"wrapKey"}),
		"for nothing":                   rsaKey("k", p.rs).with("key_ops", []string{}),
		"no id":                         rsaKey("", p.rs).with("kid", nil),
		"an empty id":                   rsaKey("", p.rs),
		"an id with a space":            rsaKey("a b", p.rs),
		"an id in another script":       rsaKey("ключ", p.rs),
		"a long id":                     rsaKey(strings.Repeat("k", 129), p.rs),
		"an id that is a number":        rsaKey("k", p.rs).with("kid", 5),
		"an id that came before":        edKey("good", p.ed),
		"a private RSA key":             rsaKey("k", p.rs).with("d", text(p.rs.D.Bytes())),
		"a private Ed25519 key":         edKey("k", p.ed).with("d", text(p.ed.Seed())),
		"a small RSA key":               rsaKey("k", p.rsSmall),
		"a huge RSA key":                rsaKey("k", p.rs).with("n", text(append([]byte{0xff}, make([]byte, 1025)...))),
		"no modulus":                    rsaKey("k", p.rs).with("n", nil),
		"a modulus that is no base64":   rsaKey("k", p.rs).with("n", "#"),
		"a modulus with padding":        rsaKey("k", p.rs).with("n", rsaKey("k", p.rs)["n"].(string)+"=="),
		"exponent 1":                    rsaKey("k", p.rs).with("e", "AQ"),
		"an even exponent":              rsaKey("k", p.rs).with("e", "BA"),
		"a huge exponent":               rsaKey("k", p.rs).with("e", text([]byte{1, 0, 0, 0, 1})),
		"an endless exponent":           rsaKey("k", p.rs).with("e", strings.Repeat("A", 100_000)),
		"no exponent":                   rsaKey("k", p.rs).with("e", nil),
		"another curve":                 ecKey("k", "P-384", p.esWide),
		"another curve that says P-256": ecKey("k", "P-256", p.esWide),
		"secp256k1":                     ec.with("crv", "secp256k1"),
		"a point beside the curve":      ec.with("x", text(flipped)),
		"the point at infinity":         ec.with("x", text(make([]byte, 32))).with("y", text(make([]byte, 32))),
		"half a point":                  ec.with("y", nil),
		"a coordinate cut short":        ec.with("x", text(flipped[1:])),
		"X25519":                        edKey("k", p.ed).with("crv", "X25519"),
		"Ed448":                         edKey("k", p.ed).with("crv", "Ed448"),
		"an Ed25519 key cut short":      edKey("k", p.ed).with("x", text(make([]byte, 31))),
		"an Ed25519 key too long":       edKey("k", p.ed).with("x", text(make([]byte, 33))),
		"no sort":                       object{"kid": "k"},
		"a number":                      5,
		"null":                          nil,
		"a text":                        "key",
		"a list":                        []int{1},
	} {
		set, passed, err := Parse(documentOf(t, good, key))
		if err != nil || passed != 1 || len(set) != 1 || set["good"] == nil {
			t.Errorf("%s: got %v, %d passed over, %v; want the good key alone", name, set, passed, err)
		}
	}
}

func TestParse_RefusesWhatIsNoKeySet(t *testing.T) {
	for _, doc := range []string{
		"", "x", "null", "5", "[]", "{}", `{"keys":null}`, `{"keys":{}}`, `{"keys":5}`, `{"keys":[]} x`, "<html>", `{"error":"not found"}`,
		`{"keys":` + strings.Repeat("[", 20_000),
	} {
		if set, _, err := Parse([]byte(doc)); !errors.Is(err, errDocument) {
			t.Errorf("%.40q: got %v, %v", doc, set, err)
		}
	}
	if set, _, err := Parse([]byte(`{"keys":[]}`)); err != nil || len(set) != 0 {
		t.Errorf("a set of no keys: got %v, %v", set, err)
	}
	if _, _, err := Parse(append([]byte(`{"keys":[]}`), make([]byte, MaxDocument)...)); !errors.Is(err, errTooLarge) {
		t.Errorf("a large document: got %v", err)
	}
	many := make([]any, 10*MaxKeys)
	for i := range many {
		many[i] = object{"kty": "x", "kid": fmt.Sprint(i)}
	}
	if _, _, err := Parse(documentOf(t, many...)); !errors.Is(err, errTooMany) {
		t.Errorf("%d keys: got %v", len(many), err)
	}
	if _, _, err := Parse(documentOf(t, many[:MaxKeys]...)); err != nil {
		t.Errorf("%d keys: got %v", MaxKeys, err)
	}
}

// FuzzParse holds whatever comes out to the bounds of keys.
func FuzzParse(f *testing.F) {
	p := private()
	f.Add(documentOf(f, rsaKey("a", p.rs), ecKey("b", "P-256", p.es), edKey("c", p.ed)))
	f.Add(documentOf(f, rsaKey("a", p.rsSmall).with("alg", "RS256"), ecKey("b", "P-384", p.esWide), edKey("c", p.ed).with("d", "AA")))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA","kid":"a"},{"KTY":"RSA","Kid":"b","n":"AQAB","e":"AQAB"},null,{}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`))
	f.Add([]byte(`{"keys":[`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		set, passed, err := Parse(doc)
		if err != nil {
			if len(set) != 0 {
				t.Fatalf("an error and %d keys", len(set))
			}
			return
		}
		if len(set)+passed > MaxKeys {
			t.Fatalf("%d keys", len(set)+passed)
		}
		for id, k := range set {
			if k.ID != id || !CheckKeyID(id) {
				t.Fatalf("key %q under %q", k.ID, id)
			}
			switch k.Alg {
			case catalog.RS256, catalog.ES256, catalog.EdDSA:
			default:
				t.Fatalf("algorithm %s", k.Alg)
			}
			if _, err := k.Material.Parse(k.Alg); err != nil {
				t.Fatal(err)
			}
		}
	})
}
