package redis

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/saver/savertest"
)

// executed returns how many commands of each name Redis has executed, those within functions too, but for what clients ask about the
// server itself now and then.
func (f *fixture) executed(t *testing.T) map[string]int {
	t.Helper()
	info, err := f.redis.Servers()[0].Info(t.Context(), "commandstats")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]int)
	for name, text := range info {
		name, ok := strings.CutPrefix(name, "cmdstat_")
		calls, _, _ := strings.Cut(strings.TrimPrefix(text, "calls="), ",")
		if !ok || name == "info" || strings.HasPrefix(name, "config") || name == "ping" {
			continue
		}
		n, err := strconv.Atoi(calls)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = n
	}
	return out
}

// costs returns which commands Redis executes while something is done.
func (f *fixture) costs(t *testing.T, what string, do func() error) map[string]int {
	t.Helper()
	before := f.executed(t)
	if err := do(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	after := f.executed(t)
	maps.DeleteFunc(after, func(name string, n int) bool { return n == before[name] || name == "hello" }) // a connection is opened whenever
	for name := range after {
		after[name] -= before[name]
	}
	return after
}

// TestSweep_CostsTheSameHoweverManyAreOnline: reading the change logs of all shards, and looking after what is stored, takes the same commands, one by one, with
// nobody online and with 18 000, and a round trip that does not know how many there are.
func TestSweep_CostsTheSameHoweverManyAreOnline(t *testing.T) {
	p := &trips{t, &trouble{}}
	f, _, s := broken(t, p.d)
	ctx := t.Context()
	var ps []*saver.Publication
	for i := range 50 {
		pub := faultCases[0].publication(push.MsgID(1000+i), "")
		pub.Own[0].User = push.UserID(fmt.Sprint("user", i))
		ps = append(ps, pub)
	}
	for _, r := range s.Publish(ctx, ps) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	after := make([]uint64, savertest.Shards)
	changes := func() error {
		qs := make([]saver.ChangeQuery, savertest.Shards)
		for i := range qs {
			qs[i] = saver.ChangeQuery{ShardRef: saver.ShardRef{Product: shop, Shard: push.Shard(i)}, After: after[i]}
		}
		logs, err := s.Changes(ctx, "north", qs)
		for i := range logs {
			after[i] = logs[i].Next
		}
		return err
	}
	finish := func() error { return s.Finish(ctx) }
	sweep := func() error { return s.Sweep(ctx) }
	cost := func() (all [3]map[string]int) {
		all[0] = f.costs(t, "changes", func() error { p.want("changes of all shards", 1, changes); return nil })
		all[1] = f.costs(t, "finish", func() error { p.want("a look at what is unfinished", 1, finish); return nil })
		all[2] = f.costs(t, "sweep", func() error { p.want("a sweep", 1, sweep); return nil })
		return all
	}
	if err := changes(); err != nil { // from here on it is what is new that is asked for
		t.Fatal(err)
	}
	none := cost()
	for i := range none {
		if len(none[i]) == 0 {
			t.Fatal("nothing was counted")
		}
	}
	// None of these looks at more than it is asked for, however large the key is that it looks into.
	small := []string{"fcall", "hget", "lindex", "llen", "lrange", "time"}
	for name := range none[0] {
		if !slices.Contains(small, name) {
			t.Errorf("reading the change logs takes %s", name)
		}
	}
	f.crowd(t, 18_000)
	for i, got := range cost() {
		if !maps.Equal(got, none[i]) {
			t.Errorf("%s: %v with 18 000 online, %v with none", []string{"changes", "finish", "sweep"}[i], got, none[i])
		}
	}
}

// TestChanges_OfQuietShardsAreTwoPlainCommandsEach: no function reads a log that has nothing new, and one round trip tells of all of them. What has
// moved takes another.
func TestChanges_OfQuietShardsAreTwoPlainCommandsEach(t *testing.T) {
	p := &trips{t, &trouble{}}
	f, _, s := broken(t, p.d)
	const shards = savertest.Shards
	users := userOfEach(shards)
	signIn(t, f.raw, shop, users)
	id := push.MsgID(1)
	publish := func(to ...push.UserID) {
		t.Helper()
		id++
		pub := &saver.Publication{Product: shop, Shards: shards, TTL: day, Message: &push.Message{ID: id, Persistent: true}, Everyone: to == nil}
		for _, u := range to {
			pub.Own = append(pub.Own, saver.Target{User: u})
		}
		if r := s.Publish(t.Context(), []*saver.Publication{pub}); r[0].Err != nil {
			t.Fatal(r[0].Err)
		}
	}
	qs := changesOf(shop, shards)
	common := make([]push.Place, shards)
	// look expects changes of these users alone, in so many round trips, and so many commands that read logs.
	look := func(what string, trips, reads int, want ...push.UserID) {
		t.Helper()
		var logs []saver.ChangeLog
		cost := f.costs(t, what, func() error {
			p.want(what, trips, func() (err error) { logs, err = s.Changes(t.Context(), "north", qs); return err })
			return nil
		})
		var got []push.UserID
		for i, l := range logs {
			for _, c := range l.Own {
				got = append(got, c.User)
			}
			if l.Trimmed || l.Lineage == 0 {
				t.Errorf("%s: the log of shard %d is %+v", what, i, l)
			}
			qs[i].After, common[i] = l.Next, l.Common
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: changes of %v, want %v", what, got, want)
		}
		if cost["llen"] != reads {
			t.Errorf("%s: %d logs were read, want %d", what, cost["llen"], reads)
		}
	}
	look("the first time, without logs", 1, 0)
	look("nothing new, without logs", 1, 0)
	publish(users...)
	look("something new in each", 2, shards, users...)
	look("nothing new after that", 1, shards)
	look("nothing new again", 1, 0)
	publish()
	look("a broadcast", 1, 0)
	if i := slices.IndexFunc(common, push.Place.IsZero); i >= 0 {
		t.Errorf("the broadcast's place in shard %d is not told", i)
	}
	publish(users[5])
	publish(users[7])
	publish(users[7])
	look("something new in two", 2, 2, users[5], users[7], users[7])
	publish(users[5])
	look("something new in one of them", 2, 2, users[5])
	look("nothing new in them", 2, 1)
	look("nothing new in any", 1, 0)
}

// TestChanges_OfALogThatBeginsLateAreNotTrimmed: points keep up with the time while there is no log, though a look does not ask for one each time.
func TestChanges_OfALogThatBeginsLateAreNotTrimmed(t *testing.T) {
	f, _, s := broken(t, &trouble{})
	users := userOfEach(savertest.Shards)
	signIn(t, f.raw, shop, users)
	q := []saver.ChangeQuery{{ShardRef: saver.ShardRef{Product: shop, Shard: 3}}}
	look := func() saver.ChangeLog {
		t.Helper()
		logs, err := s.Changes(t.Context(), "north", q)
		if err != nil || logs[0].Trimmed {
			t.Fatalf("the log is %+v, %v", logs, err)
		}
		q[0].After = logs[0].Next
		return logs[0]
	}
	for range 100 {
		look()
		f.clock.Advance(3 * time.Minute)
	}
	if r := s.Publish(t.Context(), []*saver.Publication{{
		Product: shop, Shards: savertest.Shards, TTL: day, Message: &push.Message{ID: 1, Persistent: true}, Own: []saver.Target{{User: users[3]}},
	}}); r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
	if l := look(); len(l.Own) != 1 {
		t.Errorf("the log is %+v, want the one change", l)
	}
}

// crowd gives so many users a session in a room.
func (f *fixture) crowd(t *testing.T, n int) {
	t.Helper()
	const one = "\x05north\x05phoneabcdef"
	pipe := f.raw.Pipeline()
	for i := range n {
		u := saver.UserRef{Product: shop, Shards: savertest.Shards, User: push.UserID(fmt.Sprint("crowd", i))}
		tag := tagOf(u.Shard())
		pipe.HSet(context.Background(), tag.SessionsKey(), string(u.User), string([]byte{0, byte(len(one))})+one)
		pipe.HIncrBy(context.Background(), tag.Key(kindRooms, ""), "\x05northabcdef", 1)
	}
	if _, err := pipe.Exec(context.Background()); err != nil {
		t.Fatal(err)
	}
}
