package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"

	"carillon/server/push"
	"carillon/server/wire"
)

// claimsOf checks an HS256 token's signature and returns its claims.
func claimsOf(t *testing.T, token string, secret []byte) map[string]any {
	t.Helper()
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 3 {
		t.Fatalf("a token has three parts, not %d", len(parts))
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(parts[0] + "." + parts[1]))
	if base64.RawURLEncoding.EncodeToString(mac.Sum(nil)) != parts[2] {
		t.Fatal("the signature does not hold")
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(b, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestToken_SignsWithTheDevelopmentKeyOrYours(t *testing.T) {
	dir := devData(t, "http://127.0.0.1:1", "")
	r := carillon(t, nil, "", "token", "--data", dir, "--user", "alice", "--device", "phone", "--platform", "android",
		"--ttl", "1h", "--tag", "a,b")
	if r.code != exitOK {
		t.Fatal(r.errOut)
	}
	c := claimsOf(t, r.out, []byte(strings.Repeat("k", 32)))
	if c["sub"] != "alice" || c["did"] != "phone" || c["plat"] != "android" || c["aud"] != "dev" ||
		c["exp"].(float64)-c["iat"].(float64) != 3600 {
		t.Errorf("claims %v", c)
	}

	own := []byte(strings.Repeat("o", 32))
	r = carillon(t, nil, "", "token", "--data", t.TempDir(), "--user", "bob", "--device", "tv", "--product", "shop",
		"--kid", "k9", "--secret-file", writeFile(t, base64.StdEncoding.EncodeToString(own)))
	if r.code != exitOK {
		t.Fatal(r.errOut)
	}
	if c := claimsOf(t, r.out, own); c["aud"] != "shop" || c["sub"] != "bob" {
		t.Errorf("claims %v", c)
	}

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	r = carillon(t, nil, "", "token", "--user", "bob", "--device", "tv", "--product", "shop", "--kid", "k9",
		"--alg", "ES256", "--key-file", file)
	if r.code != exitOK || strings.Count(r.out, ".") != 2 {
		t.Errorf("code %d: %s", r.code, r.errOut)
	}
}

func TestToken_RefusesWhatCannotWork(t *testing.T) {
	dir := devData(t, "", "")
	file := writeFile(t, "bm90IGEga2V5")
	cases := []struct {
		args string
		code int
	}{
		{"--data " + t.TempDir() + " --user alice --device phone", exitUsage},
		{"--data " + dir + " --user alice --device phone --product other", exitUsage},
		{"--data " + dir + " --user alice --device phone --kid k", exitUsage},
		{"--data " + dir + " --user alice --device phone --ttl 0s", exitUsage},
		{"--data " + dir + " --user alice", exitUsage},
		{"--user alice --device phone --product p --kid k --alg ES256 --secret-file " + file, exitUsage},
		{"--user alice --device phone --product UPPER --kid k --secret-file " + file, exitUsage},
		{"--user alice --device phone --product p --kid k --alg ES256 --key-file " + file, exitFailed},
	}
	for _, c := range cases {
		r := carillon(t, nil, "", append([]string{"token"}, strings.Fields(c.args)...)...)
		if r.code != c.code {
			t.Errorf("%s: code %d, want %d (%s)", c.args, r.code, c.code, r.errOut)
		}
	}
}

const (
	cursor0 = "1.abc.7.1.64.8.1.c8"
	cursor1 = "1.abc.7.1.65.8.1.c8"
)

// fakeGateway welcomes each device at the cursor and sends it the message; what the device sends goes to frames.
func fakeGateway(t *testing.T, message string, frames chan<- wire.Frame) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/connect" {
			t.Errorf("connected to %s", r.URL.Path)
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		ctx := context.Background()
		for first := true; ; first = false {
			_, b, err := c.Read(ctx)
			if err != nil {
				return
			}
			f, err := wire.DecodeClient(wire.JSON, b)
			if err != nil {
				t.Errorf("the device sent what is no frame: %v", err)
			}
			frames <- f
			if !first {
				continue
			}
			welcome := wire.Append(nil, wire.JSON, &wire.Welcome{
				Version: 1, Session: 1, Cursor: cursor0, HeartbeatMillis: 30000, GraceMillis: 10000,
			})
			_ = c.Write(ctx, websocket.MessageText, welcome)
			_ = c.Write(ctx, websocket.MessageText, []byte(message))
		}
	}))
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		srv.Close()
	})
	return srv
}

const hello = `{"type":"message","slot":0,"pos":101,"id":"12","time":1767225660123,"ref":"r","body":{"text":"hello"}}`

func TestListen_PrintsOnceAcknowledgesAndGoesOnWhereItEnded(t *testing.T) {
	frames := make(chan wire.Frame, 20)
	srv := fakeGateway(t, hello, frames)
	dir := devData(t, srv.URL, "")
	args := []string{"listen", "--data", dir, "--transport", "ws", "--user", "a/lice", "--device", "phone", "--count", "1"}
	r := carillon(t, nil, "", args...)
	if r.code != exitOK || !strings.HasSuffix(r.out, ` 12 ref="r" {"text":"hello"}`+"\n") {
		t.Fatalf("code %d, printed %q (%s)", r.code, r.out, r.errOut)
	}
	connect := (<-frames).(*wire.Connect)
	claims := claimsOf(t, connect.Token, []byte(strings.Repeat("k", 32)))
	if claims["sub"] != "a/lice" || claims["did"] != "phone" || claims["plat"] != "desktop" || connect.Cursor != "" {
		t.Errorf("connected as %v with cursor %q", claims, connect.Cursor)
	}
	if ack, ok := (<-frames).(*wire.Ack); !ok || ack.Cursor != cursor1 {
		t.Errorf("acknowledged %v, want %s", ack, cursor1)
	}
	if _, err := os.Stat(filepath.Join(dir, "listen", "a%2Flice,phone.json")); err != nil {
		t.Error(err)
	}

	// The same message again, and then another life of the device: it knows the message, and waits for one more.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errOut strings.Builder
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &errOut}
	done := make(chan int, 1)
	go func() { done <- a.run(ctx, args) }()
	if got := (<-frames).(*wire.Connect).Cursor; got != cursor1 {
		t.Errorf("presented %q, want %q", got, cursor1)
	}
	<-frames // it acknowledges the repeat
	cancel()
	if code := <-done; code != exitOK || out.Len() != 0 {
		t.Errorf("code %d, printed %q", code, out.String())
	}
}

// serveTCP welcomes one device over raw TCP, sends it the message, and reads on until it leaves.
func serveTCP(t *testing.T, message string) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m, err := wire.DecodeServer(wire.JSON, []byte(message))
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		for _, f := range []wire.Frame{&wire.Welcome{Version: 1, Session: 1, Cursor: cursor0, HeartbeatMillis: 30000, GraceMillis: 10000}, m} {
			b := wire.Append(make([]byte, 4), wire.Binary, f)
			binary.BigEndian.PutUint32(b, uint32(len(b)-4))
			_, _ = nc.Write(b)
		}
		_, _ = io.Copy(io.Discard, nc)
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return "tcp://" + l.Addr().String()
}

// serveHTTP does so over an event stream and over polls.
func serveHTTP(t *testing.T, message string) (url string) {
	t.Helper()
	welcome := wire.Append(nil, wire.JSON, &wire.Welcome{Version: 1, Session: 1, Cursor: cursor0, HeartbeatMillis: 30000, GraceMillis: 10000})
	var polls atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/connect/sse":
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = fmt.Fprintf(w, "data: %s\n\ndata: %s\n\n", welcome, message)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case "/connect/poll":
			if polls.Add(1) == 1 {
				_, _ = fmt.Fprintf(w, `{"session":"1","frames":[%s,%s]}`, welcome, message)
				return
			}
			<-r.Context().Done()
		case "/connect/frames":
			w.WriteHeader(http.StatusNoContent)
		default:
			t.Errorf("asked for %s", r.URL.Path)
		}
	}))
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		srv.Close()
	})
	return srv.URL
}

func TestListen_ConnectsOverEachTransport(t *testing.T) {
	for transport, serve := range map[string]func(*testing.T, string) string{"sse": serveHTTP, "poll": serveHTTP, "tcp": serveTCP} {
		state := filepath.Join(t.TempDir(), "state.json")
		r := carillon(t, []string{"CARILLON_TOKEN=the-token"}, "", "listen", "--url", serve(t, hello), "--state", state,
			"--transport", transport, "--count", "1")
		if r.code != exitOK || !strings.HasSuffix(r.out, `{"text":"hello"}`+"\n") {
			t.Errorf("%s: code %d, printed %q (%s)", transport, r.code, r.out, r.errOut)
		}
	}
}

func TestListen_AddressAndTransportBelongTogether(t *testing.T) {
	for _, args := range []string{
		"--transport tcp --url http://127.0.0.1:1", "--transport ws --url tcp://127.0.0.1:1",
		"--transport tcp --user alice --device phone --data " + devData(t, "http://127.0.0.1:1", ""),
	} {
		r := carillon(t, nil, "", append([]string{"listen"}, strings.Fields(args)...)...)
		if r.code != exitUsage || !strings.Contains(r.errOut, "tcp") {
			t.Errorf("%s: code %d: %s", args, r.code, r.errOut)
		}
	}
}

func TestListen_JSONPrintsFrames(t *testing.T) {
	srv := fakeGateway(t, hello, make(chan wire.Frame, 20))
	r := carillon(t, nil, "", "listen", "--data", devData(t, srv.URL, ""), "--user", "alice", "--device", "phone",
		"--count", "1", "--json")
	f, err := wire.DecodeServer(wire.JSON, []byte(strings.TrimSpace(r.out)))
	if err != nil {
		t.Fatalf("printed %q: %v", r.out, err)
	}
	if m, ok := f.(*wire.Message); !ok || m.ID != 12 || m.Slot != push.Own || string(m.Body) != `{"text":"hello"}` {
		t.Errorf("got %+v", f)
	}
}

func TestListen_WithATokenOfYourOwn(t *testing.T) {
	frames := make(chan wire.Frame, 20)
	srv := fakeGateway(t, hello, frames)
	state := filepath.Join(t.TempDir(), "state.json")
	env := []string{"CARILLON_TOKEN=the-token"}
	r := carillon(t, env, "", "listen", "--url", srv.URL+"/", "--state", state, "--count", "1")
	if r.code != exitOK {
		t.Fatal(r.errOut)
	}
	if got := (<-frames).(*wire.Connect).Token; got != "the-token" {
		t.Errorf("connected with token %q", got)
	}
	if r := carillon(t, env, "", "listen", "--url", srv.URL); r.code != exitUsage {
		t.Errorf("without --state: code %d", r.code)
	}
	if r := carillon(t, nil, "", "listen", "--url", srv.URL, "--user", "alice"); r.code != exitUsage {
		t.Errorf("without a device: code %d", r.code)
	}
}

func TestFileTokens_EndWhenTheFileHasNoOther(t *testing.T) {
	path := writeFile(t, "one\n")
	source := fileTokens(path)
	for _, step := range []struct {
		write string
		renew bool
		want  string
	}{{"", false, "one"}, {"", true, ""}, {"two", true, "two"}, {"", false, "two"}} {
		if step.write != "" {
			if err := os.WriteFile(path, []byte(step.write), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := source(t.Context(), step.renew)
		if got != step.want || (err == nil) != (step.want != "") {
			t.Errorf("%+v: got %q, %v", step, got, err)
		}
	}
}
