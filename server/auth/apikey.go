package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"carillon/server/catalog"
	"carillon/server/clock"
	"carillon/server/push"
)

// APIKeySource is where API keys and products are found. *catalog.Cache is one. What it returns is shared and not changed.
type APIKeySource interface {
	LookupProduct(ctx context.Context, id push.ProductID) (*catalog.Product, error)
	LookupAPIKey(ctx context.Context, id catalog.APIKeyID) (*catalog.APIKey, error)
}

// APIConfig says how a check of API keys is made.
type APIConfig struct {
	Keys  APIKeySource
	Clock clock.Clock // clock.System if nil
}

// APIKeys checks the API keys of requests. All methods are safe for concurrent use.
type APIKeys struct {
	keys  APIKeySource
	clock clock.Clock
}

// NewAPIKeys returns a check of API keys.
func NewAPIKeys(c APIConfig) (*APIKeys, error) {
	if c.Keys == nil {
		return nil, errors.New("auth: a check of API keys needs keys")
	}
	if c.Clock == nil {
		c.Clock = clock.System
	}
	return &APIKeys{c.Keys, c.Clock}, nil
}

// Principal is a product's server that made a request.
type Principal struct {
	Product *catalog.Product // shared: do not change it
	KeyID   catalog.APIKeyID
	Name    string          // of the key, for people
	Scopes  []catalog.Scope // shared: do not change them
}

// Check returns whose key stands in an Authorization header. A *Refusal says why nobody's does: KindUnauthenticated, with
// code "unauthenticated" for a key that is unknown or wrong, which nobody can tell apart, "key_revoked" or "key_expired"
// for one whose secret was right; KindForbidden, "product_disabled". Another error is the catalog's.
func (a *APIKeys) Check(ctx context.Context, authorization string) (Principal, error) {
	text, ok := BearerOf(authorization)
	if !ok {
		return Principal{}, refuse(ReasonMissing, push.KindUnauthenticated, CodeUnauthenticated, "%s", howToAuthenticate)
	}
	id, hash, ok := catalog.APIKeyText(text).Parse()
	if !ok {
		return Principal{}, refuse(ReasonMalformed, push.KindUnauthenticated, CodeUnauthenticated, "%s", howToAuthenticate)
	}
	key, err := a.keys.LookupAPIKey(ctx, id)
	reason := ReasonSignature
	if isNotFound(err) {
		key, reason = &catalog.APIKey{}, ReasonUnknownKey // compared all the same: it takes as long
	} else if err != nil {
		return Principal{}, fmt.Errorf("auth: look up the API key: %w", err)
	}
	if !key.Hash.Equal(hash) {
		return Principal{}, refuse(reason, push.KindUnauthenticated, CodeUnauthenticated, "%s", howToAuthenticate)
	}
	if key.Revoked != 0 {
		return Principal{}, refuse(ReasonRevokedKey, push.KindUnauthenticated, CodeKeyRevoked, "the API key was revoked")
	}
	if key.Expires != 0 && push.Milli(a.clock.Now()) >= key.Expires {
		return Principal{}, refuse(ReasonExpired, push.KindUnauthenticated, CodeKeyExpired, "the API key expired")
	}
	product, err := a.keys.LookupProduct(ctx, key.Product)
	if err != nil {
		return Principal{}, fmt.Errorf("auth: look up the product of an API key: %w", err)
	}
	if product.Disabled {
		return Principal{}, refuseDisabled()
	}
	return Principal{Product: product, KeyID: key.ID, Name: key.Name, Scopes: key.Scopes}, nil
}

const howToAuthenticate = `send a valid API key: "Authorization: Bearer cak_..."`

// Require returns nil if the key has the scope, or a *Refusal: KindForbidden, "scope_missing".
func (p Principal) Require(s catalog.Scope) error {
	if slices.Contains(p.Scopes, s) || slices.Contains(p.Scopes, catalog.ScopeAll) {
		return nil
	}
	return refuse(ReasonScope, push.KindForbidden, CodeScopeMissing, "the API key does not have the scope %s", s)
}

// BearerOf returns the credential of an Authorization header of the scheme Bearer; ok is false if it is none. The scheme
// is read without regard to case, as HTTP has it.
func BearerOf(authorization string) (credential string, ok bool) {
	scheme, credential, found := strings.Cut(authorization, " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	credential = strings.TrimLeft(credential, " ")
	if credential == "" || strings.ContainsAny(credential, " \t\r\n") {
		return "", false
	}
	return credential, true
}
