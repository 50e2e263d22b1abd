package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// ServeTCP takes connections of devices over raw TCP and hands each to a room that is ready, in turn, until ctx ends; then it closes the listener
// and all of them.
func (b *Balancer) ServeTCP(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var carrying sync.WaitGroup
	defer carrying.Wait()
	defer cancel() // before that
	for {
		near, err := l.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			if near != nil {
				near.Close()
			}
			return nil
		case err != nil:
			return fmt.Errorf("fleet: balancer: %w", err)
		}
		carrying.Go(func() { b.carry(ctx, near) })
	}
}

// carry is one connection from its beginning to its end, which is that of either side.
func (b *Balancer) carry(ctx context.Context, near net.Conn) {
	defer near.Close()
	far := b.dialRoom(ctx)
	if far == nil {
		return
	}
	defer far.Close()
	stop := context.AfterFunc(ctx, func() { near.Close(); far.Close() })
	defer stop()
	var back sync.WaitGroup
	back.Go(func() { pass(near, far) })
	pass(far, near)
	back.Wait()
}

// pass copies until from ends, and says so to the other side, which may have something to say still.
func pass(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if half, ok := to.(*net.TCPConn); ok && err == nil {
		half.CloseWrite()
		return
	}
	to.Close()
	from.Close()
}

// dialRoom connects to a room that is ready; nil: there is none.
func (b *Balancer) dialRoom(ctx context.Context) net.Conn {
	var d net.Dialer
	for _, n := range b.order("/connect") {
		nc, err := d.DialContext(ctx, "tcp", n.TCP())
		if err == nil {
			return nc
		}
		if ctx.Err() == nil {
			b.note(n, false, nil)
		}
	}
	return nil
}
