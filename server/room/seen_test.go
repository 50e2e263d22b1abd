package room

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/transport"
)

// sightings counts how often the store was told that devices are there, and refuses to hear it while it is down.
type sightings struct {
	mu    sync.Mutex
	down  bool
	of    map[push.DeviceID]int
	calls int // with at least one
}

func (g *sightings) note(as []saver.Ack) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down {
		return errors.New("down")
	}
	some := 0
	for i := range as {
		if as[i].Seen {
			g.of[as[i].Device]++
			some++
		}
	}
	g.calls += min(some, 1)
	return nil
}

func (g *sightings) setDown(down bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down = down
}

const shortDay = time.Hour

// inShortDays runs f in a world whose product forgets devices after two hours, which makes a day of one.
func inShortDays(t *testing.T, f func(w *world, told *sightings)) {
	t.Helper()
	tune := func(w *world, c *Config) {
		w.policy.Limits.DeviceUnseen = 2 * shortDay
		c.SweepEvery, c.AckOwnEvery, c.AckCommonEvery, c.Heartbeat = time.Minute, 10*time.Second, 10*time.Second, time.Minute
	}
	inWorld(t, oneRoom, tune, func(w *world) {
		told := &sightings{of: make(map[push.DeviceID]int)}
		w.saver.set(func(g *gate) { g.onAck = told.note })
		f(w, told)
	})
}

func TestSeen_ADeviceThatStaysConnectedIsNotForgotten(t *testing.T) {
	inShortDays(t, func(w *world, told *sightings) {
		stays := w.connectOver(transport.SSE, "r1", "alice/phone/android", "")
		w.connect("r1", "alice/laptop/web", "").leave()
		for range 3 {
			time.Sleep(shortDay)
		}
		synctest.Wait()
		// Another device comes: those of the account that were unseen for too long are forgotten.
		w.connect("r1", "alice/tablet/android", "").leave()
		u, err := w.memory.User(w.ctx, saver.UserRef{Product: product, Shards: shards, User: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		var got []push.DeviceID
		for _, d := range u.Devices {
			got = append(got, d.Device)
			if ago := push.Milli(time.Now()).Time().Sub(d.Seen.Time()); ago > shortDay+2*time.Minute {
				t.Errorf("%s was seen %v ago", d.Device, ago)
			}
		}
		if fmt.Sprint(got) != "[phone tablet]" {
			t.Errorf("devices: got %v, want those that were there in the last two hours", got)
		}
		if n := told.of["phone"]; n != 3 {
			t.Errorf("in three days of an hour the store was told %d times", n)
		}
		stays.leave()
	})
}

func TestSeen_DevicesAreNotedOneByOneOverTheDay(t *testing.T) {
	inShortDays(t, func(w *world, told *sightings) {
		const devices = 40
		for i := range devices {
			w.connectOver(transport.SSE, "r1", fmt.Sprintf("user%d/device%d/web", i, i), "")
		}
		time.Sleep(shortDay + 2*time.Minute)
		synctest.Wait()
		if len(told.of) != devices {
			t.Errorf("%d devices of %d were noted within a day", len(told.of), devices)
		}
		if told.calls < devices/2 {
			t.Errorf("%d devices were noted in %d calls, want them spread", devices, told.calls)
		}
	})
}

func TestSeen_WhatTheStoreDidNotTakeIsNotedAgain(t *testing.T) {
	inShortDays(t, func(w *world, told *sightings) {
		w.connectOver(transport.SSE, "r1", "alice/phone/android", "")
		told.setDown(true)
		time.Sleep(shortDay + 2*time.Minute)
		told.setDown(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := told.of["phone"]; n != 1 {
			t.Errorf("the store was told %d times, want once", n)
		}
	})
}

func TestSeen_OnceADayOrTwiceInTheTimeAfterWhichAProductForgets(t *testing.T) {
	for _, c := range []struct{ unseen, want time.Duration }{
		{0, 24 * time.Hour}, {365 * 24 * time.Hour, 24 * time.Hour}, {24 * time.Hour, 12 * time.Hour},
	} {
		s := &session{shard: &bookShard{}, owner: 0x1234_5678_9abc}
		s.shard.noteUnseen(push.Limits{DeviceUnseen: c.unseen})
		days := 0
		for now, was := moment(0), s.dayAt(0); now < moment(10*c.want); now = now.add(time.Minute) {
			if d := s.dayAt(now); d != was {
				days, was = days+1, d
			}
		}
		if days != 10 {
			t.Errorf("unseen for %v: in ten times %v the device was noted %d times", c.unseen, c.want, days)
		}
	}
}
