package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/client"
	"carillon/server/room"
	"carillon/server/transport"
	"carillon/server/transport/ws"
	"carillon/server/wire"
)

// sseEvent is one event of a stream.
type sseEvent struct{ name, id, retry, data string }

// stream is a device that reads its events with nothing but net/http.
type stream struct {
	t      *testing.T
	resp   *http.Response
	events chan sseEvent // closed at the end of the stream
	pings  chan struct{} // comments; those that nobody waits for are dropped
	last   string        // the last id
	stop   context.CancelFunc
}

// sse opens a stream; token empty: without a credential.
func (n *testNode) sse(token, query string, headers ...string) *stream {
	n.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	n.t.Cleanup(stop)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.PublicURL()+"/connect/sse?"+query, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	s := &stream{t: n.t, events: make(chan sseEvent, 1000), pings: make(chan struct{}, 1), stop: stop}
	if s.resp, err = n.http.Do(req); err != nil {
		n.t.Fatal(err)
	}
	if s.resp.StatusCode == http.StatusOK {
		go s.read()
	}
	return s
}

func (s *stream) read() {
	defer close(s.events)
	defer s.resp.Body.Close()
	var e sseEvent
	lines := bufio.NewScanner(s.resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case ":":
			select {
			case s.pings <- struct{}{}:
			default:
			}
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "retry":
			e.retry = value
		case "data":
			e.data = value
		case "":
			if e.data != "" {
				s.events <- e
			}
			e = sseEvent{}
		}
	}
}

// next returns the next event; ok is false at the end of the stream.
func (s *stream) next() (e sseEvent, ok bool) {
	s.t.Helper()
	select {
	case e, ok = <-s.events:
		if e.id != "" {
			s.last = e.id
		}
		return e, ok
	case <-time.After(20 * time.Second):
		s.t.Fatal("no event came")
		return e, false
	}
}

// want reads the next event, which is of that name.
func (s *stream) want(name string) sseEvent {
	s.t.Helper()
	e, ok := s.next()
	if !ok || e.name != name {
		s.t.Fatalf("got %+v, want an event %q", e, name)
	}
	return e
}

// wantMessage reads the next event, which is that message.
func (s *stream) wantMessage(id string) {
	s.t.Helper()
	e := s.want("")
	f, err := wire.DecodeServer(wire.JSON, []byte(e.data))
	if err != nil {
		s.t.Fatalf("%v in %q", err, e.data)
	}
	if m, ok := f.(*wire.Message); !ok || m.ID.String() != id {
		s.t.Fatalf("got %s, want message %s", e.data, id)
	}
	if e.id == "" {
		s.t.Errorf("message %s has no id to resume from", id)
	}
}

// caughtUp reads a stream's beginning until all that waited has come.
func (s *stream) caughtUp() {
	s.t.Helper()
	s.want("welcome")
	for {
		if e, ok := s.next(); !ok {
			s.t.Fatal("the stream ended before it had caught up")
		} else if e.name == "cursor" && strings.Contains(e.data, "caught_up") {
			return
		}
	}
}

// leave closes the connection, and waits for the room to know.
func (s *stream) leave() {
	s.stop()
	for range s.events { // the reader ends
	}
}

func TestSSE_ContinuesFromTheLastID(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	token := n.token("alice", "phone")
	s := n.sse(token, "client=test%2F1")
	if got := s.resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %q", got)
	}
	s.caughtUp()
	first := n.publish("alice", "first\nwith two lines")
	s.wantMessage(first)
	before := s.last
	second := n.publish("alice", "second")
	s.wantMessage(second)
	after := s.last
	s.leave()
	third := n.publish("alice", "while away")

	for _, c := range []struct {
		name          string
		query, lastID string
		want          []string
	}{
		{"the header", "", after, []string{third}},
		{"the parameter", "cursor=" + after, "", []string{third}},
		{"the header wins, being newer", "cursor=" + before, after, []string{third}},
		{"an older id", "", before, []string{second, third}},
		{"no cursor: nothing was acknowledged", "", "", []string{first, second, third}},
		{"a cursor of nobody", "cursor=yesterday", "", []string{first, second, third}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var headers []string
			if c.lastID != "" {
				headers = []string{"Last-Event-ID", c.lastID}
			}
			s := n.sse(token, c.query, headers...)
			s.t = t
			s.want("welcome")
			for _, id := range c.want {
				s.wantMessage(id)
			}
			if e := s.want("cursor"); !strings.Contains(e.data, "caught_up") {
				t.Errorf("got %s, want all caught up", e.data)
			}
			s.leave()
		})
	}
}

// A session comes back over another transport in mid-stream: the same cursor, nothing lost, nothing twice.
func TestSSE_AndWebSocketContinueEachOther(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	s := n.sse(n.token("alice", "phone"), "")
	s.caughtUp()
	first := n.publish("alice", "over events")
	s.wantMessage(first)

	store := &client.Memory{}
	if err := store.Save(t.Context(), client.State{Cursor: s.last}); err != nil {
		t.Fatal(err)
	}
	second := n.publish("alice", "over either")
	s.wantMessage(second)
	phone := n.watch("alice", "phone", store) // takes the place of the stream
	phone.want(t, second)
	if e := s.want("cursor"); !strings.Contains(e.data, "goodbye") {
		t.Errorf("got %s, want the cursor of the goodbye", e.data)
	}
	if e := s.want("kick"); !strings.Contains(e.data, `"reason":"replaced"`) {
		t.Errorf("got %s, want replaced", e.data)
	}
	if e, ok := s.next(); ok {
		t.Errorf("after the kick: %+v", e)
	}
	third := n.publish("alice", "over WebSocket")
	phone.want(t, third)
	n.waitState(third, "phone", "acknowledged")
	phone.leave(t)
	fourth := n.publish("alice", "while away")

	s = n.sse(n.token("alice", "phone"), "") // from the stored cursor
	s.want("welcome")
	s.wantMessage(fourth)
	s.leave()
}

// A node that stops says goodbye to streams, with a delay that browsers keep, and ends them.
func TestSSE_AStoppingNodeSaysGoodbye(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	s := n.sse(n.token("alice", "phone"), "")
	s.caughtUp()
	stopped := make(chan struct{})
	go func() { defer close(stopped); n.stop() }()
	s.want("cursor")
	e := s.want("goaway")
	var f struct {
		Delay json.Number `json:"delay_ms"`
	}
	if err := json.Unmarshal([]byte(e.data), &f); err != nil || f.Delay.String() != e.retry {
		t.Errorf("retry is %q beside %s (%v)", e.retry, e.data, err)
	}
	if e, ok := s.next(); ok {
		t.Errorf("after the goodbye: %+v", e)
	}
	<-stopped
}

// The form that api/README.md and README.md show.
func TestSSE_PlainCurl(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	id := n.publish("alice", "for curl")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "curl", "-sSN", n.PublicURL()+"/connect/sse", "-H", "Authorization: Bearer "+n.token("alice", "browser"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatalf("this test needs curl: %v", err)
	}
	s := &stream{t: t, resp: &http.Response{Body: out}, events: make(chan sseEvent, 100), pings: make(chan struct{}, 1)}
	go s.read()
	s.want("welcome")
	s.wantMessage(id)
	n.stop() // and the stream ends as it should: curl has nothing to complain about
	for range s.events {
	}
	if err := cmd.Wait(); err != nil || complaints.Len() > 0 {
		t.Errorf("curl ended with %v: %s", err, complaints.Bytes())
	}
}

// The client cannot be heard, and is not taken for silent: the server keeps the line warm, longer than any other client may
// say nothing.
func TestSSE_IsKeptWarmByTheServer(t *testing.T) {
	n := startRoom(t, vfs.NewMem(), room.Config{Heartbeat: time.Second, Grace: 500 * time.Millisecond})
	n.setUp()
	s := n.sse(n.token("alice", "phone"), "")
	s.caughtUp()
	for range 3 {
		select {
		case <-s.pings:
		case <-time.After(networkPatience):
			t.Fatal("no ping came")
		}
	}
	s.wantMessage(n.publish("alice", "still there"))
	s.leave()
}

func TestSSE_IsCountedBesideTheOthers(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	s := n.sse(n.token("alice", "phone"), "")
	s.caughtUp()
	if !regexp.MustCompile(`(?m)^carillon_sse_writes_total [1-9]`).MatchString(n.adminText("/metrics")) {
		t.Error("/metrics counts no writes")
	}
	_, user := n.rest("GET", "/v1/users/alice", nil)
	if b, err := json.Marshal(user); err != nil || !bytes.Contains(b, []byte(`"transport":"sse"`)) {
		t.Errorf("alice is online over: %s", b)
	}
	s.leave()
	eventually(t, networkPatience, func() bool {
		return strings.Contains(n.adminText("/metrics"), `carillon_room_closes_total{reason="lost",transport="sse"} 1`)
	}, func() string { return "the end of the stream is not counted" })
	n.wantReady(transport.SSE)
}

func TestSSE_OverTLSWhateverTheEngine(t *testing.T) {
	n, _, _, _ := secured(t, func(c *Config) { c.Engine = ws.Engine(*engine) })
	n.setUp()
	s := n.sse(n.token("alice", "phone"), "")
	s.caughtUp()
	s.wantMessage(n.publish("alice", "over TLS"))
	s.leave()
}
