package longpoll

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"unique"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/transport/web"
	"carillon/server/wire"
)

// ServeHTTP answers a poll. A poll that waits on a connection which can be parked is taken from net/http, and ServeHTTP
// returns; others are answered before it does.
func (t *Transport) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refusal := web.Check(r, http.MethodGet, http.MethodPost)
	var rq *web.Request
	if refusal == nil {
		rq, refusal = web.Parse(r, t.cfg.Tickets)
	}
	if refusal != nil {
		refusal.Write(w)
		return
	}
	p := &poll{now: rq.Wait == 0, keep: !r.Close && r.ProtoAtLeast(1, 1), hand: newHandler(w)}
	h := p.hand
	if refusal := t.begin(r, rq, p); refusal != nil {
		refusal.Write(w)
		return
	}
	p.c.ask()
	select {
	case a := <-h.answers:
		p.respond(h, a)
		return
	default:
	}
	if !p.now && t.park(h, r, p) {
		return
	}
	select {
	case a := <-h.answers:
		p.respond(h, a)
	case <-r.Context().Done():
		p.c.left(p)
		p.forsake(h)
		panic(http.ErrAbortHandler) // to return would be an answer
	}
}

// begin attaches a poll to the session that it continues, or to a new one. A refusal is left to the caller to write.
func (t *Transport) begin(r *http.Request, rq *web.Request, p *poll) *web.Problem {
	if !t.live.Join() { // until all have left, those who are here hear their goodbye
		return web.ProblemOf(errClosed)
	}
	attached := false
	defer func() {
		if !attached { // refused, or the Acceptor panics, after which net/http goes on
			t.leavePoll(false)
		}
	}()
	if attached = t.proceed(r.Context(), rq, p); attached {
		return nil
	}
	refusal := t.open(r, rq, p)
	attached = refusal == nil
	return refusal
}

// proceed attaches a poll to the session that it continues, if there is one.
func (t *Transport) proceed(ctx context.Context, rq *web.Request, p *poll) bool {
	c := t.lookup(rq.Session)
	if c == nil {
		return false
	}
	var refresh *wire.Refresh
	if !c.admits(proofOf(rq.Connect.Token)) {
		if !t.speaksFor(ctx, rq.Connect.Token, c) {
			return false
		}
		refresh = &wire.Refresh{Token: rq.Connect.Token}
	}
	p.c = c
	return c.attach(p, rq, refresh)
}

// speaksFor reports whether a token is one of the device whose session it is: what waits for that device is nobody else's
// to see, and its session nobody else's to end.
func (t *Transport) speaksFor(ctx context.Context, token string, c *conn) bool {
	if t.cfg.Owner == nil {
		return false
	}
	owner, err := t.cfg.Owner(ctx, token)
	return err == nil && owner == c.owner() // where it cannot be said the new session will say it
}

// open makes a session for a poll.
func (t *Transport) open(r *http.Request, rq *web.Request, p *poll) *web.Problem {
	c := &conn{t: t, proof: proofOf(rq.Connect.Token)}
	if !t.live.Enter(c) {
		return web.ProblemOf(errClosed)
	}
	p.c = c
	defer func() {
		if c.session == nil {
			t.leave(c)
		}
	}()
	s, err := t.cfg.Acceptor.Accept(c, web.MetaOf(r, transport.LongPoll, capabilities, t.cfg.Remote))
	if err != nil {
		return web.ProblemOf(err)
	}
	polls, ok := s.(transport.PollSession)
	if !ok {
		t.cfg.Log.Error("longpoll: the acceptor makes sessions that know no polls")
		s.Closed(wire.CloseInternal)
		return web.ProblemOfClose(wire.CloseInternal, "", 0)
	}
	c.session = polls
	c.stand(p, rq)
	return nil
}

// respond writes the answer of a poll that net/http still has.
func (p *poll) respond(h *handler, a answer) {
	p.c.mu.Lock()
	h.writing = true
	keep := p.keep
	p.c.mu.Unlock()
	p.c.t.others().Add(1)
	err := a.write(h.w, keep)
	p.c.mu.Lock()
	h.writing = false
	p.c.mu.Unlock()
	p.c.over(p, err == nil)
	p.end()
}

// forsake ends a poll whose client left before net/http could answer it.
func (p *poll) forsake(h *handler) {
	p.c.mu.Lock()
	answering := p.answering
	p.c.mu.Unlock()
	if answering {
		<-h.answers
		p.c.over(p, false)
	}
	p.end()
}

// park takes a poll from net/http, to wait without a goroutine. It returns false if the poll has to wait where it is.
func (t *Transport) park(h *handler, r *http.Request, p *poll) bool {
	home := homeOf(r.Context())
	if t.Engine() != engine.Epoll || home == nil || r.TLS != nil {
		return false
	}
	if err := t.poller.Reserve(&p.sock); err != nil {
		t.noFiles.Do(func() {
			t.cfg.Log.Warn("longpoll: a poll keeps its goroutine, and so do others without a word here", slog.Any("err", err))
		})
		return false
	}
	extra := web.ExtraHeaders(h.w)
	nc, brw, err := http.NewResponseController(h.w).Hijack()
	if err != nil {
		p.sock.Close(false)
		if !errors.Is(err, http.ErrNotSupported) {
			t.cfg.Log.Warn("longpoll: a poll keeps its goroutine", slog.Any("err", err))
		}
		return false
	}
	var early []byte
	if n := brw.Reader.Buffered(); n > 0 {
		b, _ := brw.Reader.Peek(n)
		early = append([]byte(nil), b...)
	}
	if err := p.sock.Adopt(nc); err != nil { // it had a descriptor a moment ago
		t.cfg.Log.Warn("longpoll: a poll is lost", slog.Any("err", err))
		p.sock.Close(false)
		nc.Close()
		p.c.left(p)
		p.forsake(h)
		return true
	}
	p.home = home
	remote := remoteOf(nc)
	if len(extra) > 0 {
		p.extra = unique.Make(string(extra))
	}
	p.settle(h, remote, early)
	return true
}

// settle has the poller watch a poll that was taken from net/http. What it was answered with meanwhile is written now.
func (p *poll) settle(h *handler, remote net.Addr, early []byte) {
	p.c.t.waiting.Add(1)
	p.c.mu.Lock()
	if remote != nil || len(early) > 0 {
		p.rare = &rare{remote: remote, early: early}
	}
	answering := p.answering
	if !answering {
		p.hand = nil
	}
	p.c.mu.Unlock()
	var a answer
	if answering { // whoever said so gives it to the handler
		a = <-h.answers
		p.c.mu.Lock()
		p.hand = nil
		p.c.mu.Unlock()
	}
	err := p.sock.Arm(p)
	switch {
	case answering:
		p.write(&a)
	case err != nil:
		p.leave()
	}
}

// capabilities are what a poll can do.
var capabilities = transport.Capabilities{Encoding: wire.JSON, Polls: true}

// errClosed is the refusal of a transport that has been closed.
var errClosed = push.Errorf(push.KindUnavailable, "shutting_down", "this node takes no more connections")
