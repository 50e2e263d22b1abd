package pebble

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sync"

	"carillon/server/embedded"
	"carillon/server/push"
)

// generations is the set of hours that keys of one space have, so that who looks for a key knows where to look. There
// is at most one for each hour of the longest time to live.
type generations struct {
	filtered bool // new hours get a filter
	mu       sync.RWMutex
	hours    []generation // guarded by mu; ascending; replaced as a whole
}

type generation struct {
	hour
	filter *filter // of everything in it; nil: anything may be in it
}

func compareHour(g generation, h hour) int { return cmp.Compare(g.hour, h) }

// loadGenerations finds the hours in use by skipping from one to the next. What they hold is not read: they have no
// filter.
func loadGenerations(db *embedded.DB, space byte, filtered bool) (*generations, error) {
	g := &generations{filtered: filtered}
	it, err := db.ScanPrefix(appendSpace(nil, space))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for ok := it.First(); ok; {
		if len(it.Key()) < 6 {
			return nil, push.Errorf(push.KindInternal, "corrupt_key", "a stored key is cut short")
		}
		h := hour(binary.BigEndian.Uint32(it.Key()[2:]))
		g.hours = append(g.hours, generation{hour: h})
		if h == 1<<32-1 {
			break
		}
		ok = it.SeekGE(appendHour(nil, space, h+1))
	}
	return g, it.Err()
}

// note makes sure that an hour is in the set, and returns it; called before its first key is written.
func (g *generations) note(h hour) generation {
	g.mu.RLock()
	i, found := slices.BinarySearchFunc(g.hours, h, compareHour)
	if found {
		defer g.mu.RUnlock()
		return g.hours[i]
	}
	g.mu.RUnlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if i, found = slices.BinarySearchFunc(g.hours, h, compareHour); !found {
		added := generation{hour: h}
		if g.filtered {
			added.filter = newFilter()
		}
		g.hours = slices.Insert(slices.Clone(g.hours), i, added)
	}
	return g.hours[i]
}

// from returns the hours in use that are not below least, ascending. The caller does not write into it.
func (g *generations) from(least hour) []generation {
	g.mu.RLock()
	defer g.mu.RUnlock()
	i, _ := slices.BinarySearchFunc(g.hours, least, compareHour)
	return g.hours[i:]
}

// dropBelow takes out the hours below one and reports whether there were any. A writer that noted one of them meanwhile
// wrote what is forgotten already.
func (g *generations) dropBelow(h hour) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i, _ := slices.BinarySearchFunc(g.hours, h, compareHour)
	g.hours = slices.Clone(g.hours[i:])
	return i > 0
}
