package longpoll

import (
	"net/http"
	"strconv"
	"time"

	"carillon/server/push"
	"carillon/server/transport/web"
	"carillon/server/wire"
)

// answer is what a poll is answered with: a body, or a problem.
type answer struct {
	body    []byte
	problem *web.Problem
}

// appendPrefix appends the beginning of a body, up to its frames: session and cursor come first, so that a client that reads
// as it comes knows them before anything else. A session or a cursor that is not known is left out.
func appendPrefix(dst []byte, id push.SessionEpoch, f *web.Follower) []byte {
	dst = append(dst, '{')
	if id != 0 {
		dst = append(dst, `"session":"`...)
		dst = strconv.AppendUint(dst, uint64(id), 10)
		dst = append(dst, `",`...)
	}
	start := len(dst)
	dst = append(dst, `"cursor":"`...)
	if n := len(dst); len(f.Append(dst)) > n {
		dst = append(f.Append(dst), `",`...)
	} else {
		dst = dst[:start]
	}
	return append(dst, `"frames":[`...)
}

// suffix ends a body, with a line's end for those who read it in a terminal.
const suffix = "]}\n"

// appendBody appends a whole body. frames are encoded, with commas between them.
func appendBody(dst []byte, id push.SessionEpoch, f *web.Follower, frames []byte) []byte {
	dst = appendPrefix(dst, id, f)
	dst = append(dst, frames...)
	return append(dst, suffix...)
}

// appendFrame appends a frame to those of an answer. A ping only ends a poll: an answer with nothing says as much.
func appendFrame(dst []byte, o *wire.Out) []byte {
	if _, ok := o.Frame.(*wire.Ping); ok {
		return dst
	}
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	return wire.AppendOut(dst, wire.JSON, o)
}

// appendHead appends the head of an answer 200 for a connection that was taken from net/http. extra are further headers.
func appendHead(dst []byte, now time.Time, extra string, keep bool, length int) []byte {
	dst = append(dst, "HTTP/1.1 200 OK\r\n"...)
	dst = web.AppendDate(dst, now)
	dst = append(dst, "Content-Type: application/json\r\nCache-Control: no-store\r\n"...)
	if !keep {
		dst = append(dst, "Connection: close\r\n"...)
	}
	dst = append(dst, extra...)
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(length), 10)
	return append(dst, "\r\n\r\n"...)
}

// append appends the answer as it goes over the wire.
func (a *answer) append(dst []byte, now time.Time, extra string, keep bool) []byte {
	if a.problem != nil {
		return a.problem.Append(dst, now, []byte(extra), keep)
	}
	dst = appendHead(dst, now, extra, keep, len(a.body))
	return append(dst, a.body...)
}

// write answers a request that net/http still has, and returns when the kernel has it.
func (a *answer) write(w http.ResponseWriter, keep bool) error {
	h := w.Header()
	if !keep {
		h.Set("Connection", "close")
	}
	if a.problem != nil {
		a.problem.Write(w)
		return http.NewResponseController(w).Flush()
	}
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(http.StatusOK)
	if _, err := w.Write(a.body); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}
