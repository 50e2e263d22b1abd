// Package catalog is the contract over all that is small and administered: products with their policies, the keys that
// sign device tokens, the API keys of product servers, and the revocations of tokens.
//
// # Place in the flow
//
// Operators and the command line write it, rarely. Every connect asks for a product and a device key, every REST request
// for an API key: they ask a [Cache], which answers from memory. Implementations are memory, pebble and (on several nodes)
// redis, all behind the suite catalogtest.
//
// # Invariants
//
//   - Nothing crosses products: a key belongs to one product, and a device key is found only together with it.
//   - What a write answered without error is stored at the durability of the store.
//   - Keys are never changed and never deleted, only revoked, and a revocation is not taken back: what an id meant once
//     it means for ever.
//   - A product's number of shards never changes, since what is stored lies by it.
//   - The secret of an API key is not in the catalog, only its hash. The secret of an HS256 key is, and no text that
//     is made of it shows it (see [Material]).
//   - Every write changes the version, and no two states have the same one.
//   - A revocation refuses what it refused when it was answered until it ends or is lifted: it is never shortened, and a
//     later one of the same target never says less.
package catalog

import (
	"context"

	"carillon/server/push"
)

// Catalog keeps what is administered. All methods are safe for concurrent use; results belong to the caller. Errors are
// *push.Error. After Close every method fails with KindClosed.
type Catalog interface {
	// CreateProduct stores a new product. Shards 0 means as many as suit the store: LocalShards, or more where it is spread
	// over several nodes; times and revision are set by the catalog.
	// KindInvalid, "bad_product". KindConflict, "product_exists".
	CreateProduct(ctx context.Context, p Product) (Product, error)
	// Product returns a product. KindNotFound, "product_not_found".
	Product(ctx context.Context, id push.ProductID) (Product, error)
	// Products returns products by id.
	Products(ctx context.Context, page Page) (List[Product], error)
	// UpdateProduct replaces what may change of a product: all but its id, shards (0 leaves them) and times. Revision is
	// that of the product the change was made from; 0 means whatever it is now. KindInvalid, "bad_product" or
	// "shards_fixed". KindNotFound, "product_not_found". KindConflict, "product_changed": somebody else was first.
	UpdateProduct(ctx context.Context, p Product) (Product, error)

	// AddDeviceKey stores a key that signs device tokens. KindInvalid, "bad_key". KindNotFound, "product_not_found".
	// KindConflict, "key_exists": the product has, or had, a key of that id.
	AddDeviceKey(ctx context.Context, k DeviceKey) (DeviceKey, error)
	// DeviceKey returns a key, revoked or not. KindNotFound, "key_not_found".
	DeviceKey(ctx context.Context, p push.ProductID, id KeyID) (DeviceKey, error)
	// DeviceKeys returns the keys of a product by id, revoked ones too. KindNotFound, "product_not_found".
	DeviceKeys(ctx context.Context, p push.ProductID, page Page) (List[DeviceKey], error)
	// RevokeDeviceKey ends a key for good. Repeating it changes nothing. KindNotFound, "key_not_found".
	RevokeDeviceKey(ctx context.Context, p push.ProductID, id KeyID) (DeviceKey, error)

	// AddAPIKey stores an API key; NewAPIKey makes one. KindInvalid, "bad_key". KindNotFound, "product_not_found".
	// KindConflict, "key_exists": there is, or was, a key of that id, of whatever product.
	AddAPIKey(ctx context.Context, k APIKey) (APIKey, error)
	// APIKey returns a key, revoked and expired ones too. KindNotFound, "key_not_found".
	APIKey(ctx context.Context, id APIKeyID) (APIKey, error)
	// APIKeys returns the keys of a product by id, revoked ones too. KindNotFound, "product_not_found".
	APIKeys(ctx context.Context, p push.ProductID, page Page) (List[APIKey], error)
	// RevokeAPIKey ends a key for good. Repeating it changes nothing. KindNotFound, "key_not_found": that product has no
	// such key.
	RevokeAPIKey(ctx context.Context, p push.ProductID, id APIKeyID) (APIKey, error)

	// Revoke stores that tokens are refused from now on, those of r's target; Reason is kept with it, the rest is set by the
	// catalog. One of the same target takes the place of the older. A few that have ended are cleared away on the way.
	// KindInvalid, "bad_revocation". KindNotFound, "product_not_found". KindLimited, "too_many_revocations".
	Revoke(ctx context.Context, r Revocation) (Revocation, error)
	// LiftRevocation ends a revocation of exactly that target before its time. KindNotFound, "revocation_not_found": there
	// is none, it was lifted already, or has ended.
	LiftRevocation(ctx context.Context, p push.ProductID, t RevocationTarget) error
	// Revocations returns what a product refuses at the moment: revocations that were neither lifted nor have ended, by user,
	// device and token id. List.Next is opaque. KindInvalid, "bad_page". KindNotFound, "product_not_found".
	Revocations(ctx context.Context, p push.ProductID, page Page) (List[Revocation], error)
	// RevocationChanges returns revocations of all products whose latest change is above after, by change, lifted ones
	// too, at most limit (0 means MaxChanges). Whoever follows begins at 0, passes on the last change that was returned,
	// and is up to date when fewer than limit come. Those that have ended may be missing. KindInvalid, "bad_page".
	RevocationChanges(ctx context.Context, after Change, limit int) ([]Revocation, error)

	// Version names the present state. It differs after every write; nothing else can be told from it.
	Version(ctx context.Context) (Version, error)

	// Close releases the catalog. Calling it again does nothing.
	Close() error
}

// Version names a state of the catalog.
type Version uint64

// Page asks for a part of a list: what comes after the cursor that the part before ended with.
type Page struct {
	After string // List.Next of the part before; empty: from the beginning
	Limit int    // 1 to MaxPage; 0 means DefaultPage
}

// The sizes of a part of a list.
const (
	DefaultPage = 100
	MaxPage     = 1000
)

// List is a part of a list, in order of ids, byte by byte. Next is empty if nothing comes after it.
type List[T any] struct {
	Items []T
	Next  string
}

// Check returns the page with its default filled in. KindInvalid, "bad_page".
func (p Page) Check() (Page, error) {
	if p.Limit < 0 || p.Limit > MaxPage {
		return p, push.Errorf(push.KindInvalid, "bad_page", "a page has 1 to %d items", MaxPage)
	}
	if p.Limit == 0 {
		p.Limit = DefaultPage
	}
	return p, nil
}
