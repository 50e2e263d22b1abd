package simulation

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/history"
	"carillon/server/push"
	"carillon/server/saver"
	savermemory "carillon/server/saver/memory"
)

// ---- the memory store --------------------------------------------------------------------------------------------

// mark is a state of the store that it may fall back to.
type mark struct {
	at    time.Duration
	state *savermemory.Snapshot
	ids   func()
}

func (w *world) save() {
	state, err := w.back.mem.Snapshot()
	if err != nil {
		w.fault("snapshot: %v", err)
		return
	}
	w.saved = &mark{w.sched.now(), state, w.back.memBlocks.Mark()}
	w.trace("the store is saved")
}

// fallBack has the store hold what it held before, as after a failover to a replica that lagged.
func (w *world) fallBack() {
	if w.saved == nil {
		return
	}
	w.trace("the store falls back to what it was at %v", w.saved.at)
	if err := w.back.mem.Restore(w.saved.state); err != nil {
		w.fault("restore: %v", err)
	}
	w.saved.ids()
	w.note(history.Record{Kind: history.Lost, Since: w.saved.at})
	w.saved = nil
}

func (w *world) loseSlot() {
	p := w.products[w.script.IntN(len(w.products))]
	user := userNames[w.script.IntN(w.opt.users)]
	ref := saver.UserRef{Product: p.id, Shards: 2, User: push.UserID(user)}
	r := history.Record{Kind: history.Lost, Product: string(p.id)}
	k := push.SlotKind(w.script.IntN(2))
	if k == push.Own {
		r.To = []string{user}
	} else {
		r.Everyone = true // of one shard, and whoever is in another misses nothing that this would excuse
	}
	u, err := w.back.mem.User(context.Background(), ref)
	if err != nil || u.Slots[k].Origin >= push.FirstPosition(push.Milli(w.back.clock.Now())) {
		return // one that is made again in the second in which it was made begins at the same position
	}
	if w.back.mem.LoseSlot(ref, k) {
		w.trace("the %v slot of %s/%s is lost", k, p.id, user)
		w.note(r)
	}
}

// ---- the embedded store ------------------------------------------------------------------------------------------

func (w *world) diskStalls() {
	b := w.back
	if b == nil {
		return
	}
	w.trace("flushes wait")
	b.disk.stall(true)
	since := w.sched.now()
	w.script.after(w.script.between(50*time.Millisecond, 3*time.Second), func() {
		b.disk.stall(false)
		w.script.after(2*time.Second, func() { w.note(history.Record{Kind: history.Stall, Since: since}) })
	})
}

// diskFails has a flush fail. The node accepts nothing more, so it is started again after a while, with or without what was not
// flushed.
func (w *world) diskFails() {
	b := w.back
	if b == nil {
		return
	}
	w.trace("the next flush fails")
	b.disk.failNext()
	w.script.after(w.script.between(100*time.Millisecond, 3*time.Second), func() {
		if w.back == b {
			w.nodeEnds(w.script.IntN(3) > 0)
		}
	})
}

func (w *world) powerLoss() { w.nodeEnds(true) }
func (w *world) nodeDies()  { w.nodeEnds(false) }

// nodeEnds ends everything that there is but publishers and devices, at this moment. With the power goes what was not
// flushed; otherwise all that was written stays.
func (w *world) nodeEnds(power bool) {
	if w.back == nil {
		return
	}
	w.trace("the node ends, power loss: %v", power)
	// All of it, or nothing: a part of what was not flushed is what TestStore_PowerLoss is for, whose seeds need not replay a map's
	// order.
	keep := 100
	if power {
		keep = 0
		w.note(history.Record{Kind: history.Ended})
	}
	left := w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: rand.New(rand.NewPCG(1, 1))})
	w.killCenter()
	for _, r := range w.rooms {
		w.killRoom(r)
	}
	w.closeBackend()
	settle()
	w.fs, w.back = left, nil
	w.script.after(w.script.between(100*time.Millisecond, 3*time.Second), w.nodeStarts)
}

func (w *world) nodeStarts() {
	if w.back != nil {
		return
	}
	w.skew = 0
	if w.opt.skews {
		w.skew = w.script.between(-20*time.Minute, 20*time.Minute)
	}
	w.trace("the node starts, its clock off by %v", w.skew)
	if err := w.openBackend(); err != nil {
		w.fault("the node does not start: %v", err)
		return
	}
	w.reviveCenter()
	for _, r := range w.rooms {
		w.reviveRoom(r)
	}
}

// ---- the end of all faults ---------------------------------------------------------------------------------------

// heal ends every fault and brings everything up that is down.
func (w *world) heal() {
	w.trace("everything heals")
	w.healed = true
	w.weather = weather{}
	w.unbound()
	for _, r := range w.rooms {
		r.unregistered.Store(false) // before any room starts, which would ask at once
	}
	if w.back != nil && w.back.db != nil {
		w.back.disk.stall(false)
		settle()
		if w.back.db.Health() != nil {
			w.nodeEnds(true)
		}
	}
	if w.back == nil {
		w.nodeStarts()
	}
	w.reviveCenter()
	w.startHelper()
	if w.opt.tasks {
		for _, p := range w.products {
			p.operator.finish()
		}
	}
	for _, r := range w.rooms {
		w.reviveRoom(r)
	}
	for _, d := range w.devices {
		d.blocked.Store(false)
		d.thaw()
		for _, b := range d.bare {
			b.cut()
		}
		if !d.liar && d.life == nil {
			d.lane.after(d.lane.between(0, time.Second), d.start)
		}
	}
}
