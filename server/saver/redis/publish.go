package redis

import (
	"context"
	"fmt"
	"sync"

	"carillon/server/failpoint"
	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

// runMost bounds the publications of one run.
const runMost = 512

// item is one publication of a run.
type item struct {
	p     *saver.Publication
	out   *saver.Published
	claim claim
	key   *keyOp   // with a key
	keys  slotKeys // of the slot, if it goes to one
	shard push.Shard
	in    *intent // if it goes to several slots
	parts []*part

	answered bool // there is nothing left to do
	repeated bool // its key was known

	// Room for what a message to one user needs.
	partRoom [1]*part
}

// wide reports whether the publication goes to more than one slot, single whether it goes to one. One whose users were found goes the way
// of those to several, however many they are: what is stored first says who they are, for a repeat that finds others.
func (it *item) wide() bool { return isWide(it.p) }
func (it *item) single() bool {
	return it.p.Message.Persistent && !it.p.Everyone && len(it.p.Own) == 1 && !it.p.Found
}

func isWide(p *saver.Publication) bool {
	return p.Message.Persistent && (p.Everyone || len(p.Own) > 1 || p.Found)
}

// Publish stores the publications in runs. The publications of a run share round trips: one reads, one takes the keys, one writes to the
// slots; those to several slots take some more.
func (s *Store) Publish(ctx context.Context, ps []*saver.Publication) []saver.Published {
	out := make([]saver.Published, len(ps))
	if err := s.enter("publish"); err != nil {
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	defer s.calls.Done()
	for n := 0; n < len(ps); {
		n += s.publishRun(ctx, ps[n:], out[n:])
	}
	for i := range out {
		if err := out[i].Err; err != nil {
			out[i].Err = fmt.Errorf("saver: publish: %w", err)
		}
	}
	return out
}

// publishRun publishes as many as go together, at least one, and returns how many. A run ends before a publication whose key
// somebody is busy with, itself included.
func (s *Store) publishRun(ctx context.Context, ps []*saver.Publication, out []saver.Published) (n int) {
	room := takeRoom(min(len(ps), runMost))
	defer room.giveBack()
	items := make([]*item, 0, min(len(ps), runMost))
	for n < len(ps) && len(items) < runMost {
		it := &room.items[len(items)]
		*it = item{p: ps[n], out: &out[n]}
		if err := saver.CheckPublication(it.p); err != nil {
			it.out.Err = err
			n++
			continue
		}
		if it.p.Key != "" {
			it.claim = claim{keyProduct(it.p), it.p.Key}
			busy := s.claims.try(it.claim)
			if busy != nil && len(items) > 0 {
				break
			}
			if busy != nil {
				if err := await(ctx, busy); err != nil {
					it.out.Err = err
					n++
				}
				continue
			}
			it.key = s.newKeyOp(it.p)
		}
		if it.single() {
			u := saver.UserRef{Product: it.p.Product, Shards: it.p.Shards, User: it.p.Own[0].User}
			it.shard = u.Shard().Shard
			it.keys = slotKeys{tag: redisdb.ShardTag(u.Product, it.shard), kind: push.Own, user: u.User}
		}
		items = append(items, it)
		n++
	}
	defer func() {
		for _, it := range items {
			if it.key != nil {
				s.claims.release(it.claim)
			}
		}
	}()
	if planted.Is(planted.AcknowledgeBeforeStore) {
		s.publishAhead(ctx, items)
		return n
	}
	s.publishItems(ctx, items, room)
	return n
}

// askOrGuess adds to reads those of the ops that no guess answers.
func (s *Store) askOrGuess(reads []*redisdb.Read, ops []op, asked []*redisdb.Read) []*redisdb.Read {
	for i, o := range ops {
		o := o.(*partsOp)
		if now, ok := s.db.Presume(o.tag); !ok || !o.guess(now) {
			reads = append(reads, asked[i])
		}
	}
	return reads
}

// publishAhead is the planted bug AcknowledgeBeforeStore: it answers, and then it stores.
func (s *Store) publishAhead(ctx context.Context, items []*item) {
	a, err := s.ask(ctx)
	later := make([]*item, len(items))
	for i, it := range items {
		later[i] = &item{p: it.p, out: new(saver.Published), keys: it.keys, shard: it.shard}
		if it.key != nil {
			later[i].key = s.newKeyOp(it.p)
		}
		if it.out.Err = err; err == nil {
			*it.out = saver.Published{Message: saver.Stamp(it.p, a.Now), Lineage: a.Lineage, Now: a.Now}
		}
	}
	s.calls.Go(func() {
		room := takeRoom(len(later))
		defer room.giveBack()
		s.publishItems(context.WithoutCancel(ctx), later, room)
	})
}

// runRoom is the memory that a run works in, apart from what it returns. It is kept for the next one, for it is most of what a
// message would allocate otherwise.
type runRoom struct {
	items []item
	parts []part
	ops   []partsOp
}

var runRooms = sync.Pool{New: func() any { return new(runRoom) }}

// takeRoom returns the room for n publications.
func takeRoom(n int) *runRoom {
	r := runRooms.Get().(*runRoom)
	if cap(r.items) < n {
		r.items, r.parts, r.ops = make([]item, n), make([]part, n), make([]partsOp, n)
	}
	r.items, r.parts, r.ops = r.items[:n], r.parts[:n], r.ops[:n]
	return r
}

// giveBack keeps the room, and nothing that was in it.
func (r *runRoom) giveBack() {
	clear(r.items)
	clear(r.parts)
	clear(r.ops)
	runRooms.Put(r)
}

// keyProduct is the product within which an idempotency key is known.
func keyProduct(p *saver.Publication) push.ProductID {
	if planted.Is(planted.KeyWithoutProduct) {
		return ""
	}
	return p.Product
}

func (s *Store) publishItems(ctx context.Context, items []*item, room *runRoom) {
	if len(items) == 0 {
		return
	}
	held, err := s.takeTurns(ctx, items)
	if err != nil {
		for _, it := range items {
			it.out.Err = err
		}
		return
	}
	defer s.turns.release(held)
	// The first round trip reads the keys and, if that is all there is to it, the slots.
	var keys []op
	var reads []*redisdb.Read
	plain := true // only messages to one user each
	for i, it := range items {
		if it.key != nil {
			keys = append(keys, it.key)
			reads = append(reads, it.key.ask())
		}
		plain = plain && it.single()
		if it.single() {
			it.plan(&room.parts[i])
		}
	}
	var rounds [][]op
	var asked []*redisdb.Read
	if plain {
		rounds = s.opsOf(partsOf(items), room.ops)
		for _, o := range rounds[0] {
			asked = append(asked, o.ask())
		}
		reads = s.askOrGuess(reads, rounds[0], asked)
	}
	if len(reads) > 0 {
		s.peek(ctx, reads...)
	}
	if len(keys) > 0 {
		s.run(ctx, keys, reads[:len(keys)])
		failpoint.Hit(failpoint.SaverKeyClaimed)
		for _, it := range items {
			if it.keyed() { // what was read of the slots is not what is to be done
				asked = nil
			}
		}
	}
	s.stampItems(ctx, items)
	s.storeIntents(ctx, items)
	if asked == nil {
		rounds = s.opsOf(partsOf(items), nil)
	}
	for i, ops := range rounds {
		if i > 0 {
			asked = nil
		}
		s.run(ctx, ops, asked)
	}
	failpoint.Hit(failpoint.SaverPublishApplied)
	placed := make([]saver.Placed, len(items))
	for i, it := range items {
		it.answer(placed[i : i : i+1])
	}
	s.finishItems(ctx, items)
	failpoint.Hit(failpoint.SaverPublishSynced)
}

// takeTurns waits until nobody else of this node writes to the slots.
func (s *Store) takeTurns(ctx context.Context, items []*item) ([]uint64, error) {
	numbers := make([]uint64, 0, len(items))
	for _, it := range items {
		p := it.p
		switch {
		case !p.Message.Persistent:
		case it.single():
			numbers = append(numbers, s.turns.of(it.keys))
		case p.Everyone:
			for i := range p.Shards {
				ref := saver.ShardRef{Product: p.Product, Shard: push.Shard(i)}
				numbers = append(numbers, s.turns.of(slotKeys{tag: tagOf(ref), kind: push.Common}))
			}
		default:
			for i := range p.Own {
				u := saver.UserRef{Product: p.Product, Shards: p.Shards, User: p.Own[i].User}
				numbers = append(numbers, s.turns.of(ownKeys(u)))
			}
		}
	}
	return s.turns.take(ctx, numbers)
}

func ownKeys(u saver.UserRef) slotKeys {
	return slotKeys{tag: tagOf(u.Shard()), kind: push.Own, user: u.User}
}

// plan makes the part of a message to one user.
func (it *item) plan(to *part) {
	p := it.p
	to.tag, to.shard, to.limits = it.keys.tag, it.shard, p.Limits
	to.targets, to.at, to.inline, to.only, to.stamp, to.marked = p.Own, onlyFirst, true, true, p, it.key != nil
	if it.key != nil {
		to.stamp, to.message = nil, p.Message // stamped with the key
	}
	it.partRoom[0] = to
	it.parts = it.partRoom[:]
}

// onlyFirst is where the target of a message to one user stands. Nobody changes it.
var onlyFirst = []int{0}

// keyed takes over what the key says, and reports whether that is anything but that the request is new.
func (it *item) keyed() bool {
	k := it.key
	switch {
	case k == nil:
		return false
	case k.err != nil:
		it.out.Err, it.answered = k.err, true
		return true
	case k.known && (k.rec.Digest != it.p.Digest || k.rec.Finished || k.rec.single != it.single() || it.single() && k.rec.user != whose(it.p.Own[0].User)):
		// A request of the same digest is the same. Should it not be, it is not the first one that can be finished by it.
		*it.out, it.answered = k.rec.Repeat(it.p, k.answer.Lineage, k.answer.Now), true
		return true
	}
	it.repeated = k.known
	m := *it.p.Message
	m.ID, m.Created, m.Expires = k.rec.ID, k.rec.Created, k.rec.Expires
	for _, p := range it.parts {
		p.message = &m
	}
	it.out.Message = &m
	return k.known
}

// stampItems stamps what goes to several slots or to none, and was not stamped with its key.
func (s *Store) stampItems(ctx context.Context, items []*item) {
	var a redisdb.Answer
	var err error
	for _, it := range items {
		m := it.p.Message
		if it.answered || it.single() {
			continue
		}
		if it.out.Message == nil {
			if a.Now == 0 && err == nil {
				a, err = s.ask(ctx)
			}
			if err != nil {
				it.out.Err, it.answered = err, true
				continue
			}
			it.out.Message = saver.Stamp(it.p, a.Now)
			it.out.Lineage, it.out.Now = a.Lineage, a.Now
		} else {
			it.out.Lineage, it.out.Now = it.key.answer.Lineage, it.key.answer.Now
		}
		if !it.wide() {
			it.answered = true
			if it.repeated {
				*it.out = it.key.rec.Repeat(it.p, it.out.Lineage, it.out.Now)
			}
			continue
		}
		it.in = &intent{
			product: it.p.Product, shards: it.p.Shards, limits: it.p.Limits.WithDefaults(), message: it.out.Message,
			bucket: len(m.Body) > s.inline, everyone: it.p.Everyone, filter: it.p.Filter, own: it.p.Own,
		}
	}
}

func partsOf(items []*item) []*part {
	parts := make([]*part, 0, len(items))
	for _, it := range items {
		if !it.answered {
			parts = append(parts, it.parts...)
		}
	}
	return parts
}

// answer gathers what became of the parts, the places in the room that is there if there is one. A publication to several slots is stored as a whole before, so that it is accepted
// whatever became of them: those that failed have no place yet.
func (it *item) answer(room []saver.Placed) {
	if it.answered || len(it.parts) == 0 && it.in == nil {
		return
	}
	out := it.out
	if it.in == nil {
		p := it.parts[0]
		if p.err != nil {
			*out = saver.Published{Err: p.err}
			return
		}
		out.Message, out.Lineage, out.Now = p.stored, p.answer.Lineage, p.answer.Now
	}
	if it.repeated {
		*out = it.key.rec.Repeat(it.p, out.Lineage, out.Now)
		return
	}
	n := len(it.p.Own)
	if it.p.Everyone {
		n = it.p.Shards
	}
	placed := room[:min(n, cap(room))]
	if n > cap(room) {
		placed = make([]saver.Placed, n)
	}
	for _, p := range it.parts {
		for i, at := range p.at {
			pl := saver.Placed{Shard: p.shard}
			if !p.everyone {
				pl.User = p.targets[i].User
			}
			if p.err == nil {
				pl.Place, pl.Rooms = p.places[i], p.rooms[i]
				out.Lineage, out.Now = p.answer.Lineage, p.answer.Now
			}
			placed[at] = pl
		}
	}
	if it.p.Everyone {
		out.Common = placed
	} else {
		out.Own = placed
	}
}
