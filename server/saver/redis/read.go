package redis

import (
	"context"
	"fmt"
	"slices"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

// readMost is how many elements of a list one step of a read takes at most.
const readMost = 1024

// Read answers all requests together: one round trip for the states, one for the entries, one for bodies that lie in buckets;
// more only where a tail is longer than a step, or has many holes. Requests are not read at one moment.
func (s *Store) Read(ctx context.Context, rs []saver.Read) ([]saver.Tail, error) {
	if err := s.enter("read"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	out := make([]saver.Tail, len(rs))
	ops := make([]op, len(rs))
	for i := range rs {
		k := slotKeys{tag: tagOf(rs[i].ShardRef), kind: rs[i].Slot}
		if k.kind == push.Own {
			k.user = rs[i].User
		}
		ops[i] = &readOp{rq: &rs[i], out: &out[i], slot: s.newSlot(k)}
	}
	s.run(ctx, ops, nil)
	if strange := unknown(rs, out, ops); len(strange) > 0 && s.db.Confirm(ctx) {
		again := make([]op, 0, len(strange))
		for _, i := range strange {
			ops[i] = &readOp{rq: &rs[i], out: &out[i], slot: s.newSlot(ops[i].(*readOp).slot.keys)}
			again = append(again, ops[i])
		}
		s.run(ctx, again, nil)
	}
	for _, o := range ops {
		if err := o.(*readOp).err; err != nil {
			return nil, fmt.Errorf("saver: read: %w", err)
		}
	}
	if err := s.fetchBodies(ctx, rs, out); err != nil {
		return nil, fmt.Errorf("saver: read: %w", err)
	}
	return out, nil
}

// unknown returns the indexes of the reads from places of which the slot says nothing. It may be that of a primary that was replaced, while the place is of its
// successor, which other nodes found out about sooner: a device that goes from one to the other with each poll would be sent everything again each time.
func unknown(rs []saver.Read, tails []saver.Tail, ops []op) (strange []int) {
	for i := range rs {
		if !rs[i].From.IsZero() && !tails[i].Known && ops[i].(*readOp).err == nil {
			strange = append(strange, i)
		}
	}
	return strange
}

// readOp reads one tail. It writes nothing.
type readOp struct {
	rq   *saver.Read
	out  *saver.Tail
	slot *slot
	err  error

	r     redisdb.Read
	step  bool          // the state is known, entries were asked for
	aside bool          // those at the side among them
	from  push.Position // the list was asked for from here on
	n     int
	next  push.Position // the first position not looked at
	bytes int
}

func (o *readOp) wrote(*redisdb.Write) {}
func (o *readOp) fail(err error)       { o.err = err }

func (o *readOp) ask() *redisdb.Read {
	o.step = false
	o.r = redisdb.Read{Tag: o.slot.keys.tag, Do: []redisdb.Command{{Name: "HGET", Key: o.slot.state(), Args: askState}}}
	return &o.r
}

func (o *readOp) decide() (*redisdb.Write, *redisdb.Read, error) {
	sl, t, replies := o.slot, o.out, o.r.Replies
	if !o.step {
		if err := sl.read(replies[0]); err != nil {
			return nil, nil, err
		}
		*t = saver.Tail{Lineage: o.r.Lineage, Now: o.r.Now}
		if sl.Epoch == 0 {
			return nil, nil, nil
		}
		t.State = saver.CloneState(sl.SlotState)
		t.Start, t.Known = sl.Resolve(o.rq.From)
		t.Through = sl.Head
		o.next, o.bytes = max(t.Start.Pos, sl.Freed)+1, 0
		if sl.Count == 0 || o.next > sl.Head {
			return nil, nil, nil
		}
		return nil, o.more(), nil
	}
	if replies[0] != sl.was {
		return nil, nil, errChanged
	}
	replies = replies[1:]
	if o.aside {
		for _, e := range asidesOf(texts(replies[0]), &o.err) {
			if e.Pos >= o.next && !o.take(e.Pos, e.bytes) {
				return nil, nil, o.err
			}
		}
		if o.err != nil {
			return nil, nil, o.err
		}
		o.next = max(o.next, sl.base+1)
		replies = replies[1:]
	}
	list := texts(replies[0])
	if len(list) != o.n {
		return nil, nil, corrupt("the entries of a slot")
	}
	for i, v := range list {
		if pos := o.from + push.Position(i); !o.take(pos, v) {
			return nil, nil, o.err
		}
	}
	if o.next = o.from + push.Position(o.n); o.next > sl.Head {
		return nil, nil, nil
	}
	return nil, o.more(), nil
}

// more asks for the entries from next on.
func (o *readOp) more() *redisdb.Read {
	sl := o.slot
	do := []redisdb.Command{{Name: "HGET", Key: sl.state(), Args: askState}}
	o.step = true
	if o.aside = sl.aside > 0 && o.next <= sl.base; o.aside {
		do = append(do, redisdb.Command{Name: "HGETALL", Key: sl.keys.aside()})
	}
	o.from = max(o.next, sl.base+1)
	o.n = int(min(sl.Head-o.from+1, readMost, push.Position(max(o.rq.MaxEntries, 16))+16))
	i := int(o.from - sl.base - 1)
	do = append(do, redisdb.Command{Name: "LRANGE", Key: sl.entries(), Args: []any{i, i + o.n - 1}})
	o.r = redisdb.Read{Tag: sl.keys.tag, Do: do, Answer: redisdb.Answer{Lineage: o.out.Lineage, Now: o.out.Now}}
	return &o.r
}

// take adds an entry to the tail, and reports whether the next one may follow.
func (o *readOp) take(pos push.Position, v string) bool {
	t := o.out
	if v == "" {
		return true
	}
	e, err := saver.DecodeEntry([]byte(v))
	if err != nil {
		o.err = err
		return false
	}
	if saver.Expired(e.Expires, t.Now) {
		return true
	}
	if planted.Is(planted.CursorByMessageID) && len(t.Entries) > 0 && e.ID < t.Entries[len(t.Entries)-1].ID {
		return true
	}
	if n := len(t.Entries); n > 0 && (n >= o.rq.MaxEntries || o.bytes >= o.rq.MaxBytes) {
		t.Through = pos - 1
		return false
	}
	o.bytes += e.Size
	t.Entries = append(t.Entries, saver.Entry{Pos: pos, Kind: e.Kind, ID: e.ID, Expires: e.Expires, Filter: e.Filter, Message: e.Message})
	return true
}

// bodyName names a bucket.
type bodyName struct {
	product push.ProductID
	id      push.MsgID
}

// fetchBodies reads the buckets that entries point at, each once.
func (s *Store) fetchBodies(ctx context.Context, rs []saver.Read, tails []saver.Tail) error {
	var names []bodyName
	seen := make(map[bodyName]*push.Message)
	each := func(f func(bodyName, *saver.Entry)) {
		for i := range tails {
			for j := range tails[i].Entries {
				if e := &tails[i].Entries[j]; e.Kind == saver.EntryMessage && e.Message == nil {
					f(bodyName{rs[i].Product, e.ID}, e)
				}
			}
		}
	}
	each(func(n bodyName, _ *saver.Entry) {
		if _, ok := seen[n]; !ok {
			seen[n] = nil
			names = append(names, n)
		}
	})
	for part := range slices.Chunk(names, 512) {
		reads := make([]*redisdb.Read, len(part))
		for i, n := range part {
			t, key := bodyKey(n.product, n.id)
			reads[i] = &redisdb.Read{Tag: t, Do: []redisdb.Command{{Name: "GET", Key: key}}}
		}
		s.peek(ctx, reads...)
		for i, r := range reads {
			if r.Err != nil {
				return r.Err
			}
			if v, ok := r.Replies[0].(string); ok {
				m, err := saver.DecodeMessage([]byte(v))
				if err != nil {
					return err
				}
				seen[part[i]] = m
			}
		}
	}
	each(func(n bodyName, e *saver.Entry) {
		e.Message = seen[n]
		e.Lost = e.Message == nil
	})
	return nil
}

// commandsMost is how many commands one read holds at most.
const commandsMost = 128

// lookEach reads one thing for each of many, those of one tag together, and hands each reply over with its index.
func (s *Store) lookEach(ctx context.Context, n int, command func(i int) (redisdb.Tag, redisdb.Command), got func(i int, reply any, a redisdb.Answer) error) error {
	type group struct {
		redisdb.Read
		of []int
	}
	var groups []*group
	var reads []*redisdb.Read
	last := make(map[redisdb.Tag]*group)
	for i := range n {
		t, c := command(i)
		g := last[t]
		if g == nil || len(g.of) == commandsMost {
			g = &group{Read: redisdb.Read{Tag: t}}
			last[t] = g
			groups, reads = append(groups, g), append(reads, &g.Read)
		}
		g.Do, g.of = append(g.Do, c), append(g.of, i)
	}
	if len(reads) == 0 {
		return nil
	}
	s.peek(ctx, reads...)
	for _, g := range groups {
		if g.Err != nil {
			return g.Err
		}
		for j, i := range g.of {
			if err := got(i, g.Replies[j], g.Answer); err != nil {
				return err
			}
		}
	}
	return nil
}

// Heads reads the states.
func (s *Store) Heads(ctx context.Context, ref saver.ShardRef, users []push.UserID) ([]push.Place, error) {
	if err := s.enter("heads"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	out := make([]push.Place, len(users))
	t := tagOf(ref)
	err := s.lookEach(ctx, len(users), func(i int) (redisdb.Tag, redisdb.Command) {
		return t, redisdb.Command{Name: "HGET", Key: t.Key(kindUser, string(users[i])), Args: askState}
	}, func(i int, reply any, _ redisdb.Answer) (err error) {
		out[i], err = headOf(reply)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("saver: heads: %w", err)
	}
	return out, nil
}

// headOf returns where a slot ends, of its state as read.
func headOf(state any) (push.Place, error) {
	v, ok := state.(string)
	if !ok {
		return push.Place{}, nil
	}
	p, err := decodePacked(v)
	return saver.HeadOf(&p.SlotState), err
}
