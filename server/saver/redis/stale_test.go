package redis

import (
	"net"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redistest"
	"carillon/server/saver"
)

// A device that polls comes to one node and then to another. If one of them has found out about a failover and the other has not yet, the place that the
// device shows to the latter is of a history that the old primary knows nothing of. That is no reason to send it everything again.
func TestRead_FromAPlaceOfTheNewPrimaryFindsIt(t *testing.T) {
	ctx := t.Context()
	before, after := redistest.Standalone(t).Servers()[0], redistest.Standalone(t).Servers()[0]
	says := redistest.StartSpokesman(t, 1, before.Addr(), before.Addr())
	node := func() *Store {
		t.Helper()
		db, err := redisdb.Open(ctx, redisdb.Config{Mode: redisdb.Sentinel, Addrs: []string{says.Addr()}, Master: "shop", Watch: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(Config{DB: db, Shards: func(push.ProductID) int { return 1 }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close(); _ = db.Close() })
		return s
	}
	user := saver.UserRef{Product: shop, Shards: 1, User: "alice"}
	send := func(s *Store, id push.MsgID) {
		t.Helper()
		r := s.Publish(ctx, []*saver.Publication{{
			Product: shop, Shards: 1, TTL: day, Message: &push.Message{ID: id, Persistent: true}, Own: []saver.Target{{User: "alice"}},
		}})
		if r[0].Err != nil {
			t.Fatal(r[0].Err)
		}
	}
	read := func(s *Store, from push.Place) saver.Tail {
		t.Helper()
		ts, err := s.Read(ctx, []saver.Read{{
			ShardRef: saver.ShardRef{Product: shop}, Slot: push.Own, User: "alice", From: from, MaxEntries: 100, MaxBytes: 1 << 20,
		}})
		if err != nil {
			t.Fatal(err)
		}
		return ts[0]
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	stale, other := node(), node()
	send(stale, 1)
	at := read(stale, push.Place{}).Start // the beginning
	host, port, _ := net.SplitHostPort(before.Addr())
	must(after.Client().Do(ctx, "REPLICAOF", host, port).Err())
	if n, err := before.Client().Do(ctx, "WAIT", 1, 20_000).Int(); n != 1 || err != nil {
		t.Fatalf("%d replicas, %v", n, err)
	}
	must(after.Client().Do(ctx, "REPLICAOF", "NO", "ONE").Err())
	says.Say(2, after.Addr(), after.Addr())
	quick := node()
	send(quick, 2)
	tail := read(quick, at)
	if len(tail.Entries) != 2 || tail.Start.Lineage == at.Lineage {
		t.Fatalf("the new primary's slot: %+v", tail)
	}
	tail.Start.Pos = tail.State.Head // both handled
	if got := read(stale, tail.Start); !got.Known || got.Start != tail.Start || len(got.Entries) > 0 {
		t.Errorf("a read at a node that knew the old primary, from %+v: %+v", tail.Start, got)
	}
	got, err := other.Open(ctx, saver.Open{
		UserRef: user, Facts: push.DeviceFacts{Device: "phone", Platform: push.PlatformWeb, Class: "web"}, Presented: &push.Cursor{push.Own: tail.Start},
	})
	must(err)
	if own := got.Starts[push.Own]; own.How != saver.Resumed || own.At != tail.Start {
		t.Errorf("a device that comes to such a node with %+v begins at %+v", tail.Start, own)
	}
}
