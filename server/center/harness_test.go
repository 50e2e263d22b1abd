package center

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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

const testSecret = "TaV3mZcN8qLx1rJf5yWb0eUd7sKg2hPi"

// gateway is a center on real stores in memory, with one product, one room, and a record of what rooms are told.
type gateway struct {
	t       testing.TB
	center  *Center
	public  http.Handler
	admin   http.Handler
	store   *faultyStore
	reg     *faultyRegister
	catalog *catalog.Cache
	tasks   task.Store
	rooms   *recordingRooms
	clock   *testClock
	metrics *prometheus.Registry
	log     *bytes.Buffer
	key     string // an API key of product "shop" with every scope
	backup  func(ctx context.Context, directory string) error
	drained []Drain
}

// product is what tests send as.
const product push.ProductID = "shop"

func newGateway(t testing.TB, change ...func(*Config)) *gateway {
	t.Helper()
	g := &gateway{t: t, clock: newTestClock(), metrics: prometheus.NewRegistry(), log: new(bytes.Buffer)}
	g.reg = &faultyRegister{Register: registermemory.New(registermemory.Config{Clock: g.clock})}
	store, err := savermemory.New(savermemory.Config{Clock: g.clock, Locator: g.reg.Register})
	if err != nil {
		t.Fatal(err)
	}
	g.store = &faultyStore{Store: store}
	g.rooms = &recordingRooms{live: map[push.UserID][]push.LiveSession{}}
	admins := catalogmemory.New(catalogmemory.Config{Clock: g.clock})
	g.catalog = catalog.NewCache(admins, catalog.CacheConfig{Clock: g.clock})
	keys, err := auth.NewAPIKeys(auth.APIConfig{Keys: g.catalog, Clock: g.clock})
	if err != nil {
		t.Fatal(err)
	}
	g.tasks = taskmemory.New(taskmemory.Config{Clock: g.clock})
	cfg := Config{
		Saver: g.store, Register: g.reg, Rooms: g.rooms, Catalog: g.catalog, Tasks: g.tasks, Holder: "center-1", Keys: keys, IDs: new(countingIDs), Secret: testSecret,
		Backup: func(ctx context.Context, directory string) error { return g.backup(ctx, directory) },
		Drain:  func(_ context.Context, d Drain) error { g.drained = append(g.drained, d); return nil },
		Rand:   rand.Reader, Clock: g.clock, Metrics: g.metrics,
		Log: slog.New(slog.NewTextHandler(&lockedWriter{w: g.log}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&cfg)
	}
	if g.center, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	g.public, g.admin = g.center.Public(), g.center.Admin()
	if err := g.reg.Join(t.Context(), register.Room{ID: "r1", Boot: 1}); err != nil {
		t.Fatal(err)
	}
	g.makeProduct(product)
	g.key = g.makeKey(product, catalog.ScopeAll)
	return g
}

func (g *gateway) makeProduct(id push.ProductID) {
	g.t.Helper()
	if _, err := g.catalog.CreateProduct(g.t.Context(), catalog.Product{ID: id, Shards: 4}); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) makeKey(p push.ProductID, scopes ...catalog.Scope) string {
	g.t.Helper()
	k, text, err := catalog.NewAPIKey(rand.Reader, catalog.APIKey{Product: p, Scopes: scopes})
	if err == nil {
		_, err = g.catalog.AddAPIKey(g.t.Context(), k)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return string(text)
}

// connect makes a device known and registers a session of it with room r1.
func (g *gateway) connect(u push.UserID, d push.DeviceID) {
	g.t.Helper()
	g.connectIn("r1", u, d)
}

// connectIn is connect to a room that joined.
func (g *gateway) connectIn(room push.RoomID, u push.UserID, d push.DeviceID) {
	g.t.Helper()
	g.open(u, d)
	_, err := g.reg.Insert(g.t.Context(), register.Session{
		Key:   register.Key{Product: product, User: u, Device: d},
		Shard: push.ShardOf(u, 4), Transport: "ws", Room: room, Boot: 1, Since: push.Milli(g.clock.Now()),
	}, nil)
	if err != nil {
		g.t.Fatal(err)
	}
}

// open makes a device known to the store.
func (g *gateway) open(u push.UserID, d push.DeviceID) saver.Opened {
	g.t.Helper()
	o, err := g.store.Open(g.t.Context(), saver.Open{
		UserRef: userRef(u), Facts: push.DeviceFacts{Device: d, Platform: push.PlatformAndroid},
		Limits: push.Limits{}.WithDefaults(), FirstVisit: push.FirstVisit{}.WithDefaults(),
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return o
}

func userRef(u push.UserID) saver.UserRef { return saver.UserRef{Product: product, Shards: 4, User: u} }

// ask is one request.
type ask struct {
	method string // POST if there is a body, otherwise GET
	path   string
	body   string
	key    string            // the API key; empty: that of the gateway; "none": no header
	header map[string]string // beside Content-Type and Authorization
}

// answer is what came back, held against the contract already.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request to the listener that its path belongs to, and holds the answer against the contract.
func (g *gateway) do(a ask) *answer {
	g.t.Helper()
	if a.method == "" {
		a.method = http.MethodGet
		if a.body != "" {
			a.method = http.MethodPost
		}
	}
	var body io.Reader
	if a.body != "" {
		body = strings.NewReader(a.body)
	}
	r := httptest.NewRequest(a.method, a.path, body)
	handler, credential := g.public, g.key
	if strings.HasPrefix(a.path, "/admin/") {
		handler, credential = g.admin, testSecret
	}
	if a.key != "" {
		credential = a.key
	}
	if credential != "none" {
		r.Header.Set("Authorization", "Bearer "+credential)
	}
	if a.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for k, v := range a.header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	got := &answer{w.Code, w.Header(), w.Body.Bytes()}
	g.holdAgainstContract(a, r, got)
	return got
}

// anywhere are the codes that any operation can answer, as the contract's preface says.
var anywhere = []string{"unknown_path", "method_not_allowed", "internal"}

func (g *gateway) holdAgainstContract(a ask, r *http.Request, got *answer) {
	g.t.Helper()
	c := loadContract(g.t)
	if got.header.Get("X-Request-Id") == "" {
		g.t.Errorf("%s %s: no X-Request-Id", a.method, a.path)
	}
	media := got.header.Get("Content-Type")
	if got.status >= 300 {
		g.holdProblem(c, a, r, got)
		return
	}
	path, verb, status := c.templateOf(r.URL.EscapedPath()), strings.ToLower(a.method), fmt.Sprint(got.status)
	if c.at("paths", path, verb, "responses", status) == nil {
		g.t.Errorf("%s %s: the contract does not know %s", verb, path, status)
		return
	}
	if c.at("paths", path, verb, "responses", status, "content") == nil {
		if len(got.body) > 0 {
			g.t.Errorf("%s %s: %s has a body", verb, path, status)
		}
		return
	}
	if media != "application/json" {
		g.t.Errorf("%s %s: Content-Type is %q", verb, path, media)
	}
	p := pointerTo("paths", path, verb, "responses", status, "content", "application/json", "schema")
	if err := judge(c.schema(g.t, p), got.body); err != nil {
		g.t.Errorf("%s %s: %s\n%v", verb, path, got.body, err)
	}
}

func (g *gateway) holdProblem(c *contract, a ask, r *http.Request, got *answer) {
	g.t.Helper()
	if media := got.header.Get("Content-Type"); media != "application/problem+json" {
		g.t.Errorf("%s %s: Content-Type of a problem is %q", a.method, a.path, media)
	}
	if err := judge(c.schema(g.t, "/components/schemas/Problem"), got.body); err != nil {
		g.t.Errorf("%s %s: %s\n%v", a.method, a.path, got.body, err)
	}
	var p struct {
		Code       string
		Status     int
		RetryAfter int `json:"retry_after"`
	}
	got.decode(g.t, &p)
	if p.Status != got.status {
		g.t.Errorf("%s %s: the problem says %d, the answer %d", a.method, a.path, p.Status, got.status)
	}
	path, verb := c.templateOf(r.URL.EscapedPath()), strings.ToLower(a.method)
	if listed := c.codesOf(path, verb, fmt.Sprint(got.status)); !slices.Contains(listed, p.Code) && !slices.Contains(anywhere, p.Code) {
		g.t.Errorf("%s %s: the contract does not list %s under %d", verb, path, p.Code, got.status)
	}
	wantRetry := ""
	if got.status == 429 || got.status == 503 {
		wantRetry = fmt.Sprint(max(1, p.RetryAfter))
	}
	if r := got.header.Get("Retry-After"); r != wantRetry {
		g.t.Errorf("%s %s: Retry-After is %q, want %q", a.method, a.path, r, wantRetry)
	}
	if has := got.header.Get("WWW-Authenticate") != ""; has != (got.status == 401) {
		g.t.Errorf("%s %s: WWW-Authenticate there: %v", a.method, a.path, has)
	}
}

func (a *answer) decode(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("answer %q: %v", a.body, err)
	}
}

// code returns the code of a problem, empty if the answer is none.
func (a *answer) code() string {
	var p struct{ Code string }
	_ = json.Unmarshal(a.body, &p) // an empty body has no code
	return p.Code
}

// fields returns the mistakes of a problem as "place code".
func (a *answer) fields(t testing.TB) []string {
	t.Helper()
	var p struct {
		Errors []struct{ Pointer, Parameter, Code string }
	}
	a.decode(t, &p)
	var out []string
	for _, e := range p.Errors {
		out = append(out, e.Pointer+e.Parameter+" "+e.Code)
	}
	slices.Sort(out)
	return out
}

// want fails the test if the answer has another status, or another code where one is given.
func (a *answer) want(t testing.TB, status int, code ...string) *answer {
	t.Helper()
	if a.status != status || len(code) > 0 && a.code() != code[0] {
		t.Fatalf("got %d %s, want %d %v", a.status, a.body, status, code)
	}
	return a
}

// recordingRooms keeps what it is told.
type recordingRooms struct {
	mu         sync.Mutex
	deliveries []told
	ended      []push.DeviceID
	live       map[push.UserID][]push.LiveSession
	fail       error
	kicks      []kicked
	kicked     push.Kicked // what kicks are answered with
	onKick     func()      // called inside Kick
	retagged   []push.UserID
}

type kicked struct {
	product push.ProductID
	user    push.UserID
	push.Kick
}

type told struct {
	room push.RoomID
	*push.Delivery
}

func (r *recordingRooms) Deliver(room push.RoomID, d *push.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deliveries = append(r.deliveries, told{room, d})
}

func (r *recordingRooms) Sessions(_ context.Context, _ push.ProductID, u push.UserID) ([]push.LiveSession, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.live[u]), r.fail
}

func (r *recordingRooms) End(_ context.Context, _ push.ProductID, _ push.UserID, d push.DeviceID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = append(r.ended, d)
	return r.fail
}

func (r *recordingRooms) Kick(_ context.Context, p push.ProductID, u push.UserID, k push.Kick) (push.Kicked, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.onKick != nil {
		r.onKick()
	}
	r.kicks = append(r.kicks, kicked{p, u, k})
	return r.kicked, r.fail
}

func (r *recordingRooms) Retag(_ context.Context, _ push.ProductID, users []push.UserID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retagged = append(r.retagged, users...)
	return r.fail
}

// take returns what was delivered since it was called last.
func (r *recordingRooms) take() []told {
	r.mu.Lock()
	defer r.mu.Unlock()
	ds := r.deliveries
	r.deliveries = nil
	return ds
}

// faultyStore is a store that can be told to fail, and counts publications.
type faultyStore struct {
	saver.Store
	fail         atomic.Pointer[push.Error]
	publications atomic.Int64
	calls        atomic.Int64
	during       func() // called inside Publish
	unplaced     bool   // what is published is accepted, and in no slot: nobody knows where it lies
}

func (s *faultyStore) err() error {
	if e := s.fail.Load(); e != nil {
		return e
	}
	return nil
}

func (s *faultyStore) Publish(ctx context.Context, ps []*saver.Publication) []saver.Published {
	s.calls.Add(1)
	s.publications.Add(int64(len(ps)))
	if s.during != nil {
		s.during()
	}
	err := s.err()
	if ctx.Err() != nil {
		err = &push.Error{Kind: push.KindUnavailable, Code: "storage_slow", Err: ctx.Err()}
	}
	if err != nil {
		out := make([]saver.Published, len(ps))
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	out := s.Store.Publish(ctx, ps)
	for i := range out {
		for j := range out[i].Own {
			s.unplace(&out[i].Own[j])
		}
		for j := range out[i].Common {
			s.unplace(&out[i].Common[j])
		}
	}
	return out
}

func (s *faultyStore) unplace(p *saver.Placed) {
	if s.unplaced {
		p.Place, p.Rooms = push.Place{}, nil
	}
}

func (s *faultyStore) Recall(ctx context.Context, r saver.Recall) (saver.Recalled, error) {
	if s.during != nil {
		s.during()
	}
	if err := cmp.Or(s.err(), ctx.Err()); err != nil {
		return saver.Recalled{}, err
	}
	return s.Store.Recall(ctx, r)
}

func (s *faultyStore) Message(ctx context.Context, p push.ProductID, id push.MsgID) (saver.Record, error) {
	if err := s.err(); err != nil {
		return saver.Record{}, err
	}
	rec, err := s.Store.Message(ctx, p, id)
	if s.unplaced {
		for i := range rec.Own {
			rec.Own[i].Place = push.Place{}
		}
		clear(rec.Common)
	}
	return rec, err
}

func (s *faultyStore) User(ctx context.Context, u saver.UserRef) (saver.User, error) {
	if err := s.err(); err != nil {
		return saver.User{}, err
	}
	return s.Store.User(ctx, u)
}

func (s *faultyStore) DeleteDevice(ctx context.Context, u saver.UserRef, d push.DeviceID) (bool, error) {
	if err := s.err(); err != nil {
		return false, err
	}
	return s.Store.DeleteDevice(ctx, u, d)
}

func (s *faultyStore) Tags(ctx context.Context, us []saver.UserRef) ([]saver.UserTags, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.Store.Tags(ctx, us)
}

func (s *faultyStore) Tagged(ctx context.Context, p push.ProductID, shards int, tag push.Tag, most int) ([]saver.TaggedUsers, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.Store.Tagged(ctx, p, shards, tag, most)
}

func (s *faultyStore) ChangeTags(ctx context.Context, cs []saver.TagChange) []saver.TagsChanged {
	if err := s.err(); err != nil {
		out := make([]saver.TagsChanged, len(cs))
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	return s.Store.ChangeTags(ctx, cs)
}

// faultyRegister is a register that can be told to fail.
type faultyRegister struct {
	*registermemory.Register
	fail  atomic.Bool
	asked atomic.Int64 // how often it was asked for rooms by tags
}

func (r *faultyRegister) RoomsByTags(ctx context.Context, p push.ProductID, tags []push.Tag) ([]register.RoomTags, error) {
	r.asked.Add(1)
	if r.fail.Load() {
		return nil, errOut
	}
	return r.Register.RoomsByTags(ctx, p, tags)
}

var errOut = errors.New("out of order")

func (r *faultyRegister) Lookup(ctx context.Context, p push.ProductID, us []push.UserID) ([][]register.Found, error) {
	if r.fail.Load() {
		return nil, errOut
	}
	return r.Register.Lookup(ctx, p, us)
}

func (r *faultyRegister) Rooms(ctx context.Context) ([]register.Room, error) {
	if r.fail.Load() {
		return nil, errOut
	}
	return r.Register.Rooms(ctx)
}

type countingIDs struct{ n atomic.Int64 }

func (c *countingIDs) Next(context.Context) (push.MsgID, error) {
	return push.MsgID(7345881023471616 + c.n.Add(1)), nil
}

// testClock is set by hand; one that was never set is the clock of the bubble that it is used in.
type testClock struct {
	clock.Clock
	now atomic.Int64
}

func newTestClock() *testClock {
	c := &testClock{Clock: clock.System}
	c.now.Store(time.Date(2026, 11, 22, 9, 35, 59, 120e6, time.UTC).UnixNano())
	return c
}

func (c *testClock) Now() time.Time {
	if n := c.now.Load(); n != 0 {
		return time.Unix(0, n).UTC()
	}
	return time.Now().UTC()
}

func (c *testClock) advance(d time.Duration) { c.now.Add(int64(d)) }

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
