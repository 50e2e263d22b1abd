package room

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/saver"
	"carillon/server/transport"
	"carillon/server/wire"
)

func TestSession_EndsWithTheReasonItEarned(t *testing.T) {
	connect := func(d *device, token string) {
		d.send(&wire.Connect{Version: wire.Version, Token: token})
		synctest.Wait()
	}
	cases := []struct {
		name string
		do   func(d *device)
		want wire.CloseCode
	}{
		{"says nothing", func(d *device) { time.Sleep(6 * time.Second) }, wire.CloseConnectTimeout},
		{"begins with a ping", func(d *device) { d.send(&wire.Ping{}) }, wire.CloseProtocol},
		{"connects twice", func(d *device) {
			connect(d, "alice/phone/android")
			d.send(&wire.Connect{Version: wire.Version, Token: "alice/phone/android"})
		}, wire.CloseProtocol},
		{"shows a token that does not hold", func(d *device) { connect(d, "nonsense") }, wire.CloseTokenRefused},
		{"speaks a version from far away", func(d *device) {
			d.send(&wire.Connect{Version: wire.Version + 2, Token: "alice/phone/android"})
		}, wire.CloseVersion},
		{"names a product that is not there", func(d *device) { connect(d, "alice/phone/android/1h/other") }, wire.CloseForbidden},
		{"sends what is no frame", func(d *device) {
			connect(d, "alice/phone/android")
			d.sess.Refuse(&push.Error{Kind: push.KindInvalid, Code: wire.CodeMalformed})
		}, wire.CloseProtocol},
		{"falls silent", func(d *device) {
			connect(d, "alice/phone/android")
			time.Sleep(41 * time.Second)
		}, wire.CloseSilent},
		{"lets its token run out", func(d *device) {
			connect(d, "alice/phone/android/7s")
			time.Sleep(8 * time.Second)
		}, wire.CloseTokenExpired},
		{"sends a flood", func(d *device) {
			connect(d, "alice/phone/android")
			for range 20 {
				d.send(&wire.Ping{})
			}
		}, wire.CloseFlood},
		{"refreshes with another's token", func(d *device) {
			connect(d, "alice/phone/android")
			d.send(&wire.Refresh{Token: "bob/phone/android"})
		}, wire.CloseTokenRefused},
		{"is deleted", func(d *device) {
			connect(d, "alice/phone/android")
			d.room.End(product, "alice", "phone")
		}, wire.CloseDeleted},
		{"says goodbye", func(d *device) {
			connect(d, "alice/phone/android")
			d.Close(wire.CloseNormal)
		}, wire.CloseNormal},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, oneRoom, nil, func(w *world) {
				d := w.dial("r1")
				c.do(d)
				synctest.Wait()
				if got := d.closedWith(); got != c.want {
					t.Fatalf("closed with %v, want %v", got, c.want)
				}
				for _, k := range framesOf[*wire.Kick](d) {
					if k.Code != c.want || k.Reason != c.want.String() {
						t.Errorf("the kick says %d %s, want %v", k.Code, k.Reason, c.want)
					}
				}
				if n := len(framesOf[*wire.Kick](d)); (n == 1) != (c.want.Duty() != wire.ComeBack) {
					t.Errorf("%d kick frames before close code %v", n, c.want)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if n, err := w.reg.Count(w.ctx, product); err != nil || n != 0 {
					t.Errorf("the register counts %d sessions (%v), want none", n, err)
				}
			})
		})
	}
}

func TestSession_UnknownFrameIsAnsweredAndTheSessionStays(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		d.sess.Refuse(&push.Error{Kind: push.KindInvalid, Code: wire.CodeUnknown})
		id := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		synctest.Wait()
		d.want(id)
		if es := framesOf[*wire.Error](d); len(es) != 1 || es[0].Code != wire.CodeUnknown {
			t.Errorf("got error frames %+v, want one %s", es, wire.CodeUnknown)
		}
	})
}

func TestSession_AnHourOfHeartbeatsKeepsItAndPingsFold(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		for range 120 {
			time.Sleep(30 * time.Second)
			d.send(&wire.Ping{})
		}
		synctest.Wait()
		if got := d.closedWith(); got != 0 {
			t.Fatalf("closed with %v", got)
		}
		if got := len(framesOf[*wire.Pong](d)); got != 120 {
			t.Errorf("%d pongs, want 120", got)
		}
		d.freeze()
		for range 10 {
			d.send(&wire.Ping{})
		}
		s := d.sess.(*session)
		s.mu.Lock()
		defer s.mu.Unlock()
		if got := s.queue.len(); got != 1 {
			t.Errorf("%d pongs wait for a client that does not read, want 1", got)
		}
	})
}

func TestSession_RefreshKeepsItPastTheFirstToken(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d := w.connect("r1", "alice/phone/android/10s", "")
		time.Sleep(5 * time.Second)
		d.send(&wire.Refresh{Token: "alice/phone/android/30s"})
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if d.closedWith() != 0 {
			t.Fatalf("closed with %v although the token was renewed", d.closedWith())
		}
		if fs := framesOf[*wire.Refresh](d); len(fs) != 1 || fs[0].Expires == 0 {
			t.Errorf("got refresh frames %+v, want one with the new expiry", fs)
		}
		time.Sleep(16 * time.Second)
		synctest.Wait()
		if d.closedWith() != wire.CloseTokenExpired {
			t.Errorf("closed with %v, want token_expired", d.closedWith())
		}
	})
}

func TestSession_IdleOwnsNoQueue(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		synctest.Wait()
		s := d.sess.(*session)
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.queue.empty() || s.holds != nil {
			t.Error("an idle session holds on to a buffer or a timer")
		}
	})
}

func TestSession_SeveralQueuedFramesAreTakenAtOnce(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		d.freeze()
		for i := range 15 {
			w.publish(post{to: []push.UserID{"alice"}, body: fmt.Sprint(i)})
		}
		synctest.Wait()
		before := d.writeCount()
		d.thaw()
		synctest.Wait()
		if got := d.writeCount() - before; got != 1 {
			t.Errorf("15 messages left in %d writes, want 1", got)
		}
	})
}

func TestRoom_SameDeviceReplacesItselfInAnotherRoom(t *testing.T) {
	inWorld(t, []push.RoomID{"r1", "r2"}, nil, func(w *world) {
		old := w.connect("r1", "alice/phone/android", "")
		a := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		synctest.Wait()
		renewed := w.connect("r2", "alice/phone/android", old.theCursor())
		time.Sleep(1100 * time.Millisecond) // the order comes with the next renewal
		synctest.Wait()
		if got := old.closedWith(); got != wire.CloseReplaced {
			t.Fatalf("the old session was closed with %v, want replaced", got)
		}
		if ks := framesOf[*wire.Kick](old); len(ks) != 1 || ks[0].By != "phone" || ks[0].On != "android" {
			t.Errorf("got kicks %+v, want one that names the device", ks)
		}
		b := w.publish(post{to: []push.UserID{"alice"}, body: `2`})
		time.Sleep(time.Second)
		synctest.Wait()
		old.want(a)
		renewed.want(b)
		if renewed.closedWith() != 0 {
			t.Error("the late goodbye of the old session ended the new one")
		}
		if n, _ := w.reg.Count(w.ctx, product); n != 1 {
			t.Errorf("the register counts %d sessions, want 1", n)
		}
	})
}

func TestRoom_ReconnectInTheSameRoomIsImmediate(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		var last *device
		for range 20 {
			d := w.connect("r1", "alice/phone/android", "")
			if last != nil && last.closedWith() != wire.CloseReplaced {
				t.Fatalf("the session before was closed with %v, want replaced", last.closedWith())
			}
			last = d
		}
		id := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		synctest.Wait()
		last.want(id)
	})
}

func TestRoom_DrainSaysGoodbyeWithASpread(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		var ds []*device
		for i := range 200 {
			ds = append(ds, w.connect("r1", fmt.Sprintf("user%d/web/web", i), ""))
		}
		if err := w.rooms["r1"].Drain(w.ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		delays := make(map[uint32]bool)
		for _, d := range ds {
			gs := framesOf[*wire.Goaway](d)
			if len(gs) != 1 || d.closedWith() != wire.CloseGoingAway {
				t.Fatalf("got goaways %+v and close %v", gs, d.closedWith())
			}
			delays[gs[0].DelayMillis] = true
			cs := framesOf[*wire.Cursor](d)
			if cs[len(cs)-1].Reason != wire.CursorGoodbye {
				t.Error("no cursor said goodbye")
			}
		}
		if len(delays) < 100 {
			t.Errorf("200 clients were given %d different delays", len(delays))
		}
		if _, err := w.rooms["r1"].Accept(nil, transport.Meta{Kind: transport.WebSocket}); push.KindOf(err) != push.KindUnavailable {
			t.Errorf("a draining room answered %v, want unavailable", err)
		}
	})
}

func TestRoom_OpenFailsAndNothingIsLeft(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		w.saver.set(func(g *gate) {
			g.onOpen = func() error { return push.Errorf(push.KindUnavailable, "storage_failed", "the disk is full") }
		})
		d := w.connect("r1", "alice/phone/android", "")
		if got := d.closedWith(); got != wire.CloseOverloaded {
			t.Errorf("closed with %v, want overloaded", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n, _ := w.reg.Count(w.ctx, product); n != 0 {
			t.Errorf("the register counts %d sessions, want 0", n)
		}
	})
}

func TestRoom_ClientGoneWhileItsConnectIsWorkedOnLeavesNothing(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		reached, goOn := make(chan struct{}), make(chan struct{})
		w.saver.set(func(g *gate) {
			g.onOpen = func() error { close(reached); <-goOn; return nil }
		})
		d := w.dial("r1")
		d.send(&wire.Connect{Version: wire.Version, Token: "alice/phone/android"})
		<-reached
		d.leave()
		close(goOn)
		time.Sleep(time.Second)
		synctest.Wait()
		if n, _ := w.reg.Count(w.ctx, product); n != 0 {
			t.Errorf("the register counts %d sessions, want 0", n)
		}
	})
}

func TestRoom_FailedReadsAndAcksAreRepeated(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		id := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		fails := 3
		w.saver.set(func(g *gate) {
			g.onRead = func([]saver.Read) error {
				if fails--; fails >= 0 {
					return errors.New("the store is away")
				}
				return nil
			}
		})
		d := w.connect("r1", "alice/phone/android", "")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		d.want(id)
		ackFails := 2
		w.saver.set(func(g *gate) {
			g.onAck = func([]saver.Ack) error {
				if ackFails--; ackFails >= 0 {
					return errors.New("the store is away")
				}
				return nil
			}
		})
		d.ack()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		d.leave()
		w.connect("r1", "alice/phone/android", "").want()
	})
}

func TestRoom_AcksBehindACallThatFailedAreWrittenToo(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		var ds []*device
		for i := range maxAcks + 50 {
			u := fmt.Sprint("user", i)
			w.publish(post{to: []push.UserID{push.UserID(u)}, body: `1`})
			ds = append(ds, w.connect("r1", u+"/web/web", ""))
		}
		calls := 0
		written := make(map[push.UserID]int)
		w.saver.set(func(g *gate) {
			g.onAck = func(as []saver.Ack) error {
				if calls++; calls == 1 {
					return errors.New("the store is away")
				}
				for i := range as {
					if as[i].Places != (push.Cursor{}) {
						written[as[i].User]++
					}
				}
				return nil
			}
		})
		for _, d := range ds {
			d.ack()
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		w.saver.set(func(g *gate) { g.onAck = nil })
		if len(written) != len(ds) {
			t.Errorf("of %d sessions %d had their acknowledgement written", len(ds), len(written))
		}
		for u, n := range written {
			if n != 1 {
				t.Errorf("the acknowledgement of %s was written %d times", u, n)
			}
		}
	})
}

func TestRoom_AcksOfManySessionsAreOneCall(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		var ds []*device
		for i := range 50 {
			u := fmt.Sprintf("user%d", i)
			w.publish(post{to: []push.UserID{push.UserID(u)}, body: `1`})
			ds = append(ds, w.connect("r1", u+"/web/web", ""))
		}
		time.Sleep(time.Second)
		calls, acks := 0, 0
		w.saver.set(func(g *gate) {
			g.onAck = func(as []saver.Ack) error { calls++; acks += len(as); return nil }
		})
		for _, d := range ds {
			d.ack()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if calls > 2 || acks != 50 {
			t.Errorf("50 acknowledgements took %d calls with %d acks, want 50 in one or two", calls, acks)
		}
		w.saver.set(func(g *gate) { g.onAck = nil })
	})
}

func TestRoom_AcknowledgementBeyondWhatWasSentHurtsTheLiarAlone(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		liar, honest := w.connect("r1", "alice/phone/android", ""), w.connect("r1", "alice/web/web", "")
		o, c, _ := push.ParseCursor(liar.theCursor())
		c[push.Own].Pos += 1000
		liar.send(&wire.Ack{Cursor: string(push.AppendCursor(nil, o, c))})
		time.Sleep(time.Second)
		id := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		synctest.Wait()
		honest.want(id)
		liar.leave()
		honest.leave()
		w.connect("r1", "alice/phone/android", "").want(id)
		w.connect("r1", "alice/web/web", "").want(id)
	})
}

// flaky is a register that a test can cut off.
type flaky struct {
	register.Register
	off func() bool
}

func (f flaky) Renew(ctx context.Context, room push.RoomID, boot push.BootID) ([]register.Order, error) {
	if f.off() {
		return nil, errors.New("the register is away")
	}
	return f.Register.Renew(ctx, room, boot)
}

// shaky is a register that fails the first inserts it is asked for while it is armed.
type shaky struct {
	flaky
	fail *atomic.Int32
}

func (s shaky) Insert(ctx context.Context, rec register.Session, l []push.SessionLimit) (register.Inserted, error) {
	if s.fail.Add(-1) >= 0 {
		return register.Inserted{}, &push.Error{Kind: push.KindUnavailable, Code: "register_unavailable"}
	}
	return s.flaky.Insert(ctx, rec, l)
}

func TestRoom_SessionsThatCouldNotBePutBackAreTriedAgain(t *testing.T) {
	var off atomic.Bool
	var fail atomic.Int32
	tune := func(w *world, c *Config) {
		c.Register = shaky{flaky{w.reg, off.Load}, &fail}
		c.Heartbeat = time.Minute
	}
	inWorld(t, oneRoom, tune, func(w *world) {
		w.connect("r1", "alice/phone/android", "")
		w.connect("r1", "bob/phone/android", "")
		off.Store(true)
		time.Sleep(register.LeaseTTL + time.Second)
		fail.Store(1)
		off.Store(false)
		time.Sleep(5 * time.Second)
		if n, _ := w.reg.Count(w.ctx, product); n != 2 {
			t.Errorf("the register counts %d sessions, want 2", n)
		}
	})
}

// While a room has no lease its sessions do not count: whoever publishes notifies nobody, and no change log notes it.
func TestRoom_WhatIsSentWhileTheLeaseIsLostArrives(t *testing.T) {
	var off atomic.Bool
	tune := func(w *world, c *Config) {
		c.Register = flaky{w.reg, off.Load}
		c.Heartbeat = time.Minute
	}
	inWorld(t, oneRoom, tune, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		off.Store(true)
		time.Sleep(register.LeaseTTL + time.Second)
		own := w.publish(post{to: []push.UserID{"alice"}, body: `1`, silent: true})
		common := w.publish(post{body: `2`, silent: true})
		off.Store(false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := d.received(); !slices.Contains(got, own) || !slices.Contains(got, common) {
			t.Errorf("got %v, want %v and %v", got, own, common)
		}
	})
}

func TestRoom_ZombieWritesNothingAndComesBack(t *testing.T) {
	var off atomic.Bool
	tune := func(w *world, c *Config) {
		c.Register = flaky{w.reg, off.Load}
	}
	inWorld(t, oneRoom, tune, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		off.Store(true)
		time.Sleep(3500 * time.Millisecond)
		a := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		synctest.Wait()
		d.want()
		time.Sleep(9 * time.Second) // past the lease: the sessions count no longer
		d.send(&wire.Ping{})
		if n, _ := w.reg.Count(w.ctx, product); n != 0 {
			t.Errorf("the register counts %d sessions of a room without a lease, want 0", n)
		}
		off.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		d.want(a)
		if n, _ := w.reg.Count(w.ctx, product); n != 1 {
			t.Errorf("the register counts %d sessions after the room joined again, want 1", n)
		}
		b := w.publish(post{to: []push.UserID{"alice"}, body: `2`})
		synctest.Wait()
		d.want(a, b)
	})
}

func TestRoom_LineageChangesUnderLiveSessionsAndNothingIsLost(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		to := []push.UserID{"alice"}
		phone, web := w.connect("r1", "alice/phone/android", ""), w.connect("r1", "alice/web/web", "")
		a := w.publish(post{to: to, body: `"a"`})
		synctest.Wait()
		snap, err := w.memory.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		// Delivered and acknowledged by one device, then lost by the store.
		lost1 := w.publish(post{to: to, body: `"lost 1"`})
		lost2 := w.publish(post{body: `"lost 2"`})
		synctest.Wait()
		phone.ack()
		time.Sleep(time.Second)
		if err := w.memory.Restore(snap); err != nil {
			t.Fatal(err)
		}
		// Others lie at the positions of the lost ones now; notified to some, swept up by the rest.
		b := w.publish(post{to: to, body: `"b"`})
		c := w.publish(post{to: to, body: `"c"`, silent: true})
		all := w.publish(post{body: `"all"`, silent: true})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for _, d := range []*device{phone, web} {
			got := map[push.MsgID]int{}
			for _, id := range d.received() {
				got[id]++
			}
			for _, id := range []push.MsgID{a, b, c, lost1, lost2, all} {
				if got[id] < 1 {
					t.Errorf("a device never got %v; it got %v", id, d.received())
				}
			}
			lineages := 0
			for _, cf := range framesOf[*wire.Cursor](d) {
				if cf.Reason == wire.CursorLineage {
					lineages++
				}
			}
			if lineages == 0 {
				t.Error("no cursor frame told the client of the new lineage")
			}
		}
		phone.ack()
		phone.leave()
		w.connect("r1", "alice/phone/android", phone.theCursor()).want()
	})
}

// What a room remembers of a common slot is of the old lineage until it hears of the new one, and reaches further than what
// the store holds then.
func TestRoom_CachedTailDoesNotSurviveALineage(t *testing.T) {
	for _, silent := range []bool{false, true} {
		inWorld(t, oneRoom, nil, func(w *world) {
			w.connect("r1", "alice/phone/android", "").leave()
			w.publish(post{body: `"kept"`})
			d := w.connect("r1", "alice/phone/android", "") // reads it, and so the room has a tail
			snap, err := w.memory.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				w.publish(post{body: `"lost"`})
			}
			synctest.Wait()
			if err := w.memory.Restore(snap); err != nil {
				t.Fatal(err)
			}
			id := w.publish(post{body: `"at the position of a lost one"`, silent: silent})
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if got := d.received(); !slices.Contains(got, id) {
				t.Errorf("silent %v: a device never got %v; it got %v", silent, id, got)
			}
			d.leave()
		})
	}
}

func TestRoom_SlotThatExpiredAndCameBackLosesNothing(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		synctest.Wait()
		d.ack()
		cursor := d.theCursor()
		d.leave()
		if !w.memory.LoseSlot(saver.UserRef{Product: product, Shards: shards, User: "alice"}, push.Own) {
			t.Fatal("there was no slot to lose")
		}
		b := w.publish(post{to: []push.UserID{"alice"}, body: `2`})
		d = w.connect("r1", "alice/phone/android", cursor)
		d.want(b)
		if got := framesOf[*wire.Welcome](d)[0]; got.Own != wire.Reset {
			t.Errorf("the own slot begins %v, want reset", got.Own)
		}
	})
}
