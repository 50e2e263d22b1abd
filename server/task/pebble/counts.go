package pebble

import (
	"context"
	"encoding/binary"
	"errors"

	"carillon/server/embedded"
	"carillon/server/nextversion"
	"carillon/server/push"
	"carillon/server/task"
)

func countKey(p push.ProductID, id push.MsgID, l task.Life) []byte {
	return embedded.AppendKeyUint64(embedded.AppendKeyString(ofID(sortCount, p, id), l.Room), uint64(l.Boot))
}

// countsVersion begins what was counted; from version 2 on, what was added since stands behind it, with its length in one byte before it (see decision 19).
const countsVersion = 1 + nextversion.Step

func encodeCounts(c task.Counts) []byte {
	b := append([]byte{countsVersion}, nextversion.Part...)
	for _, n := range c {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return b
}

func decodeCounts(b []byte) (c task.Counts, err error) {
	bad := damaged(errors.New("counts cannot be read"))
	if len(b) == 0 || b[0] < 1 || b[0] > countsVersion+1 {
		return c, bad
	}
	version, b := b[0], b[1:]
	if version > 1 {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return c, bad
		}
		b = b[1+int(b[0]):]
	}
	if len(b) != 8*len(c) {
		return c, bad
	}
	for i := range c {
		c[i] = int64(binary.BigEndian.Uint64(b[8*i:]))
	}
	return c, nil
}

// Count adds to the counts of tasks. Nobody waits for the flush.
func (s *Store) Count(ctx context.Context, cs []task.Counted) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	sums := make(map[string]task.Counts, len(cs)) // by key
	there := make(map[task.Ref]bool)
	for i := range cs {
		c := &cs[i]
		ref := task.Ref{Product: c.Product, ID: c.Task}
		if _, known := there[ref]; !known {
			b, err := s.get(ofID(sortTask, ref.Product, ref.ID))
			if err != nil {
				return err
			}
			there[ref] = b != nil
		}
		if !there[ref] {
			continue
		}
		key := countKey(c.Product, c.Task, c.Life)
		sum, known := sums[string(key)]
		if !known {
			b, err := s.get(key)
			if err != nil {
				return err
			}
			if b != nil {
				if sum, err = decodeCounts(b); err != nil {
					return err
				}
			}
		}
		sum.Add(c.Counts)
		sums[string(key)] = sum
	}
	if len(sums) == 0 {
		return nil
	}
	b := s.db.NewBatch()
	for key, sum := range sums {
		b.Set([]byte(key), encodeCounts(sum))
	}
	return failed(s.db.CommitNoSync(b))
}

// Counts returns what was counted of a task's message.
func (s *Store) Counts(ctx context.Context, p push.ProductID, id push.MsgID) (all map[task.Life]task.Counts, err error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	prefix := ofID(sortCount, p, id)
	err = s.walk(prefix, embedded.PrefixEnd(prefix), false, func(key, value []byte) (bool, error) {
		room, rest, err := embedded.CutKeyString(key[len(prefix):])
		if err != nil {
			return false, damaged(err)
		}
		boot, _, err := embedded.CutKeyUint64(rest)
		if err != nil {
			return false, damaged(err)
		}
		c, err := decodeCounts(value)
		if err != nil {
			return false, err
		}
		if all == nil {
			all = make(map[task.Life]task.Counts)
		}
		all[task.Life{Room: push.RoomID(room), Boot: push.BootID(boot)}] = c
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}
