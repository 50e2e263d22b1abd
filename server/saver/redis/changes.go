package redis

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

// Changes reads the logs, and where the common slots end, of all shards together. Most logs have nothing new, sweep after sweep, in every room. So of a log of
// which it is known what its newest change was at the query's point, two plain commands ask whether that still is so, which costs Redis a
// fraction of what the function does that reads a log; and then the function is asked for those that have moved.
func (s *Store) Changes(ctx context.Context, room push.RoomID, qs []saver.ChangeQuery) ([]saver.ChangeLog, error) {
	if err := s.enter("changes"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	if len(qs) == 0 {
		return nil, nil
	}
	out := make([]saver.ChangeLog, len(qs))
	ask, err := s.lookForChanges(ctx, qs, out)
	if err == nil && len(ask) > 0 {
		err = s.readChanges(ctx, room, qs, ask, out)
	}
	if err != nil {
		return nil, fmt.Errorf("saver: changes: %w", err)
	}
	return out, nil
}

// lookForChanges fills in the logs that have nothing new, and returns the indexes of the others.
func (s *Store) lookForChanges(ctx context.Context, qs []saver.ChangeQuery, out []saver.ChangeLog) (ask []int, err error) {
	var quiet []int
	were := make([]look, 0, len(qs))
	for i := range qs {
		if l, ok := s.looks.of(&qs[i]); ok && !l.moved {
			quiet, were = append(quiet, i), append(were, l)
		} else {
			ask = append(ask, i)
		}
	}
	reads := changeReads(len(quiet), 2)
	for k, i := range quiet {
		t := tagOf(qs[i].ShardRef)
		reads[k].Tag = t
		reads[k].Do = append(reads[k].Do, t.NewestChange(), commonState(t))
	}
	if len(reads) > 0 {
		s.peek(ctx, reads...)
	}
	for k, i := range quiet {
		r := reads[k]
		if r.Err != nil {
			return nil, r.Err
		}
		if newest, _ := r.Replies[0].(string); !were[k].isStill(newest, r.Answer) {
			ask = append(ask, i)
			continue
		}
		out[i] = saver.ChangeLog{Next: qs[i].After, Lineage: r.Lineage}
		if out[i].Common, err = headOf(r.Replies[1]); err != nil {
			return nil, err
		}
	}
	return ask, nil
}

// readChanges reads the logs of those indexes.
func (s *Store) readChanges(ctx context.Context, room push.RoomID, qs []saver.ChangeQuery, ask []int, out []saver.ChangeLog) error {
	reads := changeReads(len(ask), 3)
	for k, i := range ask {
		t := tagOf(qs[i].ShardRef)
		reads[k].Tag = t
		reads[k].Do = append(reads[k].Do, t.ChangesSince(qs[i].After), commonState(t), t.NewestChange())
	}
	s.read(ctx, reads...)
	for k, i := range ask {
		if err := takeChanges(reads[k], room, &out[i]); err != nil {
			return err
		}
		newest, _ := reads[k].Replies[2].(string)
		was, known := s.looks.of(&qs[i])
		moved := known && (newest != was.newest || out[i].Trimmed)
		s.looks.note(qs[i].ShardRef, look{reads[k].Answer, out[i].Next, strings.Clone(newest), moved})
	}
	return nil
}

// changeReads returns n reads with room for so many commands each.
func changeReads(n, commands int) []*redisdb.Read {
	reads, all, do := make([]*redisdb.Read, n), make([]redisdb.Read, n), make([]redisdb.Command, n*commands)
	for i := range reads {
		all[i].Do, do = do[:0:commands], do[commands:]
		reads[i] = &all[i]
	}
	return reads
}

// commonState returns the command that asks for the state of a shard's common slot.
func commonState(t redisdb.Tag) redisdb.Command {
	return redisdb.Command{Name: "HGET", Key: t.Key(kindCommon, ""), Args: askState}
}

func takeChanges(r *redisdb.Read, room push.RoomID, l *saver.ChangeLog) (err error) {
	if r.Err != nil {
		return r.Err
	}
	changes, next, trimmed, err := redisdb.ChangesOf(r.Replies[0], r.Answer, room)
	if err != nil {
		return err
	}
	l.Next, l.Trimmed, l.Lineage = next, trimmed, r.Lineage
	for _, v := range changes {
		c, err := decodeChange(v)
		if err != nil {
			return err
		}
		l.Own = append(l.Own, c)
	}
	l.Common, err = headOf(r.Replies[1])
	return err
}

// look is what the log of a shard held when it was read: at that point, by that answer, its newest change was this one. A change names the place of an
// append, and no two appends have the same; so while the newest one is the same, under the same lineage, nothing was added.
type look struct {
	redisdb.Answer
	point  uint64
	newest string // as it lies in the log; empty: there was no log
	moved  bool   // there was something new: then there will be again, and one question is enough
}

// isStill reports whether a log holds nothing new whose newest change is this one.
func (l *look) isStill(newest string, a redisdb.Answer) bool {
	if newest != l.newest || a.Lineage != l.Lineage {
		return false
	}
	return newest != "" || l.Now <= a.Now && a.Now < l.Now.Add(redisdb.ChangesAbsent)
}

// looks remembers the last look at each shard's log, and so what most sweeps of this node's room need. A look that is forgotten or another
// room's costs the question that it would have spared.
type looks struct {
	mu sync.Mutex
	by map[saver.ShardRef]look // guarded by mu
}

// looksMost bounds what is remembered: some 150 bytes each.
const looksMost = 1 << 16

// of returns the last look at a log, if it was at the query's point.
func (ls *looks) of(q *saver.ChangeQuery) (look, bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l, ok := ls.by[q.ShardRef]
	return l, ok && l.point == q.After
}

func (ls *looks) note(s saver.ShardRef, l look) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if _, ok := ls.by[s]; !ok && len(ls.by) >= looksMost || ls.by == nil {
		ls.by = make(map[saver.ShardRef]look)
	}
	ls.by[s] = l
}
