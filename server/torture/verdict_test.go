package torture

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"carillon/server/history"
)

// aRun returns what is on record of a run in which one message was accepted, and seen or not by alice's phone.
func aRun(seen bool) (history.Run, []history.Record) {
	phone := history.Device{User: "alice", Device: "phone"}
	rs := []history.Record{
		{At: 1, Kind: history.Online, Device: phone, Session: 1, Begins: [2]string{history.FromStart, history.FromHead}},
		{At: 10, Kind: history.Invoke, Sender: "s", Seq: 1, To: []string{"alice"}, Body: "b", Persistent: true},
		{At: 20, Kind: history.OK, Sender: "s", Seq: 1, ID: "1"},
	}
	if seen {
		rs = append(rs, history.Record{At: 30, Kind: history.Deliver, Device: phone, Session: 1, ID: "1", Body: "b", Pos: 7})
	}
	return history.Run{Devices: []history.Device{phone}, AcksBySlot: true}, rs
}

func rules(vs []history.Violation) (out []string) {
	for _, v := range vs {
		out = append(out, v.Rule)
	}
	return out
}

func TestVerdict_OnlyADurabilityThatDoesNotOutliveAFailoverExcusesALoss(t *testing.T) {
	failover := []history.Record{{At: 25, Kind: history.Lost, Since: 5, Throughout: true}}
	for _, c := range []struct {
		name    string
		seen    bool
		losses  []history.Record
		mayLose bool
		lost    int64
		want    []string
	}{
		{"all arrived", true, nil, false, 0, nil},
		{"no failover", false, nil, false, 1, []string{"lost"}},
		{"replicated", false, failover, false, 1, []string{"lost"}},
		{"process", false, failover, true, 1, nil},
		{"process, and the failover was before", false, []history.Record{{At: 8, Kind: history.Lost, Since: 5}}, true, 1, []string{"lost"}},
	} {
		run, rs := aRun(c.seen)
		got, lost := verdict(run, history.Of(rs), c.losses, c.mayLose)
		if lost != c.lost || !slices.Equal(rules(got), c.want) {
			t.Errorf("%s: lost %d, found %v; want %d, %v", c.name, lost, got, c.lost, c.want)
		}
	}
}

func TestVerdict_APositionComesTwiceOnlyOverAFailover(t *testing.T) {
	run, rs := aRun(true)
	phone := run.Devices[0]
	rs = append(rs,
		history.Record{At: 40, Kind: history.Invoke, Sender: "s", Seq: 2, To: []string{"alice"}, Body: "c", Persistent: true},
		history.Record{At: 50, Kind: history.OK, Sender: "s", Seq: 2, ID: "2"},
		history.Record{At: 60, Kind: history.Deliver, Device: phone, Session: 1, ID: "2", Body: "c", Pos: 7},
	)
	if got, _ := verdict(run, history.Of(rs), nil, false); !slices.Equal(rules(got), []string{"position"}) {
		t.Errorf("without a failover: %v", got)
	}
	if got, _ := verdict(run, history.Of(rs), []history.Record{{At: 70, Kind: history.Lost, Since: 25, Throughout: true}}, false); len(got) > 0 {
		t.Errorf("over a failover: %v", got)
	}
}

func TestPauses_AreTheLongestTimeWithoutAnAcceptedMessageInASpell(t *testing.T) {
	var sent []history.Record
	for _, at := range []time.Duration{5, 12, 14, 40, 41, 60} {
		sent = append(sent, history.Record{At: at, Kind: history.OK}, history.Record{At: at - 1, Kind: history.Invoke})
	}
	got := pauses([]spell{{"within", 10, 15}, {"to behind it", 10, 20}, {"none after", 60, 67}}, history.Of(sent))
	if want := (Times{7, 26, 26}); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", []time.Duration(got), []time.Duration(want))
	}
}

func TestConfig_NamesWhatItDoesNotKnow(t *testing.T) {
	for _, c := range []Config{
		{Form: "tape", Length: time.Second}, {Form: Standalone}, {Form: Standalone, Durability: Replicated, Length: time.Second},
		{Form: Sentinel, Durability: "hope", Length: time.Second}, {Rate: -1, Length: time.Second}, {Rate: maxRate + 1, Length: time.Second},
	} {
		if got, err := c.withDefaults(); err == nil {
			t.Errorf("%+v became %+v", c, got)
		}
	}
	for form, want := range map[Form]int{Embedded: 0, Standalone: 0, Sentinel: 2, Cluster: 1} {
		c, err := Config{Form: form, Length: time.Second}.withDefaults()
		if err != nil || c.replicas() != want {
			t.Errorf("%s: %d replicas, %v; want %d", form, c.replicas(), err, want)
		}
	}
}

func TestConfig_ARateHasUsersThatKeepUpAndLimitsThatHold(t *testing.T) {
	for _, c := range []struct {
		rate, users int
		pause       time.Duration
		limits      bool
	}{
		{0, 8, 20 * time.Millisecond, false}, {40, 8, 300 * time.Millisecond, true}, {500, 25, 24 * time.Millisecond, true}, {5000, 250, 20 * time.Millisecond, true},
	} {
		got, err := Config{Rate: c.rate, Length: time.Second}.withDefaults()
		if err != nil || got.Users != c.users || got.Pause != c.pause || (got.limits() != nil) != c.limits {
			t.Errorf("at %d: %d users, a pause of %v, limits %v, %v; want %d, %v", c.rate, got.Users, got.Pause, got.limits(), err, c.users, c.pause)
		}
	}
}

func TestFaults_EachKindComesOnceBeforeAnyComesAgain(t *testing.T) {
	for _, form := range []Form{Embedded, Standalone, Sentinel, Cluster} {
		w := &world{cfg: Config{Form: form, Seed: 5}}
		for _, faults := range [][]fault{w.nodeFaults(), w.storeFaults(), w.networkFaults()} {
			if len(faults) == 0 && form != Embedded {
				t.Errorf("%s: its store never fails", form)
			}
			next := sequence(w.rng(1), faults)
			seen := make(map[string]bool)
			for range faults {
				seen[next().name] = true
			}
			if len(seen) != len(faults) {
				t.Errorf("%s: of %d kinds only %v came", form, len(faults), seen)
			}
			sum, times := 0, make(map[string]int)
			for _, f := range faults {
				sum += f.weight
			}
			for range 3 * sum {
				times[next().name]++
			}
			for _, f := range faults {
				if times[f.name] != 3*f.weight {
					t.Errorf("%s: in three rounds %s came %d times, want %d", form, f.name, times[f.name], 3*f.weight)
				}
			}
		}
	}
}

func TestSkewed_IsWithinItsBoundsAndMostOftenShort(t *testing.T) {
	rng, short := rand.New(rand.NewPCG(3, 4)), 0
	for range 1000 {
		switch d := skewed(rng, time.Second, time.Minute); {
		case d < time.Second || d > time.Minute:
			t.Fatalf("drew %v", d)
		case d < 7746*time.Millisecond: // the root of 60
			short++
		}
	}
	if short < 450 || short > 550 {
		t.Errorf("%d of 1000 are short", short)
	}
}
