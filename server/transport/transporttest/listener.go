package transporttest

import (
	"net"
	"sync"
)

// Pipes is a listener whose connections are made in memory, for tests on virtual time.
type Pipes struct {
	conns chan net.Conn
	errs  chan error
	done  chan struct{} // closed by Close
	once  sync.Once
}

// NewPipes returns a listener that nobody has dialed yet.
func NewPipes() *Pipes {
	return &Pipes{conns: make(chan net.Conn), errs: make(chan error), done: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *Pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case err := <-l.errs:
		return nil, err
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *Pipes) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *Pipes) Addr() net.Addr { return &net.TCPAddr{} }

// Dial returns the client's end of a connection once the other one was accepted.
func (l *Pipes) Dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

// Fail has one Accept return err.
func (l *Pipes) Fail(err error) { l.errs <- err }

// Waiting returns a listener of TCP whose connections are as they are where sockets have no write that does not wait.
func Waiting(l net.Listener) net.Listener { return waiting{l} }

type waiting struct{ net.Listener }

func (l waiting) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return waitingConn{nc, nc.(*net.TCPConn)}, nil
}

// waitingConn hides what allows writes that do not wait.
type waitingConn struct {
	net.Conn
	tcp *net.TCPConn
}

func (c waitingConn) CloseWrite() error           { return c.tcp.CloseWrite() }
func (c waitingConn) SetLinger(seconds int) error { return c.tcp.SetLinger(seconds) }
