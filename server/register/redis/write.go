package redis

import (
	"context"
	"math/rand/v2"
	"time"

	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/register"
)

// write is a change of a user's sessions, with what has to happen in the same step: the numbers of the shard, and the orders.
type write struct {
	redisdb.Write
	r         *Register
	ctx       context.Context
	user      *user
	was       *reading
	view      *view
	now       push.MilliTime
	out       map[push.DeviceID]bool // whose sessions are taken out
	in        []byte                 // the one that comes in
	device    push.DeviceID          // its device
	counts    map[place]int
	dismissed []dismissal
	over      func(known bool) // see Register.writing
}

// dismissal is a session that has to go for another.
type dismissal struct {
	was     register.Session
	at      place
	counted bool // it counted until now
	order   register.Order
	value   string // of the order
}

// newWrite returns a write that is done if the user's sessions are still what was read. A session has to come in while memory is full, so that its device can
// acknowledge, and is put back by its room if a failover lost it.
func newWrite(ctx context.Context, r *Register, u *user, v *view, now push.MilliTime, was *reading) *write {
	w := &write{r: r, ctx: ctx, user: u, was: was, view: v, now: now, out: make(map[push.DeviceID]bool, 2), counts: make(map[place]int, 2)}
	w.Write = redisdb.Write{Tag: u.tag, Under: was.lineage, Frees: true, Lax: true}
	w.If = []redisdb.Condition{redisdb.IfField(u.key, string(u.user), was.value)}
	return w
}

func (w *write) do(name, key string, args ...any) {
	w.Do = append(w.Do, redisdb.Command{Name: name, Key: key, Args: args})
}

// takesOut takes a session out.
func (w *write) takesOut(s *stored) {
	w.out[s.Device] = true
	w.counts[s.at]--
}

func (w *write) isOut(s *stored) bool { return w.out[s.Device] }

// puts puts a session in. Another one of its device is taken out before.
func (w *write) puts(s *register.Session, at place) {
	w.in, w.device = appendSession(nil, s, at, w.user.ref.shard), s.Device
	w.counts[at]++
}

// value is the user's sessions as they are to be. One that takes the place of another of its device stands where that stood, so that the same
// one once more changes nothing.
func (w *write) value() []byte {
	var b []byte
	in := w.in
	for i := range w.was.sessions {
		switch s := &w.was.sessions[i]; {
		case !w.isOut(s):
			b = append(b, s.raw...)
		case s.Device == w.device:
			b = append(b, in...)
			in = nil
		}
	}
	return append(b, in...)
}

// dismisses leaves an order for the session's room, as long as its lease could be renewed.
func (w *write) dismisses(s *stored, by *register.Session, at place) {
	if w.view.isDead(s.at) {
		return
	}
	l := w.view.find(s.at)
	d := dismissal{was: s.Session, at: s.at, counted: l.holds(w.now)}
	d.was.Boot = l.boot
	d.order = register.Order{Key: s.Key, Epoch: s.Epoch, By: *by}
	d.value = string(appendOrder(nil, &d.order, at, w.user.ref.shard, rand.Uint32()))
	w.do("RPUSH", ordersKey(w.user.tag, s.at), d.value)
	w.dismissed = append(w.dismissed, d)
}

// run writes, unless there is nothing to do, and notes what came of it. It reports whether it was done.
func (w *write) run(op string) (bool, error) {
	if !w.prepare() {
		w.r.mu.Lock()
		defer w.r.mu.Unlock()
		w.r.book.noteLineageLocked(w.user.ref, w.Under)
		return true, nil
	}
	w.over = w.r.writing(w.user.ref)
	w.r.db.Write(w.ctx, &w.Write)
	return w.finish(op)
}

// prepare makes the commands, and reports whether there is anything to do.
func (w *write) prepare() bool {
	now := w.value()
	if was, _ := w.was.value.(string); was == string(now) {
		return false
	}
	if len(now) == 0 {
		w.do("HDEL", w.user.key, string(w.user.user))
	} else {
		w.do("HSET", w.user.key, string(w.user.user), now)
	}
	for at, n := range w.counts {
		if n != 0 {
			w.do("HINCRBY", presenceKey(w.user.tag), at.field(), n)
		}
	}
	return true
}

// finish notes what came of the write.
func (w *write) finish(op string) (bool, error) {
	if w.Err != nil {
		w.over(false)
		return false, failed(op, w.Err)
	}
	w.note()
	w.over(true)
	if w.Done {
		failpoint.Hit(failpoint.RegisterWritten)
		w.mail()
	}
	return w.Done, nil
}

// note changes what this node knows of its own rooms, and passes orders on to them.
func (w *write) note() {
	r := w.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.Done {
		for at, n := range w.counts {
			if t := r.book.oursLocked(at); t != nil && n != 0 {
				r.book.addLocked(w.user.ref, t, n)
			}
		}
	}
	r.book.noteLineageLocked(w.user.ref, w.Lineage)
	if !w.Done {
		return
	}
	for i := range w.dismissed {
		d := &w.dismissed[i]
		if t := r.book.oursLocked(d.at); t != nil {
			r.passLocked(t, d.order, d.value)
		}
	}
}

// mailIdle is how long mail is kept that nobody fetches.
const mailIdle = time.Minute

// mail sends a second copy of the orders to rooms of other nodes, who fetch it with their next renewal. If it is lost they find the first
// one in the shard.
func (w *write) mail() {
	var ws []*redisdb.Write
	for i := range w.dismissed {
		d := &w.dismissed[i]
		w.r.mu.Lock()
		ours := w.r.book.oursLocked(d.at) != nil
		w.r.mu.Unlock()
		if ours {
			continue
		}
		key := mailKey(d.at)
		ws = append(ws, &redisdb.Write{Tag: roomTag(d.at.room), Frees: true, Lax: true, Do: []redisdb.Command{
			{Name: "RPUSH", Key: key, Args: []any{d.value}},
			{Name: "PEXPIRE", Key: key, Args: []any{mailIdle.Milliseconds()}},
		}})
	}
	if len(ws) > 0 {
		w.r.db.Write(w.ctx, ws...)
	}
}
