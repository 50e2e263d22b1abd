package redis

import (
	"context"
	"fmt"

	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

// onRecord is what is known of a message: its intent, or, if it was for one user, the record in that user's shard.
type onRecord struct {
	in      *intent
	pending bool // the intent may not be finished

	one  *record
	part *part // of one
	now  push.MilliTime
	a    redisdb.Answer
}

func (r *onRecord) message() *push.Message {
	if r.in != nil {
		return saver.WithoutBody(r.in.message)
	}
	return r.one.single.message
}

// lookup finds what is on record of a message: its intent, else the record in one of the shards, all of which are asked.
func (s *Store) lookup(ctx context.Context, p push.ProductID, id push.MsgID, shards int, limits push.Limits) (*onRecord, error) {
	t, key, name := intentKey(p, id)
	head := &redisdb.Read{Tag: t, Do: []redisdb.Command{
		{Name: "GET", Key: key}, {Name: "HGET", Key: pendingKey(t), Args: []any{name}},
	}}
	if s.read(ctx, head); head.Err != nil {
		return nil, head.Err
	}
	out := &onRecord{now: head.Now, a: head.Answer}
	if v, ok := head.Replies[0].(string); ok {
		in, err := decodeIntent(p, v)
		if err != nil {
			return nil, err
		}
		out.in, out.pending = in, head.Replies[1] != nil
	} else if err := s.lookupOne(ctx, p, id, shards, limits, out); err != nil {
		return nil, err
	}
	rec := saver.Record{Message: out.message()}
	if rec.Forgotten(out.now) {
		return nil, saver.ErrNoMessage()
	}
	return out, nil
}

// lookupOne asks every shard for the record of a message to one user.
func (s *Store) lookupOne(ctx context.Context, p push.ProductID, id push.MsgID, shards int, limits push.Limits, out *onRecord) error {
	reads := make([]*redisdb.Read, shards)
	field := recordField(id, 0)
	for i := range reads {
		t := tagOf(saver.ShardRef{Product: p, Shard: push.Shard(i)})
		reads[i] = &redisdb.Read{Tag: t, Do: []redisdb.Command{{Name: "HGET", Key: recordKey(t, id), Args: []any{field}}}}
	}
	s.peek(ctx, reads...)
	for i, r := range reads {
		if r.Err != nil {
			return r.Err // the record may lie there
		}
		if r.Replies[0] == nil {
			continue
		}
		rec, err := decodeRecord(id, r.Replies[0])
		if err != nil {
			return err
		}
		if rec.single == nil {
			continue // of an intent that is gone
		}
		out.one, out.now, out.a = rec, r.Now, r.Answer
		out.part = &part{
			tag: r.Tag, shard: push.Shard(i), limits: limits, targets: []saver.Target{rec.single.target}, at: []int{0},
			marked: true, only: true, message: rec.single.message, accepted: true,
		}
		return nil
	}
	return saver.ErrNoMessage()
}

// Recall finishes the publication first if that is not certain, so that nothing of it comes after.
func (s *Store) Recall(ctx context.Context, r saver.Recall) (saver.Recalled, error) {
	if err := s.enter("recall"); err != nil {
		return saver.Recalled{}, err
	}
	defer s.calls.Done()
	out, err := s.recall(ctx, r)
	if err != nil {
		return saver.Recalled{}, fmt.Errorf("saver: recall: %w", err)
	}
	return out, nil
}

func (s *Store) recall(ctx context.Context, r saver.Recall) (saver.Recalled, error) {
	rec, err := s.lookup(ctx, r.Product, r.ID, r.Shards, r.Limits)
	if err != nil {
		return saver.Recalled{}, err
	}
	if rec.in == nil {
		rec.part.recall = true
		if err := s.runParts(ctx, []*part{rec.part}); err != nil {
			return saver.Recalled{}, err
		}
		out := recalled{First: !rec.part.found, Message: rec.message(), Own: make([]saver.Placed, 1)}
		out.take([]*part{rec.part})
		return recalledOf(out), nil
	}
	first, err := s.recallIntent(ctx, r, rec)
	if err != nil {
		return saver.Recalled{}, err
	}
	failpoint.Hit(failpoint.SaverRecallStored)
	parts, err := s.runIntent(ctx, rec.in, rec.pending)
	if err != nil {
		return saver.Recalled{}, err
	}
	failpoint.Hit(failpoint.SaverRecallApplied)
	s.write(ctx, rec.in.finished())
	out := recalled{First: first, Message: rec.message()}
	if rec.in.everyone {
		out.Common = make([]saver.Placed, rec.in.shards)
	} else {
		out.Own = make([]saver.Placed, len(rec.in.own))
	}
	out.take(parts)
	return recalledOf(out), nil
}

// recallIntent notes in the intent that the message is taken back, and reports whether it was not before. Somebody finishes it from then on.
func (s *Store) recallIntent(ctx context.Context, r saver.Recall, rec *onRecord) (first bool, err error) {
	o := &recallOp{in: rec.in, limits: r.Limits}
	o.tag, o.key, o.name = intentKey(r.Product, r.ID)
	s.run(ctx, []op{o}, nil)
	if o.err == nil && o.in != nil {
		rec.in = o.in
		rec.pending = rec.pending || o.pending
	}
	return o.first, o.err
}

// recallOp sets the time of the recall in an intent.
type recallOp struct {
	in        *intent
	limits    push.Limits
	tag       redisdb.Tag
	key, name string
	first     bool
	pending   bool
	r         redisdb.Read
	w         redisdb.Write
	err       error
}

func (o *recallOp) ask() *redisdb.Read {
	o.r = redisdb.Read{Tag: o.tag, Do: []redisdb.Command{
		{Name: "GET", Key: o.key}, {Name: "HGET", Key: pendingKey(o.tag), Args: []any{o.name}},
	}}
	return &o.r
}

func (o *recallOp) decide() (*redisdb.Write, *redisdb.Read, error) {
	v, ok := o.r.Replies[0].(string)
	if !ok {
		return nil, nil, saver.ErrNoMessage()
	}
	in, err := decodeIntent(o.in.product, v)
	if err != nil {
		return nil, nil, err
	}
	o.pending = o.r.Replies[1] != nil
	if o.first = in.recalled == 0; o.first {
		in.recalled, in.limits = o.r.Now, o.limits.WithDefaults()
	}
	o.in = in
	next := v
	if o.first {
		next = string(appendIntent(nil, in))
	}
	o.w = redisdb.Write{Tag: o.tag, Frees: true, If: []redisdb.Condition{redisdb.IfValue(o.key, v)}, Do: []redisdb.Command{
		{Name: "SET", Key: o.key, Args: []any{next, "KEEPTTL"}},
		{Name: "HSET", Key: pendingKey(o.tag), Args: []any{o.name, leaseUntil(o.r.Now)}},
	}}
	return &o.w, nil, nil
}

func (o *recallOp) wrote(*redisdb.Write) {}
func (o *recallOp) fail(err error)       { o.err = err }

// recalled is saver.Recalled while its places are gathered.
type recalled saver.Recalled

func recalledOf(r recalled) saver.Recalled { return saver.Recalled(r) }

// take gathers where the recall's entries lie.
func (r *recalled) take(parts []*part) {
	for _, p := range parts {
		r.Lineage, r.Now = p.answer.Lineage, p.answer.Now
		for i, at := range p.at {
			pl := saver.Placed{Shard: p.shard, Place: p.places[i], Filter: saver.CloneFilter(p.filterOf(i))}
			if r.First {
				pl.Rooms = p.rooms[i]
			}
			if p.everyone {
				r.Common[at] = pl
			} else {
				pl.User = p.targets[i].User
				r.Own[at] = pl
			}
		}
	}
}

// Message returns what is on record. One to users or to everyone is gathered from the shards; where it is not appended yet it has no place.
func (s *Store) Message(ctx context.Context, p push.ProductID, id push.MsgID) (saver.Record, error) {
	if err := s.enter("message"); err != nil {
		return saver.Record{}, err
	}
	defer s.calls.Done()
	out, err := s.message(ctx, p, id)
	if err != nil {
		return saver.Record{}, fmt.Errorf("saver: message: %w", err)
	}
	return out, nil
}

func (s *Store) message(ctx context.Context, p push.ProductID, id push.MsgID) (saver.Record, error) {
	rec, err := s.lookup(ctx, p, id, s.shards(p), push.Limits{})
	if err != nil {
		return saver.Record{}, err
	}
	out := saver.Record{Message: rec.message(), Now: rec.now}
	if one := rec.one; one != nil {
		out.Recalled = one.recalled
		out.Own = []saver.RecordPlace{{Target: one.single.target, Place: one.places[0]}}
		return out, nil
	}
	in := rec.in
	out.Recalled, out.Everyone, out.Filter = in.recalled, in.everyone, in.filter
	if in.everyone {
		out.Common = make([]push.Place, in.shards)
	} else {
		out.Own = make([]saver.RecordPlace, len(in.own))
		for i := range out.Own {
			out.Own[i].Target = in.own[i]
		}
	}
	parts := in.parts()
	reads := make([]*redisdb.Read, len(parts))
	for i, pt := range parts {
		reads[i] = &redisdb.Read{Tag: pt.tag, Do: []redisdb.Command{{Name: "HGET", Key: recordKey(pt.tag, id), Args: []any{recordField(id, pt.chunk)}}}}
	}
	s.peek(ctx, reads...)
	for i, pt := range parts {
		switch r := reads[i]; {
		case r.Err != nil:
			return saver.Record{}, r.Err
		case r.Replies[0] == nil:
			continue
		default:
			of, err := decodeRecord(id, r.Replies[0])
			if err != nil {
				return saver.Record{}, err
			}
			if len(of.places) != len(pt.at) {
				return saver.Record{}, corrupt("a message's record")
			}
			for j, at := range pt.at {
				if in.everyone {
					out.Common[at] = of.places[j]
				} else {
					out.Own[at].Place = of.places[j]
				}
			}
		}
	}
	return out, nil
}
