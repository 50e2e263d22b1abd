package swarm

import (
	"strconv"

	"carillon/server/push"
)

// answered takes the answer to a poll and sends the next one. It returns false if the client went.
func (l *loop) answered(fd int32, c *client, payload []byte, now int64) bool {
	a, err := readAnswer(payload)
	if err != nil {
		l.lose(fd, c, err.Error())
		return false
	}
	if len(a.frames) == 0 {
		l.count.report.Pings++
	}
	for rest := a.frames; len(rest) > 0; {
		var f []byte
		if f, rest, err = nextFrame(rest); err != nil {
			l.lose(fd, c, err.Error())
			return false
		}
		if !l.frame(fd, c, f, now) {
			return false
		}
	}
	if c.state == leaving {
		return true
	}
	return l.ask(fd, c, &a)
}

// ask sends the next poll. Its cursor acknowledges what the last answer had.
func (l *loop) ask(fd int32, c *client, a *polled) bool {
	p := l.cursors[fd]
	owner, cursor, err := push.ParseCursor(a.cursor)
	if p == nil || err != nil {
		l.lose(fd, c, "an answer without a session, or with a cursor that is none: "+strconv.Quote(a.cursor))
		return false
	}
	token, err := l.mint(int(c.number))
	if err != nil {
		l.lose(fd, c, err.Error())
		return false
	}
	if cursor != p.cursor {
		l.count.report.Acks++
	}
	p.owner, p.cursor = owner, cursor
	l.scratch = l.dialect.hello(l.scratch[:0], &credentials{
		host: l.setup.Address, token: token, wait: l.setup.HoldSeconds, session: a.session, cursor: a.cursor,
	})
	return l.write(fd, c, l.scratch)
}
