package tcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"reflect"
	"testing"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/wire"
)

// outcome is what has to come of the bytes that a client sends.
type outcome struct {
	frames   []wire.Frame
	refusals []string
	over     bool // the last refusal is final
	rest     int  // bytes of a frame that has not come whole
}

// model is the plainest reader, of a stream that is there at once.
func model(b []byte) (o outcome) {
	limit := transport.MaxFirstFrame
	for len(b) >= 4 {
		n := int(binary.BigEndian.Uint32(b))
		switch {
		case n == 0:
			o.refusals, o.over = append(o.refusals, wire.CodeMalformed), true
			return o
		case n > limit:
			o.refusals, o.over = append(o.refusals, transport.CodeTooLarge), true
			return o
		}
		if len(b) < 4+n {
			break
		}
		f, err := wire.DecodeClient(wire.Binary, b[4:4+n])
		b, limit = b[4+n:], transport.MaxFrame
		if err == nil {
			o.frames = append(o.frames, f)
			continue
		}
		code := err.(*push.Error).Code
		if o.refusals = append(o.refusals, code); code != wire.CodeUnknown {
			o.over = true
			return o
		}
	}
	o.rest = len(b)
	return o
}

// witness is a session that writes everything down.
type witness struct {
	frames   []wire.Frame
	refusals []string
	closed   chan wire.CloseCode
}

func (w *witness) Receive(f wire.Frame)       { w.frames = append(w.frames, f) }
func (w *witness) Refuse(err error)           { w.refusals = append(w.refusals, err.(*push.Error).Code) }
func (*witness) Alive()                       {}
func (*witness) Take(*transport.Batch) bool   { return false }
func (w *witness) Closed(code wire.CloseCode) { w.closed <- code }

// witnesses hands out one witness at a time.
type witnesses struct{ next *witness }

func (ws *witnesses) Accept(transport.Conn, transport.Meta) (transport.Session, error) {
	return ws.next, nil
}

// FuzzFeed has arbitrary bytes come in pieces of a size. What comes of them is what the model says, whatever the pieces, and no
// more is kept than has come of one frame.
func FuzzFeed(f *testing.F) {
	ack, ping := encoded(&wire.Ack{Cursor: "cursor"}), encoded(&wire.Ping{})
	for i, seed := range [][]byte{
		{}, {0, 0, 0}, {0, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff}, ping, bytes.Repeat(ack, 5), append(bytes.Clone(ping), ack[:7]...),
		frame([]byte{250, 1, 2}), append(frame([]byte{250}), ping...), append(frame([]byte{byte(wire.TypeKick)}), ping...),
		frame(make([]byte, transport.MaxFirstFrame+1)), append(bytes.Clone(ping), frame(append([]byte{6}, make([]byte, transport.MaxFrame)...))...),
		append(bytes.Clone(ping), frame(append([]byte{6}, make([]byte, transport.MaxFrame-1)...))...),
		encoded(&wire.Connect{Version: 1, Token: "t", Cursor: "c", Client: "x"}),
	} {
		f.Add(seed, uint16(i%4))
	}
	ws := &witnesses{}
	e, err := engine.New(engine.Config{Kind: transport.TCP, Acceptor: ws, Form: engine.Goroutine, Workers: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, stream []byte, piece uint16) {
		w := &witness{closed: make(chan wire.CloseCode, 2)}
		ws.next = w
		c := &conn{}
		if err := e.Accept(c, transport.Meta{}, false); err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe() // its reader hears nothing: the test is in its place
		if err := e.Adopt(c, near, nil); err != nil {
			t.Fatal(err)
		}
		size := max(int(piece), 1)
		for rest := stream; len(rest) > 0 && !c.Deaf(); rest = rest[min(size, len(rest)):] {
			part := bytes.Clone(rest[:min(size, len(rest))])
			c.Feed(part)
			clear(part) // the reader's buffer is used again
			if len(c.tail) > prefix+transport.MaxFrame {
				t.Fatalf("%d bytes are kept", len(c.tail))
			}
		}
		want := model(stream)
		if !reflect.DeepEqual(w.frames, want.frames) || !reflect.DeepEqual(w.refusals, want.refusals) {
			t.Errorf("got %v and refusals %q, want %v and %q", w.frames, w.refusals, want.frames, want.refusals)
		}
		if c.Deaf() != want.over || len(c.tail) != want.rest {
			t.Errorf("over: got %v with %d bytes kept, want %v and %d", c.Deaf(), len(c.tail), want.over, want.rest)
		}
		c.Cut(wire.CloseInternal)
		far.Close()
		<-w.closed
	})
}
