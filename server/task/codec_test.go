package task

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"carillon/server/nextversion"
	"carillon/server/push"
)

var update = flag.Bool("update", false, "write the golden files anew")

// full is a task with something in every field.
func full() Task {
	alice := Actor{Key: "k1", Name: "console", At: 11}
	return Task{
		Product: "shop", ID: 1<<63 - 1, Revision: 3, Created: 10, Changed: 12,
		Spec: Spec{
			Name: "summer <sale> & more", To: json.RawMessage(`{"everyone":true}`), List: 5, Message: json.RawMessage(`{"body":{"a":"<b>&"}}`),
			Template: true, Test: []push.UserID{"alice", "böb"}, Pace: Pace{PerSecond: 0.5, Over: 3600e9}, Start: 13, Deadline: 14, Cron: "0 9 * * *",
			Zone: "Europe/Vienna",
		},
		State: Scheduled, Reason: "why", Approval: true, By: alice, Approved: &Actor{Key: "k2", At: 15}, Parent: 6, Cloned: 7,
		Moves: []Moved{{Resume, Draft, Scheduled, &alice, "because", 16}, {Move: Begin, From: Scheduled, To: Running, At: 17}},
		Run: Run{
			Holder: "center-1", Until: 17, Token: 1<<63 + 1, Settled: true, Shards: 4, Common: true, List: 8, Users: 1 << 60, Created: 18, Expires: 19,
			Started: 20, Ended: 21, Recalled: 22, TestDone: true, TestShown: true, TestNext: 35, Recount: true, Reach: 36, Kept: 37, Resumed: 33, ResumedAt: 34, ResumedPart: 0.5, Next: Progress{1, 0, 1<<32 - 1}, Back: Progress{7}, Written: 23, Devices: 24,
			Online: 25, Skipped: 26, Returned: 27, Due: 28, NextID: 1<<63 - 1,
		},
		Wake: 29,
	}
}

func fullList() List {
	return List{Product: "shop", ID: 1<<63 - 1, Name: "vips", Created: 5, By: Actor{Key: "k", Name: "n", At: 6}, Users: 65, Variables: []string{"name"}, Longest: []int{5, 6},
		Shards: 2, Chunks: Progress{1, 1}, Made: true}
}

// TestSamples_LeaveNothingOut holds the samples to their purpose, so that a field that is added to a type is added to them.
func TestSamples_LeaveNothingOut(t *testing.T) {
	var check func(name string, v reflect.Value)
	check = func(name string, v reflect.Value) {
		if v.IsZero() {
			t.Errorf("%s is not set", name)
		}
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		if v.Kind() == reflect.Struct {
			for i := range v.NumField() {
				if full := name + "." + v.Type().Field(i).Name; full != "Task.Approved.Name" {
					check(full, v.Field(i))
				}
			}
		}
	}
	check("Task", reflect.ValueOf(full()))
	check("List", reflect.ValueOf(fullList()))
}

// records are the kinds of records, each with an encoder, and a decoder whose result an encoder takes.
var records = []struct {
	name   string
	value  func() any
	encode func(v any) ([]byte, error)
	decode func(b []byte) (any, error)
}{
	{"task", func() any { return full() },
		func(v any) ([]byte, error) { one := v.(Task); return Encode(&one) },
		func(b []byte) (any, error) { return Decode(b) }},
	{"empty task", func() any { return Task{} },
		func(v any) ([]byte, error) { one := v.(Task); return Encode(&one) },
		func(b []byte) (any, error) { return Decode(b) }},
	{"list", func() any { return listRecord{fullList(), 7} },
		func(v any) ([]byte, error) { one := v.(listRecord); return EncodeList(&one.List, one.Until) },
		func(b []byte) (any, error) {
			l, until, err := DecodeList(b)
			return listRecord{l, until}, err
		}},
	{"switch", func() any { return Switch{Off: true, Reason: "why", By: Actor{Key: "k", At: 3}} },
		func(v any) ([]byte, error) { return EncodeSwitch(v.(Switch)) },
		func(b []byte) (any, error) { return DecodeSwitch(b) }},
}

// TestRecords_Golden holds the form still: what was written by an earlier version has to be read by every later one.
func TestRecords_Golden(t *testing.T) {
	for _, r := range records {
		file := filepath.Join("testdata", strings.ReplaceAll(r.name, " ", "-")+".golden")
		got, err := r.encode(r.value())
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) && !nextversion.Enabled {
			t.Errorf("%s:\n got %s\nwant %s", r.name, got, want)
		}
		for _, b := range [][]byte{want, got} {
			if v, err := r.decode(b); err != nil || !reflect.DeepEqual(v, r.value()) {
				t.Errorf("%s: %s is read as %+v, %v", r.name, b, v, err)
			}
		}
	}
}

func TestRecords_PassOverWhatALaterVersionAdds(t *testing.T) {
	for _, r := range records {
		b, err := r.encode(r.value())
		if err != nil {
			t.Fatal(err)
		}
		more := append(append([]byte{b[0]}, `{"much_later":{"a":[1,"}"]},`...), b[2:]...)
		if v, err := r.decode(more); err != nil || !reflect.DeepEqual(v, r.value()) {
			t.Errorf("%s: %s is read as %+v, %v", r.name, more, v, err)
		}
	}
}

func TestRecords_RefuseWhatTheyCannotRead(t *testing.T) {
	for _, r := range records {
		b, err := r.encode(r.value())
		if err != nil {
			t.Fatal(err)
		}
		for name, bad := range map[string][]byte{
			"nothing": {}, "a newer version": append([]byte{2}, b[1:]...), "an older version": append([]byte{0}, b[1:]...), "no version": b[1:],
			"a part": b[:len(b)-1], "more": append(slices.Clone(b), '}'),
		} {
			if v, err := r.decode(bad); push.KindOf(err) != push.KindInternal || err == nil {
				t.Errorf("%s, %s: %+v, %v", r.name, name, v, err)
			}
		}
	}
}

func TestRecords_SayNothingOfWhatStandsInThem(t *testing.T) {
	secret := Task{Spec: Spec{Message: json.RawMessage(`{"body":"secret`)}}
	_, err := Encode(&secret)
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("encoding: %v", err)
	}
	_, err = Decode([]byte("\x01{\"name\":\"x\" secret}"))
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("decoding: %v", err)
	}
}

func TestKeyRecord_Golden(t *testing.T) {
	r := KeyRecord{Digest: [32]byte{0xab, 31: 0xcd}, At: 0x0102, Task: []byte("task")}
	want := "01" + "0000000000000102" + "ab" + strings.Repeat("00", 30) + "cd" + hex.EncodeToString([]byte("task"))
	if got := hex.EncodeToString(EncodeKey(r)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, err := DecodeKey(EncodeKey(r)); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("read as %+v, %v", got, err)
	}
	for _, bad := range [][]byte{nil, EncodeKey(r)[:keyHead-1], append([]byte{2}, EncodeKey(r)[1:]...)} {
		if got, err := DecodeKey(bad); push.KindOf(err) != push.KindInternal || err == nil {
			t.Errorf("%x: %+v, %v", bad, got, err)
		}
	}
}

func TestSameTask_LooksPastRevisionAndTime(t *testing.T) {
	encoded := func(change func(*Task)) []byte {
		one := full()
		change(&one)
		b, err := Encode(&one)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, test := range map[string]struct {
		change func(*Task)
		same   bool
	}{
		"nothing":  {func(*Task) {}, true},
		"revision": {func(t *Task) { t.Revision++ }, true},
		"created":  {func(t *Task) { t.Created++ }, true},
		"changed":  {func(t *Task) { t.Changed++ }, false},
		"message":  {func(t *Task) { t.Message = json.RawMessage(`{}`) }, false},
		"run":      {func(t *Task) { t.Run.Written++ }, false},
	} {
		if same, err := SameTask(encoded(func(*Task) {}), encoded(test.change)); err != nil || same != test.same {
			t.Errorf("%s: same %v, %v", name, same, err)
		}
	}
	other := fullList()
	other.Created++
	if !SameList(fullList(), other) {
		t.Error("a list made at another time is another")
	}
	other.Users++
	if SameList(fullList(), other) {
		t.Error("a list of other users is the same")
	}
}

// chunks are entries and how they are stored.
var chunks = []struct {
	entries []Entry
	stored  string
}{
	{[]Entry{}, "0100"},
	{[]Entry{{User: "bob"}}, "0101" + "03626f62" + "00"},
	{[]Entry{{"bob", []string{"", "Bob"}}, {"é", []string{"x"}}}, "0102" + "03626f62" + "02" + "00" + "03426f62" + "02c3a9" + "01" + "0178"},
	{[]Entry{{"bob", []string{strings.Repeat("a", 200)}}}, "0101" + "03626f62" + "01" + "c801" + strings.Repeat("61", 200)},
}

func TestChunk_Golden(t *testing.T) {
	for _, c := range chunks {
		if got := hex.EncodeToString(AppendChunk(nil, c.entries)); got != c.stored && !nextversion.Enabled {
			t.Errorf("%+v: got %s, want %s", c.entries, got, c.stored)
		}
		b, err := hex.DecodeString(c.stored)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []string{string(b), "\x02\x05later" + string(b[1:]), string(AppendChunk(nil, c.entries))} {
			if got, err := DecodeChunk(v); err != nil || !reflect.DeepEqual(got, c.entries) {
				t.Errorf("%x is read as %+v, %v, want %+v", v, got, err, c.entries)
			}
		}
	}
}

func TestDecodeChunk_RefusesWhatNobodyWrote(t *testing.T) {
	good := string(AppendChunk(nil, chunks[2].entries))
	many := make([]Entry, ChunkMost+1)
	wide := []Entry{{User: "u", Values: make([]string, MaxValues+1)}}
	bad := []string{
		good + "x", "\x00" + good[1:], "\x04\x05later" + string(AppendChunk(nil, chunks[2].entries)[1+len(nextversion.Part):]), string(AppendChunk(nil, many)), string(AppendChunk(nil, wide)),
		"\x01\x81\x00\x00\x00",             // a number in two bytes that one is enough for
		"\x01\xff\xff\xff\xff\xff\xff\x01", // a number without an end
		"\x01\x01\x01v\x02\x01a",           // fewer values than it says
		"\x01\x01\x00\x05bob",              // a name that is longer than what there is
	}
	for i := range good {
		bad = append(bad, good[:i])
	}
	for _, v := range bad {
		if got, err := DecodeChunk(v); push.KindOf(err) != push.KindInternal || err == nil {
			t.Errorf("%x is read as %+v, %v", v, got, err)
		}
	}
}

// FuzzDecodeChunk holds the decoder to: what it takes encodes to the same bytes again, and nothing makes it fail.
func FuzzDecodeChunk(f *testing.F) {
	for _, c := range chunks {
		b, err := hex.DecodeString(c.stored)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
		f.Add("\x02\x05later" + string(b[1:]))
	}
	f.Fuzz(func(t *testing.T, v string) {
		entries, err := DecodeChunk(v)
		if err != nil {
			if entries != nil || push.KindOf(err) != push.KindInternal {
				t.Fatalf("%x: %v with %v", v, entries, err)
			}
			return
		}
		if len(entries) > 0 {
			if err := CheckChunk(&Chunk{Entries: entries}); err != nil {
				t.Fatalf("%x: read, and refused: %v", v, err)
			}
		}
		again := string(AppendChunk(nil, entries))
		if again != v && v[0] == chunkVersion && len(nextversion.Part) == 0 {
			t.Fatalf("%x is read as %+v, which is written %x", v, entries, again)
		}
		if got, err := DecodeChunk(again); err != nil || !reflect.DeepEqual(got, entries) {
			t.Fatalf("%x: %+v, then %+v, %v", v, entries, got, err)
		}
	})
}

func TestChunk_OfAMillionUsersIsSmall(t *testing.T) {
	var c Chunk
	for i := range ChunkMost {
		c.Entries = append(c.Entries, Entry{User: push.UserID(fmt.Sprintf("user-%07d", i))})
	}
	if n := len(AppendChunk(nil, c.Entries)); n != 2+len(nextversion.Part)+ChunkMost*14 {
		t.Errorf("%d bytes for %d users of 12 bytes each", n, ChunkMost)
	}
}
