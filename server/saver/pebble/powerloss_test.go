package pebble

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"carillon/server/embedded"
	"carillon/server/idgenerator"
	idpebble "carillon/server/idgenerator/pebble"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/saver/savertest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// gatedFS lets the flushes of logs wait at a gate, so that what is written is visible for a while and not durable.
type gatedFS struct {
	vfs.FS
	gate *gate
}

type gate struct {
	mu     sync.Mutex
	closed chan struct{} // nil: open; otherwise closed when it opens
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == nil {
		g.closed = make(chan struct{})
	}
}

func (g *gate) isShut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed != nil
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		close(g.closed)
		g.closed = nil
	}
}

func (g *gate) pass() {
	g.mu.Lock()
	ch := g.closed
	g.mu.Unlock()
	if ch != nil {
		<-ch
	}
}

func (f *gatedFS) wrap(name string, file vfs.File, err error) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(name, ".log") {
		return file, err
	}
	return &gatedFile{file, f.gate}, nil
}

func (f *gatedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	return f.wrap(name, file, err)
}

func (f *gatedFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.ReuseForWrite(old, name, c)
	return f.wrap(name, file, err)
}

type gatedFile struct {
	vfs.File
	gate *gate
}

func (f *gatedFile) Sync() error {
	f.gate.pass()
	return f.File.Sync()
}

func (f *gatedFile) SyncData() error {
	f.gate.pass()
	return f.File.SyncData()
}

// world is a node that loses its power again and again, and what outlives it: publishers' and clients' memories.
type world struct {
	t       *testing.T
	r       *rand.Rand
	clock   *savertest.Clock
	clients []*honest

	// The present life.
	mem   *vfs.MemFS
	gate  *gate
	db    *embedded.DB
	store *Store
	ids   *idgenerator.Generator
	under sync.WaitGroup // publishers at work

	// Guarded by mu.
	mu    sync.Mutex
	dead  bool // the power is gone: what is answered now, nobody hears
	life  int
	sent  []*sending
	tasks int64
	seen  map[push.MsgID]bool
}

// sending is one thing that a publisher wants to be sent.
type sending struct {
	ref   string
	users []push.UserID // empty: everyone
	acked push.MsgID    // 0: never answered well

	// Of a task's batch to users of one shard.
	batch  *push.Message // nil: it is none
	token  uint64        // the highest that somebody tried to raise
	raised uint64        // the highest of which it was answered that it is raised
}

// honest is a client that handles whatever it is given, and remembers.
type honest struct {
	user    push.UserID
	device  push.DeviceID
	cursor  push.Cursor
	handled map[string]bool
}

const worldShards = 4

// dave and erin have no devices: what they were sent stays.
var worldUsers = []push.UserID{"alice", "bob", "dave", "erin"}

func (w *world) boot() {
	w.t.Helper()
	w.gate = &gate{}
	var err error
	if w.db, err = embedded.Open(embedded.Config{Dir: "data", FS: &gatedFS{w.mem, w.gate}}); err != nil {
		w.t.Fatal(err)
	}
	if w.store, err = New(Config{DB: w.db, Clock: w.clock}); err != nil {
		w.t.Fatal(err)
	}
	blocks, err := idpebble.New(idpebble.Config{DB: w.db, Clock: w.clock})
	if err != nil {
		w.t.Fatal(err)
	}
	if w.ids, err = idgenerator.New(blocks, idgenerator.Config{Block: 1 + w.r.Int64N(64)}); err != nil {
		w.t.Fatal(err)
	}
	w.dead = false
	w.life++
}

// cut takes the power away at this moment, and boots what is left.
func (w *world) cut() {
	w.t.Helper()
	w.mu.Lock()
	keep := []int{0, 0, 20, 60, 95}[w.r.IntN(5)]
	left := w.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: w.r})
	w.dead = true
	w.mu.Unlock()
	w.stop()
	w.mem = left
	w.clock.Advance(time.Second)
	w.boot()
}

func (w *world) stop() {
	w.gate.open()
	w.under.Wait()
	_ = w.store.Close()
	_ = w.db.Close()
}

func (w *world) shut() {
	w.gate.shut()
}

// publish starts a publication, a new one or a repetition of an old one, and does not wait for it.
func (w *world) publish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	var s *sending
	if len(w.sent) > 0 && w.r.IntN(4) == 0 {
		s = w.sent[w.r.IntN(len(w.sent))]
	}
	if s == nil || s.batch != nil {
		s = &sending{ref: fmt.Sprintf("m%d", len(w.sent))}
		for _, i := range w.r.Perm(len(worldUsers))[:w.r.IntN(len(worldUsers)+1)] {
			s.users = append(s.users, worldUsers[i])
		}
		w.sent = append(w.sent, s)
	}
	store, ids, life := w.store, w.ids, w.life
	w.under.Go(func() { w.doPublish(store, ids, life, s) })
}

func (w *world) doPublish(store *Store, ids *idgenerator.Generator, life int, s *sending) {
	ctx := context.Background()
	id, err := ids.Next(ctx)
	if err != nil || !w.noteID(life, id) {
		return
	}
	p := &saver.Publication{
		Product: "shop", Shards: worldShards, Limits: push.Limits{}.WithDefaults(), TTL: 24 * time.Hour,
		Message: &push.Message{ID: id, Ref: s.ref, Persistent: true, Body: []byte(`"` + s.ref + `"`)},
		Key:     saver.IdempotencyKey(s.ref), Digest: saver.Digest{1},
		Everyone: len(s.users) == 0,
	}
	for _, u := range s.users {
		p.Own = append(p.Own, saver.Target{User: u})
	}
	r := store.Publish(ctx, []*saver.Publication{p})[0]
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead || w.life != life {
		return
	}
	switch {
	case r.Err != nil:
		w.t.Errorf("%s: %v", s.ref, r.Err)
	case s.acked != 0 && r.Message.ID != s.acked: // of two at once, either may be heard first
		w.t.Errorf("%s was answered as %d, and its repetition as %d", s.ref, s.acked, r.Message.ID)
	default:
		s.acked = r.Message.ID
	}
}

// batch starts a batch of a task, a new one or a repetition, under the token that counts, under one that is raised for it, or under an old one, and does not
// wait for it.
func (w *world) batch() {
	w.mu.Lock()
	defer w.mu.Unlock()
	var s *sending
	if len(w.sent) > 0 && w.r.IntN(3) > 0 {
		s = w.sent[w.r.IntN(len(w.sent))]
	}
	if s == nil || s.batch == nil {
		s = &sending{ref: fmt.Sprintf("m%d", len(w.sent))}
		shard := push.ShardOf(worldUsers[w.r.IntN(len(worldUsers))], worldShards)
		for _, u := range worldUsers {
			if push.ShardOf(u, worldShards) == shard {
				s.users = append(s.users, u)
			}
		}
		w.tasks++
		s.batch = &push.Message{ID: push.MsgID(1<<50 + w.tasks), Ref: s.ref, Persistent: true, Created: w.clock.Milli(), Body: []byte(`"` + s.ref + `"`)}
		s.batch.Expires = s.batch.Created.Add(24 * time.Hour)
		w.sent = append(w.sent, s)
	}
	raise := s.token == 0 || w.r.IntN(3) == 0
	if raise {
		s.token++
	}
	token := s.token
	if !raise && token > 1 && w.r.IntN(2) == 0 {
		token-- // somebody who does not know
	}
	store, life := w.store, w.life
	w.under.Go(func() { w.doBatch(store, life, s, token, raise) })
}

func (w *world) doBatch(store *Store, life int, s *sending, token uint64, raise bool) {
	ctx := context.Background()
	if raise {
		err := store.Fence(ctx, saver.Fence{
			Product: "shop", Shards: worldShards, ID: s.batch.ID, Token: token, Until: s.batch.Expires.Add(saver.RecordKept), Message: s.batch,
		})
		w.mu.Lock()
		if heard := !w.dead && w.life == life; heard && err == nil {
			s.raised = max(s.raised, token)
		} else if heard && (push.KindOf(err) != push.KindConflict || s.token == token) {
			w.t.Errorf("%s: raising token %d: %v", s.ref, token, err)
		}
		w.mu.Unlock()
		if err != nil {
			return
		}
	}
	w.mu.Lock()
	raised := s.raised
	w.mu.Unlock()
	b := &saver.Batch{
		Product: "shop", Shards: worldShards, Limits: push.Limits{}.WithDefaults(), Message: s.batch, Token: token,
		Shard: push.ShardOf(s.users[0], worldShards), Number: 3,
	}
	for _, u := range s.users {
		b.Own = append(b.Own, saver.Target{User: u})
	}
	r := store.Batches(ctx, []*saver.Batch{b})[0]
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead || w.life != life {
		return
	}
	switch {
	case r.Err == nil && token < raised:
		w.t.Errorf("%s was written under token %d after %d was raised", s.ref, token, raised)
	case r.Err == nil:
		s.acked = s.batch.ID
	case push.KindOf(r.Err) != push.KindConflict || token == s.token && s.raised == token:
		w.t.Errorf("%s under token %d, with %d raised: %v", s.ref, token, s.raised, r.Err)
	}
}

// noteID looks for an id that was given before, in whatever life, and reports whether this life goes on.
func (w *world) noteID(life int, id push.MsgID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead || w.life != life {
		return false
	}
	if w.seen[id] {
		w.t.Errorf("id %d was given twice", id)
	}
	w.seen[id] = true
	return true
}

// connect opens a client's device with what it shows, and goes on from there.
func (w *world) connect(c *honest) {
	w.t.Helper()
	o := saver.Open{
		UserRef:    saver.UserRef{Product: "shop", Shards: worldShards, User: c.user},
		Facts:      push.DeviceFacts{Device: c.device},
		Limits:     push.Limits{}.WithDefaults(),
		FirstVisit: push.FirstVisit{First: push.StartBeginning, Later: push.StartBeginning, Common: push.StartBeginning},
	}
	if w.r.IntN(3) > 0 {
		o.Presented = &c.cursor
	}
	ctx := context.Background()
	if w.gate.isShut() { // nothing is told before it is flushed
		impatient, cancel := context.WithCancel(ctx)
		cancel()
		ctx = impatient
	}
	opened, err := w.store.Open(ctx, o)
	if push.KindOf(err) == push.KindUnavailable && ctx.Err() != nil {
		return
	}
	if err != nil {
		w.t.Fatal(err)
	}
	c.cursor = push.Cursor{opened.Starts[0].At, opened.Starts[1].At}
}

// receive lets a client read a few entries of each slot and handle them. Half of the time it is told what is not durable, as
// Read never does, so that the lineages are put to the test too.
func (w *world) receive(c *honest, most int) {
	w.t.Helper()
	ref := saver.UserRef{Product: "shop", Shards: worldShards, User: c.user}
	for k := range c.cursor {
		rq := saver.Read{
			ShardRef: ref.Shard(), Slot: push.SlotKind(k), User: c.user, From: c.cursor[k], MaxEntries: most, MaxBytes: 1 << 20,
		}
		tail, ok := w.read(rq)
		if !ok {
			continue
		}
		if tail.State.Epoch == 0 {
			continue
		}
		for _, e := range tail.Entries {
			if e.Lost || e.Message == nil {
				w.t.Fatalf("entry %d of %s has no body", e.Pos, c.user)
			}
			c.handled[e.Message.Ref] = true
		}
		c.cursor[k] = push.Place{Epoch: tail.State.Epoch, Lineage: tail.State.Lineage(), Pos: tail.Through}
	}
}

// read reads a slot; false: what it would have told is not durable.
func (w *world) read(rq saver.Read) (saver.Tail, bool) {
	w.t.Helper()
	if w.r.IntN(2) == 0 {
		var tail saver.Tail
		if err := w.store.read(&rq, &tail); err != nil {
			w.t.Fatal(err)
		}
		return tail, true
	}
	impatient, cancel := context.WithCancel(context.Background())
	cancel()
	tails, err := w.store.Read(impatient, []saver.Read{rq})
	if push.KindOf(err) == push.KindUnavailable {
		return saver.Tail{}, false
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return tails[0], true
}

func (w *world) ack(c *honest) {
	w.t.Helper()
	_, err := w.store.Ack(context.Background(), []saver.Ack{{
		UserRef: saver.UserRef{Product: "shop", Shards: worldShards, User: c.user}, Device: c.device, Places: c.cursor,
	}})
	if err != nil {
		w.t.Fatal(err)
	}
}

// contents returns how often each message lies in a slot, by ref.
func (w *world) contents(k push.SlotKind, shard push.Shard, u push.UserID) map[string]int {
	w.t.Helper()
	got := make(map[string]int)
	tails, err := w.store.Read(context.Background(), []saver.Read{{
		ShardRef: saver.ShardRef{Product: "shop", Shard: shard}, Slot: k, User: u, MaxEntries: 1 << 20, MaxBytes: 1 << 30,
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range tails[0].Entries {
		got[e.Message.Ref]++
	}
	return got
}

// check looks for what was answered and is gone, for halves, and for what is there twice.
func (w *world) check() {
	w.t.Helper()
	own := make(map[push.UserID]map[string]int)
	for _, u := range []push.UserID{"dave", "erin"} {
		own[u] = w.contents(push.Own, push.ShardOf(u, worldShards), u)
	}
	var common []map[string]int
	for sh := range push.Shard(worldShards) {
		common = append(common, w.contents(push.Common, sh, ""))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sent {
		var counts []int
		if len(s.users) == 0 {
			for _, c := range common {
				counts = append(counts, c[s.ref])
			}
		}
		for _, u := range s.users {
			if c, ok := own[u]; ok {
				counts = append(counts, c[s.ref])
			}
		}
		for _, n := range counts {
			if n > 1 || n != counts[0] || n == 0 && s.acked != 0 {
				w.t.Fatalf("life %d: %s to %v, acked %d, lies in its slots %v times", w.life, s.ref, s.users, s.acked, counts)
			}
		}
		if s.acked != 0 && s.batch == nil {
			if _, err := w.store.Message(context.Background(), "shop", s.acked); err != nil {
				w.t.Fatalf("life %d: %s was answered and has no record: %v", w.life, s.ref, err)
			}
		}
	}
}

// finish lets every client catch up, and looks for what it was owed and never got.
func (w *world) finish() {
	w.t.Helper()
	w.gate.open()
	w.under.Wait()
	w.check()
	for _, c := range w.clients {
		w.connect(c)
		for range 12 { // some of them may be refused
			w.receive(c, 1<<20)
		}
		for _, s := range w.sent {
			mine := len(s.users) == 0
			for _, u := range s.users {
				mine = mine || u == c.user
			}
			if mine && s.acked != 0 && !c.handled[s.ref] {
				w.t.Errorf("%s of %s never got %s", c.device, c.user, s.ref)
			}
		}
	}
	w.stop()
}

// TestStore_PowerLoss cuts the power at random moments of random work, with flushes held back so that readers see and
// acknowledge what is then lost and its positions given to others.
func TestStore_PowerLoss(t *testing.T) {
	const seeds, cuts, steps = 30, 10, 40
	for seed := range uint64(seeds) {
		w := &world{
			t: t, r: rand.New(rand.NewPCG(seed, 3)), clock: savertest.NewClock(), mem: vfs.NewCrashableMem(),
			seen: make(map[push.MsgID]bool),
		}
		for _, u := range []push.UserID{"alice", "bob"} {
			for _, d := range []push.DeviceID{"phone", "laptop"} {
				w.clients = append(w.clients, &honest{user: u, device: d, handled: make(map[string]bool)})
			}
		}
		w.boot()
		for _, c := range w.clients {
			w.connect(c)
		}
		for range cuts {
			for range w.r.IntN(steps) {
				w.step()
			}
			w.cut()
			w.check()
		}
		w.finish()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func (w *world) step() {
	w.t.Helper()
	c := w.clients[w.r.IntN(len(w.clients))]
	switch n := w.r.IntN(25); {
	case n >= 20:
		w.batch()
	case n < 8:
		w.publish()
	case n < 11:
		w.receive(c, 1+w.r.IntN(10))
	case n < 13:
		w.ack(c)
	case n < 15:
		w.shut()
	case n < 17:
		w.gate.open()
	case n < 18:
		w.connect(c)
	case n < 19:
		w.clock.Advance(time.Duration(w.r.IntN(50)) * time.Millisecond)
	default:
		if err := w.store.Sweep(context.Background()); err != nil {
			w.t.Fatal(err)
		}
	}
	for range w.r.IntN(50) {
		runtime.Gosched()
	}
}
