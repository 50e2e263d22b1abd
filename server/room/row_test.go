package room

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/transport"
	"carillon/server/wire"
)

var twoRooms = []push.RoomID{"r1", "r2"}

// firstPoll has alice's phone poll a room that knows no session of hers, naming the one before (0: none).
func (w *world) firstPoll(room push.RoomID, before push.SessionEpoch) *device {
	w.t.Helper()
	return w.comeOver(transport.LongPoll, room, before)
}

// comeOver has alice's phone connect to a room over a transport, naming the session before (0: none).
func (w *world) comeOver(kind transport.Kind, room push.RoomID, before push.SessionEpoch) *device {
	w.t.Helper()
	d := w.dialOver(kind, room)
	d.send(&wire.Connect{Version: wire.Version, Token: "alice/phone/android", After: before})
	if kind == transport.LongPoll {
		d.ask()
	}
	synctest.Wait()
	return d
}

// ask polls and takes the answer, if there is one at once.
func (d *device) ask() {
	d.poll(0)
	synctest.Wait()
	select {
	case <-d.answered:
	default:
	}
}

// number is the session that a device was welcomed to; 0: none.
func (d *device) number() push.SessionEpoch {
	if ws := framesOf[*wire.Welcome](d); len(ws) == 1 {
		return ws[0].Session
	}
	return 0
}

// wantPassedOn waits for the sessions' rooms to hear of what came instead, and holds them to have ended without a word.
func (w *world) wantPassedOn(ds ...*device) {
	w.t.Helper()
	time.Sleep(2 * register.RenewEvery)
	synctest.Wait()
	for _, d := range ds {
		if ks := framesOf[*wire.Kick](d); len(ks) != 0 || d.closedWith() != wire.CloseLost {
			w.t.Errorf("session %d: closed with %v, told %+v, want lost and no word", d.number(), d.closedWith(), ks)
		}
	}
}

// wantTold is the same for one whose client has to stay away.
func (w *world) wantTold(d *device) {
	w.t.Helper()
	time.Sleep(2 * register.RenewEvery)
	select {
	case <-d.done:
	default: // its goodbye waits for the next poll
		d.ask()
	}
	if ks := framesOf[*wire.Kick](d); len(ks) != 1 || ks[0].Code != wire.CloseReplaced || d.closedWith() != wire.CloseReplaced {
		w.t.Errorf("session %d: closed with %v, told %+v, want to be told that it was replaced", d.number(), d.closedWith(), ks)
	}
}

// wantStays holds a session to be the one of its device.
func (w *world) wantStays(d *device) {
	w.t.Helper()
	found, err := w.reg.Lookup(w.ctx, product, []push.UserID{"alice"})
	if err != nil || len(found[0]) != 1 || found[0][0].Epoch != d.number() || d.closedWith() != 0 {
		w.t.Errorf("the register has %+v, %v, want session %d alone, which closed with %v", found, err, d.number(), d.closedWith())
	}
}

func TestPoll_ThatGoesOnInAnotherRoomSendsNobodyAway(t *testing.T) {
	inWorld(t, twoRooms, nil, func(w *world) {
		first := w.firstPoll("r1", 0)
		first.poll(time.Minute) // it is still there when the next one comes to the other room
		second := w.firstPoll("r2", first.number())
		w.wantPassedOn(first)
		third := w.firstPoll("r1", second.number())
		w.wantPassedOn(second)
		w.wantStays(third)
	})
}

// The answer that named the session of the other room is lost, so its client comes back with the number that it has.
func TestPoll_ThatComesBackAfterALostAnswerSendsNobodyAway(t *testing.T) {
	inWorld(t, twoRooms, nil, func(w *world) {
		first := w.firstPoll("r1", 0)
		lost := w.firstPoll("r2", first.number())
		again := w.firstPoll("r2", first.number())
		w.wantPassedOn(first, lost)
		back := w.firstPoll("r1", first.number())
		w.wantPassedOn(again)
		w.wantStays(back)
	})
}

func TestPoll_OfAnotherClientIsToldThatItWasReplaced(t *testing.T) {
	inWorld(t, twoRooms, nil, func(w *world) {
		first := w.firstPoll("r1", 0)
		second := w.firstPoll("r2", first.number())
		twin := w.firstPoll("r1", 0)
		w.wantTold(second)
		refused := w.firstPoll("r1", second.number()) // its poll comes to where no goodbye waits
		w.wantTold(refused)
		if n := refused.number(); n != 0 {
			t.Errorf("it was welcomed to session %d", n)
		}
		w.wantStays(twin)
		next := w.firstPoll("r2", twin.number())
		w.wantPassedOn(twin)
		w.wantStays(next)
	})
}

// late is a register that one of a room's connects reaches only when the test says so.
type late struct {
	register.Register
	room push.RoomID
	open chan struct{}
}

func (l late) Insert(ctx context.Context, s register.Session, limits []push.SessionLimit) (register.Inserted, error) {
	if s.Room == l.room {
		<-l.open
	}
	return l.Register.Insert(ctx, s, limits)
}

// inLate has a client's poll come to r2 and not be opened there until open is called. The client has given it up by then.
func inLate(t *testing.T, f func(w *world, first, given *device, open func())) {
	rooms := []push.RoomID{"r1", "r2", "r3"}
	var going chan struct{}
	tune := func(w *world, c *Config) {
		if going == nil {
			going = make(chan struct{})
		}
		c.Register = late{w.reg, "r2", going}
	}
	inWorld(t, rooms, tune, func(w *world) {
		first := w.firstPoll("r1", 0)
		given := w.firstPoll("r2", first.number())
		f(w, first, given, func() { close(going); synctest.Wait() })
	})
}

func TestPoll_OpenedLateSendsNobodyAwayWhoWentOnElsewhere(t *testing.T) {
	inLate(t, func(w *world, first, given *device, open func()) {
		second := w.firstPoll("r3", first.number())
		third := w.firstPoll("r1", second.number())
		w.wantPassedOn(first, second)
		third.poll(time.Minute)
		open()
		w.wantPassedOn(third)
		w.wantStays(given)
		back := w.firstPoll("r3", third.number())
		w.wantPassedOn(given)
		w.wantStays(back)
	})
}

// A client that begins anew names nothing. The poll that it gave up before is told off, and nobody hears that.
func TestPoll_OpenedLateYieldsToAClientThatBeganAnew(t *testing.T) {
	inLate(t, func(w *world, first, given *device, open func()) {
		anew := w.firstPoll("r3", 0)
		open()
		w.wantTold(given)
		w.wantStays(anew)
	})
}

// A room that has its lease again finds that a client of its own has gone on elsewhere.
func TestComeback_OfASessionWhoseClientWentOnSendsNobodyAway(t *testing.T) {
	var off atomic.Bool
	tune := func(w *world, c *Config) {
		if c.ID == "r1" {
			c.Register = flaky{w.reg, off.Load}
		}
	}
	inWorld(t, twoRooms, tune, func(w *world) {
		first := w.firstPoll("r1", 0)
		off.Store(true)
		time.Sleep(register.LeaseTTL + register.RenewEvery)
		second := w.firstPoll("r2", first.number())
		off.Store(false)
		w.wantPassedOn(first)
		w.wantStays(second)
	})
}

// What is known of a row outlives a lost lease.
func TestComeback_KeepsWhatIsKnownOfWhoWentOn(t *testing.T) {
	var off atomic.Bool
	tune := func(w *world, c *Config) { c.Register = flaky{w.reg, off.Load} }
	inWorld(t, twoRooms, tune, func(w *world) {
		first := w.firstPoll("r1", 0)
		second := w.firstPoll("r2", first.number())
		third := w.firstPoll("r1", second.number())
		w.wantPassedOn(first, second)
		third.poll(time.Minute)
		off.Store(true)
		time.Sleep(register.LeaseTTL + register.RenewEvery)
		off.Store(false)
		time.Sleep(2 * register.RenewEvery)
		w.wantStays(third)
		late := w.firstPoll("r2", first.number())
		w.wantPassedOn(third)
		w.wantStays(late)
	})
}

func TestConnect_OfAClientThatComesBackEndsWhatItHadWithoutAWord(t *testing.T) {
	for kind := range capabilities {
		inWorld(t, twoRooms, nil, func(w *world) {
			first := w.comeOver(kind, "r1", 0)
			second := w.comeOver(transport.WebSocket, "r2", first.number()) // r1 has not noticed yet that the connection is dead
			third := w.comeOver(kind, "r1", second.number())
			late := w.comeOver(kind, "r2", first.number()) // given up by its client, and opened all the same
			w.wantPassedOn(first, second, third)
			back := w.comeOver(kind, "r1", third.number())
			w.wantPassedOn(late)
			if back.number() <= late.number() {
				t.Fatalf("%s: session %d came after %d", kind, back.number(), late.number())
			}
			twin := w.comeOver(kind, "r2", 0)
			w.wantTold(back)
			refused := w.comeOver(kind, "r1", back.number()) // as if it had not heard that
			w.wantTold(refused)
			if n := refused.number(); n != 0 {
				t.Errorf("%s: a client that was replaced was welcomed to session %d", kind, n)
			}
			w.wantStays(twin)
		})
	}
}

func TestConnect_ThatEndedBeforeItWasOpenedKeepsNoRow(t *testing.T) {
	inWorld(t, twoRooms, nil, func(w *world) {
		d := w.dial("r1")
		d.Cut(wire.CloseLost)
		synctest.Wait()
		w.rooms["r1"].noteRow(d.sess.(*session), 1)
	}) // inWorld looks at what the rooms keep
}
