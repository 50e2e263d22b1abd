package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/client"
	"carillon/server/proxytest"
	"carillon/server/room"
	"carillon/server/wire"
)

// These tests put a bad network between a whole node and the real client: real sockets, one process. They wait for what
// has to happen; the time that they take is that of heartbeats and deadlines, the shortest that a room allows.

const networkPatience = 30 * time.Second

// handset is a device behind a proxy. It writes down every message that its application sees, in order.
type handset struct {
	t    *testing.T
	name string
	done chan error
	stop context.CancelFunc

	mu sync.Mutex
	// Guarded by mu.
	got    []string
	phases []client.Phase
	kick   *wire.Kick
	err    error // of the last connection that ended
}

// carry runs a device's client over WebSocket, through a proxy, until the test ends or the server sends it away.
func (n *testNode) carry(p *proxytest.Proxy, user, device string, store client.Storage) *handset {
	n.t.Helper()
	return n.carryOver(&client.WebSocket{}, p, user, device, store)
}

// carryOver is carry over any transport.
func (n *testNode) carryOver(d client.Dialer, p *proxytest.Proxy, user, device string, store client.Storage) *handset {
	n.t.Helper()
	url := "ws://" + p.Addr() + "/connect"
	if isTCP(d) {
		url = "tcp://" + p.Addr()
	}
	return n.carryTo(url, d, user, device, store)
}

// carryTo is carryOver to an address. online, if there is one, is called between a welcome and what comes after it.
func (n *testNode) carryTo(url string, d client.Dialer, user, device string, store client.Storage, online ...func()) *handset {
	n.t.Helper()
	h := &handset{t: n.t, name: user + "'s " + device, done: make(chan error, 1)}
	note := func(f func()) {
		h.mu.Lock()
		defer h.mu.Unlock()
		f()
	}
	c, err := client.New(client.Config{
		URLs: []string{url}, Dialer: d, Tokens: client.StaticToken(n.token(user, device)), Storage: store,
		Backoff: client.Backoff{Base: 5 * time.Millisecond, Max: 50 * time.Millisecond}, AckEvery: 100 * time.Millisecond,
		ConnectTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
		Callbacks: client.Callbacks{
			Message: func(_ context.Context, m *wire.Message) error {
				note(func() { h.got = append(h.got, m.ID.String()) })
				return nil
			},
			Gap:  func(_ context.Context, g *wire.Gap) { n.t.Errorf("%s is told of a gap: %+v", h.name, g) },
			Kick: func(k *wire.Kick) { note(func() { h.kick = k }) },
			Status: func(s client.Status) {
				note(func() {
					h.phases = append(h.phases, s.Phase)
					if s.Phase == client.Waiting {
						h.err = s.Err
					}
				})
				for _, tell := range online {
					if s.Phase == client.Online {
						tell()
					}
				}
			},
		},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	h.stop = stop
	go func() {
		defer close(ended)
		h.done <- c.Run(ctx)
	}()
	n.t.Cleanup(func() { stop(); <-ended })
	return h
}

func (h *handset) messages() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.got)
}

// reached returns how often the client reached a phase.
func (h *handset) reached(p client.Phase) (times int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, q := range h.phases {
		if q == p {
			times++
		}
	}
	return times
}

func (h *handset) where() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := h.phases[max(0, len(h.phases)-10):]
	return fmt.Sprintf("%s has %d messages, went through %d phases, the last %v, last error %v", h.name, len(h.got), len(h.phases), last, h.err)
}

func (h *handset) waitCaughtUp() {
	h.t.Helper()
	eventually(h.t, networkPatience, func() bool { return h.reached(client.CaughtUp) > 0 }, h.where)
}

// wants waits until the application has seen as many messages as ids, and compares: nothing lost, nothing twice, in order.
func (h *handset) wants(ids []string) {
	h.t.Helper()
	eventually(h.t, networkPatience, func() bool { return len(h.messages()) >= len(ids) }, h.where)
	if got := h.messages(); !slices.Equal(got, ids) {
		h.t.Fatalf("%s got %d messages that are not the %d that were sent, in their order", h.name, len(got), len(ids))
	}
}

// closes returns how many connections, over any transport, the room counts as ended for a reason.
func (n *testNode) closes(reason string) int {
	n.t.Helper()
	count := 0
	line := regexp.MustCompile(`carillon_room_closes_total\{reason="` + reason + `",transport="\w+"\} (\d+)`)
	for _, m := range line.FindAllStringSubmatch(n.adminText("/metrics"), -1) {
		c, err := strconv.Atoi(m[1])
		if err != nil {
			n.t.Fatal(err)
		}
		count += c
	}
	return count
}

func (n *testNode) waitCloses(reason string, want int) {
	n.t.Helper()
	eventually(n.t, networkPatience, func() bool { return n.closes(reason) >= want }, func() string {
		return fmt.Sprintf("%d connections ended as %s, want %d", n.closes(reason), reason, want)
	})
}

func (n *testNode) link(p *proxytest.Proxy, i int) *proxytest.Link {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), networkPatience)
	defer cancel()
	l, err := p.Link(ctx, i)
	if err != nil {
		n.t.Fatal(err)
	}
	return l
}

func (n *testNode) await(l *proxytest.Link, ok func(proxytest.Counts) bool) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), networkPatience)
	defer cancel()
	if err := l.Await(ctx, ok); err != nil {
		n.t.Fatal(err)
	}
}

func isTCP(d client.Dialer) bool {
	_, ok := d.(*client.TCP)
	return ok
}

// networked returns a node with short deadlines, and a network in front of it.
func networked(t *testing.T, heartbeat time.Duration) (*testNode, *proxytest.Proxy) {
	t.Helper()
	return networkedFor(t, &client.WebSocket{}, heartbeat)
}

// networkedFor is networked for clients with that dialer.
func networkedFor(t *testing.T, d client.Dialer, heartbeat time.Duration) (*testNode, *proxytest.Proxy) {
	t.Helper()
	n := startRoom(t, vfs.NewMem(), room.Config{
		Heartbeat: heartbeat, Grace: 500 * time.Millisecond, WriteDeadline: time.Second, CloseTimeout: time.Second,
	})
	n.setUp()
	addr := n.PublicAddr()
	if isTCP(d) {
		addr = n.TCPAddr()
	}
	return n, proxytest.Start(t, addr.String(), proxytest.Config{Seed: 1})
}

func TestNetwork_HalfOpenClientIsGivenUpAndLosesNothing(t *testing.T) {
	t.Run("ws", func(t *testing.T) { halfOpen(t, &client.WebSocket{}) })
	t.Run("tcp", func(t *testing.T) { halfOpen(t, &client.TCP{}) })
}

func halfOpen(t *testing.T, d client.Dialer) {
	n, p := networkedFor(t, d, time.Second)
	phone := n.carryOver(d, p, "alice", "phone", &client.Memory{})
	phone.waitCaughtUp()
	ids := []string{n.publish("alice", "before")}
	phone.wants(ids)
	p.Refuse(true)
	dead := n.link(p, 0)
	dead.Drop(proxytest.Up | proxytest.Down)
	cut := time.Now()
	for i := range 20 {
		ids = append(ids, n.publish("alice", fmt.Sprintf("into the dark %d", i)))
	}
	// Both sides find out by themselves: nothing of what they say arrives.
	n.waitCloses("silent", 1)
	if took := time.Since(cut); took < time.Second {
		t.Errorf("the client was given up after %v, before an interval of silence", took)
	}
	eventually(t, networkPatience, func() bool { return phone.reached(client.Waiting) > 0 }, phone.where)
	if c := dead.Counts(); c.Down.Dropped == 0 {
		t.Error("nothing was sent into the dark")
	}
	if got := phone.messages(); len(got) != 1 {
		t.Errorf("a dead connection brought %d messages", len(got)-1)
	}
	ids = append(ids, n.publish("alice", "while away"))
	p.Refuse(false)
	phone.wants(ids)
	n.waitState(ids[len(ids)-1], "phone", "acknowledged")
}

func TestNetwork_CutsInsideFramesLoseNothingAndRepeatNothing(t *testing.T) {
	t.Run("ws", func(t *testing.T) { cutsInsideFrames(t, &client.WebSocket{}) })
	t.Run("sse", func(t *testing.T) {
		requests := &http.Transport{}
		t.Cleanup(requests.CloseIdleConnections)
		cutsInsideFrames(t, &client.SSE{Client: &http.Client{Transport: requests}})
	})
	t.Run("tcp", func(t *testing.T) { cutsInsideFrames(t, &client.TCP{}) })
}

func cutsInsideFrames(t *testing.T, d client.Dialer) {
	const cuts = 60
	n, p := networkedFor(t, d, 30*time.Second)
	rnd := rand.New(rand.NewPCG(6455, 1)) // guarded by mu
	calm := false                         // guarded by mu
	var mu sync.Mutex
	p.Each(func(l *proxytest.Link) {
		mu.Lock()
		defer mu.Unlock()
		if !calm {
			// The answer to the handshake, the welcome and a few messages are as long: every part of them is cut.
			l.ResetAfter(proxytest.Down, 1+rnd.Int64N(4000))
		}
	})
	phone := n.carryOver(d, p, "alice", "phone", &client.Memory{})
	var ids []string
	for len(p.Links()) <= cuts {
		ids = append(ids, n.publish("alice", strings.Repeat("x", 37*len(ids)%900)))
		// A slot keeps a thousand: the publisher does not run away from a client that is cut all the time.
		eventually(t, networkPatience, func() bool { return len(p.Links()) > cuts || len(phone.messages()) > len(ids)-50 }, phone.where)
	}
	mu.Lock()
	calm = true
	mu.Unlock()
	for _, l := range p.Links() {
		l.ResetAfter(proxytest.Down, -1)
	}
	ids = append(ids, n.publish("alice", "after the storm"))
	phone.wants(ids)
	n.waitState(ids[len(ids)-1], "phone", "acknowledged")
	phone.wants(ids)     // nothing came again meanwhile
	const greeting = 900 // bytes: more than the handshake's answer and the welcome
	inMessages := 0
	for _, l := range p.Links() {
		if l.Counts().Down.Written > greeting {
			inMessages++
		}
	}
	if inMessages < cuts/2 {
		t.Errorf("%d of %d cuts came behind the welcome: messages were hardly cut", inMessages, cuts)
	}
}

func TestNetwork_OneByteAtATime(t *testing.T) {
	t.Run("ws", func(t *testing.T) { oneByteAtATime(t, &client.WebSocket{}) })
	t.Run("tcp", func(t *testing.T) { oneByteAtATime(t, &client.TCP{}) })
}

func oneByteAtATime(t *testing.T, d client.Dialer) {
	n, p := networkedFor(t, d, 30*time.Second)
	p.Each(func(l *proxytest.Link) { l.Limit(proxytest.Up|proxytest.Down, 1) })
	phone := n.carryOver(d, p, "alice", "phone", &client.Memory{})
	phone.waitCaughtUp()
	var ids []string
	for _, size := range []int{0, 1, 50, 125, 126, 1000, 10_000, 3} {
		ids = append(ids, n.publish("alice", strings.Repeat("x", size)))
	}
	phone.wants(ids)
	n.waitState(ids[len(ids)-1], "phone", "acknowledged")
	if got := len(p.Links()); got != 1 {
		t.Errorf("connections: got %d, want the first to last", got)
	}
}

// What a device sent on its old connection arrives after it has a new one.
func TestNetwork_BytesOfTheOldConnectionArriveAfterTheNewOne(t *testing.T) {
	n, p := networked(t, 30*time.Second)
	before := n.carry(p, "alice", "phone", &client.Memory{})
	before.waitCaughtUp()
	old := n.link(p, 0)
	old.Hold(proxytest.Up, true)
	first := n.publish("alice", "acknowledged late")
	before.wants([]string{first})
	n.await(old, func(c proxytest.Counts) bool { return c.Up.Waiting() > 0 }) // its acknowledgement

	now := n.carry(p, "alice", "phone", &client.Memory{})
	now.wants([]string{first})
	if err := <-before.done; err == nil {
		t.Error("the old connection's client came back")
	} else if ended := (*client.ClosedError)(nil); !errors.As(err, &ended) || ended.Code != wire.CloseReplaced {
		t.Errorf("the old connection ended with %v, want replaced", err)
	}
	n.waitCloses("replaced", 1)
	second := n.publish("alice", "for the new one")
	now.wants([]string{first, second})

	old.Hold(proxytest.Up, false)
	n.await(old, func(c proxytest.Counts) bool { return c.Over })
	third := n.publish("alice", "after the old one's last word")
	now.wants([]string{first, second, third})
	n.waitState(third, "phone", "acknowledged")
	if got := len(p.Links()); got != 2 {
		t.Errorf("connections: got %d, want 2: the new one lasts", got)
	}
	if got := before.messages(); len(got) != 1 {
		t.Errorf("the old connection brought %d messages more", len(got)-1)
	}
}

func TestNetwork_StalledReaderIsCutAsSlowAndCatchesUp(t *testing.T) {
	n, p := networked(t, 30*time.Second)
	status, a := n.admin("PATCH", "/admin/v1/products/shop", map[string]any{"limits": map[string]any{"own_bytes": 32 << 20}})
	if status != 200 {
		t.Fatalf("raising the limit: %d %v", status, a)
	}
	alice := n.carry(p, "alice", "phone", &client.Memory{})
	alice.waitCaughtUp()
	bob := n.carry(p, "bob", "phone", &client.Memory{})
	bob.waitCaughtUp()
	stalled := n.link(p, 0)
	stalled.Stall(proxytest.Down, true)
	p.Refuse(true) // alice comes back when the test says so

	large := strings.Repeat("x", 60<<10)
	var alices, bobs []string
	for len(alices) < 200 && n.closes("slow") == 0 {
		alices = append(alices, n.publish("alice", large))
		bobs = append(bobs, n.publish("bob", "small"))
		bob.wants(bobs) // while alice stands still
	}
	n.waitCloses("slow", 1)
	if got := len(alice.messages()); got > 10 {
		t.Errorf("a stalled reader read %d messages", got)
	}
	if got := bob.reached(client.Waiting); got != 0 {
		t.Errorf("bob's connection broke %d times", got)
	}
	stalled.Stall(proxytest.Down, false)
	p.Refuse(false)
	alice.wants(alices)
	n.waitState(alices[len(alices)-1], "phone", "acknowledged")
}
