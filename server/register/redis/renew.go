package redis

import (
	"context"
	"maps"
	"strconv"
	"time"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/register"
)

// What a renewal does at most, so that its cost is bounded whatever came up; the rest is for the next.
const (
	mailMost    = 4096 // orders out of the mail
	ordersMost  = 1024 // orders out of one shard
	numbersMost = 1024 // numbers of products that changed
	forgetMost  = 16   // leases that ran out long ago
)

// tellAll is after how many renewals a room writes all of its numbers again, so that one that was lost comes back.
const tellAll = 30

// leaseKept is how long after its end a lease stands in the table, for people who look.
const leaseKept = 10 * time.Minute

// Renew prolongs a lease and takes the orders for its room: in one round trip it reads the table, the room's mail and some of the shards that the
// room holds sessions in, in a second one it writes the lease and clears away what it took.
//
// Besides for what the contract names, the lease counts as lost if the store fell back or lost sessions of the room.
func (r *Register) Renew(ctx context.Context, room push.RoomID, boot push.BootID) ([]register.Order, error) {
	if err := r.usable(ctx, "renew"); err != nil {
		return nil, err
	}
	if err := r.leasing.lock(ctx); err != nil {
		return nil, err
	}
	defer r.leasing.unlock()
	t := r.tenure(room, boot)
	if t == nil {
		return nil, leaseLost("renew")
	}
	n := renewal{Register: r, t: t, shards: r.nextShards(t), scans: r.nextScans(t)}
	for try := range tries {
		if err := redisdb.Pause(ctx, try); err != nil {
			return nil, unavailable("wait", err)
		}
		done, err := n.try(ctx)
		if err != nil {
			return nil, err
		}
		if done {
			return r.takeOrders(t), nil
		}
	}
	return nil, unavailable("renew", errBusy)
}

func (r *Register) takeOrders(t *tenure) []register.Order {
	r.mu.Lock()
	defer r.mu.Unlock()
	os := t.orders
	t.orders = nil
	return os
}

// renewal is one call of Renew.
type renewal struct {
	*Register
	t      *tenure
	shards []*shardSweep // to be swept with it; nil once they were
	scans  []*scan       // to be looked at; the same

	writes []*redisdb.Write // beside the lease
}

// try reports whether the lease was renewed; if not somebody else changed it.
func (n *renewal) try(ctx context.Context) (bool, error) {
	number, table, mail := n.looking(), tableRead(), n.mailRead()
	reads := []*redisdb.Read{table, mail}
	for _, s := range n.shards {
		reads = append(reads, &s.Read)
	}
	for _, s := range n.scans {
		reads = append(reads, &s.Read)
	}
	n.db.Read(ctx, reads...)
	v, err := n.take(number, table)
	if err != nil {
		return false, failed("renew", err)
	}
	l := v.find(n.t.at)
	if l == nil || !l.holds(v.at) {
		n.end(n.t)
		return false, leaseLost("renew")
	}
	for _, l := range n.t.missing {
		if !v.hasLife(l) {
			n.dead.add(l)
		}
	}
	n.t.missing = nil
	n.writes = nil
	n.open(mail)
	for _, s := range n.shards {
		n.writes = append(n.writes, n.sweep(s, v)...)
	}
	n.clear(ctx, v)
	for _, s := range n.scans {
		n.note(s)
	}
	n.shards, n.scans = nil, nil
	if n.isShaken(n.t) {
		n.log.Warn("the store fell back, or lost sessions of the room; it has to put them back", "room", n.t.at.room)
		return false, leaseLost("renew")
	}
	return n.write(ctx, v, *l)
}

func (n *renewal) mailRead() *redisdb.Read {
	return &redisdb.Read{Tag: roomTag(n.t.at.room), Do: []redisdb.Command{
		{Name: "LRANGE", Key: mailKey(n.t.at), Args: []any{0, mailMost - 1}},
	}}
}

// open passes on the orders in the mail. That it cannot be read is no failure: they are in their shards too.
func (n *renewal) open(mail *redisdb.Read) {
	if mail.Err != nil {
		return
	}
	letters := texts(mail.Replies[0])
	if len(letters) == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, value := range letters {
		o, shard, err := readOrder(value)
		if err != nil {
			n.log.Error("an order cannot be read", "err", err)
			continue
		}
		n.obeyLocked(n.t, shardRef{o.Product, shard}, o, value)
	}
	n.writes = append(n.writes, &redisdb.Write{Tag: mail.Tag, Frees: true, Lax: true, Do: []redisdb.Command{
		{Name: "LTRIM", Key: mailKey(n.t.at), Args: []any{len(letters), -1}},
	}})
}

// write writes the lease and the rest.
func (n *renewal) write(ctx context.Context, v *view, old lease) (bool, error) {
	l := old
	l.until = v.at.Add(register.LeaseTTL)
	w := v.leaseWrite(n.t.at.room, &l)
	numbers, told := n.numbers()
	w.Do = append(w.Do, numbers...)
	ws := append(append([]*redisdb.Write{w}, n.forget(v)...), n.writes...)
	n.db.Write(ctx, ws...)
	if w.Err != nil {
		return false, failed("renew", w.Err)
	}
	if !w.Done {
		return false, nil
	}
	if !old.holds(w.Now) {
		// It ran out on the way, and others may have acted on that. What was written holds for sessions that are put back.
		n.end(n.t)
		return false, leaseLost("renew")
	}
	n.view.Store(v.with(n.t.at.room, &l))
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.Copy(n.t.told, told)
	return true, nil
}

// numbers returns the commands that write the numbers of products that changed, and those numbers.
func (n *renewal) numbers() (do []redisdb.Command, told map[push.ProductID]int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	told = make(map[push.ProductID]int)
	if n.t.untold++; n.t.untold >= tellAll {
		n.t.untold = 0
		clear(n.t.told)
	}
	for p, now := range n.t.numbers {
		if was, ok := n.t.told[p]; ok && was == now {
			continue
		}
		if len(do) == numbersMost {
			break
		}
		told[p] = now
		value := numberValue(n.t.at.life, now)
		do = append(do, redisdb.Command{Name: "HSET", Key: numbersKey(p), Args: []any{string(n.t.at.room), value}})
	}
	return do, told
}

// forget returns writes that take leases out of the table that ran out long ago.
func (n *renewal) forget(v *view) (ws []*redisdb.Write) {
	for id, l := range v.rooms {
		if len(ws) == forgetMost {
			break
		}
		if l.until.Add(leaseKept) < v.at {
			ws = append(ws, v.leaseWrite(id, nil))
		}
	}
	return ws
}

// SweepEvery is how often a room looks into each shard in which it holds sessions, if it does not hold some in very many.
const SweepEvery = 5 * time.Second

// The least and the most shards that one renewal sweeps.
const (
	sweepLeast = 64
	sweepMost  = 1024
)

// shardSweep is a look into one shard for one room.
type shardSweep struct {
	redisdb.Read
	ref     shardRef
	changes uint64
	quiet   bool // no write of ours was under way when it began
}

// nextShards returns the sweeps that come next.
func (r *Register) nextShards(t *tenure) []*shardSweep {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(t.round), max(sweepLeast, min(sweepMost, len(t.round)*int(register.RenewEvery)/int(SweepEvery)+1)))
	sweeps := make([]*shardSweep, 0, n)
	for range n {
		if t.next >= len(t.round) {
			t.next = 0
		}
		ref := t.round[t.next]
		t.next++
		s := r.book.shards[ref]
		if s == nil || s.held[t] == nil {
			continue
		}
		tag := redisdb.ShardTag(ref.product, ref.shard)
		sweeps = append(sweeps, &shardSweep{
			Read: redisdb.Read{Tag: tag, Do: []redisdb.Command{
				{Name: "HGETALL", Key: presenceKey(tag)},
				{Name: "LRANGE", Key: ordersKey(tag, t.at), Args: []any{0, ordersMost - 1}},
			}},
			ref: ref, changes: s.changes, quiet: s.under == 0,
		})
	}
	return sweeps
}

// sweep takes the orders out of a shard, holds our number of sessions there against the shard's own, and clears away what rooms left
// behind. A shard that did not answer is looked at another time.
func (n *renewal) sweep(s *shardSweep, v *view) (ws []*redisdb.Write) {
	if s.Err != nil {
		return nil
	}
	here, left := 0, false
	first := n.t.at.room // of the rooms that hold sessions here
	var stale []redisdb.Write
	err := pairs(s.Replies[0], func(field, value string) error {
		at, err := readField(field)
		if err != nil {
			return err
		}
		number, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		if at == n.t.at {
			here = number
		}
		switch dead := v.isDead(at); {
		case number <= 0 && !n.knows(v, at):
			n.t.missing = append(n.t.missing, at.life) // it may have joined since the table was read: the next one tells
		case number <= 0:
			stale = append(stale, dropPresence(s.Tag, at, field, value, dead))
		case dead:
			left = true
		default:
			first = min(first, at.room)
		}
		return nil
	})
	if err != nil {
		n.log.Error("the numbers of a shard cannot be read", "product", s.ref.product, "shard", s.ref.shard, "err", err)
		return nil
	}
	if left && first == n.t.at.room {
		n.leftovers(s.ref)
	}
	for i := range stale {
		ws = append(ws, &stale[i])
	}
	values := texts(s.Replies[1])
	if n.settle(s, here, values) {
		n.leaveShard(s.ref)
	}
	if len(values) > 0 {
		ws = append(ws, &redisdb.Write{Tag: s.Tag, Frees: true, Lax: true, Do: []redisdb.Command{
			{Name: "LTRIM", Key: ordersKey(s.Tag, n.t.at), Args: []any{len(values), -1}},
		}})
	}
	return ws
}

// dropPresence returns the write that takes a room out of a shard in which it holds nobody, and with it the orders that it will not fetch any more.
func dropPresence(tag redisdb.Tag, at place, field, value string, dead bool) redisdb.Write {
	key := presenceKey(tag)
	w := redisdb.Write{
		Tag: tag, Frees: true, Lax: true, If: []redisdb.Condition{redisdb.IfField(key, field, value)},
		Do: []redisdb.Command{{Name: "HDEL", Key: key, Args: []any{field}}},
	}
	if dead {
		w.Do = append(w.Do, redisdb.Command{Name: "DEL", Key: ordersKey(tag, at)})
	}
	return w
}

// settle passes orders on and puts the shard's number of our sessions in the place of ours, if no write of ours may have come between. It
// reports whether the tenure has nothing left in the shard.
func (n *renewal) settle(s *shardSweep, here int, values []string) (empty bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.book.noteLineageLocked(s.ref, s.Lineage)
	sh := n.book.shards[s.ref]
	if sh == nil || sh.held[n.t] == nil {
		return false
	}
	h := sh.held[n.t]
	fresh := s.quiet && sh.under == 0 && sh.changes == s.changes
	for _, value := range values {
		o, _, err := readOrder(value)
		if err != nil {
			n.log.Error("an order cannot be read", "err", err)
			continue
		}
		n.obeyLocked(n.t, s.ref, o, value)
	}
	if !fresh {
		return false
	}
	if here < h.n && !h.unsure && len(values) < ordersMost {
		n.t.shaken = true // nobody took them out who left word
	}
	n.t.numbers[s.ref.product] += here - h.n
	h.n, h.unsure = here, false
	return here == 0 && len(values) == 0
}

// leaveShard ends the sweeps of a shard in which the tenure has nothing left.
func (n *renewal) leaveShard(ref shardRef) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.book.shards[ref]
	if s == nil || s.held[n.t] == nil || s.held[n.t].n != 0 || s.under > 0 {
		return
	}
	s.dropLocked(&n.book, ref, n.t)
	for i, other := range n.t.round {
		if other == ref {
			last := len(n.t.round) - 1
			n.t.round[i], n.t.round = n.t.round[last], n.t.round[:last]
			return
		}
	}
}
