//go:build linux

package engine

import (
	"bytes"
	"flag"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// closes is how many connections TestParked_NoByteToAStranger ends. A million takes two minutes:
//
//	go test ./server/transport/engine -run Stranger -closes 1000000 -v
var closes = flag.Int("closes", 20_000, "connections that end while broadcasts go on")

// owned is a session that has its own frame to send for each broadcast.
type owned struct {
	session
	due  atomic.Bool
	conn *plain
	out  wire.Out
	gone chan struct{}
}

func (s *owned) Take(b *transport.Batch) bool {
	if !s.due.Swap(false) {
		return false
	}
	b.Outs = append(b.Outs, s.out)
	b.Size += s.out.Size()
	return true
}

func (s *owned) Closed(wire.CloseCode) { close(s.gone) }

// ownRoom makes sessions that are replaced before anybody asks them.
type ownRoom struct{}

func (ownRoom) Accept(transport.Conn, transport.Meta) (transport.Session, error) {
	return &session{}, nil
}

// TestParked_NoByteToAStranger has connections end, in every way there is, while broadcasts are being written to all of
// them: their descriptors belong to the next ones at once. Each far end must see whole frames of its own and nothing else.
func TestParked_NoByteToAStranger(t *testing.T) {
	n := *closes
	if raceEnabled {
		n /= 10
	}
	files := countFiles(t)
	e, err := New(Config{Kind: "plain", Acceptor: ownRoom{}, Workers: 2, Form: Epoll})
	if err != nil {
		t.Fatal(err)
	}
	const lanes, width = 2, 8
	var ring [lanes][width]atomic.Pointer[owned]
	broadcast := func(round int) {
		for lane := range ring {
			for i := range ring[lane] {
				if s := ring[lane][i].Load(); s != nil {
					s.due.Store(true)
					s.conn.Wake(transport.Share(round % 2))
				}
			}
		}
	}
	var ending sync.WaitGroup
	var frames atomic.Int64
	for lane := range lanes {
		ending.Go(func() {
			fars := [width]int{}
			for i := range n/lanes + width {
				at := i % width
				broadcast(i) // is being written by the workers while this one ends
				if old := ring[lane][at].Load(); old != nil {
					frames.Add(end(t, old, fars[at], i))
				}
				if i < n/lanes {
					s, far := own(t, e, push.MsgID(i*lanes+lane+1))
					fars[at] = far
					ring[lane][at].Store(s)
				} else {
					ring[lane][at].Store(nil)
				}
			}
		})
	}
	ending.Wait()
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if got := countFiles(t); got > files {
		t.Errorf("descriptors: got %d, want %d", got, files)
	}
	t.Logf("%d connections ended among %d frames", n, frames.Load())
}

// own makes a parked connection without a handshake, and its far end, a descriptor that is read by waiting.
func own(t *testing.T, e *Engine, id push.MsgID) (*owned, int) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	f := os.NewFile(uintptr(fds[0]), "socket")
	near, err := net.FileConn(f)
	if f.Close(); err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	late := syscall.NsecToTimeval(patience.Nanoseconds())
	if err := syscall.SetsockoptTimeval(fds[1], syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &late); err != nil {
		t.Error(err)
	}
	m := &push.Message{ID: id, Body: []byte(`"` + strings.Repeat(id.String(), 10) + `"`), Created: 1}
	s := &owned{conn: &plain{}, out: wire.Out{Shared: wire.NewShared(m), Slot: push.NoSlot}, gone: make(chan struct{})}
	if err := e.Accept(s.conn, transport.Meta{}, true); err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	s.conn.session = s // in place of the room's
	if err := e.Adopt(s.conn, near, nil); err != nil {
		t.Error(err)
	}
	return s, fds[1]
}

// end ends a connection in one of the ways, reads what came to its far end, and returns how many frames that were.
func end(t *testing.T, s *owned, far, how int) int64 {
	want := appendLine(nil, &s.out)
	switch how % 4 {
	case 0:
		s.conn.Cut(wire.CloseSlow)
	case 1:
		s.conn.Close(wire.CloseGoingAway)
		s.conn.Cut(wire.CloseInternal)
	case 2:
		syscall.Shutdown(far, syscall.SHUT_WR)
	case 3:
		s.conn.Cut(wire.CloseSlow)
		s.conn.Close(wire.CloseGoingAway)
	}
	var got []byte
	for buf := make([]byte, 64<<10); ; {
		n, err := syscall.Read(far, buf)
		if err == syscall.EINTR {
			continue
		}
		if err == syscall.EAGAIN {
			t.Error("the connection does not end")
		}
		if n <= 0 {
			break
		}
		got = append(got, buf[:n]...)
	}
	syscall.Close(far)
	frames := int64(0)
	for ; bytes.HasPrefix(got, want); got = got[len(want):] {
		frames++
	}
	if !bytes.HasPrefix(want, got) { // what is left is the beginning of one more
		t.Errorf("a connection got %q, its own is %q", got, want)
	}
	<-s.gone
	return frames
}

func countFiles(t *testing.T) int {
	t.Helper()
	fs, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fs)
}
