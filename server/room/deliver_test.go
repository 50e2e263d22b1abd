package room

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/wire"
)

var oneRoom = []push.RoomID{"r1"}

func TestRoom_MessageWaitsForAFirstDeviceAndNotForLaterOnes(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		a := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		b := w.publish(post{to: []push.UserID{"alice"}, body: `2`})
		phone := w.connect("r1", "alice/phone/android", "")
		phone.want(a, b)
		if got := framesOf[*wire.Welcome](phone)[0]; got.Own != wire.Beginning || got.Common != wire.AtHead {
			t.Errorf("the first device begins own %v common %v, want beginning and head", got.Own, got.Common)
		}
		web := w.connect("r1", "alice/web/web", "")
		web.want()
		if got := framesOf[*wire.Welcome](web)[0]; got.Own != wire.AtHead {
			t.Errorf("a later device begins %v, want head", got.Own)
		}
		c := w.publish(post{to: []push.UserID{"alice"}, body: `3`})
		w.publish(post{to: []push.UserID{"bob"}, body: `4`})
		synctest.Wait()
		phone.want(a, b, c)
		web.want(c)
	})
}

func TestRoom_AcknowledgementMovesOnlyTheOwnCursor(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		phone := w.connect("r1", "alice/phone/android", "")
		web := w.connect("r1", "alice/web/web", "")
		a := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		e := w.publish(post{body: `"everyone"`})
		synctest.Wait()
		phone.ack()
		phone.leave()
		web.leave()
		phone = w.connect("r1", "alice/phone/android", "")
		phone.want()
		web = w.connect("r1", "alice/web/web", "")
		if got := web.received(); !sameSet(got, []push.MsgID{a, e}) {
			t.Errorf("the device that did not acknowledge got %v, want %v and %v again", got, a, e)
		}
	})
}

func sameSet(a, b []push.MsgID) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func TestRoom_PresentedCursorDecidesAndAForeignOneDoesNot(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		phone := w.connect("r1", "alice/phone/android", "")
		w.connect("r1", "alice/web/web", "") // acknowledges nothing, so that the slot keeps it
		before := phone.theCursor()
		a := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		synctest.Wait()
		phone.ack()
		after := phone.theCursor()
		phone.leave()

		again := w.connect("r1", "alice/phone/android", before)
		again.want(a)
		again.leave()
		for _, cursor := range []string{w.connect("r1", "bob/web/web", "").theCursor(), "garbage", after + ".1"} {
			d := w.connect("r1", "alice/phone/android", cursor)
			d.want()
			if got := framesOf[*wire.Welcome](d)[0]; got.Own != wire.Resumed {
				t.Errorf("with an unusable cursor the own slot begins %v, want resumed from the stored one", got.Own)
			}
			d.leave()
		}
	})
}

func TestRoom_EveryLostNotificationIsSweptUp(t *testing.T) {
	inWorld(t, []push.RoomID{"r1", "r2"}, nil, func(w *world) {
		w.dropAll = true
		alice, alice2 := w.connect("r1", "alice/phone/android", ""), w.connect("r2", "alice/web/web", "")
		bob := w.connect("r2", "bob/web/web", "")
		var toAlice []push.MsgID
		for i := range 50 {
			toAlice = append(toAlice, w.publish(post{to: []push.UserID{"alice"}, body: fmt.Sprint(i)}))
		}
		both := w.publish(post{to: []push.UserID{"alice", "bob"}, body: `"both"`})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		alice.want(append(toAlice, both)...)
		alice2.want(append(toAlice, both)...)
		bob.want(both)
		all := w.publish(post{body: `"all"`})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		alice.want(append(toAlice, both, all)...)
		bob.want(both, all)
	})
}

func TestRoom_WhatASweepTellsABusySessionIsNotForgotten(t *testing.T) {
	cases := []struct {
		name   string
		before bool // there is something to read, so that it is the read that is under way
	}{{"while it reads", true}, {"while it is opened", false}}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, oneRoom, nil, func(w *world) {
				w.dropAll = true
				w.connect("r1", "alice/web/web", "") // somebody of the shard is there, so it is swept
				phone := w.connect("r1", "alice/phone/android", "")
				cursor := phone.theCursor()
				phone.leave()
				var want []push.MsgID
				if c.before {
					want = append(want, w.publish(post{to: []push.UserID{"alice"}, body: `1`}))
				}
				arm := func(then func()) { w.saver.set(func(g *gate) { g.after = then }) }
				late := func() {
					want = append(want, w.publish(post{to: []push.UserID{"alice"}, body: `2`}))
					time.Sleep(5 * time.Second) // two sweeps tell of it
				}
				if c.before {
					arm(func() { arm(late) }) // the open is carried out first, then the read
				} else {
					arm(late)
				}
				d := w.dial("r1")
				d.send(&wire.Connect{Version: wire.Version, Token: "alice/phone/android", Cursor: cursor})
				time.Sleep(5100 * time.Millisecond)
				synctest.Wait()
				d.want(want...)
			})
		})
	}
}

func TestRoom_QuietSweepsReadNoSlots(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		w.connect("r1", "alice/phone/android", "")
		w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		w.publish(post{body: `2`})
		synctest.Wait()
		before := w.saver.readCount()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := w.saver.readCount() - before; got != 0 {
			t.Errorf("%d slots were read although every notification had come", got)
		}
	})
}

func TestRoom_NotificationsOutOfTurnAreDeliveredInOrder(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		phone := w.connect("r1", "alice/phone/android", "")
		var ids []push.MsgID
		var notify []func()
		for i := range 10 {
			id, n := w.store(post{to: []push.UserID{"alice"}, body: fmt.Sprint(i)})
			ids, notify = append(ids, id), append(notify, n)
		}
		before := w.saver.readCount()
		for _, i := range []int{3, 1, 2, 0, 9, 8, 7, 5, 6, 4} {
			notify[i]()
		}
		synctest.Wait()
		phone.want(ids...)
		if got := w.saver.readCount() - before; got != 0 {
			t.Errorf("%d reads, want none: everything came within the hold", got)
		}
	})
}

func TestRoom_OneMissingNotificationCostsOneReadAfterTheHold(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		phone := w.connect("r1", "alice/phone/android", "")
		a, _ := w.store(post{to: []push.UserID{"alice"}, body: `1`})
		b := w.publish(post{to: []push.UserID{"alice"}, body: `2`})
		c := w.publish(post{to: []push.UserID{"alice"}, body: `3`})
		before := w.saver.readCount()
		synctest.Wait()
		phone.want()
		time.Sleep(60 * time.Millisecond)
		synctest.Wait()
		phone.want(a, b, c)
		if got := w.saver.readCount() - before; got != 1 {
			t.Errorf("%d reads, want 1", got)
		}
	})
}

func TestRoom_CatchUpMeetsLiveTrafficWithoutGapOrDuplicate(t *testing.T) {
	inWorld(t, oneRoom, func(_ *world, c *Config) { c.QueueMessages = 8 }, func(w *world) {
		var want []push.MsgID
		for i := range 100 {
			want = append(want, w.publish(post{to: []push.UserID{"alice"}, body: fmt.Sprint(i)}))
		}
		// Every read is followed by three more messages, two notified, one not, before its result is used.
		n := 0
		w.saver.set(func(g *gate) {
			g.onRead = func([]saver.Read) error {
				if n++; n <= 20 {
					want = append(want, w.publish(post{to: []push.UserID{"alice"}, body: `"live"`}))
					want = append(want, w.publish(post{to: []push.UserID{"alice"}, body: `"silent"`, silent: true}))
					want = append(want, w.publish(post{to: []push.UserID{"alice"}, body: `"live"`}))
				}
				return nil
			}
		})
		phone := w.connect("r1", "alice/phone/android", "")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		phone.want(want...)
		cs := framesOf[*wire.Cursor](phone)
		if len(cs) == 0 || cs[len(cs)-1].Reason != wire.CursorCaughtUp {
			t.Error("no cursor frame ended the catch-up")
		}
	})
}

func TestRoom_FrozenClientIsCutSlowAndCatchesUp(t *testing.T) {
	inWorld(t, oneRoom, func(_ *world, c *Config) { c.QueueMessages = 16 }, func(w *world) {
		frozen := w.connect("r1", "alice/phone/android", "")
		other := w.connect("r1", "bob/web/web", "")
		frozen.freeze()
		var toAlice, toBob []push.MsgID
		for i := range 100 {
			toAlice = append(toAlice, w.publish(post{to: []push.UserID{"alice"}, body: fmt.Sprint(i)}))
			toBob = append(toBob, w.publish(post{to: []push.UserID{"bob"}, body: fmt.Sprint(i)}))
			synctest.Wait()
		}
		other.want(toBob...)
		s := frozen.sess.(*session)
		s.mu.Lock()
		if n := s.queue.len(); n > 16+2 {
			t.Errorf("%d frames wait for a client that does not read, want at most the limit of 16", n)
		}
		s.mu.Unlock()
		time.Sleep(16 * time.Second)
		synctest.Wait()
		if got := frozen.closedWith(); got != wire.CloseSlow {
			t.Fatalf("the frozen client was closed with %v, want slow", got)
		}
		if got := other.closedWith(); got != 0 {
			t.Errorf("the other was closed with %v", got)
		}
		again := w.connect("r1", "alice/phone/android", frozen.theCursor())
		again.want(toAlice...)
	})
}

func TestRoom_LaggingClientGetsEverythingWhenItReadsAgain(t *testing.T) {
	inWorld(t, oneRoom, func(_ *world, c *Config) { c.QueueMessages = 4 }, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		d.freeze()
		var want []push.MsgID
		for i := range 50 {
			want = append(want, w.publish(post{to: []push.UserID{"alice"}, body: fmt.Sprint(i)}))
		}
		all := w.publish(post{body: `"all"`})
		synctest.Wait()
		d.thaw()
		synctest.Wait()
		if got := d.received(); !sameSet(got, append(want, all)) {
			t.Errorf("got %v, want %v and %v", got, want, all)
		}
		if d.closedWith() != 0 {
			t.Error("a client that was slow for a moment was cut")
		}
	})
}

func TestRoom_NonPersistentGivesUpTheOldestAndNeverAPersistentOne(t *testing.T) {
	inWorld(t, oneRoom, func(_ *world, c *Config) { c.QueueMessages = 6; c.Deliverers = 1 }, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		d.freeze()
		kept := w.publish(post{to: []push.UserID{"alice"}, body: `"kept"`})
		var lives []push.MsgID
		for i := range 20 {
			lives = append(lives, w.publish(post{to: []push.UserID{"alice"}, body: fmt.Sprint(i), live: true}))
		}
		synctest.Wait()
		d.thaw()
		synctest.Wait()
		d.want(append([]push.MsgID{kept}, lives[15:]...)...)
		gone := w.connect("r1", "bob/web/web", "")
		gone.leave()
		w.publish(post{body: `"nobody keeps it"`, live: true})
		synctest.Wait()
		back := w.connect("r1", "bob/web/web", "")
		back.want()
	})
}

func TestRoom_RecallCollapseAndExpiryLeaveHolesNobodyNotices(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		to := []push.UserID{"alice"}
		seen := w.connect("r1", "alice/phone/android", "")
		a := w.publish(post{to: to, body: `"a"`})
		b := w.publish(post{to: to, body: `"b"`})
		c1 := w.publish(post{to: to, body: `"c1"`, collapse: "c"})
		short := w.publish(post{to: to, body: `"short"`, ttl: time.Second})
		c2 := w.publish(post{to: to, body: `"c2"`, collapse: "c"})
		w.recall(b)
		last := w.publish(post{to: to, body: `"last"`})
		synctest.Wait()
		seen.want(a, b, c1, short, c2, -b, last)
		seen.leave()
		time.Sleep(2 * time.Second)
		again := w.connect("r1", "alice/phone/android", "") // nothing was acknowledged
		again.want(a, c2, -b, last)
		if gaps := framesOf[*wire.Gap](again); len(gaps) != 0 {
			t.Errorf("%d gap frames for holes that no limit made", len(gaps))
		}
		again.ack()
		again.leave()
		w.connect("r1", "alice/phone/android", "").want()
	})
}

func TestRoom_LimitsAreToldAsGap(t *testing.T) {
	inWorld(t, oneRoom, func(w *world, _ *Config) { w.policy.Limits.OwnMessages = 10 }, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		d.leave()
		var ids []push.MsgID
		for i := range 25 {
			ids = append(ids, w.publish(post{to: []push.UserID{"alice"}, body: fmt.Sprint(i)}))
		}
		d = w.connect("r1", "alice/phone/android", "")
		d.want(ids[15:]...)
		gaps := framesOf[*wire.Gap](d)
		if len(gaps) != 1 || gaps[0].Slot != push.Own || gaps[0].Reason != wire.GapLimit || gaps[0].To-gaps[0].From != 15 {
			t.Errorf("got gaps %+v, want one of 15 positions by a limit", gaps)
		}
		d.ack()
		d.leave()
		d = w.connect("r1", "alice/phone/android", "")
		d.want()
		if len(framesOf[*wire.Gap](d)) != 0 {
			t.Error("the gap was told again after it was acknowledged")
		}
	})
}

// What one device's read leaves in the room's memory of a common slot has to tell the next device of the gap too.
func TestRoom_LimitsOfACommonSlotAreToldToEveryDeviceThatComesBack(t *testing.T) {
	inWorld(t, []push.RoomID{"r1"}, nil, func(w *world) {
		w.policy.Limits.CommonMessages = 4
		cursors := make(map[string]string)
		for _, token := range []string{"alice/phone/ios", "alice/web/web"} {
			d := w.connect("r1", token, "")
			w.publish(post{body: `"seen"`})
			synctest.Wait()
			cursors[token] = d.theCursor()
			d.leave()
		}
		for i := range 10 {
			w.publish(post{body: fmt.Sprint(i)})
		}
		for token, cursor := range cursors {
			d := w.connect("r1", token, cursor)
			if gaps := framesOf[*wire.Gap](d); len(gaps) != 1 || gaps[0].Slot != push.Common || gaps[0].Reason != wire.GapLimit {
				t.Errorf("%s was told of the gaps %+v, want one by the limit", token, gaps)
			}
			if got := len(d.received()); got != 4 {
				t.Errorf("%s got %d messages, want the 4 that are kept", token, got)
			}
			d.leave()
		}
		// And a range that is held already, with a gap behind it.
		late := w.connect("r1", "alice/tv/tv", cursors["alice/phone/ios"])
		late.leave()
		for i := range 10 {
			w.publish(post{body: fmt.Sprint(i)})
		}
		for _, token := range []string{"alice/phone/ios", "alice/web/web"} {
			d := w.connect("r1", token, cursors[token])
			if len(framesOf[*wire.Gap](d)) == 0 {
				t.Errorf("%s was told of no gap", token)
			}
			d.leave()
		}
	})
}

func TestRoom_FilteredEntriesAreAcknowledgedByThoseWhoNeverSeeThem(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		phone, web := w.connect("r1", "alice/phone/android", ""), w.connect("r1", "alice/web/web", "")
		only := &push.Filter{Devices: []push.DeviceID{"phone"}}
		var ids []push.MsgID
		for i := range 1100 {
			ids = append(ids, w.publish(post{to: []push.UserID{"alice"}, body: fmt.Sprint(i), filter: only}))
			if i%100 == 0 {
				synctest.Wait()
				phone.ack()
			}
		}
		synctest.Wait()
		web.want()
		if got := phone.received(); !slices.Equal(got, ids[:len(got)]) {
			t.Error("the phone did not get its messages in order")
		}
		passed := 0
		for _, c := range framesOf[*wire.Cursor](web) {
			if c.Reason == wire.CursorPassed {
				passed++
			}
		}
		if passed != 1 {
			t.Errorf("%d cursor frames after 1100 entries passed over, want 1", passed)
		}
	})
}

func TestRoom_LostBodyIsAGapAndNothingElseIsMissing(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		d.leave()
		a := w.publish(post{body: `1`})
		b := w.publish(post{body: `2`})
		c := w.publish(post{body: `3`})
		w.memory.LoseBucket(product, b)
		d = w.connect("r1", "alice/phone/android", "")
		d.want(a, c)
		gaps := framesOf[*wire.Gap](d)
		if len(gaps) != 1 || gaps[0].Reason != wire.GapLost || gaps[0].Slot != push.Common || gaps[0].To-gaps[0].From != 1 {
			t.Errorf("got gaps %+v, want one of one position, lost", gaps)
		}
	})
}

func TestRoom_ThousandDevicesComingBackReadABroadcastOnce(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		for i := range 100 {
			w.connect("r1", fmt.Sprintf("user%d/web/web", i), "").leave()
		}
		id := w.publish(post{body: `"all"`})
		before := w.saver.readCount()
		for i := range 100 {
			w.connect("r1", fmt.Sprintf("user%d/web/web", i), "").want(id)
		}
		if got := w.saver.readCount() - before; got > 2*shards {
			t.Errorf("%d reads for 100 devices of %d shards, want about one a shard", got, shards)
		}
	})
}
