package poller

import (
	"errors"
	"fmt"
	"net"
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
		errs = append(errs, l.epoll.Close())
	}
	p.running.Wait()
	p.loops = nil
	return errors.Join(errs...)
}

// loop is one epoll and the goroutine that waits on it.
type loop struct {
	// Static after construction.
	fd    int
	epoll *os.File // fd as Go's poller knows it
	raw   syscall.RawConn

	// Owned by serve.
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
	return l, nil
}

// serve runs until the epoll is closed. Go's poller is told of an epoll once, when it becomes ready: so it is asked until
// it has nothing more before anybody waits for it again.
func (l *loop) serve() {
	_ = l.raw.Read(func(uintptr) bool { // fails when the epoll closes, which is how it ends
		for l.step() {
			runtime.Gosched() // drain workers and sessions have their turn between two rounds
		}
		return false
	})
}

// step serves what is ready now, and reports whether that was anything.
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

// Adopt takes the descriptor of a connection, which has to have one of its own (a *net.TCPConn, or what passes its
// SyscallConn on), for the zero Socket s, and closes nc. The socket can be written and closed from then on; it is read once
// [Socket.Arm] was called. On an error nc is still the caller's.
func (p *Poller) Adopt(s *Socket, nc net.Conn) error {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return fmt.Errorf("poller: adopt a %T: %w", nc, errors.ErrUnsupported)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return fmt.Errorf("poller: adopt: %w", err)
	}
	fd, errno := uintptr(0), syscall.Errno(0)
	if err := raw.Control(func(old uintptr) {
		fd, _, errno = syscall.Syscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return fmt.Errorf("poller: adopt: %w", err)
	}
	if errno != 0 {
		return fmt.Errorf("poller: adopt: duplicate the descriptor: %w", errno)
	}
	s.mu.Lock()
	s.loop, s.open, s.want = p.loops[int(p.next.Add(1))%len(p.loops)], int32(fd)+1, readEvents
	s.mu.Unlock()
	// The connection lives on in the duplicate; this takes the original out of Go's poller.
	nc.Close()
	return nil
}
