package task

import (
	"carillon/server/push"
)

// Life names one life of a room: the room and a number that another life of it does not have (the boot id of its process). What it counted, and did not add
// before it died, is lost; what it said is on its way to devices then is what nobody can account for. A room that lost its lease and took it again
// goes on under the same life, and so does what it counts. One that stops by itself returns what is in flight first.
type Life struct {
	Room push.RoomID
	Boot push.BootID
}

// Kind says what was counted of a task's message on devices.
//
// In each life of a room Sent - Returned - Acknowledged - Dropped is how many devices hold the message in flight there, as far as the room knows, and over
// all rooms a device is counted as Acknowledged at most once. Rooms add what they counted every second, so different rooms may be a second apart: a
// device that goes from one to another is for that time in flight in both, or in none. What is counted is never too much, and in rare cases too little: an acknowledgement that the
// store may or may not have written (the connection to it broke), or that passed what had expired meanwhile, ends as Returned or as nothing. So whoever adds
// up an audience gets "waiting" as what is left of it, not below zero.
type Kind uint8

// The kinds; they are stored. All only rise.
const (
	// Sent: it came into the queue of a session of a device that had not acknowledged it, whether it was written or not; once a session. Or the device presented a place
	// behind it, from a session before, that the store did not know of: then the acknowledgement of that place is counted here, and so is this. Or the device
	// acknowledged it through a room that has no session of it: then that room counts both, and the one with the session has it as Returned when it learns of that, which
	// takes until the session's next acknowledgement, the room's next writing of those of common slots (30 s), or the session's end.
	Sent Kind = iota
	// Returned: such a session ended, or passed the recall, or found that another room had moved the device's stored cursor over it, or the store lost it; and
	// its own acknowledgement had not moved the cursor. The session's last acknowledgement is written before that.
	Returned
	// Acknowledged: the device's stored cursor was moved over it by an acknowledgement that this room wrote, once the store has said so. Own slots' are written every
	// 250 ms, common ones' every 30 s (room.Config). A message that is not persistent is never acknowledged.
	Acknowledged
	// Displayed: the device said that it was displayed, for the first time in this session; a room that has a message in its counts takes it from any device, one that does
	// not (it started since) counts nothing, since it cannot tell a task's message by its id.
	Displayed
	// Clicked: the same of a click.
	Clicked
	// Dropped: a message that is not persistent was given up for lack of room in a session's queue. What a slot's limits dropped is told to devices as a gap of
	// positions, and no room knows which messages lay there: those are not counted.
	Dropped
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
