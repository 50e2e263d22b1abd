package registertest

import (
	"slices"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/register"
)

func newBoot(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	k := key(shop, "alice", "phone")
	old := h.insert(session(k, north, 7)).Session
	web := h.insert(session(key(shop, "alice", "web"), south, 8)).Session
	h.join(north, 9)

	h.wantSessions(shop, "alice", web)
	h.wantCount(shop, 1)
	h.wantRooms(north, south)
	h.wantLeaseLost(north, 7)
	_, err := h.Register.Insert(h.ctx, session(key(shop, "bob", "phone"), north, 7), nil)
	wantError(t, "Insert of the old boot", err, push.KindConflict, "lease_lost")
	if h.remove(k, old.Epoch, 7) {
		t.Error("a session that does not count was removed")
	}
	if err := h.Register.Leave(h.ctx, north, 7); err != nil {
		t.Fatalf("Leave of the old boot: %v", err)
	}
	h.wantRooms(north, south)

	in := h.insert(session(k, north, 9))
	if len(in.Replaced) != 0 {
		t.Fatalf("a session that does not count was replaced: %v", in.Replaced)
	}
	if in.Session.Epoch <= old.Epoch {
		t.Fatalf("epoch %d does not stand above %d", in.Session.Epoch, old.Epoch)
	}
	if h.remove(k, old.Epoch, 7) {
		t.Error("a late goodbye of the old boot deleted the new session")
	}
	h.wantSessions(shop, "alice", in.Session, web)
	h.wantCount(shop, 2)
	if got := h.renew(north, 9); len(got) != 0 {
		t.Errorf("orders for a session of an earlier boot: %v", got)
	}
}

func sameBoot(t *testing.T, h *harness) {
	h.join(north, 7)
	s := h.insert(session(key(shop, "alice", "phone"), north, 7)).Session
	h.Elapse(register.LeaseTTL - time.Second)
	moved := register.Room{ID: north, Boot: 7, Addr: "elsewhere"}
	if err := h.Register.Join(h.ctx, moved); err != nil {
		t.Fatal(err)
	}
	h.Elapse(register.LeaseTTL - time.Second)
	h.wantSessions(shop, "alice", s)
	h.wantCount(shop, 1)
	rooms, err := h.Register.Rooms(h.ctx)
	if err != nil || !slices.Equal(rooms, []register.Room{moved}) {
		t.Fatalf("Rooms: got %v, %v, want %v", rooms, err, moved)
	}
}

func lostLease(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	var mine []register.Session
	for _, u := range []push.UserID{"alice", "bob"} {
		mine = append(mine, h.insert(session(key(shop, u, "phone"), north, 7)).Session)
	}
	h.Elapse(register.LeaseTTL / 2)
	h.renew(south, 8)
	h.Elapse(register.LeaseTTL/2 + time.Millisecond)

	h.wantRooms(south)
	h.wantSessions(shop, "alice")
	h.wantSessions(shop, "bob")
	h.wantCount(shop, 0)
	_, err := h.Register.Insert(h.ctx, session(key(shop, "cathy", "phone"), north, 7), nil)
	wantError(t, "Insert after the lease", err, push.KindConflict, "lease_lost")
	h.wantLeaseLost(north, 7)
	h.wantLeaseLost(north, 7) // it does not come back by asking

	in := h.insert(session(mine[1].Key, south, 8)) // bob moved on meanwhile
	if len(in.Replaced) != 0 {
		t.Fatalf("a session that does not count was replaced: %v", in.Replaced)
	}

	h.join(north, 7)
	if got := h.insert(mine[0]); got.Session != mine[0] || len(got.Replaced) != 0 {
		t.Fatalf("Insert anew: got %+v, want the session as it was", got)
	}
	_, err = h.Register.Insert(h.ctx, mine[1], nil)
	wantError(t, "Insert anew of one that moved on", err, push.KindConflict, "replaced")
	h.wantSessions(shop, "alice", mine[0])
	h.wantSessions(shop, "bob", in.Session)
	h.wantCount(shop, 2)
	h.wantRooms(north, south)
}

func lateJoin(t *testing.T, h *harness) {
	h.join(north, 7)
	s := h.insert(session(key(shop, "alice", "phone"), north, 7)).Session
	h.Elapse(register.LeaseTTL + time.Millisecond)
	h.join(north, 7)
	h.wantSessions(shop, "alice")
	h.wantCount(shop, 0)
	if got := h.insert(s); got.Session != s || len(got.Replaced) != 0 {
		t.Fatalf("Insert anew: got %+v, want the session as it was", got)
	}
	h.wantSessions(shop, "alice", s)
	h.wantCount(shop, 1)
}

func renewedLease(t *testing.T, h *harness) {
	h.join(north, 7)
	s := h.insert(session(key(shop, "alice", "phone"), north, 7)).Session
	for range 5 {
		h.Elapse(register.LeaseTTL - time.Second)
		if got := h.renew(north, 7); len(got) != 0 {
			t.Fatalf("orders out of nothing: %v", got)
		}
		h.wantSessions(shop, "alice", s)
	}
	h.Elapse(register.LeaseTTL + time.Millisecond)
	h.wantSessions(shop, "alice")
}

func reinsertYields(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	k := key(shop, "alice", "phone")
	first := h.insert(session(k, north, 7)).Session
	second := h.insert(session(k, south, 8)).Session
	_, err := h.Register.Insert(h.ctx, first, nil)
	wantError(t, "Insert anew", err, push.KindConflict, "replaced")
	h.wantSessions(shop, "alice", second)
	h.wantCount(shop, 1)
	if got := h.renew(south, 8); len(got) != 0 {
		t.Fatalf("the newer session was ordered out: %v", got)
	}
}

func reinsertTakes(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	k := key(shop, "alice", "phone")
	first := h.insert(session(k, north, 7)).Session
	anew := session(k, south, 8)
	anew.Epoch = first.Epoch + 5
	in := h.insert(anew)
	if in.Session != anew || len(in.Replaced) != 1 || in.Replaced[0] != first {
		t.Fatalf("Insert anew: got %+v, want %+v in place of %+v", in, anew, first)
	}
	h.wantSessions(shop, "alice", anew)
	h.wantCount(shop, 1)
	h.wantOrder(h.renew(north, 7), first, anew)
}

func reinsertIgnoresDead(t *testing.T, h *harness) {
	h.join(north, 7)
	k := key(shop, "alice", "phone")
	first := h.insert(session(k, north, 7)).Session
	h.join(south, 8)
	h.insert(session(k, south, 8))
	h.join(south, 9) // the newer session is of a boot that is gone
	anew := h.insert(first)
	if anew.Session != first || len(anew.Replaced) != 0 {
		t.Fatalf("Insert anew: got %+v, want the session as it was", anew)
	}
	h.wantSessions(shop, "alice", first)
	h.wantCount(shop, 1)
}

func reinsertTwice(t *testing.T, h *harness) {
	h.join(north, 7)
	s := h.insert(session(key(shop, "alice", "phone"), north, 7)).Session
	for range 2 {
		if in := h.insert(s); in.Session != s || len(in.Replaced) != 0 {
			t.Fatalf("Insert of the same session: got %+v", in)
		}
	}
	h.wantSessions(shop, "alice", s)
	h.wantCount(shop, 1)
	if got := h.renew(north, 7); len(got) != 0 {
		t.Fatalf("a session was ordered out for its own sake: %v", got)
	}
}

func reinsertRaises(t *testing.T, h *harness) {
	h.join(north, 7)
	probe := h.insert(session(key(shop, "bob", "phone"), north, 7)).Session
	s := session(key(shop, "alice", "phone"), north, 7)
	s.Epoch = probe.Epoch + 1<<40 // given by a register whose clock was ahead
	h.insert(s)
	again := h.insert(session(s.Key, north, 7)).Session
	if again.Epoch <= s.Epoch {
		t.Fatalf("epoch %d does not stand above %d, which was there before", again.Epoch, s.Epoch)
	}
}

func leave(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	h.insert(session(key(shop, "alice", "phone"), north, 7))
	s := h.insert(session(key(shop, "alice", "web"), south, 8)).Session
	for _, r := range []struct {
		room push.RoomID
		boot push.BootID
	}{{"west", 7}, {north, 8}} { // neither is the present boot of that room
		if err := h.Register.Leave(h.ctx, r.room, r.boot); err != nil {
			t.Fatalf("Leave(%s, %d): %v", r.room, r.boot, err)
		}
	}
	h.wantCount(shop, 2)
	if err := h.Register.Leave(h.ctx, north, 7); err != nil {
		t.Fatalf("Leave: %v", err)
	}
	h.wantSessions(shop, "alice", s)
	h.wantCount(shop, 1)
	h.wantRooms(south)
	h.wantLeaseLost(north, 7)
}

func locator(t *testing.T, h *harness) {
	l, ok := h.Register.(Locator)
	if !ok {
		return // stores that keep their own register need none
	}
	h.join(north, 7)
	h.join(south, 8)
	in := func(u push.UserID, d push.DeviceID, room push.RoomID, boot push.BootID, shard push.Shard) register.Session {
		s := session(key(shop, u, d), room, boot)
		s.Shard = shard
		return h.insert(s).Session
	}
	in("alice", "phone", north, 7, 3)
	in("alice", "tablet", north, 7, 3)
	web := in("alice", "web", south, 8, 3)
	in("bob", "phone", south, 8, 900)

	check := func(users []push.UserID, rooms [][]push.RoomID, in3, in900 []push.RoomID, devices []push.DeviceID) {
		t.Helper()
		got := l.RoomsOf(shop, users)
		if len(got) != len(users) {
			t.Fatalf("RoomsOf: %d results for %d users", len(got), len(users))
		}
		for i := range got {
			if g := sorted(got[i]); !slices.Equal(g, rooms[i]) {
				t.Errorf("RoomsOf(%s): got %v, want %v", users[i], g, rooms[i])
			}
		}
		if g := sorted(l.RoomsIn(shop, 3)); !slices.Equal(g, in3) {
			t.Errorf("RoomsIn(3): got %v, want %v", g, in3)
		}
		if g := sorted(l.RoomsIn(shop, 900)); !slices.Equal(g, in900) {
			t.Errorf("RoomsIn(900): got %v, want %v", g, in900)
		}
		if g := sorted(l.OnlineDevices(shop, "alice")); !slices.Equal(g, devices) {
			t.Errorf("OnlineDevices: got %v, want %v", g, devices)
		}
		if g := l.RoomsIn(game, 3); len(g) != 0 {
			t.Errorf("RoomsIn of another product: got %v", g)
		}
		if g := l.OnlineDevices(game, "alice"); len(g) != 0 {
			t.Errorf("OnlineDevices of another product: got %v", g)
		}
	}
	users := []push.UserID{"bob", "cathy", "alice"}
	both := []push.RoomID{north, south}
	check(users, [][]push.RoomID{{south}, nil, both}, both, []push.RoomID{south}, []push.DeviceID{"phone", "tablet", "web"})

	h.remove(web.Key, web.Epoch, 8)
	check(users, [][]push.RoomID{{south}, nil, {north}}, []push.RoomID{north}, []push.RoomID{south},
		[]push.DeviceID{"phone", "tablet"})

	h.join(south, 9)
	check(users, [][]push.RoomID{nil, nil, {north}}, []push.RoomID{north}, nil, []push.DeviceID{"phone", "tablet"})

	h.Elapse(register.LeaseTTL + time.Millisecond)
	check(users, [][]push.RoomID{nil, nil, nil}, nil, nil, nil)
}

func sorted[T ~string](s []T) []T {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}
