package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/wire"
)

// handle takes one frame of the server. An error ends the connection.
func (s *session) handle(ctx context.Context, f wire.Frame) error {
	if _, ok := f.(endOfBatch); ok {
		return s.endBatch(ctx)
	}
	if err := s.mayCome(f); err != nil {
		return err
	}
	c := s.c
	switch f := f.(type) {
	case *wire.Welcome:
		if err := s.welcome(f); err != nil {
			return err
		}
	case *wire.Message:
		if err := s.message(ctx, f); err != nil {
			return err
		}
	case *wire.Recall:
		if c.cfg.Recall != nil {
			if err := c.cfg.Recall(ctx, f); err != nil {
				return fatalError{fmt.Errorf("client: handle recall: %w", err)}
			}
		}
		c.pass(f.Slot, f.Pos)
	case *wire.Gap:
		s.gap(ctx, f)
	case *wire.Cursor:
		if err := c.progress.replace(f.Cursor); err != nil {
			return err
		}
		c.dirty = true
		if f.Reason == wire.CursorCaughtUp {
			c.failed = 0
			c.status(Status{Phase: CaughtUp, URL: s.url})
		}
	case *wire.Kick:
		if c.cfg.Kick != nil {
			c.cfg.Kick(f)
		}
		return closedBy(f)
	case *wire.Goaway:
		s.goaway = &ClosedError{
			Code: f.Code, Reason: f.Reason, Goaway: true,
			After: time.Duration(f.DelayMillis) * time.Millisecond, Address: f.Address,
		}
	case *wire.Refresh:
		return s.refresh(ctx, f)
	case *wire.Error:
		s.refused = f
		if c.cfg.Refused != nil {
			c.cfg.Refused(f)
		}
	case *wire.Tags:
		if c.cfg.Tags != nil {
			c.cfg.Tags(f.Tags)
		}
	}
	if s.batches != nil {
		return nil // the batch is acknowledged as a whole
	}
	return s.requestAck(ctx)
}

// mayCome says what is wrong with a frame's place: the welcome comes once, and all but a refusal comes after it. A poll may be answered by
// another session than the one before, which welcomes as well: the node that was asked is another, or has lost the session.
func (s *session) mayCome(f wire.Frame) error {
	switch f.(type) {
	case *wire.Kick, *wire.Goaway, *wire.Error:
		return nil
	case *wire.Welcome:
		if s.welcomed && s.batches == nil {
			return fmt.Errorf("%w: a second welcome", errProtocol)
		}
		return nil
	}
	if !s.welcomed {
		return fmt.Errorf("%w: %s before welcome", errProtocol, f.Type())
	}
	return nil
}

func (s *session) welcome(f *wire.Welcome) error {
	c := s.c
	if err := c.progress.welcome(f.Cursor); err != nil {
		return err
	}
	c.last = f.Session
	again := s.welcomed
	s.welcomed, c.renew, c.dirty = true, false, true
	heartbeat := time.Duration(f.HeartbeatMillis) * time.Millisecond
	if heartbeat > 0 && s.batches == nil {
		patience := heartbeat + time.Duration(f.GraceMillis)*time.Millisecond
		s.patience.Store(int64(patience))
		s.watch.Reset(patience)
		// Below the interval, and not all clients at once.
		s.interval <- time.Duration((0.7 + 0.2*c.cfg.Random()) * float64(heartbeat))
	} else {
		s.watch.Stop()
	}
	if !again {
		c.status(Status{Phase: Online, URL: s.url, Welcome: f})
	}
	return nil
}

// message hands a message to the application, unless it is a repeat, and notes it.
func (s *session) message(ctx context.Context, m *wire.Message) error {
	c := s.c
	if m.Slot == push.NoSlot {
		return s.live(ctx, m)
	}
	repeat := c.progress.kept.has(m.ID)
	if planted.Is(planted.RepeatsByPosition) {
		repeat = c.progress.highs.Passed(int(m.Slot), uint64(m.Pos))
	}
	if repeat {
		if c.cfg.Repeat != nil {
			c.cfg.Repeat(m)
		}
		c.pass(m.Slot, m.Pos)
		return nil
	}
	if err := c.cfg.Message(ctx, m); err != nil {
		return fatalError{fmt.Errorf("client: handle message %s: %w", m.ID, err)}
	}
	c.progress.kept.note(m.ID)
	c.pass(m.Slot, m.Pos)
	// What was handled is noted even if the client is being stopped, else it would come again.
	return c.save(context.WithoutCancel(ctx))
}

// live hands a message that is not persistent to the application, once.
func (s *session) live(ctx context.Context, m *wire.Message) error {
	c := s.c
	if c.progress.live.has(m.ID) {
		if c.cfg.Repeat != nil {
			c.cfg.Repeat(m)
		}
		return nil
	}
	c.progress.live.note(m.ID)
	if err := c.cfg.Message(ctx, m); err != nil {
		return fatalError{fmt.Errorf("client: handle message %s: %w", m.ID, err)}
	}
	return nil
}

// gap tells of a gap. What a limit dropped or was lost will not come, so the cursor passes it; after a reset everything
// retained comes again, at positions that the gap may span.
func (s *session) gap(ctx context.Context, g *wire.Gap) {
	if s.c.cfg.Gap != nil {
		s.c.cfg.Gap(ctx, g)
	}
	if g.Reason != wire.GapReset {
		s.c.pass(g.Slot, g.To)
	}
}

// refresh answers a server that asks for a new token. Without one the session ends when the old one runs out, and the
// close code says so.
func (s *session) refresh(ctx context.Context, f *wire.Refresh) error {
	if f.Expires != 0 {
		return nil
	}
	token, err := s.c.cfg.Tokens(ctx, true)
	if err != nil {
		return nil
	}
	return s.write(&wire.Refresh{Token: token})
}

// pass notes that everything up to there was handled.
func (c *Client) pass(slot push.SlotKind, pos push.Position) {
	c.progress.pass(slot, pos)
	c.dirty = true
}

// fatalError marks an error after which the client does not come back by itself.
type fatalError struct{ error }

func (e fatalError) Unwrap() error { return e.error }

// fatalOf returns the error that ends Run, nil if err does not.
func fatalOf(err error) error {
	var f fatalError
	if errors.As(err, &f) {
		return f.error
	}
	var ended *ClosedError
	if errors.As(err, &ended) && ended.Code.Duty() == wire.StayAway {
		return ended
	}
	return nil
}
