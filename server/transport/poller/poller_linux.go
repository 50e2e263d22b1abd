package poller

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
)

// Supported says whether this system has what a [Poller] needs.
const Supported = true

// maxEvents is how many sockets one system call of a loop reports.
const maxEvents = 128

// Poller is a set of loops. It is safe for concurrent use.
type Poller struct {
	loops   []*loop
	next    atomic.Uint32 // spreads sockets over loops
	running sync.WaitGroup
}

// New starts that many loops, one for each processor if it is 0. It fails where there is no epoll, and when the process has
// no descriptor left.
func New(loops int) (*Poller, error) {
	if loops <= 0 {
		loops = runtime.GOMAXPROCS(0)
	}
	p := &Poller{}
	for range loops {
		l, err := newLoop()
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.loops = append(p.loops, l)
		p.running.Go(l.serve)
	}
	return p, nil
}

// Close ends the loops and waits for them; handlers are not called any more once it returned. Sockets that are still open
// stay open, and unwatched.
func (p *Poller) Close() error {
	var errs []error
	for _, l := range p.loops {
		l.closing.Store(true)
		errs = append(errs, l.epoll.Close())
	}
	p.running.Wait()
	for _, l := range p.loops {
		errs = append(errs, syscall.Close(l.bell))
	}
	p.loops = nil
	return errors.Join(errs...)
}

// loop is one epoll and the goroutine that waits on it.
type loop struct {
	// Static after construction.
	fd    int
	bell  int      // an eventfd that the epoll watches, to wake serve
	epoll *os.File // fd as Go's poller knows it
	raw   syscall.RawConn

	closing atomic.Bool // serve is to end, also where sockets are always ready

	busy sync.Mutex // held by whoever serves what is ready: serve, or a helper
	// Guarded by busy.
	events  [maxEvents]syscall.EpollEvent
	due     []dueHandler
	scratch []byte

	mu sync.Mutex
	// Guarded by mu.
	table []place
	free  []uint32 // places without a handler
}

// place is where a loop finds the handler of a socket. Its generation rises whenever the handler leaves.
type place struct {
	handler    Handler
	generation uint32
}

type dueHandler struct {
	handler Handler
	events  uint32
}

func newLoop() (*loop, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("poller: make an epoll: %w", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // what makes os.NewFile wait in Go's poller
		syscall.Close(fd)
		return nil, fmt.Errorf("poller: set up an epoll: %w", err)
	}
	l := &loop{fd: fd, epoll: os.NewFile(uintptr(fd), "epoll"), scratch: make([]byte, ScratchSize)}
	if l.raw, err = l.epoll.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("poller: set up an epoll: %w", err), l.epoll.Close())
	}
	if l.bell, err = newBell(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("poller: set up an epoll: %w", err), l.epoll.Close())
	}
	return l, nil
}

// noPlace is what epoll says of the bell.
const noPlace = -1

// newBell makes an eventfd that the epoll announces at each ring.
func newBell(epoll int) (int, error) {
	fd, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 {
		return 0, errno
	}
	const edge = 1 << 31 // EPOLLET, which package syscall has as a negative number
	e := syscall.EpollEvent{Events: syscall.EPOLLIN | edge, Fd: noPlace}
	if err := syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, int(fd), &e); err != nil {
		syscall.Close(int(fd))
		return 0, err
	}
	return int(fd), nil
}

// ring has serve look again.
func (l *loop) ring() {
	one := [8]byte{1}
	_, _ = syscall.Write(l.bell, one[:]) // a full counter has rung already
}

// Help serves some of what is ready now, in the goroutine that calls it. Those who keep all processors busy for long call
// it now and then: Go looks at its own poller only when a processor has nothing else to do, or every ten milliseconds.
func (p *Poller) Help() {
	for _, l := range p.loops {
		if !l.busy.TryLock() {
			continue // it is being served
		}
		more := true
		for range helpRounds {
			if more = l.step(); !more {
				break
			}
		}
		l.busy.Unlock()
		if more {
			l.ring() // Go's poller has announced what is left, and will not again
		}
	}
}

// helpRounds is how many system calls' worth of events a helper serves.
const helpRounds = 2

// serve runs until the epoll is closed. Go's poller is told of an epoll once, when it becomes ready: so it is asked until
// it has nothing more before anybody waits for it again.
func (l *loop) serve() {
	_ = l.raw.Read(func(uintptr) bool { // fails when the epoll closes, which is how it ends
		for !l.closing.Load() {
			l.busy.Lock()
			more := l.step()
			l.busy.Unlock()
			if !more {
				return false
			}
			runtime.Gosched() // drain workers and sessions have their turn between two rounds
		}
		return true
	})
}

// step serves what is ready now, and reports whether that was anything. The caller holds busy.
func (l *loop) step() bool {
	n, err := syscall.EpollWait(l.fd, l.events[:], 0)
	if err == syscall.EINTR {
		return true
	}
	if err != nil || n <= 0 {
		return false
	}
	l.mu.Lock()
	for i := range n {
		e := &l.events[i]
		if at := uint32(e.Fd); at < uint32(len(l.table)) {
			if p := &l.table[at]; p.handler != nil && p.generation == uint32(e.Pad) {
				l.due = append(l.due, dueHandler{p.handler, e.Events})
			}
		}
	}
	l.mu.Unlock()
	for _, d := range l.due {
		const broken = syscall.EPOLLERR | syscall.EPOLLHUP
		d.handler.Ready(d.events&(syscall.EPOLLIN|syscall.EPOLLRDHUP|broken) != 0, d.events&(syscall.EPOLLOUT|broken) != 0, l.scratch)
	}
	clear(l.due)
	l.due = l.due[:0]
	return true
}

// enter finds a place for a handler.
func (l *loop) enter(h Handler) (at, generation uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		at = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		at = uint32(len(l.table))
		l.table = append(l.table, place{})
	}
	p := &l.table[at]
	p.handler = h
	return at, p.generation
}

func (l *loop) leave(at uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &l.table[at]
	p.handler = nil
	p.generation++
	l.free = append(l.free, at)
}

// Reserve takes a descriptor for the zero Socket s, whose connection is to come: a process that has none left learns it here,
// while it can still refuse the client. Close gives it back.
func (p *Poller) Reserve(s *Socket) error {
	l := p.loops[int(p.next.Add(1))%len(p.loops)]
	fd, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(l.bell), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return fmt.Errorf("poller: reserve a descriptor: %w", errno)
	}
	s.take(l, int(fd))
	return nil
}
