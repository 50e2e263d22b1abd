package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/client"
	"carillon/server/dev"
	"carillon/server/push"
	"carillon/server/room"
	"carillon/server/transport"
	"carillon/server/transport/ws"
	"carillon/server/wire"
)

// engine is how the nodes of these tests hold connections; make test plays them on every one that the system has.
var engine = flag.String("engine", "", "epoll or goroutine; by default the best that the system has")

const secret = "kB3xT0q9vWm2ZrY7uN5sLcP8dHfJgA1e"

// testNode is a gateway that runs inside the test.
type testNode struct {
	*Gateway
	t    *testing.T
	stop func()
	logs *safeBuffer
	key  string       // API key
	http *http.Client // for the public listener; http.DefaultClient
	sign auth.SigningKey
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// start runs a production node on the file system fs.
func start(t *testing.T, fs vfs.FS) *testNode {
	t.Helper()
	return startRoom(t, fs, room.Config{CloseTimeout: 2 * time.Second})
}

// startRoom runs one whose room has these intervals.
func startRoom(t *testing.T, fs vfs.FS, cfg room.Config) *testNode {
	t.Helper()
	return startWith(t, fs, func(c *Config) { c.Room = cfg })
}

// startWith runs one whose configuration a test changes.
func startWith(t *testing.T, fs vfs.FS, change func(*Config)) *testNode {
	t.Helper()
	logs := &safeBuffer{}
	cfg := Config{
		Data: "data", FS: fs, Secret: secret, PublicListen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", TCPListen: "127.0.0.1:0", ShutdownTimeout: 10 * time.Second,
		Log:    slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Engine: ws.Engine(*engine),
	}
	change(&cfg)
	g, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return runNode(t, g, logs)
}

// runNode runs a node that was opened.
func runNode(t *testing.T, g *Gateway, logs *safeBuffer) *testNode {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	n := &testNode{Gateway: g, t: t, logs: logs, http: http.DefaultClient}
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("the node ended with %v", err)
			}
			if err := g.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
		})
	}
	t.Cleanup(n.stop)
	if g.room != nil {
		<-g.room.Joined()
	}
	return n
}

// call makes a request and returns status and answer.
func (n *testNode) call(method, base, path, bearer string, body any) (int, map[string]any) {
	n.t.Helper()
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			n.t.Fatal(err)
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(n.t.Context(), method, base+path, in)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	hc := http.DefaultClient
	if base == n.PublicURL() {
		hc = n.http
	}
	resp, err := hc.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	out := map[string]any{}
	if b, _ := io.ReadAll(resp.Body); len(b) > 0 {
		if err := json.Unmarshal(b, &out); err != nil {
			n.t.Fatalf("%s %s answered %q", method, path, b)
		}
	}
	return resp.StatusCode, out
}

func (n *testNode) admin(method, path string, body any) (int, map[string]any) {
	n.t.Helper()
	return n.call(method, urlOf(n.AdminAddr()), path, secret, body)
}

// adminText returns what stands at a path of the admin listener that anybody may read.
func (n *testNode) adminText(path string) string {
	n.t.Helper()
	resp, err := http.Get(urlOf(n.AdminAddr()) + path)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(b)
}

// wantReady holds the node to say that it carries sessions over a transport.
func (n *testNode) wantReady(over transport.Kind) {
	n.t.Helper()
	var a ready
	if err := json.Unmarshal([]byte(n.adminText("/readyz")), &a); err != nil || !slices.Contains(a.Transports, over) {
		n.t.Errorf("/readyz names the transports %q (%v), want %s among them", a.Transports, err, over)
	}
}

func (n *testNode) rest(method, path string, body any) (int, map[string]any) {
	n.t.Helper()
	return n.call(method, n.PublicURL(), path, n.key, body)
}

// setUp makes a product with its keys through the admin interface.
func (n *testNode) setUp() {
	n.t.Helper()
	if status, a := n.admin("POST", "/admin/v1/products", map[string]any{"id": "shop", "name": "Shop"}); status != 201 {
		n.t.Fatalf("creating the product: %d %v", status, a)
	}
	key := bytes.Repeat([]byte("0123456789abcdef"), 2)
	status, a := n.admin("POST", "/admin/v1/products/shop/device-keys", map[string]any{
		"id": "k1", "alg": "HS256", "secret_base64": base64.StdEncoding.EncodeToString(key),
	})
	if status != 201 {
		n.t.Fatalf("creating the device key: %d %v", status, a)
	}
	n.sign = auth.SigningKey{ID: "k1", Alg: catalog.HS256, Private: key}
	status, a = n.admin("POST", "/admin/v1/products/shop/api-keys", map[string]any{"name": "test", "scopes": []string{"*"}})
	if status != 201 {
		n.t.Fatalf("creating the API key: %d %v", status, a)
	}
	n.key, _ = a["key"].(string)
	if n.key == "" {
		n.t.Fatalf("no key in %v", a)
	}
}

func (n *testNode) publish(user, body string) string {
	n.t.Helper()
	status, a := n.rest("POST", "/v1/messages", map[string]any{
		"to": map[string]any{"users": []string{user}}, "message": map[string]any{"body": body},
	})
	if status != 201 {
		n.t.Fatalf("publishing: %d %v", status, a)
	}
	return a["id"].(string)
}

// ackEvery is how often devices of these tests acknowledge: well below the 20 frames a second above which a room ends a session as a flood.
const ackEvery = 100 * time.Millisecond

// watcher is a device in the test.
type watcher struct {
	got    chan *wire.Message
	recall chan *wire.Recall
	kicked chan *wire.Kick
	caught chan struct{}
	done   chan error
	stop   context.CancelFunc
}

func (n *testNode) token(user, device string) string {
	n.t.Helper()
	return n.tokenOn(user, device, push.PlatformWeb)
}

func (n *testNode) tokenOn(user, device string, platform push.Platform) string {
	n.t.Helper()
	token, err := auth.Mint(n.sign, auth.Claims{
		Product: "shop", User: push.UserID(user), Device: push.DeviceID(device), Platform: platform,
		Issued: time.Now(), Expires: time.Now().Add(time.Hour),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return token
}

func (n *testNode) watch(user, device string, store client.Storage) *watcher {
	n.t.Helper()
	return n.watchWith(n.token(user, device), store)
}

// watchWith runs a device with a token of its own.
func (n *testNode) watchWith(token string, store client.Storage) *watcher {
	n.t.Helper()
	return n.watchOver(transport.WebSocket, token, store)
}

// address returns how a client reaches the node over a transport.
func (n *testNode) address(over transport.Kind) (url string, dialer client.Dialer) {
	n.t.Helper()
	url = n.PublicURL() + "/connect"
	switch over {
	case transport.WebSocket:
		return url, &client.WebSocket{Client: n.http}
	case transport.SSE:
		return url, &client.SSE{Client: n.http}
	case transport.LongPoll:
		return url, &client.LongPoll{Client: n.http}
	case transport.TCP:
		d := &client.TCP{}
		if tr, ok := n.http.Transport.(*http.Transport); ok {
			d.TLS, d.DialContext = tr.TLSClientConfig, tr.DialContext
		}
		return n.TCPURL(), d
	}
	n.t.Fatalf("no client connects over %s", over)
	return "", nil
}

func (n *testNode) watchOver(over transport.Kind, token string, store client.Storage) *watcher {
	n.t.Helper()
	url, dialer := n.address(over)
	w := &watcher{
		got: make(chan *wire.Message, 100), recall: make(chan *wire.Recall, 10), kicked: make(chan *wire.Kick, 1),
		caught: make(chan struct{}, 100), done: make(chan error, 1),
	}
	c, err := client.New(client.Config{
		URLs: []string{url}, Dialer: dialer,
		Tokens: client.StaticToken(token), Storage: store, AckEvery: ackEvery,
		Callbacks: client.Callbacks{
			Message: func(_ context.Context, m *wire.Message) error { w.got <- m; return nil },
			Recall:  func(_ context.Context, r *wire.Recall) error { w.recall <- r; return nil },
			Kick:    func(k *wire.Kick) { w.kicked <- k },
			Status: func(s client.Status) {
				if s.Phase == client.CaughtUp {
					w.caught <- struct{}{}
				}
			},
		},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	n.t.Cleanup(w.stop)
	go func() { w.done <- c.Run(ctx) }()
	return w
}

func (w *watcher) leave(t *testing.T) {
	t.Helper()
	w.stop()
	if err := <-w.done; err != nil {
		t.Errorf("the client ended with %v", err)
	}
}

func (w *watcher) want(t *testing.T, id string) *wire.Message {
	t.Helper()
	select {
	case m := <-w.got:
		if m.ID.String() != id {
			t.Fatalf("got message %s, want %s", m.ID, id)
		}
		return m
	case <-time.After(20 * time.Second):
		t.Fatalf("message %s never came", id)
	}
	return nil
}

func (n *testNode) stateOf(id, device string) string {
	n.t.Helper()
	status, a := n.rest("GET", "/v1/messages/"+id, nil)
	if status != 200 {
		n.t.Fatalf("GET message: %d %v", status, a)
	}
	for _, u := range a["users"].([]any) {
		for _, d := range u.(map[string]any)["devices"].([]any) {
			if d := d.(map[string]any); d["device"] == device {
				return d["state"].(string)
			}
		}
	}
	return ""
}

func (n *testNode) waitState(id, device, want string) {
	n.t.Helper()
	deadline := time.After(20 * time.Second)
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for got := n.stateOf(id, device); got != want; got = n.stateOf(id, device) {
		select {
		case <-deadline:
			n.t.Fatalf("message %s on %s is %q, want %q", id, device, got, want)
		case <-poll.C:
		}
	}
}

func TestGateway_AMessageWaitsArrivesSurvivesARestartAndReachesASecondDevice(t *testing.T) {
	fs := vfs.NewMem()
	n := start(t, fs)
	n.setUp()
	first := n.publish("alice", "before any device")
	phoneStore := &client.Memory{}
	phone := n.watch("alice", "phone", phoneStore)
	if m := phone.want(t, first); string(m.Body) != `"before any device"` {
		t.Errorf("the body arrived as %s", m.Body)
	}
	n.waitState(first, "phone", "acknowledged")
	web := n.watch("alice", "web", &client.Memory{})
	<-web.caught
	second := n.publish("alice", "for both")
	phone.want(t, second)
	web.want(t, second)
	n.waitState(second, "web", "acknowledged")
	phone.leave(t)
	web.leave(t)
	third := n.publish("alice", "while away")
	key, sign := n.key, n.sign
	n.stop()

	n = start(t, fs)
	n.key, n.sign = key, sign
	if got := n.stateOf(third, "phone"); got != "stored" {
		t.Errorf("after a restart the message is %q for the phone, want stored", got)
	}
	phone = n.watch("alice", "phone", phoneStore)
	phone.want(t, third)
	n.waitState(third, "phone", "acknowledged")
	if got := n.stateOf(third, "web"); got != "stored" {
		t.Errorf("the phone's acknowledgement made the message %q for the web, want stored", got)
	}
	phone.leave(t)
}

func TestGateway_RecallKickAndForgetReachTheDevice(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	phone := n.watch("alice", "phone", &client.Memory{})
	<-phone.caught
	id := n.publish("alice", "regrettable")
	phone.want(t, id)
	if status, a := n.rest("DELETE", "/v1/messages/"+id, nil); status != 200 {
		t.Fatalf("recall: %d %v", status, a)
	}
	if r := <-phone.recall; r.ID.String() != id {
		t.Errorf("recalled %v, want %s", r.ID, id)
	}
	status, user := n.rest("GET", "/v1/users/alice", nil)
	if status != 200 || user["online"] != true {
		t.Errorf("GET user: %d %v, want alice online", status, user)
	}
	if status, a := n.rest("DELETE", "/v1/users/alice/devices/phone", nil); status != 204 {
		t.Fatalf("deleting the device: %d %v", status, a)
	}
	if k := <-phone.kicked; k.Code != wire.CloseDeleted {
		t.Errorf("kicked with %v, want deleted", k.Code)
	}
	if err := <-phone.done; err == nil {
		t.Error("a client that was told to stay away came back")
	}
}

func TestGateway_RecallIsToldToTheDevicesThatTheMessageWasFor(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	phone, web := n.watch("alice", "phone", &client.Memory{}), n.watch("alice", "web", &client.Memory{})
	<-phone.caught
	<-web.caught
	status, a := n.rest("POST", "/v1/messages", map[string]any{
		"to":      map[string]any{"devices": []map[string]string{{"user": "alice", "device": "phone"}}},
		"message": map[string]any{"body": "for the phone alone"},
	})
	if status != 201 {
		t.Fatalf("publishing: %d %v", status, a)
	}
	id := a["id"].(string)
	phone.want(t, id)
	if status, a := n.rest("DELETE", "/v1/messages/"+id, nil); status != 200 {
		t.Fatalf("recall: %d %v", status, a)
	}
	if r := <-phone.recall; r.ID.String() != id {
		t.Errorf("recalled %v, want %s", r.ID, id)
	}
	web.want(t, n.publish("alice", "for both")) // whatever came before it has come
	select {
	case r := <-web.recall:
		t.Errorf("the web was told of the recall of %v, which was never for it", r.ID)
	default:
	}
	phone.leave(t)
	web.leave(t)
}

func TestGateway_TokensOfOtherProductsAndKeysAreRefused(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	n.sign.Private = []byte("another secret of thirty-two byte")
	phone := n.watch("alice", "phone", &client.Memory{})
	if err := <-phone.done; err == nil {
		t.Error("a client with a token that does not hold was let in")
	}
}

func TestGateway_AdminListenerTellsHealthAndGuardsTheRest(t *testing.T) {
	n := start(t, vfs.NewMem())
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/nothing": 404, "/debug/pprof/heap": 401, "/admin/v1/products": 401} {
		resp, err := http.Get(urlOf(n.AdminAddr()) + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s answered %d %s, want %d", path, resp.StatusCode, b, want)
		}
	}
	resp, err := http.Get(urlOf(n.AdminAddr()) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	for _, name := range []string{"carillon_room_connections", "carillon_store_healthy 1", "go_goroutines", "process_resident_memory_bytes"} {
		if name == "carillon_room_connections" {
			continue // appears with the first connection
		}
		if !bytes.Contains(b, []byte(name)) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
	for path, want := range map[string]int{"/": 404, "/v1/messages": 405, "/connect": 426} {
		resp, err := http.Get(urlOf(n.PublicAddr()) + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s answered %d on the public listener, want %d", path, resp.StatusCode, want)
		}
	}
}

func TestGateway_MemoryIsGivenBackForOperatorsAlone(t *testing.T) {
	n := start(t, vfs.NewMem())
	ask := func(method, secret string) (int, map[string]any) {
		return n.call(method, urlOf(n.AdminAddr()), "/debug/free", secret, nil)
	}
	if status, _ := ask(http.MethodPost, ""); status != http.StatusUnauthorized {
		t.Errorf("without the secret: %d, want 401", status)
	}
	if status, _ := ask(http.MethodPost, "another secret, as long as it has to be"); status != http.StatusUnauthorized {
		t.Errorf("with another secret: %d, want 401", status)
	}
	if status, _ := ask(http.MethodGet, secret); status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d, want 405", status)
	}
	status, before := ask(http.MethodPost, secret)
	if status != http.StatusOK {
		t.Fatalf("answered %d %v", status, before)
	}
	for _, name := range []string{"heap_alloc", "heap_inuse", "heap_sys", "stack_inuse", "sys", "num_gc", "goroutines"} {
		if v, ok := before[name].(float64); !ok || v <= 0 {
			t.Errorf("%s is %v, want a number above zero", name, before[name])
		}
	}
	_, after := ask(http.MethodPost, secret)
	if got := after["num_gc"].(float64) - before["num_gc"].(float64); got < 2 {
		t.Errorf("%v collections between two answers, want two at least", got)
	}
}

func TestGateway_LogsHoldNeitherBodiesNorSecrets(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	phone := n.watch("alice", "phone", &client.Memory{})
	id := n.publish("alice", "the-body-of-the-message")
	phone.want(t, id)
	n.rest("POST", "/v1/messages", map[string]any{"to": map[string]any{"users": []string{"alice"}}, "message": map[string]any{"bodi": "the-body-of-the-message"}})
	n.call("GET", urlOf(n.PublicAddr()), "/v1/users/alice", "cak_wrong-secret-key", nil)
	phone.leave(t)
	n.stop()
	logs := n.logs.String()
	if logs == "" {
		t.Fatal("nothing was logged at debug level")
	}
	for _, bad := range []string{"the-body-of-the-message", secret, n.key, "0123456789abcdef", "cak_wrong-secret-key"} {
		if strings.Contains(logs, bad) {
			t.Errorf("the log holds %q", bad)
		}
	}
}

func TestGateway_StopSaysGoodbyeAndLeavesNothing(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	var ws []*watcher
	for i := range 20 {
		w := n.watch(fmt.Sprintf("user%d", i), "web", &client.Memory{})
		<-w.caught
		ws = append(ws, w)
	}
	n.stop()
	if got := n.room.Count(); got != 0 {
		t.Errorf("%d sessions are left", got)
	}
	for _, w := range ws {
		w.stop()
		<-w.done
	}
}

func TestGateway_StartsOnlyWithWhatItNeeds(t *testing.T) {
	cases := []struct {
		name string
		cfg  Config
		want string
	}{
		{"no data directory", Config{Secret: secret}, "data directory"},
		{"no secret", Config{Data: "data", FS: vfs.NewMem()}, "secret"},
		{"a short secret", Config{Data: "data", FS: vfs.NewMem(), Secret: "short"}, "secret"},
		{"a development secret", Config{Data: "data", FS: vfs.NewMem(), Secret: dev.SecretMark + secret + secret}, "secret"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.PublicListen, c.cfg.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
			g, err := New(t.Context(), c.cfg)
			if err == nil {
				g.Close()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %q, want one about the %s", err, c.want)
			}
		})
	}
}

func TestGateway_PortInUseNamesTheFlag(t *testing.T) {
	n := start(t, vfs.NewMem())
	taken, free := n.PublicAddr().String(), "127.0.0.1:0"
	for flag, cfg := range map[string]Config{
		"--public-listen": {PublicListen: taken, AdminListen: free},
		"--admin-listen":  {PublicListen: free, AdminListen: taken},
		"--tcp-listen":    {PublicListen: free, AdminListen: free, TCPListen: taken},
	} {
		cfg.Data, cfg.FS, cfg.Secret = "data", vfs.NewMem(), secret
		_, err := New(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("the error is %v, want one that names %s", err, flag)
		}
	}
}

func TestGateway_DevelopmentWritesItsFileOnceAndShowsWhatToDo(t *testing.T) {
	dir := t.TempDir()
	open := func() *Gateway {
		g, err := New(t.Context(), Config{Data: dir, Dev: true, PublicListen: "127.0.0.1:0", AdminListen: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	g := open()
	one := g.Dev()
	info, err := os.Stat(dev.Path(dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("dev.json: %v %v, want mode 0600", info.Mode(), err)
	}
	text, err := g.DevText("./bin/carillon")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"DEVELOPMENT", one.Public, "./bin/carillon send", "listen", "--device phone"} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, one.APIKey) || strings.Contains(text, one.Secret) {
		t.Error("the text shows a secret")
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	g = open()
	defer g.Close()
	two := g.Dev()
	if two.APIKey != one.APIKey || two.Secret != one.Secret || !bytes.Equal(two.Key, one.Key) {
		t.Error("a second start made other keys")
	}
	if auth.CheckSecret(one.Secret) == nil {
		t.Error("a made-up secret is taken for a production one")
	}
}
