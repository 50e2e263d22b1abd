package node

import (
	"context"
	"encoding/json"
	"io"
	"sync"

	"carillon/server/nextversion"
	"carillon/server/push"
	"carillon/server/register"
)

// ask makes a call to a room, the local one or another, and returns its answer.
func (n *Node) ask(ctx context.Context, to register.Room, c *call) (a answer, err error) {
	if n.cfg.Room != "" && to.ID == n.cfg.Room {
		return n.obey(ctx, c)
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	defer cancel()
	body, err := json.Marshal(c)
	if err != nil {
		return a, &push.Error{Kind: push.KindInternal, Code: "bad_call", Err: err}
	}
	resp, err := n.post(ctx, to, "call", "application/json", nextversion.Object(body))
	if err != nil {
		n.m.failed.Inc()
		return a, err
	}
	defer resp.Close()
	if err := json.NewDecoder(io.LimitReader(resp, maxCall)).Decode(&a); err != nil {
		n.m.failed.Inc()
		return a, &push.Error{Kind: push.KindUnavailable, Code: "room_refused", Err: err}
	}
	return a, nil
}

// heard is what one room answered.
type heard struct {
	answer
	err error
}

// askAll asks every room whose lease holds at once, and returns what each answered.
func (n *Node) askAll(ctx context.Context, c *call) ([]heard, error) {
	rooms, err := n.cfg.Register.Rooms(ctx)
	if err != nil {
		return nil, err
	}
	return n.askEach(ctx, rooms, c), nil
}

func (n *Node) askEach(ctx context.Context, rooms []register.Room, c *call) []heard {
	out := make([]heard, len(rooms))
	var wg sync.WaitGroup
	for i, r := range rooms {
		wg.Go(func() { out[i].answer, out[i].err = n.ask(ctx, r, c) })
	}
	wg.Wait()
	return out
}

// holders returns the rooms that hold sessions of a user, as the register knows.
func (n *Node) holders(ctx context.Context, p push.ProductID, u push.UserID) ([]register.Room, error) {
	found, err := n.cfg.Register.Lookup(ctx, p, []push.UserID{u})
	if err != nil {
		return nil, err
	}
	rooms, err := n.cfg.Register.Rooms(ctx)
	if err != nil {
		return nil, err
	}
	var out []register.Room
	for _, r := range rooms {
		for i := range found[0] {
			if found[0][i].Room == r.ID {
				out = append(out, r)
				break
			}
		}
	}
	return out, nil
}

// Sessions asks the rooms that hold the user. One that does not answer is left out.
func (n *Node) Sessions(ctx context.Context, p push.ProductID, u push.UserID) ([]push.LiveSession, error) {
	rooms, err := n.holders(ctx, p, u)
	if err != nil {
		return nil, err
	}
	var all []push.LiveSession
	for _, h := range n.askEach(ctx, rooms, &call{Sessions: &userCall{Product: p, User: u}}) {
		all = append(all, h.Sessions...)
	}
	return all, nil
}

// End asks every room, since the device may be connecting, and fails only if the register does.
func (n *Node) End(ctx context.Context, p push.ProductID, u push.UserID, d push.DeviceID) error {
	_, err := n.askAll(ctx, &call{End: &userCall{Product: p, User: u, Device: d}})
	return err
}

// Kick writes the kick down, so that every room finds it, and asks all of them at once. If one does not answer, Kicked says when it will
// have obeyed: at its next renewal, or else it has been silent for so long that it may not write any more.
func (n *Node) Kick(ctx context.Context, p push.ProductID, u push.UserID, k push.Kick) (push.Kicked, error) {
	number, certain, err := n.note(ctx, Notice{Kick: &KickNotice{p, u, k}})
	if err != nil {
		return push.Kicked{}, err
	}
	all, err := n.askAll(ctx, &call{Kick: &kickCall{p, u, k, number}})
	if err != nil {
		return push.Kicked{}, err
	}
	var out push.Kicked
	for _, h := range all {
		out.Sessions += h.Ended
		if h.err != nil {
			out.Certain = certain
		}
	}
	return out, nil
}

// Retag writes down that users' tags changed, and asks all rooms. It fails if one of them does not answer: that one learns it with its next
// renewal, and the caller may repeat.
func (n *Node) Retag(ctx context.Context, p push.ProductID, users []push.UserID) error {
	if _, _, err := n.note(ctx, Notice{Retag: &RetagNotice{p, users}}); err != nil {
		return err
	}
	all, err := n.askAll(ctx, &call{Retag: &retagCall{p, users}})
	if err != nil {
		return err
	}
	for _, h := range all {
		if h.err != nil {
			return h.err
		}
	}
	return nil
}

// Evict gives an order to another room at once. It does not wait; the order comes with that room's next renewal all the same.
func (n *Node) Evict(room push.RoomID, o register.Order) {
	n.goes(func() {
		ctx, cancel := context.WithTimeout(n.life, n.cfg.Timeout)
		defer cancel()
		if to, err := n.find(ctx, room); err == nil {
			_, _ = n.ask(ctx, to, &call{Evict: &o}) // counted there
		}
	})
}
