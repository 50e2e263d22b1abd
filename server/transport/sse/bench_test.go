package sse

import (
	"context"
	"testing"

	"carillon/server/transport"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"
)

// BenchmarkIdle opens idle streams that have been welcomed and prints what each costs: resident memory right away and after
// two collections, heap and stacks. The far ends are bare descriptors in the same process, which takes two files a
// connection. One iteration is all of them.
func BenchmarkIdle(b *testing.B) {
	for _, f := range forms(b) {
		b.Run(string(f), func(b *testing.B) {
			for b.Loop() {
				idle(b, Config{Engine: f}, 9000)
			}
		})
	}
}

func idle(b *testing.B, cfg Config, sessions int) {
	r := lean{make(chan struct{}, 500+sessions)}
	cfg.Acceptor = r
	addr, tr, stop := serve(b, cfg, nil, nil, nil)
	ends := transporttest.Idle(b, sessions, "session", func(n int) []transporttest.End {
		ends := transporttest.DialBare(b, addr, request, n)
		for range ends {
			get(b, r.welcomed, "a session")
		}
		return ends
	})
	for _, e := range ends {
		e.Close()
	}
	if err := tr.Close(context.Background()); err != nil {
		b.Error(err)
	}
	stop(context.Background())
}

// lean makes sessions that weigh next to nothing, for measurements: they say welcome and no more.
type lean struct{ welcomed chan struct{} }

var leanWelcome = wire.Out{Frame: welcome}

func (l lean) Accept(c transport.Conn, _ transport.Meta) (transport.Session, error) {
	c.Wake(transport.Direct)
	return &leanSession{left: 1, welcomed: l.welcomed}, nil
}

type leanSession struct {
	left     int
	welcomed chan struct{}
}

func (*leanSession) Receive(wire.Frame)    {}
func (*leanSession) Refuse(error)          {}
func (*leanSession) Alive()                {}
func (*leanSession) Closed(wire.CloseCode) {}

func (s *leanSession) Take(b *transport.Batch) bool {
	if s.left == 0 {
		s.welcomed <- struct{}{} // what it said is in the kernel's hands
		return false
	}
	s.left--
	b.Outs = append(b.Outs, leanWelcome)
	return true
}
