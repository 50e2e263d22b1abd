package redisdb

import (
	"strconv"
	"time"

	"carillon/server/push"
)

// ChangesKept is how many changes of a shard its log keeps.
const ChangesKept = 4096

// changesIdle is how long a log is kept, at least, after its last change.
const changesIdle = time.Hour

// logArgs is what announcements and questions to a log say besides the log's key.
type logArgs struct {
	log    string // its key
	user   push.UserID
	change string
	after  uint64
}

// Announce returns the command that tells rooms of an append to a user's slot, in the step of the append: if the user has sessions
// the change joins the shard's log, for the rooms that hold them. Its reply is the names of those rooms. A change is an entry of the one log of the
// shard, which every room reads over: to look past what is meant for others costs less than a log for each room, and the log is a key that
// the call names, so that a slot of a cluster may move meanwhile.
func (t Tag) Announce(u push.UserID, change []byte) Command {
	sessions, log := t.KeyPair(kindSessions, kindChanges, "")
	return Command{Key: sessions, log: &logArgs{log: log, user: u, change: string(change)}}
}

// ChangesSince returns the command, for a read, that asks the shard's log for what it was told after that number. See [ChangesOf].
func (t Tag) ChangesSince(after uint64) Command {
	return Command{log: &logArgs{log: t.ChangesKey(), after: after}}
}

// NewestChange returns the command that asks for the newest entry of the shard's log: a string that differs from all before it as far as the
// changes in them do, and nothing if there is no log. It costs Redis a fraction of what [Tag.ChangesSince] does, above all in [DB.Peek].
func (t Tag) NewestChange() Command {
	return Command{Name: "LINDEX", Key: t.ChangesKey(), Args: newestArgs}
}

var newestArgs = []any{"-1"} // which nobody changes

// ChangesAbsent is for how long a point may be kept without asking [Tag.ChangesSince] while there is no log: one that begins later than that goes on from points
// that are not much older.
const ChangesAbsent = changesIdle / 4

func (l *logArgs) encode(e *encoder, sessions string) {
	if sessions != "" {
		e.number(commandAnnounce)
		e.key(sessions)
	} else {
		e.number(commandSince)
	}
	e.key(l.log)
	e.number(ChangesKept)
	e.number(int(changesIdle / time.Second))
	if sessions != "" {
		e.text(string(l.user))
		e.text(l.change)
		return
	}
	e.number(int(l.after >> numberBits))
	e.made(func(b []byte) []byte { return strconv.AppendUint(b, l.after&(1<<numberBits-1), 10) })
}

// numberBits is how much of a point in a log is the number of a change; the rest is a mark of the lineage under which the log was read.
const numberBits = 48

func pointOf(l push.Lineage, number uint64) uint64 {
	return (uint64(l)&0x7fff|0x8000)<<numberBits | number
}

// ChangesOf returns what a reply to [Tag.ChangesSince] holds for a room, oldest first, the point to ask from the next time, and whether some of
// what was asked for is gone: the log overflowed since, or it is another log than that of the point. After zero all that is kept is
// returned, and it is trimmed if the log ever overflowed.
func ChangesOf(reply any, a Answer, room push.RoomID) (changes []string, next uint64, trimmed bool, err error) {
	parts, ok := reply.([]any)
	if !ok || len(parts) != 3 {
		return nil, 0, false, errReply
	}
	digits, ok1 := parts[0].(string)
	flag, ok2 := parts[1].(int64)
	entries, ok3 := parts[2].([]any)
	number, err := strconv.ParseUint(digits, 10, numberBits)
	if !ok1 || !ok2 || !ok3 || err != nil {
		return nil, 0, false, errReply
	}
	for _, e := range entries {
		s, ok := e.(string)
		if !ok || s == "" {
			return nil, 0, false, errReply
		}
		change, mine, ok := entryFor(s, room)
		if !ok {
			return nil, 0, false, errReply
		}
		if mine {
			changes = append(changes, change)
		}
	}
	return changes, pointOf(a.Lineage, number), flag != 0, nil
}

// entryFor returns the change in an entry of a log and whether it is for the room.
func entryFor(s string, room push.RoomID) (change string, mine, ok bool) {
	rooms := int(s[0])
	s = s[1:]
	for range rooms {
		if s == "" || len(s) < 1+int(s[0]) {
			return "", false, false
		}
		n := int(s[0])
		mine = mine || s[1:1+n] == string(room)
		s = s[1+n:]
	}
	return s, mine, true
}
