package room

import (
	"sync"

	"carillon/server/push"
	"carillon/server/saver"
)

// book maps users to the sessions of this room, by shard of the product. Sessions of a user are chained through
// session.nextOfUser; the sessions of a shard lie in a slice, so that a fan-out copies pointers under the lock and works
// without it.
type book struct {
	mu     sync.RWMutex
	shards map[saver.ShardRef]*bookShard
	order  []*bookShard // by creation; never shrinks, since there are few shards
}

type bookShard struct {
	ref saver.ShardRef
	n   uint32 // number of this shard in order: spreads shards over workers

	// Guarded by mu.
	mu    sync.RWMutex
	users map[push.UserID]*session
	all   []*session

	// Owned by the sweep.
	after  uint64
	common push.Place
}

func newBook() *book { return &book{shards: make(map[saver.ShardRef]*bookShard)} }

// lookup returns the shard's part of the book, nil if no session was ever in it.
func (b *book) lookup(ref saver.ShardRef) *bookShard {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.shards[ref]
}

func (b *book) shard(ref saver.ShardRef) *bookShard {
	if bs := b.lookup(ref); bs != nil {
		return bs
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	bs := b.shards[ref]
	if bs == nil {
		bs = &bookShard{ref: ref, n: uint32(len(b.order)), users: make(map[push.UserID]*session)}
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

func (bs *bookShard) add(s *session) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	s.nextOfUser = bs.users[s.key.User]
	bs.users[s.key.User] = s
	s.bookIndex = len(bs.all)
	bs.all = append(bs.all, s)
}

func (bs *bookShard) remove(s *session) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if s.bookIndex < 0 {
		return
	}
	if first := bs.users[s.key.User]; first != s {
		for ; first.nextOfUser != s; first = first.nextOfUser {
		}
		first.nextOfUser = s.nextOfUser
	} else if s.nextOfUser != nil {
		bs.users[s.key.User] = s.nextOfUser
	} else {
		delete(bs.users, s.key.User)
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
	bs.mu.RLock()
	defer bs.mu.RUnlock()
	for s := bs.users[u]; s != nil; s = s.nextOfUser {
		dst = append(dst, s)
	}
	return dst
}

// appendAll appends all sessions of the shard to dst.
func (bs *bookShard) appendAll(dst []*session) []*session {
	bs.mu.RLock()
	defer bs.mu.RUnlock()
	return append(dst, bs.all...)
}

func (bs *bookShard) appendUsers(dst []push.UserID) []push.UserID {
	bs.mu.RLock()
	defer bs.mu.RUnlock()
	for u := range bs.users {
		dst = append(dst, u)
	}
	return dst
}

func (bs *bookShard) len() int {
	bs.mu.RLock()
	defer bs.mu.RUnlock()
	return len(bs.all)
}
