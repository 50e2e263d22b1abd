package history

import (
	"testing"
	"time"
)

func TestCheck_TagsAreWhatWasAnsweredLast(t *testing.T) {
	phone := Device{User: "alice", Device: "phone"}
	ask := func(at time.Duration, seq int, tags ...string) Record {
		return Record{At: at, Kind: TagAsk, Device: phone, Set: "device", Seq: seq, Tags: tags}
	}
	answer := func(at time.Duration, seq int) Record {
		return Record{At: at, Kind: TagAnswer, Device: phone, Set: "device", Seq: seq}
	}
	rest := func(tags ...string) Record {
		return Record{At: 100, Kind: TagRest, Device: phone, Set: "device", Tags: tags}
	}
	lost := func(since, at time.Duration) Record { return Record{At: at, Kind: Lost, Since: since} }
	one, two := []Record{ask(1, 1, "a"), answer(2, 1)}, []Record{ask(3, 2, "b"), answer(4, 2)}
	for _, tc := range []struct {
		name    string
		records [][]Record
		ok      bool
	}{
		{"nothing was asked for", [][]Record{{rest()}}, true},
		{"nothing was asked for, and something is there", [][]Record{{rest("a")}}, false},
		{"the only one", [][]Record{one, {rest("a")}}, true},
		{"the last", [][]Record{one, two, {rest("b")}}, true},
		{"the one before the last", [][]Record{one, two, {rest("a")}}, false},
		{"none of them", [][]Record{one, two, {rest()}}, false},
		{"both", [][]Record{one, two, {rest("a", "b")}}, false},
		{"one that was not answered", [][]Record{one, {ask(3, 2, "b"), rest("b")}}, true},
		{"one that was not answered did not come about", [][]Record{one, {ask(3, 2, "b"), rest("a")}}, true},
		{"one that was not answered, and came late", [][]Record{{ask(0, 9, "c")}, one, {rest("c")}}, true},
		{"the store fell back to before it", [][]Record{one, two, {lost(2, 5), rest("a")}}, true},
		{"the store fell back to before all", [][]Record{one, two, {lost(0, 5), rest()}}, true},
		{"the store fell back to after it", [][]Record{one, two, {lost(5, 6), rest("a")}}, false},
		{"the store fell back before it", [][]Record{one, {lost(1, 2)}, two, {rest("a")}}, false},
		{"an answer to nothing", [][]Record{{answer(1, 1), rest()}}, false},
	} {
		var records []Record
		for _, rs := range tc.records {
			records = append(records, rs...)
		}
		got := Check(Run{}, records)
		if ok := len(got) == 0; ok != tc.ok {
			t.Errorf("%s: got %v", tc.name, got)
		}
	}
}
