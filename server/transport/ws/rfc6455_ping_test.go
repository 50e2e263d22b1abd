package ws

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"carillon/server/wire"
)

// Sections 5.5.2 and 5.5.3: pings and pongs.
func pingRules() []rule {
	return []rule{
		{"5.5.2", "a ping is answered, in order", playPing},
		{"5.5.2", "no pong after a close frame", playPingBehindClose},
		{"5.5.3", "a pong carries the payload of its ping", playPongPayload},
		{"5.5.3", "of several pings the latest is answered", playPingFold},
		{"5.5.3", "a hundred thousand pings are held as one", playPingFlood},
		{"5.5.3", "pongs that nobody asked for are life and nothing else", playUnaskedPongs},
	}
}

func playPing(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	s.put(text(0))
	if before, _ := c.until(t, fin|opText); before != 0 {
		t.Fatalf("frames before the message: got %d, want 0", before)
	}
	if err := c.write(frame(fin|opPing, "are you there?")); err != nil {
		t.Fatal(err)
	}
	if before, got := c.until(t, fin|opPong); before != 0 || got != "are you there?" {
		t.Errorf("pong: got %q after %d frames", got, before)
	}
	get(t, s.alives, "Alive")
	s.put(text(1))
	if before, _ := c.until(t, fin|opText); before != 0 {
		t.Errorf("frames before the next message: got %d, want 0", before)
	}
}

func playPongPayload(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	every := make([]byte, 125)
	for i := range every {
		every[i] = byte(2 * i)
	}
	for _, payload := range []string{"", "\x00", "?", "\xff\xfe", strings.Repeat("p", 124), string(every)} {
		if err := c.write(frame(fin|opPing, payload)); err != nil {
			t.Fatal(err)
		}
		if before, got := c.until(t, fin|opPong); before != 0 || got != payload {
			t.Errorf("pong: got %q after %d frames, want %q", got, before, payload)
		}
		get(t, s.alives, "Alive")
	}
}

func playPingBehindClose(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	s.conn.Close(wire.CloseReplaced)
	c.until(t, fin|opClose)
	rest := c.rest(t, join(frame(fin|opPing, "still there?"), frame(fin|opPing, ""), closeFrame(4200, "")))
	if len(rest) > 0 {
		t.Errorf("behind the close frame comes % x", rest)
	}
	if got := get(t, s.closed, "Closed"); got != wire.CloseReplaced {
		t.Errorf("Closed: got %v, want %v", got, wire.CloseReplaced)
	}
	if got := s.alive.Load(); got != 2 {
		t.Errorf("signs of life: got %d, want 2", got)
	}
}

func playPingFold(t *testing.T, cfg Config) {
	const n = 1000
	addr, r := start(t, cfg)
	for _, outs := range [][]wire.Out{{}, {text(0)}} {
		c := dialRaw(t, addr, nil)
		s := r.session(t)
		release := hold(t, s, outs...)
		for i := range n {
			if err := c.write(frame(fin|opPing, fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		// The frame behind the pings comes after the last of them was noted.
		if err := c.Send(&wire.Ping{}); err != nil {
			t.Fatal(err)
		}
		get(t, s.frames, "the frame behind the pings")
		if got := s.alive.Load(); got != n {
			t.Errorf("signs of life: got %d, want %d", got, n)
		}
		release()
		before, got := c.until(t, fin|opPong)
		if want := fmt.Sprint(n - 1); before != len(outs) || got != want {
			t.Errorf("pong: got %q after %d frames, want %q after %d", got, before, want, len(outs))
		}
	}
}

// playPingFlood floods a connection whose writer is held up with more than twelve megabytes of pings.
func playPingFlood(t *testing.T, cfg Config) {
	const n = 100_000
	addr, r := start(t, cfg)
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	release := hold(t, s)
	before := heap()
	payload := strings.Repeat("p", 120)
	var some []byte
	for i := range n {
		some = append(some, frame(fin|opPing, fmt.Sprintf("%s%5d", payload, i))...)
		if len(some) > 60_000 || i == n-1 {
			if err := c.write(some); err != nil {
				t.Fatal(err)
			}
			some = some[:0]
		}
	}
	if err := c.Send(&wire.Ping{}); err != nil {
		t.Fatal(err)
	}
	get(t, s.frames, "the frame behind the pings")
	if grown := heap() - before; grown > 2<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	if got := s.alive.Load(); got != n {
		t.Errorf("signs of life: got %d, want %d", got, n)
	}
	release()
	if first, got := c.until(t, fin|opPong); first != 0 || got != fmt.Sprintf("%s%5d", payload, n-1) {
		t.Errorf("pong: got %q after %d frames, want the latest and none before it", got, first)
	}
}

// heap returns the bytes of what is live on the heap.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func playUnaskedPongs(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	for _, payload := range []string{"", "unasked", strings.Repeat("p", 125)} {
		if err := c.write(frame(fin|opPong, payload)); err != nil {
			t.Fatal(err)
		}
		get(t, s.alives, "Alive")
	}
	if err := c.write(frame(fin|opPing, "?")); err != nil {
		t.Fatal(err)
	}
	if before, _ := c.until(t, fin|opPong); before != 0 {
		t.Errorf("frames in answer to pongs: got %d, want none", before)
	}
	if len(s.frames)+len(s.refusals) > 0 {
		t.Error("the session was told of frames or refusals")
	}
}
