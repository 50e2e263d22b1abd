package center

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"

	"carillon/server/catalog"
	adminapi "carillon/server/center/api/admin"
	"carillon/server/center/strictjson"
	"carillon/server/push"
)

// generatedSecret is how many random bytes an HS256 secret has that is made here.
const generatedSecret = 32

// CreateDeviceKey serves POST /admin/v1/products/{product}/device-keys.
func (o adminOps) CreateDeviceKey(
	ctx context.Context, in adminapi.CreateDeviceKeyRequestObject,
) (adminapi.CreateDeviceKeyResponseObject, error) {
	product, err := productID(in.Product)
	if err != nil {
		return nil, err
	}
	k, err := parseDeviceKey(callOf(ctx).body)
	if err != nil {
		return nil, err
	}
	k.Product = product
	made, err := o.fillDeviceKey(&k)
	if err != nil {
		return nil, err
	}
	added, err := o.cfg.Catalog.AddDeviceKey(ctx, k.DeviceKey)
	if err != nil {
		return nil, err
	}
	out := adminapi.CreateDeviceKey201JSONResponse{
		Id: string(added.ID), Alg: adminapi.Algorithm(added.Alg), Name: added.Name, Created: showTime(added.Created),
	}
	if made {
		out.SecretBase64 = new(base64.StdEncoding.EncodeToString(added.Material))
	}
	return out, nil
}

// fillDeviceKey gives a key its material, and an id if it has none. made tells that the secret was made here.
func (c *Center) fillDeviceKey(k *newDeviceKey) (made bool, err error) {
	if k.ID == "" {
		id, err := randomHex(c.cfg.Rand, 8)
		if err != nil {
			return false, err
		}
		k.ID = catalog.KeyID("k-" + id)
	}
	given, at := []byte(k.public), "/public_key"
	if k.Alg == catalog.HS256 {
		given, at = k.secret, "/secret_base64"
		if made = given == nil; made {
			given = make([]byte, generatedSecret)
			if _, err := io.ReadFull(c.cfg.Rand, given); err != nil {
				return false, fmt.Errorf("center: random: %w", err)
			}
		}
	}
	if k.Material, err = catalog.ParseMaterial(k.Alg, given); err != nil {
		return false, &invalid{[]strictjson.FieldError{{Pointer: at, Code: strictjson.BadFormat, Detail: err.Error()}}}
	}
	return made, nil
}

// ListDeviceKeys serves GET /admin/v1/products/{product}/device-keys.
func (o adminOps) ListDeviceKeys(
	ctx context.Context, in adminapi.ListDeviceKeysRequestObject,
) (adminapi.ListDeviceKeysResponseObject, error) {
	product, err := productID(in.Product)
	if err != nil {
		return nil, err
	}
	page, err := pageAfter(in.Params.Limit, in.Params.Cursor)
	if err != nil {
		return nil, err
	}
	list, err := o.cfg.Catalog.DeviceKeys(ctx, product, page)
	if err != nil {
		return nil, err
	}
	out := adminapi.ListDeviceKeys200JSONResponse{Keys: []adminapi.DeviceKey{}, NextCursor: optString(list.Next)}
	for _, k := range list.Items {
		out.Keys = append(out.Keys, adminapi.DeviceKey{
			Id: string(k.ID), Alg: adminapi.Algorithm(k.Alg), Name: k.Name, Created: showTime(k.Created),
			Revoked: optTime(k.Revoked),
		})
	}
	return out, nil
}

// RevokeDeviceKey serves DELETE /admin/v1/products/{product}/device-keys/{key}.
func (o adminOps) RevokeDeviceKey(
	ctx context.Context, in adminapi.RevokeDeviceKeyRequestObject,
) (adminapi.RevokeDeviceKeyResponseObject, error) {
	product, err := productID(in.Product)
	if err != nil {
		return nil, err
	}
	id := catalog.KeyID(in.Key)
	if err := id.Check(); err != nil {
		return nil, &badParameter{"key", strictjson.BadFormat, err.Error()}
	}
	if _, err := o.cfg.Catalog.RevokeDeviceKey(ctx, product, id); err != nil {
		return nil, err
	}
	return adminapi.RevokeDeviceKey204Response{}, nil
}

// CreateApiKey serves POST /admin/v1/products/{product}/api-keys.
func (o adminOps) CreateApiKey(
	ctx context.Context, in adminapi.CreateApiKeyRequestObject,
) (adminapi.CreateApiKeyResponseObject, error) {
	product, err := productID(in.Product)
	if err != nil {
		return nil, err
	}
	k, err := parseAPIKey(callOf(ctx).body)
	if err != nil {
		return nil, err
	}
	if k.Expires != 0 && k.Expires <= push.Milli(o.cfg.Clock.Now()) {
		past := strictjson.FieldError{Pointer: "/expires", Code: strictjson.TooSmall, Detail: "lies in the past"}
		return nil, &invalid{[]strictjson.FieldError{past}}
	}
	k.Product = product
	k, text, err := catalog.NewAPIKey(o.cfg.Rand, k)
	if err != nil {
		return nil, err
	}
	if k, err = o.cfg.Catalog.AddAPIKey(ctx, k); err != nil {
		return nil, err
	}
	return adminapi.CreateApiKey201JSONResponse{
		Id: string(k.ID), Name: k.Name, Scopes: showScopes(k.Scopes), Created: showTime(k.Created), Expires: optTime(k.Expires),
		Key: string(text),
	}, nil
}

// ListApiKeys serves GET /admin/v1/products/{product}/api-keys.
func (o adminOps) ListApiKeys(
	ctx context.Context, in adminapi.ListApiKeysRequestObject,
) (adminapi.ListApiKeysResponseObject, error) {
	product, err := productID(in.Product)
	if err != nil {
		return nil, err
	}
	page, err := pageAfter(in.Params.Limit, in.Params.Cursor)
	if err != nil {
		return nil, err
	}
	list, err := o.cfg.Catalog.APIKeys(ctx, product, page)
	if err != nil {
		return nil, err
	}
	out := adminapi.ListApiKeys200JSONResponse{Keys: []adminapi.ApiKey{}, NextCursor: optString(list.Next)}
	for _, k := range list.Items {
		out.Keys = append(out.Keys, adminapi.ApiKey{
			Id: string(k.ID), Name: k.Name, Scopes: showScopes(k.Scopes), Created: showTime(k.Created),
			Expires: optTime(k.Expires), Revoked: optTime(k.Revoked),
		})
	}
	return out, nil
}

func showScopes(scopes []catalog.Scope) []adminapi.Scope {
	out := make([]adminapi.Scope, len(scopes))
	for i, s := range scopes {
		out[i] = adminapi.Scope(s)
	}
	return out
}

// RevokeApiKey serves DELETE /admin/v1/products/{product}/api-keys/{key}.
func (o adminOps) RevokeApiKey(
	ctx context.Context, in adminapi.RevokeApiKeyRequestObject,
) (adminapi.RevokeApiKeyResponseObject, error) {
	product, err := productID(in.Product)
	if err != nil {
		return nil, err
	}
	id := catalog.APIKeyID(in.Key)
	if err := id.Check(); err != nil {
		return nil, &badParameter{"key", strictjson.BadFormat, err.Error()}
	}
	if _, err := o.cfg.Catalog.RevokeAPIKey(ctx, product, id); err != nil {
		return nil, err
	}
	return adminapi.RevokeApiKey204Response{}, nil
}
