package history

import (
	"slices"
	"testing"
	"time"
)

// pushed is a run in which a task reached three users, was paused in the middle, and was completed.
func pushed() []Record {
	users := []string{"alice", "bob", "cathy"}
	rs := []Record{
		{Kind: Invoke, Sender: "t", Seq: 1, To: users, Persistent: true, Body: "b"},
		{Kind: OK, Sender: "t", Seq: 1, ID: "7"},
		{Kind: MoveAsk, ID: "7", Code: "pause"},
		{Kind: MoveAnswer, ID: "7", Code: "pause"},
	}
	for i, u := range users {
		rs = append(rs, Record{Kind: Held, ID: "7", Device: Device{User: u}, Count: min(i, 1)})
	}
	rs = append(rs, Record{Kind: MoveAsk, ID: "7", Code: "resume"}, Record{Kind: MoveAnswer, ID: "7", Code: "resume"},
		Record{Kind: Deliver, Device: phone, ID: "7", Body: "b", Pos: 1})
	for _, u := range users {
		rs = append(rs, Record{Kind: Held, ID: "7", Device: Device{User: u}, Count: 1})
	}
	rs = append(rs, Record{Kind: Told, ID: "7", Code: Completed, Counts: map[string]int64{Users: 3, Written: 3, Audience: 1, Acknowledged: 1}})
	for i := range rs {
		rs[i].At = time.Duration(i + 1)
	}
	return rs
}

func TestCheck_Tasks(t *testing.T) {
	last := func(rs []Record, k Kind) *Record {
		for i := len(rs) - 1; i >= 0; i-- {
			if rs[i].Kind == k {
				return &rs[i]
			}
		}
		return nil
	}
	without := func(rs []Record, k Kind, code string) []Record {
		return slices.DeleteFunc(rs, func(r Record) bool { return r.Kind == k && r.Code == code })
	}
	for _, c := range []struct {
		name  string
		plant func(rs []Record) []Record
		rules []string
	}{
		{"nothing", func(rs []Record) []Record { return rs }, nil},
		{"one has it twice", func(rs []Record) []Record { last(rs, Held).Count = 2; return rs }, []string{"task"}},
		{"one does not have it", func(rs []Record) []Record { last(rs, Held).Count = 0; return rs }, []string{"counts", "task"}},
		{"nobody let it go on", func(rs []Record) []Record {
			return without(without(rs, MoveAsk, "resume"), MoveAnswer, "resume")
		}, []string{"task"}},
		{"whether somebody let it go on is not known", func(rs []Record) []Record { return without(rs, MoveAnswer, "resume") }, nil},
		{"the pause was not answered", func(rs []Record) []Record {
			return without(without(without(rs, MoveAnswer, "pause"), MoveAsk, "resume"), MoveAnswer, "resume")
		}, nil},
		{"an answer to nothing", func(rs []Record) []Record { return without(rs, MoveAsk, "pause") }, []string{"task"}},
		{"more is told than is written", func(rs []Record) []Record { last(rs, Told).Counts[Written] = 4; return rs }, []string{"counts"}},
		{"less is told than is written", func(rs []Record) []Record { last(rs, Told).Counts[Written] = 2; return rs }, []string{"counts"}},
		{"not all slots were looked at", func(rs []Record) []Record {
			n := last(rs, Told).Counts
			n[Users], n[Written] = 9, 9
			return rs
		}, nil},
		{"the parts do not add up", func(rs []Record) []Record { last(rs, Told).Counts[Waiting] = 1; return rs }, []string{"counts"}},
		{"acknowledged by nobody's device", func(rs []Record) []Record {
			n := last(rs, Told).Counts
			n[Audience], n[Acknowledged] = 2, 2
			return rs
		}, []string{"counts"}},
		{"stopped in the middle", func(rs []Record) []Record {
			last(rs, Held).Count = 0
			told := last(rs, Told)
			told.Code, told.Counts[Written] = Stopped, 2
			return rs
		}, nil},
		{"taken back", func(rs []Record) []Record { return recall(rs, 0, 3) }, nil},
		{"taken back, and there", func(rs []Record) []Record { return recall(rs, 1, 3) }, []string{"task"}},
		{"taken back from too few", func(rs []Record) []Record { return recall(rs, 0, 2) }, []string{"counts"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, v := range Check(Run{}, c.plant(pushed())) {
				got = append(got, v.Rule)
				t.Log(v)
			}
			if got = slices.Compact(got); !slices.Equal(got, c.rules) {
				t.Errorf("got %v, want %v", got, c.rules)
			}
		})
	}
}

// recall has the task taken back: so often the last user has the message after that, and from so many it is told to be.
func recall(rs []Record, left int, from int64) []Record {
	at := rs[len(rs)-1].At
	add := func(r Record) {
		at++
		r.At = at
		rs = append(rs, r)
	}
	add(Record{Kind: MoveAsk, ID: "7", Code: "recall"})
	add(Record{Kind: MoveAnswer, ID: "7", Code: "recall"})
	for i, u := range []string{"alice", "bob", "cathy"} {
		add(Record{Kind: Held, ID: "7", Device: Device{User: u}, Count: left * (i / 2)})
	}
	add(Record{Kind: Told, ID: "7", Code: Stopped, Counts: map[string]int64{Users: 3, Written: 3, TakenBack: from, Audience: 1, Acknowledged: 1}})
	return rs
}
