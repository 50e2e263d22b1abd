package torture

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// linked returns a line of some lines, and its other end.
func linked(t *testing.T, ls *lines) (*line, net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return ls.add(nc), server
}

func TestLine_ADeadOneLosesEverythingAndTellsNobody(t *testing.T) {
	var ls lines
	l, server := linked(t, &ls)
	if _, err := l.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	ls.kill()
	if n, err := l.Write([]byte("lost")); n != 4 || err != nil {
		t.Errorf("writing: %d, %v, want it to seem well", n, err)
	}
	if _, err := server.Write([]byte("lost")); err != nil {
		t.Fatal(err)
	}
	server.(*net.TCPConn).CloseWrite()
	read := make(chan error)
	go func() {
		_, err := l.Read(make([]byte, 10))
		read <- err
	}()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("reading: %v, want nothing but our own close", err)
	}
	if err := l.Conn.SetDeadline(time.Time{}); err != nil {
		t.Errorf("the server was told: %v", err)
	}
	ls.end()
	if got, err := io.ReadAll(server); string(got) != "a" || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && got == nil {
		t.Errorf("the server got %q, %v", got, err)
	}
}

func TestLine_OneThatLivesIsAConnection(t *testing.T) {
	var ls lines
	l, server := linked(t, &ls)
	if _, err := server.Write([]byte("b")); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Read(make([]byte, 10)); n != 1 || err != nil {
		t.Errorf("reading: %d, %v", n, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(server); len(got) > 0 || err != nil {
		t.Errorf("the server got %q, %v", got, err)
	}
	if len(ls.open) > 0 {
		t.Error("it is still remembered")
	}
	if l.Close() == nil {
		t.Error("it was closed twice")
	}
}

func TestHolds_KnowsOurOwnConnections(t *testing.T) {
	if !mayCut {
		t.Skip("this system does not tell whose a connection is")
	}
	var ls lines
	l, server := linked(t, &ls)
	defer l.Close()
	from, to := server.RemoteAddr(), server.LocalAddr()
	if !holds(os.Getpid(), from, to) {
		t.Error("our own connection is not ours")
	}
	if holds(os.Getppid(), from, to) {
		t.Error("our connection is somebody else's")
	}
	if holds(0, from, to) || holds(os.Getpid(), from, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}) {
		t.Error("what is nobody's is somebody's")
	}
}

func TestOfRegister_LeavesWhatIsStoredAlone(t *testing.T) {
	for key, want := range map[string]bool{
		"c:{dev:12}:s:": true, "c:{dev:12}:p:": true, "c:{dev:12}:o:\x05room1abcdef": true, "c:{rooms}:r:": true, "c:{rooms}:n:dev": true,
		"c:{@room1}:m:abcdef": true,
		"c:{dev:12}:u:alice":  false, "c:{dev:12}:S:": false, "c:{dev:12}:r:77": false, "c:{dev:12}:l:": false, "c:{nodes}:notices:list": false,
		"c:{catalog}:p:":  false,
		"c:{intents3}:P:": false, "other": false,
	} {
		if got := ofRegister(key); got != want {
			t.Errorf("%s: %v, want %v", key, got, want)
		}
	}
}
