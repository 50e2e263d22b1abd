package pushes

import (
	"context"
	"fmt"

	"carillon/server/embedded"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redistest"
	registermemory "carillon/server/register/memory"
	"carillon/server/saver"
	saverpebble "carillon/server/saver/pebble"
	saverredis "carillon/server/saver/redis"
)

// held is what the users' slots hold of some tasks.
type held struct {
	once, more, never int64 // users, by how often the message is there
	back              int64 // users with exactly one entry that takes it back
	backMore          int64 // users with several
}

// readEmbedded reads the slots in the directory of a node that has ended.
func readEmbedded(ctx context.Context, dir string, ids []push.MsgID, users []push.UserID, shards int) (_ map[push.MsgID]*held, err error) {
	db, err := embedded.Open(embedded.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	reg := registermemory.New(registermemory.Config{})
	defer reg.Close()
	s, err := saverpebble.New(saverpebble.Config{DB: db, Locator: reg})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return read(ctx, s, ids, users, shards)
}

// readRedis reads the slots that lie in Redis.
func readRedis(ctx context.Context, a redistest.Access, ids []push.MsgID, users []push.UserID, shards int) (map[push.MsgID]*held, error) {
	db, err := redisdb.Open(ctx, redisdb.Config{
		Mode: redisdb.Mode(a.Mode), Addrs: a.Addrs, Master: a.MasterName, Username: a.Username, Password: a.Password,
	})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	s, err := saverredis.New(saverredis.Config{DB: db, Shards: func(push.ProductID) int { return shards }})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return read(ctx, s, ids, users, shards)
}

// atOnce is how many slots are read in one call.
const atOnce = 500

// read reads every user's own slot from its beginning.
func read(ctx context.Context, s saver.Store, ids []push.MsgID, users []push.UserID, shards int) (map[push.MsgID]*held, error) {
	out := make(map[push.MsgID]*held, len(ids))
	for _, id := range ids {
		out[id] = new(held)
	}
	for from := 0; from < len(users); from += atOnce {
		part := users[from:min(len(users), from+atOnce)]
		rs := make([]saver.Read, len(part))
		for i, u := range part {
			ref := saver.UserRef{Product: product, Shards: shards, User: u}
			rs[i] = saver.Read{ShardRef: ref.Shard(), Slot: push.Own, User: u, MaxEntries: 1000, MaxBytes: 64 << 20}
		}
		tails, err := s.Read(ctx, rs)
		if err != nil {
			return nil, err
		}
		for i := range tails {
			if tails[i].More() {
				return nil, fmt.Errorf("the slot of %q has more than was read", part[i])
			}
			for id, h := range out {
				h.count(id, tails[i].Entries)
			}
		}
	}
	return out, nil
}

// count adds what one slot holds.
func (h *held) count(id push.MsgID, entries []saver.Entry) {
	there, back := 0, 0
	for i := range entries {
		switch {
		case entries[i].ID != id:
		case entries[i].Kind == saver.EntryRecall:
			back++
		default:
			there++
		}
	}
	switch {
	case there == 0:
		h.never++
	case there == 1:
		h.once++
	default:
		h.more++
	}
	switch {
	case back == 1:
		h.back++
	case back > 1:
		h.backMore++
	}
}
