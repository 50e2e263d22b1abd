package longpoll

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/wire"
)

// goer makes sessions that welcome and have nothing to say, and end when no poll waits: what is left over would be the
// transport's.
type goer struct{ *room }

func (g goer) Accept(c transport.Conn, m transport.Meta) (transport.Session, error) {
	s, err := g.room.Accept(c, m)
	if err != nil {
		return nil, err
	}
	return goerSession{s.(*session)}, nil
}

type goerSession struct{ *session }

func (s goerSession) Poll(string, time.Duration) {}
func (s goerSession) PollOver()                  { s.conn.Cut(wire.CloseLost) }
func (s goerSession) Receive(wire.Frame)         {}

// FuzzPoll sends arbitrary requests for polls, several behind each other and in pieces, to both forms. Each is answered with what
// is JSON, by a status that polls have, or the connection ends; and nothing is left of any.
func FuzzPoll(f *testing.F) {
	f.Add("cursor="+cursorAt(1, 3)+"&session=1&wait=0", "Authorization: Bearer x", uint16(7))
	f.Add("session=18446744073709551615", "Authorization: Bearer x\r\nContent-Length: 0", uint16(0))
	f.Add("wait=55&client=%F0%9F%94%94", "Authorization: Bearer x\r\nConnection: close", uint16(1))
	f.Add("token=x&access_token=y&ticket=z", "Last-Event-ID: 1.2.3", uint16(64))
	f.Add("", "Authorization: Bearer x\r\n\r\nPOST / HTTP/1.0\r\n", uint16(3))
	f.Add("wait=0&wait=1&%", "Transfer-Encoding: chunked\r\nAuthorization: Basic eDp5", uint16(9))
	type target struct {
		addr string
		tr   *Transport
	}
	var targets []target
	for _, form := range []engine.Form{"", engine.Goroutine} {
		r := newRoom()
		r.began = make(chan *session, 1<<20)
		addr, tr, _, stop := serve(f, Config{Acceptor: goer{r}, Engine: form, Tickets: noTickets{}}, nil)
		f.Cleanup(func() {
			tr.Close(f.Context()) // which has ended
			stop(f.Context())
		})
		targets = append(targets, target{addr, tr})
	}
	f.Fuzz(func(t *testing.T, query, headers string, piece uint16) {
		one := "GET /connect/poll?" + query + " HTTP/1.1\r\nHost: carillon.example\r\n" + headers + "\r\n\r\n"
		stream := one + strings.Replace(one, "GET", "POST", 1) + request("", "", "0", "last", "Connection: close\r\n")
		for _, target := range targets {
			fuzzOne(t, target.addr, stream, int(piece))
			checkEmpty(t, target.tr)
		}
	})
}

type noTickets struct{}

func (noTickets) Redeem(context.Context, string) (string, bool, error) { return "", false, nil }

func fuzzOne(t *testing.T, addr, stream string, piece int) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	go func() { // the server may answer before it has read everything
		size := max(piece, len(stream)/16, 1)
		for rest := stream; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if _, err := io.WriteString(nc, rest[:min(size, len(rest))]); err != nil {
				return
			}
		}
		nc.(*net.TCPConn).CloseWrite()
	}()
	br := bufio.NewReader(nc)
	for {
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			if isTimeout(err) {
				t.Fatal("neither an answer nor an end")
			}
			return
		}
		b, err := io.ReadAll(res.Body)
		if isTimeout(err) {
			t.Fatal("an answer without an end")
		}
		if err != nil {
			return
		}
		kind := res.Header.Get("Content-Type")
		switch res.StatusCode {
		case http.StatusOK:
			var a body
			if kind != "application/json" || json.Unmarshal(b, &a) != nil || a.Frames == nil {
				t.Fatalf("an answer that is none: %q", b)
			}
			if _, _, err := push.ParseCursor(a.Cursor); err != nil {
				t.Fatalf("cursor %q: %v", a.Cursor, err)
			}
		case http.StatusBadRequest, http.StatusUnauthorized, http.StatusMethodNotAllowed, http.StatusServiceUnavailable:
			if kind == "application/problem+json" && !json.Valid(b) {
				t.Fatalf("a problem that is none: %q", b)
			}
		case http.StatusExpectationFailed, http.StatusNotImplemented, http.StatusRequestHeaderFieldsTooLarge,
			http.StatusHTTPVersionNotSupported, http.StatusContinue: // net/http's own
		default:
			t.Fatalf("got %d %q", res.StatusCode, b)
		}
	}
}
