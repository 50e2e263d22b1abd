package room

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/wire"
)

// slowLeave is a register that takes its time for those who leave it.
type slowLeave struct{ register.Register }

func (l slowLeave) Remove(ctx context.Context, k register.Key, e push.SessionEpoch, b push.BootID) (bool, error) {
	time.Sleep(10 * time.Millisecond)
	return l.Register.Remove(ctx, k, e, b)
}

// All sessions of a room end at once, but for one: nobody waits for what each of them takes, which is ten seconds in all.
func TestLeave_OfAThousandTakesAMoment(t *testing.T) {
	const sessions = 1000
	tune := func(w *world, c *Config) {
		c.Register = slowLeave{w.reg}
		c.Heartbeat = mostHeartbeat
	}
	inWorld(t, oneRoom, tune, func(w *world) {
		var ds []*device
		for i := range sessions {
			d := w.dial("r1")
			d.send(&wire.Connect{Version: wire.Version, Token: fmt.Sprintf("user%d/phone/android", i)})
			ds = append(ds, d)
		}
		synctest.Wait()
		for _, d := range ds[1:] {
			d.Cut(wire.CloseLost)
		}
		time.Sleep(time.Second)
		if n := w.online(); n != 1 {
			t.Errorf("after a second the register counts %d sessions, want 1", n)
		}
	})
}
