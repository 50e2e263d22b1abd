package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"carillon/server/catalog"
	"carillon/server/catalog/memory"
	"carillon/server/clock/clocktest"
	"carillon/server/push"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is when the tests take place.
var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

const (
	shop push.ProductID = "shop"
	game push.ProductID = "game"
)

// signing holds one private key of each algorithm, made once.
var signing = sync.OnceValue(func() map[catalog.Algorithm]SigningKey {
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	es, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return map[catalog.Algorithm]SigningKey{
		catalog.HS256: {"k-hs", catalog.HS256, []byte("an HS256 secret of 32 bytes, more")},
		catalog.RS256: {"k-rs", catalog.RS256, rs},
		catalog.ES256: {"k-es", catalog.ES256, es},
		catalog.EdDSA: {"k-ed", catalog.EdDSA, ed},
	}
})

// public returns what verifies the key.
func public(k SigningKey) catalog.Material {
	if secret, ok := k.Private.([]byte); ok {
		return secret
	}
	der, err := x509.MarshalPKIXPublicKey(k.Private.(crypto.Signer).Public())
	if err != nil {
		panic(err)
	}
	return der
}

// world is a verifier with what it looks at: product shop with a key of each algorithm, product game with one of its own.
type world struct {
	clock   *clocktest.Clock
	cache   *catalog.Cache
	store   *memory.Catalog
	verify  *Verifier
	apiKeys *APIKeys
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{clock: clocktest.At(noon)}
	w.store = memory.New(memory.Config{Clock: w.clock})
	w.cache = catalog.NewCache(w.store, catalog.CacheConfig{Clock: w.clock})
	ctx := t.Context()
	for _, p := range []push.ProductID{shop, game} {
		if _, err := w.cache.CreateProduct(ctx, catalog.Product{ID: p}); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range signing() {
		w.addKey(t, shop, k)
	}
	w.addKey(t, game, gameKey)
	var err error
	if w.verify, err = NewVerifier(Config{Keys: w.cache, Clock: w.clock}); err != nil {
		t.Fatal(err)
	}
	if w.apiKeys, err = NewAPIKeys(APIConfig{Keys: w.cache, Clock: w.clock}); err != nil {
		t.Fatal(err)
	}
	return w
}

var gameKey = SigningKey{"k-game", catalog.HS256, []byte("the secret of another product, long")}

func (w *world) addKey(t testing.TB, p push.ProductID, k SigningKey) {
	t.Helper()
	_, err := w.cache.AddDeviceKey(t.Context(), catalog.DeviceKey{Product: p, ID: k.ID, Alg: k.Alg, Material: public(k)})
	if err != nil {
		t.Fatal(err)
	}
}

// object is a JSON object in the making.
type object map[string]any

// goodClaims are what a token of alice's phone says.
func goodClaims() object {
	return object{"aud": "shop", "sub": "alice", "did": "phone", "plat": "ios", "exp": noon.Unix() + 3600}
}

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

func header(k SigningKey) object {
	return object{"alg": string(k.Alg), "kid": string(k.ID), "typ": "JWT"}
}

// sign makes a token of a header and claims, each an object or a text, with the method and the private key of k, whatever
// the header says.
func sign(t testing.TB, k SigningKey, header, claims any) string {
	t.Helper()
	text := segment(t, header) + "." + segment(t, claims)
	sig, err := jwt.GetSigningMethod(string(k.Alg)).Sign(text, k.Private)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func segment(t testing.TB, v any) string {
	t.Helper()
	b, ok := v.(string)
	if !ok {
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		b = string(j)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(b))
}

// wantRefusal holds an error to a reason, a kind and a code.
func wantRefusal(t *testing.T, err error, reason Reason, kind push.Kind, code string) {
	t.Helper()
	var e *push.Error
	if !errors.As(err, &e) || ReasonOf(err) != reason || e.Kind != kind || e.Code != code {
		t.Fatalf("got %v, want reason %v, kind %d, code %s", err, reason, kind, code)
	}
	if e.Detail == "" {
		t.Error("the refusal does not say what to do")
	}
}

// segmentText is the JSON of an object.
func segmentText(t testing.TB, o object) string {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
