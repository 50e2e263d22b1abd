//go:build !race

// Under the race detector timers in a synctest bubble crash Go 1.26.8 itself, see server/gateway/virtual_test.go. So worlds are
// lived through on the plain binary, in a step of their own.

package simulation

import (
	"flag"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "simulate this seed alone, and print its events and its history")
	seedsFlag = flag.Uint64("seeds", 20, "how many seeds to simulate")
	firstFlag = flag.Uint64("first-seed", 1, "the first of them")
	procsFlag = flag.Int("processors", 1, "processors of a world: two of them show what depends on the order within a step")
)

// TestMain gives a world one processor and no garbage collection while it lives: then a goroutine runs until it blocks, and
// what two of them do in one step has an order too.
func TestMain(m *testing.M) {
	flag.Parse()
	runtime.GOMAXPROCS(*procsFlag)
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	os.Exit(m.Run())
}

func simulate(t *testing.T, seed uint64, trace io.Writer) (res Result) {
	t.Helper()
	// The bubble ends when every goroutine in it has, and fails the test if one cannot.
	synctest.Test(t, func(t *testing.T) {
		var err error
		if res, err = Simulate(seed, trace); err != nil {
			t.Fatal(err)
		}
	})
	runtime.GC()
	return res
}

// shown is how many violations of one seed are printed.
const shown = 8

func TestSimulation(t *testing.T) {
	first, n, trace := *firstFlag, *seedsFlag, io.Writer(nil)
	if *seedFlag != 0 {
		first, n, trace = *seedFlag, 1, os.Stdout
	}
	events, records := 0, 0
	for seed := first; seed < first+n; seed++ {
		res := simulate(t, seed, trace)
		events, records = events+res.Events, records+res.Records
		for i, v := range res.Violations {
			if i == shown {
				t.Errorf("seed %d: and %d more", seed, len(res.Violations)-shown)
				break
			}
			t.Errorf("seed %d: %v", seed, v)
		}
		if len(res.Violations) > 0 && trace == nil {
			t.Errorf("seed %d: to live through it again: go test ./server/simulation -run TestSimulation -seed %d -v", seed, seed)
		}
		if n <= 20 {
			t.Logf("seed %d: %d events, %d records, digest %s", seed, res.Events, res.Records, res.Digest)
		}
	}
	t.Logf("%d seeds from %d, %d events, %d records", n, first, events, records)
}

// Seeds beyond those of every run that broke the promise once.
func TestSimulation_SeedsThatFoundSomethingFindItNoMore(t *testing.T) {
	for _, seed := range []uint64{
		1270, // a device that a fallback had taken from the store held nothing back: see planted.DeviceForgotten
		353,  // what was sent right after a fallback was freed before such a device was opened again
	} {
		for _, v := range simulate(t, seed, nil).Violations {
			t.Errorf("seed %d: %v", seed, v)
		}
	}
}

func TestSimulation_ASeedIsLivedThroughTheSameWayTwice(t *testing.T) {
	for seed := *firstFlag; seed < *firstFlag+12; seed++ {
		const most = 4
		for n := 1; ; n++ {
			one, two := simulate(t, seed, nil), simulate(t, seed, nil)
			if one.Digest == two.Digest && one.Events == two.Events && one.Records > 0 {
				break
			}
			say := t.Logf
			if n == most || one.Interrupted+two.Interrupted == 0 {
				say = t.Errorf
			}
			say("seed %d: digests %s and %s, %d and %d events, %d and %d records, %d and %d steps interrupted", seed,
				one.Digest, two.Digest, one.Events, two.Events, one.Records, two.Records, one.Interrupted, two.Interrupted)
			if t.Failed() {
				return
			}
		}
	}
}

// A world that shows nothing proves nothing: over some seeds the script has to do everything that it can.
func TestSimulation_EveryActionIsTaken(t *testing.T) {
	taken := make(map[string]int)
	for seed := uint64(1); seed <= 60; seed++ {
		simulateNoting(t, seed, taken)
	}
	for _, a := range actions() {
		if taken[a.name] == 0 {
			t.Errorf("%q was never done in 60 seeds", a.name)
		}
	}
	for _, what := range passages {
		if taken[what] == 0 {
			t.Errorf("it never came to pass in 60 seeds that %s", what)
		}
	}
	for _, k := range kinds[:3] {
		if taken[string(k.Kind)] == 0 {
			t.Errorf("nobody connected by %s in 60 seeds", k.Kind)
		}
	}
	t.Logf("%v", taken)
}

func simulateNoting(t *testing.T, seed uint64, taken map[string]int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(seed, nil)
		w.taken = taken
		if _, err := w.live(); err != nil {
			t.Fatal(err)
		}
	})
	runtime.GC()
}
