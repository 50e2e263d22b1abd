// Package task is the contract over pushes that are managed: what a task is, which states it goes through, which moves are
// allowed and who makes them, the lists of users that are uploaded for tasks, and what became of a task's message.
//
// # Place in the flow
//
// Center makes tasks and runs them: it takes a lease on a task that is due, writes its message batch by batch (saver.Batches), and
// keeps in the task how far it came. Rooms count what becomes of a task's message on devices, and add it to the task's counts.
// Implementations are memory, pebble and (on several nodes) redis, all behind the suite tasktest.
//
// # Invariants
//
//   - A task's state changes by a move of [Moves] alone, and each change raises its revision.
//   - A task has one message, of the task's own id, whatever happens to it: devices drop what comes twice by that id.
//   - Who runs a task holds a lease that ends by the store's clock, and a token. Each takeover, and each move that ends writing
//     (pause, stop, recall, the switch), raises the token; the saver refuses a batch under an older one. So no
//     batch is written after such a move is answered, whoever believes to hold the lease.
//   - What was counted of a batch is stored with the checkpoint that says that it is written, in one step.
//   - A list never changes. Each of its users stands in it once.
package task

import (
	"encoding/json"
	"time"

	"carillon/server/push"
)

// Limits of what is stored of a task.
const (
	MaxName   = 200                 // bytes of a task's name
	MaxTest   = 1000                // users of a test group
	MaxReason = 200                 // bytes of a reason that an operator gives
	MaxMoves  = 64                  // of a task's latest moves are kept
	Kept      = 90 * 24 * time.Hour // how long a task is kept after its last change, once it has ended
	KeyKept   = 24 * time.Hour      // how long an idempotency key is remembered
)

// Task is one managed push.
type Task struct {
	Product  push.ProductID `json:"product"`
	ID       push.MsgID     `json:"id"`       // of the task and of its message
	Revision int64          `json:"revision"` // 1 when it is made; set by the store
	Created  push.MilliTime `json:"created"`  // set by the store
	Changed  push.MilliTime `json:"changed"`  // of the last move or edit; set by whoever makes it

	Spec
	State State `json:"state"`
	// Why it is in that state, where that says more than the state: a code of push.Error of a task that failed, or a Reason.
	Reason string `json:"reason,omitempty"`
	// Approval says that somebody else has to approve before it starts.
	Approval bool       `json:"approval,omitempty"`
	By       Actor      `json:"by"`                 // who made it
	Approved *Actor     `json:"approved,omitempty"` // who approved it
	Parent   push.MsgID `json:"parent,omitempty"`   // the recurring task that this is an occurrence of; 0: none
	Cloned   push.MsgID `json:"cloned,omitempty"`   // the task that this is a clone of; 0: none
	Moves    []Moved    `json:"moves,omitempty"`    // the latest, oldest first

	Run Run `json:"run"`

	// Wake is when somebody has to look at the task; 0: nobody. Set by [Task.SetWake].
	Wake push.MilliTime `json:"wake,omitempty"`
}

// Spec is what was asked for. To and Message are kept as they were accepted, in the words of the REST contract, without insignificant white space.
type Spec struct {
	Name     string          `json:"name,omitempty"`
	To       json.RawMessage `json:"to"`
	List     push.MsgID      `json:"list,omitempty"` // the uploaded list that it goes to; 0: none, To says
	Message  json.RawMessage `json:"message"`
	Template bool            `json:"template,omitempty"` // the message has places for the variables of the list
	Test     []push.UserID   `json:"test,omitempty"`     // who gets it first; then the task waits to be resumed
	Pace     Pace            `json:"pace,omitzero"`
	Start    push.MilliTime  `json:"start,omitempty"`    // not before; 0: at once
	Deadline push.MilliTime  `json:"deadline,omitempty"` // what is not written by then is not written; 0: never
	Cron     string          `json:"cron,omitempty"`     // it recurs: each occurrence is a task of its own
	Zone     string          `json:"zone,omitempty"`     // IANA time zone of Cron; empty: UTC
}

// Pace is how fast a task goes: at most so many users a second, or evenly over a time. The zero Pace is as fast as it goes.
type Pace struct {
	PerSecond float64       `json:"per_second,omitempty"`
	Over      time.Duration `json:"over,omitempty"`
}

// Actor is who did something: an API key of the product.
type Actor struct {
	Key  string         `json:"key"`            // its id
	Name string         `json:"name,omitempty"` // as the key was named then
	At   push.MilliTime `json:"at"`
}

// Moved is one move that was made.
type Moved struct {
	Move   Move           `json:"move"`
	From   State          `json:"from"`
	To     State          `json:"to"`
	By     *Actor         `json:"by,omitempty"` // nil: by the system
	Reason string         `json:"reason,omitempty"`
	At     push.MilliTime `json:"at"`
}

// Run is how far a task has come, and who runs it.
type Run struct {
	// The lease.
	Holder string         `json:"holder,omitempty"` // the center that runs it; empty: nobody
	Until  push.MilliTime `json:"until,omitempty"`  // by the store's clock
	Token  uint64         `json:"token,omitempty"`  // rises with each takeover, and with each move that ends writing

	// The plan, settled when the task starts to write.
	Settled     bool           `json:"settled,omitempty"`
	Shards      int            `json:"shards,omitempty"`
	Common      bool           `json:"common,omitempty"`       // written to the common slots; otherwise to those of the users of a list
	List        push.MsgID     `json:"list,omitempty"`         // of whom it goes to: Spec.List, or one that was made of the audience; 0 with Common
	Users       int64          `json:"users,omitempty"`        // whom it is for in all, as far as that is known: with Common an estimate
	Reach       int64          `json:"reach,omitempty"`        // with Common, about how many devices it is for
	Created     push.MilliTime `json:"created,omitempty"`      // of the message
	Expires     push.MilliTime `json:"expires,omitempty"`      // of the message
	Started     push.MilliTime `json:"started,omitempty"`      // first written
	Ended       push.MilliTime `json:"ended,omitempty"`        // completed, stopped or failed
	Recalled    push.MilliTime `json:"recalled,omitempty"`     // taken back everywhere
	Resumed     push.MilliTime `json:"resumed,omitempty"`      // when writing began, or went on, last
	ResumedAt   int64          `json:"resumed_at,omitempty"`   // what was Written then
	ResumedPart float64        `json:"resumed_part,omitempty"` // which part of all was done then, 0 to 1
	TestDone    bool           `json:"test_done,omitempty"`    // the test group has it
	TestShown   bool           `json:"test_shown,omitempty"`   // somebody resumed the task after that

	// The checkpoint: what is written, or taken back, and what was counted of it.
	TestNext uint32         `json:"test_next,omitempty"` // the same of the batches of the test group, in their order
	Recount  bool           `json:"recount,omitempty"`   // it was taken from whoever wrote it: what was written after the checkpoint is still to be counted
	Next     Progress       `json:"next,omitempty"`      // by shard, the number of the first batch that is not known to be written
	Back     Progress       `json:"back,omitempty"`      // the same of a recall
	Written  int64          `json:"written,omitempty"`   // users it was written for; with Common those of the shards that were written, estimated
	Devices  int64          `json:"devices,omitempty"`   // they had
	Online   int64          `json:"online,omitempty"`    // of those devices, when it was written
	Skipped  int64          `json:"skipped,omitempty"`   // users left out, since they were in the test group
	Returned int64          `json:"returned,omitempty"`  // users it was taken back from
	Due      push.MilliTime `json:"due,omitempty"`       // of a recurring task, its next occurrence
	NextID   push.MsgID     `json:"next_id,omitempty"`   // the id that the next occurrence will have
	Kept     push.MilliTime `json:"kept,omitempty"`      // when somebody said last, while it waits, that its list is needed
}

// Progress is a number for each shard.
type Progress []uint32

// Reason says why a task is in its state, where an operator did not say it.
const (
	ReasonTest     = "test_group"       // paused: the test group has it, and the others wait to be let
	ReasonDeadline = "deadline"         // stopped: the deadline came
	ReasonSwitch   = "switched_off"     // paused: the switch of all tasks is off
	ReasonDisabled = "product_disabled" // paused: it was due while the product was disabled
)

// Reasons lists those that operators do not give.
func Reasons() []string { return []string{ReasonTest, ReasonDeadline, ReasonSwitch, ReasonDisabled} }
