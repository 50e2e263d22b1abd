package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"carillon/server/bench/swarm"
	"carillon/server/wire"
)

// attack is a way to go ten times past a limit.
type attack struct {
	name, text string
	attackers  int // side by side, each at an address of its own unless shared is set
	shared     bool
	every      time.Duration // between two attempts of one of them
	burst      int           // attempts that are free at first; they are spent before anything is measured
	// attempt makes one, and reports whether the server refused it, or cut whoever made it. An error is what nothing may come of:
	// neither an answer of the server nor its silence.
	attempt func(*attacker, context.Context) (refused bool, err error)
}

// attacks are all of them. The last uses up the connects of the whole node, from which the others should not suffer.
var attacks = []attack{
	{
		name: "frame_rate", text: "frames at ten times the rate",
		attackers: 4, every: time.Second / (past * limitFrames), attempt: (*attacker).hurry,
	},
	{
		name: "frame_size", text: "frames of ten times the size",
		attackers: 4, every: 200 * time.Millisecond, attempt: (*attacker).bloat,
	},
	{
		name: "slow_reader", text: "clients that read nothing of ten times the queue",
		attackers: 2, every: limitWrite / 4, attempt: (*attacker).freeze,
	},
	{
		name: "polls", text: "polls without pause, at ten times the rate",
		attackers: 4, every: time.Second / (past * limitFrames), attempt: (*attacker).poll,
	},
	{
		name: "address_connects", text: "connects of one address at ten times its rate",
		attackers: 4, shared: true, every: 4 * time.Second / (past * limitAddressRate), burst: limitAddressBurst, attempt: (*attacker).connect,
	},
	{
		name: "connects", text: "connects of many addresses at ten times the node's rate",
		attackers: 20, every: 20 * time.Second / (past * limitConnects), burst: limitConnectBurst, attempt: (*attacker).connect,
	},
}

// tally is how often it was tried, and in vain.
type tally struct{ attempts, refused uint64 }

func (t *tally) add(o tally) {
	t.attempts += o.attempts
	t.refused += o.refused
}

// attacker is one of those who attack. One goroutine has it.
type attacker struct {
	w    *world
	user string
	tr   *http.Transport // from its address

	ws     *probe        // nil: not connected
	ended  chan struct{} // closed by the reader of ws when nothing more comes
	token  string        // that polls show, always the same: another would be a refresh
	answer pollAnswer    // of the poll before
}

// attemptPatience is how long an attempt may take.
const attemptPatience = 10 * time.Second

// attack begins an attack on the server, of users behind the clients, and returns when what is free at first has been spent. stop ends it,
// waits until those who are in the midst of an attempt have made it, and returns what came of all.
func (w *world) attack(ctx context.Context, a *attack, behind int) (stop func() (tally, error)) {
	attacking, cancel := context.WithCancel(ctx)
	tallies, errs := make([]tally, a.attackers), make([]error, a.attackers)
	var running, spending sync.WaitGroup
	spending.Add(a.attackers)
	for i := range a.attackers {
		from := net.IPv4(127, 0, 77, byte(1+i))
		if a.shared {
			from = net.IPv4(127, 0, 77, 200)
		}
		running.Go(func() {
			at := &attacker{w: w, user: w.fleet.User(behind + i), tr: transportFrom(from)}
			defer at.leave()
			tallies[i], errs[i] = at.run(ctx, attacking, a, spending.Done)
		})
	}
	spending.Wait()
	return func() (sum tally, err error) {
		cancel()
		running.Wait()
		for _, t := range tallies {
			sum.add(t)
		}
		return sum, errors.Join(errs...)
	}
}

// transportFrom returns a transport whose connections begin at an address and leave nothing behind when they are closed.
func transportFrom(ip net.IP) *http.Transport {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := d.DialContext(ctx, network, addr)
			if tcp, ok := nc.(*net.TCPConn); ok && err == nil {
				err = errors.Join(tcp.SetLinger(0), tcp.SetReadBuffer(4<<10)) // who reads nothing should be noticed soon
			}
			return nc, err
		},
	}
}

// run attacks until attacking is done. spent is called once, when what is free at first is spent.
func (at *attacker) run(ctx, attacking context.Context, a *attack, spent func()) (t tally, err error) {
	for range a.burst {
		var refused bool
		if refused, err = at.try(ctx, a); refused || err != nil {
			break
		}
	}
	spent()
	if err != nil {
		return t, err
	}
	tick := time.NewTicker(a.every)
	defer tick.Stop()
	for {
		select {
		case <-attacking.Done():
			return t, nil
		case <-tick.C:
		}
		refused, err := at.try(ctx, a)
		if err != nil {
			return t, err
		}
		t.attempts++
		if refused {
			t.refused++
		}
	}
}

func (at *attacker) try(ctx context.Context, a *attack) (refused bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptPatience)
	defer cancel()
	return a.attempt(at, ctx)
}

func (at *attacker) leave() {
	at.hangUp()
	at.tr.CloseIdleConnections()
}

func (at *attacker) hangUp() {
	if at.ws == nil {
		return
	}
	at.ws.ws.CloseNow()
	if at.ended != nil {
		<-at.ended
	}
	at.ws, at.ended = nil, nil
}

// dial connects as a client does.
func (at *attacker) dial(ctx context.Context) (err error) {
	at.ws, err = at.w.dialProbe(ctx, at.user, at.tr)
	return err
}

// readOn has a goroutine read whatever comes; hangUp waits for it.
func (at *attacker) readOn() {
	at.ended = make(chan struct{})
	go func(ws *websocket.Conn, ended chan<- struct{}) {
		defer close(ended)
		for {
			if _, _, err := ws.Read(context.Background()); err != nil { // hangUp ends it
				return
			}
		}
	}(at.ws.ws, at.ended)
}

// hurry sends one frame. Whoever was cut for those before comes back.
func (at *attacker) hurry(ctx context.Context) (refused bool, err error) {
	if at.ws == nil {
		if err := at.dial(ctx); err != nil {
			return false, err
		}
		at.readOn()
	}
	select {
	case <-at.ended:
		at.hangUp()
		return true, nil
	default:
	}
	if err := at.ws.send(ctx, &wire.Ping{}); err != nil {
		at.hangUp()
		return true, nil
	}
	return false, nil
}

// bloat sends a frame that is too large, and waits for what comes of it.
func (at *attacker) bloat(ctx context.Context) (refused bool, err error) {
	if err := at.dial(ctx); err != nil {
		return false, err
	}
	defer at.hangUp()
	at.readOn()
	_ = at.ws.ws.Write(ctx, websocket.MessageText, make([]byte, past*limitFrameBytes)) // fails where the server cuts at its head
	select {
	case <-at.ended:
		return true, nil
	case <-time.After(time.Second):
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// freeze reads nothing while ten times as much comes as may wait for a client, and then looks what is left of it.
func (at *attacker) freeze(ctx context.Context) (refused bool, err error) {
	if err := at.dial(ctx); err != nil {
		return false, err
	}
	defer at.hangUp()
	const body = 32 << 10
	const count = past * limitQueueBytes / body
	for i := range uint64(count) {
		err := at.w.pub.send(ctx, 1, func(int) message {
			return message{user: at.user, mark: swarm.Mark{Seq: i}, size: body} // of no phase
		})
		if err != nil {
			return false, err
		}
	}
	frozen := time.NewTimer(limitWrite + limitWrite/2)
	defer frozen.Stop()
	select {
	case <-frozen.C:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	reading, cancel := context.WithTimeout(ctx, limitWrite)
	defer cancel()
	for got := 0; got < count; {
		f, err := at.ws.next(reading)
		if err != nil { // cut, or nothing more comes: the rest was dropped
			return ctx.Err() == nil, ctx.Err()
		}
		if f.Type() == wire.TypeMessage {
			got++
		}
	}
	return false, nil
}

// pollAnswer is what a poll is answered with.
type pollAnswer struct {
	Session string `json:"session"`
	Cursor  string `json:"cursor"`
}

// poll sends a poll that wants its answer at once. Whoever was refused begins anew.
func (at *attacker) poll(ctx context.Context) (refused bool, err error) {
	if at.token == "" {
		if at.token, err = at.w.mint(at.user); err != nil {
			return false, err
		}
	}
	q := url.Values{"wait": {"0"}}
	if at.answer.Session != "" {
		q.Set("session", at.answer.Session)
		q.Set("cursor", at.answer.Cursor)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.w.server.public+"/connect/poll?"+q.Encode(), nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("Authorization", "Bearer "+at.token)
	at.answer = pollAnswer{}
	resp, err := at.tr.RoundTrip(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return false, err
	}
	if resp.StatusCode != http.StatusOK {
		return true, nil
	}
	var said struct {
		pollAnswer
		Frames []struct {
			Type string `json:"type"`
		} `json:"frames"`
	}
	if err := json.Unmarshal(b, &said); err != nil {
		return false, fmt.Errorf("an answer that cannot be read: %w", err)
	}
	for _, f := range said.Frames {
		if f.Type == wire.TypeKick.String() || f.Type == wire.TypeGoaway.String() {
			return true, nil
		}
	}
	at.answer = said.pollAnswer
	return false, nil
}

// connect asks for a connection and leaves as soon as it is answered, or closed.
func (at *attacker) connect(ctx context.Context) (refused bool, err error) {
	nc, err := at.tr.DialContext(ctx, "tcp", at.w.server.public)
	if err != nil {
		return isClosed(err), ifNotClosed(err)
	}
	defer nc.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := nc.SetDeadline(deadline); err != nil {
			return false, err
		}
	}
	_, err = io.WriteString(nc, "GET /connect HTTP/1.1\r\nHost: "+at.w.server.public+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: Y2FyaWxsb24gYmVuY2ggLg==\r\n\r\n")
	if err != nil {
		return isClosed(err), ifNotClosed(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		return isClosed(err), ifNotClosed(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode != http.StatusSwitchingProtocols, nil
}

// isClosed reports whether a connection failed because the other side closed it unread.
func isClosed(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func ifNotClosed(err error) error {
	if isClosed(err) {
		return nil
	}
	return err
}
