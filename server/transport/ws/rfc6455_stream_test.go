package ws

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"carillon/server/push"
	"carillon/server/wire"
)

// sent is what a client sends after its handshake, and what has to come of it however it is cut into pieces.
type sent struct {
	name    string // within its rule; may be empty where the rule has one stream
	bytes   []byte
	cursors string // of the acknowledgements that are received, joined by spaces
	code    string // of the refusal; empty: none, and the client says goodbye
	answer  string // to the stream's own close frame: the payload; empty: the stream has none, and one follows it
}

// pieces are ways to send a stream.
var pieces = []struct {
	name  string
	early int // bytes that travel with the handshake
	piece int // bytes of each later write
}{
	{"at once", 0, 1 << 20},
	{"in bytes", 0, 1},
	{"in threes", 1, 3},
	{"with the handshake", 1 << 20, 1},
}

// streamRule returns the rule that these streams show.
func streamRule(section, name string, streams ...sent) rule {
	return rule{section, name, func(t *testing.T, cfg Config) {
		addr, r := start(t, cfg)
		for _, s := range streams {
			for _, how := range pieces {
				// So that a long stream does not take one system call a byte.
				if how.piece < 4 && len(s.bytes) > 2000 {
					how.piece *= 997
				}
				t.Run(s.name+"/"+how.name, func(t *testing.T) { s.play(t, cfg, addr, r, how.early, how.piece) })
			}
		}
	}}
}

func (s sent) play(t *testing.T, cfg Config, addr string, r *room, early, piece int) {
	all, answer := s.bytes, s.answer
	if s.code == "" && answer == "" {
		all, answer = join(all, closeFrame(1000, "bye")), "\x03\xe8"
	}
	first := all[:min(early, len(all))]
	c := dialRaw(t, addr, nil, first...)
	sess := r.session(t)
	for rest := all[len(first):]; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
		if err := c.write(rest[:min(piece, len(rest))]); err != nil {
			break // the server has seen enough, and the session tells what
		}
	}
	_, payload := c.until(t, fin|opClose)
	want := wire.CloseNormal
	if s.code != "" {
		want, answer = wire.CloseProtocol, string(closePayload(wire.CloseProtocol))
	}
	if payload == "" && answer == noPayload {
		answer = ""
	}
	if payload != answer {
		t.Errorf("the server's close frame: got %q, want %q", payload, answer)
	}
	if rest := c.rest(t, nil); len(rest) > 0 {
		t.Errorf("behind the server's close frame comes % x", rest)
	}
	c.Kill()
	if got := get(t, sess.closed, "Closed"); got != want {
		t.Errorf("Closed: got %v, want %v", got, want)
	}
	check(t, sess, s, model(all, limitsOf(cfg)))
}

// noPayload stands for the answer to a close frame without a payload, which has none either.
const noPayload = "no payload"

// check compares what a closed session was told with what the table says, and both with the model of the protocol.
func check(t *testing.T, sess *session, s sent, m outcome) {
	t.Helper()
	var frames []wire.Frame
	for len(sess.frames) > 0 {
		frames = append(frames, <-sess.frames)
	}
	if got := cursorsOf(frames); got != s.cursors {
		t.Errorf("acknowledgements: got %q, want %q", got, s.cursors)
	}
	if !reflect.DeepEqual(frames, m.frames) {
		t.Errorf("frames: got %d, want the %d of the model", len(frames), len(m.frames))
	}
	var codes []string
	for len(sess.refusals) > 0 {
		codes = append(codes, (<-sess.refusals).(*push.Error).Code)
	}
	if got := strings.Join(codes, " "); got != s.code {
		t.Errorf("refusals: got %q, want %q", got, s.code)
	}
	if got := strings.Join(m.refusals, " "); got != s.code {
		t.Errorf("refusals of the model: got %q, want %q", got, s.code)
	}
	if got := int(sess.alive.Load()); got != m.alive {
		t.Errorf("signs of life: got %d, want %d", got, m.alive)
	}
}

func cursorsOf(frames []wire.Frame) string {
	var cursors []string
	for _, f := range frames {
		if a, ok := f.(*wire.Ack); ok {
			cursors = append(cursors, a.Cursor)
		}
	}
	return strings.Join(cursors, " ")
}

func join(frames ...[]byte) []byte {
	var all []byte
	for _, f := range frames {
		all = append(all, f...)
	}
	return all
}

func ack(cursor string) string { return `{"type":"ack","cursor":"` + cursor + `"}` }

// padded returns a ping of n bytes.
func padded(n int) string {
	const head, tail = `{"type":"ping","x":"`, `"}`
	return head + strings.Repeat("x", n-len(head)-len(tail)) + tail
}

// quoted returns a ping in which s stands inside a string.
func quoted(s string) string { return `{"type":"ping","x":"` + s + `"}` }

func unmasked(first opcode, payload string) []byte {
	return append([]byte{byte(first), byte(len(payload))}, payload...)
}

// header returns a masked frame up to its payload; length is the second byte without the mask bit, and what extends it.
func header(first opcode, length ...byte) []byte {
	h := append([]byte{byte(first)}, length...)
	h[1] |= masked
	return append(h, 0, 0, 0, 0)
}

// named gives each stream the name that its value prints as.
func named[T any](values []T, f func(v T) sent) []sent {
	var all []sent
	for _, v := range values {
		s := f(v)
		s.name = fmt.Sprint(v)
		all = append(all, s)
	}
	return all
}
