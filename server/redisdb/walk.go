package redisdb

import (
	"cmp"
	"context"
	"slices"
	"strings"
)

// Walk goes over all keys of one kind, some at a time, for what sweeps and counts in the background. A key that is there during the whole
// walk is found at least once, unless it moves to another server meanwhile; another one may be. It is not safe for concurrent use.
type Walk struct {
	db      *DB
	kind    string
	servers []*primary // still to be asked; nil at the beginning
	begun   bool
	at      uint64
}

// Found is a key that a walk found: kind apart, what [Tag.Key] was made from.
type Found struct {
	Tag  Tag
	Name string
}

// Walk returns a walk over the keys of that kind.
func (db *DB) Walk(kind string) *Walk { return &Walk{db: db, kind: kind} }

// Next looks at about so many keys of whatever kind and returns those that are meant, perhaps none. done says that the walk is over. After an
// error the walk can go on where it was.
func (w *Walk) Next(ctx context.Context, look int) (found []Found, done bool, err error) {
	if !w.db.enter() {
		return nil, false, errClosed()
	}
	defer w.db.running.Done()
	if !w.begun {
		w.servers, w.begun = w.db.all(), true
		slices.SortFunc(w.servers, func(a, b *primary) int { return cmp.Compare(a.addr, b.addr) })
	}
	if len(w.servers) == 0 {
		return nil, true, nil
	}
	keys, next, err := w.db.current(w.servers[0]).plain.Scan(ctx, w.at, Prefix+"{*}:"+w.kind+":*", int64(max(look, 1))).Result()
	if err != nil {
		return nil, false, errUnknown(err)
	}
	for _, k := range keys {
		rest, ok := strings.CutPrefix(k, Prefix+"{")
		tag, rest, ok2 := strings.Cut(rest, "}:")
		name, ok3 := strings.CutPrefix(rest, w.kind+":")
		if ok && ok2 && ok3 {
			found = append(found, Found{Tag(tag), name})
		}
	}
	if w.at = next; next == 0 {
		w.servers = w.servers[1:]
	}
	return found, len(w.servers) == 0, nil
}

// current returns the primary that is now at the address of p, p itself if there is none any more.
func (db *DB) current(p *primary) *primary {
	db.learning.Lock()
	defer db.learning.Unlock()
	if now := db.primaries[p.addr]; now != nil {
		return now
	}
	return p
}
