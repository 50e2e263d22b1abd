package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

const (
	// sweepStep is how many keys one step of a sweep looks at.
	sweepStep = 512
	// sweepRest is how long Run rests between two passes, in ticks.
	sweepRest = 300
	// sweepTag is the tag of the lease by which one node at a time sweeps.
	sweepTag = redisdb.Tag("sweep")
	// sweepLease is how long that holds.
	sweepLease = 30 * time.Second
)

// Run looks after what all nodes keep together, for as long as ctx lives: every second it finishes publications that a node left
// unfinished, and, if no other node does, looks at some users in order to free what expired. Trouble is logged, and tried again. It returns nil.
func (s *Store) Run(ctx context.Context) error {
	tick := s.clock.NewTicker(time.Second)
	defer tick.Stop()
	me := strconv.FormatUint(uint64(s.epoch()), 36)
	var p *pass
	for rest := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := s.Finish(ctx); err != nil {
			s.trouble(ctx, "finishing publications failed", err)
			continue
		}
		if rest > 0 {
			rest--
			continue
		}
		mine, err := s.holdSweep(ctx, me)
		if err == nil && mine {
			if p == nil {
				p = s.newPass()
			}
			var done bool
			if done, err = s.sweepStep(ctx, p, s.sweepKeys); done {
				p, rest = nil, sweepRest
			}
		}
		if err != nil {
			s.trouble(ctx, "sweep failed", err)
			p = nil
		}
	}
}

func (s *Store) trouble(ctx context.Context, what string, err error) {
	if ctx.Err() == nil && push.KindOf(err) != push.KindClosed {
		s.log.Error("saver: "+what, "err", err)
	}
}

// holdSweep takes or keeps the lease of the sweep, and reports whether it has it.
func (s *Store) holdSweep(ctx context.Context, me string) (bool, error) {
	if err := s.enter("sweep"); err != nil {
		return false, err
	}
	defer s.calls.Done()
	key := sweepTag.Key("l", "")
	r := &redisdb.Read{Tag: sweepTag, Do: []redisdb.Command{{Name: "GET", Key: key}}}
	if s.read(ctx, r); r.Err != nil {
		return false, r.Err
	}
	if v := r.Replies[0]; v != nil && v != me {
		return false, nil
	}
	w := &redisdb.Write{Tag: sweepTag, Lax: true, Frees: true, If: []redisdb.Condition{redisdb.IfValue(key, r.Replies[0])},
		Do: []redisdb.Command{{Name: "SET", Key: key, Args: []any{me, "PX", sweepLease.Milliseconds()}}}}
	s.write(ctx, w)
	return w.Done, w.Err
}

// Finish finishes the publications, and recalls, of which a node left some undone. It takes a bounded number of each partition.
func (s *Store) Finish(ctx context.Context) error {
	if err := s.enter("finish"); err != nil {
		return err
	}
	defer s.calls.Done()
	reads := make([]*redisdb.Read, spreadIntents)
	for i := range reads {
		t := intentTag(i)
		reads[i] = &redisdb.Read{Tag: t, Do: []redisdb.Command{{Name: "HRANDFIELD", Key: pendingKey(t), Args: []any{64, "WITHVALUES"}}}}
	}
	s.read(ctx, reads...)
	var errs []error
	for _, r := range reads {
		if r.Err != nil {
			errs = append(errs, r.Err)
			continue
		}
		pairs := texts(r.Replies[0])
		for i := 0; i+1 < len(pairs); i += 2 {
			until, err := strconv.ParseInt(pairs[i+1], 10, 64)
			if err == nil && push.MilliTime(until) > r.Now {
				continue // somebody is busy with it
			}
			if err := s.finish(ctx, r, pairs[i], pairs[i+1]); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// finish takes the lease of one intent, and does what is left to do.
func (s *Store) finish(ctx context.Context, r *redisdb.Read, name, lease string) error {
	product, id, ok := cutIDName(name)
	pending := pendingKey(r.Tag)
	w := &redisdb.Write{Tag: r.Tag, If: []redisdb.Condition{redisdb.IfField(pending, name, lease)}}
	if !ok {
		w.Do = []redisdb.Command{{Name: "HDEL", Key: pending, Args: []any{name}}}
		s.write(ctx, w)
		return errors.Join(w.Err, corrupt("the name of an intent"))
	}
	_, key, _ := intentKey(product, id)
	w.Do = []redisdb.Command{
		{Name: "HSET", Key: pending, Args: []any{name, leaseUntil(r.Now)}},
		{Name: "GET", Key: key, Tell: true},
	}
	if s.write(ctx, w); w.Err != nil || !w.Done {
		return w.Err // or another node was faster
	}
	v, ok := w.Replies[1].(string)
	if !ok { // it expired long ago
		free := &redisdb.Write{Tag: r.Tag, Lax: true, Frees: true, Do: []redisdb.Command{{Name: "HDEL", Key: pending, Args: []any{name}}}}
		s.write(ctx, free)
		return free.Err
	}
	in, err := decodeIntent(product, v)
	if err != nil {
		return err
	}
	if _, err := s.runIntent(ctx, in, true); err != nil {
		return fmt.Errorf("saver: finish a publication: %w", err)
	}
	done := in.finished()
	s.write(ctx, done)
	return done.Err
}

// Sweep makes one pass over everything, without pause: it frees what expired, devices unseen for too long, and the states of slots that
// nobody needs. What is forgotten by itself (records, keys, bodies) is left to Redis. Other calls go on meanwhile. It ends early,
// with the context's error, when the context does.
func (s *Store) Sweep(ctx context.Context) error {
	p := s.newPass()
	for {
		done, err := s.sweepStep(ctx, p, sweepStep)
		if err != nil || done {
			return err
		}
	}
}

// pass is how far a sweep has come: it goes over the users, then over the common slots, whose turn depends on the users'.
type pass struct {
	users  *redisdb.Walk
	common *redisdb.Walk
}

func (s *Store) newPass() *pass { return &pass{s.db.Walk(kindUser), s.db.Walk(kindCommon)} }

// sweepStep does a part of a pass and reports whether that was the last.
func (s *Store) sweepStep(ctx context.Context, p *pass, look int) (done bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := s.enter("sweep"); err != nil {
		return false, err
	}
	defer s.calls.Done()
	w := p.users
	if w == nil {
		w = p.common
	}
	found, over, err := w.Next(ctx, look)
	if err != nil {
		return false, fmt.Errorf("saver: sweep: %w", err)
	}
	for len(found) > 0 && err == nil {
		n := min(len(found), sweepStep)
		err = s.sweepKeysOf(ctx, found[:n], w == p.common)
		found = found[n:]
	}
	if err != nil {
		return false, fmt.Errorf("saver: sweep: %w", err)
	}
	failpoint.Hit(failpoint.SaverSweepApplied)
	if over && p.users != nil {
		p.users, over = nil, false
	}
	return over, nil
}

func (s *Store) sweepKeysOf(ctx context.Context, found []redisdb.Found, common bool) error {
	var ops []op
	var numbers []uint64
	for _, f := range found {
		ref, ok := shardOf(f.Tag)
		if !ok {
			continue
		}
		limits := s.limits(ref.Product)
		k := slotKeys{tag: f.Tag, kind: push.Own, user: push.UserID(f.Name)}
		if common {
			k = slotKeys{tag: f.Tag, kind: push.Common}
		}
		o := s.newUserOp(k, userParts{tags: !common}, nil)
		o.lax, o.frees = true, true
		o.act = func(o *userOp, a redisdb.Answer) error {
			if common {
				o.tend(0, a.Now, limits)
			} else {
				if o.forgetUnseen(a.Now, limits) {
					o.free()
				}
				o.tend(len(o.present()), a.Now, limits)
			}
			return nil
		}
		ops, numbers = append(ops, o), append(numbers, s.turns.of(o.own.keys))
	}
	held, err := s.turns.take(ctx, numbers)
	if err != nil {
		return err
	}
	defer s.turns.release(held)
	s.run(ctx, ops, nil)
	for _, o := range ops {
		if err := o.(*userOp).err; err != nil {
			return err
		}
	}
	return nil
}

// tend frees what expired in a slot, forgets old notes, and the slot if nobody needs it.
func (o *userOp) tend(devices int, now push.MilliTime, limits push.Limits) {
	sl := o.own
	if sl.Epoch == 0 {
		return
	}
	if sl.Count > 0 && sl.Expiry <= now {
		sl.drop(sl.ShedExpired(now, sl.kept()))
		sl.changed = true
	}
	if notes := saver.TrimNotes(sl.Notes, now, limits); len(notes) < len(sl.Notes) {
		sl.Notes, sl.changed = notes, true
	}
	if sl.keys.kind == push.Common && daysSince(o.seenWas, now) <= int64(limits.WithDefaults().DeviceUnseen/(24*time.Hour))+1 {
		devices = 1
	}
	sl.forgotten = sl.Idle(devices, now, limits)
}
