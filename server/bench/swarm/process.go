package swarm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"carillon/server/bench/child"
)

// process is one client process, seen from whoever started it. Its methods are safe for concurrent use.
type process struct {
	// Static after construction.
	child *child.Process
	news  func(*Answer)
	lost  func(error)
	ended chan struct{} // closed by listen, when everything that the process said was read

	writing sync.Mutex // held while a command is written

	// Guarded by mu.
	mu      sync.Mutex
	next    int
	waiting map[int]chan *Answer // each with room for one
	broken  error                // of what it said; set before ended is closed
	stopped bool                 // it was asked to end
}

// startProcess starts a client process. news is called for what no command asked for, one at a time, and lost if the process goes
// without being asked to. Neither blocks.
func startProcess(command, env []string, news func(*Answer), lost func(error)) (*process, error) {
	c, err := child.Talk(command, env)
	if err != nil {
		return nil, fmt.Errorf("swarm: %w", err)
	}
	p := &process{child: c, news: news, lost: lost, ended: make(chan struct{}), waiting: make(map[int]chan *Answer)}
	go p.listen()
	return p, nil
}

// listen reads what the process says, until it ends. stop waits for it.
func (p *process) listen() {
	defer close(p.ended)
	defer p.tellLost()
	defer p.child.Stdout.Close()
	dec := json.NewDecoder(bufio.NewReader(p.child.Stdout))
	for {
		a := new(Answer)
		if err := dec.Decode(a); err != nil {
			if err != io.EOF {
				p.mu.Lock()
				p.broken = fmt.Errorf("it said what is no answer: %w", err)
				p.mu.Unlock()
			}
			return // should it go on, it fails at its next answer
		}
		if a.ID == 0 {
			p.news(a)
			continue
		}
		p.mu.Lock()
		c := p.waiting[a.ID]
		delete(p.waiting, a.ID)
		p.mu.Unlock()
		if c != nil {
			c <- a
		}
	}
}

// do sends a command and waits for its answer.
func (p *process) do(ctx context.Context, c Command) (*Answer, error) {
	answer := make(chan *Answer, 1)
	p.mu.Lock()
	p.next++
	c.ID = p.next
	p.waiting[c.ID] = answer
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.waiting, c.ID)
		p.mu.Unlock()
	}()
	line, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("swarm: %w", err)
	}
	p.writing.Lock()
	_, err = p.child.Stdin.Write(append(line, '\n')) // a process always reads on, so this does not wait long
	p.writing.Unlock()
	if err != nil {
		return nil, p.gone()
	}
	select {
	case a := <-answer:
		if a.Error != "" {
			return nil, fmt.Errorf("swarm: %s: %s", c.Op, a.Error)
		}
		return a, nil
	case <-p.ended:
		return nil, p.gone()
	case <-ctx.Done():
		return nil, fmt.Errorf("swarm: %s: %w", c.Op, context.Cause(ctx))
	}
}

// tellLost tells if the process went without being asked to.
func (p *process) tellLost() {
	p.mu.Lock()
	stopped := p.stopped
	p.mu.Unlock()
	if !stopped {
		p.lost(p.gone())
	}
}

// gone returns why a process that does not talk any more is gone. One that closed its output, or said what is no answer, ends when
// it writes the next time, if it has not ended already; it is not waited for.
func (p *process) gone() error {
	soon := time.NewTimer(time.Second)
	defer soon.Stop()
	select {
	case <-p.child.Exited():
	case <-soon.C:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Errorf("swarm: a client process is gone: %w", errors.Join(p.broken, p.child.Err()))
}

// stop ends the process and waits until it is gone, and with it whoever reads from it.
func (p *process) stop() {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	_ = p.child.Stop() // what it was asked for has failed before, if it was gone
	<-p.ended
}
