package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/fleet"
	"carillon/server/history"
	"carillon/server/proxytest"
)

const (
	startPatience = 3 * time.Minute  // until everything is ready and every device is there
	restPatience  = 30 * time.Second // from the last healing until everything was delivered
)

// Run torments a gateway, and returns what was done and what was found. An error says that the run did not come about; a gateway that
// breaks its promise is no error but in the report.
func Run(ctx context.Context, cfg Config) (rep *Report, err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	began := time.Now()
	w := &world{
		cfg: cfg, began: began, due: make(map[string]*atomic.Int64),
		sent: history.NewLog(began), seen: history.NewLog(began),
	}
	starting, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	end, err := w.setUp(starting)
	defer func() { err = errors.Join(err, end()) }()
	if err != nil {
		return nil, err
	}
	return w.run(ctx, starting)
}

// rng returns a source of its own for each part of a run, so that none depends on how fast another is.
func (w *world) rng(part int) *rand.Rand { return rand.New(rand.NewPCG(w.cfg.Seed, uint64(part))) }

func (w *world) now() time.Duration { return time.Since(w.began) }

func (w *world) run(ctx, starting context.Context) (*Report, error) {
	calm, restless := context.WithCancel(ctx)
	defer restless()
	online, leave := context.WithCancel(ctx)
	defer leave()
	var devices sync.WaitGroup
	defer devices.Wait()
	defer leave()
	w.enlist()
	for _, d := range w.devices {
		devices.Go(func() { d.run(online, calm) })
	}
	for _, d := range w.devices { // all are there before the first message is sent
		select {
		case <-d.caught:
		case <-starting.Done():
			return nil, fmt.Errorf("torture: %s: %w", d.where(), starting.Err())
		}
	}
	w.say("%d devices are online; breaking things for %v, seed %d", len(w.devices), w.cfg.Length, w.cfg.Seed)
	rep := w.torment(ctx, restless)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	w.rest(ctx)
	w.hear(0)
	w.count(ctx)
	leave()
	devices.Wait()
	w.judge(rep)
	if len(rep.Violations) == 0 && !w.cfg.Keep {
		return rep, nil // an hour has some GB of them
	}
	return rep, w.write()
}

// enlist makes the devices.
func (w *world) enlist() {
	for i := range w.cfg.Users {
		u := fmt.Sprintf("user%d", i)
		w.users = append(w.users, u)
		w.due[u] = new(atomic.Int64)
		for _, name := range []string{"phone", "web"} {
			n := len(w.devices)
			w.devices = append(w.devices, &device{
				w: w, name: history.Device{User: u, Device: name}, direct: n/len(transports)%2 == 1, caught: make(chan struct{}),
				rng: w.rng(1000 + n), over: n % len(transports),
			})
		}
	}
}

// deafFor is how long senders go on when all is over but that no room hears notifications, and no device leaves any more: what they send then
// comes by the sweep or not at all.
const deafFor = 2 * time.Second

// torment has everything happen at once for the length of the run, and returns when all is healed, but that rooms are deaf, and all senders
// know their outcomes.
func (w *world) torment(ctx context.Context, settle func()) *Report {
	began := time.Now()
	breaking, enough := context.WithTimeout(ctx, w.cfg.Length)
	defer enough()
	var injectors, senders sync.WaitGroup
	injectors.Go(func() { w.inject(breaking, w.rng(1), w.nodeFaults(), 2*time.Second, nil) })
	injectors.Go(func() { w.inject(breaking, w.rng(2), w.storeFaults(), min(5*time.Second, w.cfg.Length/24), &w.store) })
	injectors.Go(func() { w.inject(breaking, w.rng(5), w.networkFaults(), 4*time.Second, nil) })
	injectors.Go(func() { w.kicker(breaking, w.rng(3)) })
	injectors.Go(func() { w.twins(breaking, w.rng(4)) })
	finish, giveUp := context.WithCancel(ctx)
	defer giveUp()
	sending, stop := context.WithCancel(ctx)
	defer stop()
	w.meter.rate, w.meter.since = float64(w.cfg.Rate), w.now()
	for i := range w.cfg.Senders + batchSenders {
		s := &sender{w: w, name: fmt.Sprintf("sender%d", i), rng: w.rng(100 + i), http: &http.Client{Transport: &http.Transport{}}, batch: i >= w.cfg.Senders}
		if s.batch && w.cfg.Rate == 0 {
			break
		}
		senders.Go(func() { s.run(sending, finish) })
	}
	injectors.Wait()
	w.say("all is healed")
	settle()
	w.hear(proxytest.Up)
	sleep(ctx, deafFor)
	stop()
	t := time.AfterFunc(restPatience, giveUp)
	defer t.Stop()
	senders.Wait()
	for _, n := range w.fleet.Nodes() {
		w.missing(n)
	}
	return &Report{Form: w.cfg.Form, Durability: w.cfg.Durability, Seed: w.cfg.Seed, Rate: w.cfg.Rate, Took: time.Since(began)}
}

// hear has no room hear other nodes any more, or all again.
func (w *world) hear(lost proxytest.Direction) {
	if w.cfg.Form == Embedded {
		return
	}
	for _, n := range w.fleet.Of(fleet.Room) {
		n.Lose(lost)
	}
}

// rest waits until every device has what it has to have, or its time is over.
func (w *world) rest(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, restPatience)
	defer cancel()
	for {
		var behind []*device
		for _, d := range w.devices {
			if d.seen.Load() < d.want() {
				behind = append(behind, d)
			}
		}
		if len(behind) == 0 {
			return
		}
		if !sleep(ctx, 100*time.Millisecond) {
			for _, d := range behind {
				w.say("%s", d.where())
			}
			return
		}
	}
}

// count asks the gateway for the sessions that it holds: a device has one at most, as soon as rooms had the time to hear of what took a session's
// place.
func (w *world) count(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, restPatience)
	defer cancel()
	for {
		live, err := w.sessions(ctx)
		most := 0
		for _, r := range live {
			most = max(most, r.Count)
		}
		if err == nil && most <= 1 || !sleep(ctx, 500*time.Millisecond) {
			if err != nil {
				w.breach("recovery", "the sessions could not be had: %v", err)
			}
			for _, r := range live {
				w.seen.Add(r)
			}
			return
		}
	}
}

// sessions returns how many sessions each device has.
func (w *world) sessions(ctx context.Context) (live []history.Record, err error) {
	node := w.fleet.Of(fleet.Room)[0]
	for _, u := range w.users {
		var a struct {
			Sessions []struct {
				Device string `json:"device"`
			} `json:"sessions"`
		}
		url := fmt.Sprintf("http://%s/admin/v1/sessions?product=%s&user=%s", node.Admin(), w.access.Product, u)
		if status := w.request(ctx, http.DefaultClient, http.MethodGet, url, w.access.Secret, "", nil, &a); status != http.StatusOK {
			return nil, fmt.Errorf("those of %s: %d", u, status)
		}
		n := make(map[string]int)
		for _, s := range a.Sessions {
			n[s.Device]++
		}
		for d, n := range n {
			live = append(live, history.Record{Kind: history.Live, Device: history.Device{User: u, Device: d}, Count: n})
		}
	}
	return live, nil
}

// write leaves the histories in the run's directory, one file for each side, what a failover may have taken
// back, and when clients were held up.
func (w *world) write() error {
	for name, records := range map[string]history.Seq{
		"senders": w.sent.All(), "devices": w.seen.All(), "losses": history.Of(w.losses), "stalls": history.Of(w.stalls),
	} {
		f, err := os.Create(filepath.Join(w.cfg.Dir, name+".jsonl"))
		if err != nil {
			return fmt.Errorf("torture: %w", err)
		}
		if err := errors.Join(history.Write(f, records), f.Close()); err != nil {
			return fmt.Errorf("torture: %w", err)
		}
	}
	return nil
}
