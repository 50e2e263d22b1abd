package room

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/wire"
)

// wantFull holds a device to have been told when to come back to a product that is full.
func (d *device) wantFull() {
	d.w.t.Helper()
	if got := d.closedWith(); got != wire.CloseProductFull || got.Duty() != wire.ComeBack {
		d.w.t.Errorf("closed with %v, want %v", got, wire.CloseProductFull)
	}
	gs := framesOf[*wire.Goaway](d)
	if len(gs) != 1 || gs[0].Reason != "product_full" || gs[0].DelayMillis < uint32((fullSpread/2).Milliseconds()) {
		d.w.t.Errorf("got goaways %+v, want one that says when to come back", gs)
	}
}

func (w *world) online() int {
	w.t.Helper()
	n, err := w.reg.Count(w.ctx, product)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func TestRoom_TenTimesPastTheSessionsOfAProduct(t *testing.T) {
	const most = 5
	inWorld(t, []push.RoomID{"r1", "r2"}, nil, func(w *world) {
		w.policy.Limits.Sessions = most
		var in []*device
		for i := range 10 * most {
			d := w.connect([]push.RoomID{"r1", "r2"}[i%2], fmt.Sprintf("user%d/phone/android", i), "")
			if i < most {
				in = append(in, d)
			} else {
				d.wantFull()
			}
		}
		w.wantOpen(in...)
		other := w.connect("r1", "bob/phone/android/1h/shop2", "")
		if got := other.closedWith(); got != 0 {
			t.Errorf("another product's device was closed with %v", got)
		}

		in[0].leave()
		w.settle()
		w.wantOpen(append(in[1:], w.connect("r2", "cathy/phone/android", ""))...)
		w.connect("r1", "cathy2/phone/android", "").wantFull()
	})
}

// Who takes the place of another session needs no place of its own: a device that comes back while its old session is not known
// to be gone, and one for which the session policy sends off another of its user.
func TestRoom_AFullProductTakesWhoReplacesASession(t *testing.T) {
	inWorld(t, []push.RoomID{"r1", "r2"}, nil, func(w *world) {
		w.policy.Limits.Sessions = 2
		alice, bob := w.connect("r1", "alice/phone/android", ""), w.connect("r1", "bob/phone/android", "")
		alice.goDark()
		back := w.connect("r2", "alice/phone/android", "")
		w.settle()
		w.wantOpen(back, bob)

		tablet := w.connect("r1", "bob/tablet/tablet", "") // one more of a user who is online
		tablet.wantFull()
		w.settle()
		w.wantOpen(back, bob)

		w.bound(push.SessionRule{Scope: push.PerClass, Of: "mobile", Max: 1})
		tablet = w.connect("r1", "bob/tablet/tablet", "")
		w.settle()
		bob.wantKick(wire.CloseReplaced, "tablet", "tablet", "session policy")
		w.wantOpen(back, tablet)
	})
}

// hesitant is a register that takes its time, so that many connects are under way at once.
type hesitant struct {
	register.Register
	mu   sync.Mutex
	most int // guarded by mu: sessions that were ever there
}

func (h *hesitant) Insert(ctx context.Context, s register.Session, limits []push.SessionLimit) (register.Inserted, error) {
	time.Sleep(10 * time.Millisecond)
	ins, err := h.Register.Insert(ctx, s, limits)
	h.mu.Lock()
	defer h.mu.Unlock()
	if n, e := h.Register.Count(ctx, s.Product); e == nil {
		h.most = max(h.most, n)
	}
	return ins, err
}

func TestRoom_ConnectsAtOnceDoNotGoPastTheSessionsOfAProduct(t *testing.T) {
	const most = 20
	var reg *hesitant
	tune := func(w *world, c *Config) {
		reg = &hesitant{Register: c.Register}
		c.Register = reg
	}
	inWorld(t, []push.RoomID{"r1"}, tune, func(w *world) {
		w.policy.Limits.Sessions = most
		for i := range 10 * most {
			w.dial("r1").send(&wire.Connect{Version: wire.Version, Token: fmt.Sprintf("user%d/phone/android", i)})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := w.online(); got != most || reg.most != most {
			t.Errorf("%d are online, and %d were at most, want %d", got, reg.most, most)
		}
	})
}

// A session that found no place is taken out of the register again, also where that fails at first.
func TestRoom_WhoFindsNoPlaceHoldsNone(t *testing.T) {
	var off atomic.Bool
	tune := func(w *world, c *Config) { c.Register = forgetful{w.reg, &off} }
	inWorld(t, []push.RoomID{"r1"}, tune, func(w *world) {
		w.policy.Limits.Sessions = 1
		alice := w.connect("r1", "alice/phone/android", "")
		off.Store(true)
		tablet := w.connect("r1", "alice/tablet/tablet", "")
		if got := tablet.closedWith(); got.Duty() != wire.ComeBack {
			t.Errorf("closed with %v, want to be told to come back", got)
		}
		off.Store(false)
		w.settle()
		w.wantOpen(alice)
		if n := w.online(); n != 1 {
			t.Errorf("the register counts %d sessions, want 1", n)
		}
	})
}
