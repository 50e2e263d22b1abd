package task

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"carillon/server/push"
)

// sum is what the parts of a funnel come to.
func (f *Funnel) sum() int64 {
	n := f.Waiting + f.InFlight + f.Acknowledged + f.Expired + f.Recalled + f.Unaccounted
	for _, d := range f.Dropped {
		n += d
	}
	return n
}

func TestFunnelOf(t *testing.T) {
	live, dead := Life{Room: "a", Boot: 1}, Life{Room: "a", Boot: 2}
	alive := func(l Life) bool { return l == live }
	none := map[string]int64{}
	for _, c := range []struct {
		name       string
		run        Run
		counts     map[Life]Counts
		fleeting   bool
		want       Funnel
		wantedSent int64
	}{
		{"nothing is written", Run{}, nil, false, Funnel{Exact: true, Dropped: none}, 0},
		{"half is on its way", Run{Devices: 10, Online: 6, Expires: 200}, map[Life]Counts{live: {Sent: 6, Returned: 1, Acknowledged: 2}}, false,
			Funnel{Audience: 10, Exact: true, Stored: 10, Online: 6, Waiting: 5, InFlight: 3, Acknowledged: 2, Dropped: none}, 5},
		{"who came later counts", Run{Devices: 1, Expires: 200}, map[Life]Counts{live: {Sent: 3, Acknowledged: 3, Displayed: 2, Clicked: 1}}, false,
			Funnel{Audience: 3, Exact: true, Stored: 1, Acknowledged: 3, Displayed: 2, Clicked: 1, Dropped: none}, 3},
		{"it expired", Run{Devices: 4, Expires: 100}, map[Life]Counts{live: {Sent: 1, Acknowledged: 1}}, false,
			Funnel{Audience: 4, Exact: true, Stored: 4, Acknowledged: 1, Expired: 3, Dropped: none}, 1},
		{"it was taken back", Run{Devices: 4, Expires: 100, Recalled: 50}, map[Life]Counts{live: {Sent: 2, Acknowledged: 1, Returned: 1}}, false,
			Funnel{Audience: 4, Exact: true, Stored: 4, Acknowledged: 1, Recalled: 3, Dropped: none}, 1},
		{"a room died", Run{Devices: 10, Expires: 200}, map[Life]Counts{live: {Sent: 1}, dead: {Sent: 5, Acknowledged: 1}}, false,
			Funnel{Audience: 10, Exact: true, Stored: 10, Waiting: 4, InFlight: 1, Acknowledged: 1, Unaccounted: 4, Dropped: none}, 2},
		{"a room died, and its devices were counted elsewhere", Run{Devices: 5, Expires: 200}, map[Life]Counts{live: {Sent: 4, Acknowledged: 4}, dead: {Sent: 5, Acknowledged: 1}}, false,
			Funnel{Audience: 5, Exact: true, Stored: 5, Acknowledged: 5, Dropped: none}, 5},
		{"it is not persistent", Run{Devices: 5, Online: 5}, map[Life]Counts{live: {Sent: 3, Returned: 2, Dropped: 1}, dead: {Sent: 1}}, true,
			Funnel{Audience: 5, Exact: true, Stored: 5, Online: 5, InFlight: 3, Dropped: map[string]int64{DroppedLimit: 1, DroppedOffline: 1}}, 3},
		{"it is for everyone", Run{Common: true, Devices: 7, Expires: 200}, nil, false, Funnel{Audience: 7, Stored: 7, Waiting: 7, Dropped: none}, 0},
	} {
		got := FunnelOf(&Task{Run: c.run}, c.counts, !c.fleeting, alive, 100)
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, c.want)
		}
		if got.sum() != got.Audience || got.Sent() != c.wantedSent {
			t.Errorf("%s: an audience of %d adds up to %d, %d sent, want %d", c.name, got.Audience, got.sum(), got.Sent(), c.wantedSent)
		}
	}
}

func TestFunnelOf_AddsUpWhateverWasCounted(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 1))
	for range 20_000 {
		run := Run{Devices: rng.Int64N(50), Common: rng.IntN(2) == 0, Expires: 50}
		if rng.IntN(3) == 0 {
			run.Recalled = 1
		}
		counts := make(map[Life]Counts)
		for i := range rng.IntN(4) {
			var c Counts
			c[Sent] = rng.Int64N(30)
			for k, left := Returned, c[Sent]; k <= Acknowledged; k++ {
				c[k] = rng.Int64N(left + 1)
				left -= c[k]
			}
			if rng.IntN(4) == 0 {
				c[Acknowledged] += rng.Int64N(5) // a room whose Sent is not handed over yet
			}
			counts[Life{Room: "r", Boot: 1 << i}] = c
		}
		f := FunnelOf(&Task{Run: run}, counts, rng.IntN(3) > 0, func(l Life) bool { return l.Boot < 4 }, push.MilliTime(rng.Int64N(100)))
		if f.sum() != f.Audience || f.Waiting < 0 || f.Unaccounted < 0 || f.InFlight < 0 || f.Expired < 0 || f.Recalled < 0 {
			t.Fatalf("%+v of %+v adds up to %d", f, counts, f.sum())
		}
	}
}
