package room

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/task"
	"carillon/server/wire"
)

// handed returns what was handed over of a message in each call of the room's Counts that said something of it.
func (w *world) handed(id push.MsgID) (cs []task.Counts) {
	w.counts.mu.Lock()
	defer w.counts.mu.Unlock()
	for _, call := range w.counts.calls {
		for _, c := range call {
			if c.Task == id {
				cs = append(cs, c.Counts)
			}
		}
	}
	return cs
}

func (w *world) failCounts(err error) {
	w.counts.mu.Lock()
	defer w.counts.mu.Unlock()
	w.counts.err = err
}

func TestTally_IsHandedOverEverySecondUnderTheRoomsLife(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		w.connect("r1", "alice/phone/android", "")
		w.connect("r1", "bob/phone/android", "")
		a, b := w.publish(post{body: `1`}), w.toAlice()
		time.Sleep(countEvery)
		synctest.Wait()
		w.counts.mu.Lock()
		calls := slices.Clone(w.counts.calls)
		w.counts.mu.Unlock()
		life := task.Life{Room: "r1", Boot: 1}
		want := []task.Counted{
			{Product: product, Task: a, Life: life, Counts: task.Counts{task.Sent: 2}},
			{Product: product, Task: b, Life: life, Counts: task.Counts{task.Sent: 1}},
		}
		if len(calls) != 1 || !slices.Equal(calls[0], want) {
			t.Fatalf("was handed %+v, want %+v in one call", calls, want)
		}
		time.Sleep(10 * countEvery)
		w.counts.mu.Lock()
		defer w.counts.mu.Unlock()
		if len(w.counts.calls) != 1 {
			t.Errorf("was called %d times though nothing was counted", len(w.counts.calls))
		}
	})
}

// sumOf adds up a counter over its labels.
func sumOf(t *testing.T, metrics *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestTally_RepeatsWhatWasNotAddedAndNothingElse(t *testing.T) {
	one, two := task.Counts{task.Sent: 1}, task.Counts{task.Sent: 2}
	for _, c := range []struct {
		name string
		err  error
		want []task.Counts // what is handed over
		lost float64
	}{
		{"nothing was added", push.Errorf(push.KindUnavailable, "store_busy", ""), []task.Counts{one, two}, 0},
		{"nobody knows", push.Errorf(push.KindUnavailable, "store_unavailable", ""), []task.Counts{one, one}, 1},
		{"anything", errors.New("anything"), []task.Counts{one, one}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			metrics := prometheus.NewRegistry()
			inWorld(t, oneRoom, func(_ *world, cfg *Config) { cfg.Metrics = NewMetrics(metrics) }, func(w *world) {
				w.failCounts(c.err)
				w.connect("r1", "alice/phone/android", "")
				id := w.publish(post{to: toAlice, body: `1`, live: true})
				time.Sleep(countEvery + countEvery/2)
				w.failCounts(nil)
				w.rooms["r1"].tally.add(taskRef{product, id}, task.Sent, 1)
				time.Sleep(countEvery)
				synctest.Wait()
				if got := w.handed(id); !slices.Equal(got, c.want) {
					t.Errorf("was handed %v, want %v", got, c.want)
				}
				if got := sumOf(t, metrics, "carillon_room_task_counts_lost_total"); got != c.lost {
					t.Errorf("%v are said to be lost, want %v", got, c.lost)
				}
			})
		})
	}
}

func TestTally_IsKeptWhileTheLeaseCannotBeRenewed(t *testing.T) {
	var off atomic.Bool
	tune := func(w *world, c *Config) { c.Register = flaky{w.reg, off.Load} }
	inWorld(t, oneRoom, tune, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		off.Store(true)
		time.Sleep(2*register.RenewEvery + register.RenewEvery/2)
		id := w.toAlice()
		synctest.Wait()
		d.want(id)
		time.Sleep(3 * time.Second)
		if got := w.handed(id); got != nil {
			t.Errorf("was handed %v", got)
		}
		off.Store(false)
		time.Sleep(3 * time.Second)
		if got := w.handed(id); !slices.Equal(got, []task.Counts{{task.Sent: 1}}) {
			t.Errorf("once the lease was renewed it was handed %v", got)
		}
	})
}

func TestTally_RoomThatStopsHandsOverWhatIsLeft(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		w.connect("r1", "alice/phone/android", "")
		id := w.toAlice()
		synctest.Wait()
		w.stop[0]()
		var sum task.Counts
		for _, c := range w.handed(id) {
			sum.Add(c)
		}
		if want := (task.Counts{task.Sent: 1, task.Returned: 1}); sum != want {
			t.Errorf("was handed %v, want %v", sum, want)
		}
	})
}

func TestTally_KnowsSoManyMessagesAndForgetsThoseThatWereUsedLongestAgo(t *testing.T) {
	tl := newTally(&Room{cfg: Config{Counts: &counter{}}})
	ref := func(i int) taskRef { return taskRef{product, push.MsgID(i)} }
	for i := range maxTallied {
		tl.add(ref(i), task.Sent, 1)
	}
	tl.add(ref(maxTallied), task.Sent, 1) // all have something to hand over
	if len(tl.of) != maxTallied+1 || len(tl.take()) != maxTallied+1 {
		t.Fatalf("%d are known", len(tl.of))
	}
	tl.add(ref(0), task.Sent, 1)
	tl.add(ref(maxTallied+1), task.Sent, 1)
	if n := len(tl.of); n > maxTallied || n < maxTallied/2 {
		t.Errorf("%d are known", n)
	}
	if !tl.knows(ref(0)) || tl.knows(ref(1)) || !tl.knows(ref(maxTallied)) {
		t.Error("what was forgotten is not what was used longest ago")
	}
	if got := tl.take(); len(got) != 2 {
		t.Errorf("%d are handed over, want 2", len(got))
	}
	for i := range 2 * maxAway {
		tl.addEventAway(product, push.CursorOwner(i), &wire.Event{Event: wire.Clicked, ID: 0})
	}
	if len(tl.away) != maxAway || len(tl.oldest) != maxAway {
		t.Errorf("%d events are remembered, want %d", len(tl.away), maxAway)
	}
}

func TestTally_OfNobodyCountsNothing(t *testing.T) {
	inWorld(t, oneRoom, func(_ *world, c *Config) { c.Counts = nil }, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		id := w.toAlice()
		w.publish(post{to: toAlice, body: `1`, live: true})
		synctest.Wait()
		d.send(&wire.Event{Event: wire.Displayed, ID: id})
		d.ack()
		if err := w.post(&wire.Event{Event: wire.Displayed, ID: id}); err != nil {
			t.Fatal(err)
		}
		if d.sess.(*session).tasks != nil {
			t.Error("a session keeps what nobody counts")
		}
		d.leave()
		if err := w.post(&wire.Event{Event: wire.Displayed, ID: id}, &wire.Ack{Cursor: d.theCursor()}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(ackSoon)
	})
}
