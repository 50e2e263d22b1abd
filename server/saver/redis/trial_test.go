package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redistest"
	"carillon/server/saver"
)

// trial has something happen to a store on a real Redis, and returns what is not as it was promised: nothing, unless one of its planted
// bugs is there.
type trial struct {
	name string
	bugs []planted.Bug
	run  func(t *testing.T) []string
}

var trials = []trial{
	{"a primary dies that no replica heard from any more", []planted.Bug{planted.NoWait, planted.WaitElsewhere}, func(t *testing.T) []string {
		return lostWithThePrimary(t, push.DurabilityReplicated)
	}},
	{"replicas are behind", []planted.Bug{planted.ReplicaRead}, missedOnReplicas},
	{"a reply is lost", []planted.Bug{planted.ClientRetries}, storedTwice},
	{"the primary dies before a write reaches it", []planted.Bug{planted.AcknowledgeBeforeStore}, acceptedAndNotStored},
}

func TestTrials_NothingIsLostOrDoubled(t *testing.T) {
	for _, tr := range trials {
		t.Run(strings.ReplaceAll(tr.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			for _, found := range tr.run(t) {
				t.Error(found)
			}
		})
	}
}

// TestFailover_ProcessLosesWhatNoReplicaHad shows what durability "process" does not promise.
func TestFailover_ProcessLosesWhatNoReplicaHad(t *testing.T) {
	t.Parallel()
	if lost := lostWithThePrimary(t, push.DurabilityProcess); !slices.Equal(lost, []string{"200 was accepted and is gone"}) {
		t.Errorf("lost %q, want the message that no replica had", lost)
	}
}

// storeAt opens a store at one server until the test ends.
func (f *fixture) storeAt(t testing.TB, n *redistest.Node, change func(*redisdb.Config)) *Store {
	t.Helper()
	c := redisdb.Config{Addrs: []string{n.Public()}, Clock: f.clock}
	if change != nil {
		change(&c)
	}
	one := f.node(t, c)
	t.Cleanup(func() {
		_ = one.store.Close()
		_ = one.db.Close()
	})
	return one.store
}

// toAlice is the case of a message to her.
var toAlice = faultCases[0]

// accept publishes under a key until it is accepted: a busy machine may not wait for replicas in time.
func accept(t *testing.T, s *Store, id push.MsgID) {
	t.Helper()
	for {
		r := s.Publish(t.Context(), []*saver.Publication{toAlice.publication(id, fmt.Sprint("key ", id))})[0]
		if r.Err == nil {
			return
		}
		if push.KindOf(r.Err) != push.KindUnavailable || t.Context().Err() != nil {
			t.Fatal(r.Err)
		}
	}
}

// missing returns which of the messages that were accepted a store does not have.
func missing(t *testing.T, s *Store, accepted ...push.MsgID) (lost []string) {
	t.Helper()
	held := strings.Fields(toAlice.holds(t, s)[0])
	for _, id := range accepted {
		if !slices.Contains(held, fmt.Sprint(id)) {
			lost = append(lost, fmt.Sprint(id, " was accepted and is gone"))
		}
	}
	return lost
}

// lostWithThePrimary publishes while replicas hear the primary, and while they are connected and hear nothing; then it dies, and one of them
// takes its place.
func lostWithThePrimary(t *testing.T, d push.Durability) []string {
	r := redistest.Replicated(t, redistest.Proxied())
	f := newFixture(t, r, 0, Config{})
	primary := r.Servers()[0]
	s := f.storeAt(t, primary, func(c *redisdb.Config) {
		c.Durability, c.Timeout = d, 2*time.Second
		if d == push.DurabilityReplicated {
			c.Replicas = 2
		}
	})
	accepted := []push.MsgID{100}
	accept(t, s, 100)
	if err := awaitStored(t.Context(), r, 1); err != nil {
		t.Fatal(err)
	}
	primary.Starve(true)
	if s.Publish(t.Context(), []*saver.Publication{toAlice.publication(200, "")})[0].Err == nil {
		accepted = append(accepted, 200)
	}
	successor, err := r.Crash(t.Context(), primary)
	if err != nil {
		t.Fatal(err)
	}
	return missing(t, f.storeAt(t, successor, nil), accepted...)
}

// awaitStored waits until every server has so many messages in alice's slot, or ctx is done.
func awaitStored(ctx context.Context, r *redistest.Redis, messages int64) error {
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for _, n := range r.Servers() {
		for n.Client().LLen(ctx, ownKeys(refOf("alice")).entries()).Val() < messages {
			select {
			case <-again.C:
			case <-ctx.Done():
				return fmt.Errorf("%s never has the message: %w", n.Name(), ctx.Err())
			}
		}
	}
	return nil
}

// missedOnReplicas reads what was accepted while replicas are behind.
func missedOnReplicas(t *testing.T) []string {
	r := redistest.Replicated(t, redistest.Proxied())
	f := newFixture(t, r, 0, Config{})
	primary := r.Servers()[0]
	s := f.storeAt(t, primary, nil)
	accept(t, s, 100)
	if err := awaitStored(t.Context(), r, 1); err != nil {
		t.Fatal(err)
	}
	primary.Starve(true)
	accept(t, s, 200)
	return missing(t, s, 100, 200)
}

// storedTwice has a write executed, and its reply lost with the connection.
func storedTwice(t *testing.T) []string {
	r := redistest.Standalone(t, redistest.Proxied())
	f := newFixture(t, r, 0, Config{})
	node := r.Servers()[0]
	s := f.storeAt(t, node, nil)
	accept(t, s, 100) // so that there is a connection: over a new one nothing would be sent
	ctx, over := context.WithCancel(t.Context())
	var healing sync.WaitGroup
	s.db = &hooked{database: s.db, before: map[int]func(){1: func() {
		node.LoseReplies(true)
		healing.Go(func() {
			_ = awaitStored(ctx, r, 2)
			node.LoseReplies(false)
		})
	}}}
	// Without a key nobody looks whether the message is there already: whoever asked and got no answer knows that it may be.
	_ = s.Publish(t.Context(), []*saver.Publication{toAlice.publication(200, "")})
	over()
	healing.Wait()
	if got := toAlice.holds(t, f.storeAt(t, node, nil))[0]; strings.Count(got, "200 ") > 1 {
		return []string{fmt.Sprintf("the slot holds %q, though each message was sent once", got)}
	}
	return nil
}

// acceptedAndNotStored kills Redis when a write is about to be sent to it, and starts it again.
func acceptedAndNotStored(t *testing.T) []string {
	r := redistest.Standalone(t)
	f := newFixture(t, r, 0, Config{})
	node := r.Servers()[0]
	before := f.storeAt(t, node, nil)
	accept(t, before, 100)
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	s := f.storeAt(t, node, func(c *redisdb.Config) { c.Patience = 100 * time.Millisecond })
	s.db = &hooked{database: s.db, before: map[int]func(){1: node.Kill}}
	accepted := []push.MsgID{100}
	if s.Publish(t.Context(), []*saver.Publication{toAlice.publication(200, "")})[0].Err == nil {
		accepted = append(accepted, 200)
	}
	if err := s.Close(); err != nil { // nothing is under way any more
		t.Fatal(err)
	}
	if err := node.Restart(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	return missing(t, f.storeAt(t, node, nil), accepted...)
}
