package catalog_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"carillon/server/catalog"
	"carillon/server/push"
)

func TestAPIKeyText_HasItsForm(t *testing.T) {
	k, text, err := catalog.NewAPIKey(mathrand.NewChaCha8([32]byte{1}), catalog.APIKey{Product: "shop", Name: "n"})
	if err != nil {
		t.Fatal(err)
	}
	if len(text) != 64 || !strings.HasPrefix(string(text), "cak_"+string(k.ID)+"_") {
		t.Errorf("the text has %d characters and does not begin as it should", len(text))
	}
	id, hash, ok := text.Parse()
	if !ok || id != k.ID || !hash.Equal(k.Hash) || k.Product != "shop" || k.Name != "n" {
		t.Errorf("Parse: got %s, %v, want %s", id, ok, k.ID)
	}
	for i := range text { // another character anywhere is another key, or none
		other := []byte(text)
		if other[i]++; text[i] == 'z' || text[i] == 'Z' || text[i] == '9' {
			other[i] = '2'
		}
		if id, h, ok := catalog.APIKeyText(other).Parse(); ok && id == k.ID && h.Equal(hash) {
			t.Errorf("a key with another character at %d is the same key", i)
		}
	}
	other, otherText, err := catalog.NewAPIKey(mathrand.NewChaCha8([32]byte{2}), catalog.APIKey{})
	if err != nil || other.ID == k.ID || otherText == text {
		t.Errorf("two keys are alike (%v)", err)
	}
	if _, _, err := catalog.NewAPIKey(bytes.NewReader(make([]byte, 41)), catalog.APIKey{}); err == nil {
		t.Error("a key was made of too little randomness")
	}
}

func TestSecrets_DoNotPrint(t *testing.T) {
	_, text, err := catalog.NewAPIKey(mathrand.NewChaCha8([32]byte{1}), catalog.APIKey{})
	if err != nil {
		t.Fatal(err)
	}
	secret := "a secret that nobody must ever read"
	key := catalog.DeviceKey{Product: "shop", ID: "k", Alg: catalog.HS256, Material: catalog.Material(secret)}
	j, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&logged, nil), slog.NewJSONHandler(&logged, nil)} {
		slog.New(h).Info("x", "key", key, "material", key.Material, "pointer", &key)
	}
	printed := fmt.Sprintf("%v %+v %#v %s %q %x %d", key, key, key, key.Material, key.Material, key.Material, key.Material) +
		fmt.Sprint(&key, key.Material) + string(j) + logged.String() +
		fmt.Sprintf("%v %s %q %#v %x", text, text, text, text, text)
	for _, hidden := range []string{
		secret, hex.EncodeToString([]byte(secret)), "97 32 115", "YSBzZWNyZXQ", "0x61, 0x20", string(text)[21:], hex.EncodeToString([]byte(text)[21:]),
	} {
		if strings.Contains(printed, hidden) {
			t.Errorf("%q is printed", hidden)
		}
	}
	if !strings.Contains(printed, string(text)[:20]) {
		t.Error("the id of an API key is not printed; it is there to be recognised by")
	}
}

func TestParseMaterial_ReadsPEMAndDER(t *testing.T) {
	priv, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(priv.Public())
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }
	secret := []byte("0123456789abcdef0123456789abcdef")
	private, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		alg   catalog.Algorithm
		given []byte
		want  []byte // nil: refused
	}{
		{"DER", catalog.RS256, der, der},
		{"PEM", catalog.RS256, block("PUBLIC KEY", der), der},
		{"PKCS #1", catalog.RS256, block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&priv.PublicKey)), der},
		{"a secret", catalog.HS256, secret, secret},
		{"a private key", catalog.RS256, block("PRIVATE KEY", private), nil},
		{"a private RSA key", catalog.RS256, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(priv)), nil},
		{"a private key as DER", catalog.RS256, private, nil},
		{"a damaged PKCS #1", catalog.RS256, block("RSA PUBLIC KEY", der[:40]), nil},
		{"PEM as a secret", catalog.HS256, block("PUBLIC KEY", der), nil},
		{"another algorithm", catalog.EdDSA, der, nil},
		{"no algorithm", "", der, nil},
		{"nothing", catalog.ES256, nil, nil},
	} {
		got, err := catalog.ParseMaterial(test.alg, test.given)
		if !bytes.Equal(got, test.want) || (err == nil) != (test.want != nil) {
			t.Errorf("%s: got %d bytes, %v", test.name, len(got), err)
		}
	}
}

func TestCodec_RoundTripsAndRefusesDamage(t *testing.T) {
	p := catalog.Product{
		ID: "shop", Name: "n", Shards: 3, Disabled: true, FirstVisit: push.FirstVisit{First: 2, Later: 1, Common: 1},
		Limits:        push.Limits{BodyBytes: 1, OwnMessages: 2, TTL: time.Second, KeyTTL: time.Hour, DeviceUnseen: time.Minute},
		TokenLifetime: 3, Created: 4, Updated: 5, Revision: 6,
	}
	d := catalog.DeviceKey{Product: "shop", ID: "k", Alg: "HS256", Material: []byte{1, 2}, Name: "n", Created: 1, Revoked: 2}
	a := catalog.APIKey{ID: "x", Product: "shop", Name: "n", Scopes: []catalog.Scope{"*"}, Hash: catalog.KeyHash{1}, Created: 1, Expires: 2, Revoked: 3}
	for _, test := range []struct {
		name   string
		encode func() ([]byte, error)
		decode func([]byte) (any, error)
		want   any
	}{
		{"product", func() ([]byte, error) { return catalog.EncodeProduct(p, nil) },
			func(b []byte) (any, error) { return catalog.DecodeProduct(b) }, p},
		{"device key", func() ([]byte, error) { return catalog.EncodeDeviceKey(d) },
			func(b []byte) (any, error) { return catalog.DecodeDeviceKey(b) }, d},
		{"API key", func() ([]byte, error) { return catalog.EncodeAPIKey(a) },
			func(b []byte) (any, error) { return catalog.DecodeAPIKey(b) }, a},
	} {
		b, err := test.encode()
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if got, err := test.decode(b); err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", test.name, got, err, test.want)
		}
		for _, damaged := range [][]byte{nil, []byte("{}"), b[:len(b)-1], bytes.Replace(b, []byte(`"v":1`), []byte(`"v":2`), 1)} {
			_, err := test.decode(damaged)
			var e *push.Error
			if !errors.As(err, &e) || e.Code != "catalog_damaged" {
				t.Errorf("%s, damaged: got %v, want catalog_damaged", test.name, err)
			}
		}
	}
	b, err := catalog.EncodeAPIKey(a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := catalog.DecodeAPIKey(bytes.Replace(b, []byte(`"hash":"`), []byte(`"hash":"AAAA`), 1)); err == nil {
		t.Error("a hash of another length was read")
	}
}
