package redis

import (
	"context"

	"carillon/server/push"
	"carillon/server/redisdb"
)

// What rooms that died left in a shard is cleared away by one of those that hold sessions there, a little with each renewal. It looks at a part of the
// shard's users in one renewal and judges them by the table that it reads in the next: a life that is not in that one was not
// about to begin when its sessions were read.

// How much one renewal clears.
const (
	clearShards = 8   // at once
	clearUsers  = 128 // of each, about
)

// leftover is a user as it was found in a shard that holds sessions of dead rooms.
type leftover struct {
	ref shardRef
	reading
	user push.UserID
}

// leftovers notes that there is something to clear in a shard.
func (n *renewal) leftovers(ref shardRef) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, in := n.t.clearing[ref]; !in {
		n.t.clearing[ref] = "0"
	}
}

// scan looks at a part of the users of a shard.
type scan struct {
	redisdb.Read
	ref shardRef
}

// nextScans returns what is looked at next, unless something is left to be judged.
func (r *Register) nextScans(t *tenure) (scans []*scan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(t.found) > 0 {
		return nil
	}
	for ref, cursor := range t.clearing {
		if len(scans) == clearShards {
			break
		}
		tag := redisdb.ShardTag(ref.product, ref.shard)
		scans = append(scans, &scan{ref: ref, Read: redisdb.Read{Tag: tag, Do: []redisdb.Command{
			{Name: "HSCAN", Key: tag.SessionsKey(), Args: []any{cursor, "COUNT", clearUsers}},
		}}})
	}
	return scans
}

// note keeps what was found for the next renewal. Where something cannot be read the rest of the shard is left for another time.
func (n *renewal) note(s *scan) {
	if s.Err != nil {
		return
	}
	parts, _ := s.Replies[0].([]any)
	var found []leftover
	next := "0"
	if len(parts) == 2 {
		if cursor, ok := parts[0].(string); ok {
			next = cursor
		}
		err := pairs(parts[1], func(name, value string) error {
			l := leftover{ref: s.ref, user: push.UserID(name), reading: reading{value: value, lineage: s.Lineage}}
			err := readSessions(s.ref.product, l.user, s.ref.shard, value, func(s *stored) { l.sessions = append(l.sessions, *s) })
			found = append(found, l)
			return err
		})
		if err != nil {
			n.log.Error("the sessions of a shard cannot be read", "product", s.ref.product, "shard", s.ref.shard, "err", err)
			found, next = nil, "0"
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.t.found = append(n.t.found, found...)
	if n.t.clearing[s.ref] = next; next == "0" {
		delete(n.t.clearing, s.ref)
	}
}

// clear takes the sessions of dead rooms out of what was found before the table was read.
func (n *renewal) clear(ctx context.Context, v *view) {
	n.mu.Lock()
	found := n.t.found
	n.t.found = nil
	n.mu.Unlock()
	var ws []*write
	for i := range found {
		l := &found[i]
		tag := redisdb.ShardTag(l.ref.product, l.ref.shard)
		u := &user{product: l.ref.product, user: l.user, ref: l.ref, tag: tag, key: tag.SessionsKey()}
		w := newWrite(ctx, n.Register, u, v, v.at, &l.reading)
		for j := range l.sessions {
			if v.isDead(l.sessions[j].at) {
				w.takesOut(&l.sessions[j])
			}
		}
		if w.prepare() {
			ws = append(ws, w)
		}
	}
	n.writeAll(ctx, ws)
}

// writeAll does some writes in one call. One that another change was faster than is left: somebody was there, and looked himself.
func (r *Register) writeAll(ctx context.Context, ws []*write) {
	if len(ws) == 0 {
		return
	}
	all := make([]*redisdb.Write, len(ws))
	for i, w := range ws {
		all[i] = &w.Write
		w.over = r.writing(w.user.ref)
	}
	r.db.Write(ctx, all...)
	for _, w := range ws {
		_, _ = w.finish("clear")
	}
}
