package swarm

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"carillon/server/bench/sample"
)

// Serve is a client process: it obeys the commands that come in, and answers on out, until in ends.
func Serve(in io.Reader, out io.Writer) error {
	// One loop needs one processor; the rest is for the server.
	runtime.GOMAXPROCS(1)
	if err := yieldToServer(); err != nil {
		return err
	}
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

// yieldToServer has the kernel run this process when a processor is free or its turn has come, and not at once whenever a
// message arrives. In earnest clients are on other machines: here each of them would interrupt the server for every single
// message, and two switches of context would be most of what a delivery seems to cost. What a client waits for its turn counts
// as the message's time.
func yieldToServer() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("swarm: %w", err)
	}
	for _, t := range tasks { // those that are made later inherit it
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return fmt.Errorf("swarm: %w", err)
		}
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH}
		if err := unix.SchedSetAttr(tid, &attr, 0); err != nil && err != unix.ESRCH {
			return fmt.Errorf("swarm: leave the processor to others: %w", err)
		}
	}
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
