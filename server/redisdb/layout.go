package redisdb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// layout says which primary has which slot of a cluster; in the other forms the first slot stands for all.
type layout struct {
	slots []atomic.Pointer[primary]
}

func (db *DB) newLayout() *layout {
	if db.config.Mode == Cluster {
		return &layout{slots: make([]atomic.Pointer[primary], slots)}
	}
	return &layout{slots: make([]atomic.Pointer[primary], 1)}
}

// laneOf returns the lane of a unit, nil if nobody is known to have its slot.
func (db *DB) laneOf(u *unit) *lane {
	p := db.layout.slots[u.slot()%len(db.layout.slots)].Load()
	if p == nil {
		return nil
	}
	return p.lane(u)
}

func (p *primary) lane(u *unit) *lane {
	of := p.lanes[u.class]
	return of[u.slot()%len(of)]
}

// learn finds out who the primaries are.
func (db *DB) learn(ctx context.Context) error {
	switch db.config.Mode {
	case Sentinel:
		return db.learnFromSentinels(ctx)
	case Cluster:
		return db.learnFromCluster(ctx)
	}
	db.learned(func(primaryAt func(addr string) *primary) {
		db.layout.slots[0].Store(primaryAt(db.config.Addrs[0]))
	})
	return nil
}

// learned sets who has which slot. Primaries that are known already stay, those that have nothing any more go.
func (db *DB) learned(set func(primaryAt func(addr string) *primary)) {
	db.learning.Lock()
	defer db.learning.Unlock()
	set(func(addr string) *primary {
		p := db.primaries[addr]
		if p == nil {
			p = db.newPrimary(addr)
			db.primaries[addr] = p
		}
		return p
	})
	for addr, since := range db.guests {
		if time.Since(since) > guestStays {
			delete(db.guests, addr)
		}
	}
	used := make(map[*primary]bool)
	for i := range db.layout.slots {
		used[db.layout.slots[i].Load()] = true
	}
	for addr, p := range db.primaries {
		if _, guest := db.guests[addr]; !used[p] && !guest {
			delete(db.primaries, addr)
			p.retire()
			db.config.Log.Info("redis: a server is no primary any more", "address", addr)
		}
	}
}

// guestStays is how long a node is kept in mind that has no slot yet, but is being given one.
const guestStays = time.Minute

// guest returns the primary at an address that takes what it is asked for of a slot that it does not have yet.
func (db *DB) guest(addr string) *primary {
	var p *primary
	db.learned(func(primaryAt func(string) *primary) {
		db.guests[addr] = time.Now()
		p = primaryAt(addr)
	})
	return p
}

// moved notes that a slot is at another node.
func (db *DB) moved(slot int, addr string) {
	if db.config.Mode != Cluster {
		return
	}
	db.learned(func(primaryAt func(string) *primary) { db.layout.slots[slot].Store(primaryAt(addr)) })
}

// replace gives a primary's place to a new one at the same address, for a name may lead to another server by now.
func (db *DB) replace(p *primary) {
	db.learning.Lock()
	defer db.learning.Unlock()
	if db.primaries[p.addr] != p {
		return
	}
	fresh := db.newPrimary(p.addr)
	db.primaries[p.addr] = fresh
	for i := range db.layout.slots {
		db.layout.slots[i].CompareAndSwap(p, fresh)
	}
	p.retire()
}

// all returns the primaries.
func (db *DB) all() []*primary {
	db.learning.Lock()
	defer db.learning.Unlock()
	ps := make([]*primary, 0, len(db.primaries))
	for _, p := range db.primaries {
		ps = append(ps, p)
	}
	return ps
}

// scout asks one server or sentinel about others.
type scout struct {
	addr string
	*redis.Client
}

func (db *DB) newScout(addr string) scout {
	o := db.options(addr)
	o.PoolSize, o.ReadBufferSize, o.WriteBufferSize = 1, 0, 0
	if db.config.Mode == Sentinel {
		o.Username, o.Password, o.DB = db.config.SentinelUsername, db.config.SentinelPassword, 0
	}
	return scout{addr, redis.NewClient(o)}
}

// ask asks all scouts at once and returns what those said that could.
func ask[T any](ctx context.Context, scouts []scout, question func(context.Context, scout) (T, error)) ([]T, error) {
	answers, errs := make([]T, len(scouts)), make([]error, len(scouts))
	var wg sync.WaitGroup
	for i, s := range scouts {
		wg.Go(func() { answers[i], errs[i] = question(ctx, s) })
	}
	wg.Wait()
	k := 0
	for i, err := range errs {
		if err == nil {
			answers[k] = answers[i]
			k++
		} else {
			errs[i] = fmt.Errorf("%s: %w", scouts[i].addr, err)
		}
	}
	return answers[:k], errors.Join(errs...)
}

// view is what one of them thinks, in the epoch of its configuration: of two the later one is right.
type view struct {
	epoch  int64
	addr   string
	ranges []redis.ClusterSlot
}

func latest(views []view) (v view, ok bool) {
	for i, one := range views {
		if i == 0 || one.epoch > v.epoch {
			v = one
		}
	}
	return v, len(views) > 0
}

// learnFromSentinels takes the primary that the sentinels name whose configuration is the latest: one that was cut off from the others
// still names the old one. The sentinel that leads a failover has the number of the new configuration before it calls the new primary its
// own, which takes until the other replicas follow that; to clients it names it at once.
func (db *DB) learnFromSentinels(ctx context.Context) error {
	views, err := ask(ctx, db.scouts, func(ctx context.Context, s scout) (view, error) {
		var master, named *redis.Cmd
		_, err := s.Pipelined(ctx, func(p redis.Pipeliner) error {
			master = p.Do(ctx, "SENTINEL", "MASTER", db.config.Master)
			named = p.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", db.config.Master)
			return nil
		})
		if err != nil {
			return view{}, err
		}
		fields, err := master.StringSlice()
		if err != nil {
			return view{}, err
		}
		epoch := ""
		for i := 0; i+1 < len(fields); i += 2 {
			if fields[i] == "config-epoch" {
				epoch = fields[i+1]
			}
		}
		addr, err := named.StringSlice()
		if err != nil || len(addr) != 2 || addr[0] == "" || addr[1] == "" {
			return view{}, errors.Join(errors.New("the sentinel names no address"), err)
		}
		return view{epoch: integer(epoch), addr: net.JoinHostPort(addr[0], addr[1])}, nil
	})
	v, ok := latest(views)
	if !ok {
		return fmt.Errorf("no sentinel answers: %w", err)
	}
	db.learned(func(primaryAt func(string) *primary) {
		was := db.layout.slots[0].Load()
		// Those who knew better may not have answered this time.
		if was != nil && was.down() == 0 && v.epoch < db.followed {
			return
		}
		db.followed = v.epoch
		if was == nil || was.addr != v.addr {
			db.config.Log.Info("redis: the sentinels name the primary", "address", v.addr)
		}
		db.layout.slots[0].Store(primaryAt(v.addr))
	})
	return nil
}

// learnFromCluster takes the layout of the latest epoch that a node knows which belongs to the cluster.
func (db *DB) learnFromCluster(ctx context.Context) error {
	views, err := ask(ctx, db.clusterScouts(), func(ctx context.Context, s scout) (view, error) {
		var info *redis.StringCmd
		var ranges *redis.ClusterSlotsCmd
		_, err := s.Pipelined(ctx, func(p redis.Pipeliner) error {
			info, ranges = p.ClusterInfo(ctx), p.ClusterSlots(ctx)
			return nil
		})
		if err != nil {
			return view{}, err
		}
		if !strings.Contains(info.Val(), "cluster_state:ok") {
			return view{}, errors.New("the node says that the cluster is not whole")
		}
		_, current, _ := strings.Cut(info.Val(), "cluster_current_epoch:")
		current, _, _ = strings.Cut(current, "\r\n")
		return view{epoch: integer(current), addr: s.addr, ranges: ranges.Val()}, nil
	})
	v, ok := latest(views)
	if !ok {
		return fmt.Errorf("no node of the cluster answers: %w", err)
	}
	db.learned(func(primaryAt func(string) *primary) {
		owners := make([]*primary, slots)
		for _, r := range v.ranges {
			if len(r.Nodes) == 0 || r.Start < 0 || r.End >= slots {
				continue
			}
			p := primaryAt(sameHost(r.Nodes[0].Addr, v.addr))
			for i := r.Start; i <= r.End; i++ {
				owners[i] = p
			}
		}
		for i, p := range owners {
			db.layout.slots[i].Store(p)
		}
	})
	return nil
}

// clusterScouts are those of the configured nodes and of the primaries.
func (db *DB) clusterScouts() []scout {
	scouts := append([]scout(nil), db.scouts...)
	for _, p := range db.all() {
		known := false
		for _, s := range scouts {
			known = known || s.addr == p.addr
		}
		if !known {
			scouts = append(scouts, scout{p.addr, p.plain})
		}
	}
	return scouts
}
