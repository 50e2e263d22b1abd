// Package pebble is the catalog of an embedded node: it lies in the node's one database, beside all else, under the
// space embedded.SpaceCatalog.
//
// # Keys
//
// After the space comes one byte for the sort of record, then names, each escaped and ended so that no name reaches into
// another's range and names are in order:
//
//	v                     the version, 8 bytes big endian
//	p product             a product
//	d product key id      a device key
//	a key id              an API key
//	o product key id      an API key's place in the list of its product; no value
//	r product user device token   a revocation, of a user, a device, or a token id
//	w change              the key of the revocation that a change wrote, as long as it is its latest; 8 bytes big endian
//	e until r...          a revocation's place among the ends, 8 bytes big endian and the names of its key; no value
//	n product             how many revocations a product has, 8 bytes big endian
//
// # Invariants
//
//   - Writers go one at a time, from reading what is there until the flush to disk, so that whoever repeats a write and is
//     told "it is so already" is told what survives a power loss. They are few, and no reader waits for them.
//   - Each write is one batch and holds the next version: whoever sees the change sees the version.
package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"carillon/server/catalog"
	"carillon/server/clock"
	"carillon/server/embedded"
	"carillon/server/failpoint"
	"carillon/server/push"
)

// Config says how a catalog is made.
type Config struct {
	DB    *embedded.DB // stays open when the catalog is closed
	Clock clock.Clock  // clock.System if nil
}

// Catalog is a catalog.Catalog. All methods are safe for concurrent use.
type Catalog struct {
	// Static after construction.
	db    *embedded.DB
	clock clock.Clock

	closed atomic.Bool

	writing sync.Mutex // one writer at a time
}

var _ catalog.Catalog = (*Catalog)(nil)

// New returns the catalog that lies in a database.
func New(c Config) (*Catalog, error) {
	if c.DB == nil {
		return nil, errors.New("catalog: pebble needs a database")
	}
	if c.Clock == nil {
		c.Clock = clock.System
	}
	return &Catalog{db: c.DB, clock: c.Clock}, nil
}

// Close makes every later call fail. A write that is under way finishes first. The database stays open.
func (c *Catalog) Close() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.closed.Store(true)
	return nil
}

// The sorts of records.
const (
	sortVersion    = 'v'
	sortProduct    = 'p'
	sortDeviceKey  = 'd'
	sortAPIKey     = 'a'
	sortAPIKeyList = 'o'

	sortRevocation      = 'r'
	sortChange          = 'w'
	sortEnd             = 'e'
	sortRevocationCount = 'n'
)

// keyOf returns the key of a record.
func keyOf(sort byte, names ...string) []byte {
	k := append(make([]byte, 0, 64), byte(embedded.SpaceCatalog), sort)
	for _, n := range names {
		k = embedded.AppendKeyString(k, n)
	}
	return k
}

// usable returns why a call cannot take place, nil if it can.
func (c *Catalog) usable(ctx context.Context) error {
	if c.closed.Load() {
		return catalog.ErrClosed()
	}
	if err := ctx.Err(); err != nil {
		return catalog.ErrUnavailable(err)
	}
	return nil
}

// get reads one record; a record that is not there is missing.
func get[V any](c *Catalog, key []byte, decode func([]byte) (V, error), missing func() error) (v V, err error) {
	b, found, err := c.db.Get(nil, key)
	if err != nil {
		return v, failed(err)
	}
	if !found {
		return v, missing()
	}
	return decode(b)
}

// has reports whether there is a record.
func (c *Catalog) has(key []byte) (bool, error) {
	_, found, err := c.db.Get(nil, key)
	if err != nil {
		return false, failed(err)
	}
	return found, nil
}

// Version names the present state.
func (c *Catalog) Version(ctx context.Context) (catalog.Version, error) {
	if err := c.usable(ctx); err != nil {
		return 0, err
	}
	return c.version()
}

func (c *Catalog) version() (catalog.Version, error) {
	b, found, err := c.db.Get(nil, keyOf(sortVersion))
	if err != nil {
		return 0, failed(err)
	}
	if !found {
		return 0, nil
	}
	if len(b) != 8 {
		return 0, failed(errors.New("the catalog's version does not have 8 bytes"))
	}
	return catalog.Version(binary.BigEndian.Uint64(b)), nil
}

// write lets f fill a batch, adds the next version, and returns when both are on disk. If f fails nothing is written.
func (c *Catalog) write(ctx context.Context, f func(b *embedded.Batch, now push.MilliTime) error) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.usable(ctx); err != nil {
		return err
	}
	v, err := c.version()
	if err != nil {
		return err
	}
	b := c.db.NewBatch()
	if err := f(b, push.Milli(c.clock.Now())); err != nil {
		c.db.Discard(b)
		return err
	}
	b.Set(keyOf(sortVersion), binary.BigEndian.AppendUint64(nil, uint64(v+1)))
	ticket, err := c.db.Commit(b)
	if err != nil {
		return failed(err)
	}
	failpoint.Hit(failpoint.CatalogWritten)
	if err := ticket.Wait(ctx); err != nil {
		return failed(err)
	}
	return nil
}

// failed returns an error of the database as one of the catalog: as it is if it has a kind, otherwise as internal.
func failed(err error) error {
	var e *push.Error
	if errors.As(err, &e) {
		return err
	}
	return &push.Error{Kind: push.KindInternal, Code: "catalog_damaged", Detail: "the catalog cannot be read", Err: err}
}

// list returns the page of the records under a prefix, by name. The name is what a key holds beyond the prefix; record
// returns what stands under it.
func list[V any](c *Catalog, page catalog.Page, prefix []byte, record func(name string, value []byte) (V, error)) (
	l catalog.List[V], err error,
) {
	if page, err = page.Check(); err != nil {
		return l, err
	}
	it, err := c.db.ScanPrefix(prefix)
	if err != nil {
		return l, failed(err)
	}
	defer func() {
		if e := it.Close(); e != nil && err == nil {
			err = failed(e)
		}
	}()
	last := ""
	for ok := it.SeekGE(embedded.AppendKeyString(append([]byte(nil), prefix...), page.After)); ok; ok = it.Next() {
		name, _, err := embedded.CutKeyString(it.Key()[len(prefix):])
		if err != nil {
			return l, failed(err)
		}
		if name == page.After {
			continue
		}
		if len(l.Items) == page.Limit {
			l.Next = last
			break
		}
		value, err := it.Value()
		if err != nil {
			return l, failed(err)
		}
		v, err := record(name, value)
		if err != nil {
			return l, err
		}
		l.Items, last = append(l.Items, v), name
	}
	if err := it.Err(); err != nil {
		return l, failed(err)
	}
	return l, nil
}
