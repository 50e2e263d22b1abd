package swarm

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestLatency_QuantilesAreWithinAThirtySecond(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var parts [3]Latency
	var all []int64
	for i := range 10_000 {
		d := int64(rnd.ExpFloat64() * float64(20*time.Millisecond))
		all = append(all, d)
		parts[i%3].Add(time.Duration(d))
	}
	var l Latency
	for _, p := range parts {
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var read Latency
		if err := json.Unmarshal(b, &read); err != nil {
			t.Fatal(err)
		}
		l.Merge(read)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[int(q*float64(len(all)-1))]
		got := int64(l.Quantile(q))
		if got < want || got > want+want/31+latencyUnit {
			t.Errorf("quantile %v: got %v, want %v or a little more", q, time.Duration(got), time.Duration(want))
		}
	}
	if l.N != 10_000 || l.Most != all[len(all)-1] {
		t.Errorf("%d times, the longest %v", l.N, l.Most)
	}
}

func TestLatency_ClassesFollowEachOther(t *testing.T) {
	last := -1
	for d := int64(0); d < int64(time.Minute); d += 1 + d/200 {
		c := classOf(d)
		if c != last && c != last+1 {
			t.Fatalf("%v is in class %d, behind class %d", time.Duration(d), c, last)
		}
		if d >= upper(c) || c > 0 && d < upper(c-1) {
			t.Fatalf("%v is not in class %d, up to %v", time.Duration(d), c, time.Duration(upper(c)))
		}
		last = c
	}
	if classOf(-5) != 0 {
		t.Error("a negative time has no class")
	}
}

func TestLatency_EmptyHasNoQuantile(t *testing.T) {
	var l Latency
	if l.Quantile(0.5) != 0 {
		t.Error("nothing has a median")
	}
}
