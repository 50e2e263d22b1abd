package bench

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"carillon/server/bench/sample"
	"carillon/server/bench/swarm"
)

// Tasks measures a task to very many users who are offline, by an uploaded list and with a body of each user's own: how long it takes,
// and what messages to single users who are online notice of it.
type Tasks struct {
	Users    int           // of the list
	Clients  int           // users online
	Senders  int           // requests side by side
	Rate     int           // messages a second to those online
	Body     int           // bytes of those
	Duration time.Duration // for which the same messages are sent without the task, before it
}

// Name implements Scenario.
func (*Tasks) Name() string { return "tasks" }

func (s *Tasks) settings() map[string]any {
	return map[string]any{
		"users": s.Users, "clients": s.Clients, "connections": s.Senders, "rate": s.Rate, "body_bytes": s.Body, "duration_s": s.Duration.Seconds(),
	}
}

func (s *Tasks) check() error {
	switch {
	case s.Users < 1 || s.Users > 1_000_000:
		return usagef("--users lies between 1 and 1000000")
	case s.Clients < 1:
		return usagef("--clients is at least 1")
	case s.Rate < 1 || s.Rate > 100_000:
		return usagef("--rate lies between 1 and 100000")
	}
	return checkLoad(s.Senders, s.Duration, s.Body)
}

func (s *Tasks) clients() int             { return s.Clients }
func (s *Tasks) heartbeat() time.Duration { return quiet }
func (s *Tasks) transport() string        { return swarm.Transports[0] }

func (s *Tasks) run(ctx context.Context, w *world) error {
	if _, err := w.connect(ctx, 0, s.Clients, atOnce); err != nil {
		return err
	}
	if err := w.server.adminDo(ctx, http.MethodPatch, "/admin/v1/products/"+w.server.file.Product,
		[]byte(`{"task_approval":{"above_users":null,"everyone":false}}`), func([]byte) error { return nil }); err != nil {
		return err
	}
	began := time.Now()
	list, err := s.upload(ctx, w)
	if err != nil {
		return err
	}
	w.set("list_upload_s", time.Since(began).Seconds())
	without, err := s.unicast(ctx, w, "messages to users online, without a task", nil)
	if err != nil {
		return err
	}
	w.set("unicast_p99_ms_without", millis(without.Latency.Quantile(0.99)))
	return s.task(ctx, w, list)
}

// task runs the task while messages are sent.
func (s *Tasks) task(ctx context.Context, w *world, list string) error {
	cpu, err := sample.CPU(w.server.pid)
	if err != nil {
		return err
	}
	var before spent
	if w.redis != nil {
		if before, err = w.redis.primary.spent(ctx); err != nil {
			return err
		}
	}
	var made struct {
		ID string `json:"id"`
	}
	body := fmt.Sprintf(`{"name":"bench","to":{"list":%q},"message":{"body":{"text":"Hello {{name}}, the sale begins today."}},"template":true}`, list)
	if err := w.pub.ask(ctx, http.MethodPost, "/v1/tasks", "application/json", []byte(body), &made); err != nil {
		return err
	}
	done := make(chan struct{})
	var end taskSeen
	var failed error
	go func() {
		defer close(done)
		end, failed = s.await(ctx, w, made.ID)
	}()
	with, err := s.unicast(ctx, w, "a task, and messages to users online", done)
	<-done
	if err = cmp.Or(err, failed); err != nil {
		return err
	}
	now, err := sample.CPU(w.server.pid)
	if err != nil {
		return err
	}
	took := end.Progress.Ended.Sub(end.Progress.Started)
	n := float64(s.Users)
	w.set("task_s", took.Seconds())
	w.set("users_per_s", n/took.Seconds())
	w.set("cpu_us_per_user", micros(now-cpu, n))
	if w.redis != nil {
		used, err := w.redis.primary.since(ctx, before)
		if err != nil {
			return err
		}
		w.set("redis_cpu_us_per_user", micros(used.cpu, n))
	}
	w.set("unicast_p50_ms", millis(with.Latency.Quantile(0.5)))
	w.set("unicast_p99_ms", millis(with.Latency.Quantile(0.99)))
	w.set("users", float64(end.Progress.Written))
	if s.Users != tasksMeant {
		w.unmarked = append(w.unmarked, "task_s")
	}
	return nil
}

// tasksMeant is how many users the mark of time was set for.
const tasksMeant = 1_000_000

// unicast sends messages to those online at the rate, until the channel is closed; nil: for the duration.
func (s *Tasks) unicast(ctx context.Context, w *world, what string, until <-chan struct{}) (*swarm.Report, error) {
	if err := w.begin(ctx, swarm.CountEach); err != nil {
		return nil, err
	}
	win := newWindow(10 * s.Rate)
	w.news.set(nil, win)
	defer w.news.set(nil, nil)
	l := load{
		senders: s.Senders, duration: s.Duration, until: until, window: win, each: 1, every: time.Second * time.Duration(s.Senders) / time.Duration(s.Rate),
		send: func(ctx context.Context, seq uint64) error {
			mark := w.mark()
			mark.Seq = seq
			return w.pub.send(ctx, 1, func(int) message {
				return message{user: w.fleet.User(int(seq % uint64(s.Clients))), mark: mark, size: s.Body, stored: true}
			})
		},
	}
	if _, err := w.loaded(ctx, what, l); err != nil {
		return nil, err
	}
	r, err := w.fleet.Report(ctx, false)
	if err != nil {
		return nil, err
	}
	return r, lost(r)
}

// taskSeen is what an answer tells of a task.
type taskSeen struct {
	State    string `json:"state"`
	Reason   string `json:"reason"`
	Progress struct {
		Written int64     `json:"written"`
		Started time.Time `json:"started"`
		Ended   time.Time `json:"ended"`
	} `json:"progress"`
}

// await waits until the task has ended.
func (s *Tasks) await(ctx context.Context, w *world, id string) (t taskSeen, err error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := w.pub.ask(ctx, http.MethodGet, "/v1/tasks/"+id, "", nil, &t); err != nil {
			return t, err
		}
		switch t.State {
		case "completed":
			return t, nil
		case "failed", "stopped", "paused", "awaiting_approval":
			return t, fmt.Errorf("the task is %s: %s", t.State, t.Reason)
		}
		w.progress("the task has written for %d of %d users", t.Progress.Written, s.Users)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return t, context.Cause(ctx)
		}
	}
}

// upload makes the list.
func (s *Tasks) upload(ctx context.Context, w *world) (id string, err error) {
	w.progress("a list of %d users is uploaded", s.Users)
	b := append(make([]byte, 0, 32*s.Users), "user,name\n"...)
	for i := range s.Users {
		b = strconv.AppendInt(append(b, "bench-task-"...), int64(i), 10)
		b = append(strconv.AppendInt(append(b, ",Name "...), int64(i), 10), '\n')
	}
	var made struct {
		ID string `json:"id"`
	}
	err = w.pub.ask(ctx, http.MethodPost, "/v1/lists?name=bench", "text/csv", b, &made)
	return made.ID, err
}

// ask makes a request that is no publication, and decodes its answer.
func (p *publisher) ask(ctx context.Context, method, path, media string, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*requestPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, p.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Authorization", p.auth)
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	resp, err := p.tr.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: the server answered %d %.300s", method, path, resp.StatusCode, answer)
	}
	return json.Unmarshal(answer, out)
}

// TasksRedis is Tasks on a server whose store is Redis.
type TasksRedis struct {
	Tasks
	Redis      string // host:port of one that runs on this machine; empty: one is started
	Durability string
	Shards     int // of the product
}

// Name implements Scenario.
func (s *TasksRedis) Name() string { return "tasks-redis-" + s.Durability }

func (s *TasksRedis) check() error {
	if s.Shards < 1 || s.Shards > 1024 {
		return usagef("--shards lies between 1 and 1024")
	}
	return s.Tasks.check()
}

func (s *TasksRedis) redis() (addr, durability string) { return s.Redis, s.Durability }
func (s *TasksRedis) shards() int                      { return s.Shards }

// tasksFigures are the figures of both.
func tasksFigures(redis bool) []definition {
	ds := []definition{
		{"task_s", "a task to an uploaded list of offline users: time", "s", Lower, 60, 0},
		{"users_per_s", "users written for", "/s", Higher, 0, 0},
		{"cpu_us_per_user", "processor of the server for a user, the messages beside it too", "µs", Lower, 0, 0},
	}
	if redis {
		ds = append(ds, definition{"redis_cpu_us_per_user", "that of Redis", "µs", Lower, 0, 0})
	}
	return append(ds,
		definition{"unicast_p50_ms", "a message to a user online meanwhile, from the request's start: median", "ms", Lower, 0, 0},
		definition{"unicast_p99_ms", "the same: 99 %", "ms", Lower, 100, 0},
		definition{"unicast_p99_ms_without", "the same without a task", "ms", Lower, 0, 0},
		definition{"list_upload_s", "upload of the list", "s", Lower, 0, 0},
		definition{"users", "users written for", "", Exact, 0, 0},
	)
}
