package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os/exec"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/auth"
	"carillon/server/client"
	"carillon/server/push"
	"carillon/server/room"
	"carillon/server/transport"
	"carillon/server/transport/ws"
	"carillon/server/wire"
)

// pollDevice is a device that polls with nothing but net/http.
type pollDevice struct {
	n     *testNode
	token string

	session, cursor string // of the last answer
	frames          []wire.Frame
	reused          []bool // for each poll, whether its connection had served one before
}

// poller returns a device whose session ends with the test: a stopping node would wait for it to ask once more.
func (n *testNode) poller(user, device string) *pollDevice {
	n.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = n.polls.Close(ctx) // says that it cut the session
	})
	return &pollDevice{n: n, token: n.token(user, device)}
}

// send polls once and returns the answer, whatever it is.
func (p *pollDevice) send(ctx context.Context, query url.Values, headers ...string) (*http.Response, []byte, error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { p.reused = append(p.reused, i.Reused) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.n.PublicURL()+"/connect/poll?"+query.Encode(), nil)
	if err != nil {
		return nil, nil, err
	}
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := p.n.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res, b, err
}

func (p *pollDevice) query(more ...string) url.Values {
	q := url.Values{}
	for name, v := range map[string]string{"session": p.session, "cursor": p.cursor} {
		if v != "" {
			q.Set(name, v)
		}
	}
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return q
}

// poll polls once and takes the answer.
func (p *pollDevice) poll(more ...string) {
	p.n.t.Helper()
	ctx, cancel := context.WithTimeout(p.n.t.Context(), networkPatience)
	defer cancel()
	res, b, err := p.send(ctx, p.query(more...))
	if err != nil {
		p.n.t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		p.n.t.Fatalf("got %d %s", res.StatusCode, b)
	}
	p.take(b)
}

func (p *pollDevice) take(b []byte) {
	p.n.t.Helper()
	var a struct {
		Session, Cursor string
		Frames          []json.RawMessage
	}
	if err := json.Unmarshal(b, &a); err != nil || a.Session == "" || a.Cursor == "" || a.Frames == nil {
		p.n.t.Fatalf("got %s, %v", b, err)
	}
	p.session, p.cursor = a.Session, a.Cursor
	for _, raw := range a.Frames {
		f, err := wire.DecodeServer(wire.JSON, raw)
		if err != nil {
			p.n.t.Fatal(err)
		}
		p.frames = append(p.frames, f)
	}
}

// next returns the next frame, and polls until there is one.
func (p *pollDevice) next() wire.Frame {
	p.n.t.Helper()
	for len(p.frames) == 0 {
		p.poll()
	}
	f := p.frames[0]
	p.frames = p.frames[1:]
	return f
}

// wantMessage reads the next frame, which is that message.
func (p *pollDevice) wantMessage(id string) {
	p.n.t.Helper()
	f := p.next()
	if m, ok := f.(*wire.Message); !ok || m.ID.String() != id {
		p.n.t.Fatalf("got %+v, want message %s", f, id)
	}
}

// caughtUp polls until all that waited has come.
func (p *pollDevice) caughtUp() {
	p.n.t.Helper()
	if f := p.next(); f.Type() != wire.TypeWelcome {
		p.n.t.Fatalf("got %+v, want a welcome", f)
	}
	for {
		if c, ok := p.next().(*wire.Cursor); ok && c.Reason == wire.CursorCaughtUp {
			return
		}
	}
}

func TestPoll_ContinuesFromItsCursor(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	p := n.poller("alice", "phone")
	p.caughtUp()
	session := p.session
	first := n.publish("alice", "first\nwith two lines")
	p.wantMessage(first)
	before := p.cursor
	second := n.publish("alice", "second")
	p.wantMessage(second)
	if p.session != session {
		t.Errorf("the session became another: %s after %s", p.session, session)
	}
	third := n.publish("alice", "while nobody asks")

	p.cursor = before // as if the answer with the second had been lost
	p.wantWelcome()
	p.wantMessage(second)
	p.wantMessage(third)
	if p.session == session {
		t.Error("the session goes on after a lost answer")
	}
	p.frames = nil
	p.poll("wait", "0") // acknowledges
	n.waitState(third, "phone", "acknowledged")
	fourth := n.publish("alice", "while nobody asks again")
	p.session, p.cursor, p.frames = "", "", nil // a client that lost everything goes on from what it acknowledged
	p.wantWelcome()
	p.wantMessage(fourth)
}

func (p *pollDevice) wantWelcome() {
	p.n.t.Helper()
	if f := p.next(); f.Type() != wire.TypeWelcome {
		p.n.t.Fatalf("got %+v, want a welcome", f)
	}
}

// Each poll begins on the connection on which the one before ended.
func TestPoll_KeepsItsConnection(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	requests := &http.Transport{}
	defer requests.CloseIdleConnections()
	n.http = &http.Client{Transport: requests}
	p := n.poller("alice", "phone")
	p.caughtUp()
	for range 20 {
		p.wantMessage(n.publish("alice", "again"))
	}
	if slices.Contains(p.reused[1:], false) {
		t.Errorf("polls on a connection that served one before: %v, want all but the first", p.reused)
	}
}

// The number and the cursor of a session stand in logs. Who has them and a token of somebody else sees nothing of it.
func TestPoll_ATokenOfAnotherDeviceSeesNothing(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	alice := n.poller("alice", "phone")
	alice.caughtUp()
	mallory := n.poller("mallory", "phone")
	mallory.session, mallory.cursor = alice.session, alice.cursor
	mallory.caughtUp()
	if mallory.session == alice.session {
		t.Error("mallory goes on with alice's session")
	}
	id := n.publish("alice", "for alice")
	alice.wantMessage(id)
	mallory.poll("wait", "0")
	if len(mallory.frames) > 0 {
		t.Errorf("mallory got %+v", mallory.frames)
	}
}

func TestPoll_ANewTokenRenewsTheSession(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	p := n.poller("alice", "phone")
	p.caughtUp()
	session := p.session
	later, err := auth.Mint(n.sign, auth.Claims{
		Product: "shop", User: "alice", Device: "phone", Platform: push.PlatformWeb, Issued: time.Now(), Expires: time.Now().Add(5 * time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	p.token = later
	f := p.next()
	if r, ok := f.(*wire.Refresh); !ok || r.Expires.Time().Before(time.Now().Add(4*time.Hour)) {
		t.Errorf("got %+v, want the new token's end", f)
	}
	p.wantMessage(n.publish("alice", "with the new token"))
	if p.session != session {
		t.Error("a new token began a new session")
	}
}

func TestPoll_IsHeldAsLongAsItAsksFor(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	p := n.poller("alice", "phone")
	p.caughtUp()
	cursor := p.cursor
	began := time.Now()
	p.poll("wait", "1")
	if took := time.Since(began); took < 500*time.Millisecond { // less a jitter
		t.Errorf("a poll of a second was answered after %v", took)
	}
	if len(p.frames) > 0 || p.cursor != cursor {
		t.Errorf("got %+v up to %s, want nothing", p.frames, p.cursor)
	}
}

// A client that does not ask again is gone after a while, and its session with it.
func TestPoll_ASessionLingersAndEnds(t *testing.T) {
	n := startRoom(t, vfs.NewMem(), room.Config{Linger: time.Second})
	n.setUp()
	p := n.poller("alice", "phone")
	p.caughtUp()
	session := p.session
	eventually(t, networkPatience, func() bool { return n.room.Count() == 0 }, func() string { return "the session lingers" })
	id := n.publish("alice", "while away")
	p.wantWelcome()
	if p.session == session {
		t.Error("a session that ended goes on")
	}
	p.wantMessage(id)
}

// A session comes back over another transport between two polls: the same cursor, nothing lost, nothing twice.
func TestPoll_AndWebSocketContinueEachOther(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	p := n.poller("alice", "phone")
	p.caughtUp()
	first := n.publish("alice", "over polls")
	p.wantMessage(first)
	store := &client.Memory{}
	if err := store.Save(t.Context(), client.State{Cursor: p.cursor}); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan wire.Frame, 10)
	go func() {
		defer close(waiting)
		for {
			res, b, err := p.send(context.Background(), p.query())
			if err != nil || res.StatusCode != http.StatusOK {
				return
			}
			p.take(b)
			for _, f := range p.frames {
				waiting <- f
				if f.Type() == wire.TypeKick {
					return
				}
			}
			p.frames = nil
		}
	}()
	phone := n.watch("alice", "phone", store) // takes the place of the polls
	var last wire.Frame
	for f := range waiting {
		last = f
	}
	if k, ok := last.(*wire.Kick); !ok || k.Code != wire.CloseReplaced || k.By != "phone" {
		t.Errorf("the poll that waited ended with %+v, want replaced", last)
	}
	second := n.publish("alice", "over WebSocket")
	phone.want(t, second)
	n.waitState(second, "phone", "acknowledged")
	phone.leave(t)
	third := n.publish("alice", "while away")
	p.session, p.cursor, p.frames = "", "", nil // from the stored cursor
	p.wantWelcome()
	p.wantMessage(third)
}

// A node that stops says goodbye to those who wait, and waits for nobody else.
func TestPoll_AStoppingNodeSaysGoodbye(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	p := n.poller("alice", "phone")
	p.caughtUp()
	p.poll("wait", "0")
	goodbye := make(chan []wire.Frame, 1)
	go func() {
		p.poll()
		goodbye <- p.frames
	}()
	_, user := n.rest("GET", "/v1/users/alice", nil)
	if b, err := json.Marshal(user); err != nil || !bytes.Contains(b, []byte(`"transport":"poll"`)) {
		t.Errorf("alice is online over: %s", b)
	}
	began := time.Now()
	n.stop()
	fs := <-goodbye
	if len(fs) != 2 || fs[0].Type() != wire.TypeCursor || fs[1].Type() != wire.TypeGoaway {
		t.Errorf("the poll that waited was answered with %+v, want cursor and goaway", fs)
	}
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("the node took %v to stop: somebody was waited for in vain", took)
	}
}

// The form that api/README.md and README.md show.
func TestPoll_PlainCurl(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	id := n.publish("alice", "for curl")
	ctx, cancel := context.WithTimeout(t.Context(), networkPatience)
	defer cancel()
	token := n.token("alice", "browser")
	p := n.poller("alice", "browser")
	query := ""
	for len(p.frames) < 2 { // the message comes with the welcome, or behind it
		out, err := exec.CommandContext(ctx, "curl", "-sS", "--fail-with-body", urlOf(n.PublicAddr())+"/connect/poll"+query,
			"-H", "Authorization: Bearer "+token).CombinedOutput()
		if err != nil {
			t.Fatalf("curl: %v: %s", err, out)
		}
		p.take(out)
		query = "?session=" + p.session + "&cursor=" + p.cursor
	}
	p.wantWelcome()
	p.wantMessage(id)
}

func TestPoll_IsCountedBesideTheOthers(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	p := n.poller("alice", "phone")
	p.caughtUp()
	metrics := n.adminText("/metrics")
	for _, want := range []string{
		`carillon_poll_writes_total [1-9]`, `carillon_poll_parked \d`, `carillon_poll_returned_total \d`, `carillon_poll_turned_away_total 0`,
		`carillon_room_connections\{transport="poll"\} 1`,
	} {
		if !regexp.MustCompile(`(?m)^` + want).MatchString(metrics) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	n.wantReady(transport.LongPoll)
}

func TestPoll_OverTLSWhateverTheEngine(t *testing.T) {
	n, _, _, dials := secured(t, func(c *Config) { c.Engine = ws.Engine(*engine) })
	n.setUp()
	p := n.poller("alice", "phone")
	p.caughtUp()
	before := dials.Load()
	for range 3 {
		p.wantMessage(n.publish("alice", "over TLS"))
	}
	if got := dials.Load() - before; got > 1 {
		t.Errorf("%d new connections in a few polls", got)
	}
}

// A ticket stands for its token: the session that it began goes on with the token, or with another ticket.
func TestPoll_TakesATicket(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	token := n.token("alice", "browser")
	ticket := func() string {
		status, a := n.ticket("POST", token)
		if status != http.StatusOK {
			t.Fatalf("a ticket: %d %v", status, a)
		}
		return a["ticket"].(string)
	}
	p := n.poller("alice", "browser")
	p.token = ""
	p.poll("ticket", ticket())
	p.wantWelcome()
	session := p.session
	p.frames = nil
	p.poll("ticket", ticket(), "wait", "0")
	p.token = token
	p.poll("wait", "0")
	if p.session != session {
		t.Error("the session became another")
	}
}
