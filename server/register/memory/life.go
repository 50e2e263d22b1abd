package memory

import (
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/push"
	"carillon/server/register"
)

// life is one boot of a room, from its Join until its lease runs out, it leaves, or another boot joins.
type life struct {
	id   push.RoomID // static
	boot push.BootID // static

	addr  atomic.Pointer[string]
	ended atomic.Bool  // set once, before the life goes to the graves
	until atomic.Int64 // when the lease runs out, as Register.now; a life that is past it is never renewed

	products sync.Map // push.ProductID to *counts; grows with the products that the room has seen

	mu     sync.Mutex
	orders []register.Order // guarded by mu; those since the last renewal, nil once ended

	tags heldTags

	lists [stripeCount]*entry // the sessions of each stripe, guarded by that stripe's lock
}

// room returns the room as the contract tells it.
func (l *life) room() register.Room {
	return register.Room{ID: l.id, Boot: l.boot, Addr: *l.addr.Load()}
}

// counts reports whether the life's sessions count at that moment.
func (l *life) counts(now time.Duration) bool {
	return !l.ended.Load() && now < time.Duration(l.until.Load())
}

// end ends the life and drops its orders: whatever they were about does not count any more.
func (l *life) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended.Store(true)
	l.orders = nil
}

// order leaves an order for the room's next renewal. It does so for a lease that seems to have run out too: a renewal
// that began before that moment may still win, and must then find the order.
func (l *life) order(o register.Order) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended.Load() {
		l.orders = append(l.orders, o)
	}
}

// takeOrders returns the orders since the last call.
func (l *life) takeOrders() []register.Order {
	l.mu.Lock()
	defer l.mu.Unlock()
	os := l.orders
	l.orders = nil
	return os
}

// countsOf returns the counts of a product on this life, nil if it never had a session here.
func (l *life) countsOf(p push.ProductID) *counts {
	if c, ok := l.products.Load(p); ok {
		return c.(*counts)
	}
	return nil
}

// needCounts returns the counts of a product on this life and makes them if there are none.
func (l *life) needCounts(p push.ProductID) *counts {
	if c := l.countsOf(p); c != nil {
		return c
	}
	c, _ := l.products.LoadOrStore(p, &counts{life: l, product: p})
	return c.(*counts)
}

// chunkSize shards share a chunk of counters.
const chunkSize = 256

// counts are the numbers of one product's sessions on one life. Chunks of shards are made when they are first used:
// most products use one.
type counts struct {
	life    *life
	product push.ProductID
	all     atomic.Int64
	shards  [(1 << 16) / chunkSize]atomic.Pointer[[chunkSize]atomic.Int32]
}

// add changes the number of sessions of a shard.
func (c *counts) add(s push.Shard, n int32) {
	at := &c.shards[s/chunkSize]
	chunk := at.Load()
	for chunk == nil {
		at.CompareAndSwap(nil, new([chunkSize]atomic.Int32))
		chunk = at.Load()
	}
	chunk[s%chunkSize].Add(n)
	c.all.Add(int64(n))
}

// of returns the number of sessions of a shard.
func (c *counts) of(s push.Shard) int32 {
	if chunk := c.shards[s/chunkSize].Load(); chunk != nil {
		return chunk[s%chunkSize].Load()
	}
	return 0
}

// table holds the present life of each room. It is replaced, never changed.
type table struct {
	byRoom map[push.RoomID]*life
	list   []*life // by room id
}

// lifeOf returns the life of that room and boot, nil if it is not the present one.
func (t *table) lifeOf(room push.RoomID, boot push.BootID) *life {
	if l := t.byRoom[room]; l != nil && l.boot == boot {
		return l
	}
	return nil
}
