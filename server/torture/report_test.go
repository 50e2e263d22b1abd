package torture

import (
	"strings"
	"testing"
)

func TestReport_BoundsTheLossOnlyWhereNothingWasLost(t *testing.T) {
	for _, c := range []struct {
		accepted, lost int64
		want           string
	}{
		{3_000_000, 0, "lost:       0; fewer than one in 1000000, at 95 % confidence\n"},
		{8, 0, "lost:       0; fewer than one in 2, at 95 % confidence\n"},
		{2, 0, "lost:       0\n"},
		{3_000_000, 1, "lost:       1\n"},
	} {
		r := Report{Accepted: c.accepted, Lost: c.lost}
		if got := r.String(); !strings.Contains(got, c.want) {
			t.Errorf("%d accepted, %d lost: %q is not in\n%s", c.accepted, c.lost, c.want, got)
		}
	}
}
