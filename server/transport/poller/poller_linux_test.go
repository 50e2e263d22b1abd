package poller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen before it fails.
const patience = 30 * time.Second

// recorder is a handler that reads what comes.
type recorder struct {
	sock Socket
	data chan []byte   // what was read; nil: the peer sends nothing more
	errs chan error    // what a read failed with
	room chan struct{} // that it can be written
	hold chan struct{} // when set, Ready waits for it
	in   chan struct{} // when set, gets a value when Ready begins
}

func newRecorder() *recorder {
	return &recorder{data: make(chan []byte, 1024), errs: make(chan error, 1024), room: make(chan struct{}, 1024)}
}

func (r *recorder) Ready(readable, writable bool, scratch []byte) {
	if r.hold != nil {
		r.in <- struct{}{}
		<-r.hold
	}
	if writable {
		r.sock.Wrote()
		r.room <- struct{}{}
	}
	if !readable {
		return
	}
	switch n, err := r.sock.Read(scratch); {
	case err == ErrWouldBlock:
	case err != nil:
		r.errs <- err
		r.sock.Close(false)
	case n == 0:
		r.data <- nil
		r.sock.Mute()
	default:
		r.data <- bytes.Clone(scratch[:n])
	}
}

func get[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case v := <-ch:
		return v
	case <-ctx.Done():
		t.Fatalf("waited for %s in vain", what)
		panic("unreachable")
	}
}

func newPoller(t *testing.T, loops int) *Poller {
	t.Helper()
	p, err := New(loops)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return p
}

// pair returns both ends of a TCP connection.
func pair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

func adopt(t *testing.T, p *Poller, s *Socket, nc net.Conn) {
	t.Helper()
	if err := p.Reserve(s); err != nil {
		t.Fatal(err)
	}
	if err := s.Adopt(nc); err != nil {
		t.Fatal(err)
	}
}

// park gives one end of a connection to the poller and returns its handler and the other end.
func park(t *testing.T, p *Poller) (*recorder, *net.TCPConn) {
	t.Helper()
	near, far := pair(t)
	r := newRecorder()
	adopt(t, p, &r.sock, near)
	if err := r.sock.Arm(r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.sock.Close(true) })
	return r, far
}

func TestSocket_TellsWhatComesAndWhenItEnds(t *testing.T) {
	p := newPoller(t, 2)
	for range 5 {
		r, far := park(t, p)
		if _, err := far.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if got := string(get(t, r.data, "the data")); got != "hello" {
			t.Errorf("read: got %q, want hello", got)
		}
		if n, err := r.sock.Write([]byte("and you")); n != 7 || err != nil {
			t.Fatalf("write: got %d, %v", n, err)
		}
		answer := make([]byte, 7)
		if _, err := io.ReadFull(far, answer); err != nil || string(answer) != "and you" {
			t.Errorf("answer: got %q, %v", answer, err)
		}
		far.CloseWrite()
		if got := get(t, r.data, "the end"); got != nil {
			t.Errorf("read: got %q, want the end", got)
		}
	}
}

func TestSocket_WhatIsLeftUnreadIsAnnouncedAgain(t *testing.T) {
	p := newPoller(t, 1)
	r, far := park(t, p)
	want := bytes.Repeat([]byte("0123456789abcdef"), 10*ScratchSize/16)
	go far.Write(want)
	var got []byte
	for len(got) < len(want) {
		got = append(got, get(t, r.data, "more")...)
	}
	if !bytes.Equal(got, want) {
		t.Error("what arrived is not what was sent")
	}
}

func TestSocket_AwaitWriteTellsOnceWhenThereIsRoom(t *testing.T) {
	p := newPoller(t, 1)
	r, far := park(t, p)
	block := make([]byte, 64<<10)
	sent := 0
	for {
		n, err := r.sock.Write(block)
		if err != nil {
			t.Fatal(err)
		}
		if sent += n; n == 0 {
			break
		}
	}
	r.sock.AwaitWrite()
	if len(r.room) > 0 {
		t.Fatal("there is room before anybody read")
	}
	if _, err := io.CopyN(io.Discard, far, int64(sent)); err != nil {
		t.Fatal(err)
	}
	get(t, r.room, "room")
	if _, err := far.Write([]byte("x")); err != nil { // something else to hear of
		t.Fatal(err)
	}
	get(t, r.data, "the data")
	if got := len(r.room); got != 0 {
		t.Errorf("announcements of room: got %d more, want one in all", got)
	}
}

func TestSocket_AwaitWriteBeforeArmIsKept(t *testing.T) {
	p := newPoller(t, 1)
	near, far := pair(t)
	r := newRecorder()
	adopt(t, p, &r.sock, near)
	defer r.sock.Close(true)
	sent := 0
	for n := 1; n > 0; sent += n {
		var err error
		if n, err = r.sock.Write(make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
	}
	r.sock.AwaitWrite()
	if err := r.sock.Arm(r); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, far, int64(sent)); err != nil {
		t.Fatal(err)
	}
	get(t, r.room, "room")
}

func TestSocket_CloseIsFinal(t *testing.T) {
	p := newPoller(t, 1)
	r, far := park(t, p)
	r.sock.Close(false)
	r.sock.Close(true)
	if _, err := r.sock.Write([]byte("late")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write: got %v, want net.ErrClosed", err)
	}
	if _, err := r.sock.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: got %v, want net.ErrClosed", err)
	}
	if err := r.sock.Arm(r); !errors.Is(err, net.ErrClosed) {
		t.Errorf("arm: got %v, want net.ErrClosed", err)
	}
	r.sock.AwaitWrite()
	r.sock.Wrote()
	r.sock.Mute()
	r.sock.CloseWrite()
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the peer reads %v, want the end", err)
	}
	var zero Socket
	zero.Close(true)
}

func TestSocket_ResetDiscardsWhatWasWritten(t *testing.T) {
	p := newPoller(t, 1)
	r, far := park(t, p)
	for n := 1; n > 0; {
		var err error
		if n, err = r.sock.Write(make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
	}
	r.sock.Close(true)
	if _, err := io.Copy(io.Discard, far); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the peer's read ends with %v, want a reset", err)
	}
}

func TestSocket_MuteSilencesAllButTheEnd(t *testing.T) {
	p := newPoller(t, 1)
	muted, far := park(t, p)
	muted.sock.Mute()
	if _, err := far.Write([]byte("unheard")); err != nil {
		t.Fatal(err)
	}
	other, far2 := park(t, p) // of the same loop: what it hears comes after
	if _, err := far2.Write([]byte("heard")); err != nil {
		t.Fatal(err)
	}
	get(t, other.data, "the other's data")
	if len(muted.data) > 0 {
		t.Error("a muted socket was announced")
	}
	far.SetLinger(0)
	far.Close()
	get(t, muted.errs, "the reset")
}

// An event that was on its way when its socket closed must not reach the connection that has the place now.
// watched returns how many descriptors the kernel watches for a loop.
func watched(t *testing.T, l *loop) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", l.fd))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte("tfd:"))
}

// A connection that is taken back is Go's again, with what the client has sent meanwhile, and the loop hears nothing of it
// any more, although the kernel's connection lives on.
func TestSocket_DetachedIsAConnectionOfGoAgain(t *testing.T) {
	p := newPoller(t, 1)
	for _, armed := range []bool{true, false} {
		t.Run(fmt.Sprintf("armed=%v", armed), func(t *testing.T) {
			near, far := pair(t)
			r := newRecorder()
			adopt(t, p, &r.sock, near)
			if armed {
				if err := r.sock.Arm(r); err != nil {
					t.Fatal(err)
				}
				r.sock.Mute()
			}
			if _, err := far.Write([]byte("before")); err != nil {
				t.Fatal(err)
			}
			nc, err := r.sock.Detach()
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if got := watched(t, p.loops[0]); got != 1 {
				t.Errorf("the loop watches %d descriptors, want its bell alone", got)
			}
			if nc.RemoteAddr().String() != far.LocalAddr().String() {
				t.Errorf("the far end is %v, want %v", nc.RemoteAddr(), far.LocalAddr())
			}
			if _, err := far.Write([]byte(" and after")); err != nil {
				t.Fatal(err)
			}
			nc.SetReadDeadline(time.Now().Add(patience))
			b := make([]byte, len("before and after"))
			if n, err := io.ReadFull(nc, b); err != nil {
				t.Errorf("read %q and %v", b[:n], err)
			}
			if _, err := nc.Write([]byte("answer")); err != nil {
				t.Error(err)
			}
			if n, err := io.ReadFull(far, b[:6]); err != nil || string(b[:n]) != "answer" {
				t.Errorf("the far end read %q and %v", b[:n], err)
			}
			if _, err := r.sock.Detach(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("detached again: got %v, want %v", err, net.ErrClosed)
			}
			if _, err := r.sock.Write(b); !errors.Is(err, net.ErrClosed) {
				t.Errorf("written to: got %v, want %v", err, net.ErrClosed)
			}
			// Whatever the loop could hear of it, it would have heard before this.
			other, far2 := park(t, p)
			if _, err := far2.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			get(t, other.data, "the other's byte")
			other.sock.Close(true)
			if len(r.data) > 0 || len(r.errs) > 0 || len(r.room) > 0 {
				t.Error("the handler heard of a socket that was taken back")
			}
		})
	}
}

func TestLoop_EventsOfAClosedSocketReachNobody(t *testing.T) {
	p := newPoller(t, 1)
	gate, gateFar := park(t, p)
	gate.hold, gate.in = make(chan struct{}), make(chan struct{}, 16)
	old, oldFar := park(t, p)
	if _, err := gateFar.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	get(t, gate.in, "the loop") // it stands in the gate's handler
	if _, err := oldFar.Write([]byte("old")); err != nil {
		t.Fatal(err)
	}
	at := old.sock.at
	old.sock.Close(false)
	heir, heirFar := park(t, p)
	if heir.sock.at != at {
		t.Fatalf("the new socket has place %d, not %d: the test shows nothing", heir.sock.at, at)
	}
	// What the loop had been told of the place, it was told under the old generation.
	l := p.loops[0]
	l.mu.Lock()
	generation := l.table[at].generation
	l.mu.Unlock()
	if generation == 0 {
		t.Error("the place has the generation that it began with")
	}
	close(gate.hold)
	if _, err := heirFar.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if got := string(get(t, heir.data, "the data")); got != "new" {
		t.Errorf("read: got %q, want new", got)
	}
	if len(old.data)+len(old.errs) > 0 {
		t.Error("the closed socket was announced")
	}
}

// Who helps may leave something ready behind, of which Go's poller has told already.
func TestPoller_WhatAHelperLeavesIsServed(t *testing.T) {
	p := newPoller(t, 1)
	l := p.loops[0]
	const n = helpRounds*maxEvents + 50
	var rs []*recorder
	var fars []*net.TCPConn
	for range n {
		r, far := park(t, p)
		rs, fars = append(rs, r), append(fars, far)
	}
	l.busy.Lock() // serve has to wait, and everything becomes ready meanwhile
	for _, far := range fars {
		if _, err := far.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for range helpRounds {
		l.step()
	}
	l.busy.Unlock()
	for range 100 {
		p.Help()
	}
	for _, r := range rs {
		get(t, r.data, "the data")
	}
}

func TestPoller_HelpServesInTheCallersGoroutine(t *testing.T) {
	p := newPoller(t, 1)
	r, far := park(t, p)
	// Without its goroutine, which ends here, the loop is served by helpers alone.
	p.loops[0].epoll.SetReadDeadline(time.Unix(1, 0))
	p.running.Wait()
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for late := time.Now().Add(patience); len(r.data) == 0; p.Help() {
		if time.Now().After(late) {
			t.Fatal("nobody served it")
		}
	}
}

func TestPoller_AdoptNeedsADescriptor(t *testing.T) {
	p := newPoller(t, 1)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	var s Socket
	if err := p.Reserve(&s); err != nil {
		t.Fatal(err)
	}
	if err := s.Adopt(a); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("adopting a pipe: got %v, want errors.ErrUnsupported", err)
	}
	s.Close(false)
	near, _ := pair(t)
	if err := s.Adopt(near); !errors.Is(err, net.ErrClosed) {
		t.Errorf("adopting without a reservation: got %v, want net.ErrClosed", err)
	}
}

func TestSocket_IsSmall(t *testing.T) {
	if got := unsafe.Sizeof(Socket{}); got > 32 {
		t.Errorf("a socket takes %d bytes, its documentation says 32", got)
	}
}

// end is one end of a connection that closes when its peer does.
type end struct {
	sock Socket
	own  byte // what is written to it
	far  int
}

func (e *end) Ready(readable, _ bool, scratch []byte) {
	if n, err := e.sock.Read(scratch); n == 0 && err != ErrWouldBlock {
		e.sock.Close(false)
	}
}

// TestSocket_NoByteToAStranger closes sockets while others write to them: descriptors and places are given away at once, to
// connections that would see a byte which is not theirs.
func TestSocket_NoByteToAStranger(t *testing.T) {
	closes := 20000
	if raceEnabled {
		closes = 4000
	}
	before := files(t)
	p := newPoller(t, 2)
	open := func(i int) *end {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		e := &end{own: byte(i), far: fds[1]}
		e.sock.take(p.loops[i%len(p.loops)], fds[0])
		if err := e.sock.Arm(e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	var ring [16]atomic.Pointer[end]
	for i := range ring {
		ring[i].Store(open(i))
	}
	stop := make(chan struct{})
	var writing sync.WaitGroup
	for range 2 {
		writing.Go(func() {
			for {
				for i := range ring {
					e := ring[i].Load()
					_, _ = e.sock.Write([]byte{e.own}) // to one that was just closed, as often as not
				}
				select {
				case <-stop:
					return
				default:
					runtime.Gosched()
				}
			}
		})
	}
	buf := make([]byte, 4096)
	check := func(e *end) {
		for {
			n, err := syscall.Read(e.far, buf)
			if n <= 0 || err != nil {
				break
			}
			if strange := bytes.Trim(buf[:n], string(rune(e.own))); len(strange) > 0 {
				t.Errorf("bytes %d came to connection %d", strange, e.own)
			}
		}
		syscall.Close(e.far)
	}
	for i := range closes {
		at := &ring[i%len(ring)]
		old := at.Load()
		if i%3 == 0 { // the peer goes first, and the loop hears of it
			syscall.Shutdown(old.far, syscall.SHUT_RDWR)
		}
		old.sock.Close(i%2 == 0)
		at.Store(open((i + 7) % 128))
		check(old)
	}
	close(stop)
	writing.Wait()
	for i := range ring {
		e := ring[i].Load()
		e.sock.Close(false)
		check(e)
	}
	if got := files(t) - before; got > 8 { // the loops and Go's own poller
		t.Errorf("descriptors: %d more than before", got)
	}
	for i, l := range p.loops {
		l.mu.Lock()
		if len(l.free) != len(l.table) {
			t.Errorf("loop %d: %d of %d places are free", i, len(l.free), len(l.table))
		}
		l.mu.Unlock()
	}
}

func files(t *testing.T) int {
	t.Helper()
	fs, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fs)
}

// idler leaves unread what comes.
type idler struct{ calls chan struct{} }

func (h idler) Ready(bool, bool, []byte) {
	select {
	case h.calls <- struct{}{}:
	default:
	}
}

func TestPoller_CloseEndsALoopThatAlwaysHasSomething(t *testing.T) {
	p, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	near, far := pair(t)
	var s Socket
	if err := errors.Join(p.Reserve(&s), s.Adopt(near)); err != nil {
		t.Fatal(err)
	}
	defer s.Close(false)
	h := idler{make(chan struct{}, 1)}
	if err := s.Arm(h); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Write([]byte("tea")); err != nil {
		t.Fatal(err)
	}
	get(t, h.calls, "a call of the handler")
	done := make(chan error, 1)
	go func() { done <- p.Close() }()
	if err := get(t, done, "the end of Close"); err != nil {
		t.Error(err)
	}
}

func TestLazy_IsMadeForTheFirstSocketAndOnce(t *testing.T) {
	var l Lazy
	l.Help() // of nothing
	if err := l.Close(); err != nil || l.Made() {
		t.Fatalf("with no socket: closed with %v, made: %v", err, l.Made())
	}
	var all sync.WaitGroup
	sockets := make([]Socket, 8)
	for i := range sockets {
		all.Go(func() {
			if err := l.Reserve(&sockets[i]); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	first, err := l.get()
	if err != nil || !l.Made() {
		t.Fatal(err, l.Made())
	}
	for i := range sockets {
		if !slices.Contains(first.loops, sockets[i].loop) {
			t.Error("a socket is another poller's")
		}
		sockets[i].Close(false)
	}
	if err := l.Close(); err != nil || l.Made() {
		t.Errorf("closed with %v, made: %v", err, l.Made())
	}
}
