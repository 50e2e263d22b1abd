package room

import (
	"fmt"
	"testing"
	"testing/synctest"

	"carillon/server/push"
	"carillon/server/wire"
)

// having returns the filter for devices that have all these tags; one with '-' in front must not be there.
func having(tags ...string) *push.Filter {
	e := &push.TagExpr{}
	for _, tag := range tags {
		if tag[0] == '-' {
			e.Not = append(e.Not, push.TagTerm{Tag: push.Tag(tag[1:])})
			continue
		}
		e.All = append(e.All, push.TagTerm{Tag: push.Tag(tag)})
	}
	return &push.Filter{Tags: e.Canonical()}
}

func TestAudience_ByTagsReachesWhoHasThemFromWherever(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		w.give("", "user")
		tokens := []string{"alice/phone/android#token", "alice/laptop/web#token,other", "alice/tv/tv", "bob/phone/ios#token"}
		var ds []*device
		for _, token := range tokens {
			ds = append(ds, w.connect("r1", token, ""))
		}
		w.give("tv", "device")
		check := func(live bool) (ids []push.MsgID) {
			for _, f := range []*push.Filter{
				having("token"), having("user"), having("device", "user"), having("token", "user"), having("user", "-token"),
				having("nobody"), having("-nobody"),
			} {
				ids = append(ids, w.publish(post{filter: f, live: live, body: `1`}))
				synctest.Wait()
			}
			return ids
		}
		want := func(ds []*device, id []push.MsgID) {
			ds[0].want(id[0], id[1], id[3], id[6])
			ds[1].want(id[0], id[1], id[3], id[6])
			ds[2].want(id[1], id[2], id[4], id[6])
			ds[3].want(id[0], id[6])
		}
		stored := check(false)
		want(ds, stored)
		for _, d := range ds {
			d.leave()
		}
		for range 2 { // from the store, and from what the room has cached by then
			var back []*device
			for _, token := range tokens {
				back = append(back, w.connect("r1", token, ""))
			}
			want(back, stored)
			for _, d := range back {
				d.leave()
			}
		}
		var live []*device
		for _, token := range tokens {
			d := w.connect("r1", token, "")
			d.ack()
			d.leave()
			live = append(live, w.connect("r1", token, ""))
		}
		want(live, check(true))
	})
}

func TestAudience_IsThatOfTheMomentAtWhichADeviceComesToTheMessage(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		w.give("", "vip")
		had := w.publish(post{filter: having("vip"), body: `"had it"`})
		synctest.Wait()
		w.give("")
		w.publish(post{filter: having("vip"), body: `"has it no more"`})
		mark := w.publish(post{body: `"to all"`})
		synctest.Wait()
		d.want(had, mark)
		d.ack()
		w.give("", "vip")
		synctest.Wait()
		d.want(had, mark) // what its cursor has passed does not come again
		d.leave()

		w.publish(post{filter: having("-vip"), body: `"lost on the way"`})
		later := w.publish(post{filter: having("beta"), body: `"not yet"`})
		w.give("", "vip", "beta")
		back := w.connect("r1", "alice/phone/android", "")
		back.want(later)
		back.ack()
		back.leave()
		w.give("")
		w.connect("r1", "alice/phone/android", "").want()
	})
}

// An entry that came out of turn waits with its filter, and is judged when its turn comes.
func TestAudience_OfWhatCameOutOfTurnIsThatOfItsTurn(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		w.give("", "old")
		d := w.connect("r1", "alice/phone/android", "")
		first, tellFirst := w.store(post{body: `1`})
		_, tellOld := w.store(post{filter: having("old"), body: `2`})
		next, tellNew := w.store(post{filter: having("new"), body: `3`})
		tellOld()
		tellNew()
		synctest.Wait()
		d.want()
		w.give("", "new")
		tellFirst()
		synctest.Wait()
		d.want(first, next)
	})
}

func TestAudience_ARecallReachesWhoHadTheTagsThen(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		w.give("", "vip")
		d, bob := w.connect("r1", "alice/phone/android", ""), w.connect("r1", "bob/tv/tv", "")
		onPhones := having("vip")
		onPhones.Platforms = push.PlatformSet(0).Add(push.PlatformAndroid)
		a := w.publish(post{filter: onPhones, body: `1`})
		b := w.publish(post{filter: onPhones, body: `2`})
		synctest.Wait()
		d.want(a, b)
		w.give("")
		w.recall(a)
		synctest.Wait()
		d.want(a, b, -a)
		d.ack()
		d.leave()
		w.recall(b)
		back := w.connect("r1", "alice/phone/android", "")
		back.want(-b)
		bob.want() // never had it: its platform is another
	})
}

func TestAudience_OfAnotherKindIsNotCollapsed(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		seen := w.connect("r1", "alice/phone/android#a,b", "")
		keyed := func(f *push.Filter) push.MsgID {
			id := w.publish(post{filter: f, collapse: "k", body: `1`})
			synctest.Wait()
			return id
		}
		both := having("a", "b")
		a, ab, all, again := keyed(having("a")), keyed(both), keyed(nil), keyed(having("b", "a"))
		seen.want(a, ab, all, again)
		seen.leave()
		for range 2 { // from the store, and from what the room has cached by then
			d := w.connect("r1", "alice/phone/android#a,b", "")
			d.want(a, all, again)
			d.leave()
		}
	})
}

func TestAudience_NeverCrossesProducts(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		d := w.connect("r1", "alice/phone/android#vip", "")
		for _, live := range []bool{true, false} {
			m := &push.Message{ID: 900, Body: []byte(`1`), Persistent: !live}
			w.rooms["r1"].Deliver(&push.Delivery{Product: "other", Message: m, Everyone: live, Filter: having("vip"),
				Common: []push.CommonPlace{{Shard: push.ShardOf("alice", shards), Place: push.Place{Epoch: 1, Lineage: 1, Pos: 1}}}})
		}
		synctest.Wait()
		d.want()
	})
}

// A device whose tags are looked at while it connects is judged by those that it was opened with, until the look is over.
func TestAudience_OfADeviceThatConnectsWhileItsTagsAreLookedAt(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		w.connect("r1", "alice/phone/android", "").leave()
		w.give("", "vip")
		id := w.publish(post{filter: having("vip"), body: `1`})
		looking, release := make(chan struct{}), make(chan struct{})
		w.saver.set(func(g *gate) {
			g.after = func() { // Open has answered, and the session does not know it yet
				w.saver.set(func(g *gate) { g.after = func() { close(looking); <-release } })
				go w.rooms["r1"].Retag(w.ctx, product, []push.UserID{"alice"})
				<-looking
			}
		})
		d := w.connect("r1", "alice/phone/android", "")
		d.want(id)
		close(release)
		w.wantTags("phone", "vip")
	})
}

func TestAudience_JudgingItCostsNoMemory(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		w.give("", "a", "b")
		w.connect("r1", "alice/phone/android#c", "")
		s := w.rooms["r1"].sessionsOf(nil, product, "alice")[0]
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, f := range []*push.Filter{having("a", "c", "-d"), having("d"), nil} {
			got := false
			if n := testing.AllocsPerRun(100, func() { got = s.admitsLocked(f) }); n != 0 {
				t.Errorf("%d: %v allocations", i, n)
			}
			if got != (i != 1) {
				t.Errorf("%d: got %v", i, got)
			}
		}
	})
}

// Who is not of an audience passes it over, and acknowledges it as everything else that it passed.
func TestAudience_WhoIsNotOfItPassesOver(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		for i := range 1100 {
			w.publish(post{filter: having("vip"), body: fmt.Sprint(i)})
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		d.want()
		passed := 0
		for _, c := range framesOf[*wire.Cursor](d) {
			if c.Reason == wire.CursorPassed {
				passed++
			}
		}
		if passed != 1 {
			t.Errorf("%d cursor frames after 1100 entries passed over, want 1", passed)
		}
	})
}

func TestAudience_OfAnEntryWithoutItsBodyCostsNobodyElseARead(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		vip := w.connect("r1", "alice/phone/android#vip", "")
		same := w.connect("r1", "alice/laptop/web", "")
		other := w.connect("r1", "bob/phone/ios#trial", "")
		reads := w.saver.readCount()
		a := w.publish(post{filter: having("vip"), bare: true, body: `1`})
		synctest.Wait()
		vip.want(a)
		if got := w.saver.readCount() - reads; got != 1 {
			t.Errorf("%d slots were read for the one device that is meant", got)
		}
		w.publish(post{filter: having("nobody"), bare: true, body: `1`})
		c := w.publish(post{body: `1`})
		synctest.Wait()
		vip.want(a, c)
		same.want(c)
		other.want(c)
		if got := w.saver.readCount() - reads; got != 1 {
			t.Errorf("%d slots were read in all, want none more for those who pass over", got)
		}
		other.leave()
		w.connect("r1", "bob/phone/ios#vip", other.theCursor()).want() // its place has passed the first one
	})
}

func TestAudience_OfAnEntryWithoutItsBodyOutOfTurnIsReadInItsTurn(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		vip := w.connect("r1", "alice/phone/android#vip", "")
		other := w.connect("r1", "alice/laptop/web", "")
		first, notifyFirst := w.store(post{body: `1`})
		second, notifySecond := w.store(post{filter: having("vip"), bare: true, body: `2`})
		third, notifyThird := w.store(post{body: `3`})
		reads := w.saver.readCount()
		notifyThird()
		notifySecond()
		synctest.Wait()
		vip.want()
		notifyFirst()
		synctest.Wait()
		vip.want(first, second, third)
		other.want(first, third)
		if got := w.saver.readCount() - reads; got != 1 {
			t.Errorf("%d slots were read, want that of the one who is meant", got)
		}
	})
}
