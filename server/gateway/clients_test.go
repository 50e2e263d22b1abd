package gateway

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/client"
	"carillon/server/transport"
)

// overs are the transports that clients in Go have.
var overs = []transport.Kind{transport.WebSocket, transport.SSE, transport.LongPoll, transport.TCP}

func TestGateway_ClientsReceiveInOrderAndAcknowledgeOverEveryTransport(t *testing.T) {
	n := startWith(t, vfs.NewMem(), func(c *Config) { c.Room.Linger = time.Second })
	n.setUp()
	for _, over := range overs {
		t.Run(string(over), func(t *testing.T) {
			user := "alice-" + string(over)
			before := n.publish(user, "before the first visit")
			phone := n.watchOver(over, n.token(user, "phone"), &client.Memory{})
			phone.want(t, before)
			<-phone.caught
			var last string
			for i := range 40 { // more than a client takes ahead
				last = n.publish(user, fmt.Sprint("message ", i))
				phone.want(t, last)
			}
			n.waitState(last, "phone", "acknowledged")
			phone.leave(t)
			// What the server has not seen go may still be sent to.
			eventually(t, 20*time.Second, func() bool { return n.room.Count() == 0 }, func() string { return "the session is still there" })
			away := n.publish(user, "while away")
			if got := n.stateOf(away, "phone"); got != "stored" {
				t.Errorf("what came after the client left is %q, want stored", got)
			}
		})
	}
}

// One device's place holds wherever it connects: nothing is lost on the way, and nothing is shown twice.
func TestGateway_ADeviceContinuesOverAnyOtherTransport(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	store := &client.Memory{}
	round := append(append([]transport.Kind{}, overs...), overs...)
	for i, over := range round {
		missed := n.publish("alice", fmt.Sprint("while away ", i))
		phone := n.watchOver(over, n.token("alice", "phone"), store)
		phone.want(t, missed)
		phone.want(t, n.publish("alice", fmt.Sprint("while there ", i)))
		phone.leave(t)
		if len(phone.got) > 0 {
			t.Errorf("over %s %d messages came that should not", over, len(phone.got))
		}
	}
}

func TestGateway_ASecondConnectTakesTheFirstOnesPlaceOverEveryTransport(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	for _, over := range overs {
		for _, next := range overs {
			user := fmt.Sprintf("alice-%s-%s", over, next)
			first := n.watchOver(over, n.token(user, "phone"), &client.Memory{})
			<-first.caught
			second := n.watchOver(next, n.token(user, "phone"), &client.Memory{})
			<-second.caught
			if k := <-first.kicked; k.Reason != "replaced" {
				t.Errorf("%s, then %s: the first is kicked as %s, want replaced", over, next, k.Reason)
			}
			if err := <-first.done; err == nil {
				t.Errorf("%s, then %s: the first comes back", over, next)
			}
			second.want(t, n.publish(user, "for who is there now"))
			second.leave(t)
		}
	}
}
