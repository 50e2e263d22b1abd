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
		{"two answers at one moment", [][]Record{{ask(1, 1, "a"), ask(2, 2, "b"), answer(3, 2), answer(3, 1), rest("a")}}, true},
		{"two answers at one moment, and the first of them", [][]Record{{ask(1, 1, "a"), ask(2, 2, "b"), answer(3, 2), answer(3, 1), rest("b")}}, false},
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

func TestCheck_AMessageToTagsIsForWhoHadThemAllTheTimeAndForNobodyWhoNeverHad(t *testing.T) {
	phone := Device{User: "alice", Device: "phone"}
	user := Device{User: "alice"}
	seq := 0
	ask := func(of Device, at, done time.Duration, tags ...string) []Record {
		seq++
		r := Record{At: at, Kind: TagAsk, Device: of, Set: "s", Seq: seq, Tags: tags}
		answer := r
		answer.At, answer.Kind = done, TagAnswer
		if done == 0 {
			return []Record{r}
		}
		return []Record{r, answer}
	}
	has := func(all ...string) *Having { return &Having{All: all} }
	lost := Record{At: 30, Kind: Lost, Since: 5}
	const before, during = 2, 15 // the message is sent at 10, and comes at 20 if it does
	for _, tc := range []struct {
		name    string
		having  *Having
		tags    [][]Record
		missing bool // may it be missing
		comes   bool // may it come
	}{
		{"of everyone", nil, nil, false, true},
		{"nobody asked for tags", has("a"), nil, true, false},
		{"nobody asked for tags, and none are wanted", &Having{Not: []string{"a"}}, nil, false, true},
		{"it has the tag", has("a"), [][]Record{ask(phone, 1, before, "a")}, false, true},
		{"its user has the tag", has("a"), [][]Record{ask(user, 1, before, "a"), ask(phone, 1, before)}, false, true},
		{"another user has the tag", has("a"), [][]Record{ask(Device{User: "bob"}, 1, before, "a")}, true, false},
		{"both tags, from two sides", has("a", "b"), [][]Record{ask(user, 1, before, "a"), ask(phone, 1, before, "b")}, false, true},
		{"one of both", has("a", "b"), [][]Record{ask(user, 1, before, "a")}, true, false},
		{"any of both", &Having{Any: []string{"a", "b"}}, [][]Record{ask(user, 1, before, "a")}, false, true},
		{"any of others", &Having{Any: []string{"b", "c"}}, [][]Record{ask(user, 1, before, "a")}, true, false},
		{"a tag that is not wanted", &Having{Any: []string{"a"}, Not: []string{"b"}}, [][]Record{ask(user, 1, before, "a", "b")}, true, false},
		{"it had the tag until before", has("a"), [][]Record{ask(phone, 1, before, "a"), ask(phone, 3, 4)}, true, false},
		{"it lost the tag meanwhile", has("a"), [][]Record{ask(phone, 1, before, "a"), ask(phone, 11, during)}, true, true},
		{"it got the tag meanwhile", has("a"), [][]Record{ask(phone, 11, during, "a")}, true, true},
		{"it got the tag after it came", has("a"), [][]Record{ask(phone, 21, 22, "a")}, true, false},
		{"the change was under way when it was sent", has("a"), [][]Record{ask(phone, 1, before, "a"), ask(phone, 3, during)}, true, true},
		{"the change was never answered", has("a"), [][]Record{ask(phone, 1, before, "a"), ask(phone, 3, 0)}, true, true},
		{"the change changed nothing about it", has("a"), [][]Record{ask(phone, 1, before, "a"), ask(phone, 11, during, "a", "b")}, false, true},
		{"two changes at the same time", has("a"), [][]Record{ask(phone, 1, 3, "a"), ask(phone, 2, 4)}, true, true},
		{"the store fell back later", has("a"), [][]Record{ask(phone, 1, before, "a"), {lost}}, true, true},
	} {
		for _, comes := range []bool{false, true} {
			records := []Record{
				{At: 10, Kind: Invoke, Sender: "w", Seq: 1, Everyone: true, Having: tc.having, Persistent: true, Body: "b"},
				{At: 12, Kind: OK, Sender: "w", Seq: 1, ID: "1"},
				{At: 40, Kind: Live, Device: phone, Count: 1},
			}
			if comes {
				records = append(records, Record{At: 20, Kind: Deliver, Device: phone, ID: "1", Body: "b", Slot: 1, Pos: 1})
			}
			for _, rs := range tc.tags {
				records = append(records, rs...)
			}
			rule, ok := "lost", tc.missing
			if comes {
				rule, ok = "phantom", tc.comes
			}
			got := Check(Run{Devices: []Device{phone}}, records)
			if ok && len(got) > 0 || !ok && (len(got) != 1 || got[0].Rule != rule) {
				t.Errorf("%s, comes %v: got %v", tc.name, comes, got)
			}
		}
	}
}

func TestCheck_OnlyAMessageForTheSameTakesAnothersPlace(t *testing.T) {
	vip, beta := &Having{All: []string{"vip"}}, &Having{All: []string{"beta"}}
	for _, tc := range []struct {
		name          string
		first, second Record
		ok            bool // may the first be missing
	}{
		{"for the same tags", Record{Everyone: true, Having: vip}, Record{Everyone: true, Having: vip}, true},
		{"for other tags", Record{Everyone: true, Having: vip}, Record{Everyone: true, Having: beta}, false},
		{"for everyone", Record{Everyone: true, Having: vip}, Record{Everyone: true}, false},
		{"for everyone, both", Record{Everyone: true}, Record{Everyone: true}, true},
		{"for a user", Record{Everyone: true}, Record{To: []string{"alice"}}, false},
		{"for a device of the user", Record{To: []string{"alice"}}, Record{Devices: []Device{{User: "alice", Device: "phone"}}}, false},
		{"for a user, both", Record{To: []string{"alice"}}, Record{To: []string{"alice", "bob"}}, true},
	} {
		records := []Record{
			{At: 1, Kind: TagAsk, Device: Device{User: "alice"}, Seq: 1, Tags: []string{"beta", "vip"}},
			{At: 2, Kind: TagAnswer, Device: Device{User: "alice"}, Seq: 1},
		}
		for i, r := range []Record{tc.first, tc.second} {
			r.At, r.Kind, r.Sender, r.Seq, r.Persistent = time.Duration(10+10*i), Invoke, "w", i+1, true
			r.Collapse, r.Body = "k", string(rune('a'+i))
			records = append(records, r, Record{At: r.At + 1, Kind: OK, Sender: "w", Seq: r.Seq, ID: r.Body})
		}
		slot := 0
		if tc.second.Everyone {
			slot = 1
		}
		dev := Device{User: "alice", Device: "phone"}
		records = append(records, Record{At: 40, Kind: Deliver, Device: dev, ID: "b", Body: "b", Slot: slot, Pos: 2})
		got := Check(Run{Devices: []Device{dev}}, records)
		if ok := len(got) == 0; ok != tc.ok {
			t.Errorf("%s: got %v", tc.name, got)
		}
	}
}
