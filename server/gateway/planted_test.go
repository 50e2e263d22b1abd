//go:build planted

package gateway

import (
	"testing"
	"time"

	"carillon/server/client"
	"carillon/server/planted"
	"carillon/server/room"
)

// withoutSweep is how long a message may be missing at a room that no notification reaches and that sweeps every tenth of a second.
const withoutSweep = 5 * time.Second

// A room that does not look for what it was not told of is found as soon as nobody can tell it. As long as the client stays where it is,
// nothing else would bring it the message.
func TestPlanted_NoSweepIsFoundOnRedis(t *testing.T) {
	for _, bug := range []planted.Bug{planted.None, planted.NoSweep} {
		t.Run("with:"+string(bug), func(t *testing.T) {
			if err := planted.Choose(bug); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = planted.Choose(planted.None) }()
			c := startCluster(t, pool.Standalone(t), 1, 1, func(cfg *Config) {
				cfg.Cluster.Advertise = "127.0.0.1:1" // where nobody listens
				cfg.Room = room.Config{SweepEvery: 100 * time.Millisecond}
			})
			alice := c.rooms[0].watch("alice", "phone", &client.Memory{})
			alice.awaitCaught(t)
			id := c.centers[0].publish("alice", "stored")
			if bug == planted.None {
				alice.want(t, id)
				return
			}
			select {
			case m := <-alice.got:
				t.Errorf("%d came without a notification and without a sweep", m.ID)
			case <-time.After(withoutSweep):
			}
		})
	}
}
