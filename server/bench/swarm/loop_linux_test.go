package swarm

import (
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"carillon/server/bench/sample"
	"carillon/server/push"
	"carillon/server/wire"
)

// lone is a loop with one client that stands, and the server's end of its connection.
func lone(t *testing.T) (l *loop, fd int32, server int) {
	t.Helper()
	l, err := newLoop(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	if err := l.setUp(&Setup{Transport: "ws", Address: "127.0.0.1:1", Acks: true}); err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pair[1]) })
	l.clients = make([]client, pair[0]+1)
	l.clients[pair[0]] = client{gen: 1, state: standing}
	l.open = 1
	return l, int32(pair[0]), pair[1]
}

// said returns the frames that a client sent, decoded.
func said(t *testing.T, server int) (frames []wire.Frame) {
	t.Helper()
	b := make([]byte, 4096)
	n, err := unix.Read(server, b)
	if err == unix.EAGAIN {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	for b = b[:n]; len(b) > 0; {
		header, size := 6, int(b[1]&0x7f)
		if size == 126 {
			header, size = 8, int(b[2])<<8|int(b[3])
		}
		payload := b[header : header+size]
		b = b[header+size:]
		for i := range payload {
			payload[i] ^= mask[i&3]
		}
		f, err := wire.DecodeClient(wire.JSON, payload)
		if err != nil {
			t.Fatalf("%q: %v", payload, err)
		}
		frames = append(frames, f)
	}
	return frames
}

func TestClient_AcknowledgesOnceASecondEverythingItHad(t *testing.T) {
	l, fd, server := lone(t)
	owner, start := push.CursorOwner(7), push.Cursor{{Epoch: 1, Lineage: 2, Pos: 3}, {Epoch: 4, Lineage: 5, Pos: 6}}
	l.cursors[fd] = &place{owner, start}
	now := sample.Monotonic()
	receive := func(frames ...string) {
		var b []byte
		for _, f := range frames {
			b = append(b, served(opText, []byte(f))...)
		}
		for len(b) > 0 { // in parts, as a socket may have it
			n := min(len(b), 50)
			if _, err := unix.Write(server, b[:n]); err != nil {
				t.Fatal(err)
			}
			l.read(fd, &l.clients[fd], false)
			b = b[n:]
		}
	}
	receive(`{"type":"message","slot":0,"pos":10,"id":"1","time":1,"body":1}`, `{"type":"message","id":"2","time":1,"body":1}`,
		`{"type":"message","slot":1,"pos":20,"id":"3","time":1,"body":1}`, `{"type":"message","slot":0,"pos":12,"id":"4","time":1,"body":1}`)
	if got := said(t, server); got != nil {
		t.Errorf("at once it said %+v", got)
	}
	l.acks.advance(now+int64(2*ackEvery), l.ack)
	got := said(t, server)
	if len(got) != 1 {
		t.Fatalf("it said %+v, want one acknowledgement", got)
	}
	o, c, err := push.ParseCursor(got[0].(*wire.Ack).Cursor)
	want := push.Cursor{{Epoch: 1, Lineage: 2, Pos: 12}, {Epoch: 4, Lineage: 5, Pos: 20}}
	if err != nil || o != owner || c != want {
		t.Errorf("acknowledged %d %+v (%v), want %d %+v", o, c, err, owner, want)
	}
	l.acks.advance(now+int64(10*ackEvery), l.ack)
	if got := said(t, server); got != nil {
		t.Errorf("with nothing new it said %+v", got)
	}
	if l.count.report.Acks != 1 || len(l.tails) != 0 {
		t.Errorf("%d acknowledgements counted, %d tails kept", l.count.report.Acks, len(l.tails))
	}
}

func TestClient_BeatsAtTheIntervalOfWelcome(t *testing.T) {
	l, fd, server := lone(t)
	const interval = 30 * time.Second
	began := sample.Monotonic()
	l.welcomed(fd, &l.clients[fd], interval)
	l.beats.advance(began+int64(interval), l.beat)
	frames := said(t, server)
	if len(frames) == 0 {
		t.Fatal("it was silent for an interval")
	}
	for _, f := range frames {
		if _, ok := f.(*wire.Ping); !ok {
			t.Errorf("it said %+v", f)
		}
	}
	l.clients[fd].gen++ // another client has the socket now
	l.beats.advance(began+int64(10*interval), l.beat)
	if got := said(t, server); got != nil {
		t.Errorf("a client that went said %+v", got)
	}
}

// The server names each client an interval of its own. One that is told another does not silence those before it.
func TestClient_BeatsWhateverTheIntervalOfOthersIs(t *testing.T) {
	l, fd, server := lone(t)
	const interval = 30 * time.Second
	began := sample.Monotonic()
	l.welcomed(fd, &l.clients[fd], interval)
	for i := range 10 { // of clients that are gone when their turn comes
		l.welcomed(fd, &client{gen: 9}, interval-time.Duration(i)*100*time.Millisecond)
	}
	l.beats.advance(began+int64(interval), l.beat)
	if got := said(t, server); len(got) == 0 {
		t.Error("it was silent for an interval")
	}
}

func TestClient_ThatTheServerClosesIsCountedWithTheReason(t *testing.T) {
	cases := []struct {
		name string
		send []byte
		want string
	}{
		{"a close frame", served(opClose, append([]byte{0x0f, 0xa1}, "slow"...)), "close 4001 slow"},
		{"a kick", served(opText, []byte(`{"type":"kick","code":4200,"reason":"replaced"}`)), `{"type":"kick","code":4200,"reason":"replaced"}`},
		{"no word", nil, "the server closed the connection without a word"},
		{"what is no frame", []byte{0, 0}, "the server sent a message in fragments"},
	}
	for _, c := range cases {
		l, fd, server := lone(t)
		if c.send == nil {
			if err := unix.Shutdown(server, unix.SHUT_WR); err != nil {
				t.Fatal(err)
			}
		} else if _, err := unix.Write(server, c.send); err != nil {
			t.Fatal(err)
		}
		l.event(fd, &l.clients[fd], unix.EPOLLIN)
		if l.lost[c.want] != 1 || l.open != 0 || l.clients[fd].state != absent {
			t.Errorf("%s: lost %v, %d open", c.name, l.lost, l.open)
		}
	}
}

func TestLoop_RefusesAddressesBeyondThisMachine(t *testing.T) {
	l, err := newLoop(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	for _, address := range []string{"192.0.2.1:80", "example.org:80", "0.0.0.0:80", "[2001:db8::1]:80"} {
		if err := l.setUp(&Setup{Transport: "ws", Address: address}); err == nil {
			t.Errorf("%s is taken", address)
		}
	}
	if err := l.setUp(&Setup{Transport: "pigeon", Address: "127.0.0.1:80"}); err == nil {
		t.Error("a transport that is not there is taken")
	}
}
