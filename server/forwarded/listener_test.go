package forwarded

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

// listen listens on this machine for proxies of the network.
func listen(t *testing.T, trusted string) net.Listener {
	t.Helper()
	p, err := New(Config{Source: ProxyV2, Trusted: []netip.Prefix{netip.MustParsePrefix(trusted)}})
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := p.Listen(inner, quiet)
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t *testing.T, l net.Listener, sends ...[]byte) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	for _, b := range sends {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func wantRead(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Errorf("read %q, %v, want %q", b, err, want)
	}
}

func TestListener_ConnectionsHaveTheAddressThatTheirProxyNames(t *testing.T) {
	l := listen(t, "127.0.0.0/8")
	dial(t, l, from("203.0.113.7:4711", "192.0.2.1:443"), []byte("hello"))
	c := accept(t, l)
	if got := c.RemoteAddr().String(); got != "203.0.113.7:4711" {
		t.Errorf("the address is %s", got)
	}
	wantRead(t, c, "hello")
}

func TestListener_HeaderInPiecesIsReadToItsEnd(t *testing.T) {
	l := listen(t, "127.0.0.0/8")
	h := from("[2001:db8::7]:4711", "[2001:db8::1]:443")
	client := dial(t, l)
	go func() {
		for _, b := range h {
			client.Write([]byte{b})
		}
		client.Write([]byte("hello"))
	}()
	c := accept(t, l)
	if got := c.RemoteAddr().String(); got != "[2001:db8::7]:4711" {
		t.Errorf("the address is %s", got)
	}
	wantRead(t, c, "hello")
}

func TestListener_AProxyThatSpeaksForItselfKeepsItsAddress(t *testing.T) {
	l := listen(t, "127.0.0.0/8")
	client := dial(t, l, header(cmdLocal, 0, nil))
	if got, want := accept(t, l).RemoteAddr().String(), client.LocalAddr().String(); got != want {
		t.Errorf("the address is %s, want %s", got, want)
	}
}

func TestListener_StrangersCannotNameAnAddress(t *testing.T) {
	l := listen(t, "192.0.2.0/24")
	sent := from("203.0.113.7:4711", "192.0.2.1:443")
	client := dial(t, l, sent)
	c := accept(t, l)
	if got, want := c.RemoteAddr().String(), client.LocalAddr().String(); got != want {
		t.Errorf("the address is %s, want %s", got, want)
	}
	wantRead(t, c, string(sent)) // all of it is the connection's
}

// A proxy without a header is closed, and one that says nothing at all holds up nobody.
func TestListener_BadAndSilentProxiesDoNotDelayOthers(t *testing.T) {
	l := listen(t, "127.0.0.0/8")
	silent := dial(t, l)
	wrong := dial(t, l, []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	dial(t, l, from("203.0.113.7:4711", "192.0.2.1:443"))
	if got := accept(t, l).RemoteAddr().String(); got != "203.0.113.7:4711" {
		t.Errorf("the address is %s", got)
	}
	if _, err := wrong.Read(make([]byte, 1)); err == nil {
		t.Error("a proxy without a header is answered")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives its listener")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: got %v", err)
	}
	if err := l.Close(); err == nil {
		t.Error("a second Close says nothing")
	}
}

func TestListener_CloseBeforeTheFirstAccept(t *testing.T) {
	l := listen(t, "127.0.0.0/8")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestListener_CloseEndsAnAcceptUnderWay(t *testing.T) {
	l := listen(t, "127.0.0.0/8")
	done := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestListener_PassesTheSocketOn(t *testing.T) {
	l := listen(t, "127.0.0.0/8")
	client := dial(t, l, from("203.0.113.7:4711", "192.0.2.1:443"))
	c := accept(t, l)
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {}); err != nil {
		t.Error(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client reads %v, want the end", err)
	}
	if err := c.(interface{ SetLinger(int) error }).SetLinger(0); err != nil {
		t.Error(err)
	}
	if _, err := (&conn{Conn: struct{ net.Conn }{c}}).SyscallConn(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("where there is no socket: got %v, want ErrUnsupported", err)
	}
}

func TestListener_OtherSourcesLeaveConnectionsAlone(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	if l := trusting(t, XForwardedFor).Listen(inner, quiet); l != inner {
		t.Errorf("the listener is wrapped in a %T", l)
	}
}

func TestListener_RequestsHaveTheClientsAddress(t *testing.T) {
	l := listen(t, "127.0.0.0/8")
	p := l.(*listener).proxies
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, p.Remote(r).String())
	})}
	var serving sync.WaitGroup
	serving.Go(func() { srv.Serve(l) })
	defer serving.Wait()
	defer srv.Close()
	c := dial(t, l, from("203.0.113.7:4711", "192.0.2.1:443"), []byte("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.1\r\nConnection: close\r\n\r\n"))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "203.0.113.7:4711" {
		t.Errorf("the client is %q, %v", b, err)
	}
}

// memory is a listener whose connections are pipes that call themselves by an address.
type memory struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

type named struct{ net.Conn }

func (named) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1} }

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return named{c}, nil
	case <-m.done:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error {
	m.once.Do(func() { close(m.done) })
	return nil
}

func (m *memory) Addr() net.Addr { return &net.TCPAddr{} }

// remembered runs a listener of a trusted proxy in memory, on virtual time. The returned function makes a connection of it.
func remembered(t *testing.T) (l net.Listener, dial func() net.Conn) {
	m := &memory{conns: make(chan net.Conn), done: make(chan struct{})}
	return trusting(t, ProxyV2).Listen(m, quiet), func() net.Conn {
		client, server := net.Pipe()
		m.conns <- server
		return client
	}
}

func TestListener_AProxyHasFiveSecondsForItsHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, dial := remembered(t)
		var waiting sync.WaitGroup
		waiting.Go(func() { l.Accept() })
		client := dial()
		if _, err := client.Write([]byte(signature)); err != nil { // and then nothing
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := client.Read(make([]byte, 1)); err == nil {
			t.Error("the proxy is answered")
		}
		if got := time.Since(began); got != headerTime { // virtual time: exact
			t.Errorf("the connection was closed after %v, want %v", got, headerTime)
		}
		l.Close()
		waiting.Wait()
		client.Close()
	})
}

func TestListener_AConnectionWithItsHeaderHasAllTheTimeInTheWorld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, dial := remembered(t)
		defer l.Close()
		accepted := make(chan net.Conn, 1)
		go func() {
			c, _ := l.Accept()
			accepted <- c
		}()
		client := dial()
		defer client.Close()
		if _, err := client.Write(from("203.0.113.7:4711", "192.0.2.1:443")); err != nil {
			t.Fatal(err)
		}
		server := <-accepted
		defer server.Close()
		go func() {
			time.Sleep(time.Hour)
			client.Write([]byte("hello"))
		}()
		wantRead(t, server, "hello")
	})
}

func TestListener_CloseEndsConnectionsWithoutTheirHeaderAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, dial := remembered(t)
		var waiting sync.WaitGroup
		waiting.Go(func() { l.Accept() })
		client := dial()
		defer client.Close()
		synctest.Wait()
		began := time.Now()
		l.Close()
		if got := time.Since(began); got != 0 { // virtual time: nothing was waited for
			t.Errorf("Close took %v", got)
		}
		waiting.Wait()
	})
}
