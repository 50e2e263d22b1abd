package sse

import (
	"time"

	"carillon/server/transport/engine"
	"carillon/server/transport/web"
	"carillon/server/wire"
)

// conn is one connection.
type conn struct {
	engine.Conn

	// Owned by who drains it.
	at   web.Follower
	head *head // what the head of the answer needs; nil once it was collected
}

// head is what the head of an answer needs that the connection does not.
type head struct {
	now   func() time.Time
	extra []byte // headers that others have set
}

// Feed implements engine.Dialect. It is not called again: what comes after a refusal is discarded.
func (c *conn) Feed([]byte) { c.Refuse(errUnexpected) }

// ReadEnded implements engine.Dialect. A client leaves by closing, so no end is a goodbye.
func (c *conn) ReadEnded(error) { c.Drop(wire.CloseLost) }

// Collect implements engine.Dialect: what one Take gave, behind the head if that is still to come. The goodbye is the end of
// the stream alone, or the answer in its place.
func (c *conn) Collect(t *engine.Turn) {
	outs := t.Take()
	switch {
	case len(outs) > 0 && (c.head == nil || c.begin(t, web.RefusalOf(&outs[0]))):
		for i := range outs {
			t.Buf = appendEvent(t.Buf, &c.at, &outs[i])
		}
	case len(outs) > 0: // refused
	case t.Closing != 0:
		if c.head != nil {
			c.begin(t, web.ProblemOfClose(t.Closing, "", 0))
		}
		t.Mark = engine.Goodbye
	}
}

// begin writes the head of the answer: of a stream, and then it reports true, or the whole of a refusal, behind which nothing
// comes.
func (c *conn) begin(t *engine.Turn, refusal *web.Problem) bool {
	h := c.head
	c.head = nil
	if refusal == nil {
		t.Buf = appendHead(t.Buf, h.now(), h.extra)
		return true
	}
	t.Buf = refusal.Append(t.Buf, h.now(), h.extra, false)
	t.Mark = engine.Goodbye
	return false
}

// Wrote implements engine.Dialect: after the goodbye the client, which sees the end of the answer, closes.
func (c *conn) Wrote(engine.Mark) { c.CloseWrite() }

// Release implements engine.Dialect.
func (c *conn) Release() { c.head = nil }
