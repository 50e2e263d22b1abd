package history

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"
)

// long is a run of any length in which the promise held, as torture has it at a rate: senders send batches to one user of many each, one message in
// two hundred goes to everyone, each user has two devices, whose sessions are replaced now and then, and a store falls back for a while.
type long struct {
	users, senders, batch int
	records               int // about; the last batch is delivered
}

// fiftyUsers is as many as 1 000 messages a second have.
var fiftyUsers = long{users: 50, senders: 10, batch: 40}

func (g long) run() (run Run) {
	for u := range g.users {
		run.Devices = append(run.Devices, g.device(u, "phone"), g.device(u, "web"))
	}
	run.AcksBySlot, run.EveryoneLater, run.LiveWithin, run.KickWithin = true, true, time.Minute, 3*time.Second
	return run
}

func (g long) device(u int, name string) Device {
	return Device{User: fmt.Sprintf("user%d", u), Device: name}
}

// into gives add one record after the other. They are about a millisecond apart.
func (g long) into(add func(*Record)) {
	n, at := 0, time.Duration(0)
	note := func(r Record) {
		at += time.Millisecond
		n, r.At = n+1, at
		add(&r)
	}
	devices := g.run().Devices
	sessions, seen := make([]uint64, len(devices)), make([]int, len(devices))
	pos := make([][2]uint64, g.users)
	welcome := func(i int, from string) {
		sessions[i] += 1000
		note(Record{Kind: Online, Device: devices[i], Session: sessions[i], Begins: [2]string{from, from}})
	}
	for i := range devices {
		welcome(i, FromStart)
	}
	type message struct {
		Record
		id string
	}
	seqs, ids := make([]int, g.senders), 7345881023471616
	for turn := 0; n < g.records; turn++ {
		sender := turn % g.senders
		batch := make([]message, g.batch)
		for i := range batch {
			seqs[sender]++
			ids++
			m := &batch[i]
			m.Record = Record{Kind: Invoke, Sender: fmt.Sprintf("sender%d", sender), Seq: seqs[sender], Persistent: true}
			m.Key, m.Body, m.id = fmt.Sprintf("%s-%d", m.Sender, m.Seq), fmt.Sprintf(`"%s/%d"`, m.Sender, m.Seq), fmt.Sprint(ids)
			if m.Everyone = (turn*g.batch+i)%200 == 199; !m.Everyone {
				m.To = []string{fmt.Sprintf("user%d", (turn*7+i)%g.users)}
			}
			note(m.Record)
		}
		if turn%20 == 19 { // nobody answers, and it is sent again
			for i := range batch {
				note(Record{Kind: Unknown, Sender: batch[i].Sender, Seq: batch[i].Seq})
			}
			for i := range batch {
				note(batch[i].Record)
			}
		}
		for i := range batch {
			note(Record{Kind: OK, Sender: batch[i].Sender, Seq: batch[i].Seq, ID: batch[i].id})
		}
		for i := range batch {
			m := &batch[i]
			for u := range g.users {
				if !m.Everyone && m.To[0] != fmt.Sprintf("user%d", u) {
					continue
				}
				slot := m.slot()
				pos[u][slot]++
				for k := 2 * u; k < 2*u+2; k++ {
					note(Record{Kind: Deliver, Device: devices[k], Session: sessions[k], ID: m.id, Body: m.Body, Slot: slot, Pos: pos[u][slot]})
					if seen[k]++; seen[k]%2 == 0 {
						note(Record{Kind: Ack, Device: devices[k], Slot: slot, Pos: pos[u][slot]})
					}
					if seen[k]%100 == 0 {
						welcome(k, "")
					}
				}
			}
		}
		if turn%500 == 499 {
			note(Record{Kind: Lost, Since: at - 10*time.Second, Throughout: true})
			note(Record{Kind: Stall, Since: at - 10*time.Second})
		}
	}
}

// slot is where a message lies.
func (r *Record) slot() int {
	if r.Everyone {
		return 1
	}
	return 0
}

// log returns the run as torture has it.
func (g long) log() *Log {
	l := NewLog(time.Now())
	g.into(l.addLocked)
	return l
}

// TestCheckAll_FindsOneBreachAmongMany has one record of many be another: what is wrong is found, and nothing else.
func TestCheckAll_FindsOneBreachAmongMany(t *testing.T) {
	g := fiftyUsers
	g.records = 50_000
	var whole []Record
	g.into(func(r *Record) { whole = append(whole, *r) })
	bare := slices.DeleteFunc(whole, func(r Record) bool { return r.Kind == Lost || r.Kind == Stall })
	middle := len(bare) / 2
	nth := func(k Kind, ok func(*Record) bool) int {
		return middle + slices.IndexFunc(bare[middle:], func(r Record) bool { return r.Kind == k && (ok == nil || ok(&r)) })
	}
	own := func(r *Record) bool { return r.Slot == 0 }
	for name, c := range map[string]struct {
		change func(rs []Record) []Record
		rule   string // empty: nothing is wrong
	}{
		"nothing": {func(rs []Record) []Record { return rs }, ""},
		"not delivered": {func(rs []Record) []Record {
			i := nth(Deliver, own)
			return slices.Delete(rs, i, i+1)
		}, "lost"},
		"delivered twice": {func(rs []Record) []Record {
			r := rs[nth(Deliver, own)]
			r.At, r.Pos = r.At+time.Millisecond/2, 1<<40
			return append(rs, r)
		}, "duplicate"},
		"on a session that was replaced": {func(rs []Record) []Record {
			i := nth(Deliver, func(r *Record) bool { return r.Slot == 0 && r.Session > 2000 })
			rs[i].Session -= 2000
			return rs
		}, "kick"},
		"another body": {func(rs []Record) []Record {
			rs[nth(Deliver, nil)].Body = "x"
			return rs
		}, "phantom"},
		"a message of long ago": {func(rs []Record) []Record {
			i := nth(Deliver, own)
			first := slices.IndexFunc(rs, func(r Record) bool { return r.Kind == Deliver && r.Device == rs[i].Device && r.Slot == 0 })
			r := rs[first]
			r.At, r.Pos, r.Session = rs[i].At+time.Millisecond/2, 1<<40, rs[i].Session
			return append(slices.Delete(rs, first, first+1), r)
		}, "order"},
		"a position twice": {func(rs []Record) []Record {
			i := nth(Deliver, own)
			rs[i].Pos++
			return rs
		}, "position"},
	} {
		var found []string // as rules: which of two devices has it wrong is not known, and it may be so of all that follows
		for _, v := range Check(g.run(), c.change(slices.Clone(bare))) {
			found = append(found, v.Rule)
		}
		if found = slices.Compact(found); strings.Join(found, " ") != c.rule {
			t.Errorf("%s: found %q, want %q", name, found, c.rule)
		}
	}
}

// TestCheckAll_HoldsSomeHundredBytesForARecord bounds what ten million records take: what a log and the checker allocate grows with the
// number of the records, and by so much.
func TestCheckAll_HoldsSomeHundredBytesForARecord(t *testing.T) {
	for _, n := range []int{25_000, 200_000} {
		g := fiftyUsers
		g.records = n
		var before, after runtime.MemStats
		l := g.log()
		runtime.ReadMemStats(&before)
		if found := CheckAll(g.run(), l.All()); len(found) > 0 {
			t.Fatalf("%d violations, the first: %v", len(found), found[0])
		}
		runtime.ReadMemStats(&after)
		log, check := (len(l.full)*chunkSize+len(l.chunk))/n, int(after.TotalAlloc-before.TotalAlloc)/n
		t.Logf("%d records: the log holds %d bytes for each, the checker takes %d, those that it drops among them", n, log, check)
		if log > 80 || check > 400 {
			t.Errorf("%d records: %d and %d bytes for each", n, log, check)
		}
	}
}

// BenchmarkCheck judges a million records and ten million: -bench Check -benchtime 1x. peak-MB is the most that Go had mapped.
func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{1_000_000, 10_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			g := fiftyUsers
			g.records = n
			l := g.log()
			runtime.GC()
			peak, stop := peakMB()
			for b.Loop() {
				if found := CheckAll(g.run(), l.All()); len(found) > 0 {
					b.Fatalf("%d violations, the first: %v", len(found), found[0])
				}
			}
			close(stop)
			b.ReportMetric(<-peak, "peak-MB")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/record")
		})
	}
}

// peakMB watches how much memory is taken from the system until stop is closed.
func peakMB() (<-chan float64, chan<- struct{}) {
	peak, stop := make(chan float64, 1), make(chan struct{})
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		most := uint64(0)
		for {
			s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
			metrics.Read(s)
			most = max(most, s[0].Value.Uint64()-s[1].Value.Uint64())
			select {
			case <-tick.C:
			case <-stop:
				peak <- float64(most) / 1e6
				return
			}
		}
	}()
	return peak, stop
}
