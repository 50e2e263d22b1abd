package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"carillon/server/catalog"
	"carillon/server/catalog/memory"
	"carillon/server/push"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// countingStore counts what it is asked and may be made to wait or to fail.
type countingStore struct {
	catalog.Catalog
	reads, versions atomic.Int32

	mu   sync.Mutex
	gate map[string]chan struct{} // calls of that name wait for it
	fail error                    // what reads answer with
}

func (s *countingStore) wait(ctx context.Context, name string) error {
	s.mu.Lock()
	g, err := s.gate[name], s.fail
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if g == nil {
		return nil
	}
	select {
	case <-g:
		return nil
	case <-ctx.Done():
		return catalog.ErrUnavailable(ctx.Err())
	}
}

// hold makes calls of that name wait until the returned function is called.
func (s *countingStore) hold(name string) (release func()) {
	g := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = map[string]chan struct{}{name: g}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.gate = nil
		close(g)
	}
}

func (s *countingStore) failWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *countingStore) Version(ctx context.Context) (catalog.Version, error) {
	s.versions.Add(1)
	v, err := s.Catalog.Version(ctx) // before the wait: an answer that takes long is old when it arrives
	if err == nil {
		err = s.wait(ctx, "Version")
	}
	return v, err
}

func (s *countingStore) Product(ctx context.Context, id push.ProductID) (catalog.Product, error) {
	s.reads.Add(1)
	p, err := s.Catalog.Product(ctx, id)
	if e := s.wait(ctx, "Product"); e != nil {
		return catalog.Product{}, e
	}
	return p, err
}

// asked returns how often the store was asked for records and for its version since the last call.
func (s *countingStore) asked() [2]int32 { return [2]int32{s.reads.Swap(0), s.versions.Swap(0)} }

// newCache returns a cache over a counting store with products shop and game. It is called in a synctest bubble, whose
// time is the cache's.
func newCache(t *testing.T, c catalog.CacheConfig) (*catalog.Cache, *countingStore) {
	t.Helper()
	s := &countingStore{Catalog: memory.New(memory.Config{})}
	for _, id := range []push.ProductID{"shop", "game"} {
		if _, err := s.CreateProduct(t.Context(), catalog.Product{ID: id, Name: "one"}); err != nil {
			t.Fatal(err)
		}
	}
	return catalog.NewCache(s, c), s
}

func name(t *testing.T, c *catalog.Cache) string {
	t.Helper()
	p, err := c.LookupProduct(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	return p.Name
}

func rename(t *testing.T, c catalog.Catalog, to string) {
	t.Helper()
	if _, err := c.UpdateProduct(t.Context(), catalog.Product{ID: "shop", Name: to}); err != nil {
		t.Fatal(err)
	}
}

func TestCache_HotPathAsksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(t, catalog.CacheConfig{})
		for range 10 {
			name(t, c)
		}
		if got := s.asked(); got != [2]int32{1, 1} {
			t.Errorf("ten look-ups: got %v questions for records and versions, want [1 1]", got)
		}
		for range 5 {
			time.Sleep(time.Second)
			for range 10 {
				name(t, c)
				if _, err := c.LookupProduct(t.Context(), "none"); push.KindOf(err) != push.KindNotFound {
					t.Fatal(err)
				}
			}
		}
		if got := s.asked(); got != [2]int32{1, 5} { // the one record is the product that is not there
			t.Errorf("five seconds without a write: got %v questions, want [1 5]", got)
		}
		ctx := t.Context()
		if got := testing.AllocsPerRun(100, func() { c.LookupProduct(ctx, "shop") }); got > 0 {
			t.Errorf("a look-up that hits: got %v allocations, want 0", got)
		}
	})
}

func TestCache_WriteElsewhereShowsWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(t, catalog.CacheConfig{})
		name(t, c)
		before, _ := c.LookupProduct(t.Context(), "game")
		rename(t, s.Catalog, "two") // past the cache
		time.Sleep(time.Second - time.Nanosecond)
		if got := name(t, c); got != "one" {
			t.Errorf("within the second: got %q; this test no longer shows what it should", got)
		}
		time.Sleep(time.Nanosecond)
		if got := name(t, c); got != "two" {
			t.Errorf("after a second: got %q, want %q", got, "two")
		}
		if after, _ := c.LookupProduct(t.Context(), "game"); after == before {
			t.Error("what was read under an older version was not read anew")
		}
	})
}

func TestCache_WriteHereShowsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newCache(t, catalog.CacheConfig{})
		if _, err := c.LookupProduct(t.Context(), "new"); push.KindOf(err) != push.KindNotFound {
			t.Fatal(err)
		}
		if _, err := c.CreateProduct(t.Context(), catalog.Product{ID: "new"}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.LookupProduct(t.Context(), "new"); err != nil {
			t.Errorf("right after it was created: %v", err)
		}
		for i := range 5 {
			want := fmt.Sprint("name-", i)
			rename(t, c, want)
			if got := name(t, c); got != want {
				t.Errorf("right after the write: got %q, want %q", got, want)
			}
		}
	})
}

// TestCache_SlowAnswerFromBeforeAWriteIsNotKept lets a question be answered before a local write and arrive after it.
func TestCache_SlowAnswerFromBeforeAWriteIsNotKept(t *testing.T) {
	for _, slow := range []string{"Version", "Product"} {
		t.Run(slow, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := newCache(t, catalog.CacheConfig{})
				if slow == "Version" { // the product is there, and good if the old version is believed
					name(t, c)
					time.Sleep(time.Second)
				}
				release := s.hold(slow)
				var wg sync.WaitGroup
				wg.Go(func() { c.LookupProduct(t.Context(), "shop") })
				synctest.Wait()
				rename(t, c, "two")
				var got string
				wg.Go(func() { // waits for the same answer, and must not take it
					if p, err := c.LookupProduct(t.Context(), "shop"); err == nil {
						got = p.Name
					}
				})
				synctest.Wait()
				release()
				wg.Wait()
				if got != "two" || name(t, c) != "two" {
					t.Errorf("after the write: got %q, then %q, want %q", got, name(t, c), "two")
				}
			})
		})
	}
}

func TestCache_ManyWhoAskAtOnceAskOnce(t *testing.T) {
	for _, slow := range []string{"Version", "Product"} {
		t.Run(slow, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := newCache(t, catalog.CacheConfig{})
				release := s.hold(slow)
				var wg sync.WaitGroup
				for range 50 {
					wg.Go(func() {
						if p, err := c.LookupProduct(t.Context(), "shop"); err != nil || p.Name != "one" {
							t.Errorf("got %+v, %v", p, err)
						}
					})
				}
				synctest.Wait()
				release()
				wg.Wait()
				if got := s.asked(); got != [2]int32{1, 1} {
					t.Errorf("got %v questions for records and versions, want [1 1]", got)
				}
			})
		})
	}
}

func TestCache_WhoeverGivesUpTakesNobodyAlong(t *testing.T) {
	for _, slow := range []string{"Version", "Product"} {
		t.Run(slow, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := newCache(t, catalog.CacheConfig{})
				release := s.hold(slow)
				first, giveUp := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() {
					if _, err := c.LookupProduct(first, "shop"); !errors.Is(err, context.Canceled) {
						t.Errorf("who gave up: got %v", err)
					}
				})
				synctest.Wait()
				for range 3 {
					wg.Go(func() {
						if p, err := c.LookupProduct(t.Context(), "shop"); err != nil || p.Name != "one" {
							t.Errorf("who waited: got %+v, %v", p, err)
						}
					})
				}
				impatient, stop := context.WithCancel(t.Context())
				wg.Go(func() {
					if _, err := c.LookupProduct(impatient, "shop"); push.KindOf(err) != push.KindUnavailable {
						t.Errorf("who stopped waiting: got %v", err)
					}
				})
				synctest.Wait()
				stop()
				synctest.Wait()
				giveUp()
				synctest.Wait()
				release()
				wg.Wait()
			})
		})
	}
}

// slowStore takes its time to tell its version.
type slowStore struct {
	catalog.Catalog
	asked int
}

func (s *slowStore) Version(ctx context.Context) (catalog.Version, error) {
	if s.asked++; s.asked > 5 {
		return 0, errors.New("asked again and again")
	}
	v, err := s.Catalog.Version(ctx)
	time.Sleep(3 * time.Second)
	return v, err
}

func TestCache_VersionThatTookLongerThanItsAgeServesWhoAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, counting := newCache(t, catalog.CacheConfig{})
		s := &slowStore{Catalog: counting.Catalog}
		c := catalog.NewCache(s, catalog.CacheConfig{})
		for range 2 {
			if got := name(t, c); got != "one" {
				t.Errorf("got %q", got)
			}
		}
		if s.asked != 2 {
			t.Errorf("two look-ups asked for the version %d times, want 2", s.asked)
		}
	})
}

func TestCache_StoreThatFailsIsNotAnsweredFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(t, catalog.CacheConfig{})
		name(t, c)
		s.failWith(catalog.ErrUnavailable(errors.New("down")))
		if got := name(t, c); got != "one" {
			t.Errorf("within the second: got %q", got)
		}
		time.Sleep(time.Second)
		for range 2 {
			if _, err := c.LookupProduct(t.Context(), "shop"); push.KindOf(err) != push.KindUnavailable {
				t.Errorf("after a second: got %v, want KindUnavailable", err)
			}
		}
		s.failWith(nil)
		if got := name(t, c); got != "one" {
			t.Errorf("when the store is back: got %q", got)
		}
	})
}

func TestCache_IsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(t, catalog.CacheConfig{MaxFound: 2, MaxNone: 3})
		ctx := t.Context()
		name(t, c)
		if _, err := c.LookupProduct(ctx, "game"); err != nil {
			t.Fatal(err)
		}
		s.asked()
		for i := range 100 { // asking for what is not there pushes nothing out that is
			if _, err := c.LookupProduct(ctx, push.ProductID(fmt.Sprint("none-", i))); push.KindOf(err) != push.KindNotFound {
				t.Fatal(err)
			}
		}
		if got := s.asked(); got != [2]int32{100, 0} {
			t.Errorf("a hundred strangers: got %v questions, want [100 0]", got)
		}
		name(t, c)
		if got := s.asked(); got != [2]int32{0, 0} {
			t.Errorf("what was there: got %v questions, want none", got)
		}
		kept := 0
		for i := range 100 {
			c.LookupProduct(ctx, push.ProductID(fmt.Sprint("none-", i)))
			if s.asked()[0] == 0 {
				kept++
			}
		}
		if kept > 3 {
			t.Errorf("%d absences are kept, want at most 3", kept)
		}
		for i := range 20 {
			if _, err := s.Catalog.CreateProduct(ctx, catalog.Product{ID: push.ProductID(fmt.Sprint("p", i))}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		for range 2 {
			for i := range 20 {
				if _, err := c.LookupProduct(ctx, push.ProductID(fmt.Sprint("p", i))); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := s.asked()[0]; got < 20+18 {
			t.Errorf("twenty products twice through two places: got %d questions, want at least 38", got)
		}
	})
}
