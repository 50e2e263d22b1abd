package redis

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"carillon/server/push"
	"carillon/server/register"
)

// vips returns of each room whether it "has" the tag vip, has it "not", or may have "any".
func vips(t *testing.T, r *Register) map[push.RoomID]string {
	t.Helper()
	rooms, err := r.RoomsByTags(t.Context(), "shop", []push.Tag{"vip"})
	if err != nil {
		t.Fatal(err)
	}
	held := map[push.RoomID]string{}
	for _, room := range rooms {
		switch {
		case room.Any:
			held[room.Room] = "any"
		case room.Has[0]:
			held[room.Room] = "has"
		default:
			held[room.Room] = "not"
		}
	}
	return held
}

// wantVips compares what vips returns with a list by room.
func wantVips(t *testing.T, r *Register, want string) {
	t.Helper()
	var got []string
	for room, held := range vips(t, r) {
		got = append(got, fmt.Sprint(room, " ", held))
	}
	slices.Sort(got)
	if got := strings.Join(got, ", "); got != want {
		t.Fatalf("who holds the tag vip: got %q, want %q", got, want)
	}
}

func asError(err error) *push.Error {
	e := &push.Error{}
	errors.As(err, &e)
	return e
}

func tell(t *testing.T, r *Register, room push.RoomID, boot push.BootID, news register.TagNews) {
	t.Helper()
	if err := r.TellTags(t.Context(), room, boot, news); err != nil {
		t.Fatal(err)
	}
}

// TestTags_CostInCalls counts the calls of functions: reads that are asked for at once go over two connections.
func TestTags_CostInCalls(t *testing.T) {
	p := newPair(t, pool.Standalone(t))
	const rooms = 40
	vip := []register.TagOf{{Product: "shop", Tag: "vip"}}
	for i := range rooms {
		id := push.RoomID(fmt.Sprint("room", i))
		join(t, p.north, id, 1)
		tell(t, p.north, id, 1, register.TagNews{All: true, Add: vip[:i%2]})
	}
	var many []register.TagOf
	for i := range tagFields {
		many = append(many, register.TagOf{Product: "shop", Tag: push.Tag(fmt.Sprint("tag", i))})
	}
	vips(t, p.south) // it has seen the rooms
	held := map[push.RoomID]string{}
	for _, c := range []struct {
		what  string
		do    func()
		calls int
	}{
		{"asking which of many rooms hold a tag", func() { held = vips(t, p.south) }, 2},
		{"a room that tells a batch of tags", func() { tell(t, p.north, "room0", 1, register.TagNews{Add: many}) }, 1},
		{"a room that takes a batch back", func() { tell(t, p.north, "room0", 1, register.TagNews{Remove: many}) }, 1},
		{"a room that asks whether its tags are known", func() { tell(t, p.north, "room0", 1, register.TagNews{}) }, 1},
		{"a room that tells all", func() { tell(t, p.north, "room0", 1, register.TagNews{All: true}) }, 2},
	} {
		before := served(t, p.of, "fcall")
		c.do()
		if got := served(t, p.of, "fcall") - before; got > c.calls {
			t.Errorf("%s: %d calls, want at most %d", c.what, got, c.calls)
		}
	}
	if len(held) != rooms+2 || held["room0"] != "not" || held["room1"] != "has" || held["north"] != "any" {
		t.Errorf("got %v", held)
	}
}

// A room that is not in the other node's view, or has begun another life since, is asked like the others.
func TestTags_OfARoomThatJustJoinedAreKnownToAll(t *testing.T) {
	p := newPair(t, pool.Standalone(t))
	tell(t, p.north, "north", 7, register.TagNews{All: true})
	tell(t, p.south, "south", 8, register.TagNews{All: true})
	wantVips(t, p.south, "north not, south not")
	join(t, p.north, "north", 9)
	tell(t, p.north, "north", 9, register.TagNews{All: true})
	join(t, p.north, "west", 1)
	wantVips(t, p.south, "north not, south not, west any")
}

// TestTags_ThatWereWipedAreToldAnew deletes what the store has of them, and puts other things in the place.
func TestTags_ThatWereWipedAreToldAnew(t *testing.T) {
	p := newPair(t, pool.Standalone(t))
	news := register.TagNews{All: true, Add: []register.TagOf{{Product: "shop", Tag: "vip"}}}
	tell(t, p.north, "north", 7, news)
	tell(t, p.south, "south", 8, news)
	each := func(do func(c *client, key string)) {
		eachKey(t, p.of, func(c *client, key string) {
			if kindOf(key) == "t" && strings.Contains(key, "north") {
				do(c, key)
			}
		})
	}
	for what, damage := range map[string]func(c *client, key string){
		"gone":                  func(c *client, key string) { c.Del(t.Context(), key) },
		"without its mark":      func(c *client, key string) { c.HDel(t.Context(), key, "") },
		"of an earlier lineage": func(c *client, key string) { c.HSet(t.Context(), key, "", markOf(markAll, 1)+"0123456789abcdef") },
	} {
		wantVips(t, p.south, "north has, south has")
		each(damage)
		wantVips(t, p.south, "north any, south has")
		for _, news := range []register.TagNews{{}, {Add: news.Add}} { // the room hears of it, and hears it again
			if err := p.north.TellTags(t.Context(), "north", 7, news); asError(err).Code != register.CodeTagsLost {
				t.Errorf("%s: got %v, want %s", what, err, register.CodeTagsLost)
			}
		}
		wantVips(t, p.south, "north any, south has")
		tell(t, p.north, "north", 7, news)
	}
}

// A write that was given up and is carried out when others came after it has no effect.
func TestTags_WriteThatComesLateIsRefused(t *testing.T) {
	p := newPair(t, pool.Standalone(t))
	vip := []register.TagOf{{Product: "shop", Tag: "vip"}}
	tell(t, p.north, "north", 7, register.TagNews{All: true, Add: vip})
	tenure := p.north.tenure("north", 7)
	late := telling{Register: p.north, t: tenure, key: tagsKey(tenure.at), was: tenure.tags.mark, under: tenure.tags.under}
	if err := late.plan(&register.TagNews{Remove: vip}, markAll, markAll); err != nil {
		t.Fatal(err)
	}
	tell(t, p.north, "north", 7, register.TagNews{Add: vip})
	if done, err := late.run(t.Context()); done || err != nil {
		t.Errorf("got %v, %v, want it refused", done, err)
	}
	wantVips(t, p.south, "north has, south any")
}
