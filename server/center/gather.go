package center

import (
	"context"
	"slices"

	"carillon/server/catalog"
	"carillon/server/push"
	"carillon/server/saver"
)

// gatherAtOnce is how many users' tags and devices lie in memory at the same time while an audience is gathered.
const gatherAtOnce = 2048

// membership says when it is settled who belongs to an audience.
type membership uint8

const (
	unsaid     membership = iota // of a request: as the audience's size says
	atSend                       // by what users have when the message is sent
	atDelivery                   // by what a device has when it reads on
)

var membershipWords = []string{"at_send", "at_delivery"} // in the order of the constants

// settled is what became of a request's audience.
type settled struct {
	membership membership
	users      int // at_send: how many users; -1: not known any more
}

// settles reports whether it is to be found out if a request's audience is small.
func (q *request) settles() bool {
	return q.tags != nil && q.message.Persistent && q.membership != atDelivery
}

// gather finds who belongs to a small audience by tags now: users, sorted, and which of their devices. ok is false if the audience is
// larger than most, by the tags of which every device of it has one, or if only a look at everybody would tell. Round trips
// depend on the terms of the expression, and on users by the thousands.
func (c *Center) gather(ctx context.Context, product *catalog.Product, req *request, most int) (to []saver.Target, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.limits.StoreDeadline)
	defer cancel()
	users, ok, err := c.usersOf(ctx, product, req.tags, most)
	if err != nil || !ok {
		return nil, false, err
	}
	for part := range slices.Chunk(users, gatherAtOnce) {
		refs := make([]saver.UserRef, len(part))
		for i, u := range part {
			refs[i] = saver.UserRef{Product: product.ID, Shards: product.Shards, User: u}
		}
		kept, err := c.cfg.Saver.Tags(ctx, refs)
		if err != nil {
			return nil, false, err
		}
		devices, err := c.cfg.Saver.Devices(ctx, refs)
		if err != nil {
			return nil, false, err
		}
		for i, u := range part {
			if t, belongs := targetOf(u, req.filter(), &kept[i], devices[i]); belongs {
				to = append(to, t)
			}
		}
	}
	return to, true, nil
}

// usersOf returns the users who have the tags of which every device of an audience has one, sorted, each once, if they are at
// most so many.
func (c *Center) usersOf(ctx context.Context, product *catalog.Product, e *push.TagExpr, most int) (users []push.UserID, ok bool, err error) {
	strata, ok, err := c.strataOf(ctx, product, e)
	if err != nil || !ok || countOf(strata) > most {
		return nil, false, err
	}
	if slices.ContainsFunc(strata, func(s stratum) bool { return s.Count != len(s.Users) }) {
		var tags []push.Tag
		for i := range strata {
			tags = append(tags, strata[i].tag)
		}
		slices.Sort(tags)
		strata = nil
		for _, tag := range slices.Compact(tags) {
			shards, err := c.cfg.Saver.Tagged(ctx, product.ID, product.Shards, tag, most)
			if err != nil {
				return nil, false, err
			}
			for i := range shards {
				strata = append(strata, stratum{shards[i], tag})
			}
			if countOf(strata) > most { // there are more than a moment ago
				return nil, false, nil
			}
		}
	}
	for i := range strata {
		users = append(users, strata[i].Users...)
	}
	slices.Sort(users)
	return slices.Compact(users), true, nil
}

// targetOf returns what of a user an audience is for. If the user's own tags settle it, that is every device, also one that comes later, as
// for a user who is named; a user without any device belongs to it then, too. Otherwise it is the devices whose tags match. A device has to be
// of the platforms and classes at this moment as well as when it reads: so nobody is counted who could not get it.
func targetOf(u push.UserID, f *push.Filter, kept *saver.UserTags, devices []push.DeviceFacts) (t saver.Target, belongs bool) {
	t.User = u
	narrow := push.Filter{Platforms: f.Platforms, Classes: f.Classes}
	whole := f.Tags.Settled(push.TagsIn(kept.User)) == push.Meant
	tags := tagsNow{kept: kept}
	for _, d := range devices {
		if !f.Admits(d, tags.of(d.Device)) {
			continue
		}
		belongs = true
		if !whole {
			narrow.Devices = append(narrow.Devices, d.Device)
		}
	}
	if whole && len(devices) == 0 {
		belongs = true
	}
	if !narrow.IsZero() {
		t.Filter = &narrow
	}
	return t, belongs
}

// settle finds out who a request is for, where that is settled when it is sent, of at most so many users. A request that insists on
// that is refused if they are more.
func (c *Center) settle(ctx context.Context, product *catalog.Product, req *request, most int) (to []saver.Target, is settled, err error) {
	is.membership = atDelivery
	if !req.settles() {
		return nil, is, nil
	}
	to, ok, err := c.gather(ctx, product, req, most)
	switch {
	case err != nil:
		return nil, is, err
	case ok:
		return to, settled{atSend, len(to)}, nil
	case req.membership == atSend:
		return nil, is, push.Errorf(push.KindConflict, string(codeAudienceTooLarge),
			"more than %d users have the tags, or devices are meant for lacking some alone", most)
	}
	return nil, is, nil
}

// settledBefore returns how the audience of a message was settled that a repeat found. What is on record counts: tags may be others by now.
func (c *Center) settledBefore(ctx context.Context, product push.ProductID, id push.MsgID) (settled, error) {
	rec, err := c.cfg.Saver.Message(ctx, product, id)
	switch {
	case push.KindOf(err) == push.KindNotFound:
		return settled{atSend, -1}, nil // it is over, whoever it was for
	case err != nil:
		return settled{}, err
	case rec.Everyone:
		return settled{membership: atDelivery}, nil
	}
	return settled{atSend, len(rec.Own)}, nil
}
