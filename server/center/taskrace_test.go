package center

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

// holding returns users who have a task's message, and those who are told that it was taken back.
func (w *taskWorld) holding(id string, users []string) (have, told int) {
	w.t.Helper()
	for _, u := range users {
		for _, e := range w.own(push.UserID(u)) {
			switch {
			case e.ID.String() != id:
			case e.Kind == saver.EntryMessage:
				have++
			default:
				told++
			}
		}
	}
	return have, told
}

// Whatever the center that writes has in its hands when somebody pauses, stops or recalls the task: once that is answered nobody gets anything more.
func TestTasks_NothingIsWrittenAfterTheAnswer(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 7))
		m := []string{"pause", "stop", "recall", "switch"}[seed%4]
		inTaskWorld(t, func(w *taskWorld) {
			users := w.names(250)
			r := w.run()
			r.line.set(func(l *line) { l.slow = 15 * time.Millisecond })
			more := []string{}
			if rng.IntN(2) == 0 {
				more = append(more, `"pace":{"per_second":200}`)
			}
			id := w.make(w.upload(users), more...)
			w.pass(time.Duration(100+rng.IntN(700)) * time.Millisecond)
			r.line.freeze("batches")
			w.pass(time.Duration(rng.IntN(200)) * time.Millisecond) // until it stands
			state := w.task(id).State
			if m == "switch" {
				w.do(ask{method: http.MethodPut, path: "/v1/task-switch", body: `{"off":true}`}).want(t, http.StatusOK)
			} else if a := w.move(id, m); a.status != http.StatusOK {
				if state == "running" {
					w.t.Errorf("seed %d: %s: %d %s", seed, m, a.status, a.body)
				}
				return
			}
			before, _ := w.holding(id, users)
			r.line.thaw()
			w.pass(10 * time.Second)
			if m == "recall" {
				w.await(id, "stopped")
			}
			after, told := w.holding(id, users)
			if m == "recall" {
				if after != 0 || told != before {
					w.t.Errorf("seed %d: %d had it when the recall was answered, %d are told of it, and %d have it", seed, before, told, after)
				}
				w.wantCounts(id, before, 0, before)
				return
			}
			if after != before {
				w.t.Errorf("seed %d: %d users got it after %s was answered", seed, after-before, m)
			}
			w.wantCounts(id, after, 0, 0)
			switch {
			case m == "pause":
				w.moved(id, "resume")
			case m == "switch" && w.task(id).State == "paused":
				w.do(ask{method: http.MethodPut, path: "/v1/task-switch", body: `{"off":false}`}).want(t, http.StatusOK)
			default:
				return
			}
			w.await(id, "completed")
			w.wantCopies(id, users, 1)
			w.wantCounts(id, len(users), 0, 0)
		})
	}
}

// A center that stands still for longer than its lease, as one that was stopped by a signal, and goes on later in the middle of a call.
func TestTasks_AFrozenCenterThatGoesOnHarmsNothing(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 8))
		inTaskWorld(t, func(w *taskWorld) {
			users := w.names(250)
			one := w.run()
			one.line.set(func(l *line) { l.slow = 15 * time.Millisecond })
			id := w.make(w.upload(users), `"test_group":`+encoded(w.t, users[:20]))
			if rng.IntN(2) == 0 {
				w.await(id, "paused")
				w.moved(id, "resume")
			}
			w.pass(time.Duration(rng.IntN(900)) * time.Millisecond)
			one.line.freeze("")
			two := w.run()
			two.line.set(func(l *line) { l.slow = 40 * time.Millisecond })
			w.pass(taskLease + time.Duration(rng.IntN(2000))*time.Millisecond)
			one.line.thaw()
			w.await(id, "completed", "paused")
			if w.task(id).State == "paused" {
				w.moved(id, "resume")
			}
			w.await(id, "completed")
			w.pass(10 * time.Second)
			w.wantCopies(id, users, 1)
			w.wantCounts(id, len(users), 20, 0)
			if w.t.Failed() {
				w.t.Logf("seed %d", seed)
			}
		})
	}
}

// Operators who do whatever is allowed, two centers that run tasks, calls that fail or whose answers are lost: in the end each user has it once or not at all,
// and what is told of it is so.
func TestTasks_OperatorsAndFaultsAtRandom(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 9))
		inTaskWorld(t, func(w *taskWorld) {
			users := w.names(250)
			a, b := w.run(), w.run()
			for _, r := range []*taskRunner{a, b} {
				r.line.set(func(l *line) { l.slow = time.Duration(5+rng.IntN(40)) * time.Millisecond })
			}
			id := w.make(w.upload(users), `"pace":{"per_second":`+fmt.Sprint(30+rng.IntN(300))+`}`)
			var did []string
			for range 12 {
				w.pass(time.Duration(rng.IntN(1500)) * time.Millisecond)
				r := []*taskRunner{a, b}[rng.IntN(2)]
				switch n := rng.IntN(12); {
				case n < 3:
					did = append(did, fmt.Sprint("pause ", w.move(id, "pause").status))
				case n < 6:
					did = append(did, fmt.Sprint("resume ", w.move(id, "resume").status))
				case n == 6 && rng.IntN(3) == 0:
					did = append(did, fmt.Sprint("stop ", w.move(id, "stop").status))
				case n == 7 && rng.IntN(3) == 0:
					did = append(did, fmt.Sprint("recall ", w.move(id, "recall").status))
				case n == 8:
					did = append(did, "fails")
					r.line.set(func(l *line) { l.fails = rng.IntN(8) })
				case n == 9:
					did = append(did, "loses")
					r.line.set(func(l *line) { l.loses = rng.IntN(8) })
				case n == 10:
					did = append(did, "freezes")
					r.line.freeze("")
				default:
					did = append(did, "thaws")
					r.line.thaw()
				}
			}
			for _, r := range []*taskRunner{a, b} {
				r.line.thaw()
				r.line.set(func(l *line) { l.fails, l.loses = 0, 0 })
			}
			w.pass(30 * time.Second)
			switch w.task(id).State {
			case "paused":
				w.moved(id, "resume")
				fallthrough
			case "running", "scheduled":
				w.await(id, "completed")
			case "recalling":
				w.await(id, "stopped")
			}
			w.pass(10 * time.Second)
			shown := w.task(id)
			have, told := w.holding(id, users)
			if n := w.copies(id, users); n[0]+n[1] != len(users) {
				w.t.Errorf("how many users have it how often: %v", n)
			}
			switch {
			case shown.State == "completed":
				w.wantCopies(id, users, 1)
				w.wantCounts(id, len(users), 0, 0)
			case told > 0 || shown.Progress.TakenBack > 0:
				if have != 0 {
					w.t.Errorf("it was recalled, and %d users have it", have)
				}
				w.wantCounts(id, told, 0, told)
			default:
				w.wantCounts(id, have, 0, 0)
			}
			if w.t.Failed() {
				w.t.Logf("seed %d: %s; it is %s", seed, strings.Join(did, ", "), shown.State)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// The same request fifty times at once at two centers makes one task.
func TestTasks_OneKeyMakesOneTask(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		list := w.upload(w.names(10))
		other := w.newCenter(w.t, w.cfg)
		other.key = w.key
		var all sync.WaitGroup
		var mu sync.Mutex
		ids := make(map[string]int)
		for i := range 50 {
			all.Go(func() {
				g := w.gateway
				if i%2 == 0 {
					g = other
				}
				a := g.do(ask{path: "/v1/tasks", body: `{"to":{"list":"` + list + `"},"message":{"body":1}}`, header: map[string]string{"Idempotency-Key": "k"}})
				var t shownTask
				a.want(w.t, http.StatusCreated).decode(w.t, &t)
				mu.Lock()
				defer mu.Unlock()
				ids[t.ID]++
			})
		}
		all.Wait()
		if len(ids) != 1 {
			w.t.Errorf("%d tasks were made: %v", len(ids), ids)
		}
		w.do(ask{path: "/v1/tasks", body: `{"to":{"list":"` + list + `"},"message":{"body":2}}`, header: map[string]string{"Idempotency-Key": "k"}}).
			want(w.t, http.StatusUnprocessableEntity, "idempotency_key_reused")
	})
}

// Whoever stops a task may die, or stand still, before the store refuses what is on its way: what is counted in the end is what was written all the same.
func TestTasks_AMoveThatIsCutOffIsFinishedByOthers(t *testing.T) {
	for _, m := range []string{"stop", "pause"} {
		inTaskWorld(t, func(w *taskWorld) {
			users := w.names(250)
			writer := w.run()
			id := w.make(w.upload(users), `"pace":{"per_second":100}`)
			w.pass(1500 * time.Millisecond)
			writer.line.freeze("batches")
			w.pass(time.Second)
			operator := w.run()
			operator.line.freeze("fence")
			answered := make(chan struct{})
			go func() {
				defer close(answered)
				operator.do(ask{method: http.MethodPost, path: "/v1/tasks/" + id + "/" + m})
			}()
			w.run()
			w.pass(3 * time.Second)
			writer.line.thaw()
			w.pass(3 * time.Second)
			have, _ := w.holding(id, users)
			w.wantCounts(id, have, 0, 0)
			operator.line.thaw()
			<-answered
			w.pass(3 * time.Second)
			if now, _ := w.holding(id, users); now != have || have == 0 || have == len(users) {
				w.t.Errorf("%d users have it, then %d of %d", have, now, len(users))
			}
			w.wantCounts(id, have, 0, 0)
		})
	}
}

// The simulation found that such a recall was tried for ever.
func TestTasks_WhatNeverBeganIsTakenBack(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		users := w.names(10)
		id := w.make(w.upload(users))
		w.moved(id, "pause")
		w.moved(id, "recall")
		w.run()
		w.await(id, "stopped")
		w.wantCopies(id, users, 0)
		w.wantCounts(id, 0, 0, 0)
	})
}
