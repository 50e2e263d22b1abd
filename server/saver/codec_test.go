package saver

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"carillon/server/nextversion"
	"carillon/server/push"
)

// codec is one kind of value, for tests that hold of all of them.
type codec struct {
	name   string
	random func(*rand.Rand) any
	encode func(any) []byte
	decode func([]byte) (any, error)
}

func codecs() []codec {
	return []codec{
		{"message", func(r *rand.Rand) any { return randomMessage(r, true) },
			func(v any) []byte { return AppendMessage(nil, v.(*push.Message)) },
			func(b []byte) (any, error) { return DecodeMessage(b) }},
		{"entry", func(r *rand.Rand) any { return randomEntry(r) },
			func(v any) []byte { e := v.(Stored); return AppendEntry(nil, &e) },
			func(b []byte) (any, error) { return DecodeEntry(b) }},
		{"filter", func(r *rand.Rand) any { return randomFilter(r) },
			func(v any) []byte { return AppendFilter(nil, v.(*push.Filter)) },
			func(b []byte) (any, error) { return DecodeFilter(b) }},
		{"slot", func(r *rand.Rand) any { return randomSlot(r) },
			func(v any) []byte { s := v.(Slot); return AppendSlot(nil, &s) },
			func(b []byte) (any, error) { return DecodeSlot(b) }},
		{"device", func(r *rand.Rand) any { return randomDevice(r) },
			func(v any) []byte { d := v.(Device); return AppendDevice(nil, &d) },
			func(b []byte) (any, error) { return DecodeDevice(b) }},
		{"idempotency record", func(r *rand.Rand) any { return randomKey(r) },
			func(v any) []byte { k := v.(KeyRecord); return AppendKey(nil, &k) },
			func(b []byte) (any, error) { return DecodeKey(b) }},
		{"message record", func(r *rand.Rand) any { return randomRecord(r) },
			func(v any) []byte { s := v.(StoredRecord); return AppendRecord(nil, &s) },
			func(b []byte) (any, error) { return DecodeRecord(b) }},
		{"fence", func(r *rand.Rand) any {
			return StoredFence{Token: number(r), Until: push.MilliTime(number(r)), Body: r.IntN(2) == 0}
		},
			func(v any) []byte { f := v.(StoredFence); return AppendFence(nil, &f) },
			func(b []byte) (any, error) { return DecodeFence(b) }},
		{"batch", func(r *rand.Rand) any { return randomBatch(r) },
			func(v any) []byte { s := v.(StoredBatch); return AppendBatch(nil, &s) },
			func(b []byte) (any, error) { return DecodeBatch(b) }},
		{"tags", func(r *rand.Rand) any { return append(randomTags(r), "~") },
			func(v any) []byte { return AppendTags(nil, v.([]push.Tag)) },
			func(b []byte) (any, error) { return DecodeTags(b) }},
		{"tags of a token", func(r *rand.Rand) any {
			return DeviceTags{Device: push.DeviceID(text(r, 9)), Token: append(randomTags(r), "~")}
		},
			func(v any) []byte { d := v.(DeviceTags); return AppendTokenTags(nil, &d) },
			func(b []byte) (any, error) {
				d, tags, err := DecodeTokenTags(b)
				return DeviceTags{Device: d, Token: tags}, err
			}},
		{"tags of a device", func(r *rand.Rand) any { return randomDeviceTags(r) },
			func(v any) []byte { d := v.(DeviceTags); return AppendDeviceTags(nil, &d) },
			func(b []byte) (any, error) { return DecodeDeviceTags(b) }},
	}
}

// number draws numbers of every length.
func number(r *rand.Rand) uint64 { return r.Uint64() >> r.IntN(64) }

func text(r *rand.Rand, most int) string {
	b := make([]byte, r.IntN(most+1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func randomMessage(r *rand.Rand, body bool) *push.Message {
	m := &push.Message{
		ID: push.MsgID(number(r)), Kind: push.BodyKind(r.IntN(2)), Created: push.MilliTime(number(r)),
		Expires: push.MilliTime(number(r)), Persistent: r.IntN(2) == 0, Task: r.IntN(2) == 0, Ref: text(r, 3), CollapseKey: text(r, 3),
	}
	for range r.IntN(4) {
		m.Headers = append(m.Headers, push.Header{Name: text(r, 5), Value: text(r, 5)})
	}
	if b := text(r, 300); body && b != "" {
		m.Body = []byte(b)
	}
	return m
}

func randomFilter(r *rand.Rand) *push.Filter {
	f := &push.Filter{}
	for range r.IntN(4) {
		f.Devices = append(f.Devices, push.DeviceID(text(r, 5)))
	}
	for range r.IntN(3) {
		f.Classes = append(f.Classes, text(r, 5))
	}
	if r.IntN(2) == 0 {
		f.Platforms = push.PlatformSet(r.Uint32())
	}
	if r.IntN(2) == 0 {
		f.Tags = randomExpr(r, 3)
	}
	if f.IsZero() {
		return nil
	}
	return f
}

func randomExpr(r *rand.Rand, levels int) *push.TagExpr {
	e := &push.TagExpr{}
	for e.Check() != nil {
		*e = push.TagExpr{}
		for _, list := range [...]*[]push.TagTerm{&e.All, &e.Any, &e.Not} {
			for range r.IntN(3) {
				if levels > 1 && r.IntN(4) == 0 {
					*list = append(*list, push.TagTerm{Expr: randomExpr(r, levels-1)})
					continue
				}
				*list = append(*list, push.TagTerm{Tag: push.Tag(rune('a' + r.IntN(4)))})
			}
		}
	}
	return e.Canonical()
}

func randomEntry(r *rand.Rand) Stored {
	e := Stored{
		ID: push.MsgID(number(r)), Expires: push.MilliTime(number(r)),
		Size: int(number(r) % (maxSize + 1)), Filter: randomFilter(r),
	}
	switch r.IntN(3) {
	case 0:
		e.Kind = EntryRecall
	case 1:
		e.CollapseKey = text(r, 3)
	default:
		e.Message = randomMessage(r, true)
		e.CollapseKey = e.Message.CollapseKey
	}
	return e
}

func randomSlot(r *rand.Rand) Slot {
	s := Slot{
		SlotState: push.SlotState{
			Epoch: push.SlotEpoch(number(r)), Head: push.Position(number(r)),
			Origin: push.Position(number(r)), Floor: push.Position(number(r)),
		},
		Freed: push.Position(number(r)), Count: int(number(r) % (maxSize + 1)), Bytes: int(number(r) % (maxSlotBytes + 1)),
		Expiry: push.MilliTime(number(r)), Used: push.MilliTime(number(r)),
	}
	for range 1 + r.IntN(4) {
		s.Notes = append(s.Notes, push.Note{
			Lineage: push.Lineage(number(r)), Start: push.Position(number(r)), At: push.MilliTime(number(r)),
		})
	}
	return s
}

func randomPlace(r *rand.Rand) push.Place {
	return push.Place{Epoch: push.SlotEpoch(number(r)), Lineage: push.Lineage(number(r)), Pos: push.Position(number(r))}
}

func randomDevice(r *rand.Rand) Device {
	return Device{
		DeviceFacts: push.DeviceFacts{Device: push.DeviceID(text(r, 9)), Platform: push.Platform(r.Uint32()), Class: text(r, 9)},
		Since:       push.MilliTime(number(r)), Seen: push.MilliTime(number(r)),
		Online:  time.Duration(number(r)>>1/uint64(time.Millisecond)) * time.Millisecond,
		Cursors: push.Cursor{randomPlace(r), randomPlace(r)}, Start: push.Cursor{randomPlace(r), randomPlace(r)},
	}
}

func randomKey(r *rand.Rand) KeyRecord {
	k := KeyRecord{
		ID: push.MsgID(number(r)), Created: push.MilliTime(number(r)), Expires: push.MilliTime(number(r)),
		Until: push.MilliTime(number(r)), Persistent: r.IntN(2) == 0, Finished: r.IntN(2) == 0,
	}
	copy(k.Digest[:], text(r, 64))
	return k
}

func randomPlaces(r *rand.Rand, n int) (ps []push.Place) {
	for range n {
		ps = append(ps, randomPlace(r))
	}
	return ps
}

func randomRecord(r *rand.Rand) StoredRecord {
	s := StoredRecord{Record: Record{
		Message: randomMessage(r, false), Recalled: push.MilliTime(number(r)), Everyone: r.IntN(2) == 0,
	}}
	if s.Everyone {
		s.Filter, s.Common = randomFilter(r), randomPlaces(r, r.IntN(5))
	} else {
		for range r.IntN(5) {
			s.Own = append(s.Own, RecordPlace{Target{push.UserID(text(r, 9)), randomFilter(r)}, randomPlace(r)})
		}
	}
	s.Recalls = randomPlaces(r, r.IntN(5))
	return s
}

func randomBatch(r *rand.Rand) StoredBatch {
	s := StoredBatch{Everyone: r.IntN(4) == 0}
	n := 1
	if !s.Everyone {
		n += r.IntN(5)
		for range n {
			s.Users = append(s.Users, push.UserID(text(r, 9)))
		}
	}
	ofOne := func() (ps []push.Place) {
		l := push.Lineage(number(r))
		for range n {
			ps = append(ps, push.Place{Epoch: push.SlotEpoch(number(r)), Lineage: l, Pos: push.Position(number(r))})
		}
		return ps
	}
	s.Places = ofOne()
	if r.IntN(2) == 0 {
		s.Recalled, s.Recalls = push.MilliTime(number(r)|1), ofOne()
	}
	return s
}

// randomTags draws letters, so that "~" may follow.
func randomTags(r *rand.Rand) []push.Tag {
	var tags []push.Tag
	for range r.IntN(5) {
		tags = append(tags, push.Tag(strings.Repeat(string(rune('a'+r.IntN(26))), 1+r.IntN(200))))
	}
	return push.UniteTags(tags)
}

func randomDeviceTags(r *rand.Rand) DeviceTags {
	v := DeviceTags{Device: push.DeviceID(text(r, 9)), Set: randomTags(r), Joined: randomTags(r)}
	if len(v.Set)+len(v.Joined) == 0 {
		v.Joined = []push.Tag{"a"}
	}
	return v
}

func TestCodec_RoundTripOfAnyValue(t *testing.T) {
	for _, c := range codecs() {
		r := rand.New(rand.NewPCG(1, 2))
		for range 3000 {
			want := c.random(r)
			b := c.encode(want)
			got, err := c.decode(b)
			if err != nil {
				t.Fatalf("%s: %+v: %v", c.name, want, err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s: got %+v, want %+v", c.name, got, want)
			}
		}
	}
}

func TestCodec_EveryCutIsRefused(t *testing.T) {
	for _, c := range codecs() {
		r := rand.New(rand.NewPCG(3, 4))
		for range 40 {
			b := c.encode(c.random(r))
			for n := range b {
				if _, err := c.decode(b[:n]); err == nil {
					t.Fatalf("%s: %d of %d bytes were decoded", c.name, n, len(b))
				}
			}
			if _, err := c.decode(append(b, 0)); err == nil {
				t.Fatalf("%s: a byte too many was decoded", c.name)
			}
		}
	}
}

func TestCodec_UnknownVersionIsRefused(t *testing.T) {
	for _, c := range codecs() {
		b := c.encode(c.random(rand.New(rand.NewPCG(5, 6))))
		for v := range 256 {
			if b[0] = byte(v); v == codecVersion+1 || 0 < v && v < codecVersion {
				continue // see below, and TestCodec_Golden
			}
			if _, err := c.decode(b); (err == nil) != (v == codecVersion) {
				t.Fatalf("%s: version %d: %v", c.name, v, err)
			}
		}
	}
}

// later returns a value as the version after this one writes it: with something right behind its version, in which is all that was added since the
// first one.
func later(b []byte) []byte {
	return append(appendString([]byte{codecVersion + 1}, "what is not known yet"), b[1+len(nextversion.Part):]...)
}

func TestCodec_WhatTheNextVersionAddedIsPassedOver(t *testing.T) {
	for _, c := range codecs() {
		r := rand.New(rand.NewPCG(13, 14))
		for range 100 {
			want := c.random(r)
			b := later(c.encode(want))
			if got, err := c.decode(b); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%s: got %+v, %v, want %+v", c.name, got, err, want)
			}
			for n := range b {
				if _, err := c.decode(b[:n]); err == nil {
					t.Fatalf("%s: %d of %d bytes were decoded", c.name, n, len(b))
				}
			}
		}
	}
}

// A value holds others, so one of this version may have a part of the next one.
func TestCodec_WhatTheNextVersionAddedToAPartIsPassedOver(t *testing.T) {
	m := &push.Message{ID: 300, Body: []byte("{}")}
	whole, part := AppendEntry(nil, &Stored{ID: 300, Size: 66, Message: m}), AppendMessage(nil, m)
	got, err := DecodeEntry(append(bytes.TrimSuffix(whole, part), later(part)...))
	if err != nil || !reflect.DeepEqual(got.Message, m) {
		t.Errorf("got %+v, %v, want %+v", got.Message, err, m)
	}
}

func TestCodec_ErrorsQuoteNothing(t *testing.T) {
	const secret = "do-not-tell"
	f := &push.Filter{Devices: []push.DeviceID{secret}, Classes: []string{secret}}
	m := &push.Message{
		ID: 1, Ref: secret, CollapseKey: secret, Body: []byte(secret), Headers: []push.Header{{Name: secret, Value: secret}},
	}
	values := map[string]any{
		"message": m, "filter": f, "entry": Stored{ID: 1, Filter: f, Message: m, CollapseKey: secret},
		"device":           Device{DeviceFacts: push.DeviceFacts{Device: secret, Class: secret}},
		"message record":   StoredRecord{Record: Record{Message: m, Own: []RecordPlace{{Target: Target{User: secret, Filter: f}}}}},
		"tags":             []push.Tag{secret},
		"tags of a device": DeviceTags{Device: secret, Set: []push.Tag{secret}},
	}
	for _, c := range codecs() {
		v, ok := values[c.name]
		if !ok {
			continue
		}
		b := c.encode(v)
		refused := 0
		for i := range b {
			for _, x := range []byte{0, 0x7f, 0xff} {
				bad := bytes.Clone(b)
				bad[i] = x
				_, err := c.decode(bad)
				if err == nil {
					continue
				}
				refused++
				if strings.Contains(err.Error(), "tell") || push.KindOf(err) != push.KindInternal {
					t.Fatalf("%s: error %q of kind %d", c.name, err, push.KindOf(err))
				}
			}
		}
		if refused == 0 {
			t.Fatalf("%s: nothing was refused", c.name)
		}
	}
}

// TestCodec_Golden holds the format still: what was written by an earlier version has to be read by every later one, which the build of
// the next one shows.
func TestCodec_Golden(t *testing.T) {
	m := &push.Message{
		ID: 300, Ref: "r", Body: []byte("{}"), CollapseKey: "k", Created: 1, Expires: 2, Persistent: true,
		Headers: []push.Header{{Name: "a", Value: "b"}},
	}
	f := &push.Filter{Devices: []push.DeviceID{"d"}, Platforms: 2, Classes: []string{"c"}}
	inner := &push.TagExpr{All: []push.TagTerm{{Tag: "c"}}, Not: []push.TagTerm{{Tag: "d"}}}
	tagged := &push.Filter{Classes: []string{"k"}, Tags: &push.TagExpr{
		All: []push.TagTerm{{Tag: "a"}}, Any: []push.TagTerm{{Tag: "b"}, {Expr: inner}},
	}}
	p := push.Place{Epoch: 1, Lineage: 2, Pos: 3}
	bare := &push.Message{ID: 300}
	state := push.SlotState{Epoch: 1, Head: 2, Origin: 3, Floor: 4, Notes: []push.Note{{Lineage: 10, Start: 11, At: 12}}}
	users := Record{Message: bare, Recalled: 9, Own: []RecordPlace{{Target{"u", nil}, p}}}
	all := Record{Message: bare, Everyone: true, Filter: f, Common: []push.Place{p}}
	key := KeyRecord{Digest: Digest{0xab}, ID: 300, Created: 1, Expires: 2, Until: 3, Persistent: true, Finished: true}
	golden := []struct {
		name string
		v    any
		want string
	}{
		{"message", m, "011dac0201020172016b0101610162027b7d"},
		{"message", &push.Message{ID: 300, Body: []byte("{}"), Created: 1, Expires: 2, Persistent: true, Task: true}, "0121ac020102027b7d"},
		{"filter", f, "010702010164010163"},
		{"filter", (*push.Filter)(nil), "0100"},
		{"filter", tagged, "010c01016b" + "010161" + "020162" + "00" + "010163" + "00" + "010164" + "00"},
		{"entry", Stored{ID: 300, Expires: 2, Size: 70, Filter: f, Message: m, CollapseKey: "k"},
			"010003ac0202460702010164010163011dac0201020172016b0101610162027b7d"},
		{"entry", Stored{ID: 300, Expires: 2, Size: 70, CollapseKey: "k"}, "010004ac020246016b"},
		{"entry", Stored{Kind: EntryRecall, ID: 300, Expires: 2, Size: 64}, "010100ac020240"},
		{"slot", Slot{SlotState: state, Freed: 5, Count: 6, Bytes: 7, Expiry: 8, Used: 9}, "01010203040506070809010a0b0c"},
		{"device", Device{DeviceFacts: push.DeviceFacts{Device: "d", Platform: 1, Class: "c"}, Since: 4, Seen: 5,
			Online: 6 * time.Millisecond, Cursors: push.Cursor{p, {}}, Start: push.Cursor{{}, p}},
			"010164010163040506010203000000000000010203"},
		{"idempotency record", key,
			"01ab" + strings.Repeat("00", 31) + "ac020102030101"},
		{"message record", StoredRecord{Record: users, Recalls: []push.Place{p}}, "01070100ac0200000009000101750001020301010203"},
		{"message record", StoredRecord{Record: all},
			"01070100ac02000000000107020101640101630101020300"},
		{"fence", StoredFence{Token: 3, Until: 300}, "010003ac02"},
		{"fence", StoredFence{Token: 3, Until: 300, Body: true}, "010103ac02"},
		{"batch", StoredBatch{Users: []push.UserID{"a", "bc"}, Places: []push.Place{{Epoch: 1, Lineage: 2, Pos: 300}, {Epoch: 3, Lineage: 2, Pos: 4}}},
			"0100" + "02" + "0161" + "026263" + "0000000000000002" + "0000000000000001" + "ac02" + "0000000000000003" + "04"},
		{"batch", StoredBatch{Everyone: true, Places: []push.Place{p}, Recalled: 9, Recalls: []push.Place{p}},
			"0103" + "0000000000000002" + "0000000000000001" + "03" + "09" + "0000000000000002" + "0000000000000001" + "03"},
		{"tags", []push.Tag{"a", "bc"}, "010201610262" + "63"},
		{"tags of a device", DeviceTags{Device: "d", Set: []push.Tag{"a"}, Joined: []push.Tag{"a", "b"}}, "010164010161020161" + "0162"},
		{"tags of a device", DeviceTags{Device: "d", Joined: []push.Tag{"a"}}, "01016400010161"},
	}
	for _, g := range golden {
		for _, c := range codecs() {
			if c.name != g.name {
				continue
			}
			if got := hex.EncodeToString(c.encode(g.v)); got != g.want && !nextversion.Enabled {
				t.Errorf("%s: got %s, want %s", g.name, got, g.want)
			}
			b, err := hex.DecodeString(g.want)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.decode(b); err != nil || !reflect.DeepEqual(got, g.v) {
				t.Errorf("%s: %s is read as %+v, %v, want %+v", g.name, g.want, got, err, g.v)
			}
		}
	}
}

// TestDecodeFilter_RefusesWhatALaterVersionMayWrite: an entry whose filter says more than this version understands must reach
// nobody, rather than everybody whom the rest of it admits.
func TestDecodeFilter_RefusesWhatALaterVersionMayWrite(t *testing.T) {
	known := AppendFilter(nil, &push.Filter{Classes: []string{"c"}})
	for flag := 4; flag < 8; flag++ {
		b := append(bytes.Clone(known), 1, 1, 'x')
		b[1] |= 1 << flag
		if f, err := DecodeFilter(b); err == nil {
			t.Errorf("flag %d: got %+v", flag, f)
		}
		e := append([]byte{codecVersion, byte(EntryMessage), entryFilter, 1, 1, 1}, b[1:]...)
		if _, err := DecodeEntry(e); err == nil {
			t.Errorf("flag %d: the entry is read", flag)
		}
	}
}

func TestDecodeFilter_RefusesExpressionsThatNobodyWrites(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("00000100", n) + "0101610000" }
	for _, c := range []struct{ name, expr string }{
		{"nothing", "000000"},
		{"nothing below", "0100" + "000000" + "0000"},
		{"tags that do not ascend", "0201620161" + "0000"},
		{"a tag twice", "0201610161" + "0000"},
		{"any of one", "00" + "010161" + "00"},
		{"a control character", "01010a" + "0000"},
		{"too many terms", "11" + strings.Repeat("0161", 17) + "0000"},
		{"too many levels", deep(push.MaxTagLevels)},
	} {
		b, err := hex.DecodeString("0108" + c.expr)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := DecodeFilter(b); err == nil {
			t.Errorf("%s: got %+v", c.name, f.Tags)
		}
	}
	b, _ := hex.DecodeString("0108" + deep(push.MaxTagLevels-1))
	if _, err := DecodeFilter(b); err != nil {
		t.Errorf("as many levels as there may be: %v", err)
	}
}

func TestPeekEntry_ReadsTheHeadOnly(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 500 {
		e := randomEntry(r)
		got, err := PeekEntry(AppendEntry(nil, &e))
		want := Stored{Kind: e.Kind, ID: e.ID, Expires: e.Expires, Size: e.Size}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
	}
	var pe *push.Error
	if _, err := PeekEntry([]byte{1, 2}); !errors.As(err, &pe) {
		t.Fatalf("error %v", err)
	}
}

func TestDecode_SharesNothing(t *testing.T) {
	for _, c := range codecs() {
		r := rand.New(rand.NewPCG(9, 9))
		want := c.random(r)
		b := c.encode(want)
		got, err := c.decode(b)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b {
			b[i] = 0xee
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: changing the bytes changed the value", c.name)
		}
	}
}

// fuzz holds a decoder against any bytes: it refuses them, or they are what encoding the value gives, unless a part of them is of the next
// version: then encoding leaves that out and changes nothing else.
func fuzz(f *testing.F, name string) {
	for _, c := range codecs() {
		if c.name != name {
			continue
		}
		r := rand.New(rand.NewPCG(11, 12))
		for range 20 {
			f.Add(c.encode(c.random(r)))
		}
		f.Add(later(c.encode(c.random(r))))
		f.Add([]byte{})
		f.Add([]byte{codecVersion})
		f.Add(bytes.Repeat([]byte{0xff}, 40))
		f.Add(append([]byte{codecVersion}, bytes.Repeat([]byte{0x80}, 20)...))
		f.Fuzz(func(t *testing.T, b []byte) {
			v, err := c.decode(b)
			if err != nil {
				return
			}
			again := c.encode(v)
			if bytes.Equal(again, b) {
				return
			}
			another := nextversion.Enabled || bytes.Contains(b, []byte{codecVersion + 1}) // versions may be told by what they write
			if same, err := c.decode(again); !another || err != nil || !reflect.DeepEqual(same, v) {
				t.Fatalf("%x decodes to what encodes to %x", b, again)
			}
		})
	}
}

func FuzzDecodeMessage(f *testing.F) { fuzz(f, "message") }
func FuzzDecodeEntry(f *testing.F)   { fuzz(f, "entry") }
func FuzzDecodeFilter(f *testing.F)  { fuzz(f, "filter") }
func FuzzDecodeSlot(f *testing.F)    { fuzz(f, "slot") }
func FuzzDecodeDevice(f *testing.F)  { fuzz(f, "device") }
func FuzzDecodeKey(f *testing.F)     { fuzz(f, "idempotency record") }
func FuzzDecodeRecord(f *testing.F)  { fuzz(f, "message record") }
func FuzzDecodeFence(f *testing.F)   { fuzz(f, "fence") }
func FuzzDecodeBatch(f *testing.F)   { fuzz(f, "batch") }
func FuzzDecodeTags(f *testing.F)    { fuzz(f, "tags") }

func FuzzDecodeTokenTags(f *testing.F)  { fuzz(f, "tags of a token") }
func FuzzDecodeDeviceTags(f *testing.F) { fuzz(f, "tags of a device") }
