package longpoll

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"
)

// lean makes sessions that weigh nothing but a number, for measurements: they welcome, and have nothing more to say until a
// test wakes them.
type lean struct {
	next  atomic.Uint64
	polls chan struct{} // gets a value for each poll that continues a session
}

func (l *lean) Accept(c transport.Conn, _ transport.Meta) (transport.Session, error) {
	return &leanSession{room: l, conn: c, number: push.SessionEpoch(l.next.Add(1))}, nil
}

type leanSession struct {
	room    *lean
	conn    transport.Conn
	number  push.SessionEpoch
	begun   bool
	message atomic.Pointer[wire.Out] // to be taken; nil: none
}

func (s *leanSession) Receive(wire.Frame) {}
func (s *leanSession) Refuse(error)       {}
func (s *leanSession) Alive()             {}
func (s *leanSession) Poll(cursor string, _ time.Duration) {
	if cursor != "" {
		s.room.polls <- struct{}{}
	}
}
func (s *leanSession) PollOver()             {}
func (s *leanSession) Closed(wire.CloseCode) {}
func (s *leanSession) Take(b *transport.Batch) bool {
	if !s.begun {
		s.begun = true
		b.Outs = append(b.Outs, wire.Out{Frame: welcomeOf(s.number)})
		return true
	}
	if m := s.message.Swap(nil); m != nil {
		b.Outs = append(b.Outs, *m)
		return true
	}
	return false
}

// BenchmarkIdle opens polls that wait and prints what each costs, with its session's connection and without its session:
// resident memory right away and after two collections, heap and stacks. The far ends are bare descriptors in the same
// process, which takes two files a poll. One iteration is all of them.
func BenchmarkIdle(b *testing.B) {
	for _, form := range []engine.Form{engine.Epoll, engine.Goroutine} {
		b.Run(string(form), func(b *testing.B) {
			for b.Loop() {
				idle(b, form, 9000)
			}
		})
	}
}

func idle(b *testing.B, form engine.Form, polls int) {
	r := &lean{polls: make(chan struct{}, 500+polls)}
	addr, tr, _, stop := serve(b, Config{Acceptor: r, Engine: form}, nil)
	all := int64(0)
	ends := transporttest.Idle(b, polls, "poll", func(n int) []transporttest.End {
		ends := dialBare(b, addr, n, r)
		if all += int64(n); form == engine.Epoll {
			transporttest.Eventually(b, "all are parked", func() bool { return tr.Waiting() == all })
		}
		return ends
	})
	for _, e := range ends {
		e.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	tr.Close(ctx)
	stop(ctx)
}

// BenchmarkRound is one message to a client whose poll waits, its answer, and its next poll.
func BenchmarkRound(b *testing.B) {
	for _, form := range []engine.Form{engine.Epoll, engine.Goroutine} {
		b.Run(string(form), func(b *testing.B) {
			r := newRoom()
			addr, _, _, stop := serve(b, Config{Acceptor: r, Engine: form}, nil)
			l := dial(b, addr)
			s, a := l.begin(r)
			pos := push.Position(0)
			b.ReportAllocs()
			for b.Loop() {
				l.next(s, a)
				pos++
				s.put(message(pos, `"tea is ready"`))
				l.response()
				a.Cursor = cursorAt(s.number, pos)
				<-s.overs
			}
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			stop(ctx)
		})
	}
}

// dialBare connects clients whose second poll waits.
func dialBare(b *testing.B, addr string, n int, r *lean) []transporttest.End {
	b.Helper()
	var ends []transporttest.End
	buf := make([]byte, 4<<10)
	for range n {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		number := push.SessionEpoch(r.next.Load() + 1)
		if _, err := nc.Write([]byte(request("", "", "", "alice", ""))); err != nil {
			b.Fatal(err)
		}
		if _, err := nc.Read(buf); err != nil {
			b.Fatal(err)
		}
		next := request(fmt.Sprint(number), cursorAt(number, 0), "", "alice", "")
		if _, err := nc.Write([]byte(next)); err != nil {
			b.Fatal(err)
		}
		get(b, r.polls, "the second poll")
		ends = append(ends, transporttest.Bare(b, nc))
	}
	return ends
}

// A million clients wait in a million of these. Whoever raises a figure says what the bytes are for.
func TestPoll_IsSmall(t *testing.T) {
	if got, most := unsafe.Sizeof(poll{}), uintptr(80); got > most {
		t.Errorf("a poll: got %d bytes, want at most %d", got, most)
	}
	if got, most := unsafe.Sizeof(conn{}), uintptr(208); got > most {
		t.Errorf("a connection: got %d bytes, want at most %d", got, most)
	}
}
