package ws

import (
	"context"
	"sync/atomic"

	"carillon/server/transport/engine"
	"carillon/server/wire"
)

// conn is one connection: what package engine keeps, and what WebSocket adds.
type conn struct {
	engine.Conn

	// Static after construction.
	t *Transport

	said atomic.Pointer[said] // control frames of ours that are due; nil almost always

	// Owned by the reader.
	begun *begun // what has not come whole; nil almost always
}

// said are the control frames of ours that are due. It does not change; another takes its place.
type said struct {
	pong []byte // payload of the pong; nil: none is due
	bye  []byte // payload of the close frame that answers the peer's; nil: none came
}

// begun is what has come of a frame or of a message, and is not whole.
type begun struct {
	tail   []byte  // the beginning of a frame
	parser *parser // inside a message of several frames; nil between messages
}

// say has a control frame of ours written.
func (c *conn) say(change func(*said)) {
	for {
		old := c.said.Load()
		s := new(said)
		if old != nil {
			*s = *old
		}
		change(s)
		if c.said.CompareAndSwap(old, s) {
			break
		}
	}
	c.RequestWrite()
}

// takeSaid returns the control frames that are due. An answer to the peer's close frame stays due: nothing follows it.
func (c *conn) takeSaid() said {
	for {
		s := c.said.Load()
		if s == nil {
			return said{}
		}
		if s.bye != nil || c.said.CompareAndSwap(s, nil) {
			return *s
		}
	}
}

// saysBye reports whether the peer said goodbye.
func (c *conn) saysBye() bool {
	s := c.said.Load()
	return s != nil && s.bye != nil
}

// Collect implements engine.Dialect: a pong that is due, what one Take returns, and at the end the close frame.
func (c *conn) Collect(t *engine.Turn) {
	due := c.takeSaid()
	if due.bye != nil { // the peer reads no further messages
		t.Buf = appendControl(t.Buf, opClose, due.bye)
		t.Mark = engine.Goodbye
		return
	}
	if due.pong != nil {
		t.Buf = appendControl(t.Buf, opPong, due.pong)
	}
	if outs := t.Take(); outs != nil {
		for i := range outs {
			t.Buf = appendText(t.Buf, &outs[i])
		}
	} else if t.Closing != 0 {
		t.Buf = appendControl(t.Buf, opClose, closePayload(t.Closing))
		t.Mark = engine.Goodbye
	}
}

// Wrote implements engine.Dialect: our close frame is in the kernel's hands.
func (c *conn) Wrote(engine.Mark) {
	switch {
	case c.saysBye():
		c.Drop(wire.CloseNormal)
	case c.Refused():
		c.CloseWrite()
	}
}

// ReadEnded implements engine.Dialect.
func (c *conn) ReadEnded(err error) {
	if err == nil && c.saysBye() && !c.Ended() {
		return // the peer said goodbye and went; the answer is still to be written, or at least tried
	}
	c.Drop(wire.CloseLost)
}

// Release implements engine.Dialect.
func (c *conn) Release() { c.forget() }

// forget drops what has not come whole.
func (c *conn) forget() {
	if c.begun != nil && c.begun.parser != nil {
		c.begun.parser.discard()
	}
	c.begun = nil
}

// answerBye answers the peer's close frame with its own code, in order behind what is half written, unless our close
// frame went before it; then both have been said and the socket closes.
func (c *conn) answerBye(payload []byte) {
	c.say(func(s *said) { s.bye = payload })
	if c.Leave() {
		c.Drop(wire.CloseNormal)
	}
}

// onPing is called by the reader, from inside the library. Returning false keeps the library from answering.
func (c *conn) onPing(_ context.Context, payload []byte) bool {
	c.alive()
	c.pong(append([]byte{}, payload...))
	return false
}

// pong answers a ping; of several, the latest is answered (RFC 6455, 5.5.3). The payload is kept, and not nil.
func (c *conn) pong(payload []byte) { c.say(func(s *said) { s.pong = payload }) }

// onPong is called as onPing is.
func (c *conn) onPong(context.Context, []byte) { c.alive() }

// alive reports a control frame to the session, unless it came inside a message: a message that never ends is no life.
func (c *conn) alive() {
	if !c.inMessage() {
		c.Session().Alive()
	}
}
