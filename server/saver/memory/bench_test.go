package memory

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

// BenchmarkPublish stores 100-byte messages with idempotency keys, each producer for users of its own, in calls of 1 and
// of 100; a figure is that of one message. Slots are full after a while, so that each append drops one.
func BenchmarkPublish(b *testing.B) {
	for _, batch := range []int{1, 100} {
		b.Run(fmt.Sprint("Batch", batch), func(b *testing.B) {
			s := benchStore(b)
			limits := push.Limits{OwnMessages: 100}.WithDefaults()
			body := make([]byte, 100)
			var producers, ids atomic.Int64
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				user := push.UserID(fmt.Sprint("user", producers.Add(1)))
				ps := make([]*saver.Publication, 0, batch)
				for more := true; more; {
					ps = ps[:0]
					for len(ps) < batch {
						if more = pb.Next(); !more {
							break
						}
						id := ids.Add(1)
						ps = append(ps, &saver.Publication{
							Product: "shop", Shards: 64, Limits: limits, TTL: time.Hour,
							Message: &push.Message{ID: push.MsgID(id), Body: body, Persistent: true},
							Key:     saver.IdempotencyKey(strconv.FormatInt(id, 36)),
							Own:     []saver.Target{{User: user}},
						})
					}
					for _, r := range s.Publish(b.Context(), ps) {
						if r.Err != nil {
							b.Error(r.Err)
							return
						}
					}
				}
			})
		})
	}
}

// BenchmarkPublishMany stores one message for 1 000 users, BenchmarkPublishEveryone one in 64 common slots.
func BenchmarkPublishMany(b *testing.B) {
	var own []saver.Target
	for i := range 1000 {
		own = append(own, saver.Target{User: push.UserID(fmt.Sprint("user", i))})
	}
	benchOne(b, func(p *saver.Publication) { p.Own = own })
}

func BenchmarkPublishEveryone(b *testing.B) {
	benchOne(b, func(p *saver.Publication) { p.Everyone = true })
}

func benchOne(b *testing.B, aim func(*saver.Publication)) {
	s := benchStore(b)
	limits := push.Limits{OwnMessages: 100, CommonMessages: 1000}.WithDefaults()
	body := make([]byte, 100)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p := &saver.Publication{
			Product: "shop", Shards: 64, Limits: limits, TTL: time.Hour,
			// Ids come again, so that records replace each other and memory stays bounded.
			Message: &push.Message{ID: push.MsgID(i%64 + 1), Body: body, Persistent: true},
		}
		aim(p)
		if r := s.Publish(b.Context(), []*saver.Publication{p}); r[0].Err != nil {
			b.Fatal(r[0].Err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	s := benchStore(b)
	user := saver.UserRef{Product: "shop", Shards: 64, User: "alice"}
	for i := range 100 {
		s.Publish(b.Context(), []*saver.Publication{{
			Product: "shop", Shards: 64, TTL: time.Hour, Own: []saver.Target{{User: user.User}},
			Message: &push.Message{ID: push.MsgID(i + 1), Body: make([]byte, 100), Persistent: true},
		}})
	}
	rs := []saver.Read{{ShardRef: user.Shard(), User: user.User, MaxEntries: 100, MaxBytes: 1 << 20}}
	b.ReportAllocs()
	for b.Loop() {
		ts, err := s.Read(b.Context(), rs)
		if err != nil || len(ts[0].Entries) != 100 {
			b.Fatal(len(ts[0].Entries), err)
		}
	}
}

func benchStore(b *testing.B) *Store {
	s, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}
