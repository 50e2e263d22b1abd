package engine

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// Accept counts a new connection, makes sure of a descriptor for it and asks the acceptor for its session. In this order:
// while a connection is counted, Close of the engine leaves the poller alone. plain says that what carries it is TCP without
// TLS. An error is the refusal, a *push.Error, and then nothing is left of d; otherwise [Engine.Hijack] or [Engine.Adopt]
// follows.
func (e *Engine) Accept(d Dialect, m transport.Meta, plain bool) error {
	c := d.base()
	if !e.live.Enter(c) {
		return errClosed
	}
	defer func() {
		if c.session == nil { // refused, or the Acceptor panics, after which net/http goes on
			c.sock.Close(false)
			e.live.Leave(c)
		}
	}()
	c.e, c.dialect = e, d
	if plain && e.Form() == Epoll {
		if err := e.reserve(c); err != nil {
			return err
		}
		c.parks = true
	}
	s, err := e.cfg.Acceptor.Accept(d, m)
	if err != nil {
		return err
	}
	c.session = s
	return nil
}

// reserve makes sure of a descriptor for a connection that is to be parked. The error is a refusal.
func (e *Engine) reserve(c *Conn) error {
	err := e.poller.Reserve(&c.sock)
	if err == nil {
		return nil
	}
	e.noFiles.Do(func() {
		e.cfg.Log.Warn("a connection was refused, and so are others without a word here",
			slog.String("transport", string(e.cfg.Kind)), slog.Any("err", err))
	})
	refusal := push.Errorf(push.KindUnavailable, "overloaded", "this node can hold no more connections")
	refusal.After = time.Second
	return refusal
}

// Hijack takes the socket of an accepted connection out of net/http, with what the client has sent behind its request, and has
// it stand. head goes out first, before anything of the session's: the answer to the request, which costs less in one write of
// ours than net/http takes for it. After an error the session has ended.
func (e *Engine) Hijack(d Dialect, w http.ResponseWriter, head []byte) error {
	nc, brw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		d.base().abandon()
		return fmt.Errorf("%s: hijack: %w", e.cfg.Kind, err)
	}
	var early []byte
	if n := brw.Reader.Buffered(); n > 0 {
		b, _ := brw.Reader.Peek(n)
		early = append(early, b...)
	}
	return e.adopt(d, nc, head, early)
}

// Adopt gives an accepted connection its socket, and has it stand: it is read, after early, which the client has sent already,
// and what was asked for meanwhile happens now. After an error the socket is closed, and the session has ended.
func (e *Engine) Adopt(d Dialect, nc net.Conn, early []byte) error { return e.adopt(d, nc, nil, early) }

func (e *Engine) adopt(d Dialect, nc net.Conn, head, early []byte) error {
	c := d.base()
	if e.cfg.UserTimeout > 0 {
		if err := setUserTimeout(nc, e.cfg.UserTimeout); err != nil {
			e.cfg.Log.Debug("no user timeout", slog.String("transport", string(e.cfg.Kind)), slog.Any("err", err))
		}
	}
	if c.parks {
		err := c.sock.Adopt(nc)
		if err == nil {
			c.answer(head)
			c.stand(early)
			return nil
		}
		c.sock.Close(false)
		if !errors.Is(err, errors.ErrUnsupported) {
			nc.Close()
			c.abandon()
			return fmt.Errorf("%s: %w", e.cfg.Kind, err)
		}
		// What has no descriptor has a goroutine.
	}
	seat(nc)
	c.thread = &thread{nc: nc, raw: rawOf(nc)}
	c.answer(head)
	c.stand(early)
	return nil
}

// seat tells whoever counts the connections of a listener that a session has this one. Of a parked one that is told by Close,
// since its descriptor goes elsewhere.
func seat(nc net.Conn) {
	if s, ok := nc.(*tls.Conn); ok {
		nc = s.NetConn()
	}
	if s, ok := nc.(interface{ Seat() }); ok {
		s.Seat()
	}
}

// headPatience is how long the head may take where it is written by waiting.
const headPatience = 10 * time.Second

// answer writes the head. The connection does not stand yet, so nobody else writes.
func (c *Conn) answer(head []byte) {
	if len(head) == 0 {
		return
	}
	if c.thread != nil {
		c.thread.nc.SetWriteDeadline(time.Now().Add(headPatience))
		if _, err := c.thread.nc.Write(head); err != nil {
			c.Drop(wire.CloseLost)
		}
		c.thread.nc.SetWriteDeadline(time.Time{})
		return
	}
	n, err := c.sock.Write(head)
	switch {
	case err != nil:
		c.Drop(wire.CloseLost)
	case n < len(head): // a connection that served other requests, whose answers fill the kernel's buffer
		c.mu.Lock()
		c.stuck, c.drain = &unsent{bytes.Clone(head[n:]), Plain}, stalled
		c.mu.Unlock()
		c.sock.AwaitWrite() // which Arm tells the kernel
	}
}

// stand begins the life of the connection.
func (c *Conn) stand(early []byte) {
	c.mu.Lock()
	c.stands, c.reading = true, true
	dead := c.dead
	if c.wantsLocked() {
		c.queueLocked(c.shareLocked())
	}
	c.mu.Unlock()
	if dead {
		c.closeSocket(true)
	}
	if c.thread != nil {
		c.e.running.Go(func() { c.read(early) })
	} else {
		c.park(early)
	}
}
