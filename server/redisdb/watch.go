package redisdb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// watch looks at every primary again and again, and learns who they are: of a failover that cuts us off together with the old primary only
// the sentinels and the other nodes tell.
func (db *DB) watch() {
	t := time.NewTicker(db.config.Watch)
	defer t.Stop()
	for n := 0; ; n++ {
		// A cluster's nodes say by themselves where a slot is; sentinels say nothing unless asked.
		learn := db.config.Mode == Sentinel || n%learnEvery == 0
		select {
		case <-db.closing:
			return
		case <-db.asked:
			learn = true
		case <-t.C:
		}
		db.lookAround(learn)
		select { // what asked meanwhile has to wait a little
		case <-db.closing:
			return
		case <-time.After(min(db.config.Watch, 20*time.Millisecond)):
		}
	}
}

// learnEvery is at every how many looks the layout is learned although nothing asks for it.
const learnEvery = 5

// lookAround does that once.
func (db *DB) lookAround(learn bool) {
	ctx, cancel := context.WithTimeout(context.Background(), min(db.config.Timeout, 2*time.Second))
	defer cancel()
	db.running.Go(func() { // Close does not wait for a server that is silent
		select {
		case <-db.closing:
			cancel()
		case <-ctx.Done():
		}
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if !learn {
			return
		}
		if err := db.learn(ctx); err != nil && !db.closed.Load() {
			db.config.Log.Warn("redis: nobody says who the primary is", "error", err)
		}
	})
	for _, p := range db.all() {
		wg.Go(func() {
			s, err := db.look(ctx, p.plain)
			if err == nil {
				p.note(s)
				err = s.reachable()
			}
			p.reached(err)
		})
	}
	wg.Wait()
}

// Confirm finds out anew who the primaries are, and reports whether somebody told. It is for those to whom an answer says that the data are of another
// history than the one that was heard of elsewhere: they may be those of a primary that others have left already, and asking again tells. Those who call
// at the same time share the question. A server alone has no other that it could be taken for.
func (db *DB) Confirm(ctx context.Context) bool {
	if db.config.Mode == Standalone || !db.enter() {
		return false
	}
	defer db.running.Done()
	asked := time.Now()
	db.confirming.Lock()
	defer db.confirming.Unlock()
	if db.confirmed.After(asked) {
		return true
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, min(db.config.Timeout, 2*time.Second))
	defer cancel()
	if db.learn(ctx) != nil { // the watch logs that
		return false
	}
	db.confirmed = began
	return true
}

func (s *standing) reachable() error {
	switch {
	case s.loading:
		return errors.New("it is reading its data in")
	case !s.primary:
		return errors.New("it is a replica")
	}
	return nil
}

// note keeps what a look found, and logs what is new.
func (p *primary) note(s *standing) {
	was := p.standing.Swap(s)
	log := p.db.config.Log
	if s.weak != nil && (was.weak == nil || was.weak.Detail != s.weak.Detail) {
		log.Error("redis: the settings keep less than is asked for; nothing is written", "address", p.addr,
			"durability", p.db.config.Durability, "reason", s.weak.Detail)
	}
	if s.weak == nil && was.weak != nil {
		log.Info("redis: the settings suffice again", "address", p.addr)
	}
	if s.full != was.full {
		log.Warn("redis: memory", "address", p.addr, "full", s.full, "used", s.used, "maxmemory", s.max)
	}
	if s.hidden && !was.hidden {
		log.Warn("redis: the server hides its settings, and the configuration vouches for them", "address", p.addr)
	}
}

// isFull notes that the server said so by itself.
func (p *primary) isFull() {
	for {
		was := p.standing.Load()
		if was.full {
			return
		}
		s := *was
		s.full = true
		if p.standing.CompareAndSwap(was, &s) {
			p.db.config.Log.Warn("redis: memory", "address", p.addr, "full", true)
			return
		}
	}
}

// reached notes whether the server could be reached.
func (p *primary) reached(err error) {
	if err == nil {
		if p.downFrom.Swap(0) != 0 {
			p.db.config.Log.Info("redis: the server is there again", "address", p.addr)
		}
		return
	}
	var weak *weakError
	if p.db.closed.Load() || errors.As(err, &weak) {
		return
	}
	if p.downFrom.CompareAndSwap(0, time.Now().UnixNano()) {
		p.db.config.Log.Warn("redis: the server cannot be reached", "address", p.addr, "error", err)
	}
}

// down returns since when the server could not be reached; zero if it could.
func (p *primary) down() time.Duration {
	if since := p.downFrom.Load(); since != 0 {
		return time.Since(time.Unix(0, since))
	}
	return 0
}

// isDown reports whether it has been so for so long that nothing waits for it any more. The watch finds out when it is back.
func (p *primary) isDown() bool { return p.down() > p.db.config.Patience }

var errDown = errors.New("the server has not been reached for a while")

// Health returns why writes cannot be had now as the last look found it, nil if they can. A full store is healthy: see [DB.Full].
func (db *DB) Health(context.Context) error {
	if db.closed.Load() {
		return errClosed()
	}
	ps := db.all()
	if len(ps) == 0 {
		return errUnknown(errNobody)
	}
	for _, p := range ps {
		s := p.standing.Load()
		switch {
		case p.down() > 0:
			return errUnknown(fmt.Errorf("%s: %w", p.addr, errDown))
		case s.weak != nil:
			return fmt.Errorf("%s: %w", p.addr, s.weak)
		}
	}
	return nil
}

// Full reports whether a primary refuses what does not free: it holds 90 % of what it may.
func (db *DB) Full() bool {
	for _, p := range db.all() {
		if p.standing.Load().full {
			return true
		}
	}
	return false
}

// Primary is what an operator may want to know about a server.
type Primary struct {
	Addr      string
	Reachable bool
	Weak      string // why its settings do not suffice; empty: they do
	Asserted  bool   // it hides them, and the configuration vouches for them
	Full      bool
	Used, Max int64 // bytes; Max 0: no limit
	Replicas  int   // connected now, which says nothing about what a write survives
}

// Primaries returns the servers that take writes, as the last look found them.
func (db *DB) Primaries() []Primary {
	var all []Primary
	for _, p := range db.all() {
		s := p.standing.Load()
		one := Primary{Addr: p.addr, Reachable: p.down() == 0, Asserted: s.hidden, Full: s.full, Used: s.used, Max: s.max, Replicas: s.replicas}
		if s.weak != nil {
			one.Weak = s.weak.Detail
		}
		all = append(all, one)
	}
	return all
}
