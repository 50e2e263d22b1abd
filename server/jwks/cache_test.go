package jwks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/catalog"
	"carillon/server/push"
)

// site is what a product publishes, and how well it is reached.
type site struct {
	mu     sync.Mutex
	doc    []byte
	maxAge time.Duration
	takes  time.Duration
	fail   error
	asked  int
	now    int // requests under way
	most   int
}

func (s *site) set(f func(*site)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *site) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.asked
	s.asked = 0
	return n
}

func (s *site) fetch(ctx context.Context, _ string) ([]byte, time.Duration, error) {
	s.mu.Lock()
	s.asked++
	s.now++
	s.most = max(s.most, s.now)
	doc, maxAge, takes, fail := s.doc, s.maxAge, s.takes, s.fail
	s.mu.Unlock()
	defer s.set(func(s *site) { s.now-- })
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	return doc, maxAge, fail
}

// publish has the site publish keys of those ids.
func (s *site) publish(t *testing.T, ids ...string) {
	t.Helper()
	keys := make([]any, len(ids))
	for i, id := range ids {
		keys[i] = edKey(id, private().ed)
	}
	doc := documentOf(t, keys...)
	s.set(func(s *site) { s.doc = doc })
}

// town is a cache over the sites of products, on virtual time.
type town struct {
	t     *testing.T
	cache *Cache
	sites map[string]*site // by address
	log   bytes.Buffer
}

func inTown(t *testing.T, tune func(*Config), f func(w *town, s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &town{t: t, sites: map[string]*site{shop().JWKS: {maxAge: -1}}}
		c := Config{
			Fetch: func(ctx context.Context, address string) ([]byte, time.Duration, error) {
				return w.sites[address].fetch(ctx, address)
			},
			Log: slog.New(slog.NewTextHandler(&w.log, nil)),
		}
		if tune != nil {
			tune(&c)
		}
		var err error
		if w.cache, err = NewCache(c); err != nil {
			t.Fatal(err)
		}
		f(w, w.sites[shop().JWKS])
		if err := w.cache.Close(); err != nil {
			t.Error(err)
		}
		if w.cache.waiting != 0 {
			t.Errorf("%d are counted as waiting after all left", w.cache.waiting)
		}
	})
}

func shop() *catalog.Product {
	return &catalog.Product{ID: "shop", JWKS: "https://shop.example.com/keys", Revision: 1}
}

// verdict is what the cache says of a key: found, unknown, or later.
func (w *town) verdict(id string) string { return w.verdictOf(shop(), id) }

func (w *town) verdictOf(p *catalog.Product, id string) string {
	w.t.Helper()
	k, err := w.cache.LookupKey(w.t.Context(), p, catalog.KeyID(id))
	var e *push.Error
	switch {
	case err == nil && k.ID == catalog.KeyID(id) && k.Product == p.ID:
		return "found"
	case errors.As(err, &e) && e.Kind == push.KindNotFound && e.Code == "key_not_found" && k == nil:
		return "unknown"
	case errors.As(err, &e) && e.Kind == push.KindUnavailable && e.Code == "keys_unavailable" && e.After > 0 && k == nil:
		return "later"
	}
	w.t.Errorf("%s: got %+v, %v", id, k, err)
	return ""
}

func (w *town) want(id, want string) {
	w.t.Helper()
	if got := w.verdict(id); got != want {
		w.t.Errorf("key %s: %s, want %s", id, got, want)
	}
}

func TestCache_AsksOnceAndAnswersFromMemory(t *testing.T) {
	inTown(t, nil, func(w *town, s *site) {
		s.publish(t, "a", "b")
		s.set(func(s *site) { s.takes = 100 * time.Millisecond })
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() { w.want("a", "found") })
		}
		all.Wait()
		for range 100 {
			w.want("b", "found")
		}
		if n := s.requests(); n != 1 {
			t.Errorf("asked %d times, want once", n)
		}
	})
}

func TestCache_KeepsASetForItsMaxAgeWithinBounds(t *testing.T) {
	for said, want := range map[time.Duration]time.Duration{
		-1: 10 * time.Minute, 0: time.Minute, time.Second: time.Minute, 5 * time.Minute: 5 * time.Minute, 365 * 24 * time.Hour: time.Hour,
	} {
		inTown(t, nil, func(w *town, s *site) {
			s.publish(t, "a")
			s.set(func(s *site) { s.maxAge = said })
			w.want("a", "found")
			s.publish(t)
			time.Sleep(want*3/4 - 1) // no request ahead of time yet
			w.want("a", "found")
			if n := s.requests(); n != 1 {
				t.Errorf("max-age %v: asked %d times, want once", said, n)
			}
			time.Sleep(want/4 + 1)
			w.want("a", "unknown")
			if n := s.requests(); n != 1 {
				t.Errorf("max-age %v: asked %d times once it was over, want once", said, n)
			}
		})
	}
}

func TestCache_UnderLoadNobodyWaitsForTheNextSet(t *testing.T) {
	inTown(t, nil, func(w *town, s *site) {
		s.publish(t, "a")
		w.want("a", "found")
		s.set(func(s *site) { s.takes = 3 * time.Second })
		s.requests()
		for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(time.Second) {
			before := time.Now()
			w.want("a", "found")
			if waited := time.Since(before); waited != 0 {
				t.Fatalf("a connect waited %v for a slow address", waited)
			}
		}
		if n := s.requests(); n < 5 || n > 10 {
			t.Errorf("asked %d times in an hour, want about every seven minutes", n)
		}
	})
}

func TestCache_KeyThatIsNotPublishedAnyMoreIsRefusedAfterAnIdleTime(t *testing.T) {
	inTown(t, nil, func(w *town, s *site) {
		s.publish(t, "a")
		w.want("a", "found")
		s.publish(t, "b")
		time.Sleep(3 * time.Hour) // nobody connects
		w.want("a", "unknown")
		w.want("b", "found")
	})
}

func TestCache_UnknownKeyHasItReadAtOnceAndNotMoreOftenThanAllowed(t *testing.T) {
	inTown(t, nil, func(w *town, s *site) {
		s.publish(t, "a")
		w.want("a", "found")
		time.Sleep(10 * time.Second)
		s.publish(t, "a", "b")
		w.want("b", "found") // long before the set's time is over
		if n := s.requests(); n != 2 {
			t.Errorf("asked %d times, want twice", n)
		}
		for i := range 10_000 { // whatever tokens come
			if got := w.verdict(fmt.Sprint("made-up-", i)); got == "found" {
				t.Fatal("found")
			}
			w.want("a", "found")
			time.Sleep(time.Millisecond)
		}
		if n := s.requests(); n > 1 {
			t.Errorf("asked %d times in ten seconds", n)
		}
	})
}

// A token can be signed the moment its key is published. It is told to come back, and is not refused.
func TestCache_KeyPublishedAMomentAgoIsNotRefused(t *testing.T) {
	inTown(t, nil, func(w *town, s *site) {
		s.publish(t, "a")
		w.want("a", "found")
		time.Sleep(time.Second)
		s.publish(t, "a", "b")
		w.want("b", "later")
		time.Sleep(9 * time.Second)
		w.want("b", "found")
		time.Sleep(time.Millisecond)
		w.want("c", "later")
		time.Sleep(10 * time.Second)
		w.want("c", "unknown")
	})
}

func TestCache_LastSetGoesOnForATimeWhileTheAddressFails(t *testing.T) {
	for name, fail := range map[string]func(*site){
		"an error":        func(s *site) { s.fail = errors.New("no route") },
		"no answer":       func(s *site) { s.takes = time.Hour },
		"a page":          func(s *site) { s.doc = []byte("<html>") },
		"a large set":     func(s *site) { s.doc = make([]byte, MaxDocument+1) },
		"nothing at all":  func(s *site) { s.doc = nil },
		"an error object": func(s *site) { s.doc = []byte(`{"error":"down"}`) },
	} {
		t.Run(name, func(t *testing.T) {
			inTown(t, nil, func(w *town, s *site) {
				s.publish(t, "a")
				w.want("a", "found")
				good := s.doc
				s.set(fail)
				read := time.Now()
				time.Sleep(time.Second)
				for time.Since(read) < 6*time.Hour-time.Minute {
					before := time.Now()
					w.want("a", "found")
					if waited := time.Since(before); waited > 2*time.Second {
						t.Fatalf("a connect waited %v", waited)
					}
					if got := w.verdict("b"); got != "later" {
						t.Fatalf("an unknown key is %s while nobody can know", got)
					}
					time.Sleep(time.Minute)
				}
				time.Sleep(2 * time.Minute)
				if got := w.verdict("a"); got != "later" {
					t.Errorf("after six hours the key is %s, want that it cannot be told", got)
				}
				s.set(func(s *site) { s.doc, s.fail, s.takes = good, nil, 0 })
				time.Sleep(10 * time.Second)
				w.want("a", "found")
			})
		})
	}
}

func TestCache_FailureIsNotTriedAtEveryConnect(t *testing.T) {
	inTown(t, nil, func(w *town, s *site) {
		s.set(func(s *site) { s.fail = errors.New("no route to the secret address") })
		for range 600 {
			w.want("a", "later")
			time.Sleep(100 * time.Millisecond)
		}
		if n := s.requests(); n > 6 {
			t.Errorf("asked %d times in a minute, want 6 at most", n)
		}
		if !strings.Contains(w.log.String(), "product=shop") {
			t.Errorf("the log does not name the product: %s", w.log.String())
		}
		if fetched, failed := w.cache.Counts(); fetched != 0 || failed < 5 {
			t.Errorf("counted %d fetched and %d failed", fetched, failed)
		}
	})
}

// A slow address takes few of those that open sessions, for a short time, and nobody of another product.
func TestCache_SlowAddressHoldsUpFewAndNobodyElse(t *testing.T) {
	news := &catalog.Product{ID: "news", JWKS: "https://news.example.com/keys", Revision: 1}
	inTown(t, func(c *Config) { c.Waiters = 4 }, func(w *town, s *site) {
		w.sites[news.JWKS] = &site{maxAge: -1}
		w.sites[news.JWKS].publish(t, "n")
		s.publish(t, "a")
		s.set(func(s *site) { s.takes = time.Minute })
		began := time.Now()
		var all sync.WaitGroup
		var mu sync.Mutex
		waits := map[time.Duration]int{}
		for range 100 {
			all.Go(func() {
				if got := w.verdict("a"); got != "later" {
					t.Errorf("got %s", got)
				}
				mu.Lock()
				defer mu.Unlock()
				waits[time.Since(began)]++
			})
		}
		synctest.Wait()
		if got := w.verdictOf(news, "n"); got != "found" || time.Since(began) != 0 {
			t.Errorf("the other product's key is %s after %v", got, time.Since(began))
		}
		all.Wait()
		if waits[0] != 96 || waits[2*time.Second] != 4 {
			t.Errorf("waited: %v, want 4 of 100 for 2 s", waits)
		}
		if n := s.requests(); n != 1 || s.most != 1 {
			t.Errorf("asked %d times, %d at once, want one", n, s.most)
		}
	})
}

func TestCache_WaitersOfAllProductsAreBounded(t *testing.T) {
	inTown(t, func(c *Config) { c.AllWaiters = 10 }, func(w *town, _ *site) {
		began := time.Now()
		var all sync.WaitGroup
		var products []*catalog.Product
		for i := range 100 {
			p := &catalog.Product{ID: push.ProductID(fmt.Sprint("p", i)), JWKS: fmt.Sprint("https://example.com/", i), Revision: 1}
			w.sites[p.JWKS] = &site{takes: time.Hour}
			products = append(products, p)
		}
		for _, p := range products {
			all.Go(func() { w.verdictOf(p, "k") })
		}
		synctest.Wait()
		w.cache.mu.Lock()
		waiting := w.cache.waiting
		w.cache.mu.Unlock()
		if waiting != 10 {
			t.Errorf("%d wait, want 10", waiting)
		}
		all.Wait()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestCache_HoldsTheSetsOfABoundedNumberOfProducts(t *testing.T) {
	inTown(t, func(c *Config) { c.Products = 10 }, func(w *town, s *site) {
		s.publish(t, "a")
		for i := range 100 {
			p := &catalog.Product{ID: push.ProductID(fmt.Sprint("p", i)), JWKS: shop().JWKS, Revision: 1}
			if got := w.verdictOf(p, "a"); got != "found" {
				t.Fatalf("product %d: %s", i, got)
			}
			if n := len(w.cache.sets); n > 10 {
				t.Fatalf("%d sets are held", n)
			}
		}
	})
}

func TestCache_AnotherAddressIsAnotherSet(t *testing.T) {
	inTown(t, nil, func(w *town, s *site) {
		s.publish(t, "a")
		w.want("a", "found")
		moved := shop()
		moved.JWKS, moved.Revision = "https://other.example.com/keys", 2
		w.sites[moved.JWKS] = &site{fail: errors.New("down")}
		if got := w.verdictOf(moved, "a"); got != "later" {
			t.Errorf("a key of the old address is %s", got)
		}
		gone := shop()
		gone.JWKS = ""
		if got := w.verdictOf(gone, "a"); got != "unknown" {
			t.Errorf("without an address the key is %s", got)
		}
	})
}

func TestCache_SettingTheAddressAnewHasItReadAtOnce(t *testing.T) {
	inTown(t, nil, func(w *town, s *site) {
		s.publish(t, "a", "stolen")
		w.want("stolen", "found")
		time.Sleep(time.Second)
		s.publish(t, "a")
		again := shop()
		again.Revision++
		if got := w.verdictOf(again, "stolen"); got != "unknown" {
			t.Errorf("a key that is not published any more is %s", got)
		}
		s.set(func(s *site) { s.fail = errors.New("down") })
		again.Revision++
		if got := w.verdictOf(again, "a"); got != "found" {
			t.Errorf("while the address fails, a key is %s", got)
		}
		if got := w.verdictOf(shop(), "a"); got != "found" { // a node that has not seen the change yet
			t.Errorf("under the older product the key is %s", got)
		}
	})
}

func TestCache_CloseEndsFetchesAndThoseWhoWait(t *testing.T) {
	inTown(t, nil, func(w *town, s *site) {
		s.set(func(s *site) { s.takes = time.Hour })
		done := make(chan string, 1)
		go func() { done <- w.verdict("a") }()
		synctest.Wait()
		began := time.Now()
		if err := w.cache.Close(); err != nil {
			t.Fatal(err)
		}
		if got := <-done; got != "later" || time.Since(began) != 0 {
			t.Errorf("who waited was told %s after %v", got, time.Since(began))
		}
		w.want("a", "later")
	})
}

func TestCache_WhoeverLeavesIsCountedOut(t *testing.T) {
	inTown(t, nil, func(w *town, s *site) {
		s.set(func(s *site) { s.takes = time.Minute })
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := w.cache.LookupKey(ctx, shop(), "a")
		if push.KindOf(err) != push.KindUnavailable || time.Since(began) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}

// When a set's time has just run out and many come at once, a few wait for the next one and the others go by the last; when it
// ran out long ago, the others are told to come back.
func TestCache_ManyAtOnceGoByTheLastSetForAMomentAlone(t *testing.T) {
	for idle, others := range map[time.Duration]string{10*time.Minute + 5*time.Second: "found", time.Hour: "later"} {
		inTown(t, nil, func(w *town, s *site) {
			s.publish(t, "a")
			w.want("a", "found")
			s.set(func(s *site) { s.takes = 500 * time.Millisecond })
			time.Sleep(idle)
			began := time.Now()
			var all sync.WaitGroup
			var mu sync.Mutex
			got := map[string]int{}
			for range 100 {
				all.Go(func() {
					v := fmt.Sprint(w.verdict("a"), " after ", time.Since(began))
					mu.Lock()
					defer mu.Unlock()
					got[v]++
				})
			}
			all.Wait()
			if got["found after 500ms"] != 8 || got[others+" after 0s"] != 92 {
				t.Errorf("idle for %v: %v, want 8 that waited and 92 %s at once", idle, got, others)
			}
		})
	}
}
