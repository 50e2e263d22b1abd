package ws

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// Sections 4, 9, 10.2 and 11.3: the opening handshake.
func handshakeRules() []rule {
	return []rule{
		opening("4.2.1", "the method is GET", 405,
			replaced("GET", "POST"), replaced("GET", "PUT"), replaced("GET", "OPTIONS"), replaced("GET", "DELETE"), replaced("GET", "BREW")),
		opening("4.2.1", "the version of HTTP is at least 1.1", 426, replaced("HTTP/1.1", "HTTP/1.0")),
		opening("4.2.1", "there is a Host", 400, without("Host")),
		opening("4.2.1", "Upgrade names websocket", 426,
			without("Upgrade"), replaced("Upgrade: websocket", "Upgrade: websockets"), replaced("Upgrade: websocket", "Upgrade: h2c"),
			replaced("Upgrade: websocket", "Upgrade:"), replaced("Upgrade: websocket", "Upgrade: web socket")),
		opening("4.2.1", "Connection names Upgrade", 426,
			without("Connection"), replaced("Connection: Upgrade", "Connection: keep-alive"),
			replaced("Connection: Upgrade", "Connection: close"), replaced("Connection: Upgrade", "Connection: Upgraded")),
		opening("4.2.1", "tokens and names of headers without regard to case", 101,
			replaced("Upgrade: websocket", "Upgrade: WebSocket"), replaced("Upgrade: websocket", "UPGRADE: WEBSOCKET"),
			replaced("Connection: Upgrade", "Connection: upgrade"), replaced("Connection: Upgrade", "connection: UPGRADE"),
			replaced("Sec-WebSocket-Key", "sec-websocket-key"), replaced("Sec-WebSocket-Version", "SEC-WEBSOCKET-VERSION")),
		opening("4.2.1", "tokens among others", 101,
			replaced("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
			replaced("Connection: Upgrade", "Connection: keep-alive,upgrade"),
			replaced("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
			replaced("Upgrade: websocket", "Upgrade: h2c, websocket")),
		opening("4.2.1", "the key is sixteen octets in base64", 400,
			without("Sec-WebSocket-Key"), withKey(""), withKey("AAAA"), withKey("AAAAAAAAAAAAAAAAAAAA"), withKey("AAAAAAAAAAAAAAAAAAAAAA"),
			withKey("AAAAAAAAAAAAAAAAAAAAAAA="), withKey("AAAAAAAAAAAAAAAAAAAAAAAA"), withKey("!!!!!!!!!!!!!!!!!!!!!!=="),
			withKey("______________________=="), withKey("AAAAAAAAAAAAAAAAAAAAAA==, AAAAAAAAAAAAAAAAAAAAAA==")),
		opening("4.2.1", "what else a request says does not matter", 101,
			with("X-Strange: \xff of any kind"), with("Cookie: a=b"), with("Upgrade-Insecure-Requests: 1"),
			replaced("/connect", "/connect?token=x&y"), replaced("User-Agent: raw/1\r\n", "")),

		{"4.2.2", "the answer to the key of the RFC", playAcceptOfTheRFC},
		{"4.2.2", "the answer holds nothing but what it must", playBareAnswer},
		{"4.2.2", "frames may follow the handshake in the same packet", playFramesAtOnce},

		opening("4.4", "a version other than 13 is answered with 13", 400,
			without("Sec-WebSocket-Version"), withVersion("0"), withVersion("8"), withVersion("12"), withVersion("14"), withVersion("255"),
			withVersion("013"), withVersion("13.0"), withVersion("13, 8"), withVersion("thirteen"), withVersion("-13")),
		{"4.4", "a client may try again on the same connection", playSecondTry},

		opening("9.1", "compression is never agreed on", 101, extensions()...),
		{"9.1", "a reserved bit is refused although compression was offered", playCompressed},

		opening("10.2", "pages of other origins are refused", 403,
			with("Origin: https://evil.example"), with("Origin: null"), with("Origin: http://app.example"), with("Origin: https://app.example.evil.example"),
			with("Origin: https://chat.example"), with("Origin: https://carillon.example.evil.example"),
			with("Origin: https://carillon.example:8443"), with("Origin: file://"), with("Origin: %zz")),
		opening("10.2", "pages of the own host and of listed ones are admitted", 101,
			with("Origin: https://carillon.example"), with("Origin: http://CARILLON.example"), with("Origin: http://a.chat.example"),
			with("Origin: https://A.Chat.example"), with("Origin: https://app.example")),
		opening("10.2", "who is no page needs no origin", 101, with("X-Nothing: 1")),

		opening("11.3.1", "two keys are refused", 400, with("Sec-WebSocket-Key: BAAAAAAAAAAAAAAAAAAAAA==")),
		opening("11.3.4", "subprotocols are not agreed on", 101,
			with("Sec-WebSocket-Protocol: chat"), with("Sec-WebSocket-Protocol: chat, superchat"), with("Sec-WebSocket-Protocol: v1.carillon\r\nSec-WebSocket-Protocol: mqtt")),
		opening("11.3.5", "two versions are refused", 400,
			with("Sec-WebSocket-Version: 13"), with("Sec-WebSocket-Version: 8"), replaced("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Version")),
	}
}

// without returns the handshake without a header.
func without(header string) string {
	var lines []string
	for line := range strings.SplitSeq(handshake, "\r\n") {
		if !strings.HasPrefix(line, header+":") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\r\n")
}

// with returns the handshake with a line more.
func with(line string) string { return strings.TrimSuffix(handshake, "\r\n") + line + "\r\n\r\n" }

func replaced(before, after string) string { return strings.Replace(handshake, before, after, 1) }

func withKey(key string) string { return replaced("AAAAAAAAAAAAAAAAAAAAAA==", key) }

func withVersion(v string) string { return replaced("Version: 13", "Version: "+v) }

func extensions() (requests []string) {
	for _, e := range []string{
		"permessage-deflate", "permessage-deflate; client_max_window_bits", "permessage-deflate; server_no_context_takeover",
		"permessage-deflate; client_no_context_takeover; server_max_window_bits=10", "permessage-deflate; unknown=1, permessage-deflate",
		"x-webkit-deflate-frame", "x-webkit-deflate-frame; no_context_takeover", "deflate-frame", "permessage-bzip2", "mux; max-channels=4",
		"permessage-deflate\r\nSec-WebSocket-Extensions: x-webkit-deflate-frame", "", ";", `foo; bar="baz, qux"`,
	} {
		requests = append(requests, with("Sec-WebSocket-Extensions: "+e))
	}
	return requests
}

// opening returns the rule that each of these requests is answered with this status, as such a status has to be.
func opening(section, name string, status int, requests ...string) rule {
	return rule{section, name, func(t *testing.T, cfg Config) {
		cfg.Origins = []string{"*.chat.example", "https://app.example"}
		addr, r := start(t, cfg)
		for i, raw := range requests {
			t.Run(fmt.Sprint(i), func(t *testing.T) { checkOpening(t, addr, r, raw, status) })
		}
	}}
}

func checkOpening(t *testing.T, addr string, r *room, raw string, status int) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	if _, err := nc.Write([]byte(raw)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != status {
		t.Fatalf("status of %q: got %d, want %d", raw, res.StatusCode, status)
	}
	must := map[string]string{}
	switch status {
	case 101:
		must["Upgrade"], must["Connection"] = "websocket", "Upgrade"
		must["Sec-Websocket-Protocol"], must["Sec-Websocket-Extensions"] = "", ""
	case 405:
		must["Allow"] = "GET"
	case 426:
		must["Upgrade"] = "websocket"
	}
	if strings.Contains(t.Name(), "_4.4_") {
		must["Sec-Websocket-Version"] = "13"
	}
	for name, want := range must {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s in the answer to %q: got %q, want %q", name, raw, got, want)
		}
	}
	if status != 101 {
		if res.Header.Get("Sec-Websocket-Accept") != "" {
			t.Error("a refusal accepts the key")
		}
		if len(r.began) > 0 {
			t.Error("a refused request got a session")
		}
		return
	}
	s := r.session(t)
	if _, err := nc.Write(frame(fin|opText, ack("a"))); err != nil {
		t.Fatal(err)
	}
	get(t, s.frames, "the acknowledgement")
}

func playAcceptOfTheRFC(t *testing.T, cfg Config) {
	addr, _ := start(t, cfg)
	for key, want := range map[string]string{
		"dGhlIHNhbXBsZSBub25jZQ==":        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", // 1.3
		" \t dGhlIHNhbXBsZSBub25jZQ== \t": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", // the white space is not the key's
		"AQIDBAUGBwgJCgsMDQ4PEA==":        "C/0nmHhBztSRGR1CwL6Tf4ZjwpY=", // 4.1
	} {
		if res, _ := request(t, addr, withKey(key)); res.Header.Get("Sec-WebSocket-Accept") != want {
			t.Errorf("Sec-WebSocket-Accept for %q: got %q, want %q", key, res.Header.Get("Sec-WebSocket-Accept"), want)
		}
	}
}

func playBareAnswer(t *testing.T, cfg Config) {
	addr, _ := start(t, cfg)
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &rawClient{nc: nc, br: bufio.NewReader(nc)}
	if err := c.write([]byte(with("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate"))); err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(patience))
	var lines []string
	for {
		line, err := c.br.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\r\n" {
			break
		}
		lines = append(lines, strings.TrimSuffix(line, "\r\n"))
	}
	slices.Sort(lines[1:])
	got := strings.Join(lines, "\n")
	want := "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nSec-Websocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\n" +
		"Upgrade: websocket"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err := c.write(frame(fin|opPing, "")); err != nil {
		t.Fatal(err)
	}
	if before, _ := c.until(t, fin|opPong); before != 0 || c.br.Buffered() != 0 {
		t.Error("something stands between the answer and the first pong")
	}
}

func playFramesAtOnce(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	// net/http's reader takes 4 KiB of what follows the request with it; what follows that stays in the socket.
	for _, n := range []int{1, 7, 50, 99, 100, 101, 150, 1000} {
		var early []byte
		var want []string
		for i := range n {
			early = append(early, frame(fin|opText, ack(fmt.Sprint(i)))...)
			want = append(want, fmt.Sprint(i))
		}
		c := dialRaw(t, addr, nil, early...)
		s := r.session(t)
		if err := c.Goodbye(); err != nil {
			t.Fatal(err)
		}
		c.until(t, fin|opClose)
		get(t, s.closed, "Closed")
		check(t, s, sent{cursors: strings.Join(want, " ")}, model(early, limitsOf(cfg)))
	}
}

// playSecondTry repeats what a client of several versions does.
func playSecondTry(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	br := bufio.NewReader(nc)
	for _, try := range []struct {
		request string
		status  int
	}{{withVersion("25"), 400}, {handshake, 101}} {
		if _, err := nc.Write([]byte(try.request)); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != try.status {
			t.Fatalf("status: got %d, want %d", res.StatusCode, try.status)
		}
		if _, err := br.Discard(int(max(res.ContentLength, 0))); err != nil {
			t.Fatal(err)
		}
	}
	r.session(t)
}

func playCompressed(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &rawClient{nc: nc, br: bufio.NewReader(nc)}
	if err := c.write([]byte(with("Sec-WebSocket-Extensions: permessage-deflate"))); err != nil {
		t.Fatal(err)
	}
	if _, err := http.ReadResponse(c.br, nil); err != nil {
		t.Fatal(err)
	}
	s := r.session(t)
	// "Hello" as RFC 7692 compresses it.
	if err := c.write(frame(fin|0x40|opText, "\xf2\x48\xcd\xc9\xc9\x07\x00")); err != nil {
		t.Fatal(err)
	}
	if _, got := c.until(t, fin|opClose); got != "\x10\x6aprotocol" {
		t.Errorf("close frame: got %q, want 4202 protocol", got)
	}
	if rest := c.rest(t, nil); len(rest) > 0 {
		t.Errorf("behind the close frame comes % x", rest)
	}
	nc.Close()
	get(t, s.closed, "Closed")
	check(t, s, sent{code: CodeProtocol}, model(frame(fin|0x40|opText, ""), limitsOf(cfg)))
}
