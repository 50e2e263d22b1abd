package center

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"carillon/server/push"
	"carillon/server/saver"
)

// vips is the expression over tags of most tests, as it is asked for and as it is told.
const (
	vips     = `{"not":["trial"],"any":["vip",{"all":["b","a"]}]}`
	toldVips = `{"any":["vip",{"all":["a","b"]}],"not":["trial"]}`
)

func vipFilter() *push.Filter {
	both := &push.TagExpr{All: []push.TagTerm{{Tag: "a"}, {Tag: "b"}}}
	return &push.Filter{
		Platforms: push.PlatformSet(0).Add(push.PlatformAndroid).Add(push.PlatformIOS), Classes: []string{"mobile"},
		Tags: &push.TagExpr{Any: []push.TagTerm{{Tag: "vip"}, {Expr: both}}, Not: []push.TagTerm{{Tag: "trial"}}},
	}
}

// noneIsSmall has every audience by tags settled at delivery.
func noneIsSmall(c *Config) { c.Limits.SmallAudience = -1 }

func TestAudience_ByTagsLiesInTheCommonSlotsWithItsFilter(t *testing.T) {
	g := newGateway(t, noneIsSmall)
	g.connect("alice", "phone")
	body := `{"to":{"tags":` + vips + `,"platforms":["ios","android"],"classes":["mobile"]},"message":{"body":1}}`
	first := g.publish(body, "k").want(t, 201)
	told := `"targets":{"tags":` + toldVips + `,"platforms":["android","ios"],"classes":["mobile"]},"membership":"at_delivery"`
	if !bytes.Contains(first.body, []byte(told)) {
		t.Errorf("got %s, want %s in it", first.body, told)
	}
	for _, u := range []push.UserID{"alice", "bob", "cathy"} {
		if es := g.slot(u, push.Common); len(es) != 1 || !es[0].Filter.Equal(vipFilter()) {
			t.Errorf("the common slot of %s holds %+v", u, es)
		}
		if len(g.own(u)) != 0 {
			t.Errorf("the own slot of %s holds something", u)
		}
	}
	ds := g.rooms.take()
	if len(ds) != 1 || len(ds[0].Common) != 1 || !ds[0].Filter.Equal(vipFilter()) {
		t.Errorf("the rooms were told %+v", ds)
	}
	same := `{"message":{"body":1},"to":{"classes":["mobile"],"platforms":["android","ios"],"tags":{"any":[{"all":["a","b","a"]},"vip"],"not":["trial"]}}}`
	if again := g.publish(same, "k").want(t, 201); !bytes.Equal(again.body, first.body) {
		t.Errorf("the repeat is %s, want %s", again.body, first.body)
	}
	for _, other := range []string{
		strings.Replace(body, `"vip"`, `"VIP"`, 1), strings.Replace(body, `"ios",`, "", 1), strings.Replace(body, `"mobile"`, `"tv"`, 1),
		strings.Replace(body, `"not"`, `"all"`, 1), `{"to":{"everyone":true},"message":{"body":1}}`,
	} {
		g.publish(other, "k").want(t, 422, "idempotency_key_reused")
	}
}

func TestAudience_ByTagsThatIsNotPersistentGoesToEveryRoomOnce(t *testing.T) {
	g := newGateway(t)
	g.connect("alice", "phone")
	g.publish(`{"to":{"tags":`+vips+`,"platforms":["ios","android"],"classes":["mobile"]},"message":{"body":1,"persistent":false}}`).want(t, 202)
	ds := g.rooms.take()
	if len(ds) != 1 || !ds[0].Everyone || ds[0].Users != nil || !ds[0].Filter.Equal(vipFilter()) {
		t.Errorf("the rooms were told %+v", ds)
	}
	if len(g.slot("alice", push.Common)) != 0 {
		t.Error("it was stored")
	}
}

func TestAudience_OfUsersAndDevicesIsNarrowedInTheirOwnSlots(t *testing.T) {
	web := push.PlatformSet(0).Add(push.PlatformWeb)
	for _, c := range []struct {
		to, told string
		alice    *push.Filter
	}{
		{`{"users":["alice","bob"],"platforms":["web"]}`, `{"users":2,"platforms":["web"]}`, &push.Filter{Platforms: web}},
		{`{"classes":["b","a"],"users":["alice"]}`, `{"users":1,"classes":["a","b"]}`, &push.Filter{Classes: []string{"a", "b"}}},
		{`{"platforms":["web"],"classes":["a"],"devices":[{"user":"bob","device":"y"},{"user":"alice","device":"x"}]}`,
			`{"users":2,"devices":2,"platforms":["web"],"classes":["a"]}`,
			&push.Filter{Devices: []push.DeviceID{"x"}, Platforms: web, Classes: []string{"a"}}},
		{`{"users":["alice"]}`, `{"users":1}`, nil},
	} {
		for _, persistent := range []bool{true, false} {
			g := newGateway(t)
			g.connect("alice", "phone")
			a := g.publish(fmt.Sprintf(`{"to":%s,"message":{"body":1,"persistent":%v}}`, c.to, persistent))
			if told := `"targets":` + c.told + `,"membership":"at_send"`; !bytes.Contains(a.body, []byte(told)) {
				t.Errorf("%s: got %s, want %s in it", c.to, a.body, told)
			}
			ds := g.rooms.take()
			if len(ds) != 1 {
				t.Fatalf("%s: the rooms were told %+v", c.to, ds)
			}
			if !persistent {
				if len(ds[0].Users) != 1 || !ds[0].Users[0].Filter.Equal(c.alice) {
					t.Errorf("%s: the room was told of %+v", c.to, ds[0].Users)
				}
				continue
			}
			if es := g.own("alice"); len(es) != 1 || !es[0].Filter.Equal(c.alice) || !ds[0].Own[0].Filter.Equal(c.alice) {
				t.Errorf("%s: alice's slot holds %+v, and the room was told of %+v", c.to, es, ds[0].Own)
			}
			var s sent
			a.decode(t, &s)
			var got struct{ Targets any }
			var want any
			g.do(ask{path: "/v1/messages/" + s.ID}).want(t, 200).decode(t, &got)
			if err := json.Unmarshal([]byte(c.told), &want); err != nil || !reflect.DeepEqual(got.Targets, want) {
				t.Errorf("%s: the message is for %v, want %v", c.to, got.Targets, want)
			}
		}
	}
}

func (g *gateway) setTags(u push.UserID, d push.DeviceID, tags ...push.Tag) {
	g.t.Helper()
	c := saver.TagChange{UserRef: userRef(u), Device: d, Replace: true, Add: tags}
	if r := g.store.ChangeTags(g.t.Context(), []saver.TagChange{c}); r[0].Err != nil {
		g.t.Fatal(r[0].Err)
	}
}

func TestAudience_OfAMessageIsToldAndItsDevicesAreThoseThatHaveTheTagsNow(t *testing.T) {
	g := newGateway(t, noneIsSmall)
	g.open("alice", "phone")
	g.open("alice", "web")
	g.setTags("alice", "phone", "vip")
	id := g.send(`{"to":{"tags":{"all":["vip"]},"classes":["c","b"]},"message":{"body":1}}`)
	got := string(g.do(ask{path: "/v1/messages/" + id}).want(t, 200).body)
	for _, want := range []string{`"tags":{"all":["vip"]}`, `"classes":["b","c"]`, `"membership":"at_delivery"`} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s, want %s in it", got, want)
		}
	}
	if strings.Contains(got, "everyone") {
		t.Errorf("got %s, which speaks of everyone", got)
	}
	g.wantStates(id, "?user=alice", "alice") // whose devices are of no such class

	id = g.send(`{"to":{"tags":{"all":["vip"]}},"message":{"body":1}}`)
	g.wantStates(id, "")
	g.wantStates(id, "?user=alice", "alice/phone stored")
	g.setTags("alice", "phone")
	g.wantStates(id, "?user=alice", "alice")
	g.rooms.live["alice"] = []push.LiveSession{{Device: "web", Epoch: 1}, {Device: "web", Epoch: 2, Tags: []push.Tag{"token", "vip"}}}
	g.wantStates(id, "?user=alice", "alice/web stored")
	g.ack("alice", "web", push.Common)
	g.wantStates(id, "?user=alice", "alice/web acknowledged")

	g.rooms.fail = errOut
	g.do(ask{path: "/v1/messages/" + id + "?user=alice"}).want(t, 503, "rooms_unavailable")
}

func TestAudience_LagCountsWhatTheTagsOfTheDeviceAdmit(t *testing.T) {
	g := newGateway(t, noneIsSmall)
	g.open("alice", "phone")
	g.open("alice", "web")
	g.setTags("alice", "", "user")
	g.setTags("alice", "phone", "vip")
	for _, tags := range []string{`{"all":["vip"]}`, `{"all":["user"]}`, `{"all":["user"],"not":["vip"]}`, `{"all":["token"]}`} {
		g.send(`{"to":{"tags":` + tags + `},"message":{"body":1}}`)
	}
	lags := func() (out []int) {
		for _, d := range g.user("alice").Devices {
			out = append(out, d.Lag.Common.Messages)
		}
		return out
	}
	if got := lags(); !slices.Equal(got, []int{2, 2}) {
		t.Errorf("got %v", got)
	}
	g.rooms.live["alice"] = []push.LiveSession{{Device: "web", Tags: []push.Tag{"token", "user"}}}
	if got := lags(); !slices.Equal(got, []int{2, 3}) {
		t.Errorf("with a token: got %v", got)
	}
}

func TestAudience_IsJudgedForEachMessageOfABatch(t *testing.T) {
	g := newGateway(t, noneIsSmall)
	got := g.do(ask{path: "/v1/messages/batch", body: `{"messages":[
		{"to":{"tags":{"all":["vip"]}},"message":{"body":1}},
		{"to":{"tags":{}},"message":{"body":1}},
		{"to":{"users":["alice"],"platforms":["web"]},"message":{"body":1}}]}`}).want(t, 200)
	var answer struct {
		Results []struct {
			Status  int
			Message struct{ Membership string }
		}
	}
	got.decode(t, &answer)
	if s := fmt.Sprint(answer.Results); s != "[{201 {at_delivery}} {400 {}} {201 {at_send}}]" {
		t.Errorf("got %s", s)
	}
	if c, o := g.slot("alice", push.Common), g.own("alice"); len(c) != 1 || len(o) != 1 {
		t.Errorf("%d and %d entries", len(c), len(o))
	}
}

func (g *gateway) estimate(to string) string {
	g.t.Helper()
	var a struct {
		Estimate *struct {
			Users, Devices int
			Exact          bool
		}
	}
	g.publish(`{"to":`+to+`,"message":{"body":1},"validate_only":true}`).want(g.t, 200).decode(g.t, &a)
	if a.Estimate == nil {
		return "none"
	}
	return fmt.Sprint(*a.Estimate)
}

func TestAudience_EstimateCountsByTheTagsThatAreKept(t *testing.T) {
	g := newGateway(t)
	for _, u := range []push.UserID{"alice", "bob", "cathy"} {
		g.open(u, "phone")
		g.open(u, "web")
	}
	g.setTags("alice", "", "vip", "a")
	g.setTags("bob", "phone", "vip")
	g.setTags("bob", "web", "trial")
	g.setTags("cathy", "", "beta")
	g.setTags("dave", "", "vip") // has no device
	for to, want := range map[string]string{
		`{"tags":{"all":["vip"]}}`:                                                "{2 3 true}",
		`{"tags":{"all":["vip","a"]}}`:                                            "{1 2 true}",
		`{"tags":{"any":["vip","beta"]}}`:                                         "{3 5 true}",
		`{"tags":{"any":["vip","a"]}}`:                                            "{2 3 true}",
		`{"tags":{"any":["vip","trial"],"not":["a"]}}`:                            "{1 2 true}",
		`{"tags":{"any":["beta",{"all":["vip","a"]}],"all":[{"not":["trial"]}]}}`: "{2 4 true}",
		`{"tags":{"all":["nobody"]}}`:                                             "{0 0 true}",
		`{"tags":{"all":["vip"]},"platforms":["android"]}`:                        "{2 3 true}",
		`{"tags":{"all":["vip"]},"platforms":["ios"]}`:                            "{0 0 true}",
		`{"tags":{"not":["vip"]}}`:                                                "none",
		`{"tags":{"any":["vip",{"not":["a"]}]}}`:                                  "none",
		`{"users":["alice"]}`:                                                     "none",
		`{"everyone":true}`:                                                       "none",
	} {
		if got := g.estimate(to); got != want {
			t.Errorf("%s: got %s, want %s", to, got, want)
		}
	}
	if len(g.slot("alice", push.Common)) != 0 || len(g.rooms.take()) != 0 {
		t.Error("an estimate sends something")
	}
	g.makeProduct("news")
	other := g.do(ask{path: "/v1/messages", key: g.makeKey("news", "*"),
		body: `{"to":{"tags":{"all":["vip"]}},"message":{"body":1},"validate_only":true}`}).want(t, 200)
	if !strings.Contains(string(other.body), `"estimate":{"users":0,"devices":0,"exact":true}`) {
		t.Errorf("another product is told %s", other.body)
	}
	g.store.fail.Store(&push.Error{Kind: push.KindUnavailable, Code: "storage_failed"})
	g.publish(`{"to":{"tags":{"all":["vip"]}},"message":{"body":1},"validate_only":true}`).want(t, 503, "storage_failed")
}

func TestAudience_EstimateOfManyLooksAtSome(t *testing.T) {
	g := newGateway(t)
	const all = 1600
	for i := range all {
		u := push.UserID(fmt.Sprint("user", i))
		g.open(u, "phone")
		tags := []push.Tag{"many"}
		if i%4 == 0 {
			tags = append(tags, "some", "few")
		} else if i%4 == 1 {
			tags = append(tags, "some")
		}
		g.setTags(u, "", tags...)
	}
	for _, c := range []struct {
		tags string
		want int
	}{{`{"all":["many"]}`, all}, {`{"all":["many"],"not":["few"]}`, all * 3 / 4}, {`{"any":["many","some"]}`, all}, {`{"any":["some","few"]}`, all / 2}} {
		var users, devices int
		var exact bool
		if _, err := fmt.Sscanf(g.estimate(`{"tags":`+c.tags+`}`), "{%d %d %t}", &users, &devices, &exact); err != nil {
			t.Fatal(err)
		}
		// Which users are looked at is left to the store. A quarter off would be eight times the deviation that is to be expected.
		if exact || users < c.want*3/4 || users > c.want*5/4 || devices != users {
			t.Errorf("%s: got %d users, %d devices, exact %v; there are %d", c.tags, users, devices, exact, c.want)
		}
	}
}
