package catalogtest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	mathrand "math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carillon/server/catalog"
	"carillon/server/push"
)

// material is one key of each sort, made once.
var material = sync.OnceValue(func() (m struct{ hs, rs, es, ed, rsSmall, esWide catalog.Material }) {
	der := func(pub crypto.PublicKey) catalog.Material {
		b, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			panic(err)
		}
		return b
	}
	m.hs = bytes.Repeat([]byte("01234567"), 4)
	large, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	m.rs = der(large.Public())
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		panic(err)
	}
	m.rsSmall = der(small.Public())
	for curve, to := range map[elliptic.Curve]*catalog.Material{elliptic.P256(): &m.es, elliptic.P384(): &m.esWide} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			panic(err)
		}
		*to = der(k.Public())
	}
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	m.ed = der(pub)
	return m
})

func hmacKey(p push.ProductID, id catalog.KeyID) catalog.DeviceKey {
	return catalog.DeviceKey{Product: p, ID: id, Alg: catalog.HS256, Material: material().hs}
}

func deviceKeysKept(t *testing.T, h *harness) {
	h.create(shop)
	m := material()
	for _, k := range []catalog.DeviceKey{
		{ID: "hs", Alg: catalog.HS256, Material: m.hs, Name: "first"},
		{ID: "rs", Alg: catalog.RS256, Material: m.rs},
		{ID: "es", Alg: catalog.ES256, Material: m.es},
		{ID: "Ed_25519.key-1", Alg: catalog.EdDSA, Material: m.ed},
	} {
		k.Product = shop
		k.Revoked = 5 // a new key is not revoked, whatever its maker says
		got := h.addDeviceKey(k)
		if got.Created == 0 {
			t.Errorf("%s: no time", k.ID)
		}
		k.Created, k.Revoked = got.Created, 0
		if !reflect.DeepEqual(got, k) {
			t.Errorf("AddDeviceKey(%s) returned another key", k.ID)
		}
		again, err := h.Catalog.DeviceKey(h.ctx, shop, k.ID)
		if err != nil || !reflect.DeepEqual(again, k) {
			t.Errorf("DeviceKey(%s): got %+v, %v", k.ID, again, err)
		}
	}
	_, err := h.Catalog.AddDeviceKey(h.ctx, catalog.DeviceKey{Product: shop, ID: "hs", Alg: catalog.EdDSA, Material: m.ed})
	wantError(t, "a second key of an id", err, push.KindConflict, "key_exists")
	if k, err := h.Catalog.DeviceKey(h.ctx, shop, "hs"); err != nil || k.Alg != catalog.HS256 {
		t.Errorf("after a refused key: got %+v, %v", k, err)
	}
	_, err = h.Catalog.AddDeviceKey(h.ctx, hmacKey(game, "hs"))
	wantError(t, "a key of no product", err, push.KindNotFound, "product_not_found")
	_, err = h.Catalog.DeviceKey(h.ctx, game, "hs")
	wantError(t, "DeviceKey of no product", err, push.KindNotFound, "key_not_found")
	_, err = h.Catalog.DeviceKeys(h.ctx, game, catalog.Page{})
	wantError(t, "DeviceKeys of no product", err, push.KindNotFound, "product_not_found")
}

func badDeviceKeys(t *testing.T, h *harness) {
	h.create(shop)
	m := material()
	for _, test := range []struct {
		name string
		k    catalog.DeviceKey
	}{
		{"no id", catalog.DeviceKey{Alg: catalog.HS256, Material: m.hs}},
		{"a long id", catalog.DeviceKey{ID: catalog.KeyID(strings.Repeat("k", 65)), Alg: catalog.HS256, Material: m.hs}},
		{"a separator in the id", catalog.DeviceKey{ID: "a/b", Alg: catalog.HS256, Material: m.hs}},
		{"a bad name", catalog.DeviceKey{ID: "k", Alg: catalog.HS256, Material: m.hs, Name: "\x00"}},
		{"a short secret", catalog.DeviceKey{ID: "k", Alg: catalog.HS256, Material: m.hs[:31]}},
		{"no secret", catalog.DeviceKey{ID: "k", Alg: catalog.HS256}},
		{"a public key as a secret", catalog.DeviceKey{ID: "k", Alg: catalog.HS256, Material: m.rs}},
		{"a small RSA key", catalog.DeviceKey{ID: "k", Alg: catalog.RS256, Material: m.rsSmall}},
		{"a wide curve", catalog.DeviceKey{ID: "k", Alg: catalog.ES256, Material: m.esWide}},
		{"an EC key for RS256", catalog.DeviceKey{ID: "k", Alg: catalog.RS256, Material: m.es}},
		{"an RSA key for ES256", catalog.DeviceKey{ID: "k", Alg: catalog.ES256, Material: m.rs}},
		{"an EC key for EdDSA", catalog.DeviceKey{ID: "k", Alg: catalog.EdDSA, Material: m.es}},
		{"a secret for EdDSA", catalog.DeviceKey{ID: "k", Alg: catalog.EdDSA, Material: m.hs}},
		{"no algorithm", catalog.DeviceKey{ID: "k", Material: m.hs}},
		{"none", catalog.DeviceKey{ID: "k", Alg: "none", Material: m.hs}},
		{"another algorithm", catalog.DeviceKey{ID: "k", Alg: "RS512", Material: m.rs}},
	} {
		test.k.Product = shop
		_, err := h.Catalog.AddDeviceKey(h.ctx, test.k)
		wantError(t, test.name, err, push.KindInvalid, "bad_key")
	}
	if l, err := h.Catalog.DeviceKeys(h.ctx, shop, catalog.Page{}); err != nil || len(l.Items) != 0 {
		t.Errorf("after refusals: got %d keys, %v", len(l.Items), err)
	}
}

func deviceKeysBelong(t *testing.T, h *harness) {
	h.create("a", "a-b", "ab")
	h.addDeviceKey(hmacKey("a", "k"))
	h.addDeviceKey(hmacKey("a-b", "k"))
	h.addDeviceKey(hmacKey("ab", "c"))
	for p, want := range map[push.ProductID]catalog.KeyID{"a": "k", "a-b": "k", "ab": "c"} {
		l, err := h.Catalog.DeviceKeys(h.ctx, p, catalog.Page{})
		if err != nil || len(l.Items) != 1 || l.Items[0].ID != want || l.Items[0].Product != p {
			t.Errorf("keys of %s: got %+v, %v", p, l, err)
		}
	}
	_, err := h.Catalog.DeviceKey(h.ctx, "a", "c")
	wantError(t, "another product's key", err, push.KindNotFound, "key_not_found")
	_, err = h.Catalog.RevokeDeviceKey(h.ctx, "a", "c")
	wantError(t, "revoking another product's key", err, push.KindNotFound, "key_not_found")
	if _, err := h.Catalog.RevokeDeviceKey(h.ctx, "a", "k"); err != nil {
		t.Fatal(err)
	}
	if k, err := h.Catalog.DeviceKey(h.ctx, "a-b", "k"); err != nil || k.Revoked != 0 {
		t.Errorf("the other product's key of that id: got %+v, %v", k, err)
	}
}

func deviceKeyRevoked(t *testing.T, h *harness) {
	h.create(shop)
	added := h.addDeviceKey(hmacKey(shop, "k"))
	h.Elapse(time.Minute)
	for range 2 {
		got, err := h.Catalog.RevokeDeviceKey(h.ctx, shop, "k")
		if err != nil || got.Revoked != added.Created.Add(time.Minute) {
			t.Fatalf("RevokeDeviceKey: got %+v, %v", got, err)
		}
		if again, err := h.Catalog.DeviceKey(h.ctx, shop, "k"); err != nil || !reflect.DeepEqual(again, got) {
			t.Fatalf("DeviceKey: got %+v, %v", again, err)
		}
		h.Elapse(time.Minute) // a second revocation leaves the time of the first
	}
	_, err := h.Catalog.AddDeviceKey(h.ctx, hmacKey(shop, "k"))
	wantError(t, "a key under a revoked id", err, push.KindConflict, "key_exists")
	l, err := h.Catalog.DeviceKeys(h.ctx, shop, catalog.Page{})
	if err != nil || len(l.Items) != 1 || l.Items[0].Revoked == 0 {
		t.Errorf("DeviceKeys: got %+v, %v", l, err)
	}
}

// apiKey makes a key out of a seed.
func apiKey(seed int, k catalog.APIKey) (catalog.APIKey, catalog.APIKeyText) {
	k, text, err := catalog.NewAPIKey(mathrand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1}), k)
	if err != nil {
		panic(err)
	}
	return k, text
}

func simpleAPIKey(seed int, p push.ProductID) catalog.APIKey {
	k, _ := apiKey(seed, catalog.APIKey{Product: p, Scopes: []catalog.Scope{catalog.ScopeAll}})
	return k
}

func apiKeyIsFound(t *testing.T, h *harness) {
	h.create(shop)
	want, text := apiKey(1, catalog.APIKey{
		Product: shop, Name: "backend", Expires: 1999999999999, Revoked: 5,
		Scopes: []catalog.Scope{catalog.ScopeUsersRead, catalog.ScopeMessagesWrite, catalog.ScopeUsersRead},
	})
	got := h.addAPIKey(want)
	if got.Created == 0 {
		t.Error("no time")
	}
	want.Created, want.Revoked = got.Created, 0
	want.Scopes = []catalog.Scope{catalog.ScopeMessagesWrite, catalog.ScopeUsersRead}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("AddAPIKey:\n got %+v\nwant %+v", got, want)
	}
	id, hash, ok := text.Parse()
	if !ok {
		t.Fatal("the text of a key cannot be parsed")
	}
	again, err := h.Catalog.APIKey(h.ctx, id)
	if err != nil || !reflect.DeepEqual(again, want) || !again.Hash.Equal(hash) {
		t.Errorf("APIKey: got %+v, %v, want %+v", again, err, want)
	}
	_, err = h.Catalog.APIKey(h.ctx, simpleAPIKey(2, shop).ID)
	wantError(t, "APIKey of none", err, push.KindNotFound, "key_not_found")
	_, err = h.Catalog.AddAPIKey(h.ctx, simpleAPIKey(2, game))
	wantError(t, "a key of no product", err, push.KindNotFound, "product_not_found")
	_, err = h.Catalog.APIKeys(h.ctx, game, catalog.Page{})
	wantError(t, "APIKeys of no product", err, push.KindNotFound, "product_not_found")
}

func badAPIKeys(t *testing.T, h *harness) {
	h.create(shop)
	for _, test := range []struct {
		name   string
		change func(*catalog.APIKey)
	}{
		{"no id", func(k *catalog.APIKey) { k.ID = "" }},
		{"a short id", func(k *catalog.APIKey) { k.ID = k.ID[1:] }},
		{"capitals in the id", func(k *catalog.APIKey) { k.ID = "ABCDEFGHIJKLMNOP" }},
		{"no product", func(k *catalog.APIKey) { k.Product = "" }},
		{"no hash", func(k *catalog.APIKey) { k.Hash = catalog.KeyHash{} }},
		{"no scopes", func(k *catalog.APIKey) { k.Scopes = nil }},
		{"a scope that is none", func(k *catalog.APIKey) { k.Scopes = []catalog.Scope{"messages:*"} }},
		{"a bad name", func(k *catalog.APIKey) { k.Name = "a\nb" }},
		{"a negative time", func(k *catalog.APIKey) { k.Expires = -1 }},
	} {
		k := simpleAPIKey(1, shop)
		test.change(&k)
		_, err := h.Catalog.AddAPIKey(h.ctx, k)
		wantError(t, test.name, err, push.KindInvalid, "bad_key")
	}
	if l, err := h.Catalog.APIKeys(h.ctx, shop, catalog.Page{}); err != nil || len(l.Items) != 0 {
		t.Errorf("after refusals: got %d keys, %v", len(l.Items), err)
	}
}

func apiKeysBelong(t *testing.T, h *harness) {
	h.create("a", "a-b")
	mine, other := h.addAPIKey(simpleAPIKey(1, "a")), h.addAPIKey(simpleAPIKey(2, "a-b"))
	stolen := simpleAPIKey(2, "a") // the other product's id
	_, err := h.Catalog.AddAPIKey(h.ctx, stolen)
	wantError(t, "a second key of an id", err, push.KindConflict, "key_exists")
	for p, want := range map[push.ProductID]catalog.APIKey{"a": mine, "a-b": other} {
		l, err := h.Catalog.APIKeys(h.ctx, p, catalog.Page{})
		if err != nil || !reflect.DeepEqual(l.Items, []catalog.APIKey{want}) {
			t.Errorf("keys of %s: got %+v, %v", p, l, err)
		}
	}
	_, err = h.Catalog.RevokeAPIKey(h.ctx, "a", other.ID)
	wantError(t, "revoking another product's key", err, push.KindNotFound, "key_not_found")
	if k, err := h.Catalog.APIKey(h.ctx, other.ID); err != nil || k.Revoked != 0 {
		t.Errorf("the other product's key: got %+v, %v", k, err)
	}
}

func apiKeyRevoked(t *testing.T, h *harness) {
	h.create(shop)
	added := h.addAPIKey(simpleAPIKey(1, shop))
	h.Elapse(time.Minute)
	for range 2 {
		got, err := h.Catalog.RevokeAPIKey(h.ctx, shop, added.ID)
		if err != nil || got.Revoked != added.Created.Add(time.Minute) {
			t.Fatalf("RevokeAPIKey: got %+v, %v", got, err)
		}
		if again, err := h.Catalog.APIKey(h.ctx, added.ID); err != nil || !reflect.DeepEqual(again, got) {
			t.Fatalf("APIKey: got %+v, %v", again, err)
		}
		h.Elapse(time.Minute)
	}
	_, err := h.Catalog.AddAPIKey(h.ctx, simpleAPIKey(1, shop))
	wantError(t, "a key under a revoked id", err, push.KindConflict, "key_exists")
}

func keysInPages(t *testing.T, h *harness) {
	h.create("a", shop, "z")
	var device, api []string
	for i := range 7 {
		id := catalog.KeyID(fmt.Sprintf("k%d", i))
		device = append(device, string(id))
		h.addDeviceKey(hmacKey(shop, id))
		api = append(api, string(h.addAPIKey(simpleAPIKey(i, shop)).ID))
	}
	for i, p := range []push.ProductID{"a", "z"} {
		h.addDeviceKey(hmacKey(p, "k3"))
		h.addAPIKey(simpleAPIKey(100+i, p))
	}
	slices.Sort(api)
	for _, size := range []int{1, 3, 7, 8} {
		got := pages(t, size, func(p catalog.Page) (catalog.List[catalog.DeviceKey], error) {
			return h.Catalog.DeviceKeys(h.ctx, shop, p)
		}, func(k catalog.DeviceKey) string { return string(k.ID) })
		if !slices.Equal(got, device) {
			t.Errorf("device keys in pages of %d: got %v, want %v", size, got, device)
		}
		got = pages(t, size, func(p catalog.Page) (catalog.List[catalog.APIKey], error) {
			return h.Catalog.APIKeys(h.ctx, shop, p)
		}, func(k catalog.APIKey) string { return string(k.ID) })
		if !slices.Equal(got, api) {
			t.Errorf("API keys in pages of %d: got %v, want %v", size, got, api)
		}
	}
}

func badPages(t *testing.T, h *harness) {
	h.create(shop)
	for _, limit := range []int{-1, catalog.MaxPage + 1} {
		page := catalog.Page{Limit: limit}
		_, err := h.Catalog.Products(h.ctx, page)
		wantError(t, "Products", err, push.KindInvalid, "bad_page")
		_, err = h.Catalog.DeviceKeys(h.ctx, shop, page)
		wantError(t, "DeviceKeys", err, push.KindInvalid, "bad_page")
		_, err = h.Catalog.APIKeys(h.ctx, shop, page)
		wantError(t, "APIKeys", err, push.KindInvalid, "bad_page")
	}
}
