package redis

import (
	"context"
	"strconv"
	"time"

	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

// leaseFor is how long whoever is busy with an intent is left alone. It may take longer: nothing is done twice, whoever does it.
const leaseFor = 10 * time.Second

// intentSlack is how much longer than it may be asked for an intent, and a body, lies there.
const intentSlack = time.Hour

// keptUntil is until when somebody may ask for a message.
func (in *intent) keptUntil() push.MilliTime {
	return max(in.message.Expires.Add(saver.RecordKept), in.message.Created.Add(in.limits.WithDefaults().KeyTTL))
}

// storeIntents stores the bodies and intents of what goes to several slots; it is accepted then, and its parts are known.
func (s *Store) storeIntents(ctx context.Context, items []*item) {
	var bodies []*redisdb.Write
	var ops []op
	for _, it := range items {
		if it.in == nil || it.answered {
			continue
		}
		if it.in.bucket {
			bodies = append(bodies, it.in.body(it.out.Now))
		}
		ops = append(ops, newIntentOp(it.in))
	}
	if len(ops) == 0 {
		return
	}
	if len(bodies) > 0 {
		s.write(ctx, bodies...)
		failpoint.Hit(failpoint.SaverBodyStored)
	}
	failed := make(map[*intent]error)
	for _, w := range bodies {
		if w.Err != nil {
			for _, it := range items { // rare
				if it.in != nil && it.in.bucket {
					failed[it.in] = w.Err
				}
			}
		}
	}
	kept := ops[:0]
	for _, o := range ops {
		if failed[o.(*intentOp).in] == nil {
			kept = append(kept, o)
		}
	}
	s.run(ctx, kept, nil)
	for _, o := range kept {
		if o := o.(*intentOp); o.err != nil {
			failed[o.in] = o.err
		} else if o.stored != nil {
			*o.in = *o.stored
		}
	}
	failpoint.Hit(failpoint.SaverIntentStored)
	for _, it := range items {
		switch {
		case it.in == nil || it.answered:
		case failed[it.in] != nil:
			*it.out, it.answered = saver.Published{Err: failed[it.in]}, true
		default:
			it.out.Message = withBody(it.in.message, it.p.Message)
			it.parts = it.in.parts()
		}
	}
}

// withBody returns a stamped message with the body of the one that was asked for.
func withBody(stamped, asked *push.Message) *push.Message {
	m := *asked
	m.ID, m.Created, m.Expires = stamped.ID, stamped.Created, stamped.Expires
	return &m
}

// body returns the write that stores the message's bucket.
func (in *intent) body(now push.MilliTime) *redisdb.Write {
	t, key := bodyKey(in.product, in.message.ID)
	lives := in.keptUntil().Add(intentSlack) - now
	return &redisdb.Write{Tag: t, Do: []redisdb.Command{{Name: "SET", Key: key,
		Args: []any{saver.AppendMessage(nil, in.message), "PX", int64(lives)}}}}
}

// intentOp stores an intent, unless it is there already: then that one counts.
type intentOp struct {
	in     *intent
	stored *intent // what was there
	tag    redisdb.Tag
	key    string
	name   string
	r      redisdb.Read
	w      redisdb.Write
	err    error
}

func newIntentOp(in *intent) *intentOp {
	o := &intentOp{in: in}
	o.tag, o.key, o.name = intentKey(in.product, in.message.ID)
	return o
}

func (o *intentOp) ask() *redisdb.Read {
	o.r = redisdb.Read{Tag: o.tag, Do: []redisdb.Command{{Name: "GET", Key: o.key}}}
	return &o.r
}

func (o *intentOp) decide() (*redisdb.Write, *redisdb.Read, error) {
	o.stored = nil
	raw := o.r.Replies[0]
	v := ""
	if was, ok := raw.(string); ok {
		in, err := decodeIntent(o.in.product, was)
		if err != nil {
			return nil, nil, err
		}
		o.stored, v = in, was
	} else {
		v = string(appendIntent(nil, o.in))
	}
	now := o.r.Now
	lives := o.in.keptUntil().Add(intentSlack) - now
	o.w = redisdb.Write{Tag: o.tag, If: []redisdb.Condition{redisdb.IfValue(o.key, raw)}, Do: []redisdb.Command{
		{Name: "SET", Key: o.key, Args: []any{v, "PX", int64(lives)}},
		{Name: "HSET", Key: pendingKey(o.tag), Args: []any{o.name, leaseUntil(now)}},
	}}
	return &o.w, nil, nil
}

func (o *intentOp) wrote(*redisdb.Write) {}
func (o *intentOp) fail(err error)       { o.err = err }

func leaseUntil(now push.MilliTime) string { return strconv.FormatInt(int64(now.Add(leaseFor)), 10) }

// finishItems notes what is finished: the intents and their keys. If that is lost somebody does it all again, and finds it done.
func (s *Store) finishItems(ctx context.Context, items []*item) {
	var ws []*redisdb.Write
	for _, it := range items {
		if it.in == nil || it.answered || !finishedParts(it.parts) {
			continue
		}
		ws = append(ws, it.in.finished())
		if it.key != nil {
			ws = append(ws, it.key.finished())
		}
	}
	if len(ws) > 0 {
		s.write(ctx, ws...)
	}
}

func finishedParts(parts []*part) bool {
	for _, p := range parts {
		if p.err != nil {
			return false
		}
	}
	return true
}

// finished returns the write that notes that nothing is left to do.
func (in *intent) finished() *redisdb.Write {
	t, _, name := intentKey(in.product, in.message.ID)
	return &redisdb.Write{Tag: t, Lax: true, Frees: true, Do: []redisdb.Command{{Name: "HDEL", Key: pendingKey(t), Args: []any{name}}}}
}

// runIntent appends what is not appended yet, and takes it back if it was taken back. Of each it returns the parts.
func (s *Store) runIntent(ctx context.Context, in *intent, publish bool) (parts []*part, err error) {
	if publish {
		parts = in.parts()
		if err = s.runParts(ctx, parts); err != nil {
			return nil, err
		}
	}
	if in.recalled != 0 {
		parts = in.parts()
		for _, p := range parts {
			p.recall, p.when = true, in.recalled
		}
		if err = s.runParts(ctx, parts); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// runParts does parts, and returns the first error.
func (s *Store) runParts(ctx context.Context, parts []*part) error {
	var numbers []uint64
	for _, p := range parts {
		for i := range p.slots() {
			numbers = append(numbers, s.turns.of(p.slotKeys(i)))
		}
	}
	held, err := s.turns.take(ctx, numbers)
	if err != nil {
		return err
	}
	defer s.turns.release(held)
	for _, ops := range s.opsOf(parts, nil) {
		s.run(ctx, ops, nil)
	}
	for _, p := range parts {
		if p.err != nil {
			return p.err
		}
	}
	return nil
}
