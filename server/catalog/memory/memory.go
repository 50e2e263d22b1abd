// Package memory is the catalog of a single process: everything lives in this process and ends with it. It serves tests
// and gateways that are told their products at each start.
//
// All of it lies under one lock, which is held for the time of a look into a map: what reads it often asks through a
// catalog.Cache.
package memory

import (
	"context"
	"maps"
	"slices"
	"sync"

	"carillon/server/catalog"
	"carillon/server/clock"
	"carillon/server/push"
)

// Config says how a catalog is made. Its zero value is useful.
type Config struct {
	Clock clock.Clock // clock.System if nil
}

// Catalog is a catalog.Catalog. All methods are safe for concurrent use.
type Catalog struct {
	clock clock.Clock // static

	mu         sync.RWMutex // guards all below
	closed     bool
	version    catalog.Version
	products   map[push.ProductID]catalog.Product
	deviceKeys map[push.ProductID]map[catalog.KeyID]catalog.DeviceKey
	apiKeys    map[catalog.APIKeyID]catalog.APIKey
	keysOf     map[push.ProductID]map[catalog.APIKeyID]struct{}
	revoked    map[push.ProductID]map[catalog.RevocationTarget]catalog.Revocation
}

var _ catalog.Catalog = (*Catalog)(nil)

// New returns an empty catalog.
func New(c Config) *Catalog {
	if c.Clock == nil {
		c.Clock = clock.System
	}
	return &Catalog{
		clock:      c.Clock,
		products:   make(map[push.ProductID]catalog.Product),
		deviceKeys: make(map[push.ProductID]map[catalog.KeyID]catalog.DeviceKey),
		apiKeys:    make(map[catalog.APIKeyID]catalog.APIKey),
		keysOf:     make(map[push.ProductID]map[catalog.APIKeyID]struct{}),
		revoked:    make(map[push.ProductID]map[catalog.RevocationTarget]catalog.Revocation),
	}
}

// read runs f under the lock for reading.
func (c *Catalog) read(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return catalog.ErrUnavailable(err)
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return catalog.ErrClosed()
	}
	return f()
}

// write runs f under the lock, and changes the version if it does not fail. f changes nothing when it fails.
func (c *Catalog) write(ctx context.Context, f func(now push.MilliTime) error) error {
	if err := ctx.Err(); err != nil {
		return catalog.ErrUnavailable(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return catalog.ErrClosed()
	}
	if err := f(push.Milli(c.clock.Now())); err != nil {
		return err
	}
	c.version++
	return nil
}

// CreateProduct stores a new product.
func (c *Catalog) CreateProduct(ctx context.Context, p catalog.Product) (catalog.Product, error) {
	err := c.write(ctx, func(now push.MilliTime) (err error) {
		if p, err = catalog.NewProduct(p, catalog.LocalShards, now); err != nil {
			return err
		}
		if _, ok := c.products[p.ID]; ok {
			return catalog.ErrProductExists()
		}
		c.products[p.ID] = p
		c.deviceKeys[p.ID] = make(map[catalog.KeyID]catalog.DeviceKey)
		c.keysOf[p.ID] = make(map[catalog.APIKeyID]struct{})
		c.revoked[p.ID] = make(map[catalog.RevocationTarget]catalog.Revocation)
		return nil
	})
	return orZero(p, err)
}

// Product returns a product.
func (c *Catalog) Product(ctx context.Context, id push.ProductID) (p catalog.Product, err error) {
	err = c.read(ctx, func() error {
		var ok bool
		if p, ok = c.products[id]; !ok {
			return catalog.ErrProductNotFound()
		}
		return nil
	})
	return p, err
}

// Products returns products by id.
func (c *Catalog) Products(ctx context.Context, page catalog.Page) (l catalog.List[catalog.Product], err error) {
	err = c.read(ctx, func() (err error) {
		l, err = list(page, c.products, func(p catalog.Product) catalog.Product { return p })
		return err
	})
	return l, err
}

// UpdateProduct replaces what may change of a product.
func (c *Catalog) UpdateProduct(ctx context.Context, p catalog.Product) (catalog.Product, error) {
	err := c.write(ctx, func(now push.MilliTime) (err error) {
		old, ok := c.products[p.ID]
		if !ok {
			return catalog.ErrProductNotFound()
		}
		if p, err = catalog.ChangedProduct(old, p, now); err != nil {
			return err
		}
		c.products[p.ID] = p
		return nil
	})
	return orZero(p, err)
}

// AddDeviceKey stores a key that signs device tokens.
func (c *Catalog) AddDeviceKey(ctx context.Context, k catalog.DeviceKey) (catalog.DeviceKey, error) {
	err := c.write(ctx, func(now push.MilliTime) (err error) {
		if k, err = catalog.NewDeviceKey(k, now); err != nil {
			return err
		}
		keys, ok := c.deviceKeys[k.Product]
		if !ok {
			return catalog.ErrProductNotFound()
		}
		if _, ok := keys[k.ID]; ok {
			return catalog.ErrKeyExists()
		}
		keys[k.ID] = k.Clone()
		return nil
	})
	return orZero(k, err)
}

// DeviceKey returns a key, revoked or not.
func (c *Catalog) DeviceKey(ctx context.Context, p push.ProductID, id catalog.KeyID) (k catalog.DeviceKey, err error) {
	err = c.read(ctx, func() error {
		found, ok := c.deviceKeys[p][id]
		if !ok {
			return catalog.ErrKeyNotFound()
		}
		k = found.Clone()
		return nil
	})
	return k, err
}

// DeviceKeys returns the keys of a product by id.
func (c *Catalog) DeviceKeys(ctx context.Context, p push.ProductID, page catalog.Page) (
	l catalog.List[catalog.DeviceKey], err error,
) {
	err = c.read(ctx, func() (err error) {
		keys, ok := c.deviceKeys[p]
		if !ok {
			return catalog.ErrProductNotFound()
		}
		l, err = list(page, keys, catalog.DeviceKey.Clone)
		return err
	})
	return l, err
}

// RevokeDeviceKey ends a key for good.
func (c *Catalog) RevokeDeviceKey(ctx context.Context, p push.ProductID, id catalog.KeyID) (
	k catalog.DeviceKey, err error,
) {
	err = c.write(ctx, func(now push.MilliTime) error {
		var ok bool
		if k, ok = c.deviceKeys[p][id]; !ok {
			return catalog.ErrKeyNotFound()
		}
		if k.Revoked == 0 {
			k.Revoked = now
			c.deviceKeys[p][id] = k
		}
		k = k.Clone()
		return nil
	})
	return orZero(k, err)
}

// AddAPIKey stores an API key.
func (c *Catalog) AddAPIKey(ctx context.Context, k catalog.APIKey) (catalog.APIKey, error) {
	err := c.write(ctx, func(now push.MilliTime) (err error) {
		if k, err = catalog.AddedAPIKey(k, now); err != nil {
			return err
		}
		if _, ok := c.products[k.Product]; !ok {
			return catalog.ErrProductNotFound()
		}
		if _, ok := c.apiKeys[k.ID]; ok {
			return catalog.ErrKeyExists()
		}
		c.apiKeys[k.ID] = k.Clone()
		c.keysOf[k.Product][k.ID] = struct{}{}
		return nil
	})
	return orZero(k, err)
}

// APIKey returns a key, revoked and expired ones too.
func (c *Catalog) APIKey(ctx context.Context, id catalog.APIKeyID) (k catalog.APIKey, err error) {
	err = c.read(ctx, func() error {
		found, ok := c.apiKeys[id]
		if !ok {
			return catalog.ErrKeyNotFound()
		}
		k = found.Clone()
		return nil
	})
	return k, err
}

// APIKeys returns the keys of a product by id.
func (c *Catalog) APIKeys(ctx context.Context, p push.ProductID, page catalog.Page) (
	l catalog.List[catalog.APIKey], err error,
) {
	err = c.read(ctx, func() error {
		ids, ok := c.keysOf[p]
		if !ok {
			return catalog.ErrProductNotFound()
		}
		named := make(map[catalog.APIKeyID]catalog.APIKey, len(ids))
		for id := range ids {
			named[id] = c.apiKeys[id]
		}
		var err error
		l, err = list(page, named, catalog.APIKey.Clone)
		return err
	})
	return l, err
}

// RevokeAPIKey ends a key for good.
func (c *Catalog) RevokeAPIKey(ctx context.Context, p push.ProductID, id catalog.APIKeyID) (
	k catalog.APIKey, err error,
) {
	err = c.write(ctx, func(now push.MilliTime) error {
		var ok bool
		if k, ok = c.apiKeys[id]; !ok || k.Product != p {
			return catalog.ErrKeyNotFound()
		}
		if k.Revoked == 0 {
			k.Revoked = now
			c.apiKeys[id] = k
		}
		k = k.Clone()
		return nil
	})
	return orZero(k, err)
}

// Version names the present state.
func (c *Catalog) Version(ctx context.Context) (v catalog.Version, err error) {
	err = c.read(ctx, func() error {
		v = c.version
		return nil
	})
	return v, err
}

// Close makes every later call fail.
func (c *Catalog) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

// list returns the page of what is in the map, by key.
func list[K ~string, V any](page catalog.Page, m map[K]V, clone func(V) V) (l catalog.List[V], err error) {
	if page, err = page.Check(); err != nil {
		return l, err
	}
	ids := slices.Sorted(maps.Keys(m))
	from, found := slices.BinarySearch(ids, K(page.After))
	if found {
		from++
	}
	for _, id := range ids[from:] {
		if len(l.Items) == page.Limit {
			l.Next = string(ids[from+len(l.Items)-1])
			break
		}
		l.Items = append(l.Items, clone(m[id]))
	}
	return l, nil
}

// orZero returns v, or the zero value with an error.
func orZero[V any](v V, err error) (V, error) {
	if err != nil {
		var zero V
		return zero, err
	}
	return v, nil
}
