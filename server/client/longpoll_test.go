package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/wire"
)

// polled is a poll that a test answers.
type polled struct {
	asked
	answer chan string
}

// pollWorld is a client that polls a gateway of the test's, on virtual time.
type pollWorld struct {
	*world
	polls  chan polled
	posted chan asked
}

func newPollWorld(t *testing.T) *pollWorld {
	w := &pollWorld{world: newWorld(t), polls: make(chan polled), posted: make(chan asked, 10)}
	hc := pipes(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		a, err := askedBy(r)
		if err != nil {
			return
		}
		if a.path == "/connect/frames" {
			w.posted <- a
			rw.WriteHeader(http.StatusNoContent)
			return
		}
		p := polled{a, make(chan string)}
		select {
		case w.polls <- p:
		case <-r.Context().Done():
			return
		}
		select {
		case body := <-p.answer:
			rw.Header().Set("Content-Type", "application/json")
			io.WriteString(rw, body)
		case <-r.Context().Done():
		}
	}))
	w.cfg.Dialer = &LongPoll{Client: hc}
	return w
}

func (w *pollWorld) next() polled {
	w.t.Helper()
	select {
	case p := <-w.polls:
		return p
	case err := <-w.result:
		w.t.Fatalf("Run returned %v, want a poll", err)
	case <-time.After(time.Hour):
		w.t.Fatal("no poll within an hour")
	}
	return polled{}
}

func TestLongPoll_NextPollAcknowledgesWhatWasHandledAndStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPollWorld(t)
		store := &orderedStorage{w: w.world}
		w.cfg.Storage = store
		release := make(chan struct{})
		handle := w.cfg.Message
		w.cfg.Message = func(ctx context.Context, m *wire.Message) error {
			<-release
			return handle(ctx, m)
		}
		w.start()
		p := w.next()
		if p.query["session"] != "" || p.query["cursor"] != "" || p.query["wait"] != "55" {
			t.Errorf("the first poll asks with %v", p.query)
		}
		p.answer <- answerOf("123", welcomeAt(cursorAt(1, 100, 200)))
		p = w.next()
		if p.query["session"] != "123" || p.query["cursor"] != cursorAt(1, 100, 200) {
			t.Errorf("the second poll asks with %v", p.query)
		}
		p.answer <- answerOf("123", ownMessage(11, 101), ownMessage(12, 102))
		time.Sleep(time.Hour) // the handler takes its time
		synctest.Wait()
		select {
		case p := <-w.polls:
			t.Fatalf("a poll came, %v, before anything was handled", p.query)
		default:
		}
		release <- struct{}{}
		synctest.Wait()
		select {
		case p := <-w.polls:
			t.Fatalf("a poll came, %v, with one of two messages handled", p.query)
		default:
		}
		release <- struct{}{}
		p = w.next()
		if got, want := p.query["cursor"], cursorAt(1, 102, 200); got != want || p.query["session"] != "123" {
			t.Errorf("the poll after the messages presents %v, want the cursor %s", p.query, want)
		}
		if state, err := store.Load(t.Context()); err != nil || state.Cursor != p.query["cursor"] {
			t.Errorf("acknowledged was %s, stored is %s, %v", p.query["cursor"], state.Cursor, err)
		}
		equal(t, "events", w.events(), []string{"handle 11", "save", "handle 12", "save", "flush", "acked"})
		if n := len(w.posted); n != 0 {
			t.Errorf("%d frames were posted beside", n)
		}
		w.stop()
	})
}

func TestLongPoll_AnswerOfAnotherNodeGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPollWorld(t)
		w.start()
		w.next().answer <- answerOf("123", welcomeAt(cursorAt(1, 100, 200)), ownMessage(11, 101))
		p := w.next()
		if p.query["session"] != "123" {
			t.Errorf("the second poll asks with %v", p.query)
		}
		// A node that knows no such session begins one where the client is.
		p.answer <- answerOf("456", welcomeAt(p.query["cursor"]), ownMessage(12, 102))
		p = w.next()
		if got, want := p.query["cursor"], cursorAt(1, 102, 200); got != want || p.query["session"] != "456" {
			t.Errorf("the third poll presents %v, want the session 456 and the cursor %s", p.query, want)
		}
		equal(t, "events", w.events(), []string{"handle 11", "acked", "handle 12", "acked"})
		w.stop()
	})
}

func TestLongPoll_FirstPollOfAClientThatComesBackNamesTheSessionBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPollWorld(t)
		w.start()
		p := w.next()
		named := []string{p.query["session"], p.query["after"]}
		p.answer <- answerOf("1", welcomeAt(cursorAt(1, 100, 200)))
		p = w.next()
		named = append(named, p.query["session"], p.query["after"])
		p.answer <- answerOf("1", &wire.Goaway{Code: wire.CloseGoingAway})
		p = w.next()
		named = append(named, p.query["session"], p.query["after"])
		equal(t, "named", named, []string{"", "", "1", "", "", "1"})
		w.stop()
	})
}

func TestLongPoll_EmptyAnswersAreFollowedByTheSamePollForDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPollWorld(t)
		w.start()
		w.next().answer <- answerOf("1", welcomeAt(cursorAt(1, 100, 200)))
		for range 2000 {
			p := w.next()
			if p.query["cursor"] != cursorAt(1, 100, 200) || p.query["session"] != "1" {
				t.Fatalf("a poll asks with %v", p.query)
			}
			time.Sleep(55 * time.Second)
			p.answer <- answerOf("1")
		}
		w.next()
		for _, s := range w.states {
			if s.Phase == Waiting {
				t.Errorf("the connection ended: %v", s.Err)
			}
		}
		w.stop()
	})
}

func TestLongPoll_ServerThatDoesNotAnswerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPollWorld(t)
		w.start()
		w.next().answer <- answerOf("1", welcomeAt(cursorAt(1, 100, 200)))
		w.next() // and no answer
		began := time.Now()
		p := w.next()
		if got := time.Since(began); got < 70*time.Second || got > 71*time.Second {
			t.Errorf("the client came back after %v, want 70 s and its backoff", got)
		}
		if p.query["session"] != "" || p.query["cursor"] != cursorAt(1, 100, 200) {
			t.Errorf("it came back with %v", p.query)
		}
		if err := w.waitError(); !errors.Is(err, errSilent) {
			t.Errorf("the connection ended with %v", err)
		}
		w.stop()
	})
}

// waitError returns why the last connection ended.
func (w *world) waitError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.states) - 1; i >= 0; i-- {
		if w.states[i].Phase == Waiting {
			return w.states[i].Err
		}
	}
	return nil
}

func TestLongPoll_GoodbyesAreObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPollWorld(t)
		w.start()
		w.next().answer <- answerOf("1", welcomeAt(cursorAt(1, 100, 200)))
		w.next().answer <- answerOf("1", ownMessage(11, 101), &wire.Cursor{Cursor: cursorAt(1, 101, 200), Reason: wire.CursorGoodbye},
			&wire.Goaway{Code: wire.CloseGoingAway, DelayMillis: 12345})
		p := w.next()
		if got := w.lastDelay(); got != 12345*time.Millisecond {
			t.Errorf("the client waited %v", got)
		}
		if p.query["cursor"] != cursorAt(1, 101, 200) || p.query["session"] != "" {
			t.Errorf("it came back with %v", p.query)
		}
		p.answer <- answerOf("2", &wire.Kick{Code: wire.CloseReplaced, Reason: "replaced", By: "laptop"})
		var closed *ClosedError
		if err := <-w.result; !errors.As(err, &closed) || closed.Code != wire.CloseReplaced || closed.By != "laptop" {
			t.Errorf("Run returned %v, want replaced by the laptop", err)
		}
	})
}

func TestLongPoll_ClientThatStopsAcknowledgesWhatItHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPollWorld(t)
		stop := make(chan struct{})
		handle := w.cfg.Message
		w.cfg.Message = func(ctx context.Context, m *wire.Message) error {
			err := handle(ctx, m)
			if m.ID == 11 {
				w.cancel()
				close(stop)
			}
			return err
		}
		w.start()
		w.next().answer <- answerOf("1", welcomeAt(cursorAt(1, 100, 200)))
		w.next().answer <- answerOf("1", ownMessage(11, 101), ownMessage(12, 102))
		<-stop
		a := <-w.posted
		if !strings.Contains(a.body, cursorAt(1, 101, 200)) || a.token != "token-1" {
			t.Errorf("posted %+v, want an acknowledgement of the first message", a)
		}
		if err := <-w.result; err != nil {
			t.Errorf("Run returned %v", err)
		}
		equal(t, "handled", w.ids(), []push.MsgID{11})
	})
}

func TestLongPoll_BadAnswersAreErrors(t *testing.T) {
	for name, body := range map[string]string{
		"no JSON":       "<html>",
		"half":          `{"session":"1","frames":[{"type":"pong"}`,
		"no frame":      `{"session":"1","frames":[{"type":"message"}]}`,
		"frame of ours": `{"session":"1","frames":[{"type":"ack","cursor":"1"}]}`,
		"too large":     `{"session":"` + strings.Repeat("1", maxAnswer) + `"}`,
	} {
		f := newFakeHTTP(t, func(w http.ResponseWriter, _ *http.Request, _ asked) { io.WriteString(w, body) })
		hc := &http.Client{Transport: &http.Transport{}}
		if got, err := f.dial(&LongPoll{Client: hc}).Read(); err == nil {
			t.Errorf("%s: got a frame, %+v", name, got)
		}
		hc.CloseIdleConnections()
	}
}

func TestLongPoll_PassesOverFramesThatItDoesNotKnow(t *testing.T) {
	f := newFakeHTTP(t, func(w http.ResponseWriter, _ *http.Request, _ asked) {
		io.WriteString(w, `{"session":"1","frames":[{"type":"from_the_future"},{"type":"kick","code":4200,"reason":"replaced"}]}`)
	})
	hc := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(hc.CloseIdleConnections)
	c := f.dial(&LongPoll{Client: hc, Wait: 1500 * time.Millisecond})
	if got, err := c.Read(); err != nil || got.Type() != wire.TypeKick {
		t.Errorf("got %+v, %v, want the kick", got, err)
	}
	if _, err := c.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("after the goodbye: got %v, want the end", err)
	}
}
