package redis

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/register"
)

// The tags that a room may hold are the fields of one hash for each life of it. The field without a name is the mark: it says what the
// others are worth, and changes with each write, which asks for the one before. So a write that was given up, and is carried out late,
// has no effect; and whoever reads the tags sees from the lineage in the mark whether a failover may have lost some.

const (
	tagFields = 500 // tags in one write, and in one command of a read
	tagWrites = 16  // writes under way at once
)

// The kinds of marks.
const (
	markAll     = '!' // what is not there the room does not hold
	markAny     = '*' // the room may hold any
	markPartial = '?' // the rest is on its way
)

// toldTags is what the store was told of the tags of a tenure. Whoever has the turn owns it.
type toldTags struct {
	turn  turn
	mark  string       // empty: nobody knows what is there
	under push.Lineage // of mark
}

func tagsKey(at place) string { return roomTag(at.room).Key("t", at.name()) }

func tagField(t register.TagOf) string {
	return string(append(appendText(nil, string(t.Product)), t.Tag...))
}

// mark returns another mark than any before it.
func (r *Register) mark(kind byte, l push.Lineage) (string, error) {
	var number [8]byte
	if _, err := io.ReadFull(r.rand, number[:]); err != nil {
		return "", &push.Error{Kind: push.KindInternal, Code: "register_random", Detail: "register: tell tags: no randomness", Err: err}
	}
	return markOf(kind, l) + hex.EncodeToString(number[:]), nil
}

func markOf(kind byte, l push.Lineage) string { return fmt.Sprintf("%c%016x", kind, uint64(l)) }

// isWhole reports whether tags with that mark are all that the room holds, where they were read under that lineage.
func isWhole(mark any, l push.Lineage) bool {
	m, ok := mark.(string)
	want := markOf(markAll, l)
	return ok && len(m) > len(want) && m[:len(want)] == want
}

// TellTags notes which tags a room may hold: in one round trip for as many as fit into some writes, in one more if it tells all.
func (r *Register) TellTags(ctx context.Context, room push.RoomID, boot push.BootID, news register.TagNews) error {
	const op = "tell tags"
	if err := r.usable(ctx, op); err != nil {
		return err
	}
	t := r.tenure(room, boot)
	if t == nil {
		return leaseLost(op)
	}
	v, err := r.present(ctx)
	if err != nil {
		return err
	}
	if !v.counts(t.at, v.now(r)) {
		return leaseLost(op)
	}
	if err := t.tags.turn.lock(ctx); err != nil {
		return err
	}
	defer t.tags.turn.unlock()
	tell := telling{Register: r, t: t, key: tagsKey(t.at), was: t.tags.mark, under: t.tags.under}
	kind, last := byte(markAll), byte(markAll)
	if news.All {
		if tell.was, tell.under, err = r.readMark(ctx, t.at); err != nil {
			return failed(op, err)
		}
		kind = markPartial
		if news.Any {
			last = markAny
		}
	} else if t.tags.mark == "" {
		return tagsLost()
	} else {
		kind, last = t.tags.mark[0], t.tags.mark[0]
	}
	t.tags.mark = "" // until it is known to be otherwise
	if err := tell.plan(&news, kind, last); err != nil {
		return err
	}
	done, err := tell.run(ctx)
	switch {
	case err != nil:
		return failed(op, err)
	case !done && news.All:
		return unavailable(op, errBusy)
	case !done:
		return tagsLost()
	}
	t.tags.mark, t.tags.under = tell.mark, tell.under
	return nil
}

func tagsLost() error {
	return push.Errorf(push.KindConflict, register.CodeTagsLost, "register: tell tags: the store does not have what the room told before")
}

// readMark returns the mark as a condition wants it, nil if there is none, and the lineage.
func (r *Register) readMark(ctx context.Context, at place) (any, push.Lineage, error) {
	read := &redisdb.Read{Tag: roomTag(at.room), Do: []redisdb.Command{{Name: "HGET", Key: tagsKey(at), Args: []any{""}}}}
	r.db.Read(ctx, read)
	if read.Err != nil {
		return nil, 0, read.Err
	}
	return read.Replies[0], read.Lineage, nil
}

// telling is one call of TellTags.
type telling struct {
	*Register
	t     *tenure
	key   string
	was   any // the mark before it
	under push.Lineage

	writes []*redisdb.Write
	mark   string // behind the last of them
}

// plan makes the writes, each of which asks for the mark of the one before. Their marks are of a kind, that of the last one of another.
func (n *telling) plan(news *register.TagNews, kind, last byte) error {
	add, remove := news.Add, news.Remove
	for first := true; first || len(add)+len(remove) > 0; first = false {
		w := &redisdb.Write{
			Tag: roomTag(n.t.at.room), Under: n.under, Frees: true, Lax: true, // what is told is bounded, and without it nobody with a tag could connect
			If: []redisdb.Condition{redisdb.IfField(n.key, "", n.was)},
		}
		if first && news.All {
			w.Do = append(w.Do, redisdb.Command{Name: "UNLINK", Key: n.key})
		}
		some := remove[:min(len(remove), tagFields)]
		remove = remove[len(some):]
		if len(some) > 0 {
			args := make([]any, len(some))
			for i, t := range some {
				args[i] = tagField(t)
			}
			w.Do = append(w.Do, redisdb.Command{Name: "HDEL", Key: n.key, Args: args})
		}
		some = add[:min(len(add), tagFields-len(some))]
		if len(remove) > 0 {
			some = nil // first what goes
		}
		add = add[len(some):]
		if len(add)+len(remove) == 0 {
			kind = last
		}
		var err error
		if n.mark, err = n.Register.mark(kind, n.under); err != nil {
			return err
		}
		n.was = n.mark
		args := make([]any, 0, 2+2*len(some))
		args = append(args, "", n.mark)
		for _, t := range some {
			args = append(args, tagField(t), "")
		}
		w.Do = append(w.Do, redisdb.Command{Name: "HSET", Key: n.key, Args: args},
			redisdb.Command{Name: "PEXPIRE", Key: n.key, Args: []any{register.TagsKept.Milliseconds()}})
		n.writes = append(n.writes, w)
	}
	return nil
}

// run reports whether all writes were done.
func (n *telling) run(ctx context.Context) (bool, error) {
	for ws := n.writes; len(ws) > 0; {
		some := ws[:min(len(ws), tagWrites)]
		ws = ws[len(some):]
		n.db.Write(ctx, some...)
		for _, w := range some {
			if w.Err != nil || !w.Done {
				return false, w.Err
			}
		}
	}
	return true, nil
}

// RoomsByTags returns the rooms whose lease holds and which of the tags each may hold. The table of leases and the tags of all lives
// that it named when it was read last are read at once. If a room has begun another one since, they are read once more.
func (r *Register) RoomsByTags(ctx context.Context, p push.ProductID, tags []push.Tag) ([]register.RoomTags, error) {
	const op = "rooms by tags"
	if err := r.usable(ctx, op); err != nil {
		return nil, err
	}
	known := r.view.Load()
	for try := 0; ; try++ {
		rooms, all, err := r.roomsByTags(ctx, p, tags, known)
		if err != nil {
			return nil, failed(op, err)
		}
		if all || try == 1 {
			return rooms, nil
		}
		if known, err = r.look(ctx, r.asked.Load()); err != nil {
			return nil, err
		}
	}
}

// roomsByTags asks for the tags of the lives in a view; all reports whether those are the lives that count.
func (r *Register) roomsByTags(ctx context.Context, p push.ProductID, tags []push.Tag, known *view) (rooms []register.RoomTags, all bool, err error) {
	table := tableRead()
	reads := []*redisdb.Read{table}
	asked := make(map[place]*redisdb.Read, len(known.rooms))
	commands := tagCommands(p, tags)
	for id, l := range known.rooms {
		at := place{id, l.life}
		read := &redisdb.Read{Tag: roomTag(id), Do: slices.Clone(commands)}
		for i, key := 0, tagsKey(at); i < len(read.Do); i++ {
			read.Do[i].Key = key
		}
		asked[at] = read
		reads = append(reads, read)
	}
	r.db.Read(ctx, reads...)
	v, err := r.viewOf(table)
	if err != nil {
		return nil, false, err
	}
	list := v.list()
	rooms, all = make([]register.RoomTags, len(list)), true
	for i := range list {
		id := list[i].ID
		read := asked[place{id, v.rooms[id].life}]
		all = all && read != nil
		rooms[i] = heldIn(id, read, len(tags))
	}
	return rooms, all, nil
}

// tagCommands returns the commands, without their key, that ask for the mark and these tags.
func tagCommands(p push.ProductID, tags []push.Tag) (commands []redisdb.Command) {
	args := []any{""}
	for _, t := range tags {
		if len(args) > tagFields {
			commands = append(commands, redisdb.Command{Name: "HMGET", Args: args})
			args = nil
		}
		args = append(args, tagField(register.TagOf{Product: p, Tag: t}))
	}
	return append(commands, redisdb.Command{Name: "HMGET", Args: args})
}

// heldIn returns what a room may hold of so many tags, after what was read of it; nil: nothing was.
func heldIn(id push.RoomID, read *redisdb.Read, tags int) register.RoomTags {
	unknown := register.RoomTags{Room: id, Any: true}
	if read == nil || read.Err != nil {
		return unknown
	}
	var fields []any
	for _, reply := range read.Replies {
		some, _ := reply.([]any)
		fields = append(fields, some...)
	}
	if len(fields) != 1+tags || !isWhole(fields[0], read.Lineage) {
		return unknown
	}
	has := make([]bool, tags)
	for i := range has {
		has[i] = fields[1+i] != nil
	}
	return register.RoomTags{Room: id, Has: has}
}
