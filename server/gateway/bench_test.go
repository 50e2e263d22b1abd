package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/client"
	"carillon/server/push"
	"carillon/server/wire"
)

// benchNode is a node on the real disk, with a product, ready for load.
func benchNode(b *testing.B) (n *Gateway, apiKey string, sign auth.SigningKey) {
	b.Helper()
	g, err := New(b.Context(), Config{Data: b.TempDir(), Dev: true, PublicListen: "127.0.0.1:0", AdminListen: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-done
		if err := g.Close(); err != nil {
			b.Error(err)
		}
	})
	<-g.room.Joined()
	f := g.Dev()
	return g, f.APIKey, auth.SigningKey{ID: catalog.KeyID(f.KeyID), Alg: catalog.HS256, Private: f.Key}
}

// BenchmarkPublishHTTP publishes persistent messages to offline users, each with an idempotency key, flushed to the disk
// before the answer, with client and server on the same cores. An operation is one message.
func BenchmarkPublishHTTP(b *testing.B) {
	for _, size := range []int{1, 100} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			g, key, _ := benchNode(b)
			const senders = 16
			c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders}}
			url := urlOf(g.PublicAddr()) + "/v1/messages"
			if size > 1 {
				url += "/batch"
			}
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range senders {
				wg.Go(func() {
					var body bytes.Buffer
					for {
						from := next.Add(int64(size)) - int64(size)
						if from >= int64(b.N) {
							return
						}
						writeBatch(&body, from, size)
						req, _ := http.NewRequest(http.MethodPost, url, bytes.NewReader(body.Bytes()))
						req.Header.Set("Authorization", "Bearer "+key)
						req.Header.Set("Content-Type", "application/json")
						if size == 1 {
							req.Header.Set("Idempotency-Key", fmt.Sprint("k", from))
						}
						resp, err := c.Do(req)
						if err != nil {
							b.Error(err)
							return
						}
						answer, _ := io.ReadAll(resp.Body)
						resp.Body.Close()
						if resp.StatusCode/100 != 2 || bytes.Contains(answer, []byte(`"problem"`)) {
							b.Errorf("%d %.300s", resp.StatusCode, answer)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// writeBatch writes messages of about a hundred bytes to users of their own.
func writeBatch(w *bytes.Buffer, from int64, size int) {
	w.Reset()
	const one = `{"to":{"users":["user%d"]},"message":{"body":{"text":"%0100d"}}`
	if size == 1 {
		fmt.Fprintf(w, one+"}", from%100000, from)
		return
	}
	w.WriteString(`{"messages":[`)
	for i := range int64(size) {
		if i > 0 {
			w.WriteByte(',')
		}
		fmt.Fprintf(w, one+`,"idempotency_key":"k%d"}`, (from+i)%100000, from+i, from+i)
	}
	w.WriteString(`]}`)
}

// BenchmarkFrozenClient measures how long a broadcast of 4 KiB takes to each of 100 clients, in rounds without and with ten
// further clients that never read, in turn. It reports both p99 and their ratio; an operation is one broadcast.
func BenchmarkFrozenClient(b *testing.B) {
	g, key, sign := benchNode(b)
	url := "ws" + strings.TrimPrefix(urlOf(g.PublicAddr()), "http") + "/connect"
	const readers, perRound = 100, 50
	var sentAt atomic.Int64
	began := time.Now()
	arrived := make(chan time.Duration, readers)
	var up sync.WaitGroup
	up.Add(readers)
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	for i := range readers {
		var once sync.Once
		c, err := client.New(client.Config{
			URLs: []string{url}, Tokens: client.StaticToken(benchToken(b, sign, fmt.Sprint("reader", i))), Storage: &client.Memory{},
			Callbacks: client.Callbacks{
				Message: func(context.Context, *wire.Message) error {
					arrived <- time.Since(began) - time.Duration(sentAt.Load())
					return nil
				},
				Status: func(s client.Status) {
					if s.Phase == client.CaughtUp {
						once.Do(up.Done)
					}
				},
			},
		})
		if err != nil {
			b.Fatal(err)
		}
		clients.Go(func() { _ = c.Run(ctx) })
	}
	up.Wait()
	defer clients.Wait()
	defer cancel()

	post := poster(b, g, key)
	body := strings.Repeat("x", 4096)
	var took [2][]time.Duration // without, with
	round := func(frozen int) {
		var stuck []io.Closer
		for i := range frozen * 10 {
			stuck = append(stuck, freeze(b, url, benchToken(b, sign, fmt.Sprint("frozen", i))))
		}
		for range perRound {
			sentAt.Store(int64(time.Since(began)))
			post(body)
			for range readers {
				took[frozen] = append(took[frozen], <-arrived)
			}
		}
		for _, c := range stuck {
			c.Close()
		}
	}
	for i := 0; b.Loop(); i++ {
		round(0)
		round(1)
	}
	var p99 [2]float64
	for i := range took {
		slices.Sort(took[i])
		p99[i] = float64(took[i][len(took[i])*99/100].Microseconds())
	}
	b.ReportMetric(p99[0], "p99-µs-without")
	b.ReportMetric(p99[1], "p99-µs-with")
	b.ReportMetric(p99[1]/p99[0], "ratio")
}

func benchToken(b *testing.B, sign auth.SigningKey, user string) string {
	b.Helper()
	token, err := auth.Mint(sign, auth.Claims{Product: devProduct, User: push.UserID(user), Device: "d", Platform: push.PlatformWeb,
		Issued: time.Now(), Expires: time.Now().Add(time.Hour)})
	if err != nil {
		b.Fatal(err)
	}
	return token
}

// freeze connects a client that is welcomed and then reads nothing.
func freeze(b *testing.B, url, token string) io.Closer {
	b.Helper()
	var sock net.Conn
	hc := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, network, addr)
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(4096)
		}
		sock = c
		return c, err
	}}}
	c, _, err := websocket.Dial(b.Context(), url, &websocket.DialOptions{HTTPClient: hc})
	if err != nil {
		b.Fatal(err)
	}
	f := wire.Append(nil, wire.JSON, &wire.Connect{Version: wire.Version, Token: token})
	if err := c.Write(b.Context(), websocket.MessageText, f); err != nil {
		b.Fatal(err)
	}
	if _, _, err := c.Read(b.Context()); err != nil { // the welcome
		b.Fatal(err)
	}
	return sock
}

// poster sends a body to everyone, to those online only.
func poster(b *testing.B, g *Gateway, key string) func(body string) {
	url := urlOf(g.PublicAddr()) + "/v1/messages"
	return func(body string) {
		raw, _ := json.Marshal(map[string]any{
			"to": map[string]any{"everyone": true}, "message": map[string]any{"body_base64": base64.StdEncoding.EncodeToString([]byte(body)), "persistent": false},
		})
		req, _ := http.NewRequest(http.MethodPost, url, bytes.NewReader(raw))
		req.Header.Set("Authorization", "Bearer "+key)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted {
			b.Fatalf("publishing answered %d", resp.StatusCode)
		}
	}
}
