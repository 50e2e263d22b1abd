package room

import (
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/wire"
)

// While tokens cannot be judged, a client that goes on sending new ones would fill the openers' mailbox.
func TestSession_OneRefreshWaitsAtATime(t *testing.T) {
	st := newStage(t, nil)
	c := st.sit("alice", nil)
	for range 3 {
		c.s.Receive(&wire.Refresh{Token: "alice/web/web"})
	}
	openings := st.room.openings.poll(make([]opening, 0, 10))
	if len(openings) != 1 {
		t.Fatalf("%d refreshes wait, want 1", len(openings))
	}
	var got []string
	for i := range c.s.queue.outs {
		got = append(got, c.s.queue.outs[i].Frame.(*wire.Error).Code)
	}
	if len(got) != 2 || got[0] != "try_again" || got[1] != "try_again" {
		t.Errorf("the others were answered with %q, want try_again", got)
	}
	st.room.refresh(st.ctx, c.s, openings[0].refresh)
	c.s.Receive(&wire.Refresh{Token: "alice/web/web"})
	if n := len(st.room.openings.poll(openings[:0])); n != 1 {
		t.Errorf("%d refreshes wait after the first was judged, want 1", n)
	}
}

func TestSession_ARefreshThatIsNotJudgedInTimeMakesRoomForAnother(t *testing.T) {
	var wait chan struct{}
	tune := func(_ *world, c *Config) {
		wait = make(chan struct{}, 1)
		wait <- struct{}{} // for the connect
		c.Tokens, c.Heartbeat = slowTokens{wait: wait}, time.Hour
	}
	inWorld(t, oneRoom, tune, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		d.send(&wire.Refresh{Token: "alice/phone/android/2h"})
		time.Sleep(openTimeout + time.Second)
		synctest.Wait()
		if es := framesOf[*wire.Error](d); len(es) != 1 || es[0].Code != "try_again" {
			t.Errorf("got errors %+v, want try_again", es)
		}
		wait <- struct{}{}
		d.send(&wire.Refresh{Token: "alice/phone/android/2h"})
		synctest.Wait()
		if fs := framesOf[*wire.Refresh](d); len(fs) != 1 {
			t.Errorf("%d tokens were confirmed, want the second", len(fs))
		}
	})
}
