package engine

import (
	"carillon/server/transport"
	"carillon/server/wire"
)

// Dialect is a connection of a transport as the engine drives it: an object that embeds a [Conn], with what is its transport's
// own. Feed and ReadEnded are called by the connection's reader, Collect and Wrote by who drains it; each pair one call after
// the other, and the two pairs beside each other. None may block. No lock is held at any of these calls.
type Dialect interface {
	transport.Conn // from the embedded Conn
	base() *Conn   // so is this

	// Feed takes bytes that came from the client. They are the reader's: what is not whole is to be copied.
	Feed(b []byte)
	// ReadEnded says that nothing more can be read: with nil the peer ended its direction, otherwise the socket broke, and the
	// dialect has to end the connection ([Conn.Drop]). After nil it may also leave the end to what is still to be written.
	ReadEnded(err error)
	// Collect appends to t.Buf what is to be written next, nothing if there is nothing; it is called again until then. What
	// one Take gave goes into one Collect.
	Collect(t *Turn)
	// Wrote follows a Collect that set a mark, once all of it is in the kernel's hands.
	Wrote(m Mark)
	// Release lets go of what the dialect holds. The connection has ended: only Session.Closed follows.
	Release()
}

// Mark says what a write was.
type Mark uint8

const (
	Plain   Mark = iota // nobody needs to know when it is out
	Goodbye             // Wrote follows, and nothing may be written behind it
)

// Turn is one write in the making.
type Turn struct {
	Buf  []byte // what is to be written; a Goodbye may be nothing at all, where it lies in what Wrote does
	Mark Mark

	// Closing is the code with which the session wants to say goodbye, once Take gives nothing more; 0: it does not.
	Closing wire.CloseCode

	session transport.Session
	batch   transport.Batch
}

// Take returns what the session has to send, nothing if there is nothing; in one Collect it is called once. What it returns is
// the engine's and stays until Collect returns.
func (t *Turn) Take() []wire.Out {
	if !t.session.Take(&t.batch) {
		return nil
	}
	return t.batch.Outs
}
