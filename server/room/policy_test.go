package room

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/wire"
)

// bound gives the world's product a session policy where phones and tablets are mobiles, and the rest has no class.
func (w *world) bound(rules ...push.SessionRule) {
	w.t.Helper()
	p, err := push.NewSessionPolicy(push.SessionRules{
		Classes: map[push.Platform]string{push.PlatformAndroid: "mobile", push.PlatformIOS: "mobile", push.PlatformTablet: "mobile"},
		Rules:   rules,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.policy.Sessions = p
}

// settle lets orders come to the rooms that they are for.
func (w *world) settle() {
	time.Sleep(register.RenewEvery + 100*time.Millisecond)
	synctest.Wait()
}

// wantKick holds a device to have been told once why it has to stay away.
func (d *device) wantKick(code wire.CloseCode, by push.DeviceID, on, detail string) {
	d.w.t.Helper()
	if got := d.closedWith(); got != code || code.Duty() != wire.StayAway {
		d.w.t.Errorf("closed with %v, want %v", got, code)
	}
	ks := framesOf[*wire.Kick](d)
	if len(ks) != 1 || ks[0].Code != code || ks[0].By != by || ks[0].On != on || !strings.Contains(ks[0].Detail, detail) {
		d.w.t.Errorf("got kicks %+v, want one of %v, by %q on %q, that says %q", ks, code, by, on, detail)
	}
}

func (w *world) wantOpen(ds ...*device) {
	w.t.Helper()
	for _, d := range ds {
		if d.closedWith() != 0 || len(framesOf[*wire.Welcome](d)) != 1 {
			w.t.Errorf("a session was closed with %v, want it open", d.closedWith())
		}
	}
	if n, err := w.reg.Count(w.ctx, product); err != nil || n != len(ds) {
		w.t.Errorf("the register counts %d sessions (%v), want %d", n, err, len(ds))
	}
}

func TestRoom_PolicySendsTheOldestOffAndTellsByWhom(t *testing.T) {
	inWorld(t, []push.RoomID{"r1", "r2"}, nil, func(w *world) {
		w.bound(push.SessionRule{Scope: push.PerClass, Of: "mobile", Max: 2})
		first, second := w.connect("r1", "alice/first/android", ""), w.connect("r2", "alice/second/ios", "")
		desk, bob := w.connect("r1", "alice/desk/desktop", ""), w.connect("r1", "bob/phone/android", "")
		third := w.connect("r2", "alice/third/tablet", "")
		w.settle()
		first.wantKick(wire.CloseReplaced, "third", "tablet", "session policy")
		w.wantOpen(second, desk, bob, third)
		w.connect("r2", "alice/fourth/android", "") // in the room of whoever has to go, which is told at once
		second.wantKick(wire.CloseReplaced, "fourth", "android", "session policy")
	})
}

func TestRoom_PolicyTurnsANewcomerAwayUntilThereIsAPlace(t *testing.T) {
	inWorld(t, []push.RoomID{"r1", "r2"}, nil, func(w *world) {
		w.bound(push.SessionRule{Scope: push.PerAccount, Max: 1, OnExcess: push.RejectNew})
		phone := w.connect("r1", "alice/hunter2/android", "")
		web := w.connect("r2", "alice/web/web", "")
		web.wantKick(wire.ClosePolicy, "", "", "at most 1 session per account (reject_new)")
		for _, k := range framesOf[*wire.Kick](web) {
			if strings.Contains(k.Detail, "hunter2") {
				t.Errorf("whoever is turned away is told who is in: %q", k.Detail)
			}
		}
		w.settle()
		w.wantOpen(phone)
		id := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		synctest.Wait()
		phone.want(id)

		again := w.connect("r2", "alice/hunter2/android", phone.theCursor()) // moves to another room
		w.settle()
		phone.wantKick(wire.CloseReplaced, "hunter2", "android", "the same device")
		w.wantOpen(again)
		again.leave()
		w.settle()
		w.wantOpen(w.connect("r1", "alice/web/web", ""))
	})
}

func TestRoom_PolicyThatChangesAppliesFromTheNextConnect(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		phone, web := w.connect("r1", "alice/phone/android", ""), w.connect("r1", "alice/web/web", "")
		tv, bob := w.connect("r1", "alice/tv/tv", ""), w.connect("r1", "bob/phone/android", "")
		w.bound(push.SessionRule{Scope: push.PerAccount, Max: 2})
		w.settle()
		w.wantOpen(phone, web, tv, bob)
		w.connect("r1", "alice/desk/desktop", "")
		phone.wantKick(wire.CloseReplaced, "desk", "desktop", "")
		web.wantKick(wire.CloseReplaced, "desk", "desktop", "")
		if tv.closedWith() != 0 {
			t.Error("more were sent off than the policy asks for")
		}
	})
}

// classNoter is a register that notes the classes it is told.
type classNoter struct {
	flaky
	told *sync.Map // by device, the last one
}

func (n classNoter) Insert(ctx context.Context, s register.Session, l []push.SessionLimit) (register.Inserted, error) {
	n.told.Store(s.Device, s.Class)
	return n.flaky.Insert(ctx, s, l)
}

func TestRoom_ClassOfADeviceReachesRegisterListsAndFilters(t *testing.T) {
	var off atomic.Bool
	var told sync.Map
	tune := func(w *world, c *Config) {
		c.Register, c.Heartbeat = classNoter{flaky{w.reg, off.Load}, &told}, time.Minute
	}
	inWorld(t, oneRoom, tune, func(w *world) {
		w.bound(push.SessionRule{Scope: push.PerClass, Max: 5})
		phone, desk := w.connect("r1", "alice/phone/ios", ""), w.connect("r1", "alice/desk/desktop", "")
		check := func(when string) {
			t.Helper()
			want := map[push.DeviceID]string{"phone": "mobile", "desk": ""}
			for d, class := range want {
				if got, _ := told.Load(d); got != class {
					t.Errorf("%s: class of %s in the register: got %v, want %q", when, d, got, class)
				}
			}
			for _, s := range w.rooms["r1"].Sessions(product, "alice") {
				if s.Class != want[s.Device] {
					t.Errorf("%s: class of %s in the list: got %q, want %q", when, s.Device, s.Class, want[s.Device])
				}
			}
		}
		check("connected")
		phone.send(&wire.Refresh{Token: "alice/phone/ios/1h"})
		synctest.Wait()
		check("with another token")
		off.Store(true)
		time.Sleep(register.LeaseTTL + time.Second)
		told.Clear()
		off.Store(false)
		time.Sleep(2 * time.Second)
		check("after a lost lease")
		id := w.publish(post{to: []push.UserID{"alice"}, filter: &push.Filter{Classes: []string{"mobile"}}, body: `1`})
		synctest.Wait()
		phone.want(id)
		desk.want()
	})
}

// forgetful is a register that cannot be told of ends while it is off.
type forgetful struct {
	register.Register
	off *atomic.Bool
}

func (f forgetful) Remove(ctx context.Context, k register.Key, e push.SessionEpoch, b push.BootID) (bool, error) {
	if f.off.Load() {
		return false, &push.Error{Kind: push.KindUnavailable, Code: "register_unavailable"}
	}
	return f.Register.Remove(ctx, k, e, b)
}

func TestRoom_PlaceOfASessionWhoseEndCouldNotBeToldIsFreeOnceItCan(t *testing.T) {
	var off atomic.Bool
	tune := func(w *world, c *Config) { c.Register = forgetful{w.reg, &off} }
	inWorld(t, oneRoom, tune, func(w *world) {
		w.bound(push.SessionRule{Scope: push.PerAccount, Max: 1, OnExcess: push.RejectNew})
		off.Store(true)
		for _, user := range []string{"alice", "bob", "cathy"} {
			w.connect("r1", user+"/phone/android", "").leave()
		}
		w.connect("r1", "alice/web/web", "").wantKick(wire.ClosePolicy, "", "", "at most 1")
		off.Store(false)
		w.settle()
		w.wantOpen(w.connect("r1", "alice/web/web", ""), w.connect("r1", "bob/web/web", ""))
	})
}

// breaking breaks a connection while its session is being put back into the register.
type breaking struct {
	flaky
	do func()
}

func (b breaking) Insert(ctx context.Context, s register.Session, l []push.SessionLimit) (register.Inserted, error) {
	if s.Epoch != 0 {
		b.do()
	}
	return b.flaky.Insert(ctx, s, l)
}

func TestRoom_SessionThatEndsWhileItIsPutBackHoldsNoPlace(t *testing.T) {
	var off atomic.Bool
	var phone *device
	tune := func(w *world, c *Config) {
		c.Heartbeat = time.Minute
		c.Register = breaking{flaky{w.reg, off.Load}, func() {
			phone.Cut(wire.CloseLost)
			<-phone.done
			time.Sleep(time.Second) // its end was told to the register, which has nothing to take out yet
		}}
	}
	inWorld(t, oneRoom, tune, func(w *world) {
		w.bound(push.SessionRule{Scope: push.PerAccount, Max: 1, OnExcess: push.RejectNew})
		phone = w.connect("r1", "alice/phone/android", "")
		off.Store(true)
		time.Sleep(register.LeaseTTL + time.Second)
		off.Store(false)
		time.Sleep(4 * time.Second)
		w.wantOpen(w.connect("r1", "alice/web/web", ""))
	})
}

// While r1 has no lease its sessions hold no place, so another may come in. When r1 is back, age decides.
func TestRoom_AfterALostLeaseAgeDecidesWhoHasThePlace(t *testing.T) {
	for _, excess := range []push.OnExcess{push.KickOldest, push.RejectNew} {
		t.Run(excess.String(), func(t *testing.T) {
			var off atomic.Bool
			tune := func(w *world, c *Config) {
				c.Heartbeat = time.Minute
				if c.ID == "r1" {
					c.Register = flaky{w.reg, off.Load}
				}
			}
			inWorld(t, []push.RoomID{"r1", "r2"}, tune, func(w *world) {
				w.bound(push.SessionRule{Scope: push.PerAccount, Max: 1, OnExcess: excess})
				phone, bob := w.connect("r1", "alice/phone/android", ""), w.connect("r1", "bob/phone/android", "")
				off.Store(true)
				time.Sleep(register.LeaseTTL + time.Second)
				web := w.connect("r2", "alice/web/web", "")
				w.wantOpen(web)
				off.Store(false)
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if excess == push.KickOldest {
					phone.wantKick(wire.CloseReplaced, "", "", "newer session")
					w.wantOpen(web, bob)
				} else {
					web.wantKick(wire.CloseReplaced, "phone", "android", "session policy")
					w.wantOpen(phone, bob)
				}
			})
		})
	}
}
