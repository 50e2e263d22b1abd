package redis

import (
	"fmt"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/saver/savertest"
)

// twoNodes are two stores on one Redis, of which the database of one counts.
type twoNodes struct {
	f          *fixture
	trips      *trips
	here, away *Store
	id         push.MsgID
}

func newTwoNodes(t *testing.T) *twoNodes {
	f := newFixture(t, pool.Standalone(t), 2, Config{})
	n := &twoNodes{f: f, here: f.nodes[0].store, away: f.nodes[1].store, id: 100}
	d := &trouble{database: n.here.db}
	n.here.db, n.trips = d, &trips{t, d}
	return n
}

// publish stores one message for alice at a node and wants it after all others, so that none was lost and none came twice.
func (n *twoNodes) publish(t *testing.T, at *Store, limits push.Limits) *saver.Published {
	t.Helper()
	n.id++
	r := at.Publish(t.Context(), []*saver.Publication{{
		Product: shop, Shards: savertest.Shards, TTL: day, Limits: limits,
		Message: &push.Message{ID: n.id, Body: []byte(`1`), Persistent: true}, Own: []saver.Target{{User: "alice"}},
	}})
	if r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
	return &r[0]
}

// holds returns the ids in alice's slot.
func (n *twoNodes) holds(t *testing.T) (ids []push.MsgID) {
	t.Helper()
	tail, err := n.away.Read(t.Context(), []saver.Read{{ShardRef: refOf("alice").Shard(), Slot: push.Own, User: "alice", MaxEntries: 1000, MaxBytes: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range tail[0].Entries {
		ids = append(ids, e.ID)
	}
	return ids
}

func (n *twoNodes) wants(t *testing.T, ids ...push.MsgID) {
	t.Helper()
	if got := n.holds(t); fmt.Sprint(got) != fmt.Sprint(ids) {
		t.Errorf("alice's slot holds %v, want %v", got, ids)
	}
}

// TestGuess_IsRightWhereOnlyThisNodeWrites: the second message to a user takes one round trip, also after the user's devices were written.
func TestGuess_IsRightWhereOnlyThisNodeWrites(t *testing.T) {
	n := newTwoNodes(t)
	publish := func() error { n.publish(t, n.here, push.Limits{}); return nil }
	n.trips.want("the first message", 2, publish)
	n.trips.want("the second", 1, publish)
	opened, err := n.here.Open(t.Context(), saver.Open{UserRef: refOf("alice"), Facts: push.DeviceFacts{Device: "phone", Class: "phone"}})
	if err != nil {
		t.Fatal(err)
	}
	n.trips.want("the third", 1, publish)
	at := opened.Starts[push.Own].At
	at.Pos = opened.Starts[push.Own].Head
	if _, err := n.here.Ack(t.Context(), []saver.Ack{{UserRef: refOf("alice"), Device: "phone", Places: push.Cursor{push.Own: at}}}); err != nil {
		t.Fatal(err)
	}
	n.trips.want("the fourth", 1, publish)
	n.wants(t, 103, 104)
}

// TestGuess_ThatIsWrongCostsOneAttempt: another node wrote to the slot, or what it lay in was lost, or the store's lineage is another.
func TestGuess_ThatIsWrongCostsOneAttempt(t *testing.T) {
	n := newTwoNodes(t)
	publish := func() error { n.publish(t, n.here, push.Limits{}); return nil }
	n.trips.want("the first message", 2, publish)
	n.publish(t, n.away, push.Limits{})
	n.trips.want("after one by another node", 3, publish)
	n.wants(t, 101, 102, 103)
	n.trips.want("and the next", 1, publish)
	was := n.publish(t, n.here, push.Limits{}).Own[0].Place
	n.f.must(t, n.f.raw.FlushDB(t.Context()))
	n.trips.want("after a loss", 3, publish)
	if is := n.publish(t, n.here, push.Limits{}).Own[0].Place; is.Epoch == was.Epoch {
		t.Errorf("the slot that was lost goes on in epoch %d", is.Epoch)
	}
	n.wants(t, 106, 107)
}

// TestGuess_ObeysTheLimits: what a limit sends away goes, whether the state was read or guessed.
func TestGuess_ObeysTheLimits(t *testing.T) {
	n := newTwoNodes(t)
	for range 10 {
		n.publish(t, n.here, push.Limits{OwnMessages: 3})
	}
	n.wants(t, 108, 109, 110)
}

// TestGuess_IsOldAfterASecond: what nobody has said lately is asked.
func TestGuess_IsOldAfterASecond(t *testing.T) {
	n := newTwoNodes(t)
	publish := func() error { n.publish(t, n.here, push.Limits{}); return nil }
	n.trips.want("the first message", 2, publish)
	n.f.clock.Advance(2 * time.Second)
	n.trips.want("after two seconds", 2, publish)
	n.trips.want("and at once", 1, publish)
}

// TestGuess_RestsWhereOthersWriteTheSame: where guesses are often wrong they are not tried for a while, and then they are.
func TestGuess_RestsWhereOthersWriteTheSame(t *testing.T) {
	n := newTwoNodes(t)
	g := n.here.guesses
	for range guessesJudged {
		g.judged(false)
	}
	publish := func() error { n.publish(t, n.here, push.Limits{}); return nil }
	n.trips.want("the first message", 2, publish)
	n.trips.want("while they rest", 2, publish)
	for g.pause.Load() > 0 {
		g.may()
	}
	n.trips.want("when they are over", 1, publish)
	for i := range 2 * guessesJudged { // one wrong in eight
		g.judged(i%8 > 0)
	}
	n.trips.want("while few are wrong", 1, publish)
}

// TestGuess_IsForgottenByABatch: the message after one costs the read that it saves, and not an attempt; what is remembered of others stays.
func TestGuess_IsForgottenByABatch(t *testing.T) {
	n := newTwoNodes(t)
	publish := func() error { n.publish(t, n.here, push.Limits{}); return nil }
	n.trips.want("the first message", 2, publish)
	k := newTask(n.f, 10)
	k.m.ID = 50
	mustFence(t, n.here, k.fence(1))
	mustBatch(t, n.here, k.batches(1)) // of others
	n.trips.want("after a batch to others", 1, publish)
	b := k.batches(1)[refOf("alice").Shard().Shard]
	b.Number, b.Own = 2, []saver.Target{{User: "alice"}}
	n.trips.want("a batch", 2, func() error { mustBatch(t, n.here, []*saver.Batch{b}); return nil })
	n.trips.want("after a batch", 2, publish)
	n.trips.want("and at once", 1, publish)
	n.wants(t, 101, 102, 50, 103, 104)
}
