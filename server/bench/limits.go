package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"carillon/server/bench/sample"
	"carillon/server/bench/swarm"
)

// Limits measures what those who break a limit do to the others. Ordinary clients get messages at an even rate, and a few more look
// how long a ping takes, while attackers go ten times past one limit after the other. Each attack is measured in turns with
// the same without it, and with the same attack on another server like it, so that what the machine does besides falls on all; of
// all turns the median counts, so that one in which it did something else counts no more than any other.
type Limits struct {
	Clients  int           // who keep to the limits
	Senders  int           // requests side by side
	Rate     int           // messages a second, to all of them together
	Refusals int           // a second that the server answers, 0: all
	Turns    int           // of each attack
	Duration time.Duration // of a turn, with the attack and as long without
	Body     int           // bytes
}

// The limits of the server. Rates of connects are far below the defaults, for ten times those would be all that two cores can do.
// An address may connect ten times its rate at once, which is what the clients of the bench need.
const (
	limitFrames       = 20 // a second
	limitFrameBytes   = 16 << 10
	limitQueueBytes   = 256 << 10
	limitWrite        = time.Second
	limitConnects     = 50                    // a second
	limitConnectBurst = 500                   // at once
	limitAddressRate  = 20                    // connects a second of one address
	limitAddressBurst = 10 * limitAddressRate // as the server has it
	maxLimitsClients  = limitAddressBurst - probeCount
	past              = 10 // times a limit
)

// Name implements Scenario.
func (*Limits) Name() string { return "limits" }

func (s *Limits) settings() map[string]any {
	return map[string]any{
		"clients": s.Clients, "connections": s.Senders, "messages_per_s": s.Rate, "refusals_per_s": s.Refusals, "turns": s.Turns, "duration_s": s.Duration.Seconds(),
		"body_bytes": s.Body,
	}
}

func (s *Limits) check() error {
	switch {
	case s.Clients < 1 || s.Clients > maxLimitsClients:
		return usagef("--clients lies between 1 and %d: more may not connect from one address at once", maxLimitsClients)
	case s.Rate < 1 || s.Rate > 100_000:
		return usagef("--rate lies between 1 and 100000")
	case s.Refusals < 0 || s.Refusals > 1_000_000:
		return usagef("--refusals lies between 0 and 1000000")
	case s.Turns < 1 || s.Turns > 100:
		return usagef("--turns lies between 1 and 100")
	}
	return checkLoad(s.Senders, s.Duration, s.Body)
}

func (s *Limits) clients() int             { return s.Clients }
func (s *Limits) heartbeat() time.Duration { return quiet }
func (s *Limits) transport() string        { return swarm.Transports[0] }

// serverFlags implements limited.
func (s *Limits) serverFlags() [][2]string {
	return [][2]string{
		{"--limits-frames-per-second", strconv.Itoa(limitFrames)}, {"--limits-frame-bytes", strconv.Itoa(limitFrameBytes)},
		{"--limits-queue-bytes", strconv.Itoa(limitQueueBytes)}, {"--limits-write-deadline", limitWrite.String()},
		{"--limits-connects-per-second", strconv.Itoa(limitConnects)}, {"--limits-connect-burst", strconv.Itoa(limitConnectBurst)},
		{"--limits-connects-per-address", strconv.Itoa(limitAddressRate)},
		{"--limits-refusals-per-second", strconv.Itoa(s.Refusals)}, {"--limits-refusals-per-address", strconv.Itoa(s.Refusals)},
		{"--heartbeat-linger", "1s"}, // so that sessions of polls that were given up are soon gone
	}
}

// others is what the clients that keep to the limits saw.
type others struct {
	messages, pings []float64 // the 99 % of each turn, in milliseconds
	sent            uint64
	missing         float64
	cpu             time.Duration // of the server
}

func (s *Limits) run(ctx context.Context, w *world) (err error) {
	if _, err := w.connect(ctx, 0, s.Clients, atOnce); err != nil {
		return err
	}
	probes, err := w.probe(ctx, s.Clients)
	if err != nil {
		return err
	}
	defer probes.end()
	beside, stop, err := w.startBeside(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := s.turn(ctx, w, probes, "a turn that does not count", new(others)); err != nil {
		return err
	}
	var messages, missing float64
	for i := range attacks {
		a := &attacks[i]
		var without, with, elsewhere others
		var done tally
		for n := range s.Turns {
			what := fmt.Sprintf("%s, turn %d of %d", a.name, n+1, s.Turns)
			if err := s.turn(ctx, w, probes, what+", nobody attacks", &without); err != nil {
				return err
			}
			t, err := s.underAttack(ctx, w, w, a, probes, what+", under attack", &with)
			if err != nil {
				return err
			}
			done.add(t)
			if _, err := s.underAttack(ctx, w, beside, a, probes, what+", who is at the server beside", &elsewhere); err != nil {
				return err
			}
		}
		if done.refused == 0 {
			return fmt.Errorf("%s: the server took all of %d attempts, so there was no limit to measure", a.name, done.attempts)
		}
		s.figures(w, a, &without, &with, &elsewhere, done)
		messages += float64(without.sent + with.sent + elsewhere.sent)
		missing += without.missing + with.missing + elsewhere.missing
	}
	w.set("messages", messages)
	w.set("messages_missing", missing)
	w.note("attackers share the machine with those who are measured: what they and their server take of the processor is in the figures under attack")
	w.note("the server beside is another one like it, where nobody is but the attackers: what an attack on it does, the machine does and not the server")
	r, err := w.fleet.Report(ctx, false)
	if err != nil {
		return err
	}
	w.set("bench_rss_bytes", float64(r.RSS))
	return lost(r)
}

// underAttack is a turn while attackers are at the server of another world, or of this one.
func (s *Limits) underAttack(
	ctx context.Context, w, at *world, a *attack, probes *probes, what string, o *others,
) (tally, error) {
	stop := at.attack(ctx, a, s.Clients+probeCount)
	err := s.turn(ctx, w, probes, what, o)
	t, attacking := stop()
	if err == nil && attacking != nil {
		err = fmt.Errorf("%s: %w", a.name, attacking)
	}
	return t, err
}

// turn sends messages at the rate, as a phase of its own, and adds what the others saw of them.
func (s *Limits) turn(ctx context.Context, w *world, probes *probes, what string, o *others) error {
	if err := w.begin(ctx, swarm.CountEach); err != nil {
		return err
	}
	win := newWindow(10 * s.Rate)
	w.news.set(nil, win)
	defer w.news.set(nil, nil)
	if _, err := probes.take(); err != nil { // what they saw between two turns
		return err
	}
	cpu, err := sample.CPU(w.server.pid)
	if err != nil {
		return err
	}
	got, err := w.loaded(ctx, what, load{
		senders: s.Senders, duration: s.Duration, window: win, each: 1, every: time.Second * time.Duration(s.Senders) / time.Duration(s.Rate),
		send: func(ctx context.Context, seq uint64) error {
			mark := w.mark()
			mark.Seq = seq
			return w.pub.send(ctx, 1, func(int) message {
				return message{user: w.fleet.User(int(seq % uint64(s.Clients))), mark: mark, size: s.Body}
			})
		},
	})
	if err != nil {
		return err
	}
	after, err := sample.CPU(w.server.pid)
	if err != nil {
		return err
	}
	o.cpu += after - cpu
	pings, err := probes.take()
	if err != nil {
		return err
	}
	o.pings = append(o.pings, millis(pings.Quantile(0.99)))
	r, err := w.fleet.Report(ctx, false)
	if err != nil {
		return err
	}
	o.messages = append(o.messages, millis(r.Latency.Quantile(0.99)))
	o.sent += r.Latency.N
	o.missing += float64(got.requests) - float64(r.Messages)
	return lost(r)
}

func (s *Limits) figures(w *world, a *attack, without, with, elsewhere *others, done tally) {
	w.set(a.name+"_p99_ms_without", median(without.messages))
	w.set(a.name+"_p99_ms", median(with.messages))
	w.set(a.name+"_p99_more_percent", 100*(median(with.messages)/median(without.messages)-1))
	w.set(a.name+"_ping_p99_ms_without", median(without.pings))
	w.set(a.name+"_ping_p99_ms", median(with.pings))
	w.set(a.name+"_attempts", float64(done.attempts))
	w.set(a.name+"_refused", float64(done.refused))
	w.set(a.name+"_cpu_us", float64((with.cpu-without.cpu).Microseconds())/float64(done.attempts))
	w.set(a.name+"_beside_p99_ms", median(elsewhere.messages))
	w.set(a.name+"_beside_p99_more_percent", 100*(median(elsewhere.messages)/median(without.messages)-1))
	w.set(a.name+"_p99_more_than_beside_percent", 100*(median(with.messages)/median(elsewhere.messages)-1))
}
