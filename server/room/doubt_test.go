package room

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
	savermemory "carillon/server/saver/memory"
	"carillon/server/wire"
)

var toAlice = []push.UserID{"alice"}

// settled is above what a sweep and the next batch of acknowledgements take.
const settled = 3 * time.Second

func (w *world) snapshot() *savermemory.Snapshot {
	w.t.Helper()
	snap, err := w.memory.Snapshot()
	if err != nil {
		w.t.Fatal(err)
	}
	return snap
}

// fallBack has the store hold what it held then, under another lineage.
func (w *world) fallBack(to *savermemory.Snapshot) {
	w.t.Helper()
	if err := w.memory.Restore(to); err != nil {
		w.t.Fatal(err)
	}
}

// knows returns alice's devices as the store knows them.
func (w *world) knows() map[push.DeviceID]saver.Device {
	w.t.Helper()
	synctest.Wait()
	u, err := w.memory.User(w.ctx, aliceRef())
	if err != nil {
		w.t.Fatal(err)
	}
	devices := make(map[push.DeviceID]saver.Device)
	for _, d := range u.Devices {
		devices[d.Device] = d
	}
	return devices
}

func (w *world) isKnown(d push.DeviceID) bool {
	w.t.Helper()
	_, ok := w.knows()[d]
	return ok
}

func TestDoubt_ADeviceThatTheStoreForgotHoldsBackAgainWhatItHasNotAcknowledged(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		phone := w.connect("r1", "alice/phone/android", "")
		before := w.snapshot()
		web := w.connect("r1", "alice/web/web", "")
		a := w.publish(post{to: toAlice, body: `"a"`})
		synctest.Wait()
		web.ack()
		time.Sleep(time.Second)
		w.fallBack(before)
		if w.isKnown("web") {
			t.Fatal("the store forgot nothing")
		}
		time.Sleep(settled)
		if !w.isKnown("web") {
			t.Fatal("the store does not know a device whose session goes on")
		}
		// What the others acknowledge stays for it, though it was cut off before it could take it.
		web.freeze()
		b := w.publish(post{to: toAlice, body: `"b"`})
		synctest.Wait()
		phone.ack()
		time.Sleep(time.Second)
		web.leave()
		web = w.connect("r1", "alice/web/web", "") // its storage is gone too
		if got := web.received(); !slices.Contains(got, b) {
			t.Errorf("got %v, want %v among them", got, b)
		}
		if got := phone.received(); !slices.Equal(got, []push.MsgID{a, b}) {
			t.Errorf("the other device got %v, want %v", got, []push.MsgID{a, b})
		}
	})
}

func TestDoubt_ADeviceIsOpenedAgainWhereItsSessionAcknowledgedNotWhereItWasSent(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		w.connect("r1", "alice/phone/android", "")
		w.publish(post{to: toAlice, body: `"a"`})
		before := w.snapshot()
		web := w.connect("r1", "alice/web/web", "")
		start := w.knows()["web"].Cursors[push.Own]
		w.fallBack(before)
		b := w.publish(post{to: toAlice, body: `"b"`}) // sent to it, and not acknowledged
		synctest.Wait()
		time.Sleep(settled)
		got := w.knows()["web"].Cursors[push.Own]
		if got.Epoch != start.Epoch || got.Pos != start.Pos {
			t.Errorf("the device stands at %+v, want the position of %+v", got, start)
		}
		web.want(b)
	})
}

func TestDoubt_AStoreThatFellBackIsToldAgainWhatWasAcknowledged(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		phone := w.connect("r1", "alice/phone/android", "")
		w.publish(post{to: toAlice, body: `"a"`})
		before := w.snapshot()
		synctest.Wait()
		phone.ack()
		time.Sleep(time.Second)
		want := w.knows()["phone"].Cursors[push.Own].Pos
		w.fallBack(before)
		if got := w.knows()["phone"].Cursors[push.Own].Pos; got >= want {
			t.Fatalf("the cursor stands at %d, want it below %d", got, want)
		}
		time.Sleep(settled)
		if got := w.knows()["phone"].Cursors[push.Own].Pos; got != want {
			t.Errorf("the cursor stands at %d, want %d", got, want)
		}
	})
}

func TestDoubt_ADeletedDeviceIsNotBroughtBack(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		phone := w.connect("r1", "alice/phone/android", "")
		w.publish(post{to: toAlice, body: `"a"`})
		synctest.Wait()
		if ok, err := w.memory.DeleteDevice(w.ctx, aliceRef(), "phone"); !ok || err != nil {
			t.Fatal(ok, err)
		}
		phone.ack()
		time.Sleep(settled)
		if w.isKnown("phone") {
			t.Error("an acknowledgement brought a deleted device back")
		}
	})
}

func TestDoubt_WhatFailsIsTriedAgain(t *testing.T) {
	unavailable := &push.Error{Kind: push.KindUnavailable, Code: "storage_slow"}
	for _, what := range []string{"asking", "opening", "tags"} {
		inWorld(t, oneRoom, nil, func(w *world) {
			w.connect("r1", "alice/phone/android", "")
			before := w.snapshot()
			w.connect("r1", "alice/web/web", "")
			var failed atomic.Int64
			w.saver.set(func(g *gate) {
				fail := func() error { failed.Add(1); return unavailable }
				switch what {
				case "asking":
					g.onAck = func([]saver.Ack) error { return fail() }
				case "opening":
					g.onOpen = fail
				case "tags":
					g.tagsErr = unavailable
				}
			})
			w.fallBack(before)
			time.Sleep(settled)
			if what != "tags" && (failed.Load() == 0 || w.isKnown("web")) {
				t.Errorf("%s: %d calls failed, and the device is known: %v", what, failed.Load(), w.isKnown("web"))
			}
			w.saver.set(func(g *gate) { g.onAck, g.onOpen, g.tagsErr = nil, nil, nil })
			time.Sleep(settled)
			if !w.isKnown("web") {
				t.Errorf("%s: the device is not known after what failed works again", what)
			}
			for _, s := range w.rooms["r1"].snapshot() {
				s.mu.Lock()
				if s.doubted || s.reopening {
					t.Errorf("%s: %s is still in doubt", what, s.device())
				}
				s.mu.Unlock()
			}
		})
	}
}

func TestDoubt_ADeviceForWhichNoPlaceIsLeftIsSentAway(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		phone := w.connect("r1", "alice/phone/android", "")
		before := w.snapshot()
		web := w.connect("r1", "alice/web/web", "")
		w.saver.set(func(g *gate) {
			g.onOpen = func() error { return push.Errorf(push.KindLimited, "too_many_devices", "") }
		})
		w.fallBack(before)
		time.Sleep(settled)
		synctest.Wait()
		if got := web.closedWith(); got != wire.CloseForbidden {
			t.Errorf("closed with %v, want %v", got, wire.CloseForbidden)
		}
		if got := phone.closedWith(); got != 0 {
			t.Errorf("the device that is known was closed with %v", got)
		}
	})
}

func TestDoubt_AnAnswerThatWasUnderWayWhileTheStoreFellBackIsDoubtedToo(t *testing.T) {
	for _, others := range []int{0, 1} { // the shard was seen before, or was not
		inWorld(t, oneRoom, nil, func(w *world) {
			if others > 0 {
				w.connect("r1", "alice/phone/android", "")
			}
			before := w.snapshot()
			swept := make(chan struct{})
			w.saver.set(func(g *gate) {
				g.after = func() { // the device is stored, and the room has not heard of it
					w.fallBack(before)
					<-swept
				}
			})
			web := w.dial("r1")
			web.send(&wire.Connect{Version: wire.Version, Token: "alice/web/web"})
			time.Sleep(settled) // the room has found the new lineage, and asked
			close(swept)
			time.Sleep(settled)
			if len(framesOf[*wire.Welcome](web)) != 1 || !w.isKnown("web") {
				t.Errorf("beside %d others: the store does not know a device that was welcomed", others)
			}
		})
	}
}

func TestDoubt_TagsAreThoseThatTheStoreHasNow(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		w.connect("r1", "alice/phone/android", "")
		w.give("phone", "kept")
		before := w.snapshot()
		w.connect("r1", "alice/web/web#token", "")
		w.give("phone", "lost")
		w.give("web", "lost")
		w.wantTags("phone", "lost")
		w.fallBack(before)
		time.Sleep(settled)
		w.wantTags("phone", "kept")
		w.wantTags("web", "token")
	})
}

func TestDoubt_CostsNothingWhileTheLineageStays(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		var asked atomic.Int64
		count := func(as []saver.Ack) error { asked.Add(int64(len(as))); return nil }
		for _, token := range []string{"alice/phone/android", "alice/web/web", "bob/phone/ios"} {
			w.connect("r1", token, "")
		}
		w.saver.set(func(g *gate) { g.onAck = count })
		time.Sleep(10 * time.Second)
		if n := asked.Load(); n != 0 {
			t.Errorf("%d sessions were asked about while nothing changed", n)
		}
		w.fallBack(w.snapshot())
		time.Sleep(10 * time.Second)
		if n := asked.Load(); n != 3 {
			t.Errorf("%d sessions were asked about after one change, want 3", n)
		}
	})
}

func TestDoubt_OneThatEndsMeanwhileIsNotOpenedAgain(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		w.connect("r1", "alice/phone/android", "")
		before := w.snapshot()
		web := w.connect("r1", "alice/web/web", "")
		w.saver.set(func(g *gate) {
			g.onAck = func([]saver.Ack) error {
				web.Cut(wire.CloseLost)
				<-web.done
				return nil
			}
		})
		w.fallBack(before)
		time.Sleep(settled)
		w.saver.set(func(g *gate) { g.onAck = nil })
		time.Sleep(settled)
		if w.isKnown("web") {
			t.Error("a device that is not online was opened")
		}
	})
}
