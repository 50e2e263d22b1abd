package web

import (
	"bytes"
	"net/http"
	"time"
)

// AppendDate appends the header Date, which an answer that net/http does not write has to bring itself.
func AppendDate(dst []byte, now time.Time) []byte {
	dst = append(dst, "Date: "...)
	dst = now.UTC().AppendFormat(dst, http.TimeFormat)
	return append(dst, "\r\n"...)
}

// ExtraHeaders returns, as they go over the wire, the headers that handlers in front of a transport have set on its answer
// (CORS and the like), nil if there are none. net/http forgets them when the connection is taken from it, so the transport
// writes them into its own answer.
func ExtraHeaders(w http.ResponseWriter) []byte {
	h := w.Header()
	if len(h) == 0 {
		return nil
	}
	var b bytes.Buffer
	// Those that an answer of ours brings itself would stand there twice.
	_ = h.WriteSubset(&b, ours) // a buffer takes everything
	if b.Len() == 0 {
		return nil
	}
	return b.Bytes()
}

// ours are the headers that our own answers set.
var ours = map[string]bool{
	"Allow": true, "Cache-Control": true, "Connection": true, "Content-Length": true, "Content-Type": true, "Date": true,
	"Retry-After": true, "Transfer-Encoding": true, "Www-Authenticate": true, "X-Accel-Buffering": true,
}
