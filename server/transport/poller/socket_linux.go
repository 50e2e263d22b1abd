package poller

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
)

// Socket is a descriptor that a [Poller] watches. The zero value is closed. It is safe for concurrent use, and not to be
// copied. It takes 32 bytes, so that whoever has a connection can hold it by value.
type Socket struct {
	mu sync.Mutex
	// Guarded by mu. The descriptor is in use by a system call, or open, only while mu is held, or open is not 0.
	open  int32  // the descriptor plus one; 0: closed
	at    uint32 // place in the loop's table
	want  uint32 // events that epoll reports
	armed bool
	loop  *loop
}

const readEvents = syscall.EPOLLIN | syscall.EPOLLRDHUP

// take opens the socket over a descriptor.
func (s *Socket) take(l *loop, fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loop, s.open, s.want = l, int32(fd)+1, readEvents
}

// Adopt takes the descriptor of a connection, which has to have one of its own (a *net.TCPConn, or what passes its
// SyscallConn on), for a socket that was reserved ([Poller.Reserve]), and closes nc. The socket can be written and closed from
// then on; it is read once [Socket.Arm] was called. On an error both are still the caller's, errors.ErrUnsupported if nc has no
// descriptor.
func (s *Socket) Adopt(nc net.Conn) error {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return fmt.Errorf("poller: adopt a %T: %w", nc, errors.ErrUnsupported)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return fmt.Errorf("poller: adopt: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == 0 {
		return net.ErrClosed
	}
	var dup error
	if err := raw.Control(func(old uintptr) { dup = syscall.Dup3(int(old), int(s.open-1), syscall.O_CLOEXEC) }); err != nil {
		return fmt.Errorf("poller: adopt: %w", err)
	}
	if dup != nil {
		return fmt.Errorf("poller: adopt: %w", dup)
	}
	// The connection lives on in the duplicate; this takes the original out of Go's poller.
	nc.Close()
	return nil
}

// Arm has h told when the socket can be read. It is called once; a socket that was closed fails with net.ErrClosed.
func (s *Socket) Arm(h Handler) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == 0 {
		return net.ErrClosed
	}
	at, generation := s.loop.enter(h)
	e := syscall.EpollEvent{Events: s.want, Fd: int32(at), Pad: int32(generation)}
	if err := syscall.EpollCtl(s.loop.fd, syscall.EPOLL_CTL_ADD, int(s.open-1), &e); err != nil {
		s.loop.leave(at)
		return fmt.Errorf("poller: watch a socket: %w", err)
	}
	s.at, s.armed = at, true
	return nil
}

// Read reads what is there, at most len(p) bytes; 0 without an error says that the peer sends nothing more.
func (s *Socket) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.open != 0 {
		n, err := syscall.Read(int(s.open-1), p)
		switch err {
		case nil:
			return n, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, ErrWouldBlock
		default:
			return 0, fmt.Errorf("poller: read: %w", err)
		}
	}
	return 0, net.ErrClosed
}

// Write writes as much of p as the kernel takes at once and returns how much that was, which may be nothing.
func (s *Socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.open != 0 {
		n, err := syscall.Write(int(s.open-1), p)
		switch err {
		case nil:
			return n, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil
		default:
			return 0, fmt.Errorf("poller: write: %w", err)
		}
	}
	return 0, net.ErrClosed
}

// AwaitWrite has the handler told, once, when the socket takes bytes again.
func (s *Socket) AwaitWrite() { s.watch(syscall.EPOLLOUT, 0) }

// Mute ends the announcements that the socket can be read. That the connection broke is still announced, until it is closed.
func (s *Socket) Mute() { s.watch(0, readEvents) }

// Wrote ends what AwaitWrite began. The handler calls it when it was told.
func (s *Socket) Wrote() { s.watch(0, syscall.EPOLLOUT) }

// watch changes what epoll reports. It cannot fail on an armed socket but for want of kernel memory; then the session's
// deadlines end the connection.
func (s *Socket) watch(add, remove uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := s.want&^remove | add
	if s.open == 0 || want == s.want {
		return
	}
	if !s.armed {
		s.want = want // Arm says it
		return
	}
	s.loop.mu.Lock()
	generation := s.loop.table[s.at].generation
	s.loop.mu.Unlock()
	e := syscall.EpollEvent{Events: want, Fd: int32(s.at), Pad: int32(generation)}
	if err := syscall.EpollCtl(s.loop.fd, syscall.EPOLL_CTL_MOD, int(s.open-1), &e); err == nil {
		s.want = want
	}
}

// CloseWrite tells the peer that nothing more comes.
func (s *Socket) CloseWrite() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != 0 {
		_ = syscall.Shutdown(int(s.open-1), syscall.SHUT_WR) // a peer that is gone already needs no telling
	}
}

// Close closes the socket. The kernel goes on delivering what was written, unless reset is set, which discards it and lets
// the peer know at once.
func (s *Socket) Close(reset bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == 0 {
		return
	}
	if reset {
		_ = syscall.SetsockoptLinger(int(s.open-1), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	}
	_ = syscall.Close(int(s.open - 1)) // Linux has closed it whatever it returns
	s.open = 0
	if s.armed {
		s.loop.leave(s.at)
	}
}

// Detach takes the socket away from its poller and returns it as a connection of Go's. The socket is closed then; a handler
// may still be called once, as after Close. On an error the socket is closed for good.
func (s *Socket) Detach() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == 0 {
		return nil, net.ErrClosed
	}
	fd := int(s.open - 1)
	s.open = 0
	if s.armed {
		// The connection lives on in another descriptor, so that closing this one does not end what epoll knows of it.
		_ = syscall.EpollCtl(s.loop.fd, syscall.EPOLL_CTL_DEL, fd, nil)
		s.loop.leave(s.at)
	}
	f := os.NewFile(uintptr(fd), "")
	nc, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("poller: detach: %w", err)
	}
	return nc, nil
}
