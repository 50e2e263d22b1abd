package node

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/register"
)

// cutTown is a town whose register is out of reach, with a node that knows what it knew last.
func cutTown(t *testing.T, others map[push.RoomID]bool) (*town, *Node) {
	t.Helper()
	w := &town{}
	for id, alive := range others {
		p := newParty()
		p.alive = alive
		w.settle(t, id, p, secret, nil)
	}
	known := w.rooms
	own := newParty()
	own.alive = true // whom nobody asks
	n := w.settle(t, "own", own, secret, func(c *Config) {
		c.LastRooms = func() []register.Room { return append(known, register.Room{ID: "own", Boot: 1}) }
	})
	w.mu.Lock()
	w.fail = errors.New("the register is away")
	w.mu.Unlock()
	return w, n
}

func TestElsewhere_OneThatHoldsItsLeaseIsEnough(t *testing.T) {
	for _, c := range []struct {
		name   string
		others map[push.RoomID]bool
		want   bool
	}{
		{"one of three", map[push.RoomID]bool{"north": false, "south": true, "west": false}, true},
		{"none of two", map[push.RoomID]bool{"north": false, "south": false}, false},
		{"nobody else", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, n := cutTown(t, c.others)
			if got := n.Elsewhere(t.Context()); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// frozen adds a room that takes the question and does not answer until the test ends.
func (w *town) frozen(t *testing.T, id push.RoomID) register.Room {
	t.Helper()
	p := newParty()
	p.hold = make(chan struct{})
	w.settle(t, id, p, secret, nil)
	t.Cleanup(func() { close(p.hold) }) // before its listener is closed
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rooms[len(w.rooms)-1]
}

func TestElsewhere_OneThatDoesNotAnswerSaysNothingAndDelaysNoYes(t *testing.T) {
	var w town
	frozen := w.frozen(t, "frozen")
	gone := register.Room{ID: "gone", Boot: 1, Addr: "127.0.0.1:1"}
	south := newParty()
	south.alive = true
	w.settle(t, "south", south, secret, nil)
	yes := w.rooms[len(w.rooms)-1]
	known := []register.Room{frozen, gone, {ID: "nowhere", Boot: 1}}
	n := w.settle(t, "own", newParty(), secret, func(c *Config) {
		c.Timeout = time.Hour // waited for only if a yes does not end the asking
		c.LastRooms = func() []register.Room { return append(known, yes) }
	})
	if !n.Elsewhere(t.Context()) {
		t.Error("got no, though one said yes")
	}
	m := w.settle(t, "other", newParty(), secret, func(c *Config) {
		c.Timeout = 200 * time.Millisecond
		c.LastRooms = func() []register.Room { return known }
	})
	if m.Elsewhere(t.Context()) {
		t.Error("got yes of rooms that do not answer")
	}
}

func TestElsewhere_AsksAFewHoweverManyThereAre(t *testing.T) {
	var all []register.Room
	for i := range 100 {
		all = append(all, register.Room{ID: push.RoomID(fmt.Sprintf("room%d", i)), Boot: 1})
	}
	n := &Node{cfg: Config{Room: "room7", LastRooms: func() []register.Room { return all }}}
	seen := make(map[push.RoomID]bool)
	for range 200 {
		some := n.lastOthers()
		if len(some) != mostAsked {
			t.Fatalf("got %d rooms, want %d", len(some), mostAsked)
		}
		for _, r := range some {
			seen[r.ID] = true
		}
	}
	if seen["room7"] || len(seen) < 90 {
		t.Errorf("%d different rooms were drawn in two hundred times, itself: %v", len(seen), seen["room7"])
	}
}
