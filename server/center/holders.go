package center

import (
	"context"
	"slices"
	"time"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/saver"
)

// A message to tags goes, with what it says, to the rooms that may hold somebody who is meant. The others are told where its entries lie
// if it is stored, and nothing if it is not. Which is which the register says, once it is stored: whoever gets the tags later than that
// reads the entry in the slot. So what the register says may be stale either way, and costs a message that nobody needs or a read.

const (
	askHolders = time.Second // is as long as an answer is waited for
	maxAsked   = 1024        // tags in one question; all rooms may hold the others
)

// holders are rooms with the tags that their sessions may have. nil: nobody knows.
type holders struct {
	asked []push.Tag // sorted
	rooms []register.RoomTags
}

// asks returns the tags on which it depends whether a room may hold somebody whom one of these expressions means, sorted. Where somebody
// without any tag is meant, it depends on none.
func asks(exprs []*push.TagExpr) (tags []push.Tag) {
	for _, e := range exprs {
		if !e.MayMatch(func(push.Tag) bool { return false }) {
			tags = e.AppendAsked(tags)
		}
	}
	slices.Sort(tags)
	tags = slices.Compact(tags)
	return tags[:min(len(tags), maxAsked)]
}

// may reports whether a room may hold somebody whom the expression means.
func (h *holders) may(room push.RoomID, e *push.TagExpr) bool {
	if h == nil || e == nil {
		return true
	}
	i := slices.IndexFunc(h.rooms, func(r register.RoomTags) bool { return r.Room == room })
	if i < 0 || h.rooms[i].Any {
		return true
	}
	return e.MayMatch(func(t push.Tag) bool {
		k, asked := slices.BinarySearch(h.asked, t)
		return !asked || h.rooms[i].Has[k]
	})
}

// holdersOf asks the register about tags.
func (c *Center) holdersOf(ctx context.Context, p push.ProductID, tags []push.Tag) (*holders, error) {
	rooms, err := c.cfg.Register.RoomsByTags(ctx, p, tags)
	if err != nil {
		return nil, err
	}
	return &holders{asked: tags, rooms: rooms}, nil
}

// holdersOfStored asks about those to tags among publications that were stored just now, all at once. Where the register does not answer,
// all rooms are told all.
func (c *Center) holdersOfStored(ctx context.Context, p push.ProductID, ps []*saver.Publication, stored []*saver.Published) *holders {
	var exprs []*push.TagExpr
	for i, s := range stored {
		if s != nil && s.Err == nil && !s.Repeated && ps[i].Filter != nil && ps[i].Filter.Tags != nil && len(s.Common) > 0 {
			exprs = append(exprs, ps[i].Filter.Tags)
		}
	}
	tags := asks(exprs)
	if len(tags) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askHolders)
	defer cancel()
	h, err := c.holdersOf(ctx, p, tags)
	if err != nil {
		c.cfg.Log.Warn("which rooms hold tags could not be asked; all are told all", "product", string(p), "err", err)
	}
	return h
}

// withhold takes the message out of what rooms are told in which nobody is meant.
func (ds deliveries) withhold(h *holders, f *push.Filter) {
	if h == nil || f == nil {
		return
	}
	for _, d := range ds {
		if len(d.Own) == 0 && !h.may(d.room, f.Tags) {
			d.Message = nil
		}
	}
}
