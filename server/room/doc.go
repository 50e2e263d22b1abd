// Package room holds the connections of one node: it brings messages from slots and publishers to sessions, and
// acknowledgements back.
//
// # Place in the flow
//
// A transport hands a connection to [Room.Accept] and drives the session it gets. The session's first frame is connect: the
// room verifies the token, notes the session in its book, registers it, opens the device in the saver, answers welcome, and
// reads the slots. Publishers reach the room by [Room.Deliver]. Nothing else is needed to be correct: Deliver is a hint, and
// every SweepEvery the room reads its change logs and catches up with whatever it missed.
//
// # How a session follows a slot
//
// Each of the two slots of a session has a place, `at`: everything up to it was queued for the client or passed over. Three
// things move it. A notification of exactly the next position is queued at once. One that comes out of turn is held for
// HoldFor, and then the slot is read. A read covers a range of positions, holes included. All three happen under the
// session's lock and only ever extend `at` by what directly follows it, so there is neither gap nor duplicate, whatever the
// order of arrival. Where the epoch or the lineage of what comes differs from the place's, the slot is read from the place,
// and the store judges it (push.SlotState.Resolve).
//
// A session whose queue is full stops following: the slot keeps the rest. It reads on when the client has taken half.
//
// # How a delivery comes to its sessions
//
// Fan-out workers share users and shards among them. Each has two inboxes: one for what names users, one for what goes to
// everyone. The second is worked off in passes: up to bulkTogether deliveries that wait go out together, so that every session
// is locked and woken once for all of them, in chunks of bulkChunk sessions, and after each chunk the worker does what the
// first inbox holds. Sessions tell their transports which of the two they are woken for, and transports share their
// writing alike. So a message to one user, or a pong, waits for a chunk and not for a million, and a stream of them takes no
// more than every other turn. Where Config.Pace is set, chunks go out no faster than that (pace.go).
//
// # When the store falls back
//
// A store that fell back to an earlier state may have forgotten devices that are online, and without them it frees what they
// were not sent. The sweep finds that by the lineage of each shard, and the room asks the store about every session of it: what
// stands in doubt.go.
//
// # What is counted of tasks
//
// Messages of tasks are counted as they go to devices, are acknowledged, and come to nothing: when stands in tasks.go. The room adds it up by message and
// hands it to Config.Counts every second, under its life (tally.go). Acknowledgements of devices without a session here are counted here too (loose.go).
//
// # Invariants
//
//   - A session is in the book before it is in the register, and in the register before its slots are judged and read.
//   - An idle session owns no goroutine, no buffer, no timer of its own: deadlines hang on the room's timing wheel, and the
//     memory of a queue goes back to a pool when it is empty.
//   - A client is slow if its transport has taken for it and does not come back. One that has not had its turn is not.
//   - What was counted of a persistent message as sent, less what returned or was acknowledged, is what sessions hold in flight, at every moment; what was
//     acknowledged by devices beside their session counts as both.
//   - A device's acknowledgement of a message is counted by the room whose write moved the stored cursor over it, and by no other.
//   - A room without its lease writes nothing to a client but a goodbye (cutoff.go).
//   - No lock is held over a call to a store, a register, a transport's Close or Cut, or a fan-out.
//   - Persistent messages are queued in the order of their slot. Non-persistent ones never displace them and give up the oldest.
//   - After Closed a session holds nothing in the book, the wheel or the reader, and leaves the register by its epoch.
//
// The order of locks stands in docs/locks.md.
package room
