package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/wire"
)

// framed puts lengths in front of frames.
func framed(fs ...wire.Frame) []byte {
	var b []byte
	for _, f := range fs {
		body := wire.Append(nil, wire.Binary, f)
		b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
		b = append(b, body...)
	}
	return b
}

// dialTCP returns both ends of a connection.
func dialTCP(t *testing.T, d TCP) (Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := d.Dial(t.Context(), "tcp://"+l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Cut)
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return c, far.(*net.TCPConn)
}

func TestTCP_CarriesFramesBothWaysAndPassesOverUnknownOnes(t *testing.T) {
	c, far := dialTCP(t, TCP{})
	unknown := []byte{0, 0, 0, 2, 200, 1}
	for _, b := range append(unknown, framed(&wire.Pong{}, ownMessage(11, 101))...) {
		if _, err := far.Write([]byte{b}); err != nil { // a byte at a time
			t.Fatal(err)
		}
	}
	if f, err := c.Read(); err != nil || f.Type() != wire.TypePong {
		t.Errorf("got %v, %v, want a pong", f, err)
	}
	if f, err := c.Read(); err != nil || f.(*wire.Message).ID != 11 {
		t.Errorf("got %v, %v, want the message", f, err)
	}
	sent := []wire.Frame{&wire.Ping{}, &wire.Ack{Cursor: cursorAt(1, 2, 3)}}
	for _, f := range sent {
		if err := c.Write(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	want := framed(sent...)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the server reads %x, %v, want %x", got, err, want)
	}
}

func TestTCP_BadStreamsAreErrors(t *testing.T) {
	pong := framed(&wire.Pong{})
	for name, c := range map[string]struct {
		sent []byte
		want error
	}{
		"the end":             {nil, io.EOF},
		"half a length":       {pong[:2], io.ErrUnexpectedEOF},
		"half a frame":        {framed(ownMessage(1, 1))[:9], io.ErrUnexpectedEOF},
		"a length, no frame":  {pong[:4], io.ErrUnexpectedEOF},
		"length 0":            {[]byte{0, 0, 0, 0}, nil},
		"length beyond limit": {[]byte{0, 0, 0x10, 1}, nil},
		"length of 4 GiB":     {[]byte{255, 255, 255, 255}, nil},
		"a frame of ours":     {framed(&wire.Ack{Cursor: "1"}), nil},
	} {
		conn, far := dialTCP(t, TCP{FrameBytes: 4096})
		if _, err := far.Write(c.sent); err != nil {
			t.Fatal(err)
		}
		far.CloseWrite()
		f, err := conn.Read()
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, %v, want %v", name, f, err, c.want)
		}
	}
}

func TestTCP_CloseEndsItsDirectionAndHearsTheServerOut(t *testing.T) {
	c, far := dialTCP(t, TCP{})
	read := make(chan wire.Frame, 10)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			f, err := c.Read()
			if err != nil {
				return
			}
			read <- f
		}
	}()
	go func() {
		io.Copy(io.Discard, far) // until the client has ended its direction
		far.Write(framed(&wire.Pong{}))
		far.Close()
	}()
	c.Close()
	<-ended
	if len(read) != 1 {
		t.Errorf("%d frames were read after the goodbye, want the server's last", len(read))
	}
}

// halves is a pipe whose end can say that nothing more comes, and whose peer ends it at that.
type halves struct{ net.Conn }

func (h halves) CloseWrite() error { return h.Conn.Close() }

func TestTCP_CloseWaitsNoLongerThanTheServerNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		d := TCP{DialContext: func(context.Context, string, string) (net.Conn, error) { return halves{near}, nil }}
		c, err := d.Dial(t.Context(), "tcp://push.example:8082")
		if err != nil {
			t.Fatal(err)
		}
		go c.Read()
		synctest.Wait()
		began := time.Now()
		c.Close()
		if got := time.Since(began); got != 0 { // virtual time: exact
			t.Errorf("Close waited %v for a server that had gone", got)
		}
	})
}

func TestTCP_CloseAndCutEndAReadUnderWayThoughThePeerIsFrozen(t *testing.T) {
	for name, end := range map[string]func(Conn){"close": Conn.Close, "cut": Conn.Cut} {
		c, _ := dialTCP(t, TCP{})
		read := make(chan error, 1)
		go func() {
			_, err := c.Read()
			read <- err
		}()
		end(c)
		if err := <-read; err == nil {
			t.Errorf("%s: Read returned a frame", name)
		}
	}
}

func TestTCP_AWriteThatTakesTooLongEndsTheConnection(t *testing.T) {
	c, _ := dialTCP(t, TCP{}) // whose server reads nothing
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var err error
	for err == nil { // until nothing more fits in between
		err = c.Write(ctx, &wire.Refresh{Token: string(bytes.Repeat([]byte("t"), 4000))})
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
	if _, err := c.Read(); err == nil {
		t.Error("the connection goes on")
	}
}

func TestTCP_SpeaksTLSToServersThatItCanTrust(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	inner := srv.Listener
	srv.StartTLS() // for its certificate
	defer srv.Close()
	trusting := srv.Client().Transport.(*http.Transport).TLSClientConfig
	srv.Config.Handler = http.NotFoundHandler()
	if _, err := (&TCP{}).Dial(t.Context(), "tcps://"+inner.Addr().String()); err == nil {
		t.Error("a server that nobody knows is trusted")
	}
	c, err := (&TCP{TLS: trusting}).Dial(t.Context(), "tcps://"+inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestTCP_AddressesNameSchemeAndPort(t *testing.T) {
	for _, at := range []string{"127.0.0.1:8082", "ws://127.0.0.1:8082", "tcp://127.0.0.1", "tcp://", "://"} {
		if _, err := (&TCP{}).Dial(t.Context(), at); err == nil {
			t.Errorf("%q is taken for an address", at)
		}
	}
}
