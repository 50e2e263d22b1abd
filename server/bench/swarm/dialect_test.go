package swarm

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"carillon/server/wire"
)

// cutAll cuts a stream that comes in two parts, and says what it was.
func cutAll(d dialect, stream []byte, split int) (got []string, err error) {
	opening := d.manner().upgrades
	var kept []byte
	for _, part := range [][]byte{stream[:split], stream[split:]} {
		b := append(kept, part...)
		for len(b) > 0 {
			k, payload, n, err := d.cut(b, opening)
			if err != nil {
				return got, err
			}
			if k == partial {
				break
			}
			if k == upgraded {
				opening = false
			}
			got = append(got, fmt.Sprintf("%d %s", k, payload))
			b = b[n:]
		}
		kept = bytes.Clone(b)
	}
	if len(kept) > 0 {
		return got, fmt.Errorf("%d bytes are left", len(kept))
	}
	return got, nil
}

const (
	jsonPong    = `{"type":"pong"}`
	jsonMessage = `{"type":"message","slot":0,"pos":5,"id":"7","time":1,"body":"a: b"}`
)

func bodyOf(frames string) string {
	return `{"session":"77","cursor":"1.7.1.2.3.4.5.6","frames":[` + frames + "]}\n"
}

// answerOf is an answer to a poll.
func answerOf(frames string) string {
	body := bodyOf(frames)
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// streams are what servers say to a client, by transport, and what has to be made of it.
func streams() map[string]struct {
	stream []byte
	want   []string
} {
	long := strings.Repeat("x", 70_000)
	was := func(k kind, payload string) string { return fmt.Sprintf("%d %s", k, payload) }
	pong := wire.Append(nil, wire.Binary, &wire.Pong{})
	return map[string]struct {
		stream []byte
		want   []string
	}{
		"ws": {
			slices.Concat([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"), served(opText, []byte(jsonPong)),
				served(opPing, nil), served(opText, []byte(jsonMessage))),
			[]string{was(upgraded, ""), was(frame, jsonPong), was(ignored, ""), was(frame, jsonMessage)},
		},
		"sse": {
			[]byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: welcome\nid: 1.2\nretry: 5\ndata: {}\n\n:\n\n" +
				"id: 1.3\ndata: " + jsonMessage + "\n\nevent: pong\ndata: " + jsonPong + "\n\n:\n\n"),
			[]string{was(upgraded, ""), was(frame, "{}"), was(warmed, ""), was(frame, jsonMessage), was(frame, jsonPong), was(warmed, "")},
		},
		"poll": {
			[]byte(answerOf(jsonMessage) + answerOf("") + answerOf(long)),
			[]string{was(answer, bodyOf(jsonMessage)), was(answer, bodyOf("")), was(answer, bodyOf(long))},
		},
		"tcp": {
			slices.Concat(raw{}.say(nil, pong), raw{}.say(nil, []byte(long)), raw{}.say(nil, pong)),
			[]string{was(frame, string(pong)), was(frame, long), was(frame, string(pong))},
		},
	}
}

func TestDialects_EverySplitOfAStreamIsTheSame(t *testing.T) {
	all := streams()
	for _, name := range Transports {
		d, err := dialectOf(name)
		if err != nil {
			t.Fatal(err)
		}
		s, ok := all[name]
		if !ok {
			t.Errorf("no stream for %s", name)
		}
		for split := 0; split <= len(s.stream); split += 1 + split/500 {
			if got, err := cutAll(d, s.stream, split); err != nil || !slices.Equal(got, s.want) {
				t.Fatalf("%s, split at %d: got %.300q (%v), want %.300q", name, split, got, err, s.want)
			}
		}
	}
}

func TestDialects_RefuseWhatNoServerOfOursSends(t *testing.T) {
	problem := `{"type":"about:blank","title":"Unauthorized","status":401,"code":"token_refused","detail":"no"}`
	for _, c := range []struct{ transport, name, stream, want string }{
		{"ws", "no upgrade", "HTTP/1.1 404 Not Found\r\n\r\n", "404"},
		{"ws", "a header without an end", "HTTP/1.1 101 " + strings.Repeat("x", maxHeader), "no end"},
		{"sse", "a problem", "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/problem+json\r\n\r\n" + problem, `401 Unauthorized", "token_refused"`},
		{"sse", "a problem whose body is on its way", "HTTP/1.1 503 Service Unavailable\r\n\r\n", "503"},
		{"sse", "an event without data", "HTTP/1.1 200 OK\r\n\r\nevent: pong\n\n", "without data"},
		{"sse", "an event without an end", "HTTP/1.1 200 OK\r\n\r\ndata: " + strings.Repeat("x", maxFrame), "more than"},
		{"poll", "a problem", "HTTP/1.1 403 Forbidden\r\nContent-Length: 99\r\n\r\n" + problem, `403 Forbidden", "token_refused"`},
		{"poll", "no length", "HTTP/1.1 200 OK\r\n\r\n", "of length"},
		{"poll", "a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "of length"},
		{"tcp", "an empty frame", "\x00\x00\x00\x00", "0 bytes"},
		{"tcp", "a length that is none", "\xff\xff\xff\xff", "4294967295 bytes"},
	} {
		d, err := dialectOf(c.transport)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := cutAll(d, []byte(c.stream), 0); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %s: got %q, %v, want %q", c.transport, c.name, got, err, c.want)
		}
	}
}

func TestReadAnswer_EveryFrameOnce(t *testing.T) {
	frames := []string{
		jsonMessage, `{"type":"message","id":"8","body":{"a":"}\\\"{","b":{}}}`, `{"type":"message","id":"9","body":"\\\\"}`, jsonPong,
	}
	for n := range len(frames) + 1 {
		a, err := readAnswer([]byte(bodyOf(strings.Join(frames[:n], ","))))
		if err != nil || a.session != 77 || a.cursor != "1.7.1.2.3.4.5.6" {
			t.Fatalf("got %+v (%v)", a, err)
		}
		var got []string
		for rest := a.frames; len(rest) > 0; {
			var f []byte
			if f, rest, err = nextFrame(rest); err != nil {
				t.Fatal(err)
			}
			got = append(got, string(f))
		}
		if !slices.Equal(got, frames[:n]) {
			t.Errorf("got %q, want %q", got, frames[:n])
		}
	}
	for _, b := range []string{``, `{}`, `{"session":"x","cursor":"1","frames":[]}`, `{"session":"1","frames":[]}`, `{"session":"1","cursor":"1","frames":[`} {
		if a, err := readAnswer([]byte(b)); err == nil {
			t.Errorf("%q is an answer: %+v", b, a)
		}
	}
	for _, b := range []string{`}`, `{"a":1`, `{"a":"}`, `{}{}`, `x`} {
		if f, _, err := nextFrame([]byte(b)); err == nil {
			t.Errorf("%q begins with the frame %q", b, f)
		}
	}
}
