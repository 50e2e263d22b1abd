package memory

import (
	"cmp"
	"context"
	"slices"

	"carillon/server/catalog"
	"carillon/server/push"
)

// Revoke stores that tokens are refused from now on.
func (c *Catalog) Revoke(ctx context.Context, r catalog.Revocation) (catalog.Revocation, error) {
	err := c.write(ctx, func(now push.MilliTime) error {
		p, ok := c.products[r.Product]
		if !ok {
			return catalog.ErrProductNotFound()
		}
		of := c.revoked[r.Product]
		var old *catalog.Revocation
		if was, ok := of[r.RevocationTarget]; ok {
			old = &was
		}
		var err error
		if r, err = catalog.NewRevocation(r, old, p.MaxTokenLifetime(), now, c.nextChange()); err != nil {
			return err
		}
		if old == nil && len(of) >= catalog.MaxRevocations {
			sweep(of, now, len(of))
			if len(of) >= catalog.MaxRevocations {
				return catalog.ErrTooManyRevocations()
			}
		}
		sweep(of, now, catalog.SweptAtRevoke)
		of[r.RevocationTarget] = r
		return nil
	})
	return orZero(r, err)
}

// nextChange is the number of the change that the write under way makes: that of the version it leads to.
func (c *Catalog) nextChange() catalog.Change { return catalog.Change(c.version + 1) }

// sweep looks at some revocations and takes those out that have ended.
func sweep(of map[catalog.RevocationTarget]catalog.Revocation, now push.MilliTime, most int) {
	for t, r := range of {
		if most--; most < 0 {
			return
		}
		if r.Ended(now) {
			delete(of, t)
		}
	}
}

// LiftRevocation ends a revocation before its time.
func (c *Catalog) LiftRevocation(ctx context.Context, p push.ProductID, t catalog.RevocationTarget) error {
	return c.write(ctx, func(now push.MilliTime) error {
		r, ok := c.revoked[p][t]
		if !ok || r.Lifted || r.Ended(now) {
			return catalog.ErrRevocationNotFound()
		}
		c.revoked[p][t] = catalog.LiftedRevocation(r, c.nextChange())
		return nil
	})
}

// Revocations returns what a product refuses at the moment.
func (c *Catalog) Revocations(ctx context.Context, p push.ProductID, page catalog.Page) (l catalog.List[catalog.Revocation], err error) {
	err = c.read(ctx, func() error {
		page, after, err := catalog.CheckRevocationPage(page)
		if err != nil {
			return err
		}
		if _, ok := c.products[p]; !ok {
			return catalog.ErrProductNotFound()
		}
		now := push.Milli(c.clock.Now())
		var found []catalog.Revocation
		for t, r := range c.revoked[p] {
			if !r.Lifted && !r.Ended(now) && (after == nil || t.Compare(*after) > 0) {
				found = append(found, r)
			}
		}
		slices.SortFunc(found, func(a, b catalog.Revocation) int { return a.Compare(b.RevocationTarget) })
		l = catalog.RevocationPage(found, page.Limit)
		return nil
	})
	return l, err
}

// RevocationChanges returns revocations by their latest change.
func (c *Catalog) RevocationChanges(ctx context.Context, after catalog.Change, limit int) (
	rs []catalog.Revocation, err error,
) {
	err = c.read(ctx, func() (err error) {
		if limit, err = catalog.CheckChanges(limit); err != nil {
			return err
		}
		for _, of := range c.revoked {
			for _, r := range of {
				if r.Change > after {
					rs = append(rs, r)
				}
			}
		}
		slices.SortFunc(rs, func(a, b catalog.Revocation) int { return cmp.Compare(a.Change, b.Change) })
		rs = rs[:min(limit, len(rs))]
		return nil
	})
	return rs, err
}
