package swarm

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"carillon/server/auth"
	"carillon/server/bench/sample"
	"carillon/server/catalog"
	"carillon/server/push"
	"carillon/server/wire"
)

// tokenLife is how long a client's token is good for.
const tokenLife = 24 * time.Hour

const device = push.DeviceID("bench")

// dialMore begins as many connects as there is room for.
func (l *loop) dialMore() {
	j := l.connecting
	if j == nil {
		return
	}
	for j.next < j.end && j.busy < j.atOnce {
		if err := l.dial(j.next); err != nil {
			j.fail(err.Error())
		}
		j.next++
	}
	if j.next == j.end && j.busy == 0 && j.catching == 0 {
		l.connecting = nil
		j.report.Open = l.open
		l.answer(&Answer{ID: j.id, Report: &j.report})
	}
}

func (j *connecting) fail(why string) {
	if j.report.Failed == nil {
		j.report.Failed = make(map[string]int)
	}
	j.report.Failed[why]++
}

// dial begins the connect of one client. Its token is made before the clock starts: products make tokens, not devices.
func (l *loop) dial(number int) error {
	token, err := l.mint(number)
	if err != nil {
		return err
	}
	began := sample.Monotonic()
	fd, err := l.socket(number, dialing)
	if err != nil {
		return err
	}
	l.attempts[fd] = &attempt{credentials: credentials{host: l.setup.Address, token: token, wait: l.setup.HoldSeconds}, began: began}
	l.connecting.busy++
	return nil
}

// socket makes a socket in some state, on its way to the server.
func (l *loop) socket(number int, s state) (int32, error) {
	fd, err := unix.Socket(l.family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	if err := l.start(fd); err != nil {
		unix.Close(fd)
		return 0, err
	}
	for len(l.clients) <= fd {
		l.clients = append(l.clients, client{})
	}
	c := &l.clients[fd]
	*c = client{gen: c.gen + 1, number: int32(number), state: s}
	// Edge-triggered, and for everything at once: a client's interest never changes, which saves a system call at each step.
	err = unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd), Pad: int32(c.gen),
	})
	if err != nil {
		c.state = absent
		unix.Close(fd)
		return 0, fmt.Errorf("epoll: %w", err)
	}
	return int32(fd), nil
}

// start sends the socket on its way.
func (l *loop) start(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("setsockopt: %w", err)
	}
	// A socket that is closed is gone at once. Else thousands would wait for a minute behind each run, and change what is measured
	// of the kernel's memory in the next.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return fmt.Errorf("setsockopt: %w", err)
	}
	if l.source != nil {
		// The port is chosen at connect, when the destination is known; else a port would be used up for all of them.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return fmt.Errorf("setsockopt: %w", err)
		}
		if err := unix.Bind(fd, l.source); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
	}
	if err := unix.Connect(fd, l.server); err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

func (l *loop) mint(number int) (string, error) {
	s := &l.setup
	return auth.Mint(auth.SigningKey{ID: catalog.KeyID(s.KeyID), Alg: catalog.HS256, Private: s.Key}, auth.Claims{
		Product: push.ProductID(s.Product), User: push.UserID(s.Users + strconv.Itoa(number)), Device: device,
		Platform: push.PlatformWeb, Issued: l.issued, Expires: l.issued.Add(tokenLife),
	})
}

// event takes what epoll says of a client.
func (l *loop) event(fd int32, c *client, events uint32) {
	switch c.state {
	case running:
		l.onErrand(fd, events)
		return
	case dialing:
		if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) == 0 {
			return
		}
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		if err != nil {
			l.lose(fd, c, "connect: "+err.Error())
			return
		}
		c.state = greeting
		if l.manner.upgrades {
			c.state = opening
		}
		l.scratch = l.dialect.hello(l.scratch[:0], &l.attempts[fd].credentials)
		l.write(fd, c, l.scratch)
		return // an answer makes another event
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		// With the end of the stream behind the data, no other event comes: then the socket is read to its end.
		l.read(fd, c, events&^(unix.EPOLLIN|unix.EPOLLOUT) != 0)
	}
}

// read takes everything that the socket has. Unless toEnd is set, a read that does not fill the buffer is the last: there was
// no more, and what comes later makes another event.
func (l *loop) read(fd int32, c *client, toEnd bool) {
	for {
		kept := 0
		if c.hasTail {
			kept = copy(l.buf, l.tails[fd])
		}
		if kept == len(l.buf) { // the largest frame is longer than the buffer
			l.buf = append(l.buf, make([]byte, len(l.buf))...)
			l.buf = l.buf[:cap(l.buf)]
		}
		n, err := unix.Read(int(fd), l.buf[kept:])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return
		case err != nil:
			l.lose(fd, c, "read: "+err.Error())
			return
		case n == 0:
			l.lose(fd, c, "the server closed the connection without a word")
			return
		}
		l.count.report.Reads++
		if !l.take(fd, c, l.buf[:kept+n]) {
			return
		}
		if kept+n < len(l.buf) && !toEnd {
			return
		}
	}
}

// take goes through what was received, and keeps what is not whole. It returns false if the client went.
func (l *loop) take(fd int32, c *client, b []byte) bool {
	now := sample.Monotonic()
	for len(b) > 0 {
		k, payload, n, err := l.dialect.cut(b, c.state == opening)
		if err != nil {
			l.lose(fd, c, err.Error())
			return false
		}
		if k == partial {
			break
		}
		b = b[n:]
		switch k {
		case upgraded:
			c.state = greeting
			l.scratch = l.dialect.connect(l.scratch[:0], &l.attempts[fd].credentials)
			if len(l.scratch) > 0 && !l.write(fd, c, l.scratch) {
				return false
			}
		case warmed:
			l.count.report.Pings++
		case answer:
			if !l.answered(fd, c, payload, now) {
				return false
			}
		case bye:
			if c.state == leaving {
				continue // the end of the stream follows
			}
			l.lose(fd, c, string(payload))
			return false
		case frame:
			if !l.frame(fd, c, payload, now) {
				return false
			}
		}
	}
	switch {
	case len(b) > 0:
		l.tails[fd] = append(l.tails[fd][:0], b...)
		c.hasTail = true
	case c.hasTail:
		delete(l.tails, fd)
		c.hasTail = false
	}
	return true
}

// frame takes one frame. It returns false if the client went.
func (l *loop) frame(fd int32, c *client, payload []byte, now int64) bool {
	switch typeOf(l.manner.encoding, payload) {
	case wire.TypeMessage:
		l.count.message(payload, now)
		if slot, pos, ok := placeOf(l.manner.encoding, payload); ok {
			l.notePlace(fd, c, slot, pos, now)
		}
	case wire.TypePong:
		l.count.report.Pongs++
	case wire.TypeWelcome:
		return l.welcome(fd, c, payload, now)
	case wire.TypeError, wire.TypeKick, wire.TypeGoaway:
		l.lose(fd, c, reasonOf(l.manner.encoding, payload))
		return false
	default:
		return l.rare(fd, c, payload)
	}
	return true
}

func (l *loop) welcome(fd int32, c *client, payload []byte, now int64) bool {
	a, j := l.attempts[fd], l.connecting
	f, err := wire.DecodeServer(l.manner.encoding, payload)
	w, ok := f.(*wire.Welcome)
	if err != nil || !ok || c.state != greeting || a == nil || j == nil {
		l.lose(fd, c, "a welcome that cannot be read, or that nobody waited for")
		return false
	}
	if l.setup.Acks || l.manner.asks {
		owner, cursor, err := push.ParseCursor(w.Cursor)
		if err != nil {
			l.lose(fd, c, "a welcome with a cursor that is none")
			return false
		}
		l.cursors[fd] = &place{owner, cursor}
	}
	c.state = catching
	l.open++
	j.busy--
	j.catching++
	j.report.Welcomed++
	j.report.Latency.add(now - a.began)
	l.welcomed(fd, c, time.Duration(w.HeartbeatMillis)*time.Millisecond)
	return true
}

// rare takes the frames that are decoded: there are few of them.
func (l *loop) rare(fd int32, c *client, payload []byte) bool {
	f, err := wire.DecodeServer(l.manner.encoding, payload)
	if err != nil {
		l.lose(fd, c, fmt.Sprintf("a frame that cannot be read: %v", err))
		return false
	}
	p := l.cursors[fd]
	switch f := f.(type) {
	case *wire.Cursor:
		if owner, cursor, err := push.ParseCursor(f.Cursor); err == nil && p != nil {
			p.owner, p.cursor = owner, cursor
		}
		if f.Reason == wire.CursorCaughtUp && c.state == catching {
			c.state = standing
			delete(l.attempts, fd)
			if l.connecting != nil {
				l.connecting.catching--
				l.connecting.report.CaughtUp++
			}
		}
	case *wire.Gap:
		l.count.report.Gaps++
		if p != nil && f.Reason != wire.GapReset {
			p.cursor[f.Slot].Pos = max(p.cursor[f.Slot].Pos, f.To)
		}
	}
	return true
}

// notePlace moves a client's cursor, and has it acknowledged within a second.
func (l *loop) notePlace(fd int32, c *client, slot push.SlotKind, pos push.Position, now int64) {
	p := l.cursors[fd]
	if p == nil || l.manner.asks { // an answer says itself what its cursor is
		return
	}
	p.cursor[slot].Pos = max(p.cursor[slot].Pos, pos)
	if !c.ackDue {
		c.ackDue = true
		l.acks.add(entry{fd, c.gen}, now+int64(ackEvery))
	}
}

// ack acknowledges everything that a client had.
func (l *loop) ack(e entry) {
	c := &l.clients[e.fd]
	if c.gen != e.gen || c.state < catching || c.state > standing {
		return
	}
	f := l.ackFrame(l.cursors[e.fd])
	if l.manner.speaks {
		c.ackDue = false
		l.scratch = l.dialect.say(l.scratch[:0], f)
		if l.write(e.fd, c, l.scratch) {
			l.count.report.Acks++
		}
		return
	}
	if len(l.errands) == maxErrands { // another time, with what has come until then
		l.acks.add(e, sample.Monotonic())
		return
	}
	c.ackDue = false
	if err := l.runErrand(int(c.number), f); err != nil {
		l.noteLost("acknowledgement: " + err.Error())
	}
}

// write sends b, which is short. A socket that does not take it is one whose server reads nothing: the client is lost, and
// write returns false.
func (l *loop) write(fd int32, c *client, b []byte) bool {
	for {
		n, err := unix.Write(int(fd), b)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			l.lose(fd, c, "write: "+err.Error())
			return false
		case n < len(b):
			l.lose(fd, c, "write: the socket took a part only")
			return false
		}
		return true
	}
}

// lose ends a client. One that was asked to leave has left; for the others the reason is counted.
func (l *loop) lose(fd int32, c *client, why string) {
	was := c.state
	unix.Close(int(fd)) // which takes it out of epoll
	c.state = absent
	if c.hasTail {
		delete(l.tails, fd)
	}
	delete(l.attempts, fd)
	delete(l.cursors, fd)
	switch was {
	case dialing, opening, greeting:
		l.connecting.busy--
		l.connecting.fail(why)
	case catching:
		l.open--
		if l.connecting != nil {
			l.connecting.catching--
			l.connecting.fail(why)
		}
	case standing:
		l.open--
		l.noteLost(why)
	case leaving:
		l.left()
	}
}

// closeAll says goodbye for clients.
func (l *loop) closeAll(cmd *Command) {
	l.closing = &closing{id: cmd.ID, until: sample.Monotonic() + int64(leavePatience)}
	l.upkeep = 0
	l.scratch = l.dialect.goodbye(l.scratch[:0])
	for fd := range l.clients {
		c := &l.clients[fd]
		n := int(c.number)
		if c.state < catching || c.state > standing || n < cmd.From || n >= cmd.From+cmd.Count {
			continue
		}
		if l.sendGoodbye(int32(fd), c, l.scratch) {
			c.state = leaving
			l.open--
			l.closing.left++
		}
	}
	l.leftAll()
}

// sendGoodbye returns false if the client is lost.
func (l *loop) sendGoodbye(fd int32, c *client, goodbye []byte) bool {
	if len(goodbye) > 0 {
		return l.write(fd, c, goodbye)
	}
	if err := unix.Shutdown(int(fd), unix.SHUT_WR); err != nil {
		l.lose(fd, c, "shutdown: "+err.Error())
		return false
	}
	return true
}

// left notes that one of those that said goodbye is gone.
func (l *loop) left() {
	if l.closing != nil {
		l.closing.left--
		l.leftAll()
	}
}

func (l *loop) leftAll() {
	if j := l.closing; j.left == 0 {
		l.closing = nil
		l.answer(&Answer{ID: j.id, Report: &Report{Open: l.open}})
	}
}

var errSlow = errors.New("the server did not answer in time")

// keepHouse gives up what takes too long, and tells how far a command has come.
func (l *loop) keepHouse(now int64) {
	l.upkeep = now + int64(housekeeping)
	l.giveUpErrands(now)
	if l.connecting != nil {
		for fd, a := range l.attempts {
			if now-a.began > int64(attemptPatience) {
				l.lose(fd, &l.clients[fd], errSlow.Error())
			}
		}
		l.dialMore()
	}
	if l.closing != nil && now > l.closing.until {
		for fd := range l.clients {
			if c := &l.clients[fd]; c.state == leaving {
				l.lose(int32(fd), c, errSlow.Error())
			}
		}
	}
	if l.connecting != nil || l.closing != nil {
		l.answer(&Answer{Open: l.open})
	}
}
