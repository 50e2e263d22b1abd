package redistest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// Pool lends deployments to the tests of a package: starting one costs up to seconds, emptying it some milliseconds. A deployment
// belongs to one test at a time, so tests that run in parallel get one each and nobody needs to share keys. The zero value is
// ready; it is a variable of the test package, and [Pool.Closing] closes it.
//
// A test may do with what it got whatever keeps processes and settings as they are. Whoever breaks something starts a deployment
// of his own; one that comes back broken, or otherwise than it was lent, is thrown away.
type Pool struct {
	mu sync.Mutex
	// Guarded by mu.
	free []*lent
	all  []*lent
}

// lent is a deployment of a pool.
type lent struct {
	*Redis
	new []map[string]string // the state of each server when it was new
}

// Standalone lends one server.
func (p *Pool) Standalone(t testing.TB) *Redis { t.Helper(); return p.Take(t, FormStandalone) }

// Replicated lends a primary and two replicas.
func (p *Pool) Replicated(t testing.TB) *Redis { t.Helper(); return p.Take(t, FormReplicated) }

// Sentinel lends a primary, two replicas and three sentinels.
func (p *Pool) Sentinel(t testing.TB) *Redis { t.Helper(); return p.Take(t, FormSentinel) }

// Cluster lends three masters and three replicas.
func (p *Pool) Cluster(t testing.TB) *Redis { t.Helper(); return p.Take(t, FormCluster) }

// Take lends an empty deployment of this form, without functions, until the test ends.
func (p *Pool) Take(t testing.TB, form Form) *Redis {
	t.Helper()
	l, err := p.take(t.Context(), form)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.free = append(p.free, l)
	})
	return l.Redis
}

func (p *Pool) take(ctx context.Context, form Form) (*lent, error) {
	for l := p.pop(form); l != nil; l = p.pop(form) {
		if err := l.clean(ctx); err == nil {
			return l, nil
		}
		// Whatever was done to it, a new one is as good.
		if err := p.close(l); err != nil {
			return nil, err
		}
	}
	r, err := Start(ctx, form)
	if err != nil {
		return nil, err
	}
	l := &lent{Redis: r}
	p.mu.Lock()
	p.all = append(p.all, l)
	p.mu.Unlock()
	l.new, err = l.state(ctx)
	return l, err
}

// pop takes the one that came back last.
func (p *Pool) pop(form Form) *lent {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, l := range slices.Backward(p.free) {
		if l.form == form {
			p.free = slices.Delete(p.free, i, i+1)
			return l
		}
	}
	return nil
}

func (p *Pool) close(l *lent) error {
	p.mu.Lock()
	p.all = slices.DeleteFunc(p.all, func(one *lent) bool { return one == l })
	p.mu.Unlock()
	return l.Close()
}

// Close closes all deployments. No test may hold one any more.
func (p *Pool) Close() error {
	p.mu.Lock()
	all := p.all
	p.all, p.free = nil, nil
	p.mu.Unlock()
	var errs []error
	for _, l := range all {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// Closing returns the tests of a package, which close the pool when they are through.
func (p *Pool) Closing(m goleak.TestingM) Tests { return Tests{m, p} }

// Tests are the tests of a package and the pool that they take from. They are what goleak.VerifyTestMain wants.
type Tests struct {
	m    goleak.TestingM
	pool *Pool
}

// Run runs the tests, closes the pool and returns the exit code.
//
// A client of go-redis that could dial no server tries to once a second, and notices only then that it was closed. goleak waits half a second for
// goroutines to end, so it is asked here often enough before; what it finds after that is told by whoever called.
func (t Tests) Run() int {
	code := t.m.Run()
	if err := t.pool.Close(); err != nil {
		fmt.Println(err)
		return max(code, 1)
	}
	for tries := 0; tries < 4 && goleak.Find() != nil; tries++ {
	}
	return code
}

// clean empties a deployment, and says so if it is not as it was when it was new.
func (l *lent) clean(ctx context.Context) error {
	for _, n := range l.Nodes() {
		if n.PID() == 0 {
			return fmt.Errorf("%s does not run", n.name)
		}
	}
	now, err := l.state(ctx)
	if err != nil {
		return err
	}
	for i, was := range l.new {
		if !maps.Equal(was, now[i]) {
			return fmt.Errorf("%s is not as it was", l.servers[i].name)
		}
	}
	if err := l.whole(ctx); err != nil {
		return err
	}
	return l.FlushAll(ctx)
}

// state returns all settings of each server, and which part it plays.
func (l *lent) state(ctx context.Context) ([]map[string]string, error) {
	var all []map[string]string
	for _, n := range l.servers {
		settings, err := n.client.ConfigGet(ctx, "*").Result()
		if err != nil {
			return nil, fmt.Errorf("redistest: ask %s for its settings: %w", n.name, err)
		}
		info, err := n.Info(ctx, "replication")
		if err != nil {
			return nil, err
		}
		settings["its role"] = info["role"]
		all = append(all, settings)
	}
	return all, nil
}
