package redis

import (
	"fmt"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redistest"
	"carillon/server/register"
)

// TestRegister_FailoverHasSessionsPutBack kills a primary: another server takes its place, and nobody knows what that had seen.
func TestRegister_FailoverHasSessionsPutBack(t *testing.T) {
	for _, form := range []redistest.Form{redistest.FormSentinel, redistest.FormCluster} {
		t.Run(string(form), func(t *testing.T) {
			of := start(t, form)
			p := newPair(t, of)
			var all []register.Session
			var users []push.UserID
			for i := range 100 {
				u := push.UserID(fmt.Sprint("user-", i))
				users, all = append(users, u), append(all, insert(t, p.north, at(u, "phone", "north", 7)).Session)
			}
			renew(t, p.north, "north", 7)
			vip := register.TagNews{All: true, Add: []register.TagOf{{Product: "shop", Tag: "vip"}}}
			for _, room := range []struct {
				r    *Register
				id   push.RoomID
				boot push.BootID
			}{{p.north, "north", 7}, {p.south, "south", 8}} {
				if err := room.r.TellTags(t.Context(), room.id, room.boot, vip); err != nil {
					t.Fatal(err)
				}
			}
			wantVips(t, p.south, "north has, south has")
			if _, err := of.Crash(t.Context(), primaryOf(t, of, users[0])); err != nil {
				t.Fatal(err)
			}
			lookedUp(t, p.north, users)
			lookedUp(t, p.south, users)
			putBack(t, p.north, "north", 7, all...)
			if form == redistest.FormSentinel { // of a cluster, only what lay on that primary is in doubt
				wantVips(t, p.south, "north any, south any")
				if err := p.north.TellTags(t.Context(), "north", 7, register.TagNews{}); asError(err).Code != register.CodeTagsLost {
					t.Errorf("after a failover the room hears that its tags are known: %v", err)
				}
			}
			if err := p.north.TellTags(t.Context(), "north", 7, register.TagNews{All: true}); err != nil {
				t.Fatal(err)
			}
			if held := vips(t, p.south); held["north"] != "not" {
				t.Errorf("tags told anew: got %v", held)
			}
			for i, u := range users {
				wantSessions(t, p.south, u, all[i])
			}
			for range 3 {
				renew(t, p.north, "north", 7)
			}
			wantCount(t, p.north, len(all))
			recount(t, of)
		})
	}
}

func start(t *testing.T, form redistest.Form) *redistest.Redis {
	if form == redistest.FormCluster {
		return redistest.Cluster(t)
	}
	return redistest.Sentinel(t)
}

// primaryOf returns the server that holds a user's sessions.
func primaryOf(t *testing.T, of *redistest.Redis, u push.UserID) *redistest.Node {
	t.Helper()
	if of.Form() != redistest.FormCluster {
		n, err := of.Primary(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	key := redisdb.ShardTag("shop", push.ShardOf(u, testShards)).SessionsKey()
	slot, err := of.Servers()[0].Client().ClusterKeySlot(t.Context(), key).Result()
	if err != nil {
		t.Fatal(err)
	}
	n, err := of.MasterOf(t.Context(), int(slot))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// lookedUp asks for the users until all shards and the table of leases answer.
func lookedUp(t *testing.T, r *Register, users []push.UserID) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		_, err := r.Lookup(t.Context(), "shop", users)
		if err == nil {
			_, err = r.Rooms(t.Context())
		}
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
