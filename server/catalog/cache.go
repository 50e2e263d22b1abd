package catalog

import (
	"context"
	"errors"
	"sync"
	"time"

	"carillon/server/clock"
	"carillon/server/push"
)

// Cache answers from memory what connects and requests ask all the time. It is a Catalog itself: writes pass through it
// and show at once, lists are read from the store.
//
// How it stays true: what it holds was read under a version of the store. It asks the store for its version at most once in
// MaxAge, however much it holds; while the version stays the same everything stays good, when it differs everything is read
// anew as it is asked for. So a key that another node revoked stops working within MaxAge, and one revoked here at
// once. If the store does not answer, the cache does not either: a revoked key must not live on through a failure.
//
// Revocations it holds all of, and follows their changes whenever the version differs: nobody can push one out, and a token
// that is not revoked, as nearly all are, costs no question either.
//
// It is bounded in what it found and, apart, in what it did not find, so that nobody can push out good entries by asking
// for what is not there. All methods are safe for concurrent use. It has no goroutine of its own.
type Cache struct {
	// Static after construction.
	store Catalog
	clock clock.Clock
	conf  CacheConfig

	mu       sync.RWMutex // guards all below; never held while the store is asked
	known    bool         // version and checked say something
	version  Version
	checked  time.Time // the version was asked for no earlier than this
	writes   uint64    // local writes so far
	asking   *flight   // the question for the version that is under way
	products table[push.ProductID, Product]
	devices  table[deviceKeyName, DeviceKey]
	apis     table[APIKeyID, APIKey]
	revoked  revokedSet
}

// CacheConfig says how a cache is made. Its zero value is useful.
type CacheConfig struct {
	Clock    clock.Clock   // clock.System if nil
	MaxAge   time.Duration // how old what it answers may be; 0 means 1 s
	MaxFound int           // entries of each sort; 0 means 100 000
	MaxNone  int           // noted absences of each sort; 0 means 10 000
}

type deviceKeyName struct {
	product push.ProductID
	id      KeyID
}

var _ Catalog = (*Cache)(nil)

// NewCache returns an empty cache over a store. Closing it closes the store.
func NewCache(store Catalog, c CacheConfig) *Cache {
	if c.Clock == nil {
		c.Clock = clock.System
	}
	if c.MaxAge <= 0 {
		c.MaxAge = time.Second
	}
	if c.MaxFound <= 0 {
		c.MaxFound = 100_000
	}
	if c.MaxNone <= 0 {
		c.MaxNone = 10_000
	}
	return &Cache{
		store: store, clock: c.Clock, conf: c,
		products: newTable[push.ProductID, Product](), devices: newTable[deviceKeyName, DeviceKey](),
		apis: newTable[APIKeyID, APIKey](), revoked: newRevokedSet(),
	}
}

// LookupProduct returns a product that the caller must not change. The same pointer means that nothing changed.
func (c *Cache) LookupProduct(ctx context.Context, id push.ProductID) (*Product, error) {
	return lookup(ctx, c, &c.products, id, Catalog.Product)
}

// LookupDeviceKey returns a key that the caller must not change. The same pointer means that nothing changed.
func (c *Cache) LookupDeviceKey(ctx context.Context, p push.ProductID, id KeyID) (*DeviceKey, error) {
	return lookup(ctx, c, &c.devices, deviceKeyName{p, id}, loadDeviceKey)
}

// LookupAPIKey returns a key that the caller must not change. The same pointer means that nothing changed.
func (c *Cache) LookupAPIKey(ctx context.Context, id APIKeyID) (*APIKey, error) {
	return lookup(ctx, c, &c.apis, id, Catalog.APIKey)
}

func loadDeviceKey(store Catalog, ctx context.Context, n deviceKeyName) (DeviceKey, error) {
	return store.DeviceKey(ctx, n.product, n.id)
}

// table holds what the cache knows of one sort.
type table[K comparable, V any] struct {
	found   map[K]cached[V]
	none    map[K]absent
	loading map[K]*flight
}

type cached[V any] struct {
	value   *V
	version Version // of the cache when the value was asked for: the value is that old or newer
}

type absent struct {
	err     error
	version Version
}

// flight is a question to the store that is under way. Whoever waits for it looks at the cache again afterwards, since
// the answer may be older than what the waiter must see. done is closed by the one who asks, after err was set; that
// something was not found is an answer and no error.
type flight struct {
	done chan struct{}
	err  error
}

func newTable[K comparable, V any]() table[K, V] {
	return table[K, V]{make(map[K]cached[V]), make(map[K]absent), make(map[K]*flight)}
}

// lookup answers from the table, or asks the store. Of many who ask for the same at once, one asks the store.
func lookup[K comparable, V any](ctx context.Context, c *Cache, t *table[K, V], k K,
	load func(Catalog, context.Context, K) (V, error),
) (*V, error) {
	began := c.clock.Now()
	for {
		c.mu.RLock()
		v, err, ok := t.get(c, k, began, began)
		c.mu.RUnlock()
		if ok {
			return v, err
		}
		if err := c.refresh(ctx, began); err != nil {
			return nil, err
		}
		v, err, ok = t.loadOnce(ctx, c, k, began, load)
		if ok {
			return v, err
		}
	}
}

// get looks into the table; ok is false if it does not know. The caller holds the lock.
func (t *table[K, V]) get(c *Cache, k K, began, now time.Time) (v *V, err error, ok bool) {
	if !c.freshLocked(began, now) {
		return nil, nil, false
	}
	if e, is := t.found[k]; is && e.version == c.version {
		return e.value, nil, true
	}
	if e, is := t.none[k]; is && e.version == c.version {
		return nil, e.err, true
	}
	return nil, nil, false
}

// loadOnce asks the store and notes the answer, or waits for somebody who is asking already; ok is false then.
func (t *table[K, V]) loadOnce(ctx context.Context, c *Cache, k K, began time.Time,
	load func(Catalog, context.Context, K) (V, error),
) (v *V, err error, ok bool) {
	now := c.clock.Now()
	c.mu.Lock()
	if v, err, ok := t.get(c, k, began, now); ok || !c.freshLocked(began, now) {
		c.mu.Unlock()
		return v, err, ok
	}
	if f := t.loading[k]; f != nil {
		c.mu.Unlock()
		err := f.wait(ctx)
		return nil, err, err != nil && (ctx.Err() != nil || !isEnd(err))
	}
	f := &flight{done: make(chan struct{})}
	t.loading[k] = f
	version := c.version
	c.mu.Unlock()
	defer close(f.done)

	got, err := load(c.store, ctx, k)

	c.mu.Lock()
	defer c.mu.Unlock()
	delete(t.loading, k)
	switch push.KindOf(err) {
	case push.KindNotFound:
		delete(t.found, k)
		makeRoom(t.none, k, c.conf.MaxNone)
		t.none[k] = absent{err, version}
		return nil, err, true
	default:
		if err != nil {
			f.err = err
			return nil, err, true
		}
		delete(t.none, k)
		makeRoom(t.found, k, c.conf.MaxFound)
		t.found[k] = cached[V]{&got, version}
		return &got, nil, true
	}
}

// makeRoom takes any entry out if the map is full and k is not in it.
func makeRoom[K comparable, E any](m map[K]E, k K, most int) {
	if _, in := m[k]; in || len(m) < most {
		return
	}
	for other := range m {
		delete(m, other)
		return
	}
}

// freshLocked reports whether the version is young enough: asked for within MaxAge, or since the caller began.
func (c *Cache) freshLocked(began, now time.Time) bool {
	return c.known && (!c.checked.Before(began) || now.Sub(c.checked) < c.conf.MaxAge)
}

// refresh asks the store for its version unless the one at hand is young enough.
func (c *Cache) refresh(ctx context.Context, began time.Time) error {
	for {
		now := c.clock.Now()
		c.mu.Lock()
		if c.freshLocked(began, now) {
			c.mu.Unlock()
			return nil
		}
		if f := c.asking; f != nil {
			c.mu.Unlock()
			if err := f.wait(ctx); ctx.Err() != nil || err != nil && !isEnd(err) {
				return err
			}
			continue
		}
		f := &flight{done: make(chan struct{})}
		c.asking = f
		writes := c.writes
		c.mu.Unlock()

		v, err := c.store.Version(ctx)

		c.mu.Lock()
		c.asking = nil
		if err == nil && c.writes == writes { // otherwise the answer may be from before a local write
			c.known, c.version, c.checked = true, v, now
		}
		c.mu.Unlock()
		f.err = err
		close(f.done)
		if err != nil {
			return err
		}
	}
}

// wait waits for the answer, or for the end of the caller's own context.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ErrUnavailable(ctx.Err())
	}
}

// isEnd reports whether an error is the end of the context of the one who asked: nothing that concerns those who waited.
func isEnd(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// Expire has the cache ask the store for its version before it answers again: for who hears that another node wrote, and may
// not wait for MaxAge.
func (c *Cache) Expire() { c.wrote() }

// wrote makes everything that was read before a local write old. It is called whatever became of the write.
func (c *Cache) wrote() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	c.known = false
}
