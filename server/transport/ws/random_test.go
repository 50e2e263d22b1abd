package ws

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"carillon/server/push"
	"carillon/server/wire"
)

// conversation is a stream that a seed made, and what it was made of.
type conversation struct {
	bytes  []byte // without the goodbye
	frames []wire.Frame
	alive  int
	pings  []string
	code   uint16 // of the goodbye; 0: it has none
}

// converse makes a valid stream: messages of random fragments, with control frames anywhere between, each frame masked with
// a key of its own.
func converse(rnd *rand.Rand) conversation {
	var c conversation
	controls := func(inside bool) {
		for rnd.IntN(4) == 0 {
			payload := make([]byte, rnd.IntN(1+[]int{3, 125}[rnd.IntN(2)]))
			for i := range payload {
				payload[i] = byte(rnd.Uint32())
			}
			op := opPong
			if rnd.IntN(2) == 0 {
				op = opPing
				c.pings = append(c.pings, string(payload))
			}
			c.bytes = append(c.bytes, maskedAnew(rnd, fin|op, string(payload))...)
			if !inside {
				c.alive++
			}
		}
	}
	for range rnd.IntN(8) {
		controls(false)
		var message string
		switch rnd.IntN(4) {
		case 0:
			message = padded(30 + rnd.IntN(3000))
			c.frames = append(c.frames, &wire.Ping{})
		default:
			cursor := letters(rnd)
			message = ack(cursor)
			c.frames = append(c.frames, &wire.Ack{Cursor: cursor})
		}
		op := opText
		for rest := message; ; op = opContinue {
			n := rnd.IntN(len(rest) + 1)
			if rnd.IntN(3) == 0 {
				n = len(rest)
			}
			if n == len(rest) && rnd.IntN(4) > 0 {
				c.bytes = append(c.bytes, maskedAnew(rnd, fin|op, rest)...)
				break
			}
			c.bytes = append(c.bytes, maskedAnew(rnd, op, rest[:n])...)
			rest = rest[n:]
			controls(true)
		}
	}
	controls(false)
	if rnd.IntN(4) > 0 {
		c.code = []uint16{1000, 1001, 1011, 3000, 4999}[rnd.IntN(5)]
	}
	return c
}

// letters returns a cursor with characters of every length in UTF-8.
func letters(rnd *rand.Rand) string {
	var b strings.Builder
	for range 1 + rnd.IntN(20) {
		b.WriteString([]string{"a", "z", "7", "ä", "ж", "€", "再", "🔔", "\U0010ffff"}[rnd.IntN(9)])
	}
	return b.String()
}

func maskedAnew(rnd *rand.Rand, first opcode, payload string) []byte {
	b := frame(first, payload)
	key := b[len(b)-len(payload)-4:][:4]
	binary.NativeEndian.PutUint32(key, rnd.Uint32())
	for i := range len(payload) {
		b[len(b)-len(payload)+i] = payload[i] ^ key[i%4]
	}
	return b
}

// A seed makes a valid stream, the pieces it is sent in, and messages that the server sends meanwhile.
func TestRandomStreams_AreReceivedAsTheyWereMade(t *testing.T) {
	const seeds = 600
	engines(t, func(t *testing.T, cfg Config) {
		addr, r := start(t, cfg)
		for seed := range uint64(seeds) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 6455))
				converse(rnd).play(t, addr, r, rnd)
			})
		}
	})
}

func (v conversation) play(t *testing.T, addr string, r *room, rnd *rand.Rand) {
	early := 0
	if rnd.IntN(2) == 0 {
		early = rnd.IntN(len(v.bytes) + 1)
	}
	c := dialRaw(t, addr, nil, v.bytes[:early]...)
	s := r.session(t)
	var sent []wire.Out
	most := []int{1, 3, 20, 5000}[rnd.IntN(4)]
	if len(v.bytes) > 1000 {
		most = max(most, 20)
	}
	for rest := v.bytes[early:]; len(rest) > 0; {
		n := 1 + rnd.IntN(min(most, len(rest)))
		if err := c.write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
		if rnd.IntN(5) == 0 && len(sent) < 20 {
			sent = append(sent, text(len(sent)))
			s.put(sent[len(sent)-1])
		}
	}

	// All that the server sends before it hears the goodbye.
	var pongs []string
	received := 0
	for received < len(sent) || len(v.pings) > 0 && (len(pongs) == 0 || pongs[len(pongs)-1] != v.pings[len(v.pings)-1]) {
		first, payload := c.next(t)
		switch first {
		case fin | opPong:
			pongs = append(pongs, payload)
		case fin | opText:
			if want := string(wire.AppendOut(nil, wire.JSON, &sent[received])); payload != want {
				t.Errorf("message %d: got %s, want %s", received, payload, want)
			}
			received++
		default:
			t.Fatalf("the server sent a frame that begins with %#x, of %q", first, payload)
		}
	}
	if !isSubsequence(pongs, v.pings) {
		t.Errorf("pongs: got %q, want some of %q in their order", pongs, v.pings)
	}

	bye, answer := frame(fin|opClose, ""), ""
	if v.code != 0 {
		bye, answer = closeFrame(v.code, "done"), string(binary.BigEndian.AppendUint16(nil, v.code))
	}
	if err := c.write(bye); err != nil {
		t.Fatal(err)
	}
	before, got := c.until(t, fin|opClose)
	// A ping whose payload is the latest's may have been taken for it.
	if got != answer || before > len(v.pings)-len(pongs) {
		t.Errorf("after the goodbye: got %q after %d frames, want %q", got, before, answer)
	}
	if got := get(t, s.closed, "Closed"); got != wire.CloseNormal {
		t.Errorf("Closed: got %v, want %v", got, wire.CloseNormal)
	}
	var frames []wire.Frame
	for len(s.frames) > 0 {
		frames = append(frames, <-s.frames)
	}
	if !reflect.DeepEqual(frames, v.frames) {
		t.Errorf("frames: got %d, want the %d that were sent", len(frames), len(v.frames))
	}
	if got := int(s.alive.Load()); got != v.alive {
		t.Errorf("signs of life: got %d, want %d", got, v.alive)
	}
	if len(s.refusals) > 0 {
		t.Errorf("refused: %s", (<-s.refusals).(*push.Error).Code)
	}
}

// isSubsequence reports whether some is all with nothing moved and perhaps something left out.
func isSubsequence(some, all []string) bool {
	for _, s := range all {
		if len(some) > 0 && some[0] == s {
			some = some[1:]
		}
	}
	return len(some) == 0
}
