package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"carillon/server/push"
	"carillon/server/wire"
)

// Problem is the refusal of a request, which RFC 9457 gives its form.
type Problem struct {
	Status    int
	Code      string        // stable; the names are in api/README.md
	Detail    string        // for people; may be empty
	Parameter string        // of the query, or the header, that is wrong; empty if it is none of them
	After     time.Duration // with status 429 or 503: when to come back; less than a second counts as one
	Allow     string        // with status 405: the methods that there are
}

// problemBody is a Problem as it is written.
type problemBody struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Code      string `json:"code"`
	Detail    string `json:"detail,omitempty"`
	Parameter string `json:"parameter,omitempty"`
}

// body returns the document, with a line's end for those who read it in a terminal.
func (p *Problem) body() []byte {
	b, err := json.Marshal(problemBody{"about:blank", http.StatusText(p.Status), p.Status, p.Code, p.Detail, p.Parameter})
	if err != nil {
		panic(fmt.Sprintf("web: a problem that is no JSON: %v", err)) // strings and a number always are
	}
	return append(b, '\n')
}

// head sets the headers of the answer.
func (p *Problem) head(h http.Header) {
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	switch p.Status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="carillon"`)
	case http.StatusMethodNotAllowed:
		h.Set("Allow", p.Allow)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h.Set("Retry-After", strconv.FormatInt(int64(max(1, (p.After+time.Second-1)/time.Second)), 10))
	}
}

// Write answers a request that net/http still has.
func (p *Problem) Write(w http.ResponseWriter) {
	p.head(w.Header())
	w.WriteHeader(p.Status)
	_, _ = w.Write(p.body()) // whoever is gone by now does not miss it
}

// Append appends the whole answer of HTTP/1.1, for a connection that was taken from net/http. extra are the headers that
// [ExtraHeaders] kept. With keep the connection goes on serving requests, otherwise the answer says that it ends.
func (p *Problem) Append(dst []byte, now time.Time, extra []byte, keep bool) []byte {
	h := http.Header{}
	p.head(h)
	body := p.body()
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(p.Status), 10)
	dst = append(dst, ' ')
	dst = append(dst, http.StatusText(p.Status)...)
	dst = append(dst, "\r\n"...)
	dst = AppendDate(dst, now)
	for _, name := range [...]string{"Content-Type", "Cache-Control", "WWW-Authenticate", "Allow", "Retry-After"} {
		if v := h.Get(name); v != "" {
			dst = append(dst, name...)
			dst = append(dst, ": "...)
			dst = append(dst, v...)
			dst = append(dst, "\r\n"...)
		}
	}
	if !keep {
		dst = append(dst, "Connection: close\r\n"...)
	}
	dst = append(dst, extra...)
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	dst = append(dst, "\r\n\r\n"...)
	return append(dst, body...)
}

// statusOf is the status of each code whose hundreds do not say it.
var statusOf = map[wire.CloseCode]int{
	wire.CloseProtocol:       http.StatusBadRequest,
	wire.CloseVersion:        http.StatusBadRequest,
	wire.CloseFlood:          http.StatusBadRequest,
	wire.CloseConnectTimeout: http.StatusBadRequest,
}

// ProblemOfClose says over HTTP that a session ended before it began. after is when to come back, where that was said.
func ProblemOfClose(code wire.CloseCode, detail string, after time.Duration) *Problem {
	p := &Problem{Status: statusOf[code], Code: code.String(), Detail: detail, After: after}
	if p.Status != 0 {
		return p
	}
	switch code.Duty() {
	case wire.RenewToken:
		p.Status = http.StatusUnauthorized
	case wire.StayAway:
		p.Status = http.StatusForbidden
	default:
		p.Status = http.StatusServiceUnavailable
	}
	return p
}

// RefusalOf returns the refusal that the first frame of a session is, nil if the frame begins a stream: a server that does
// not let a client in says so in a kick or a goaway, or in an error if the client sent what is no frame.
func RefusalOf(o *wire.Out) *Problem {
	switch f := o.Frame.(type) {
	case *wire.Kick:
		return ProblemOfClose(f.Code, f.Detail, 0)
	case *wire.Goaway:
		return ProblemOfClose(f.Code, "", time.Duration(f.DelayMillis)*time.Millisecond)
	case *wire.Error:
		return &Problem{Status: http.StatusBadRequest, Code: f.Code, Detail: f.Detail}
	}
	return nil
}

// ProblemOf translates an error, once, into what the client is told. What is not a *push.Error, or one of kind internal, is
// told without its text. Whoever is kept out is told the name of the close code that a session would end with: that is what
// clients know the meaning of.
func ProblemOf(err error) *Problem {
	var e *push.Error
	if !errors.As(err, &e) || e.Kind == push.KindInternal || e.Code == "" {
		return &Problem{Status: http.StatusServiceUnavailable, Code: wire.CloseInternal.String()}
	}
	p := &Problem{Code: e.Code, Detail: e.Detail, After: e.After}
	switch e.Kind {
	case push.KindInvalid:
		p.Status = http.StatusBadRequest
	case push.KindUnauthenticated:
		p.Status = http.StatusUnauthorized
	case push.KindForbidden:
		p.Status = http.StatusForbidden
		if p.Code != wire.CloseRevoked.String() {
			p.Code = wire.CloseForbidden.String()
		}
	case push.KindNotFound:
		p.Status = http.StatusNotFound
	case push.KindConflict:
		p.Status = http.StatusConflict
	case push.KindKeyReused:
		p.Status = http.StatusUnprocessableEntity
	case push.KindTooLarge:
		p.Status = http.StatusRequestEntityTooLarge
	case push.KindLimited:
		p.Status = http.StatusTooManyRequests
	default: // unavailable, closed
		p.Status = http.StatusServiceUnavailable
	}
	return p
}
