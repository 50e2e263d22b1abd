package pebble

import (
	"math/rand/v2"
	"sync"
	"testing"
)

func TestFilter_KnowsWhatWasAdded(t *testing.T) {
	const adders, each = 4, 60_000 // several links
	f := newFilter()
	var wg sync.WaitGroup
	for a := range uint64(adders) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(a, 1))
			for range each {
				h := r.Uint64()
				f.add(h)
				if !f.mayHave(h) {
					t.Errorf("%x was added and is not known", h)
					return
				}
			}
		})
	}
	wg.Wait()
	for a := range uint64(adders) {
		r := rand.New(rand.NewPCG(a, 1))
		for range each {
			if h := r.Uint64(); !f.mayHave(h) {
				t.Fatalf("%x was added and is not known", h)
			}
		}
	}
	if len(*f.links.Load()) < 2 {
		t.Error("it never grew")
	}
	r, wrong := rand.New(rand.NewPCG(99, 99)), 0
	for range 100_000 {
		if f.mayHave(r.Uint64()) {
			wrong++
		}
	}
	if wrong > 10_000 || wrong == 0 {
		t.Errorf("%d of 100000 unknown keys look known", wrong)
	}
}

func TestFilter_WhenFullEveryKeyMayBeThere(t *testing.T) {
	f := newFilter()
	for i := 0; !f.full.Load(); i++ {
		if i > 64 {
			t.Fatal("it never fills up")
		}
		f.room.Store(0)
		f.add(uint64(i)) // takes a link each time
	}
	if !f.mayHave(12345) {
		t.Error("a full filter says that a key is not there")
	}
	f.add(1)
	if n := len(*f.links.Load()); n != 0 {
		t.Errorf("a full filter holds on to %d links", n)
	}
}
