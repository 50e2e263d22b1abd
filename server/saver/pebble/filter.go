package pebble

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// filter tells for certain which idempotency keys are not stored, of those that may have come since the store was
// opened: nearly every key is new, and a look into the database for each would cost as much as storing the message. It
// is a chain of Bloom filters, each twice as large as the one before. Methods are safe for concurrent use.
type filter struct {
	links atomic.Pointer[[]*bloom] // replaced as a whole, under mu
	mu    sync.Mutex
	room  atomic.Int64 // keys that still go into the last link
	full  atomic.Bool  // no more room: every key may be stored
}

const (
	bloomLine  = 8        // words of 64 bits: a key's bits lie in one line of the processor's cache
	bloomBits  = 10       // bits a key, of which four are set: 2 in 100 unknown keys look known
	bloomFirst = 64 << 10 // keys in the first link
	bloomMost  = 16 << 20 // keys in the last one, and as many again in those before: 40 MiB in all
)

// bloom is one link.
type bloom struct{ words []atomic.Uint64 }

func newFilter() *filter {
	f := &filter{}
	f.links.Store(&[]*bloom{})
	return f
}

// add notes a key by its hash.
func (f *filter) add(h uint64) {
	for f.room.Add(-1) < 0 {
		if !f.grow() {
			return
		}
	}
	links := *f.links.Load()
	if len(links) == 0 { // it filled up meanwhile
		return
	}
	line, set := links[len(links)-1].place(h)
	for i, w := range set {
		if w != 0 {
			line[i].Or(w)
		}
	}
}

// grow adds a link, unless somebody else just did. It reports whether there may be room now.
func (f *filter) grow() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full.Load() {
		return false
	}
	if f.room.Load() > 0 {
		return true
	}
	old := *f.links.Load()
	n := bloomFirst << len(old)
	if n > bloomMost {
		f.full.Store(true)
		f.links.Store(&[]*bloom{}) // of no more use
		return false
	}
	words := n * bloomBits / 64 / bloomLine * bloomLine
	links := append(old[:len(old):len(old)], &bloom{words: make([]atomic.Uint64, words)})
	f.links.Store(&links)
	f.room.Store(int64(n))
	return true
}

// mayHave reports whether a key may have been added; false is certain.
func (f *filter) mayHave(h uint64) bool {
	if f.full.Load() {
		return true
	}
	for _, b := range *f.links.Load() {
		line, set := b.place(h)
		hit := true
		for i, w := range set {
			if w != 0 && line[i].Load()&w != w {
				hit = false
				break
			}
		}
		if hit {
			return true
		}
	}
	return f.full.Load() // the links may have gone while they were walked
}

// place returns the line that a hash falls on, and the bits that it has there.
func (b *bloom) place(h uint64) (line []atomic.Uint64, set [bloomLine]uint64) {
	at, _ := bits.Mul64(h, uint64(len(b.words)/bloomLine))
	h *= 0x9e3779b97f4a7c15 // the high bits chose the line: mix them with the rest
	for range 4 {
		set[h>>61] |= 1 << (h >> 55 & 63)
		h = bits.RotateLeft64(h, 9)
	}
	return b.words[at*bloomLine : (at+1)*bloomLine], set
}
