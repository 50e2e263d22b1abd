package pebble

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"

	"carillon/server/catalog"
	"carillon/server/embedded"
	"carillon/server/push"
)

// targetNames are the parts of a key that name a revocation.
func targetNames(p push.ProductID, t catalog.RevocationTarget) []string {
	return []string{string(p), string(t.User), string(t.Device), t.TokenID}
}

func revocationKey(p push.ProductID, t catalog.RevocationTarget) []byte {
	return keyOf(sortRevocation, targetNames(p, t)...)
}

func changeKey(c catalog.Change) []byte {
	return embedded.AppendKeyUint64(keyOf(sortChange), uint64(c))
}

func endKey(r *catalog.Revocation) []byte {
	k := embedded.AppendKeyUint64(keyOf(sortEnd), uint64(r.Until))
	for _, n := range targetNames(r.Product, r.RevocationTarget) {
		k = embedded.AppendKeyString(k, n)
	}
	return k
}

func countKey(p push.ProductID) []byte { return keyOf(sortRevocationCount, string(p)) }

// revocation reads one revocation; nil if there is none.
func (c *Catalog) revocation(key []byte) (*catalog.Revocation, error) {
	b, found, err := c.db.Get(nil, key)
	if err != nil {
		return nil, failed(err)
	}
	if !found {
		return nil, nil
	}
	r, err := catalog.DecodeRevocation(b)
	return &r, err
}

// nextChange is the number of the change that the write under way makes: that of the version it leads to. The caller is
// inside of write.
func (c *Catalog) nextChange() (catalog.Change, error) {
	v, err := c.version()
	return catalog.Change(v + 1), err
}

// Revoke stores that tokens are refused from now on.
func (c *Catalog) Revoke(ctx context.Context, r catalog.Revocation) (catalog.Revocation, error) {
	err := c.write(ctx, func(b *embedded.Batch, now push.MilliTime) error {
		p, err := get(c, productKey(r.Product), catalog.DecodeProduct, catalog.ErrProductNotFound)
		if err != nil {
			return err
		}
		change, err := c.nextChange()
		if err != nil {
			return err
		}
		old, err := c.revocation(revocationKey(r.Product, r.RevocationTarget))
		if err != nil {
			return err
		}
		if r, err = catalog.NewRevocation(r, old, p.MaxTokenLifetime(), now, change); err != nil {
			return err
		}
		s := revocationSweep{c: c, b: b, now: now, but: revocationKey(r.Product, r.RevocationTarget)}
		counts := &revocationCounts{c, make(map[push.ProductID]uint64)}
		more, err := s.some(counts)
		if err != nil {
			return err
		}
		if old == nil {
			n, err := counts.of(r.Product)
			for err == nil && n >= catalog.MaxRevocations && more { // those of other products may stand before its own
				if more, err = s.some(counts); err == nil {
					n, err = counts.of(r.Product)
				}
			}
			if err != nil {
				return err
			}
			if n >= catalog.MaxRevocations {
				return catalog.ErrTooManyRevocations()
			}
			counts.n[r.Product] = n + 1
		}
		counts.write(b)
		return putRevocation(b, &r, old)
	})
	return orZero(r, err)
}

// putRevocation writes a revocation with its place among the changes and the ends, in place of old.
func putRevocation(b *embedded.Batch, r, old *catalog.Revocation) error {
	if old != nil {
		b.Delete(changeKey(old.Change))
		b.Delete(endKey(old))
	}
	key := revocationKey(r.Product, r.RevocationTarget)
	b.Set(changeKey(r.Change), key)
	b.Set(endKey(r), nil)
	return set(b, key)(catalog.EncodeRevocation(*r))
}

// LiftRevocation ends a revocation before its time.
func (c *Catalog) LiftRevocation(ctx context.Context, p push.ProductID, t catalog.RevocationTarget) error {
	return c.write(ctx, func(b *embedded.Batch, now push.MilliTime) error {
		old, err := c.revocation(revocationKey(p, t))
		if err != nil {
			return err
		}
		if old == nil || old.Lifted || old.Ended(now) {
			return catalog.ErrRevocationNotFound()
		}
		change, err := c.nextChange()
		if err != nil {
			return err
		}
		lifted := catalog.LiftedRevocation(*old, change)
		return putRevocation(b, &lifted, old)
	})
}

// revocationCounts are how many revocations products have, as far as a write needs and changes them.
type revocationCounts struct {
	c *Catalog
	n map[push.ProductID]uint64
}

// of returns a product's count.
func (rc *revocationCounts) of(p push.ProductID) (uint64, error) {
	if n, ok := rc.n[p]; ok {
		return n, nil
	}
	b, found, err := rc.c.db.Get(nil, countKey(p))
	if err != nil {
		return 0, failed(err)
	}
	if !found {
		return 0, nil
	}
	if len(b) != 8 {
		return 0, failed(errors.New("a count of revocations does not have 8 bytes"))
	}
	return binary.BigEndian.Uint64(b), nil
}

func (rc *revocationCounts) write(b *embedded.Batch) {
	for p, n := range rc.n {
		b.Set(countKey(p), binary.BigEndian.AppendUint64(nil, n))
	}
}

// revocationSweep takes revocations out that have ended, of whatever product, those first that ended first, all but the one
// that is being written.
type revocationSweep struct {
	c    *Catalog
	b    *embedded.Batch
	now  push.MilliTime
	but  []byte // its key
	last []byte // where it has come to among the ends; nil: it has not begun
}

// some takes the next few out, and reports whether there may be more.
func (s *revocationSweep) some(counts *revocationCounts) (more bool, err error) {
	ended, err := s.next()
	if err != nil {
		return false, err
	}
	for i := range ended {
		r := &ended[i]
		key := revocationKey(r.Product, r.RevocationTarget)
		if bytes.Equal(key, s.but) {
			continue
		}
		n, err := counts.of(r.Product)
		if err != nil {
			return false, err
		}
		counts.n[r.Product] = max(n, 1) - 1
		s.b.Delete(key)
		s.b.Delete(changeKey(r.Change))
		s.b.Delete(endKey(r))
	}
	return len(ended) == catalog.SweptAtRevoke, nil
}

// next returns the first of those behind last that have ended.
func (s *revocationSweep) next() ([]catalog.Revocation, error) {
	prefix := keyOf(sortEnd)
	from := prefix
	if s.last != nil {
		from = append(s.last, 0)
	}
	return s.c.walk(from, embedded.AppendKeyUint64(keyOf(sortEnd), uint64(s.now)+1), catalog.SweptAtRevoke,
		func(key, _ []byte) (*catalog.Revocation, error) {
			s.last = bytes.Clone(key)
			return s.c.revocation(append(keyOf(sortRevocation), key[len(prefix)+8:]...))
		})
}

// Revocations returns what a product refuses at the moment.
func (c *Catalog) Revocations(ctx context.Context, p push.ProductID, page catalog.Page) (l catalog.List[catalog.Revocation], err error) {
	if err := c.usable(ctx); err != nil {
		return l, err
	}
	page, after, err := catalog.CheckRevocationPage(page)
	if err != nil {
		return l, err
	}
	if _, err := get(c, productKey(p), catalog.DecodeProduct, catalog.ErrProductNotFound); err != nil {
		return l, err
	}
	prefix := keyOf(sortRevocation, string(p))
	from := prefix
	if after != nil {
		from = append(revocationKey(p, *after), 0)
	}
	now := push.Milli(c.clock.Now())
	found, err := c.walk(from, embedded.PrefixEnd(prefix), page.Limit+1, func(_, value []byte) (*catalog.Revocation, error) {
		r, err := catalog.DecodeRevocation(value)
		if err != nil || r.Lifted || r.Ended(now) {
			return nil, err
		}
		return &r, nil
	})
	if err != nil {
		return l, err
	}
	return catalog.RevocationPage(found, page.Limit), nil
}

// RevocationChanges returns revocations by their latest change. What is written while it walks may have moved behind the
// end of the walk, and is left out: it comes with a later change.
func (c *Catalog) RevocationChanges(ctx context.Context, after catalog.Change, limit int) ([]catalog.Revocation, error) {
	if err := c.usable(ctx); err != nil {
		return nil, err
	}
	limit, err := catalog.CheckChanges(limit)
	if err != nil {
		return nil, err
	}
	prefix := keyOf(sortChange)
	return c.walk(changeKey(after+1), embedded.PrefixEnd(prefix), limit, func(key, value []byte) (*catalog.Revocation, error) {
		change, _, err := embedded.CutKeyUint64(key[len(prefix):])
		if err != nil {
			return nil, failed(err)
		}
		r, err := c.revocation(value)
		if err != nil || r == nil || r.Change != catalog.Change(change) {
			return nil, err
		}
		return r, nil
	})
}

// walk returns the revocations that an index names between two of its keys; find returns nil for one to pass over.
func (c *Catalog) walk(from, to []byte, limit int, find func(key, value []byte) (*catalog.Revocation, error)) (
	rs []catalog.Revocation, err error,
) {
	it, err := c.db.Scan(from, to)
	if err != nil {
		return nil, failed(err)
	}
	defer func() {
		if e := it.Close(); e != nil && err == nil {
			err = failed(e)
		}
	}()
	for ok := it.First(); ok && len(rs) < limit; ok = it.Next() {
		value, err := it.Value()
		if err != nil {
			return nil, failed(err)
		}
		r, err := find(it.Key(), value)
		if err != nil {
			return nil, err
		}
		if r != nil {
			rs = append(rs, *r)
		}
	}
	if err := it.Err(); err != nil {
		return nil, failed(err)
	}
	return rs, nil
}
