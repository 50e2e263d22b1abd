package room

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/saver"
	"carillon/server/task"
	"carillon/server/transport"
	"carillon/server/wire"
)

// counter is where the rooms of a world add what they count.
type counter struct {
	mu     sync.Mutex
	counts map[task.Life]map[push.MsgID]task.Counts
	calls  [][]task.Counted
	err    error // of every call; nothing is added
}

func (c *counter) Count(_ context.Context, cs []task.Counted) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, cs)
	if c.err != nil {
		return c.err
	}
	if c.counts == nil {
		c.counts = make(map[task.Life]map[push.MsgID]task.Counts)
	}
	for i := range cs {
		of := c.counts[cs[i].Life]
		if of == nil {
			of = make(map[push.MsgID]task.Counts)
			c.counts[cs[i].Life] = of
		}
		sum := of[cs[i].Task]
		sum.Add(cs[i].Counts)
		of[cs[i].Task] = sum
	}
	return nil
}

// of returns what a room counted of a message, whether it was handed over or not.
func (w *world) counted(r *Room, id push.MsgID) task.Counts {
	w.counts.mu.Lock()
	sum := w.counts.counts[r.tally.life][id]
	w.counts.mu.Unlock()
	r.tally.mu.Lock()
	defer r.tally.mu.Unlock()
	if one := r.tally.of[taskRef{product, id}]; one != nil {
		sum.Add(one.counts)
	}
	return sum
}

// recount compares what a room counted with what its sessions hold in flight. Once it has stopped nothing is left to be handed over.
func (w *world) recount(r *Room, stopped bool) {
	w.t.Helper()
	if r.tally == nil {
		return
	}
	held := make(map[push.MsgID]int64)
	for _, s := range r.snapshot() {
		s.mu.Lock()
		if s.tasks != nil {
			for _, f := range s.tasks.flight {
				held[f.id]++
			}
		}
		s.mu.Unlock()
	}
	r.tally.mu.Lock()
	refs := make(map[push.MsgID]bool)
	for ref := range r.tally.of {
		refs[ref.id] = true
	}
	waiting := len(r.tally.changed)
	r.tally.mu.Unlock()
	for id := range refs {
		c := w.counted(r, id)
		if flight := c[task.Sent] - c[task.Returned] - c[task.Acknowledged] - c[task.Dropped]; flight != held[id] && !w.live[id] {
			w.t.Errorf("room %s: of %d were counted %v, that is %d in flight; sessions hold %d", r.cfg.ID, id, c, flight, held[id])
		}
	}
	if stopped && waiting > 0 && w.counts.err == nil {
		w.t.Errorf("room %s: counts of %d messages were not handed over", r.cfg.ID, waiting)
	}
}

// wantCounts checks what a room has counted of a message, in the order of the kinds.
func (w *world) wantCounts(what string, room push.RoomID, id push.MsgID, want task.Counts) {
	w.t.Helper()
	synctest.Wait()
	if got := w.counted(w.rooms[room], id); got != want {
		w.t.Errorf("%s: room %s counted %v of a message, want %v", what, room, got, want)
	}
	w.recount(w.rooms[room], false)
}

const ackSoon = time.Second // acknowledgements are written by then: of own slots, and with soon of common ones

func soon(_ *world, c *Config) { c.AckCommonEvery = 500 * time.Millisecond }

func TestTasks_ADeviceIsSentAndAcknowledgesOnce(t *testing.T) {
	inWorld(t, oneRoom, soon, func(w *world) {
		phone, laptop := w.connect("r1", "alice/phone/android", ""), w.connect("r1", "alice/laptop/web", "")
		for _, to := range [][]push.UserID{toAlice, nil} {
			plain := w.publish(post{to: to, body: `1`, plain: true})
			id := w.publish(post{to: to, body: `1`})
			w.wantCounts("sent", "r1", id, task.Counts{task.Sent: 2})
			phone.ack()
			w.wantCounts("said, and not written", "r1", id, task.Counts{task.Sent: 2})
			time.Sleep(ackSoon)
			w.wantCounts("one has acknowledged", "r1", id, task.Counts{task.Sent: 2, task.Acknowledged: 1})
			phone.ack()
			laptop.ack()
			time.Sleep(ackSoon)
			w.wantCounts("both have", "r1", id, task.Counts{task.Sent: 2, task.Acknowledged: 2})
			w.wantCounts("no task's", "r1", plain, task.Counts{})
		}
		for _, d := range []*device{phone, laptop} {
			if s := d.sess.(*session); s.tasks != nil {
				t.Errorf("a session that owes nothing keeps %+v", s.tasks)
			}
		}
	})
}

func TestTasks_WhatASessionDidNotAcknowledgeReturns(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*world, *device)
	}{
		{"it breaks", func(_ *world, d *device) { d.leave() }},
		{"it is kicked, and nothing was written yet", func(w *world, d *device) {
			d.freeze()
			w.toAlice()
			if _, err := w.rooms["r1"].Kick(w.ctx, product, "alice", push.Kick{}); err != nil {
				w.t.Fatal(err)
			}
			d.thaw()
			d.gone()
		}},
		{"it is too slow", func(w *world, d *device) {
			d.freeze()
			w.toAlice()
			d.gone()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, oneRoom, nil, func(w *world) {
				d := w.connect("r1", "alice/phone/android", "")
				a := w.toAlice()
				synctest.Wait()
				d.ack()
				b, all := w.toAlice(), w.publish(post{body: `2`})
				synctest.Wait()
				c.end(w, d)
				time.Sleep(ackSoon)
				w.wantCounts("acknowledged", "r1", a, task.Counts{task.Sent: 1, task.Acknowledged: 1})
				for _, id := range []push.MsgID{b, all} {
					w.wantCounts("not acknowledged", "r1", id, task.Counts{task.Sent: 1, task.Returned: 1})
				}
				again := w.connect("r1", "alice/phone/android", d.theCursor())
				again.ack()
				time.Sleep(31 * time.Second)
				w.wantCounts("acknowledged later", "r1", b, task.Counts{task.Sent: 2, task.Returned: 1, task.Acknowledged: 1})
			})
		})
	}
}

func TestTasks_RecalledInFlightReturns(t *testing.T) {
	for _, to := range [][]push.UserID{toAlice, nil} {
		inWorld(t, oneRoom, nil, func(w *world) {
			told, behind := w.connect("r1", "alice/phone/android", ""), w.connect("r1", "alice/laptop/web", "")
			id := w.publish(post{to: to, body: `1`})
			synctest.Wait()
			behind.ack()
			time.Sleep(31 * time.Second)
			w.recall(id)
			w.wantCounts("recalled", "r1", id, task.Counts{task.Sent: 2, task.Acknowledged: 1, task.Returned: 1})
			told.ack()
			time.Sleep(31 * time.Second)
			w.wantCounts("its recall is acknowledged", "r1", id, task.Counts{task.Sent: 2, task.Acknowledged: 1, task.Returned: 1})
		})
	}
}

// A session that catches up reads the recall, and does not read what it took back.
func TestTasks_RecallThatIsReadReturns(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		id := w.toAlice()
		synctest.Wait()
		w.dropAll = true
		w.recall(id)
		time.Sleep(5 * time.Second) // a sweep
		d.want(id, -id)
		w.wantCounts("recalled", "r1", id, task.Counts{task.Sent: 1, task.Returned: 1})
	})
}

func TestTasks_WhoComesBackAheadCountsWhatItHandled(t *testing.T) {
	for _, c := range []struct {
		name  string
		to    []push.UserID
		room  push.RoomID // where it comes back
		reads int         // of the store for that
	}{
		{"own slot", toAlice, "r1", 1},
		{"own slot, another room", toAlice, "r2", 1},
		{"common slot, kept in memory", nil, "r1", 0},
		{"common slot, another room", nil, "r2", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, twoRooms, nil, func(w *world) {
				d := w.connect("r1", "alice/phone/android", "")
				if c.to == nil { // so that the tail has begun
					w.dropAll = true
					w.publish(post{body: `0`, plain: true})
					w.dropAll = false
					time.Sleep(5 * time.Second)
				}
				old := w.publish(post{to: c.to, body: `0`})
				synctest.Wait()
				d.ack()
				time.Sleep(31 * time.Second)
				plain := w.publish(post{to: c.to, body: `1`, plain: true})
				id := w.publish(post{to: c.to, body: `1`})
				synctest.Wait()
				d.leave() // before it could acknowledge
				before := w.saver.readCount()
				again := w.connect(c.room, "alice/phone/android", d.theCursor())
				again.want()
				if got := w.saver.readCount() - before; got != c.reads {
					t.Errorf("%d slots were read, want %d", got, c.reads)
				}
				again.ack()
				time.Sleep(31 * time.Second)
				if c.room == "r1" {
					w.wantCounts("both sessions", "r1", id, task.Counts{task.Sent: 2, task.Returned: 1, task.Acknowledged: 1})
				} else {
					w.wantCounts("the first session", "r1", id, task.Counts{task.Sent: 1, task.Returned: 1})
					w.wantCounts("the second session", "r2", id, task.Counts{task.Sent: 1, task.Acknowledged: 1})
				}
				w.wantCounts("no task's", c.room, plain, task.Counts{})
				w.wantCounts("acknowledged before", "r1", old, task.Counts{task.Sent: 1, task.Acknowledged: 1})
				again.leave()
				before = w.saver.readCount()
				w.connect(c.room, "alice/phone/android", again.theCursor())
				if got := w.saver.readCount() - before; got != 0 {
					t.Errorf("%d slots were read for one that comes back where it is stored", got)
				}
			})
		})
	}
}

// After a room has started anew, its clients come back ahead of what is stored of common slots, all alike.
func TestTasks_ManyWhoComeBackAheadReadTheCommonSlotOnce(t *testing.T) {
	inWorld(t, twoRooms, nil, func(w *world) {
		const n = 20
		var ds []*device
		token := func(i int) string { return fmt.Sprintf("alice/phone%d/android", i) }
		for i := range n {
			ds = append(ds, w.connect("r1", token(i), ""))
		}
		id := w.publish(post{body: `1`})
		synctest.Wait()
		before := w.saver.readCount()
		for i, d := range ds {
			d.leave()
			w.connect("r2", token(i), d.theCursor()).ack()
		}
		if got := w.saver.readCount() - before; got != 1 {
			t.Errorf("the slot was read %d times, want once", got)
		}
		time.Sleep(31 * time.Second)
		w.wantCounts("all", "r2", id, task.Counts{task.Sent: n, task.Acknowledged: n})
	})
}

// lookingBack has a device of which a session before sent something, and did not hear it, come back at r1. It returns what was sent, and what
// lets the room look back; until then it waits.
func (w *world) lookingBack(more int) (d *device, id push.MsgID, look func()) {
	first := w.connect("r1", "alice/phone/android", "")
	for range more {
		w.publish(post{to: toAlice, body: `1`, plain: true})
	}
	id = w.toAlice()
	synctest.Wait()
	first.leave()
	time.Sleep(ackSoon)
	wait := make(chan struct{})
	w.saver.set(func(g *gate) { g.onRead = func([]saver.Read) error { <-wait; return nil } })
	return w.connect("r1", "alice/phone/android", first.theCursor()), id, func() {
		w.saver.set(func(g *gate) { g.onRead = nil })
		close(wait)
		synctest.Wait()
	}
}

func TestTasks_AcknowledgementWaitsUntilTheSessionHasLookedBack(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d, id, look := w.lookingBack(2 * maxRead)
		before := w.stored()
		d.ack()
		time.Sleep(ackSoon + 100*time.Millisecond) // between two batches
		if got := w.stored(); got != before {
			t.Errorf("the stored cursor went from %d to %d, and what lies there may be gone", before, got)
		}
		look()
		w.wantCounts("looked back", "r1", id, task.Counts{task.Sent: 2, task.Returned: 1})
		time.Sleep(ackSoon)
		w.wantCounts("acknowledged", "r1", id, task.Counts{task.Sent: 2, task.Returned: 1, task.Acknowledged: 1})
		if got := w.stored(); got != before+1+2*maxRead {
			t.Errorf("the stored cursor went from %d to %d", before, got)
		}
	})
}

func TestTasks_SessionThatEndsWhileItLooksBackLeavesItToTheNext(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d, id, look := w.lookingBack(0)
		d.ack()
		d.leave()
		time.Sleep(ackSoon)
		look()
		w.wantCounts("ended", "r1", id, task.Counts{task.Sent: 1, task.Returned: 1})
		d = w.connect("r1", "alice/phone/android", d.theCursor())
		d.ack()
		time.Sleep(ackSoon)
		w.wantCounts("acknowledged", "r1", id, task.Counts{task.Sent: 2, task.Returned: 1, task.Acknowledged: 1})
	})
}

func TestTasks_LookBackTakesWhatWasForTheDeviceAlone(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		first := w.connect("r1", "alice/phone/android", "")
		web := &push.Filter{Platforms: push.PlatformSet(0).Add(push.PlatformWeb)}
		other, id := w.publish(post{to: toAlice, body: `1`, filter: web}), w.toAlice()
		synctest.Wait()
		first.leave()
		d := w.connect("r1", "alice/phone/android", first.theCursor())
		d.ack()
		time.Sleep(ackSoon)
		w.wantCounts("for the device", "r1", id, task.Counts{task.Sent: 2, task.Returned: 1, task.Acknowledged: 1})
		w.wantCounts("for others", "r1", other, task.Counts{})
	})
}

func TestTasks_LookBackAtAStoreThatFellBackTakesNothing(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		snap, err := w.memory.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		_, lost, look := w.lookingBack(0)
		w.fallBack(snap)
		w.dropAll = true
		after := w.toAlice()
		look()
		w.wantCounts("lost", "r1", lost, task.Counts{task.Sent: 1, task.Returned: 1})
		time.Sleep(5 * time.Second)
		w.wantCounts("at its position", "r1", after, task.Counts{task.Sent: 1})
	})
}

// A slot may hold a message twice, where a store fell back between two attempts to write it.
func TestTasks_SentTwiceCountsOnce(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		id := w.toAlice()
		synctest.Wait()
		s := d.sess.(*session)
		s.mu.Lock()
		s.noteFlightLocked(push.Own, s.slots[push.Own].at.Pos+1, &push.Message{ID: id, Task: true, Persistent: true})
		s.mu.Unlock()
		w.wantCounts("twice", "r1", id, task.Counts{task.Sent: 1})
		d.ack()
		time.Sleep(ackSoon)
		w.wantCounts("once acknowledged", "r1", id, task.Counts{task.Sent: 1})
		d.leave()
	})
}

func TestTasks_LookBackIsTriedAgain(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d, id, look := w.lookingBack(0)
		fail := 3
		w.saver.set(func(g *gate) {
			g.onRead = func([]saver.Read) error {
				if fail--; fail >= 0 {
					return errors.New("the store is away")
				}
				return nil
			}
		})
		look()
		d.ack()
		time.Sleep(5 * time.Second)
		w.wantCounts("acknowledged", "r1", id, task.Counts{task.Sent: 2, task.Returned: 1, task.Acknowledged: 1})
	})
}

// Both sessions say that the device has acknowledged: that of the room that the client left, which writes it late, and that of the room where it goes
// on. Whoever is first counts it.
func TestTasks_TwoRoomsThatAcknowledgeTheSameCountItOnce(t *testing.T) {
	for _, first := range twoRooms {
		t.Run(string(first)+" writes first", func(t *testing.T) {
			inWorld(t, twoRooms, nil, func(w *world) {
				d := w.connect("r1", "alice/phone/android", "")
				id := w.toAlice()
				synctest.Wait()
				wait := make(chan struct{})
				w.saver.set(func(g *gate) {
					g.onAck = func(as []saver.Ack) error {
						if late := as[0].Places[push.Own].Pos > 0 && as[0].Online > 0; late && first == "r2" {
							<-wait
						}
						return nil
					}
				})
				time.Sleep(100 * time.Millisecond)
				d.ack()
				d.leave()
				again := w.connect("r2", "alice/phone/android", d.theCursor())
				again.ack()
				time.Sleep(ackSoon)
				close(wait)
				time.Sleep(ackSoon)
				none, one := task.Counts{task.Sent: 1, task.Returned: 1}, task.Counts{task.Sent: 1, task.Acknowledged: 1}
				if first == "r1" {
					w.wantCounts("first", "r1", id, one)
					w.wantCounts("second", "r2", id, task.Counts{}) // it was stored when the session began
				} else {
					w.wantCounts("first", "r2", id, one)
					w.wantCounts("second", "r1", id, none)
				}
			})
		})
	}
}

func TestTasks_ClientThatPollsAtAnotherRoomIsCountedThere(t *testing.T) {
	inWorld(t, twoRooms, func(w *world, c *Config) {
		c.Evict = func(room push.RoomID, o register.Order) { w.rooms[room].Evict(o) }
	}, func(w *world) {
		d := w.dialOver(transport.LongPoll, "r1")
		d.send(&wire.Connect{Version: wire.Version, Token: "alice/phone/android"})
		d.poll(0)
		d.answer()
		id := w.toAlice()
		d.poll(time.Second)
		d.answer()
		d.want(id)
		w.wantCounts("sent", "r1", id, task.Counts{task.Sent: 1})
		epoch := framesOf[*wire.Welcome](d)[0].Session
		next := w.dialOver(transport.LongPoll, "r2")
		next.cursor = d.theCursor()
		next.send(&wire.Connect{Version: wire.Version, Token: "alice/phone/android", Cursor: next.cursor, After: epoch})
		next.poll(0)
		next.answer()
		next.poll(0) // which acknowledges what the first room sent
		next.answer()
		time.Sleep(ackSoon)
		w.wantCounts("the room that it left", "r1", id, task.Counts{task.Sent: 1, task.Returned: 1})
		w.wantCounts("the room where it polls", "r2", id, task.Counts{task.Sent: 1, task.Acknowledged: 1})
	})
}

func TestTasks_AcknowledgementThatMayHaveBeenWrittenCountsNothing(t *testing.T) {
	for _, c := range []struct {
		name    string
		certain bool // the store knows that it wrote it
		written bool
		want    task.Counts
	}{
		{"not written", false, false, task.Counts{task.Sent: 1, task.Acknowledged: 1}},
		{"written, and the answer lost", false, true, task.Counts{task.Sent: 1, task.Returned: 1}},
		{"written, and others were not", true, true, task.Counts{task.Sent: 1, task.Acknowledged: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, oneRoom, nil, func(w *world) {
				d := w.connect("r1", "alice/phone/android", "")
				id := w.toAlice()
				synctest.Wait()
				failed := false
				w.saver.set(func(g *gate) {
					g.onAck = func(as []saver.Ack) error {
						if failed {
							return nil
						}
						failed = true
						as = slices.Clone(as)
						for i := range as {
							if !c.certain {
								as[i].Moved = nil
							}
						}
						if c.written {
							if _, err := g.Store.Ack(w.ctx, as); err != nil {
								return err
							}
						}
						return errors.New("no answer")
					}
				})
				d.ack()
				time.Sleep(ackSoon)
				w.wantCounts("once it was written", "r1", id, c.want)
				d.leave()
				w.wantCounts("in the end", "r1", id, c.want)
			})
		})
	}
}

func TestTasks_AcknowledgementBesideTheSessionIsCountedWhereItComes(t *testing.T) {
	web := &push.Filter{Platforms: push.PlatformSet(0).Add(push.PlatformWeb)}
	for _, c := range []struct {
		name   string
		to     []push.UserID
		filter *push.Filter
		want   int64
	}{
		{"own slot", toAlice, nil, 1},
		{"common slot", nil, nil, 1},
		{"for tags that it has", toAlice, &push.Filter{Tags: &push.TagExpr{All: []push.TagTerm{{Tag: "vip"}}}}, 1},
		{"for tags that it does not have", toAlice, &push.Filter{Tags: &push.TagExpr{All: []push.TagTerm{{Tag: "trial"}}}}, 0},
		{"for others", nil, web, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, twoRooms, nil, func(w *world) {
				give := saver.TagChange{UserRef: aliceRef(), Add: []push.Tag{"vip"}}
				if res := w.saver.ChangeTags(w.ctx, []saver.TagChange{give}); res[0].Err != nil {
					t.Fatal(res[0].Err)
				}
				d := w.connectOver(transport.SSE, "r2", "alice/phone/android", "")
				id := w.publish(post{to: c.to, body: `1`, filter: c.filter})
				w.publish(post{to: c.to, body: `2`, plain: true}) // so that there is something to acknowledge
				w.wantCounts("sent", "r2", id, task.Counts{task.Sent: c.want})
				if err := w.post(&wire.Ack{Cursor: d.theCursor()}, &wire.Ack{Cursor: d.theCursor()}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(ackSoon)
				w.wantCounts("acknowledged elsewhere", "r1", id, task.Counts{task.Sent: c.want, task.Acknowledged: c.want})
				w.wantCounts("not known yet", "r2", id, task.Counts{task.Sent: c.want})
				time.Sleep(31 * time.Second)
				w.wantCounts("known", "r2", id, task.Counts{task.Sent: c.want, task.Returned: c.want})
			})
		})
	}
}

func TestTasks_AcknowledgementOfManyBesideTheSessionCountsAll(t *testing.T) {
	inWorld(t, twoRooms, nil, func(w *world) {
		d := w.connectOver(transport.SSE, "r2", "alice/phone/android", "")
		var last push.MsgID
		for range 2*maxRead + 1 {
			last = w.toAlice()
			synctest.Wait()
		}
		if err := w.post(&wire.Ack{Cursor: d.theCursor()}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(ackSoon)
		w.wantCounts("the last", "r1", last, task.Counts{task.Sent: 1, task.Acknowledged: 1})
	})
}

func TestTasks_NotPersistentIsSentAndDropped(t *testing.T) {
	inWorld(t, oneRoom, func(_ *world, c *Config) { c.QueueMessages = 2 }, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		live := func() push.MsgID { return w.publish(post{to: toAlice, body: `1`, live: true}) }
		a := live()
		synctest.Wait()
		d.want(a)
		d.freeze()
		b, c, e := live(), live(), live()
		w.wantCounts("it came", "r1", a, task.Counts{task.Sent: 1})
		w.wantCounts("the oldest was given up", "r1", b, task.Counts{task.Sent: 1, task.Dropped: 1})
		for _, id := range []push.MsgID{c, e} {
			w.wantCounts("it waits", "r1", id, task.Counts{task.Sent: 1})
		}
		w.toAlice()
		w.toAlice() // which do not fit, and are read later
		d.thaw()
		synctest.Wait()
		d.freeze()
		w.toAlice()
		w.toAlice()
		synctest.Wait()
		last := live()
		w.wantCounts("it found no room", "r1", last, task.Counts{task.Sent: 1, task.Dropped: 1})
		d.thaw()
	})
}

func TestTasks_EventsCountOnceASession(t *testing.T) {
	inWorld(t, twoRooms, nil, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		id, plain := w.toAlice(), w.publish(post{to: toAlice, body: `1`, plain: true})
		synctest.Wait()
		d.ack()
		time.Sleep(ackSoon)
		shown, clicked := &wire.Event{Event: wire.Displayed, ID: id}, &wire.Event{Event: wire.Clicked, ID: id}
		for _, f := range []wire.Frame{shown, shown, clicked, &wire.Event{Event: wire.Clicked, ID: plain}, &wire.Event{Event: wire.Clicked, ID: 5}, shown, clicked} {
			d.send(f)
		}
		want := task.Counts{task.Sent: 1, task.Acknowledged: 1, task.Displayed: 1, task.Clicked: 1}
		w.wantCounts("a session", "r1", id, want)
		w.wantCounts("no task's", "r1", plain, task.Counts{})
		w.wantCounts("unknown", "r1", 5, task.Counts{})
		d.leave()
		for range 2 { // without a session
			if err := w.post(shown, clicked); err != nil {
				t.Fatal(err)
			}
		}
		want[task.Displayed]++
		want[task.Clicked]++
		w.wantCounts("beside a session", "r1", id, want)
		d = w.connect("r2", "alice/phone/android", d.theCursor())
		d.send(shown)
		w.wantCounts("a room that knows of no such task", "r2", id, task.Counts{})
	})
}

func TestTasks_EventsOfASessionAreBounded(t *testing.T) {
	inWorld(t, oneRoom, func(_ *world, c *Config) { c.FramesPerSecond = 1000 }, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		var ids []push.MsgID
		for range maxReported + 1 {
			ids = append(ids, w.toAlice())
			synctest.Wait()
		}
		for _, id := range append(ids, ids[0], ids[maxReported]) {
			d.send(&wire.Event{Event: wire.Displayed, ID: id})
		}
		w.wantCounts("forgotten", "r1", ids[0], task.Counts{task.Sent: 1, task.Displayed: 2})
		w.wantCounts("the latest", "r1", ids[maxReported], task.Counts{task.Sent: 1, task.Displayed: 1})
		if got := len(d.sess.(*session).tasks.reported[0]); got != maxReported {
			t.Errorf("%d are remembered", got)
		}
	})
}

func TestTasks_FlightOfASessionIsBounded(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		w.policy.Limits.OwnMessages = 2 * maxFlight
		d := w.connect("r1", "alice/phone/android", "")
		var ids []push.MsgID
		for range maxFlight + 1 {
			ids = append(ids, w.toAlice())
			synctest.Wait()
		}
		w.wantCounts("the oldest", "r1", ids[0], task.Counts{task.Sent: 1, task.Returned: 1})
		d.ack()
		time.Sleep(ackSoon)
		w.wantCounts("the oldest", "r1", ids[0], task.Counts{task.Sent: 1, task.Returned: 1})
		w.wantCounts("the next", "r1", ids[1], task.Counts{task.Sent: 1, task.Acknowledged: 1})
	})
}

func TestTasks_WhatAStoreLostReturns(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		kept := w.toAlice()
		synctest.Wait()
		snap, err := w.memory.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		lost := w.toAlice()
		w.wantCounts("sent", "r1", lost, task.Counts{task.Sent: 1})
		w.fallBack(snap)
		after := w.toAlice() // at its position
		time.Sleep(5 * time.Second)
		w.wantCounts("lost", "r1", lost, task.Counts{task.Sent: 1, task.Returned: 1})
		d.ack()
		time.Sleep(ackSoon)
		w.wantCounts("kept", "r1", kept, task.Counts{task.Sent: 1, task.Acknowledged: 1})
		w.wantCounts("at the position of the lost one", "r1", after, task.Counts{task.Sent: 1, task.Acknowledged: 1})
	})
}

func TestTasks_DeviceThatTheStoreForgotCountsWhatItAcknowledged(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		w.policy.FirstVisit.Later = push.StartBeginning
		w.connect("r1", "alice/laptop/web", "")
		id := w.toAlice()
		synctest.Wait()
		snap, err := w.memory.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		d := w.connect("r1", "alice/phone/android", "")
		d.want(id)
		d.ack()
		w.fallBack(snap) // before that is written
		time.Sleep(2 * settled)
		if !w.isKnown("phone") {
			t.Fatal("the store does not know a device whose session goes on")
		}
		w.wantCounts("opened again", "r1", id, task.Counts{task.Sent: 2, task.Acknowledged: 1})
	})
}

// TestTasks_EveryDeviceAcknowledgesOnceWhateverItDoes has three devices come, go, move between rooms, acknowledge there, beside their session or not at all, and
// lose their cursors, while messages are sent and some taken back. Nothing fails. In the end each has acknowledged each message that was not recalled exactly once,
// in whichever room, and none of the others more than once.
func TestTasks_EveryDeviceAcknowledgesOnceWhateverItDoes(t *testing.T) {
	for seed := range uint64(60) {
		inWorld(t, twoRooms, soon, func(w *world) { w.wander(rand.New(rand.NewPCG(seed, 17)), seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func (w *world) wander(rng *rand.Rand, seed uint64) {
	names := []string{"alice/phone/android", "alice/laptop/web", "bob/phone/ios"}
	devices := make([]*device, len(names))
	cursors := make([]string, len(names))
	var ids []push.MsgID
	meant, recalled := make(map[push.MsgID]int64), make(map[push.MsgID]bool)
	kinds := []transport.Kind{transport.WebSocket, transport.SSE, transport.LongPoll}
	come := func(i int, kind transport.Kind) {
		if devices[i] != nil {
			devices[i].keep(&cursors[i])
		}
		d := w.connectOver(kind, twoRooms[rng.IntN(2)], names[i], cursors[i])
		devices[i] = d
	}
	for i := range names {
		come(i, transport.WebSocket)
	}
	send := func(to []push.UserID, devices int64) {
		plain := rng.IntN(3) == 0
		id := w.publish(post{to: to, body: `1`, plain: plain, silent: rng.IntN(4) == 0, bare: rng.IntN(4) == 0})
		if !plain {
			meant[id] = devices
		}
		ids = append(ids, id)
	}
	for range 120 {
		i := rng.IntN(len(names))
		switch d := devices[i]; rng.IntN(12) {
		case 0, 1:
			send(nil, 3)
		case 2, 3:
			send(toAlice, 2)
		case 4:
			if id := ids[max(0, len(ids)-3):]; len(id) > 0 && rng.IntN(2) == 0 {
				recalled[id[0]] = true
				w.recall(id[0])
			}
		case 5:
			come(i, kinds[rng.IntN(len(kinds))]) // without an end to the session before
		case 6:
			d.keep(&cursors[i])
			d.Cut(wire.CloseLost)
		case 7:
			cursors[i] = "" // and its storage is gone
			d.Cut(wire.CloseLost)
			d.gone()
			devices[i] = nil
			come(i, transport.WebSocket)
		case 8, 9:
			if d.closedWith() == 0 {
				d.ack()
			}
		case 10:
			c := d.theCursor()
			if err := w.rooms[twoRooms[rng.IntN(2)]].Post(w.ctx, names[i], []wire.Frame{&wire.Ack{Cursor: c}}); err != nil && code(err) != "flood" {
				w.t.Fatal(err)
			}
		case 11:
			time.Sleep(time.Duration(rng.IntN(700)) * time.Millisecond)
		}
		if rng.IntN(2) == 0 {
			synctest.Wait()
		}
	}
	for range 3 {
		for i := range names { // all are there, and have heard everything
			come(i, transport.WebSocket)
			time.Sleep(5 * time.Second)
			devices[i].ack()
			time.Sleep(ackSoon)
		}
	}
	for _, d := range devices {
		d.leave()
	}
	time.Sleep(ackSoon)
	synctest.Wait()
	for id, n := range meant {
		var sum task.Counts
		for _, r := range w.rooms {
			sum.Add(w.counted(r, id))
		}
		if got := sum[task.Acknowledged]; got > n || got < n && !recalled[id] {
			w.t.Errorf("seed %d: %d devices have acknowledged %d, want %d; %v (recalled: %v)", seed, got, id, n, sum, recalled[id])
		}
		if sum.Flight() != 0 {
			w.t.Errorf("seed %d: of %d are %v, nobody is there", seed, id, sum)
		}
	}
}

// keep notes the device's cursor, if it ever had one.
func (d *device) keep(cursor *string) {
	if c := d.theCursor(); c != "" {
		*cursor = c
	}
}
