package center

import (
	"context"
	"slices"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/saver"
)

// deliveries groups what rooms are told of one message, one delivery a room. Rooms are as many as there are nodes, so a
// list is searched faster than a map.
type deliveries []roomDelivery

type roomDelivery struct {
	room push.RoomID
	*push.Delivery
}

// of returns the delivery of a room, a copy of like if there was none yet.
func (ds *deliveries) of(room push.RoomID, like *push.Delivery) *push.Delivery {
	for _, d := range *ds {
		if d.room == room {
			return d.Delivery
		}
	}
	d := *like
	*ds = append(*ds, roomDelivery{room, &d})
	return &d
}

func (c *Center) deliver(ds deliveries) {
	for _, d := range ds {
		c.metrics.delivered(d.Delivery)
		c.cfg.Rooms.Deliver(d.room, d.Delivery)
	}
}

// notifyStored tells the rooms that the store named of a message that was stored just now, and those in which nobody is meant of its
// places alone.
func (c *Center) notifyStored(product push.ProductID, p *saver.Publication, s *saver.Published, held *holders) {
	like := &push.Delivery{Product: product, Message: s.Message, Lineage: s.Lineage, Filter: p.Filter}
	var ds deliveries
	ds.addOwn(like, s.Own, func(i int) *push.Filter { return p.Own[i].Filter })
	ds.addCommon(like, s.Common)
	ds.withhold(held, p.Filter)
	c.deliver(ds)
}

// addOwn adds entries of own slots, each to the rooms that may hold readers of it.
func (ds *deliveries) addOwn(like *push.Delivery, own []saver.Placed, filter func(i int) *push.Filter) {
	for i := range own {
		for _, room := range own[i].Rooms {
			d := ds.of(room, like)
			d.Own = append(d.Own, push.OwnPlace{User: own[i].User, Place: own[i].Place, Filter: filter(i)})
		}
	}
}

// addCommon adds entries of common slots.
func (ds *deliveries) addCommon(like *push.Delivery, common []saver.Placed) {
	for i := range common {
		for _, room := range common[i].Rooms {
			d := ds.of(room, like)
			d.Common = append(d.Common, push.CommonPlace{Shard: common[i].Shard, Place: common[i].Place})
		}
	}
}

// findLive finds, for requests that are not persistent, the rooms of those online. They are asked for in one call, and
// before anything is stored, so that a request which cannot be delivered leaves no idempotency record behind. The
// result is as long as reqs, or nil if none needs it.
func (c *Center) findLive(ctx context.Context, p push.ProductID, reqs []*request, results []result) []deliveries {
	var users []push.UserID
	var exprs []*push.TagExpr
	live, everyone := false, false
	for i, req := range reqs {
		if req == nil || results[i].err != nil || req.message.Persistent {
			continue
		}
		live = true
		everyone = everyone || req.inCommon()
		if req.tags != nil {
			exprs = append(exprs, req.tags)
		}
		for _, t := range req.targets {
			users = append(users, t.User)
		}
	}
	if !live {
		return nil
	}
	rooms, err := c.roomsOf(ctx, p, users, everyone, asks(exprs))
	where := rooms.users
	found := make([]deliveries, len(reqs))
	for i, req := range reqs {
		if req == nil || results[i].err != nil || req.message.Persistent {
			continue
		}
		if err != nil {
			results[i].err = unavailable(codeRoomsUnavailable, err)
			continue
		}
		n := len(req.targets)
		if req.inCommon() {
			found[i] = rooms.ofAll(p, req)
			c.metrics.spared(len(rooms.all) - len(found[i]))
		} else {
			found[i] = ofUsers(p, req.targets, where[:n])
		}
		where = where[n:]
	}
	return found
}

// liveRooms is where those online are.
type liveRooms struct {
	users [][]register.Found // of each user in the order in which they were asked for
	all   []push.RoomID      // if somebody asked for everyone, or for tags
	held  *holders           // those among them that may hold who has tags; nil: all may
}

func (c *Center) roomsOf(
	ctx context.Context, p push.ProductID, users []push.UserID, everyone bool, tags []push.Tag,
) (l liveRooms, err error) {
	if len(tags) > 0 {
		if l.held, err = c.holdersOf(ctx, p, tags); err != nil {
			return l, err
		}
		for i := range l.held.rooms {
			l.all = append(l.all, l.held.rooms[i].Room)
		}
	} else if everyone {
		rooms, err := c.cfg.Register.Rooms(ctx)
		if err != nil {
			return l, err
		}
		for _, r := range rooms {
			l.all = append(l.all, r.ID)
		}
	}
	if len(users) > 0 {
		l.users, err = c.cfg.Register.Lookup(ctx, p, users)
	}
	return l, err
}

// ofAll returns the deliveries of a request to everyone or to tags, still without their message.
func (l *liveRooms) ofAll(p push.ProductID, req *request) deliveries {
	var ds deliveries
	for _, room := range l.all {
		if l.held.may(room, req.tags) {
			ds.of(room, &push.Delivery{Product: p, Everyone: true, Filter: req.filter()})
		}
	}
	return ds
}

// ofUsers returns the deliveries of a request to users, still without their message; found says of each where it is. A room stands in it once for
// each user, however many devices of that user it holds. Where several rooms hold some, each is told which it held: it may hear of it late, and hold
// by then a device that has got the message in another room.
func ofUsers(p push.ProductID, targets []saver.Target, found [][]register.Found) deliveries {
	var ds deliveries
	like := &push.Delivery{Product: p}
	for k, t := range targets {
		sessions := found[k]
		apart := inSeveralRooms(sessions)
		for i := range sessions {
			device := sessions[i].Device
			if apart && t.Filter != nil && len(t.Filter.Devices) > 0 && !slices.Contains(t.Filter.Devices, device) {
				continue
			}
			d := ds.of(sessions[i].Room, like)
			if n := len(d.Users); n == 0 || d.Users[n-1].User != t.User {
				u := push.UserFilter{User: t.User, Filter: t.Filter}
				if apart {
					u.Filter = t.Filter.ForDevices()
				}
				d.Users = append(d.Users, u)
			}
			if apart {
				f := d.Users[len(d.Users)-1].Filter
				at, _ := slices.BinarySearch(f.Devices, device)
				f.Devices = slices.Insert(f.Devices, at, device)
			}
		}
	}
	return ds
}

func inSeveralRooms(ss []register.Found) bool {
	for i := range ss {
		if ss[i].Room != ss[0].Room {
			return true
		}
	}
	return false
}

// deliverLive hands messages that are not persistent to the rooms that were found for them.
func (c *Center) deliverLive(p push.ProductID, reqs []*request, results []result, live []deliveries) {
	for i, ds := range live {
		if results[i].err != nil || results[i].repeated {
			continue
		}
		for _, d := range ds {
			d.Message = results[i].message
		}
		c.deliver(ds)
	}
}
