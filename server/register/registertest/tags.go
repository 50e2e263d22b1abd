package registertest

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/register"
)

func tagsOf(p push.ProductID, tags ...push.Tag) (all []register.TagOf) {
	for _, t := range tags {
		all = append(all, register.TagOf{Product: p, Tag: t})
	}
	return all
}

func (h *harness) tell(room push.RoomID, boot push.BootID, news register.TagNews) {
	h.t.Helper()
	if err := h.Register.TellTags(h.ctx, room, boot, news); err != nil {
		h.t.Fatalf("TellTags(%s, %d): %v", room, boot, err)
	}
}

// wantTags asks for the tags a, b and c. Of each room it is told those that it may hold, "any" if that is any.
func (h *harness) wantTags(p push.ProductID, want map[push.RoomID]string) {
	h.t.Helper()
	asked := []push.Tag{"a", "b", "c"}
	rooms, err := h.Register.RoomsByTags(h.ctx, p, asked)
	if err != nil {
		h.t.Fatalf("RoomsByTags: %v", err)
	}
	got := map[push.RoomID]string{}
	for i, r := range rooms {
		if i > 0 && rooms[i-1].Room >= r.Room {
			h.t.Errorf("rooms are not told by id: %v", rooms)
		}
		held := ""
		if r.Any {
			held = "any"
		}
		for i, has := range r.Has {
			if has {
				held += string(asked[i])
			}
		}
		got[r.Room] = held
	}
	if !reflect.DeepEqual(got, want) {
		h.t.Fatalf("tags of %s: got %v, want %v", p, got, want)
	}
}

func tagsTold(t *testing.T, h *harness) {
	h.wantTags(shop, map[push.RoomID]string{})
	h.join(north, 7)
	h.join(south, 8)
	h.wantTags(shop, map[push.RoomID]string{north: "any", south: "any"}) // neither has told
	h.tell(north, 7, register.TagNews{All: true})
	h.tell(south, 8, register.TagNews{All: true, Add: append(tagsOf(shop, "a", "b"), tagsOf(game, "c")...)})
	h.wantTags(shop, map[push.RoomID]string{north: "", south: "ab"})
	h.wantTags(game, map[push.RoomID]string{north: "", south: "c"})

	h.tell(north, 7, register.TagNews{Add: tagsOf(shop, "c", "a")})
	h.tell(north, 7, register.TagNews{Add: tagsOf(shop, "c")}) // it is there
	h.tell(south, 8, register.TagNews{Remove: tagsOf(shop, "a", "c"), Add: tagsOf(game, "a")})
	h.wantTags(shop, map[push.RoomID]string{north: "ac", south: "b"})
	h.wantTags(game, map[push.RoomID]string{north: "", south: "ac"})
	h.tell(south, 8, register.TagNews{Remove: tagsOf(shop, "b"), Add: tagsOf(shop, "b")})
	h.tell(south, 8, register.TagNews{})
	h.wantTags(shop, map[push.RoomID]string{north: "ac", south: "b"})

	h.tell(south, 8, register.TagNews{All: true, Add: tagsOf(shop, "c")})
	h.wantTags(shop, map[push.RoomID]string{north: "ac", south: "c"})
	h.tell(south, 8, register.TagNews{All: true, Any: true})
	h.tell(south, 8, register.TagNews{Add: tagsOf(shop, "a")})
	h.wantTags(shop, map[push.RoomID]string{north: "ac", south: "any"})
	h.tell(south, 8, register.TagNews{All: true})
	h.wantTags(shop, map[push.RoomID]string{north: "ac", south: ""})
}

// Names are kept apart however they run together.
func tagsApart(t *testing.T, h *harness) {
	h.join(north, 7)
	h.tell(north, 7, register.TagNews{All: true, Add: []register.TagOf{{Product: "ab", Tag: "c"}, {Product: "{x}", Tag: "a:{b}"}}})
	for _, c := range []struct {
		p    push.ProductID
		tag  push.Tag
		want bool
	}{{"ab", "c", true}, {"a", "bc", false}, {"{x}", "a:{b}", true}, {"{x}", "a", false}, {"", "", false}} {
		rooms, err := h.Register.RoomsByTags(h.ctx, c.p, []push.Tag{c.tag})
		if err != nil || len(rooms) != 1 || rooms[0].Has[0] != c.want {
			t.Errorf("%q of %q: got %v, %v, want %v", c.tag, c.p, rooms, err, c.want)
		}
	}
}

func tagsMany(t *testing.T, h *harness) {
	h.join(north, 7)
	const many = 10_500
	var asked []push.Tag
	for i := range many {
		asked = append(asked, push.Tag(fmt.Sprint("tag-", i)))
	}
	h.tell(north, 7, register.TagNews{All: true, Add: tagsOf(shop, asked[:many-1]...)})
	h.tell(north, 7, register.TagNews{Remove: tagsOf(shop, asked[:many/2]...)})
	rooms, err := h.Register.RoomsByTags(h.ctx, shop, asked)
	if err != nil || len(rooms) != 1 || len(rooms[0].Has) != many {
		t.Fatalf("RoomsByTags: got %d rooms, %v", len(rooms), err)
	}
	for i, has := range rooms[0].Has {
		if want := i >= many/2 && i < many-1; has != want {
			t.Fatalf("%s: got %v, want %v", asked[i], has, want)
		}
	}
}

func tagsGoWithTheLease(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	all := register.TagNews{All: true, Add: tagsOf(shop, "a")}
	h.tell(north, 7, all)
	h.tell(south, 8, all)

	h.join(north, 9) // another boot
	h.wantTags(shop, map[push.RoomID]string{north: "any", south: "a"})
	wantError(t, "TellTags of the old boot", h.Register.TellTags(h.ctx, north, 7, all), push.KindConflict, "lease_lost")
	add := register.TagNews{Add: tagsOf(shop, "b")}
	for _, news := range []register.TagNews{add, {}} {
		wantError(t, "TellTags before all were", h.Register.TellTags(h.ctx, north, 9, news), push.KindConflict, register.CodeTagsLost)
	}
	h.wantTags(shop, map[push.RoomID]string{north: "any", south: "a"})
	h.tell(north, 9, register.TagNews{All: true, Add: tagsOf(shop, "c")})
	h.wantTags(shop, map[push.RoomID]string{north: "c", south: "a"})

	h.Elapse(register.LeaseTTL - time.Second)
	h.join(north, 9) // it holds its lease
	h.renew(south, 8)
	h.wantTags(shop, map[push.RoomID]string{north: "c", south: "a"})
	if err := h.Register.Leave(h.ctx, south, 8); err != nil {
		t.Fatal(err)
	}
	h.wantTags(shop, map[push.RoomID]string{north: "c"})
	wantError(t, "TellTags after Leave", h.Register.TellTags(h.ctx, south, 8, all), push.KindConflict, "lease_lost")

	h.Elapse(register.LeaseTTL + time.Millisecond)
	h.wantTags(shop, map[push.RoomID]string{})
	wantError(t, "TellTags after the lease", h.Register.TellTags(h.ctx, north, 9, all), push.KindConflict, "lease_lost")
	h.join(north, 9)
	h.wantTags(shop, map[push.RoomID]string{north: "any"})
	wantError(t, "TellTags under the new lease", h.Register.TellTags(h.ctx, north, 9, add), push.KindConflict, register.CodeTagsLost)
	h.tell(north, 9, all)
	h.wantTags(shop, map[push.RoomID]string{north: "a"})
}

// Tags that a room confirms now and then stay.
func tagsStay(t *testing.T, h *harness) {
	h.join(north, 7)
	h.tell(north, 7, register.TagNews{All: true, Add: tagsOf(shop, "a")})
	for elapsed := time.Duration(0); elapsed < 2*register.TagsKept; elapsed += register.LeaseTTL - time.Second {
		h.Elapse(register.LeaseTTL - time.Second)
		h.renew(north, 7)
		h.tell(north, 7, register.TagNews{})
	}
	h.wantTags(shop, map[push.RoomID]string{north: "a"})
}

func tagsOverARestart(t *testing.T, h *harness) {
	h.join(north, 7)
	h.tell(north, 7, register.TagNews{All: true, Add: tagsOf(shop, "a")})
	h.Register = h.Restart()
	h.join(north, 8)
	h.wantTags(shop, map[push.RoomID]string{north: "any"})
	add := register.TagNews{Add: tagsOf(shop, "a")}
	wantError(t, "TellTags", h.Register.TellTags(h.ctx, north, 8, add), push.KindConflict, register.CodeTagsLost)
	h.tell(north, 8, register.TagNews{All: true})
	h.tell(north, 8, add)
	h.wantTags(shop, map[push.RoomID]string{north: "a"})
}
