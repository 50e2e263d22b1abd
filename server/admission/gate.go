package admission

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"carillon/server/clock"
	"carillon/server/push"
)

// Config says what a node takes. A limit of 0 is none.
type Config struct {
	Rate       int // connections a second
	Burst      int // at once; Rate, if 0
	Sessions   int // connections at a time
	PerAddress int // of one address at a time

	AddressRate  int // connections a second of one address
	AddressBurst int // at once; AddressRate, if 0

	AddressRequests int // requests a second of one address that begin no session, see AdmitRequest; ten times as many at once

	// Refusals are those that are told so, a second on the whole node, and AddressRefusals those of one address that went past a
	// limit of its own; ten times as many at once. The Door does not let in who comes beyond them.
	Refusals, AddressRefusals int

	// HeapBytes is what may be live on Go's heap, by the last collection, before no more are taken.
	HeapBytes int64

	Clock   clock.Clock          // clock.System
	Random  func() float64       // in [0, 1); a random source of the process
	Live    func() (bytes int64) // what is live on the heap; by default as the runtime says
	Collect func()               // collects the heap, and waits for that; runtime.GC
	Metrics *Metrics             // NewMetrics(nil)
}

// Gate admits connections. All methods are safe for concurrent use.
type Gate struct {
	// Static after construction.
	cfg         Config
	began       time.Time
	pace        pace // of the node
	addressPace pace
	requestPace pace
	holders     *holders // nil: no limit by address
	rates       *rates   // nil: no rate by address
	requests    *rates   // nil: no rate of requests by address
	refusals    *refusals

	bucket   bucket
	queue    queue
	sessions atomic.Int64
	looked   atomic.Int64  // the moment at which the heap was looked at last
	heavy    atomic.Bool   // it was above its budget then
	shut     chan struct{} // holds a token when somebody was refused for that since Run looked; never closed
}

// New returns a gate through which nobody has come yet.
func New(cfg Config) (*Gate, error) {
	if min(cfg.Rate, cfg.Burst, cfg.Sessions, cfg.PerAddress, cfg.AddressRate, cfg.AddressBurst, cfg.AddressRequests,
		cfg.Refusals, cfg.AddressRefusals) < 0 || cfg.HeapBytes < 0 {
		return nil, errors.New("admission: a limit is negative")
	}
	if cfg.Burst > 0 && cfg.Rate == 0 || cfg.AddressBurst > 0 && cfg.AddressRate == 0 {
		return nil, errors.New("admission: a burst without a rate")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	if cfg.Live == nil {
		cfg.Live = liveHeap
	}
	if cfg.Collect == nil {
		cfg.Collect = runtime.GC
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	byAddress := cfg.PerAddress > 0 || cfg.AddressRate > 0 || cfg.AddressRequests > 0
	if !byAddress {
		cfg.AddressRefusals = 0
	}
	if !byAddress && cfg.Rate == 0 && cfg.Sessions == 0 && cfg.HeapBytes == 0 {
		cfg.Refusals = 0
	}
	g := &Gate{
		cfg: cfg, began: cfg.Clock.Now(), refusals: newRefusals(cfg.Refusals, cfg.AddressRefusals), shut: make(chan struct{}, 1),
	}
	g.looked.Store(int64(-lookEvery))
	if cfg.Rate > 0 {
		g.pace = paceOf(cfg.Rate, cmp.Or(cfg.Burst, cfg.Rate))
	}
	if cfg.AddressRate > 0 {
		g.addressPace = paceOf(cfg.AddressRate, cmp.Or(cfg.AddressBurst, cfg.AddressRate))
		g.rates = newRates()
	}
	if cfg.AddressRequests > 0 {
		g.requestPace = paceOf(cfg.AddressRequests, requestBurst*cfg.AddressRequests)
		g.requests = newRates()
	}
	if cfg.PerAddress > 0 {
		g.holders = newHolders()
	}
	return g, nil
}

// requestBurst is how many seconds' worth of requests an address may make at once.
const requestBurst = 10

func (g *Gate) now() moment { return moment(g.cfg.Clock.Now().Sub(g.began)) }

// Admit asks for a place for a connection from an address; an invalid one has no limits of its own. The place is given back
// with [Gate.Leave], and the Address it is given for. An error is a *push.Error whose After says when to come back:
// KindLimited, "too_many_connections" or "connecting_too_fast", where the address has to mend its ways; KindUnavailable,
// "overloaded", where the node takes no more now.
func (g *Gate) Admit(from netip.Addr) (Address, error) {
	now := g.now()
	a := AddressOf(from)
	if a != 0 {
		if err := g.admitAddress(a, now); err != nil {
			return 0, err
		}
	}
	if err := g.admitNode(a, now); err != nil {
		if a != 0 {
			g.giveBack(a)
		}
		return 0, err
	}
	return a, nil
}

// AdmitRequest asks for a request from an address that begins no session and costs something before anybody knows whose it is. An
// error is a *push.Error of KindLimited, "too_many_requests", whose After says when to come back.
func (g *Gate) AdmitRequest(from netip.Addr) error {
	a := AddressOf(from)
	if g.requests == nil || a == 0 {
		return nil
	}
	now := g.now()
	wait, ok := g.requests.take(a, g.requestPace, now)
	if ok {
		return nil
	}
	return g.limited(refusedRequests, a, now, "too_many_requests", "this address sends too many requests", wait)
}

// admitAddress is about what the address may by itself. Without an error it has taken what giveBack gives back.
func (g *Gate) admitAddress(a Address, now moment) error {
	if g.holders != nil && !g.holders.enter(a, g.cfg.PerAddress) {
		return g.limited(refusedHolding, a, now, "too_many_connections", "this address holds as many connections as it may", minAfter)
	}
	if g.rates == nil {
		return nil
	}
	wait, ok := g.rates.take(a, g.addressPace, now)
	if ok {
		return nil
	}
	if g.holders != nil {
		g.holders.leave(a)
	}
	return g.limited(refusedHurry, a, now, "connecting_too_fast", "this address connects too often", wait)
}

func (g *Gate) giveBack(a Address) {
	if g.holders != nil {
		g.holders.leave(a)
	}
	// The address's rate is spent: it did connect, whatever the node made of it.
}

func (g *Gate) admitNode(a Address, now moment) error {
	if g.cfg.HeapBytes > 0 && g.isHeavy(now) {
		return g.overloaded(refusedMemory, a, now)
	}
	if n := g.sessions.Add(1); g.cfg.Sessions > 0 && n > int64(g.cfg.Sessions) {
		g.sessions.Add(-1)
		return g.overloaded(refusedFull, a, now)
	}
	if g.cfg.Rate > 0 {
		if _, ok := g.bucket.take(g.pace, now); !ok {
			g.sessions.Add(-1)
			return g.overloaded(refusedRate, a, now)
		}
	}
	return nil
}

// overloaded refuses for the node's sake, with a moment to come back at.
func (g *Gate) overloaded(why reason, a Address, now moment) error {
	g.refusals.note(a, false, now)
	p := g.pace
	if g.cfg.Rate == 0 {
		p = defaultPace
	}
	return g.refuse(why, push.KindUnavailable, "overloaded", "this node takes no more connections now", g.queue.after(p, now, g.cfg.Random()))
}

// defaultPace is at what pace those come back who were refused by a node without a rate.
var defaultPace = paceOf(1000, 1000)

// limited refuses an address for what it does itself.
func (g *Gate) limited(why reason, a Address, now moment, code, detail string, after time.Duration) error {
	g.refusals.note(a, true, now)
	return g.refuse(why, push.KindLimited, code, detail, after)
}

func (g *Gate) refuse(why reason, kind push.Kind, code, detail string, after time.Duration) error {
	g.cfg.Metrics.refused(why)
	return &push.Error{Kind: kind, Code: code, Detail: detail, After: max(after, minAfter)}
}

// Leave gives a place back, with what Admit returned for it.
func (g *Gate) Leave(a Address) {
	g.sessions.Add(-1)
	if a != 0 && g.holders != nil {
		g.holders.leave(a)
	}
}

// Sessions returns how many places are taken.
func (g *Gate) Sessions() int { return int(g.sessions.Load()) }
