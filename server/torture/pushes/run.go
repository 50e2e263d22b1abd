package pushes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"carillon/server/dev"
	"carillon/server/fleet"
	"carillon/server/push"
	"carillon/server/redistest"
)

// product is the one that the fleet has.
const product push.ProductID = fleet.Product

// Config says what is tormented, and how much.
type Config struct {
	Binary   string // of carillon
	Dir      string // for what the nodes store; it exists
	Embedded bool   // one node on a store of its own, which is killed and started again; otherwise three nodes on a Redis
	Users    int    // that each task goes to
	Kills    int    // of whoever runs the first task
	Seed     uint64
	Say      func(string)
}

// Report says what was done, and what was wrong.
type Report struct {
	Kills, Freezes, Pauses int
	Looks                  int // at funnels
	Violations             []string
	lines                  []string
}

// String returns a table.
func (r *Report) String() string {
	var b strings.Builder
	for _, l := range r.lines {
		fmt.Fprintln(&b, l)
	}
	fmt.Fprintf(&b, "%d kills, %d freezes past the lease, %d pauses, %d looks at funnels, %d violations\n", r.Kills, r.Freezes, r.Pauses, r.Looks, len(r.Violations))
	for _, v := range r.Violations {
		fmt.Fprintln(&b, "  "+v)
	}
	return b.String()
}

// siege is a run.
type siege struct {
	cfg    Config
	rng    *rand.Rand
	fleet  *fleet.Fleet
	redis  *redistest.Redis // nil if embedded
	access dev.File
	front  string // URL of the balancer
	client *http.Client
	users  []push.UserID
	list   string
	shards int
	rep    *Report
}

const (
	startPatience = 2 * time.Minute
	taskPatience  = 10 * time.Minute
	// answerPatience is how long an answer is waited for; then it is asked again, which harms nothing. Frozen nodes do not answer.
	answerPatience = 4 * time.Second
	effect         = 2 * time.Second // within which a move has to take effect
)

// Run torments tasks, and judges. An error says that it could not be done; what was broken is in the report.
func Run(ctx context.Context, cfg Config) (rep *Report, err error) {
	s := &siege{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 6)), client: &http.Client{Timeout: answerPatience}, rep: new(Report)}
	end, err := s.setUp(ctx)
	ids, wants, stories := []push.MsgID(nil), []want(nil), s.stories()
	for i := 0; err == nil && i < len(stories); i++ {
		var w want
		if w, err = stories[i].tell(ctx, stories[i].name); err == nil {
			ids, wants = append(ids, w.id), append(wants, w)
		}
	}
	var found map[push.MsgID]*held
	if err == nil && !cfg.Embedded {
		s.say("reading the slots of %d users", cfg.Users)
		found, err = readRedis(ctx, s.redis.Access(), ids, s.users, s.shards)
	}
	err = errors.Join(err, end())
	if err == nil && cfg.Embedded {
		s.say("reading the slots of %d users", cfg.Users)
		found, err = readEmbedded(ctx, filepath.Join(cfg.Dir, s.fleet.Nodes()[0].Name()), ids, s.users, s.shards)
	}
	if err != nil {
		return s.rep, err
	}
	for _, w := range wants {
		s.judge(w, found[w.id])
	}
	return s.rep, nil
}

func (s *siege) say(format string, args ...any) { s.cfg.Say(fmt.Sprintf(format, args...)) }

func (s *siege) breach(format string, args ...any) {
	v := fmt.Sprintf(format, args...)
	s.say("VIOLATION: %s", v)
	s.rep.Violations = append(s.rep.Violations, v)
}

// setUp starts everything, and uploads the list.
func (s *siege) setUp(ctx context.Context) (end func() error, err error) {
	var closers []func() error
	end = func() (err error) {
		for i := len(closers) - 1; i >= 0; i-- {
			err = errors.Join(err, closers[i]())
		}
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	f := fleet.Config{Binary: s.cfg.Binary, Dir: s.cfg.Dir, Embedded: s.cfg.Embedded, Rooms: 1, Centers: 2, Durability: "process"}
	s.shards = 64
	if s.cfg.Embedded {
		f.Durability = ""
	} else {
		s.shards = 1024
		s.say("starting Redis")
		if s.redis, err = redistest.Start(ctx, redistest.FormStandalone, redistest.Dir(filepath.Join(s.cfg.Dir, "redis"))); err != nil {
			return end, err
		}
		closers = append(closers, s.redis.Close)
		f.Redis = s.redis.Access()
	}
	f.Shards = s.shards
	s.say("starting the nodes")
	if s.fleet, err = fleet.Start(ctx, f); err != nil {
		return end, err
	}
	closers = append(closers, s.fleet.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return end, err
	}
	s.front = "http://" + l.Addr().String()
	serve, halt := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- fleet.NewBalancer(s.fleet).Serve(serve, l, nil) }()
	closers = append(closers, func() error { halt(); return <-served })
	if s.access, err = s.fleet.SetUp(ctx, s.front, ""); err != nil {
		return end, err
	}
	admin := "http://" + s.fleet.Nodes()[0].Admin() + "/admin/v1/products/" + string(product)
	if err := s.ask(ctx, http.MethodPatch, admin, s.fleet.Secret(), "application/json",
		strings.NewReader(`{"task_approval":{"above_users":null,"everyone":false}}`), nil); err != nil {
		return end, err
	}
	return end, s.upload(ctx)
}

// upload makes a list of all users.
func (s *siege) upload(ctx context.Context) error {
	var b bytes.Buffer
	b.WriteString("user,name\n")
	for i := range s.cfg.Users {
		u := fmt.Sprintf("user-%07d", i)
		s.users = append(s.users, push.UserID(u))
		fmt.Fprintf(&b, "%s,Name %d\n", u, i)
	}
	var made struct {
		ID    string
		Users int
	}
	began := time.Now()
	s.client.Timeout = 0
	defer func() { s.client.Timeout = answerPatience }()
	center := "http://" + s.centers()[0].Public() // the balancer keeps bodies, to send them again, and none as large
	if err := s.again(ctx, func() error {
		return s.ask(ctx, http.MethodPost, center+"/v1/lists", s.access.APIKey, "text/csv", bytes.NewReader(b.Bytes()), &made)
	}); err != nil {
		return err
	}
	if made.Users != s.cfg.Users {
		s.breach("a list of %d users was uploaded, and has %d", s.cfg.Users, made.Users)
	}
	s.list = made.ID
	s.say("a list of %d users was uploaded in %v", made.Users, time.Since(began).Round(time.Millisecond))
	return nil
}

// refused is an answer that is no success.
type refused struct {
	status int
	text   string
}

func (r *refused) Error() string { return fmt.Sprintf("%d: %s", r.status, r.text) }

// ask makes a request and decodes its answer.
func (s *siege) ask(ctx context.Context, method, url, secret, media string, body io.Reader, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return &refused{resp.StatusCode, string(text)}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// again makes a request until it is answered, for nodes are killed under it. What is refused for good is an error.
func (s *siege) again(ctx context.Context, do func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		err := do()
		var r *refused
		if err == nil || errors.As(err, &r) && r.status < 500 && r.status != http.StatusTooManyRequests {
			return err
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return errors.Join(ctx.Err(), err)
		}
	}
}

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

// seen is what an answer tells of a task.
type seen struct {
	ID       string
	State    string
	Reason   string
	Progress struct {
		Users, Written int64
		LeftOut        int64 `json:"left_out"`
		TakenBack      int64 `json:"taken_back"`
	}
	Funnel struct {
		Audience, Waiting, Acknowledged, Expired, Recalled, Unaccounted int64
		InFlight                                                        int64 `json:"in_flight"`
		Dropped                                                         map[string]int64
	}
}

// create makes a task for the list.
func (s *siege) create(ctx context.Context, name string) (string, error) {
	body := fmt.Sprintf(`{"name":%q,"to":{"list":%q},"message":{"body":{"text":"Hello {{name}}, this is %s"}},"template":true}`, name, s.list, name)
	var t seen
	err := s.again(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.front+"/v1/tasks", strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+s.access.APIKey)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", name)
		resp, err := s.client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode/100 != 2 {
			return &refused{resp.StatusCode, string(text)}
		}
		return errors.Join(err, json.Unmarshal(text, &t))
	})
	return t.ID, err
}

// look looks at a task, and at whether its funnel adds up.
func (s *siege) look(ctx context.Context, id string) (t seen, err error) {
	err = s.again(ctx, func() error { return s.ask(ctx, http.MethodGet, s.front+"/v1/tasks/"+id, s.access.APIKey, "", nil, &t) })
	if err != nil {
		return t, err
	}
	s.rep.Looks++
	f := &t.Funnel
	sum := f.Waiting + f.InFlight + f.Acknowledged + f.Expired + f.Recalled + f.Unaccounted
	for _, n := range f.Dropped {
		sum += n
	}
	if sum != f.Audience {
		s.breach("task %s: the funnel of an audience of %d adds up to %d", id, f.Audience, sum)
	}
	if t.Progress.Written+t.Progress.LeftOut > t.Progress.Users {
		s.breach("task %s: written for %d of %d users", id, t.Progress.Written, t.Progress.Users)
	}
	return t, nil
}

// move makes a move; it is repeated until it is answered.
func (s *siege) move(ctx context.Context, id, move string) (t seen, err error) {
	s.say("%s", move)
	err = s.again(ctx, func() error {
		return s.ask(ctx, http.MethodPost, s.front+"/v1/tasks/"+id+"/"+move, s.access.APIKey, "application/json",
			strings.NewReader(`{"reason":"torture"}`), &t)
	})
	return t, err
}

var (
	runningMetric = regexp.MustCompile(`(?m)^carillon_center_tasks_running (\S+)`)
	writtenMetric = regexp.MustCompile(`(?m)^carillon_center_task_users_total (\S+)`)
)

// metric reads a figure of a node; -1: it cannot be asked.
func (s *siege) metric(ctx context.Context, n *fleet.Node, m *regexp.Regexp) float64 {
	if !n.Running() {
		return -1
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Admin()+"/metrics", nil)
	if err != nil {
		return -1
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	found := m.FindSubmatch(text)
	if err != nil || found == nil {
		return -1
	}
	v, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		return -1
	}
	return v
}

// centers returns the nodes that may run tasks.
func (s *siege) centers() []*fleet.Node {
	if s.cfg.Embedded {
		return s.fleet.Nodes()
	}
	return s.fleet.Of(fleet.Center)
}

// runner waits until somebody runs a task, but not the one that is left out; nil: the task is in one of the states first.
func (s *siege) runner(ctx context.Context, id string, not *fleet.Node, states ...string) (*fleet.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, taskPatience)
	defer cancel()
	for look := time.Now(); ; {
		for _, n := range s.centers() {
			if n != not && s.metric(ctx, n, runningMetric) >= 1 {
				return n, nil
			}
		}
		if time.Since(look) > time.Second {
			look = time.Now()
			t, err := s.look(ctx, id)
			if err != nil {
				return nil, err
			}
			for _, st := range states {
				if t.State == st {
					return nil, nil
				}
			}
		}
		if !sleep(ctx, 10*time.Millisecond) {
			return nil, fmt.Errorf("nobody runs task %s: %w", id, ctx.Err())
		}
	}
}

// await waits until a task is in a state.
func (s *siege) await(ctx context.Context, id string, states ...string) (t seen, err error) {
	ctx, cancel := context.WithTimeout(ctx, taskPatience)
	defer cancel()
	for {
		if t, err = s.look(ctx, id); err != nil {
			return t, err
		}
		for _, st := range states {
			if t.State == st {
				return t, nil
			}
		}
		if t.State == "failed" {
			return t, fmt.Errorf("task %s failed: %s", id, t.Reason)
		}
		if !sleep(ctx, 200*time.Millisecond) {
			return t, fmt.Errorf("task %s is %s: %w", id, t.State, ctx.Err())
		}
	}
}

// kill kills a node after a while, and starts it again.
func (s *siege) kill(ctx context.Context, n *fleet.Node, within time.Duration) error {
	sleep(ctx, time.Duration(s.rng.Int64N(int64(within))))
	s.rep.Kills++
	s.say("kill -9 of %s (%d)", n.Name(), s.rep.Kills)
	n.Kill()
	return n.Start(ctx)
}
