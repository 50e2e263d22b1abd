package registertest

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"carillon/server/push"
	"carillon/server/register"
)

// atMost returns the limits of a product where an account has so many sessions.
func atMost(n int, reject bool) []push.SessionLimit {
	all := push.PlatformSet(0)
	for _, p := range modelPlatforms {
		all = all.Add(p)
	}
	return []push.SessionLimit{{Platforms: all, Max: n, Reject: reject, Rule: fmt.Sprintf("at most %d", n)}}
}

// onOne returns the limits of a session on a platform where each platform has one.
func onOne(p push.Platform, reject bool) []push.SessionLimit {
	return []push.SessionLimit{{Platforms: push.PlatformSet(0).Add(p), Max: 1, Reject: reject, Rule: "one per platform"}}
}

func on(s register.Session, p push.Platform) register.Session {
	s.Platform = p
	return s
}

func (h *harness) wantReplaced(in register.Inserted, want ...register.Session) {
	h.t.Helper()
	if !slices.Equal(in.Replaced, want) {
		h.t.Fatalf("Replaced:\n got %+v\nwant %+v", in.Replaced, want)
	}
}

func (h *harness) wantOrders(room push.RoomID, boot push.BootID, by register.Session, want ...register.Session) {
	h.t.Helper()
	var orders []register.Order
	for _, s := range want {
		orders = append(orders, register.Order{Key: s.Key, Epoch: s.Epoch, By: by})
	}
	if got := h.renew(room, boot); !slices.Equal(got, orders) {
		h.t.Fatalf("orders of %s:\n got %+v\nwant %+v", room, got, orders)
	}
}

func limitKicks(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	phone := h.insert(on(session(key(shop, "alice", "phone"), north, 7), push.PlatformIOS)).Session
	web := h.insert(on(session(key(shop, "alice", "web"), south, 8), push.PlatformWeb)).Session
	other := h.insert(session(key(shop, "bob", "phone"), north, 7)).Session
	elsewhere := h.insert(session(key(game, "alice", "phone"), north, 7)).Session

	tv := h.insertWithin(on(session(key(shop, "alice", "tv"), north, 7), push.PlatformTV), atMost(2, false))
	h.wantReplaced(tv, phone)
	h.wantSessions(shop, "alice", tv.Session, web)
	h.wantCount(shop, 3)
	h.wantOrders(north, 7, tv.Session, phone)
	if h.remove(phone.Key, phone.Epoch, 7) {
		t.Error("the goodbye of a session that was sent off deleted something")
	}

	// Its own old session goes first, then as many as it takes.
	again := h.insertWithin(on(session(tv.Session.Key, south, 8), push.PlatformTV), atMost(1, false))
	h.wantReplaced(again, tv.Session, web)
	h.wantSessions(shop, "alice", again.Session)
	h.wantOrders(north, 7, again.Session, tv.Session)
	h.wantOrders(south, 8, again.Session, web)
	h.wantCount(shop, 2)
	h.wantSessions(shop, "bob", other)
	h.wantSessions(game, "alice", elsewhere)
}

func limitRejects(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	phone := h.insert(on(session(key(shop, "alice", "phone"), north, 7), push.PlatformIOS)).Session
	second := on(session(key(shop, "alice", "second"), south, 8), push.PlatformIOS)
	_, err := h.Register.Insert(h.ctx, second, onOne(push.PlatformIOS, true))
	wantError(t, "Insert of one too many", err, push.KindConflict, "session_limit")
	h.wantSessions(shop, "alice", phone)
	h.wantCount(shop, 1)
	h.wantOrders(north, 7, register.Session{})
	h.wantOrders(south, 8, register.Session{})

	web := h.insertWithin(on(session(key(shop, "alice", "web"), south, 8), push.PlatformWeb), onOne(push.PlatformWeb, true))
	h.wantReplaced(web)
	bob := h.insertWithin(on(session(key(shop, "bob", "second"), south, 8), push.PlatformIOS), onOne(push.PlatformIOS, true))
	h.wantReplaced(bob)
	back := h.insertWithin(on(session(phone.Key, south, 8), push.PlatformIOS), onOne(push.PlatformIOS, true))
	h.wantReplaced(back, phone)
	h.remove(back.Session.Key, back.Session.Epoch, 8)
	now := h.insertWithin(second, onOne(push.PlatformIOS, true))
	h.wantReplaced(now)
	h.wantSessions(shop, "alice", now.Session, web.Session)
}

// limitIgnoresDead has those hold places that do not count any more.
func limitIgnoresDead(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	h.insert(session(key(shop, "alice", "phone"), north, 7))
	h.join(north, 9) // the room crashed and came back
	in := h.insertWithin(session(key(shop, "alice", "web"), south, 8), atMost(1, true))
	h.wantReplaced(in)
	h.wantOrders(north, 9, register.Session{})
	h.remove(in.Session.Key, in.Session.Epoch, 8)

	tv := h.insert(session(key(shop, "alice", "tv"), north, 9)).Session
	_, err := h.Register.Insert(h.ctx, session(key(shop, "alice", "web"), south, 8), atMost(1, true))
	wantError(t, "Insert while the other counts", err, push.KindConflict, "session_limit")
	h.Elapse(register.LeaseTTL / 2)
	h.renew(south, 8)
	h.Elapse(register.LeaseTTL/2 + 1e6) // the room crashed and did not come back
	web := h.insertWithin(session(key(shop, "alice", "web"), south, 8), atMost(1, true))
	h.wantReplaced(web)
	h.wantSessions(shop, "alice", web.Session)

	// Whose lease ran out comes back by its age: it was first, and whoever came in meanwhile gives way.
	h.join(north, 9)
	anew := h.insertWithin(tv, atMost(1, true))
	h.wantReplaced(anew, web.Session)
	h.wantSessions(shop, "alice", tv)
	h.wantOrders(south, 8, tv, web.Session)
}

func limitKeepsPlacesByAge(t *testing.T, h *harness) {
	h.join(north, 7)
	h.join(south, 8)
	first := h.insert(session(key(shop, "alice", "phone"), north, 7)).Session
	second := h.insert(session(key(shop, "alice", "tablet"), north, 7)).Session
	h.Elapse(register.LeaseTTL / 2)
	h.renew(south, 8)
	h.Elapse(register.LeaseTTL/2 + 1e6)
	web := h.insertWithin(session(key(shop, "alice", "web"), south, 8), atMost(2, false)).Session
	h.join(north, 7)
	// Of three, the oldest has to go, in whatever order they come back.
	h.wantReplaced(h.insertWithin(first, atMost(2, false)))
	h.wantReplaced(h.insertWithin(second, atMost(2, false)), first)
	h.wantOrders(north, 7, second, first)
	_, err := h.Register.Insert(h.ctx, first, atMost(2, false))
	wantError(t, "Insert anew of the oldest", err, push.KindConflict, "replaced")
	h.wantSessions(shop, "alice", second, web)
	h.wantCount(shop, 2)
	h.wantOrders(south, 8, register.Session{})
}

// raceForTheLastPlace lets many devices of one user come in at once where there is one place.
func raceForTheLastPlace(t *testing.T, h *harness) {
	const workers, each = 6, 25
	rooms := []push.RoomID{north, south}
	h.join(north, 7)
	h.join(south, 7)
	for _, reject := range []bool{false, true} {
		user := push.UserID(fmt.Sprint("alice-", reject))
		var mu sync.Mutex
		in := map[push.DeviceID]register.Session{}
		replaced, refused := map[push.DeviceID]int{}, 0
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for i := range each {
					k := key(shop, user, push.DeviceID(fmt.Sprintf("d%d-%d", w, i)))
					got, err := h.Register.Insert(h.ctx, session(k, rooms[w%2], 7), atMost(1, reject))
					mu.Lock()
					switch {
					case err == nil:
						in[k.Device] = got.Session
						for _, s := range got.Replaced {
							replaced[s.Device]++
						}
					case reject && push.KindOf(err) == push.KindConflict:
						refused++
					default:
						t.Errorf("Insert: %v", err)
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		left := h.found(shop, user)
		if len(left) != 1 || foundAs(in[left[0].Device])[0] != left[0] {
			t.Fatalf("reject %v: left are %+v, want one of those that came in", reject, left)
		}
		ordered := map[push.DeviceID]int{}
		for _, r := range rooms {
			for _, o := range h.renew(r, 7) {
				ordered[o.Device]++
			}
		}
		if reject {
			if len(in) != 1 || refused != workers*each-1 || len(replaced)+len(ordered) != 0 {
				t.Errorf("%d came in, %d were refused, %d replaced and %d ordered out; want one and the rest refused",
					len(in), refused, len(replaced), len(ordered))
			}
			continue
		}
		for d, s := range in {
			want := 1
			if d == left[0].Device {
				want = 0
			}
			if s.Epoch > left[0].Epoch || replaced[d] != want || ordered[d] != want {
				t.Errorf("%s, epoch %d: replaced %d times, ordered out %d times, want %d; the one of epoch %d is left",
					d, s.Epoch, replaced[d], ordered[d], want, left[0].Epoch)
			}
		}
	}
	h.wantCount(shop, 2)
}
