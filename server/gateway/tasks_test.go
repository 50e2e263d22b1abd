package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/client"
)

// upload uploads a list and returns its id.
func (n *testNode) upload(media, text string) string {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), http.MethodPost, n.PublicURL()+"/v1/lists?strict=true", strings.NewReader(text))
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+n.key)
	req.Header.Set("Content-Type", media)
	status, a, err := answerOf(req)
	if err != nil || status != http.StatusCreated {
		n.t.Fatalf("uploading: %d %v (%v)", status, a, err)
	}
	return a["id"].(string)
}

// task makes a task and returns its id.
func (n *testNode) task(body map[string]any) string {
	n.t.Helper()
	status, a := n.rest("POST", "/v1/tasks", body)
	if status != http.StatusCreated {
		n.t.Fatalf("making a task: %d %v", status, a)
	}
	return a["id"].(string)
}

// taskPatience is how long a test waits for what is told of a task: what common slots acknowledge may be written half a minute later.
const taskPatience = 30*time.Second + networkPatience

// awaitTask waits until what is told of a task is as wanted.
func (n *testNode) awaitTask(id string, what string, ok func(a map[string]any) bool) {
	n.t.Helper()
	var last map[string]any
	eventually(n.t, taskPatience, func() bool {
		_, last = n.rest("GET", "/v1/tasks/"+id, nil)
		return ok(last)
	}, func() string { return fmt.Sprintf("the task is not %s: %v, %v", what, last["state"], last["funnel"]) })
}

func isState(state string) func(a map[string]any) bool {
	return func(a map[string]any) bool { return a["state"] == state }
}

// funnel reports whether the funnel is as wanted, all that is not named being 0, and fails the test if it does not add up.
func (n *testNode) funnel(want map[string]float64) func(a map[string]any) bool {
	return func(a map[string]any) bool {
		f := a["funnel"].(map[string]any)
		sum := 0.0
		for _, name := range []string{"waiting", "in_flight", "acknowledged", "expired", "recalled", "unaccounted"} {
			sum += f[name].(float64)
		}
		for _, v := range f["dropped"].(map[string]any) {
			sum += v.(float64)
		}
		if f["audience"] != sum {
			n.t.Errorf("the funnel does not add up: %v", f)
		}
		for name, v := range f {
			if got, isNumber := v.(float64); isNumber && got != want[name] {
				return false
			}
		}
		return true
	}
}

func TestTasks_TheFunnelCountsWhatDevicesDo(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	bobs := &client.Memory{}
	bob := n.watch("bob", "tablet", bobs)
	<-bob.caught
	bob.leave(t)
	phone, web := n.watch("alice", "phone", &client.Memory{}), n.watch("alice", "web", &client.Memory{})
	<-phone.caught
	<-web.caught

	list := n.upload("text/csv", "user,name\nalice,Alice\nbob,\ncathy,Cathy\n")
	id := n.task(map[string]any{
		"to": map[string]any{"list": list}, "template": true,
		"message": map[string]any{"body": map[string]any{"text": "Hello {{name|friend}}"}},
	})
	if m := phone.want(t, id); string(m.Body) != `{"text":"Hello Alice"}` {
		t.Errorf("alice is told %s", m.Body)
	}
	web.want(t, id)
	n.awaitTask(id, "completed, with two acknowledgements", func(a map[string]any) bool {
		return isState("completed")(a) && n.funnel(map[string]float64{"audience": 3, "stored": 3, "online": 2, "waiting": 1, "sent": 2, "acknowledged": 2})(a)
	})
	event := func(kind string) string { return `{"type":"event","event":"` + kind + `","id":"` + id + `"}` }
	n.wantFrames(n.token("alice", "phone"), `[`+event("displayed")+`,`+event("displayed")+`,`+event("clicked")+`]`, http.StatusNoContent, "")
	n.awaitTask(id, "displayed and clicked once", n.funnel(map[string]float64{
		"audience": 3, "stored": 3, "online": 2, "waiting": 1, "sent": 2, "acknowledged": 2, "displayed": 1, "clicked": 1,
	}))

	bob = n.watch("bob", "tablet", bobs)
	if m := bob.want(t, id); string(m.Body) != `{"text":"Hello friend"}` {
		t.Errorf("bob is told %s", m.Body)
	}
	cathy := n.watch("cathy", "tv", &client.Memory{}) // who had no device when it was written
	cathy.want(t, id)
	n.awaitTask(id, "acknowledged by all", n.funnel(map[string]float64{
		"audience": 4, "stored": 3, "online": 2, "sent": 4, "acknowledged": 4, "displayed": 1, "clicked": 1,
	}))
	for _, device := range []string{"phone", "web"} {
		if got := n.traceOf(id, "alice", device); got != "acknowledged" {
			t.Errorf("on alice's %s the message is %q, want acknowledged", device, got)
		}
	}
	if status, a := n.rest("GET", "/v1/messages/"+id+"?user=nobody", nil); status != 200 || len(a["users"].([]any)) != 0 {
		t.Errorf("of who was not in the list is told %d %v", status, a)
	}
	for _, w := range []*watcher{phone, web, bob, cathy} {
		w.leave(t)
	}
}

// traceOf returns what became of a task's message on a user's device.
func (n *testNode) traceOf(id, user, device string) string {
	n.t.Helper()
	_, a := n.rest("GET", "/v1/messages/"+id+"?user="+user, nil)
	for _, u := range a["users"].([]any) {
		for _, d := range u.(map[string]any)["devices"].([]any) {
			if d := d.(map[string]any); d["device"] == device {
				return d["state"].(string)
			}
		}
	}
	return ""
}

func TestTasks_ARecallReachesWhoHasItAndWhoDoesNotYet(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	bobs := &client.Memory{}
	bob := n.watch("bob", "tablet", bobs)
	<-bob.caught
	bob.leave(t)
	alice := n.watch("alice", "phone", &client.Memory{})
	<-alice.caught
	id := n.task(map[string]any{"to": map[string]any{"users": []string{"alice", "bob"}}, "message": map[string]any{"body": "regrettable"}})
	alice.want(t, id)
	n.awaitTask(id, "acknowledged by one", n.funnel(map[string]float64{"audience": 2, "stored": 2, "online": 1, "waiting": 1, "sent": 1, "acknowledged": 1}))
	if status, a := n.rest("POST", "/v1/tasks/"+id+"/recall", map[string]any{"reason": "a wrong price"}); status != 200 {
		t.Fatalf("recall: %d %v", status, a)
	}
	if r := <-alice.recall; r.ID.String() != id {
		t.Errorf("alice is told to forget %s, want %s", r.ID, id)
	}
	n.awaitTask(id, "recalled", func(a map[string]any) bool {
		return isState("stopped")(a) && n.funnel(map[string]float64{"audience": 2, "stored": 2, "online": 1, "sent": 1, "acknowledged": 1, "recalled": 1})(a)
	})
	if got := n.traceOf(id, "bob", "tablet"); got != "recalled" {
		t.Errorf("on bob's tablet the message is %q, want recalled", got)
	}
	after := n.publish("bob", "after it")
	bob = n.watch("bob", "tablet", bobs)
	bob.want(t, after) // and nothing before it
	alice.leave(t)
	bob.leave(t)
}

func TestTasks_EveryoneGetsWhatEveryoneIsFor(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	if status, a := n.admin("PATCH", "/admin/v1/products/shop", map[string]any{"task_approval": map[string]any{"everyone": false}}); status != 200 {
		t.Fatalf("no approval for everyone: %d %v", status, a)
	}
	alice, bob := n.watch("alice", "phone", &client.Memory{}), n.watch("bob", "phone", &client.Memory{})
	<-alice.caught
	<-bob.caught
	id := n.task(map[string]any{
		"to": map[string]any{"everyone": true}, "message": map[string]any{"body": "new terms"}, "test_group": []string{"alice"},
	})
	alice.want(t, id)
	n.awaitTask(id, "paused behind its test group", isState("paused"))
	if status, a := n.rest("POST", "/v1/tasks/"+id+"/resume", nil); status != 200 {
		t.Fatalf("resume: %d %v", status, a)
	}
	bob.want(t, id)
	n.awaitTask(id, "acknowledged by both", func(a map[string]any) bool {
		f := a["funnel"].(map[string]any)
		return isState("completed")(a) && f["acknowledged"].(float64) >= 2
	})
	after := n.publish("alice", "after it")
	alice.want(t, after) // and the task's message not again
	if got := n.traceOf(id, "bob", "phone"); got != "acknowledged" {
		t.Errorf("on bob's phone the message is %q, want acknowledged", got)
	}
	alice.leave(t)
	bob.leave(t)
}

// answerOf makes a request and decodes its answer.
func answerOf(req *http.Request) (int, map[string]any, error) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	out := map[string]any{}
	return resp.StatusCode, out, json.NewDecoder(resp.Body).Decode(&out)
}

func TestCluster_OneOfFiftyRequestsWithOneKeyCounts(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 1, 2, nil)
	const requests = 50
	alice := c.rooms[0].watch("alice", "phone", &client.Memory{})
	<-alice.caught
	for _, what := range []struct{ path, body, other string }{
		{"/v1/messages", `{"to":{"users":["alice","bob"]},"message":{"body":1}}`, `{"to":{"users":["alice"]},"message":{"body":1}}`},
		{"/v1/tasks", `{"to":{"users":["alice","bob"]},"message":{"body":2}}`, `{"to":{"users":["alice","bob"]},"message":{"body":3}}`},
	} {
		ask := func(n *testNode, body string) (int, map[string]any, error) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.PublicURL()+what.path, strings.NewReader(body))
			if err != nil {
				return 0, nil, err
			}
			req.Header.Set("Authorization", "Bearer "+n.key)
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Idempotency-Key", "one of fifty")
			return answerOf(req)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		ids, answers := map[any]int{}, map[string]int{}
		for i := range requests {
			wg.Go(func() {
				status, a, err := ask(c.centers[i%2], what.body)
				if err != nil || status != http.StatusCreated {
					t.Errorf("%s: %d %v (%v)", what.path, status, a, err)
				}
				mu.Lock()
				defer mu.Unlock()
				ids[a["id"]]++
				answers[fmt.Sprint(a)]++
			})
		}
		wg.Wait()
		if len(ids) != 1 || len(answers) != 1 {
			t.Errorf("%s: fifty requests with one key are answered with %d ids, in %d ways: %v", what.path, len(ids), len(answers), answers)
		}
		if status, a, err := ask(c.centers[0], what.other); err != nil || status != http.StatusUnprocessableEntity || a["code"] != "idempotency_key_reused" {
			t.Errorf("%s: the key with another request is answered %d %v (%v)", what.path, status, a, err)
		}
		for id := range ids {
			alice.want(t, id.(string))
		}
	}
	last := c.centers[0].publish("alice", "the last")
	alice.want(t, last) // and none of the others again
	alice.leave(t)
}
