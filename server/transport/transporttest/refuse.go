package transporttest

import (
	"bytes"
	"testing"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// Scenes about clients that send what is no frame.
var refuseScenes = []scene{
	{name: "malformed frames are refused", duplex: true, play: playMalformed},
	{name: "frames of an unknown type are refused and the session goes on", duplex: true, play: playUnknown},
	{name: "limits of size", duplex: true, play: playLimits},
	{name: "an unfinished frame is not received", duplex: true, play: playUnfinished},
}

// ping returns the encoding of a ping of n bytes; what stands in it besides is passed over.
func ping(enc wire.Encoding, n int) []byte {
	b := wire.Append(nil, enc, &wire.Ping{})
	if enc == wire.Binary {
		return append(b, make([]byte, n-len(b))...)
	}
	b = append(bytes.TrimSuffix(b, []byte("}")), `,"x":"`...)
	b = append(b, bytes.Repeat([]byte{'x'}, n-len(b)-2)...)
	return append(b, `"}`...)
}

// malformed returns encodings that are no frame of a client, by name.
func malformed(enc wire.Encoding) map[string][]byte {
	if enc == wire.Binary {
		return map[string][]byte{
			"empty":            {},
			"cut off":          {byte(wire.TypeAck), 200, 200},
			"of the server":    wire.Append(nil, enc, &wire.Kick{Code: wire.CloseSlow}),
			"length too large": {byte(wire.TypeAck), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		}
	}
	return map[string][]byte{
		"empty":         {},
		"no JSON":       []byte("ping"),
		"cut off":       []byte(`{"type":"ping"`),
		"no object":     []byte(`[]`),
		"two objects":   []byte(`{"type":"ping"}{"type":"ping"}`),
		"of the server": wire.Append(nil, enc, &wire.Kick{Code: wire.CloseSlow}),
		"not UTF-8":     []byte("{\"type\":\"ping\",\"x\":\"\xc3\x28\"}"),
	}
}

func playMalformed(t *testing.T, s *stage) {
	for name, b := range malformed(s.Capabilities.Encoding) {
		t.Run(name, func(t *testing.T) {
			c, sess := s.dial(t)
			if err := c.Send(&wire.Ping{}); err != nil {
				t.Fatal(err)
			}
			sess.waitReceived(t, 1)
			if err := c.SendRaw(b); err != nil {
				t.Fatal(err)
			}
			// The server may have closed by now; if not, it does not look at what follows.
			for range 10 {
				_ = c.Send(&wire.Ack{Cursor: "late"})
			}
			fs := recvEnd(t, c)
			if len(fs) != 1 || fs[0].Type() != wire.TypeError {
				t.Errorf("client: got %d frames, want one error", len(fs))
			}
			s.checkCode(t, c, wire.CloseProtocol)
			sess.waitClosed(t, wire.CloseProtocol)
			sess.mu.Lock()
			defer sess.mu.Unlock()
			if got := len(sess.received); got != 1 {
				t.Errorf("frames: got %d, want 1: nothing is read after a refusal", got)
			}
			if got := len(sess.refused); got != 1 {
				t.Errorf("refusals: got %d, want 1", got)
			}
		})
	}
}

func playUnknown(t *testing.T, s *stage) {
	c, sess := s.dial(t)
	newer := []byte(`{"type":"hologram","depth":3}`)
	if s.Capabilities.Encoding == wire.Binary {
		newer = []byte{250, 1, 2, 3}
	}
	if err := c.SendRaw(newer); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(&wire.Ping{}); err != nil {
		t.Fatal(err)
	}
	sess.waitReceived(t, 1)
	if got, ok := recv(t, c).(*wire.Error); !ok || got.Code != wire.CodeUnknown {
		t.Errorf("client: got %+v, want an error %s", got, wire.CodeUnknown)
	}
}

func playLimits(t *testing.T, s *stage) {
	enc := s.Capabilities.Encoding
	cases := []struct {
		name  string
		sizes []int
		last  bool // the last one is received
	}{
		{"first at the limit", []int{transport.MaxFirstFrame}, true},
		{"first beyond it", []int{transport.MaxFirstFrame + 1}, false},
		{"later at the limit", []int{64, transport.MaxFrame, transport.MaxFirstFrame + 1, transport.MaxFrame}, true},
		{"later beyond it", []int{64, transport.MaxFrame + 1}, false},
		{"later far beyond it", []int{64, 8 * transport.MaxFrame}, false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c, sess := s.dial(t)
			for _, n := range tc.sizes {
				_ = c.SendRaw(ping(enc, n)) // of a frame that is too large, the server need not read the end
			}
			if tc.last {
				sess.waitReceived(t, len(tc.sizes))
				return
			}
			sess.wait(t, "Refuse", func() bool { return len(sess.refused) > 0 })
			sess.mu.Lock()
			got, err := len(sess.received), sess.refused[0]
			sess.mu.Unlock()
			if want := len(tc.sizes) - 1; got != want {
				t.Errorf("frames before: got %d, want %d", got, want)
			}
			if got := push.KindOf(err); got != push.KindTooLarge {
				t.Errorf("kind: got %v, want %v", got, push.KindTooLarge)
			}
			recvEnd(t, c)
			sess.waitClosed(t, wire.CloseProtocol)
		})
	}
}

func playUnfinished(t *testing.T, s *stage) {
	for _, end := range []struct {
		name string
		do   func(c Client) error
	}{
		{"half-closed", Client.HalfClose},
		{"killed", func(c Client) error { c.Kill(); return nil }},
	} {
		t.Run(end.name, func(t *testing.T) {
			c, sess := s.dial(t)
			if err := c.Send(&wire.Ping{}); err != nil {
				t.Fatal(err)
			}
			sess.waitReceived(t, 1)
			if err := c.SendPart(); err != nil {
				t.Fatal(err)
			}
			if err := end.do(c); err != nil {
				t.Fatal(err)
			}
			sess.waitClosed(t, wire.CloseLost)
			sess.mu.Lock()
			defer sess.mu.Unlock()
			if got := len(sess.received); got != 1 {
				t.Errorf("frames: got %d, want 1", got)
			}
			if got := len(sess.refused); got != 0 {
				t.Errorf("refusals: got %v, want none", sess.refused)
			}
		})
	}
}
