package redis

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"carillon/server/catalog"
	"carillon/server/push"
	"carillon/server/redisdb"
)

// fieldOf names a revocation within its product. What it is made of holds no control characters.
func fieldOf(t catalog.RevocationTarget) string {
	return strings.Join([]string{string(t.User), string(t.Device), t.TokenID}, "\x00")
}

// memberOf names a revocation among those of all products.
func memberOf(p push.ProductID, field string) string { return string(p) + "\x00" + field }

func cutMember(m string) (p push.ProductID, field string, err error) {
	product, field, ok := strings.Cut(m, "\x00")
	if !ok {
		return "", "", damaged(errors.New("a list names no revocation"))
	}
	return push.ProductID(product), field, nil
}

// sweptWhenFull is how many that have ended are looked for if the product has no room for another.
const sweptWhenFull = 1000

// errFull says that there is no room yet, but that some of those in the way are cleared away by now.
var errFull = errors.New("there is no room yet")

// Revoke stores that tokens are refused from now on.
func (c *Catalog) Revoke(ctx context.Context, r catalog.Revocation) (catalog.Revocation, error) {
	sweep := catalog.SweptAtRevoke
	for {
		made, err := c.revoke(ctx, r, sweep)
		if !errors.Is(err, errFull) {
			return orZero(made, err)
		}
		sweep = sweptWhenFull
	}
}

// revoke clears away so many at most. errFull: try again, with more.
func (c *Catalog) revoke(ctx context.Context, r catalog.Revocation, sweep int) (made catalog.Revocation, err error) {
	field := fieldOf(r.RevocationTarget)
	full := false
	err = c.write(ctx, []redisdb.Command{
		hget(productsKey, string(r.Product)),
		hget(revocationsKey(r.Product), field),
		{Name: "HLEN", Key: revocationsKey(r.Product)},
		{Name: "ZRANGE", Key: endsKey, Args: []any{0, sweep - 1, "WITHSCORES"}},
	}, func(was []any, now push.MilliTime, change catalog.Change) ([]redisdb.Command, error) {
		full = false
		p, err := record(was[0], catalog.DecodeProduct, catalog.ErrProductNotFound)
		if err != nil {
			return nil, err
		}
		var old *catalog.Revocation
		if was[1] != nil {
			there, err := record(was[1], catalog.DecodeRevocation, nil)
			if err != nil {
				return nil, err
			}
			old = &there
		}
		if made, err = catalog.NewRevocation(r, old, p.MaxTokenLifetime(), now, change); err != nil {
			return nil, err
		}
		count, _ := was[2].(int64)
		do, ours, ended, err := sweepEnded(was[3], now, r.Product, field)
		if err != nil {
			return nil, err
		}
		if old == nil && int(count)-ours >= catalog.MaxRevocations {
			if ended < sweep {
				return nil, catalog.ErrTooManyRevocations()
			}
			full = true // others' stand before its own: what was found of them is cleared away, and the rest is looked at then
			return do, nil
		}
		put, err := putRevocation(&made)
		return append(do, put...), err
	})
	if err == nil && full {
		err = errFull
	}
	return made, err
}

// sweepEnded returns the commands that take those out that have ended, how many of them are the product's, and how many there are. The one
// that is being written stays.
func sweepEnded(reply any, now push.MilliTime, p push.ProductID, but string) (do []redisdb.Command, ours, ended int, err error) {
	all, _ := reply.([]any)
	for i := 0; i+1 < len(all); i += 2 {
		member, _ := all[i].(string)
		score, _ := all[i+1].(string)
		until, err := strconv.ParseFloat(score, 64)
		if err != nil {
			return nil, 0, 0, damaged(err)
		}
		if push.MilliTime(until) > now {
			break
		}
		ended++
		of, field, err := cutMember(member)
		if err != nil {
			return nil, 0, 0, err
		}
		if of == p && field == but {
			continue
		}
		if of == p {
			ours++
		}
		do = append(do,
			redisdb.Command{Name: "HDEL", Key: revocationsKey(of), Args: []any{field}},
			redisdb.Command{Name: "ZREM", Key: revocationList(of), Args: []any{field}},
			redisdb.Command{Name: "ZREM", Key: changesKey, Args: []any{member}},
			redisdb.Command{Name: "ZREM", Key: endsKey, Args: []any{member}},
		)
	}
	return do, ours, ended, nil
}

// putRevocation returns the commands that write a revocation with its place among the changes and the ends.
func putRevocation(r *catalog.Revocation) ([]redisdb.Command, error) {
	field := fieldOf(r.RevocationTarget)
	member := memberOf(r.Product, field)
	b, err := catalog.EncodeRevocation(*r)
	inList := listed(revocationList(r.Product), field)
	if r.Lifted {
		inList = redisdb.Command{Name: "ZREM", Key: revocationList(r.Product), Args: []any{field}}
	}
	return []redisdb.Command{
		hset(revocationsKey(r.Product), field, b), inList,
		{Name: "ZADD", Key: changesKey, Args: []any{strconv.FormatUint(uint64(r.Change), 10), member}},
		{Name: "ZADD", Key: endsKey, Args: []any{strconv.FormatInt(int64(r.Until), 10), member}},
	}, err
}

// LiftRevocation ends a revocation before its time.
func (c *Catalog) LiftRevocation(ctx context.Context, p push.ProductID, t catalog.RevocationTarget) error {
	return c.write(ctx, []redisdb.Command{hget(revocationsKey(p), fieldOf(t))},
		func(was []any, now push.MilliTime, change catalog.Change) ([]redisdb.Command, error) {
			old, err := record(was[0], catalog.DecodeRevocation, catalog.ErrRevocationNotFound)
			if err != nil {
				return nil, err
			}
			if old.Lifted || old.Ended(now) {
				return nil, catalog.ErrRevocationNotFound()
			}
			lifted := catalog.LiftedRevocation(old, change)
			return putRevocation(&lifted)
		})
}

// Revocations returns what a product refuses at the moment. Those that have ended and were not cleared away yet are passed over.
func (c *Catalog) Revocations(ctx context.Context, p push.ProductID, page catalog.Page) (l catalog.List[catalog.Revocation], err error) {
	page, after, err := catalog.CheckRevocationPage(page)
	if err != nil {
		return l, err
	}
	r, err := c.read(ctx, hget(productsKey, string(p)))
	if err != nil {
		return l, err
	}
	if r.Replies[0] == nil {
		return l, catalog.ErrProductNotFound()
	}
	from := "-"
	if after != nil {
		from = "(" + fieldOf(*after)
	}
	var found []catalog.Revocation
	for want := page.Limit + 1; len(found) < want; {
		some, last, err := c.listed(ctx, p, from, want)
		if err != nil {
			return l, err
		}
		found = append(found, some...)
		if last == "" {
			break
		}
		from = "(" + last
	}
	return catalog.RevocationPage(found, page.Limit), nil
}

// listed returns those in force among the next of a product's list, and the name of the last one it looked at; empty if the list ends there.
func (c *Catalog) listed(ctx context.Context, p push.ProductID, from string, want int) (found []catalog.Revocation, last string, err error) {
	r, err := c.read(ctx, redisdb.Command{Name: "ZRANGEBYLEX", Key: revocationList(p), Args: []any{from, "+", "LIMIT", 0, want}})
	if err != nil {
		return nil, "", err
	}
	names, _ := r.Replies[0].([]any)
	if len(names) == 0 {
		return nil, "", nil
	}
	if len(names) == want {
		last, _ = names[want-1].(string)
	}
	if r, err = c.read(ctx, redisdb.Command{Name: "HMGET", Key: revocationsKey(p), Args: names}); err != nil {
		return nil, "", err
	}
	values, _ := r.Replies[0].([]any)
	for _, reply := range values {
		if reply == nil {
			continue // it has ended, and somebody cleared it away
		}
		one, err := record(reply, catalog.DecodeRevocation, nil)
		if err != nil {
			return nil, "", err
		}
		if !one.Lifted && !one.Ended(r.Now) {
			found = append(found, one)
		}
	}
	return found, last, nil
}

// RevocationChanges returns revocations by their latest change. What is written between its two looks has moved behind the end of what it looks
// through, and is left out: it comes with a later change.
func (c *Catalog) RevocationChanges(ctx context.Context, after catalog.Change, limit int) (rs []catalog.Revocation, err error) {
	if err := c.usable(ctx); err != nil {
		return nil, err
	}
	if limit, err = catalog.CheckChanges(limit); err != nil {
		return nil, err
	}
	for len(rs) < limit {
		want := limit - len(rs)
		r, err := c.read(ctx, redisdb.Command{Name: "ZRANGEBYSCORE", Key: changesKey, Args: []any{
			"(" + strconv.FormatUint(uint64(after), 10), "+inf", "WITHSCORES", "LIMIT", 0, want,
		}})
		if err != nil {
			return nil, err
		}
		some, last, err := c.changed(ctx, r.Replies[0])
		if err != nil {
			return nil, err
		}
		rs = append(rs, some...)
		if last == 0 || len(r.Replies[0].([]any)) < 2*want {
			break
		}
		after = last
	}
	return rs, nil
}

// changed reads the revocations that a part of the list of changes names, and returns the last change in it.
func (c *Catalog) changed(ctx context.Context, reply any) (rs []catalog.Revocation, last catalog.Change, err error) {
	all, _ := reply.([]any)
	var do []redisdb.Command
	var changes []catalog.Change
	for i := 0; i+1 < len(all); i += 2 {
		member, _ := all[i].(string)
		score, _ := all[i+1].(string)
		n, err := strconv.ParseFloat(score, 64)
		if err != nil {
			return nil, 0, damaged(err)
		}
		p, field, err := cutMember(member)
		if err != nil {
			return nil, 0, err
		}
		do, changes = append(do, hget(revocationsKey(p), field)), append(changes, catalog.Change(n))
	}
	if len(do) == 0 {
		return nil, 0, nil
	}
	r, err := c.read(ctx, do...)
	if err != nil {
		return nil, 0, err
	}
	for i, reply := range r.Replies {
		if reply == nil {
			continue // it has ended, and somebody cleared it away
		}
		one, err := record(reply, catalog.DecodeRevocation, nil)
		if err != nil {
			return nil, 0, err
		}
		if one.Change == changes[i] {
			rs = append(rs, one)
		}
	}
	return rs, changes[len(changes)-1], nil
}
