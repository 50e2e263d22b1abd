package proxytest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"carillon/server/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// network is a proxy with a target whose connections the test holds.
type network struct {
	*Proxy
	t        *testing.T
	accepted chan *net.TCPConn
}

func newNetwork(t *testing.T, cfg Config) *network {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{t: t, accepted: make(chan *net.TCPConn, 100)}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			n.accepted <- nc.(*net.TCPConn)
		}
	})
	t.Cleanup(func() { l.Close(); accepting.Wait() })
	n.Proxy = Start(t, l.Addr().String(), cfg)
	return n
}

func (n *network) ctx() context.Context {
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	n.t.Cleanup(cancel)
	return ctx
}

// dial makes a connection and returns both of its ends, and its link.
func (n *network) dial() (client, server *net.TCPConn, l *Link) {
	n.t.Helper()
	before := len(n.Links())
	nc, err := net.Dial("tcp", n.Addr())
	if err != nil {
		n.t.Fatal(err)
	}
	l, err = n.Link(n.ctx(), before)
	if err != nil {
		n.t.Fatal(err)
	}
	client, server = nc.(*net.TCPConn), <-n.accepted
	for _, c := range []net.Conn{client, server} {
		c.SetDeadline(time.Now().Add(patience))
		n.t.Cleanup(func() { c.Close() })
	}
	return client, server, l
}

func (n *network) await(l *Link, ok func(Counts) bool) {
	n.t.Helper()
	if err := l.Await(n.ctx(), ok); err != nil {
		n.t.Fatal(err)
	}
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

func wants(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got[:n], err, want)
	}
}

// silent fails if anything can be read. That the proxy wrote nothing is shown by its counts; this looks at the socket too.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v, want nothing", n, err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
}

func TestProxy_ForwardsBothWaysAndEachEnd(t *testing.T) {
	n := newNetwork(t, Config{})
	client, server, l := n.dial()
	write(t, client, "hello")
	wants(t, server, "hello")
	write(t, server, "good day")
	wants(t, client, "good day")
	client.CloseWrite()
	if rest, err := io.ReadAll(server); err != nil || len(rest) > 0 {
		t.Fatalf("behind the end: %q, %v", rest, err)
	}
	write(t, server, "still here") // half-closed, not closed
	wants(t, client, "still here")
	server.Close()
	if rest, err := io.ReadAll(client); err != nil || len(rest) > 0 {
		t.Fatalf("behind the end: %q, %v", rest, err)
	}
	n.await(l, func(c Counts) bool { return c.Over })
	got := l.Counts()
	want := Counts{Up: Flow{Read: 5, Written: 5, Ended: true}, Down: Flow{Read: 18, Written: 18, Ended: true}, Over: true}
	if got != want {
		t.Errorf("counts: got %+v, want %+v", got, want)
	}
}

func TestProxy_RetargetLeavesLinksAlone(t *testing.T) {
	n, next := newNetwork(t, Config{}), newNetwork(t, Config{})
	client, server, _ := n.dial()
	n.Retarget(next.Addr()) // which is a proxy itself
	other, err := net.Dial("tcp", n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	behind := <-next.accepted
	defer behind.Close()
	behind.SetDeadline(time.Now().Add(patience))
	write(t, other, "to the new one")
	wants(t, behind, "to the new one")
	write(t, client, "to the old one")
	wants(t, server, "to the old one")
}

func TestProxy_PassesOnAReset(t *testing.T) {
	n := newNetwork(t, Config{})
	client, server, l := n.dial()
	write(t, client, "hello")
	wants(t, server, "hello")
	reset(client)
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server reads %v, want a reset", err)
	}
	n.await(l, func(c Counts) bool { return c.Over })
}

func TestProxy_RefusesAndIsRefused(t *testing.T) {
	n := newNetwork(t, Config{})
	old, server, _ := n.dial()
	refused := func() {
		t.Helper()
		nc, err := net.Dial("tcp", n.Addr())
		if err == nil {
			defer nc.Close()
			nc.SetReadDeadline(time.Now().Add(patience))
			_, err = nc.Read(make([]byte, 1))
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a refused connection reads %v", err)
		}
	}
	n.Refuse(true)
	refused()
	write(t, old, "the old one lives")
	wants(t, server, "the old one lives")
	if got := n.Refused(); got != 1 || len(n.Links()) != 1 {
		t.Errorf("got %d refused and %d links, want 1 and 1", got, len(n.Links()))
	}
	n.Refuse(false)
	client, server, _ := n.dial()
	write(t, client, "again")
	wants(t, server, "again")

	nobody := Start(t, "127.0.0.1:1", Config{})
	n.Proxy = nobody
	refused()
}

func TestLink_HalfOpenLosesEverythingAndTellsNobody(t *testing.T) {
	n := newNetwork(t, Config{})
	client, server, l := n.dial()
	l.Drop(Up | Down)
	write(t, client, "lost")
	write(t, server, "lost too")
	n.await(l, func(c Counts) bool { return c.Up.Dropped == 4 && c.Down.Dropped == 8 })
	client.Close()
	n.await(l, func(c Counts) bool { return c.Up.Ended })
	silent(t, server)
	write(t, server, "and this")
	n.await(l, func(c Counts) bool { return c.Down.Read == 16 })
	if c := l.Counts(); c.Up.Written+c.Down.Written > 0 || c.Over {
		t.Errorf("counts: %+v, want nothing written, and no end", c)
	}
	l.Reset(Server)
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server reads %v, want a reset", err)
	}
	n.await(l, func(c Counts) bool { return c.Over })
}

func TestLink_OneWayLossLeavesTheOther(t *testing.T) {
	n := newNetwork(t, Config{})
	client, server, l := n.dial()
	l.Drop(Down)
	write(t, server, "lost")
	write(t, client, "arrives")
	wants(t, server, "arrives")
	n.await(l, func(c Counts) bool { return c.Down.Dropped == 4 })
	silent(t, client)
}

func TestLink_StallIsFeltByTheSender(t *testing.T) {
	n := newNetwork(t, Config{})
	client, server, l := n.dial()
	write(t, client, "before")
	wants(t, server, "before")
	l.Stall(Up, true)
	before := l.Counts().Up.Read
	sent := make(chan int64, 1)
	go func() {
		const all = 32 << 20
		n, _ := io.Copy(client, bytes.NewReader(make([]byte, all)))
		sent <- n
	}()
	write(t, server, "the other way is free")
	wants(t, client, "the other way is free")
	if got := l.Counts().Up.Read; got != before {
		t.Errorf("a stalled direction read %d bytes", got-before)
	}
	select {
	case <-sent:
		t.Fatal("the sender felt nothing")
	default:
	}
	l.Stall(Up, false)
	got, err := io.CopyN(io.Discard, server, 32<<20)
	if n := <-sent; err != nil || n != got {
		t.Errorf("after the stall: got %d of %d bytes, %v", got, n, err)
	}
}

// A receiver that does not read is felt by the sender, with little in between.
func TestLink_BackPressurePassesThrough(t *testing.T) {
	n := newNetwork(t, Config{})
	client, _, l := n.dial()
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(client, bytes.NewReader(make([]byte, 64<<20)))
		sent <- err
	}()
	n.await(l, func(c Counts) bool { return c.Up.Waiting() >= inFlight })
	if got := l.Counts().Up.Waiting(); got > inFlight+readSize {
		t.Errorf("the proxy holds %d bytes", got)
	}
	client.Close()
	if err := <-sent; err == nil {
		t.Error("the sender got rid of it all")
	}
}

func TestLink_HeldBytesArriveAfterThoseOfALaterLink(t *testing.T) {
	n := newNetwork(t, Config{})
	first, firstServer, held := n.dial()
	held.Hold(Up, true)
	write(t, first, "sent first")
	second, secondServer, _ := n.dial()
	write(t, second, "sent second")
	wants(t, secondServer, "sent second")
	n.await(held, func(c Counts) bool { return c.Up.Waiting() == 10 })
	first.CloseWrite()
	n.await(held, func(c Counts) bool { return c.Up.Ended })
	silent(t, firstServer)
	held.Hold(Up, false)
	wants(t, firstServer, "sent first")
	if rest, err := io.ReadAll(firstServer); err != nil || len(rest) > 0 {
		t.Errorf("behind the held bytes: %q, %v, want their end", rest, err)
	}
}

func TestLink_HoldInterruptsAWriteUnderWay(t *testing.T) {
	n := newNetwork(t, Config{})
	client, server, l := n.dial()
	const all = 8 << 20
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(client, bytes.NewReader(make([]byte, all)))
		sent <- err
	}()
	n.await(l, func(c Counts) bool { return c.Up.Waiting() >= inFlight }) // the server does not read
	l.Hold(Up, true)
	written := l.Counts().Up.Written
	if _, err := io.CopyN(io.Discard, server, written); err != nil {
		t.Fatal(err)
	}
	silent(t, server)
	l.Hold(Up, false)
	if _, err := io.CopyN(io.Discard, server, all-written); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestLink_LimitMakesSmallWrites(t *testing.T) {
	n := newNetwork(t, Config{})
	client, server, l := n.dial()
	l.Limit(Up, 1)
	write(t, client, "abc")
	for _, want := range "abc" {
		buf := make([]byte, 10)
		got, err := server.Read(buf[:1])
		if err != nil || got != 1 || rune(buf[0]) != want {
			t.Fatalf("got %q, %v, want %q", buf[:got], err, want)
		}
	}
	n.await(l, func(c Counts) bool { return c.Up.Written == 3 }) // what arrived may not be counted yet
	// A cut after a byte shows that writes are as small as they were asked to be.
	l.Limit(Up, 3)
	l.ResetAfter(Up, 7)
	write(t, client, "0123456789")
	n.await(l, func(c Counts) bool { return c.Over })
	if got := l.Counts().Up; got.Written != 10 || got.Read != 13 {
		t.Errorf("counts: %+v, want 3 and 7 bytes written of 13", got)
	}
	got, err := io.ReadAll(server)
	if string(got) != "0123456" || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %q, %v, want 0123456 and a reset", got, err)
	}
}

func TestLink_CutsEitherSideInEitherWay(t *testing.T) {
	for _, tc := range []struct {
		name           string
		cut            func(*Link, Side)
		sides          Side
		client, server error // what each reads; nil: nothing
	}{
		{"reset of the client", (*Link).Reset, Client, syscall.ECONNRESET, nil},
		{"reset of the server", (*Link).Reset, Server, nil, syscall.ECONNRESET},
		{"reset of both", (*Link).Reset, Client | Server, syscall.ECONNRESET, syscall.ECONNRESET},
		{"end for the client", (*Link).Finish, Client, io.EOF, nil},
		{"end for the server", (*Link).Finish, Server, nil, io.EOF},
		{"end for both", (*Link).Finish, Client | Server, io.EOF, io.EOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNetwork(t, Config{})
			client, server, l := n.dial()
			write(t, client, "hello")
			wants(t, server, "hello")
			tc.cut(l, tc.sides)
			for _, end := range []struct {
				c    net.Conn
				want error
			}{{client, tc.client}, {server, tc.server}} {
				if end.want == nil {
					write(t, end.c, "into the dark")
					continue
				}
				if _, err := end.c.Read(make([]byte, 1)); !errors.Is(err, end.want) {
					t.Errorf("read: got %v, want %v", err, end.want)
				}
			}
			if tc.client == nil {
				n.await(l, func(c Counts) bool { return c.Up.Dropped == 13 })
				silent(t, client)
			}
			if tc.server == nil {
				n.await(l, func(c Counts) bool { return c.Down.Dropped == 13 })
				silent(t, server)
			}
			client.Close()
			server.Close()
			n.await(l, func(c Counts) bool { return c.Over })
		})
	}
}

// hands is a clock that the test moves.
type hands struct {
	clock.Clock
	mu     sync.Mutex
	now    time.Time
	timers map[*hand]bool
}

type hand struct {
	h  *hands
	at time.Time
	f  func()
}

func (h *hands) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hands) AfterFunc(d time.Duration, f func()) clock.Timer {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := &hand{h, h.now.Add(d), f}
	h.timers[t] = true
	return t
}

func (t *hand) Stop() bool {
	t.h.mu.Lock()
	defer t.h.mu.Unlock()
	there := t.h.timers[t]
	delete(t.h.timers, t)
	return there
}

func (t *hand) Reset(time.Duration) bool { panic("not used") }

// move waits until the proxy waits for the clock, and moves it.
func (h *hands) move(t *testing.T, d time.Duration) {
	t.Helper()
	for late := time.Now().Add(patience); ; runtime.Gosched() {
		h.mu.Lock()
		n := len(h.timers)
		h.mu.Unlock()
		if n > 0 {
			break
		}
		if time.Now().After(late) {
			t.Fatal("nobody waits for the clock")
		}
	}
	h.mu.Lock()
	h.now = h.now.Add(d)
	var due []func()
	for t := range h.timers {
		if !t.at.After(h.now) {
			due = append(due, t.f)
			delete(h.timers, t)
		}
	}
	h.mu.Unlock()
	for _, f := range due {
		f()
	}
}

func TestLink_DelayIsTheClocks(t *testing.T) {
	h := &hands{now: time.Unix(1e9, 0), timers: make(map[*hand]bool)}
	n := newNetwork(t, Config{Clock: h})
	client, server, l := n.dial()
	l.Delay(Up, time.Hour, time.Hour)
	write(t, client, "late")
	n.await(l, func(c Counts) bool { return c.Up.Waiting() == 4 })
	write(t, server, "at once")
	wants(t, client, "at once")
	h.move(t, 59*time.Minute)
	silent(t, server)
	// What comes behind the delay does not overtake it.
	l.Delay(Up, 0, 0)
	write(t, client, "r")
	n.await(l, func(c Counts) bool { return c.Up.Waiting() == 5 })
	silent(t, server)
	h.move(t, time.Minute)
	wants(t, server, "later")
}

func TestLink_RandomDelaysKeepTheOrderAndTheSeedDecides(t *testing.T) {
	p := func(seed uint64) (ds []time.Duration) {
		n := newNetwork(t, Config{Seed: seed})
		for range 20 {
			ds = append(ds, n.between(0, time.Hour))
		}
		return ds
	}
	one, again, other := p(1), p(1), p(2)
	for i := range one {
		if one[i] != again[i] {
			t.Fatalf("delay %d of one seed: %v and %v", i, one[i], again[i])
		}
	}
	if one[0] == other[0] && one[1] == other[1] {
		t.Error("another seed gives the same delays")
	}

	n := newNetwork(t, Config{Seed: 3})
	client, server, l := n.dial()
	l.Delay(Up, 0, 2*time.Millisecond)
	var want []byte
	for i := range 200 {
		want = append(want, byte(i))
		write(t, client, string([]byte{byte(i)}))
	}
	wants(t, server, string(want))
}

func TestProxy_EachMeetsPresentAndFutureLinksBeforeTheirFirstByte(t *testing.T) {
	n := newNetwork(t, Config{})
	_, _, old := n.dial()
	n.Each(func(l *Link) { l.Drop(Up) })
	client, _, l := n.dial()
	write(t, client, "lost")
	n.await(l, func(c Counts) bool { return c.Up.Dropped == 4 })
	old.mu.Lock()
	defer old.mu.Unlock()
	if !old.up.dropping {
		t.Error("the old link was not met")
	}
}

func TestProxy_CloseEndsWhateverTheLinksDo(t *testing.T) {
	n := newNetwork(t, Config{})
	for _, f := range []func(*Link){
		func(l *Link) { l.Stall(Up|Down, true) },
		func(l *Link) { l.Hold(Up|Down, true) },
		func(l *Link) { l.Drop(Up | Down) },
		func(l *Link) { l.Delay(Up|Down, time.Hour, time.Hour) },
		func(l *Link) { l.Finish(Client) },
		func(*Link) {},
	} {
		client, server, l := n.dial()
		f(l)
		client.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)) // fills what there is to fill
		io.Copy(client, bytes.NewReader(make([]byte, 1<<20)))
		server.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		io.Copy(server, bytes.NewReader(make([]byte, 1<<20)))
	}
	n.Close() // goleak and the test's timeout judge
	for i, l := range n.Links() {
		if !l.Counts().Over {
			t.Errorf("link %d is not over", i)
		}
	}
	if _, err := n.Link(canceled(), 100); err == nil {
		t.Error("a connection that never came was given")
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
