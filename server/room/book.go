package room

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"carillon/server/push"
	"carillon/server/saver"
)

// book maps users to the sessions of this room, by shard of the product. Sessions of a user are chained through
// session.nextOfUser, and found by a hash of the user, so that the map holds no names; the sessions of a shard lie in a
// slice, so that a fan-out copies pointers under the lock and works without it.
type book struct {
	seed maphash.Seed

	mu     sync.RWMutex
	shards map[saver.ShardRef]*bookShard
	order  []*bookShard // by creation; never shrinks, since there are few shards
}

type bookShard struct {
	ref    saver.ShardRef
	shards int // of the product
	seed   maphash.Seed
	n      uint32 // number of this shard in order: spreads shards over workers

	seenEvery atomic.Int64 // after how many nanoseconds a device that stays is noted as seen again

	// Guarded by mu.
	mu      sync.RWMutex
	users   map[uint64]*session // by hash: the chain of one user, or, rarely, of several
	all     []*session
	lineage push.Lineage // of the store, as the shard was seen last; 0: it was not

	// Owned by the shard's fan-out worker.
	plan []planItem // of the pass under way; empty between two

	// Owned by the sweep.
	after  uint64
	common push.Place
}

func newBook() *book {
	return &book{seed: maphash.MakeSeed(), shards: make(map[saver.ShardRef]*bookShard)}
}

// lookup returns the shard's part of the book, nil if no session was ever in it.
func (b *book) lookup(ref saver.ShardRef) *bookShard {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.shards[ref]
}

// shard returns the shard's part of the book, one of so many of its product.
func (b *book) shard(ref saver.ShardRef, shards int) *bookShard {
	if bs := b.lookup(ref); bs != nil {
		return bs
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	bs := b.shards[ref]
	if bs == nil {
		bs = &bookShard{ref: ref, shards: shards, seed: b.seed, n: uint32(len(b.order)), users: make(map[uint64]*session)}
		b.shards[ref] = bs
		b.order = append(b.order, bs)
	}
	return bs
}

// list returns all shards that ever held a session. The slice is not changed afterwards.
func (b *book) list() []*bookShard {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.order[:len(b.order):len(b.order)]
}

func (bs *bookShard) hash(u push.UserID) uint64 { return maphash.String(bs.seed, string(u)) }

func (bs *bookShard) add(s *session) {
	h := bs.hash(s.user())
	bs.mu.Lock()
	defer bs.mu.Unlock()
	s.nextOfUser = bs.users[h]
	bs.users[h] = s
	s.bookIndex = int32(len(bs.all))
	bs.all = append(bs.all, s)
}

func (bs *bookShard) remove(s *session) {
	h := bs.hash(s.user())
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if s.bookIndex < 0 {
		return
	}
	if first := bs.users[h]; first != s {
		for ; first.nextOfUser != s; first = first.nextOfUser {
		}
		first.nextOfUser = s.nextOfUser
	} else if s.nextOfUser != nil {
		bs.users[h] = s.nextOfUser
	} else {
		delete(bs.users, h)
	}
	s.nextOfUser = nil
	last := len(bs.all) - 1
	moved := bs.all[last]
	bs.all[s.bookIndex], moved.bookIndex = moved, s.bookIndex
	bs.all[last] = nil
	bs.all = bs.all[:last]
	s.bookIndex = -1
}

// appendUser appends the user's sessions to dst.
func (bs *bookShard) appendUser(dst []*session, u push.UserID) []*session {
	h := bs.hash(u)
	bs.mu.RLock()
	defer bs.mu.RUnlock()
	for s := bs.users[h]; s != nil; s = s.nextOfUser {
		if s.user() == u {
			dst = append(dst, s)
		}
	}
	return dst
}

// appendAll appends all sessions of the shard to dst.
func (bs *bookShard) appendAll(dst []*session) []*session {
	bs.mu.RLock()
	defer bs.mu.RUnlock()
	return append(dst, bs.all...)
}

// appendUsers appends every user of the shard, once, to dst.
func (bs *bookShard) appendUsers(dst []push.UserID) []push.UserID {
	bs.mu.RLock()
	defer bs.mu.RUnlock()
	for _, s := range bs.users {
		for from := len(dst); s != nil; s = s.nextOfUser {
			if !slices.Contains(dst[from:], s.user()) {
				dst = append(dst, s.user())
			}
		}
	}
	return dst
}

func (bs *bookShard) len() int {
	bs.mu.RLock()
	defer bs.mu.RUnlock()
	return len(bs.all)
}
