package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"carillon/server/push"
	"carillon/server/wire"
)

// Dialer opens connections. A transport that refuses returns a *[push.Error] whose After says when to come back, if the
// server said.
type Dialer interface {
	Dial(ctx context.Context, url string) (Conn, error)
}

// Conn is one connection that carries frames. Read has one caller at a time; everything else is safe for concurrent use.
type Conn interface {
	// Read returns the next frame. It passes over frames of a type that it does not know. Any error is the last word of
	// the connection: a *ClosedError if the server said goodbye with a code.
	Read() (wire.Frame, error)
	// Write writes one frame. If ctx ends first, the connection is lost.
	Write(ctx context.Context, f wire.Frame) error
	// Close says goodbye in the transport's way, waits a few seconds at most for the answer, and ends the connection; a
	// Read under way returns. What the peer still sends meanwhile is given to Read or dropped.
	Close()
	// Cut ends the connection at once; a Read under way returns.
	Cut()
}

// mostBytes is the largest frame that a connection takes from a server, by default 4 MiB.
func mostBytes[T int | int64](configured T) T {
	if configured <= 0 {
		return 4 << 20
	}
	return configured
}

// decode decodes a frame of the server. It returns nil for one of a type that only a later version knows: that is passed over.
func decode(e wire.Encoding, b []byte) (wire.Frame, error) {
	f, err := wire.DecodeServer(e, b)
	if refused := (*push.Error)(nil); errors.As(err, &refused) && refused.Code == wire.CodeUnknown {
		return nil, nil
	}
	return f, err
}

// ClosedError says that the server ended a connection, and what it told of it.
type ClosedError struct {
	Code    wire.CloseCode
	Reason  string        // the code's name, or what the server said
	By      push.DeviceID // the device that took its place, where that is why
	Goaway  bool          // a goaway frame came before; After and Address are its
	After   time.Duration // when to come back; 0: not said
	Address string        // where to come back; may be empty
}

// Error returns code and reason.
func (e *ClosedError) Error() string {
	reason := e.Reason
	if reason == "" {
		reason = e.Code.String()
	}
	s := fmt.Sprintf("closed by the server: %s (%d)", reason, e.Code)
	if e.By != "" {
		s += fmt.Sprintf(", by device %q", string(e.By))
	}
	return s
}
