package room

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/transport"
	"carillon/server/wire"
)

// cut says how rooms are cut off: r1 alone, or what r2 answers besides.
type cut struct {
	off   atomic.Bool  // r1 cannot reach the register
	asked atomic.Int32 // how often r1 asked
}

// inCutWorld runs f in a world of two rooms, of which r1 is cut off while c.off is set, and asks elsewhere.
func inCutWorld(t *testing.T, c *cut, elsewhere func(w *world) bool, f func(w *world)) {
	t.Helper()
	tune := func(w *world, cfg *Config) {
		cfg.Heartbeat = mostHeartbeat
		if cfg.ID != "r1" {
			return
		}
		cfg.Register = flaky{w.reg, c.off.Load}
		cfg.Elsewhere = func(context.Context) bool { c.asked.Add(1); return elsewhere(w) }
	}
	inWorld(t, []push.RoomID{"r1", "r2"}, tune, f)
}

func byR2(w *world) bool { return w.rooms["r2"].Alive() }

func TestCutOff_ClientsAreSentElsewhereOnceAnotherRoomHasItsLease(t *testing.T) {
	var c cut
	inCutWorld(t, &c, byR2, func(w *world) {
		var ds []*device
		for _, kind := range kinds {
			ds = append(ds, w.connectOver(kind, "r1", "alice/"+string(kind)+"/android", ""))
		}
		c.off.Store(true)
		time.Sleep(register.ZombieAfter + register.RenewEvery)
		a := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		w.publish(post{to: []push.UserID{"alice"}, body: `2`, live: true})
		time.Sleep(50 * time.Second)
		synctest.Wait()
		if n := c.asked.Load(); n != 0 {
			t.Errorf("others were asked %d times before the room's time was over", n)
		}
		for _, d := range ds {
			if n := len(framesOf[*wire.Goaway](d)); n != 0 || d.closedWith() != 0 {
				t.Errorf("%s: got %d goaways and %v before the room's time was over", d.kind, n, d.closedWith())
			}
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		for _, d := range ds {
			if n := len(framesOf[*wire.Goaway](d)); n != 1 || d.closedWith() != wire.CloseGoingAway {
				t.Errorf("%s: got %d goaways and %v, want one and going_away", d.kind, n, d.closedWith())
			}
			d.want() // a room without a lease may not write a message, whoever leaves
			back := w.connectOver(d.kind, "r2", "alice/"+string(d.kind)+"/android", d.theCursor())
			time.Sleep(time.Second) // one that polls polls again
			synctest.Wait()
			if !slices.Equal(back.received(), []push.MsgID{a}) {
				t.Errorf("%s: got %v of r2, want what r1 did not write, %d", d.kind, back.received(), a)
			}
		}
	})
}

func TestCutOff_NobodyIsLetInBeforeTheLeaseIsBack(t *testing.T) {
	var c cut
	inCutWorld(t, &c, byR2, func(w *world) {
		r1 := w.rooms["r1"]
		accept := func() error {
			d := &device{w: w, kind: transport.WebSocket, room: r1, wakes: make(chan struct{}, 1), done: make(chan struct{})}
			s, err := r1.Accept(d, transport.Meta{Kind: d.kind, Capabilities: capabilities[d.kind]})
			if err == nil {
				d.sess = s
				go d.pump()
			}
			return err
		}
		c.off.Store(true)
		time.Sleep(30 * time.Second)
		if err := accept(); err != nil {
			t.Errorf("while nobody else was asked: %v", err)
		}
		time.Sleep(35 * time.Second)
		if e := asError(accept()); e == nil || e.Code != "cut_off" || e.Kind != push.KindUnavailable || e.After == 0 {
			t.Errorf("while cut off: got %v", e)
		}
		if r1.Alive() || !w.rooms["r2"].Alive() {
			t.Errorf("alive: r1 %v, r2 %v, want r2 alone", r1.Alive(), w.rooms["r2"].Alive())
		}
		c.off.Store(false)
		time.Sleep(2 * time.Second)
		if !r1.Alive() {
			t.Error("r1 has its lease again and is not alive")
		}
		d := w.connect("r1", "alice/phone/android", "")
		a := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		synctest.Wait()
		d.want(a)
	})
}

func TestCutOff_WhileNoRoomHasItsLeaseClientsStay(t *testing.T) {
	var c cut
	inCutWorld(t, &c, func(*world) bool { return false }, func(w *world) {
		var ds []*device
		for _, kind := range kinds {
			if kind != transport.LongPoll { // whose answer a room owes within a minute, and then comes elsewhere by itself
				ds = append(ds, w.connectOver(kind, "r1", "alice/"+string(kind)+"/android", ""))
			}
		}
		c.off.Store(true)
		time.Sleep(30 * time.Second)
		a := w.publish(post{to: []push.UserID{"alice"}, body: `1`, silent: true})
		time.Sleep(5 * time.Minute)
		if c.asked.Load() < 10 {
			t.Errorf("others were asked %d times in minutes", c.asked.Load())
		}
		c.off.Store(false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for _, d := range ds {
			if d.closedWith() != 0 {
				t.Errorf("%s: closed with %v", d.kind, d.closedWith())
			}
			d.want(a)
		}
	})
}

func TestCutOff_LeaseThatComesBackWhileOthersAreAskedKeepsTheClients(t *testing.T) {
	var c cut
	slow := func(*world) bool {
		c.off.Store(false)
		time.Sleep(3 * time.Second)
		return true
	}
	inCutWorld(t, &c, slow, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		c.off.Store(true)
		time.Sleep(70 * time.Second)
		synctest.Wait()
		if d.closedWith() != 0 || !w.rooms["r1"].Alive() || c.asked.Load() != 1 {
			t.Errorf("closed with %v, alive %v, asked %d times", d.closedWith(), w.rooms["r1"].Alive(), c.asked.Load())
		}
	})
}
