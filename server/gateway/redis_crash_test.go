//go:build failpoints

package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carillon/server/client"
	"carillon/server/failpoint"
	"carillon/server/fleet"
	"carillon/server/redistest"
)

// redisKillPoints is killPoints for a node on Redis. Each case has devices on every transport at once, and messages that are persistent and
// that are not: what differs between transports lies above the store, and the kill points there are tried with each of them elsewhere.
var redisKillPoints = map[failpoint.Name][]int{
	failpoint.IDsReserved:           {1},
	failpoint.SaverKeyClaimed:       {20},
	failpoint.SaverBodyStored:       {3},
	failpoint.SaverIntentStored:     {3},
	failpoint.SaverPublishApplied:   {20},
	failpoint.SaverPublishSynced:    {20},
	failpoint.CenterPublishStored:   {20},
	failpoint.CenterPublishNotified: {20},
	failpoint.CenterRecallStored:    {1},
	failpoint.RoomNotified:          {20},
	failpoint.SaverOpenApplied:      {3},
	failpoint.RoomOpened:            {3},
	failpoint.RoomAckTaken:          {3},
	failpoint.SaverAckApplied:       {3},
	failpoint.SaverRecallStored:     {1},
	failpoint.SaverRecallApplied:    {1},
	failpoint.SaverSweepApplied:     {1},
	failpoint.CatalogWritten:        {3},
	failpoint.RedisAnswered:         {20, 111}, // whatever was under way: between shards, behind the key, behind the intent
	failpoint.RegisterJoined:        {1},
	failpoint.RegisterWritten:       {3},
}

func TestCrash_AtEachFailpointOnRedisNothingIsLostOrRepeated(t *testing.T) {
	for _, name := range slices.Concat(failpoint.All(), failpoint.OnRedis(), failpoint.OfCluster()) {
		hits, ok := redisKillPoints[name]
		if !ok {
			t.Errorf("failpoint %s has no case on Redis", name)
		}
		for _, hit := range hits {
			t.Run(fmt.Sprintf("%s@%d", name, hit), func(t *testing.T) { killOnRedis(t, name, hit) })
		}
	}
}

// killOnRedis is killAt for a node that plays both roles on Redis.
func killOnRedis(t *testing.T, name failpoint.Name, hit int) {
	bin, err := failpointBinary()
	if err != nil {
		t.Fatal(err)
	}
	r := pool.Standalone(t)
	f, p := startFleet(t, fleet.Config{Binary: bin, Together: 1, Redis: r.Access()})
	n := f.Nodes()[0]
	if name == failpoint.SaverSweepApplied {
		leaveSomethingExpiredOnRedis(t, p)
	}
	n.Kill()
	if name == failpoint.SaverSweepApplied {
		forgetSweeper(t, r)
	}
	n.Configure(fmt.Sprintf("%s=%s=kill@%d", failpoint.Env, name, hit))
	ctx := t.Context()
	started := n.Start(ctx) == nil
	n.Configure()
	if !started { // it died while it began
		if err := n.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	died := n.Exited()
	l := newLoad(p, 2, overs...)
	for _, d := range l.devices {
		p.connect(ctx, d, l.log, nil)
	}
	sending, enough := context.WithCancel(ctx)
	defer enough()
	wg := l.senders(sending, ctx, 4)
	recalls := l.recaller(sending, ctx, "nobody", "no-one") // to several, which is an intent
	large := l.sendsLarge(sending, ctx)
	writing := l.writesCatalog(sending, f)
	if started {
		select {
		case <-died:
		case <-time.After(60 * time.Second):
			t.Fatalf("the node was never killed at %s: %s", name, n.Said())
		}
		if err := n.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	l.awaitProgress(t, 50)
	for _, d := range l.devices { // as in killAt
		eventually(t, 30*time.Second, func() bool { s := d.last.Load(); return s != nil && s.Phase == client.CaughtUp }, d.where)
	}
	enough()
	wg.Wait()
	recalls.Wait()
	large.Wait()
	writing.Wait()
	l.restOfFirstDevices(t)
}

// sendsLarge sends messages to all users of the load together, whose bodies lie apart from the slots.
func (l *load) sendsLarge(ctx, finish context.Context) *sync.WaitGroup {
	var wg sync.WaitGroup
	wg.Go(func() {
		c := l.p.http()
		for seq := 1; ctx.Err() == nil; seq++ {
			l.sendBody(finish, c, "large", seq, l.users, strings.Repeat(fmt.Sprintf("large/%d ", seq), 3000))
			pause(ctx, 20*time.Millisecond)
		}
	})
	return &wg
}

// writesCatalog makes API keys, one after the other, whatever becomes of them.
func (l *load) writesCatalog(ctx context.Context, f *fleet.Fleet) *sync.WaitGroup {
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			_ = f.MakeAPIKey(ctx)
			pause(ctx, 50*time.Millisecond)
		}
	})
	return &wg
}

// leaveSomethingExpiredOnRedis publishes a message and waits until it has expired.
func leaveSomethingExpiredOnRedis(t *testing.T, p *proc) {
	t.Helper()
	waitUntil(t, sendForASecond(t, p).Add(time.Second)) // it is told in whole seconds
}

// forgetSweeper takes the lease of the sweep from a node that died, which would hold it for half a minute still. If it has not
// swept yet there is none.
func forgetSweeper(t *testing.T, r *redistest.Redis) {
	t.Helper()
	c := r.Servers()[0].Client()
	keys, err := c.Keys(t.Context(), "*{sweep}*").Result()
	if err == nil && len(keys) > 0 {
		err = c.Del(t.Context(), keys...).Err()
	}
	if err != nil {
		t.Fatalf("the lease of the sweep: %v", err)
	}
}
