package torture

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"carillon/server/client"
	"carillon/server/history"
)

// Report says what was done in a run and what was found.
type Report struct {
	Form       Form
	Durability Durability
	Seed       uint64
	Rate       int // messages a second that were offered; 0: as many as senders came to
	Took       time.Duration

	Faults     map[string]int // by kind
	Accepted   int64          // persistent messages
	Everyone   int64          // of them to everyone
	Live       int64          // that were not to be kept
	Repeated   int64          // accepted ones that were sent once more
	Batches    int64          // requests with several
	Kicks      int64
	Twins      int64 // second sessions of devices
	Paused     Times // no publication was accepted for so long, by fault of the store
	Away       Times // of devices whose connection broke, until they had caught up
	Killed     Times // of them those whose room was killed
	Deliveries int64 // to applications of devices
	Gaps       int64 // that devices were told of
	Lost       int64 // accepted persistent messages that did not reach a device
	MayLose    bool  // so that this is no violation
	Violations []history.Violation
}

// The times within which things have to be, on a machine that is busy with much else.
const (
	liveWithin = 10 * time.Second // beyond the longest freeze: a room that is frozen keeps what it was about to write
	kickWithin = 3 * time.Second
)

// judge judges the histories.
func (w *world) judge(rep *Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	run := history.Run{AcksBySlot: true, EveryoneLater: w.cfg.Form != Embedded, LiveWithin: w.cfg.longestFreeze() + liveWithin, KickWithin: kickWithin,
		Remembers: client.RecentIDs}
	for _, d := range w.devices {
		run.Devices = append(run.Devices, d.name)
		rep.Deliveries += d.seen.Load()
		rep.Gaps += d.gaps.Load()
	}
	rep.Faults = w.faults.get()
	rep.Accepted, rep.Everyone, rep.Live = w.accepted.Load(), w.everyone.Load(), w.live.Load()
	rep.Repeated, rep.Kicks = w.repeated.Load(), w.kicks.Load()
	rep.Batches, rep.Twins = w.batches.Load(), w.twinned.Load()
	if n := rep.Faults[wipes]; n > 0 && w.wiped.Load() == 0 {
		w.breaches = append(w.breaches, history.Violation{Rule: "injector", Detail: fmt.Sprintf("%s %d times, and no key of it was found", wipes, n)})
	}
	rep.Paused = pauses(w.store, w.sent.All())
	for _, a := range w.away {
		rep.Away = append(rep.Away, a.to-a.from)
		if slices.ContainsFunc(w.kills, func(k spell) bool { return a.from >= k.from && a.from <= k.to }) {
			rep.Killed = append(rep.Killed, a.to-a.from)
		}
	}
	slices.Sort(rep.Away)
	slices.Sort(rep.Killed)
	records := history.Merge(w.sent.All(), w.seen.All(), history.Of(w.stalls))
	rep.MayLose = w.cfg.Durability == Process && len(w.losses) > 0
	found, lost := verdict(run, records, w.losses, rep.MayLose)
	rep.Lost = lost
	rep.Violations = append(found, w.breaches...)
}

// verdict judges records, and counts what was accepted and did not arrive. A failover may take back what was not accepted and yet seen by
// somebody: positions come again, and repeats of it lie elsewhere. So what a loss excuses is excused in all but what was accepted, unless
// that may be lost as well.
func verdict(run history.Run, records history.Seq, losses []history.Record, mayLose bool) (found []history.Violation, lost int64) {
	strict := history.CheckAll(run, records)
	for _, v := range strict {
		if v.Rule == "lost" {
			lost++
			if !mayLose {
				found = append(found, v)
			}
		}
	}
	lenient := strict
	if len(losses) > 0 {
		lenient = history.CheckAll(run, history.Merge(records, history.Of(losses)))
	}
	for _, v := range lenient {
		if v.Rule != "lost" || mayLose {
			found = append(found, v)
		}
	}
	return found, lost
}

// faults is how many there were in all.
func (r *Report) faults() (n int) {
	for _, c := range r.Faults {
		n += c
	}
	return n
}

// shown is how many violations are told one by one.
const shown = 20

// String tells everything, in some lines.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s, seed %d, %v\n", r.Form, r.Durability, r.Seed, r.Took.Round(time.Second))
	fmt.Fprintf(&b, "faults:     %d: %s\n", r.faults(), strings.Join(counted(r.Faults), "; "))
	fmt.Fprintf(&b, "messages:   %d persistent accepted, %d of them to everyone, %d of them sent again; %d that are not to be kept; %d kicks, %d twins\n",
		r.Accepted, r.Everyone, r.Repeated, r.Live, r.Kicks, r.Twins)
	if r.Rate > 0 {
		fmt.Fprintf(&b, "rate:       %d a second offered, in %d batches and one by one; %.0f persistent ones a second accepted\n",
			r.Rate, r.Batches, float64(r.Accepted)/r.Took.Seconds())
	}
	fmt.Fprintf(&b, "deliveries: %d persistent; %d gaps told\n", r.Deliveries, r.Gaps)
	fmt.Fprintf(&b, "nothing accepted, by fault of the store:      %v\n", r.Paused)
	fmt.Fprintf(&b, "away until caught up, room killed:            %v\n", r.Killed)
	fmt.Fprintf(&b, "away until caught up, whatever was the cause: %v\n", r.Away)
	switch {
	case r.Lost > 0 && r.MayLose:
		fmt.Fprintf(&b, "lost:       %d, which durability process allows on a failover\n", r.Lost)
	default:
		fmt.Fprintf(&b, "lost:       %d", r.Lost)
		if few := bound(r.Accepted, r.Lost); few != "" {
			fmt.Fprintf(&b, "; %s, at 95 %% confidence", few)
		}
		b.WriteString("\n")
	}
	for i, v := range r.Violations {
		if i == shown {
			fmt.Fprintf(&b, "and %d more\n", len(r.Violations)-i)
			break
		}
		fmt.Fprintf(&b, "%v\n", v)
	}
	if len(r.Violations) == 0 {
		b.WriteString("the promise held\n")
	} else {
		fmt.Fprintf(&b, "THE PROMISE WAS BROKEN: %d violations\n", len(r.Violations))
	}
	return b.String()
}
