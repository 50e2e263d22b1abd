package center

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"carillon/server/push"
	"carillon/server/saver"
)

type shownTags struct{ Tags, Joined []string }

// tags asks for tags, or changes them if there is a body.
func (g *gateway) tags(method, path, body string) shownTags {
	g.t.Helper()
	var out shownTags
	g.do(ask{method: method, path: path, body: body}).want(g.t, http.StatusOK).decode(g.t, &out)
	return out
}

func TestTags_AreSetAndChanged(t *testing.T) {
	g := newGateway(t)
	g.open("alice", "phone")
	for _, path := range []string{"/v1/users/alice/tags", "/v1/users/alice/devices/phone/tags"} {
		for i, c := range []struct{ method, body, want string }{
			{"GET", "", ""},
			{"PUT", `{"tags":["vip","beta","vip"]}`, "beta vip"},
			{"GET", "", "beta vip"},
			{"PATCH", `{"add":["new"],"remove":["beta","none"]}`, "new vip"},
			{"PATCH", `{"add":["new"]}`, "new vip"},
			{"PATCH", `{"add":["new"],"remove":["new"]}`, "new vip"},
			{"PATCH", `{"remove":[]}`, "new vip"},
			{"PUT", `{"tags":[]}`, ""},
			{"GET", "", ""},
		} {
			if got := strings.Join(g.tags(c.method, path, c.body).Tags, " "); got != c.want {
				t.Errorf("%s, step %d: got %q, want %q", path, i, got, c.want)
			}
		}
	}
}

func TestTags_AreShownWithTheUser(t *testing.T) {
	g := newGateway(t)
	if got := g.do(ask{path: "/v1/users/alice"}).want(t, 200); !strings.Contains(string(got.body), `"tags":[]`) {
		t.Errorf("got %s, want an empty list", got.body)
	}
	g.open("alice", "phone")
	g.open("alice", "web")
	g.tags("PUT", "/v1/users/alice/tags", `{"tags":["u"]}`)
	g.tags("PUT", "/v1/users/alice/devices/phone/tags", `{"tags":["p"]}`)
	c := saver.TagChange{UserRef: userRef("alice"), Device: "phone", Joined: true, Add: []push.Tag{"j"}}
	if r := g.store.ChangeTags(t.Context(), []saver.TagChange{c}); r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
	var got struct {
		shownTags
		Devices []shownTags
	}
	g.do(ask{path: "/v1/users/alice"}).want(t, 200).decode(t, &got)
	if s := fmt.Sprint(got); s != "{{[u] []} [{[p] [j]} {[] []}]}" {
		t.Errorf("got %s", s)
	}
	if got := g.tags("GET", "/v1/users/alice/devices/phone/tags", ""); fmt.Sprint(got) != "{[p] [j]}" {
		t.Errorf("of the device: %v", got)
	}
	// What the client joined is not touched from here.
	if got := g.tags("PUT", "/v1/users/alice/devices/phone/tags", `{"tags":[]}`); len(got.Tags) != 0 {
		t.Errorf("got %v", got)
	}
	if got := g.tags("GET", "/v1/users/alice/devices/phone/tags", ""); fmt.Sprint(got) != "{[] [j]}" {
		t.Errorf("after an empty set: %v", got)
	}
}

func manyTags(n int) string {
	ts := make([]string, n)
	for i := range ts {
		ts[i] = fmt.Sprintf(`"t%d"`, i)
	}
	return "[" + strings.Join(ts, ",") + "]"
}

func TestTags_Refusals(t *testing.T) {
	g := newGateway(t)
	g.open("alice", "phone")
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/v1/users/alice/devices/web/tags", "", 404, "device_not_found"},
		{"PUT", "/v1/users/alice/devices/web/tags", `{"tags":[]}`, 404, "device_not_found"},
		{"PATCH", "/v1/users/bob/devices/phone/tags", `{"add":["a"]}`, 404, "device_not_found"},
		{"PUT", "/v1/users/a%00b/tags", `{"tags":[]}`, 400, "invalid_parameter"},
		{"PUT", "/v1/users/a/devices/%7f/tags", `{"tags":[]}`, 400, "invalid_parameter"},
		{"GET", "/v1/users/a/devices/%7f/tags", "", 400, "invalid_parameter"},
		{"PUT", "/v1/users/alice/tags", `{"tags":` + manyTags(65) + `}`, 400, "invalid_request"},
		{"POST", "/v1/users/alice/tags", `{}`, 405, "method_not_allowed"},
	} {
		g.do(ask{method: c.method, path: c.path, body: c.body}).want(t, c.status, c.code)
	}
	g.tags("PUT", "/v1/users/alice/tags", `{"tags":`+manyTags(64)+`}`)
	g.do(ask{method: "PATCH", path: "/v1/users/alice/devices/phone/tags", body: `{"add":["x"]}`}).want(t, 409, "too_many_tags")
	g.store.fail.Store(&push.Error{Kind: push.KindUnavailable, Code: "storage_failed"})
	for _, a := range []ask{
		{path: "/v1/users/alice/tags"}, {path: "/v1/users/alice/devices/phone/tags"}, {path: "/v1/users/alice"},
		{method: "PUT", path: "/v1/users/alice/tags", body: `{"tags":[]}`},
	} {
		g.do(a).want(t, 503, "storage_failed")
	}
	g.store.fail.Store(nil)
	if got := g.tags("GET", "/v1/users/alice/tags", ""); len(got.Tags) != 64 {
		t.Errorf("%d tags are left, want 64", len(got.Tags))
	}
}

func TestTags_BatchJudgesEachChangeByItself(t *testing.T) {
	g := newGateway(t)
	g.open("alice", "phone")
	var out struct {
		Results []struct {
			Status  int
			Tags    []string
			Problem *struct {
				Code   string
				Errors []struct{ Pointer, Code string }
			}
		}
	}
	const changes = `{"changes":[
		{"user":"alice","add":["a","b"]},
		{"user":"alice","device":"phone","set":["p"]},
		{"user":"alice","device":"web","set":["w"]},
		{"user":"alice","remove":["a"],"add":["c"]},
		{"user":"bob"},
		{"user":"bob","set":[],"add":["x"]},
		{"user":"bob","add":[""]},
		{"user":"bob","set":["b"]}
	]}`
	g.do(ask{path: "/v1/tags/batch", body: changes}).want(t, 200).decode(t, &out)
	var lines []string
	for _, r := range out.Results {
		s := fmt.Sprint(r.Status, r.Tags)
		if r.Problem != nil {
			s += " " + r.Problem.Code
			for _, e := range r.Problem.Errors {
				s += " " + e.Pointer + " " + e.Code
			}
		}
		lines = append(lines, s)
	}
	want := []string{
		"200 [a b]", "200 [p]", "404 [] device_not_found", "200 [b c]", "400 [] invalid_request /changes/4 too_few",
		"400 [] invalid_request /changes/5/set not_allowed", "400 [] invalid_request /changes/6/add/0 empty", "200 [b]",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got %q", lines)
	}
	if got := g.tags("GET", "/v1/users/bob/tags", "").Tags; !slices.Equal(got, []string{"b"}) {
		t.Errorf("bob has %q", got)
	}
	g.store.fail.Store(&push.Error{Kind: push.KindUnavailable, Code: "storage_failed"})
	g.do(ask{path: "/v1/tags/batch", body: changes}).want(t, 200).decode(t, &out)
	if r := out.Results[0]; r.Status != 503 || r.Problem == nil || r.Problem.Code != "storage_failed" {
		t.Errorf("while the store fails: %+v", r)
	}
}

func TestTags_BatchIsBounded(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.Limits.Items = 3 })
	item := `{"user":"alice","add":["a"]}`
	for n, want := range map[int]int{0: 400, 3: 200, 4: 400} {
		body := `{"changes":[` + strings.Join(slices.Repeat([]string{item}, n), ",") + `]}`
		g.do(ask{path: "/v1/tags/batch", body: body}).want(t, want)
	}
}

func TestTags_OfAnotherProductAreOthers(t *testing.T) {
	g := newGateway(t)
	g.makeProduct("forum")
	key := g.makeKey("forum", "users:write", "users:read")
	g.tags("PUT", "/v1/users/alice/tags", `{"tags":["shop"]}`)
	g.do(ask{method: "PUT", path: "/v1/users/alice/tags", body: `{"tags":["forum"]}`, key: key}).want(t, 200)
	if got := g.tags("GET", "/v1/users/alice/tags", "").Tags; !slices.Equal(got, []string{"shop"}) {
		t.Errorf("got %q", got)
	}
}

// tagCases are bodies, and what is wrong with them.
var tagCases = []struct {
	schema, body string
	want         []string
}{
	{"TagSet", `{"tags":[]}`, nil},
	{"TagSet", `{"tags":` + manyTags(64) + `}`, nil},
	{"TagSet", `{"tags":["` + strings.Repeat("é", 64) + `","` + strings.Repeat("x", 128) + `"]}`, nil},
	{"TagSet", `{"tags":["a","a"]}`, nil},
	{"TagSet", `{}`, []string{"/tags required"}},
	{"TagSet", `{"tags":null}`, []string{"/tags wrong_type"}},
	{"TagSet", `{"tags":"a"}`, []string{"/tags wrong_type"}},
	{"TagSet", `{"tags":[5]}`, []string{"/tags/0 wrong_type"}},
	{"TagSet", `{"tags":["a",""]}`, []string{"/tags/1 empty"}},
	{"TagSet", `{"tags":["a\n"]}`, []string{"/tags/0 control_character"}},
	{"TagSet", `{"tags":["` + strings.Repeat("é", 65) + `"]}`, []string{"/tags/0 too_long"}},
	{"TagSet", `{"tags":` + manyTags(65) + `}`, []string{"/tags too_many"}},
	{"TagSet", `{"tags":[],"add":[]}`, []string{"/add unknown_member"}},
	{"TagChange", `{"add":["a"]}`, nil},
	{"TagChange", `{"remove":["a"],"add":[]}`, nil},
	{"TagChange", `{}`, []string{" too_few"}},
	{"TagChange", `{"remove":["a\u007f"]}`, []string{"/remove/0 control_character"}},
	{"TagChange", `[]`, []string{" wrong_type"}},
	{"TagBatchRequest", `{"changes":[{"user":"a","set":[]}]}`, nil},
	{"TagBatchRequest", `{"changes":[]}`, []string{"/changes too_few"}},
	{"TagBatchRequest", `{}`, []string{"/changes required"}},
	{"TagBatchItem", `{"user":"a","device":"d","add":["x"],"remove":["y"]}`, nil},
	{"TagBatchItem", `{"add":["x"]}`, []string{"/user required"}},
	{"TagBatchItem", `{"user":"","add":["x"]}`, []string{"/user empty"}},
	{"TagBatchItem", `{"user":"a","device":"","add":["x"]}`, []string{"/device empty"}},
	{"TagBatchItem", `{"user":"a"}`, []string{" too_few"}},
	{"TagBatchItem", `{"user":"a","set":[],"remove":[]}`, []string{"/set not_allowed"}},
	{"TagBatchItem", `{"user":"a","set":["x",1]}`, []string{"/set/1 wrong_type"}},
	{"TagBatchItem", `{"user":"a","tags":[],"add":[]}`, []string{"/tags unknown_member"}},
}

func TestParseTags_SaysWhereAndWhat_AndAgreesWithTheContract(t *testing.T) {
	const item = "/changes/0"
	for _, c := range tagCases {
		var err error
		switch c.schema {
		case "TagSet":
			_, err = parseTagSet([]byte(c.body))
		case "TagChange":
			_, err = parseTagChange([]byte(c.body))
		case "TagBatchRequest":
			_, err = parseTagBatch([]byte(c.body), 500)
		case "TagBatchItem":
			var items []tagItem
			if items, err = parseTagBatch([]byte(`{"changes":[`+c.body+`]}`), 500); err == nil {
				err = items[0].err
			}
		}
		want := slices.Clone(c.want)
		for i := range want {
			if c.schema == "TagBatchItem" {
				want[i] = item + want[i]
			}
		}
		if got := places(t, err); !slices.Equal(got, want) {
			t.Errorf("%s %s:\n got %q\nwant %q", c.schema, c.body, got, want)
		}
		theirs := judge(loadContract(t).schema(t, "/components/schemas/"+c.schema), []byte(c.body))
		if (theirs == nil) != (c.want == nil) {
			t.Errorf("%s %s: the contract says %v, want %v", c.schema, c.body, theirs, c.want)
		}
	}
}

func TestTags_LiveSessionsLookAgainAlsoAtARepeat(t *testing.T) {
	g := newGateway(t)
	g.rooms.fail = errOut
	set := ask{method: "PUT", path: "/v1/users/alice/tags", body: `{"tags":["vip"]}`}
	g.do(set).want(t, 503, "rooms_unavailable") // stored, and perhaps seen by nobody
	g.rooms.fail = nil
	g.do(set).want(t, 200) // changes nothing
	if got := g.rooms.retagged; !slices.Equal(got, []push.UserID{"alice", "alice"}) {
		t.Errorf("the sessions of %q look again", got)
	}
	g.rooms.retagged = nil
	g.do(ask{path: "/v1/tags/batch", body: `{"changes":[
		{"user":"bob","add":["a"]},{"user":"alice","add":["a"]},{"user":"bob","add":["b"]},{"user":"cathy","device":"none","add":["a"]}
	]}`}).want(t, 200)
	if got := g.rooms.retagged; !slices.Equal(got, []push.UserID{"alice", "bob"}) {
		t.Errorf("after a batch the sessions of %q look again, want each user once, and nobody who was refused", got)
	}
}
