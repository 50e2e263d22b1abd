package tcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/wire"
)

func inForms(t *testing.T, f func(t *testing.T, addr string, r *room)) {
	for _, form := range forms() {
		t.Run(string(form), func(t *testing.T) {
			addr, r := start(t, Config{Engine: form})
			f(t, addr, r)
		})
	}
}

// A length that no frame may have is refused when it was announced: not one byte of the frame has to come.
func TestStream_LengthsThatAreRefusedAtOnce(t *testing.T) {
	length := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	first := encoded(&wire.Ping{})
	for _, tc := range []struct {
		name   string
		stream []byte
		frames int
		code   string
	}{
		{"0 at first", length(0), 0, wire.CodeMalformed},
		{"0 later", append(bytes.Clone(first), length(0)...), 1, wire.CodeMalformed},
		{"one above the limit of the first", length(transport.MaxFirstFrame + 1), 0, transport.CodeTooLarge},
		{"the later limit at first", length(transport.MaxFrame), 0, transport.CodeTooLarge},
		{"one above the limit of later ones", append(bytes.Clone(first), length(transport.MaxFrame+1)...), 1, transport.CodeTooLarge},
		{"2^31", append(bytes.Clone(first), length(1<<31)...), 1, transport.CodeTooLarge},
		{"2^32-1", append(bytes.Clone(first), length(1<<32-1)...), 1, transport.CodeTooLarge},
		{"a request of HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 0, transport.CodeTooLarge},
		{"a hello of TLS", []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 0, transport.CodeTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inForms(t, func(t *testing.T, addr string, r *room) {
				c, s := connect(t, addr, r)
				if err := c.write(tc.stream); err != nil {
					t.Fatal(err)
				}
				if got := get(t, s.refusals, "a refusal"); got != tc.code {
					t.Errorf("refusal: got %s, want %s", got, tc.code)
				}
				if e, ok := c.next(t).(*wire.Error); !ok || e.Code != tc.code {
					t.Errorf("the client is told %+v, want an error %s", e, tc.code)
				}
				c.ends(t)
				if got := len(s.frames); got != tc.frames {
					t.Errorf("frames before: got %d, want %d", got, tc.frames)
				}
				c.Kill()
				if got := get(t, s.closed, "Closed"); got != wire.CloseProtocol {
					t.Errorf("Closed: got %v, want %v", got, wire.CloseProtocol)
				}
			})
		})
	}
}

// Whatever pieces a stream comes in, its frames are the same.
func TestStream_InPiecesOfEverySize(t *testing.T) {
	var stream []byte
	const n = 40
	for i := range n {
		stream = append(stream, encoded(&wire.Ack{Cursor: strings.Repeat("c", i) + strconv.Itoa(i)})...)
	}
	inForms(t, func(t *testing.T, addr string, r *room) {
		for _, size := range []int{1, 2, 3, 4, 5, 7, 64, len(stream)} {
			c, s := connect(t, addr, r)
			for rest := stream; len(rest) > 0; rest = rest[min(size, len(rest)):] {
				if err := c.write(rest[:min(size, len(rest))]); err != nil {
					t.Fatal(err)
				}
			}
			for i := range n {
				f := get(t, s.frames, "a frame")
				if got, want := f.(*wire.Ack).Cursor, strings.Repeat("c", i)+strconv.Itoa(i); got != want {
					t.Fatalf("in pieces of %d: got %q, want %q", size, got, want)
				}
			}
			if err := c.Goodbye(); err != nil {
				t.Fatal(err)
			}
			if got := get(t, s.closed, "Closed"); got != wire.CloseNormal {
				t.Errorf("Closed: got %v, want %v", got, wire.CloseNormal)
			}
		}
	})
}

// A stream that ends anywhere but between two frames is a loss, and what had come of the last frame is nothing.
func TestStream_EndsInsideAFrame(t *testing.T) {
	whole := encoded(&wire.Ack{Cursor: "cursor"})
	inForms(t, func(t *testing.T, addr string, r *room) {
		for cut := range len(whole) + 1 {
			c, s := connect(t, addr, r)
			if err := c.write(append(encoded(&wire.Ping{}), whole[:cut]...)); err != nil {
				t.Fatal(err)
			}
			if err := c.HalfClose(); err != nil {
				t.Fatal(err)
			}
			want, frames := wire.CloseLost, 1
			switch cut {
			case 0:
				want = wire.CloseNormal
			case len(whole):
				want, frames = wire.CloseNormal, 2
			}
			if got := get(t, s.closed, "Closed"); got != want {
				t.Errorf("after %d bytes of a frame: got %v, want %v", cut, got, want)
			}
			if got := len(s.frames); got != frames {
				t.Errorf("after %d bytes of a frame: got %d frames, want %d", cut, got, frames)
			}
			if len(s.refusals) > 0 {
				t.Errorf("after %d bytes of a frame: refused as %s", cut, <-s.refusals)
			}
		}
	})
}

// A client that says nothing is the session's to give up: the transport keeps it, and its end is what the session says.
func TestStream_SilentClientStaysUntilTheSessionEndsIt(t *testing.T) {
	inForms(t, func(t *testing.T, addr string, r *room) {
		c, s := connect(t, addr, r)
		if err := c.write([]byte{0, 0}); err != nil { // half a length, and then nothing
			t.Fatal(err)
		}
		s.put(message(0, "there"))
		if _, ok := c.next(t).(*wire.Message); !ok {
			t.Error("the silent client got something else")
		}
		s.put(wire.Out{Frame: &wire.Kick{Code: wire.CloseConnectTimeout, Reason: wire.CloseConnectTimeout.String()}})
		s.conn.Close(wire.CloseConnectTimeout)
		if k, ok := c.next(t).(*wire.Kick); !ok || k.Code != wire.CloseConnectTimeout {
			t.Errorf("the last frame is %+v, want the kick", k)
		}
		c.ends(t)
		if len(s.closed) > 0 {
			t.Error("the end does not wait for the client")
		}
		s.conn.Cut(wire.CloseInternal)
		if got := get(t, s.closed, "Closed"); got != wire.CloseConnectTimeout {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseConnectTimeout)
		}
	})
}

// A client that reads a byte at a time gets everything whole, and nobody waits for it.
func TestStream_SlowReaderGetsEverythingAndHoldsUpNobody(t *testing.T) {
	inForms(t, func(t *testing.T, addr string, r *room) {
		slow, s := connect(t, addr, r)
		body := strings.Repeat("x", 32<<10)
		var outs []wire.Out
		const n = 256 // 8 MiB, more than sockets hold
		for i := range n {
			outs = append(outs, message(i, body))
		}
		s.put(outs...)
		one := make([]byte, 1)
		for i := range 100 { // the slow one reads a byte, another one has its messages
			slow.nc.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(slow.nc, one); err != nil {
				t.Fatal(err)
			}
			if i%10 == 0 {
				other, os := connect(t, addr, r)
				os.put(message(i, "quick"))
				if got := other.next(t).(*wire.Message).ID; got != push.MsgID(i+1) {
					t.Errorf("the other one got message %v", got)
				}
			}
		}
		s.mu.Lock()
		left := len(s.queue)
		s.mu.Unlock()
		if left == 0 {
			t.Error("everything left at once: the reader was not slow")
		}
		rest := io.LimitReader(slow.nc, int64(len(appendFrame(nil, &outs[0]))-100))
		slow.nc.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, rest); err != nil {
			t.Fatal(err)
		}
		for i := 1; i < n; i++ {
			if got := slow.next(t).(*wire.Message).ID; got != push.MsgID(i+1) {
				t.Fatalf("got message %v, want %d", got, i+1)
			}
		}
	})
}

func TestServe_TellsTheSessionWhoConnects(t *testing.T) {
	addr, r := start(t, Config{})
	c, s := connect(t, addr, r)
	m := s.meta
	if m.Kind != transport.TCP || m.Capabilities != (transport.Capabilities{Encoding: wire.Binary, Duplex: true}) {
		t.Errorf("meta: got %+v", m)
	}
	if got, want := m.Remote.String(), c.nc.LocalAddr().String(); got != want {
		t.Errorf("remote: got %s, want %s", got, want)
	}
}

func TestServe_RefusedClientHearsWhenToComeBack(t *testing.T) {
	full := push.Errorf(push.KindUnavailable, "overloaded", "the node is full")
	full.After = 2500 * time.Millisecond
	r := newRoom()
	r.refusal = full
	addr, _, stop := serve(t, Config{Acceptor: r}, nil)
	defer stop(t.Context())
	c := dial(t, addr, nil)
	want := wire.Goaway{Code: wire.CloseOverloaded, Reason: "overloaded", DelayMillis: 2500}
	if g, ok := c.next(t).(*wire.Goaway); !ok || *g != want {
		t.Errorf("got %+v, want %+v", g, want)
	}
	c.ends(t)
}

// shortOf is a listener that fails before each connection.
type shortOf struct {
	net.Listener
	err    error
	failed bool
}

func (l *shortOf) Accept() (net.Conn, error) {
	if l.failed = !l.failed; l.failed {
		return nil, l.err
	}
	return l.Listener.Accept()
}

// Without descriptors nothing can be accepted for a while; that is no end.
func TestServe_GoesOnAfterAShortage(t *testing.T) {
	r := newRoom()
	addr, _, stop := serve(t, Config{Acceptor: r}, func(l net.Listener) net.Listener {
		return &shortOf{Listener: l, err: &net.OpError{Op: "accept", Err: syscall.EMFILE}}
	})
	for range 3 {
		c, s := connect(t, addr, r)
		s.put(message(0, "x"))
		c.next(t)
		c.Kill()
		get(t, s.closed, "Closed")
	}
	if err := stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestServe_ListenerThatFailsIsAnError(t *testing.T) {
	tr, err := New(Config{Acceptor: newRoom()})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	broken := errors.New("broken")
	if err := tr.Serve(&shortOf{Listener: l, err: broken}); err != broken {
		t.Errorf("Serve: got %v, want what the listener says", err)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := tr.Serve(l); err != ErrClosed {
		t.Errorf("Serve after Close: got %v, want ErrClosed", err)
	}
}

func TestNew_RejectsWhatCannotWork(t *testing.T) {
	for _, cfg := range []Config{{}, {Acceptor: newRoom(), FrameBytes: -1}, {Acceptor: newRoom(), Engine: engine.Form("steam")}} {
		if tr, err := New(cfg); err == nil {
			tr.Close(t.Context())
			t.Errorf("New(%+v): got no error", cfg)
		}
	}
}

// An idle connection is one object of this size and a descriptor.
func TestConn_IsSmall(t *testing.T) {
	if got, most := unsafe.Sizeof(conn{}), uintptr(176); got > most {
		t.Errorf("size: got %d bytes, want at most %d", got, most)
	}
}
