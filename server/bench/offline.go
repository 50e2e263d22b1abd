package bench

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"
	"time"

	"carillon/server/bench/swarm"
)

// Offline measures persistent messages to users who have no device: stored, flushed to disk before the answer, each with an
// idempotency key, as a product server should send them.
type Offline struct {
	Users    int           // that the messages are spread over
	Senders  int           // requests side by side
	Batch    int           // messages in one request
	Duration time.Duration // of sending
	Body     int           // bytes
}

// Name implements Scenario.
func (*Offline) Name() string { return "offline" }

func (s *Offline) settings() map[string]any {
	return map[string]any{
		"users": s.Users, "connections": s.Senders, "batch": s.Batch, "duration_s": s.Duration.Seconds(), "body_bytes": s.Body,
	}
}

func (s *Offline) check() error {
	switch {
	case s.Users < 1:
		return usagef("--users is at least 1")
	case s.Batch < 1 || s.Batch > maxBatch:
		return usagef("--batch lies between 1 and %d", maxBatch)
	}
	return checkLoad(s.Senders, s.Duration, s.Body)
}

func (s *Offline) clients() int             { return 0 }
func (s *Offline) heartbeat() time.Duration { return quiet }
func (s *Offline) transport() string        { return swarm.Transports[0] } // there are no clients

func (s *Offline) run(ctx context.Context, w *world) error {
	prefix := "bench-" + strings.ToLower(rand.Text()[:8]) + "-"
	got, err := w.loaded(ctx, "persistent messages to offline users", load{
		senders: s.Senders, duration: s.Duration,
		send: func(ctx context.Context, seq uint64) error {
			mark := w.mark()
			return w.pub.send(ctx, s.Batch, func(i int) message {
				mark.Seq = seq*uint64(s.Batch) + uint64(i)
				return message{
					user: prefix + strconv.FormatUint(mark.Seq%uint64(s.Users), 10), mark: mark, size: s.Body, stored: true,
					key: prefix + strconv.FormatUint(mark.Seq, 10),
				}
			})
		},
	})
	if err != nil {
		return err
	}
	n := float64(got.requests) * float64(s.Batch)
	w.set("messages_per_s", n/got.wall.Seconds())
	w.set("cpu_us_per_message", micros(got.server, n))
	w.set("p50_ms", millis(got.answers.Quantile(0.5)))
	w.set("p99_ms", millis(got.answers.Quantile(0.99)))
	w.set("messages", n)
	w.setOwn(got.meter, n)
	return nil
}
