package client

import (
	"context"

	"carillon/server/push"
	"carillon/server/wire"
)

// tagging is a change of tags on its way to whoever runs the session.
type tagging struct {
	frame *wire.Tags
	done  chan error // room for one
}

// ChangeTags leaves and then joins tags, as far as the patterns of the token permit; with neither it asks which are joined. It
// waits until a session is there and has taken the request, and returns an error if the connection ended over it, so that
// nobody knows, or ctx was done before. What came of it is told by [Callbacks.Tags] or [Callbacks.Refused]. It may be called
// by any goroutine while [Client.Run] runs, but not by a callback. The request is not repeated on another connection: what was
// joined is kept by the server.
func (c *Client) ChangeTags(ctx context.Context, join, leave []push.Tag) error {
	t := tagging{&wire.Tags{Join: join, Leave: leave}, make(chan error, 1)}
	select {
	case c.taggings <- t:
		return <-t.done // whoever takes it answers
	case <-ctx.Done():
		return ctx.Err()
	}
}

// taggings is where changes come from, nothing while they could not be written.
func (s *session) taggings() <-chan tagging {
	if !s.welcomed || s.lost != nil {
		return nil
	}
	return s.c.taggings
}
