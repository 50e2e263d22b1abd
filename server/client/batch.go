package client

import (
	"context"

	"carillon/server/wire"
)

// batched is a Conn that reads in batches, and asks for the next one only when everything in the last was handled and is safe:
// a long-poll, whose request is the acknowledgement of what the one before brought. After the last frame of a batch, Read
// returns an endOfBatch. Such a Conn also watches over its server by itself, and needs no pings.
type batched interface {
	// Handled names the cursor up to which everything was handled and is stored. It does not block.
	Handled(cursor string)
}

// endOfBatch stands behind the last frame of a batch. It never leaves the package.
type endOfBatch struct{}

// Type implements wire.Frame.
func (endOfBatch) Type() wire.Type { return 0 }

// endBatch makes what was handled safe, and lets the connection ask for more with that as its acknowledgement.
func (s *session) endBatch(ctx context.Context) error {
	c := s.c
	owed := c.progress.owesAck()
	if owed {
		if err := s.flush(ctx); err != nil {
			return err
		}
	}
	cursor := c.progress.string()
	s.batches.Handled(cursor)
	if owed {
		s.noteAck(cursor)
	}
	return nil
}
