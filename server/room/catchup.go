package room

import (
	"context"
	"slices"
	"sync"
	"time"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/wire"
)

// reading asks for one slot of a session to be read.
type reading struct {
	s    *session
	k    push.SlotKind
	back *lookBack // what is to be read in place of what follows; nil almost always
}

const (
	maxRead      = 128       // entries in one read
	maxReadBytes = 256 << 10 // and their bytes
	readRetry    = 500 * time.Millisecond
)

// tailRead is what a read found, on its way to a session.
type tailRead struct {
	saver.Tail
	entries   []tailEntry
	wanted    push.Position // what the session had heard of when it asked
	fromStore bool
}

// tailEntry is an entry with its encoding, which all sessions share that read it from the same tail.
type tailEntry struct {
	saver.Entry
	shared *wire.Shared
}

func newTailEntry(e saver.Entry) tailEntry {
	t := tailEntry{Entry: e}
	if e.Message != nil {
		t.shared = wire.NewShared(e.Message)
	}
	return t
}

// out returns the frame for an entry, without slot and position.
func (e *tailEntry) out() wire.Out {
	if e.Kind == saver.EntryRecall {
		return wire.Out{Frame: &wire.Recall{ID: e.ID}}
	}
	return wire.Out{Shared: e.shared}
}

// readLoop is one reader: it takes slots that sessions asked to be read, reads them in one call, and hands each session
// what it found. It runs until ctx ends.
func (r *Room) readLoop(ctx context.Context) {
	batch := make([]reading, 0, r.cfg.ReadBatch)
	for {
		batch = r.reads.get(ctx, batch)
		if len(batch) == 0 {
			return
		}
		r.readBatch(ctx, batch)
		clear(batch)
	}
}

func (r *Room) readBatch(ctx context.Context, batch []reading) {
	type asked struct {
		reading
		wanted push.Position
	}
	var rqs []saver.Read
	var who []asked
	for _, rd := range batch {
		if rd.back != nil {
			if rq, ok := r.lookBackRequest(rd); ok {
				rqs, who = append(rqs, rq), append(who, asked{reading: rd})
			}
			continue
		}
		rq, wanted, judge, ok := rd.s.readRequest(rd.k)
		if !ok {
			continue
		}
		if rd.k == push.Common && !judge {
			if t, ok := r.tails.read(rq, wanted, r.cfg.Clock.Now()); ok {
				rd.s.apply(rd.k, rq, t)
				continue
			}
		}
		rqs, who = append(rqs, rq), append(who, asked{rd, wanted})
	}
	if len(rqs) == 0 {
		return
	}
	r.m.read(len(rqs))
	tails, err := r.cfg.Saver.Read(ctx, rqs)
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		r.log.Warn("reading slots failed; trying again", "slots", len(rqs), "err", err)
		r.m.failed("read")
		for _, a := range who {
			r.cfg.Clock.AfterFunc(readRetry, func() { r.reads.put(a.reading) })
		}
		return
	}
	for i, a := range who {
		t := &tailRead{Tail: tails[i], wanted: a.wanted, fromStore: true}
		t.entries = make([]tailEntry, len(tails[i].Entries))
		for j, e := range tails[i].Entries {
			t.entries[j] = newTailEntry(e)
		}
		if a.k == push.Common {
			r.tails.fill(rqs[i].ShardRef, t, r.cfg.Clock.Now())
		}
		if a.back != nil {
			a.s.lookedBack(a.reading, t)
			continue
		}
		a.s.apply(a.k, rqs[i], t)
	}
}

// tails keeps the newest entries of common slots, so that a room full of devices that come back reads a broadcast once.
// What it holds of a slot is one unbroken range of positions under one epoch and lineage; anything else drops it.
type tails struct {
	most int // entries a slot

	mu     sync.RWMutex
	shards map[saver.ShardRef]*tail
}

// maxTailBytes bounds a tail in bytes, beside its entries.
const maxTailBytes = 1 << 20

type tail struct {
	// Guarded by mu. The zero high means that nothing is held.
	mu      sync.Mutex
	state   push.SlotState // of the last read; Head is high
	low     push.Position  // the range is (low, high]
	high    push.Position
	entries []tailEntry
	bytes   int
	ahead   time.Duration // store's clock minus ours
}

func (t *tail) forgetLocked() {
	t.state, t.low, t.high, t.entries, t.bytes = push.SlotState{}, 0, 0, nil, 0
}

func newTails(most int) *tails { return &tails{most: most, shards: make(map[saver.ShardRef]*tail)} }

func (ts *tails) shard(ref saver.ShardRef) *tail {
	ts.mu.RLock()
	t := ts.shards[ref]
	ts.mu.RUnlock()
	if t != nil {
		return t
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t = ts.shards[ref]; t == nil {
		t = &tail{}
		ts.shards[ref] = t
	}
	return t
}

// read answers a read from the tail, if the tail covers everything from the asked place up to what the session heard of.
func (ts *tails) read(rq saver.Read, wanted push.Position, now time.Time) (*tailRead, bool) {
	t := ts.shard(rq.ShardRef)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.high == 0 || rq.From.Epoch != t.state.Epoch || !t.isOfLocked(rq.From.Lineage) ||
		rq.From.Pos < t.low || rq.From.Pos > t.high || wanted > t.high || wanted == 0 {
		return nil, false
	}
	store := push.Milli(now.Add(t.ahead))
	out := &tailRead{wanted: wanted}
	out.State, out.Start, out.Known, out.Now = t.state, rq.From, true, store
	out.State.Head, out.State.Floor = t.high, 0
	out.Through = t.high
	size := 0
	for _, e := range t.entries {
		if e.Pos <= rq.From.Pos || e.Expires != 0 && e.Expires <= store {
			continue
		}
		if len(out.entries) == rq.MaxEntries || size >= rq.MaxBytes {
			out.Through = out.entries[len(out.entries)-1].Pos
			break
		}
		out.entries = append(out.entries, e)
		if e.Message != nil {
			size += e.Message.Size()
		}
	}
	return out, true
}

// fill takes what a read of the store found, if it continues the tail or is newer than all of it.
func (ts *tails) fill(ref saver.ShardRef, rd *tailRead, now time.Time) {
	if rd.State.Epoch == 0 {
		return
	}
	t := ts.shard(ref)
	t.mu.Lock()
	defer t.mu.Unlock()
	same := t.high != 0 && t.state.Epoch == rd.State.Epoch && t.isOfLocked(rd.State.Lineage())
	if same && rd.Through <= t.high {
		return
	}
	// What a limit dropped is no part of an unbroken range: whoever stands below it has to be told of the gap by the store.
	low := max(rd.Start.Pos, rd.State.Floor)
	if planted.Is(planted.TailOverGap) {
		low = rd.Start.Pos
	}
	if !same || low > t.high || rd.Start.Pos < t.low {
		if rd.More() {
			return // not the newest part
		}
		t.forgetLocked()
		t.low, t.high = low, low
	}
	t.state = rd.State
	t.ahead = rd.Now.Time().Sub(now)
	for _, e := range rd.entries {
		if e.Pos > t.high {
			t.appendLocked(e)
		}
	}
	t.high = rd.Through
	t.trimLocked(ts.most)
}

// extend takes a notified entry. One that does not follow what is held is left to the next read.
func (ts *tails) extend(ref saver.ShardRef, place push.Place, e tailEntry) {
	t := ts.shard(ref)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.high == 0 {
		return
	}
	// Before the position: what the tail has further up may be what the store lost.
	if place.Epoch != t.state.Epoch || !t.isOfLocked(place.Lineage) {
		t.forgetLocked()
		return
	}
	if place.Pos != t.high+1 {
		return
	}
	t.appendLocked(e)
	t.high = place.Pos
	t.trimLocked(ts.most)
}

// isOfLocked reports whether the tail was read under that lineage.
func (t *tail) isOfLocked(l push.Lineage) bool {
	return l == t.state.Lineage() || planted.Is(planted.TailOverLineage)
}

// appendLocked adds an entry behind the others; what it recalls or collapses becomes a hole.
func (t *tail) appendLocked(e tailEntry) {
	if e.Kind == saver.EntryRecall || e.Message != nil && e.Message.CollapseKey != "" {
		t.entries = slices.DeleteFunc(t.entries, func(old tailEntry) bool {
			gone := old.Kind == saver.EntryMessage && (e.Kind == saver.EntryRecall && old.ID == e.ID || collapses(&e, &old))
			if gone {
				t.bytes -= entrySize(&old)
			}
			return gone
		})
	}
	t.entries = append(t.entries, e)
	t.bytes += entrySize(&e)
}

func collapses(e, old *tailEntry) bool {
	return e.Message != nil && old.Message != nil && e.Message.CollapseKey != "" &&
		e.Message.CollapseKey == old.Message.CollapseKey &&
		(e.Filter.Equal(old.Filter) || planted.Is(planted.CollapseOverFilters))
}

func (t *tail) trimLocked(most int) {
	if len(t.entries) <= most+most/4 && t.bytes <= maxTailBytes {
		return // cut a quarter at a time
	}
	n := 0
	for ; len(t.entries)-n > most || t.bytes > maxTailBytes && n < len(t.entries); n++ {
		t.bytes -= entrySize(&t.entries[n])
		t.low = t.entries[n].Pos
	}
	if n > 0 {
		t.entries = append([]tailEntry(nil), t.entries[n:]...)
	}
}

func entrySize(e *tailEntry) int {
	if e.Message == nil {
		return 64
	}
	return e.Message.Size()
}
