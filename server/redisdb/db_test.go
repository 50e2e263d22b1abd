package redisdb

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/redistest"
)

func TestWrite_HappensWholeOrNotAtAll(t *testing.T) {
	everyForm(t, func(t *testing.T, r *redistest.Redis) {
		db := open(t, r)
		tag := tagOf(1)
		key, hash, list := tag.Key("x", "{odd}:\x00"), tag.Key("h", "alice"), tag.Key("e", "alice")
		try := func(ifs []Condition, do ...Command) *Write {
			t.Helper()
			w := &Write{Tag: tag, If: ifs, Do: do}
			db.Write(t.Context(), w)
			if w.Err != nil {
				t.Fatal(w.Err)
			}
			if w.Lineage == 0 || w.Now == 0 {
				t.Errorf("the answer lacks lineage %d or time %d", w.Lineage, w.Now)
			}
			return w
		}
		first := try([]Condition{IfValue(key, nil), IfField(hash, "a", nil), IfField(hash, "b", nil), IfLen(hash, 0)},
			Command{Name: "SET", Key: key, Args: []any{[]byte("\x00\r\nvalue")}, Tell: true},
			Command{Name: "HSET", Key: hash, Args: []any{"a", 1, "b", int64(-2), "c", uint64(1 << 63)}},
			Command{Name: "RPUSH", Key: list, Args: []any{"x", "y"}, Tell: true},
			Command{Name: "LLEN", Key: list, Tell: true},
			Command{Name: "HGET", Key: hash, Args: []any{"none"}, Tell: true})
		if want := []any{"OK", nil, int64(2), int64(2), nil}; !first.Done || !reflect.DeepEqual(first.Replies, want) {
			t.Fatalf("done %v, replies %#v, want %#v", first.Done, first.Replies, want)
		}
		touch := Command{Name: "RPUSH", Key: list, Args: []any{"z"}}
		fails := map[string][]Condition{
			"a value that is another":     {IfValue(key, "other")},
			"a value that should not be":  {IfValue(key, nil)},
			"a field that is another":     {IfField(hash, "a", "1"), IfField(hash, "b", "-3")},
			"a field that should not be":  {IfField(hash, "c", nil)},
			"a field that is not there":   {IfField(hash, "d", "")},
			"another number of fields":    {IfField(hash, "a", "1"), IfLen(hash, 2)},
			"one of many that does not":   {IfValue(key, "\x00\r\nvalue"), IfField(hash, "a", "1"), IfValue(tag.Key("x", "no"), "")},
			"a hash that is not there":    {IfField(tag.Key("h", "bob"), "a", "1")},
			"a prefix of what there is":   {IfField(hash, "b", "-")},
			"a number that should be a 0": {IfLen(hash, 0)},
		}
		for what, ifs := range fails {
			if w := try(ifs, touch); w.Done {
				t.Errorf("it is done in spite of %s", what)
			}
		}
		under := &Write{Tag: tag, Under: first.Lineage + 1, Do: []Command{touch}}
		if db.Write(t.Context(), under); under.Done || under.Err != nil {
			t.Errorf("under another lineage: done %v, error %v", under.Done, under.Err)
		}
		if w := try([]Condition{IfValue(key, "\x00\r\nvalue"), IfField(hash, "a", "1"), IfField(hash, "b", "-2"), IfField(hash, "no", nil),
			IfLen(hash, 3)}); !w.Done {
			t.Error("it is not done although all of it holds")
		}
		same := &Write{Tag: tag, Under: first.Lineage, Do: []Command{{Name: "GET", Key: key}}}
		if db.Write(t.Context(), same); !same.Done || same.Err != nil {
			t.Errorf("under the lineage: done %v, error %v", same.Done, same.Err)
		}
		read := &Read{Tag: tag, Do: []Command{
			{Name: "GET", Key: key}, {Name: "HMGET", Key: hash, Args: []any{"a", "no", "c"}}, {Name: "LRANGE", Key: list, Args: []any{0, -1}},
			{Name: "GET", Key: tag.Key("x", "no")}, {Name: "HGETALL", Key: tag.Key("h", "no")},
		}}
		db.Read(t.Context(), read)
		want := []any{"\x00\r\nvalue", []any{"1", nil, "9223372036854775808"}, []any{"x", "y"}, nil, []any{}}
		if read.Err != nil || !reflect.DeepEqual(read.Replies, want) || read.Lineage != first.Lineage {
			t.Errorf("read %#v, error %v, want %#v", read.Replies, read.Err, want)
		}
	})
}

func TestWrite_OneThatIsRefusedDoesNotTouchOthers(t *testing.T) {
	db := open(t, pool.Standalone(t))
	tag := tagOf(1)
	set(t, db, tag, "string", "s")
	var ws []*Write
	for i := range 50 {
		w := &Write{Tag: tag, Do: []Command{{Name: "HSET", Key: tag.Key("h", name(i)), Args: []any{"f", i}}}}
		switch i {
		case 10:
			w.Do[0].Key = tag.Key("x", "string") // is no hash
		case 20:
			w.Do[0].Name = "NOSUCHCOMMAND"
		case 30:
			w.If = []Condition{IfField(tag.Key("x", "string"), "f", nil)}
		case 40:
			w.Do[0].Args = []any{struct{}{}}
		}
		ws = append(ws, w)
	}
	db.Write(t.Context(), ws...)
	for i, w := range ws {
		if i > 0 && i < 50 && i%10 == 0 {
			if w.Done || push.KindOf(w.Err) != push.KindInternal {
				t.Errorf("%d: done %v, error %v", i, w.Done, w.Err)
			}
			if i != 40 && strings.Contains(w.Err.Error(), name(i)) {
				t.Errorf("the error of %d tells a key", i)
			}
		} else if !w.Done || w.Err != nil {
			t.Errorf("%d: done %v, error %v", i, w.Done, w.Err)
		}
	}
}

func TestWrite_ManyOfOneTagKeepTheirOrder(t *testing.T) {
	everyForm(t, func(t *testing.T, r *redistest.Redis) {
		db := open(t, r, patient)
		var ws []*Write
		for i := range 3000 {
			tag := tagOf(i % 3)
			ws = append(ws, &Write{Tag: tag, Frees: i%7 == 0, Do: []Command{{Name: "RPUSH", Key: tag.Key("e", "alice"), Args: []any{i}, Tell: true}}})
		}
		db.Write(t.Context(), ws...)
		for i, w := range ws {
			if !w.Done || w.Err != nil || w.Replies[0] != int64(i/3+1) {
				t.Fatalf("%d: done %v, error %v, replies %v", i, w.Done, w.Err, w.Replies)
			}
		}
	})
}

func TestWrite_LargeUnitsAndManyArguments(t *testing.T) {
	everyForm(t, func(t *testing.T, r *redistest.Redis) {
		db := open(t, r, patient) // eight round trips of a megabyte, one after the other
		tag := tagOf(1)
		big := strings.Repeat("0123456789abcdef", 1<<16)
		var ws []*Write
		var rs []*Read
		for i := range 8 {
			ws = append(ws, &Write{Tag: tag, Do: []Command{{Name: "SET", Key: tag.Key("x", name(i)), Args: []any{big[i:]}}}})
			rs = append(rs, &Read{Tag: tag, Do: []Command{{Name: "GET", Key: tag.Key("x", name(i))}}})
		}
		args := make([]any, 3000)
		for i := range args {
			args[i] = i
		}
		ws = append(ws, &Write{Tag: tag, Do: []Command{{Name: "RPUSH", Key: tag.Key("e", "a"), Args: args, Tell: true}, {Name: "RPUSH", Key: tag.Key("e", "a"), Args: args[:33], Tell: true}}})
		db.Write(t.Context(), ws...)
		for i, w := range ws {
			if !w.Done || w.Err != nil {
				t.Fatalf("%d: done %v, error %v", i, w.Done, w.Err)
			}
		}
		if got, want := ws[8].Replies, []any{int64(3000), int64(3033)}; !reflect.DeepEqual(got, want) {
			t.Errorf("replies %v, want %v", got, want)
		}
		db.Read(t.Context(), rs...)
		for i, r := range rs {
			if r.Err != nil || r.Replies[0] != big[i:] {
				t.Errorf("%d: error %v, or another value", i, r.Err)
			}
		}
	})
}

func TestWalk_FindsEveryKeyOfAKind(t *testing.T) {
	everyForm(t, func(t *testing.T, r *redistest.Redis) {
		db := open(t, r)
		want := map[Found]bool{}
		var ws []*Write
		for i := range 500 {
			tag := tagOf(i % 40)
			name := fmt.Sprintf("user %d {}:", i)
			want[Found{tag, name}] = true
			ws = append(ws, &Write{Tag: tag, Do: []Command{
				{Name: "SET", Key: tag.Key("x", name), Args: []any{i}}, {Name: "SET", Key: tag.Key("xy", name), Args: []any{i}}}})
		}
		db.Write(t.Context(), ws...)
		got, w := map[Found]bool{}, db.Walk("x")
		for calls := 0; ; calls++ {
			found, done, err := w.Next(t.Context(), 50)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				got[f] = true
			}
			if done {
				if calls < 5 {
					t.Errorf("a thousand keys in %d calls of fifty", calls+1)
				}
				break
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%d keys, want %d", len(got), len(want))
		}
	})
}

func TestTag_SlotIsThatOfRedis(t *testing.T) {
	c := pool.Cluster(t).Servers()[0].Client()
	for _, tag := range []Tag{"", "a", "shop:12", "shop:1023", "123456789", "ids"} {
		want, err := c.ClusterKeySlot(t.Context(), tag.Key("x", "}{alice}")).Result()
		if err != nil {
			t.Fatal(err)
		}
		if tag != "" && int64(tag.slot()) != want {
			t.Errorf("%q is in slot %d, want %d", tag, tag.slot(), want)
		}
	}
}

func TestClose_RefusesWhatComesLater(t *testing.T) {
	db := open(t, pool.Standalone(t))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	w, r := &Write{Tag: tagOf(1)}, &Read{Tag: tagOf(1)}
	db.Write(t.Context(), w)
	db.Read(t.Context(), r)
	wantCode(t, w.Err, push.KindClosed, "closed")
	wantCode(t, r.Err, push.KindClosed, "closed")
	wantCode(t, db.Health(t.Context()), push.KindClosed, "closed")
	_, _, err := db.Walk("x").Next(t.Context(), 1)
	wantCode(t, err, push.KindClosed, "closed")
}

func TestOpen_SpeaksTLSAndSaysWhoItIs(t *testing.T) {
	for _, start := range []func(testing.TB, ...redistest.Option) *redistest.Redis{redistest.Standalone, redistest.Sentinel, redistest.Cluster} {
		r := start(t, redistest.TLS(), redistest.User("carillon", "secret"))
		db := open(t, r)
		set(t, db, tagOf(1), "a", "1")
		set(t, db, tagOf(2), "a", "2")
		if got := get(t, db, tagOf(1), "a"); got != "1" {
			t.Errorf("got %v", got)
		}
		c := configOf(r)
		c.Password = "another"
		_, err := Open(t.Context(), c)
		wantCode(t, err, push.KindInvalid, "store_refused")
		c = configOf(r)
		c.TLS = nil
		c.Timeout = time.Second
		_, err = Open(t.Context(), c)
		wantCode(t, err, push.KindUnavailable, "store_unavailable")
	}
}

// TestRead_KeptIsNoWrite has reads that are answered as writes are, and so take the same lane, be sent between writes of the same tag.
func TestRead_KeptIsNoWrite(t *testing.T) {
	everyForm(t, func(t *testing.T, r *redistest.Redis) {
		db := open(t, r)
		tag := tagOf(1)
		set(t, db, tag, "a", "1")
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				for range 50 {
					if i%2 == 0 {
						w := &Write{Tag: tag, If: []Condition{IfValue(tag.Key("x", "a"), "1")},
							Do: []Command{{Name: "SET", Key: tag.Key("x", "b"), Args: []any{"2"}}, {Name: "GET", Key: tag.Key("x", "b"), Tell: true}}}
						if db.Write(t.Context(), w); w.Err != nil || !w.Done || w.Replies[1] != "2" {
							t.Errorf("a write: done %v, replies %v, error %v", w.Done, w.Replies, w.Err)
						}
						continue
					}
					kept := &Read{Tag: tag, Kept: true, Do: []Command{{Name: "HGET", Key: tag.Key("h", "no"), Args: []any{"a"}}, {Name: "GET", Key: tag.Key("x", "a")}}}
					if db.Read(t.Context(), kept); kept.Err != nil || !reflect.DeepEqual(kept.Replies, []any{nil, "1"}) {
						t.Errorf("a read: replies %v, error %v", kept.Replies, kept.Err)
					}
				}
			})
		}
		all.Wait()
	})
}
