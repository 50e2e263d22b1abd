package center

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/task"
)

// killed lives through a script again and again, and has the center that runs tasks die at its first call of a store, its second, and so on until it is
// done before it dies: on the way there, or when the store has done what was asked. Another one starts when the first is dead.
// Calls take no time, or so long that checkpoints come between.
func killed(t *testing.T, script func(w *taskWorld)) {
	t.Helper()
	for _, slow := range []time.Duration{0, 300 * time.Millisecond} {
		at := 1
		for died := true; died; at += momentsApart {
			inTaskWorld(t, func(w *taskWorld) { died = killedAt(w, at, slow, script) })
		}
		t.Logf("calls take %v: %d moments to die at", 2*slow, at-1-momentsApart)
		if at < 12 {
			t.Errorf("the center died at %d moments only", at-1-momentsApart)
		}
	}
}

// killedAt reports whether the center died before the script was done.
func killedAt(w *taskWorld, at int, slow time.Duration, script func(w *taskWorld)) bool {
	defer func() {
		if w.t.Failed() {
			w.t.Logf("the center died at moment %d, with calls of %v", at, 2*slow)
		}
	}()
	w.slow = slow
	first := w.run()
	first.line.set(func(l *line) { l.killAt, l.slow = at, slow })
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		select {
		case <-first.done:
			w.run()
		case <-done:
		}
	}()
	defer func() { close(done); <-over }()
	script(w)
	return first.line.isDead()
}

func TestTasks_AListSurvivesItsCenter(t *testing.T) {
	killed(t, func(w *taskWorld) {
		users := w.names(300)
		id := w.make(w.upload(users))
		w.await(id, "completed")
		w.wantCopies(id, users, 1)
		w.wantCounts(id, 300, 0, 0)
	})
}

func TestTasks_APacedListSurvivesItsCenter(t *testing.T) {
	killed(t, func(w *taskWorld) {
		users := w.names(300)
		id := w.make(w.upload(users), `"pace":{"per_second":60}`)
		w.await(id, "completed")
		w.wantCopies(id, users, 1)
		w.wantCounts(id, 300, 0, 0)
	})
}

func TestTasks_ATestGroupSurvivesItsCenter(t *testing.T) {
	killed(t, func(w *taskWorld) {
		users := w.names(200)
		id := w.make(w.upload(users), `"test_group":`+encoded(w.t, users[:70]))
		w.await(id, "paused")
		if r := w.task(id).Reason; r != "test_group" {
			w.t.Errorf("it is paused for %q", r)
		}
		w.wantCopies(id, users[:70], 1)
		w.wantCopies(id, users[70:], 0)
		w.wantCounts(id, 70, 0, 0)
		w.moved(id, "resume")
		w.await(id, "completed")
		w.wantCopies(id, users, 1)
		w.wantCounts(id, 200, 70, 0)
	})
}

func TestTasks_NamedUsersAndTemplatesSurviveTheirCenter(t *testing.T) {
	killed(t, func(w *taskWorld) {
		users := w.names(100)
		id := w.makeOf(`"to":{"users":`+encoded(w.t, users)+`}`, `"message":{"body":{"to":"{{user}}"}}`, `"template":true`)
		w.await(id, "completed")
		w.wantCopies(id, users, 1)
		w.wantCounts(id, 100, 0, 0)
		for _, u := range users {
			if es := w.own(push.UserID(u)); string(es[0].Message.Body) != `{"to":"`+u+`"}` {
				w.t.Fatalf("%s got %s", u, es[0].Message.Body)
			}
		}
	})
}

func TestTasks_EveryoneSurvivesItsCenter(t *testing.T) {
	killed(t, func(w *taskWorld) {
		id := w.makeOf(`"to":{"everyone":true}`, `"message":{"body":1}`)
		w.move(id, "approve", w.boss).want(w.t, http.StatusOK)
		w.await(id, "completed")
		for i := range 40 { // of every shard
			u := push.UserID(fmt.Sprint("user", i))
			if es := w.slot(u, push.Common); len(es) != 1 {
				w.t.Fatalf("the common slot of %s has %d entries", u, len(es))
			}
		}
	})
}

func TestTasks_ARecallSurvivesItsCenter(t *testing.T) {
	killed(t, func(w *taskWorld) {
		users := w.names(200)
		id := w.make(w.upload(users), `"test_group":`+encoded(w.t, users[:70]))
		w.await(id, "paused")
		w.moved(id, "resume")
		w.await(id, "completed")
		w.moved(id, "recall")
		w.await(id, "stopped")
		w.wantCopies(id, users, 0)
		w.wantCounts(id, 200, 70, 200)
	})
}

// What is not persistent is handed to those who are online, and to nobody twice, whatever dies.
func TestTasks_WhatIsNotPersistentComesAtMostOnce(t *testing.T) {
	killed(t, func(w *taskWorld) {
		users := w.names(200)
		for _, u := range users {
			w.connect(push.UserID(u), "phone")
		}
		id := w.makeOf(`"to":{"list":"`+w.upload(users)+`"}`, `"message":{"body":1,"persistent":false}`, `"test_group":`+encoded(w.t, users[:70]))
		w.await(id, "paused")
		w.moved(id, "resume")
		w.await(id, "completed")
		got := make(map[push.UserID]int)
		for _, d := range w.rooms.take() {
			for _, u := range d.Users {
				got[u.User]++
			}
		}
		twice := 0
		for _, n := range got {
			if n > 1 {
				twice++
			}
		}
		if twice > 0 {
			w.t.Errorf("%d users got it more than once", twice)
		}
		if missing := len(users) - len(got); missing > 70 { // what was reserved and not handed over when the center died
			w.t.Errorf("%d users of %d did not get it", missing, len(users))
		}
		w.wantCounts(id, 200, 70, 0)
	})
}

func TestTasks_ARecurringTaskSurvivesItsCenter(t *testing.T) {
	killed(t, func(w *taskWorld) {
		users := w.names(20)
		id := w.make(w.upload(users), `"cron":"* * * * *"`)
		w.pass(3*time.Minute + 10*time.Second)
		var page struct{ Tasks []shownTask }
		w.do(ask{path: "/v1/tasks?parent=" + id}).want(w.t, http.StatusOK).decode(w.t, &page)
		if n := len(page.Tasks); n != 3 {
			w.t.Errorf("%d occurrences in three minutes", n)
		}
		for _, o := range page.Tasks {
			w.await(o.ID, "completed")
			w.wantCopies(o.ID, users, 1)
		}
		w.moved(id, "stop")
	})
}

// A task that is stopped tells how many users have its message, also where whoever wrote it died before it could say so.
func TestTasks_AStoppedTaskCountsWhatWasWritten(t *testing.T) {
	for _, m := range []string{"stop", "recall"} {
		killed(t, func(w *taskWorld) {
			users := w.names(300)
			id := w.make(w.upload(users), `"pace":{"per_second":250}`)
			w.pass(time.Second + 8*w.slow)
			if s := w.task(id).State; s == "completed" || m == "recall" && s != "running" {
				return // the other one was done before, or nobody has begun
			}
			w.moved(id, m)
			w.await(id, "stopped")
			w.pass(30 * time.Second)
			have, told := w.holding(id, users)
			if m == "stop" {
				w.wantCounts(id, have, 0, 0)
				return
			}
			if have != 0 {
				w.t.Errorf("%d users still have it", have)
			}
			w.wantCounts(id, told, 0, told)
		})
	}
}

func TestTasks_AStoppedTestGroupIsCounted(t *testing.T) {
	killed(t, func(w *taskWorld) {
		users := w.names(200)
		id := w.make(w.upload(users), `"test_group":`+encoded(w.t, users[:130]))
		w.pass(600*time.Millisecond + 12*w.slow)
		w.moved(id, "stop")
		w.pass(30 * time.Second)
		have, _ := w.holding(id, users)
		w.wantCounts(id, have, 0, 0)
		w.moved(id, "recall")
		w.await(id, "stopped")
		w.pass(30 * time.Second)
		w.wantCopies(id, users, 0)
		w.wantCounts(id, have, 0, have)
	})
}

// A lease that was taken before the clock was set back does not keep others from the task until the clock says again what it said then.
func TestTasks_AClockThatWasSetBackHoldsNothingUp(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		users := w.names(100)
		one := w.run()
		one.line.set(func(l *line) { l.killAt = 12 })
		id := w.make(w.upload(users))
		<-one.done
		n, err := push.ParseMsgID(id)
		if err != nil {
			w.t.Fatal(err)
		}
		_, err = w.tasks.Update(w.t.Context(), product, n, func(t *task.Task, now push.MilliTime) error {
			if t.State != task.Running || t.Run.Holder == "" {
				w.t.Errorf("it is %s, held by %q", t.State, t.Run.Holder)
			}
			t.Run.Until = now.Add(time.Hour)
			t.SetWake()
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
		w.run()
		if took := w.await(id, "completed"); took > 2*taskLease {
			w.t.Errorf("it took %v", took)
		}
		w.wantCopies(id, users, 1)
		w.wantCounts(id, 100, 0, 0)
	})
}
