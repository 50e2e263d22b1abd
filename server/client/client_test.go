package client

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/wire"
)

// orderedStorage notes when it is used.
type orderedStorage struct {
	Memory
	w       *world
	saveErr error
}

func (s *orderedStorage) Save(ctx context.Context, st State) error {
	if s.saveErr != nil {
		return s.saveErr
	}
	s.w.note("save")
	return s.Memory.Save(ctx, st)
}

func (s *orderedStorage) Flush(context.Context) error { s.w.note("flush"); return nil }

func TestClient_HandlesThenSavesThenFlushesThenAcknowledges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.Storage = &orderedStorage{w: w}
		w.start()
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		p.send(ownMessage(11, 101))
		got, want := p.recvAck(t), cursorAt(1, 101, 200)
		if got != want {
			t.Errorf("acknowledged %q, want %q", got, want)
		}
		equal(t, "events", w.events(), []string{"handle 11", "save", "flush", "acked"})
		if err := w.stop(); err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
}

func TestClient_AcknowledgesOnlyWhatWasHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		w.cfg.Message = func(_ context.Context, m *wire.Message) error {
			if m.ID == 12 {
				<-release
			}
			return nil
		}
		w.start()
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		p.send(ownMessage(11, 101), ownMessage(12, 102), ownMessage(13, 103))
		if got, want := p.recvAck(t), cursorAt(1, 101, 200); got != want {
			t.Errorf("acknowledged %q while the second is being handled, want %q", got, want)
		}
		p.noAck(t, 20*time.Second)
		close(release)
		// 12 and 13 are both owed; whichever the first acknowledgement covers, the last covers both.
		got := p.recvAck(t)
		if got == cursorAt(1, 102, 200) {
			got = p.recvAck(t)
		}
		if want := cursorAt(1, 103, 200); got != want {
			t.Errorf("acknowledged %q, want %q", got, want)
		}
		w.stop()
	})
}

func TestClient_AcknowledgesAtMostOnceASecondAcrossConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		cursor, pos := cursorAt(1, 100, 200), push.Position(100)
		var at []time.Time
		for range 3 {
			p, _ := w.welcomed(cursor)
			for range 50 {
				pos++
				p.send(ownMessage(push.MsgID(pos), pos))
				<-time.After(77 * time.Millisecond) // virtual time: the pace of the messages
				for len(p.toServer) > 0 {
					if a, ok := (<-p.toServer).(*wire.Ack); ok {
						at = append(at, time.Now())
						cursor = a.Cursor
					}
				}
			}
			p.end(errors.New("lost"))
		}
		if len(at) < 6 {
			t.Fatalf("got %d acknowledgements in 11 seconds, want one nearly every second", len(at))
		}
		for i := 1; i < len(at); i++ {
			// The reader above looks every 77 ms.
			if d := at[i].Sub(at[i-1]); d < time.Second-77*time.Millisecond {
				t.Errorf("acknowledgements %d and %d are %v apart, want a second", i-1, i, d)
			}
		}
		w.stop()
	})
}

func TestClient_DropsRepeatsByIDAndNeverByPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		p.send(ownMessage(11, 101), ownMessage(12, 102))
		// The store lost position 102: the slot goes back, and another message lies there now.
		p.send(&wire.Cursor{Cursor: cursorAt(2, 100, 200), Reason: wire.CursorLineage})
		p.send(ownMessage(11, 101), ownMessage(13, 102))
		equal(t, "handled", w.ids(), []push.MsgID{11, 12, 13})
		if got, want := w.client.progress.string(), cursorAt(2, 102, 200); got != want {
			t.Errorf("cursor %q, want %q", got, want)
		}
		w.stop()
	})
}

func TestClient_ContinuesFromItsStorageInALaterLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		p, first := w.welcomed(cursorAt(1, 100, 200))
		if first.Cursor != "" {
			t.Errorf("a new device presented cursor %q", first.Cursor)
		}
		p.send(ownMessage(11, 101), ownMessage(12, 102))
		equal(t, "handled", w.ids(), []push.MsgID{11, 12})
		w.stop()

		w.start()
		p, second := w.welcomed(cursorAt(1, 100, 200)) // acknowledgements were lost: the server begins earlier
		if got, want := second.Cursor, cursorAt(1, 102, 200); got != want {
			t.Errorf("presented %q, want %q", got, want)
		}
		p.send(ownMessage(11, 101), ownMessage(12, 102), ownMessage(13, 103))
		equal(t, "handled in both lives", w.ids(), []push.MsgID{11, 12, 13})
		w.stop()
	})
}

func TestClient_NamesTheSessionThatItHadInThisLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		var named []push.SessionEpoch
		for session := range push.SessionEpoch(3) {
			p, c := w.accept()
			named = append(named, c.After)
			if session != 1 { // that one ends before it is welcomed
				welcome := welcomeAt(cursorAt(1, 100, 200))
				welcome.Session = 7 + session
				p.send(welcome)
			}
			p.end(errors.New("lost"))
		}
		_, c := w.accept()
		named = append(named, c.After)
		w.stop()
		w.start()
		_, c = w.accept()
		named = append(named, c.After)
		w.stop()
		equal(t, "named", named, []push.SessionEpoch{0, 7, 7, 9, 0})
	})
}

func TestClient_AcknowledgesAfterARestartWhatTheServerMayNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cursor := cursorAt(1, 105, 200)
		w.cfg.Storage.Save(t.Context(), State{Cursor: cursor})
		w.start()
		p, _ := w.welcomed(cursor)
		if got := p.recvAck(t); got != cursor {
			t.Errorf("acknowledged %q, want %q", got, cursor)
		}
		w.stop()
	})
}

func TestClient_HandlerErrorEndsRunAndTheMessageComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		broken := errors.New("broken")
		handle := w.cfg.Message
		w.cfg.Message = func(ctx context.Context, m *wire.Message) error {
			if m.ID == 12 && broken != nil {
				return broken
			}
			return handle(ctx, m)
		}
		w.start()
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		p.send(ownMessage(11, 101), ownMessage(12, 102), ownMessage(13, 103))
		if err := <-w.result; !errors.Is(err, broken) {
			t.Fatalf("Run returned %v, want the handler's error", err)
		}
		broken = nil
		w.start()
		p, c := w.accept()
		if got, want := c.Cursor, cursorAt(1, 101, 200); got != want {
			t.Errorf("presented %q, want %q", got, want)
		}
		p.send(welcomeAt(c.Cursor), ownMessage(12, 102), ownMessage(13, 103))
		equal(t, "handled", w.ids(), []push.MsgID{11, 12, 13})
		w.stop()
	})
}

func TestClient_AcknowledgesTheLastMessageBeforeItGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		p.send(ownMessage(11, 101))
		p.recvAck(t)
		p.send(ownMessage(12, 102), ownMessage(13, 103))
		synctest.Wait()
		began := time.Now()
		w.cancel()
		if got, want := p.recvAck(t), cursorAt(1, 103, 200); got != want {
			t.Errorf("acknowledged %q, want %q", got, want)
		}
		if got := time.Since(began); got != time.Second { // virtual time: exact
			t.Errorf("acknowledged again after %v, want a second", got)
		}
		if err := <-w.result; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
}

func TestClient_StorageThatFailsEndsRunWithoutAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		full := errors.New("disk full")
		w.cfg.Storage = &orderedStorage{w: w, saveErr: full}
		w.start()
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		p.send(ownMessage(11, 101))
		if err := <-w.result; !errors.Is(err, full) {
			t.Fatalf("Run returned %v, want the storage's error", err)
		}
		equal(t, "events", w.events(), []string{"handle 11"})
	})
}

func TestClient_RecallsGapsAndCursorsMoveTheCursor(t *testing.T) {
	cases := []struct {
		name  string
		frame wire.Frame
		want  string
		event []string
	}{
		{"recall", &wire.Recall{Slot: push.Own, Pos: 105, ID: 9}, cursorAt(1, 105, 200), []string{"recall 9"}},
		{"gap by a limit", &wire.Gap{Slot: push.Common, From: 200, To: 210, Reason: wire.GapLimit},
			cursorAt(1, 100, 210), []string{"gap 200-210 limit"}},
		{"gap by loss", &wire.Gap{Slot: push.Own, From: 100, To: 101, Reason: wire.GapLost},
			cursorAt(1, 101, 200), []string{"gap 100-101 lost"}},
		{"gap by a reset leaves it", &wire.Gap{Slot: push.Own, From: 0, To: 150, Reason: wire.GapReset},
			cursorAt(1, 100, 200), []string{"gap 0-150 reset"}},
		{"cursor", &wire.Cursor{Cursor: cursorAt(3, 90, 220), Reason: wire.CursorPassed}, cursorAt(3, 90, 220), nil},
		{"a position further back leaves it", ownMessage(11, 90), cursorAt(1, 100, 200), []string{"handle 11"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.cfg.Acked = nil
				w.start()
				p, _ := w.welcomed(cursorAt(1, 100, 200))
				p.send(c.frame)
				equal(t, "events", w.events(), c.event)
				w.stop()
				st, _ := w.cfg.Storage.Load(t.Context())
				if st.Cursor != c.want {
					t.Errorf("stored cursor %q, want %q", st.Cursor, c.want)
				}
			})
		})
	}
}

func TestClient_NonPersistentMessagesThatComeOverTwoRoomsAreHandledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		live := func(id push.MsgID) *wire.Message {
			return &wire.Message{Slot: push.NoSlot, Message: push.Message{ID: id, Body: []byte("1")}}
		}
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		p.send(live(5))
		equal(t, "handled", w.ids(), []push.MsgID{5})
		p.end(io.EOF)
		p, _ = w.welcomed(cursorAt(1, 100, 200)) // in another room, which hears of the message late
		p.send(live(5), live(6))
		equal(t, "handled over both", w.ids(), []push.MsgID{5, 6})
		w.stop()
	})
}

func TestClient_NonPersistentMessagesAreHandledAndNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		p.send(&wire.Message{Slot: push.NoSlot, Message: push.Message{ID: 5, Body: []byte("1")}})
		equal(t, "handled", w.ids(), []push.MsgID{5})
		p.noAck(t, 5*time.Second)
		w.stop()
		if st, _ := w.cfg.Storage.Load(t.Context()); len(st.IDs) != 0 {
			t.Errorf("remembered ids %v, want none", st.IDs)
		}
	})
}

func TestClient_StoppedWhileAHandlerRunsReturnsNil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cfg.Message = func(ctx context.Context, _ *wire.Message) error {
			<-ctx.Done()
			return ctx.Err()
		}
		w.start()
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		p.send(ownMessage(11, 101))
		synctest.Wait()
		if err := w.stop(); err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
		if st, _ := w.cfg.Storage.Load(t.Context()); len(st.IDs) != 0 {
			t.Errorf("remembered %v, which was not handled", st.IDs)
		}
	})
}

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	whole := func() Config { return newWorld(t).cfg }
	cases := []struct {
		name  string
		spoil func(*Config)
	}{
		{"no address", func(c *Config) { c.URLs = nil }},
		{"no tokens", func(c *Config) { c.Tokens = nil }},
		{"no storage", func(c *Config) { c.Storage = nil }},
		{"no handler", func(c *Config) { c.Message = nil }},
		{"a name too long", func(c *Config) { c.Name = string(make([]byte, wire.MaxClient+1)) }},
	}
	for _, c := range cases {
		cfg := whole()
		c.spoil(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: New took it", c.name)
		}
	}
	if _, err := New(whole()); err != nil {
		t.Errorf("a whole configuration: %v", err)
	}
}

func TestClient_HandlesNothingMoreOnceItIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		handle := w.cfg.Message
		w.cfg.Message = func(ctx context.Context, m *wire.Message) error {
			if m.ID == 12 {
				w.cancel()
			}
			return handle(ctx, m)
		}
		w.start()
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		p.send(ownMessage(11, 101), ownMessage(12, 102), ownMessage(13, 103), ownMessage(14, 104))
		if err := <-w.result; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
		equal(t, "handled", w.ids(), []push.MsgID{11, 12})
	})
}
