package redisdb

import (
	"testing"

	"carillon/server/redistest"
)

// The sentinel that leads a failover has the new configuration's number while it still has the old primary for its own: until the other replicas
// follow the new one. A primary that was only frozen is back before that, and takes writes that will be gone.
func TestSentinel_ThatLeadsAFailoverIsAskedWhomItNamesToClients(t *testing.T) {
	old, now := pool.Standalone(t), pool.Standalone(t)
	was, is := old.Servers()[0].Addr(), now.Servers()[0].Addr()
	leads, behind := redistest.StartSpokesman(t, 2, was, is), redistest.StartSpokesman(t, 1, was, was)
	db := open(t, now, func(c *Config) {
		c.Mode, c.Addrs, c.Master = Sentinel, []string{leads.Addr(), behind.Addr()}, "shop"
	})
	if ps := db.Primaries(); len(ps) != 1 || ps[0].Addr != is {
		t.Errorf("the primaries are %+v, want %s", ps, is)
	}
	set(t, db, tagOf(1), "a", "1")
	leads.Silence()
	if err := db.learnFromSentinels(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ps := db.Primaries(); len(ps) != 1 || ps[0].Addr != is {
		t.Errorf("when the one who leads does not answer the primaries are %+v, want %s", ps, is)
	}
	set(t, db, tagOf(1), "b", "1")
	now.Servers()[0].Kill()
	until(t, "the one that still answers is followed when the primary is gone", func() bool { return db.Primaries()[0].Addr == was })
}
