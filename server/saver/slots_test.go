package saver

import (
	"iter"
	"slices"
	"testing"
	"time"

	"carillon/server/push"
)

const day = 24 * time.Hour

func TestTrimNotes_KeepsWhatACursorMayNeed(t *testing.T) {
	now := push.Milli(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	notes := func(ages ...int) (ns []push.Note) {
		for i, a := range ages {
			ns = append(ns, push.Note{Lineage: push.Lineage(i + 1), Start: push.Position(i), At: now.Add(-time.Duration(a) * day)})
		}
		return ns
	}
	cases := []struct {
		name string
		ages []int
		left int
	}{
		{"one, however old", []int{1000}, 1},
		{"all young", []int{60, 30, 1}, 3},
		{"old, but in force until lately", []int{400, 1}, 2},
		{"old, and followed by an old one", []int{400, 62, 1}, 2},
		{"at the edge", []int{400, 61, 1}, 3},
		{"all old", []int{400, 300, 200, 100}, 1},
		{"too many", make([]int, MaxNotes+5), MaxNotes},
	}
	for _, c := range cases {
		ns := notes(c.ages...)
		got := TrimNotes(ns, now, push.Limits{})
		if !slices.Equal(got, ns[len(ns)-c.left:]) {
			t.Errorf("%s: %d notes are left, want the last %d", c.name, len(got), c.left)
		}
	}
}

func TestSlot_AppendLeavesCopiesAlone(t *testing.T) {
	s := NewSlot(7, 1, 1_700_000_000_000)
	var states []push.SlotState
	for l := range push.Lineage(20) {
		states = append(states, s.SlotState)
		if at := s.Append(Weight{Size: 1, Expires: 1 << 50}, l+2, 1_700_000_000_000, push.Limits{}); at.Lineage != l+2 {
			t.Fatalf("place %+v under lineage %d", at, l+2)
		}
	}
	for i, st := range states {
		if len(st.Notes) != i+1 || st.Lineage() != push.Lineage(i+1) {
			t.Fatalf("state %d has notes %+v", i, st.Notes)
		}
	}
}

// walked is a list of entries that counts how often and how far it is walked.
type walked struct {
	ws           []Weight
	walks, steps int
}

func (w *walked) seq() iter.Seq[Weight] {
	return func(yield func(Weight) bool) {
		w.walks++
		for _, x := range w.ws {
			w.steps++
			if !yield(x) {
				return
			}
		}
	}
}

func TestSlot_ShedWalksNoFurtherThanItMust(t *testing.T) {
	const now = 1_700_000_000_000
	s := NewSlot(7, 1, now)
	l := push.Limits{OwnMessages: 100}
	var w walked
	for range 100 {
		at := s.Append(Weight{Size: 10, Expires: now + 1000}, 1, now, l)
		w.ws = append(w.ws, Weight{at.Pos, 10, now + 1000})
		if gone := s.Shed(push.Own, l, now, w.seq()); gone != nil || w.walks != 0 {
			t.Fatalf("within its limits the slot gave up %d after %d walks", len(gone), w.walks)
		}
	}
	for range 50 {
		at := s.Append(Weight{Size: 10, Expires: now + 1000}, 1, now, l)
		w.ws = append(w.ws, Weight{at.Pos, 10, now + 1000})
		w.walks, w.steps = 0, 0
		gone := s.Shed(push.Own, l, now, w.seq())
		if len(gone) != 1 || gone[0] != w.ws[0] || w.steps > 2 || s.Floor != gone[0].Pos {
			t.Fatalf("gave up %v after %d steps, floor %d", gone, w.steps, s.Floor)
		}
		w.ws = w.ws[1:]
	}
	if s.Count != 100 || s.Bytes != 1000 {
		t.Fatalf("%d entries of %d bytes are counted", s.Count, s.Bytes)
	}
}

func TestSlot_CountsFollowWhatIsKept(t *testing.T) {
	const now = 1_700_000_000_000
	s := NewSlot(7, 1, now)
	var w walked
	for i := range 10 {
		x := Weight{Size: 10 + i, Expires: push.MilliTime(now + 1000*(i+1))}
		x.Pos = s.Append(x, 1, now, push.Limits{}).Pos
		w.ws = append(w.ws, x)
	}
	check := func(what string, gone []Weight, want int) {
		t.Helper()
		if len(gone) != want {
			t.Fatalf("%s: %d are gone, want %d", what, len(gone), want)
		}
		w.ws = slices.DeleteFunc(w.ws, func(x Weight) bool { return slices.Contains(gone, x) })
		bytes, first := 0, push.MilliTime(0)
		for _, x := range w.ws {
			bytes += x.Size
			if first == 0 || x.Expires < first {
				first = x.Expires
			}
		}
		if s.Count != len(w.ws) || s.Bytes != bytes || s.Expiry > first || s.Floor != 0 {
			t.Fatalf("%s: %+v, want %d entries of %d bytes, none expiring before %d", what, s, len(w.ws), bytes, first)
		}
	}
	check("nothing expired", s.ShedExpired(now+999, w.seq()), 0)
	if w.walks != 0 {
		t.Fatal("walked though nothing can have expired")
	}
	check("three expired", s.ShedExpired(now+3000, w.seq()), 3)
	check("acknowledged up to the sixth", s.ShedAcknowledged(s.Origin+6, w.seq()), 3)
	check("again", s.ShedAcknowledged(s.Origin+6, w.seq()), 0)
	check("less", s.ShedAcknowledged(s.Origin+2, w.seq()), 0)
	check("beyond the head", s.ShedAcknowledged(s.Head+100, w.seq()), 4)
	if s.Expiry != 0 || s.Freed != s.Head {
		t.Fatalf("an empty slot is %+v", s)
	}
}

func TestCollapseOf_IsOneOfKeyAndFilter(t *testing.T) {
	phone := &push.Filter{Devices: []push.DeviceID{"phone"}}
	seen := make(map[CollapseID]int)
	for i, c := range []struct {
		key string
		f   *push.Filter
	}{
		{"k", nil}, {"kk", nil}, {"k", phone}, {"k", &push.Filter{Classes: []string{"phone"}}},
		{"k", &push.Filter{Platforms: 1}}, {"k\x00", nil}, {"k\x01\x00", nil},
	} {
		id, ok := CollapseOf(c.key, c.f)
		if other, taken := seen[id]; !ok || taken {
			t.Errorf("case %d is taken for case %d", i, other)
		}
		seen[id] = i
	}
	a, _ := CollapseOf("k", nil)
	if b, _ := CollapseOf("k", &push.Filter{}); a != b {
		t.Error("no filter and the zero filter differ")
	}
	if _, ok := CollapseOf("", phone); ok {
		t.Error("an entry without a key collapses")
	}
}

func TestMakeRoom_AsksWhoIsOnlineOnlyIfItMust(t *testing.T) {
	ds := []Device{
		{DeviceFacts: push.DeviceFacts{Device: "a"}, Seen: 2},
		{DeviceFacts: push.DeviceFacts{Device: "b"}, Seen: 1},
	}
	asked := 0
	online := func() []push.DeviceID { asked++; return []push.DeviceID{"b"} }
	if got, err := MakeRoom(ds, push.Limits{DevicesPerUser: 3}, online); len(got) > 0 || err != nil || asked != 0 {
		t.Fatalf("with room: %v, %v, asked %d times", got, err, asked)
	}
	got, err := MakeRoom(ds, push.Limits{DevicesPerUser: 2}, online)
	if !slices.Equal(got, []push.DeviceID{"a"}) || err != nil || asked != 1 {
		t.Fatalf("without room: %v, %v, asked %d times", got, err, asked)
	}
	if got, err := MakeRoom(ds, push.Limits{DevicesPerUser: 1}, online); got != nil || push.KindOf(err) != push.KindLimited {
		t.Fatalf("with one online too many: %v, %v", got, err)
	}
}

func TestChangeRing_TellsWhatIsGone(t *testing.T) {
	change := func(i int) Change { return Change{User: "alice", Place: push.Place{Pos: push.Position(i)}} }
	for _, total := range []int{0, 1, ChangesKept - 1, ChangesKept, ChangesKept + 1, 3*ChangesKept + 17} {
		r := NewChangeRing(uint64(total) * 0x9e3779b97f4a7c15)
		_, start, _ := r.Since(0)
		points := []uint64{start}
		for i := range total {
			r.Add(change(i))
			_, next, _ := r.Since(points[i])
			points = append(points, next)
		}
		for i := range points {
			if i%97 != 0 && i < total-3 {
				continue
			}
			got, next, trimmed := r.Since(points[i])
			from := max(i, total-ChangesKept)
			if trimmed != (from > i) || next != points[total] || len(got) != total-from {
				t.Fatalf("%d of %d: %d changes, trimmed %v", i, total, len(got), trimmed)
			}
			for j, c := range got {
				if c != change(from+j) {
					t.Fatalf("%d of %d: change %d is %+v", i, total, j, c)
				}
			}
		}
		if _, _, trimmed := r.Since(0); trimmed != (total > ChangesKept) {
			t.Fatalf("from the beginning of %d: trimmed %v", total, trimmed)
		}
		if _, _, trimmed := r.Since(points[total] + 1); !trimmed {
			t.Fatal("a point ahead of the log is not trimmed")
		}
	}
}
