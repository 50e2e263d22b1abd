package room

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/saver"
	"carillon/server/wire"
)

// hearsay is a register that notes what rooms tell of their tags, and does what a test asks for meanwhile.
type hearsay struct {
	register.Register
	mu     sync.Mutex
	told   []register.TagNews
	onTell func() error // nil: nothing
}

func (h *hearsay) TellTags(ctx context.Context, room push.RoomID, boot push.BootID, news register.TagNews) error {
	h.mu.Lock()
	h.told = append(h.told, news)
	f := h.onTell
	h.mu.Unlock()
	if f != nil {
		if err := f(); err != nil {
			return err
		}
	}
	return h.Register.TellTags(ctx, room, boot, news)
}

func (h *hearsay) set(f func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onTell = f
}

// take returns what was told since the last call.
func (h *hearsay) take() []register.TagNews {
	h.mu.Lock()
	defer h.mu.Unlock()
	told := h.told
	h.told = nil
	return told
}

// inHearsay runs f in a world of one room that has told the register that nobody has a tag.
func inHearsay(t *testing.T, tune func(*Config), f func(w *world, h *hearsay)) {
	t.Helper()
	var h *hearsay
	inWorld(t, oneRoom, func(w *world, c *Config) {
		h = &hearsay{Register: c.Register}
		c.Register, c.Tokens = h, taggedTokens{}
		if tune != nil {
			tune(c)
		}
	}, func(w *world) {
		time.Sleep(2 * w.rooms["r1"].cfg.SweepEvery)
		synctest.Wait()
		if told := h.take(); len(told) != 1 || !told[0].All || len(told[0].Add) != 0 {
			t.Fatalf("a room that nobody is in told %+v", told)
		}
		f(w, h)
		h.set(nil)
	})
}

// among asks which of these tags the room may hold; "any" if that is any.
func (w *world) among(tags ...push.Tag) (held []push.Tag) {
	w.t.Helper()
	rooms, err := w.reg.RoomsByTags(w.ctx, product, tags)
	if err != nil || len(rooms) != 1 {
		w.t.Fatalf("RoomsByTags: %v, %v", rooms, err)
	}
	if rooms[0].Any {
		return []push.Tag{"any"}
	}
	for i, t := range tags {
		if rooms[0].Has[i] {
			held = append(held, t)
		}
	}
	return held
}

// retagLater changes the tags of a device of alice's and has the room look at them, beside the test.
func (w *world) retagLater(d push.DeviceID, tags ...push.Tag) {
	w.t.Helper()
	c := saver.TagChange{UserRef: aliceRef(), Device: d, Replace: true, Add: tags}
	if r := w.saver.ChangeTags(w.ctx, []saver.TagChange{c}); r[0].Err != nil {
		w.t.Fatal(r[0].Err)
	}
	go func() {
		if err := w.rooms["r1"].Retag(w.ctx, product, []push.UserID{"alice"}); err != nil {
			w.t.Error(err)
		}
	}()
	synctest.Wait() // it looks, and waits for whatever the test has in its way
}

func TestHeld_TagIsToldBeforeASessionHasIt(t *testing.T) {
	inHearsay(t, nil, func(w *world, h *hearsay) {
		w.give("", "user")
		var d *device
		waits := func(what string, tag push.Tag, begin func(), has func() bool) {
			t.Helper()
			free := make(chan struct{})
			h.set(func() error { <-free; return nil })
			begin()
			synctest.Wait()
			if told := h.take(); len(told) != 1 || !slices.ContainsFunc(told[0].Add, func(k register.TagOf) bool { return k.Tag == tag }) {
				t.Errorf("%s: the register was told %+v", what, told)
			}
			if has() {
				t.Errorf("%s: it has the tag before that is told", what)
			}
			close(free)
			h.set(nil)
			synctest.Wait()
			if !has() {
				t.Errorf("%s: it does not have the tag", what)
			}
			if got := w.among(tag); !slices.Equal(got, []push.Tag{tag}) {
				t.Errorf("%s: the room may hold %v, want %s", what, got, tag)
			}
		}
		has := func(tag push.Tag) func() bool {
			return func() bool {
				ss := w.rooms["r1"].Sessions(product, "alice")
				return len(ss) == 1 && slices.Contains(ss[0].Tags, tag)
			}
		}
		welcomed := func() bool { return len(framesOf[*wire.Welcome](d)) == 1 }
		waits("a connect", "token", func() {
			d = w.dial("r1")
			d.send(&wire.Connect{Version: wire.Version, Token: "alice/phone/android#token#*"})
		}, welcomed)
		if got := w.among("user"); len(got) != 1 {
			t.Error("the tags that are kept for a device are not told with those of its token")
		}
		waits("a change", "given", func() { w.retagLater("phone", "given") }, has("given"))
		waits("a client that joins", "joined", func() { d.send(&wire.Tags{Join: []push.Tag{"joined"}}) }, has("joined"))
		waits("a new token", "new", func() { d.send(&wire.Refresh{Token: "alice/phone/android#new#*"}) }, has("new"))
	})
}

func TestHeld_WhoHasNoTagsCostsNothingAndWhoHasThoseOfOthersALook(t *testing.T) {
	inHearsay(t, nil, func(w *world, h *hearsay) {
		for i := range 20 {
			w.connect("r1", fmt.Sprintf("user%d/phone/android", i), "")
		}
		if told := h.take(); len(told) != 0 {
			t.Errorf("for sessions without tags the register was told %+v", told)
		}
		held := w.rooms["r1"].held
		if n := testing.AllocsPerRun(100, func() {
			release, err := held.hold(w.ctx, product, nil, nil)
			if err != nil {
				t.Error(err)
			}
			release()
		}); n != 0 {
			t.Errorf("who has no tags costs %v allocations", n)
		}
		for i := range 20 {
			w.connect("r1", fmt.Sprintf("user%d/laptop/web#vip", i), "")
		}
		if told := h.take(); len(told) != 1 {
			t.Errorf("one tag was told in %d calls", len(told))
		}
	})
}

func TestHeld_WhatManyWaitForIsToldTogetherAndTakenBackTogether(t *testing.T) {
	const many = 50
	inHearsay(t, nil, func(w *world, h *hearsay) {
		free := make(chan struct{})
		h.set(func() error { <-free; return nil })
		var all []*device
		var tags []push.Tag
		for i := range many {
			tags = append(tags, push.Tag(fmt.Sprint("tag", i)))
			d := w.dial("r1")
			d.send(&wire.Connect{Version: wire.Version, Token: fmt.Sprintf("user%d/phone/android#tag%d,vip", i, i)})
			all = append(all, d)
			synctest.Wait()
		}
		close(free)
		h.set(nil)
		synctest.Wait()
		if told := h.take(); len(told) != 2 || len(told[1].Add) != many-1 {
			t.Errorf("the tags of %d sessions were told in %d calls: %v", many, len(told), told)
		}
		if got := w.among(tags...); len(got) != many {
			t.Errorf("the room may hold %v", got)
		}
		for _, d := range all[1:] {
			d.leave()
		}
		back := w.connect("r1", "user1/phone/android#tag1", "") // before they are taken back
		if told := h.take(); len(told) != 0 {
			t.Errorf("while sessions leave, the register was told %v", told)
		}
		time.Sleep(keepTagsEvery + 3*time.Second)
		synctest.Wait()
		if told := h.take(); len(told) != 1 || len(told[0].Remove) != many-2 {
			t.Errorf("the tags of %d sessions were taken back by %v", many-2, told)
		}
		if got := w.among(tags...); !slices.Equal(got, tags[:2]) {
			t.Errorf("the room may hold %v, want %v", got, tags[:2])
		}
		back.leave()
	})
}

func TestHeld_TagThatIsTakenBackWhileSomebodyComesWithItStays(t *testing.T) {
	inHearsay(t, nil, func(w *world, h *hearsay) {
		w.connect("r1", "alice/phone/android#vip", "").leave()
		free, begun := make(chan struct{}), make(chan struct{})
		var once sync.Once
		h.set(func() error { once.Do(func() { close(begun) }); <-free; return nil })
		h.take()
		<-begun // it is being taken back
		d := w.dial("r1")
		d.send(&wire.Connect{Version: wire.Version, Token: "alice/phone/android#vip"})
		synctest.Wait()
		if len(framesOf[*wire.Welcome](d)) != 0 {
			t.Error("a session is welcomed whose tag is being taken back")
		}
		close(free)
		synctest.Wait()
		if got := w.among("vip"); len(got) != 1 || len(framesOf[*wire.Welcome](d)) != 1 {
			t.Errorf("the room may hold %v", got)
		}
	})
}

func TestHeld_WithMoreTagsThanAreToldTheRoomMayHoldAny(t *testing.T) {
	const most = 10
	inHearsay(t, func(c *Config) { c.HeldTags = most }, func(w *world, h *hearsay) {
		var all []*device
		for i := range 2 * most {
			all = append(all, w.connect("r1", fmt.Sprintf("user%d/phone/android#tag%d", i, i), ""))
			want := push.Tag("tag0")
			if i >= most {
				want = "any"
			}
			if got := w.among("tag0"); !slices.Equal(got, []push.Tag{want}) {
				t.Fatalf("with %d tags the room may hold %v, want %s", i+1, got, want)
			}
		}
		if told := h.take(); len(told) != most+1 {
			t.Errorf("%d tags were told in %d calls, want none more once it may hold any", 2*most, len(told))
		}
		for _, d := range all[most/2:] {
			d.leave()
		}
		time.Sleep(keepTagsEvery + 3*time.Second)
		synctest.Wait()
		if got := w.among("tag0", "tag15"); !slices.Equal(got, []push.Tag{"tag0"}) {
			t.Errorf("with %d tags again the room may hold %v", most/2, got)
		}
	})
}

func TestHeld_IsToldAnewAfterALostLeaseAndWhereItWasLost(t *testing.T) {
	inHearsay(t, nil, func(w *world, h *hearsay) {
		w.connect("r1", "alice/phone/android#vip", "")
		want := func(what string, want push.Tag) {
			t.Helper()
			if got := w.among("vip", "other"); !slices.Equal(got, []push.Tag{want}) {
				t.Errorf("%s: the room may hold %v, want %s", what, got, want)
			}
		}
		want("connected", "vip")
		if err := w.reg.Leave(w.ctx, "r1", 1); err != nil { // as the register sees it
			t.Fatal(err)
		}
		time.Sleep(register.RenewEvery)
		synctest.Wait()
		want("joined again", "any")
		time.Sleep(w.rooms["r1"].cfg.SweepEvery)
		synctest.Wait()
		want("swept", "vip")

		lost := push.Errorf(push.KindConflict, register.CodeTagsLost, "")
		var once sync.Once
		h.set(func() (err error) { once.Do(func() { err = lost }); return err })
		h.take()
		w.connect("r1", "bob/phone/android#next", "")
		if told := h.take(); len(told) != 2 || !told[1].All || len(told[1].Add) != 2 {
			t.Errorf("after the register lost them it was told %+v", told)
		}
		want("lost", "vip")
	})
}

// A room without its lease counts for nobody, and what it is told has to be obeyed before it gets it back.
func TestHeld_TagsChangeWithoutALease(t *testing.T) {
	inHearsay(t, nil, func(w *world, _ *hearsay) {
		w.connect("r1", "alice/phone/android", "")
		if err := w.reg.Leave(w.ctx, "r1", 1); err != nil {
			t.Fatal(err)
		}
		w.give("phone", "vip") // or it ends the test
		w.wantTags("phone", "vip")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := w.among("vip"); !slices.Equal(got, []push.Tag{"vip"}) {
			t.Errorf("with its lease again the room may hold %v", got)
		}
	})
}

func TestHeld_WhereTheRegisterFailsNobodyHasATagThatItDoesNotKnow(t *testing.T) {
	inHearsay(t, nil, func(w *world, h *hearsay) {
		d := w.connect("r1", "alice/phone/android#vip#*", "")
		h.set(func() error { return &push.Error{Kind: push.KindUnavailable, Code: "register_unavailable"} })
		refused := w.connect("r1", "bob/phone/android#trial", "")
		if refused.closedWith() != wire.CloseOverloaded {
			t.Errorf("a connect was answered by %v", refused.closedWith())
		}
		d.send(&wire.Tags{Join: []push.Tag{"new"}})
		d.send(&wire.Refresh{Token: "alice/phone/android#other#*"})
		synctest.Wait()
		w.wantTags("phone", "vip")
		if got := tagsOf(d); !slices.Equal(got, []string{"try_again", "try_again"}) {
			t.Errorf("the client was answered %v", got)
		}
		h.set(nil)
		time.Sleep(2 * w.rooms["r1"].cfg.SweepEvery) // what the client joined is stored, and it need not ask again
		w.wantTags("phone", "new vip")
		if got := w.among("vip", "new", "trial", "other"); !slices.Equal(got, []push.Tag{"vip", "new"}) {
			t.Errorf("the room may hold %v", got)
		}
	})
}

// TestHeld_WhatSessionsHaveIsKnownWhateverHappens changes tags of many sessions at random, while the register fails now and then, and looks
// after each step whether it knows what they have.
func TestHeld_WhatSessionsHaveIsKnownWhateverHappens(t *testing.T) {
	inHearsay(t, func(c *Config) { c.HeldTags = 12 }, func(w *world, h *hearsay) {
		r := rand.New(rand.NewPCG(3, 5))
		h.set(func() error {
			h.mu.Lock()
			defer h.mu.Unlock()
			switch n := r.IntN(10); n {
			case 0:
				return &push.Error{Kind: push.KindUnavailable, Code: "register_unavailable"}
			case 1:
				return push.Errorf(push.KindConflict, register.CodeTagsLost, "")
			}
			return nil
		})
		draw := func(n int) int {
			h.mu.Lock()
			defer h.mu.Unlock()
			return r.IntN(n)
		}
		some := func() (tags []push.Tag) {
			for range draw(4) {
				tags = append(tags, push.Tag(fmt.Sprint("t", draw(16))))
			}
			return tags
		}
		users := []push.UserID{"alice", "bob", "cathy"}
		devices := map[push.UserID]*device{}
		for range 600 {
			u := users[draw(len(users))]
			token := string(u) + "/phone/android#"
			for i, tag := range some() {
				if i > 0 {
					token += ","
				}
				token += string(tag)
			}
			d := devices[u]
			switch k := draw(6); {
			case d == nil || d.closedWith() != 0:
				devices[u] = w.connect("r1", token, "")
			case k == 0:
				d.leave()
			case k < 3:
				d.send(&wire.Refresh{Token: token})
			case k == 3:
				time.Sleep(keepTagsEvery)
			case k == 4 && draw(4) == 0:
				if err := w.reg.Leave(w.ctx, "r1", 1); err != nil {
					t.Fatal(err)
				}
			default:
				c := saver.TagChange{UserRef: saver.UserRef{Product: product, Shards: shards, User: u}, Replace: true, Add: some()}
				if res := w.saver.ChangeTags(w.ctx, []saver.TagChange{c}); res[0].Err != nil {
					t.Fatal(res[0].Err)
				}
				_ = w.rooms["r1"].Retag(w.ctx, product, []push.UserID{u}) // may fail with the register
			}
			time.Sleep(time.Duration(draw(1500)) * time.Millisecond)
			synctest.Wait()
			rooms, err := w.reg.RoomsByTags(w.ctx, product, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(rooms) == 0 {
				continue // it has no lease
			}
			for _, u := range users {
				for _, s := range w.rooms["r1"].Sessions(product, u) {
					for _, tag := range s.Tags {
						if len(w.among(tag)) != 1 {
							t.Fatalf("%s has the tag %s, and the register does not know it", u, tag)
						}
					}
				}
			}
		}
	})
}

func TestHeld_WhoGivesUpWaitingHoldsNothing(t *testing.T) {
	inHearsay(t, nil, func(w *world, h *hearsay) {
		w.connect("r1", "alice/phone/android", "")
		free := make(chan struct{})
		h.set(func() error { <-free; return nil })
		w.retagLater("phone", "a")
		w.dial("r1").send(&wire.Connect{Version: wire.Version, Token: "bob/phone/android#b"})
		time.Sleep(openTimeout + time.Second)
		close(free)
		h.set(nil)
		w.connect("r1", "cathy/phone/android#c", "")
		if got := w.among("a", "b", "c"); !slices.Equal(got, []push.Tag{"a", "c"}) {
			t.Errorf("the room may hold %v", got)
		}
	})
}

// TestHeld_StaleKnowledgeCostsAReadAndNoMessage stores a message for a tag and asks the register, as who publishes does; the tag comes to the
// room before what was made of the answer does.
func TestHeld_StaleKnowledgeCostsAReadAndNoMessage(t *testing.T) {
	for _, c := range []struct {
		with  string
		comes func(w *world, d *device) *device
	}{
		{"a change", func(w *world, d *device) *device { w.give("phone", "vip"); return d }},
		{"a connect", func(w *world, d *device) *device {
			return w.connect("r1", "alice/phone/android#vip", d.theCursor())
		}},
		{"a connect that is not over", func(w *world, d *device) *device {
			again := w.dial("r1")
			again.send(&wire.Connect{Version: wire.Version, Token: "alice/phone/android#vip", Cursor: d.theCursor()})
			return again
		}},
	} {
		t.Run(c.with, func(t *testing.T) {
			inHearsay(t, nil, func(w *world, _ *hearsay) {
				alice := w.connect("r1", "alice/phone/android", "")
				bob := w.connect("r1", "bob/phone/android", "")
				reads := w.saver.readCount()
				id, notify := w.store(post{filter: having("vip"), body: `1`, bare: true})
				if held := w.among("vip"); len(held) != 0 {
					t.Fatalf("the room may hold %v", held)
				}
				alice = c.comes(w, alice)
				notify()
				synctest.Wait()
				alice.want(id)
				bob.want()
				if n := w.saver.readCount() - reads; n != 1 {
					t.Errorf("%d slots were read, want one", n)
				}
			})
		})
	}
}
