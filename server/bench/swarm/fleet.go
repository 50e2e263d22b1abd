package swarm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
)

// Fleet is several client processes that act as one. Its methods are called by one goroutine.
type Fleet struct {
	cfg FleetConfig
	ps  []*process

	// Guarded by mu.
	mu   sync.Mutex
	done map[uint64]int // messages, by how many processes have them
	open []int          // by process, while it connects or closes
}

// FleetConfig is what a fleet is made of.
type FleetConfig struct {
	Processes int
	Command   []string // starts one process: the program that calls [Serve], and its arguments
	Env       []string
	Setup     Setup
	// Sources are addresses to connect from, of which each process gets one in turn; empty: the system's choice.
	Sources []string

	// What a fleet tells. All are called by several goroutines, and do not block.
	Everywhere func(seq uint64) // all clients have this message
	Arrived    func(n uint64)   // so many messages more arrived
	Connected  func(open int)   // so many clients stand
	Lost       func(error)      // a process went without being asked to
}

// Start starts the processes of a fleet. Stop ends them.
func Start(ctx context.Context, cfg FleetConfig) (*Fleet, error) {
	f := &Fleet{cfg: cfg, done: make(map[uint64]int), open: make([]int, cfg.Processes)}
	for i := range cfg.Processes {
		p, err := startProcess(cfg.Command, cfg.Env, func(a *Answer) { f.hear(i, a) }, cfg.Lost)
		if err != nil {
			f.Stop()
			return nil, err
		}
		f.ps = append(f.ps, p)
	}
	_, err := f.each(ctx, func(i int) *Command {
		s := cfg.Setup
		if len(cfg.Sources) > 0 {
			s.Source = cfg.Sources[i%len(cfg.Sources)]
		}
		return &Command{Op: OpSetup, Setup: &s}
	})
	if err != nil {
		f.Stop()
		return nil, err
	}
	return f, nil
}

// hear takes news of process i.
func (f *Fleet) hear(i int, a *Answer) {
	if a.Received > 0 && f.cfg.Arrived != nil {
		f.cfg.Arrived(a.Received)
	}
	var everywhere []uint64
	f.mu.Lock()
	for _, seq := range a.Done {
		f.done[seq]++
		if f.done[seq] == len(f.ps) {
			delete(f.done, seq)
			everywhere = append(everywhere, seq)
		}
	}
	open := 0
	if a.Open > 0 {
		f.open[i] = a.Open
	}
	for _, n := range f.open {
		open += n
	}
	f.mu.Unlock()
	if a.Open > 0 && f.cfg.Connected != nil {
		f.cfg.Connected(open)
	}
	for _, seq := range everywhere {
		if f.cfg.Everywhere != nil {
			f.cfg.Everywhere(seq)
		}
	}
}

// Connect connects clients number from to from+count-1 and waits until each has been welcomed and has caught up, or failed.
// atOnce of them, in all, connect at the same time. Every process gets its share of the range, the same one for the same range.
func (f *Fleet) Connect(ctx context.Context, from, count, atOnce int) (*Report, error) {
	return f.shares(ctx, from, count, Command{Op: OpConnect, AtOnce: max(1, atOnce/len(f.ps))})
}

// Close says goodbye for clients that Connect connected with the same range.
func (f *Fleet) Close(ctx context.Context, from, count int) (*Report, error) {
	return f.shares(ctx, from, count, Command{Op: OpClose})
}

func (f *Fleet) shares(ctx context.Context, from, count int, c Command) (*Report, error) {
	return f.each(ctx, func(i int) *Command {
		c := c
		c.From = from + count*i/len(f.ps)
		c.Count = from + count*(i+1)/len(f.ps) - c.From
		return &c
	})
}

// Begin forgets what was counted; from now on messages of this phase count. Of a message that every client gets,
// [CountAll] tells when all have it.
func (f *Fleet) Begin(ctx context.Context, phase uint32, how Counting) error {
	_, err := f.each(ctx, func(int) *Command { return &Command{Op: OpBegin, Phase: phase, Counting: how} })
	f.mu.Lock()
	clear(f.done)
	f.mu.Unlock()
	return err
}

// Report returns what was counted since Begin. With free, the processes first give back memory that they do not need, so that
// the report tells what clients take and not what connecting them took.
func (f *Fleet) Report(ctx context.Context, free bool) (*Report, error) {
	return f.each(ctx, func(int) *Command { return &Command{Op: OpReport, Free: free} })
}

// each sends every process its command and adds up the reports.
func (f *Fleet) each(ctx context.Context, command func(i int) *Command) (*Report, error) {
	var wg sync.WaitGroup
	answers, errs := make([]*Answer, len(f.ps)), make([]error, len(f.ps))
	for i, p := range f.ps {
		wg.Go(func() { answers[i], errs[i] = p.do(ctx, *command(i)) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("clients: %w", err)
	}
	sum := new(Report)
	for _, a := range answers {
		if a.Report != nil {
			sum.merge(a.Report)
		}
	}
	return sum, nil
}

// PIDs returns the processes' numbers.
func (f *Fleet) PIDs() []int {
	var pids []int
	for _, p := range f.ps {
		pids = append(pids, p.child.PID())
	}
	return pids
}

// User returns the name of a client's user.
func (f *Fleet) User(number int) string { return f.cfg.Setup.Users + strconv.Itoa(number) }

// Stop ends all processes, and with them their connections, and waits until they are gone. After the first time it does nothing.
func (f *Fleet) Stop() {
	var wg sync.WaitGroup
	for _, p := range f.ps {
		wg.Go(p.stop)
	}
	wg.Wait()
}
