package swarm

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"carillon/server/wire"
)

// polls is the dialect of long-poll: one request after the other on a connection that stays, each answered with what has come,
// or with nothing.
type polls struct{}

func (polls) manner() manner {
	return manner{encoding: wire.JSON, path: "/connect/poll", asks: true}
}

// hello is a poll: the first one, or, with the session and the cursor of the answer before, the next.
func (p polls) hello(dst []byte, c *credentials) []byte {
	target := append(make([]byte, 0, 256), p.manner().path...)
	target = append(target, "?client="+clientName+"&version="...)
	target = strconv.AppendInt(target, wire.Version, 10)
	target = append(target, "&wait="...)
	target = strconv.AppendInt(target, int64(c.wait), 10)
	if c.session != 0 {
		target = append(target, "&session="...)
		target = strconv.AppendUint(target, c.session, 10)
		target = append(target, "&cursor="...)
		target = append(target, c.cursor...) // digits and dots
	}
	return append(appendRequest(dst, "GET", string(target), c), "\r\n"...)
}

func (polls) connect(dst []byte, _ *credentials) []byte { return dst }

// maxAnswer is the longest answer that is taken.
const maxAnswer = 4 << 20

var lengthName = []byte("\r\nContent-Length: ")

func (polls) cut(b []byte, _ bool) (kind, []byte, int, error) {
	header, err := cutHeader(b, "200 ")
	if header == nil {
		return partial, nil, 0, err
	}
	_, rest, ok := bytes.Cut(header, lengthName)
	digits, _, _ := bytes.Cut(rest, []byte("\r\n"))
	length, err := strconv.ParseUint(string(digits), 10, 32)
	if !ok || err != nil || length > maxAnswer {
		return partial, nil, 0, fmt.Errorf("the server sent an answer of length %.20q", digits)
	}
	n := len(header) + int(length)
	if len(b) < n {
		return partial, nil, 0, nil
	}
	return answer, b[len(header):n], n, nil
}

func (polls) say(dst, _ []byte) []byte { return dst }

func (polls) goodbye(dst []byte) []byte { return dst }

// polled is the answer to a poll.
type polled struct {
	session uint64
	cursor  string
	frames  []byte // in JSON, with commas between them
}

var errAnswer = errors.New("the server sent an answer that cannot be read")

// readAnswer reads an answer. The server writes session, cursor and frames, in this order.
func readAnswer(b []byte) (a polled, err error) {
	session, ok1 := cutText(&b, `{"session":"`)
	cursor, ok2 := cutText(&b, `,"cursor":"`)
	frames, ok3 := bytes.CutPrefix(b, []byte(`,"frames":[`))
	frames, ok4 := bytes.CutSuffix(bytes.TrimRight(frames, "\n"), []byte("]}"))
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return a, errAnswer
	}
	if a.session, err = strconv.ParseUint(string(session), 10, 64); err != nil {
		return a, errAnswer
	}
	a.cursor, a.frames = string(cursor), frames
	return a, nil
}

// cutText cuts a text without escapes off b, with what has to stand before it.
func cutText(b *[]byte, before string) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(*b, []byte(before))
	if !ok {
		return nil, false
	}
	text, rest, ok := bytes.Cut(rest, []byte{'"'})
	*b = rest
	return text, ok
}

// nextFrame cuts the first frame off those of an answer. It looks at no more of it than where it ends.
func nextFrame(frames []byte) (f, rest []byte, err error) {
	depth, quoted := 0, false
	for i := 0; i < len(frames); i++ {
		switch c := frames[i]; {
		case quoted:
			if c == '\\' {
				i++
			} else if c == '"' {
				quoted = false
			}
		case c == '"':
			quoted = true
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth > 0 {
				continue
			}
			f, rest = frames[:i+1], frames[i+1:]
			if depth < 0 || len(rest) > 0 && rest[0] != ',' {
				return nil, nil, errAnswer
			}
			return f, bytes.TrimPrefix(rest, []byte{','}), nil
		}
	}
	return nil, nil, errAnswer
}
