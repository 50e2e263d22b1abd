package bench

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"carillon/server/bench/sample"
)

// plain is TCP connections of this process with itself, and nothing else that would take time.
type plain struct {
	near  []int // block, up to plainPatience
	far   []int // do not; epoll tells, once, what came to them
	epoll int
}

const (
	plainSockets  = 8000 // at most: this process holds both ends
	plainPatience = 10 * time.Second
)

// withPlain measures with so many connections, of which nothing stays. It is the kernel alone that is measured: no server could do
// the same for less. That tells how fast this machine is at the moment, by the side of which the server's figures can be read.
func withPlain(sockets int, measure func(*plain) error) error {
	if _, err := sample.RaiseOpenFiles(); err != nil {
		return err
	}
	p, err := newPlain(min(sockets, plainSockets))
	if err == nil {
		err = measure(p)
	}
	if err = errors.Join(err, p.close()); err != nil {
		return fmt.Errorf("the kernel alone: %w", err)
	}
	return nil
}

func newPlain(n int) (*plain, error) {
	p := &plain{epoll: -1}
	var err error
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return p, os.NewSyscallError("epoll_create1", err)
	}
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return p, os.NewSyscallError("socket", err)
	}
	defer unix.Close(l)
	if err := unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return p, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(l, 128); err != nil {
		return p, os.NewSyscallError("listen", err)
	}
	addr, err := unix.Getsockname(l)
	if err != nil {
		return p, os.NewSyscallError("getsockname", err)
	}
	for range n {
		if err := p.connect(l, addr); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p *plain) connect(l int, addr unix.Sockaddr) error {
	far, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	p.far = append(p.far, far)
	if err := unix.Connect(far, addr); err != nil {
		return os.NewSyscallError("connect", err)
	}
	near, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("accept4", err)
	}
	p.near = append(p.near, near)
	if err := unix.SetsockoptInt(near, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	patience := unix.NsecToTimeval(int64(plainPatience))
	if err := unix.SetsockoptTimeval(near, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.SetNonblock(far, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, far,
		&unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(far)}))
}

func (p *plain) close() error {
	reset := unix.Linger{Onoff: 1} // nothing of it stays in TIME_WAIT
	for _, fd := range append(p.near, p.far...) {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &reset)
		_ = unix.Close(fd)
	}
	if p.epoll < 0 {
		return nil
	}
	return os.NewSyscallError("close", unix.Close(p.epoll))
}

// wait returns those to which something came, as far as events has room. They are never none without an error.
func (p *plain) wait(events []unix.EpollEvent) ([]unix.EpollEvent, error) {
	for {
		n, err := unix.EpollWait(p.epoll, events, int(plainPatience.Milliseconds()))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, os.NewSyscallError("epoll_wait", err)
		case n == 0:
			return nil, fmt.Errorf("nothing came within %v", plainPatience)
		}
		return events[:n], nil
	}
}

// threadTime returns the processor time that this thread has taken, to which the caller is locked.
func threadTime() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano()), os.NewSyscallError("clock_gettime", err)
}
