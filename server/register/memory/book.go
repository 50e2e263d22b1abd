package memory

import (
	"sync"
	"unique"

	"carillon/server/push"
	"carillon/server/register"
)

// stripeCount is the number of locks over the sessions. It has nothing to do with the shards of products.
const stripeCount = 256

// stripe holds the sessions of the users that hash to it.
type stripe struct {
	mu     sync.Mutex
	chains map[uint64]*entry // guarded by mu; all sessions of one hash: of one user, or, rarely, of several
	_      [48]byte          // a cache line each
}

func (r *Register) stripeOf(h uint64) (*stripe, int) {
	i := int(h % stripeCount)
	return &r.stripes[i], i
}

// traits are what many sessions have in common; they are stored once for all of them.
type traits struct {
	class     string
	transport string
	platform  push.Platform
	row       push.SessionEpoch // hardly any session has one
}

// entry is one session. Everything but the links is static; the links are guarded by the lock of its stripe.
type entry struct {
	user    push.UserID // the strings are the caller's
	device  push.DeviceID
	tokenID string
	counts  *counts
	traits  unique.Handle[traits]
	epoch   push.SessionEpoch
	since   push.MilliTime
	chain   *entry // the next of the same hash
	prev    *entry // in the list of its life in this stripe
	next    *entry
	shard   push.Shard
}

func newEntry(s *register.Session, c *counts) *entry {
	return &entry{
		user: s.User, device: s.Device, tokenID: s.TokenID, counts: c, epoch: s.Epoch, since: s.Since, shard: s.Shard,
		traits: unique.Make(traits{s.Class, s.Transport, s.Platform, s.Row}),
	}
}

// isOf reports whether the entry is a session of that user; hashes may collide.
func (e *entry) isOf(p push.ProductID, u push.UserID) bool {
	return e.user == u && e.counts.product == p
}

// session returns the entry as the contract tells it.
func (e *entry) session() register.Session {
	t, l := e.traits.Value(), e.counts.life
	return register.Session{
		Key:       register.Key{Product: e.counts.product, User: e.user, Device: e.device},
		Shard:     e.shard,
		Platform:  t.platform,
		Class:     t.class,
		Transport: t.transport,
		TokenID:   e.tokenID,
		Room:      l.id,
		Boot:      l.boot,
		Epoch:     e.epoch,
		Since:     e.since,
		Row:       t.row,
	}
}

// findLocked returns the session of that device, nil if there is none. The caller holds the stripe's lock, here and below.
func (s *stripe) findLocked(h uint64, k *register.Key) *entry {
	for e := s.chains[h]; e != nil; e = e.chain {
		if e.isOf(k.Product, k.User) && e.device == k.Device {
			return e
		}
	}
	return nil
}

// linkLocked adds an entry. i is the stripe's number.
func (s *stripe) linkLocked(h uint64, i int, e *entry) {
	e.chain = s.chains[h]
	s.chains[h] = e
	head := &e.counts.life.lists[i]
	e.next = *head
	if e.next != nil {
		e.next.prev = e
	}
	*head = e
	e.counts.add(e.shard, 1)
}

// unlinkLocked takes an entry out.
func (s *stripe) unlinkLocked(h uint64, i int, e *entry) {
	if first := s.chains[h]; first == e && e.chain == nil {
		delete(s.chains, h)
	} else if first == e {
		s.chains[h] = e.chain
	} else {
		before := first
		for before.chain != e {
			before = before.chain
		}
		before.chain = e.chain
	}
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		e.counts.life.lists[i] = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	}
	e.chain, e.prev, e.next = nil, nil, nil
	e.counts.add(e.shard, -1)
}
