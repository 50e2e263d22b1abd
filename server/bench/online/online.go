// Package online fills the register of a cluster and looks users up in it, by the code by which nodes do it.
//
// # Place in the flow
//
// Package bench measures a server from outside; but the REST interface has no request that does nothing but look users up. So the
// bench plays a node that does: a room, in whose name sessions are inserted, and a publisher.
//
// # Invariants
//
//   - Nobody but the bench's own product has sessions in the room, and Close gives its lease back.
package online

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/register"
	registerredis "carillon/server/register/redis"
)

// Config says where sessions go.
type Config struct {
	Redis   string // host:port of a primary
	Product push.ProductID
	Shards  int // of the product
}

// Online is a room of a cluster that has sessions and no clients. Its methods are for one goroutine.
type Online struct {
	// Static after Open.
	cfg  Config
	db   *redisdb.DB
	reg  *registerredis.Register
	boot push.BootID

	// Owned by Fill.
	stop    context.CancelFunc // ends renewing; nil: there is no lease
	renewed sync.WaitGroup
	lost    atomic.Pointer[error] // why the lease was not renewed
}

// room is the name of the room.
const room = push.RoomID("bench")

// Open connects.
func Open(ctx context.Context, c Config) (o *Online, err error) {
	var boot [8]byte
	if _, err := rand.Read(boot[:]); err != nil {
		return nil, fmt.Errorf("online: %w", err)
	}
	o = &Online{cfg: c, boot: push.BootID(binary.BigEndian.Uint64(boot[:]) | 1)}
	if o.db, err = redisdb.Open(ctx, redisdb.Config{Addrs: []string{c.Redis}}); err != nil {
		return nil, fmt.Errorf("online: %w", err)
	}
	o.reg, err = registerredis.New(registerredis.Config{
		DB: o.db, Shards: func(context.Context, push.ProductID) (int, error) { return c.Shards, nil },
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("online: %w", err), o.db.Close())
	}
	return o, nil
}

// Close gives the lease back and ends the connection.
func (o *Online) Close() error {
	var left error
	if o.stop != nil {
		o.stop()
		o.renewed.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		left = o.reg.Leave(ctx, room, o.boot)
	}
	return errors.Join(left, o.reg.Close(), o.db.Close())
}

// atOnce is how many sessions are inserted side by side.
const atOnce = 64

// Fill gives each of n users a session, and tells now and then how many have one.
func (o *Online) Fill(ctx context.Context, n int, user func(i int) push.UserID, told func(done int)) error {
	if o.stop == nil {
		if err := o.reg.Join(ctx, register.Room{ID: room, Boot: o.boot}); err != nil {
			return fmt.Errorf("online: %w", err)
		}
		renewing, stop := context.WithCancel(context.Background())
		o.stop = stop
		o.renewed.Go(func() { o.renew(renewing) })
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var next, done atomic.Int64
	var inserting sync.WaitGroup
	for range min(atOnce, n) {
		inserting.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := o.insert(ctx, user(i)); err != nil {
					fail(fmt.Errorf("online: user %d: %w", i, err))
					return
				}
				if d := done.Add(1); d%1000 == 0 {
					told(int(d))
				}
			}
		})
	}
	inserting.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return o.held()
}

func (o *Online) insert(ctx context.Context, u push.UserID) error {
	_, err := o.reg.Insert(ctx, register.Session{
		Key: register.Key{Product: o.cfg.Product, User: u, Device: "phone"}, Shard: push.ShardOf(u, o.cfg.Shards),
		Platform: push.PlatformAndroid, Class: "default", Transport: "tcp", Room: room, Boot: o.boot, Since: push.Milli(time.Now()),
	}, nil)
	return err
}

// renew keeps the lease until ctx ends.
func (o *Online) renew(ctx context.Context) {
	tick := time.NewTicker(register.RenewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := o.reg.Renew(ctx, room, o.boot); err != nil && ctx.Err() == nil {
			o.lost.Store(&err)
		}
	}
}

// held returns why sessions may not count any more.
func (o *Online) held() error {
	if err := o.lost.Load(); err != nil {
		return fmt.Errorf("online: the lease: %w", *err)
	}
	return nil
}

// Lookup looks users up in one call, and returns how many of them have a session.
func (o *Online) Lookup(ctx context.Context, users []push.UserID) (online int, err error) {
	found, err := o.reg.Lookup(ctx, o.cfg.Product, users)
	if err != nil {
		return 0, fmt.Errorf("online: %w", err)
	}
	for _, sessions := range found {
		if len(sessions) > 0 {
			online++
		}
	}
	return online, o.held()
}

// Users returns the names of n users, from the first one on.
func Users(prefix string, first, n int) []push.UserID {
	out := make([]push.UserID, n)
	for i := range out {
		out[i] = push.UserID(prefix + strconv.Itoa(first+i))
	}
	return out
}
