package redis_test

import (
	"context"
	"maps"
	"testing"

	"carillon/server/clock"
	"carillon/server/clock/clocktest"
	"carillon/server/idgenerator"
	"carillon/server/idgenerator/idgeneratortest"
	"carillon/server/idgenerator/redis"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"

	"go.uber.org/goleak"
)

var pool redistest.Pool

func TestMain(m *testing.M) { goleak.VerifyTestMain(pool.Closing(m)) }

// store is a Redis that tests set back.
type store struct {
	*redistest.Redis
	clock clock.Clock
	last  *redisdb.DB
}

// process starts a process over the store, in the place of the one before.
func (s *store) process(t *testing.T) idgenerator.Blocks {
	t.Helper()
	if s.last != nil {
		s.last.Close()
	}
	s.last = redisdbtest.Open(t, s.Redis, s.clock)
	return blocks(t, s.last)
}

func blocks(t *testing.T, db *redisdb.DB) idgenerator.Blocks {
	t.Helper()
	b, err := redis.New(redis.Config{DB: db})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// values returns all there is; all of ours are strings.
func (s *store) values(t *testing.T) map[string]string {
	t.Helper()
	c := s.Servers()[0].Client()
	keys, err := c.Keys(context.Background(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, k := range keys {
		if all[k], err = c.Get(context.Background(), k).Result(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// fallBack puts the values back under another lineage, as a failover to a replica that had seen no more does.
func (s *store) fallBack(t *testing.T, values map[string]string) {
	t.Helper()
	c, ctx := s.Servers()[0].Client(), context.Background()
	for k := range s.values(t) {
		if _, stays := values[k]; !stays {
			c.Del(ctx, k)
		}
	}
	for k, v := range maps.All(values) {
		c.Set(ctx, k, v, 0)
	}
	if err := c.Do(ctx, "DEBUG", "CHANGE-REPL-ID").Err(); err != nil {
		t.Fatal(err)
	}
}

func newSubject(t *testing.T) *idgeneratortest.Subject {
	c := clocktest.New()
	s := &store{Redis: pool.Standalone(t), clock: c}
	return &idgeneratortest.Subject{
		Clock: c, Blocks: s.process(t),
		Crash: func(t *testing.T) idgenerator.Blocks {
			s.fallBack(t, s.values(t)) // it keeps what it was told, and cannot know that it did
			return s.process(t)
		},
		Mark: func(t *testing.T) func(*testing.T) idgenerator.Blocks {
			then := s.values(t)
			return func(t *testing.T) idgenerator.Blocks {
				s.fallBack(t, then)
				return s.process(t)
			}
		},
	}
}

func TestConformance(t *testing.T) { idgeneratortest.Run(t, newSubject) }

// TestBlocks_NoIDTwiceOverNodes has two nodes reserve at once, on each form of Redis.
func TestBlocks_NoIDTwiceOverNodes(t *testing.T) {
	for _, form := range []redistest.Form{redistest.FormStandalone, redistest.FormSentinel, redistest.FormCluster} {
		t.Run(string(form), func(t *testing.T) {
			of := pool.Take(t, form)
			const nodes, each, size = 3, 15, 10
			got := make(chan push.MsgID, nodes*each)
			errs := make(chan error, nodes)
			for range nodes {
				b := blocks(t, redisdbtest.Open(t, of, nil))
				go func() {
					for range each {
						first, err := b.Reserve(context.Background(), size)
						if err != nil {
							errs <- err
							return
						}
						got <- first
					}
					errs <- nil
				}()
			}
			for range nodes {
				if err := <-errs; err != nil {
					t.Fatal(err)
				}
			}
			close(got)
			seen := make(map[push.MsgID]bool)
			for first := range got {
				for id := first; id < first+size; id++ {
					if seen[id] {
						t.Fatalf("id %d was reserved twice", id)
					}
					seen[id] = true
				}
			}
		})
	}
}

// TestBlocks_KilledServerGivesNoIDTwice kills the server after each block: it comes back with what it had written, under a new lineage.
func TestBlocks_KilledServerGivesNoIDTwice(t *testing.T) {
	of := redistest.Standalone(t)
	end := push.MsgID(0)
	for range 3 {
		first, err := blocks(t, redisdbtest.Open(t, of, nil)).Reserve(t.Context(), 100)
		if err != nil {
			t.Fatal(err)
		}
		if first < end {
			t.Fatalf("a block begins at %d, below %d", first, end)
		}
		end = first + 100
		of.Servers()[0].Kill()
		if err := of.Servers()[0].Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBlocks_DamagedStateIsAnError(t *testing.T) {
	of := pool.Standalone(t)
	b := blocks(t, redisdbtest.Open(t, of, nil))
	for _, v := range []string{"", "0 5", "7", "7 0", "-7 5", "x 5", "7 x"} {
		if err := of.Servers()[0].Client().Set(t.Context(), "c:{ids}:n:", v, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if first, err := b.Reserve(t.Context(), 1); push.KindOf(err) != push.KindInternal {
			t.Errorf("%q was read: %d, %v", v, first, err)
		}
	}
}

func TestBlocks_ClosedDatabase(t *testing.T) {
	db := redisdbtest.Open(t, pool.Standalone(t), nil)
	b := blocks(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Reserve(t.Context(), 1); push.KindOf(err) != push.KindClosed {
		t.Errorf("got %v, want KindClosed", err)
	}
}
