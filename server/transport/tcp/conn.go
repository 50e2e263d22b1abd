package tcp

import (
	"errors"
	"slices"

	"carillon/server/push"
	"carillon/server/transport/engine"
	"carillon/server/wire"
)

// conn is one connection.
type conn struct {
	engine.Conn

	// Owned by the reader.
	tail []byte // the beginning of a frame that has not come whole; nil almost always
}

// Feed implements engine.Dialect: whole frames go to the session, the beginning of another is kept.
func (c *conn) Feed(b []byte) {
	kept := len(c.tail) > 0
	if kept {
		c.tail = append(c.tail, b...)
		b = c.tail
	}
	cutAny := false
	for {
		frame, n, err := cut(b, c.FrameLimit())
		if err == nil && n > 0 {
			err = c.receive(frame)
		}
		if err != nil {
			c.tail = nil
			c.Refuse(err)
			return
		}
		if n == 0 {
			break
		}
		b, cutAny = b[n:], true
	}
	switch {
	case len(b) == 0:
		c.tail = nil
	case !kept || cutAny:
		c.tail = slices.Clone(b)
	}
}

// receive decodes a frame and hands it to the session. An error is the refusal that ends the connection; a frame of an unknown
// type is refused, and the connection goes on.
func (c *conn) receive(b []byte) error {
	f, err := wire.DecodeClient(wire.Binary, b)
	if err == nil {
		c.NoteFrame()
		c.Session().Receive(f)
		return nil
	}
	if e, ok := errors.AsType[*push.Error](err); ok && e.Code == wire.CodeUnknown {
		c.NoteFrame()
		c.Session().Refuse(err)
		return nil
	}
	return err
}

// ReadEnded implements engine.Dialect.
func (c *conn) ReadEnded(err error) {
	if err != nil || len(c.tail) > 0 || c.Refused() {
		c.Drop(wire.CloseLost)
		return
	}
	c.Drop(wire.CloseNormal)
}

// Collect implements engine.Dialect. The goodbye has no bytes: the last frame said why.
func (c *conn) Collect(t *engine.Turn) {
	outs := t.Take()
	for i := range outs {
		t.Buf = appendFrame(t.Buf, &outs[i])
	}
	if outs == nil && t.Closing != 0 {
		t.Mark = engine.Goodbye
	}
}

// Wrote implements engine.Dialect.
func (c *conn) Wrote(engine.Mark) { c.CloseWrite() }

// Release implements engine.Dialect.
func (c *conn) Release() { c.tail = nil }
