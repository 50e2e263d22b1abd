package client

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"carillon/server/push"
	"carillon/server/wire"
)

// stream dials a gateway whose stream is that text.
func stream(t *testing.T, most int, text string) Conn {
	t.Helper()
	f := newFakeHTTP(t, func(w http.ResponseWriter, _ *http.Request, _ asked) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		io.WriteString(w, text)
	})
	hc := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(hc.CloseIdleConnections)
	return f.dial(&SSE{Client: hc, FrameBytes: most})
}

func TestSSE_ReadsEventsAsTheStandardHasThem(t *testing.T) {
	c := stream(t, 0, "retry: 1000\n\n"+
		"event: pong\ndata: {\"type\":\"pong\"}\n\n"+
		"id: 1.2.3\r\ndata:{\"type\":\"message\",\"slot\":0,\"pos\":5,\r\ndata: \"id\":\"7\",\"time\":1,\"expires\":2,\r\ndata:\"body\":\"a b\"}\r\n\r\n"+
		"event: from_the_future\ndata: {\"type\":\"from_the_future\"}\n\n"+
		":\n\n"+
		"unknown: x\nname without colon\ndata: {\"type\":\"kick\",\"code\":4200,\"reason\":\"replaced\"}\n\n")
	if f, err := c.Read(); err != nil || f.Type() != wire.TypePong {
		t.Fatalf("got %v, %v, want a pong", f, err)
	}
	f, err := c.Read()
	if m, ok := f.(*wire.Message); !ok || m.ID != 7 || m.Pos != 5 || m.Slot != push.Own || string(m.Body) != `"a b"` {
		t.Fatalf("got %+v, %v, want the message", f, err)
	}
	if f, err := c.Read(); err != nil || f.Type() != wire.TypePong {
		t.Errorf("got %v, %v, want a comment as a pong", f, err)
	}
	if f, err := c.Read(); err != nil || f.Type() != wire.TypeKick {
		t.Errorf("got %v, %v, want a kick", f, err)
	}
	if f, err := c.Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, %v, want the end of a stream that should have none", f, err)
	}
}

func TestSSE_BadStreamsAreErrors(t *testing.T) {
	long := strings.Repeat("a", 5000)
	for name, text := range map[string]string{
		"no frame":        "data: {\n\n",
		"a long line":     "data: \"" + long + "\"\n\n",
		"a long comment":  ": " + long + "\n\n",
		"many lines":      strings.Repeat("data: "+long[:900]+"\n", 6) + "\n",
		"a line cut off":  "data: {\"type\":\"po",
		"an event cut":    "data: {\"type\":\"pong\"}\n",
		"frame of ours":   "data: {\"type\":\"ack\",\"cursor\":\"1\"}\n\n",
		"nothing at all":  "",
		"an empty event":  "data:\n\n",
		"a second of two": "data: {\"type\":\"pong\"}\ndata: {\"type\":\"pong\"}\n\n",
	} {
		if f, err := stream(t, 4096, text).Read(); err == nil {
			t.Errorf("%s: got a frame, %+v", name, f)
		}
	}
}

func TestSSE_LinesLongerThanABufferAreWhole(t *testing.T) {
	body := strings.Repeat("b", 100_000)
	c := stream(t, 0, "data: {\"type\":\"message\",\"id\":\"7\",\"time\":1,\"body\":\""+body+"\"}\n\ndata: {\"type\":\"pong\"}\n\n")
	f, err := c.Read()
	if m, ok := f.(*wire.Message); !ok || string(m.Body) != `"`+body+`"` {
		t.Fatalf("got %v, want the message", err)
	}
	if f, err := c.Read(); err != nil || f.Type() != wire.TypePong {
		t.Errorf("got %v, %v, want what follows it", f, err)
	}
}

func TestSSE_AnswerThatIsNoStreamIsAnError(t *testing.T) {
	f := newFakeHTTP(t, func(w http.ResponseWriter, _ *http.Request, _ asked) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<html>please sign in to this network</html>")
	})
	hc := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(hc.CloseIdleConnections)
	if _, err := f.dial(&SSE{Client: hc}).Read(); err == nil || !strings.Contains(err.Error(), "no event stream") {
		t.Errorf("got %v", err)
	}
}
