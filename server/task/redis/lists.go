package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/task"
)

const (
	// chunkSlack is how much longer than its list a chunk lives, so that no list outlives its chunks.
	chunkSlack = 24 * time.Hour
	// A step stores so many bytes of chunks of one shard, or so many chunks, at most.
	putBytes  = 1 << 20
	putChunks = 512
	// chunksAtOnce is how many chunks are read in one step; those of one call take one round trip.
	chunksAtOnce = 256
)

func shardTag(id push.MsgID, s push.Shard) redisdb.Tag {
	return redisdb.Tag(fmt.Sprintf("list:%d:%d", id, s))
}

// shardKey returns the tag of a shard of a list, and the key of its chunks.
func shardKey(ref task.ListRef, s push.Shard) (redisdb.Tag, string) {
	t := shardTag(ref.ID, s)
	return t, t.Key("x", string(ref.Product))
}

var chunkLife = (task.ListKept + chunkSlack).Milliseconds()

// PutChunks stores chunks of a list, in one round trip.
func (s *Store) PutChunks(ctx context.Context, ref task.ListRef, cs []task.Chunk) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	for i := range cs {
		if err := task.CheckChunk(&cs[i]); err != nil {
			return err
		}
	}
	var ws []*redisdb.Write
	type part struct {
		w     *redisdb.Write
		bytes int
	}
	parts := make(map[push.Shard]*part)
	for i := range cs {
		c := &cs[i]
		value := task.AppendChunk(nil, c.Entries)
		p := parts[c.Shard]
		if p == nil || p.bytes+len(value) > putBytes || len(p.w.Do[0].Args) >= 2*putChunks {
			t, key := shardKey(ref, c.Shard)
			p = &part{w: &redisdb.Write{Tag: t, Do: []redisdb.Command{command("HSET", key), command("PEXPIRE", key, chunkLife)}}}
			parts[c.Shard], ws = p, append(ws, p.w)
		}
		p.bytes += len(value)
		p.w.Do[0].Args = append(p.w.Do[0].Args, strconv.Itoa(c.Number), value)
	}
	s.db.Write(ctx, ws...)
	for _, w := range ws {
		if w.Err != nil {
			return failed(w.Err)
		}
	}
	return nil
}

// keepChunks has the chunks of a list live as long as they should that is kept from now on. KindConflict, "list_incomplete": there are not as many.
func (s *Store) keepChunks(ctx context.Context, ref task.ListRef, chunks task.Progress) error {
	var ws []*redisdb.Write
	var want []uint32
	for shard, n := range chunks {
		if n == 0 {
			continue
		}
		t, key := shardKey(ref, push.Shard(shard))
		ws = append(ws, &redisdb.Write{Tag: t, Frees: true, Do: []redisdb.Command{
			command("PEXPIRE", key, chunkLife), {Name: "HLEN", Key: key, Tell: true},
		}})
		want = append(want, n)
	}
	s.db.Write(ctx, ws...)
	for i, w := range ws {
		if w.Err != nil {
			return failed(w.Err)
		}
		n, ok := reply(w.Replies, 1).(int64)
		if !ok {
			return damaged(errors.New("a shard of a list has no length"))
		}
		if n < int64(want[i]) {
			return task.ErrListIncomplete()
		}
	}
	return nil
}

// reply returns one of the replies; nil if there are none.
func reply(all []any, i int) any {
	if i >= len(all) {
		return nil
	}
	return all[i]
}

// kept decodes a list that has not outlived its time.
func kept(v any, now push.MilliTime) (l task.List, err error) {
	b, there := text(v)
	if !there {
		return l, task.ErrListNotFound()
	}
	l, until, err := task.DecodeList(b)
	if err == nil && until <= now {
		return task.List{}, task.ErrListNotFound()
	}
	return l, err
}

func getList(ref task.ListRef) redisdb.Command {
	return command("HGET", listsKey(ref.Product), name(ref.ID))
}

// putList returns what writes a list that is kept from now on, in place of what was there.
func putList(l *task.List, was any, now push.MilliTime) (*redisdb.Write, error) {
	until := now.Add(task.ListKept)
	data, err := task.EncodeList(l, until)
	if err != nil {
		return nil, err
	}
	w := &redisdb.Write{
		If: []redisdb.Condition{redisdb.IfField(listsKey(l.Product), name(l.ID), was)},
		Do: []redisdb.Command{
			command("HSET", listsKey(l.Product), name(l.ID), data),
			command("ZADD", endsKey, int64(until), endOfList+place(l.Product, l.ID)),
		},
		Frees: was != nil,
	}
	if !l.Made {
		w.Do = append(w.Do, command("ZADD", listIDs(l.Product), 0, name(l.ID)))
	}
	return w, nil
}

// removeList returns what forgets a list, if it still is what was read. Its chunks go by themselves.
func removeList(ref task.ListRef, was any) *redisdb.Write {
	return &redisdb.Write{
		Tag: tag, Frees: true,
		If: []redisdb.Condition{redisdb.IfField(listsKey(ref.Product), name(ref.ID), was)},
		Do: []redisdb.Command{
			command("HDEL", listsKey(ref.Product), name(ref.ID)), command("ZREM", listIDs(ref.Product), name(ref.ID)),
			command("ZREM", endsKey, endOfList+place(ref.Product, ref.ID)),
		},
	}
}

// CreateList stores what is known of a list.
func (s *Store) CreateList(ctx context.Context, l task.List) (made task.List, err error) {
	if err := s.usable(ctx); err != nil {
		return made, err
	}
	ref := task.ListRef{Product: l.Product, ID: l.ID}
	checked := false
	err = s.write(ctx, []redisdb.Command{getList(ref)}, func(was []any, now push.MilliTime) (*redisdb.Write, error) {
		is, err := kept(was[0], now)
		if err == nil {
			if made = is; !task.SameList(is, l) {
				return nil, task.ErrListExists()
			}
			return nil, nil
		}
		if push.KindOf(err) != push.KindNotFound {
			return nil, err
		}
		if !checked {
			if err := s.keepChunks(ctx, ref, l.Chunks); err != nil {
				return nil, err
			}
			checked = true
		}
		made = l
		made.Created = now
		return putList(&made, was[0], now)
	})
	if err != nil {
		return task.List{}, err
	}
	return made, nil
}

// List returns a list.
func (s *Store) List(ctx context.Context, ref task.ListRef) (task.List, error) {
	r, err := s.read(ctx, getList(ref))
	if err != nil {
		return task.List{}, err
	}
	return kept(r.Replies[0], r.Now)
}

// Lists returns lists of a product, the newest ids first.
func (s *Store) Lists(ctx context.Context, p push.ProductID, before push.MsgID, limit int) (ls []task.List, err error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if err := task.CheckLimit(limit); err != nil {
		return nil, err
	}
	for {
		ids, values, now, more, err := s.newest(ctx, listIDs(p), listsKey(p), before, limit-len(ls))
		if err != nil {
			return nil, err
		}
		for i, v := range values {
			before = ids[i]
			l, err := kept(v, now)
			switch {
			case err == nil:
				ls = append(ls, l)
			case push.KindOf(err) != push.KindNotFound:
				return nil, err
			}
		}
		if !more || len(ls) == limit {
			return ls, nil
		}
	}
}

// Chunks returns chunks of one shard of a list, in one round trip.
func (s *Store) Chunks(ctx context.Context, ref task.ListRef, shard push.Shard, from, limit int) (cs []task.Chunk, err error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if from < 0 || limit <= 0 {
		return nil, nil
	}
	t, key := shardKey(ref, shard)
	var rs []*redisdb.Read
	for at, end := from, min(from+limit, from+task.MaxListUsers); at < end; at += chunksAtOnce {
		c := command("HMGET", key)
		for n := at; n < min(at+chunksAtOnce, end); n++ {
			c.Args = append(c.Args, strconv.Itoa(n))
		}
		rs = append(rs, &redisdb.Read{Tag: t, Do: []redisdb.Command{c}})
	}
	s.db.Read(ctx, rs...)
	for _, r := range rs {
		if r.Err != nil {
			return nil, failed(r.Err)
		}
		values, _ := r.Replies[0].([]any)
		for _, v := range values {
			stored, there := v.(string)
			if !there {
				return cs, nil
			}
			entries, err := task.DecodeChunk(stored)
			if err != nil {
				return nil, err
			}
			cs = append(cs, task.Chunk{Shard: shard, Number: from + len(cs), Entries: entries})
		}
	}
	return cs, nil
}

// KeepList has a list live on, its chunks first.
func (s *Store) KeepList(ctx context.Context, ref task.ListRef) error {
	checked := false
	return s.write(ctx, []redisdb.Command{getList(ref)}, func(was []any, now push.MilliTime) (*redisdb.Write, error) {
		l, err := kept(was[0], now)
		if err != nil {
			return nil, err
		}
		if !checked {
			if err := s.keepChunks(ctx, ref, l.Chunks); err != nil {
				return nil, err
			}
			checked = true
		}
		return putList(&l, was[0], now)
	})
}

// DeleteList forgets a list, and then its chunks: should that fail they go by themselves.
func (s *Store) DeleteList(ctx context.Context, ref task.ListRef) (there bool, err error) {
	var l task.List
	err = s.write(ctx, []redisdb.Command{getList(ref)}, func(was []any, now push.MilliTime) (*redisdb.Write, error) {
		var err error
		l, err = kept(was[0], now)
		if there = err == nil; there {
			return removeList(ref, was[0]), nil
		}
		if push.KindOf(err) == push.KindNotFound {
			return nil, nil
		}
		return nil, err
	})
	if err != nil || !there {
		return false, err
	}
	var ws []*redisdb.Write
	for shard, n := range l.Chunks {
		if n == 0 {
			continue
		}
		t, key := shardKey(ref, push.Shard(shard))
		ws = append(ws, &redisdb.Write{Tag: t, Frees: true, Do: []redisdb.Command{command("UNLINK", key)}})
	}
	s.db.Write(ctx, ws...)
	for _, w := range ws {
		if w.Err != nil {
			return false, failed(w.Err)
		}
	}
	return true, nil
}
