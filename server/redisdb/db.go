package redisdb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/push"
)

// DB is Redis as stores use it. All methods are safe for concurrent use.
type DB struct {
	// Static after Open.
	config Config
	scouts []scout
	layout *layout

	closed  atomic.Bool
	closing chan struct{}  // closed by Close
	running sync.WaitGroup // callers, lanes that run, units that wait to be tried again, the watch

	asked chan struct{} // holds a token when the layout should be learned anew; nobody closes it

	entering sync.RWMutex // so that nobody enters once closed is set

	confirming sync.Mutex // held while it is asked who the primaries are; learning is taken under it
	confirmed  time.Time  // when the last answered question began; guarded by confirming

	learning sync.Mutex
	// Guarded by learning. That a primary has a slot is changed under it, and read without it.
	primaries map[string]*primary // by address
	guests    map[string]time.Time
	followed  int64 // the number of the sentinels' configuration that the primary is of
}

// Open connects, loads the functions on every primary, and checks that each keeps what Durability promises. Its error is of KindUnavailable if
// that may succeed later: nobody is there, or not ready yet. It is of KindInvalid if waiting changes nothing: the configuration cannot be meant
// (invalid_config), a server refuses us or is of another form (store_refused), or its settings keep too little (store_weak).
func Open(ctx context.Context, c Config) (*DB, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	quiet()
	db := &DB{config: c, closing: make(chan struct{}), asked: make(chan struct{}, 1), primaries: make(map[string]*primary), guests: make(map[string]time.Time)}
	db.layout = db.newLayout()
	if c.Mode != Standalone {
		for _, a := range c.Addrs {
			db.scouts = append(db.scouts, db.newScout(a))
		}
	}
	if err := db.check(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("redisdb: open: %w", err), db.Close())
	}
	db.running.Go(db.watch)
	return db, nil
}

// check looks at all primaries, and fails if one would not do.
func (db *DB) check(ctx context.Context) error {
	if err := db.learn(ctx); err != nil {
		return errOpen(err)
	}
	ps := db.all()
	if len(ps) == 0 {
		return errUnknown(errNobody)
	}
	for _, p := range ps {
		if err := db.checkPrimary(ctx, p); err != nil {
			return errOpen(fmt.Errorf("%s: %w", p.addr, err))
		}
	}
	return nil
}

func (db *DB) checkPrimary(ctx context.Context, p *primary) error {
	if err := db.checkForm(ctx, p); err != nil {
		return err
	}
	s, err := db.look(ctx, p.plain)
	if err != nil {
		return err
	}
	p.note(s)
	err = s.mayConnect()
	var weak *push.Error
	if errors.As(err, &weak) {
		return &push.Error{Kind: push.KindInvalid, Code: weak.Code, Detail: weak.Detail}
	}
	if err != nil {
		return err
	}
	return p.load(ctx)
}

// enter counts a caller in, unless the store is closed.
func (db *DB) enter() bool {
	db.entering.RLock()
	defer db.entering.RUnlock()
	if db.closed.Load() {
		return false
	}
	db.running.Add(1)
	return true
}

// Close waits for what is under way, refuses what is waiting, and ends the connections. Later calls fail with KindClosed.
func (db *DB) Close() error {
	db.entering.Lock()
	was := db.closed.Swap(true)
	db.entering.Unlock()
	if was {
		return nil
	}
	close(db.closing)
	db.running.Wait()
	var errs []error
	for _, p := range db.all() {
		errs = append(errs, p.close())
	}
	for _, s := range db.scouts {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// Durability returns what a write survives.
func (db *DB) Durability() push.Durability { return db.config.Durability }

// again has units sent again that surely were not executed, when it makes sense, or answers them if that would be too late.
func (db *DB) again(b *batch, f fate) {
	until := b.since.Add(db.config.Patience)
	if f.moves {
		until = b.until
	}
	if f.from != nil && f.from.isDown() {
		until = time.Time{}
	}
	wait := time.Duration(0)
	if !f.now || b.tries > 3 {
		wait = backoff(b.tries)
	}
	if time.Now().Add(wait).After(until) || db.closed.Load() {
		b.fail(f.err)
		return
	}
	db.config.Metrics.again.Add(float64(len(b.units)))
	db.running.Go(func() {
		if wait > 0 {
			t := time.NewTimer(wait)
			defer t.Stop()
			select {
			case <-t.C:
			case <-db.closing:
				b.fail(errClosed())
				return
			}
		}
		db.prepare(b, f)
		for _, b := range db.split(b, f) {
			db.enqueue(b)
		}
	})
}

// backoff is how long to wait before the n-th time.
func backoff(n int) time.Duration {
	most := min(5*time.Millisecond<<min(n, 6), 200*time.Millisecond)
	return most/2 + rand.N(most/2+1)
}

// prepare does what has to be done before units are sent again.
func (db *DB) prepare(b *batch, f fate) {
	ctx, cancel := context.WithTimeout(context.Background(), db.config.Timeout)
	defer cancel()
	switch {
	case f.load:
		if err := f.from.load(ctx); err != nil {
			db.config.Log.Warn("redis: the functions could not be loaded", "address", f.from.addr, "error", err)
		} else {
			db.config.Log.Info("redis: the functions were loaded again", "address", f.from.addr)
		}
	case f.movedTo != "":
		db.moved(f.movedNum, f.movedTo)
	case f.replica:
		db.replace(f.from)
	}
	if f.learn {
		db.relearn()
	}
}

// split sorts units by the lane that they have now. Those that a node asks another one to take go there, whoever has the slot.
func (db *DB) split(b *batch, f fate) []*batch {
	if f.asking != "" {
		b.asking = true
		if db.guest(f.asking).lane(b.units[0]).enqueue(b) {
			return nil
		}
		b.asking = false
	}
	byLane := make(map[*lane]*batch)
	var bs []*batch
	for _, u := range b.units {
		l := db.laneOf(u)
		if byLane[l] == nil {
			byLane[l] = &batch{of: b.of, until: b.until, since: b.since, tries: b.tries}
			bs = append(bs, byLane[l])
		}
		byLane[l].units = append(byLane[l].units, u)
	}
	return bs
}

// relearn has the layout learned anew, soon.
func (db *DB) relearn() {
	select {
	case db.asked <- struct{}{}:
	default:
	}
}
