package savertest

import (
	"fmt"
	"slices"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

// modelTask is a message that a task writes to one user, or to the common slot of one shard, in one batch. The zero one is of a message that was never
// fenced.
type modelTask struct {
	token   uint64 // 0: none
	place   push.Place
	recall  push.Place
	written bool
	back    bool // taken back
}

// driverTask is what the driver knows of a task, whatever the store falls back to.
type driverTask struct {
	b     saver.Batch // without a token
	slot  slotName
	token uint64 // the highest that was ever raised
}

func (t *driverTask) filter() *push.Filter {
	if t.b.Everyone {
		return t.b.Filter
	}
	return t.b.Own[0].Filter
}

func (t *driverTask) until() push.MilliTime { return t.b.Message.Expires.Add(saver.RecordKept) }

// batchOne begins a task, or goes on with an old one: its token is raised, or its batch written or taken back, under the token that counts or another one.
func (d *driver) batchOne() {
	if len(d.tasks) == 0 || d.r.IntN(3) == 0 {
		t := d.newTask()
		d.tasks = append(d.tasks, t)
		d.raise(t)
		d.doBatch(t, t.token, false)
		return
	}
	t := d.tasks[len(d.tasks)-1-min(d.r.IntN(len(d.tasks)), d.r.IntN(len(d.tasks)))]
	if d.r.IntN(2) == 0 && d.m.now < t.until() {
		d.raise(t)
	}
	token := d.m.tasks[t.b.Message.ID].token
	if token == 0 || d.r.IntN(3) == 0 {
		token = 1 + uint64(d.r.IntN(int(t.token+1)))
	}
	d.doBatch(t, token, d.r.IntN(3) == 0)
}

func (d *driver) newTask() *driverTask {
	u := d.anyUser()
	c := d.campaign(fmt.Sprint("t", d.step))
	c.m.Expires = c.m.Created.Add([]time.Duration{time.Second, time.Minute, 3 * time.Hour, week}[d.r.IntN(4)])
	if d.r.IntN(3) == 0 {
		c.m.CollapseKey = []string{"k1", "k2"}[d.r.IntN(2)]
	}
	if d.r.IntN(8) == 0 {
		c.m.Headers = []push.Header{{Name: "x", Value: string(make([]byte, d.r.IntN(700)))}}
	}
	t := &driverTask{b: *c.own(d.r.IntN(3), u), slot: nameOf(u, push.Own)}
	f := modelFilters[d.r.IntN(len(modelFilters))]
	if t.b.Own[0].Filter = f; d.r.IntN(4) == 0 {
		t.b, t.slot = *c.all(0, ref(u).Shard().Shard), nameOf(u, push.Common)
		t.b.Filter = f
	}
	return t
}

func (d *driver) raise(t *driverTask) {
	d.Helper()
	t.token++
	c := campaign{e: d.env, m: t.b.Message}
	c.fence(t.token)
	k := d.m.tasks[t.b.Message.ID]
	k.token = t.token
	d.m.tasks[t.b.Message.ID] = k
}

// doBatch writes or takes back, and compares the answer.
func (d *driver) doBatch(t *driverTask, token uint64, recall bool) {
	d.Helper()
	b := t.b
	b.Token, b.Recall = token, recall
	r := d.tryBatch(&b)
	id := b.Message.ID
	k := d.m.tasks[id]
	if k.token != token || t.until() <= d.m.now {
		d.wantFencedErr(r.Err)
		return
	}
	if r.Err != nil {
		d.Fatalf("step %d: a batch: %v", d.step, r.Err)
	}
	found, absent := k.written, false
	if recall {
		found, absent = k.back, !k.written
	}
	if r.Found != found || r.Absent != absent {
		d.Fatalf("step %d: a batch is found %v, absent %v; want %v, %v", d.step, r.Found, r.Absent, found, absent)
	}
	got := append(slices.Clone(r.Own), r.Common...)
	switch {
	case absent:
		return
	case found && recall:
		d.placed("a recall that comes again", got, []push.Place{k.recall}, nil)
	case found:
		d.placed("a batch that comes again", got, []push.Place{k.place}, nil)
	case recall:
		want := []push.Place{d.m.recallIn(t.slot, b.Message, t.filter())}
		d.placed("the recall of a batch", got, want, []slotName{t.slot})
		k.recall, k.back = want[0], true
	default:
		want := []push.Place{d.m.append(t.slot, entryOf(b.Message, t.filter()))}
		d.placed("a batch", got, want, []slotName{t.slot})
		k.place, k.written = want[0], true
	}
	d.m.tasks[id] = k
	want := k.place
	if recall {
		want = k.recall
	}
	if len(got) != 1 || got[0].Place != want {
		d.Fatalf("step %d: a batch is placed %+v, want %+v", d.step, got, want)
	}
}
