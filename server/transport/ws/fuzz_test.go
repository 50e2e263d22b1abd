package ws

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// witness is a session that writes everything down, however much it is.
type witness struct {
	conn   transport.Conn
	closed chan wire.CloseCode

	mu       sync.Mutex
	frames   []wire.Frame
	refusals []string
	alive    int
	late     bool // a call came after Closed
	ended    bool
}

func (w *witness) note(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = w.late || w.ended
	f()
}

func (w *witness) Receive(f wire.Frame)       { w.note(func() { w.frames = append(w.frames, f) }) }
func (w *witness) Alive()                     { w.note(func() { w.alive++ }) }
func (w *witness) Take(*transport.Batch) bool { w.note(func() {}); return false }

func (w *witness) Refuse(err error) {
	code := err.(*push.Error).Code
	w.note(func() { w.refusals = append(w.refusals, code) })
	if code != wire.CodeUnknown {
		w.conn.Close(wire.CloseProtocol)
	}
}

func (w *witness) Closed(code wire.CloseCode) {
	w.note(func() { w.ended = true })
	w.closed <- code
}

// witnesses makes witnesses.
type witnesses chan *witness

func (ws witnesses) Accept(c transport.Conn, _ transport.Meta) (transport.Session, error) {
	w := &witness{conn: c, closed: make(chan wire.CloseCode, 2)}
	ws <- w
	return w, nil
}

// FuzzStream sends arbitrary bytes after a handshake, in pieces of a size, to each engine. What comes of them has to be
// what the model says: no frame that is none, none missing, every violation refused, and always an end.
func FuzzStream(f *testing.F) {
	seeds := slices.Concat(
		reservedBits(), opcodes(), everyLength(), longForms(), longerThanAllowed(), splitText(), badReasons(),
		codes(true, 1000, 4999), codes(false, 999, 1005),
	)
	for i, s := range seeds {
		f.Add(s.bytes, uint16(i%5))
	}
	type target struct {
		name string
		addr string
		ws   witnesses
		l    limits
	}
	var targets []target
	for _, e := range allEngines() {
		ws := make(witnesses, 1)
		cfg := e.cfg
		cfg.Acceptor = ws
		addr, tr, stop := serve(f, cfg, nil, nil)
		f.Cleanup(func() {
			tr.Close(f.Context()) // which has ended
			stop(f.Context())
		})
		targets = append(targets, target{e.name, addr, ws, limitsOf(cfg)})
	}
	f.Fuzz(func(t *testing.T, stream []byte, piece uint16) {
		for _, target := range targets {
			c := dialRaw(t, target.addr, nil)
			w := get(t, target.ws, "a session")
			fuzzOne(t, target.name, c, w, stream, int(piece), model(stream, target.l))
			c.Kill()
		}
	})
}

func fuzzOne(t *testing.T, engine string, c *rawClient, w *witness, stream []byte, piece int, want outcome) {
	size := max(piece, len(stream)/64, 1)
	for rest := stream; len(rest) > 0; rest = rest[min(size, len(rest)):] {
		if c.write(rest[:min(size, len(rest))]) != nil {
			break // refused
		}
	}
	if !want.said && !want.refused {
		c.HalfClose()
	}
	pongs, bye, err := c.drained()
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, errStrange) {
		t.Fatalf("%s: %v", engine, err)
	}
	c.Kill()
	closed := get(t, w.closed, "Closed")

	w.mu.Lock()
	defer w.mu.Unlock()
	if w.late || len(w.closed) > 0 {
		t.Errorf("%s: the session was called after its end", engine)
	}
	if !reflect.DeepEqual(w.frames, want.frames) {
		t.Errorf("%s: frames: got %v, want %v", engine, w.frames, want.frames)
	}
	if w.alive != want.alive {
		t.Errorf("%s: signs of life: got %d, want %d", engine, w.alive, want.alive)
	}
	if !isSubsequence(pongs, want.pings) {
		t.Errorf("%s: pongs: got %q, want some of %q in their order", engine, pongs, want.pings)
	}
	refusals := w.refusals
	if n := len(want.refusals); want.refused && len(refusals) == n && slices.Contains(want.allowed, refusals[n-1]) {
		refusals = append(slices.Clone(refusals[:n-1]), want.refusals[n-1])
	}
	if want.undecided && len(refusals) == len(want.refusals)+1 {
		refusals = refusals[:len(refusals)-1]
	}
	if !slices.Equal(refusals, want.refusals) {
		t.Errorf("%s: refusals: got %q, want %q", engine, w.refusals, want.refusals)
	}
	switch {
	case want.undecided:
	case want.refused:
		if closed != wire.CloseProtocol || bye == nil || *bye != string(closePayload(wire.CloseProtocol)) {
			t.Errorf("%s: a refused stream ends with %v", engine, closed)
		}
		if n := len(want.pings); n > 0 && (len(pongs) == 0 || pongs[len(pongs)-1] != want.pings[n-1]) {
			t.Errorf("%s: pongs: got %q, want the latest of %q", engine, pongs, want.pings)
		}
	case want.said:
		if closed != wire.CloseNormal || bye == nil || *bye != want.answer {
			t.Errorf("%s: a goodbye ends with %v", engine, closed)
		}
	default:
		if closed != wire.CloseLost {
			t.Errorf("%s: a stream without an end ends with %v", engine, closed)
		}
	}
}

var errStrange = errors.New("client: a frame that the server has no reason for")

// drained reads everything up to the end: the pongs and the payload of the close frame, nil if there was none. A witness
// sends nothing else.
func (c *rawClient) drained() (pongs []string, bye *string, err error) {
	c.nc.SetReadDeadline(time.Now().Add(patience))
	for {
		first, payload, err := c.readFrame()
		if err != nil {
			return pongs, bye, err
		}
		switch p := string(payload); {
		case first == fin|opPong && bye == nil:
			pongs = append(pongs, p)
		case first == fin|opClose && bye == nil:
			bye = &p
		default:
			return pongs, bye, errStrange
		}
	}
}
