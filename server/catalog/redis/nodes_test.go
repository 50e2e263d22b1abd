package redis

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/catalog"
	"carillon/server/catalog/catalogtest"
	"carillon/server/clock/clocktest"
	"carillon/server/push"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"
)

// nodes is a catalog whose calls go to several nodes in turn.
type nodes struct {
	all  []*Catalog
	next atomic.Uint64
}

func (n *nodes) one() *Catalog { return n.all[n.next.Add(1)%uint64(len(n.all))] }

func (n *nodes) CreateProduct(ctx context.Context, p catalog.Product) (catalog.Product, error) {
	return n.one().CreateProduct(ctx, p)
}

func (n *nodes) Product(ctx context.Context, id push.ProductID) (catalog.Product, error) {
	return n.one().Product(ctx, id)
}

func (n *nodes) Products(ctx context.Context, page catalog.Page) (catalog.List[catalog.Product], error) {
	return n.one().Products(ctx, page)
}

func (n *nodes) UpdateProduct(ctx context.Context, p catalog.Product) (catalog.Product, error) {
	return n.one().UpdateProduct(ctx, p)
}

func (n *nodes) AddDeviceKey(ctx context.Context, k catalog.DeviceKey) (catalog.DeviceKey, error) {
	return n.one().AddDeviceKey(ctx, k)
}

func (n *nodes) DeviceKey(ctx context.Context, p push.ProductID, id catalog.KeyID) (catalog.DeviceKey, error) {
	return n.one().DeviceKey(ctx, p, id)
}

func (n *nodes) DeviceKeys(ctx context.Context, p push.ProductID, page catalog.Page) (catalog.List[catalog.DeviceKey], error) {
	return n.one().DeviceKeys(ctx, p, page)
}

func (n *nodes) RevokeDeviceKey(ctx context.Context, p push.ProductID, id catalog.KeyID) (catalog.DeviceKey, error) {
	return n.one().RevokeDeviceKey(ctx, p, id)
}

func (n *nodes) AddAPIKey(ctx context.Context, k catalog.APIKey) (catalog.APIKey, error) {
	return n.one().AddAPIKey(ctx, k)
}

func (n *nodes) APIKey(ctx context.Context, id catalog.APIKeyID) (catalog.APIKey, error) {
	return n.one().APIKey(ctx, id)
}

func (n *nodes) APIKeys(ctx context.Context, p push.ProductID, page catalog.Page) (catalog.List[catalog.APIKey], error) {
	return n.one().APIKeys(ctx, p, page)
}

func (n *nodes) RevokeAPIKey(ctx context.Context, p push.ProductID, id catalog.APIKeyID) (catalog.APIKey, error) {
	return n.one().RevokeAPIKey(ctx, p, id)
}

func (n *nodes) Revoke(ctx context.Context, r catalog.Revocation) (catalog.Revocation, error) {
	return n.one().Revoke(ctx, r)
}

func (n *nodes) LiftRevocation(ctx context.Context, p push.ProductID, t catalog.RevocationTarget) error {
	return n.one().LiftRevocation(ctx, p, t)
}

func (n *nodes) Revocations(ctx context.Context, p push.ProductID, page catalog.Page) (catalog.List[catalog.Revocation], error) {
	return n.one().Revocations(ctx, p, page)
}

func (n *nodes) RevocationChanges(ctx context.Context, after catalog.Change, limit int) ([]catalog.Revocation, error) {
	return n.one().RevocationChanges(ctx, after, limit)
}

func (n *nodes) Version(ctx context.Context) (catalog.Version, error) { return n.one().Version(ctx) }

func (n *nodes) Close() error {
	var errs []error
	for _, c := range n.all {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// TestConformance_OverNodes has whatever one node writes be read, and raced for, by others.
func TestConformance_OverNodes(t *testing.T) {
	catalogtest.Run(t, func(t *testing.T) *catalogtest.Fixture {
		c := clocktest.New()
		of := pool.Standalone(t)
		mk := func() catalog.Catalog {
			n := &nodes{}
			for range 3 {
				n.all = append(n.all, open(t, redisdbtest.Open(t, of, c)))
			}
			return n
		}
		return &catalogtest.Fixture{Catalog: mk(), Shards: 1024, Elapse: c.Advance, Reopen: mk}
	})
}

func target(u string) catalog.RevocationTarget { return catalog.RevocationTarget{User: push.UserID(u)} }

func mustRevoke(t *testing.T, c *Catalog, p push.ProductID, u string) catalog.Revocation {
	t.Helper()
	r, err := c.Revoke(t.Context(), catalog.Revocation{Product: p, RevocationTarget: target(u)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestCatalog_StoreThatFellBackGivesNoVersionTwice sets the store back behind some writes and makes others, by a clock that is a little behind: whoever
// saw the lost ones must be able to tell, and to follow.
func TestCatalog_StoreThatFellBackGivesNoVersionTwice(t *testing.T) {
	of := pool.Standalone(t)
	clock := clocktest.New()
	c := open(t, redisdbtest.Open(t, of, clock))
	if _, err := c.CreateProduct(t.Context(), catalog.Product{ID: "shop"}); err != nil {
		t.Fatal(err)
	}
	server, ctx := of.Servers()[0].Client(), t.Context()
	clock.Advance(time.Hour) // the first version of all stands a minute ahead as well
	mustRevoke(t, c, "shop", "bob")
	then := map[string]string{}
	for _, k := range server.Keys(ctx, "*").Val() {
		then[k] = server.Dump(ctx, k).Val()
	}
	seen := map[catalog.Version]bool{}
	var last catalog.Change
	for i := range 5 {
		last = mustRevoke(t, c, "shop", fmt.Sprint("lost-", i)).Change
		v, err := c.Version(ctx)
		if err != nil {
			t.Fatal(err)
		}
		seen[v] = true
	}

	if err := server.FlushDB(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	for k, v := range then {
		if err := server.Restore(ctx, k, 0, v).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Do(ctx, "DEBUG", "CHANGE-REPL-ID").Err(); err != nil {
		t.Fatal(err)
	}
	clock.Advance(-50 * time.Second)
	kept := mustRevoke(t, c, "shop", "alice")
	if v, err := c.Version(ctx); err != nil || seen[v] {
		t.Errorf("version %d (%v) was that of another state", v, err)
	}
	rs, err := c.RevocationChanges(ctx, last, 0)
	if err != nil || len(rs) != 1 || rs[0] != kept {
		t.Errorf("who had followed up to %d is told %+v, %v; want %+v", last, rs, err, kept)
	}
}

// TestCatalog_AFullProductHasRoomOnceItsOwnHaveEndedWhateverOthersLeftBehind fills a product up, behind more of another one than a write clears away.
func TestCatalog_AFullProductHasRoomOnceItsOwnHaveEndedWhateverOthersLeftBehind(t *testing.T) {
	clock := clocktest.New()
	of := pool.Standalone(t)
	c := open(t, redisdbtest.Open(t, of, clock))
	for _, p := range []push.ProductID{"shop", "game"} {
		if _, err := c.CreateProduct(t.Context(), catalog.Product{ID: p, TokenLifetime: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 * catalog.SweptAtRevoke {
		mustRevoke(t, c, "game", fmt.Sprint("u", i))
	}
	clock.Advance(time.Minute)
	mustRevoke(t, c, "shop", "alice")
	server := of.Servers()[0].Client()
	for i := 1; i < catalog.MaxRevocations; { // as if there were others
		var some []any
		for ; i < catalog.MaxRevocations && len(some) < 2000; i++ {
			some = append(some, fmt.Sprint("other-", i), "{}")
		}
		if err := server.HSet(t.Context(), revocationsKey("shop"), some...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.Revoke(t.Context(), catalog.Revocation{Product: "shop", RevocationTarget: target("bob")})
	if push.KindOf(err) != push.KindLimited {
		t.Errorf("one more: %v, want KindLimited", err)
	}
	mustRevoke(t, c, "shop", "alice") // one that is there already
	mustRevoke(t, c, "game", "bob")
	clock.Advance(3 * time.Hour)
	mustRevoke(t, c, "shop", "bob")
	if ends := server.ZCard(t.Context(), endsKey).Val(); ends != 1 {
		t.Errorf("%d places among the ends, want bob's alone", ends)
	}
}

func TestCatalog_ServerThatWasKilledKeepsWhatWasAnswered(t *testing.T) {
	of := redistest.Standalone(t)
	c := open(t, redisdbtest.Open(t, of, nil))
	if _, err := c.CreateProduct(t.Context(), catalog.Product{ID: "shop"}); err != nil {
		t.Fatal(err)
	}
	want := mustRevoke(t, c, "shop", "alice")
	of.Servers()[0].Kill()
	if _, err := c.Product(t.Context(), "shop"); push.KindOf(err) != push.KindUnavailable {
		t.Errorf("without a server: %v, want KindUnavailable", err)
	}
	if err := of.Servers()[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := open(t, redisdbtest.Open(t, of, nil))
	rs, err := after.RevocationChanges(t.Context(), 0, 0)
	if err != nil || len(rs) != 1 || rs[0] != want {
		t.Errorf("after the kill: %+v, %v, want %+v", rs, err, want)
	}
}
