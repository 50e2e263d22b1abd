package gateway

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/client"
	"carillon/server/transport"
	"carillon/server/wire"
)

// gadget is a device that speaks raw TCP, written from api/README.md with nothing but a socket and the codec.
type gadget struct {
	t      *testing.T
	nc     net.Conn
	br     *bufio.Reader
	cursor string // of the last welcome or cursor frame
}

// gadget connects a device and reads its welcome.
func (n *testNode) gadget(user, device, cursor string) *gadget {
	n.t.Helper()
	g := n.dialTCP()
	g.send(&wire.Connect{Version: 1, Token: n.token(user, device), Cursor: cursor, Client: "gadget/1"})
	w, ok := g.next().(*wire.Welcome)
	if !ok {
		n.t.Fatalf("got %+v, want a welcome", w)
	}
	g.cursor = w.Cursor
	return g
}

func (n *testNode) dialTCP() *gadget {
	n.t.Helper()
	nc, err := net.Dial("tcp", n.TCPAddr().String())
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &gadget{t: n.t, nc: nc, br: bufio.NewReader(nc)}
}

func (g *gadget) send(f wire.Frame) {
	g.t.Helper()
	b := wire.Append(make([]byte, 4), wire.Binary, f)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	if _, err := g.nc.Write(b); err != nil {
		g.t.Fatal(err)
	}
}

// read returns the next frame; io.EOF when the server ended its direction between two.
func (g *gadget) read() (wire.Frame, error) {
	var h [4]byte
	if _, err := io.ReadFull(g.br, h[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(h[:]))
	if _, err := io.ReadFull(g.br, b); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return wire.DecodeServer(wire.Binary, b)
}

func (g *gadget) next() wire.Frame {
	g.t.Helper()
	f, err := g.read()
	if err != nil {
		g.t.Fatal(err)
	}
	if c, ok := f.(*wire.Cursor); ok {
		g.cursor = c.Cursor
	}
	return f
}

// want reads up to a message and compares its id.
func (g *gadget) want(id string) {
	g.t.Helper()
	for {
		if m, ok := g.next().(*wire.Message); ok {
			if m.ID.String() != id {
				g.t.Fatalf("got message %s, want %s", m.ID, id)
			}
			return
		}
	}
}

// caughtUp reads up to the end of the catch-up, in which there is no message, and acknowledges what came before.
func (g *gadget) caughtUp() {
	g.t.Helper()
	for {
		switch f := g.next().(type) {
		case *wire.Message:
			g.t.Fatalf("got message %s, want none", f.ID)
		case *wire.Cursor:
			if f.Reason == wire.CursorCaughtUp {
				g.send(&wire.Ack{Cursor: f.Cursor})
				return
			}
		}
	}
}

// ends reads to the end and returns the last frame.
func (g *gadget) ends() (last wire.Frame) {
	g.t.Helper()
	for {
		f, err := g.read()
		if errors.Is(err, io.EOF) {
			g.nc.Close()
			return last
		}
		if err != nil {
			g.t.Fatal(err)
		}
		last = f
	}
}

func TestTCP_AMessageArrivesIsAcknowledgedAndNotRepeated(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	first := n.publish("alice", "before any device")
	g := n.gadget("alice", "gadget", "")
	g.want(first)
	g.caughtUp()
	n.waitState(first, "gadget", "acknowledged")
	second := n.publish("alice", "live")
	g.want(second)
	g.send(&wire.Ping{})
	if _, ok := g.next().(*wire.Pong); !ok {
		t.Error("a ping is not answered")
	}
	g.nc.Close() // it leaves without an acknowledgement of the second

	g = n.gadget("alice", "gadget", g.cursor)
	g.want(second)
	g.caughtUp()
	n.waitState(second, "gadget", "acknowledged")
}

func TestTCP_RefusalsAreAKickAndTheEnd(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	g := n.dialTCP()
	g.send(&wire.Connect{Version: 1, Token: "no token", Client: "gadget/1"})
	if k, ok := g.ends().(*wire.Kick); !ok || k.Code != wire.CloseTokenRefused {
		t.Errorf("a bad token ends with %+v, want %v", k, wire.CloseTokenRefused)
	}
	g = n.dialTCP()
	if _, err := io.WriteString(g.nc, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if k, ok := g.ends().(*wire.Kick); !ok || k.Code != wire.CloseProtocol {
		t.Errorf("a request of HTTP ends with %+v, want %v", k, wire.CloseProtocol)
	}
}

// One device has one session, whatever it connects over.
func TestTCP_ADeviceThatComesOverAnotherTransportReplacesItself(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	g := n.gadget("alice", "phone", "")
	w := n.watch("alice", "phone", &client.Memory{})
	<-w.caught
	if k, ok := g.ends().(*wire.Kick); !ok || k.Code != wire.CloseReplaced {
		t.Errorf("the session over TCP ends with %+v, want %v", k, wire.CloseReplaced)
	}
	g = n.gadget("alice", "phone", "")
	select {
	case k := <-w.kicked:
		if k.Code != wire.CloseReplaced {
			t.Errorf("the WebSocket is kicked with %v, want %v", k.Code, wire.CloseReplaced)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the WebSocket is not replaced")
	}
	id := n.publish("alice", "to the one that is left")
	g.want(id)
}

func TestTCP_StopSaysGoodbye(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	var gs []*gadget
	for _, user := range []string{"alice", "bob", "cathy"} {
		gs = append(gs, n.gadget(user, "gadget", ""))
	}
	ended := make(chan wire.Frame, len(gs))
	for _, g := range gs {
		go func() { ended <- g.ends() }()
	}
	n.stop()
	for range gs {
		if a, ok := (<-ended).(*wire.Goaway); !ok || a.Code != wire.CloseGoingAway {
			t.Errorf("the last frame is %+v, want a goaway", a)
		}
	}
	if got := n.room.Count(); got != 0 {
		t.Errorf("%d sessions are left", got)
	}
}

func TestTCP_IsCountedAndReported(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	n.gadget("alice", "gadget", "").caughtUp()
	m := n.adminText("/metrics")
	if !strings.Contains(m, "\ncarillon_tcp_writes_total ") || strings.Contains(m, "\ncarillon_tcp_writes_total 0\n") {
		t.Error("/metrics counts no writes of raw TCP")
	}
	n.wantReady(transport.TCP)
}

func TestTCP_ANodeWithoutItsListenerHasNone(t *testing.T) {
	g, err := New(t.Context(), Config{Data: "data", FS: vfs.NewMem(), Secret: secret, PublicListen: "127.0.0.1:0", AdminListen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if g.TCPAddr() != nil || g.TCPURL() != "" {
		t.Errorf("it listens on %v", g.TCPAddr())
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

// Where the node has a certificate raw TCP is under TLS, and a client that speaks in the clear gets nothing.
func TestTCP_GoesUnderTLSWithTheNodesCertificate(t *testing.T) {
	n, _, _, _ := secured(t, func(c *Config) { c.TCPListen = "127.0.0.1:0" })
	n.setUp()
	if !strings.HasPrefix(n.TCPURL(), "tcps://") {
		t.Errorf("the address is %s", n.TCPURL())
	}
	w := n.watchOver(transport.TCP, n.token("alice", "phone"), &client.Memory{})
	<-w.caught
	w.want(t, n.publish("alice", "under TLS"))
	g := n.dialTCP()
	g.send(&wire.Connect{Version: 1, Token: n.token("bob", "phone"), Client: "gadget/1"})
	if f, err := g.read(); err == nil {
		t.Errorf("in the clear a client gets %+v", f)
	}
	w.leave(t)
}
