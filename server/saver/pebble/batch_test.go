package pebble

import (
	"context"
	"testing"
	"time"

	"carillon/server/embedded"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/saver/savertest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// taskOf is a fence and a batch to alice of the message of that id.
func (f *fixture) taskOf(id push.MsgID) (saver.Fence, *saver.Batch) {
	m := &push.Message{ID: id, Persistent: true, Created: f.clock.Milli(), Body: []byte("1")}
	m.Expires = m.Created.Add(time.Hour)
	u := saver.UserRef{Product: "shop", Shards: savertest.Shards, User: "alice"}
	return saver.Fence{Product: "shop", Shards: savertest.Shards, ID: id, Token: 1, Until: m.Expires.Add(2 * saver.RecordKept), Message: m},
		&saver.Batch{Product: "shop", Shards: savertest.Shards, Message: m, Token: 1, Shard: u.Shard().Shard, Own: []saver.Target{{User: u.User}}}
}

// TestFence_IsSeenBeforeItsLockIsGivenBack: or else a batch under an older token could come behind it.
func TestFence_IsSeenBeforeItsLockIsGivenBack(t *testing.T) {
	s := newFixture(t, vfs.NewMem(), "data")
	f, _ := s.taskOf(7)
	for f.Token = 1; f.Token < 200; f.Token++ {
		ticket, err := s.store.raise(&f)
		if err != nil {
			t.Fatal(err)
		}
		if is, err := s.store.lookupFence("shop", 7); err != nil || is.Token != f.Token {
			t.Fatalf("the fence is %+v, want token %d (%v)", is, f.Token, err)
		}
		if err := ticket.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSweep_LeavesNothingOfATaskThatIsOver counts the keys of each kind, also in a database that was opened again.
func TestSweep_LeavesNothingOfATaskThatIsOver(t *testing.T) {
	for _, reopened := range []bool{false, true} {
		s := newFixture(t, vfs.NewMem(), "data")
		for id := range push.MsgID(3) {
			f, b := s.taskOf(id + 1)
			if id == 2 {
				f.Until = f.Until.Add(24 * time.Hour)
			}
			if err := s.store.Fence(t.Context(), f); err != nil {
				t.Fatal(err)
			}
			if r := s.store.Batches(t.Context(), []*saver.Batch{b})[0]; r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		want := func(when string, fences, batches, buckets int) {
			t.Helper()
			for space, n := range map[byte]int{spaceFence: fences, spaceBatch: batches, spaceBucket: buckets} {
				if got := s.keysOf(t, space); got != n {
					t.Errorf("reopened %v, %s: %d keys of kind %c, want %d", reopened, when, got, space, n)
				}
			}
		}
		sweep := func(after time.Duration) {
			s.clock.Advance(after)
			if err := s.store.Sweep(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if reopened {
			s.close()
			s.open(t)
		}
		sweep(time.Hour)
		want("while the fences count", 3, 3, 3)
		sweep(2*saver.RecordKept - time.Millisecond)
		want("just before they are over", 3, 3, 3)
		sweep(time.Millisecond)
		want("when two of them are over", 1, 1, 0)
		sweep(24 * time.Hour)
		want("when all are over", 0, 0, 0)
	}
}

// keysOf returns how many keys of a kind there are.
func (f *fixture) keysOf(t *testing.T, space byte) (n int) {
	t.Helper()
	it, err := f.db.Scan(appendSpace(nil, space), embedded.PrefixEnd(appendSpace(nil, space)))
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	return n
}
