package task

import "carillon/server/push"

// Funnel is what became of a task's message on devices. At every moment Audience is the sum of Waiting, InFlight, Acknowledged, Expired, Recalled, what is
// Dropped, and Unaccounted.
type Funnel struct {
	Audience     int64
	Exact        bool // false: Stored was estimated
	Stored       int64
	Online       int64
	Waiting      int64
	InFlight     int64 // of a message that is not persistent: who it was handed to
	Acknowledged int64
	Displayed    int64
	Clicked      int64
	Expired      int64
	Recalled     int64
	Dropped      map[string]int64
	Unaccounted  int64
}

// Sent returns how many devices have been sent the message, as far as is known.
func (f *Funnel) Sent() int64 { return f.InFlight + f.Acknowledged }

// The reasons why a message is dropped.
const (
	DroppedLimit   = "limit"   // a limit of the product dropped it before the device got it
	DroppedOffline = "offline" // it was not persistent, and the device was not there any more
)

// FunnelOf makes the funnel out of what the task says and what rooms counted. alive says whether a room's life goes on: what was in flight in
// one that is over, and was not counted since, nobody can account for. A device of them that comes back elsewhere is counted there; so they are at most as many as
// are missing in the sum.
func FunnelOf(t *Task, counts map[Life]Counts, persistent bool, alive func(Life) bool, now push.MilliTime) Funnel {
	var all Counts
	var lost int64
	f := Funnel{Exact: !t.Run.Common, Stored: t.Run.Devices, Online: t.Run.Online, Dropped: map[string]int64{}}
	for life, c := range counts {
		all.Add(c)
		switch n := c.Flight(); {
		case !persistent: // nobody says whether a device has it, and nobody gets it again
			f.InFlight += c[Sent] - c[Dropped]
		case !alive(life):
			lost += n
		default:
			f.InFlight += n
		}
	}
	f.Acknowledged, f.Displayed, f.Clicked = all[Acknowledged], all[Displayed], all[Clicked]
	dropped := all[Dropped]
	known := f.InFlight + f.Acknowledged + dropped
	f.Audience = max(f.Stored, known)
	rest := f.Audience - known
	if dropped > 0 {
		f.Dropped[DroppedLimit] = dropped
	}
	f.Unaccounted = min(lost, rest)
	rest -= f.Unaccounted
	switch {
	case rest == 0:
	case !persistent:
		f.Dropped[DroppedOffline] = rest
	case t.Run.Recalled != 0:
		f.Recalled = rest
	case t.Run.Expires != 0 && t.Run.Expires <= now:
		f.Expired = rest
	default:
		f.Waiting = rest
	}
	return f
}
