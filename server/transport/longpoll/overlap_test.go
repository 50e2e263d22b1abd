package longpoll

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// logRoom is a room with one device and one slot: each of its sessions sends what lies behind the cursor that it began with.
// It holds the transport to what a session of polls is promised.
type logRoom struct {
	t *testing.T

	mu       sync.Mutex
	sessions map[*logSession]bool
	numbers  push.SessionEpoch
	head     push.Position
}

// logOwner owns the device's cursors.
const logOwner = 7

func logCursor(pos push.Position) string {
	return string(push.AppendCursor(nil, logOwner, push.Cursor{{Epoch: 1, Lineage: 1, Pos: pos}, {}}))
}

func logPosition(cursor string) (push.Position, error) {
	owner, c, err := push.ParseCursor(cursor)
	if err == nil && owner != logOwner {
		err = fmt.Errorf("a cursor of %d", owner)
	}
	return c[push.Own].Pos, err
}

func (r *logRoom) Accept(c transport.Conn, _ transport.Meta) (transport.Session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.numbers++
	s := &logSession{r: r, conn: c, number: r.numbers}
	r.sessions[s] = true
	return s, nil
}

// publish appends n messages.
func (r *logRoom) publish(n int) {
	r.mu.Lock()
	r.head += push.Position(n)
	var all []*logSession
	for s := range r.sessions {
		all = append(all, s)
	}
	r.mu.Unlock()
	for i, s := range all {
		s.conn.Wake(transport.Share(i % 2))
	}
}

type logSession struct {
	r      *logRoom
	conn   transport.Conn
	number push.SessionEpoch

	mu      sync.Mutex
	at      push.Position
	begun   bool // the welcome was taken
	waits   bool
	calling bool
	over    bool
}

// call checks that of the calls which come one after the other no two come at once, and none after Closed.
func (s *logSession) call(what string, f func()) {
	s.mu.Lock()
	if s.calling || s.over {
		s.r.t.Errorf("%s beside another call, or after Closed", what)
	}
	s.calling = true
	f()
	s.mu.Unlock()
	s.conn.Wake(transport.Direct) // as sessions may, inside of any call
	s.mu.Lock()
	s.calling = false
	s.mu.Unlock()
}

func (s *logSession) Receive(f wire.Frame) {
	s.call("Receive", func() {
		at, err := logPosition(f.(*wire.Connect).Cursor)
		if err != nil {
			s.r.t.Errorf("connect: %v", err)
		}
		s.at = at
	})
}

func (s *logSession) Poll(cursor string, _ time.Duration) {
	s.call("Poll", func() {
		s.waits = true
		if cursor == "" {
			return
		}
		if at, err := logPosition(cursor); err != nil || at > s.at {
			s.r.t.Errorf("a poll acknowledges %d, and %d were sent: %v", at, s.at, err)
		}
	})
}

func (s *logSession) PollOver() {
	s.call("PollOver", func() {
		if !s.waits {
			s.r.t.Error("PollOver, and no poll waits")
		}
		s.waits = false
	})
}

func (s *logSession) Take(b *transport.Batch) bool {
	s.r.mu.Lock()
	head := s.r.head
	s.r.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.waits || s.over {
		s.r.t.Error("Take, and no poll waits")
	}
	if !s.begun {
		s.begun = true
		b.Outs = append(b.Outs, wire.Out{Frame: &wire.Welcome{Version: 1, Session: s.number, Cursor: logCursor(s.at)}})
	}
	for s.at < head && len(b.Outs) < 5 {
		s.at++
		b.Outs = append(b.Outs, message(s.at, strconv.Itoa(int(s.at))))
	}
	return len(b.Outs) > 0
}

func (s *logSession) Closed(wire.CloseCode) {
	s.call("Closed", func() { s.over = true })
	s.r.mu.Lock()
	delete(s.r.sessions, s)
	s.r.mu.Unlock()
}

func (s *logSession) Alive()       { s.r.t.Error("Alive") }
func (s *logSession) Refuse(error) { s.r.t.Error("Refuse") }

// place is how far a device has come.
type place struct {
	session string
	at      push.Position
}

// Whatever overlaps, gets lost or breaks off: what an answer holds follows the cursor that its poll showed, without a hole and
// without a repetition.
func TestPoll_EachAnswerFollowsItsCursorWhateverOverlaps(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		const pollers, polls = 4, 150
		r := &logRoom{t: t, sessions: make(map[*logSession]bool)}
		cfg.Acceptor = r
		addr, _, tr := start(t, cfg)
		var mu sync.Mutex
		var now place
		var all sync.WaitGroup
		for i := range pollers {
			rnd := rand.New(rand.NewPCG(4, uint64(i)))
			all.Go(func() {
				var nc net.Conn
				var br *bufio.Reader
				defer func() {
					if nc != nil {
						nc.Close()
					}
				}()
				for range polls {
					if nc == nil {
						var err error
						if nc, err = net.Dial("tcp", addr); err != nil {
							t.Error(err)
							return
						}
						br = bufio.NewReader(nc)
					}
					mu.Lock()
					from := now
					mu.Unlock()
					wait := ""
					if rnd.IntN(3) == 0 {
						wait = "0"
					}
					if _, err := io.WriteString(nc, request(from.session, logCursor(from.at), wait, "alice", "")); err != nil {
						t.Error(err)
						return
					}
					if rnd.IntN(4) == 0 { // its answer gets lost, or nobody waits for it
						nc.Close()
						nc = nil
						r.publish(rnd.IntN(3))
						continue
					}
					r.publish(rnd.IntN(8))
					to, ok := follow(t, br, from)
					if !ok {
						return
					}
					mu.Lock()
					if to.at > now.at || to.session != from.session {
						now = to
					}
					mu.Unlock()
				}
			})
		}
		// A poll may wait while all the others have come to their end: something always comes.
		done := make(chan struct{})
		go func() { all.Wait(); close(done) }()
		for waiting := true; waiting; {
			select {
			case <-done:
				waiting = false
			case <-time.After(time.Millisecond):
				r.publish(1)
			}
		}
		l := dial(t, addr)
		r.mu.Lock()
		head := r.head
		r.mu.Unlock()
		for now.at < head {
			l.write(request(now.session, logCursor(now.at), "0", "alice", ""))
			var ok bool
			if now, ok = follow(t, l.br, now); !ok {
				return
			}
		}
		r.mu.Lock()
		var left []*logSession
		for s := range r.sessions {
			left = append(left, s)
		}
		r.mu.Unlock()
		for _, s := range left {
			s.conn.Cut(wire.CloseLost)
		}
		checkEmpty(t, tr)
		t.Logf("%d messages in %d sessions", head, r.numbers)
	})
}

// follow reads an answer and holds it to the place that its poll showed.
func follow(t *testing.T, br *bufio.Reader, from place) (to place, ok bool) {
	t.Helper()
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Error(err)
		return from, false
	}
	b, err := io.ReadAll(res.Body)
	var a body
	if err != nil || res.StatusCode != http.StatusOK || json.Unmarshal(b, &a) != nil {
		t.Errorf("got %d %s, %v", res.StatusCode, b, err)
		return from, false
	}
	at := from.at
	for _, raw := range a.Frames {
		f, err := wire.DecodeServer(wire.JSON, raw)
		if err != nil {
			t.Error(err)
			return from, false
		}
		if m, isMessage := f.(*wire.Message); isMessage {
			if at++; m.Pos != at {
				t.Errorf("an answer to a poll at %d holds position %d where %d belongs", from.at, m.Pos, at)
				return from, false
			}
		}
	}
	end, err := logPosition(a.Cursor)
	if err != nil || end != at {
		t.Errorf("an answer with everything up to %d ends with cursor %d, %v", at, end, err)
		return from, false
	}
	return place{a.Session, at}, true
}
