// Package transporttest holds every transport to the contract of package transport with one script. A transport's test
// brings a [Harness], which is a running transport and a way to dial clients of it; the script brings the sessions, which
// check at each call what the contract promises them, and plays the parts of client and room.
//
// What one transport can do and another cannot, its harness declares; the script then has fewer scenes rather than
// skipped ones. After each scene no goroutine and no descriptor may be left.
//
// Beside the script stands what the tests of the transports themselves have in common: listeners ([Pipes], [Waiting]), waiting
// for what must happen ([Get], [Eventually]), a session's queue ([Fill]), and what an idle connection weighs ([Idle]).
package transporttest

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"carillon/server/transport"
	"carillon/server/wire"

	"go.uber.org/goleak"
)

// Client is the far end of a connection. It reads from its socket inside Recv only: a client whose Recv is not called is
// frozen. It is used by one goroutine, except that Send and Recv may run at the same time, and Kill at any.
type Client interface {
	// Send sends a frame.
	Send(f wire.Frame) error
	// SendRaw sends bytes where the encoding of a frame belongs.
	SendRaw(payload []byte) error
	// SendPart sends the beginning of a frame and never its end.
	SendPart() error
	// Recv returns the next frame. When the server closes, Recv answers in the transport's way, and fails.
	Recv(ctx context.Context) (wire.Frame, error)
	// CloseCode returns the code that the server closed with, 0 if Recv met none, as always where the transport tells none.
	CloseCode() wire.CloseCode
	// Goodbye leaves in the transport's own way. It does not wait for the answer.
	Goodbye() error
	// HalfClose ends the client's direction of the socket and goes on reading.
	HalfClose() error
	// Kill closes the socket at once.
	Kill()
}

// Harness is a running transport.
type Harness struct {
	Capabilities transport.Capabilities
	HalfClosed   wire.CloseCode // what Session.Closed says when the client half-closed: CloseLost or CloseNormal
	Workers      int            // goroutines that write for all connections, 0 if there are none that a client could block

	// Dial connects a client. The script kills it in the end.
	Dial func(t *testing.T) Client
	// Writes returns how many writes have been made to sockets; nil if that cannot be counted.
	Writes func() int64
	// Close ends the transport: at once when ctx has ended.
	Close func(ctx context.Context) error
}

// stage is where a scene plays.
type stage struct {
	Harness
	acceptor *acceptor
}

type scene struct {
	name   string
	duplex bool // the client sends frames
	oneWay bool // it cannot
	play   func(t *testing.T, s *stage)
}

// Run plays the script on transports made by open, one for each scene.
func Run(t *testing.T, open func(t *testing.T, a transport.Acceptor) Harness) {
	var scenes []scene
	scenes = append(scenes, flowScenes...)
	scenes = append(scenes, slowScenes...)
	scenes = append(scenes, refuseScenes...)
	scenes = append(scenes, endScenes...)
	scenes = append(scenes, startScenes...)
	scenes = append(scenes, stormScenes...)
	// What the transport can do is known from one that plays nothing. It also opens what a process has once.
	h := open(t, &acceptor{t: t})
	shut(t, h)
	for _, sc := range scenes {
		if sc.duplex && !h.Capabilities.Duplex || sc.oneWay && h.Capabilities.Duplex {
			continue
		}
		t.Run(sc.name, func(t *testing.T) {
			goroutines := goleak.IgnoreCurrent()
			files := openFiles()
			a := &acceptor{t: t, sessions: make(chan *Session, 4096)}
			h := open(t, a)
			s := &stage{Harness: h, acceptor: a}
			t.Cleanup(func() {
				shut(t, h)
				a.check(t)
				goleak.VerifyNone(t, goroutines)
				checkFiles(t, files)
			})
			sc.play(t, s)
		})
	}
}

// shut ends a transport at once. The error that it had to cut somebody is expected.
func shut(t *testing.T, h Harness) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = h.Close(ctx)
}

// dial connects a client and returns it with its session.
func (s *stage) dial(t *testing.T) (Client, *Session) {
	t.Helper()
	c := s.Dial(t)
	t.Cleanup(c.Kill)
	select {
	case sess := <-s.acceptor.sessions:
		return c, sess
	case <-time.After(Patience):
		t.Fatal("no session was asked for")
		return nil, nil
	}
}

// checkCode compares the code that the client was closed with, where the transport tells one.
func (s *stage) checkCode(t *testing.T, c Client, want wire.CloseCode) {
	t.Helper()
	if got := c.CloseCode(); s.Capabilities.Close && got != want {
		t.Errorf("code: got %v, want %v", got, want)
	}
}

// recv returns the client's next frame.
func recv(t *testing.T, c Client) wire.Frame {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	f, err := c.Recv(ctx)
	if err != nil {
		t.Fatalf("client: receive: %v", err)
	}
	return f
}

// recvEnd reads until the server ends the connection and returns the frames before it.
func recvEnd(t *testing.T, c Client) []wire.Frame {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	var fs []wire.Frame
	for {
		f, err := c.Recv(ctx)
		if err != nil {
			if ctx.Err() != nil {
				t.Fatal("client: the connection does not end")
			}
			return fs
		}
		fs = append(fs, f)
	}
}

// openFiles returns how many descriptors the process has, -1 where the system does not say.
func openFiles() int {
	fs, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(fs)
}

// checkFiles fails if more descriptors are open than before. A socket is closed when its last system call returned,
// which may be a moment after Close.
func checkFiles(t *testing.T, before int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	for openFiles() > before {
		if ctx.Err() != nil {
			t.Errorf("descriptors: got %d, want at most %d", openFiles(), before)
			return
		}
		runtime.Gosched()
	}
}
