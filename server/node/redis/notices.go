// Package redis keeps the notices of a cluster's nodes on Redis.
//
// # Layout
//
// Two keys under a tag of their own: a hash that holds the number of the latest notice ("last") and the highest number that was
// dropped ("dropped"), and a list of the notices, oldest first, each as its number and time in decimal and its JSON, between spaces. Whoever posts drops what is
// older than it has to be kept.
//
// # Invariants
//
//   - Numbers follow the clock (milliseconds << 12, or one above the last): where a failover took some notices back, those that come
//     after have higher numbers than any that a room has read.
//   - A room that has read everything reads one field of a hash.
package redis

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"carillon/server/nextversion"
	"carillon/server/node"
	"carillon/server/push"
	"carillon/server/redisdb"
)

const (
	tag  = redisdb.Tag("nodes")
	most = 100_000 // notices kept, however young
)

var state, list = tag.Key("notices", "state"), tag.Key("notices", "list")

// Notices is a node.Notices.
type Notices struct{ db *redisdb.DB }

var _ node.Notices = (*Notices)(nil)

// New returns the notices that lie in a database.
func New(db *redisdb.DB) *Notices { return &Notices{db} }

// attempts bounds how often a post begins again since another node was faster.
const attempts = 32

// Post reads the last number and what is oldest, and writes if nobody was faster.
func (n *Notices) Post(ctx context.Context, what node.Notice) (uint64, push.MilliTime, error) {
	enc, err := json.Marshal(what)
	if err != nil {
		return 0, 0, &push.Error{Kind: push.KindInternal, Code: "bad_notice", Err: err}
	}
	for range attempts {
		r := &redisdb.Read{Tag: tag, Do: []redisdb.Command{
			{Name: "HGET", Key: state, Args: []any{"last"}},
			{Name: "LRANGE", Key: list, Args: []any{0, dropAtOnce - 1}},
			{Name: "LLEN", Key: list},
		}}
		if n.db.Read(ctx, r); r.Err != nil {
			return 0, 0, fmt.Errorf("node: post notice: %w", r.Err)
		}
		last, err := numberOf(r.Replies[0])
		if err != nil {
			return 0, 0, err
		}
		number := max(last+1, uint64(r.Now)<<12)
		w := &redisdb.Write{Tag: tag, Under: r.Lineage, Frees: true, If: []redisdb.Condition{redisdb.IfField(state, "last", r.Replies[0])}}
		w.Do = append(w.Do, redisdb.Command{Name: "HSET", Key: state, Args: []any{"last", strconv.FormatUint(number, 10)}},
			redisdb.Command{Name: "RPUSH", Key: list, Args: []any{fmt.Sprintf("%d %d %s", number, r.Now, nextversion.Object(enc))}})
		drop, err := n.old(r)
		if err != nil {
			return 0, 0, err
		}
		if drop.count > 0 {
			w.Do = append(w.Do, redisdb.Command{Name: "HSET", Key: state, Args: []any{"dropped", strconv.FormatUint(drop.last, 10)}},
				redisdb.Command{Name: "LPOP", Key: list, Args: []any{drop.count}})
		}
		if n.db.Write(ctx, w); w.Err != nil {
			return 0, 0, fmt.Errorf("node: post notice: %w", w.Err)
		}
		if w.Done {
			return number, r.Now, nil
		}
	}
	return 0, 0, push.Errorf(push.KindUnavailable, "store_busy", "other nodes were faster each time")
}

// dropAtOnce is the most notices that one post drops; more than one, so that a list that is too long becomes shorter.
const dropAtOnce = 16

type dropped struct {
	count int
	last  uint64
}

// old returns which of the oldest notices need not be kept.
func (n *Notices) old(r *redisdb.Read) (d dropped, err error) {
	items, _ := r.Replies[1].([]any)
	length, _ := r.Replies[2].(int64)
	for i, item := range items {
		e, err := parse(item)
		if err != nil {
			return d, err
		}
		if e.at.Add(node.KeepNotices) > r.Now && length-int64(i) < most {
			break
		}
		d = dropped{i + 1, e.Number}
	}
	return d, nil
}

// Since looks at the last number first; only if that is new does it read notices, from the end of the list.
func (n *Notices) Since(ctx context.Context, after uint64, limit int) (ns []node.Numbered, lost bool, err error) {
	for reach := 64; ; reach *= 8 {
		r := &redisdb.Read{Tag: tag, Do: []redisdb.Command{{Name: "HMGET", Key: state, Args: []any{"last", "dropped"}}}}
		if reach > 64 || after == 0 {
			r.Do = append(r.Do, redisdb.Command{Name: "LRANGE", Key: list, Args: []any{-reach, -1}})
		}
		if n.db.Read(ctx, r); r.Err != nil {
			return nil, false, fmt.Errorf("node: read notices: %w", r.Err)
		}
		fields, _ := r.Replies[0].([]any)
		if len(fields) != 2 {
			return nil, false, errStored
		}
		last, err := numberOf(fields[0])
		if err != nil {
			return nil, false, err
		}
		floor, err := numberOf(fields[1])
		if err != nil {
			return nil, false, err
		}
		if last <= after {
			return nil, false, nil
		}
		if len(r.Do) == 1 {
			continue
		}
		items, _ := r.Replies[1].([]any)
		whole := len(items) < reach
		ns, reached, err := above(items, after)
		if err != nil {
			return nil, false, err
		}
		if reached || whole {
			return ns[:min(len(ns), limit)], after < floor, nil
		}
	}
}

// above returns the notices above a number, and whether there is one that is not: then none is missing before them.
func above(items []any, after uint64) (ns []node.Numbered, reached bool, err error) {
	for _, item := range items {
		e, err := parse(item)
		if err != nil {
			return nil, false, err
		}
		if e.Number <= after {
			reached = true
			continue
		}
		ns = append(ns, e.Numbered)
	}
	return ns, reached, nil
}

// Head returns the last number.
func (n *Notices) Head(ctx context.Context) (uint64, error) {
	r := &redisdb.Read{Tag: tag, Do: []redisdb.Command{{Name: "HGET", Key: state, Args: []any{"last"}}}}
	if n.db.Read(ctx, r); r.Err != nil {
		return 0, fmt.Errorf("node: read notices: %w", r.Err)
	}
	return numberOf(r.Replies[0])
}

type entry struct {
	node.Numbered
	at push.MilliTime
}

var errStored = push.Errorf(push.KindInternal, "corrupt_value", "a notice that cannot be read")

func parse(item any) (e entry, err error) {
	s, _ := item.(string)
	number, rest, ok1 := strings.Cut(s, " ")
	at, enc, ok2 := strings.Cut(rest, " ")
	millis, err1 := strconv.ParseInt(at, 10, 64)
	e.at = push.MilliTime(millis)
	var err2 error
	e.Number, err2 = strconv.ParseUint(number, 10, 64)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || json.Unmarshal([]byte(enc), &e.Notice) != nil {
		return entry{}, errStored
	}
	return e, nil
}

func numberOf(v any) (uint64, error) {
	if v == nil {
		return 0, nil
	}
	s, _ := v.(string)
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, errStored
	}
	return n, nil
}
