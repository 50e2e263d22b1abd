package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/clock"
	"carillon/server/wire"
)

const (
	// framesAhead is how many frames may be read before the one that is being handled is done.
	framesAhead = 16
	// lastWords is how long a connection is still read after a write to it failed.
	lastWords = time.Second
)

var (
	errSilent   = errors.New("client: no sign of life from the server")
	errTimeout  = errors.New("client: no welcome in time")
	errProtocol = errors.New("client: the server broke the protocol")
)

// session is one connection. Three goroutines: the caller of run handles frames and acknowledges; read takes frames
// from the connection and answers for heartbeats; pulse writes pings and pongs, so that a handler that takes its time
// does not look like a dead client.
type session struct {
	// Static after construction.
	c       *Client
	conn    Conn
	batches batched // conn, if it reads in batches
	url     string

	frames   chan wire.Frame // closed by read, after which readErr is set
	pong     chan struct{}   // the server asked for a sign of life; room for one
	silent   chan struct{}   // the watch ran out; room for one
	interval chan time.Duration
	ackDue   chan struct{} // room for one
	done     chan struct{} // closed by run: what is still read is dropped
	watch    clock.Timer   // runs out when nothing was read for too long
	patience atomic.Int64  // of the watch, in nanoseconds; 0 before the welcome

	// Written by read before it closes frames.
	readErr error

	// Written once, by the first write that fails; read after its goroutine has told, or ended.
	failing sync.Once
	cutting clock.Timer // ends the connection lastWords later

	// Owned by run.
	welcomed bool
	goaway   *ClosedError
	refused  *wire.Error // the last frame that the server refused
	ackTimer clock.Timer // not nil while it runs
	lost     error       // a write failed: nothing more is written, and what the server still says is handled
}

// writeError is the error of a write. The server may have said before why it ended the session, and that is what counts:
// a client that was told to stay away must not come back because its acknowledgement found the connection closed.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// connectOnce makes one connection and lives on it until it ends. A nil error means that ctx is done.
func (c *Client) connectOnce(ctx context.Context) error {
	at := c.cfg.URLs[c.url]
	if c.detour != "" && !isDowngrade(at, c.detour) {
		at = c.detour
	}
	c.detour = ""
	c.status(Status{Phase: Connecting, URL: at})

	token, err := c.cfg.Tokens(ctx, c.renew)
	if errors.Is(err, ErrNoOtherToken) {
		return fatalError{err}
	}
	if err != nil {
		return fmt.Errorf("client: token: %w", err)
	}
	began := c.cfg.Clock.Now()
	dialing, cancel := context.WithCancel(ctx)
	timer := c.cfg.Clock.AfterFunc(c.cfg.ConnectTimeout, cancel)
	conn, err := c.cfg.Dialer.Dial(dialing, at)
	timer.Stop()
	cancel()
	if err != nil {
		return err
	}
	s := &session{
		c: c, conn: conn, url: at,
		frames: make(chan wire.Frame, framesAhead), pong: make(chan struct{}, 1), silent: make(chan struct{}, 1),
		interval: make(chan time.Duration, 1), ackDue: make(chan struct{}, 1), done: make(chan struct{}),
	}
	s.batches, _ = conn.(batched)
	left := max(c.cfg.ConnectTimeout-c.cfg.Clock.Now().Sub(began), 0)
	return s.run(ctx, token, left)
}

// secureSchemes are those of addresses over TLS, of every transport.
var secureSchemes = []string{"wss", "https", "tcps"}

// isDowngrade reports whether the address b gives up the encryption that a has. A server may send its clients elsewhere,
// but never in the clear.
func isDowngrade(a, b string) bool {
	secure := func(s string) bool {
		u, err := url.Parse(s)
		return err == nil && slices.Contains(secureSchemes, u.Scheme)
	}
	return secure(a) && !secure(b)
}

func (s *session) run(ctx context.Context, token string, timeout time.Duration) error {
	var wg sync.WaitGroup
	s.watch = s.c.cfg.Clock.AfterFunc(timeout, func() { signal(s.silent) })
	wg.Go(s.read)
	wg.Go(s.pulse)
	defer func() {
		close(s.done)
		s.conn.Close()
		s.conn.Cut()
		wg.Wait()
		s.watch.Stop()
		if s.ackTimer != nil {
			s.ackTimer.Stop()
		}
		if s.cutting != nil {
			s.cutting.Stop()
		}
	}()
	connect := &wire.Connect{
		Version: wire.Version, Token: token, Cursor: s.c.progress.string(), Client: s.c.cfg.Name, After: s.c.last,
	}
	err := s.hearOut(s.write(connect))
	if err == nil {
		err = s.loop(ctx)
	}
	return errors.Join(err, s.c.save(context.WithoutCancel(ctx)))
}

// loop handles frames until the connection ends, ctx is done (nil), or something goes wrong.
func (s *session) loop(ctx context.Context) error {
	for {
		// A change of tags that waits is sent before more is handled: where both can be had, a select would draw lots.
		select {
		case t := <-s.taggings():
			if err := s.tag(t); err != nil {
				return err
			}
		default:
		}
		select {
		case <-ctx.Done():
			return s.lastAck(context.WithoutCancel(ctx))
		case f, ok := <-s.frames:
			if !ok {
				return s.ended()
			}
			if ctx.Err() != nil {
				return s.lastAck(context.WithoutCancel(ctx)) // the frame was not handled, and comes again
			}
			if err := s.hearOut(s.handle(ctx, f)); err != nil {
				return err
			}
		case t := <-s.taggings():
			if err := s.tag(t); err != nil {
				return err
			}
		case <-s.ackDue:
			s.ackTimer = nil
			if err := s.hearOut(s.ack(ctx)); err != nil {
				return err
			}
		case <-s.silent:
			s.conn.Cut()
			if !s.welcomed {
				return errTimeout
			}
			return errSilent
		}
	}
}

// tag writes a change of tags.
func (s *session) tag(t tagging) error {
	err := s.write(t.frame)
	t.done <- err
	return s.hearOut(err)
}

// hearOut returns err unless it is of a write: then frames are handled until the connection ends, in lastWords at the latest.
func (s *session) hearOut(err error) error {
	if w := (writeError{}); !errors.As(err, &w) {
		return err
	}
	if s.lost == nil {
		s.lost = err
	}
	return nil
}

// lastAck acknowledges what was handled before the client goes, as soon as it may. Frames that come meanwhile are not
// handled any more: they come again.
func (s *session) lastAck(ctx context.Context) error {
	if !s.welcomed {
		return nil
	}
	if err := s.requestAck(ctx); err != nil {
		return err
	}
	for s.ackTimer != nil {
		select {
		case <-s.ackDue:
			s.ackTimer = nil
			return s.ack(ctx)
		case <-s.silent:
			return nil
		case _, ok := <-s.frames:
			if !ok {
				return nil
			}
		}
	}
	return nil
}

// ended returns why the connection ended, putting together what goaway, error and close said.
func (s *session) ended() error {
	var closed *ClosedError
	if !errors.As(s.readErr, &closed) {
		switch {
		case s.goaway != nil:
			return s.goaway
		case s.lost != nil:
			return s.lost
		}
		return s.readErr
	}
	if s.goaway != nil {
		s.goaway.Code = closed.Code
		return s.goaway
	}
	if s.refused != nil {
		closed.Reason = fmt.Sprintf("%s: %s", closed.Code, s.refused.Code)
	}
	return closed
}

// read takes frames until the connection ends.
func (s *session) read() {
	defer close(s.frames)
	for {
		f, err := s.conn.Read()
		if err != nil {
			s.readErr = err
			return
		}
		switch f.(type) {
		case *wire.Ping:
			signal(s.pong)
		case *wire.Pong:
		default:
			s.hand(f)
		}
		if p := s.patience.Load(); p > 0 {
			s.watch.Reset(time.Duration(p))
		}
	}
}

// hand gives a frame to run. While it waits for the one before to be handled, the server's silence is nobody's fault.
func (s *session) hand(f wire.Frame) {
	select {
	case s.frames <- f:
		return
	default:
	}
	if s.patience.Load() > 0 {
		s.watch.Stop()
	}
	select {
	case s.frames <- f:
	case <-s.done:
	}
}

// pulse writes a pong for each ping of the server, and a ping of ours at the interval once there is one. A write that
// fails ends the connection, which read then reports.
func (s *session) pulse() {
	var tick <-chan time.Time
	for {
		var f wire.Frame
		select {
		case <-s.done:
			return
		case every := <-s.interval:
			t := s.c.cfg.Clock.NewTicker(every)
			defer t.Stop()
			tick = t.C
			continue
		case <-s.pong:
			f = &wire.Pong{}
		case <-tick:
			f = &wire.Ping{}
		}
		if s.write(f) != nil {
			return
		}
	}
}

// write writes a frame. The first one that fails is the last, and gives the server a moment to say why.
func (s *session) write(f wire.Frame) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	t := s.c.cfg.Clock.AfterFunc(s.c.cfg.WriteTimeout, cancel)
	defer t.Stop()
	if err := s.conn.Write(ctx, f); err != nil {
		s.failing.Do(func() { s.cutting = s.c.cfg.Clock.AfterFunc(lastWords, s.conn.Cut) })
		return writeError{err}
	}
	return nil
}

// requestAck acknowledges what was handled: now, or as soon as the last acknowledgement is long enough ago.
func (s *session) requestAck(ctx context.Context) error {
	if s.ackTimer != nil || s.lost != nil || !s.c.progress.owesAck() {
		return nil
	}
	if !s.c.lastAck.IsZero() {
		if wait := s.c.cfg.AckEvery - s.c.cfg.Clock.Now().Sub(s.c.lastAck); wait > 0 {
			s.ackTimer = s.c.cfg.Clock.AfterFunc(wait, func() { signal(s.ackDue) })
			return nil
		}
	}
	return s.ack(ctx)
}

// ack writes an acknowledgement of everything handled, after that is safe in the storage.
func (s *session) ack(ctx context.Context) error {
	if s.lost != nil || !s.c.progress.owesAck() {
		return nil
	}
	if err := s.flush(ctx); err != nil {
		return err
	}
	cursor := s.c.progress.string()
	s.c.lastAck = s.c.cfg.Clock.Now()
	if err := s.write(&wire.Ack{Cursor: cursor}); err != nil {
		return err
	}
	s.noteAck(cursor)
	return nil
}

// flush makes everything that was handled safe.
func (s *session) flush(ctx context.Context) error {
	if err := s.c.save(ctx); err != nil {
		return err
	}
	if err := s.c.cfg.Storage.Flush(ctx); err != nil {
		return fatalError{err}
	}
	return nil
}

// noteAck notes that the cursor, as it stands, was acknowledged.
func (s *session) noteAck(cursor string) {
	s.c.lastAck = s.c.cfg.Clock.Now()
	s.c.progress.noteAck()
	if s.c.cfg.Acked != nil {
		s.c.cfg.Acked(cursor)
	}
}

// save stores the progress if it changed.
func (c *Client) save(ctx context.Context) error {
	if !c.dirty {
		return nil
	}
	if err := c.cfg.Storage.Save(ctx, c.progress.state()); err != nil {
		return fatalError{err}
	}
	c.dirty = false
	return nil
}

// signal puts a token into a channel with room for one, unless one is there.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// closedBy returns what a kick frame says.
func closedBy(k *wire.Kick) *ClosedError {
	return &ClosedError{Code: k.Code, Reason: k.Reason, By: k.By}
}
