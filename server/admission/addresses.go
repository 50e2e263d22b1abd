package admission

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Address is whom limits by address concern: an IPv4 address, or the 64 bits of an IPv6 one that name a network, since
// everybody has as many of the others as they like. The zero value stands for no address: it is not limited.
type Address uint64

// ipv4 marks addresses of IPv4. No IPv6 network is numbered there: only 2000::/3 is handed out, and what is local is above fc00::.
const ipv4 = 1 << 63

// AddressOf returns the address of a connection, zero if a is invalid.
func AddressOf(a netip.Addr) Address {
	a = a.Unmap()
	switch {
	case a.Is4():
		b := a.As4()
		return Address(ipv4 | uint64(binary.BigEndian.Uint32(b[:])))
	case a.Is6():
		b := a.As16()
		return max(1, Address(binary.BigEndian.Uint64(b[:8]))) // ::1 is in the network of all zeros
	}
	return 0
}

// holders counts what each address holds. It is in parts, so that connections of different addresses seldom meet.
type holders struct {
	seed  maphash.Seed
	parts [64]holderPart
}

type holderPart struct {
	mu sync.Mutex
	n  map[Address]int32 // guarded by mu; never zero
}

func newHolders() *holders {
	h := &holders{seed: maphash.MakeSeed()}
	for i := range h.parts {
		h.parts[i].n = make(map[Address]int32)
	}
	return h
}

func (h *holders) part(a Address) *holderPart {
	return &h.parts[maphash.Comparable(h.seed, a)%uint64(len(h.parts))]
}

// enter counts one more for the address unless it has as many as it may.
func (h *holders) enter(a Address, most int) bool {
	p := h.part(a)
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(p.n[a]) >= most {
		return false
	}
	p.n[a]++
	return true
}

// add counts one more for the address however many it has.
func (h *holders) add(a Address) {
	p := h.part(a)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n[a]++
}

func (h *holders) leave(a Address) {
	p := h.part(a)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch n := p.n[a]; {
	case n == 1:
		delete(p.n, a)
	case n > 1:
		p.n[a] = n - 1
	}
}

// rates are token buckets by address, in a fixed amount of memory: each address shares two buckets with whoever else the
// hashes put there, and is refused only if both are empty. So strangers have to meet twice before one pays for another.
type rates struct {
	seeds [2]maphash.Seed
	rows  [2][]bucket

	// turns has those of one address take one after the other: between its two buckets another could take the last token of the one that
	// the first has yet to ask, and each would be let in by another bucket.
	turns [64]sync.Mutex
}

// rateBuckets is how many buckets a row has: 256 KiB.
const rateBuckets = 1 << 15

func newRates() *rates {
	r := &rates{}
	for i := range r.rows {
		r.seeds[i], r.rows[i] = maphash.MakeSeed(), make([]bucket, rateBuckets)
	}
	return r
}

func (r *rates) bucket(row int, a Address) *bucket {
	return &r.rows[row][maphash.Comparable(r.seeds[row], a)%rateBuckets]
}

// take takes a token of the address; if neither of its buckets has one, it returns in what time there is.
func (r *rates) take(a Address, p pace, now moment) (wait time.Duration, ok bool) {
	h := maphash.Comparable(r.seeds[0], a)
	turn := &r.turns[h%uint64(len(r.turns))]
	turn.Lock()
	defer turn.Unlock()
	first, ok := r.rows[0][h%rateBuckets].take(p, now)
	second, okToo := r.bucket(1, a).take(p, now)
	return min(first, second), ok || okToo
}

// isEmpty reports whether take would refuse.
func (r *rates) isEmpty(a Address, p pace, now moment) bool {
	return r.bucket(0, a).isEmpty(p, now) && r.bucket(1, a).isEmpty(p, now)
}
