package bare

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"
)

func TestKernel_SaysWhatAClientWaitsForAndClosesBehindIt(t *testing.T) {
	at := serving(t, Kernel)
	welcome, caughtUp := greeting()
	want := append(appendServed(appendServed(nil, welcome), caughtUp), goodbye...)
	for range 3 {
		nc, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		say := func(s string) {
			t.Helper()
			if _, err := io.WriteString(nc, s); err != nil {
				t.Fatal(err)
			}
		}
		say("GET /connect HTTP/1.1\r\nHost: x\r\n\r\n")
		r := bufio.NewReader(nc)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("got %v (%v), want an upgrade", resp, err)
		}
		say("the connect frame")
		got := make([]byte, len(want)-len(goodbye))
		if _, err := io.ReadFull(r, got); err != nil {
			t.Fatal(err)
		}
		say("a goodbye")
		rest, err := io.ReadAll(r)
		if got = append(got, rest...); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %q (%v), want %q and the end", got, err, want)
		}
	}
}

func TestKernel_ClosesWhatIsNoRequest(t *testing.T) {
	nc, err := net.Dial("tcp", serving(t, Kernel))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, "hello"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(nc); err != nil || len(got) > 0 {
		t.Errorf("got %q (%v), want the end alone", got, err)
	}
}
