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
	if err := Write(&b, good()); err != nil {
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
