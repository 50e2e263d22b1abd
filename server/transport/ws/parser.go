package ws

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// parser is the library's reading half, lent to connections. Between two messages the library remembers nothing of
// a stream but that it is between two messages, so one serves a great many connections in turn, and an idle connection
// holds none. A connection that is inside a message of several frames keeps its parser until the message ends; the library
// would not take it up again.
//
// That a Conn reads on at a frame boundary after its net.Conn failed with an error of ours is not documented by
// github.com/coder/websocket. Its version is pinned, and TestParser_GoesOnAtEveryFrameBoundary holds it.
type parser struct {
	ws *websocket.Conn
	br *bufio.Reader // of ws
	in []byte        // whole frames that the library has not read yet
	c  *conn         // whose frames they are

	message io.Reader // inside a message; nil between messages
	body    []byte    // what of it has been read
}

// errNoMore is what the library meets at the end of the frames that have come whole.
var errNoMore = errors.New("ws: no more whole frames")

// parserRequest is a handshake that the library accepts: parsers have no client of their own.
var parserRequest = &http.Request{
	Method: http.MethodGet, ProtoMajor: 1, ProtoMinor: 1, Host: "parser",
	Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
	},
}

// newParser makes one by the only way that the library has to make a connection, its handshake.
func newParser() *parser {
	p := &parser{br: bufio.NewReaderSize(nil, 256)}
	var err error
	p.ws, err = websocket.Accept(parserWriter{p}, parserRequest, &websocket.AcceptOptions{
		CompressionMode: websocket.CompressionDisabled,
		OnPingReceived:  func(ctx context.Context, payload []byte) bool { return p.c.onPing(ctx, payload) },
		OnPongReceived:  func(ctx context.Context, payload []byte) { p.c.onPong(ctx, payload) },
	})
	if err != nil {
		panic(fmt.Sprintf("ws: the library refuses a handshake that is right: %v", err))
	}
	p.br.Reset(parserConn{p}) // past the reader that Accept put before it
	return p
}

// discard ends the parser. The library's finalizer and its cycles would keep each other alive.
func (p *parser) discard() { p.ws.CloseNow() }

// atRest reports whether another connection can have the parser.
func (p *parser) atRest() bool {
	return p.message == nil && len(p.in) == 0 && p.br.Buffered() == 0
}

// parsers keeps those that are at rest: as many as are ever used at once, which is a few.
type parsers struct {
	mu   sync.Mutex
	idle []*parser
}

// maxParsers is how many are kept.
const maxParsers = 32

func (ps *parsers) get() *parser {
	if p := ps.pop(); p != nil {
		return p
	}
	return newParser() // without the lock: it is a whole handshake
}

// pop returns one that is at rest; nil if there is none.
func (ps *parsers) pop() *parser {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	n := len(ps.idle)
	if n == 0 {
		return nil
	}
	p := ps.idle[n-1]
	ps.idle = ps.idle[:n-1]
	return p
}

func (ps *parsers) put(p *parser) {
	p.c = nil
	if cap(p.body) > keepBody {
		p.body = nil
	}
	if !ps.push(p) {
		p.discard()
	}
}

// push keeps p, unless there are enough.
func (ps *parsers) push(p *parser) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if len(ps.idle) == maxParsers {
		return false
	}
	ps.idle = append(ps.idle, p)
	return true
}

// close discards those at rest.
func (ps *parsers) close() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.idle {
		p.discard()
	}
	ps.idle = nil
}

// keepBody is the largest body for which an idle parser keeps a buffer.
const keepBody = 32 << 10

// parse has the library read whole frames and hands over what they are. It returns false when nothing more is to be read:
// the session was told why, or the peer's goodbye is being answered.
func (c *conn) parse(frames []byte) bool {
	var p *parser
	if c.inMessage() {
		p = c.begun.parser
	} else {
		p = c.t.parsers.get()
		p.c = c
	}
	p.in = frames
	err := p.run()
	p.in = nil
	switch {
	case err == nil && p.message == nil:
		c.t.parsers.put(p)
		return true
	case err == nil:
		return true // inside a message, with its parser
	}
	c.lend(nil)
	p.discard()
	c.endBy(judge(err))
	return false
}

// inMessage reports whether a message has begun and not ended.
func (c *conn) inMessage() bool { return c.begun != nil && c.begun.parser != nil }

// lend notes inside which parser's message the connection is, nil for none.
func (c *conn) lend(p *parser) {
	switch {
	case c.begun != nil:
		c.begun.parser = p
	case p != nil:
		c.begun = &begun{parser: p}
	}
}

// run reads to the end of the frames. It returns nil there, inside a message or not, and otherwise why it goes no further.
func (p *parser) run() error {
	for {
		if p.message == nil {
			if p.atRest() {
				return nil
			}
			if err := p.begin(); err != nil {
				return over(err)
			}
		}
		p.body = grown(p.body)
		n, err := p.message.Read(p.body[len(p.body):cap(p.body)])
		p.body = p.body[:len(p.body)+n]
		switch {
		case err == nil:
			continue
		case err != io.EOF:
			return over(err)
		}
		p.message = nil
		p.c.NoteFrame()
		p.c.lend(nil)
		if err := p.c.receive(p.body); err != nil {
			return err
		}
		p.body = p.body[:0]
	}
}

// begin reads up to the next message. A context that can end would cost a goroutine for each frame.
func (p *parser) begin() error {
	p.ws.SetReadLimit(int64(p.c.FrameLimit()))
	typ, r, err := p.ws.Reader(context.Background())
	if err != nil {
		return err
	}
	if typ != websocket.MessageText {
		return errNotText
	}
	p.message, p.body = r, p.body[:0]
	p.c.lend(p) // control frames that come now come inside a message
	return nil
}

// grown returns buf with space behind its end.
func grown(buf []byte) []byte {
	if len(buf) == cap(buf) {
		return slices.Grow(buf, max(512, len(buf)))
	}
	return buf
}

// over tells the end of the whole frames, which is no error, from the end of the stream.
func over(err error) error {
	if errors.Is(err, errNoMore) {
		return nil
	}
	return err
}

// parserConn is a parser as the net.Conn that its library reads from.
type parserConn struct{ *parser }

// Read implements net.Conn.
func (p parserConn) Read(b []byte) (int, error) {
	if len(p.in) == 0 {
		return 0, errNoMore
	}
	n := copy(b, p.in)
	p.in = p.in[n:]
	return n, nil
}

// Write implements net.Conn. The library writes close frames by itself; the drain sends ours in their place.
func (parserConn) Write(b []byte) (int, error) { return len(b), nil }

// Close implements net.Conn, and the rest of its methods, which the library does not call.
func (parserConn) Close() error                     { return nil }
func (parserConn) LocalAddr() net.Addr              { return nil }
func (parserConn) RemoteAddr() net.Addr             { return nil }
func (parserConn) SetDeadline(time.Time) error      { return nil }
func (parserConn) SetReadDeadline(time.Time) error  { return nil }
func (parserConn) SetWriteDeadline(time.Time) error { return nil }

// parserWriter is the ResponseWriter of a parser's handshake.
type parserWriter struct{ p *parser }

func (parserWriter) Header() http.Header         { return make(http.Header) }
func (parserWriter) Write(b []byte) (int, error) { return len(b), nil }
func (parserWriter) WriteHeader(int)             {}

// Hijack implements http.Hijacker.
func (w parserWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c := parserConn{w.p}
	return c, bufio.NewReadWriter(w.p.br, bufio.NewWriterSize(c, 16)), nil
}
