package node

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"carillon/server/push"
	"carillon/server/register"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const shop = push.ProductID("shop")

// party is a room that writes down what it is told.
type party struct {
	deliveries chan *push.Delivery
	evicted    chan register.Order
	hold       chan struct{} // nil: Deliver returns at once

	mu       sync.Mutex
	sessions []push.LiveSession
	kicks    []push.Kick
	retagged [][]push.UserID
	ended    []push.DeviceID
	fail     error
	alive    bool
}

func newParty() *party {
	return &party{deliveries: make(chan *push.Delivery, 1000), evicted: make(chan register.Order, 10)}
}

func (p *party) Deliver(d *push.Delivery) {
	if p.hold != nil {
		<-p.hold
	}
	p.deliveries <- d
}

func (p *party) Sessions(push.ProductID, push.UserID) []push.LiveSession {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sessions)
}

func (p *party) End(_ push.ProductID, _ push.UserID, d push.DeviceID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = append(p.ended, d)
}

func (p *party) Kick(_ context.Context, _ push.ProductID, _ push.UserID, k push.Kick) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		return 0, p.fail
	}
	p.kicks = append(p.kicks, k)
	return len(p.sessions), nil
}

func (p *party) Retag(_ context.Context, _ push.ProductID, users []push.UserID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		return p.fail
	}
	p.retagged = append(p.retagged, users)
	return nil
}

func (p *party) Alive() bool {
	if p.hold != nil {
		<-p.hold
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.alive
}

func (p *party) Evict(o register.Order) { p.evicted <- o }

func (p *party) kicked() []push.Kick {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.kicks)
}

// town is a register and a place for notices.
type town struct {
	mu      sync.Mutex
	rooms   []register.Room
	online  map[push.UserID][]push.RoomID
	notices []Notice
	forgot  uint64 // notices up to this one are gone
	fail    error
}

func (t *town) Rooms(context.Context) ([]register.Room, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.rooms), t.fail
}

func (t *town) Lookup(_ context.Context, _ push.ProductID, users []push.UserID) ([][]register.Found, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([][]register.Found, len(users))
	for i, u := range users {
		for _, r := range t.online[u] {
			out[i] = append(out[i], register.Found{Room: r})
		}
	}
	return out, t.fail
}

func (t *town) Post(_ context.Context, n Notice) (uint64, push.MilliTime, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notices = append(t.notices, n)
	return uint64(len(t.notices)), 1_000_000, t.fail
}

func (t *town) Since(_ context.Context, after uint64, limit int) (ns []Numbered, lost bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := max(after, t.forgot); i < uint64(len(t.notices)) && len(ns) < limit; i++ {
		ns = append(ns, Numbered{t.notices[i], i + 1})
	}
	return ns, after < t.forgot, t.fail
}

func (t *town) Head(context.Context) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return uint64(len(t.notices)), t.fail
}

// settle makes a node with a room in the town, and serves it.
func (t *town) settle(tb testing.TB, id push.RoomID, local *party, secret string, change func(*Config)) *Node {
	tb.Helper()
	creds, err := FromSecret([]byte(secret))
	if err != nil {
		tb.Fatal(err)
	}
	cfg := Config{Room: id, Register: t, Notices: t, TLS: creds, Timeout: 10 * time.Second}
	if local != nil {
		cfg.Local = local
	}
	if change != nil {
		change(&cfg)
	}
	n, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- n.Serve(ctx, l) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			tb.Error(err)
		}
		if err := n.Close(); err != nil {
			tb.Error(err)
		}
	})
	if id != "" {
		t.mu.Lock()
		t.rooms = append(t.rooms, register.Room{ID: id, Boot: 1, Addr: l.Addr().String()})
		t.mu.Unlock()
	}
	return n
}

const secret = "a secret of the cluster, long enough"

func message(id push.MsgID) *push.Delivery {
	return &push.Delivery{Product: shop, Message: &push.Message{ID: id, Body: []byte(`"hi"`)}, Everyone: true}
}

func TestNode_DeliveriesReachTheOtherRoomInOrder(t *testing.T) {
	var w town
	north := newParty()
	w.settle(t, "north", north, secret, nil)
	center := w.settle(t, "", nil, secret, func(c *Config) { c.BatchBytes = 300 })
	for id := range push.MsgID(500) {
		center.Deliver("north", message(id+1))
	}
	for id := range push.MsgID(500) {
		if d := <-north.deliveries; d.Message.ID != id+1 || string(d.Message.Body) != `"hi"` || !d.Everyone {
			t.Fatalf("got %+v as number %d", d, id+1)
		}
	}
}

func TestNode_OwnRoomIsTold(t *testing.T) {
	var w town
	north := newParty()
	n := w.settle(t, "north", north, secret, nil)
	d := message(7)
	n.Deliver("north", d)
	if got := <-north.deliveries; got != d {
		t.Errorf("got %p, want the delivery itself", got)
	}
}

func TestNode_FullQueueDropsAndCounts(t *testing.T) {
	var w town
	north := newParty()
	north.hold = make(chan struct{})
	w.settle(t, "north", north, secret, nil)
	counts := prometheus.NewRegistry()
	m := NewMetrics(counts)
	center := w.settle(t, "", nil, secret, func(c *Config) { c.Metrics, c.QueueBytes, c.BatchBytes = m, 1000, 200 })
	const sent = 1000
	for id := range push.MsgID(sent) { // ten times what fits: the room takes none until it is let go
		center.Deliver("north", message(id+1))
	}
	dropped := counted(t, counts, "carillon_node_deliveries_dropped_total")
	if dropped == 0 || dropped == sent {
		t.Fatalf("%d of %d were dropped", dropped, sent)
	}
	close(north.hold)
	last := push.MsgID(0)
	for range sent - dropped {
		d := <-north.deliveries
		if d.Message.ID <= last {
			t.Fatalf("%d after %d", d.Message.ID, last)
		}
		last = d.Message.ID
	}
}

// counted returns the sum of a counter over its labels.
func counted(t *testing.T, from prometheus.Gatherer, name string) (n int) {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				n += int(m.GetCounter().GetValue())
			}
		}
	}
	return n
}

func TestNode_RoomThatIsGoneDelaysNobody(t *testing.T) {
	var w town
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.rooms = append(w.rooms, register.Room{ID: "gone", Boot: 1, Addr: gone.Addr().String()})
	gone.Close()
	north := newParty()
	w.settle(t, "north", north, secret, nil)
	center := w.settle(t, "", nil, secret, nil)
	for id := range push.MsgID(10) {
		center.Deliver("gone", message(id+1))
		center.Deliver("nobody", message(id+1))
		center.Deliver("north", message(id+1))
	}
	for range 10 {
		<-north.deliveries
	}
}

func TestNode_WhoHasNotTheSecretIsNobody(t *testing.T) {
	var w town
	north := newParty()
	w.settle(t, "north", north, secret, nil)
	stranger := w.settle(t, "", nil, "another secret, as long as the first", nil)
	if _, err := stranger.ask(t.Context(), w.rooms[0], &call{Sessions: &userCall{shop, "alice", ""}}); push.KindOf(err) != push.KindUnavailable {
		t.Errorf("a node with another secret got %v", err)
	}
	for name, cfg := range map[string]*tls.Config{
		"without a certificate":    {InsecureSkipVerify: true, NextProtos: []string{"h2"}},
		"of TLS 1.2 at the newest": {InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12},
	} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}}
		resp, err := client.Post("https://"+w.rooms[0].Addr+"/call", "application/json", strings.NewReader(`{"end":{}}`))
		if err == nil {
			resp.Body.Close()
			t.Errorf("a client %s was answered %s", name, resp.Status)
		}
		client.CloseIdleConnections()
	}
	if len(north.ended) != 0 {
		t.Error("a stranger's call was obeyed")
	}
}

func TestFromSecret_RefusesAShortOne(t *testing.T) {
	_, err := FromSecret(make([]byte, MinSecret-1))
	var e *push.Error
	if !errors.As(err, &e) || e.Code != "weak_secret" {
		t.Errorf("got %v", err)
	}
}

func TestNode_RequestForAnotherRoomIsRefused(t *testing.T) {
	var w town
	w.settle(t, "north", newParty(), secret, nil)
	center := w.settle(t, "", nil, secret, nil)
	was := w.rooms[0]
	was.ID = "south" // whose address passed to north
	_, err := center.ask(t.Context(), was, &call{End: &userCall{shop, "alice", "phone"}})
	var e *push.Error
	if !errors.As(err, &e) || e.Code != "room_refused" {
		t.Errorf("got %v", err)
	}
}

func TestNode_SessionsOfAllRoomsThatAnswer(t *testing.T) {
	var w town
	north, south := newParty(), newParty()
	north.sessions = []push.LiveSession{{Device: "phone", Room: "north", Epoch: 7, Sent: push.Cursor{{Epoch: 1 << 62, Lineage: 1 << 63, Pos: 5}}}}
	south.sessions = []push.LiveSession{{Device: "laptop", Room: "south", Tags: []push.Tag{"news"}}}
	n := w.settle(t, "north", north, secret, nil)
	w.settle(t, "south", south, secret, nil)
	w.rooms = append(w.rooms, register.Room{ID: "gone", Boot: 1})
	w.online = map[push.UserID][]push.RoomID{"alice": {"north", "south", "gone", "north"}}
	got, err := n.Sessions(t.Context(), shop, "alice")
	want := append(slices.Clone(north.sessions), south.sessions...)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got, err := n.Sessions(t.Context(), shop, "bob"); err != nil || len(got) != 0 {
		t.Errorf("of bob, who is nowhere: %+v, %v", got, err)
	}
}

func TestNode_EndReachesEveryRoom(t *testing.T) {
	var w town
	north, south := newParty(), newParty()
	n := w.settle(t, "north", north, secret, nil)
	w.settle(t, "south", south, secret, nil)
	if err := n.End(t.Context(), shop, "alice", "phone"); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*party{north, south} {
		if !slices.Equal(p.ended, []push.DeviceID{"phone"}) {
			t.Errorf("got %v", p.ended)
		}
	}
}

func TestNode_EvictReachesTheRoom(t *testing.T) {
	var w town
	south := newParty()
	n := w.settle(t, "north", newParty(), secret, nil)
	w.settle(t, "south", south, secret, nil)
	want := register.Order{
		Key: register.Key{Product: shop, User: "alice", Device: "phone"}, Epoch: 1 << 60,
		By: register.Session{Key: register.Key{Device: "laptop"}, Platform: push.PlatformWeb, Room: "north", Boot: 1 << 63},
	}
	n.Evict("south", want)
	if got := <-south.evicted; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestNode_KickIsConfirmedWhereAllAnswer(t *testing.T) {
	var w town
	north, south := newParty(), newParty()
	north.sessions, south.sessions = make([]push.LiveSession, 1), make([]push.LiveSession, 2)
	n := w.settle(t, "north", north, secret, nil)
	s := w.settle(t, "south", south, secret, nil)
	k := push.Kick{Kind: push.KickRevoked, Device: "phone", Reason: "lost"}
	got, err := n.Kick(t.Context(), shop, "alice", k)
	if err != nil || got != (push.Kicked{Sessions: 3}) {
		t.Fatalf("got %+v, %v", got, err)
	}
	for _, node := range []*Node{n, s} { // the notice says nothing new
		if lost, err := node.Catch(t.Context()); lost || err != nil {
			t.Fatal(lost, err)
		}
	}
	for _, p := range []*party{north, south} {
		if got := p.kicked(); !slices.Equal(got, []push.Kick{k}) {
			t.Errorf("got %+v", got)
		}
	}
}

// slowParty is a room whose first kick waits, and then fails.
type slowParty struct {
	*party
	begun, fail chan struct{} // closed by Kick, and by the test
	was         atomic.Bool
}

func (p *slowParty) Kick(ctx context.Context, product push.ProductID, u push.UserID, k push.Kick) (int, error) {
	if p.was.CompareAndSwap(false, true) {
		close(p.begun)
		<-p.fail
		return 0, errors.New("not now")
	}
	return p.party.Kick(ctx, product, u, k)
}

// The room may renew its lease while it is at a kick that came by a call. If that fails, the notice still has to be obeyed.
func TestNode_KickThatFailsByCallIsObeyedByNotice(t *testing.T) {
	var w town
	south := &slowParty{party: newParty(), begun: make(chan struct{}), fail: make(chan struct{})}
	n := w.settle(t, "north", newParty(), secret, nil)
	s := w.settle(t, "south", south.party, secret, func(c *Config) { c.Local = south })
	kicked := make(chan push.Kicked)
	go func() {
		k, err := n.Kick(t.Context(), shop, "alice", push.Kick{})
		if err != nil {
			t.Error(err)
		}
		kicked <- k
	}()
	<-south.begun
	if _, err := s.Catch(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(south.fail)
	if k := <-kicked; k.Certain == 0 {
		t.Error("a kick that failed is confirmed")
	}
	if _, err := s.Catch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := south.kicked(); len(got) != 1 {
		t.Errorf("obeyed %d times, want once", len(got))
	}
}

func TestNode_KickOfARoomOutOfReachIsPendingAndThenObeyed(t *testing.T) {
	var w town
	south := newParty()
	n := w.settle(t, "north", newParty(), secret, nil)
	s := w.settle(t, "south", south, secret, nil)
	if err := s.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	there := w.rooms[1].Addr
	w.rooms[1].Addr = "" // nobody gets through
	got, err := n.Kick(t.Context(), shop, "alice", push.Kick{})
	if want := push.MilliTime(1_000_000).Add(certainAfter); err != nil || got.Certain != want {
		t.Fatalf("got %+v, %v, want certainty at %d", got, err, want)
	}
	w.rooms[1].Addr = there
	for range 2 { // the second finds nothing new
		if lost, err := s.Catch(t.Context()); lost || err != nil {
			t.Fatal(lost, err)
		}
	}
	if got := south.kicked(); len(got) != 1 {
		t.Errorf("obeyed %d times", len(got))
	}
}

func TestNode_RoomBeginsAfterWhatWasBeforeIt(t *testing.T) {
	var w town
	if _, _, err := w.Post(t.Context(), Notice{Kick: &KickNotice{shop, "alice", push.Kick{}}}); err != nil {
		t.Fatal(err)
	}
	north := newParty()
	n := w.settle(t, "north", north, secret, nil)
	if err := n.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Catch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := north.kicked(); len(got) != 0 {
		t.Errorf("a room obeyed %v, from before its time", got)
	}
}

func TestNode_NoticeThatCannotBeObeyedIsTriedAgain(t *testing.T) {
	var w town
	north := newParty()
	n := w.settle(t, "north", north, secret, nil)
	for _, what := range []Notice{{Retag: &RetagNotice{shop, []push.UserID{"alice"}}}, {}, {Kick: &KickNotice{shop, "bob", push.Kick{}}}} {
		if _, _, err := w.Post(t.Context(), what); err != nil {
			t.Fatal(err)
		}
	}
	north.fail = errors.New("not now")
	if _, err := n.Catch(t.Context()); err == nil {
		t.Fatal("what the room could not do counts as done")
	}
	north.fail = nil
	if _, err := n.Catch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(north.retagged) != 1 || len(north.kicked()) != 1 {
		t.Errorf("obeyed %d and %d times", len(north.retagged), len(north.kicked()))
	}
}

func TestNode_LostNoticesAreTold(t *testing.T) {
	var w town
	n := w.settle(t, "north", newParty(), secret, nil)
	w.notices, w.forgot = make([]Notice, 3), 2
	if lost, err := n.Catch(t.Context()); !lost || err != nil {
		t.Errorf("got %v, %v", lost, err)
	}
	if lost, err := n.Catch(t.Context()); lost || err != nil {
		t.Errorf("told again: %v, %v", lost, err)
	}
}

func TestNode_RetagFailsUnlessAllAnswer(t *testing.T) {
	var w town
	south := newParty()
	n := w.settle(t, "north", newParty(), secret, nil)
	w.settle(t, "south", south, secret, nil)
	if err := n.Retag(t.Context(), shop, []push.UserID{"alice"}); err != nil {
		t.Fatal(err)
	}
	south.fail = errors.New("not now")
	if err := n.Retag(t.Context(), shop, []push.UserID{"alice"}); push.KindOf(err) != push.KindUnavailable {
		t.Errorf("got %v", err)
	}
}

func TestNode_RegisterThatFailsFailsTheCall(t *testing.T) {
	var w town
	n := w.settle(t, "north", newParty(), secret, nil)
	w.fail = push.Errorf(push.KindUnavailable, "store_unavailable", "")
	if _, err := n.Sessions(t.Context(), shop, "alice"); err == nil {
		t.Error("Sessions")
	}
	if _, err := n.Kick(t.Context(), shop, "alice", push.Kick{}); err == nil {
		t.Error("Kick")
	}
	if err := n.Retag(t.Context(), shop, nil); err == nil {
		t.Error("Retag")
	}
	if err := n.End(t.Context(), shop, "alice", "phone"); err == nil {
		t.Error("End")
	}
	if err := n.Begin(t.Context()); err == nil {
		t.Error("Begin")
	}
	if _, err := n.Catch(t.Context()); err == nil {
		t.Error("Catch")
	}
}

func TestNode_UnreadableBatchesAreRefused(t *testing.T) {
	var w town
	north := newParty()
	w.settle(t, "north", north, secret, nil)
	center := w.settle(t, "", nil, secret, nil)
	good := appendDelivery(nil, message(1))
	later := append(slices.Clone(good), "what a later version adds"...)
	batch := append([]byte{2, 0xff, 0xff}, byte(len(good)))
	batch = append(append(append(batch, good...), byte(len(later))), later...)
	body, err := center.post(t.Context(), w.rooms[0], "deliver", "application/octet-stream", batch)
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	for range 2 { // the unreadable one is passed over, that of a later version is read
		if d := <-north.deliveries; d.Message.ID != 1 {
			t.Errorf("got %+v", d)
		}
	}
	for _, bad := range [][]byte{{5, 1}, {0xff}} {
		if _, err := center.post(t.Context(), w.rooms[0], "deliver", "application/octet-stream", bad); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
	if _, err := center.ask(t.Context(), w.rooms[0], &call{}); push.KindOf(err) != push.KindUnavailable {
		t.Errorf("a call of another version: %v", err)
	}
}

// What begins while a node closes has ended when it is closed, or never begins.
func TestNode_CloseWaitsForWhatBeginsMeanwhile(t *testing.T) {
	creds, err := FromSecret([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		r := &lateRegister{}
		n, err := New(Config{Register: r, TLS: creds})
		if err != nil {
			t.Fatal(err)
		}
		var telling sync.WaitGroup
		for range 4 {
			telling.Go(func() { n.Evict("north", register.Order{}); n.Deliver("south", message(1)) })
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		r.closed.Store(true)
		telling.Wait()
		if _ = n.Close(); r.late.Load() {
			t.Fatal("the register was asked for a node that is closed")
		}
	}
}

// lateRegister notes whether it was asked after closed.
type lateRegister struct {
	town
	closed, late atomic.Bool
}

func (r *lateRegister) Rooms(ctx context.Context) ([]register.Room, error) {
	if r.closed.Load() {
		r.late.Store(true)
	}
	return r.town.Rooms(ctx)
}

func TestNode_ClosedTellsNobody(t *testing.T) {
	var w town
	north := newParty()
	w.settle(t, "north", north, secret, nil)
	center := w.settle(t, "", nil, secret, nil)
	center.Close()
	center.Deliver("north", message(1))
	center.Evict("north", register.Order{})
	if len(north.deliveries)+len(north.evicted) != 0 {
		t.Error("a closed node spoke")
	}
}
