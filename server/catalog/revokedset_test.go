package catalog

import (
	"fmt"
	"testing"

	"carillon/server/push"
)

func TestRevokedSet_DoesNotGrowWithWhatHasEnded(t *testing.T) {
	s := newRevokedSet()
	const life, n = 1000, 100_000
	for i := range n {
		now := push.MilliTime(i)
		s.apply([]Revocation{{
			Product: "shop", RevocationTarget: RevocationTarget{User: push.UserID(fmt.Sprint("u", i))},
			At: now, Until: now + life, Change: Change(i + 1),
		}}, now)
		if most := 2 * (life + sweepRevokedAfter); len(s.m) > most {
			t.Fatalf("%d are held of %d that have not ended, want at most %d", len(s.m), life, most)
		}
	}
	if s.find("shop", push.UserID(fmt.Sprint("u", n-1)), "phone", "", 0, n-1) == nil {
		t.Error("the last one is not found")
	}
	if s.find("shop", push.UserID(fmt.Sprint("u", n-1)), "phone", "", 0, n-1+life) != nil {
		t.Error("one that has ended still refuses")
	}
}

func BenchmarkRevokedSet(b *testing.B) {
	for _, n := range []int{0, 100, MaxRevocations} {
		s := newRevokedSet()
		for i := range n {
			s.apply([]Revocation{{
				Product: "shop", RevocationTarget: RevocationTarget{User: push.UserID(fmt.Sprint("user-", i))},
				At: 1, Until: 1 << 50, Change: Change(i + 1),
			}}, 1)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if s.find("shop", "alice", "phone", "3f1c2d", 5, 6) != nil {
					b.Fatal("found")
				}
			}
		})
	}
}
