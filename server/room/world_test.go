package room

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/clock"
	"carillon/server/push"
	"carillon/server/register"
	registermemory "carillon/server/register/memory"
	"carillon/server/saver"
	savermemory "carillon/server/saver/memory"
	"carillon/server/transport"
	"carillon/server/wire"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

const (
	product = push.ProductID("shop")
	shards  = 4
)

// world is a store, a register and some rooms on virtual time.
type world struct {
	t      *testing.T
	saver  *gate
	memory *savermemory.Store
	reg    register.Register
	policy Policy
	rooms  map[push.RoomID]*Room
	nextID push.MsgID
	ctx    context.Context
	stop   []func()

	counts counter
	live   map[push.MsgID]bool // messages that are not persistent

	dropAll bool // lose every notification
}

// inWorld runs f in a world with the named rooms, and checks afterwards that the rooms are left with nothing.
func inWorld(t *testing.T, rooms []push.RoomID, tune func(*world, *Config), f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, rooms: make(map[push.RoomID]*Room), nextID: 1000, ctx: t.Context()}
		reg := newRegister(t)
		w.reg = reg
		mem, err := savermemory.New(savermemory.Config{Clock: clock.System, Rand: rand.Reader, Locator: reg})
		if err != nil {
			t.Fatal(err)
		}
		w.memory = mem
		w.saver = &gate{Store: mem}
		w.policy = Policy{Shards: shards, FirstVisit: push.FirstVisit{}.WithDefaults(), Limits: push.Limits{}.WithDefaults()}
		for i, id := range rooms {
			w.start(id, push.BootID(i+1), tune)
		}
		defer func() { // also when f fails: with rooms that run, virtual time has no end
			for _, stop := range slices.Backward(w.stop) {
				stop()
			}
			if err := w.reg.Close(); err != nil {
				t.Error(err)
			}
			if err := mem.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(w)
	})
}

func newRegister(t testing.TB) *registermemory.Register {
	t.Helper()
	return registermemory.New(registermemory.Config{Clock: clock.System})
}

func (w *world) start(id push.RoomID, boot push.BootID, tune func(*world, *Config)) *Room {
	w.t.Helper()
	cfg := Config{
		ID: id, Boot: boot, Saver: w.saver, Register: w.reg, Tokens: tokens{},
		Counts: &w.counts,
		Policy: func(_ context.Context, p push.ProductID) (Policy, error) {
			if !strings.HasPrefix(string(p), string(product)) {
				return Policy{}, push.Errorf(push.KindNotFound, "product_not_found", "there is no such product")
			}
			return w.policy, nil
		},
	}
	if tune != nil {
		tune(w, &cfg)
	}
	r, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.rooms[id] = r
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Joined()
	stopped := false
	w.stop = append(w.stop, func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("room %s: %v", id, err)
		}
		w.leftNothing(r)
	})
	return r
}

// leftNothing recounts what a room holds after everybody left.
func (w *world) leftNothing(r *Room) {
	w.t.Helper()
	if n := r.Count(); n != 0 {
		w.t.Errorf("room %s still holds %d sessions", r.cfg.ID, n)
	}
	if n := len(r.rows); n != 0 {
		w.t.Errorf("room %s still keeps the rows of %d sessions", r.cfg.ID, n)
	}
	if n := len(r.tags.of); n != 0 {
		w.t.Errorf("room %s still keeps the tags of %d sessions", r.cfg.ID, n)
	}
	for k, e := range r.held.of {
		if e.n != 0 {
			w.t.Errorf("room %s still counts %d times the tag %s", r.cfg.ID, e.n, k.Tag)
		}
	}
	w.recount(r, true)
	if n := r.wheel.count(); n != 0 {
		w.t.Errorf("room %s: %d sessions are still armed", r.cfg.ID, n)
	}
	for _, bs := range r.book.list() {
		if n, m := len(bs.users), len(bs.all); n+m != 0 {
			w.t.Errorf("room %s: the book still holds %d users and %d sessions of shard %d", r.cfg.ID, n, m, bs.ref.Shard)
		}
	}
}

// tokens takes "user/device/platform" or "user/device/platform/lifetime" for a token.
type tokens struct{}

func (tokens) Verify(_ context.Context, token string) (auth.Identity, error) {
	parts := strings.Split(token, "/")
	if len(parts) < 3 {
		return auth.Identity{}, push.Errorf(push.KindUnauthenticated, "token_refused", "this token does not hold")
	}
	p, ok := push.ParsePlatform(parts[2])
	if !ok {
		return auth.Identity{}, push.Errorf(push.KindUnauthenticated, "token_refused", "this token does not hold")
	}
	id := auth.Identity{Product: &catalog.Product{ID: product}, User: push.UserID(parts[0]), Device: push.DeviceID(parts[1]), Platform: p}
	if len(parts) > 3 {
		d, err := time.ParseDuration(parts[3])
		if err != nil {
			return auth.Identity{}, push.Errorf(push.KindUnauthenticated, "token_refused", "this token does not hold")
		}
		id.Expires = time.Now().Add(d)
	}
	if len(parts) > 4 {
		id.Product = &catalog.Product{ID: push.ProductID(parts[4])}
	}
	return id, nil
}

func (tokens) Recheck(context.Context, auth.Identity) error { return nil }

// gate is a store whose calls a test can make wait or fail.
type gate struct {
	saver.Store
	mu     sync.Mutex
	onRead func([]saver.Read) error
	onAck  func([]saver.Ack) error
	onOpen func() error
	after  func() // a read or an open was carried out, and its result is not handed over yet
	reads  int

	tagsErr   error // of every look at tags
	changeErr error // of every change of tags
	changes   int   // calls that change tags
}

func (g *gate) hooks() (r func([]saver.Read) error, a func([]saver.Ack) error, o func() error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.onRead, g.onAck, g.onOpen
}

func (g *gate) set(f func(g *gate)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(g)
}

func (g *gate) readCount() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reads
}

func (g *gate) Read(ctx context.Context, rs []saver.Read) ([]saver.Tail, error) {
	g.set(func(g *gate) { g.reads += len(rs) })
	if f, _, _ := g.hooks(); f != nil {
		if err := f(rs); err != nil {
			return nil, err
		}
	}
	tails, err := g.Store.Read(ctx, rs)
	g.carriedOut()
	return tails, err
}

func (g *gate) carriedOut() {
	g.mu.Lock()
	f := g.after
	g.after = nil
	g.mu.Unlock()
	if f != nil {
		f()
	}
}

func (g *gate) Tags(ctx context.Context, us []saver.UserRef) ([]saver.UserTags, error) {
	g.mu.Lock()
	err := g.tagsErr
	g.mu.Unlock()
	if err != nil {
		return nil, err
	}
	tags, err := g.Store.Tags(ctx, us)
	g.carriedOut()
	return tags, err
}

func (g *gate) ChangeTags(ctx context.Context, cs []saver.TagChange) []saver.TagsChanged {
	g.mu.Lock()
	err := g.changeErr
	g.changes++
	g.mu.Unlock()
	if err == nil {
		return g.Store.ChangeTags(ctx, cs)
	}
	out := make([]saver.TagsChanged, len(cs))
	for i := range out {
		out[i].Err = err
	}
	return out
}

func (g *gate) Ack(ctx context.Context, as []saver.Ack) ([]int, error) {
	if _, f, _ := g.hooks(); f != nil {
		if err := f(as); err != nil {
			return nil, err
		}
	}
	return g.Store.Ack(ctx, as)
}

func (g *gate) Open(ctx context.Context, o saver.Open) (saver.Opened, error) {
	if _, _, f := g.hooks(); f != nil {
		if err := f(); err != nil {
			return saver.Opened{}, err
		}
	}
	opened, err := g.Store.Open(ctx, o)
	g.carriedOut()
	return opened, err
}

// post is a publication on its way; the zero to means everyone.
type post struct {
	to       []push.UserID
	filter   *push.Filter
	body     string
	live     bool
	collapse string
	ttl      time.Duration
	silent   bool // store it, and notify nobody
	bare     bool // notify without the body
	plain    bool // it is no task's
}

func (w *world) message(p post) *push.Message {
	w.nextID++
	return &push.Message{
		ID: w.nextID, Body: []byte(p.body), CollapseKey: p.collapse, Persistent: !p.live, Created: push.Milli(time.Now()), Task: !p.plain,
	}
}

// publish stores and notifies, and returns the id.
func (w *world) publish(p post) push.MsgID {
	w.t.Helper()
	id, notify := w.store(p)
	if !p.silent && !w.dropAll {
		notify()
	}
	return id
}

// store stores a publication and returns how to notify the rooms of it.
func (w *world) store(p post) (push.MsgID, func()) {
	w.t.Helper()
	m := w.message(p)
	if p.live {
		if w.live == nil {
			w.live = make(map[push.MsgID]bool)
		}
		w.live[m.ID] = true
		d := &push.Delivery{Product: product, Message: m, Everyone: len(p.to) == 0, Filter: p.filter}
		for _, u := range p.to {
			d.Users = append(d.Users, push.UserFilter{User: u, Filter: p.filter})
		}
		return m.ID, func() {
			for _, r := range w.rooms {
				r.Deliver(d)
			}
		}
	}
	pub := &saver.Publication{
		Product: product, Shards: shards, Limits: w.policy.Limits, Message: m, TTL: time.Hour, Everyone: len(p.to) == 0,
	}
	if p.ttl != 0 {
		pub.TTL = p.ttl
	}
	if pub.Everyone {
		pub.Filter = p.filter
	}
	for _, u := range p.to {
		pub.Own = append(pub.Own, saver.Target{User: u, Filter: p.filter})
	}
	res := w.saver.Publish(w.ctx, []*saver.Publication{pub})[0]
	if res.Err != nil {
		w.t.Fatal(res.Err)
	}
	d := w.deliveryOf(res.Own, res.Common, p.filter)
	d.Message, d.Lineage = res.Message, res.Lineage
	if p.bare {
		d.Message = nil
	}
	return m.ID, func() {
		for _, r := range w.rooms {
			r.Deliver(d)
		}
	}
}

func (w *world) deliveryOf(own, common []saver.Placed, f *push.Filter) *push.Delivery {
	d := &push.Delivery{Product: product, Filter: f}
	for _, p := range own {
		d.Own = append(d.Own, push.OwnPlace{User: p.User, Place: p.Place, Filter: f})
	}
	for _, p := range common {
		d.Common = append(d.Common, push.CommonPlace{Shard: p.Shard, Place: p.Place})
	}
	return d
}

func (w *world) recall(id push.MsgID) {
	w.t.Helper()
	res, err := w.saver.Recall(w.ctx, saver.Recall{Product: product, Shards: shards, Limits: w.policy.Limits, ID: id})
	if err != nil {
		w.t.Fatal(err)
	}
	var f *push.Filter
	for _, p := range slices.Concat(res.Own, res.Common) {
		f = p.Filter // in these tests the same for all
	}
	d := w.deliveryOf(res.Own, res.Common, f)
	d.Recall, d.Lineage = id, res.Lineage
	if !w.dropAll {
		for _, r := range w.rooms {
			r.Deliver(d)
		}
	}
}

// device is a client: a transport and a peer in one. It keeps what it was sent, and its cursor as a real client would.
type device struct {
	w        *world
	kind     transport.Kind
	sess     transport.Session
	room     *Room
	wakes    chan struct{}
	answered chan struct{} // of polls: holds a token after an answer

	mu     sync.Mutex
	frozen bool
	dark   bool // the peer is gone and has not said so: what is written arrives nowhere
	waits  bool // a poll does
	code   wire.CloseCode
	closed wire.CloseCode
	cut    bool
	frames []wire.Frame
	writes int
	got    []push.MsgID // messages and, negative, recalls, as they came
	cursor string
	done   chan struct{}
}

// connect has a device connect to a room and waits until nothing moves any more.
func (w *world) connect(room push.RoomID, token, cursor string) *device {
	w.t.Helper()
	d := w.dial(room)
	d.send(&wire.Connect{Version: wire.Version, Token: token, Cursor: cursor})
	synctest.Wait()
	return d
}

// capabilities are those of the transports that devices play.
var capabilities = map[transport.Kind]transport.Capabilities{
	transport.WebSocket: {Encoding: wire.JSON, Duplex: true, Close: true},
	transport.TCP:       {Encoding: wire.Binary, Duplex: true},
	transport.SSE:       {Encoding: wire.JSON},
	transport.LongPoll:  {Encoding: wire.JSON, Polls: true},
}

func (w *world) dial(room push.RoomID) *device {
	w.t.Helper()
	return w.dialOver(transport.WebSocket, room)
}

// connectOver is connect over another transport. What polls is left to poll by itself.
func (w *world) connectOver(kind transport.Kind, room push.RoomID, token, cursor string) *device {
	w.t.Helper()
	d := w.dialOver(kind, room)
	d.send(&wire.Connect{Version: wire.Version, Token: token, Cursor: cursor})
	if kind == transport.LongPoll {
		go d.keepPolling()
	}
	synctest.Wait()
	return d
}

func (w *world) dialOver(kind transport.Kind, room push.RoomID) *device {
	w.t.Helper()
	d := &device{
		w: w, kind: kind, room: w.rooms[room], wakes: make(chan struct{}, 1), answered: make(chan struct{}, 1), done: make(chan struct{}),
	}
	s, err := d.room.Accept(d, transport.Meta{Kind: kind, Capabilities: capabilities[kind]})
	if err != nil {
		w.t.Fatal(err)
	}
	d.sess = s
	go d.pump()
	return d
}

func (d *device) signal() {
	select {
	case d.wakes <- struct{}{}:
	default:
	}
}

func (d *device) Wake(transport.Share) { d.signal() }

func (d *device) Close(code wire.CloseCode) {
	d.mu.Lock()
	if d.code == 0 {
		d.code = code
	}
	d.mu.Unlock()
	d.signal()
}

func (d *device) Cut(code wire.CloseCode) {
	d.mu.Lock()
	if d.code == 0 {
		d.code = code
	}
	d.cut = true
	d.mu.Unlock()
	d.signal()
}

// pump is the transport's side.
func (d *device) pump() {
	defer close(d.done)
	b := &transport.Batch{MaxOuts: 16, MaxSize: 64 << 10}
	for range d.wakes {
		gave := false
		for d.writable() {
			b.Reset()
			if !d.sess.Take(b) {
				break
			}
			gave = true
			d.note(b)
		}
		d.mu.Lock()
		over := d.cut || d.code != 0 && !d.frozen && (d.kind != transport.LongPoll || d.waits)
		code := d.code
		if gave {
			d.waits = false
		}
		d.mu.Unlock()
		if over {
			d.sess.Closed(code)
			d.mu.Lock()
			d.closed = code
			d.mu.Unlock()
			return
		}
		if gave && d.kind == transport.LongPoll {
			d.sess.(transport.PollSession).PollOver()
			d.answered <- struct{}{}
		}
	}
}

// writable reports whether the transport may take something.
func (d *device) writable() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.frozen && (d.kind != transport.LongPoll || d.waits)
}

// poll has a poll arrive, which acknowledges what the device has.
func (d *device) poll(wait time.Duration) {
	d.mu.Lock()
	cursor := d.cursor
	d.mu.Unlock()
	d.sess.(transport.PollSession).Poll(cursor, wait)
	d.mu.Lock()
	d.waits = true // not before, or it might be over before it was there
	d.mu.Unlock()
	d.signal()
}

// keepPolling polls again and again, a moment after each answer, as long as the device lives.
func (d *device) keepPolling() {
	for {
		d.poll(time.Minute)
		select {
		case <-d.answered:
		case <-d.done:
			return
		}
		d.mu.Lock()
		dark := d.dark
		d.mu.Unlock()
		if dark {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-d.done:
			return
		}
	}
}

// answer waits until a poll is answered.
func (d *device) answer() {
	d.w.t.Helper()
	d.await(d.answered, "no answer comes")
}

// gone waits until the connection is.
func (d *device) gone() {
	d.w.t.Helper()
	d.await(d.done, "the session does not end")
}

func (d *device) await(c <-chan struct{}, what string) {
	d.w.t.Helper()
	select {
	case <-c:
	case <-time.After(time.Hour):
		d.w.t.Fatalf("%s: %s", d.kind, what)
	}
}

// goDark has the peer vanish without a word. Writes succeed, since the kernel takes them. Where the session hears nothing of
// its client, the kernel tells in the end that nobody acknowledged them.
func (d *device) goDark() {
	d.mu.Lock()
	d.dark = true
	d.mu.Unlock()
}

func (d *device) note(b *transport.Batch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes++
	if d.dark {
		if d.kind == transport.SSE { // as TCP_USER_TIMEOUT has it
			time.AfterFunc(d.room.Unconfirmed(), func() { d.Cut(wire.CloseLost) })
		}
		return
	}
	for i := range b.Outs {
		f, err := wire.DecodeServer(wire.JSON, wire.AppendOut(nil, wire.JSON, &b.Outs[i]))
		if err != nil {
			d.w.t.Errorf("a client cannot read what it was sent: %v", err)
			continue
		}
		d.frames = append(d.frames, f)
		switch f := f.(type) {
		case *wire.Welcome:
			d.cursor = f.Cursor
		case *wire.Cursor:
			d.cursor = f.Cursor
		case *wire.Message:
			d.got = append(d.got, f.ID)
			d.moveLocked(f.Slot, f.Pos)
		case *wire.Recall:
			d.got = append(d.got, -f.ID)
			d.moveLocked(f.Slot, f.Pos)
		case *wire.Gap:
			if f.Reason != wire.GapReset { // a reset says that the cursor begins anew, which welcome or cursor told
				d.moveLocked(f.Slot, f.To)
			}
		}
	}
}

// moveLocked moves the cursor as api/README.md has clients do it.
func (d *device) moveLocked(k push.SlotKind, pos push.Position) {
	if k > push.Common {
		return
	}
	o, c, err := push.ParseCursor(d.cursor)
	if err != nil {
		d.w.t.Errorf("cursor %q: %v", d.cursor, err)
		return
	}
	if pos <= c[k].Pos {
		d.w.t.Errorf("slot %v went back from %d to %d", k, c[k].Pos, pos)
	}
	c[k].Pos = pos
	d.cursor = string(push.AppendCursor(nil, o, c))
}

func (d *device) send(f wire.Frame) { d.sess.Receive(f) }

// ack acknowledges everything received.
func (d *device) ack() {
	d.mu.Lock()
	c := d.cursor
	d.mu.Unlock()
	d.send(&wire.Ack{Cursor: c})
}

func (d *device) freeze() {
	d.mu.Lock()
	d.frozen = true
	d.mu.Unlock()
}

func (d *device) thaw() {
	d.mu.Lock()
	d.frozen = false
	d.mu.Unlock()
	d.signal()
}

// leave breaks the connection and waits until the room is done with it.
func (d *device) leave() {
	d.Cut(wire.CloseLost)
	<-d.done
	synctest.Wait()
}

func (d *device) writeCount() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writes
}

func (d *device) received() []push.MsgID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.got)
}

func (d *device) theCursor() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cursor
}

func (d *device) closedWith() wire.CloseCode {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// framesOf returns the frames of one type that the device was sent.
func framesOf[F wire.Frame](d *device) []F {
	d.mu.Lock()
	defer d.mu.Unlock()
	var fs []F
	for _, f := range d.frames {
		if f, ok := f.(F); ok {
			fs = append(fs, f)
		}
	}
	return fs
}

func (d *device) want(ids ...push.MsgID) {
	d.w.t.Helper()
	if got := d.received(); !slices.Equal(got, ids) {
		d.w.t.Errorf("got messages %v, want %v", got, ids)
	}
}
