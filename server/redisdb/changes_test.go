package redisdb

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"carillon/server/clock"
	"carillon/server/push"
	"carillon/server/redistest"
)

// fakeClock is moved by the test; of a clock the database asks for the time alone.
type fakeClock struct {
	clock.Clock
	at time.Time
}

func (c *fakeClock) Now() time.Time { return c.at }

// sessions returns what the register keeps of a user who has a device in each of those rooms.
func sessions(rooms ...string) string {
	all := ""
	for i, r := range rooms {
		device := name(i)
		one := string(rune(len(r))) + r + string(rune(len(device))) + device + "rest"
		all += string([]byte{0, byte(len(one))}) + one
	}
	return all
}

// since asks a log and wants it to answer.
func sinceOf(t *testing.T, db *DB, tag Tag, room push.RoomID, after uint64) (changes []string, next uint64, trimmed bool) {
	t.Helper()
	r := &Read{Tag: tag, Do: []Command{tag.ChangesSince(after)}}
	if db.Read(t.Context(), r); r.Err != nil {
		t.Fatal(r.Err)
	}
	changes, next, trimmed, err := ChangesOf(r.Replies[0], r.Answer, room)
	if err != nil {
		t.Fatal(err)
	}
	return changes, next, trimmed
}

func announceTo(t *testing.T, db *DB, tag Tag, u push.UserID, changes ...string) []any {
	t.Helper()
	var ws []*Write
	for _, c := range changes {
		ws = append(ws, &Write{Tag: tag, Do: []Command{tag.Announce(u, []byte(c))}})
	}
	db.Write(t.Context(), ws...)
	for _, w := range ws {
		if w.Err != nil || !w.Done {
			t.Fatalf("announcement: done %v, error %v", w.Done, w.Err)
		}
	}
	rooms, _ := ws[0].Replies[0].([]any)
	return rooms
}

func signIn(t *testing.T, db *DB, tag Tag, u push.UserID, rooms ...string) {
	t.Helper()
	w := &Write{Tag: tag, Do: []Command{{Name: "HSET", Key: tag.SessionsKey(), Args: []any{string(u), sessions(rooms...)}}}}
	if db.Write(t.Context(), w); w.Err != nil {
		t.Fatal(w.Err)
	}
}

func TestAnnounce_TellsTheRoomsOfAUser(t *testing.T) {
	everyForm(t, func(t *testing.T, r *redistest.Redis) {
		db, tag := open(t, r), tagOf(7)
		signIn(t, db, tag, "alice", "r1")
		signIn(t, db, tag, "bob", "r2", "room-1", "r2")
		if got := announceTo(t, db, tag, "alice", "a1", "a2"); !reflect.DeepEqual(got, []any{"r1"}) {
			t.Errorf("alice's rooms are %v", got)
		}
		if got := announceTo(t, db, tag, "bob", "b\x00"); !reflect.DeepEqual(got, []any{"r2", "room-1"}) {
			t.Errorf("bob's rooms are %v", got)
		}
		if got := announceTo(t, db, tag, "cathy", "c"); len(got) != 0 {
			t.Errorf("cathy's rooms are %v", got)
		}
		for room, want := range map[push.RoomID][]string{"r1": {"a1", "a2"}, "r2": {"b\x00"}, "room-1": {"b\x00"}, "r": nil, "r3": nil} {
			if got, _, trimmed := sinceOf(t, db, tag, room, 0); !slices.Equal(got, want) || trimmed {
				t.Errorf("%s is told %q, trimmed %v, want %q", room, got, trimmed, want)
			}
		}
		seen := 0
		all, ok := db.rawField(t, tag, "bob")
		if !ok || !EachSession(all, func(room push.RoomID, device push.DeviceID, rest string) {
			seen++
			if rest != "rest" || device == "" || room == "" {
				t.Errorf("session in %q of %q, rest %q", room, device, rest)
			}
		}) || seen != 3 {
			t.Errorf("%d sessions of three were read", seen)
		}
		for i := range len(all) {
			if EachSession(all[:i], func(push.RoomID, push.DeviceID, string) {}) && i%len(sessions("r2")) != 0 && i != len(sessions("r2"))+len(sessions("room-1")) {
				t.Errorf("%d bytes of %d are read as sessions", i, len(all))
			}
		}
	})
}

func (db *DB) rawField(t *testing.T, tag Tag, field string) (string, bool) {
	r := &Read{Tag: tag, Do: []Command{{Name: "HGET", Key: tag.SessionsKey(), Args: []any{field}}}}
	db.Peek(t.Context(), r)
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	s, ok := r.Replies[0].(string)
	return s, ok
}

func TestChanges_NextContinues(t *testing.T) {
	clk := &fakeClock{at: time.UnixMilli(1_900_000_000_000)}
	db := open(t, pool.Standalone(t), func(c *Config) { c.Clock = clk })
	tag := tagOf(7)
	signIn(t, db, tag, "alice", "r1")
	got, next, trimmed := sinceOf(t, db, tag, "r1", 0)
	if len(got) != 0 || trimmed || next == 0 {
		t.Fatalf("a log of nothing tells %q, next %d, trimmed %v", got, next, trimmed)
	}
	if _, again, trimmed := sinceOf(t, db, tag, "r1", next); again != next || trimmed {
		t.Fatalf("next is %d after %d, trimmed %v", again, next, trimmed)
	}
	n := 0
	for range 300 {
		var want []string
		for range n % 5 {
			want = append(want, strconv.Itoa(n), name(n))
			n++
		}
		n++
		clk.at = clk.at.Add(time.Duration(n%3) * 20 * time.Minute)
		if want != nil {
			announceTo(t, db, tag, "alice", want...)
		}
		for range 2 { // asking again changes nothing
			got, now, trimmed := sinceOf(t, db, tag, "r1", next)
			if !slices.Equal(got, want) || trimmed {
				t.Fatalf("after %d come %q, trimmed %v, want %q", next, got, trimmed, want)
			}
			if want == nil && n%4 == 0 {
				next = now
			}
		}
		_, next, _ = sinceOf(t, db, tag, "r1", next)
	}
}

func TestChanges_TellWhatIsGone(t *testing.T) {
	clk := &fakeClock{at: time.UnixMilli(1_900_000_000_000)}
	r := pool.Standalone(t)
	db := open(t, r, func(c *Config) { c.Clock = clk })
	tag := tagOf(7)
	signIn(t, db, tag, "alice", "r1")
	_, start, _ := sinceOf(t, db, tag, "r1", 0)
	points := []uint64{start}
	var all []string
	for len(all) < ChangesKept+200 {
		var some []string
		for i := range 50 {
			some = append(some, name(len(all)+i))
		}
		announceTo(t, db, tag, "alice", some...)
		all = append(all, some...)
		_, next, _ := sinceOf(t, db, tag, "r1", points[len(points)-1])
		points = append(points, next)
	}
	for i, p := range append([]uint64{0}, points...) {
		done := max(0, i-1) * 50
		got, next, trimmed := sinceOf(t, db, tag, "r1", p)
		want := all[max(done, len(all)-ChangesKept):]
		if !slices.Equal(got, want) || trimmed != (len(want) < len(all)-done) || next != points[len(points)-1] {
			t.Fatalf("after %d of %d: %d changes, trimmed %v, next %d; want %d", done, len(all), len(got), trimmed, next, len(want))
		}
	}
	if n := r.Servers()[0].Client().LLen(t.Context(), tag.ChangesKey()).Val(); n > ChangesKept+64+1 {
		t.Errorf("the log holds %d", n)
	}
	last := points[len(points)-1]
	for _, other := range []uint64{1, last + 1, last + 1000, 1<<64 - 1, last ^ 1<<50, last&(1<<48-1) | 1<<63} {
		if got, next, trimmed := sinceOf(t, db, tag, "r1", other); !trimmed || len(got) != ChangesKept || next != last {
			t.Errorf("a point of another log, %d, is told %d changes, trimmed %v, next %d", other, len(got), trimmed, next)
		}
	}
	// The log is lost: what was told before is told to be gone, unless it is so recent that nothing can be missing.
	if err := r.Servers()[0].Client().Del(t.Context(), tag.ChangesKey()).Err(); err != nil {
		t.Fatal(err)
	}
	clk.at = clk.at.Add(2 * time.Hour)
	if _, next, trimmed := sinceOf(t, db, tag, "r1", last); !trimmed || next == last {
		t.Errorf("a log that is no more: trimmed %v, next %d after %d", trimmed, next, last)
	}
	announceTo(t, db, tag, "alice", "new")
	if got, _, trimmed := sinceOf(t, db, tag, "r1", last); !trimmed || !slices.Equal(got, []string{"new"}) {
		t.Errorf("a log that began anew tells %q, trimmed %v", got, trimmed)
	}
	// So it is under another lineage.
	_, next, _ := sinceOf(t, db, tag, "r1", 0)
	if err := r.Servers()[0].Client().Do(t.Context(), "DEBUG", "CHANGE-REPL-ID").Err(); err != nil {
		t.Fatal(err)
	}
	if got, now, trimmed := sinceOf(t, db, tag, "r1", next); !trimmed || !slices.Equal(got, []string{"new"}) || now == next {
		t.Errorf("under another lineage: %q, trimmed %v, next %d", got, trimmed, now)
	}
}

func TestChanges_BadRepliesAreErrors(t *testing.T) {
	for _, reply := range []any{
		nil, "x", []any{}, []any{"1", int64(0)}, []any{int64(1), int64(0), []any{}}, []any{"x", int64(0), []any{}}, []any{"1", "0", []any{}},
		[]any{"1", int64(0), nil}, []any{"1", int64(0), []any{nil}}, []any{"1", int64(0), []any{""}}, []any{"1", int64(0), []any{"\x01"}},
		[]any{"1", int64(0), []any{"\x02\x01a"}}, []any{"1", int64(0), []any{"\x01\x05room"}}, []any{fmt.Sprint(uint64(1 << 48)), int64(0), []any{}},
	} {
		if _, _, _, err := ChangesOf(reply, Answer{}, "r"); push.KindOf(err) != push.KindInternal || err == nil {
			t.Errorf("%#v is taken: %v", reply, err)
		}
	}
}

// readsOfSessions returns reads of many shards, in every second of which a user has a session: of that user's and of nobody's, and what one more
// command says of all.
func readsOfSessions(t *testing.T, db *DB, more Command) (rs []*Read) {
	t.Helper()
	for i := range 700 {
		tag := tagOf(i)
		if i%2 == 0 {
			signIn(t, db, tag, push.UserID(name(i)), "r1")
		}
		more.Key = tag.SessionsKey()
		rs = append(rs, &Read{Tag: tag, Do: []Command{{Name: "HMGET", Key: more.Key, Args: []any{name(i), []byte("nobody")}}, more}})
	}
	return rs
}

func TestPeek_GivesPlainRepliesOfMany(t *testing.T) {
	everyForm(t, func(t *testing.T, r *redistest.Redis) {
		db := open(t, r)
		rs := readsOfSessions(t, db, Command{Name: "EXISTS"})
		bad := &Read{Tag: tagOf(0), Do: []Command{{Name: "GET", Key: tagOf(0).SessionsKey()}}}
		log := &Read{Tag: tagOf(0), Do: []Command{tagOf(0).ChangesSince(0)}}
		db.Peek(t.Context(), append(rs, bad, log)...)
		for i, r := range rs {
			want := []any{[]any{nil, nil}, int64(0)}
			if i%2 == 0 {
				want = []any{[]any{sessions("r1"), nil}, int64(1)}
			}
			if r.Err != nil || !reflect.DeepEqual(r.Replies, want) || r.Lineage == 0 || r.Now == 0 {
				t.Fatalf("%d: %#v, error %v", i, r.Replies, r.Err)
			}
		}
		wantCode(t, bad.Err, push.KindInternal, "store_command")
		wantCode(t, log.Err, push.KindInternal, "store_unit")
	})
}

func TestPeek_GivesListsOfStrings(t *testing.T) {
	everyForm(t, func(t *testing.T, r *redistest.Redis) {
		db := open(t, r)
		rs := readsOfSessions(t, db, Command{Name: "HKEYS"})
		for _, r := range rs {
			r.Texts = true
		}
		bad := &Read{Tag: tagOf(0), Texts: true, Do: []Command{{Name: "LRANGE", Key: tagOf(0).SessionsKey(), Args: []any{0, 1}}}}
		in := append(slices.Clone(rs), bad, &Read{Tag: tagOf(0), Do: []Command{{Name: "HLEN", Key: tagOf(0).SessionsKey()}}})
		for range 2 { // the second time into room that is there
			db.Peek(t.Context(), in...)
			for i, r := range rs {
				want := []any{[]string{"", ""}, []string{}}
				if i%2 == 0 {
					want = []any{[]string{sessions("r1"), ""}, []string{name(i)}}
				}
				if r.Err != nil || !reflect.DeepEqual(r.Replies, want) || r.Lineage == 0 || r.Now == 0 {
					t.Fatalf("%d: %#v, error %v", i, r.Replies, r.Err)
				}
			}
			wantCode(t, bad.Err, push.KindInternal, "store_command")
			if last := in[len(in)-1]; last.Err != nil || last.Replies[0] != int64(1) {
				t.Errorf("another read beside them: %v, error %v", last.Replies, last.Err)
			}
		}
		db.Read(t.Context(), rs[0])
		wantCode(t, rs[0].Err, push.KindInternal, "store_unit")
	})
}
