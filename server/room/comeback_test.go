package room

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/wire"
)

// remote is a register that is some way off: whoever is put back into it waits for so long, and in vain once the call's time is over.
type remote struct {
	flaky
	takes time.Duration
	puts  *atomic.Int64 // how many were put back
}

func (m remote) Insert(ctx context.Context, s register.Session, l []push.SessionLimit) (register.Inserted, error) {
	if s.Epoch != 0 {
		select {
		case <-time.After(m.takes):
		case <-ctx.Done():
			return register.Inserted{}, &push.Error{Kind: push.KindUnavailable, Code: "register_unavailable", Err: ctx.Err()}
		}
	}
	ins, err := m.flaky.Insert(ctx, s, l)
	if s.Epoch != 0 && err == nil {
		m.puts.Add(1)
	}
	return ins, err
}

// inComeback has many sessions lose the lease of their room, and the register be back, so far off, when f is called.
func inComeback(t *testing.T, sessions int, takes time.Duration, f func(w *world, puts *atomic.Int64)) {
	t.Helper()
	var off atomic.Bool
	var puts atomic.Int64
	tune := func(w *world, c *Config) {
		c.Register = remote{flaky{w.reg, off.Load}, takes, &puts}
		c.Heartbeat = mostHeartbeat
	}
	inWorld(t, oneRoom, tune, func(w *world) {
		for i := range sessions {
			w.dial("r1").send(&wire.Connect{Version: wire.Version, Token: fmt.Sprintf("user%d/phone/android", i)})
		}
		synctest.Wait()
		if n := w.online(); n != sessions {
			t.Fatalf("%d are online, want %d", n, sessions)
		}
		off.Store(true)
		time.Sleep(register.LeaseTTL + register.RenewEvery)
		if n := w.online(); n != 0 || w.rooms["r1"].Alive() {
			t.Fatalf("the register counts %d sessions of a room without a lease", n)
		}
		off.Store(false)
		f(w, &puts)
	})
}

// One after the other they would take ten seconds, and a renewal has three.
func TestComeback_OfAThousandTakesOneRenewal(t *testing.T) {
	const sessions = 1000
	inComeback(t, sessions, 10*time.Millisecond, func(w *world, _ *atomic.Int64) {
		time.Sleep(2 * register.RenewEvery)
		if n := w.online(); n != sessions || !w.rooms["r1"].Alive() {
			t.Errorf("the register counts %d sessions, want %d; alive: %v", n, sessions, w.rooms["r1"].Alive())
		}
	})
}

// A register that is so slow that one renewal does not do.
func TestComeback_GoesOnWhereTheLastRenewalEnded(t *testing.T) {
	const sessions = 1000
	inComeback(t, sessions, time.Second, func(w *world, puts *atomic.Int64) {
		time.Sleep(5 * time.Second)
		some := puts.Load()
		if some == 0 || some == sessions || w.rooms["r1"].Alive() {
			t.Errorf("after a renewal %d of %d are there; alive: %v", some, sessions, w.rooms["r1"].Alive())
		}
		time.Sleep(time.Minute)
		if n := w.online(); n != sessions || !w.rooms["r1"].Alive() {
			t.Errorf("the register counts %d sessions, want %d; alive: %v", n, sessions, w.rooms["r1"].Alive())
		}
		if n := puts.Load(); n != sessions {
			t.Errorf("%d were put back for %d sessions", n, sessions)
		}
	})
}

// What was put back under a lease that is lost again is gone with it.
func TestComeback_BeginsAnewWhenTheLeaseIsLostAgain(t *testing.T) {
	const sessions = 1000
	inComeback(t, sessions, time.Second, func(w *world, puts *atomic.Int64) {
		time.Sleep(5 * time.Second)
		if err := w.reg.Leave(w.ctx, "r1", 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := w.online(); n != sessions || !w.rooms["r1"].Alive() {
			t.Errorf("the register counts %d sessions, want %d; alive: %v", n, sessions, w.rooms["r1"].Alive())
		}
		if n := puts.Load(); n <= sessions {
			t.Errorf("%d were put back, and some of %d twice", n, sessions)
		}
	})
}

// A product that is gone sends its own devices away, and keeps no other from coming back.
func TestComeback_WithoutAProductThatIsGone(t *testing.T) {
	var off, gone atomic.Bool
	tune := func(w *world, c *Config) {
		c.Register = flaky{w.reg, off.Load}
		c.Heartbeat = time.Minute
		policy := c.Policy
		c.Policy = func(ctx context.Context, p push.ProductID) (Policy, error) {
			if gone.Load() && p == "shop2" {
				return Policy{}, push.Errorf(push.KindNotFound, "product_not_found", "there is no such product")
			}
			return policy(ctx, p)
		}
	}
	inWorld(t, oneRoom, tune, func(w *world) {
		alice := w.connect("r1", "alice/phone/android", "")
		bob := w.connect("r1", "bob/phone/android/1h/shop2", "")
		off.Store(true)
		time.Sleep(register.LeaseTTL + register.RenewEvery)
		gone.Store(true)
		off.Store(false)
		time.Sleep(2 * register.RenewEvery)
		synctest.Wait()
		if n := w.online(); n != 1 || !w.rooms["r1"].Alive() || alice.closedWith() != 0 {
			t.Errorf("%d are online, alive: %v, closed with %v", n, w.rooms["r1"].Alive(), alice.closedWith())
		}
		if got := bob.closedWith(); got != wire.CloseForbidden {
			t.Errorf("the device of a product that is gone: closed with %v, want %v", got, wire.CloseForbidden)
		}
	})
}

// delaying is a register whose answers to connects are under way for as long as a test likes.
type delaying struct {
	flaky
	answers chan struct{}
}

func (d delaying) Insert(ctx context.Context, s register.Session, l []push.SessionLimit) (register.Inserted, error) {
	ins, err := d.flaky.Insert(ctx, s, l)
	if s.Epoch == 0 {
		select {
		case <-d.answers:
		case <-ctx.Done():
		}
	}
	return ins, err
}

// Whoever is just connecting has no epoch by which it could be put back.
func TestComeback_OfOneThatWasConnectingWhenTheLeaseWasLost(t *testing.T) {
	var off atomic.Bool
	var answers chan struct{}
	tune := func(w *world, c *Config) {
		answers = make(chan struct{}) // within the bubble, or virtual time would not pass
		c.Register = delaying{flaky{w.reg, off.Load}, answers}
	}
	inWorld(t, oneRoom, tune, func(w *world) {
		off.Store(true)
		time.Sleep(register.LeaseTTL - 2*register.RenewEvery)
		d := w.dial("r1")
		d.send(&wire.Connect{Version: wire.Version, Token: "alice/phone/android"})
		synctest.Wait()
		if n := w.online(); n != 1 {
			t.Fatalf("%d are online", n)
		}
		time.Sleep(3 * register.RenewEvery)
		off.Store(false)
		time.Sleep(2 * register.RenewEvery)
		if n := w.online(); n != 0 || !w.rooms["r1"].Alive() {
			t.Fatalf("%d are online, alive: %v", n, w.rooms["r1"].Alive())
		}
		close(answers)
		synctest.Wait()
		if n := w.online(); n != 1 || d.closedWith() != 0 {
			t.Errorf("%d are online, closed with %v", n, d.closedWith())
		}
	})
}
