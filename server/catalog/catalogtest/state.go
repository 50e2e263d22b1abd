package catalogtest

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	"carillon/server/catalog"
	"carillon/server/push"
)

// resultsBelong changes whatever it gave and got, and looks again.
func resultsBelong(t *testing.T, h *harness) {
	h.create(shop)
	given := catalog.DeviceKey{Product: shop, ID: "k", Alg: catalog.HS256, Material: bytes.Clone(material().hs)}
	api := simpleAPIKey(1, shop)
	spoil := func(k catalog.DeviceKey, a catalog.APIKey) {
		clear(k.Material)
		clear(a.Scopes)
	}
	k, a := h.addDeviceKey(given), h.addAPIKey(api)
	spoil(given, api)
	spoil(k, a)
	check := func(where string, k catalog.DeviceKey, a catalog.APIKey, err error) {
		t.Helper()
		if err != nil || !bytes.Equal(k.Material, material().hs) || !slices.Equal(a.Scopes, []catalog.Scope{catalog.ScopeAll}) {
			t.Errorf("%s: what a caller did with a result shows in the catalog (%v)", where, err)
		}
		spoil(k, a)
	}
	for range 2 {
		k, err1 := h.Catalog.DeviceKey(h.ctx, shop, "k")
		a, err2 := h.Catalog.APIKey(h.ctx, a.ID)
		check("single", k, a, firstOf(err1, err2))
		ks, err1 := h.Catalog.DeviceKeys(h.ctx, shop, catalog.Page{})
		as, err2 := h.Catalog.APIKeys(h.ctx, shop, catalog.Page{})
		check("list", ks.Items[0], as.Items[0], firstOf(err1, err2))
		k, err1 = h.Catalog.RevokeDeviceKey(h.ctx, shop, "k")
		a, err2 = h.Catalog.RevokeAPIKey(h.ctx, shop, a.ID)
		check("revoked", k, a, firstOf(err1, err2))
	}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func versionDiffers(t *testing.T, h *harness) {
	seen := map[catalog.Version]string{h.version(): "the beginning"}
	api := simpleAPIKey(1, shop)
	for _, write := range []struct {
		name string
		do   func() error
	}{
		{"CreateProduct", func() error { _, err := h.Catalog.CreateProduct(h.ctx, catalog.Product{ID: shop}); return err }},
		{"UpdateProduct", func() error { _, err := h.Catalog.UpdateProduct(h.ctx, catalog.Product{ID: shop}); return err }},
		{"AddDeviceKey", func() error { _, err := h.Catalog.AddDeviceKey(h.ctx, hmacKey(shop, "k")); return err }},
		{"AddAPIKey", func() error { _, err := h.Catalog.AddAPIKey(h.ctx, api); return err }},
		{"RevokeDeviceKey", func() error { _, err := h.Catalog.RevokeDeviceKey(h.ctx, shop, "k"); return err }},
		{"RevokeAPIKey", func() error { _, err := h.Catalog.RevokeAPIKey(h.ctx, shop, api.ID); return err }},
		{"Revoke", func() error {
			_, err := h.Catalog.Revoke(h.ctx, catalog.Revocation{Product: shop, RevocationTarget: ofUser("alice")})
			return err
		}},
		{"LiftRevocation", func() error { return h.Catalog.LiftRevocation(h.ctx, shop, ofUser("alice")) }},
	} {
		if err := write.do(); err != nil {
			t.Fatalf("%s: %v", write.name, err)
		}
		v := h.version()
		if was, ok := seen[v]; ok {
			t.Errorf("after %s the version is that of %s", write.name, was)
		}
		seen[v] = write.name
	}
	before := h.version()
	h.product(shop)
	if _, err := h.Catalog.DeviceKeys(h.ctx, shop, catalog.Page{}); err != nil {
		t.Fatal(err)
	}
	if got := h.version(); got != before {
		t.Error("reading changed the version")
	}
	if h.Reopen == nil {
		return
	}
	h.Catalog = h.Reopen()
	h.create(game)
	if was, ok := seen[h.version()]; ok {
		t.Errorf("after a restart and a write the version is that of %s", was)
	}
}

func reopened(t *testing.T, h *harness) {
	if h.Reopen == nil {
		return // this one promises nothing beyond its life
	}
	created, err := h.Catalog.CreateProduct(h.ctx, full(shop))
	if err != nil {
		t.Fatal(err)
	}
	h.create(game)
	device, api := h.addDeviceKey(hmacKey(shop, "k")), h.addAPIKey(simpleAPIKey(1, shop))
	h.addDeviceKey(hmacKey(shop, "old"))
	revoked, err := h.Catalog.RevokeDeviceKey(h.ctx, shop, "old")
	if err != nil {
		t.Fatal(err)
	}
	h.revoke(shop, ofUser("bob"))
	h.revoke(shop, ofDevice("alice", "phone"))
	if err := h.Catalog.LiftRevocation(h.ctx, shop, ofUser("bob")); err != nil {
		t.Fatal(err)
	}
	revocations := h.changes(0, 10)
	h.Catalog = h.Reopen()

	if got := h.changes(0, 10); len(got) != 2 || !reflect.DeepEqual(got, revocations) {
		t.Errorf("revocations:\n got %+v\nwant %+v", got, revocations)
	}
	if got := h.product(shop); !reflect.DeepEqual(got, created) {
		t.Errorf("product:\n got %+v\nwant %+v", got, created)
	}
	if l, err := h.Catalog.Products(h.ctx, catalog.Page{}); err != nil || len(l.Items) != 2 {
		t.Errorf("products: got %v, %v", l, err)
	}
	l, err := h.Catalog.DeviceKeys(h.ctx, shop, catalog.Page{})
	if err != nil || !reflect.DeepEqual(l.Items, []catalog.DeviceKey{device, revoked}) {
		t.Errorf("device keys: got %+v, %v", l.Items, err)
	}
	as, err := h.Catalog.APIKeys(h.ctx, shop, catalog.Page{})
	if err != nil || !reflect.DeepEqual(as.Items, []catalog.APIKey{api}) {
		t.Errorf("API keys: got %+v, %v", as.Items, err)
	}
	if got, err := h.Catalog.APIKey(h.ctx, api.ID); err != nil || !reflect.DeepEqual(got, api) {
		t.Errorf("API key: got %+v, %v", got, err)
	}
}

func closed(t *testing.T, h *harness) {
	h.create(shop)
	c, ctx := h.Catalog, h.ctx
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	for _, call := range []struct {
		name string
		do   func() error
	}{
		{"CreateProduct", func() error { _, err := c.CreateProduct(ctx, catalog.Product{ID: game}); return err }},
		{"Product", func() error { _, err := c.Product(ctx, shop); return err }},
		{"Products", func() error { _, err := c.Products(ctx, catalog.Page{}); return err }},
		{"UpdateProduct", func() error { _, err := c.UpdateProduct(ctx, catalog.Product{ID: shop}); return err }},
		{"AddDeviceKey", func() error { _, err := c.AddDeviceKey(ctx, hmacKey(shop, "k")); return err }},
		{"DeviceKey", func() error { _, err := c.DeviceKey(ctx, shop, "k"); return err }},
		{"DeviceKeys", func() error { _, err := c.DeviceKeys(ctx, shop, catalog.Page{}); return err }},
		{"RevokeDeviceKey", func() error { _, err := c.RevokeDeviceKey(ctx, shop, "k"); return err }},
		{"AddAPIKey", func() error { _, err := c.AddAPIKey(ctx, simpleAPIKey(1, shop)); return err }},
		{"APIKey", func() error { _, err := c.APIKey(ctx, simpleAPIKey(1, shop).ID); return err }},
		{"APIKeys", func() error { _, err := c.APIKeys(ctx, shop, catalog.Page{}); return err }},
		{"RevokeAPIKey", func() error { _, err := c.RevokeAPIKey(ctx, shop, "x"); return err }},
		{"Revoke", func() error { _, err := c.Revoke(ctx, catalog.Revocation{}); return err }},
		{"LiftRevocation", func() error { return c.LiftRevocation(ctx, shop, ofUser("alice")) }},
		{"RevocationChanges", func() error { _, err := c.RevocationChanges(ctx, 0, 0); return err }},
		{"Version", func() error { _, err := c.Version(ctx); return err }},
	} {
		wantError(t, call.name, call.do(), push.KindClosed, "catalog_closed")
	}
}
