// Package redis is the catalog of many nodes that share one Redis. It is small, so all of it lies under one hash tag.
//
// # Keys
//
// Under the tag "catalog"; in braces what a record is:
//
//	v:                  the version in decimal, a space, the lineage under which it was written
//	p:                  hash: product to {product}
//	d:<product>         hash: key id to {device key}
//	a:                  hash: key id to {API key}, of all products
//	P:  D:<product>     sorted sets: the names in p: and d:, for lists in order
//	A:<product>         sorted set: the ids of the product's API keys
//	r:<product>         hash: target to {revocation}
//	R:<product>         sorted set: the targets of those that were not lifted, for the list in order
//	w:                  sorted set: product and target of each revocation, by its change
//	e:                  sorted set: the same by its end
//
// # Invariants
//
//   - Every write is made on the condition that the version is still the one that it was decided under, and sets the next: so writes follow one after the other,
//     on whatever nodes they are made, and whoever sees a change sees its version. They are few.
//   - Versions rise with the store's clock (milliseconds << 10), and the first under a new lineage skips a minute more. So a store that fell back gives no
//     version, and no number of a change, that somebody saw before with other contents.
//   - What a call answers that changes nothing, since it is so already, survives what a write does: it is written once more.
package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"carillon/server/catalog"
	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/redisdb"
)

// DefaultShards is how many shards a product has unless it says so itself. A shard lies on one node of a Redis Cluster, whole, and can
// never be divided: so many are enough to spread a large product over any number of nodes evenly.
const DefaultShards = 1024

// Config says how a catalog is made.
type Config struct {
	DB *redisdb.DB // stays open when the catalog is closed
}

// Catalog is a catalog.Catalog. All methods are safe for concurrent use.
type Catalog struct {
	// Static after construction.
	db *redisdb.DB

	closed atomic.Bool

	writing chan struct{} // the turn of whoever writes, so that only writers of other nodes can be faster
}

var _ catalog.Catalog = (*Catalog)(nil)

// New returns the catalog that lies in a database.
func New(c Config) (*Catalog, error) {
	if c.DB == nil {
		return nil, errors.New("catalog: redis needs a database")
	}
	return &Catalog{db: c.DB, writing: make(chan struct{}, 1)}, nil
}

// Close makes every later call fail. The database stays open.
func (c *Catalog) Close() error {
	c.closed.Store(true)
	return nil
}

const tag redisdb.Tag = "catalog"

var (
	versionKey  = tag.Key("v", "")
	productsKey = tag.Key("p", "")
	productList = tag.Key("P", "")
	apiKeysKey  = tag.Key("a", "")
	changesKey  = tag.Key("w", "")
	endsKey     = tag.Key("e", "")
)

func deviceKeysKey(p push.ProductID) string  { return tag.Key("d", string(p)) }
func deviceKeyList(p push.ProductID) string  { return tag.Key("D", string(p)) }
func apiKeyList(p push.ProductID) string     { return tag.Key("A", string(p)) }
func revocationsKey(p push.ProductID) string { return tag.Key("r", string(p)) }
func revocationList(p push.ProductID) string { return tag.Key("R", string(p)) }

func hget(key, field string) redisdb.Command {
	return redisdb.Command{Name: "HGET", Key: key, Args: []any{field}}
}

func hset(key, field string, value []byte) redisdb.Command {
	return redisdb.Command{Name: "HSET", Key: key, Args: []any{field, value}}
}

func listed(key, name string) redisdb.Command {
	return redisdb.Command{Name: "ZADD", Key: key, Args: []any{0, name}}
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

// read asks for replies of one moment.
func (c *Catalog) read(ctx context.Context, do ...redisdb.Command) (*redisdb.Read, error) {
	if err := c.usable(ctx); err != nil {
		return nil, err
	}
	r := &redisdb.Read{Tag: tag, Do: do}
	c.db.Read(ctx, r)
	return r, failed(r.Err)
}

// failed returns an error of the database as one of the catalog.
func failed(err error) error {
	switch {
	case err == nil:
		return nil
	case push.KindOf(err) == push.KindClosed:
		return catalog.ErrClosed()
	case push.KindOf(err) == push.KindUnavailable:
		return catalog.ErrUnavailable(err)
	}
	return damaged(err)
}

func damaged(err error) error {
	return &push.Error{Kind: push.KindInternal, Code: "catalog_damaged", Detail: "the catalog cannot be read", Err: err}
}

// version is the number of the present state, and the lineage under which it was written.
type version struct {
	number  catalog.Version
	lineage push.Lineage
}

func parseVersion(reply any) (v version, err error) {
	if reply == nil {
		return v, nil
	}
	value, _ := reply.(string)
	a, b, _ := strings.Cut(value, " ")
	n, err1 := strconv.ParseUint(a, 10, 64)
	l, err2 := strconv.ParseUint(b, 10, 64)
	if err1 != nil || err2 != nil {
		return v, damaged(errors.New("the version is damaged"))
	}
	return version{catalog.Version(n), push.Lineage(l)}, nil
}

const (
	versionShift = 10           // so many low bits of a version lie below the milliseconds; scores are exact up to 53 bits
	versionSkip  = 60_000 << 10 // of the first version under a new lineage
)

// next returns the version of what is written now.
func (v version) next(l push.Lineage, now push.MilliTime) version {
	base := catalog.Version(max(now, 0)) << versionShift
	if v.lineage != l {
		base += versionSkip
	}
	return version{max(v.number+1, base), l}
}

// Version names the present state.
func (c *Catalog) Version(ctx context.Context) (catalog.Version, error) {
	r, err := c.read(ctx, redisdb.Command{Name: "GET", Key: versionKey})
	if err != nil {
		return 0, err
	}
	v, err := parseVersion(r.Replies[0])
	return v.number, err
}

// tries is how often a write is begun again that another node was faster than.
const tries = 50

// write reads what do asks for, has decide say by the replies what is to be done, and does it together with the next version, if the version is
// still the one that was read; otherwise it begins again. If decide fails nothing is written.
func (c *Catalog) write(ctx context.Context, do []redisdb.Command,
	decide func(replies []any, now push.MilliTime, change catalog.Change) ([]redisdb.Command, error),
) error {
	if err := c.usable(ctx); err != nil {
		return err
	}
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
	case <-ctx.Done():
		return catalog.ErrUnavailable(ctx.Err())
	}
	do = append([]redisdb.Command{{Name: "GET", Key: versionKey}}, do...)
	for try := range tries {
		if err := redisdb.Pause(ctx, try); err != nil {
			return catalog.ErrUnavailable(err)
		}
		r, err := c.read(ctx, do...)
		if err != nil {
			return err
		}
		v, err := parseVersion(r.Replies[0])
		if err != nil {
			return err
		}
		next := v.next(r.Lineage, r.Now)
		changes, err := decide(r.Replies[1:], r.Now, catalog.Change(next.number))
		if err != nil {
			return err
		}
		w := &redisdb.Write{
			Tag: tag, Under: r.Lineage, If: []redisdb.Condition{redisdb.IfValue(versionKey, r.Replies[0])},
			Do: append(changes, redisdb.Command{
				Name: "SET", Key: versionKey, Args: []any{fmt.Sprintf("%d %d", next.number, next.lineage)},
			}),
			Frees: true, // it has to be possible to revoke when memory is full, and all of this is small
		}
		c.db.Write(ctx, w)
		if w.Err != nil {
			return failed(w.Err)
		}
		if w.Done {
			failpoint.Hit(failpoint.CatalogWritten)
			return nil
		}
	}
	return catalog.ErrUnavailable(errors.New("others keep being faster"))
}

// record decodes a reply; one that is not there is missing.
func record[V any](reply any, decode func([]byte) (V, error), missing func() error) (v V, err error) {
	s, ok := reply.(string)
	if !ok {
		return v, missing()
	}
	return decode([]byte(s))
}

// list returns the page of what lies in a hash, in the order of the names in a sorted set. Names are never taken out of either.
func list[V any](ctx context.Context, c *Catalog, page catalog.Page, names, records string, decode func([]byte) (V, error)) (
	l catalog.List[V], err error,
) {
	if page, err = page.Check(); err != nil {
		return l, err
	}
	from := "-"
	if page.After != "" {
		from = "(" + page.After
	}
	r, err := c.read(ctx, redisdb.Command{Name: "ZRANGEBYLEX", Key: names, Args: []any{from, "+", "LIMIT", 0, page.Limit + 1}})
	if err != nil {
		return l, err
	}
	found, _ := r.Replies[0].([]any)
	if len(found) > page.Limit {
		found = found[:page.Limit]
		l.Next, _ = found[page.Limit-1].(string)
	}
	if len(found) == 0 {
		return l, nil
	}
	if r, err = c.read(ctx, redisdb.Command{Name: "HMGET", Key: records, Args: found}); err != nil {
		return l, err
	}
	values, _ := r.Replies[0].([]any)
	for _, reply := range values {
		v, err := record(reply, decode, func() error { return damaged(errors.New("a list names what is not there")) })
		if err != nil {
			return l, err
		}
		l.Items = append(l.Items, v)
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
