package gateway

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/coder/websocket"

	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/client"
	"carillon/server/push"
	"carillon/server/room"
	"carillon/server/wire"
)

// claims are those of alice's phone.
func claims() auth.Claims {
	return auth.Claims{
		Product: "shop", User: "alice", Device: "phone", Platform: push.PlatformAndroid, Issued: time.Now(),
		Expires: time.Now().Add(time.Hour),
	}
}

func (n *testNode) mint(k auth.SigningKey, c auth.Claims) string {
	n.t.Helper()
	token, err := auth.Mint(k, c)
	if err != nil {
		n.t.Fatal(err)
	}
	return token
}

// rawClient is a WebSocket whose frames the test writes and reads itself.
type rawClient struct {
	t *testing.T
	c *websocket.Conn
}

// raw connects with a token.
func (n *testNode) raw(token string) *rawClient {
	n.t.Helper()
	c, _, err := websocket.Dial(n.t.Context(), "ws"+strings.TrimPrefix(urlOf(n.PublicAddr()), "http")+"/connect", nil)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.CloseNow() })
	r := &rawClient{n.t, c}
	r.send(&wire.Connect{Version: wire.Version, Token: token})
	return r
}

func (r *rawClient) send(f wire.Frame) {
	r.t.Helper()
	b := wire.Append(nil, wire.JSON, f)
	if err := r.c.Write(r.t.Context(), websocket.MessageText, b); err != nil {
		r.t.Fatal(err)
	}
}

// outcome reads until the session is open (0), or ends, and returns the code that it ends with.
func (r *rawClient) outcome() wire.CloseCode {
	return r.until(func(f wire.Frame) bool { _, ok := f.(*wire.Welcome); return ok })
}

func (r *rawClient) until(enough func(wire.Frame) bool) wire.CloseCode {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	for {
		_, b, err := r.c.Read(ctx)
		if code := websocket.CloseStatus(err); code > 0 {
			return wire.CloseCode(code)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		f, err := wire.DecodeServer(wire.JSON, b)
		if err != nil {
			r.t.Fatal(err)
		}
		if enough(f) {
			return 0
		}
	}
}

// end reads until the session ends.
func (r *rawClient) end() wire.CloseCode { return r.until(func(wire.Frame) bool { return false }) }

func (n *testNode) revoke(body map[string]any) map[string]any {
	n.t.Helper()
	status, a := n.rest("POST", "/v1/users/alice/revoke", body)
	if status != 200 || a["status"] != "confirmed" {
		n.t.Fatalf("revoke: %d %v, want it confirmed", status, a)
	}
	return a
}

func TestGateway_KickedClientStaysAwayUntilItsApplicationAsks(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	store := &client.Memory{}
	phone, web := n.watch("alice", "phone", store), n.watch("alice", "web", &client.Memory{})
	<-phone.caught
	<-web.caught
	status, a := n.rest("POST", "/v1/users/alice/kick", map[string]any{"device": "phone", "reason": "you moved"})
	if status != 200 || a["status"] != "confirmed" || a["sessions"] != 1.0 {
		t.Fatalf("kick: %d %v, want one session, confirmed", status, a)
	}
	if k := <-phone.kicked; k.Code != wire.CloseKicked || k.Detail != "you moved" {
		t.Errorf("kicked with %v %q", k.Code, k.Detail)
	}
	if err := <-phone.done; err == nil {
		t.Error("a kicked client came back by itself")
	}
	id := n.publish("alice", "for both")
	web.want(t, id)
	phone = n.watch("alice", "phone", store) // with a token of the same second
	phone.want(t, id)
	phone.leave(t)
	web.leave(t)
}

func TestGateway_RevokedDeviceIsKeptOutAcrossARestartUntilItIsLifted(t *testing.T) {
	fs := vfs.NewMem()
	n := start(t, fs)
	n.setUp()
	token := n.mint(n.sign, claims())
	phone := n.raw(token)
	if code := phone.outcome(); code != 0 {
		t.Fatalf("refused with %v before anything was revoked", code)
	}
	a := n.revoke(map[string]any{"device": "phone"})
	if code := phone.end(); code != wire.CloseRevoked || a["sessions"] != 1.0 {
		t.Errorf("the live session of %v ended with %v, want revoked", a["sessions"], code)
	}
	if code := n.raw(token).outcome(); code != wire.CloseRevoked {
		t.Errorf("the old token: %v, want revoked", code)
	}
	other := claims()
	other.Device = "web"
	if code := n.raw(n.mint(n.sign, other)).outcome(); code != 0 {
		t.Errorf("another device: %v", code)
	}
	later := claims()
	later.Issued = later.Issued.Add(2 * time.Second) // as if the user signed in a moment later
	fresh := n.mint(n.sign, later)
	if code := n.raw(fresh).outcome(); code != 0 {
		t.Errorf("a token issued later: %v", code)
	}
	key, sign := n.key, n.sign
	n.stop()

	n = start(t, fs)
	n.key, n.sign = key, sign
	if code := n.raw(token).outcome(); code != wire.CloseRevoked {
		t.Errorf("the old token after a restart: %v, want revoked", code)
	}
	if status, a := n.rest("DELETE", "/v1/users/alice/revoke?device=phone", nil); status != 204 {
		t.Fatalf("lift: %d %v", status, a)
	}
	if code := n.raw(token).outcome(); code != 0 {
		t.Errorf("the old token after it was lifted: %v", code)
	}
}

func TestGateway_RefreshWithARevokedTokenEndsTheSession(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	phone := n.raw(n.mint(n.sign, claims()))
	if code := phone.outcome(); code != 0 {
		t.Fatalf("refused with %v", code)
	}
	second := claims()
	second.TokenID = "t-2"
	token := n.mint(n.sign, second)
	phone.send(&wire.Refresh{Token: token})
	if code := phone.until(func(f wire.Frame) bool { _, ok := f.(*wire.Refresh); return ok }); code != 0 {
		t.Fatalf("a good token: %v", code)
	}
	third := claims()
	third.TokenID = "t-3"
	n.revoke(map[string]any{"token_id": "t-3"}) // not the one that the session is under
	phone.send(&wire.Refresh{Token: n.mint(n.sign, third)})
	if code := phone.end(); code != wire.CloseRevoked {
		t.Errorf("ended with %v, want revoked", code)
	}
}

// Devices connect all the time while their user is revoked, over and over. Whenever a call was answered, none of them is left.
func TestGateway_NoSessionOutlivesARevocationHoweverManyConnect(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	url := "ws" + strings.TrimPrefix(urlOf(n.PublicAddr()), "http") + "/connect"
	token := make([]string, 8)
	for i := range token {
		c := claims()
		c.Device = push.DeviceID(fmt.Sprint("d", i))
		token[i] = n.mint(n.sign, c)
	}
	for range 20 {
		stop := make(chan struct{})
		var all sync.WaitGroup
		for _, token := range token {
			all.Go(func() {
				for {
					c, _, err := websocket.Dial(t.Context(), url, nil)
					if err != nil {
						t.Error(err)
						return
					}
					b := wire.Append(nil, wire.JSON, &wire.Connect{Version: wire.Version, Token: token})
					if err := c.Write(t.Context(), websocket.MessageText, b); err == nil {
						_, _, _ = c.Read(t.Context())
					}
					select {
					case <-stop:
						c.CloseNow()
						return
					default:
						c.CloseNow()
					}
				}
			})
		}
		n.revoke(map[string]any{})
		if live := n.room.Sessions("shop", "alice"); len(live) != 0 {
			t.Errorf("%d sessions are open after the call was answered", len(live))
		}
		close(stop)
		all.Wait()
		if status, a := n.rest("DELETE", "/v1/users/alice/revoke", nil); status != 204 {
			t.Fatalf("lift: %d %v", status, a)
		}
	}
}

// ticket asks for one.
func (n *testNode) ticket(method, token string) (int, map[string]any) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, urlOf(n.PublicAddr())+"/connect/ticket", nil)
	if err != nil {
		n.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	out := map[string]any{}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		n.t.Fatal(err)
	}
	if resp.StatusCode == 200 && resp.Header.Get("Cache-Control") != "no-store" {
		n.t.Errorf("a ticket may be kept by caches: %v", resp.Header)
	}
	return resp.StatusCode, out
}

func TestGateway_TicketStandsForItsTokenOnce(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	token := n.mint(n.sign, claims())
	status, a := n.ticket("POST", token)
	if status != 200 || a["expires_ms"] != 30000.0 {
		t.Fatalf("got %d %v", status, a)
	}
	if got, ok, err := n.tickets.Redeem(t.Context(), a["ticket"].(string)); err != nil || !ok || got != token {
		t.Errorf("redeemed for %q, %v, %v", got, ok, err)
	}
	if _, ok, _ := n.tickets.Redeem(t.Context(), a["ticket"].(string)); ok {
		t.Error("redeemed twice")
	}
	if logs := n.logs.String(); strings.Contains(logs, a["ticket"].(string)) || strings.Contains(logs, token) {
		t.Error("the log holds the ticket or the token")
	}
}

// stream opens an event stream with a ticket in its address, as a browser does, and returns status, code and first event.
func (n *testNode) stream(ticket string) (status int, code, event string) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), http.MethodGet, urlOf(n.PublicAddr())+"/connect/sse?ticket="+ticket, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var p struct{ Code string }
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			n.t.Fatal(err)
		}
		return resp.StatusCode, p.Code, ""
	}
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.StatusCode, "", strings.TrimSpace(line)
}

func TestGateway_TicketOpensAnEventStreamOnceAndIsJudgedAnew(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	token := n.mint(n.sign, claims())
	get := func() string {
		t.Helper()
		status, a := n.ticket("POST", token)
		if status != 200 {
			t.Fatalf("no ticket: %d %v", status, a)
		}
		return a["ticket"].(string)
	}
	ticket := get()
	if status, code, event := n.stream(ticket); status != 200 || event != "event: welcome" {
		t.Fatalf("got %d %s %q, want a stream that begins with welcome", status, code, event)
	}
	if status, code, _ := n.stream(ticket); status != 401 || code != "ticket_refused" {
		t.Errorf("the second time: %d %s, want it refused", status, code)
	}
	if status, code, _ := n.stream(strings.Repeat("A", 43)); status != 401 || code != "ticket_refused" {
		t.Errorf("a made-up ticket: %d %s, want it refused", status, code)
	}
	ticket = get()
	n.revoke(map[string]any{})
	if status, code, _ := n.stream(ticket); status != 403 || code != "revoked" {
		t.Errorf("a ticket of a token that was revoked meanwhile: %d %s, want revoked", status, code)
	}
}

func TestGateway_TicketIsForTokensThatHold(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	expired := claims()
	expired.Issued, expired.Expires = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	forged := auth.SigningKey{ID: n.sign.ID, Alg: catalog.HS256, Private: []byte("another secret of thirty-two byte")}
	good := n.mint(n.sign, claims())
	check := func(name, method, token string, status int, code string) {
		t.Helper()
		if got, a := n.ticket(method, token); got != status || a["code"] != code {
			t.Errorf("%s: got %d %v, want %d %s", name, got, a, status, code)
		}
	}
	check("no token", "POST", "", 401, "unauthenticated")
	check("no token at all", "POST", "hush-hush", 401, "token_refused")
	check("a forged one", "POST", n.mint(forged, claims()), 401, "token_refused")
	check("an expired one", "POST", n.mint(n.sign, expired), 401, "token_expired")
	check("the wrong method", "GET", good, 405, "method_not_allowed")
	n.revoke(map[string]any{"reason": "closed"})
	check("a revoked one", "POST", good, 403, "revoked")
	if status, a := n.admin("PATCH", "/admin/v1/products/shop", map[string]any{"disabled": true}); status != 200 {
		t.Fatalf("disable: %d %v", status, a)
	}
	check("of a disabled product", "POST", good, 403, "forbidden")
	if n.tickets.(*auth.Tickets).Count() != 0 {
		t.Errorf("%d tickets were given", n.tickets.(*auth.Tickets).Count())
	}
	if strings.Contains(n.logs.String(), "hush-hush") {
		t.Error("the log holds what was shown")
	}
	n.leaving.Store(true)
	check("a node that drains", "POST", good, 503, "going_away")
}

// keySite publishes keys over HTTP on this machine.
type keySite struct {
	*httptest.Server
	mu   sync.Mutex
	keys map[string]ed25519.PrivateKey
}

func newKeySite(t *testing.T) *keySite {
	s := &keySite{keys: make(map[string]ed25519.PrivateKey)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		keys := []map[string]string{}
		for id, k := range s.keys {
			keys = append(keys, map[string]string{"kty": "OKP", "crv": "Ed25519", "kid": id, "alg": "EdDSA", "use": "sig",
				"x": base64.RawURLEncoding.EncodeToString(k.Public().(ed25519.PublicKey))})
		}
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": keys})
	}))
	t.Cleanup(s.Close)
	return s
}

// add publishes one more key and returns it.
func (s *keySite) add(t *testing.T, id string) auth.SigningKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[id] = k
	return auth.SigningKey{ID: catalog.KeyID(id), Alg: catalog.EdDSA, Private: k}
}

func (s *keySite) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, id)
}

func (n *testNode) setKeySet(url any) {
	n.t.Helper()
	if status, a := n.admin("PATCH", "/admin/v1/products/shop", map[string]any{"jwks_url": url}); status != 200 {
		n.t.Fatalf("setting the key set: %d %v", status, a)
	}
}

func TestGateway_KeysThatAProductPublishesSignItsTokens(t *testing.T) {
	n := startWith(t, vfs.NewMem(), func(c *Config) {
		c.OutboundAllow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	n.setUp()
	site := newKeySite(t)
	first := site.add(t, "2026/11=")
	token := n.mint(first, claims())
	if code := n.raw(token).outcome(); code != wire.CloseTokenRefused {
		t.Errorf("before the product names its address: %v, want token_refused", code)
	}
	n.setKeySet(site.URL)
	if code := n.raw(token).outcome(); code != 0 {
		t.Errorf("a published key: %v", code)
	}
	if code := n.raw(n.mint(n.sign, claims())).outcome(); code != 0 {
		t.Errorf("a key of the catalog, beside: %v", code)
	}
	// An id that the catalog has is the catalog's, though it was revoked.
	taken := site.add(t, "k1")
	if status, a := n.admin("DELETE", "/admin/v1/products/shop/device-keys/k1", nil); status != 204 {
		t.Fatalf("revoking: %d %v", status, a)
	}
	n.setKeySet(site.URL) // has it read anew
	if code := n.raw(n.mint(taken, claims())).outcome(); code != wire.CloseTokenRefused {
		t.Errorf("a published key under a revoked id: %v, want token_refused", code)
	}
	second := site.add(t, "2026/12=")
	site.remove("2026/11=")
	n.setKeySet(site.URL)
	if code := n.raw(n.mint(second, claims())).outcome(); code != 0 {
		t.Errorf("the next key: %v", code)
	}
	// It is told to come back while the site may not be asked again: the key could have been published a moment ago.
	if code := n.raw(token).outcome(); code != wire.CloseTokenRefused && code != wire.CloseOverloaded {
		t.Errorf("a key that is not published any more: %v, want it not let in", code)
	}
	n.setKeySet(nil)
	if code := n.raw(n.mint(second, claims())).outcome(); code != wire.CloseTokenRefused {
		t.Errorf("after the address was taken out: %v, want token_refused", code)
	}
}

func TestGateway_KeySetsOnPrivateNetworksAreNotRead(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	site := newKeySite(t)
	token := n.mint(site.add(t, "k"), claims())
	n.setKeySet(site.URL)
	if code := n.raw(token).outcome(); code != wire.CloseOverloaded {
		t.Errorf("got %v, want that it cannot be told now", code)
	}
	if !strings.Contains(n.logs.String(), "not a public one") {
		t.Error("the log does not say why the keys cannot be read")
	}
}

// Clients connect all the time while the keys in the catalog rotate: the next one is added, then used, then the one before it is
// revoked.
func TestGateway_KeysRotateWhileClientsConnect(t *testing.T) {
	n := startRoom(t, vfs.NewMem(), room.Config{CloseTimeout: 2 * time.Second})
	n.setUp()
	var mu sync.Mutex
	current := n.sign
	use := func(k auth.SigningKey) {
		mu.Lock()
		defer mu.Unlock()
		current = k
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	var connects [4]int
	for i := range connects {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock() // a key is not revoked while a token of it is on its way
				c := claims()
				c.Device = push.DeviceID(fmt.Sprint("d", i))
				token := n.mint(current, c)
				id, err := n.tokens.Verify(context.WithoutCancel(t.Context()), token)
				mu.Unlock()
				if err != nil || id.User != "alice" {
					t.Errorf("a token of the present key was refused: %v", err)
					return
				}
				connects[i]++
			}
		})
	}
	old := n.sign
	for i := range 20 {
		secret := []byte(fmt.Sprintf("the secret of rotation number %04d", i))
		next := auth.SigningKey{ID: catalog.KeyID(fmt.Sprint("r", i)), Alg: catalog.HS256, Private: secret}
		status, a := n.admin("POST", "/admin/v1/products/shop/device-keys", map[string]any{
			"id": string(next.ID), "alg": "HS256", "secret_base64": base64.StdEncoding.EncodeToString(secret),
		})
		if status != 201 {
			t.Fatalf("adding a key: %d %v", status, a)
		}
		use(next)
		if status, a := n.admin("DELETE", "/admin/v1/products/shop/device-keys/"+string(old.ID), nil); status != 204 {
			t.Fatalf("revoking a key: %d %v", status, a)
		}
		if _, err := n.tokens.Verify(t.Context(), n.mint(old, claims())); auth.ReasonOf(err) != auth.ReasonRevokedKey {
			t.Errorf("a token of the revoked key: %v, want it refused once the call was answered", err)
		}
		old = next
	}
	close(stop)
	all.Wait()
	for i, c := range connects {
		if c == 0 {
			t.Errorf("client %d never connected", i)
		}
	}
}

// The recipe of docs/anonymous-visitors.md, run as it stands there.
func TestDocs_RecipeForVisitorsMakesATokenThatHolds(t *testing.T) {
	page, err := os.ReadFile("../../docs/anonymous-visitors.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "<!-- test: visitor-token -->\n```sh\n")
	script, _, end := strings.Cut(rest, "\n```\n")
	if !ok || !end {
		t.Fatal("the page has no script")
	}
	n := start(t, vfs.NewMem())
	n.setUp()
	status, a := n.admin("POST", "/admin/v1/products/shop/device-keys", map[string]any{"id": "visitors", "alg": "HS256"})
	if status != 201 {
		t.Fatalf("making the key: %d %v", status, a)
	}
	file := filepath.Join(t.TempDir(), "visitor-token")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	run := exec.CommandContext(t.Context(), "bash", "-eu", file, "shop", "visitor-3f1c2d", "browser")
	run.Stdin = strings.NewReader(a["secret_base64"].(string) + "\n") // as key create --out writes it
	run.Stderr = os.Stderr
	token, err := run.Output()
	if err != nil {
		t.Fatal(err)
	}
	id, err := n.tokens.Verify(t.Context(), strings.TrimSpace(string(token)))
	if err != nil || id.User != "visitor-3f1c2d" || id.Device != "browser" || id.Platform != push.PlatformWeb {
		t.Fatalf("got %+v, %v", id, err)
	}
	if left := time.Until(id.Expires); left > 20*time.Minute {
		t.Errorf("it is good for %v, the page says a quarter of an hour", left)
	}
	if code := n.raw(strings.TrimSpace(string(token))).outcome(); code != 0 {
		t.Errorf("connecting with it: %v", code)
	}
}
