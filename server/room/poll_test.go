package room

import (
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// inPolls runs f with a device that polls when the test says so. Its first poll was answered with the welcome.
func inPolls(t *testing.T, f func(w *world, d *device)) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d := w.dialOver(transport.LongPoll, "r1")
		d.send(&wire.Connect{Version: wire.Version, Token: "alice/phone/android"})
		d.poll(0)
		synctest.Wait()
		if len(framesOf[*wire.Welcome](d)) != 1 {
			t.Fatal("no welcome came")
		}
		d.answer()
		synctest.Wait() // until the room knows that the poll is over
		f(w, d)
	})
}

func (w *world) toAlice() push.MsgID { return w.publish(post{to: []push.UserID{"alice"}, body: `1`}) }

func TestPoll_IsHeldForItsWaitAndNoLongerThanWelcomeSays(t *testing.T) {
	inPolls(t, func(w *world, d *device) {
		welcome := framesOf[*wire.Welcome](d)[0]
		most := time.Duration(welcome.HeartbeatMillis) * time.Millisecond
		if most > 55*time.Second || most < 49500*time.Millisecond || welcome.GraceMillis != 15000 {
			t.Errorf("welcome names a hold of %v and %d ms between polls, want 49.5 to 55 s and 15 s", most, welcome.GraceMillis)
		}
		for _, c := range []struct{ wait, least, most time.Duration }{
			{10 * time.Second, 9 * time.Second, 10 * time.Second},
			{time.Minute, most, most},
			{-time.Second, 0, 0},
		} {
			began := time.Now()
			d.poll(c.wait)
			d.answer()
			if took := time.Since(began); took < c.least || took > c.most+2*wheelTick {
				t.Errorf("a poll that waits for %v was held for %v, want %v to %v", c.wait, took, c.least, c.most)
			}
		}
		if got := d.closedWith(); got != 0 {
			t.Errorf("closed with %v", got)
		}
	})
}

func TestPoll_SessionLingersBetweenPollsAndIsThenLost(t *testing.T) {
	inPolls(t, func(w *world, d *device) {
		for range 20 { // each time almost too late
			time.Sleep(14900 * time.Millisecond)
			d.poll(time.Second)
			d.answer()
		}
		if got := d.closedWith(); got != 0 {
			t.Fatalf("closed with %v between polls that came in time", got)
		}
		began := time.Now()
		d.gone()
		if took := time.Since(began); took < 15*time.Second || took > 15*time.Second+2*wheelTick || d.closedWith() != wire.CloseLost {
			t.Errorf("the session was given up after %v with %v, want lost after 15 s", took, d.closedWith())
		}
		time.Sleep(time.Second)
		if n, _ := w.reg.Count(w.ctx, product); n != 0 {
			t.Errorf("the register counts %d sessions, want none", n)
		}
	})
}

func TestPoll_AClientThatDoesNotPollIsNotSlow(t *testing.T) {
	inPolls(t, func(w *world, d *device) {
		a, b := w.toAlice(), w.toAlice()
		time.Sleep(14 * time.Second) // the deadline of slow clients is 10 s
		d.want()
		d.poll(time.Minute)
		synctest.Wait()
		d.want(a, b)
		d.answer()
	})
}

func TestPoll_AnAnswerThatIsNotReadIsSlow(t *testing.T) {
	inPolls(t, func(w *world, d *device) {
		d.poll(time.Minute)
		d.freeze()
		w.toAlice()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if got := d.closedWith(); got != wire.CloseSlow {
			t.Errorf("closed with %v, want slow", got)
		}
	})
}

func TestPoll_WhatComesForAClientThatLeftWaitsForItsNextPoll(t *testing.T) {
	inPolls(t, func(w *world, d *device) {
		d.poll(time.Minute)
		synctest.Wait()
		d.mu.Lock()
		d.waits = false
		d.mu.Unlock()
		d.sess.(transport.PollSession).PollOver()
		a := w.toAlice()
		time.Sleep(12 * time.Second)
		d.want()
		d.poll(time.Minute)
		synctest.Wait()
		d.want(a)
		d.answer()
	})
}

// A poll's cursor is an acknowledgement, and an answer is none.
func TestPoll_AcknowledgesWithItsCursorAlone(t *testing.T) {
	inPolls(t, func(w *world, d *device) {
		a := w.toAlice()
		d.poll(time.Minute)
		d.answer()
		d.want(a)
		time.Sleep(time.Second)
		stored := func() push.Position {
			u, err := w.saver.User(w.ctx, d.sess.(*session).userRef())
			if err != nil {
				t.Fatal(err)
			}
			return u.Devices[0].Cursors[push.Own].Pos
		}
		before := stored()
		d.poll(time.Minute)
		time.Sleep(time.Second)
		if after := stored(); after != before+1 {
			t.Errorf("the stored cursor went from %d to %d, want one further at the poll that shows it", before, after)
		}
	})
}

func TestPoll_AskingWithoutPauseIsAFloodAndFastAnswersAreNot(t *testing.T) {
	inPolls(t, func(w *world, d *device) {
		for range 100 { // a fast line: five times what a client may send in a second
			w.publish(post{to: []push.UserID{"alice"}, body: `1`, live: true})
			d.poll(time.Minute)
			d.answer()
		}
		if got := d.closedWith(); got != 0 {
			t.Fatalf("closed with %v although each poll was answered with something", got)
		}
		p := d.sess.(transport.PollSession)
		for range 21 { // as the transport answers with nothing, at once
			p.Poll("", 0)
			p.PollOver()
		}
		d.poll(time.Second) // for the goodbye
		synctest.Wait()
		if got := d.closedWith(); got != wire.CloseFlood {
			t.Errorf("closed with %v after 21 polls for nothing, want flood", got)
		}
	})
}

func TestPoll_AClientThatIsKickedBetweenTwoHearsOfItAtItsNext(t *testing.T) {
	inPolls(t, func(w *world, d *device) {
		d.room.End(product, "alice", "phone")
		time.Sleep(12 * time.Second)
		d.poll(time.Minute)
		synctest.Wait()
		if ks := framesOf[*wire.Kick](d); len(ks) != 1 || ks[0].Code != wire.CloseDeleted || d.closedWith() != wire.CloseDeleted {
			t.Errorf("got kicks %+v and close %v, want one deleted", ks, d.closedWith())
		}
	})
	inPolls(t, func(w *world, d *device) {
		d.room.End(product, "alice", "phone")
		d.gone() // nobody polls
		if got := d.closedWith(); got != wire.CloseDeleted {
			t.Errorf("closed with %v, want deleted", got)
		}
	})
}

// A client that was kicked between two polls may hear of it at its next, but keeps no node from going.
func TestPoll_ADrainDoesNotWaitForThePollOfOneThatWasKicked(t *testing.T) {
	inPolls(t, func(w *world, d *device) {
		d.room.End(product, "alice", "phone")
		done := make(chan error, 1)
		go func() { done <- d.room.Drain(w.ctx) }()
		time.Sleep(nextPoll + 2*wheelTick) // well before the kick's own time is over
		synctest.Wait()
		if len(done) == 0 {
			t.Fatal("the drain waits")
		}
		if err := <-done; err != nil || d.closedWith() != wire.CloseDeleted {
			t.Errorf("the drain ended with %v, the session with %v", err, d.closedWith())
		}
	})
}

// Behind a load balancer the next poll goes to another node as soon as this one says that it is not ready.
func TestPoll_ADrainWaitsAMomentForTheNextPollAndNoLonger(t *testing.T) {
	for _, comes := range []bool{true, false} {
		inPolls(t, func(w *world, d *device) {
			time.Sleep(3 * time.Second)
			began, done := time.Now(), make(chan error, 1)
			go func() { done <- d.room.Drain(w.ctx) }()
			time.Sleep(nextPoll / 2)
			if comes {
				d.poll(time.Minute)
			}
			err := <-done
			took := time.Since(began)
			d.gone() // the room is empty a moment before the device knows why
			if err != nil || took > nextPoll+2*wheelTick || d.closedWith() != wire.CloseGoingAway {
				t.Errorf("next poll %v: the drain ended with %v after %v, the session with %v", comes, err, took, d.closedWith())
			}
			if told := len(framesOf[*wire.Goaway](d)) == 1; told != comes {
				t.Errorf("next poll %v: told to go elsewhere %v", comes, told)
			}
		})
	}
}

// What a client sends beside its polls says nothing of them.
func TestPoll_FramesBesideItDoNotProlongTheSession(t *testing.T) {
	inPolls(t, func(w *world, d *device) {
		began := time.Now()
		for range 3 {
			time.Sleep(7 * time.Second)
			if err := d.room.Post(w.ctx, "alice/phone/android", []wire.Frame{&wire.Ping{}}); err != nil {
				t.Fatal(err)
			}
		}
		d.gone()
		if took := time.Since(began); took > 21*time.Second || d.closedWith() != wire.CloseLost {
			t.Errorf("gone after %v with %v, want lost after the linger of 15 s", took, d.closedWith())
		}
	})
}
