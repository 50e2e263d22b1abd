//go:build failpoints

package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/client"
	"carillon/server/dev"
	"carillon/server/fleet"
	"carillon/server/history"
	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// The tests of this build start real binaries: one as it is released, one with failpoints. Both are built once.
var (
	plainBinary     = sync.OnceValues(func() (string, error) { return buildBinary() })
	failpointBinary = sync.OnceValues(func() (string, error) { return buildBinary("-tags", "failpoints") })
	binaries        string // their directory, made by TestMain
)

func buildBinary(args ...string) (string, error) {
	out := filepath.Join(binaries, "carillon"+strings.Join(args, ""))
	args = append(append([]string{"build", "-o", out}, args...), "carillon/server/cmd/carillon")
	if b, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, b)
	}
	return out, nil
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "carillon-crash.")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaries = dir
	code := pool.Closing(m).Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// proc is a server that can be killed and started again on its data.
type proc struct {
	t      *testing.T
	bin    string
	data   string
	engine string // --transport-engine

	addr  atomic.Pointer[string] // host:port of the public listener
	tcp   atomic.Pointer[string] // of the one for raw TCP
	admin atomic.Pointer[string]
	key   string

	sendsTo func(*fleet.Node) bool // of the balancer before a fleet

	mu   sync.Mutex
	cmd  *exec.Cmd
	died chan struct{}
	log  *bytes.Buffer
}

func newProc(t *testing.T, binary func() (string, error)) *proc {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &proc{t: t, bin: bin, data: t.TempDir(), engine: cmp.Or(*engine, "auto")}
	t.Cleanup(func() { p.kill() })
	return p
}

// start starts the server and waits until it is ready; false if it died before (of an armed failpoint).
func (p *proc) start(failpoint string) bool {
	p.t.Helper()
	cmd := exec.Command(p.bin, "serve", "--dev", "--data", p.data, "--public-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--tcp-listen", "127.0.0.1:0",
		"--transport-engine", p.engine)
	cmd.Env = append(os.Environ(), "CARILLON_FAILPOINT="+failpoint)
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	before, _ := os.Stat(dev.Path(p.data))
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	died := make(chan struct{})
	go func() { _ = cmd.Wait(); close(died) }()
	p.mu.Lock()
	p.cmd, p.died, p.log = cmd, died, log
	p.mu.Unlock()

	deadline := time.After(30 * time.Second)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-died:
			return false
		case <-deadline:
			p.kill()
			p.t.Fatalf("the server did not become ready:\n%s", log.String())
		case <-poll.C:
		}
		now, err := os.Stat(dev.Path(p.data))
		if err != nil || before != nil && os.SameFile(before, now) {
			continue // of the life before; it is replaced by rename
		}
		f, err := dev.Load(p.data)
		if err != nil {
			continue
		}
		resp, err := http.Get(f.Admin + "/readyz")
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			public, admin := strings.TrimPrefix(f.Public, "http://"), strings.TrimPrefix(f.Admin, "http://")
			tcp := strings.TrimPrefix(f.TCP, "tcp://")
			p.key = f.APIKey
			p.addr.Store(&public)
			p.tcp.Store(&tcp)
			p.admin.Store(&admin)
			return true
		}
	}
}

// kill ends the server with SIGKILL, if it still runs, and waits for its end.
func (p *proc) kill() {
	p.mu.Lock()
	cmd, died := p.cmd, p.died
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill()
	<-died
}

// http dials the server wherever it listens at the moment, whatever address was asked for.
func (p *proc) http() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: dialAt(&p.addr), MaxIdleConnsPerHost: 16}}
}

func dialAt(at *atomic.Pointer[string]) func(ctx context.Context, network, _ string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		addr := at.Load()
		if addr == nil {
			return nil, fmt.Errorf("the server never ran")
		}
		var d net.Dialer
		return d.DialContext(ctx, network, *addr)
	}
}

// dialer returns how a client reaches the server over a transport, wherever it listens at the moment.
func (p *proc) dialer(over transport.Kind) (url string, d client.Dialer) {
	switch over {
	case transport.WebSocket:
		return "ws://carillon/connect", &client.WebSocket{Client: p.http()}
	case transport.SSE:
		return "http://carillon/connect", &client.SSE{Client: p.http()}
	case transport.LongPoll:
		return "http://carillon/connect", &client.LongPoll{Client: p.http()}
	case transport.TCP:
		return "tcp://carillon:1", &client.TCP{DialContext: dialAt(&p.tcp)}
	}
	p.t.Fatalf("no client connects over %s", over)
	return "", nil
}

// post sends a request to the REST interface; status 0: no answer.
func (p *proc) post(ctx context.Context, c *http.Client, method, path, key string, body any) (int, map[string]any) {
	b, err := json.Marshal(body)
	if err != nil {
		p.t.Error(err)
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://carillon"+path, bytes.NewReader(b))
	if err != nil {
		p.t.Error(err)
		return 0, nil
	}
	req.Header.Set("Authorization", "Bearer "+p.key)
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil && err != io.EOF {
		return 0, nil // cut in the middle
	}
	return resp.StatusCode, out
}

// device is a client with a storage that outlives the server's crashes, writing down what it sees.
type device struct {
	name  history.Device
	over  transport.Kind
	store client.Memory
	seen  atomic.Int64
	live  atomic.Uint64 // the session that there is
	last  atomic.Pointer[client.Status]
	done  chan error
	stop  context.CancelFunc
}

func (p *proc) token(d history.Device) client.TokenSource {
	return func(context.Context, bool) (string, error) {
		f, err := dev.Load(p.data)
		if err != nil {
			return "", err
		}
		return auth.Mint(auth.SigningKey{ID: catalog.KeyID(f.KeyID), Alg: catalog.HS256, Private: f.Key}, auth.Claims{
			Product: push.ProductID(f.Product), User: push.UserID(d.User), Device: push.DeviceID(d.Device),
			Platform: push.PlatformWeb, Issued: time.Now(), Expires: time.Now().Add(time.Hour),
		})
	}
}

// connect runs a device until stop; log gets what it sees.
func (p *proc) connect(ctx context.Context, d *device, log *history.Log, caughtUp func()) {
	p.t.Helper()
	ctx, d.stop = context.WithCancel(ctx)
	d.done = make(chan error, 1)
	url, dialer := p.dialer(d.over)
	c, err := client.New(client.Config{
		URLs: []string{url}, Tokens: p.token(d.name), Storage: &d.store, Dialer: dialer, Backoff: client.Backoff{Base: 20 * time.Millisecond, Max: 200 * time.Millisecond},
		AckEvery: 50 * time.Millisecond,
		Callbacks: client.Callbacks{
			Message: func(_ context.Context, m *wire.Message) error {
				log.Add(history.Record{Kind: history.Deliver, Device: d.name, ID: m.ID.String(), Body: string(m.Body),
					Slot: int(m.Slot), Pos: uint64(m.Pos), Session: d.live.Load()})
				if m.Persistent { // of the others nobody knows how many come
					d.seen.Add(1)
				}
				return nil
			},
			Gap: func(_ context.Context, g *wire.Gap) {
				log.Add(history.Record{Kind: history.Gap, Device: d.name, Slot: int(g.Slot)})
			},
			Acked: func(cursor string) {
				if _, c, err := push.ParseCursor(cursor); err == nil {
					for k := range c {
						log.Add(history.Record{Kind: history.Ack, Device: d.name, Slot: k, Pos: uint64(c[k].Pos)})
					}
				}
			},
			Status: func(s client.Status) {
				d.last.Store(&s)
				if s.Welcome != nil {
					d.live.Store(uint64(s.Welcome.Session))
				}
				if s.Phase == client.CaughtUp && caughtUp != nil {
					caughtUp()
				}
			},
		},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	go func() { d.done <- c.Run(ctx) }()
}

// where tells how a device that misses something stands.
func (d *device) where() string {
	s := d.last.Load()
	if s == nil {
		return fmt.Sprintf("%v never connected", d.name)
	}
	select {
	case err := <-d.done:
		d.done <- err
		return fmt.Sprintf("%v ended with %v", d.name, err)
	default:
	}
	return fmt.Sprintf("%v is %v (%v, in %v), after %d messages", d.name, s.Phase, s.Err, s.Delay, d.seen.Load())
}

// leave ends a device and waits for it.
func (d *device) leave(t *testing.T) {
	t.Helper()
	d.stop()
	if err := <-d.done; err != nil {
		t.Errorf("%v: %v", d.name, err)
	}
}
