// Package redis is the store of tasks of many nodes that share one Redis. Tasks, what is known of lists, and counts are small and lie under one hash tag;
// the users of lists lie spread over as many tags as they have shards.
//
// # Keys
//
// Under the tag "tasks"; in braces what a record is, ids have 19 digits so that they are in order by name:
//
//	t:<product>         hash: id to {task}
//	T:<product>         sorted set: the ids of the product's tasks, for lists in order
//	w:                  sorted set: id and product of each task that somebody has to look at, by its Wake
//	e:                  sorted set: "t" or "l", id and product of each task that has ended, and of each list, by when it is forgotten
//	k:<length of product>:<product><key>   {idempotency key}; expires
//	o:                  hash: product to {switch}
//	l:<product>         hash: id to {list}
//	L:<product>         sorted set: the ids of the product's lists but for those made for tasks
//	n:<id><product>     hash: kind, boot and room to what was counted of a task; expires long after the task should have ended
//
// Under a tag for each shard of a list, "list:<id>:<shard>":
//
//	x:<product>         hash: number to {chunk}; expires
//
// # Invariants
//
//   - What changes a record is made on the condition that it still is what was read, under the lineage under which it was read, and changes its
//     places in the sorted sets in the same step; otherwise it begins again.
//   - Counts only add up, and are added to without a look: a call that fails is never repeated here.
//   - A list is created once its chunks are known to be there, and their lives go beyond the list's by chunkSlack: whoever keeps a list keeps its
//     chunks first.
//   - Whoever is told "it is so already" is told so once that survives what a write survives.
package redis

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/task"
)

// database is the part of redisdb.DB that the store uses.
type database interface {
	Read(ctx context.Context, rs ...*redisdb.Read)
	Write(ctx context.Context, ws ...*redisdb.Write)
}

// Config says how a store is made.
type Config struct {
	DB *redisdb.DB // stays open when the store is closed
}

// Store is a task.Store. All methods are safe for concurrent use.
type Store struct {
	db     database // static
	closed atomic.Bool
}

var _ task.Store = (*Store)(nil)

// New returns the store that lies in a database.
func New(c Config) (*Store, error) {
	if c.DB == nil {
		return nil, errors.New("task: redis needs a database")
	}
	return &Store{db: c.DB}, nil
}

// Close makes every later call fail. The database stays open.
func (s *Store) Close() error {
	s.closed.Store(true)
	return nil
}

const tag redisdb.Tag = "tasks"

var (
	wakeKey   = tag.Key("w", "")
	endsKey   = tag.Key("e", "")
	switchKey = tag.Key("o", "")
)

func tasksKey(p push.ProductID) string { return tag.Key("t", string(p)) }
func taskIDs(p push.ProductID) string  { return tag.Key("T", string(p)) }
func listsKey(p push.ProductID) string { return tag.Key("l", string(p)) }
func listIDs(p push.ProductID) string  { return tag.Key("L", string(p)) }

func requestKey(p push.ProductID, name string) string {
	return tag.Key("k", strconv.Itoa(len(p))+":"+string(p)+name)
}

func countsKey(p push.ProductID, id push.MsgID) string { return tag.Key("n", place(p, id)) }

// idDigits are enough for any id.
const idDigits = 19

func name(id push.MsgID) string { return fmt.Sprintf("%0*d", idDigits, id) }

// place names a task among those of all products.
func place(p push.ProductID, id push.MsgID) string { return name(id) + string(p) }

func cutPlace(s string) (p push.ProductID, id push.MsgID, err error) {
	if len(s) < idDigits {
		return "", 0, damaged(errors.New("a place is cut short"))
	}
	n, err := strconv.ParseInt(s[:idDigits], 10, 64)
	if err != nil {
		return "", 0, damaged(errors.New("a place has no id"))
	}
	return push.ProductID(s[idDigits:]), push.MsgID(n), nil
}

// The sorts of places among the ends.
const (
	endOfTask = "t"
	endOfList = "l"
)

func command(name, key string, args ...any) redisdb.Command {
	return redisdb.Command{Name: name, Key: key, Args: args}
}

// usable returns why a call cannot take place, nil if it can.
func (s *Store) usable(ctx context.Context) error {
	if s.closed.Load() {
		return task.ErrClosed()
	}
	if err := ctx.Err(); err != nil {
		return task.ErrUnavailable(err)
	}
	return nil
}

// read asks for replies of one moment.
func (s *Store) read(ctx context.Context, do ...redisdb.Command) (*redisdb.Read, error) {
	return s.ask(ctx, &redisdb.Read{Tag: tag, Do: do})
}

func (s *Store) ask(ctx context.Context, r *redisdb.Read) (*redisdb.Read, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	s.db.Read(ctx, r)
	return r, failed(r.Err)
}

// failed returns an error of the database as one of the store.
func failed(err error) error {
	switch {
	case err == nil:
		return nil
	case push.KindOf(err) == push.KindClosed:
		return task.ErrClosed()
	case push.KindOf(err) == push.KindUnavailable:
		return err
	}
	return damaged(err)
}

func damaged(err error) error {
	return &push.Error{Kind: push.KindInternal, Code: "tasks_damaged", Detail: "the store of tasks cannot be read", Err: err}
}

// tries is how often a write is begun again that somebody was faster than.
const tries = 50

// write reads what ask says, has decide say by the replies what is to be done, and does it on the conditions that decide gives, under the lineage of the
// read; if one does not hold any more it begins again. If decide fails nothing is written. If it has nothing to do, that is answered once what it was
// decided by survives what a write survives.
func (s *Store) write(ctx context.Context, ask []redisdb.Command, decide func(was []any, now push.MilliTime) (*redisdb.Write, error)) error {
	for try := range tries {
		if err := redisdb.Pause(ctx, try-1); err != nil {
			return task.ErrUnavailable(err)
		}
		r, err := s.read(ctx, ask...)
		if err != nil {
			return err
		}
		w, err := decide(r.Replies, r.Now)
		if err != nil {
			return err
		}
		if w == nil {
			again, err := s.ask(ctx, &redisdb.Read{Tag: tag, Do: ask, Kept: true})
			if err != nil {
				return err
			}
			if again.Lineage == r.Lineage && reflect.DeepEqual(again.Replies, r.Replies) {
				return nil
			}
			continue
		}
		w.Tag, w.Under = tag, r.Lineage
		s.db.Write(ctx, w)
		if w.Err != nil {
			return failed(w.Err)
		}
		if w.Done {
			return nil
		}
	}
	return task.ErrUnavailable(errors.New("others keep being faster"))
}

// text returns a reply, and whether there is one.
func text(reply any) ([]byte, bool) {
	v, ok := reply.(string)
	return []byte(v), ok
}

// newest returns ids of a sorted set that are below before, all if that is 0, in descending order, at most n, and what lies under them in a hash: nil of what has
// gone meanwhile. more says that there are more.
func (s *Store) newest(ctx context.Context, ids, records string, before push.MsgID, n int) (found []push.MsgID, values []any, now push.MilliTime, more bool, err error) {
	from := "+"
	if before != 0 {
		from = "(" + name(before)
	}
	r, err := s.read(ctx, command("ZREVRANGEBYLEX", ids, from, "-", "LIMIT", 0, n+1))
	if err != nil {
		return nil, nil, 0, false, err
	}
	names, _ := r.Replies[0].([]any)
	if more = len(names) > n; more {
		names = names[:n]
	}
	if len(names) == 0 {
		return nil, nil, r.Now, false, nil
	}
	for _, one := range names {
		v, _ := one.(string)
		_, id, err := cutPlace(v)
		if err != nil {
			return nil, nil, 0, false, err
		}
		found = append(found, id)
	}
	if r, err = s.read(ctx, command("HMGET", records, names...)); err != nil {
		return nil, nil, 0, false, err
	}
	values, _ = r.Replies[0].([]any)
	if len(values) != len(found) {
		return nil, nil, 0, false, damaged(errors.New("a list of another length than what was asked for"))
	}
	return found, values, r.Now, more, nil
}

// scores takes a part of a sorted set apart that came with its scores.
func scores(reply any) (members []string, at []push.MilliTime, err error) {
	all, _ := reply.([]any)
	for i := 0; i+1 < len(all); i += 2 {
		member, _ := all[i].(string)
		score, _ := all[i+1].(string)
		n, err := strconv.ParseFloat(score, 64)
		if err != nil {
			return nil, nil, damaged(errors.New("a score is no number"))
		}
		members, at = append(members, member), append(at, push.MilliTime(n))
	}
	return members, at, nil
}

// cutField takes the name of what was counted apart.
func cutField(f string) (k task.Kind, l task.Life, ok bool) {
	kind, rest, _ := strings.Cut(f, ":")
	boot, room, ok := strings.Cut(rest, ":")
	n, err1 := strconv.ParseUint(kind, 10, 8)
	b, err2 := strconv.ParseUint(boot, 10, 64)
	return task.Kind(n), task.Life{Room: push.RoomID(room), Boot: push.BootID(b)}, ok && err1 == nil && err2 == nil
}

func field(k task.Kind, l task.Life) string {
	return strconv.Itoa(int(k)) + ":" + strconv.FormatUint(uint64(l.Boot), 10) + ":" + string(l.Room)
}
