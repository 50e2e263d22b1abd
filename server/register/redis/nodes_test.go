package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"carillon/server/clock/clocktest"
	"carillon/server/push"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"
	"carillon/server/register"
	"carillon/server/register/registertest"
)

// pair is two nodes over one Redis: north joins through the one, south through the other.
type pair struct {
	t            *testing.T
	of           *redistest.Redis
	clock        *clocktest.Clock
	north, south *Register
}

func newPair(t *testing.T, of *redistest.Redis) *pair {
	c := clocktest.New()
	p := &pair{t: t, of: of, clock: c, north: open(t, redisdbtest.Open(t, of, c), c), south: open(t, redisdbtest.Open(t, of, c), c)}
	join(t, p.north, "north", 7)
	join(t, p.south, "south", 8)
	return p
}

func join(t *testing.T, r *Register, room push.RoomID, boot push.BootID) {
	t.Helper()
	if err := r.Join(context.Background(), register.Room{ID: room, Boot: boot}); err != nil {
		t.Fatal(err)
	}
}

func at(u push.UserID, d push.DeviceID, room push.RoomID, boot push.BootID) register.Session {
	s := sessionOf(u, d)
	s.Room, s.Boot = room, boot
	return s
}

func insert(t *testing.T, r *Register, s register.Session, limits ...push.SessionLimit) register.Inserted {
	t.Helper()
	in, err := r.Insert(context.Background(), s, limits)
	if err != nil {
		t.Fatalf("Insert(%v in %s): %v", s.Key, s.Room, err)
	}
	return in
}

func renew(t *testing.T, r *Register, room push.RoomID, boot push.BootID) []register.Order {
	t.Helper()
	orders, err := r.Renew(context.Background(), room, boot)
	if err != nil {
		t.Fatalf("Renew(%s, %d): %v", room, boot, err)
	}
	return orders
}

func wantSessions(t *testing.T, r *Register, u push.UserID, want ...register.Session) {
	t.Helper()
	found, err := r.Lookup(context.Background(), "shop", []push.UserID{u})
	if err != nil {
		t.Fatal(err)
	}
	var as []register.Found
	for i := range want {
		as = append(as, register.Found{Room: want[i].Room, Device: want[i].Device, Epoch: want[i].Epoch})
	}
	if !slices.Equal(found[0], as) {
		t.Fatalf("sessions of %s:\n got %+v\nwant %+v", u, found[0], as)
	}
}

func wantCount(t *testing.T, r *Register, want int) {
	t.Helper()
	if got, err := r.Count(context.Background(), "shop"); err != nil || got != want {
		t.Fatalf("Count: got %d, %v, want %d", got, err, want)
	}
}

func wantLeaseLost(t *testing.T, r *Register, room push.RoomID, boot push.BootID) {
	t.Helper()
	_, err := r.Renew(context.Background(), room, boot)
	var e *push.Error
	if !errors.As(err, &e) || e.Code != "lease_lost" {
		t.Fatalf("Renew(%s, %d): got %v, want lease_lost", room, boot, err)
	}
}

func order(was, by register.Session) register.Order {
	return register.Order{Key: was.Key, Epoch: was.Epoch, By: by}
}

func TestNodes_SessionReplacedByAnotherNodeIsOrderedOutOnce(t *testing.T) {
	p := newPair(t, pool.Standalone(t))
	first := insert(t, p.north, at("alice", "phone", "north", 7)).Session
	wantSessions(t, p.south, "alice", first)
	second := insert(t, p.south, at("alice", "phone", "south", 8))
	if !slices.Equal(second.Replaced, []register.Session{first}) {
		t.Fatalf("Replaced: got %+v, want %+v", second.Replaced, first)
	}
	wantSessions(t, p.north, "alice", second.Session)
	want := []register.Order{order(first, second.Session)}
	if got := renew(t, p.north, "north", 7); !slices.Equal(got, want) {
		t.Fatalf("orders: got %+v, want %+v", got, want)
	}
	for range 3 { // it is in the shard as well
		if got := renew(t, p.north, "north", 7); len(got) != 0 {
			t.Fatalf("the order came again: %+v", got)
		}
	}
	if ok, err := p.north.Remove(t.Context(), first.Key, first.Epoch, 7); ok || err != nil {
		t.Fatalf("late goodbye: %v, %v", ok, err)
	}
	renew(t, p.south, "south", 8)
	wantCount(t, p.north, 1)
	wantCount(t, p.south, 1)
}

// TestNodes_OrderWhoseMailIsLostIsFoundInTheShard empties the mail.
func TestNodes_OrderWhoseMailIsLostIsFoundInTheShard(t *testing.T) {
	p := newPair(t, pool.Standalone(t))
	first := insert(t, p.north, at("alice", "phone", "north", 7)).Session
	second := insert(t, p.south, at("alice", "phone", "south", 8)).Session
	lost := 0
	eachKey(t, p.of, func(c *client, key string) {
		if len(key) > 4 && key[:4] == "c:{@" {
			c.Del(t.Context(), key)
			lost++
		}
	})
	if lost != 1 {
		t.Fatalf("there were %d letters", lost)
	}
	if got, want := renew(t, p.north, "north", 7), []register.Order{order(first, second)}; !slices.Equal(got, want) {
		t.Fatalf("orders: got %+v, want %+v", got, want)
	}
	renew(t, p.south, "south", 8) // it writes its number
	wantCount(t, p.north, 1)
}

// TestNodes_OrderComesByMail empties the lists in the shards: a room that holds sessions in very many need not have come round to this one.
func TestNodes_OrderComesByMail(t *testing.T) {
	p := newPair(t, pool.Standalone(t))
	first := insert(t, p.north, at("alice", "phone", "north", 7)).Session
	second := insert(t, p.south, at("alice", "phone", "south", 8)).Session
	lost := 0
	eachKey(t, p.of, func(c *client, key string) {
		if kindOf(key) == "o" {
			c.Del(t.Context(), key)
			lost++
		}
	})
	if lost != 1 {
		t.Fatalf("there were %d lists of orders", lost)
	}
	if got, want := renew(t, p.north, "north", 7), []register.Order{order(first, second)}; !slices.Equal(got, want) {
		t.Fatalf("orders: got %+v, want %+v", got, want)
	}
}

// TestNodes_RoomThatJustJoinedIsKnownToAll looks for sessions of a room that the other node's view does not have.
func TestNodes_RoomThatJustJoinedIsKnownToAll(t *testing.T) {
	p := newPair(t, pool.Standalone(t))
	wantSessions(t, p.south, "alice")
	join(t, p.north, "north", 9)
	s := insert(t, p.north, at("alice", "phone", "north", 9)).Session
	wantSessions(t, p.south, "alice", s)
	all := push.SessionLimit{Platforms: push.AllPlatforms(), Max: 1, Reject: true, Rule: "one"}
	_, err := p.south.Insert(t.Context(), at("alice", "web", "south", 8), []push.SessionLimit{all})
	if push.KindOf(err) != push.KindConflict {
		t.Fatalf("Insert where there is no place: %v", err)
	}
	join(t, p.north, "north", 10) // it crashed, and is back, before the other node's view was read anew
	in := insert(t, p.south, at("alice", "web", "south", 8), all)
	wantSessions(t, p.north, "alice", in.Session)
}

func TestNodes_LeaseThatRanOutIsLostAndSessionsComeBackByEpoch(t *testing.T) {
	p := newPair(t, pool.Standalone(t))
	alice := insert(t, p.north, at("alice", "phone", "north", 7)).Session
	bob := insert(t, p.north, at("bob", "phone", "north", 7)).Session
	p.clock.Advance(register.LeaseTTL / 2)
	renew(t, p.south, "south", 8)
	p.clock.Advance(register.LeaseTTL/2 + time.Millisecond)
	wantSessions(t, p.south, "alice")
	moved := insert(t, p.south, at("bob", "phone", "south", 8)).Session
	wantLeaseLost(t, p.north, "north", 7)
	join(t, p.north, "north", 7)
	if in := insert(t, p.north, alice); in.Session != alice || len(in.Replaced) != 0 {
		t.Fatalf("Insert anew: got %+v", in)
	}
	if _, err := p.north.Insert(t.Context(), bob, nil); push.KindOf(err) != push.KindConflict {
		t.Fatalf("Insert anew of one that moved on: %v", err)
	}
	wantSessions(t, p.south, "alice", alice)
	wantSessions(t, p.north, "bob", moved)
	renew(t, p.north, "north", 7)
	wantCount(t, p.south, 2)
	recount(t, p.of)
}

// TestNodes_WhatADeadRoomLeftIsClearedAway has a room with many sessions die, of whose users none comes back.
func TestNodes_WhatADeadRoomLeftIsClearedAway(t *testing.T) {
	p := newPair(t, pool.Standalone(t))
	const users = 300
	for i := range users {
		insert(t, p.north, at(push.UserID(fmt.Sprint("user-", i)), "phone", "north", 7))
	}
	for i := range testShards { // the other room has somebody in every shard
		u := push.UserID("")
		for j := 0; u == "" || push.ShardOf(u, testShards) != push.Shard(i); j++ {
			u = push.UserID(fmt.Sprint("other-", j))
		}
		insert(t, p.south, at(u, "phone", "south", 8))
	}
	p.clock.Advance(register.LeaseTTL / 2)
	renew(t, p.south, "south", 8)
	p.clock.Advance(register.LeaseTTL/2 + time.Second)
	wantCount(t, p.south, testShards)
	for range 60 {
		renew(t, p.south, "south", 8)
		p.clock.Advance(register.RenewEvery)
	}
	kept, orders := 0, 0
	eachKey(t, p.of, func(c *client, key string) {
		switch kindOf(key) {
		case "s":
			kept += int(c.HLen(t.Context(), key).Val())
		case "o":
			orders++
		}
	})
	if kept != testShards || orders != 0 {
		t.Errorf("%d users and %d lists of orders are kept, want %d and none", kept, orders, testShards)
	}
	wantCount(t, p.south, testShards)
	recount(t, p.of)
}

// TestNodes_RaceLeavesTheNewest has both nodes insert one device at once: each session but the last is ordered out exactly once.
func TestNodes_RaceLeavesTheNewest(t *testing.T) {
	for _, form := range []redistest.Form{redistest.FormStandalone, redistest.FormSentinel, redistest.FormCluster} {
		t.Run(string(form), func(t *testing.T) { race(t, newPair(t, pool.Take(t, form))) })
	}
}

func race(t *testing.T, p *pair) {
	const each = 15
	var mu sync.Mutex
	given, replaced := map[push.SessionEpoch]bool{}, map[push.SessionEpoch]int{}
	var all sync.WaitGroup
	for _, r := range []*Register{p.north, p.north, p.south, p.south} {
		s := at("alice", "phone", "north", 7)
		if r == p.south {
			s = at("alice", "phone", "south", 8)
		}
		all.Go(func() {
			for range each {
				in, err := r.Insert(context.Background(), s, nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				given[in.Session.Epoch] = true
				for _, s := range in.Replaced {
					replaced[s.Epoch]++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	ordered := map[push.SessionEpoch]int{}
	for range 3 {
		for _, o := range append(renew(t, p.north, "north", 7), renew(t, p.south, "south", 8)...) {
			ordered[o.Epoch]++
		}
	}
	if len(given) != 4*each {
		t.Fatalf("%d sessions have %d epochs", 4*each, len(given))
	}
	found, err := p.north.Lookup(t.Context(), "shop", []push.UserID{"alice"})
	if err != nil || len(found[0]) != 1 {
		t.Fatalf("left: %+v, %v", found, err)
	}
	left := found[0][0].Epoch
	for e := range given {
		want := 1
		if e == left {
			want = 0
		}
		if replaced[e] != want || ordered[e] != want || e > left {
			t.Errorf("epoch %d: replaced %d times, ordered out %d times, want %d; %d is left", e, replaced[e], ordered[e], want, left)
		}
	}
	wantCount(t, p.north, 1)
	wantCount(t, p.south, 1)
	recount(t, p.of)
}

func TestConformance_Sentinel(t *testing.T) { registertest.Run(t, newFixture(redistest.FormSentinel)) }
func TestConformance_Cluster(t *testing.T)  { registertest.Run(t, newFixture(redistest.FormCluster)) }
