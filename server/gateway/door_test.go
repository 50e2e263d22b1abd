package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/admission"
	"carillon/server/client"
	"carillon/server/forwarded"
	"carillon/server/transport"
)

// ask sends a request from an address on a connection of its own. It returns 0 for the status if the connection was closed instead.
func (n *testNode) ask(from string, lines ...string) (status int) {
	n.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	nc, err := d.DialContext(n.t.Context(), "tcp", n.PublicAddr().String())
	if err != nil {
		return 0 // the reset was there first
	}
	defer nc.Close()
	request := append([]string{lines[0] + " HTTP/1.1", "Host: localhost"}, lines[1:]...)
	if _, err := io.WriteString(nc, strings.Join(request, "\r\n")+"\r\n\r\n"); err != nil {
		return 0
	}
	res, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

// connects is a WebSocket's request.
var connects = []string{
	"GET /connect", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: Y2FyaWxsb24gYmVuY2ggLg==",
}

// strict lets an address connect once a second, and tells it ten times that it was too fast.
var strict = admission.Config{AddressRate: 1, AddressBurst: 1, AddressRefusals: 1}

func TestDoor_BeyondItsAnswersAnAddressIsNotRead(t *testing.T) {
	n := startWith(t, vfs.NewMem(), func(cfg *Config) { cfg.Admission = strict })
	got := make(map[int]int)
	for range 100 {
		got[n.ask("127.0.0.2", connects...)]++
	}
	if got[101] == 0 || got[429] == 0 || got[0] == 0 || got[101]+got[429]+got[0] != 100 {
		t.Errorf("got %v, want some that were let in, some that were told 429, and the rest unread", got)
	}
	if status := n.ask("127.0.0.3", connects...); status != 101 {
		t.Errorf("another address got %d", status)
	}
	if want := fmt.Sprintf(`carillon_admission_closed_total{reason="address_refusals"} %d`, got[0]); !strings.Contains(n.adminText("/metrics"), want) {
		t.Errorf("/metrics has no %s", want)
	}
}

// A connection that is kept for the next request would be a way around the door.
func TestDoor_AKeptConnectionEndsWithItsLastAnswer(t *testing.T) {
	n := startWith(t, vfs.NewMem(), func(cfg *Config) { cfg.Admission = strict })
	for _, path := range []string{"/connect", "/connect/sse", "/connect/poll", "/v1/messages"} {
		nc, err := net.Dial("tcp", n.PublicAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		r := bufio.NewReader(nc)
		request := func(upgrade bool) (closes bool) {
			t.Helper()
			lines := []string{"GET " + path + " HTTP/1.1", "Host: localhost"}
			if upgrade {
				lines = append(lines, connects[1:]...)
			}
			if _, err := io.WriteString(nc, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				t.Fatal(err)
			}
			return res.Close
		}
		if request(false) {
			t.Fatalf("%s: the connection ends although its address is heard", path)
		}
		for n.edge.door.Hears(netip.MustParseAddr("127.0.0.1")) {
			_, _ = n.edge.gate.Admit(netip.MustParseAddr("127.0.0.1")) // until it is not
		}
		if got, want := request(path == "/connect"), path != "/v1/messages"; got != want {
			t.Errorf("%s: the connection ends: %v, want %v", path, got, want)
		}
		eventually(t, 20*time.Second, func() bool { return n.edge.door.Hears(netip.MustParseAddr("127.0.0.1")) },
			func() string { return "the address is not heard any more" })
	}
}

// A balancer keeps few connections, each for many clients: none of them is closed, and its clients are told one by one.
func TestDoor_AProxyIsAlwaysAnswered(t *testing.T) {
	n := startWith(t, vfs.NewMem(), func(cfg *Config) {
		cfg.Admission = admission.Config{AddressRate: 1, AddressBurst: 1, AddressRefusals: 1, Rate: 1, Burst: 1, Refusals: 1}
		cfg.Door = admission.DoorConfig{PerAddress: 1}
		cfg.Proxies = forwarded.Config{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}
	})
	for i := range 100 {
		from := fmt.Sprintf("X-Forwarded-For: 203.0.113.%d", i%4)
		if status := n.ask("127.0.0.2", append(connects, from)...); status == 0 {
			t.Fatal("a connection of a proxy was closed unread")
		}
	}
}

func TestRequests_TenTimesPastTheRateOfAnAddress(t *testing.T) {
	const most = 3
	n := startWith(t, vfs.NewMem(), func(cfg *Config) { cfg.Admission.AddressRequests = most })
	for i, path := range []string{"/connect/frames", "/connect/ticket"} {
		from := fmt.Sprintf("127.0.0.%d", 2+i)
		got := make(map[int]int)
		for range 10 * 10 * most {
			got[n.ask(from, "POST "+path, "Content-Length: 0")]++
		}
		if got[http.StatusUnauthorized] < 10*most || got[http.StatusTooManyRequests] == 0 || len(got) != 2 {
			t.Errorf("%s: got %v, want at least %d of 401, and 429", path, got, 10*most)
		}
		if status := n.ask(from, "GET /connect/poll"); status != http.StatusUnauthorized {
			t.Errorf("a poll got %d: what a session costs is not limited here", status)
		}
	}
	if status := n.ask("127.0.0.9", "POST /connect/ticket", "Content-Length: 0"); status != http.StatusUnauthorized {
		t.Errorf("another address got %d", status)
	}
}

// Ten times as many connections that say nothing as an address may have.
func TestDoor_SilentConnectionsAreBounded(t *testing.T) {
	const most = 5
	n := startWith(t, vfs.NewMem(), func(cfg *Config) { cfg.Door.PerAddress = most })
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	ended := make(chan struct{}, 10*most)
	for range 10 * most {
		nc, err := d.DialContext(t.Context(), "tcp", n.PublicAddr().String())
		if err != nil {
			ended <- struct{}{}
			continue
		}
		defer nc.Close()
		go func() {
			_, _ = nc.Read(make([]byte, 1)) // ends with the connection
			ended <- struct{}{}
		}()
	}
	for range 9 * most {
		<-ended
	}
	if got := n.edge.door.Open(); got > most {
		t.Errorf("%d are open, want at most %d", got, most)
	}
	if status := n.ask("127.0.0.3", connects...); status != 101 {
		t.Errorf("another address got %d", status)
	}
}

// What carries a session is the session's, in the clear and under TLS, and has its own limit.
func TestDoor_SessionsAreNotCountedTwice(t *testing.T) {
	for _, c := range []struct {
		name  string
		start func() *testNode
	}{
		{"plain", func() *testNode { return start(t, vfs.NewMem()) }},
		{"TLS", func() *testNode { n, _, _, _ := secured(t, func(*Config) {}); return n }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := c.start()
			n.setUp()
			for _, over := range []transport.Kind{transport.WebSocket, transport.SSE, transport.TCP} {
				w := n.watchOver(over, n.token("alice", string(over)), &client.Memory{})
				select {
				case <-w.caught:
				case err := <-w.done:
					t.Fatalf("%s: the client ended with %v", over, err)
				}
			}
			eventually(t, 20*time.Second, func() bool {
				n.http.CloseIdleConnections()
				return n.edge.door.Open() == 0
			}, func() string { return fmt.Sprintf("%d connections count as without a session", n.edge.door.Open()) })
		})
	}
}

// A poll's connection carries a session while it waits, and none once it is answered.
func TestDoor_AnAnsweredPollsConnectionCountsAgain(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	n.http = &http.Client{Transport: &http.Transport{}}
	p := n.poller("alice", "phone")
	p.caughtUp()
	http.DefaultClient.CloseIdleConnections()
	eventually(t, 20*time.Second, func() bool { return n.edge.door.Open() == 1 },
		func() string { return fmt.Sprintf("%d connections are open, want the poll's", n.edge.door.Open()) })
	for _, reused := range p.reused[1:] {
		if !reused {
			t.Error("a poll came on another connection")
		}
	}
	n.http.CloseIdleConnections()
	eventually(t, 20*time.Second, func() bool { return n.edge.door.Open() == 0 },
		func() string { return "the connection counts although it is closed" })
}
