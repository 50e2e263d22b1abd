package room

import (
	"time"

	"carillon/server/push"
)

// A device that was not seen for weeks is forgotten (push.Limits.DeviceUnseen), and the store sees it come and go. One that stays
// connected does neither. So once a day the room notes each device that it holds as seen, with the acknowledgements of common
// slots. Every device has its own time of day for that: a million of them are twelve entries a second, in batches that are
// written anyway, and never come all at once. The wheel, which looks at a session once an interval of its heartbeat, finds the time.

// seenAtLeast is how often. Where a product forgets devices that were unseen for less than two days, it is twice in that time.
const seenAtLeast = 24 * time.Hour

// seen is what a session knows of that. It lies in the place of the common slot, where there is room for it.
type seen struct {
	day uint8 // on which the device was noted last, as dayAt counts; another day is a later one
	due bool  // it is noted, and the store has not been told
}

func (s *session) seen() *seen { return &s.slots[push.Common].seen }

// noteUnseen takes from a product's limits how often devices have to be noted.
func (bs *bookShard) noteUnseen(l push.Limits) {
	bs.seenEvery.Store(int64(min(seenAtLeast, l.WithDefaults().DeviceUnseen/2)))
}

// dayAt counts days as this device has them. They begin at a time that hangs on a hash, its cursors' owner; heartbeats differ by
// other bits of it. Should a day become longer or shorter, the device is noted once more, which does no harm.
func (s *session) dayAt(now moment) uint8 {
	day := max(1<<16, s.shard.seenEvery.Load())
	begins := day >> 16 * int64(s.owner>>16&0xffff)
	return uint8((int64(now) + begins) / day)
}

// noteSeenLocked has the store told that the device of an open session is there, if it is another day.
func (s *session) noteSeenLocked(now moment) {
	if d := s.dayAt(now); d != s.seen().day {
		s.seen().day, s.seen().due = d, true
		s.room.acks.note(s, push.Common)
	}
}
