//go:build failpoints

package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"carillon/server/fleet"
	"carillon/server/transport"
)

// nextBinary is the version after this one, as far as others notice it; see package nextversion.
var nextBinary = sync.OnceValues(func() (string, error) { return buildBinary("-tags", "nextversion") })

// nextDevice is a device whose client is of the next version: a process of that binary.
type nextDevice struct {
	over  transport.Kind
	user  string
	cmd   *exec.Cmd
	said  *bytes.Buffer // of its standard error; read it after done is closed
	done  chan struct{} // closed when it has ended
	times atomic.Int64  // messages that came more than once
	ready chan struct{} // closed when it has got the first message

	mu  sync.Mutex
	got map[string]bool // ids; guarded by mu
}

// startNext runs a device of the next version behind the balancer until the test ends.
func startNext(t *testing.T, bin string, p *proc, user string, over transport.Kind) *nextDevice {
	t.Helper()
	name := map[transport.Kind]string{transport.WebSocket: "ws", transport.SSE: "sse", transport.LongPoll: "poll", transport.TCP: "tcp"}[over]
	url := "http://" + *p.addr.Load()
	if over == transport.TCP {
		url = "tcp://" + *p.tcp.Load()
	}
	d := &nextDevice{over: over, user: user, said: &bytes.Buffer{}, done: make(chan struct{}), ready: make(chan struct{}), got: make(map[string]bool)}
	d.cmd = exec.Command(bin, "listen", "--json", "--transport", name, "--url", url, "--data", p.data, "--user", user, "--device", "next-"+name,
		"--state", filepath.Join(t.TempDir(), "state.json"))
	d.cmd.Stderr = d.said
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.done)
		d.read(out)
		_ = d.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		<-d.done
	})
	return d
}

func (d *nextDevice) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var m struct{ Type, ID string }
		if json.Unmarshal(lines.Bytes(), &m) != nil || m.Type != "message" {
			continue
		}
		d.mu.Lock()
		if len(d.got) == 0 {
			close(d.ready)
		}
		if d.got[m.ID] {
			d.times.Add(1)
		}
		d.got[m.ID] = true
		d.mu.Unlock()
	}
}

// has reports whether all of what was sent has come.
func (d *nextDevice) has(sent map[string]string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range sent {
		if !d.got[id] {
			return false
		}
	}
	return true
}

// tell publishes through the balancer, or through one node, under a key, until it is accepted; it returns the message's id.
func (p *proc) tell(t *testing.T, key string, to, message map[string]any) string {
	t.Helper()
	var id string
	c := p.http()
	eventually(t, 30*time.Second, func() bool {
		status, a := p.post(t.Context(), c, http.MethodPost, "/v1/messages", key, map[string]any{"to": to, "message": message})
		id, _ = a["id"].(string)
		return status == http.StatusCreated
	}, func() string { return "publishing " + key + " does not succeed" })
	return id
}

// A cluster is upgraded node by node and taken back again, and for a while half of it is of either version. Whatever the one writes the other reads: slots, cursors,
// keys, intents and tags, sessions and leases, products and keys, deliveries and calls between nodes, frames of clients of both
// versions. Devices get everything once, whoever sent it and whoever holds them.
func TestVersions_OneApartShareAClusterThroughAnUpgradeAndBack(t *testing.T) {
	next, err := nextBinary()
	if err != nil {
		t.Fatal(err)
	}
	f, p := startFleet(t, fleet.Config{Rooms: 2, Env: []string{"CARILLON_DRAIN_SPREAD=500ms"}})
	rooms, centers := f.Of(fleet.Room), f.Of(fleet.Center)
	l := newLoad(p, 4, overs...)
	l.online(t)
	alice := map[string]any{"users": []string{"alice"}}
	var later []*nextDevice
	for _, over := range overs {
		later = append(later, startNext(t, next, p, "alice", over))
	}
	for _, d := range later { // of a new device nobody knows when it is there but by what it gets
		for i := 0; ; i++ {
			p.tell(t, fmt.Sprint("first-", d.over, i), alice, map[string]any{"body": "first"})
			select {
			case <-d.ready:
			case <-d.done:
				t.Fatalf("the device over %s ended: %s", d.over, d.said)
			case <-time.After(100 * time.Millisecond):
				if i < 600 {
					continue
				}
				t.Fatalf("the device over %s gets nothing", d.over)
			}
			break
		}
	}
	sending, enough := context.WithCancel(t.Context())
	defer enough()
	wg := l.senders(sending, t.Context(), 2)
	recalls := l.recaller(sending, t.Context(), "nobody", "no-one")
	sent := make(map[string]string) // what alice was sent by hand: ids by key
	for step, s := range []struct {
		what   string
		binary string
		nodes  []*fleet.Node
	}{
		{"all are of this version", "", nil},
		{"one room and one center are of the next", next, []*fleet.Node{rooms[0], centers[0]}},
		{"all are of the next", next, []*fleet.Node{rooms[1], centers[1]}},
		{"one room and one center are taken back", "", []*fleet.Node{rooms[0], centers[0]}},
		{"all are taken back", "", []*fleet.Node{rooms[1], centers[1]}},
	} {
		t.Log(s.what)
		for _, n := range s.nodes {
			n.Use(s.binary)
		}
		restart(t, p, s.nodes...)
		l.awaitProgress(t, 30)
		for i, n := range centers { // each center, whatever it is
			at := clientsOf(t, p.data, n.Public(), "")
			at.key = p.key
			for key, id := range sent { // a key that any center took is known to all
				if again := at.tell(t, key, audienceOf(key), messageOf(key)); again != id {
					t.Errorf("%s: the request %s was message %s and is %s", s.what, key, id, again)
				}
			}
			for _, kind := range []string{"own", "two", "large"} {
				key := fmt.Sprintf("%s-%d-%d", kind, step, i)
				sent[key] = at.tell(t, key, audienceOf(key), messageOf(key))
			}
			at.asks(t, s.what, http.MethodPut, "/v1/users/alice/tags", map[string]any{"tags": []string{fmt.Sprint("step-", step), "all"}})
			if a := at.asks(t, s.what, http.MethodPost, "/v1/users/nobody/kick", map[string]any{}); a["status"] != "confirmed" {
				t.Errorf("%s: a kick is %v, want every room to have heard it", s.what, a)
			}
			a := at.asks(t, s.what, http.MethodGet, "/v1/users/alice", nil)
			if devices, _ := a["devices"].([]any); len(devices) != len(later) {
				t.Errorf("%s: alice has the devices %v, want %d", s.what, a["devices"], len(later))
			}
		}
		for _, d := range later {
			eventually(t, 60*time.Second, func() bool { return d.has(sent) }, func() string {
				return fmt.Sprintf("%s: the device of the next version over %s misses something", s.what, d.over)
			})
		}
		eventually(t, 30*time.Second, func() bool { return len(l.homes(t, f)) == len(l.devices) }, func() string {
			return fmt.Sprintf("%s: the center knows the sessions %v of %d devices", s.what, l.homes(t, f), len(l.devices))
		})
	}
	enough()
	wg.Wait()
	recalls.Wait()
	l.rest(t)
	for _, d := range later {
		if n := d.times.Load(); n > 0 {
			t.Errorf("the device of the next version over %s got %d messages again", d.over, n)
		}
	}
}

// audienceOf and messageOf are what is sent by hand under a key: to one user, to two, or to two and so large that its body lies apart.
func audienceOf(key string) map[string]any {
	if strings.HasPrefix(key, "own") {
		return map[string]any{"users": []string{"alice"}}
	}
	return map[string]any{"users": []string{"alice", "bob"}}
}

func messageOf(key string) map[string]any {
	body := key
	if strings.HasPrefix(key, "large") {
		body = strings.Repeat(key, 1000)
	}
	return map[string]any{"body": body, "collapse_key": key, "headers": map[string]string{"key": key}, "ref": key}
}

// asks makes a request that has to succeed.
func (p *proc) asks(t *testing.T, when, method, path string, body any) map[string]any {
	t.Helper()
	status, a := p.post(t.Context(), p.http(), method, path, "", body)
	if status/100 != 2 {
		t.Errorf("%s: %s %s is answered %d %v", when, method, path, status, a)
	}
	return a
}
