package center

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"carillon/server/push"
	"carillon/server/register"
)

// settle has a user be online in each of three rooms: in one that has told that it holds the tag vip, in one that has told that it holds
// none, and in one that has told nothing.
func (g *gateway) settle() {
	g.t.Helper()
	for i, room := range []register.Room{{ID: "vips", Boot: 7}, {ID: "others", Boot: 8}, {ID: "silent", Boot: 9}} {
		if err := g.reg.Join(g.t.Context(), room); err != nil {
			g.t.Fatal(err)
		}
		u := []push.UserID{"alice", "bob", "cathy"}[i]
		s := register.Session{Key: register.Key{Product: product, User: u, Device: "phone"}, Shard: push.ShardOf(u, 4), Room: room.ID, Boot: room.Boot}
		if _, err := g.reg.Insert(g.t.Context(), s, nil); err != nil {
			g.t.Fatal(err)
		}
	}
	for _, all := range []struct {
		room push.RoomID
		boot push.BootID
		tags []register.TagOf
	}{{"vips", 7, []register.TagOf{{Product: product, Tag: "vip"}}}, {"others", 8, []register.TagOf{{Product: "other", Tag: "vip"}}}} {
		if err := g.reg.TellTags(g.t.Context(), all.room, all.boot, register.TagNews{All: true, Add: all.tags}); err != nil {
			g.t.Fatal(err)
		}
	}
	if err := g.reg.Leave(g.t.Context(), "r1", 1); err != nil { // nobody is there
		g.t.Fatal(err)
	}
}

// told returns what each room was told: "body", or "place".
func (g *gateway) told() string {
	var got []string
	for _, d := range g.rooms.take() {
		what := "place"
		if d.Message != nil {
			what = "body"
		}
		got = append(got, fmt.Sprint(d.room, " ", what))
	}
	slices.Sort(got)
	return strings.Join(got, ", ")
}

func TestHolders_BodyOfATagPushGoesWhereSomebodyMayBeMeant(t *testing.T) {
	g := newGateway(t, noneIsSmall)
	g.settle()
	const everywhere = "others body, silent body, vips body"
	for _, c := range []struct {
		to           string
		stored, live string
		asks         int64
	}{
		{`{"tags":{"all":["vip"]}}`, "others place, silent body, vips body", "silent body, vips body", 1},
		{`{"tags":{"any":["vip","b"],"not":["trial"]}}`, "others place, silent body, vips body", "silent body, vips body", 1},
		{`{"tags":{"all":["vip","b"]}}`, "others place, silent body, vips place", "silent body", 1},
		{`{"tags":{"not":["vip"]}}`, everywhere, everywhere, 0},
		{`{"tags":{"any":["vip",{"not":["b"]}]}}`, everywhere, everywhere, 0},
		{`{"everyone":true}`, everywhere, everywhere, 0},
	} {
		for _, persistent := range []bool{true, false} {
			before, want := g.reg.asked.Load(), c.stored
			if !persistent {
				want = c.live
			}
			status := 201
			if !persistent {
				status = 202
			}
			g.publish(fmt.Sprintf(`{"to":%s,"message":{"body":1,"persistent":%v}}`, c.to, persistent)).want(t, status)
			if got := g.told(); got != want {
				t.Errorf("%s, persistent %v: the rooms were told %q, want %q", c.to, persistent, got, want)
			}
			if n := g.reg.asked.Load() - before; n != c.asks {
				t.Errorf("%s, persistent %v: the register was asked %d times, want %d", c.to, persistent, n, c.asks)
			}
		}
	}
	for what, want := range map[string]float64{"body": 5 + 5 + 3*6, "place": 4, "nothing": 4} {
		if got := g.counter("carillon_center_deliveries_total", what); got != want {
			t.Errorf("%s was told %v times, want %v", what, got, want)
		}
	}
}

func TestHolders_AreAskedForOnceABatch(t *testing.T) {
	g := newGateway(t, noneIsSmall)
	g.settle()
	g.do(ask{path: "/v1/messages/batch", body: `{"messages":[
		{"to":{"tags":{"all":["vip"]}},"message":{"body":1}},
		{"to":{"tags":{"all":["trial"]}},"message":{"body":1}},
		{"to":{"everyone":true},"message":{"body":1}},
		{"to":{"users":["bob"]},"message":{"body":1}}]}`}).want(t, 200)
	want := "others body, others body, others place, others place, silent body, silent body, silent body, vips body, vips body, vips place"
	if got := g.told(); got != want {
		t.Errorf("the rooms were told %q, want %q", got, want)
	}
	if n := g.reg.asked.Load(); n != 1 {
		t.Errorf("the register was asked %d times", n)
	}
}

func TestHolders_OfMoreTagsThanAreAskedForAreAllRooms(t *testing.T) {
	g := newGateway(t, noneIsSmall)
	g.settle()
	var items []string
	for i := range maxAsked/push.MaxTagTerms + 1 {
		var tags []string
		for k := range push.MaxTagTerms {
			tags = append(tags, fmt.Sprintf("\"t%04d\"", i*push.MaxTagTerms+k))
		}
		items = append(items, `{"to":{"tags":{"any":[`+strings.Join(tags, ",")+`]}},"message":{"body":1}}`)
	}
	g.do(ask{path: "/v1/messages/batch", body: `{"messages":[` + strings.Join(items, ",") + `]}`}).want(t, 200)
	told := g.told()
	if places := strings.Count(told, "others place"); places != len(items)-1 || strings.Count(told, "others body") != 1 {
		t.Errorf("of %d messages a room without their tags was told %q", len(items), told)
	}
}

func TestHolders_WhereTheRegisterFailsAllAreToldAll(t *testing.T) {
	g := newGateway(t, noneIsSmall)
	g.settle()
	g.reg.fail.Store(true)
	g.publish(`{"to":{"tags":{"all":["vip"]}},"message":{"body":1}}`).want(t, 201)
	if got := g.told(); got != "others body, silent body, vips body" {
		t.Errorf("the rooms were told %q", got)
	}
	g.publish(`{"to":{"tags":{"all":["vip"]}},"message":{"body":1,"persistent":false}}`).want(t, 503, "rooms_unavailable")
	if got := g.told(); got != "" {
		t.Errorf("the rooms were told %q", got)
	}
}

// counter returns the value of a counter with one label.
func (g *gateway) counter(name, label string) float64 {
	g.t.Helper()
	families, err := g.metrics.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	return -1
}
