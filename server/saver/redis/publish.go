package redis

import (
	"context"
	"fmt"

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
	key   *keyOp  // with a key
	in    *intent // if it goes to several slots
	parts []*part

	answered bool // there is nothing left to do
	repeated bool // its key was known
}

// wide reports whether the publication goes to more than one slot, single whether it goes to one.
func (it *item) wide() bool   { return it.p.Message.Persistent && (it.p.Everyone || len(it.p.Own) > 1) }
func (it *item) single() bool { return it.p.Message.Persistent && !it.p.Everyone && len(it.p.Own) == 1 }

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
	items := make([]*item, 0, min(len(ps), runMost))
	for n < len(ps) && len(items) < runMost {
		it := &item{p: ps[n], out: &out[n]}
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
	s.publishItems(ctx, items)
	return n
}

// publishAhead is the planted bug AcknowledgeBeforeStore: it answers, and then it stores.
func (s *Store) publishAhead(ctx context.Context, items []*item) {
	a, err := s.ask(ctx)
	later := make([]*item, len(items))
	for i, it := range items {
		later[i] = &item{p: it.p, out: new(saver.Published)}
		if it.key != nil {
			later[i].key = s.newKeyOp(it.p)
		}
		if it.out.Err = err; err == nil {
			*it.out = saver.Published{Message: saver.Stamp(it.p, a.Now), Lineage: a.Lineage, Now: a.Now}
		}
	}
	s.calls.Go(func() { s.publishItems(context.WithoutCancel(ctx), later) })
}

// keyProduct is the product within which an idempotency key is known.
func keyProduct(p *saver.Publication) push.ProductID {
	if planted.Is(planted.KeyWithoutProduct) {
		return ""
	}
	return p.Product
}

func (s *Store) publishItems(ctx context.Context, items []*item) {
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
	for _, it := range items {
		if it.key != nil {
			keys = append(keys, it.key)
			reads = append(reads, it.key.ask())
		}
		plain = plain && it.single()
		if it.single() {
			it.plan()
		}
	}
	var rounds [][]op
	var asked []*redisdb.Read
	if plain {
		rounds = s.opsOf(partsOf(items))
		for _, o := range rounds[0] {
			asked = append(asked, o.ask())
		}
	}
	if all := append(reads, asked...); len(all) > 0 {
		s.peek(ctx, all...)
	}
	if len(keys) > 0 {
		s.run(ctx, keys, reads)
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
		rounds = s.opsOf(partsOf(items))
	}
	for i, ops := range rounds {
		if i > 0 {
			asked = nil
		}
		s.run(ctx, ops, asked)
	}
	failpoint.Hit(failpoint.SaverPublishApplied)
	for _, it := range items {
		it.answer()
	}
	s.finishItems(ctx, items)
	failpoint.Hit(failpoint.SaverPublishSynced)
}

// takeTurns waits until nobody else of this node writes to the slots.
func (s *Store) takeTurns(ctx context.Context, items []*item) ([]int, error) {
	numbers := make([]int, 0, len(items))
	for _, it := range items {
		p := it.p
		switch {
		case !p.Message.Persistent:
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
func (it *item) plan() {
	p := it.p
	shard := push.ShardOf(p.Own[0].User, p.Shards)
	it.parts = []*part{{
		tag: tagOf(saver.ShardRef{Product: p.Product, Shard: shard}), shard: shard, limits: p.Limits,
		targets: p.Own, at: []int{0}, inline: true, only: true, stamp: p, marked: it.key != nil,
	}}
	if it.key != nil {
		it.parts[0].stamp, it.parts[0].message = nil, p.Message // stamped with the key
	}
}

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

// answer gathers what became of the parts. A publication to several slots is stored as a whole before, so that it is accepted
// whatever became of them: those that failed have no place yet.
func (it *item) answer() {
	if it.answered || len(it.parts) == 0 {
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
	placed := make([]saver.Placed, 0, max(len(it.p.Own), it.p.Shards*int(truth(it.p.Everyone))))
	placed = placed[:cap(placed)]
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
