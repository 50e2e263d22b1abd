package catalogtest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carillon/server/catalog"
	"carillon/server/push"
)

// full is a product with every field set.
func full(id push.ProductID) catalog.Product {
	return catalog.Product{
		ID: id, Name: "The Shop, Zürich", Shards: 100, Disabled: true,
		FirstVisit: push.FirstVisit{First: push.StartHead, Later: push.StartBeginning, Common: push.StartBeginning},
		Limits: push.Limits{
			BodyBytes: 1, OwnMessages: 2, OwnBytes: 3, CommonMessages: 4, CommonBytes: 5, TTL: 6 * time.Second,
			DevicesPerUser: 7, DeviceUnseen: 8 * time.Hour, KeyTTL: 24 * time.Hour, Sessions: 9,
		},
		TokenLifetime: 90 * time.Minute,
		Sessions: sessionPolicy(push.SessionRules{
			Classes: map[push.Platform]string{push.PlatformAndroid: "mobile", push.PlatformTV: "living-room"}, Default: "rest_1",
			Rules: []push.SessionRule{
				{Scope: push.PerClass, Of: "mobile", Max: 1},
				{Scope: push.PerPlatform, Max: 2, OnExcess: push.RejectNew},
				{Scope: push.PerAccount, Max: push.MaxSessionMax},
				{Scope: push.PerDevice, Max: 1},
			},
		}),
		JWKS: "https://keys.example.com/.well-known/jwks.json?v=1",
	}
}

// sessionPolicy returns the policy of rules that are right.
func sessionPolicy(r push.SessionRules) *push.SessionPolicy {
	p, err := push.NewSessionPolicy(r)
	if err != nil {
		panic(err)
	}
	return p
}

func productIsFound(t *testing.T, h *harness) {
	want := full(shop)
	got, err := h.Catalog.CreateProduct(h.ctx, want)
	if err != nil {
		t.Fatalf("CreateProduct: %v", err)
	}
	if got.Created == 0 || got.Updated != got.Created || got.Revision != 1 {
		t.Errorf("created %d, updated %d, revision %d", got.Created, got.Updated, got.Revision)
	}
	want.Created, want.Updated, want.Revision = got.Created, got.Updated, got.Revision
	if !reflect.DeepEqual(got, want) {
		t.Errorf("CreateProduct:\n got %+v\nwant %+v", got, want)
	}
	if got := h.product(shop); !reflect.DeepEqual(got, want) {
		t.Errorf("Product:\n got %+v\nwant %+v", got, want)
	}
	_, err = h.Catalog.Product(h.ctx, game)
	wantError(t, "Product of none", err, push.KindNotFound, "product_not_found")
}

func productDefaults(t *testing.T, h *harness) {
	h.create(shop)
	p := h.product(shop)
	if p.Shards != h.Shards {
		t.Errorf("shards: got %d, want %d", p.Shards, h.Shards)
	}
	if p.Limits != (push.Limits{}) || p.FirstVisit != (push.FirstVisit{}) || p.Sessions != nil {
		t.Errorf("defaults are stored where nothing was said: %+v", p)
	}
}

func badProducts(t *testing.T, h *harness) {
	for _, test := range []struct {
		name   string
		change func(*catalog.Product)
	}{
		{"no id", func(p *catalog.Product) { p.ID = "" }},
		{"capital letters", func(p *catalog.Product) { p.ID = "Shop" }},
		{"a separator in the id", func(p *catalog.Product) { p.ID = "a/b" }},
		{"NUL in the id", func(p *catalog.Product) { p.ID = "a\x00b" }},
		{"a long name", func(p *catalog.Product) { p.Name = strings.Repeat("x", catalog.MaxName+1) }},
		{"a line break in the name", func(p *catalog.Product) { p.Name = "a\nb" }},
		{"no UTF-8 in the name", func(p *catalog.Product) { p.Name = "\xff" }},
		{"negative shards", func(p *catalog.Product) { p.Shards = -1 }},
		{"many shards", func(p *catalog.Product) { p.Shards = catalog.MaxShards + 1 }},
		{"a negative limit", func(p *catalog.Product) { p.Limits.OwnBytes = -1 }},
		{"negative sessions", func(p *catalog.Product) { p.Limits.Sessions = -1 }},
		{"a negative time", func(p *catalog.Product) { p.Limits.TTL = -1 * time.Second }},
		{"a fraction of a millisecond", func(p *catalog.Product) { p.Limits.TTL = time.Microsecond }},
		{"idempotency for two days", func(p *catalog.Product) { p.Limits.KeyTTL = 48 * time.Hour }},
		{"a start that is none", func(p *catalog.Product) { p.FirstVisit.Later = 3 }},
		{"a negative lifetime of tokens", func(p *catalog.Product) { p.TokenLifetime = -1 }},
	} {
		p := catalog.Product{ID: shop}
		test.change(&p)
		_, err := h.Catalog.CreateProduct(h.ctx, p)
		wantError(t, test.name, err, push.KindInvalid, "bad_product")
	}
	if l, err := h.Catalog.Products(h.ctx, catalog.Page{}); err != nil || len(l.Items) != 0 {
		t.Errorf("after refusals: got %v, %v", l, err)
	}

	h.create(shop)
	before := h.product(shop)
	bad := before
	bad.Name = "a\nb"
	_, err := h.Catalog.UpdateProduct(h.ctx, bad)
	wantError(t, "UpdateProduct", err, push.KindInvalid, "bad_product")
	if got := h.product(shop); got != before {
		t.Errorf("a refused update changed the product to %+v", got)
	}
}

func productExistsOnce(t *testing.T, h *harness) {
	h.create(shop)
	before := h.product(shop)
	_, err := h.Catalog.CreateProduct(h.ctx, catalog.Product{ID: shop, Name: "again"})
	wantError(t, "CreateProduct again", err, push.KindConflict, "product_exists")
	if got := h.product(shop); got != before {
		t.Errorf("a refused product changed the one there to %+v", got)
	}
}

func updateReplaces(t *testing.T, h *harness) {
	created, err := h.Catalog.CreateProduct(h.ctx, full(shop))
	if err != nil {
		t.Fatal(err)
	}
	h.Elapse(time.Minute)
	want := catalog.Product{ID: shop, Name: "other", Limits: push.Limits{OwnMessages: 9}, Created: 1, Updated: 2}
	got, err := h.Catalog.UpdateProduct(h.ctx, want)
	if err != nil {
		t.Fatalf("UpdateProduct: %v", err)
	}
	want.Shards, want.Created, want.Revision = created.Shards, created.Created, 2
	want.Updated = created.Updated.Add(time.Minute)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("UpdateProduct:\n got %+v\nwant %+v", got, want)
	}
	if got := h.product(shop); !reflect.DeepEqual(got, want) {
		t.Errorf("Product:\n got %+v\nwant %+v", got, want)
	}
	_, err = h.Catalog.UpdateProduct(h.ctx, catalog.Product{ID: game})
	wantError(t, "UpdateProduct of none", err, push.KindNotFound, "product_not_found")
	_, err = h.Catalog.Product(h.ctx, game)
	wantError(t, "Product of none", err, push.KindNotFound, "product_not_found")
}

func updateOfOldRevision(t *testing.T, h *harness) {
	h.create(shop)
	first := h.product(shop)
	change := first
	change.Name = "one"
	if _, err := h.Catalog.UpdateProduct(h.ctx, change); err != nil {
		t.Fatalf("UpdateProduct: %v", err)
	}
	change.Name = "two" // made from the first revision too
	_, err := h.Catalog.UpdateProduct(h.ctx, change)
	wantError(t, "UpdateProduct of an old revision", err, push.KindConflict, "product_changed")
	if got := h.product(shop).Name; got != "one" {
		t.Errorf("name: got %q, want %q", got, "one")
	}
}

func shardsAreFixed(t *testing.T, h *harness) {
	h.create(shop)
	p := h.product(shop)
	p.Shards++
	_, err := h.Catalog.UpdateProduct(h.ctx, p)
	wantError(t, "UpdateProduct", err, push.KindInvalid, "shards_fixed")
	if got := h.product(shop).Shards; got != h.Shards {
		t.Errorf("shards: got %d, want %d", got, h.Shards)
	}
}

// pages reads a whole list by pages of that size and returns the ids in each.
func pages[T any](t *testing.T, size int, read func(catalog.Page) (catalog.List[T], error), id func(T) string) (ids []string) {
	t.Helper()
	page := catalog.Page{Limit: size}
	for {
		l, err := read(page)
		if err != nil {
			t.Fatalf("list after %q: %v", page.After, err)
		}
		if len(l.Items) > size || l.Next != "" && len(l.Items) != size {
			t.Fatalf("a page of %d has %d items, next %q", size, len(l.Items), l.Next)
		}
		for _, item := range l.Items {
			ids = append(ids, id(item))
		}
		if l.Next == "" {
			return ids
		}
		page.After = l.Next
	}
}

func productsInPages(t *testing.T, h *harness) {
	read := func(p catalog.Page) (catalog.List[catalog.Product], error) { return h.Catalog.Products(h.ctx, p) }
	id := func(p catalog.Product) string { return string(p.ID) }
	if got := pages(t, 5, read, id); len(got) != 0 {
		t.Fatalf("an empty catalog lists %v", got)
	}
	want := []string{"0", "a", "a-", "a-b", "a0", "aa", "a_", "ab", "b", "z_z"}
	for _, i := range []int{3, 0, 9, 1, 7, 2, 8, 6, 5, 4} {
		h.create(push.ProductID(want[i]))
	}
	slices.Sort(want)
	for _, size := range []int{1, 3, 5, 10, 11} {
		if got := pages(t, size, read, id); !slices.Equal(got, want) {
			t.Errorf("pages of %d: got %v, want %v", size, got, want)
		}
	}
	// A cursor need not name what is there: it might have been another node's.
	l, err := read(catalog.Page{After: "a-a", Limit: 2})
	if err != nil || len(l.Items) != 2 || l.Items[0].ID != "a-b" {
		t.Errorf("after a name between two: got %v, %v", l, err)
	}
	for i := range catalog.DefaultPage {
		h.create(push.ProductID(fmt.Sprintf("many-%03d", i)))
	}
	if l, err = read(catalog.Page{}); err != nil || len(l.Items) != catalog.DefaultPage || l.Next == "" {
		t.Errorf("a page without a size: %d items, next %q, %v", len(l.Items), l.Next, err)
	}
}

func raceToCreate(t *testing.T, h *harness) {
	const racers = 8
	var wg sync.WaitGroup
	errs := make([]error, racers)
	for i := range racers {
		wg.Go(func() {
			_, errs[i] = h.Catalog.CreateProduct(h.ctx, catalog.Product{ID: shop, Name: fmt.Sprint(i)})
		})
	}
	wg.Wait()
	winner := slices.Index(errs, nil)
	if winner < 0 {
		t.Fatalf("nobody won: %v", errs)
	}
	for i, err := range errs {
		if i != winner {
			wantError(t, "a loser", err, push.KindConflict, "product_exists")
		}
	}
	if got := h.product(shop).Name; got != fmt.Sprint(winner) {
		t.Errorf("the product is that of %s, the winner was %d", got, winner)
	}
}

func raceToUpdate(t *testing.T, h *harness) {
	const racers, each = 4, 5
	h.create(shop)
	var wg sync.WaitGroup
	errs := make(chan error, racers)
	for range racers {
		wg.Go(func() {
			for range each {
				for {
					p, err := h.Catalog.Product(h.ctx, shop)
					if err == nil {
						p.Limits.OwnMessages++
						_, err = h.Catalog.UpdateProduct(h.ctx, p)
					}
					if err == nil {
						break
					}
					if push.KindOf(err) != push.KindConflict {
						errs <- err
						return
					}
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
	p := h.product(shop)
	if p.Limits.OwnMessages != racers*each || p.Revision != 1+racers*each {
		t.Errorf("%d updates counted to %d, revision %d", racers*each, p.Limits.OwnMessages, p.Revision)
	}
}
