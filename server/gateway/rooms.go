package gateway

import (
	"context"

	"carillon/server/push"
	"carillon/server/room"
)

// rooms is push.Rooms for a node that is alone: its own room is the only one.
type rooms struct{ room *room.Room }

func (r rooms) Deliver(_ push.RoomID, d *push.Delivery) { r.room.Deliver(d) }

func (r rooms) Sessions(_ context.Context, p push.ProductID, u push.UserID) ([]push.LiveSession, error) {
	return r.room.Sessions(p, u), nil
}

func (r rooms) End(_ context.Context, p push.ProductID, u push.UserID, d push.DeviceID) error {
	r.room.End(p, u, d)
	return nil
}

func (r rooms) Kick(ctx context.Context, p push.ProductID, u push.UserID, k push.Kick) (push.Kicked, error) {
	n, err := r.room.Kick(ctx, p, u, k)
	return push.Kicked{Sessions: n}, err
}

func (r rooms) Retag(ctx context.Context, p push.ProductID, users []push.UserID) error {
	return r.room.Retag(ctx, p, users)
}
