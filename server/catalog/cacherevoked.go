package catalog

import (
	"context"

	"carillon/server/push"
)

// revokedSet is every revocation that is in force, of all products. The cache's lock guards it.
type revokedSet struct {
	m       map[revokedName]*Revocation // which nobody changes
	change  Change                      // all changes up to this one are in m
	known   bool                        // version says something
	version Version                     // m is as the store was under this version, or newer
	asking  *flight                     // the question for changes that is under way
	added   int                         // since those that ended were taken out
	stayed  int                         // of them then
}

type revokedName struct {
	product push.ProductID
	RevocationTarget
}

func newRevokedSet() revokedSet { return revokedSet{m: make(map[revokedName]*Revocation)} }

// sweepRevokedAfter is how many changes come in, at least, before those that have ended are looked for. Looking at all of
// them costs no more, over time, than adding them did.
const sweepRevokedAfter = 1024

// LookupRevocation returns the revocation that refuses a token of a device, nil if none does. tokenID and issued are the
// token's jti and iat, empty and 0 if it has none. It costs three looks into a map, however many revocations there are.
func (c *Cache) LookupRevocation(
	ctx context.Context, p push.ProductID, u push.UserID, d push.DeviceID, tokenID string, issued push.MilliTime,
) (*Revocation, error) {
	began := c.clock.Now()
	for {
		c.mu.RLock()
		if c.freshLocked(began, began) && c.revoked.known && c.revoked.version == c.version {
			r := c.revoked.find(p, u, d, tokenID, issued, push.Milli(began))
			c.mu.RUnlock()
			return r, nil
		}
		c.mu.RUnlock()
		if err := c.refresh(ctx, began); err != nil {
			return nil, err
		}
		if err := c.followRevoked(ctx); err != nil {
			return nil, err
		}
	}
}

// find returns what refuses the token.
func (s *revokedSet) find(
	p push.ProductID, u push.UserID, d push.DeviceID, tokenID string, issued, now push.MilliTime,
) *Revocation {
	if len(s.m) == 0 {
		return nil
	}
	targets := [...]RevocationTarget{{User: u}, {User: u, Device: d}, {User: u, TokenID: tokenID}}
	n := len(targets)
	if tokenID == "" {
		n--
	}
	for _, t := range targets[:n] {
		if r, ok := s.m[revokedName{p, t}]; ok && r.Refuses(issued, now) {
			return r
		}
	}
	return nil
}

// followRevoked brings the set up to the version at hand, or waits for somebody who does. Callers look again afterwards.
func (c *Cache) followRevoked(ctx context.Context) error {
	c.mu.Lock()
	if !c.known || c.revoked.known && c.revoked.version == c.version {
		c.mu.Unlock()
		return nil
	}
	if f := c.revoked.asking; f != nil {
		c.mu.Unlock()
		if err := f.wait(ctx); err != nil && (ctx.Err() != nil || !isEnd(err)) {
			return err
		}
		return nil
	}
	f := &flight{done: make(chan struct{})}
	c.revoked.asking = f
	version, after := c.version, c.revoked.change
	c.mu.Unlock()
	defer close(f.done)

	for {
		changes, err := c.store.RevocationChanges(ctx, after, MaxChanges)
		c.mu.Lock()
		if err != nil {
			c.revoked.asking = nil
			f.err = err
			c.mu.Unlock()
			return err
		}
		c.revoked.apply(changes, push.Milli(c.clock.Now()))
		after = c.revoked.change
		if len(changes) < MaxChanges {
			c.revoked.asking = nil
			c.revoked.known, c.revoked.version = true, version
			c.mu.Unlock()
			return nil
		}
		c.mu.Unlock()
	}
}

// apply takes changes in, in their order.
func (s *revokedSet) apply(changes []Revocation, now push.MilliTime) {
	for _, r := range changes {
		s.change = r.Change
		name := revokedName{r.Product, r.RevocationTarget}
		if r.Lifted || r.Ended(now) {
			delete(s.m, name)
			continue
		}
		r.Reason = "" // for people, who ask the store
		s.m[name] = &r
		s.added++
	}
	if s.added < max(sweepRevokedAfter, s.stayed) {
		return
	}
	for name, r := range s.m {
		if r.Ended(now) {
			delete(s.m, name)
		}
	}
	s.added, s.stayed = 0, len(s.m)
}
