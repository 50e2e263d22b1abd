package longpoll

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/transport/transporttest"
)

// closed reports whether the far end of a pipe is closed. Nobody writes to it.
func closed(nc net.Conn) bool {
	nc.SetReadDeadline(time.Now().Add(patience))
	_, err := nc.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

func TestListener_HandsOutNewConnectionsAndThoseThatCameBack(t *testing.T) {
	inner := transporttest.NewPipes()
	l := NewListener(inner, ListenerConfig{})
	go inner.Dial()
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l.giveBack(first, nil, []byte("unread"))
	again, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	for _, want := range []string{"unre", "ad"} { // what was read comes first, in pieces of any size
		n, err := again.Read(b)
		if got := string(b[:n]); got != want || err != nil {
			t.Errorf("read: got %q and %v, want %q", got, err, want)
		}
	}
	if got := l.Returned(); got != 1 {
		t.Errorf("connections that came back: got %d, want 1", got)
	}
	again.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestListener_ErrorsAreForWhoeverAccepts(t *testing.T) {
	inner := transporttest.NewPipes()
	l := NewListener(inner, ListenerConfig{})
	go inner.Fail(syscall.EMFILE)
	if _, err := l.Accept(); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("got %v, want %v", err, syscall.EMFILE)
	}
	go inner.Dial()
	nc, err := l.Accept() // the error was for a time
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	l.Close()
}

func TestListener_CloseClosesWhatWaitsAndWhatComesLater(t *testing.T) {
	inner := transporttest.NewPipes()
	l := NewListener(inner, ListenerConfig{})
	near, far := net.Pipe()
	l.giveBack(far, nil, nil)
	if !l.start() {
		t.Fatal("the listener does not start")
	}
	accepted := inner.Dial() // by the listener, and nobody asks for it
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	late, farLate := net.Pipe()
	l.giveBack(farLate, nil, nil)
	for name, nc := range map[string]net.Conn{"came back": near, "was new": accepted, "came back too late": late} {
		if !closed(nc) {
			t.Errorf("a connection that %s is open after Close", name)
		}
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: got %v, want %v", err, net.ErrClosed)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second Close: got %v, want %v", err, net.ErrClosed)
	}
	if got := l.TurnedAway(); got != 1 {
		t.Errorf("connections turned away: got %d, want 1", got)
	}
}

// A server that shuts down waits for the requests under way, and not for those that might come.
func TestListener_CloseClosesThoseThatBeganNoRequest(t *testing.T) {
	l := NewListener(transporttest.NewPipes(), ListenerConfig{})
	var nears, fars []net.Conn
	for _, early := range []string{"", "GET", ""} {
		near, far := net.Pipe()
		l.giveBack(far, nil, []byte(early))
		nc, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		nears, fars = append(nears, near), append(fars, nc)
	}
	go nears[2].Write([]byte("G"))
	if _, err := fars[2].Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if !closed(nears[0]) {
		t.Error("a connection without a request is open after Close")
	}
	for _, i := range []int{1, 2} {
		go fars[i].Write([]byte("answer"))
		if n, err := nears[i].Read(make([]byte, 6)); n != 6 || err != nil {
			t.Errorf("a connection with a request: got %d bytes and %v", n, err)
		}
		nears[i].Close()
		fars[i].Close()
	}
	if len(l.quiet) > 0 {
		t.Errorf("%d connections are kept in mind", len(l.quiet))
	}
}

func TestListener_CloseEndsAnAccept(t *testing.T) {
	l := NewListener(transporttest.NewPipes(), ListenerConfig{})
	done := make(chan error)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	l.Close()
	if err := get(t, done, "Accept"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
}

func TestListener_OneTooManyIsClosedAndNobodyWaits(t *testing.T) {
	l := NewListener(transporttest.NewPipes(), ListenerConfig{Waiting: 2})
	var nears []net.Conn
	for range 3 {
		near, far := net.Pipe()
		l.giveBack(far, nil, nil)
		nears = append(nears, near)
	}
	if !closed(nears[2]) {
		t.Error("the third connection is open, and two may wait")
	}
	if got := l.TurnedAway(); got != 1 {
		t.Errorf("connections turned away: got %d, want 1", got)
	}
	for range 2 {
		nc, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		nc.Close()
	}
	l.Close()
}

// A connection with something unread has no descriptor to offer: who read from that would miss it.
func TestReturnedConn_OffersItsDescriptorOnceNothingIsUnread(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := NewListener(inner, ListenerConfig{})
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l.giveBack(first, nil, []byte("x"))
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.(syscall.Conn).SyscallConn(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("with something unread: got %v, want %v", err, errors.ErrUnsupported)
	}
	if _, err := nc.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.(syscall.Conn).SyscallConn(); err != nil {
		t.Errorf("with nothing unread: got %v", err)
	}
}

// net/http gives a new connection the time of a header for its first request. A connection that came back has answered one
// and may wait for the next as long as any that is kept alive.
func TestReturnedConn_MayBeIdleAsLongAsOneThatIsKeptAlive(t *testing.T) {
	const idle, header = time.Minute, 5 * time.Second
	for _, tc := range []struct {
		name  string
		early string        // was read before
		quiet time.Duration // before the next request begins
		slow  time.Duration // between its beginning and its end
		want  bool          // it is answered
	}{
		{"at once", "", 0, 0, true},
		{"after less than idle", "", idle - time.Second, 0, true},
		{"after more than idle", "", idle + time.Second, 0, false},
		{"a header in its time, late", "", idle - time.Second, header - time.Second, true},
		{"a header that takes too long", "", time.Second, header + time.Second, false},
		{"a header that began before, in its time", "GET / HT", header - time.Second, 0, true},
		{"a header that began before and takes too long", "GET / HT", header + time.Second, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := NewListener(transporttest.NewPipes(), ListenerConfig{Idle: idle})
				srv := &http.Server{ReadHeaderTimeout: header, IdleTimeout: idle, ConnContext: l.ConnContext,
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if homeOf(r.Context()) != nil {
							t.Error("a connection without a descriptor is to come back")
						}
					})}
				var serving sync.WaitGroup
				serving.Go(func() { srv.Serve(l) })
				near, far := net.Pipe()
				l.giveBack(far, nil, []byte(tc.early))
				synctest.Wait()

				status := make(chan int, 1) // 0: none came
				go func() {
					res, err := http.ReadResponse(bufio.NewReader(near), nil)
					if err != nil {
						status <- 0
						return
					}
					status <- res.StatusCode
				}()
				const request = "GET / HTTP/1.1\r\nHost: carillon.example\r\n\r\n"
				time.Sleep(tc.quiet)
				if _, err := io.WriteString(near, request[len(tc.early):10]); err == nil {
					time.Sleep(tc.slow)
					_, _ = io.WriteString(near, request[10:]) // the server may have closed by now
				}
				if got := <-status; (got == http.StatusOK) != tc.want {
					t.Errorf("status: got %d, answered as a request should be: want %v", got, tc.want)
				}
				near.Close()
				if err := srv.Shutdown(context.Background()); err != nil {
					t.Error(err)
				}
				serving.Wait()
			})
		})
	}
}
