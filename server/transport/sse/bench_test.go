package sse

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"carillon/server/transport"
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
	ends := dialBare(b, addr, 500) // what the first ones cost is not a connection's
	for range ends {
		get(b, r.welcomed, "a session")
	}
	before := memory(b, true)
	ends = append(ends, dialBare(b, addr, sessions)...)
	for range sessions {
		get(b, r.welcomed, "a session")
	}
	dirty, clean := memory(b, false), memory(b, true)
	n := float64(sessions)
	b.ReportMetric(float64(dirty.resident-before.resident)/n, "rss-B/session")
	b.ReportMetric(float64(clean.resident-before.resident)/n, "rss-after-gc-B/session")
	b.ReportMetric(float64(clean.heap-before.heap)/n, "heap-B/session")
	b.ReportMetric(float64(clean.stacks-before.stacks)/n, "stack-B/session")
	closeBare(ends)
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

type footprint struct{ resident, heap, stacks int64 }

// memory returns what the process holds; resident memory is 0 where the system does not say.
func memory(b *testing.B, collect bool) footprint {
	b.Helper()
	if collect {
		runtime.GC()
		runtime.GC()
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f := footprint{heap: int64(m.HeapAlloc), stacks: int64(m.StackInuse)}
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		f.resident = pages * int64(os.Getpagesize())
	}
	return f
}
