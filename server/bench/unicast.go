package bench

import (
	"context"
	"fmt"
	"time"

	"carillon/server/bench/swarm"
)

// Unicast measures messages to single users who are online, from the request until the client has read the message: online
// only and persistent, one by one and in batches.
type Unicast struct {
	Transport string // one of swarm.Transports
	Clients   int
	Senders   int           // requests side by side
	Batch     int           // messages in one request, where there are batches
	Window    int           // messages that did not arrive yet, at most
	Duration  time.Duration // of each of the four ways
	Body      int           // bytes
}

// Name implements Scenario.
func (*Unicast) Name() string { return "unicast" }

func (s *Unicast) settings() map[string]any {
	return map[string]any{
		"clients": s.Clients, "connections": s.Senders, "batch": s.Batch, "window": s.Window, "duration_s": s.Duration.Seconds(),
		"body_bytes": s.Body,
	}
}

// maxBatch is the most messages that the REST interface takes in one request.
const maxBatch = 500

func (s *Unicast) check() error {
	switch {
	case s.Clients < 1:
		return usagef("--clients is at least 1")
	case s.Batch < 2 || s.Batch > maxBatch:
		return usagef("--batch lies between 2 and %d", maxBatch)
	case s.Window < s.Batch:
		return usagef("--window is at least --batch")
	}
	return checkLoad(s.Senders, s.Duration, s.Body)
}

func (s *Unicast) clients() int             { return s.Clients }
func (s *Unicast) heartbeat() time.Duration { return quiet }
func (s *Unicast) transport() string        { return s.Transport }

func (s *Unicast) run(ctx context.Context, w *world) error {
	if _, err := w.connect(ctx, 0, s.Clients, atOnce); err != nil {
		return err
	}
	var total, missing, acks float64
	var own meter
	for i, way := range unicastWays {
		stored, batch := i >= 2, 1
		if i%2 == 1 {
			batch = s.Batch
		}
		got, r, err := s.publish(ctx, w, way.text, batch, stored)
		if err != nil {
			return err
		}
		n := float64(r.Messages)
		w.set(way.name+"_messages_per_s", n/got.wall.Seconds())
		w.set(way.name+"_cpu_us_per_message", micros(got.server, n))
		w.set(way.name+"_p50_ms", millis(r.Latency.Quantile(0.5)))
		w.set(way.name+"_p99_ms", millis(r.Latency.Quantile(0.99)))
		total += n
		missing += float64(got.requests)*float64(batch) - n
		acks += float64(r.Acks)
		own.wall += got.wall
		own.clients += got.clients
		own.self += got.self
		w.set("bench_rss_bytes", float64(r.RSS))
	}
	w.set("messages", total)
	w.set("messages_missing", missing)
	w.set("acks", acks)
	w.setOwn(own, total)
	return nil
}

// publish measures one way, as a phase of its own.
func (s *Unicast) publish(ctx context.Context, w *world, what string, batch int, stored bool) (sent, *swarm.Report, error) {
	if err := w.begin(ctx, swarm.CountEach); err != nil {
		return sent{}, nil, err
	}
	win := newWindow(s.Window)
	w.news.set(nil, win)
	defer w.news.set(nil, nil)
	got, err := w.loaded(ctx, what, load{
		senders: s.Senders, duration: s.Duration, window: win, each: batch,
		send: func(ctx context.Context, seq uint64) error {
			mark := w.mark()
			return w.pub.send(ctx, batch, func(i int) message {
				mark.Seq = seq*uint64(batch) + uint64(i)
				m := message{user: w.fleet.User(int(mark.Seq % uint64(s.Clients))), mark: mark, size: s.Body, stored: stored}
				if stored {
					m.key = fmt.Sprintf("%d-%d", mark.Phase, mark.Seq)
				}
				return m
			})
		},
	})
	if err != nil {
		return got, nil, err
	}
	r, err := w.fleet.Report(ctx, false)
	if err != nil {
		return got, nil, err
	}
	return got, r, lost(r)
}
