package task

import (
	"carillon/server/push"
)

// Life names one life of a room: the room and a number that another life of it does not have. What it counted, and did not add before it
// died, is lost; what it said is on its way to devices then is what nobody can account for.
type Life struct {
	Room push.RoomID
	Boot push.BootID
}

// Kind says what was counted of a task's message on devices.
type Kind uint8

// The kinds; they are stored. All only rise.
const (
	Sent         Kind = iota // it was sent to a session of a device that had not acknowledged it
	Returned                 // such a session ended, or was overtaken by a recall, and the device had not acknowledged it
	Acknowledged             // the device's stored cursor passed it
	Displayed                // the device said that it was displayed, for the first time as far as the room knows
	Clicked                  // the same of a click
	Dropped                  // a limit dropped it before the device got it: the device was told of a gap
	kinds
)

// Kinds is how many kinds there are.
const Kinds = int(kinds)

// String returns the kind's name, as it stands in metrics.
func (k Kind) String() string {
	return [...]string{"sent", "returned", "acknowledged", "displayed", "clicked", "dropped"}[k]
}

// Counts is how often each kind was counted.
type Counts [Kinds]int64

// Counted is what a room counted of one task since it last added to it.
type Counted struct {
	Product push.ProductID
	Task    push.MsgID
	Life    Life
	Counts  Counts
}

// Add adds c to o.
func (o *Counts) Add(c Counts) {
	for i := range c {
		o[i] += c[i]
	}
}

// Flight returns how many devices have been sent it by sessions that go on, and have not acknowledged it.
func (o *Counts) Flight() int64 { return max(0, o[Sent]-o[Returned]-o[Acknowledged]-o[Dropped]) }
