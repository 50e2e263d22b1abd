package torture

import (
	"fmt"
	"slices"
	"time"

	"carillon/server/history"
)

// spell is the time of one fault, from when it was made until it was healed.
type spell struct {
	name     string
	from, to time.Duration
}

// Times are some durations, sorted.
type Times []time.Duration

func (t Times) String() string {
	if len(t) == 0 {
		return "none"
	}
	at := func(percent int) time.Duration { return t[(len(t)-1)*percent/100].Round(10 * time.Millisecond) }
	return fmt.Sprintf("%d: p50 %v, p99 %v, longest %v", len(t), at(50), at(99), at(100))
}

// pauses returns, for each spell, the longest time in it during which no publication was accepted; it may end after the spell.
func pauses(spells []spell, sent history.Seq) Times {
	var oks []time.Duration
	for r := range sent {
		if r.Kind == history.OK {
			oks = append(oks, r.At)
		}
	}
	slices.Sort(oks)
	out := make(Times, 0, len(spells))
	for _, s := range spells {
		longest, last := time.Duration(0), s.from
		i, _ := slices.BinarySearch(oks, s.from)
		for ; last < s.to && i < len(oks); i++ {
			longest, last = max(longest, oks[i]-last), oks[i]
		}
		out = append(out, max(longest, s.to-last))
	}
	slices.Sort(out)
	return out
}
