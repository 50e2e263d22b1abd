package pebble

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"carillon/server/embedded"
	"carillon/server/push"
	"carillon/server/task"
)

// uploadSlack is how much less than task.ListKept chunks of a list that is being uploaded may be kept, so that not every part of an upload writes until when.
const uploadSlack = time.Hour

func shardKey(ref task.ListRef, s push.Shard) []byte {
	return embedded.AppendKeyUint16(ofID(sortChunk, ref.Product, ref.ID), uint16(s))
}

func chunkKey(ref task.ListRef, s push.Shard, n int) []byte {
	return binary.BigEndian.AppendUint32(shardKey(ref, s), uint32(n))
}

// kept returns until when what is stored of a list is kept; 0 if there is nothing.
func (s *Store) kept(ref task.ListRef) (push.MilliTime, error) {
	b, err := s.get(ofID(sortUntil, ref.Product, ref.ID))
	if err != nil || b == nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, damaged(errors.New("a list is kept until a time that does not have 8 bytes"))
	}
	return push.MilliTime(binary.BigEndian.Uint64(b)), nil
}

// keep writes until when what is stored of a list is kept, in place of what was said before.
func keep(b *embedded.Batch, ref task.ListRef, until, was push.MilliTime) {
	key := ofID(sortUntil, ref.Product, ref.ID)
	if was != 0 {
		b.Delete(endKey(was, key))
	}
	b.Set(key, binary.BigEndian.AppendUint64(nil, uint64(until)))
	b.Set(endKey(until, key), nil)
}

// forget takes out all that is stored of a list, but for its place among the ends; key is the one that says until when it is kept.
func forget(b *embedded.Batch, key []byte) {
	b.Delete(key)
	of := func(sort byte) []byte {
		k := bytes.Clone(key)
		k[1] = sort
		return k
	}
	b.Delete(of(sortList))
	chunks := of(sortChunk)
	b.DeleteRange(chunks, embedded.PrefixEnd(chunks))
}

// PutChunks stores chunks of a list.
func (s *Store) PutChunks(ctx context.Context, ref task.ListRef, cs []task.Chunk) error {
	for i := range cs {
		if err := task.CheckChunk(&cs[i]); err != nil {
			return err
		}
	}
	return s.write(ctx, func(b *embedded.Batch, now push.MilliTime) error {
		if len(cs) == 0 {
			return nil
		}
		was, err := s.kept(ref)
		if err != nil {
			return err
		}
		if until := now.Add(task.ListKept); was < until.Add(-uploadSlack) {
			keep(b, ref, until, was)
		}
		var value []byte
		for i := range cs {
			value = task.AppendChunk(value[:0], cs[i].Entries)
			b.Set(chunkKey(ref, cs[i].Shard, cs[i].Number), value)
		}
		return nil
	})
}

// list reads a list that is created and has not outlived its time.
func (s *Store) list(ref task.ListRef, now push.MilliTime) (l task.List, until push.MilliTime, err error) {
	data, err := s.get(ofID(sortList, ref.Product, ref.ID))
	if err != nil {
		return l, 0, err
	}
	if until, err = s.kept(ref); err != nil {
		return l, 0, err
	}
	if data == nil || until <= now {
		return l, until, task.ErrListNotFound()
	}
	l, _, err = task.DecodeList(data)
	return l, until, err
}

// CreateList stores what is known of a list.
func (s *Store) CreateList(ctx context.Context, l task.List) (made task.List, err error) {
	ref := task.ListRef{Product: l.Product, ID: l.ID}
	err = s.write(ctx, func(b *embedded.Batch, now push.MilliTime) error {
		is, was, err := s.list(ref, now)
		if err == nil {
			if made = is; !task.SameList(is, l) {
				return task.ErrListExists()
			}
			return nil
		}
		if push.KindOf(err) != push.KindNotFound {
			return err
		}
		if err := s.whole(ref, l.Chunks); err != nil {
			return err
		}
		l.Created = now
		until := now.Add(task.ListKept)
		data, err := task.EncodeList(&l, 0)
		if err != nil {
			return err
		}
		keep(b, ref, until, was)
		b.Set(ofID(sortList, ref.Product, ref.ID), data)
		made, _, err = task.DecodeList(data)
		return err
	})
	if err != nil {
		return task.List{}, err
	}
	return made, nil
}

// whole returns ErrListIncomplete unless so many chunks are stored in each shard.
func (s *Store) whole(ref task.ListRef, chunks task.Progress) error {
	for shard, n := range chunks {
		if n == 0 {
			continue
		}
		found := uint32(0)
		from := shardKey(ref, push.Shard(shard))
		if err := s.walk(from, chunkKey(ref, push.Shard(shard), int(n)), false, func(_, _ []byte) (bool, error) {
			found++
			return true, nil
		}); err != nil {
			return err
		}
		if found != n {
			return task.ErrListIncomplete()
		}
	}
	return nil
}

// List returns a list.
func (s *Store) List(ctx context.Context, ref task.ListRef) (task.List, error) {
	if err := s.usable(ctx); err != nil {
		return task.List{}, err
	}
	l, _, err := s.list(ref, s.now())
	if err != nil {
		return task.List{}, err
	}
	return l, nil
}

// Lists returns lists of a product, the newest ids first.
func (s *Store) Lists(ctx context.Context, p push.ProductID, before push.MsgID, limit int) (ls []task.List, err error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if err := task.CheckLimit(limit); err != nil {
		return nil, err
	}
	now := s.now()
	err = s.walk(ofProduct(sortList, p), below(sortList, p, before), true, func(key, value []byte) (bool, error) {
		id, err := cutID(key)
		if err != nil {
			return false, err
		}
		until, err := s.kept(task.ListRef{Product: p, ID: id})
		if err != nil || until <= now {
			return err == nil, err
		}
		l, _, err := task.DecodeList(value)
		if err != nil {
			return false, err
		}
		if !l.Made {
			ls = append(ls, l)
		}
		return len(ls) < limit, nil
	})
	if err != nil {
		return nil, err
	}
	return ls, nil
}

// Chunks returns chunks of one shard of a list.
func (s *Store) Chunks(ctx context.Context, ref task.ListRef, shard push.Shard, from, limit int) (cs []task.Chunk, err error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if from < 0 || limit <= 0 {
		return nil, nil
	}
	err = s.walk(chunkKey(ref, shard, from), embedded.PrefixEnd(shardKey(ref, shard)), false, func(key, value []byte) (bool, error) {
		if len(key) < 4 {
			return false, damaged(errors.New("a chunk's key is cut short"))
		}
		if n := int(binary.BigEndian.Uint32(key[len(key)-4:])); n != from+len(cs) {
			return false, nil // one is missing
		}
		entries, err := task.DecodeChunk(string(value))
		if err != nil {
			return false, err
		}
		cs = append(cs, task.Chunk{Shard: shard, Number: from + len(cs), Entries: entries})
		return len(cs) < limit, nil
	})
	if err != nil {
		return nil, err
	}
	return cs, nil
}

// KeepList has a list live on.
func (s *Store) KeepList(ctx context.Context, ref task.ListRef) error {
	return s.write(ctx, func(b *embedded.Batch, now push.MilliTime) error {
		_, was, err := s.list(ref, now)
		if err == nil {
			keep(b, ref, now.Add(task.ListKept), was)
		}
		return err
	})
}

// DeleteList forgets a list and its chunks.
func (s *Store) DeleteList(ctx context.Context, ref task.ListRef) (there bool, err error) {
	err = s.write(ctx, func(b *embedded.Batch, now push.MilliTime) error {
		_, was, err := s.list(ref, now)
		if err != nil && push.KindOf(err) != push.KindNotFound {
			return err
		}
		there = err == nil
		if was != 0 {
			key := ofID(sortUntil, ref.Product, ref.ID)
			b.Delete(endKey(was, key))
			forget(b, key)
		}
		return nil
	})
	return there && err == nil, err
}
