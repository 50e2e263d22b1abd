package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"carillon/server/bench/sample"
)

// floor is what the kernel alone takes for a broadcast.
type floor struct {
	cpu   time.Duration // of the writing threads, for one write
	round time.Duration // from the first write until all is read, for one socket of the round
}

const (
	floorSockets = 8000 // at most: this process holds both ends
	floorRounds  = 20
	floorWriters = 2
)

// measureFloor writes size bytes to each of so many plain TCP connections, from two threads, while a third reads what arrives, and
// nothing else: no server could do it for less. It tells how fast this machine is at the moment, by the side of which the server's
// figures can be read.
func measureFloor(sockets, size int) (floor, error) {
	if _, err := sample.RaiseOpenFiles(); err != nil {
		return floor{}, err
	}
	p, err := newPlain(min(sockets, floorSockets))
	if err != nil {
		return floor{}, fmt.Errorf("the kernel alone: %w", errors.Join(err, p.close()))
	}
	f, err := p.measure(size)
	if err = errors.Join(err, p.close()); err != nil {
		return floor{}, fmt.Errorf("the kernel alone: %w", err)
	}
	return f, nil
}

// plain is connections of this process with itself.
type plain struct {
	near, far []int
	epoll     int
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

func (p *plain) measure(size int) (floor, error) {
	var f floor
	var cpu [floorWriters]time.Duration
	var errs [floorWriters]error
	body := make([]byte, size)
	for range floorRounds {
		began := time.Now()
		var writers sync.WaitGroup
		for w := range floorWriters {
			writers.Go(func() {
				var used time.Duration
				used, errs[w] = writeAll(p.near[w*len(p.near)/floorWriters:(w+1)*len(p.near)/floorWriters], body)
				cpu[w] += used
			})
		}
		err := p.readAll(size)
		writers.Wait()
		if err = errors.Join(append(errs[:], err)...); err != nil {
			return f, err
		}
		f.round += time.Since(began)
	}
	n := time.Duration(floorRounds * len(p.near))
	for _, c := range cpu {
		f.cpu += c
	}
	f.cpu /= n
	f.round /= n
	return f, nil
}

// writeAll writes to sockets, one after the other, and returns the processor time of that.
func writeAll(fds []int, body []byte) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &before); err != nil {
		return 0, os.NewSyscallError("getrusage", err)
	}
	for _, fd := range fds {
		if n, err := unix.Write(fd, body); err != nil || n != len(body) {
			return 0, fmt.Errorf("wrote %d of %d bytes: %w", n, len(body), err)
		}
	}
	err := unix.Getrusage(unix.RUSAGE_THREAD, &after)
	used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	return time.Duration(used), os.NewSyscallError("getrusage", err)
}

// readAll reads until every socket had its bytes.
func (p *plain) readAll(size int) error {
	events := make([]unix.EpollEvent, 512)
	buf := make([]byte, 64<<10)
	const patienceMillis = 10_000
	for left := size * len(p.far); left > 0; {
		n, err := unix.EpollWait(p.epoll, events, patienceMillis)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return os.NewSyscallError("epoll_wait", err)
		case n == 0:
			return fmt.Errorf("%d bytes do not arrive", left)
		}
		for _, e := range events[:n] {
			k, err := unix.Read(int(e.Fd), buf)
			if err != nil && err != unix.EAGAIN {
				return os.NewSyscallError("read", err)
			}
			left -= max(k, 0)
		}
	}
	return nil
}
