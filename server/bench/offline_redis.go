package bench

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"carillon/server/bench/online"
	"carillon/server/bench/sample"
	"carillon/server/bench/swarm"
	"carillon/server/push"
)

// OfflineRedis measures persistent messages to users who have no device, on a server whose store is Redis: what one costs the
// server and Redis, and how much of its memory it takes; what it costs to find out where many users are; and what a broadcast that is stored
// costs when few users are known, and when many are.
type OfflineRedis struct {
	Redis      string // host:port of one that runs on this machine; empty: one is started
	Durability string // process, disk or replicated
	Shards     int    // of the product
	Users      int    // that the messages are spread over
	PerUser    int    // messages to each of them, without idempotency keys; and as many with them to as many other users
	Registered int    // users that are known when broadcasts are measured again
	LookedUp   int    // users in a look-up
	Broadcasts int    // in each measurement
	Senders    int    // requests side by side
	Batch      int    // messages in one request
	Body       int    // bytes
}

// Durabilities are those that a message may be given on Redis.
var Durabilities = []string{"process", "disk", durabilityReplicated}

const (
	// perUserMeant is how many messages a user has where the mark of memory was set, lookedUpMeant how many users are looked up
	// where that of their time was.
	perUserMeant  = 10
	lookedUpMeant = 100_000
	// fewUsers is how many users are known when broadcasts are measured first.
	fewUsers = 10
	// lookups is how often a look-up is measured.
	lookups = 9
)

// Name implements Scenario.
func (s *OfflineRedis) Name() string { return "offline-redis-" + s.Durability }

func (s *OfflineRedis) settings() map[string]any {
	return map[string]any{
		"shards": s.Shards, "users": s.Users, "per_user": s.PerUser, "registered": s.Registered, "looked_up": s.LookedUp, "broadcasts": s.Broadcasts,
		"connections": s.Senders, "batch": s.Batch, "body_bytes": s.Body,
	}
}

func (s *OfflineRedis) check() error {
	switch {
	case !slices.Contains(Durabilities, s.Durability):
		return usagef("--durability is one of process, disk and replicated, or several, with commas")
	case s.Shards < 1 || s.Shards > 1024:
		return usagef("--shards lies between 1 and 1024")
	case s.Users < 1 || s.Users > 10_000_000:
		return usagef("--users lies between 1 and 10000000")
	case s.PerUser < 1 || s.PerUser > 1000:
		return usagef("--per-user lies between 1 and 1000")
	case s.Registered < 0 || s.Registered > 10_000_000:
		return usagef("--registered lies between 0 and 10000000")
	case s.LookedUp < 1 || s.LookedUp > 1_000_000:
		return usagef("--lookup lies between 1 and 1000000")
	case s.Broadcasts < 1 || s.Broadcasts > 1000:
		return usagef("--broadcasts lies between 1 and 1000")
	case s.Batch < 1 || s.Batch > maxBatch:
		return usagef("--batch lies between 1 and %d", maxBatch)
	case s.Senders < 1 || s.Senders > 1000:
		return usagef("--connections lies between 1 and 1000")
	}
	return checkBody(s.Body)
}

func (s *OfflineRedis) clients() int                     { return 0 }
func (s *OfflineRedis) heartbeat() time.Duration         { return quiet }
func (s *OfflineRedis) transport() string                { return swarm.Transports[0] } // there are no clients
func (s *OfflineRedis) redis() (addr, durability string) { return s.Redis, s.Durability }
func (s *OfflineRedis) shards() int                      { return s.Shards }
func (s *OfflineRedis) user(n int) string                { return offlineUsers + strconv.Itoa(n) }

// offlineUsers begins the names of users. They need not be the run's own, for the product is.
const offlineUsers = "user-"

func (s *OfflineRedis) run(ctx context.Context, w *world) error {
	known := fewUsers
	if err := s.makeKnown(ctx, w, 0, known); err != nil {
		return err
	}
	if err := s.broadcast(ctx, w, "few"); err != nil {
		return err
	}
	for _, way := range offlineWays {
		if err := s.publish(ctx, w, way.name, known, way.keyed); err != nil {
			return err
		}
		known += s.Users
	}
	if more := s.Registered - known; more > 0 {
		if err := s.makeKnown(ctx, w, known, more); err != nil {
			return err
		}
		known += more
	}
	if err := s.broadcast(ctx, w, "many"); err != nil {
		return err
	}
	w.set("users", float64(known))
	return s.lookUp(ctx, w)
}

// publish measures messages to users from the first one on, in turn until each has his.
func (s *OfflineRedis) publish(ctx context.Context, w *world, way string, first int, keyed bool) error {
	all := s.Users * s.PerUser
	requests := (all + s.Batch - 1) / s.Batch
	memory, err := w.redis.primary.memory(ctx)
	if err != nil {
		return err
	}
	trips, err := w.server.pipelines(ctx)
	if err != nil {
		return err
	}
	before, err := w.redisSpent(ctx)
	if err != nil {
		return err
	}
	what := "messages to offline users"
	if keyed {
		what += ", each with an idempotency key"
	}
	got, err := w.loaded(ctx, what, load{
		senders: s.Senders, most: uint64(requests),
		send: func(ctx context.Context, seq uint64) error {
			mark := w.mark()
			from := int(seq) * s.Batch
			return w.pub.send(ctx, min(s.Batch, all-from), func(i int) message {
				mark.Seq = uint64(from + i)
				m := message{user: s.user(first + (from+i)%s.Users), mark: mark, size: s.Body, stored: true}
				if keyed {
					m.key = offlineUsers + strconv.Itoa(from+i)
				}
				return m
			})
		},
	})
	if err != nil {
		return err
	}
	used, err := w.redisSince(ctx, before)
	if err != nil {
		return err
	}
	tripsNow, err := w.server.pipelines(ctx)
	if err != nil {
		return err
	}
	memoryNow, err := w.redis.primary.memory(ctx)
	if err != nil {
		return err
	}
	n := float64(all)
	w.set(way+"messages_per_s", n/got.wall.Seconds())
	w.set(way+"cpu_us_per_message", micros(got.server, n))
	w.set(way+"redis_cpu_us_per_message", micros(used.primary.cpu, n))
	w.set(way+"redis_children_cpu_us_per_message", micros(used.primary.children, n))
	if w.redis.replica != nil {
		w.set(way+"replica_cpu_us_per_message", micros(used.replica.cpu, n))
	}
	w.set(way+"redis_bytes_per_message", float64(memoryNow-memory)/n)
	w.set(way+"redis_commands_per_message", used.primary.commands/n)
	w.set(way+"round_trips_per_request", (tripsNow-trips)/float64(requests))
	w.set(way+"p50_ms", millis(got.answers.Quantile(0.5)))
	w.set(way+"p99_ms", millis(got.answers.Quantile(0.99)))
	if s.PerUser != perUserMeant {
		w.unmarked = append(w.unmarked, way+"redis_bytes_per_message")
	}
	if way == "" {
		w.set("messages", n)
		w.setOwn(got.meter, n)
	}
	return nil
}

// makeKnown makes users known: each gets a message.
func (s *OfflineRedis) makeKnown(ctx context.Context, w *world, first, n int) error {
	const batch = maxBatch
	_, err := w.loaded(ctx, "users become known, by a message to each", load{
		senders: s.Senders, most: uint64((n + batch - 1) / batch),
		send: func(ctx context.Context, seq uint64) error {
			mark := w.mark()
			from := int(seq) * batch
			return w.pub.send(ctx, min(batch, n-from), func(i int) message {
				mark.Seq = uint64(from + i)
				return message{user: s.user(first + from + i), mark: mark, size: s.Body, stored: true}
			})
		},
	})
	return err
}

// broadcast measures messages to everyone that are stored. Of what each of them takes the median counts, for what server and Redis do each second
// for themselves falls on some; but of memory the mean, for lists grow by steps, those of all shards at once.
func (s *OfflineRedis) broadcast(ctx context.Context, w *world, when string) error {
	var server, cpu, commands, took []float64
	memory := int64(0)
	for i := range s.Broadcasts + 1 {
		w.progress("broadcast %d of %d while %s users are known", i, s.Broadcasts, when)
		c, err := w.costOf(ctx, w.server.pid, func() error {
			return w.pub.send(ctx, 1, func(int) message { return message{mark: w.mark(), size: s.Body, stored: true} })
		})
		if err != nil {
			return err
		}
		if i == 0 { // it made the slots, and later ones find them
			if memory, err = w.redis.primary.memory(ctx); err != nil {
				return err
			}
			continue
		}
		server, cpu = append(server, millis(c.process)), append(cpu, millis(c.redis.cpu))
		commands, took = append(commands, c.redis.commands), append(took, millis(c.wall))
	}
	memoryNow, err := w.redis.primary.memory(ctx)
	if err != nil {
		return err
	}
	w.set("broadcast_"+when+"_redis_cpu_ms", median(cpu))
	w.set("broadcast_"+when+"_redis_commands", median(commands))
	w.set("broadcast_"+when+"_redis_bytes", float64(memoryNow-memory)/float64(s.Broadcasts))
	w.set("broadcast_"+when+"_cpu_ms", median(server))
	w.set("broadcast_"+when+"_ms", median(took))
	return nil
}

// lookUp measures how long it takes to find out where many users are: of whom nobody has a session, and then everybody.
func (s *OfflineRedis) lookUp(ctx context.Context, w *world) (err error) {
	o, err := online.Open(ctx, online.Config{
		Redis: w.redis.primary.addr, Product: push.ProductID(w.server.file.Product), Shards: s.Shards,
	})
	if err != nil {
		return err
	}
	defer func() {
		if closing := o.Close(); err == nil {
			err = closing
		}
	}()
	users := online.Users(offlineUsers, 0, s.LookedUp)
	if err := s.lookUpAll(ctx, w, o, users, "offline", 0); err != nil {
		return err
	}
	err = o.Fill(ctx, len(users), func(i int) push.UserID { return users[i] }, func(done int) {
		w.progress("%d of %d users get a session", done, len(users))
	})
	if err != nil {
		return err
	}
	return s.lookUpAll(ctx, w, o, users, "online", len(users))
}

func (s *OfflineRedis) lookUpAll(ctx context.Context, w *world, o *online.Online, users []push.UserID, who string, want int) error {
	var took, cpu, redis []float64
	for i := range lookups + 1 {
		w.progress("look-up %d of %d of %d users who are %s", i, lookups, len(users), who)
		var got int
		c, err := w.costOf(ctx, os.Getpid(), func() (err error) {
			got, err = o.Lookup(ctx, users)
			return err
		})
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%d of %d users have a session, and %d should", got, len(users), want)
		}
		if i == 0 {
			continue // it made connections
		}
		took, cpu, redis = append(took, millis(c.wall)), append(cpu, millis(c.process)), append(redis, millis(c.redis.cpu))
	}
	w.set("lookup_"+who+"_ms", median(took))
	w.set("lookup_"+who+"_cpu_ms", median(cpu))
	w.set("lookup_"+who+"_redis_cpu_ms", median(redis))
	if len(users) != lookedUpMeant {
		w.unmarked = append(w.unmarked, "lookup_"+who+"_ms")
	}
	return nil
}

// cost is what something took: of a process, of Redis, and of time.
type cost struct {
	process, wall time.Duration
	redis         spent
}

// costOf measures something that a process does together with Redis.
func (w *world) costOf(ctx context.Context, pid int, do func() error) (c cost, err error) {
	process, err := sample.CPU(pid)
	if err != nil {
		return c, err
	}
	before, err := w.redis.primary.spent(ctx)
	if err != nil {
		return c, err
	}
	began := time.Now()
	if err := do(); err != nil {
		return c, err
	}
	c.wall = time.Since(began)
	if c.redis, err = w.redis.primary.since(ctx, before); err != nil {
		return c, err
	}
	now, err := sample.CPU(pid)
	c.process = now - process
	return c, err
}

// redisMeter is what primary and replica have done.
type redisMeter struct{ primary, replica spent }

func (w *world) redisSpent(ctx context.Context) (m redisMeter, err error) {
	if m.primary, err = w.redis.primary.spent(ctx); err != nil || w.redis.replica == nil {
		return m, err
	}
	m.replica, err = w.redis.replica.spent(ctx)
	return m, err
}

func (w *world) redisSince(ctx context.Context, before redisMeter) (m redisMeter, err error) {
	if m.primary, err = w.redis.primary.since(ctx, before.primary); err != nil || w.redis.replica == nil {
		return m, err
	}
	m.replica, err = w.redis.replica.since(ctx, before.replica)
	return m, err
}

// The ways in which messages are published; each has the same figures.
var offlineWays = []struct {
	name, text string
	keyed      bool
}{
	{"", "", false},
	{"keyed_", "with idempotency keys: ", true},
}

// offlineRedisFigures are the figures for a durability, for which so many messages a second, and so much of the processor for one, were set.
func offlineRedisFigures(rate, cpu float64) []definition {
	var ds []definition
	for _, w := range offlineWays {
		memory := 350.0
		if w.keyed {
			rate, cpu, memory = 0, 0, 0
		}
		ds = append(ds,
			definition{w.name + "messages_per_s", w.text + "messages stored before the answer", "/s", Higher, rate, 0},
			definition{w.name + "cpu_us_per_message", w.text + "processor of the server for one", "µs", Lower, cpu, 0},
			definition{w.name + "redis_cpu_us_per_message", w.text + "processor of Redis for one", "µs", Lower, 0, 0},
			definition{w.name + "redis_children_cpu_us_per_message", w.text + "that of processes that rewrote its file", "µs", Lower, 0, 0},
			definition{w.name + "replica_cpu_us_per_message", w.text + "that of its replica", "µs", Lower, 0, 0},
			definition{w.name + "redis_bytes_per_message", w.text + "memory of Redis for one", "B", Lower, memory, 0},
			definition{w.name + "redis_commands_per_message", w.text + "commands of Redis for one, within functions too", "", Lower, 0, 0},
			definition{w.name + "round_trips_per_request", w.text + "pipelines sent to Redis, by requests", "", Lower, 0, 0},
			definition{w.name + "p50_ms", w.text + "answer to a batch: median", "ms", Lower, 0, 0},
			definition{w.name + "p99_ms", w.text + "answer to a batch: 99 %", "ms", Lower, 0, 0},
		)
	}
	for _, who := range []string{"offline", "online"} {
		ds = append(ds,
			definition{"lookup_" + who + "_ms", "look-up of users, all " + who + ": time", "ms", Lower, 150, 0},
			definition{"lookup_" + who + "_cpu_ms", "of it processor of who asks", "ms", Lower, 0, 0},
			definition{"lookup_" + who + "_redis_cpu_ms", "of it processor of Redis", "ms", Lower, 0, 0},
		)
	}
	for _, when := range []string{"few", "many"} {
		ds = append(ds,
			definition{"broadcast_" + when + "_redis_commands", "stored broadcast, " + when + " users known: commands of Redis", "", Lower, 0, 0},
			definition{"broadcast_" + when + "_redis_cpu_ms", "the same: processor of Redis", "ms", Lower, 0, 0},
			definition{"broadcast_" + when + "_redis_bytes", "the same: memory of Redis", "B", Lower, 0, 0},
			definition{"broadcast_" + when + "_cpu_ms", "the same: processor of the server", "ms", Lower, 0, 0},
			definition{"broadcast_" + when + "_ms", "the same: time to the answer", "ms", Lower, 0, 0},
		)
	}
	return append(ds,
		definition{"messages", "messages stored, in each of the two ways", "", Exact, 0, 0},
		definition{"users", "users known in the end", "", Exact, 0, 0},
	)
}
