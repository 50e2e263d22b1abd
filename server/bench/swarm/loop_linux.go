package swarm

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"carillon/server/bench/sample"
	"carillon/server/push"
	"carillon/server/wire"
)

// state is how far a client has come.
type state uint8

const (
	absent  state = iota
	dialing       // the socket does not stand yet
	opening       // waits for the upgrade
	greeting
	catching // welcomed; what waited for it is on its way
	standing
	leaving // has said goodbye
	running // no client, but an errand of one
)

// client is one client, as small as it can be: there are thousands. It lies at the index of its socket's number.
type client struct {
	gen     uint32 // of the socket number: raised whenever a client takes it
	number  int32  // which user it is
	state   state
	hasTail bool // the beginning of a frame lies in loop.tails
	ackDue  bool

	heartbeat uint32 // in milliseconds, as its welcome names it: the server tells each client another
}

// attempt is what a client needs until it has caught up.
type attempt struct {
	credentials
	began int64
}

// Times of the loop.
const (
	attemptPatience = 30 * time.Second // for welcome and catch-up
	leavePatience   = 10 * time.Second // for the server's goodbye
	housekeeping    = 200 * time.Millisecond
	arrivedEvery    = time.Millisecond // between news of [CountEach]
	arrivedBatch    = 500
	ackEvery        = time.Second
)

const readBytes = 256 << 10

// loop is all clients of a process. One goroutine runs it; only the inbox is shared.
type loop struct {
	ep    int
	inbox *inbox
	out   *bufio.Writer
	enc   *json.Encoder

	setup   Setup
	dialect dialect
	manner  manner
	issued  time.Time // of tokens: a client shows the same one whenever it shows one
	server  unix.Sockaddr
	family  int
	source  unix.Sockaddr // nil: the system's choice
	ping    []byte        // a heartbeat, as it goes out

	clients  []client // by socket
	attempts map[int32]*attempt
	tails    map[int32][]byte
	cursors  map[int32]*place // of clients that acknowledge
	errands  map[int32]*errand
	open     int // clients that stand, or catch up
	events   []unix.EpollEvent
	buf      []byte // what is read; a tail is put in front of it
	scratch  []byte // what is written

	beats  *wheel // nil before the first welcome
	acks   *wheel
	upkeep int64 // when the next housekeeping is due

	connecting *connecting
	closing    *closing
	count      counting
	lost       map[string]int // clients that stood and went without being asked to, why
}

// connecting is a connect command that is being carried out.
type connecting struct {
	id       int
	next     int
	end      int
	atOnce   int
	busy     int // between socket and welcome
	catching int // welcomed, not caught up
	report   Report
}

// closing is a close command that is being carried out.
type closing struct {
	id    int
	left  int
	until int64
}

func newLoop(out io.Writer) (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("swarm: epoll: %w", err)
	}
	in, err := newInbox()
	if err != nil {
		return nil, err
	}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, in.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(in.wake)}); err != nil {
		return nil, fmt.Errorf("swarm: epoll: %w", err)
	}
	w := bufio.NewWriter(out)
	return &loop{
		ep: ep, inbox: in, out: w, enc: json.NewEncoder(w),
		attempts: make(map[int32]*attempt), tails: make(map[int32][]byte), cursors: make(map[int32]*place),
		errands: make(map[int32]*errand), events: make([]unix.EpollEvent, 512), buf: make([]byte, readBytes),
		acks: newWheel(sample.Monotonic(), ackEvery/16, 2*ackEvery),
	}, nil
}

// close closes every socket; the server sees its clients vanish. Nobody fills the inbox any more.
func (l *loop) close() {
	for fd := range l.clients {
		if l.clients[fd].state != absent {
			unix.Close(fd)
		}
	}
	unix.Close(l.ep)
	unix.Close(l.inbox.wake)
}

// run goes on until there are no more commands.
func (l *loop) run() error {
	for {
		n, err := unix.EpollWait(l.ep, l.events, l.timeout(sample.Monotonic()))
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("swarm: epoll: %w", err)
		}
		for i := range max(n, 0) {
			e := &l.events[i]
			if int(e.Fd) == l.inbox.wake {
				if err := l.obey(); err != nil {
					if errors.Is(err, io.EOF) {
						return nil
					}
					return err
				}
				continue
			}
			if c := &l.clients[e.Fd]; c.state != absent && c.gen == uint32(e.Pad) {
				l.event(e.Fd, c, e.Events)
			}
		}
		now := sample.Monotonic()
		if l.beats != nil {
			l.beats.advance(now, l.beat)
		}
		l.acks.advance(now, l.ack)
		l.dialMore()
		if now >= l.upkeep {
			l.keepHouse(now)
		}
		l.count.tell(l, now)
		if err := l.out.Flush(); err != nil {
			return fmt.Errorf("swarm: answer: %w", err)
		}
		if l.count.how == CountAll && n > 0 {
			l.gather()
		}
	}
}

// gatherFor is how long a process lets messages to everybody gather before it looks for more. It is the most that this adds to
// their times.
const gatherFor = time.Millisecond

// gather is what network cards call moderation of interrupts. A process that waited for the next message would be woken for each
// single one, and waking it, on a processor that had gone to sleep, would cost the server as much as writing the message.
func (l *loop) gather() {
	pause := unix.NsecToTimespec(int64(gatherFor))
	_ = unix.Nanosleep(&pause, nil) // a signal ends it early, which does no harm
}

// timeout returns how long epoll may wait, in milliseconds.
func (l *loop) timeout(now int64) int {
	until := int64(-1)
	sooner := func(at int64) {
		if until < 0 || at < until {
			until = at
		}
	}
	if l.beats != nil {
		if at, ok := l.beats.next(); ok {
			sooner(at)
		}
	}
	if at, ok := l.acks.next(); ok {
		sooner(at)
	}
	if l.connecting != nil || l.closing != nil || len(l.errands) > 0 {
		sooner(l.upkeep)
	}
	if l.count.untold > 0 {
		sooner(l.count.toldAt + int64(arrivedEvery))
	}
	if until < 0 {
		return -1
	}
	return int(max(0, (until-now+int64(time.Millisecond)-1)/int64(time.Millisecond)))
}

func (l *loop) answer(a *Answer) { _ = l.enc.Encode(a) } // an error stays in l.out, and ends the loop

// obey carries out what came in. Commands that take time are answered later.
func (l *loop) obey() error {
	commands, ended := l.inbox.take()
	for _, c := range commands {
		if err := l.command(c); err != nil {
			l.answer(&Answer{ID: c.ID, Error: err.Error()})
		}
	}
	if ended != nil {
		return ended
	}
	return nil
}

func (l *loop) command(c *Command) error {
	switch c.Op {
	case OpSetup:
		if c.Setup == nil {
			return errors.New("setup without its values")
		}
		if err := l.setUp(c.Setup); err != nil {
			return err
		}
		l.answer(&Answer{ID: c.ID})
	case OpConnect:
		if l.dialect == nil || l.connecting != nil || l.closing != nil {
			return errors.New("this is no time to connect")
		}
		l.connecting = &connecting{id: c.ID, next: c.From, end: c.From + c.Count, atOnce: max(1, c.AtOnce)}
		l.upkeep = 0
	case OpClose:
		if l.connecting != nil || l.closing != nil {
			return errors.New("this is no time to close")
		}
		l.closeAll(c)
	case OpBegin:
		l.count = counting{phase: c.Phase, how: c.Counting, expect: l.open}
		l.answer(&Answer{ID: c.ID})
	case OpReport:
		if c.Free {
			debug.FreeOSMemory()
		}
		r, err := l.report()
		if err != nil {
			return err
		}
		l.answer(&Answer{ID: c.ID, Report: r})
	default:
		return fmt.Errorf("there is no operation %q", c.Op)
	}
	return nil
}

func (l *loop) setUp(s *Setup) error {
	d, err := dialectOf(s.Transport)
	if err != nil {
		return err
	}
	at, err := netip.ParseAddrPort(s.Address)
	if err != nil {
		return err
	}
	if !at.Addr().IsLoopback() {
		return fmt.Errorf("%s is no address of this machine alone", at.Addr())
	}
	l.family, l.server = sockaddr(at)
	if s.Source != "" {
		from, err := netip.ParseAddr(s.Source)
		if err != nil {
			return err
		}
		_, l.source = sockaddr(netip.AddrPortFrom(from, 0))
	}
	l.setup, l.dialect, l.manner, l.issued = *s, d, d.manner(), time.Now()
	l.ping = d.say(nil, wire.Append(nil, l.manner.encoding, &wire.Ping{}))
	return nil
}

func sockaddr(at netip.AddrPort) (family int, sa unix.Sockaddr) {
	if at.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
}

// report returns what was counted.
func (l *loop) report() (*Report, error) {
	r := l.count.report
	r.Open = l.open
	r.Lost = l.lost
	cpu, err := sample.CPU(os.Getpid())
	if err != nil {
		return nil, err
	}
	mem, err := sample.Resident(os.Getpid())
	if err != nil {
		return nil, err
	}
	r.CPU, r.RSS = cpu, mem.RSS
	return &r, nil
}

func (l *loop) noteLost(why string) {
	if l.lost == nil {
		l.lost = make(map[string]int)
	}
	l.lost[why]++
}

// beat sends a client's heartbeat and puts down the next one.
func (l *loop) beat(e entry) {
	c := &l.clients[e.fd]
	if c.gen != e.gen || c.state < catching || c.state > standing {
		return
	}
	if l.write(e.fd, c, l.ping) {
		l.count.report.Pings++
		l.beats.add(e, sample.Monotonic()+l.beatDelay(c, 0.9))
	}
}

// beatDelay returns a time between least and all of a client's interval, less two ticks for what the wheel adds. Clients that
// were connected together do not beat together.
func (l *loop) beatDelay(c *client, least float64) int64 {
	usable := float64(c.heartbeat)*float64(time.Millisecond) - 2*float64(l.beats.tick)
	return int64(usable * (least + (1-least)*rand.Float64()))
}

// welcomed begins a client's heartbeats, where it has any.
func (l *loop) welcomed(fd int32, c *client, heartbeat time.Duration) {
	if !l.manner.speaks {
		return
	}
	c.heartbeat = uint32(heartbeat.Milliseconds())
	if l.beats == nil { // those of the others differ by a little, and one that is longer comes at the end of the turn, early
		l.beats = newWheel(sample.Monotonic(), min(max(heartbeat/512, 10*time.Millisecond), 100*time.Millisecond), heartbeat)
	}
	l.beats.add(entry{fd, c.gen}, sample.Monotonic()+l.beatDelay(c, 0))
}

// place is the cursor of a client that gets persistent messages, built as api/README.md says.
type place struct {
	owner  push.CursorOwner
	cursor push.Cursor
}
