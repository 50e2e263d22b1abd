package gateway

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/client"
	"carillon/server/proxytest"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redistest"
	"carillon/server/register"
)

// member is a node of a cluster whose way to Redis a test can cut.
type member struct {
	*testNode
	way *proxytest.Proxy
	cut atomic.Bool
}

// joinCluster starts a node that plays both roles.
func joinCluster(t *testing.T, id push.RoomID, r *redistest.Redis, change func(*Config)) *member {
	t.Helper()
	m := &member{way: proxytest.Start(t, r.Servers()[0].Addr(), proxytest.Config{})}
	m.way.Each(func(l *proxytest.Link) {
		if m.cut.Load() {
			l.Drop(proxytest.Up | proxytest.Down)
		}
	})
	m.testNode = startWith(t, vfs.NewMem(), func(c *Config) {
		c.Data = ""
		c.Cluster = &Cluster{
			ID: id, Listen: "127.0.0.1:0", Secret: strings.Repeat("cluster ", 8),
			Redis: redisdb.Config{Mode: redisdb.Mode("standalone"), Addrs: []string{m.way.Addr()}},
		}
		c.Room.CutOffAfter = register.ZombieAfter
		if change != nil {
			change(c)
		}
	})
	t.Cleanup(func() { m.setCut(false) }) // before it stops: it leaves the register
	return m
}

// setCut has all that the node says to Redis vanish, and all answers, or lets it dial again.
func (m *member) setCut(yes bool) {
	m.cut.Store(yes)
	for _, l := range m.way.Links() {
		if yes {
			l.Drop(proxytest.Up | proxytest.Down)
		} else {
			l.Reset(proxytest.Client | proxytest.Server)
		}
	}
}

func (m *member) waitMetric(name string, ok func(float64) bool) {
	m.t.Helper()
	eventually(m.t, networkPatience, func() bool { return ok(m.metric(name)) }, func() string { return name + " is " + strconv.FormatFloat(m.metric(name), 'g', -1, 64) })
}

// phoneOn runs alice's phone against a node.
func (m *member) phoneOn(device string, as *member) *handset {
	m.t.Helper()
	there := *m.testNode
	there.sign, there.key = as.sign, as.key
	url, d := there.address("ws")
	h := there.carryTo(url, d, "alice", device, &client.Memory{})
	h.waitCaughtUp()
	return h
}

func isOne(n float64) bool  { return n == 1 }
func isZero(n float64) bool { return n == 0 }

func TestCutOff_ClientsOfARoomWithoutRedisMoveToOneThatHasIt(t *testing.T) {
	r := redistest.Standalone(t)
	south := joinCluster(t, "south", r, nil)
	north := joinCluster(t, "north", r, func(c *Config) { c.DrainAddress = south.PublicURL() })
	south.setUp()
	moves, stays := north.phoneOn("phone", south), south.phoneOn("tablet", south)
	ids := []string{south.publish("alice", "before")}
	moves.wants(ids)
	stays.wants(ids)

	north.setCut(true)
	ids = append(ids, south.publish("alice", "to one that does not hear it"))
	north.waitCloses("going_away", 1)
	moves.wants(ids) // from south, to which the goodbye sent it
	ids = append(ids, south.publish("alice", "after the move"))
	moves.wants(ids)
	stays.wants(ids)
	north.waitMetric("carillon_room_cut_off", isOne)
	if n := stays.reached(client.Waiting); n != 0 {
		t.Errorf("a client of the other room lost its connection %d times", n)
	}

	north.setCut(false)
	north.waitMetric("carillon_room_cut_off", isZero)
	back := north.phoneOn("laptop", south)
	late := south.publish("alice", "to a room that came back")
	back.wants([]string{late})
}

func TestCutOff_WhenRedisIsAwayForAllClientsStayAndGoOn(t *testing.T) {
	r := redistest.Standalone(t)
	// Nobody asks before every lease has run out: they are renewed at different times, and one of them later on a busy machine.
	patient := func(c *Config) { c.Room.CutOffAfter = 3 * register.ZombieAfter }
	south := joinCluster(t, "south", r, patient)
	north := joinCluster(t, "north", r, func(c *Config) {
		patient(c)
		c.DrainAddress = south.PublicURL()
	})
	south.setUp()
	phones := []*handset{north.phoneOn("phone", south), south.phoneOn("tablet", south)}
	ids := []string{south.publish("alice", "before")}
	for _, p := range phones {
		p.wants(ids)
	}
	redis := r.Servers()[0]
	if err := redis.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	thaw := func() {
		if err := redis.Thaw(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(thaw) // twice does no harm
	for _, m := range []*member{north, south} {
		m.waitMetric(`carillon_room_cut_off_questions_total{elsewhere="false"}`, func(n float64) bool { return n >= 3 })
	}
	thaw()
	eventually(t, networkPatience, func() bool { return north.room.Alive() && south.room.Alive() }, func() string { return "the rooms did not get their leases back" })
	ids = append(ids, south.publish("alice", "after"))
	for _, p := range phones {
		p.wants(ids)
		if n := p.reached(client.Waiting); n != 0 {
			t.Errorf("%s lost its connection %d times", p.name, n)
		}
	}
	for _, m := range []*member{north, south} {
		if n := m.metric(`carillon_room_cut_off_questions_total{elsewhere="true"}`); n != 0 {
			t.Errorf("a room was told %v times that another one reaches Redis", n)
		}
	}
}
