package redis

import (
	"context"

	"carillon/server/catalog"
	"carillon/server/push"
	"carillon/server/redisdb"
)

// CreateProduct stores a new product.
func (c *Catalog) CreateProduct(ctx context.Context, p catalog.Product) (catalog.Product, error) {
	var made catalog.Product
	err := c.write(ctx, []redisdb.Command{hget(productsKey, string(p.ID))},
		func(was []any, now push.MilliTime, _ catalog.Change) (_ []redisdb.Command, err error) {
			if made, err = catalog.NewProduct(p, DefaultShards, now); err != nil {
				return nil, err
			}
			if was[0] != nil {
				return nil, catalog.ErrProductExists()
			}
			b, err := catalog.EncodeProduct(made, nil)
			return []redisdb.Command{hset(productsKey, string(p.ID), b), listed(productList, string(p.ID))}, err
		})
	return orZero(made, err)
}

// Product returns a product.
func (c *Catalog) Product(ctx context.Context, id push.ProductID) (p catalog.Product, err error) {
	r, err := c.read(ctx, hget(productsKey, string(id)))
	if err != nil {
		return p, err
	}
	return record(r.Replies[0], catalog.DecodeProduct, catalog.ErrProductNotFound)
}

// Products returns products by id.
func (c *Catalog) Products(ctx context.Context, page catalog.Page) (l catalog.List[catalog.Product], err error) {
	if err := c.usable(ctx); err != nil {
		return l, err
	}
	return list(ctx, c, page, productList, productsKey, catalog.DecodeProduct)
}

// UpdateProduct replaces what may change of a product.
func (c *Catalog) UpdateProduct(ctx context.Context, p catalog.Product) (catalog.Product, error) {
	var changed catalog.Product
	err := c.write(ctx, []redisdb.Command{hget(productsKey, string(p.ID))},
		func(was []any, now push.MilliTime, _ catalog.Change) ([]redisdb.Command, error) {
			old, err := record(was[0], catalog.DecodeProduct, catalog.ErrProductNotFound)
			if err != nil {
				return nil, err
			}
			if changed, err = catalog.ChangedProduct(old, p, now); err != nil {
				return nil, err
			}
			b, err := catalog.EncodeProduct(changed, []byte(was[0].(string)))
			return []redisdb.Command{hset(productsKey, string(p.ID), b)}, err
		})
	return orZero(changed, err)
}

// AddDeviceKey stores a key that signs device tokens.
func (c *Catalog) AddDeviceKey(ctx context.Context, k catalog.DeviceKey) (catalog.DeviceKey, error) {
	var added catalog.DeviceKey
	err := c.write(ctx, []redisdb.Command{hget(productsKey, string(k.Product)), hget(deviceKeysKey(k.Product), string(k.ID))},
		func(was []any, now push.MilliTime, _ catalog.Change) (_ []redisdb.Command, err error) {
			if added, err = catalog.NewDeviceKey(k, now); err != nil {
				return nil, err
			}
			switch {
			case was[0] == nil:
				return nil, catalog.ErrProductNotFound()
			case was[1] != nil:
				return nil, catalog.ErrKeyExists()
			}
			b, err := catalog.EncodeDeviceKey(added)
			return []redisdb.Command{hset(deviceKeysKey(k.Product), string(k.ID), b), listed(deviceKeyList(k.Product), string(k.ID))}, err
		})
	return orZero(added, err)
}

// DeviceKey returns a key, revoked or not.
func (c *Catalog) DeviceKey(ctx context.Context, p push.ProductID, id catalog.KeyID) (k catalog.DeviceKey, err error) {
	r, err := c.read(ctx, hget(deviceKeysKey(p), string(id)))
	if err != nil {
		return k, err
	}
	return record(r.Replies[0], catalog.DecodeDeviceKey, catalog.ErrKeyNotFound)
}

// DeviceKeys returns the keys of a product by id.
func (c *Catalog) DeviceKeys(ctx context.Context, p push.ProductID, page catalog.Page) (
	l catalog.List[catalog.DeviceKey], err error,
) {
	if _, err := c.Product(ctx, p); err != nil {
		return l, err
	}
	return list(ctx, c, page, deviceKeyList(p), deviceKeysKey(p), catalog.DecodeDeviceKey)
}

// RevokeDeviceKey ends a key for good.
func (c *Catalog) RevokeDeviceKey(ctx context.Context, p push.ProductID, id catalog.KeyID) (
	k catalog.DeviceKey, err error,
) {
	err = c.write(ctx, []redisdb.Command{hget(deviceKeysKey(p), string(id))},
		func(was []any, now push.MilliTime, _ catalog.Change) (_ []redisdb.Command, err error) {
			k, err = record(was[0], catalog.DecodeDeviceKey, catalog.ErrKeyNotFound)
			if err != nil || k.Revoked != 0 {
				return nil, err
			}
			k.Revoked = now
			b, err := catalog.EncodeDeviceKey(k)
			return []redisdb.Command{hset(deviceKeysKey(p), string(id), b)}, err
		})
	return orZero(k, err)
}

// AddAPIKey stores an API key.
func (c *Catalog) AddAPIKey(ctx context.Context, k catalog.APIKey) (catalog.APIKey, error) {
	var added catalog.APIKey
	err := c.write(ctx, []redisdb.Command{hget(productsKey, string(k.Product)), hget(apiKeysKey, string(k.ID))},
		func(was []any, now push.MilliTime, _ catalog.Change) (_ []redisdb.Command, err error) {
			if added, err = catalog.AddedAPIKey(k, now); err != nil {
				return nil, err
			}
			switch {
			case was[0] == nil:
				return nil, catalog.ErrProductNotFound()
			case was[1] != nil:
				return nil, catalog.ErrKeyExists()
			}
			b, err := catalog.EncodeAPIKey(added)
			return []redisdb.Command{hset(apiKeysKey, string(k.ID), b), listed(apiKeyList(k.Product), string(k.ID))}, err
		})
	return orZero(added, err)
}

// APIKey returns a key, revoked and expired ones too.
func (c *Catalog) APIKey(ctx context.Context, id catalog.APIKeyID) (k catalog.APIKey, err error) {
	r, err := c.read(ctx, hget(apiKeysKey, string(id)))
	if err != nil {
		return k, err
	}
	return record(r.Replies[0], catalog.DecodeAPIKey, catalog.ErrKeyNotFound)
}

// APIKeys returns the keys of a product by id.
func (c *Catalog) APIKeys(ctx context.Context, p push.ProductID, page catalog.Page) (
	l catalog.List[catalog.APIKey], err error,
) {
	if _, err := c.Product(ctx, p); err != nil {
		return l, err
	}
	return list(ctx, c, page, apiKeyList(p), apiKeysKey, catalog.DecodeAPIKey)
}

// RevokeAPIKey ends a key for good.
func (c *Catalog) RevokeAPIKey(ctx context.Context, p push.ProductID, id catalog.APIKeyID) (
	k catalog.APIKey, err error,
) {
	err = c.write(ctx, []redisdb.Command{hget(apiKeysKey, string(id))},
		func(was []any, now push.MilliTime, _ catalog.Change) (_ []redisdb.Command, err error) {
			if k, err = record(was[0], catalog.DecodeAPIKey, catalog.ErrKeyNotFound); err != nil {
				return nil, err
			}
			if k.Product != p {
				return nil, catalog.ErrKeyNotFound()
			}
			if k.Revoked != 0 {
				return nil, nil
			}
			k.Revoked = now
			b, err := catalog.EncodeAPIKey(k)
			return []redisdb.Command{hset(apiKeysKey, string(id), b)}, err
		})
	return orZero(k, err)
}
