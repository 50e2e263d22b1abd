//go:build unix

package engine

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/transport"
	"carillon/server/wire"
)

// one is a session that has the same message to send at each Take.
type one struct {
	session
	out wire.Out
}

func (s *one) Take(b *transport.Batch) bool {
	b.Outs = append(b.Outs, s.out)
	b.Size += s.out.Size()
	return true
}

// tcpPair returns both ends of a connection; what arrives at the far end is discarded.
func tcpPair(t *testing.T) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { io.Copy(io.Discard, client) })
	t.Cleanup(func() {
		server.Close()
		reading.Wait()
		client.Close()
	})
	return server
}

func TestDrain_DeliveryAllocatesNothing(t *testing.T) {
	nc := tcpPair(t)
	p := &plain{}
	c := &p.Conn
	c.e, c.dialect, c.session, c.thread, c.stands = &Engine{}, p, &one{out: text(0)}, &thread{nc: nc, raw: rawOf(nc)}, true
	d := newDrain(new(atomic.Int64))
	got := testing.AllocsPerRun(100, func() {
		c.collect(d)
		if len(d.Buf) == 0 {
			t.Fatal("nothing to write")
		}
		if n, err := c.writeNow(d, d.Buf); err != nil || n != len(d.Buf) {
			t.Fatalf("write: %d of %d bytes, %v", n, len(d.Buf), err)
		}
	})
	if got != 0 {
		t.Errorf("allocations of a delivery: got %v, want 0", got)
	}
}

func TestDrain_GivesBackALargeBuffer(t *testing.T) {
	p := &plain{}
	c := &p.Conn
	c.dialect, c.session, c.stands = p, &one{out: text(0)}, true
	d := newDrain(new(atomic.Int64))
	d.Buf = make([]byte, 0, keepSize+1)
	c.collect(d)
	if got := cap(d.Buf); got > keepSize {
		t.Errorf("capacity after the next write: got %d, want at most %d", got, keepSize)
	}
	if got := cap(d.batch.Outs[:cap(d.batch.Outs)]); got == 0 {
		t.Fatal("the batch took nothing")
	}
	if o := d.batch.Outs[:1][0]; o.Shared != nil || o.Frame != nil {
		t.Error("the batch holds its message after it was encoded")
	}
}

func TestTryWrite_NeverWaits(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	frozen, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	// Were a write to wait, this would end it with an error.
	late := time.AfterFunc(patience, func() { nc.Close() })
	defer late.Stop()

	raw, d := rawOf(nc), newDrain(new(atomic.Int64))
	block := make([]byte, 64<<10)
	for full := 0; full < 3; { // three attempts on a full socket
		n, err := d.tryWrite(raw, block)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			full++
		}
	}
	nc.Close()
	if _, err := d.tryWrite(raw, block); err == nil {
		t.Error("write to a closed socket: got no error")
	}
}
