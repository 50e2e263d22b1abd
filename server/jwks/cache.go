package jwks

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/catalog"
	"carillon/server/clock"
	"carillon/server/push"
)

// Config says how a cache is made. Fetch is needed; zero fields mean the defaults.
type Config struct {
	Fetch Fetch
	Clock clock.Clock  // clock.System
	Log   *slog.Logger // none

	Least, Most time.Duration // a set is good for as long as its max-age says, within these: 1 min, 1 h
	Default     time.Duration // where it does not say: 10 min
	Every       time.Duration // an address is asked at most once in this time: 10 s
	Keep        time.Duration // the last set goes on for so long, counted from when it was read, while its address fails: 6 h
	Wait        time.Duration // a connect waits for a set at most so long: 2 s
	Timeout     time.Duration // of a fetch: 5 s

	Products   int // whose sets are held: 10 000
	Waiters    int // connects of one product that wait at a time; the rest are answered at once: 8
	AllWaiters int // of all products: 64
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = clock.System
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	def(&c.Least, time.Minute)
	def(&c.Most, time.Hour)
	def(&c.Default, 10*time.Minute)
	def(&c.Every, 10*time.Second)
	def(&c.Keep, 6*time.Hour)
	def(&c.Wait, 2*time.Second)
	def(&c.Timeout, 5*time.Second)
	def(&c.Products, 10_000)
	def(&c.Waiters, 8)
	def(&c.AllWaiters, 64)
	return c
}

func def[T ~int | ~int64](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

// Cache holds the key sets of products. All methods are safe for concurrent use. It has a goroutine for each fetch that is under
// way, and none otherwise; Close ends them.
type Cache struct {
	// Static after construction.
	conf Config
	ctx  context.Context // of all fetches; ended by Close
	stop context.CancelFunc

	fetches         sync.WaitGroup
	fetched, failed atomic.Int64

	mu      sync.Mutex // guards all below
	closed  bool
	sets    map[push.ProductID]*entry
	waiting int
}

// entry is what is known of one product's address. Guarded by Cache.mu.
type entry struct {
	address  string
	revision uint64 // of the product, when the set was asked for: setting the address anew has it read anew
	asked    uint64 // of the product, when the address was asked last

	set   Set       // nil: none was read yet
	read  time.Time // when it was asked for
	until time.Time // it is good without asking
	ahead time.Time // from here on it is asked for beside the connects that use it
	tried time.Time // when the address was asked last, with or without success
	fails bool      // the last time failed

	flight  chan struct{} // closed when the fetch under way is over; nil: none is
	waiting int
}

// NewCache returns an empty cache.
func NewCache(c Config) (*Cache, error) {
	if c.Fetch == nil {
		return nil, errors.New("jwks: a cache needs Fetch")
	}
	c = c.withDefaults()
	if c.Least > c.Most || c.Least < 0 || c.Every < 0 || c.Keep < 0 || c.Wait < 0 {
		return nil, errors.New("jwks: times are not negative, and the least is not above the most")
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Cache{conf: c, ctx: ctx, stop: stop, sets: make(map[push.ProductID]*entry)}, nil
}

// Close ends fetches that are under way and waits for them. Calls that come later, or wait, are told that keys cannot be had.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.fetches.Wait()
	return nil
}

// Counts returns how many fetches succeeded and failed.
func (c *Cache) Counts() (fetched, failed int64) { return c.fetched.Load(), c.failed.Load() }

// errUnavailable says that a key cannot be judged now. Whoever asks again later may be told otherwise.
func errUnavailable(after time.Duration) error {
	return &push.Error{
		Kind: push.KindUnavailable, Code: "keys_unavailable", Detail: "the product's keys cannot be had now", After: max(after, time.Second),
	}
}

// LookupKey returns the key that a product publishes under an id; nobody changes it. KindNotFound, "key_not_found": the product
// publishes none, and has been asked since. KindUnavailable, "keys_unavailable": that cannot be told now.
func (c *Cache) LookupKey(ctx context.Context, p *catalog.Product, id catalog.KeyID) (*catalog.DeviceKey, error) {
	if p.JWKS == "" || !CheckKeyID(id) {
		return nil, catalog.ErrKeyNotFound()
	}
	began := c.conf.Clock.Now()
	for {
		k, on, err := c.look(p, id, began)
		if on == nil {
			return k, err
		}
		if err := c.wait(ctx, on, began.Add(c.conf.Wait)); err != nil {
			return nil, err
		}
	}
}

// pending is what a call waits for.
type pending struct {
	e      *entry
	flight chan struct{}
}

// look answers from what there is, or returns what to wait for; the caller is counted among those who wait then.
func (c *Cache) look(p *catalog.Product, id catalog.KeyID, began time.Time) (*catalog.DeviceKey, *pending, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, errUnavailable(0)
	}
	e, now := c.entryLocked(p), c.conf.Clock.Now()
	k := e.set[id]
	good := e.set != nil && now.Before(e.until) && e.revision >= p.Revision
	switch {
	case good && k != nil:
		if !now.Before(e.ahead) {
			c.requestLocked(p, e, now)
		}
		return k, nil, nil
	case good && !e.read.Before(began): // it was asked for after the token came
		return nil, nil, catalog.ErrKeyNotFound()
	}
	c.requestLocked(p, e, now)
	if k != nil && e.fails && now.Before(e.read.Add(c.conf.Keep)) {
		return k, nil, nil
	}
	if e.flight != nil && now.Before(began.Add(c.conf.Wait)) && e.waiting < c.conf.Waiters && c.waiting < c.conf.AllWaiters {
		e.waiting++
		c.waiting++
		return nil, &pending{e, e.flight}, nil
	}
	if k != nil && e.flight != nil && now.Before(e.until.Add(c.conf.Every)) {
		return k, nil, nil // many come at once, and the answer is on its way
	}
	return nil, nil, errUnavailable(e.tried.Add(c.conf.Every).Sub(now))
}

// entryLocked returns the product's entry. Another address is another set.
func (c *Cache) entryLocked(p *catalog.Product) *entry {
	e := c.sets[p.ID]
	if e != nil && e.address == p.JWKS {
		return e
	}
	if e == nil && len(c.sets) >= c.conf.Products {
		for other := range c.sets {
			delete(c.sets, other)
			break
		}
	}
	e = &entry{address: p.JWKS}
	c.sets[p.ID] = e
	return e
}

// requestLocked begins a fetch, unless one is under way or it is too early for another. A product that was changed is not too
// early: somebody may have set the address anew to have it read.
func (c *Cache) requestLocked(p *catalog.Product, e *entry, now time.Time) {
	if e.flight != nil || now.Before(e.tried.Add(c.conf.Every)) && e.asked >= p.Revision {
		return
	}
	e.tried, e.asked, e.flight = now, p.Revision, make(chan struct{})
	product, revision := p.ID, p.Revision
	c.fetches.Go(func() { c.fetch(product, e, revision, now) })
}

// fetch reads the set and notes it. It runs in a goroutine of its own, one for each entry.
func (c *Cache) fetch(product push.ProductID, e *entry, revision uint64, began time.Time) {
	ctx, cancel := context.WithTimeout(c.ctx, c.conf.Timeout)
	defer cancel()
	set, maxAge, err := c.read(ctx, product, e.address)
	if err != nil {
		c.failed.Add(1)
		c.conf.Log.Warn("the keys of a product cannot be read", "product", string(product), "err", err)
	} else {
		c.fetched.Add(1)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	close(e.flight)
	e.flight = nil
	if e.fails = err != nil; e.fails {
		return
	}
	if maxAge < 0 {
		maxAge = c.conf.Default
	}
	life := min(max(maxAge, c.conf.Least), c.conf.Most)
	e.set, e.revision = set, revision
	e.read, e.until, e.ahead = began, began.Add(life), began.Add(life*3/4)
}

func (c *Cache) read(ctx context.Context, product push.ProductID, address string) (Set, time.Duration, error) {
	b, maxAge, err := c.conf.Fetch(ctx, address)
	if err != nil {
		return nil, 0, err
	}
	set, passed, err := Parse(b)
	if err != nil {
		return nil, 0, err
	}
	if len(set) == 0 {
		c.conf.Log.Warn("a product publishes no key that can be taken", "product", string(product), "passed", passed)
	}
	for _, k := range set {
		k.Product = product
	}
	return set, maxAge, nil
}

// wait waits for a fetch, until that moment at the latest.
func (c *Cache) wait(ctx context.Context, on *pending, latest time.Time) error {
	late := make(chan struct{})
	t := c.conf.Clock.AfterFunc(latest.Sub(c.conf.Clock.Now()), func() { close(late) })
	defer t.Stop()
	var err error
	select {
	case <-on.flight:
	case <-late:
	case <-c.ctx.Done():
	case <-ctx.Done():
		err = errUnavailable(0)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting--
	on.e.waiting--
	return err
}
