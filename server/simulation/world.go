package simulation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/auth"
	"carillon/server/catalog"
	catalogmemory "carillon/server/catalog/memory"
	"carillon/server/clock"
	"carillon/server/history"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/task"
	taskmemory "carillon/server/task/memory"
)

// writeDeadline is that of rooms here: shorter than a product's, so that a short life sees many of them pass.
const writeDeadline = 8 * time.Second

// What the checker allows. They are above what delays of a healthy network and of a slow store add up to, and below what a
// room needs to give a frozen client up.
const (
	liveWithin   = 3 * time.Second
	kickWithin   = 3 * time.Second
	expireWithin = 8 * time.Second
	healWithin   = 30 * time.Second
	markersAfter = 13 * time.Second // by then most connections that broke have been found out
)

// options are what a seed decides about a world before it begins. Not every world has every fault: some faults hide what
// others would show.
type options struct {
	Pebble    bool
	users     int
	idBlock   int64
	queue     int // messages that may wait for one client
	window    int // bytes on their way to a client before the server's side cannot write any more
	heartbeat time.Duration
	grace     time.Duration
	tail      int // entries that a room caches of a common slot
	dropHints int // one notification in so many is lost; 0: none
	hintDelay time.Duration
	length    time.Duration // of the part with faults
	pace      time.Duration // at most that between two steps
	skews     bool          // the node's clock differs after each restart
	marks     bool          // something is sent to everybody after all healed: it shows who was forgotten, and hides who missed something
	lastLease bool          // the faults end when rooms have been without their lease for a while
	lastFall  bool          // the faults end when the store falls back to before somebody came who is online
	policies  bool          // products bound how many devices of an account are live at once, until everything heals
	tags      bool          // tokens name tags, and products and clients change some
	tasks     bool          // products make tasks, and their operators move them
	kinds     []int         // the transports that devices use: indexes of kinds
	weights   map[string]int
}

// onEmbedded reports whether a seed's world has the embedded store.
func onEmbedded(seed uint64) bool { return seed%3 == 0 }

func (w *world) chooseOptions() {
	l := w.sched.lane("options")
	o := &w.opt
	o.Pebble = onEmbedded(w.sched.seed)
	o.users = 2 + l.IntN(3)
	o.idBlock = 1 + l.Int64N(40)
	o.queue = []int{4, 8, 16, 256}[l.IntN(4)]
	o.window = []int{500, 2 << 10, 8 << 10}[l.IntN(3)]
	// The second is longer than a lease: a client that hears nothing of a room which lost its own waits for it to come back.
	o.heartbeat, o.grace = 6*time.Second, 3*time.Second
	if l.IntN(2) == 0 {
		o.heartbeat, o.grace = 18*time.Second, 5*time.Second
	}
	o.tail = []int{1, 6, 256}[l.IntN(3)]
	o.dropHints = []int{0, 2, 4, 10}[l.IntN(4)]
	o.hintDelay = []time.Duration{5 * time.Millisecond, 100 * time.Millisecond, 900 * time.Millisecond}[l.IntN(3)]
	o.length = l.between(12*time.Second, 30*time.Second)
	o.pace = l.between(60*time.Millisecond, 200*time.Millisecond)
	o.skews = l.IntN(2) == 0
	o.lastLease = l.IntN(3) == 0
	o.marks = !o.lastLease && l.IntN(2) == 0
	if o.lastLease {
		o.heartbeat, o.grace = 18*time.Second, 5*time.Second
	}
	for k := range kinds {
		if l.IntN(4) > 0 {
			o.kinds = append(o.kinds, k)
		}
	}
	if len(o.kinds) == 0 {
		o.kinds = []int{0, 1, 2, 3}
	}
	o.weights = make(map[string]int)
	for _, a := range actions() {
		if (a.on == onMemory && o.Pebble) || (a.on == onPebble && !o.Pebble) || a.later {
			continue
		}
		if a.always || l.IntN(10) < 6 {
			o.weights[a.name] = a.weight
		}
	}
	if o.lastLease {
		delete(o.weights, "jump") // over the end
	} else { // a device that has to go moves, and who moves hides what those miss who stay
		o.policies = l.IntN(3) == 0
	}
	// Drawn apart, so that a world which does not end so is the one that it was before there was this end.
	if !o.Pebble && !o.lastLease && w.sched.lane("options/last").chance(4) {
		o.lastFall = true
		delete(o.weights, "jump")
	}
	o.tags = w.sched.lane("options/tags").chance(2)
	// A store that falls back, or loses a slot, forgets what the store of tasks here remembers. Worlds with one that does are left as they are: there are not too many.
	o.tasks = !o.lastLease && !o.lastFall && o.weights["fall back"] == 0 && w.sched.lane("options/tasks").chance(2)
	if o.tasks {
		delete(o.weights, "lose slot")
		delete(o.weights, "disk stalls") // stores of tasks hold a lock meanwhile, and no bubble waits for somebody who waits for that
		if !o.Pebble {
			o.weights["kill center"] = 2
		}
	}
	for _, a := range actions() {
		switch {
		case a.tasks:
			if o.tasks && !(a.on == onMemory && o.Pebble) {
				o.weights[a.name] = a.weight
			}
		case a.later && w.sched.lane("options/"+a.name).chance(2) && (o.tags || !a.tags):
			o.weights[a.name] = a.weight
		}
	}
}

// product is a tenant.
type product struct {
	id      push.ProductID
	apiKey  string
	signing auth.SigningKey
	senders []*sender
	// operator makes tasks and moves them.
	operator *operator
	// registrar is who sets tags.
	registrar *sender
	places    int // sessions that a user may have at once while nothing has healed; 0: any number
	rejects   bool
	shunned   map[string]bool // users all of whose devices were kicked at least once
	keys      int             // idempotency keys used so far: those of both products have the same names
}

// world is everything: a gateway of one or several processes, its publishers and its devices.
type world struct {
	sched *schedule
	opt   options
	log   *history.Log
	tell  io.Writer // the trace; may be nil

	script   *lane
	skew     time.Duration
	weather  weather
	catalog  *catalog.Cache
	tasks    task.Store
	products []*product
	devices  []*device

	fs      *vfs.MemFS // the embedded store's disk
	back    *backend   // nil while the node is down
	center  *centerProc
	helper  *centerProc // runs tasks beside it, on the memory store in worlds with tasks
	rooms   []*roomProc
	boots   int
	centers int
	lives   int

	saved  *mark          // a state of the memory store that it may fall back to
	tagged int            // sets of tags that were asked for so far
	taken  map[string]int // how often the script did what, and what came to pass how often; may be nil
	healed bool
	offs   sync.Map      // of sessions that had to go for another, from epoch to when: uint64 to time.Duration
	jumped time.Duration // when time jumped last
	faults []string      // what went wrong outside the checker's rules
}

func settle() { synctest.Wait() }

func (w *world) trace(format string, args ...any) {
	if w.tell != nil {
		fmt.Fprintf(w.tell, "%10.4fs  %s\n", w.sched.now().Seconds(), fmt.Sprintf(format, args...))
	}
}

// fault notes what no run may show, whatever its faults.
func (w *world) fault(format string, args ...any) {
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// What comes to pass by the network's chance, and is worth knowing that it does.
const (
	pollGoesOn        = "a poll continues its session"
	pollFromElsewhere = "a poll shows another cursor"
	pollInOtherRoom   = "a poll comes to another room"
	pollReplaced      = "a poll takes another's place"
	answerLost        = "an answer is lost"
	goodbyeByPoll     = "a poll is answered with a goodbye"
	framesPosted      = "frames are posted"
	peerGivenUp       = "the kernel gives up a peer"
	kickedAway        = "a kicked client stays away"
)

var passages = []string{
	pollGoesOn, pollFromElsewhere, pollInOtherRoom, pollReplaced, answerLost, goodbyeByPoll, framesPosted, peerGivenUp, kickedAway,
}

// pass notes that something came to pass. Driver.
func (w *world) pass(what string) {
	if w.taken != nil {
		w.taken[what]++
	}
}

func (w *world) note(r history.Record) { w.log.Add(r) }

func newWorld(seed uint64, tell io.Writer) *world {
	w := &world{sched: newSchedule(seed), tell: tell}
	w.log = history.NewLog(w.sched.began)
	w.script = w.sched.lane("script")
	w.chooseOptions()
	return w
}

// setUp brings the gateway up, with two products that have the same users.
func (w *world) setUp() error {
	w.tasks = taskmemory.New(taskmemory.Config{Clock: clock.System})
	w.catalog = catalog.NewCache(catalogmemory.New(catalogmemory.Config{Clock: clock.System}), catalog.CacheConfig{Clock: clock.System})
	for _, id := range []push.ProductID{"news", "shop"} {
		if err := w.addProduct(id); err != nil {
			return err
		}
	}
	if err := w.openBackend(); err != nil {
		return err
	}
	if err := w.startCenter(); err != nil {
		return err
	}
	w.startHelper()
	for i := range 2 {
		r := &roomProc{w: w, id: push.RoomID(fmt.Sprintf("room%d", i+1))}
		w.rooms = append(w.rooms, r)
		if err := w.startRoom(r); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) addProduct(id push.ProductID) error {
	l := w.sched.lane("product/" + string(id))
	ctx := context.Background()
	prod := catalog.Product{ID: id, Shards: 2}
	if l.chance(2) {
		prod.Limits.OwnMessages, prod.Limits.CommonMessages = 8+l.IntN(20), 3+l.IntN(12)
	}
	if l.chance(3) {
		prod.FirstVisit.Common = push.StartBeginning
	}
	if w.opt.tasks {
		prod.Approval.EveryoneFree = true
	}
	p := &product{id: id, shunned: make(map[string]bool)}
	if err := w.bound(p, &prod); err != nil {
		return err
	}
	if _, err := w.catalog.CreateProduct(ctx, prod); err != nil {
		return err
	}
	secret := make([]byte, 32)
	_, _ = seeded{l}.Read(secret)
	m, err := catalog.ParseMaterial(catalog.HS256, secret)
	if err != nil {
		return err
	}
	if _, err := w.catalog.AddDeviceKey(ctx, catalog.DeviceKey{Product: id, ID: "k", Alg: catalog.HS256, Material: m}); err != nil {
		return err
	}
	k, text, err := catalog.NewAPIKey(seeded{l}, catalog.APIKey{Product: id, Scopes: []catalog.Scope{catalog.ScopeAll}})
	if err != nil {
		return err
	}
	if _, err := w.catalog.AddAPIKey(ctx, k); err != nil {
		return err
	}
	p.apiKey, p.signing = string(text), auth.SigningKey{ID: "k", Alg: catalog.HS256, Private: secret}
	for i := range 3 {
		name := fmt.Sprintf("%s/s%d", id, i)
		p.senders = append(p.senders, &sender{w: w, p: p, name: name, lane: w.sched.lane("sender/" + name), tags: w.sched.lane("having/" + name)})
	}
	p.registrar = &sender{w: w, p: p, name: string(id) + "/tags", lane: w.sched.lane("sender/" + string(id) + "/tags")}
	p.operator = &operator{sender: &sender{w: w, p: p, name: string(id) + "/tasks", lane: w.sched.lane("sender/" + string(id) + "/tasks")}}
	w.products = append(w.products, p)
	return nil
}

func (w *world) roomOf(id push.RoomID) *roomProc {
	for _, r := range w.rooms {
		if r.id == id {
			return r
		}
	}
	return nil
}

// userNames are the same in every product, so that what crosses products finds somebody.
var userNames = []string{"alice", "bob", "cathy", "dave"}

// Result is what became of a world.
type Result struct {
	Seed       uint64
	Digest     string // of everything that was seen, in its order
	Violations []history.Violation
	Records    int
	Events     int
	// Interrupted is how many steps took so long by the clock on the wall that the order within them may be another than usual.
	Interrupted int
}

// Simulate lives through the world of a seed and judges it. It has to be called inside a testing/synctest bubble. Every
// event that the script chose is told to trace, which may be nil.
func Simulate(seed uint64, trace io.Writer) (Result, error) {
	return newWorld(seed, trace).live()
}

func (w *world) live() (Result, error) {
	if err := w.setUp(); err != nil {
		return Result{}, fmt.Errorf("simulation: seed %d: %w", w.sched.seed, err)
	}
	settle()
	w.trace("%+v", w.opt)
	w.populate()
	w.sched.run(3 * time.Second)
	w.script.after(0, w.step)
	if w.opt.lastLease {
		w.script.after(w.opt.length-14*time.Second, func() {
			w.stayPut()
			for _, r := range w.rooms {
				w.unregister(r, 20*time.Second)
			}
		})
	}
	if w.opt.lastFall {
		w.script.after(w.opt.length-4*time.Second, func() {
			w.stayPut()
			delete(w.opt.weights, "save")
			delete(w.opt.weights, "fall back")
			w.save()
			w.newcomer()
			w.newcomer()
			w.script.after(3*time.Second, w.fallBack)
		})
	}
	w.sched.run(3*time.Second + w.opt.length)
	w.heal()
	if w.opt.marks {
		w.script.after(markersAfter, w.markers)
	}
	w.sched.run(w.sched.now() + healWithin)
	w.rest()
	w.tearDown()
	return w.judge()
}

// stayPut has nobody leave any more by the script's will: who connects again finds everything by that.
func (w *world) stayPut() {
	for _, a := range actions() {
		if a.moves || a.on == onPebble {
			delete(w.opt.weights, a.name)
		}
	}
}

// rest notes what is there when everything has come to rest.
func (w *world) rest() {
	if w.back == nil {
		return // a node that does not start was noted as such
	}
	for _, p := range w.products {
		for i := range w.opt.users {
			u := userNames[i]
			w.noteLive(p, u)
			user, err := w.back.saver.User(context.Background(), saver.UserRef{Product: p.id, Shards: 2, User: push.UserID(u)})
			if err != nil {
				w.fault("reading %s at rest: %v", u, err)
				continue
			}
			w.countUnknown(p, u, user.Devices)
			w.noteTags(p, u, user.Devices)
			for _, d := range user.Devices {
				if v := w.deviceOf(p, u, string(d.Device)); v == nil || v.liar {
					continue
				}
				for k, at := range d.Cursors {
					w.note(history.Record{Kind: history.Stored, Slot: k, Pos: uint64(at.Pos),
						Device: history.Device{Product: string(p.id), User: u, Device: string(d.Device)}})
				}
			}
		}
		w.noteTasks(p)
		for _, s := range append(slices.Clone(p.senders), p.registrar, p.operator.sender) {
			if s.busy.Load() > 0 {
				w.fault("%s has no answer after everything healed", s.name)
			}
		}
	}
}

// noteLive notes how many live sessions each device of a user has, and looks whether the register has one that nobody holds:
// such a session would be in the way of others for as long as its room lives.
func (w *world) noteLive(p *product, u string) {
	count := make(map[push.DeviceID]int)
	live, _ := notifier{w: w}.Sessions(context.Background(), p.id, push.UserID(u))
	held := make(map[push.SessionEpoch]bool)
	for _, s := range live {
		count[s.Device]++
		held[s.Epoch] = true
	}
	registered, err := w.back.reg.Lookup(context.Background(), p.id, []push.UserID{push.UserID(u)})
	if err != nil {
		w.fault("looking up %s at rest: %v", u, err)
		return
	}
	for _, s := range registered[0] {
		if !held[s.Epoch] {
			w.fault("the register has a session of %s/%s/%s in %s that nobody holds", p.id, u, s.Device, s.Room)
		}
	}
	for _, d := range w.devices {
		if d.p == p && d.id.User == u {
			w.note(history.Record{Kind: history.Live, Device: d.id, Count: count[push.DeviceID(d.id.Device)]})
		}
	}
}

// countUnknown looks whether somebody is online whom the store does not know: such a device holds nothing back, and what all
// others of its user acknowledge is gone for it.
func (w *world) countUnknown(p *product, u string, known []saver.Device) {
	live, _ := notifier{w: w}.Sessions(context.Background(), p.id, push.UserID(u))
	for _, s := range live {
		if !slices.ContainsFunc(known, func(v saver.Device) bool { return v.Device == s.Device }) {
			w.fault("%s/%s/%s is online, and the store does not know it", p.id, u, s.Device)
		}
	}
}

// tearDown ends everything gently. Whatever still runs afterwards keeps the bubble from ending, which fails the test.
func (w *world) tearDown() {
	for _, d := range w.devices {
		d.away = 0
		d.quit()
	}
	w.sched.run(w.sched.now() + 5*time.Second)
	down := 0
	for _, r := range w.rooms {
		if r.running {
			w.stopRoom(r, func() { down++ })
		} else {
			down++
		}
	}
	w.sched.run(w.sched.now() + 15*time.Second)
	if down != len(w.rooms) {
		w.fault("%d of %d rooms did not stop", len(w.rooms)-down, len(w.rooms))
	}
	w.center.end()
	w.helper.end()
	if w.back != nil {
		w.closeBackend()
	}
	for _, d := range w.devices {
		if d.life != nil {
			w.fault("%v did not stop", d.id)
		}
	}
}

func (w *world) judge() (Result, error) {
	run := history.Run{AcksBySlot: true, LiveWithin: liveWithin, KickWithin: kickWithin}
	run.ClockSteps = w.opt.skews
	if !w.opt.skews {
		run.ExpireWithin = expireWithin
	}
	for _, d := range w.devices {
		if !d.liar && d.welcomed {
			run.Devices = append(run.Devices, d.id)
		}
	}
	records := w.log.Records()
	res := Result{Seed: w.sched.seed, Records: len(records), Events: w.sched.count, Interrupted: w.sched.interrupted,
		Violations: history.Check(run, records)}
	for _, f := range w.faults {
		res.Violations = append(res.Violations, history.Violation{Rule: "world", Detail: f})
	}
	// Of two who did something at the same moment, either may have been noted first.
	slices.SortStableFunc(records, func(a, b history.Record) int {
		if a.At != b.At {
			return int(a.At - b.At)
		}
		return compareActors(&a, &b)
	})
	h := sha256.New()
	enc := json.NewEncoder(h)
	for i := range records {
		if err := enc.Encode(&records[i]); err != nil {
			return res, fmt.Errorf("simulation: digest: %w", err)
		}
	}
	res.Digest = hex.EncodeToString(h.Sum(nil)[:8])
	if w.tell != nil {
		if err := history.Write(w.tell, history.Of(records)); err != nil {
			return res, err
		}
	}
	return res, nil
}

func compareActors(a, b *history.Record) int {
	key := func(r *history.Record) string {
		return r.Sender + "/" + r.Device.Product + "/" + r.Device.User + "/" + r.Device.Device
	}
	return strings.Compare(key(a), key(b))
}
