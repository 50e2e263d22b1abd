package room

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/admission"
	"carillon/server/auth"
	"carillon/server/clock"
	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/saver"
	"carillon/server/transport"
)

// Tokens verifies device tokens. *auth.Verifier is one.
type Tokens interface {
	// Verify returns who the token speaks for, or a *push.Error of KindUnauthenticated or KindForbidden whose code is
	// "token_expired", "token_refused" or the like.
	Verify(ctx context.Context, token string) (auth.Identity, error)
	// Recheck returns the refusal of somebody who was revoked after Verify let them in. Whoever revokes says so first, and
	// then has the room end what it holds (Kick); so the room asks once a session, or its new token, stands where Kick
	// looks, and one of the two sees the other.
	Recheck(ctx context.Context, id auth.Identity) error
}

// Policy is what a room needs to know of a product.
type Policy struct {
	Shards     int // never changes
	FirstVisit push.FirstVisit
	Limits     push.Limits         // with defaults
	Sessions   *push.SessionPolicy // may be nil
}

// Gate says which connections a node takes. *admission.Gate is one.
type Gate interface {
	// Admit asks for a place for a connection from that address, which may be invalid. An error is a *push.Error whose
	// After says when to come back. It does not block.
	Admit(from netip.Addr) (admission.Address, error)
	// Leave gives a place back.
	Leave(admission.Address)
}

// Config is what a room is given. Fields without a default named are required.
type Config struct {
	ID   push.RoomID
	Boot push.BootID // another at each start
	Addr string      // where other nodes reach the room; empty in a single process

	Saver    saver.Store
	Register register.Register
	Tokens   Tokens
	// Gate is asked for each connection before anything is done for it; nil lets everybody in.
	Gate Gate
	// Policy returns the policy of a product. It is asked at every connect, so it answers from memory.
	Policy func(ctx context.Context, p push.ProductID) (Policy, error)
	// Events is told what clients report of messages, one call for each, by several goroutines at once. It must not block. It
	// may be nil: they are counted all the same.
	Events func(Event)
	// Counts is told what becomes of messages of tasks, every second, and when the room stops; nil: nothing is counted. The room's life is its
	// ID and Boot.
	Counts Counts
	// Obey carries out what every room was told for certain since the last call: kicks, revocations, new tags. It is called at each
	// renewal of the lease, which does not count unless it succeeds. lost says that nobody knows what else the room was told: it
	// ends all its sessions, which come back. It may be nil.
	Obey func(ctx context.Context) (lost bool, err error)
	// Evict gives an order to another room at once. It may be nil or fail: the order comes with that room's next renewal too.
	Evict func(room push.RoomID, o register.Order)
	// Elsewhere asks other rooms whether they hold their leases, and reports whether one says so. It is called while this one
	// cannot renew its own, so it may not need the store. nil: there are no others.
	Elsewhere func(ctx context.Context) bool

	Clock   clock.Clock // clock.System
	Rand    *rand.Rand  // jitter; seeded from the system
	Log     *slog.Logger
	Metrics *Metrics // NewMetrics(nil)

	ConnectTimeout  time.Duration // from accept to the connect frame: 5 s
	Heartbeat       time.Duration // interval named in welcome, less up to a tenth: 30 s
	Heartbeats      Heartbeats    // where it is another; polls are held for 55 s
	Grace           time.Duration // added to it before a silent client is given up: 10 s
	Linger          time.Duration // between two polls, before their session is given up: 15 s
	Goodbye         Goodbye       // to those who are there when the room drains
	WriteDeadline   time.Duration // a client that took nothing for so long is cut: 10 s
	CloseTimeout    time.Duration // patience with a peer after the closing frame: 5 s
	HoldFor         time.Duration // a message out of turn waits so long for the one before it: 50 ms
	SweepEvery      time.Duration // change logs are read: 2 s
	CutOffAfter     time.Duration // without a lease for so long, clients are sent to rooms that have one: 60 s
	AckOwnEvery     time.Duration // acknowledgements of own slots are written: 250 ms
	AckCommonEvery  time.Duration // of common slots: 30 s
	QueueMessages   int           // 256 a session
	QueueBytes      int           // 256 KiB a session
	FrameBytes      int           // largest client frame, told in welcome: 16 KiB
	FramesPerSecond int           // of a client: 20
	Posts           int           // frames beside sessions, calls of Post in progress at once: 256
	Openers         int           // connects in progress at once: 256, so that many share a flush of the store
	Readers         int           // slot reads in progress at once: 4
	ReadBatch       int           // slots in one of them: 16
	Deliverers      int           // fan-out workers: GOMAXPROCS
	Pace            int           // messages a second that are handed to sessions in bulk; 0: as fast as it goes
	HeldTags        int           // different tags of sessions of which the register is told; with more the room may hold any: 100 000
	TailEntries     int           // newest entries of each common slot kept in memory: 256
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = clock.System
	}
	if c.Rand == nil {
		c.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	def(&c.ConnectTimeout, 5*time.Second)
	def(&c.Heartbeat, 30*time.Second)
	def(&c.Grace, 10*time.Second)
	def(&c.Linger, 15*time.Second)
	def(&c.Goodbye.Spread, goawaySpread)
	def(&c.WriteDeadline, 10*time.Second)
	def(&c.CloseTimeout, 5*time.Second)
	def(&c.HoldFor, 50*time.Millisecond)
	def(&c.SweepEvery, 2*time.Second)
	def(&c.CutOffAfter, 60*time.Second)
	def(&c.AckOwnEvery, 250*time.Millisecond)
	def(&c.AckCommonEvery, 30*time.Second)
	def(&c.QueueMessages, 256)
	def(&c.QueueBytes, 256<<10)
	def(&c.FrameBytes, 16<<10)
	def(&c.FramesPerSecond, 20)
	def(&c.Posts, 256)
	def(&c.Openers, 256)
	def(&c.Readers, 4)
	def(&c.ReadBatch, 16)
	def(&c.Deliverers, runtime.GOMAXPROCS(0))
	def(&c.TailEntries, 256)
	def(&c.HeldTags, 100_000)
	return c
}

func def[T ~int | ~int64](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

const wheelTick = 100 * time.Millisecond

// Room is one node's connections. Make it with New, start it with Run; Accept and Deliver may be called as soon as Run has
// joined the register (Joined).
type Room struct {
	// Static after construction.
	cfg   Config
	log   *slog.Logger
	m     *Metrics
	seed  maphash.Seed
	began time.Time
	beats *beats
	wheel *wheel
	book  *book
	tails *tails

	joined    chan struct{}     // closed once the room has its lease
	openings  *mailbox[opening] // connect frames to be worked on
	reads     *mailbox[reading] // slots to be read
	leavings  *mailbox[leaving] // sessions that ended
	workers   []*fanout
	pace      pacer // of all of them
	acks      ackBook
	loose     looseAcks
	tags      tagBook
	tally     *tally // nil: nothing is counted
	held      *heldTags
	entrances entrances
	posting   chan struct{} // holds a token for each call of Post; never closed
	renewed   atomic.Int64  // nanoseconds from began to the last good renewal, on the monotonic clock
	goodbye   atomic.Pointer[Goodbye]
	joins     atomic.Int64 // how often the lease was taken anew
	zombie    atomic.Bool  // a Take was refused since
	missed    atomic.Bool  // the lease was lost: what was appended meanwhile is in no log of this room

	back   *comeback // owned by leaseLoop: the lease was lost, and not every session is in the register again; nil: they are
	strays []stray   // owned by ackLoop

	// Guarded by mu.
	mu       sync.Mutex
	draining bool
	cutOff   bool                // the store is out of reach, and not for other rooms
	sessions []*session          // every one between Accept and Closed, each at its index
	places   []admission.Address // of each of them, where there is a gate
	rows     map[*session]push.SessionEpoch
	emptied  chan struct{} // closed when draining and the last session is gone
	rand     *rand.Rand
}

// New returns a room that is not running yet.
func New(cfg Config) (*Room, error) {
	cfg = cfg.withDefaults()
	switch {
	case cfg.ID == "" || cfg.Boot == 0:
		return nil, errors.New("room: an id and a boot id are needed")
	case cfg.Saver == nil || cfg.Register == nil || cfg.Tokens == nil || cfg.Policy == nil:
		return nil, errors.New("room: a saver, a register, a token verifier and a policy are needed")
	case cfg.Heartbeat < leastHeartbeat || cfg.QueueMessages < 1 || cfg.QueueBytes < 1 || cfg.FramesPerSecond < 1:
		return nil, errors.New("room: the heartbeat is at least a second, and limits are above zero")
	case cfg.Pace < 0:
		return nil, errors.New("room: the pace is above zero, or zero for none")
	case cfg.CutOffAfter < register.ZombieAfter:
		return nil, fmt.Errorf("room: a room that could not renew its lease is cut off after %v at the earliest", register.ZombieAfter)
	}
	beats, err := cfg.Heartbeats.compile(cfg.Heartbeat)
	if err != nil {
		return nil, err
	}
	r := &Room{
		cfg:      cfg,
		log:      cfg.Log.With("room", string(cfg.ID)),
		m:        cfg.Metrics,
		seed:     maphash.MakeSeed(),
		began:    cfg.Clock.Now(),
		beats:    beats,
		posting:  make(chan struct{}, cfg.Posts),
		book:     newBook(),
		rows:     make(map[*session]push.SessionEpoch),
		joined:   make(chan struct{}),
		openings: newMailbox[opening](),
		reads:    newMailbox[reading](),
		leavings: newMailbox[leaving](),
		emptied:  make(chan struct{}),
		rand:     cfg.Rand,
	}
	r.goodbye.Store(&r.cfg.Goodbye)
	r.pace.perSecond, r.pace.paid = cfg.Pace, -moment(paceTick) // nothing went out yet
	r.tails = newTails(cfg.TailEntries)
	r.held = newHeldTags(&r.cfg)
	r.tally = newTally(r)
	r.wheel = newWheel(cfg.Clock.Now(), wheelTick, (*session).tick)
	for i := range cfg.Deliverers {
		r.workers = append(r.workers, newFanout(r, i))
	}
	return r, nil
}

// Joined is closed once the room holds its lease and takes connections.
func (r *Room) Joined() <-chan struct{} { return r.joined }

// Run joins the register and serves until ctx ends; then it cuts whatever sessions are left, writes what they had
// acknowledged, and leaves the register. Call Drain first to let clients go gently. It is called once.
func (r *Room) Run(ctx context.Context) error {
	if err := r.join(ctx); err != nil {
		return err
	}
	// Workers live longer than ctx: they finish what the closing of sessions causes.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	var workers, loops sync.WaitGroup
	for range r.cfg.Openers {
		workers.Go(func() { r.openLoop(work) })
	}
	for range r.cfg.Readers {
		workers.Go(func() { r.readLoop(work) })
	}
	for _, w := range r.workers {
		workers.Go(func() { w.run(work) })
	}
	var leaver sync.WaitGroup
	leaver.Go(func() { r.ackLoop(work) })
	if r.tally != nil {
		workers.Go(func() { r.countLoop(work) })
	}
	workers.Go(func() { r.wheelLoop(work) })
	loops.Go(func() { r.leaseLoop(ctx) })
	loops.Go(func() { r.sweepLoop(ctx) })
	if r.cfg.Elsewhere != nil {
		loops.Go(func() { r.cutLoop(ctx) })
	}
	close(r.joined)

	<-ctx.Done()
	loops.Wait()
	r.refuseNew()
	for _, s := range r.snapshot() {
		s.conn.Cut(closeOnStop)
	}
	<-r.emptied // transports answer every Cut with Closed
	stop()
	workers.Wait()
	r.leavings.close()
	leaver.Wait() // has written the last acknowledgements
	if r.tally != nil {
		r.tally.hand(context.WithoutCancel(ctx))
	}
	bg, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return r.cfg.Register.Leave(bg, r.cfg.ID, r.cfg.Boot)
}

func (r *Room) wheelLoop(ctx context.Context) {
	t := r.cfg.Clock.NewTicker(wheelTick)
	defer t.Stop()
	var due []*session
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			due = r.wheel.advance(r.cfg.Clock.Now(), due)
		}
	}
}

// Accept makes the session of a connection. See transport.Acceptor.
func (r *Room) Accept(c transport.Conn, meta transport.Meta) (transport.Session, error) {
	var place admission.Address
	if r.cfg.Gate != nil {
		var err error
		if place, err = r.cfg.Gate.Admit(meta.Remote.Addr()); err != nil {
			return nil, err
		}
	}
	s := &session{room: r, conn: c, kind: numberOf(meta.Kind), manner: mannerOf(meta.Capabilities), bookIndex: -1}
	now := r.now()
	s.heard, s.progress = now, now
	s.deadline = now.add(r.cfg.ConnectTimeout)
	r.mu.Lock()
	if err := r.refusalLocked(); err != nil {
		r.mu.Unlock()
		if r.cfg.Gate != nil {
			r.cfg.Gate.Leave(place)
		}
		return nil, err
	}
	s.index = int32(len(r.sessions))
	r.sessions = append(r.sessions, s)
	if r.cfg.Gate != nil {
		r.places = append(r.places, place)
	}
	r.mu.Unlock()
	s.mu.Lock()
	r.wheel.arm(s, s.deadline)
	s.mu.Unlock()
	r.m.accepted(s.kind)
	return s, nil
}

// forget is the end of what Accept began.
func (r *Room) forget(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := len(r.sessions) - 1
	moved := r.sessions[last]
	if r.cfg.Gate != nil {
		r.cfg.Gate.Leave(r.places[s.index])
		r.places[s.index] = r.places[last]
		r.places = r.places[:last]
	}
	r.sessions[s.index], moved.index = moved, s.index
	r.sessions[last] = nil
	r.sessions = r.sessions[:last]
	delete(r.rows, s)
	if r.draining && len(r.sessions) == 0 {
		r.closeEmptiedLocked()
	}
}

func (r *Room) refuseNew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
	if len(r.sessions) == 0 {
		r.closeEmptiedLocked()
	}
}

func (r *Room) closeEmptiedLocked() {
	select {
	case <-r.emptied:
	default:
		close(r.emptied)
	}
}

func (r *Room) snapshot() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sessions)
}

// jitter returns a random duration below d.
func (r *Room) jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Duration(r.rand.Int64N(int64(d)))
}

// Unconfirmed returns for how long a client may confirm nothing of what was sent: transports have the kernel give it up then. The
// kernel's clock runs for one that reads nothing as well as for one that is gone, so it is told more than either deadline
// by half: who does not read is slow, and the room says so before the kernel says that it is lost.
func (r *Room) Unconfirmed() time.Duration { return max(r.cfg.Grace, r.cfg.WriteDeadline) * 3 / 2 }

// Count returns how many connections the room holds, those that have not said who they are included.
func (r *Room) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sessions)
}
