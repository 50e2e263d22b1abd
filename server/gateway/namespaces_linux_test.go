package gateway

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"carillon/server/client"
	"carillon/server/nettest"
	"carillon/server/room"
	"carillon/server/transport"
)

// These tests put a real network between a whole node and its clients: each is a host, and the packets are the kernel's. They wait
// for what has to happen; the time that they take is that of heartbeats and deadlines, the shortest that a room allows. What they
// do, they do to clients of all transports at once.

// wired is a node on a network of its own, with a phone for each transport and the product's server.
type wired struct {
	*testNode
	net     *nettest.Network
	gateway *nettest.Host
	phones  []*phone
}

// phone is a device on a host of its own. Its user is its transport's name.
type phone struct {
	*handset
	over transport.Kind
	host *nettest.Host
	line *line
	sent []string // what was published for it

	store *client.Memory
}

// line is how a host dials.
type line struct {
	host      *nettest.Host
	impatient bool // the kernel gives up a server that confirms nothing
	narrow    bool // the kernel keeps little of what was not read

	mu sync.Mutex
	// Guarded by mu.
	slow chan struct{} // not nil while all is read slowly; closed by speedUp
}

const (
	// receiveBuffer is what the kernel of a narrow line keeps, as far as it lets us say.
	receiveBuffer = 4 << 10
	// unconfirmed is for how long an impatient line waits for a server to confirm what it was sent.
	unconfirmed = 2 * time.Second
)

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		set := func(fd uintptr) {
			if l.impatient {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unconfirmed.Milliseconds()))
			}
			if l.narrow {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
			}
		}
		if failed := c.Control(set); failed != nil {
			return failed
		}
		return err
	}}
	if l.impatient {
		d.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}
	}
	c, err := l.host.DialWith(ctx, d, network, address)
	if err != nil {
		return nil, err
	}
	return &lineConn{Conn: c, line: l}, nil
}

// slowDown has everything that the line reads come a byte a second, until speedUp.
func (l *line) slowDown() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slow = make(chan struct{})
}

func (l *line) speedUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.slow != nil {
		close(l.slow)
		l.slow = nil
	}
}

func (l *line) slowness() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slow
}

type lineConn struct {
	net.Conn
	line *line
}

func (c *lineConn) Read(p []byte) (int, error) {
	slow := c.line.slowness()
	if slow == nil {
		return c.Conn.Read(p)
	}
	n, err := c.Conn.Read(p[:min(1, len(p))])
	pace := time.NewTimer(time.Second)
	defer pace.Stop()
	select {
	case <-pace.C:
	case <-slow:
	}
	return n, err
}

// overNetwork starts a node with short deadlines on a network of its own, without phones.
func overNetwork(t *testing.T, change func(*Config)) *wired {
	t.Helper()
	w := &wired{net: nettest.New(t)}
	w.gateway = w.net.Host("gateway")
	w.testNode = startWith(t, vfs.NewMem(), func(c *Config) {
		c.PublicListen, c.TCPListen = w.gateway.Addr()+":8080", w.gateway.Addr()+":8082"
		c.Listen = func(network, address string) (net.Listener, error) {
			if strings.HasPrefix(address, "127.") {
				return net.Listen(network, address) // the operator's, whom no fault of this network concerns
			}
			return w.gateway.Listen(network, address)
		}
		c.Room = room.Config{
			Heartbeat: time.Second, Grace: 500 * time.Millisecond, Linger: time.Second, WriteDeadline: time.Second, CloseTimeout: time.Second,
			Heartbeats: room.Heartbeats{{Transport: transport.LongPoll}: time.Second},
		}
		if change != nil {
			change(c)
		}
	})
	w.http = httpFrom(t, &line{host: w.net.Host("backend")})
	w.setUp()
	return w
}

func httpFrom(t *testing.T, l *line) *http.Client {
	t.Helper()
	tr := &http.Transport{DialContext: l.dial}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// phoneOver adds a phone that connects over a transport, and waits until it has caught up.
func (w *wired) phoneOver(over transport.Kind, l *line) *phone {
	w.t.Helper()
	p := &phone{over: over, line: l, host: l.host, store: &client.Memory{}}
	p.handset = w.carryFrom(p.line, over, string(over), "phone", p.store)
	p.waitCaughtUp()
	w.phones = append(w.phones, p)
	return p
}

// carryFrom runs a device that dials from a host.
func (w *wired) carryFrom(l *line, over transport.Kind, user, device string, store client.Storage, online ...func()) *handset {
	w.t.Helper()
	there := *w.testNode
	there.http = httpFrom(w.t, l)
	url, d := there.address(over)
	return w.carryTo(url, d, user, device, store, online...)
}

// each connects a phone over every transport, on narrow lines or not.
func (w *wired) each(narrow bool) *wired {
	w.t.Helper()
	for _, over := range overs {
		// A client that polls may wait for an answer for a minute and more: only its kernel finds out in time for a test.
		w.phoneOver(over, &line{host: w.net.Host("phone of " + string(over)), impatient: over == transport.LongPoll, narrow: narrow})
	}
	return w
}

// send publishes a message for a phone.
func (w *wired) send(p *phone, body string) {
	w.t.Helper()
	p.sent = append(p.sent, w.publish(string(p.over), body))
}

// sessions returns how many sessions the node holds for a phone's user.
func (w *wired) sessions(p *phone) int {
	w.t.Helper()
	status, a := w.admin("GET", "/admin/v1/sessions?product=shop&user="+string(p.over), nil)
	if status != 200 {
		w.t.Fatalf("sessions: %d %v", status, a)
	}
	return len(a["sessions"].([]any))
}

func (w *wired) waitSessions(p *phone, want int) {
	w.t.Helper()
	eventually(w.t, networkPatience, func() bool { return w.sessions(p) == want }, func() string {
		return fmt.Sprintf("the node holds %d sessions, want %d: %s", w.sessions(p), want, p.where())
	})
}

// leave ends a phone's client, and waits until the node has seen it go.
func (w *wired) leave(p *phone) {
	w.t.Helper()
	p.stop()
	if err := <-p.done; err != nil {
		w.t.Errorf("%s ended with %v", p.name, err)
	}
	w.waitSessions(p, 0)
}

// waitNotice waits until the phone has found out that its connection is dead.
func (p *phone) waitNotice() {
	p.t.Helper()
	eventually(p.t, networkPatience, func() bool { return p.reached(client.Waiting) > 0 }, p.where)
}

// settle waits until the phone has everything, once and in order, has said so, and has one session.
func (w *wired) settle(p *phone) {
	w.t.Helper()
	p.wants(p.sent)
	w.waitState(p.sent[len(p.sent)-1], "phone", "acknowledged")
	w.waitSessions(p, 1)
	p.wants(p.sent) // nothing came again meanwhile
}

// closesOver reports whether a session over a transport ended for a reason.
func (w *wired) closesOver(over transport.Kind, reason string) bool {
	w.t.Helper()
	return strings.Contains(w.adminText("/metrics"), fmt.Sprintf(`carillon_room_closes_total{reason=%q,transport=%q} `, reason, over))
}

func (w *wired) waitClosesOver(over transport.Kind, reason string) {
	w.t.Helper()
	eventually(w.t, networkPatience, func() bool { return w.closesOver(over, reason) }, func() string {
		ended := regexp.MustCompile(`carillon_room_closes_total.*transport="`+string(over)+`".*`).FindAllString(w.adminText("/metrics"), -1)
		return fmt.Sprintf("no session over %s ended as %s, but %v", over, reason, ended)
	})
}

func TestNamespaces_ClientsWithoutANetworkAreGivenUpAndLoseNothing(t *testing.T) {
	// What the node says of a session that it lets go.
	silent := map[transport.Kind]string{
		transport.WebSocket: "silent", transport.TCP: "silent",
		transport.SSE:      "lost", // nothing is to come from the client: the kernel tells that it confirms nothing
		transport.LongPoll: "lost", // no other poll came
	}
	for _, c := range []struct {
		name     string
		fault    func(n *nettest.Network, phone, gateway *nettest.Host)
		up, down bool // which direction loses packets
		reasons  map[transport.Kind]string
	}{
		{name: "both ways", fault: (*nettest.Network).Cut, up: true, down: true, reasons: silent},
		{name: "what phones say", up: true, reasons: silent, fault: (*nettest.Network).CutOneWay},
		{name: "what phones hear", down: true, fault: func(n *nettest.Network, phone, gateway *nettest.Host) { n.CutOneWay(gateway, phone) }},
		{name: "refused", up: true, fault: (*nettest.Network).Reject},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // it waits most of the time
			w := overNetwork(t, nil).each(false)
			for _, p := range w.phones {
				w.send(p, "before")
				p.wants(p.sent)
			}
			for _, p := range w.phones {
				c.fault(w.net, p.host, w.gateway)
			}
			for i := range 10 {
				for _, p := range w.phones {
					w.send(p, fmt.Sprint("into the dark ", i))
				}
			}
			for _, p := range w.phones { // both find out by themselves, while the fault lasts
				w.waitSessions(p, 0)
				p.waitNotice()
				if got := w.net.Vanished(p.host, w.gateway); c.up && got == 0 {
					t.Errorf("over %s no packet of the phone met the fault", p.over)
				}
				if got := w.net.Vanished(w.gateway, p.host); c.down && got == 0 {
					t.Errorf("over %s no packet of the node met the fault", p.over)
				}
				if got := p.messages(); c.down && len(got) > 1 {
					t.Errorf("over %s a dead network brought %d messages", p.over, len(got)-1)
				}
				if want := c.reasons[p.over]; want != "" {
					w.waitClosesOver(p.over, want)
				}
			}
			for _, p := range w.phones {
				w.send(p, "while away")
			}
			w.net.HealAll()
			for _, p := range w.phones {
				w.settle(p)
			}
		})
	}
}

func TestNamespaces_APhoneWithAnotherAddressContinuesInItsOwnPlace(t *testing.T) {
	for _, c := range []struct {
		name  string
		move  func(*nettest.Host)
		beats time.Duration // how far the node is from finding out by itself
		told  bool
	}{
		{name: "told", move: (*nettest.Host).Readdress, beats: time.Minute, told: true},
		{name: "silently", move: (*nettest.Host).ReaddressSilently},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // it waits most of the time
			w := overNetwork(t, func(cfg *Config) {
				cfg.Room.Heartbeat = cmp.Or(c.beats, cfg.Room.Heartbeat)
			}).each(false)
			// There is one place, and who has it keeps it: a phone that came back as a stranger would be turned away.
			w.policy(rules(map[string]any{"scope": "account", "max": 1, "on_excess": "reject_new"}))
			for _, p := range w.phones {
				w.send(p, "before")
				p.wants(p.sent)
			}
			for _, p := range w.phones {
				before := p.host.Addr()
				c.move(p.host)
				if p.host.Addr() == before {
					t.Fatal("the address is the same")
				}
			}
			for i := range 10 {
				for _, p := range w.phones {
					w.send(p, fmt.Sprint("on the way ", i))
				}
			}
			for _, p := range w.phones {
				// A poll that fails is asked again, with the name of its session, from wherever the phone is: that one goes on.
				if p.over != transport.LongPoll {
					p.waitNotice()
				}
				w.settle(p)
				if c.told && p.over != transport.LongPoll {
					w.waitClosesOver(p.over, "lost")
				}
			}
			for _, p := range w.phones { // when it leaves, its place is free: the old session holds none
				w.leave(p)
				tablet := w.carryFrom(p.line, transport.WebSocket, string(p.over), "tablet", &client.Memory{})
				tablet.waitCaughtUp()
			}
		})
	}
}

// flood has more messages of 60 KiB wait for a phone than the buffers of its connection take.
func (w *wired) flood(p *phone, large string) {
	w.t.Helper()
	for len(p.sent) < 32 {
		w.send(p, large)
	}
}

// pollSlowly has a phone come back to large messages, and read slowly what is behind its welcome. An answer that the kernel has taken whole
// keeps nobody waiting: where the phone polls before more of them are queued than that, its session ends otherwise than as a slow one, and
// it has to be done again.
func (w *wired) pollSlowly(p *phone, large string) {
	w.t.Helper()
	p.line.speedUp()
	w.leave(p)
	got := p.messages()
	if !slices.Equal(got, p.sent[:min(len(got), len(p.sent))]) {
		w.t.Fatalf("%s got %d messages that are not the first of the %d that were sent", p.name, len(got), len(p.sent))
	}
	p.sent = p.sent[len(got):] // the rest is for who comes back
	w.flood(p, large)
	slow := make(chan struct{})
	p.handset = w.carryFrom(p.line, p.over, string(p.over), "phone", p.store, sync.OnceFunc(func() {
		p.line.slowDown()
		close(slow)
	}))
	<-slow
}

func TestNamespaces_AReaderOfOneByteASecondIsCutAsSlowAndDelaysNobody(t *testing.T) {
	w := overNetwork(t, func(c *Config) {
		// No client gives the node up meanwhile: who polls would, a second after the node has to have noticed.
		c.Room.Heartbeat, c.Room.Heartbeats = time.Minute, nil
		// Alike, as by default: the kernel gives up who does not read too, half as much later, and has to let the room say so first. Its clock
		// begins when the client's buffers are full, the room's when the node's are: a flood has to take less than that half.
		c.Room.Grace, c.Room.WriteDeadline = 8*time.Second, 8*time.Second
	})
	if status, a := w.admin("PATCH", "/admin/v1/products/shop", map[string]any{"limits": map[string]any{"own_bytes": 32 << 20}}); status != 200 {
		t.Fatalf("raising the limit: %d %v", status, a)
	}
	w.each(true)
	bob := w.carryFrom(&line{host: w.net.Host("bob's phone")}, transport.WebSocket, "bob", "phone", &client.Memory{})
	bob.waitCaughtUp()
	large := strings.Repeat("x", 60<<10)
	for _, p := range w.phones {
		t.Cleanup(p.line.speedUp)
		if p.over == transport.LongPoll {
			w.pollSlowly(p, large)
			continue
		}
		p.line.slowDown()
		w.flood(p, large)
	}
	var bobs []string
	for range 200 { // while the others read a byte a second
		bobs = append(bobs, w.publish("bob", "small"))
		bob.wants(bobs)
	}
	for _, p := range w.phones {
		for tries := 0; p.over == transport.LongPoll && tries < 20; tries++ {
			eventually(t, networkPatience, func() bool { return w.closesOver(p.over, "slow") || w.sessions(p) == 0 }, p.where)
			if w.closesOver(p.over, "slow") {
				break
			}
			w.pollSlowly(p, large)
		}
		w.waitClosesOver(p.over, "slow")
	}
	if got := bob.reached(client.Waiting); got != 0 {
		t.Errorf("bob's connection broke %d times", got)
	}
	for _, p := range w.phones {
		if got := p.messages(); len(got) > 10 {
			t.Errorf("over %s, who reads a byte a second has read %d messages of 60 KiB", p.over, len(got))
		}
		p.line.speedUp()
	}
	for _, p := range w.phones {
		w.settle(p)
	}
}
