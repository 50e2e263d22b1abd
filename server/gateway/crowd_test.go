package gateway

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// crowd is many devices of a running node, each of a user of its own, without sockets: what is left of memory and time is
// the node's. One goroutine is the transport of all: it connects them, a window at a time, takes what is queued, and sends
// every device's ping within a heartbeat.
type crowd struct {
	g    *Gateway
	sign auth.SigningKey
	sims []sim

	nudge chan struct{} // holds a token while somebody is ready
	moved chan struct{} // holds a token after the driver did something
	halt  chan struct{} // closed by stop
	done  chan struct{} // closed by the driver

	mu    sync.Mutex
	ready []*sim // guarded by mu

	// Owned by the driver.
	taking []*sim
	batch  transport.Batch
	next   int // device that connects next
	beat   int // device that sends its ping next
	leaver int // device that leaves next

	wanted   atomic.Int64 // how many are to be connected
	leave    atomic.Int64 // how many break their connection in each step, and connect again
	accepted atomic.Int64
	welcomed atomic.Int64
	messages atomic.Int64
	pongs    atomic.Int64
	ended    atomic.Int64
	why      atomic.Uint32 // wire.CloseCode of the last one that ended
}

// sim is one device and its connection.
type sim struct {
	crowd *crowd
	sess  transport.Session // set before anything is sent

	// Guarded by crowd.mu.
	listed bool
	cut    bool
	code   wire.CloseCode

	// Owned by the driver.
	open bool // welcomed
	gone bool // ended by the node
}

const (
	// crowdWindow is how many connects are under way at once.
	crowdWindow = 1024
	crowdStep   = 20 * time.Millisecond
	crowdBeat   = 25 * time.Second // less than the interval that the node names
)

// newCrowd makes room for n devices on a running node of development. None is connected yet.
func newCrowd(g *Gateway, n int) *crowd {
	f := g.Dev()
	c := &crowd{
		g: g, sign: auth.SigningKey{ID: catalog.KeyID(f.KeyID), Alg: catalog.HS256, Private: f.Key},
		sims: make([]sim, n), nudge: make(chan struct{}, 1), moved: make(chan struct{}, 1), halt: make(chan struct{}), done: make(chan struct{}),
		batch: transport.Batch{MaxOuts: 64, MaxSize: 64 << 10},
	}
	for i := range c.sims {
		c.sims[i].crowd = c
	}
	go c.drive()
	return c
}

// connect connects the first n devices and returns when all are welcomed.
func (c *crowd) connect(t testing.TB, n int) {
	t.Helper()
	c.wanted.Store(int64(n))
	c.signal()
	c.wait(t, func() bool { return c.welcomed.Load() >= int64(n) })
}

// settle returns when nobody connects any more.
func (c *crowd) settle(t testing.TB) {
	t.Helper()
	c.wait(t, func() bool { return c.accepted.Load() == c.welcomed.Load() && c.g.room.Count() == int(c.wanted.Load()) })
}

// wait waits until something is so, looking whenever the driver did something, and fails if a device is sent away.
func (c *crowd) wait(t testing.TB, so func() bool) {
	t.Helper()
	for !so() {
		if c.ended.Load() > 0 {
			t.Fatalf("a device was sent away as %v", wire.CloseCode(c.why.Load()))
		}
		select {
		case <-c.done:
			t.Fatal("the crowd is gone")
		case <-c.moved:
		}
	}
}

// stop ends the driver; the node cuts whoever is left.
func (c *crowd) stop() {
	close(c.halt)
	<-c.done
}

func (c *crowd) signal() {
	select {
	case c.nudge <- struct{}{}:
	default:
	}
}

// list has the driver come to a device. The caller holds mu.
func (c *crowd) listLocked(s *sim) {
	if !s.listed {
		s.listed = true
		c.ready = append(c.ready, s)
		if len(c.ready) == 1 {
			c.signal()
		}
	}
}

func (s *sim) Wake(transport.Share) {
	s.crowd.mu.Lock()
	s.crowd.listLocked(s)
	s.crowd.mu.Unlock()
}

func (s *sim) Close(code wire.CloseCode) { s.end(code, false) }
func (s *sim) Cut(code wire.CloseCode)   { s.end(code, true) }

func (s *sim) end(code wire.CloseCode, cut bool) {
	c := s.crowd
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.code == 0 {
		s.code = code
	}
	s.cut = s.cut || cut
	c.listLocked(s)
}

func (c *crowd) drive() {
	defer close(c.done)
	t := time.NewTicker(crowdStep)
	defer t.Stop()
	last := time.Now()
	for {
		select {
		case <-c.halt:
			return
		case <-c.nudge:
			c.serve()
		case <-t.C:
		}
		if late := time.Since(last); late >= crowdStep {
			last = last.Add(late)
			c.ping(late)
			c.churn()
		}
		c.dial()
		select {
		case c.moved <- struct{}{}:
		default:
		}
	}
}

// serve takes from whoever is ready.
func (c *crowd) serve() {
	c.mu.Lock()
	c.taking, c.ready = c.ready, c.taking[:0]
	c.mu.Unlock()
	for i, s := range c.taking {
		c.taking[i] = nil
		c.mu.Lock()
		s.listed = false
		code, cut := s.code, s.cut
		c.mu.Unlock()
		for !cut && !s.gone {
			c.batch.Reset()
			if !s.sess.Take(&c.batch) {
				break
			}
			c.count(s)
		}
		if code != 0 && !s.gone {
			s.gone = true
			s.sess.Closed(code)
			c.why.Store(uint32(code))
			c.ended.Add(1)
		}
	}
}

func (c *crowd) count(s *sim) {
	for i := range c.batch.Outs {
		switch o := &c.batch.Outs[i]; o.Frame.(type) {
		case nil:
			c.messages.Add(1)
		case *wire.Welcome:
			s.open = true
			c.welcomed.Add(1)
		case *wire.Pong:
			c.pongs.Add(1)
		}
	}
}

// dial connects as many as the window has room for.
func (c *crowd) dial() {
	for n := c.wanted.Load(); int64(c.next) < n && c.accepted.Load()-c.welcomed.Load() < crowdWindow; c.next++ {
		c.connectOne(c.next)
	}
}

func (c *crowd) connectOne(i int) {
	s := &c.sims[i]
	// As a transport decodes it: nothing of the frame is shared with anything else.
	f, err := wire.DecodeClient(wire.JSON, wire.Append(nil, wire.JSON, &wire.Connect{Version: wire.Version, Token: c.token(i)}))
	if err != nil {
		panic(err)
	}
	s.sess, err = c.g.room.Accept(s, transport.Meta{
		Kind: transport.WebSocket, Capabilities: transport.Capabilities{Duplex: true, Close: true}, UserAgent: strings.Clone("crowd"),
	})
	if err != nil {
		c.ended.Add(1) // the test is over
		s.gone = true
		return
	}
	c.accepted.Add(1)
	s.sess.Receive(f)
}

// churn has some devices lose their connection and connect again, once everybody is there.
func (c *crowd) churn() {
	for n := c.leave.Load(); n > 0 && c.next == len(c.sims) && c.accepted.Load()-c.welcomed.Load() < crowdWindow; n-- {
		c.leaver = (c.leaver + 1) % c.next
		if s := &c.sims[c.leaver]; s.open && !s.gone {
			s.open = false
			s.sess.Closed(wire.CloseLost)
			c.connectOne(c.leaver)
		}
	}
}

func (c *crowd) token(i int) string {
	now := time.Now()
	token, err := auth.Mint(c.sign, auth.Claims{
		Product: devProduct, User: crowdUser(i), Device: push.DeviceID(fmt.Sprintf("device-%08x-%08x", i, i)), Platform: push.PlatformAndroid,
		TokenID: fmt.Sprintf("token-%016x", i), Issued: now, Expires: now.Add(12 * time.Hour),
	})
	if err != nil {
		panic(err)
	}
	return token
}

func crowdUser(i int) push.UserID { return push.UserID(fmt.Sprintf("user-%08d", i)) }

// ping has the next devices send theirs, so many that everybody's comes around in time, however late the driver is.
func (c *crowd) ping(late time.Duration) {
	if c.next == 0 {
		return
	}
	round := crowdBeat
	if c.next < len(c.sims) {
		round /= 2 // a round over a crowd that grows takes longer
	}
	for range int(float64(c.next)*float64(late)/float64(round)) + 1 {
		c.beat = (c.beat + 1) % c.next
		if s := &c.sims[c.beat]; s.open && !s.gone {
			s.sess.Receive(&wire.Ping{})
		}
	}
}

// crowdNode is a node on the real disk that runs until the test ends, with a crowd that has nobody in it yet.
func crowdNode(t testing.TB, n int) *crowd {
	t.Helper()
	g, err := New(t.Context(), Config{Data: t.TempDir(), Dev: true, PublicListen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", ShutdownTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	<-g.room.Joined()
	c := newCrowd(g, n)
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		c.stop()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// liveHeap returns the bytes that are reachable.
func liveHeap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// resident returns what the process holds of the machine's memory, 0 where it cannot be asked.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.ParseInt(fields[0], 10, 64)
	return kib << 10
}
