package redis

import (
	"context"
	"sync"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/register"
)

// Lookup returns where each user is. Users of a shard share one command, and all of them the round trips.
// What rooms are asked for on the strength of it is a hint: it may be a moment old.
func (r *Register) Lookup(ctx context.Context, p push.ProductID, users []push.UserID) ([][]register.Found, error) {
	if err := r.usable(ctx, "lookup"); err != nil {
		return nil, err
	}
	found := make([][]register.Found, len(users))
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
	found   [][]register.Found

	space []register.Found // for those of the next users: most have one
	last  place            // of the session before, and its lease in the view
	lease *lease
	open  []stored // of which only place, device and epoch are known
	whose []int    // index of the user of each open one
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
	values, ok := read.Replies[0].([]string)
	if !ok || len(values) != len(read.users) {
		return errDamaged
	}
	now := l.view.now(l.r)
	for j, value := range values {
		for at := read.users[j]; len(value) > 0; {
			where, epoch, device, n := whereOf(value)
			if n == 0 {
				return errDamaged
			}
			value = value[n:]
			if l.lease == nil || where != l.last { // most are of the room of the one before
				l.last, l.lease = where, l.view.find(where)
			}
			if l.lease == nil && !l.r.dead.has(where.life) {
				s := stored{at: where}
				s.Device, s.Epoch = device, epoch
				l.open, l.whose = append(l.open, s), append(l.whose, at)
				continue
			}
			l.add(at, device, epoch, l.lease, now)
		}
	}
	return nil
}

// add adds a session if it counts.
func (l *lookup) add(at int, device push.DeviceID, epoch push.SessionEpoch, lease *lease, now push.MilliTime) {
	if lease == nil || !lease.holds(now) {
		return
	}
	if l.found[at] == nil {
		if len(l.space) == 0 {
			l.space = make([]register.Found, min(len(l.users), 256))
		}
		l.found[at], l.space = l.space[:0:1], l.space[1:]
	}
	l.found[at] = append(l.found[at], register.Found{Room: lease.room, Device: device, Epoch: epoch})
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
		s := &l.open[i]
		l.add(l.whose[i], s.Device, s.Epoch, v.find(s.at), now)
	}
	return nil
}

// shardRead reads the sessions of some users of a shard.
type shardRead struct {
	redisdb.Read
	users []int // by the command's arguments, the index of the user
}

// readMost is how many users one read asks for: no read keeps the server for long.
const readMost = 256

// readsOf sorts users by shard. It counts first, so that all of them lie in a few pieces of memory.
func readsOf(p push.ProductID, users []push.UserID, shards int) []*shardRead {
	in, left := make([]push.Shard, len(users)), make([]int, shards)
	several := 0
	for i, u := range users {
		s := push.ShardOf(u, shards)
		if in[i] = s; left[s] == 0 {
			several++
		}
		left[s]++
	}
	args, numbers := make([]any, len(users)), make([]int, len(users))
	reads := make([]*shardRead, 0, several+len(users)/readMost)
	last := make([]*shardRead, shards)
	for i := range users {
		s := in[i]
		read := last[s]
		if read == nil || len(read.users) == readMost {
			n := min(left[s], readMost)
			left[s] -= n
			tag := redisdb.ShardTag(p, s)
			do := []redisdb.Command{{Name: "HMGET", Key: tag.SessionsKey(), Args: args[:0:n]}}
			read = &shardRead{Read: redisdb.Read{Tag: tag, Do: do, Texts: true}, users: numbers[:0:n]}
			args, numbers = args[n:], numbers[n:]
			last[s] = read
			reads = append(reads, read)
		}
		read.Do[0].Args = append(read.Do[0].Args, (*string)(&users[i]))
		read.users = append(read.users, i)
	}
	return reads
}
