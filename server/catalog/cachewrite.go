package catalog

import (
	"context"

	"carillon/server/push"
)

// What follows makes the cache a Catalog: single reads come from memory, as copies; lists come from the store; writes
// go to the store and make everything that was read before them old.

// Product returns a copy of a product.
func (c *Cache) Product(ctx context.Context, id push.ProductID) (Product, error) {
	p, err := c.LookupProduct(ctx, id)
	if err != nil {
		return Product{}, err
	}
	return *p, nil
}

// DeviceKey returns a copy of a key.
func (c *Cache) DeviceKey(ctx context.Context, p push.ProductID, id KeyID) (DeviceKey, error) {
	k, err := c.LookupDeviceKey(ctx, p, id)
	if err != nil {
		return DeviceKey{}, err
	}
	return k.Clone(), nil
}

// APIKey returns a copy of a key.
func (c *Cache) APIKey(ctx context.Context, id APIKeyID) (APIKey, error) {
	k, err := c.LookupAPIKey(ctx, id)
	if err != nil {
		return APIKey{}, err
	}
	return k.Clone(), nil
}

// Products reads the store.
func (c *Cache) Products(ctx context.Context, page Page) (List[Product], error) {
	return c.store.Products(ctx, page)
}

// DeviceKeys reads the store.
func (c *Cache) DeviceKeys(ctx context.Context, p push.ProductID, page Page) (List[DeviceKey], error) {
	return c.store.DeviceKeys(ctx, p, page)
}

// APIKeys reads the store.
func (c *Cache) APIKeys(ctx context.Context, p push.ProductID, page Page) (List[APIKey], error) {
	return c.store.APIKeys(ctx, p, page)
}

// Revocations reads the store.
func (c *Cache) Revocations(ctx context.Context, p push.ProductID, page Page) (List[Revocation], error) {
	return c.store.Revocations(ctx, p, page)
}

// Version reads the store.
func (c *Cache) Version(ctx context.Context) (Version, error) { return c.store.Version(ctx) }

// CreateProduct writes the store.
func (c *Cache) CreateProduct(ctx context.Context, p Product) (Product, error) {
	defer c.wrote()
	return c.store.CreateProduct(ctx, p)
}

// UpdateProduct writes the store.
func (c *Cache) UpdateProduct(ctx context.Context, p Product) (Product, error) {
	defer c.wrote()
	return c.store.UpdateProduct(ctx, p)
}

// AddDeviceKey writes the store.
func (c *Cache) AddDeviceKey(ctx context.Context, k DeviceKey) (DeviceKey, error) {
	defer c.wrote()
	return c.store.AddDeviceKey(ctx, k)
}

// RevokeDeviceKey writes the store.
func (c *Cache) RevokeDeviceKey(ctx context.Context, p push.ProductID, id KeyID) (DeviceKey, error) {
	defer c.wrote()
	return c.store.RevokeDeviceKey(ctx, p, id)
}

// AddAPIKey writes the store.
func (c *Cache) AddAPIKey(ctx context.Context, k APIKey) (APIKey, error) {
	defer c.wrote()
	return c.store.AddAPIKey(ctx, k)
}

// RevokeAPIKey writes the store.
func (c *Cache) RevokeAPIKey(ctx context.Context, p push.ProductID, id APIKeyID) (APIKey, error) {
	defer c.wrote()
	return c.store.RevokeAPIKey(ctx, p, id)
}

// Revoke writes the store.
func (c *Cache) Revoke(ctx context.Context, r Revocation) (Revocation, error) {
	defer c.wrote()
	return c.store.Revoke(ctx, r)
}

// LiftRevocation writes the store.
func (c *Cache) LiftRevocation(ctx context.Context, p push.ProductID, t RevocationTarget) error {
	defer c.wrote()
	return c.store.LiftRevocation(ctx, p, t)
}

// RevocationChanges reads the store.
func (c *Cache) RevocationChanges(ctx context.Context, after Change, limit int) ([]Revocation, error) {
	return c.store.RevocationChanges(ctx, after, limit)
}

// Close closes the store. What is cached is not answered any more.
func (c *Cache) Close() error {
	defer c.wrote()
	return c.store.Close()
}
