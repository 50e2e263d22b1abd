package tcp

import (
	"context"
	"crypto/tls"
	"net"
	"testing"

	"carillon/server/wire"
)

// startTLS runs a transport behind TLS for a test.
func startTLS(t *testing.T) (addr string, r *room) {
	t.Helper()
	r = newRoom()
	secure := serverTLS(t)
	addr, _, stop := serve(t, Config{Acceptor: r}, func(l net.Listener) net.Listener { return tls.NewListener(l, secure) })
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = stop(ctx)
	})
	return addr, r
}

// Under TLS a stream ends as it does without: between two frames the client leaves, whether or not TLS says so too, and inside
// one it is lost.
func TestTLS_EndsBetweenAndInsideFrames(t *testing.T) {
	addr, r := startTLS(t)
	for _, tc := range []struct {
		name string
		part bool // the end comes inside a frame
		said bool // by an alert
		want wire.CloseCode
	}{
		{"between, said", false, true, wire.CloseNormal},
		{"between", false, false, wire.CloseNormal},
		{"inside, said", true, true, wire.CloseLost},
		{"inside", true, false, wire.CloseLost},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dial(t, addr, clientTLS)
			s := get(t, r.began, "a session")
			if err := c.Send(&wire.Ping{}); err != nil {
				t.Fatal(err)
			}
			get(t, s.frames, "the ping")
			if tc.part {
				if err := c.SendPart(); err != nil {
					t.Fatal(err)
				}
			}
			if tc.said {
				c.nc.(*tls.Conn).CloseWrite()
			} else {
				c.nc.(*tls.Conn).NetConn().(*net.TCPConn).CloseWrite()
			}
			if got := get(t, s.closed, "Closed"); got != tc.want {
				t.Errorf("Closed: got %v, want %v", got, tc.want)
			}
			if len(s.frames) > 0 {
				t.Error("a part of a frame was received")
			}
		})
	}
}

// A handshake that never comes is silence like any other: what cannot be said is not waited for longer than the session does, and
// an end without words needs no handshake.
func TestTLS_ClientThatNeverShakesHandsIsEnded(t *testing.T) {
	addr, r := startTLS(t)
	for _, words := range []bool{true, false} {
		c := dial(t, addr, nil) // says nothing, least of all a hello
		s := get(t, r.began, "a session")
		if words {
			s.put(wire.Out{Frame: &wire.Kick{Code: wire.CloseConnectTimeout}})
		}
		s.conn.Close(wire.CloseConnectTimeout)
		if !words {
			c.ends(t)
		}
		s.conn.Cut(wire.CloseInternal)
		if got := get(t, s.closed, "Closed"); got != wire.CloseConnectTimeout {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseConnectTimeout)
		}
	}
}
