package fleet

import (
	"context"
	"io"
	"net"
	"testing"
)

// echoing returns the address of a server that says back what it hears, behind its name.
func echoing(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(nc)
			io.WriteString(nc, name+" "+string(b))
			nc.Close()
		}
	}()
	return l.Addr().String()
}

func TestBalancer_CarriesRawConnectionsToARoomThatIsThere(t *testing.T) {
	f := bare(Room, "", "", "")
	for i, at := range []string{nobody(t), echoing(t, "second"), echoing(t, "third")} {
		f.nodes[i].life.TCP = at
	}
	b := allReady(f)
	b.note(f.nodes[2], false, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.ServeTCP(ctx, l) }()
	dial := func() *net.TCPConn {
		t.Helper()
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return nc.(*net.TCPConn)
	}
	for range 3 {
		nc := dial()
		if _, err := io.WriteString(nc, "hello"); err != nil {
			t.Fatal(err)
		}
		if err := nc.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(nc); string(got) != "second hello" {
			t.Errorf("got %q (%v), want the second room's word: the first is not there, the third not ready", got, err)
		}
		nc.Close()
	}
	open := dial()
	defer open.Close()
	if _, err := io.WriteString(open, "hello"); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if got, _ := io.ReadAll(open); len(got) > 0 {
		t.Errorf("got %q over a connection that was cut", got)
	}
}
