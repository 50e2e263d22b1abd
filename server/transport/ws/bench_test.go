package ws

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"carillon/server/push"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"
)

// BenchmarkFanout sends one 128-byte message at a time to 1 000 clients on loopback and waits until all have it. Server
// and clients share the process, so the time of a delivery is that of both ends.
func BenchmarkFanout(b *testing.B) {
	for _, engine := range []Engine{EngineEpoll, EngineGoroutine} {
		for _, queued := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/queued=%d", engine, queued), func(b *testing.B) { fanout(b, engine, queued) })
		}
	}
}

func fanout(b *testing.B, engine Engine, queued int) {
	const clients = 1000
	addr, r := start(b, Config{Engine: engine})
	m := &push.Message{ID: 1, Body: []byte(`"` + strings.Repeat("x", 126) + `"`), Created: 1}
	out := wire.Out{Shared: wire.NewShared(m), Slot: push.NoSlot}
	var frames []wire.Out
	for range queued {
		frames = append(frames, out)
	}
	size := int64(len(appendText(nil, &out)))

	var arrived atomic.Int64 // bytes
	var all sync.WaitGroup
	done := make(chan struct{})
	var want atomic.Int64
	want.Store(-1)
	var sessions []*session
	var conns []net.Conn
	for range clients {
		c := dialRaw(b, addr, nil)
		sessions = append(sessions, r.session(b))
		conns = append(conns, c.nc)
		all.Go(func() {
			buf := make([]byte, 8<<10)
			for {
				n, err := c.nc.Read(buf)
				if err != nil {
					return
				}
				if arrived.Add(int64(n)) == want.Load() {
					done <- struct{}{}
				}
			}
		})
	}
	b.ResetTimer()
	total := int64(0)
	for b.Loop() {
		total += size * clients * int64(queued)
		want.Store(total)
		for _, s := range sessions {
			s.put(frames...)
		}
		<-done
	}
	b.StopTimer()
	deliveries := float64(b.N) * clients * float64(queued)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/deliveries, "ns/delivery")
	for _, c := range conns {
		c.Close()
	}
	all.Wait()
}

// BenchmarkIdle opens idle connections and prints what each costs: resident memory right away and after two collections,
// heap and stacks. The far ends are bare descriptors in the same process, which takes two files a connection. One
// iteration is all of them.
func BenchmarkIdle(b *testing.B) {
	for _, engine := range []Engine{EngineEpoll, EngineGoroutine} {
		b.Run(string(engine), func(b *testing.B) {
			for b.Loop() {
				idle(b, engine, 9000)
			}
		})
	}
}

func idle(b *testing.B, engine Engine, sessions int) {
	r := lean{make(chan struct{}, 500+sessions)}
	addr, tr, stop := serve(b, Config{Acceptor: r, Engine: engine}, nil, nil)
	ends := transporttest.Idle(b, sessions, "session", func(n int) []transporttest.End {
		ends := transporttest.DialBare(b, addr, handshake, n)
		for range ends {
			get(b, r.began, "a session")
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
