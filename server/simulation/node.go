package simulation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/center"
	"carillon/server/clock"
	"carillon/server/embedded"
	"carillon/server/idgenerator"
	idmemory "carillon/server/idgenerator/memory"
	idpebble "carillon/server/idgenerator/pebble"
	"carillon/server/push"
	"carillon/server/register"
	registermemory "carillon/server/register/memory"
	"carillon/server/room"
	"carillon/server/saver"
	savermemory "carillon/server/saver/memory"
	saverpebble "carillon/server/saver/pebble"
	"carillon/server/task"
	taskpebble "carillon/server/task/pebble"
	"carillon/server/transport"
	"carillon/server/wire"
)

// backend is what lies below rooms and center: the stores, the register, the ids. On the memory store it outlives every
// process, as a Redis would; on the embedded one it is a part of the one process there is, and dies with it.
type backend struct {
	clock  *hands
	reg    *registermemory.Register
	saver  saver.Store
	blocks idgenerator.Blocks
	tasks  task.Store

	mem       *savermemory.Store // of the memory store
	memBlocks *idmemory.Blocks

	disk   *disk // of the embedded one
	db     *embedded.DB
	pebble *saverpebble.Store
	cancel context.CancelFunc // of its background work
	done   chan error
}

// roomProc is one room, through all its lives. Everything is the driver's, where nothing else is said.
type roomProc struct {
	w     *world
	id    push.RoomID
	boots int

	room    *room.Room
	link    *link
	clock   *hands
	cancel  context.CancelFunc
	done    chan error
	conns   []served // of this life
	running bool
	joined  bool // it has its lease and takes connections
	busy    bool // it is being stopped, or waits to be started again

	unregistered atomic.Bool // the register cannot be reached
	outages      int         // how often that began
}

func (r *roomProc) up() bool { return r.running && r.joined }

// centerProc is center in its present life.
type centerProc struct {
	handler http.Handler
	link    *link
	alive   bool
	clock   *hands             // its own, where it runs tasks
	cancel  context.CancelFunc // ends that; nil: it runs none
}

// registry is a room's way to the register: it ends with the process, and may be cut.
type registry struct {
	register.Register
	of   *roomProc
	link *link // that of this life
}

func (r *registry) err() error {
	if r.link.killed.Load() || r.of.unregistered.Load() {
		return &push.Error{Kind: push.KindUnavailable, Code: "register_unavailable"}
	}
	return nil
}

func (r *registry) Join(ctx context.Context, room register.Room) error {
	return orElse(r.err(), func() error { return r.Register.Join(ctx, room) })
}

func (r *registry) Renew(ctx context.Context, room push.RoomID, boot push.BootID) (o []register.Order, err error) {
	err = orElse(r.err(), func() (err error) { o, err = r.Register.Renew(ctx, room, boot); return err })
	return o, err
}

func (r *registry) Insert(ctx context.Context, s register.Session, l []push.SessionLimit) (in register.Inserted, err error) {
	err = orElse(r.err(), func() (err error) { in, err = r.Register.Insert(ctx, s, l); return err })
	r.of.w.noteOff(&in)
	return in, err
}

func (r *registry) Remove(ctx context.Context, k register.Key, e push.SessionEpoch, boot push.BootID) (ok bool, err error) {
	err = orElse(r.err(), func() (err error) { ok, err = r.Register.Remove(ctx, k, e, boot); return err })
	return ok, err
}

func (r *registry) Leave(ctx context.Context, room push.RoomID, boot push.BootID) error {
	return orElse(r.err(), func() error { return r.Register.Leave(ctx, room, boot) })
}

func (r *registry) TellTags(ctx context.Context, room push.RoomID, boot push.BootID, news register.TagNews) error {
	return orElse(r.err(), func() error { return r.Register.TellTags(ctx, room, boot, news) })
}

func orElse(err error, f func() error) error {
	if err != nil {
		return err
	}
	return f()
}

// seeded is a source of bytes that are the same for the same seed.
type seeded struct{ l *lane }

func (s seeded) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.l.Uint64())
	}
	return len(b), nil
}

// steady gives the same number to all who ask at one moment: so it does not matter in which order a room that drains
// goes over its sessions.
type steady struct{ w *world }

func (s steady) Uint64() uint64 {
	x := uint64(s.w.sched.now()) ^ s.w.sched.seed<<32
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (b *backend) isBroken() bool { return b.db != nil && b.db.Health() != nil }

// openBackend opens the stores, empty or as they were left.
func (w *world) openBackend() error {
	w.boots++ // so that no lane draws what one of an earlier life drew
	name := fmt.Sprintf("backend/%d", w.boots)
	b := &backend{clock: newHands(w.sched.lane(name + "/clock"))}
	b.clock.skew = w.skew
	b.reg = registermemory.New(registermemory.Config{Clock: b.clock})
	b.tasks = w.tasks
	random := seeded{w.sched.lane(name + "/random")}
	if !w.opt.Pebble {
		mem, err := savermemory.New(savermemory.Config{Clock: b.clock, Rand: random, Locator: b.reg, Limits: w.limits})
		if err != nil {
			return err
		}
		b.mem, b.saver = mem, mem
		b.memBlocks = idmemory.New(idmemory.Config{Clock: b.clock})
		b.blocks = b.memBlocks
		w.back = b
		return nil
	}
	if w.fs == nil {
		w.fs = vfs.NewCrashableMem()
	}
	b.disk = newDisk(w.fs)
	var err error
	if b.db, err = embedded.Open(embedded.Config{Dir: "data", FS: b.disk, Rand: random, CacheBytes: 1 << 20}); err != nil {
		return fmt.Errorf("simulation: open the database: %w", err)
	}
	if b.pebble, err = saverpebble.New(saverpebble.Config{
		DB: b.db, Clock: b.clock, Rand: random, Locator: b.reg, Limits: w.limits,
	}); err != nil {
		return fmt.Errorf("simulation: open the saver: %w", err)
	}
	b.saver = b.pebble
	if b.blocks, err = idpebble.New(idpebble.Config{DB: b.db, Clock: b.clock}); err != nil {
		return fmt.Errorf("simulation: open the ids: %w", err)
	}
	if w.opt.tasks {
		if b.tasks, err = taskpebble.New(taskpebble.Config{DB: b.db, Clock: b.clock}); err != nil {
			return fmt.Errorf("simulation: open the tasks: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel, b.done = cancel, make(chan error, 1)
	go func() { b.done <- b.pebble.Run(ctx) }()
	w.back = b
	return nil
}

// closeBackend ends the stores of a process that ended. What they say does not count.
func (w *world) closeBackend() {
	b := w.back
	if b.disk != nil {
		b.disk.stall(false)
		b.cancel()
		<-b.done
	}
	_ = b.saver.Close()
	if b.db != nil && w.opt.tasks {
		_ = b.tasks.Close()
	}
	if b.db != nil {
		_ = b.db.Close()
	}
	_ = b.reg.Close()
	b.clock.stop()
}

// startCenter starts the center that is asked.
func (w *world) startCenter() (err error) {
	w.center, err = w.newCenter("center")
	return err
}

// newCenter starts a center over the backend.
func (w *world) newCenter(kind string) (*centerProc, error) {
	w.centers++
	name := fmt.Sprintf("%s/%d", kind, w.centers)
	k := w.link(name, w.back.saver)
	ids, err := idgenerator.New(w.back.blocks, idgenerator.Config{Block: w.opt.idBlock})
	if err != nil {
		return nil, err
	}
	keys, err := auth.NewAPIKeys(auth.APIConfig{Keys: w.catalog, Clock: w.back.clock})
	if err != nil {
		return nil, err
	}
	clock := w.back.clock
	if w.opt.tasks {
		clock = newHands(w.sched.lane(name + "/clock"))
		clock.skew = w.skew
	}
	c, err := center.New(center.Config{
		Saver: k, Register: w.back.reg, Rooms: notifier{w, k}, Catalog: w.catalog, Tasks: taskLink{w.back.tasks, k}, Holder: name, Keys: keys, IDs: &turnstile{ids: ids, link: k},
		Secret: "a secret that nobody asks for here", Rand: seeded{w.sched.lane(name + "/random")}, Clock: clock,
	})
	if err != nil {
		return nil, err
	}
	proc := &centerProc{handler: c.Public(), link: k, alive: true, clock: clock}
	if w.opt.tasks {
		proc.runTasks(c.RunTasks)
	}
	return proc, nil
}

// startRoom starts a room that is down.
func (w *world) startRoom(r *roomProc) error {
	r.boots++
	w.lives++
	name := fmt.Sprintf("room/%s/%d", r.id, w.lives)
	r.link = w.link(name, w.back.saver)
	r.clock = newHands(w.sched.lane(name + "/clock"))
	r.clock.skew = w.skew
	tokens, err := auth.NewVerifier(auth.Config{Keys: w.catalog, Clock: r.clock})
	if err != nil {
		return err
	}
	o := &w.opt
	var counts room.Counts
	if o.tasks {
		counts = w.back.tasks
	}
	r.room, err = room.New(room.Config{
		Counts: counts,
		ID:     r.id, Boot: push.BootID(w.lives), Addr: string(r.id), Saver: r.link,
		Register: &registry{Register: w.back.reg, of: r, link: r.link}, Tokens: tokens, Policy: w.policy, Evict: w.evict,
		Clock: r.clock, Rand: rand.New(steady{w}),
		Heartbeat: o.heartbeat, Grace: o.grace, Linger: o.grace,
		Heartbeats: room.Heartbeats{{Transport: transport.LongPoll}: o.heartbeat}, WriteDeadline: writeDeadline, CloseTimeout: 2 * time.Second,
		QueueMessages: o.queue, TailEntries: o.tail,
		Openers: 1, Readers: 1, Deliverers: 1, ReadBatch: 1,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.done, r.conns = cancel, make(chan error, 1), nil
	run := r.room
	r.running, r.joined = true, false
	go func() { r.done <- run.Run(ctx) }()
	joined := w.sched.lane(name + "/joined")
	go func() {
		select {
		case <-run.Joined():
			joined.after(0, func() { r.joined = r.joined || r.room == run })
		case <-ctx.Done():
		}
	}()
	return nil
}

// killRoom ends a room as a signal would that cannot be caught: nothing that it had not sent or stored is sent or stored any
// more. Its clients find their connections broken, soon, or only by their own patience.
func (w *world) killRoom(r *roomProc) {
	r.link.kill()
	if !r.running {
		return // or stops already
	}
	r.running = false
	for _, c := range r.conns {
		device := c.events().between(leastDelay, 2*time.Second)
		if c.events().chance(4) {
			device = -1
		}
		c.darken(-1, device)
	}
	w.endRoom(r)
}

// endRoom has the goroutines of a killed room end.
func (w *world) endRoom(r *roomProc) {
	r.cancel()
	settle()
	for _, c := range r.conns {
		c.finish(wire.CloseLost)
		settle()
	}
	<-r.done
	r.clock.stop()
	r.conns = nil
}

// stopRoom ends a room gently, and has f run when it is down.
func (w *world) stopRoom(r *roomProc, f func()) {
	r.running = false
	r.cancel()
	settle() // it may be done already
	var poll func()
	poll = func() {
		select {
		case err := <-r.done:
			// It may be cut off from the register, not even have joined it, or die on its way out.
			if err != nil && !r.link.killed.Load() && push.KindOf(err) != push.KindUnavailable && !errors.Is(err, context.Canceled) {
				w.fault("room %s: %v", r.id, err)
			}
			r.clock.stop()
			r.conns = nil
			f()
		default:
			w.script.after(20*time.Millisecond, poll)
		}
	}
	poll()
}

// drain has the room say goodbye to everybody, and does not wait for them to go.
func (r *roomProc) drain() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = r.room.Drain(ctx) // says that they are not gone
}

// policy tells a room what it needs to know of a product.
func (w *world) policy(ctx context.Context, p push.ProductID) (room.Policy, error) {
	prod, err := w.catalog.LookupProduct(ctx, p)
	if err != nil {
		return room.Policy{}, err
	}
	return room.Policy{
		Shards: prod.Shards, FirstVisit: prod.FirstVisit.WithDefaults(), Limits: prod.Limits.WithDefaults(), Sessions: prod.Sessions,
	}, nil
}

func (w *world) limits(p push.ProductID) push.Limits {
	prod, err := w.catalog.LookupProduct(context.Background(), p)
	if err != nil {
		return push.Limits{}.WithDefaults()
	}
	return prod.Limits.WithDefaults()
}

// evict carries an order to another room, or loses it: then it comes with that room's next renewal.
func (w *world) evict(id push.RoomID, o register.Order) {
	l := w.sched.lane(fmt.Sprintf("evict/%s/%d", id, o.Epoch))
	if l.chance(3) {
		return
	}
	l.after(l.between(leastDelay, mostDelay), func() {
		if r := w.roomOf(id); r != nil && r.up() {
			r.room.Evict(o)
		}
	})
}

// notifier is push.Rooms over a network that delays, reorders and loses notifications.
type notifier struct {
	w    *world
	link *link // of the process whose it is: a dead one notifies nobody
}

func (n notifier) Deliver(id push.RoomID, d *push.Delivery) {
	w := n.w
	if n.link.killed.Load() {
		return
	}
	// The lane is named by what is delivered, whichever publisher is first.
	what := d.Recall
	if d.Message != nil {
		what = d.Message.ID
	}
	kind := fmt.Sprint(d.Message == nil)
	if d.IsBare() {
		kind, what = fmt.Sprint("place of shard ", d.Common[0].Shard), push.MsgID(d.Common[0].Place.Pos)
	}
	l := w.sched.lane(fmt.Sprintf("deliver/%s/%s/%d/%s", id, d.Product, what, kind))
	if (d.Message == nil || d.Message.Persistent) && l.chance(w.opt.dropHints) {
		return
	}
	most := w.opt.hintDelay
	if w.healed {
		most = mostDelay
	}
	l.after(l.between(0, most), func() {
		if r := w.roomOf(id); r != nil && r.up() {
			r.room.Deliver(d)
		}
	})
}

func (n notifier) Sessions(_ context.Context, p push.ProductID, u push.UserID) ([]push.LiveSession, error) {
	var all []push.LiveSession
	for _, r := range n.w.rooms {
		if r.up() {
			all = append(all, r.room.Sessions(p, u)...)
		}
	}
	return all, nil
}

func (n notifier) End(_ context.Context, p push.ProductID, u push.UserID, d push.DeviceID) error {
	for _, r := range n.w.rooms {
		if r.up() {
			r.room.End(p, u, d)
		}
	}
	return nil
}

func (n notifier) Retag(ctx context.Context, p push.ProductID, users []push.UserID) error {
	for _, r := range n.w.rooms {
		if r.up() {
			if err := r.room.Retag(ctx, p, users); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n notifier) Kick(ctx context.Context, p push.ProductID, u push.UserID, k push.Kick) (push.Kicked, error) {
	var out push.Kicked
	for _, r := range n.w.rooms {
		if r.up() {
			ended, err := r.room.Kick(ctx, p, u, k)
			if err != nil {
				return out, err
			}
			out.Sessions += ended
		}
	}
	return out, nil
}

var errDown = errors.New("simulation: nobody answers")

// answer is what an HTTP request came back with.
type answer struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}
func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

// call makes one request of a product's server. An error means that there was no answer.
func (w *world) call(l *lane, p *product, method, path, key string, body []byte) (*answer, error) {
	c := w.center
	if !c.alive {
		return nil, errDown
	}
	ctx := context.WithValue(context.Background(), laneKey{}, l)
	req, err := http.NewRequestWithContext(ctx, method, "http://center"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+p.apiKey)
	switch {
	case path == "/v1/lists":
		req.Header.Set("Content-Type", "text/csv")
	case body != nil:
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	a := &answer{header: make(http.Header)}
	c.handler.ServeHTTP(a, req)
	if c.link.killed.Load() {
		return nil, errDown // it died before it could answer
	}
	return a, nil
}

var (
	_ saver.Store     = (*link)(nil)
	_ clock.Clock     = (*hands)(nil)
	_ catalog.Catalog = (*catalog.Cache)(nil)
)
