package memory

import (
	"context"
	"sync"

	"carillon/server/push"
	"carillon/server/register"
)

// heldTags are the tags that a life told of. What does not count any more goes with it.
type heldTags struct {
	mu sync.RWMutex
	// Guarded by mu.
	told bool // all of them, once
	any  bool
	of   map[register.TagOf]struct{}
}

// TellTags notes which tags a room may hold.
func (r *Register) TellTags(ctx context.Context, room push.RoomID, boot push.BootID, news register.TagNews) error {
	if err := r.usable(ctx, "tell tags"); err != nil {
		return err
	}
	l := r.lives.Load().lifeOf(room, boot)
	if l == nil || !l.counts(r.now()) {
		return leaseLost("tell tags")
	}
	return l.tags.tell(&news)
}

func (h *heldTags) tell(news *register.TagNews) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if news.All {
		h.told, h.any, h.of = true, news.Any, nil
	} else if !h.told {
		return push.Errorf(push.KindConflict, register.CodeTagsLost, "register: tell tags: the room has not told all of them")
	}
	for _, t := range news.Remove {
		delete(h.of, t)
	}
	if h.of == nil && len(news.Add) > 0 {
		h.of = make(map[register.TagOf]struct{}, len(news.Add))
	}
	for _, t := range news.Add {
		h.of[t] = struct{}{}
	}
	return nil
}

// RoomsByTags returns the rooms whose lease holds and which of the tags each may hold. Its cost is one look at each room for each tag.
func (r *Register) RoomsByTags(ctx context.Context, p push.ProductID, tags []push.Tag) ([]register.RoomTags, error) {
	if err := r.usable(ctx, "rooms by tags"); err != nil {
		return nil, err
	}
	var rooms []register.RoomTags
	now := r.now()
	for _, l := range r.lives.Load().list {
		if l.counts(now) {
			rooms = append(rooms, l.tags.among(l.id, p, tags))
		}
	}
	return rooms, nil
}

func (h *heldTags) among(room push.RoomID, p push.ProductID, tags []push.Tag) register.RoomTags {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if !h.told || h.any {
		return register.RoomTags{Room: room, Any: true}
	}
	has := make([]bool, len(tags))
	for i, t := range tags {
		_, has[i] = h.of[register.TagOf{Product: p, Tag: t}]
	}
	return register.RoomTags{Room: room, Has: has}
}
