package simulation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/auth"
	"carillon/server/client"
	"carillon/server/history"
	"carillon/server/push"
	"carillon/server/wire"
)

// device is one installation of the client library. Everything is the driver's, where nothing else is said.
type device struct {
	w        *world
	p        *product
	id       history.Device
	platform push.Platform
	token    string
	tags     []string // of its token
	liar     bool     // it says what is not so: nothing is owed to it
	lane     *lane
	storage  storage
	life     *life         // nil: it does not run
	lives    int           // so far
	raws     int           // bare connections so far
	bare     []*bare       // those that are open
	twins    time.Duration // until then one of them may take the device's place
	away     time.Duration // when its present life ends, it comes back after that; 0: not by itself
	forget   int           // when its present life ends: 0 keeps the storage, 1 falls back to what was flushed, 2 loses it
	frozen   time.Duration // since when its side does not read; below zero: it reads
	blocked  atomic.Bool   // it cannot reach anybody
	shunned  bool          // somebody kicked it, not all of its user, at least once
	outcast  bool          // it stays away until somebody opens it again
	welcomed bool          // guarded by storage.mu: it was online at least once

	asked []history.Record // guarded by storage.mu: the answers to what it asked to join, as they are noted when they come
}

// storage is a device's memory: what was saved survives a crash, what was flushed also a loss of its power.
type storage struct {
	mu             sync.Mutex
	saved, flushed client.State // guarded by mu
}

// life is one run of the client in a device. A dead one changes nothing any more, whatever it still does.
type life struct {
	d      *device
	n      int
	clock  *hands
	lane   *lane           // its handler's
	ctx    context.Context // of its client
	cancel context.CancelFunc
	client *client.Client
	dead   atomic.Bool

	mu      sync.Mutex
	conn    end           // guarded by mu; the last it dialed
	dials   int           // guarded by mu
	acked   string        // guarded by mu; the cursor that it acknowledged last
	kind    int           // guarded by mu; of conn, an index of kinds
	not     int           // guarded by mu; the kind that it does not dial next: an index of kinds, below zero for none
	session uint64        // owned by the client's goroutine, and the driver's once the client ended
	since   time.Duration // the same: of its first welcome
	told    bool          // the same; that it is to stay away
	kick    *wire.Kick    // the same, and the driver's once the client ended; nil: it was not kicked

	changing bool // the driver's: a change of tags is on its way to the client
}

var errCrashed = errors.New("simulation: the device crashed")

func (w *world) addDevice(p *product, user, name string, liar bool) *device {
	id := history.Device{Product: string(p.id), User: user, Device: name}
	d := &device{w: w, p: p, id: id, liar: liar, lane: w.sched.lane("device/" + id.Product + "/" + user + "/" + name), frozen: -1}
	d.platform = push.PlatformWeb
	claims := auth.Claims{
		Product: p.id, User: push.UserID(user), Device: push.DeviceID(name), Platform: d.platform,
		Expires: w.sched.began.Add(24 * time.Hour), TokenID: d.tokenID(),
	}
	if w.opt.tags {
		d.tags = some(w.sched.lane("token/"+id.Product+"/"+user+"/"+name), tokenTags)
		claims.Tags, claims.TagPatterns = d.tags, []string{"own/*"}
		w.noteToken(d)
	}
	token, err := auth.Mint(p.signing, claims)
	if err != nil {
		panic(err) // a key that was made for it
	}
	d.token = token
	w.devices = append(w.devices, d)
	return d
}

// tokenID is the id of the one token that the device has.
func (d *device) tokenID() string { return d.id.User + "/" + d.id.Device }

func (w *world) deviceOf(p *product, user, name string) *device {
	i := slices.IndexFunc(w.devices, func(d *device) bool { return d.p == p && d.id.User == user && d.id.Device == name })
	if i < 0 {
		return nil
	}
	return w.devices[i]
}

// Load returns what was saved.
func (v *life) Load(context.Context) (client.State, error) {
	s := &v.d.storage
	s.mu.Lock()
	defer s.mu.Unlock()
	return client.State{Cursor: s.saved.Cursor, IDs: slices.Clone(s.saved.IDs)}, nil
}

// Save replaces what was saved.
func (v *life) Save(_ context.Context, st client.State) error {
	s := &v.d.storage
	s.mu.Lock()
	defer s.mu.Unlock()
	if !v.dead.Load() {
		s.saved = st
	}
	return nil
}

// Flush makes it survive more.
func (v *life) Flush(context.Context) error {
	s := &v.d.storage
	s.mu.Lock()
	defer s.mu.Unlock()
	if !v.dead.Load() {
		s.flushed = s.saved
	}
	return nil
}

// Dial connects to the room that an address names.
func (v *life) Dial(ctx context.Context, url string) (client.Conn, error) {
	v.mu.Lock()
	v.dials++
	name := fmt.Sprintf("%s/%s/%s/%d/%d", v.d.id.Product, v.d.id.User, v.d.id.Device, v.n, v.dials)
	v.mu.Unlock()
	r := v.d.w.roomOf(push.RoomID(url))
	if r == nil {
		return nil, errRefused
	}
	c, kind, err := v.d.w.dial(ctx, v.d.caller(v.lane, name, v.lastAck), r, v.avoided())
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	v.conn, v.kind, v.not = c, kind, -1
	v.mu.Unlock()
	return c, nil
}

// turnAway has the next connection be of another kind than the present one, where there are several. Driver.
func (v *life) turnAway() {
	v.mu.Lock()
	v.not = v.kind
	v.mu.Unlock()
}

func (v *life) avoided() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.not
}

func (d *device) caller(l *lane, name string, acked func() string) caller {
	return caller{
		lane: l, name: name, token: d.token, blocked: d.blocked.Load, acked: acked,
		late: func(since time.Duration) { d.w.note(history.Record{Kind: history.Stall, Device: d.id, Since: since}) },
	}
}

func (v *life) lastAck() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.acked
}

func (v *life) lastConn() end {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.conn
}

// start begins a life.
func (d *device) start() {
	if d.life != nil {
		return
	}
	d.outcast = false
	w := d.w
	d.lives++
	name := fmt.Sprintf("life/%s/%s/%s/%d", d.id.Product, d.id.User, d.id.Device, d.lives)
	v := &life{d: d, n: d.lives, clock: newHands(w.sched.lane(name + "/clock")), lane: w.sched.lane(name), not: -1}
	v.clock.oneTicker = true
	urls := []string{"room1", "room2"}
	if d.lane.IntN(2) == 0 {
		slices.Reverse(urls)
	}
	random := w.sched.lane(name + "/random")
	c, err := client.New(client.Config{
		URLs: urls, Tokens: client.StaticToken(d.token), Storage: v, Dialer: v, Clock: v.clock, Random: random.Float64,
		Backoff: client.Backoff{Base: 200 * time.Millisecond, Max: 4 * time.Second}, ConnectTimeout: 4 * time.Second,
		WriteTimeout: 4 * time.Second, Callbacks: v.callbacks(),
	})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	v.ctx, v.cancel, v.client = ctx, cancel, c
	d.life = v
	ended := w.sched.lane(name + "/ended")
	go func() {
		err := c.Run(ctx)
		ended.after(0, func() { d.ended(v, err) })
	}()
}

// ended is the end of a life, of whatever cause. Driver.
func (d *device) ended(v *life, err error) {
	v.cancel()
	v.clock.stop()
	d.life = nil
	if err != nil && !errors.Is(err, errCrashed) && !d.isAsked(err) {
		d.w.fault("%v ended: %v", d.id, err)
	}
	d.judgeKick(v)
	d.thaw()
	d.lapse()
	if away := d.away; d.isShunned(err) && !d.w.healed {
		d.w.pass(kickedAway)
		d.outcast = true
	} else if away > 0 {
		d.lane.after(away, d.start)
	} else if err != nil && !d.w.healed { // kicked, or crashed in its handler
		d.lane.after(d.lane.between(100*time.Millisecond, 3*time.Second), d.start)
	} else if err != nil {
		d.lane.after(100*time.Millisecond, d.start)
	}
	d.away = 0
}

// isAsked reports whether the server had a reason to send the device away.
func (d *device) isAsked(err error) bool {
	var c *client.ClosedError
	return d.isShunned(err) || errors.As(err, &c) && (c.Code == wire.CloseReplaced || c.Code == wire.ClosePolicy && d.p.rejects)
}

// openedLate is how long after it was asked for a session may still be opened.
const openedLate = 40 * time.Second

// judgeKick holds the rooms to this: a client that comes back, or whose polls come to one room and another, does not send itself away by that.
// Connects that its device gave up before this client was welcomed name no session of it, and may still do so if they are opened late.
func (d *device) judgeKick(v *life) {
	if v.kick == nil || v.kick.Code != wire.CloseReplaced {
		return
	}
	off, ok := d.w.offs.Load(v.session)
	if !ok || off.(time.Duration) < d.twins {
		return
	}
	v.mu.Lock()
	first := d.lives == 1 && v.dials == 1
	v.mu.Unlock()
	if !first && off.(time.Duration) < v.since+openedLate {
		return
	}
	if string(v.kick.By) == d.id.Device || v.kick.By == "" && !d.w.opt.policies {
		d.w.fault("%v was told that its device connected again, and there was no other process of it", d.id)
	}
}

// lapse is what happens to the storage of a device that is not running.
func (d *device) lapse() {
	s := &d.storage
	s.mu.Lock()
	defer s.mu.Unlock()
	switch d.forget {
	case 0:
		return
	case 1:
		s.saved = s.flushed
	case 2:
		s.saved, s.flushed = client.State{}, client.State{}
	}
	d.forget = 0
	d.w.note(history.Record{Kind: history.Forget, Device: d.id})
}

// quit has the client leave, with its goodbye. Driver.
func (d *device) quit() {
	if v := d.life; v != nil {
		d.thaw()
		settle() // it reads what waited before it hears that it is to go
		v.cancel()
	}
}

// crash ends the client at once. Driver.
func (d *device) crash() {
	v := d.life
	if v == nil {
		return
	}
	v.dead.Store(true)
	if c := v.lastConn(); c != nil {
		server := d.lane.between(leastDelay, time.Second)
		if d.lane.chance(4) {
			server = -1
		}
		c.darken(server, 0)
	}
	v.cancel()
}

// freeze has the device's side of its connection not read.
func (d *device) freeze(for_ time.Duration) {
	v := d.life
	if v == nil || d.frozen >= 0 {
		return
	}
	c := v.lastConn()
	if c == nil {
		return
	}
	d.frozen = d.w.sched.now()
	c.freeze(true)
	d.lane.after(for_, d.thaw)
}

// thaw ends that. What the device takes in the next moment was sent to it long before.
func (d *device) thaw() {
	if d.frozen < 0 {
		return
	}
	since := d.frozen
	d.frozen = -1
	if v := d.life; v != nil {
		if c := v.lastConn(); c != nil {
			c.freeze(false)
		}
	}
	// Everything of that connection is late; two seconds are enough for it to be read.
	d.lane.after(2*time.Second, func() { d.w.note(history.Record{Kind: history.Stall, Device: d.id, Since: since}) })
}

// callbacks note what the application sees, and sometimes have it crash there.
func (v *life) callbacks() client.Callbacks {
	d, w := v.d, v.d.w
	return client.Callbacks{
		Message: func(_ context.Context, m *wire.Message) error {
			if v.dead.Load() || !w.healed && v.lane.IntN(300) == 0 {
				v.dead.Store(true)
				return errCrashed
			}
			w.note(history.Record{
				Kind: history.Deliver, Device: d.id, Session: v.session, ID: m.ID.String(), Body: string(m.Body),
				Slot: int(m.Slot), Pos: uint64(m.Pos),
			})
			if !w.healed && v.lane.IntN(300) == 0 {
				w.note(history.Record{Kind: history.Crash, Device: d.id, ID: m.ID.String()})
				v.dead.Store(true)
				return errCrashed
			}
			return nil
		},
		Gap: func(_ context.Context, g *wire.Gap) {
			if !v.dead.Load() {
				w.note(history.Record{Kind: history.Gap, Device: d.id, Slot: int(g.Slot), Pos: uint64(g.To), Reset: g.Reason == wire.GapReset})
			}
		},
		Acked: func(cursor string) {
			v.mu.Lock()
			v.acked = cursor
			v.mu.Unlock()
			_, c, err := push.ParseCursor(cursor)
			if v.dead.Load() || err != nil {
				return
			}
			for k, p := range c {
				if !p.IsZero() {
					w.note(history.Record{Kind: history.Ack, Device: d.id, Slot: k, Pos: uint64(p.Pos)})
				}
			}
		},
		Tags: func(tags []push.Tag) {
			if !v.dead.Load() {
				d.joined(tags)
			}
		},
		Kick: func(k *wire.Kick) { v.told, v.kick = v.told || k.Code.Duty() == wire.StayAway, k },
		Status: func(s client.Status) {
			if v.told {
				w.fault("%v goes on after it was told to stay away", d.id)
			}
			if s.Phase == client.Online && !v.dead.Load() {
				if v.session == 0 {
					v.since = w.sched.now()
				}
				v.session = uint64(s.Welcome.Session)
				d.online(s.Welcome)
			}
		},
	}
}

// online notes a welcome.
func (d *device) online(f *wire.Welcome) {
	d.storage.mu.Lock()
	d.welcomed = true
	d.storage.mu.Unlock()
	r := history.Record{Kind: history.Online, Device: d.id, Session: uint64(f.Session)}
	for k, s := range []wire.Start{f.Own, f.Common} {
		switch s {
		case wire.Beginning:
			r.Begins[k] = history.FromStart
		case wire.AtHead:
			r.Begins[k] = history.FromHead
		default:
			r.Begins[k] = s.String()
		}
	}
	d.w.note(r)
}
