package room

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/transport"
	"carillon/server/wire"
)

// stage is a room that does not run, so that a test moves its one worker by hand, and sessions that are open.
type stage struct {
	t    testing.TB
	room *Room
	ctx  context.Context
	next push.MsgID
	task bool // messages are of tasks
}

func newStage(t testing.TB, tune func(*Config)) *stage {
	t.Helper()
	cfg := Config{
		ID: "r1", Boot: 1, Saver: noStore{}, Register: newRegister(t), Tokens: tokens{}, Deliverers: 1,
		Counts: &counter{},
		Policy: func(context.Context, push.ProductID) (Policy, error) { return Policy{Shards: shards}, nil },
	}
	if tune != nil {
		tune(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.renewed.Store(math.MaxInt64 / 2) // its lease holds however long the test takes
	return &stage{t: t, room: r, ctx: t.Context()}
}

// noStore is the store of rooms that never ask it.
type noStore struct{ saver.Store }

// seat is a connection that notes what it is woken for.
type seat struct {
	s      *session
	wakes  []transport.Share // guarded by the test, which moves the worker
	onWake func(*seat, transport.Share)
}

func (c *seat) Wake(share transport.Share) {
	c.wakes = append(c.wakes, share)
	if c.onWake != nil {
		c.onWake(c, share)
	}
}
func (c *seat) Close(wire.CloseCode) {}
func (c *seat) Cut(wire.CloseCode)   {}

var theSlot = push.Place{Epoch: 1, Lineage: 1, Pos: 100}

// sit opens a session of a user without its opening.
func (st *stage) sit(u push.UserID, onWake func(*seat, transport.Share)) *seat {
	c := &seat{onWake: onWake}
	s := &session{room: st.room, conn: c, bookIndex: -1, names: string(u) + "web", userEnd: uint16(len(u)), deviceEnd: uint16(len(u) + 3)}
	s.shard = st.room.book.shard(saver.ShardRef{Product: product, Shard: push.ShardOf(u, shards)}, shards)
	s.state, s.booked = open, true
	for k := range s.slots {
		s.slots[k].at, s.slots[k].mode = theSlot, live
	}
	c.s = s
	s.shard.add(s)
	return c
}

// fill seats n users.
func (st *stage) fill(n int, onWake func(*seat, transport.Share)) []*seat {
	var all []*seat
	for i := range n {
		all = append(all, st.sit(push.UserID(fmt.Sprint("user", i)), onWake))
	}
	return all
}

func (st *stage) message(persistent bool) *push.Message {
	st.next++
	return &push.Message{ID: st.next, Persistent: persistent, Body: []byte("1"), Task: st.task}
}

// broadcast queues a live message to everyone.
func (st *stage) broadcast() push.MsgID {
	m := st.message(false)
	st.room.Deliver(&push.Delivery{Product: product, Message: m, Everyone: true})
	return m.ID
}

// common queues an entry of every shard's common slot.
func (st *stage) common(pos push.Position) push.MsgID {
	d := &push.Delivery{Product: product, Message: st.message(true)}
	for k := range shards {
		d.Common = append(d.Common, push.CommonPlace{Shard: push.Shard(k), Place: push.Place{Epoch: 1, Lineage: 1, Pos: pos}})
	}
	st.room.Deliver(d)
	return d.Message.ID
}

func (st *stage) unicast(u push.UserID) push.MsgID {
	m := st.message(false)
	st.room.Deliver(&push.Delivery{Product: product, Message: m, Users: []push.UserFilter{{User: u}}})
	return m.ID
}

// pass has the worker do one bulk pass, as its loop does.
func (st *stage) pass() {
	w := st.room.workers[0]
	w.deliverBulk(st.ctx, <-w.bulk)
}

// takes returns what is queued for a session, as its transport would take it.
func (c *seat) takes() []push.MsgID {
	var ids []push.MsgID
	b := &transport.Batch{MaxOuts: 16, MaxSize: 1 << 20}
	for c.s.Take(b) {
		for i := range b.Outs {
			ids = append(ids, b.Outs[i].Shared.Message().ID)
		}
		b.Reset()
	}
	return ids
}

func TestFanout_UnicastIsDeliveredBeforeABroadcastHasReachedAll(t *testing.T) {
	st := newStage(t, nil)
	const n = 20 * bulkChunk
	reached, before := 0, -1
	st.fill(n, func(_ *seat, share transport.Share) {
		if share != transport.Bulk {
			t.Error("a broadcast woke a session directly")
		}
		if reached++; reached == 1 { // the broadcast is under way
			st.unicast("alice")
		}
	})
	alice := st.sit("alice", func(_ *seat, share transport.Share) {
		if share == transport.Direct && before < 0 {
			before = reached
		}
	})
	st.broadcast()
	st.pass()
	if reached != n || len(alice.takes()) != 2 {
		t.Fatalf("the broadcast reached %d of %d sessions", reached, n)
	}
	if before < 0 || before > bulkChunk {
		t.Errorf("the broadcast had reached %d sessions before the unicast was delivered, want at most a chunk of %d", before, bulkChunk)
	}
}

func TestFanout_UnicastsDoNotStarveABroadcast(t *testing.T) {
	st := newStage(t, nil)
	const n = 8 * bulkChunk
	reached, unicasts := 0, 0
	st.fill(n, func(*seat, transport.Share) { reached++ })
	st.sit("alice", func(c *seat, share transport.Share) {
		if unicasts++; unicasts > 10*n {
			t.Fatal("the broadcast waits for ever")
		}
		c.takes()
		if reached < n {
			st.unicast("alice") // there is always another one
		}
	})
	st.unicast("alice")
	st.broadcast()
	st.pass()
	if reached != n {
		t.Errorf("the broadcast reached %d of %d sessions", reached, n)
	}
	if unicasts < n/bulkChunk {
		t.Errorf("%d unicasts were delivered meanwhile, want one for each of %d chunks", unicasts, n/bulkChunk)
	}
}

func TestFanout_WaitingBroadcastsWakeEachSessionOnceInTheirOrder(t *testing.T) {
	st := newStage(t, nil)
	seats := st.fill(3*bulkChunk, nil)
	var want []push.MsgID
	for i := range bulkTogether {
		if i%2 == 0 {
			want = append(want, st.broadcast())
		} else {
			want = append(want, st.common(theSlot.Pos+push.Position(i/2)+1))
		}
	}
	later := st.broadcast()
	st.pass()
	for _, c := range seats {
		if len(c.wakes) != 1 || c.wakes[0] != transport.Bulk {
			t.Fatalf("a session was woken %v for %d messages, want once", c.wakes, len(want))
		}
		if got := c.takes(); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	st.pass()
	if got := seats[0].takes(); !slices.Equal(got, []push.MsgID{later}) {
		t.Errorf("the next pass brought %v, want %v", got, later)
	}
	for _, bs := range st.room.book.list() {
		if len(bs.plan) != 0 {
			t.Error("a plan outlives its pass")
		}
	}
}

func TestFanout_WhoStaysIsMetOnceWhoeverLeavesMeanwhile(t *testing.T) {
	st := newStage(t, nil)
	next := 0
	sit := func(n int, onWake func(*seat, transport.Share)) (seats []*seat) {
		for len(seats) < n {
			next++
			if u := push.UserID(fmt.Sprint("user", next)); push.ShardOf(u, shards) == 0 { // a shard of several chunks
				seats = append(seats, st.sit(u, onWake))
			}
		}
		return seats
	}
	leaves := func(c *seat, _ transport.Share) { // whoever is last in the shard's list takes its place there
		c.s.shard.remove(c.s)
	}
	front := sit(2*bulkChunk, leaves)
	stay := sit(bulkChunk, nil)
	sit(bulkChunk, func(c *seat, _ transport.Share) { // and somebody comes, behind all
		leaves(c, transport.Bulk)
		sit(1, nil)
	})
	stay = append(stay, sit(bulkChunk, func(*seat, transport.Share) { // one of the first leaves, in case they come last
		leaves(front[0], transport.Bulk)
		front = front[1:]
	})...)
	id := st.broadcast()
	st.pass()
	for _, c := range stay {
		if got := c.takes(); !slices.Equal(got, []push.MsgID{id}) {
			t.Fatalf("who stayed throughout got %v, want %v once", got, id)
		}
	}
}

func TestFanout_WhoStaysMissesNothingWhileOthersComeAndGo(t *testing.T) {
	st := newStage(t, func(c *Config) { c.Deliverers, c.QueueMessages = 2, 1<<20 })
	const stay, rounds = 500, 400
	var seats []*seat
	for i := range stay {
		seats = append(seats, st.sit(push.UserID(fmt.Sprint("stays", i)), nil))
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, w := range st.room.workers {
		wg.Go(func() { w.run(ctx) })
	}
	var churn sync.WaitGroup
	var over atomic.Bool
	for g := range 3 {
		churn.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 7))
			var here []*seat
			for i := 0; !over.Load(); i++ {
				if len(here) < 300 && rng.IntN(2) == 0 {
					here = append(here, st.sit(push.UserID(fmt.Sprint("guest", g, i)), nil))
				} else if len(here) > 0 {
					k := rng.IntN(len(here))
					here[k].s.shard.remove(here[k].s)
					here = slices.Delete(here, k, k+1)
				}
			}
		})
	}
	var want []push.MsgID
	for i := range rounds {
		if i%3 == 2 {
			want = append(want, st.common(theSlot.Pos+push.Position(i/3)+1))
		} else {
			want = append(want, st.broadcast())
		}
		for _, w := range st.room.workers {
			for len(w.bulk) > bulkTogether { // a full inbox drops, which is not what is looked at
				runtime.Gosched()
			}
		}
	}
	for _, c := range seats { // the last one has come to everybody
		for {
			c.s.mu.Lock()
			n := c.s.queue.len()
			c.s.mu.Unlock()
			if n >= rounds {
				break
			}
			runtime.Gosched()
		}
	}
	over.Store(true)
	churn.Wait()
	stop()
	wg.Wait()
	for i, c := range seats {
		if got := c.takes(); !slices.Equal(got, want) {
			t.Fatalf("session %d got %d messages, want all %d once and in order", i, len(got), len(want))
		}
	}
}

func TestFanout_SweepLooksBehindTheBroadcastThatIsOnItsWay(t *testing.T) {
	st := newStage(t, nil)
	c := st.sit("alice", nil)
	news := bulkJob{behind: c.s.shard, place: push.Place{Epoch: 1, Lineage: 1, Pos: theSlot.Pos + 1}}
	st.common(theSlot.Pos + 1)
	st.room.workers[0].putBulk(news)
	st.pass()
	if c.s.holds != nil {
		t.Error("a session waits for an entry that it has")
	}
	news.place.Pos++ // its notification was lost
	st.room.workers[0].putBulk(news)
	st.pass()
	if c.s.holds == nil {
		t.Error("a session does not know that it misses an entry")
	}
	c.s.dropHeldLocked(push.Common)
}

func TestFanout_BroadcastMakesNoGarbageForASession(t *testing.T) {
	st := newStage(t, nil)
	seats := st.fill(1000, nil)
	b := &transport.Batch{MaxOuts: 16, MaxSize: 1 << 20}
	pos := theSlot.Pos
	for what, send := range map[string]func(){
		"a live message":            func() { st.broadcast() },
		"an entry of a common slot": func() { pos++; st.common(pos) },
	} {
		got := testing.AllocsPerRun(20, func() {
			send()
			st.pass()
			for _, c := range seats {
				c.wakes = c.wakes[:0]
				for c.s.Take(b) {
					b.Reset()
				}
			}
		})
		// The race detector has pools lose one in four.
		if perSession := got / float64(len(seats)); perSession > 0.5 {
			t.Errorf("%s makes %.2f allocations a session, want none", what, perSession)
		}
	}
}

func TestSession_WakesAgainOnlyForWhatIsMoreUrgent(t *testing.T) {
	st := newStage(t, nil)
	c := st.sit("alice", nil)
	woken := func(want ...transport.Share) {
		t.Helper()
		if !slices.Equal(c.wakes, want) {
			t.Fatalf("the transport was woken for %v, want %v", c.wakes, want)
		}
	}
	w := st.room.workers[0]
	st.broadcast()
	st.pass()
	st.broadcast()
	st.pass()
	woken(transport.Bulk)
	st.unicast("alice")
	w.deliverDirect()
	st.unicast("alice")
	w.deliverDirect()
	st.broadcast()
	st.pass()
	woken(transport.Bulk, transport.Direct)

	// One is left over. The transport comes again for it, with the bulk share, which the next unicast does not wait for.
	c.s.Take(&transport.Batch{MaxOuts: 4, MaxSize: 1 << 20})
	st.broadcast()
	st.pass()
	woken(transport.Bulk, transport.Direct)
	st.unicast("alice")
	w.deliverDirect()
	c.s.Receive(&wire.Ping{})
	woken(transport.Bulk, transport.Direct, transport.Direct)

	for c.s.Take(&transport.Batch{MaxOuts: 4, MaxSize: 1 << 20}) {
	}
	st.broadcast()
	st.pass()
	woken(transport.Bulk, transport.Direct, transport.Direct, transport.Bulk)
}

func TestSession_ClientIsNotSlowWhileItsTransportIsBusyWithOthers(t *testing.T) {
	broadcast := func(w *world) { w.publish(post{body: `1`, live: true}) }
	unicast := func(w *world) { w.publish(post{to: []push.UserID{"alice"}, body: `1`, live: true}) }
	cases := []struct {
		name  string
		take  bool                 // the transport has begun to write to this client, which then reads nothing
		every func(*world)         // happens every other second
		at    map[int]func(*world) // happens once, in that second
		want  wire.CloseCode       // after 16 s; the deadline is 10 s
	}{
		{name: "its turn has not come"},
		{name: "its turn has become urgent a moment ago", at: map[int]func(*world){8: unicast}},
		{name: "it reads nothing", take: true, want: wire.CloseSlow},
		{name: "it reads nothing, and more comes for everyone", take: true, every: broadcast, want: wire.CloseSlow},
		{name: "it reads nothing, and something urgent comes", take: true, at: map[int]func(*world){9: unicast}, want: wire.CloseSlow},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, oneRoom, nil, func(w *world) {
				d := w.connect("r1", "alice/phone/android", "")
				d.freeze()
				for range 4 {
					broadcast(w)
				}
				synctest.Wait()
				if c.take {
					d.sess.Take(&transport.Batch{MaxOuts: 1, MaxSize: 1})
				}
				for i := range 16 {
					if f := c.at[i]; f != nil {
						f(w)
					}
					if c.every != nil && i%2 == 0 {
						c.every(w)
					}
					time.Sleep(time.Second)
				}
				synctest.Wait()
				if got := d.closedWith(); got != c.want {
					t.Errorf("closed with %v, want %v", got, c.want)
				}
				d.thaw()
			})
		})
	}
}

// With a million sessions, one that is looked at every few seconds although nothing happens is a core's work.
func TestSession_IsLookedAtOnlyWhenItMayHaveToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, nil)
		c := st.sit("alice", nil)
		silent, slow := st.room.cfg.Heartbeat+st.room.cfg.Grace, st.room.cfg.WriteDeadline
		looks := func(what string, want time.Duration) {
			t.Helper()
			if got := time.Duration(c.s.timer.at) * wheelTick; got != want || c.s.deadline != moment(want) {
				t.Errorf("%s: looked at after %v (%v), want %v", what, got, time.Duration(c.s.deadline), want)
			}
		}
		take := func() bool { return c.s.Take(&transport.Batch{MaxOuts: 64, MaxSize: 1 << 20}) }
		c.s.tick(time.Now())
		looks("idle", silent)
		st.broadcast()
		st.pass()
		looks("its turn has not come", silent)
		take()
		looks("the transport writes", slow)
		time.Sleep(time.Second)
		c.s.Receive(&wire.Ping{})
		take()
		looks("and writes more", slow)
		for take() {
		}
		time.Sleep(slow)
		c.s.tick(time.Now())
		looks("idle again", time.Second+silent)
		c.s.Receive(&wire.Ping{})
		looks("a pong is due", time.Second+2*slow)
		c.s.mu.Lock()
		c.s.expires = push.Milli(time.Now().Add(5 * time.Second))
		c.s.lookLocked(st.room.now(), push.Milli(time.Now()))
		c.s.mu.Unlock()
		looks("its token runs out", time.Second+slow+5*time.Second)
	})
}

func TestSession_TellsWhatItHandedToItsTransport(t *testing.T) {
	st := newStage(t, nil)
	c := st.sit("alice", nil)
	sent := func(own, common push.Position) {
		t.Helper()
		live := st.room.Sessions(product, "alice")
		if len(live) != 1 || live[0].Sent[push.Own].Pos != own || live[0].Sent[push.Common].Pos != common {
			t.Fatalf("got %+v, want one session that was sent own %d and common %d", live, own, common)
		}
	}
	at := theSlot.Pos
	sent(at, at)
	for i := range push.Position(2) {
		c.s.mu.Lock()
		c.s.noticeLocked(push.Own, push.Place{Epoch: 1, Lineage: 1, Pos: at + i + 1}, wire.Out{Shared: wire.NewShared(st.message(true))}, nil)
		c.s.wakeAndUnlock(0, transport.Direct)
	}
	st.common(at + 1)
	st.pass()
	for _, want := range [][2]push.Position{{at, at}, {at + 1, at}, {at + 2, at}, {at + 2, at + 1}} {
		sent(want[0], want[1])
		c.s.Take(&transport.Batch{MaxOuts: 1, MaxSize: 1})
	}
}

// BenchmarkFanout brings broadcasts to 10 000 open sessions, which take them, without transports. An operation is one
// broadcast; waiting is how many go out in one pass.
func BenchmarkFanout(b *testing.B) {
	for _, waiting := range []int{1, bulkTogether} {
		b.Run(fmt.Sprint("waiting=", waiting), func(b *testing.B) {
			st := newStage(b, nil)
			const n = 10_000
			seats := st.fill(n, nil)
			batch := &transport.Batch{MaxOuts: 64, MaxSize: 1 << 20}
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; done += waiting {
				for range waiting {
					st.broadcast()
				}
				st.pass()
				for _, c := range seats {
					c.wakes = c.wakes[:0]
					for c.s.Take(batch) {
						batch.Reset()
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/delivery")
		})
	}
}

// BenchmarkCommon brings entries of common slots to 10 000 open sessions, which take them and have them acknowledged at once. Those of tasks are
// counted twice for each.
func BenchmarkCommon(b *testing.B) {
	for _, of := range []string{"plain", "task"} {
		b.Run(of, func(b *testing.B) {
			st := newStage(b, nil)
			st.task = of == "task"
			const n = 10_000
			seats := st.fill(n, nil)
			batch := &transport.Batch{MaxOuts: 64, MaxSize: 1 << 20}
			moved := &saver.Moved{Done: true, From: push.Cursor{theSlot, theSlot}, To: push.Cursor{theSlot, theSlot}}
			pos := theSlot.Pos
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				pos++
				moved.To[push.Common].Pos = pos
				st.common(pos)
				st.pass()
				for _, c := range seats {
					c.wakes = c.wakes[:0]
					for c.s.Take(batch) {
						batch.Reset()
					}
					c.s.noteMoved(moved)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/delivery")
		})
	}
}

// A worker that has nothing to do holds no session, or those that end would stay in memory.
func TestFanout_WorkerHoldsNoSessionAfterwards(t *testing.T) {
	st := newStage(t, nil)
	for range 3 {
		st.sit("alice", nil)
	}
	st.sit("bob", nil)
	st.room.Deliver(&push.Delivery{Product: product, Message: st.message(false), Users: []push.UserFilter{{User: "alice"}, {User: "bob"}}})
	st.broadcast()
	w := st.room.workers[0]
	w.deliverDirect()
	st.pass()
	for _, held := range [][]*session{w.scratch, w.all} {
		for i, s := range held[:cap(held)] {
			if s != nil {
				t.Errorf("place %d of %d still holds a session of %s", i, cap(held), s.user())
			}
		}
	}
}
