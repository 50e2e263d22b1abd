package redis

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
	"carillon/server/saver/savertest"
)

// trouble is a database that fails at one of its calls, or from one of them on.
type trouble struct {
	database
	at    int // the number of the call that fails; 0: none
	lost  bool
	died  bool // every later call fails too, unexecuted
	calls int
}

// next reports whether a call fails, and whether it is executed.
func (d *trouble) next() (fails, done bool) {
	d.calls++
	switch {
	case d.at == 0 || d.calls < d.at:
		return false, true
	case d.calls == d.at:
		return true, d.lost
	}
	return d.died, !d.died
}

func (d *trouble) reads(do func(context.Context, ...*redisdb.Read), ctx context.Context, rs []*redisdb.Read) {
	fails, _ := d.next()
	if do(ctx, rs...); fails {
		for _, r := range rs {
			r.Replies, r.Answer = nil, redisdb.Answer{Err: unavailable(context.DeadlineExceeded)}
		}
	}
}

func (d *trouble) Read(ctx context.Context, rs ...*redisdb.Read) { d.reads(d.database.Read, ctx, rs) }
func (d *trouble) Peek(ctx context.Context, rs ...*redisdb.Read) { d.reads(d.database.Peek, ctx, rs) }
func (d *trouble) Write(ctx context.Context, ws ...*redisdb.Write) {
	fails, done := d.next()
	if done {
		d.database.Write(ctx, ws...)
	}
	if fails {
		for _, w := range ws {
			w.Done, w.Replies, w.Answer = false, nil, redisdb.Answer{Err: unavailable(context.DeadlineExceeded)}
		}
	}
}

const (
	shop = push.ProductID("shop")
	day  = 24 * time.Hour
)

func refOf(u push.UserID) saver.UserRef {
	return saver.UserRef{Product: shop, Shards: savertest.Shards, User: u}
}

var people = []push.UserID{"alice", "bob", "cathy"}

// faultCase is a publication whose outcome is judged.
type faultCase struct {
	name     string
	to       []push.UserID
	everyone bool
	large    bool
}

var faultCases = []faultCase{
	{name: "one", to: people[:1]},
	{name: "several", to: people},
	{name: "several, large", to: people, large: true},
	{name: "everyone", everyone: true},
	{name: "everyone, large", everyone: true, large: true},
}

func (c *faultCase) publication(id push.MsgID, key string) *saver.Publication {
	p := &saver.Publication{
		Product: shop, Shards: savertest.Shards, TTL: 7 * day, Everyone: c.everyone,
		Message: &push.Message{ID: id, Body: []byte(`"m"`), Persistent: true}, Key: saver.IdempotencyKey(key), Digest: saver.Digest{1},
	}
	if c.large {
		p.Message.Body = append(append([]byte{'"'}, slices.Repeat([]byte("x"), 2000)...), '"')
	}
	for _, u := range c.to {
		p.Own = append(p.Own, saver.Target{User: u})
	}
	return p
}

// holds returns what the slots that the case is about hold, as numbers of messages.
func (c *faultCase) holds(t *testing.T, s *Store) (all []string) {
	t.Helper()
	var rs []saver.Read
	if c.everyone {
		for i := range savertest.Shards {
			rs = append(rs, saver.Read{ShardRef: saver.ShardRef{Product: shop, Shard: push.Shard(i)}, Slot: push.Common})
		}
	} else {
		for _, u := range c.to {
			rs = append(rs, saver.Read{ShardRef: refOf(u).Shard(), Slot: push.Own, User: u})
		}
	}
	for i := range rs {
		rs[i].MaxEntries, rs[i].MaxBytes = 1<<20, 1<<40
	}
	ts, err := s.Read(t.Context(), rs)
	if err != nil {
		t.Fatal(err)
	}
	for _, tail := range ts {
		text := ""
		for _, e := range tail.Entries {
			switch {
			case e.Kind == saver.EntryRecall:
				text += fmt.Sprint("-", e.ID, " ")
			case e.Lost:
				text += fmt.Sprint("lost ", e.ID, " ")
			default:
				text += fmt.Sprint(e.ID, " ")
			}
		}
		all = append(all, text)
	}
	return all
}

// wantEach checks that every slot of a case holds that, or, if it may be missing, all of them nothing.
func (c *faultCase) wantEach(t *testing.T, s *Store, want string, maybe bool) {
	t.Helper()
	all := c.holds(t, s)
	for _, got := range all {
		if got != all[0] || got != want && !(maybe && got == "") {
			t.Fatalf("the slots hold %q, want %q in each", all, want)
		}
	}
}

// broken returns a fixture of which the second node has trouble.
func broken(t *testing.T, d *trouble) (f *fixture, well, ill *Store) {
	f = newFixture(t, pool.Standalone(t), 2, Config{})
	well, ill = f.nodes[0].store, f.nodes[1].store
	d.database = ill.db
	ill.db = d
	return f, well, ill
}

// TestPublish_RepeatedAfterAnyCallThatFailedStoresOnce loses the reply of each call in turn, and each call itself, and repeats the
// request with its key, at the same node or another.
func TestPublish_RepeatedAfterAnyCallThatFailedStoresOnce(t *testing.T) {
	for _, c := range faultCases {
		for _, lost := range []bool{false, true} {
			for _, elsewhere := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/executed=%v/elsewhere=%v", c.name, lost, elsewhere), func(t *testing.T) {
					for at, failed := 1, true; failed; at++ {
						d := &trouble{at: at, lost: lost}
						_, well, ill := broken(t, d)
						r := ill.Publish(t.Context(), []*saver.Publication{c.publication(100, "k")})[0]
						failed, d.at = d.calls >= at, 0
						if r.Err != nil && push.KindOf(r.Err) != push.KindUnavailable {
							t.Fatalf("call %d: %v", at, r.Err)
						}
						by := ill
						if elsewhere {
							by = well
						}
						again := by.Publish(t.Context(), []*saver.Publication{c.publication(200, "k")})[0]
						if again.Err != nil {
							t.Fatalf("call %d: the repeat failed: %v", at, again.Err)
						}
						if r.Err == nil && (!again.Repeated || again.Message.ID != 100) {
							t.Fatalf("call %d: the first was answered, the repeat is %+v", at, again)
						}
						c.wantEach(t, well, fmt.Sprint(again.Message.ID, " "), false)
						last := by.Publish(t.Context(), []*saver.Publication{c.publication(300, "k")})[0]
						if last.Err != nil || !last.Repeated || last.Message.ID != again.Message.ID || last.Message.Created != again.Message.Created {
							t.Fatalf("call %d: %+v, then %+v", at, again, last)
						}
						c.wantEach(t, well, fmt.Sprint(again.Message.ID, " "), false)
					}
				})
			}
		}
	}
}

// TestPublish_OfANodeThatDiesIsWholeOrNothing lets the node die at each call in turn, with that executed or not. Another one finishes
// what was begun, once the lease is over; nobody repeats the request.
func TestPublish_OfANodeThatDiesIsWholeOrNothing(t *testing.T) {
	for _, c := range faultCases {
		for _, lost := range []bool{false, true} {
			for _, key := range []string{"", "k"} {
				t.Run(fmt.Sprintf("%s/executed=%v/key=%q", c.name, lost, key), func(t *testing.T) {
					for at, failed := 1, true; failed; at++ {
						d := &trouble{at: at, lost: lost, died: true}
						f, well, ill := broken(t, d)
						r := ill.Publish(t.Context(), []*saver.Publication{c.publication(100, key)})[0]
						failed = d.calls >= at
						if err := well.Finish(t.Context()); err != nil {
							t.Fatal(err)
						}
						f.clock.Advance(leaseFor + time.Second)
						for range 2 {
							if err := well.Finish(t.Context()); err != nil {
								t.Fatal(err)
							}
						}
						c.wantEach(t, well, "100 ", r.Err != nil)
						if n := f.pending(t); n > 0 {
							t.Fatalf("call %d: %d publications are not finished", at, n)
						}
						rec, err := well.Message(t.Context(), shop, 100)
						if found := c.holds(t, well)[0] != ""; found != (err == nil) {
							t.Fatalf("call %d: found %v, on record: %v", at, found, err)
						}
						if err == nil && (len(rec.Own) != len(c.to) || c.everyone != (len(rec.Common) > 0)) {
							t.Fatalf("call %d: on record is %+v", at, rec)
						}
					}
				})
			}
		}
	}
}

// pending returns how many intents are not finished.
func (f *fixture) pending(t *testing.T) (n int64) {
	for i := range spreadIntents {
		n += f.must(t, f.raw.HLen(context.Background(), pendingKey(intentTag(i)))).(int64)
	}
	return n
}

// TestPublish_FinishedByTwoIsStoredOnce lets a node go on with what another one took over from it meanwhile.
func TestPublish_FinishedByTwoIsStoredOnce(t *testing.T) {
	for _, c := range faultCases[1:] {
		t.Run(c.name, func(t *testing.T) {
			var f *fixture
			var well *Store
			d := &hooked{before: make(map[int]func())}
			f = newFixture(t, pool.Standalone(t), 2, Config{})
			well = f.nodes[0].store
			ill := f.nodes[1].store
			d.database, ill.db = ill.db, d
			took := 0
			for at := 1; at < 12; at++ {
				d.before[at] = func() {
					f.clock.Advance(leaseFor + time.Second)
					if err := well.Finish(t.Context()); err != nil {
						t.Error(err)
					}
					took++
				}
			}
			r := ill.Publish(t.Context(), []*saver.Publication{c.publication(100, "")})[0]
			if r.Err != nil || took < 4 {
				t.Fatalf("%v, after %d takeovers", r.Err, took)
			}
			for _, pl := range append(r.Own, r.Common...) {
				if pl.Place.IsZero() {
					t.Fatalf("no place in %+v", r)
				}
			}
			c.wantEach(t, well, "100 ", false)
		})
	}
}

// hooked is a database that does something before some of its writes.
type hooked struct {
	database
	before map[int]func()
	calls  int
}

func (d *hooked) Write(ctx context.Context, ws ...*redisdb.Write) {
	d.calls++
	if f := d.before[d.calls]; f != nil {
		f()
	}
	d.database.Write(ctx, ws...)
}

// TestRecall_OfANodeThatDiesIsFinished lets the node die at each call of a recall.
func TestRecall_OfANodeThatDiesIsFinished(t *testing.T) {
	for _, c := range faultCases {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/executed=%v", c.name, lost), func(t *testing.T) {
				for at, failed := 1, true; failed; at++ {
					d := &trouble{died: true}
					f, well, ill := broken(t, d)
					if r := ill.Publish(t.Context(), []*saver.Publication{c.publication(100, "")})[0]; r.Err != nil {
						t.Fatal(r.Err)
					}
					d.at, d.lost, d.calls = at, lost, 0
					rq := saver.Recall{Product: shop, Shards: savertest.Shards, ID: 100}
					_, err := ill.Recall(t.Context(), rq)
					failed = d.calls >= at
					f.clock.Advance(leaseFor + time.Second)
					for range 2 {
						if err := well.Finish(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					all := c.holds(t, well)
					for _, got := range all {
						if got != all[0] || got != "-100 " && (err == nil || got != "100 ") {
							t.Fatalf("call %d: %v; the slots hold %q", at, err, all)
						}
					}
					again, err := well.Recall(t.Context(), rq)
					if err != nil {
						t.Fatal(err)
					}
					c.wantEach(t, well, "-100 ", false)
					if len(again.Own)+len(again.Common) != len(all) {
						t.Fatalf("call %d: recalled %+v", at, again)
					}
				}
			})
		}
	}
}

// TestOpenAndAck_RepeatedAfterAnyCallThatFailed: a device that was told nothing comes again, and what it acknowledged is acknowledged once more.
func TestOpenAndAck_RepeatedAfterAnyCallThatFailed(t *testing.T) {
	for _, lost := range []bool{false, true} {
		for at, failed := 1, true; failed; at++ {
			d := &trouble{}
			_, well, ill := broken(t, d)
			c := faultCases[0]
			for id := range push.MsgID(3) {
				if r := well.Publish(t.Context(), []*saver.Publication{c.publication(100+id, "")})[0]; r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			d.at, d.lost = at, lost
			o := saver.Open{UserRef: refOf("alice"), Facts: push.DeviceFacts{Device: "phone", Platform: push.PlatformWeb, Class: "web"}}
			opened, err := ill.Open(t.Context(), o)
			if err != nil {
				if opened, err = ill.Open(t.Context(), o); err != nil {
					t.Fatal(err)
				}
			}
			st := opened.Starts[push.Own]
			if st.At.Pos != st.Head-3 {
				t.Fatalf("call %d: the device starts %+v", at, st)
			}
			to := st.At
			to.Pos += 2
			var moved [2]saver.Moved
			ack := []saver.Ack{{UserRef: o.UserRef, Device: "phone", Places: push.Cursor{push.Own: to}, Seen: true, Moved: &moved[0]}}
			if _, err := ill.Ack(t.Context(), ack); err != nil {
				ack[0].Moved = &moved[1]
				if _, err := ill.Ack(t.Context(), ack); err != nil {
					t.Fatal(err)
				}
			}
			over := push.Position(0) // of an answer that was lost nobody says that it moved anything
			for _, m := range moved {
				if m.Done {
					over += m.To[push.Own].Pos - m.From[push.Own].Pos
				}
			}
			if over != 2 && (over != 0 || !lost) {
				t.Fatalf("call %d: acknowledgements moved over %d positions, want 2: %+v", at, over, moved)
			}
			failed = d.calls >= at
			c.wantEach(t, well, "102 ", false)
			u, err := well.User(t.Context(), o.UserRef)
			if err != nil || len(u.Devices) != 1 || u.Devices[0].Cursors[push.Own] != to {
				t.Fatalf("call %d: %+v, %v", at, u, err)
			}
		}
	}
}

// TestAck_OfAllDevicesAtOnceFreesAtTwoNodes: each of two acknowledgements was made from a state without the other.
func TestAck_OfAllDevicesAtOnceFreesAtTwoNodes(t *testing.T) {
	well, ill, d := raced(t)
	to := opened(t, well, "phone", push.StartBeginning)
	opened(t, well, "laptop", push.StartBeginning)
	to.Pos++
	ack := func(s *Store, device push.DeviceID) {
		if _, err := s.Ack(t.Context(), []saver.Ack{{UserRef: refOf("alice"), Device: device, Places: push.Cursor{push.Own: to}}}); err != nil {
			t.Error(err)
		}
	}
	d.before[1] = func() { ack(well, "laptop") }
	ack(ill, "phone")
	faultCases[0].wantEach(t, well, "2 ", false)
}

// TestAck_FreesNothingThatADeviceWantsWhichCameMeanwhile: a device begins at the oldest message between what an acknowledgement read and
// what it writes.
func TestAck_FreesNothingThatADeviceWantsWhichCameMeanwhile(t *testing.T) {
	well, ill, d := raced(t)
	to := opened(t, well, "phone", push.StartBeginning)
	to.Pos++
	d.before[1] = func() { opened(t, well, "laptop", push.StartBeginning) }
	if _, err := ill.Ack(t.Context(), []saver.Ack{{UserRef: refOf("alice"), Device: "phone", Places: push.Cursor{push.Own: to}}}); err != nil {
		t.Fatal(err)
	}
	faultCases[0].wantEach(t, well, "1 2 ", false)
}

// halved is a database of which a part takes no writes.
type halved struct {
	database
	out redisdb.Tag
}

func (d halved) Write(ctx context.Context, ws ...*redisdb.Write) {
	var in []*redisdb.Write
	for _, w := range ws {
		if w.Tag != d.out {
			in = append(in, w)
			continue
		}
		w.Done, w.Replies, w.Answer = false, nil, redisdb.Answer{Err: unavailable(context.DeadlineExceeded)}
	}
	if len(in) > 0 {
		d.database.Write(ctx, in...)
	}
}

// TestAck_TellsOfThoseThatWereWrittenThoughOthersWereNot: the call fails, and one of the two acknowledgements was carried out.
func TestAck_TellsOfThoseThatWereWrittenThoughOthersWereNot(t *testing.T) {
	f := newFixture(t, pool.Standalone(t), 1, Config{})
	s := f.nodes[0].store
	if r := s.Publish(t.Context(), []*saver.Publication{faultCases[1].publication(1, "")})[0]; r.Err != nil {
		t.Fatal(r.Err)
	}
	acks := make([]saver.Ack, 2)
	moved := make([]saver.Moved, 2)
	for i, u := range people[:2] {
		o, err := s.Open(t.Context(), saver.Open{
			UserRef: refOf(u), Facts: push.DeviceFacts{Device: "phone", Platform: push.PlatformWeb, Class: "web"},
		})
		if err != nil {
			t.Fatal(err)
		}
		to := o.Starts[push.Own].At
		to.Pos++
		acks[i] = saver.Ack{UserRef: refOf(u), Device: "phone", Places: push.Cursor{push.Own: to}, Moved: &moved[i]}
	}
	if refOf(people[0]).Shard() == refOf(people[1]).Shard() {
		t.Fatal("both are of one shard")
	}
	whole := s.db
	s.db = halved{whole, tagOf(refOf(people[0]).Shard())}
	if _, err := s.Ack(t.Context(), acks); push.KindOf(err) != push.KindUnavailable {
		t.Fatalf("got %v", err)
	}
	if moved[0].Done || !moved[1].Done || moved[1].To[push.Own].Pos != moved[1].From[push.Own].Pos+1 {
		t.Errorf("moved %+v, want the second alone", moved)
	}
	s.db = whole
	if _, err := s.Ack(t.Context(), acks); err != nil {
		t.Fatal(err)
	}
	if m := moved[0]; !m.Done || m.To[push.Own].Pos != m.From[push.Own].Pos+1 {
		t.Errorf("the first moved %+v", m)
	}
	if m := moved[1]; !m.Done || m.To != m.From {
		t.Errorf("the second moved %+v once more", m)
	}
}

// TestAck_IsNotUndoneByOneThatReadBefore: of two acknowledgements of one device the higher stays.
func TestAck_IsNotUndoneByOneThatReadBefore(t *testing.T) {
	well, ill, d := raced(t)
	to := opened(t, well, "phone", push.StartBeginning)
	ack := func(s *Store, n push.Position) {
		at := to
		at.Pos += n
		if _, err := s.Ack(t.Context(), []saver.Ack{{UserRef: refOf("alice"), Device: "phone", Places: push.Cursor{push.Own: at}}}); err != nil {
			t.Error(err)
		}
	}
	d.before[1] = func() { ack(well, 2) }
	ack(ill, 1)
	u, err := well.User(t.Context(), refOf("alice"))
	if err != nil || u.Devices[0].Cursors[push.Own].Pos != to.Pos+2 {
		t.Fatalf("%+v, %v", u, err)
	}
	faultCases[0].wantEach(t, well, "", false)
}

// TestPublish_OfTwoNodesToOneSlotKeepsBoth: the other one appends between what was read and what is written.
func TestPublish_OfTwoNodesToOneSlotKeepsBoth(t *testing.T) {
	well, ill, d := raced(t)
	c := faultCases[0]
	d.before[1] = func() { well.Publish(t.Context(), []*saver.Publication{c.publication(3, "")}) }
	if r := ill.Publish(t.Context(), []*saver.Publication{c.publication(4, "")})[0]; r.Err != nil {
		t.Fatal(r.Err)
	}
	c.wantEach(t, well, "1 2 3 4 ", false)
}

// TestPublish_RepeatAtAnotherNodeWhileTheFirstIsUnderWayStoresOnce: the repeat runs between the key's record and the append.
func TestPublish_RepeatAtAnotherNodeWhileTheFirstIsUnderWayStoresOnce(t *testing.T) {
	for _, at := range []int{1, 2} {
		well, ill, d := raced(t)
		c := faultCases[0]
		var repeat saver.Published
		d.before[at] = func() { repeat = well.Publish(t.Context(), []*saver.Publication{c.publication(4, "k")})[0] }
		r := ill.Publish(t.Context(), []*saver.Publication{c.publication(3, "k")})[0]
		if r.Err != nil || repeat.Err != nil || r.Message.ID != repeat.Message.ID || r.Message.Created != repeat.Message.Created || r.Repeated == repeat.Repeated {
			t.Fatalf("write %d: the first is answered %+v, the repeat %+v", at, r, repeat)
		}
		c.wantEach(t, well, fmt.Sprintf("1 2 %d ", r.Message.ID), false)
	}
}

// raced returns two nodes, of which the second does something before its writes, and alice with two messages.
func raced(t *testing.T) (well, ill *Store, d *hooked) {
	f := newFixture(t, pool.Standalone(t), 2, Config{})
	well, ill = f.nodes[0].store, f.nodes[1].store
	d = &hooked{database: ill.db, before: make(map[int]func())}
	ill.db = d
	for id := range push.MsgID(2) {
		if r := well.Publish(t.Context(), []*saver.Publication{faultCases[0].publication(1+id, "")})[0]; r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return well, ill, d
}

// opened opens a device of alice and returns where it begins.
func opened(t *testing.T, s *Store, d push.DeviceID, rule push.StartAt) push.Place {
	t.Helper()
	o, err := s.Open(t.Context(), saver.Open{
		UserRef: refOf("alice"), Facts: push.DeviceFacts{Device: d, Platform: push.PlatformWeb, Class: "web"},
		FirstVisit: push.FirstVisit{First: rule, Later: rule},
	})
	if err != nil {
		t.Fatal(err)
	}
	return o.Starts[push.Own].At
}

// TestPublish_OfARepeatThatFindsOthersTheFirstAudienceCounts fails each call of a message whose users were found in turn, and repeats the
// request when others would be found. One of the two audiences has the message, whole: the first as soon as it was accepted.
func TestPublish_OfARepeatThatFindsOthersTheFirstAudienceCounts(t *testing.T) {
	audiences := []faultCase{{to: people[:1]}, {to: people[1:]}, {to: nil}, {everyone: true}}
	found := func(c *faultCase) *saver.Publication {
		p := c.publication(100, "k")
		p.Found = true
		return p
	}
	for _, pair := range [][2]int{{0, 1}, {1, 0}, {0, 2}, {2, 1}, {1, 3}, {3, 0}} {
		first, second := audiences[pair[0]], audiences[pair[1]]
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d then %d/executed=%v", pair[0], pair[1], lost), func(t *testing.T) {
				for at, failed := 1, true; failed; at++ {
					d := &trouble{at: at, lost: lost}
					_, well, ill := broken(t, d)
					r := ill.Publish(t.Context(), []*saver.Publication{found(&first)})[0]
					failed, d.at = d.calls >= at, 0
					if r.Err != nil && push.KindOf(r.Err) != push.KindUnavailable {
						t.Fatalf("call %d: %v", at, r.Err)
					}
					again := well.Publish(t.Context(), []*saver.Publication{found(&second)})[0]
					if again.Err != nil || r.Err == nil && !again.Repeated {
						t.Fatalf("call %d: the repeat is answered %+v", at, again)
					}
					rec, err := well.Message(t.Context(), shop, 100)
					if err != nil {
						t.Fatalf("call %d: %v", at, err)
					}
					has, hasNot := &first, &second
					if r.Err != nil && (rec.Everyone != first.everyone || len(rec.Own) != len(first.to)) {
						has, hasNot = hasNot, has
					}
					if rec.Everyone != has.everyone || len(rec.Own) != len(has.to) {
						t.Fatalf("call %d: it is on record for %+v", at, rec)
					}
					has.wantEach(t, well, "100 ", false)
					hasNot.wantEach(t, well, "", false)
				}
			})
		}
	}
}
