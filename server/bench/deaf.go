package bench

import (
	"fmt"
	"net"
)

// deaf is a listener that closes each connection as soon as it is accepted: what attackers at it do to others, no server can spare
// them on the same machine.
type deaf struct {
	address string
	l       net.Listener
	done    chan struct{} // closed by the goroutine that accepts
}

func listenDeaf() (*deaf, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("a listener to compare with: %w", err)
	}
	d := &deaf{address: l.Addr().String(), l: l, done: make(chan struct{})}
	go d.serve()
	return d, nil
}

func (d *deaf) serve() {
	defer close(d.done)
	for {
		nc, err := d.l.Accept()
		if err != nil { // closed; otherwise attackers find nobody, and say so
			return
		}
		_ = nc.(*net.TCPConn).SetLinger(0) // nothing was said that could be lost
		_ = nc.Close()
	}
}

func (d *deaf) close() {
	_ = d.l.Close()
	<-d.done
}
