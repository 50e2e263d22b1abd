//go:build planted

package planted

import (
	"slices"
	"testing"
)

func TestPlanted_OneBugAtATimeAndNoneThatIsNotListed(t *testing.T) {
	defer func() { _ = Choose(None) }()
	all := slices.Concat(All(), OfTasks(), OfRunners())
	for _, b := range all {
		if err := Choose(b); err != nil {
			t.Fatal(err)
		}
		for _, other := range all {
			if got := Is(other); got != (other == b) {
				t.Errorf("with %s chosen, %s is on: %v", b, other, got)
			}
		}
	}
	if err := Choose("no-such-bug"); err == nil {
		t.Error("a bug that is not listed was chosen")
	}
	bugs := len(all)
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != bugs {
		t.Errorf("%d names for %d bugs", n, bugs)
	}
}
