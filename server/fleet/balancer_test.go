package fleet

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// bare returns a fleet of nodes that are not processes, each at one of the addresses.
func bare(role Role, addresses ...string) *Fleet {
	f := &Fleet{}
	for i, a := range addresses {
		f.nodes = append(f.nodes, &Node{fleet: f, name: string(role) + string(rune('1'+i)), role: role, life: life{Public: a, Admin: a}})
	}
	return f
}

// serving returns the address of a server that answers with its name, the path and the body that it got.
func serving(t *testing.T, name string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		io.WriteString(w, strings.TrimSpace(name+" "+r.URL.Path+" "+string(b)))
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// nobody returns an address where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

// breaking returns the address of a server that takes a request and hangs up.
func breaking(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// ask sends a request through a balancer and returns status and answer.
func ask(b *Balancer, path, body string) (int, string) {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	return w.Code, strings.TrimSpace(w.Body.String())
}

// allReady returns a balancer to which every node is ready.
func allReady(f *Fleet) *Balancer {
	b := NewBalancer(f)
	for _, n := range f.nodes {
		b.note(n, true, nil)
	}
	return b
}

func TestBalancer_ANodeThatIsNotReachedHandsTheWholeRequestToTheNext(t *testing.T) {
	f := bare(Center, nobody(t), serving(t, "second"))
	for range 4 { // whoever's turn it is
		b := allReady(f)
		if status, got := ask(b, "/v1/messages", "hello"); status != 200 || got != "second /v1/messages hello" {
			t.Errorf("got %d %q, want the second node's answer to all of it", status, got)
		}
		b.turn.Add(1)
	}
	b := allReady(f)
	for range 2 {
		ask(b, "/v1/messages", "hello")
	}
	if b.ready[f.nodes[0]] {
		t.Error("the node that was not reached still counts as ready")
	}
}

func TestBalancer_ANodeThatBreaksOffIsNotRepeatedElsewhere(t *testing.T) {
	second := false
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { second = true }))
	defer s.Close()
	b := allReady(bare(Center, breaking(t), s.Listener.Addr().String()))
	b.turn.Store(1) // the first node is next
	if status, got := ask(b, "/v1/messages", "hello"); status != http.StatusBadGateway {
		t.Errorf("got %d %q, want 502: nobody knows", status, got)
	}
	if second {
		t.Error("the request was repeated at the second node")
	}
}

func TestBalancer_OnlyReadyNodesOfTheRoleAreAsked(t *testing.T) {
	f := bare(Center, serving(t, "center"), serving(t, "busy"))
	f.nodes = append(f.nodes, bare(Room, serving(t, "room")).nodes...)
	b := NewBalancer(f)
	for _, path := range []string{"/v1/messages", "/connect"} {
		if status, _ := ask(b, path, ""); status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d before anybody was ready, want 503", path, status)
		}
	}
	b.note(f.nodes[0], true, nil)
	if status, _ := ask(b, "/connect", ""); status != http.StatusServiceUnavailable {
		t.Errorf("%d without a room, want 503", status)
	}
	b.note(f.nodes[2], true, nil)
	for range 4 {
		for path, want := range map[string]string{
			"/connect": "room /connect", "/connect/sse": "room /connect/sse", "/v1/messages": "center /v1/messages", "/connected": "center /connected",
		} {
			if status, got := ask(b, path, ""); status != 200 || got != want {
				t.Errorf("%s: %d %q, want %q", path, status, got, want)
			}
		}
	}
}

func TestBalancer_NodesTakeTurns(t *testing.T) {
	b := allReady(bare(Center, serving(t, "a"), serving(t, "b"), serving(t, "c")))
	got := make(map[string]int)
	for range 9 {
		_, who := ask(b, "/", "")
		got[who]++
	}
	if got["a /"] != 3 || got["b /"] != 3 || got["c /"] != 3 {
		t.Errorf("the turns were %v, want three for each", got)
	}
}

func TestBalancer_ALargeBodyArrivesWhole(t *testing.T) {
	counts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	}))
	defer counts.Close()
	b := allReady(bare(Center, counts.Listener.Addr().String()))
	for _, size := range []int{mayRepeat, mayRepeat + 1, 3 * mayRepeat} {
		if status, got := ask(b, "/v1/lists", strings.Repeat("x", size)); status != http.StatusOK || got != fmt.Sprint(size, " <nil>") {
			t.Errorf("of %d bytes arrived %s (%d)", size, got, status)
		}
	}
}

func TestNode_IsReadyWhenItSaysSo(t *testing.T) {
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.WriteHeader(status)
	}))
	defer s.Close()
	n := bare(Room, s.Listener.Addr().String()).nodes[0]
	if !n.ready(t.Context(), n.Admin()) {
		t.Error("a node that answers 200 is not ready")
	}
	status = http.StatusServiceUnavailable
	if n.ready(t.Context(), n.Admin()) {
		t.Error("a node that answers 503 is ready")
	}
	if n.ready(t.Context(), nobody(t)) {
		t.Error("a node that does not listen is ready")
	}
}

func TestBalancer_TellsOfChangesAlone(t *testing.T) {
	f := bare(Room, "127.0.0.1:1")
	b := NewBalancer(f)
	var told []bool
	for _, ready := range []bool{false, true, true, false, false, true} {
		b.note(f.nodes[0], ready, func(_ *Node, ready bool) { told = append(told, ready) })
	}
	if len(told) != 3 || !told[0] || told[1] || !told[2] {
		t.Errorf("told %v, want ready, not ready, ready", told)
	}
}

// A node that was never started does not run: no watch calls it ready, even if somebody else listens at its address.
func TestBalancer_WatchPassesOverNodesThatDoNotRun(t *testing.T) {
	f := bare(Center, serving(t, "another"))
	b := NewBalancer(f)
	b.note(f.nodes[0], true, nil)
	ctx, cancel := context.WithCancel(t.Context())
	b.watch(ctx, func(_ *Node, ready bool) {
		if ready {
			t.Error("a node that does not run is ready")
		}
		cancel()
	})
}

func TestBalancer_ServesUntilItIsTold(t *testing.T) {
	b := NewBalancer(bare(Center, nobody(t)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, l, nil) }()
	resp, err := http.Get("http://" + l.Addr().String() + "/v1/messages")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %s of nodes that are not there, want 503", resp.Status)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if nc, err := net.Dial("tcp", l.Addr().String()); err == nil {
		nc.Close()
		t.Error("somebody listens still")
	}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	if err := b.Serve(t.Context(), gone, nil); err == nil {
		t.Error("a listener that does not work is no error")
	}
}
