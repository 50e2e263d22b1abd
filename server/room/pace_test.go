package room

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carillon/server/push"
	"carillon/server/wire"
)

// paced gives rooms a pace, and one worker, so that one inbox is what bounds them.
func paced(pace int) func(*world, *Config) {
	return func(_ *world, c *Config) { c.Pace, c.Deliverers = pace, 1 }
}

// crowd connects n users to a room.
func (w *world) crowd(room push.RoomID, n int) (all []*device) {
	w.t.Helper()
	for i := range n {
		all = append(all, w.connect(room, fmt.Sprintf("user%d/web/web", i), ""))
	}
	return all
}

// has returns how many of the devices were sent a message.
func has(all []*device, id push.MsgID) (n int) {
	for _, d := range all {
		d.mu.Lock()
		if slices.Contains(d.got, id) {
			n++
		}
		d.mu.Unlock()
	}
	return n
}

func TestPace_BroadcastGoesOutNoFasterAndReachesAll(t *testing.T) {
	for _, kind := range []string{"stored", "live"} {
		t.Run(kind, func(t *testing.T) {
			const pace, clients = 20, 200
			inWorld(t, []push.RoomID{"r1"}, paced(pace), func(w *world) {
				all := w.crowd("r1", clients)
				id := w.publish(post{body: "1", live: kind == "live"})
				began := time.Now()
				for has(all, id) < clients {
					time.Sleep(paceTick / 2)
					synctest.Wait()
					took := time.Since(began)
					n, most := has(all, id), int(took.Seconds()*pace)+2*pace/10 // what is saved up, and one chunk
					if n > most {
						t.Fatalf("after %v %d clients have it, want at most %d", took, n, most)
					}
					if took > 2*clients*time.Second/pace {
						t.Fatalf("after %v only %d of %d clients have it", took, n, clients)
					}
				}
				for _, d := range all {
					if len(d.got) != 1 {
						t.Fatalf("a client got %v", d.got)
					}
				}
			})
		})
	}
}

func TestPace_UnicastsAndHeartbeatsGoOnMeanwhile(t *testing.T) {
	inWorld(t, []push.RoomID{"r1"}, paced(1), func(w *world) {
		all := w.crowd("r1", 60)
		id := w.publish(post{body: "1"})
		for i := range 10 {
			time.Sleep(3 * time.Second)
			d := all[i]
			live := w.publish(post{to: []push.UserID{push.UserID(fmt.Sprint("user", i))}, body: "2", live: true})
			own := w.publish(post{to: []push.UserID{push.UserID(fmt.Sprint("user", i))}, body: "3"})
			for _, d := range all {
				d.send(&wire.Ping{})
			}
			synctest.Wait() // no time passes in it
			if has([]*device{d}, live) != 1 || has([]*device{d}, own) != 1 {
				t.Fatalf("a message to one user waits for the broadcast: got %v", d.got)
			}
			for _, d := range all {
				if pongs := len(framesOf[*wire.Pong](d)); pongs != i+1 {
					t.Fatalf("%d pongs for %d pings", pongs, i+1)
				}
			}
		}
		if n := has(all, id); n == 0 || n == len(all) {
			t.Fatalf("%d of %d clients have the broadcast, which is to be under way all the time", n, len(all))
		}
	})
}

func TestPace_WhatTheInboxHasNoRoomForComesWithTheSweepAndIsCounted(t *testing.T) {
	counters := prometheus.NewRegistry()
	tune := func(w *world, c *Config) {
		paced(200)(w, c)
		c.Metrics = NewMetrics(counters)
	}
	inWorld(t, []push.RoomID{"r1"}, tune, func(w *world) {
		all := w.crowd("r1", 2)
		var want []push.MsgID
		for range inboxSize + 5*bulkTogether {
			want = append(want, w.publish(post{body: "1"}))
		}
		if n := counted(t, counters, "carillon_room_drops_total", string(dropInboxFull)); n < bulkTogether {
			t.Fatalf("%v deliveries were counted as dropped", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, d := range all {
			if !slices.Equal(d.got, want) {
				t.Fatalf("a client got %d messages, want all %d in their order", len(d.got), len(want))
			}
		}
	})
}

func TestPace_RoomsDoNotBeginAtTheSameMoment(t *testing.T) {
	rooms := []push.RoomID{"r1", "r2", "r3", "r4", "r5", "r6"}
	inWorld(t, rooms, paced(10), func(w *world) {
		var first []*device
		for i, room := range rooms {
			first = append(first, w.connect(room, fmt.Sprintf("user%d/web/web", i), ""))
		}
		id := w.publish(post{body: "1"})
		moments := map[time.Duration]bool{}
		began := time.Now()
		for before := 0; before < len(rooms); {
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if n := has(first, id); n > before {
				before = n
				moments[time.Since(began)] = true
			}
			if time.Since(began) > paceTick {
				t.Fatalf("%d of %d rooms have begun", before, len(rooms))
			}
		}
		if len(moments) == 1 {
			t.Error("all rooms began at the same moment")
		}
	})
}

func TestPace_IsATokenBucket(t *testing.T) {
	p := pacer{perSecond: 100}
	at := func(ms int) moment { return moment(time.Duration(ms) * time.Millisecond) }
	wants := func(what string, ms, wait int) {
		t.Helper()
		if got := p.wait(at(ms)); got != time.Duration(wait)*time.Millisecond {
			t.Errorf("%s: got a wait of %v, want %d ms", what, got, wait)
		}
	}
	p.begin(at(1000), 30*time.Millisecond)
	wants("after a pause", 1000, 30)
	p.begin(at(1000), 90*time.Millisecond)
	wants("while another pass waits", 1000, 30)
	p.spend(at(1030), 10)
	wants("ten are paid for in a tenth of a second", 1030, 100)
	p.spend(at(1170), 10)
	wants("who comes late has saved that up", 1170, 60)
	p.spend(at(9000), 5)
	wants("no more than a tick is saved up", 9000, -50)
	for _, c := range []struct{ messages, want int }{{1, 10}, {3, 3}, {16, 1}, {0, 10}} {
		if got := p.chunk(c.messages); got != c.want {
			t.Errorf("a chunk of %d messages each: got %d sessions, want %d", c.messages, got, c.want)
		}
	}
	if got := new(pacer).chunk(16); got != bulkChunk {
		t.Errorf("a chunk without a pace: got %d, want %d", got, bulkChunk)
	}
}

// counted returns what a counter with one label has counted.
func counted(t *testing.T, from *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}
