package room

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/wire"
)

func TestRoom_RenewalDoesNotCountUntilWhatItWasToldIsDone(t *testing.T) {
	var fail atomic.Bool
	tune := func(_ *world, c *Config) {
		c.Obey = func(context.Context) (bool, error) {
			if fail.Load() {
				return false, errors.New("not now")
			}
			return false, nil
		}
	}
	inWorld(t, oneRoom, tune, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		fail.Store(true)
		time.Sleep(register.ZombieAfter + register.RenewEvery)
		a := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		synctest.Wait()
		d.want() // it may be of somebody whom the room was told to kick
		fail.Store(false)
		time.Sleep(2 * register.RenewEvery)
		synctest.Wait()
		d.want(a)
	})
}

func TestRoom_ThatMissedWhatItWasToldBeginsAnew(t *testing.T) {
	var lost atomic.Bool
	tune := func(_ *world, c *Config) {
		c.Obey = func(context.Context) (bool, error) { return lost.Swap(false), nil }
	}
	inWorld(t, oneRoom, tune, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		lost.Store(true)
		time.Sleep(2 * register.RenewEvery)
		synctest.Wait()
		if got := d.closedWith(); got != wire.CloseInternal {
			t.Errorf("closed with %v, want %v", got, wire.CloseInternal)
		}
		again := w.connect("r1", "alice/phone/android", d.theCursor())
		a := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		synctest.Wait()
		again.want(a)
	})
}
