package simulation

import (
	"fmt"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/web"
	"carillon/server/wire"
)

// What a poll shows of itself, beside its token: the cursor, which acknowledges, and the session that it continues.
type pollRequest struct {
	from    *poller
	cursor  string
	session push.SessionEpoch // 0: none
	connect *wire.Connect     // what a new session is opened with
	dark    bool              // nothing of it passes any more, either way; the driver's
}

// pollAnswer is what comes back.
type pollAnswer struct {
	session push.SessionEpoch // 0: a refusal
	cursor  string            // behind the last frame
	frames  [][]byte
	last    bool // the session's goodbye
}

// mostOfAnswer is how many frames an answer may have after which nothing more is taken for it.
const mostOfAnswer = 100

// hanging is what the session of a client that polls knows: a transport.Conn that outlives its polls. As with conn, the driver
// alone calls the session.
type hanging struct {
	// Static after construction.
	w     *world
	room  *roomProc
	polls transport.PollSession // the session, as long as near has it

	near

	// Owned by the driver.
	waits    *pollRequest // the poll that waits
	atOnce   bool         // it does not
	id       push.SessionEpoch
	follower web.Follower // behind the last answer
}

var _ served = (*hanging)(nil)

// Cut ends the session at once. A poll that waits is answered with nothing.
func (h *hanging) Cut(code wire.CloseCode) {
	h.end.after(0, func() {
		if !h.over {
			h.answer(nil, false)
			h.finish(code)
		}
	})
}

// arrived is a poll at the server. Driver.
func (w *world) arrived(rq *pollRequest, r *roomProc, at *hanging) {
	p := rq.from
	if rq.dark || p.caller.blocked() {
		return // nobody answers
	}
	if !r.up() {
		p.fail(rq, errRefused)
		return
	}
	if at != nil && at.room == r && at.sess != nil && at.id == rq.session {
		if at.follower.Is(rq.cursor) {
			w.pass(pollGoesOn)
			at.poll(rq, rq.cursor)
			return
		}
		w.pass(pollFromElsewhere)
		at.finish(wire.CloseLost) // its last answer was lost, or its client could not wait to handle all of it
	} else if at != nil && at.room != r && at.sess != nil {
		w.pass(pollInOtherRoom)
	}
	p.sessions++
	name := fmt.Sprintf("poll/%s/%d/", p.caller.name, p.sessions)
	h := &hanging{w: w, room: r}
	h.near = near{pump: w.sched.lane(name + "pump"), end: w.sched.lane(name + "cut"), down: w.sched.lane(name + "down"), work: h.write}
	sess, err := r.room.Accept(h, p.meta)
	if err != nil {
		p.fail(rq, err)
		return
	}
	h.sess, h.polls = sess, sess.(transport.PollSession)
	r.conns = append(r.conns, h)
	p.serve(rq, h)
	connect := *rq.connect
	connect.Cursor, connect.After = rq.cursor, max(connect.After, rq.session)
	h.sess.Receive(&connect)
	h.poll(rq, "")
}

// poll has a poll wait. Driver.
func (h *hanging) poll(rq *pollRequest, cursor string) {
	if older := h.waits; older != nil {
		h.w.pass(pollReplaced)
		h.send(older, &pollAnswer{session: h.id, cursor: h.cursor()})
	}
	h.waits, h.atOnce = rq, h.id != 0 && h.down.chance(16)
	wait := 55 * time.Second
	if h.atOnce {
		wait = 0
	}
	h.polls.Poll(cursor, wait)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pumpLocked(h.down)
}

func (h *hanging) cursor() string { return string(h.follower.Append(nil)) }

// write is the transport's worker. Driver.
func (h *hanging) write() {
	h.mu.Lock()
	h.pumping = false
	code := h.code
	h.mu.Unlock()
	if h.sess == nil || h.waits == nil {
		return
	}
	b := &transport.Batch{MaxOuts: 16, MaxSize: 4 << 10}
	var frames [][]byte
	taken := false
	for h.sess.Take(b) {
		settle() // as with conn
		taken = true
		for i := range b.Outs {
			h.note(&b.Outs[i])
			if _, ping := b.Outs[i].Frame.(*wire.Ping); !ping {
				frames = append(frames, wire.AppendOut(nil, wire.JSON, &b.Outs[i]))
			}
		}
		if b.Reset(); code == 0 && len(frames) >= mostOfAnswer {
			break
		}
	}
	if h.sess == nil { // it ended meanwhile, and answered
		return
	}
	if taken || code != 0 || h.atOnce {
		h.answer(frames, code != 0)
		h.polls.PollOver()
	}
	if code != 0 {
		h.w.pass(goodbyeByPoll)
		h.finish(code)
	}
}

func (h *hanging) note(o *wire.Out) {
	h.follower.Pass(o)
	if f, ok := o.Frame.(*wire.Welcome); ok {
		h.id = f.Session
	}
}

// answer answers the poll that waits, if one does.
func (h *hanging) answer(frames [][]byte, last bool) {
	if rq := h.waits; rq != nil {
		h.waits = nil
		h.send(rq, &pollAnswer{session: h.id, cursor: h.cursor(), frames: frames, last: last})
	}
}

// send puts an answer on its way, on which it may be lost. Driver.
func (h *hanging) send(rq *pollRequest, a *pollAnswer) {
	elsewhere := rq.session != 0 && rq.session != h.id // of which the client does not know yet
	lost := !h.w.healed && (h.down.chance(40) || elsewhere && h.down.chance(2))
	h.down.after(h.down.between(leastDelay, mostDelay), func() {
		switch {
		case rq.dark:
		case lost:
			h.w.pass(answerLost)
			rq.dark = true
			rq.from.broken(rq)
		default:
			rq.from.answered(rq, a)
		}
	})
}

// left is a client that does not wait any more. Driver.
func (h *hanging) left(rq *pollRequest) {
	if h.waits == rq && h.sess != nil {
		h.waits = nil
		h.polls.PollOver()
	}
}

// darken ends the poll that waits.
func (h *hanging) darken(server, device time.Duration) {
	if rq := h.waits; rq != nil {
		rq.from.darken(server, device)
	}
}
