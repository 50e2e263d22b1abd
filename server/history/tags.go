package history

import (
	"slices"
	"time"
)

// tagSet is one set of tags: a user's (without a device), one device's of the product's server, or one that its client joined.
type tagSet struct {
	of   Device
	name string
}

// tagged is one set as it was asked for.
type tagged struct {
	Record
	ok   bool
	done time.Duration // when it was answered last
	turn int           // of that answer among all: two may come at one moment
}

// tagTurn is one change that was asked for of a set.
type tagTurn struct {
	set tagSet
	seq int
}

// noteTags notes what was asked for of a set of tags, or answered. turns are those that were asked for so far.
func (c *checker) noteTags(turns map[tagTurn]*tagged, r *Record) {
	k := tagSet{r.Device, r.Set}
	if r.Kind == TagAsk {
		t := &tagged{Record: *r}
		if c.asked[k] == nil {
			c.sets[k.of] = append(c.sets[k.of], k)
		}
		c.asked[k] = append(c.asked[k], t)
		if turn := (tagTurn{k, r.Seq}); turns[turn] == nil { // a repetition asks for the same
			turns[turn] = t
		}
		return
	}
	t := turns[tagTurn{k, r.Seq}]
	if t == nil {
		c.violate("tags", "an answer of %v at %v to what was never asked for", r.Device, r.At)
		return
	}
	c.answers++
	t.ok, t.done, t.turn = true, r.At, c.answers
}

// tagsAtRest judges that a set is at rest what was answered last, or one that was asked for and never answered: that may have
// come about at any time.
func (c *checker) tagsAtRest(r *Record) {
	if !c.mayBe(c.asked[tagSet{r.Device, r.Set}], r.Tags) {
		c.violate("tags", "the tags of %v (%s) are %v at rest, which is not what was asked for last", r.Device, r.Set, r.Tags)
	}
}

// mayBe reports whether a set may be this one after all that was asked for.
func (c *checker) mayBe(asked []*tagged, tags []string) bool {
	var last *tagged
	for _, t := range asked {
		if t.ok && (last == nil || t.turn > last.turn) {
			last = t
		}
	}
	if last == nil && len(tags) == 0 {
		return true
	}
	// A store that fell back may hold what was there before any of them.
	fell := last != nil && slices.ContainsFunc(c.losses, func(l Record) bool { return l.Product == "" && l.At >= last.At && l.Since <= last.done })
	if fell && len(tags) == 0 {
		return true
	}
	return slices.ContainsFunc(asked, func(t *tagged) bool {
		return (t == last || !t.ok || fell) && slices.Equal(t.Tags, tags)
	})
}

// sureness is what is known of something: it was so all the time, at no time, or perhaps at some.
type sureness uint8

const (
	no sureness = iota
	perhaps
	yes
)

// has tells whether a device had the tags of an audience between two moments.
func (h *Having) has(tag func(string) sureness) sureness {
	all := yes
	for _, t := range h.All {
		all = min(all, tag(t))
	}
	for _, t := range h.Not {
		all = min(all, yes-tag(t))
	}
	some := no
	for _, t := range h.Any {
		some = max(some, tag(t))
	}
	if len(h.Any) == 0 {
		some = yes
	}
	return min(all, some)
}

// had tells whether a device belonged to an audience by tags between two moments; yes if it is none by tags.
func (c *checker) had(d Device, h *Having, from, to time.Duration) sureness {
	if h == nil {
		return yes
	}
	var sets [][][]string // for each set of tags, what it may have been
	user := d
	user.Device = ""
	for _, of := range [...]Device{d, user} {
		for _, k := range c.sets[of] {
			sets = append(sets, c.between(c.asked[k], from, to))
		}
	}
	return h.has(func(tag string) sureness {
		known := no
		for _, set := range sets {
			with := 0
			for _, tags := range set {
				if slices.Contains(tags, tag) {
					with++
				}
			}
			switch {
			case with == len(set):
				return yes
			case with > 0:
				known = perhaps
			}
		}
		return known
	})
}

// between returns everything that a set may have been between two moments: what was answered last before, what was under way at the same
// time as that or later, and what was asked for and never answered. If the store fell back, anything that was asked for before.
func (c *checker) between(asked []*tagged, from, to time.Duration) (may [][]string) {
	var last *tagged
	for _, t := range asked {
		if t.ok && t.done <= from && (last == nil || t.turn > last.turn) {
			last = t
		}
	}
	fell := slices.ContainsFunc(c.losses, func(l Record) bool { return l.Product == "" && l.from() <= to })
	if last == nil || fell {
		may = append(may, nil)
	}
	for _, t := range asked {
		if t.At <= to && (t == last || !t.ok || fell || last == nil || t.done >= last.At) {
			may = append(may, t.Tags)
		}
	}
	return may
}
