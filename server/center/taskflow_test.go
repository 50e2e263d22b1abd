package center

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"carillon/server/catalog"
	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/task"
)

func TestTasks_PaceIsKeptAndChanged(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		users := w.names(1200)
		w.run()
		id := w.make(w.upload(users), `"pace":{"per_second":40}`)
		for s := 2; s <= 14; s += 4 { // what is told may be a second old, and batches of each lane go as a whole
			w.pass(4 * time.Second)
			have, _ := w.holding(id, users)
			if low, high := 40*(s-2), 40*(s+3)+4*64; have < low || have > high {
				w.t.Errorf("after %d s %d users have it, want %d to %d", s+2, have, low, high)
			}
		}
		before, _ := w.holding(id, users)
		w.do(ask{method: http.MethodPatch, path: "/v1/tasks/" + id, body: `{"pace":{"per_second":400}}`}).want(w.t, http.StatusOK)
		w.pass(3 * time.Second) // two until it is known everywhere
		if after, _ := w.holding(id, users); after-before < 300 {
			w.t.Errorf("within three seconds of a pace of 400, %d users got it", after-before)
		}
		if took := w.await(id, "completed"); took > 4*time.Second {
			w.t.Errorf("the rest took %v", took)
		}
		w.wantCopies(id, users, 1)
	})
}

func TestTasks_OverATime(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		users := w.names(1000)
		w.run()
		id := w.make(w.upload(users), `"pace":{"over_seconds":120}`)
		if took := w.await(id, "completed"); took < 85*time.Second || took > 125*time.Second { // the last batches of four lanes are begun before the end
			w.t.Errorf("it took %v", took)
		}
		w.wantCounts(id, 1000, 0, 0)
	})
}

func TestTasks_BeginAtTheirTime(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		users := w.names(10)
		w.run()
		start := time.Now().Add(10 * time.Minute).UTC().Format(time.RFC3339)
		id := w.make(w.upload(users), `"start":"`+start+`"`)
		w.pass(9*time.Minute + 59*time.Second)
		w.wantCopies(id, users, 0)
		if took := w.await(id, "completed"); took > 2*time.Second {
			w.t.Errorf("it took %v", took)
		}
		w.wantCopies(id, users, 1)
	})
}

// A list is kept for seven days after it was used last. A task that waits for longer uses it.
func TestTasks_AListWaitsAsLongAsItsTask(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		users := w.names(10)
		const day = 24 * time.Hour
		list := w.upload(users)
		later := w.make(list, `"start":"`+time.Now().Add(20*day).UTC().Format(time.RFC3339)+`"`)
		monthly := w.make(list, `"cron":"0 0 20 * *"`)
		tested := w.make(list, `"test_group":["nobody"]`)
		r := w.run()
		w.await(tested, "paused")
		for range 7 {
			r.stop()
			w.pass(3 * day)
			r = w.run()
			w.pass(2 * time.Second)
		}
		w.await(later, "completed")
		w.wantCopies(later, users, 1)
		w.moved(tested, "resume")
		w.await(tested, "completed")
		if got := w.task(monthly).State; got != "scheduled" {
			w.t.Errorf("the recurring task is %s", got)
		}
	})
}

// Whatever state a task is in, nothing of it is written once its deadline has passed.
func TestTasks_EndAtTheirDeadline(t *testing.T) {
	for _, state := range []string{"awaiting_approval", "scheduled", "running", "paused", "draft"} {
		inTaskWorld(t, func(w *taskWorld) {
			users := w.names(300)
			more := []string{`"deadline":"` + time.Now().Add(20*time.Second).UTC().Format(time.RFC3339) + `"`, `"pace":{"per_second":2}`}
			r := w.run()
			var id string
			switch list := w.upload(users); state {
			case "awaiting_approval":
				id = w.makeOf(append(more[:1], `"to":{"everyone":true}`, `"message":{"body":1}`)...)
			case "scheduled":
				r.stop()
				id = w.make(list, more...)
				w.pass(22 * time.Second)
				w.run()
			case "draft":
				id = w.make(list, append(more, `"draft":true`)...)
				w.pass(22 * time.Second)
				w.moved(id, "resume")
			default:
				id = w.make(list, more...)
				w.pass(2 * time.Second)
				if state == "paused" {
					w.moved(id, "pause")
				}
			}
			w.await(id, "stopped")
			have, _ := w.holding(id, users)
			w.pass(time.Minute)
			if now, _ := w.holding(id, users); now != have {
				w.t.Errorf("%s: %d users had it at the deadline, and %d have it", state, have, now)
			}
			if r := w.task(id).Reason; r != "deadline" {
				w.t.Errorf("%s: it is stopped for %q", state, r)
			}
			if begun := state == "running" || state == "paused"; begun != (have > 0) {
				w.t.Errorf("%s: %d users have it", state, have)
			}
			if state != "awaiting_approval" {
				w.wantCounts(id, have, 0, 0)
			}
		})
	}
}

func TestTasks_MissedOccurrencesComeOnce(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		users := w.names(5)
		id := w.make(w.upload(users), `"cron":"*/2 * * * *"`, `"time_zone":"Asia/Kathmandu"`)
		w.pass(15 * time.Minute) // nobody runs tasks
		w.run()
		w.pass(5 * time.Second)
		occurrences := func() int {
			var page struct{ Tasks []shownTask }
			w.do(ask{path: "/v1/tasks?parent=" + id}).want(w.t, http.StatusOK).decode(w.t, &page)
			for _, o := range page.Tasks {
				w.await(o.ID, "completed")
				w.wantCopies(o.ID, users, 1)
			}
			return len(page.Tasks)
		}
		if n := occurrences(); n != 1 {
			w.t.Errorf("%d occurrences after seven were missed", n)
		}
		w.pass(4 * time.Minute)
		if n := occurrences(); n != 3 {
			w.t.Errorf("%d occurrences four minutes later, want 3", n)
		}
		w.moved(id, "stop")
		w.pass(10 * time.Minute)
		if n := occurrences(); n != 3 {
			w.t.Errorf("%d occurrences after it was stopped", n)
		}
	})
}

func TestTasks_SomebodyElseApproves(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		users := w.names(30)
		list := w.upload(users)
		w.run()
		all := []string{`"to":{"everyone":true}`, `"message":{"body":1}`}
		id := w.makeOf(all...)
		w.pass(5 * time.Second)
		if s := w.task(id).State; s != "awaiting_approval" {
			w.t.Errorf("a task to everyone is %s", s)
		}
		w.move(id, "approve").want(w.t, http.StatusForbidden, "approval_by_maker")
		w.move(id, "resume", w.boss).want(w.t, http.StatusConflict, "task_move")
		w.move(id, "approve", w.boss).want(w.t, http.StatusOK)
		w.await(id, "completed")

		draft := w.makeOf(append(all, `"draft":true`)...) // whoever hands it in does not approve it either
		w.move(draft, "resume", w.boss).want(w.t, http.StatusOK)
		w.move(draft, "approve", w.boss).want(w.t, http.StatusForbidden, "approval_by_maker")
		w.move(draft, "approve").want(w.t, http.StatusOK)

		small := w.make(list)
		w.await(small, "completed")
		p, err := w.catalog.Product(w.t.Context(), product)
		if err != nil {
			w.t.Fatal(err)
		}
		p.Approval = catalog.Approval{Above: 29, EveryoneFree: true}
		if _, err := w.catalog.UpdateProduct(w.t.Context(), p); err != nil {
			w.t.Fatal(err)
		}
		w.pass(time.Minute) // it is known everywhere
		if s := w.task(w.make(list)).State; s != "awaiting_approval" {
			w.t.Errorf("above the product's number a task is %s", s)
		}
		w.await(w.makeOf(all...), "completed")
	})
}

func TestTasks_AStoreThatIsAwayForAWhile(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		users := w.names(300)
		r := w.run()
		id := w.make(w.upload(users), `"pace":{"per_second":60}`)
		w.pass(2 * time.Second)
		r.line.set(func(l *line) { l.fails = 1 << 30 })
		w.pass(20 * time.Second)
		r.line.set(func(l *line) { l.fails = 0 })
		w.await(id, "completed")
		w.wantCopies(id, users, 1)
		w.wantCounts(id, 300, 0, 0)
	})
}

func TestTasks_AListThatIsDeletedFailsWhoNeedsIt(t *testing.T) {
	for _, m := range []string{"", "pause"} {
		inTaskWorld(t, func(w *taskWorld) {
			users := w.names(900)
			w.run()
			list := w.upload(users)
			id := w.make(list, `"pace":{"per_second":20}`)
			w.pass(3 * time.Second)
			if m != "" {
				w.moved(id, m)
			}
			w.do(ask{method: http.MethodDelete, path: "/v1/lists/" + list}).want(w.t, http.StatusNoContent)
			if m != "" {
				w.moved(id, "resume")
			} else { // what was read ahead is written still
				w.do(ask{method: http.MethodPatch, path: "/v1/tasks/" + id, body: `{"pace":null}`}).want(w.t, http.StatusOK)
			}
			w.await(id, "failed", "completed")
			if s := w.task(id); m != "" && s.State != "failed" || s.State == "failed" && s.Reason != "list_not_found" {
				w.t.Errorf("it is %s for %q", s.State, s.Reason)
			}
			w.pass(5 * time.Second)
			have, _ := w.holding(id, users)
			w.wantCounts(id, have, 0, 0)
			w.moved(id, "recall")
			w.await(id, "stopped")
			w.wantCopies(id, users, 0)
			w.wantCounts(id, have, 0, have)
		})
	}
}

func TestTasks_OneSwitchForAll(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		users := w.names(300)
		list := w.upload(users)
		w.run()
		turn := func(off bool) {
			w.do(ask{method: http.MethodPut, path: "/v1/task-switch", body: fmt.Sprintf(`{"off":%v,"reason":"an incident"}`, off)}).want(w.t, http.StatusOK)
		}
		running := w.make(list, `"pace":{"per_second":30}`)
		paused := w.make(list, `"draft":true`)
		w.pass(3 * time.Second)
		turn(true)
		have, _ := w.holding(running, users)
		later := w.make(list)
		w.moved(paused, "resume")
		w.pass(10 * time.Second)
		for _, id := range []string{running, later, paused} {
			if s := w.task(id); s.State != "paused" || s.Reason != "switched_off" {
				w.t.Errorf("switched off, a task is %s for %q", s.State, s.Reason)
			}
		}
		w.do(ask{method: http.MethodPost, path: "/v1/tasks/" + running + "/stop", body: `{"reason":"switched_off"}`}).want(w.t, http.StatusBadRequest, "invalid_request")
		// The switch would resume it: so it is not paused as somebody who asks for that means it.
		w.move(running, "pause").want(w.t, http.StatusConflict, "task_move")
		if n, _ := w.holding(running, users); n != have {
			w.t.Errorf("%d users got it while tasks were switched off", n-have)
		}
		w.wantCopies(later, users, 0)
		turn(false)
		for _, id := range []string{running, later, paused} {
			w.await(id, "completed")
			w.wantCopies(id, users, 1)
			w.wantCounts(id, 300, 0, 0)
		}
	})
}

// A switch that failed in the middle does all of it when it is repeated.
func TestTasks_ASwitchThatFailedIsRepeated(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		users := w.names(250)
		writer := w.run()
		id := w.make(w.upload(users), `"pace":{"per_second":100}`)
		w.pass(1500 * time.Millisecond)
		writer.line.freeze("")
		cut := &line{}
		cfg := w.cfg
		cfg.Saver = heldSaver{cfg.Saver, cut}
		operator := w.newCenter(w.t, cfg)
		operator.key = w.key
		cut.set(func(l *line) { l.fails = 1 })
		off := ask{method: http.MethodPut, path: "/v1/task-switch", body: `{"off":true}`}
		operator.do(off).want(w.t, http.StatusServiceUnavailable)
		operator.do(off).want(w.t, http.StatusOK)
		have, _ := w.holding(id, users)
		writer.line.thaw()
		w.pass(3 * time.Second)
		if n, _ := w.holding(id, users); n != have || n == 0 {
			w.t.Errorf("%d users had it when the switch was answered, and %d have it", have, n)
		}
	})
}

func TestTasks_ACloneIsADraftOfTheSame(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		users := w.names(40)
		w.run()
		id := w.make(w.upload(users), `"name":"sale"`, `"deadline":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"`)
		w.await(id, "completed")
		clone := func() string {
			a := w.do(ask{method: http.MethodPost, path: "/v1/tasks/" + id + "/clone", header: map[string]string{"Idempotency-Key": "c"}})
			var t struct{ ID, State, Name, Deadline string }
			a.want(w.t, http.StatusCreated).decode(w.t, &t)
			if t.State != "draft" || t.Name != "sale" || t.Deadline != "" {
				w.t.Errorf("the clone is %+v", t)
			}
			return t.ID
		}
		other := clone()
		if again := clone(); again != other {
			w.t.Errorf("one key made the clones %s and %s", other, again)
		}
		w.pass(5 * time.Second)
		w.wantCopies(other, users, 0)
		w.moved(other, "resume")
		w.await(other, "completed")
		w.wantCopies(other, users, 1)
	})
}

func TestTasks_ValidateOnlyMakesNothing(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		list := w.upload(w.names(7))
		a := w.do(ask{path: "/v1/tasks", body: `{"to":{"list":"` + list + `"},"message":{"body":{"for":"{{user}}"}},"template":true,"validate_only":true}`})
		var v struct {
			Valid bool
			Users int
			Exact bool
		}
		a.want(w.t, http.StatusOK).decode(w.t, &v)
		if !v.Valid || v.Users != 7 || !v.Exact || !strings.Contains(string(a.body), `"for":"user-0`) {
			w.t.Errorf("got %s", a.body)
		}
		var page struct{ Tasks []shownTask }
		w.do(ask{path: "/v1/tasks"}).want(w.t, http.StatusOK).decode(w.t, &page)
		if len(page.Tasks) != 0 {
			w.t.Errorf("it made %+v", page.Tasks)
		}
	})
}

func TestTasks_TemplatesAreFilledForEachUser(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		w.run()
		a := w.do(ask{path: "/v1/lists", body: "name,user,n\n\"Al \"\"Q\"\"\",alice,1\n,bob,2\n", header: map[string]string{"Content-Type": "text/csv"}})
		var l struct{ ID string }
		a.want(w.t, http.StatusCreated).decode(w.t, &l)
		id := w.makeOf(`"to":{"list":"`+l.ID+`"}`, `"message":{"body":"Dear {{name|friend}}, {{ n }} for {{user}}"}`, `"template":true`, `"test_group":["cathy"]`)
		w.await(id, "paused")
		w.moved(id, "resume")
		w.await(id, "completed")
		for u, want := range map[push.UserID]string{
			"alice": `"Dear Al \"Q\", 1 for alice"`, "bob": `"Dear friend, 2 for bob"`, "cathy": `"Dear friend,  for cathy"`,
		} {
			es := w.own(u)
			if len(es) != 1 || string(es[0].Message.Body) != want {
				w.t.Errorf("%s has %v", u, es)
			}
		}
	})
}

// What was in flight in a room that died nobody can account for, until the devices are counted elsewhere.
func TestTasks_WhatADeadRoomHadInFlightIsUnaccounted(t *testing.T) {
	inTaskWorld(t, func(w *taskWorld) {
		w.run()
		id := w.make(w.upload(w.names(5)))
		w.await(id, "completed")
		dying := task.Life{Room: "r2", Boot: 7}
		if err := w.reg.Join(t.Context(), register.Room{ID: dying.Room, Boot: dying.Boot}); err != nil {
			t.Fatal(err)
		}
		want := func(when string, waiting, inFlight, acknowledged, unaccounted int) {
			t.Helper()
			f := w.task(id).Funnel
			if f.Audience != 5 || f.Waiting != waiting || f.InFlight != inFlight || f.Acknowledged != acknowledged || f.Unaccounted != unaccounted {
				t.Errorf("%s: waiting, in flight, acknowledged, unaccounted of 5 are %d, %d, %d, %d of %d, want %d, %d, %d, %d", when,
					f.Waiting, f.InFlight, f.Acknowledged, f.Unaccounted, f.Audience, waiting, inFlight, acknowledged, unaccounted)
			}
		}
		w.count(id, dying, 3, 1)
		want("while the room lives", 2, 2, 1, 0)
		w.pass(register.LeaseTTL + time.Second)
		want("after it died", 2, 0, 1, 2)
		w.count(id, task.Life{Room: "r1", Boot: 1}, 3, 3)
		want("with three counted elsewhere", 0, 0, 4, 1)
		w.count(id, task.Life{Room: "r1", Boot: 1}, 1, 1)
		want("with all counted elsewhere", 0, 0, 5, 0)
	})
}

// count adds to what a room counted of a task.
func (w *taskWorld) count(id string, of task.Life, sent, acknowledged int64) {
	w.t.Helper()
	n, err := push.ParseMsgID(id)
	if err != nil {
		w.t.Fatal(err)
	}
	var c task.Counts
	c[task.Sent], c[task.Acknowledged] = sent, acknowledged
	if err := w.tasks.Count(w.t.Context(), []task.Counted{{Product: product, Task: n, Life: of, Counts: c}}); err != nil {
		w.t.Fatal(err)
	}
}
