package redis

import (
	"context"
	"sync"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/register"
)

// Lookup returns the sessions of each user that count. Users of a shard share one command, and all of them the round trips.
// What rooms are asked for on the strength of it is a hint: it may be a moment old.
func (r *Register) Lookup(ctx context.Context, p push.ProductID, users []push.UserID) ([][]register.Session, error) {
	if err := r.usable(ctx, "lookup"); err != nil {
		return nil, err
	}
	found := make([][]register.Session, len(users))
	if len(users) == 0 {
		return found, nil
	}
	n, err := r.shardsOf(ctx, p)
	if push.KindOf(err) == push.KindNotFound {
		return found, nil
	}
	if err != nil {
		return nil, err
	}
	reads := readsOf(p, users, n)
	v, err := r.present(ctx)
	if err != nil {
		return nil, err
	}
	parts := make([]lookup, min(lookupWays, (len(reads)+lookupLeast-1)/lookupLeast))
	var all sync.WaitGroup
	for i := range parts {
		parts[i] = lookup{r: r, product: p, view: v, users: users, found: found}
		mine := reads[i*len(reads)/len(parts) : (i+1)*len(reads)/len(parts)]
		all.Go(func() { parts[i].run(ctx, mine) })
	}
	all.Wait()
	var open []stored
	var whose []int
	for i := range parts {
		if parts[i].err != nil {
			return nil, parts[i].err
		}
		open, whose = append(open, parts[i].open...), append(whose, parts[i].whose...)
	}
	last := lookup{r: r, view: v, users: users, found: found, open: open, whose: whose}
	return found, last.finish(ctx)
}

// A look-up of very many users goes several ways at once, so that what one answers is read while the server works for another.
const (
	lookupWays  = 4
	lookupLeast = 64 // reads to each
)

// lookup collects the sessions that count. Those of rooms that the view does not know wait until it was read anew.
type lookup struct {
	r       *Register
	product push.ProductID
	view    *view
	users   []push.UserID
	found   [][]register.Session

	space []register.Session // for those of the next users: most have one
	one   stored             // the session at hand
	last  place              // of the session before, and its lease in the view
	lease *lease
	open  []stored
	whose []int // index of the user of each open one
	err   error
}

func (l *lookup) run(ctx context.Context, reads []*shardRead) {
	all := make([]*redisdb.Read, len(reads))
	for i := range reads {
		all[i] = &reads[i].Read
	}
	l.r.db.Peek(ctx, all...)
	for _, read := range reads {
		if read.Err != nil {
			l.err = failed("lookup", read.Err)
			return
		}
		if err := l.take(read); err != nil {
			l.err = damaged("lookup", err)
			return
		}
	}
}

// take takes what one read found.
func (l *lookup) take(read *shardRead) error {
	values, ok := read.Replies[0].([]any)
	if !ok || len(values) != len(read.users) {
		return errDamaged
	}
	now := l.view.now(l.r)
	for j, v := range values {
		value, _ := v.(string)
		if value == "" {
			continue
		}
		at := read.users[j]
		for len(value) > 0 {
			s := &l.one
			n := s.read(l.product, l.users[at], read.shard, value)
			if n == 0 {
				return errDamaged
			}
			value = value[n:]
			if l.lease == nil || s.at != l.last { // most are of the room of the one before
				l.last, l.lease = s.at, l.view.find(s.at)
			}
			if l.lease == nil && !l.r.dead.has(s.at.life) {
				l.open, l.whose = append(l.open, *s), append(l.whose, at)
				continue
			}
			l.add(at, s, l.lease, now)
		}
	}
	return nil
}

// add adds a session if it counts.
func (l *lookup) add(at int, s *stored, lease *lease, now push.MilliTime) {
	if lease == nil || !lease.holds(now) {
		return
	}
	s.Boot = lease.boot
	if l.found[at] == nil {
		if len(l.space) == 0 {
			l.space = make([]register.Session, min(len(l.users), 256))
		}
		l.found[at], l.space = l.space[:0:1], l.space[1:]
	}
	l.found[at] = append(l.found[at], s.Session)
}

// finish adds what was left open.
func (l *lookup) finish(ctx context.Context) error {
	if len(l.open) == 0 {
		return nil
	}
	before := l.r.asked.Load() // what is read of the table from here on knows all lives in what was read
	v, err := l.r.known(ctx, l.view, before, l.open)
	if err != nil {
		return err
	}
	l.view = v
	now := v.now(l.r)
	for i := range l.open {
		l.add(l.whose[i], &l.open[i], v.find(l.open[i].at), now)
	}
	return nil
}

// shardRead reads the sessions of some users of a shard.
type shardRead struct {
	redisdb.Read
	shard push.Shard
	users []int // by the command's arguments, the index of the user
}

// readMost is how many users one read asks for: no read keeps the server for long.
const readMost = 256

// readsOf sorts users by shard. It counts first, so that all of them lie in a few pieces of memory.
func readsOf(p push.ProductID, users []push.UserID, shards int) []*shardRead {
	in := make([]push.Shard, len(users))
	left := make(map[push.Shard]int, min(shards, len(users)))
	for i, u := range users {
		in[i] = push.ShardOf(u, shards)
		left[in[i]]++
	}
	args, numbers := make([]any, len(users)), make([]int, len(users))
	reads := make([]*shardRead, 0, len(left)+len(users)/readMost)
	last := make(map[push.Shard]*shardRead, len(left))
	for i := range users {
		s := in[i]
		read := last[s]
		if read == nil || len(read.users) == readMost {
			n := min(left[s], readMost)
			left[s] -= n
			tag := redisdb.ShardTag(p, s)
			read = &shardRead{shard: s, users: numbers[:0:n]}
			read.Read = redisdb.Read{Tag: tag, Do: []redisdb.Command{{Name: "HMGET", Key: tag.SessionsKey(), Args: args[:0:n]}}}
			args, numbers = args[n:], numbers[n:]
			last[s] = read
			reads = append(reads, read)
		}
		read.Do[0].Args = append(read.Do[0].Args, (*string)(&users[i]))
		read.users = append(read.users, i)
	}
	return reads
}
