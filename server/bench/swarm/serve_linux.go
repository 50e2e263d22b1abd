package swarm

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"carillon/server/bench/sample"
)

// Serve is a client process: it obeys the commands that come in, and answers on out, until in ends.
func Serve(in io.Reader, out io.Writer) error {
	// One loop needs one processor; the rest is for the server.
	runtime.GOMAXPROCS(1)
	if _, err := sample.RaiseOpenFiles(); err != nil {
		return err
	}
	l, err := newLoop(out)
	if err != nil {
		return err
	}
	var reading sync.WaitGroup
	reading.Go(func() { l.inbox.fill(in) })
	if err := l.run(); err != nil {
		return err // and everything ends with the process
	}
	reading.Wait()
	l.close()
	return nil
}

// inbox brings commands to the loop, which sleeps in epoll: an eventfd wakes it.
type inbox struct {
	wake int // eventfd

	// Guarded by mu.
	mu       sync.Mutex
	commands []*Command
	ended    error // io.EOF: no more come
}

func newInbox() (*inbox, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("swarm: eventfd: %w", err)
	}
	return &inbox{wake: fd}, nil
}

// fill reads commands until there are no more.
func (b *inbox) fill(in io.Reader) {
	dec := json.NewDecoder(bufio.NewReader(in))
	for {
		c := new(Command)
		err := dec.Decode(c)
		b.mu.Lock()
		if err != nil {
			b.ended = err
		} else {
			b.commands = append(b.commands, c)
		}
		b.mu.Unlock()
		_, _ = unix.Write(b.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // cannot fail: the counter is far from full
		if err != nil {
			return
		}
	}
}

// take returns the commands that came, and whether there will be no more.
func (b *inbox) take() ([]*Command, error) {
	var count [8]byte
	_, _ = unix.Read(b.wake, count[:]) // empty if another wake was taken with this one
	b.mu.Lock()
	defer b.mu.Unlock()
	cs := b.commands
	b.commands = nil
	if errors.Is(b.ended, io.EOF) || b.ended == nil {
		return cs, b.ended
	}
	return cs, fmt.Errorf("swarm: read a command: %w", b.ended)
}
