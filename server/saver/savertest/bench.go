package savertest

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

// BenchBatches writes one message of 100 bytes to b.N users who are offline, in batches of 64, 32 batches of different shards in a call, from two
// callers. An operation is a user. begin is called when the work that counts begins, and what it returns when it is over. With known the users have
// got a message in the same way before.
func BenchBatches(b *testing.B, s saver.Store, shards int, known bool, begin func() (end func())) {
	calls := batchCalls(b.N, shards, 32)
	id := push.MsgID(time.Now().UnixMilli() << 12)
	if known {
		writeCalls(b, s, shards, id, calls)
		id++
	}
	b.ReportAllocs()
	b.ResetTimer()
	end := begin()
	writeCalls(b, s, shards, id, calls)
	end()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "users/s")
}

// batchCalls sorts users into batches by shard, and batches into calls.
func batchCalls(users, shards, call int) (calls [][]*saver.Batch) {
	lists := make([][]saver.Target, shards)
	for n := range users {
		u := push.UserID("user-" + strconv.Itoa(n))
		i := push.ShardOf(u, shards)
		lists[i] = append(lists[i], saver.Target{User: u})
	}
	var open []*saver.Batch
	for number, left := 0, true; left; number++ {
		left = false
		for i, list := range lists {
			if from := number * saver.BatchMost; from < len(list) {
				left = true
				open = append(open, &saver.Batch{
					Product: shop, Shards: shards, Shard: push.Shard(i), Number: number, Own: list[from:min(from+saver.BatchMost, len(list))], Token: 1,
				})
			}
			if len(open) == call {
				calls, open = append(calls, open), nil
			}
		}
	}
	return append(calls, open)
}

// writeCalls writes a message in those batches.
func writeCalls(b *testing.B, s saver.Store, shards int, id push.MsgID, calls [][]*saver.Batch) {
	ctx := context.Background()
	m := &push.Message{ID: id, Body: []byte(strconv.Quote(strings.Repeat("x", 98))), Persistent: true, Created: push.Milli(time.Now())}
	m.Expires = m.Created.Add(week)
	f := saver.Fence{Product: shop, Shards: shards, ID: id, Token: 1, Until: m.Expires.Add(saver.RecordKept), Message: m}
	if err := s.Fence(ctx, f); err != nil {
		b.Fatal(err)
	}
	for _, bs := range calls {
		for _, one := range bs {
			one.Message = m
		}
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(calls) {
					return
				}
				for _, r := range s.Batches(ctx, calls[i]) {
					if r.Err != nil || r.Found {
						b.Errorf("found %v, error %v", r.Found, r.Err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}
