package gateway

import (
	"net"
	"syscall"
	"testing"
)

// A client that vanished without a word is found out by the kernel, whoever set it up for that.
func TestListen_ConnectionsHaveKeepAlive(t *testing.T) {
	for name, listen := range map[string]func(network, address string) (net.Listener, error){"ours": listen, "Go's": net.Listen} {
		l, err := listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		far, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		nc, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		raw, err := nc.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range keepAlive {
			var got int
			var errGet error
			if err := raw.Control(func(fd uintptr) { got, errGet = syscall.GetsockoptInt(int(fd), o.level, o.option) }); err != nil {
				t.Fatal(err)
			}
			if errGet != nil || got != o.value {
				t.Errorf("%s: option %d: got %d, %v, want %d", name, o.option, got, errGet, o.value)
			}
		}
	}
}
