package swarm

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"carillon/server/bench/sample"
	"carillon/server/push"
	"carillon/server/wire"
)

// maxErrands is how many errands of a process are under way at the same time; the others wait. They are few beside the clients,
// and within the files that a server has beside its sessions.
const maxErrands = 4

// errandPatience is how long one may take.
const errandPatience = attemptPatience

// errand is a frame that a client sends beside a connection on which it cannot speak: one request on a connection of its own.
type errand struct {
	request []byte
	began   int64
	begun   bool // the socket stands, and the request was sent
}

// runErrand begins one for a user. It lies in clients beside the others, without being one.
func (l *loop) runErrand(number int, frame []byte) error {
	token, err := l.mint(number)
	if err != nil {
		return err
	}
	request := appendRequest(nil, "POST", "/connect/frames", &credentials{host: l.setup.Address, token: token})
	request = append(request, "Connection: close\r\nContent-Type: application/json\r\nContent-Length: "...)
	request = strconv.AppendInt(request, int64(len(frame)), 10)
	request = append(append(request, headerEnd...), frame...)
	fd, err := l.socket(number, running)
	if err != nil {
		return err
	}
	l.errands[fd] = &errand{request: request, began: sample.Monotonic()}
	return nil
}

// onErrand takes what epoll says of one.
func (l *loop) onErrand(fd int32, events uint32) {
	e := l.errands[fd]
	if !e.begun {
		if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) == 0 {
			return
		}
		e.begun = true
		if n, err := unix.Write(int(fd), e.request); n < len(e.request) {
			l.endErrand(fd, fmt.Errorf("write: %v", err))
			return
		}
		e.request = nil
	}
	n, err := unix.Read(int(fd), l.buf)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return // edge-triggered: what has come since makes another event, and an answer is a single write
	case err != nil:
		l.endErrand(fd, fmt.Errorf("read: %w", err))
		return
	}
	// An answer is one write of the server, of a few hundred bytes, so it comes whole.
	header, err := cutHeader(l.buf[:n], "204 ")
	if err == nil && header == nil {
		err = fmt.Errorf("the answer came in parts")
	}
	l.endErrand(fd, err)
}

// endErrand ends one. Without an error its frame arrived; with one, the reason is counted beside the clients that were lost, for
// what a client says may not get lost either.
func (l *loop) endErrand(fd int32, err error) {
	unix.Close(int(fd))
	l.clients[fd].state = absent
	delete(l.errands, fd)
	if err != nil {
		l.noteLost("acknowledgement: " + err.Error())
		return
	}
	l.count.report.Acks++
}

// giveUpErrands ends those that take too long.
func (l *loop) giveUpErrands(now int64) {
	for fd, e := range l.errands {
		if now-e.began > int64(errandPatience) {
			l.endErrand(fd, errSlow)
		}
	}
}

// ackFrame is the acknowledgement of everything up to a place.
func (l *loop) ackFrame(p *place) []byte {
	cursor := string(push.AppendCursor(nil, p.owner, p.cursor))
	return wire.Append(nil, l.manner.encoding, &wire.Ack{Cursor: cursor})
}
