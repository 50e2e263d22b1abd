package redis

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/quick"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

func randomPlace(r *rand.Rand) push.Place {
	return push.Place{Epoch: push.SlotEpoch(r.Uint64() >> 1), Lineage: push.Lineage(r.Uint64() >> 1), Pos: push.Position(r.Uint64() >> 11)}
}

func randomPacked(r *rand.Rand) *packed {
	p := &packed{aside: r.IntN(100), keyed: r.IntN(100), changes: r.Uint64() >> r.IntN(64)}
	p.Epoch = push.SlotEpoch(r.Uint64()>>1 | 1)
	p.Origin = push.Position(r.Uint64() >> 12)
	p.Head = p.Origin + push.Position(r.Uint64()>>(11+r.IntN(53)))
	at := func() push.Position { return p.Origin + push.Position(r.Uint64N(uint64(p.Head-p.Origin)+1)) }
	p.Freed, p.base = at(), at()
	if r.IntN(2) == 0 {
		p.Floor = at()
	}
	p.Count, p.Bytes = r.IntN(1<<20), r.IntN(1<<50)
	p.Expiry, p.Used = push.MilliTime(r.Uint64()>>22), push.MilliTime(r.Uint64()>>22)
	for range 1 + r.IntN(5) {
		p.Notes = append(p.Notes, push.Note{Lineage: push.Lineage(r.Uint64() >> 1), Start: at(), At: push.MilliTime(r.Uint64() >> 22)})
	}
	return p
}

func TestPacked_ComesBackAsItWas(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		p := randomPacked(r)
		got, err := decodePacked(string(appendPacked(nil, p)))
		if err != nil || !reflect.DeepEqual(&got, p) {
			t.Fatalf("%+v came back as %+v, %v", p, got, err)
		}
	}
}

// TestPacked_OfAPlainSlotIsShort: Redis keeps a hash packed only while no value has more than 64 bytes.
func TestPacked_OfAPlainSlotIsShort(t *testing.T) {
	now := push.Milli(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	p := &packed{Slot: saver.NewSlot(1<<62, 1<<59, now)}
	for range 200 {
		p.Append(saver.Weight{Size: 2000, Expires: now.Add(7 * day)}, 1<<59, now, push.Limits{})
	}
	p.base = p.Origin
	if n := len(appendPacked(nil, p)); n > 64 {
		t.Errorf("the state of a slot has %d bytes", n)
	}
	rec := &record{places: []push.Place{{Epoch: 1 << 62, Lineage: 1 << 59, Pos: p.Head}}, single: &single{
		message: &push.Message{ID: 1 << 52, Created: now, Expires: now.Add(7 * day), Persistent: true},
		target:  saver.Target{User: "a-user-of-27-bytes-in-utf-8"},
	}}
	if n := len(appendRecord(nil, rec)); n > 64 {
		t.Errorf("the record of a plain message has %d bytes", n)
	}
	k := taken{KeyRecord: saver.KeyRecord{ID: 1 << 52, Created: now, Expires: now.Add(7 * day), Until: now.Add(day), Persistent: true}}
	if n := len(appendTaken(nil, &k)); n > 44 {
		t.Errorf("an idempotency key has %d bytes", n)
	}
}

func TestRecord_ComesBackAsItWas(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 2000 {
		rec := &record{}
		n := 1
		if i%2 == 0 {
			m := &push.Message{ID: 77, Created: push.MilliTime(r.Uint64() >> 22), Persistent: true}
			m.Expires = m.Created + push.MilliTime(r.Int64N(1<<40)) - 1<<20
			rec.single = &single{message: m, target: saver.Target{User: push.UserID([]string{"alice", "", "\x00{bob}:"}[r.IntN(3)])}}
			if r.IntN(2) == 0 {
				m.Expires = m.Created + push.MilliTime(r.Int64N(1<<40))
				m.Ref, m.Kind, m.Headers = "order-7", push.BodyBinary, []push.Header{{Name: "a", Value: "b"}}
			}
			m.Task = r.IntN(2) == 0
			if r.IntN(2) == 0 {
				rec.single.target.Filter = &push.Filter{Classes: []string{"tv"}, Devices: []push.DeviceID{"phone"}}
			}
		} else {
			n = 1 + r.IntN(chunkMost)
		}
		for range n {
			rec.places = append(rec.places, randomPlace(r))
			rec.recalls = append(rec.recalls, randomPlace(r))
		}
		if rec.recalled = push.MilliTime(r.IntN(2)); rec.recalled == 0 {
			rec.recalls = nil
		}
		got, err := decodeRecord(77, string(appendRecord(nil, rec)))
		if err != nil || !reflect.DeepEqual(got, rec) {
			t.Fatalf("%+v came back as %+v, %v", rec, got, err)
		}
	}
}

func TestIntent_ComesBackAsItWas(t *testing.T) {
	m := &push.Message{ID: 9, Body: []byte(`"m"`), Created: 5, Expires: 6, Persistent: true, CollapseKey: "k", Task: true}
	limits := push.Limits{OwnBytes: 1 << 40, CommonBytes: 1 << 50, TTL: day}.WithDefaults()
	for _, in := range []*intent{
		{product: shop, shards: 8, limits: limits, message: m, own: []saver.Target{{User: "alice"}, {User: "bob", Filter: &push.Filter{Classes: []string{"tv"}}}}},
		{product: shop, shards: 1024, limits: limits, message: m, everyone: true, recalled: 7},
		{product: shop, shards: 8, limits: limits, message: saver.WithoutBody(m), bucket: true, everyone: true, filter: &push.Filter{Classes: []string{"tv"}}},
	} {
		got, err := decodeIntent(shop, string(appendIntent(nil, in)))
		if err != nil || !reflect.DeepEqual(got, in) {
			t.Fatalf("%+v came back as %+v, %v", in, got, err)
		}
	}
}

func TestTags_ComeBackAsTheyWere(t *testing.T) {
	for _, u := range []*saver.UserTags{
		{User: []push.Tag{"a", "b"}},
		{Devices: []saver.DeviceTags{{Device: "phone", Set: []push.Tag{"a"}}, {Device: "tv", Joined: []push.Tag{"b"}}}},
		{User: []push.Tag{"a"}, Devices: []saver.DeviceTags{{Device: "", Set: []push.Tag{"a"}, Joined: []push.Tag{"b"}}}},
		{Devices: []saver.DeviceTags{{Device: "phone", Token: []push.Tag{"a", "b"}}}},
		{User: []push.Tag{"a"}, Devices: []saver.DeviceTags{
			{Device: "a", Token: []push.Tag{"t"}}, {Device: "b", Set: []push.Tag{"s"}}, {Device: "c", Joined: []push.Tag{"j"}, Token: []push.Tag{"t"}},
		}},
	} {
		if got, err := decodeTags(string(appendTags(nil, u))); err != nil || !reflect.DeepEqual(got, u) {
			t.Fatalf("%+v came back as %+v, %v", u, got, err)
		}
	}
}

func TestTaken_ComesBackAsItWas(t *testing.T) {
	check := func(digest [digestKept]byte, user uint16, single, persistent, finished bool, id, created uint64, ttl, kept uint32) bool {
		k := taken{single: single, user: user}
		copy(k.Digest[:], digest[:])
		k.ID, k.Created, k.Persistent, k.Finished = push.MsgID(id>>1), push.MilliTime(created>>22), persistent, finished
		if k.Until = k.Created + push.MilliTime(kept); persistent {
			k.Expires = k.Created + push.MilliTime(ttl)
		}
		got, err := decodeTaken(string(appendTaken(nil, &k)))
		return err == nil && got == k
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 2000}); err != nil {
		t.Fatal(err)
	}
}

func TestChange_ComesBackAsItWas(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		c := saver.Change{User: push.UserID([]string{"alice", "\x00", "bob"}[r.IntN(3)]), Place: randomPlace(r)}
		if got, err := decodeChange(string(appendChange(nil, c))); err != nil || got != c {
			t.Fatalf("%+v came back as %+v, %v", c, got, err)
		}
	}
}

// later returns a value as the version after this one writes it: with something right behind its version, of so many bits.
func later(b []byte, shift int) string {
	b[0] += 1 << shift
	return string(append(appendText([]byte{b[0]}, "what is not known yet"), b[1:]...))
}

// laterTags returns a user's tags as the version after this one writes them: behind what version 2 added stands more.
func laterTags(u *saver.UserTags) string {
	var tokens, rest []byte
	of := *u
	of.Devices = nil
	for _, v := range u.Devices {
		tokens = appendText(tokens, string(saver.AppendTokenTags(nil, &v)))
	}
	rest = appendTags(nil, &of)[1:] // behind the version, which is the first where no token has tags
	part := append(appendText(nil, string(tokens)), "what is not known yet"...)
	return string(append(appendText([]byte{tagsVersion + 1}, string(part)), rest...))
}

// TestTags_OfTokensAreNoneForTheVersionBefore: it passes over what stands between the version and what it knows.
func TestTags_OfTokensAreNoneForTheVersionBefore(t *testing.T) {
	b := appendTags(nil, &saver.UserTags{User: []push.Tag{"a"}, Devices: []saver.DeviceTags{
		{Device: "phone", Token: []push.Tag{"t"}}, {Device: "tv", Set: []push.Tag{"s"}, Token: []push.Tag{"t"}},
	}})
	r := reader{v: string(b)}
	r.version(tagsVersion - 1)
	before := appendTags(nil, &saver.UserTags{User: []push.Tag{"a"}, Devices: []saver.DeviceTags{{Device: "tv", Set: []push.Tag{"s"}}}})
	if got, want := r.v, string(before[1:]); r.bad || got != want {
		t.Fatalf("%q is left to read, want %q", got, want)
	}
	for _, bad := range []string{"\x02\x00\x00", "\x02\x01\x00\x00", "\x02\x03\x00ab\x00"} {
		if got, err := decodeTags(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, got)
		}
	}
}

func TestValues_WhatTheNextVersionAddedIsPassedOver(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	check := func(want, got any, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v came back as %+v, %v", want, got, err)
		}
	}
	p := randomPacked(r)
	gotP, err := decodePacked(later(appendPacked(nil, p), 0))
	check(*p, gotP, err)
	rec := &record{places: []push.Place{randomPlace(r)}, single: &single{
		message: &push.Message{ID: 77, Created: 5, Expires: 6, Persistent: true, Ref: "r"}, target: saver.Target{User: "alice"},
	}}
	gotR, err := decodeRecord(77, later(appendRecord(nil, rec), 0))
	check(rec, gotR, err)
	in := &intent{product: shop, shards: 8, limits: push.Limits{}.WithDefaults(), message: &push.Message{ID: 9, Persistent: true}, everyone: true}
	gotI, err := decodeIntent(shop, later(appendIntent(nil, in), 0))
	check(in, gotI, err)
	for _, token := range [][]push.Tag{nil, {"t"}} {
		u := &saver.UserTags{User: []push.Tag{"a"}}
		if token != nil {
			u.Devices = []saver.DeviceTags{{Device: "phone", Token: token}}
		}
		gotT, err := decodeTags(laterTags(u))
		check(u, gotT, err)
	}
	k := taken{KeyRecord: saver.KeyRecord{ID: 7, Created: 5, Until: 9}}
	gotK, err := decodeTaken(later(appendTaken(nil, &k), 4))
	check(k, gotK, err)
	for _, v := range []byte{0, 3, 0xff} {
		b := appendPacked(nil, p)
		b[0] = v
		if _, err := decodePacked(string(b)); err == nil {
			t.Errorf("version %d was read", v)
		}
	}
}

// FuzzDecode: no bytes make a decoder panic, or return something that is written otherwise than it was read.
func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 8))
	f.Add(string(appendPacked(nil, randomPacked(r))))
	f.Add(string(appendRecord(nil, &record{places: []push.Place{randomPlace(r)}})))
	f.Add(string(appendTaken(nil, &taken{})))
	f.Add(string(appendTags(nil, &saver.UserTags{User: []push.Tag{"a"}})))
	f.Add(string(appendIntent(nil, &intent{message: &push.Message{ID: 1}, own: []saver.Target{{User: "alice"}}})))
	f.Add(string(appendIndex(nil, 7, saver.Weight{Pos: 1, Size: 2, Expires: 3})))
	f.Fuzz(func(t *testing.T, v string) {
		// Whatever reaches new code is made smaller by leaving out each of its parts in turn, whose number grows with the square of its length: of
		// long inputs nothing else was done for a minute. All that there is to decode has room in this.
		if len(v) > 256 {
			return
		}
		if p, err := decodePacked(v); err == nil {
			if again, err := decodePacked(string(appendPacked(nil, &p))); err != nil || !reflect.DeepEqual(again, p) {
				t.Errorf("%+v is written and read as %+v, %v", p, again, err)
			}
		}
		if rec, err := decodeRecord(1, v); err == nil {
			if again, err := decodeRecord(1, string(appendRecord(nil, rec))); err != nil || !reflect.DeepEqual(again, rec) {
				t.Errorf("%+v is written and read as %+v, %v", rec, again, err)
			}
		}
		_, _ = decodeIntent(shop, v)
		_, _ = decodeTags(v)
		_, _ = decodeTaken(v)
		_, _ = decodeChange(v)
		_, _, _ = decodeIndex(v)
	})
}

func TestKeys_OfDifferentThingsAreDifferent(t *testing.T) {
	seen := make(map[string]string)
	note := func(what, key string) {
		if was, ok := seen[key]; ok && was != what {
			t.Errorf("%s and %s are both %q", was, what, key)
		}
		seen[key] = what
	}
	for _, p := range []push.ProductID{"a", "a-b", "a_b"} {
		for _, k := range []saver.IdempotencyKey{"k", "b/k", "b", "", "{a}:b"} {
			_, key := keyKey(p, k)
			note("key "+string(p)+"|"+string(k), key)
		}
		for id := push.MsgID(1); id < 1<<40; id *= 3 {
			_, b := bodyKey(p, id)
			_, w, name := intentKey(p, id)
			note("body "+name, b)
			note("intent "+name, w)
			if gotP, got, ok := cutIDName(name); gotP != p || got != id || !ok {
				t.Errorf("%q is taken apart into %s and %d", name, gotP, got)
			}
			note("record "+name, recordKey(tagOf(saver.ShardRef{Product: p}), id)+recordField(id, 0))
			note("chunk of "+name, recordKey(tagOf(saver.ShardRef{Product: p}), id)+recordField(id, 1))
		}
		ref := saver.ShardRef{Product: p, Shard: 7}
		if got, ok := shardOf(tagOf(ref)); got != ref || !ok {
			t.Errorf("%+v is taken apart into %+v", ref, got)
		}
		for _, k := range []slotKeys{{tagOf(ref), push.Own, ""}, {tagOf(ref), push.Common, ""}, {tagOf(ref), push.Own, "u:"}} {
			for i, key := range []string{k.state(), k.entries(), k.aside(), k.collapse()} {
				note(string(p)+k.kind.String()+string(k.user)+string(rune('0'+i)), key)
			}
		}
	}
}
