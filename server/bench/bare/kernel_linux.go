package bare

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// upgrade is the answer to a request. The bench's clients ask with one key and do not look at the answer to it.
const upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"

var (
	requestEnd = []byte("\r\n\r\n")
	goodbye    = []byte{0x88, 2, 0x03, 0xe8} // a close frame, 1000
)

// stage is how far a connection of the kernel's server has come.
type stage uint8

const (
	asking   stage = iota // for an upgrade
	greeted               // it was upgraded, and says who it is
	welcomed              // what comes next is its goodbye
)

// kernel is a server of one thread.
type kernel struct {
	listener int
	epoll    int
	at       map[int32]stage
	welcome  []byte // both frames in one write, as ours are
	buf      []byte
}

// serveKernel serves with system calls alone, those that no server could do without: accept, epoll_ctl, and for each of two turns
// a read and a write. What a client sends in one piece is taken to arrive in one, as it does within a machine.
func serveKernel(ctx context.Context, l net.Listener) error {
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer f.Close()
	end, ending, err := os.Pipe() // wakes the thread when it is over
	if err != nil {
		return err
	}
	defer end.Close()
	defer ending.Close()
	stop := context.AfterFunc(ctx, func() { ending.Close() })
	defer stop()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	welcome, caughtUp := greeting()
	k := &kernel{listener: int(f.Fd()), at: make(map[int32]stage), buf: make([]byte, 16<<10)}
	k.welcome = appendServed(appendServed(nil, welcome), caughtUp)
	if err := unix.SetNonblock(k.listener, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if k.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	defer unix.Close(k.epoll)
	wake := int(end.Fd())
	if err := errors.Join(k.watch(k.listener, unix.EPOLLIN), k.watch(wake, unix.EPOLLIN)); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 128)
	for {
		n, err := unix.EpollWait(k.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("epoll_wait", err)
		}
		for _, e := range events[:max(n, 0)] {
			switch int(e.Fd) {
			case k.listener:
				if err := k.accept(); err != nil {
					return err
				}
			case wake:
				return ctx.Err()
			default:
				k.serve(e.Fd)
			}
		}
	}
}

func (k *kernel) watch(fd int, events uint32) error {
	err := unix.EpollCtl(k.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
	return os.NewSyscallError("epoll_ctl", err)
}

// accept takes one connection; more of them make another event.
func (k *kernel) accept() error {
	fd, _, err := unix.Accept4(k.listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	switch {
	case err == unix.EAGAIN || err == unix.ECONNABORTED || err == unix.EINTR:
		return nil
	case err != nil:
		return os.NewSyscallError("accept4", err)
	}
	k.at[int32(fd)] = asking
	return k.watch(fd, unix.EPOLLIN|unix.EPOLLET)
}

// serve reads what came and writes what is due for it. Whatever is not as it should be closes the connection, which the client tells.
func (k *kernel) serve(fd int32) {
	n, err := unix.Read(int(fd), k.buf)
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	var answer []byte
	switch at := k.at[fd]; {
	case err != nil || n <= 0:
	case at == asking && bytes.HasSuffix(k.buf[:n], requestEnd):
		answer = []byte(upgrade)
	case at == greeted:
		answer = k.welcome
	case at == welcomed:
		_, _ = unix.Write(int(fd), goodbye) // it is gone in either case
	}
	if answer != nil {
		if n, err := unix.Write(int(fd), answer); err == nil && n == len(answer) {
			k.at[fd]++
			return
		}
	}
	delete(k.at, fd)
	_ = unix.Close(int(fd))
}

// appendServed appends a text frame as a server sends it.
func appendServed(dst, payload []byte) []byte {
	dst = append(dst, 0x81)
	if len(payload) <= 125 {
		dst = append(dst, byte(len(payload)))
	} else {
		dst = append(dst, 126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(payload)))
	}
	return append(dst, payload...)
}
