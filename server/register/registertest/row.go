package registertest

import (
	"testing"

	"carillon/server/push"
	"carillon/server/register"
)

// after is a session of a client that names the one it had before.
func after(before push.SessionEpoch, k register.Key, room push.RoomID, boot push.BootID) register.Session {
	s := session(k, room, boot)
	s.Row = before
	return s
}

// wantRow holds a session to its row, and what the register says of it.
func (h *harness) wantRow(s register.Session, row push.SessionEpoch) {
	h.t.Helper()
	if s.Row != row {
		h.t.Fatalf("session %d: its row is %d, want %d", s.Epoch, s.Row, row)
	}
	h.wantSessions(s.Product, s.User, s)
}

// wantContinues holds the one order of a room to be that a session ends, and to tell whether its client goes on.
func (h *harness) wantContinues(room push.RoomID, boot push.BootID, was, by register.Session, want bool) {
	h.t.Helper()
	got := h.renew(room, boot)
	h.wantOrder(got, was, by)
	if got[0].Continues(was.Epoch) != want {
		h.t.Fatalf("%+v: continues %v, want %v", got[0], !want, want)
	}
}

func goesOn(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	k := key(shop, "alice", "phone")
	first := h.insert(session(k, north, 7)).Session
	h.wantRow(first, 0)
	second := h.insert(after(first.Epoch, k, south, 8)).Session
	h.wantRow(second, first.Epoch)
	h.wantContinues(north, 7, first, second, true)
	third := h.insert(after(second.Epoch, k, north, 7)).Session
	h.wantRow(third, first.Epoch)
	h.wantContinues(south, 8, second, third, true)
	twin := h.insert(session(k, south, 8)).Session
	h.wantRow(twin, 0)
	h.wantContinues(north, 7, third, twin, false)
	if !h.remove(k, twin.Epoch, 8) {
		t.Fatal("the session is not there")
	}
	// What a client says of a session that is not there any more is all that is known.
	last := h.insert(after(third.Epoch, k, north, 7)).Session
	h.wantRow(last, third.Epoch)
	// Nobody had a session that comes yet.
	h.wantRow(h.insert(after(last.Epoch+1<<62, k, north, 7)).Session, 0)
}

func goesOnTwice(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	k := key(shop, "alice", "phone")
	first := h.insert(session(k, north, 7)).Session
	second := h.insert(after(first.Epoch, k, south, 8)).Session
	h.renew(north, 7)
	again := h.insert(after(first.Epoch, k, north, 7)).Session
	h.wantRow(again, first.Epoch)
	h.wantContinues(south, 8, second, again, true)
	third := h.insert(after(again.Epoch, k, south, 8)).Session
	h.wantContinues(north, 7, again, third, true)
	late := h.insert(after(first.Epoch, k, north, 7)).Session // opened long after its client gave it up
	h.wantRow(late, first.Epoch)
	h.wantContinues(south, 8, third, late, true)
}

func goesOnTooLate(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	k := key(shop, "alice", "phone")
	first := h.insert(session(k, north, 7)).Session
	twin := h.insert(session(k, south, 8)).Session
	_, err := h.Register.Insert(h.ctx, after(first.Epoch, k, north, 7), nil)
	wantError(t, "Insert of a client that was replaced", err, push.KindConflict, "replaced")
	h.wantRow(twin, 0)
	if got := h.renew(south, 8); len(got) != 0 {
		t.Fatalf("the session that stays was ordered out: %v", got)
	}
	if err := h.Register.Leave(h.ctx, south, 8); err != nil {
		t.Fatal(err)
	}
	h.wantRow(h.insert(after(first.Epoch, k, north, 7)).Session, first.Epoch) // the other one does not count any more
}

func reinsertContinued(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	k := key(shop, "alice", "phone")
	first := h.insert(session(k, north, 7)).Session
	second := h.insert(after(first.Epoch, k, south, 8)).Session
	third := h.insert(after(second.Epoch, k, north, 7)).Session
	for _, s := range []register.Session{first, second} {
		_, err := h.Register.Insert(h.ctx, s, nil)
		wantError(t, "Insert anew", err, push.KindConflict, register.CodeContinued)
	}
	if in := h.insert(third); in.Session != third || len(in.Replaced) != 0 {
		t.Fatalf("Insert of the same session: got %+v, want %+v", in, third)
	}
	h.wantRow(third, first.Epoch)
}
