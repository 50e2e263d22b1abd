package torture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/dev"
	"carillon/server/fleet"
	"carillon/server/history"
	"carillon/server/push"
	"carillon/server/redistest"
)

// world is all that takes part in a run.
type world struct {
	// Static after setUp.
	cfg      Config
	began    time.Time
	redis    *redistest.Redis // nil if embedded
	fleet    *fleet.Fleet
	balancer string // host:port
	access   dev.File
	devices  []*device
	users    []string

	sent, seen *history.Log // of senders, of devices
	meter      meter

	// Counted while it runs.
	accepted, everyone, live, repeated, batches, kicks, twinned, wiped atomic.Int64
	due                                                                map[string]*atomic.Int64 // by user: accepted persistent messages, those to everyone apart
	faults                                                             tally

	mu       sync.Mutex
	breaches []history.Violation // guarded by mu; what is no matter of the histories
	losses   []history.Record    // guarded by mu; what a failover may have taken back
	stalls   []history.Record    // guarded by mu; when clients were held up by what had frozen
	store    []spell             // guarded by mu; the faults of the store
	kills    []spell             // guarded by mu; those of rooms
	away     []spell             // guarded by mu; how long devices were away whose connection broke, until they had caught up
}

// breach notes a violation that is not seen in the histories.
func (w *world) breach(rule, format string, args ...any) {
	v := history.Violation{Rule: rule, Detail: fmt.Sprintf(format, args...)}
	w.say("%v", v)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.breaches = append(w.breaches, v)
}

func (w *world) say(format string, args ...any) { w.cfg.Say(fmt.Sprintf(format, args...)) }

// shards is how many the product has. There are few users, who would be alone in most of the 1 024 that a product has on Redis; in these they
// meet, and what is written to all shards leaves the machine time for faults.
const shards = 64

// setUp starts everything but senders, devices and faults. What it returns ends all that; it is there if there is an error, too.
func (w *world) setUp(ctx context.Context) (end func() error, err error) {
	var closers []func() error
	end = func() (err error) {
		for i := len(closers) - 1; i >= 0; i-- {
			err = errors.Join(err, closers[i]())
		}
		return err
	}
	f := fleet.Config{Binary: w.cfg.Binary, Dir: w.cfg.Dir, Proxied: true, Shards: shards, Limits: w.cfg.limits(), Env: append([]string{
		// A frozen room has to be noticed within a run of a minute.
		"CARILLON_HEARTBEAT_INTERVAL=2s", "CARILLON_HEARTBEAT_GRACE=2s", "CARILLON_DRAIN_SPREAD=1s",
	}, w.cfg.Env...)}
	if w.cfg.Form == Embedded {
		f.Embedded = true
	} else {
		w.say("starting Redis (%s)", w.cfg.Form)
		if w.redis, err = redistest.Start(ctx, w.cfg.redis(), redistest.Proxied(), redistest.Dir(filepath.Join(w.cfg.Dir, "redis"))); err != nil {
			return end, err
		}
		closers = append(closers, w.redis.Close)
		f.Redis, f.Durability, f.Replicas = w.redis.Access(), string(w.cfg.Durability), w.cfg.replicas()
	}
	w.say("starting the nodes")
	if w.fleet, err = fleet.Start(ctx, f); err != nil {
		return end, err
	}
	closers = append(closers, w.fleet.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return end, err
	}
	w.balancer = l.Addr().String()
	closers = append(closers, w.balance(l))
	w.access, err = w.fleet.SetUp(ctx, "http://"+w.balancer, "")
	return end, err
}

// balance serves the balancer until the result is called.
func (w *world) balance(l net.Listener) func() error {
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- fleet.NewBalancer(w.fleet).Serve(ctx, l, nil) }()
	return func() error {
		cancel()
		return <-served
	}
}

// token makes tokens of a device.
func (w *world) token(d history.Device) func(context.Context, bool) (string, error) {
	return func(context.Context, bool) (string, error) {
		return auth.Mint(auth.SigningKey{ID: catalog.KeyID(w.access.KeyID), Alg: catalog.HS256, Private: w.access.Key}, auth.Claims{
			Product: push.ProductID(w.access.Product), User: push.UserID(d.User), Device: push.DeviceID(d.Device),
			Platform: push.PlatformWeb, Issued: time.Now(), Expires: time.Now().Add(time.Hour),
		})
	}
}

// answerPatience is how long a publisher waits for an answer. It is shorter than most freezes, so that requests are repeated while the
// first is still somewhere.
const answerPatience = 5 * time.Second

// request sends a request to a node, and decodes what it answers with; status 0: no whole answer.
func (w *world) request(ctx context.Context, c *http.Client, method, url, secret, key string, in, out any) int {
	body, err := json.Marshal(in)
	if err != nil {
		panic(err) // of our own making
	}
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil && err != io.EOF && resp.StatusCode/100 == 2 {
		return 0 // cut in the middle
	}
	return resp.StatusCode
}

// center returns the URL of somebody who answers product servers: the balancer, or a center by itself, which may be anything but well.
func (w *world) center(rng *rand.Rand) string {
	all := w.fleet.Of(fleet.Center)
	if i := rng.IntN(len(all) + 1); i < len(all) {
		return "http://" + all[i].Public()
	}
	return "http://" + w.balancer
}

// sleep waits; false: ctx was done first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// between draws a time.
func between(rng *rand.Rand, min, max time.Duration) time.Duration {
	return min + time.Duration(rng.Int64N(int64(max-min)+1))
}

// skewed draws a time whose logarithm is even: half of them are below the middle of min and max as factors. So there are long ones, and
// time for many.
func skewed(rng *rand.Rand, min, max time.Duration) time.Duration {
	return time.Duration(float64(min) * math.Pow(float64(max)/float64(min), rng.Float64()))
}
