package center

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/auth"
	"carillon/server/catalog"
	catalogmemory "carillon/server/catalog/memory"
	"carillon/server/clock"
	"carillon/server/push"
	"carillon/server/register"
	registermemory "carillon/server/register/memory"
	"carillon/server/saver"
	savermemory "carillon/server/saver/memory"
	"carillon/server/task"
	taskmemory "carillon/server/task/memory"
)

// taskWorld is centers on the same stores in memory, in a bubble of virtual time. Requests go to a desk, which runs no tasks and never breaks.
type taskWorld struct {
	*gateway // the desk
	cfg      Config
	runners  []*taskRunner
	boss     string        // a second key of the product
	slow     time.Duration // each half of a call of a center takes so long, where that counts
}

// taskRunner is a center that runs tasks, and can be frozen and killed.
type taskRunner struct {
	*gateway
	line *line
	halt context.CancelFunc
	done chan struct{} // closed when RunTasks has returned
}

// inTaskWorld runs f in a bubble, and ends what it began.
func inTaskWorld(t *testing.T, f func(w *taskWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newTaskWorld(t)
		over := w.keepRoom()
		defer over()
		defer func() {
			for _, r := range w.runners {
				r.stop()
			}
		}()
		f(w)
	})
}

// keepRoom renews the lease of the room until over is called.
func (w *taskWorld) keepRoom() (over func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	every := time.NewTicker(time.Second)
	go func() {
		defer close(done)
		defer every.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-every.C:
			}
			if _, err := w.reg.Renew(ctx, "r1", 1); err != nil && ctx.Err() == nil {
				w.t.Error(err)
			}
		}
	}()
	return func() { cancel(); <-done }
}

func newTaskWorld(t *testing.T) *taskWorld {
	t.Helper()
	ctx := context.Background()
	c := &testClock{Clock: clock.System}
	reg := &faultyRegister{Register: registermemory.New(registermemory.Config{Clock: c})}
	store, err := savermemory.New(savermemory.Config{Clock: c, Locator: reg.Register})
	if err != nil {
		t.Fatal(err)
	}
	cache := catalog.NewCache(catalogmemory.New(catalogmemory.Config{Clock: c}), catalog.CacheConfig{Clock: c})
	keys, err := auth.NewAPIKeys(auth.APIConfig{Keys: cache, Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	w := &taskWorld{cfg: Config{
		Saver: store, Register: reg, Rooms: &recordingRooms{live: map[push.UserID][]push.LiveSession{}}, Catalog: cache,
		Tasks: taskmemory.New(taskmemory.Config{Clock: c}), Holder: "desk", Keys: keys, IDs: new(countingIDs), Secret: testSecret,
		Rand: rand.Reader, Clock: c, Log: slog.New(slog.DiscardHandler),
	}}
	w.gateway = w.newCenter(t, w.cfg)
	if err := reg.Join(ctx, register.Room{ID: "r1", Boot: 1}); err != nil {
		t.Fatal(err)
	}
	w.makeProduct(product)
	w.key = w.makeKey(product, catalog.ScopeAll)
	w.boss = w.makeKey(product, catalog.ScopeAll)
	return w
}

func (w *taskWorld) newCenter(t testing.TB, cfg Config) *gateway {
	t.Helper()
	g := &gateway{
		t: t, clock: cfg.Clock.(*testClock), catalog: cfg.Catalog.(*catalog.Cache), reg: cfg.Register.(*faultyRegister), rooms: cfg.Rooms.(*recordingRooms),
		store: &faultyStore{Store: cfg.Saver}, tasks: cfg.Tasks,
	}
	var err error
	if g.center, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	g.public, g.admin = g.center.Public(), g.center.Admin()
	return g
}

// run starts a center that runs tasks.
func (w *taskWorld) run() *taskRunner {
	w.t.Helper()
	ctx, halt := context.WithCancel(context.Background())
	r := &taskRunner{line: &line{kill: halt}, halt: halt, done: make(chan struct{})}
	cfg := w.cfg
	cfg.Holder = fmt.Sprintf("runner-%d", len(w.runners)+1)
	cfg.Saver, cfg.Tasks = heldSaver{cfg.Saver, r.line}, heldTasks{cfg.Tasks, r.line}
	r.gateway = w.newCenter(w.t, cfg)
	r.key = w.key
	w.runners = append(w.runners, r)
	go func() {
		defer close(r.done)
		r.center.RunTasks(ctx)
	}()
	return r
}

// stop ends a center gently, or at once if it is dead.
func (r *taskRunner) stop() {
	r.line.thaw()
	r.halt()
	<-r.done
}

// line is a center's way to its stores.
type line struct {
	kill context.CancelFunc // static

	mu     sync.Mutex
	gate   chan struct{} // guarded by mu; not nil: calls wait before they are carried out, until it is closed
	only   string        // guarded by mu; calls of this name alone wait; empty: all
	dead   bool          // guarded by mu; nothing is carried out, or answered
	passed int           // guarded by mu; how often a call set out or came back
	killAt int           // guarded by mu; at which of those the center dies; 0: never
	fails  int           // guarded by mu; so many calls are refused
	loses  int           // guarded by mu; so many replies are lost after that
	slow   time.Duration // guarded by mu; each half of a call takes so long
}

var errNoStore = &push.Error{Kind: push.KindUnavailable, Code: "storage_failed"}

// freeze has calls wait until thaw, as those of a process that was stopped. only names the calls that do; empty: all.
func (l *line) freeze(only string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gate == nil {
		l.gate = make(chan struct{})
	}
	l.only = only
}

func (l *line) thaw() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gate != nil {
		close(l.gate)
		l.gate = nil
	}
}

// set changes how the line behaves.
func (l *line) set(change func(l *line)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
}

func (l *line) isDead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

// way is one half of a call. Looking for due tasks does not count: how often that is done says nothing.
func (l *line) way(op string, back bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.gate != nil && !back && (l.only == "" || l.only == op) {
		gate := l.gate
		l.mu.Unlock()
		<-gate
		l.mu.Lock()
	}
	if l.slow > 0 {
		l.mu.Unlock()
		time.Sleep(l.slow)
		l.mu.Lock()
	}
	if op != "due" {
		if l.passed++; l.passed == l.killAt {
			l.dead = true
			l.kill()
		}
	}
	switch {
	case l.dead:
		return errNoStore
	case !back && l.fails > 0:
		l.fails--
		return errNoStore
	case back && l.fails == 0 && l.loses > 0:
		l.loses--
		return errNoStore
	}
	return nil
}

func (l *line) call(op string, do func() error) error {
	if err := l.way(op, false); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return l.way(op, true)
}

// heldSaver is a saver at the end of a line.
type heldSaver struct {
	saver.Store
	line *line
}

func (s heldSaver) Fence(ctx context.Context, f saver.Fence) error {
	return s.line.call("fence", func() error { return s.Store.Fence(ctx, f) })
}

func (s heldSaver) Batches(ctx context.Context, bs []*saver.Batch) (out []saver.Batched) {
	if err := s.line.call("batches", func() error { out = s.Store.Batches(ctx, bs); return nil }); err != nil {
		out = make([]saver.Batched, len(bs))
		for i := range out {
			out[i].Err = err
		}
	}
	return out
}

func (s heldSaver) BatchRecords(ctx context.Context, ref saver.BatchesRef, ns []int) (out []*saver.BatchRecord, err error) {
	err = s.line.call("records", func() (err error) { out, err = s.Store.BatchRecords(ctx, ref, ns); return err })
	return out, err
}

func (s heldSaver) Devices(ctx context.Context, us []saver.UserRef) (out [][]push.DeviceFacts, err error) {
	err = s.line.call("devices", func() (err error) { out, err = s.Store.Devices(ctx, us); return err })
	return out, err
}

// heldTasks is a store of tasks at the end of a line.
type heldTasks struct {
	task.Store
	line *line
}

func (s heldTasks) Create(ctx context.Context, t task.Task, key task.Key) (made task.Task, repeated bool, err error) {
	err = s.line.call("create", func() (err error) { made, repeated, err = s.Store.Create(ctx, t, key); return err })
	return made, repeated, err
}

func (s heldTasks) Update(
	ctx context.Context, p push.ProductID, id push.MsgID, change func(*task.Task, push.MilliTime) error,
) (t task.Task, err error) {
	err = s.line.call("update", func() (err error) { t, err = s.Store.Update(ctx, p, id, change); return err })
	return t, err
}

func (s heldTasks) Due(ctx context.Context, limit int) (refs []task.Ref, at push.MilliTime, err error) {
	err = s.line.call("due", func() (err error) { refs, at, err = s.Store.Due(ctx, limit); return err })
	return refs, at, err
}

func (s heldTasks) List(ctx context.Context, ref task.ListRef) (l task.List, err error) {
	err = s.line.call("list", func() (err error) { l, err = s.Store.List(ctx, ref); return err })
	return l, err
}

func (s heldTasks) Chunks(ctx context.Context, ref task.ListRef, shard push.Shard, from, limit int) (cs []task.Chunk, err error) {
	err = s.line.call("chunks", func() (err error) { cs, err = s.Store.Chunks(ctx, ref, shard, from, limit); return err })
	return cs, err
}

func (s heldTasks) PutChunks(ctx context.Context, ref task.ListRef, cs []task.Chunk) error {
	return s.line.call("put chunks", func() error { return s.Store.PutChunks(ctx, ref, cs) })
}

func (s heldTasks) CreateList(ctx context.Context, l task.List) (made task.List, err error) {
	err = s.line.call("create list", func() (err error) { made, err = s.Store.CreateList(ctx, l); return err })
	return made, err
}

// shownTask is what the tests look at of a task.
type shownTask struct {
	ID, State, Reason string
	NextRun           string `json:"next_run"`
	Parent            string
	Progress          struct {
		Users, Written int
		LeftOut        int `json:"left_out"`
		TakenBack      int `json:"taken_back"`
		Percent        float64
	}
	Funnel struct {
		Audience, Stored, Online, Waiting, Acknowledged, Expired, Recalled, Unaccounted int
		InFlight                                                                        int `json:"in_flight"`
		Dropped                                                                         map[string]int
	}
}

// names are users, each of them with one device that the store knows.
func (w *taskWorld) names(n int) []string {
	w.t.Helper()
	us := make([]string, n)
	for i := range us {
		us[i] = fmt.Sprintf("user-%04d", i)
		w.open(push.UserID(us[i]), "phone")
	}
	return us
}

// upload uploads a list of users, and returns its id.
func (w *taskWorld) upload(users []string) string {
	w.t.Helper()
	a := w.do(ask{path: "/v1/lists", body: "user\n" + strings.Join(users, "\n") + "\n", header: map[string]string{"Content-Type": "text/csv"}})
	var l struct{ ID string }
	a.want(w.t, http.StatusCreated).decode(w.t, &l)
	return l.ID
}

// make makes a task to a list, with further members.
func (w *taskWorld) make(list string, more ...string) string {
	w.t.Helper()
	return w.makeOf(append([]string{`"to":{"list":"` + list + `"}`, `"message":{"body":1}`}, more...)...)
}

// makeOf makes a task of members.
func (w *taskWorld) makeOf(members ...string) string {
	w.t.Helper()
	var t shownTask
	w.do(ask{path: "/v1/tasks", body: "{" + strings.Join(members, ",") + "}"}).want(w.t, http.StatusCreated).decode(w.t, &t)
	return t.ID
}

func (w *taskWorld) task(id string) (t shownTask) {
	w.t.Helper()
	w.do(ask{path: "/v1/tasks/" + id}).want(w.t, http.StatusOK).decode(w.t, &t)
	return t
}

// move makes a move by a key, that of the world if none is named, and returns the answer.
func (w *taskWorld) move(id, m string, key ...string) *answer {
	w.t.Helper()
	a := ask{method: http.MethodPost, path: "/v1/tasks/" + id + "/" + m}
	if len(key) > 0 {
		a.key = key[0]
	}
	return w.do(a)
}

func (w *taskWorld) moved(id, m string) {
	w.t.Helper()
	w.move(id, m).want(w.t, http.StatusOK)
}

// await waits until a task is in one of some states, and returns how long that took.
func (w *taskWorld) await(id string, states ...string) time.Duration {
	w.t.Helper()
	began := time.Now()
	n, err := push.ParseMsgID(id)
	if err != nil {
		w.t.Fatal(err)
	}
	for {
		t, err := w.tasks.Task(context.Background(), product, n)
		if err != nil {
			w.t.Fatal(err)
		}
		if slices.Contains(states, string(t.State)) {
			break
		}
		if time.Since(began) > 30*time.Minute {
			w.t.Fatalf("after half an hour it is %s, want %v", t.State, states)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(began)
}

// pass lets virtual time pass.
func (w *taskWorld) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// copies returns how often users have a task's message in their own slots, by how often: {1: 10} are ten users who have it once. Messages taken
// back do not count, those who take them back do not either.
func (w *taskWorld) copies(id string, users []string) map[int]int {
	w.t.Helper()
	out := make(map[int]int)
	for _, u := range users {
		n := 0
		for _, e := range w.own(push.UserID(u)) {
			if e.ID.String() == id && e.Kind == saver.EntryMessage {
				n++
			}
		}
		out[n]++
	}
	return out
}

func (w *taskWorld) wantCopies(id string, users []string, want int) {
	w.t.Helper()
	if got := w.copies(id, users); got[want] != len(users) {
		w.t.Errorf("how many users have the message how often: %v, want %d times each of %d", got, want, len(users))
	}
}

// wantCounts fails if what is told of a task is not what lies in the slots: so many users written, left out and taken back, each with one device.
func (w *taskWorld) wantCounts(id string, written, leftOut, takenBack int) {
	w.t.Helper()
	t := w.task(id)
	if p := t.Progress; p.Written != written || p.LeftOut != leftOut || p.TakenBack != takenBack {
		w.t.Errorf("written, left out, taken back: %d, %d, %d, want %d, %d, %d", p.Written, p.LeftOut, p.TakenBack, written, leftOut, takenBack)
	}
	if t.Funnel.Stored != written {
		w.t.Errorf("the message is told to be stored for %d devices, want %d", t.Funnel.Stored, written)
	}
	f := t.Funnel
	sum := f.Waiting + f.InFlight + f.Acknowledged + f.Expired + f.Recalled + f.Unaccounted
	for _, n := range f.Dropped {
		sum += n
	}
	if sum != f.Audience {
		w.t.Errorf("the funnel adds up to %d of %d: %+v", sum, f.Audience, f)
	}
}

func encoded(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
