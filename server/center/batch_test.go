package center

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"carillon/server/push"
)

// batchResult is one entry of the answer to a batch.
type batchResult struct {
	Status    int
	Replayed  bool
	Message   *sent
	Validated *struct{ Valid bool }
	Problem   *struct {
		Code   string
		Errors []struct{ Pointer, Code string }
	}
}

func (g *gateway) batch(body string) []batchResult {
	g.t.Helper()
	var out struct{ Results []batchResult }
	g.do(ask{path: "/v1/messages/batch", body: body}).want(g.t, http.StatusOK).decode(g.t, &out)
	return out.Results
}

func TestBatch_EachMessageIsJudgedByItself(t *testing.T) {
	g := newGateway(t)
	g.connect("alice", "phone")
	g.publish(`{"to":{"users":["alice"]},"message":{"body":0}}`, "used").want(t, 201)
	g.rooms.take()
	got := g.batch(`{"messages":[
		{"to":{"users":["alice"]},"message":{"body":1},"idempotency_key":"new"},
		{"to":{"users":[""]},"message":{"body":2}},
		{"to":{"users":["alice"]},"message":{"body":3},"idempotency_key":"used"},
		{"to":{"users":["alice"]},"message":{"body":0},"idempotency_key":"used"},
		{"to":{"users":["alice"]},"message":{"body":4,"persistent":false}},
		{"to":{"users":["alice"]},"message":{"body":"` + strings.Repeat("x", 64<<10) + `"}},
		{"to":{"everyone":true},"message":{"body":5}},
		{"to":{"users":["alice"]},"message":{"body":1},"idempotency_key":"new"}
	]}`)
	var line []string
	for _, r := range got {
		s := fmt.Sprint(r.Status)
		if r.Problem != nil {
			s += " " + r.Problem.Code
			for _, e := range r.Problem.Errors {
				s += " " + e.Pointer + " " + e.Code
			}
		}
		if r.Replayed {
			s += " replayed"
		}
		line = append(line, s)
	}
	want := []string{
		"201", "400 invalid_request /messages/1/to/users/0 empty", "422 idempotency_key_reused", "201 replayed", "202",
		"413 message_too_large", "201", "201 replayed",
	}
	if !slices.Equal(line, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(line, "\n"), strings.Join(want, "\n"))
	}
	if got[0].Message.ID != got[7].Message.ID {
		t.Errorf("the same key twice in a batch gave %s and %s", got[0].Message.ID, got[7].Message.ID)
	}
	if n := len(g.own("alice")); n != 2 {
		t.Errorf("%d entries in alice's slot, want 2", n)
	}
	if n := g.store.calls.Load(); n != 2 {
		t.Errorf("%d calls of the store, want one for the single publish and one for the batch", n)
	}
	var bodies []string
	for _, d := range g.rooms.take() {
		bodies = append(bodies, string(d.Message.Body))
	}
	slices.Sort(bodies)
	if want := []string{"1", "4", "5"}; !slices.Equal(bodies, want) {
		t.Errorf("delivered %v, want %v", bodies, want)
	}
}

func TestBatch_AnswersAsASingleMessageWould(t *testing.T) {
	g := newGateway(t)
	item := `"to":{"devices":[{"user":"alice","device":"a"}]},"message":{"body":1,"ref":"r"}`
	single := g.publish(`{`+item+`}`, "k").want(t, 201)
	var raw struct {
		Results []struct{ Message json.RawMessage }
	}
	g.do(ask{path: "/v1/messages/batch", body: `{"messages":[{` + item + `,"idempotency_key":"k"}]}`}).want(t, 200).decode(t, &raw)
	if !bytes.Equal(raw.Results[0].Message, single.body) {
		t.Errorf("got %s, want %s", raw.Results[0].Message, single.body)
	}
}

func TestBatch_OrderInASlotIsThatOfTheBatch(t *testing.T) {
	g := newGateway(t)
	var items []string
	for i := range 500 {
		items = append(items, fmt.Sprintf(`{"to":{"users":["alice"]},"message":{"body":%d}}`, i))
	}
	for _, r := range g.batch(`{"messages":[` + strings.Join(items, ",") + `]}`) {
		if r.Status != 201 {
			t.Fatalf("got %d, want 201", r.Status)
		}
	}
	for i, e := range g.own("alice") {
		if got, want := string(e.Message.Body), fmt.Sprint(i); got != want {
			t.Fatalf("entry %d is %s, want %s", i, got, want)
		}
	}
	if n := g.store.calls.Load(); n != 1 {
		t.Errorf("%d calls of the store, want 1", n)
	}
}

func TestBatch_ValidateOnlySendsNothing(t *testing.T) {
	g := newGateway(t)
	got := g.batch(`{"validate_only":true,"messages":[{"to":{"users":["alice"]},"message":{"body":1}},{"to":{},"message":{"body":1}}]}`)
	if got[0].Status != 200 || !got[0].Validated.Valid || got[1].Status != 400 {
		t.Errorf("got %+v, want a good one and a bad one", got)
	}
	if n := g.store.calls.Load(); n != 0 {
		t.Errorf("%d calls of the store, want none", n)
	}
}

func TestBatch_LimitsAreThoseOfTheWhole(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.Limits.Items, c.Limits.BatchTargets = 3, 4 })
	one := `{"to":{"users":["alice"]},"message":{"body":1}}`
	two := `{"to":{"users":["alice","bob"]},"message":{"body":1}}`
	for _, c := range []struct {
		items  []string
		status int
		code   string
	}{
		{[]string{one, one, one}, 200, ""}, {[]string{one, one, one, one}, 400, "invalid_request"},
		{[]string{two, two}, 200, ""}, {[]string{two, two, one}, 413, "too_many_targets"},
	} {
		g.do(ask{path: "/v1/messages/batch", body: `{"messages":[` + strings.Join(c.items, ",") + `]}`}).want(t, c.status, c.code)
	}
	g.do(ask{path: "/v1/messages/batch", body: `{"messages":[` + one + `,]}`}).want(t, 400, "malformed_json")
}

func TestBatch_StoreThatFailsFailsEachMessage(t *testing.T) {
	g := newGateway(t)
	g.connect("alice", "phone")
	g.store.fail.Store(&push.Error{Kind: push.KindUnavailable, Code: "storage_failed"})
	got := g.batch(`{"messages":[{"to":{"users":["alice"]},"message":{"body":1}},{"to":{"users":["alice"]},"message":{"body":2,"persistent":false}}]}`)
	if got[0].Status != 503 || got[0].Problem.Code != "storage_failed" || got[1].Status != 202 {
		t.Errorf("got %+v, want 503 for what had to be stored and 202 for the other", got)
	}
	if n := len(g.rooms.take()); n != 1 {
		t.Errorf("%d deliveries, want 1", n)
	}
	if !strings.Contains(g.log.String(), "level=WARN") {
		t.Errorf("the failure is not logged:\n%s", g.log)
	}
}
