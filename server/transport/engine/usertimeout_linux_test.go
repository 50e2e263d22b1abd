package engine

import (
	"crypto/tls"
	"net"
	"syscall"
	"testing"
	"time"

	"carillon/server/transport"
	"carillon/server/wire"
)

// userTimeoutOf returns what the kernel was told about a socket, in milliseconds.
func userTimeoutOf(t *testing.T, fd uintptr) int {
	t.Helper()
	n, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The option belongs to the socket, so the test looks at it through a descriptor of its own.
func watch(t *testing.T, nc *net.TCPConn) uintptr {
	t.Helper()
	raw, err := nc.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	own := 0
	if cerr := raw.Control(func(fd uintptr) { own, err = syscall.Dup(int(fd)) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	t.Cleanup(func() { syscall.Close(own) })
	return uintptr(own)
}

func TestAdopt_TellsTheKernelWhenToGiveUp(t *testing.T) {
	for _, tc := range []struct {
		name  string
		form  Form
		after time.Duration
		tls   bool
		want  int
	}{
		{name: "parked", form: Epoll, after: 40 * time.Second, want: 40_000},
		{name: "goroutine", form: Goroutine, after: 1500 * time.Millisecond, want: 1500},
		{name: "tls", form: Epoll, after: time.Second, tls: true, want: 1000},
		{name: "below what it can say", form: Epoll, after: time.Nanosecond, want: 1},
		{name: "above what it can say", form: Epoll, after: 1 << 62, want: 1<<31 - 1},
		{name: "not asked for", form: Epoll, want: 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, r := newEngine(t, Config{Form: tc.form, UserTimeout: tc.after})
			p := &plain{}
			if err := e.Accept(p, transport.Meta{}, !tc.tls); err != nil {
				t.Fatal(err)
			}
			near, _ := pair(t)
			fd := watch(t, near)
			var nc net.Conn = near
			if tc.tls {
				nc = tls.Server(near, &tls.Config{})
			}
			if err := e.Adopt(p, nc, nil); err != nil {
				t.Fatal(err)
			}
			if got := userTimeoutOf(t, fd); got != tc.want {
				t.Errorf("TCP_USER_TIMEOUT: got %d ms, want %d", got, tc.want)
			}
			s := get(t, r.began, "a session")
			s.conn.Cut(wire.CloseInternal)
			get(t, s.closed, "Closed")
		})
	}
}
