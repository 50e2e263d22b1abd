package redis

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"carillon/server/clock/clocktest"
	"carillon/server/node"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"
)

var pool redistest.Pool

func TestMain(m *testing.M) { goleak.VerifyTestMain(pool.Closing(m)) }

// open returns notices on an empty Redis, and its clock.
func open(t *testing.T) (*Notices, *clocktest.Clock, *redistest.Redis) {
	t.Helper()
	r := pool.Standalone(t)
	h := clocktest.New()
	return New(redisdbtest.Open(t, r, h)), h, r
}

func kick(u push.UserID) node.Notice {
	return node.Notice{Kick: &node.KickNotice{Product: "shop", User: u, Kick: push.Kick{Kind: push.KickRevoked, Reason: "a b"}}}
}

func post(t *testing.T, n *Notices, what node.Notice) uint64 {
	t.Helper()
	number, _, err := n.Post(t.Context(), what)
	if err != nil {
		t.Fatal(err)
	}
	return number
}

// since returns the users of the kicks after one.
func since(t *testing.T, n *Notices, after uint64, limit int) (users []push.UserID, last uint64, lost bool) {
	t.Helper()
	ns, lost, err := n.Since(t.Context(), after, limit)
	if err != nil {
		t.Fatal(err)
	}
	last = after
	for _, what := range ns {
		if want := kick(what.Kick.User).Kick; *what.Kick != *want {
			t.Errorf("got %+v, want %+v", what.Kick, want)
		}
		users, last = append(users, what.Kick.User), what.Number
	}
	return users, last, lost
}

func TestNotices_AreFoundOnceInTheirOrder(t *testing.T) {
	n, _, _ := open(t)
	if users, _, lost := since(t, n, 0, 10); len(users) != 0 || lost {
		t.Errorf("of nothing: %v, %v", users, lost)
	}
	if head, err := n.Head(t.Context()); head != 0 || err != nil {
		t.Errorf("of nothing: %v, %v", head, err)
	}
	first := post(t, n, kick("alice"))
	if head, err := n.Head(t.Context()); head != first || err != nil {
		t.Errorf("got %v, %v, want %d", head, err, first)
	}
	post(t, n, kick("bob"))
	post(t, n, kick("cathy"))
	if users, _, lost := since(t, n, first, 10); !slices.Equal(users, []push.UserID{"bob", "cathy"}) || lost {
		t.Errorf("after the first: %v, %v", users, lost)
	}
	users, last, _ := since(t, n, 0, 2)
	if !slices.Equal(users, []push.UserID{"alice", "bob"}) {
		t.Errorf("two at most: %v", users)
	}
	if users, last, _ = since(t, n, last, 2); !slices.Equal(users, []push.UserID{"cathy"}) {
		t.Errorf("the rest: %v", users)
	}
	if users, _, lost := since(t, n, last, 2); len(users) != 0 || lost {
		t.Errorf("all was read: %v, %v", users, lost)
	}
}

func TestNotices_ManyAreFoundFromTheEnd(t *testing.T) {
	n, _, _ := open(t)
	var numbers []uint64
	for i := range 700 {
		numbers = append(numbers, post(t, n, kick(push.UserID(fmt.Sprint(i)))))
	}
	for _, behind := range []int{1, 63, 64, 65, 511, 512, 513, 699} {
		users, _, lost := since(t, n, numbers[len(numbers)-1-behind], 1000)
		if len(users) != behind || users[behind-1] != "699" || lost {
			t.Errorf("%d behind: %d were found, %v", behind, len(users), lost)
		}
	}
}

func TestNotices_OldOnesGoAndThoseWhoMissedThemAreTold(t *testing.T) {
	n, h, _ := open(t)
	first := post(t, n, kick("alice"))
	second := post(t, n, kick("bob"))
	h.Advance(node.KeepNotices + time.Second)
	third := post(t, n, kick("cathy"))
	for _, c := range []struct {
		after uint64
		lost  bool
	}{{first, true}, {second, false}} {
		users, last, lost := since(t, n, c.after, 10)
		if !slices.Equal(users, []push.UserID{"cathy"}) || last != third || lost != c.lost {
			t.Errorf("after %d: %v, %d, %v, want %v", c.after, users, last, lost, c.lost)
		}
	}
}

func TestNotices_NumbersRiseThoughTheClockGoesBackOrTheStoreForgets(t *testing.T) {
	n, h, r := open(t)
	first := post(t, n, kick("alice"))
	h.Advance(-time.Hour)
	second := post(t, n, kick("bob"))
	if second <= first {
		t.Errorf("%d after %d", second, first)
	}
	h.Advance(time.Hour + time.Second)
	if err := r.FlushAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := New(redisdbtest.Open(t, r, h)) // brings the functions back
	if third := post(t, again, kick("cathy")); third <= second {
		t.Errorf("%d after %d", third, second)
	}
	if users, _, _ := since(t, again, second, 10); !slices.Equal(users, []push.UserID{"cathy"}) {
		t.Errorf("got %v", users)
	}
}

func TestNotices_OfManyNodesAtOnceAreAllKept(t *testing.T) {
	n, h, r := open(t)
	other := New(redisdbtest.Open(t, r, h))
	var posting sync.WaitGroup
	const each = 20
	for i := range each {
		for name, from := range map[string]*Notices{"n": n, "o": other} {
			posting.Go(func() {
				if _, _, err := from.Post(t.Context(), kick(push.UserID(fmt.Sprint(name, i)))); err != nil {
					t.Error(err)
				}
			})
		}
	}
	posting.Wait()
	users, _, _ := since(t, n, 0, 1000)
	slices.Sort(users)
	if len(slices.Compact(users)) != 2*each {
		t.Errorf("%d of %d are kept", len(users), 2*each)
	}
}

func TestNotices_WhatCannotBeReadIsAnError(t *testing.T) {
	for _, bad := range []redisdb.Command{
		{Name: "HSET", Key: state, Args: []any{"last", "x"}},
		{Name: "HSET", Key: state, Args: []any{"dropped", "-1"}},
		{Name: "RPUSH", Key: list, Args: []any{"5 6"}},
		{Name: "RPUSH", Key: list, Args: []any{"x 6 {}"}},
	} {
		n, _, _ := open(t)
		post(t, n, kick("alice"))
		w := &redisdb.Write{Tag: tag, Do: []redisdb.Command{bad}}
		if n.db.Write(t.Context(), w); !w.Done {
			t.Fatal(w.Err)
		}
		if _, _, err := n.Since(t.Context(), 0, 10); push.KindOf(err) != push.KindInternal {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
