package catalog_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/catalog"
	"carillon/server/push"
)

// revoke writes a revocation into a catalog, or through a cache.
func revoke(t *testing.T, c catalog.Catalog, target catalog.RevocationTarget) catalog.Revocation {
	t.Helper()
	r, err := c.Revoke(t.Context(), catalog.Revocation{Product: "shop", RevocationTarget: target})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// refused asks the cache about a token of alice's phone.
func refused(t *testing.T, c *catalog.Cache, tokenID string, issued push.MilliTime) bool {
	t.Helper()
	r, err := c.LookupRevocation(t.Context(), "shop", "alice", "phone", tokenID, issued)
	if err != nil {
		t.Fatal(err)
	}
	return r != nil
}

func TestCache_RevocationRefusesItsTargetAlone(t *testing.T) {
	for _, test := range []struct {
		name   string
		target catalog.RevocationTarget
		want   bool
	}{
		{"the user", catalog.RevocationTarget{User: "alice"}, true},
		{"the device", catalog.RevocationTarget{User: "alice", Device: "phone"}, true},
		{"the token", catalog.RevocationTarget{User: "alice", TokenID: "t-1"}, true},
		{"another user", catalog.RevocationTarget{User: "bob"}, false},
		{"another user's device of that name", catalog.RevocationTarget{User: "bob", Device: "phone"}, false},
		{"another device", catalog.RevocationTarget{User: "alice", Device: "web"}, false},
		{"another token", catalog.RevocationTarget{User: "alice", TokenID: "t-2"}, false},
		{"a token that has the device's name", catalog.RevocationTarget{User: "alice", TokenID: "phone"}, false},
		{"a device that has the token's name", catalog.RevocationTarget{User: "alice", Device: "t-1"}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newCache(t, catalog.CacheConfig{})
			r := revoke(t, c, test.target)
			if got := refused(t, c, "t-1", r.At-1); got != test.want {
				t.Errorf("%s: refused %v, want %v", test.name, got, test.want)
			}
			if test.want && refused(t, c, "t-1", r.At+1) != (test.target.TokenID != "") {
				t.Errorf("%s: a token issued later is refused by its id, and by that alone", test.name)
			}
			if r, err := c.LookupRevocation(t.Context(), "game", "alice", "phone", "t-1", 0); r != nil || err != nil {
				t.Errorf("%s: in another product got %v, %v", test.name, r, err)
			}
		})
	}
}

func TestCache_RevocationJudgesWhenATokenWasIssued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newCache(t, catalog.CacheConfig{})
		r := revoke(t, c, catalog.RevocationTarget{User: "alice"})
		for issued, want := range map[push.MilliTime]bool{0: true, 1: true, r.At - 1: true, r.At: true, r.At + 1: false} {
			if got := refused(t, c, "", issued); got != want {
				t.Errorf("issued %d, revoked %d: refused %v, want %v", issued, r.At, got, want)
			}
		}
		time.Sleep(time.Until(r.Until.Time()) - time.Millisecond)
		if !refused(t, c, "", 0) {
			t.Error("it ended too early")
		}
		time.Sleep(time.Millisecond)
		if refused(t, c, "", 0) {
			t.Error("it did not end")
		}
	})
}

func TestCache_RevocationHereShowsAtOnceAndElsewhereWithinMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(t, catalog.CacheConfig{MaxAge: time.Second})
		if refused(t, c, "", 0) {
			t.Fatal("refused before anything was revoked")
		}
		r := revoke(t, c, catalog.RevocationTarget{User: "alice"})
		if !refused(t, c, "", r.At) {
			t.Error("what was revoked here is not refused at once")
		}
		if err := c.LiftRevocation(t.Context(), "shop", catalog.RevocationTarget{User: "alice"}); err != nil {
			t.Fatal(err)
		}
		if refused(t, c, "", r.At) {
			t.Error("what was lifted here is still refused")
		}
		revoke(t, s, catalog.RevocationTarget{User: "alice", Device: "phone"}) // another node does
		time.Sleep(time.Second)
		if !refused(t, c, "", r.At) {
			t.Error("what another node revoked is not refused after MaxAge")
		}
	})
}

// countingChanges counts how often changes are asked for.
type countingChanges struct {
	*countingStore
	n atomic.Int32
}

func (s *countingChanges) RevocationChanges(
	ctx context.Context, after catalog.Change, limit int,
) ([]catalog.Revocation, error) {
	s.n.Add(1)
	if err := s.wait(ctx, "RevocationChanges"); err != nil {
		return nil, err
	}
	return s.countingStore.RevocationChanges(ctx, after, limit)
}

func TestCache_RevocationsAreAskedForWhenTheVersionDiffersAndByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, inner := newCache(t, catalog.CacheConfig{})
		s := &countingChanges{countingStore: inner}
		c := catalog.NewCache(s, catalog.CacheConfig{MaxAge: time.Second})
		const n = 2*catalog.MaxChanges + 1
		for i := range n {
			revoke(t, s, catalog.RevocationTarget{User: push.UserID(fmt.Sprint("u", i))})
		}
		last := revoke(t, s, catalog.RevocationTarget{User: "alice"})

		release := s.hold("RevocationChanges")
		results := make(chan bool, 10)
		for range 10 {
			go func() { results <- refused(t, c, "", last.At) }()
		}
		synctest.Wait()
		if got := s.n.Load(); got != 1 {
			t.Errorf("%d asked at once, want one for all", got)
		}
		release()
		for range 10 {
			if !<-results {
				t.Error("somebody who waited was let in")
			}
		}
		if got, want := s.n.Swap(0), int32(n/catalog.MaxChanges+1); got != want {
			t.Errorf("asked %d times for %d revocations, want %d", got, n+1, want)
		}
		for range 100 {
			if !refused(t, c, "", last.At) {
				t.Fatal("let in")
			}
		}
		time.Sleep(time.Hour)
		refused(t, c, "", 0)
		if got := s.n.Load(); got != 0 {
			t.Errorf("asked %d times while nothing changed", got)
		}
		rename(t, c, "two")
		refused(t, c, "", 0)
		if got := s.n.Load(); got != 1 {
			t.Errorf("asked %d times after another change, want once", got)
		}
	})
}

func TestCache_WithoutItsStoreNobodyIsLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, inner := newCache(t, catalog.CacheConfig{})
		s := &countingChanges{countingStore: inner}
		c := catalog.NewCache(s, catalog.CacheConfig{MaxAge: time.Second})
		refused(t, c, "", 0)
		rename(t, c, "two")
		s.failWith(catalog.ErrUnavailable(nil))
		for range 2 {
			if _, err := c.LookupRevocation(t.Context(), "shop", "alice", "phone", "", 0); push.KindOf(err) != push.KindUnavailable {
				t.Errorf("got %v, want KindUnavailable", err)
			}
		}
		s.failWith(nil)
		if refused(t, c, "", 0) {
			t.Error("refused after the store came back")
		}
	})
}
