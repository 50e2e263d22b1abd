// Package catalogtest is the suite of the catalog contract. An implementation passes it by calling [Run] with a maker:
//
//	func TestConformance(t *testing.T) { catalogtest.Run(t, newFixture) }
package catalogtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"carillon/server/catalog"
	"carillon/server/push"
)

// Fixture is a catalog under test and the powers a test has over it.
type Fixture struct {
	Catalog catalog.Catalog
	// Shards is how many a product has that does not say so itself.
	Shards int
	// Elapse makes that much time pass for the catalog.
	Elapse func(time.Duration)
	// Reopen closes the catalog and opens what it stored; nil if it stores nothing beyond its life.
	Reopen func() catalog.Catalog
}

// Maker makes an empty catalog. It releases what it made with t.Cleanup.
type Maker func(t *testing.T) *Fixture

// Run holds the catalogs that the maker makes to the contract.
func Run(t *testing.T, mk Maker) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *harness)
	}{
		{"ProductIsFoundAsItWasCreated", productIsFound},
		{"ProductDefaults", productDefaults},
		{"BadProductsAreRefused", badProducts},
		{"ProductExistsOnce", productExistsOnce},
		{"UpdateReplacesWhatMayChange", updateReplaces},
		{"UpdateOfAnOldRevisionIsRefused", updateOfOldRevision},
		{"ShardsAreFixed", shardsAreFixed},
		{"ProductsAreListedInPages", productsInPages},
		{"DeviceKeysOfAllAlgorithmsAreKept", deviceKeysKept},
		{"BadDeviceKeysAreRefused", badDeviceKeys},
		{"DeviceKeysBelongToTheirProduct", deviceKeysBelong},
		{"DeviceKeyIsRevokedForGood", deviceKeyRevoked},
		{"APIKeyIsFoundAsItWasAdded", apiKeyIsFound},
		{"BadAPIKeysAreRefused", badAPIKeys},
		{"APIKeysBelongToTheirProduct", apiKeysBelong},
		{"APIKeyIsRevokedForGood", apiKeyRevoked},
		{"KeysAreListedInPages", keysInPages},
		{"BadPagesAreRefused", badPages},
		{"RevocationIsKeptAsItWasAsked", revocationKept},
		{"BadRevocationsAreRefused", badRevocations},
		{"RevocationLastsLongerThanTokens", revocationLasts},
		{"RevocationIsLifted", revocationLifted},
		{"RevocationsAreFollowedByChange", revocationsInChanges},
		{"RevocationsInForceAreListed", revocationsListed},
		{"EndedRevocationsAreClearedAway", endedAreSwept},
		{"RaceToRevokeLosesNothing", raceToRevoke},
		{"ResultsBelongToTheCaller", resultsBelong},
		{"VersionDiffersAfterEveryWrite", versionDiffers},
		{"RaceToCreateHasOneWinner", raceToCreate},
		{"RaceToUpdateLosesNothing", raceToUpdate},
		{"WhatWasStoredIsThereAfterwards", reopened},
		{"ClosedCatalogRefuses", closed},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := mk(t)
			test.run(t, &harness{Fixture: f, t: t, ctx: t.Context()})
		})
	}
}

const (
	shop push.ProductID = "shop"
	game push.ProductID = "game"
)

// harness is a fixture with the calls that tests make over and over; they end the test on an error.
type harness struct {
	*Fixture
	t   *testing.T
	ctx context.Context
}

func (h *harness) create(ids ...push.ProductID) {
	h.t.Helper()
	for _, id := range ids {
		if _, err := h.Catalog.CreateProduct(h.ctx, catalog.Product{ID: id}); err != nil {
			h.t.Fatalf("CreateProduct(%s): %v", id, err)
		}
	}
}

func (h *harness) product(id push.ProductID) catalog.Product {
	h.t.Helper()
	p, err := h.Catalog.Product(h.ctx, id)
	if err != nil {
		h.t.Fatalf("Product(%s): %v", id, err)
	}
	return p
}

func (h *harness) addDeviceKey(k catalog.DeviceKey) catalog.DeviceKey {
	h.t.Helper()
	k, err := h.Catalog.AddDeviceKey(h.ctx, k)
	if err != nil {
		h.t.Fatalf("AddDeviceKey: %v", err)
	}
	return k
}

func (h *harness) addAPIKey(k catalog.APIKey) catalog.APIKey {
	h.t.Helper()
	k, err := h.Catalog.AddAPIKey(h.ctx, k)
	if err != nil {
		h.t.Fatalf("AddAPIKey: %v", err)
	}
	return k
}

func (h *harness) version() catalog.Version {
	h.t.Helper()
	v, err := h.Catalog.Version(h.ctx)
	if err != nil {
		h.t.Fatalf("Version: %v", err)
	}
	return v
}

// wantError holds an error to a kind and a code.
func wantError(t *testing.T, op string, err error, kind push.Kind, code string) {
	t.Helper()
	var e *push.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Code != code {
		t.Errorf("%s: got error %v, want kind %d, code %q", op, err, kind, code)
	}
}
