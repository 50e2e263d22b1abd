package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"carillon/server/bench/sample"
	"carillon/server/bench/swarm"
)

// requestPatience is how long a request may take.
const requestPatience = 30 * time.Second

// publisher is a product server: it sends messages over the REST interface. It is safe for concurrent use.
type publisher struct {
	tr   *http.Transport
	base string
	auth string
}

func newPublisher(s *server) *publisher {
	return &publisher{
		// Without a proxy: the server is on this machine.
		tr:   &http.Transport{MaxIdleConnsPerHost: 1024, IdleConnTimeout: time.Minute, DisableCompression: true},
		base: "http://" + s.public, auth: "Bearer " + s.file.APIKey,
	}
}

func (p *publisher) close() { p.tr.CloseIdleConnections() }

// post sends a request. In a batch, every message has to be taken.
func (p *publisher) post(ctx context.Context, path string, body []byte, key string) error {
	ctx, cancel := context.WithTimeout(ctx, requestPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	req.Header.Set("Authorization", p.auth)
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := p.tr.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if resp.StatusCode/100 != 2 || bytes.Contains(answer, []byte(`"problem":`)) {
		return fmt.Errorf("publish: the server answered %d %.300s", resp.StatusCode, answer)
	}
	return nil
}

const (
	pathOne   = "/v1/messages"
	pathBatch = "/v1/messages/batch"
)

// message is a request to one user, or to everyone where user is empty.
type message struct {
	user   string
	mark   swarm.Mark
	size   int // of the body
	stored bool
	key    string // within a batch
}

func (m *message) append(dst []byte) []byte {
	if m.user == "" {
		dst = append(dst, `{"to":{"everyone":true},"message":{`...)
	} else {
		dst = append(dst, `{"to":{"users":["`...)
		dst = append(dst, m.user...)
		dst = append(dst, `"]},"message":{`...)
	}
	if !m.stored {
		dst = append(dst, `"persistent":false,`...)
	}
	dst = append(dst, `"body":`...)
	dst = swarm.AppendBody(dst, m.mark, m.size)
	dst = append(dst, '}')
	if m.key != "" {
		dst = append(dst, `,"idempotency_key":"`...)
		dst = append(dst, m.key...)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

// broadcast sends one message to everyone online.
func (p *publisher) broadcast(ctx context.Context, phase uint32, seq uint64, size int) error {
	m := message{mark: swarm.Mark{Phase: phase, Seq: seq, Sent: sample.Monotonic()}, size: size}
	return p.post(ctx, pathOne, m.append(make([]byte, 0, size+128)), "")
}

// send sends n messages in one request, each made by its number: one alone as POST /v1/messages, several as a batch.
func (p *publisher) send(ctx context.Context, n int, each func(i int) message) error {
	if n == 1 {
		m := each(0)
		key := m.key
		m.key = "" // in the header, not in the message
		return p.post(ctx, pathOne, m.append(make([]byte, 0, m.size+256)), key)
	}
	b := append(make([]byte, 0, n*320), `{"messages":[`...)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		m := each(i)
		b = m.append(b)
	}
	return p.post(ctx, pathBatch, append(b, `]}`...), "")
}
