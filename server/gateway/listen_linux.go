package gateway

import (
	"context"
	"net"
	"syscall"
)

// Keep-alive of TCP, as Go sets it on each connection that it accepts: a peer that is silent for 15 seconds is asked, nine times
// at the most, every 15 seconds.
var keepAlive = []struct{ level, option, value int }{
	{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
	{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15},
	{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 15},
	{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 9},
}

// listen is net.Listen, except that the listening socket has the keep-alive that Go would give each connection: the kernel hands
// it on, which saves four system calls for each. Where a kernel does not let a listener have it, Go sets it as ever.
func listen(network, address string) (net.Listener, error) {
	var refused error
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			for _, o := range keepAlive {
				if err := syscall.SetsockoptInt(int(fd), o.level, o.option, o.value); err != nil {
					refused = err
					return
				}
			}
		})
	}}
	l, err := lc.Listen(context.Background(), network, address)
	if err != nil || refused == nil {
		return l, err
	}
	l.Close()
	return net.Listen(network, address)
}
