package sse

import (
	"bytes"
	"strconv"
	"time"

	"carillon/server/transport/web"
	"carillon/server/wire"
)

// appendHead appends the head of an answer that is a stream. It has no length and no chunks: it ends with the connection, so
// that what is written is what a client reads, and a parked connection needs nobody who frames it. extra are the headers
// that others have set, each with its end of line.
func appendHead(dst []byte, now time.Time, extra []byte) []byte {
	dst = append(dst, "HTTP/1.1 200 OK\r\n"...)
	dst = web.AppendDate(dst, now)
	// X-Accel-Buffering tells nginx, no-transform those that would compress, to hand each event on as it comes.
	dst = append(dst, "Content-Type: text/event-stream\r\n"+
		"Cache-Control: no-store, no-transform\r\n"+
		"X-Accel-Buffering: no\r\n"+
		"Connection: close\r\n"...)
	dst = append(dst, extra...)
	return append(dst, "\r\n"...)
}

// appendEvent appends one frame as one event, and has the follower pass it:
//
//	event: the frame's type, left out for message
//	id:    the cursor behind the frame, left out where the frame does not move it: the client keeps the last one
//	retry: how long the browser waits before it comes back by itself, beside what says so
//	data:  the frame in JSON, on one line
//
// A ping is a comment, which clients pass over.
func appendEvent(dst []byte, at *web.Follower, o *wire.Out) []byte {
	moved := at.Pass(o)
	if o.Shared == nil {
		t := o.Frame.Type()
		if t == wire.TypePing {
			return append(dst, ":\n\n"...)
		}
		if t != wire.TypeMessage {
			dst = append(dst, "event: "...)
			dst = append(dst, t.String()...)
			dst = append(dst, '\n')
		}
	}
	if moved {
		dst = append(dst, "id: "...)
		dst = at.Append(dst)
		dst = append(dst, '\n')
	}
	if ms, ok := retryOf(at, o); ok {
		dst = append(dst, "retry: "...)
		dst = strconv.AppendUint(dst, uint64(ms), 10)
		dst = append(dst, '\n')
	}
	dst = append(dst, "data: "...)
	from := len(dst)
	dst = wire.AppendOut(dst, wire.JSON, o)
	oneLine(dst[from:])
	return append(dst, "\n\n"...)
}

// A browser comes back after a constant time: it neither backs off nor spreads. So each device is given a time of its own,
// in milliseconds, that is the same whenever it connects.
const (
	retryLeast  = 2000
	retrySpread = 4000
)

// retryOf returns how long a browser is to wait, where the frame is one to say it with: a goaway names a delay, and the
// welcome after it takes that back.
func retryOf(at *web.Follower, o *wire.Out) (ms uint32, ok bool) {
	switch f := o.Frame.(type) {
	case *wire.Welcome:
		return retryLeast + uint32(at.Owner()%retrySpread), true // the owner is a hash
	case *wire.Goaway:
		return f.DelayMillis, f.DelayMillis != 0
	}
	return 0, false
}

// oneLine replaces the ends of lines in a frame by spaces. Frames of ours have none: strings escape them, and bodies were
// compacted when they were accepted. If one came by another way, the rest of it would be read as fields of the event, an id
// among them; between the tokens of JSON a space means the same.
func oneLine(frame []byte) {
	for _, end := range [...]byte{'\n', '\r'} {
		for rest := frame; ; {
			i := bytes.IndexByte(rest, end)
			if i < 0 {
				break
			}
			rest[i] = ' '
			rest = rest[i+1:]
		}
	}
}
