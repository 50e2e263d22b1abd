package tasktest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/task"
)

func taskIsFound(t *testing.T, h *harness) {
	for _, given := range []task.Task{sample(shop, 1<<63-1), {Product: shop, ID: 1, State: task.Draft}} {
		given.Revision, given.Created = 99, 99 // the store's to say
		made, repeated, err := h.Store.Create(h.ctx, given, task.Key{})
		if err != nil || repeated {
			t.Fatalf("Create: %v, repeated %v", err, repeated)
		}
		given.Revision, given.Created = 1, h.Now()
		want(t, "made", made, given)
		want(t, "found", h.task(shop, given.ID), given)
	}
	_, err := h.Store.Task(h.ctx, shop, 2)
	wantNotFound(t, "a task that is not there", err)

	spaced := task.Task{Product: shop, ID: 3, State: task.Draft, Spec: task.Spec{Message: json.RawMessage(" { \"a\" : [ 1 ] } ")}}
	if _, _, err := h.Store.Create(h.ctx, spaced, task.Key{}); err != nil {
		t.Fatal(err)
	}
	want(t, "a message with white space", string(h.task(shop, 3).Message), `{"a":[1]}`)
	spaced.ID, spaced.Message = 4, json.RawMessage(`{"a"`)
	_, _, err = h.Store.Create(h.ctx, spaced, task.Key{})
	wantError(t, "a message that is no JSON", err, push.KindInternal, "bad_record")
}

func madeOnce(t *testing.T, h *harness) {
	given := sample(shop, 1)
	first, _, err := h.Store.Create(h.ctx, given, task.Key{})
	if err != nil {
		t.Fatal(err)
	}
	h.Elapse(time.Minute)
	again, repeated, err := h.Store.Create(h.ctx, given, task.Key{})
	if err != nil || repeated {
		t.Errorf("the same again: %v, repeated %v", err, repeated)
	}
	want(t, "made again", again, first)
	want(t, "found", h.task(shop, 1), first)

	given.Name = "another"
	_, _, err = h.Store.Create(h.ctx, given, task.Key{Name: "k"})
	wantError(t, "another of that id", err, push.KindConflict, "task_exists")
	want(t, "found", h.task(shop, 1), first)
	given.ID = 2
	if _, repeated, err := h.Store.Create(h.ctx, given, task.Key{Name: "k"}); err != nil || repeated {
		t.Errorf("a key that made nothing: %v, repeated %v", err, repeated)
	}

	given = sample(shop, 1)
	h.update(shop, 1, func(t *task.Task) { t.Run.Written++ })
	_, _, err = h.Store.Create(h.ctx, given, task.Key{})
	wantError(t, "one that went on since", err, push.KindConflict, "task_exists")
}

func keyMakesOnce(t *testing.T, h *harness) {
	key, other := task.Key{Name: "order-7", Digest: [32]byte{1}}, task.Key{Name: "order-7", Digest: [32]byte{1, 31: 1}}
	first, repeated, err := h.Store.Create(h.ctx, sample(shop, 1), key)
	if err != nil || repeated {
		t.Fatalf("Create: %v, repeated %v", err, repeated)
	}
	h.update(shop, 1, func(t *task.Task) { t.State = task.Stopped })
	h.Elapse(task.KeyKept - time.Millisecond)
	again, repeated, err := h.Store.Create(h.ctx, sample(shop, 2), key)
	if err != nil || !repeated {
		t.Errorf("with the same key: %v, repeated %v", err, repeated)
	}
	want(t, "the task as it was made", again, first)
	_, err = h.Store.Task(h.ctx, shop, 2)
	wantNotFound(t, "a second task", err)
	_, _, err = h.Store.Create(h.ctx, sample(shop, 2), other)
	wantError(t, "with another digest", err, push.KindKeyReused, "idempotency_key_reused")
	_, err = h.Store.Task(h.ctx, shop, 2)
	wantNotFound(t, "a task of another digest", err)

	h.Elapse(time.Millisecond)
	if _, repeated, err = h.Store.Create(h.ctx, sample(shop, 2), other); err != nil || repeated {
		t.Errorf("after KeyKept: %v, repeated %v", err, repeated)
	}
	h.sweep() // of what the key stood for before
	if again, repeated, err = h.Store.Create(h.ctx, sample(shop, 3), other); err != nil || !repeated || again.ID != 2 {
		t.Errorf("with the new key: %d, %v, repeated %v", again.ID, err, repeated)
	}
	h.Elapse(task.KeyKept)
	h.sweep()
	if _, repeated, err = h.Store.Create(h.ctx, sample(shop, 3), key); err != nil || repeated {
		t.Errorf("after a sweep: %v, repeated %v", err, repeated)
	}
}

func keysBelong(t *testing.T, h *harness) {
	id := push.MsgID(0)
	for _, p := range hostile {
		for _, name := range []string{"a", "a:1", "{", "}", "\x00", "1"} {
			id++
			if _, repeated, err := h.Store.Create(h.ctx, sample(p, id), task.Key{Name: name}); err != nil || repeated {
				t.Errorf("the key %q of %q: %v, repeated %v", name, p, err, repeated)
			}
		}
	}
}

func raceToCreate(t *testing.T, h *harness) {
	const n = 16
	var wg sync.WaitGroup
	ids := make([]push.MsgID, n)
	var made atomic.Int64
	for i := range n {
		wg.Go(func() {
			got, repeated, err := h.Store.Create(h.ctx, sample(shop, push.MsgID(i+1)), task.Key{Name: "k"})
			if err != nil {
				t.Errorf("Create: %v", err)
				return
			}
			if !repeated {
				made.Add(1)
			}
			ids[i] = got.ID
		})
	}
	wg.Wait()
	page, err := h.Store.Tasks(h.ctx, task.Query{Product: shop, Limit: n})
	if err != nil || len(page.Tasks) != 1 || made.Load() != 1 {
		t.Fatalf("there are %d tasks (%v), %d were made, want one", len(page.Tasks), err, made.Load())
	}
	if slices.ContainsFunc(ids, func(id push.MsgID) bool { return id != page.Tasks[0].ID }) {
		t.Errorf("told %v, made %d", ids, page.Tasks[0].ID)
	}
}

func updateStores(t *testing.T, h *harness) {
	made := h.create(shop, 1, task.Running)
	h.Elapse(time.Second)
	for revision := int64(2); revision < 5; revision++ {
		got, err := h.Store.Update(h.ctx, shop, 1, func(u *task.Task, now push.MilliTime) error {
			if now != h.Now() || u.Revision != revision-1 {
				t.Errorf("change got revision %d at %d, want %d at %d", u.Revision, now, revision-1, h.Now())
			}
			u.Run.Written += 64
			u.Run.Next = task.Progress{uint32(revision)}
			u.Product, u.ID, u.Revision, u.Created = game, 77, 1000, 1 // which are the store's
			return nil
		})
		if err != nil {
			t.Fatalf("Update: %v", err)
		}
		made.Revision, made.Run.Written, made.Run.Next = revision, 64*(revision-1), task.Progress{uint32(revision)}
		want(t, "updated", got, made)
		want(t, "found", h.task(shop, 1), made)
	}
	_, err := h.Store.Update(h.ctx, shop, 2, func(*task.Task, push.MilliTime) error {
		t.Error("change was called for a task that is not there")
		return nil
	})
	wantNotFound(t, "a task that is not there", err)
}

func updateRefrains(t *testing.T, h *harness) {
	made := h.create(shop, 1, task.Running)
	got, err := h.Store.Update(h.ctx, shop, 1, func(u *task.Task, _ push.MilliTime) error {
		u.Name = "changed"
		return task.ErrUnchanged
	})
	if err != nil {
		t.Errorf("ErrUnchanged: %v", err)
	}
	want(t, "with ErrUnchanged", got, made)
	mine := errors.New("mine")
	_, err = h.Store.Update(h.ctx, shop, 1, func(u *task.Task, _ push.MilliTime) error {
		u.Name = "changed"
		return mine
	})
	want(t, "an error of change", err, mine)
	_, err = h.Store.Update(h.ctx, shop, 1, func(u *task.Task, now push.MilliTime) error { return u.Do(task.Begin, nil, "", now) })
	wantError(t, "a move that is not allowed", err, push.KindConflict, "task_move")
	want(t, "found", h.task(shop, 1), made)
}

func updateBeginsAgain(t *testing.T, h *harness) {
	h.create(shop, 1, task.Running)
	calls := 0
	got, err := h.Store.Update(h.ctx, shop, 1, func(u *task.Task, _ push.MilliTime) error {
		if calls++; calls <= 2 { // somebody else is faster
			h.update(shop, 1, func(o *task.Task) { o.Run.Devices += 10 })
		}
		u.Run.Written++
		return nil
	})
	if err != nil || calls != 3 {
		t.Fatalf("Update: %v, change was called %d times, want 3", err, calls)
	}
	if got.Run.Written != 1 || got.Run.Devices != 20 || got.Revision != 4 {
		t.Errorf("written %d, devices %d, revision %d; want 1, 20, 4", got.Run.Written, got.Run.Devices, got.Revision)
	}
	want(t, "found", h.task(shop, 1), got)

	h.create(shop, 2, task.Stopped)
	_, err = h.Store.Update(h.ctx, shop, 2, func(u *task.Task, _ push.MilliTime) error {
		if there, err := h.Store.Delete(h.ctx, shop, 2); !there || err != nil {
			return errors.New("change was called again for a task that was deleted")
		}
		return nil
	})
	wantNotFound(t, "a task that was deleted meanwhile", err)
	_, err = h.Store.Task(h.ctx, shop, 2)
	wantNotFound(t, "it afterwards", err)
}

func raceToUpdate(t *testing.T, h *harness) {
	h.create(shop, 1, task.Running)
	const writers, each = 4, 10
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				if _, err := h.Store.Update(h.ctx, shop, 1, func(u *task.Task, _ push.MilliTime) error {
					u.Run.Written++
					return nil
				}); err != nil {
					t.Errorf("Update: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if got := h.task(shop, 1); got.Run.Written != writers*each || got.Revision != writers*each+1 {
		t.Errorf("written %d, revision %d, want %d and one more", got.Run.Written, got.Revision, writers*each)
	}
}

func wakes(at push.MilliTime) func(*task.Task) { return func(t *task.Task) { t.Wake = at } }

func dueInOrder(t *testing.T, h *harness) {
	now := h.Now()
	h.create(shop, 5, task.Scheduled, wakes(now))
	h.create(game, 3, task.Running, wakes(now-10))
	h.create("a:1", 4, task.Scheduled, wakes(1))
	h.create("{}\x00", 40, task.Scheduled, wakes(now-10))
	h.create(shop, 6, task.Scheduled, wakes(now+1))
	h.create(shop, 7, task.Paused)
	all := []task.Ref{{Product: "a:1", ID: 4}, {Product: game, ID: 3}, {Product: "{}\x00", ID: 40}, {Product: shop, ID: 5}}
	want(t, "due", h.due(10), all)
	want(t, "two that are due", h.due(2), all[:2])
	if got := h.due(0); len(got) != 0 {
		t.Errorf("none of those that are due: got %v", got)
	}
	h.Elapse(time.Millisecond)
	want(t, "a moment later", h.due(10), append(all, task.Ref{Product: shop, ID: 6}))
}

func dueFollows(t *testing.T, h *harness) {
	now := h.Now()
	h.create(shop, 1, task.Scheduled, wakes(now))
	h.create(shop, 2, task.Scheduled, wakes(now))
	h.update(shop, 1, wakes(now+1000))
	want(t, "one is put off", h.due(10), []task.Ref{{Product: shop, ID: 2}})
	h.update(shop, 2, wakes(0))
	if got := h.due(10); len(got) != 0 {
		t.Errorf("nobody has to look: got %v", got)
	}
	h.update(shop, 2, wakes(5))
	h.Elapse(time.Second)
	want(t, "both again", h.due(10), []task.Ref{{Product: shop, ID: 2}, {Product: shop, ID: 1}})
	h.update(shop, 2, func(t *task.Task) { t.State = task.Stopped })
	if there, err := h.Store.Delete(h.ctx, shop, 2); !there || err != nil {
		t.Fatalf("Delete: %v, %v", there, err)
	}
	want(t, "one is gone", h.due(10), []task.Ref{{Product: shop, ID: 1}})
}

// leases has two centers take the same task, one after the other's lease has ended.
func leases(t *testing.T, h *harness) {
	h.create(shop, 1, task.Scheduled, wakes(1))
	take := func(who string) (task.Task, error) {
		return h.Store.Update(h.ctx, shop, 1, func(u *task.Task, now push.MilliTime) error {
			if u.Run.Until > now && u.Run.Holder != who {
				return task.ErrUnchanged
			}
			if u.State == task.Scheduled {
				if err := u.Do(task.Begin, nil, "", now); err != nil {
					return err
				}
			}
			u.Run.Holder, u.Run.Until = who, now.Add(10*time.Second)
			u.Run.Token++
			u.SetWake()
			return nil
		})
	}
	a, err := take("a")
	if err != nil || a.Run.Holder != "a" || a.Run.Until != h.Now().Add(10*time.Second) {
		t.Fatalf("the first: %+v, %v", a.Run, err)
	}
	if due := h.due(1); len(due) != 0 {
		t.Errorf("under a lease: %v is due", due)
	}
	h.Elapse(10*time.Second - time.Millisecond)
	if b, err := take("b"); err != nil || b.Run.Holder != "a" {
		t.Errorf("before the lease ends: held by %s (%v)", b.Run.Holder, err)
	}
	h.Elapse(time.Millisecond)
	want(t, "due after the lease", h.due(1), []task.Ref{{Product: shop, ID: 1}})
	if b, err := take("b"); err != nil || b.Run.Holder != "b" || b.Run.Token != a.Run.Token+1 {
		t.Errorf("after the lease: held by %s (%v), token %d", b.Run.Holder, err, b.Run.Token)
	}
}

// walk reads all pages, and returns the ids in their order and how many pages there were.
func (h *harness) walk(q task.Query) (ids []push.MsgID, pages int) {
	h.t.Helper()
	for {
		page, err := h.Store.Tasks(h.ctx, q)
		if err != nil {
			h.t.Fatalf("Tasks: %v", err)
		}
		if len(page.Tasks) > q.Limit {
			h.t.Errorf("a page of %d tasks, the limit is %d", len(page.Tasks), q.Limit)
		}
		for _, one := range page.Tasks {
			ids = append(ids, one.ID)
		}
		pages++
		if page.Before == 0 {
			return ids, pages
		}
		if q.Before != 0 && page.Before >= q.Before {
			h.t.Fatalf("a page before %d goes on before %d", q.Before, page.Before)
		}
		q.Before = page.Before
	}
}

func tasksInPages(t *testing.T, h *harness) {
	ids := []push.MsgID{9, 100, 11, 1<<63 - 1, 1, 1 << 53, 1<<53 + 1}
	for _, id := range ids {
		h.create(shop, id, task.Draft)
	}
	h.create(game, 50, task.Draft)
	slices.Sort(ids)
	slices.Reverse(ids)
	for limit, pages := range map[int]int{1: 7, 3: 3, 7: 1, task.MaxPage: 1} {
		got, n := h.walk(task.Query{Product: shop, Limit: limit})
		want(t, fmt.Sprintf("in pages of %d", limit), got, ids)
		want(t, fmt.Sprintf("pages of %d", limit), n, pages)
	}
	got, _ := h.walk(task.Query{Product: shop, Limit: 3, Before: 100})
	want(t, "below 100", got, []push.MsgID{11, 9, 1})
	got, _ = h.walk(task.Query{Product: shop, Limit: 3, Before: 1})
	want(t, "below all", len(got), 0)
	page, err := h.Store.Tasks(h.ctx, task.Query{Product: shop, Limit: 1})
	if err != nil || len(page.Tasks) != 1 {
		t.Fatal(err)
	}
	want(t, "a task in a page", page.Tasks[0], h.task(shop, 1<<63-1))
	for _, limit := range []int{-1, 0, task.MaxPage + 1} {
		_, err := h.Store.Tasks(h.ctx, task.Query{Product: shop, Limit: limit})
		wantError(t, fmt.Sprintf("a page of %d", limit), err, push.KindInvalid, "bad_page")
	}
}

func tasksFiltered(t *testing.T, h *harness) {
	for i := push.MsgID(1); i <= 12; i++ {
		h.create(shop, i, task.States()[i%3], func(t *task.Task) { t.Parent = i % 2 * 100 })
	}
	for _, test := range []struct {
		q    task.Query
		want []push.MsgID
	}{
		{task.Query{States: []task.State{task.Draft}}, []push.MsgID{12, 9, 6, 3}},
		{task.Query{States: []task.State{task.Draft, task.Scheduled}}, []push.MsgID{12, 11, 9, 8, 6, 5, 3, 2}},
		{task.Query{Parent: 100}, []push.MsgID{11, 9, 7, 5, 3, 1}},
		{task.Query{Parent: 100, States: []task.State{task.Draft}}, []push.MsgID{9, 3}},
		{task.Query{Parent: 100, States: []task.State{task.Draft}, Before: 9}, []push.MsgID{3}},
		{task.Query{States: []task.State{task.Failed}}, nil},
		{task.Query{Parent: 7}, nil},
	} {
		for limit := 1; limit < 5; limit++ {
			test.q.Product, test.q.Limit = shop, limit
			got, _ := h.walk(test.q)
			want(t, fmt.Sprintf("%+v", test.q), got, test.want)
		}
	}
	h.update(shop, 12, func(t *task.Task) { t.State = task.Failed })
	got, _ := h.walk(task.Query{Product: shop, States: []task.State{task.Failed}, Limit: 1})
	want(t, "after a change", got, []push.MsgID{12})
}

func shortPages(t *testing.T, h *harness) {
	n := push.MsgID(task.ScanMost() + 10)
	var wg sync.WaitGroup
	for part := range push.MsgID(8) {
		wg.Go(func() {
			for id := 1 + part; id <= n; id += 8 {
				s := task.Stopped
				if id == 5 || id == n {
					s = task.Failed
				}
				if _, _, err := h.Store.Create(h.ctx, task.Task{Product: shop, ID: id, State: s}, task.Key{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	failed := task.Query{Product: shop, States: []task.State{task.Failed}, Limit: 2}
	page, err := h.Store.Tasks(h.ctx, failed)
	if err != nil || len(page.Tasks) != 1 || page.Before == 0 || page.Before > n-push.MsgID(task.ScanMost())+1 {
		t.Errorf("a short page: %d tasks, before %d, %v", len(page.Tasks), page.Before, err)
	}
	got, pages := h.walk(failed)
	want(t, "all", got, []push.MsgID{n, 5})
	want(t, "pages", pages, 2)
}

func deleted(t *testing.T, h *harness) {
	for i, s := range task.States() {
		id := push.MsgID(i + 1)
		h.create(shop, id, s, wakes(1))
		if err := h.Store.Count(h.ctx, []task.Counted{{Product: shop, Task: id, Counts: task.Counts{1}}}); err != nil {
			t.Fatal(err)
		}
		there, err := h.Store.Delete(h.ctx, shop, id)
		if !s.Ended() {
			wantError(t, string(s), err, push.KindConflict, "task_move")
			want(t, string(s), there, false)
			h.task(shop, id)
			continue
		}
		if err != nil || !there {
			t.Errorf("%s: %v, %v", s, there, err)
		}
		_, err = h.Store.Task(h.ctx, shop, id)
		wantNotFound(t, string(s), err)
		if c := h.counts(shop, id); c != nil {
			t.Errorf("%s: counts that are left: %v", s, c)
		}
		if there, err := h.Store.Delete(h.ctx, shop, id); err != nil || there {
			t.Errorf("%s, again: %v, %v", s, there, err)
		}
	}
	got, _ := h.walk(task.Query{Product: shop, Limit: 10})
	want(t, "tasks that are left", got, []push.MsgID{7, 5, 4, 3, 2, 1})
	if due := h.due(10); len(due) != 6 {
		t.Errorf("due of those that are left: %v", due)
	}
}

func switchKept(t *testing.T, h *harness) {
	check := func(p push.ProductID, w task.Switch) {
		t.Helper()
		got, err := h.Store.Switch(h.ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		want(t, "the switch of "+string(p), got, w)
	}
	off := task.Switch{Off: true, Reason: "wrong <text>", By: task.Actor{Key: "k", Name: "n", At: 7}}
	check(shop, task.Switch{})
	for _, s := range []task.Switch{off, {By: task.Actor{Key: "k2", At: 8}}, off, {}} {
		if err := h.Store.SetSwitch(h.ctx, shop, s); err != nil {
			t.Fatal(err)
		}
		check(shop, s)
		check(game, task.Switch{})
	}
	for i, p := range hostile {
		if err := h.Store.SetSwitch(h.ctx, p, task.Switch{Reason: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range hostile {
		check(p, task.Switch{Reason: fmt.Sprint(i)})
	}
}

func nothingCrosses(t *testing.T, h *harness) {
	life := func(p push.ProductID) task.Life { return task.Life{Room: push.RoomID(p), Boot: 1} }
	for i, p := range hostile {
		h.create(p, 1, task.Stopped, func(t *task.Task) { t.Name = fmt.Sprint(i) })
		h.create(p, 10+push.MsgID(i), task.Draft)
		h.putList(p, 1, 2, 1)
		if err := h.Store.Count(h.ctx, []task.Counted{{Product: p, Task: 1, Life: life(p), Counts: task.Counts{int64(i) + 1}}}); err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range hostile {
		want(t, fmt.Sprintf("the task of %q", p), h.task(p, 1).Name, fmt.Sprint(i))
		got, _ := h.walk(task.Query{Product: p, Limit: 10})
		want(t, fmt.Sprintf("the tasks of %q", p), got, []push.MsgID{10 + push.MsgID(i), 1})
		want(t, fmt.Sprintf("the counts of %q", p), h.counts(p, 1), map[task.Life]task.Counts{life(p): {int64(i) + 1}})
		ls, err := h.Store.Lists(h.ctx, p, 0, 10)
		if err != nil || len(ls) != 1 || ls[0].Product != p {
			t.Errorf("the lists of %q: %+v, %v", p, ls, err)
		}
	}
	for i, p := range hostile { // one after the other goes, the others stay
		if there, err := h.Store.Delete(h.ctx, p, 1); !there || err != nil {
			t.Fatalf("Delete(%q): %v, %v", p, there, err)
		}
		if there, err := h.Store.DeleteList(h.ctx, task.ListRef{Product: p, ID: 1}); !there || err != nil {
			t.Fatalf("DeleteList(%q): %v, %v", p, there, err)
		}
		for _, o := range hostile[i+1:] {
			h.task(o, 1)
			if n := len(h.counts(o, 1)); n != 1 {
				t.Fatalf("without %q the counts of %q have %d lives", p, o, n)
			}
			h.wantWhole(o, 1, 2, 1)
		}
	}
}

func resultsBelong(t *testing.T, h *harness) {
	given := sample(shop, 1)
	made, _, err := h.Store.Create(h.ctx, given, task.Key{Name: "k"})
	if err != nil {
		t.Fatal(err)
	}
	spoil := func(t *task.Task) {
		t.Message[0], t.Test[0], t.Run.Next[0], t.Moves[0].Reason, t.Approved.Key = 'x', "x", 99, "x", "x"
	}
	spoil(&given)
	spoil(&made)
	clean := sample(shop, 1)
	clean.Revision, clean.Created = 1, h.Now()
	got := h.task(shop, 1)
	want(t, "after what was made was changed", got, clean)
	spoil(&got)
	want(t, "after what was found was changed", h.task(shop, 1), clean)
	again, _, err := h.Store.Create(h.ctx, sample(shop, 2), task.Key{Name: "k"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "by its key", again, clean)
	page, err := h.Store.Tasks(h.ctx, task.Query{Product: shop, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	spoil(&page.Tasks[0])
	updated := h.update(shop, 1, func(*task.Task) {})
	clean.Revision++
	want(t, "updated", updated, clean)
	spoil(&updated)
	_, err = h.Store.Update(h.ctx, shop, 1, func(u *task.Task, _ push.MilliTime) error {
		spoil(u)
		return task.ErrUnchanged
	})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "in the end", h.task(shop, 1), clean)

	h.putList(shop, 3, 1, 1)
	ref := task.ListRef{Product: shop, ID: 3}
	for range 2 {
		l, err := h.Store.List(h.ctx, ref)
		if err != nil || l.Chunks[0] != 1 {
			t.Fatalf("List: %+v, %v", l, err)
		}
		l.Chunks[0] = 9
		h.wantWhole(shop, 3, 1, 1)
		cs, err := h.Store.Chunks(h.ctx, ref, 0, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		cs[0].Entries[0] = task.Entry{}
	}
}

func reopened(t *testing.T, h *harness) {
	if h.Reopen == nil {
		return // a store that keeps nothing says so by this
	}
	made := h.create(shop, 1, task.Scheduled, wakes(1))
	if _, _, err := h.Store.Create(h.ctx, sample(shop, 2), task.Key{Name: "k"}); err != nil {
		t.Fatal(err)
	}
	h.putList(shop, 3, 2, 2)
	if err := h.Store.SetSwitch(h.ctx, shop, task.Switch{Off: true}); err != nil {
		t.Fatal(err)
	}
	life := task.Life{Room: "r", Boot: 1}
	if err := h.Store.Count(h.ctx, []task.Counted{{Product: shop, Task: 1, Life: life, Counts: task.Counts{5}}}); err != nil {
		t.Fatal(err)
	}
	h.Store = h.Reopen()
	want(t, "a task", h.task(shop, 1), made)
	if again, repeated, err := h.Store.Create(h.ctx, sample(shop, 9), task.Key{Name: "k"}); err != nil || !repeated || again.ID != 2 {
		t.Errorf("a key: %d, %v, %v", again.ID, repeated, err)
	}
	h.wantWhole(shop, 3, 2, 2)
	if s, err := h.Store.Switch(h.ctx, shop); err != nil || !s.Off {
		t.Errorf("the switch: %+v, %v", s, err)
	}
	want(t, "due", h.due(9), []task.Ref{{Product: shop, ID: 1}})
	if err := h.Store.Count(h.ctx, []task.Counted{{Product: shop, Task: 1, Life: life, Counts: task.Counts{1}}}); err != nil {
		t.Fatal(err)
	}
	want(t, "counts", h.counts(shop, 1), map[task.Life]task.Counts{life: {6}})
	got, _ := h.walk(task.Query{Product: shop, Limit: 9})
	want(t, "all tasks", got, []push.MsgID{2, 1})
}

// calls makes each call of the contract once, and returns its error.
func (h *harness) calls(ctx context.Context) map[string]error {
	errs := make(map[string]error)
	s, ref := h.Store, task.ListRef{Product: shop, ID: 3}
	_, _, errs["Create"] = s.Create(ctx, sample(shop, 77), task.Key{Name: "new"})
	_, errs["Task"] = s.Task(ctx, shop, 1)
	_, errs["Tasks"] = s.Tasks(ctx, task.Query{Product: shop, Limit: 1})
	_, errs["Update"] = s.Update(ctx, shop, 1, func(t *task.Task, _ push.MilliTime) error {
		t.Name = "changed"
		return nil
	})
	_, _, errs["Due"] = s.Due(ctx, 1)
	_, errs["Delete"] = s.Delete(ctx, shop, 1)
	errs["SetSwitch"] = s.SetSwitch(ctx, shop, task.Switch{Off: true})
	_, errs["Switch"] = s.Switch(ctx, shop)
	errs["PutChunks"] = s.PutChunks(ctx, ref, []task.Chunk{{Number: 9, Entries: []task.Entry{{User: "u"}}}})
	_, errs["CreateList"] = s.CreateList(ctx, task.List{Product: shop, ID: 4})
	_, errs["List"] = s.List(ctx, ref)
	_, errs["Lists"] = s.Lists(ctx, shop, 0, 1)
	_, errs["Chunks"] = s.Chunks(ctx, ref, 0, 0, 1)
	errs["KeepList"] = s.KeepList(ctx, ref)
	_, errs["DeleteList"] = s.DeleteList(ctx, ref)
	errs["Count"] = s.Count(ctx, []task.Counted{{Product: shop, Task: 1, Counts: task.Counts{1}}})
	_, errs["Counts"] = s.Counts(ctx, shop, 1)
	_, errs["Sweep"] = s.Sweep(ctx)
	return errs
}

func contextEnded(t *testing.T, h *harness) {
	made := h.create(shop, 1, task.Stopped)
	h.putList(shop, 3, 1, 1)
	ended, end := context.WithCancel(h.ctx)
	end()
	for op, err := range h.calls(ended) {
		if push.KindOf(err) != push.KindUnavailable {
			t.Errorf("%s: got %v, want KindUnavailable", op, err)
		}
	}
	want(t, "the task", h.task(shop, 1), made)
	h.wantWhole(shop, 3, 1, 1)
	if _, err := h.Store.Task(h.ctx, shop, 77); push.KindOf(err) != push.KindNotFound {
		t.Errorf("a task that was not made: %v", err)
	}
	for op, err := range h.calls(h.ctx) { // each of them works otherwise
		if err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
}

func closed(t *testing.T, h *harness) {
	h.create(shop, 1, task.Stopped)
	for range 2 {
		if err := h.Store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for op, err := range h.calls(h.ctx) {
		wantError(t, op, err, push.KindClosed, "closed")
	}
}
