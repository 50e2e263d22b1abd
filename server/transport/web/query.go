package web

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"carillon/server/push"
	"carillon/server/wire"
)

// MaxWait is the longest that a poll may ask to be held, and what one that says nothing asks for.
const MaxWait = 55 * time.Second

// Request is what a client asks for.
type Request struct {
	Connect wire.Connect      // as the client would send it on another transport
	Session push.SessionEpoch // of an earlier answer to a poll; 0: none
	Wait    time.Duration     // how long a poll may be held
}

// Parse reads a request: its query, Last-Event-ID and credential. Parameters that it does not know are passed over, as
// unknown members of frames are.
func Parse(r *http.Request, ts Tickets) (*Request, *Problem) {
	q := &query{out: Request{Connect: wire.Connect{Version: wire.Version}, Wait: MaxWait}}
	if p := q.parse(r.URL.RawQuery); p != nil {
		return nil, p
	}
	if p := q.lastEventID(r.Header); p != nil {
		return nil, p
	}
	token, p := credential(r, q.ticket, ts)
	if p != nil {
		return nil, p
	}
	q.out.Connect.Token = token
	return &q.out, nil
}

// query is a query that is being read.
type query struct {
	out    Request
	ticket string
	seen   uint16 // a bit for each of parameters
}

// parameter is one that is known.
type parameter struct {
	name string
	most int // bytes, after unescaping
	take func(q *query, value string) *Problem
}

// parameters are those that are known. token is there to be refused, with the name that OAuth has for it in a URL.
var parameters = [...]parameter{
	{"cursor", push.MaxCursorString, func(q *query, v string) *Problem {
		q.out.Connect.Cursor = v // one that is another's or unreadable counts as none: the session judges
		return nil
	}},
	{"client", wire.MaxClient, func(q *query, v string) *Problem {
		if !utf8.ValidString(v) {
			return invalid("client", "text is UTF-8")
		}
		q.out.Connect.Client = v
		return nil
	}},
	{"version", 10, func(q *query, v string) *Problem {
		n, ok := number(v, 1, math.MaxUint32)
		if !ok {
			return invalid("version", "the version of the schema is a number above zero")
		}
		q.out.Connect.Version = uint32(n)
		return nil
	}},
	{"after", 20, func(q *query, v string) *Problem {
		n, ok := number(v, 1, math.MaxUint64)
		if !ok {
			return invalid("after", "the session before is the number that a welcome named")
		}
		q.out.Connect.After = push.SessionEpoch(n)
		return nil
	}},
	{"session", 20, func(q *query, v string) *Problem {
		n, ok := number(v, 1, math.MaxUint64)
		if !ok {
			return invalid("session", "a session is the number that an answer named")
		}
		q.out.Session = push.SessionEpoch(n)
		return nil
	}},
	{"wait", 2, func(q *query, v string) *Problem {
		n, ok := number(v, 0, uint64(MaxWait/time.Second))
		if !ok {
			return invalid("wait", fmt.Sprintf("a whole number of seconds from 0 to %d", MaxWait/time.Second))
		}
		q.out.Wait = time.Duration(n) * time.Second
		return nil
	}},
	{"ticket", maxTicket, func(q *query, v string) *Problem {
		if v == "" {
			return invalid("ticket", "a ticket is not empty")
		}
		q.ticket = v
		return nil
	}},
	{"token", math.MaxInt, refuseToken},
	{"access_token", math.MaxInt, refuseToken},
}

func refuseToken(*query, string) *Problem {
	return &Problem{
		Status: http.StatusBadRequest, Code: CodeTokenInURL,
		Detail: "a token never stands in a URL, where logs keep it: send Authorization: Bearer, or ask for a ticket; " +
			"consider this token as known to others",
	}
}

// parse reads a query as HTML forms write it. What cannot be unescaped is refused in a parameter that is known and passed
// over in others.
func (q *query) parse(raw string) *Problem {
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			continue
		}
		for i := range parameters {
			k := &parameters[i]
			if k.name != name {
				continue
			}
			if q.seen&(1<<i) != 0 {
				return invalid(name, "the parameter stands once")
			}
			q.seen |= 1 << i
			if p := q.take(k, value); p != nil {
				return p
			}
			break
		}
	}
	return nil
}

func (q *query) take(k *parameter, escaped string) *Problem {
	// Each byte takes three at most, so that what is far too long is not unescaped first.
	if len(escaped)/3 > k.most {
		return tooLong(k.name, "value", k.most)
	}
	v, err := url.QueryUnescape(escaped)
	switch {
	case err != nil:
		return invalid(k.name, "the value is not escaped as URLs are")
	case len(v) > k.most:
		return tooLong(k.name, "value", k.most)
	}
	return k.take(q, v)
}

// lastEventID takes the header that EventSource repeats when it comes back. It is newer than the cursor in the address, which
// stays as it was when the page opened it.
func (q *query) lastEventID(h http.Header) *Problem {
	const name = "Last-Event-ID"
	values := h.Values(name)
	switch {
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return nil
	case len(values) > 1:
		return invalid(name, "the header stands once")
	case len(values[0]) > push.MaxCursorString:
		return tooLong(name, "cursor", push.MaxCursorString)
	}
	q.out.Connect.Cursor = values[0]
	return nil
}

// number reads decimal digits without sign or leading zero.
func number(s string, least, most uint64) (uint64, bool) {
	if s == "" || s[0] == '+' || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n >= least && n <= most
}

func invalid(parameter, detail string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Code: CodeInvalid, Parameter: parameter, Detail: detail}
}

func tooLong(parameter, what string, most int) *Problem {
	return invalid(parameter, fmt.Sprintf("the %s has at most %d bytes", what, most))
}
