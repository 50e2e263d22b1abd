package ws

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"syscall"
	"testing"
	"time"
	"weak"

	"carillon/server/push"
	"carillon/server/wire"
)

// gathered is a connection that writes nothing before it is told to.
type gathered struct {
	net.Conn
	wait bool
	buf  []byte
}

func (c *gathered) Write(p []byte) (int, error) {
	if c.wait {
		c.buf = append(c.buf, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// TLS tells the end of the stream together with the last bytes before it, where both came at once.
func TestReader_LastMessageBeforeTheEndOfTLSIsReceived(t *testing.T) {
	r := newRoom()
	addr, _, stop := serve(t, Config{Acceptor: r}, nil, new(tls.Config))
	defer stop(t.Context())
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	g := &gathered{Conn: nc}
	s := tls.Client(g, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}) // later ones hide what an alert is
	c := &rawClient{nc: s, br: bufio.NewReader(s)}
	if err := c.write([]byte(handshake)); err != nil {
		t.Fatal(err)
	}
	if _, err := http.ReadResponse(c.br, nil); err != nil {
		t.Fatal(err)
	}
	g.wait = true
	if err := c.write(frame(fin|opText, ack("last"))); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	nc.SetWriteDeadline(time.Time{}) // CloseWrite leaves one that has passed
	if _, err := nc.Write(g.buf); err != nil {
		t.Fatal(err)
	}
	sess := r.session(t)
	if got := get(t, sess.closed, "Closed"); got != wire.CloseLost {
		t.Errorf("Closed: got %v, want %v", got, wire.CloseLost)
	}
	if len(sess.frames) != 1 {
		t.Errorf("frames: got %d, want the one before the end", len(sess.frames))
	}
}

// The library's connection holds a finalizer and points at itself, which keeps it alive unless it was closed.
func TestEndedConnection_IsCollected(t *testing.T) {
	addr, r := start(t, Config{})
	for name, end := range map[string]func(c *rawClient, s *session){
		"killed":  func(c *rawClient, _ *session) { c.Kill() },
		"goodbye": func(c *rawClient, _ *session) { c.Goodbye() },
		"refused": func(c *rawClient, _ *session) { c.SendRaw([]byte("{")) },
		"cut":     func(_ *rawClient, s *session) { s.conn.Cut(wire.CloseSlow) },
	} {
		t.Run(name, func(t *testing.T) {
			held := func() weak.Pointer[conn] {
				c := dialRaw(t, addr, nil)
				s := r.session(t)
				end(c, s)
				c.ends(t)
				c.Kill()
				get(t, s.closed, "Closed")
				return weak.Make(s.conn.(*conn))
			}()
			for late := time.Now().Add(patience); held.Value() != nil; runtime.GC() {
				if time.Now().After(late) {
					t.Fatal("the connection is still in memory")
				}
			}
		})
	}
}

// A client that does not read leaves megabytes in the kernel. A reset frees them; an ordinary close would not.
func TestCut_ResetsTheSocket(t *testing.T) {
	addr, r := start(t, Config{})
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	m := &push.Message{ID: 1, Kind: push.BodyBinary, Body: make([]byte, 64<<10), Created: 1}
	for range 128 {
		s.put(wire.Out{Shared: wire.NewShared(m), Slot: push.NoSlot})
	}
	c.until(t, fin|opText)
	s.conn.Cut(wire.CloseSlow)
	get(t, s.closed, "Closed")
	if _, err := io.Copy(io.Discard, c.br); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client's read ends with %v, want a reset", err)
	}
}
