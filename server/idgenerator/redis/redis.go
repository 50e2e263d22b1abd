// Package redis reserves blocks of ids in Redis, for all nodes that share it. One key holds the id after the last one reserved and the lineage under
// which it was; a block is the caller's when the write that moved it on is as durable as the database promises. The clock is the store's.
//
//	{ids} n:   the next id in decimal, a space, the lineage in decimal
//
// The first block under a new lineage begins a minute above the clock, also when the store kept the last of them: it may
// have lost others after it.
package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"carillon/server/failpoint"
	"carillon/server/idgenerator"
	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/redisdb"
)

// Config of Blocks.
type Config struct {
	DB *redisdb.DB // stays open
}

// Blocks implements [idgenerator.Blocks]. It has no state of its own, and nothing that needs closing.
type Blocks struct{ db *redisdb.DB }

var _ idgenerator.Blocks = (*Blocks)(nil)

const tag redisdb.Tag = "ids"

var nextKey = tag.Key("n", "")

// New returns the blocks that lie in a database.
func New(c Config) (*Blocks, error) {
	if c.DB == nil {
		return nil, push.Errorf(push.KindInvalid, "invalid_config", "ids need a database")
	}
	return &Blocks{db: c.DB}, nil
}

// tries is how often a reservation is begun again because another one was faster.
const tries = 50

// Reserve reads what is reserved and writes what is then, unless somebody else did so meanwhile. A block of which nobody knows whether it was
// written is never used.
func (b *Blocks) Reserve(ctx context.Context, size int64) (push.MsgID, error) {
	for try := range tries {
		if err := redisdb.Pause(ctx, try); err != nil {
			return 0, unavailable(err)
		}
		first, done, err := b.try(ctx, size)
		if err != nil {
			return 0, fmt.Errorf("idgenerator: reserve: %w", err)
		}
		if done {
			failpoint.Hit(failpoint.IDsReserved)
			return first, nil
		}
	}
	return 0, unavailable(errors.New("others keep being faster"))
}

// try reports whether the block was reserved; if not somebody else was faster.
func (b *Blocks) try(ctx context.Context, size int64) (first push.MsgID, done bool, err error) {
	read := &redisdb.Read{Tag: tag, Do: []redisdb.Command{{Name: "GET", Key: nextKey}}}
	b.db.Read(ctx, read)
	if read.Err != nil {
		return 0, false, read.Err
	}
	next, lineage, err := parse(read.Replies[0])
	if err != nil {
		return 0, false, err
	}
	first, err = idgenerator.First(next, size, read.Now, lineage != read.Lineage)
	if err != nil {
		return 0, false, err
	}
	if planted.Is(planted.IDsBeforeBound) { // and the clock, which guards ids a second time, is not asked
		return max(next, 1), true, nil
	}
	value := fmt.Sprintf("%d %d", first+push.MsgID(size), read.Lineage)
	w := &redisdb.Write{
		Tag: tag, Under: read.Lineage, If: []redisdb.Condition{redisdb.IfValue(nextKey, read.Replies[0])},
		Do: []redisdb.Command{{Name: "SET", Key: nextKey, Args: []any{value}}},
		// It overwrites one small value, and a full store has to name what it is told to take back.
		Frees: true,
	}
	b.db.Write(ctx, w)
	return first, w.Done, w.Err
}

// parse reads what is stored: nothing, or the next id and the lineage that it was written under.
func parse(reply any) (next push.MsgID, lineage push.Lineage, err error) {
	if reply == nil {
		return 0, 0, nil
	}
	value, _ := reply.(string)
	a, b, _ := strings.Cut(value, " ")
	n, err1 := strconv.ParseInt(a, 10, 64)
	l, err2 := strconv.ParseUint(b, 10, 64)
	if err1 != nil || err2 != nil || n <= 0 || l == 0 {
		return 0, 0, push.Errorf(push.KindInternal, "ids_damaged", "the stored message id is damaged")
	}
	return push.MsgID(n), push.Lineage(l), nil
}

func unavailable(err error) error {
	return &push.Error{Kind: push.KindUnavailable, Code: "ids_unavailable", After: time.Second, Err: fmt.Errorf("idgenerator: reserve: %w", err)}
}
