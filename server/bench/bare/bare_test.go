package bare

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"carillon/server/wire"
)

// serving starts a server and returns its address. What ends it is what ends it in the bench.
func serving(t *testing.T, kind string) string {
	t.Helper()
	in, stop := io.Pipe()
	out, says := io.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(kind, in, says) }()
	t.Cleanup(func() {
		stop.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func TestLibrary_WelcomesClientsAndLetsThemGo(t *testing.T) {
	at := serving(t, Library)
	for range 3 {
		c, _, err := websocket.Dial(t.Context(), "ws://"+at+"/connect", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Write(t.Context(), websocket.MessageText, []byte(`{"type":"connect"}`)); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"*wire.Welcome", "*wire.Cursor"} {
			_, b, err := c.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			f, err := wire.DecodeServer(wire.JSON, b)
			if got := fmt.Sprintf("%T", f); err != nil || got != want {
				t.Errorf("got %s (%v), want a %s", b, err, want)
			}
		}
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Errorf("its goodbye is not answered: %v", err)
		}
	}
}

func TestServe_RefusesAKindThatItDoesNotKnow(t *testing.T) {
	if err := Serve("magic", strings.NewReader(""), io.Discard); err == nil || !strings.Contains(err.Error(), "magic") {
		t.Errorf("got %v, want an error that names it", err)
	}
}
