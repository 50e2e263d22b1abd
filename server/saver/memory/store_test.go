package memory

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"testing/iotest"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/saver/savertest"
)

func newStore(t *testing.T) (*Store, *savertest.Clock, *savertest.Locator) {
	c, l := savertest.NewClock(), savertest.NewLocator()
	s, err := New(Config{Clock: c, Locator: l})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, c, l
}

func ref(u push.UserID) saver.UserRef { return saver.UserRef{Product: "shop", Shards: 4, User: u} }

// send publishes one message with a key.
func send(t *testing.T, s *Store, id push.MsgID, limits push.Limits, users ...push.UserID) {
	t.Helper()
	p := &saver.Publication{
		Product: "shop", Shards: 4, TTL: time.Hour, Limits: limits, Everyone: len(users) == 0,
		Message: &push.Message{ID: id, Body: []byte("1"), Persistent: true, CollapseKey: fmt.Sprint(id % 3)},
		Key:     saver.IdempotencyKey(id.String()),
	}
	for _, u := range users {
		p.Own = append(p.Own, saver.Target{User: u})
	}
	if r := s.Publish(t.Context(), []*saver.Publication{p}); r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
}

func open(t *testing.T, s *Store, u push.UserID, d push.DeviceID, limits push.Limits) {
	t.Helper()
	o := saver.Open{UserRef: ref(u), Facts: push.DeviceFacts{Device: d}, Limits: limits}
	if _, err := s.Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// held recounts everything that a store holds.
type held struct{ users, devices, slots, entries, keys, records, logs int }

func recount(s *Store) (h held) {
	for _, sh := range s.shards {
		h.users += len(sh.users)
		h.logs += len(sh.logs)
		slots := []*slot{sh.common}
		for _, u := range sh.users {
			h.devices += len(u.devices)
			slots = append(slots, u.own)
		}
		for _, sl := range slots {
			if sl != nil {
				h.slots++
				h.entries += len(sl.entries)
			}
		}
	}
	for i := range stripes {
		h.keys += len(s.keys[i].keys)
		h.records += len(s.records[i].records)
	}
	return h
}

func TestSweep_GivesEverythingBack(t *testing.T) {
	s, c, l := newStore(t)
	id := push.MsgID(0)
	for i := range 40 {
		u := push.UserID(fmt.Sprint("user", i))
		l.SetRooms("shop", u, "r1")
		open(t, s, u, "phone", push.Limits{})
		for range 5 {
			id++
			send(t, s, id, push.Limits{}, u, "alice")
		}
		id++
		send(t, s, id, push.Limits{})
	}
	got := recount(s)
	if want := (held{users: 41, devices: 40, slots: 41 + 4, keys: 240, records: 240, logs: 4}); got.entries == 0 ||
		got != (held{want.users, want.devices, want.slots, got.entries, want.keys, want.records, want.logs}) {
		t.Fatalf("holds %+v, want %+v and entries", got, want)
	}
	c.Advance(2*time.Hour + time.Millisecond)
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := recount(s), (held{users: 41, devices: 40, slots: 45}); got != want {
		t.Fatalf("after two hours holds %+v, want %+v", got, want)
	}
	c.Advance(62 * 24 * time.Hour)
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := recount(s); got != (held{}) {
		t.Fatalf("after two months holds %+v, want nothing", got)
	}
	for _, sh := range s.shards {
		if sh.devices != 0 {
			t.Fatalf("a shard counts %d devices and has none", sh.devices)
		}
	}
}

func TestSlot_HolesDoNotPileUp(t *testing.T) {
	s, _, _ := newStore(t)
	limits := push.Limits{OwnMessages: 10}
	for i := range push.MsgID(5000) {
		send(t, s, i+1, limits, "alice")
	}
	sl := s.shards[ref("alice").Shard()].users["alice"].own
	if len(sl.entries) > 20 || cap(sl.entries) > 100 || sl.Count > 10 || len(sl.collapse) > 3 {
		t.Fatalf("%d entries kept of %d, room for %d, %d collapse keys",
			sl.Count, len(sl.entries), cap(sl.entries), len(sl.collapse))
	}
	holes := 0
	for _, e := range sl.entries {
		if e.hole {
			holes++
		}
	}
	if holes != sl.holes || len(sl.entries)-holes != sl.Count {
		t.Fatalf("%d entries, %d holes; counted %d and %d", len(sl.entries), holes, sl.Count, sl.holes)
	}
}

func TestOpen_AsksWhoIsOnlineUnderNoLock(t *testing.T) {
	s, _, l := newStore(t)
	limits := push.Limits{DevicesPerUser: 1}
	open(t, s, "alice", "phone", limits)
	asked := 0
	l.OnAsked(func() {
		asked++
		// Another device of the same user arrives meanwhile; both find room.
		l.OnAsked(nil)
		open(t, s, "alice", "tablet", limits)
	})
	open(t, s, "alice", "laptop", limits)
	u, err := s.User(t.Context(), ref("alice"))
	if err != nil || asked != 1 || len(u.Devices) != 1 || u.Devices[0].Device != "laptop" {
		t.Fatalf("asked %d times, devices %+v, %v", asked, u.Devices, err)
	}
}

func TestSnapshot_IsLeftAlone(t *testing.T) {
	s, _, _ := newStore(t)
	open(t, s, "alice", "phone", push.Limits{})
	send(t, s, 1, push.Limits{}, "alice", "bob")
	sn := snapshot(t, s)
	for round := range push.MsgID(3) {
		send(t, s, 10+round, push.Limits{}, "alice", "bob")
		if _, err := s.Recall(t.Context(), saver.Recall{Product: "shop", Shards: 4, ID: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.DeleteDevice(t.Context(), ref("alice"), "phone"); err != nil {
			t.Fatal(err)
		}
		was := s.lineage
		if err := s.Restore(sn); err != nil {
			t.Fatal(err)
		}
		rec, err := s.Message(t.Context(), "shop", 1)
		if err != nil || rec.Recalled != 0 || s.lineage == was {
			t.Fatalf("round %d: record %+v, %v", round, rec, err)
		}
		if got, want := recount(s), (held{users: 2, devices: 1, slots: 3, entries: 2, keys: 1, records: 1}); got != want {
			t.Fatalf("round %d: holds %+v, want %+v", round, got, want)
		}
	}
}

func TestNew_NeedsRandomness(t *testing.T) {
	broken := errors.New("no entropy")
	if _, err := New(Config{Rand: iotest.ErrReader(broken)}); !errors.Is(err, broken) {
		t.Fatalf("error %v", err)
	}
	if _, err := New(Config{Rand: bytes.NewReader(make([]byte, 31))}); err == nil {
		t.Fatal("31 bytes were enough")
	}
	var lineages [2]push.Lineage
	for i := range lineages {
		s, err := New(Config{Rand: bytes.NewReader(make([]byte, 32))})
		if err != nil {
			t.Fatal(err)
		}
		if lineages[i], err = s.Lineage(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if lineages[0] != lineages[1] {
		t.Fatal("the same randomness made two lineages")
	}
}

func TestSweep_ForgetsFences(t *testing.T) {
	clock := savertest.NewClock()
	s, err := New(Config{Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f := saver.Fence{Product: "shop", Shards: 8, ID: 7, Token: 1, Until: clock.Milli().Add(time.Hour)}
	if err := s.Fence(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	for after, want := range []int{1, 0} {
		clock.Advance(time.Duration(after) * time.Hour)
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(s.fences) != want {
			t.Fatalf("after %d hours there are %d fences, want %d", after, len(s.fences), want)
		}
	}
}
