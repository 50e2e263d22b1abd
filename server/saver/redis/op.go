package redis

import (
	"context"
	"math/rand/v2"
	"time"

	"carillon/server/push"
	"carillon/server/redisdb"
)

// op is one piece of work under one tag: it reads, decides, and writes on the condition that nothing changed, as often as it takes.
type op interface {
	// ask begins an attempt and returns what it has to read, valid until the next call of a method. It is not read at one moment, but in
	// the order asked for: whatever of it a write relies on is in its conditions.
	ask() *redisdb.Read
	// decide looks at what was read. It returns a write, or something more to be read, after which it is called again; with
	// neither the work is done.
	decide() (*redisdb.Write, *redisdb.Read, error)
	// wrote is called when the write was done.
	wrote(w *redisdb.Write)
	// fail is called when the work is given up.
	fail(err error)
}

const (
	// attemptsMost is how often a piece of work begins anew because another node was faster.
	attemptsMost = 64
	// roundsMost is how often one attempt may ask for more.
	roundsMost = 32
	// backoffFirst and backoffMost bound the pause before it begins anew, which is random.
	backoffFirst = 200 * time.Microsecond
	backoffMost  = 20 * time.Millisecond
)

// task is an op on its way.
type task struct {
	op
	read  *redisdb.Read
	write *redisdb.Write
}

// run does pieces of work, sharing round trips. With asked, their first reads have been asked for and answered.
func (s *Store) run(ctx context.Context, ops []op, asked []*redisdb.Read) {
	tasks := make([]task, len(ops))
	for i := range ops {
		tasks[i].op = ops[i]
		if asked != nil {
			tasks[i].read = asked[i]
		}
	}
	var reads []*redisdb.Read
	var writes []*redisdb.Write
	for attempt := 0; len(tasks) > 0; attempt++ {
		if attempt == attemptsMost {
			for i := range tasks {
				tasks[i].fail(errBusy())
			}
			return
		}
		if err := s.pause(ctx, attempt); err != nil {
			for i := range tasks {
				tasks[i].fail(err)
			}
			return
		}
		if attempt > 0 || asked == nil {
			reads = reads[:0]
			for i := range tasks {
				tasks[i].read = tasks[i].ask()
				reads = append(reads, tasks[i].read)
			}
			s.peek(ctx, reads...)
		}
		tasks = s.decide(ctx, tasks)
		writes = writes[:0]
		for i := range tasks {
			if tasks[i].write != nil {
				writes = append(writes, tasks[i].write)
			}
		}
		if len(writes) > 0 {
			s.write(ctx, writes...)
		}
		again := tasks[:0]
		for i := range tasks {
			t := &tasks[i]
			switch {
			case t.write == nil: // has to begin anew
				again = append(again, *t)
			case t.write.Err != nil:
				t.fail(t.write.Err)
			case !t.write.Done:
				again = append(again, *t)
			default:
				t.wrote(t.write)
			}
		}
		tasks = again
	}
}

// decide lets all decide, reading more where they ask for it. It returns those that write, and, without a write, those that have to
// begin anew.
func (s *Store) decide(ctx context.Context, tasks []task) []task {
	out := tasks[:0]
	var todo []task
	var reads []*redisdb.Read
	for round := 0; ; round++ {
		reads, todo = reads[:0], todo[:0]
		for i := range tasks {
			t := tasks[i]
			if t.read.Err != nil {
				t.fail(t.read.Err)
				continue
			}
			w, more, err := t.decide()
			t.write = w
			switch {
			case err == errChanged || err == nil && more != nil && round == roundsMost:
				t.write = nil
				out = append(out, t)
			case err != nil:
				t.fail(err)
			case more != nil:
				t.read = more
				todo, reads = append(todo, t), append(reads, more)
			case w != nil:
				out = append(out, t)
			}
		}
		if len(todo) == 0 {
			return out
		}
		s.read(ctx, reads...)
		tasks = append(make([]task, 0, len(todo)), todo...)
	}
}

// errChanged says that what was read in two steps is not of one piece.
var errChanged = push.Errorf(push.KindInternal, "changed", "what was read changed meanwhile")

func errBusy() error {
	return &push.Error{Kind: push.KindUnavailable, Code: "store_busy", After: time.Second,
		Detail: "others changed the same again and again"}
}

// pause waits before an attempt that is not the first.
func (s *Store) pause(ctx context.Context, attempt int) error {
	if attempt == 0 {
		return nil
	}
	most := min(backoffFirst<<min(attempt, 10), backoffMost)
	t := time.NewTimer(time.Duration(rand.Int64N(int64(most))))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return unavailable(ctx.Err())
	}
}

func unavailable(err error) error {
	return &push.Error{Kind: push.KindUnavailable, Code: "store_unavailable", After: time.Second, Err: err}
}
