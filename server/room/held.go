package room

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/register"
)

// heldTags counts the tags of the room's sessions and tells the register of them, so that what is for tags that nobody has here is not sent
// here.
//
// A tag is told before a session has it: whoever is about to give tags to a session holds them first, and lets go once the session
// counts. What several wait for is told in one call, and a tag that is told costs the next one a look into a map. A tag that nobody has
// any more is taken back later, with others. Sessions without tags never come here.
type heldTags struct {
	// Static after construction.
	reg   register.Register
	room  push.RoomID
	boot  push.BootID
	most  int // with more different ones the room may hold any
	gauge prometheus.Gauge

	telling chan struct{} // holds a token while somebody tells; never closed

	// Guarded by mu.
	mu     sync.Mutex
	of     map[register.TagOf]*heldTag
	unsaid []register.TagOf // queued, and not being told yet
	unheld []register.TagOf // idle
	all    bool             // all has to be told
	any    bool             // it was told that the room may hold any
	life   int              // how often the register was joined
	asked  moment           // when keep did something the last time
}

// heldTag is a tag that somebody has, or had a while ago.
type heldTag struct {
	n      int  // how often sessions have it, and those who hold it for one
	told   bool // the register knows it
	queued bool // it is in unsaid, or being told
	idle   bool // it is in unheld
}

// keepTagsEvery is how often tags that nobody has any more are taken back, and the register is asked whether it has the others.
const keepTagsEvery = 30 * time.Second

func newHeldTags(cfg *Config) *heldTags {
	return &heldTags{
		reg: cfg.Register, room: cfg.ID, boot: cfg.Boot, most: cfg.HeldTags, gauge: cfg.Metrics.tags,
		telling: make(chan struct{}, 1), of: make(map[register.TagOf]*heldTag), all: true,
	}
}

// count notes that a session has these tags from now on (1), or not any more (-1).
func (h *heldTags) count(p push.ProductID, by int, lists ...[]push.Tag) {
	if noTags(lists) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.countLocked(p, by, lists)
}

func noTags(lists [][]push.Tag) bool {
	for _, tags := range lists {
		if len(tags) > 0 {
			return false
		}
	}
	return true
}

// countLocked reports whether the register knows all of them.
func (h *heldTags) countLocked(p push.ProductID, by int, lists [][]push.Tag) (known bool) {
	known = true
	for _, tags := range lists {
		for _, t := range tags {
			known = h.countOneLocked(register.TagOf{Product: p, Tag: t}, by) && known
		}
	}
	return known
}

func (h *heldTags) countOneLocked(k register.TagOf, by int) (known bool) {
	e := h.of[k]
	if e == nil {
		e = &heldTag{}
		k.Tag = push.Tag(strings.Clone(string(k.Tag))) // the session's may be part of something larger
		h.of[k] = e
	}
	e.n += by
	switch {
	case e.n > 0 && !e.told && !e.queued && !h.any:
		e.queued = true
		h.unsaid = append(h.unsaid, k)
	case e.n == 0:
		h.dropLocked(k, e)
	}
	return e.told
}

// dropLocked forgets a tag that nobody has, or has it taken back if the register knows it.
func (h *heldTags) dropLocked(k register.TagOf, e *heldTag) {
	switch {
	case e.queued:
	case !e.told:
		delete(h.of, k)
	case !e.idle:
		e.idle = true
		h.unheld = append(h.unheld, k)
	}
}

// hold returns once the register knows these tags, and keeps them there until release is called. After an error they are not held.
func (h *heldTags) hold(ctx context.Context, p push.ProductID, lists ...[]push.Tag) (release func(), err error) {
	if noTags(lists) {
		return func() {}, nil
	}
	return h.holdSome(ctx, p, slices.Clone(lists)) // so that for most nothing is allocated
}

func (h *heldTags) holdSome(ctx context.Context, p push.ProductID, lists [][]push.Tag) (release func(), err error) {
	h.mu.Lock()
	known := h.countLocked(p, 1, lists)
	known = (known || h.any) && !h.all
	h.mu.Unlock()
	if !known {
		err = h.tell(ctx, false)
	}
	if err != nil {
		h.count(p, -1, lists...)
		return nil, err
	}
	return func() { h.count(p, -1, lists...) }, nil
}

// forget notes that the register was joined anew, and was told nothing since. Until it is, it takes the room for one that may hold any tag.
func (h *heldTags) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = true
	h.life++
}

// keep takes back what nobody has any more and asks whether the rest is still known, now and then; and tells all if that has to be.
func (h *heldTags) keep(ctx context.Context, now moment) error {
	h.mu.Lock()
	due := h.all || now >= h.asked.add(keepTagsEvery)
	if due {
		h.asked = now
	}
	h.mu.Unlock()
	if !due {
		return nil
	}
	return h.tell(ctx, true)
}

// tell tells the register what is new, after whoever is telling it something.
func (h *heldTags) tell(ctx context.Context, tidy bool) error {
	select {
	case h.telling <- struct{}{}:
		defer func() { <-h.telling }()
	case <-ctx.Done():
		return &push.Error{Kind: push.KindUnavailable, Code: "register_unavailable", Detail: "the register is slow", Err: ctx.Err()}
	}
	for {
		news, life, some := h.news(tidy)
		if !some {
			return nil
		}
		told := news
		if planted.Is(planted.TagsUntold) {
			told.Add = nil
		}
		err := h.reg.TellTags(ctx, h.room, h.boot, told)
		h.settle(&news, life, err)
		var e *push.Error
		switch {
		case err == nil:
			return nil
		case errors.As(err, &e) && e.Code == register.CodeTagsLost && !news.All:
			// All of it, then.
		case errors.As(err, &e) && e.Code == "lease_lost":
			// The room counts for nobody, and when it has joined again it may hold any tag until it has told all.
			return nil
		default:
			return err
		}
	}
}

// news returns what the register is to be told; some is false if that is nothing.
func (h *heldTags) news(tidy bool) (news register.TagNews, life int, some bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.all, !h.any && len(h.of) > h.most, h.any && tidy && len(h.of) < h.most-h.most/10:
		return h.allLocked(), h.life, true
	}
	for _, k := range h.unsaid {
		if e := h.of[k]; e.n > 0 {
			news.Add = append(news.Add, k)
		} else {
			e.queued = false
			h.dropLocked(k, e)
		}
	}
	h.unsaid = nil
	if !tidy {
		return news, h.life, len(news.Add) > 0
	}
	for _, k := range h.unheld {
		e := h.of[k]
		e.idle = false
		if e.n == 0 {
			news.Remove = append(news.Remove, k)
			delete(h.of, k) // whoever comes with it from here on tells it behind this
		}
	}
	h.unheld = nil
	return news, h.life, true
}

// allLocked returns all tags that somebody has, or that there are too many.
func (h *heldTags) allLocked() register.TagNews {
	news := register.TagNews{All: true}
	h.unsaid, h.unheld = nil, nil
	for k, e := range h.of {
		if e.n == 0 {
			delete(h.of, k)
		}
		*e = heldTag{n: e.n}
	}
	if news.Any = len(h.of) > h.most; news.Any {
		return news
	}
	news.Add = make([]register.TagOf, 0, len(h.of))
	for k, e := range h.of {
		e.queued = true
		news.Add = append(news.Add, k)
	}
	return news
}

// settle notes what became of news.
func (h *heldTags) settle(news *register.TagNews, life int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil || life != h.life {
		h.all = true
	} else if news.All {
		h.all, h.any = false, news.Any
	}
	for _, k := range news.Add {
		e := h.of[k]
		e.queued, e.told = false, true
		if e.n == 0 {
			h.dropLocked(k, e)
		}
	}
	h.gauge.Set(float64(len(h.of)))
}
