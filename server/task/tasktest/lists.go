package tasktest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/task"
)

// chunkOf returns the chunk of that number in a shard, whose users tell where they are from.
func chunkOf(p push.ProductID, id push.MsgID, s push.Shard, n int) task.Chunk {
	c := task.Chunk{Shard: s, Number: n}
	for i := range 1 + (n+int(s))%3 {
		c.Entries = append(c.Entries, task.Entry{User: push.UserID(fmt.Sprintf("%q-%d-%d-%d-%d", p, id, s, n, i)), Values: []string{"", fmt.Sprint(i)}})
	}
	return c
}

func listOf(p push.ProductID, id push.MsgID, shards, each int) task.List {
	return task.List{Product: p, ID: id, Shards: shards, Chunks: slices.Repeat(task.Progress{uint32(each)}, shards)}
}

// putList uploads a list of so many chunks in each of so many shards.
func (h *harness) putList(p push.ProductID, id push.MsgID, shards, each int) task.List {
	h.t.Helper()
	var cs []task.Chunk
	for s := range shards {
		for n := range each {
			cs = append(cs, chunkOf(p, id, push.Shard(s), n))
		}
	}
	if err := h.Store.PutChunks(h.ctx, task.ListRef{Product: p, ID: id}, cs); err != nil {
		h.t.Fatalf("PutChunks: %v", err)
	}
	l, err := h.Store.CreateList(h.ctx, listOf(p, id, shards, each))
	if err != nil {
		h.t.Fatalf("CreateList: %v", err)
	}
	return l
}

// wantWhole holds a list to all that putList stored.
func (h *harness) wantWhole(p push.ProductID, id push.MsgID, shards, each int) {
	h.t.Helper()
	ref := task.ListRef{Product: p, ID: id}
	if _, err := h.Store.List(h.ctx, ref); err != nil {
		h.t.Fatalf("List: %v", err)
	}
	for s := range shards {
		var all []task.Chunk
		for n := range each {
			all = append(all, chunkOf(p, id, push.Shard(s), n))
		}
		cs, err := h.Store.Chunks(h.ctx, ref, push.Shard(s), 0, each+1)
		if err != nil {
			h.t.Fatalf("Chunks: %v", err)
		}
		want(h.t, fmt.Sprintf("shard %d of list %d of %q", s, id, p), cs, all)
	}
}

func listIsFound(t *testing.T, h *harness) {
	l := task.List{
		Product: shop, ID: 1<<63 - 1, Name: "vips <&>", By: task.Actor{Key: "k", Name: "n", At: 5}, Users: 1_000_000, Variables: []string{"name", "town"},
		Shards: 3, Chunks: task.Progress{0, 0, 0}, Created: 99,
	}
	made, err := h.Store.CreateList(h.ctx, l)
	if err != nil {
		t.Fatalf("CreateList: %v", err)
	}
	l.Created = h.Now()
	want(t, "made", made, l)
	ref := task.ListRef{Product: shop, ID: l.ID}
	got, err := h.Store.List(h.ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "found", got, l)

	h.Elapse(time.Minute)
	again, err := h.Store.CreateList(h.ctx, l)
	if err != nil {
		t.Errorf("the same again: %v", err)
	}
	want(t, "made again", again, l)
	l.Users++
	_, err = h.Store.CreateList(h.ctx, l)
	wantError(t, "another of that id", err, push.KindConflict, "list_exists")
	l.Users--
	if got, err = h.Store.List(h.ctx, ref); err != nil {
		t.Fatal(err)
	}
	want(t, "found in the end", got, l)
	_, err = h.Store.List(h.ctx, task.ListRef{Product: shop, ID: 1})
	wantNoList(t, "a list that is not there", err)
}

func listIsWhole(t *testing.T, h *harness) {
	ref := task.ListRef{Product: shop, ID: 1}
	put := func(cs ...task.Chunk) {
		t.Helper()
		if err := h.Store.PutChunks(h.ctx, ref, cs); err != nil {
			t.Fatalf("PutChunks: %v", err)
		}
	}
	l := listOf(shop, 1, 2, 2)
	l.Chunks[0] = 4
	_, err := h.Store.CreateList(h.ctx, l)
	wantError(t, "without chunks", err, push.KindConflict, "list_incomplete")
	put(chunkOf(shop, 1, 1, 1), chunkOf(shop, 1, 0, 1))
	put(chunkOf(shop, 1, 0, 0), chunkOf(shop, 1, 0, 1), chunkOf(shop, 1, 0, 3))
	for s, most := range []int{2, 0} { // up to the first that is missing
		cs, err := h.Store.Chunks(h.ctx, ref, push.Shard(s), 0, 9)
		if err != nil || len(cs) > most {
			t.Errorf("shard %d of a part of a list: %d chunks, %v, want %d at most", s, len(cs), err, most)
		}
	}
	_, err = h.Store.List(h.ctx, ref)
	wantNoList(t, "a part of a list", err)
	_, err = h.Store.CreateList(h.ctx, l)
	wantError(t, "a part of a list", err, push.KindConflict, "list_incomplete")
	wantNoList(t, "a part of a list", h.Store.KeepList(h.ctx, ref))
	if ls, err := h.Store.Lists(h.ctx, shop, 0, 9); err != nil || len(ls) != 0 {
		t.Errorf("lists: %v, %v", ls, err)
	}
	put(chunkOf(shop, 1, 1, 0))
	_, err = h.Store.CreateList(h.ctx, l)
	wantError(t, "a list with a gap", err, push.KindConflict, "list_incomplete")
	l.Chunks[0] = 2
	put()
	for range 2 { // whoever does not know repeats it
		put(chunkOf(shop, 1, 0, 0), chunkOf(shop, 1, 1, 0), chunkOf(shop, 1, 1, 0), chunkOf(shop, 1, 1, 1))
		if _, err = h.Store.CreateList(h.ctx, l); err != nil {
			t.Errorf("the whole: %v", err)
		}
		h.wantWhole(shop, 1, 2, 2)
	}
}

func chunksInParts(t *testing.T, h *harness) {
	const shards, each = 3, 300
	var wg sync.WaitGroup
	for s := range shards {
		wg.Go(func() {
			var cs []task.Chunk
			for n := range each {
				cs = append(cs, chunkOf(shop, 1, push.Shard(s), n))
			}
			if err := h.Store.PutChunks(h.ctx, task.ListRef{Product: shop, ID: 1}, cs); err != nil {
				t.Errorf("PutChunks: %v", err)
			}
		})
	}
	wg.Wait()
	if _, err := h.Store.CreateList(h.ctx, listOf(shop, 1, shards, each)); err != nil {
		t.Fatal(err)
	}
	h.wantWhole(shop, 1, shards, each)
	for _, test := range []struct{ from, limit, want int }{
		{0, 1, 1}, {9, 2, 2}, {10, 246, 246}, {255, 2, 2}, {299, 5, 1}, {300, 5, 0}, {1 << 20, 5, 0}, {0, 0, 0}, {0, 1 << 20, 300}, {5, -1, 0},
	} {
		cs, err := h.Store.Chunks(h.ctx, task.ListRef{Product: shop, ID: 1}, 2, test.from, test.limit)
		if err != nil || len(cs) != test.want {
			t.Fatalf("%d from %d on: got %d, %v, want %d", test.limit, test.from, len(cs), err, test.want)
		}
		for i, c := range cs {
			want(t, "a chunk", c, chunkOf(shop, 1, 2, test.from+i))
		}
	}
	for ref, s := range map[task.ListRef]push.Shard{{Product: shop, ID: 1}: 3, {Product: shop, ID: 11}: 0, {Product: game, ID: 1}: 0} {
		if cs, err := h.Store.Chunks(h.ctx, ref, s, 0, 9); err != nil || len(cs) != 0 {
			t.Errorf("shard %d of %v: %d chunks, %v", s, ref, len(cs), err)
		}
	}

	// The largest that there may be.
	long := task.Chunk{Shard: 1<<16 - 1}
	for i := range task.ChunkMost {
		e := task.Entry{User: push.UserID(fmt.Sprintf("%0128d", i))}
		for k := range task.MaxVariables {
			e.Values = append(e.Values, strings.Repeat(string(rune('a'+k)), task.MaxVariableBytes/task.MaxVariables))
		}
		long.Entries = append(long.Entries, e)
	}
	ref := task.ListRef{Product: shop, ID: 2}
	if err := h.Store.PutChunks(h.ctx, ref, []task.Chunk{long}); err != nil {
		t.Fatal(err)
	}
	cs, err := h.Store.Chunks(h.ctx, ref, long.Shard, 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "a large chunk", cs, []task.Chunk{long})
}

func badChunks(t *testing.T, h *harness) {
	user := task.Entry{User: "u"}
	for name, c := range map[string]task.Chunk{
		"no users":          {},
		"too many users":    {Entries: slices.Repeat([]task.Entry{user}, task.ChunkMost+1)},
		"a negative number": {Number: -1, Entries: []task.Entry{user}},
		"a large number":    {Number: task.MaxListUsers + 1, Entries: []task.Entry{user}},
		"too many values":   {Entries: []task.Entry{{User: "u", Values: make([]string, task.MaxValues+1)}}},
	} {
		err := h.Store.PutChunks(h.ctx, task.ListRef{Product: shop, ID: 1}, []task.Chunk{{Entries: []task.Entry{user}}, c})
		wantError(t, name, err, push.KindInvalid, "bad_chunk")
	}
	if cs, err := h.Store.Chunks(h.ctx, task.ListRef{Product: shop, ID: 1}, 0, 0, 9); err != nil || len(cs) != 0 {
		t.Errorf("beside a bad chunk, %d are stored (%v)", len(cs), err)
	}
}

func listsInPages(t *testing.T, h *harness) {
	for _, id := range []push.MsgID{9, 100, 11, 1<<63 - 1} {
		h.putList(shop, id, 1, 1)
	}
	if _, err := h.Store.CreateList(h.ctx, task.List{Product: shop, ID: 50, Made: true}); err != nil {
		t.Fatal(err)
	}
	if l, err := h.Store.List(h.ctx, task.ListRef{Product: shop, ID: 50}); err != nil || !l.Made {
		t.Errorf("a list made for a task: %+v, %v", l, err)
	}
	for _, test := range []struct {
		before push.MsgID
		limit  int
		want   []push.MsgID
	}{
		{0, 9, []push.MsgID{1<<63 - 1, 100, 11, 9}},
		{0, 2, []push.MsgID{1<<63 - 1, 100}},
		{100, 1, []push.MsgID{11}},
		{100, 9, []push.MsgID{11, 9}},
		{9, 9, nil},
	} {
		ls, err := h.Store.Lists(h.ctx, shop, test.before, test.limit)
		if err != nil {
			t.Fatal(err)
		}
		var ids []push.MsgID
		for _, l := range ls {
			ids = append(ids, l.ID)
		}
		want(t, fmt.Sprintf("%d before %d", test.limit, test.before), ids, test.want)
	}
	for _, limit := range []int{-1, 0, task.MaxPage + 1} {
		_, err := h.Store.Lists(h.ctx, shop, 0, limit)
		wantError(t, fmt.Sprintf("a page of %d", limit), err, push.KindInvalid, "bad_page")
	}
}

func listGoes(t *testing.T, h *harness) {
	h.putList(shop, 1, 2, 1)
	h.putList(shop, 2, 2, 1)
	kept, gone := task.ListRef{Product: shop, ID: 1}, task.ListRef{Product: shop, ID: 2}
	h.Elapse(task.ListKept / 2)
	for range 3 {
		if err := h.Store.KeepList(h.ctx, kept); err != nil {
			t.Fatal(err)
		}
		h.Elapse(task.ListKept/2 - time.Millisecond)
		h.sweep()
	}
	h.wantWhole(shop, 1, 2, 1)
	check := func() {
		t.Helper()
		_, err := h.Store.List(h.ctx, gone)
		wantNoList(t, "a list that nobody used", err)
		wantNoList(t, "keeping it", h.Store.KeepList(h.ctx, gone))
		ls, err := h.Store.Lists(h.ctx, shop, 0, 9)
		if err != nil || len(ls) != 1 || ls[0].ID != 1 {
			t.Errorf("lists: %v, %v", ls, err)
		}
	}
	check()

	h.putList(shop, 4, 1, 1)
	h.Elapse(task.ListKept - time.Millisecond)
	h.wantWhole(shop, 4, 1, 1)
	h.Elapse(time.Millisecond) // it is not swept yet
	_, err := h.Store.List(h.ctx, task.ListRef{Product: shop, ID: 4})
	wantNoList(t, "a list at its end", err)
	if ls, err := h.Store.Lists(h.ctx, shop, 0, 9); err != nil || len(ls) != 0 {
		t.Errorf("lists at their end: %v, %v", ls, err)
	}
	if there, err := h.Store.DeleteList(h.ctx, task.ListRef{Product: shop, ID: 4}); there || err != nil {
		t.Errorf("deleting a list at its end: %v, %v", there, err)
	}
}

func listDeleted(t *testing.T, h *harness) {
	h.putList(shop, 1, 3, 2)
	h.putList(shop, 2, 3, 2)
	h.putList(game, 1, 3, 2)
	ref := task.ListRef{Product: shop, ID: 1}
	if there, err := h.Store.DeleteList(h.ctx, ref); err != nil || !there {
		t.Fatalf("DeleteList: %v, %v", there, err)
	}
	_, err := h.Store.List(h.ctx, ref)
	wantNoList(t, "List", err)
	wantNoList(t, "KeepList", h.Store.KeepList(h.ctx, ref))
	for s := range push.Shard(3) {
		if cs, err := h.Store.Chunks(h.ctx, ref, s, 0, 9); err != nil || len(cs) != 0 {
			t.Errorf("shard %d: %d chunks, %v", s, len(cs), err)
		}
	}
	if there, err := h.Store.DeleteList(h.ctx, ref); err != nil || there {
		t.Errorf("again: %v, %v", there, err)
	}
	h.wantWhole(shop, 2, 3, 2)
	h.wantWhole(game, 1, 3, 2)
	_, err = h.Store.CreateList(h.ctx, listOf(shop, 1, 3, 2))
	wantError(t, "creating it without its chunks", err, push.KindConflict, "list_incomplete")
}

func countsByLife(t *testing.T, h *harness) {
	h.create(shop, 1, task.Running)
	h.create(shop, 2, task.Running)
	if c := h.counts(shop, 1); c != nil {
		t.Errorf("nothing was counted: got %v", c)
	}
	full := task.Counts{1, 2, 3, 4, 5, 1 << 60}
	names := []push.RoomID{"room", "room:1", "1:room", "{room}", "a\x00b", "", "1"}
	wants := make(map[task.Life]task.Counts)
	var cs []task.Counted
	for _, name := range names {
		for _, boot := range []push.BootID{0, 1, 10, 1<<64 - 1} {
			l := task.Life{Room: name, Boot: boot}
			wants[l] = full
			cs = append(cs, task.Counted{Product: shop, Task: 1, Life: l, Counts: full})
		}
	}
	first := task.Life{Room: "room", Boot: 1}
	cs = append(cs, task.Counted{Product: shop, Task: 2, Life: first, Counts: task.Counts{task.Sent: 7}},
		task.Counted{Product: shop, Task: 1, Life: first, Counts: task.Counts{task.Clicked: 1}},
		task.Counted{Product: shop, Task: 77, Life: first, Counts: full})
	if err := h.Store.Count(h.ctx, cs); err != nil {
		t.Fatalf("Count: %v", err)
	}
	more := wants[first]
	more[task.Clicked]++
	wants[first] = more
	want(t, "counted", h.counts(shop, 1), wants)
	want(t, "of another task", h.counts(shop, 2), map[task.Life]task.Counts{first: {task.Sent: 7}})
	if c := h.counts(shop, 77); c != nil {
		t.Errorf("of a task that is not there: got %v", c)
	}
	if err := h.Store.Count(h.ctx, nil); err != nil {
		t.Errorf("Count of nothing: %v", err)
	}
	h.update(shop, 1, func(t *task.Task) { t.State = task.Recalling })
	want(t, "after a change of the task", h.counts(shop, 1), wants)
	got := h.counts(shop, 2)
	clear(got)
	want(t, "after the result was changed", len(h.counts(shop, 2)), 1)
}

func countsAddUp(t *testing.T, h *harness) {
	const rooms, each, tasks = 4, 20, 3
	for id := range push.MsgID(tasks) {
		h.create(shop, id+1, task.Running)
	}
	var wg sync.WaitGroup
	for r := range rooms {
		for range 2 { // of one life
			wg.Go(func() {
				for range each {
					var cs []task.Counted
					for id := range push.MsgID(tasks) {
						cs = append(cs, task.Counted{Product: shop, Task: id + 1, Life: task.Life{Room: "r", Boot: push.BootID(r)},
							Counts: task.Counts{task.Sent: int64(id) + 1, task.Dropped: 1}})
					}
					if err := h.Store.Count(h.ctx, cs); err != nil {
						t.Errorf("Count: %v", err)
					}
				}
			})
		}
	}
	wg.Wait()
	for id := range push.MsgID(tasks) {
		all := h.counts(shop, id+1)
		want(t, "lives", len(all), rooms)
		for c := range maps.Values(all) {
			want(t, "counts of a life", c, task.Counts{task.Sent: 2 * each * (int64(id) + 1), task.Dropped: 2 * each})
		}
	}
}

func swept(t *testing.T, h *harness) {
	const many = 250 // more than a part
	count := func(id push.MsgID) {
		t.Helper()
		if err := h.Store.Count(h.ctx, []task.Counted{{Product: shop, Task: id, Counts: task.Counts{1}}}); err != nil {
			t.Fatal(err)
		}
	}
	end := func(u *task.Task, now push.MilliTime) error { return u.Do(task.Stop, nil, "", now) }
	for id := push.MsgID(1); id <= many; id++ {
		h.create(shop, id, task.Paused)
		if _, err := h.Store.Update(h.ctx, shop, id, end); err != nil {
			t.Fatal(err)
		}
	}
	h.create(shop, 1001, task.Paused)
	h.create(shop, 1002, task.Completed)
	h.create(shop, 1003, task.Completed)
	count(1)
	count(1003)
	h.Elapse(task.Kept - time.Millisecond)
	h.sweep()
	got, _ := h.walk(task.Query{Product: shop, Limit: task.MaxPage})
	want(t, "before the time", len(got), many+3)
	h.update(shop, 1002, func(t *task.Task) { t.State = task.Recalling })
	h.update(shop, 1003, func(t *task.Task) { t.Changed = h.Now() })
	h.Elapse(time.Millisecond)
	h.sweep()
	got, _ = h.walk(task.Query{Product: shop, Limit: task.MaxPage})
	want(t, "after the time", got, []push.MsgID{1003, 1002, 1001})
	if c := h.counts(shop, 1); c != nil {
		t.Errorf("counts of a task that was swept: %v", c)
	}
	want(t, "counts of another", len(h.counts(shop, 1003)), 1)
	h.create(shop, 1, task.Draft)
	if c := h.counts(shop, 1); c != nil {
		t.Errorf("counts of a task of an id that was swept: %v", c)
	}
	h.Elapse(task.Kept - 2*time.Millisecond)
	h.sweep()
	h.task(shop, 1003)
	h.Elapse(time.Millisecond)
	h.sweep()
	_, err := h.Store.Task(h.ctx, shop, 1003)
	wantNotFound(t, "the last that ended", err)
	h.task(shop, 1001)
}
