package node

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"carillon/server/register"
)

// mostAsked is how many other rooms are asked at once. When the store is away for everybody, every room asks, so a room asks some that it
// draws anew each time, and what it costs does not grow with the cluster.
const mostAsked = 8

// Elsewhere asks other rooms whether they hold their leases, and reports whether one says so. It asks at the addresses that were known last,
// and needs no store. A room that does not answer, or is of a version without that question, says nothing.
func (n *Node) Elsewhere(ctx context.Context) bool {
	rooms := n.lastOthers()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var yes atomic.Bool
	var asking sync.WaitGroup
	for _, r := range rooms {
		asking.Go(func() {
			if a, err := n.ask(ctx, r, &call{Alive: &aliveCall{}}); err == nil && a.Alive {
				yes.Store(true)
				cancel() // one is enough
			}
		})
	}
	asking.Wait()
	return yes.Load()
}

// lastOthers draws some rooms of other nodes, of those that were known last.
func (n *Node) lastOthers() []register.Room {
	if n.cfg.LastRooms == nil {
		return nil
	}
	var others []register.Room
	for _, r := range n.cfg.LastRooms() {
		if r.ID != n.cfg.Room {
			others = append(others, r)
		}
	}
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	return others[:min(len(others), mostAsked)]
}
