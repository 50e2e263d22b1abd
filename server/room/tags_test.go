package room

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"unsafe"

	"carillon/server/auth"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/wire"
)

// taggedTokens takes what tokens takes, and behind it perhaps "#tag,tag#pattern,pattern".
type taggedTokens struct{ tokens }

func (taggedTokens) Verify(ctx context.Context, token string) (auth.Identity, error) {
	token, more, _ := strings.Cut(token, "#")
	id, err := tokens{}.Verify(ctx, token)
	tags, patterns, _ := strings.Cut(more, "#")
	if tags != "" {
		id.Tags = strings.Split(tags, ",")
	}
	if patterns != "" {
		id.TagPatterns = strings.Split(patterns, ",")
	}
	return id, err
}

func inTaggedWorld(t *testing.T, f func(w *world)) {
	inWorld(t, oneRoom, func(_ *world, c *Config) { c.Tokens = taggedTokens{} }, f)
}

func aliceRef() saver.UserRef { return saver.UserRef{Product: product, Shards: shards, User: "alice"} }

// give sets the tags of alice, or of a device of hers, as the product's server does.
func (w *world) give(d push.DeviceID, tags ...push.Tag) {
	w.t.Helper()
	c := saver.TagChange{UserRef: aliceRef(), Device: d, Replace: true, Add: tags}
	if r := w.saver.ChangeTags(w.ctx, []saver.TagChange{c}); r[0].Err != nil {
		w.t.Fatal(r[0].Err)
	}
	if err := w.rooms["r1"].Retag(w.ctx, product, []push.UserID{"alice", "nobody"}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) wantTags(d push.DeviceID, want string) {
	w.t.Helper()
	synctest.Wait()
	for _, l := range w.rooms["r1"].Sessions(product, "alice") {
		if l.Device == d {
			var got []string
			for _, tag := range l.Tags {
				got = append(got, string(tag))
			}
			if s := strings.Join(got, " "); s != want {
				w.t.Errorf("the session of %s has the tags %q, want %q", d, s, want)
			}
			return
		}
	}
	w.t.Errorf("%s has no session", d)
}

// tagsOf returns what the tags frames and errors that a device got say, in their order, each on its own.
func tagsOf(d *device) (got []string) {
	synctest.Wait()
	for _, f := range framesOf[*wire.Tags](d) {
		var s []string
		for _, tag := range f.Tags {
			s = append(s, string(tag))
		}
		got = append(got, strings.Join(s, " "))
	}
	for _, f := range framesOf[*wire.Error](d) {
		got = append(got, f.Code)
	}
	return got
}

func TestTags_OfASessionAreThoseOfTokenUserAndDevice(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		w.give("", "user")
		d := w.connect("r1", "alice/phone/android#token", "")
		plain := w.connect("r1", "alice/laptop/web", "")
		w.wantTags("phone", "token user")
		w.wantTags("laptop", "user")
		w.give("phone", "device", "token")
		w.wantTags("phone", "device token user")
		w.wantTags("laptop", "user")
		w.give("", "other")
		w.wantTags("phone", "device other token")
		w.wantTags("laptop", "other")
		w.give("")
		w.give("phone")
		w.wantTags("phone", "token")
		w.wantTags("laptop", "")
		if n := len(w.rooms["r1"].tags.of); n != 1 {
			t.Errorf("%d sessions have an entry, want that whose token has a tag", n)
		}
		d.leave()
		synctest.Wait()
		if n := len(w.rooms["r1"].tags.of); n != 0 {
			t.Errorf("%d sessions have an entry after it left", n)
		}
		plain.leave()
	})
}

func TestTags_CostASessionWithoutThemNothing(t *testing.T) {
	if got := unsafe.Sizeof(session{}); got > 352 { // the next larger size that Go allocates is 384
		t.Errorf("a session has %d bytes", got)
	}
	inTaggedWorld(t, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		w.give("")
		d.send(&wire.Tags{})
		if got := tagsOf(d); !slices.Equal(got, []string{""}) {
			t.Errorf("was told of %q", got)
		}
		if n := len(w.rooms["r1"].tags.of); n != 0 {
			t.Errorf("a session without tags has an entry")
		}
	})
}

func TestTags_ClientJoinsWhatItsTokenPermits(t *testing.T) {
	const token = "alice/phone/android#vip#news.*,beta"
	inTaggedWorld(t, func(w *world) {
		d := w.connect("r1", token, "")
		var want []string
		ask := func(f *wire.Tags, answer string) {
			t.Helper()
			d.send(f)
			got := tagsOf(d)
			if len(got) != len(want)+1 || !slices.Contains(got, answer) {
				t.Fatalf("%+v was answered with %q, want %q added to %q", f, got, answer, want)
			}
			want = got
		}
		ask(&wire.Tags{Join: []push.Tag{"news.a", "beta", "news.b"}}, "beta news.a news.b")
		ask(&wire.Tags{Join: []push.Tag{"news.c"}, Leave: []push.Tag{"news.a"}}, "beta news.b news.c")
		w.wantTags("phone", "beta news.b news.c vip")
		for _, f := range []*wire.Tags{
			{Join: []push.Tag{"news.d", "newsroom"}}, {Leave: []push.Tag{"vip"}}, {Join: []push.Tag{"betas"}},
		} {
			ask(f, "tag_not_permitted")
		}
		w.give("phone", numbered(60)...)
		ask(&wire.Tags{Join: []push.Tag{"news.e", "news.f", "news.g"}}, "too_many_tags")
		w.give("phone")
		d.leave()
		d = w.connect("r1", token, "")
		want = nil
		ask(&wire.Tags{}, "beta news.b news.c")
		w.wantTags("phone", "beta news.b news.c vip")
	})
}

func numbered(n int) (tags []push.Tag) {
	for i := range n {
		tags = append(tags, push.Tag(rune('A'+i)))
	}
	return tags
}

func TestTags_ChangeDuringAConnectIsNotLost(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		w.give("", "old")
		w.saver.set(func(g *gate) { g.after = func() { w.give("", "new") } }) // Open has answered with the old ones
		w.connect("r1", "alice/phone/android#token", "")
		w.wantTags("phone", "new token")
		w.saver.set(func(g *gate) { g.after = func() { w.give("") } })
		w.connect("r1", "alice/laptop/web", "")
		w.wantTags("laptop", "")
	})
}

func TestTags_OfOverlappingChangesTheLastOneHolds(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		w.connect("r1", "alice/phone/android", "")
		w.saver.set(func(g *gate) { g.after = func() { w.give("", "second") } }) // the look for the first one is not over
		w.give("", "first")
		w.wantTags("phone", "second")
		w.saver.set(func(g *gate) { g.after = func() { w.give("") } })
		w.give("", "third")
		w.wantTags("phone", "")
	})
}

func TestTags_OfANewTokenTakeThePlaceOfThoseOfTheOld(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		d := w.connect("r1", "alice/phone/android#old#news.*", "")
		d.send(&wire.Tags{Join: []push.Tag{"news.a"}})
		w.wantTags("phone", "news.a old")
		d.send(&wire.Refresh{Token: "alice/phone/android#new"})
		w.wantTags("phone", "new news.a")
		d.send(&wire.Tags{Leave: []push.Tag{"news.a"}})
		if got := tagsOf(d); !slices.Equal(got, []string{"news.a", "tag_not_permitted"}) {
			t.Errorf("got %q", got)
		}
	})
}

func TestTags_OfTokensAreKeptAndWrittenOnlyWhereTheyDiffer(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		changes := 0
		want := func(what string, more int, tags ...push.Tag) {
			t.Helper()
			synctest.Wait()
			kept, err := w.saver.Store.Tags(w.ctx, []saver.UserRef{aliceRef()})
			if err != nil {
				t.Fatal(err)
			}
			if got := kept[0].Of("phone").Token; !slices.Equal(got, tags) {
				t.Errorf("%s: %q are kept, want %q", what, got, tags)
			}
			w.saver.set(func(g *gate) {
				if changes += more; g.changes != changes {
					t.Errorf("%s: %d changes in all, want %d", what, g.changes, changes)
					changes = g.changes
				}
			})
		}
		d := w.connect("r1", "alice/phone/android", "")
		want("a token without tags", 0)
		d.leave()
		d = w.connect("r1", "alice/phone/android#b,a", "")
		want("a token with tags", 1, "a", "b")
		d.leave()
		d = w.connect("r1", "alice/phone/android#a,b", "")
		want("the same once more", 0, "a", "b")
		d.send(&wire.Refresh{Token: "alice/phone/android#a,b"})
		want("a refresh with the same", 0, "a", "b")
		d.send(&wire.Refresh{Token: "alice/phone/android#c"})
		want("a refresh with others", 1, "c")
		w.give("", "user")
		want("a change by the server", 1, "c")
		d.leave()
		d = w.connect("r1", "alice/phone/android#b", "")
		want("another token", 1, "b")
		w.wantTags("phone", "b user")
		d.leave()
		w.connect("r1", "alice/phone/android", "")
		want("one without tags again", 1)
		w.wantTags("phone", "user")
	})
}

// A device whose tags could not be kept would be missing among those that have them: it is told to come back instead.
func TestTags_OfTokensThatCannotBeKeptOpenNoSession(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		d := w.connect("r1", "alice/laptop/web#old", "")
		w.saver.set(func(g *gate) { g.changeErr = &push.Error{Kind: push.KindUnavailable, Code: "storage_failed"} })
		late := w.connect("r1", "alice/phone/android#a", "")
		w.connect("r1", "alice/tv/tv", "")
		d.send(&wire.Refresh{Token: "alice/laptop/web#new"})
		synctest.Wait()
		var got []push.DeviceID
		for _, l := range w.rooms["r1"].Sessions(product, "alice") {
			got = append(got, l.Device)
		}
		if !slices.Equal(got, []push.DeviceID{"tv"}) {
			t.Errorf("%q have sessions, want the one whose token has no tags", got)
		}
		if n := len(framesOf[*wire.Welcome](late)); n != 0 {
			t.Error("it was welcomed")
		}
	})
}

func TestTags_FailedLooksAndChangesLeaveWhatWasThere(t *testing.T) {
	inTaggedWorld(t, func(w *world) {
		d := w.connect("r1", "alice/phone/android#token#*", "")
		w.give("", "user")
		w.saver.set(func(g *gate) { g.tagsErr = &push.Error{Kind: push.KindUnavailable, Code: "storage_failed"} })
		if err := w.rooms["r1"].Retag(w.ctx, product, []push.UserID{"alice"}); push.KindOf(err) != push.KindUnavailable {
			t.Errorf("error %v", err)
		}
		d.send(&wire.Tags{Join: []push.Tag{"a"}})
		if got := tagsOf(d); !slices.Equal(got, []string{"try_again"}) {
			t.Errorf("got %q", got)
		}
		w.wantTags("phone", "token user")
		w.saver.set(func(g *gate) { g.tagsErr = nil })
		d.send(&wire.Tags{Join: []push.Tag{"a"}})
		w.wantTags("phone", "a token user")
		if err := w.rooms["r1"].Retag(w.ctx, "other", []push.UserID{"alice"}); err != nil {
			t.Errorf("of a product that is not there: %v", err)
		}
	})
}

func TestTags_ComeBesideASessionToo(t *testing.T) {
	const token = "alice/phone/android##news.*"
	inTaggedWorld(t, func(w *world) {
		frames := []wire.Frame{&wire.Tags{Join: []push.Tag{"news.a"}}}
		err := w.rooms["r1"].Post(w.ctx, token, frames)
		if e := asError(err); e == nil || e.Kind != push.KindConflict || e.Code != "no_session" {
			t.Errorf("without a session: %v", err)
		}
		d := w.connect("r1", token, "")
		if err := w.rooms["r1"].Post(w.ctx, token, frames); err != nil {
			t.Fatal(err)
		}
		if got := tagsOf(d); !slices.Equal(got, []string{"news.a"}) {
			t.Errorf("got %q", got)
		}
	})
}
