package history

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"
)

var (
	phone = Device{User: "alice", Device: "phone"}
	web   = Device{User: "alice", Device: "web"}
	other = Device{User: "bob", Device: "phone"}
)

// good is a run in which the promise held: a sender sends five messages to alice, two to everyone and one that is unknown.
func good() []Record {
	var rs []Record
	add := func(r Record) {
		r.At = time.Duration(len(rs))
		rs = append(rs, r)
	}
	for i := 1; i <= 5; i++ {
		add(Record{Kind: Invoke, Sender: "w", Seq: i, Key: fmt.Sprint("k", i), To: []string{"alice"}, Persistent: true, Body: fmt.Sprint("b", i)})
		if i == 3 {
			add(Record{Kind: Unknown, Sender: "w", Seq: i})
			add(Record{Kind: Invoke, Sender: "w", Seq: i, Key: "k3", To: []string{"alice"}, Persistent: true, Body: "b3"})
		}
		add(Record{Kind: OK, Sender: "w", Seq: i, ID: fmt.Sprint(100 + i)})
	}
	for i := 6; i <= 7; i++ {
		add(Record{Kind: Invoke, Sender: "w", Seq: i, Everyone: true, Persistent: true, Body: fmt.Sprint("b", i)})
		add(Record{Kind: OK, Sender: "w", Seq: i, ID: fmt.Sprint(100 + i)})
	}
	add(Record{Kind: Invoke, Sender: "w", Seq: 8, To: []string{"alice"}, Persistent: true, Body: "b8"})
	add(Record{Kind: Unknown, Sender: "w", Seq: 8})
	for _, d := range []Device{phone, web} {
		for i := 1; i <= 5; i++ {
			add(Record{Kind: Deliver, Device: d, ID: fmt.Sprint(100 + i), Body: fmt.Sprint("b", i), Pos: uint64(i)})
		}
		add(Record{Kind: Ack, Device: d, Pos: 5})
	}
	add(Record{Kind: Deliver, Device: phone, ID: "999", Body: "b8", Pos: 6})
	for _, d := range []Device{phone, web, other} {
		for i := 6; i <= 7; i++ {
			add(Record{Kind: Deliver, Device: d, ID: fmt.Sprint(100 + i), Body: fmt.Sprint("b", i), Slot: 1, Pos: uint64(i)})
		}
	}
	add(Record{Kind: Stored, Device: phone, Pos: 5})
	return rs
}

func find(rs []Record, k Kind, d Device, id string) int {
	return slices.IndexFunc(rs, func(r Record) bool { return r.Kind == k && r.Device == d && r.ID == id })
}

func TestCheck_FindsEachPlantedBreachAndNothingElse(t *testing.T) {
	cases := []struct {
		name  string
		plant func(rs []Record) []Record
		rule  string // empty: nothing is wrong
	}{
		{"nothing", func(rs []Record) []Record { return rs }, ""},
		{"a delivery is missing", func(rs []Record) []Record {
			i := find(rs, Deliver, web, "102")
			return slices.Delete(rs, i, i+1)
		}, "lost"},
		{"a broadcast is missing at bob", func(rs []Record) []Record {
			i := find(rs, Deliver, other, "107")
			return slices.Delete(rs, i, i+1)
		}, "lost"},
		{"a missing delivery that a gap names", func(rs []Record) []Record {
			i := find(rs, Deliver, web, "102")
			rs[i] = Record{At: rs[i].At, Kind: Gap, Device: web}
			return rs
		}, ""},
		{"a missing delivery that was recalled", func(rs []Record) []Record {
			i := find(rs, Deliver, web, "102")
			rs[i] = Record{At: rs[i].At, Kind: Recall, ID: "102"}
			return rs
		}, ""},
		{"a delivery of nothing", func(rs []Record) []Record {
			return append(rs, Record{At: 900, Kind: Deliver, Device: phone, ID: "555", Body: "?", Pos: 9})
		}, "phantom"},
		{"another's message", func(rs []Record) []Record {
			return append(rs, Record{At: 900, Kind: Deliver, Device: other, ID: "101", Body: "b1", Pos: 9})
		}, "phantom"},
		{"another body", func(rs []Record) []Record {
			rs[find(rs, Deliver, phone, "101")].Body = "b2"
			return rs
		}, "phantom"},
		{"twice", func(rs []Record) []Record {
			return append(rs, Record{At: 900, Kind: Deliver, Device: other, ID: "107", Body: "b7", Slot: 1, Pos: 9})
		}, "duplicate"},
		{"swapped", func(rs []Record) []Record {
			i, j := find(rs, Deliver, web, "101"), find(rs, Deliver, web, "102")
			rs[i].At, rs[j].At = rs[j].At, rs[i].At
			return rs
		}, "order"},
		{"acknowledged too far", func(rs []Record) []Record {
			return append(rs, Record{At: rs[find(rs, Deliver, web, "103")].At, Kind: Ack, Device: web, Pos: 4})
		}, "hole"},
		{"two ids for one send", func(rs []Record) []Record {
			return append(rs, Record{At: 900, Kind: OK, Sender: "w", Seq: 1, ID: "777"})
		}, "idempotency"},
		{"one key, two messages", func(rs []Record) []Record {
			rs[0].Key = "k2"
			return rs
		}, "idempotency"},
		{"one id, two messages", func(rs []Record) []Record {
			i := slices.IndexFunc(rs, func(r Record) bool { return r.Kind == OK && r.Seq == 2 })
			rs[i].ID = "101"
			return rs
		}, "ids"},
		{"a cursor that nobody moved", func(rs []Record) []Record {
			return append(rs, Record{At: 900, Kind: Stored, Device: web, Pos: 6})
		}, "isolation"},
	}
	run := Run{Devices: []Device{phone, web, other}, AcksBySlot: true}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			vs := Check(run, c.plant(good()))
			if c.rule == "" {
				if len(vs) != 0 {
					t.Errorf("got %v, want no violation", vs)
				}
				return
			}
			if !slices.ContainsFunc(vs, func(v Violation) bool { return v.Rule == c.rule }) {
				t.Errorf("got %v, want one of rule %s", vs, c.rule)
			}
		})
	}
}

func TestReadWrite_SurviveACutLine(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, Of(good())); err != nil {
		t.Fatal(err)
	}
	whole := b.String()
	got, err := Read(bytes.NewReader([]byte(whole[:len(whole)-5])))
	if err != nil {
		t.Fatal(err)
	}
	if want := len(good()) - 1; len(got) != want {
		t.Errorf("%d records, want %d", len(got), want)
	}
	if _, err := Read(bytes.NewReader([]byte("{\"kind\":\"ok\"}\nnonsense\n"))); err == nil {
		t.Error("a damaged line was read without an error")
	}
}

var far = Device{User: "alice", Device: "phone", Product: "news"}

func sendTo(at time.Duration, sender string, seq int, id string, r Record) []Record {
	r.At, r.Kind, r.Sender, r.Seq, r.Body = at, Invoke, sender, seq, sender+id
	return []Record{r, {At: at + 1, Kind: OK, Sender: sender, Seq: seq, ID: id}}
}

func seen(at time.Duration, d Device, sender, id string, slot int, pos uint64) Record {
	return Record{At: at, Kind: Deliver, Device: d, ID: id, Body: sender + id, Slot: slot, Pos: pos}
}

// Each case is a run of its own: what it has to be judged for, and what has to excuse it.
func TestCheck_FaultsExcuseWhatTheyExplainAndNothingElse(t *testing.T) {
	kept := Record{To: []string{"alice"}, Persistent: true}
	cases := []struct {
		name    string
		run     Run
		records []Record
		rule    string // empty: nothing is wrong
	}{
		{"a message crosses products", Run{}, append(sendTo(1, "s", 1, "1", kept), seen(5, far, "s", "1", 0, 1)), "phantom"},
		{"accepted before the store fell back", Run{Devices: []Device{phone}},
			append(sendTo(10, "s", 1, "1", kept), Record{At: 20, Kind: Lost, Since: 5}), ""},
		{"accepted before the state that it fell back to", Run{Devices: []Device{phone}},
			append(sendTo(10, "s", 1, "1", kept), Record{At: 20, Kind: Lost, Since: 15}), "lost"},
		{"another user's slot was lost", Run{Devices: []Device{phone}},
			append(sendTo(10, "s", 1, "1", kept), Record{At: 20, Kind: Lost, To: []string{"bob"}}), "lost"},
		{"collapsed by a newer one", Run{Devices: []Device{phone}},
			append(append(sendTo(1, "s", 1, "1", Record{To: kept.To, Persistent: true, Collapse: "c"}),
				sendTo(5, "s", 2, "2", Record{To: kept.To, Persistent: true, Collapse: "c"})...), seen(9, phone, "s", "2", 0, 2)), ""},
		{"collapsed by a newer one whose tags say the same in other words", Run{Devices: []Device{phone}}, append(append(append(
			[]Record{{Kind: TagAsk, Device: phone, Set: TokenSet, Seq: 1, Tags: []string{"a"}}, {Kind: TagAnswer, Device: phone, Set: TokenSet, Seq: 1}},
			sendTo(1, "s", 1, "1", Record{Everyone: true, Having: &Having{Any: []string{"a"}}, Persistent: true, Collapse: "c"})...),
			sendTo(5, "s", 2, "2", Record{Everyone: true, Having: &Having{All: []string{"a"}}, Persistent: true, Collapse: "c"})...),
			seen(9, phone, "s", "2", 1, 2)), ""},
		{"the newest of its key", Run{Devices: []Device{phone}},
			sendTo(1, "s", 1, "1", Record{To: kept.To, Persistent: true, Collapse: "c"}), "lost"},
		{"a device that came later", Run{Devices: []Device{phone}},
			append(sendTo(1, "s", 1, "1", kept), Record{At: 5, Kind: Online, Device: phone, Begins: [2]string{FromHead, FromHead}}), ""},
		{"a first device that came later", Run{Devices: []Device{phone}},
			append(sendTo(1, "s", 1, "1", kept), Record{At: 5, Kind: Online, Device: phone, Begins: [2]string{FromStart, FromHead}}), "lost"},
		{"twice after a crash in the handler", Run{}, append(sendTo(1, "s", 1, "1", kept), seen(5, phone, "s", "1", 0, 1),
			Record{At: 6, Kind: Crash, Device: phone, ID: "1"}, seen(7, phone, "s", "1", 0, 1)), ""},
		{"twice after a crash at another message", Run{}, append(sendTo(1, "s", 1, "1", kept), seen(5, phone, "s", "1", 0, 1),
			Record{At: 6, Kind: Crash, Device: phone, ID: "2"}, seen(7, phone, "s", "1", 0, 1)), "duplicate"},
		{"twice after its storage was lost", Run{}, append(sendTo(1, "s", 1, "1", kept), seen(5, phone, "s", "1", 0, 1),
			Record{At: 6, Kind: Forget, Device: phone}, seen(7, phone, "s", "1", 0, 1)), ""},
		{"one position, two messages", Run{}, append(append(sendTo(1, "s", 1, "1", kept), sendTo(3, "s", 2, "2", kept)...),
			seen(5, phone, "s", "1", 0, 7), seen(6, web, "s", "2", 0, 7)), "position"},
		{"one position, and the store fell back between", Run{}, append(append(sendTo(1, "s", 1, "1", kept),
			sendTo(30, "s", 2, "2", kept)...), seen(5, phone, "s", "1", 0, 7), Record{At: 20, Kind: Lost}, seen(40, web, "s", "2", 0, 7)), ""},
		{"one position, and the store fell back once while it lasted", Run{}, append(append(sendTo(1, "s", 1, "1", kept),
			sendTo(30, "s", 2, "2", kept)...), seen(5, phone, "s", "1", 0, 7), Record{At: 90, Kind: Lost, Since: 20, Throughout: true},
			seen(40, web, "s", "2", 0, 7)), ""},
		{"one position, and the store fell back when both had been sent", Run{}, append(append(sendTo(1, "s", 1, "1", kept),
			sendTo(30, "s", 2, "2", kept)...), seen(5, phone, "s", "1", 0, 7), Record{At: 90, Kind: Lost, Since: 20},
			seen(40, web, "s", "2", 0, 7)), "position"},
		{"live and late", Run{LiveWithin: 10}, append(sendTo(1, "s", 1, "1", Record{To: kept.To}), seen(20, phone, "s", "1", 255, 0)), "live"},
		{"live and late, to a device that took nothing", Run{LiveWithin: 10}, append(sendTo(1, "s", 1, "1", Record{To: kept.To}),
			seen(20, phone, "s", "1", 255, 0), Record{At: 21, Kind: Stall, Device: phone, Since: 2}), ""},
		{"live and late, while another took nothing", Run{LiveWithin: 10}, append(sendTo(1, "s", 1, "1", Record{To: kept.To}),
			seen(20, phone, "s", "1", 255, 0), Record{At: 21, Kind: Stall, Device: web, Since: 2}), "live"},
		{"live, in a slot", Run{}, append(sendTo(1, "s", 1, "1", Record{To: kept.To}), seen(2, phone, "s", "1", 0, 3)), "live"},
		{"after its time", Run{ExpireWithin: 5}, append(sendTo(1, "s", 1, "1", Record{To: kept.To, Persistent: true, TTL: 10}),
			seen(20, phone, "s", "1", 0, 1)), "expired"},
		{"on a session that was replaced", Run{KickWithin: 5}, append(sendTo(1, "s", 1, "1", kept),
			Record{At: 2, Kind: Online, Device: phone, Session: 1}, Record{At: 3, Kind: Online, Device: phone, Session: 2},
			Record{At: 20, Kind: Deliver, Device: phone, Session: 1, ID: "1", Body: "s1", Pos: 1}), "kick"},
		{"on a session that had to go for another device", Run{KickWithin: 5}, append(sendTo(1, "s", 1, "1", kept),
			Record{At: 2, Kind: Online, Device: phone, Session: 1}, Record{At: 3, Kind: Off, Device: phone, Session: 1},
			Record{At: 20, Kind: Deliver, Device: phone, Session: 1, ID: "1", Body: "s1", Pos: 1}), "kick"},
		{"on a session that has to go at this moment", Run{KickWithin: 5}, append(sendTo(1, "s", 1, "1", kept),
			Record{At: 2, Kind: Online, Device: phone, Session: 1}, Record{At: 16, Kind: Off, Device: phone, Session: 1},
			Record{At: 20, Kind: Deliver, Device: phone, Session: 1, ID: "1", Body: "s1", Pos: 1}), ""},
		{"on the session after one that had to go", Run{KickWithin: 5}, append(sendTo(1, "s", 1, "1", kept),
			Record{At: 2, Kind: Off, Device: phone, Session: 1}, Record{At: 3, Kind: Online, Device: phone, Session: 2},
			Record{At: 20, Kind: Deliver, Device: phone, Session: 2, ID: "1", Body: "s1", Pos: 1}), ""},
		{"on a session that had to go, while the device took nothing", Run{KickWithin: 5}, append(sendTo(1, "s", 1, "1", kept),
			Record{At: 3, Kind: Off, Device: phone, Session: 1},
			Record{At: 20, Kind: Deliver, Device: phone, Session: 1, ID: "1", Body: "s1", Pos: 1},
			Record{At: 21, Kind: Stall, Device: phone, Since: 4}), ""},
		{"on a session of a number that another had which had to go, and which ended with all", Run{KickWithin: 5}, append(sendTo(1, "s", 1, "1", kept),
			Record{At: 2, Kind: Off, Device: phone, Session: 1}, Record{At: 3, Kind: Ended}, Record{At: 4, Kind: Online, Device: phone, Session: 1},
			Record{At: 20, Kind: Deliver, Device: phone, Session: 1, ID: "1", Body: "s1", Pos: 1}), ""},
		{"on a session that had to go and was welcomed nevertheless", Run{KickWithin: 5}, append(sendTo(1, "s", 1, "1", kept),
			Record{At: 2, Kind: Off, Device: phone, Session: 1}, Record{At: 4, Kind: Online, Device: phone, Session: 1}, Record{At: 5, Kind: Ended},
			Record{At: 20, Kind: Deliver, Device: phone, Session: 1, ID: "1", Body: "s1", Pos: 1}), "kick"},
		{"under two ids, as the store lost the first while the request was under way again", Run{}, []Record{
			{At: 1, Kind: Invoke, Sender: "s", Seq: 1, To: kept.To, Persistent: true, Body: "s1"}, {At: 2, Kind: Unknown, Sender: "s", Seq: 1},
			seen(5, phone, "s", "1", 0, 1), {At: 8, Kind: Invoke, Sender: "s", Seq: 1, To: kept.To, Persistent: true, Body: "s1"}, {At: 9, Kind: Lost},
			{At: 10, Kind: OK, Sender: "s", Seq: 1, ID: "2"}, {At: 12, Kind: Deliver, Device: phone, ID: "2", Body: "s1", Pos: 1}}, ""},
		{"under two ids, and nothing was lost", Run{}, []Record{
			{At: 1, Kind: Invoke, Sender: "s", Seq: 1, To: kept.To, Persistent: true, Body: "s1"}, {At: 2, Kind: Unknown, Sender: "s", Seq: 1},
			seen(5, phone, "s", "1", 0, 1), {At: 8, Kind: Invoke, Sender: "s", Seq: 1, To: kept.To, Persistent: true, Body: "s1"},
			{At: 10, Kind: OK, Sender: "s", Seq: 1, ID: "2"}, {At: 12, Kind: Deliver, Device: phone, ID: "2", Body: "s1", Pos: 2}}, "phantom"},
		{"two live sessions", Run{}, []Record{{At: 1, Kind: Live, Device: phone, Count: 2}}, "session"},
		{"a reset that nothing explains", Run{}, []Record{{At: 1, Kind: Gap, Device: phone, Reset: true}}, "reset"},
		{"a reset of a slot that was lost", Run{}, []Record{{At: 1, Kind: Lost, To: []string{"alice"}}, {At: 2, Kind: Gap, Device: phone, Reset: true}}, ""},
		{"one of a batch after another of it", Run{}, []Record{
			{At: 1, Kind: Invoke, Sender: "s", Seq: 1, To: kept.To, Persistent: true, Body: "s1"},
			{At: 2, Kind: Invoke, Sender: "s", Seq: 2, To: kept.To, Persistent: true, Body: "s2"},
			{At: 3, Kind: OK, Sender: "s", Seq: 1, ID: "1"}, {At: 4, Kind: OK, Sender: "s", Seq: 2, ID: "2"},
			seen(5, phone, "s", "2", 0, 1), seen(6, phone, "s", "1", 0, 2)}, ""},
		{"one of a batch after what was sent when the batch was answered", Run{}, append([]Record{
			{At: 1, Kind: Invoke, Sender: "s", Seq: 1, To: kept.To, Persistent: true, Body: "s1"},
			{At: 2, Kind: Invoke, Sender: "s", Seq: 2, To: kept.To, Persistent: true, Body: "s2"},
			{At: 3, Kind: OK, Sender: "s", Seq: 1, ID: "1"}, {At: 4, Kind: OK, Sender: "s", Seq: 2, ID: "2"},
			seen(8, phone, "s", "3", 0, 1), seen(9, phone, "s", "1", 0, 2)}, sendTo(5, "s", 3, "3", kept)...), "order"},
		{"after what was sent when nobody knew of it", Run{}, append([]Record{
			{At: 1, Kind: Invoke, Sender: "s", Seq: 1, To: kept.To, Persistent: true, Body: "s1"}, {At: 2, Kind: Unknown, Sender: "s", Seq: 1},
			seen(8, phone, "s", "3", 0, 1), seen(9, phone, "s", "1", 0, 2)}, sendTo(5, "s", 3, "3", kept)...), "order"},
		{"a key refused for another product's request", Run{}, []Record{
			{At: 1, Kind: Invoke, Sender: "a", Seq: 1, Product: "news", Key: "k", Body: "x"},
			{At: 2, Kind: Invoke, Sender: "b", Seq: 1, Product: "shop", Key: "k", Body: "y"},
			{At: 3, Kind: Fail, Sender: "b", Seq: 1, Code: keyReused}}, "idempotency"},
		{"a liar sees another's message", Run{}, append(sendTo(1, "s", 1, "1", kept),
			Record{At: 5, Kind: Peek, Device: other, ID: "1", Body: "s1", Pos: 1}), "phantom"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			vs := Check(c.run, c.records)
			if c.rule == "" && len(vs) != 0 {
				t.Errorf("got %v, want no violation", vs)
			}
			if c.rule != "" && !slices.ContainsFunc(vs, func(v Violation) bool { return v.Rule == c.rule }) {
				t.Errorf("got %v, want one of rule %s", vs, c.rule)
			}
		})
	}
}

func TestCheck_ARepeatIsExcusedOnlyIfTheSlotWasResetAndTheClientHasForgotten(t *testing.T) {
	const remembers = 3
	// lived is a device that handles messages 1 to n, is told of a gap, and then handles message 1 again.
	lived := func(n int, gap Record, losses ...Record) []Record {
		var rs []Record
		add := func(r Record) {
			r.At = time.Duration(len(rs))
			rs = append(rs, r)
		}
		for i := 1; i <= n; i++ {
			add(Record{Kind: Invoke, Sender: "w", Seq: i, To: []string{"alice"}, Persistent: true, Body: "b"})
			add(Record{Kind: OK, Sender: "w", Seq: i, ID: fmt.Sprint(i)})
			add(Record{Kind: Deliver, Device: phone, ID: fmt.Sprint(i), Body: "b", Pos: uint64(i)})
		}
		for _, l := range losses {
			add(l)
		}
		add(gap)
		add(Record{Kind: Deliver, Device: phone, ID: "1", Body: "b", Pos: 1})
		return rs
	}
	fallen := Record{Kind: Lost, Since: 0, Throughout: true}
	reset := Record{Kind: Gap, Device: phone, Reset: true}
	for what, c := range map[string]struct {
		rs      []Record
		excused bool
	}{
		"three since, and a reset":         {lived(4, reset, fallen), true},
		"two since, and a reset":           {lived(3, reset, fallen), false},
		"three since, and another gap":     {lived(4, Record{Kind: Gap, Device: phone}, fallen), false},
		"three since, the other slot":      {lived(4, Record{Kind: Gap, Device: phone, Slot: 1, Reset: true}, fallen), false},
		"three since, of another device":   {lived(4, Record{Kind: Gap, Device: web, Reset: true}, fallen), false},
		"three since, a reset for nothing": {lived(4, reset), false},
	} {
		vs := Check(Run{Devices: []Device{phone}, Remembers: remembers}, c.rs)
		if got := !slices.ContainsFunc(vs, func(v Violation) bool { return v.Rule == "duplicate" }); got != c.excused {
			t.Errorf("%s: excused %v, want %v: %v", what, got, c.excused, vs)
		}
	}
	vs := Check(Run{Devices: []Device{phone}}, lived(4, reset, fallen))
	if !slices.ContainsFunc(vs, func(v Violation) bool { return v.Rule == "duplicate" }) {
		t.Error("a client that remembers everything is excused")
	}
}

func TestCheck_AMessageToEveryoneMayBeFinishedLateButHasOnePlaceForAll(t *testing.T) {
	swapped := func(devices ...Device) []Record {
		rs := good()
		for _, d := range devices {
			i, j := find(rs, Deliver, d, "106"), find(rs, Deliver, d, "107")
			rs[i].At, rs[j].At, rs[i].Pos, rs[j].Pos = rs[j].At, rs[i].At, rs[j].Pos, rs[i].Pos
		}
		return rs
	}
	run := Run{Devices: []Device{phone, web, other}, AcksBySlot: true, EveryoneLater: true}
	if vs := Check(run, swapped(phone, web, other)); len(vs) > 0 {
		t.Errorf("late at all devices: %v", vs)
	}
	if vs := Check(run, swapped(phone)); len(vs) == 0 {
		t.Error("late at one device of two was not found")
	}
	run.EveryoneLater = false
	if vs := Check(run, swapped(phone, web, other)); len(vs) == 0 {
		t.Error("late where it is accepted with its place was not found")
	}
}
