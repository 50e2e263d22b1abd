//go:build failpoints

package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"carillon/server/dev"
	"carillon/server/embedded"
	"carillon/server/failpoint"
	"carillon/server/fleet"
	"carillon/server/history"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
	saverpebble "carillon/server/saver/pebble"
	saverredis "carillon/server/saver/redis"
)

// taskKillPoints says at which hits of the points of tasks a node is killed: while it begins, in the middle, for the test group and for the others, and in a recall.
var taskKillPoints = map[failpoint.Name][]int{
	failpoint.SaverFenceApplied: {1, 2, 5},
	failpoint.SaverBatchApplied: {1, 5, 11},
	failpoint.TaskWritten:       {1, 2, 4, 7, 12, 13, 15},
}

const (
	taskUsers  = 400
	taskShards = 16 // on Redis
	testUsers  = 90 // of a test group
)

func eachTaskKillPoint(t *testing.T, run func(t *testing.T, point string)) {
	for _, name := range failpoint.OfTasks() {
		hits, ok := taskKillPoints[name]
		if !ok {
			t.Errorf("failpoint %s has no case", name)
		}
		for _, hit := range hits {
			t.Run(fmt.Sprintf("%s@%d", name, hit), func(t *testing.T) { run(t, fmt.Sprintf("%s=kill@%d", name, hit)) })
		}
	}
}

func TestCrash_AtEachFailpointOfTasksEachUserHasItOnce(t *testing.T) {
	eachTaskKillPoint(t, func(t *testing.T, point string) {
		p := newProc(t, failpointBinary)
		if !p.start(point) {
			t.Fatalf("the server died before it had a task:\n%s", p.log.String())
		}
		l := newTaskLoad(p, 0)
		died, again := p.died, make(chan struct{})
		go func() {
			defer close(again)
			select {
			case <-died:
				if !p.start("") {
					t.Errorf("the server did not come back:\n%s", p.log.String())
				}
			case <-l.over:
				t.Errorf("the server was never killed at %s", point)
			}
		}()
		l.run(t)
		<-again
		p.kill()
		db, err := embedded.Open(embedded.Config{Dir: p.data})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		store, err := saverpebble.New(saverpebble.Config{DB: db})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		l.judge(t, store)
	})
}

func TestCrash_AtEachFailpointOfTasksOnRedisEachUserHasItOnce(t *testing.T) {
	bin, err := failpointBinary()
	if err != nil {
		t.Fatal(err)
	}
	eachTaskKillPoint(t, func(t *testing.T, point string) {
		r := pool.Standalone(t)
		f, p := startFleet(t, fleet.Config{Binary: bin, Together: 1, Redis: r.Access(), Shards: taskShards})
		n := f.Nodes()[0]
		n.Kill()
		n.Configure(fmt.Sprintf("%s=%s", failpoint.Env, point))
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.Configure()
		l := newTaskLoad(p, taskShards)
		died, again := n.Exited(), make(chan struct{})
		go func() {
			defer close(again)
			select {
			case <-died:
				if err := n.Start(context.Background()); err != nil {
					t.Errorf("the node did not come back: %v", err)
				}
			case <-l.over:
				t.Errorf("the node was never killed at %s", point)
			}
		}()
		l.run(t)
		<-again
		n.Kill()
		db, err := redisdb.Open(t.Context(), redisdb.Config{Addrs: r.Access().Addrs})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		store, err := saverredis.New(saverredis.Config{DB: db, Shards: func(push.ProductID) int { return taskShards }})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		l.judge(t, store)
	})
}

// taskLoad is two tasks to many users, of whom two have a device: one task with a test group, which is let go on, and one that is taken back.
type taskLoad struct {
	p           *proc
	c           *http.Client
	log         *history.Log
	users       []string
	devices     []*device
	kept, taken string // ids
	shards      int
	over        chan struct{} // closed when the last request was answered
}

// newTaskLoad returns one for a product of so many shards; 0: the server is asked.
func newTaskLoad(p *proc, shards int) *taskLoad {
	l := &taskLoad{p: p, shards: shards, c: p.http(), log: history.NewLog(time.Now()), over: make(chan struct{})}
	for i := range taskUsers {
		l.users = append(l.users, fmt.Sprintf("user-%03d", i))
	}
	for i, u := range []string{l.users[0], l.users[taskUsers-1]} { // one of the test group, and one of the others
		l.devices = append(l.devices, &device{name: history.Device{User: u, Device: "phone"}, over: overs[i]})
	}
	return l
}

// insist makes a request until it is answered with one of some statuses.
func (l *taskLoad) insist(t *testing.T, method, path, key string, body any, statuses ...int) (answer map[string]any) {
	t.Helper()
	status := 0
	eventually(t, 60*time.Second, func() bool {
		status, answer = l.p.post(t.Context(), l.c, method, path, key, body)
		for _, s := range statuses {
			if s == status {
				return true
			}
		}
		return false
	}, func() string { return fmt.Sprintf("%s %s is answered %d %v", method, path, status, answer) })
	return answer
}

func (l *taskLoad) upload(t *testing.T) (id string) {
	t.Helper()
	eventually(t, 60*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://carillon/v1/lists", strings.NewReader("user\n"+strings.Join(l.users, "\n")))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+l.p.key)
		req.Header.Set("Content-Type", "text/csv")
		resp, err := l.c.Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		var list struct{ ID string }
		if resp.StatusCode != http.StatusCreated || json.NewDecoder(resp.Body).Decode(&list) != nil {
			return false
		}
		id = list.ID
		return true
	}, func() string { return "no list is taken" })
	return id
}

// task makes a task under a key, whose message is its name.
func (l *taskLoad) task(t *testing.T, name string, req map[string]any) string {
	t.Helper()
	req["message"] = map[string]any{"body": name}
	l.log.Add(history.Record{Kind: history.Invoke, Sender: name, Seq: 1, Key: name, To: l.users, Persistent: true, Body: fmt.Sprintf("%q", name)})
	id := l.insist(t, http.MethodPost, "/v1/tasks", name, req, http.StatusCreated)["id"].(string)
	l.log.Add(history.Record{Kind: history.OK, Sender: name, Seq: 1, ID: id})
	return id
}

func (l *taskLoad) await(t *testing.T, id, state string) map[string]any {
	t.Helper()
	var a map[string]any
	eventually(t, 60*time.Second, func() bool {
		_, a = l.p.post(t.Context(), l.c, http.MethodGet, "/v1/tasks/"+id, "", nil)
		return a["state"] == state
	}, func() string { return fmt.Sprintf("the task is not %s: %v", state, a) })
	return a
}

// move makes a move until it is made. A conflict says that it was, before its answer was lost.
func (l *taskLoad) move(t *testing.T, id, m string) {
	t.Helper()
	l.log.Add(history.Record{Kind: history.MoveAsk, ID: id, Code: m})
	l.insist(t, http.MethodPost, "/v1/tasks/"+id+"/"+m, "", map[string]any{}, http.StatusOK, http.StatusConflict)
	l.log.Add(history.Record{Kind: history.MoveAnswer, ID: id, Code: m})
}

func (l *taskLoad) run(t *testing.T) {
	defer close(l.over)
	if l.shards == 0 {
		l.shards = l.findShards(t)
	}
	for _, d := range l.devices {
		caught := make(chan struct{}, 1)
		l.p.connect(t.Context(), d, l.log, func() {
			select {
			case caught <- struct{}{}:
			default:
			}
		})
		<-caught
	}
	list := map[string]any{"list": l.upload(t)}
	l.kept = l.task(t, "kept", map[string]any{"to": list, "test_group": l.users[:testUsers]})
	if a := l.await(t, l.kept, "paused"); a["reason"] != "test_group" {
		t.Errorf("it is paused for %v", a["reason"])
	}
	l.move(t, l.kept, "resume")
	l.await(t, l.kept, "completed")
	l.taken = l.task(t, "taken", map[string]any{"to": list})
	l.await(t, l.taken, "completed")
	l.log.Add(history.Record{Kind: history.Recall, Sender: "taken", ID: l.taken})
	l.move(t, l.taken, "recall")
	l.await(t, l.taken, "stopped")
	for _, d := range l.devices {
		eventually(t, 60*time.Second, func() bool { return d.seen.Load() >= 1 }, d.where)
		d.leave(t)
	}
	l.counts(t, l.kept, taskUsers, testUsers, 0)
	l.counts(t, l.taken, taskUsers, 0, taskUsers)
}

// findShards asks how many shards the product has.
func (l *taskLoad) findShards(t *testing.T) int {
	t.Helper()
	f, err := dev.Load(l.p.data)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.Admin+"/admin/v1/products/"+f.Product, bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+f.Secret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var product struct{ Shards int }
	if err := json.NewDecoder(resp.Body).Decode(&product); err != nil || product.Shards == 0 {
		t.Fatalf("the product: %v %+v", err, product)
	}
	return product.Shards
}

// counts holds what is told of a task against what it did, and its funnel against itself.
func (l *taskLoad) counts(t *testing.T, id string, written, leftOut, takenBack float64) {
	t.Helper()
	a := l.insist(t, http.MethodGet, "/v1/tasks/"+id, "", nil, http.StatusOK)
	got := a["progress"].(map[string]any)
	if got["written"] != written || got["left_out"] != leftOut || got["taken_back"] != takenBack {
		t.Errorf("the progress of %s: %v, want %v written, %v left out, %v taken back", id, got, written, leftOut, takenBack)
	}
	f := a["funnel"].(map[string]any)
	told := map[string]int64{
		history.Users: int64(got["users"].(float64)), history.Written: int64(written), history.TakenBack: int64(takenBack),
	}
	for _, k := range []string{
		history.Audience, history.Waiting, history.InFlight, history.Acknowledged, history.Expired, history.Recalled, history.Unaccounted,
	} {
		told[k] = int64(f[k].(float64))
	}
	for _, n := range f["dropped"].(map[string]any) {
		told[history.Dropped] += int64(n.(float64))
	}
	l.log.Add(history.Record{Kind: history.Told, ID: id, Code: a["state"].(string), Counts: told})
	if devices := float64(len(l.devices)); f["audience"] != devices || f["stored"] != devices {
		t.Errorf("the funnel of %s: %v, want %v devices", id, f, devices)
	}
}

// judge looks at what lies in the slots, and at what devices saw.
func (l *taskLoad) judge(t *testing.T, store saver.Store) {
	t.Helper()
	for _, u := range l.users[1 : taskUsers-1] { // the others' slots are free of what their devices acknowledged
		copies := make(map[string]int)
		for _, e := range l.slot(t, store, push.UserID(u)) {
			if e.Kind == saver.EntryMessage {
				copies[e.ID.String()]++
			}
		}
		for _, id := range []string{l.kept, l.taken} {
			l.log.Add(history.Record{Kind: history.Held, ID: id, Device: history.Device{User: u}, Count: copies[id]})
		}
	}
	run := history.Run{}
	for _, d := range l.devices {
		run.Devices = append(run.Devices, d.name)
	}
	for _, v := range history.Check(run, l.log.Records()) {
		t.Error(v)
	}
}

func (l *taskLoad) slot(t *testing.T, store saver.Store, u push.UserID) []saver.Entry {
	t.Helper()
	f, err := dev.Load(l.p.data)
	if err != nil {
		t.Fatal(err)
	}
	ref := saver.UserRef{Product: push.ProductID(f.Product), Shards: l.shards, User: u}
	user, err := store.User(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	s := user.Slots[push.Own]
	if s.Epoch == 0 {
		return nil
	}
	tails, err := store.Read(t.Context(), []saver.Read{{
		ShardRef: ref.Shard(), Slot: push.Own, User: u, MaxEntries: 100, MaxBytes: 1 << 20,
		From: push.Place{Epoch: s.Epoch, Lineage: s.Lineage(), Pos: s.Origin},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return tails[0].Entries
}
