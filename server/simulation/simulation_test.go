//go:build !race

package simulation

import (
	"flag"
	"io"
	"os"
	"testing"
	"testing/synctest"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "simulate this seed alone, and print its events")
	seedsFlag = flag.Uint64("seeds", 0, "how many seeds to simulate")
	firstFlag = flag.Uint64("first-seed", 1, "the first of them")
)

func simulate(t *testing.T, seed uint64, trace io.Writer) (res Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var err error
		if res, err = Simulate(seed, trace); err != nil {
			t.Fatal(err)
		}
	})
	return res
}

func TestSimulation(t *testing.T) {
	if *seedFlag != 0 {
		res := simulate(t, *seedFlag, os.Stdout)
		t.Logf("%d events, %d records, digest %s", res.Events, res.Records, res.Digest)
		for _, v := range res.Violations {
			t.Error(v)
		}
		return
	}
	n := *seedsFlag
	if n == 0 {
		n = 20
	}
	for seed := *firstFlag; seed < *firstFlag+n; seed++ {
		res := simulate(t, seed, nil)
		t.Logf("seed %d: %d events, %d records, digest %s", seed, res.Events, res.Records, res.Digest)
		for i, v := range res.Violations {
			if i < 8 {
				t.Errorf("seed %d: %v", seed, v)
			}
		}
	}
}
