package sse

import (
	"strings"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/transport/web"
	"carillon/server/wire"
)

const (
	begin = "1.366b3e2ade2f1357.4a1b.9c3d.6955b90000000.77.9c3d.6955b90100000"
	first = "1.366b3e2ade2f1357.4a1b.9c3d.6955b90000001.77.9c3d.6955b90100000"
	taken = "1.366b3e2ade2f1357.4a1b.9c3d.6955b90000002.77.9c3d.6955b90100000"
	reset = "1.366b3e2ade2f1357.4a1b.7.6955b90000000.77.7.6955b90100000"
)

func message(pos push.Position, body string) wire.Out {
	m := &push.Message{ID: 7, Body: []byte(body), Created: 1, Expires: 2, Persistent: true}
	return wire.Out{Shared: wire.NewShared(m), Slot: push.Own, Pos: pos}
}

// The bytes of a session, frame by frame: api/README.md promises them to people who write a client by hand.
func TestAppendEvent_BytesOfASession(t *testing.T) {
	const own = push.Position(0x6955b90000000)
	live := &push.Message{ID: 9, Body: []byte("1"), Created: 1}
	steps := []struct {
		name string
		out  wire.Out
		want string
	}{
		{"pong before a cursor is known", wire.Out{Frame: &wire.Pong{}}, "event: pong\ndata: {\"type\":\"pong\"}\n\n"},
		{"a message before a cursor is known", message(own, "1"),
			`data: {"type":"message","slot":0,"pos":1853070350745600,"id":"7","time":1,"expires":2,"body":1}` + "\n\n"},
		{"welcome", wire.Out{Frame: welcome},
			// 0x366b3e2ade2f1357 modulo 4000 is 375.
			"event: welcome\nid: " + begin + "\nretry: 2375\ndata: " + string(wire.Append(nil, wire.JSON, welcome)) + "\n\n"},
		{"a message", message(own+1, `{"text":"tea\nis ready"}`), "id: " + first + "\n" +
			`data: {"type":"message","slot":0,"pos":1853070350745601,"id":"7","time":1,"expires":2,"body":{"text":"tea\nis ready"}}` + "\n\n"},
		{"a message that comes again", message(own+1, "1"),
			`data: {"type":"message","slot":0,"pos":1853070350745601,"id":"7","time":1,"expires":2,"body":1}` + "\n\n"},
		{"one that is not persistent", wire.Out{Shared: wire.NewShared(live), Slot: push.NoSlot},
			`data: {"type":"message","id":"9","time":1,"body":1}` + "\n\n"},
		{"ping", wire.Out{Frame: &wire.Ping{}}, ":\n\n"},
		{"recall", wire.Out{Frame: &wire.Recall{Slot: push.Own, Pos: own + 2, ID: 7}}, "event: recall\nid: " + taken + "\n" +
			`data: {"type":"recall","slot":0,"pos":1853070350745602,"id":"7"}` + "\n\n"},
		{"gap after a reset", wire.Out{Frame: &wire.Gap{Slot: push.Own, To: own + 9, Reason: wire.GapReset}},
			"event: gap\n" + `data: {"type":"gap","slot":0,"from":0,"to":1853070350745609,"reason":"reset"}` + "\n\n"},
		{"cursor", wire.Out{Frame: &wire.Cursor{Cursor: reset, Reason: wire.CursorLineage}}, "event: cursor\nid: " + reset + "\n" +
			`data: {"type":"cursor","cursor":"` + reset + `","reason":"lineage"}` + "\n\n"},
		{"kick", wire.Out{Frame: &wire.Kick{Code: wire.CloseReplaced, Reason: "replaced", By: "laptop"}}, "event: kick\n" +
			`data: {"type":"kick","code":4200,"reason":"replaced","by":"laptop"}` + "\n\n"},
		{"goaway", wire.Out{Frame: &wire.Goaway{Code: wire.CloseGoingAway, Reason: "going_away", DelayMillis: 1234}},
			"event: goaway\nretry: 1234\n" + `data: {"type":"goaway","code":4000,"reason":"going_away","delay_ms":1234}` + "\n\n"},
		{"goaway without a delay", wire.Out{Frame: &wire.Goaway{Code: wire.CloseGoingAway}}, "event: goaway\n" +
			`data: {"type":"goaway","code":4000}` + "\n\n"},
	}
	var at web.Follower
	for _, s := range steps {
		if got := string(appendEvent(nil, &at, &s.out)); got != s.want {
			t.Errorf("%s:\n got %q\nwant %q", s.name, got, s.want)
		}
	}
}

// A body with ends of lines would otherwise write fields of the event: a sender could move a device's cursor.
func TestAppendEvent_ABodyWritesNoFields(t *testing.T) {
	var at web.Follower
	at.Pass(&wire.Out{Frame: welcome})
	for _, end := range []string{"\n", "\r", "\r\n", "\n\n"} {
		o := message(0x6955b90000001, "["+end+"1,"+end+"id: "+reset+end+end+"]")
		got := string(appendEvent(nil, &at, &o))
		if n := strings.Count(strings.TrimSuffix(got, "\n\n"), "\n"); n > 1 || strings.Contains(got, "\r") {
			t.Errorf("after %q: %d ends of lines in %q", end, n, got)
		}
	}
}

func TestAppendEvent_AllocatesNothingForAMessage(t *testing.T) {
	var at web.Follower
	at.Pass(&wire.Out{Frame: welcome})
	pos := push.Position(0x6955b90000001)
	o := message(pos, `{"text":"tea is ready"}`)
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() {
		buf = appendEvent(buf[:0], &at, &o)
		o.Pos++
	}); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

func TestAppendHead_IsAStreamThatEndsWithTheConnection(t *testing.T) {
	now := time.Date(2026, 11, 26, 23, 1, 2, 0, time.UTC)
	got := string(appendHead([]byte("before"), now, []byte("Vary: Origin\r\n")))
	want := "beforeHTTP/1.1 200 OK\r\n" +
		"Date: Thu, 26 Nov 2026 23:01:02 GMT\r\n" +
		"Content-Type: text/event-stream\r\n" +
		"Cache-Control: no-store, no-transform\r\n" +
		"X-Accel-Buffering: no\r\n" +
		"Connection: close\r\n" +
		"Vary: Origin\r\n\r\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
