package redis

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"carillon/server/clock/clocktest"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"
	"carillon/server/register"
)

// putBack does what a room does that hears that its lease is lost: it joins again and inserts its sessions anew.
func putBack(t *testing.T, r *Register, room push.RoomID, boot push.BootID, ss ...register.Session) {
	t.Helper()
	wantLeaseLost(t, r, room, boot)
	join(t, r, room, boot)
	for _, s := range ss {
		if in := insert(t, r, s); in.Session != s || len(in.Replaced) != 0 {
			t.Fatalf("Insert anew: got %+v, want the session as it was", in)
		}
	}
	if got := renew(t, r, room, boot); len(got) != 0 {
		t.Fatalf("orders out of nothing: %+v", got)
	}
}

// dump returns everything that a server holds.
func dump(t *testing.T, c *client) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, k := range c.Keys(t.Context(), "*").Val() {
		all[k] = c.Dump(t.Context(), k).Val()
	}
	return all
}

// TestRegister_StoreThatFellBackHasItsSessionsPutBack sets the store back behind a session, as a failover to a replica does that had not
// seen it.
func TestRegister_StoreThatFellBackHasItsSessionsPutBack(t *testing.T) {
	p := newPair(t, pool.Standalone(t))
	server := p.of.Servers()[0].Client()
	alice := insert(t, p.north, at("alice", "phone", "north", 7)).Session
	then := dump(t, server)
	bob := insert(t, p.north, at("bob", "phone", "north", 7)).Session
	cathy := insert(t, p.south, at("cathy", "phone", "south", 8)).Session
	renew(t, p.north, "north", 7)
	renew(t, p.south, "south", 8)

	if err := server.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	for k, v := range then {
		if err := server.Restore(t.Context(), k, 0, v).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Do(t.Context(), "DEBUG", "CHANGE-REPL-ID").Err(); err != nil {
		t.Fatal(err)
	}
	wantSessions(t, p.south, "bob")
	putBack(t, p.north, "north", 7, alice, bob)
	putBack(t, p.south, "south", 8, cathy)
	wantSessions(t, p.south, "alice", alice)
	wantSessions(t, p.south, "bob", bob)
	wantSessions(t, p.north, "cathy", cathy)
	for range 3 {
		renew(t, p.north, "north", 7)
		renew(t, p.south, "south", 8)
	}
	wantCount(t, p.north, 3)
	recount(t, p.of)
}

// TestRegister_WipedStoreHasItsSessionsPutBack empties the store, which changes no lineage.
func TestRegister_WipedStoreHasItsSessionsPutBack(t *testing.T) {
	p := newPair(t, pool.Standalone(t))
	alice := insert(t, p.north, at("alice", "phone", "north", 7)).Session
	if err := p.of.Servers()[0].Client().FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	putBack(t, p.north, "north", 7, alice)
	wantSessions(t, p.south, "alice", alice)
	wantCount(t, p.north, 1)
	recount(t, p.of)
}

// TestRegister_SessionsThatAShardLostArePutBack takes the sessions of one shard away and leaves the table of leases: as when a cluster loses one of its
// nodes.
func TestRegister_SessionsThatAShardLostArePutBack(t *testing.T) {
	p := newPair(t, pool.Standalone(t))
	alice := insert(t, p.north, at("alice", "phone", "north", 7)).Session
	bob := insert(t, p.north, at("bob", "phone", "north", 7)).Session
	renew(t, p.north, "north", 7)
	tag := redisdb.ShardTag("shop", push.ShardOf("alice", testShards))
	server := p.of.Servers()[0].Client()
	if n := server.Del(t.Context(), tag.SessionsKey(), presenceKey(tag)).Val(); n != 2 {
		t.Fatalf("%d keys are deleted", n)
	}
	putBack(t, p.north, "north", 7, alice, bob)
	renew(t, p.north, "north", 7)
	wantSessions(t, p.south, "alice", alice)
	wantSessions(t, p.south, "bob", bob)
	wantCount(t, p.north, 2)
	recount(t, p.of)
}

// TestRegister_RestartedServerHasItsSessionsPutBack kills the server: what it had written is there, but nobody can know that it is all.
func TestRegister_RestartedServerHasItsSessionsPutBack(t *testing.T) {
	p := newPair(t, redistest.Standalone(t))
	alice := insert(t, p.north, at("alice", "phone", "north", 7)).Session
	server := p.of.Servers()[0]
	server.Kill()
	for _, err := range []error{
		second(p.north.Renew(t.Context(), "north", 7)),
		second(p.north.Insert(t.Context(), at("bob", "phone", "north", 7), nil)),
		second(p.north.Remove(t.Context(), alice.Key, alice.Epoch, 7)),
		second(p.north.Lookup(t.Context(), "shop", []push.UserID{"alice"})),
		second(p.north.Count(t.Context(), "shop")),
		second(p.north.Rooms(t.Context())),
	} {
		if push.KindOf(err) != push.KindUnavailable {
			t.Errorf("without a server: %v, want KindUnavailable", err)
		}
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	reached(t, p.north)
	reached(t, p.south)
	putBack(t, p.north, "north", 7, alice)
	wantSessions(t, p.south, "alice", alice)
	for range 2 {
		renew(t, p.north, "north", 7)
	}
	wantCount(t, p.north, 1)
	recount(t, p.of)
}

// reached asks until the store answers.
func reached(t *testing.T, r *Register) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		_, err := r.Rooms(t.Context())
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-t.Context().Done():
			t.Fatal(err)
		}
	}
}

func second[V any](_ V, err error) error { return err }

// TestRegister_LostReplyLeavesNothingUncounted cuts the connection behind writes whose replies never come: whatever became of them, the numbers are true after
// some renewals, and the session that was replaced is told to go.
func TestRegister_LostReplyLeavesNothingUncounted(t *testing.T) {
	of := redistest.Standalone(t, redistest.Proxied())
	c := clocktest.New()
	direct := func() *redisdb.DB {
		db, err := redisdb.Open(t.Context(), redisdb.Config{Addrs: []string{of.Servers()[0].Addr()}, Clock: c})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db
	}()
	p := &pair{t: t, of: of, clock: c, north: open(t, redisdbtest.Open(t, of, c), c), south: open(t, direct, c)}
	join(t, p.north, "north", 7)
	join(t, p.south, "south", 8)
	first := insert(t, p.north, at("alice", "phone", "north", 7)).Session

	server := of.Servers()[0]
	server.LoseReplies(true)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	_, err := p.north.Insert(ctx, at("alice", "phone", "north", 7), nil)
	cancel()
	server.LoseReplies(false)
	server.Reset()
	if push.KindOf(err) != push.KindUnavailable {
		t.Fatalf("Insert without a reply: %v", err)
	}
	again := insert(t, p.north, at("alice", "phone", "north", 7)).Session
	var ordered []push.SessionEpoch
	for range 3 {
		orders, err := p.north.Renew(t.Context(), "north", 7)
		var e *push.Error
		if errors.As(err, &e) {
			t.Fatal(err)
		}
		for _, o := range orders {
			ordered = append(ordered, o.Epoch)
		}
		renew(t, p.south, "south", 8)
	}
	if !slices.Contains(ordered, first.Epoch) {
		t.Errorf("the first session is not told to go: %v", ordered)
	}
	wantSessions(t, p.south, "alice", again)
	wantCount(t, p.north, 1)
	recount(t, of)
}
