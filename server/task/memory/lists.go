package memory

import (
	"context"

	"carillon/server/push"
	"carillon/server/task"
)

// list is a list, or what was stored of one that is not created yet.
type list struct {
	data   []byte // as it is stored; nil: it is not created yet
	hidden bool   // made for a task
	until  push.MilliTime
	chunks map[push.Shard]map[int]string // by number, as they are stored
}

// made returns a list that is created and not forgotten.
func (s *Store) made(ref task.ListRef, now push.MilliTime) (*list, error) {
	l := s.product(ref.Product).lists[ref.ID]
	if l == nil || l.data == nil || l.until <= now {
		return nil, task.ErrListNotFound()
	}
	return l, nil
}

// open returns a list to write to, made or not.
func (s *Store) open(ref task.ListRef) *list {
	of := s.product(ref.Product)
	l := of.lists[ref.ID]
	if l == nil {
		l = &list{chunks: make(map[push.Shard]map[int]string)}
		of.lists[ref.ID] = l
	}
	return l
}

// PutChunks stores chunks of a list.
func (s *Store) PutChunks(ctx context.Context, ref task.ListRef, cs []task.Chunk) error {
	for i := range cs {
		if err := task.CheckChunk(&cs[i]); err != nil {
			return err
		}
	}
	return s.do(ctx, func(now push.MilliTime) error {
		l := s.open(ref)
		l.until = max(l.until, now.Add(task.ListKept))
		for _, c := range cs {
			if l.chunks[c.Shard] == nil {
				l.chunks[c.Shard] = make(map[int]string)
			}
			l.chunks[c.Shard][c.Number] = string(task.AppendChunk(nil, c.Entries))
		}
		return nil
	})
}

// CreateList stores what is known of a list.
func (s *Store) CreateList(ctx context.Context, l task.List) (made task.List, err error) {
	err = s.do(ctx, func(now push.MilliTime) (err error) {
		ref := task.ListRef{Product: l.Product, ID: l.ID}
		if was, err := s.made(ref, now); err == nil {
			if made, _, err = task.DecodeList(was.data); err == nil && !task.SameList(made, l) {
				return task.ErrListExists()
			}
			return err
		}
		of := s.open(ref)
		for shard, n := range l.Chunks {
			for i := range int(n) {
				if of.chunks[push.Shard(shard)][i] == "" {
					return task.ErrListIncomplete()
				}
			}
		}
		l.Created = now
		until := now.Add(task.ListKept)
		data, err := task.EncodeList(&l, until)
		if err != nil {
			return err
		}
		of.data, of.hidden, of.until = data, l.Made, until
		made, _, err = task.DecodeList(data)
		return err
	})
	if err != nil {
		return task.List{}, err
	}
	return made, nil
}

// List returns a list.
func (s *Store) List(ctx context.Context, ref task.ListRef) (l task.List, err error) {
	err = s.do(ctx, func(now push.MilliTime) error {
		is, err := s.made(ref, now)
		if err != nil {
			return err
		}
		l, _, err = task.DecodeList(is.data)
		return err
	})
	return l, err
}

// Lists returns lists of a product, the newest ids first.
func (s *Store) Lists(ctx context.Context, p push.ProductID, before push.MsgID, limit int) (ls []task.List, err error) {
	if err := task.CheckLimit(limit); err != nil {
		return nil, err
	}
	err = s.do(ctx, func(now push.MilliTime) error {
		of := s.product(p)
		for _, id := range newestFirst(of.lists, before) {
			l := of.lists[id]
			if l.data == nil || l.hidden || l.until <= now {
				continue
			}
			one, _, err := task.DecodeList(l.data)
			if err != nil {
				return err
			}
			if ls = append(ls, one); len(ls) == limit {
				break
			}
		}
		return nil
	})
	return ls, err
}

// Chunks returns chunks of one shard of a list.
func (s *Store) Chunks(ctx context.Context, ref task.ListRef, shard push.Shard, from, limit int) (cs []task.Chunk, err error) {
	err = s.do(ctx, func(push.MilliTime) error {
		l := s.product(ref.Product).lists[ref.ID]
		if l == nil {
			return nil
		}
		for n := from; n < from+limit; n++ {
			v, ok := l.chunks[shard][n]
			if !ok {
				break
			}
			entries, err := task.DecodeChunk(v)
			if err != nil {
				return err
			}
			cs = append(cs, task.Chunk{Shard: shard, Number: n, Entries: entries})
		}
		return nil
	})
	return cs, err
}

// KeepList has a list live on.
func (s *Store) KeepList(ctx context.Context, ref task.ListRef) error {
	return s.do(ctx, func(now push.MilliTime) error {
		l, err := s.made(ref, now)
		if err == nil {
			l.until = now.Add(task.ListKept)
		}
		return err
	})
}

// DeleteList forgets a list and its chunks.
func (s *Store) DeleteList(ctx context.Context, ref task.ListRef) (there bool, err error) {
	err = s.do(ctx, func(now push.MilliTime) error {
		_, err := s.made(ref, now)
		there = err == nil
		delete(s.product(ref.Product).lists, ref.ID)
		return nil
	})
	return there, err
}
