package registertest

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"carillon/server/push"
	"carillon/server/register"
)

func insertIsFound(t *testing.T, h *harness) {
	h.join(north, 7)
	s := register.Session{
		Key: key(shop, "alice", "phone"), Shard: 1023, Platform: push.PlatformIOS, Class: "mobile", Transport: "ws",
		TokenID: "jti-1", Room: north, Boot: 7, Since: 1700000000123,
	}
	in := h.insert(s)
	if in.Session.Epoch == 0 {
		t.Fatal("the session has no epoch")
	}
	if len(in.Replaced) != 0 {
		t.Fatalf("a first session replaced %v", in.Replaced)
	}
	s.Epoch = in.Session.Epoch
	if in.Session != s {
		t.Fatalf("Insert returned %+v, want %+v", in.Session, s)
	}
	h.wantSessions(shop, "alice", s)
	h.wantCount(shop, 1)
	in = h.insert(session(s.Key, north, 7)) // what a look-up leaves out is told with who had to go
	if len(in.Replaced) != 1 || in.Replaced[0] != s {
		t.Fatalf("replaced: got %+v, want %+v", in.Replaced, s)
	}
}

func lookupKeepsApart(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	a1 := h.insert(session(key(shop, "alice", "phone"), north, 7)).Session
	a2 := h.insert(session(key(shop, "alice", "web"), south, 8)).Session
	b := h.insert(session(key(shop, "bob", "phone"), south, 8)).Session
	g := h.insert(session(key(game, "alice", "phone"), north, 7)).Session
	// Names that would be the same if they were put together without care.
	x := h.insert(session(key(shop, "ab", "c"), north, 7)).Session
	y := h.insert(session(key(shop, "a", "bc"), north, 7)).Session
	z := h.insert(session(key("shopa", "b", "c"), north, 7)).Session

	h.wantSessions(shop, "alice", a1, a2)
	h.wantSessions(shop, "bob", b)
	h.wantSessions(shop, "cathy")
	h.wantSessions(game, "alice", g)
	h.wantSessions(game, "bob")
	h.wantSessions(shop, "ab", x)
	h.wantSessions(shop, "a", y)
	h.wantSessions("shopa", "b", z)
	h.wantCount(shop, 5)
	h.wantCount(game, 1)
	h.wantCount("none", 0)

	found, err := h.Register.Lookup(h.ctx, shop, []push.UserID{"bob", "cathy", "alice", "bob"})
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, ss := range found {
		got = append(got, len(ss))
	}
	if len(got) != 4 || got[0] != 1 || got[1] != 0 || got[2] != 2 || got[3] != 1 {
		t.Fatalf("sessions per user: got %v, want [1 0 2 1]", got)
	}
	if found, err = h.Register.Lookup(h.ctx, shop, nil); err != nil || len(found) != 0 {
		t.Fatalf("Lookup of nobody: got %v, %v", found, err)
	}
}

// A request may look up many thousands of users: what that makes in memory is asserted, for the collector's work follows it.
func lookupMakesLittle(t *testing.T, h *harness) {
	const many, runs = 2000, 10
	h.join(north, 7)
	users := make([]push.UserID, many)
	for i := range users {
		users[i] = push.UserID(fmt.Sprint("user-", i))
		s := session(key(shop, users[i], "phone"), north, 7)
		s.Class, s.Transport, s.TokenID = "mobile", "ws", "token-1"
		h.insert(s)
	}
	look := func() {
		if found, err := h.Register.Lookup(h.ctx, shop, users); err != nil || len(found[many-1]) != 1 {
			t.Fatal(err)
		}
	}
	look()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		look()
	}
	runtime.ReadMemStats(&after)
	pieces := float64(after.Mallocs-before.Mallocs) / (runs * many)
	size := float64(after.TotalAlloc-before.TotalAlloc) / (runs * many)
	t.Logf("%.2f pieces of memory and %.0f bytes a user", pieces, size)
	if pieces > 1.6 || size > 330 {
		t.Errorf("a look-up makes %.2f pieces of memory and %.0f bytes a user, want at most 1.6 and 330", pieces, size)
	}
}

func insertWithoutLease(t *testing.T, h *harness) {
	_, err := h.Register.Insert(h.ctx, session(key(shop, "alice", "phone"), north, 7), nil)
	wantError(t, "Insert before Join", err, push.KindConflict, "lease_lost")
	h.join(north, 7)
	_, err = h.Register.Insert(h.ctx, session(key(shop, "alice", "phone"), north, 6), nil)
	wantError(t, "Insert with another boot", err, push.KindConflict, "lease_lost")
	h.wantSessions(shop, "alice")
	h.wantCount(shop, 0)
}

func insertRefusesBadNames(t *testing.T, h *harness) {
	h.join(north, 7)
	for _, k := range []register.Key{
		key("", "alice", "phone"), key("Shop", "alice", "phone"), key(shop, "", "phone"), key(shop, "alice", ""),
		key(shop, push.UserID(strings.Repeat("a", push.MaxUserID+1)), "phone"),
		key(shop, "alice", push.DeviceID(strings.Repeat("a", push.MaxDeviceID+1))),
	} {
		_, err := h.Register.Insert(h.ctx, session(k, north, 7), nil)
		wantError(t, "Insert", err, push.KindInvalid, "")
	}
	longest := key(shop, push.UserID(strings.Repeat("a", push.MaxUserID)), push.DeviceID(strings.Repeat("b", push.MaxDeviceID)))
	s := h.insert(session(longest, north, 7)).Session
	h.wantSessions(shop, longest.User, s)
	h.wantCount(shop, 1)
}

func secondReplaces(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	k := key(shop, "alice", "phone")
	other := h.insert(session(key(shop, "alice", "web"), north, 7)).Session
	first := h.insert(session(k, north, 7)).Session
	in := h.insert(session(k, south, 8))
	if len(in.Replaced) != 1 || in.Replaced[0] != first {
		t.Fatalf("Replaced: got %+v, want %+v", in.Replaced, first)
	}
	if in.Session.Epoch <= first.Epoch {
		t.Fatalf("epoch %d does not stand above %d", in.Session.Epoch, first.Epoch)
	}
	h.wantSessions(shop, "alice", in.Session, other)
	h.wantCount(shop, 2)
	h.wantOrder(h.renew(north, 7), first, in.Session)
	if got := h.renew(south, 8); len(got) != 0 {
		t.Fatalf("the room of the newer session has orders %v", got)
	}
}

func replacedInOwnRoom(t *testing.T, h *harness) {
	h.join(north, 7)
	k := key(shop, "alice", "phone")
	first := h.insert(session(k, north, 7)).Session
	second := h.insert(session(k, north, 7)).Session
	h.wantSessions(shop, "alice", second)
	h.wantCount(shop, 1)
	h.wantOrder(h.renew(north, 7), first, second)
}

func ordersOnce(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	k := key(shop, "alice", "phone")
	first := h.insert(session(k, north, 7)).Session
	second := h.insert(session(k, south, 8)).Session
	third := h.insert(session(k, north, 7)).Session
	h.wantOrder(h.renew(north, 7), first, second)
	h.wantOrder(h.renew(south, 8), second, third)
	for _, r := range []struct {
		id   push.RoomID
		boot push.BootID
	}{{north, 7}, {south, 8}} {
		if got := h.renew(r.id, r.boot); len(got) != 0 {
			t.Fatalf("%s has orders a second time: %v", r.id, got)
		}
	}
}

func epochsRise(t *testing.T, h *harness) {
	var last push.SessionEpoch
	for round := range 3 {
		h.join(north, push.BootID(7+round))
		for i := range 50 {
			in := h.insert(session(key(shop, "alice", push.DeviceID(rune('a'+i%5))), north, push.BootID(7+round)))
			if in.Session.Epoch <= last {
				t.Fatalf("round %d: epoch %d does not stand above %d", round, in.Session.Epoch, last)
			}
			last = in.Session.Epoch
		}
		h.Elapse(1e6) // a register cannot come back within the same millisecond
		h.Register = h.Restart()
	}
}

func lateGoodbye(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	k := key(shop, "alice", "phone")
	first := h.insert(session(k, north, 7)).Session
	second := h.insert(session(k, south, 8)).Session
	for _, test := range []struct {
		name  string
		k     register.Key
		epoch push.SessionEpoch
		boot  push.BootID
	}{
		{"of the session before", k, first.Epoch, 7},
		{"with the epoch before and the present boot", k, first.Epoch, 8},
		{"with another boot", k, second.Epoch, 7},
		{"with a later epoch", k, second.Epoch + 1, 8},
		{"of another device", key(shop, "alice", "web"), second.Epoch, 8},
		{"of another user", key(shop, "bob", "phone"), second.Epoch, 8},
		{"of another product", key(game, "alice", "phone"), second.Epoch, 8},
	} {
		if h.remove(test.k, test.epoch, test.boot) {
			t.Errorf("a goodbye %s deleted something", test.name)
		}
		h.wantSessions(shop, "alice", second)
		h.wantCount(shop, 1)
	}
	if !h.remove(k, second.Epoch, 8) {
		t.Fatal("the session's own goodbye deleted nothing")
	}
	h.wantSessions(shop, "alice")
	h.wantCount(shop, 0)
	if h.remove(k, second.Epoch, 8) {
		t.Fatal("a second goodbye deleted something")
	}
	h.wantCount(shop, 0)
}

func closed(t *testing.T, h *harness) {
	h.join(north, 7)
	k := key(shop, "alice", "phone")
	h.insert(session(k, north, 7))
	for range 2 {
		if err := h.Register.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	r, ctx := h.Register, h.ctx
	for _, call := range []struct {
		name string
		do   func() error
	}{
		{"Join", func() error { return r.Join(ctx, register.Room{ID: south, Boot: 8}) }},
		{"Renew", func() error { _, err := r.Renew(ctx, north, 7); return err }},
		{"Leave", func() error { return r.Leave(ctx, north, 7) }},
		{"Rooms", func() error { _, err := r.Rooms(ctx); return err }},
		{"Insert", func() error { _, err := r.Insert(ctx, session(k, north, 7), nil); return err }},
		{"Remove", func() error { _, err := r.Remove(ctx, k, 1, 7); return err }},
		{"Lookup", func() error { _, err := r.Lookup(ctx, shop, []push.UserID{"alice"}); return err }},
		{"TellTags", func() error { return r.TellTags(ctx, north, 7, register.TagNews{All: true}) }},
		{"RoomsByTags", func() error { _, err := r.RoomsByTags(ctx, shop, []push.Tag{"a"}); return err }},
		{"Count", func() error { _, err := r.Count(ctx, shop); return err }},
	} {
		wantError(t, call.name, call.do(), push.KindClosed, "")
	}
}
