package pebble

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/catalog"
	"carillon/server/clock/clocktest"
	"carillon/server/push"
)

// keys counts the records of a sort.
func (c *Catalog) keys(t *testing.T, prefix []byte) (n int) {
	t.Helper()
	it, err := c.db.ScanPrefix(prefix)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// Whatever comes, each revocation has one place among the changes and one among the ends, and products are counted right.
func TestCatalog_RevocationsAndWhatPointsAtThemStayTogether(t *testing.T) {
	clock := clocktest.New()
	cat := newCatalog(t, opened(t, vfs.NewMem(), "data", 1), clock)
	products := map[push.ProductID]time.Duration{"a": time.Minute, "b": 3 * time.Hour, "a-b": 24 * time.Hour}
	for p, life := range products {
		if _, err := cat.CreateProduct(t.Context(), catalog.Product{ID: p, TokenLifetime: life}); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(7, 1))
	for range 500 {
		p := []push.ProductID{"a", "b", "a-b"}[rng.IntN(3)]
		target := catalog.RevocationTarget{User: push.UserID(fmt.Sprint("u", rng.IntN(10)))}
		switch rng.IntN(3) {
		case 0:
			target.Device = push.DeviceID(fmt.Sprint("d", rng.IntN(3)))
		case 1:
			target.TokenID = fmt.Sprint("t", rng.IntN(3))
		}
		var err error
		if rng.IntN(4) == 0 {
			err = cat.LiftRevocation(t.Context(), p, target)
		} else {
			_, err = cat.Revoke(t.Context(), catalog.Revocation{Product: p, RevocationTarget: target})
		}
		if err != nil && push.KindOf(err) != push.KindNotFound {
			t.Fatal(err)
		}
		clock.Advance(time.Duration(rng.IntN(600)) * time.Second)
	}
	all := cat.keys(t, keyOf(sortRevocation))
	if changes, ends := cat.keys(t, keyOf(sortChange)), cat.keys(t, keyOf(sortEnd)); changes != all || ends != all || all == 0 {
		t.Errorf("%d revocations, %d places among the changes, %d among the ends", all, changes, ends)
	}
	for p := range products {
		counted, err := (&revocationCounts{c: cat}).of(p)
		if there := cat.keys(t, keyOf(sortRevocation, string(p))); err != nil || int(counted) != there {
			t.Errorf("%s: counted %d (%v), there are %d", p, counted, err, there)
		}
	}
}

func TestCatalog_AFullProductRefusesAnotherRevocationUntilSomeHaveEnded(t *testing.T) {
	clock := clocktest.New()
	cat := newCatalog(t, opened(t, vfs.NewMem(), "data", 1), clock)
	for _, p := range []push.ProductID{"shop", "game"} {
		if _, err := cat.CreateProduct(t.Context(), catalog.Product{ID: p, TokenLifetime: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	revoke := func(p push.ProductID, u push.UserID) error {
		_, err := cat.Revoke(t.Context(), catalog.Revocation{Product: p, RevocationTarget: catalog.RevocationTarget{User: u}})
		return err
	}
	if err := revoke("shop", "alice"); err != nil {
		t.Fatal(err)
	}
	full := cat.db.NewBatch() // as if there were others
	full.Set(countKey("shop"), binary.BigEndian.AppendUint64(nil, catalog.MaxRevocations))
	ticket, err := cat.db.Commit(full)
	if err == nil {
		err = ticket.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := revoke("shop", "bob"); push.KindOf(err) != push.KindLimited {
		t.Errorf("one more: %v, want KindLimited", err)
	}
	if err := revoke("shop", "alice"); err != nil {
		t.Errorf("one that is there already: %v", err)
	}
	if err := revoke("game", "bob"); err != nil {
		t.Errorf("another product: %v", err)
	}
	clock.Advance(3 * time.Hour)
	if err := revoke("shop", "bob"); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}

// What others have left behind is cleared away too, and does not stand before what the product itself has.
func TestCatalog_AFullProductHasRoomOnceItsOwnHaveEndedWhateverOthersLeftBehind(t *testing.T) {
	clock := clocktest.New()
	cat := newCatalog(t, opened(t, vfs.NewMem(), "data", 1), clock)
	for _, p := range []push.ProductID{"shop", "game"} {
		if _, err := cat.CreateProduct(t.Context(), catalog.Product{ID: p, TokenLifetime: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	revoke := func(p push.ProductID, u string) error {
		_, err := cat.Revoke(t.Context(), catalog.Revocation{Product: p, RevocationTarget: catalog.RevocationTarget{User: push.UserID(u)}})
		return err
	}
	for i := range 3 * catalog.SweptAtRevoke {
		if err := revoke("game", fmt.Sprint("u", i)); err != nil {
			t.Fatal(err)
		}
	}
	clock.Advance(time.Minute)
	if err := revoke("shop", "alice"); err != nil {
		t.Fatal(err)
	}
	full := cat.db.NewBatch() // as if there were others
	full.Set(countKey("shop"), binary.BigEndian.AppendUint64(nil, catalog.MaxRevocations))
	if _, err := cat.db.Commit(full); err != nil {
		t.Fatal(err)
	}
	clock.Advance(3 * time.Hour)
	if err := revoke("shop", "bob"); err != nil {
		t.Errorf("all have ended: %v", err)
	}
	if all, changes, ends := cat.keys(t, keyOf(sortRevocation)), cat.keys(t, keyOf(sortChange)), cat.keys(t, keyOf(sortEnd)); all != 1 || changes != 1 || ends != 1 {
		t.Errorf("%d revocations, %d places among the changes, %d among the ends; want bob's alone", all, changes, ends)
	}
}
