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
}

// tags judges that each set is at rest what was answered last, or one that was asked for and never answered: that may have come
// about at any time.
func (c *checker) tags(records []Record) {
	asked := make(map[tagSet][]*tagged)
	for i := range records {
		r := &records[i]
		k := tagSet{r.Device, r.Set}
		switch r.Kind {
		case TagAsk:
			asked[k] = append(asked[k], &tagged{Record: *r})
		case TagAnswer:
			i := slices.IndexFunc(asked[k], func(t *tagged) bool { return t.Seq == r.Seq })
			if i < 0 {
				c.violate("tags", "an answer of %v at %v to what was never asked for", r.Device, r.At)
				continue
			}
			asked[k][i].ok, asked[k][i].done = true, r.At
		case TagRest:
			if !c.mayBe(asked[k], r.Tags) {
				c.violate("tags", "the tags of %v (%s) are %v at rest, which is not what was asked for last", r.Device, r.Set, r.Tags)
			}
		}
	}
}

// mayBe reports whether a set may be this one after all that was asked for.
func (c *checker) mayBe(asked []*tagged, tags []string) bool {
	var last *tagged
	for _, t := range asked {
		if t.ok && (last == nil || t.done >= last.done) {
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
