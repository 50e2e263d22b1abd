package pebble

import (
	"context"

	"carillon/server/catalog"
	"carillon/server/embedded"
	"carillon/server/push"
)

func productKey(id push.ProductID) []byte { return keyOf(sortProduct, string(id)) }

func deviceKeyKey(p push.ProductID, id catalog.KeyID) []byte {
	return keyOf(sortDeviceKey, string(p), string(id))
}

func apiKeyKey(id catalog.APIKeyID) []byte { return keyOf(sortAPIKey, string(id)) }

// CreateProduct stores a new product.
func (c *Catalog) CreateProduct(ctx context.Context, p catalog.Product) (catalog.Product, error) {
	err := c.write(ctx, func(b *embedded.Batch, now push.MilliTime) (err error) {
		if p, err = catalog.NewProduct(p, catalog.LocalShards, now); err != nil {
			return err
		}
		if there, err := c.has(productKey(p.ID)); err != nil || there {
			return either(err, catalog.ErrProductExists)
		}
		return set(b, productKey(p.ID))(catalog.EncodeProduct(p, nil))
	})
	return orZero(p, err)
}

// Product returns a product.
func (c *Catalog) Product(ctx context.Context, id push.ProductID) (catalog.Product, error) {
	if err := c.usable(ctx); err != nil {
		return catalog.Product{}, err
	}
	return get(c, productKey(id), catalog.DecodeProduct, catalog.ErrProductNotFound)
}

// Products returns products by id.
func (c *Catalog) Products(ctx context.Context, page catalog.Page) (l catalog.List[catalog.Product], err error) {
	if err := c.usable(ctx); err != nil {
		return l, err
	}
	return list(c, page, keyOf(sortProduct), func(_ string, value []byte) (catalog.Product, error) {
		return catalog.DecodeProduct(value)
	})
}

// UpdateProduct replaces what may change of a product.
func (c *Catalog) UpdateProduct(ctx context.Context, p catalog.Product) (catalog.Product, error) {
	err := c.write(ctx, func(b *embedded.Batch, now push.MilliTime) error {
		stored, found, err := c.db.Get(nil, productKey(p.ID))
		if err != nil {
			return failed(err)
		}
		if !found {
			return catalog.ErrProductNotFound()
		}
		old, err := catalog.DecodeProduct(stored)
		if err != nil {
			return err
		}
		if p, err = catalog.ChangedProduct(old, p, now); err != nil {
			return err
		}
		return set(b, productKey(p.ID))(catalog.EncodeProduct(p, stored))
	})
	return orZero(p, err)
}

// AddDeviceKey stores a key that signs device tokens.
func (c *Catalog) AddDeviceKey(ctx context.Context, k catalog.DeviceKey) (catalog.DeviceKey, error) {
	err := c.write(ctx, func(b *embedded.Batch, now push.MilliTime) (err error) {
		if k, err = catalog.NewDeviceKey(k, now); err != nil {
			return err
		}
		if there, err := c.has(productKey(k.Product)); err != nil || !there {
			return either(err, catalog.ErrProductNotFound)
		}
		key := deviceKeyKey(k.Product, k.ID)
		if there, err := c.has(key); err != nil || there {
			return either(err, catalog.ErrKeyExists)
		}
		return set(b, key)(catalog.EncodeDeviceKey(k))
	})
	return orZero(k, err)
}

// DeviceKey returns a key, revoked or not.
func (c *Catalog) DeviceKey(ctx context.Context, p push.ProductID, id catalog.KeyID) (catalog.DeviceKey, error) {
	if err := c.usable(ctx); err != nil {
		return catalog.DeviceKey{}, err
	}
	return get(c, deviceKeyKey(p, id), catalog.DecodeDeviceKey, catalog.ErrKeyNotFound)
}

// DeviceKeys returns the keys of a product by id.
func (c *Catalog) DeviceKeys(ctx context.Context, p push.ProductID, page catalog.Page) (
	l catalog.List[catalog.DeviceKey], err error,
) {
	if err := c.needProduct(ctx, p); err != nil {
		return l, err
	}
	return list(c, page, keyOf(sortDeviceKey, string(p)), func(_ string, value []byte) (catalog.DeviceKey, error) {
		return catalog.DecodeDeviceKey(value)
	})
}

// RevokeDeviceKey ends a key for good.
func (c *Catalog) RevokeDeviceKey(ctx context.Context, p push.ProductID, id catalog.KeyID) (
	k catalog.DeviceKey, err error,
) {
	err = c.write(ctx, func(b *embedded.Batch, now push.MilliTime) (err error) {
		key := deviceKeyKey(p, id)
		if k, err = get(c, key, catalog.DecodeDeviceKey, catalog.ErrKeyNotFound); err != nil || k.Revoked != 0 {
			return err
		}
		k.Revoked = now
		return set(b, key)(catalog.EncodeDeviceKey(k))
	})
	return orZero(k, err)
}

// AddAPIKey stores an API key.
func (c *Catalog) AddAPIKey(ctx context.Context, k catalog.APIKey) (catalog.APIKey, error) {
	err := c.write(ctx, func(b *embedded.Batch, now push.MilliTime) (err error) {
		if k, err = catalog.AddedAPIKey(k, now); err != nil {
			return err
		}
		if there, err := c.has(productKey(k.Product)); err != nil || !there {
			return either(err, catalog.ErrProductNotFound)
		}
		key := apiKeyKey(k.ID)
		if there, err := c.has(key); err != nil || there {
			return either(err, catalog.ErrKeyExists)
		}
		b.Set(keyOf(sortAPIKeyList, string(k.Product), string(k.ID)), nil)
		return set(b, key)(catalog.EncodeAPIKey(k))
	})
	return orZero(k, err)
}

// APIKey returns a key, revoked and expired ones too.
func (c *Catalog) APIKey(ctx context.Context, id catalog.APIKeyID) (catalog.APIKey, error) {
	if err := c.usable(ctx); err != nil {
		return catalog.APIKey{}, err
	}
	return get(c, apiKeyKey(id), catalog.DecodeAPIKey, catalog.ErrKeyNotFound)
}

// APIKeys returns the keys of a product by id.
func (c *Catalog) APIKeys(ctx context.Context, p push.ProductID, page catalog.Page) (
	l catalog.List[catalog.APIKey], err error,
) {
	if err := c.needProduct(ctx, p); err != nil {
		return l, err
	}
	return list(c, page, keyOf(sortAPIKeyList, string(p)), func(name string, _ []byte) (catalog.APIKey, error) {
		return get(c, apiKeyKey(catalog.APIKeyID(name)), catalog.DecodeAPIKey, catalog.ErrKeyNotFound)
	})
}

// RevokeAPIKey ends a key for good.
func (c *Catalog) RevokeAPIKey(ctx context.Context, p push.ProductID, id catalog.APIKeyID) (
	k catalog.APIKey, err error,
) {
	err = c.write(ctx, func(b *embedded.Batch, now push.MilliTime) (err error) {
		if k, err = get(c, apiKeyKey(id), catalog.DecodeAPIKey, catalog.ErrKeyNotFound); err != nil {
			return err
		}
		if k.Product != p {
			return catalog.ErrKeyNotFound()
		}
		if k.Revoked != 0 {
			return nil
		}
		k.Revoked = now
		return set(b, apiKeyKey(id))(catalog.EncodeAPIKey(k))
	})
	return orZero(k, err)
}

// needProduct returns an error if a call cannot take place or the product is not there.
func (c *Catalog) needProduct(ctx context.Context, p push.ProductID) error {
	if err := c.usable(ctx); err != nil {
		return err
	}
	if there, err := c.has(productKey(p)); err != nil || !there {
		return either(err, catalog.ErrProductNotFound)
	}
	return nil
}

// set returns a function that puts what an encoder returned into the batch.
func set(b *embedded.Batch, key []byte) func(value []byte, err error) error {
	return func(value []byte, err error) error {
		if err == nil {
			b.Set(key, value)
		}
		return err
	}
}

// either returns err if there is one, otherwise the other.
func either(err error, other func() error) error {
	if err != nil {
		return err
	}
	return other()
}

// orZero returns v, or the zero value with an error.
func orZero[V any](v V, err error) (V, error) {
	if err != nil {
		var zero V
		return zero, err
	}
	return v, nil
}
