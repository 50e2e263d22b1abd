package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/wire"
)

func TestClient_CodeDecidesWhetherItComesBack(t *testing.T) {
	cases := []struct {
		name  string
		last  wire.Frame // before the close; may be nil
		code  wire.CloseCode
		back  bool
		renew bool
	}{
		{"slow", nil, wire.CloseSlow, true, false},
		{"a code of RFC 6455", nil, 1001, true, false},
		{"an unknown code that says come back", nil, 4077, true, false},
		{"token expired", nil, wire.CloseTokenExpired, true, true},
		{"kicked for its token", &wire.Kick{Code: wire.CloseTokenRefused}, wire.CloseTokenRefused, true, true},
		{"replaced", &wire.Kick{Code: wire.CloseReplaced, By: "laptop"}, wire.CloseReplaced, false, false},
		{"turned away by the session policy", &wire.Kick{Code: wire.ClosePolicy, Detail: "at most 1"}, wire.ClosePolicy, false, false},
		{"an unknown code that says stay away", nil, 4277, false, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.start()
				p, _ := w.welcomed(cursorAt(1, 100, 200))
				if c.last != nil {
					p.send(c.last)
				}
				p.end(&ClosedError{Code: c.code})
				if !c.back {
					var closed *ClosedError
					if err := <-w.result; !errors.As(err, &closed) || closed.Code != c.code {
						t.Fatalf("Run returned %v, want close code %d", err, c.code)
					}
					return
				}
				w.welcomed(cursorAt(1, 100, 200))
				equal(t, "asked for another token", w.renewed, []bool{false, c.renew})
				w.stop()
			})
		})
	}
}

func TestClient_BacksOffFurtherUntilItCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		var delays []time.Duration
		for range 9 {
			p, _ := w.welcomed(cursorAt(1, 100, 200))
			p.end(errors.New("lost"))
			delays = append(delays, w.lastDelay())
		}
		ms := time.Millisecond // half of each ceiling, since the random source says 0.5
		equal(t, "delays", delays, []time.Duration{
			250 * ms, 500 * ms, 1000 * ms, 2000 * ms, 4000 * ms, 8000 * ms, 15000 * ms, 15000 * ms, 15000 * ms,
		})
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		p.send(&wire.Cursor{Cursor: cursorAt(1, 100, 200), Reason: wire.CursorCaughtUp})
		synctest.Wait()
		p.end(errors.New("lost"))
		if got, want := w.lastDelay(), 250*ms; got != want {
			t.Errorf("after catching up the delay is %v, want %v", got, want)
		}
		w.stop()
	})
}

func TestClient_ObeysGoaway(t *testing.T) {
	cases := []struct {
		name, from, to string
		wantURL        string
	}{
		{"to the same address", "ws://one/connect", "", "ws://one/connect"},
		{"to another address", "ws://one/connect", "ws://two/connect", "ws://two/connect"},
		{"never in the clear", "wss://one/connect", "ws://two/connect", "wss://one/connect"},
		{"never in the clear over raw TCP", "tcps://one:8082", "tcp://two:8082", "tcps://one:8082"},
		{"to another address of raw TCP", "tcps://one:8082", "tcps://two:8082", "tcps://two:8082"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.cfg.URLs = []string{c.from}
				w.start()
				p, _ := w.welcomed(cursorAt(1, 100, 200))
				p.send(&wire.Goaway{Code: wire.CloseGoingAway, DelayMillis: 12345, Address: c.to})
				p.send(ownMessage(11, 101)) // what was queued still counts
				synctest.Wait()
				p.end(&ClosedError{Code: wire.CloseGoingAway})
				if got, want := w.lastDelay(), 12345*time.Millisecond; got != want {
					t.Errorf("waits %v, want %v", got, want)
				}
				p, connect := w.accept()
				if p.url != c.wantURL {
					t.Errorf("came back to %s, want %s", p.url, c.wantURL)
				}
				if got, want := connect.Cursor, cursorAt(1, 101, 200); got != want {
					t.Errorf("presented %q, want %q", got, want)
				}
				w.stop()
			})
		})
	}
}

func TestClient_GoesOnToTheNextAddressAndWaitsAsLongAsARefusalSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.URLs = []string{"ws://one/connect", "ws://two/connect"}
		w.refuse = &push.Error{Kind: push.KindUnavailable, Code: "connect_refused", After: 42 * time.Second}
		w.start()
		if got, want := w.lastDelay(), 42*time.Second; got != want {
			t.Errorf("waits %v, want %v", got, want)
		}
		w.mu.Lock()
		w.refuse = nil
		w.mu.Unlock()
		if p, _ := w.accept(); p.url != "ws://two/connect" {
			t.Errorf("went to %s, want the second address", p.url)
		}
		w.stop()
	})
}

func TestClient_EndsWhenItsOnlyTokenIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.Tokens = StaticToken("only")
		w.start()
		p, connect := w.accept()
		if connect.Token != "only" || connect.Version != wire.Version {
			t.Errorf("connect frame %+v", connect)
		}
		p.end(&ClosedError{Code: wire.CloseTokenRefused})
		if err := <-w.result; !errors.Is(err, ErrNoOtherToken) {
			t.Errorf("Run returned %v, want ErrNoOtherToken", err)
		}
	})
}

func TestClient_TokenSourceThatFailsOnceIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		source, failed := w.cfg.Tokens, false
		w.cfg.Tokens = func(ctx context.Context, renew bool) (string, error) {
			if !failed {
				failed = true
				return "", errors.New("the token server is away")
			}
			return source(ctx, renew)
		}
		w.start()
		w.accept()
		w.stop()
	})
}

func TestClient_RenewsItsTokenOnTheLiveSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		p.send(&wire.Refresh{})
		got, ok := p.recv(t).(*wire.Refresh)
		if !ok || got.Token != "token-2" {
			t.Errorf("got %+v, want a refresh with the second token", got)
		}
		p.send(&wire.Refresh{Expires: 1})
		equal(t, "asked for another token", w.renewed, []bool{false, true})
		w.stop()
	})
}

func TestClient_PingsBelowTheIntervalAndAnswersPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		last := time.Now()
		for range 100 {
			f := <-p.toServer
			if d := time.Since(last); f.Type() != wire.TypePing || d >= 30*time.Second {
				t.Fatalf("got %T after %v, want a ping within the interval", f, d)
			}
			last = time.Now()
			p.send(&wire.Pong{})
		}
		p.send(&wire.Ping{})
		if f := <-p.toServer; f.Type() != wire.TypePong {
			t.Errorf("got %T, want a pong", f)
		}
		w.stop()
	})
}

func TestClient_LeavesASilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		began := time.Now()
		<-p.gone
		if got, want := time.Since(began), 40*time.Second; got != want { // virtual time: exact
			t.Errorf("left after %v, want interval and grace, %v", got, want)
		}
		w.accept()
		w.stop()
	})
}

func TestClient_SlowHandlerIsNoSilenceAndKeepsPinging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.Message = func(ctx context.Context, m *wire.Message) error {
			if m.ID == 1 {
				<-time.After(10 * time.Minute)
			}
			return nil
		}
		w.start()
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		for i := range 3 * framesAhead {
			p.send(ownMessage(push.MsgID(1+i), push.Position(101+i)))
		}
		pings := 0
		end := time.After(9 * time.Minute)
		for done := false; !done; {
			select {
			case f := <-p.toServer:
				if f.Type() == wire.TypePing {
					pings++
				}
			case <-p.gone:
				t.Fatalf("the connection ended: %v", p.err)
			case <-end:
				done = true
			}
		}
		if pings < 18 {
			t.Errorf("got %d pings in nine minutes, want one every half minute", pings)
		}
		w.stop()
	})
}

func TestClient_LeavesAServerThatDoesNotWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		p, _ := w.accept()
		<-p.gone
		w.accept()
		w.stop()
	})
}

func TestClient_LeavesAServerThatBreaksTheProtocol(t *testing.T) {
	cases := []struct {
		name   string
		frames []wire.Frame
	}{
		{"message before welcome", []wire.Frame{ownMessage(11, 101)}},
		{"welcome twice", []wire.Frame{welcomeAt(cursorAt(1, 1, 1)), welcomeAt(cursorAt(1, 1, 1))}},
		{"welcome without a cursor that can be read", []wire.Frame{welcomeAt("1.zzz")}},
		{"cursor that cannot be read", []wire.Frame{welcomeAt(cursorAt(1, 1, 1)), &wire.Cursor{Cursor: "nonsense"}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.start()
				p, _ := w.accept()
				p.send(c.frames...)
				<-p.gone
				equal(t, "handled", w.ids(), nil)
				w.accept()
				w.stop()
			})
		})
	}
}

func TestClient_WriteThatHangsEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		for len(p.toServer) < cap(p.toServer) {
			select {
			case p.toServer <- &wire.Ping{}: // nobody reads: the connection takes no more
			default:
			}
		}
		p.send(ownMessage(11, 101))
		<-p.gone
		w.accept()
		w.stop()
	})
}

// What the server says last decides, also when a write of ours finds the connection closed before it was handled.
func TestClient_HearsWhyAlthoughItsWriteFailed(t *testing.T) {
	kick := &wire.Kick{Code: wire.CloseDeleted, Reason: "deleted"}
	for name, provoke := range map[string]func(*pipe){
		"acknowledgement": func(p *pipe) { p.send(ownMessage(11, 101)) },
		"ping":            func(*pipe) { time.Sleep(24 * time.Second) }, // 0.8 of the interval
		"pong":            func(p *pipe) { p.send(&wire.Ping{}) },
		"refresh":         func(p *pipe) { p.send(&wire.Refresh{}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.start()
				p, _ := w.welcomed(cursorAt(1, 100, 200))
				synctest.Wait()
				p.shut.Store(true)
				provoke(p)
				synctest.Wait()
				p.send(kick)
				select {
				case err := <-w.result:
					if closed := (*ClosedError)(nil); !errors.As(err, &closed) || closed.Code != wire.CloseDeleted {
						t.Errorf("Run returned %v, want that the device was deleted", err)
					}
				case <-w.dials:
					t.Error("the client came back")
					w.stop()
				}
			})
		})
	}
}

func TestClient_WaitsAMomentAfterAFailedWriteAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		synctest.Wait()
		p.shut.Store(true)
		p.send(ownMessage(11, 101))
		synctest.Wait()
		failed := time.Now()
		p.send(ownMessage(12, 102)) // is still handled, and not acknowledged
		<-p.gone
		if waited := time.Since(failed); waited != lastWords {
			t.Errorf("the connection ended after %v, want %v", waited, lastWords)
		}
		_, c := w.accept()
		if want := cursorAt(1, 102, 200); c.Cursor != want {
			t.Errorf("came back with %q, want %q", c.Cursor, want)
		}
		w.stop()
	})
}
