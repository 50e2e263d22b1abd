package swarm

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"carillon/server/bench/sample"
	"carillon/server/push"
	"carillon/server/wire"
)

// lone is a loop with one client that stands, and the server's end of its connection.
func lone(t *testing.T) (l *loop, fd int32, server int) { return loneOver(t, "ws") }

func loneOver(t *testing.T, transport string) (l *loop, fd int32, server int) {
	t.Helper()
	l, err := newLoop(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	if err := l.setUp(&Setup{Transport: transport, Address: "127.0.0.1:1", Acks: true}); err != nil {
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

func TestClient_OverTCPBeatsAndAcknowledgesInBinary(t *testing.T) {
	l, fd, server := loneOver(t, "tcp")
	start := push.Cursor{{Epoch: 1, Lineage: 2, Pos: 3}, {Epoch: 4, Lineage: 5, Pos: 6}}
	l.cursors[fd] = &place{7, start}
	now := sample.Monotonic()
	l.welcomed(fd, &l.clients[fd], 10*time.Second)
	l.take(fd, &l.clients[fd], raw{}.say(nil, binaryMessage(push.Common, 20, []byte("1"))))
	l.acks.advance(now+int64(2*ackEvery), l.ack)
	l.beats.advance(now+int64(10*time.Second), l.beat)
	b := make([]byte, 4096)
	n, err := unix.Read(server, b)
	if err != nil {
		t.Fatal(err)
	}
	var frames []wire.Frame
	for b = b[:n]; len(b) > 0; {
		k, payload, n, err := raw{}.cut(b, false)
		if err != nil || k != frame {
			t.Fatalf("%d bytes are no frame (%v)", len(b), err)
		}
		f, err := wire.DecodeClient(wire.Binary, payload)
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, f)
		b = b[n:]
	}
	start[push.Common].Pos = 20
	want := string(push.AppendCursor(nil, 7, start))
	if ack, ok := frames[0].(*wire.Ack); !ok || ack.Cursor != want {
		t.Errorf("first it said %+v, want an acknowledgement of %s", frames[0], want)
	}
	if len(frames) < 2 || frames[1].Type() != wire.TypePing {
		t.Errorf("it said %+v, and no heartbeat", frames)
	}
}

func TestClient_OverSSESaysNothingAndCountsTheHeartbeatsOfTheServer(t *testing.T) {
	l, fd, server := loneOver(t, "sse")
	l.welcomed(fd, &l.clients[fd], time.Second)
	l.take(fd, &l.clients[fd], []byte(":\n\n:\n\n"))
	if l.beats != nil || l.count.report.Pings != 2 {
		t.Errorf("counted %d heartbeats, want the server's 2 alone", l.count.report.Pings)
	}
	if _, err := unix.Read(server, make([]byte, 1)); err != unix.EAGAIN {
		t.Errorf("the server reads something (%v)", err)
	}
}

// An acknowledgement of a client that cannot speak is a request beside its connection; more of them than are allowed wait.
func TestClient_OverSSEAcknowledgesBesideItsConnection(t *testing.T) {
	for _, c := range []struct {
		answer string
		acks   uint64
		lost   string
	}{
		{"HTTP/1.1 204 No Content\r\n\r\n", 1, ""},
		{"HTTP/1.1 401 Unauthorized\r\n\r\n{\"code\":\"token_refused\"}", 0, "token_refused"},
	} {
		l, fd, _ := loneOver(t, "sse")
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		if err := l.setUp(&Setup{Transport: "sse", Address: ln.Addr().String(), Product: "p", KeyID: "k", Key: make([]byte, 32), Acks: true}); err != nil {
			t.Fatal(err)
		}
		l.cursors[fd] = &place{owner: 7}
		for i := range maxErrands {
			l.errands[int32(-1-i)] = &errand{began: sample.Monotonic()}
		}
		l.take(fd, &l.clients[fd], []byte(`data: {"type":"message","slot":0,"pos":1853070350745601,"id":"7","time":1,"body":1}`+"\n\n"))
		due := sample.Monotonic() + int64(2*ackEvery)
		l.acks.advance(due, l.ack)
		if len(l.errands) != maxErrands || !l.clients[fd].ackDue {
			t.Errorf("%d errands are under way, and one is too many", len(l.errands))
		}
		clear(l.errands)
		l.acks.advance(due+int64(ackEvery), l.ack)
		if len(l.errands) != 1 || l.clients[fd].ackDue {
			t.Fatalf("%d errands are under way, want 1", len(l.errands))
		}
		go func() {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			defer nc.Close()
			r, err := http.ReadRequest(bufio.NewReader(nc))
			if err != nil || r.Method != http.MethodPost || r.URL.Path != "/connect/frames" || r.Header.Get("Authorization") == "" {
				t.Errorf("asked %+v (%v)", r, err)
				return
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			f, err := wire.DecodeClient(wire.JSON, body)
			if ack, ok := f.(*wire.Ack); !ok {
				t.Errorf("said %q (%v)", body, err)
			} else if _, cursor, err := push.ParseCursor(ack.Cursor); err != nil || cursor[push.Own].Pos != 1853070350745601 {
				t.Errorf("acknowledged %+v (%v)", cursor, err)
			}
			_, _ = io.WriteString(nc, c.answer)
		}()
		for len(l.errands) > 0 {
			n, err := unix.EpollWait(l.ep, l.events, 30_000)
			if n < 1 {
				t.Fatalf("nothing happens (%v)", err)
			}
			for _, e := range l.events[:n] {
				l.event(e.Fd, &l.clients[e.Fd], e.Events)
			}
		}
		if l.count.report.Acks != c.acks || (c.lost != "") != (len(l.lost) == 1) {
			t.Errorf("%q: %d acknowledgements, lost %v", c.answer, l.count.report.Acks, l.lost)
		}
	}
}

// A poll follows the answer at once, with its session and its cursor, and the token of before.
func TestClient_OverLongPollPollsAgain(t *testing.T) {
	l, fd, server := loneOver(t, "poll")
	if err := l.setUp(&Setup{Transport: "poll", Address: "127.0.0.1:1", Product: "p", KeyID: "k", Key: make([]byte, 32), HoldSeconds: 50}); err != nil {
		t.Fatal(err)
	}
	l.cursors[fd] = new(place)
	var tokens []string
	for _, c := range []struct {
		frames             string
		pings, acks, count uint64
	}{
		{"", 1, 1, 0}, // the cursor is another than the client's, which has none
		{jsonMessage + "," + jsonMessage, 1, 1, 2},
		{"", 2, 1, 2},
	} {
		l.take(fd, &l.clients[fd], []byte(answerOf(c.frames)))
		b := make([]byte, 4096)
		n, err := unix.Read(server, b)
		if err != nil {
			t.Fatal(err, l.lost)
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b[:n])))
		if err != nil {
			t.Fatal(err)
		}
		q := r.URL.Query()
		if r.URL.Path != "/connect/poll" || q.Get("session") != "77" || q.Get("cursor") != "1.7.1.2.3.4.5.6" || q.Get("wait") != "50" {
			t.Errorf("asked %s", r.URL)
		}
		tokens = append(tokens, r.Header.Get("Authorization"))
		if got := l.count.report; got.Pings != c.pings || got.Acks != c.acks || got.Messages+got.Others != c.count {
			t.Errorf("counted %+v, want %+v", got, c)
		}
	}
	if tokens[0] == "" || tokens[0] != tokens[1] {
		t.Errorf("showed %q", tokens)
	}
	l.take(fd, &l.clients[fd], []byte(answerOf(`{"type":"goaway","code":4000}`)))
	if l.lost[`{"type":"goaway","code":4000}`] != 1 || l.clients[fd].state != absent {
		t.Errorf("lost %v", l.lost)
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
