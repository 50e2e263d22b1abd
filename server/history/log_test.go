package history

import (
	"reflect"
	"slices"
	"testing"
	"time"
)

// full returns a record of which each field has a value.
func full(t *testing.T, k Kind) Record {
	t.Helper()
	r := Record{
		At: 7, Kind: k, Product: "news", Sender: "s", Seq: 3, Key: "k", ID: "12", To: []string{"alice", "bob"}, Devices: []Device{phone, far}, Everyone: true,
		Having: &Having{All: []string{"a"}}, Persistent: true, Body: `"b"`, Collapse: "c", TTL: time.Hour, Code: "no", Device: far, Session: 1<<63 + 5,
		Begins: [2]string{FromStart, FromHead}, Slot: -1, Pos: 1<<64 - 1, Reset: true, Since: -time.Second, Throughout: true, Count: 9, Set: "set", Tags: []string{"x"},
		Counts: map[string]int64{Written: 1},
	}
	for v, i := reflect.ValueOf(r), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Fatalf("%s is not tried", v.Type().Field(i).Name)
		}
	}
	return r
}

func TestLog_GivesBackEachFieldOfEachKind(t *testing.T) {
	l := NewLog(time.Now())
	var want []Record
	for _, k := range kinds {
		whole := full(t, k)
		want = append(want, whole, Record{At: 9, Kind: k})
		for i := range reflect.TypeFor[Record]().NumField() { // each field by itself
			one := Record{At: 8, Kind: k}
			reflect.ValueOf(&one).Elem().Field(i).Set(reflect.ValueOf(whole).Field(i))
			want = append(want, one)
		}
	}
	for i := range want {
		l.addLocked(&want[i])
	}
	if got := l.Records(); !reflect.DeepEqual(got, want) {
		for i := range want {
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Fatalf("record %d is\n%+v, want\n%+v", i, got[i], want[i])
			}
		}
	}
}

func TestLog_FillsChunksAndIsReadWhileItGrows(t *testing.T) {
	l := NewLog(time.Now())
	const n = 100_000
	for i := range n {
		l.Add(Record{Kind: Deliver, Device: phone, ID: "some id of a message", Pos: uint64(i)})
	}
	next := uint64(0)
	for r := range l.All() {
		if r.Pos != next || r.Device != phone {
			t.Fatalf("record %d is %+v", next, *r)
		}
		if next++; next < 10 {
			l.Add(Record{Kind: Gap, Device: web})
		}
	}
	if next != n || len(l.full) < 2 {
		t.Errorf("%d records in %d full chunks", next, len(l.full))
	}
	for range l.All() {
		return // who does not want all gets no more
	}
}

func TestMerge_IsInTheOrderOfTimes(t *testing.T) {
	at := func(id string, times ...time.Duration) (rs []Record) {
		for _, d := range times {
			rs = append(rs, Record{Kind: OK, At: d, ID: id})
		}
		return rs
	}
	var got []string
	merged := Merge(Of(at("a", 5, 1, 9, 5)), Of(nil), Of(at("b", 2, 5, 6)))
	for range 2 { // as often as it is asked
		got = nil
		for r := range merged {
			got = append(got, r.ID+r.At.String())
		}
	}
	if want := []string{"a1ns", "b2ns", "a5ns", "a5ns", "b5ns", "b6ns", "a9ns"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for range merged {
		return
	}
}
