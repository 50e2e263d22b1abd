package redis

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"carillon/server/push"
	"carillon/server/redistest"
	"carillon/server/register"
)

// served returns how many commands of a name a server has executed for clients; those of functions are not among them.
func served(t *testing.T, of *redistest.Redis, command string) int {
	t.Helper()
	info, err := of.Servers()[0].Info(t.Context(), "commandstats")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range strings.Split(info["cmdstat_"+command], ",") {
		if calls, ok := strings.CutPrefix(f, "calls="); ok {
			n, err := strconv.Atoi(calls)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// TestRegister_CostInCalls counts the calls that operations take. One waits for the answer of the one before, so they are round trips at most: a renewal's reads
// go together, and so does a look-up's part, which begins with a call that asks who answers.
func TestRegister_CostInCalls(t *testing.T) {
	p := newPair(t, pool.Standalone(t))
	alice := insert(t, p.north, at("alice", "phone", "north", 7)).Session
	wantSessions(t, p.south, "alice", alice) // its view knows the rooms now
	users := make([]push.UserID, 1000)
	for i := range users {
		users[i] = push.UserID(fmt.Sprint("user-", i))
		insert(t, p.north, at(users[i], "phone", "north", 7))
	}
	var web register.Session
	for _, c := range []struct {
		name         string
		do           func()
		calls, hmget int
	}{
		{"a session comes in", func() { web = insert(t, p.north, at("alice", "web", "north", 7)).Session }, 2, 0},
		{"it is put back, as it is there", func() { insert(t, p.north, web) }, 1, 0},
		{"it goes", func() {
			if ok, err := p.north.Remove(t.Context(), web.Key, web.Epoch, 7); !ok || err != nil {
				t.Error(ok, err)
			}
		}, 2, 0},
		{"one takes the place of another in the same room", func() { insert(t, p.north, at("alice", "phone", "north", 7)) }, 2, 0},
		{"one takes the place of another in the room of another node, which gets mail", func() {
			insert(t, p.south, at("alice", "phone", "south", 8))
		}, 3, 0},
		{"a renewal of a room in all shards, with mail", func() {
			if got := renew(t, p.north, "north", 7); len(got) != 2 {
				t.Errorf("got %d orders, want 2", len(got))
			}
		}, 3, 0}, // what it reads is more than one call takes
		{"a thousand users are looked up", func() {
			if _, err := p.south.Lookup(t.Context(), "shop", users); err != nil {
				t.Error(err)
			}
		}, lookupWays, testShards},
		{"a product is counted", func() { wantCount(t, p.north, len(users)) }, 1, 0},
	} {
		calls, hmget := served(t, p.of, "fcall"), served(t, p.of, "hmget")
		c.do()
		if got := served(t, p.of, "fcall") - calls; got > c.calls {
			t.Errorf("%s: %d calls of functions, want at most %d", c.name, got, c.calls)
		}
		if got := served(t, p.of, "hmget") - hmget; got != c.hmget {
			t.Errorf("%s: %d of HMGET, want %d", c.name, got, c.hmget)
		}
	}
}
